/* Automata against brute force: every operation is asked about every short text. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/check.h"
#include "tests/unit/dfa_canonical.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOWER = 8 };
#else
enum { SLOWER = 1 };
#endif

static uint64_t seed = 5;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* others may keep the machine busy */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct dfa *pattern(const char *text, bool search)
{
    struct dfa *dfa = NULL;
    struct err err = { 0 };

    if (!dfa_pattern(&dfa, span_text(text), search, &err))
        print_message("%s: %s\n", text, err.text);
    CHECK(dfa);
    CHECK(dfa_is_canonical(dfa));
    return dfa;
}

static struct dfa *texts(const char *const *text, size_t count)
{
    struct span span[64];
    struct dfa *dfa = NULL;

    for (size_t i = 0; i < count; i++)
        span[i] = span_text(text[i]);
    CHECK(dfa_texts(&dfa, span, count, NULL));
    CHECK(dfa_is_canonical(dfa));
    return dfa;
}

static bool matches(const struct dfa *dfa, const char *text)
{
    return dfa_matches(dfa, span_text(text));
}

/* ---- operations ------------------------------------------------------------------------------------- */

static const char letters[] = "ab\xc3\xa9"; /* e-acute comes in halves, too */
enum { LETTERS = 4, LONGEST = 5, ALL = 1 + 4 + 16 + 64 + 256 + 1024 };

/* Text number n of all texts of at most LONGEST letters. */
static struct span text_number(unsigned n, uint8_t room[LONGEST])
{
    size_t size = 0;
    unsigned many = 1;

    while (n >= many) {
        n -= many;
        many *= LETTERS;
        size++;
    }
    for (size_t i = 0; i < size; i++, n /= LETTERS)
        room[i] = (uint8_t)letters[n % LETTERS];
    return span_of(room, size);
}

static struct dfa *some_language(void)
{
    static const char *const some[] = {
        "a*b",
        "(ab|ba)*",
        "[^a]*",
        "a{2,3}",
        ".",
        ".*\xc3\xa9",
        "(a|\xc3\xa9)+",
        "",
        "b.b",
        "(a*b){2}",
        "[]",
        "(aa)*",
        "a?b?",
        "[^b]{0,2}",
        "a.*b",
        "[^]*",
        "(a|ab)(b|ba)",
        ".{3}",
        "a+?b+?",
        "(?:a{2}){2}",
        "[^]{0,4}",
        "\xc3\xa9*a\xc3\xa9*",
        "b|aa",
        "(.b)*",
    };
    struct span span[6] = { 0 };
    static uint8_t room[6][LONGEST];
    struct dfa *dfa = NULL;

    if (random_below(2)) {
        size_t count = random_below(7);

        for (size_t i = 0; i < count; i++)
            span[i] = text_number(random_below(ALL), room[i]);
        CHECK(dfa_texts(&dfa, span, count, NULL));
        for (size_t i = 0; i < count; i++)
            CHECK(dfa_matches(dfa, span[i]));
        CHECK(dfa_is_canonical(dfa));
        return dfa;
    }
    return pattern(some[random_below(sizeof some / sizeof some[0])], random_below(2));
}

static void test_operations_are_what_they_say_on_every_short_text(void **state)
{
    (void)state;
    for (int round = 0; round < 150; round++) {
        struct dfa *a = some_language(), *b = some_language(), *either, *both, *only, *again, *kept;
        uint8_t room[LONGEST];

        CHECK(dfa_union(&either, a, b, NULL) && dfa_intersect(&both, a, b, NULL) &&
              dfa_subtract(&only, a, b, NULL));
        CHECK(dfa_is_canonical(either) && dfa_is_canonical(both) && dfa_is_canonical(only));
        for (unsigned n = 0; n < ALL; n++) {
            struct span t = text_number(n, room);
            bool in_a = dfa_matches(a, t), in_b = dfa_matches(b, t);

            CHECK(dfa_matches(either, t) == (in_a || in_b));
            CHECK(dfa_matches(both, t) == (in_a && in_b));
            CHECK(dfa_matches(only, t) == (in_a && !in_b));
        }
        /* The same language by another way is the same automaton. */
        CHECK(dfa_subtract(&again, a, only, NULL) && dfa_equal(again, both)); /* a - (a - b) */
        dfa_free(again);
        CHECK(dfa_union(&again, only, both, NULL) && dfa_equal(again, a));
        dfa_free(again);
        CHECK(dfa_union(&again, b, a, NULL) && dfa_equal(again, either));
        CHECK(dfa_equal(a, b) ==
              (dfa_is_empty(only) && dfa_subtract(&kept, b, a, NULL) && dfa_is_empty(kept)));
        if (dfa_is_empty(only))
            dfa_free(kept);
        dfa_free(again);
        dfa_free(a);
        dfa_free(b);
        dfa_free(either);
        dfa_free(both);
        dfa_free(only);
    }
}

