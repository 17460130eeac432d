/* Ranges of numbers against exact integers of 128 bits. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "tests/unit/dfa_canonical.h"

static uint64_t seed = 23;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static struct dfa *number(const char *low, bool low_open, const char *high, bool high_open)
{
    const struct dfa_range range = { .low = low, .high = high, .low_open = low_open, .high_open = high_open };
    struct dfa *dfa = NULL;

    CHECK(dfa_number(&dfa, &range, NULL));
    return dfa;
}

static struct dfa *integer(const char *low, bool low_open, const char *high, bool high_open,
                           uint32_t multiple)
{
    const struct dfa_range range = { .low = low, .high = high, .low_open = low_open, .high_open = high_open };
    struct dfa *dfa = NULL;
    struct err err = { 0 };

    if (!dfa_integer(&dfa, &range, multiple, &err))
        print_message("%s %s %u: %s\n", low ? low : "", high ? high : "", multiple, err.text);
    CHECK(dfa);
    return dfa;
}

static bool matches(const struct dfa *dfa, const char *text)
{
    return dfa_matches(dfa, span_text(text));
}

/* ---- the spelling ----------------------------------------------------------------------------------- */

static void test_a_number_has_no_exponent_no_leading_zero_and_no_negative_zero(void **state)
{
    static const char *const right[] = { "0",
                                         "1",
                                         "-1",
                                         "10",
                                         "0.5",
                                         "-0.5",
                                         "1.50",
                                         "0.0",
                                         "0.00",
                                         "-0.01",
                                         "999999999999999999",
                                         "-999999999999999999.99999999999999999" };
    static const char *const wrong[] = { "",
                                         "-",
                                         "+1",
                                         "01",
                                         "-01",
                                         "00",
                                         "-0",
                                         "-0.0",
                                         "-0.000",
                                         ".5",
                                         "1.",
                                         "-.5",
                                         "1e3",
                                         "1E3",
                                         "1.5e1",
                                         "0x1",
                                         "1,5",
                                         " 1",
                                         "1 ",
                                         "1.5.5",
                                         "--1",
                                         "1-",
                                         "1000000000000000000",
                                         "0.123456789012345678" };
    struct dfa *dfa = number(NULL, false, NULL, false), *also;

    (void)state;
    CHECK(dfa_is_canonical(dfa));
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++)
        CHECK(matches(dfa, right[i]));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK(!matches(dfa, wrong[i]));
    dfa_free(dfa);
    dfa = integer(NULL, false, NULL, false, 0);
    CHECK(dfa_pattern(&also, span_text("0|-?[1-9]\\d{0,17}"), false, NULL));
    CHECK(dfa_equal(dfa, also) && dfa_is_canonical(dfa));
    dfa_free(also);
    also = integer(NULL, false, NULL, false, 1);
    CHECK(dfa_equal(dfa, also));
    dfa_free(also);
    dfa_free(dfa);
}

/* ---- against exact arithmetic ----------------------------------------------------------------------- */

enum { SCALE_DIGITS = 17 };

/* A decimal without exponent times 10^17. */
static __int128 exact(const char *text)
{
    bool negative = *text == '-';
    __int128 value = 0;
    int fraction = -1;

    for (text += negative; *text; text++)
        if (*text == '.') {
            fraction = 0;
        } else {
            value = value * 10 + (*text - '0');
            fraction += fraction >= 0;
        }
    for (int i = fraction < 0 ? 0 : fraction; i < SCALE_DIGITS; i++)
        value *= 10;
    return negative ? -value : value;
}

static void random_digits(char *out, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) /* often 0 and 9: there the carries are */
        out[i] = "0099123456785"[random_below(13)];
    out[count] = '\0';
}

/* In the one spelling; "-0" may come out. */
static void random_decimal(char *out, bool fraction)
{
    char digits[20];
    uint32_t whole = random_below(3) == 0 ? 1 + random_below(18) : 1 + random_below(3);

    out[0] = '\0';
    if (random_below(2))
        strcat(out, "-");
    random_digits(digits, whole);
    while (digits[0] == '0' && digits[1] != '\0')
        memmove(digits, digits + 1, strlen(digits));
    strcat(out, digits);
    if (fraction && random_below(3) != 0) {
        random_digits(digits, random_below(4) == 0 ? 1 + random_below(17) : 1 + random_below(2));
        strcat(out, ".");
        strcat(out, digits);
    }
}

/* The neighbourhood of a bound is where errors live: the same digits, some changed, cut or added. */
static void near_decimal(char *out, const char *bound, bool fraction)
{
    size_t size;

    strcpy(out, bound);
    size = strlen(out);
    for (uint32_t i = random_below(3); i > 0; i--) {
        size_t at = random_below((uint32_t)size);

        if (out[at] >= '0' && out[at] <= '9')
            out[at] = (char)('0' + (out[at] - '0' + 1 + 8 * random_below(2)) % 10);
    }
    if (random_below(4) == 0 && size > 1)
        out[size - 1] = '\0';
    else if (random_below(3) == 0 && fraction && strchr(out, '.') && size < 34)
        strcat(out, random_below(2) ? "0" : "1");
    else if (random_below(4) == 0 && out[0] == '-')
        memmove(out, out + 1, size);
}

