/* dfa - regular languages over bytes, as minimal automata.
 *
 * What a grammar can say without a stack is said here: patterns, formats, ranges of numbers, sets of
 * texts.  A dfa is trimmed (from every state but 0 an accepting one can be reached), minimal and numbered
 * breadth first by byte, so two equal languages have equal automata, and equality is memcmp.
 *
 * Two spellings occur.  A *text* language holds UTF-8 as it is meant; dfa_spell makes the JSON string
 * literals of those texts out of it, quotes included.  Each text has exactly one literal: `"`, `\` and the
 * controls below U+0020 are escaped as \" \\ \b \f \n \r \t or \u00XX (lower-case hex), all else stands as it is.
 * Surrogates cannot be written; U+007F and above are plain.
 *
 * Everything is bounded: an operation that would need more than DFA_STATES_MAX states (or much more work or memory
 * than those take) fails with ERR_LIMIT in well under a second, whatever it is given.  Who makes many of them
 * bounds the sum with dfa_steps. */

#ifndef MODEL_DFA_H
#define MODEL_DFA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

enum {
    DFA_STATES_MAX = 1 << 16,
    DFA_PATTERN_MAX = 4096, /* bytes of a pattern */
    DFA_DEPTH_MAX = 64,     /* of nested groups */
    DFA_LENGTH_MAX = 1 << 16, /* bytes of one of a set of texts */
};

struct dfa {
    uint32_t count;      /* states; 0 is dead; a language that is empty has no other */
    uint32_t start;      /* 1, or 0 for the empty language */
    uint32_t classes;    /* bytes that no state tells apart share a class */
    uint8_t class_of[256];
    uint32_t *next;      /* [count][classes] */
    uint8_t *accepts;    /* [count] */
};

void dfa_free(struct dfa *dfa); /* NULL is fine */
struct dfa *dfa_copy(const struct dfa *dfa); /* NULL without memory */

static inline uint32_t dfa_step(const struct dfa *dfa, uint32_t state, uint8_t byte)
{
    return dfa->next[(size_t)state * dfa->classes + dfa->class_of[byte]];
}

bool dfa_matches(const struct dfa *dfa, struct span bytes);
bool dfa_equal(const struct dfa *a, const struct dfa *b); /* the same language */
static inline bool dfa_is_empty(const struct dfa *dfa)
{
    return dfa->start == 0;
}

/* Elementary steps of all that this thread has made so far; they depend on the input alone.  A quiet core makes some
 * DFA_STEPS_SECOND of them a second. */
enum { DFA_STEPS_SECOND = 100 * 1000 * 1000 };
uint64_t dfa_steps(void);

/* All of these make a new dfa and leave their operands alone.  False: ERR_LIMIT, or ERR_INPUT with what was wrong. */
bool dfa_union(struct dfa **out, const struct dfa *a, const struct dfa *b, struct err *err);
bool dfa_intersect(struct dfa **out, const struct dfa *a, const struct dfa *b, struct err *err);
bool dfa_subtract(struct dfa **out, const struct dfa *a, const struct dfa *b, struct err *err); /* a without b */

/* Text languages. */
bool dfa_any_text(struct dfa **out, struct err *err);                                            /* all well-formed UTF-8 */
bool dfa_texts(struct dfa **out, const struct span *text, size_t count, struct err *err);        /* a finite set; any bytes */
bool dfa_length(struct dfa **out, uint32_t low, uint32_t high, struct err *err);                 /* code points; UINT32_MAX: no upper bound */
/* ECMA-262 regular expressions as JSON Schema uses them: unicode mode, no flags.  search: matches anywhere in the text, as
 * the standard says, and ^ $ anchor; else the whole text must match.  ^ $ \b \B are assertions, wherever they
 * stand.  \d \w \b know ASCII, \s the standard's spaces, \p{...} general categories, scripts and the standard's
 * properties.  Back-references, look-around and modifiers are refused by name, with their place in the pattern.
 * Lone braces and brackets, and escaped punctuation, are themselves. */
bool dfa_pattern(struct dfa **out, struct span pattern, bool search, struct err *err);
/* date, date-time, time (RFC 3339, years 0001 to 9999; a leap second only at 23:59:60 UTC, shown with an offset of whole
 * quarters of an hour), email (RFC 5321), uuid (any case), uri (RFC 3986, with its scheme).  ERR_NOT_FOUND names the
 * nearest that is known. */
bool dfa_format(struct dfa **out, const char *format, struct err *err);

/* JSON spellings. */
bool dfa_spell(struct dfa **out, const struct dfa *text, struct err *err);

/* Numbers in the one spelling that is generated: no exponent, no leading zeros, no "-0"; at most DFA_DIGITS_WHOLE digits
 * before and DFA_DIGITS_FRACTION after the point.  Bounds are decimal texts ("-12.5"; NULL: none), exact, never
 * through a double; a range that holds nothing gives the empty language.  Integers: at most DFA_DIGITS_WHOLE digits, `multiple`
 * 0 (any) to DFA_MULTIPLE_MAX; all up to DFA_MULTIPLE_SURE fit any range, and beyond it those with enough factors 2
 * and 5 (5000, 7200, 10000), else ERR_LIMIT. */
enum { DFA_DIGITS_WHOLE = 18, DFA_DIGITS_FRACTION = 17, DFA_MULTIPLE_SURE = 4096, DFA_MULTIPLE_MAX = 10000 };
struct dfa_range {
    const char *low, *high;
    bool low_open, high_open; /* exclusiveMinimum, exclusiveMaximum */
};
bool dfa_integer(struct dfa **out, const struct dfa_range *range, uint32_t multiple, struct err *err);
bool dfa_number(struct dfa **out, const struct dfa_range *range, struct err *err);

#endif
