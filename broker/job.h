/* job - a request in a queue, with a life.
 *
 * The states are those of the wire.  Which event may lead where is a table (job.c), so nothing
 * can move a job in a way that PROTOCOL.md does not show.  A job is known by its id within its
 * batch; inside the broker by `seq`, which also is its age: a lower one is older. */

#ifndef BROKER_JOB_H
#define BROKER_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

enum {
    JOB_ID_MAX = 64,
    JOB_CUSTOM_ID_MAX = 512,
    JOB_ENDPOINT_MAX = 63,
    JOB_REASON_MAX = 1000, /* longer reasons are cut at a character */
    JOB_NUMERICS_MAX = 128,
    JOB_DIGEST_SIZE = 16,
    JOB_BANDS = 3,
    JOB_NO_POSITION = -1,
    WORKER_NAME_MAX = 64,
};

enum job_state {
    JOB_NONE, /* of a job that does not exist */
    JOB_READY,
    JOB_LEASED,
    JOB_DELAYED,
    JOB_DONE,
    JOB_FAILED,
    JOB_DEAD,
    JOB_CANCELLED,
    JOB_EXPIRED,
    JOB_STATES
};

enum job_cause {
    CAUSE_SUBMITTED,
    CAUSE_REFUSED, /* submitted as failed: the client found the line wrong */
    CAUSE_LEASED,
    CAUSE_FINISHED,
    CAUSE_AT_FAULT,
    CAUSE_HINDERED,
    CAUSE_LOST,
    CAUSE_RELEASED,
    CAUSE_POSTPONED,  /* submitted, or begun anew, for later */
    CAUSE_DUE,        /* its delay is over */
    CAUSE_SPENT,      /* no attempts, or no losses, are left */
    CAUSE_SUPERSEDED, /* this generation ends because another begins */
    CAUSE_RENEWED,    /* a new generation begins */
    CAUSE_CANCELLED,  /* somebody no longer wants it */
    CAUSE_EXPIRED,    /* its deadline, or the time that it may wait for a worker, is over */
    CAUSE_DAMAGED,    /* the stored bytes are not those that were acknowledged */
    JOB_CAUSES
};

struct job {
    int64_t seq;
    int64_t batch, queue;
    char id[JOB_ID_MAX + 1];
    char custom_id[JOB_CUSTOM_ID_MAX + 1];
    char endpoint[JOB_ENDPOINT_MAX + 1];
    uint64_t seed;
    uint32_t generation; /* from 1 */
    enum job_state state;
    int band;         /* 0 high, 1 normal, 2 low */
    int64_t position; /* in the batch; JOB_NO_POSITION when another job took its place */
    uint32_t attempt, infra;
    uint32_t leases; /* how often it was leased, in all generations: the low part of its fences */
    char worker[WORKER_NAME_MAX + 1]; /* who holds it, or held it last */
    uint64_t incarnation;
    int64_t run_at_ms;    /* wall clock; of a delayed job */
    int64_t deadline_ms;  /* wall clock: it is over by then; 0: none */
    int64_t ready_ttl_ms; /* how long it may be ready before its first lease; 0: for ever */
    int64_t wake_ms;      /* wall clock: when time alone will move it next; 0: never.  See job_wake() */
    int64_t purged_ms;    /* when its request was erased; 0: it is there */
    int64_t created_ms, leased_ms;
    int64_t entry; /* number of the newest generation's entry; 0 while it has not ended */
    uint32_t size; /* bytes of the body */
    uint8_t digest[JOB_DIGEST_SIZE];
    char reason[JOB_REASON_MAX + 1]; /* of the last failure or loss */
};

/* JOB_NONE where that cause cannot act on that state: the caller treats it as "too late". */
enum job_state job_next(enum job_state from, enum job_cause cause);

/* When time alone moves a job that is now in this state: the end of a delay, the deadline, or, where it was
 * never leased in this generation, the end of its patience.  The core sets wake_ms to this on every change of
 * state, and the store finds by it whose time has come. */
int64_t job_wake(const struct job *job, int64_t now_wall_ms);

static inline bool job_ended(enum job_state state)
{
    return state >= JOB_DONE;
}

const char *job_state_name(enum job_state state);

/* What "the same body" means: the bytes and all that belongs to them. */
void job_digest(uint8_t digest[JOB_DIGEST_SIZE], const char *endpoint, const char *custom_id, uint64_t seed,
                bool refused, struct span body);

/* A fence names its job and counts its leases, so it is new for every lease, also after a restart,
 * and a late result finds its job without a table.  Twenty bits: a job is dead long before. */
enum { FENCE_COUNT_BITS = 20 };

static inline uint64_t job_fence(const struct job *job)
{
    return (uint64_t)job->seq << FENCE_COUNT_BITS | (job->leases & ((1u << FENCE_COUNT_BITS) - 1));
}

static inline int64_t fence_seq(uint64_t fence)
{
    return (int64_t)(fence >> FENCE_COUNT_BITS);
}

/* Copies at most size-1 bytes, cut before a character that would not fit whole. */
void text_copy(char *into, size_t size, const char *text);

#endif
