"""Image files to pixels. The header is read here first, so that no decoder is asked for more than is reasonable."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from netsuke.errors import DataError

MAX_PIXELS = (
    50_000_000  # 150 MB as RGB: the largest mode of a phone's camera passes, a decompression bomb does not
)
MAX_BYTES = 1 << 28  # of a file
MAX_PARTS = 4096  # segments of a JPEG, chunks of a WebP that are looked at
MAX_CHUNKS = 1 << 17  # of a PNG; writers cut its pixels into chunks of 8 KiB
BAND = 1 << 20  # pixels that are converted at a time
HIDDEN = 16  # grey levels: an image that varies by less shows nothing


def decode(source: str | os.PathLike[str] | bytes, *, name: str = "image") -> np.ndarray:
    """An image file, or its bytes, as uint8 [H, W] or RGB [H, W, 3], upright and without alpha.

    Exif rotation is applied; transparency lies over white (over black where white would hide everything);
    16 bits become 8; of an animation comes the first frame, of a TIFF the first page. Errors call bytes `name`.
    Raises DataError, naming the file, where it cannot be read, is no image, is damaged or is over MAX_PIXELS.
    """
    name, data = load(source, name)
    kind, size = format_of(data), dimensions(data)
    if kind is None:
        raise DataError(f"{name}: not an image that netsuke reads; it reads {', '.join(FORMATS)}")
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"{name}: {size[0]}x{size[1]} pixels; the limit is {MAX_PIXELS // 10**6} million")
    pixels = upright(data)
    if pixels is None:
        raise DataError(f"{name}: truncated or damaged {kind} file")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: pixels are {pixels.dtype}; save it with 8 or 16 bits a channel")
    return _flat(pixels)


def load(source: str | os.PathLike[str] | bytes, name: str = "image") -> tuple[str, bytes]:
    """What to call a file, and its bytes. Raises DataError where it cannot be read or is over MAX_BYTES."""
    name, data = (name, source) if isinstance(source, bytes) else (os.fspath(source), _read(Path(source)))
    if len(data) > MAX_BYTES:
        raise DataError(f"{name}: over {MAX_BYTES >> 20} MiB, the limit for an image file")
    return name, data


def format_of(data: bytes) -> str | None:
    """The name in FORMATS of what a file's first bytes say it is."""
    return next((kind for kind, (starts, _) in FORMATS.items() if data.startswith(starts)), None)


def dimensions(data: bytes) -> tuple[int, int] | None:
    """(width, height) as a file's first bytes declare them; None where they are no image, or too few."""
    kind = format_of(data)
    try:
        return FORMATS[kind][1](data) if kind else None
    except _BROKEN:
        return None


def upright(data: bytes) -> np.ndarray | None:
    """A file's pixels as OpenCV gives them, grey or BGR(A) of any depth, turned upright; None where it is damaged.

    Nothing that is cut short or claims over MAX_PIXELS gets as far as a decoder, which would trust it.
    """
    kind, size = format_of(data), dimensions(data)
    if kind is None or size is None or size[0] * size[1] > MAX_PIXELS or truncated(data):
        return None
    pixels = _imdecode(data)
    if pixels is None or 0 in pixels.shape:
        return None
    return np.ascontiguousarray(_turn(pixels, _orientation(kind, data)))


def truncated(data: bytes) -> bool:
    """True where a PNG, JPEG or WebP plainly ends too soon: decoders believe a chunk's length, or paint in grey."""
    kind = format_of(data)
    try:
        if kind == "PNG":  # every chunk, since OpenCV allocates what one claims before it reads it
            return all(name != b"IEND" for name, _, _ in _png_chunks(data))
        if kind == "JPEG":
            return data.find(b"\xff\xd9", _jpeg_frame(data)) < 0
        return kind == "WebP" and len(data) < 8 + int.from_bytes(data[4:8], "little")
    except _BROKEN:
        return True


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


# --- headers: (width, height), or one of _BROKEN -----------------------------------------------------

_BROKEN = (struct.error, ValueError, KeyError, IndexError)
_EXIF = b"Exif\0\0"


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk's content, up to the end of the image."""
    at = 8
    for _ in range(MAX_CHUNKS):
        length, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise ValueError("a chunk longer than the file")
        yield name, at + 8, length
        if name == b"IEND":
            return
        at += 12 + length
    raise ValueError("no end")


