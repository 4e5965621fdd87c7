"""`netsuke bench`: how fast a model answers on this machine, by every engine and every export."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from netsuke.artifact import Artifact
    from netsuke.bench import Key, Series
    from netsuke.bench.contenders import Contender

INTERRUPTED = 1  # not 130, for which the command line promises to go on from there
FIRST_BASELINES = ("onnxruntime", "numpy")  # what others are compared with, unless another is named


def bench(
    artifact: Annotated[Path, typer.Argument(help="A .netsuke file, or the name of a shipped model.")],
    seconds: Annotated[float, typer.Option(min=0.01, max=600, help="How long to time each figure.")] = 1.0,
    only: Annotated[
        str | None, typer.Option(help="Contenders, separated by commas; default: all there are.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Whom the others are compared with.")] = None,
    beside: Annotated[
        Path | None,
        typer.Option(help="Another model, for instance its float form, timed in the same rounds."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Emulated microcontrollers instead, separated by commas, as cortex-m4 or atmega328p."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Time single images and batches of 256 by every engine and export that runs here, in turns.

    Ctrl-C ends the timing; what was measured until then is printed. With --device the model is built into firmware and
    run in an emulator: instructions or cycles an image, flash, RAM and stack.

    Example: netsuke bench digits.netsuke --json
    """
    from netsuke import zoo

    artifact = zoo.file(artifact)
    if device is not None:
        from netsuke.cli.device import devices
        from netsuke.errors import OptionError

        given = {"--only": only, "--baseline": baseline, "--beside": beside}
        if idle := [name for name, value in given.items() if value is not None]:
            raise OptionError(f"--device does not go with {' and '.join(idle)}, which are for this machine")
        devices(artifact, device, json)
        return
    from netsuke.cli import console
    from netsuke.errors import NetsukeError
    from netsuke.measure.latency import hardware

    with ExitStack() as stack:
        files = [artifact, *([zoo.file(beside)] if beside else [])]
        entries, absent = entered(files, names_of(only), stack)
        reasons = [f"{row['backend']}: {row['reason']}" for row in absent]
        if not entries:
            raise NetsukeError(f"nothing can run this here; {'; '.join(reasons)}")
        chosen_baseline(baseline, list(entries))  # a misspelt one is told at once
        for reason in reasons:
            console.note(reason)
        found, cold, stopped = timed(entries, seconds)
    names = list(dict.fromkeys(name for name, _ in found if found[name, "latency"].rounds))
    if stopped:
        console.note("stopped: the rounds until then")
    if not names:
        raise typer.Exit(INTERRUPTED)
    rows = results(found, names, entries, cold, chosen_baseline(baseline, names))
    if json:
        document = {"artifact": str(artifact), "hardware": hardware(), "interrupted": stopped}
        console.print_json(document | {"results": rows, "absent": absent})
    else:
        show(rows, f"{artifact} on {hardware()}")
    if stopped:
        raise typer.Exit(INTERRUPTED)


def names_of(only: str | None) -> tuple[str, ...]:
    """Contenders of a comma list; raises OptionError on one that is unknown."""
    from netsuke.bench.contenders import NAMES
    from netsuke.errors import OptionError

    names = tuple(dict.fromkeys(part.strip() for part in only.split(","))) if only is not None else NAMES
    for name in names:
        if name not in NAMES:
            raise OptionError(f"unknown contender {name!r}; choose from {', '.join(NAMES)}")
    return names


def chosen_baseline(baseline: str | None, names: list[str]) -> str:
    from netsuke.errors import OptionError

    if baseline and baseline not in names:
        raise OptionError(f"--baseline {baseline!r} is not among those that ran: {', '.join(names)}")
    return baseline or next((name for name in FIRST_BASELINES if name in names), names[0])


class Entry:
    """A contender with its model: on one core and, where it takes threads, on all."""

    def __init__(self, path: Path, model: Artifact, name: str, one: Contender, many: Contender | None):
        self.path, self.model, self.name, self.one, self.many = path, model, name, one, many


