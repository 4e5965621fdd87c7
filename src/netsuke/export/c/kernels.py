"""The C functions that layers share: sums of products with packed weights, depthwise pixels, requantisation.

Weights of 8, 4, 2 and 1 bits are read four outputs at a time (`BLOCKED`); what they are stored as is `constants.py`.
Codes of 4 bits and fewer are not negative: what they are too large by comes off with the sum of the inputs.
"""

from __future__ import annotations

BLOCKED = (8, 4, 2, 1)  # bits of weights with a kernel for four outputs

# gcc 12 at -O2 looks across functions: it merges those of two layers of one shape, or fixes their places in the arena
# and then vectorises as if nothing overlapped. Both gave wrong logits from C that is right at -O0, -O1 and by clang
# (compare gcc's bug 113907). `noipa` makes it take each function by itself.
APART = """\
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 8
#define APART static __attribute__((noipa))
#elif defined(__GNUC__) && !defined(__clang__)
#define APART static __attribute__((noinline, noclone))
#else
#define APART static
#endif
"""

# AVR keeps constants in flash, where only an instruction of its own reads them.
FLASH = """\
#ifdef __AVR__
#include <avr/pgmspace.h>
#define FLASH PROGMEM
#define flash_int8_t(p) ((int8_t)pgm_read_byte(p))
#define flash_uint8_t(p) ((uint8_t)pgm_read_byte(p))
#define flash_int16_t(p) ((int16_t)pgm_read_word(p))
#define flash_uint16_t(p) ((uint16_t)pgm_read_word(p))
#define flash_int32_t(p) ((int32_t)pgm_read_dword(p))
#define flash_uint32_t(p) ((uint32_t)pgm_read_dword(p))
#else
#define FLASH
#define flash_int8_t(p) (*(p))
#define flash_uint8_t(p) (*(p))
#define flash_int16_t(p) (*(p))
#define flash_uint16_t(p) (*(p))
#define flash_int32_t(p) (*(p))
#define flash_uint32_t(p) (*(p))
#endif
"""

# Two products a step, on the Cortex-M4 and its successors. Compilers do not find these instructions by themselves.
DSP = """\
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && !defined(__ARM_BIG_ENDIAN) && defined(__GNUC__)
#define PAIRS
typedef struct __attribute__((packed, may_alias)) { uint32_t v; } any_word;

static inline uint32_t word(const void *p)
{
    return ((const any_word *)p)->v;
}

/* Bytes 0 and 2, and bytes 1 and 3, as two signed halves. */
static inline uint32_t even(uint32_t v)
{
    uint32_t r;
    __asm__("sxtb16 %0, %1" : "=r"(r) : "r"(v));
    return r;
}

static inline uint32_t odd(uint32_t v)
{
    uint32_t r;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(r) : "r"(v));
    return r;
}

/* The low halves side by side, and the high halves. */
static inline uint32_t low(uint32_t a, uint32_t b)
{
    uint32_t r;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

static inline uint32_t high(uint32_t a, uint32_t b)
{
    uint32_t r;
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(r) : "r"(b), "r"(a));
    return r;
}

static inline int32_t pair(uint32_t a, uint32_t b, int32_t acc)
{
    __asm__("smlad %0, %1, %2, %0" : "+r"(acc) : "r"(a), "r"(b));
    return acc;
}
#endif
"""

REQUANTIZE = {
    "u7": """\
/* (acc * m + 2^(s-1)) / 2^s, rounded down and cut to 0..127; nothing overflows for any image. */
static inline int8_t requantize_u7(int32_t acc, int32_t multiplier, int shift)
{
    int32_t v;
    if (acc <= 0) {
        return 0;
    }
    v = (acc * multiplier + (((int32_t)1 << shift) >> 1)) >> shift;
    return (int8_t)(v > 127 ? 127 : v);
}
""",
    "s8": """\
/* (acc * m + 2^(s-1)) / 2^s, rounded down and cut to -127..127; nothing overflows for any image.
   C leaves the right shift of a negative number to the compiler, so -1 - v is shifted instead. */
static inline int8_t requantize_s8(int32_t acc, int32_t multiplier, int shift)
{
    int32_t v = acc * multiplier + (((int32_t)1 << shift) >> 1);
    v = v < 0 ? -1 - ((-1 - v) >> shift) : v >> shift;
    return (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
}
""",
}

COPY = """\
/* Byte by byte: a plain loop would become a call of memcpy. */
APART void copy(int8_t *to, const int8_t *from, place n)
{
    for (place k = 0; k < n; k++) {
        to[k] = *(const volatile int8_t *)(from + k);
    }
}
"""

