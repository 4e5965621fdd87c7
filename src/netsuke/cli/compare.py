"""`netsuke compare`: models side by side, on the same data, under the same clock."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from netsuke.data import Dataset
    from netsuke.measure.cache import Cache
    from netsuke.measure.runs import Run

Timer = Callable[[float], dict[str, Any]]  # the times of one model, from the seconds for each
Entry = tuple[dict[str, Any], Timer]  # a row without its times, and what takes them


def compare(
    data: Annotated[str, typer.Option(help="A catalogue name or a folder of images.")],
    artifacts: Annotated[
        list[Path] | None, typer.Argument(help=".netsuke files; those that differ only by seed share a row.")
    ] = None,
    zoo: Annotated[str, typer.Option(help="Train and compare this zoo instead of files: small or all.")] = "",
    models: Annotated[str, typer.Option(help="Only these of the zoo: lenet5,separable")] = "",
    baselines: Annotated[
        bool | None, typer.Option(help="Classical classifiers too; by default with a zoo.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Of the zoo's trainings, and of the baselines.")] = "0,1,2",
    epochs: Annotated[int, typer.Option(help="Of the zoo's trainings, as all that follow: see train.")] = 8,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    optimizer: Annotated[str, typer.Option(help="sgd, adam, adamw or rmsprop.")] = "adam",
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    schedule: Annotated[str, typer.Option(help="constant, step, cosine or one-cycle.")] = "one-cycle",
    l2: Annotated[float, typer.Option(help="L2 penalty on weights.")] = 0.0,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of the target spread over all classes.")
    ] = 0.0,
    ema: Annotated[float, typer.Option(help="Decay of an average of the weights; 0 is off.")] = 0.0,
    augment: Annotated[str, typer.Option(help="none, handwriting, or rotate=10,shift=0.1,...")] = "none",
    jobs: Annotated[int, typer.Option(help="Trainings side by side, one thread each.")] = 1,
    work: Annotated[
        Path | None, typer.Option(help="Keeps trainings and figures; default runs/zoo-ZOO-DATA for a zoo.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, max=600, help="How long to time each figure.")] = 0.5,
    backends: Annotated[str, typer.Option(help="Only these: onnxruntime,numpy; default all.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write a page with plots, readable offline.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Compare models: accuracy over seeds, size, memory, work, energy, and times on every installed backend.

    Example: netsuke compare a.netsuke b.netsuke --data mnist --html report.html
    Example: netsuke compare --zoo small --data mnist --seeds 0,1,2 --epochs 8 --jobs 2
    """
    if "numpy" not in sys.modules:  # BLAS and scikit-learn too answer on one thread
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    from netsuke import data as catalogue
    from netsuke.cli import console, entrants, options
    from netsuke.errors import OptionError
    from netsuke.measure import comparison
    from netsuke.measure.cache import Cache

    files = list(artifacts or [])
    if bool(files) == bool(zoo):
        raise OptionError("give compare .netsuke files or --zoo small, and not both")
    numbers, engines = entrants.seeds(seeds), entrants.backends(backends)
    if jobs < 1:
        raise OptionError(f"--jobs must be at least 1; got {jobs}")
    if html is not None and html == csv:
        raise OptionError(f"--html and --csv both name {html}; give each a file of its own")
    for path in filter(None, (html, csv)):
        options.check_out(path)
    more: dict[str, Any] = {}
    if zoo:
        from netsuke.lab.training import Training

        if epochs < 1:
            raise OptionError(f"--epochs must be at least 1; got {epochs}")
        training = Training(
            epochs=epochs, batch=batch, optimizer=optimizer, lr=lr, schedule=schedule, l2=l2, threads=1,
            label_smoothing=label_smoothing, ema=ema, augment=options.augmentation(augment), seed=numbers[0],
        )  # fmt: skip
        chosen = entrants.chosen(zoo, models)
        dataset = catalogue.load(data).require("train", "test")
        work = work or Path("runs") / f"zoo-{zoo}-{Path(data).name}"
        fitting = entrants.fitting(chosen, dataset, strict=bool(models))
        groups = entrants.trained(fitting, data, dataset, numbers, training, augment, work, jobs)
        more = {
            "title": f"The {zoo} zoo on {dataset.name}",
            "recipe": entrants.recipe(training),
            "seeds": numbers,
        }
    else:
        groups = entrants.given(files)
        halves = ("test", *(("train",) if baselines else ()))
        dataset = catalogue.load(data, need=halves).require(*halves)
    cache = Cache(work / "measured" if work else None)
    entries = _networks(groups, dataset, engines, cache)
    if baselines or (zoo and baselines is None):
        entries += _classical(dataset, numbers, cache)
    hashes = [runs[0].artifact.weight_hash for runs in groups.values()]
    rows, notes = _clocked(entries, [*hashes, *engines], dataset, seconds, cache)
    notes += _foreign(groups, dataset)
    notes += [f"{row['name']}: {row['description']}" for row in rows if row.get("description")]
    document = comparison.document(dataset, rows, notes=notes, **more)
    if csv is not None:
        comparison.write_csv(document, csv)
    if html is not None:
        from netsuke.measure import page

        page.write(document, html)
    if json:
        console.print_json(document)
        return
    _show(document)
    for path in filter(None, (html, csv)):
        console.note(f"wrote {path}")


