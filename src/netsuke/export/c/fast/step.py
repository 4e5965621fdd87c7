"""An op with its maps, and loops over pixels and channels: what plain ops are written with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netsuke.export.c.fast.layout import Map, up
from netsuke.export.c.fast.program import Program
from netsuke.export.c.fast.variants import BYTES
from netsuke.graph import Op, Tensors


@dataclass(frozen=True)
class Step:
    """An op with the maps that it reads and the one it writes."""

    program: Program
    op: Op
    inputs: tuple[Map, ...]
    y: Map
    tensors: Tensors

    @property
    def x(self) -> Map:
        return self.inputs[0]

    def emit(self, lines: Sequence[str], *constants: tuple[str, str, str]) -> None:
        """A function of these lines over x, x1, ... and y, and of constants (type, name, address), and its call."""
        types = [("int32_t" if m.wide else "int8_t") for m in (*self.inputs, self.y)]
        names = ["x", *(f"x{i}" for i in range(1, len(self.inputs)))]
        parameters = [f"const {t} *{n}" for t, n in zip(types, names, strict=False)]
        parameters += [f"{types[-1]} *y", *(f"const {ctype} *{name}" for ctype, name, _ in constants)]
        called = self.program.function(self.op.kind, ", ".join(parameters), lines)
        places = [typed(m) for m in (*self.inputs, self.y)]
        places += [f"(const {ctype} *)(const void *)({place})" for ctype, _, place in constants]
        self.program.call(f"{called}({', '.join(places)});", late=self.late)

    @property
    def late(self) -> bool:
        return self.op.name in self.program.layout.late


def typed(m: Map) -> str:
    return f"(int32_t *)(void *)({m.at()})" if m.wide else m.at()


def each(variable: str, end: int) -> str:
    return f"for (long {variable} = 0; {variable} < {end}; {variable}++) {{"


def per_pixel(m: Map, body: Sequence[str]) -> list[str]:
    return [each("i", m.shape[1]), each("j", m.shape[2]), *body, "}", "}"]


def element(m: Map, name: str, row: str = "i", column: str = "j", channel: str = "c") -> str:
    return f"{name}[{row} * {m.row} + {column} * {m.step} + {channel}]"


def stored_channels(m: Map) -> int:
    """Spare channels are computed along where that makes whole vectors."""
    return min(m.step, up(m.shape[0], BYTES))


def requantized(op: Op, value: str, low: int) -> str:
    return f"requantize({value}, {op.attrs['multiplier']}, {op.attrs['shift']}, {low})"
