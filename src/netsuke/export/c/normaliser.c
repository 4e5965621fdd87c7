/* --- the normaliser: a grey image of any size to the model's input ---

   Whole numbers of 32 bits, without a library; src/netsuke/image/ is the same in Python, bit for bit. Brightness of the
   paper has four fractional bits, contrasts are 1024ths of the largest there can be. */

#define N_WORK 240 /* pixels of the longer side at which ink is looked for */
#define N_GRID 32
#define N_NONE 65533u /* labels: no ink, ink that no piece has yet, the last of a chain */
#define N_FREE 65534u
#define N_END 65535u

typedef struct {
    uint16_t left, top, right, bottom, area, sure, inner;
    uint8_t ends, kept;
} n_piece;

typedef struct {
    const uint8_t *grey; /* the image, shrunk where it was large */
    int32_t stride, high, wide, count;
    int16_t *contrast; /* count of each, and what lies there before */
    uint16_t *label;
    n_piece *pieces;
    int32_t surface[7]; /* the paper: its level, five coefficients, the mean of the fourth term */
    int flat; /* the level alone */
    int32_t solid, number;
} n_state;

/* C leaves the right shift of a negative number to the compiler, and rounds quotients towards 0; these round down. */
static int32_t n_shifted(int32_t v, int bits)
{
    return v < 0 ? -1 - ((-1 - v) >> bits) : v >> bits;
}

static int32_t n_ratio(int32_t v, int32_t by)
{
    return v < 0 ? -1 - (-1 - v) / by : v / by;
}

static int32_t n_limited(int32_t v, int32_t low, int32_t high)
{
    return v < low ? low : v > high ? high : v;
}

