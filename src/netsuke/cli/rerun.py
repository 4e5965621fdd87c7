"""`netsuke rerun`: repeat a record, a folder whose record.json holds commands, seeds and what they gave.

    {"title": "...", "command": "train --model lenet5 --data mnist --seed {seed} -o {out}", "seeds": [0, 1, 2],
     "results": {"0": {...}}, "summary": {...}, "hardware": "...", "threads": 1, ...}

`{out}` becomes a file in the folder that takes the runs. A result is the command's own JSON document.
A record of `"kind": "comparison"` holds a `compare` command, which takes all seeds at once; `{work}` becomes
a folder that keeps its trainings, and `document` is what it gave, without pictures and learning curves.
One of `"kind": "benchmark"` names a script of benchmarks/, which is run by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

COUNTED = ("parameters", "macs", "size_bytes", "encoded_bytes", "ram_bytes")  # from a file alone


def rerun(
    record: Annotated[Path, typer.Argument(help="A folder with a record.json.")],
    seeds: Annotated[str, typer.Option(help="Only these seeds: 0,1")] = "",
    folder: Annotated[Path | None, typer.Option(help="Where the runs go; default runs/RECORD.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs side by side, with one thread each if more than one.")] = 1,
    save: Annotated[bool, typer.Option("--save", help="Write what was measured into record.json.")] = False,
    recount: Annotated[
        bool,
        typer.Option("--recount", help="Run nothing; count bytes, MACs and RAM of the runs' files again."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run a record again and set what comes out beside what it says; finished runs are not repeated.

    Example: netsuke rerun records/mnist-lenet5 --seeds 0
    """
    import os

    from netsuke.cli import console
    from netsuke.errors import OptionError

    path = record / "record.json"
    said = _read(path)
    try:
        chosen = [int(s) for s in seeds.split(",")] if seeds else list(said.get("seeds", []))
    except ValueError:
        raise OptionError(f"--seeds takes whole numbers with commas between; got {seeds!r}") from None
    if said.get("kind") == "benchmark":
        raise OptionError(
            f"{record} is a benchmark, not a netsuke command; run it by itself: {said['command']}"
        )
    comparison = said.get("kind") == "comparison"
    if comparison and seeds:
        raise OptionError("the record is a comparison, whose command names the seeds: leave out --seeds")
    if save and seeds:
        raise OptionError("--save writes a whole record: leave out --seeds; finished runs are not repeated")
    if jobs < 1:
        raise OptionError(f"--jobs must be at least 1; got {jobs}")
    folder = folder or Path("runs") / record.resolve().name
    if recount and (comparison or seeds or "results" not in said):
        raise OptionError("--recount takes a whole record of finished runs, no comparison: leave out --seeds")
    if recount:
        document = recounted(said, folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        if comparison:
            _compare_again(path, said, folder, jobs, save=save, json=json)
            return
        results = _run(said["command"], chosen, folder, jobs)
        threads = 1 if jobs > 1 else int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: all there are
        document = summarised(results, threads)
    if save:
        _write(path, {**said, **document})
    if json:
        console.print_json(
            {"record": str(record), "said": said.get("summary", {}), "now": document["summary"]}
        )
        return
    rows = []
    for key, now in document["summary"].items():
        before = said.get("summary", {}).get(key)
        rows.append((key, _shown(before), _shown(now)))
    console.table(said.get("title", str(record)), ("figure", "recorded", "now"), rows)


def _compare_again(
    path: Path, said: dict[str, Any], folder: Path, jobs: int, *, save: bool, json: bool
) -> None:
    """Run the command of a comparison, which itself keeps what is finished, and show each model's figures."""
    import shlex
    from json import loads

    from netsuke.cli import console

    words = [w.replace("{work}", str(folder / "work")) for w in shlex.split(said["command"])]
    words += ["--jobs", str(jobs)] if jobs > 1 else []
    document = loads(_output(words, "the comparison", {}))
    for row in document["models"]:
        row.pop("confused", None)
        row.pop("history", None)
    if save:
        _write(path, {**said, "document": document, "hardware": document["hardware"]})
    before = {row["name"]: row for row in said.get("document", {}).get("models", [])}
    if json:
        console.print_json({"record": str(path.parent), "said": said.get("document", {}), "now": document})
        return
    rows = [
        (row["name"], key, _shown(before.get(row["name"], {}).get(key)), _shown(row[key]))
        for row in document["models"]
        for key in ("accuracy", "train_s", "size_bytes", "latency_us")
        if row[key] is not None
    ]
    console.table(said.get("title", str(path.parent)), ("model", "figure", "recorded", "now"), rows)


def _shown(figure: dict[str, Any] | float | None) -> str:
    if figure is None:
        return "-"
    if not isinstance(figure, dict):
        return f"{figure:,.6g}"
    return f"{figure['mean']:,.6g} ± {figure['stdev']:.3g} (n={figure['n']})"


def _read(path: Path) -> dict[str, Any]:
    import json
    import shlex

    from netsuke.errors import DataError

    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path.parent} holds no record.json") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(record, dict):
        record = {}
    command, seeds = record.get("command"), record.get("seeds")
    if record.get("kind") in ("comparison", "benchmark"):
        seeds = []  # they stand in the command
    if (
        not isinstance(command, str)
        or not isinstance(seeds, list)
        or not all(isinstance(s, int) for s in seeds)
    ):
        raise DataError(f"{path}: needs a command and a list of seeds")
    try:
        shlex.split(command)
    except ValueError as error:
        raise DataError(f"{path}: its command cannot be read ({error})") from None
    return record


