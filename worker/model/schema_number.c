#include "worker/model/schema_number.h"

#include <inttypes.h>

#include "worker/model/dfa_build.h"

bool number_add(struct number_form *number, const struct schema *schema)
{
    int low = schema->low && number->low ? decimal_compare(schema->low, number->low) : 1;
    int high = schema->high && number->high ? decimal_compare(schema->high, number->high) : -1;

    if (schema->low && (low > 0 || (low == 0 && schema->low_open))) {
        number->low = schema->low;
        number->low_open = schema->low_open;
    }
    if (schema->high && (high < 0 || (high == 0 && schema->high_open))) {
        number->high = schema->high;
        number->high_open = schema->high_open;
    }
    number->integer = number->integer || schema->integer;
    return decimal_step_merge(&number->step, schema->step);
}

/* A bound that can be written with the digits that numbers have, and means the same to them.  False: nothing
 * is within it. *text is set to NULL when everything is. */
static bool write_bound(const struct decimal *bound, bool *open, bool low, int fraction, char *text,
                        const char **at)
{
    struct decimal rounded;

    *at = NULL;
    if (!bound)
        return true;
    rounded = *bound;
    if (decimal_round(&rounded, fraction, low))
        *open = false;
    if (rounded.point > DFA_DIGITS_WHOLE)
        return rounded.negative == low;
    decimal_write(&rounded, text);
    *at = text;
    return true;
}

enum { STATES_MAX = 1 << 15 }; /* of the automaton of a step with a fraction */

/* Multiples of over / under, written with as many digits after the point as `under` needs: read as a whole
 * number without its point, such a number is a multiple of `whole`. */
static bool multiples(struct dfa **out, uint64_t whole, int fraction, struct err *err)
{
    /* States: 0 the start, 1 after the sign, then one for each place and rest of the division. */
    enum { MINUS, DIGIT, POINT = 11, OTHER, SYMBOLS };
    struct dfa_raw raw = { 0 };
    uint8_t class_of[256];
    uint32_t rests = (uint32_t)whole, first = 2;
    uint64_t scale = 1;
    bool ok;

    memset(class_of, OTHER, sizeof class_of);
    class_of['-'] = MINUS;
    class_of['.'] = POINT;
    for (int digit = 0; digit < 10; digit++)
        class_of['0' + digit] = (uint8_t)(DIGIT + digit);
    /* Place 0 is before the point, place 1 right after it, place 1 + i after i digits. */
    ok = dfa_raw_states(&raw, first + rests * (uint32_t)(fraction + 2), err) &&
         dfa_raw_edge(&raw, 0, MINUS, 1, err);
    for (uint32_t digit = 0; ok && digit < 10; digit++)
        for (uint32_t from = 0; ok && from < 2; from++)
            ok = dfa_raw_edge(&raw, from, DIGIT + digit, first + digit % rests, err);
    for (int place = fraction + 1; ok && place >= 0; place--) {
        for (uint32_t rest = 0; ok && rest < rests; rest++) {
            uint32_t state = first + (uint32_t)place * rests + rest;

            /* The digits that are not written are zeros. */
            raw.accepts[state] = place != 1 && (unsigned __int128)rest * scale % rests == 0;
            if (place == 0)
                ok = dfa_raw_edge(&raw, state, POINT, first + rests + rest, err);
            for (uint32_t digit = 0; ok && digit < 10 && place <= fraction; digit++)
                ok = dfa_raw_edge(&raw, state, DIGIT + digit,
                                  first + (uint32_t)(place == 0 ? 0 : place + 1) * rests +
                                      (rest * 10 + digit) % rests,
                                  err);
        }
        if (place > 1)
            scale *= 10;
    }
    ok = ok && dfa_raw_finish(out, &raw, class_of, SYMBOLS, err);
    dfa_raw_fini(&raw);
    return ok;
}

/* Whether every whole number of that many digits is in the range, on one side of zero at least. */
static bool has_all_of(const struct dfa_range *range, int digits)
{
    struct decimal least, most, bound;
    char text[DFA_DIGITS_WHOLE + 2] = "-1";
    bool positive = true, negative = true;

    for (int i = 1; i < digits; i++)
        text[1 + i] = '0';
    decimal_read(&least, span_of(text + 1, (size_t)digits));
    memset(text + 1, '9', (size_t)digits);
    decimal_read(&most, span_of(text + 1, (size_t)digits));
    if (range->low && decimal_read(&bound, span_text(range->low))) {
        positive = bound.negative || decimal_compare(&bound, &least) < 0;
        bound.negative = !bound.negative;
        negative = decimal_compare(&bound, &most) > 0;
    }
    if (range->high && decimal_read(&bound, span_text(range->high))) {
        positive = positive && decimal_compare(&bound, &most) > 0;
        bound.negative = !bound.negative;
        negative = negative && (bound.negative || decimal_compare(&bound, &least) < 0);
    }
    return positive || negative;
}

