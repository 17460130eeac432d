/* Sets of code points, and those that have names. */

#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "worker/model/dfa_pattern.h"

enum { SURROGATE_FIRST = 0xd800, SURROGATE_LAST = 0xdfff };

bool points_add(struct points *points, uint32_t low, uint32_t high, struct err *err)
{
    if (points->count >= PATTERN_RANGES_MAX)
        return dfa_too_large(err);
    if (!dfa_grow((void **)&points->range, &points->capacity, points->count + 1, sizeof *points->range))
        return dfa_no_memory(err);
    points->range[points->count++] = (struct points_range){ low, high };
    return true;
}

bool points_add_all(struct points *points, const struct points *other, struct err *err)
{
    for (size_t i = 0; i < other->count; i++)
        if (!points_add(points, other->range[i].low, other->range[i].high, err))
            return false;
    return true;
}

static int by_low(const void *a, const void *b)
{
    const struct points_range *x = a, *y = b;

    return (x->low > y->low) - (x->low < y->low);
}

/* Surrogates are in no text, so whether a set has them is the same; they go where a range begins or ends with them, and stay
 * within one that goes over them all, so that equal sets are written equally. */
void points_settle(struct points *points)
{
    size_t kept = 0;

    if (points->count == 0)
        return;
    qsort(points->range, points->count, sizeof *points->range, by_low);
    for (size_t i = 0; i < points->count; i++) {
        struct points_range range = points->range[i];

        /* The gap belongs to neighbours on both sides, so that equal sets are written equally. */
        if (range.low >= SURROGATE_FIRST && range.low <= SURROGATE_LAST)
            range.low = SURROGATE_LAST + 1;
        if (range.high >= SURROGATE_FIRST && range.high <= SURROGATE_LAST)
            range.high = SURROGATE_FIRST - 1;
        if (range.low > range.high)
            continue;
        if (kept > 0 && (range.low <= points->range[kept - 1].high + 1 ||
                         (points->range[kept - 1].high == SURROGATE_FIRST - 1 && range.low == SURROGATE_LAST + 1))) {
            if (range.high > points->range[kept - 1].high)
                points->range[kept - 1].high = range.high;
        } else {
            points->range[kept++] = range;
        }
    }
    points->count = kept;
}

bool points_negate(struct points *points, struct err *err)
{
    struct points other = { 0 };
    uint32_t from = 0;

    for (size_t i = 0; i < points->count; i++) {
        if (points->range[i].low > from && !points_add(&other, from, points->range[i].low - 1, err)) {
            points_fini(&other);
            return false;
        }
        from = points->range[i].high + 1;
    }
    if (from < DFA_CODE_POINTS && !points_add(&other, from, DFA_CODE_POINTS - 1, err)) {
        points_fini(&other);
        return false;
    }
    points_settle(&other);
    points_fini(points);
    *points = other;
    return true;
}

void points_fini(struct points *points)
{
    free(points->range);
    *points = (struct points){ 0 };
}

/* ---- classes by letter ------------------------------------------------------------------------------------- */

static const struct points_range digits[] = { { '0', '9' } };
static const struct points_range word[] = { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } };
/* WhiteSpace and LineTerminator of ECMA-262: the controls, NBSP, the BOM and category Zs. */
static const struct points_range space[] = {
    { 0x09, 0x0d },     { 0x20, 0x20 },     { 0xa0, 0xa0 },     { 0x1680, 0x1680 }, { 0x2000, 0x200a },
    { 0x2028, 0x2029 }, { 0x202f, 0x202f }, { 0x205f, 0x205f }, { 0x3000, 0x3000 }, { 0xfeff, 0xfeff },
};
static const struct points_range line_end[] = { { 0x0a, 0x0a }, { 0x0d, 0x0d }, { 0x2028, 0x2029 } };

bool points_class(struct points *points, char letter, struct err *err)
{
    bool negative = letter == 'D' || letter == 'W' || letter == 'S' || letter == '.';
    const struct points_range *range = space;
    size_t count = sizeof space / sizeof space[0];

    if (letter == 'd' || letter == 'D') {
        range = digits;
        count = sizeof digits / sizeof digits[0];
    } else if (letter == 'w' || letter == 'W') {
        range = word;
        count = sizeof word / sizeof word[0];
    } else if (letter == '.') {
        range = line_end;
        count = sizeof line_end / sizeof line_end[0];
    }
    for (size_t i = 0; i < count; i++)
        if (!points_add(points, range[i].low, range[i].high, err))
            return false;
    points_settle(points);
    return !negative || points_negate(points, err);
}

/* ---- properties -------------------------------------------------------------------------------------------- */

#define C(name) (1u << UTF8PROC_CATEGORY_##name)

