"""An attribute that a domain's h does not carry is no concept, by one measured rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.domains.dataset import DATASETS
from casl_bench.domains.rendered import ASSETS, RENDERED
from casl_bench.domains.rendering.shipped import CARRIED, GATES, rendered_dataset
from casl_bench.models.backbone import Backbone
from casl_bench.runs.names import resolve_concepts
from casl_bench.runs.suites import SUITES
from casl_bench.studies.unet_gates import NOT_YET, PAGE, gates_page
from casl_bench.training.train_gates import INVERSION, WALKS, inversion

DOCS = Path(__file__).parents[3] / "docs" / "backbone_trials"
FACES = RENDERED["rendered_faces"].drawing


def _assets(folder: Path, **shares: float) -> Path:
    """Assets of faces whose h carries everything but what `shares` say."""
    path = folder / "rendered_faces" / "unet" / GATES
    path.parent.mkdir(parents=True)
    measured = {**dict.fromkeys(FACES.attributes, 0.95), **shares}
    path.write_text(json.dumps({"donor_h_transfer": measured, "psnr": 35.0}))
    return folder


def test_it_is_no_concept_and_stays_an_attribute(tmp_path: Path) -> None:
    assets = _assets(tmp_path, mouth_open=CARRIED - 0.001, smiling=CARRIED, earrings=0.1)
    card = rendered_dataset(FACES, assets).card
    assert card.not_carried == ("mouth_open",), "earrings are never ranked, smiling is carried"
    left = [c.name for c in FACES.concepts if c.name != "mouth_open"]
    assert [c.name for c in card.concepts] == left
    assert card.attributes == FACES.attributes


def test_without_a_measurement_everything_is_ranked(tmp_path: Path) -> None:
    assert rendered_dataset(FACES, tmp_path).card.concepts == FACES.concepts


@pytest.mark.parametrize("content", ["{", "{}", '{"donor_h_transfer": {"hat": 2}}'])
def test_damaged_figures_are_refused(tmp_path: Path, content: str) -> None:
    path = _assets(tmp_path) / "rendered_faces" / "unet" / GATES
    path.write_text(content)
    with pytest.raises(InvalidBenchmarkError, match="gates of a U-Net"):
        rendered_dataset(FACES, tmp_path)


def test_asking_for_it_says_why_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = rendered_dataset(FACES, _assets(tmp_path, mouth_open=0.3))
    monkeypatch.setitem(DATASETS._factories, "rendered_faces", lambda: dataset)
    with pytest.raises(UsageError, match="'mouth_open' is no concept: h does not carry it"):
        resolve_concepts(["hat", "mouth_open"], ["rendered_faces"])
    assert resolve_concepts(["hat"], ["rendered_faces"]) == ("hat",)


# What ships.


def _figures(domain: str) -> dict[str, Any]:
    path = ASSETS / domain / "unet" / GATES
    if not path.is_file():
        pytest.skip(f"no gates of {domain} were measured yet")
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


@pytest.mark.parametrize("domain", RENDERED)
def test_at_most_two_attributes_of_a_domain_are_left_out(domain: str) -> None:
    figures = _figures(domain)
    assert len(rendered_dataset(RENDERED[domain].drawing).card.not_carried) <= 2
    assert min(figures["donor_pairs_that_differ"].values()) >= 100, "pairs behind each share"


@pytest.mark.parametrize("domain", RENDERED)
def test_figures_are_of_the_weights_beside_them(domain: str) -> None:
    figures = _figures(domain)
    assert figures["unet"] == Backbone.from_folder(ASSETS / domain / "unet").weights_hash


@pytest.mark.parametrize("suite", WALKS)
def test_a_suite_extrapolates_where_plain_inversion_falls_short(suite: str) -> None:
    """The decision is written in the suite; this says whether it is the one that was measured."""

    def holds(kind: str) -> bool:
        measured = [inversion(_figures(domain), kind)[suite] for domain in RENDERED]
        return all(own[name] >= least for own in measured for name, least in INVERSION.items())

    assert SUITES[suite].extrapolate != holds("plain_inversion")
    assert SUITES[suite].quick or holds("inversion")


def test_the_page_is_what_the_command_makes() -> None:
    page = gates_page(DOCS)
    assert (DOCS / PAGE).read_text("utf-8") == page, "give `casl-bench study unet-gates`"
    measured = all((ASSETS / domain / "unet" / GATES).is_file() for domain in RENDERED)
    assert (NOT_YET in page) != measured


def test_the_page_shows_misses_and_what_is_not_carried(tmp_path: Path) -> None:
    each = dict.fromkeys(FACES.attributes, 0.97)
    path = _assets(tmp_path) / "rendered_faces" / "unet" / GATES
    figures = {
        "plain_inversion": {"full": {"psnr": 33.0, "attribute_agreement": 0.99}},
        "inversion": {"full": {"psnr": 41.0, "attribute_agreement": 0.99}},
        "sample_entropy": 0.05, "render_entropy": 0.02, "sample_kernel_distance": 0.001,
        "donor_h_transfer": each | {"mouth_open": 0.6}, "direction_flip_rate": each,
        "probe_on_h": each, "direction_kernel_distance": each,
    }  # fmt: skip
    path.write_text(json.dumps(figures))
    page = gates_page(DOCS, tmp_path)
    rows = [line for line in page.splitlines() if line.startswith("| rendered_faces")]
    assert any("**25.552**" in row and "**33.000**" in row for row in rows)
    assert any("smiling 0.970" in row and "**mouth_open 0.600**" in row for row in rows)
    assert "<= 0.0120" in page, "a tenth of before"
    assert "no concept for any method: rendered_faces: mouth_open." in page
