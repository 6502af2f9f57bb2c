"""Learn a delta_h for a concept from text alone: the loop that CASL and Asyrp share.

It is on-policy, as in Asyrp's code. A minibatch of inverted training images is regenerated from
x_T twice, with the module's delta_h and without it, side by side. At every visited timestep of the
edit window the two predicted clean images are compared: a directional CLIP loss towards the text
and an L1 term that keeps the rest. One optimiser step follows, and both trajectories go on,
detached, the edited one with what was just computed. So the module learns on the x_t that it will
meet when it edits, by the step (asymmetric or plain) that the edit will take. Only the decoder half
of the U-Net is back-propagated.

Source: Kwon et al. 2023 (Asyrp), `run_training` of the code. Two choices of ours: Adam in the place
of SGD at rate 0.5, whose steps are as large as the gradient and so depend on a U-Net's size; and
the CLIP loss compares with the unedited prediction, as the paper's equation has it, where the code
compares with the clean image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from casl_bench.core.errors import InputError
from casl_bench.diffusion.ddim import ddim_step, generation_steps, predict_x_0
from casl_bench.methods.h_space_editor import EditWindow
from casl_bench.methods.method import EditTask, MethodConfig
from casl_bench.models.backbone import Backbone, EncoderState
from casl_bench.models.clip import ClipModel

EPS = 1e-6


def directional_loss(edited: Tensor, original: Tensor, text_direction: Tensor) -> Tensor:
    """L_dir = 1 - cos(E_I(edited) - E_I(original), E_T(target) - E_T(source)), in CLIP space.

    Of unit image embeddings [n, D] and the text's unit displacement [D]: [n] in [0, 2]; 1 where
    nothing moved.
    """
    delta = edited - original
    cosine: Tensor = (delta @ text_direction.to(delta.device)) / (delta.norm(dim=-1) + EPS)
    return 1 - cosine


def log_directional_loss(edited: Tensor, original: Tensor, text_direction: Tensor) -> Tensor:
    """-log((2 - L_dir) / 2), [n] >= 0: the form in Asyrp's and DiffusionCLIP's code.

    0 where the directions agree, unbounded where they are opposite, so it is clamped at
    L_dir = 2 - 1e-4.
    """
    loss = directional_loss(edited, original, text_direction).clamp(max=2 - 1e-4)
    return -torch.log((2 - loss) / 2)


def text_similarity(clip: ClipModel, source: str, target: str) -> float:
    """Cosine of the two prompts' text embeddings; Asyrp scales its L1 term by it."""
    source_embedding, target_embedding = clip.encode_text([source, target])
    return float(source_embedding @ target_embedding)


def embed_both(
    clip: ClipModel, edited: Tensor, original: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """CLIP embeddings of edited images, with their gradient, and of the originals: [n, D] each.

    All three are [n, 3, H, W]; the noise is added to both images, against adversarial pixel
    patterns.
    """
    original, noise = original.to(edited.device), noise.to(edited.device)
    with torch.no_grad():
        before = clip.encode_image((original + noise).clamp(-1, 1))
    return clip.encode_image((edited + noise).clamp(-1.05, 1.05)), before


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, learning_rate: float) -> None:
    """One step of an optimiser down a loss."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()


class DirectionFitConfig(MethodConfig):
    """Settings of the loop, to be extended by a method's own."""

    fit_steps: int = 1560  # optimiser steps; Asyrp's code: 12,500 images and timesteps
    batch_size: int = 8  # images per step
    learning_rate: float = 2e-3  # of Adam, decayed linearly to zero
    clip_weight: float = 1.0  # weight of the directional loss
    l1_weight: float = 0.1  # weight of the L1 term between edited and unedited predictions
    # Standard deviation of noise added to both predictions before CLIP, against adversarial pixel
    # patterns
    pixel_noise: float = 0.1
    # False trains at x_t of the stored inversion, which no edit will meet; for comparison only
    on_policy: bool = True


class OneScaleAdam(torch.optim.Optimizer):
    """Adam with one second moment for a whole tensor, so that steps stay as unequal as gradients.

    Adam divides each weight's gradient by its own size: columns of a map that hardly matter grow as
    fast as those that do, and none stands out.

    Args:
        params: what is trained.
        lr: size of a step, as root mean square over a tensor.
    """

    BETAS = (0.9, 0.999)

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it takes none
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state.update(steps=0, mean=torch.zeros_like(p), square=p.new_zeros(()))
                state["steps"] += 1
                shares = [1 - beta ** state["steps"] for beta in self.BETAS]
                state["mean"].lerp_(p.grad, 1 - self.BETAS[0])
                state["square"].lerp_(p.grad.pow(2).mean(), 1 - self.BETAS[1])
                scale = (state["square"] / shares[1]).sqrt() + 1e-8
                p.sub_(group["lr"] / shares[0] * state["mean"] / scale)


DeltaModule = Callable[[Tensor, int, Tensor], Tensor]
"""(h [n, C, h, w], t, temb [n, D]) -> delta_h [n, C, h, w], all where the U-Net is."""


