#include "worker/model/grammar_inside.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    POOL_BLOCK = 1 << 16,
    TABLE_START = 1 << 10,
    /* One call may add so much on top: the places along the longest C, and one walk. */
    SLACK_BYTES = 24 << 20,
    TABLE_SLACK_BYTES = 20 << 20,
    ADVANCE_BYTES = 1 << 14, /* between two looks at the memory */
};

/* ---- memory ------------------------------------------------------------------------------------- */

void *pool_take(struct grammar *g, size_t size)
{
    struct pool_block *block = g->pool;
    void *taken;

    size = (size + 15) & ~(size_t)15;
    if (!block || block->size - block->used < size) {
        size_t room = size > POOL_BLOCK / 4 ? size : POOL_BLOCK;

        if (!(block = calloc(1, sizeof *block + room))) {
            g->failed = true;
            return NULL;
        }
        block->size = room;
        g->pool_bytes += sizeof *block + room;
        /* A large piece has a block of its own; what is left of the first stays in use. */
        if (room == size && g->pool) {
            block->next = g->pool->next;
            g->pool->next = block;
        } else {
            block->next = g->pool;
            g->pool = block;
        }
    }
    taken = (unsigned char *)(block + 1) + block->used;
    block->used += size;
    return taken;
}

static void pool_free(struct pool_block *block)
{
    while (block) {
        struct pool_block *next = block->next;

        free(block);
        block = next;
    }
}

static uint32_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

static uint32_t mix_pointer(const void *p)
{
    return mix((uint64_t)(uintptr_t)p);
}

/* ---- tables ------------------------------------------------------------------------------------- */

static uint32_t hash_stack(const void *entry)
{
    const struct stack *s = entry;

    return mix(((uint64_t)s->rule << 40) ^ ((uint64_t)s->local << 20) ^ s->counter ^
               ((uint64_t)mix_pointer(s->parent) << 17));
}

static uint32_t hash_place(const void *entry)
{
    return ((const struct place *)entry)->hash;
}

struct step {
    struct place *from, *to;
    uint8_t byte;
};

static uint32_t hash_step(const void *entry)
{
    const struct step *s = entry;

    return mix((uint64_t)(uintptr_t)s->from * 257 + s->byte);
}

static bool table_room(struct grammar *g, struct table *t, uint32_t (*hash)(const void *entry))
{
    size_t size = t->size ? t->size * 2 : TABLE_START;
    void **slot;

    if (2 * t->count < t->size)
        return true;
    if (!(slot = calloc(size, sizeof *slot))) {
        g->failed = true;
        return false;
    }
    for (size_t i = 0; i < t->size; i++)
        if (t->slot[i]) {
            size_t at = hash(t->slot[i]) & (size - 1);

            while (slot[at])
                at = (at + 1) & (size - 1);
            slot[at] = t->slot[i];
        }
    free(t->slot);
    g->pool_bytes += (size - t->size) * sizeof *slot;
    t->slot = slot;
    t->size = size;
    return true;
}

/* ---- stacks ------------------------------------------------------------------------------------- */

static struct stack *push(struct grammar *g, struct stack *parent, uint32_t rule, uint32_t local,
                          uint32_t counter)
{
    struct stack key = { .parent = parent, .rule = rule, .local = local, .counter = counter }, *s;
    size_t at;

    if (!table_room(g, &g->stacks, hash_stack))
        return NULL;
    for (at = hash_stack(&key) & (g->stacks.size - 1); (s = g->stacks.slot[at]) != NULL;
         at = (at + 1) & (g->stacks.size - 1))
        if (s->parent == parent && s->rule == rule && s->local == local && s->counter == counter)
            return s;
    if (!(s = pool_take(g, sizeof *s)))
        return NULL;
    *s = key;
    s->depth = parent->depth + 1;
    s->len = parent->len + local_reach(g, rule, local, counter).len;
    g->stacks.slot[at] = s;
    g->stacks.count++;
    return s;
}

/* By contents, so that no order depends on what ran before. */
static int compare_stacks(const struct stack *a, const struct stack *b)
{
    if (a->depth != b->depth)
        return a->depth < b->depth ? -1 : 1;
    for (; a != b; a = a->parent, b = b->parent) {
        if (a->rule != b->rule)
            return a->rule < b->rule ? -1 : 1;
        if (a->local != b->local)
            return a->local < b->local ? -1 : 1;
        if (a->counter != b->counter)
            return a->counter < b->counter ? -1 : 1;
    }
    return 0;
}

/* ---- the closure: all configurations that a set comes to without a byte ------------------------- */

