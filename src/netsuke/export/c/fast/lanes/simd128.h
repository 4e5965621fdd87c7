/* WebAssembly SIMD: 4 sums of int32, 16 activations in a register. */
#include <wasm_simd128.h>
#define LANES 4
typedef v128_t sums;
typedef v128_t bytes;

INLINE sums load_sums(const int32_t *p) { return wasm_v128_load(p); }
INLINE void store_sums(int32_t *p, sums v) { wasm_v128_store(p, v); }
INLINE sums splat(int32_t v) { return wasm_i32x4_splat(v); }
INLINE sums add(sums a, sums b) { return wasm_i32x4_add(a, b); }
INLINE sums mul(sums a, sums b) { return wasm_i32x4_mul(a, b); }
INLINE sums larger(sums a, sums b) { return wasm_i32x4_max(a, b); }
/* There is no shift by a vector. */
INLINE sums shift(sums a, sums s)
{
    return wasm_i32x4_make(
        wasm_i32x4_extract_lane(a, 0) >> wasm_i32x4_extract_lane(s, 0),
        wasm_i32x4_extract_lane(a, 1) >> wasm_i32x4_extract_lane(s, 1),
        wasm_i32x4_extract_lane(a, 2) >> wasm_i32x4_extract_lane(s, 2),
        wasm_i32x4_extract_lane(a, 3) >> wasm_i32x4_extract_lane(s, 3));
}
INLINE sums widen(const int8_t *p)
{
    return wasm_i32x4_extend_low_i16x8(wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(p)));
}

INLINE bytes load(const int8_t *p) { return wasm_v128_load(p); }
INLINE void store(int8_t *p, bytes v) { wasm_v128_store(p, v); }
INLINE bytes none(void) { return wasm_i32x4_splat(0); }
INLINE bytes splat_byte(int v) { return wasm_i8x16_splat((int8_t)v); }
INLINE bytes larger_bytes(bytes a, bytes b) { return wasm_i8x16_max(a, b); }
INLINE bytes add_bytes(bytes a, bytes b) { return wasm_i8x16_add_sat(a, b); }

/* The same four activations for every channel. */
INLINE bytes four(const int8_t *p) { return wasm_v128_load32_splat(p); }

INLINE void store_lane(int8_t *p, bytes v, int lane) { (void)lane; wasm_v128_store(p, v); }

INLINE sums dot(sums acc, bytes x, bytes w)
{
    const v128_t low = wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_extmul_low_i8x16(x, w));
    const v128_t high = wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_extmul_high_i8x16(x, w));
    const v128_t even = wasm_i32x4_shuffle(low, high, 0, 2, 4, 6), odd = wasm_i32x4_shuffle(low, high, 1, 3, 5, 7);
    return wasm_i32x4_add(acc, wasm_i32x4_add(even, odd));
}
INLINE sums dot_signed(sums acc, bytes x, bytes w) { return dot(acc, x, w); }

/* Four activations of a channel side by side, in the order that `pack` takes back. */
INLINE void zip(bytes a, bytes b, bytes c, bytes d, bytes *o)
{
    const v128_t ab0 = wasm_i8x16_shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const v128_t ab1 = wasm_i8x16_shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    const v128_t cd0 = wasm_i8x16_shuffle(c, d, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const v128_t cd1 = wasm_i8x16_shuffle(c, d, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    o[0] = wasm_i16x8_shuffle(ab0, cd0, 0, 8, 1, 9, 2, 10, 3, 11);
    o[1] = wasm_i16x8_shuffle(ab0, cd0, 4, 12, 5, 13, 6, 14, 7, 15);
    o[2] = wasm_i16x8_shuffle(ab1, cd1, 0, 8, 1, 9, 2, 10, 3, 11);
    o[3] = wasm_i16x8_shuffle(ab1, cd1, 4, 12, 5, 13, 6, 14, 7, 15);
}

INLINE bytes pack(sums a, sums b, sums c, sums d)
{
    return wasm_i8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(a, b), wasm_i16x8_narrow_i32x4(c, d));
}

/* All of `a`, then all of `b`, ...: in one lane of 16 bytes the same as `pack`. */
INLINE bytes pack_rows(sums a, sums b, sums c, sums d) { return pack(a, b, c, d); }
