"""Every data set that we ship, and the toy, keeps the rules; each rule can be broken."""

from dataclasses import replace

import pytest
import torch

from casl_bench.images.dataset import DATASETS
from casl_bench.runs.config import SUITES
from casl_bench.runs.entrants import load_entrants
from casl_bench.testing.check_dataset import DATASET_RULES, dataset_checks
from casl_bench.testing.toy_shapes import ToyShapes

load_entrants()
CHECKS = [
    pytest.param(check, id=f"{name}: {rule}")
    for name, dataset in [
        ("toy_shapes", ToyShapes()),
        *((n, DATASETS.create(n)) for n in DATASETS if "/" not in n),
    ]
    for rule, check in dataset_checks(dataset)
]


@pytest.mark.parametrize("check", CHECKS)
def test_dataset(check):
    check()


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
@pytest.mark.parametrize("name", [n for n in DATASETS if "/" not in n])
def test_every_concept_finds_its_images_in_the_pools_of_every_suite(name, suite):
    dataset = DATASETS.create(name)
    columns = [dataset.card.attributes.index(c.attribute) for c in dataset.card.concepts]
    for split, pool, wanted in (
        ("validation", suite.validation_pool_images, suite.validation_images),
        ("test", suite.test_pool_images, suite.test_images_per_concept),
    ):
        lacking = (~dataset.load(split, pool).attributes).sum(0)
        assert all(int(lacking[column]) >= wanted for column in columns)


def test_the_data_set_of_the_first_command_is_there_and_the_toy_is_not():
    assert "rendered_faces" in DATASETS
    assert "toy_shapes" not in DATASETS


class UnknownAttribute(ToyShapes):
    card = replace(
        ToyShapes.card, concepts=(replace(ToyShapes.card.concepts[0], attribute="smiling"),)
    )


class BytesRange(ToyShapes):
    def load(self, split, count):
        batch = super().load(split, count)
        return replace(batch, pixels=(batch.pixels + 1) * 127.5)


class FloatLabels(ToyShapes):
    def load(self, split, count):
        batch = super().load(split, count)
        return replace(batch, attributes=batch.attributes.float())


class NewNoiseEachTime(ToyShapes):
    loads = 0

    def load(self, split, count):
        self.loads += 1
        batch = super().load(split, count)
        return replace(batch, pixels=batch.pixels * (1 - 0.01 * self.loads))


class CountMatters(ToyShapes):
    def load(self, split, count):
        batch = super().load(split, count)
        return replace(batch, pixels=batch.pixels * (1 - 0.01 * count))


class TestIsTrain(ToyShapes):
    def load(self, split, count):
        batch = super().load("train", count)
        return replace(batch, image_ids=tuple(f"{split}_{i}" for i in batch.image_ids))

    def oracle(self, image_ids, attribute):
        return super().oracle([i.partition("_")[2] for i in image_ids], attribute)


class OracleByPlace(ToyShapes):
    def oracle(self, image_ids, attribute):
        return super().oracle(sorted(image_ids), attribute)


class BlindOracle(ToyShapes):
    def oracle(self, image_ids, attribute):
        return self.load("test", len(image_ids)).pixels * torch.tensor(1.0)


FAULTY = {
    UnknownAttribute: "its card is complete",
    BytesRange: "images have the right shape, type and range, and an id each",
    FloatLabels: "labels, where known, are one bool an image and attribute",
    NewNoiseEachTime: "loading twice gives the same images in the same order",
    CountMatters: "the first images are the same however many are loaded",
    TestIsTrain: "no image is in two splits",
    OracleByPlace: "the oracle, where there is one, changes every image and goes by its id",
    BlindOracle: "the oracle, where there is one, changes every image and goes by its id",
}


@pytest.mark.parametrize("dataset_class", FAULTY)
def test_a_fault_turns_exactly_its_own_check_red(dataset_class):
    failing = []
    for rule, check in dataset_checks(dataset_class()):
        try:
            check()
        except AssertionError:
            failing.append(rule)
    assert failing == [FAULTY[dataset_class]]


def test_every_rule_has_a_fault():
    assert set(FAULTY.values()) == set(DATASET_RULES.rules)
