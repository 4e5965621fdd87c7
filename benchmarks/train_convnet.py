"""Seconds an epoch of `convnet` on MNIST (55 000 images, batch 128, default options), median after a warm-up.

    python benchmarks/train_convnet.py              # five epochs on all cores
    python benchmarks/train_convnet.py --json --epochs 3 --threads 1

Needs MNIST: set NETSUKE_DATA, or `netsuke data fetch mnist`. The clock stops an epoch's training and its
validation on 5 000 images; it is wall time, so run it on an idle machine. The target on two cores is 15 s.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from statistics import median
from typing import Any

import torch

from netsuke import __version__, data
from netsuke.lab.models import build
from netsuke.lab.steps.train import Training, train
from netsuke.measure.latency import hardware


def measure(epochs: int, threads: int, batch: int = 128) -> dict[str, Any]:
    """Train for one epoch more than counted; the first pays for memory and code paths."""
    mnist = data.load("mnist").require("train")
    torch.manual_seed(0)
    model = build("convnet", mnist.image_shape, len(mnist.classes))
    options = Training(epochs=epochs + 1, batch=batch, threads=threads)
    history: list[dict[str, float]] = []

    def show(done: float, info: str, resumed: bool) -> None:
        print(f"\r{info}", end="", file=sys.stderr, flush=True)

    train(model, mnist, options, history=history, progress=show)
    print(file=sys.stderr)
    seconds = [row["seconds"] for row in history[1:]]
    return {
        "seconds_per_epoch": median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "epochs": epochs,
        "images": len(mnist.train),
        "images_per_s": round(len(mnist.train) / median(seconds)),
        "batch": batch,
        "threads": torch.get_num_threads(),
        "load_1min": round(os.getloadavg()[0], 2),
        "val_accuracy": history[-1]["val_accuracy"],
        "hardware": hardware(),
        "torch": str(torch.__version__),
        "netsuke": __version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=5, help="epochs that count")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    chosen = parser.parse_args()
    if chosen.epochs < 1:
        parser.error("--epochs must be at least 1")
    found = measure(chosen.epochs, chosen.threads or os.cpu_count() or 1)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['seconds_per_epoch']:.1f} s an epoch (median of {found['epochs']}: {found['fastest']:.1f} to "
          f"{found['slowest']:.1f}), {found['images_per_s']:,} images/s")  # fmt: skip
    print(
        f"{found['threads']} threads on {found['hardware']}, torch {found['torch']}, load {found['load_1min']}"
    )


if __name__ == "__main__":
    main()
