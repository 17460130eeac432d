/* Patterns: the tree becomes a nondeterministic machine over characters, that a deterministic automaton over
 * the classes of characters that the pattern tells apart, and that one over bytes.
 *
 * Assertions look at most one character back and one ahead.  What is behind is known when a set of places is
 * made; what must be ahead is kept with each place of the set, as the kinds of next that it may still have.
 */

#include <assert.h>
#include <stdlib.h>

#include "worker/model/dfa_pattern.h"

/* ---- the alphabet ----------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void alphabet_fini(struct dfa_alphabet *alphabet)
{
    free(alphabet->low);
    free(alphabet->symbol);
}

/* Where any set begins or ends; one symbol for all as yet. */
static bool alphabet_cut(struct dfa_alphabet *alphabet, const struct points *set, size_t count)
{
    size_t cuts = 3, kept = 0;

    for (size_t i = 0; i < count; i++)
        cuts += 2 * set[i].count;
    alphabet->low = malloc(cuts * sizeof *alphabet->low);
    alphabet->symbol = calloc(cuts, sizeof *alphabet->symbol);
    if (!alphabet->low || !alphabet->symbol)
        return false;
    cuts = 0;
    alphabet->low[cuts++] = 0;
    alphabet->low[cuts++] = 0xd800;
    alphabet->low[cuts++] = 0xe000;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < set[i].count; j++) {
            alphabet->low[cuts++] = set[i].range[j].low;
            alphabet->low[cuts++] = set[i].range[j].high + 1;
        }
    qsort(alphabet->low, cuts, sizeof *alphabet->low, by_value);
    for (size_t i = 0; i < cuts; i++)
        if (alphabet->low[i] < DFA_CODE_POINTS && (kept == 0 || alphabet->low[i] != alphabet->low[kept - 1]))
            alphabet->low[kept++] = alphabet->low[i];
    alphabet->intervals = (uint32_t)kept;
    alphabet->symbols = 1;
    return true;
}

/* Parts the symbols of which only some intervals are in the set.  members, inside, moved: room for one word
 * an interval. */
static bool alphabet_part(struct dfa_alphabet *alphabet, const struct points *set, uint32_t *members,
                          uint32_t *inside, uint32_t *moved, uint64_t *work, struct err *err)
{
    uint32_t at = 0;

    if (!dfa_spend(work, alphabet->intervals, err))
        return false;
    for (uint32_t s = 0; s < alphabet->symbols; s++)
        members[s] = inside[s] = 0;
    for (int pass = 0; pass < 2; pass++) {
        at = 0;
        for (uint32_t i = 0; i < alphabet->intervals; i++) {
            uint32_t symbol = alphabet->symbol[i];
            bool in;

            if (symbol == DFA_NONE)
                continue;
            while (at < set->count && set->range[at].high < alphabet->low[i])
                at++;
            in = at < set->count && set->range[at].low <= alphabet->low[i];
            if (pass == 0) {
                members[symbol]++;
                inside[symbol] += in;
            } else if (in && inside[symbol] < members[symbol]) {
                alphabet->symbol[i] = moved[symbol];
            }
        }
        if (pass == 0) {
            uint32_t symbols = alphabet->symbols;

            for (uint32_t s = 0; s < symbols; s++)
                if (inside[s] > 0 && inside[s] < members[s])
                    moved[s] = alphabet->symbols++;
        }
    }
    return true;
}

static bool alphabet_make(struct dfa_alphabet *alphabet, const struct points *set, size_t count,
                          struct err *err)
{
    uint32_t *room = NULL;
    uint64_t work = 0;
    bool ok = false;

