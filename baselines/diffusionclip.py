"""DiffusionCLIP: a copy of the U-Net is fine-tuned for each concept until the text is obeyed.

Source: Kim, Kwon and Ye, "DiffusionCLIP: text-guided diffusion models for robust image
manipulation", CVPR 2022, and its code: latents inverted once to t_0, all weights trained through a
short generation of S_gen steps, the loss 3 · (-log((2 - L_dir) / 2)) + l1_w · L1 + id_w · L_id of
the generated image against the original one, Adam with a learning rate that grows by a factor of
1.3 an epoch, and both variants: the full one and the memory-saving one.

Choices of ours:

- The latents are the stored inversion's x_t at the visited timestep nearest t_0, and edits walk the
  suite's own timesteps from there down; S_gen steps are spaced evenly, as in the code.
- L_id is 1 - cos of the guide CLIP's image embeddings. The authors use a face recogniser, for
  faces only and with weight 0 in their command; a task holds no such network.
- Noise on both images before CLIP, against adversarial pixel patterns, as Asyrp and CASL are
  given here.
- An epoch is a fifth of the fit rather than a pass over 50 images; images are sampled at random.
- One image a walk and 250 walks of six steps, as in the authors' command for the full variant (50
  images, 5 epochs): 1,500 image-steps, which a suite's budget may cut.
- The learning rate is six to twenty times the authors', as the U-Nets here are some forty times
  smaller.
- A strength scales the change of the weights, see `methods.weight_editor`. The change is kept in
  half precision; the editor that `fit` returns already has the rounded numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.diffusion.ddim import ddim_step, generation_steps, predict_x_0
from casl_bench.methods.direction_fit import descend, embed_both, log_directional_loss
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.weight_editor import WeightEditor, nearest_step
from casl_bench.models.backbone import Backbone
from casl_bench.models.clip import ClipModel
from casl_bench.models.noise_schedule import linspace_timesteps

Variant = Literal["full", "saving"]
_CHANGE = "change."
_START = "t_start"


class DiffusionClipConfig(MethodConfig):
    """Settings of the fit and of the edit."""

    fit_steps: PositiveInt = 250  # optimiser steps
    batch_size: PositiveInt = 1  # images a walk
    learning_rate: PositiveFloat = 1e-4  # of Adam, in the first epoch
    # Factor on the learning rate from one epoch to the next; 1 keeps it
    growth: PositiveFloat = 1.3
    epochs: PositiveInt = 5  # equal parts of the fit
    clip_weight: NonNegativeFloat = 3.0  # of the directional loss
    l1_weight: NonNegativeFloat = 1.0  # l1_w
    id_weight: NonNegativeFloat = 0.0  # id_w
    # Standard deviation of noise added to both images before CLIP
    pixel_noise: NonNegativeFloat = 0.1
    # The changed weights act from the visited timestep nearest to it downwards
    t_0: int = Field(500, ge=0)
    train_steps: int = Field(6, ge=2)  # S_gen, generation steps of a training walk
    # "full" goes back through the whole walk to its last image; "saving" takes a loss and an
    # optimiser step at each step's predicted clean image, detached in between
    variant: Variant = "full"

    @property
    def image_steps(self) -> int:
        """The full variant learns from a whole walk at once, the saving one from each step."""
        return self.batch_size * (self.train_steps if self.variant == "full" else 1)


def walk_losses(
    model: Backbone,
    x_start: Tensor,
    steps: Sequence[tuple[int, int]],
    variant: Variant,
    loss_of: Callable[[Tensor], Tensor],
) -> Iterator[Tensor]:
    """The losses of one generation, each to be back-propagated before the next is asked for.

    One loss of the generated image, or in the "saving" variant, which lets the model change on the
    way, one at every step. `x_start` [n, 3, H, W] is at the first t of the steps, which are (t,
    t_next) down to (0, -1); `loss_of` maps clean images [n, 3, H, W] to a scalar.
    """
    x_t = x_start.to(model.device)
    for t, t_next in steps:
        ab_t, ab_next = model.schedule.alpha_bar(t), model.schedule.alpha_bar(t_next)
        eps = model.eps_with_grad(x_t, t)
        if variant == "saving":
            yield loss_of(predict_x_0(x_t, eps, ab_t))
            eps = eps.detach()
        x_t = ddim_step(x_t, eps, eps, ab_t, ab_next)
    if variant == "full":
        yield loss_of(x_t)


def image_loss(
    edited: Tensor,
    original: Tensor,
    noise: Tensor,
    clip: ClipModel,
    direction: Tensor,
    config: DiffusionClipConfig,
) -> Tensor:
    """clip_weight · L_clip + l1_weight · L1 + id_weight · L_id, a scalar.

    Images and noise, which is added to both before CLIP, are [n, 3, H, W]; `direction` [D] is the
    unit displacement of the text.
    """
    original = original.to(edited.device)
    after, before = embed_both(clip, edited, original, noise)
    loss = config.clip_weight * log_directional_loss(after, before, direction).mean()
    loss = loss + config.l1_weight * (edited - original).abs().mean()
    return loss + config.id_weight * (1 - (after * before).sum(1)).mean()


class DiffusionClipEditor(WeightEditor):
    """Adds a change of all weights, kept in half precision."""

    def __init__(
        self, backbone: Backbone, t_start: int, change: Mapping[str, Tensor], cost: FitCost
    ) -> None:
        """Keep the change, rounded: name in the U-Net's state dict → tensor of its shape."""
        super().__init__(backbone, t_start, cost)
        place = backbone.device
        self._kept = {n: d.detach().to(place, torch.float16) for n, d in change.items()}
        self._change = {n: d.float() for n, d in self._kept.items()}

    def weight_delta(self) -> Mapping[str, Tensor]:
        """The change, rounded, in single precision."""
        return self._change

    def state(self) -> dict[str, Tensor]:
        """The change in half precision, and where the walk starts."""
        change = {_CHANGE + name: tensor.clone() for name, tensor in self._kept.items()}
        return {**change, _START: torch.tensor(self.t_start)}


