"""The C functions of depthwise layers: a pixel's window times packed weights, four channels or one at a time."""

from __future__ import annotations

from netsuke.export.c.kernels import stream

# A depthwise window: `tap[t]` points at the pixel under weight t, four channels are summed side by side. By SMLAD two
# taps are taken at once.
DEPTH4 = """\
/* Four channels of a depthwise window, from `c` on: `tap[t]` points at the pixel under weight t. */
static inline const {stream} *depth4_{bits}(const int8_t *const *tap, place c, const {stream} *w, place n, int32_t *acc)
{{
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
#ifdef PAIRS
{held}    for (; n >= 2; n -= 2) {{
        const uint32_t u = word(tap[0] + c), v = word(tap[1] + c);
        const uint32_t eu = even(u), ev = even(v), ou = odd(u), ov = odd(v);
{pairs}        tap += 2;
    }}
#endif
    for (; n > 0; n--) {{
        const int8_t *const x = *tap++ + c;
{plain}    }}
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
    return w;
}}
"""
DEPTH_PAIRS = {
    8: """\
        const uint32_t p = word(w), q = word(w + 4);
        const uint32_t ep = even(p), eq = even(q), op = odd(p), oq = odd(q);
        a0 = pair(low(eu, ev), low(ep, eq), a0);
        a1 = pair(low(ou, ov), low(op, oq), a1);
        a2 = pair(high(eu, ev), high(ep, eq), a2);
        a3 = pair(high(ou, ov), high(op, oq), a3);
        w += 8;
""",
    4: """\
        const uint32_t p = word(w);
        PAIR_SIGNED(a0, low(eu, ev), p, mask, zero, lsl #0);
        PAIR_SIGNED(a1, low(ou, ov), p, mask, zero, lsr #4);
        PAIR_SIGNED(a2, high(eu, ev), p, mask, zero, lsr #8);
        PAIR_SIGNED(a3, high(ou, ov), p, mask, zero, lsr #12);
        w += 4;
""",
}
DEPTH_HELD = """\
    const uint32_t mask = held(0x000F000F), zero = held(0x00080008);
"""
DEPTH_PLAIN = {
    8: """\
        a0 += x[0] * flash_int8_t(w);
        a1 += x[1] * flash_int8_t(w + 1);
        a2 += x[2] * flash_int8_t(w + 2);
        a3 += x[3] * flash_int8_t(w + 3);
        w += 4;
""",
    4: """\
        const int p = flash_uint8_t(w), q = flash_uint8_t(w + 1);
        a0 += x[0] * ((p & 15) - 8);
        a1 += x[1] * ((p >> 4) - 8);
        a2 += x[2] * ((q & 15) - 8);
        a3 += x[3] * ((q >> 4) - 8);
        w += 2;
""",
}

DEPTH1 = """\
/* One channel of a depthwise window. */
APART int32_t depth1_{bits}(const int8_t *const *tap, place c, const {stream} *w, place at, place n)
{{
    int32_t sum = 0;
    for (place t = 0; t < n; t++) {{
        sum += (int32_t)tap[t][c] * weight_{bits}(w, at + t);
    }}
    return sum;
}}
"""
DEPTH1_4 = """\
/* One channel of a depthwise window. */
APART int32_t depth1_4(const int8_t *const *tap, place c, const uint8_t *w, place at, place n)
{
    int32_t sum = 0;
    for (const place end = at + n; at < end; at++) {
        const int p = flash_uint8_t(w + (at >> 1));
        sum += (*tap++)[c] * ((at & 1 ? p >> 4 : p & 15) - 8);
    }
    return sum;
}
"""


def depth4(bits: int) -> str:
    held = DEPTH_HELD if bits < 8 else ""
    return DEPTH4.format(
        bits=bits, stream=stream(bits), held=held, pairs=DEPTH_PAIRS[bits], plain=DEPTH_PLAIN[bits]
    )


def depth1(bits: int) -> str:
    return DEPTH1_4 if bits == 4 else DEPTH1.format(bits=bits, stream=stream(bits))
