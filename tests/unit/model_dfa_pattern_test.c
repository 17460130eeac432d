/* Patterns against PCRE2 on random ones, against utf8proc for properties, and against the cases of the JSON
 * Schema test suite (draft 2020-12: pattern, optional/ecmascript-regex, optional/non-bmp-regex). */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "tests/check.h"
#include "tests/unit/dfa_canonical.h"

static uint64_t seed = 17;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static struct dfa *pattern(const char *text, bool search)
{
    struct dfa *dfa = NULL;
    struct err err = { 0 };

    if (!dfa_pattern(&dfa, span_text(text), search, &err))
        print_message("%s: %s\n", text, err.text);
    CHECK(dfa);
    return dfa;
}

static bool matches(const struct dfa *dfa, const char *text)
{
    return dfa_matches(dfa, span_text(text));
}

struct example {
    const char *pattern;
    const char *text;
    bool search, whole; /* does it match */
};

static void check_examples(const struct example *example, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct dfa *search = pattern(example[i].pattern, true), *whole = pattern(example[i].pattern, false);

        CHECK(dfa_is_canonical(search) && dfa_is_canonical(whole));
        if (matches(search, example[i].text) != example[i].search ||
            matches(whole, example[i].text) != example[i].whole)
            print_message("%s on %s\n", example[i].pattern, example[i].text);
        CHECK(matches(search, example[i].text) == example[i].search);
        CHECK(matches(whole, example[i].text) == example[i].whole);
        dfa_free(search);
        dfa_free(whole);
    }
}

#define CHECK_EXAMPLES(list) check_examples(list, sizeof list / sizeof list[0])

/* ---- what the suite says ---------------------------------------------------------------------------- */

#define WINTER_1 "Les hivers de mon enfance \xc3\xa9taient des saisons longues, l'"
#define WINTER_2 "cole, l'"
#define WINTER_3 "glise et la patinoire"

static void test_patterns_mean_what_the_suite_says(void **state)
{
    static const struct example list[] = {
        { "^a*$", "aaa", true, true },
        { "^a*$", "abc", false, false },
        { "a+", "xxaayy", true, false },
        { "^abc$", "abc\n", false, false },
        { "^abc$", "abc", true, true },
        { "^\\t$", "\\t", false, false },
        { "^\\t$", "\t", true, true },
        { "^\\cC$", "\\cC", false, false },
        { "^\\cC$", "\x03", true, true },
        { "^\\cc$", "\x03", true, true },
        { "^\\d$", "0", true, true },
        { "^\\d$", "\xdf\x80", false, false }, /* NKO digit zero */
        { "^\\D$", "0", false, false },
        { "^\\D$", "\xdf\x80", true, true },
        { "^\\w$", "a", true, true },
        { "^\\w$", "\xc3\xa9", false, false },
        { "^\\W$", "a", false, false },
        { "^\\W$", "\xc3\xa9", true, true },
        { "^\\s$", " ", true, true },
        { "^\\s$", "\t", true, true },
        { "^\\s$", "\v", true, true },
        { "^\\s$", "\f", true, true },
        { "^\\s$", "\xc2\xa0", true, true },
        { "^\\s$", "\xef\xbb\xbf", true, true },
        { "^\\s$", "\n", true, true },
        { "^\\s$", "\xe2\x80\xa9", true, true },
        { "^\\s$", "\xe2\x80\x83", true, true },
        { "^\\s$", "\x01", false, false },
        { "^\\s$", "\xe2\x80\x93", false, false },
        { "^\\S$", "\xc2\xa0", false, false },
        { "^\\S$", "\xef\xbb\xbf", false, false },
        { "^\\S$", "\xe2\x80\xa9", false, false },
        { "^\\S$", "\x01", true, true },
        { "^\\S$", "\xe2\x80\x93", true, true },
        { "\\p{Letter}cole", WINTER_1 "e" WINTER_2 "e" WINTER_3, true, false },
        { "\\p{Letter}cole", WINTER_1 "\xc3\xa9" WINTER_2 "\xc3\xa9" WINTER_3, true, false },
        { "\\p{Letter}cole",
          "L'\xc3\x89"
          "COLE",
          false, false },
        { "\\wcole", WINTER_1 "e" WINTER_2 "e" WINTER_3, true, false },
        { "\\wcole", WINTER_1 "\xc3\xa9" WINTER_2 "\xc3\xa9" WINTER_3, false, false },
        { "[a-z]cole", WINTER_1 "\xc3\xa9" WINTER_2 "\xc3\xa9" WINTER_3, false, false },
        { "[a-z]cole", WINTER_1 "e" WINTER_2 "e" WINTER_3, true, false },
        { "^\\d+$", "42", true, true },
        { "^\\d+$", "-%#", false, false },
        { "^\\d+$", "\xe0\xa7\xaa\xe0\xa7\xa8", false, false }, /* Bengali 42 */
        { "^\\p{digit}+$", "42", true, true },
        { "^\\p{digit}+$", "-%#", false, false },
        { "^\\p{digit}+$", "\xe0\xa7\xaa\xe0\xa7\xa8", true, true },
        { "^\xf0\x9f\x90\xb2*$", "", true, true },
        { "^\xf0\x9f\x90\xb2*$", "\xf0\x9f\x90\xb2\xf0\x9f\x90\xb2", true, true },
        { "^\xf0\x9f\x90\xb2*$", "\xf0\x9f\x90\x89", false, false },
        { "^\xf0\x9f\x90\xb2*$", "D", false, false },
    };

    (void)state;
    CHECK_EXAMPLES(list);
}

