"""`netsuke reject`: when a model had better stay silent, chosen on validation images for a promise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def reject(
    artifact: Annotated[Path, typer.Argument(help="A .netsuke file that was trained with outliers.")],
    data: Annotated[
        str, typer.Option(help="A set with images of no class, such as handwriting or handwriting:20000.")
    ],
    error: Annotated[
        float | None,
        typer.Option(help="Promise that at most this share of what is kept is wrong, such as 0.01."),
    ] = None,
    accept: Annotated[
        float | None,
        typer.Option(help="Accept at most this share of outliers; 0.005 where neither is given."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The .netsuke file to write, perhaps the same one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Fit a model's temperature and thresholds on validation images, and say what they promise.

    A prediction under the threshold is "unsure", one under the lower threshold "not a digit". Without -o nothing
    is written.

    Example: netsuke reject digits.netsuke --data handwriting --error 0.01 -o digits.netsuke
    """
    from netsuke import data as catalogue
    from netsuke.artifact import Artifact
    from netsuke.cli import console, evaluate, options
    from netsuke.engine import Engine
    from netsuke.errors import DataError
    from netsuke.measure import rejection
    from netsuke.measure.accuracy import scaled

    if out is not None:
        options.check_out(out)
    model = Artifact.load(artifact)
    loaded = catalogue.load(data, need=("val",)).require("val")
    dataset = evaluate.fitting(model, loaded, str(artifact))
    val, classes = dataset.val, len(model.classes)
    if not val.outliers(classes):
        raise DataError(f"{dataset.name} has no images of no class to validate on; handwriting has")
    scores = scaled(model, Engine(model, backend="packaged").run(val.images))
    entry = rejection.reject(scores, val.labels, error=error, accept=accept)
    promise = None
    if error is not None:
        found = rejection.chances(scores, entry["temperature"])
        promise = {"error": error, "bound": rejection.bound(found, val.labels, entry["threshold"])}
    document = {
        "artifact": str(artifact),
        "data": dataset.name,
        "split": "val",
        **rejection.report(scores, val.labels, entry),
        "promise": promise,
        "written": None if out is None else str(out),
    }
    if out is not None:
        model.with_manifest(reject=entry).save(out)
    if json:
        console.print_json(document)
    else:
        _show(document)


def _show(d: dict[str, Any]) -> None:
    from netsuke.cli import console
    from netsuke.cli.evaluate import rejected

    by = d["auroc"]
    console.table(
        f"{d['artifact']} on {d['data']} {d['split']}: {d['n']:,} images, {d['outliers']:,} of no class",
        ("figure", "value"),
        [
            ("temperature", f"{d['temperature']:.4f} (a factor on the logits)"),
            ("calibration error", f"{d['ece']:.4f}, before {d['ece_before']:.4f}"),
            (
                "classes told from outliers",
                f"AUROC {by['probability']:.5f} by probability, {by['energy']:.5f} by energy",
            ),
            *rejected(d["at_threshold"]),
            *([("promise", _promise(d["promise"]))] if d["promise"] else []),
            ("unsure from", f"{d['unsure']:.4f}"),
        ],
    )
    rows = [
        (f"{level:g}", f"{kept:.2%}", f"{wrong:.3%}", f"{passed:.3%}")
        for level, wrong, kept, passed in d["curve"]
    ]
    console.table("Accuracy against coverage", ("threshold", "kept", "wrong of the kept", "accepted"), rows)
    if d["written"]:
        console.note(f"wrote {d['written']}; next: netsuke read PHOTO --model {d['written']}")
    else:
        console.note("nothing written; -o FILE keeps the temperature and the thresholds in a model")


def _promise(promise: dict[str, float]) -> str:
    return f"of the kept at most {promise['error']:.3%} wrong; proven {promise['bound']:.3%}, with 95 % confidence"
