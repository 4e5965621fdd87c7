"""`netsuke tune`: search the options of training and architecture, then train the best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from netsuke.data import Dataset
    from netsuke.lab.tune import Tune

SHOWN = 10  # rows of the table


def tune(
    data: Annotated[str, typer.Option(help="A catalogue name or a folder of images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .netsuke file to write.")],
    work: Annotated[Path, typer.Option(help="The folder that keeps the search; give it again to go on.")],
    model: Annotated[
        str, typer.Option(help="The architecture, where the search does not choose.")
    ] = "convnet",
    search: Annotated[
        str, typer.Option(help="lr=1e-4..1e-2:log, width=0.25..1, optimizer=adam|sgd; empty: a usual space.")
    ] = "",
    trials: Annotated[int, typer.Option(help="Trainings in all, those of former runs included.")] = 30,
    epochs: Annotated[int, typer.Option(help="Of each trial.")] = 3,
    final_epochs: Annotated[int, typer.Option(help="Of the last training; 0: as many as a trial.")] = 0,
    folds: Annotated[int, typer.Option(help="Score by cross-validation over so many folds; 0 is off.")] = 0,
    metric: Annotated[Literal["accuracy", "loss"], typer.Option(help="On validation images.")] = "accuracy",
    max_parameters: Annotated[int, typer.Option(help="Refuse larger models; 0 is off.")] = 0,
    max_bytes: Annotated[int, typer.Option(help="Refuse models of more float bytes; 0 is off.")] = 0,
    images: Annotated[int, typer.Option(help="Search on so many training images; 0 takes all.")] = 0,
    timeout: Annotated[float, typer.Option(help="Begin no trial after so many seconds; 0 is off.")] = 0,
    seed: Annotated[int, typer.Option(help="Of draws, folds, weights and order.")] = 0,
    threads: Annotated[int, typer.Option(help="Processor threads; 0 takes what there is.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Write the importance of options as an .svg here.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Search options of training and model, train the best on the whole training half, measure it once.

    The test half plays no part in the search. A killed search goes on when the command is repeated.

    Example: netsuke tune --data mnist --search "lr=1e-4..1e-2:log, batch=64|128" --trials 20 --work s -o best.netsuke
    """
    from netsuke import data as catalogue
    from netsuke.cli import console, options
    from netsuke.errors import OptionError
    from netsuke.files import write_whole

    for path in filter(None, (out, plot)):
        options.check_out(path)
    for name, value, least in (
        ("trials", trials, 1),
        ("final-epochs", final_epochs, 0),
        ("timeout", timeout, 0),
    ):
        if not value >= least:
            raise OptionError(f"--{name} must be at least {least}; got {value}")
    if work.exists() and not work.is_dir():
        raise OptionError(f"--work {work} is a file; name a folder")
    from netsuke.lab.tune import Search, Tune

    dataset = catalogue.load(data).require("train", "test")
    asked = Search(search, model, epochs, folds, images, metric, max_parameters, max_bytes, seed)
    job = Tune(dataset, asked, work=work, threads=threads)
    _search(job, trials, timeout)
    document = _finish(job, dataset, final_epochs, out)
    if plot:
        write_whole(plot, bars(document["importance"]).encode())
    if json:
        console.print_json(document)
    else:
        _show(document, job.ranking)


def _search(job: Tune, trials: int, timeout: float) -> None:
    from netsuke.cli import console

    s = job.search
    score = f"{s.folds} folds" if s.folds else f"{len(job.parts[0].val):,} validation images"
    console.note(f"searching {s.space}; scored by {s.metric} on {score}")
    if kept := len(job.rows()):
        console.note(f"{kept} trials are kept in {job.work}; going on")
    try:
        with console.progress("searching", trials * job.epochs) as bar:
            job.run(trials, timeout=timeout, progress=bar.advance)
    except KeyboardInterrupt:
        console.note(f"{len(job.rows())} of {trials} trials are kept in {job.work}")
        raise
    counts = {state: n for state, n in job.counts().items() if n}
    console.note("trials: " + ", ".join(f"{n} {state}" for state, n in counts.items()))


