/* Any bytes as a pattern: an automaton in its canonical form, or an error, soon.  What it accepts is text,
 * and the other operations agree about it. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/dfa_canonical.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

static void check(const struct dfa *dfa, const struct dfa *any)
{
    struct dfa *other, *both;
    uint8_t text[256], literal[256];
    size_t size, literal_size;
    struct err err;

    if (dfa->count < 300)
        need(dfa_is_canonical(dfa), "canonical");
    dfa_shortest(dfa, text, sizeof text, &size);
    need(dfa_is_empty(dfa) == (dfa->count == 1), "empty has one state");
    if (size <= sizeof text) {
        need(dfa_matches(dfa, span_of(text, size)), "the shortest text is accepted");
        need(span_is_utf8(span_of(text, size)), "what is accepted is text");
    }
    if (dfa_intersect(&both, dfa, any, &err)) {
        need(dfa_equal(both, dfa), "all that is accepted is text");
        dfa_free(both);
    }
    if (dfa_subtract(&other, any, dfa, &err)) {
        if (size <= sizeof text)
            need(!dfa_matches(other, span_of(text, size)), "the complement");
        if (dfa_union(&both, other, dfa, &err)) {
            need(dfa_equal(both, any), "both are all texts");
            dfa_free(both);
        }
        dfa_free(other);
    }
    if (dfa_spell(&other, dfa, &err)) {
        need(dfa_is_empty(other) == dfa_is_empty(dfa), "spelling loses nothing");
        dfa_shortest(other, literal, sizeof literal, &literal_size);
        if (literal_size <= sizeof literal)
            need(literal_size >= 2 && literal[0] == '"' && literal[literal_size - 1] == '"',
                 "a literal has quotes");
        dfa_free(other);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct dfa *any;
    struct dfa *search = NULL, *whole = NULL, *rest;
    struct err err = { .code = ERR_NONE };

    if (!any && !dfa_any_text(&any, &err))
        abort();
    if (dfa_pattern(&search, span_of(data, size), true, &err))
        check(search, any);
    else
        need(err.code == ERR_INPUT || err.code == ERR_LIMIT, "an error of the input");
    if (dfa_pattern(&whole, span_of(data, size), false, &err))
        check(whole, any);
    if (search && whole && dfa_subtract(&rest, whole, search, &err)) {
        need(dfa_is_empty(rest), "a whole match is a match");
        dfa_free(rest);
    }
    dfa_free(search);
    dfa_free(whole);
    /* Two lines of it as bounds. */
    if (size < 200) {
        char low[200];
        char *high;

        memcpy(low, data, size);
        low[size] = '\0';
        if ((high = strchr(low, '|'))) {
            struct dfa *number = NULL, *integer = NULL;
            const struct dfa_range range = { .low = low, .high = high + 1 };

            *high = '\0';
            if (dfa_number(&number, &range, &err) && dfa_integer(&integer, &range, 0, &err)) {
                need(dfa_is_canonical(number), "canonical");
                need(dfa_subtract(&rest, integer, number, &err) && dfa_is_empty(rest),
                     "an integer is a number");
                dfa_free(rest);
            }
            dfa_free(number);
            dfa_free(integer);
        }
    }
    return 0;
}
