"""Learn a delta_h for a concept from text alone: the loop that CASL and Asyrp share.

Each step takes a minibatch of x_t of the inverted training images at one timestep of the edit
window, adds the module's delta_h to h, predicts the clean image and compares it with the
unedited prediction: a directional CLIP loss towards the text and an L1 term that keeps the rest.
Only the decoder half of the U-Net is back-propagated, and the unedited prediction costs nothing:
it follows from two successive x_t of the stored trajectory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from casl_bench.core.errors import InputError
from casl_bench.diffusion.ddim import predict_x_0
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.domains.dataset import Concept
from casl_bench.models.backbone import Backbone
from casl_bench.models.clip import ClipModel

# CLIP directions: how far an edit moved along the text's direction.


EPS = 1e-6


def direction_cosine(edited: Tensor, original: Tensor, text_direction: Tensor) -> Tensor:
    """Cosine between the image's displacement and the text's, in CLIP space.

    cos(E_I(edited) - E_I(original), E_T(target) - E_T(source)).

    Args:
        edited: [n, D] unit image embeddings after the edit.
        original: [n, D] unit image embeddings before it.
        text_direction: [D] unit displacement of the text.

    Returns:
        [n] in [-1, 1]; 0 where nothing moved.
    """
    delta = edited - original
    return (delta @ text_direction.to(delta.device)) / (delta.norm(dim=-1) + EPS)


def directional_loss(edited: Tensor, original: Tensor, text_direction: Tensor) -> Tensor:
    """L_dir = 1 - cos, [n] in [0, 2]; shapes as `direction_cosine`."""
    return 1 - direction_cosine(edited, original, text_direction)


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


@dataclass(frozen=True)
class DirectionFitConfig:
    """Settings of the loop.

    Attributes:
        steps: optimiser steps.
        batch_size: images a step.
        learning_rate: of Adam, decayed linearly to zero.
        clip_weight: weight of the directional loss.
        l1_weight: weight of the L1 term between edited and unedited predictions.
        log_loss: -log((2 - L)/2) as in Asyrp's code instead of plain 1 - cos.
        scale_l1_by_text: multiply the L1 weight by cos(source text, target text) (Asyrp).
        pixel_noise: standard deviation of noise added to both predictions before CLIP, against
            adversarial pixel patterns.
        t_edit: only timesteps t >= t_edit are trained.
    """

    steps: int
    batch_size: int
    learning_rate: float
    clip_weight: float
    l1_weight: float
    log_loss: bool
    scale_l1_by_text: bool
    pixel_noise: float
    t_edit: int


DeltaModule = Callable[[Tensor, int, Tensor], Tensor]
"""(h [n, C, h, w], t, temb [n, D]) -> delta_h [n, C, h, w]."""


def predicted_steps(store: TrajectoryStore) -> range:
    """Places of `store.timesteps` at which `stored_prediction` can be had."""
    steps = len(store.timesteps)
    return range(1, steps) if store.refined else range(steps - 1)


def stored_prediction(
    store: TrajectoryStore, backbone: Backbone, step: int, index: Tensor
) -> Tensor:
    """P_t of the stored inversion at one step, without a U-Net call.

    An inversion step is x_{t'} = sqrt(ab') P + sqrt(1 - ab') eps with
    x_t = sqrt(ab) P + sqrt(1 - ab) eps: two equations in P and eps. They are those of t in a plain
    inversion, and in a refined one those of t' (to within what one more refinement would change).

    Args:
        store: inversions.
        backbone: the one that made them, for its schedule.
        step: place in `store.timesteps`, one of `predicted_steps`.
        index: [m] images.

    Returns:
        [m, 3, H, W] predicted clean images.
    """
    first = step - 1 if store.refined else step
    ab, ab_next = (backbone.schedule.alpha_bar(store.timesteps[s]) for s in (first, first + 1))
    x_t, x_next = store.x_t(first, index), store.x_t(first + 1, index)
    a, b, c, d = ab**0.5, (1 - ab) ** 0.5, ab_next**0.5, (1 - ab_next) ** 0.5
    determinant = a * d - b * c
    return (d * x_t - b * x_next) / determinant


def fit_direction(
    module: DeltaModule,
    parameters: list[nn.Parameter],
    *,
    concept: Concept,
    backbone: Backbone,
    store: TrajectoryStore,
    clip: ClipModel,
    generator: torch.Generator,
    config: DirectionFitConfig,
    penalty: Callable[[], Tensor] | None = None,
) -> float:
    """Train the module's parameters in place.

    Args:
        module: gives delta_h from h, t and the time embedding.
        parameters: what is trained.
        concept: its two prompts give the text direction.
        backbone: frozen; only its decoder half is back-propagated.
        store: x_t of the training images.
        clip: the guide.
        generator: draws timesteps, images and pixel noise.
        config: settings.
        penalty: an extra term of the loss, such as sparsity.

    Returns:
        U-Net calls spent, in images.

    Raises:
        InputError: if no stored timestep lies in the edit window.
    """
    window = [s for s in predicted_steps(store) if store.timesteps[s] >= config.t_edit]
    if not window:
        raise InputError(f"no visited timestep is at or above t_edit = {config.t_edit}")
    direction = clip.text_direction(concept.source_prompt, concept.target_prompt)
    l1_weight = config.l1_weight
    if config.scale_l1_by_text:
        l1_weight *= text_similarity(clip, concept.source_prompt, concept.target_prompt)
    loss_of = log_directional_loss if config.log_loss else directional_loss
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)
    num_images = len(store.image_ids)
    with backbone.count_calls() as calls:
        for step in range(config.steps):
            s = window[int(torch.randint(len(window), (1,), generator=generator))]
            index = torch.randperm(num_images, generator=generator)[: config.batch_size]
            t = store.timesteps[s]
            original = stored_prediction(store, backbone, s, index)
            with torch.no_grad():
                state = backbone.encode(store.x_t(s, index), t)
            # The module is on the CPU, the U-Net where it pays.
            eps = backbone.decode(state, module(state.h.cpu(), t, state.temb.cpu()))
            edited = predict_x_0(state.x_t, eps, backbone.schedule.alpha_bar(t))
            noise = config.pixel_noise * torch.randn(original.shape, generator=generator)
            original, noise = original.to(edited.device), noise.to(edited.device)
            with torch.no_grad():
                embedded_original = clip.encode_image((original + noise).clamp(-1, 1))
            embedded = clip.encode_image((edited + noise).clamp(-1.05, 1.05))
            loss = config.clip_weight * loss_of(embedded, embedded_original, direction).mean()
            loss = loss + l1_weight * (edited - original).abs().mean()
            if penalty is not None:
                loss = loss + penalty().to(loss.device)
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * (1 - step / config.steps)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return calls.unet_calls
