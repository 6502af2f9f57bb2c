"""CASL: concept-aligned sparse latents. The edit with the learned map.

Stage 1 is the SAE on h (shared, from `task.saes`), stage 2 a linear map of its code,
delta_h = W delta_z + b, learned with a directional CLIP loss plus L1 on the predicted clean
image. Its top-k latents alone, as a causal probe, are `casl_steer`.

Source: arXiv 2601.15441, sections on alignment and steering (no code published). Where the paper
is silent: one SAE sample a position; delta_z is the code itself; the injection is repeated at
every visited t >= t_edit; a group-lasso term on W gathers the concept in few latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, TypeVar

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from casl_bench.core.errors import InputError
from casl_bench.methods.direction_fit import DirectionFitConfig, fit_direction
from casl_bench.methods.h_space_editor import EditWindow, HSpaceEditor
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    FitCost,
    MethodInfo,
    register_method,
)
from casl_bench.sae.sae import HSpaceSae

C = TypeVar("C", bound="CaslConfig")


class ConceptAlignment(nn.Module):
    """The linear map of one concept from a frozen SAE's code to a change of h.

    Attributes:
        W: [C, d_sae], zero at the start.
        b: [C], zero at the start.
    """

    # [d_sae, h, w], mean code of the training images over the edit window: what ranks latents
    # together with W, not trained
    mean_activation: Tensor

    def __init__(self, sae: HSpaceSae, mean_activation: Tensor) -> None:
        """Start at zero: an unfitted alignment of a frozen SAE changes nothing."""
        super().__init__()
        self.sae = sae
        self.W = nn.Parameter(torch.zeros(sae.channels, sae.d_sae))
        self.b = nn.Parameter(torch.zeros(sae.channels))
        self.register_buffer("mean_activation", mean_activation)

    def forward(self, h: Tensor, t: int, mask: Tensor | None = None, bias: bool = True) -> Tensor:
        """delta_h [n, C, h, w] of h, likewise, at a timestep t that the SAE knows.

        The map works in the SAE's normalised units and is scaled by the timestep's spread of h, so
        that one W serves all timesteps. `mask` [d_sae] bool names the latents that take part (all
        where None), `bias` whether b is added.
        """
        with torch.no_grad():
            z = self.sae.encode(h, t)
        return self.shift(z, t, mask=mask, bias=bias)

    def shift(self, z: Tensor, t: int, mask: Tensor | None = None, bias: bool = True) -> Tensor:
        """delta_h of a code z [n, d_sae, h, w]; see `forward`."""
        weight = self.W if mask is None else self.W * mask
        # One product an image: its numbers must not depend on the batch.
        rows = [weight @ code.flatten(1) for code in z]
        delta = torch.stack(rows).reshape(len(z), self.sae.channels, *z.shape[2:])
        if bias:
            delta = delta + self.b[:, None, None]
        delta = delta * self.sae.scale[self.sae.timesteps.index(t)]
        return delta

    def sparsity(self) -> Tensor:
        """Group-lasso term: the sum over latents of ‖column of W‖ · mean activation.

        With it the concept gathers in few latents, which is what makes a top-k probe of it
        meaningful; without, the map spreads over all latents that are ever active.
        """
        smooth = (self.W.pow(2).sum(0) + 1e-8).sqrt()
        total: Tensor = (smooth * self.mean_activation.mean((1, 2))).sum()
        return total

    def latent_scores(self) -> Tensor:
        """[d_sae]: ‖column of W‖ · mean activation, what ranks a latent's part in the concept."""
        scores: Tensor = self.W.detach().norm(dim=0) * self.mean_activation.mean((1, 2))
        return scores

    def unit_scores(self) -> Tensor:
        """[d_sae * h * w]: the same for each (latent, position), index latent * h * w + p."""
        scores: Tensor = self.W.detach().norm(dim=0)[:, None] * self.mean_activation.flatten(1)
        return scores.flatten()

    def tensors(self) -> dict[str, Tensor]:
        """What was fitted, for storing."""
        return {
            "W": self.W.detach().clone(),
            "b": self.b.detach().clone(),
            "mean_activation": self.mean_activation.clone(),
        }

    @classmethod
    def from_tensors(cls, sae: HSpaceSae, tensors: Mapping[str, Tensor]) -> ConceptAlignment:
        """The alignment that `tensors` came from."""
        alignment = cls(sae, tensors["mean_activation"])
        with torch.no_grad():
            alignment.W.copy_(tensors["W"])
            alignment.b.copy_(tensors["b"])
        return alignment