    if (!alphabet_cut(alphabet, set, count) ||
        !(room = malloc((size_t)(alphabet->intervals + 1) * 3 * sizeof *room))) {
        dfa_no_memory(err);
        goto out;
    }
    for (uint32_t i = 0; i < alphabet->intervals; i++)
        if (alphabet->low[i] >= 0xd800 && alphabet->low[i] < 0xe000)
            alphabet->symbol[i] = DFA_NONE;
    for (size_t i = 0; i < count; i++)
        if (!alphabet_part(alphabet, &set[i], room, room + alphabet->intervals + 1,
                           room + 2 * (alphabet->intervals + 1), &work, err))
            goto out;
    ok = true;
out:
    free(room);
    return ok;
}

/* ---- the machine ------------------------------------------------------------------------------------ */

enum place_kind { PLACE_SPLIT, PLACE_SET, PLACE_ACCEPT, PLACE_ASSERT };

struct place {
    uint8_t kind;
    uint8_t assertion; /* enum pattern_kind */
    uint32_t set;
    uint32_t to, also; /* also: of a split, may be DFA_NONE */
};

/* What may come next, in masks. */
enum { NEXT_WORD = 1, NEXT_OTHER = 2, NEXT_END = 4, NEXT_ANY = 7 };

struct machine {
    struct dfa_alphabet alphabet;
    uint8_t *kind_of; /* of each symbol, NEXT_WORD or NEXT_OTHER */
    /* symbols of set i: member[first[i]] up to member[first[i + 1]] */
    size_t *first;
    uint32_t *member;
    size_t member_count, member_capacity;

    struct place *place;
    uint32_t count;
    size_t capacity;
    uint32_t start;
    uint32_t rest; /* the place that takes all that follows, or DFA_NONE: a set with it needs no other */
};

static bool add_place(struct machine *m, struct place place, uint32_t *id, struct err *err)
{
    if (m->count >= PATTERN_NODES_MAX + 16) /* what pattern_read foresaw, and the ends */
        return dfa_too_large(err);
    if (!dfa_grow((void **)&m->place, &m->capacity, (size_t)m->count + 1, sizeof *m->place))
        return dfa_no_memory(err);
    m->place[m->count] = place;
    *id = m->count++;
    return true;
}

/* From a node of the tree, with what comes after it, to *entry.  Recursion is as deep as groups are nested,
 * four calls a group. */
static bool build(struct machine *m, const struct pattern_tree *tree, uint32_t id, uint32_t after,
                  uint32_t *entry, struct err *err);

static bool build_repeat(struct machine *m, const struct pattern_tree *tree, const struct pattern_node *node,
                         uint32_t after, uint32_t *entry, struct err *err)
{
    uint32_t at = after, split;

    if (node->high == UINT32_MAX) {
        if (!add_place(m, (struct place){ .kind = PLACE_SPLIT, .also = after }, &split, err) ||
            !build(m, tree, node->child, split, &at, err))
            return false;
        m->place[split].to = at;
        at = split;
    } else {
        /* Each of the optional ones may be the first that is left out. */
        for (uint32_t i = node->low; i < node->high; i++) {
            if (!build(m, tree, node->child, at, &at, err) ||
                !add_place(m, (struct place){ .kind = PLACE_SPLIT, .to = at, .also = after }, &at, err))
                return false;
        }
    }
    for (uint32_t i = 0; i < node->low; i++)
        if (!build(m, tree, node->child, at, &at, err))
            return false;
    *entry = at;
    return true;
}

/* The parts of a sequence are built from the last to the first; they are linked the other way. */
static bool build_sequence(struct machine *m, const struct pattern_tree *tree,
                           const struct pattern_node *node, uint32_t after, uint32_t *entry, struct err *err)
{
    uint32_t count = 0, *part;
    bool ok = true;

    for (uint32_t id = node->child; id != DFA_NONE; id = tree->node[id].next)
        count++;
    if (!(part = malloc(count * sizeof *part)))
        return dfa_no_memory(err);
    count = 0;
    for (uint32_t id = node->child; id != DFA_NONE; id = tree->node[id].next)
        part[count++] = id;
    while (ok && count > 0)
        ok = build(m, tree, part[--count], after, &after, err);
    free(part);
    *entry = after;
    return ok;
}

