/* AVX-512 with VNNI: 16 sums of int32, 64 activations in a register. */
#include <immintrin.h>
#define LANES 16
typedef __m512i sums;
typedef __m512i bytes;

INLINE sums load_sums(const int32_t *p) { return _mm512_loadu_si512(p); }
INLINE void store_sums(int32_t *p, sums v) { _mm512_storeu_si512(p, v); }
INLINE sums splat(int32_t v) { return _mm512_set1_epi32(v); }
INLINE sums add(sums a, sums b) { return _mm512_add_epi32(a, b); }
INLINE sums mul(sums a, sums b) { return _mm512_mullo_epi32(a, b); }
INLINE sums larger(sums a, sums b) { return _mm512_max_epi32(a, b); }
INLINE sums shift(sums a, sums s) { return _mm512_srav_epi32(a, s); }
INLINE sums widen(const int8_t *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); }

INLINE bytes load(const int8_t *p) { return _mm512_loadu_si512(p); }
INLINE void store(int8_t *p, bytes v) { _mm512_storeu_si512(p, v); }
INLINE bytes none(void) { return _mm512_setzero_si512(); }
INLINE bytes splat_byte(int v) { return _mm512_set1_epi8((char)v); }
INLINE bytes larger_bytes(bytes a, bytes b) { return _mm512_max_epi8(a, b); }
INLINE bytes add_bytes(bytes a, bytes b) { return _mm512_adds_epi8(a, b); }

/* The same four activations for every channel. */
INLINE bytes four(const int8_t *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/* Lanes of 16 bytes, `step` apart. */
INLINE bytes gather(const int8_t *p, long step)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)p));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + step)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 2 * step)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 3 * step)), 3);
}

/* Pairs of lanes, `step` apart. */
INLINE bytes gather_pairs(const int8_t *p, long step)
{
    const __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_inserti64x4(v, _mm256_loadu_si256((const __m256i *)(p + step)), 1);
}

INLINE void store_lane(int8_t *p, bytes v, int lane)
{
    switch (lane) {
    case 0: _mm_storeu_si128((__m128i *)p, _mm512_castsi512_si128(v)); break;
    case 1: _mm_storeu_si128((__m128i *)p, _mm512_extracti32x4_epi32(v, 1)); break;
    case 2: _mm_storeu_si128((__m128i *)p, _mm512_extracti32x4_epi32(v, 2)); break;
    default: _mm_storeu_si128((__m128i *)p, _mm512_extracti32x4_epi32(v, 3));
    }
}

INLINE sums dot(sums acc, bytes x, bytes w) { return _mm512_dpbusd_epi32(acc, x, w); }
/* Signed activations as x + 128: the bias holds what that adds. */
INLINE sums dot_signed(sums acc, bytes x, bytes w)
{
    return _mm512_dpbusd_epi32(acc, _mm512_xor_si512(x, _mm512_set1_epi8(-128)), w);
}

/* Four activations of a channel side by side, in the order that `pack` takes back. */
INLINE void zip(bytes a, bytes b, bytes c, bytes d, bytes *o)
{
    const __m512i ab0 = _mm512_unpacklo_epi8(a, b), ab1 = _mm512_unpackhi_epi8(a, b);
    const __m512i cd0 = _mm512_unpacklo_epi8(c, d), cd1 = _mm512_unpackhi_epi8(c, d);
    o[0] = _mm512_unpacklo_epi16(ab0, cd0);
    o[1] = _mm512_unpackhi_epi16(ab0, cd0);
    o[2] = _mm512_unpacklo_epi16(ab1, cd1);
    o[3] = _mm512_unpackhi_epi16(ab1, cd1);
}

INLINE bytes pack(sums a, sums b, sums c, sums d)
{
    return _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
}

/* All of `a`, then all of `b`, ... */
INLINE bytes pack_rows(sums a, sums b, sums c, sums d)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, pack(a, b, c, d));
}

