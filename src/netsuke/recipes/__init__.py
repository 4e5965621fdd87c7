"""The shipped recipes: TOML files beside this one in an installed package, in `recipes/` of a checkout."""

from __future__ import annotations

import tomllib
from pathlib import Path

from netsuke.errors import OptionError
from netsuke.settings import unknown

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[2] / "recipes"  # src/netsuke/recipes -> the repository's own folder


def shipped() -> dict[str, Path]:
    """Every shipped recipe by its name."""
    folder = HERE if any(HERE.glob("*.toml")) else CHECKOUT
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def title(path: Path) -> str:
    """The line in which a recipe says what it does."""
    return str(tomllib.loads(path.read_text(encoding="utf-8")).get("title", ""))


def find(name: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one. Raises OptionError."""
    known = shipped()
    if name in known:
        return known[name]
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise OptionError(f"{name}: there is no such recipe file")
    raise OptionError(unknown(name, known, "recipe"))
