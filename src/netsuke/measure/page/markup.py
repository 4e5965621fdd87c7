"""HTML and SVG from Python, escaped by default: only what `tag` made counts as markup."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable
from typing import Any


class Markup(str):
    """Text that is markup already; every other text is escaped where it enters a tag."""


VOID = frozenset({"meta", "link", "br"})


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """`tag("td", text, class_="n", data_m=3)`: children None are left out, lists are taken apart.

    In the names of attributes a trailing `_` falls away and `_` becomes `-`; None leaves one out.
    """
    head = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{head}>")
    return Markup(f"<{name}{head}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """The children one after the other, escaped where they are not markup."""
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, Iterable) and not isinstance(child, str):
            parts.append(join(*child))
        else:
            parts.append(html.escape(_text(child)))
    return Markup("".join(parts))


def _text(value: object) -> str:
    """Coordinates to a tenth of a pixel, everything else as it prints; no NUL, which HTML cannot hold."""
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return str(value).replace("\0", "\ufffd")


def embedded(document: Any) -> Markup:
    """JSON that can stand in a script element: no `<`, so neither `</script>` nor `<!--` can end it."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def finite(value: Any) -> Any:
    """The same JSON value with null for NaN and infinity, which JSON cannot spell."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
