/* core - what the hall decides.
 *
 * step(core, event, effects): no system calls, no clock, no randomness of its own, no sockets.  Time
 * comes with each event, as the link thread stamped it, so a lease can only expire after everything
 * that arrived before has been heard.  Randomness and the store come in as structs.
 *
 * A turn is: store begin; core_step for each event there is; core_turn; store commit; then, and only then,
 * the effects may leave. */

#ifndef BROKER_CORE_H
#define BROKER_CORE_H

#include "broker/effects.h"
#include "broker/placement.h"
#include "broker/store.h"

struct core;

struct core_config {
    int workers;                 /* expected; 0: whoever comes, see settle_ms */
    char family[FAMILY_MAX + 1]; /* pinned; empty: the lowest rung present */
    int64_t lease_ms, heartbeat_ms;
    int64_t settle_ms; /* nobody new for so long: deal to those who are here */
    uint32_t attempts_max, infra_max;
    int64_t backoff_ms, backoff_max_ms;
    int64_t jobs_max; /* that have not ended */
    int64_t
        retention_ms; /* bodies of what ended so long ago are erased; 0: never.  A queue may say otherwise */
    uint32_t payload_max, window;
    size_t leases_max;
};

/* What the tests and the program start from. */
struct core_config core_config_default(void);

struct random {
    uint64_t (*next)(struct random *random);
};

struct core_time {
    int64_t mono_ms; /* leases and waits */
    int64_t wall_ms; /* what people and files see */
};

enum event_kind {
    EVENT_MESSAGE, /* checked, of a session whose role may send it; the first of a session is its Hello */
    EVENT_ENDED,   /* the session is over: left, silent or unreachable */
    EVENT_TICK     /* nothing but time */
};

struct event {
    enum event_kind kind;
    uint64_t session;
    struct core_time at;
    const Moothall__Envelope *envelope; /* good until the commit */
    struct span payload;
    const char *reason; /* of EVENT_ENDED */
};

/* Reads what it needs from the store (inside a transaction that the caller commits) and begins the next
 * broker epoch.  NULL when the store holds what this configuration cannot run, or has failed. */
struct core *core_new(const struct core_config *config, struct store *store, struct random *random,
                      struct core_time now, struct err *err);
void core_free(struct core *core); /* NULL is fine */

void core_step(struct core *core, const struct event *event, struct effects *effects);

/* The end of a turn: leases out what can be leased, answers who waits, writes the counts.  True when
 * there is more to do that did not fit into this turn: another should follow soon. */
bool core_turn(struct core *core, struct core_time now, struct effects *effects);

#endif
