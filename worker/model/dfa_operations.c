/* Automata of automata: sets, one after the other, finite sets of texts, JSON spellings. */

#include <assert.h>
#include <stdlib.h>

#include "worker/model/dfa_build.h"

void dfa_join_classes(struct dfa_joint *joint, const struct dfa *a, const struct dfa *b)
{
    joint->classes = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t c = 0;

        while (c < joint->classes && (a->class_of[byte] != a->class_of[joint->byte[c]] ||
                                      b->class_of[byte] != b->class_of[joint->byte[c]]))
            c++;
        if (c == joint->classes)
            joint->byte[joint->classes++] = (uint8_t)byte;
        joint->of[byte] = (uint8_t)c;
    }
}

/* ---- sets ------------------------------------------------------------------------------------------- */

enum operation { UNION, INTERSECT, SUBTRACT };

/* The states of the product are the pairs that can be met. */
static bool product(struct dfa **out, const struct dfa *a, const struct dfa *b, enum operation operation,
                    struct err *err)
{
    struct dfa_words pairs = { 0 };
    struct dfa_raw raw = { 0 };
    struct dfa_joint joint;
    uint32_t pair[2] = { a->start, b->start }, id;
    bool ok = false;

    dfa_join_classes(&joint, a, b);
    if (!dfa_words_intern(&pairs, pair, 2, &id, err))
        goto out;
    for (uint32_t at = 0; at < pairs.count; at++) {
        size_t size;
        const uint32_t *now = dfa_words_get(&pairs, at, &size);
        uint32_t x = now[0], y = now[1];
        bool in_a = a->accepts[x], in_b = b->accepts[y];

        if (!dfa_raw_states(&raw, at + 1, err))
            goto out;
        raw.accepts[at] = operation == UNION       ? in_a || in_b
                          : operation == INTERSECT ? in_a && in_b
                                                   : in_a && !in_b;
        for (uint32_t c = 0; c < joint.classes; c++) {
            pair[0] = dfa_step(a, x, joint.byte[c]);
            pair[1] = dfa_step(b, y, joint.byte[c]);
            if (pair[0] == 0 && (pair[1] == 0 || operation != UNION)) /* nothing follows here */
                continue;
            if (pair[1] == 0 && operation == INTERSECT)
                continue;
            if (!dfa_words_intern(&pairs, pair, 2, &id, err) || !dfa_raw_edge(&raw, at, c, id, err))
                goto out;
        }
    }
    ok = dfa_raw_finish(out, &raw, joint.of, joint.classes, err);
out:
    dfa_words_fini(&pairs);
    dfa_raw_fini(&raw);
    return ok;
}

bool dfa_union(struct dfa **out, const struct dfa *a, const struct dfa *b, struct err *err)
{
    return product(out, a, b, UNION, err);
}

bool dfa_intersect(struct dfa **out, const struct dfa *a, const struct dfa *b, struct err *err)
{
    return product(out, a, b, INTERSECT, err);
}

bool dfa_subtract(struct dfa **out, const struct dfa *a, const struct dfa *b, struct err *err)
{
    return product(out, a, b, SUBTRACT, err);
}

/* ---- finite sets of texts --------------------------------------------------------------------------- */

static int by_bytes(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    size_t size = x->size < y->size ? x->size : y->size;
    int order = size == 0 ? 0 : memcmp(x->data, y->data, size);

    return order != 0 ? order : (x->size > y->size) - (x->size < y->size);
}

/* The texts in order, as a tree whose branches are closed as soon as the next text leaves them, equal ones
 * becoming one: the whole tree is never there.  Only the last text's path is open; its nodes' closed children
 * stand on one stack. */
struct path {
    uint32_t *pending; /* (byte, closed node) of the open nodes' children, outermost first */
    size_t pending_count, pending_capacity;
    size_t *base;            /* of the open node at this depth in pending */
    uint8_t *ends;           /* a text ends at this depth */
    size_t depth;            /* the deepest open node */
    struct dfa_words closed; /* a node: whether a text ends there, then its children */
};

static bool close_to(struct path *path, size_t depth, struct span text, struct err *err)
{
    for (; path->depth > depth; path->depth--) {
        size_t base = path->base[path->depth];
        uint32_t id;

        /* One word in front of the children: there is room for it, see open_to. */
        memmove(path->pending + base + 1, path->pending + base,
                (path->pending_count - base) * sizeof *path->pending);
        path->pending[base] = path->ends[path->depth];
        if (!dfa_words_intern(&path->closed, path->pending + base, path->pending_count - base + 1, &id, err))
            return false;
        path->pending[base] = text.data[path->depth - 1];
        path->pending[base + 1] = id;
        path->pending_count = base + 2;
    }
    return true;
}

