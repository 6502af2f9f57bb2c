"""Photographs and published weights: found where the user has them, fetched where that is allowed.

Dogs and churches have no labels. Their attributes are scored by CLIPs from the concepts' own texts
(`ZeroShotClassifier`), which every table says; no method is given what these see.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from filelock import FileLock
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from casl_bench.core.errors import BenchError, InputError, UsageError
from casl_bench.core.files import make_folder
from casl_bench.core.memory import memory_of
from casl_bench.core.option_types import expand_home
from casl_bench.domains.domain import DOMAINS, Domain, Preparation
from casl_bench.domains.options import DomainOptions
from casl_bench.models.backbone import Backbone
from casl_bench.models.clip import ClipModel, ClipScorer
from casl_bench.models.embedder import RenderEmbedder
from casl_bench.models.model_files import CARD
from casl_bench.models.scorers import AttributeScorer, Similarity
from casl_bench.models.unet import BackboneConfig
from casl_bench.photos.celeba import Celeba
from casl_bench.photos.celeba_annotation import CELEBA_ATTRIBUTES
from casl_bench.photos.celeba_hq import CelebaHq
from casl_bench.photos.checkpoints.convert import open_backbone
from casl_bench.photos.photo_dataset import PhotoDataset
from casl_bench.photos.photo_hub import PublishedNames
from casl_bench.photos.published_clip import clip_on_hub, fetch_clip, published_clip
from casl_bench.photos.published_weights import (
    ALEXNET_FILE,
    GUIDE_CLIP,
    SCORE_CLIP,
    VGGFACE2_FILE,
    WEIGHTS,
    ZERO_SHOT_CLIP,
    Weight,
    clip_place,
    fetch,
    found_at,
    missing_error,
    refuse_other,
    weight_at,
)
from casl_bench.photos.scorers.classifier import PhotoClassifier
from casl_bench.photos.scorers.similarity import FaceIdentity, LpipsDistance, PhotoSimilarity
from casl_bench.photos.scorers.zero_shot import ZeroShotClassifier
from casl_bench.photos.unlabelled import AfhqDog, LsunChurch

CALIBRATION_IMAGES = 128
"""Training images from which a zero-shot classifier takes its units."""
ACCURACY_FLOOR = 0.6
"""Of a classifier of photographs on its worst attribute. The 40 attributes of CelebA are partly
opinion: published classifiers reach 0.87 in the mean and 0.66 on oval_face (Liu et al. 2015,
table 1), so the floor of rendered images would refuse all of them."""
_MICRO_BATCH = {"cpu": 1, "mps": 4}
"""Rows of a pass of a 256-pixel U-Net: a CPU is full with one, a GPU is not."""
MOST_ROWS, MAPS_OF_A_ROW, SHARE_OF_GPU = 32, 24, 0.5
"""Of a pass on a GPU: rows that fill any of them; float32 maps of the first level's size that a row
holds at once (its skip connections and what a block works with, twice what they add up to, for the
workspace of convolutions: arithmetic, not measured); and the share of its memory that they take."""
_CLASSIFIER_ENDINGS = (".safetensors", ".pt", ".pth")


def find_clip(spec: str, root: Path) -> str | None:
    """The weights file of ARCHITECTURE:TAG or ARCHITECTURE:FILE; None where it is not here.

    Raises UsageError where the text is neither, or names a file that is not there.
    """
    architecture, tag = _parts(spec)
    if Path(tag).is_file():
        return tag
    if "/" in tag or Path(tag).suffix:
        raise UsageError("no such weights file", where=tag, hint="give ARCHITECTURE:FILE")
    local = found_at(root, clip_place(spec))
    if local is not None:
        return str(local)
    hub_id, names = clip_on_hub(architecture, tag)
    for name in names:
        cached = try_to_load_from_cache(hub_id, name)
        if isinstance(cached, str):
            return cached
    return None


def load_clip(spec: str, root: Path, allow_download: bool) -> ClipModel:
    """A CLIP by its name, ARCHITECTURE:TAG or ARCHITECTURE:FILE, or a folder of one trained here.

    Raises UsageError where there is no such architecture or tag, or its weights are neither here
    nor may be downloaded, and InvalidBenchmarkError where the file is damaged, unsafe or of another
    architecture.
    """
    if (own := Path(expand_home(spec, spec)) / CARD).is_file():
        return ClipModel.load(own.parent)
    architecture, tag = _parts(spec)
    found = find_clip(spec, root)
    if found is None and not allow_download:
        raise UsageError(
            f"weights of the CLIP {spec} are missing",
            where=f"{root / clip_place(spec)}.safetensors",
            hint="put them there, see `casl-bench weights`, or --allow-download",
        )
    path = Path(found or fetch_clip(architecture, tag))
    if found is None and path.suffix == ".safetensors":
        refuse_other(path, next((w for w in WEIGHTS if w.place == clip_place(spec)), None))
    return published_clip(architecture, path, "" if found == tag else tag, allow_download)


def _parts(spec: str) -> tuple[str, str]:
    architecture, colon, tag = spec.partition(":")
    if not (architecture and colon and tag):
        raise UsageError(
            f"'{spec}' names no CLIP",
            hint="write ARCHITECTURE:TAG or ARCHITECTURE:FILE, or name the folder of your own",
        )
    return architecture, expand_home(tag, spec)


@dataclass(frozen=True)
class PhotoDomain:
    """What a real data set needs beside its images."""

    dataset: Callable[..., PhotoDataset]  # its class
    hub_backbone: str | None  # Hub id of a published backbone, or None
    faces: bool = False  # whether there is a person whose identity can change
    # Our attribute → (published name, sign) of a labelled set; None where attributes are scored
    # zero-shot
    published: PublishedNames | None = None


PHOTO_DOMAINS: dict[str, PhotoDomain] = {
    "celeba_hq": PhotoDomain(
        CelebaHq, "google/ddpm-ema-celebahq-256", faces=True, published=CELEBA_ATTRIBUTES
    ),
    "celeba": PhotoDomain(Celeba, None, faces=True, published=CELEBA_ATTRIBUTES),
    "afhq_dog": PhotoDomain(AfhqDog, None),
    "lsun_church": PhotoDomain(LsunChurch, "google/ddpm-ema-church-256"),
}


def photo_domain(name: str, device: str = "cpu", options: DomainOptions | None = None) -> Domain:
    """A real data set with the user's weights, its networks on the device.

    Raises UsageError where data or weights are not there (all that are missing are named at once),
    and InvalidBenchmarkError where files are damaged or do not fit together.
    """
    options = options or DomainOptions()
    domain = PHOTO_DOMAINS[name]
    source = options.source(name)
    if source.root is None and source.hub_id is None:
        raise UsageError(
            f"no images of {name}",
            hint="say where they are: --data-root FOLDER, CASL_BENCH_DATA or --data-id ID",
        )
    domain.dataset(source)  # a wrong folder is refused before gigabytes are read
    _check_weights(name, options)
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
    return Domain(
        name="real",
        dataset=dataset,
        backbone=backbone,
        guide_clip=guide,
        score_clip=ClipScorer(score),
        classifiers=classifiers,
        embedder=_similarity(name, domain, root, device),
        accuracy_floor=ACCURACY_FLOOR,
    )


def _similarity(name: str, domain: PhotoDomain, root: Path, device: str) -> Similarity:
    """LPIPS, and identity of faces; or an embedder of the user's own, which stays on the CPU."""
    if (own := own_embedder(root, name)) is not None:
        return RenderEmbedder.load(own)
    lpips = LpipsDistance.load(_here(root, f"lpips/{ALEXNET_FILE}"))
    identity = FaceIdentity.load(_here(root, f"faces/{VGGFACE2_FILE}")) if domain.faces else None
    return PhotoSimilarity(lpips, identity).to(device)


