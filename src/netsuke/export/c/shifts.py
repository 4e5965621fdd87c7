"""The shared C functions for chips without a multiplier: products by adding what is shifted, bit-plane by bit-plane.

They have the names of those in `kernels.py` and `windows.py`, read the same weights and give the same sums. Weights of
4 bits are 8 b3 + 4 b2 + 2 b1 + b0 - 8, so a product is up to four sums of x, 2x, 4x and 8x; those of 2 bits add x, take
it off or leave it. At 8 bits the planes of the input are taken instead: it has no more than seven, four weights share
them, and small inputs have few. An input of 0, as ReLU leaves many, costs next to nothing.
"""

from __future__ import annotations

import re

from netsuke.export.c import kernels, prelude
from netsuke.export.c.ops import indented

PRODUCT = """\
/* a times b, which stays within 32 bits: a step for each bit of b. */
APART int32_t product(int32_t a, int32_t b)
{
    uint32_t sum = 0, add = a < 0 ? 0u - (uint32_t)a : (uint32_t)a;
    for (uint32_t left = b < 0 ? 0u - (uint32_t)b : (uint32_t)b; left != 0; left >>= 1) {
        if (left & 1) {
            sum += add;
        }
        add += add;
    }
    return (a < 0) != (b < 0) ? -(int32_t)sum : (int32_t)sum;
}
"""
SMALL = """\
/* An input times a weight of up to 8 bits: a step for each bit of the input. */
static inline int times(int x, int weight)
{
    int sum = 0;
    if (x < 0) {
        x = -x;
        weight = -weight;
    }
    for (; x != 0; x >>= 1) {
        if (x & 1) {
            sum += weight;
        }
        weight += weight;
    }
    return sum;
}
"""
NIBBLE = """\
/* An input times a code of 4 bits less 8. */
static inline int times_4(int x, int code)
{
    int sum = 0;
    if (code & 1) {
        sum += x;
    }
    x += x;
    if (code & 2) {
        sum += x;
    }
    x += x;
    if (code & 4) {
        sum += x;
    }
    return code & 8 ? sum : sum - (x + x);
}
"""

DOT4 = """\
/* Four sums, from `base` on, of `n` inputs times {bits}-bit weights, four side by side for each input. */
static inline const {stream} *dot4_{bits}(const int8_t *x, const {stream} *w, place n, int32_t base, int32_t *acc)
{{
    int32_t a0 = base, a1 = base, a2 = base, a3 = base;
{steps}    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
    return w;
}}
"""
# Two inputs and two outputs lie together: the weights of an input are 0, 1, 4 and 5 from its first one on, or those of
# a last input without a neighbour side by side.
STEPS_8 = """\
    for (place k = 0; k < n; k++) {
        const int far = (k & 1) != 0 || k + 1 < n ? 4 : 2;
        int u = x[k];
        if (u != 0) {
            int w0 = flash_int8_t(w), w1 = flash_int8_t(w + 1);
            int w2 = flash_int8_t(w + far), w3 = flash_int8_t(w + far + 1);
            if (u < 0) {
                u = -u;
                w0 = -w0;
                w1 = -w1;
                w2 = -w2;
                w3 = -w3;
            }
            for (;;) {
                if (u & 1) {
                    a0 += w0;
                    a1 += w1;
                    a2 += w2;
                    a3 += w3;
                }
                u >>= 1;
                if (u == 0) {
                    break;
                }
                w0 += w0;
                w1 += w1;
                w2 += w2;
                w3 += w3;
            }
        }
        w += (k & 1) != 0 ? 6 : far == 4 ? 2 : 4;
    }
"""
DOT1 = """\
/* One sum: the weights of an output one after another, from number `at` on. */
APART int32_t {kind}_{bits}(const {x} *x, const {stream} *w, place at, place n)
{{
    int32_t sum = 0;
    for (place k = 0; k < n; k++) {{
        sum += {times}(x[k], weight_{bits}(w, at + k));
    }}
    return sum;
}}
"""
DOT1_4 = """\
/* One sum: the weights of an output one after another, from number `at` on. */
APART int32_t dot1_4(const int8_t *x, const uint8_t *w, place at, place n)
{
    int32_t sum = 0;
    for (const place end = at + n; at < end; at++) {
        const int u = *x++;
        if (u != 0) {
            const int p = flash_uint8_t(w + (at >> 1));
            sum += times_4(u, at & 1 ? p >> 4 : p & 15);
        }
    }
    return sum;
}
"""
DEPTH4 = """\
/* Four channels of a depthwise window, from `c` on: `tap[t]` points at the pixel under weight t. */
static inline const {stream} *depth4_{bits}(const int8_t *const *tap, place c, const {stream} *w, place n, int32_t *acc)
{{
    for (int k = 0; k < 4; k++) {{
        acc[k] = 0;
    }}
    for (; n > 0; n--) {{
        const int8_t *const x = *tap++ + c;
        for (int k = 0; k < 4; k++) {{
            acc[k] += {product};
        }}
        w += {step};
    }}
    return w;
}}
"""
DEPTH_PRODUCT = {8: "times(x[k], flash_int8_t(w + k))",
                 4: "times_4(x[k], flash_uint8_t(w + (k >> 1)) >> ((k & 1) << 2) & 15)"}  # fmt: skip
