"""Artifacts that ship inside the package, each with its record."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from netsuke.errors import OptionError

_SUFFIX = ".netsuke"


def names() -> tuple[str, ...]:
    """The shipped artifacts, in alphabetical order."""
    found = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)))


def path(name: str) -> Path:
    """The file of a shipped artifact. Raises OptionError, listing what there is, for another name."""
    if name not in names():
        raise OptionError(f"no shipped model is named {name!r}; there is {', '.join(names()) or 'none yet'}")
    return Path(str(files(__name__) / f"{name}{_SUFFIX}"))


def file(given: str | Path) -> Path:
    """The file of that path or, where there is none, of the shipped artifact of that name.

    Raises OptionError, listing what ships, where there is neither.
    """
    here = Path(given)
    if str(given) in names() and not here.is_file():
        return path(str(given))
    if not os.path.exists(here):
        raise OptionError(
            f"{given}: does not exist, and no shipped model is called so; there is {', '.join(names())}"
        )
    return here


def record(name: str) -> dict[str, Any]:
    """What was measured of a shipped artifact's recipe over several seeds: the record that made it."""
    return json.loads(path(name).with_suffix(".json").read_text(encoding="utf-8"))


def card(name: str) -> str:
    """The model card, Markdown: data, licence, figures, limits (Mitchell et al., 2019); "" where there is none."""
    file = path(name).with_suffix(".md")
    return file.read_text(encoding="utf-8") if file.is_file() else ""