static void test_the_empty_language_has_one_form(void **state)
{
    struct dfa *none = texts(NULL, 0), *a = texts((const char *const[]){ "a" }, 1), *also, *nothing;

    (void)state;
    CHECK(dfa_is_empty(none) && none->count == 1 && none->classes == 1 && !matches(none, ""));
    also = pattern("[]", true);
    CHECK(dfa_equal(none, also));
    dfa_free(also);
    CHECK(dfa_subtract(&also, a, a, NULL) && dfa_equal(none, also));
    dfa_free(also);
    CHECK(dfa_spell(&also, none, NULL) && dfa_equal(none, also));
    dfa_free(also);
    CHECK(dfa_union(&also, none, none, NULL) && dfa_equal(none, also));
    dfa_free(also);
    CHECK(dfa_length(&also, 3, 2, NULL) && dfa_equal(none, also));
    dfa_free(also);
    /* The empty text is something else. */
    nothing = texts((const char *const[]){ "" }, 1);
    CHECK(!dfa_is_empty(nothing) && nothing->count == 2 && matches(nothing, "") && !matches(nothing, "a"));
    dfa_free(nothing);
    dfa_free(none);
    dfa_free(a);
    dfa_free(NULL);
}

static void test_texts_are_a_set_and_may_hold_any_bytes(void **state)
{
    static const char *const words[] = { "Monday", "Tuesday", "Mon", "", "day", "Monday", "Sunday" };
    static const char *const other[] = { "day", "Sunday", "Tuesday", "Monday", "Mon", "" };
    struct dfa *a = texts(words, 7), *b = texts(other, 6), *c = pattern("((Mon|Tues|Sun)?day|Mon)?", false),
               *d;
    uint8_t all[256];

    (void)state;
    CHECK(dfa_equal(a, b) && dfa_equal(a, c));
    CHECK(matches(a, "Mon") && !matches(a, "Mond") && !matches(a, "Mondays"));
    dfa_free(a);
    dfa_free(b);
    dfa_free(c);
    for (int i = 0; i < 256; i++)
        all[i] = (uint8_t)i;
    CHECK(dfa_texts(&d, &(struct span){ all, 256 }, 1, NULL) && d->count == 258 && d->classes == 256);
    CHECK(dfa_matches(d, span_of(all, 256)) && !dfa_matches(d, span_of(all, 255)));
    dfa_free(d);
}

/* An enumeration of thousands of values must not need the memory of its tree. */
static void test_many_texts_share_what_they_have_in_common(void **state)
{
    enum { COUNT = 16384 };
    struct span *span = malloc(COUNT * sizeof *span);
    char *room = malloc(COUNT * 64);
    struct dfa *dfa;

    (void)state;
    for (int i = 0; i < COUNT; i++)
        span[i] =
            span_of(room + i * 64,
                    (size_t)sprintf(room + i * 64, "a rather long beginning %05d and a long end too", i));
    CHECK(dfa_texts(&dfa, span, COUNT, NULL));
    CHECK(dfa->count < 200 && matches(dfa, "a rather long beginning 00000 and a long end too") &&
          matches(dfa, "a rather long beginning 16383 and a long end too") &&
          !matches(dfa, "a rather long beginning 16384 and a long end too"));
    dfa_free(dfa);
    free(span);
    free(room);
}

/* ---- texts ------------------------------------------------------------------------------------------ */

