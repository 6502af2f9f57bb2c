"""Every weights file of the real world: what it is, where it comes from, where it goes.

Nothing here is fetched: the table says where a file is looked for, and `casl-bench weights` prints
it with what is missing. `docs/real_data.md` has that table, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from casl_bench.core.content_hash import hash_file
from casl_bench.core.errors import UsageError
from casl_bench.scorers.face_identity import VGGFACE2_FILE
from casl_bench.scorers.lpips_distance import ALEXNET_FILE

REAL_DATASETS = ("celeba_hq", "afhq_dog", "lsun_church")
GUIDE_CLIP = "ViT-B-16-quickgelu:openai"
"""The guide of both reference codes; OpenAI's weights need the quick GELU, which a file's name
alone would not tell."""
SCORE_CLIP = "ViT-B-32:laion2b_s34b_b79k"
"""Trained on other images than the guide's."""
ZERO_SHOT_CLIP = "ViT-B-32:datacomp_xl_s13b_b90k"
"""On other ones again: it judges attributes where the score CLIP judges directions."""


@dataclass(frozen=True)
class Weight:
    """One entry.

    Attributes:
        place: file or folder, below the folder of weights; a stem where several endings will do.
        datasets: which need it.
        use: what for.
        source: where it is published.
        licence: of the weights, as their publishers state it.
        sha256: of the published file, or its first digits, where they are known.
    """

    place: str
    datasets: tuple[str, ...]
    use: str
    source: str
    licence: str
    sha256: str = ""


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

    Raises:
        UsageError: several files differ in their ending only.
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
            mend="keep one",
        )
    return found[0] if found else None


def missing_error(root: Path, missing: Iterable[Weight], dataset: str) -> UsageError:
    """One line for everything that a data set lacks."""
    named = "; ".join(f"{w.use}: {w.place} from {w.source}" for w in missing)
    return UsageError(
        f"weights for {dataset} are missing: {named}",
        where=str(root),
        mend="put them there (`casl-bench weights` tells more), name others by option, or "
        "--allow-download where the Hub has them",
    )


def state_of(weight: Weight, root: Path) -> str:
    """`missing`, `found`, `as published` or `not the published file`."""
    path = found_at(root, weight.place)
    if path is None:
        return "missing"
    if not weight.sha256 or path.is_dir():
        return "found"
    return "as published" if hash_file(path).startswith(weight.sha256) else "not the published file"


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
