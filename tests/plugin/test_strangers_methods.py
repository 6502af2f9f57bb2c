"""Methods as strangers would write them from `docs/add_a_method.md`: short, and keeping every rule.

One adds to x_T, one needs the labels of two other attributes, one has a sampler of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from casl_bench.conformance.check_method import main

STRANGERS = Path(__file__).parent / "strangers"
NAMES = ("noise_shift", "two_others", "own_sampler")
MOST_LINES = 60


def test_these_are_all() -> None:
    assert sorted(path.stem for path in STRANGERS.glob("*.py")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_strangers_method_is_short_and_keeps_every_rule(
    name: str, fresh_registry: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = STRANGERS / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert main([str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"checking {name}\n")


@pytest.mark.parametrize(
    ("name", "before", "after", "rule"),
    [
        ("two_others", "uses_all_labels=True, ", "", "it uses only what it declares"),
        ("noise_shift", 'supervision="text"', 'supervision="none"', "it uses only what it decl"),
        (
            "noise_shift",
            "(task.guide_clip, task.train.x_0, task.concept, share=0.5)",
            "(task.guide_clip, task.train.x_0 + 0 * __import__('torch').randn(1, "
            "generator=task.generator), task.concept, share=0.5)",
            "a fit declared deterministic takes no random number",
        ),
    ],
)
def test_a_broken_declaration_is_seen(
    name: str,
    before: str,
    after: str,
    rule: str,
    fresh_registry: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (STRANGERS / f"{name}.py").read_text(encoding="utf-8")
    assert before in text
    (tmp_path / f"{name}.py").write_text(text.replace(before, after), encoding="utf-8")
    assert main([str(tmp_path / f"{name}.py")]) == 1
    assert f"FAIL  {rule}" in capsys.readouterr().out


def test_more_than_a_class_allows_is_refused(
    fresh_registry: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (STRANGERS / "two_others.py").read_text(encoding="utf-8")
    (tmp_path / "greedy.py").write_text(text.replace('supervision="labels"', 'supervision="text"'))
    assert main([str(tmp_path / "greedy.py")]) == 2
    assert "declares uses_all_labels with supervision 'text'" in capsys.readouterr().err
