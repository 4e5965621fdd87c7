"""Compression beside torch-pruning, torchao, NNCF and ONNX Runtime: same network, images and fine-tuning.

    python benchmarks/compression.py                                 # MNIST, 3 seeds, one thread
    python benchmarks/compression.py --data digits --quick           # seconds, to see that it works
    python benchmarks/compression.py --seeds 0 --json found.json
    python benchmarks/compression.py --tasks prune                   # these rows only, beside float

For each seed a small residual network with batch norms is trained in float. Then channels with half of its MACs are
pruned, its weights and activations go to 8 bits after training, and in training, by each library in turn; `netsuke`
also to 4 bits, which none of the others stores. Whatever trains takes the same loop, epochs and learning rate.

The peers are `pip install torch-pruning torchao onnxscript nncf`; one that is missing is said so and the rest
runs. Accuracy is that of the file in ONNX Runtime, on test images that are read once. `ratio` is its latency for one
image over that of torch's float file, both measured in turns in the same rounds; seconds are of the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean, stdev
from time import process_time
from typing import Any

import numpy as np

from netsuke.errors import NetsukeError, OptionError
from netsuke.measure.latency import hardware
from netsuke.settings import unknown

NET = ("resnet_small", {"depth": 1, "stem": 2})
TEST_BATCH = 250
PACKAGES = ("netsuke", "torch", "onnx", "onnxruntime", "torch-pruning", "torchao", "nncf", "onnxscript")
FIGURES = (
    "accuracy", "onnx_bytes", "file_bytes", "size_bytes", "encoded_bytes", "macs", "ratio", "seconds", "export_s",
)  # fmt: skip
BUDGET = ("data", "images", "epochs", "tuning", "prune", "calibration", "rounds", "tasks")
Run = Callable[[np.ndarray], np.ndarray]


def runner(file: bytes) -> Run:
    """Logits by ONNX Runtime as it comes, on one thread; takes what the file takes, uint8 or float."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def wanted(file: bytes, images: np.ndarray) -> np.ndarray:
    """uint8 images as the file wants them: our files divide by 255 themselves."""
    import onnx

    kind = onnx.load_from_string(file).graph.input[0].type.tensor_type.elem_type
    return images if kind == onnx.TensorProto.UINT8 else images.astype(np.float32) / 255


def accuracy(file: bytes, split: Any) -> float:
    run = runner(file)
    right = 0
    for i in range(0, len(split), TEST_BATCH):
        part = wanted(file, split.images[i : i + TEST_BATCH])
        right += int((run(part).argmax(1) == split.labels[i : i + TEST_BATCH]).sum())
    return right / len(split)


def compressed(entrant: Any, case: Any) -> tuple[dict[str, Any], bytes]:
    """A row's figures that need no clock on the wall, and its ONNX file."""
    with contextlib.redirect_stdout(sys.stderr):  # NNCF draws progress bars
        start = process_time()
        ship = entrant.run(case)
        seconds, start = process_time() - start, process_time()
        shipped = ship()
        export_s = process_time() - start
    row = {
        "accuracy": accuracy(shipped.onnx, case.data.test), "onnx_bytes": len(shipped.onnx), "macs": shipped.macs,
        "seconds": seconds, "export_s": export_s,
    }  # fmt: skip
    if shipped.artifact is not None:
        row |= ours(shipped.artifact)
    return row, shipped.onnx


def ours(artifact: Any) -> dict[str, int]:
    """The bytes that only a .netsuke file has: of the file, of what a device stores, of that in the best coding."""
    coded = artifact.with_manifest(coding="auto") if artifact.graph.integer else artifact
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.netsuke"
        artifact.save(path)
        return {
            "file_bytes": path.stat().st_size,
            "size_bytes": artifact.size_bytes,
            "encoded_bytes": coded.encoded_bytes,
        }