@register_method
class DiffusionClip(ConfiguredMethod[DiffusionClipConfig]):
    """Fine-tuning of the whole U-Net."""

    config_class = DiffusionClipConfig
    info: ClassVar[MethodInfo] = MethodInfo(
        name="diffusionclip",
        title="DiffusionCLIP",
        source="Kim et al., CVPR 2022",
        version=2,  # 1 had no start above 600 and 120 steps
        supervision="text",
        space="weights",
    )

    @classmethod
    def toy_config(cls) -> DiffusionClipConfig:
        """A budget for tests."""
        return DiffusionClipConfig(fit_steps=3, batch_size=2, train_steps=2)

    @classmethod
    def search_space(cls) -> dict[str, tuple[float, ...]]:
        """What a tuning sweep varies: pace, restraint and noise of the fit, start of the edit."""
        return {
            "learning_rate": (5e-5, 1e-4, 2e-4),
            "l1_weight": (0.3, 1.0, 3.0),
            "t_0": (400, 500, 600, 800),
            "pixel_noise": (0.05, 0.1, 0.2),
        }

    def fit_unet_calls(self, timesteps: Sequence[int]) -> float:
        """Each image-step is a pass."""
        return float(self.config.fit_steps * self.config.image_steps)

    def fit(self, task: EditTask) -> DiffusionClipEditor:
        """Fine-tune a copy of the U-Net for the concept.

        Raises InputError if the task grants no guide CLIP, or t_0 leaves no room for the walk.
        """
        config, backbone, clip = self.config, task.backbone, task.guide_clip
        store, generator = task.trajectories, task.generator
        if clip is None:
            raise InputError("DiffusionCLIP needs a guide CLIP in its task")
        place = nearest_step(store.timesteps, config.t_0)
        t_start = store.timesteps[place]
        steps = tuple(generation_steps(linspace_timesteps(config.train_steps, t_start)))
        direction = clip.text_direction(task.concept.source_prompt, task.concept.target_prompt)
        twin = backbone.twin()
        twin.unet.requires_grad_(True)
        optimiser = torch.optim.Adam(twin.unet.parameters(), lr=config.learning_rate)
        done = 0
        with backbone.count_calls() as calls:
            while done < config.fit_steps:
                index = torch.randperm(len(store), generator=generator)[: config.batch_size]
                original = store.x_t(0, index)

                def loss_of(edited: Tensor, original: Tensor = original) -> Tensor:
                    noise = config.pixel_noise * torch.randn(original.shape, generator=generator)
                    return image_loss(edited, original, noise, clip, direction, config)

                x_start = store.x_t(place, index)
                for loss in walk_losses(twin, x_start, steps, config.variant, loss_of):
                    epoch = done * config.epochs // config.fit_steps
                    descend(optimiser, loss, config.learning_rate * config.growth**epoch)
                    done += 1
                    if done == config.fit_steps:
                        break
        frozen = backbone.unet.state_dict()
        change = {
            name: tensor.detach() - frozen[name] for name, tensor in twin.unet.state_dict().items()
        }
        cost = FitCost(sum(p.numel() for p in twin.unet.parameters()), calls.unet_calls)
        return DiffusionClipEditor(backbone, t_start, change, cost)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> DiffusionClipEditor:
        """The editor from its stored change."""
        change = {n.removeprefix(_CHANGE): t for n, t in state.items() if n.startswith(_CHANGE)}
        return DiffusionClipEditor(task.backbone, int(state[_START]), change, FitCost())