def top_mask(scores: Tensor, k: int) -> Tensor:
    """[n] bool with the k best scores true; ties go to the lower index."""
    order = torch.argsort(scores, descending=True, stable=True)
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[order[:k]] = True
    return mask


@torch.no_grad()
def mean_code(sae: HSpaceSae, maps: list[tuple[Tensor, int]]) -> Tensor:
    """Mean code [d_sae, h, w] over images and timesteps, of pairs (h [n, C, h, w], t)."""
    (h, t), *others = maps
    total, count = sae.encode(h, t).sum(0), len(h)
    for h, t in others:
        total, count = total + sae.encode(h, t).sum(0), count + len(h)
    return total / count


class CaslConfig(DirectionFitConfig):
    """Settings of the alignment, beside those of its fit, and of the edit."""

    sparsity_weight: float = 1e-3  # weight of the group lasso on W's columns
    t_edit: int = 350  # inject at visited timesteps t >= t_edit
    asymmetric: bool = False  # asymmetric step (as Asyrp) instead of plain injection
    # Factor on delta_h at strength 1. The directional loss is content with a small step in the
    # right direction and the L1 term prefers one, so the fitted map points rather than moves (the
    # paper picks factors from 16 to 160 by eye).
    gain: float = 3.0
    mean_code_images: int = 64  # images that the ranking's mean activation is taken over


def fit_alignment(task: EditTask, config: CaslConfig) -> tuple[ConceptAlignment, FitCost]:
    """Learn W and b of the task's concept. Raises InputError without an SAE or a guide CLIP."""
    if task.saes is None:
        raise InputError("CASL needs an SAE in its task")
    sae = task.saes.get()
    store = task.trajectories
    visited = [s for s, t in enumerate(store.timesteps) if t >= config.t_edit]
    few = slice(0, config.mean_code_images)
    activation = mean_code(sae, [(store.h(s, few), store.timesteps[s]) for s in visited])
    alignment = ConceptAlignment(sae, activation)
    calls = fit_direction(
        lambda h, t, temb: alignment(h, t),
        [alignment.W, alignment.b],
        task,
        config,
        config.t_edit,
        penalty=lambda: config.sparsity_weight * alignment.sparsity(),
    )
    parameters = alignment.W.numel() + alignment.b.numel()
    return alignment.requires_grad_(False), FitCost(parameters=parameters, unet_calls=calls)


class AlignmentEditor(HSpaceEditor):
    """Base of editors that act through a concept's alignment, whose latents it ranks."""

    def __init__(
        self, task: EditTask, window: EditWindow, alignment: ConceptAlignment, cost: FitCost
    ) -> None:
        super().__init__(task.backbone, window, noise_seed=0, cost=cost)
        self.alignment = alignment

    def latent_ranking(self) -> Tensor:
        """[d_sae] latents by ‖column of W‖ · mean activation, best first."""
        return torch.argsort(self.alignment.latent_scores(), descending=True, stable=True)

    def unit_ranking(self) -> Tensor:
        """[d_sae * h * w] (latent, position) units by the same product, best first."""
        return torch.argsort(self.alignment.unit_scores(), descending=True, stable=True)

    def state(self) -> dict[str, Tensor]:
        """W, b and the mean activation that ranks."""
        return self.alignment.tensors()


