"""`netsuke shrink`: the main job, from labelled images and a byte budget to a file that ships."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from netsuke.artifact import Artifact
    from netsuke.data import Dataset
    from netsuke.lab.shrink import Result, Shrink


def shrink(
    data: Annotated[str, typer.Option(help="A catalogue name or a folder of images.")],
    max_bytes: Annotated[
        int, typer.Option(help="The most the model may store: weights, biases, multipliers.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .netsuke file to write.")],
    effort: Annotated[
        str, typer.Option(help="quick, normal or long: about 3, 15, 90 minutes for MNIST.")
    ] = "normal",
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    threads: Annotated[int, typer.Option(help="Processor threads; 0 takes what there is.")] = 0,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="A float .netsuke to learn from, instead of a new one; may be repeated."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Keep checkpoints here, for other budgets too; else beside OUT, until done."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Get the best classifier that fits a budget of bytes; a killed run goes on when the command is repeated.

    Chooses the widest network that fits at 4 bits, trains a teacher, distils it, trains quantisation-aware,
    and measures the result once on the test half.

    Example: netsuke shrink --data mnist --max-bytes 4096 -o best.netsuke
    """
    from netsuke import data as catalogue
    from netsuke.artifact import Artifact
    from netsuke.cli import console, options

    options.check_out(out)
    given = [Artifact.load(path) for path in teacher or ()]
    dataset = catalogue.load(data).require("train", "test")
    from netsuke.lab.shrink import Shrink

    folder = work or options.work_folder(out)
    job = Shrink(
        dataset, max_bytes, effort=effort, seed=seed, threads=threads, work=folder, teachers=given,
        views=work / "views" if work else None,
    )  # fmt: skip
    p = job.plan
    console.note(
        f"{dataset.name}: {len(dataset.train):,} training images of {len(dataset.classes)} classes; "
        f"{max_bytes:,} bytes buy a network {p.width} channels wide with {p.bits}-bit weights"
    )
    console.note(f"{effort} effort: {_duration(job.estimate())} to go on this machine")
    result = _run(job)
    document = _document(job, result, dataset, str(out))
    report = {k: document["result"][k] for k in ("accuracy", "loss", "n", "size_bytes", "macs", "ram_bytes")}
    result.artifact.with_manifest(report=report).save(out)
    if work is None:
        options.clear_work(folder)
    if json:
        console.print_json(document)
    else:
        _show(document)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def _run(job: Shrink) -> Result:
    """Train under one progress bar; phases weigh by their epochs."""
    from netsuke.cli import console

    with console.progress("shrinking", sum(phase.options.epochs for phase in job.phases)) as bar:
        return job.run(lambda phase, done, info, resumed: bar.advance(done, f"{phase}: {info}", resumed))


def _document(job: Shrink, result: Result, dataset: Dataset, out: str) -> dict[str, Any]:
    """What --json prints: teacher and result on the test half, and what the budget bought."""
    p = job.plan
    return {
        "data": dataset.name,
        "artifact": out,
        "max_bytes": job.max_bytes,
        "effort": job.effort,
        "seed": job.seed,
        "plan": {
            "model": "separable",
            "width": p.width,
            "depth": p.depth,
            "layout": p.layout,
            "bits": p.bits,
        },
        "teacher": _figures(result.teacher, dataset),
        "result": _figures(result.artifact, dataset),
        "validation": result.validation,
    }


def _figures(artifact: Artifact, dataset: Dataset) -> dict[str, Any]:
    from netsuke.cli.evaluate import measured
    from netsuke.engine import Engine
    from netsuke.measure.latency import latency

    engine = Engine(artifact)
    clock = latency(engine.run, dataset.test.images[:256], seconds=0.5)
    return {
        **measured(artifact, dataset, "test"),
        "latency_us": clock["latency_us"],
        "backend": engine.backend,
    }


def _show(d: dict[str, Any]) -> None:
    from netsuke.cli import console

    teacher, small = d["teacher"], d["result"]

    def row(name: str, key: str, form: str, unit: str = "") -> tuple[str, str, str, str]:
        a, b = teacher[key], small[key]
        ratio = f"{a / b:,.1f}x less" if b and a >= b else f"{b / a:,.1f}x more" if a else ""
        return name, f"{a:{form}}{unit}", f"{b:{form}}{unit}", ratio

    gap = (small["accuracy"] - teacher["accuracy"]) * 100
    console.table(
        f"{d['data']} in {small['size_bytes']:,} of {d['max_bytes']:,} bytes ({small['n']:,} test images)",
        ("", "teacher", "result", ""),
        [
            ("accuracy", f"{teacher['accuracy']:.2%}", f"{small['accuracy']:.2%}", f"{gap:+.2f} points"),
            row("size", "size_bytes", ",", " B"),
            row("work", "macs", ",", " MACs"),
            row("memory", "ram_bytes", ",", " B"),
            row(f"latency ({small['backend']})", "latency_us", ",.0f", " µs"),
        ],
    )
    plan = d["plan"]
    console.note(
        f"bought: {plan['width']} channels, {plan['bits']}-bit weights, {small['errors']} errors where the teacher "
        f"makes {teacher['errors']}; wrote {d['artifact']}; next: netsuke export {d['artifact']} --to c"
    )
