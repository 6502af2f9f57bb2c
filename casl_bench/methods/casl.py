"""CASL: concept-aligned sparse latents. The edit with the learned map.

Stage 1 is the SAE on h (shared, from `task.saes`), stage 2 a linear map of its code,
delta_h = W delta_z + b, learned with a directional CLIP loss plus L1 on the predicted clean
image. Its top-k latents alone, as a causal probe, are `casl_steer`.

Source: arXiv 2601.15441, sections on alignment and steering (no code published). Where the paper
is silent: one SAE sample a position; delta_z is the code itself; the injection is repeated at
every visited t >= t_edit; a group lasso on W's columns gathers the concept in few latents; a
latent's part in a concept is ‖column of W‖ times how well its activation tells images apart that
the guide CLIP ranks high and low, as a product with mean activation finds latents that are always
on. The paper adds delta_h to h, which is `casl`; with Asyrp's asymmetric step in the place of that
it is `casl_asymmetric`, a row of its own. Each is fitted on the trajectories that it edits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, TypeVar

import torch
from pydantic import Field, JsonValue, PositiveInt
from torch import Tensor, nn

from casl_bench.core.errors import InputError
from casl_bench.methods.direction_fit import (
    DirectionFitConfig,
    OneScaleAdam,
    direction_fit_calls,
    fit_direction,
)
from casl_bench.methods.h_space_editor import EditWindow, HSpaceEditor
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    FitCost,
    MethodInfo,
    register_method,
)
from casl_bench.methods.step_directions import visited_steps
from casl_bench.methods.text_contrast import retrieve, standardised_contrast
from casl_bench.sae.sae import HSpaceSae

C = TypeVar("C", bound="CaslConfig")

Ranking = Literal["contrast", "activation"]


class ConceptAlignment(nn.Module):
    """The linear map of one concept from a frozen SAE's code to a change of h.

    Attributes:
        W: [C, d_sae], zero at the start.
        b: [C], zero at the start.
    """

    # [d_sae, h, w] each, over training images and the edit window, not trained: the mean code, and
    # how far the codes of images that the text retrieves differ from the others' (in sd)
    mean_activation: Tensor
    contrast: Tensor

    def __init__(self, sae: HSpaceSae, mean_activation: Tensor, contrast: Tensor) -> None:
        """Start at zero: an unfitted alignment of a frozen SAE changes nothing."""
        super().__init__()
        self.sae = sae
        self.W = nn.Parameter(torch.zeros(sae.channels, sae.d_sae, device=sae.device))
        self.b = nn.Parameter(torch.zeros(sae.channels, device=sae.device))
        self.register_buffer("mean_activation", mean_activation.to(sae.device))
        self.register_buffer("contrast", contrast.to(sae.device))

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

    @torch.no_grad()
    def shrink(self, amount: float) -> None:
        """Proximal step of a group lasso: each column of W shorter by `amount`, at least 0."""
        norms = self.W.norm(dim=0).clamp_min(1e-12)
        self.W.mul_((1 - amount / norms).clamp_min(0))

    def latent_scores(self, ranking: Ranking = "contrast") -> Tensor:
        """[d_sae] >= 0: a latent's part in the concept.

        ‖column of W‖ times the root mean square of its contrast over positions, or, as "activation"
        has it, times its mean activation.
        """
        units = self.contrast.pow(2).mean((1, 2)).sqrt()
        if ranking == "activation":
            units = self.mean_activation.mean((1, 2))
        scores: Tensor = self.W.detach().norm(dim=0) * units
        return scores

    def unit_scores(self, ranking: Ranking = "contrast") -> Tensor:
        """[d_sae * h * w]: the same for each (latent, position), index latent * h * w + p."""
        units = self.contrast.abs() if ranking == "contrast" else self.mean_activation
        scores: Tensor = self.W.detach().norm(dim=0)[:, None] * units.flatten(1)
        return scores.flatten()

    def tensors(self) -> dict[str, Tensor]:
        """What was fitted, for storing."""
        return {
            "W": self.W.detach().clone(),
            "b": self.b.detach().clone(),
            "mean_activation": self.mean_activation.clone(),
            "contrast": self.contrast.clone(),
        }

    @classmethod
    def from_tensors(cls, sae: HSpaceSae, tensors: Mapping[str, Tensor]) -> ConceptAlignment:
        """The alignment that `tensors` came from."""
        alignment = cls(sae, tensors["mean_activation"], tensors["contrast"])
        with torch.no_grad():
            alignment.W.copy_(tensors["W"])
            alignment.b.copy_(tensors["b"])
        return alignment


def top_mask(scores: Tensor, k: int) -> Tensor:
    """[n] bool with the k best scores true; ties go to the lower index."""
    order = torch.argsort(scores, descending=True, stable=True)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[order[:k]] = True
    return mask


class CaslConfig(DirectionFitConfig):
    """Settings of the alignment, beside those of its fit, and of the edit."""

    # Group lasso on W's columns: after each step they are shortened by this share of the root mean
    # square step of a column, rate · sqrt(C). 0 is none; at 1 hardly a column leaves 0.
    gather: float = Field(0.1, ge=0, le=1)
    t_edit: int = 350  # inject at visited timesteps t >= t_edit
    asymmetric: bool = False  # asymmetric step (as Asyrp) instead of plain injection
    # Factor on delta_h at strength 1, a unit only: strengths are searched as far as it takes (the
    # paper picks factors from 16 to 160 by eye)
    gain: float = 3.0
    ranking: Ranking = "contrast"  # what ranks latents together with ‖column of W‖
    ranked_images: int = Field(128, ge=2)  # training images that the ranking looks at
    # Of these, the share taken from either end of the guide CLIP's order; 0.5 takes them all
    retrieved_share: float = Field(0.5, gt=0, le=0.5)


def fit_alignment(task: EditTask, config: CaslConfig) -> tuple[ConceptAlignment, FitCost]:
    """Learn W and b of the task's concept. Raises InputError without an SAE or a guide CLIP."""
    if task.saes is None or task.guide_clip is None:
        raise InputError("CASL needs an SAE and a guide CLIP in its task")
    sae = task.saes.get()
    store = task.trajectories
    few = torch.arange(min(config.ranked_images, len(store)))
    images = store.x_t(0, few).to(sae.device)
    groups = retrieve(task.guide_clip, images, task.concept, config.retrieved_share)
    activations, contrasts = [], []
    for step in visited_steps(store.timesteps, config.t_edit):
        codes = sae.encode(store.h(step, few).to(sae.device), store.timesteps[step])
        activations.append(codes.mean(0))
        contrasts.append(standardised_contrast(*(codes[g] for g in groups)))
    mean, contrast = (torch.stack(x).mean(0) for x in (activations, contrasts))
    alignment = ConceptAlignment(sae, mean, contrast)
    longest = config.gather * math.sqrt(sae.channels)
    calls = fit_direction(
        lambda h, t, temb: alignment(h, t),
        [alignment.W, alignment.b],
        task,
        config,
        EditWindow(config.t_edit, asymmetric=config.asymmetric),
        optimiser_class=OneScaleAdam,
        after_step=lambda rate: alignment.shrink(rate * longest),
    )
    parameters = alignment.W.numel() + alignment.b.numel()
    return alignment.requires_grad_(False), FitCost(parameters=parameters, unet_calls=calls)


