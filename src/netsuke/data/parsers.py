"""Strict readers of the formats that data sets come in; whatever is wrong with a file is a DataError.

Sizes are checked before memory is taken, and nothing is decompressed past the size that was declared.
"""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from netsuke.data.dataset import Split
from netsuke.errors import DataError

MAX_BYTES = 1 << 30  # of one array; the largest set here, EMNIST digits, has 188 MB
MAX_TEXT_BYTES = 1 << 26
DEFLATE_RATIO = 1032  # deflate never packs tighter, so a header that promises more is false
GZIP = 31  # zlib's code for one gzip member with its check sum
HEADER_BYTES = 4096


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises DataError where it cannot be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes are too many; at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


# --- idx --------------------------------------------------------------------------------------------


def parse_idx(data: bytes, where: str) -> np.ndarray:
    """An idx file of unsigned bytes (LeCun's format), plain or gzipped, as a uint8 array of its own shape.

    Raises DataError on a wrong magic number, a shape the file cannot hold, truncation or trailing bytes.
    """
    packed = data[:2] == b"\x1f\x8b"
    inflate = zlib.decompressobj(GZIP)
    try:
        head = inflate.decompress(data, 4 + 4 * 255) if packed else data
        shape = _idx_shape(head, where)
        start, count = 4 + 4 * len(shape), prod(shape)
        limit = len(data) * (DEFLATE_RATIO if packed else 1)
        if count > min(limit, MAX_BYTES):
            raise DataError(f"{where}: truncated, or its header is wrong: {_by(shape)} does not fit the file")
        if packed and not inflate.eof:
            head += inflate.decompress(
                inflate.unconsumed_tail, start + count + 1 - min(len(head), start + count)
            )
    except zlib.error as error:
        raise DataError(f"{where}: damaged gzip data ({error})") from error
    if len(head) < start + count or (packed and len(head) == start + count and not inflate.eof):
        raise DataError(
            f"{where}: truncated: {_by(shape)} takes {count} bytes, {len(head) - start} are there"
        )
    if len(head) > start + count or inflate.unused_data:
        raise DataError(f"{where}: trailing bytes after the {_by(shape)} that its header declares")
    return np.frombuffer(head, np.uint8, count, start).reshape(shape)


def _idx_shape(head: bytes, where: str) -> tuple[int, ...]:
    if len(head) < 4:
        raise DataError(f"{where}: truncated: {len(head)} bytes are no idx file")
    if head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 4:
        raise DataError(
            f"{where}: wrong magic {head[:4].hex()}; an idx file of bytes begins with 000008 and its rank"
        )
    if len(head) < 4 + 4 * head[3]:
        raise DataError(f"{where}: truncated inside its header")
    shape = struct.unpack_from(f">{head[3]}I", head, 4)
    if not all(shape):
        raise DataError(f"{where}: empty: its header declares {_by(shape)}")
    return shape


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


# --- zip and npz ------------------------------------------------------------------------------------

DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
    ValueError, KeyError, IndexError, EOFError, OSError, RuntimeError, NotImplementedError, OverflowError,
)  # fmt: skip


def read_member(path: Path, name: str) -> bytes:
    """One member of a zip file. Raises DataError where it is missing, damaged or larger than it may be."""
    try:
        with zipfile.ZipFile(path) as archive:
            if name not in archive.namelist():
                raise DataError(
                    f"{path}: holds no {name}; it has {', '.join(archive.namelist()[:8]) or 'nothing'}"
                )
            info = archive.getinfo(name)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{path}: {name} is packed in a way other than deflate")
            if info.file_size > min(path.stat().st_size * DEFLATE_RATIO, MAX_BYTES):
                raise DataError(f"{path}: {name} declares {info.file_size} bytes, more than it can hold")
            with archive.open(info) as member:
                return _read_at_most(member, info.file_size)
    except DAMAGED as error:
        raise DataError(f"{path}: damaged zip file ({error})") from error


