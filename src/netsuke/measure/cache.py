"""Answers that took long, kept as JSON files, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import netsuke
from netsuke.files import write_whole


class Cache:
    """Answers that took long, as JSON files in a folder, so that a killed comparison goes on; None keeps none."""

    def __init__(self, folder: Path | None):
        self.folder = folder

    def get(self, kind: str, key: Sequence[Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The answer for `key` (plain JSON), made and kept where there is none; a damaged file is made anew."""
        if self.folder is None:
            return make()
        digest = sha256(json.dumps([netsuke.__version__, *key]).encode()).hexdigest()[:24]
        path = self.folder / f"{kind}-{digest}.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, dict):
                return found
        except (OSError, ValueError):
            pass
        answer = make()
        write_whole(path, json.dumps(answer).encode())
        return answer