static void test_any_text_is_well_formed_utf8(void **state)
{
    static const uint8_t edge[] = { 0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                    0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
                                    0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff };
    enum { EDGES = sizeof edge };
    struct dfa *any, *also;
    uint8_t t[5];

    (void)state;
    CHECK(dfa_any_text(&any, NULL) && dfa_is_canonical(any) && any->count == 9);
    for (unsigned n = 0; n < EDGES * EDGES * EDGES * EDGES; n++) {
        t[0] = edge[n % EDGES];
        t[1] = edge[n / EDGES % EDGES];
        t[2] = edge[n / EDGES / EDGES % EDGES];
        t[3] = edge[n / EDGES / EDGES / EDGES];
        for (size_t size = 0; size <= 4; size++)
            CHECK(dfa_matches(any, span_of(t, size)) == span_is_utf8(span_of(t, size)));
    }
    also = pattern("[^]*", false);
    CHECK(dfa_equal(any, also));
    dfa_free(also);
    also = pattern("", true);
    CHECK(dfa_equal(any, also));
    dfa_free(also);
    CHECK(dfa_length(&also, 0, UINT32_MAX, NULL) && dfa_equal(any, also));
    dfa_free(also);
    dfa_free(any);
}

static void test_length_counts_code_points(void **state)
{
    static const char *const one[] = { "a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x90\xb2", "\n" };
    struct dfa *dfa, *also;

    (void)state;
    for (uint32_t low = 0; low < 4; low++)
        for (uint32_t high = low; high < 6; high++) {
            CHECK(dfa_length(&dfa, low, high == 5 ? UINT32_MAX : high, NULL) && dfa_is_canonical(dfa));
            for (uint32_t n = 0; n < 9; n++) {
                char text[64] = "";

                for (uint32_t i = 0; i < n; i++)
                    strcat(text, one[random_below(5)]);
                CHECK(matches(dfa, text) == (n >= low && (high == 5 || n <= high)));
                strcat(text, "\xe2\x82");
                CHECK(!matches(dfa, text));
            }
            dfa_free(dfa);
        }
    CHECK(dfa_length(&dfa, 2, 7, NULL));
    also = pattern("[^]{2,7}", false);
    CHECK(dfa_equal(dfa, also));
    dfa_free(dfa);
    dfa_free(also);
}

/* ---- JSON ------------------------------------------------------------------------------------------- */

/* The one spelling. */
static size_t literal(const uint8_t *text, size_t size, char *out)
{
    char *p = out;

    *p++ = '"';
    for (size_t i = 0; i < size; i++) {
        static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
        const char *found = text[i] != 0 ? strchr(from, text[i]) : NULL;

        if (found)
            p += sprintf(p, "\\%c", to[found - from]);
        else if (text[i] < 0x20)
            p += sprintf(p, "\\u%04x", text[i]);
        else
            *p++ = (char)text[i];
    }
    *p++ = '"';
    *p = '\0';
    return (size_t)(p - out);
}

static void test_spell_has_one_literal_a_text(void **state)
{
    static const char *const some[] = { "[^]*",
                                        "[\\0-\\x1f]*",
                                        "\\\\*\"?",
                                        "[bfnrtu0-9a-f\\\\\"/]*",
                                        "[\\n\\t]a+|\\u{1f}",
                                        "[^\"\\\\]*",
                                        "\\x7f|\xc3\xa9+",
                                        "",
                                        ".*",
                                        "\\x10|\\x01|\\x0b" };
    static const uint8_t alphabet[] = { 0,   1,    8,   9,   10,  11,  12,  13,  16,  31,
                                        '"', '\\', '/', 'a', 'b', 'u', '0', '1', 'f', 127 };

    (void)state;
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        struct dfa *text = pattern(some[i], false), *spelt;
        char json[128];

        CHECK(dfa_spell(&spelt, text, NULL) && dfa_is_canonical(spelt));
        for (int n = 0; n < 4000; n++) {
            uint8_t bytes[8];
            size_t size = random_below(5), length;

            for (size_t j = 0; j < size; j++)
                bytes[j] = alphabet[random_below(sizeof alphabet)];
            length = literal(bytes, size, json);
            CHECK(dfa_matches(spelt, span_of(json, length)) == dfa_matches(text, span_of(bytes, size)));
            CHECK(!dfa_matches(spelt, span_of(json, length - 1)) &&
                  !dfa_matches(spelt, span_of(json + 1, length - 1)));
        }
        dfa_free(text);
        dfa_free(spelt);
    }
}

