"""A port of concept sliders: a low-rank adapter of the U-Net from a pair of texts, scaled in use.

Source: Gandikota et al., "Concept Sliders: LoRA adaptors for precise control in diffusion models",
ECCV 2024, section 4.1. The paper trains an adapter θ* of a text-conditional model to predict

    eps(x_t, c_t) + η (eps(x_t, c_+) - eps(x_t, c_-)),

for noisy images x_t that it has itself generated to a random step.

This is a port and not the method: the recipe does not carry over to an unconditional U-Net, which
has no eps(x_t, c). By Bayes' rule the difference of conditional noises is
-sqrt(1 - alpha_bar) ∇_x log [p(c_+ | x_t) / p(c_- | x_t)], and the guide CLIP's two-way
classification of the predicted clean image, scale · (E_I(P_t) · (E_T(c_+) - E_T(c_-))), stands in
for that log ratio. So the target is

    eps(x_t) - η sqrt(1 - alpha_bar) ∇_{x_t} log [p(c_+ | P_t(x_t)) / p(c_- | P_t(x_t))],

the gradient taken through the frozen U-Net. What stays: the squared error, a rank of 4, steps
visited by the adapter's own generation, the first steps of the generation left alone, the scale as
strength. What is ours beside that: noise before CLIP, against adversarial pixel patterns, as other
methods here are given it; walks start at stored latents of training images instead of at noise; the
paper's preserved concepts are left out, as there is no text to preserve; η is larger than the
paper's 4, since CLIP's gradient is small.

The other objective, "direction", is the loss of Asyrp and CASL on the predicted clean image, with
the adapter in the place of their modules: what the low rank alone makes of the same teacher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

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

_BLOCKS = ("attentions", "resnets", "downsamplers", "upsamplers")
_A, _B, _WINDOW, _SCALE = "lora_A.", "lora_B.", "window", "scale"


class ConceptSliderConfig(MethodConfig):
    """Settings of the fit and of the edit."""

    fit_steps: PositiveInt = 1000  # optimiser steps, as the authors' configuration
    batch_size: PositiveInt = 8  # images per step
    learning_rate: PositiveFloat = 5e-3  # of AdamW, decayed linearly to zero
    rank: PositiveInt = 4  # of the adapter
    alpha: PositiveFloat = 1.0  # the adapter's change is alpha / rank · B A
    guidance: PositiveFloat = 30.0  # η
    # "score" is the paper's, "direction" the directional CLIP loss; see the module
    objective: Literal["score", "direction"] = "score"
    # Of the L1 term beside the directional loss; not used by "score"
    l1_weight: NonNegativeFloat = 0.5
    pixel_noise: NonNegativeFloat = 0.1  # standard deviation of noise added to images before CLIP
    # The adapter acts from the visited timestep nearest to it downwards
    t_start: int = Field(650, ge=0)
    t_end: int = Field(150, ge=0)  # and down to this timestep
    walk_steps: int = Field(8, ge=2)  # steps of a training walk from t_start to the image


def adapted_layers(unet: nn.Module) -> list[str]:
    """Names of the layers that get an adapter: every linear and convolution of the blocks.

    The input and output convolutions and the time embedding stay as they are.
    """
    return [
        name
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and any(b in name.split(".") for b in _BLOCKS)
    ]


def inject_adapter(
    unet: nn.Module, rank: int, alpha: float, generator: torch.Generator
) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """Put a LoRA beside each of `adapted_layers`, in place: A random, B zero, so nothing changes.

    The U-Net's own weights are frozen by this. The generator draws A, since peft's own draw would
    take global random numbers. Returns layer → (A, B).
    """
    # Only a fit needs peft, whose import takes seconds.
    from peft import LoraConfig, inject_adapter_in_model

    names = adapted_layers(unet)
    with torch.random.fork_rng():
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)  # type: ignore[arg-type]
        inject_adapter_in_model(config, unet)
    parameters = dict(unet.named_parameters())
    pairs = {}
    for name in names:
        a, b = (parameters[f"{name}.lora_{part}.default.weight"] for part in "AB")
        with torch.no_grad():
            bound = math.sqrt(3 / a[0].numel())  # A x is then as large as x
            a.copy_((2 * torch.rand(a.shape, generator=generator) - 1) * bound)
            b.zero_()
        pairs[name] = (a, b)
    return pairs


def merged(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """What an adapter adds to its layer's weight: scale · B A, shaped like the weight.

    A is [rank, in] of a linear layer, [rank, in, k, k] of a convolution; B [out, rank], or [out,
    rank, 1, 1]; scale alpha / rank.
    """
    return (scale * b.flatten(1) @ a.flatten(1)).view(b.shape[0], *a.shape[1:])


def guided_eps(
    backbone: Backbone,
    clip: ClipModel,
    log_ratio: Tensor,
    x_t: Tensor,
    t: int,
    guidance: float,
    noise: Tensor,
) -> Tensor:
    """eps(x_t) - η sqrt(1 - alpha_bar) ∇_{x_t} log [p(c_+) / p(c_-)], the target of "score".

    [n, 3, H, W] like x_t, without a gradient. `log_ratio` [D] is that log ratio where it is
    multiplied with an image's embedding, `guidance` is η, and the noise is added to the predicted
    clean image before CLIP.
    """
    alpha_bar = backbone.schedule.alpha_bar(t)
    with torch.enable_grad():
        x = x_t.detach().requires_grad_(True)
        eps = backbone.eps_with_grad(x, t)
        image = (predict_x_0(x, eps, alpha_bar) + noise).clamp(-1.05, 1.05)
        ratio = clip.encode_image(image) @ log_ratio.to(image.device)
        (gradient,) = torch.autograd.grad(ratio.sum(), x)
    target: Tensor = eps - guidance * (1 - alpha_bar) ** 0.5 * gradient
    return target.detach()


class ConceptSliderEditor(WeightEditor):
    """Adds the merged adapter to the U-Net's weights: a strength scales the adapter."""

    def __init__(
        self,
        backbone: Backbone,
        window: tuple[int, int],
        pairs: Mapping[str, tuple[Tensor, Tensor]],
        scale: float,
        cost: FitCost,
    ) -> None:
        """Keep the adapter: layer → (A, B), in the window (t_start, t_end)."""
        t_start, t_end = window
        super().__init__(backbone, t_start, cost, t_end)
        self._scale = scale
        place = backbone.device
        self._pairs = {
            n: (a.detach().to(place), b.detach().to(place)) for n, (a, b) in pairs.items()
        }

    def weight_delta(self) -> Mapping[str, Tensor]:
        """The merged adapter."""
        return {f"{n}.weight": merged(a, b, self._scale) for n, (a, b) in self._pairs.items()}

    def state(self) -> dict[str, Tensor]:
        """A and B of every layer, and how they act."""
        state = {_WINDOW: torch.tensor([self.t_start, self.t_end])}
        state[_SCALE] = torch.tensor(self._scale, dtype=torch.float64)
        for name, (a, b) in self._pairs.items():
            state |= {_A + name: a.clone(), _B + name: b.clone()}
        return state


