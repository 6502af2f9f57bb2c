"""Whatever differs in what makes an artefact makes another entry."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from casl_bench.backbones.kernels import Kernels
from casl_bench.cache.code_version import code_hash, source_hash
from casl_bench.cache.entry import KINDS, CacheKey
from casl_bench.records.record_store import RecordStore
from casl_bench.runs.planning.config import RunConfig, Suite, suite
from casl_bench.runs.planning.entrants import load_entrants
from casl_bench.runs.planning.plan import Cell, WorldIdentity, card_of, make_method, plan
from casl_bench.runs.shared_work.artefacts import Artefacts
from casl_bench.runs.shared_work.fitting import Fitting
from casl_bench.runs.shared_work.shared_records import SharedRecords
from casl_bench.runs.watching.progress import SilentProgress
from casl_bench.runs.watching.stopwatch import Stopwatch
from casl_bench.testing.tiny_suite import tiny_suite
from casl_bench.testing.toy_world import toy_world

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
CHANGES: dict[str, Any] = {
    "name": "other", "version": 99, "description": "other", "quick": False, "num_steps": 7,
    "timestep_power": 1.25, "refinements": 4, "train_images": 33, "validation_images": 4,
    "test_pool_images": 40, "test_images_per_concept": 5, "strengths": (0.5, 1.0),
    "effects": (0.2, 0.5), "flip_goal": 0.4, "random_draws": 3, "fit_steps": 5,
    "settings": {}, "sae_steps": 61, "probe_train_images": 31, "probe_test_images": 23,
    "probe_ks": (1, 15),
}  # fmt: skip


def test_everything_is_kept_by_number_of_threads(tmp_path: Path) -> None:
    """Sums among another number of them may differ in their last bit."""
    config = RunConfig(
        methods=("casl",), datasets=("toy_shapes",), concepts=None, suite=tiny_suite(), seed=0,
        device="cpu", out=tmp_path / "run", cache=tmp_path / "cache",
    )  # fmt: skip
    load_entrants()
    artefacts = Artefacts(toy_world(), config, SilentProgress())
    concept = artefacts.world.dataset.card.concepts[0]
    shared = SharedRecords(artefacts.cache, RecordStore(config.out), artefacts.world)
    fits: list[CacheKey] = []
    artefacts.cache.get_or_make = lambda key, make: fits.append(key)  # type: ignore[method-assign, assignment, return-value]
    fitting = Fitting(artefacts, SilentProgress())
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with pytest.raises(AttributeError):  # there is no entry to read
                fitting.fit(make_method("h_linear", config.suite), concept, Stopwatch(), 0.0)
            found.append({artefacts.sae_key(), fits[-1], shared.key({}, [], ())})
            assert {key.kind for key in found[-1]} == {"sae", "fits", "records"}
    finally:
        torch.set_num_threads(before)
    assert not found[0] & found[1]


def test_trajectories_by_any_number_of_threads_need_no_room_again(tmp_path: Path) -> None:
    """The process that asks whether there is room is not the one that makes them."""
    config = RunConfig(
        methods=("casl",), datasets=("toy_shapes",), concepts=None, suite=tiny_suite(), seed=0,
        device="cpu", out=tmp_path / "run", cache=tmp_path / "cache",
    )  # fmt: skip
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        made = Artefacts(toy_world(), config, SilentProgress())
        whole = made.trajectory_bytes_to_come()
        _ = made.train
        assert 0 < made.trajectory_bytes_to_come() < whole
        torch.set_num_threads(2)
        other = Artefacts(toy_world(), config, SilentProgress())
        assert other.trajectory_bytes_to_come() == made.trajectory_bytes_to_come()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["channels_last", "bf16"])
def test_other_kernels_make_inversions_sae_and_fits_of_their_own(name: str, tmp_path: Path) -> None:
    """Which shared artefacts know by the backbone's identity alone."""
    load_entrants()
    found: list[set[CacheKey]] = []
    for kernels in (Kernels(), Kernels(**{name: True})):
        config = RunConfig(
            methods=("casl",), datasets=("toy_shapes",), concepts=None, suite=tiny_suite(), seed=0,
            device="cpu", kernels=kernels, out=tmp_path / "run", cache=tmp_path / "cache",
        )  # fmt: skip
        world = toy_world()
        world.backbone.use(kernels)
        artefacts = Artefacts(world, config, SilentProgress())
        fits: list[CacheKey] = []
        artefacts.cache.get_or_make = lambda key, make, to=fits: to.append(key)  # type: ignore[method-assign, misc]
        with pytest.raises(AttributeError):  # there is no entry to read
            Fitting(artefacts, SilentProgress()).fit(
                make_method("h_linear", config.suite), world.dataset.card.concepts[0],
                Stopwatch(), 0.0,
            )  # fmt: skip
        found.append({artefacts.sae_key(), artefacts._split_key("test", 3), *fits})
        assert {key.kind for key in found[-1]} == {"sae", "inversions", "fits"}
    assert not found[0] & found[1]


