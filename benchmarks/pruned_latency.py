"""What pruning does to the clock: half of the channels gone, beside 50 % and 90 % of single weights put to zero.

    python benchmarks/pruned_latency.py                     # convnet and resnet_small, about two minutes
    python benchmarks/pruned_latency.py --nets mobilenet_v2 --rounds 100 --json > pruned.json

Untrained networks at 28x28, since no clock sees what weights are worth. Each form answers single images on one
thread: in float by ONNX Runtime, and quantised to 8 bits as the C that `export` writes, compiled by `cc`. All forms
of a network take turns, a short block each, so that drift and other work on the machine hit all alike. `ratio` is
the median over rounds of a form's latency over that of the original in the same runtime and round, its quartiles
beside it: below 1 is faster. `encoded_bytes` are those of the form quantised to 8 bits and entropy coded.
Needs `pip install 'netsuke[lab,onnx]'`; without a C compiler the rows of C are left out.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from netsuke.artifact import Artifact
from netsuke.data import Dataset, Split
from netsuke.engine import Engine
from netsuke.errors import MissingExtra, NetsukeError
from netsuke.export.c import compiled, write
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.steps import encode, prune, quantize
from netsuke.measure.cost import macs
from netsuke.measure.latency import hardware
from peers import Run, timed, turns

SHAPE = (1, 28, 28)
CLASSES = tuple("0123456789")
ORIGINAL = "original"
ONNX, C = "ONNX Runtime, float", "C, 8 bits"
FLAGS = ("-O3", "-march=native")
CHANNELS = {"structure": "channels", "importance": "l2", "amount": 0.5}
FORMS: dict[str, dict[str, Any]] = {
    "50 % of the channels": CHANNELS,
    "50 % of the channels, eights": {**CHANNELS, "multiple": 8},
    "50 % of the weights zero": {"amount": 0.5},
    "90 % of the weights zero": {"amount": 0.9},
}


def noise() -> Dataset:
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (100, *SHAPE), np.uint8), rng.integers(0, 10, 100))
    return Dataset("noise", CLASSES, split, split, split, "noise", "none", "any")


def artifact(model: nn.Module) -> Artifact:
    coding = getattr(model, "coding", "")
    return Artifact(
        *lower(model, SHAPE), {"classes": list(CLASSES), **({"coding": coding} if coding else {})}
    )


def in_c(form: Artifact, folder: Path, name: str) -> Run:
    """The emitted C, compiled for this machine. Raises MissingExtra where there is no compiler."""
    library = folder / f"{name}.so"
    compiled(write(form, folder, name), library, "cc", ("-shared", "-fPIC", *FLAGS))
    call = getattr(ctypes.CDLL(str(library)), f"{name}_run")
    call.argtypes, call.restype = (ctypes.c_void_p, ctypes.c_void_p), None
    logits = np.zeros(len(CLASSES), np.int32)

    def run(image: np.ndarray) -> np.ndarray:
        call(image.ctypes.data, logits.ctypes.data)
        return logits

    return run


def runners(floats: dict[str, Artifact], coded: dict[str, Artifact]) -> dict[tuple[str, str], Run]:
    """Each form in each runtime; the C is checked against the reference."""
    runs: dict[tuple[str, str], Run] = {
        (ONNX, name): Engine(form, backend="onnxruntime").run for name, form in floats.items()
    }
    image = noise().test.images[:1]
    with tempfile.TemporaryDirectory() as folder:  # a library that is loaded needs its file no more
        try:
            for i, (name, form) in enumerate(coded.items()):
                runs[C, name] = run = in_c(form, Path(folder), f"net{i}")
                np.testing.assert_array_equal(run(image), form.logits(image)[0], err_msg=name)
        except MissingExtra as error:
            print(error, file=sys.stderr)
    return runs


def measure(net: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One row a form and runtime."""
    data, model = noise(), build(net, SHAPE, len(CLASSES)).eval()
    forms = {ORIGINAL: model} | {name: prune(model, data, **options) for name, options in FORMS.items()}
    found = {name: artifact(form) for name, form in forms.items()}
    coded = {name: artifact(encode(quantize(form, data), data)) for name, form in forms.items()}
    runs = runners(found, coded)
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (1, *SHAPE), np.uint8) for _ in range(64)]
    calls: dict[tuple[str, str], list[np.ndarray]] = {key: [] for key in runs}
    for key, run in turns(runs, rounds):
        calls[key].append(timed(run, images, seconds, least=10))
    middle = {key: np.array([np.median(block) for block in blocks]) for key, blocks in calls.items()}
    rows = []
    for (runtime, name), medians in middle.items():
        ratios = medians / middle[runtime, ORIGINAL]
        rows.append({
            "net": net, "form": name, "runtime": runtime,
            "macs": sum(macs(found[name].graph, found[name].tensors).values()),
            "size_bytes": found[name].size_bytes, "encoded_bytes": coded[name].encoded_bytes,
            "latency_us": float(np.median(medians)),
            "ratio": float(np.median(ratios)),
            "ratio_quartiles": [float(q) for q in np.percentile(ratios, [25, 75])],
            "n": sum(map(len, calls[runtime, name])), "rounds": rounds,
        })  # fmt: skip
    return rows


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['hardware']}; load {found['load_1min']}; one thread",
        "",
        "| net | runtime | form | MACs | stored bytes | 8 bits, encoded | median µs | ratio (quartiles) | n |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["results"]:
        low, high = row["ratio_quartiles"]
        lines.append(
            f"| {row['net']} | {row['runtime']} | {row['form']} | {row['macs']:,} | {row['size_bytes']:,} "
            f"| {row['encoded_bytes']:,} | {row['latency_us']:.1f} | {row['ratio']:.2f} ({low:.2f}–{high:.2f}) "
            f"| {row['n']:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default="convnet,resnet_small", help="names of models, separated by commas")
    parser.add_argument("--rounds", type=int, default=40, help="turns of every form")
    parser.add_argument("--seconds", type=float, default=0.05, help="how long a turn takes")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    found: dict[str, Any] = {"hardware": hardware(), "load_1min": round(os.getloadavg()[0], 2), "results": []}
    for net in filter(None, chosen.nets.split(",")):
        print(net, file=sys.stderr, flush=True)
        try:
            found["results"] += measure(net, chosen.rounds, chosen.seconds)
        except NetsukeError as error:
            parser.exit(2, f"{error}\n")
    print(json.dumps(found, indent=2) if chosen.json else table(found))


if __name__ == "__main__":
    main()
