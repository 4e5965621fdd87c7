"""`netsuke export`: a model as files that other runtimes and compilers take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from netsuke.artifact import Artifact

FILES = {"c": (".c", ".h"), "onnx": (".onnx",), "tflite": (".tflite",)}  # what each target writes
FIGURES = ("flash_bytes", "ram_bytes", "macs")
TOLERANCE = 1e-4  # of float logits; integer logits must be equal


def export(
    artifact: Annotated[Path, typer.Argument(help="A .netsuke file.")],
    to: Annotated[str, typer.Option(help=f"Targets, separated by commas: {', '.join(FILES)}.")] = "c",
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write into.")] = Path("."),
    verify: Annotated[
        str | None, typer.Option(help="Compare logits on the test images of this data, name or folder.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write a model as C99, which needs nothing, as ONNX, for most runtimes, or as TFLite (float models), for phones.

    The files are named after the artifact. Verifying runs what was written; a difference exits with 1.

    Example: netsuke export small.netsuke --to c,onnx -o out/ --verify mnist
    """
    from netsuke.artifact import Artifact
    from netsuke.cli import console

    targets = chosen(to)
    model = Artifact.load(artifact)
    images = test_images(verify) if verify else None  # before anything is written
    results = all_written(model, targets, out, artifact.stem)
    if images is not None:
        compare(model, results, images)
    if json:
        console.print_json({"artifact": str(artifact), "verified_on": verify, "exports": results})
    else:
        show(results)
    wrong = [row["target"] for row in results if images is not None and not row["verified"]]
    if wrong:
        console.note(f"the logits of {', '.join(wrong)} differ from the reference; please report this")
        raise typer.Exit(1)


def chosen(to: str) -> list[str]:
    """The target names of a comma list, each once; raises OptionError on one that is unknown."""
    from netsuke.errors import OptionError
    from netsuke.export import TARGETS

    names = list(dict.fromkeys(name.strip() for name in to.split(",")))
    for name in names:
        if name not in TARGETS:
            raise OptionError(f"unknown target {name!r}; choose from {', '.join(TARGETS)}")
    return names


def test_images(name: str) -> np.ndarray:
    from netsuke import data

    return data.load(name).require("test").test.images


def all_written(model: Artifact, targets: list[str], out: Path, name: str) -> list[dict[str, Any]]:
    """Every target or none: the files are made in a folder of their own, then moved."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        return _moved(model, targets, out, name)
    except BaseException:
        if new:
            with suppress(OSError):
                out.rmdir()
        raise


def _moved(model: Artifact, targets: list[str], out: Path, name: str) -> list[dict[str, Any]]:
    import os
    import tempfile

    with tempfile.TemporaryDirectory(dir=out, prefix=".netsuke-") as made:
        results = [written(model, target, Path(made), name) for target in targets]
        for row in results:
            row["path"] = str(out / Path(row["path"]).name)
            for file in row["files"]:
                moved = out / Path(file["file"]).name
                os.replace(file["file"], moved)
                file["file"] = str(moved)
    return results


def written(model: Artifact, target: str, folder: Path, name: str) -> dict[str, Any]:
    """Export once; what --json prints of it."""
    from netsuke.export import TARGETS

    path = TARGETS[target].write(model, folder, name)
    files = [path.with_suffix(suffix) for suffix in FILES[target]]
    row: dict[str, Any] = {
        "target": target,
        "path": str(path),
        "files": [{"file": str(file), "bytes": file.stat().st_size} for file in files],
    }
    if target == "c":
        from netsuke.export.c import figures

        macros = figures(path)
        row |= {key: macros[key.upper()] for key in FIGURES}
    return row


def compare(model: Artifact, results: list[dict[str, Any]], images: np.ndarray) -> None:
    """Run every export; adds `n`, `max_difference` and `verified` to its row."""
    import numpy as np

    from netsuke.cli import console
    from netsuke.export import TARGETS

    want = model.logits(images).astype(np.float64)
    tolerance = 0.0 if model.graph.integer else TOLERANCE
    with console.progress("verify", len(results)) as bar:
        for row in results:
            got = TARGETS[row["target"]].run(row["path"], images)
            gap = np.abs(got - want)
            row["n"], row["max_difference"] = len(images), float(gap.max())
            row["verified"] = bool((gap <= tolerance * np.maximum(1, np.abs(want))).all())
            bar.advance(1, row["target"])


def show(results: list[dict[str, Any]]) -> None:
    """The results as tables."""
    from netsuke.cli import console

    files = [(file["file"], f"{file['bytes']:,}") for row in results for file in row["files"]]
    console.table("Written", ("file", "bytes"), files)
    costs = [(row["target"], *(f"{row[key]:,}" for key in FIGURES)) for row in results if FIGURES[0] in row]
    if costs:
        console.table("On the device", ("target", "flash bytes", "RAM bytes", "MACs"), costs)
    verified = [
        (row["target"], f"{row['n']:,}", f"{row['max_difference']:.3g}", "yes" if row["verified"] else "NO")
        for row in results
        if "n" in row
    ]
    if verified:
        console.table("Against the reference", ("target", "images", "largest difference", "same"), verified)