CLEAR = """\
APART void clear(int8_t *to, place n)
{
    for (place k = 0; k < n; k++) {
        *(volatile int8_t *)(to + k) = 0;
    }
}
"""

TOTAL = """\
APART int32_t total(const int8_t *x, place n)
{
    int32_t sum = 0;
#ifdef PAIRS
    for (; n >= 4; n -= 4, x += 4) {
        sum = pair(even(word(x)), 0x10001, pair(odd(word(x)), 0x10001, sum));
    }
#endif
    for (; n > 0; n--) {
        sum += *x++;
    }
    return sum;
}
"""

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
/* Adds to four sums the products of `n` inputs with {bits}-bit weights, four side by side for each input. */
APART const {stream} *dot4_{bits}(const int8_t *x, const {stream} *w, place n, int32_t *acc)
{{
    int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
#ifdef PAIRS
    for (; n >= 4; n -= 4) {{
        const uint32_t e = even(word(x)), o = odd(word(x));
        const uint32_t first = low(e, o), second = high(e, o);
{pairs}    }}
#endif
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
                lines += [f"a{a} = pair({which}, even({word}), a{a});", f"a{b} = pair({which}, odd({word}), a{b});"]
        return _indent([*lines, "x += 4;", "w += 16;"])
    mask = f"0x{(1 << bits) - 1:04X}{(1 << bits) - 1:04X}"
    load = {
        4: ("word(w)", "word(w + 4)"),
        2: ("(word(w) & 0xFF) | (word(w) & 0xFF00) << 8", "(word(w) >> 16 & 0xFF) | (word(w) >> 24) << 16"),
        1: ("(w[0] & 15u) | (uint32_t)(w[0] >> 4) << 16", "(w[1] & 15u) | (uint32_t)(w[1] >> 4) << 16"),
    }[bits]
    lines = []
    if bits == 2:
        lines += ["const uint32_t all = word(w);"]
        load = tuple(text.replace("word(w)", "all") for text in load)
    for which, text in zip(("first", "second"), load, strict=True):
        name = "p" if which == "first" else "q"
        lines.append(f"const uint32_t {name} = {text};")
        for k in range(4):
            shifted = f"{name} >> {k * bits}" if k else name
            value = f"({shifted} & {mask})"
            lines.append(f"a{k} = pair({which}, {value}{' << 1' if bits == 1 else ''}, a{k});")
    step = 2 * bits
    return _indent([*lines, "x += 4;", f"w += {step};"])


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

# A depthwise window: `tap[t]` points at the pixel under weight t, four channels are summed side by side.
DEPTH4 = {
    8: """\
/* Adds a depthwise window of four channels: `tap[t]` points at the pixel under weight t. */
APART const int8_t *depth4_8(const int8_t *const *tap, place c, const int8_t *w, place n, int32_t *acc)
{
    int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    for (; n > 0; n--) {
        const int8_t *const x = *tap++ + c;
        a0 += x[0] * flash_int8_t(w);
        a1 += x[1] * flash_int8_t(w + 1);
        a2 += x[2] * flash_int8_t(w + 2);
        a3 += x[3] * flash_int8_t(w + 3);
        w += 4;
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
    return w;
}
""",
    4: """\
/* Adds a depthwise window of four channels: `tap[t]` points at the pixel under weight t. */
APART const uint8_t *depth4_4(const int8_t *const *tap, place c, const uint8_t *w, place n, int32_t *acc)
{
    int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    for (; n > 0; n--) {
        const int8_t *const x = *tap++ + c;
        const int p = flash_uint8_t(w), q = flash_uint8_t(w + 1);
        a0 += x[0] * ((p & 15) - 8);
        a1 += x[1] * ((p >> 4) - 8);
        a2 += x[2] * ((q & 15) - 8);
        a3 += x[3] * ((q >> 4) - 8);
        w += 2;
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
    return w;
}
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
    return DOT4.format(bits=bits, stream=stream(bits), pairs=_pairs(bits), plain=_plain(bits))


def dot1(bits: int, x: str = "int8_t") -> str:
    if bits == 4 and x == "int8_t":
        return DOT1_4
    text = DOT1.format(bits=bits, x=x, stream=stream(bits))
    return text if x == "int8_t" else text.replace("dot1_", "wide_")


def depth1(bits: int) -> str:
    return DEPTH1.format(bits=bits, stream=stream(bits))


def _indent(lines: list[str]) -> str:
    return "".join(f"        {line}\n" for line in lines)
