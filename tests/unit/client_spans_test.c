/* Spans: what is found, where, and that what stands at the offsets is the value. */

#include "tests/check.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utf8proc.h>

#include "client/spans.h"
#include "client/unicode.h"
#include "tests/unit/languages.h"

static struct found look(const char *text, const char *value)
{
    struct span_text *prepared;
    struct found found;
    struct err err;

    CHECK(span_text_new(&prepared, span_text(text), 0, 0, &err));
    found = span_find(prepared, span_text(value));
    span_text_free(prepared);
    if (found.label != SPAN_NOT_FOUND) {
        CHECK(found.byte_from < found.byte_to && found.byte_to <= strlen(text));
        CHECK(found.char_from == unicode_count((const uint8_t *)text, found.byte_from));
        CHECK(found.char_to == unicode_count((const uint8_t *)text, found.byte_to));
        CHECK(span_is_utf8(span_of(text + found.byte_from, found.byte_to - found.byte_from)));
    }
    return found;
}

/* Found with this label, and exactly `there` stands at its offsets. */
static bool stands(const char *text, const char *value, enum span_label label, const char *there)
{
    struct found found = look(text, value);

    if (found.label != label)
        return false;
    return label == SPAN_NOT_FOUND || (found.byte_to - found.byte_from == strlen(there) &&
                                       !memcmp(text + found.byte_from, there, strlen(there)));
}