def _write(path: Path, document: dict[str, Any]) -> None:
    import json

    from netsuke.files import write_whole

    write_whole(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


def _run(command: str, seeds: list[int], folder: Path, jobs: int) -> dict[str, Any]:
    """One process a seed, `jobs` at a time; each leaves seed-N.json when it has finished."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(jobs) as pool:
        runs = {str(seed): pool.submit(_one, command, seed, folder, jobs) for seed in seeds}
        return {seed: run.result() for seed, run in runs.items()}


def _one(command: str, seed: int, folder: Path, jobs: int) -> Any:
    import json
    import shlex

    from netsuke.errors import DataError
    from netsuke.files import write_whole

    done = folder / f"seed-{seed}.json"
    if not done.exists():
        out = folder / f"seed-{seed}.netsuke"
        words = [w.replace("{seed}", str(seed)).replace("{out}", str(out)) for w in shlex.split(command)]
        text = _output(words, f"the run of seed {seed}", {"OMP_NUM_THREADS": "1"} if jobs > 1 else {})
        write_whole(done, text.encode())
    try:
        return json.loads(done.read_text(encoding="utf-8"))
    except ValueError:
        raise DataError(f"{done} is damaged; delete it to run seed {seed} again") from None


def _output(words: list[str], what: str, environment: dict[str, str]) -> str:
    """What `netsuke WORDS --json` prints; raises NetsukeError where it fails."""
    import os
    import shlex
    import subprocess
    import sys

    from netsuke.cli import console
    from netsuke.errors import NetsukeError

    console.note(f"netsuke {shlex.join(words)}")
    run = subprocess.run(
        [sys.executable, "-m", "netsuke", *words, *([] if "--json" in words else ["--json"])],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if run.returncode:
        raise NetsukeError(f"{what} failed with exit code {run.returncode}")
    return run.stdout


def recounted(said: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Figures and summary with what is counted, not measured, taken from seed-N.netsuke again.

    A seed whose file is gone takes the counts of one that had the same: one command gives one network. `recounted`
    names the figures that changed. Raises DataError for a file of another run, or where none can stand for a seed.
    """
    from netsuke.errors import DataError

    counts = {seed: found for seed, run in said["results"].items() if (found := _counts(folder, seed, run))}
    results = {}
    for seed, run in said["results"].items():
        like = [s for s in counts if all(said["results"][s].get(key) == run.get(key) for key in COUNTED)]
        if seed not in counts and not like:
            raise DataError(f"{folder} holds no seed-{seed}.netsuke, nor a run with the same counts")
        now = counts[seed if seed in counts else like[0]]
        results[seed] = {**run, **{key: now[key] for key in COUNTED if key in run}}
    changed = {key for seed, run in results.items() for key in run if run[key] != said["results"][seed][key]}
    told = sorted(changed.union(said.get("recounted", ())))
    return {"results": results, "summary": _summary(results), **({"recounted": told} if told else {})}


def _counts(folder: Path, seed: str, run: dict[str, Any]) -> dict[str, Any] | None:
    """What a run's file says of its cost; None without the file. Raises DataError where it is of another run."""
    from netsuke.artifact import Artifact
    from netsuke.errors import DataError
    from netsuke.measure.cost import cost

    path = folder / f"seed-{seed}.netsuke"
    if not path.exists():
        return None
    model = Artifact.load(path)
    report = model.manifest.get("report", {})
    for key in ("accuracy", "loss"):
        if report.get(key) != run[key]:
            raise DataError(
                f"{path} is of another run: its {key} is {report.get(key)}, the record's {run[key]}"
            )
    return cost(model)


def summarised(results: dict[str, Any], threads: int) -> dict[str, Any]:
    """The record's measured half: the figures of each seed, their means and deviations, and the circumstances."""
    from netsuke import __version__
    from netsuke.measure.latency import hardware

    plain = {seed: _figures(document) for seed, document in results.items()}
    return {
        "results": plain,
        "summary": _summary(plain),
        "hardware": hardware(),
        "threads": threads,
        "version": __version__,
    }


def _summary(plain: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Mean and deviation of each figure over the seeds that have it."""
    from statistics import mean, stdev

    keys = list(dict.fromkeys(key for figures in plain.values() for key in figures))
    summary = {}
    for key in keys:
        values = [figures[key] for figures in plain.values() if key in figures]
        spread = stdev(values) if len(values) > 1 else 0.0
        summary[key] = {"mean": mean(values), "stdev": spread, "n": len(values)}
    return summary


def _figures(document: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Every top figure of a verb's document; those of teacher and result with their name before."""
    wanted = (
        "accuracy", "loss", "errors", "n", "parameters", "macs", "size_bytes", "encoded_bytes", "ram_bytes",
    )  # fmt: skip
    found = {prefix + key: document[key] for key in wanted if isinstance(document.get(key), int | float)}
    for part in ("result", "teacher"):
        if isinstance(document.get(part), dict):
            found |= _figures(document[part], "" if part == "result" else "teacher_")
    if document.get("history"):
        seconds = [row["seconds"] for row in document["history"]]
        found["seconds_per_epoch"] = sorted(seconds)[len(seconds) // 2]
    return found
