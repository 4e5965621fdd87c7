/* Vectors of the compiler's own, which gcc and clang bring to any processor: 4 sums of int32, 16 activations. */
#define LANES 4
typedef int32_t sums __attribute__((vector_size(16)));
typedef uint32_t wrapping __attribute__((vector_size(16)));
typedef int8_t bytes __attribute__((vector_size(16)));
typedef int16_t halves __attribute__((vector_size(32)));
typedef int8_t quarter __attribute__((vector_size(4)));

INLINE sums load_sums(const int32_t *p) { sums v; __builtin_memcpy(&v, p, 16); return v; }
INLINE void store_sums(int32_t *p, sums v) { __builtin_memcpy(p, &v, 16); }
INLINE sums splat(int32_t v) { return (sums){v, v, v, v}; }
/* Through unsigned numbers: what the spare lanes hold may wrap. */
INLINE sums add(sums a, sums b) { return (sums)((wrapping)a + (wrapping)b); }
INLINE sums mul(sums a, sums b) { return (sums)((wrapping)a * (wrapping)b); }
INLINE sums larger(sums a, sums b) { const sums m = a > b; return (a & m) | (b & ~m); }
INLINE sums shift(sums a, sums s) { return a >> s; }
INLINE sums widen(const int8_t *p) { quarter v; __builtin_memcpy(&v, p, 4); return __builtin_convertvector(v, sums); }

INLINE bytes load(const int8_t *p) { bytes v; __builtin_memcpy(&v, p, 16); return v; }
INLINE void store(int8_t *p, bytes v) { __builtin_memcpy(p, &v, 16); }
INLINE bytes none(void) { return (bytes){0}; }
INLINE bytes splat_byte(int v) { return (bytes){0} + (int8_t)v; }
INLINE bytes larger_bytes(bytes a, bytes b) { const bytes m = a > b; return (a & m) | (b & ~m); }
INLINE bytes add_bytes(bytes a, bytes b)
{
    halves v = __builtin_convertvector(a, halves) + __builtin_convertvector(b, halves);
    const halves over = v > 127;
    v = (v & ~over) | (over & 127);
    const halves under = v < -128;
    v = (v & ~under) | (under & -128);
    return __builtin_convertvector(v, bytes);
}

/* The same four activations for every channel. */
INLINE bytes four(const int8_t *p) { int32_t v; __builtin_memcpy(&v, p, 4); return (bytes)splat(v); }

INLINE void store_lane(int8_t *p, bytes v, int lane) { (void)lane; store(p, v); }

/* Byte `i` of every sum's four, with its sign. */
#define PART(v, i) ((sums)((wrapping)(v) << (24 - 8 * (i))) >> 24)
INLINE sums dot(sums acc, bytes x, bytes w)
{
    const sums even = add(mul(PART(x, 0), PART(w, 0)), mul(PART(x, 2), PART(w, 2)));
    const sums odd = add(mul(PART(x, 1), PART(w, 1)), mul(PART(x, 3), PART(w, 3)));
    return add(acc, add(even, odd));
}
INLINE sums dot_signed(sums acc, bytes x, bytes w) { return dot(acc, x, w); }

/* Four activations of a channel side by side, in the order that `pack` takes back. */
INLINE void zip(bytes a, bytes b, bytes c, bytes d, bytes *o)
{
    int8_t all[64];
    for (int i = 0; i < 16; i++) {
        all[4 * i] = a[i];
        all[4 * i + 1] = b[i];
        all[4 * i + 2] = c[i];
        all[4 * i + 3] = d[i];
    }
    __builtin_memcpy(o, all, 64);
}

INLINE sums cut(sums v)
{
    const sums over = v > 127;
    v = (v & ~over) | (over & 127);
    const sums under = v < -128;
    return (v & ~under) | (under & -128);
}

INLINE bytes pack(sums a, sums b, sums c, sums d)
{
    const quarter all[4] = {
        __builtin_convertvector(cut(a), quarter), __builtin_convertvector(cut(b), quarter),
        __builtin_convertvector(cut(c), quarter), __builtin_convertvector(cut(d), quarter)};
    bytes v;
    __builtin_memcpy(&v, all, 16);
    return v;
}

/* All of `a`, then all of `b`, ...: in one lane of 16 bytes the same as `pack`. */
INLINE bytes pack_rows(sums a, sums b, sums c, sums d) { return pack(a, b, c, d); }