def _png_size(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        raise ValueError("no header")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)  # 12: the header of OS/2
    return abs(width), abs(height)  # a negative height means rows from the top


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if data[8:12] != b"WEBP" or kind not in (b"VP8X", b"VP8L", b"VP8 "):
        raise ValueError("another RIFF file")
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        return (low_w | high_w << 16) + 1, (low_h | high_h << 16) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and length of each segment up to the first scan."""
    at = 2
    for _ in range(MAX_PARTS):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFFFF:  # a fill byte
            at += 1
            continue
        if marker == 0xFF01 or 0xFFD0 <= marker <= 0xFFD8:  # markers without a segment
            at += 2
            continue
        if marker < 0xFF00 or marker == 0xFFDA or length < 2:
            return
        yield marker & 0xFF, at + 4, length - 2
        at += 2 + length


def _jpeg_frame(data: bytes) -> int:
    """Where the content of the frame's header starts."""
    for marker, start, _ in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame, not a table
            return start
    raise ValueError("no frame")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    height, width = struct.unpack_from(">HH", data, _jpeg_frame(data) + 1)
    return width, height


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Tag to its first value, of the short and long tags in the first directory."""
    order = {b"II*\0": "<", b"MM\0*": ">"}[data[:4]]
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags: dict[int, int] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if kind in (3, 4):
            (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
            tags[tag] = max(tags.get(tag, 0), value)  # a tag given twice: believe the worse
    return tags


def _tiff_size(data: bytes) -> tuple[int, int]:
    tags = _tiff_tags(data)
    width, height, tile_width, tile_height = 256, 257, 322, 323
    return max(tags[width], tags.get(tile_width, 0)), max(tags[height], tags.get(tile_height, 0))


# Format: how its files begin, and how to find width and height.
FORMATS: dict[str, tuple[tuple[bytes, ...], Callable[[bytes], tuple[int, int]]]] = {
    "PNG": ((b"\x89PNG\r\n\x1a\n",), _png_size),
    "JPEG": ((b"\xff\xd8\xff",), _jpeg_size),
    "WebP": ((b"RIFF",), _webp_size),
    "TIFF": ((b"II*\0", b"MM\0*"), _tiff_size),
    "BMP": ((b"BM",), _bmp_size),
    "GIF": ((b"GIF87a", b"GIF89a"), _gif_size),
}


# --- orientation -------------------------------------------------------------------------------------


def _orientation(kind: str, data: bytes) -> int:
    """1 to 8 as Exif has it; 1 (upright) where it says nothing or is damaged. A TIFF the decoder has turned."""
    try:
        return _tiff_tags(_exif(kind, data)).get(274, 1)
    except _BROKEN:
        return 1


def _exif(kind: str, data: bytes) -> bytes:
    """The Exif block, itself a small TIFF; empty where there is none."""
    if kind == "JPEG":
        for marker, start, length in _jpeg_segments(data):
            if marker == 0xE1 and data.startswith(_EXIF, start):
                return data[start + len(_EXIF) : start + length]
    if kind == "PNG":
        for name, start, length in _png_chunks(data):
            if name == b"eXIf":
                return data[start : start + length]
    if kind == "WebP":
        at = 12
        for _ in range(MAX_PARTS):  # name, length, content, padding to an even length
            name, length = struct.unpack_from("<4sI", data, at)
            if name == b"EXIF":
                return data[at + 8 : at + 8 + length].removeprefix(_EXIF)
            at += 8 + length + (length & 1)
    return b""


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


# --- pixels ------------------------------------------------------------------------------------------

_STDERR = threading.Lock()


@contextmanager
def silence() -> Iterator[None]:
    """Send file descriptor 2 nowhere: libpng prints there, past OpenCV's own log level."""
    with _STDERR:
        try:
            kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        except OSError:  # there is no stderr to keep clean
            yield
            return
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def _imdecode(data: bytes) -> np.ndarray | None:
    import cv2

    with silence():
        try:
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            return None


def _flat(pixels: np.ndarray) -> np.ndarray:
    """OpenCV's grey or BGR(A) of 8 or 16 bits -> uint8 grey or RGB; band by band, so that one copy is all it takes."""
    import cv2

    high, wide = pixels.shape[:2]
    planes = 1 if pixels.ndim == 2 else pixels.shape[2]
    if planes == 1 and pixels.dtype == np.uint8:
        return pixels.reshape(high, wide)
    rows = max(1, BAND // wide)
    bands = [slice(top, min(top + rows, high)) for top in range(0, high, rows)]
    out = np.empty((high, wide) if planes == 1 else (high, wide, 3), np.uint8)
    clear = False
    for band in bands:
        part, alpha = _eight(pixels[band]), None
        if planes == 1:
            out[band] = part.reshape(out[band].shape)
            continue
        if planes == 2:  # grey and alpha
            part, alpha = np.dstack([part[..., 0]] * 3), part[..., 1]
        elif planes == 4:
            alpha = part[..., 3]
        out[band] = cv2.cvtColor(np.ascontiguousarray(part[..., :3]), cv2.COLOR_BGR2RGB)
        if alpha is not None and alpha.min() < 255:
            clear = True
            out[band] = _over(out[band], alpha, white=True)
    if clear and np.ptp(out) < HIDDEN:  # white strokes on nothing: white would hide them
        for band in bands:
            part = _eight(pixels[band])
            colour = np.dstack([part[..., 0]] * 3) if planes == 2 else part[..., 2::-1]
            out[band] = _over(np.ascontiguousarray(colour), part[..., -1], white=False)
    return out


def _eight(pixels: np.ndarray) -> np.ndarray:
    """8 bits of 16."""
    import cv2

    if pixels.dtype == np.uint8:
        return pixels
    return cv2.convertScaleAbs(np.ascontiguousarray(pixels), alpha=1 / 257).reshape(pixels.shape)


def _over(colour: np.ndarray, alpha: np.ndarray, *, white: bool) -> np.ndarray:
    """Colour as its alpha shows it over white, or over black."""
    import cv2

    cover = cv2.merge([np.ascontiguousarray(alpha)] * 3)
    if not white:
        return cv2.multiply(colour, cover, scale=1 / 255)
    # Over white, what alpha scales is the distance from white.
    return cv2.bitwise_not(cv2.multiply(cv2.bitwise_not(colour), cover, scale=1 / 255))


def opaque(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] as its alpha [H, W] shows it over white; over black where white would hide everything."""
    if alpha.min() == 255:
        return colour
    over_white = _over(colour, alpha, white=True)
    return over_white if np.ptp(over_white) >= HIDDEN else _over(colour, alpha, white=False)
