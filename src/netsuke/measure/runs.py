"""Artifacts on disk as runs of an experiment, and which of them differ only by their seed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netsuke.artifact import Artifact
from netsuke.errors import OptionError


@dataclass(frozen=True)
class Run:
    """One trained artifact and the file that holds it."""

    path: Path
    artifact: Artifact

    @property
    def seed(self) -> int | None:
        seed = self.artifact.manifest.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def recipe(self) -> Mapping[str, Any]:
        """How it was made, as its manifest says; empty where that says nothing."""
        recipe = self.artifact.manifest.get("recipe")
        return recipe if isinstance(recipe, dict) else {}

    @property
    def history(self) -> list[dict[str, float]]:
        """A row an epoch, numbers only; empty for a model that was made in several phases."""
        return _rows(self.artifact.manifest.get("history"))

    @property
    def train_s(self) -> float | None:
        """Seconds of all its epochs, in whatever phase; None where the manifest does not tell."""
        history = self.artifact.manifest.get("history")
        phases = history.values() if isinstance(history, dict) else [history]
        seconds = [row["seconds"] for phase in phases for row in _rows(phase) if "seconds" in row]
        return sum(seconds) if seconds else None


def _rows(history: object) -> list[dict[str, float]]:
    """The manifest is any JSON: what is not a number in a list of objects is left out."""
    rows = history if isinstance(history, list) else []
    return [
        {key: v for key, v in row.items() if isinstance(v, int | float)}
        for row in rows
        if isinstance(row, dict)
    ]


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ only by their seed together, each group under a name of its own, in the order given.

    Raises OptionError where one model is given twice.
    """
    seen: dict[str, Path] = {}
    groups: dict[str, list[Run]] = {}
    for run in runs:
        digest = run.artifact.weight_hash
        if digest in seen:
            raise OptionError(f"{run.path} holds the same model as {seen[digest]}: give each once")
        seen[digest] = run.path
        key = _identity(run)
        if any(run.seed == other.seed for other in groups.get(key, ())):
            key += str(run.path)  # not a run with another seed, whatever it is
        groups.setdefault(key, []).append(run)
    named: dict[str, list[Run]] = {}
    for members in groups.values():
        stems = {_stem(run.path) for run in members}
        name = stems.pop() if len(stems) == 1 else members[0].path.stem
        named[name if name not in named else str(members[0].path)] = members
    return named


def _identity(run: Run) -> str:
    """Equal for two runs of one recipe, model and width on the same data; the file itself without a recipe."""
    if not run.recipe or run.seed is None:
        return str(run.path)
    graph, manifest = run.artifact.graph, run.artifact.manifest
    ops = [[op.kind, op.attrs.get("bits")] for op in graph.ops]
    shapes = {name: list(array.shape) for name, array in run.artifact.tensors.items()}
    return json.dumps([_seedless(run.recipe), manifest.get("data_hash"), ops, shapes], sort_keys=True)


def _seedless(value: Any) -> Any:
    """A recipe without what differs from seed to seed: the seed, the threads, hashes of other models."""
    if isinstance(value, dict):
        dropped = ("seed", "threads", "teacher", "from")
        return {key: _seedless(v) for key, v in value.items() if key not in dropped}
    return [_seedless(v) for v in value] if isinstance(value, list) else value


def _stem(path: Path) -> str:
    """`lenet5` of `lenet5-seed0.netsuke`, and of `lenet5/seed-0.netsuke`."""
    return re.sub(r"[-_.]?seed[-_]?\d+$", "", path.stem) or path.absolute().parent.name or path.stem
