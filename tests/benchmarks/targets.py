"""`python tests/benchmarks/targets.py FILE.json`: which figures of a file reach their targets.

FILE is what `pytest tests/benchmarks --benchmark-enable --benchmark-json=FILE` wrote; targets are
noted by the benchmarks themselves. Exit code 1 where one is missed or was not measured, 2 where
FILE holds none.
"""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tabulate import tabulate

Row = tuple[str, float | None, str, str]

_REACHED = {">=": operator.ge, "<=": operator.le}


def rows(file: Path) -> list[Row]:
    """(what, figure, target, "pass", "FAIL" or "not measured") of all that has a target."""
    stored = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
    return [row for benchmark in stored for row in _of(benchmark)]


def _of(benchmark: dict[str, Any]) -> Iterator[Row]:
    info = benchmark["extra_info"]
    if info.get("target"):
        yield _row(benchmark["name"], info["ratio"], info["target"])
    for name, target in info.get("further targets", {}).items():
        yield _row(f"{benchmark['name']}: {name}", info[name], target)


def _row(name: str, figure: float | None, target: str) -> Row:
    if figure is None:
        return name, None, target, "not measured"
    sign, bound = target.split()
    return name, figure, target, "pass" if _REACHED[sign](figure, float(bound)) else "FAIL"


def main() -> int:
    """Print the table; returns the exit code."""
    if len(sys.argv) != 2:
        print("usage: python tests/benchmarks/targets.py FILE.json", file=sys.stderr)
        return 2
    table = rows(Path(sys.argv[1]))
    if not table:
        print("no benchmark with a target: set CASL_BENCH_FULL_SIZE=1", file=sys.stderr)
        return 2
    print(tabulate(table, ("benchmark", "figure", "target", ""), floatfmt=".3g"))
    return int(any(row[-1] != "pass" for row in table))


if __name__ == "__main__":
    raise SystemExit(main())
