/* Any bytes as a schema (or as a choice or a pattern, as the first byte says): read or refused, and what can
 * be read is then written within its budget. */
#include <assert.h>
#include <stdlib.h>

#include "worker/model/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TOKENS_MAX = 64 }; /* of a text that is written */

static const struct vocabulary *words(int32_t *vocab)
{
    static struct tokenizer *tokenizer;
    static struct vocabulary *vocabulary;

    if (!vocabulary) {
        if (!tokenizer_load(&tokenizer, SOURCE_DIR "/deploy/demo/model", NULL))
            abort();
        vocabulary = vocabulary_new(tokenizer, tokenizer_size(tokenizer));
    }
    *vocab = tokenizer_size(tokenizer);
    return vocabulary;
}

/* Takes tokens as `choices` say, until the text must end. */
static void write_text(struct grammar *grammar, int32_t vocab, struct span choices)
{
    struct grammar_run *run = grammar_run_new(grammar);
    int32_t minimum = grammar_minimum(grammar),
            left = minimum + (choices.size > 0 ? choices.data[0] % 16 : 0);
    size_t at = 0;

    while (minimum <= TOKENS_MAX && !grammar_must_end(run)) {
        const uint64_t *mask = left > 0 ? grammar_mask(run, left) : NULL;
        int32_t words = (vocab + 63) / 64, from = 0, token = -1;

        if (!mask) {
            assert(grammar_may_end(run));
            break;
        }
        if (choices.size > 0)
            from = choices.data[at++ % choices.size] % words;
        for (int32_t i = 0; token < 0 && i < words; i++) {
            uint64_t bits = mask[(from + i) % words];

            if (bits)
                token = (from + i) % words * 64 + __builtin_ctzll(bits);
        }
        assert(token >= 0);
        if (!grammar_advance(run, token))
            abort();
        left--;
    }
    grammar_run_free(run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int32_t vocab;
    const struct vocabulary *vocabulary = words(&vocab);
    struct schema_options options = { 0 };
    enum structured_kind kind = STRUCTURED_SCHEMA;
    struct grammar *grammar;
    struct err err = { 0 };

    if (size > 0 && data[0] < 8) { /* a schema's own text begins with no such byte */
        options.closed = data[0] & 4;
        kind = (enum structured_kind)(data[0] & 3);
        data++;
        size--;
    }
    if (structured_grammar(&grammar, kind, span_of(data, size), &options, vocabulary, &err)) {
        write_text(grammar, vocab, span_of(data, size));
        grammar_free(grammar);
    } else {
        assert(err.code != ERR_NONE && err.text[0]);
    }
    return 0;
}