def test_words_about_an_entry_are_no_part_of_its_key() -> None:
    words = [CacheKey("fits", {"seed": 0, "about": [method]}) for method in ("casl", "casl_steer")]
    assert words[0] == words[1] and words[0].hash == words[1].hash
    assert words[0] != CacheKey("fits", {"seed": 1, "about": ["casl"]})


@given(st.dictionaries(st.text(), JSON, min_size=1, max_size=4), st.data())
def test_any_change_of_any_input_changes_the_key(inputs: dict[str, Any], data: Any) -> None:
    name = data.draw(st.sampled_from(sorted(inputs)))
    value = data.draw(JSON.filter(lambda v: repr(v) != repr(inputs[name])))
    key = CacheKey("fits", inputs)
    assert CacheKey("fits", {**inputs, name: value}).hash != key.hash
    assert CacheKey("fits", {k: v for k, v in inputs.items() if k != name}).hash != key.hash
    assert len({CacheKey(kind, inputs).hash for kind in KINDS}) == len(KINDS)
    assert CacheKey("fits", dict(reversed(inputs.items()))).hash == key.hash


def cells(fingerprint: str = "f", revision: str | None = None, **changes: Any) -> dict[str, Cell]:
    load_entrants()
    settings: dict[str, Any] = {
        "methods": ("casl",), "datasets": ("rendered_faces",), "concepts": ("hat",),
        "suite": suite("quick"), "seed": 0, "device": "cpu", "out": Path("unused"),
    }  # fmt: skip
    card = card_of("rendered_faces")
    if revision is not None:
        card = dataclasses.replace(card, revision=revision)
    identity = WorldIdentity(card, fingerprint)
    config = RunConfig(**(settings | changes))
    return {cell.label: cell for cell in plan(config, {"rendered_faces": identity})}


@pytest.mark.parametrize("field", Suite.model_fields)
def test_every_field_of_a_suite_changes_every_cell(field: str) -> None:
    # As many test images as a suite needs that is not quick.
    enough = {"test_images_per_concept": 32, "test_pool_images": 48} if field == "quick" else {}
    own = suite("quick").model_copy(update=enough)
    changed = own.model_copy(update={field: CHANGES[field]})
    assert getattr(changed, field) != getattr(own, field)
    before, after = cells(suite=own), cells(suite=changed)
    shared = before.keys() & after.keys()
    assert shared and all(before[label].key != after[label].key for label in shared)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1}, {"device": "cuda:0"}, {"fingerprint": "another model"}, {"revision": "other"},
        *({"kernels": Kernels(**{name: True})} for name in Kernels.model_fields),
    ],
)  # fmt: skip
def test_seed_device_kernels_models_and_images_change_every_cell(changes: dict[str, Any]) -> None:
    before, after = cells(), cells(**changes)
    assert all(before[label].key != after[label].key for label in before)


def test_no_two_cells_share_an_entry() -> None:
    keys = [cell.key for cell in cells(fit_seeds=3, methods=("casl", "casl_steer")).values()]
    assert len(set(keys)) == len(keys)


def test_code_of_another_stage_or_file_is_other_code(tmp_path: Path) -> None:
    assert code_hash(("core",)) != code_hash(("core", "sae"))
    hashes = set()
    for text in ("class A: pass\n", "class A: pass  # edited\n"):
        from casl_bench.cache.code_version import _hash_of

        (tmp_path / "plugin.py").write_text(text)
        hashes.add(_hash_of(tmp_path, [tmp_path / "plugin.py"]))
    assert len(hashes) == 2
    assert source_hash(CacheKey) == "own"
