/* A document's text and a value said to stand in it: chunks must cover the text within their tokens, and a
 * label must be true.  The bytes: tokens, overlap, length of the value, the value, the text. */

#include <stdlib.h>
#include <string.h>

#include "client/chunks.h"
#include "client/encoding.h"
#include "client/spans.h"
#include "client/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct tokenizer *the_tokenizer(void)
{
    static struct tokenizer *tokenizer;

    if (!tokenizer && !tokenizer_load(&tokenizer, SOURCE_DIR "/deploy/demo/model", NULL))
        abort();
    return tokenizer;
}

static void check_chunks(struct span text, struct chunk_limits limits)
{
    struct chunks *chunks;
    struct chunk chunk;
    struct ids ids = { 0 };
    size_t covered = 0;
    bool end = false;

    if (!chunks_of_text(&chunks, text, the_tokenizer(), limits, NULL))
        abort();
    while (!end) {
        struct text_part part = { .added = ADDED_PLAIN };

        if (!chunks_next(chunks, &chunk, &end, NULL))
            break; /* so many combining marks in a row that the tokenizer refuses them */
        if (end)
            break;
        part.text = chunk.text;
        ids.count = 0;
        if (!tokenizer_encode_parts(the_tokenizer(), &part, 1, &ids, NULL) || ids.count != chunk.tokens ||
            chunk.tokens > limits.tokens)
            abort();
        if (chunk.byte + chunk.text.size <= covered || chunk.byte + chunk.text.size > text.size ||
            memcmp(text.data + chunk.byte, chunk.text.data, chunk.text.size) != 0 ||
            unicode_count(text.data, chunk.byte) != chunk.chars)
            abort();
        for (size_t at = covered, n; at < chunk.byte; at += n) {
            uint32_t c;

            n = unicode_read(text.data + at, text.size - at, &c, NULL);
            if (n == 0 || !unicode_is_space(c))
                abort();
        }
        covered = chunk.byte + chunk.text.size;
    }
    ids_fini(&ids);
    chunks_close(chunks);
}

static void check_spans(struct span text, struct span value)
{
    struct span_text *prepared, *part;
    struct found found, again;

    if (!span_text_new(&prepared, text, 0, 0, NULL))
        abort();
    found = span_find(prepared, value);
    if (found.label == SPAN_EXACT &&
        (found.byte_to - found.byte_from != value.size ||
         memcmp(text.data + found.byte_from, value.data, value.size) != 0))
        abort();
    if (found.label == SPAN_NORMALISED) { /* what stands there, by itself, is the value */
        size_t there = found.byte_to - found.byte_from;

        if (!span_text_new(&part, span_of(text.data + found.byte_from, there), 0, 0, NULL))
            abort();
        again = span_find(part, value);
        if (again.label != SPAN_NORMALISED || again.byte_from != 0 || again.byte_to != there)
            abort();
        span_text_free(part);
    }
    if (found.label != SPAN_NOT_FOUND && (unicode_count(text.data, found.byte_from) != found.char_from ||
                                          unicode_count(text.data, found.byte_to) != found.char_to))
        abort();
    span_text_free(prepared);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct chunk_limits limits;
    struct span text, value;
    struct err err;

    if (size < 3 || size - 3 < data[2] || size > 16384)
        return 0;
    limits.tokens = CHUNK_TOKENS_MIN + data[0] % 64;
    limits.overlap = data[1] % (limits.tokens / 2);
    value = span_of(data + 3, data[2]);
    text = span_of(data + 3 + data[2], size - 3 - data[2]);
    if (!span_is_utf8(text)) {
        encoding_refuse(text, text, 0, text, &err);
        return 0;
    }
    check_chunks(text, limits);
    check_spans(text, value);
    return 0;
}