static void test_labels(void **state)
{
    static const struct {
        const char *text, *value;
        enum span_label label;
        const char *there;
    } cases[] = {
        { "The invoice no. 42", "invoice", SPAN_EXACT, "invoice" },
        { "The Invoice no. 42", "INVOICE NO. 42", SPAN_NORMALISED, "Invoice no. 42" },
        { "The invoice", "receipt", SPAN_NOT_FOUND, NULL },
        { "", "a", SPAN_NOT_FOUND, NULL },
        { "a", "", SPAN_NOT_FOUND, NULL },
        { "a", "ab", SPAN_NOT_FOUND, NULL },
        { "a", "\xff", SPAN_NOT_FOUND, NULL },
        /* White space: runs, line ends of every kind, no-break and wide spaces; none at the value's ends. */
        { "Jane\r\n\t Q.\u00a0Public", "Jane Q. Public", SPAN_NORMALISED, "Jane\r\n\t Q.\u00a0Public" },
        { "東京\u3000タワー", "東京 タワー", SPAN_NORMALISED, "東京\u3000タワー" },
        { "one two", " one  two\n", SPAN_NORMALISED, "one two" },
        { "a b", "  ", SPAN_NOT_FOUND, NULL },
        /* Composed and decomposed. */
        { "caf\u00e9 noir", "cafe\u0301", SPAN_NORMALISED, "caf\u00e9" },
        { "cafe\u0301 noir", "caf\u00e9 noir", SPAN_NORMALISED, "cafe\u0301 noir" },
        { "q\u0307\u0323", "q\u0323\u0307", SPAN_NORMALISED, "q\u0307\u0323" }, /* marks in another order */
        { "\u1112\u1161\u11ab", "\ud55c", SPAN_NORMALISED, "\u1112\u1161\u11ab" },
        /* No letter is cut from its accents. */
        { "CAFE\u0301", "cafe", SPAN_NOT_FOUND, NULL },
        { "CAF\u00c9", "cafe", SPAN_NOT_FOUND, NULL },
        /* Case, also where it changes the length. */
        { "die Straße", "STRASSE", SPAN_NORMALISED, "Straße" },
        { "STRASSE", "straße", SPAN_NORMALISED, "STRASSE" },
        { "das Maß ist", "MAS", SPAN_NOT_FOUND, NULL }, /* half of an ß */
        { "İstanbul", "i\u0307stanbul", SPAN_NORMALISED, "İstanbul" },
        { "DİYARBAKIR", "di\u0307yarbakir", SPAN_NORMALISED, "DİYARBAKIR" },
        { "ΟΔΥΣΣΕΥΣ", "Οδυσσευς", SPAN_NORMALISED, "ΟΔΥΣΣΕΥΣ" },
        { "\u0130", "i", SPAN_NOT_FOUND, NULL },
        /* Compatibility: ligatures, full and half width, roman numbers. */
        { "the ﬁrst oﬃce", "first office", SPAN_NORMALISED, "ﬁrst oﬃce" },
        { "the ﬁ", "I", SPAN_NOT_FOUND, NULL }, /* half of a ligature */
        { "ＡＢＣ１２３", "abc123", SPAN_NORMALISED, "ＡＢＣ１２３" },
        { "ﾊﾟｿｺﾝ", "パソコン", SPAN_NORMALISED, "ﾊﾟｿｺﾝ" },
        { "Ludwig ⅩⅣ", "Ludwig XIV", SPAN_NORMALISED, "Ludwig ⅩⅣ" },
        /* Hyphens at line ends. */
        { "an exam-\nple of", "example", SPAN_NORMALISED, "exam-\nple" },
        { "an exam-  \r\n   ple of", "Example of", SPAN_NORMALISED, "exam-  \r\n   ple of" },
        { "an exam\u2010\nple", "example", SPAN_NORMALISED, "exam\u2010\nple" },
        { "an exam\u00adple", "example", SPAN_NORMALISED, "exam\u00adple" },
        { "an exam\u00ad\nple", "example", SPAN_NORMALISED, "exam\u00ad\nple" },
        { "a well-\nknown man", "well-known", SPAN_NORMALISED, "well-\nknown" },
        { "a well-\nknown man", "wellknown man", SPAN_NORMALISED, "well-\nknown man" },
        { "a well-known man", "wellknown", SPAN_NOT_FOUND, NULL },
        { "an example", "exam-\nple", SPAN_NORMALISED, "example" },
        { "pages 10-\n20", "1020", SPAN_NOT_FOUND, NULL },
        { "items:\n- one\n- two", "one- two", SPAN_NOT_FOUND, NULL },
        /* A word's border before a place within a word. */
        { "a cat scattered cats, cat", "cat", SPAN_EXACT, "cat" },
        { "\U0001F469\u200d\U0001F680 flies", "\U0001F469\u200d\U0001F680", SPAN_EXACT,
          "\U0001F469\u200d\U0001F680" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!stands(cases[i].text, cases[i].value, cases[i].label, cases[i].there)) {
            struct found found = look(cases[i].text, cases[i].value);

            print_error("`%s` in `%s`: %s %d..%d\n", cases[i].value, cases[i].text,
                        span_label_name(found.label), (int)found.byte_from, (int)found.byte_to);
            CHECK(false);
        }
}

/* Of several places the first at a word's borders; numbers only there. */
static void test_which_place(void **state)
{
    static const struct {
        const char *text, *value;
        bool word;
        int at; /* -1: nowhere */
    } cases[] = {
        { "scattered cat", "cat", false, 10 },
        { "scattered cats", "cat", false, 1 },
        { "SCATTERED CAT", "cat", false, 10 },
        { "cat cat", "cat", false, 0 },
        { "aaaa aa", "aa", false, 5 },
        { "(cat)", "cat", true, 1 },
        { "3.12 and 12", "12", true, 9 },
        { "12,000 or 12.", "12", true, 10 },
        { "x12 12x", "12", true, -1 },
        { "price: 12", "12", true, 7 },
        { "2024年", "2024", true, 0 },
        { "제2024호", "2024", true, 3 },
        { "-5", "-5", true, 0 },
        { "1-5", "5", true, 2 },
        { "untrue", "true", true, -1 },
        { "it is True", "true", true, 6 },
        { "e\u0301 e", "e", true, 4 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct span_text *prepared;
        struct found found;
        struct err err;

        CHECK(span_text_new(&prepared, span_text(cases[i].text), 1000, 500, &err));
        found = (cases[i].word ? span_find_word : span_find)(prepared, span_text(cases[i].value));
        if (cases[i].at < 0 ? found.label != SPAN_NOT_FOUND
                            : found.byte_from != 1000 + (uint64_t)cases[i].at || found.char_from < 500) {
            print_error("`%s` in `%s`: %s %d\n", cases[i].value, cases[i].text, span_label_name(found.label),
                        (int)found.byte_from - 1000);
            CHECK(false);
        }
        span_text_free(prepared);
    }
}

/* Normalised by another way than the code under test: the library's own functions, whole texts at once. */
static char *normal(const char *text, size_t size)
{
    utf8proc_uint8_t *out;
    struct buf kept = { 0 };
    bool space = false;

    CHECK(utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &out,
                       UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD) >= 0);
    for (const uint8_t *p = out; *p;) {
        uint32_t c;
        size_t n = unicode_read(p, 4, &c, NULL);

        if (unicode_is_space(c)) {
            space = true;
        } else {
            CHECK(!space || !kept.size || buf_text(&kept, " "));
            space = false;
            CHECK(buf_add(&kept, p, n));
        }
        p += n;
    }
    CHECK(buf_add(&kept, "", 1));
    free(out);
    return (char *)kept.data;
}

static char *mapped(const char *text, size_t size, int options)
{
    utf8proc_uint8_t *out;

    CHECK(utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &out,
                       (utf8proc_option_t)options) >= 0);
    return (char *)out;
}

