"""Every data set that we ship, and the toy, keeps the rules; each rule can be broken.

Of real data sets the files are not here: tiny ones in their published layouts stand for them.
"""

from dataclasses import replace

import pytest
import torch

from casl_bench.conformance.check_dataset import DATASET_RULES, DatasetTrial, dataset_checks
from casl_bench.conformance.toy_domain import ToyShapes
from casl_bench.domains.dataset import DATASETS
from casl_bench.domains.options import DataSource
from casl_bench.runs.names import load_registries
from casl_bench.runs.suites import SUITES
from tests.support import layouts

load_registries()
OURS = [name for name in DATASETS if "/" not in name]
REAL = [name for name in OURS if DATASETS.create(name).card.domain_kind == "real"]
DRAWN = [name for name in OURS if DATASETS.create(name).card.domain_kind == "synth"]
CHECKS = [
    pytest.param(check, id=f"{name}: {rule}")
    for name, dataset in [("toy_shapes", ToyShapes()), *((n, DATASETS.create(n)) for n in DRAWN)]
    for rule, check in dataset_checks(dataset)
]
WRITERS = {
    "CelebAMask-HQ": ("celeba_hq", layouts.write_celeba_hq),
    "StarGAN v2": ("celeba_hq", layouts.write_celeba_hq_folder),
    "CelebA": ("celeba", layouts.write_celeba),
    "AFHQ v1": ("afhq_dog", layouts.write_afhq),
    "AFHQ v2": ("afhq_dog", layouts.write_afhq_v2),
    "LSUN LMDB": ("lsun_church", layouts.write_lsun_lmdb),
    "exported LSUN": ("lsun_church", layouts.write_lsun_folder),
}


@pytest.mark.parametrize("check", CHECKS)
def test_dataset(check):
    check()


@pytest.fixture(scope="module", params=WRITERS)
def real(request, tmp_path_factory):
    name, write = WRITERS[request.param]
    root = write(tmp_path_factory.mktemp(name))
    return DatasetTrial(DATASETS.create(name, DataSource(root=root), 32))


@pytest.mark.parametrize("check", DATASET_RULES.rules.values(), ids=list(DATASET_RULES.rules))
def test_real_dataset_in_each_layout(real, check):
    check(real)


def test_every_real_dataset_is_tested():
    assert {name for name, _ in WRITERS.values()} == set(REAL)


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
@pytest.mark.parametrize("name", DRAWN)
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
