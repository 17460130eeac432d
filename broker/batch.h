/* batch - the counts of queues and batches, kept beside the store.
 *
 * Nothing is ever counted by looking at all jobs: each change of state moves one from one count to
 * another here, and what has changed is written once a transaction.  All queues are in memory (they
 * are few); of the batches only those in use, the others are read when they are named.
 *
 * `first_unfinished` says how far a reader in order of position can get.  It is moved on as jobs
 * end, a bounded number of positions at a time. */

#ifndef BROKER_BATCH_H
#define BROKER_BATCH_H

#include <uthash.h>

#include "broker/store.h"

enum {
    BATCHES_KEPT = 1024,       /* in memory, beyond those of the present transaction */
    POSITIONS_ADVANCED = 4096, /* looked at in one go */
};

struct queue_book {
    struct queue_row row;
    bool changed;
    bool grown;           /* entries came in this turn */
    int64_t retain_at_ms; /* wall clock: the retention has nothing to do before */
    UT_hash_handle hh;
};

struct batch {
    struct batch_row row;
    struct queue_book *queue;
    bool changed;
    bool behind;   /* first_unfinished has to be moved on further */
    bool grown;    /* entries came in this turn */
    uint64_t used; /* the turn it was used in last */
    char key[24 + BATCH_NAME_MAX];
    UT_hash_handle by_id, by_name;
};

struct books {
    struct store *store;
    struct queue_book *queues;
    struct batch *by_id, *by_name;
    int64_t queue_last, batch_last;
    uint64_t turn;
};

void books_init(struct books *books, struct store *store); /* reads the queues */
void books_fini(struct books *books);

/* NULL when there is none. */
struct queue_book *books_queue(struct books *books, const char *name);
struct batch *books_batch(struct books *books, struct queue_book *queue, const char *name);
struct batch *books_batch_id(struct books *books, int64_t id);

/* Makes it where it is missing.  NULL when there are QUEUES_MAX queues. */
struct queue_book *books_queue_make(struct books *books, const char *name);
struct batch *books_batch_make(struct books *books, struct queue_book *queue, const char *name,
                               int64_t now_wall_ms);

/* One job goes from one state to another (JOB_NONE: it is new). */
void batch_count(struct batch *batch, enum job_state from, enum job_state to);

/* The job at that position (JOB_NO_POSITION: nowhere) has ended, or has a generation again that has not. */
void batch_ended(struct batch *batch, int64_t position);
void batch_unended(struct batch *batch, int64_t position);

/* Jobs that have not ended. */
int64_t batch_live(const struct batch *batch);

/* How many jobs it will have, as far as that is known. */
int64_t batch_total(const struct batch *batch);

/* Every job that the batch will have is there and has ended; of one that was cancelled: all that are there.
 */
bool batch_over(const struct batch *batch);

/* Did entries of that batch come in since the last flush? */
bool books_grown(const struct books *books, int64_t batch);

/* Writes what has changed, moves first_unfinished on, notes what has become of the batches, forgets those
 * that nobody used for long.  True when some batch is still behind: another turn should follow. */
bool books_flush(struct books *books, int64_t now_wall_ms);

/* Sums over everything. */
struct counts books_counts(const struct books *books);

#endif
