/* grammar_rate - what masks cost at a real vocabulary.  Not installed.
 *
 *     grammar_rate TOKENIZER_DIR [DOCUMENTS] [VOCAB] [MEDIAN_US P99_US BUILD_MS]
 *
 * A schema of 50 fields (texts, bounded texts, numbers, dates, enums, arrays, objects) is compiled; then
 * documents of it are generated from a cold start: forced tokens are asked for, else a mask, and the token
 * that the tokenizer would take of a prepared document is given.  One line of JSON a case: with budget to
 * spare, with a budget that soon leaves only the shortest ending, and with every token drawn evenly from the
 * mask.  A step's cost is that of grammar_forced, grammar_mask and grammar_advance together, in processor
 * time; a forced run is one step.  With floors, the exit status is 1 when one is missed. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/model/grammar.h"
#include "worker/model/schema.h"

enum { FIELDS = 50, COSTS_MAX = 1 << 20, TEXT_MAX = 1 << 16 };

static void fail(const char *what)
{
    fprintf(stderr, "grammar_rate: %s\n", what);
    exit(1);
}

/* Processor time: on a machine shared with others it says more than the wall. */
static int64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t chance_state = 1;

static uint32_t chance(uint32_t below)
{
    chance_state = chance_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(chance_state >> 33) % below;
}

/* ---- the schema and its documents --------------------------------------------------------------- */

static const char *const words[] = { "invoice",  "delivery", "of",    "the",   "München",
                                     "order",    "No. 4711", "by",    "rail,", "Größe",
                                     "second",   "quarter",  "naïve", "and",   "東京",
                                     "supplier", "Müller",   "&",     "Sons",  "(net)" };
static const char *const states[] = { "open", "paid", "overdue", "cancelled", "in dispute" };

static void add_schema(struct buf *out)
{
    static const char *const forms[] = {
        "{\"type\":\"string\"}",
        "{\"type\":\"integer\",\"minimum\":0,\"maximum\":100000}",
        "{\"type\":\"string\",\"format\":\"date\"}",
        "{\"type\":\"number\"}",
        "{\"type\":\"string\",\"maxLength\":80}",
        "{\"enum\":[\"open\",\"paid\",\"overdue\",\"cancelled\",\"in dispute\",null]}",
        "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":40},\"maxItems\":5}",
        "{\"type\":[\"string\",\"null\"]}",
        "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"
        "\"price\":{\"type\":"
        "\"number\"},\"count\":{\"type\":\"integer\"}},\"required\":[\"name\",\"price\"],"
        "\"additionalProperties\":false}}",
        "{\"type\":\"string\",\"pattern\":\"^[A-Za-z ]{1,24}$\"}",
    };

    buf_text(out, "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{");
    for (int i = 0; i < FIELDS; i++)
        buf_format(out, "%s\"field_%d\":%s", i ? "," : "", i, forms[i % 10]);
    buf_text(out, "},\"required\":[");
    for (int i = 0; i < FIELDS; i++) /* every seventh may be left out */
        if (i % 7 != 3)
            buf_format(out, "%s\"field_%d\"", i ? "," : "", i);
    buf_text(out, "]}");
}

static void add_words(struct buf *out, uint32_t count)
{
    buf_text(out, "\"");
    for (uint32_t i = 0; i < count; i++)
        buf_format(out, "%s%s", i ? " " : "", words[chance(sizeof words / sizeof words[0])]);
    buf_text(out, "\"");
}

static void add_value(struct buf *out, int form)
{
    uint32_t count = chance(4);

    switch (form) {
    case 0:
        add_words(out, 3 + chance(20));
        break;
    case 1:
        buf_format(out, "%u", chance(100001));
        break;
    case 2:
        buf_format(out, "\"20%02u-%02u-%02u\"", chance(30), 1 + chance(12), 1 + chance(28));
        break;
    case 3:
        buf_format(out, "%u.%02u", chance(10000), chance(100));
        break;
    case 4:
        add_words(out, 1 + chance(5));
        break;
    case 5:
        buf_format(out, "\"%s\"", states[chance(5)]);
        break;
    case 6:
        buf_text(out, "[");
        for (uint32_t i = 0; i < count; i++) {
            buf_text(out, i ? "," : "");
            add_words(out, 1 + chance(3));
        }
        buf_text(out, "]");
        break;
    case 7:
        if (chance(2))
            add_words(out, 1 + chance(10));
        else
            buf_text(out, "null");
        break;
    case 8:
        buf_text(out, "[");
        for (uint32_t i = 0; i < count; i++) {
            buf_text(out, i ? ",{\"name\":" : "{\"name\":");
            add_words(out, 1 + chance(4));
            buf_format(out, ",\"price\":%u.%u", chance(1000), 1 + chance(9));
            buf_text(out, chance(2) ? ",\"count\":12}" : "}");
        }
        buf_text(out, "]");
        break;
    default:
        buf_text(out, "\"");
        for (count = 1 + chance(24); count > 0; count--)
            buf_format(out, "%c", chance(5) ? 'a' + (char)chance(26) : ' ');
        buf_text(out, "\"");
    }
}

