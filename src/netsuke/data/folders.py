"""A folder of images as a data set: root/class/*.png, or root/train|val|test/class/*.png."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from netsuke.data.dataset import Split
from netsuke.errors import DataError
from netsuke.image.files import MAX_BYTES, MAX_PIXELS, dimensions, format_of, upright

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
SPLITS = ("train", "val", "test")
FORMATS = ("PNG", "JPEG", "BMP", "WebP")  # what such a file may hold
HEADER_BYTES = 1 << 20  # metadata in front of a JPEG's size can be long
KEPT_SIDE = 64  # images that share a size up to this keep it
DEFAULT_SIDE = 28

Listed = list[tuple[Path, int]]  # each image and its class


def read_folder(root: Path, size: int | None) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Class names, naturally sorted, and the splits the folder holds ("train" alone where it has none).

    Grey (C = 1) if every image is grey, else RGB; the polarity is left as it is; transparent pixels become
    white paper. Images keep a common size of at most 64; else they are resized to squares of `size` (default
    28), without keeping the aspect. Raises DataError on an empty or single-class folder, on an image that
    cannot be read, and on one over 50 megapixels, which is refused before it is decoded.
    """
    classes, listed = _list(root)
    shape = _target(listed, size)
    splits = {key: _decode_all(images, shape) for key, images in listed.items()}
    if all(_grey(images) for images in splits.values()):
        splits = {key: images[:, :1].copy() for key, images in splits.items()}
    labels = {key: np.array([label for _, label in images], np.int64) for key, images in listed.items()}
    return classes, {key: Split(images, labels[key]) for key, images in splits.items()}


def _list(root: Path) -> tuple[tuple[str, ...], dict[str, Listed]]:
    """Class names, and the image files of every split."""
    top = _subfolders(root)
    if not top:
        raise DataError(
            f"{root}: empty: it needs one folder of images for each class, such as {root}/cat/1.png"
        )
    split = all(folder.name in SPLITS for folder in top)
    parts = {folder.name: _subfolders(folder) for folder in top} if split else {"train": top}
    names = sorted({folder.name for folders in parts.values() for folder in folders}, key=natural)
    if strange := [name for name in names if not name.isprintable()]:
        raise DataError(f"{root}: the class folder {strange[0]!r} has control characters in its name")
    if len(names) < 2:
        raise DataError(
            f"{root}: {len(names)} class ({', '.join(names) or 'none'}); a classifier needs at least 2"
        )
    if "train" in parts:
        unknown = set(names) - {folder.name for folder in parts["train"]}
        if unknown:
            raise DataError(f"{root}: class {min(unknown)!r} has no folder in {root / 'train'}")
    number = {name: i for i, name in enumerate(names)}
    listed = {}
    for key, folders in parts.items():
        listed[key] = [(path, number[f.name]) for f in sorted(folders, key=_order) for path in _images(f)]
        if not listed[key]:
            raise DataError(f"{root / key}: empty; it needs one folder of images for each class")
    return tuple(names), listed


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _images(folder: Path) -> list[Path]:
    """The visible images of one class."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    paths = sorted((path for path in paths if not path.name.startswith(".")), key=_order)
    if not paths:
        raise DataError(f"{folder}: no image; netsuke reads {', '.join(SUFFIXES)}")
    return paths


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key under which "img2" comes before "img10"; the name itself settles ties such as "1" and "01"."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(int(part), "") if part[0].isdecimal() else (-1, part) for part in parts], name


def _order(path: Path) -> tuple[list[tuple[int, str]], str]:
    return natural(path.name)


def _target(listed: dict[str, Listed], size: int | None) -> tuple[int, int]:
    """H, W of the data set, after a look at every header."""
    sizes = {_header(path) for images in listed.values() for path, _ in images}
    if size is None and len(sizes) == 1 and max(next(iter(sizes))) <= KEPT_SIDE:
        width, height = sizes.pop()
        return height, width
    return size or DEFAULT_SIDE, size or DEFAULT_SIDE


def _header(path: Path) -> tuple[int, int]:
    """Width and height, without decoding."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(HEADER_BYTES)
        length = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    found = dimensions(start) if format_of(start) in FORMATS else None
    if found is None or not all(found):
        raise DataError(f"{path}: unreadable as an image; netsuke reads PNG, JPEG, BMP and WebP")
    if found[0] * found[1] > MAX_PIXELS or length > MAX_BYTES:
        raise DataError(
            f"{path}: {found[0]}x{found[1]} in {length} bytes is too large; at most {MAX_PIXELS // 10**6} megapixels"
        )
    return found


def _decode_all(listed: Sequence[tuple[Path, int]], shape: tuple[int, int]) -> np.ndarray:
    """Every image as RGB uint8 [n, 3, H, W]."""
    import cv2

    out = np.empty((len(listed), 3, *shape), np.uint8)
    for target, (path, _) in zip(out, listed, strict=True):
        image = decode(path)
        if image.shape[:2] != shape:
            shrinks = image.shape[0] > shape[0] or image.shape[1] > shape[1]
            mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = cv2.resize(image, (shape[1], shape[0]), interpolation=mode)
        target[:] = image.transpose(2, 0, 1)
    return out


def decode(path: Path) -> np.ndarray:
    """One image as RGB uint8 [H, W, 3], EXIF rotation applied, transparency laid on white. Raises DataError."""
    image = upright(path.read_bytes())
    if image is None:
        raise DataError(f"{path}: unreadable: damaged or truncated image")
    if image.dtype == np.uint16:
        image = (image.astype(np.uint16) >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise DataError(f"{path}: {image.dtype} pixels; 8 or 16 bits a channel are read")
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, 2)
    colour = image[:, :, 2::-1]  # OpenCV has blue first
    if image.shape[2] == 4:
        alpha = image[:, :, 3:].astype(np.uint16)
        colour = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(colour)


def _grey(images: np.ndarray) -> bool:
    return bool((images[:, :1] == images[:, 1:]).all())
