/* Chunks: what every cut must keep, on texts of many languages and shapes, and where cuts are preferred. */

#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/chunks.h"
#include "client/unicode.h"
#include "tests/unit/languages.h"

static struct tokenizer *tokenizer;

static uint32_t count_tokens(struct span text)
{
    struct text_part part = { text, ADDED_PLAIN };
    struct ids ids = { 0 };
    uint32_t count;

    CHECK(tokenizer_encode_parts(tokenizer, &part, 1, &ids, NULL));
    count = (uint32_t)ids.count;
    ids_fini(&ids);
    return count;
}

static bool is_blank(const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t n = unicode_read(p + i, size - i, &c, NULL);

        CHECK(n > 0);
        if (!unicode_is_space(c))
            return false;
        i += n;
    }
    return true;
}

struct cuts {
    size_t count, at[4096], to[4096]; /* bytes of the text */
};

/* Cuts the text and checks what must hold for any. */
static void cut(struct span text, struct chunk_limits limits, struct cuts *cuts)
{
    struct chunks *chunks;
    struct chunk chunk;
    struct err err = { 0 };
    size_t covered = 0;
    bool end, last = false;

    cuts->count = 0;
    CHECK(chunks_of_text(&chunks, text, tokenizer, limits, &err));
    for (;;) {
        CHECK(chunks_next(chunks, &chunk, &end, &err));
        if (end)
            break;
        CHECK(!last);
        CHECK(chunk.index == cuts->count && cuts->count < 4096);
        CHECK(chunk.text.size > 0 && chunk.byte + chunk.text.size <= text.size);
        CHECK(!memcmp(text.data + chunk.byte, chunk.text.data, chunk.text.size));
        CHECK(span_is_utf8(chunk.text));
        CHECK(chunk.chars == unicode_count(text.data, chunk.byte));
        CHECK(chunk.tokens == count_tokens(chunk.text) && chunk.tokens <= limits.tokens);
        CHECK(!is_blank(chunk.text.data, 1 + (chunk.text.data[0] >= 0xc0) + (chunk.text.data[0] >= 0xe0) +
                                             (chunk.text.data[0] >= 0xf0)));
        if (chunk.byte > covered)
            CHECK(is_blank(text.data + covered, chunk.byte - covered));
        if (limits.overlap == 0)
            CHECK(chunk.byte >= covered);
        CHECK(chunk.byte + chunk.text.size > covered); /* each brings something new */
        covered = chunk.byte + chunk.text.size;
        cuts->at[cuts->count] = chunk.byte;
        cuts->to[cuts->count++] = covered;
        last = chunk.last;
    }
    CHECK(last || cuts->count == 0);
    CHECK(is_blank(text.data + covered, text.size - covered));
    chunks_close(chunks);
}

static struct cuts cuts;

static struct buf repeat(const char *text, size_t size)
{
    struct buf buf = { 0 };

    while (buf.size < size)
        CHECK(buf_text(&buf, text));
    return buf;
}

/* Every language, every shape of limits: nothing lost, offsets exact, counts true. */
static void test_every_language_is_covered(void **state)
{
    static const struct chunk_limits limits[] = {
        { 16, 0 }, { 16, 7 }, { 40, 10 }, { 200, 40 }, { 1000, 100 }
    };

    (void)state;
    for (size_t i = 0; i < LANGUAGES; i++)
        for (size_t k = 0; k < sizeof limits / sizeof *limits; k++) {
            struct buf text = repeat(languages[i].text, 3000);

            cut(buf_span(&text), limits[k], &cuts);
            CHECK(cuts.count >= text.size / 8 / limits[k].tokens);
            buf_fini(&text);
        }
}

/* Texts that a loop could hang on, or cut where nothing may be cut. */
static void test_odd_shapes(void **state)
{
    static const char *const shapes[] = {
        "a",
        " ",
        "\r\n",
        "aaaaaaaa",
        "word ",
        "word\r\n",
        "line\rline\r",
        "\xe2\x80\xa8x",
        "😀",
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈 ",
        "e\u0301\u0302\u0303\u0304",
        "\u0301",
        "한국어",
        "กำลัง",
        "人人生而自由",
        "x                                                                                        ",
        "                                                                                   \n\n\n\n",
        "# Heading\n\ntext. More text.\n",
        "```\ncode {\n\n}\n```\n",
        "```\nnever closed\n\n",
        "~~~~ c\n\n```\n~~~~\n\n",
        "<｜end▁of▁sentence｜>",
        "Mr. X. said e.g. 3.5 ... no! ",
        "。。。！！」」",
        "\xef\xbb\xbf",
        "\t",
        "-----------------------------------------------------------------------------------------------",
        "0123456789",
        "https://example.org/a/very/long/path?with=query&and=more#fragment",
    };

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (uint32_t overlap = 0; overlap < 16; overlap += 5) {
            struct buf text = repeat(shapes[i], 3000);

            cut(buf_span(&text), (struct chunk_limits){ 16, overlap > 7 ? 7 : overlap }, &cuts);
            cut(buf_span(&text), (struct chunk_limits){ 100, overlap }, &cuts);
            buf_fini(&text);
        }
    cut(span_text(""), (struct chunk_limits){ 16, 0 }, &cuts);
    CHECK(cuts.count == 0);
    cut(span_text("one"), (struct chunk_limits){ 16, 0 }, &cuts);
    CHECK(cuts.count == 1 && cuts.to[0] == 3);
}