/* As dfa.h says. */
static bool is_spelling(const char *text, bool fraction)
{
    const char *p = text + (*text == '-'), *point = strchr(p, '.');
    size_t whole = point ? (size_t)(point - p) : strlen(p), decimals = point ? strlen(point + 1) : 0;

    return whole > 0 && whole <= 18 && (whole == 1 || *p != '0') && strspn(p, "0123456789") == whole &&
           (!point ||
            (fraction && decimals > 0 && decimals <= 17 && strspn(point + 1, "0123456789") == decimals)) &&
           !(*text == '-' && exact(text) == 0);
}

static void check_range(bool fraction)
{
    for (int round = 0; round < 900; round++) {
        char low[48], high[48], text[64];
        bool has_low = random_below(4) != 0, has_high = random_below(4) != 0, low_open = random_below(2),
             high_open = random_below(2);
        struct dfa *dfa;

        random_decimal(low, true);
        random_decimal(high, true);
        if (random_below(3) == 0)
            near_decimal(high, low, true);
        if (exact(low) > exact(high) && random_below(8) != 0) {
            char swap[48];

            strcpy(swap, low);
            strcpy(low, high);
            strcpy(high, swap);
        }
        if (strspn(low, "-.") == strlen(low) || strspn(high, "-.") == strlen(high) ||
            low[strlen(low) - 1] == '.' || high[strlen(high) - 1] == '.' || low[low[0] == '-'] == '.' ||
            high[high[0] == '-'] == '.' || (strchr(low, '.') && strlen(strchr(low, '.')) > 18) ||
            (strchr(high, '.') && strlen(strchr(high, '.')) > 18))
            continue; /* what near_decimal made is no number, or finer than the arithmetic here */
        dfa = fraction ? number(has_low ? low : NULL, low_open, has_high ? high : NULL, high_open)
                       : integer(has_low ? low : NULL, low_open, has_high ? high : NULL, high_open, 0);
        if (round % 10 == 0)
            CHECK(dfa_is_canonical(dfa));
        for (int n = 0; n < 60; n++) {
            bool in;

            if (random_below(3) == 0)
                random_decimal(text, fraction);
            else
                near_decimal(text, random_below(2) ? low : high, fraction);
            in = is_spelling(text, fraction) &&
                 (!has_low || (low_open ? exact(text) > exact(low) : exact(text) >= exact(low))) &&
                 (!has_high || (high_open ? exact(text) < exact(high) : exact(text) <= exact(high)));
            if (matches(dfa, text) != in)
                print_message("%s in %c%s, %s%c\n", text, low_open ? '(' : '[', has_low ? low : "",
                              has_high ? high : "", high_open ? ')' : ']');
            CHECK(matches(dfa, text) == in);
        }
        dfa_free(dfa);
    }
}

static void test_numbers_keep_to_their_range(void **state)
{
    (void)state;
    check_range(true);
}

static void test_integers_keep_to_their_range(void **state)
{
    (void)state;
    check_range(false);
}

static void test_small_integers_are_all_there(void **state)
{
    (void)state;
    for (int low = -120; low <= 120; low += 40)
        for (int high = low - 3; high <= 1100; high += 163)
            for (uint32_t multiple = 0; multiple <= 12; multiple += 1 + multiple / 4) {
                char from[16], to[16], text[16];
                struct dfa *dfa;
                bool any = false;

                snprintf(from, sizeof from, "%d", low);
                snprintf(to, sizeof to, "%d", high);
                dfa = integer(from, false, to, false, multiple);
                for (int i = -150; i <= 1200; i++) {
                    bool in = i >= low && i <= high && (multiple < 2 || i % (int)multiple == 0);

                    snprintf(text, sizeof text, "%d", i);
                    CHECK(matches(dfa, text) == in);
                    any = any || in;
                }
                CHECK(dfa_is_empty(dfa) == !any);
                dfa_free(dfa);
            }
}

static void test_multiples_up_to_eighteen_digits(void **state)
{
    static const uint32_t list[] = { 2,   3,   5,   7,   10,   12,   60,   100,  144,
                                     365, 499, 512, 997, 1000, 3600, 4096, 8000, 10000 };

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        int64_t m = list[i];
        struct dfa *dfa = integer(NULL, false, "7e17", true, list[i]);
        char text[32];

        for (int n = 0; n < 500; n++) {
            int64_t value =
                ((int64_t)random_below(1u << 30) << 30 | random_below(1u << 30)) % 1000000000000000000;

            if (n % 4 == 0)
                value %= 100000;
            if (n % 2)
                value = value / m * m;
            if (n % 3 == 0)
                value = -value;
            snprintf(text, sizeof text, "%lld", (long long)value);
            CHECK(matches(dfa, text) == (value % m == 0 && value < 700000000000000000));
        }
        CHECK(matches(dfa, "0") && !matches(dfa, "-0") && !matches(dfa, "00"));
        dfa_free(dfa);
    }
}

