/* NEON with the dot product of Armv8.2: 4 sums of int32, 16 activations in a register. */
#include <arm_neon.h>
#define LANES 4
typedef int32x4_t sums;
typedef int8x16_t bytes;

INLINE sums load_sums(const int32_t *p) { return vld1q_s32(p); }
INLINE void store_sums(int32_t *p, sums v) { vst1q_s32(p, v); }
INLINE sums splat(int32_t v) { return vdupq_n_s32(v); }
INLINE sums add(sums a, sums b) { return vaddq_s32(a, b); }
INLINE sums mul(sums a, sums b) { return vmulq_s32(a, b); }
INLINE sums larger(sums a, sums b) { return vmaxq_s32(a, b); }
INLINE sums shift(sums a, sums s) { return vshlq_s32(a, vnegq_s32(s)); }
INLINE sums widen(const int8_t *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(v)))));
}

INLINE bytes load(const int8_t *p) { return vld1q_s8(p); }
INLINE void store(int8_t *p, bytes v) { vst1q_s8(p, v); }
INLINE bytes none(void) { return vdupq_n_s8(0); }
INLINE bytes splat_byte(int v) { return vdupq_n_s8((int8_t)v); }
INLINE bytes larger_bytes(bytes a, bytes b) { return vmaxq_s8(a, b); }
INLINE bytes add_bytes(bytes a, bytes b) { return vqaddq_s8(a, b); }

/* The same four activations for every channel. */
INLINE bytes four(const int8_t *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
}

INLINE void store_lane(int8_t *p, bytes v, int lane) { (void)lane; vst1q_s8(p, v); }

INLINE sums dot(sums acc, bytes x, bytes w) { return vdotq_s32(acc, x, w); }
INLINE sums dot_signed(sums acc, bytes x, bytes w) { return vdotq_s32(acc, x, w); }

/* Four activations of a channel side by side, in the order that `pack` takes back. */
INLINE void zip(bytes a, bytes b, bytes c, bytes d, bytes *o)
{
    const int16x8_t ab0 = vreinterpretq_s16_s8(vzip1q_s8(a, b)), ab1 = vreinterpretq_s16_s8(vzip2q_s8(a, b));
    const int16x8_t cd0 = vreinterpretq_s16_s8(vzip1q_s8(c, d)), cd1 = vreinterpretq_s16_s8(vzip2q_s8(c, d));
    o[0] = vreinterpretq_s8_s16(vzip1q_s16(ab0, cd0));
    o[1] = vreinterpretq_s8_s16(vzip2q_s16(ab0, cd0));
    o[2] = vreinterpretq_s8_s16(vzip1q_s16(ab1, cd1));
    o[3] = vreinterpretq_s8_s16(vzip2q_s16(ab1, cd1));
}

INLINE bytes pack(sums a, sums b, sums c, sums d)
{
    const int16x8_t ab = vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)), cd = vcombine_s16(vqmovn_s32(c), vqmovn_s32(d));
    return vcombine_s8(vqmovn_s16(ab), vqmovn_s16(cd));
}

/* All of `a`, then all of `b`, ...: in one lane of 16 bytes the same as `pack`. */
INLINE bytes pack_rows(sums a, sums b, sums c, sums d) { return pack(a, b, c, d); }
