"""The method that `docs/add_a_method.md` shows works as it stands there."""

import re
from pathlib import Path

from casl_bench.conformance.check_method import main

PAGE = Path(__file__).parents[2] / "docs" / "add_a_method.md"


def test_the_documented_method_keeps_every_rule(fresh_registry, tmp_path, capsys):
    (code,) = re.findall(r"```python\n(# my_method\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "my_method.py").write_text(code)
    assert main([str(tmp_path / "my_method.py")]) == 0
    assert capsys.readouterr().out.startswith("checking my_method\n")
