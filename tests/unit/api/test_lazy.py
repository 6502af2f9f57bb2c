from __future__ import annotations

import subprocess
import sys

import pytest

import casl_bench


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, casl_bench; dir(casl_bench); "
        "found = {'torch', 'numpy', 'pandas', 'pydantic', 'click'} & set(sys.modules); "
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_functions_of_logits_need_no_torch() -> None:
    code = (
        "import sys, casl_bench; casl_bench.epr([[0., 1.]], [[1., 2.]], 0); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", casl_bench.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    if name in ("EditingPrecisionRatio", "FlipRate", "PreciseEditRate"):
        pytest.importorskip("torchmetrics", reason="torchmetrics comes with the extra 'metrics'")
    if name == "SignedEditingPrecisionRatio":
        pytest.importorskip("torchmetrics", reason="torchmetrics comes with the extra 'metrics'")
    assert getattr(casl_bench, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = casl_bench.evalute  # type: ignore[attr-defined]