# --- figures and times --------------------------------------------------------------------------------


def _classical(dataset: Dataset, seeds: Sequence[int], cache: Cache) -> list[Entry]:
    """A row and a timer for every baseline."""
    from netsuke.cli import console
    from netsuke.lab.baselines import BASELINES
    from netsuke.lab.classical import Classical
    from netsuke.measure.comparison import row, summary

    entries: list[Entry] = []
    with console.progress("baselines", len(BASELINES) * len(seeds)) as bar:
        for name in BASELINES:
            model = Classical(name, dataset, seeds)
            measured = []
            for seed in seeds:
                measured.append(
                    cache.get("baseline", [name, seed, dataset.hash], partial(model.figures, seed))
                )
                bar.advance(1, f"{name} seed {seed}")
            runs = [
                {"seed": seed, "accuracy": m["accuracy"], "file": None}
                for seed, m in zip(seeds, measured, strict=True)
            ]
            train_s = summary(m["train_s"] for m in measured)
            more = {"train_s": train_s, "runs": runs, "description": measured[0]["description"]}
            entries.append((row(name, "baseline", measured, **more), model.times))
    return entries


def _networks(
    groups: dict[str, list[Run]], dataset: Dataset, engines: Sequence[str], cache: Cache
) -> list[Entry]:
    """A row and a timer for every group of artifacts, on images adapted as each model's training images were."""
    import numpy as np

    from netsuke.cli import console
    from netsuke.cli.evaluate import check_fit, fitting
    from netsuke.measure import clock
    from netsuke.measure.comparison import figures, network_row
    from netsuke.measure.latency import BATCH

    nothing = dataset.test.take(np.arange(0))
    test = replace(dataset, train=nothing, val=nothing)  # no need to adapt those
    for run in (run for runs in groups.values() for run in runs if not run.artifact.manifest.get("adapted")):
        check_fit(run.artifact, test, str(run.path))  # all of them before the work starts
    entries: list[Entry] = []
    with console.progress("evaluating", sum(map(len, groups.values()))) as bar:
        for name, runs in groups.items():
            measured = []
            for run in runs:

                def one(run: Run = run) -> dict[str, Any]:
                    return figures(
                        run.artifact, fitting(run.artifact, test, str(run.path)).test, test.classes
                    )

                key = [run.artifact.weight_hash, run.artifact.manifest.get("adapted"), dataset.hash]
                measured.append(cache.get("figures", key, one))
                bar.advance(1, str(run.path))
            few = replace(test, test=test.test.take(np.arange(min(BATCH, len(test.test)))))
            images = fitting(runs[0].artifact, few, name).test.images
            entries.append(
                (network_row(name, runs, measured), partial(clock.times, runs[0].path, engines, images))
            )
    return entries