def own_embedder(root: Path, name: str) -> Path | None:
    """Folder of an embedder that was trained for a data set; None where there is none."""
    folder = root / "embedders" / name
    return folder if (folder / CARD).is_file() else None


def _check_weights(name: str, options: DomainOptions, to_be_trained: bool = False) -> None:
    """Name everything that is missing at once, before anything big is read or trained."""
    domain, root, missing = PHOTO_DOMAINS[name], options.weights, list[Weight]()

    def need(place: str, given: object = None, on_hub: bool = False) -> None:
        weight = weight_at(place)
        may_come = options.allow_download and (on_hub or weight.url)
        if not given and not may_come and not found_at(root, place):
            missing.append(weight)

    need(
        f"backbones/{name}",
        options.backbone_of(name),
        on_hub=domain.hub_backbone is not None,
    )
    clips = [(options.guide_clip, GUIDE_CLIP), (options.score_clip, SCORE_CLIP)]
    clips += [(options.zero_shot_clip, ZERO_SHOT_CLIP)] if domain.published is None else []
    for given, default in clips:
        need(clip_place(default), given or find_clip(default, root), on_hub=True)
    own = own_embedder(root, name)
    need(f"lpips/{ALEXNET_FILE}", own)
    if domain.faces and not own:
        need(f"faces/{VGGFACE2_FILE}")
    if domain.published is not None:
        need(f"classifiers/{name}", options.classifiers or to_be_trained)
    if missing:
        raise missing_error(root, missing, name)


