"""`netsuke export`: a model as files that other runtimes and compilers take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from netsuke.artifact import Artifact

FILES = {  # what each target writes
    "c": (".c", ".h"),
    "onnx": (".onnx",),
    "tflite": (".tflite",),
    "wasm": (".wasm", ".simd.wasm", ".js", ".d.ts"),
}
FIGURES = ("flash_bytes", "ram_bytes", "macs")
SWITCH = {"yes": True, "true": True, "no": False, "false": False}
TOLERANCE = 1e-4  # of float logits; integer logits must be equal
TOP1_SHARE = 0.999  # of images whose class must be the same where a runtime may round otherwise


def export(
    artifact: Annotated[Path, typer.Argument(help="A .netsuke file, or the name of a shipped model.")],
    to: Annotated[str, typer.Option(help=f"Targets, separated by commas: {', '.join(FILES)}.")] = "c",
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write into.")] = Path("."),
    verify: Annotated[
        str | None, typer.Option(help="Compare logits on the test images of this data, name or folder.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of a target, as TARGET.NAME=VALUE; may stand several times."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write a model as C99, which needs nothing, ONNX, for most runtimes, TFLite, for phones, or WASM, for the web.

    The files are named after the artifact. Verifying runs what was written; a difference exits with 1.

    Example: netsuke export small.netsuke --to c,onnx,wasm -o out/ --verify mnist
    """
    from netsuke import zoo
    from netsuke.artifact import Artifact
    from netsuke.cli import console

    targets = chosen(to)
    options = set_options(settings or [], targets)
    artifact = zoo.file(artifact)
    model = Artifact.load(artifact)
    images = test_images(verify, model, str(artifact)) if verify else None  # before anything is written
    results = all_written(model, targets, out, artifact.stem, options)
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


def set_options(settings: list[str], targets: list[str]) -> dict[str, dict[str, Any]]:
    """`TARGET.NAME=VALUE` as keyword arguments of each target's `write`.

    Raises OptionError for a target that is not written, an option that it does not have, or a value of another type.
    """
    from netsuke.errors import OptionError
    from netsuke.export import TARGETS

    options: dict[str, dict[str, Any]] = {target: {} for target in targets}
    for text in settings:
        key, equals, value = text.partition("=")
        target, _, name = key.partition(".")
        if not equals or target not in options:
            raise OptionError(
                f"--set takes TARGET.NAME=VALUE with a target of {', '.join(targets)}; got {text!r}"
            )
        known = TARGETS[target].options
        if name not in known:
            raise OptionError(f"{target} has no option {name!r}; it has {', '.join(known) or 'none'}")
        options[target][name] = typed(value, known[name], key)
    return options


def typed(text: str, kind: Any, key: str) -> Any:
    """The value of an option that takes `kind`; raises OptionError for a text that is none."""
    from netsuke.errors import OptionError

    if kind is str:
        return text
    if kind is bool:
        if text not in SWITCH:
            raise OptionError(f"--set {key} is yes or no, true or false; got {text!r}")
        return SWITCH[text]
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"--set {key} is a whole number; got {text!r}") from None


def chosen(to: str) -> list[str]:
    """The target names of a comma list, each once; raises OptionError on one that is unknown."""
    from netsuke.errors import OptionError
    from netsuke.export import TARGETS

    names = list(dict.fromkeys(name.strip() for name in to.split(",")))
    for name in names:
        if name not in TARGETS:
            raise OptionError(f"unknown target {name!r}; choose from {', '.join(TARGETS)}")
    return names


def test_images(name: str, model: Artifact, path: str) -> np.ndarray:
    """The test images as the model takes them; raises DataError where they do not fit."""
    from netsuke import data
    from netsuke.cli.evaluate import check_shape
    from netsuke.data.adapt import as_trained

    dataset = data.load(name, need=("test",)).require("test")
    dataset = as_trained(dataset, model.manifest.get("adapted"), model.graph.input_shape)
    check_shape(model, dataset, path)
    return dataset.test.images


