"""Photographs and published weights that the user has, found and never fetched.

Dogs and churches have no labels. Their attributes are scored by CLIPs from the concepts' own texts
(`ZeroShotClassifier`), which every table says; no method is given what these see.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from casl_bench.core.errors import BenchError, InputError, UsageError
from casl_bench.core.files import hash_file
from casl_bench.core.option_types import expand_home
from casl_bench.domains.domain import DOMAINS, Domain
from casl_bench.domains.options import DomainOptions
from casl_bench.models.backbone import Backbone
from casl_bench.models.clip import ClipModel, ClipScorer
from casl_bench.models.scorers import AttributeScorer
from casl_bench.photos.celeba_hq import CELEBA_ATTRIBUTES, CelebaHq
from casl_bench.photos.checkpoints.convert import open_backbone
from casl_bench.photos.photo_dataset import PhotoDataset
from casl_bench.photos.published_clip import clip_on_hub, fetch_clip, published_clip
from casl_bench.photos.scorers.classifier import PhotoClassifier, PublishedNames
from casl_bench.photos.scorers.similarity import (
    ALEXNET_FILE,
    VGGFACE2_FILE,
    FaceIdentity,
    LpipsDistance,
    PhotoSimilarity,
)
from casl_bench.photos.scorers.zero_shot import ZeroShotClassifier
from casl_bench.photos.unlabelled import AfhqDog, LsunChurch

REAL_DATASETS = ("celeba_hq", "afhq_dog", "lsun_church")
GUIDE_CLIP = "ViT-B-16-quickgelu:openai"
"""The guide of both reference codes; OpenAI's weights need the quick GELU, which a file's name
alone would not tell."""
SCORE_CLIP = "ViT-B-32:laion2b_s34b_b79k"
"""Trained on other images than the guide's."""
ZERO_SHOT_CLIP = "ViT-B-32:datacomp_xl_s13b_b90k"
"""On other ones again: it scores attributes where the score CLIP scores directions."""


CALIBRATION_IMAGES = 128
"""Training images from which a zero-shot classifier takes its units."""
ACCURACY_FLOOR = 0.6
"""Of a classifier of photographs on its worst attribute. The 40 attributes of CelebA are partly
opinion: published classifiers reach 0.87 in the mean and 0.66 on oval_face (Liu et al. 2015,
table 1), so the floor of rendered images would refuse all of them."""
_MICRO_BATCH = {"cpu": 1, "mps": 4}
_GPU_MICRO_BATCH = 16
"""Rows of a pass of a 256-pixel U-Net: a CPU is full with one, a GPU is not."""
_CLASSIFIER_ENDINGS = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class Weight:
    """One entry."""

    place: str  # file or folder, below the folder of weights; a stem where several endings will do
    datasets: tuple[str, ...]  # which need it
    use: str  # what for
    source: str  # where it is published
    licence: str  # of the weights, as their publishers state it
    sha256: str = ""  # of the published file, or its first digits, where they are known


def clip_place(spec: str) -> str:
    """Where the weights of ARCHITECTURE:TAG are looked for, without the ending."""
    return f"clip/{spec.replace(':', '.').replace('/', '_')}"


WEIGHTS: tuple[Weight, ...] = (
    Weight(
        "backbones/celeba_hq",
        ("celeba_hq",),
        "backbone",
        "huggingface.co/google/ddpm-ema-celebahq-256 as a folder; or celeba_hq.ckpt of SDEdit and "
        "DiffusionCLIP, `casl-bench convert`",
        "Apache-2.0 (Hub); MIT (SDEdit)",
    ),
    Weight(
        "backbones/afhq_dog",
        ("afhq_dog",),
        "backbone",
        "afhq_dog_4m.pt of github.com/jychoi118/ilvr_adm (afhqdog_4m.pt in Asyrp and "
        "DiffusionCLIP), `casl-bench convert`",
        "none stated there; AFHQ itself is CC BY-NC 4.0",
    ),
    Weight(
        "backbones/lsun_church",
        ("lsun_church",),
        "backbone",
        "huggingface.co/google/ddpm-ema-church-256 as a folder; or church_outdoor.ckpt of SDEdit "
        "and DiffusionCLIP, `casl-bench convert`",
        "Apache-2.0 (Hub); MIT (SDEdit)",
    ),
    Weight(
        clip_place(GUIDE_CLIP),
        REAL_DATASETS,
        "CLIP that guides methods",
        "huggingface.co/timm/vit_base_patch16_clip_224.openai, open_clip_model.safetensors",
        "MIT",
    ),
    Weight(
        clip_place(SCORE_CLIP),
        REAL_DATASETS,
        "CLIP that scores",
        "huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K, open_clip_model.safetensors",
        "MIT",
    ),
    Weight(
        clip_place(ZERO_SHOT_CLIP),
        ("afhq_dog", "lsun_church"),
        "zero-shot attributes",
        "huggingface.co/laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K, open_clip_model.safetensors",
        "MIT",
    ),
    Weight(
        f"lpips/{ALEXNET_FILE}",
        REAL_DATASETS,
        "LPIPS: AlexNet below the heads of the `lpips` package",
        f"download.pytorch.org/models/{ALEXNET_FILE}",
        "BSD-3-Clause",
        "7be5be79",
    ),
    Weight(
        f"faces/{VGGFACE2_FILE}",
        ("celeba_hq",),
        "identity: InceptionResnetV1 on VGGFace2",
        "github.com/timesler/facenet-pytorch, release v2.2.9",
        "MIT (trained on VGGFace2, for research)",
    ),
    Weight(
        "classifiers/celeba_hq",
        ("celeba_hq",),
        "attribute classifiers, each with its .json",
        "`casl-bench train attributes`, or your own",
        "yours",
    ),
)