def _backbone(name: str, domain: PhotoDomain, options: DomainOptions, device: str) -> Backbone:
    place = options.backbone_of(name) or found_at(options.weights, f"backbones/{name}")
    kind = device.split(":")[0]
    try:
        backbone = open_backbone(
            place or domain.hub_backbone or "",
            name=name,
            micro_batch=lambda config: (
                rows_of_a_pass(config, memory_of(device))
                if kind == "cuda"
                else _MICRO_BATCH.get(kind, 1)
            ),
            allow_download=options.allow_download,
        ).to(device)
        return backbone.compile() if options.compiled else backbone
    except BenchError as error:
        error.where = error.where or str(place)
        raise


def rows_of_a_pass(config: BackboneConfig, memory: int) -> int:
    """Images in a pass on a GPU of so many bytes: a power of two, the same for every such GPU.

    Of all its memory and not of what is free: the numbers of an image depend on it.
    """
    side = config.image_size // config.patch_size
    row = MAPS_OF_A_ROW * 4 * config.unet["block_out_channels"][0] * side**2
    rows = min(MOST_ROWS, max(1, int(SHARE_OF_GPU * memory / row)))
    return 1 << (rows.bit_length() - 1)


def _classifier_files(name: str, options: DomainOptions) -> tuple[Path, ...]:
    if options.classifiers:
        return options.classifiers
    found = _classifiers_in(options.weights / "classifiers" / name)
    if not found:
        raise missing_error(options.weights, [weight_at(f"classifiers/{name}")], name)
    return found


def _classifiers_in(folder: Path) -> tuple[Path, ...]:
    files = folder.iterdir() if folder.is_dir() else ()
    return tuple(sorted(p for p in files if p.suffix in _CLASSIFIER_ENDINGS))


def _first(dataset: PhotoDataset, count: int) -> Tensor:
    """[n <= count, 3, H, W]: the first usable training images."""
    count = min(count, dataset.count("train"))
    try:
        return dataset.load("train", count).pixels
    except InputError:
        if not dataset.bad_images:
            raise
        return dataset.load("train", count - len(dataset.bad_images)).pixels


def _here(root: Path, place: str) -> Path:
    """Where a file is, fetched if it is not there: what may not be was refused before."""
    return found_at(root, place) or fetch(weight_at(place), root)


TRAINED = ("--architecture", "timm:resnet18", "--image-size", "128", "--epochs", "4")
"""How an attribute classifier is trained where there is none: `casl-bench train attributes`."""
MOST_TRAINED_ON, MOST_HELD_OUT = 24_000, 3_000
"""Images of either split that it is trained and measured on."""


@dataclass(frozen=True)
class PhotoDomainFactory:
    """Opens the domain of a real data set."""

    name: str

    def __call__(self, device: str = "cpu", options: DomainOptions | None = None) -> Domain:
        """See `photo_domain`."""
        return photo_domain(self.name, device, options)

    def preparation(self, device: str, options: DomainOptions) -> Preparation | None:
        """Train an attribute classifier where there is none and the images have labels.

        Raises as `photo_domain` for whatever else is missing: nothing is trained in vain.
        """
        source, folder = options.source(self.name), options.weights / "classifiers" / self.name
        domain = PHOTO_DOMAINS[self.name]
        if options.classifiers or domain.published is None or source.root is None:
            return None
        if source.hub_id or any(_classifiers_in(folder)):
            return None
        dataset = domain.dataset(source)
        if not dataset.labelled:
            return None
        _check_weights(self.name, options, to_be_trained=True)
        images = min(MOST_TRAINED_ON, dataset.count("train"))
        held_out = min(MOST_HELD_OUT, dataset.count("validation"))

        given = [
            *("--data-root", str(source.root), "--dataset", self.name, "--out", str(folder)),
            *("--images", str(images), "--held-out", str(held_out), "--device", device),
            *("--note", "trained by a run that had none", *TRAINED),
        ]

        def train() -> None:
            # A guest of its own: named, not imported.
            command = import_module("casl_bench.training.train_attributes").main
            make_folder(folder)
            # Its lines are no part of the table that a run prints.
            with FileLock(folder / ".training.lock"), redirect_stdout(sys.stderr):
                if any(_classifiers_in(folder)):  # by another command, meanwhile
                    return
                command.main(given, "casl-bench", standalone_mode=False)

        what = f"attribute classifier, {TRAINED[1]} on {images:,} images"
        return Preparation(what, train)


for _name in PHOTO_DOMAINS:
    DOMAINS.register(_name, PhotoDomainFactory(_name))