struct closing {
    bool ends, open, tight;
    uint32_t deep;
    uint64_t far;
};

static void seen_begin(struct grammar *g)
{
    g->seen_count = 0;
    if (++g->stamp == 0) {
        memset(g->seen_stamp, 0, PLACE_HASH * sizeof *g->seen_stamp);
        g->stamp = 1;
    }
}

/* False when it is there already or a bound keeps it out. */
static bool see(struct grammar *g, const struct config *c, struct closing *closing)
{
    struct reach reach = local_reach(g, c->rule, c->local, c->counter);
    uint64_t len = reach.len + c->stack->len;
    uint32_t deep = reach.need + c->stack->depth, at;

    if (deep > closing->deep)
        closing->deep = deep;
    if (len > closing->far)
        closing->far = len;
    if (len > GRAMMAR_ENDING_MAX || deep > GRAMMAR_DEPTH_MAX || g->seen_count == PLACE_SEEN_MAX) {
        closing->tight = true;
        return false;
    }
    at = mix(((uint64_t)c->rule << 40) ^ ((uint64_t)c->local << 20) ^ c->counter ^
             (uint64_t)mix_pointer(c->stack) << 17) &
         (PLACE_HASH - 1);
    for (; g->seen_stamp[at] == g->stamp; at = (at + 1) & (PLACE_HASH - 1)) {
        const struct config *s = &g->seen[g->seen_slot[at]].config;

        if (s->rule == c->rule && s->local == c->local && s->counter == c->counter && s->stack == c->stack)
            return false;
    }
    g->seen_stamp[at] = g->stamp;
    g->seen_slot[at] = g->seen_count;
    g->seen[g->seen_count++] = (struct seen){ *c, len, local_is_active(g, c) };
    return true;
}

/* The i-th that follows c without a byte.  False: there is none. */
static bool follow(struct grammar *g, const struct config *c, uint32_t i, struct closing *closing,
                   struct config *to, bool *somewhere)
{
    struct config back;
    enum silent silent;

    *somewhere = false;
    if (!local_silent(g, c, i, &silent, to, &back))
        return false;
    if (silent == SILENT_RETURN) {
        if (c->stack == g->bottom)
            closing->ends = true;
        else if (c->stack == g->below)
            closing->open = true;
        else {
            *to = (struct config){ c->stack->parent, c->stack->rule, c->stack->local, c->stack->counter };
            *somewhere = true;
        }
        return true;
    }
    *somewhere = true;
    if (silent == SILENT_CALL && !local_is_over(g, back.rule, back.local)) {
        if (c->stack->depth >= GRAMMAR_DEPTH_MAX) {
            closing->tight = true;
            *somewhere = false;
        } else if (!(to->stack = push(g, c->stack, back.rule, back.local, back.counter))) {
            *somewhere = false;
        }
    }
    return true;
}

/* With the way to its shortest ending, whatever other ways a bound may keep out later. */
static void enter(struct grammar *g, struct config c, struct closing *closing)
{
    struct config to;
    bool somewhere;

    while (see(g, &c, closing) && follow(g, &c, 0, closing, &to, &somewhere) && somewhere)
        c = to;
}

static int compare_seen(const void *left, const void *right)
{
    const struct seen *a = left, *b = right;

    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    if (a->config.rule != b->config.rule)
        return a->config.rule < b->config.rule ? -1 : 1;
    if (a->config.local != b->config.local)
        return a->config.local < b->config.local ? -1 : 1;
    if (a->config.counter != b->config.counter)
        return a->config.counter < b->config.counter ? -1 : 1;
    return compare_stacks(a->config.stack, b->config.stack);
}

/* After enter has been called with what a set begins from: the set stands in g->sort. */
static uint32_t close_set(struct grammar *g, struct closing *closing)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < g->seen_count; i++) {
        struct config to;
        bool somewhere;

        if (i >= PLACE_WORK_MAX) {
            closing->tight = true;
            break;
        }
        for (uint32_t k = 0; follow(g, &g->seen[i].config, k, closing, &to, &somewhere); k++)
            if (somewhere)
                enter(g, to, closing);
    }
    for (uint32_t i = 0; i < g->seen_count; i++)
        if (g->seen[i].active)
            g->sort[count++] = g->seen[i];
    if (count > 1)
        qsort(g->sort, count, sizeof *g->sort, compare_seen);
    if (count > GRAMMAR_PATHS_MAX) {
        closing->tight = true;
        count = GRAMMAR_PATHS_MAX;
    }
    return count;
}

/* ---- places ------------------------------------------------------------------------------------- */

