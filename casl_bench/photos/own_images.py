"""`own_images`: a folder of your own pictures, with what is to be edited and, if known, labels.

A folder holds pictures, at any depth, and:

- `concepts.toml`: what to edit, as `[[concept]]` tables of name, source, target and attribute;
- `labels.csv`, if there are labels: a column image (path below the folder), one per attribute with
  1 or 0 (also -1, true, false, yes, no), and if wanted a column split (train, validation, test).

Without a column split pictures are cut in three: eight, one and one tenth. Without labels
attributes are scored zero-shot, by the concepts' own texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from casl_bench.core.errors import BenchError, UsageError
from casl_bench.core.files import hash_file, regular
from casl_bench.domains.dataset import DATASETS, Concept, Split
from casl_bench.domains.domain import DOMAINS, Domain
from casl_bench.domains.options import DataSource, DomainOptions
from casl_bench.models.clip import ClipScorer
from casl_bench.models.embedder import RenderEmbedder
from casl_bench.models.scorers import AttributeScorer, Similarity
from casl_bench.photos.checkpoints.convert import open_backbone
from casl_bench.photos.domains import (
    ACCURACY_FLOOR,
    CALIBRATION_IMAGES,
    load_clip,
    own_embedder,
)
from casl_bench.photos.layouts import Layout, cut_in_three, file_layout, list_images, shuffled
from casl_bench.photos.photo_dataset import PhotoDataset, PhotoKind, read_concepts
from casl_bench.photos.published_weights import (
    ALEXNET_FILE,
    GUIDE_CLIP,
    SCORE_CLIP,
    ZERO_SHOT_CLIP,
    found_at,
)
from casl_bench.photos.scorers.classifier import PhotoClassifier
from casl_bench.photos.scorers.similarity import LpipsDistance, PhotoSimilarity
from casl_bench.photos.scorers.zero_shot import ZeroShotClassifier

NAME, LABELS, CONCEPTS = "own_images", "labels.csv", "concepts.toml"

_SPLITS: dict[str, Split] = {
    "train": "train", "validation": "validation", "val": "validation", "valid": "validation",
    "test": "test",
}  # fmt: skip
_YES, _NO = frozenset({"1", "1.0", "true", "yes"}), frozenset({"0", "0.0", "-1", "false", "no", ""})
_HINT = "write columns image, one per attribute (1 or 0), and if wanted split"


class OwnImages(PhotoDataset):
    """A folder of pictures as a data set: see this file's beginning.

    Args:
        source: says where the folder is; without one there is a card alone, and no concept.
        resolution: side of the images in pixels: the middle square of each, resized.
        concepts: what to edit; default: those in the folder's `concepts.toml`.
        labels: a CSV file; default: the folder's `labels.csv` where it is there.
        name: of the data set.

    Raises:
        UsageError: if a file is absent or says something else than it should.
        InputError: if the resolution is too small.
    """

    def __init__(
        self,
        source: DataSource | None = None,
        resolution: int = 256,
        *,
        concepts: Sequence[Concept] | None = None,
        labels: Path | None = None,
        name: str = NAME,
    ) -> None:
        root = None if source is None else source.root
        table: _Labels | None = None
        if root is not None and root.is_dir():
            labels = labels or (root / LABELS if (root / LABELS).is_file() else None)
            table = None if labels is None else _Labels(labels)
            known = None if table is None else table.attributes
            concepts = concepts or read_concepts(root / CONCEPTS, known)
        kind = PhotoKind(
            name=name,
            concepts=tuple(concepts or ()),
            description="A folder of pictures of the user's own.",
            licence="the user's affair",
            source="the user",
            find_layout=partial(_layout, table),
            attributes=() if table is None else table.attributes,
        )
        super().__init__(kind, source, resolution)
        # Not "real": `--datasets all` means the published ones.
        self.card = replace(self.card, domain_kind="own")


class _Labels:
    """A file of labels: attributes, and by image its labels and split."""

    def __init__(self, path: Path) -> None:
        self.path, self.content = path, ""
        try:
            table = pd.read_csv(
                regular(path), dtype=str, keep_default_na=False, encoding="utf-8-sig",
                skipinitialspace=True,
            )  # fmt: skip
            self.content = hash_file(path)
        except (OSError, ValueError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UsageError(
                f"not a file of labels: {line}", where=str(path), hint=_HINT
            ) from error
        heads = [str(c).strip() for c in table.columns]
        if len(heads) < 2 or not len(table):
            raise UsageError("no labels in the file", where=str(path), hint=_HINT)
        lower = [head.lower() for head in heads]
        split = lower.index("split") if "split" in lower else None
        columns = [k for k in range(1, len(heads)) if k != split]
        self.attributes = tuple(heads[k] for k in columns)
        self.rows: dict[str, list[bool]] = {}
        self.splits: dict[str, Split] = {}
        for number, row in enumerate(table.itertuples(index=False), start=2):
            values = [str(value).strip() for value in row]
            name, where = values[0].replace("\\", "/"), f"{path}, line {number}"
            if name in self.rows:
                raise UsageError(f"'{name}' is there twice", where=where)
            self.rows[name] = [_truth(values[k], heads[k], where) for k in columns]
            if split is not None:
                said = values[split].lower()
                if said not in _SPLITS:
                    raise UsageError(
                        f"'{values[split]}' is no split", where=where,
                        hint="write train, validation or test",
                    )  # fmt: skip
                self.splits[name] = _SPLITS[said]

    def of(self, names: Sequence[str]) -> Tensor:
        """[len(names), A] bool."""
        return torch.tensor([self.rows[name] for name in names], dtype=torch.bool).reshape(
            len(names), len(self.attributes)
        )


def _truth(text: str, attribute: str, where: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise UsageError(
        f"'{text[:40]}' is no label of '{attribute}'", where=where, hint="write 1 or 0"
    )


def _layout(labels: _Labels | None, root: Path) -> Layout:
    sizes = list_images(root)
    if not sizes:
        raise UsageError("the folder holds no picture", where=str(root))
    if labels is None:
        return file_layout("own pictures", root, cut_in_three(shuffled(list(sizes))), sizes)
    if unlabelled := [name for name in sizes if name not in labels.rows]:
        raise UsageError(
            f"{len(unlabelled):,} pictures have no labels, the first is {unlabelled[0]}",
            where=str(labels.path),
            hint="add rows for them, or move them away",
        )
    if absent := [name for name in labels.rows if name not in sizes]:
        raise UsageError(
            f"{len(absent):,} labelled pictures are not there, the first is {absent[0]}",
            where=str(labels.path),
            hint="write paths below the folder, with the ending",
        )
    names = shuffled(list(sizes))
    splits = cut_in_three(names)
    if labels.splits:
        parts: tuple[Split, ...] = ("train", "validation", "test")
        splits = {part: [n for n in names if labels.splits[n] == part] for part in parts}
    layout = file_layout("labelled pictures", root, splits, sizes, labels.of)
    return replace(layout, contents=[layout.contents, labels.content])


def own_domain(device: str = "cpu", options: DomainOptions | None = None) -> Domain:
    """A folder of your own pictures with a backbone, CLIPs and classifiers that you have.

    Labelled pictures are scored by classifiers (--classifier, or those in the folder of weights,
    `classifiers/own_images`), others zero-shot by CLIPs. Faces are not looked for.

    Raises:
        UsageError: if something is not there.
        InvalidBenchmarkError: if a file is damaged, or files do not fit together.
    """
    options = options or DomainOptions()
    source = options.source(NAME)
    if source.root is None:
        raise UsageError("no pictures of your own", hint="say where they are: --data-root FOLDER")
    OwnImages(source)  # a wrong folder is refused before gigabytes are read
    root, download = options.weights, options.allow_download
    place = options.backbone_of(NAME) or found_at(root, f"backbones/{NAME}")
    trained, lpips = own_embedder(root, NAME), found_at(root, f"lpips/{ALEXNET_FILE}")
    if place is None or (trained or lpips) is None:
        missing = "no backbone" if place is None else f"no lpips/{ALEXNET_FILE}"
        raise UsageError(
            f"{missing} for {NAME}",
            where=str(root),
            hint="give --backbone PLACE; `casl-bench weights` says where the rest is published",
        )
    micro_batch = {"cpu": 1, "mps": 4}.get(device.split(":")[0], 16)
    try:
        backbone = open_backbone(
            place, name=NAME, micro_batch=micro_batch, allow_download=download
        ).to(device)
    except BenchError as error:
        error.where = error.where or str(place)
        raise
    dataset = OwnImages(source, backbone.image_size)
    guide = load_clip(options.guide_clip or GUIDE_CLIP, root, download).to(device)
    score = load_clip(options.score_clip or SCORE_CLIP, root, download).to(device)
    own = root / "classifiers" / NAME
    found = options.classifiers or tuple(sorted(own.glob("*.safetensors")))
    classifiers: tuple[AttributeScorer, ...]
    if found:
        classifiers = tuple(
            PhotoClassifier.load(path, dataset.card.attributes).to(device) for path in found
        )
    else:
        pairs = {c.attribute: (c.source_prompt, c.target_prompt) for c in dataset.card.concepts}
        if set(pairs) != set(dataset.card.attributes):
            raise UsageError(
                f"no classifier of the labels of {NAME}",
                where=str(own),
                hint="train one: casl-bench train attributes --dataset own_images",
            )
        pairs = {name: pairs[name] for name in dataset.card.attributes}
        count = min(CALIBRATION_IMAGES, dataset.count("train"))
        pixels = dataset.load("train", count).pixels
        judge = load_clip(options.zero_shot_clip or ZERO_SHOT_CLIP, root, download).to(device)
        classifiers = tuple(
            ZeroShotClassifier.calibrated(clip, clip.name, pairs, pixels) for clip in (judge, score)
        )
    return Domain(
        name="own",
        dataset=dataset,
        backbone=backbone,
        guide_clip=guide,
        score_clip=ClipScorer(score),
        classifiers=classifiers,
        embedder=_similarity(trained, lpips, device),
        accuracy_floor=ACCURACY_FLOOR,
    )


def _similarity(trained: Path | None, lpips: Path | None, device: str) -> Similarity:
    """The embedder trained for these pictures, which stays on the CPU, or LPIPS."""
    if trained is not None:
        return RenderEmbedder.load(trained)
    assert lpips is not None
    return PhotoSimilarity(LpipsDistance.load(lpips)).to(device)


DATASETS.register("own_images", OwnImages)
DOMAINS.register("own_images", own_domain)
