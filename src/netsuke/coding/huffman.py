"""Canonical Huffman codes of bytes (Huffman, 1952), and of pruned layers as gaps and values (Han et al., 2016).

A table is stored as JPEG does: the longest length L, how many codes there are of each length 1 to L, then the symbols
in the order of their codes. A stream holds its table first, then the codes, highest bit first.
`decoders/huffman.c` is the same decoder in C.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from netsuke.errors import ArtifactError

LONGEST = 15
SKIPS = range(2, 9)  # widths of a gap that are tried; a longer one takes a zero in between


@dataclass(frozen=True)
class Table:
    """Codes in canonical order: symbols uint8 [K], and their lengths, which never fall."""

    symbols: np.ndarray
    lengths: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> Table:
        """The best code for uint8 values; at least one bit each."""
        symbols, counts = np.unique(values, return_counts=True)
        lengths, least = _lengths(counts.tolist()), 1
        while max(lengths) > LONGEST:  # count the rare ones as less rare, until their codes are short enough
            least *= 2
            lengths = _lengths(np.maximum(counts, least).tolist())
        order = np.lexsort((symbols, np.array(lengths)))
        return Table(symbols[order].astype(np.uint8), np.array(lengths)[order])

    @property
    def counts(self) -> np.ndarray:
        """How many codes have each length from 1 on."""
        return np.bincount(self.lengths)[1:]

    def stored(self) -> bytes:
        counts = self.counts
        return bytes([len(counts), *np.minimum(counts, 255).tolist()]) + self.symbols.tobytes()

    def codes(self) -> np.ndarray:
        """The code of each symbol, as it stands in the lowest bits."""
        codes = np.zeros(len(self.lengths), np.int64)
        for i in range(1, len(codes)):
            codes[i] = (codes[i - 1] + 1) << (self.lengths[i] - self.lengths[i - 1])
        return codes

    @property
    def storable(self) -> bool:
        """256 codes of one length do not fit a byte; nor would they save any."""
        return bool(self.counts.max() < 256)


def _lengths(counts: list[int]) -> list[int]:
    """Huffman's code lengths; ties broken by age, so that equal counts give equal codes everywhere."""
    if len(counts) == 1:
        return [1]
    heap = [(count, i) for i, count in enumerate(counts)]
    heapq.heapify(heap)
    parent = [0] * (2 * len(counts) - 1)
    for node in range(len(counts), len(parent)):
        (a, left), (b, right) = heapq.heappop(heap), heapq.heappop(heap)
        parent[left] = parent[right] = node
        heapq.heappush(heap, (a + b, node))
    depth = [0] * len(parent)
    for node in range(len(parent) - 2, -1, -1):
        depth[node] = depth[parent[node]] + 1
    return depth[: len(counts)]


def encode(values: np.ndarray) -> bytes | None:
    """A table and the codes of uint8 values; None where they cannot be coded."""
    if not values.size:
        return None
    table = Table.of(values)
    return table.stored() + written([(table, values)]) if table.storable else None


def encode_sparse(values: np.ndarray) -> bytes | None:
    """Tables of gaps and of values, then a gap and a value in turn, of uint8 values that are mostly 0."""
    best: bytes | None = None
    for width in SKIPS if values.any() else ():
        gaps, kept = gaps_of(values, 1 << width)
        tables = Table.of(gaps), Table.of(kept)
        if all(table.storable for table in tables):
            head = b"".join(table.stored() for table in tables)
            stream = head + written([(tables[0], gaps), (tables[1], kept)])
            best = stream if best is None or len(stream) < len(best) else best
    return best


