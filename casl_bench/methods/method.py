"""The one interface of an editing method: fit on a task, get an editor, edit inverted images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, JsonValue
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.registry import Registry
from casl_bench.diffusion.inversion import Inversions
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.domains.dataset import Concept
from casl_bench.models.backbone import Backbone
from casl_bench.models.clip import ClipModel
from casl_bench.models.scorers import AttributeScorer
from casl_bench.sae.sae import SaeProvider

Supervision = Literal["none", "text", "labels"]
EditSpace = Literal["h_space", "weights", "pixels", "other"]


class MethodConfig(BaseModel):
    """Base of a method's settings: JSON values, frozen, unknown fields refused.

    The whole of it is part of a record, so two runs with equal records ran equal settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def image_steps(self) -> int:
        """Images times timesteps that one of its `fit_steps` learns from.

        A suite's budget is counted in these. One per image of a batch, unless a method says other.
        """
        return int(getattr(self, "batch_size", 1))


@dataclass(frozen=True)
class MethodInfo:
    """What a method declares of itself; the runner grants exactly what is declared."""

    name: str  # lower_snake, as on the command line
    title: str  # as in a table
    source: str  # paper and section or code the method follows, or "control"
    version: int  # raise it whenever the numbers may change
    # What guides the fit: nothing, the concept's text, or attribute labels. Methods are ranked
    # among those of the same supervision and among all.
    supervision: Supervision = "none"
    uses_text: bool = False  # with supervision "labels": whether `task.guide_clip` is asked for too
    # With supervision "labels": whether `task.all_labels` is asked for, those of every attribute
    uses_all_labels: bool = False
    # Where the edit happens: delta_h is added to h, the U-Net's weights are changed, pixels alone
    # are, without a pass of the U-Net, or anywhere else. A control that stands beside methods
    # stands beside those of its space.
    space: EditSpace = "other"
    uses_sae: bool = False  # whether `task.saes` is asked for
    uses_validation: bool = False  # whether `task.validation` is asked for
    bidirectional: bool = True  # whether a negative strength is meaningful (turns the concept off)
    # Whether the fit takes no random number, so that further fits of it would be the same ones
    deterministic: bool = False
    # Whether every run has it among its methods, as what a method must beat
    reference: bool = False
    # Names of scorers that the fit or the edits are optimised against. Such a scorer is never the
    # only one to score this method, see `runs.plan.judges`.
    guided_by: tuple[str, ...] = ()
    control: bool = False  # whether it is a control (unranked): floor or ceiling
    needs_oracle: bool = False  # controls only: may re-render the test images
    needs_scorer: bool = False  # controls only: may see the primary classifier
    # Controls only: this control is run once beside every method of its space
    beside: bool = False
    # Controls only: its strengths are chosen at equal effect, as a method's are; any other control
    # runs at strength 1, one beside a method at that method's
    matched: bool = False
    # Controls only: it is random, and is run once a draw; what its effect is matched to is the
    # target's change in any direction
    draws: bool = False
    on_present: bool = False  # controls only: it edits images that have the attribute already

    def __post_init__(self) -> None:
        """Raises UsageError where more is asked for than the supervision class allows."""
        for part in ("uses_text", "uses_all_labels"):
            if getattr(self, part) and self.supervision != "labels":
                raise UsageError(
                    f"method '{self.name}' declares {part} with supervision '{self.supervision}'",
                    hint='declare supervision="labels": it is ranked among methods with labels',
                )

    @property
    def sees_text(self) -> bool:
        """Whether a task grants it the guide CLIP."""
        return self.supervision == "text" or self.uses_text


control_info = partial(MethodInfo, source="control", version=1, control=True)
"""`MethodInfo` of a control of ours."""


@dataclass(frozen=True)
class FitCost:
    """What a fit cost."""

    parameters: int = 0  # numbers learned for this concept
    # U-Net passes in images (an encoder half and a decoder half count 0.5 each)
    unet_calls: float = 0.0
    seconds: float = 0.0  # wall time (provenance only: never compared between machines)


class OracleRenderer(Protocol):
    """Re-renders images with one factor flipped (controls only)."""

    def __call__(self, image_ids: Sequence[str], attribute: str) -> Tensor:
        """[n, 3, H, W] float32 in [-1, 1]."""


@dataclass(frozen=True)
class EditTask:
    """Everything a method may see of a concept. No test image, no scorer is reachable from here."""

    concept: Concept  # what to edit
    backbone: Backbone  # the frozen noise predictor
    train: Inversions  # inversions of the training split
    # [n] bool of the concept's attribute on the training images; None unless the method declares
    # supervision "labels"
    labels: Tensor | None
    trajectories: TrajectoryStore  # x_t and h at every visited timestep of `train`
    # Trains or loads the shared SAE; None unless the method declares `uses_sae`
    saes: SaeProvider | None
    # The CLIP that guides training, never the one that scores; None unless the method declares
    # supervision "text", or `uses_text` beside labels
    guide_clip: ClipModel | None
    # This fit's random numbers; the global random state must stay untouched
    generator: torch.Generator
    workspace: Path  # a scratch folder of this cell that survives an interruption
    # Attribute → [n] bool on the training images, of every attribute of the data set, the concept's
    # own among them; None unless the method declares `uses_all_labels`
    all_labels: Mapping[str, Tensor] | None = None
    # Inversions of validation images that lack the concept, without labels; None unless the method
    # declares `uses_validation`
    validation: Inversions | None = None
    oracle: OracleRenderer | None = None  # controls that declare `needs_oracle` only
    # With `oracle`: what it may flip beside the concept's attribute
    other_attributes: tuple[str, ...] = ()
    scorer: AttributeScorer | None = None  # controls that declare `needs_scorer` only
    # Controls that declare `beside` only: the fitted editor whose norm is matched
    beside: Editor | None = None


