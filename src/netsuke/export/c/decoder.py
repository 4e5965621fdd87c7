"""The C of weights that stay entropy coded (`coded.py`): streams, tables, a decoder for each unit."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from netsuke.export.c.coded import PAD, Coded, Source, Unit, steps, symbols
from netsuke.export.c.constants import literal, zero
from netsuke.export.c.ops import Layer, indented
from netsuke.export.c.products import product, reading


def sources(layers: Sequence[Layer], dense_only: bool) -> list[Source]:
    """The weights that may be coded; those of one bit cannot shrink."""
    found = []
    for layer in layers:
        for op in layer.stage.ops:
            weight = reading(layer, op)
            if weight is None or op.attrs["bits"] == 1:
                continue
            dense = len(layer.types[op.name].shape) == 1  # used once an image
            inputs = layer.tensors[op.tensor("weight")].shape[1]
            block = inputs * (4 if product(layer, op).blocks else 1) if dense else 0
            if dense or not dense_only:
                values = weight.astype(np.int8).view(np.uint8)
                found.append(Source(op.name, op.attrs["bits"], values, block))
    return found


DECODER = """\
/* A stream of codes, highest bit first: `window` begins with the `held` bits that come next. */
typedef struct {
    const uint8_t *next;
    uint32_t window;
    int held;
    int gap; /* zeros before the next weight, or -1 where they are not read yet */
} coded;

static void begin_coded(coded *s, const uint8_t *stream)
{
    s->next = stream;
    s->window = 0;
    s->held = 0;
    s->gap = -1;
}

/* Part by part: as a whole it might be copied by memcpy. */
static inline void copy_coded(coded *to, const coded *from)
{
    to->next = from->next;
    to->window = from->window;
    to->held = from->held;
    to->gap = from->gap;
}

/* Canonical codes of one length are consecutive numbers: `steps` has for each length, from `length` on, the last
   window that begins with such a code, and what the code is larger by than the number of its symbol. */
static inline uint8_t symbol(coded *s, const uint16_t *steps, const uint8_t *symbols, int length)
{
    uint32_t window;
    while (s->held < 16) {
        s->window |= (uint32_t)flash_uint8_t(s->next++) << (24 - s->held);
        s->held += 8;
    }
    window = s->window >> 16;
    for (; window > flash_uint16_t(steps); steps += 2) {
        length++;
    }
    s->window <<= length;
    s->held -= length;
    return flash_uint8_t(symbols + (uint16_t)((window >> (16 - length)) - flash_uint16_t(steps + 1)));
}
"""


def text(coded: Coded) -> str:
    """The streams, the tables, the block of decoded weights and a decoder for each unit."""
    streams = b"".join(stream for unit in coded.units for stream in unit.streams.values())
    parts = [_array("uint8_t", "coded_weights", np.frombuffer(streams + bytes(PAD), np.uint8))]
    for number, unit in enumerate(coded.units):
        for name, table, zeros in zip(
            ("values", "gaps"), reversed(unit.tables), (zero(unit.bits), 0), strict=False
        ):
            parts.append(_array("uint16_t", f"{name}{number}_steps", steps(table)))
            parts.append(_array("uint8_t", f"{name}{number}_symbols", symbols(table, zeros)))
    parts += [f"static uint8_t weights[{coded.ram_bytes}];\n"] if coded.ram_bytes else []
    return "\n".join([*parts, DECODER, *(_decoder(i, unit) for i, unit in enumerate(coded.units))])


def _array(ctype: str, name: str, values: np.ndarray) -> str:
    return f"static const {ctype} {name}[{values.size}] FLASH = {literal(values)};\n"


def _decoder(number: int, unit: Unit) -> str:
    """The function of a unit: so many weights more, packed as kernels read them."""
    first = [int(table.lengths[0]) for table in reversed(unit.tables)]
    call = "symbol(&s, {name}{n}_steps, {name}{n}_symbols, {first})"
    value = call.format(name="values", n=number, first=first[0])
    lines = []
    if unit.sparse:
        gap = call.format(name="gaps", n=number, first=first[1])
        lines += ["if (s.gap < 0) {", f"s.gap = {gap};", "}"]
        value = f"s.gap-- > 0 ? {zero(unit.bits) if unit.bits < 8 else 0} : {value}"
    if unit.bits == 8:
        body, start, end = [f"*to++ = (uint8_t)({value});" if unit.sparse else f"*to++ = {value};"], [], []
    else:
        start = ["uint32_t bits = 0;", "int held = 0;"]
        body = [f"bits |= (uint32_t)({value}) << held;", f"held += {unit.bits};", "if (held >= 8) {",
                "*to++ = (uint8_t)(bits & 255);", "bits >>= 8;", "held -= 8;", "}"]  # fmt: skip
        end = ["if (held > 0) {", "*to = (uint8_t)bits;", "}"]
    opening = [
        f"/* {unit.bits}-bit weights, as many as `n`, packed as their kernels read them. */",
        f"APART void decode{number}(coded *state, uint8_t *to, place n)",
        "{",
        "coded s;",
        "copy_coded(&s, state);",
    ]
    return indented(
        [*opening, *start, "for (; n > 0; n--) {", *lines, *body, "}", *end, "copy_coded(state, &s);", "}"]
    )


def read_plainly(kernel: str) -> str:
    """A kernel for weights in RAM: decoded ones, and on AVR those that are not coded, too."""
    return re.sub(r"flash_u?int8_t\(", "*(", kernel)
