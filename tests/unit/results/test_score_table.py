"""The table of scores: strict about what goes in, equal when it comes back from its file."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.results.score_table import ScoreTable
from tests.support.score_csv import to_csv


def make(n: int = 3, strengths: tuple[float, ...] = (-1.0, 0.5, 2.0), k: int = 2) -> ScoreTable:
    rng = np.random.default_rng(n)
    s, a = len(strengths), 4
    return ScoreTable(
        tuple(f"img, {i}" for i in range(n)),
        strengths,
        tuple("wxyz"),
        tuple(f"pkg/net{i}" for i in range(k)),
        rng.normal(size=(k, n, a)) * 1e3,
        rng.normal(size=(k, n, a)) * 1e-6,
        rng.normal(size=(k, s, n, a)),
        rng.uniform(-1, 1, (s, n)),
        rng.random((s, n)),
        rng.uniform(-1, 1, (s, n)),
    )


def with_known_factors() -> ScoreTable:
    rng = np.random.default_rng(9)
    return replace(
        make(),
        locality=rng.random((3, 3)),
        factor_target=rng.normal(size=(3, 3)),
        factor_others=rng.random((3, 3)),
    )


@pytest.mark.parametrize(
    "table",
    [
        make(),
        make(n=1, k=1),
        make(strengths=()),
        make(strengths=(0.1 + 0.2,)),
        replace(make(), perceptual=None),
        replace(make(), clip_similarity=None, perceptual=None, identity=None),
        with_known_factors(),
        replace(with_known_factors(), identity=None, locality=None),
    ],
)
def test_a_table_comes_back_equal_from_its_file(table: ScoreTable) -> None:
    data = table.to_npz()
    again = ScoreTable.from_npz(data)
    assert again == table
    assert again.to_npz() == data
    assert ScoreTable.from_csv(to_csv(table)) == table


@pytest.mark.parametrize("damage", [b"", b"no archive", make().to_npz()[:-30], b"PK\x03\x04"])
def test_what_is_no_table_is_refused(damage: bytes) -> None:
    with pytest.raises(InvalidBenchmarkError, match="not a table of scores"):
        ScoreTable.from_npz(damage)


def test_an_archive_of_other_arrays_is_refused() -> None:
    file = io.BytesIO()
    np.savez(file, image_ids=np.array(["a"]), pickled=np.array([object()], dtype=object))
    with pytest.raises(InvalidBenchmarkError, match="not a table of scores"):
        ScoreTable.from_npz(file.getvalue())


def test_rows_are_taken_by_image_and_strengths_joined_in_order() -> None:
    table = make()
    some = table.take([table.image_ids[2], table.image_ids[0]])
    np.testing.assert_array_equal(some.edit_logits, table.edit_logits[:, :, [2, 0]])
    np.testing.assert_array_equal(some.source_logits, table.source_logits[:, [2, 0]])
    with pytest.raises(InputError, match="no image"):
        table.take(["another"])
    one, rest = (
        replace(table, strengths=tuple(table.strengths[i] for i in keep),
                edit_logits=table.edit_logits[:, keep], identity=table.identity[keep],
                perceptual=table.perceptual[keep], clip_similarity=table.clip_similarity[keep])
        for keep in ([1], [2, 0])
    )  # fmt: skip
    assert one.joined(rest) == table
    with pytest.raises(InputError, match="same images"):
        one.joined(rest.take(table.image_ids[:1]))


def test_scores_between_two_strengths_lie_on_the_line() -> None:
    table = with_known_factors()
    grid = replace(table, strengths=(1.0, 2.0, 4.0))
    half = grid.interpolated(3.0)
    np.testing.assert_allclose(
        half.edit_logits[:, 0], (grid.edit_logits[:, 1] + grid.edit_logits[:, 2]) / 2, rtol=1e-6
    )
    below = grid.interpolated(0.25)
    expected = 0.75 * grid.reconstruction_logits + 0.25 * grid.edit_logits[:, 0]
    np.testing.assert_allclose(below.edit_logits[:, 0], expected, rtol=1e-5, atol=1e-6)
    assert below.clip_similarity is None and below.identity is not None
    assert grid.interpolated(2.0).edit_logits.shape[1] == 1
    with pytest.raises(InputError, match="outside"):
        grid.interpolated(4.5)


def test_tables_differ_when_any_part_does() -> None:
    table = make()
    nudged = table.edit_logits.copy()
    nudged[1, 2, 0, 3] += 1e-3
    assert table != replace(table, edit_logits=nudged)
    assert table != replace(table, identity=None)
    assert table != replace(table, image_ids=("a", "b", "c"))
    assert table != "a table"


def test_at_cuts_out_one_strength_target_and_classifier() -> None:
    table = make()
    cut = table.at(0.5, "y", np.ones(4), sign=-1, classifier="pkg/net1")
    np.testing.assert_array_equal(cut.edit, table.edit_logits[1, 1])
    np.testing.assert_array_equal(cut.base, table.reconstruction_logits[1])
    assert (cut.target, cut.sign, cut.others) == (2, -1, [0, 1, 3])
    assert cut.perceptual is not None and table.perceptual is not None
    np.testing.assert_array_equal(cut.perceptual, table.perceptual[1])
    default = table.at(0.5, "y", np.ones(4))
    np.testing.assert_array_equal(default.edit, table.edit_logits[0, 1])


def test_at_passes_what_is_known_and_the_scores_of_unrelated_images() -> None:
    table = with_known_factors()
    cut = table.at(2.0, "w", np.ones(4), unrelated_perceptual=0.7, unrelated_identity=0.1)
    for name in ("locality", "factor_target", "factor_others"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(table, name)[2])
    assert (cut.unrelated_perceptual, cut.unrelated_identity) == (0.7, 0.1)
    some = cut.take([2, 0])
    np.testing.assert_array_equal(some.locality, cut.locality[[2, 0]])  # type: ignore[index]
    assert (some.unrelated_perceptual, some.unrelated_identity) == (0.7, 0.1)
    plain = make().at(2.0, "w", np.ones(4))
    assert plain.locality is None and plain.unrelated_perceptual is None


def test_a_file_from_before_these_columns_still_reads() -> None:
    """What an earlier version wrote: three optional columns and no more."""
    text = (
        "image_id,picture,strength,clip_similarity,perceptual,identity,net/a,net/b\n"
        "x,source,,,,,1,2\nx,reconstruction,0.0,,,,1.5,2.5\nx,edit,0.5,0.25,0.5,0.75,3,4\n"
    )
    table = ScoreTable.from_csv(text)
    assert to_csv(table) == text
    assert table.locality is None and table.factor_target is None and table.factor_others is None


def test_strength_zero_is_the_reconstruction() -> None:
    cut = make().at(0, "w", np.ones(4))
    np.testing.assert_array_equal(cut.edit, cut.base)
    assert cut.identity is None


@pytest.mark.parametrize(
    "change",
    [
        {"image_ids": ("a", "a", "b")},
        {"image_ids": ("a", "b")},
        {"image_ids": ()},
        {"image_ids": ("a", "b\n", "c")},
        {"strengths": (0.0, 1.0, 2.0)},
        {"strengths": (1.0, 1.0, 2.0)},
        {"strengths": (1.0, 2.0, float("inf"))},
        {"attributes": ("a", "b", "c/d", "e")},
        {"attributes": ("a", "b", "c")},
        {"source_logits": np.full((2, 3, 4), np.nan)},
        {"source_logits": np.full((2, 3, 4), 1e300)},
        {"identity": np.ones((3, 2))},
        {"locality": np.ones((3, 2))},
        {"factor_target": np.full((3, 3), np.inf)},
    ],
)
def test_bad_tables_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(make(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["strength", "attribute", "classifier"])
def test_unknown_names_are_refused(what: str) -> None:
    with pytest.raises(InputError, match=what):
        make().at(
            9.0 if what == "strength" else 0.5,
            "nope" if what == "attribute" else "w",
            np.ones(4),
            classifier="nope" if what == "classifier" else None,
        )


def _damage(kind: str) -> str:
    lines = to_csv(make()).splitlines(keepends=True)
    if kind == "truncated row":
        return "".join(lines)[:-40]
    if kind == "row missing":
        return "".join(lines[:5] + lines[6:])
    if kind == "rows swapped":
        return "".join([*lines[:3], lines[4], lines[3], *lines[5:]])
    if kind == "NaN":
        return "".join(lines).replace(lines[1].rsplit(",", 1)[1], "nan\n", 1)
    if kind == "other columns":
        return "".join(["a,b,c\n", *lines[1:]])
    if kind == "column lost":
        return "\n".join(line.rsplit(",", 1)[0] for line in "".join(lines).splitlines())
    return {"empty": "", "header only": lines[0], "binary": "\x00\x01"}[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "truncated row",
        "row missing",
        "rows swapped",
        "NaN",
        "other columns",
        "column lost",
        "empty",
        "header only",
        "binary",
    ],
)
def test_a_damaged_file_is_one_clear_error(kind: str) -> None:
    with pytest.raises(InvalidBenchmarkError, match="not a table of scores") as caught:
        ScoreTable.from_csv(_damage(kind))
    assert caught.value.exit_code == 5
