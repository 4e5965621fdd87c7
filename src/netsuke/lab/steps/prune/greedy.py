"""Which units go: the least important first, in combinations that grouped convolutions and shuffles can bear."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from math import prod

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp  # type: ignore[import-untyped]

from netsuke.lab.channels import LAYERS, Balance, Channels, Group, depthwise

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
    per saving goes first. With a `multiple` above 1 units go in blocks: each layer keeps a multiple of so many
    channels, or all that it had. One of fewer stays as it is.
    """

    def __init__(
        self, channels: Channels, price: np.ndarray, weight: np.ndarray | None = None, multiple: int = 1
    ):
        self.channels, self.price, self.multiple = channels, price, multiple
        self.weight = np.maximum(channels.rows if weight is None else weight, 1e-12)
        self.gone = np.zeros(channels.count, bool)
        self.kept = channels.uses.sum(1)
        self.floor = np.ones_like(self.kept)  # the channels that every output keeps
        self.balances = channels.balances if multiple == 1 else [*map(self._joint, channels.groups)]
        bound = [balance.units for balance in self.balances]
        self.bound = np.isin(np.arange(channels.count), np.concatenate(bound) if bound else [])

    def take(self, units: Iterable[int], done: Callable[[np.ndarray], bool]) -> None:
        """Remove units out of these, and what their balances ask for, until `done(kept channels)`."""
        wanted = np.zeros(self.channels.count, bool)
        wanted[list(units)] = True
        wanted &= ~self.channels.fixed & ~self.gone
        queue: list[Offer] = []
        for unit in np.flatnonzero(wanted & ~self.bound):
            queue.append((self.price[unit] / self.weight[unit], len(queue), np.array([unit]), None))
        for balance in self.balances:
            if wanted[balance.units].any():
                queue += self._offer(_Moves(self, balance), len(queue))
        heapq.heapify(queue)
        serial = len(queue)
        taken: list[tuple[np.ndarray, _Moves | None]] = []
        while queue and not done(self.kept):
            _, _, move, moves = heapq.heappop(queue)
            if self._possible(move):
                self.gone[move] = True
                self.kept = self.kept - self.channels.uses[:, move].sum(1)
                taken.append((move, moves))
            if moves:  # also where others have meanwhile taken all but an output's last channel
                serial += 1
                for entry in self._offer(moves, serial):
                    heapq.heappush(queue, entry)
        if self.multiple > 1 and done(self.kept):
            self._give_back(taken, done)

    def _give_back(
        self, taken: list[tuple[np.ndarray, _Moves | None]], done: Callable[[np.ndarray], bool]
    ) -> None:
        """Return what the last block, which may be large, has made needless; of each balance the last to go first."""
        needed = set[int]()
        for move, moves in reversed(taken):
            if id(moves) in needed:
                continue
            before = self.kept
            self.gone[move], self.kept = False, before + self.channels.uses[:, move].sum(1)
            if not done(self.kept):
                self.gone[move], self.kept = True, before
                needed.add(id(moves))

    def _joint(self, group: Group) -> Balance:
        """All units of a group, which its layers count together, and its equations."""
        inside = [b for b in self.channels.balances if np.isin(b.units, group.units).any()]
        units = np.unique(np.concatenate([group.units, *(b.units for b in inside)]))
        tables = [np.zeros((len(b.equations), len(units)), int) for b in inside]
        for table, balance in zip(tables, inside, strict=True):
            table[:, np.searchsorted(units, balance.units)] = balance.equations
        return Balance(units, np.concatenate([np.zeros((0, len(units)), int), *tables]))

    def _possible(self, move: np.ndarray) -> bool:
        """Whether every output would keep what it must."""
        used = self.channels.uses[:, move].sum(1)
        return not ((used > 0) & (self.kept - used < self.floor)).any()

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
        made = np.array([selection.channels.graph.ops[i].kind in LAYERS for i in self.outputs], bool)
        self.layers = np.flatnonzero(self.uses[:, ~self.fixed].any(1) & made)
        self.cells: list[list[int]] = []
        for i in range(unlike.shape[1]):
            units = balance.units[which.reshape(-1) == i]
            self.cells.append(sorted(units.tolist(), key=lambda u: (selection.price[u], u)))

    def next(self) -> np.ndarray | None:
        """Units that may go together, None where no more can."""
        left = [[u for u in cell if not self.s.gone[u]] for cell in self.cells]
        number = np.array([len(cell) for cell in left])
        free = np.where(self.fixed, 0, number)
        ahead = self.s.multiple
        price = np.array([self.s.price[cell[:ahead]].mean() if cell else 0.0 for cell in left])
        # Scaled, so that the solver's tolerance does not depend on the unit of importance; a little for each unit
        # keeps combinations small where nothing else tells them apart.
        scale = max(float(price[free > 0].max(initial=0.0)), 1e-30)
        room = np.maximum(0, self.s.kept - self.s.floor)[self.outputs]
        table = np.vstack([self.equations, self.uses, np.ones((1, len(left)), int)])
        low = np.concatenate([np.zeros(len(self.equations)), np.full(len(room), -np.inf), [1]])
        high = np.concatenate([np.zeros(len(self.equations)), room, [np.inf]])
        counts = self._solved(price / scale + 1e-3, free, LinearConstraint(table, low, high))
        if counts is None:
            return None
        return np.array([u for cell, n in zip(left, counts, strict=True) for u in cell[:n]])

    def _solved(self, price: np.ndarray, free: np.ndarray, limits: LinearConstraint) -> np.ndarray | None:
        """How many of each cell go; int [cells].

        A layer of n channels loses u of them: n = u + m k + r (1 - b), with m the multiple, k >= 1 the blocks that
        stay, r what n has over a multiple, and b whether the layer loses any, u <= n b. One of fewer than m loses none.
        """
        m, kept = self.s.multiple, self.s.kept[self.outputs[self.layers]]
        if m == 1:
            found = milp(price, integrality=np.ones(len(free)), bounds=Bounds(0, free), constraints=limits)
            return None if found.x is None else np.rint(found.x).astype(int)
        used, size, none = self.uses[self.layers], len(kept), np.zeros((len(kept),) * 2)
        small = kept < m
        over = np.where(small, kept, kept % m)
        blocks = LinearConstraint(
            np.hstack([used, m * np.eye(size), -np.diag(over)]), kept - over, kept - over
        )
        losing = LinearConstraint(np.hstack([used, none, -np.diag(kept)]), -np.inf, 0)
        limits.A = np.hstack([limits.A, np.zeros((len(limits.A), 2 * size))])
        found = milp(
            np.concatenate([price, np.zeros(2 * size)]),
            integrality=np.ones(len(free) + 2 * size),
            bounds=Bounds(
                np.concatenate([np.zeros(len(free)), ~small, np.zeros(size)]),
                np.concatenate([free, kept // m, ~small]),
            ),
            constraints=[limits, blocks, losing],
        )
        return None if found.x is None else np.rint(found.x[: len(free)]).astype(int)


Offer = tuple[
    float, int, np.ndarray, _Moves | None
]  # price per saving, what settles a tie, units, what follows