@register_method
class ConceptSlider(ConfiguredMethod[ConceptSliderConfig]):
    """A low-rank adapter per concept."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="concept_slider_port",
        title="Concept Slider (unconditional port)",
        source="Gandikota et al., ECCV 2024",
        version=1,
        supervision="text",
        space="weights",
    )
    config_class = ConceptSliderConfig

    @classmethod
    def toy_config(cls) -> ConceptSliderConfig:
        """A budget for tests."""
        return ConceptSliderConfig(fit_steps=3, batch_size=2, walk_steps=4, t_end=0)

    @classmethod
    def search_space(cls) -> dict[str, tuple[float, ...]]:
        """What a tuning sweep varies: pace and pull of the fit, window of the edit."""
        return {
            "learning_rate": (2e-3, 5e-3, 1e-2),
            "guidance": (10.0, 30.0, 60.0),
            "t_start": (500, 650, 800),
            "t_end": (0, 150, 300),
        }

    def fit_unet_calls(self, timesteps: Sequence[int]) -> float:
        """The adapted U-Net at every step, and for "score" the frozen one that gives its target."""
        passes = 2 if self.config.objective == "score" else 1
        return float(self.config.fit_steps * self.config.batch_size * passes)

    def fit(self, task: EditTask) -> ConceptSliderEditor:
        """Train the concept's adapter.

        Raises InputError if the task grants no guide CLIP, or no step lies in the window.
        """
        config, backbone, clip = self.config, task.backbone, task.guide_clip
        store, generator = task.trajectories, task.generator
        if clip is None:
            raise InputError("a concept slider needs a guide CLIP in its task")
        place = nearest_step(store.timesteps, config.t_start)
        t_start = store.timesteps[place]
        # At t = 0 nothing is left to edit: alpha_bar is 1 but for the fourth digit.
        steps = [
            (t, t_next)
            for t, t_next in generation_steps(linspace_timesteps(config.walk_steps, t_start))
            if t >= max(config.t_end, 1)
        ]
        if not steps:
            raise InputError(f"no step from {t_start} down to t_end = {config.t_end} is walked")
        twin = backbone.twin()
        pairs = inject_adapter(twin.unet, config.rank, config.alpha, generator)
        parameters = [p for pair in pairs.values() for p in pair]
        optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate)
        loss_of = _Objective(config, task, clip)
        done = 0
        with backbone.count_calls() as calls:
            while done < config.fit_steps:
                index = torch.randperm(len(store), generator=generator)[: config.batch_size]
                original, x_t = (store.x_t(p, index).to(backbone.device) for p in (0, place))
                for t, t_next in steps[: config.fit_steps - done]:
                    ab, ab_next = (backbone.schedule.alpha_bar(s) for s in (t, t_next))
                    eps = twin.eps_with_grad(x_t, t)
                    loss = loss_of(x_t, eps, t, original)
                    descend(optimiser, loss, config.learning_rate * (1 - done / config.fit_steps))
                    done += 1
                    eps = eps.detach()
                    x_t = ddim_step(x_t, eps, eps, ab, ab_next)
        cost = FitCost(sum(p.numel() for p in parameters), calls.unet_calls)
        scale = config.alpha / config.rank
        return ConceptSliderEditor(backbone, (t_start, config.t_end), pairs, scale, cost)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> ConceptSliderEditor:
        """The editor from its stored adapter."""
        names = [n.removeprefix(_A) for n in state if n.startswith(_A)]
        pairs = {n: (state[_A + n], state[_B + n]) for n in names}
        t_start, t_end = (int(t) for t in state[_WINDOW])
        scale = float(state[_SCALE])
        return ConceptSliderEditor(task.backbone, (t_start, t_end), pairs, scale, FitCost())


class _Objective:
    """The loss of one step of a walk."""

    def __init__(self, config: ConceptSliderConfig, task: EditTask, clip: ClipModel) -> None:
        concept = task.concept
        self.config, self.task, self.clip = config, task, clip
        self.direction = clip.text_direction(concept.source_prompt, concept.target_prompt)
        source, target = clip.encode_text([concept.source_prompt, concept.target_prompt])
        self.log_ratio = clip.logit_scale * (target - source)

    def __call__(self, x_t: Tensor, eps: Tensor, t: int, original: Tensor) -> Tensor:
        config, backbone = self.config, self.task.backbone
        noise = config.pixel_noise * torch.randn(x_t.shape, generator=self.task.generator)
        noise = noise.to(x_t.device)
        if config.objective == "score":
            target = guided_eps(backbone, self.clip, self.log_ratio, x_t, t, config.guidance, noise)
            return functional.mse_loss(eps, target)
        edited = predict_x_0(x_t, eps, backbone.schedule.alpha_bar(t))
        after, before = embed_both(self.clip, edited, original, noise)
        loss = log_directional_loss(after, before, self.direction).mean()
        return loss + config.l1_weight * (edited - original).abs().mean()
