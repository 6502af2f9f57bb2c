"""Controls: what a dictionary must beat, and the best that the known factors allow."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from casl_bench.core.errors import InputError
from casl_bench.sae.dictionaries.top_k import TopK
from casl_bench.sae.dictionary import Activations, Dictionary, SaeInfo, register_sae

_SHRINKAGE = 0.1
"""Of the oracle's noise covariance towards a multiple of the identity, as images are few."""


class LinearDictionary(Dictionary):
    """Base of linear codes: z = (h - b_dec) W_enc, of either sign."""

    def encode(self, h: Tensor) -> Tensor:
        """[m, d_in] → z [m, d_sae]."""
        return self.pre_activations(h)

    def set_weights(self, W_enc: Tensor, W_dec: Tensor, b_dec: Tensor) -> None:
        """Take these weights; the number of latents follows."""
        count = W_dec.shape[0]
        self.config = self.config.model_copy(
            update={"d_sae": count, "k": min(self.config.k, count)}
        )
        self.W_enc, self.W_dec = nn.Parameter(W_enc.contiguous()), nn.Parameter(W_dec.contiguous())
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(count)), nn.Parameter(b_dec)


@register_sae
class RawChannels(LinearDictionary):
    """The channels themselves: no dictionary at all."""

    info: ClassVar[SaeInfo] = SaeInfo(
        name="raw_channels", title="raw channels", source="control", version=1,
        control=True, signed=True, seeded=False, sized_by=(),
    )  # fmt: skip

    def fit(self, activations: Activations) -> None:
        """Nothing is learned."""
        eye = torch.eye(self.d_in)
        self.set_weights(eye, eye.clone(), torch.zeros(self.d_in))


@register_sae
class RandomOrthogonal(LinearDictionary):
    """The channels in a random rotation: what is the channels' own basis worth?"""

    info: ClassVar[SaeInfo] = SaeInfo(
        name="random_orthogonal", title="random orthogonal", source="control", version=1,
        control=True, signed=True, sized_by=(),
    )  # fmt: skip

    def fit(self, activations: Activations) -> None:
        """Sample a rotation, uniform up to sign."""
        normal = torch.randn(self.d_in, self.d_in, generator=activations.generator)
        rotation, upper = torch.linalg.qr(normal)
        rotation = rotation * upper.diagonal().sign()
        self.set_weights(rotation, rotation.T, torch.zeros(self.d_in))


@register_sae
class Pca(LinearDictionary):
    """The first k principal components: as many numbers per vector as a code of k latents."""

    info: ClassVar[SaeInfo] = SaeInfo(
        name="pca", title="PCA", source="control", version=1,
        control=True, signed=True, seeded=False, sized_by=("k",),
    )  # fmt: skip

    def fit(self, activations: Activations) -> None:
        """Components of the covariance, summed in float64."""
        mean, covariance = moments(activations, self.d_in)
        axes = torch.linalg.eigh(covariance).eigenvectors.T.flip(0)  # strongest first
        axes = axes[: min(self.config.k, self.d_in)].float()
        self.set_weights(axes.T, axes, mean.float())


def moments(activations: Activations, d_in: int) -> tuple[Tensor, Tensor]:
    """Mean [d_in] and covariance [d_in, d_in] of all vectors, float64."""
    total = torch.zeros(d_in, dtype=torch.float64)
    products = torch.zeros(d_in, d_in, dtype=torch.float64)
    count = 0
    for rows in activations.batches():
        rows = rows.double()
        total += rows.sum(0)
        products += rows.T @ rows
        count += len(rows)
    mean = total / count
    return mean, products / count - torch.outer(mean, mean)


@register_sae
class UntrainedSae(TopK):
    """A TopK autoencoder at its initial weights: what does training add?

    Source: Heap et al. 2025, arXiv 2501.17727, find that random networks' autoencoders score like
    trained ones; the audit of metrics asks for this row first.
    """

    info: ClassVar[SaeInfo] = SaeInfo(
        name="untrained", title="untrained SAE", source="control", version=1, control=True
    )

    def fit(self, activations: Activations) -> None:
        """No step is taken."""


@register_sae
class Oracle(LinearDictionary):
    """One latent per known factor: its direction from true pairs, read out without the others.

    Direction d_a: the mean over pairs and positions of the difference that flipping factor a makes,
    weighted by its size at each position, unit length. Read-out: the best linear unbiased one,
    W_enc = S⁻¹ Dᵀ (D S⁻¹ Dᵀ)⁻¹ with S the covariance of all vectors, so that the code of one
    factor's direction is 1 for itself and 0 for the other factors.

    Source: Gauss-Markov; ours as a dictionary.
    """

    info: ClassVar[SaeInfo] = SaeInfo(
        name="oracle", title="oracle (known factors)", source="control", version=1,
        needs="pairs", control=True, signed=True, seeded=False, sized_by=(),
    )  # fmt: skip

    def fit(self, activations: Activations) -> None:
        """Directions from pairs, read-outs from all vectors."""
        pairs = activations.pairs()
        directions = []
        for attribute in range(int(pairs.attribute.max()) + 1):
            rows = pairs.attribute == attribute
            moved = (pairs.on[rows] - pairs.off[rows]).double().mean(0)  # [P, C]
            weights = moved.norm(dim=1, keepdim=True)
            direction = (weights * moved).sum(0)
            if not float(direction.norm()) > 0:
                raise InputError(f"flipping factor {attribute} changes no activation")
            directions.append(direction / direction.norm())
        D = torch.stack(directions)
        mean, covariance = moments(activations, self.d_in)
        scale = covariance.diagonal().mean()
        noise = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * scale * torch.eye(self.d_in)
        whitened = torch.linalg.solve(noise, D.T)
        read_out = whitened @ torch.linalg.pinv(D @ whitened)
        self.set_weights(read_out.float(), D.float(), mean.float())
