#include "broker/placement.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Shards that an offer has room for. */
static int64_t room_of(const struct offer *offer)
{
    if (offer->shard_bytes == 0)
        return SHARDS_MAX;
    return (int64_t)(offer->memory_bytes / offer->shard_bytes < SHARDS_MAX
                         ? offer->memory_bytes / offer->shard_bytes
                         : SHARDS_MAX);
}

int64_t placement_capacity(const struct offer *offers, int count)
{
    int64_t sum = 0;

    for (int i = 0; i < count; i++)
        sum += room_of(&offers[i]);
    return sum;
}

bool offer_has_family(const struct offer *offer, const char *family)
{
    for (int i = 0; i < offer->family_count; i++)
        if (!strcmp(offer->family[i], family))
            return true;
    return false;
}

const char *placement_family(const struct offer *offers, int count)
{
    for (int rung = offers[0].family_count - 1; rung >= 0; rung--) {
        bool all = true;

        for (int i = 1; i < count && all; i++)
            all = offer_has_family(&offers[i], offers[0].family[rung]);
        if (all)
            return offers[0].family[rung];
    }
    return NULL;
}

/* "worker-2" before "worker-10": digits compare as numbers. */
static int compare_names(const char *a, const char *b)
{
    while (*a && *b) {
        if (*a >= '0' && *a <= '9' && *b >= '0' && *b <= '9') {
            char *end_a, *end_b;
            unsigned long long x = strtoull(a, &end_a, 10), y = strtoull(b, &end_b, 10);

            if (x != y)
                return x < y ? -1 : 1;
            a = end_a;
            b = end_b;
        } else if (*a != *b) {
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        } else {
            a++;
            b++;
        }
    }
    return *a ? 1 : *b ? -1 : 0;
}

static int compare_offers(const void *a, const void *b)
{
    const struct offer *const *x = a, *const *y = b;

    return compare_names((*x)->name, (*y)->name);
}

bool placement_deal(struct placement *placement, const struct offer *offers, int count, const char *family,
                    struct err *err)
{
    const struct offer *order[WORKERS_MAX];
    int64_t room[WORKERS_MAX], share[WORKERS_MAX], left, memory = 0;
    int shards = offers[0].shard_count, shard = 0;

    assert(count > 0 && count <= WORKERS_MAX);
    if (placement_capacity(offers, count) < shards)
        return err_set(err, ERR_LIMIT, "memory for %" PRId64 " of %d shards is offered by %d workers",
                       placement_capacity(offers, count), shards, count);
    for (int i = 0; i < count; i++)
        order[i] = &offers[i];
    qsort(order, (size_t)count, sizeof *order, compare_offers);
    for (int i = 0; i < count; i++) {
        room[i] = room_of(order[i]);
        memory += (int64_t)(order[i]->memory_bytes >> 16);
    }

    /* In proportion, rounded down and never above what fits; then one by one to whoever is
     * furthest below its part.  Shards are few, so the plain loop is fast enough. */
    left = shards;
    for (int i = 0; i < count; i++) {
        share[i] = memory ? (int64_t)(order[i]->memory_bytes >> 16) * shards / memory : shards / count;
        if (share[i] > room[i])
            share[i] = room[i];
        left -= share[i];
    }
    while (left > 0) {
        int best = -1;
        double best_need = 0;

        for (int i = 0; i < count; i++) {
            double part = memory ? (double)(order[i]->memory_bytes >> 16) * shards / (double)memory
                                 : (double)shards / count;
            double need = part - (double)share[i];

            if (share[i] < room[i] && (best < 0 || need > best_need)) {
                best = i;
                best_need = need;
            }
        }
        assert(best >= 0); /* the capacity was checked */
        share[best]++;
        left--;
    }

    placement->epoch++;
    text_copy(placement->family, sizeof placement->family, family);
    placement->shard_count = shards;
    placement->holder_count = 0;
    for (int i = 0; i < count; i++) {
        struct holder *holder = &placement->holder[placement->holder_count];

        if (share[i] == 0)
            continue;
        text_copy(holder->name, sizeof holder->name, order[i]->name);
        text_copy(holder->endpoint, sizeof holder->endpoint, order[i]->endpoint);
        holder->incarnation = order[i]->incarnation;
        for (int64_t n = 0; n < share[i]; n++)
            placement->seat[shard++] = (int16_t)placement->holder_count;
        placement->holder_count++;
    }
    assert(shard == shards);
    return true;
}

int placement_holder(const struct placement *placement, const char *name)
{
    for (int i = 0; i < placement->holder_count; i++)
        if (!strcmp(placement->holder[i].name, name))
            return i;
    return -1;
}

enum placement_return placement_return(struct placement *placement, const struct offer *offer)
{
    int i = placement_holder(placement, offer->name);
    struct holder *holder;

    if (i < 0)
        return PLACEMENT_STRANGER;
    holder = &placement->holder[i];
    if (holder->incarnation == offer->incarnation && !strcmp(holder->endpoint, offer->endpoint))
        return PLACEMENT_SAME;
    holder->incarnation = offer->incarnation;
    text_copy(holder->endpoint, sizeof holder->endpoint, offer->endpoint);
    placement->epoch++;
    return PLACEMENT_MOVED;
}