static void add_document(struct buf *out)
{
    out->size = 0;
    buf_text(out, "{");
    for (int i = 0; i < FIELDS; i++) {
        if (i % 7 == 3 && chance(2))
            continue;
        buf_format(out, "%s\"field_%d\":", out->size > 1 ? "," : "", i);
        add_value(out, i % 10);
    }
    buf_text(out, "}");
}

/* ---- generating --------------------------------------------------------------------------------- */

struct costs {
    int64_t *ns;
    size_t count, tokens;
    int64_t total;
};

static bool has(const uint64_t *mask, int32_t id)
{
    return mask[id / 64] >> (id % 64) & 1;
}

/* The tokenizer's next token of the rest, if the mask has it; else the longest that it has. */
static int32_t next_of(const struct tokenizer *tokenizer, const uint64_t *mask, struct span rest,
                       int32_t vocab)
{
    struct ids ids = { 0 };
    struct err err;
    size_t size = rest.size < 48 ? rest.size : 48, longest = 0;
    int32_t next = -1;

    while (size > 0 && !span_is_utf8(span_of(rest.data, size)))
        size--;
    if (size > 0 && tokenizer_encode(tokenizer, span_of(rest.data, size), &ids, &err) && ids.count > 0 &&
        has(mask, ids.id[0]))
        next = ids.id[0];
    ids_fini(&ids);
    for (int32_t id = 0; next < 0 && id < vocab; id++)
        if (has(mask, id)) {
            struct span bytes = tokenizer_bytes(tokenizer, id);

            if (bytes.size > longest && bytes.size <= rest.size &&
                memcmp(bytes.data, rest.data, bytes.size) == 0) {
                longest = bytes.size;
                next = id;
            }
        }
    return next;
}

static int32_t drawn(const uint64_t *mask, int32_t vocab)
{
    uint32_t seen = 0;
    int32_t picked = -1;

    for (int32_t id = 0; id < vocab; id++)
        if (has(mask, id) && chance(++seen) == 0)
            picked = id;
    return picked;
}

/* document NULL: drawn evenly.  Once the document cannot be followed (the budget), drawn too. */
static void generate(struct grammar *grammar, const struct tokenizer *tokenizer, int32_t vocab,
                     const struct buf *document, int32_t budget, struct costs *costs)
{
    struct grammar_run *run = grammar_run_new(grammar);
    struct ids ids = { 0 };
    struct err err;
    size_t at = 0, count;

    while (!grammar_must_end(run) && budget > 0) {
        int64_t start = cpu_ns(), taken;
        const uint64_t *mask = NULL;

        ids.count = 0;
        if (!grammar_forced(run, &ids, &count, &err))
            fail(err.text);
        if (count == 0 && (mask = grammar_mask(run, budget)) == NULL) {
            if (grammar_may_end(run))
                break;
            fail("no token is allowed");
        }
        taken = cpu_ns() - start;
        if (count == 0) {
            int32_t next = -1;

            if (document && at < document->size)
                next = next_of(tokenizer, mask, span_of(document->data + at, document->size - at), vocab);
            if (next < 0) {
                document = NULL;
                next = drawn(mask, vocab);
            }
            ids_add(&ids, next);
        }
        start = cpu_ns();
        for (size_t i = 0; i < ids.count; i++) {
            if (!grammar_advance(run, ids.id[i]))
                fail("a token that was allowed does not fit");
            at += tokenizer_bytes(tokenizer, ids.id[i]).size;
            budget--;
        }
        taken += cpu_ns() - start;
        costs->total += taken;
        costs->tokens += ids.count;
        if (costs->count < COSTS_MAX)
            costs->ns[costs->count++] = taken;
    }
    if (!grammar_may_end(run))
        fail("the budget is spent and the text is not complete");
    grammar_run_free(run);
    ids_fini(&ids);
}

