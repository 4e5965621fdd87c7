/* Integer kernels for WebAssembly SIMD, exact: i32x4.dot_i16x8_s multiplies and adds without rounding.

   Maps lie pixel by pixel (H, W, C) as int8; a vector is a map of one pixel. Weights are unpacked once, by `init`,
   into int16 in the order in which the kernels read them. Every array has SLACK elements behind it, so a block of
   eight may be read past the end: its weights are zero there, and nothing is stored. */
#include <stdint.h>
#include <wasm_simd128.h>

#define BLOCK 8
#define SLACK 16
#define TILE 4
#define KERNEL static __attribute__((noinline)) void /* one copy, however many layers call it */

typedef struct {
    const int32_t *bias;
    const int32_t *multiplier; /* none: the sums themselves are the result, as int32 */
    const uint8_t *shift;
    int uniform; /* all channels have the first shift */
    int low;     /* 0, or -127 for signed results */
} Scale;

/* The scale of the channels from o on. */
static inline Scale at(Scale s, int o)
{
    s.bias += o;
    s.multiplier += o;
    s.shift += s.uniform ? 0 : o;
    return s;
}

static inline int clipped(int32_t v, int low)
{
    return v > 127 ? 127 : v < low ? low : v;
}

static inline int requantized(int32_t acc, int32_t multiplier, int shift, int low)
{
    return clipped((acc * multiplier + ((1 << shift) >> 1)) >> shift, low);
}

/* --- once, at the start --- */

static int weight(const uint8_t *stream, int bits, int number)
{
    const int bit = number * bits, low = bit & 7, mask = (1 << bits) - 1, sign = 1 << (bits - 1);
    int v = stream[bit >> 3] >> low;
    if (low + bits > 8) {
        v |= stream[(bit >> 3) + 1] << (8 - low);
    }
    v &= mask;
    return bits == 1 ? v * 2 - 1 : (v ^ sign) - sign;
}

/* [out][size] to blocks of eight outputs; in a block, pairs of products lie together, as the dot product takes them.
   For depthwise layers these are channels and taps. */
KERNEL unpack_products(const uint8_t *stream, int bits, int out, int size, int16_t *w)
{
    const int pairs = (size + 1) / 2;
    for (int o = 0; o < out; o++) {
        int16_t *const block = w + o / BLOCK * pairs * 2 * BLOCK + o % BLOCK * 2;
        for (int k = 0; k < size; k++) {
            block[k / 2 * 2 * BLOCK + k % 2] = (int16_t)weight(stream, bits, o * size + k);
        }
    }
}

/* [channels][taps] to one row of channels a tap. */
KERNEL unpack_rows(const uint8_t *stream, int bits, int channels, int taps, int16_t *w)
{
    const int wide = (channels + BLOCK - 1) / BLOCK * BLOCK;
    for (int c = 0; c < channels; c++) {
        for (int t = 0; t < taps; t++) {
            w[t * wide + c] = (int16_t)weight(stream, bits, c * taps + t);
        }
    }
}

/* Integers of 1, 2 or 4 bytes, little end first, to int32. */
KERNEL unpack_integers(const uint8_t *stream, int bytes, int is_signed, int exponent, int n, int32_t *y)
{
    const int unused = 32 - 8 * bytes;
    for (int k = 0; k < n; k++) {
        uint32_t v = 0;
        for (int b = 0; b < bytes; b++) {
            v |= (uint32_t)*stream++ << 8 * b;
        }
        v <<= unused;
        y[k] = (is_signed ? (int32_t)v >> unused : (int32_t)(v >> unused)) * (1 << exponent);
    }
}

/* --- every image --- */

static inline v128_t load8(const int8_t *p)
{
    return wasm_i16x8_load8x8(p);
}

/* Store the first n of eight bytes. */
static inline void store8(int8_t *out, v128_t bytes, int n)
{
    if (n >= BLOCK) {
        wasm_v128_store64_lane(out, bytes, 0);
        return;
    }
    int64_t v = wasm_i64x2_extract_lane(bytes, 0);
    for (; n > 0; n--, v >>= 8) {
        *out++ = (int8_t)v;
    }
}

