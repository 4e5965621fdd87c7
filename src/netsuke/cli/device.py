"""`netsuke bench --device`: what a model takes on a microcontroller, by its emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def devices(path: Path, names: str, json: bool) -> None:
    """Build and run on every device of a comma list, and print the rows.

    A device that cannot run the model is named on stderr; where none can, its reason is the error.
    """
    from netsuke.artifact import Artifact
    from netsuke.bench import device
    from netsuke.cli import console
    from netsuke.errors import NetsukeError

    wanted = list(dict.fromkeys(device.device(name.strip())[0] for name in names.split(",")))
    model = Artifact.load(path)
    rows, absent = [], []
    with console.progress("bench", len(wanted)) as bar:
        for name in wanted:
            try:
                rows.append(device.emulated(model, name))
            except NetsukeError as error:
                if len(wanted) == 1:
                    raise
                absent.append({"device": name, "reason": str(error)})
            bar.advance(1, name)
    for row in absent:
        console.note(row["reason"])
    if not rows:
        raise NetsukeError("none of these devices can run this model")
    if json:
        console.print_json({"artifact": str(path), "results": rows, "absent": absent})
    else:
        show(rows, str(path))


def show(rows: list[dict[str, Any]], title: str) -> None:
    """The rows as a table."""
    from netsuke.cli import console

    def work(row: dict[str, Any]) -> tuple[str, str, str]:
        unit = "instructions" if row["cycles_an_image"] is None else "cycles"
        each, time = row[f"{unit}_a_mac"], row["latency_ms"]
        took = "" if time is None else f"{time:,.1f} ms at {row['clock_hz'] / 1e6:.0f} MHz"
        return f"{row[f'{unit}_an_image']:,} {unit}", "" if each is None else f"{each:.1f}", took

    columns = ("", "core", "an image", "a MAC", "time", "flash bytes", "RAM bytes", "stack bytes")
    bytes_ = ("flash_bytes", "ram_bytes", "stack_bytes")
    cells = [(row["device"], row["core"], *work(row), *(f"{row[key]:,}" for key in bytes_)) for row in rows]
    console.table(title, columns, cells)
