/* span - bytes that somebody else owns: a pointer and a length.  Never terminated. */

#ifndef BASE_SPAN_H
#define BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
    const uint8_t *data;
    size_t size;
};

static inline struct span span_of(const void *data, size_t size)
{
    return (struct span){ .data = data, .size = size };
}

static inline struct span span_text(const char *text)
{
    return span_of(text, strlen(text));
}

static inline bool span_equal(struct span a, struct span b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* A growing buffer of bytes with a bound.  Zero-initialise with a maximum; free with buf_fini. */
struct buf {
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t max; /* 0: no bound beyond memory */
};

/* False when the bound or memory is reached; the buffer is then unchanged. */
bool buf_add(struct buf *buf, const void *data, size_t size);
bool buf_text(struct buf *buf, const char *text);
bool buf_format(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool buf_reserve(struct buf *buf, size_t more);
void buf_fini(struct buf *buf);

static inline struct span buf_span(const struct buf *buf)
{
    return span_of(buf->data, buf->size);
}

/* Well-formed UTF-8 (no surrogates, no overlong forms, nothing above U+10FFFF). */
bool span_is_utf8(struct span text);

/* CRC-32C (Castagnoli), start with 0. */
uint32_t span_crc32c(uint32_t crc, struct span data);
uint32_t span_crc32c_plain(uint32_t crc, struct span data); /* the same, without special instructions */

#endif
