/* core_state - what the parts of the core share.  Nobody else includes this.
 *
 *     core.c     the turn: which event goes where
 *     workers.c  workers come and go, seats, heartbeats
 *     jobs.c     submit, lease, result: the life of a job
 *     cancel.c   cancel and retry, jobs and whole batches
 *     purge.c    erasing what is not needed any more
 *     answers.c  fetch, cursors, status, audit */

#ifndef BROKER_CORE_STATE_H
#define BROKER_CORE_STATE_H

#include "broker/batch.h"
#include "broker/core.h"
#include "broker/lease.h"
#include "broker/window.h"

enum {
    WAITERS_MAX = 4096,
    TURN_BYTES_MAX = 64 * 1024 * 1024, /* of answers and leases in one turn; the rest waits for the next */
    ALONE_FROM = 3,                    /* losses after which a job is leased alone */
    REASON_SLACK = 256,
    NAMES_MAX = 256, /* jobs that one message may name */
    GATHERED_MAX = 8192,
};

struct worker {
    bool here; /* the slot is in use */
    struct offer offer;
    uint32_t pid;
    uint64_t session; /* 0: gone, its leases run on */
    int64_t heard_ms;
    uint32_t credit_jobs;
    uint64_t credit_bytes; /* 0: no bound */
    uint32_t held;
    uint64_t held_bytes;
    bool alone;     /* works on a job that wants to be alone */
    bool wants_map; /* it came, and the map is not sent yet */
    uint64_t seated_epoch;
    uint32_t sequences;
    int32_t waiting_shard;
    uint64_t prompt_tokens, generated_tokens;
    Moothall__ExchangeCounts exchange;
};

struct waiter { /* a Fetch that is not answered yet */
    uint64_t session, correlation;
    struct queue_book *queue;
    int64_t batch; /* 0: the whole queue */
    bool by_position;
    int64_t *named; /* seqs of the jobs that are wanted; NULL: not by name */
    int named_count;
    int64_t from;
    int items_max;
    size_t bytes_max;
    int64_t until_ms;
    bool fresh; /* not tried yet */
};

struct core {
    struct core_config config;
    struct store *store;
    struct random *random;
    struct core_time now;
    struct core_time started;

    struct books books;
    struct window window[JOB_BANDS];
    int band_turn;
    struct lease_table *leases;
    int64_t seq_last;
    int64_t next_due_ms; /* wall clock, a lower bound */
    bool due_left;       /* more has come due than one turn moves */
    bool room;           /* for anything new */
    bool pending;        /* some batch may have jobs that have to be ended as cancelled ... */
    int64_t cancelling;  /* ... this one for instance, 0: ask the store ... */
    struct live_at cancelling_at;
    bool cancelling_moved; /* ... and this walk over its jobs has found some */

    struct worker worker[WORKERS_MAX];
    int worker_end;       /* slots in use lie below */
    int64_t last_came_ms; /* when a worker came that was not here before */
    bool opened;          /* every seat was filled once since the start */
    bool open;            /* every seat is filled now */
    struct placement placement;
    uint32_t dealt_to;
    struct hall_row hall;
    bool hall_changed;
    char numerics[JOB_NUMERICS_MAX + 1]; /* of the last result */

    struct waiter waiter[WAITERS_MAX];
    int waiter_count;
    bool again; /* something was left for the next turn */
    struct job scratch[64];
    struct waiting gathered[GATHERED_MAX];
    int refills[JOB_BANDS]; /* of the windows in this turn */
};

/* workers.c */
void workers_hello(struct core *core, const struct event *event, struct effects *effects);
void workers_ended(struct core *core, const struct event *event, struct effects *effects);
void workers_heartbeat(struct core *core, struct worker *worker, const Moothall__Heartbeat *heartbeat);
void workers_credit(struct worker *worker, const Moothall__Credit *credit);
void workers_seated(struct worker *worker, const Moothall__Seated *seated);
void workers_death(struct core *core, const struct event *event, struct effects *effects);
void workers_review(struct core *core, struct effects *effects); /* deals seats, opens and closes */
void workers_restore(struct core *core);                         /* who held what when the broker ended */
bool workers_read_map(struct core *core);
struct worker *worker_of(struct core *core, uint64_t session); /* NULL: not a worker's */
uint32_t worker_number(const struct core *core, const struct worker *worker);
bool workers_may_lease(const struct core *core, const struct worker *worker);
/* Why nothing is leased, for people; empty when leasing. */
void workers_waiting_for(const struct core *core, char *text, size_t size);

