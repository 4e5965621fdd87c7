"""Arrays that are made once and kept on disk, mapped into the memory of every process that asks for them."""

from __future__ import annotations

import os
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from netsuke.errors import DataError

try:
    import fcntl
except ImportError:  # not on Windows: there two processes may make the same array, which costs time only
    fcntl = None  # type: ignore[assignment]


def kept(path: Path, dtype: type, shape: tuple[int, ...], make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in `path`, mapped into memory; `make` is called where it is not there, or damaged.

    The file is .npy with a CRC-32 of its data behind, written beside and renamed. Of several processes that ask at
    once one makes the array and the others wait. What is written to the result stays in this process.
    Raises DataError where the file cannot be written.
    """
    found = _opened(path, dtype, shape)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            found = _opened(path, dtype, shape)
            if found is None:
                _write(path, np.ascontiguousarray(make(), dtype))
                found = _opened(path, dtype, shape)
    except OSError as error:
        raise DataError(f"{path.parent}: cannot keep views there: {error.strerror or error}") from None
    if found is None:
        raise DataError(f"{path}: reads otherwise than it was written; the disk is failing")
    return found


def room(folder: Path, size: int, what: str) -> None:
    """Raise DataError where `size` bytes more do not fit into `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(f"{folder}: cannot keep {what} there: {error.strerror or error}") from None
    if size > free:
        raise DataError(
            f"{folder}: {what} need {size / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; "
            "take fewer, or another folder"
        )


def _opened(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array, where the file holds one of this type and shape with the right checksum."""
    try:
        # "c", copy on write, since torch takes no read-only memory; pages are shared until written to.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
            return None
        with path.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            told = int.from_bytes(file.read(4), "little")
    except (OSError, ValueError, EOFError):
        return None
    return array if told == _checksum(array) else None


def _write(path: Path, array: np.ndarray) -> None:
    """In one step, and on the disk before it bears its name."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.write(_checksum(array).to_bytes(4, "little"))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(array.data.cast("B")) if array.size else 0


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock on what `path` is to hold; it falls with the process that holds it."""
    with path.with_suffix(".lock").open("w") as file:
        if fcntl is not None:
            with suppress(OSError):  # some network disks have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
