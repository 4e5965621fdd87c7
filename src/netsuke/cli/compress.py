"""`netsuke compress`: any model made smaller, by one step or by a recipe of many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netsuke.cli import flags

if TYPE_CHECKING:
    from netsuke.artifact import Artifact
    from netsuke.data import Dataset
    from netsuke.lab.recipe import Recipe


def compress(
    source: Annotated[
        str | None,
        typer.Argument(help="A .netsuke or .onnx file, or a model of the zoo, which is trained first."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="What it was trained on: a catalogue name or a folder of images.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The .netsuke file to write.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A TOML file, or a shipped recipe: see --list.")] = None,
    prune: Annotated[float | None, typer.Option(help="Prune: the share that goes, such as 0.8.")] = None,
    structured: Annotated[
        bool, typer.Option("--structured", help="With --prune: whole channels, which really go.")
    ] = False,
    multiple: Annotated[
        int | None,
        typer.Option(help="With --structured: leave multiples of so many channels; 8 suits most runtimes."),
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="Prune N of every M weights: 2:4")] = None,
    importance: Annotated[
        str | None, typer.Option(help="With --prune: what ranks, such as magnitude, taylor, l1.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="With --prune: rounds of pruning and training.")] = None,
    bits: Annotated[
        int | None, typer.Option(help="Quantise to integers; width of the weights, 1 to 8.")
    ] = None,
    share: Annotated[int | None, typer.Option(help="Share 2^N values a layer, by k-means.")] = None,
    factorise: Annotated[
        float | None, typer.Option(help="Split layers into low rank; the share of energy that stays.")
    ] = None,
    weight_only: Annotated[
        int | None, typer.Option(help="Quantise weights alone, 2 to 8 bits; float arithmetic.")
    ] = None,
    dynamic: Annotated[
        int | None, typer.Option(help="Quantise weights, 2 to 8 bits, and activations as they come.")
    ] = None,
    encode: Annotated[
        str | None, typer.Option(help="Entropy coding of the weights: auto, huffman or range.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of training in each step; 0 is none.")] = 0,
    lr: Annotated[float, typer.Option(help="Its peak learning rate.")] = flags.LR,
    augment: Annotated[str, typer.Option(help="none, handwriting, or rotate=10,shift=0.1,...")] = "none",
    teacher: Annotated[
        str | None, typer.Option(help="A .netsuke to distil from, or self: the model as it came.")
    ] = None,
    allowed_loss: Annotated[
        float | None,
        typer.Option(help="Roll back a step that costs more validation accuracy, as a share: 0.005"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of order and augmentation.")] = 0,
    threads: Annotated[int, typer.Option(help="Processor threads; 0 takes what there is.")] = 0,
    work: Annotated[
        Path | None, typer.Option(help="Keep finished steps here; else beside OUT, until done.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", "--dry-run", help="Check and rehearse everything, and write nothing.")
    ] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="Show the shipped recipes, and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Make a model smaller: one step, several, or a recipe; a killed run goes on when the command is repeated.

    Without a recipe or a flag for a step it quantises to 8 bits. Each step's accuracy is of the validation
    images; the test images are asked once, at the end.

    Example: netsuke compress lenet5.netsuke --data mnist --bits 4 --epochs 3 -o small.netsuke
    """
    from netsuke.cli import options
    from netsuke.errors import OptionError

    if list_recipes:
        _list(json=json)
        return
    if data is None or (out is None and not check):
        raise OptionError(f"{'--data' if data is None else '--out'} is needed; see netsuke compress -h")
    if out is not None:
        options.check_out(out)
        options.check_overwrite(source, out)
    chosen = {
        "prune": prune, "structured": structured or None, "multiple": multiple, "pattern": pattern,
        "importance": importance, "rounds": rounds, "factorise": factorise, "share": share, "bits": bits,
        "weight_only": weight_only, "dynamic": dynamic, "encode": encode,
    }  # fmt: skip
    steps: dict[str, Any] = {key: value for key, value in chosen.items() if value is not None}
    if recipe is not None:
        _alone(steps, epochs=epochs, lr=lr, augment=augment, teacher=teacher)
    from netsuke import recipes
    from netsuke.lab import recipe as lab

    if recipe is not None:
        plan = lab.read(recipes.find(recipe), seed=seed, threads=threads, allowed_loss=allowed_loss)
    else:
        steps = steps or {"bits": 8}
        tables = flags.recipe(steps, epochs=epochs, lr=lr, augment=augment, teacher=teacher)
        plan = lab.parsed(tables, "compress", seed=seed, threads=threads, allowed_loss=allowed_loss)
    start, plain, dataset, plan = _start(source, plan, data, seed=seed, threads=threads)
    if check or out is None:
        lab.check(plan, start, dataset)  # as a run does first
        _show_plan(plan, start, dataset, json=json)
        return
    folder = work or options.work_folder(out)
    artifact = _run(plan, start, dataset, folder, seed)
    told = {"recipe": {**artifact.manifest["recipe"], **(steps if recipe is None else {})}}
    _finish(artifact.with_manifest(**told), plain, dataset, out, json=json)
    if work is None:
        options.clear_work(folder)