static bool open_to(struct path *path, struct span text, struct err *err)
{
    while (path->depth < text.size) {
        path->depth++;
        path->base[path->depth] = path->pending_count;
        path->ends[path->depth] = 0;
    }
    path->ends[path->depth] = 1;
    /* A closed child takes two words of its parent's, and one more while it is closed. */
    return dfa_grow((void **)&path->pending, &path->pending_capacity,
                    path->pending_count + 2 * (path->depth + 2), sizeof *path->pending) ||
           dfa_no_memory(err);
}

/* Node 0 of the raw automaton is the root, node i + 1 the closed one i. */
static bool path_raw(const struct path *path, struct dfa_raw *raw, struct err *err)
{
    if (!dfa_raw_states(raw, (uint32_t)path->closed.count + 1, err))
        return false;
    raw->accepts[0] = path->ends[0];
    for (size_t i = 0; i < path->pending_count; i += 2)
        if (!dfa_raw_edge(raw, 0, path->pending[i], path->pending[i + 1] + 1, err))
            return false;
    for (uint32_t id = 0; id < path->closed.count; id++) {
        size_t size;
        const uint32_t *word = dfa_words_get(&path->closed, id, &size);

        raw->accepts[id + 1] = (uint8_t)word[0];
        for (size_t i = 1; i < size; i += 2)
            if (!dfa_raw_edge(raw, id + 1, word[i], word[i + 1] + 1, err))
                return false;
    }
    return true;
}

bool dfa_texts(struct dfa **out, const struct span *text, size_t count, struct err *err)
{
    struct span *sorted = malloc((count + 1) * sizeof *sorted);
    struct path path = { 0 };
    struct dfa_raw raw = { 0 };
    uint8_t class_of[256];
    size_t longest = 0;
    bool ok = false;

    for (size_t i = 0; i < count; i++)
        longest = text[i].size > longest ? text[i].size : longest;
    if (longest > DFA_LENGTH_MAX) {
        dfa_too_large(err);
        goto out;
    }
    path.base = calloc(longest + 1, sizeof *path.base);
    path.ends = calloc(longest + 1, 1);
    if (!sorted || !path.base || !path.ends) {
        dfa_no_memory(err);
        goto out;
    }
    if (count != 0)
        memcpy(sorted, text, count * sizeof *sorted);
    if (count > 1)
        qsort(sorted, count, sizeof *sorted, by_bytes);
    for (size_t i = 0; i < count; i++) {
        size_t same = 0;

        if (i > 0) {
            while (same < sorted[i - 1].size && same < sorted[i].size &&
                   sorted[i - 1].data[same] == sorted[i].data[same])
                same++;
            if (!close_to(&path, same, sorted[i - 1], err))
                goto out;
        }
        if (!open_to(&path, sorted[i], err))
            goto out;
    }
    if (count > 0 && !close_to(&path, 0, sorted[count - 1], err))
        goto out;
    for (unsigned byte = 0; byte < 256; byte++)
        class_of[byte] = (uint8_t)byte;
    ok = path_raw(&path, &raw, err) && dfa_raw_finish(out, &raw, class_of, 256, err);
out:
    free(sorted);
    free(path.pending);
    free(path.base);
    free(path.ends);
    dfa_words_fini(&path.closed);
    dfa_raw_fini(&raw);
    return ok;
}

/* ---- JSON spellings --------------------------------------------------------------------------------- */

static const struct {
    uint8_t letter, byte;
} short_escape[] = { { '"', '"' },  { '\\', '\\' }, { 'b', '\b' }, { 'f', '\f' },
                     { 'n', '\n' }, { 'r', '\r' },  { 't', '\t' } };

static bool has_short_escape(uint8_t byte)
{
    for (size_t i = 0; i < sizeof short_escape / sizeof short_escape[0]; i++)
        if (short_escape[i].byte == byte)
            return true;
    return false;
}

/* What a text's state becomes after a backslash.  *to: its escapes' first state, or DFA_NONE where none leads
 * on. */