static struct place *intern(struct grammar *g, uint32_t count, const struct closing *closing)
{
    uint32_t hash =
        mix(((uint64_t)closing->ends << 2 | (uint64_t)closing->open << 1 | (uint64_t)closing->tight) +
            count * 8u + 1);
    struct place *p;
    size_t at;

    if (count == 0 && !closing->ends && !closing->open)
        return g->dead;
    for (uint32_t i = 0; i < count; i++) {
        const struct config *c = &g->sort[i].config;

        hash = mix(((uint64_t)hash << 32) ^ ((uint64_t)c->rule << 36) ^ ((uint64_t)c->local << 16) ^
                   c->counter ^ mix_pointer(c->stack));
    }
    if (!table_room(g, &g->places, hash_place))
        return g->dead;
    for (at = hash & (g->places.size - 1); (p = g->places.slot[at]) != NULL;
         at = (at + 1) & (g->places.size - 1)) {
        bool same = p->hash == hash && p->count == count && p->ends == closing->ends &&
                    p->open == closing->open && p->tight == closing->tight;

        for (uint32_t i = 0; same && i < count; i++) {
            const struct config *a = &p->config[i], *b = &g->sort[i].config;

            same = a->rule == b->rule && a->local == b->local && a->counter == b->counter &&
                   a->stack == b->stack;
        }
        if (same)
            break;
    }
    if (!p) {
        if (!(p = pool_take(g, sizeof *p + count * sizeof *p->config)))
            return g->dead;
        p->config = (struct config *)(p + 1);
        p->count = count;
        p->hash = hash;
        p->ends = closing->ends;
        p->open = closing->open;
        p->tight = closing->tight;
        p->only = -3;
        p->minimum = -1;
        p->len = count ? (uint32_t)g->sort[0].len : 0;
        if (p->ends)
            p->len = 0;
        for (uint32_t i = 0; i < count; i++)
            p->config[i] = g->sort[i].config;
        g->places.slot[at] = p;
        g->places.count++;
    }
    /* How deep the way here went is not of the place; a greater figure only makes a walk more careful. */
    if (closing->deep > p->deep)
        p->deep = closing->deep;
    if (closing->far > p->far)
        p->far = closing->far;
    return p;
}

static void step_seeds(struct grammar *g, const struct config *config, uint32_t count, uint8_t byte,
                       struct closing *closing)
{
    struct config to;

    seen_begin(g);
    for (uint32_t i = 0; i < count; i++)
        if (local_move(g, &config[i], byte, &to))
            enter(g, to, closing);
}

struct place *place_step(struct grammar *g, struct place *place, uint8_t byte)
{
    struct closing closing = { 0 };

    step_seeds(g, place->config, place->count, byte, &closing);
    return intern(g, close_set(g, &closing), &closing);
}

struct place *place_walk(struct grammar *g, struct place *place, uint8_t byte)
{
    struct place *to;

    if (place->next && place->next[byte])
        return place->next[byte];
    to = place_step(g, place, byte);
    if (!place->next && !grammar_is_full(g))
        place->next = pool_take(g, 256 * sizeof(struct place *));
    if (place->next)
        place->next[byte] = to;
    return to;
}

struct place *place_recall(struct grammar *g, struct place *place, uint8_t byte)
{
    struct step key = { place, NULL, byte }, *s;
    size_t at;

    if (!table_room(g, &g->steps, hash_step))
        return g->dead;
    for (at = hash_step(&key) & (g->steps.size - 1); (s = g->steps.slot[at]) != NULL;
         at = (at + 1) & (g->steps.size - 1))
        if (s->from == place && s->byte == byte)
            return s->to;
    key.to = place_step(g, place, byte);
    if ((s = pool_take(g, sizeof *s)) != NULL) {
        *s = key;
        g->steps.slot[at] = s;
        g->steps.count++;
    }
    return key.to;
}

struct place *place_of(struct grammar *g, const struct config *config, uint32_t count)
{
    struct closing closing = { 0 };

    seen_begin(g);
    for (uint32_t i = 0; i < count; i++)
        enter(g, config[i], &closing);
    return intern(g, close_set(g, &closing), &closing);
}

/* The frames between a stack and its bottom, set upon another. */
static struct stack *transplant(struct grammar *g, struct stack *s, const struct stack *from,
                                struct stack *onto)
{
    struct stack *frame[GRAMMAR_DEPTH_MAX + 1];
    uint32_t count = 0;

    for (; s != from; s = s->parent) {
        assert(s && count <= GRAMMAR_DEPTH_MAX);
        frame[count++] = s;
    }
    while (onto && count > 0) {
        const struct stack *f = frame[--count];

        if (onto->depth >= GRAMMAR_DEPTH_MAX)
            return NULL;
        onto = push(g, onto, f->rule, f->local, f->counter);
    }
    return onto;
}

