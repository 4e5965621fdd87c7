"""Ops that look at one value at a time, or only move values: tables, gates, channel pools, cuts and joints.

They are emitted for one row of a map; vectors lie as `View.at` tells.
"""

from __future__ import annotations

from netsuke import packing
from netsuke.export.c.constants import ctype
from netsuke.export.c.ops import Emitter, Layer, each, qadd, requantize, times

SYMBOLS = ("in", "b")  # how an emitted function calls its inputs; more of them are in2, in3, ...


def symbol(number: int) -> str:
    return SYMBOLS[number] if number < len(SYMBOLS) else f"in{number}"


def _pixel(shape: tuple[int, ...], channel: str) -> str:
    """The place of one channel of pixel `p` of a map [C, 1, W]."""
    return f"{times('p', shape[0])} + {channel}"


def _pixels(layer: Layer) -> int:
    _, high, wide = layer.shapes[0]
    return high * wide


def lookup(layer: Layer) -> list[str]:
    """A table for all, or one a channel; entry 0 is for the lowest input."""
    table = layer.tensors[layer.op.tensor("table")]
    entries = table.shape[-1]
    low = 127 if entries == 255 else 0
    shape = layer.shapes[0]
    if len(shape) == 3:
        start, read = [each("p", _pixels(layer)), each("c", shape[0])], _pixel(shape, "c")
        write, channel = f"p * {shape[0]} + c", "c"
    else:  # a vector keeps the order in which it lies
        start, read, write = [each("c", layer.x.elements)], "c", "c"
        channel = (
            "c"
            if layer.x.channels == 1
            else f"(c % {layer.x.channels} * {layer.x.planes} + c / {layer.x.channels})"
        )
    row = f"{times(channel, entries)} + " if table.ndim > 1 else ""
    array = table.astype(packing.storage_dtype(table))
    value = (f"{low} + " if low else "") + f"in[{read}]"  # never before the table, not even on the way
    stored = f"out[{write}] = (int8_t)flash_{ctype(array)}({layer.array('table')} + {row}{value});"
    return [*start, stored, *["}"] * len(start)]


def qmul(layer: Layer) -> list[str]:
    """A gate a channel, a pixel or an element."""
    (x, gate), (shape, of) = layer.inputs, layer.shapes
    m, s = layer.op.attrs["multiplier"], layer.op.attrs["shift"]
    if len(shape) == 1:
        beside = "0" if gate.elements < x.elements else gate.at("c")
        start, places = [each("c", x.elements)], (x.at("c"), beside, "c")
    else:
        start = [each("p", _pixels(layer)), each("c", shape[0])]
        beside = gate.at("c") if len(of) == 1 else _pixel(of, "c" if of == shape else "0")
        places = (_pixel(shape, "c"), beside, f"p * {shape[0]} + c")
    product = layer.product(f"in[{places[0]}]", f"b[{places[1]}]")
    return [*start, f"out[{places[2]}] = {requantize(layer.y)}({product}, {m}, {s});", *["}"] * len(start)]


def _over_channels(layer: Layer, start: str, step: str, store: str) -> list[str]:
    shape = layer.shapes[0]
    read = f"in[{_pixel(shape, 'c')}]"
    inner = [each("c", shape[0]), f"const int32_t v = {read};", step, "}"]
    return [each("p", _pixels(layer)), f"int32_t acc = {start};", *inner, f"out[p] = {store};", "}"]


def channelmax(layer: Layer) -> list[str]:
    return _over_channels(layer, "-127", "if (v > acc) acc = v;", "(int8_t)acc")


def qchannelmean(layer: Layer) -> list[str]:
    m, s = layer.op.attrs["multiplier"], layer.op.attrs["shift"]
    return _over_channels(layer, "0", "acc += v;", f"{requantize(layer.y)}(acc, {m}, {s})")


def _moved(layer: Layer, number: int, count: int, source: str, target: str) -> list[str]:
    """Copy `count` channels of an input to a map or a vector; both places are given by channel `c`."""
    view, shape = layer.inputs[number], layer.shapes[number]
    if len(shape) == 1:
        return [each("c", count), f"out[{target}] = {_byte(number, view.at(source))};", "}"]
    write = f"p * {layer.y.shape[0]} + {target}"
    value = _byte(number, _pixel(shape, source))
    return [each("p", _pixels(layer)), each("c", count), f"out[{write}] = {value};", "}", "}"]


def _byte(number: int, place: str) -> str:
    """A value that is only moved: byte by byte, for a plain loop would become a call of memcpy."""
    return f"*(const volatile int8_t *)({symbol(number)} + {place})"


def concat(layer: Layer) -> list[str]:
    lines, start = [], 0
    for number, shape in enumerate(layer.shapes):
        lines += _moved(layer, number, shape[0], "c", f"c + {start}" if start else "c")
        start += shape[0]
    return lines


def slice_(layer: Layer) -> list[str]:
    start, stop = layer.op.attrs["start"], layer.op.attrs["stop"]
    return _moved(layer, 0, stop - start, f"(c + {start})" if start else "c", "c")


def shuffle(layer: Layer) -> list[str]:
    """Channel k of group g becomes channel g of group k."""
    channels, groups = layer.shapes[0][0], layer.op.attrs["groups"]
    return _moved(layer, 0, channels, f"(c % {groups} * {channels // groups} + c / {groups})", "c")


POINTWISE: dict[str, Emitter] = {
    "qadd": qadd,
    "lookup": lookup,
    "qmul": qmul,
    "channelmax": channelmax,
    "qchannelmean": qchannelmean,
    "concat": concat,
    "slice": slice_,
    "shuffle": shuffle,
}