static inline v128_t narrowed(v128_t a, v128_t b, int low)
{
    const v128_t v = wasm_i16x8_min(wasm_i16x8_max(wasm_i16x8_narrow_i32x4(a, b), wasm_i16x8_splat((int16_t)low)),
                                    wasm_i16x8_splat(127));
    return wasm_i8x16_narrow_i16x8(v, v);
}

/* Bring the sums of up to eight channels, from channel o on, to the next scale. */
static inline void finish(v128_t a, v128_t b, Scale s, int o, int n, void *out)
{
    a = wasm_i32x4_add(a, wasm_v128_load(s.bias + o));
    b = wasm_i32x4_add(b, wasm_v128_load(s.bias + o + 4));
    if (s.multiplier && s.uniform) {
        const int shift = s.shift[0];
        const v128_t half = wasm_i32x4_splat((1 << shift) >> 1);
        a = wasm_i32x4_shr(wasm_i32x4_add(wasm_i32x4_mul(a, wasm_v128_load(s.multiplier + o)), half), shift);
        b = wasm_i32x4_shr(wasm_i32x4_add(wasm_i32x4_mul(b, wasm_v128_load(s.multiplier + o + 4)), half), shift);
        store8(out, narrowed(a, b, s.low), n);
        return;
    }
    int32_t acc[BLOCK];
    wasm_v128_store(acc, a);
    wasm_v128_store(acc + 4, b);
    for (int k = 0; k < n && k < BLOCK; k++) {
        if (s.multiplier) {
            ((int8_t *)out)[k] = (int8_t)requantized(acc[k], s.multiplier[o + k], s.shift[o + k], s.low);
        } else {
            ((int32_t *)out)[k] = acc[k];
        }
    }
}

/* Products of `count` (1 or TILE) rows of x, `step` apart, with all outputs. */
static inline __attribute__((always_inline)) void products(const int16_t *x, int step, int count, int pairs, int out,
                                                           const int16_t *w, Scale s, int8_t *y, int y_step, int keep)
{
    for (int o = 0; o < out; o += BLOCK) {
        v128_t a[TILE], b[TILE];
#pragma clang loop unroll(full)
        for (int i = 0; i < count; i++) {
            a[i] = b[i] = wasm_i32x4_const_splat(0);
        }
        for (int k = 0; k < pairs; k++, w += 2 * BLOCK) {
            const v128_t first = wasm_v128_load(w), second = wasm_v128_load(w + BLOCK);
#pragma clang loop unroll(full)
            for (int i = 0; i < count; i++) {
                const v128_t v = wasm_v128_load32_splat(x + i * step + 2 * k);
                a[i] = wasm_i32x4_add(a[i], wasm_i32x4_dot_i16x8(v, first));
                b[i] = wasm_i32x4_add(b[i], wasm_i32x4_dot_i16x8(v, second));
            }
        }
        const int size = s.multiplier ? 1 : 4;
#pragma clang loop unroll(full)
        for (int i = 0; i < count; i++) {
            if (i < keep) {
                finish(a[i], b[i], s, o, out - o, y + (i * y_step + o) * size);
            }
        }
    }
}

KERNEL widen(const int8_t *x, int n, int16_t *y)
{
    for (int k = 0; k < n; k += BLOCK) {
        wasm_v128_store(y + k, load8(x + k));
    }
}

typedef struct {
    int high, wide;       /* of the result */
    int rows, columns;    /* of the kernel */
    int down, right;      /* strides */
    int in_wide, in_step; /* pixels of a row of the input, channels of one of its pixels */
} Window;