static const struct {
    const char *name, *long_name, *third_name;
    uint32_t categories;
} category[] = {
    { "L", "Letter", NULL, C(LU) | C(LL) | C(LT) | C(LM) | C(LO) },
    { "LC", "Cased_Letter", NULL, C(LU) | C(LL) | C(LT) },
    { "Lu", "Uppercase_Letter", NULL, C(LU) },
    { "Ll", "Lowercase_Letter", NULL, C(LL) },
    { "Lt", "Titlecase_Letter", NULL, C(LT) },
    { "Lm", "Modifier_Letter", NULL, C(LM) },
    { "Lo", "Other_Letter", NULL, C(LO) },
    { "M", "Mark", "Combining_Mark", C(MN) | C(MC) | C(ME) },
    { "Mn", "Nonspacing_Mark", NULL, C(MN) },
    { "Mc", "Spacing_Mark", NULL, C(MC) },
    { "Me", "Enclosing_Mark", NULL, C(ME) },
    { "N", "Number", NULL, C(ND) | C(NL) | C(NO) },
    { "Nd", "Decimal_Number", "digit", C(ND) },
    { "Nl", "Letter_Number", NULL, C(NL) },
    { "No", "Other_Number", NULL, C(NO) },
    { "P", "Punctuation", "punct", C(PC) | C(PD) | C(PS) | C(PE) | C(PI) | C(PF) | C(PO) },
    { "Pc", "Connector_Punctuation", NULL, C(PC) },
    { "Pd", "Dash_Punctuation", NULL, C(PD) },
    { "Ps", "Open_Punctuation", NULL, C(PS) },
    { "Pe", "Close_Punctuation", NULL, C(PE) },
    { "Pi", "Initial_Punctuation", NULL, C(PI) },
    { "Pf", "Final_Punctuation", NULL, C(PF) },
    { "Po", "Other_Punctuation", NULL, C(PO) },
    { "S", "Symbol", NULL, C(SM) | C(SC) | C(SK) | C(SO) },
    { "Sm", "Math_Symbol", NULL, C(SM) },
    { "Sc", "Currency_Symbol", NULL, C(SC) },
    { "Sk", "Modifier_Symbol", NULL, C(SK) },
    { "So", "Other_Symbol", NULL, C(SO) },
    { "Z", "Separator", NULL, C(ZS) | C(ZL) | C(ZP) },
    { "Zs", "Space_Separator", NULL, C(ZS) },
    { "Zl", "Line_Separator", NULL, C(ZL) },
    { "Zp", "Paragraph_Separator", NULL, C(ZP) },
    { "C", "Other", NULL, C(CC) | C(CF) | C(CS) | C(CO) | C(CN) },
    { "Cc", "Control", "cntrl", C(CC) },
    { "Cf", "Format", NULL, C(CF) },
    { "Cs", "Surrogate", NULL, C(CS) },
    { "Co", "Private_Use", NULL, C(CO) },
    { "Cn", "Unassigned", NULL, C(CN) },
};

/* Planes 4 to 13 are not assigned and planes 15 and 16 are for private use, whatever the version of Unicode. */
static bool add_categories(struct points *points, uint32_t categories, struct err *err)
{
    uint32_t from = 0;
    bool in = false;

    for (uint32_t c = 0; c <= 0x40000; c++) {
        bool now = c < 0x40000 && categories >> utf8proc_category((utf8proc_int32_t)c) & 1;

        if (now && !in)
            from = c;
        if (!now && in && !points_add(points, from, c - 1, err))
            return false;
        in = now;
    }
    for (uint32_t c = 0xe0000; c <= 0xe1000; c++) {
        bool now = c < 0xe1000 && categories >> utf8proc_category((utf8proc_int32_t)c) & 1;

        if (now && !in)
            from = c;
        if (!now && in && !points_add(points, from, c - 1, err))
            return false;
        in = now;
    }
    if (categories & C(CN) && !(points_add(points, 0x40000, 0xdffff, err) && points_add(points, 0xe1000, 0xeffff, err) &&
                                points_add(points, 0xffffe, 0xfffff, err) && points_add(points, 0x10fffe, 0x10ffff, err)))
        return false;
    return !(categories & C(CO)) ||
           (points_add(points, 0xf0000, 0xffffd, err) && points_add(points, 0x100000, 0x10fffd, err));
}

bool points_property(struct points *points, const char *name, const char *value, struct err *err)
{
    const char *wanted = value ? value : name;
    bool of_category = !value || strcmp(name, "General_Category") == 0 || strcmp(name, "gc") == 0;

    for (size_t i = 0; of_category && i < sizeof category / sizeof category[0]; i++)
        if (strcmp(wanted, category[i].name) == 0 || strcmp(wanted, category[i].long_name) == 0 ||
            (category[i].third_name && strcmp(wanted, category[i].third_name) == 0))
            return add_categories(points, category[i].categories, err);
    if (!value && strcmp(name, "Any") == 0)
        return points_add(points, 0, DFA_CODE_POINTS - 1, err);
    if (!value && strcmp(name, "ASCII") == 0)
        return points_add(points, 0, 0x7f, err);
    if (!value && strcmp(name, "Assigned") == 0)
        return add_categories(points, ~C(CN), err);
    if (!value && strcmp(name, "ASCII_Hex_Digit") == 0)
        return points_add(points, '0', '9', err) && points_add(points, 'A', 'F', err) && points_add(points, 'a', 'f', err);
    return err_set(err, ERR_INPUT,
                   "\\p{%s%s%s} is not supported; there are the general categories (L, Lu, Nd, Letter, ...), Any, ASCII, "
                   "ASCII_Hex_Digit and Assigned",
                   name, value ? "=" : "", value ? value : "");
}