def weight_at(place: str) -> Weight:
    """The entry of this place."""
    return next(w for w in WEIGHTS if w.place == place)


def found_at(root: Path, place: str) -> Path | None:
    """The file or folder of a place, whatever its ending; None where there is none.

    Raises UsageError where several files differ in their ending only.
    """
    exact = root / place
    if exact.is_file() or (exact.is_dir() and any(exact.iterdir())):
        return exact
    if not exact.parent.is_dir():
        return None
    # Not glob: a tag may hold its special characters, and a name several dots.
    endings = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
    found = [p for e in endings if (p := exact.with_name(exact.name + e)).is_file()]
    if len(found) > 1:
        raise UsageError(
            f"several files for one thing: {', '.join(p.name for p in found)}",
            where=str(exact.parent),
            hint="keep one",
        )
    return found[0] if found else None


def missing_error(root: Path, missing: Iterable[Weight], dataset: str) -> UsageError:
    """One line for everything that a data set lacks."""
    named = "; ".join(f"{w.use}: {w.place} from {w.source}" for w in missing)
    return UsageError(
        f"weights for {dataset} are missing: {named}",
        where=str(root),
        hint="put them there (see `casl-bench weights`), name others by option, or "
        "--allow-download where the Hub has them",
    )


def state_of(weight: Weight, root: Path) -> str:
    """`missing`, `found`, `as published`, `not the published file`, or why it cannot be read."""
    path = found_at(root, weight.place)
    if path is None:
        return "missing"
    if not weight.sha256 or path.is_dir():
        return "found"
    try:
        published = hash_file(path).startswith(weight.sha256)
    except OSError as error:
        return error.strerror or "unreadable"
    return "as published" if published else "not the published file"


def weights_text(root: Path) -> str:
    """The table with what is here now."""
    from tabulate import tabulate

    rows = [
        [w.place, ", ".join(w.datasets), w.use, w.source, w.licence, w.sha256 or "—",
         state_of(w, root)]
        for w in WEIGHTS
    ]  # fmt: skip
    headers = ["place", "data sets", "what for", "where from", "licence", "SHA-256", "now"]
    body: str = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
    return (
        f"Weights are looked for in {root} (--weights-root or CASL_BENCH_WEIGHTS); a file may end "
        f"in .safetensors, .pt, .pth, .bin or .ckpt.\n\n{body}\n"
    )


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
    """A CLIP by its name, ARCHITECTURE:TAG or ARCHITECTURE:FILE.

    Raises UsageError where there is no such architecture or tag, or its weights are neither here
    nor may be downloaded, and InvalidBenchmarkError where the file is damaged, unsafe or of another
    architecture.
    """
    architecture, tag = _parts(spec)
    found = find_clip(spec, root)
    if found is None and not allow_download:
        raise UsageError(
            f"weights of the CLIP {spec} are missing",
            where=f"{root / clip_place(spec)}.safetensors",
            hint="put them there, see `casl-bench weights`, or --allow-download",
        )
    path = fetch_clip(architecture, tag) if found is None else Path(found)
    return published_clip(architecture, path, "" if found == tag else tag, allow_download)


def _parts(spec: str) -> tuple[str, str]:
    architecture, colon, tag = spec.partition(":")
    if not (architecture and colon and tag):
        raise UsageError(
            f"'{spec}' names no CLIP", hint="write ARCHITECTURE:TAG or ARCHITECTURE:FILE"
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
    return Domain(
        name="real",
        dataset=dataset,
        backbone=backbone,
        guide_clip=guide,
        score_clip=ClipScorer(score),
        classifiers=classifiers,
        embedder=PhotoSimilarity(lpips, identity).to(device),
        accuracy_floor=ACCURACY_FLOOR,
    )


def _check_weights(name: str, domain: PhotoDomain, options: DomainOptions) -> None:
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


def _backbone(name: str, domain: PhotoDomain, options: DomainOptions, device: str) -> Backbone:
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


def _classifier_files(name: str, options: DomainOptions) -> tuple[Path, ...]:
    if options.classifiers:
        return options.classifiers
    folder = options.weights / "classifiers" / name
    files = folder.iterdir() if folder.is_dir() else ()
    found = sorted(p for p in files if p.suffix in _CLASSIFIER_ENDINGS)
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


for _name in PHOTO_DOMAINS:
    DOMAINS.register(_name, functools.partial(photo_domain, _name))