static bool build_choice(struct machine *m, const struct pattern_tree *tree, const struct pattern_node *node,
                         uint32_t after, uint32_t *entry, struct err *err)
{
    uint32_t one;

    *entry = DFA_NONE;
    for (uint32_t id = node->child; id != DFA_NONE; id = tree->node[id].next) {
        if (!build(m, tree, id, after, &one, err))
            return false;
        if (*entry != DFA_NONE &&
            !add_place(m, (struct place){ .kind = PLACE_SPLIT, .to = one, .also = *entry }, &one, err))
            return false;
        *entry = one;
    }
    return true;
}

static bool build(struct machine *m, const struct pattern_tree *tree, uint32_t id, uint32_t after,
                  uint32_t *entry, struct err *err)
{
    const struct pattern_node *node = &tree->node[id];

    switch (node->kind) {
    case PATTERN_EMPTY:
        *entry = after;
        return true;
    case PATTERN_SET:
        return add_place(m, (struct place){ .kind = PLACE_SET, .set = node->set, .to = after }, entry, err);
    case PATTERN_START:
    case PATTERN_END:
    case PATTERN_BORDER:
    case PATTERN_NOT_BORDER:
        return add_place(
            m, (struct place){ .kind = PLACE_ASSERT, .assertion = (uint8_t)node->kind, .to = after }, entry,
            err);
    case PATTERN_SEQUENCE:
        return build_sequence(m, tree, node, after, entry, err);
    case PATTERN_CHOICE:
        return build_choice(m, tree, node, after, entry, err);
    case PATTERN_REPEAT:
        return build_repeat(m, tree, node, after, entry, err);
    }
    assert(false);
    return false;
}

static bool is_word(uint32_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || c == '_' || (c >= 'a' && c <= 'z');
}

/* The symbols of each set; a symbol is in a set or is not, so one interval of each says it. */
static bool machine_sets(struct machine *m, const struct points *set, size_t count, struct err *err)
{
    struct dfa_alphabet *alphabet = &m->alphabet;
    uint32_t *seen = calloc((size_t)alphabet->symbols + 1, sizeof *seen);
    uint64_t work = 0;
    bool ok = false;

    m->first = calloc(count + 1, sizeof *m->first);
    m->kind_of = calloc((size_t)alphabet->symbols + 1, 1);
    if (!seen || !m->first || !m->kind_of) {
        dfa_no_memory(err);
        goto out;
    }
    for (uint32_t i = 0; i < alphabet->intervals; i++)
        if (alphabet->symbol[i] != DFA_NONE)
            m->kind_of[alphabet->symbol[i]] = is_word(alphabet->low[i]) ? NEXT_WORD : NEXT_OTHER;
    for (size_t s = 0; s < count; s++) {
        size_t at = 0;

        if (!dfa_spend(&work, alphabet->intervals, err))
            goto out;
        for (uint32_t i = 0; i < alphabet->intervals; i++) {
            uint32_t symbol = alphabet->symbol[i];

            while (at < set[s].count && set[s].range[at].high < alphabet->low[i])
                at++;
            if (symbol == DFA_NONE || at == set[s].count || set[s].range[at].low > alphabet->low[i] ||
                seen[symbol] == s + 1)
                continue;
            seen[symbol] = (uint32_t)s + 1;
            if (!dfa_grow((void **)&m->member, &m->member_capacity, m->member_count + 1, sizeof *m->member)) {
                dfa_no_memory(err);
                goto out;
            }
            m->member[m->member_count++] = symbol;
        }
        m->first[s + 1] = m->member_count;
    }
    ok = true;
out:
    free(seen);
    return ok;
}

static void machine_fini(struct machine *m)
{
    alphabet_fini(&m->alphabet);
    free(m->kind_of);
    free(m->first);
    free(m->member);
    free(m->place);
}