/* `depth` channels from x on, to `out` channels from y on; y_step channels a pixel. `patch` holds TILE windows. */
KERNEL convolve(const int8_t *x, Window g, int depth, int out, const int16_t *w, Scale s, int8_t *y, int y_step,
                     int16_t *patch)
{
    const int pixels = g.high * g.wide, size = g.rows * g.columns * depth;
    const int step = (size + 1) / 2 * 2 + BLOCK;
    const int whole = depth == g.in_step; /* the pixels of a window's row are one run */
    for (int p = 0; p < pixels; p += TILE) {
        for (int i = 0; i < TILE && p + i < pixels; i++) {
            const int oy = (p + i) / g.wide, ox = (p + i) % g.wide;
            int16_t *to = patch + i * step;
            for (int r = 0; r < g.rows; r++) {
                const int8_t *from = x + ((oy * g.down + r) * g.in_wide + ox * g.right) * g.in_step;
                if (whole) {
                    widen(from, g.columns * depth, to);
                    to += g.columns * depth;
                } else {
                    for (int c = 0; c < g.columns; c++, from += g.in_step, to += depth) {
                        widen(from, depth, to);
                    }
                }
            }
        }
        products(patch, step, TILE, (size + 1) / 2, out, w, s, y + p * y_step * (s.multiplier ? 1 : 4), y_step,
                 pixels - p);
    }
}

KERNEL dense(const int8_t *x, int size, int out, const int16_t *w, Scale s, void *y, int16_t *patch)
{
    widen(x, size, patch);
    products(patch, 0, 1, (size + 1) / 2, out, w, s, y, 0, 1);
}

/* Of sums, which may be wider than int16. */
KERNEL dense_sums(const int32_t *x, int size, int out, const uint8_t *stream, int bits, Scale s, void *y)
{
    for (int o = 0; o < out; o++) {
        int32_t acc = s.bias[o];
        for (int k = 0; k < size; k++) {
            acc += x[k] * weight(stream, bits, o * size + k);
        }
        if (s.multiplier) {
            ((int8_t *)y)[o] = (int8_t)requantized(acc, s.multiplier[o], s.shift[s.uniform ? 0 : o], s.low);
        } else {
            ((int32_t *)y)[o] = acc;
        }
    }
}

KERNEL depthwise(const int8_t *x, Window g, const int16_t *w, Scale s, int8_t *y)
{
    const int taps = g.rows * g.columns, channels = g.in_step;
    for (int p = 0; p < g.high * g.wide; p++, y += channels) {
        const int8_t *const start = x + (p / g.wide * g.down * g.in_wide + p % g.wide * g.right) * channels;
        const int16_t *v = w;
        for (int c = 0; c < channels; c += BLOCK) {
            v128_t a = wasm_i32x4_const_splat(0), b = a;
            for (int t = 0; t < taps; t += 2, v += 2 * BLOCK) {
                const int u = t + 1 < taps ? t + 1 : t; /* the weight of a second one that is not there is 0 */
                const v128_t one = load8(start + (t / g.columns * g.in_wide + t % g.columns) * channels + c);
                const v128_t two = load8(start + (u / g.columns * g.in_wide + u % g.columns) * channels + c);
                const v128_t lo = wasm_i16x8_shuffle(one, two, 0, 8, 1, 9, 2, 10, 3, 11);
                const v128_t hi = wasm_i16x8_shuffle(one, two, 4, 12, 5, 13, 6, 14, 7, 15);
                a = wasm_i32x4_add(a, wasm_i32x4_dot_i16x8(lo, wasm_v128_load(v)));
                b = wasm_i32x4_add(b, wasm_i32x4_dot_i16x8(hi, wasm_v128_load(v + BLOCK)));
            }
            finish(a, b, s, c, channels - c, y + c);
        }
    }
}

/* The same where no sum leaves int16. */
static inline __attribute__((always_inline)) void depthwise_narrow(const int8_t *x, Window g, const int16_t *w, Scale s,
                                                                   int8_t *y)
{
    const int channels = g.in_step, wide = (channels + BLOCK - 1) / BLOCK * BLOCK;
    for (int oy = 0; oy < g.high; oy++) {
        for (int ox = 0; ox < g.wide; ox++, y += channels) {
            const int8_t *const start = x + (oy * g.down * g.in_wide + ox * g.right) * channels;
            for (int c = 0; c < channels; c += BLOCK) {
                v128_t acc = wasm_i16x8_const_splat(0);
                const int16_t *v = w + c;
                const int8_t *row = start + c;
#pragma clang loop unroll(full)
                for (int r = 0; r < g.rows; r++, row += g.in_wide * channels) {
#pragma clang loop unroll(full)
                    for (int t = 0; t < g.columns; t++, v += wide) {
                        const v128_t product = wasm_i16x8_mul(load8(row + t * channels), wasm_v128_load(v));
                        acc = wasm_i16x8_add(acc, product);
                    }
                }
                finish(wasm_i32x4_extend_low_i16x8(acc), wasm_i32x4_extend_high_i16x8(acc), s, c, channels - c, y + c);
            }
        }
    }
}

