/* The decoder of netsuke.coding's adaptive range coder: C99, no library, no division, 32 bits.

   netsuke_range_start(&d, stream);
   for each unit: netsuke_range_unit(&d), then netsuke_range_value(&d) once a value.
   The stream is trusted: it is not checked, and read to its end and no further. */
#include <stdint.h>

#define CONTEXTS 160
#define SIGN 32

typedef struct {
    const uint8_t *next;
    uint32_t range, code;
    uint16_t zero[CONTEXTS]; /* the probability of a 0, times 65536 */
    uint8_t seen[CONTEXTS];  /* decisions so far, at most 63 */
} netsuke_range;

void netsuke_range_unit(netsuke_range *d)
{
    int i;
    for (i = CONTEXTS - 1; i >= 0; i--) {
        d->zero[i] = 0x8000;
        d->seen[i] = 0;
    }
}

void netsuke_range_start(netsuke_range *d, const uint8_t *stream)
{
    int i;
    d->range = 0xFFFFFFFFu;
    for (i = 4; i > 0; i--) {
        d->code = d->code << 8 | *stream++;
    }
    d->next = stream;
}

static uint32_t decide(netsuke_range *d, uint32_t context)
{
    uint32_t p = d->zero[context], seen = d->seen[context], rate = 0, bit = 0;
    const uint32_t bound = (d->range >> 12) * (p >> 4);
    do { /* the first decisions move a context far, later ones less and less */
        rate++;
    } while ((seen + 1) >> rate);
    if (d->code < bound) {
        d->range = bound;
        p += (65536u - p) >> rate;
    } else {
        d->code -= bound;
        d->range -= bound;
        p -= p >> rate;
        bit = 1;
    }
    d->zero[context] = (uint16_t)p;
    if (seen < 63) {
        d->seen[context] = (uint8_t)(seen + 1);
    }
    while (d->range < 0x1000000u) {
        d->range <<= 8;
        d->code = d->code << 8 | *d->next++;
    }
    return bit;
}

int32_t netsuke_range_value(netsuke_range *d)
{
    uint32_t length = 0, negative, size = 1;
    while (length < 31 && decide(d, length)) {
        length++;
    }
    if (length == 0) {
        return 0;
    }
    negative = decide(d, SIGN);
    while (!(size >> (length - 1))) {
        size = 2 * size + decide(d, 32 + 4 * length + (size < 4 ? size : 0));
    }
    return negative ? -(int32_t)size : (int32_t)size;
}