/* Every language, text and value in different forms and case, line ends of every kind: what is labelled is
 * there. */
static void test_every_language_in_every_form(void **state)
{
    static const int forms[] = { UTF8PROC_STABLE | UTF8PROC_COMPOSE, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
                                 UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
                                 UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_CASEFOLD };
    size_t looked = 0;

    (void)state;
    for (size_t l = 0; l < LANGUAGES; l++) {
        size_t length = strlen(languages[l].text), words = 0, at[64];
        char *spaced = strdup(languages[l].text);

        /* Places where words, or in scripts without them characters, begin. */
        for (size_t i = 0; i < length && words < 64;) {
            uint32_t c;
            size_t n = unicode_read((const uint8_t *)spaced + i, length - i, &c, NULL);

            if (unicode_is_letter(c) && (i == 0 || spaced[i - 1] == ' ' || unicode_word(c) == WORD_DENSE) &&
                unicode_combining_class(c) == 0)
                at[words++] = i;
            i += n;
        }
        for (size_t t = 0; t < sizeof forms / sizeof *forms; t++) {
            struct buf shaped = { 0 };
            char *text = mapped(spaced, length, forms[t]);
            struct span_text *prepared;
            struct err err;

            CHECK(buf_text(&shaped, "\U0001F469\u200d\U0001F680 \r\n"));
            for (const char *p = text; *p; p++)
                CHECK(*p == ' ' ? buf_text(&shaped, (p - text) % 3 ? "\r\n " : "\u00a0")
                                : buf_add(&shaped, p, 1));
            CHECK(span_text_new(&prepared, buf_span(&shaped), 7, 3, &err));
            for (size_t v = 0; v < sizeof forms / sizeof *forms; v++)
                for (size_t w = 0; w + 3 < words; w++) {
                    size_t to = at[w + 1 + w % 3];
                    char *value, *wanted, *had;
                    struct found found;

                    while (to > at[w] && spaced[to - 1] == ' ')
                        to--;
                    value = mapped(spaced + at[w], to - at[w], forms[v]);
                    found = span_find(prepared, span_text(value));
                    if (found.label == SPAN_NOT_FOUND) {
                        /* Only where a value ends between a letter and what belongs to it. */
                        print_error("%s, forms %zu and %zu: `%s` not found\n", languages[l].name, t, v,
                                    value);
                        CHECK(false);
                    }
                    CHECK(found.byte_from >= 7 && found.byte_to <= 7 + shaped.size &&
                          found.byte_from < found.byte_to);
                    CHECK(found.char_from == 3 + unicode_count(shaped.data, found.byte_from - 7));
                    CHECK(found.char_to == 3 + unicode_count(shaped.data, found.byte_to - 7));
                    wanted = normal(value, strlen(value));
                    had = normal((char *)shaped.data + found.byte_from - 7, found.byte_to - found.byte_from);
                    if (strcmp(wanted, had) != 0 ||
                        (found.label == SPAN_EXACT &&
                         (strlen(value) != found.byte_to - found.byte_from ||
                          memcmp(shaped.data + found.byte_from - 7, value, strlen(value)) != 0))) {
                        print_error("%s: `%s` is `%s`, there is `%s`\n", languages[l].name, value, wanted,
                                    had);
                        CHECK(false);
                    }
                    looked++;
                    free(wanted);
                    free(had);
                    free(value);
                }
            span_text_free(prepared);
            buf_fini(&shaped);
            free(text);
        }
        free(spaced);
    }
    CHECK(looked > 5000);
}

