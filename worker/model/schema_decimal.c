#include "worker/model/schema_decimal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_DIGITS_MAX = 18, STEP_FRACTION_MAX = 17 };

/* Zeros at both ends are the point's business. */
static void trim(struct decimal *d)
{
    int zeros = 0;

    while (d->count > 0 && d->digit[d->count - 1] == '0')
        d->count--;
    while (zeros < d->count && d->digit[zeros] == '0')
        zeros++;
    memmove(d->digit, d->digit + zeros, (size_t)(d->count - zeros));
    d->count = (int16_t)(d->count - zeros);
    d->point = (int16_t)(d->point - zeros);
    if (d->count == 0) {
        d->negative = false;
        d->point = 0;
    }
}

bool decimal_read(struct decimal *decimal, struct span text)
{
    size_t at = 0, zeros = 0; /* zeros: seen after a digit, not yet known to matter */
    int64_t point = 0, exponent = 0;
    bool fraction = false, below = false;

    *decimal = (struct decimal){ 0 };
    if (at < text.size && text.data[at] == '-') {
        decimal->negative = true;
        at++;
    }
    for (; at < text.size && text.data[at] != 'e' && text.data[at] != 'E'; at++) {
        char c = (char)text.data[at];

        if (c == '.') {
            fraction = true;
            continue;
        }
        if (decimal->count == 0 && c == '0') { /* before the first digit that counts */
            point -= fraction;
            continue;
        }
        point += !fraction;
        if (c == '0') {
            zeros++;
            continue;
        }
        if (zeros + (size_t)decimal->count + 1 > DECIMAL_DIGITS_MAX)
            return false;
        for (; zeros > 0; zeros--)
            decimal->digit[decimal->count++] = '0';
        decimal->digit[decimal->count++] = c;
    }
    if (at < text.size) { /* the exponent */
        at++;
        if (at < text.size && (text.data[at] == '-' || text.data[at] == '+'))
            below = text.data[at++] == '-';
        for (; at < text.size; at++)
            if (exponent < INT32_MAX) /* far out of reach already */
                exponent = exponent * 10 + (text.data[at] - '0');
    }
    if (decimal->count == 0) {
        *decimal = (struct decimal){ 0 };
        return true;
    }
    point += below ? -exponent : exponent;
    if (point > DECIMAL_POINT_MAX || point < -DECIMAL_POINT_MAX)
        return false;
    decimal->point = (int16_t)point;
    return true;
}

int decimal_compare(const struct decimal *a, const struct decimal *b)
{
    int sign, magnitude = 0;

    if (a->negative != b->negative)
        return a->negative ? -1 : 1;
    sign = a->negative ? -1 : 1;
    if (a->count == 0 || b->count == 0)
        return sign * ((a->count > 0) - (b->count > 0));
    if (a->point != b->point)
        return a->point < b->point ? -sign : sign;
    for (int i = 0; magnitude == 0 && (i < a->count || i < b->count); i++) {
        char x = i < a->count ? a->digit[i] : '0', y = i < b->count ? b->digit[i] : '0';

        magnitude = (x > y) - (x < y);
    }
    return sign * magnitude;
}

bool decimal_is_integer(const struct decimal *decimal)
{
    return decimal->count <= decimal->point || decimal->count == 0;
}

bool decimal_round(struct decimal *decimal, int fraction, bool up)
{
    int keep = decimal->point + fraction; /* digits that stay */
    int at;

    if (decimal->count <= keep || decimal->count == 0)
        return false;
    if (up == decimal->negative) { /* towards zero: the rest is cut */
        decimal->count = (int16_t)(keep > 0 ? keep : 0);
        trim(decimal);
        return true;
    }
    if (keep <= 0) { /* the least number that is not zero */
        decimal->digit[0] = '1';
        decimal->count = 1;
        decimal->point = (int16_t)(1 - fraction);
        return true;
    }
    decimal->count = (int16_t)keep;
    for (at = keep - 1; at >= 0 && decimal->digit[at] == '9'; at--)
        decimal->digit[at] = '0';
    if (at >= 0) {
        decimal->digit[at]++;
    } else {
        decimal->digit[0] = '1';
        decimal->count = 1;
        decimal->point++;
    }
    trim(decimal);
    return true;
}

