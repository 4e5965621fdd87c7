"""How long an answer takes, by the clock of this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import DataError
from netsuke.measure.report import Report

BATCH = 256
Run = Callable[[np.ndarray], np.ndarray]


def latency(engine: Any, images: np.ndarray, *, seconds: float = 1.0, warmup: int = 20) -> dict[str, Any]:
    """Time single images, then batches of 256, for about `seconds` each; times in microseconds.

    `engine` is a callable, or has `run`, from uint8 [n, C, H, W] to logits. The images take turns, so that no
    one image sits in the cache. `threads` is processor time over wall time: near 1 for one busy thread.
    Raises DataError where there is no image.
    """
    if not len(images):
        raise DataError("latency needs at least one image")
    run: Run = getattr(engine, "run", engine)
    singles = [np.ascontiguousarray(images[i : i + 1]) for i in range(min(len(images), BATCH))]
    batch = np.ascontiguousarray(images[np.arange(BATCH) % len(images)])
    times, threads = _repeat(run, singles, seconds, warmup, least=100)
    batches, _ = _repeat(run, [batch], seconds, 1, least=3)
    return {
        "latency_us": float(np.median(times) * 1e6),
        "p99_us": float(np.percentile(times, 99) * 1e6),
        "min_us": float(times.min() * 1e6),
        "stdev_us": float(times.std() * 1e6),
        "n": len(times),
        "warmup": warmup,
        "threads": round(threads, 2),
        "batch": BATCH,
        "images_per_s": float(BATCH / np.median(batches)),
        "hardware": hardware(),
    }


def median_us(engine: Any, images: np.ndarray, *, seconds: float = 0.3, warmup: int = 20) -> float:
    """The median time of single images alone, in microseconds; `engine` and `images` as `latency` takes them."""
    if not len(images):
        raise DataError("latency needs at least one image")
    singles = [np.ascontiguousarray(images[i : i + 1]) for i in range(min(len(images), BATCH))]
    times, _ = _repeat(getattr(engine, "run", engine), singles, seconds, warmup, least=10)
    return float(np.median(times) * 1e6)


def _repeat(
    run: Run, inputs: list[np.ndarray], seconds: float, warmup: int, least: int
) -> tuple[np.ndarray, float]:
    """Seconds of each call after the warm-up, and processor seconds per second of wall time."""
    for i in range(warmup):
        run(inputs[i % len(inputs)])
    times: list[float] = []
    cpu, start = process_time(), perf_counter()
    while len(times) < least or perf_counter() - start < seconds:
        image = inputs[len(times) % len(inputs)]
        begin = perf_counter()
        run(image)
        times.append(perf_counter() - begin)
    return np.array(times), (process_time() - cpu) / (perf_counter() - start)


def hardware() -> str:
    """The processor's name and the logical cores this process may use, e.g. `AMD EPYC 7B13, 2 cores`."""
    names = [platform.processor() or platform.machine()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")] or names
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0]}, {cores} cores"


def latency_report(artifact: Artifact, split: Any) -> Report:
    """The median time of one image by the NumPy reference."""
    got = latency(artifact.logits, split.images)
    return Report("latency_us", got["latency_us"], "us", got["n"], got["stdev_us"])
