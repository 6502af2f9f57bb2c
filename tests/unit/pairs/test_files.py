from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from casl_bench.core.errors import BenchError, UsageError
from casl_bench.pairs.files import differing_sizes, match_folders, read_logits

from .conftest import ATTRIBUTES, COUNT, rows, save


def test_folders_are_matched_by_name_whatever_the_ending(folders: tuple[Path, Path]) -> None:
    found = match_folders(*folders)
    assert [pair.name for pair in found.pairs] == [f"{i:02d}" for i in range(COUNT)]
    assert found.pairs[0].edited.suffix == ".jpg" and found.problems == ()


def test_what_has_no_partner_is_named(folders: tuple[Path, Path]) -> None:
    save(folders[0] / "alone.png", 3)
    save(folders[1] / "deep" / "lonely.png", 3)
    save(folders[1] / "00.png", 3)
    said = "\n".join(match_folders(*folders).problems)
    assert "in src without a partner: alone.png" in said
    assert "in edit without a partner: deep/lonely.png" in said
    assert "differs in its ending alone: 00.png" in said or "alone: 00.jpg" in said


def test_pictures_of_other_sizes_are_named(folders: tuple[Path, Path]) -> None:
    save(folders[1] / "03.jpg", 3, (48, 24))
    assert differing_sizes(match_folders(*folders).pairs) == ["03 (24×24 and 24×48)"]


def test_folders_without_a_common_name_are_refused(folders: tuple[Path, Path]) -> None:
    save(folders[0].parent / "other" / "zz.png", 3)
    with pytest.raises(UsageError, match="no picture of one folder"):
        match_folders(folders[0], folders[0].parent / "other")
    with pytest.raises(UsageError, match="no such folder"):
        match_folders(folders[0], folders[0] / "absent")


def test_logits_from_one_file(logits: Path, folders: tuple[Path, Path]) -> None:
    found = read_logits([logits], folders)
    assert found.attributes == ATTRIBUTES and len(found.names) == COUNT
    assert np.allclose(found.after - found.before, [3, 0.1, 0.05], atol=1e-4)


def test_logits_from_two_files_and_from_paths(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    both = rows()
    files = []
    for side, own in both.items():
        files.append(tmp_path / f"{side}.csv")
        files[-1].write_text("\n".join(["name," + ",".join(ATTRIBUTES), *own]), encoding="utf-8")
    two = read_logits(files, folders)
    lines = ["path," + ",".join(ATTRIBUTES)]
    lines += [f"data/src/{line}" for line in both["source"]]
    lines += [f"data/edit/{line}" for line in both["edit"]]
    one = tmp_path / "paths.csv"
    one.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    by_path = read_logits([one], folders)
    assert by_path.names == two.names and np.array_equal(by_path.after, two.after)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a CSV file"),
        ("image\n00\n", "no logits in the file"),
        ("image,side,a\n00,source,1\n00,source,2\n00,edit,1\n", "there twice"),
        ("image,side,a\n00,source,x\n00,edit,1\n", "could not convert"),
        ("image,side,a\n00,source,nan\n00,edit,1\n", "no number"),
        ("image,side,a\n00,source,1\n01,edit,1\n", "no image has logits before and after"),
        ("image,side,a\n00,left,1\n00,right,1\n", "neither source nor edit"),
        ("image,a\n00,1\n00,1\n", "neither source nor edit"),
    ],
)
def test_a_bad_file_of_logits_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match=said) as error:
        read_logits([path])
    assert "\n" not in str(error.value) and "bad.csv" in str(error.value)
