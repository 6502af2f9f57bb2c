"""Re-judging stored pictures: what was honest stays, what pleased the shipped classifiers goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from casl_bench.analysis.analyse import DatasetScores, group_cells
from casl_bench.core.errors import UsageError
from casl_bench.core.files import hash_bytes
from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.rendered import RENDERED, rendered_domain
from casl_bench.methods.method import METHODS
from casl_bench.metrics.edit_scores import spread_of
from casl_bench.models.factor_regressor import FactorRegressor
from casl_bench.models.scorers import ScorerInfo
from casl_bench.results.record import (
    CellRecord,
    FileRef,
    Provenance,
    ReferenceScales,
    SuiteRef,
)
from casl_bench.results.rejudged import FILE, LOST, read_rejudged
from casl_bench.results.run_folder import RecordStore
from casl_bench.results.stored_cells import read_cells
from casl_bench.runs import executor
from casl_bench.runs.names import load_registries
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.run_lock import claim_run_folder
from casl_bench.runs.scoring import Scorers
from casl_bench.runs.suites import RunConfig
from casl_bench.studies import purified
from casl_bench.studies import rejudge as module
from casl_bench.studies.fresh_scorers import BothReaders
from casl_bench.studies.headline.attacks import ATTACKS, red_team
from casl_bench.studies.headline.subjects import subject_of
from tests.support.tiny_suite import tiny_suite

NAME, IMAGES = "rendered_dogs", 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On one concept the perfect edit, as a method and as a control, and two attacks.

    Pixels that deceive all classifiers, and ghosts with pixels that hide them.
    """
    folder = tmp_path_factory.mktemp("run")
    domain, store = rendered_domain(NAME), RecordStore(folder)
    scorers, concept = Scorers(domain), domain.dataset.card.concepts[0]
    train = domain.dataset.load("train", 64).pixels
    spreads = {
        c.info.name: spread_of(c.logits(train).double().numpy(), 0) for c in domain.classifiers
    }
    subject = subject_of(RENDERED[NAME].drawing, concept, IMAGES)
    team = red_team(domain, np.stack([*spreads.values()]), subject)
    pictures = team.pictures(subject.lacking)
    ids = tuple(f"validation-{i:06d}" for i in subject.lacking.image_ids.tolist())
    images = Inversions(ids, (0,), pictures, torch.zeros_like(pictures), pictures)
    common = {
        "world": "synth", "dataset": NAME, "dataset_revision": domain.dataset.card.revision,
        "suite": SuiteRef(name="made_up", version=1), "seed": 0,
        "attributes": domain.dataset.card.attributes, "scorers": domain.scorer_hashes,
        "judges": scorers.names,
        "provenance": Provenance(
            package_version="0", git_commit=None, git_dirty=None, packages={}, device="cpu",
            platform="x", started_at="2000-01-01T00:00:00+00:00",
        ),
    }  # fmt: skip
    unrelated = scorers.unrelated(images)
    scales = ReferenceScales(
        spreads={n: tuple(map(float, s)) for n, s in spreads.items()},
        unrelated_perceptual=unrelated[0],
        unrelated_identity=unrelated[1],
    )
    store.write(CellRecord(**common, kind="scorer", scales=scales))
    edits = {"honest": "exact", "attack": "white_box", "ghosts": "hidden", "oracle": "exact"}
    for method, attack in edits.items():
        edited: Tensor = ATTACKS[attack].make(team, subject)(pictures, 1.0)
        table, stored = scorers.table(concept, images, edited[None], (1.0,))
        files = {"scores.npz": table.to_npz(), "images.npz": stored.to_bytes()}
        refs = {
            field: FileRef(file=name, sha256=hash_bytes(files[name]))
            for field, name in (("scores", "scores.npz"), ("images", "images.npz"))
        }
        record = CellRecord(
            **common, **refs, kind="edit", method=method, method_version=1, concept=concept.name,
            attribute=concept.attribute, strength=1.0, strength_chosen_on="given",
            strengths=(1.0,), supervision="text", control=method == "oracle",
        )  # fmt: skip
        store.write(record, files)
    return folder


def dataset_of(run: Path) -> DatasetScores:
    (found,) = group_cells(read_cells(run))
    return found


def test_without_purification_the_same_classifiers_judge_the_same(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purified, "purified", lambda backbone, images, ids, seed: images)
    dataset = dataset_of(run)
    again = module.rejudged_scores(dataset, RecordStore(run), rendered_domain(NAME), 1)
    concept = dataset.concepts[0]
    for method in ("honest", "attack", "ghosts"):
        was, now = (d.precise_edits(method, concept, (0,)) for d in (dataset, again))
        assert was.flipped.tolist() == now.flipped.tolist()
        assert now.value == pytest.approx(was.value, abs=0.1)  # units are of other images


