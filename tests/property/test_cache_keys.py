"""Whatever differs in what makes an artifact makes another entry."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from casl_bench.cache.code_hash import code_hash, source_hash
from casl_bench.cache.store import KINDS, CacheKey
from casl_bench.conformance.toy_domain import toy_domain
from casl_bench.domains.dataset import Concept
from casl_bench.runs.artifacts import Artifacts
from casl_bench.runs.fits import Fitting
from casl_bench.runs.names import load_registries
from casl_bench.runs.plan import Cell, DomainIdentity, card_of, fingerprint, make_method, plan
from casl_bench.runs.progress import SilentProgress, Stopwatch
from casl_bench.runs.suites import RunConfig, Suite, suite
from tests.support.tiny_suite import tiny_suite

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
CHANGES: dict[str, Any] = {
    "name": "other", "version": 99, "description": "other", "quick": False, "num_steps": 7,
    "timestep_power": 1.25, "extrapolate": False, "train_images": 33, "validation_images": 4,
    "test_pool_images": 40, "test_images_per_concept": 5, "strengths": (0.5, 1.0),
    "effects": (0.2, 0.5), "random_draws": 3, "fit_image_steps": 5,
    "doublings": 2, "fit_seeds": 2, "references": False, "settings": {}, "sae_steps": 61,
    "probe_train_images": 31, "probe_test_images": 23, "probe_ks": (1, 15),
}  # fmt: skip


def test_inversions_are_the_same_whatever_threads_the_process_has(tmp_path: Path) -> None:
    """And whether there is room for them is asked by another process than makes them."""
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            config = RunConfig(
                methods=("casl",), datasets=("toy_shapes",), concepts=None, suite=tiny_suite(),
                seed=0, device="cpu", out=tmp_path / "run", cache=tmp_path / str(threads),
            )  # fmt: skip
            made = Artifacts(toy_domain(), config, SilentProgress())
            whole = made.trajectory_bytes_to_come()
            found.append((made.split_key("train"), made.train.inversions.x_T))
            assert 0 < made.trajectory_bytes_to_come() < whole
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])


def fit_and_split_keys(
    method: str = "h_linear",
    domain: dict[str, Any] | None = None,
    card: dict[str, Any] | None = None,
    concept: dict[str, Any] | None = None,
    seed: int = 0,
    **settings: Any,
) -> tuple[str, str, str]:
    """Keys of a fit, of the training split and of the test split, with these changes."""
    load_registries()
    config = RunConfig(
        methods=("casl",), datasets=("toy_shapes",), concepts=None, seed=seed, device="cpu",
        suite=tiny_suite().model_copy(update=settings), out=Path("unused"), cache=Path("unused"),
    )  # fmt: skip
    own = dataclasses.replace(toy_domain(), **(domain or {}))
    own.dataset.card = dataclasses.replace(own.dataset.card, **(card or {}))
    artifacts = Artifacts(own, config, SilentProgress())
    found: list[CacheKey] = []
    artifacts.cache.get_or_make = lambda key, make: found.append(key)  # type: ignore[method-assign, assignment, return-value]
    chosen = dataclasses.replace(own.dataset.card.concepts[0], **(concept or {}))
    with pytest.raises(AttributeError):  # there is no entry to read
        Fitting(artifacts).fit(make_method(method, config.suite), chosen, Stopwatch(), 0.0)
    return found[-1].hash, artifacts.split_key("train").hash, artifacts.split_key("test").hash


def with_other_hash(part: Any) -> Any:
    """A backbone or CLIP that differs in nothing but its weights' hash."""
    part.weights_hash = "other"
    return part


def other_judge() -> Any:
    judge = toy_domain().classifiers[0]
    judge.info = dataclasses.replace(judge.info, weights_hash="other")
    return (judge, *toy_domain().classifiers[1:])


INVERSION = {
    "steps": {"num_steps": 5}, "power": {"timestep_power": 1.25},
    "extrapolate": {"extrapolate": True},
    "revision": {"card": {"revision": "other"}}, "data set": {"card": {"name": "other"}},
    "backbone": {"domain": {"backbone": with_other_hash(toy_domain().backbone)}},
}  # fmt: skip
FIT = INVERSION | {
    "training images": {"train_images": 15}, "seed": {"seed": 1},
    "guide": {"domain": {"guide_clip": with_other_hash(toy_domain().guide_clip)}},
    "attributes": {"card": {"attributes": ("bright", "red", "other")}},
    **{f"concept's {f.name}": {"concept": {f.name: "red"}} for f in dataclasses.fields(Concept)},
}  # fmt: skip


