"""Every block of the README and the pages that can be run is run, and says why where it is not.

Commands run as they stand, but for places (RUN, SRC …) and suites, which are made small.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from casl_bench.cli.main import main
from casl_bench.domains.dataset import DATASETS
from casl_bench.domains.domain import DOMAINS
from casl_bench.methods.method import METHODS
from casl_bench.metrics.metric import METRICS
from casl_bench.runs.names import load_registries
from casl_bench.runs.suites import SUITES
from casl_bench.sae.dictionary import SAES
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

ELSEWHERE = {
    "pip ": "the jobs of the workflow install the package, editable and from its wheel",
    "ruff ": "the job `checks` of the workflow",
    "casl-bench convert": "tests/end_to_end/test_real_world.py runs the pages of photographs",
    "casl-bench weights": "the same",
    "export ": "sets the environment of the commands beside it",
    "casl-bench train attributes --data-root /data": "the same as for `convert`",
    "casl-bench train attributes --dataset own_images": "tests/unit/photos/test_own_images.py",
    "casl-bench sae": "tests/plugin/test_stranger_dictionary.py; suites of minutes",
    "casl-bench study sae-sweep": "tests/unit/sae_track/test_track.py; hours",
    "casl-bench --suite default --datasets all": "a quarter of an hour",
    "casl-bench picture runs/picture": "of that run; tests/end_to_end/test_run.py draws one",
    "casl-bench study deviations": "tests/unit/studies/test_deviations.py; the same",
    "casl-bench --suite paper": "needs photographs, or a GPU",
    "python benchmark.py --suite paper": "the same",
    "python benchmark.py --methods all --datasets celeba_hq": "tests/end_to_end/test_real_world.py",
    "dask ": "tests/end_to_end/test_executors.py runs on Dask clusters",
    "for gpu": "needs GPUs",
    "for seed": "tests/unit/studies/test_rejudge.py; minutes",
    "casl-bench train domain": "tests/end_to_end/test_train_photographs.py",
    "casl-bench study photographs-gate": "the same",
    "casl-bench --suite full --fit-seeds 1 --datasets celeba": "the same",
    "CUDA_VISIBLE_DEVICES": "needs GPUs",
    "done": "the end of a loop that needs GPUs",
    "casl-bench --methods all --datasets all": "tests/end_to_end/test_executors.py; hours",
    "casl-bench merge run": "tests/end_to_end/test_executors.py merges shards",
    "python benchmark.py --methods casl --concepts snow,night": "tests/end_to_end/test_gate.py",
    "python benchmark.py --methods casl --datasets rendered_churches": "the same; five fits",
    "python benchmark.py --methods casl,asyrp --datasets rendered_churches": "hours",
    "casl-bench gate ": "tests/end_to_end/test_gate_compare.py; of runs that take hours",
    "casl-bench study gate-rates": "tests/unit/studies/test_gate_error_rates.py; the same",
    "CASL_FAULT": "tests/plugin/test_broken_casl.py; the same",
    "casl-bench tune": "tests/end_to_end/test_tuning.py",
    "casl-bench leaderboard ": "tests/unit/report/leaderboard/test_commands.py",
    "python -m pytest": "the benchmarks are a command of their own",
    "python tests/benchmarks": "the same",
    "python benchmark.py --plugin my_metric.py": "tests/end_to_end/test_docs.py",
}
"""Beginning of a command → where it is run, or why it is not."""

NOT_RUN = {
    "real_data_sets.md": "needs photographs",
    "tuning.md": "a part of a class",
}
"""Page → why its blocks of Python are not run."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def commands() -> Iterator[tuple[str, str]]:
    """(page, command), a line each; `a && b` are two."""
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split(" && "):
                    command = part.split("#")[0].strip()
                    if command:
                        yield page.name, command


def elsewhere(command: str) -> bool:
    return any(f"{command} ".startswith(start) for start in ELSEWHERE)


OWN = [(page, c) for page, c in commands() if not elsewhere(c)]


