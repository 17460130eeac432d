/* Masks.
 *
 * The walk of the trie is made once for each *local* place: the configurations above the bottom that their
 * stacks share, whatever lies below.  It gives groups of tokens that end in the same local place, and exits:
 * nodes of the trie where what lies below may go on.  A place's own mask is its local one, and a short walk
 * below the exits.  The body of a string is the same everywhere but for the count, so its walk is the
 * vocabulary's.
 *
 * Every group has one resulting place, so the budget is asked about places, not about tokens. */
#include "worker/model/grammar_inside.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    BITS_MIN = 512, /* tokens from which a mask is quicker than a list */
    /* Bytes by which a token can lengthen a string's ending: half an escape, half a character. */
    STRING_SLACK = 4,
};

struct group {
    struct place *place;
    uint32_t from, to; /* of token */
    uint64_t *bits;    /* of many */
};

struct local_mask {
    struct group *group;
    uint32_t group_count, token_count, exit_count;
    int32_t *token; /* of the groups without bits */
    uint64_t *bits; /* all tokens; of few: NULL */
    struct exit {
        struct place *place;
        uint32_t node;
    } * exit;
    uint32_t len;  /* the greatest of any group */
    uint32_t deep; /* of all that was met */
    uint64_t far;
    bool tight;
};

struct found {
    struct place *place;
    int32_t token;
    uint32_t points; /* before the closing quote of a string */
};

/* What lies behind an exit, in its surroundings. */
struct tail {
    struct found *found;
    uint32_t count;
    uint32_t len; /* the greatest */
};

struct outlook {
    const struct local_mask *local; /* NULL: the body of a string */
    struct stack *bottom;           /* NULL: local is of the whole place */
    struct place **group_place;
    const struct tail *tail;
    uint64_t len;   /* the greatest of any place after a token */
    int32_t enough; /* a budget at which all tokens are known to fit */
};

static void put(uint64_t *mask, int32_t token)
{
    mask[token / 64] |= (uint64_t)1 << (token % 64);
}

static void put_all(uint64_t *mask, const uint64_t *bits, uint32_t words)
{
    for (uint32_t i = 0; i < words; i++)
        mask[i] |= bits[i];
}

/* ---- the walk ----------------------------------------------------------------------------------- */

struct walk {
    struct found *found;
    uint32_t count;
    struct exit *exit;
    uint32_t exit_count, exit_max;
    uint32_t deep;
    uint64_t far;
    bool tight;
};

static void collect(const struct vocabulary *v, struct walk *w, uint32_t node, struct place *place,
                    uint32_t points)
{
    for (uint32_t t = v->node[node].first; t < v->node[node + 1].first; t++)
        w->found[w->count++] = (struct found){ place, v->token[t], points };
}

static bool leave(struct grammar *g, struct walk *w, uint32_t node, struct place *place)
{
    if (w->exit_count == w->exit_max) {
        struct exit *grown = realloc(w->exit, (w->exit_max = 2 * w->exit_max + 64) * sizeof *grown);

        if (!grown) {
            g->failed = true;
            return false;
        }
        w->exit = grown;
    }
    w->exit[w->exit_count++] = (struct exit){ place, node };
    return true;
}

static void watch(const struct grammar *g, struct walk *w, struct place *place)
{
    if (place->walked == g->walks)
        return;
    place->walked = g->walks;
    w->tight |= place->tight;
    if (place->deep > w->deep)
        w->deep = place->deep;
    if (place->far > w->far)
        w->far = place->far;
}

/* The whole trie. */
static void walk_all(struct grammar *g, struct walk *w, struct place *start)
{
    const struct vocabulary *v = g->vocabulary;

    g->trail[0] = start;
    g->walks++; /* places are fewer than 2^32, and so are walks between two trims */
    for (uint32_t i = 1; i < v->node_count && !g->failed;) {
        uint32_t d = v->node[i].depth;
        struct place *from = g->trail[d - 1], *place = from->next ? from->next[v->node[i].byte] : NULL;

        if (!place)
            place = place_walk(g, from, v->node[i].byte);
        if (place == g->dead || place->open) {
            if (place->open) {
                watch(g, w, place);
                if (!leave(g, w, i, place))
                    return;
            }
            i = v->node[i].end;
            continue;
        }
        watch(g, w, place);
        g->trail[d] = place;
        if (v->node[i].first < v->node[i + 1].first)
            collect(v, w, i, place, 0);
        i++;
    }
}

