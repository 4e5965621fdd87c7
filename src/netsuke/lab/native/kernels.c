/* Training kernels for small integer networks, on float32 tensors laid out [C, H, W, N]: the batch lies innermost.

   With the batch innermost a depthwise convolution, a ReLU and a norm are plain vector code, whatever the map's
   size, and a pointwise one is a product of a small matrix with long rows. N is a multiple of 16. One thread. */

#include <stdint.h>
#include <string.h>

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias));
enum { LANES = 16, CHUNK = 1024 };

#define ALWAYS static inline __attribute__((always_inline))
#define AT(p) (*(vec *)(p))
#define CAT(p) (*(const vec *)(p))

typedef struct {
    long channels, height, width, batch;     /* of the input */
    long outputs, rows, columns;             /* of the output */
    long kernel_rows, kernel_columns, stride_rows, stride_columns, top, left;
} shape;

ALWAYS vec splat(float value) { return (vec){0} + value; }

ALWAYS float lanes_sum(vec v)
{
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

/* out[r][0..16q) = sum over k of weight[k * next + r] * x[k]: rows of x and out are `xs` and `os` floats apart. */
ALWAYS void tile(const int R, const int Q, long K, const float *weight, long next, const float *x, long xs,
                 float *out, long os)
{
    vec acc[6][4];
    for (int r = 0; r < R; r++)
        for (int q = 0; q < Q; q++) acc[r][q] = splat(0);
    for (long k = 0; k < K; k++) {
        vec in[4];
        for (int q = 0; q < Q; q++) in[q] = CAT(x + k * xs + q * LANES);
        for (int r = 0; r < R; r++) {
            const float w = weight[k * next + r];
            for (int q = 0; q < Q; q++) acc[r][q] += w * in[q];
        }
    }
    for (int r = 0; r < R; r++)
        for (int q = 0; q < Q; q++) AT(out + r * os + q * LANES) = acc[r][q];
}

ALWAYS void tiles(const int Q, long R, long K, const float *weight, long next, const float *x, long xs, float *out,
                  long os)
{
    long r = 0;
    for (; r + 6 <= R; r += 6) tile(6, Q, K, weight + r, next, x, xs, out + r * os, os);
    switch (R - r) {
    case 5: tile(5, Q, K, weight + r, next, x, xs, out + r * os, os); break;
    case 4: tile(4, Q, K, weight + r, next, x, xs, out + r * os, os); break;
    case 3: tile(3, Q, K, weight + r, next, x, xs, out + r * os, os); break;
    case 2: tile(2, Q, K, weight + r, next, x, xs, out + r * os, os); break;
    case 1: tile(1, Q, K, weight + r, next, x, xs, out + r * os, os); break;
    }
}

/* out [R, L] = weight^T [R, K] x [K, L], the weight stored [K, next]. */
static void product(long R, long K, long L, const float *weight, long next, const float *x, long xs, float *out,
                    long os)
{
    long l = 0;
    for (; l + 64 <= L; l += 64) tiles(4, R, K, weight, next, x + l, xs, out + l, os);
    for (; l < L; l += LANES) tiles(1, R, K, weight, next, x + l, xs, out + l, os);
}

/* total[r][k] (vectors of lanes) += sum over l of a[r][l] * b[k][l]. */
ALWAYS void outer(const int R, const int Q, long L, const float *a, long as, const float *b, long bs, float *total,
                  long K)
{
    vec acc[4][6];
    for (int r = 0; r < R; r++)
        for (int q = 0; q < Q; q++) acc[r][q] = CAT(total + (r * K + q) * LANES);
    for (long l = 0; l < L; l += LANES) {
        vec right[6];
        for (int q = 0; q < Q; q++) right[q] = CAT(b + q * bs + l);
        for (int r = 0; r < R; r++) {
            const vec left = CAT(a + r * as + l);
            for (int q = 0; q < Q; q++) acc[r][q] += left * right[q];
        }
    }
    for (int r = 0; r < R; r++)
        for (int q = 0; q < Q; q++) AT(total + (r * K + q) * LANES) = acc[r][q];
}

ALWAYS void outers(const int R, long L, const float *a, long as, const float *b, long bs, float *total, long K)
{
    long k = 0;
    for (; k + 6 <= K; k += 6) outer(R, 6, L, a, as, b + k * bs, bs, total + k * LANES, K);
    for (; k + 2 <= K; k += 2) outer(R, 2, L, a, as, b + k * bs, bs, total + k * LANES, K);
    for (; k < K; k++) outer(R, 1, L, a, as, b + k * bs, bs, total + k * LANES, K);
}

static void products(long R, long K, long L, const float *a, long as, const float *b, long bs, float *total)
{
    long r = 0;
    for (; r + 4 <= R; r += 4) outers(4, L, a + r * as, as, b, bs, total + r * K * LANES, K);
    for (; r < R; r++) outers(1, L, a + r * as, as, b, bs, total + r * K * LANES, K);
}

/* The elementwise kernels are plain loops over one channel, which compilers turn into vectors by themselves. */
ALWAYS float greater(float a, float b) { return a > b ? a : b; }

ALWAYS float lesser(float a, float b) { return a < b ? a : b; }

ALWAYS float clipped(float v, float lo) { return lesser(greater(v, lo), 127.0f); }

ALWAYS float rounded(float v, float lo) { return __builtin_floorf(clipped(v, lo) + 0.5f); }

ALWAYS int inside(long y, long x, const shape *s) { return y >= 0 && y < s->height && x >= 0 && x < s->width; }

/* One run of output pixels of a row as columns [channels * kernel, pixels, N]; outside lies zero. */
static void gather(const shape *s, const float *x, long row, long first, long pixels, float *columns)
{
    const long N = s->batch, L = pixels * N;
    for (long c = 0; c < s->channels; c++)
        for (long r = 0; r < s->kernel_rows; r++)
            for (long k = 0; k < s->kernel_columns; k++, columns += L)
                for (long p = 0; p < pixels; p++) {
                    const long iy = row * s->stride_rows + r - s->top;
                    const long ix = (first + p) * s->stride_columns + k - s->left;
                    if (inside(iy, ix, s))
                        memcpy(columns + p * N, x + ((c * s->height + iy) * s->width + ix) * N, N * sizeof *x);
                    else
                        memset(columns + p * N, 0, N * sizeof *x);
                }
}

/* The adjoint of `gather`: adds columns back to where they came from. */
static void scatter(const shape *s, float *dx, long row, long first, long pixels, const float *columns)
{
    const long N = s->batch, L = pixels * N;
    for (long c = 0; c < s->channels; c++)
        for (long r = 0; r < s->kernel_rows; r++)
            for (long k = 0; k < s->kernel_columns; k++, columns += L)
                for (long p = 0; p < pixels; p++) {
                    const long iy = row * s->stride_rows + r - s->top;
                    const long ix = (first + p) * s->stride_columns + k - s->left;
                    if (!inside(iy, ix, s)) continue;
                    float *to = dx + ((c * s->height + iy) * s->width + ix) * N;
                    for (long n = 0; n < N; n += LANES) AT(to + n) += CAT(columns + p * N + n);
                }
}

static int pointwise(const shape *s)
{
    return s->kernel_rows == 1 && s->kernel_columns == 1 && s->stride_rows == 1 && s->stride_columns == 1 && !s->top
        && !s->left && s->rows == s->height && s->columns == s->width;
}

static long least(long a, long b) { return a < b ? a : b; }

/* Pixels of a row that are taken at once, so that their columns stay in the cache. */
static long run_length(const shape *s)
{
    const long K = s->channels * s->kernel_rows * s->kernel_columns, most = 65536 / (K * s->batch);
    return most < 1 ? 1 : least(most, s->columns);
}

/* Floats of scratch memory that a convolution takes, forward or backward. */
long scratch(const shape *s)
{
    const long K = s->channels * s->kernel_rows * s->kernel_columns;
    const long L = pointwise(s) ? CHUNK : run_length(s) * s->batch;
    return s->outputs * L + K * L * 2 + s->outputs * K * LANES;
}

/* z [O, rows, columns, N] = convolution of x [C, H, W, N]; `weight` comes transposed, [C * kernel, O]. */
void conv_forward(const shape *s, const float *x, const float *weight, float *z, float *room)
{
    const long N = s->batch, K = s->channels * s->kernel_rows * s->kernel_columns, P = s->rows * s->columns * N;
    if (pointwise(s)) {
        for (long l = 0; l < P; l += CHUNK)
            product(s->outputs, K, least(CHUNK, P - l), weight, s->outputs, x + l, P, z + l, P);
        return;
    }
    const long step = run_length(s);
    for (long row = 0; row < s->rows; row++)
        for (long first = 0; first < s->columns; first += step) {
            const long pixels = least(step, s->columns - first);
            gather(s, x, row, first, pixels, room);
            product(s->outputs, K, pixels * N, weight, s->outputs, room, pixels * N,
                    z + (row * s->columns + first) * N, P);
        }
}

/* A map with its padding around it, so that no window has to ask where it ends. */
typedef struct {
    long height, width;
} frame;

static frame framed(const shape *s)
{
    return (frame){(s->rows - 1) * s->stride_rows + s->kernel_rows, (s->columns - 1) * s->stride_columns + s->kernel_columns};
}

static void fill(const float *map, long height, long width, long N, frame to, long top, long left, float *out)
{
    for (long y = 0; y < to.height; y++)
        for (long x = 0; x < to.width; x++, out += N) {
            const long iy = y - top, ix = x - left;
            if (iy >= 0 && iy < height && ix >= 0 && ix < width)
                memcpy(out, map + (iy * width + ix) * N, N * sizeof *out);
            else
                memset(out, 0, N * sizeof *out);
        }
}

/* One channel: out [rows, columns, N] from a framed map; with `flip` the window is turned by half a turn. */
ALWAYS void window(const int R, const int C, const int flip, long rows, long columns, long down, long across, long N,
                   long width, const float *map, const float *weight, float *out)
{
    for (long row = 0; row < rows; row++)
        for (long column = 0; column < columns; column++, out += N) {
            const float *in = map + (row * down * width + column * across) * N;
            for (long n = 0; n < N; n += LANES) {
                vec acc = splat(0);
                for (int r = 0; r < R; r++)
                    for (int c = 0; c < C; c++)
                        acc += weight[flip ? R * C - 1 - (r * C + c) : r * C + c] * CAT(in + (r * width + c) * N + n);
                AT(out + n) = acc;
            }
        }
}

static void windows(const shape *s, int flip, long rows, long columns, long down, long across, long width,
                    const float *map, const float *weight, float *out)
{
    const long N = s->batch;
    if (s->kernel_rows == 3 && s->kernel_columns == 3)
        window(3, 3, flip, rows, columns, down, across, N, width, map, weight, out);
    else if (s->kernel_rows == 5 && s->kernel_columns == 5)
        window(5, 5, flip, rows, columns, down, across, N, width, map, weight, out);
    else
        window((int)s->kernel_rows, (int)s->kernel_columns, flip, rows, columns, down, across, N, width, map, weight, out);
}

/* Floats of scratch memory of a depthwise layer: framed input, framed gradient, gradient. */
long depthwise_scratch(const shape *s)
{
    const frame f = framed(s);
    const long back = (s->height + s->kernel_rows - 1) * (s->width + s->kernel_columns - 1);
    return (f.height * f.width + back + s->rows * s->columns) * s->batch;
}

void depthwise_forward(const shape *s, const float *x, const float *weight, float *z, float *room)
{
    const long N = s->batch, taps = s->kernel_rows * s->kernel_columns;
    const frame f = framed(s);
    for (long c = 0; c < s->channels; c++) {
        fill(x + c * s->height * s->width * N, s->height, s->width, N, f, s->top, s->left, room);
        windows(s, 0, s->rows, s->columns, s->stride_rows, s->stride_columns, f.width, room, weight + c * taps,
                z + c * s->rows * s->columns * N);
    }
}

/* Mean and variance of `count` values. */
static void moments(long count, const float *z, double *mean, double *variance)
{
    double total = 0, square = 0;
    const float shift = z[0]; /* so that a mean far from zero leaves the squares their digits */
    for (long l = 0; l < count; l += CHUNK) {
        vec a = splat(0), b = splat(0);
        const long end = least(l + CHUNK, count);
        for (long i = l; i < end; i += LANES) {
            const vec v = CAT(z + i) - shift;
            a += v;
            b += v * v;
        }
        total += lanes_sum(a);
        square += lanes_sum(b);
    }
    const double centre = total / count, spread = square / count - centre * centre;
    *mean = centre + shift;
    *variance = spread > 0 ? spread : 0;
}

/* A batch norm's statistics, and what it makes of a sum: value = (sum + before) * scale + after. The running
   statistics move by `momentum`. `weight`, `bias`, `unit` and `eps` are the norm's. */
void norm_forward(long channels, long count, const float *z, const float *weight, const float *bias, float unit,
                  float eps, float momentum, float *running_mean, float *running_variance, float *before,
                  float *scale, float *after, float *rate)
{
    for (long c = 0; c < channels; c++, z += count) {
        double mean, variance;
        moments(count, z, &mean, &variance);
        const double spread = variance + eps;
        float root = (float)__builtin_sqrt(spread);
        rate[c] = 1.0f / root;
        before[c] = (float)-mean;
        scale[c] = weight[c] * unit * rate[c];
        after[c] = bias[c] * unit;
        running_mean[c] += momentum * ((float)mean - running_mean[c]);
        running_variance[c] += momentum * ((float)(variance * count / (count > 1 ? count - 1 : 1)) - running_variance[c]);
    }
}

/* Weights in whole steps within +-limit; a channel's step is its largest magnitude times share / limit. */
void round_forward(long channels, long count, const float *weight, const float *share, float limit, float *out,
                   float *step)
{
    for (long c = 0; c < channels; c++, weight += count, out += count) {
        float most = 0;
        for (long i = 0; i < count; i++) most = greater(most, __builtin_fabsf(weight[i]));
        step[c] = greater(most * share[c] / limit, 1e-8f);
        for (long i = 0; i < count; i++)
            out[i] = __builtin_rintf(lesser(greater(weight[i] / step[c], -limit), limit));
    }
}

/* The gradient passes straight through, within the limits. */
void round_backward(long channels, long count, const float *gradient, const float *weight, const float *step,
                    float limit, float *dw)
{
    for (long c = 0; c < channels; c++, weight += count, gradient += count, dw += count) {
        const float most = step[c] * limit * (1 + 1e-6f), back = 1 / step[c];
        for (long i = 0; i < count; i++) dw[i] = __builtin_fabsf(weight[i]) <= most ? gradient[i] * back : 0.0f;
    }
}

/* a = clip(floor((z + before) * scale + after + 1/2), lo, 127), channel by channel. */
void activate(long channels, long count, const float *z, const float *before, const float *scale, const float *after,
              float lo, float *a)
{
    for (long c = 0; c < channels; c++, z += count, a += count) {
        const float b = before[c], m = scale[c], e = after[c];
        for (long i = 0; i < count; i++) a[i] = rounded((z[i] + b) * m + e, lo);
    }
}

/* The gradient behind the activation: that of `out` where the rounded value lies between the limits. */
ALWAYS float passed(float gradient, float v, float lo)
{
    const float out = rounded(v, lo);
    return out > lo && out < 127.0f ? gradient : 0.0f;
}

/* For each channel the sums of the gradient, and of the gradient times (z + before). */
void activate_sums(long channels, long count, const float *gradient, const float *z, const float *before,
                   const float *scale, const float *after, float lo, float *sum, float *product_sum)
{
    for (long c = 0; c < channels; c++, z += count, gradient += count) {
        const float b = before[c], m = scale[c], e = after[c];
        double total = 0, products_total = 0;
        for (long l = 0; l < count; l += CHUNK) {
            const long end = least(l + CHUNK, count);
            float plain = 0, times = 0;
            for (long i = l; i < end; i++) {
                const float in = z[i] + b, g = passed(gradient[i], in * m + e, lo);
                plain += g;
                times += g * in;
            }
            total += plain;
            products_total += times;
        }
        sum[c] = (float)total;
        product_sum[c] = (float)products_total;
    }
}

typedef struct {
    const float *before, *scale, *after, *mean_part, *slope_part;
    float lo;
} norm;

/* dz = scale * passed gradient - mean_part - slope_part * (z + before), `count` values of channel c. */
ALWAYS void through(const norm *n, long c, long count, const float *restrict gradient, const float *restrict z,
                    float *restrict dz)
{
    const float b = n->before[c], m = n->scale[c], e = n->after[c], lo = n->lo;
    const float mean = n->mean_part[c], slope = n->slope_part[c];
    for (long i = 0; i < count; i++) {
        const float in = z[i] + b;
        dz[i] = m * passed(gradient[i], in * m + e, lo) - mean - slope * in;
    }
}

static void reduced(long count, const float *total, float *dw)
{
    for (long i = 0; i < count; i++) dw[i] = lanes_sum(CAT(total + i * LANES));
}

/* dw [O, C * kernel] and, unless it is null, dx, from the gradient of the activation; `weight` is [O, C * kernel]. */
void conv_backward(const shape *s, const norm *n, const float *gradient, const float *z, const float *x,
                   const float *weight, float *dx, float *dw, float *room)
{
    const long N = s->batch, K = s->channels * s->kernel_rows * s->kernel_columns, P = s->rows * s->columns * N;
    const int direct = pointwise(s);
    const long step = direct ? 0 : run_length(s), L = direct ? CHUNK : step * N;
    float *dz = room, *columns = dz + s->outputs * L, *back = columns + K * L, *total = back + K * L;
    memset(total, 0, s->outputs * K * LANES * sizeof *total);
    if (direct) {
        for (long l = 0; l < P; l += CHUNK) {
            const long length = least(CHUNK, P - l);
            for (long o = 0; o < s->outputs; o++)
                through(n, o, length, gradient + o * P + l, z + o * P + l, dz + o * CHUNK);
            products(s->outputs, K, length, dz, CHUNK, x + l, P, total);
            if (dx) product(K, s->outputs, length, weight, K, dz, CHUNK, dx + l, P);
        }
        reduced(s->outputs * K, total, dw);
        return;
    }
    if (dx) memset(dx, 0, s->channels * s->height * s->width * N * sizeof *dx);
    for (long row = 0; row < s->rows; row++)
        for (long first = 0; first < s->columns; first += step) {
            const long pixels = least(step, s->columns - first), length = pixels * N;
            const long at = (row * s->columns + first) * N;
            for (long o = 0; o < s->outputs; o++)
                through(n, o, length, gradient + o * P + at, z + o * P + at, dz + o * length);
            gather(s, x, row, first, pixels, columns);
            products(s->outputs, K, length, dz, length, columns, length, total);
            if (!dx) continue;
            product(K, s->outputs, length, weight, K, dz, length, back, length);
            scatter(s, dx, row, first, pixels, back);
        }
    reduced(s->outputs * K, total, dw);
}

/* The gradient of a window's weights: sums over all places of gradient times framed input. */
ALWAYS void taps_gradient(const int R, const int C, const shape *s, long width, const float *map, const float *dz,
                          float *dw)
{
    const long N = s->batch;
    for (int r = 0; r < R; r++) {
        vec acc[5];
        for (int c = 0; c < C; c++) acc[c] = splat(0);
        for (long row = 0; row < s->rows; row++)
            for (long column = 0; column < s->columns; column++) {
                const float *g = dz + (row * s->columns + column) * N;
                const float *in = map + ((row * s->stride_rows + r) * width + column * s->stride_columns) * N;
                for (long n = 0; n < N; n += LANES) {
                    const vec d = CAT(g + n);
                    for (int c = 0; c < C; c++) acc[c] += d * CAT(in + c * N + n);
                }
            }
        for (int c = 0; c < C; c++) dw[r * C + c] = lanes_sum(acc[c]);
    }
}

static void tap_gradient(const shape *s, long width, const float *map, const float *dz, float *dw)
{
    const long N = s->batch;
    for (long t = 0; t < s->kernel_rows * s->kernel_columns; t++) {
        const long r = t / s->kernel_columns, c = t % s->kernel_columns;
        vec acc = splat(0);
        for (long row = 0; row < s->rows; row++)
            for (long column = 0; column < s->columns; column++)
                for (long n = 0; n < N; n += LANES)
                    acc += CAT(dz + (row * s->columns + column) * N + n)
                         * CAT(map + ((row * s->stride_rows + r) * width + column * s->stride_columns + c) * N + n);
        dw[t] = lanes_sum(acc);
    }
}

/* Adds each place's gradient, times the window, to the input's. */
static void spread(const shape *s, const float *dz, const float *weight, float *dx)
{
    const long N = s->batch;
    memset(dx, 0, s->height * s->width * N * sizeof *dx);
    for (long row = 0; row < s->rows; row++)
        for (long column = 0; column < s->columns; column++, dz += N)
            for (long t = 0; t < s->kernel_rows * s->kernel_columns; t++) {
                const long iy = row * s->stride_rows + t / s->kernel_columns - s->top;
                const long ix = column * s->stride_columns + t % s->kernel_columns - s->left;
                if (!inside(iy, ix, s)) continue;
                float *to = dx + (iy * s->width + ix) * N;
                for (long n = 0; n < N; n += LANES) AT(to + n) += weight[t] * CAT(dz + n);
            }
}

/* As `conv_backward`, for one filter a channel. */
void depthwise_backward(const shape *s, const norm *n, const float *gradient, const float *z, const float *x,
                        const float *weight, float *dx, float *dw, float *room)
{
    const long N = s->batch, taps = s->kernel_rows * s->kernel_columns, P = s->rows * s->columns * N;
    const frame f = framed(s);
    const frame whole = {s->height + s->kernel_rows - 1, s->width + s->kernel_columns - 1};
    float *map = room, *back = map + f.height * f.width * N, *dz = back + whole.height * whole.width * N;
    for (long c = 0; c < s->channels; c++) {
        float *into = dx + c * s->height * s->width * N;
        fill(x + c * s->height * s->width * N, s->height, s->width, N, f, s->top, s->left, map);
        through(n, c, P, gradient + c * P, z + c * P, dz);
        if (s->kernel_rows == 3 && s->kernel_columns == 3)
            taps_gradient(3, 3, s, f.width, map, dz, dw + c * taps);
        else if (s->kernel_rows == 5 && s->kernel_columns == 5)
            taps_gradient(5, 5, s, f.width, map, dz, dw + c * taps);
        else
            tap_gradient(s, f.width, map, dz, dw + c * taps);
        if (s->stride_rows == 1 && s->stride_columns == 1) {
            fill(dz, s->rows, s->columns, N, whole, s->kernel_rows - 1 - s->top, s->kernel_columns - 1 - s->left, back);
            windows(s, 1, s->height, s->width, 1, 1, whole.width, back, weight + c * taps, into);
        } else
            spread(s, dz, weight + c * taps, into);
    }
}

/* Largest of each window, padding never; and where the gradient goes: to the first that is largest. */
void maxpool_forward(const shape *s, const float *x, float *restrict out)
{
    const long N = s->batch;
    for (long c = 0; c < s->channels; c++)
        for (long row = 0; row < s->rows; row++)
            for (long column = 0; column < s->columns; column++, out += N) {
                for (long n = 0; n < N; n++) out[n] = -1e30f;
                for (long r = 0; r < s->kernel_rows; r++)
                    for (long k = 0; k < s->kernel_columns; k++) {
                        const long iy = row * s->stride_rows + r - s->top, ix = column * s->stride_columns + k - s->left;
                        if (!inside(iy, ix, s)) continue;
                        const float *in = x + ((c * s->height + iy) * s->width + ix) * N;
                        for (long n = 0; n < N; n++) out[n] = greater(out[n], in[n]);
                    }
            }
}

void maxpool_backward(const shape *s, const float *gradient, const float *x, const float *out, float *dx)
{
    const long N = s->batch;
    memset(dx, 0, s->channels * s->height * s->width * N * sizeof *dx);
    for (long c = 0; c < s->channels; c++)
        for (long row = 0; row < s->rows; row++)
            for (long column = 0; column < s->columns; column++, out += N, gradient += N)
                for (long n = 0; n < N; n += LANES) {
                    const vec best = CAT(out + n), g = CAT(gradient + n);
                    ivec left = (ivec){0} - 1;
                    for (long r = 0; r < s->kernel_rows; r++)
                        for (long k = 0; k < s->kernel_columns; k++) {
                            const long iy = row * s->stride_rows + r - s->top, ix = column * s->stride_columns + k - s->left;
                            if (!inside(iy, ix, s)) continue;
                            const long at = ((c * s->height + iy) * s->width + ix) * N + n;
                            const ivec here = (CAT(x + at) == best) & left;
                            AT(dx + at) += (vec)((ivec)g & here);
                            left &= ~here;
                        }
                }
}

/* out = clip(a + b, lo, 127). */
void add_forward(long count, const float *a, const float *b, float lo, float *restrict out)
{
    for (long i = 0; i < count; i++) out[i] = clipped(a[i] + b[i], lo);
}

/* The gradient of either summand. */
void add_backward(long count, const float *gradient, const float *a, const float *b, float lo, float *restrict dx)
{
    for (long i = 0; i < count; i++) {
        const float v = a[i] + b[i];
        dx[i] = v >= lo && v <= 127.0f ? gradient[i] : 0.0f;
    }
}
