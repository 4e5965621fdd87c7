"""Latency beside ONNX Runtime, OpenVINO and LiteRT, one thread each, in one run: float and int8 of three networks.

    python benchmarks/peers.py                      # nets a, b and c, about a minute
    python benchmarks/peers.py --json --rounds 50 > peers.json
    python benchmarks/peers.py my.netsuke --nets ""  # artifacts beside them, or alone

a: conv32-conv64-dense128, 225 k parameters; b: LeNet-5, 61.7 k; c: separable, 7 k; all 28x28, untrained, since the
clock does not see weights. Needs `pip install 'netsuke[lab,tflite,openvino]'`; a peer that is not installed, or
that has no faithful form of a graph, is listed with its reason.

The engines of a network take turns, a short block each, in an order that moves on from round to round, so that drift
and other work on the machine hit all alike. `ratio` is the median over rounds of a backend's latency over that of
ONNX Runtime's float in the same round: below 1 is faster than it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.engine import BACKENDS, Engine
from netsuke.errors import NetsukeError
from netsuke.measure.cost import macs, parameters
from netsuke.measure.latency import BATCH, hardware

NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "a": ("convnet", {}),
    "b": ("lenet5", {}),
    "c": ("separable", {"width": 40}),
}
SHAPE = (1, 28, 28)
BASE = ("float", "onnxruntime")
WARMUP = 3  # calls at the start of a block, whose caches are another engine's
Key = tuple[str, str]  # form ("float" or "int8") and backend
Run = Callable[[np.ndarray], np.ndarray]


def built(net: str) -> dict[str, Artifact]:
    """A network of the table, in float and in int8 calibrated on noise."""
    from netsuke.data import Dataset, Split
    from netsuke.lab.lower import lower
    from netsuke.lab.models import build
    from netsuke.lab.steps.quantize import quantize

    name, options = NETS[net]
    classes = tuple("0123456789")
    model = build(name, SHAPE, len(classes), **options).eval()
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (200, *SHAPE), np.uint8), rng.integers(0, 10, 200))
    noise = Dataset("noise", classes, split, split, split, "noise", "none", "any")
    made = {"float": model, "int8": quantize(model, noise)}
    return {
        form: Artifact(*lower(module, SHAPE), {"classes": list(classes)}) for form, module in made.items()
    }


def engines(forms: dict[str, Artifact]) -> tuple[dict[Key, Run], list[dict[str, str]]]:
    """Every backend that runs each form, checked against the reference; and why the others do not."""
    runs: dict[Key, Run] = {}
    absent = []
    for form, artifact in forms.items():
        images = np.random.default_rng(1).integers(0, 256, (3, *artifact.graph.input_shape), np.uint8)
        want = artifact.logits(images)
        for name in BACKENDS:
            try:
                run = Engine(artifact, backend=name).run
            except NetsukeError as error:
                absent.append({"form": form, "backend": name, "reason": str(error)})
                continue
            tolerance = 0 if artifact.graph.integer else 1e-4
            np.testing.assert_allclose(run(images), want, atol=tolerance, rtol=tolerance, err_msg=name)
            runs[form, name] = run
    return runs, absent


def turns(runs: dict[Key, Run], rounds: int) -> Iterator[tuple[Key, Run]]:
    """Each engine once a round; the first of a round is the second of the one before."""
    order = list(runs.items())
    for i in range(rounds):
        first = i % len(order)
        yield from order[first:] + order[:first]


def timed(run: Run, inputs: list[np.ndarray], seconds: float, least: int) -> np.ndarray:
    """Microseconds of each call, for about `seconds` after the warm-up."""
    for i in range(WARMUP if least > 1 else 1):
        run(inputs[i % len(inputs)])
    times: list[float] = []
    start = perf_counter()
    while len(times) < least or perf_counter() - start < seconds:
        image = inputs[len(times) % len(inputs)]
        begin = perf_counter()
        run(image)
        times.append(perf_counter() - begin)
    return np.array(times) * 1e6


def measure(net: str, forms: dict[str, Artifact], rounds: int, seconds: float) -> tuple[list, list]:
    """One row a form and backend, and the rows that are absent."""
    runs, absent = engines(forms)
    shape = next(iter(forms.values())).graph.input_shape
    images = np.random.default_rng(2).integers(0, 256, (BATCH, *shape), np.uint8)
    singles = [np.ascontiguousarray(images[i : i + 1]) for i in range(64)]
    calls: dict[Key, list[np.ndarray]] = {key: [] for key in runs}
    batches: dict[Key, list[np.ndarray]] = {key: [] for key in runs}
    for key, run in turns(runs, rounds):
        calls[key].append(timed(run, singles, seconds, least=10))
    for key, run in turns(runs, max(3, rounds // 4)):
        batches[key].append(timed(run, [images], 0, least=1))
    of = {key: np.array([np.median(block) for block in blocks]) for key, blocks in calls.items()}
    rows = []
    for form, backend in runs:
        every = np.concatenate(calls[form, backend])
        ratios = of[form, backend] / of[BASE] if BASE in of else None
        artifact = forms[form]
        rows.append({
            "net": net, "form": form, "backend": backend,
            "parameters": parameters(artifact.graph, artifact.tensors),
            "macs": sum(macs(artifact.graph, artifact.tensors).values()),
            "latency_us": float(np.median(of[form, backend])),
            "p99_us": float(np.percentile(every, 99)), "min_us": float(every.min()),
            "ratio": None if ratios is None else float(np.median(ratios)),
            "ratio_quartiles": None if ratios is None else [float(q) for q in np.percentile(ratios, [25, 75])],
            "images_per_s": float(BATCH / np.median(np.concatenate(batches[form, backend])) * 1e6),
            "n": len(every), "rounds": rounds,
        })  # fmt: skip
    return rows, [{"net": net, **row} for row in absent]


def versions() -> dict[str, str]:
    found = {}
    for package in ("netsuke", "numpy", "onnxruntime", "openvino", "ai-edge-litert"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def forms_of(path: Path) -> dict[str, Artifact]:
    artifact = Artifact.load(path)
    return {"int8" if artifact.graph.integer else "float": artifact}


def table(found: dict[str, Any]) -> str:
    """Markdown: a row a network, form and backend."""
    lines = [
        f"{found['hardware']}; load {found['load_1min']}; "
        + ", ".join(f"{name} {number}" for name, number in found["versions"].items()),
        "",
        "| net | parameters | MACs | form | backend | median µs | p99 µs | to ONNX Runtime float | images/s at 256 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["results"]:
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(
            f"| {row['net']} | {row['parameters']:,} | {row['macs']:,} | {row['form']} | {row['backend']} | "
            f"{row['latency_us']:.1f} | {row['p99_us']:.1f} | {ratio} | {row['images_per_s']:,.0f} |"
        )
    reasons = dict.fromkeys(f"{row['form']} on {row['backend']}: {row['reason']}" for row in found["absent"])
    return "\n".join([*lines, "", *reasons])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifacts", nargs="*", type=Path, help=".netsuke files to time as well")
    parser.add_argument("--nets", default="a,b,c", help="which of a, b and c, separated by commas")
    parser.add_argument("--rounds", type=int, default=20, help="turns of every engine")
    parser.add_argument("--seconds", type=float, default=0.05, help="how long a turn of single images takes")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    chosen = parser.parse_args()
    nets = [net for net in chosen.nets.split(",") if net]
    unknown = sorted(set(nets) - set(NETS))
    if unknown:
        parser.error(f"no net {unknown[0]!r}; there are {', '.join(NETS)}")
    if chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    if os.environ.get("OMP_NUM_THREADS") != "1":  # NumPy reads it as it loads, so start again
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    found: dict[str, Any] = {
        "hardware": hardware(), "load_1min": round(os.getloadavg()[0], 2), "versions": versions(),
        "threads": 1, "results": [], "absent": [],
    }  # fmt: skip
    todo: list[tuple[str, Callable[[], dict[str, Artifact]]]] = [
        *((net, lambda net=net: built(net)) for net in nets),
        *((path.stem, lambda path=path: forms_of(path)) for path in chosen.artifacts),
    ]
    for i, (name, forms) in enumerate(todo):
        print(f"{i + 1} of {len(todo)}: {name}", file=sys.stderr, flush=True)
        try:
            rows, absent = measure(name, forms(), chosen.rounds, chosen.seconds)
        except NetsukeError as error:
            parser.exit(2, f"{error}\n")
        found["results"] += rows
        found["absent"] += absent
    print(json.dumps(found, indent=2) if chosen.json else table(found))


if __name__ == "__main__":
    main()