/* ---- sets of places --------------------------------------------------------------------------------- */

struct closing {
    struct machine *m;
    uint8_t *mask;   /* of each place that has been met for this set */
    uint32_t *stamp; /* ... if this is `now` */
    uint32_t now;
    uint32_t *stack, *member; /* places; member: those of the set */
    size_t stack_capacity, member_capacity;
    size_t members;
    uint64_t work;
};

static bool closing_push(struct closing *c, size_t *depth, uint32_t place, uint8_t mask, struct err *err)
{
    uint8_t had = c->stamp[place] == c->now ? c->mask[place] : 0;

    if ((mask & ~had) == 0)
        return true;
    if (!dfa_grow((void **)&c->stack, &c->stack_capacity, *depth + 1, sizeof *c->stack))
        return dfa_no_memory(err);
    if (had == 0 && c->m->place[place].kind != PLACE_SPLIT && c->m->place[place].kind != PLACE_ASSERT) {
        if (!dfa_grow((void **)&c->member, &c->member_capacity, c->members + 1, sizeof *c->member))
            return dfa_no_memory(err);
        c->member[c->members++] = place;
    }
    c->stamp[place] = c->now;
    c->mask[place] = had | mask;
    c->stack[(*depth)++] = place;
    return true;
}

static void closing_begin(struct closing *c)
{
    c->now++;
    c->members = 0;
}

/* All that can be reached from a place without taking a character, behind which is a word's character or not.
 */
static bool closing_from(struct closing *c, uint32_t place, bool at_start, bool after_word, struct err *err)
{
    size_t depth = 0;

    if (!closing_push(c, &depth, place, NEXT_ANY, err))
        return false;
    while (depth > 0) {
        uint32_t id = c->stack[--depth];
        const struct place *p = &c->m->place[id];
        uint8_t mask = c->mask[id];

        if (!dfa_spend(&c->work, 1, err))
            return false;
        if (p->kind == PLACE_SPLIT) {
            if (!closing_push(c, &depth, p->to, mask, err) ||
                (p->also != DFA_NONE && !closing_push(c, &depth, p->also, mask, err)))
                return false;
        } else if (p->kind == PLACE_ASSERT) {
            bool to_word =
                (p->assertion == PATTERN_BORDER) != after_word; /* what must follow, for \b and \B */

            mask &= p->assertion == PATTERN_START ? (at_start ? NEXT_ANY : 0)
                    : p->assertion == PATTERN_END ? NEXT_END
                    : to_word                     ? NEXT_WORD
                                                  : NEXT_OTHER | NEXT_END;
            if (!closing_push(c, &depth, p->to, mask, err))
                return false;
        }
    }
    return true;
}

/* The set as a sequence: place * 8 + mask, in order. */
static bool closing_end(struct closing *c, struct dfa_words *sets, uint32_t *id, struct err *err)
{
    struct machine *m = c->m;
    size_t kept = 0;

    if (m->rest != DFA_NONE && c->stamp[m->rest] == c->now && c->mask[m->rest] == NEXT_ANY) {
        for (size_t i = 0; i < c->members;
             i++) /* the rest of the text, whatever it is: the other places add nothing */
            if (c->member[i] == m->rest || m->place[c->member[i]].kind == PLACE_ACCEPT)
                c->member[kept++] = c->member[i];
        c->members = kept;
    }
    kept = 0;
    for (size_t i = 0; i < c->members; i++) {
        uint32_t place = c->member[i];
        uint8_t useful = m->place[place].kind == PLACE_ACCEPT ? NEXT_END : NEXT_WORD | NEXT_OTHER;

        if (c->mask[place] & useful)
            c->member[kept++] = place << 3 | (c->mask[place] & useful);
    }
    c->members = kept;
    if (!dfa_spend(&c->work, kept * 4, err))
        return false;
    if (kept > 1)
        qsort(c->member, kept, sizeof *c->member, by_value);
    return dfa_words_intern(sets, c->member, kept, id, err);
}

