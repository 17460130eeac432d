/* lease - who is working on what, and until when.
 *
 * A lease is a promise with a deadline.  A worker keeps it alive by touching it; when the deadline
 * passes the job becomes ready again and another worker may take it.  So a job may run twice, and
 * finishing it must be harmless the second time.
 *
 * A lease belongs to a worker's process (its name and incarnation), not to its connection: it
 * outlives a broken link, and the broker itself, whose store says who held what. */

#ifndef BROKER_LEASE_H
#define BROKER_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct lease {
    uint64_t fence;      /* names the job too: fence_seq() */
    uint32_t worker;     /* the core's number for the holder */
    uint32_t size;       /* bytes of the body, charged against the holder's credit */
    int64_t batch;       /* of the job */
    int64_t deadline_ms; /* on the monotonic clock */
};

struct lease_table;

/* Holds at most lease_max leases; everything is allocated here.  NULL without memory. */
struct lease_table *lease_table_new(size_t lease_max);
void lease_table_free(struct lease_table *table); /* NULL is fine */

size_t lease_count(const struct lease_table *table);

/* ERR_LIMIT when the table is full: the job simply stays ready. */
bool lease_grant(struct lease_table *table, struct lease lease, struct err *err);

/* False when there is no such lease. */
bool lease_find(const struct lease_table *table, uint64_t fence, struct lease *found);

/* The lease of that job, whichever fence it has. */
bool lease_find_job(const struct lease_table *table, int64_t seq, struct lease *found);

/* Moves the deadline, when that worker holds it. */
bool lease_touch(struct lease_table *table, uint64_t fence, uint32_t worker, int64_t deadline_ms);

/* False when it was not there. */
bool lease_remove(struct lease_table *table, uint64_t fence);

/* Removes one lease due at or before now_ms.  False when none is due. */
bool lease_expire(struct lease_table *table, int64_t now_ms, struct lease *expired);

/* Removes one lease of that worker.  False when it holds none. */
bool lease_take(struct lease_table *table, uint32_t worker, struct lease *taken);

/* The i-th lease, in no order; i < lease_count().  Any change of the table ends a walk. */
struct lease lease_at(const struct lease_table *table, size_t i);

#endif