/* Random texts and values of characters that combine in every way: a label is always true. */
static void test_a_label_is_always_true(void **state)
{
    static const char *const pieces[] = { "a",  "A",  "s",  "ß",      "ss",     "\u0301", "\u0323", "\u0307",
                                          "e",  "é",  "É",  "ﬁ",      "f",      "i",      "I",      "İ",
                                          "ı",  " ",  "\n", "\u00a0", "\u00a8", "\u1f80", "\u0345", "\u1fb3",
                                          "ᄀ", "ᅡ", "가", "각",     "ᆨ",     "\u0f71", "\u0f72", "\u0f73",
                                          "ﷺ",  "…",  ".",  "℡",      "\u0344", "\u03b9", "\u200d" };
    enum { PIECES = sizeof pieces / sizeof *pieces };
    uint32_t seed = 7;
    size_t found_any = 0;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        char text[400] = "", value[60] = "", *wanted, *had;
        struct found found;

        for (int i = 0; i < 40; i++) {
            seed = seed * 1664525 + 1013904223;
            strcat(text, pieces[(seed >> 8) % PIECES]);
        }
        for (int i = 0; i < 1 + round % 3; i++) {
            seed = seed * 1664525 + 1013904223;
            strcat(value, pieces[(seed >> 8) % PIECES]);
        }
        found = look(text, value);
        if (found.label != SPAN_NORMALISED)
            continue;
        found_any++;
        wanted = normal(value, strlen(value));
        had = normal(text + found.byte_from, found.byte_to - found.byte_from);
        if (strcmp(wanted, had) != 0) {
            print_error("`%s` in `%s`: is `%s`, there is `%s`\n", value, text, wanted, had);
            CHECK(false);
        }
        free(wanted);
        free(had);
    }
    CHECK(found_any > 500);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A hostile document must not hold a run: quadratic, each of these would take minutes. */
static void test_hostile_texts_take_linear_time(void **state)
{
    enum { SIZE = 1 << 20, VALUE = 10000 };
    char *text = malloc(SIZE + 1), *value = malloc(VALUE + 2);
    struct span_text *prepared;
    struct err err;
    double began = now();

    (void)state;
    memset(text, 'a', SIZE);
    memset(value, 'a', VALUE);
    value[VALUE] = 'b';
    CHECK(span_text_new(&prepared, span_of(text, SIZE), 0, 0, &err));
    CHECK(span_find(prepared, span_of(value, VALUE + 1)).label == SPAN_NOT_FOUND);
    CHECK(span_find(prepared, span_of(value, VALUE)).label ==
          SPAN_EXACT); /* at each place, at no border but the first */
    value[0] = 'b';
    CHECK(span_find(prepared, span_of(value, VALUE)).label == SPAN_NOT_FOUND);
    span_text_free(prepared);
    text[0] = 'A';
    for (size_t i = 1; i + 1 < SIZE; i += 2) /* marks that are all out of order */
        memcpy(text + i, i % 4 == 1 ? "\u0301" : "\u0323", 2);
    text[SIZE - 1] = 'x';
    CHECK(span_text_new(&prepared, span_of(text, SIZE), 0, 0, &err));
    CHECK(span_find(prepared, span_text("X")).label == SPAN_NORMALISED);
    CHECK(span_find(prepared, span_text("a")).label == SPAN_NOT_FOUND);
    span_text_free(prepared);
    CHECK(now() - began < 5); /* 0.1 s on a quiet machine, several times that under a sanitizer */
    free(text);
    free(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_which_place),
        cmocka_unit_test(test_every_language_in_every_form),
        cmocka_unit_test(test_a_label_is_always_true),
        cmocka_unit_test(test_hostile_texts_take_linear_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
