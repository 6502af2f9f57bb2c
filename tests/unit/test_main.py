"""`python -m casl_bench`: an interruption while it loads is one line and 130."""

from __future__ import annotations

import pytest

from casl_bench import __main__
from casl_bench.cli import main


def test_an_interruption_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "main", interrupted)
    assert __main__.main() == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"
