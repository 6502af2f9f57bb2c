"""Names steer no terminal and turn no line around; what can be seen stays as it is."""

from __future__ import annotations

import json

import pytest

from casl_bench.core.command import say, show
from casl_bench.core.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("casl → naïve 猫 🏳", "casl → naïve 猫 🏳"),
        ("\x1b[2J\x07", r"\u001b[2J\u0007"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("a\nb\x7f\x85", r"a\u000ab\u007f\u0085"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\udb40\udc41"),
    ],
)
def test_what_is_not_printable_is_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert json.loads(json.dumps(text)) == json.loads(f'"{shown}"')


def test_an_endless_name_leaves_a_line_that_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"error: no '{'x' * 100_000}' (here); rename it")
    said = capsys.readouterr().err
    assert len(said) < 4_000 and said.startswith("error: no 'xxx")
    assert said.endswith("xxx' (here); rename it\n") and said.count("\n") == 1


def test_nothing_on_a_terminal_is_steered(capsys: pytest.CaptureFixture[str]) -> None:
    say("\x1b[2Jmine\u202e")
    show("\x1b[2Jmine\nand on\n")
    out, err = capsys.readouterr()
    assert (out, err) == ("\\u001b[2Jmine\nand on\n", "\\u001b[2Jmine\\u202e\n")
