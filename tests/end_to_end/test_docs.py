"""What the documentation shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from casl_bench.cli.main import command
from casl_bench.runs.suites import Suite

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def example(page: str, folder: Path) -> Path:
    """The page's complete example as a file: its first block that names one."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    code = next(block for block in blocks if "register" in block)
    path = folder / page.replace(".md", ".py")
    path.write_text(code, encoding="utf-8")
    return path


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_the_example_dataset_loads(tmp_path: Path) -> None:
    path = example("add_a_dataset.md", tmp_path)
    done = python(
        "import sys; from pathlib import Path\n"
        "from casl_bench.core.registry import load_plugin\n"
        "from casl_bench.domains.dataset import DATASETS, Dataset\n"
        "load_plugin(Path(sys.argv[1]))\n"
        "dataset = DATASETS.create('my_dataset')\n"
        "assert isinstance(dataset, Dataset) and len(dataset.load('test', 3)) == 3\n",
        str(path),
    )
    assert done.returncode == 0, done.stderr


def test_the_example_metric_measures(tmp_path: Path) -> None:
    path = example("add_a_metric.md", tmp_path)
    done = python(
        "import sys; from pathlib import Path; import numpy as np\n"
        "from casl_bench.core.registry import load_plugin\n"
        "from casl_bench.results.score_table import EditScores\n"
        "from casl_bench.metrics.metric import METRICS\n"
        "load_plugin(Path(sys.argv[1]))\n"
        "base, edit = np.zeros((4, 3)), np.tile([1.0, 2.0, -3.0], (4, 1))\n"
        "scores = EditScores(base, base, edit, 0, 1, np.array([1.0, 1.0, 2.0]))\n"
        "assert METRICS.create('worst_collateral').value(scores) == 2.0\n",
        str(path),
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    absent = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert absent == []


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Each command as it is typed, with its options."""
    yield " ".join(words), {o for p in group.params for o in (*p.opts, *p.secondary_opts)}
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, (*words, name))
        else:
            options = {o for p in found.params for o in (*p.opts, *p.secondary_opts)}
            yield " ".join((*words, name)), options


def test_every_command_and_option_that_is_shown_exists() -> None:
    known = dict(commands(command))
    history = ROOT / "CHANGELOG.md"
    text = "\n".join(p.read_text(encoding="utf-8") for p in PAGES if p != history)
    shown = re.findall(
        r"(?:casl-bench|benchmark\.py|python -m casl_bench)( [^\n|`;&)]*)",
        text.replace("\\\n", " "),
    )
    faults = []
    for line in shown:
        words = re.match(r"((?: [a-z][a-z-]*)*)", line)[1].split()  # type: ignore[index]
        while words and " ".join(words) not in known:
            words.pop()
        if not words and re.match(r" [a-z]", line) and not line.startswith((" and", " are")):
            faults.append(line)
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", line)) - {"--help"}
        if unknown := options - known[" ".join(words)]:
            faults.append(f"{line}: {unknown}")
    assert len(shown) > 50
    assert faults == []


def test_every_field_of_a_suite_is_explained() -> None:
    text = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
    fields = set(Suite.model_fields) - {"name", "version", "description", "quick"}
    assert [f for f in sorted(fields) if f"`{f}`" not in text] == []


def test_the_readme_commands_stand_first() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```bash\n(.*?)\n```", text, re.DOTALL)[:2]
    assert first == "pip install -e . && python benchmark.py --methods casl,asyrp"
    assert second == "pip install -e '.[test]' && pytest -n 2 --dist loadfile"
