"""What every NAME.c may begin with: how functions are kept apart, flash is read, sums become activations."""

from __future__ import annotations

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

/* A constant in a register, where the masks below need it. */
static inline uint32_t held(uint32_t v)
{
    __asm__("" : "+r"(v));
    return v;
}

/* acc += a times the codes that `mask` leaves of b, or of b shifted right; the last one takes 8 off each code. */
#define PAIR_CODES(acc, a, b, mask) \\
    do { \\
        uint32_t t_; \\
        __asm__("and %1, %3, %4\\n\\tsmlad %0, %2, %1, %0" : "+r"(acc), "=&r"(t_) : "r"(a), "r"(mask), "r"(b)); \\
    } while (0)
#define PAIR_SHIFTED(acc, a, b, mask, shift) \\
    do { \\
        uint32_t t_; \\
        __asm__("and %1, %3, %4, lsr #" #shift "\\n\\tsmlad %0, %2, %1, %0" \\
                : "+r"(acc), "=&r"(t_) : "r"(a), "r"(mask), "r"(b)); \\
    } while (0)
#define PAIR_SIGNED(acc, a, b, mask, zero, shift) \\
    do { \\
        uint32_t t_; \\
        __asm__("and %1, %3, %4, " #shift "\\n\\tssub16 %1, %1, %5\\n\\tsmlad %0, %2, %1, %0" \\
                : "+r"(acc), "=&r"(t_) : "r"(a), "r"(mask), "r"(b), "r"(zero)); \\
    } while (0)
#endif
"""

REQUANTIZE = {
    "u7": """\
/* (acc * m + 2^(s-1)) / 2^s, rounded down and cut to 0..127; nothing overflows for any image. */
static inline int8_t requantize_u7(int32_t acc, int32_t multiplier, int shift)
{
    int32_t v;
#ifdef PAIRS
    v = acc * multiplier + (((int32_t)1 << shift) >> 1);
    __asm__("usat %0, #7, %1" : "=r"(v) : "r"(v >> shift)); /* saturates in one step */
    return (int8_t)v;
#else
    if (acc <= 0) {
        return 0;
    }
    v = (acc * multiplier + (((int32_t)1 << shift) >> 1)) >> shift;
    return (int8_t)(v > 127 ? 127 : v);
#endif
}
""",
    "s8": """\
/* (acc * m + 2^(s-1)) / 2^s, rounded down and cut to -127..127; nothing overflows for any image.
   C leaves the right shift of a negative number to the compiler, so -1 - v is shifted instead. */
static inline int8_t requantize_s8(int32_t acc, int32_t multiplier, int shift)
{
    int32_t v = acc * multiplier + (((int32_t)1 << shift) >> 1);
#ifdef PAIRS
    __asm__("ssat %0, #8, %1" : "=r"(v) : "r"(v >> shift)); /* gcc and clang shift the sign along */
    return (int8_t)(v == -128 ? -127 : v);
#else
    v = v < 0 ? -1 - ((-1 - v) >> shift) : v >> shift;
    return (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
#endif
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