class AlignmentEditor(HSpaceEditor):
    """Base of editors that act through a concept's alignment, whose latents it ranks."""

    def __init__(
        self,
        task: EditTask,
        window: EditWindow,
        ranking: Ranking,
        alignment: ConceptAlignment,
        cost: FitCost,
    ) -> None:
        super().__init__(task.backbone, window, noise_seed=0, cost=cost)
        self.alignment, self.ranking = alignment, ranking

    def latent_scores(self) -> Tensor:
        """[d_sae] each latent's part in the concept, see `ConceptAlignment.latent_scores`."""
        return self.alignment.latent_scores(self.ranking)

    def latent_ranking(self) -> Tensor:
        """[d_sae] latents by their part in the concept, best first, on the CPU."""
        return torch.argsort(self.latent_scores().cpu(), descending=True, stable=True)

    def unit_ranking(self) -> Tensor:
        """[d_sae * h * w] (latent, position) units likewise, best first."""
        scores = self.alignment.unit_scores(self.ranking).cpu()
        return torch.argsort(scores, descending=True, stable=True)

    def state(self) -> dict[str, Tensor]:
        """W, b, and the mean activation and contrast that rank."""
        return self.alignment.tensors()


class CaslEditor(AlignmentEditor):
    """Adds the learned map's delta_h to h."""

    def __init__(
        self, task: EditTask, config: CaslConfig, alignment: ConceptAlignment, cost: FitCost
    ) -> None:
        window = EditWindow(config.t_edit, asymmetric=config.asymmetric)
        super().__init__(task, window, config.ranking, alignment, cost)
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
        fitted = CaslConfig.model_fields.keys() - {"ranking", "gain"}  # how it is read
        return {"alignment": 3, **self.config.model_dump(include=fitted)}

    def fit_unet_calls(self, timesteps: Sequence[int]) -> float:
        """The walks of the alignment's fit."""
        window = EditWindow(self.config.t_edit, asymmetric=self.config.asymmetric)
        return direction_fit_calls(self.config, window, timesteps)

    def fit(self, task: EditTask) -> AlignmentEditor:
        return type(self).editor_class(task, self.config, *fit_alignment(task, self.config))

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> AlignmentEditor:
        if task.saes is None:
            raise InputError("CASL needs an SAE in its task")
        alignment = ConceptAlignment.from_tensors(task.saes.get(), state).requires_grad_(False)
        return type(self).editor_class(task, self.config, alignment, FitCost())


