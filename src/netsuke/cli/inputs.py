"""What `read` and `evaluate --images` are given: files, folders, patterns, stdin; in order, each page a task."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from netsuke.data.folders import natural
from netsuke.errors import DataError, MissingExtra, OptionError

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".pdf",
)  # looked for in folders
PAGED = (b"II*\0", b"MM\0*")  # a TIFF's first bytes
STDIN = "-"


@dataclass(frozen=True)
class Source:
    """A file as the user may call it; `inside` is where it lay in the folder that was named."""

    name: str
    inside: str
    error: str = ""
    camera: str | None = None


@dataclass(frozen=True)
class Task:
    """One page to read: `page` counts from 1, None where the file has no pages; a Task with `error` cannot be read."""

    name: str
    inside: str
    page: int | None = None
    pages: int = 1
    error: str = ""
    data: bytes | None = None  # of stdin
    camera: str | None = None

    @property
    def label(self) -> str:
        return self.name if self.page is None else f"{self.name}, page {self.page}"


def sources(names: Iterable[str]) -> list[Source]:
    """Every file that the names stand for: folders and patterns sorted by name, numbers in it by value.

    A name that leads to nothing becomes a Source with an `error`. Raises OptionError where stdin stands twice, and for
    an empty name.
    """
    found: list[Source] = []
    for name in names:
        if not name:
            raise OptionError("an empty name is no file; name images or a folder, such as . for this one")
        path = Path(name)
        if name == STDIN:
            if any(source.name == STDIN for source in found):
                raise OptionError("- (stdin) stands twice; it can be read once")
            found.append(Source(STDIN, "stdin"))
        elif _is_folder(path):
            inner = [Source(str(file), str(file.relative_to(path))) for file in _walk(path)]
            found += inner or [
                Source(name, name, f"{name}: no image in it; netsuke reads {', '.join(SUFFIXES)}")
            ]
        elif glob.has_magic(name) and not path.exists():
            matches = sorted(filter(os.path.isfile, glob.iglob(name, recursive=True)), key=natural)
            found += [Source(match, os.path.basename(match)) for match in matches] or [
                Source(name, name, f"{name}: no file is called like this")
            ]
        else:
            found.append(Source(name, path.name))
    return found


def tasks(source: Source) -> Iterator[Task]:
    """The pages of a source; what cannot be opened is one Task with its `error`."""
    from netsuke.image import MAX_BYTES, files, paged

    if source.error:
        yield Task(source.name, source.inside, error=source.error)
        return
    if source.camera is not None:
        yield Task(source.name, source.inside, camera=source.camera)
        return
    data: bytes | None
    try:
        if source.name == STDIN:
            data = files.load(sys.stdin.buffer.read(MAX_BYTES + 1), "stdin")[1]
            count = paged.count(data, name="stdin")
        else:
            data, count = None, _count(source.name)
    except (DataError, MissingExtra) as error:
        yield Task(source.name, source.inside, error=str(error))
        return
    for page in range(1, count + 1):
        yield Task(source.name, source.inside, page if count > 1 else None, count, data=data)


def _count(name: str) -> int:
    """Pages of a file, looked for only where its first bytes allow some."""
    from netsuke.image import files, paged

    try:
        with open(name, "rb") as file:
            start = file.read(2048)
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
    if not start.startswith(PAGED) and not paged.is_pdf(start):
        return 1
    return paged.count(files.load(name)[1], name=name)


def _walk(folder: Path) -> Iterator[Path]:
    """Images in a folder and below; what is hidden stays hidden, and no link to a folder is followed."""
    for root, below, names in os.walk(folder):
        below[:] = sorted((name for name in below if not name.startswith(".")), key=natural)
        for name in sorted(names, key=natural):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield Path(root, name)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