def test_every_command_is_run_here_or_elsewhere() -> None:
    every = [command for _, command in commands()]
    unused = [s for s in ELSEWHERE if not any(f"{c} ".startswith(s) for c in every)]
    assert unused == []
    runnable = ("casl-bench ", "python benchmark.py ", "python -m casl_bench", "pytest ", "mypy",
                "lint-imports", "pytest")  # fmt: skip
    assert [c for _, c in OWN if not c.startswith(runnable)] == []
    assert len(OWN) > 10


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the commands name, and small suites in the place of long ones."""
    small = SUITES["quick"]
    for name in ("default", "full"):
        monkeypatch.setitem(SUITES, name, small.model_copy(update={"name": name}))
    load_registries()
    for registry in (METHODS, DATASETS, DOMAINS, METRICS, SAES):  # what plugins add is forgotten
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for side in ("SRC", "EDIT"):
        (tmp_path / side).mkdir()
        for i in range(4):
            pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / side / f"{i}.png")
    rows = ["image,side,smiling,hat"]
    for side in ("source", "edit"):
        rows += [f"{i}.png,{side},{rng.normal()},{rng.normal()}" for i in range(4)]
    (tmp_path / "logits.csv").write_text("\n".join(rows), encoding="utf-8")
    run = MadeUpRun({"casl": MadeUpMethod(), "asyrp": MadeUpMethod(damage=0.3)})
    for name in ("RUN", "runs/mine", "runs/other"):
        write_made_up_run(tmp_path / name, run)
    shutil.copytree(ROOT / "leaderboards", tmp_path / "leaderboards")
    for page in PAGES:
        for code in blocks(page, "python"):
            if found := re.match(r"# (\w+\.py)\n", code):
                (tmp_path / found[1]).write_text(code, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({command for _, command in OWN}))
def test_a_command_works(command: str, place: Path) -> None:
    words = shlex.split(command)
    if words[0] in ("pytest", "mypy", "lint-imports"):
        return  # what runs this test, and the job `checks`
    if words[:3] == ["python", "-m", "casl_bench.conformance"]:
        from casl_bench.conformance.check_method import main as conform

        assert conform(words[3:]) == 0
        return
    start = {"casl-bench": 1, "python": 2}[words[0]]
    more = ["--concepts", "hat"] if "--methods" in words and "--concepts" not in words else []
    assert main([*words[start:], *more]) == 0


PYTHON = [
    pytest.param(code, id=f"{page.stem}-{place}")
    for page in PAGES
    if page.name not in NOT_RUN
    for place, code in enumerate(blocks(page, "python"))
    if not re.match(r"# \w+\.py\n", code)
]


@pytest.mark.slow
@pytest.mark.parametrize("code", PYTHON)
def test_a_block_of_python_works(code: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "torch" in code and "PreciseEditRate" in code:
        pytest.importorskip("torchmetrics", reason="torchmetrics comes with the extra 'metrics'")
    if 'evaluate(["casl", "asyrp"])' in code:  # of one concept, that it takes seconds
        code = code.replace('(["casl", "asyrp"])', '(["casl", "asyrp"], concepts=["hat"])')
    if "brighten, suite" in code:
        code = code.replace("brighten, suite", 'brighten, concepts=["hat"], suite')
    # As a file: functions have a source there.
    path = place / "block.py"
    path.write_text(code, encoding="utf-8")
    module = types.ModuleType("block")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "block", module)
    exec(compile(code, str(path), "exec"), module.__dict__)


def test_the_readme_shows_what_its_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(
        r"```bash\ncasl-bench (table .*?)\n```\n.*?```text\n(.*?)```", text, re.DOTALL
    )
    assert found is not None
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(found[1])) == 0
    assert capsys.readouterr().out == found[2]


def test_the_readme_is_short_and_reads_alone() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= 900
    words = " ".join(text.split())
    assert words.index("editing precision ratio") < words.index("## In Python")
