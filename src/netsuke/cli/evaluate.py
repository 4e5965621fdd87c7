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
    artifact: Annotated[
        str | None,
        typer.Argument(
            help="A .netsuke file, or the name of a shipped model; with --images the default one if none."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="A catalogue name or a folder of images.")] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which part of the data.")] = "test",
    images: Annotated[
        Path | None,
        typer.Option(help="Read a folder of your own instead: photos, scans, crops in class folders."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="What they say: file,text; labels.csv beside them.")
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="Where digits stand: file,label,x,y,w,h; boxes.csv beside it.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of label PNGs: i on the i-th digit; masks/ beside it.")
    ] = None,
    one: Annotated[
        bool, typer.Option("--one", help="Each image is a crop of one digit; else by its labels.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="Each image is a page; else by its labels.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="How sure a digit must be to be accepted, 0 to 1.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page: figures, curve, every error and why.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes side by side; all cores if not given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure accuracy, loss, precision, recall, F1, confusion and size of a model; or how well it reads your images.

    Example: netsuke evaluate lenet5.netsuke --data mnist

    Example: netsuke evaluate --images scans/ --labels labels.csv --html errors.html
    """
    from netsuke.cli import console
    from netsuke.cli.options import crops
    from netsuke.errors import OptionError

    if (data is None) == (images is None):
        raise OptionError("give --data NAME, or --images FOLDER with labels.csv, and not both")
    if images is not None:
        _read(artifact, images, labels, boxes, masks, crops(one, all_), threshold, html, jobs, json)
        return
    of_images = {
        "labels": labels,
        "boxes": boxes,
        "masks": masks,
        "one": one or None,
        "all": all_ or None,
        "threshold": threshold,
        "html": html,
    }
    if given := [key for key, value in of_images.items() if value is not None]:
        raise OptionError(f"--{given[0]} is of --images: give --images FOLDER instead of --data")
    if artifact is None:
        raise OptionError(
            "which model? name a .netsuke file, such as netsuke evaluate lenet5.netsuke --data mnist"
        )
    document = _classified(Path(artifact), str(data), split)
    if json:
        console.print_json(document)
    else:
        show(document)


def _classified(artifact: Path, data: str, split: str) -> dict[str, Any]:
    from netsuke import data as catalogue
    from netsuke import zoo
    from netsuke.artifact import Artifact

    artifact = zoo.file(artifact)
    model = Artifact.load(artifact)
    dataset = fitting(model, catalogue.load(data, need=(split,)).require(split), str(artifact))
    document = measured(model, dataset, split)
    return document | {"artifact": str(artifact), "file_bytes": artifact.stat().st_size}


def _read(
    model: str | None,
    folder: Path,
    labels: Path | None,
    boxes: Path | None,
    masks: Path | None,
    one: bool | None,
    threshold: float | None,
    html: Path | None,
    jobs: int | None,
    json: bool,
) -> None:
    from netsuke.cli import console, images, options, reading, sharing
    from netsuke.data.labelled import read_labelled
    from netsuke.measure.page import gallery

    if html is not None:
        options.check_out(html)
    truths = read_labelled(folder, labels, boxes, masks)
    single = images.single(truths) if one is None else one
    settings = reading.Settings(
        model=model,
        mode="one" if single else "all",
        threshold=threshold,
        masks=any(truth.mask for truth in truths),
    )
    document = images.evaluate_images(
        truths,
        settings,
        jobs=sharing.cores() if jobs is None else jobs,
        folder=str(folder),
        gallery=html is not None,
    )
    if html is not None:
        gallery.write(document, html)
    for row in document["images"]:
        row.pop("image", None)
    if json:
        console.print_json(document)
    else:
        images.show(document)


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

    classes = model.classes  # a network of another task is told so first
    check_shape(model, dataset, name)
    if len(classes) != len(dataset.classes):
        raise DataError(f"{name} knows {len(classes)} classes; {dataset.name} has {len(dataset.classes)}")


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
