"""Which maps are kept whole and which as a ring of rows, and where everything lies.

The stages are cut into segments. In one segment the rows flow: always the last stage that can step does, so a map is
read as it is made and only some of its rows are alive. The first segment is fed with the image, row by row. What
passes from a segment to a later one is kept whole. Of all lengths of the first segment the smallest block is taken;
what follows runs stage by stage, where maps that do not live at the same time share memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from netsuke.graph import INPUT, Graph, Tensors, Type
from netsuke.memory.fit import WORD, Buffer, fit
from netsuke.memory.stages import IN_PLACE, POOLS, Stage, bases, readers, stages, window, words

LONGEST = 40  # stages of the first segment: deeper maps are small
SCRATCH, STATE = "\0scratch", "\0state"  # no op is called so


@dataclass(frozen=True)
class Ring:
    """`rows` of the `of` rows of a map, `row_bytes` each; row y lies in place y % rows."""

    rows: int
    of: int
    row_bytes: int

    @property
    def size(self) -> int:
        return self.rows * self.row_bytes


@dataclass(frozen=True)
class Layout:
    """`owners` maps an activation to the one whose memory it shares; `offsets` are bytes, by owner."""

    stages: tuple[Stage, ...]
    streamed: int  # stages of the first segment; each other stage is a segment of its own
    owners: Mapping[str, str]
    rings: Mapping[str, Ring]
    offsets: Mapping[str, int]
    size: int
    reversed: frozenset[int]  # stages that work from the last pixel to the first: what they write lies higher

    def segment(self, stage: int) -> int:
        return 0 if stage < self.streamed else stage - self.streamed + 1

    def scratch(self, stage: int) -> int:
        return self.offsets[f"{SCRATCH}{self.segment(stage)}"]


def layout(graph: Graph, tensors: Tensors, weights: Mapping[str, int] = {}) -> Layout:
    """The layout of the smallest block, for a graph in the integer contract.

    `weights` are bytes that an op decodes weights into while it works, by its name.
    """
    net = _Net(graph, tensors, weights)
    return min((net.layout(streamed) for streamed in net.choices()), key=lambda found: found.size)


def direct(graph: Graph, types: Mapping[str, Type]) -> bool:
    """Whether the last op writes straight to the caller's logits: words, and all at once."""
    return types[graph.output].dtype == "i32" and graph.ops[-1].kind not in ("sumpool", "flatten")


def needed(stage: Stage, number: int, step: int, rows: int) -> int:
    """How many of the `rows` steps of an input must be done before this step."""
    window = stage.windows[number]
    return rows if window is None else min(step * window.stride + window.stop, rows)