def gaps_of(values: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """How many zeros stand before each value that is kept; a zero is kept where more than reach - 1 would stand."""
    places = np.flatnonzero(values)
    zeros = np.diff(places, prepend=-1, append=len(values)) - 1
    fillers = zeros // reach
    starts = np.cumsum(fillers + 1) - 1  # where each gap's own entry stands, behind its fillers
    gaps = np.full(starts[-1] + 1, reach - 1, np.uint8)
    gaps[starts] = zeros % reach
    kept = np.zeros(len(gaps), np.uint8)
    kept[starts[:-1]] = values[places]
    return (gaps, kept[:-1]) if zeros[-1] % reach else (gaps[:-1], kept[:-1])


def written(parts: list[tuple[Table, np.ndarray]]) -> bytes:
    """The codes of all parts' values in turn: first of each, second of each, and so on."""
    steps, size = len(parts), sum(len(values) for _, values in parts)
    codes, lengths = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for first, (table, values) in enumerate(parts):
        rank = np.zeros(256, np.int64)
        rank[table.symbols] = np.arange(len(table.symbols))
        codes[first::steps] = table.codes()[rank[values]]
        lengths[first::steps] = table.lengths[rank[values]]
    planes = codes[:, None] >> np.arange(LONGEST - 1, -1, -1)
    used = np.arange(LONGEST, 0, -1) <= lengths[:, None]
    return np.packbits((planes & 1).astype(np.uint8)[used]).tobytes()


# --- decoding -----------------------------------------------------------------------------------------


def decode(stream: bytes, count: int) -> np.ndarray:
    """The inverse of `encode`: uint8 [count]. Raises ArtifactError."""
    table, at = _read(stream, 0)
    body = _Windows(stream[at:])
    body.room(count)
    symbols, steps = body.of(table)
    place, places = 0, []
    with _within():
        for _ in range(count):
            places.append(place)
            place += steps[place]
    body.end(place)
    return symbols[places]


def decode_sparse(stream: bytes, count: int) -> np.ndarray:
    """The inverse of `encode_sparse`: uint8 [count]. Raises ArtifactError."""
    gap_table, at = _read(stream, 0)
    table, at = _read(stream, at)
    body = _Windows(stream[at:])
    if count > 256 * 8 * len(body.bits):
        raise ArtifactError(f"a Huffman stream of {len(stream)} bytes cannot hold {count} values")
    gaps, gap_steps = body.of(gap_table)
    symbols, steps = body.of(table)
    skips = gaps.tolist()
    done, place, places, at_value = 0, 0, [], []
    with _within():
        while done < count:
            done += skips[place]
            place += gap_steps[place]
            if done >= count:
                break
            places.append(done)
            at_value.append(place)
            place += steps[place]
            done += 1
    if done != count:
        raise ArtifactError("a Huffman stream runs past its last value")
    body.end(place)
    values = np.zeros(count, np.uint8)
    values[places] = symbols[at_value]
    return values


@contextmanager
def _within() -> Iterator[None]:
    try:
        yield
    except IndexError:
        raise ArtifactError("a Huffman stream ends before its last value") from None


def _read(stream: bytes, at: int) -> tuple[Table, int]:
    """The table that starts at `at`, and where it ends; its codes are those of a full or an only tree."""
    longest = stream[at] if at < len(stream) else 0
    counts = np.frombuffer(stream[at + 1 : at + 1 + longest], np.uint8).astype(np.int64)
    size = int(counts.sum())
    end = at + 1 + longest + size
    if not 1 <= longest <= LONGEST or len(counts) != longest or not 1 <= size <= 256 or end > len(stream):
        raise ArtifactError("a Huffman table is cut short or too long")
    lengths = np.repeat(np.arange(1, longest + 1), counts)
    leaves = int((1 << (LONGEST - lengths)).sum())
    symbols = np.frombuffer(stream[end - size : end], np.uint8)
    if leaves != 1 << LONGEST and not (size == 1 and longest == 1):
        raise ArtifactError("a Huffman table is not that of a code")
    if len(set(symbols.tolist())) != size:
        raise ArtifactError("a Huffman table has a symbol twice")
    return Table(symbols, lengths), end


class _Windows:
    """A stream of bits seen from each place at once: which code starts there, and how long it is."""

    def __init__(self, body: bytes):
        self.bits = body
        padded = np.frombuffer(body + bytes(3), np.uint8).astype(np.int32)
        words = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
        shifts = 24 - LONGEST - np.arange(8, dtype=np.int32)
        self.windows = (words[:, None] >> shifts & ((1 << LONGEST) - 1)).reshape(-1)

    def of(self, table: Table) -> tuple[np.ndarray, list[int]]:
        """Symbol and length of the code at each place; a length of 0 where no code starts."""
        spans = 1 << (LONGEST - table.lengths)
        rank = np.repeat(np.arange(len(spans)), spans)
        symbols, lengths = table.symbols[rank], table.lengths[rank]
        if len(rank) < 1 << LONGEST:  # an only symbol, whose code is 0
            symbols, lengths = np.resize(symbols, 1 << LONGEST), np.ones(1 << LONGEST, np.int64)
        steps = lengths[self.windows].tolist()
        return symbols[self.windows], steps

    def room(self, count: int) -> None:
        if count > 8 * len(self.bits):
            raise ArtifactError(f"a Huffman stream of {len(self.bits)} bytes cannot hold {count} values")

    def end(self, place: int) -> None:
        if (place + 7) // 8 != len(self.bits):
            raise ArtifactError(
                f"a Huffman stream of {len(self.bits)} bytes does not end with its last value"
            )