/* ---- the standard's corners ------------------------------------------------------------------------- */

static void test_the_corners_of_the_syntax(void **state)
{
    static const struct example list[] = {
        /* characters */
        { "\\u0041\\x42\\u{43}\\u{000044}", "ABCD", true, true },
        { "^\\ud83d\\udc32$", "\xf0\x9f\x90\xb2", true, true },
        { "^[\\ud83d\\udc32-\\ud83d\\udc34]$", "\xf0\x9f\x90\xb3", true, true },
        { "\\ud83d", "\xf0\x9f\x90\xb2", false, false }, /* half a pair is in no text */
        { "\\ud83d\\u0041", "A", false, false },
        { "^[^\\ud800-\\udfff]$", "\xf0\x9f\x90\xb2", true, true },
        { "^[\\0-\\ud7ff\\ue000-\\u{10ffff}]$", "\xee\x80\x80", true, true },
        { "^\\0\\t\\n\\v\\f\\r\\/\\-\\.$", "", false, false },
        { "^\\t\\n\\v\\f\\r\\/\\-\\.\\@\\_$", "\t\n\v\f\r/-.@_", true, true },
        { "^[\\b\\-\\]]+$", "\b-]", true, true },
        /* the dot and line ends */
        { "^.$", "\n", false, false },
        { "^.$", "\r", false, false },
        { "^.$", "\xe2\x80\xa8", false, false },
        { "^.$", "\xe2\x80\xa9", false, false },
        { "^.$", "\xe2\x80\xaa", true, true },
        { "^.$", "\x85", false, false }, /* not UTF-8 */
        { "^.$", "\xc2\x85", true, true },
        { "^.$", "\xf0\x9f\x90\xb2", true, true },
        { "a$", "a\n", false, false },
        { "^b", "a\nb", false, false },
        /* classes */
        { "^[]$", "", false, false },
        { "^[^]$", "\n", true, true },
        { "^[a-]$", "-", true, true },
        { "^[-a]$", "-", true, true },
        { "^[\\w-]+$", "a-b", true, true },
        { "^[\\w-.]+$", "a-.b", true, true },
        { "^[a-\\d]+$", "a-7", true, true },
        { "^[\\d\\s]+$", "1 2", true, true },
        { "^[^\\d\\s]+$", "1 2", false, false },
        { "^[^\\D]+$", "12", true, true },
        { "^[\\s\\S]$", "\xe2\x80\xa8", true, true },
        { "^[.*+?(){}|^$]+$", "(a", false, false },
        { "^[.*+?(){}|^$]+$", ".*+?(){}|^$", true, true },
        { "^[[]$", "[", true, true },
        { "^[^a^]$", "^", false, false },
        { "^\\P{L}\\p{Lu}$", "1A", true, true },
        { "^[\\p{Lu}\\p{Nd}]+$",
          "\xc3\x89"
          "1",
          true, true },
        { "^[^\\P{Lu}]$", "\xc3\x89", true, true },
        { "^\\p{General_Category=Uppercase_Letter}\\p{gc=Ll}$", "Aa", true, true },
        { "^\\p{Any}\\p{ASCII}\\p{Assigned}\\p{ASCII_Hex_Digit}$",
          "\xc3\xa9"
          "a1f",
          true, true },
        { "^\\p{Script=Greek}\\p{sc=Grek}$", "\xce\xa9\xcf\x89", true, true },
        { "^\\p{Script=Greek}$", "a", false, false },
        { "^\\p{Script=Han}+$", "\xe6\xbc\xa2\xe5\xad\x97", true, true },
        { "^\\p{Script=Katakana}$", "\xe3\x83\xbc", false, false }, /* the long mark is Common, */
        { "^\\p{scx=Katakana}$", "\xe3\x83\xbc", true, true },      /* and used in Katakana */
        { "^\\P{Script=Latin}$", "\xf0\x9f\x90\xb2", true, true },
        { "^\\p{Emoji_Presentation}$", "\xf0\x9f\x90\xb2", true, true },
        { "^\\p{Emoji_Presentation}$", "1", false, false },
        { "^\\p{Uppercase}\\p{Lower}\\p{White_Space}\\p{Alphabetic}$", "Aa\xe3\x80\x80\xe2\x85\xa0", true,
          true },
        { "^\\p{ID_Start}\\p{ID_Continue}*$", "x\xcc\x81_1", true, true },
        { "^\\p{L}\\p{L}[\\p{L}\\P{L}]$", "abc", true, true },
        /* braces that are not a quantifier are themselves */
        { "^{a}$", "{a}", true, true },
        { "^a{,2}$", "a{,2}", true, true },
        { "^a{x}$", "a{x}", true, true },
        { "^]$", "]", true, true },
        /* quantifiers */
        { "^a{2}$", "aa", true, true },
        { "^a{2,}$", "aaaa", true, true },
        { "^a{2,}$", "a", false, false },
        { "^a{2,3}?$", "aaaa", false, false },
        { "^a{0}$", "", true, true },
        { "^(a{0,1}){2}b+?c*?d??$", "aabbccd", true, true },
        { "^(?:)*$", "", true, true },
        { "^(a*)*$", "aaa", true, true },
        { "^(|a)+$", "aa", true, true },
        /* groups */
        { "^(?<year>\\d{4})-(?:\\d\\d)$", "2024-05", true, true },
        { "a|b|", "c", true, false },
        { "^a|b$", "ac", true, false },
        { "^a|b$", "cb", true, false },
        { "^a|b$", "cbc", false, false },
        { "^(foo|bar)$", "foobar", false, false },
        { "^(foo|bar)$", "bar", true, true },
        { "(^a|b$)", "xa", false, false },
        { "(^a|b$)", "xb", true, false },
        { "(^a|b$)c", "ac", true, true },
        { "(^a|b$)c", "bc", false, false },
        { "(^|,)x(,|$)", "a,x", true, false },
        { "(^|,)x(,|$)", "ax", false, false },
        { "(^|,)x(,|$)", "x", true, true },
        { "a^", "a", false, false },
        { "^^a$$", "a", true, true },
        { "(a|^)*b", "aab", true, true },
        { "$^", "", true, true },
        { "$^", "a", false, false },
        { "", "anything", true, false },
        /* borders */
        { "\\bcat\\b", "a cat.", true, false },
        { "\\bcat\\b", "concat", false, false },
        { "\\bcat\\b", "cat", true, true },
        { "\\Bcat\\B", "concats", true, false },
        { "\\Bcat\\B", "cat", false, false },
        { "\\bcat\\b",
          "\xc3\xa9"
          "cat\xc3\xa9",
          true, false }, /* word characters are ASCII */
        { "^\\b", "", false, false },
        { "^\\B$", "", true, true },
        { "a\\b\\b.", "a-", true, true },
        { "a\\b\\B.", "a-", false, false },
        { "^(\\b[a-z]+\\b ?)+$", "two words", true, true },
        { "\\b", "--", false, false },
    };
    struct dfa *dfa = pattern("^\\0[\\0]$", true);

    (void)state;
    CHECK(dfa_matches(dfa, span_of("\0\0", 2)));
    dfa_free(dfa);
    CHECK_EXAMPLES(list);
}

