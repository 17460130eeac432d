/* placement - who holds which shard.
 *
 * Pure: what the workers offer in, seats out.  Shards are dealt once, contiguous, in proportion to
 * the memory offered, to workers in the order of their names, so the same hall deals the same way.  A seat
 * belongs to a name: a worker that comes with the name of one that is gone takes its seats, and the epoch
 * grows. Workers beyond those that were dealt to are spares: they hold nothing and still take leases. */

#ifndef BROKER_PLACEMENT_H
#define BROKER_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "broker/job.h"
#include "broker/store.h"

enum {
    WORKERS_MAX = 256,
    SHARDS_MAX = 1024,
    FAMILIES_MAX = 16,
    PEER_ENDPOINT_MAX = 128, /* a Map of 256 workers has to fit an envelope */
};

/* What a worker that is here offers. */
struct offer {
    char name[WORKER_NAME_MAX + 1];
    uint64_t incarnation;
    char endpoint[PEER_ENDPOINT_MAX + 1];
    char family[FAMILIES_MAX][FAMILY_MAX + 1]; /* lowest rung first */
    int family_count;
    int shard_count;      /* of the model */
    uint64_t shard_bytes; /* memory one takes; 0: next to nothing */
    uint64_t memory_bytes;
};

struct holder {
    char name[WORKER_NAME_MAX + 1];
    uint64_t incarnation; /* of the process that holds the seats now */
    char endpoint[PEER_ENDPOINT_MAX + 1];
};

struct placement {
    uint64_t epoch; /* 0: nothing was dealt yet */
    char family[FAMILY_MAX + 1];
    int holder_count;
    struct holder holder[WORKERS_MAX];
    int shard_count;
    int16_t seat[SHARDS_MAX]; /* index of the holder */
};

/* How many shards these offers have memory for; more than shard_count where there is plenty. */
int64_t placement_capacity(const struct offer *offers, int count);

/* The highest family that all of them can run: the lowest rung among each one's best.  NULL when they have
 * none in common. */
const char *placement_family(const struct offer *offers, int count);

bool offer_has_family(const struct offer *offer, const char *family);

/* Deals every shard anew, at the next epoch.  Offers are in any order; count > 0.  False when they
 * have not memory enough, with words that name what is missing. */
bool placement_deal(struct placement *placement, const struct offer *offers, int count, const char *family,
                    struct err *err);

enum placement_return {
    PLACEMENT_STRANGER, /* holds no seat */
    PLACEMENT_SAME,     /* the same process came back: nothing changed */
    PLACEMENT_MOVED     /* another process of that name: it has the seats, the epoch grew */
};
enum placement_return placement_return(struct placement *placement, const struct offer *offer);

int placement_holder(const struct placement *placement, const char *name); /* -1: none */

#endif
