"""Where files of the catalogue lie, and how missing ones are fetched: resumed, checked, placed in one move."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from netsuke.cache import cache_folder
from netsuke.data.catalogue import CATALOGUE, File
from netsuke.errors import DataError

Report = Callable[[str, int, int], None]  # name of the file, bytes there, bytes in all

TIMEOUT_S = 20.0
ATTEMPTS = 4  # at one mirror, each going on where the last one broke off
PIECE = 1 << 16


def locate(name: str, file: File) -> Path | None:
    """The file of set `name` in $NETSUKE_DATA or the cache; None where neither has it."""
    roots = [Path(root) for root in (os.environ.get("NETSUKE_DATA"),) if root] + [cache_folder()]
    for root in roots:
        for folder in (name, *CATALOGUE[name].folders):
            if (root / folder / file.name).is_file():
                return root / folder / file.name
    return None


def ensure(name: str, file: File, report: Report | None = None) -> Path:
    """The file of set `name`, downloaded to the cache if need be.

    Raises DataError that says which file is missing and where to put it.
    """
    found = locate(name, file)
    if found:
        return found
    path = cache_folder() / name / file.name
    try:
        if not file.urls:
            raise DataError("it has no address to download from")
        return fetch(file, path, report or to_stderr)
    except DataError as error:
        raise DataError(
            f"{name} needs {file.name}, {error}; put it at {path}, "
            f"or set NETSUKE_DATA to a folder that holds {name}/{file.name}"
        ) from error


def fetch(file: File, path: Path, report: Report) -> Path:
    """Download `file` to `path` from the first mirror that has it.

    A broken transfer leaves `path` + ".part", from which the next call goes on. Raises DataError with the
    last reason; a file with a wrong check sum is deleted.
    """
    part = path.with_name(path.name + ".part")
    reason = ""
    for url in file.urls:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _transfer(url, file, part, report)
            os.replace(part, path)
            return path
        except (OSError, http.client.HTTPException, DataError) as error:  # URLError is an OSError
            reason = f"{url}: {getattr(error, 'reason', None) or error}"
    raise DataError(f"the download failed ({' '.join(reason.split())})")


def _transfer(url: str, file: File, part: Path, report: Report) -> None:
    """Complete `part` from `url` and check it. Raises OSError, HTTPException or DataError."""
    for attempt in range(ATTEMPTS):
        resumed = part.exists()
        try:
            _append(url, file, part, report)
        except (OSError, http.client.HTTPException):
            if attempt == ATTEMPTS - 1 or not part.exists():  # not one byte came: this mirror is of no use
                raise
            continue
        if part.stat().st_size < file.size:
            continue  # the connection closed early
        if _sha256(part) == file.sha256:
            return
        part.unlink()
        if not resumed:  # a resumed part may have been spoilt before; from scratch it is the mirror
            break
    if part.exists():
        raise DataError(f"it broke off at {part.stat().st_size} of {file.size} bytes")
    raise DataError("wrong check sum, so it was deleted")


def _append(url: str, file: File, part: Path, report: Report) -> None:
    """One request for what is still missing of `part`."""
    start = part.stat().st_size if part.exists() else 0
    if start >= file.size:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "netsuke", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        if start and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            start = 0  # the server sends the whole file again
        with open(part, "ab" if start else "wb") as out:
            while start <= file.size and (piece := answer.read(PIECE)):  # an endless answer is cut off
                out.write(piece)
                start += len(piece)
                report(file.name, start, file.size)


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def to_stderr(name: str, done: int, total: int) -> None:
    """Progress as one line that rewrites itself, on a terminal; elsewhere one line at the end."""
    live = sys.stderr.isatty()
    if live or done >= total:
        end = "\n" if done >= total else "\r"
        print(f"{name}: {done / 1e6:.1f} of {total / 1e6:.1f} MB", end=end, file=sys.stderr, flush=True)
