"""Which units go: the least important first, in combinations that grouped convolutions and shuffles can bear."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from math import prod

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp  # type: ignore[import-untyped]

from netsuke.lab.channels import Balance, Channels, depthwise

Figure = Callable[[np.ndarray], float]  # of the numbers of kept channels, one an output
TARGETS = ("channels", "parameters", "macs", "bytes")


def savings(channels: Channels, target: str, bits: int = 32) -> np.ndarray:
    """What the figure falls by where a unit goes alone, float64 [units]."""
    cost, kept = figure(channels, target, bits), channels.uses.sum(1)
    return np.array([cost(kept) - cost(kept - channels.uses[:, unit]) for unit in range(channels.count)])


def figure(channels: Channels, target: str, bits: int = 32) -> Figure:
    """What a network costs by its numbers of channels: `channels`, `parameters`, `macs` or `bytes`.

    Channels are those of layers that may go; bytes count `bits` a weight and 32 for everything else.
    """
    graph, types = channels.graph, channels.types
    layers = channels.layers
    index = np.array([channels.index[op.name] for op in layers])
    inputs, areas, taps = [], [], []
    for op in layers:
        size = types[op.inputs[0]].shape[0]
        single = depthwise(op, size)
        # A grouped layer reads its share of the inputs, a depthwise one a single channel whatever their number.
        inputs.append(-1 if single else channels.index[op.inputs[0]])
        groups = 1 if single else op.attrs.get("groups", 1)
        taps.append(prod(channels.tensors[op.tensor("weight")].shape[2:]) / groups)
        areas.append(prod(types[op.name].shape[1:]))
    source, tap, area = np.array(inputs), np.array(taps), np.array(areas)
    slopes = [channels.index[op.name] for op in graph.ops if op.kind == "prelu"]
    immovable = int((channels.rows * channels.fixed).sum())

    def weights(kept: np.ndarray) -> np.ndarray:
        return kept[index] * np.where(source < 0, 1, kept[source]) * tap

    def others(kept: np.ndarray) -> float:
        return float(kept[index].sum() + kept[slopes].sum())

    return {
        "channels": lambda kept: float(kept[index].sum()) - immovable,
        "parameters": lambda kept: float(weights(kept).sum()) + others(kept),
        "macs": lambda kept: float((weights(kept) * area).sum()),
        "bytes": lambda kept: float(weights(kept).sum()) * bits / 8 + 4 * others(kept),
    }[target]


class Selection:
    """The units that are gone so far; every output keeps a channel.

    `price` is the importance of each unit, of all its channels together. `weight` is what it saves: the cheapest
    per saving goes first.
    """

    def __init__(self, channels: Channels, price: np.ndarray, weight: np.ndarray | None = None):
        self.channels, self.price = channels, price
        self.weight = np.maximum(channels.rows if weight is None else weight, 1e-12)
        self.gone = np.zeros(channels.count, bool)
        self.kept = channels.uses.sum(1)
        bound = [balance.units for balance in channels.balances]
        self.bound = np.isin(np.arange(channels.count), np.concatenate(bound) if bound else [])

    def take(self, units: Iterable[int], done: Callable[[np.ndarray], bool]) -> None:
        """Remove units out of these, and what their balances ask for, until `done(kept channels)`."""
        wanted = np.zeros(self.channels.count, bool)
        wanted[list(units)] = True
        wanted &= ~self.channels.fixed & ~self.gone
        queue: list[Offer] = []
        for unit in np.flatnonzero(wanted & ~self.bound):
            queue.append((self.price[unit] / self.weight[unit], len(queue), np.array([unit]), None))
        for balance in self.channels.balances:
            if wanted[balance.units].any():
                queue += self._offer(_Moves(self, balance), len(queue))
        heapq.heapify(queue)
        serial = len(queue)
        while queue and not done(self.kept):
            _, _, move, moves = heapq.heappop(queue)
            if self._possible(move):
                self.gone[move] = True
                self.kept = self.kept - self.channels.uses[:, move].sum(1)
            if moves:  # also where others have meanwhile taken all but an output's last channel
                serial += 1
                for entry in self._offer(moves, serial):
                    heapq.heappush(queue, entry)

    def _possible(self, move: np.ndarray) -> bool:
        """Whether every output would keep a channel."""
        used = self.channels.uses[:, move].sum(1)
        return not ((used > 0) & (used >= self.kept)).any()

    def _offer(self, moves: _Moves, serial: int) -> list[Offer]:
        move = moves.next()
        if move is None or not self._possible(move):
            return []
        return [(self.price[move].sum() / self.weight[move].sum(), serial, move, moves)]


class _Moves:
    """The cheapest combination of a balance's units, one after another.

    Units that the equations and outputs cannot tell apart make a cell; an integer program says how many of each
    cell go, and the least important ones do.
    """

    def __init__(self, selection: Selection, balance: Balance):
        self.s = selection
        uses = selection.channels.uses[:, balance.units]
        self.outputs = np.flatnonzero(uses.any(1))
        traits = np.vstack([balance.equations, uses[self.outputs], selection.channels.fixed[balance.units]])
        unlike, which = np.unique(traits, axis=1, return_inverse=True)
        count = len(balance.equations)
        self.equations, self.uses, self.fixed = unlike[:count], unlike[count:-1], unlike[-1].astype(bool)
        self.cells: list[list[int]] = []
        for i in range(unlike.shape[1]):
            units = balance.units[which.reshape(-1) == i]
            self.cells.append(sorted(units.tolist(), key=lambda u: (selection.price[u], u)))

    def next(self) -> np.ndarray | None:
        """Units that may go together, None where no more can."""
        left = [[u for u in cell if not self.s.gone[u]] for cell in self.cells]
        number = np.array([len(cell) for cell in left])
        free = np.where(self.fixed, 0, number)
        price = np.array([self.s.price[cell[0]] if cell else 0.0 for cell in left])
        # Scaled, so that the solver's tolerance does not depend on the unit of importance; a little for each unit
        # keeps combinations small where nothing else tells them apart.
        scale = max(float(price[free > 0].max(initial=0.0)), 1e-30)
        room = self.s.kept[self.outputs] - 1
        limits = [
            LinearConstraint(self.equations, 0, 0),
            LinearConstraint(self.uses, -np.inf, room),
            LinearConstraint(np.ones((1, len(left))), 1, np.inf),
        ]
        found = milp(
            price / scale + 1e-3, integrality=np.ones(len(left)), bounds=Bounds(0, free), constraints=limits
        )
        if found.x is None:
            return None
        counts = np.rint(found.x).astype(int)
        return np.array([u for cell, n in zip(left, counts, strict=True) for u in cell[:n]])


Offer = tuple[
    float, int, np.ndarray, _Moves | None
]  # price per saving, what settles a tie, units, what follows
