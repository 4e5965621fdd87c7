"""Labelled images: a catalogue of known sets, folders of images, strict parsers, deterministic splits.

>>> from netsuke import data
>>> mnist = data.load("mnist")  # doctest: +SKIP
>>> mnist.train.images.shape, mnist.classes[:3]  # doctest: +SKIP
((55000, 1, 28, 28), ('0', '1', '2'))
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from netsuke.data import made
from netsuke.data.catalogue import CATALOGUE, Entry
from netsuke.data.dataset import Dataset, Split, assemble, check_options, gathered, resize
from netsuke.data.download import Report, cache_folder, ensure, locate
from netsuke.errors import DataError

__all__ = ["CATALOGUE", "Dataset", "Split", "fetch", "load", "locate", "on_disk"]


HALVES = ("train", "val", "test")


def load(
    name_or_path: str | Path,
    *,
    size: int | None = None,
    seed: int = 0,
    val_share: float | None = None,
    need: Collection[str] = HALVES,
) -> Dataset:
    """A data set by its catalogue name, or from a folder of images (a Path that exists, or "./name", is a folder).

    `size` resizes every image to size x size pixels. `seed` and `val_share` choose the stratified validation
    images from the training half (default 1/12 of a large set, 15 % of a small one); the test half never
    depends on them. Files are looked for in $NETSUKE_DATA, then in the user's cache, then downloaded.
    A set that is made rather than fetched is made at first use, of `need` only what is named; behind its name a
    colon and a number ask for so many training images: "handwriting:20000".
    Raises DataError where the data are missing, damaged or unusable, OptionError on an option out of range,
    MissingExtra where `digits` lacks scikit-learn.
    """
    check_options(size, seed, val_share)
    name, path = str(name_or_path), Path(name_or_path)
    if name in CATALOGUE and not (isinstance(name_or_path, Path) and path.is_dir()):
        return _load_catalogued(name, size, seed, val_share, need)
    if name.partition(":")[0] in CATALOGUE and not path.is_dir():
        return _load_made(name, size, need)
    try:
        if not path.is_dir() or not name:
            what = (
                "a file, not a folder of images"
                if name and path.exists()
                else "neither a known data set nor a folder"
            )
            raise DataError(f"{name!r} is {what}; known sets: {', '.join(CATALOGUE)}")
        from netsuke.data.folders import read_folder

        classes, splits = read_folder(path, size)
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error
    absent = "" if "train" in splits else f"{path} holds no train/ folder"
    return assemble(
        f"{path.resolve().name}/", classes, splits,  # the slash tells it from a catalogue set of that name
        licence="not stated", role="any", seed=seed, val_share=val_share, absent=absent,
    )  # fmt: skip


def on_disk(name: str) -> tuple[str, ...]:
    """Which halves ("train", "test") of a catalogue set can be read without a download."""
    entry = CATALOGUE[name]

    def here(half: str) -> bool:
        parts = made_of(entry, half)
        files = entry.files.get(half)
        return all(map(partial(locate, name), files or ())) and all(
            entry.maker and made.locate(name, entry.maker, part) for part in parts
        )

    return tuple(filter(here, entry.counts))


def made_of(entry: Entry, half: str) -> tuple[made.Part, ...]:
    """The parts of a half that is made; () for one that comes as files."""
    return tuple(part for part in (entry.maker.parts if entry.maker else ()) if part.half == half)


def fetch(name: str, report: Report | None = None) -> tuple[Path, ...]:
    """Download, or make, what is missing of a catalogue set; the paths of all its files.

    Raises DataError on an unknown name, or with the file that is missing and where to put it.
    """
    if name not in CATALOGUE:
        raise DataError(f"unknown data set {name!r}; known sets: {', '.join(CATALOGUE)}")
    entry = CATALOGUE[name]
    files = dict.fromkeys(file for half in entry.files.values() for file in half)
    fetched = tuple(ensure(name, file, report) for file in files)
    return fetched + (made.ensure(name, entry.maker, entry.maker.parts) if entry.maker else ())


def _load_made(name: str, size: int | None, need: Collection[str]) -> Dataset:
    """A set that is made, or of it the number of images behind the colon."""
    base, colon, number = name.partition(":")
    entry = CATALOGUE[base]
    if entry.maker is None:
        sets = ", ".join(key for key, other in CATALOGUE.items() if other.maker)
        raise DataError(f"{name!r}: a number of images goes with {sets} only; there is {base}")
    if colon and not (number.isascii() and number.isdigit()):
        raise DataError(f"{name!r}: behind the colon stands a number of images, such as {base}:20000")
    parts = made.cut(entry.maker.parts, int(number) if colon else None)
    splits, asked = {}, set(need) & set(HALVES) or {"test"}
    for half in HALVES:
        if half not in asked:
            continue
        if half in entry.files:
            files = [ensure(base, file) for file in entry.files[half]]
            split = entry.read(entry, half, files)
        else:
            mine = [part for part in parts if part.half == half]
            paths = made.ensure(base, entry.maker, mine)
            split = made.joined(paths, mine, len(entry.classes), entry.shape)
        splits[half] = split if size is None else Split(resize(split.images, size), split.labels)
    absent = f"only {', '.join(splits)} were asked for" if len(splits) < len(HALVES) else ""
    return gathered(name, entry.classes, splits, licence=entry.licence, role=entry.role, absent=absent)


def _load_catalogued(
    name: str, size: int | None, seed: int, val_share: float | None, need: Collection[str]
) -> Dataset:
    entry = CATALOGUE[name]
    if entry.maker:
        return _load_made(name, size, need)
    halves, absent = tuple(entry.files), ""
    if entry.role == "validation":
        absent = f"{name} is for validation only; train on another set, such as mnist"
    elif on_disk(name) == ("test",):
        # enough to evaluate on, so evaluating must not start a download
        files = ", ".join(file.name for file in entry.files["train"])
        halves = ("test",)
        absent = f"`netsuke data fetch {name}` downloads them, or put {files} into {cache_folder() / name}/"
    splits = {}
    for half in halves:
        split = entry.read(entry, half, [ensure(name, file) for file in entry.files[half]])
        splits[half] = split if size is None else Split(resize(split.images, size), split.labels)
    return assemble(
        name, entry.classes, splits,
        licence=entry.licence, role=entry.role, seed=seed, val_share=val_share, absent=absent,
    )  # fmt: skip