/* White space of any length costs no memory and makes no chunk. */
static void test_a_long_gap(void **state)
{
    struct buf text = { 0 };

    (void)state;
    CHECK(buf_text(&text, "begin. "));
    for (int i = 0; i < 40000; i++)
        CHECK(buf_text(&text, " \n \t\u3000"));
    CHECK(buf_text(&text, "end"));
    cut(buf_span(&text), (struct chunk_limits){ 64, 10 }, &cuts);
    CHECK(cuts.count == 2 && cuts.to[0] == 6 && cuts.at[1] == text.size - 3);
    buf_fini(&text);
}

/* Random characters of random classes. */
static void test_random_texts(void **state)
{
    static const char *const pieces[] = {
        " ",    "  ",     "\n",      "\n\n",   "\r\n", "a",  "Bc", ". ", "! ", "。",     "，", "# ",
        "\n# ", "```",    "\n```\n", "\u0301", "é",    "漢", "ก",  "ำ",  "😀",  "\u200d", "👩",  "1",
        "-",    "\u00ad", "\u3000",  "\f",     "ﬁ",    "\"", "」", "가", "ᄀ", "ᅡ",     "🇩",  "🇪"
    };
    uint32_t seed = 1;

    (void)state;
    for (int round = 0; round < 150; round++) {
        struct buf text = { 0 };
        uint32_t tokens = 16 + (uint32_t)round % 50, size = 200 + (uint32_t)round * 20;

        while (text.size < size) {
            seed = seed * 1664525 + 1013904223;
            CHECK(buf_text(&text, pieces[(seed >> 8) % (sizeof pieces / sizeof *pieces)]));
        }
        cut(buf_span(&text), (struct chunk_limits){ tokens, (uint32_t)round % (tokens / 2) }, &cuts);
        buf_fini(&text);
    }
}

/* Where a cut falls, and not before half of the tokens. */
static void test_where_cuts_are_preferred(void **state)
{
    static const struct {
        const char *before, *after; /* what ends, and what begins, at the cut */
    } cases[] = {
        /* A paragraph before a sentence, a sentence before a line, a line before a word. */
        { "one two three four five six seven eight. Nine ten eleven twelve",
          "\n\nThirteen fourteen. Fifteen sixteen seventeen eighteen nineteen twenty" },
        { "one two three four five six seven eight nine ten eleven",
          "\n# A heading\nthirteen fourteen. Fifteen sixteen seventeen eighteen nineteen" },
        { "one two three four five six seven eight nine ten eleven.",
          " Thirteen fourteen\nfifteen sixteen seventeen eighteen nineteen twenty" },
        { "one two three four five six seven eight nine ten (eleven!)",
          " Thirteen fourteen\nfifteen sixteen seventeen eighteen nineteen twenty" },
        { "one two three four five six seven eight nine ten",
          "\neleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen" },
        { "人人生而自由，在尊严和权利上一律平等。",
          "他们赋有理性和良心，并应以兄弟关系的精神相对待，他们赋有理性和良心，并应以兄弟关系的精神" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf text = { 0 };
        uint32_t tokens;

        CHECK(buf_text(&text, cases[i].before) && buf_text(&text, cases[i].after));
        tokens = count_tokens(span_text(cases[i].before));
        for (uint32_t limit = tokens + 2; limit < tokens + 8; limit++) {
            cut(buf_span(&text), (struct chunk_limits){ limit, 0 }, &cuts);
            CHECK(cuts.to[0] == strlen(cases[i].before));
        }
        buf_fini(&text);
    }
}

/* An abbreviation is no sentence's end, a number neither; a block of code is not cut at its blank lines. */
static void test_where_no_cut_is_preferred(void **state)
{
    static const char *const before[] = {
        "one two three four five six seven. Eight nine Dr.",
        "one two three four five six seven. Eight nine z.B.",
        "one two three four five six seven. Eight nine J.",
        "one two three four five six seven. Eight nine is 3.",
        "one two three four five six seven. Eight nine etc.",
    };
    static const char *const after = " Thirteen fourteen fifteen sixteen seventeen eighteen nineteen";
    struct buf text = { 0 };
    uint32_t tokens;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        text.size = 0;
        CHECK(buf_text(&text, before[i]) && buf_text(&text, after));
        tokens = count_tokens(span_text(before[i]));
        cut(buf_span(&text), (struct chunk_limits){ tokens + 1, 0 }, &cuts);
        CHECK(cuts.to[0] == strlen("one two three four five six seven."));
    }
    text.size = 0;
    CHECK(buf_text(&text, "one two three four five six seven eight\n\n```\nint a;\n\nint b;\n```\nnine ten "
                          "eleven twelve thirteen"));
    tokens = count_tokens(span_text("one two three four five six seven eight\n\n```\nint a;\n\nint"));
    cut(buf_span(&text), (struct chunk_limits){ tokens, 0 }, &cuts);
    CHECK(cuts.to[0] == strlen("one two three four five six seven eight"));
    buf_fini(&text);
}

