/* Plain C: 4 sums of int32, 16 activations in a struct; compilers make vectors of the loops. */
#define LANES 4
typedef struct { int32_t of[4]; } sums;
typedef struct { int8_t of[16]; } bytes;
#define EACH(n, expression) for (int i = 0; i < (n); i++) { r.of[i] = (expression); } return r

INLINE sums load_sums(const int32_t *p) { sums r; EACH(4, p[i]); }
INLINE void store_sums(int32_t *p, sums v) { for (int i = 0; i < 4; i++) { p[i] = v.of[i]; } }
INLINE sums splat(int32_t v) { sums r; EACH(4, v); }
/* Through unsigned numbers: what the spare lanes hold may wrap. */
INLINE sums add(sums a, sums b) { sums r; EACH(4, (int32_t)((uint32_t)a.of[i] + (uint32_t)b.of[i])); }
INLINE sums mul(sums a, sums b) { sums r; EACH(4, (int32_t)((uint32_t)a.of[i] * (uint32_t)b.of[i])); }
INLINE sums larger(sums a, sums b) { sums r; EACH(4, a.of[i] > b.of[i] ? a.of[i] : b.of[i]); }
INLINE sums shift(sums a, sums s) { sums r; EACH(4, a.of[i] >> s.of[i]); }
INLINE sums widen(const int8_t *p) { sums r; EACH(4, p[i]); }

INLINE bytes load(const int8_t *p) { bytes r; EACH(16, p[i]); }
INLINE void store(int8_t *p, bytes v) { for (int i = 0; i < 16; i++) { p[i] = v.of[i]; } }
INLINE bytes none(void) { bytes r; EACH(16, 0); }
INLINE bytes splat_byte(int v) { bytes r; EACH(16, (int8_t)v); }
INLINE bytes larger_bytes(bytes a, bytes b) { bytes r; EACH(16, a.of[i] > b.of[i] ? a.of[i] : b.of[i]); }
INLINE int8_t cut(int32_t v) { return (int8_t)(v > 127 ? 127 : v < -128 ? -128 : v); }
INLINE bytes add_bytes(bytes a, bytes b) { bytes r; EACH(16, cut(a.of[i] + b.of[i])); }

/* The same four activations for every channel. */
INLINE bytes four(const int8_t *p) { bytes r; EACH(16, p[i & 3]); }

INLINE void store_lane(int8_t *p, bytes v, int lane) { (void)lane; store(p, v); }

INLINE sums dot(sums acc, bytes x, bytes w)
{
    sums r;
    EACH(4, (int32_t)((uint32_t)acc.of[i] + (uint32_t)(x.of[4 * i] * w.of[4 * i] + x.of[4 * i + 1] * w.of[4 * i + 1]
         + x.of[4 * i + 2] * w.of[4 * i + 2] + x.of[4 * i + 3] * w.of[4 * i + 3])));
}
INLINE sums dot_signed(sums acc, bytes x, bytes w) { return dot(acc, x, w); }

/* Four activations of a channel side by side, in the order that `pack` takes back. */
INLINE void zip(bytes a, bytes b, bytes c, bytes d, bytes *o)
{
    for (int i = 0; i < 16; i++) {
        int8_t *const to = o[i >> 2].of + 4 * (i & 3);
        to[0] = a.of[i];
        to[1] = b.of[i];
        to[2] = c.of[i];
        to[3] = d.of[i];
    }
}

INLINE bytes pack(sums a, sums b, sums c, sums d)
{
    bytes r;
    for (int i = 0; i < 4; i++) {
        r.of[i] = cut(a.of[i]);
        r.of[4 + i] = cut(b.of[i]);
        r.of[8 + i] = cut(c.of[i]);
        r.of[12 + i] = cut(d.of[i]);
    }
    return r;
}

/* All of `a`, then all of `b`, ...: in one lane of 16 bytes the same as `pack`. */
INLINE bytes pack_rows(sums a, sums b, sums c, sums d) { return pack(a, b, c, d); }