class _Net:
    """A graph's stages with all that a layout asks of them."""

    def __init__(self, graph: Graph, tensors: Tensors, weights: Mapping[str, int] = {}):
        self.graph, self.tensors = graph, tensors
        self.types = graph.types(tensors)
        self.stages = tuple(
            replace(stage, scratch={**stage.scratch, "weights": weights[stage.op.name]})
            if stage.op.name in weights
            else stage
            for stage in stages(graph, tensors)
        )
        self.number = {stage.output: i for i, stage in enumerate(self.stages)}
        self.result = bases(graph)[graph.output]
        self.direct = direct(graph, self.types)
        self.readers: list[list[int]] = [[] for _ in self.stages]
        for i, stage in enumerate(self.stages):
            for name in dict.fromkeys(stage.inputs):
                if name != INPUT:
                    self.readers[self.number[name]].append(i)
        self.owners = self._owners()

    def _owners(self) -> dict[str, str]:
        """An op that looks at one value at a time writes over a map that only it reads."""
        reads = readers(self.graph)
        owners: dict[str, str] = {}
        for stage in self.stages:
            y = self.types[stage.output]
            owner = stage.output
            if stage.op.kind in IN_PLACE and len(y.shape) == 3:
                same = [x for x in stage.inputs if self.types[x].shape == y.shape and len(reads[x]) == 1]
                owner = owners[same[0]] if same else owner
            owners[stage.output] = owner
        return owners

    def choices(self) -> list[int]:
        """Numbers of stages that the first segment may have: those that read the image at least."""
        first = 1 + max((i for i, s in enumerate(self.stages) if INPUT in s.inputs), default=0)
        vector = (
            len(self.types[self.graph.output].shape) == 1
        )  # of a map, each row can go to the caller at once
        last = len(self.stages) - (1 if self.direct and vector else 0)
        return list(range(first, max(first, min(last, first + LONGEST)) + 1))

    def layout(self, streamed: int) -> Layout:
        rings = self._rings(streamed)
        buffers = self._buffers(streamed, rings)
        offsets, size = fit(buffers)
        backwards = (self.number[b.name] for b in buffers if self._backwards(b, rings, offsets))
        return Layout(self.stages, streamed, self.owners, rings, offsets, size, frozenset(backwards))

    @staticmethod
    def _backwards(buffer: Buffer, rings: Mapping[str, Ring], offsets: Mapping[str, int]) -> bool:
        """Whether a map lies over the one that it is made of, but too high to be written from its start on."""
        at = offsets[buffer.name]
        return any(
            at < offsets[x] + rings[x].size
            and offsets[x] < at + buffer.size
            and at + buffer.below[x] > offsets[x]
            for x in buffer.above
        )

    # --- rows that live at the same time ---

    def _rings(self, streamed: int) -> dict[str, Ring]:
        alive = self._alive(streamed)
        rings: dict[str, Ring] = {}
        for i, stage in enumerate(self.stages):
            owner, y = self.owners[stage.output], self.types[stage.output]
            rows = y.shape[1] if len(y.shape) == 3 else 1
            passed_on = any(reader >= streamed for reader in self.readers[i]) or stage.output == self.result
            kept = rows if i >= streamed or passed_on else min(rows, alive[i])
            kept = max(kept, rings[owner].rows if owner in rings else 0)
            rings[owner] = Ring(kept, rows, y.elements * y.itemsize // rows)
        return rings

    def _alive(self, streamed: int) -> list[int]:
        """The most rows of each stage's output that live at once while rows flow through the first segment."""
        done, alive = [0] * streamed, [1] * streamed
        heirs: dict[str, list[int]] = {}  # all that read a piece of memory
        for i in range(streamed):
            heirs.setdefault(self.owners[self.stages[i].output], []).extend(
                r for r in self.readers[i] if r < streamed
            )
        for pushed in range(1, self.graph.input_shape[1] + 1):
            i = streamed - 1
            while i >= 0:
                if not self._ready(i, done, pushed):
                    i -= 1
                    continue
                readers = heirs[self.owners[self.stages[i].output]]
                oldest = min((self._oldest(r, i, done) for r in readers), default=done[i])
                alive[i] = max(alive[i], done[i] + 1 - oldest)
                done[i] += 1
                i = max([i, *(r for r in self.readers[i] if r < streamed)])
        return alive

    def _ready(self, i: int, done: Sequence[int], pushed: int) -> bool:
        stage = self.stages[i]
        if done[i] == stage.steps:
            return False
        for number, name in enumerate(stage.inputs):
            made = pushed if name == INPUT else done[self.number[name]]
            rows = self.graph.input_shape[1] if name == INPUT else self.stages[self.number[name]].steps
            if made < needed(stage, number, done[i], rows):
                return False
        return True

    def _oldest(self, reader: int, writer: int, done: Sequence[int]) -> int:
        """The first row that a stage may still read of memory that another one writes to."""
        stage = self.stages[reader]
        if done[reader] == stage.steps:
            return done[writer]
        lows = [0 if w is None else max(0, done[reader] * w.stride + w.start) for w in stage.windows]
        owner = self.owners[self.stages[writer].output]
        return min(
            low for low, name in zip(lows, stage.inputs, strict=True) if self.owners.get(name) == owner
        )

    # --- buffers ---

    def _buffers(self, streamed: int, rings: Mapping[str, Ring]) -> list[Buffer]:
        segment = [0 if i < streamed else i - streamed + 1 for i in range(len(self.stages))]
        end = segment[-1] + 1  # the copy to the caller's logits
        lives: dict[str, tuple[int, int]] = {}
        for i, stage in enumerate(self.stages):
            owner = self.owners[stage.output]
            last = max([segment[i], *(segment[r] for r in self.readers[i])])
            last = end if stage.output == self.result else last
            first, before = lives.get(owner, (segment[i], last))
            lives[owner] = (first, max(last, before))
        buffers = [
            Buffer(
                owner,
                ring.size,
                self.types[owner].itemsize,
                *lives[owner],
                *self._over(owner, streamed, lives),
            )
            for owner, ring in rings.items()
            if not (self.direct and owner == self.result)
        ]
        scratch: dict[int, int] = {}
        for i, stage in enumerate(self.stages):
            scratch[segment[i]] = max(scratch.get(segment[i], 0), sum(map(words, stage.scratch.values())))
        buffers += [Buffer(f"{SCRATCH}{s}", size, WORD, s, s) for s, size in scratch.items() if size]
        return [*buffers, Buffer(STATE, counter_bytes(self.stages) * (streamed + 1), 2, 0, 0)]

    def _over(
        self, owner: str, streamed: int, lives: Mapping[str, tuple[int, int]]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """How far below and above its only input, which dies with it, a stage's output may start."""
        i = self.number[owner]
        stage = self.stages[i]
        if i < streamed or len(stage.inputs) != 1 or stage.windows[0] is None:
            return {}, {}
        x, y = self.types[stage.inputs[0]], self.types[owner]
        source = self.owners[stage.inputs[0]]
        dies = lives[source][1] == lives[owner][0] and len(self.readers[self.number[stage.inputs[0]]]) == 1
        if not dies or len(y.shape) != 3 or x.itemsize != y.itemsize:
            return {}, {}
        if stage.op.kind in POOLS and not any(stage.op.attrs.get("padding", ())):
            return {source: 0}, {}
        if stage.op.kind != "qconv2d":
            return {}, {}
        below, above = _distances(stage, x, y, self.tensors)
        return {source: below}, {source: above}


def counter_bytes(of: Sequence[Stage]) -> int:
    """The width of a counter of steps."""
    return 1 if max(stage.steps for stage in of) < 256 else 2


def _distances(stage: Stage, x: Type, y: Type, tensors: Tensors) -> tuple[int, int]:
    """Bytes that the output must start below its input, so that no pixel is overwritten before its last reader, or
    above it, where the pixels are computed from the last to the first.
    """
    ops = [op for op in (stage.after, stage.op, stage.before) if op and op.kind != "qadd"]
    spans = []
    for axis in (0, 1):
        whole = window(ops[0], axis, tensors)
        for op in ops[1:]:
            whole = whole.of(window(op, axis, tensors))
        steps, side = np.arange(y.shape[1 + axis]) * whole.stride, x.shape[1 + axis]
        spans.append(((steps + whole.start).clip(0, side), (steps + whole.stop).clip(0, side)))
    (top, bottom), (left, right) = spans
    first = (top[:, None] * x.shape[2] + left).reshape(-1) * x.shape[0]
    last = ((bottom[:, None] - 1) * x.shape[2] + right).reshape(-1) * x.shape[0]
    reads_first = stage.op.attrs["groups"] == 1 and not {"depth", "patch"}.isdisjoint(stage.scratch)
    skip = 1 if reads_first else 0  # a pixel is read before it is written, or while it is
    later = np.minimum.accumulate(np.append(first, x.elements)[::-1])[::-1]
    earlier = np.maximum.accumulate(np.append(0, last))
    number = np.arange(len(first))
    below = (number + 1) * y.shape[0] - later[skip : len(first) + skip]
    above = earlier[1 - skip : len(first) + 1 - skip] - number * y.shape[0]
    return int(below.max()), int(above.max())
