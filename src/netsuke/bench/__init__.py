"""Contenders timed in turns: on a machine that has other work, only what ran beside each other can be compared.

A round times every contender once, in an order that turns with each round. A ratio is taken within a round; its median
and its 5th and 95th percentile over the rounds are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netsuke.bench.contenders import Contender
from netsuke.measure.latency import BATCH

ROUNDS = 10
WARM_UP = 0.1  # seconds; Node.js compiles a module a second time while it runs


@dataclass
class Series:
    """The times of one contender in one way of running it: microseconds of calls, round by round."""

    batch: int
    rounds: list[np.ndarray] = field(default_factory=list)

    @property
    def medians(self) -> np.ndarray:
        return np.array([np.median(times) for times in self.rounds])

    @property
    def all(self) -> np.ndarray:
        return np.concatenate(self.rounds)


Key = tuple[str, str]  # contender, "latency", "throughput" or "throughput on all cores"


def interleaved(
    jobs: Mapping[Key, tuple[Contender, int]],
    images: Mapping[str, np.ndarray],
    seconds: float,
    done: Callable[[float, str], None] = lambda spent, name: None,
    rounds: int = ROUNDS,
) -> dict[Key, Series]:
    """Time every job (a contender and its batch) for about `seconds`, in rounds.

    `images` holds uint8 [n, C, H, W] for each contender; `done` hears of each piece of work. On Ctrl-C the rounds that
    were finished are returned, so there may be fewer, or none.
    """
    found = {key: Series(batch) for key, (_, batch) in jobs.items()}
    try:
        for key, (contender, batch) in jobs.items():
            contender.times(images[key[0]], batch, min(WARM_UP, seconds))
        for number in range(rounds):
            times = {}
            for key in list(jobs)[:: 1 if number % 2 else -1]:
                contender, batch = jobs[key]
                times[key] = contender.times(images[key[0]], batch, seconds / rounds)
                done(seconds / rounds, key[0])
            for key, values in times.items():  # a round counts when all have run
                found[key].rounds.append(values)
    except KeyboardInterrupt:
        pass
    return found


def figures(found: Mapping[Key, Series], name: str) -> dict[str, Any]:
    """Latency with its spread in microseconds, and images a second on one core and on all."""
    latency = found[name, "latency"].all
    low, median, high = np.percentile(latency, (5, 50, 95))
    row: dict[str, Any] = {
        "latency_us": float(median),
        "p5_us": float(low),
        "p95_us": float(high),
        "min_us": float(latency.min()),
        "n": len(latency),
        "batch": BATCH,
        "images_per_s": _rate(found[name, "throughput"]),
    }
    everywhere = found.get((name, "throughput on all cores"))
    row["images_per_s_all_cores"] = _rate(everywhere) if everywhere else None
    return row


def _rate(series: Series) -> float:
    return float(series.batch / np.median(series.all) * 1e6)


def ratios(found: Mapping[Key, Series], name: str, baseline: str) -> dict[str, dict[str, float]]:
    """How many times faster than the baseline: `latency` and `throughput`, each median, p5 and p95 of the rounds."""
    rows = {}
    for what in ("latency", "throughput"):
        per_round = found[baseline, what].medians / found[name, what].medians
        low, median, high = np.percentile(per_round, (5, 50, 95))
        rows[what] = {"median": float(median), "p5": float(low), "p95": float(high), "n": len(per_round)}
    return rows
