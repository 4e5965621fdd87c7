"""The C functions that layers share: sums of products with packed weights; depthwise pixels are `windows.py`.

Weights of 8, 4, 2 and 1 bits are read four outputs at a time (`BLOCKED`); what they are stored as is `constants.py`.
Codes of 4 bits and fewer are not negative: what they are too large by comes off with the sum of the inputs.
"""

from __future__ import annotations

BLOCKED = (8, 4, 2, 1)  # bits of weights with a kernel for four outputs

# Weights are a stream of bits without gaps, least significant first; the last byte is never passed.
READ_WEIGHT = """\
static int8_t weight_{bits}(const uint8_t *stream, place number)
{{
    const place bit = number * {bits};
    const int low = (int)(bit & 7);
    int v = flash_uint8_t(stream + (bit >> 3)) >> low;
{carry}    v &= {mask};
    return (int8_t)({value});
}}
"""
CARRY = """\
    if (low > {room}) {{
        v |= flash_uint8_t(stream + (bit >> 3) + 1) << (8 - low);
    }}
"""
WEIGHT_8 = """\
static int8_t weight_8(const int8_t *stream, place number)
{
    return flash_int8_t(stream + number);
}
"""

# Parts of a kernel for four outputs: the step of two inputs by SMLAD for four, and the plain step.
DOT4 = """\
/* Four sums, from `base` on, of `n` inputs times {bits}-bit weights, four side by side for each input. */
static inline const {stream} *dot4_{bits}(const int8_t *x, const {stream} *w, place n, int32_t base, int32_t *acc)
{{
    int32_t a0 = base, a1 = base, a2 = base, a3 = base;
#ifdef PAIRS
{mask}    for (; n >= 4; n -= 4) {{
        const uint32_t e = even(word(x)), o = odd(word(x));
        const uint32_t first = low(e, o), second = high(e, o);
{pairs}    }}
{two}#endif
{plain}    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
    return w;
}}
"""


def _pairs(bits: int) -> str:
    if bits == 8:
        lines = []
        for which, at in (("first", 0), ("second", 8)):
            for outputs, offset in (((0, 1), at), ((2, 3), at + 4)):
                a, b = outputs
                word = f"word(w + {offset})" if offset else "word(w)"
                lines += [
                    f"a{a} = pair({which}, even({word}), a{a});",
                    f"a{b} = pair({which}, odd({word}), a{b});",
                ]
        return _indent([*lines, "x += 4;", "w += 16;"])
    load = {
        4: ("word(w)", "word(w + 4)"),
        2: ("(all & 0xFF) | (all & 0xFF00) << 8", "(all >> 16 & 0xFF) | (all >> 24) << 16"),
        1: (
            "(w[0] & 15u) << 1 | (uint32_t)(w[0] >> 4) << 17",
            "(w[1] & 15u) << 1 | (uint32_t)(w[1] >> 4) << 17",
        ),
    }[bits]
    lines = ["const uint32_t all = word(w);"] if bits == 2 else []
    for which, name, text in zip(("first", "second"), "pq", load, strict=True):
        lines.append(f"const uint32_t {name} = {text};")
        for k in range(4):
            codes = (
                f"_SHIFTED(a{k}, {which}, {name}, mask, {k * bits})"
                if k
                else f"_CODES(a0, {which}, {name}, mask)"
            )
            lines.append(f"PAIR{codes};")
    return _indent([*lines, "x += 4;", f"w += {2 * bits};"])


def _plain(bits: int) -> str:
    if bits == 8:
        return """\
    for (; n >= 2; n -= 2) {
        const int u = x[0], v = x[1];
        a0 += u * flash_int8_t(w) + v * flash_int8_t(w + 2);
        a1 += u * flash_int8_t(w + 1) + v * flash_int8_t(w + 3);
        a2 += u * flash_int8_t(w + 4) + v * flash_int8_t(w + 6);
        a3 += u * flash_int8_t(w + 5) + v * flash_int8_t(w + 7);
        x += 2;
        w += 8;
    }
    if (n > 0) {
        a0 += *x * flash_int8_t(w);
        a1 += *x * flash_int8_t(w + 1);
        a2 += *x * flash_int8_t(w + 2);
        a3 += *x * flash_int8_t(w + 3);
        w += 4;
    }
"""
    if bits == 4:
        return """\
    for (; n > 0; n--) {
        const int v = *x++, p = flash_uint8_t(w), q = flash_uint8_t(w + 1);
        a0 += v * (p & 15);
        a1 += v * (p >> 4);
        a2 += v * (q & 15);
        a3 += v * (q >> 4);
        w += 2;
    }
"""
    if bits == 2:
        return """\
    for (; n > 0; n--) {
        const int v = *x++, p = flash_uint8_t(w);
        a0 += v * (p & 3);
        a1 += v * (p >> 2 & 3);
        a2 += v * (p >> 4 & 3);
        a3 += v * (p >> 6);
        w++;
    }
"""
    return """\
    for (; n > 0; n -= 2) {
        const int u = 2 * *x++, v = 2 * *x++, p = flash_uint8_t(w);
        a0 += u * (p & 1) + v * (p >> 4 & 1);
        a1 += u * (p >> 1 & 1) + v * (p >> 5 & 1);
        a2 += u * (p >> 2 & 1) + v * (p >> 6 & 1);
        a3 += u * (p >> 3 & 1) + v * (p >> 7);
        w++;
    }
"""


