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
DECODER_BYTES = {False: 200, True: 250}
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
    """Ops that share their tables: one of values or, for pruned layers, one of gaps and one of values."""

    bits: int
    tables: tuple[huffman.Table, ...]
    streams: Mapping[str, bytes]

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
    """What is coded, by units; `at` is where the stream of an op begins, `ram` where its weights are decoded to."""

    units: tuple[Unit, ...]
    at: Mapping[str, int]
    ram: Mapping[str, int]
    ram_bytes: int
    scratch: Mapping[str, int]  # bytes that a dense layer decodes into, by op
    packed: Mapping[str, int]  # bytes that were packed, by op

    def unit(self, op: str) -> int | None:
        return next((i for i, unit in enumerate(self.units) if op in unit.streams), None)

    @property
    def streams(self) -> dict[str, int]:
        """Bytes by op."""
        return {op: len(stream) for unit in self.units for op, stream in unit.streams.items()}

    @property
    def size(self) -> int:
        return PAD + sum(unit.size for unit in self.units)


def plan(sources: Sequence[Source]) -> Coded:
    """The smallest coding of these weights. Raises OptionError where it saves nothing, its decoder counted."""
    units: list[Unit] = []
    for bits in sorted({source.bits for source in sources}):
        kind = [source for source in sources if source.bits == bits]
        choices = [_smaller([kind]), _smaller([[source] for source in kind])]
        units += max(choices, key=lambda choice: choice[1])[0]
    packed = {source.op: source.packed_bytes for source in sources}
    decoder = DECODER_BYTES[any(unit.sparse for unit in units)]
    left = sum(packed.values()) - sum(packed[op] for unit in units for op in unit.streams)
    size = left + PAD + sum(unit.size for unit in units) + decoder
    if not units or size >= sum(packed.values()):
        what = "these weights" if units else "any layer"
        raise OptionError(
            f"coding does not pay for {what}: {sum(packed.values())} bytes packed, "
            + (f"{size} coded, {decoder} of them the decoder" if units else "and no fewer coded")
            + "; leave weights=packed"
        )
    return _placed(tuple(units), {source.op: source for source in sources})


def _placed(units: tuple[Unit, ...], sources: Mapping[str, Source]) -> Coded:
    at, ram, scratch, stream_end, ram_end = {}, {}, {}, 0, 0
    for unit in units:
        for op, stream in unit.streams.items():
            at[op], stream_end = stream_end, stream_end + len(stream)
            source = sources[op]
            if source.block:
                scratch[op] = (source.block * source.bits + 7) // 8
            else:
                ram[op], ram_end = ram_end, ram_end + source.packed_bytes
    packed = {op: sources[op].packed_bytes for op in at}
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
    bits, found = group[0].bits, []
    table = huffman.Table.of(np.concatenate([source.values for source in group]))
    streams = {source.op: huffman.written([(table, source.values)]) for source in group}
    found.append(Unit(bits, (table,), streams))
    some = all(source.values.any() for source in group)
    for width in huffman.SKIPS if some else ():
        pairs = [huffman.gaps_of(source.values, 1 << width) for source in group]
        tables = tuple(huffman.Table.of(np.concatenate(part)) for part in zip(*pairs, strict=True))
        streams = {source.op: huffman.written(list(zip(tables, pair, strict=True)))
                   for source, pair in zip(group, pairs, strict=True)}  # fmt: skip
        found.append(Unit(bits, tables, streams))
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