void decimal_write(const struct decimal *decimal, char text[DECIMAL_TEXT_MAX])
{
    int count = decimal->count, point = decimal->point;
    const char *sign = decimal->negative ? "-" : "", *digit = decimal->digit;

    if (count == 0)
        snprintf(text, DECIMAL_TEXT_MAX, "0");
    else if (point >= count && point <= DECIMAL_PLAIN_MAX)
        snprintf(text, DECIMAL_TEXT_MAX, "%s%.*s%.*s", sign, count, digit, point - count,
                 "0000000000000000000000000000000000000000");
    else if (point > 0 && point < count)
        snprintf(text, DECIMAL_TEXT_MAX, "%s%.*s.%.*s", sign, point, digit, count - point, digit + point);
    else if (point <= 0 && point > -DECIMAL_PLAIN_MAX)
        snprintf(text, DECIMAL_TEXT_MAX, "%s0.%.*s%.*s", sign, -point,
                 "0000000000000000000000000000000000000000", count, digit);
    else
        snprintf(text, DECIMAL_TEXT_MAX, "%s%c%s%.*se%d", sign, digit[0], count > 1 ? "." : "", count - 1,
                 digit + 1, point - 1);
}

/* The digits without their point. */
static bool digits_value(const struct decimal *d, int digits_max, uint64_t *value)
{
    *value = 0;
    if (d->count > digits_max)
        return false;
    for (int i = 0; i < d->count; i++)
        *value = *value * 10 + (uint64_t)(d->digit[i] - '0');
    return true;
}

bool decimal_whole(const struct decimal *decimal, uint64_t max, uint64_t *whole)
{
    if (decimal->negative || !decimal_is_integer(decimal) || decimal->point > STEP_DIGITS_MAX ||
        !digits_value(decimal, STEP_DIGITS_MAX, whole))
        return false;
    for (int i = decimal->count; i < decimal->point; i++)
        *whole *= 10;
    return *whole <= max;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b > 0) {
        uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

bool decimal_step(const struct decimal *decimal, struct decimal_step *step)
{
    uint64_t divisor;

    *step = (struct decimal_step){ .under = 1 };
    if (decimal->negative || decimal->count == 0 || decimal->point > STEP_DIGITS_MAX ||
        decimal->count - decimal->point > STEP_FRACTION_MAX ||
        !digits_value(decimal, STEP_DIGITS_MAX, &step->over))
        return false;
    for (int i = decimal->count; i < decimal->point; i++)
        step->over *= 10;
    for (int i = decimal->point; i < decimal->count; i++)
        step->under *= 10;
    divisor = common_divisor(step->over, step->under);
    step->over /= divisor;
    step->under /= divisor;
    return true;
}

bool decimal_step_merge(struct decimal_step *step, struct decimal_step other)
{
    uint64_t over;

    if (other.over == 0)
        return true;
    if (step->over == 0) {
        *step = other;
        return true;
    }
    /* In lowest terms the least common multiple is that of the upper parts over the divisor of the lower
     * ones. */
    if (__builtin_mul_overflow(step->over / common_divisor(step->over, other.over), other.over, &over))
        return false;
    step->over = over;
    step->under = common_divisor(step->under, other.under);
    return true;
}

bool decimal_is_multiple(const struct decimal *decimal, struct decimal_step step)
{
    /* value / step = digits * under / (over * 10^tenths) */
    int tenths = decimal->count - decimal->point;
    unsigned __int128 over = step.over, under = step.under, a, b, rest = 0;

    if (over == 0 || decimal->count == 0)
        return true;
    /* The digits end in no zero, so they lack a factor 2 or 5 altogether; `under` has at most
     * STEP_FRACTION_MAX of it. */
    if (tenths > STEP_FRACTION_MAX)
        return false;
    for (int i = 0; i < tenths; i++)
        over *= 10; /* below 2^64 * 10^17 */
    for (a = over, b = under; b > 0;) {
        unsigned __int128 next = a % b;

        a = b;
        b = next;
    }
    over /= a; /* what is left of `under` shares no factor with it: the digits alone must be divisible */
    for (int i = 0; i < decimal->count; i++)
        rest = (rest * 10 + (unsigned)(decimal->digit[i] - '0')) % over;
    for (int i = tenths; i < 0; i++)
        rest = rest * 10 % over;
    return rest == 0;
}