def entered(
    paths: list[Path], names: tuple[str, ...], stack: ExitStack
) -> tuple[dict[str, Entry], list[dict[str, str]]]:
    """Everyone who can run, by the name in the table, and why the others cannot."""
    import os
    from tempfile import TemporaryDirectory

    from netsuke.artifact import Artifact
    from netsuke.bench.contenders import EXPORTS, contender
    from netsuke.errors import NetsukeError

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    entries: dict[str, Entry] = {}
    absent = []
    for path in paths:
        model = Artifact.load(path)
        for name in names:
            shown = name if path == paths[0] else f"{name} ({path.stem})"
            folder = Path(stack.enter_context(TemporaryDirectory()))
            try:
                one = contender(name, model, folder)
                stack.callback(one.close)
                threaded = cores > 1 and name not in (*EXPORTS, "numpy")
                many = contender(name, model, folder, cores) if threaded else None
            except NetsukeError as error:
                absent.append({"backend": shown, "reason": str(error)})
                continue
            entries[shown] = Entry(path, model, name, one, many)
    return entries, absent


def timed(
    entries: dict[str, Entry], seconds: float
) -> tuple[dict[Key, Series], dict[str, dict[str, Any]], bool]:
    """The times of all, the figures of a fresh process of each, and whether Ctrl-C ended it."""
    import numpy as np

    from netsuke.bench import ROUNDS, interleaved
    from netsuke.bench.fresh import fresh
    from netsuke.cli import console
    from netsuke.measure.latency import BATCH

    jobs: dict[Key, tuple[Contender, int]] = {}
    images = {}
    for name, entry in entries.items():
        shape = (BATCH, *entry.model.graph.input_shape)
        images[name] = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        jobs[name, "latency"] = (entry.one, 1)
        jobs[name, "throughput"] = (entry.one, BATCH)
        if entry.many:
            jobs[name, "throughput on all cores"] = (entry.many, BATCH)
    cold = {}
    with console.progress("bench", len(jobs) * seconds + len(entries)) as bar:
        try:
            for name, entry in entries.items():
                cold[name] = fresh(entry.path, entry.name)
                bar.advance(1, f"loads {name}")
        except KeyboardInterrupt:
            return {}, {}, True
        found = interleaved(jobs, images, seconds, lambda spent, name: bar.advance(spent, name))
    return found, cold, any(len(series.rounds) < ROUNDS for series in found.values())


def results(
    found: dict[Key, Series],
    names: list[str],
    entries: dict[str, Entry],
    cold: dict[str, dict[str, Any]],
    baseline: str,
) -> list[dict[str, Any]]:
    """The rows of --json."""
    from netsuke.bench import figures, ratios

    return [
        {
            "backend": name,
            "artifact": str(entries[name].path),
            **figures(found, name),
            **{key: cold[name].get(key) for key in ("load_ms", "rss_bytes", "added_bytes")},
            "file_bytes": entries[name].one.file_bytes,
            "baseline": baseline,
            "times_faster": ratios(found, name, baseline),
        }
        for name in names
    ]


def show(rows: list[dict[str, Any]], title: str) -> None:
    """The results as two tables."""
    from netsuke.cli import console

    def ratio(row: dict[str, Any], what: str) -> str:
        found = row["times_faster"][what]
        return f"{found['median']:.2f} ({found['p5']:.2f}..{found['p95']:.2f})"

    def number(value: float | None, unit: float = 1) -> str:
        return "" if value is None else f"{value / unit:,.0f}"

    than = f"times {rows[0]['baseline']}"
    latency = [
        (
            row["backend"],
            f"{row['latency_us']:,.1f}",
            f"{row['p5_us']:,.1f}..{row['p95_us']:,.1f}",
            ratio(row, "latency"),
            number(row["images_per_s"]),
            number(row["images_per_s_all_cores"]),
            ratio(row, "throughput"),
        )
        for row in rows
    ]
    columns = ("", "median µs", "p5..p95", than, "images/s, 1 core", "all cores", than)
    console.table(f"{title}: one image; batches of 256", columns, latency)
    sizes = [
        (
            row["backend"],
            number(row["file_bytes"]),
            number(row["load_ms"]),
            number(row["rss_bytes"], 2**20),
            number(row["added_bytes"], 2**20),
        )
        for row in rows
    ]
    console.table(
        "In a fresh process", ("", "file bytes", "load ms", "RSS MiB", "of it the runtime's"), sizes
    )
