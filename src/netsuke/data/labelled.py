"""Images of numbers with what they say: a table `file,text`, boxes and masks where they are known; or class folders."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from netsuke.data.folders import SUFFIXES as IMAGES
from netsuke.data.folders import natural
from netsuke.errors import DataError

SUFFIXES = (*IMAGES, ".tif", ".tiff", ".gif")
NOTHING = ("none", "blank", "empty", "other")  # class folders of what is no digit
TEXT = ("text", "label", "digits")  # what the column may be called
CLASS = ("label", "digit", "class", "text")

Box = tuple[float, float, float, float]  # x, y, w, h


@dataclass(frozen=True)
class Labelled:
    """An image file, its text ("" where there is no digit), and a class and box per digit, where they are known.

    `mask` is a PNG of the image's size, 0 where there is no digit and i on the pixels of the i-th box.
    """

    file: Path
    name: str
    text: str
    boxes: tuple[tuple[str, Box], ...] | None = None
    mask: Path | None = None


def read_labelled(
    images: Path, labels: Path | None = None, boxes: Path | None = None, masks: Path | None = None
) -> list[Labelled]:
    """The labelled images of a folder, in the order of the table, or of the class folders.

    Without `labels` the table is `labels.csv` in the folder or beside it; where there is none, each folder within
    is a class whose name is the text, and NOTHING names those without a digit. `boxes.csv` and `masks/` are taken from
    beside the table. Names in the tables are of files under `images` (or its folder `images`).
    Raises DataError for a table that lacks a column, names a file that is not there, or names one twice.
    """
    if not images.is_dir():
        raise DataError(f"{images}: no such folder; --images names a folder of images")
    table = labels or next(
        (t for t in (images / "labels.csv", images.parent / "labels.csv") if t.is_file()), None
    )
    if table is None or (labels is None and table.parent != images and _class_folders(images)):
        return _classes(images)
    folder = images / "images" if (images / "images").is_dir() else images
    boxes = boxes or _beside(table, "boxes.csv")
    masks = masks or _beside(table, "masks")
    known = _boxes(boxes) if boxes else None
    found: dict[str, Labelled] = {}
    for line, row in _rows(table):
        name, text = _cell(row, ("file", "image", "filename"), table, line), _cell(row, TEXT, table, line)
        if name in found:
            raise DataError(f"{table}, line {line}: {name} stands twice")
        file, mask = folder / name, masks / Path(name).with_suffix(".png") if masks else None
        if not file.is_file():
            raise DataError(f"{table}, line {line}: {file} is not there")
        standing = None if known is None else tuple(known.pop(name, ()))
        if not standing and text:  # not told
            standing = None
        found[name] = Labelled(file, name, text, standing, mask if mask and mask.is_file() else None)
    if not found:
        raise DataError(f"{table}: no line; it needs file,text")
    if lost := next((name for name in known or () if not (folder / name).is_file()), None):
        raise DataError(f"{boxes}: {folder / lost} is not there")
    return list(found.values())


def _beside(table: Path, name: str) -> Path | None:
    path = table.with_name(name)
    return path if path.exists() else None


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells by column; commas, semicolons or tabs."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{table}: cannot be read as text: {getattr(error, 'strerror', None) or error}"
        ) from None
    head = text.split("\n", 1)[0]
    reader = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=head.count))
    try:
        return [
            (
                reader.line_num,
                {str(k).strip().lower(): (v or "") for k, v in row.items() if isinstance(v, str | None)},
            )
            for row in reader
        ]
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num}: {error}") from None


def _cell(row: dict[str, str], names: tuple[str, ...], table: Path, line: int) -> str:
    for name in names:
        if name in row:
            return row[name].strip()
    raise DataError(f"{table}, line {line}: no column {names[0]!r}; there are {', '.join(row) or 'none'}")


def _boxes(table: Path) -> dict[str, list[tuple[str, Box]]]:
    found: dict[str, list[tuple[str, Box]]] = {}
    for line, row in _rows(table):
        name, label = _cell(row, ("file", "image", "filename"), table, line), _cell(row, CLASS, table, line)
        try:
            x, y, w, h = (float(_cell(row, (key,), table, line)) for key in "xywh")
        except ValueError as error:
            raise DataError(f"{table}, line {line}: {error}") from None
        found.setdefault(name, []).append((label, (x, y, w, h)))
    return found


def _class_folders(images: Path) -> list[Path]:
    found = [path for path in images.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: natural(path.name))


def _classes(images: Path) -> list[Labelled]:
    found = []
    for folder in _class_folders(images):
        text = "" if folder.name.lower() in NOTHING else folder.name
        files = (f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        found += [
            Labelled(file, f"{folder.name}/{file.name}", text)
            for file in sorted(files, key=lambda f: natural(f.name))
        ]
    if not found:
        raise DataError(
            f"{images}: no labels.csv (file,text) beside the images, and no folder of images a class"
        )
    return found
