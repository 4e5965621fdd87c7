"""`netsuke read`: the digit in each image file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from netsuke.artifact import Artifact
    from netsuke.reader import Reader


def read(
    files: Annotated[list[str], typer.Argument(help="Image files; - reads one from stdin.")],
    model: Annotated[
        str | None, typer.Option(help="A .netsuke file or a shipped model; digit-small if not given.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Read the one handwritten digit in each image file: digit, confidence, runner-up.

    Any common format, size, polarity and orientation; a file that cannot be read is named, and the rest go on.

    Example: netsuke read photo.jpg scan.png --json
    """
    from netsuke.cli import console
    from netsuke.reader import Reader

    reader = Reader(_artifact(model), backend="packaged")
    document = []
    for file in files:
        entry = _entry(reader, file)
        if "error" in entry:
            console.note(f"netsuke: {entry['error']}")
        elif not json:
            print(f"{file}: {_line(entry['results'])}", flush=True)
        document.append(entry)
    if json:
        console.print_json(document)
    if any("error" in entry for entry in document):
        raise typer.Exit(2)


def _artifact(model: str | None) -> Artifact | None:
    """A file before a shipped model of the same name; None for the reader's own default."""
    from netsuke import zoo
    from netsuke.artifact import Artifact

    if model is None:
        return None
    named = model in zoo.names() and not Path(model).is_file()
    return Artifact.load(zoo.path(model) if named else model)


def _entry(reader: Reader, file: str) -> dict[str, Any]:
    """What --json says of one file; `results` is empty where the paper is blank."""
    from netsuke.errors import DataError
    from netsuke.image import MAX_BYTES

    try:
        reading = reader.read(sys.stdin.buffer.read(MAX_BYTES + 1) if file == "-" else file)
    except DataError as error:
        return {"file": file, "results": [], "error": str(error)}
    return {"file": file, "results": [] if reading.blank else [reading.to_json()]}


def _line(results: list[dict[str, Any]]) -> str:
    if not results:
        return "blank"
    digit = results[0]["digits"][0]
    second = f"{digit['runner_up']} at {digit['runner_up_confidence']:.1%}"
    return f"{digit['digit']}  {digit['confidence']:.1%} sure, then {second}"
