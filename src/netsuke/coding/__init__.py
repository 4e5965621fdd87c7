"""Entropy coding of integer tensors: Huffman codes, gaps of pruned layers, an adaptive range coder; NumPy only.

Tensors of a kind are coded together as a `Unit`, or each by itself, whichever is smaller; what coding does not shrink
stays as it is. The bytes of the decoder that a device needs are counted as well. `docs/coding.md` tells what it pays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

import numpy as np

from netsuke.coding import arithmetic, huffman
from netsuke.errors import ArtifactError, OptionError

METHODS = ("", "huffman", "range", "auto")
# Code of decoders/*.c by arm-none-eabi-gcc 12.2, -Os, for a Cortex-M0, which takes most among the Cortex-M (an M4:
# 100, 216, 282; x86-64 twice that). tests/coding compiles them anew. "sparse" has "huffman" in it.
DECODER_BYTES = {"huffman": 106, "sparse": 218, "range": 292}
CHOICES: dict[str, tuple[tuple[str, ...], ...]] = {
    "": ((),),
    "huffman": (("huffman",), ("huffman", "sparse")),
    "range": (("range",),),
    "auto": ((), ("huffman",), ("huffman", "sparse"), ("range",)),
}


CODERS = {"huffman": huffman.encode, "sparse": huffman.encode_sparse}


@dataclass(frozen=True)
class Source:
    """A tensor that may be coded: its integers, the bytes it takes uncoded, and the kind it may share a code with."""

    name: str
    values: np.ndarray  # int32, flat
    plain_bytes: int
    kind: str


@dataclass(frozen=True)
class Unit:
    """Tensors coded together, in this order, by `method`: "huffman", "sparse" or "range"."""

    method: str
    tensors: tuple[str, ...]
    stream: bytes  # of "range" the first unit has it, for all: they share one stream
    signed: bool = True  # how the bytes that Huffman codes are read; the range coder has signs of its own


@dataclass(frozen=True)
class Coded:
    """What is coded; every other source stays as it is."""

    units: tuple[Unit, ...]

    @property
    def stream_bytes(self) -> int:
        return sum(len(unit.stream) for unit in self.units)

    @property
    def decoder_bytes(self) -> int:
        return decoder_bytes({unit.method for unit in self.units})

    @property
    def tensors(self) -> set[str]:
        return {name for unit in self.units for name in unit.tensors}


def check(method: object) -> str:
    """The method, or OptionError naming those there are."""
    if not isinstance(method, str) or method not in METHODS:
        raise OptionError(
            f"no coding {str(method)[:40]!r}; there are {', '.join(METHODS[1:])}, or '' for none"
        )
    return method


def decoder_bytes(methods: set[str]) -> int:
    """Code that a device stores for these methods; the sparse decoder has the plain Huffman one in it."""
    return sum(DECODER_BYTES[method] for method in methods - ({"huffman"} if "sparse" in methods else set()))


def decoder_source(method: str) -> str:
    """The C99 text of a decoder, "huffman" (which has "sparse" in it) or "range"."""
    name = "range" if method == "range" else "huffman"
    return (files(__package__) / "decoders" / f"{name}.c").read_text(encoding="ascii")


def encode(sources: Sequence[Source], method: str) -> Coded:
    """The smallest coding that `method` allows, the decoder counted: one of METHODS. Raises OptionError."""
    plain = {source.name: source.plain_bytes for source in sources}

    def total(coded: Coded) -> int:
        saved = sum(plain[name] for name in coded.tensors)
        return coded.stream_bytes + coded.decoder_bytes - saved

    return min((_coded(sources, allowed) for allowed in CHOICES[check(method)]), key=total)


def _coded(sources: Sequence[Source], allowed: tuple[str, ...]) -> Coded:
    """Units by these methods; those that do not shrink are left out."""
    kinds: dict[str, list[Source]] = {}
    for source in sources:
        if source.values.size:
            kinds.setdefault(source.kind, []).append(source)
    apart = [[source] for kind in kinds.values() for source in kind]
    if allowed == ("range",):  # what a layer teaches helps the next one in small networks, not in large ones
        return min(
            (_ranged(groups) for groups in (list(kinds.values()), apart)),
            key=lambda coded: (
                coded.stream_bytes + sum(s.plain_bytes for s in sources if s.name not in coded.tensors)
            ),
        )
    units: list[Unit] = []
    for kind in kinds.values():  # one table for all, or a table each
        choices = [_huffman([kind], allowed), _huffman([[source] for source in kind], allowed)]
        units += max(choices, key=lambda choice: choice[1])[0]
    return Coded(tuple(units))


def _huffman(groups: list[list[Source]], allowed: tuple[str, ...]) -> tuple[list[Unit], int]:
    """The units of these groups that shrink, and the bytes that they save."""
    units, saved = [], 0
    for group in groups:
        values = _values(group)
        low, high = int(values.min()), int(values.max())
        if high > (127 if low < 0 else 255) or low < -128:
            continue  # Huffman codes bytes
        streams = [(CODERS[method](values.astype(np.uint8)), method) for method in allowed]
        stream, method = min(
            ((stream, method) for stream, method in streams if stream is not None),
            key=lambda pair: len(pair[0]),
            default=(None, ""),
        )
        plain = sum(source.plain_bytes for source in group)
        if stream is not None and len(stream) < plain:
            units.append(Unit(method, tuple(source.name for source in group), stream, low < 0))
            saved += plain - len(stream)
    return units, saved


def _ranged(groups: list[list[Source]]) -> Coded:
    """One stream for all groups that shrink: it ends only once, and its tables are learnt, not stored."""
    while groups:
        stream, sizes = arithmetic.encode(map(_values, groups))
        smaller = [
            group
            for group, size in zip(groups, sizes, strict=True)
            if size < sum(source.plain_bytes for source in group)
            and sum(source.values.size for source in group) <= arithmetic.MAX_VALUES * size
        ]
        if len(smaller) == len(groups):
            units = [Unit("range", tuple(source.name for source in group), b"") for group in groups]
            return Coded((replace(units[0], stream=stream), *units[1:]))
        groups = smaller
    return Coded(())


def _values(group: list[Source]) -> np.ndarray:
    return np.concatenate([source.values for source in group])


def decode(units: Sequence[Unit], counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Every coded tensor as flat integers. Raises ArtifactError where a stream does not hold `counts` of them."""
    ranged = [unit for unit in units if unit.method == "range"]
    sizes = [sum(counts[name] for name in unit.tensors) for unit in ranged]
    if any(unit.stream for unit in ranged[1:]):
        raise ArtifactError("range coded units share the stream of the first; another one has its own")
    decoded = iter(arithmetic.decode(ranged[0].stream, sizes) if ranged else ())
    result: dict[str, np.ndarray] = {}
    for unit in units:
        if unit.method == "range":
            values = next(decoded)
        else:
            read = huffman.decode if unit.method == "huffman" else huffman.decode_sparse
            values = read(unit.stream, sum(counts[name] for name in unit.tensors))
            values = values.view(np.int8) if unit.signed else values
        ends = np.cumsum([counts[name] for name in unit.tensors])
        result.update(zip(unit.tensors, np.split(values, ends[:-1]), strict=True))
    return result