/* Planes: 16 pixels of four channels in a register. */
INLINE sums repeated(const int32_t *p)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)p));
}
/* Each lane gives way to the next one, the last to the first of `b`. */
INLINE bytes follow(bytes a, bytes b) { return _mm512_alignr_epi32(b, a, 4); }
/* Rows and columns of the 4x4 bytes of every lane change places. */
INLINE bytes turned(bytes v)
{
    return _mm512_shuffle_epi8(v, _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400));
}
/* The first halves of all lanes, then the second ones. */
INLINE bytes merged(bytes v)
{
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), v);
}
/* Bytes of pixels; the others become zero. */
INLINE bytes kept(bytes v, uint64_t mask, int low) { return _mm512_maskz_max_epi8(mask, v, splat_byte(low)); }
/* Half of every byte, rounded up, cut to 127. */
INLINE bytes averaged(bytes v, uint64_t mask)
{
    return _mm512_min_epu8(_mm512_avg_epu8(v, none()), _mm512_maskz_set1_epi8(mask, 127));
}
INLINE bytes pack_halved(sums a, sums b, sums c, sums d)
{
    return _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
}
INLINE bytes either(bytes a, bytes b) { return _mm512_or_si512(a, b); }
/* Lane l starts at byte 4 l, or 8 l. */
INLINE bytes lanes1(bytes v)
{
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6), v);
}
INLINE bytes lanes2(bytes v)
{
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7, 8, 9), v);
}
/* The larger of every two neighbours of 32 pixels, where the mask has a bit. */
INLINE bytes paired(bytes a, bytes b, uint32_t mask)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i a2 = _mm512_max_epi8(a, _mm512_srli_epi64(a, 32)), b2 = _mm512_max_epi8(b, _mm512_srli_epi64(b, 32));
    return _mm512_maskz_permutex2var_epi32((__mmask16)mask, a2, even, b2);
}
/* Bytes of every lane in this order, zero for a negative number. */
#define chosen(v, ...) _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi8(__VA_ARGS__)))
/* The sum of the lanes of each. */
INLINE sums lanes_added(sums a, sums b, sums c, sums d)
{
    const __m512i ab = add(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
    const __m512i cd = add(_mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd));
    return add(_mm512_shuffle_i32x4(ab, cd, 0x88), _mm512_shuffle_i32x4(ab, cd, 0xdd));
}

/* The same for half a register. */
typedef __m256i half_sums;
typedef __m256i half_bytes;
INLINE __m256i lower(__m512i v) { return _mm512_castsi512_si256(v); }
INLINE half_sums half_splat(int32_t v) { return _mm256_set1_epi32(v); }
INLINE half_sums half_add(half_sums a, half_sums b) { return _mm256_add_epi32(a, b); }
INLINE half_sums half_mul(half_sums a, half_sums b) { return _mm256_mullo_epi32(a, b); }
INLINE half_sums half_shift(half_sums a, half_sums s) { return _mm256_srav_epi32(a, s); }
INLINE half_bytes half_load(const int8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
INLINE void half_store(int8_t *p, half_bytes v) { _mm256_storeu_si256((__m256i *)(void *)p, v); }
INLINE half_bytes half_none(void) { return _mm256_setzero_si256(); }
INLINE half_bytes half_add_bytes(half_bytes a, half_bytes b) { return _mm256_adds_epi8(a, b); }
INLINE half_sums half_dot(half_sums acc, half_bytes x, half_bytes w) { return _mm256_dpbusd_epi32(acc, x, w); }
INLINE half_sums half_dot_signed(half_sums acc, half_bytes x, half_bytes w)
{
    return _mm256_dpbusd_epi32(acc, _mm256_xor_si256(x, _mm256_set1_epi8(-128)), w);
}
INLINE half_bytes half_pack(half_sums a, half_sums b, half_sums c, half_sums d)
{
    return _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
}
INLINE half_bytes half_pack_halved(half_sums a, half_sums b, half_sums c, half_sums d)
{
    return _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
}
INLINE half_bytes half_turned(half_bytes v)
{
    return _mm256_shuffle_epi8(v, _mm256_set_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400, 0x0f0b0703,
                                                   0x0e0a0602, 0x0d090501, 0x0c080400));
}
INLINE half_bytes half_follow(half_bytes a, half_bytes b) { return _mm256_alignr_epi32(b, a, 4); }
INLINE half_bytes half_kept(half_bytes v, uint32_t mask, int low)
{
    return _mm256_maskz_max_epi8(mask, v, _mm256_set1_epi8((char)low));
}
INLINE half_bytes half_averaged(half_bytes v, uint32_t mask)
{
    return _mm256_min_epu8(_mm256_avg_epu8(v, half_none()), _mm256_maskz_set1_epi8(mask, 127));
}
INLINE void half_zip(half_bytes a, half_bytes b, half_bytes c, half_bytes d, half_bytes *o)
{
    const __m256i ab0 = _mm256_unpacklo_epi8(a, b), ab1 = _mm256_unpackhi_epi8(a, b);
    const __m256i cd0 = _mm256_unpacklo_epi8(c, d), cd1 = _mm256_unpackhi_epi8(c, d);
    o[0] = _mm256_unpacklo_epi16(ab0, cd0);
    o[1] = _mm256_unpackhi_epi16(ab0, cd0);
    o[2] = _mm256_unpacklo_epi16(ab1, cd1);
    o[3] = _mm256_unpackhi_epi16(ab1, cd1);
}
