"""What every kind of pruning shares: the start, which layers are meant, and the training of each round."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar, cast

from torch import nn

from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.lab.lower import lower
from netsuke.lab.modules import FloatGraph
from netsuke.lab.normed import NormedGraph, renormed
from netsuke.lab.removal import masked_like
from netsuke.lab.steps.prune.options import Prune
from netsuke.lab.steps.prune.schedule import reached
from netsuke.lab.steps.prune.weights import remask
from netsuke.lab.steps.train import train
from netsuke.lab.training import Masks, Progress, Teacher

G = TypeVar("G", bound=nn.Module)


def float_graph(model: nn.Module, data: Dataset) -> FloatGraph:
    """A copy of the model as a graph whose weights train; masks that are there stay.

    Raises UnsupportedLayer or UnsupportedOp where the model has no such graph.
    """
    return (
        copy.deepcopy(model) if isinstance(model, FloatGraph) else FloatGraph(*lower(model, data.image_shape))
    )


def with_norms(network: FloatGraph, data: Dataset, options: Prune) -> FloatGraph:
    """The network as it is to train: with batch norms behind its convolutions, if it has any and this is wanted."""
    if options.norms and options.training.epochs and not isinstance(network, NormedGraph):
        # Not where weights or soft channels are ranked: the lengths of filters tell them apart.
        even = options.kind in ("channels", "layers") and not options.soft
        with suppress(OptionError):  # there is no convolution
            return renormed(network, data, even=even)
    return network


def folded(network: FloatGraph) -> FloatGraph:
    """The network without batch norms of its own, its masks kept; ready for use."""
    if isinstance(network, NormedGraph):
        network = masked_like(FloatGraph(*network.to_graph()), network)
        remask(network)
    return network.eval()


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The layers that a pattern matches. Raises OptionError, naming the nearest, where there is none."""
    names = list(names)
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        near = difflib.get_close_matches(pattern, names, 3, 0.3) or names[:3]
        raise OptionError(f"{pattern!r} matches no layer that can be pruned; near: {', '.join(near)}")
    return found


def skipped(options: Prune, names: Iterable[str]) -> set[str]:
    names = list(names)
    return {name for pattern in options.skip for name in matching(pattern, names)}


def own_amounts(options: Prune, names: Iterable[str]) -> dict[str, float]:
    """The amounts of layers that have one of their own; of several patterns the last counts."""
    names = list(names)
    return {name: amount for pattern, amount in options.layers.items() for name in matching(pattern, names)}


def shares(options: Prune) -> Iterator[tuple[int, float]]:
    """Each round, from 1, with the share of the way it goes to: 1 in the last."""
    for number in range(1, options.rounds + 1):
        yield number, number / options.rounds


def amount_at(options: Prune, t: float, amount: float | None = None) -> float:
    return reached(options.schedule, t, options.amount if amount is None else amount)


@dataclass(frozen=True)
class Trainer:
    """Trains a network between prunings, each time in a folder of its own, so that a killed run goes on from there."""

    data: Dataset
    options: Prune
    teacher: Teacher | None = None
    work: Path | None = None
    history: list[dict[str, float]] | None = None
    progress: Progress | None = None

    def __call__(
        self,
        model: G,
        name: str,
        *,
        amount: float,
        masks: Masks | None = None,
        epochs: int | None = None,
    ) -> G:
        """The trained copy; rows of its history say the amount that was pruned then."""
        options = self.options.training
        rows: list[dict[str, float]] = []
        trained = train(
            model,
            self.data,
            options if epochs is None else replace(options, epochs=epochs),
            teacher=self.teacher,
            masks=masks,
            work=self.work / name if self.work else None,
            history=rows,
            progress=self._named(name),
        )
        if self.history is not None:
            self.history.extend({"amount": amount, **row} for row in rows)
        return cast(G, trained)  # `train` gives back what it was given, trained

    def _named(self, name: str) -> Progress | None:
        progress = self.progress
        if progress is None:
            return None
        return lambda done, info, resumed: progress(done, f"{name}: {info}", resumed)
