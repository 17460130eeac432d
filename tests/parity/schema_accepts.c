/* schema_accepts - lines in, lines out: what schema_suite.py and schema_random.py ask of the grammar of a
 * schema.
 *
 *     schema_accepts DIR                 {"schema": "...", "texts": ["...", ...]}  ->  {"accepts": [true,
 * ...]} schema_accepts DIR --write N SEED  {"schema": "..."}  ->  {"minimum": 3, "texts": [{"budget": 9,
 * "tokens": 7, "text": "..."}, ...]}
 *
 * Both say {"refused": "...", "code": N} of a schema that cannot be read or compiled.  "closed": true closes
 * its objects.  DIR has the tokenizer.
 *
 * --write makes N texts by a random walk: a random budget from the minimum on, and at each place a random
 * token of the mask (or the forced ones).  A walk that does not end well within its budget is an error and
 * status 1. */

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/detokenize.h"
#include "worker/model/schema.h"

static uint64_t seed;

static uint64_t next(void) /* splitmix64 */
{
    uint64_t z = seed += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(next() % n);
}

static bool accepts(struct grammar *grammar, const json_t *text)
{
    struct grammar_run *run = grammar_run_new(grammar);
    bool ok = run && grammar_advance_bytes(run, span_of(json_string_value(text), json_string_length(text))) &&
              grammar_may_end(run);

    grammar_run_free(run);
    return ok;
}

/* A random token of the mask, where it has fewer than a few dozen; else one of a random piece of it, which is
 * random enough. */
static int32_t pick(const uint64_t *mask, int32_t vocab)
{
    int32_t words = (vocab + 63) / 64, at = (int32_t)below((uint32_t)words), token[64];
    uint32_t count = 0;

    for (int32_t i = 0; i < words && count < 32; i++, at = (at + 1) % words)
        for (uint64_t bits = mask[at]; bits && count < 64; bits &= bits - 1)
            token[count++] = at * 64 + __builtin_ctzll(bits);
    return count > 0 ? token[below(count)] : -1;
}

/* False: *fault says what went wrong. */
static bool write_one(struct grammar *grammar, const struct tokenizer *tokenizer, int32_t vocab,
                      int32_t budget, struct buf *text, int32_t *tokens, const char **fault)
{
    struct grammar_run *run = grammar_run_new(grammar);
    struct detokenizer detokenizer;
    struct ids forced = { 0 };
    struct err err = { 0 };
    bool whole;

    *fault = run ? NULL : "no memory";
    *tokens = 0;
    detokenizer_init(&detokenizer, tokenizer, false);
    while (!*fault && !grammar_must_end(run)) {
        const uint64_t *mask;
        int32_t token, left = budget - *tokens;
        size_t count;

        if (grammar_run_minimum(run) > left) {
            *fault = "the minimum is over the budget that is left";
            break;
        }
        if (grammar_may_end(run) && (left == 0 || below(3) == 0))
            break;
        forced.count = 0;
        if (!grammar_forced(run, &forced, &count, &err)) {
            *fault = "forced bytes failed";
            break;
        }
        if (count == 0) {
            mask = left > 0 ? grammar_mask(run, left) : NULL;
            token = mask ? pick(mask, vocab) : -1;
            if (token < 0 && grammar_may_end(run)) /* nothing longer fits what is left */
                break;
            if (token < 0)
                *fault = "no token is allowed";
            else if (!ids_add(&forced, token))
                *fault = "no memory";
        }
        for (size_t i = 0; !*fault && i < forced.count; i++) {
            if (!grammar_advance(run, forced.id[i]))
                *fault = "an allowed token does not fit";
            detokenizer_add(&detokenizer, forced.id[i], text);
            (*tokens)++;
        }
    }
    whole = detokenizer_end(&detokenizer, text);
    if (!*fault && (!whole || !grammar_may_end(run) || *tokens > budget))
        *fault = "it did not end within its budget";
    ids_fini(&forced);
    grammar_run_free(run);
    return !*fault;
}

static json_t *write_texts(struct grammar *grammar, const struct tokenizer *tokenizer, int32_t vocab,
                           int count)
{
    int32_t minimum = grammar_minimum(grammar);
    json_t *list = json_array();

    for (int i = 0; i < count; i++) {
        /* Often tight, sometimes roomy. */
        int32_t budget = minimum + (int32_t)below(i % 3 == 0 ? 3 : i % 3 == 1 ? 30 : 200), tokens;
        struct buf text = { 0 };
        const char *fault;

        if (budget < 1)
            budget = 1;
        if (!write_one(grammar, tokenizer, vocab, budget, &text, &tokens, &fault)) {
            fprintf(stderr, "schema_accepts: %s: budget %d of minimum %d, %d tokens: %.*s\n", fault, budget,
                    minimum, tokens, (int)text.size, text.data ? (const char *)text.data : "");
            buf_fini(&text);
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list,
                              json_pack("{s:i,s:i,s:o}", "budget", budget, "tokens", tokens, "text",
                                        json_stringn(text.data ? (const char *)text.data : "", text.size)));
        buf_fini(&text);
    }
    return json_pack("{s:i,s:o}", "minimum", minimum, "texts", list);
}

int main(int argc, char **argv)
{
    int write = argc > 4 && strcmp(argv[2], "--write") == 0 ? atoi(argv[3]) : 0;
    struct tokenizer *tokenizer = NULL;
    struct vocabulary *vocabulary = NULL;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    struct err err = { 0 };
    int status = 0;

    if (argc < 2) {
        fprintf(stderr, "schema_accepts: DIR expected\n");
        return 1;
    }
    if (write)
        seed = strtoull(argv[4], NULL, 10);
    if (!tokenizer_load(&tokenizer, argv[1], &err) ||
        !(vocabulary = vocabulary_new(tokenizer, tokenizer_size(tokenizer)))) {
        fprintf(stderr, "schema_accepts: %s\n", err.text);
        return 1;
    }
    while (status == 0 && (size = getline(&line, &capacity, stdin)) > 0) {
        json_t *in = json_loadb(line, (size_t)size, JSON_ALLOW_NUL, NULL), *out = NULL;
        const json_t *schema = json_object_get(in, "schema"), *text;
        struct schema_options options = { .closed = json_is_true(json_object_get(in, "closed")) };
        struct grammar *grammar;
        size_t i;

        if (!structured_grammar(&grammar, STRUCTURED_SCHEMA,
                                span_of(json_string_value(schema), json_string_length(schema)), &options,
                                vocabulary, &err)) {
            out = json_pack("{s:s,s:i}", "refused", err.text, "code", (int)err.code);
        } else {
            if (write) {
                out = write_texts(grammar, tokenizer, tokenizer_size(tokenizer), write);
            } else {
                json_t *list = json_array();

                json_array_foreach(json_object_get(in, "texts"), i, text)
                    json_array_append_new(list, json_boolean(accepts(grammar, text)));
                out = json_pack("{s:o}", "accepts", list);
            }
            grammar_free(grammar);
        }
        if (!out || json_dumpf(out, stdout, JSON_COMPACT) != 0) {
            fprintf(stderr, "schema_accepts: failed at the line %.*s\n", (int)size, line);
            status = 1;
        }
        putchar('\n');
        fflush(stdout);
        json_decref(in);
        json_decref(out);
    }
    free(line);
    vocabulary_free(vocabulary);
    tokenizer_free(tokenizer);
    return status;
}
