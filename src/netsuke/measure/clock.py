"""The times of a comparison: loading, and answering on every backend that can run the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.engine import Engine
from netsuke.errors import NetsukeError
from netsuke.measure.latency import BATCH, latency

SHOWN = ("latency_us", "p99_us", "images_per_s")
LONGEST = 120.0  # seconds for one figure: what answers slower than that is not worth waiting for
LEAST = 120 + 4 * BATCH  # images that `latency` runs at least


def times(path: Path, backends: Sequence[str], images: np.ndarray, seconds: float) -> dict[str, Any]:
    """`load_ms`, `backends` (each its figures, or why there are none) and the figures of the first that ran.

    `images` are uint8 [n, C, H, W]. `load_ms` is the median time from the file to an engine that can answer.
    """
    artifact = Artifact.load(path)
    found: dict[str, Any] = {}
    for name in backends:
        try:
            found[name] = timed(Engine(artifact, backend=name).run, images, seconds)
        except NetsukeError as error:
            found[name] = {"missing": str(error)}
    return {"load_ms": load_ms(path), **best(found)}


def best(backends: dict[str, Any]) -> dict[str, Any]:
    """The figures of all backends, and those of the first that has any as the model's own."""
    name = next((n for n, figures in backends.items() if "missing" not in figures), None)
    shown = backends[name] if name else dict.fromkeys(SHOWN)
    return {"backends": backends, "backend": name, **{key: shown[key] for key in SHOWN}}


def timed(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, seconds: float) -> dict[str, Any]:
    """Latency and throughput, or why it was not timed: one image takes so long that all would take minutes."""
    run(images[:1])
    once = min(_seconds(run, images[:1]) for _ in range(3))
    if once * LEAST > LONGEST:
        return {"missing": f"takes {once:.2g} s an image: too slow to time"}
    figures = latency(run, images, seconds=seconds)
    return {key: figures[key] for key in (*SHOWN, "min_us", "stdev_us", "n", "threads")}


def _seconds(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> float:
    start = perf_counter()
    run(images)
    return perf_counter() - start


def load_ms(path: Path, *, repeats: int = 5, longest: float = 3.0) -> float:
    """Milliseconds from the file to a ready engine, the median after a first time that imports the runtime."""
    taken: list[float] = []
    Engine(Artifact.load(path), backend="packaged")
    while len(taken) < repeats and sum(taken) < longest:
        start = perf_counter()
        Engine(Artifact.load(path), backend="packaged")
        taken.append(perf_counter() - start)
    return median(taken) * 1e3