def _alone(steps: dict[str, Any], **others: Any) -> None:
    """Raise OptionError where flags say what a recipe says itself."""
    from netsuke.errors import OptionError

    defaults = {"epochs": 0, "lr": flags.LR, "augment": "none", "teacher": None}
    said = [*steps, *(key for key, value in others.items() if value != defaults[key])]
    if said:
        raise OptionError(f"{flags.name(said[0])} and --recipe exclude each other: write it into the recipe")


def _start(
    source: str | None, plan: Recipe, data: str, *, seed: int, threads: int
) -> tuple[Artifact | None, Dataset, Dataset, Recipe]:
    """The model to begin with, None for a network to train; the data as they came and as it takes them."""
    from dataclasses import replace

    from netsuke import data as catalogue
    from netsuke.artifact import Artifact
    from netsuke.cli import evaluate
    from netsuke.errors import OptionError
    from netsuke.lab.models import MODELS
    from netsuke.lab.recipe import Start
    from netsuke.lab.training import Training
    from netsuke.settings import unknown

    if source is None and plan.model is None:
        raise OptionError("give a model: a .netsuke or .onnx file, or a name from netsuke models")
    given = None
    if source is not None and (source not in MODELS or Path(source).is_file()):
        if not Path(source).exists() and not Path(source).suffix and len(Path(source).parts) == 1:
            raise OptionError(f"there is no file {source}, and {unknown(source, MODELS, 'model')}")
        if Path(source).suffix == ".onnx":
            from netsuke import import_onnx

            given = import_onnx.load(Path(source))
        else:
            given = Artifact.load(source)
    plain = catalogue.load(data).require("train", "test")
    if given is not None:
        return given, plain, evaluate.fitting(given, plain, str(source)), replace(plan, model=None)
    if source is not None and (plan.model is None or plan.model.name != source):
        training = plan.model.training if plan.model else Training(seed=seed, threads=threads)
        plan = replace(plan, model=Start(source, {}, training))
    return None, plain, plain, plan


def _run(plan: Recipe, start: Artifact | None, dataset: Dataset, work: Path, seed: int) -> Artifact:
    """Run the recipe, a progress bar for each step that trains and a line for each that is done."""
    from contextlib import ExitStack

    from netsuke.cli import console
    from netsuke.lab.recipe import epochs, run

    with ExitStack() as stack:
        bars: dict[int, Any] = {}

        def progress(number: int, name: str, done: float, info: str, resumed: bool) -> None:
            if number not in bars:
                total = epochs(plan, number)
                bars[number] = stack.enter_context(console.progress(f"{number} {name}", total))
            bars[number].advance(done, info, resumed)

        rows: list[dict[str, Any]] = []

        def say(row: dict[str, Any]) -> None:
            stack.close()
            rows.append(row)
            console.note(_line(rows))
            if "note" in row:
                console.note(f"  {row['note']}")

        if not len(dataset.val):
            console.note(
                f"{dataset.name} has no validation images: no step is checked against an allowed loss"
            )
        return run(plan, start, dataset, work=work, seed=seed, progress=progress, say=say)


