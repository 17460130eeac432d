#include "worker/model/grammar_inside.h"

#include <stdlib.h>
#include <string.h>

/* C's next byte is the least that leads any of the nearest configurations on towards its end. */
struct place *place_after(struct grammar *g, struct place *p)
{
    int best = 256;

    if (p->after || p->len == 0)
        return p->after;
    for (uint32_t i = 0; i < p->count; i++) {
        const struct config *c = &p->config[i];
        int here = local_best(g, c);

        if (local_reach(g, c->rule, c->local, c->counter).len + c->stack->len > p->len)
            break; /* they stand in order of length */
        if (here >= 0 && here < best)
            best = here;
    }
    if (best == 256)
        return NULL;
    p->best = (uint8_t)best;
    p->after = place_step(g, p, p->best);
    return p->after;
}

/* ---- forced bytes ------------------------------------------------------------------------------- */

static uint32_t character_bytes(int lead)
{
    return lead < 0      ? 0
           : lead < 0x80 ? 1
           : lead < 0xc2 ? 0
           : lead < 0xe0 ? 2
           : lead < 0xf0 ? 3
           : lead < 0xf5 ? 4
                         : 0;
}

/* Whole characters into g->text; how many bytes, and the place behind them. */
static uint32_t forced_text(struct grammar *g, struct place *p, struct place **end)
{
    uint32_t size = 0, bytes;

    *end = p;
    while (size < GRAMMAR_FORCED_MAX && (bytes = character_bytes(place_only(g, p))) != 0) {
        for (uint32_t i = 0; i < bytes; i++) {
            int only = place_only(g, p);

            if (only < 0 || !(p = place_after(g, p)))
                return size;
            g->text[size + i] = (uint8_t)only;
        }
        if (bytes > 1 && !span_is_utf8(span_of(g->text + size, bytes)))
            return size;
        size += bytes;
        *end = p;
    }
    return size;
}

static bool spells(const struct vocabulary *v, const struct ids *ids, struct span text)
{
    size_t at = 0;

    for (size_t i = 0; i < ids->count; i++) {
        struct span bytes = tokenizer_bytes(v->tokenizer, ids->id[i]);

        if (!vocabulary_allows(v, ids->id[i]) || bytes.size > text.size - at ||
            memcmp(bytes.data, text.data + at, bytes.size) != 0)
            return false;
        at += bytes.size;
    }
    return at == text.size;
}

static bool encode(struct grammar *g, struct span text, struct ids *ids)
{
    /* Plain: what a grammar asks for must not come out as a control token. */
    struct text_part part = { text, ADDED_PLAIN };
    struct err err;
    bool memory = true, ok;

    if (tokenizer_encode_parts(g->vocabulary->tokenizer, &part, 1, ids, &err)) {
        if (spells(g->vocabulary, ids, text))
            return true;
    } else if (err.code == ERR_IO) {
        g->failed = true;
        return false;
    }
    ids->count = 0;
    ok = vocabulary_cover(g->vocabulary, text, ids, &memory);
    g->failed |= !memory;
    return ok;
}

/* Is there a token that begins with these bytes and goes on with what may follow them at `end`? */
static bool is_seam(struct grammar *g, struct span bytes, struct place *end, uint32_t *node)
{
    const struct vocabulary *v = g->vocabulary;
    uint32_t n = 0;

    if (bytes.size >= v->longest)
        return false;
    for (size_t i = 0; i < bytes.size; i++)
        if ((n = vocabulary_child(v, n, bytes.data[i])) == 0)
            return false;
    *node = n;
    return place_goes_on(g, end, n);
}

static struct place *along(struct grammar *g, struct place *p, uint32_t bytes)
{
    while (bytes-- > 0 && p)
        p = place_after(g, p);
    return p;
}

const struct forced *place_forced(struct grammar *g, struct place *p)
{
    const struct vocabulary *v = g->vocabulary;
    struct ids ids = { 0 };
    struct place *end;
    struct forced *f;
    uint32_t bytes, sure = 0, at = 0, node = 0;

    if (p->forced_known || place_only(g, p) < 0)
        return p->forced;
    bytes = forced_text(g, p, &end);
    if (bytes > 0 && encode(g, span_of(g->text, bytes), &ids) && ids.count > 0) {
        while (sure < ids.count && !is_seam(g, span_of(g->text + at, bytes - at), end, &node)) {
            at += (uint32_t)tokenizer_bytes(v->tokenizer, ids.id[sure]).size;
            sure++;
        }
        if ((f = pool_take(g, sizeof *f + ids.count * sizeof *ids.id)) != NULL) {
            f->count = sure;
            f->bytes = at;
            f->end = sure == ids.count ? end : along(g, p, at);
            if (sure == 0) {
                f->seam_bytes = bytes;
                f->seam_node = node;
                f->seam_end = end;
                f->first_bytes = (uint32_t)tokenizer_bytes(v->tokenizer, ids.id[0]).size;
                f->first_end = along(g, p, f->first_bytes);
            }
            memcpy(f->id, ids.id, ids.count * sizeof *ids.id);
            if (f->end && (sure > 0 || f->first_end))
                p->forced = f;
        }
    }
    p->forced_known = true;
    ids_fini(&ids);
    return p->forced;
}

