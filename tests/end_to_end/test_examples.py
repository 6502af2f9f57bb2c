"""The notebooks run as they stand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat comes with the extra 'examples'")
nbclient = pytest.importorskip("nbclient", reason="nbclient comes with the extra 'examples'")

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def test_all_are_there_and_hold_no_output() -> None:
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text("utf-8")
    assert [n.name for n in NOTEBOOKS if n.name not in page] == [] and len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = EXAMPLES.parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ["PYTHONPATH"]]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # Paths of records are relative to the folder of examples; what is run is written elsewhere.
    (tmp_path / "examples").mkdir()
    (tmp_path / "leaderboards").symlink_to(root / "leaderboards")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path / "examples")}}
    )
    client.execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert outputs and not any(o["output_type"] == "error" for o in outputs)