DEPTH1 = """\
/* One channel of a depthwise window. */
APART int32_t depth1_{bits}(const int8_t *const *tap, place c, const {stream} *w, place at, place n)
{{
    int32_t sum = 0;
    for (place t = 0; t < n; t++) {{
        sum += times(tap[t][c], weight_{bits}(w, at + t));
    }}
    return sum;
}}
"""


def dot4(bits: int) -> str:
    steps = STEPS_8 if bits == 8 else _planes(bits)
    return DOT4.format(bits=bits, stream=kernels.stream(bits), steps=steps)


def _planes(bits: int) -> str:
    """The steps over codes of 4, 2 or 1 bits: what each bit of the bytes adds to which sum."""
    multiples = {4: "u2 = u + u, u4 = u2 + u2, u8 = u4 + u4", 1: "u2 = u + u"}
    loads = {4: "p = flash_uint8_t(w), q = flash_uint8_t(w + 1)", 2: "p = flash_uint8_t(w)",
             1: "p = flash_uint8_t(w) >> ((k & 1) << 2)"}[bits]  # fmt: skip
    lines = ["const int u = x[k];", "if (u != 0) {"]
    lines.append(f"const int {', '.join([*([multiples[bits]] if bits in multiples else []), loads])};")
    for output in range(4):
        byte, low = ("pq"[output // 2], output % 2 * 4) if bits == 4 else ("p", output * bits)
        acc = f"a{output}"
        if bits == 2:  # ternary: codes 1, 2 and 3 are -1, 0 and 1
            lines += [f"if ({byte} & {1 << low}) {{", f"{acc} += {byte} & {2 << low} ? u : -u;", "}"]
            continue
        for plane in range(bits):
            value = "u2" if bits == 1 else "u" if plane == 0 else f"u{1 << plane}"
            lines += [f"if ({byte} & {1 << (low + plane)}) {{", f"{acc} += {value};", "}"]
    lines.append("}")
    lines.append({4: "w += 2;", 2: "w++;", 1: "w += k & 1;"}[bits])
    return "    for (place k = 0; k < n; k++) {\n" + _indented(lines) + "    }\n"


def _indented(lines: list[str]) -> str:
    """Lines of a loop of a function, laid out by their braces."""
    return "".join(f"        {line}\n" for line in indented(lines).splitlines())


def dot1(bits: int, x: str = "int8_t") -> str:
    if x == "int8_t":
        return DOT1_4 if bits == 4 else _dot1(bits, x, "dot1", "times")
    return _dot1(bits, x, "wide", "product")


def _dot1(bits: int, x: str, kind: str, times: str) -> str:
    return DOT1.format(bits=bits, x=x, kind=kind, times=times, stream=kernels.stream(bits))


def depth4(bits: int) -> str:
    return DEPTH4.format(bits=bits, stream=kernels.stream(bits), product=DEPTH_PRODUCT[bits], step=bits // 2)


def depth1(bits: int) -> str:
    return DEPTH1.format(bits=bits, stream=kernels.stream(bits))


def plain(text: str) -> str:
    """Text without what it has for cores that multiply twice a step, and its products by adding."""
    text = re.sub(r"#ifdef PAIRS\n.*?(?:#else\n(.*?))?#endif\n", r"\1", text, flags=re.DOTALL)
    return text.replace("acc * multiplier", "product(acc, multiplier)")


def placed(text: str) -> str:
    """Stages whose places are found without a multiplication, by gcc -Os too.

    It shifts and adds for factors of up to three digits in base 2, counting -1 as one; for others it calls __mulsi3.
    """

    def put(found: re.Match[str]) -> str:
        place, factor = found[1], int(found[2])
        digits = ((3 * factor) ^ factor).bit_count()  # of the non-adjacent form (Reitwiesner, 1960)
        return found[0] if digits <= 3 else f"(place)product((int32_t){place}, {factor})"

    return re.sub(r"(\((?:[^()]|\([^()]*\))*\)|\b[a-z]\w*) \* (\d+)\b", put, text)


HELPERS = {"product": PRODUCT, "times": SMALL, "times_4": NIBBLE}
REQUANTIZE = {kind: plain(text) for kind, text in prelude.REQUANTIZE.items()}
TOTAL = plain(prelude.TOTAL)