bool grammar_forced(struct grammar_run *run, struct ids *ids, size_t *count, struct err *err)
{
    const struct forced *forced;
    size_t before = ids->count;

    grammar_trim(run->grammar);
    *count = 0;
    forced = place_forced(run->grammar, run->place);
    if (run->grammar->failed)
        return err_set(err, ERR_IO, "out of memory");
    for (uint32_t i = 0; forced && i < forced->count; i++)
        if (!ids_add(ids, forced->id[i])) {
            ids->count = before;
            return err_set(err, ERR_LIMIT, "no room for %u forced tokens", forced->count);
        }
    *count = ids->count - before;
    return true;
}

/* ---- the minimum -------------------------------------------------------------------------------- */

/* The places along C, as far as they are looked at. */
struct chain {
    struct link {
        struct place *place;
        bool wanted;
    } * link;
    size_t count, capacity;
};

static struct place *chain_at(struct grammar *g, struct chain *chain, size_t i)
{
    while (chain->count <= i) {
        struct place *last = chain->link[chain->count - 1].place, *next = place_after(g, last);

        if (!next || next == g->dead)
            return NULL;
        if (chain->count == chain->capacity) {
            struct link *grown = realloc(chain->link, 2 * chain->capacity * sizeof *grown);

            if (!grown) {
                g->failed = true;
                return NULL;
            }
            chain->link = grown;
            chain->capacity *= 2;
        }
        chain->link[chain->count++] = (struct link){ next, false };
    }
    return chain->link[i].place;
}

/* Of the places behind each token that C begins with at i: marks them, or finds the least of their minima. */
static int32_t tokens_from(struct grammar *g, struct chain *chain, size_t i, const struct forced *seam,
                           bool mark, size_t *last)
{
    const struct vocabulary *v = g->vocabulary;
    int32_t least = INT32_MAX;
    uint32_t node = 0;

    for (size_t at = i; chain->link[at].place->len > 0; at++) {
        if (!chain_at(g, chain, at + 1))
            break;
        node = vocabulary_child(v, node, chain->link[at].place->best);
        if (node == 0)
            break;
        if (v->node[node].first == v->node[node + 1].first)
            continue;
        if (seam && at + 1 - i != seam->first_bytes && at + 1 - i <= seam->seam_bytes)
            continue;
        if (mark) {
            chain->link[at + 1].wanted = true;
            if (at + 1 > *last)
                *last = at + 1;
        } else if (chain->link[at + 1].place->minimum < least) {
            least = chain->link[at + 1].place->minimum;
        }
    }
    return least < INT32_MAX ? least + 1 : INT32_MAX;
}

int32_t place_minimum(struct grammar *g, struct place *p)
{
    struct chain chain = { .count = 1, .capacity = 64 };
    size_t last = 0;

    if (p->minimum >= 0)
        return p->minimum;
    if (!(chain.link = malloc(chain.capacity * sizeof *chain.link))) {
        g->failed = true;
        return INT32_MAX;
    }
    chain.link[0] = (struct link){ p, true };
    for (size_t i = 0; i <= last; i++) {
        const struct forced *forced;
        struct place *here = chain_at(g, &chain, i);

        if (!here)
            break;
        if (!chain.link[i].wanted || here->minimum >= 0)
            continue;
        if (here->ends) {
            here->minimum = 0;
        } else if ((forced = place_forced(g, here)) != NULL && forced->count > 0) {
            if (i + forced->bytes > last)
                last = i + forced->bytes;
            if (chain_at(g, &chain, i + forced->bytes))
                chain.link[i + forced->bytes].wanted = true;
        } else {
            tokens_from(g, &chain, i, forced, true, &last);
        }
    }
    for (size_t i = (last < chain.count ? last + 1 : chain.count); !g->failed && i-- > 0;) {
        struct place *here = chain.link[i].place;
        const struct forced *forced;

        if (!chain.link[i].wanted || here->minimum >= 0)
            continue;
        if ((forced = place_forced(g, here)) == NULL || forced->count == 0)
            here->minimum = tokens_from(g, &chain, i, forced, false, NULL);
        else if (forced->end->minimum < INT32_MAX)
            here->minimum = forced->end->minimum + (int32_t)forced->count;
        else
            here->minimum = INT32_MAX;
    }
    free(chain.link);
    return g->failed ? INT32_MAX : p->minimum;
}