struct place *place_lift(struct grammar *g, struct place *place, struct stack **bottom)
{
    struct closing closing = { 0 };
    struct stack *common = place->config[0].stack;

    for (uint32_t i = 1; i < place->count; i++) {
        struct stack *s = place->config[i].stack;

        while (common != s)
            if (common->depth > s->depth)
                common = common->parent;
            else
                s = s->parent;
    }
    *bottom = common;
    for (uint32_t i = 0; i < place->count; i++) {
        struct config c = place->config[i];

        if (!(c.stack = transplant(g, c.stack, common, g->below)))
            return g->dead;
        g->sort[i] = (struct seen){ c, local_reach(g, c.rule, c.local, c.counter).len + c.stack->len, true };
    }
    return intern(g, place->count, &closing);
}

struct place *place_attach(struct grammar *g, struct place *place, struct stack *bottom)
{
    struct config *hand = g->hand;
    uint32_t count = 0;

    for (uint32_t i = 0; i < place->count; i++) {
        hand[count] = place->config[i];
        if ((hand[count].stack = transplant(g, hand[count].stack, g->below, bottom)) != NULL)
            count++;
    }
    if (place->open && bottom == g->bottom) {
        struct closing closing = { .ends = true };

        seen_begin(g);
        for (uint32_t i = 0; i < count; i++)
            enter(g, hand[i], &closing);
        return intern(g, close_set(g, &closing), &closing);
    }
    if (place->open)
        hand[count++] = (struct config){ bottom->parent, bottom->rule, bottom->local, bottom->counter };
    return place_of(g, hand, count);
}

int place_only(struct grammar *g, struct place *place)
{
    if (place->only == -3) {
        int only = -1;

        for (uint32_t i = 0; i < place->count && only != -2; i++) {
            int here = local_only(g, &place->config[i]);

            if (here == -2 || (only >= 0 && here != only))
                only = -2;
            else
                only = here;
        }
        place->only = place->ends || only < 0 ? -1 : (int16_t)only;
    }
    return place->only;
}

/* ---- beginning, trimming, ending ---------------------------------------------------------------- */

static bool caches_begin(struct grammar *g)
{
    g->bottom = pool_take(g, sizeof *g->bottom);
    g->below = pool_take(g, sizeof *g->below);
    g->dead = pool_take(g, sizeof *g->dead);
    if (g->dead) {
        g->dead->only = -1;
        g->dead->minimum = INT32_MAX;
        g->dead->forced_known = true;
    }
    return g->bottom && g->below && g->dead;
}

bool runs_begin(struct grammar *g)
{
    const struct rule *root = &g->rule[g->root];
    struct config start;

    g->seen = malloc(PLACE_SEEN_MAX * sizeof *g->seen);
    g->sort = malloc(PLACE_SEEN_MAX * sizeof *g->sort);
    g->seen_slot = malloc(PLACE_HASH * sizeof *g->seen_slot);
    g->seen_stamp = calloc(PLACE_HASH, sizeof *g->seen_stamp);
    g->hand = malloc((GRAMMAR_PATHS_MAX + 2) * sizeof *g->hand);
    g->text = malloc(GRAMMAR_FORCED_MAX + 4);
    if (!g->seen || !g->sort || !g->seen_slot || !g->seen_stamp || !g->hand || !g->text || !masks_begin(g) ||
        !caches_begin(g))
        return false;
    g->rule_bytes +=
        PLACE_SEEN_MAX * 2 * sizeof *g->seen + PLACE_HASH * 2 * sizeof(uint32_t) + GRAMMAR_FORCED_MAX;
    start =
        (struct config){ g->bottom, g->root, root->kind == RULE_REGULAR ? root->regular.dfa->start : 0, 0 };
    g->start = place_of(g, &start, 1);
    return !g->failed;
}

static void caches_end(struct grammar *g)
{
    pool_free(g->pool);
    free(g->places.slot);
    free(g->stacks.slot);
    free(g->steps.slot);
}

void runs_end(struct grammar *g)
{
    caches_end(g);
    free(g->seen);
    free(g->sort);
    free(g->seen_slot);
    free(g->seen_stamp);
    free(g->hand);
    free(g->mask);
    free(g->found);
    free(g->trail);
    free(g->text);
}

bool grammar_is_full(const struct grammar *g)
{
    return g->rule_bytes + g->pool_bytes > GRAMMAR_BYTES_MAX - TABLE_SLACK_BYTES;
}

