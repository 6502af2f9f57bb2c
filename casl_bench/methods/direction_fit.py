"""Learn a delta_h for a concept from text alone: the loop that CASL and Asyrp share.

Each step takes a minibatch of x_t of the inverted training images at one timestep of the edit
window, adds the module's delta_h to h, predicts the clean image and compares it with the
unedited prediction: a directional CLIP loss towards the text and an L1 term that keeps the rest.
Only the decoder half of the U-Net is back-propagated, and the unedited prediction costs nothing:
it follows from two successive x_t of the stored trajectory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from casl_bench.core.errors import InputError
from casl_bench.diffusion.ddim import predict_x_0
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.methods.method import EditTask, MethodConfig
from casl_bench.models.backbone import Backbone
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

    fit_steps: int = 160  # optimiser steps
    batch_size: int = 8  # images per step
    learning_rate: float = 2e-3  # of Adam, decayed linearly to zero
    clip_weight: float = 1.0  # weight of the directional loss
    l1_weight: float = 0.1  # weight of the L1 term between edited and unedited predictions
    # Standard deviation of noise added to both predictions before CLIP, against adversarial pixel
    # patterns
    pixel_noise: float = 0.1


DeltaModule = Callable[[Tensor, int, Tensor], Tensor]
"""(h [n, C, h, w], t, temb [n, D]) -> delta_h [n, C, h, w], all where the U-Net is."""


def predicted_steps(store: TrajectoryStore) -> range:
    """Places of `store.timesteps` at which `stored_prediction` can be had."""
    steps = len(store.timesteps)
    return range(1, steps) if store.refined else range(steps - 1)


def stored_prediction(
    store: TrajectoryStore, backbone: Backbone, step: int, index: Tensor
) -> Tensor:
    """P_t of the stored inversion at one step, without a U-Net call: [m, 3, H, W] of m images.

    An inversion step is x_{t'} = sqrt(ab') P + sqrt(1 - ab') eps with x_t = sqrt(ab) P + sqrt(1 -
    ab) eps: two equations in P and eps. They are those of t in a plain inversion, and in a refined
    one those of t' (to within what one more refinement would change). `step` is one of
    `predicted_steps`.
    """
    first = step - 1 if store.refined else step
    ab, ab_next = (backbone.schedule.alpha_bar(store.timesteps[s]) for s in (first, first + 1))
    x_t, x_next = store.x_t(first, index), store.x_t(first + 1, index)
    a, b, c, d = ab**0.5, (1 - ab) ** 0.5, ab_next**0.5, (1 - ab_next) ** 0.5
    predicted: Tensor = (d * x_t - b * x_next) / (a * d - b * c)
    return predicted


def fit_direction(
    module: DeltaModule,
    parameters: list[nn.Parameter],
    task: EditTask,
    config: DirectionFitConfig,
    t_edit: int,
    *,
    as_asyrp: bool = False,
    penalty: Callable[[], Tensor] | None = None,
) -> float:
    """Train the module's parameters in place. Returns the U-Net calls spent, in images.

    Only the U-Net's decoder half is back-propagated, and only timesteps t >= t_edit are trained.
    The task's generator draws timesteps, images and pixel noise. `as_asyrp` takes the loss of
    Asyrp's code: -log((2 - L)/2) instead of plain 1 - cos, and an L1 weight multiplied by
    cos(source text, target text). `penalty` is an extra term of the loss, such as sparsity. Raises
    InputError if the task grants no guide CLIP, or no stored timestep is trained.
    """
    store, backbone, clip, generator = (
        task.trajectories, task.backbone, task.guide_clip, task.generator,
    )  # fmt: skip
    if clip is None:
        raise InputError("a fit by text needs a guide CLIP in its task")
    source, target = task.concept.source_prompt, task.concept.target_prompt
    window = [s for s in predicted_steps(store) if store.timesteps[s] >= t_edit]
    if not window:
        raise InputError(f"no visited timestep is at or above t_edit = {t_edit}")
    direction, l1_weight = clip.text_direction(source, target), config.l1_weight
    if as_asyrp:
        l1_weight *= text_similarity(clip, source, target)
    loss_of = log_directional_loss if as_asyrp else directional_loss
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)
    num_images = len(store.image_ids)
    with backbone.count_calls() as calls:
        for step in range(config.fit_steps):
            s = window[int(torch.randint(len(window), (1,), generator=generator))]
            index = torch.randperm(num_images, generator=generator)[: config.batch_size]
            t = store.timesteps[s]
            original = stored_prediction(store, backbone, s, index)
            with torch.no_grad():
                state = backbone.encode(store.x_t(s, index), t)
            eps = backbone.decode(state, module(state.h, t, state.temb))
            edited = predict_x_0(state.x_t, eps, backbone.schedule.alpha_bar(t))
            noise = config.pixel_noise * torch.randn(original.shape, generator=generator)
            original = original.to(edited.device)
            embedded, embedded_original = embed_both(clip, edited, original, noise)
            loss = config.clip_weight * loss_of(embedded, embedded_original, direction).mean()
            loss = loss + l1_weight * (edited - original).abs().mean()
            if penalty is not None:
                loss = loss + penalty()
            descend(optimiser, loss, config.learning_rate * (1 - step / config.fit_steps))
    return calls.unet_calls
