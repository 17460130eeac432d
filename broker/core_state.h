/* core_state - what the parts of the core share.  Nobody else includes this.
 *
 *     core.c     the turn: which event goes where
 *     workers.c  workers come and go, seats, heartbeats
 *     jobs.c     submit, lease, result: the life of a job
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
    bool room;           /* for anything new */

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
void jobs_submit(struct core *core, const struct event *event, struct effects *effects);
void jobs_result(struct core *core, struct worker *worker, const struct event *event,
                 struct effects *effects);
void jobs_release(struct core *core, struct worker *worker, const Moothall__Release *release,
                  struct effects *effects);
void jobs_expire(struct core *core, struct effects *effects);
void jobs_due(struct core *core);
void jobs_lease_out(struct core *core, struct effects *effects);
/* Of a lease that is not in the table any more: its worker was lost, or gives it back. */
void jobs_lose(struct core *core, struct lease lease, const char *reason, struct effects *effects);
void jobs_give_back(struct core *core, struct lease lease, struct effects *effects);
/* Leased before the broker's start, by nobody who can be waited for. */
void jobs_forsake(struct core *core, struct job *job);
void jobs_send_lease(struct core *core, struct worker *worker, uint64_t fence, struct effects *effects);
void jobs_damaged_entry(struct core *core, const struct entry *entry);

/* answers.c */
void answers_fetch(struct core *core, const struct event *event, struct effects *effects);
void answers_waiters(struct core *core, struct effects *effects);
void answers_session_ended(struct core *core, uint64_t session);
void answers_cursor(struct core *core, const struct event *event, struct effects *effects);
void answers_status(struct core *core, const struct event *event, struct effects *effects);
void answers_audit(struct core *core, const struct event *event, struct effects *effects);

#endif