def fit_direction(
    module: DeltaModule,
    parameters: list[nn.Parameter],
    task: EditTask,
    config: DirectionFitConfig,
    window: EditWindow,
    *,
    as_asyrp: bool = False,
    optimiser_class: type[torch.optim.Adam | OneScaleAdam] = torch.optim.Adam,
    after_step: Callable[[float], None] | None = None,
) -> float:
    """Train the module's parameters in place. Returns the U-Net calls spent, in images.

    Only timesteps t >= t_edit of the window are trained, and walked by its kind of step. The task's
    generator draws images and pixel noise. `as_asyrp` takes the loss of Asyrp's code: -log((2 -
    L)/2) instead of plain 1 - cos, and an L1 weight multiplied by cos(source text, target text).
    `after_step` is called with the learning rate of each optimiser step, such as to shrink what it
    moved. Raises InputError if the task grants no guide CLIP, or no stored timestep is trained.
    """
    store, backbone, generator = task.trajectories, task.backbone, task.generator
    if task.guide_clip is None:
        raise InputError("a fit by text needs a guide CLIP in its task")
    steps = [step for step in generation_steps(store.timesteps) if step[0] >= window.t_edit]
    if not steps:
        raise InputError(f"no visited timestep is at or above t_edit = {window.t_edit}")
    loss_of = _Loss(task, task.guide_clip, config, as_asyrp)
    optimiser = optimiser_class(parameters, lr=config.learning_rate)
    done = 0

    def learn(state: EncoderState, original: Tensor) -> Tensor:
        """One optimiser step on an x_t; the noise that was predicted with the edit."""
        nonlocal done
        eps = backbone.decode(state, module(state.h, state.t, state.temb))
        edited = predict_x_0(state.x_t, eps, backbone.schedule.alpha_bar(state.t))
        rate = config.learning_rate * (1 - done / config.fit_steps)
        descend(optimiser, loss_of(edited, original), rate)
        if after_step is not None:
            after_step(rate)
        done += 1
        return eps.detach()

    with backbone.count_calls() as calls:
        while done < config.fit_steps:
            if config.on_policy:
                index = torch.randperm(len(store), generator=generator)[: config.batch_size]
                few = steps[: config.fit_steps - done]
                _walk(backbone, store.x_t(len(store.timesteps) - 1, index), few, window, learn)
            else:
                s = int(torch.randint(len(steps), (1,), generator=generator))
                t, place = steps[s][0], len(store.timesteps) - 1 - s
                index = torch.randperm(len(store), generator=generator)[: config.batch_size]
                with torch.no_grad():
                    state = backbone.encode(store.x_t(place, index), t)
                    eps = backbone.decode(state)
                learn(state, predict_x_0(state.x_t, eps, backbone.schedule.alpha_bar(t)))
    return calls.unet_calls


def _walk(
    backbone: Backbone,
    x_T: Tensor,
    steps: Sequence[tuple[int, int]],
    window: EditWindow,
    learn: Callable[[EncoderState, Tensor], Tensor],
) -> None:
    """One generation with the edit and one without it, side by side; `learn` at every step."""
    edited = unedited = x_T.to(backbone.device)
    for t, t_next in steps:
        ab, ab_next = backbone.schedule.alpha_bar(t), backbone.schedule.alpha_bar(t_next)
        with torch.no_grad():
            state = backbone.encode(edited, t)
            apart = edited is not unedited  # the first step is one of both
            plain = backbone.decode(state) if window.asymmetric or not apart else None
            eps = plain if not apart else backbone.decode(backbone.encode(unedited, t))
            assert eps is not None
            original = predict_x_0(unedited, eps, ab)
            unedited = ddim_step(unedited, eps, eps, ab, ab_next)
        changed = learn(state, original)
        direction = plain if window.asymmetric else changed
        assert direction is not None
        edited = ddim_step(state.x_t, changed, direction, ab, ab_next)


class _Loss:
    """The loss of one step, of edited and unedited predictions [n, 3, H, W]."""

    def __init__(
        self, task: EditTask, clip: ClipModel, config: DirectionFitConfig, as_asyrp: bool
    ) -> None:
        source, target = task.concept.source_prompt, task.concept.target_prompt
        self.clip, self.config, self.generator = clip, config, task.generator
        self.direction, self.l1_weight = clip.text_direction(source, target), config.l1_weight
        if as_asyrp:
            self.l1_weight *= text_similarity(clip, source, target)
        self.directional = log_directional_loss if as_asyrp else directional_loss

    def __call__(self, edited: Tensor, original: Tensor) -> Tensor:
        noise = self.config.pixel_noise * torch.randn(original.shape, generator=self.generator)
        original = original.to(edited.device)
        embedded, embedded_original = embed_both(self.clip, edited, original, noise)
        directional = self.directional(embedded, embedded_original, self.direction).mean()
        return (
            self.config.clip_weight * directional
            + self.l1_weight * (edited - original).abs().mean()
        )


def direction_fit_calls(
    config: DirectionFitConfig, window: EditWindow, timesteps: Sequence[int]
) -> float:
    """U-Net passes, in images, that `fit_direction` spends on a walk of these timesteps."""
    if not config.on_policy:
        return 1.5 * config.fit_steps * config.batch_size
    length = sum(t >= window.t_edit for t in timesteps)
    walks, rest = divmod(config.fit_steps, max(1, length))
    apart = 1.0 + 1.0 + (0.5 if window.asymmetric else 0.0)
    # At its first step a walk has one x_t, whose plain pass shares the encoder half.
    of_a_walk = [1.5 + apart * (n - 1) for n in (length, rest)]
    passes = walks * of_a_walk[0] + (of_a_walk[1] if rest else 0.0)
    return float(passes * config.batch_size)
