"""Principal components of h over training images; text picks the one that fits a concept.

The directions are unsupervised: PCA over images, on h of all visited timesteps of the edit window
put end to end, so that one component has a direction at every timestep. Which component and sign
a concept gets is read off the text: a few validation images are edited along each, and the one
that moves their guide-CLIP embedding furthest along the text's direction is taken. For that choice
the method counts as guided by text.

Source: Haas et al., "Discovering interpretable directions in the semantic latent space of
diffusion models", 2023, the unsupervised directions, where a person names the components. Choices
of ours: each timestep is divided by its root mean square before it enters the PCA, since h grows
with the timestep; inverted images instead of generated ones; and the choice by CLIP. Candidates
are compared by the projection on the text direction and not by the cosine, which a component that
hardly moves the image can win; all are one standard deviation of their component times the gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.diffusion.ddim import ddim_generation
from casl_bench.diffusion.inversion import Inversions
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.methods.h_space_editor import EditWindow, generate_edits
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.step_directions import DirectionEditor, StepDirections, visited_steps
from casl_bench.models.backbone import Backbone
from casl_bench.models.clip import ClipModel

Criterion = Literal["projection", "cosine"]


class HPcaConfig(MethodConfig):
    """Settings of the components, of the choice among them, and of the edit."""

    # How many are tried for a concept, the strongest first, each in both signs
    components: int = 10
    criterion: Criterion = "projection"  # what the choice maximises, see the module
    select_images: int = 6  # validation images that it looks at
    select_steps: int = 8  # visited timesteps of the walks that it makes, evenly among all
    t_edit: int = 350  # inject at visited timesteps t >= t_edit, which are also those of the PCA
    asymmetric: bool = False  # asymmetric step (as Asyrp) instead of plain injection
    gain: float = 3.0  # standard deviations of the component at strength 1


def trajectory_components(store: TrajectoryStore, steps: list[int], count: int) -> Tensor:
    """The strongest of the n - 1 components by PCA over n images on h of several timesteps.

    [m, S, C, h, w]: what one standard deviation of each component adds to h at each timestep.
    Divided by the root mean square of h minus its mean at each timestep, as h is before its
    timesteps are put end to end, they are orthogonal. Of a component's two signs the one is taken
    with which its largest coordinate among the images is positive.
    """
    n = len(store)
    # By the n x n matrix of inner products: h itself is read one timestep at a time.
    gram = torch.zeros(n, n, dtype=torch.float64)
    for step in steps:
        x = _centred(store, step)
        scale = x.pow(2).mean().sqrt()
        gram += x @ x.T / (scale if scale > 0 else torch.ones_like(scale)) ** 2
    axes = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, : min(count, n - 1)]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    # Coordinates of the images along each component, in standard deviations.
    z = axes * largest.sign() * (n - 1) ** 0.5
    maps = [(z.T @ _centred(store, step) / (n - 1)).float() for step in steps]
    shape = store.h(steps[0], slice(0, 1)).shape[1:]
    directions: Tensor = torch.stack(maps, dim=1).unflatten(2, shape)
    return directions


def _centred(store: TrajectoryStore, step: int) -> Tensor:
    """[n, C * h * w] float64."""
    x = store.h(step).flatten(1).double()
    return x - x.mean(0)


def text_match(displacement: Tensor, text_direction: Tensor, criterion: Criterion) -> Tensor:
    """How well displacements [k, n, D] in CLIP space fit a text direction [D], unit: [k].

    Of the mean displacement over n images: its projection on the text direction, or the cosine
    between the two. Higher is better; 0 where nothing moved.
    """
    mean = displacement.mean(1)
    projection = mean @ text_direction
    if criterion == "projection":
        return projection
    cosine: Tensor = projection / mean.norm(dim=1).clamp_min(1e-6)
    return cosine


def match_components(
    directions: list[StepDirections],
    backbone: Backbone,
    clip: ClipModel,
    inversions: Inversions,
    text_direction: Tensor,
    config: HPcaConfig,
) -> Tensor:
    """Try each of m directions in both signs on a few images: their matches, [m, 2].

    The walks visit only some of the timesteps, the lowest and highest among them. Edits are
    compared with an unedited walk over the same ones.
    """
    walk = spread_out(inversions.timesteps, config.select_steps)
    base = ddim_generation(backbone, inversions.x_T, walk).cpu()
    short = replace(inversions, timesteps=walk, reconstruction=base)
    window = EditWindow(config.t_edit, asymmetric=config.asymmetric)
    embedded = clip.encode_image(base.clamp(-1, 1))
    matches = []
    for candidate in directions:
        edits = generate_edits(
            backbone,
            short,
            (config.gain, -config.gain),
            lambda h, t, temb, candidate=candidate: candidate.at(t, h),  # type: ignore[misc]
            window,
            noise_seed=0,
        )
        moved = torch.stack([clip.encode_image(e.clamp(-1, 1)) - embedded for e in edits])
        matches.append(text_match(moved, text_direction, config.criterion))
    return torch.stack(matches)


def spread_out(timesteps: tuple[int, ...], count: int) -> tuple[int, ...]:
    """At most `count` (at least 2) of the timesteps, evenly by place, both ends included."""
    places = torch.linspace(0, len(timesteps) - 1, max(2, min(count, len(timesteps)))).round()
    return tuple(timesteps[int(p)] for p in places)


class HPcaEditor(DirectionEditor):
    """Adds the chosen component, in the chosen sign, to h."""

    def __init__(
        self,
        task: EditTask,
        config: HPcaConfig,
        directions: StepDirections,
        matches: Tensor,
        unet_calls: float = 0.0,
    ) -> None:
        """Keep the signed direction, and the matches [m, 2] that it was chosen by."""
        cost = FitCost(directions.values.numel(), unet_calls)
        window = EditWindow(config.t_edit, asymmetric=config.asymmetric)
        super().__init__(task.backbone, window, directions, config.gain, cost)
        self.matches = matches

    def state(self) -> dict[str, Tensor]:
        """The directions with their timesteps, and the matches of all candidates."""
        return {**super().state(), "matches": self.matches}


@register_method
class HPca(ConfiguredMethod[HPcaConfig]):
    """The principal component of h-space that fits the text best."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="h_pca",
        title="h-space PCA",
        source="Haas et al. 2023, unsupervised directions",
        version=1,
        supervision="text",
        space="h_space",
        uses_validation=True,
        deterministic=True,
    )
    config_class = HPcaConfig

    @classmethod
    def toy_config(cls) -> HPcaConfig:
        """A budget for tests."""
        return HPcaConfig(components=2, select_images=2, select_steps=3)

    @classmethod
    def search_space(cls) -> dict[str, tuple[int | float | str | bool, ...]]:
        """What a tuning sweep varies: how a component is chosen, and how it is injected."""
        return {
            "criterion": ("projection", "cosine"),
            "t_edit": (100, 250, 350, 500),
            "asymmetric": (False, True),
        }

    def fit_unet_calls(self, timesteps: Sequence[int]) -> float:
        """The walks of the choice: one without an edit, then each component in both signs."""
        config = self.config
        walk = spread_out(tuple(timesteps), config.select_steps)
        twice = sum(t >= config.t_edit for t in walk) if config.asymmetric else 0
        of_a_component = 2 * (len(walk) + 0.5 * twice)
        return config.select_images * (len(walk) + config.components * of_a_component)

    def fit(self, task: EditTask) -> HPcaEditor:
        """PCA of the stored trajectories, then the choice on validation images.

        Raises InputError if the task grants no guide CLIP or no validation image.
        """
        config, store = self.config, task.trajectories
        clip, images = task.guide_clip, task.validation
        if clip is None or images is None or not len(images):
            raise InputError("h_pca needs a guide CLIP and validation images in its task")
        steps = visited_steps(store.timesteps, config.t_edit)
        timesteps = [store.timesteps[s] for s in steps]
        found = trajectory_components(store, steps, config.components)
        candidates = [StepDirections(timesteps, d).to(task.backbone.device) for d in found]
        concept = task.concept
        with task.backbone.count_calls() as calls:
            matches = match_components(
                candidates,
                task.backbone,
                clip,
                images.take(range(min(config.select_images, len(images)))),
                clip.text_direction(concept.source_prompt, concept.target_prompt),
                config,
            )
        component, opposite = divmod(int(matches.argmax()), 2)
        signed = candidates[component].values * (-1 if opposite else 1)
        directions = StepDirections(timesteps, signed)
        return HPcaEditor(task, config, directions, matches, calls.unet_calls)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> HPcaEditor:
        """The editor from its stored direction."""
        directions = StepDirections.from_tensors(state)
        return HPcaEditor(task, self.config, directions, state["matches"])
