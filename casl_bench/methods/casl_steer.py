"""CASL-Steer: the concept's top-k latents alone move the image, a causal probe of the alignment.

Source: arXiv 2601.15441, stage 3 and appendix 7.10. The paper decodes "the shift" of the top-k
latents; two readings are offered. "map": the learned map restricted to the top-k latents,
delta_h = strength · gain · W_top-k z, b left out; it acts where the latents are active.
"decoder": the SAE decodes a shift of the top-k latents placed where each lives (its mean map),
signed by whether the map pushes along the latent's own decoder direction. An even shift over all
positions is not offered: concepts are local, and it moved nothing when tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import JsonValue
from torch import Tensor

from casl_bench.concepts.alignment import ConceptAlignment, top_mask
from casl_bench.methods.casl import (
    AlignmentEditor,
    CaslConfig,
    alignment_key,
    fit_alignment,
    restore_alignment,
)
from casl_bench.methods.generation import EditWindow
from casl_bench.methods.method import EditTask, FitCost, MethodInfo, register_method


class CaslSteerConfig(CaslConfig):
    """Settings of the probe, beside those of the alignment it probes.

    Attributes:
        k: number of latents steered.
        reading: "map" or "decoder", see the module.
        gain: factor on the shift at strength 1, twice CASL's, since k latents carry only a part of
            the map.
        single_shift: inject at the first visited timestep alone instead of all t >= t_edit.
    """

    k: int = 16
    reading: Literal["map", "decoder"] = "map"
    gain: float = 6.0
    single_shift: bool = False


class CaslSteerEditor(AlignmentEditor):
    """Shifts h by what the top-k latents say."""

    def __init__(
        self, task: EditTask, config: CaslSteerConfig, alignment: ConceptAlignment, cost: FitCost
    ) -> None:
        """See `fit_alignment`."""
        first = task.trajectories.timesteps[-1] if config.single_shift else config.t_edit
        window = EditWindow(first, asymmetric=config.asymmetric)
        super().__init__(task, window, alignment, cost)
        self.config = config
        self.mask = top_mask(alignment.latent_scores(), config.k)
        if config.reading == "decoder":
            # Each latent's shift is its own mean map, as strong as the map pushes along it.
            along = (alignment.W * alignment.sae.sae.W_dec.T).sum(0)
            self.shift = alignment.mean_activation * (along * self.mask)[:, None, None]

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """The shift of strength 1."""
        gain = self.config.gain
        if self.config.reading == "map":
            return gain * self.alignment(h, t, mask=self.mask, bias=False)
        return gain * self.alignment.sae.decode_delta(self.shift.expand(len(h), -1, -1, -1), t)


@register_method
class CaslSteer:
    """The top-k latents alone."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="casl_steer",
        title="CASL-Steer (top-k)",
        source="CASL, arXiv 2601.15441, stage 3",
        version=1,
        supervision="text",
        space="h_space",
        uses_sae=True,
    )
    config: CaslSteerConfig

    def __init__(self, config: CaslSteerConfig | None = None, **settings: object) -> None:
        """Settings as a config, or as keywords over the defaults."""
        self.config = config or CaslSteerConfig.model_validate(settings)

    @classmethod
    def toy_config(cls) -> CaslSteerConfig:
        """A budget for tests."""
        return CaslSteerConfig(fit_steps=3, batch_size=2, mean_code_images=4, k=4)

    @classmethod
    def search_space(cls) -> dict[str, tuple[int | float | str | bool, ...]]:
        """What a tuning sweep varies: how much of the alignment is read, when and how far."""
        return {
            "k": (8, 16, 32),
            "t_edit": (250, 350),
            "gain": (6.0, 12.0, 24.0),
            "asymmetric": (False, True),
        }

    def fit_key(self) -> dict[str, JsonValue]:
        """What the fit depends on: CASL and CASL-Steer share one alignment."""
        return alignment_key(self.config)

    def fit(self, task: EditTask) -> CaslSteerEditor:
        """Learn the concept's map, then keep its top-k latents."""
        alignment, cost = fit_alignment(task, self.config)
        return CaslSteerEditor(task, self.config, alignment, cost)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> CaslSteerEditor:
        """The editor from a stored map."""
        return CaslSteerEditor(task, self.config, restore_alignment(task, state), FitCost())
