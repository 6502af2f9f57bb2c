"""The real world: photographs and published weights that the user has, found and never fetched.

Dogs and churches have no labels. Their attributes are judged by CLIPs from the concepts' own texts
(`ZeroShotClassifier`), which every table says; no method is given what these see.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from casl_bench.backbones.backbone import Backbone
from casl_bench.backbones.diffusers_folder import open_backbone
from casl_bench.core.errors import BenchError, InputError, UsageError
from casl_bench.images.afhq_dog import AfhqDog
from casl_bench.images.celeba_hq import CELEBA_ATTRIBUTES, CelebaHq
from casl_bench.images.lsun_church import LsunChurch
from casl_bench.images.photo_dataset import PhotoDataset
from casl_bench.scorers.attribute_scorer import AttributeScorer
from casl_bench.scorers.classifier_sidecar import PublishedNames
from casl_bench.scorers.clip_scorer import ClipScorer
from casl_bench.scorers.face_identity import VGGFACE2_FILE, FaceIdentity
from casl_bench.scorers.lpips_distance import ALEXNET_FILE, LpipsDistance
from casl_bench.scorers.photo_classifier import PhotoClassifier
from casl_bench.scorers.photo_similarity import PhotoSimilarity
from casl_bench.scorers.zero_shot import ZeroShotClassifier
from casl_bench.worlds.options import WorldOptions
from casl_bench.worlds.published_clip import find_clip, load_clip
from casl_bench.worlds.weights_table import (
    GUIDE_CLIP,
    SCORE_CLIP,
    ZERO_SHOT_CLIP,
    Weight,
    clip_place,
    found_at,
    missing_error,
    weight_at,
)
from casl_bench.worlds.world import WORLDS, World

CALIBRATION_IMAGES = 128
"""Training images from which a zero-shot classifier takes its units."""
ACCURACY_FLOOR = 0.6
"""Of a classifier of photographs on its worst attribute. The 40 attributes of CelebA are partly
opinion: published classifiers reach 0.87 in the mean and 0.66 on oval_face (Liu et al. 2015,
table 1), so the floor of drawn images would refuse all of them."""
_MICRO_BATCH = {"cpu": 1, "mps": 4}
_GPU_MICRO_BATCH = 16
"""Rows of a pass of a 256-pixel U-Net: a CPU is full with one, a GPU is not."""
_CLASSIFIER_ENDINGS = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class RealDomain:
    """What a real data set needs beside its images.

    Attributes:
        dataset: its class.
        hub_backbone: Hub id of a published backbone, or None.
        faces: whether there is a person whose identity can change.
        published: our attribute → (published name, sign) of a labelled set; None where attributes
            are judged zero-shot.
    """

    dataset: Callable[..., PhotoDataset]
    hub_backbone: str | None
    faces: bool = False
    published: PublishedNames | None = None


DOMAINS: dict[str, RealDomain] = {
    "celeba_hq": RealDomain(
        CelebaHq, "google/ddpm-ema-celebahq-256", faces=True, published=CELEBA_ATTRIBUTES
    ),
    "afhq_dog": RealDomain(AfhqDog, None),
    "lsun_church": RealDomain(LsunChurch, "google/ddpm-ema-church-256"),
}


def real_world(name: str, device: str = "cpu", options: WorldOptions | None = None) -> World:
    """A real data set with the user's weights.

    Args:
        name: of the data set.
        device: where the networks run.
        options: where data and weights are.

    Raises:
        UsageError: data or weights are not there; all that are missing are named at once.
        InvalidBenchmarkError: files are damaged or do not fit together.
    """
    options = options or WorldOptions()
    domain = DOMAINS[name]
    source = options.source(name)
    if source.root is None and source.hub_id is None:
        raise UsageError(
            f"no images of {name}",
            mend="say where they are: --data-root FOLDER, CASL_BENCH_DATA or --data-id ID",
        )
    domain.dataset(source)  # a wrong folder is told before gigabytes are read
    _check_weights(name, domain, options)
    backbone = _backbone(name, domain, options, device)
    dataset = domain.dataset(source, backbone.image_size)
    root, download = options.weights, options.allow_download
    guide = load_clip(options.guide_clip or GUIDE_CLIP, root, download).to(device)
    score = load_clip(options.score_clip or SCORE_CLIP, root, download).to(device)
    if domain.published is None:
        pairs = {c.attribute: (c.source_prompt, c.target_prompt) for c in dataset.card.concepts}
        pixels = _first(dataset, CALIBRATION_IMAGES)
        judge = load_clip(options.zero_shot_clip or ZERO_SHOT_CLIP, root, download).to(device)
        classifiers: tuple[AttributeScorer, ...] = tuple(
            ZeroShotClassifier.calibrated(clip, clip.name, pairs, pixels) for clip in (judge, score)
        )
    else:
        classifiers = tuple(
            PhotoClassifier.load(path, dataset.card.attributes, domain.published).to(device)
            for path in _classifier_files(name, options)
        )
    lpips = LpipsDistance.load(_found(root, f"lpips/{ALEXNET_FILE}"))
    identity = FaceIdentity.load(_found(root, f"faces/{VGGFACE2_FILE}")) if domain.faces else None
    return World(
        name="real",
        dataset=dataset,
        backbone=backbone,
        guide_clip=guide,
        score_clip=ClipScorer(score),
        classifiers=classifiers,
        embedder=PhotoSimilarity(lpips, identity).to(device),
        accuracy_floor=ACCURACY_FLOOR,
    )


def _check_weights(name: str, domain: RealDomain, options: WorldOptions) -> None:
    """Name everything that is missing at once, before anything big is read."""
    root, missing = options.weights, list[Weight]()

    def need(place: str, given: object = None, on_hub: bool = False) -> None:
        if not given and not (on_hub and options.allow_download) and not found_at(root, place):
            missing.append(weight_at(place))

    need(
        f"backbones/{name}",
        options.backbone_of(name),
        on_hub=domain.hub_backbone is not None,
    )
    clips = [(options.guide_clip, GUIDE_CLIP), (options.score_clip, SCORE_CLIP)]
    clips += [(options.zero_shot_clip, ZERO_SHOT_CLIP)] if domain.published is None else []
    for given, default in clips:
        need(clip_place(default), given or find_clip(default, root), on_hub=True)
    need(f"lpips/{ALEXNET_FILE}")
    if domain.faces:
        need(f"faces/{VGGFACE2_FILE}")
    if domain.published is not None:
        need(f"classifiers/{name}", options.classifiers)
    if missing:
        raise missing_error(root, missing, name)


def _backbone(name: str, domain: RealDomain, options: WorldOptions, device: str) -> Backbone:
    place = options.backbone_of(name) or found_at(options.weights, f"backbones/{name}")
    kind = device.split(":")[0]
    try:
        return open_backbone(
            place or domain.hub_backbone or "",
            name=name,
            micro_batch=_MICRO_BATCH.get(kind, _GPU_MICRO_BATCH),
            allow_download=options.allow_download,
        ).to(device)
    except BenchError as error:
        error.where = error.where or str(place)
        raise


def _classifier_files(name: str, options: WorldOptions) -> tuple[Path, ...]:
    if options.classifiers:
        return options.classifiers
    folder = options.weights / "classifiers" / name
    found = sorted(p for p in folder.iterdir() if p.suffix in _CLASSIFIER_ENDINGS)
    if not found:
        raise missing_error(options.weights, [weight_at(f"classifiers/{name}")], name)
    return tuple(found)


def _first(dataset: PhotoDataset, count: int) -> Tensor:
    """[n <= count, 3, H, W]: the first usable training images."""
    count = min(count, dataset.count("train"))
    try:
        return dataset.load("train", count).pixels
    except InputError:
        if not dataset.bad_images:
            raise
        return dataset.load("train", count - len(dataset.bad_images)).pixels


def _found(root: Path, place: str) -> Path:
    path = found_at(root, place)
    assert path is not None  # all weights have been looked for
    return path


for _name in DOMAINS:
    WORLDS.register(_name, functools.partial(real_world, _name))
