"""The weights that photographs need: where they are published, and where they are looked for.

With the user's permission a file is fetched whose address and SHA-256 are known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from casl_bench.core.command import say
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_file, make_folder

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
"""Name of torchvision's file of AlexNet weights (ImageNet; BSD 3-clause)."""
VGGFACE2_FILE = "20180402-114759-vggface2.pt"
"""Name of facenet-pytorch's file of InceptionResnetV1 weights (MIT; trained on VGGFace2)."""

REAL_DATASETS = ("celeba_hq", "celeba", "afhq_dog", "lsun_church")
GUIDE_CLIP = "ViT-B-16-quickgelu:openai"
"""The guide of both reference codes; OpenAI's weights need the quick GELU, which a file's name
alone would not tell."""
SCORE_CLIP = "ViT-B-32:laion2b_s34b_b79k"
"""Trained on other images than the guide's."""
ZERO_SHOT_CLIP = "ViT-B-32:datacomp_xl_s13b_b90k"
"""On other ones again: it scores attributes where the score CLIP scores directions."""


@dataclass(frozen=True)
class Weight:
    """One entry."""

    place: str  # file or folder, below the folder of weights; a stem where several endings will do
    datasets: tuple[str, ...]  # which need it
    use: str  # what for
    source: str  # where it is published
    licence: str  # of the weights, as their publishers state it
    sha256: str = ""  # of the published file, hex, where it is known
    url: str = ""  # where one file can be fetched from


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
        "backbones/celeba",
        ("celeba",),
        "backbone",
        "one that you have trained; its image size is that of the run",
        "yours",
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
        "4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
    ),
    Weight(
        clip_place(SCORE_CLIP),
        REAL_DATASETS,
        "CLIP that scores",
        "huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K, open_clip_model.safetensors",
        "MIT",
        "ac4f8c4b88af6d963118cbf40ad93176d092abbedfcb752601ae1866352656e6",
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
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        f"https://download.pytorch.org/models/{ALEXNET_FILE}",
    ),
    Weight(
        f"faces/{VGGFACE2_FILE}",
        ("celeba_hq", "celeba"),
        "identity: InceptionResnetV1 on VGGFace2",
        "github.com/timesler/facenet-pytorch, release v2.2.9",
        "MIT (trained on VGGFace2, for research)",
        "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
        f"https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/{VGGFACE2_FILE}",
    ),
    Weight(
        "classifiers/celeba_hq",
        ("celeba_hq",),
        "attribute classifiers, each with its .json",
        "`casl-bench train attributes`, or your own",
        "yours",
    ),
    Weight(
        "classifiers/celeba",
        ("celeba",),
        "attribute classifiers, each with its .json",
        "`casl-bench train attributes --dataset celeba`, or your own",
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
        hint="put them there (see `casl-bench weights`), name others by option, or let them be "
        "fetched by --allow-download where their address is known",
    )


def state_of(weight: Weight, root: Path) -> str:
    """`missing`, `found`, `as published`, `not the published file`, or why it cannot be read."""
    path = found_at(root, weight.place)
    if path is None:
        return "missing"
    if not weight.sha256 or path.is_dir():
        return "found"
    try:
        return "as published" if hash_file(path) == weight.sha256 else "not the published file"
    except OSError as error:
        return error.strerror or "unreadable"


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


def fetch(weight: Weight, root: Path) -> Path:
    """A published file put into its place below `root`, whole and with the known SHA-256, or not.

    Raises UsageError where there is no answer or the place cannot be written, and
    InvalidBenchmarkError where what came is another file.
    """
    from torch.hub import download_url_to_file

    path = root / weight.place
    make_folder(path.parent)
    say(f"fetching {weight.url} to {path}")
    try:
        with TemporaryDirectory(prefix=".fetching-", dir=path.parent) as aside:
            whole = Path(aside) / path.name
            download_url_to_file(weight.url, str(whole), weight.sha256, progress=False)
            whole.replace(path)
    except RuntimeError as error:
        raise InvalidBenchmarkError(
            "what was fetched is not the published file", where=weight.url, hint="try again later"
        ) from error
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(
            f"cannot be fetched: {reason}", where=weight.url, hint=f"put the file at {path}"
        ) from error
    return path


def refuse_other(path: Path, weight: Weight | None) -> None:
    """Refuse a file that was just fetched and is not the one known. InvalidBenchmarkError."""
    if weight is not None and weight.sha256 and hash_file(path) != weight.sha256:
        raise InvalidBenchmarkError(
            "what was fetched is not the published file",
            where=str(path),
            hint="the publisher has replaced it: name the file to take it all the same",
        )
