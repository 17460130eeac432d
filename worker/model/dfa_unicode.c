/* From automata over code points to automata over the bytes of UTF-8. */

#include <assert.h>
#include <stdlib.h>

#include "worker/model/dfa_build.h"

/* How characters are written: a tree of bytes with the symbol at its leaves, equal branches shared.  A node
 * is a sequence of (low byte, high byte, child); a child is a node or LEAF with the symbol. */
#define LEAF 0x80000000u

struct tree {
    const struct dfa_alphabet *alphabet;
    struct dfa_words nodes;
    uint32_t root;
};

struct branches { /* of one node while it is made: at most one a byte */
    uint32_t word[256 * 3];
    size_t size;
};

static void add_branch(struct branches *branches, uint32_t low, uint32_t high, uint32_t child)
{
    uint32_t *last = branches->word + branches->size;

    if (child == DFA_NONE)
        return;
    if (branches->size > 0 && last[-1] == child && last[-2] + 1 == low) {
        last[-2] = high;
        return;
    }
    last[0] = low;
    last[1] = high;
    last[2] = child;
    branches->size += 3;
}

static bool add_node(struct tree *tree, const struct branches *branches, uint32_t *child, struct err *err)
{
    if (branches->size == 0) {
        *child = DFA_NONE;
        return true;
    }
    return dfa_words_intern(&tree->nodes, branches->word, branches->size, child, err);
}