def _finish(job: Tune, dataset: Dataset, epochs: int, out: Path) -> dict[str, Any]:
    """Train the best, measure it on the test half once, write it; the document that --json prints."""
    from netsuke.cli import console, evaluate

    epochs = epochs or job.search.epochs
    with console.progress("training the best", epochs) as bar:
        artifact = job.finish(epochs, bar.advance)
    document = evaluate.measured(artifact, dataset, "test")
    report = {k: document[k] for k in ("accuracy", "loss", "n", "size_bytes", "macs")}
    artifact = artifact.with_manifest(report=report)
    artifact.save(out)
    recipe = artifact.manifest["recipe"]
    return document | {
        "artifact": str(out),
        "file_bytes": out.stat().st_size,
        "history": artifact.manifest["history"],
        "model": recipe["model"],
        "options": recipe["options"],
        "training": recipe["training"],
        "search": recipe["search"],
        "validation_images": sum(len(part.val) for part in job.parts),
        "importance": job.importance(),
        "trials": job.rows(),
        "best": job.ranking[0],
    }


def _show(d: dict[str, Any], best: list[dict[str, Any]]) -> None:
    from netsuke.cli import console

    searched = len({row["model"] for row in d["trials"]}) > 1
    console.table(
        f"Best of {len(d['trials'])} trials on {d['data']}, {d['validation_images']:,} validation images",
        ("options", "trial", "accuracy", "loss", "parameters", "seconds"),
        [_line(row, d["search"]["metric"], searched) for row in best[:SHOWN]],
    )
    if d["importance"]:
        rows = [(name, f"{share:.0%}") for name, share in d["importance"].items()]
        console.table("Importance: share in the variance of the score (fANOVA)", ("option", "share"), rows)
    accuracy, n = best[0]["val_accuracy"], d["validation_images"]
    error = (accuracy * (1 - accuracy) / n) ** 0.5
    console.note(
        f"one standard error of {accuracy:.2%} on {n:,} images is {error * 100:.2f} points: smaller gaps are noise, "
        "and the best of many scores flatters itself"
    )
    for row in d["trials"]:
        if row["state"] == "failed":
            console.note(f"trial {row['trial']} failed: {row['reason']}")
    console.note(
        f"on the test half: {d['accuracy']:.2%} ({d['errors']} of {d['n']:,} wrong), loss {d['loss']:.4f}, "
        f"{d['size_bytes']:,} bytes; wrote {d['artifact']}; next: netsuke compress {d['artifact']}, see its -h"
    )


def _line(row: dict[str, Any], metric: str, models: bool) -> tuple[str, ...]:
    drawn = {**({"model": row["model"]} if models else {}), **row["drawn"]}
    options = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in drawn.items())
    spread = f" ± {row['sd'] * (100 if metric == 'accuracy' else 1):.2g}" if row["sd"] is not None else ""
    accuracy = f"{row['val_accuracy']:.2%}" + (spread if metric == "accuracy" else "")
    loss = f"{row['val_loss']:.4f}" + (spread if metric == "loss" else "")
    return options, str(row["trial"]), accuracy, loss, f"{row['parameters']:,}", f"{row['seconds']:.1f}"


def bars(shares: dict[str, float]) -> str:
    """Horizontal bars as a self-contained SVG, the largest first; a line of text where there are none."""
    from html import escape

    row, left, wide = 26, 150, 360  # pixels
    parts = []
    for i, (name, share) in enumerate(shares.items()):
        y = 44 + i * row
        parts += [
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{left}" y="{y}" width="{max(1, share * wide):.1f}" height="18" fill="#31688e"/>',
            f'<text x="{left + share * wide + 8:.1f}" y="{y + 14}">{share:.0%}</text>',
        ]
    title = (
        "Importance of options: share in the variance of the score (fANOVA)"
        if shares
        else "Too few trials to tell which options matter"
    )
    height = 56 + row * len(shares)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="580" height="{height}" viewBox="0 0 580 {height}" '
        f'font-family="sans-serif" font-size="13" role="img" aria-label="{title}">'
        f'<rect width="580" height="{height}" fill="#fff"/><text x="12" y="26" font-size="15">{title}</text>'
        + "".join(parts)
        + "</svg>\n"
    )