def ratios(
    files: dict[str, bytes], images: np.ndarray, rounds: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Latency for one image of each file, and its ratio to the first in each round: median and quartiles."""
    from peers import timed, turns

    runs = {("onnx", name): runner(file) for name, file in files.items()}
    singles = {name: [wanted(file, image[None]) for image in images] for name, file in files.items()}
    blocks: dict[str, list[float]] = {name: [] for name in files}
    for (_, name), run in turns(runs, rounds):
        blocks[name].append(float(np.median(timed(run, singles[name], seconds, least=10))))
    base = np.array(next(iter(blocks.values())))
    return {
        name: {
            "latency_us": float(np.median(block)), "ratio": float(np.median(np.array(block) / base)),
            "ratio_quartiles": np.percentile(np.array(block) / base, [25, 75]).tolist(),
        }
        for name, block in blocks.items()
    }  # fmt: skip


def measure(
    entrants: Sequence[Any], case: Any, rounds: int, seconds: float, say: Callable[[str], None]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Rows by the entrants' names, and why the others have none."""
    rows: dict[str, dict[str, Any]] = {}
    absent: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for entrant in entrants:
        if entrant.missing:
            absent[entrant.name] = entrant.missing
            continue
        say(entrant.name)
        try:
            rows[entrant.name], files[entrant.name] = compressed(entrant, case)
        except Exception as error:  # a peer may raise anything, and the others shall run
            absent[entrant.name] = f"failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    say("latency")
    for name, figures in ratios(files, case.data.val.images[:64], rounds, seconds).items():
        rows[name] |= figures
    return rows, absent


def trained(data: Any, chosen: argparse.Namespace, seed: int) -> tuple[Any, float]:
    """The float network of a seed as a case, and its accuracy on validation."""
    import torch

    from compressors import Case, exported
    from netsuke.lab.inference import accuracy as right
    from netsuke.lab.models import build
    from netsuke.lab.steps.train import Training, train

    say(seed, "float training")
    torch.manual_seed(seed)
    name, options = NET
    common = {"seed": seed, "threads": 1, "precision": "float32"}
    model = build(name, data.image_shape, len(data.classes), **options)
    model = train(model, data, Training(epochs=chosen.epochs, lr=4e-3, **common))
    tune = Training(epochs=chosen.tuning, lr=1e-3, schedule="cosine", **common)
    case = Case(data, model, exported(model, data), tune, chosen.prune, chosen.calibration)
    return case, right(model, data.val)[0]


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation and n of each figure that the runs of a row have."""
    found = {}
    for figure in FIGURES:
        values = [run[figure] for run in runs if run.get(figure) is not None]
        if values:
            spread = stdev(values) if len(values) > 1 else 0.0
            found[figure] = {"mean": mean(values), "stdev": spread, "n": len(values)}
    return found


def table(found: dict[str, Any]) -> str:
    """Markdown: a row an entrant."""
    lines = [
        f"{found['hardware']}; {found['threads']} thread; load {', '.join(map(str, found['load_1min']))}; "
        + ", ".join(f"{name} {number}" for name, number in found["versions"].items()),
        "",
        "| | library | test accuracy % | ONNX bytes | .netsuke bytes | stored / coded bytes | MACs "
        "| latency to float | seconds | + export |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        s = row["summary"]
        stored = f"{_count(s, 'size_bytes')} / {_count(s, 'encoded_bytes')}" if "size_bytes" in s else "–"
        cells = (
            row["task"], row["library"], _spread(s["accuracy"], 100), _count(s, "onnx_bytes"),
            _count(s, "file_bytes"), stored, _count(s, "macs"), _spread(s["ratio"]),
            f"{s['seconds']['mean']:.1f}", f"{s['export_s']['mean']:.1f}",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{name}: {reason}" for name, reason in found["absent"].items())])


def _count(summary: dict[str, dict[str, float]], figure: str) -> str:
    return f"{summary[figure]['mean']:,.0f}" if figure in summary else "–"


def _spread(figure: dict[str, float], scale: float = 1.0) -> str:
    return f"{figure['mean'] * scale:.2f} ± {figure['stdev'] * scale:.2f}"


def parsed() -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("mnist", "digits"), default="mnist")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between")
    parser.add_argument("--images", type=int, default=10_000, help="of training, evenly drawn; 0 for all")
    parser.add_argument("--epochs", type=int, default=4, help="of the float network")
    parser.add_argument(
        "--tuning", type=int, default=2, help="epochs of fine-tuning after pruning, and of QAT"
    )
    parser.add_argument(
        "--tasks", default="", help="as the table names them, with commas between; all without"
    )
    parser.add_argument("--prune", type=float, default=0.5, help="share of the MACs that pruning takes")
    parser.add_argument("--calibration", type=int, default=1000, help="images")
    parser.add_argument("--rounds", type=int, default=20, help="turns of every file on the clock")
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs, five rounds")
    parser.add_argument(
        "--json", type=Path, help="keep everything measured in this file; a killed run goes on from it"
    )
    return parser.parse_args(), parser


def main() -> None:
    chosen, parser = parsed()
    if chosen.quick:
        chosen.seeds, chosen.rounds = "0", 5
        chosen.epochs, chosen.tuning = (8, 4) if chosen.data == "digits" else (1, 1)
    try:
        seeds = [int(seed) for seed in chosen.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds takes whole numbers with commas between; got {chosen.seeds!r}")
    if os.environ.get("OMP_NUM_THREADS") != "1":  # NumPy and torch read it as they load, so start again
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    warnings.simplefilter("ignore")  # torchao and NNCF have dozens
    logging.disable(logging.WARNING)
    found: dict[str, Any] = {}
    try:
        for found in run(chosen, seeds):
            if chosen.json:
                write(chosen.json, found)
    except NetsukeError as error:
        parser.exit(2, f"{error}\n")
    print(table(found))


def write(path: Path, found: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def begun(chosen: argparse.Namespace) -> dict[str, Any]:
    """What stands in the JSON file, if it is of the same budget; else nothing measured yet."""
    fresh = {
        "net": NET[0], "options": NET[1], **{name: getattr(chosen, name) for name in BUDGET},
        "hardware": hardware(), "threads": 1, "versions": versions(),
    }  # fmt: skip
    if chosen.json and chosen.json.exists():
        said = json.loads(chosen.json.read_text(encoding="utf-8"))
        if all(said.get(name) == value for name, value in fresh.items()):
            return said
    return {**fresh, "load_1min": [], "absent": {}, "seeds": [], "float_val_accuracy": [], "rows": []}


def run(chosen: argparse.Namespace, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Everything measured so far, at the start and after each seed; a seed that is done is not run again."""
    from compressors import ENTRANTS
    from netsuke import data

    found = begun(chosen)
    entrants = meant(ENTRANTS, chosen.tasks)
    runs = {row["name"]: row["runs"] for row in found["rows"]}
    yield found
    for seed in seeds:
        if seed in found["seeds"]:
            continue
        images = fewer(data.load(chosen.data, seed=seed).require("train", "val", "test"), chosen.images)
        case, right = trained(images, chosen, seed)
        rows, absent = measure(entrants, case, chosen.rounds, 0.05, say=lambda what, s=seed: say(s, what))
        for name, row in rows.items():
            runs.setdefault(name, []).append({"seed": seed, **row})
        found["seeds"].append(seed)
        found["float_val_accuracy"].append(right)
        found["absent"] |= absent
        found["load_1min"].append(round(os.getloadavg()[0], 2))
        found["rows"] = [
            {"name": e.name, "task": e.task, "library": f"{e.library}: {e.how}",
             "summary": summary(runs[e.name]), "runs": runs[e.name]}
            for e in entrants if e.name in runs
        ]  # fmt: skip
        yield found


def meant(entrants: Sequence[Any], tasks: str) -> list[Any]:
    """The entrants of these tasks, and the float files that the others are compared with."""
    wanted, known = set(filter(None, tasks.split(","))), {e.task for e in entrants}
    if wanted - known:
        raise OptionError(unknown(min(wanted - known), sorted(known), "task"))
    return [e for e in entrants if not wanted or e.task in wanted or e.task == "float"]


def say(seed: int, what: str) -> None:
    print(f"seed {seed}: {what}", file=sys.stderr, flush=True)


def fewer(images: Any, count: int) -> Any:
    """The data set with `count` training images, evenly drawn; all of them for 0, or where it has no more."""
    total = len(images.train)
    drawn = np.linspace(0, total - 1, min(count or total, total)).round().astype(int)
    return replace(images, train=images.train.take(drawn))


if __name__ == "__main__":
    main()
