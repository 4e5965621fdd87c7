"""What every page has around it: its head, which lets nothing be fetched, and how it is written."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from netsuke.errors import NetsukeError
from netsuke.files import write_whole
from netsuke.measure.page.markup import Markup, tag


def resource(name: str) -> Markup:
    """A file of this package."""
    return Markup(files(__package__).joinpath(name).read_text("utf-8"))


def head(title: object, script: str | None = None) -> Markup:
    """The head of a page. Its policy lets `script` run and nothing be fetched, whatever a name in the data holds."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        digest = base64.b64encode(hashlib.sha256(resource(script).encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", resource("style.css")),
    )


def save(page: str, path: str | Path) -> None:
    """Write a page in one step; raises NetsukeError where it cannot be written."""
    path = Path(path)
    data = page.encode("utf-8", errors="replace")  # an unpaired surrogate of a file name
    try:
        write_whole(path, data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NetsukeError(
            f"{path}: the report cannot be written: {reason}; name a file in a folder that takes files"
        ) from None