/* What cannot be had must be said, with its place: never another meaning. */
static void test_what_is_not_supported_is_refused_by_name(void **state)
{
    static const struct {
        const char *pattern, *words;
    } list[] = {
        { "ab(?=c)", "byte 2: look-ahead (?=...)" },
        { "(?!c)", "byte 0: look-ahead (?!...)" },
        { "x(?<=c)", "byte 1: look-behind (?<=...)" },
        { "x(?<!c)", "byte 1: look-behind (?<!...)" },
        { "(a)\\1", "byte 3: back-references" },
        { "(?<n>a)\\k<n>", "byte 7: back-references" },
        { "(?i:a)", "byte 0: this kind of group" },
        { "(?>a)", "byte 0: this kind of group" },
        { "(?<>a)", "expected a name" },
        { "(?<1a>a)", "expected a name" },
        { "\\a", "byte 0: \\a is not an escape" },
        { "x\\Z", "byte 1: \\Z is not an escape" },
        { "\\A", "\\A is not an escape" },
        { "\\", "byte 0: a backslash at the end" },
        { "[\\", "a backslash at the end" },
        { "\\c1", "a letter after \\c" },
        { "\\x1", "\\xHH" },
        { "\\u12", "\\uXXXX" },
        { "\\u{}", "\\u{X...}" },
        { "\\u{12", "\\u{X...}" },
        { "\\u{110000}", "above U+10FFFF" },
        { "\\u{fffffffffff}", "above U+10FFFF" },
        { "\\01", "octal" },
        { "[\\1]", "octal" },
        { "[\\B]", "\\B cannot stand" },
        { "\\\xc3\xa9", "needs no backslash" },
        { "\\p{Klingon}", "byte 0: \\p{Klingon} is not known here" },
        { "\\p{L=Lu}", "\\p{L=Lu} is not known here" },
        { "\\p{Greek}", "is not known here" }, /* a script needs Script= */
        { "\\p{lu}", "is not known here" },
        { "\\p{Script=Nowhere}", "is not known here" },
        { "\\p{Script=Zzzz}", "is not known here" },
        { "\\p{Script=}", "is not known here" },
        { "\\p{=L}", "is not known here" },
        { "\\pL", "expected \\p{Name}" },
        { "\\p{", "expected \\p{Name}" },
        { "\\p{}", "expected \\p{Name}" },
        { "\\p{^L}", "expected \\p{Name}" },
        { "*a", "byte 0: there is nothing to repeat" },
        { "a|*", "byte 2: there is nothing to repeat" },
        { "a**", "byte 2: there is nothing to repeat" },
        { "a{2}{3}", "byte 4: there is nothing to repeat" },
        { "({2})", "byte 1: there is nothing to repeat" },
        { "^*", "an assertion cannot be repeated" },
        { "\\b+", "an assertion cannot be repeated" },
        { "a{3,2}", "byte 1: the numbers in {n,m}" },
        { "[b-a]", "byte 1: the range is in the wrong order" },
        { "a[bc", "byte 1: this class has no end" },
        { "[", "byte 0: this class has no end" },
        { "a(b", "byte 1: this group has no end" },
        { "(", "this group has no end" },
        { "(?", "this kind of group" },
        { "a)b", "byte 1: this ) closes nothing" },
        { "a\xff", "not UTF-8" },
        { "\xed\xa0\x80", "not UTF-8" },
    };
    struct dfa *dfa = NULL;
    struct err err;
    char deep[2 * DFA_DEPTH_MAX + 8] = "", *much = malloc(DFA_PATTERN_MAX + 1);

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        bool ok = dfa_pattern(&dfa, span_text(list[i].pattern), true, &err);

        if (ok || !strstr(err.text, list[i].words))
            print_message("%s: %s\n", list[i].pattern, ok ? "taken" : err.text);
        CHECK(!ok && err.code == ERR_INPUT && strstr(err.text, list[i].words));
    }
    /* 17 different properties are one too many, 16 many times are not. */
    CHECK(!dfa_pattern(
              &dfa,
              span_text("\\p{Lu}\\p{Ll}\\p{Lt}\\p{Lm}\\p{Lo}\\p{Mn}\\p{Mc}\\p{Me}\\p{Nd}\\p{Nl}\\p{No}\\p{Pc}"
                        "\\p{Pd}\\p{Ps}\\p{Pe}\\p{Pi}\\p{Pf}"),
              false, &err) &&
          err.code == ERR_LIMIT && strstr(err.text, "byte 96: more than 16 different"));
    for (int i = 0; i < 1000 / 8; i++)
        memcpy(much + 8 * (size_t)i, "[\\p{L}]", 8);
    CHECK(dfa_pattern(&dfa, span_of(much, 1000), false, &err));
    dfa_free(dfa);
    memset(deep, '(', DFA_DEPTH_MAX);
    memset(deep + DFA_DEPTH_MAX, ')', DFA_DEPTH_MAX);
    CHECK(dfa_pattern(&dfa, span_text(deep), true, &err));
    dfa_free(dfa);
    memset(deep, '(', DFA_DEPTH_MAX + 1);
    memset(deep + DFA_DEPTH_MAX + 1, ')', DFA_DEPTH_MAX + 1);
    CHECK(!dfa_pattern(&dfa, span_text(deep), true, &err) && err.code == ERR_LIMIT &&
          strstr(err.text, "64 deep"));
    memset(much, 'a', DFA_PATTERN_MAX + 1);
    CHECK(dfa_pattern(&dfa, span_of(much, DFA_PATTERN_MAX), false, &err) &&
          dfa->count == DFA_PATTERN_MAX + 2);
    dfa_free(dfa);
    CHECK(!dfa_pattern(&dfa, span_of(much, DFA_PATTERN_MAX + 1), false, &err) && err.code == ERR_LIMIT);
    free(much);
}

