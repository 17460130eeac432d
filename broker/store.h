/* store - the queue on disk, as a struct of functions in the queue's words.
 *
 * One thread uses it.  Between begin and commit every write is seen by every later read, and all
 * of them are on disk when commit says STORE_KEPT: only then may anything that was decided leave the
 * broker.  Spans given to a write stay good until the commit.
 *
 * A store that has failed once stays failed: reads then find nothing, writes do nothing, and commit
 * says STORE_BROKEN with the reason.  So nothing in between has to look, and nothing is
 * acknowledged that is not there. */

#ifndef BROKER_STORE_H
#define BROKER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"
#include "broker/job.h"
#include "broker/window.h"

enum {
    QUEUE_NAME_MAX = 64,
    BATCH_NAME_MAX = 128,
    CONSUMER_NAME_MAX = 64,
    CURSOR_NOTE_MAX = 1024,
    QUEUES_MAX = 1024,
    CURSORS_MAX = 65536,
    BATCH_POSITIONS_MAX = 10 * 1000 * 1000,
    FINGERPRINT_SIZE = 32,
    FAMILY_MAX = 32,
    MAP_BYTES_MAX = 64 * 1024,
    CANCEL_REASON_MAX = 200,
    RETENTION_DEFAULT = -1,
};

struct counts {
    int64_t in[JOB_STATES]; /* jobs by the state of their newest generation; JOB_NONE unused */
};

/* What the hall itself must remember. */
struct hall_row {
    uint64_t hall;         /* random, made with the store */
    uint32_t broker_epoch; /* of the broker's last start */
    bool has_model;
    uint8_t fingerprint[FINGERPRINT_SIZE];
    char family[FAMILY_MAX + 1];
    uint8_t map[MAP_BYTES_MAX]; /* a packed Map: who holds which shard, at which epoch */
    size_t map_size;
};

struct queue_row {
    int64_t id;
    char name[QUEUE_NAME_MAX + 1];
    int64_t entries; /* the number of the last entry */
    struct counts counts;
    bool paused;
    int64_t retention_ms; /* 0: what ended is kept for ever; RETENTION_DEFAULT: as the configuration says */
    int64_t purged;       /* entries whose bodies were erased */
    int64_t retained_to;  /* the entries up to this number have been looked at by the retention */
};

struct batch_row {
    int64_t id;
    int64_t queue;
    char name[BATCH_NAME_MAX + 1];
    int64_t total;            /* jobs that it will have; 0: it grows with what comes */
    int64_t first_unfinished; /* every position below this has ended (there may be more that have) */
    int64_t placed_ended;     /* jobs with a position that have ended */
    int64_t positions_end;    /* no job has a position at or above this */
    int64_t prompt_tokens, generated_tokens, cached_tokens;
    int64_t created_ms;
    struct counts counts;

    /* Wall clock, 0: it has not happened.  A batch that begins again forgets its ends. */
    int64_t in_progress_ms, finalizing_ms, completed_ms, failed_ms, expired_ms, cancelled_ms;
    int64_t cancelling_ms; /* when it was cancelled: it takes no jobs until a retry */
    bool cancel_pending;   /* it has jobs that have to be ended as cancelled; none of them is leased */
    char cancel_reason[CANCEL_REASON_MAX + 1];
    int64_t expires_ms;                  /* the latest deadline of its jobs */
    char endpoint[JOB_ENDPOINT_MAX + 1]; /* of its jobs; empty where they differ */
    bool endpoints_differ;
    int64_t seq_first, seq_last; /* its jobs lie in between, among others */
};

