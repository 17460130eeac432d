/* Sets of code points. */

#include <stdlib.h>

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

/* Surrogates are in no text, so whether a set has them is the same; they go where a range begins or ends with
 * them, and stay within one that goes over them all, so that equal sets are written equally. */
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
        if (kept > 0 &&
            (range.low <= points->range[kept - 1].high + 1 ||
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

/* ---- classes by letter ------------------------------------------------------------------------------ */

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