/* The same for one state of a regular language: by its table, and places only where tokens end.  A pattern of
 * counted repetitions has many states, and each walks most of the trie. */
static void walk_regular(struct grammar *g, struct walk *w, struct place *start)
{
    const struct vocabulary *v = g->vocabulary;
    const struct regular *r = &g->rule[start->config[0].rule].regular;
    const struct dfa *dfa = r->dfa;
    struct config config = start->config[0];
    struct place **at = calloc(dfa->count, sizeof(struct place *));
    uint32_t *trail = malloc(((size_t)v->longest + 1) * sizeof *trail);

    if (!at || !trail) {
        g->failed = true;
        goto out;
    }
    trail[0] = config.local;
    for (uint32_t i = 1; i < v->node_count && !g->failed;) {
        const struct trie_node *node = &v->node[i];
        uint32_t state = dfa_step(dfa, trail[node->depth - 1], node->byte);

        if (state == 0 || r->far[state] == UINT32_MAX) {
            i = node->end;
            continue;
        }
        trail[node->depth] = state;
        if (r->far[state] > w->far)
            w->far = r->far[state];
        if (!at[state] && (dfa->accepts[state] || node->first < node[1].first)) {
            config.local = state;
            at[state] = place_of(g, &config, 1);
        }
        if (dfa->accepts[state]) {
            if (!leave(g, w, i, at[state]))
                break;
            i = node->end;
            continue;
        }
        if (node->first < node[1].first)
            collect(v, w, i, at[state], 0);
        i++;
    }
out:
    free(at);
    free(trail);
}

/* The place at a node whose parent's is on the trail; it is put there too. */
static struct place *step_below(struct grammar *g, uint32_t node)
{
    const struct trie_node *n = &g->vocabulary->node[node];
    struct place *from = g->trail[n->depth - 1];

    return g->trail[n->depth] = from->count ? place_recall(g, from, n->byte) : g->dead;
}

/* What is below one node; place: at it. */
static void walk_below(struct grammar *g, struct walk *w, uint32_t node, struct place *place, uint32_t points)
{
    const struct vocabulary *v = g->vocabulary;

    collect(v, w, node, place, points);
    g->trail[v->node[node].depth] = place;
    for (uint32_t i = node + 1; i < v->node[node].end && !g->failed;) {
        struct place *next = step_below(g, i);

        if (next == g->dead) {
            i = v->node[i].end;
            continue;
        }
        collect(v, w, i, next, points);
        i++;
    }
}

/* ---- local masks -------------------------------------------------------------------------------- */

/* Sorts what was found by place, in the order of the places' first tokens.  Marks are 0 before and after. */
static bool group(struct grammar *g, struct local_mask *m, const struct walk *w)
{
    uint32_t groups = 0, listed = 0, words = g->vocabulary->words;

    for (uint32_t i = 0; i < w->count; i++)
        if (w->found[i].place->mark == 0)
            w->found[i].place->mark = ++groups;
    if ((m->group = pool_take(g, groups * sizeof *m->group)) != NULL)
        for (uint32_t i = 0; i < w->count; i++) {
            struct group *to = &m->group[w->found[i].place->mark - 1];

            to->place = w->found[i].place;
            to->to++;
        }
    else
        groups = 0;
    for (uint32_t i = 0; i < groups; i++) {
        uint32_t size = m->group[i].to;

        if (size >= BITS_MIN && !(m->group[i].bits = pool_take(g, words * sizeof *m->bits)))
            break;
        m->group[i].from = m->group[i].to = listed;
        listed += m->group[i].bits ? 0 : size;
        if (m->group[i].place->len > m->len)
            m->len = m->group[i].place->len;
    }
    m->token = pool_take(g, listed * sizeof *m->token);
    if (w->count >= BITS_MIN)
        m->bits = pool_take(g, words * sizeof *m->bits);
    for (uint32_t i = 0; i < w->count && !g->failed; i++) {
        struct group *to = &m->group[w->found[i].place->mark - 1];

        if (to->bits)
            put(to->bits, w->found[i].token);
        else
            m->token[to->to++] = w->found[i].token;
        if (m->bits)
            put(m->bits, w->found[i].token);
    }
    for (uint32_t i = 0; i < w->count; i++)
        w->found[i].place->mark = 0;
    m->group_count = groups;
    m->token_count = w->count;
    return !g->failed;
}