static int32_t n_largest(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static int32_t n_size(int32_t v)
{
    return v < 0 ? -v : v;
}

/* Volatile, as a plain loop would become a call of memset. */
static void n_clear(int32_t *values, int count)
{
    for (int k = 0; k < count; k++) {
        *(volatile int32_t *)&values[k] = 0;
    }
}

/* The mean of box (row, column) of high x wide, in units of a grey level. */
static int32_t n_mean(const n_state *s, int32_t row, int32_t column, int32_t high, int32_t wide, int32_t unit)
{
    const int32_t top = row * s->high / high, bottom = (row + 1) * s->high / high;
    const int32_t left = column * s->wide / wide, right = (column + 1) * s->wide / wide;
    const int32_t area = (bottom - top) * (right - left);
    int32_t sum = 0;
    for (int32_t y = top; y < bottom; y++) {
        for (int32_t x = left; x < right; x++) {
            sum += s->grey[y * s->stride + x];
        }
    }
    return (2 * unit * sum + area) / (2 * area);
}

static int32_t n_within(const int16_t *values, int32_t count, int32_t sign, int32_t above, int32_t most)
{
    int32_t n = 0;
    for (int32_t i = 0; i < count; i++) {
        const int32_t v = sign * values[i];
        n += v > above && v <= most;
    }
    return n;
}

/* Of the values times sign that lie above: the one below which so many percent of the others lie; 0 of none. */
static int32_t n_ranked(const int16_t *values, int32_t count, int32_t sign, int32_t above, int32_t percent)
{
    int32_t low = above + 1, high = 32767;
    const int32_t n = n_within(values, count, sign, above, high), k = (n - 1) * percent / 100;
    if (n == 0) {
        return 0;
    }
    while (low < high) {
        const int32_t middle = n_shifted(low + high, 1);
        if (n_within(values, count, sign, above, middle) > k) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static int32_t n_median(const int16_t *values, int32_t count)
{
    return n_ranked(values, count, 1, -32768, 50);
}

/* --- the paper --- */

static int32_t n_axis(int32_t place, int32_t count)
{
    return (2 * place + 1) * 256 / count - 256;
}

/* x, y, xy, x2 + y2 and x2 - y2. */
static void n_terms(int32_t x, int32_t y, int32_t mean, int32_t *terms)
{
    terms[0] = x;
    terms[1] = y;
    terms[2] = n_shifted(x * y, 8);
    terms[3] = ((x * x + y * y) >> 8) - mean;
    terms[4] = n_shifted(x * x - y * y, 8);
}

static int32_t n_evaluated(const int32_t *surface, int32_t x, int32_t y)
{
    int32_t terms[5], sum = 0;
    n_terms(x, y, surface[6], terms);
    for (int k = 0; k < 5; k++) {
        sum += surface[1 + k] * terms[k];
    }
    return surface[0] + n_shifted(sum, 8);
}

static void n_level(n_state *s, int32_t level)
{
    n_clear(s->surface, 7);
    s->surface[0] = level;
}

static int32_t n_paper(const n_state *s, int32_t i)
{
    if (s->flat) {
        return s->surface[0];
    }
    return n_limited(n_evaluated(s->surface, n_axis(i % s->wide, s->wide), n_axis(i / s->wide, s->high)), 0, 255 * 16);
}

/* The surface fitted further to the cells in use: residuals are cut and fitted again and again. */
static void n_refine(int32_t *surface, const int16_t *cells, const uint8_t *use, int32_t high, int32_t wide,
                     int32_t turns)
{
    int32_t terms[5], squares[5], pulls[5], total = 0, count = 0, mean;
    for (int32_t i = 0; i < high * wide; i++) {
        if (use[i]) {
            n_terms(n_axis(i % wide, wide), n_axis(i / wide, high), 0, terms);
            total += terms[3];
            count++;
        }
    }
    mean = total / count;
    surface[0] += n_shifted(surface[4] * (mean - surface[6]), 8);
    surface[6] = mean;
    n_clear(squares, 5);
    for (int32_t i = 0; i < high * wide; i++) {
        if (use[i]) {
            n_terms(n_axis(i % wide, wide), n_axis(i / wide, high), mean, terms);
            for (int k = 0; k < 5; k++) {
                squares[k] += terms[k] * terms[k];
            }
        }
    }
    for (int32_t turn = 0; turn < turns; turn++) {
        const int32_t cut = turn < turns - 9 ? 1024 : turn < turns - 6 ? 256 : 64;
        int32_t all = 0;
        n_clear(pulls, 5);
        for (int32_t i = 0; i < high * wide; i++) {
            if (use[i]) {
                const int32_t x = n_axis(i % wide, wide), y = n_axis(i / wide, high);
                const int32_t pull = n_limited(cells[i] - n_evaluated(surface, x, y), -cut, cut);
                n_terms(x, y, mean, terms);
                all += pull;
                for (int k = 0; k < 5; k++) {
                    pulls[k] += terms[k] * pull;
                }
            }
        }
        surface[0] += n_ratio(2 * all + count, 2 * count);
        for (int k = 0; k < 5; k++) {
            const int32_t step = n_ratio(pulls[k], n_largest(squares[k] >> 8, 1));
            surface[1 + k] = n_limited(surface[1 + k] + step, -16384, 16384);
        }
    }
}

/* The commonest brightness of a border: the median of the fullest of 32 bins. */
static int32_t n_common(int16_t *border, int32_t count)
{
    int32_t best = 0, most = 0, found = 0;
    for (int32_t bin = 0; bin < 32; bin++) {
        int32_t n = 0;
        for (int32_t i = 0; i < count; i++) {
            n += border[i] >> 7 == bin;
        }
        if (n > most) {
            most = n;
            best = bin;
        }
    }
    for (int32_t i = 0; i < count; i++) {
        if (border[i] >> 7 == best) {
            border[found++] = border[i];
        }
    }
    return n_median(border, found);
}

static int32_t n_border(const int16_t *cells, const uint8_t *ring, int32_t count, int16_t *values)
{
    int32_t n = 0;
    for (int32_t i = 0; i < count; i++) {
        if (ring[i]) {
            values[n++] = cells[i];
        }
    }
    return n;
}

static int32_t n_apart(const n_state *s, const int16_t *cells, int32_t i, int32_t high, int32_t wide)
{
    const int32_t v = n_evaluated(s->surface, n_axis(i % wide, wide), n_axis(i / wide, high));
    return n_limited(n_size(cells[i] - v), 0, 32767);
}

/* Whether the surface, and not a level, explains the cells; `spare` holds as many. */
static int n_uneven(n_state *s, const int16_t *cells, uint8_t *use, int32_t high, int32_t wide, int32_t level,
                    int32_t common, int16_t *spare)
{
    int32_t n = 0, least, darkest = (int32_t)1 << 24, brightest = -darkest;
    n_level(s, level);
    n_refine(s->surface, cells, use, high, wide, 12);
    for (int32_t i = 0; i < high * wide; i++) {
        if (use[i]) {
            spare[n++] = (int16_t)n_apart(s, cells, i, high, wide);
        }
    }
    least = n_largest(8 * 16, 6 * n_median(spare, n));
    for (int32_t i = 0; i < high * wide; i++) {
        use[i] = (uint8_t)(n_apart(s, cells, i, high, wide) < least);
    }
    n_refine(s->surface, cells, use, high, wide, 6);
    for (int32_t i = 0; i < high * wide; i++) {
        const int32_t v = n_evaluated(s->surface, n_axis(i % wide, wide), n_axis(i / wide, high));
        darkest = v < darkest ? v : darkest;
        brightest = n_largest(v, brightest);
        spare[i] = (int16_t)n_apart(s, cells, i, high, wide);
    }
    least = n_ranked(spare, high * wide, 1, -1, 40);
    for (int32_t i = 0; i < high * wide; i++) {
        spare[i] = (int16_t)n_size(cells[i] - common);
    }
    return 10 * darkest > 3 * brightest && least < n_ranked(spare, high * wide, 1, -1, 40);
}

static void n_find_paper(n_state *s, int16_t *spare)
{
    const int32_t high = s->high < N_GRID ? s->high : N_GRID, wide = s->wide < N_GRID ? s->wide : N_GRID;
    const int32_t smaller = high < wide ? high : wide, edge = n_largest(1, (smaller + 5) / 10);
    int16_t *cells = (int16_t *)s->label;
    uint8_t *ring = (uint8_t *)s->pieces;
    int32_t n, level, common;
    for (int32_t y = 0; y < high; y++) {
        for (int32_t x = 0; x < wide; x++) {
            cells[y * wide + x] = (int16_t)n_mean(s, y, x, high, wide, 16);
            ring[y * wide + x] = (uint8_t)(y < edge || y >= high - edge || x < edge || x >= wide - edge);
        }
    }
    n = n_border(cells, ring, high * wide, spare);
    level = n_median(spare, n);
    for (int32_t i = 0; i < n; i++) {
        spare[i] = (int16_t)n_size(spare[i] - level);
    }
    common = level;
    if (n_median(spare, n) >= 4 * 16) {
        n = n_border(cells, ring, high * wide, spare);
        common = n_common(spare, n);
        if (smaller >= 12 && n_uneven(s, cells, ring, high, wide, level, common, spare)) {
            s->flat = 0;
            return;
        }
    }
    s->flat = 1;
    n_level(s, common);
}

/* --- the ink --- */

static void n_find_contrast(n_state *s)
{
    int32_t below = 0, above = 0, up, down, floor;
    for (int32_t i = s->count - 1; i >= 0; i--) { /* a shrunk image lies in the first half of what is written */
        const int32_t v = s->grey[i / s->wide * s->stride + i % s->wide];
        s->contrast[i] = (int16_t)(v * 16 - n_paper(s, i));
    }
    down = n_ranked(s->contrast, s->count, -1, 0, 50);
    up = n_ranked(s->contrast, s->count, 1, 0, 50);
    floor = n_largest(9 * (down < up ? down : up) / 2, 51 * 2);
    for (int32_t i = 0; i < s->count; i++) {
        const int32_t rest = s->contrast[i];
        below += rest < -floor ? -rest : 0;
        above += rest > floor ? rest : 0;
    }
    for (int32_t i = 0; i < s->count; i++) { /* a shadow darkens ink and paper by the same factor */
        const int32_t rest = s->contrast[i];
        s->contrast[i] = (int16_t)(below > above ? n_ratio(-rest * 1024, n_largest(n_paper(s, i), 32 * 16))
                                                 : n_ratio(rest * 1024, 255 * 16));
    }
}

/* A piece without a pixel. Field by field, as a whole one would become a call of memcpy. */
static void n_empty(n_piece *piece)
{
    piece->left = piece->top = 65535;
    piece->right = piece->bottom = 0;
    piece->area = piece->sure = piece->inner = 0;
    piece->ends = piece->kept = 0;
}

static void n_join(const n_state *s, n_piece *piece, int32_t x, int32_t y, int32_t edge)
{
    const int low = y >= s->high - edge, far = x >= s->wide - edge;
    const int32_t c = s->contrast[y * s->wide + x];
    piece->left = (uint16_t)(x < piece->left ? x : piece->left);
    piece->top = (uint16_t)(y < piece->top ? y : piece->top);
    piece->right = (uint16_t)n_largest(piece->right, x + 1);
    piece->bottom = (uint16_t)n_largest(piece->bottom, y + 1);
    piece->area++;
    piece->sure = (uint16_t)(piece->sure + (2 * c > s->solid));
    piece->inner = (uint16_t)(piece->inner + (x >= edge && y >= edge && !low && !far));
    if ((x < edge || far) && (y < edge || low)) {
        piece->ends = (uint8_t)(piece->ends | 1 << (2 * low + far));
    }
}

/* The piece that holds a pixel: its pixels are chained through their labels, then get the piece's number. */
static void n_flood(n_state *s, int32_t seed, int32_t edge)
{
    n_piece *const piece = &s->pieces[s->number];
    int32_t at = seed, last = seed;
    n_empty(piece);
    s->label[seed] = N_END;
    for (;;) {
        const int32_t x = at % s->wide, y = at / s->wide;
        n_join(s, piece, x, y, edge);
        for (int32_t v = n_largest(y - 1, 0); v <= y + 1 && v < s->high; v++) {
            for (int32_t u = n_largest(x - 1, 0); u <= x + 1 && u < s->wide; u++) {
                const int32_t near = v * s->wide + u;
                if (s->label[near] == N_FREE) {
                    s->label[last] = (uint16_t)near;
                    s->label[near] = N_END;
                    last = near;
                }
            }
        }
        if (s->label[at] == N_END) {
            break;
        }
        at = s->label[at];
    }
    for (at = seed;;) {
        const uint16_t next = s->label[at];
        s->label[at] = (uint16_t)s->number;
        if (next == N_END) {
            break;
        }
        at = next;
    }
    s->number++;
}

/* A line of a form: along the border, and thin or from corner to corner. */
static int n_is_line(const n_state *s, const n_piece *p)
{
    const int32_t width = p->right - p->left, height = p->bottom - p->top;
    const int32_t shorter = s->high < s->wide ? s->high : s->wide;
    int corners = 0;
    for (int bit = 0; bit < 4; bit++) {
        corners += p->ends >> bit & 1;
    }
    return 10 * (int32_t)p->inner < 3 * (int32_t)p->area &&
           (20 * (int32_t)p->area < n_largest(width, height) * shorter || corners >= 2);
}

/* From edge to edge of the image, and thin. */
static int n_is_across(const n_state *s, const n_piece *p)
{
    const int32_t width = p->right - p->left, height = p->bottom - p->top;
    const int32_t shorter = s->high < s->wide ? s->high : s->wide;
    return (width == s->wide || height == s->high) && 10 * (int32_t)p->area < n_largest(width, height) * shorter;
}

static int32_t n_length(const n_piece *p)
{
    return n_largest(p->right - p->left, p->bottom - p->top);
}

/* Which pieces are the digit: the large ones, and small ones among them. Leaves their frame; 0 where there is none. */
static int n_choose(n_state *s, n_piece *frame)
{
    int32_t all = 0, apart = 0, most = 0, longest = 0;
    n_empty(frame);
    for (int32_t i = 0; i < s->number; i++) {
        n_piece *p = &s->pieces[i];
        p->sure = n_is_line(s, p) ? 0 : p->sure;
        all += p->sure;
        apart += n_is_across(s, p) ? 0 : p->sure;
    }
    for (int32_t i = 0; i < s->number; i++) {
        n_piece *p = &s->pieces[i];
        p->sure = 10 * apart > all && n_is_across(s, p) ? 0 : p->sure; /* else it is a 1 from edge to edge */
        longest = p->sure > most || (p->sure == most && n_length(p) > longest) ? n_length(p) : longest;
        most = n_largest(most, p->sure);
    }
    for (int32_t i = 0; i < s->number; i++) {
        const n_piece *p = &s->pieces[i];
        if (p->sure > 0 && 5 * n_length(p) >= longest &&
            (10 * (int32_t)p->sure >= most || 10 * n_length(p) >= 3 * longest)) {
            frame->left = p->left < frame->left ? p->left : frame->left;
            frame->top = p->top < frame->top ? p->top : frame->top;
            frame->right = p->right > frame->right ? p->right : frame->right;
            frame->bottom = p->bottom > frame->bottom ? p->bottom : frame->bottom;
        }
    }
    for (int32_t i = 0; i < s->number; i++) {
        n_piece *p = &s->pieces[i];
        p->kept = (uint8_t)(p->sure > 0 && p->left >= frame->left && p->top >= frame->top &&
                            p->right <= frame->right && p->bottom <= frame->bottom);
    }
    return most > 0;
}

/* The ink's pixels, bright on 0, at the start of the contrasts; 0 where the paper is blank. */
static int n_find_ink(n_state *s, n_piece *frame)
{
    const int32_t noise = n_ranked(s->contrast, s->count, -1, 0, 50), floor = n_largest(25, 6 * noise);
    const int32_t edge = (12 * (s->high < s->wide ? s->high : s->wide) + 50) / 100;
    uint8_t *ink = (uint8_t *)s->contrast;
    int32_t likely;
    s->number = 0;
    s->solid = n_ranked(s->contrast, s->count, 1, floor, 90);
    if (s->solid < n_largest(51, 9 * noise)) {
        return 0;
    }
    likely = n_largest(floor, s->solid / 20);
    for (int32_t i = 0; i < s->count; i++) {
        s->label[i] = s->contrast[i] > likely ? N_FREE : N_NONE;
    }
    for (int32_t i = 0; i < s->count; i++) {
        if (s->label[i] == N_FREE && 2 * (int32_t)s->contrast[i] > s->solid) {
            if (s->number == s->count / 16 + 16) { /* nothing but noise */
                return 0;
            }
            n_flood(s, i, edge);
        }
    }
    if (!n_choose(s, frame)) {
        return 0;
    }
    for (int32_t y = frame->top; y < frame->bottom; y++) {
        for (int32_t x = frame->left; x < frame->right; x++) {
            const int32_t i = y * s->wide + x;
            const int32_t v = (510 * (int32_t)s->contrast[i] + s->solid) / (2 * s->solid);
            const int kept = s->label[i] < s->number && s->pieces[s->label[i]].kept;
            *ink++ = (uint8_t)(kept ? v > 255 ? 255 : v : 0);
        }
    }
    return 1;
}

/* --- the model's input --- */

/* How much of pixel `from` of `have` lies in pixel `to` of `want`. */
static int32_t n_overlap(int32_t from, int32_t have, int32_t to, int32_t want)
{
    const int32_t begin = n_largest(to * have, from * want), other = (from + 1) * want;
    return n_largest((to + 1) * have < other ? (to + 1) * have - begin : other - begin, 0);
}

/* 256ths of the four pixels nearest to pixel `to`, the first of which is returned. */
static int32_t n_cubic(int32_t to, int32_t have, int32_t want, int32_t *weights)
{
    const int32_t place = (2 * to + 1) * have - want, base = n_ratio(place, 2 * want);
    const int32_t t = (place - base * 2 * want) * 256 / (2 * want), u = 256 - t, half = (int32_t)1 << 17;
    weights[0] = -((3 * t * u * u + half) >> 18);
    weights[1] = 256 - ((t * t * (2304 - 5 * t) + half) >> 18);
    weights[3] = -((3 * t * t * u + half) >> 18);
    weights[2] = 256 - weights[0] - weights[1] - weights[3];
    return base - 1;
}

/* Pixel (i, j) of ink [h, w] scaled to [high, wide]. */
static int32_t n_scaled(const uint8_t *ink, int32_t h, int32_t w, int32_t high, int32_t wide, int32_t i, int32_t j)
{
    const int32_t area = h * w;
    int32_t sum = 0;
    if (h == high && w == wide) {
        return ink[i * w + j];
    }
    if (n_largest(h, w) > N_BOX) {
        for (int32_t y = i * h / high; y < h && y * high < (i + 1) * h; y++) {
            int32_t row = 0;
            for (int32_t x = j * w / wide; x < w && x * wide < (j + 1) * w; x++) {
                row += n_overlap(x, w, j, wide) * ink[y * w + x];
            }
            sum += n_overlap(y, h, i, high) * row;
        }
        return (2 * sum + area) / (2 * area);
    } else {
        int32_t down[4], across[4];
        const int32_t top = n_cubic(i, h, high, down), left = n_cubic(j, w, wide, across);
        for (int y = 0; y < 4; y++) {
            for (int x = 0; x < 4; x++) {
                const int32_t row = n_limited(top + y, 0, h - 1), column = n_limited(left + x, 0, w - 1);
                sum += down[y] * across[x] * ink[row * w + column];
            }
        }
        return n_limited(n_shifted(2 * sum + 65536, 17), 0, 255);
    }
}

static void n_fit(const uint8_t *ink, int32_t h, int32_t w, uint16_t *spare, uint8_t *out)
{
    const int32_t longer = n_largest(h, w), whole = N_SIZE * N_GRAIN;
    const int as_it_is = n_size(longer - N_BOX) <= N_BOX / 20;
    const int32_t high = as_it_is ? h : n_largest(1, (2 * h * N_BOX + longer) / (2 * longer));
    const int32_t wide = as_it_is ? w : n_largest(1, (2 * w * N_BOX + longer) / (2 * longer));
    const int32_t rows = high < whole ? high : whole, columns = wide < whole ? wide : whole;
    int16_t *values = (int16_t *)spare;
    int32_t top = (whole - rows) / 2, left = (whole - columns) / 2, solid;
#if N_GRAIN == 1 /* centred by mass: MNIST's centres lie from 14.0 to 15.0 of 28, so it rounded up */
    int32_t total = 0, down = 0, across = 0;
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t j = 0; j < columns; j++) {
            const int32_t v = n_scaled(ink, h, w, high, wide, i, j);
            total += v;
            down += v * i;
            across += v * j;
        }
    }
    total = n_largest(total, 1);
    top = n_limited(-n_ratio(2 * down - (N_SIZE - 1) * total, 2 * total), 0, whole - rows);
    left = n_limited(-n_ratio(2 * across - (N_SIZE - 1) * total, 2 * total), 0, whole - columns);
#endif
    for (int32_t i = 0; i < N_SIZE * N_SIZE; i++) {
        *(volatile int16_t *)&values[i] = 0;
    }
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t j = 0; j < columns; j++) {
            int16_t *value = &values[(top + i) / N_GRAIN * N_SIZE + (left + j) / N_GRAIN];
            *value = (int16_t)(*value + n_scaled(ink, h, w, high, wide, i, j));
        }
    }
    for (int32_t i = 0; i < N_SIZE * N_SIZE; i++) {
        values[i] = (int16_t)((values[i] + N_GRAIN * N_GRAIN / 2) / (N_GRAIN * N_GRAIN));
    }
    solid = n_largest(n_ranked(values, N_SIZE * N_SIZE, 1, 0, N_GRAIN == 1 ? 75 : 100), 1);
    for (int32_t i = 0; i < N_SIZE * N_SIZE; i++) {
        const int32_t v = (510 * (int32_t)values[i] + solid) / (2 * solid);
        out[i] = (uint8_t)(v > 255 ? 255 : v);
    }
}