def all_written(
    model: Artifact, targets: list[str], out: Path, name: str, options: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Every target or none: the files are made in a folder of their own, then moved."""
    from netsuke.errors import ArtifactError

    new = not out.exists()
    if not new and not out.is_dir():
        raise ArtifactError(f"{out} is a file; -o names the folder to write into")
    out.mkdir(parents=True, exist_ok=True)
    try:
        return _moved(model, targets, out, name, options)
    except BaseException:
        if new:
            with suppress(OSError):
                out.rmdir()
        raise


def _moved(
    model: Artifact, targets: list[str], out: Path, name: str, options: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    import os
    import tempfile

    from netsuke.errors import ArtifactError

    with tempfile.TemporaryDirectory(dir=out, prefix=".netsuke-") as made:
        try:
            results = [written(model, target, Path(made), name, options[target]) for target in targets]
        except ArtifactError as error:  # of a file by its name here, which the user has not seen
            raise ArtifactError(str(error).replace(made, str(out))) from None
        for row in results:
            for file in row["files"]:
                if (moved := out / Path(file["file"]).name).is_dir():
                    raise ArtifactError(f"{moved} is a folder; a file of that name would be written")
        for row in results:
            row["path"] = str(out / Path(row["path"]).name)
            for file in row["files"]:
                moved = out / Path(file["file"]).name
                os.replace(file["file"], moved)
                file["file"] = str(moved)
    return results


def written(model: Artifact, target: str, folder: Path, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Export once; what --json prints of it."""
    from netsuke.export import TARGETS

    path = TARGETS[target].write(model, folder, name, **options)
    files = [file for suffix in FILES[target] if (file := path.with_suffix(suffix)).exists()]
    row: dict[str, Any] = {"target": target, "path": str(path), "files": [sizes(file) for file in files]}
    if target == "c":
        from netsuke.export.c import figures
        from netsuke.export.flash import flash

        macros = figures(path)
        row |= {key: macros[key.upper()] for key in FIGURES} | {"built": flash(path)}
    if model.graph.integer:
        row["unproved"] = TARGETS[target].unproved(model, **options)
    return row


def sizes(file: Path) -> dict[str, Any]:
    """Bytes of a file and, for a WebAssembly module, of what a server sends and of the memory it asks for."""
    row: dict[str, Any] = {"file": str(file), "bytes": file.stat().st_size}
    if file.suffix == ".wasm":
        from gzip import compress

        from netsuke.export.wasm.build import memory_bytes

        data = file.read_bytes()
        row |= {"gzip_bytes": len(compress(data, 9, mtime=0)), "memory_bytes": memory_bytes(data)}
    return row


def compare(model: Artifact, results: list[dict[str, Any]], images: np.ndarray) -> None:
    """Run every export; adds `n`, `max_difference`, `top1_share` and `verified` to its row.

    Integer logits must be equal, float ones within 1e-4. Where a runtime's rounding of some op is not proved equal
    (`unproved`), logits may be off by a step of an int8 output, the largest over 127, and the class must be the same on
    99.9 % of the images.
    """
    import numpy as np

    from netsuke.cli import console
    from netsuke.export import TARGETS

    want = model.logits(images).astype(np.float64)
    tolerance = 0.0 if model.graph.integer else TOLERANCE
    with console.progress("verify", len(results)) as bar:
        for row in results:
            # A WASM export is two modules; the one that Node.js would not choose runs, too.
            both = any(file["file"].endswith(".simd.wasm") for file in row["files"])
            target = TARGETS[row["target"]]
            got = [target.run(row["path"], images, **how) for how in ({}, {"simd": False})[: 1 + both]]
            gap = np.abs(np.stack(got) - want)
            row["n"], row["max_difference"] = len(images), float(gap.max(initial=0))
            row["top1_share"] = float(np.mean([logits.argmax(1) == want.argmax(1) for logits in got]))
            near = bool((gap <= tolerance * np.maximum(1, np.abs(want))).all())
            step = np.abs(want).max(initial=0) / 127
            close = gap.max(initial=0) <= step and row["top1_share"] >= TOP1_SHARE
            row["verified"] = near or bool(row.get("unproved") and close)
            bar.advance(1, row["target"])


def show(results: list[dict[str, Any]]) -> None:
    """The results as tables."""
    from netsuke.cli import console

    built = next((row["built"] for row in results if row.get("built")), None)
    flash = f"flash bytes ({built['device']} {built['level']})" if built else "flash bytes (constants)"
    rows = [cells(row, file) for row in results for file in row["files"]]
    console.table("Written", ("file", "bytes", "gzipped", flash, "RAM bytes"), rows)
    for row in results:
        if "macs" in row:
            console.note(
                f"{row['macs']:,} MACs an image; {row['flash_bytes']:,} bytes of flash are constants"
            )
    verified = [
        (
            row["target"],
            f"{row['n']:,}",
            f"{row['max_difference']:.3g}",
            f"{row['top1_share']:.2%}",
            "yes" if row["verified"] else "NO",
        )
        for row in results
        if "n" in row
    ]
    if verified:
        columns = ("target", "images", "largest difference", "same class", "verified")
        console.table("Against the reference", columns, verified)


def cells(row: dict[str, Any], file: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table: a file with what it costs on a device, where it is the one that runs there."""
    flash = ram = None
    if file["file"].endswith(".c"):
        flash = (row["built"] or row)["flash_bytes"]
        ram = (row["built"] or row)["ram_bytes"]
    gzipped, ram = file.get("gzip_bytes"), file.get("memory_bytes", ram)
    numbers = (file["bytes"], gzipped, flash, ram)
    return (file["file"], *("" if number is None else f"{number:,}" for number in numbers))