static const struct local_mask *local_mask(struct grammar *g, struct place *place)
{
    struct walk w = { .found = g->found };
    struct local_mask *m;

    if (place->local_mask)
        return place->local_mask;
    if (place->count == 1 && place->config[0].stack == g->below &&
        g->rule[place->config[0].rule].kind == RULE_REGULAR)
        walk_regular(g, &w, place);
    else
        walk_all(g, &w, place);
    if (!g->failed && (m = pool_take(g, sizeof *m)) != NULL) {
        m->deep = w.deep;
        m->far = w.far;
        m->tight = w.tight;
        m->exit = pool_take(g, w.exit_count * sizeof *m->exit);
        if (m->exit && group(g, m, &w)) {
            if (w.exit_count)
                memcpy(m->exit, w.exit, w.exit_count * sizeof *m->exit);
            m->exit_count = w.exit_count;
            place->local_mask = m;
        }
    }
    free(w.exit);
    return place->local_mask;
}

static const struct tail *keep_tail(struct grammar *g, const struct walk *w)
{
    struct tail *tail = pool_take(g, sizeof *tail);

    if (!tail || !(tail->found = pool_take(g, w->count * sizeof *tail->found)))
        return NULL;
    if (w->count)
        memcpy(tail->found, w->found, w->count * sizeof *tail->found);
    tail->count = w->count;
    for (uint32_t i = 0; i < w->count; i++)
        if (w->found[i].place->len > tail->len)
            tail->len = w->found[i].place->len;
    return tail;
}

/* ---- a place's outlook -------------------------------------------------------------------------- */

static struct outlook *outlook_of_place(struct grammar *g, struct place *place)
{
    struct outlook *o = pool_take(g, sizeof *o);
    struct walk w = { .found = g->found };
    struct place *lifted, *exit = NULL, *behind = NULL;

    if (!o)
        return NULL;
    lifted = place_lift(g, place, &o->bottom);
    if (lifted == g->dead || !(o->local = local_mask(g, lifted)))
        return NULL;
    /* Where a bound may have a say, only the whole place can tell. */
    if (o->local->tight || o->bottom->depth + o->local->deep > GRAMMAR_DEPTH_MAX ||
        o->bottom->len + o->local->far > GRAMMAR_ENDING_MAX) {
        o->bottom = NULL;
        if (!(o->local = local_mask(g, place)))
            return NULL;
    }
    for (uint32_t i = 0; i < o->local->exit_count && !g->failed; i++) {
        if (exit != o->local->exit[i].place) {
            exit = o->local->exit[i].place;
            behind = place_attach(g, exit, o->bottom);
        }
        if (behind != g->dead)
            walk_below(g, &w, o->local->exit[i].node, behind, 0);
    }
    if (g->failed || !(o->tail = keep_tail(g, &w)) ||
        !(o->group_place = pool_take(g, o->local->group_count * sizeof(struct place *))))
        return NULL;
    o->len = o->local->len + (o->bottom ? o->bottom->len : 0);
    if (o->tail->len > o->len)
        o->len = o->tail->len;
    return o;
}

static bool is_string_body(const struct grammar *g, const struct place *place)
{
    const struct config *c = place->config;

    return place->count == 1 && g->rule[c->rule].kind == RULE_STRING && c->local == STRING_BODY &&
           place->len + STRING_SLACK <= GRAMMAR_ENDING_MAX;
}

static struct outlook *outlook_of_string(struct grammar *g, struct place *place)
{
    struct config end = place->config[0];
    const struct vocabulary *v = g->vocabulary;
    struct walk w = { .found = g->found };
    struct outlook *o = pool_take(g, sizeof *o);
    struct place *behind;

    end.local = STRING_END;
    end.counter = 0;
    behind = place_of(g, &end, 1);
    if (!o || g->failed)
        return NULL;
    if (!behind->tail) {
        for (uint32_t i = 0; i < v->string_exit_count && behind != g->dead; i++)
            walk_below(g, &w, v->string_exit[i].node, behind, v->string_exit[i].points);
        if (g->failed || !(behind->tail = keep_tail(g, &w)))
            return NULL;
    }
    o->tail = behind->tail;
    o->len = place->len + STRING_SLACK;
    if (o->tail->len > o->len)
        o->len = o->tail->len;
    return o;
}