KERNEL depthwise_3x3(const int8_t *x, Window g, const int16_t *w, Scale s, int8_t *y)
{
    g.rows = g.columns = 3;
    depthwise_narrow(x, g, w, s, y);
}

KERNEL depthwise_any(const int8_t *x, Window g, const int16_t *w, Scale s, int8_t *y)
{
    depthwise_narrow(x, g, w, s, y);
}

/* A map of sums, pixel by pixel, to the caller's planes. */
KERNEL planes(const int32_t *x, int pixels, int channels, int32_t *y)
{
    for (int p = 0; p < pixels; p++) {
        for (int c = 0; c < channels; c++) {
            y[c * pixels + p] = *x++;
        }
    }
}

/* The caller's planes, halved. */
KERNEL halve(const uint8_t *x, int pixels, int channels, int8_t *y)
{
    for (int p = 0; p < pixels; p++) {
        for (int c = 0; c < channels; c++) {
            *y++ = (int8_t)(x[c * pixels + p] >> 1);
        }
    }
}

/* A map with `top` and `bottom` rows and `left` and `right` pixels of `value` around it. */
KERNEL pad(const int8_t *x, int high, int wide, int channels, int top, int left, int bottom, int right, int value,
                int8_t *y)
{
    const int row = (left + wide + right) * channels, all = (top + high + bottom) * row;
    for (int k = 0; k < all; k++) {
        y[k] = (int8_t)value;
    }
    y += top * row + left * channels;
    for (int r = 0; r < high; r++, y += row) {
        for (int k = 0; k < wide * channels; k++) {
            y[k] = *x++;
        }
    }
}

KERNEL maxpool(const int8_t *x, Window g, int8_t *y)
{
    const int channels = g.in_step;
    for (int p = 0; p < g.high * g.wide; p++, y += channels) {
        const int8_t *const start = x + (p / g.wide * g.down * g.in_wide + p % g.wide * g.right) * channels;
        for (int c = 0; c < channels; c += BLOCK) {
            v128_t most = wasm_i8x16_const_splat(-128);
            for (int r = 0; r < g.rows; r++) {
                for (int t = 0; t < g.columns; t++) {
                    most = wasm_i8x16_max(most, wasm_v128_load64_zero(start + (r * g.in_wide + t) * channels + c));
                }
            }
            store8(y + c, most, channels - c);
        }
    }
}

KERNEL avgpool(const int8_t *x, Window g, int32_t multiplier, int shift, int8_t *y)
{
    const int channels = g.in_step;
    for (int p = 0; p < g.high * g.wide; p++) {
        const int8_t *const start = x + (p / g.wide * g.down * g.in_wide + p % g.wide * g.right) * channels;
        for (int c = 0; c < channels; c++) {
            int32_t acc = 0;
            for (int r = 0; r < g.rows; r++) {
                for (int t = 0; t < g.columns; t++) {
                    acc += start[(r * g.in_wide + t) * channels + c];
                }
            }
            *y++ = (int8_t)requantized(acc, multiplier, shift, -127);
        }
    }
}

KERNEL sumpool(const int8_t *x, int pixels, int channels, int32_t *y)
{
    for (int c = 0; c < channels; c += BLOCK) {
        v128_t a = wasm_i32x4_const_splat(0), b = a;
        for (int p = 0; p < pixels; p++) {
            const v128_t v = load8(x + p * channels + c);
            a = wasm_i32x4_add(a, wasm_i32x4_extend_low_i16x8(v));
            b = wasm_i32x4_add(b, wasm_i32x4_extend_high_i16x8(v));
        }
        wasm_v128_store(y + c, a);
        wasm_v128_store(y + c + 4, b);
    }
}

