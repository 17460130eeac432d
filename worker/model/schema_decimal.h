/* schema_decimal - the numbers of a schema, exact.
 *
 * A bound of 0.1 means one tenth, which no double is.  So numbers are read from their source text and kept as
 * digits.  What is too long to keep is an error, never rounded. */

#ifndef MODEL_SCHEMA_DECIMAL_H
#define MODEL_SCHEMA_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

enum {
    DECIMAL_DIGITS_MAX = 64,
    DECIMAL_POINT_MAX = 400, /* digits before the point, or zeros after it */
    DECIMAL_TEXT_MAX = 160,  /* a decimal as it is written, with its NUL */
    DECIMAL_PLAIN_MAX = 40,  /* beyond as many digits or zeros it is written with an exponent */
};

struct decimal { /* 0.DIGITS times ten to the power of point */
    bool negative;
    int16_t count; /* of digits; the first and the last are not 0; zero has none and is not negative */
    int16_t point;
    char digit[DECIMAL_DIGITS_MAX];
};

/* text: a JSON number.  False when it has more than DECIMAL_DIGITS_MAX digits (zeros at either end aside) or
 * is out of DECIMAL_POINT_MAX. */
bool decimal_read(struct decimal *decimal, struct span text);

int decimal_compare(const struct decimal *a, const struct decimal *b); /* below, at or above 0 */
bool decimal_is_integer(const struct decimal *decimal);

/* To so many digits after the point, up (towards +infinity) or down.  True when that changed the value. */
bool decimal_round(struct decimal *decimal, int fraction, bool up);

/* The one spelling of a value: shortest, without an exponent where that is not much longer. */
void decimal_write(const struct decimal *decimal, char text[DECIMAL_TEXT_MAX]);

/* The value as a small whole number. False when it is none, or not from 0 to max. */
bool decimal_whole(const struct decimal *decimal, uint64_t max, uint64_t *whole);

/* Positive steps as a fraction in lowest terms, for multipleOf. */
struct decimal_step {
    uint64_t over, under; /* 0 and 0: any number */
};

/* False when it is not above 0 or has more than 18 digits or 17 digits after the point. */
bool decimal_step(const struct decimal *decimal, struct decimal_step *step);
/* The least common multiple, either of them may be any number; false when it does not fit. */
bool decimal_step_merge(struct decimal_step *step, struct decimal_step other);
bool decimal_is_multiple(const struct decimal *decimal, struct decimal_step step);

#endif