@runtime_checkable
class Editor(Protocol):
    """A fitted method for one concept."""

    cost: FitCost

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        """Edit n inverted images at S strengths: [S, n, 3, H, W] float32, not clamped.

        Strength 0 gives the reconstruction bit for bit, 1 is the fitted strength, and a negative
        one turns the concept off where the method is bidirectional. An image's pixels depend on
        that image and strength alone, never on the rest of the batch.
        """

    def state(self) -> dict[str, Tensor]:
        """Everything fitted, as tensors (stored as safetensors)."""


@runtime_checkable
class SupportsDeltaH(Protocol):
    """An editor that works by adding delta_h to h: lets controls and reports see the edit."""

    def delta_h(self, h: Tensor, t: int, strength: float) -> Tensor:
        """delta_h for h [n, C, h, w] at timestep t; same shape."""


@runtime_checkable
class SupportsWeightDelta(Protocol):
    """An editor that works by changing the U-Net's weights: lets controls match the change."""

    def weight_delta(self) -> Mapping[str, Tensor]:
        """Name in the U-Net's state dict → what strength 1 adds to that tensor, same shape."""


@runtime_checkable
class SupportsLatentRanking(Protocol):
    """An editor whose concept is aligned with ranked SAE latents: lets the probe test them."""

    def latent_ranking(self) -> Tensor:
        """[d_sae] int64, best aligned latent first."""

    def unit_ranking(self) -> Tensor:
        """[d_sae * h * w] int64 (latent, position) units, best first; index latent * h * w + p."""


@runtime_checkable
class SupportsPretrained(Protocol):
    """A method that runs on weights which somebody else trained: `--method-weights`."""

    def pretrained_file(self, folder: Path, concept: Concept) -> Path:
        """The file of this concept. Raises UsageError where the folder has none."""

    def read_pretrained(self, path: Path) -> dict[str, Tensor]:
        """Its content as `Editor.state()` would give it, for `restore`."""


@runtime_checkable
class SupportsFitKey(Protocol):
    """A method that shares its fit with others: equal keys mean equal `state()`."""

    def fit_key(self) -> dict[str, JsonValue]:
        """Everything but the task that the fit depends on."""


@runtime_checkable
class SupportsFitEstimate(Protocol):
    """A method whose fit is other than one U-Net pass an image and optimiser step: says what."""

    def fit_unet_calls(self, timesteps: Sequence[int]) -> float:
        """Estimated U-Net passes of a concept's fit, in images, on a walk of these timesteps."""


class EditingMethod(Protocol):
    """A registered method. Constructed with settings only; `fit` never changes it."""

    info: ClassVar[MethodInfo]
    config: MethodConfig

    def fit(self, task: EditTask) -> Editor:
        """Learn the concept. Deterministic given the task's generator."""

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> Editor:
        """The editor that `fit` returned, from its `state()`: same edits, bit for bit."""


C = TypeVar("C", bound=MethodConfig)


class ConfiguredMethod(Generic[C]):
    """Base of an `EditingMethod`: constructed with a config, or with keywords over its defaults."""

    # Of the settings; a subclass that has some names its own
    config_class: type[C] = MethodConfig  # type: ignore[assignment]

    def __init__(self, config: C | None = None, **settings: object) -> None:
        self.config = config or self.config_class.model_validate(settings)


class UnfittedMethod(ConfiguredMethod[C]):
    """Base of a method that learns nothing: what `fit` makes of a task is all there is."""

    def fit(self, task: EditTask) -> Editor:
        """The editor; a subclass gives it."""
        raise NotImplementedError

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> Editor:
        """The same editor."""
        return self.fit(task)


METHODS: Registry[EditingMethod] = Registry("method", entry_point_group="casl_bench.methods")

M = TypeVar("M", bound=type)


def register_method(cls: M) -> M:
    """Class decorator: make a method known under `cls.info.name`.

    The class is called with `config=None` (its defaults) or with keyword settings. Raises
    UsageError where it lacks a part of the interface.
    """
    for part in ("info", "fit", "restore"):
        if not hasattr(cls, part):
            raise UsageError(f"method class '{cls.__name__}' has no '{part}'", hint="see docs")
    METHODS.register(cls.info.name, cls)  # type: ignore[attr-defined]
    return cls


CONTROLS = (
    "identity", "oracle", "random_direction", "shuffled", "inverted", "destroy", "pixel_attack",
    "random_rotation", "random_weights", "template",
)  # fmt: skip
"""Without any of these a table would claim more than was checked."""


def check_controls() -> None:
    """Make sure that every control is registered.

    Raises InvalidBenchmarkError: one is not, with the reason where it is known.
    """
    for name in CONTROLS:
        if name not in METHODS:
            reasons = "; ".join(f"{m}: {r}" for m, r in sorted(METHODS.broken.items()))
            raise InvalidBenchmarkError(
                f"control '{name}' is missing" + (f": {reasons}" if reasons else ""),
                where="baselines",
                hint="install the package again, or restore the folder baselines/",
            )