/* Behind the first 5 digits, and before the last 5, every rest of the division by what has no factor 2 or 5
 * is a state, and another one at each place.  To find out by trying that they are too many would take most of
 * the steps that a schema has. */
static bool too_many(const struct dfa_range *range, uint32_t multiple)
{
    uint32_t rests = multiple;

    while (rests % 2 == 0)
        rests /= 2;
    while (rests % 5 == 0)
        rests /= 5;
    for (int digits = DFA_DIGITS_WHOLE; digits > 9; digits--)
        if (has_all_of(range, digits))
            return rests * (uint32_t)(digits - 9) > DFA_STATES_MAX;
    return false;
}

/* Multiples of a large number without small factors, of up to 18 digits, are too many states; of fewer digits
 * they are not. */
static bool integer_texts(struct dfa **texts, struct dfa_range range, uint32_t multiple, struct err *err)
{
    static const char few[] = "999999999", few_negative[] = "-999999999";
    struct decimal low = { 0 }, high = { 0 }, bound;

    if (multiple <= 1 || !too_many(&range, multiple)) {
        if (dfa_integer(texts, &range, multiple, err))
            return true;
    } else {
        dfa_too_large(err);
    }
    decimal_read(&bound, span_text(few));
    if (multiple <= 1 ||
        (range.low && decimal_read(&low, span_text(range.low)) && decimal_compare(&low, &bound) > 0))
        return false;
    decimal_read(&bound, span_text(few_negative));
    if (range.high && decimal_read(&high, span_text(range.high)) && decimal_compare(&high, &bound) < 0)
        return false;
    if (!range.low || decimal_compare(&low, &bound) < 0) {
        range.low = few_negative;
        range.low_open = false;
    }
    decimal_read(&bound, span_text(few));
    if (!range.high || decimal_compare(&high, &bound) > 0) {
        range.high = few;
        range.high_open = false;
    }
    return dfa_integer(texts, &range, multiple, err);
}

bool number_texts(struct dfa **texts, const struct number_form *number, struct err *err)
{
    char low[DECIMAL_TEXT_MAX], high[DECIMAL_TEXT_MAX];
    struct dfa_range range = { .low_open = number->low_open, .high_open = number->high_open };
    bool integer = number->integer || number->step.under == 1;
    uint64_t whole = number->step.over, scale = 1;
    int fraction = 0;
    struct dfa *all = NULL, *steps = NULL;
    bool ok;

    if (!write_bound(number->low, &range.low_open, true, integer ? 0 : DFA_DIGITS_FRACTION, low,
                     &range.low) ||
        !write_bound(number->high, &range.high_open, false, integer ? 0 : DFA_DIGITS_FRACTION, high,
                     &range.high))
        return dfa_texts(texts, NULL, 0, err);
    if (!integer && whole > 0) { /* as whole numbers of the last digit's worth */
        while (scale % number->step.under != 0) {
            scale *= 10;
            fraction++;
        }
        if (__builtin_mul_overflow(whole, scale / number->step.under, &whole))
            whole = UINT64_MAX;
    }
    if (whole > DFA_MULTIPLE_MAX || whole * (uint64_t)(fraction + 2) > STATES_MAX)
        return err_set(err, ERR_LIMIT,
                       "expected a step whose digits without the point make at most %d, fewer with many of "
                       "them after the point; found %" PRIu64 " with %d after the point",
                       DFA_MULTIPLE_MAX, whole, fraction);
    if (integer) /* an integer is a multiple of over / under when it is one of over */
        return integer_texts(texts, range, (uint32_t)whole, err);
    if (whole == 0)
        return dfa_number(texts, &range, err);
    ok = dfa_number(&all, &range, err) && multiples(&steps, whole, fraction, err) &&
         dfa_intersect(texts, all, steps, err);
    dfa_free(all);
    dfa_free(steps);
    return ok;
}
