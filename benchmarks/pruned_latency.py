"""What pruning does to the clock: half of the channels gone, beside 50 % and 90 % of single weights put to zero.

    python benchmarks/pruned_latency.py                     # convnet and resnet_small, about a minute
    python benchmarks/pruned_latency.py --nets mobilenet_v2 --rounds 100 --json > pruned.json

Untrained networks at 28x28, since no clock sees what weights are worth. Each form answers single images by ONNX
Runtime on one thread; the forms of a network take turns, a short block each, so that drift and other work on the
machine hit all alike. `ratio` is the median over rounds of a form's latency over the original's in the same round,
its quartiles beside it: below 1 is faster. `encoded_bytes` are those of the form quantised to 8 bits and entropy coded.
Needs `pip install 'netsuke[lab,onnx]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

import numpy as np
from torch import nn

from netsuke.artifact import Artifact
from netsuke.data import Dataset, Split
from netsuke.engine import Engine
from netsuke.errors import NetsukeError
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.steps import encode, prune, quantize
from netsuke.measure.cost import macs
from netsuke.measure.latency import hardware
from peers import Run, timed, turns

SHAPE = (1, 28, 28)
CLASSES = tuple("0123456789")
ORIGINAL = "original"
FORMS: dict[str, dict[str, Any]] = {
    "50 % of the channels": {"structure": "channels", "importance": "l2", "amount": 0.5},
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


def measure(net: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One row a form."""
    data, model = noise(), build(net, SHAPE, len(CLASSES)).eval()
    forms = {ORIGINAL: model} | {name: prune(model, data, **options) for name, options in FORMS.items()}
    found = {name: artifact(form) for name, form in forms.items()}
    runs: dict[tuple[str, str], Run] = {
        (name, "onnxruntime"): Engine(form, backend="onnxruntime").run for name, form in found.items()
    }
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (1, *SHAPE), np.uint8) for _ in range(64)]
    calls: dict[str, list[np.ndarray]] = {name: [] for name in found}
    for (name, _), run in turns(runs, rounds):
        calls[name].append(timed(run, images, seconds, least=10))
    middle = {name: np.array([np.median(block) for block in blocks]) for name, blocks in calls.items()}
    rows = []
    for name, form in found.items():
        ratios = middle[name] / middle[ORIGINAL]
        coded = artifact(encode(quantize(forms[name], data), data))
        rows.append({
            "net": net, "form": name,
            "macs": sum(macs(form.graph, form.tensors).values()),
            "size_bytes": form.size_bytes, "encoded_bytes": coded.encoded_bytes,
            "latency_us": float(np.median(middle[name])),
            "ratio": float(np.median(ratios)),
            "ratio_quartiles": [float(q) for q in np.percentile(ratios, [25, 75])],
            "n": sum(map(len, calls[name])), "rounds": rounds,
        })  # fmt: skip
    return rows


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['hardware']}; load {found['load_1min']}; ONNX Runtime on one thread",
        "",
        "| net | form | MACs | stored bytes | 8 bits, encoded | median µs | ratio (quartiles) | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["results"]:
        low, high = row["ratio_quartiles"]
        lines.append(
            f"| {row['net']} | {row['form']} | {row['macs']:,} | {row['size_bytes']:,} | {row['encoded_bytes']:,} | "
            f"{row['latency_us']:.1f} | {row['ratio']:.2f} ({low:.2f}–{high:.2f}) | {row['n']:,} |"
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