static void test_spell_takes_no_second_spelling(void **state)
{
    static const char *const wrong[] = {
        "\"\\u0041\"", "\"\\/\"", "\"\\u001F\"", "\"\\u000a\"", "\"\\u0008\"", "\"\\u0022\"",        "\"\n\"",
        "\"\\x\"",     "\"\"\"",  "\"\\\"",      "\"\\u00\"",   "\"\\u007f\"", "\"\\ud83d\\udc32\"", "\"a",
        "a\"",         "",        "\"",          "\"\\u0020\""
    };
    static const char *const right[] = { "\"A\"",    "\"/\"",    "\"\\u001f\"",
                                         "\"\\n\"",  "\"\\b\"",  "\"\\\"\"",
                                         "\"\\\\\"", "\"\x7f\"", "\"\xf0\x9f\x90\xb2\"",
                                         "\"\"",     "\" \"",    "\"\\u0000\"" };
    struct dfa *any, *spelt;

    (void)state;
    CHECK(dfa_any_text(&any, NULL) && dfa_spell(&spelt, any, NULL));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK(!matches(spelt, wrong[i]));
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++)
        CHECK(matches(spelt, right[i]));
    dfa_free(any);
    dfa_free(spelt);
}

/* ---- bounds ----------------------------------------------------------------------------------------- */

static void test_what_is_too_large_is_refused_soon(void **state)
{
    static const char *const hostile[] = {
        ".*a.{20}b.{20}",
        "((((a{1,100}){1,100}){1,100}))",
        "(a|b)*a[ab]{30}",
        "x{70000}",
        "[^]{9000}",
        "((a{0,200}){0,200}b){0,200}",
        "(.*a){1,200}.{0,300}",
        "\\p{L}{1,300}",
        "(?:.{0,40}a){40}",
        ".{1,2000}x.{1,2000}y.{1,2000}",
        "(?:a?){3000}a{3000}",
        "^(\\w+\\s?)*a{500}(a|b)*a[ab]{25}$",
        "((){1000}){1000}",
        "\\p{sc=Grek}\\p{sc=Latn}\\p{sc=Hani}\\p{sc=Cyrl}\\p{sc=Arab}\\p{sc=Hebr}\\p{scx=Grek}\\p{scx=Latn}",
        "[^a][^b][^c][^d][^e][^f][^g][^h][^i][^j][^k]{1,99}([^l]|[^m][^n]|[^o][^p][^q]){1,99}[^r]",

        "a{1048577}",
        "(\\b|a){2000}(\\B|b){2000}",
    };
    struct dfa *a, *b, *c;
    struct err err;
    double begin;

    (void)state;
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        begin = seconds();
        a = NULL;
        err = (struct err){ 0 };
        if (dfa_pattern(&a, span_text(hostile[i]), true, &err))
            CHECK(a->count <= DFA_STATES_MAX);
        else
            CHECK(err.code == ERR_LIMIT);
        dfa_free(a);
        if (seconds() - begin >= 0.9 * SLOWER)
            print_message("%s: %.2f s\n", hostile[i], seconds() - begin);
        CHECK(seconds() - begin < 0.9 * SLOWER);
    }
    CHECK(!dfa_length(&a, 0, DFA_LENGTH_MAX, &err) && err.code == ERR_LIMIT);
    CHECK(!dfa_length(&a, 0, UINT32_MAX - 1, &err) && err.code == ERR_LIMIT);
    CHECK(!dfa_length(&a, UINT32_MAX, UINT32_MAX, &err) && err.code == ERR_LIMIT);
    /* A product of two that do fit: lengths that go on in steps of primes. */
    a = pattern("(?:a{499})*", false);
    b = pattern("(?:a{503})*", false);
    begin = seconds();
    CHECK(!dfa_union(&c, a, b, &err) && err.code == ERR_LIMIT);
    CHECK(!dfa_intersect(&c, a, b, &err) && err.code == ERR_LIMIT);
    CHECK(seconds() - begin < 1.5 * SLOWER);
    dfa_free(a);
    dfa_free(b);
}

