"""`netsuke bench`: how fast a model answers on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from netsuke.artifact import Artifact


def bench(
    artifact: Annotated[Path, typer.Argument(help="A .netsuke file.")],
    seconds: Annotated[float, typer.Option(min=0.01, max=600, help="How long to time each figure.")] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Time single images and batches of 256 on every installed backend, one thread each.

    Example: netsuke bench digits.netsuke --json
    """
    from netsuke.artifact import Artifact
    from netsuke.cli import console
    from netsuke.measure.latency import hardware

    model = Artifact.load(artifact)
    results, absent = timed(model, seconds)
    for row in absent:
        console.note(f"{row['backend']}: {row['reason']}")
    if json:
        console.print_json(
            {"artifact": str(artifact), "hardware": hardware(), "results": results, "absent": absent}
        )
        return
    rows = [
        (
            row["backend"],
            *(f"{row[key]:,.1f}" for key in ("latency_us", "p99_us", "min_us")),
            row["n"],
            f"{row['images_per_s']:,.0f}",
        )
        for row in results
    ]
    columns = ("backend", "median µs", "p99 µs", "min µs", "n", "images/s at 256")
    console.table(f"{artifact} on {hardware()}", columns, rows)


def timed(model: Artifact, seconds: float) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The figures of every backend that can run the model, and why the others cannot."""
    import numpy as np

    from netsuke.engine import BACKENDS, Engine
    from netsuke.errors import NetsukeError
    from netsuke.measure.latency import latency

    images = np.random.default_rng(0).integers(0, 256, (256, *model.graph.input_shape), np.uint8)
    results, absent = [], []
    for name in BACKENDS:
        try:
            engine = Engine(model, backend=name)
        except NetsukeError as error:
            absent.append({"backend": name, "reason": str(error)})
            continue
        results.append({"backend": name, **latency(engine, images, seconds=seconds)})
    return results, absent