def _read_at_most(stream: IO[bytes], limit: int) -> bytes:
    """The stream, taken in pieces so that memory follows what is there and not what is declared."""
    out = bytearray()
    while len(out) <= limit and (piece := stream.read(1 << 20)):
        out += piece
    if len(out) != limit:
        raise ValueError(f"{limit} bytes declared, {len(out)} found")
    return bytes(out)


def read_npz(path: Path, key: str) -> np.ndarray:
    """One array of bytes from an .npz, never unpickled. Raises DataError."""
    data = io.BytesIO(read_member(path, f"{key}.npy"))
    try:
        version = np.lib.format.read_magic(data)
        if version != (1, 0):
            raise ValueError(f"npy version {version}, expected (1, 0)")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(data, max_header_size=HEADER_BYTES)
    except (*DAMAGED, SyntaxError, RecursionError, TypeError) as error:
        raise DataError(f"{path}: damaged array {key} ({str(error).splitlines()[0]})") from error
    if dtype != np.uint8 or fortran or not shape or min(shape) < 1:
        raise DataError(
            f"{path}: {key} must be a C-ordered, non-empty uint8 array, not {dtype} of {_by(shape)}"
        )
    rest = data.getbuffer()[data.tell() :]
    if len(rest) != prod(shape):
        raise DataError(f"{path}: {key} declares {_by(shape)} = {prod(shape)} bytes, {len(rest)} are there")
    return np.frombuffer(rest, np.uint8).reshape(shape)


# --- text -------------------------------------------------------------------------------------------


def read_table(
    path: Path, columns: int, low: float, high: float, *, delimiter: str | None = None
) -> np.ndarray:
    """A table of numbers in text, plain or gzipped, as float32 [rows, columns].

    Raises DataError where a row has another width or a value lies outside `low` to `high`.
    """
    data = read_bytes(path)
    try:
        if data[:2] == b"\x1f\x8b":
            inflate = zlib.decompressobj(GZIP)
            data = inflate.decompress(data, MAX_TEXT_BYTES)
            if not inflate.eof or inflate.unused_data:
                raise ValueError(f"truncated, with trailing bytes, or over {MAX_TEXT_BYTES} bytes of text")
        lines = io.StringIO(data.decode("ascii"))
        if not data.strip():
            raise ValueError("empty")
        table = np.loadtxt(lines, np.float32, comments=None, delimiter=delimiter, ndmin=2)
    except (ValueError, zlib.error) as error:
        raise DataError(f"{path}: no table of numbers ({str(error).splitlines()[0][:100]})") from error
    if table.shape[1] != columns:
        raise DataError(f"{path}: {table.shape[1]} values in a row; {columns} are expected")
    if not ((table >= low) & (table <= high)).all():  # a NaN fails both
        raise DataError(f"{path}: a value outside {low:g} to {high:g}")
    return table


# --- images with labels -----------------------------------------------------------------------------


def pair(
    images: np.ndarray, labels: np.ndarray, classes: int, shape: tuple[int, int, int], where: str
) -> Split:
    """Images uint8 [n, H, W] and whole labels [n] as a Split of `shape` (C, H, W), checked against each other."""
    if images.ndim != 3 or (1, *images.shape[1:]) != shape:
        got = _by(images.shape[1:]) or "single values"
        raise DataError(f"{where}: images of {got}; {_by(shape[1:])} are expected")
    if labels.ndim != 1 or len(labels) != len(images):
        raise DataError(f"{where}: {len(images)} images but labels of shape {_by(labels.shape)}")
    whole = labels.astype(np.int64)
    if (whole != labels).any() or whole.min() < 0 or whole.max() >= classes:
        raise DataError(
            f"{where}: a label of {labels.max():g}; labels must be whole numbers from 0 to {classes - 1}"
        )
    return Split(np.ascontiguousarray(images)[:, None], whole)
