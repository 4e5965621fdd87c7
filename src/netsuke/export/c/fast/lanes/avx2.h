/* AVX2: 8 sums of int32, 32 activations in a register. */
#include <immintrin.h>
#define LANES 8
typedef __m256i sums;
typedef __m256i bytes;

INLINE sums load_sums(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void store_sums(int32_t *p, sums v) { _mm256_storeu_si256((__m256i *)p, v); }
INLINE sums splat(int32_t v) { return _mm256_set1_epi32(v); }
INLINE sums add(sums a, sums b) { return _mm256_add_epi32(a, b); }
INLINE sums mul(sums a, sums b) { return _mm256_mullo_epi32(a, b); }
INLINE sums larger(sums a, sums b) { return _mm256_max_epi32(a, b); }
INLINE sums shift(sums a, sums s) { return _mm256_srav_epi32(a, s); }
INLINE sums widen(const int8_t *p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)); }

INLINE bytes load(const int8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void store(int8_t *p, bytes v) { _mm256_storeu_si256((__m256i *)p, v); }
INLINE bytes none(void) { return _mm256_setzero_si256(); }
INLINE bytes splat_byte(int v) { return _mm256_set1_epi8((char)v); }
INLINE bytes larger_bytes(bytes a, bytes b) { return _mm256_max_epi8(a, b); }
INLINE bytes add_bytes(bytes a, bytes b) { return _mm256_adds_epi8(a, b); }

/* The same four activations for every channel. */
INLINE bytes four(const int8_t *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

/* Lanes of 16 bytes, `step` apart. */
INLINE bytes gather(const int8_t *p, long step)
{
    const __m256i v = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p));
    return _mm256_inserti128_si256(v, _mm_loadu_si128((const __m128i *)(p + step)), 1);
}

INLINE void store_lane(int8_t *p, bytes v, int lane)
{
    _mm_storeu_si128((__m128i *)p, lane ? _mm256_extracti128_si256(v, 1) : _mm256_castsi256_si128(v));
}

/* Two products of 0..127 and -127..127 stay within int16. */
INLINE sums dot(sums acc, bytes x, bytes w)
{
    const __m256i pairs = _mm256_maddubs_epi16(x, w);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

INLINE sums dot_signed(sums acc, bytes x, bytes w) { return dot(acc, _mm256_abs_epi8(x), _mm256_sign_epi8(w, x)); }

/* Four activations of a channel side by side, in the order that `pack` takes back. */
INLINE void zip(bytes a, bytes b, bytes c, bytes d, bytes *o)
{
    const __m256i ab0 = _mm256_unpacklo_epi8(a, b), ab1 = _mm256_unpackhi_epi8(a, b);
    const __m256i cd0 = _mm256_unpacklo_epi8(c, d), cd1 = _mm256_unpackhi_epi8(c, d);
    o[0] = _mm256_unpacklo_epi16(ab0, cd0);
    o[1] = _mm256_unpackhi_epi16(ab0, cd0);
    o[2] = _mm256_unpacklo_epi16(ab1, cd1);
    o[3] = _mm256_unpackhi_epi16(ab1, cd1);
}

INLINE bytes pack(sums a, sums b, sums c, sums d)
{
    return _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
}

/* All of `a`, then all of `b`, ... */
INLINE bytes pack_rows(sums a, sums b, sums c, sums d)
{
    return _mm256_permutevar8x32_epi32(pack(a, b, c, d), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
