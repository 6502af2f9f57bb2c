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
        ("", "no logits in the file"),
        ("image\n00\n", "no logits in the file"),
        ("image,side,a\n00,source,1\n00,source,2\n00,edit,1\n", "there twice"),
        ("image,side,a\n00,source,x\n00,edit,1\n", "image '00', a: 'x' is no number"),
        ("image,side,a\n00,source,\n00,edit,1\n", "image '00', a: '' is no number"),
        ("image,side,a\n00,source,nan\n00,edit,1\n", "image '00', a: 'nan' is no number"),
        ("image,side,a\n00,source,inf\n00,edit,1\n", "image '00', a: 'inf' is no number"),
        ("image;side;a\n00;source;1\n00;edit;1\n", "not separated by commas"),
        ("image\tside\ta\n00\tsource\t1\n", "not separated by commas"),
        ("image,side,a,a\n00,source,1,2\n00,edit,1,2\n", "two columns are called 'a'"),
        ("image,side,a\n00,source,1\n00,edit\n", "2 values in the row of '00', not 3"),
        ("image,side,a\n00,source,1,2\n00,edit,1\n", "4 values in the row of '00', not 3"),
        ("image,sied,a\n00,source,1\n00,edit,1\n", "without a column 'side', neither"),
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


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes("image,side,schön\n".encode("utf-16"))
    with pytest.raises(UsageError, match="not text in UTF-8"):
        read_logits([path])


def test_the_index_that_pandas_writes_is_no_attribute(tmp_path: Path, logits: Path) -> None:
    path = tmp_path / "indexed.csv"
    lines = logits.read_text("utf-8").splitlines()
    text = "\n".join(f"{i - 1 if i else ''},{line}" for i, line in enumerate(lines))
    path.write_text(text, encoding="utf-8")
    assert read_logits([path]).attributes == ATTRIBUTES


def test_names_are_the_same_however_their_accents_are_written(tmp_path: Path) -> None:
    composed, apart = "é.png", "e\u0301.png"
    save(tmp_path / "src" / composed, 3)
    save(tmp_path / "edit" / apart, 3)
    (pair,) = match_folders(tmp_path / "src", tmp_path / "edit").pairs
    assert pair.source.is_file() and pair.edited.is_file()
    path = tmp_path / "logits.csv"
    path.write_text(f"image,side,a\n{apart},source,1\n{composed},edit,2\n", encoding="utf-8")
    assert read_logits([path]).names == (pair.name,)