/* ---- against PCRE2 ---------------------------------------------------------------------------------- */

static void random_pattern(char *out, size_t room, int depth)
{
    static const char *const atoms[] = { "a",      "b",      "1",      "_",     "-",   "\xc3\xa9",
                                         "[ab]",   "[^a]",   "[a-c1]", "\\d",   "\\w", "\\W",
                                         "\\D",    ".",      "^",      "$",     "\\b", "\\B",
                                         "[^\\w]", "[\\d_]", "\\x61",  "[^b-z]" };
    static const char *const quantifiers[] = { "",    "",      "",     "",   "*",  "+",  "?",
                                               "{2}", "{0,2}", "{1,}", "*?", "+?", "??", "{1,2}?" };
    uint32_t parts = 1 + random_below(4);

    out[0] = '\0';
    for (uint32_t i = 0; i < parts; i++) {
        char part[512];
        bool assertion = false;

        if (strlen(out) > room / 2)
            break;
        if (depth > 0 && random_below(3) == 0) {
            char inner[400];

            random_pattern(inner, sizeof inner, depth - 1);
            snprintf(part, sizeof part, "%s%s)", random_below(2) ? "(" : "(?:", inner);
        } else {
            snprintf(part, sizeof part, "%s", atoms[random_below(sizeof atoms / sizeof atoms[0])]);
            assertion = strcmp(part, "^") == 0 || strcmp(part, "$") == 0 || strcmp(part, "\\b") == 0 ||
                        strcmp(part, "\\B") == 0;
        }
        if (strlen(out) + strlen(part) + 12 > room)
            break;
        strcat(out, part);
        if (!assertion)
            strcat(out, quantifiers[random_below(sizeof quantifiers / sizeof quantifiers[0])]);
        if (random_below(6) == 0)
            strcat(out, "|");
    }
}