class PlainCaslConfig(CaslConfig):
    """Settings of the edit as the paper has it: delta_h is added to h."""

    asymmetric: Literal[False] = False


@register_method
class Casl(_AlignmentMethod[CaslConfig]):
    """The edit with the learned map, added to h."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="casl",
        title="CASL",
        source="CASL, arXiv 2601.15441",
        version=3,
        supervision="text",
        space="h_space",
        uses_sae=True,
    )
    config_class: type[CaslConfig] = PlainCaslConfig
    editor_class = CaslEditor

    @classmethod
    def toy_config(cls) -> CaslConfig:
        """A budget for tests."""
        return cls.config_class(fit_steps=3, batch_size=2, ranked_images=4)

    @classmethod
    def search_space(cls) -> dict[str, tuple[int | float | str | bool, ...]]:
        """What a tuning sweep varies: pace, restraint, sparsity and window of the fit."""
        return {
            "learning_rate": (1e-3, 2e-3, 5e-3),
            "l1_weight": (0.03, 0.1, 0.3),
            "gather": (0.05, 0.1, 0.2),
            "t_edit": (100, 250, 350, 500),
        }


class AsymmetricCaslConfig(CaslConfig):
    """Settings of the edit by Asyrp's asymmetric step."""

    asymmetric: Literal[True] = True


@register_method
class CaslAsymmetric(Casl):
    """The edit with the learned map, by Asyrp's asymmetric step."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="casl_asymmetric",
        title="CASL (asymmetric step)",
        source="CASL, arXiv 2601.15441, by the step of Kwon et al., ICLR 2023",
        version=2,
        supervision="text",
        space="h_space",
        uses_sae=True,
    )
    config_class = AsymmetricCaslConfig


class CaslSteerConfig(CaslConfig):
    """Settings of the causal probe, beside those of the alignment it probes."""

    k: PositiveInt = 16  # number of latents steered
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
        super().__init__(task, window, config.ranking, alignment, cost)
        self.config = config
        self.mask = top_mask(self.latent_scores(), config.k)
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

    config_class: type[CaslSteerConfig] = CaslSteerConfig
    editor_class = CaslSteerEditor
    info: ClassVar[MethodInfo] = MethodInfo(
        name="casl_steer",
        title="CASL-Steer (k = 16)",
        source="CASL, arXiv 2601.15441, stage 3",
        version=3,
        supervision="text",
        space="h_space",
        uses_sae=True,
    )

    @classmethod
    def toy_config(cls) -> CaslSteerConfig:
        """A budget for tests."""
        return cls.config_class(fit_steps=3, batch_size=2, ranked_images=4)

    @classmethod
    def search_space(cls) -> dict[str, tuple[int | float | str | bool, ...]]:
        """What a tuning sweep varies: how the alignment is fitted and read, and when."""
        return {
            "gather": (0.05, 0.1, 0.2),
            "t_edit": (100, 250, 350, 500),
            "reading": ("map", "decoder"),
            "asymmetric": (False, True),
        }


class SingleLatentConfig(CaslSteerConfig):
    """Settings of the probe of one latent."""

    k: Literal[1] = 1  # number of latents steered, as in the paper's main table


@register_method
class CaslSteerSingle(CaslSteer):
    """The concept's best latent alone moves the image."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="casl_steer_k1",
        title="CASL-Steer (k = 1)",
        source="CASL, arXiv 2601.15441, stage 3, main table",
        version=2,
        supervision="text",
        space="h_space",
        uses_sae=True,
    )
    config_class = SingleLatentConfig