KERNEL add(const int8_t *p, const int8_t *q, int n, int32_t mp, int32_t mq, int shift, int low, int8_t *y)
{
    const v128_t half = wasm_i32x4_splat((1 << shift) >> 1), vp = wasm_i32x4_splat(mp), vq = wasm_i32x4_splat(mq);
    for (int k = 0; k < n; k += BLOCK) {
        const v128_t u = load8(p + k), v = load8(q + k);
        const v128_t a = wasm_i32x4_add(wasm_i32x4_mul(wasm_i32x4_extend_low_i16x8(u), vp),
                                        wasm_i32x4_mul(wasm_i32x4_extend_low_i16x8(v), vq));
        const v128_t b = wasm_i32x4_add(wasm_i32x4_mul(wasm_i32x4_extend_high_i16x8(u), vp),
                                        wasm_i32x4_mul(wasm_i32x4_extend_high_i16x8(v), vq));
        store8(y + k,
               narrowed(wasm_i32x4_shr(wasm_i32x4_add(a, half), shift), wasm_i32x4_shr(wasm_i32x4_add(b, half), shift),
                        low),
               n - k);
    }
}

/* A gate a channel (pixel_step 0), a pixel (channel_step 0) or an element. */
KERNEL gate(const int8_t *x, const int8_t *g, int pixels, int channels, int pixel_step, int channel_step,
                 int32_t multiplier, int shift, int low, int8_t *y)
{
    for (int p = 0; p < pixels; p++) {
        for (int c = 0; c < channels; c++) {
            *y++ = (int8_t)requantized(*x++ * g[p * pixel_step + c * channel_step], multiplier, shift, low);
        }
    }
}

/* A table for all channels (step 0), or one of `step` entries each; entry 0 is for the input -base. */
KERNEL lookup(const int8_t *x, int pixels, int channels, const int8_t *table, int step, int base, int8_t *y)
{
    for (int p = 0; p < pixels; p++) {
        for (int c = 0; c < channels; c++) {
            *y++ = table[c * step + *x++ + base];
        }
    }
}

KERNEL channelmax(const int8_t *x, int pixels, int channels, int8_t *y)
{
    for (int p = 0; p < pixels; p++) {
        int most = -128;
        for (int c = 0; c < channels; c++, x++) {
            most = *x > most ? *x : most;
        }
        y[p] = (int8_t)most;
    }
}

KERNEL channelmean(const int8_t *x, int pixels, int channels, int32_t multiplier, int shift, int8_t *y)
{
    for (int p = 0; p < pixels; p++) {
        int32_t acc = 0;
        for (int c = 0; c < channels; c++) {
            acc += *x++;
        }
        y[p] = (int8_t)requantized(acc, multiplier, shift, -127);
    }
}

/* `count` channels of every pixel, to another place of it. */
KERNEL move(const int8_t *x, int x_step, int pixels, int count, int8_t *y, int y_step)
{
    for (int p = 0; p < pixels; p++, x += x_step, y += y_step) {
        for (int c = 0; c < count; c++) {
            y[c] = x[c];
        }
    }
}

/* Channel k of group g becomes channel g of group k; with one pixel and its map's pixels as groups, a transposition. */
KERNEL shuffle(const int8_t *x, int pixels, int channels, int groups, int8_t *y)
{
    const int size = channels / groups;
    for (int p = 0; p < pixels; p++, x += channels) {
        for (int k = 0; k < size; k++) {
            for (int g = 0; g < groups; g++) {
                *y++ = x[g * size + k];
            }
        }
    }
}

KERNEL copy(const int32_t *x, int n, int32_t *y)
{
    for (int k = 0; k < n; k++) {
        y[k] = x[k];
    }
}

KERNEL widened(const int8_t *x, int n, int32_t *y)
{
    for (int k = 0; k < n; k++) {
        y[k] = x[k];
    }
}
