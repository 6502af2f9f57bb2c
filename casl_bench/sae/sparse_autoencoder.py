"""The sparse autoencoder itself, on plain vectors: two formulas and their initialisation."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from casl_bench.core.errors import InputError


class SaeConfig(BaseModel):
    """What kind of SAE. Unknown fields are refused.

    Attributes:
        d_in: length of an input vector.
        d_sae: number of latents.
        activation: "topk" keeps the k largest positive pre-activations of a vector, "relu" all
            positive ones (sparsity then comes from the L1 term of the loss).
        k: active latents a vector at most; used by "topk" only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    d_in: int = Field(gt=0)
    d_sae: int = Field(default=1024, gt=0)
    activation: Literal["topk", "relu"] = "topk"
    k: int = Field(default=32, gt=0)

    @model_validator(mode="after")
    def _k_fits(self) -> SaeConfig:
        if self.activation == "topk" and self.k > self.d_sae:
            raise ValueError(f"k = {self.k} is larger than d_sae = {self.d_sae}")
        return self


class SaeOutput(NamedTuple):
    """One pass.

    Attributes:
        z: [m, d_sae], >= 0.
        h_hat: [m, d_in], the reconstruction.
        pre: [m, d_sae], the pre-activations.
    """

    z: Tensor
    h_hat: Tensor
    pre: Tensor


class SparseAutoencoder(nn.Module):
    """z = act((h - b_pre) W_enc + b_enc);  h_hat = z W_dec + b_pre.

    act is TopK(ReLU(.)) or ReLU(.). Rows of W_dec have unit norm (kept so by the trainer), and the
    encoder starts as the decoder's transpose.

    Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.
    """

    def __init__(self, config: SaeConfig, generator: torch.Generator | None = None) -> None:
        """Initialise.

        Args:
            config: sizes and activation.
            generator: draws the decoder's directions; None leaves all weights zero, to be loaded.
        """
        super().__init__()
        self.config = config
        d_in, d_sae = config.d_in, config.d_sae
        directions = torch.zeros(d_sae, d_in)
        if generator is not None:
            directions = torch.randn(d_sae, d_in, generator=generator)
            directions /= directions.norm(dim=1, keepdim=True)
        self.W_enc = nn.Parameter(directions.T.clone().contiguous())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(directions)
        self.b_pre = nn.Parameter(torch.zeros(d_in))

    def pre_activations(self, h: Tensor) -> Tensor:
        """[m, d_in] → [m, d_sae], before the activation function."""
        if h.ndim != 2 or h.shape[1] != self.config.d_in:
            raise InputError(f"expected vectors [m, {self.config.d_in}], got {list(h.shape)}")
        return torch.addmm(self.b_enc, h - self.b_pre, self.W_enc)

    def activate(self, pre: Tensor) -> Tensor:
        """[m, d_sae] → [m, d_sae], >= 0, at most k positive a row with TopK."""
        z = torch.relu(pre)
        if self.config.activation == "relu":
            return z
        values, index = z.topk(self.config.k, dim=1)
        return torch.zeros_like(z).scatter(1, index, values)

    def encode(self, h: Tensor) -> Tensor:
        """[m, d_in] → z [m, d_sae], >= 0."""
        return self.activate(self.pre_activations(h))

    def decode(self, z: Tensor) -> Tensor:
        """Decode z [m, d_sae] → h_hat [m, d_in]."""
        return torch.addmm(self.b_pre, z, self.W_dec)

    def forward(self, h: Tensor) -> SaeOutput:
        """[m, d_in] → code, reconstruction and pre-activations."""
        pre = self.pre_activations(h)
        z = self.activate(pre)
        return SaeOutput(z, self.decode(z), pre)

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Scale every row of W_dec to norm 1."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Take from W_dec's gradient the part along each row, which normalising would undo."""
        gradient = self.W_dec.grad
        if gradient is not None:
            gradient -= (gradient * self.W_dec).sum(1, keepdim=True) * self.W_dec
