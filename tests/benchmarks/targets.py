"""`python tests/benchmarks/targets.py FILE.json`: which ratios of a file reach their targets.

FILE is what `pytest tests/benchmarks --benchmark-enable --benchmark-json=FILE` wrote; targets are
noted by the benchmarks themselves. Exit code 1 where one is missed, 2 where FILE holds none.
"""

from __future__ import annotations

import json
import operator
import sys
from pathlib import Path

from tabulate import tabulate

_REACHED = {">=": operator.ge, "<=": operator.le}


def rows(file: Path) -> list[tuple[str, float, str, str]]:
    """(benchmark, ratio, target, "pass" or "FAIL") of those that have a target."""
    found = []
    for benchmark in json.loads(file.read_text(encoding="utf-8"))["benchmarks"]:
        info = benchmark["extra_info"]
        if info.get("target"):
            sign, bound = info["target"].split()
            reached = _REACHED[sign](info["ratio"], float(bound))
            verdict = "pass" if reached else "FAIL"
            found.append((benchmark["name"], info["ratio"], info["target"], verdict))
    return found


def main() -> int:
    """Print the table; returns the exit code."""
    if len(sys.argv) != 2:
        print("usage: python tests/benchmarks/targets.py FILE.json", file=sys.stderr)
        return 2
    table = rows(Path(sys.argv[1]))
    if not table:
        print("no benchmark with a target: set CASL_BENCH_FULL_SIZE=1", file=sys.stderr)
        return 2
    print(tabulate(table, ("benchmark", "ratio", "target", ""), floatfmt=".3g"))
    return int(any(row[-1] == "FAIL" for row in table))


if __name__ == "__main__":
    raise SystemExit(main())
