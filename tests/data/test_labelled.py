"""Folders of labelled images: tables, boxes, masks, class folders, and what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netsuke.data.labelled import read_labelled
from netsuke.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, tables beside them as cheque-strings has them."""
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "images" / name).touch()
    (tmp_path / "labels.csv").write_text("file,label,width\nb.png,12,5\na.jpg,,5\n")
    (tmp_path / "boxes.csv").write_text("file,digit,x,y,w,h\nb.png,1,0,0,3,4\nb.png,2,4,0,3.5,4\n")
    return tmp_path


def test_tables_are_found_beside_the_images(folder: Path) -> None:
    (folder / "masks").mkdir()
    (folder / "masks" / "b.png").touch()
    for named in (folder, folder / "images"):
        b, a = read_labelled(named)
        assert (b.text, a.text) == ("12", "")
        assert b.file == folder / "images" / "b.png"
        assert b.boxes == (("1", (0, 0, 3, 4)), ("2", (4, 0, 3.5, 4)))
        assert a.boxes == ()
        assert (b.mask, a.mask) == (folder / "masks" / "b.png", None)
    (folder / "boxes.csv").unlink()
    assert read_labelled(folder)[0].boxes is None


def test_tables_may_be_named_and_use_other_marks(folder: Path) -> None:
    (folder / "other.csv").write_text("\ufefffile;text\na.jpg;12,50\n", encoding="utf-8")
    (found,) = read_labelled(folder / "images", folder / "other.csv")
    assert found.text == "12,50"
    assert found.boxes is None  # boxes.csv tells of b alone


def test_class_folders(tmp_path: Path) -> None:
    for name in ("3/p10.png", "3/p2.png", "none/x.jpg", "7/.hidden.png", "7/one.tiff", "7/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [(f.name, f.text) for f in read_labelled(tmp_path)] == [
        ("none/x.jpg", ""), ("3/p2.png", "3"), ("3/p10.png", "3"), ("7/one.tiff", "7"),
    ]  # fmt: skip


BROKEN = {
    "a name that is not there": (
        "labels.csv",
        "file,text\nc.png,1\n",
        "labels.csv, line 2: .*c.png is not there",
    ),
    "twice": ("labels.csv", "file,text\nb.png,1\nb.png,2\n", "line 3: b.png stands twice"),
    "no column": ("labels.csv", "file,what\nb.png,1\n", "no column 'text'; there are file, what"),
    "no line": ("labels.csv", "file,text\n", "no line"),
    "empty": ("labels.csv", "", "no line"),
    "not text": ("labels.csv", b"\xff\xfe\x00", "cannot be read as text"),
    "no number": (
        "boxes.csv",
        "file,digit,x,y,w,h\nb.png,1,a,0,3,4\n",
        "boxes.csv, line 2: could not convert",
    ),
    "no width": ("boxes.csv", "file,digit,x,y,h\nb.png,1,0,0,3\n", "no column 'w'"),
    "another file": (
        "boxes.csv",
        "file,digit,x,y,w,h\nz.png,1,0,0,3,4\n",
        r"boxes.csv: .*z.png is not there",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_tables_are_one_clear_line(case: str, folder: Path) -> None:
    name, text, says = BROKEN[case]
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=says) as caught:
        read_labelled(folder)
    assert "\n" not in str(caught.value)


def test_no_folder_and_no_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_labelled(tmp_path / "gone")
    with pytest.raises(DataError, match=r"no labels\.csv"):
        read_labelled(tmp_path)


def test_the_cheques() -> None:
    root = Path(os.environ.get("NETSUKE_DATA", "")) / "cheque-strings"
    if not (root / "labels.csv").is_file():
        pytest.skip("needs cheque-strings: set NETSUKE_DATA to a folder that holds cheque-strings/")
    found = read_labelled(root)
    assert len(found) == 128
    assert sum(len(image.text) for image in found) == 562
    assert all("".join(label for label, _ in image.boxes or ()) == image.text for image in found)