struct entry {
    int64_t queue;
    int64_t number; /* gap-free from 1 in the queue */
    int64_t job;    /* seq */
    int64_t batch;
    uint32_t generation;
    enum job_state state;
    uint32_t status_code;
    uint32_t attempt, infra;
    uint64_t seed;
    int64_t created_ms, leased_ms, finished_ms;
    uint32_t prompt_tokens, generated_tokens, cached_tokens;
    int64_t purged_ms; /* when its body was erased; 0: it is there */
    char endpoint[JOB_ENDPOINT_MAX + 1];
    char worker[WORKER_NAME_MAX + 1];
    char numerics[JOB_NUMERICS_MAX + 1];
    char reason[JOB_REASON_MAX + 1];

    /* Filled in by reads. */
    char id[JOB_ID_MAX + 1];
    char custom_id[JOB_CUSTOM_ID_MAX + 1];
    char batch_name[BATCH_NAME_MAX + 1];
    int64_t position;
    uint32_t size;
    bool intact; /* the body is the one that was stored */
};

struct cursor_row {
    char queue[QUEUE_NAME_MAX + 1], batch[BATCH_NAME_MAX + 1], consumer[CONSUMER_NAME_MAX + 1];
    uint64_t position;
    int64_t moved_ms; /* wall clock; 0: before that was noted */
    uint8_t note[CURSOR_NOTE_MAX];
    size_t note_size;
};

/* A consumer, for people: its cursor without the note. */
struct consumer_row {
    char batch[BATCH_NAME_MAX + 1], consumer[CONSUMER_NAME_MAX + 1];
    uint64_t position;
    int64_t moved_ms;
};

/* What a purge has to know of an entry. */
struct remains {
    int64_t number, job;
    int64_t finished_ms, purged_ms;
    uint32_t size, request_size;
    bool newest; /* of its job, and the job has ended: nobody needs the request any more */
};

/* Which entries are wanted.  batch 0: of the whole queue.  by_position: the newest generation's entry
 * of each position of the batch, as far as they follow each other without a gap; over_gaps: all there are. */
struct entry_query {
    int64_t queue, batch;
    bool by_position, over_gaps;
    int64_t from;
    int items_max;
    size_t bytes_max; /* of bodies; the first entry comes whatever its size */
};

/* Where a walk over live jobs stands. */
struct live_at {
    int stage; /* which state and band */
    int64_t seq;
};

struct audit_slice {
    int64_t jobs, generations, entries, unfinished, missing, doubled, corrupt, holes;
    char first_fault[256];
    int64_t next; /* 0: that was the last slice */
};

enum store_outcome {
    STORE_KEPT,
    STORE_BROKEN /* nothing of this transaction may be acknowledged, and the process should end */
};

struct store {
    void (*free)(struct store *store);

    void (*begin)(struct store *store);
    enum store_outcome (*commit)(struct store *store, struct err *err);

    /* Is there room on the disk for that many bytes more, beside what finishing needs? */
    bool (*has_room)(struct store *store, size_t bytes);
    /* Housekeeping in idle moments, outside a transaction: checkpoints, the ballast, traces of what was
     * purged. */
    void (*tend)(struct store *store, bool idle);

    /* The hall.  The store that was just made has a hall of its own already. */
    void (*hall_get)(struct store *store, struct hall_row *hall);
    void (*hall_put)(struct store *store, const struct hall_row *hall);

    /* Queues and batches are written whole; the caller keeps their counts. */
    int (*queues)(struct store *store, struct queue_row *rows, int rows_max);
    void (*queue_put)(struct store *store, const struct queue_row *row);
    bool (*batch_named)(struct store *store, int64_t queue, const char *name, struct batch_row *row);
    bool (*batch_get)(struct store *store, int64_t id, struct batch_row *row);
    int64_t (*batch_pending)(struct store *store, int64_t after); /* the next with cancel_pending; 0: none */
    /* The newest batches, of one queue or (0) of all. */
    int (*batches)(struct store *store, int64_t queue, struct batch_row *rows, int rows_max);
    int64_t (*batch_last)(struct store *store); /* the highest id so far */
    void (*batch_put)(struct store *store, const struct batch_row *row);