def test_what_only_deceives_is_lost_by_purification_even_to_the_deceived(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "fresh_domain", lambda *a, **k: rendered_domain(NAME))
    found = module.rejudge(run, seed=1)
    own = found.datasets[NAME]
    assert own.methods["attack"].shipped > 0.2 and own.methods["ghosts"].shipped > 0.5
    assert found.flag("attack") == found.flag("ghosts") == LOST
    assert found.flag("honest") is None and found.loss("honest") == 0.0
    assert 0.5 < own.kept <= 1


class OfFactors:
    """Attributes as another network reads them, which was not attacked."""

    def __init__(self) -> None:
        domain = rendered_domain(NAME)
        assert isinstance(domain.factors, FactorRegressor)
        self._reader = domain.factors
        self.attributes = domain.dataset.card.attributes
        self.info = ScorerInfo("of_factors", "attributes", 1, "0" * 64)

    def logits(self, pixels: Tensor) -> Tensor:
        return 10 * (self._reader.shares(pixels) - 0.5)


def test_what_deceived_the_shipped_ones_is_lost(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = replace(rendered_domain(NAME), classifiers=(OfFactors(),))
    monkeypatch.setattr(module, "fresh_domain", lambda *a, **k: fresh)
    found = module.rejudge(run, seed=1)
    assert read_rejudged(run / FILE) == found
    own = found.datasets[NAME].methods
    assert own["attack"].shipped > 0.2 and own["attack"].fresh < 0.1
    assert own["honest"].fresh > 0.5
    assert found.flag("attack") == LOST and found.flag("honest") is None
    assert "attack" in module.rejudged_text(found)


class Reads:
    """Factors that are so many times the mean of a channel."""

    names = ("collar", "size")

    def __init__(self, *scales: float) -> None:
        self.info, self.scales = ScorerInfo("reads", "factors", 1, "0" * 64), torch.tensor(scales)

    def factors(self, pixels: Tensor) -> Tensor:
        return pixels.mean((1, 2, 3))[:, None] * self.scales

    def change_of(self, moved: Tensor, attribute: str) -> tuple[Tensor, Tensor]:
        return moved[:, 0], moved[:, 1:].abs().mean(1)

    def worst_change_of(self, moved: Tensor, *attributes: str) -> Tensor:
        return moved.abs().amax(1)


def test_what_either_reader_sees_change_has_changed() -> None:
    blind, seeing = Reads(1.0, 0.0), Reads(0.0, 0.0, 3.0)
    before, after = (
        torch.zeros(2, 3, 4, 4),
        torch.stack([torch.ones(3, 4, 4), torch.zeros(3, 4, 4)]),
    )
    for pair, worst in (((blind, seeing), 3.0), ((seeing, blind), 3.0), ((blind, blind), 1.0)):
        both = BothReaders(*pair)
        moved = both.factors(after) - both.factors(before)
        assert both.worst_change_of(moved, "collar").tolist() == [worst, 0.0]
        assert both.change_of(moved, "collar")[0][0] == pair[0].scales[0]


def test_fresh_images_are_of_no_split_and_differ_by_seed() -> None:
    one, other = (module.fresh_images(NAME, seed, 3) for seed in (1, 2))
    again = module.fresh_images(NAME, 1, 3)
    assert torch.equal(one.pixels, again.pixels) and one.image_ids == again.image_ids
    assert not {*one.image_ids} & {*other.image_ids}
    assert all(int(i.split("-")[1]) >= module.FIRST_FRESH for i in one.image_ids)
    dataset = rendered_domain(NAME).dataset
    flipped = dataset.oracle(one.image_ids, "collar")  # type: ignore[attr-defined]
    assert flipped.shape == one.pixels.shape


@pytest.mark.slow
def test_fresh_images_are_edited_with_the_fits_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(
        methods=("pixel_mean_difference", "h_linear"), datasets=(NAME,), concepts=("spots",),
        suite=tiny_suite(test_images_per_concept=4, test_pool_images=16),
        seed=0, device="cpu", out=tmp_path / "run", cache=tmp_path / "cache",
    )  # fmt: skip
    load_registries()
    with claim_run_folder(config):
        assert executor.run(config, SilentProgress()) == 0
    monkeypatch.setattr(module, "fresh_domain", lambda *a, **k: rendered_domain(NAME))
    fitted_again: list[str] = []
    for name in config.methods:
        method = METHODS.factory(name)
        monkeypatch.setattr(method, "fit", lambda *a, **k: fitted_again.append("a method"))
    found = module.rejudge(config.out, seed=1, fresh_split=True, cache=config.cache).datasets[NAME]
    assert not fitted_again
    assert {*found.methods} == {*config.methods}
    for method in found.methods.values():
        assert method.fresh_split is not None and 0 <= method.fresh_split <= 1


def test_a_run_without_rendered_images_cannot_be_rejudged(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no edits of rendered images"):
        module.rejudge(tmp_path, seed=0)
