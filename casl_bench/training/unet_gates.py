"""Measurements that decide whether a U-Net can carry a benchmark of h-space edits.

Reconstruction alone is a trap: a U-Net that copies through its skip connections reconstructs well
while nothing moves when its h is changed. So these also look at whether the h of another image
brings that image's attributes along, at a linear probe on h, at how many images a mean-difference
direction flips and whether they stay whole, and at unconditional samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from casl_bench.diffusion.ddim import ddim_inversion, ddim_step, generation_steps
from casl_bench.diffusion.inversion import Inversions, invert
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.domains.dataset import ImageBatch
from casl_bench.domains.rendering.renderer import RenderedDataset
from casl_bench.methods.h_space_editor import EditWindow, generate_edits
from casl_bench.metrics.image_similarity import noise_statistics, psnr
from casl_bench.metrics.probe import ProbeData, RawProbe
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.backbone import Backbone, EncoderState
from casl_bench.models.micro_batch import row_blocks
from casl_bench.models.random_numbers import image_noise
from casl_bench.training.picture_distance import KernelDistance

DIRECTION_STRENGTHS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
DIRECTION_WINDOW = EditWindow(t_edit=100)
PROBE_T = 100
FLIPPED = 0.9
DONOR_SHIFT = 1


@dataclass(frozen=True)
class Sizes:
    """Numbers of images.

    Attributes:
        train: that directions and probes are made of.
        held_out: that are inverted; each one's donor is the next, so about half of these differ
            in an attribute.
        edited: an attribute, by its direction.
        samples: drawn from noise, and as many renders beside them.
    """

    train: int = 1024
    held_out: int = 240
    edited: int = 32
    samples: int = 2000


def measure_gates(
    backbone: Backbone,
    dataset: RenderedDataset,
    classifiers: Sequence[AttributeClassifier],
    walks: Mapping[str, Sequence[int]],
    sizes: Sizes,
) -> tuple[dict[str, Any], Tensor]:
    """All gates of a rendered domain's U-Net, by extrapolated inversion.

    Args:
        backbone: the trained model.
        dataset: whose validation images are held out from its training.
        classifiers: their mean logit decides attributes.
        walks: suite → its timesteps. Inversion, plain too, is measured on each, all else on the
            longest.
        sizes: numbers of images.

    Returns:
        Figures by name, and [n, 3, H, W] unconditional samples to look at.
    """
    attributes, timesteps = dataset.card.attributes, max(walks.values(), key=len)

    def decide(pixels: Tensor) -> Tensor:
        return torch.stack([c.logits(pixels) for c in classifiers]).mean(0)

    def by_name(values: Sequence[float]) -> dict[str, float]:
        return {a: round(float(v), 3) for a, v in zip(attributes, values, strict=True)}

    train = dataset.load("train", sizes.train)
    store = _empty_store(backbone, train, timesteps)
    for rows in row_blocks(sizes.train, backbone.micro_batch):  # nobody asks for them back
        collect = partial(_record, store, rows)
        ddim_inversion(backbone, train.pixels[rows], timesteps, collect, extrapolate=True)
    test = dataset.load("validation", sizes.held_out)
    test_store = _empty_store(backbone, test, timesteps)
    inversions = invert(
        backbone, test.image_ids, test.pixels, timesteps, collect=test_store.record,
        extrapolate=True,
    )  # fmt: skip
    before = decide(inversions.x_0) > 0

    def comes_back(walk: Sequence[int], extrapolate: bool) -> dict[str, float]:
        again = inversions
        if not extrapolate or walk != timesteps:
            again = invert(backbone, test.image_ids, test.pixels, walk, extrapolate=extrapolate)
        alike = before == (decide(again.reconstruction) > 0)
        return {
            "psnr": float(psnr(again.reconstruction.numpy(), again.x_0.numpy()).mean()),
            "attribute_agreement": float(alike.float().mean()),
        }

    noise = noise_statistics(backbone.whiten(inversions.x_T).numpy())
    step = min(range(len(timesteps)), key=lambda s: abs(timesteps[s] - PROBE_T))
    rates, pairs = donor_transfer(backbone, inversions, _labels(test), decide)
    renders = dataset.load("validation", sizes.held_out + sizes.samples).pixels[sizes.held_out :]
    distance = KernelDistance(renders)
    steered = _steer(
        backbone, dataset, (train, store), (test, inversions), sizes.edited, decide, distance
    )
    samples = _samples(backbone, timesteps, sizes.samples)
    figures: dict[str, Any] = {
        "unet": backbone.weights_hash,
        "timesteps": list(timesteps),
        "sizes": vars(sizes),
        "classifiers": [c.info.name for c in classifiers],
        "plain_inversion": {suite: comes_back(walk, False) for suite, walk in walks.items()},
        "inversion": {suite: comes_back(walk, True) for suite, walk in walks.items()},
        "x_T_mean": noise.mean,
        "x_T_std": noise.std,
        "donor_h_transfer": by_name(rates),
        "donor_pairs_that_differ": by_name(pairs),
        "probe_on_h": by_name(_probe(train, store, test, test_store, step)),
        "direction_flip_rate": by_name([s.rate for s in steered]),
        "direction_strength": by_name([s.strength for s in steered]),
        "direction_kernel_distance": by_name([s.distance for s in steered]),
        "sampler": "DPM-Solver++ (2M)",
        "sample_kernel_distance": distance(samples, renders),
        "sample_entropy": _entropy(classifiers, samples),
        "render_entropy": _entropy(classifiers, renders),
        "sample_attribute_rate": by_name((decide(samples) > 0).float().mean(0).tolist()),
    }
    return figures, samples


def _empty_store(
    backbone: Backbone, batch: ImageBatch, timesteps: Sequence[int]
) -> TrajectoryStore:
    shape = batch.pixels.shape[1:]
    return TrajectoryStore.create(None, batch.image_ids, timesteps, shape, backbone.h_shape)


def _record(store: TrajectoryStore, rows: slice, step: int, state: EncoderState) -> None:
    store.record(step, rows, state)


def _labels(batch: ImageBatch) -> Tensor:
    assert batch.attributes is not None  # a rendered domain knows its factors
    return batch.attributes


@torch.no_grad()
def donor_transfer(
    backbone: Backbone, inversions: Inversions, labels: Tensor, decide: Any
) -> tuple[list[float], list[int]]:
    """Regenerate each image with the h of the next one at every timestep.

    Returns:
        For each attribute the share of images that take over the donor's value, among those where
        the two differ, and how many these are.
    """
    own = swapped = inversions.x_T
    for t, t_next in generation_steps(inversions.timesteps):
        ab, ab_next = backbone.schedule.alpha_bar(t), backbone.schedule.alpha_bar(t_next)
        state = backbone.encode(own, t)
        h = state.h.roll(-DONOR_SHIFT, 0)
        eps = backbone.decode(state)
        own = ddim_step(own, eps, eps, ab, ab_next)
        # The donors' h beside the receivers' skip connections.
        eps = backbone.decode(replace(backbone.encode(swapped, t), h=h))
        swapped = ddim_step(swapped, eps, eps, ab, ab_next)
    donors = labels.roll(-DONOR_SHIFT, 0)
    differ = labels != donors
    taken = ((decide(swapped) > 0) == donors) & differ
    return (taken.sum(0) / differ.sum(0)).tolist(), differ.sum(0).tolist()


def _probe(
    train: ImageBatch, store: TrajectoryStore, test: ImageBatch, held: TrajectoryStore, step: int
) -> list[float]:
    """Accuracy of a linear SVM on flattened h, one number an attribute."""
    flat = [s.h(step).flatten(1).double().numpy() for s in (store, held)]
    probe = RawProbe(ProbeData(flat[0], flat[1]))
    columns = range(_labels(train).shape[1])
    return [
        probe(_labels(train)[:, a].numpy(), _labels(test)[:, a].numpy(), 0).accuracy
        for a in columns
    ]


@dataclass(frozen=True)
class _Steered:
    rate: float
    strength: float
    distance: float


def _steer(
    backbone: Backbone,
    dataset: RenderedDataset,
    train: tuple[ImageBatch, TrajectoryStore],
    test: tuple[ImageBatch, Inversions],
    count: int,
    decide: Any,
    distance: KernelDistance,
) -> list[_Steered]:
    """What the mean-difference direction of each attribute does to images without it.

    At the first strength that flips `FLIPPED` of them, or the one that flips most: the share
    flipped, the strength, and the kernel distance to the perfect edits of the same images.
    """
    (known, store), (held_out, inversions) = train, test
    found = []
    for a, attribute in enumerate(dataset.card.attributes):
        has = _labels(known)[:, a]
        directions = {
            t: store.h(s)[has].mean(0) - store.h(s)[~has].mean(0)
            for s, t in enumerate(store.timesteps)
        }
        rows = (~_labels(held_out)[:, a]).nonzero().flatten().tolist()[:count]

        def delta_h(
            h: Tensor, t: int, temb: Tensor, directions: dict[int, Tensor] = directions
        ) -> Tensor:
            return directions[t].expand_as(h)

        chosen = inversions.take(rows)
        edits = generate_edits(backbone, chosen, DIRECTION_STRENGTHS, delta_h, DIRECTION_WINDOW, 0)
        flips = [float((decide(e)[:, a] > 0).float().mean()) for e in edits]
        best = next((k for k, f in enumerate(flips) if f >= FLIPPED), int(np.argmax(flips)))
        perfect = dataset.oracle(chosen.image_ids, attribute)
        far = distance(edits[best], perfect)
        found.append(_Steered(flips[best], DIRECTION_STRENGTHS[best], far))
    return found


@torch.no_grad()
def _samples(backbone: Backbone, timesteps: Sequence[int], count: int) -> Tensor:
    """Unconditional samples in [-1, 1] by DPM-Solver++ (2M; Lu et al. 2022).

    At the suite's few steps, samples of DDIM lack contrast by the error of the solver, which is of
    first order; this one's is of second.
    """
    size = backbone.image_size
    solver = DPMSolverMultistepScheduler(
        trained_betas=backbone.schedule.betas.numpy(), final_sigmas_type="zero"
    )
    ids = [f"sample-{i}" for i in range(count)]
    blocks = []
    for rows in row_blocks(count, backbone.micro_batch):
        noise = image_noise((3, size, size), ids[rows], 0, "unconditional samples")
        x = backbone.colour(noise)
        solver.set_timesteps(timesteps=list(reversed(timesteps)))
        for t in solver.timesteps.tolist():
            eps = backbone.decode(backbone.encode(x, t))
            x = solver.step(eps, t, x).prev_sample
        blocks.append(x.clamp(-1, 1).cpu())
    return torch.cat(blocks)


def _entropy(classifiers: Sequence[AttributeClassifier], pixels: Tensor) -> float:
    """Mean binary entropy of the decisions, in bits; 0 is sure, 1 undecided."""
    p = torch.stack([torch.sigmoid(c.logits(pixels).double()) for c in classifiers])
    p = p.clamp(1e-9, 1 - 1e-9)
    return float(-(p * p.log2() + (1 - p) * (1 - p).log2()).mean())