/* Where each symbol leads from the set at hand: lists of places, in one pool. */
struct fan {
    uint32_t *count, *fill; /* by symbol */
    uint32_t *used;         /* the symbols with places */
    uint32_t used_count;
    uint32_t *to;
    size_t to_capacity;
};

static bool fan_out(struct fan *fan, struct closing *c, const uint32_t *set, size_t size, struct err *err)
{
    const struct machine *m = c->m;
    size_t all = 0;

    fan->used_count = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < size; i++) {
            const struct place *p = &m->place[set[i] >> 3];
            uint8_t mask = set[i] & 7;

            if (p->kind != PLACE_SET)
                continue;
            if (!dfa_spend(&c->work, m->first[p->set + 1] - m->first[p->set] + 1, err))
                return false;
            for (size_t j = m->first[p->set]; j < m->first[p->set + 1]; j++) {
                uint32_t symbol = m->member[j];

                if (!(mask & m->kind_of[symbol]))
                    continue;
                if (pass == 1) {
                    fan->to[fan->fill[symbol]++] = p->to;
                } else {
                    if (fan->count[symbol]++ == 0)
                        fan->used[fan->used_count++] = symbol;
                    all++;
                }
            }
        }
        if (pass == 0) {
            uint32_t at = 0;

            if (!dfa_grow((void **)&fan->to, &fan->to_capacity, all + 1, sizeof *fan->to))
                return dfa_no_memory(err);
            for (uint32_t i = 0; i < fan->used_count; i++) {
                fan->fill[fan->used[i]] = at;
                at += fan->count[fan->used[i]];
            }
        }
    }
    return true;
}

static bool determine(struct machine *m, struct dfa_raw *raw, struct err *err)
{
    struct closing c = { .m = m };
    struct fan fan = { 0 };
    struct dfa_words sets = { 0 };
    uint32_t *now = NULL, id;
    size_t now_capacity = 0, symbols = m->alphabet.symbols;
    bool ok = false;

    c.mask = calloc(m->count, 1);
    c.stamp = calloc(m->count, sizeof *c.stamp);
    fan.count = calloc(symbols + 1, sizeof *fan.count);
    fan.fill = calloc(symbols + 1, sizeof *fan.fill);
    fan.used = calloc(symbols + 1, sizeof *fan.used);
    if (!c.mask || !c.stamp || !fan.count || !fan.fill || !fan.used) {
        dfa_no_memory(err);
        goto out;
    }
    closing_begin(&c);
    if (!closing_from(&c, m->start, true, false, err) || !closing_end(&c, &sets, &id, err))
        goto out;
    for (uint32_t at = 0; at < sets.count; at++) {
        size_t size;
        const uint32_t *set = dfa_words_get(&sets, at, &size);

        if (!dfa_grow((void **)&now, &now_capacity, size + 1, sizeof *now)) {
            dfa_no_memory(err);
            goto out;
        }
        for (size_t i = 0; i < size; i++)
            now[i] = set[i];
        if (!dfa_raw_states(raw, at + 1, err))
            goto out;
        for (size_t i = 0; i < size; i++)
            raw->accepts[at] |= m->place[now[i] >> 3].kind == PLACE_ACCEPT;
        if (!fan_out(&fan, &c, now, size, err))
            goto out;
        for (uint32_t i = 0; i < fan.used_count; i++) {
            uint32_t symbol = fan.used[i];

            closing_begin(&c);
            for (uint32_t j = fan.fill[symbol] - fan.count[symbol]; j < fan.fill[symbol]; j++)
                if (!closing_from(&c, fan.to[j], false, m->kind_of[symbol] == NEXT_WORD, err))
                    goto out;
            if (!closing_end(&c, &sets, &id, err) || !dfa_raw_edge(raw, at, symbol, id, err))
                goto out;
            fan.count[symbol] = 0;
        }
    }
    ok = dfa_raw_minimise(raw, (uint32_t)symbols, err);
out:
    free(c.mask);
    free(c.stamp);
    free(c.stack);
    free(c.member);
    free(fan.count);
    free(fan.fill);
    free(fan.used);
    free(fan.to);
    free(now);
    dfa_words_fini(&sets);
    return ok;
}

