"""`netsuke evaluate`: how right a model is, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    import numpy as np

    from netsuke.artifact import Artifact
    from netsuke.data import Dataset


def evaluate(
    artifact: Annotated[Path, typer.Argument(help="A .netsuke file.")],
    data: Annotated[str, typer.Option(help="A catalogue name or a folder of images.")],
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which part of the data.")] = "test",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure accuracy, loss, precision, recall, F1, confusion and size of a model.

    Example: netsuke evaluate lenet5.netsuke --data mnist
    """
    from netsuke import data as catalogue
    from netsuke.artifact import Artifact
    from netsuke.cli import console

    model = Artifact.load(artifact)
    dataset = fitting(model, catalogue.load(data, need=(split,)).require(split), str(artifact))
    document = measured(model, dataset, split)
    document |= {"artifact": str(artifact), "file_bytes": artifact.stat().st_size}
    if json:
        console.print_json(document)
    else:
        show(document)


def fitting(model: Artifact, dataset: Dataset, name: str) -> Dataset:
    """The data as the model takes them: adapted as its training images were, if its manifest says so.

    Raises DataError where they still do not fit; see `check_fit`.
    """
    from netsuke.data.adapt import as_trained

    dataset = as_trained(dataset, model.manifest.get("adapted"), model.graph.input_shape)
    check_fit(model, dataset, name)
    return dataset


def check_fit(model: Artifact, dataset: Dataset, name: str) -> None:
    """Raise DataError where the model reads other images, or names other classes, than the data has."""
    from netsuke.errors import DataError

    check_shape(model, dataset, name)
    if len(model.classes) != len(dataset.classes):
        raise DataError(
            f"{name} knows {len(model.classes)} classes; {dataset.name} has {len(dataset.classes)}"
        )


def check_shape(model: Artifact, dataset: Dataset, name: str) -> None:
    """Raise DataError where the model reads other images than the data has."""
    from netsuke.errors import DataError

    if model.graph.input_shape != dataset.image_shape:
        takes, has = ("x".join(map(str, shape)) for shape in (model.graph.input_shape, dataset.image_shape))
        raise DataError(f"{name} takes {takes} images (C, H, W); {dataset.name} has {has}")


def measured(model: Artifact, dataset: Dataset, split: str) -> dict[str, Any]:
    """The document that --json prints, but for what the file system knows.

    Accuracy is that over images of a class. Of a model that may stay silent, and of data with outliers,
    `rejection` says what is kept and what is accepted.
    """
    from netsuke.engine import Engine
    from netsuke.measure import accuracy, cost

    part = getattr(dataset, split)
    logits = Engine(model, backend="packaged").run(part.images)
    silent = "reject" in model.manifest or part.outliers(len(model.classes))
    return {
        "data": dataset.name,
        "split": split,
        "classes": list(dataset.classes),
        **accuracy.evaluate(accuracy.scaled(model, logits), part.labels, dataset.classes),
        **({"rejection": _rejection(model, logits, part.labels)} if silent else {}),
        **cost.cost(model),
    }


def _rejection(model: Artifact, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    from netsuke.measure.rejection import judged
    from netsuke.reader.confidence import probabilities, rejection

    chosen = rejection(model)
    return judged(probabilities(model, logits), labels, chosen["threshold"] if chosen else 0.0)


def rejected(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Rows that say what a threshold keeps and accepts."""
    what = {
        "kept": ("kept", "images of a class"),
        "errors": ("wrong of the kept", "images"),
        "accepted": ("outliers accepted", "outliers"),
    }
    rows = []
    for key, (name, of) in what.items():
        if found and (one := found[key]):
            low, high = one["interval"]
            rows.append((name, f"{one['share']:.2%} of {one['n']:,} {of} (95 %: {low:.2%} to {high:.2%})"))
    return [("threshold", f"{found['threshold']:.4f}"), *rows] if found else []


def show(document: dict[str, Any]) -> None:
    """The document as tables."""
    from netsuke.cli import console

    d = document
    console.table(
        f"{d['artifact']} on {d['data']} {d['split']}",
        ("figure", "value"),
        [
            ("accuracy", f"{d['accuracy']:.2%} ({d['errors']} of {d['n']} wrong)"),
            ("loss", f"{d['loss']:.4f} nats"),
            *rejected(d.get("rejection")),
            ("size", f"{d['size_bytes']:,} bytes ({d['parameters']:,} parameters)"),
            *(
                [("entropy coded", f"{d['encoded_bytes']:,} bytes with the decoder")]
                if "encoding" in d
                else []
            ),
            ("working memory", f"{d['ram_bytes']:,} bytes"),
            ("work", f"{d['macs']:,} MACs"),
        ],
    )
    shares = ("precision", "recall", "f1")
    rows = [(r["class"], *(f"{r[s]:.4f}" for s in shares), r["support"]) for r in d["per_class"]]
    rows += [
        (f"{mean} average", *(f"{d[mean][s]:.4f}" for s in shares), d["n"]) for mean in ("macro", "weighted")
    ]
    console.table("Per class", ("class", *shares, "support"), rows)
    console.table(
        "Confusion: true class in rows, predicted in columns",
        ("", *d["classes"]),
        [(name, *(n or "·" for n in row)) for name, row in zip(d["classes"], d["confusion"], strict=True)],
    )