def _clocked(
    entries: Sequence[Entry], keys: Sequence[str], dataset: Dataset, seconds: float, cache: Cache
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows with their times, taken in one go, or all from a former go with the same models; and notes."""
    from datetime import date

    from netsuke.cli import console
    from netsuke.measure.comparison import versions
    from netsuke.measure.latency import hardware

    def measure() -> dict[str, Any]:
        found = {}
        with console.progress("timing", len(entries)) as bar:
            for row, timer in entries:
                found[row["name"]] = timer(seconds)
                bar.advance(1, row["name"])
        return {"date": date.today().isoformat(), "times": found}

    names = [row["name"] for row, _ in entries]
    key = [names, list(keys), dataset.hash, seconds, hardware(), versions()]
    taken = cache.get("times", key, measure)
    rows = [row | taken["times"][row["name"]] for row, _ in entries]
    return rows, [f"times: one thread, all models in turn, {seconds:g} s a figure, {taken['date']}"]


def _foreign(groups: dict[str, list[Run]], dataset: Dataset) -> list[str]:
    """Which models learnt from other images than those of this data set."""
    notes = []
    for name, runs in groups.items():
        manifest = runs[0].artifact.manifest
        if manifest.get("data_hash") not in (None, dataset.hash):
            notes.append(
                f"{name} was trained on {manifest.get('data')}, not on this version of {dataset.name}"
            )
    return notes


# --- on the terminal ----------------------------------------------------------------------------------


def _show(document: dict[str, Any]) -> None:
    """The document as two tables: what each model is worth and costs, and how fast it answers."""
    from netsuke.cli import console

    rows: list[tuple[str, ...]] = [
        (
            r["name"],
            _spread(r["accuracy"], 100, 2),
            f"{r['f1']['mean']:.4f}",
            *(_number(r[key]) for key in ("parameters", "macs", "size_bytes", "ram_bytes")),
            "-" if r["energy_uj"] is None else f"{r['energy_uj']:,.2f}",
            "-" if r["train_s"] is None else f"{r['train_s']['mean']:,.0f}",
        )
        for r in document["models"]
    ]
    columns: tuple[str, ...] = (
        "model",
        "accuracy %",
        "F1",
        "parameters",
        "MACs",
        "bytes",
        "RAM bytes",
        "energy µJ",
        "train s",
    )
    console.table(document["title"], columns, rows)
    names = list(dict.fromkeys(name for r in document["models"] for name in r["backends"]))
    rows = [
        (
            r["name"],
            "-" if r["load_ms"] is None else f"{r['load_ms']:,.1f}",
            *(_times(r["backends"].get(name)) for name in names),
            _number(r["images_per_s"]),
        )
        for r in document["models"]
    ]
    columns = ("model", "load ms", *(f"{name} µs" for name in names), "images/s")
    console.table(f"One image, median / p99, on {document['hardware']}", columns, rows)
    for note in document["notes"]:
        console.note(note)
    for r in document["models"]:
        for name, figures in r["backends"].items():
            if "missing" in figures:
                console.note(f"{r['name']} on {name}: {figures['missing']}")


def _spread(figure: dict[str, float], scale: float, digits: int) -> str:
    middle, deviation = figure["mean"] * scale, figure["stdev"] * scale
    return f"{middle:.{digits}f}" + (f" ± {deviation:.{digits}f}" if figure["n"] > 1 else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _times(figures: dict[str, Any] | None) -> str:
    if figures is None or "missing" in figures:
        return "-"
    return f"{figures['latency_us']:,.0f} / {figures['p99_us']:,.0f}"