/* ---- the whole -------------------------------------------------------------------------------------- */

/* The pattern's own places, and for a search what may stand before and after it.  all: the set of all
 * characters. */
static bool machine_places(struct machine *m, const struct pattern_tree *tree, uint32_t all, bool search,
                           struct err *err)
{
    uint32_t end, loop, any;

    m->rest = DFA_NONE;
    if (!add_place(m, (struct place){ .kind = PLACE_ACCEPT }, &end, err))
        return false;
    if (search) { /* .* after it */
        if (!add_place(m, (struct place){ .kind = PLACE_SPLIT, .to = end, .also = end + 2 }, &loop, err) ||
            !add_place(m, (struct place){ .kind = PLACE_SET, .set = all, .to = loop }, &m->rest, err))
            return false;
        end = loop;
    }
    if (!build(m, tree, tree->root, end, &m->start, err))
        return false;
    if (search) { /* .* before it */
        if (!add_place(m, (struct place){ .kind = PLACE_SPLIT, .to = m->start }, &loop, err) ||
            !add_place(m, (struct place){ .kind = PLACE_SET, .set = all, .to = loop }, &any, err))
            return false;
        m->place[loop].also = any;
        m->start = loop;
    }
    return true;
}

static bool pattern_sets(struct points **set, const struct pattern_tree *tree, struct err *err)
{
    struct points *all = calloc(tree->set_count + 2, sizeof *all);

    if (!(*set = all))
        return dfa_no_memory(err);
    for (size_t i = 0; i < tree->set_count; i++)
        all[i] = tree->set[i];
    return points_add(&all[tree->set_count], 0, DFA_CODE_POINTS - 1, err) &&
           points_class(&all[tree->set_count + 1], 'w', err);
}

bool dfa_pattern_compile(struct dfa **out, struct span pattern, bool search, struct err *err)
{
    struct pattern_tree tree = { 0 };
    struct machine m = { 0 };
    struct dfa_raw raw = { 0 };
    struct points *set = NULL;
    size_t sets;
    bool ok = false;

    if (!pattern_read(&tree, pattern, err))
        goto out;
    if (tree.node[tree.root].size > PATTERN_NODES_MAX) {
        dfa_too_large(err);
        goto out;
    }
    /* The pattern's sets, all characters, and the word's if borders ask for it. */
    sets = tree.set_count + 1 + tree.borders;
    ok = pattern_sets(&set, &tree, err) && alphabet_make(&m.alphabet, set, sets, err) &&
         machine_sets(&m, set, sets, err) &&
         machine_places(&m, &tree, (uint32_t)tree.set_count, search, err) && determine(&m, &raw, err) &&
         dfa_expand(out, &raw, &m.alphabet, err);
out:
    if (set) {
        points_fini(&set[tree.set_count]);
        points_fini(&set[tree.set_count + 1]);
    }
    free(set);
    pattern_tree_fini(&tree);
    machine_fini(&m);
    dfa_raw_fini(&raw);
    return ok;
}

bool dfa_pattern(struct dfa **out, struct span pattern, bool search, struct err *err)
{
    if (pattern.size > DFA_PATTERN_MAX)
        return err_set(err, ERR_LIMIT, "the pattern has %zu bytes (at most %d)", pattern.size,
                       DFA_PATTERN_MAX);
    return dfa_pattern_compile(out, pattern, search, err);
}
