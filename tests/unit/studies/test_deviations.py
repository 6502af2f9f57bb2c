"""Before and after: settings that undo a mending are known, and rows are what the page says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from casl_bench.cli.main import main
from casl_bench.conformance.toy_domain import CARD
from casl_bench.core.errors import UsageError
from casl_bench.runs import suites as suites_module
from casl_bench.runs.names import load_registries
from casl_bench.runs.plan import make_method
from casl_bench.runs.suites import suite
from casl_bench.studies.deviations import (
    DEVIATIONS,
    ROWS,
    DeviationRow,
    DeviationRows,
    Header,
    _variants,
    chosen,
    page,
)
from tests.support.tiny_suite import tiny_suite


@pytest.mark.parametrize("name", DEVIATIONS)
def test_both_variants_are_methods_of_different_settings(name: str) -> None:
    load_registries()
    variants = _variants(name, suite("full"))
    made = {v: make_method(method, own) for v, (method, own) in variants.items()}
    before, after = (
        [m.info.name, m.config.model_dump(), variants[v][1].doublings] for v, m in made.items()
    )
    assert list(variants) == ["before", "after"] and before != after
    assert after[0] == DEVIATIONS[name].method


def test_names_of_deviations() -> None:
    load_registries()
    assert chosen(("all",)) == tuple(DEVIATIONS)
    assert chosen(("strengths", "asyrp_on_policy")) == ("asyrp_on_policy", "strengths")
    with pytest.raises(UsageError, match="unknown deviation 'strength'; did you mean 'strengths'"):
        chosen(("strength",))


def row(variant: str, concept: str, precision: float, **changes: object) -> DeviationRow:
    fields = {
        "deviation": "strengths", "variant": variant, "dataset": "d", "concept": concept,
        "strength": 1.0, "reached": True, "flip_rate": 0.9, "precision": precision,
        "fit_unet_calls": 100.0,
    }  # fmt: skip
    return DeviationRow.model_validate(fields | changes)


def test_the_page_shows_paired_differences() -> None:
    header = Header(command="c", suite="s", seed=0, packages={})
    rows = DeviationRows(
        header,
        (
            row("before", "x", 0.5, reached=False, flip_rate=0.5), row("before", "y", 0.3),
            row("after", "x", 0.7), row("after", "y", 0.4),
        ),
    )  # fmt: skip
    text = page(rows)
    assert "| 1/2 → 2/2 | 0.70 → 0.90 | 0.40 → 0.55 | +0.150 ± 0.050 | 100 → 100" in text
    assert DeviationRows.from_jsonl(rows.to_jsonl()) == rows


@pytest.fixture
def tiny(toy_registered: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(suites_module.SUITES, "tiny", tiny_suite())
    yield


def test_the_command_leaves_rows_and_a_page(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["study", "deviations", "--only", "latent_ranking", "--datasets", CARD.name,
               "--suite", "tiny", "--out", str(tmp_path)]  # fmt: skip
    assert main(command) == 2
    assert "fewer than 4 concepts" in capsys.readouterr().err
    assert main([*command[:5], f"{CARD.name},toy_tuning", *command[6:]]) == 0
    rows = DeviationRows.from_jsonl((tmp_path / ROWS).read_text())
    assert len(rows.rows) == 2 * 4
    made = (tmp_path / "deviations.md").read_text()
    assert "latents are ranked by contrast" in made
    (tmp_path / "deviations.md").unlink()
    assert main(["study", "deviations", "--render-only", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "deviations.md").read_text() == made
