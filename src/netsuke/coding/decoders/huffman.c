/* The decoder of netsuke.coding's canonical Huffman codes: C99, no library, no division, 32 bits.

   netsuke_huffman(stream, out, count)         a table, then a code a value
   netsuke_huffman_sparse(stream, out, count)  tables of gaps and of values, then a code of each in turn
   A stream is trusted: it is not checked, and read to its end and no further. Values are bytes. */
#include <stdint.h>

typedef struct {
    const uint8_t *next;
    uint32_t bits; /* what is left of a byte in bits 8 to 1 and, behind it, a 1 that marks its end */
} bit_stream;

/* JPEG's procedure: codes of one length are consecutive numbers, and longer ones go on behind them. */
static uint8_t symbol(bit_stream *s, const uint8_t *table)
{
    const uint8_t *symbols = table + 1 + *table;
    uint32_t code = 0;
    for (;;) {
        const uint32_t count = *++table;
        if (s->bits == 0x100) {
            s->bits = (uint32_t)*s->next++ << 1 | 1;
        }
        code = 2 * code + (s->bits >> 8);
        s->bits = s->bits << 1 & 0x1FF;
        if (code < count) {
            return symbols[code];
        }
        code -= count;
        symbols += count;
    }
}

/* Where a table ends. */
static const uint8_t *behind(const uint8_t *table)
{
    uint32_t i, size = 1u + *table;
    for (i = *table; i > 0; i--) {
        size += table[i];
    }
    return table + size;
}

#ifndef NETSUKE_NO_HUFFMAN
void netsuke_huffman(const uint8_t *stream, uint8_t *out, uint32_t count)
{
    bit_stream s;
    s.next = behind(stream);
    s.bits = 0x100;
    while (count-- > 0) {
        *out++ = symbol(&s, stream);
    }
}
#endif

#ifndef NETSUKE_NO_SPARSE
void netsuke_huffman_sparse(const uint8_t *stream, uint8_t *out, uint32_t count)
{
    const uint8_t *const values = behind(stream);
    const uint8_t *const end = out + count;
    bit_stream s;
    s.next = behind(values);
    s.bits = 0x100;
    while (out < end) {
        uint32_t gap = symbol(&s, stream);
        while (gap-- > 0) {
            *out++ = 0;
        }
        if (out < end) {
            *out++ = symbol(&s, values);
        }
    }
}
#endif