class CaslEditor(AlignmentEditor):
    """Adds the learned map's delta_h to h."""

    def __init__(
        self, task: EditTask, config: CaslConfig, alignment: ConceptAlignment, cost: FitCost
    ) -> None:
        window = EditWindow(config.t_edit, asymmetric=config.asymmetric)
        super().__init__(task, window, alignment, cost)
        self.gain = config.gain

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """W z + b at each position, times the gain."""
        delta_h: Tensor = self.gain * self.alignment(h, t)
        return delta_h


class _AlignmentMethod(ConfiguredMethod[C]):
    """A method over an alignment, which CASL and CASL-Steer share."""

    # Made of (task, config, alignment, cost)
    editor_class: Callable[[EditTask, C, ConceptAlignment, FitCost], AlignmentEditor]

    def fit_key(self) -> dict[str, JsonValue]:
        fitted = CaslConfig.model_fields.keys() - {"asymmetric", "gain"}  # how it is injected
        return {"alignment": 1, **self.config.model_dump(include=fitted)}

    def fit(self, task: EditTask) -> AlignmentEditor:
        return type(self).editor_class(task, self.config, *fit_alignment(task, self.config))

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> AlignmentEditor:
        if task.saes is None:
            raise InputError("CASL needs an SAE in its task")
        alignment = ConceptAlignment.from_tensors(task.saes.get(), state).requires_grad_(False)
        return type(self).editor_class(task, self.config, alignment, FitCost())


@register_method
class Casl(_AlignmentMethod[CaslConfig]):
    """The edit with the learned map."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="casl",
        title="CASL",
        source="CASL, arXiv 2601.15441",
        version=1,
        supervision="text",
        space="h_space",
        uses_sae=True,
    )
    config_class, editor_class = CaslConfig, CaslEditor

    @classmethod
    def toy_config(cls) -> CaslConfig:
        """A budget for tests."""
        return CaslConfig(fit_steps=3, batch_size=2, mean_code_images=4)

    @classmethod
    def search_space(cls) -> dict[str, tuple[int | float | str | bool, ...]]:
        """What a tuning sweep varies: pace, restraint and window of the fit, size of the edit."""
        return {
            "learning_rate": (1e-3, 2e-3, 5e-3),
            "l1_weight": (0.03, 0.1, 0.3),
            "t_edit": (250, 350, 500),
            "asymmetric": (False, True),
            "gain": (1.5, 3.0, 6.0),
        }


class CaslSteerConfig(CaslConfig):
    """Settings of the causal probe, beside those of the alignment it probes."""

    k: int = 16  # number of latents steered
    reading: Literal["map", "decoder"] = "map"  # see the module
    # Factor on the shift at strength 1, twice CASL's, since k latents carry only a part of the map
    gain: float = 6.0
    # Inject at the first visited timestep alone instead of all t >= t_edit
    single_shift: bool = False


class CaslSteerEditor(AlignmentEditor):
    """Shifts h by what the top-k latents say."""

    def __init__(
        self, task: EditTask, config: CaslSteerConfig, alignment: ConceptAlignment, cost: FitCost
    ) -> None:
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
            delta_h: Tensor = gain * self.alignment(h, t, mask=self.mask, bias=False)
        else:
            shift = self.shift.expand(len(h), -1, -1, -1)
            delta_h = gain * self.alignment.sae.decode_delta(shift, t)
        return delta_h


@register_method
class CaslSteer(_AlignmentMethod[CaslSteerConfig]):
    """The concept's top-k latents alone move the image."""

    config_class, editor_class = CaslSteerConfig, CaslSteerEditor
    info: ClassVar[MethodInfo] = MethodInfo(
        name="casl_steer",
        title="CASL-Steer (top-k)",
        source="CASL, arXiv 2601.15441, stage 3",
        version=1,
        supervision="text",
        space="h_space",
        uses_sae=True,
    )

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