static void test_random_patterns_agree_with_pcre2(void **state)
{
    static const char *const piece[] = { "a", "b", "c", "1", "_", "-", "\xc3\xa9", "ab", "a1" };
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    int compared = 0, matched = 0;

    (void)state;
    pcre2_set_match_limit(context, 20000); /* it goes back and forth; this is not its test */
    for (int round = 0; round < 900; round++) {
        char source[1024];
        pcre2_code *code[2];
        struct dfa *dfa[2];
        pcre2_match_data *data;
        PCRE2_SIZE at;
        int error;

        random_pattern(source, sizeof source, 3);
        for (int whole = 0; whole < 2; whole++) {
            code[whole] = pcre2_compile((PCRE2_SPTR)source, PCRE2_ZERO_TERMINATED,
                                        PCRE2_UTF | PCRE2_DOLLAR_ENDONLY |
                                            (whole ? PCRE2_ANCHORED | PCRE2_ENDANCHORED : 0),
                                        &error, &at, NULL);
            CHECK(code[whole]);
            dfa[whole] = pattern(source, !whole);
            if (round % 10 == 0)
                CHECK(dfa_is_canonical(dfa[whole]));
        }
        data = pcre2_match_data_create_from_pattern(code[0], NULL);
        for (int n = 0; n < 40; n++) {
            char text[64] = "";
            uint32_t pieces = random_below(8);

            for (uint32_t i = 0; i < pieces; i++)
                strcat(text, piece[random_below(sizeof piece / sizeof piece[0])]);
            for (int whole = 0; whole < 2; whole++) {
                int rc = pcre2_match(code[whole], (PCRE2_SPTR)text, strlen(text), 0, 0, data, context);

                if (rc < -1) /* it gave up */
                    continue;
                if ((rc >= 0) != matches(dfa[whole], text))
                    print_message("%s on %s (%s)\n", source, text, whole ? "whole" : "search");
                CHECK((rc >= 0) == matches(dfa[whole], text));
                compared++;
                matched += rc >= 0;
            }
        }
        for (int whole = 0; whole < 2; whole++) {
            pcre2_code_free(code[whole]);
            dfa_free(dfa[whole]);
        }
        pcre2_match_data_free(data);
    }
    pcre2_match_context_free(context);
    CHECK(compared > 60000 && matched > compared / 10 && matched < compared * 9 / 10);
}