def _line(rows: list[dict[str, Any]]) -> str:
    """A finished step, and what it changed."""
    row = rows[-1]
    standing = [r for r in rows[:-1] if not r["rolled_back"]]
    text = f"{row['step']} {row['name']}: {_shown(row, 'accuracy')} on validation, {_shown(row, 'size_bytes')} bytes"
    if not standing:
        return text
    before = standing[-1]
    if row["name"] == "encode":
        text += f", {_shown(row, 'encoded_bytes')} coded"
    changes = [f"was {_shown(before, 'accuracy')} and {_shown(before, 'size_bytes')} bytes"]
    if row["rolled_back"]:
        changes.append(f"rolled back: it may cost {row['allowed_loss'] * 100:g} points")
    return f"{text} ({'; '.join(changes)}), {row['seconds']:.1f} s"


COLUMNS = {
    "accuracy": "validation",
    "size_bytes": "bytes",
    "encoded_bytes": "encoded",
    "parameters": "parameters",
    "sparsity": "zeros",
    "macs": "MACs",
    "ram_bytes": "RAM",
    "latency_us": "µs",
    "seconds": "s",
}


def _shown(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return "-"
    if key == "accuracy":
        return f"{value:.2%}"
    if key == "sparsity":
        return f"{value:.0%}"
    return f"{value:,.1f}" if key in ("latency_us", "seconds") else f"{value:,}"


def _finish(artifact: Artifact, plain: Dataset, dataset: Dataset, out: Path, *, json: bool) -> None:
    """Measure on the test half once, write the file, show the rows and the document."""
    from netsuke.cli import console, evaluate, start

    artifact = artifact.with_manifest(**start.provenance(artifact, plain, dataset))
    document = evaluate.measured(artifact, dataset, "test")
    keys = ("accuracy", "loss", "n", "size_bytes", "encoded_bytes", "macs")
    report = {k: document[k] for k in keys if k in document}
    artifact = artifact.with_manifest(report=report)
    artifact.save(out)
    if artifact.manifest["steps"][-1]["name"] == "encode" and artifact.encoded_bytes >= artifact.size_bytes:
        console.note("coding saved nothing: it takes integers and shared values, so quantise or share first")
    rows = artifact.manifest["steps"]
    history = [row for phase in artifact.manifest["history"].values() for row in phase]
    document |= {"artifact": str(out), "file_bytes": out.stat().st_size, "history": history, "steps": rows}
    if json:
        console.print_json(document)
        return
    cells = [
        (
            f"{r['step']} {r['name']}" + (" (rolled back)" if r["rolled_back"] else ""),
            *(_shown(r, k) for k in COLUMNS),
        )
        for r in rows
    ]
    evaluate.show(document)
    console.table(f"{out}, step by step", ("step", *COLUMNS.values()), cells)
    console.note(
        f"wrote {out}, {document['file_bytes']:,} bytes on disk; next: netsuke export {out}, see its -h"
    )


def _show_plan(plan: Recipe, start: Artifact | None, dataset: Dataset, *, json: bool) -> None:
    from netsuke.cli import console

    document = {"ok": True, "data": dataset.name, "recipe": plan.to_json()}
    if json:
        console.print_json(document)
        return
    rows: list[tuple[str, str]] = []
    if start is None and plan.model is not None:
        rows.append((f"0 train {plan.model.name}", f"epochs={plan.model.training.epochs}"))
    rows += [(f"{step.number} {step.name}", step.told) for step in plan.steps]
    console.table(
        f"{plan.name}: nothing wrong", ("step", "options that differ from the defaults"), rows, left=2
    )


def _list(*, json: bool) -> None:
    from netsuke import recipes
    from netsuke.cli import console

    rows = {name: recipes.title(path) for name, path in recipes.shipped().items()}
    if json:
        console.print_json([{"recipe": name, "title": text} for name, text in rows.items()])
    else:
        console.table("Shipped recipes", ("name", "what it does"), list(rows.items()), left=2)