    /* Jobs. */
    int64_t (*job_last)(struct store *store); /* the highest seq so far */
    bool (*job_named)(struct store *store, int64_t batch, const char *id, struct job *job);
    bool (*job_get)(struct store *store, int64_t seq, struct job *job);
    int64_t (*job_at)(struct store *store, int64_t batch, int64_t position); /* its seq, or 0 */
    void (*job_add)(struct store *store, const struct job *job, struct span body);
    void (*job_move)(struct store *store, const struct job *job); /* its state and what goes with it */
    /* Everything but id, batch, position.  body NULL: the one that is there. */
    void (*job_renew)(struct store *store, const struct job *job, const struct span *body);
    void (*job_place)(struct store *store, int64_t seq, int64_t position);
    /* The body, in the arena.  False when its checksum is wrong (or it is not there). */
    bool (*body)(struct store *store, int64_t seq, struct arena *arena, struct span *body);

    /* By age; after: a seq. */
    int (*ready)(struct store *store, int64_t queue, int band, int64_t after, struct waiting *rows,
                 int rows_max);
    /* after: the last one that was seen, NULL at the start. */
    int (*leased)(struct store *store, const struct job *after, struct job *rows, int rows_max);
    /* The jobs of one batch that have not ended, by (state, band, seq); looks at `most` of its queue, and is
     * where it stopped in *at, which starts as zero.  *over: there are no more. */
    int (*live)(struct store *store, const struct batch_row *batch, struct live_at *at, int most,
                int64_t *seqs, int seqs_max, bool *over);
    /* The jobs of one batch by age, in any state; looks at `most` numbers.  *at: the last number looked at.
     */
    int (*jobs)(struct store *store, int64_t batch, int64_t *at, int most, struct job *rows, int rows_max);
    /* Jobs whose wake_ms has come, or that wait after a failed attempt for longer than any such wait can be
     * (the clock was set back). */
    int (*due)(struct store *store, int64_t wall_ms, int64_t delay_max_ms, int64_t *seqs, int seqs_max);
    int64_t (*next_due)(struct store *store); /* wall clock; INT64_MAX when nothing waits for a time */
    /* The first position at or after `from` that has no ended job, looking at most `most` positions
     * far; *more when it stopped for that reason. */
    int64_t (*first_unfinished)(struct store *store, int64_t batch, int64_t from, int most, bool *more);

    /* Results. */
    void (*entry_add)(struct store *store, const struct entry *entry, struct span body);
    void (*entry_flag)(struct store *store, int64_t queue, int64_t number, enum job_state state,
                       const char *reason);
    /* Fills rows, and appends the bodies one after another.  A damaged body is left out (size 0, not intact).
     */
    int (*entries)(struct store *store, const struct entry_query *query, struct entry *rows,
                   struct buf *bodies);

    /* The entries after a number, of one batch or (0) the whole queue, with what a purge has to know of them.
     */
    int (*remains)(struct store *store, int64_t queue, int64_t batch, int64_t after, struct remains *rows,
                   int rows_max);
    /* Erases: of the entry the body, the reason and the worker's words; of the job (0: none) the request.
     * They are gone from every file of the store when a commit that was told so has returned, else after some
     * idle moments. */
    void (*entry_purge)(struct store *store, int64_t queue, int64_t number, int64_t job, int64_t now_ms);
    void (*purge_now)(
        struct store *store); /* the next commit shall erase the traces of this transaction too */

    /* Of one queue, those that moved last. */
    int (*consumers)(struct store *store, const char *queue, struct consumer_row *rows, int rows_max);
    bool (*cursor_get)(struct store *store, struct cursor_row *cursor);       /* in: the three names */
    bool (*cursor_put)(struct store *store, const struct cursor_row *cursor); /* false: CURSORS_MAX reached */

    /* One bounded slice.  batch_name empty: everything. */
    void (*audit)(struct store *store, const char *batch_name, int64_t after, struct audit_slice *slice);
};

#endif