/* The overlap is about as long as asked, and begins at a word. */
static void test_overlap(void **state)
{
    struct buf text = repeat("some words that go on and on without a full stop in them ", 20000);

    (void)state;
    cut(buf_span(&text), (struct chunk_limits){ 100, 20 }, &cuts);
    CHECK(cuts.count > 30);
    for (size_t i = 1; i < cuts.count; i++) {
        uint32_t tokens = count_tokens(span_of(text.data + cuts.at[i], cuts.to[i - 1] - cuts.at[i]));

        CHECK(tokens >= 15 && tokens <= 25);
        CHECK(text.data[cuts.at[i] - 1] == ' ');
    }
    buf_fini(&text);
}

static void test_limits_that_are_none(void **state)
{
    struct chunks *chunks;
    struct err err;

    (void)state;
    CHECK(!chunks_of_text(&chunks, span_text("a"), tokenizer, (struct chunk_limits){ 15, 0 }, &err));
    CHECK(strstr(err.text, "at least 16"));
    CHECK(!chunks_of_text(&chunks, span_text("a"), tokenizer, (struct chunk_limits){ 20, 10 }, &err));
    CHECK(strstr(err.text, "less than half"));
    CHECK(!chunks_of_text(&chunks, span_text("a\xff"), tokenizer, (struct chunk_limits){ 20, 1 }, &err));
}

/* A file is cut as its text is, and offsets count its byte order mark. */
static void test_a_file_is_cut_as_its_text(void **state)
{
    char path[] = "/tmp/moothall-chunks-XXXXXX";
    int fd = mkstemp(path);
    FILE *file = fdopen(fd, "w");
    struct buf text = repeat("Some words of a text. 人人生而自由。\r\n\r\nMore é of it\n", 300000);
    char *words[] = { path };
    struct documents *documents;
    struct document *document;
    struct chunks *a, *b;
    struct chunk x, y;
    struct err err = { 0 };
    bool end, end_b;

    (void)state;
    CHECK(fputs("\xef\xbb\xbf", file) >= 0 && fwrite(text.data, 1, text.size, file) == text.size &&
          fclose(file) == 0);
    CHECK(documents_open(&documents, &(struct documents_config){ .word = words, .word_count = 1 }, &err));
    CHECK(document_open(&document, documents, 0, &err));
    CHECK(chunks_open(&a, document, tokenizer, (struct chunk_limits){ 300, 50 }, &err));
    CHECK(chunks_of_text(&b, buf_span(&text), tokenizer, (struct chunk_limits){ 300, 50 }, &err));
    do {
        CHECK(chunks_next(a, &x, &end, &err) && chunks_next(b, &y, &end_b, &err) && end == end_b);
        CHECK(end || (span_equal(x.text, y.text) && x.byte == y.byte + 3 && x.chars == y.chars + 1 &&
                      x.last == y.last));
    } while (!end);
    chunks_close(a);
    chunks_close(b);
    document_close(document);
    documents_close(documents);
    buf_fini(&text);
    remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_language_is_covered),
        cmocka_unit_test(test_odd_shapes),
        cmocka_unit_test(test_a_long_gap),
        cmocka_unit_test(test_random_texts),
        cmocka_unit_test(test_where_cuts_are_preferred),
        cmocka_unit_test(test_where_no_cut_is_preferred),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_limits_that_are_none),
        cmocka_unit_test(test_a_file_is_cut_as_its_text),
    };
    struct err err;
    int failed;

    if (!tokenizer_load(&tokenizer, SOURCE_DIR "/deploy/demo/model", &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    tokenizer_free(tokenizer);
    return failed;
}
