"""Supervised concept slots: a TopK autoencoder whose first latents are bound to known concepts."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from casl_bench.sae.dictionaries.top_k import keep_top_k
from casl_bench.sae.dictionary import Activations, SaeConfig, SaeInfo, register_sae
from casl_bench.sae.training import SparseAutoencoder


class ConceptSlotsConfig(SaeConfig):
    """Settings of concept slots."""

    concepts: int = Field(default=0, ge=0)  # slots; set by `fit` to the number of attributes
    bind_weight: float = Field(default=0.3, ge=0)  # of the binding term
    bind_images: int = Field(default=16, gt=0)  # labelled maps per step of the second phase
    pretrain: float = Field(default=0.5, ge=0, lt=1)  # share of the steps before binding


@register_sae
class ConceptSlots(SparseAutoencoder):
    """Pre-train, then bind: slot j learns to be active where attribute j is there, and only there.

    Slots are outside of the TopK, so that none is pushed out. Labels belong to whole images: the
    binding term is the cross-entropy of a slot's mean activation over positions, scaled and
    shifted, with the label. Choice: the source binds tokens; images have no labelled positions.
    """

    info: ClassVar[SaeInfo] = SaeInfo(
        name="concept_slots",
        title="concept slots",
        source="AlignSAE, arXiv 2512.02004 (pre-train, then bind); image-level labels are ours",
        version=1,
        needs="labels",
    )
    config_class = ConceptSlotsConfig

    def __init__(
        self, config: ConceptSlotsConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config, generator)
        self._set_slots(config.concepts)

    def _set_slots(self, count: int) -> None:
        self.config = self.config.model_copy(update={"concepts": count})
        self.slots = count
        self.slot_scale = nn.Parameter(torch.ones(count))
        self.slot_bias = nn.Parameter(torch.zeros(count))

    def activate(self, pre: Tensor) -> Tensor:
        """[m, d_sae] → [m, d_sae], >= 0: all positive slots, and the k largest of the others."""
        z = torch.relu(pre)
        own, others = z[:, : self.slots], z[:, self.slots :]
        return torch.cat([own, keep_top_k(others, min(self.config.k, others.shape[1]))], dim=1)

    def fit(self, activations: Activations) -> None:
        """Train as any autoencoder, with the binding term in the second phase."""
        _, labels = activations.labelled(1, torch.Generator().manual_seed(0))
        self._set_slots(labels.shape[1])
        super().fit(activations)

    def extra_loss(self, activations: Activations, share: float) -> Tensor:
        """The binding term, once `share` of the steps is past the pre-training."""
        config = self.config
        assert isinstance(config, ConceptSlotsConfig)
        if share < config.pretrain:
            return torch.zeros(())
        maps, labels = activations.labelled(config.bind_images, activations.generator)
        n, positions, _ = maps.shape
        slots = torch.relu(
            (maps.flatten(0, 1) - self.b_dec) @ self.W_enc[:, : self.slots]
            + self.b_enc[: self.slots]
        )
        pooled = slots.view(n, positions, self.slots).mean(1)
        logits = self.slot_scale.exp() * 4 * pooled + self.slot_bias
        bound: Tensor = functional.binary_cross_entropy_with_logits(logits, labels.float())
        return config.bind_weight * bound
