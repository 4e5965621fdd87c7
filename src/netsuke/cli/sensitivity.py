"""`netsuke sensitivity`: what each layer alone can bear."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from netsuke.lab.sensitivity import Row, Sensitivity

SCHEMA = 1


def sensitivity(
    artifact: Annotated[Path, typer.Argument(help="A float .netsuke file.")],
    data: Annotated[
        str, typer.Option(help="What it was trained on: a catalogue name or a folder of images.")
    ],
    widths: Annotated[
        str, typer.Option(help="Widths of the weights to try, in bits, or none.")
    ] = "8,7,6,5,4,3,2,1",
    ratios: Annotated[
        str, typer.Option(help="Shares of weights and of channels to prune, or none.")
    ] = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95",
    images: Annotated[int, typer.Option(help="How many validation images to judge on, at most.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the images that are drawn.")] = 0,
    html: Annotated[Path | None, typer.Option(help="Write a heat map, readable offline.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Change each layer alone, to every width and pruning ratio, and measure what the accuracy does.

    Example: netsuke sensitivity lenet5.netsuke --data mnist --html sensitivity.html
    """
    from netsuke import data as catalogue
    from netsuke.artifact import Artifact
    from netsuke.cli import console, evaluate, options
    from netsuke.errors import OptionError
    from netsuke.graph.floats import DYNAMIC, WEIGHT_ONLY

    model = Artifact.load(artifact)
    tried = numbers(widths, "widths", int), numbers(ratios, "ratios", float)
    if html is not None:
        options.check_out(html)
    dataset = evaluate.fitting(model, catalogue.load(data, need=("val",)), str(artifact))
    if model.graph.integer or any(op.kind in WEIGHT_ONLY | DYNAMIC for op in model.graph.ops):
        raise OptionError(f"{artifact} is quantised already; give the float model it came from")
    from netsuke.lab import sensitivity as study
    from netsuke.lab.modules import FloatGraph

    module = FloatGraph(model.graph, model.tensors)
    with console.progress("sensitivity", 1) as bar:
        found = study.sensitivity(
            module, dataset, widths=tried[0], ratios=tried[1], images=images, seed=seed, progress=bar.advance
        )
    document = documented(found, str(artifact), dataset.name)
    if html is not None:
        from netsuke.measure.page import heat

        heat.write(document, html)
        console.note(f"wrote {html}")
    if json:
        console.print_json(document)
    else:
        show(found, document)


def numbers(text: str, what: str, kind: type) -> list[Any]:
    """`8,4,2`, or nothing for `none`; each once."""
    from netsuke.errors import OptionError

    if text.strip() in ("", "none"):
        return []
    try:
        return list(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        raise OptionError(
            f"--{what} takes numbers, as in {'8,4,2' if kind is int else '0.5,0.9'}; got {text!r}"
        ) from None


def documented(found: Sensitivity, artifact: str, data: str) -> dict[str, Any]:
    """What --json prints."""
    from netsuke.lab.carve import versions

    document = found.to_json()
    baseline = {"accuracy": document.pop("accuracy"), "loss": document.pop("loss")}
    return {
        "schema": SCHEMA, "artifact": artifact, "data": data, "baseline": baseline, **document, "versions": versions(),
    }  # fmt: skip


def show(found: Sensitivity, document: dict[str, Any]) -> None:
    """A table a technique: how many points of accuracy each change costs."""
    from netsuke.cli import console
    from netsuke.measure.page.heat import TECHNIQUES, points

    console.table(
        f"{document['artifact']} on {document['data']} {found.split}",
        ("figure", "value"),
        [("accuracy", f"{found.accuracy:.2%} of {found.n:,}"), ("loss", f"{found.loss:.4f} nats")],
    )
    for technique, (heading, level_text, _) in TECHNIQUES.items():
        layers = found.of(technique)
        if not layers:
            continue
        levels = sorted({level for rows in layers.values() for level in rows}, reverse=technique == "bits")
        rows = [
            (name, next(iter(own.values())).kind, *(_cell(own.get(level), points) for level in levels))
            for name, own in layers.items()
        ]
        title = (
            f"{heading}: points of accuracy, from {found.accuracy:.2%} on {found.n:,} {found.split} images"
        )
        console.table(title, ("layer", "kind", *(level_text.format(level) for level in levels)), rows, left=2)


def _cell(row: Row | None, points: Any) -> str:
    return "–" if row is None else points(row.fall)
