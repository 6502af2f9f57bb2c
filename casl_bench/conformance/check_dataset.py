"""What the benchmark relies upon in every data set, ours and yours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import get_args

import torch
from torch import Tensor

from casl_bench.conformance import RuleBook, require, require_equal, require_lower_snake
from casl_bench.domains.dataset import Dataset, ImageBatch, Split, SupportsOracle

COUNT = 4


class DatasetTrial:
    """A data set with the first images of its splits, loaded once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @cached_property
    def batches(self) -> dict[Split, ImageBatch]:
        """The first `COUNT` images of every split."""
        return {split: self.dataset.load(split, COUNT) for split in get_args(Split)}


DATASET_RULES: RuleBook[DatasetTrial] = RuleBook()


def dataset_checks(dataset: Dataset) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every check of a data set, which needs at least 4 images a split.

    Yields:
        (readable name, callable that raises `CheckFailed`, or what the data set raised).
    """
    yield from DATASET_RULES.checks(DatasetTrial(dataset))


@DATASET_RULES.rule
def check_card(trial: DatasetTrial) -> None:
    """Its card is complete."""
    card = trial.dataset.card
    for name in (card.name, card.domain_kind, *(c.name for c in card.concepts)):
        require_lower_snake("name", name)
    for name in card.attributes:  # published ones may start with a digit: 5_o_clock_shadow
        require(bool(re.fullmatch(r"[a-z0-9_]+", name)), f"attribute '{name}' is not lower_snake")
    for part in ("revision", "description", "licence", "source"):
        require(bool(getattr(card, part).strip()), f"{part} is empty")
    for kind, names in (
        ("attribute", card.attributes),
        ("concept", tuple(c.name for c in card.concepts)),
    ):
        require(bool(names), f"there is no {kind}")
        require(len(set(names)) == len(names), f"an {kind} is named twice")
    for concept in card.concepts:
        require(
            concept.attribute in card.attributes,
            f"concept '{concept.name}' edits '{concept.attribute}', which is no attribute",
        )
        require(
            concept.source_prompt != concept.target_prompt,
            f"the prompts of concept '{concept.name}' are the same",
        )


@DATASET_RULES.rule
def check_images(trial: DatasetTrial) -> None:
    """Images have the right shape, type and range, and an id each."""
    for split, batch in trial.batches.items():
        _require_images(batch.pixels, trial.dataset.card.resolution, f"the {split} images")
        require(
            len(set(batch.image_ids)) == COUNT,
            f"{COUNT} {split} images have {len(set(batch.image_ids))} different ids",
        )


@DATASET_RULES.rule
def check_labels(trial: DatasetTrial) -> None:
    """Labels, where known, are one bool an image and attribute."""
    expected = (COUNT, len(trial.dataset.card.attributes))
    for split, batch in trial.batches.items():
        labels = batch.attributes
        require(
            labels is None or (labels.dtype == torch.bool and tuple(labels.shape) == expected),
            f"the {split} labels are not bool {list(expected)}",
        )


@DATASET_RULES.rule
def check_repeated_load(trial: DatasetTrial) -> None:
    """Loading twice gives the same images in the same order."""
    for split, batch in trial.batches.items():
        _require_same(trial.dataset.load(split, COUNT), batch, f"two loads of {split}")


@DATASET_RULES.rule
def check_count(trial: DatasetTrial) -> None:
    """The first images are the same however many are loaded."""
    fewer = COUNT - 1
    for split, batch in trial.batches.items():
        # A repeated load that differs is distinguished from a count that matters.
        again = trial.dataset.load(split, COUNT).take(range(fewer))
        if torch.equal(again.pixels, batch.pixels[:fewer]):
            _require_same(
                trial.dataset.load(split, fewer), batch.take(range(fewer)), f"the first of {split}"
            )


@DATASET_RULES.rule
def check_splits(trial: DatasetTrial) -> None:
    """No image is in two splits."""
    seen: dict[str, str] = {}
    for split, batch in trial.batches.items():
        for image_id in batch.image_ids:
            other = seen.setdefault(image_id, split)
            require(other == split, f"image '{image_id}' is in {other} and in {split}")
    pixels = [(split, image) for split, batch in trial.batches.items() for image in batch.pixels]
    for i, (split, image) in enumerate(pixels):
        twin = next((s for s, x in pixels[:i] if s != split and torch.equal(x, image)), None)
        require(twin is None, f"an image of {split} is in {twin} too, under another id")


@DATASET_RULES.rule
def check_oracle(trial: DatasetTrial) -> None:
    """The oracle, where there is one, changes every image and goes by its id."""
    dataset, batch = trial.dataset, trial.batches["test"]
    if not isinstance(dataset, SupportsOracle):
        return
    for attribute in dataset.card.attributes:
        flipped = dataset.oracle(batch.image_ids, attribute)
        _require_images(flipped, dataset.card.resolution, f"the oracle's images of '{attribute}'")
        for image_id, old, new in zip(batch.image_ids, batch.pixels, flipped, strict=True):
            require(not torch.equal(old, new), f"'{attribute}' of '{image_id}' is not flipped")
        reverse = dataset.oracle(batch.image_ids[::-1], attribute)
        require_equal(reverse.flip(0), flipped, f"'{attribute}' flipped in two orders of images")


def _require_images(pixels: Tensor, side: int, what: str) -> None:
    expected = (COUNT, 3, side, side)
    shape = tuple(pixels.shape)
    require(shape == expected, f"{what} have shape {shape}, not {expected}")
    require(pixels.dtype == torch.float32, f"{what} are {pixels.dtype}, not float32")
    low, high = float(pixels.min()), float(pixels.max())
    require(low >= -1 and high <= 1, f"{what} span [{low:.3g}, {high:.3g}], not within [-1, 1]")


def _require_same(left: ImageBatch, right: ImageBatch, what: str) -> None:
    require(left.image_ids == right.image_ids, f"{what} differ in ids")
    require_equal(left.pixels, right.pixels, what)
    if left.attributes is not None and right.attributes is not None:
        require_equal(left.attributes, right.attributes, f"labels of {what}")
