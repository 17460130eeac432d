/* Numbers in a range, compared digit by digit. */

#include <assert.h>
#include <stdlib.h>

#include "worker/model/dfa_build.h"

enum { EXPONENT_MAX = 1000000, BOUND_TEXT_MAX = 4096 };

/* A bound's magnitude, as far as a number that is generated can tell: more says that digits other than 0
 * follow those of the fraction.  Magnitudes beyond all that is generated have one whole digit too many. */
struct bound {
    bool negative, zero;
    uint8_t whole[DFA_DIGITS_WHOLE + 1];
    int wholes; /* at least 1 */
    uint8_t fraction[DFA_DIGITS_FRACTION];
    bool more;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The text's digits without the point and the zeros in front; *point: where the point stands among them. */
static bool split_decimal(const char *text, uint8_t *digits, int *count, int *point)
{
    int exponent = 0, sign = 1;
    bool any = false, fraction = false;

    *count = *point = 0;
    for (;; text++) {
        if (*text == '.' && any && !fraction && is_digit(text[1])) {
            fraction = true;
            continue;
        }
        if (!is_digit(*text))
            break;
        any = true;
        if (*count > 0 || *text != '0') {
            digits[(*count)++] = (uint8_t)(*text - '0');
            *point += !fraction;
        } else {
            *point -= fraction;
        }
    }
    if (!any)
        return false;
    if (*text == 'e' || *text == 'E') {
        text++;
        if (*text == '+' || *text == '-')
            sign = *text++ == '-' ? -1 : 1;
        if (!is_digit(*text))
            return false;
        for (; is_digit(*text); text++)
            exponent =
                exponent * 10 + (*text - '0') > EXPONENT_MAX ? EXPONENT_MAX : exponent * 10 + (*text - '0');
    }
    *point += sign * exponent;
    while (*count > 0 && digits[*count - 1] == 0)
        (*count)--;
    return *text == '\0';
}

static bool read_bound(struct bound *bound, const char *text, struct err *err)
{
    uint8_t digits[BOUND_TEXT_MAX];
    int count, point;

    *bound = (struct bound){ .wholes = 1 };
    if (strlen(text) >= sizeof digits)
        return err_set(err, ERR_LIMIT, "a bound of %zu digits (at most %zu)", strlen(text),
                       sizeof digits - 1);
    bound->negative = text[0] == '-';
    if (!split_decimal(text + bound->negative, digits, &count, &point))
        return err_set(err, ERR_INPUT, "expected a decimal number, found `%.40s`", text);
    bound->zero = count == 0;
    if (bound->zero || point <= 0)
        bound->wholes = 1; /* 0.something */
    else
        bound->wholes = point > DFA_DIGITS_WHOLE ? DFA_DIGITS_WHOLE + 1 : point;
    if (bound->zero)
        return true;
    for (int i = 0; i < bound->wholes && point > 0; i++)
        bound->whole[i] = i < count ? digits[i] : 0;
    for (int i = 0; i < DFA_DIGITS_FRACTION; i++)
        bound->fraction[i] = point + i >= 0 && point + i < count ? digits[point + i] : 0;
    bound->more = count > point + DFA_DIGITS_FRACTION;
    return true;
}

/* ---- one side of zero ------------------------------------------------------------------------------- */

/* Magnitudes from low to high; high NULL: no upper bound. */
struct side {
    const struct bound *low, *high;
    bool low_open, high_open;
    bool empty;
};

enum compared { LESS, EQUAL, GREATER };

/* A place in a number: how many digits of the whole part, or of the fraction, and how what is written
 * compares with as much of the bounds. */
struct place {
    uint32_t side; /* 0: nothing written yet; then also the side of positive ones */
    uint32_t fraction, digits, low, high, zero;
};
enum { PLACE_WORDS = sizeof(struct place) / sizeof(uint32_t) };

static enum compared compare_whole(const struct bound *bound, const struct place *p, enum compared so_far,
                                   uint8_t digit)
{
    if ((int)p->digits >= bound->wholes)
        return GREATER;
    if (so_far != EQUAL)
        return so_far;
    return digit < bound->whole[p->digits] ? LESS : digit > bound->whole[p->digits] ? GREATER : EQUAL;
}

static enum compared compare_fraction(const struct bound *bound, const struct place *p, enum compared so_far,
                                      uint8_t digit)
{
    if (so_far != EQUAL)
        return so_far;
    return digit < bound->fraction[p->digits] ? LESS : digit > bound->fraction[p->digits] ? GREATER : EQUAL;
}

/* As the whole part ends. */
static enum compared whole_ends(const struct bound *bound, const struct place *p, enum compared so_far)
{
    return (int)p->digits < bound->wholes ? LESS : so_far;
}

/* As the number ends. */
static enum compared number_ends(const struct bound *bound, const struct place *p, enum compared so_far)
{
    if (!p->fraction)
        so_far = whole_ends(bound, p, so_far);
    if (so_far != EQUAL)
        return so_far;
    for (uint32_t i = p->fraction ? p->digits : 0; i < DFA_DIGITS_FRACTION; i++)
        if (bound->fraction[i] != 0)
            return LESS;
    return bound->more ? LESS : EQUAL;
}

static bool may_end(const struct side *side, const struct place *p)
{
    enum compared low, high = LESS;

    if (p->digits == 0)
        return false;
    low = number_ends(side->low, p, (enum compared)p->low);
    if (side->high)
        high = number_ends(side->high, p, (enum compared)p->high);
    return (low == GREATER || (low == EQUAL && !side->low_open)) &&
           (high == LESS || (high == EQUAL && !side->high_open));
}

static bool add_digit(const struct side *side, const struct place *p, uint8_t digit, struct place *to)
{
    *to = *p;
    if (p->fraction ? p->digits == DFA_DIGITS_FRACTION : p->digits == DFA_DIGITS_WHOLE || p->zero)
        return false;
    if (p->fraction) {
        to->low = compare_fraction(side->low, p, (enum compared)p->low, digit);
        if (side->high)
            to->high = compare_fraction(side->high, p, (enum compared)p->high, digit);
    } else {
        to->low = compare_whole(side->low, p, (enum compared)p->low, digit);
        if (side->high)
            to->high = compare_whole(side->high, p, (enum compared)p->high, digit);
        to->zero = p->digits == 0 && digit == 0;
    }
    to->digits++;
    return true;
}

static void add_point(const struct side *side, const struct place *p, struct place *to)
{
    *to = (struct place){ .side = p->side, .fraction = 1 };
    to->low = whole_ends(side->low, p, (enum compared)p->low);
    to->high = side->high ? whole_ends(side->high, p, (enum compared)p->high) : LESS;
}

/* ---- the automaton ---------------------------------------------------------------------------------- */

enum { SYMBOL_MINUS = 10, SYMBOL_POINT, SYMBOL_OTHER, SYMBOLS };

static void number_classes(uint8_t class_of[256])
{
    memset(class_of, SYMBOL_OTHER, 256);
    for (int i = 0; i < 10; i++)
        class_of['0' + i] = (uint8_t)i;
    class_of['-'] = SYMBOL_MINUS;
    class_of['.'] = SYMBOL_POINT;
}

static bool link(struct dfa_words *places, struct dfa_raw *raw, uint32_t from, uint32_t symbol,
                 const struct place *place, struct err *err)
{
    uint32_t word[PLACE_WORDS], id;

    memcpy(word, place, sizeof word);
    return dfa_words_intern(places, word, PLACE_WORDS, &id, err) && dfa_raw_edge(raw, from, symbol, id, err);
}

/* side[0]: zero and above; side[1]: below, by magnitude. */
static bool number_raw(struct dfa_raw *raw, const struct side side[2], bool fraction, struct err *err)
{
    struct dfa_words places = { 0 };
    const struct place first = { .low = EQUAL, .high = EQUAL };
    struct place now, to;
    uint32_t word[PLACE_WORDS], id;
    bool ok = false;

    memcpy(word, &first, sizeof word);
    if (!dfa_words_intern(&places, word, PLACE_WORDS, &id, err))
        goto out;
    for (uint32_t at = 0; at < places.count; at++) {
        const struct side *of;
        size_t size;

        memcpy(&now, dfa_words_get(&places, at, &size), sizeof now);
        of = &side[now.side];
        if (!dfa_raw_states(raw, at + 1, err))
            goto out;
        if (at == 0 && !side[1].empty) {
            to = first;
            to.side = 1;
            if (!link(&places, raw, at, SYMBOL_MINUS, &to, err))
                goto out;
        }
        if (of->empty)
            continue;
        raw->accepts[at] = may_end(of, &now) && !(now.fraction && now.digits == 0);
        for (uint8_t digit = 0; digit < 10; digit++)
            if (add_digit(of, &now, digit, &to) && !link(&places, raw, at, digit, &to, err))
                goto out;
        if (fraction && !now.fraction && now.digits > 0) {
            add_point(of, &now, &to);
            if (!link(&places, raw, at, SYMBOL_POINT, &to, err))
                goto out;
        }
    }
    ok = true;
out:
    dfa_words_fini(&places);
    return ok;
}

static bool range_dfa(struct dfa **out, const struct dfa_range *range, bool fraction, struct err *err)
{
    static const struct bound zero = { .zero = true, .wholes = 1 };
    struct bound low, high;
    struct side side[2] = { { .low = &zero }, { .low = &zero, .low_open = true } };
    struct dfa_raw raw = { 0 };
    uint8_t class_of[256];
    bool ok;

    if (range->low) {
        if (!read_bound(&low, range->low, err))
            return err_wrap(err, "the lower bound");
        if (low.negative && !low.zero) {
            side[1].high = &low;
            side[1].high_open = range->low_open;
        } else {
            side[0].low = &low;
            side[0].low_open = range->low_open;
            side[1].empty = true;
        }
    }
    if (range->high) {
        if (!read_bound(&high, range->high, err))
            return err_wrap(err, "the upper bound");
        if (high.zero || !high.negative) {
            side[0].high = &high;
            side[0].high_open = range->high_open;
        } else {
            side[1].low = &high;
            side[1].low_open = range->high_open;
            side[0].empty = true;
        }
    }
    number_classes(class_of);
    ok = number_raw(&raw, side, fraction, err) && dfa_raw_finish(out, &raw, class_of, SYMBOLS, err);
    dfa_raw_fini(&raw);
    return ok;
}

bool dfa_number(struct dfa **out, const struct dfa_range *range, struct err *err)
{
    return range_dfa(out, range, true, err);
}

/* ---- multiples -------------------------------------------------------------------------------------- */

/* Digits with any sign that `multiple` divides: state 0 is the start, 1 is behind the sign, r + 2 has the
 * remainder r. */
static bool multiples_dfa(struct dfa **out, uint32_t multiple, struct err *err)
{
    struct dfa_raw raw = { 0 };
    uint8_t class_of[256];
    bool ok = false;

    if (!dfa_raw_states(&raw, multiple + 2, err) || !dfa_raw_edge(&raw, 0, SYMBOL_MINUS, 1, err))
        goto out;
    raw.accepts[2] = 1;
    for (uint32_t state = 0; state < multiple + 2; state++)
        for (uint32_t digit = 0; digit < 10; digit++)
            if (!dfa_raw_edge(&raw, state, digit, ((state < 2 ? 0 : state - 2) * 10 + digit) % multiple + 2,
                              err))
                goto out;
    number_classes(class_of);
    ok = dfa_raw_finish(out, &raw, class_of, SYMBOLS, err);
out:
    dfa_raw_fini(&raw);
    return ok;
}

bool dfa_integer(struct dfa **out, const struct dfa_range *range, uint32_t multiple, struct err *err)
{
    struct dfa *all = NULL, *multiples = NULL;
    bool ok;

    if (multiple > DFA_MULTIPLE_MAX)
        return err_set(err, ERR_LIMIT, "multiples of %u (at most %d)", multiple, DFA_MULTIPLE_MAX);
    if (multiple <= 1)
        return range_dfa(out, range, false, err);
    ok = range_dfa(&all, range, false, err) && multiples_dfa(&multiples, multiple, err) &&
         dfa_intersect(out, all, multiples, err);
    dfa_free(all);
    dfa_free(multiples);
    return ok;
}