/* The interval that code point c is in. */
static uint32_t interval_of(const struct dfa_alphabet *alphabet, uint32_t c)
{
    uint32_t low = 0, high = alphabet->intervals;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (alphabet->low[middle] <= c)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static uint32_t interval_end(const struct dfa_alphabet *alphabet, uint32_t interval)
{
    return interval + 1 < alphabet->intervals ? alphabet->low[interval + 1] : DFA_CODE_POINTS;
}

/* The node of the code points from base on whose last `level` bytes are still to come.  Continuation bytes
 * below `from` would spell a shorter character the long way. */
static bool build_tree(struct tree *tree, uint32_t base, unsigned level, uint32_t from, uint32_t *child,
                       struct err *err)
{
    struct branches branches = { .size = 0 };
    uint32_t interval, symbol, below;

    if (base >= DFA_CODE_POINTS) {
        *child = DFA_NONE;
        return true;
    }
    interval = interval_of(tree->alphabet, base);
    symbol = tree->alphabet->symbol[interval];
    if (level == 0) {
        *child = symbol == DFA_NONE ? DFA_NONE : LEAF | symbol;
        return true;
    }
    if (from == 0 && base + (1u << 6 * level) <= interval_end(tree->alphabet, interval)) { /* all alike */
        if (!build_tree(tree, base, level - 1, 0, &below, err))
            return false;
        add_branch(&branches, 0x80, 0xbf, below);
        return add_node(tree, &branches, child, err);
    }
    for (uint32_t i = from; i < 64; i++) {
        if (!build_tree(tree, base + (i << 6 * (level - 1)), level - 1, 0, &below, err))
            return false;
        add_branch(&branches, 0x80 + i, 0x80 + i, below);
    }
    return add_node(tree, &branches, child, err);
}

static bool build_root(struct tree *tree, struct err *err)
{
    struct branches branches = { .size = 0 };
    uint32_t child;

    for (uint32_t lead = 0; lead < 0xf5; lead++) {
        bool ok = lead < 0x80   ? build_tree(tree, lead, 0, 0, &child, err)
                  : lead < 0xc2 ? (child = DFA_NONE, true)
                  : lead < 0xe0 ? build_tree(tree, (lead & 0x1f) << 6, 1, 0, &child, err)
                  : lead < 0xf0
                      ? build_tree(tree, (lead & 0x0f) << 12, 2, lead == 0xe0 ? 0x20 : 0, &child, err)
                      : build_tree(tree, (lead & 0x07) << 18, 3, lead == 0xf0 ? 0x10 : 0, &child, err);

        if (!ok)
            return false;
        add_branch(&branches, lead, lead, child);
    }
    return add_node(tree, &branches, &tree->root, err);
}

/* ---- the automaton ---------------------------------------------------------------------------------- */

struct expansion {
    struct tree tree;
    uint32_t states;        /* of the raw automaton over symbols; they keep their numbers */
    const uint32_t *target; /* of the state at hand, by symbol */
    uint32_t *known;        /* by node of the tree: what became of it for the state at hand, plus 1 */
    uint32_t *known_for;    /* ... if this says that state, plus 1 */
    struct dfa_words made;  /* nodes with states at their leaves: (low, high, state) */
    uint64_t work;
};

/* The branches of a tree's node, with the targets of the state at hand put in. */
static bool fill_in(struct expansion *x, uint32_t state, uint32_t node, struct branches *branches,
                    struct err *err);

static bool state_of(struct expansion *x, uint32_t state, uint32_t child, uint32_t *to, struct err *err)
{
    struct branches branches;
    uint32_t id;

    if (child & LEAF) {
        *to = x->target[child & ~LEAF];
        return true;
    }
    if (x->known_for[child] == state + 1) {
        *to = x->known[child];
        return true;
    }
    if (!fill_in(x, state, child, &branches, err))
        return false;
    if (branches.size == 0)
        *to = DFA_NONE;
    else if (!dfa_words_intern(&x->made, branches.word, branches.size, &id, err))
        return false;
    else
        *to = x->states + id;
    x->known_for[child] = state + 1;
    x->known[child] = *to;
    return true;
}

static bool fill_in(struct expansion *x, uint32_t state, uint32_t node, struct branches *branches,
                    struct err *err)
{
    size_t size;
    const uint32_t *word = dfa_words_get(&x->tree.nodes, node, &size); /* no node is added any more */
    uint32_t to;

    branches->size = 0;
    if (!dfa_spend(&x->work, size, err))
        return false;
    for (size_t i = 0; i < size; i += 3) {
        if (!state_of(x, state, word[i + 2], &to, err))
            return false;
        add_branch(branches, word[i], word[i + 1], to);
    }
    return true;
}

static bool add_edges(struct dfa_raw *raw, uint32_t from, const uint32_t *word, size_t size,
                      const uint8_t class_of[256], struct err *err)
{
    for (size_t i = 0; i < size; i += 3)
        for (uint32_t c = class_of[word[i]]; c <= class_of[word[i + 1]]; c++)
            if (!dfa_raw_edge(raw, from, c, word[i + 2], err))
                return false;
    return true;
}

/* Bytes that no node tells apart; a class is a run of bytes. */
static uint32_t tree_classes(const struct tree *tree, uint8_t class_of[256])
{
    bool cut[257] = { false };
    uint32_t classes = 0;

    for (uint32_t node = 0; node < tree->nodes.count; node++) {
        size_t size;
        const uint32_t *word = dfa_words_get(&tree->nodes, node, &size);

        for (size_t i = 0; i < size; i += 3)
            cut[word[i]] = cut[word[i + 1] + 1] = true;
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        classes += byte > 0 && cut[byte];
        class_of[byte] = (uint8_t)classes;
    }
    return classes + 1;
}

static bool expand(struct expansion *x, struct dfa_raw *bytes, const struct dfa_raw *raw, uint32_t *target,
                   const uint8_t class_of[256], struct err *err)
{
    struct branches branches;
    size_t *first = calloc((size_t)raw->count + 2, sizeof *first), size;
    uint32_t *list = malloc((raw->edge_count + 1) * sizeof *list);
    bool ok = false;

    if (!first || !list) {
        dfa_no_memory(err);
        goto out;
    }
    for (size_t i = 0; i < raw->edge_count; i++)
        first[raw->edge[i].from + 2]++;
    for (uint32_t s = 0; s < raw->count; s++)
        first[s + 2] += first[s + 1];
    for (size_t i = 0; i < raw->edge_count; i++)
        list[first[raw->edge[i].from + 1]++] = (uint32_t)i;
    if (!dfa_raw_states(bytes, raw->count, err))
        goto out;
    for (uint32_t state = 0; state < raw->count; state++)
        bytes->accepts[state] = raw->accepts[state];
    x->target = target;
    for (uint32_t state = 0; state < raw->count && x->tree.root != DFA_NONE; state++) {
        for (size_t i = first[state]; i < first[state + 1]; i++)
            target[raw->edge[list[i]].symbol] = raw->edge[list[i]].to;
        if (!fill_in(x, state, x->tree.root, &branches, err) ||
            !add_edges(bytes, state, branches.word, branches.size, class_of, err))
            goto out;
        for (size_t i = first[state]; i < first[state + 1]; i++)
            target[raw->edge[list[i]].symbol] = DFA_NONE;
    }
    if (!dfa_raw_states(bytes, raw->count + (uint32_t)x->made.count, err))
        goto out;
    for (uint32_t id = 0; id < x->made.count; id++) {
        const uint32_t *word = dfa_words_get(&x->made, id, &size);

        if (!add_edges(bytes, raw->count + id, word, size, class_of, err))
            goto out;
    }
    ok = true;
out:
    free(first);
    free(list);
    return ok;
}

/* What comes out is minimal as it is: the states between characters differ already over symbols; those within
 * one are kept once each, and differ by where a byte leads; and no state of the one kind takes what one of
 * the other does. */
bool dfa_expand(struct dfa **out, const struct dfa_raw *raw, const struct dfa_alphabet *alphabet,
                struct err *err)
{
    struct expansion x = { .tree = { .alphabet = alphabet }, .states = raw->count };
    struct dfa_raw bytes = { 0 };
    uint32_t *target = malloc(((size_t)alphabet->symbols + 1) * sizeof *target);
    uint8_t class_of[256];
    uint32_t classes;
    bool ok = false;

    if (!target) {
        dfa_no_memory(err);
        goto out;
    }
    for (uint32_t s = 0; s < alphabet->symbols; s++)
        target[s] = DFA_NONE;
    if (!build_root(&x.tree, err))
        goto out;
    x.known = malloc((x.tree.nodes.count + 1) * sizeof *x.known);
    x.known_for = calloc(x.tree.nodes.count + 1, sizeof *x.known_for);
    if (!x.known || !x.known_for) {
        dfa_no_memory(err);
        goto out;
    }
    classes = tree_classes(&x.tree, class_of);
    ok =
        expand(&x, &bytes, raw, target, class_of, err) && dfa_raw_number(out, &bytes, class_of, classes, err);
out:
    free(target);
    free(x.known);
    free(x.known_for);
    dfa_words_fini(&x.tree.nodes);
    dfa_words_fini(&x.made);
    dfa_raw_fini(&bytes);
    return ok;
}

/* ---- all texts, and those of some length ------------------------------------------------------------ */

static const struct dfa_alphabet one_symbol = {
    .low = (uint32_t[]){ 0, 0xd800, 0xe000 },
    .symbol = (uint32_t[]){ 0, DFA_NONE, 0 },
    .intervals = 3,
    .symbols = 1,
};

bool dfa_any_text(struct dfa **out, struct err *err)
{
    return dfa_length(out, 0, UINT32_MAX, err);
}

/* State n: n characters so far, or low and more where there is no upper bound. */
bool dfa_length(struct dfa **out, uint32_t low, uint32_t high, struct err *err)
{
    struct dfa_raw raw = { 0 };
    uint32_t last = high == UINT32_MAX ? low : high;
    bool ok = false;

    if (low > high)
        return dfa_texts(out, NULL, 0, err);
    if (last >= DFA_RAW_STATES_MAX)
        return dfa_too_large(err);
    if (!dfa_raw_states(&raw, last + 1, err))
        goto out;
    for (uint32_t n = 0; n <= last; n++) {
        raw.accepts[n] = n >= low;
        if (n < last && !dfa_raw_edge(&raw, n, 0, n + 1, err))
            goto out;
    }
    ok = (high != UINT32_MAX || dfa_raw_edge(&raw, last, 0, last, err)) && dfa_raw_minimise(&raw, 1, err) &&
         dfa_expand(out, &raw, &one_symbol, err);
out:
    dfa_raw_fini(&raw);
    return ok;
}
