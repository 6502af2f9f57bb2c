"""What a method can learn from the ids that it is given: nothing."""

from __future__ import annotations

import torch

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.domains.dataset import SupportsOracle
from casl_bench.runs.hidden_ids import HiddenIds


def test_names_say_nothing_and_differ_between_processes() -> None:
    ids = ("test-000001", "validation-000001", "train-000001")
    hidden, other = HiddenIds(), HiddenIds()
    names = hidden.names(ids)
    assert names == hidden.names(ids) and len(set(names)) == 3
    assert not set(names) & set(other.names(ids))
    assert not any(word in name for name in names for word in ("test", "valid", "train", "000001"))


def test_a_method_that_renders_by_id_gets_nothing() -> None:
    """Ten lines that were first with exit 0: the perfect edit of whatever the ids name."""
    tasks = ToyTasks()
    dataset = tasks.domain.dataset
    assert isinstance(dataset, SupportsOracle)
    real = tasks.test
    given = HiddenIds().inversions(real)
    perfect = dataset.oracle(real.image_ids, "striped")
    stolen = dataset.oracle(given.image_ids, "striped")
    assert not torch.equal(stolen, perfect)
    own, theirs = ((x - real.x_0).square().mean() for x in (perfect, stolen))
    assert theirs > own


def test_controls_still_render_by_the_names() -> None:
    tasks, hidden = ToyTasks(), HiddenIds()
    dataset = tasks.domain.dataset
    assert isinstance(dataset, SupportsOracle)
    given = hidden.inversions(tasks.test)
    by_name = hidden.oracle(dataset.oracle)(given.image_ids, "red")
    assert torch.equal(by_name, dataset.oracle(tasks.test.image_ids, "red"))


def test_random_numbers_of_an_image_do_not_hang_on_its_name() -> None:
    images = ToyTasks().test
    assert HiddenIds().inversions(images).noise_keys == images.noise_keys
    assert images.take([2, 0]).noise_keys == (images.noise_keys[2], images.noise_keys[0])
    assert len(set(images.noise_keys)) == len(images)