static void test_long_texts_are_bounded(void **state)
{
    char *room = calloc(DFA_LENGTH_MAX + 1, 1);
    struct dfa *dfa;
    struct err err;

    (void)state;
    memset(room, 'a', DFA_LENGTH_MAX + 1);
    CHECK(dfa_texts(&dfa, &(struct span){ (uint8_t *)room, DFA_STATES_MAX - 2 }, 1, &err) &&
          dfa->count == DFA_STATES_MAX);
    dfa_free(dfa);
    CHECK(!dfa_texts(&dfa, &(struct span){ (uint8_t *)room, DFA_STATES_MAX - 1 }, 1, &err) &&
          err.code == ERR_LIMIT);
    CHECK(!dfa_texts(&dfa, &(struct span){ (uint8_t *)room, DFA_LENGTH_MAX + 1 }, 1, &err) &&
          err.code == ERR_LIMIT);
    free(room);
}

/* Who makes many must be able to tell what they cost, and the same input must always cost the same. */
static void test_steps_count_the_work(void **state)
{
    uint64_t before = dfa_steps(), cheap, dear;
    struct dfa *dfa;
    double begin;

    (void)state;
    dfa = pattern("abc", true);
    dfa_free(dfa);
    cheap = dfa_steps() - before;
    before = dfa_steps();
    dfa = pattern("abc", true);
    dfa_free(dfa);
    CHECK(cheap > 0 && dfa_steps() - before == cheap);
    before = dfa_steps();
    begin = seconds();
    CHECK(!dfa_pattern(&dfa, span_text("(a|b)*a[ab]{30}"), true, NULL));
    dear = dfa_steps() - before;
    CHECK(dear > 1000 * cheap);
    CHECK(seconds() - begin < 20.0 * SLOWER * (double)dear / DFA_STEPS_SECOND);
}

/* What a schema usually says must be cheap: a tenth of a second's steps would be enough for fifty of them. */
static void test_usual_patterns_are_cheap(void **state)
{
    static const char *const usual[] = {
        "^.{0,500}$",
        "^[A-Z]{2}[0-9]{2}[A-Z0-9]{1,30}$",
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        "^\\+?[0-9 ()/-]{5,20}$",
        "^[\\w.+-]+@[\\w-]+\\.[a-z]{2,}$",
        "^(?:EUR|USD|GBP) [0-9]{1,9}(?:\\.[0-9]{2})?$",
        "invoice|bill|receipt",
        "\\S",
        "^\\S(?:.*\\S)?$",
        "^[^\\s,;]{1,64}$",
        "^(0[1-9]|[12][0-9]|3[01])\\.(0[1-9]|1[0-2])\\.[12][0-9]{3}$",
        "\\bNo\\. \\d+\\b",
    };

    (void)state;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++) {
        uint64_t before = dfa_steps();
        struct dfa *text = pattern(usual[i], true), *spelt;

        CHECK(dfa_spell(&spelt, text, NULL));
        if (i == 0)
            CHECK(dfa_steps() - before < 1000 * 1000);
        else
            CHECK(dfa_steps() - before < DFA_STEPS_SECOND / 10 / 50);
        dfa_free(text);
        dfa_free(spelt);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations_are_what_they_say_on_every_short_text),
        cmocka_unit_test(test_the_empty_language_has_one_form),
        cmocka_unit_test(test_texts_are_a_set_and_may_hold_any_bytes),
        cmocka_unit_test(test_many_texts_share_what_they_have_in_common),
        cmocka_unit_test(test_any_text_is_well_formed_utf8),
        cmocka_unit_test(test_length_counts_code_points),
        cmocka_unit_test(test_spell_has_one_literal_a_text),
        cmocka_unit_test(test_spell_takes_no_second_spelling),
        cmocka_unit_test(test_what_is_too_large_is_refused_soon),
        cmocka_unit_test(test_long_texts_are_bounded),
        cmocka_unit_test(test_steps_count_the_work),
        cmocka_unit_test(test_usual_patterns_are_cheap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