/* The bound that the manual gives: multiples up to 4096, whatever the range, and the round ones above. */
static void test_multiples_are_bounded(void **state)
{
    static const struct dfa_range ranges[] = { { 0 },
                                               { .low = "-5.5e9", .high = "7e17" },
                                               { .low = "5e9", .high = "5e17" } };
    struct dfa *dfa;
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        CHECK(dfa_integer(&dfa, &ranges[i], 4093, &err)); /* a prime: no two remainders are alike */
        dfa_free(dfa);
    }
    CHECK(!dfa_integer(&dfa, &ranges[0], 9973, &err) && err.code == ERR_LIMIT);
    CHECK(!dfa_integer(&dfa, &ranges[0], DFA_MULTIPLE_MAX + 1, &err) && err.code == ERR_LIMIT);
}

/* ---- bounds as they are written --------------------------------------------------------------------- */

static void test_bounds_may_be_long_or_have_exponents(void **state)
{
    static const struct {
        const char *low, *high, *in, *out;
    } list[] = {
        { "1e3", NULL, "1000", "999.99999999999999999" },
        { "1E+3", NULL, "1000.0", "999" },
        { NULL, "-1E-2", "-0.01", "-0.00999999999999999" },
        { "-0.5", "0.5e0", "0.50", "0.51" },
        { "-0", "0", "0.000", "0.1" },
        { "-0.0e5", "0e-5", "0", "-1" },
        { "0.000000000000000001e18", "1", "1", "0.9" },
        { "123456789012345678901e-3", NULL, "123456789012345678.901", "123456789012345678.9009" },
        { NULL, "1e18", "999999999999999999.9", "1000000000000000000" },
        { NULL, "1e1000000000", "999999999999999999", "-0" },
        { "-1e1000000000", NULL, "-999999999999999999", "-0" },
        { NULL, "1e-1000000000", "0", "0.00000000000000001" },
        { "1e-1000000000", NULL, "0.00000000000000001", "0" },
        { "-1e-30", "1e-30", "0", "0.00000000000000001" },
        { "0.1000000000000000055511151231257827", NULL, "0.10000000000000001",
          "0.1" }, /* the double nearest to 0.1 */
        { NULL, "0.1000000000000000055511151231257827", "0.10000000000000000", "0.10000000000000001" },
        { "9007199254740993", "9007199254740993", "9007199254740993", "9007199254740992" }, /* 2^53 + 1 */
        { "0010", "0020", "15", "9" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct dfa *dfa = number(list[i].low, false, list[i].high, false);

        if (!matches(dfa, list[i].in) || matches(dfa, list[i].out))
            print_message("%zu\n", i);
        CHECK(matches(dfa, list[i].in) && !matches(dfa, list[i].out));
        dfa_free(dfa);
    }
}

static void test_a_range_that_holds_nothing_is_empty(void **state)
{
    static const struct {
        const char *low, *high;
        bool open;
    } list[] = { { "2", "1", false },       { "1", "1", true },         { "0.1", "0.9", false },
                 { "1e18", NULL, false },   { NULL, "-1e18", false },   { "0", "0", true },
                 { "-0.9", "-0.1", false }, { "1e-18", "2e-18", false } };

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct dfa *dfa = integer(list[i].low, list[i].open, list[i].high, list[i].open, 0);

        CHECK(dfa_is_empty(dfa));
        dfa_free(dfa);
    }
}

static void test_what_is_no_number_is_refused_as_a_bound(void **state)
{
    static const char *const wrong[] = { "",     "-",  "abc", "1e",  "1e+", "1.",  ".5",      "1.5.5",
                                         "0x10", "1 ", " 1",  "--1", "+1",  "NaN", "Infinity" };
    char *text = malloc(5001);
    struct dfa *dfa;
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK(!dfa_number(&dfa, &(struct dfa_range){ .low = wrong[i] }, &err) && err.code == ERR_INPUT &&
              strstr(err.text, "the lower bound: expected a decimal number"));
        CHECK(!dfa_integer(&dfa, &(struct dfa_range){ .high = wrong[i] }, 0, &err) && err.code == ERR_INPUT &&
              strstr(err.text, "the upper bound"));
    }
    memset(text, '1', 5000);
    text[5000] = '\0';
    CHECK(!dfa_number(&dfa, &(struct dfa_range){ .low = text }, &err) && err.code == ERR_LIMIT);
    text[4000] = '\0';
    CHECK(dfa_number(&dfa, &(struct dfa_range){ .high = text }, &err));
    dfa_free(dfa);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_number_has_no_exponent_no_leading_zero_and_no_negative_zero),
        cmocka_unit_test(test_numbers_keep_to_their_range),
        cmocka_unit_test(test_integers_keep_to_their_range),
        cmocka_unit_test(test_small_integers_are_all_there),
        cmocka_unit_test(test_multiples_up_to_eighteen_digits),
        cmocka_unit_test(test_multiples_are_bounded),
        cmocka_unit_test(test_bounds_may_be_long_or_have_exponents),
        cmocka_unit_test(test_a_range_that_holds_nothing_is_empty),
        cmocka_unit_test(test_what_is_no_number_is_refused_as_a_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