static struct outlook *outlook(struct grammar *g, struct place *place)
{
    struct outlook *o = place->outlook;

    if (o)
        return o;
    o = is_string_body(g, place) ? outlook_of_string(g, place) : outlook_of_place(g, place);
    if (o)
        o->enough = INT32_MAX;
    return place->outlook = g->failed ? NULL : o;
}

/* ---- what a budget allows ----------------------------------------------------------------------- */

/* left: tokens after this one. */
static bool fits(struct grammar *g, struct place *place, int32_t left)
{
    if (place->minimum >= 0)
        return place->minimum <= left;
    if (g->spelled && place->len <= (uint32_t)left)
        return true;
    if (place->len > (uint64_t)left * g->vocabulary->longest)
        return false;
    return place_minimum(g, place) <= left;
}

/* The groups of tokens that stay above the bottom.  False when one of them does not fit. */
static bool put_groups(struct grammar *g, struct outlook *o, int32_t left, bool *any)
{
    const struct local_mask *m = o->local;
    bool all = true;

    for (uint32_t i = 0; i < m->group_count; i++) {
        const struct group *group = &m->group[i];

        if (!o->group_place[i])
            o->group_place[i] = o->bottom ? place_attach(g, group->place, o->bottom) : group->place;
        if (!fits(g, o->group_place[i], left)) {
            all = false;
            continue;
        }
        *any = true;
        if (group->bits)
            put_all(g->mask, group->bits, g->vocabulary->words);
        else
            for (uint32_t k = group->from; k < group->to; k++)
                put(g->mask, m->token[k]);
    }
    return all;
}

/* The same in the body of a string. */
static bool put_string_groups(struct grammar *g, struct outlook *o, struct place *place, int32_t left,
                              bool *any)
{
    const struct vocabulary *v = g->vocabulary;
    const struct config *here = place->config;
    uint32_t low = g->rule[here->rule].string.low, high = g->rule[here->rule].string.high,
             room = high - here->counter;
    bool all = true;

    if (!o->group_place && !(o->group_place = pool_take(g, v->string_group_count * sizeof(struct place *))))
        return false;
    for (uint32_t i = 0; i < v->string_group_count; i++) {
        const struct string_group *group = &v->string_group[i];

        if (high != GRAMMAR_NO_MAX && group->points > room)
            continue;
        if (!o->group_place[i]) {
            struct config to = *here;

            to.local = group->state;
            to.counter += group->points;
            if (high == GRAMMAR_NO_MAX && to.counter > low)
                to.counter = low;
            o->group_place[i] = place_of(g, &to, 1);
        }
        if (!fits(g, o->group_place[i], left)) {
            all = false;
            continue;
        }
        *any = true;
        if (group->bits)
            put_all(g->mask, group->bits, v->words);
        else
            for (uint32_t k = group->from; k < group->to; k++)
                put(g->mask, v->string_token[k]);
    }
    return all;
}

static bool put_string(struct grammar *g, const struct place *place)
{
    const struct vocabulary *v = g->vocabulary;
    const struct config *here = place->config;
    uint32_t high = g->rule[here->rule].string.high, room = high - here->counter;
    bool any = false;

    if (high == GRAMMAR_NO_MAX || room >= v->longest) {
        memcpy(g->mask, v->string_bits, v->words * sizeof *g->mask);
        return v->string_token_count > 0;
    }
    for (uint32_t i = 0; i < v->string_group_count; i++) {
        const struct string_group *group = &v->string_group[i];

        if (group->points > room)
            continue;
        any = true;
        if (group->bits)
            put_all(g->mask, group->bits, v->words);
        else
            for (uint32_t k = group->from; k < group->to; k++)
                put(g->mask, v->string_token[k]);
    }
    return any;
}

/* A closing quote is right only where the count is. */
static bool tail_counts(const struct grammar *g, const struct outlook *o, const struct place *place,
                        uint32_t points)
{
    const struct config *here = place->config;
    const struct rule *r = &g->rule[here->rule];

    return o->local || (here->counter + points >= r->string.low &&
                        (r->string.high == GRAMMAR_NO_MAX || points <= r->string.high - here->counter));
}