/* The same place among the new ones. */
static struct place *carry(struct grammar *g, const struct place *old, const struct stack *old_bottom)
{
    struct closing closing = {
        .ends = old->ends, .open = old->open, .tight = old->tight, .deep = old->deep, .far = old->far
    };

    for (uint32_t i = 0; i < old->count; i++) {
        struct config c = old->config[i];

        if (!(c.stack = transplant(g, c.stack, old_bottom, g->bottom)))
            return g->dead;
        g->sort[i] = (struct seen){ c, local_reach(g, c.rule, c.local, c.counter).len + c.stack->len, true };
    }
    return intern(g, old->count, &closing);
}

void grammar_trim(struct grammar *g)
{
    struct grammar old = *g;

    if (g->rule_bytes + g->pool_bytes <= GRAMMAR_BYTES_MAX - SLACK_BYTES)
        return;
    g->pool = NULL;
    g->pool_bytes = 0;
    g->places = g->stacks = g->steps = (struct table){ 0 };
    if (!caches_begin(g)) {
        /* No memory for anything new: all stays as it was, and nothing is allowed any more. */
        pool_free(g->pool);
        *g = old;
        g->failed = true;
        return;
    }
    g->start = carry(g, old.start, old.bottom);
    for (struct grammar_run *run = g->runs; run; run = run->next)
        run->place = carry(g, run->place, old.bottom);
    caches_end(&old);
}

/* ---- runs --------------------------------------------------------------------------------------- */

struct grammar_run *grammar_run_new(struct grammar *g)
{
    struct grammar_run *run = calloc(1, sizeof *run);

    if (!run)
        return NULL;
    run->grammar = g;
    run->place = g->start;
    run->next = g->runs;
    if (g->runs)
        g->runs->previous = run;
    g->runs = run;
    return run;
}

void grammar_run_free(struct grammar_run *run)
{
    if (!run)
        return;
    if (run->previous)
        run->previous->next = run->next;
    else
        run->grammar->runs = run->next;
    if (run->next)
        run->next->previous = run->previous;
    free(run);
}

bool grammar_may_end(const struct grammar_run *run)
{
    return run->place->ends;
}

bool grammar_must_end(const struct grammar_run *run)
{
    return run->place->ends && run->place->count == 0;
}

/* Steps without keeping the places in between: only the last is worth it. */
static bool advance(struct grammar_run *run, struct span bytes)
{
    struct grammar *g = run->grammar;
    struct closing closing = { 0 };
    uint32_t count = run->place->count;
    struct place *to;

    memcpy(g->hand, run->place->config, count * sizeof *g->hand);
    for (size_t i = 0; i < bytes.size && count > 0; i++) {
        closing = (struct closing){ 0 };
        step_seeds(g, g->hand, count, bytes.data[i], &closing);
        count = close_set(g, &closing);
        for (uint32_t k = 0; k < count; k++)
            g->hand[k] = g->sort[k].config;
        if (count == 0 && i + 1 < bytes.size)
            return false;
    }
    to = intern(g, count, &closing);
    if (to == g->dead || g->failed)
        return false;
    run->place = to;
    return true;
}

bool grammar_advance_bytes(struct grammar_run *run, struct span bytes)
{
    struct grammar_run *ahead;
    bool ok = true;

    grammar_trim(run->grammar);
    if (bytes.size == 0)
        return true;
    if (run->place->count == 0)
        return false;
    if (bytes.size <= ADVANCE_BYTES)
        return advance(run, bytes);
    if (!(ahead = grammar_run_new(run->grammar)))
        return false;
    ahead->place = run->place;
    for (size_t at = 0; ok && at < bytes.size; at += ADVANCE_BYTES) {
        size_t left = bytes.size - at;

        grammar_trim(run->grammar);
        ok = ahead->place->count > 0 &&
             advance(ahead, span_of(bytes.data + at, left < ADVANCE_BYTES ? left : ADVANCE_BYTES));
    }
    if (ok)
        run->place = ahead->place;
    grammar_run_free(ahead);
    return ok;
}

bool grammar_advance(struct grammar_run *run, int32_t token)
{
    const struct vocabulary *v = run->grammar->vocabulary;

    return vocabulary_allows(v, token) && grammar_advance_bytes(run, tokenizer_bytes(v->tokenizer, token));
}

int32_t grammar_run_minimum(struct grammar_run *run)
{
    grammar_trim(run->grammar);
    return place_minimum(run->grammar, run->place);
}

int32_t grammar_minimum(const struct grammar *g)
{
    return g->minimum;
}
