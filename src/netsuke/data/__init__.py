"""Labelled images: a catalogue of known sets, folders of images, strict parsers, deterministic splits.

>>> from netsuke import data
>>> mnist = data.load("mnist")  # doctest: +SKIP
>>> mnist.train.images.shape, mnist.classes[:3]  # doctest: +SKIP
((55000, 1, 28, 28), ('0', '1', '2'))
"""

from __future__ import annotations

from pathlib import Path

from netsuke.data.catalogue import CATALOGUE
from netsuke.data.dataset import Dataset, Split, assemble, check_options, resize
from netsuke.data.download import Report, cache_folder, ensure, locate
from netsuke.errors import DataError

__all__ = ["CATALOGUE", "Dataset", "Split", "fetch", "load", "locate", "on_disk"]


def load(
    name_or_path: str | Path, *, size: int | None = None, seed: int = 0, val_share: float | None = None
) -> Dataset:
    """A data set by its catalogue name, or from a folder of images (a Path that exists, or "./name", is a folder).

    `size` resizes every image to size x size pixels. `seed` and `val_share` choose the stratified validation
    images from the training half (default 1/12 of a large set, 15 % of a small one); the test half never
    depends on them. Files are looked for in $NETSUKE_DATA, then in the user's cache, then downloaded.
    Raises DataError where the data are missing, damaged or unusable, OptionError on an option out of range,
    MissingExtra where `digits` lacks scikit-learn.
    """
    check_options(size, seed, val_share)
    name, path = str(name_or_path), Path(name_or_path)
    if name in CATALOGUE and not (isinstance(name_or_path, Path) and path.is_dir()):
        return _load_catalogued(name, size, seed, val_share)
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
    return tuple(half for half, files in entry.files.items() if all(locate(name, file) for file in files))


def fetch(name: str, report: Report | None = None) -> tuple[Path, ...]:
    """Download what is missing of a catalogue set; the paths of all its files.

    Raises DataError on an unknown name, or with the file that is missing and where to put it.
    """
    if name not in CATALOGUE:
        raise DataError(f"unknown data set {name!r}; known sets: {', '.join(CATALOGUE)}")
    files = dict.fromkeys(file for half in CATALOGUE[name].files.values() for file in half)
    return tuple(ensure(name, file, report) for file in files)


def _load_catalogued(name: str, size: int | None, seed: int, val_share: float | None) -> Dataset:
    entry = CATALOGUE[name]
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