/* ---- against utf8proc ------------------------------------------------------------------------------- */

static void test_categories_hold_for_every_code_point(void **state)
{
    static const struct {
        const char *pattern, *categories;
    } list[] = {
        { "\\p{L}", "L" },   { "\\p{Lu}", "Lu" }, { "\\p{Decimal_Number}", "Nd" }, { "\\p{Cn}", "Cn" },
        { "\\p{Co}", "Co" }, { "\\P{M}", "!M" },  { "[^\\p{P}]", "!P" },           { "\\p{Cf}", "Cf" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct dfa *dfa = pattern(list[i].pattern, false);
        bool negative = list[i].categories[0] == '!';
        const char *category = list[i].categories + negative;

        for (uint32_t c = 0; c < 0x110000; c++) {
            uint8_t bytes[4];
            size_t size =
                c >= 0xd800 && c < 0xe000 ? 0 : (size_t)utf8proc_encode_char((utf8proc_int32_t)c, bytes);

            if (size > 0 && dfa_matches(dfa, span_of(bytes, size)) !=
                                ((strncmp(utf8proc_category_string((utf8proc_int32_t)c), category,
                                          strlen(category)) == 0) != negative))
                fail_msg("%s and U+%04X", list[i].pattern, c);
        }
        dfa_free(dfa);
    }
}

/* ---- one language, one automaton -------------------------------------------------------------------- */

static void test_equal_patterns_are_equal_automata(void **state)
{
    static const char *const same[][2] = {
        { "a+", "aa*" },
        { "(a|b)*", "[ab]*" },
        { "a{2,4}", "aa(a(a)?)?" },
        { "(a*)*", "a*" },
        { "[\\s\\S]", "[^]" },
        { "\\d", "[0-9]" },
        { "\\W", "[^A-Za-z0-9_]" },
        { ".*", "(.+)?" },
        { "^a$", "a$" },
        { "\\b[a-z]", "[a-z]" },
        { "[^\\ud800-\\udfff]", "[^]" },
        { "a??", "a?" },
        { "(ab|ac)", "a[bc]" },
        { "(?:(a|aa)*){50}", "a*" },
        { "$", "" },
        { "\\p{Nd}\\b", "[0-9]" },
        { "[\\0-\\ud7ff\\ue000-\\u{10ffff}]", "[^]" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        struct dfa *a = pattern(same[i][0], false), *b = pattern(same[i][1], false);

        if (!dfa_equal(a, b))
            print_message("%s and %s\n", same[i][0], same[i][1]);
        CHECK(dfa_equal(a, b));
        dfa_free(a);
        dfa_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns_mean_what_the_suite_says),
        cmocka_unit_test(test_the_corners_of_the_syntax),
        cmocka_unit_test(test_what_is_not_supported_is_refused_by_name),
        cmocka_unit_test(test_random_patterns_agree_with_pcre2),
        cmocka_unit_test(test_categories_hold_for_every_code_point),
        cmocka_unit_test(test_equal_patterns_are_equal_automata),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