static const uint64_t *mask_of(struct grammar *g, struct outlook *o, struct place *place, int32_t left)
{
    const struct vocabulary *v = g->vocabulary;
    bool plain = left >= o->enough || (g->spelled && o->len <= (uint32_t)left), any = false, all = true;

    memset(g->mask, 0, v->words * sizeof *g->mask);
    if (!plain && !o->local) {
        all = put_string_groups(g, o, place, left, &any);
    } else if (!plain) {
        all = put_groups(g, o, left, &any);
    } else if (!o->local) {
        any = put_string(g, place);
    } else {
        any = o->local->token_count > 0;
        if (o->local->bits)
            memcpy(g->mask, o->local->bits, v->words * sizeof *g->mask);
        else
            for (uint32_t i = 0; i < o->local->token_count; i++)
                put(g->mask, o->local->token[i]);
    }
    for (uint32_t i = 0; i < o->tail->count; i++) {
        const struct found *found = &o->tail->found[i];

        if (!tail_counts(g, o, place, found->points))
            continue;
        if (!plain && !fits(g, found->place, left)) {
            all = false;
            continue;
        }
        any = true;
        put(g->mask, found->token);
    }
    if (!plain && all)
        o->enough = left;
    return any && !g->failed ? g->mask : NULL;
}

/* ---- seams -------------------------------------------------------------------------------------- */

bool place_goes_on(struct grammar *g, struct place *place, uint32_t node)
{
    const struct vocabulary *v = g->vocabulary;

    if (place->count == 0)
        return false;
    g->trail[v->node[node].depth] = place;
    for (uint32_t i = node + 1; i < v->node[node].end && !g->failed;) {
        struct place *next = step_below(g, i);

        if (next == g->dead) {
            i = v->node[i].end;
            continue;
        }
        if (v->node[i].first < v->node[i + 1].first)
            return true;
        i++;
    }
    return false;
}

/* The tokenizer's own token, and those that cover the whole run and go on. */
static const uint64_t *mask_of_seam(struct grammar *g, struct forced *f, int32_t left)
{
    const struct vocabulary *v = g->vocabulary;
    uint32_t own = v->node[f->seam_node + 1].first - v->node[f->seam_node].first;
    bool any = false;

    if (!f->seam_tail) {
        struct walk w = { .found = g->found };

        walk_below(g, &w, f->seam_node, f->seam_end, 0);
        if (g->failed || !(f->seam_tail = keep_tail(g, &w)))
            return NULL;
    }
    memset(g->mask, 0, v->words * sizeof *g->mask);
    if (fits(g, f->first_end, left)) {
        put(g->mask, f->id[0]);
        any = true;
    }
    for (uint32_t i = own; i < f->seam_tail->count; i++) /* the first are those of the run itself */
        if (fits(g, f->seam_tail->found[i].place, left)) {
            put(g->mask, f->seam_tail->found[i].token);
            any = true;
        }
    return any && !g->failed ? g->mask : NULL;
}

const uint64_t *grammar_mask(struct grammar_run *run, int32_t budget)
{
    struct grammar *g = run->grammar;
    struct forced *forced;
    struct outlook *o;

    grammar_trim(g);
    if (budget < 1 || run->place->count == 0)
        return NULL;
    place_forced(g, run->place);
    if ((forced = run->place->forced) != NULL) {
        if (forced->count == 0)
            return mask_of_seam(g, forced, budget - 1);
        if (place_minimum(g, run->place) > budget)
            return NULL;
        memset(g->mask, 0, g->vocabulary->words * sizeof *g->mask);
        put(g->mask, forced->id[0]);
        return g->mask;
    }
    if (!(o = outlook(g, run->place)))
        return NULL;
    return mask_of(g, o, run->place, budget - 1);
}

bool masks_begin(struct grammar *g)
{
    g->mask = calloc((size_t)g->vocabulary->words + 1, sizeof *g->mask);
    g->found = malloc(((size_t)g->vocabulary->token_count + 1) * sizeof *g->found);
    g->trail = calloc((size_t)g->vocabulary->longest + 1, sizeof(struct place *));
    g->rule_bytes += g->vocabulary->words * sizeof *g->mask + g->vocabulary->token_count * sizeof *g->found;
    return g->mask && g->found && g->trail;
}