static bool escapes(struct dfa_raw *raw, const struct dfa *text, uint32_t state, uint32_t shift, uint32_t *to,
                    struct err *err)
{
    uint32_t hex = DFA_NONE, tens[2] = { DFA_NONE, DFA_NONE };

    *to = DFA_NONE;
    for (unsigned byte = 0; byte < 0x5d; byte++) {
        uint32_t next = dfa_step(text, state, (uint8_t)byte);

        if (next == 0 || !(byte < 0x20 || has_short_escape((uint8_t)byte)))
            continue;
        if (*to == DFA_NONE) {
            *to = raw->count;
            if (!dfa_raw_states(raw, raw->count + 1, err))
                return false;
        }
        if (has_short_escape((uint8_t)byte)) {
            for (size_t i = 0; i < sizeof short_escape / sizeof short_escape[0]; i++)
                if (short_escape[i].byte == byte &&
                    !dfa_raw_edge(raw, *to, short_escape[i].letter, next + shift, err))
                    return false;
            continue;
        }
        if (hex == DFA_NONE) { /* u, 0, 0 */
            hex = raw->count + 2;
            if (!dfa_raw_states(raw, raw->count + 3, err) || !dfa_raw_edge(raw, *to, 'u', hex - 2, err) ||
                !dfa_raw_edge(raw, hex - 2, '0', hex - 1, err) || !dfa_raw_edge(raw, hex - 1, '0', hex, err))
                return false;
        }
        if (tens[byte >> 4] == DFA_NONE) {
            tens[byte >> 4] = raw->count;
            if (!dfa_raw_states(raw, raw->count + 1, err) ||
                !dfa_raw_edge(raw, hex, '0' + (byte >> 4), tens[byte >> 4], err))
                return false;
        }
        if (!dfa_raw_edge(raw, tens[byte >> 4], (uint8_t) "0123456789abcdef"[byte & 15], next + shift, err))
            return false;
    }
    return true;
}

/* Bytes that the text cannot tell apart, but JSON can, are parted: the controls, what has a short escape, and
 * every byte that escapes are written with. */
static uint32_t spelling_classes(const struct dfa *text, uint8_t class_of[256], uint8_t byte_of[256])
{
    static const char special[] = "\"\\/bfnrtu0123456789abcdef";
    uint32_t classes = 0;

    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t c = 0;

        if (byte < 0x20 || memchr(special, (int)byte, sizeof special - 1))
            c = classes;
        while (c < classes && (byte_of[c] < 0x20 || memchr(special, byte_of[c], sizeof special - 1) ||
                               text->class_of[byte] != text->class_of[byte_of[c]]))
            c++;
        if (c == classes)
            byte_of[classes++] = (uint8_t)byte;
        class_of[byte] = (uint8_t)c;
    }
    return classes;
}

/* State 0 is before the first quote, 1 after the last, s + 1 in the text's state s. */
bool dfa_spell(struct dfa **out, const struct dfa *text, struct err *err)
{
    enum { SHIFT = 1 };
    struct dfa_raw raw = { 0 };
    uint8_t class_of[256], byte_of[256];
    uint32_t classes = spelling_classes(text, class_of, byte_of), escape;
    bool ok = false;

    if (!dfa_raw_states(&raw, text->count + SHIFT, err))
        goto out;
    raw.accepts[1] = 1;
    if (text->start != 0 && !dfa_raw_edge(&raw, 0, '"', text->start + SHIFT, err))
        goto out;
    for (uint32_t state = 1; state < text->count; state++) {
        if (text->accepts[state] && !dfa_raw_edge(&raw, state + SHIFT, '"', 1, err))
            goto out;
        if (!escapes(&raw, text, state, SHIFT, &escape, err) ||
            (escape != DFA_NONE && !dfa_raw_edge(&raw, state + SHIFT, '\\', escape, err)))
            goto out;
        for (uint32_t c = 0; c < classes; c++) {
            uint8_t byte = byte_of[c];
            uint32_t next = dfa_step(text, state, byte);

            if (next != 0 && byte >= 0x20 && byte != '"' && byte != '\\' &&
                !dfa_raw_edge(&raw, state + SHIFT, byte, next + SHIFT, err))
                goto out;
        }
    }
    for (size_t i = 0; i < raw.edge_count; i++) /* bytes so far */
        raw.edge[i].symbol = class_of[raw.edge[i].symbol];
    ok = dfa_raw_finish(out, &raw, class_of, classes, err);
out:
    dfa_raw_fini(&raw);
    return ok;
}
