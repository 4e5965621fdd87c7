"""Files of several pages, page by page: a TIFF's directories, a PDF's pages; any other image is one page.

One page is in memory at a time, and each is held to the same limit of pixels as an image.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from netsuke.errors import DataError, MissingExtra
from netsuke.image.files import MAX_PIXELS, decode, format_of, load

DPI = 200  # of a rendered PDF page: a digit of 4 mm is 31 pixels high
MAX_PAGES = 10_000  # of a file
_POINTS = 72  # an inch, in a PDF's units
_PDF = b"%PDF-"
_JUNK = 1024  # bytes that may stand before a PDF's first


def pages(source: Any, *, name: str = "image") -> Iterator[np.ndarray]:
    """Every page of a file, or of its bytes, as uint8 [H, W] or RGB [H, W, 3]; see `decode` for what an image becomes.

    Raises DataError where the file or a page cannot be read, MissingExtra for a PDF without pypdfium2.
    """
    name, data = load(source, name)
    for number in range(1, count(data, name=name) + 1):
        yield page(data, number, name=name)


def count(data: bytes, *, name: str = "image") -> int:
    """How many pages a file holds; 1 for what is no TIFF and no PDF, image or not.

    Raises DataError for a damaged PDF, one with a password, or over MAX_PAGES; MissingExtra as `pages`.
    """
    if is_pdf(data):
        with _opened(data, name) as document:
            found = len(document)
    else:
        found = max(1, len(_directories(data)))
    if not 1 <= found <= MAX_PAGES:
        raise DataError(f"{name}: {found} pages; the limit is {MAX_PAGES}")
    return found


def page(data: bytes, number: int, *, name: str = "image") -> np.ndarray:
    """Page `number`, from 1, of a file's bytes. Raises DataError and MissingExtra as `pages` does."""
    if is_pdf(data):
        with _opened(data, name) as document:
            return _render(document, number, name)
    if number == 1:
        return decode(data, name=name)
    starts = _directories(data)
    if not 1 <= number <= len(starts):
        raise DataError(f"{name}: it has {max(1, len(starts))} pages; there is no page {number}")
    order = "<" if data[:2] == b"II" else ">"
    # A decoder starts at the directory that the header names: let it name this one.
    turned = data[:4] + struct.pack(order + "I", starts[number - 1]) + data[8:]
    return decode(turned, name=f"{name}, page {number}")


def is_pdf(data: bytes) -> bool:
    """Whether a file says that it is a PDF: at its start, or behind a little junk, as readers allow."""
    return format_of(data) is None and _PDF in data[: _JUNK + len(_PDF)]


def _directories(data: bytes) -> list[int]:
    """Where each page's directory starts in a TIFF, in order; a damaged chain ends where it breaks."""
    if format_of(data) != "TIFF":
        return []
    order = "<" if data[:2] == b"II" else ">"
    starts: list[int] = []
    seen: set[int] = set()
    at = 4
    try:
        for _ in range(MAX_PAGES + 1):
            (start,) = struct.unpack_from(order + "I", data, at)
            if start == 0 or start in seen:  # the end, or a loop
                break
            (entries,) = struct.unpack_from(order + "H", data, start)
            starts.append(start)
            seen.add(start)
            at = start + 2 + 12 * entries
    except struct.error:
        pass
    return starts


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Any]:
    try:
        import pypdfium2
    except ImportError:
        raise MissingExtra(f"{name}: a PDF needs pypdfium2: pip install 'netsuke[pdf]'") from None
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        reason = "needs a password" if "password" in str(error).lower() else "truncated or damaged"
        raise DataError(
            f"{name}: PDF {reason}; save it again without one"
            if "pass" in reason
            else f"{name}: {reason} PDF file"
        ) from None
    try:
        yield document
    finally:
        document.close()


def _render(document: Any, number: int, name: str) -> np.ndarray:
    """A page at DPI, or as finely as MAX_PIXELS lets a large one be, as RGB [H, W, 3]."""
    import pypdfium2

    if not 1 <= number <= len(document):
        raise DataError(f"{name}: it has {len(document)} pages; there is no page {number}")
    try:
        sheet = document[number - 1]
        width, height = sheet.get_size()
        if not (width > 0 and height > 0):
            raise DataError(f"{name}: page {number} is {width:g}x{height:g} points")
        scale = min(DPI / _POINTS, (MAX_PIXELS / (width * height)) ** 0.5 * 0.999)
        bitmap = sheet.render(scale=scale, rev_byteorder=True)
        pixels = np.array(bitmap.to_numpy()[..., :3])
        bitmap.close()
        sheet.close()
    except pypdfium2.PdfiumError:
        raise DataError(f"{name}: page {number} is damaged") from None
    return pixels
