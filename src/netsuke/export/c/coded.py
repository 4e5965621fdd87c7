"""Weights that stay entropy coded in flash: their streams and tables, and the C that decodes them.

Canonical Huffman codes of `coding.huffman`, with gaps where a layer is pruned, over the weights in the order in which
the kernels read them. The weights of a dense layer are used once an image: they are decoded as they are needed, four
outputs at a time, into the scratch of its stage. Those of convolutions are used at every pixel: they are decoded once,
into a block of RAM of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netsuke.coding import huffman
from netsuke.errors import OptionError

# Code of the decoder at -Os for a Cortex-M0, without and with gaps; tests/export compile it anew.
DECODER_BYTES = {False: 270, True: 290}
WINDOW = 16  # bits looked at to find a code, which has at most 15
PAD = 2  # bytes behind the last stream that the window may look into


@dataclass(frozen=True)
class Source:
    """The weights of one op as bytes, two's complement, in the order in which they are read."""

    op: str
    bits: int
    values: np.ndarray
    block: int  # weights that are decoded at a time, or 0 where all are, once

    @property
    def packed_bytes(self) -> int:
        return (self.values.size * self.bits + 7) // 8


@dataclass(frozen=True)
class Unit:
    """Ops that share their tables: one of values or, for pruned layers, one of gaps and one of values.

    Those that are decoded at once share a stream, too.
    """

    bits: int
    tables: tuple[huffman.Table, ...]
    streams: Mapping[tuple[str, ...], bytes]

    @property
    def sparse(self) -> bool:
        return len(self.tables) > 1

    @property
    def table_bytes(self) -> int:
        return sum(2 * steps(table).size + symbols(table).size for table in self.tables)

    @property
    def size(self) -> int:
        return self.table_bytes + sum(map(len, self.streams.values()))


@dataclass(frozen=True)
class Coded:
    """What is coded, by units; `ram` is where weights of a convolution are decoded to, in a block of `ram_bytes`."""

    units: tuple[Unit, ...]
    at: Mapping[tuple[str, ...], int]  # where the stream of ops begins
    ram: Mapping[str, int]
    ram_bytes: int
    scratch: Mapping[str, int]  # bytes that a dense layer decodes into, by op
    packed: Mapping[str, int]  # bytes that were packed, by op

    def unit(self, op: str) -> int | None:
        return next((i for i, unit in enumerate(self.units) for ops in unit.streams if op in ops), None)

    @property
    def size(self) -> int:
        return PAD + sum(unit.size for unit in self.units)


def plan(sources: Sequence[Source]) -> Coded:
    """The smallest coding of these weights. Raises OptionError where it saves nothing, its decoder counted."""
    if not sources:
        raise OptionError("coding does not pay: no weights of more than a bit to code; leave weights=packed")
    units: list[Unit] = []
    for bits in sorted({source.bits for source in sources}):
        kind = [source for source in sources if source.bits == bits]
        apart = [[source for source in kind if bool(source.block) == streamed] for streamed in (True, False)]
        groups = [[kind], [part for part in apart if part], [[source] for source in kind]]
        choices = [_smaller(group) for group in groups]
        units += max(choices, key=lambda choice: choice[1])[0]
    coded = _placed(tuple(units), {source.op: source for source in sources})
    packed = sum(source.packed_bytes for source in sources)
    decoder = DECODER_BYTES[any(unit.sparse for unit in units)]
    size = packed - sum(coded.packed.values()) + coded.size + decoder
    if not units or size >= packed:
        result = f"{size} coded, {decoder} of them the decoder" if units else "and no fewer coded"
        raise OptionError(f"coding does not pay: {packed} bytes packed, {result}; leave weights=packed")
    return coded


def _placed(units: tuple[Unit, ...], sources: Mapping[str, Source]) -> Coded:
    at, ram, scratch, packed, stream_end, ram_end = {}, {}, {}, {}, 0, 0
    for unit in units:
        for ops, stream in unit.streams.items():
            at[ops], stream_end = stream_end, stream_end + len(stream)
            for source in (sources[op] for op in ops):
                packed[source.op] = source.packed_bytes
                if source.block:
                    scratch[source.op] = (source.block * source.bits + 7) // 8
                else:
                    ram[source.op], ram_end = ram_end, ram_end + source.packed_bytes
    return Coded(units, at, ram, ram_end, scratch, packed)


def _smaller(groups: list[list[Source]]) -> tuple[list[Unit], int]:
    """The units of these groups that shrink, and the bytes that they save."""
    units, saved = [], 0
    for group in groups:
        packed = sum(source.packed_bytes for source in group)
        unit = min(_tried(group), key=lambda unit: unit.size, default=None)
        if unit and unit.size < packed:
            units.append(unit)
            saved += packed - unit.size
    return units, saved


def _tried(group: list[Source]) -> list[Unit]:
    """A group without gaps, and with gaps of every width."""
    together = [source for source in group if not source.block]
    parts = [[source] for source in group if source.block] + ([together] if together else [])
    values = {tuple(s.op for s in part): np.concatenate([s.values for s in part]) for part in parts}
    choices: list[dict[tuple[str, ...], tuple[np.ndarray, ...]]]
    choices = [{ops: (array,) for ops, array in values.items()}]
    if all(array.any() for array in values.values()):
        choices += [{ops: huffman.gaps_of(array, 1 << width) for ops, array in values.items()}
                    for width in huffman.SKIPS]  # fmt: skip
    found = []
    for choice in choices:
        tables = tuple(
            huffman.Table.of(np.concatenate(parts)) for parts in zip(*choice.values(), strict=True)
        )
        streams = {ops: huffman.written(list(zip(tables, part, strict=True))) for ops, part in choice.items()}
        found.append(Unit(group[0].bits, tables, streams))
    return found


def symbols(table: huffman.Table, zeros: int = 0) -> np.ndarray:
    """The symbols, weights as the codes that kernels read; an only one twice, for either bit may stand for it."""
    symbols = (table.symbols.astype(np.int64) + zeros & 255).astype(np.uint8)
    return symbols if len(symbols) > 1 else symbols.repeat(2)


def steps(table: huffman.Table) -> np.ndarray:
    """For each length: the last window of 16 bits with such a code, and code less number of the symbol; uint16."""
    if len(table.symbols) == 1:
        return np.array([0xFFFF, 0], np.uint16)
    table_codes, lengths, rows = table.codes(), table.lengths, []
    last, difference = 0, 0
    for length in range(int(lengths[0]), int(lengths[-1]) + 1):
        places = np.flatnonzero(lengths == length)
        if len(places):
            last = ((int(table_codes[places[-1]]) + 1) << (WINDOW - length)) - 1
            difference = int(table_codes[places[0]]) - int(places[0])
        rows += [last, difference]
    return np.array(rows, np.int64).astype(np.uint16)
