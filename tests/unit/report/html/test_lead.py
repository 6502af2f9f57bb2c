"""The first screen of a page shows the number that ranks."""

from __future__ import annotations

from pathlib import Path

from casl_bench.analysis.analyse import analyse
from casl_bench.report.grouping import parts_of
from casl_bench.report.html.figures import styles_of
from casl_bench.report.html.lead import lead_of
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run


def test_the_first_screen_shows_what_ranks(tmp_path: Path) -> None:
    methods = {"good": MadeUpMethod(damage=0.05), "bad": MadeUpMethod(damage=0.6)}
    write_made_up_run(tmp_path, MadeUpRun(methods))
    (part,) = parts_of(analyse([tmp_path]))
    (group,) = part.groups
    lead = lead_of(group, styles_of(list(group.edits)))
    assert lead.heads == ("rank", "method", "precise edits ↑")
    assert [row[1] for row in lead.rows] == ["good", "bad"]
    assert lead.map is not None and lead.map.caption.startswith("precise edits by concept")
    shades = [tile.shade for _, tiles in lead.map.rows for tile in tiles]
    texts = [float(tile.text) for _, tiles in lead.map.rows for tile in tiles]
    assert max(shades) == 1 and all(0 <= value <= 1 for value in texts)
