"""Writing what a target makes."""

from __future__ import annotations

from pathlib import Path

from netsuke.errors import ArtifactError
from netsuke.files import write_whole


def place(path: Path, data: bytes) -> None:
    """Write a file whole, and its folder; raises ArtifactError where that cannot be."""
    try:
        write_whole(path, data)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}"
        ) from None
