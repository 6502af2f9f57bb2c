"""Every figure of the benchmarks that has a target is judged by it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TARGETS = Path(__file__).parents[1] / "benchmarks/targets.py"

FAST = {"name": "fast", "extra_info": {"ratio": 3.0, "target": ">= 2.5"}}
QUIET = {"name": "quiet", "extra_info": {"ratio": 3.0, "target": ""}}


def memory(gigabytes: float | None) -> dict[str, Any]:
    info = {
        "ratio": 0.04,
        "target": "<= 0.05",
        "peak": gigabytes,
        "further targets": {"peak": "<= 4"},
    }
    return {"name": "run", "extra_info": info}


@pytest.mark.parametrize(
    ("benchmarks", "code", "verdicts"),
    [
        ([QUIET], 2, []),
        ([FAST, QUIET, memory(3.9)], 0, ["pass", "pass", "pass"]),
        ([FAST, memory(4.1)], 1, ["pass", "pass", "FAIL"]),
        ([FAST, memory(None)], 1, ["pass", "pass", "measured"]),
        ([{"name": "slow", "extra_info": {"ratio": 2.4, "target": ">= 2.5"}}], 1, ["FAIL"]),
    ],
)
def test_a_target_that_is_missed_or_was_not_measured_is_told(
    tmp_path: Path, benchmarks: list[dict[str, Any]], code: int, verdicts: list[str]
) -> None:
    file = tmp_path / "file.json"
    file.write_text(json.dumps({"benchmarks": benchmarks}))
    done = subprocess.run([sys.executable, str(TARGETS), str(file)], capture_output=True, text=True)
    assert done.returncode == code
    assert [line.split()[-1] for line in done.stdout.splitlines()[2:]] == verdicts
