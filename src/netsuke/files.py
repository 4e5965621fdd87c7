"""Files written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write beside `path` under another name, then rename: it holds all of `data`, or what it held before.

    A link is followed; a device or a pipe is written to as it is. Makes the folder. Raises OSError, or ValueError for a
    name that cannot be one; nothing is left behind.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(data)
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:  # an interrupt leaves nothing either
        temporary.unlink(missing_ok=True)
        raise
