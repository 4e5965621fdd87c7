"""`netsuke import`: a foreign ONNX classifier as an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    model: Annotated[Path, typer.Argument(help="An .onnx file: one image in, one row of logits out.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write  [default: MODEL.netsuke]")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Class names, separated by commas.")] = None,
    scale: Annotated[
        float | None, typer.Option(help="Factor for pixels of 0..255  [default: 1/255, or 1 for uint8 input]")
    ] = None,
    mean: Annotated[
        str, typer.Option(help="Subtracted after scaling: a number, or one a channel: 0.5,0.4,0.3")
    ] = "0",
    std: Annotated[str, typer.Option(help="Divided by after that: a number, or one a channel.")] = "1",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Turn an ONNX classifier into a .netsuke file; every other verb then takes it.

    A pixel p enters the model as (p * scale - mean) / std: give what its training used.

    Example: netsuke import model.onnx --mean 0.1307 --std 0.3081
    """
    from netsuke import import_onnx
    from netsuke.cli import console
    from netsuke.measure.cost import cost

    names = [name.strip() for name in classes.split(",")] if classes else None
    out = Path(model.stem + ".netsuke") if out is None else out
    artifact = import_onnx.load(
        model, classes=names, scale=scale, mean=numbers("mean", mean), std=numbers("std", std)
    )
    artifact.save(out)
    for note in artifact.manifest["imported"].get("approximated", ()):
        console.note(f"approximated: {note}")
    figures = cost(artifact)
    area = len(artifact.shape) == 3
    document = {
        "artifact": str(out),
        "file_bytes": out.stat().st_size,
        "input_shape": list(artifact.graph.input_shape),
        "input": artifact.manifest["input"],
        "classes": [] if area else list(artifact.classes),
        "output_shape": list(artifact.shape),
        "ops": [op.kind for op in artifact.graph.ops],
        **{key: figures[key] for key in ("parameters", "macs", "size_bytes", "ram_bytes")},
    }
    if json:
        console.print_json(document)
        return
    console.table(
        f"{model} as {out}",
        ("figure", "value"),
        [
            ("input (C, H, W)", "x".join(map(str, artifact.graph.input_shape))),
            ("map", "x".join(map(str, artifact.shape))) if area else ("classes", len(artifact.classes)),
            ("ops", ", ".join(document["ops"])),
            ("size", f"{figures['size_bytes']:,} bytes ({figures['parameters']:,} parameters)"),
            ("working memory", f"{figures['ram_bytes']:,} bytes"),
            ("work", f"{figures['macs']:,} MACs"),
        ],
    )


def numbers(option: str, text: str) -> float | list[float]:
    """One number, or a list of them separated by commas; raises OptionError."""
    from netsuke.errors import OptionError

    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(
            f"--{option} must be a number, or numbers separated by commas; got {text!r}"
        ) from None
    return values[0] if len(values) == 1 else values