/* jobs.c */

/* What an end puts into its entry beside the job's own. */
struct ending {
    enum job_cause cause;
    uint32_t status_code;
    const char *reason, *numerics, *worker;
    uint32_t prompt_tokens, generated_tokens, cached_tokens;
    struct span body;
};

/* The generation is over: one entry, with the next number of its queue.  The caller stores the job. */
void jobs_end(struct core *core, struct job *job, struct batch *batch, const struct ending *how);
/* Another state, with the counts.  The caller stores the job. */
void jobs_change(struct core *core, struct job *job, struct batch *batch, enum job_cause cause);
void jobs_to_window(struct core *core, const struct job *job, const struct batch *batch);
/* Nobody works on it any more, nor will: it leaves the window, or its holder, who is told. */
void jobs_withdraw(struct core *core, const struct job *job, struct effects *effects);
/* The holder no longer has that lease, which was just taken from the table.  tell: it does not know yet. */
void jobs_leave_holder(struct core *core, struct lease lease, bool tell, struct effects *effects);
int64_t jobs_live(const struct core *core); /* that have not ended */
void jobs_submit(struct core *core, const struct event *event, struct effects *effects);
void jobs_result(struct core *core, struct worker *worker, const struct event *event,
                 struct effects *effects);
void jobs_release(struct core *core, struct worker *worker, const Moothall__Release *release,
                  struct effects *effects);
void jobs_expire(struct core *core, struct effects *effects);
void jobs_due(struct core *core, struct effects *effects); /* what time alone moves; bounded, see due_left */
void jobs_lease_out(struct core *core, struct effects *effects);
/* Of a lease that is not in the table any more: its worker was lost, or gives it back. */
void jobs_lose(struct core *core, struct lease lease, const char *reason, struct effects *effects);
void jobs_give_back(struct core *core, struct lease lease, struct effects *effects);
/* Leased before the broker's start, by nobody who can be waited for. */
void jobs_forsake(struct core *core, struct job *job);
void jobs_send_lease(struct core *core, struct worker *worker, uint64_t fence, struct effects *effects);
void jobs_damaged_entry(struct core *core, const struct entry *entry);

/* cancel.c */
void cancel_ask(struct core *core, const struct event *event, struct effects *effects);
void cancel_on(struct core *core); /* a slice of what is to be ended */
void cancel_lift(struct batch *batch);
void cancel_job(struct core *core, struct job *job, struct batch *batch, const char *reason,
                struct effects *effects);
void retry_ask(struct core *core, const struct event *event, struct effects *effects);

/* purge.c */
void purge_ask(struct core *core, const struct event *event, struct effects *effects);
void purge_retained(struct core *core); /* a slice of what was kept for long enough */
int64_t purge_retention_ms(const struct core *core, const struct queue_book *queue);

/* answers.c */
/* The queue, and the batch where one is named; false: there is none, which has been answered. */
bool answers_find(struct core *core, const struct event *event, const char *queue_name,
                  const char *batch_name, struct queue_book **queue, struct batch **batch,
                  struct effects *effects);
/* The seqs of those jobs; NULL: one is unknown, which has been answered. */
int64_t *answers_named(struct core *core, const struct event *event, const struct batch *batch, char **names,
                       size_t count, struct effects *effects);
void answers_queue_set(struct core *core, const struct event *event, struct effects *effects);
void answers_fetch(struct core *core, const struct event *event, struct effects *effects);
void answers_waiters(struct core *core, struct effects *effects);
void answers_session_ended(struct core *core, uint64_t session);
void answers_cursor(struct core *core, const struct event *event, struct effects *effects);
void answers_status(struct core *core, const struct event *event, struct effects *effects);
void answers_audit(struct core *core, const struct event *event, struct effects *effects);

#endif