static int compare(const void *left, const void *right)
{
    const int64_t *a = left, *b = right;

    return *a < *b ? -1 : *a > *b;
}

static double at_share(const struct costs *costs, double share)
{
    return (double)costs->ns[(size_t)((double)(costs->count - 1) * share)] / 1000;
}

int main(int argc, char **argv)
{
    struct buf schema = { 0 }, document = { .max = TEXT_MAX };
    struct schema_options options = { .closed = true };
    int documents = argc > 2 ? atoi(argv[2]) : 20;
    double median = argc > 4 ? atof(argv[4]) : 0, p99 = argc > 5 ? atof(argv[5]) : 0,
           build = argc > 6 ? atof(argv[6]) : 0;
    struct costs costs = { .ns = malloc(COSTS_MAX * sizeof *costs.ns) };
    struct tokenizer *tokenizer;
    struct vocabulary *vocabulary;
    struct err err;
    bool slow = false;
    int64_t start;
    int32_t vocab;

    if (argc < 2)
        return fprintf(stderr,
                       "usage: grammar_rate TOKENIZER_DIR [DOCUMENTS] [VOCAB] [MEDIAN_US P99_US BUILD_MS]\n"),
               1;
    if (!costs.ns || !tokenizer_load(&tokenizer, argv[1], &err))
        fail(costs.ns ? err.text : "out of memory");
    vocab = argc > 3 && atoi(argv[3]) > 0 ? atoi(argv[3]) : tokenizer_size(tokenizer);
    start = cpu_ns();
    if (!(vocabulary = vocabulary_new(tokenizer, vocab)))
        fail("out of memory");
    printf("{\"bench\": \"grammar\", \"case\": \"vocabulary\", \"value\": %.1f, \"unit\": \"ms\", "
           "\"tokens\": %d}\n",
           (double)(cpu_ns() - start) / 1e6, vocab);
    add_schema(&schema);
    for (int kind = 0; kind < 3; kind++) {
        static const char *const name[] = { "mask", "mask_at_the_end", "mask_drawn" };
        struct grammar *grammar;
        double ms;

        start = cpu_ns();
        if (!structured_grammar(&grammar, STRUCTURED_SCHEMA, buf_span(&schema), &options, vocabulary, &err))
            fail(err.text);
        ms = (double)(cpu_ns() - start) / 1e6;
        costs.count = costs.tokens = 0;
        costs.total = 0;
        chance_state = 1;
        for (int i = 0; i < documents; i++) {
            add_document(&document);
            generate(grammar, tokenizer, vocab, kind < 2 ? &document : NULL,
                     kind == 0 ? 100000
                               : grammar_minimum(grammar) + (kind == 1 ? (int32_t)chance(200) : 2000),
                     &costs);
        }
        if (costs.count == 0)
            fail("nothing was generated");
        qsort(costs.ns, costs.count, sizeof *costs.ns, compare);
        printf("{\"bench\": \"grammar\", \"case\": \"%s\", \"median_us\": %.1f, \"p99_us\": %.1f, "
               "\"most_us\": %.1f, \"mean_us\": %.1f, "
               "\"unit\": \"us\", \"steps\": %zu, \"tokens\": %zu, \"documents\": %d, \"compile_ms\": %.1f, "
               "\"minimum\": %d, \"bytes\": %zu}\n",
               name[kind], at_share(&costs, 0.5), at_share(&costs, 0.99), at_share(&costs, 1),
               (double)costs.total / 1000 / (double)costs.count, costs.count, costs.tokens, documents, ms,
               grammar_minimum(grammar), grammar_bytes(grammar));
        fflush(stdout);
        slow |= (median > 0 && at_share(&costs, 0.5) > median) || (p99 > 0 && at_share(&costs, 0.99) > p99) ||
                (build > 0 && ms > build);
        grammar_free(grammar);
    }
    buf_fini(&schema);
    buf_fini(&document);
    free(costs.ns);
    vocabulary_free(vocabulary);
    tokenizer_free(tokenizer);
    return slow;
}