TWO = """\
    if (n >= 2) {
        const uint32_t first = low((uint32_t)(int32_t)x[0], (uint32_t)(int32_t)x[1]), p = word(w);
        PAIR_CODES(a0, first, p, mask);
        PAIR_SHIFTED(a1, first, p, mask, 4);
        PAIR_SHIFTED(a2, first, p, mask, 8);
        PAIR_SHIFTED(a3, first, p, mask, 12);
        n -= 2;
        x += 2;
        w += 4;
    }
"""

DOT1 = """\
/* One sum: the weights of an output one after another, from number `at` on. */
APART int32_t dot1_{bits}(const {x} *x, const {stream} *w, place at, place n)
{{
    int32_t sum = 0;
    for (place k = 0; k < n; k++) {{
        sum += (int32_t)x[k] * weight_{bits}(w, at + k);
    }}
    return sum;
}}
"""
DOT1_4 = """\
/* One sum: the weights of an output one after another, from number `at` on. */
APART int32_t dot1_4(const int8_t *x, const uint8_t *w, place at, place n)
{
    int32_t sum = 0;
    w += at >> 1;
    if (at & 1) {
        sum = *x++ * ((flash_uint8_t(w++) >> 4) - 8);
        n--;
    }
#ifdef PAIRS
    const uint32_t mask = held(0x000F000F), zero = held(0x00080008);
    for (; n >= 8; n -= 8) { /* codes 0 and 4, 1 and 5, ... lie four nibbles apart */
        const uint32_t p = word(w), eu = even(word(x)), ev = even(word(x + 4));
        const uint32_t ou = odd(word(x)), ov = odd(word(x + 4));
        PAIR_SIGNED(sum, low(eu, ev), p, mask, zero, lsl #0);
        PAIR_SIGNED(sum, low(ou, ov), p, mask, zero, lsr #4);
        PAIR_SIGNED(sum, high(eu, ev), p, mask, zero, lsr #8);
        PAIR_SIGNED(sum, high(ou, ov), p, mask, zero, lsr #12);
        x += 8;
        w += 4;
    }
#endif
    for (; n >= 2; n -= 2) {
        const int p = flash_uint8_t(w++);
        sum += x[0] * ((p & 15) - 8) + x[1] * ((p >> 4) - 8);
        x += 2;
    }
    if (n > 0) {
        sum += *x * ((flash_uint8_t(w) & 15) - 8);
    }
    return sum;
}
"""


def weight(bits: int) -> str:
    """The reader of one weight, by its number in a stream."""
    if bits == 8:
        return WEIGHT_8
    mask, zero = (1 << bits) - 1, 1 << (bits - 1)
    value = "v * 2 - 1" if bits == 1 else f"v - {zero}"
    carry = "" if 8 % bits == 0 else CARRY.format(room=8 - bits)
    return READ_WEIGHT.format(bits=bits, carry=carry, mask=mask, value=value)


def stream(bits: int) -> str:
    return "int8_t" if bits == 8 else "uint8_t"


def dot4(bits: int) -> str:
    code = ((1 << bits) - 1) << (bits == 1)  # one bit counts twice
    mask = f"    const uint32_t mask = held(0x{code:04X}{code:04X});\n" if bits < 8 else ""
    two = TWO if bits == 4 else ""
    return DOT4.format(
        bits=bits, stream=stream(bits), mask=mask, two=two, pairs=_pairs(bits), plain=_plain(bits)
    )


def dot1(bits: int, x: str = "int8_t") -> str:
    if bits == 4 and x == "int8_t":
        return DOT1_4
    text = DOT1.format(bits=bits, x=x, stream=stream(bits))
    return text if x == "int8_t" else text.replace("dot1_", "wide_")


def _indent(lines: list[str]) -> str:
    return "".join(f"        {line}\n" for line in lines)
