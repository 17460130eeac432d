/* utf8 - characters of text that is known to be UTF-8 (span_is_utf8 said so).
 *
 * No check is made here: a caller that has not checked reads beyond the end. */

#ifndef MODEL_UTF8_H
#define MODEL_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character that begins with lead. */
static inline size_t utf8_length(uint8_t lead)
{
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

static inline uint32_t utf8_read(const uint8_t *p)
{
    switch (utf8_length(*p)) {
    case 1:
        return p[0];
    case 2:
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    case 3:
        return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    default:
        return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    }
}

/* The start of the character that ends before at; at is above 0. */
static inline size_t utf8_before(const uint8_t *text, size_t at)
{
    do
        at--;
    while ((text[at] & 0xc0) == 0x80);
    return at;
}

/* Unicode White_Space: what \s means to Oniguruma and to Rust. */
static inline int utf8_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

#endif
