"""The study of the paper's questions through the command line, on a run of the toy domain."""

from __future__ import annotations

from pathlib import Path

import pytest

from casl_bench.analysis.analyse import read_numbers
from casl_bench.cli import main as cli
from casl_bench.results.run_folder import write_jsonl
from casl_bench.runs.executor import run
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.run_lock import claim_run_folder
from casl_bench.runs.suites import RunConfig
from casl_bench.studies.paper_questions import study as latent_study
from casl_bench.studies.paper_questions.page import read_rows
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.slow

KS = (1, 4)


@pytest.fixture(scope="module")
def finished(toy_registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with CASL, CASL-Steer and unsupervised steering."""
    config = RunConfig(
        methods=("casl", "casl_steer", "sae_steer"), datasets=("toy_shapes",),
        concepts=("red",), suite=tiny_suite(test_images_per_concept=3), seed=0, device="cpu",
        out=(folder := tmp_path_factory.mktemp("paper")) / "run", cache=folder / "cache",
    )  # fmt: skip
    with claim_run_folder(config):
        assert run(config, SilentProgress()) == 0
    return config.out


def test_every_question_has_its_rows_and_its_section(finished: Path, tmp_path: Path) -> None:
    cache = finished.with_name("cache")
    fits = set((cache / "fits").iterdir())
    command = ["study", "paper-questions", str(finished), "--out", str(tmp_path), "--ks", "1,4",
               "--cache", str(cache)]  # fmt: skip
    assert cli.main(command) == 0
    assert set((cache / "fits").iterdir()) == fits  # those of the run
    found = read_rows(tmp_path)
    variants = [(r.question, r.latents, r.k) for r in found.rows]
    assert [v for v in variants if v[0] == "size"] == [("size", "top", k) for k in KS]
    taken = [(kind, k) for k in KS for kind in ("top", "alike")]
    assert [v[1:] for v in variants if v[0] == "absence"] == taken
    assert [v[1:] for v in variants if v[0] == "ablation"][:-1] == [("none", 0), *taken]
    assert variants.count(("ablation", "all", found.rows[0].k)) == 0  # all of d_sae, not of k
    page = (tmp_path / "paper_questions.md").read_text(encoding="utf-8")
    for heading in ("Reported and re-evaluated", "Do aligned latents exist?", "Do they act",
                    "Does taking them away", "against each baseline", "small k spare"):  # fmt: skip
        assert f"{heading}" in page
    assert (tmp_path / "paper_questions.png").read_bytes()[:4] == b"\x89PNG"

    # Whole map: what the run itself has measured, not run again.
    record = next(r for r in read_numbers(finished) if (r.kind, r.method) == ("edit", "casl"))
    whole = next(r for r in found.rows if (r.question, r.latents) == ("ablation", "none"))
    assert whole.measurements["epr_signed"] == record.measurements["epr_signed"]

    before = (tmp_path / "paper_questions.jsonl").read_bytes(), page
    records = finished / "records.jsonl"
    write_jsonl(records, read_numbers(finished))
    assert cli.main(["study", "paper-questions", str(records), "--out", str(tmp_path)]) == 0
    again = (
        (tmp_path / "paper_questions.jsonl").read_bytes(),
        (tmp_path / "paper_questions.md").read_text(encoding="utf-8"),
    )
    assert again == before


def test_what_is_done_is_not_done_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = finished.with_name("cache")
    first = latent_study.make_rows(finished, "command", ks=KS, cache=cache)

    def refuse(*args: object) -> None:
        raise AssertionError("a finished concept is measured again")

    monkeypatch.setattr(latent_study.LatentStudy, "rows", refuse)
    assert latent_study.make_rows(finished, "command", ks=KS, cache=cache) == first


def test_a_folder_that_is_no_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["study", "paper-questions", str(tmp_path)]) == 2
    assert "give the folder of a finished run" in capsys.readouterr().err
