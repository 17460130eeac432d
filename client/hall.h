/* hall - a client's session with a broker.
 *
 * The session of proto/PROTOCOL.md: Hello, pings, silence noticed, a new connection with back-off, and
 * after every Welcome everything unanswered is sent again.  So a call here simply takes longer while a
 * broker is away; a person is told, and `timeout_ms` says when to give up.
 *
 * Calls block.  What else must go on meanwhile (children to look after, a progress bar, a signal to
 * heed) is the side: hall calls it in between, and it may end the call.
 * Everything happens on the thread that made the hall. */

#ifndef CLIENT_HALL_H
#define CLIENT_HALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "proto/link.h"

enum {
    HALL_GROUP_JOBS_MAX = 256,
    HALL_GROUP_BYTES_MAX = 1 << 20,       /* of bodies in a group, unless one body alone is larger */
    HALL_GROUP_ENVELOPE_MAX = 48 * 1024,  /* of what stands in the envelope about them */
    HALL_UNANSWERED_BYTES_MAX = 512 << 10, /* of groups under way, whatever the broker's window (one group may be larger):
                                              so much a client, and a few times as much a broker, holds for it */
    HALL_SIDE_FDS_MAX = 8,
};

struct hall;

struct hall_side {
    int fd[HALL_SIDE_FDS_MAX]; /* readable: turn has something to do */
    int fd_count;
    /* Called at least every 100 ms while a call waits.  False ends that call with this error. */
    bool (*turn)(void *arg, struct err *err);
    void *arg;
};

struct hall_config {
    const char *endpoint;
    const char *name;    /* for people, in the broker's log */
    Moothall__Role role; /* CLIENT or SUPERVISOR */
    int64_t timeout_ms;  /* give up after this long without an answer; -1: 60 s until the first answer, then
                            never */
    int64_t backoff_max_ms; /* 0: 5 s */
    bool silent;            /* says nothing about a broker that does not answer: somebody else does */
    struct hall_side *side; /* NULL: none; kept */
};

struct hall_welcome {
    uint64_t hall; /* tells two halls apart */
    uint32_t broker_epoch;
    uint32_t payload_max;
    uint32_t window;
};

/* Success says only that the endpoint is well formed. */
bool hall_new(struct hall **hall, struct link_context *context, const struct hall_config *config,
              struct err *err);
void hall_free(struct hall *hall); /* says Goodbye; NULL is fine */

/* Waits for the Welcome. */
bool hall_open(struct hall *hall, struct hall_welcome *welcome, struct err *err);

/* Asks and waits for the answer of the kind expected.  The answer is good until the next call.
 * ERR_REFUSED: the broker said no, in its words; ERR_NOT_FOUND: it knows no such batch, or job. */
bool hall_ask(struct hall *hall, Moothall__Envelope__BodyCase kind, void *body,
              Moothall__Envelope__BodyCase expected, const struct link_message **answer, struct err *err);

/* ---- submitting ------------------------------------------------------------------------------ */

struct hall_job {
    const char *id;
    const char *custom_id;
    uint32_t position;
    uint64_t seed;
    const char *endpoint;
    struct span body;
    bool refused;
    uint32_t status_code; /* with refused */
};

struct hall_submission { /* what all jobs of a group have in common; its texts must outlive the submitting */
    const char *queue;
    const char *batch;
    uint32_t batch_total;
    Moothall__SubmitMode mode;
    uint32_t priority;     /* 0 normal, 1 high, 2 low */
    int64_t not_before_ms; /* wall clock; 0: at once */
    int64_t deadline_ms;   /* wall clock; 0: none */
    uint64_t ready_ttl_ms; /* 0: for ever */
};

struct hall_tally {
    uint64_t accepted, duplicate, renewed, conflict;
    uint32_t conflict_position; /* the first's */
    char conflict_reason[256];
};

/* Adds one job (copied) to the group being made and sends it when it is full; waits while the window is. */
bool hall_submit(struct hall *hall, const struct hall_submission *submission, const struct hall_job *job,
                 struct err *err);

/* Sends what is left and waits until every group is acknowledged: then all jobs but the conflicts are on the
 * broker's disk. */
bool hall_submit_end(struct hall *hall, const struct hall_submission *submission, struct err *err);

struct hall_tally hall_tally(const struct hall *hall);

/* ---- for who waits for several halls at once ---------------------------------------------------- */

/* One turn without waiting: receives, answers, sends again. */
bool hall_turn(struct hall *hall, struct err *err);
struct link *hall_link(struct hall *hall); /* to wait on; NULL between two connections */
bool hall_is_open(const struct hall *hall);
uint32_t hall_unanswered(const struct hall *hall); /* groups sent, not acknowledged */
bool hall_submit_push(struct hall *hall, const struct hall_submission *submission,
                      struct err *err); /* sends the group as it is */

/* What the workers have said to each other since they started, there and back: messages, and bytes of rows. */
double hall_exchange(const Moothall__Status *status, double *bytes);

#endif
