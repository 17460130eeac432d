/* dfa_canonical - is a dfa what dfa.h promises of its form?  Shared by its unit tests and its fuzz target. */

#ifndef TESTS_DFA_CANONICAL_H
#define TESTS_DFA_CANONICAL_H

#include <stdlib.h>
#include <string.h>

#include "worker/model/dfa.h"

/* Every state but 0 is reached, in the order of a breadth-first walk by byte, and leads to an accepting one.
 */
static inline bool dfa_is_trimmed(const struct dfa *dfa)
{
    uint32_t met = dfa->start;
    uint8_t *ends = malloc(dfa->count);
    bool ok = true, more = true;

    for (uint32_t s = 1; s < dfa->count; s++) {
        ok = ok && s <= met;
        for (unsigned byte = 0; byte < 256; byte++) {
            uint32_t to = dfa_step(dfa, s, (uint8_t)byte);

            ok = ok && to <= met + 1;
            if (to == met + 1)
                met++;
        }
    }
    ok = ok && met + 1 == dfa->count && !dfa->accepts[0];
    for (unsigned byte = 0; byte < 256; byte++)
        ok = ok && dfa_step(dfa, 0, (uint8_t)byte) == 0;
    memcpy(ends, dfa->accepts, dfa->count);
    while (more) {
        more = false;
        for (uint32_t s = dfa->count; s-- > 1;)
            for (uint32_t c = 0; c < dfa->classes && !ends[s]; c++)
                if (ends[dfa->next[(size_t)s * dfa->classes + c]])
                    ends[s] = more = true;
    }
    for (uint32_t s = 1; s < dfa->count; s++)
        ok = ok && ends[s];
    free(ends);
    return ok;
}

/* No two classes have equal columns, and they are numbered by their least byte. */
static inline bool dfa_classes_are_least(const struct dfa *dfa)
{
    uint32_t met = 0;

    for (unsigned byte = 0; byte < 256; byte++) {
        if (dfa->class_of[byte] > met)
            return false;
        met += dfa->class_of[byte] == met;
    }
    if (met != dfa->classes)
        return false;
    for (uint32_t c = 0; c < dfa->classes; c++)
        for (uint32_t d = 0; d < c; d++) {
            uint32_t s = 0;

            while (s < dfa->count &&
                   dfa->next[(size_t)s * dfa->classes + c] == dfa->next[(size_t)s * dfa->classes + d])
                s++;
            if (s == dfa->count)
                return false;
        }
    return true;
}

/* No two states accept the same: rounds of refinement, as the textbook has them; for small automata. */
static inline bool dfa_is_minimal(const struct dfa *dfa)
{
    uint32_t *part = calloc(dfa->count * 2, sizeof *part), *then = part + dfa->count, parts = 0, before;

    for (uint32_t s = 0; s < dfa->count; s++)
        part[s] = dfa->accepts[s];
    do {
        before = parts;
        parts = 0;
        for (uint32_t s = 0; s < dfa->count; s++) {
            uint32_t t = 0;

            for (; t < s; t++) { /* does it go where t goes? */
                uint32_t c = 0;

                if (part[t] != part[s])
                    continue;
                while (c < dfa->classes && part[dfa->next[(size_t)s * dfa->classes + c]] ==
                                               part[dfa->next[(size_t)t * dfa->classes + c]])
                    c++;
                if (c == dfa->classes)
                    break;
            }
            then[s] = t < s ? then[t] : parts++;
        }
        memcpy(part, then, dfa->count * sizeof *part);
    } while (parts != before);
    free(part);
    return parts == dfa->count;
}

static inline bool dfa_is_canonical(const struct dfa *dfa)
{
    return dfa_is_trimmed(dfa) && dfa_classes_are_least(dfa) && (dfa->count > 400 || dfa_is_minimal(dfa));
}

/* The first of the shortest texts that it accepts; *size over room: none that short, or none. */
static inline void dfa_shortest(const struct dfa *dfa, uint8_t *text, size_t room, size_t *size)
{
    uint32_t *from = calloc(dfa->count * 2, sizeof *from), *queue = from + dfa->count, count = 0, end = 0;
    uint8_t *byte = calloc(dfa->count, 1);

    *size = room + 1;
    if (dfa->start != 0)
        queue[count++] = dfa->start;
    for (uint32_t at = 0; at < count && end == 0; at++) {
        if (dfa->accepts[queue[at]])
            end = queue[at];
        for (unsigned b = 0; b < 256 && end == 0; b++) {
            uint32_t to = dfa_step(dfa, queue[at], (uint8_t)b);

            if (to != 0 && to != dfa->start && from[to] == 0) {
                from[to] = queue[at];
                byte[to] = (uint8_t)b;
                queue[count++] = to;
            }
        }
    }
    if (end != 0) {
        size_t length = 0;

        for (uint32_t s = end; s != dfa->start; s = from[s])
            length++;
        if (length <= room) {
            *size = length;
            for (uint32_t s = end; s != dfa->start; s = from[s])
                text[--length] = byte[s];
        }
    }
    free(from);
    free(byte);
}

#endif
