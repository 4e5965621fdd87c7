"""The classical baselines in a comparison: the same figures, by the same metrics and the same clock."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from netsuke.data import Dataset
from netsuke.lab import baselines
from netsuke.lab.baselines import Baseline
from netsuke.measure import clock
from netsuke.measure.comparison import judged
from netsuke.measure.latency import BATCH

BACKEND = "scikit-learn"  # what they run on


class Classical:
    """A baseline of `lab.baselines`, fitted with each seed when it is first asked for; only the first is kept."""

    def __init__(self, name: str, data: Dataset, seeds: Sequence[int]):
        self.name, self.data, self.seeds = name, data, seeds
        self._first: Baseline | None = None

    def figures(self, seed: int) -> dict[str, Any]:
        """What `comparison.figures` gives for an artifact, with `train_s`, the seconds of the fit."""
        start = perf_counter()
        fitted = baselines.fit(self.name, self.data, seed)
        seconds = perf_counter() - start
        if seed == self.seeds[0]:
            self._first = fitted
        test = self.data.test
        return judged(fitted.scores(test.images), test, self.data.classes) | {
            "parameters": int(fitted.parameters),
            "size_bytes": int(fitted.size_bytes),
            "description": fitted.description,
            "train_s": seconds,
        }

    def times(self, seconds: float) -> dict[str, Any]:
        """What `clock.times` gives for an artifact; there is no file to load."""
        if self._first is None:
            self._first = baselines.fit(self.name, self.data, self.seeds[0])
        images = self.data.test.images[:BATCH]
        return {"load_ms": None, **clock.best({BACKEND: clock.timed(self._first.scores, images, seconds)})}