@pytest.mark.parametrize("change", FIT)
def test_whatever_a_fit_learns_from_is_in_its_key(change: str) -> None:
    plain, changed = fit_and_split_keys(), fit_and_split_keys(**FIT[change])
    assert plain[0] != changed[0]
    # Pictures are inverted the same, whatever is then learned from them.
    assert (plain[2] != changed[2]) == (change in INVERSION)
    assert (plain[1] != changed[1]) == (change in INVERSION or change == "training images")


@pytest.mark.parametrize("method", ["h_pca", "pixel_attack"])
def test_whoever_judges_is_in_the_key_of_a_fit_that_asks_for_its_word(method: str) -> None:
    """`Domain.presence` says which validation images lack an attribute that nobody has labelled."""
    plain = fit_and_split_keys(method)
    assert plain[0] != fit_and_split_keys(method, {"classifiers": other_judge()})[0]
    assert fit_and_split_keys()[0] == fit_and_split_keys(domain={"classifiers": other_judge()})[0]


def test_validation_images_are_in_the_key_of_a_fit_that_sees_them() -> None:
    assert fit_and_split_keys("h_pca")[0] != fit_and_split_keys("h_pca", validation_images=5)[0]
    assert fit_and_split_keys()[0] == fit_and_split_keys(validation_images=5)[0]


def test_one_clip_by_two_architectures_is_two_guides() -> None:
    """Such as `ViT-B-32` and `ViT-B-32-quickgelu` of one file."""
    domain, other = toy_domain(), toy_domain()
    other.guide_clip.name = "toy_guide_quickgelu"
    assert domain.guide_clip.weights_hash == other.guide_clip.weights_hash
    assert fingerprint(domain) != fingerprint(other)
    assert fit_and_split_keys(domain={"guide_clip": other.guide_clip})[0] != fit_and_split_keys()[0]


@pytest.mark.parametrize("part", ["backbone", "guide_clip", "score_clip", "classifiers", "embedder",
                                  "factors"])  # fmt: skip
def test_every_model_of_a_domain_is_in_its_fingerprint(part: str) -> None:
    plain, changed = toy_domain(), toy_domain()
    model = getattr(changed, part)
    if hasattr(model, "weights_hash"):
        model.weights_hash = "other"
    else:
        scorer = model[-1] if part == "classifiers" else model
        scorer.info = dataclasses.replace(scorer.info, weights_hash="other")
    assert fingerprint(changed) != fingerprint(plain)


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
    load_registries()
    settings: dict[str, Any] = {
        "methods": ("casl",), "datasets": ("rendered_faces",), "concepts": ("hat",),
        "suite": suite("quick"), "seed": 0, "device": "cpu", "out": Path("unused"),
    }  # fmt: skip
    card = card_of("rendered_faces")
    if revision is not None:
        card = dataclasses.replace(card, revision=revision)
    identity = DomainIdentity(card, fingerprint)
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
    ],
)  # fmt: skip
def test_seed_device_models_and_images_change_every_cell(changes: dict[str, Any]) -> None:
    before, after = cells(), cells(**changes)
    assert all(before[label].key != after[label].key for label in before)


def test_no_two_cells_share_an_entry() -> None:
    keys = [cell.key for cell in cells(fit_seeds=3, methods=("casl", "casl_steer")).values()]
    assert len(set(keys)) == len(keys)


def test_code_of_another_stage_or_file_is_other_code(tmp_path: Path) -> None:
    assert code_hash(("core",)) != code_hash(("core", "sae"))
    hashes = set()
    for text in ("class A: pass\n", "class A: pass  # edited\n"):
        from casl_bench.cache.code_hash import _hash_of

        (tmp_path / "plugin.py").write_text(text)
        hashes.add(_hash_of(tmp_path, [tmp_path / "plugin.py"]))
    assert len(hashes) == 2
    assert source_hash(CacheKey) == "own"


def test_a_method_that_python_reads_from_standard_input_has_no_source() -> None:
    """Its module names a file, `<stdin>`, that is none; it is like nothing else."""
    program = """
import sys
from casl_bench.cache.code_hash import source_hash, source_to_compare

class Mine: pass

assert sys.modules["__main__"].__file__ == "<stdin>"
print(source_to_compare(Mine), source_hash(Mine).split()[0])
"""
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("None __main__\n", "")