/* Shrinks a large image into the start of the contrasts; where there is room besides. */
static int16_t *n_shrink(n_state *s)
{
    const int32_t longer = n_largest(s->high, s->wide);
    uint8_t *small = (uint8_t *)s->contrast;
    if (longer <= N_WORK) {
        return s->contrast;
    }
    {
        const int32_t high = n_largest(1, (2 * s->high * N_WORK + longer) / (2 * longer));
        const int32_t wide = n_largest(1, (2 * s->wide * N_WORK + longer) / (2 * longer));
        for (int32_t i = 0; i < high * wide; i++) {
            small[i] = (uint8_t)n_mean(s, i / wide, i % wide, high, wide, 1);
        }
        s->high = high;
        s->wide = s->stride = wide;
        s->count = high * wide;
        s->grey = small;
    }
    return s->contrast + (s->count + 1) / 2;
}

int NAME_normalise(const uint8_t *grey, int32_t width, int32_t height, int32_t stride, uint8_t *out, int32_t *work)
{
    n_state s;
    n_piece frame;
    int16_t *spare;
    int32_t largest;
    int found;
    for (int32_t i = 0; i < N_PLANES * N_SIZE * N_SIZE; i++) {
        *(volatile uint8_t *)(out + i) = 0;
    }
    n_clear(work, 4);
    if (width < 1 || height < 1 || width > 16383 || height > 16383 || stride < width) {
        return -1;
    }
    s.grey = grey;
    s.stride = stride;
    s.high = height;
    s.wide = width;
    s.count = width * height;
    s.contrast = (int16_t *)(work + 4);
    spare = n_shrink(&s);
    largest = n_largest(s.count, N_SIZE * N_SIZE);
    s.label = (uint16_t *)(s.contrast + s.count + s.count % 2);
    s.pieces = (n_piece *)(void *)(s.label + largest + largest % 2);
    n_find_paper(&s, spare);
    n_find_contrast(&s);
    found = n_find_ink(&s, &frame);
    if (found) {
        const int32_t w = frame.right - frame.left, h = frame.bottom - frame.top;
        n_fit((const uint8_t *)s.contrast, h, w, s.label, out);
        for (int32_t i = N_SIZE * N_SIZE; i < N_PLANES * N_SIZE * N_SIZE; i++) {
            out[i] = *(volatile uint8_t *)(out + i - N_SIZE * N_SIZE);
        }
        work[0] = frame.left * width / s.wide;
        work[1] = frame.top * height / s.high;
        work[2] = frame.right * width / s.wide - work[0];
        work[3] = frame.bottom * height / s.high - work[1];
    }
    return found;
}
