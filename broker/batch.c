#include "broker/batch.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* Small and needed to go on at all: without it the broker stops, and nothing unacknowledged is lost. */
static void *must(void *memory)
{
    if (!memory) {
        log_error("broker.memory", "reason=\"out of memory\"");
        abort();
    }
    return memory;
}

void books_init(struct books *books, struct store *store)
{
    struct queue_row *rows = must(calloc(QUEUES_MAX, sizeof *rows));
    int n;

    *books = (struct books){ .store = store };
    n = store->queues(store, rows, QUEUES_MAX);
    for (int i = 0; i < n; i++) {
        struct queue_book *queue = must(calloc(1, sizeof *queue));

        queue->row = rows[i];
        HASH_ADD_STR(books->queues, row.name, queue);
        if (rows[i].id > books->queue_last)
            books->queue_last = rows[i].id;
    }
    free(rows);
    books->batch_last = store->batch_last(store);
}

static void forget(struct books *books, struct batch *batch)
{
    HASH_DELETE(by_id, books->by_id, batch);
    HASH_DELETE(by_name, books->by_name, batch);
    free(batch);
}

void books_fini(struct books *books)
{
    struct queue_book *queue, *next_queue;
    struct batch *batch, *next;

    HASH_ITER(by_id, books->by_id, batch, next)
    forget(books, batch);
    HASH_ITER(hh, books->queues, queue, next_queue)
    {
        HASH_DEL(books->queues, queue);
        free(queue);
    }
}

struct queue_book *books_queue(struct books *books, const char *name)
{
    struct queue_book *queue;

    HASH_FIND_STR(books->queues, name, queue);
    return queue;
}

struct queue_book *books_queue_make(struct books *books, const char *name)
{
    struct queue_book *queue = books_queue(books, name);

    if (queue || HASH_COUNT(books->queues) >= QUEUES_MAX)
        return queue;
    queue = must(calloc(1, sizeof *queue));
    queue->row.id = ++books->queue_last;
    queue->row.retention_ms = RETENTION_DEFAULT;
    text_copy(queue->row.name, sizeof queue->row.name, name);
    queue->changed = true;
    HASH_ADD_STR(books->queues, row.name, queue);
    return queue;
}

static void key_of(char key[24 + BATCH_NAME_MAX], int64_t queue, const char *name)
{
    snprintf(key, 24 + BATCH_NAME_MAX, "%" PRId64 "/%s", queue, name);
}

static struct batch *remember(struct books *books, const struct batch_row *row)
{
    struct batch *batch = must(calloc(1, sizeof *batch));
    struct queue_book *queue, *next;

    batch->row = *row;
    batch->used = books->turn;
    HASH_ITER(hh, books->queues, queue, next)
    if (queue->row.id == row->queue)
        batch->queue = queue;
    assert(batch->queue);
    key_of(batch->key, row->queue, row->name);
    HASH_ADD(by_id, books->by_id, row.id, sizeof batch->row.id, batch);
    HASH_ADD_KEYPTR(by_name, books->by_name, batch->key, strlen(batch->key), batch);
    return batch;
}

struct batch *books_batch(struct books *books, struct queue_book *queue, const char *name)
{
    struct batch *batch;
    struct batch_row row;
    char key[24 + BATCH_NAME_MAX];

    key_of(key, queue->row.id, name);
    HASH_FIND(by_name, books->by_name, key, strlen(key), batch);
    if (batch)
        batch->used = books->turn;
    else if (books->store->batch_named(books->store, queue->row.id, name, &row))
        batch = remember(books, &row);
    return batch;
}

struct batch *books_batch_id(struct books *books, int64_t id)
{
    struct batch *batch;
    struct batch_row row;

    HASH_FIND(by_id, books->by_id, &id, sizeof id, batch);
    if (batch)
        batch->used = books->turn;
    else if (books->store->batch_get(books->store, id, &row))
        batch = remember(books, &row);
    return batch;
}

struct batch *books_batch_make(struct books *books, struct queue_book *queue, const char *name,
                               int64_t now_wall_ms)
{
    struct batch *batch = books_batch(books, queue, name);
    struct batch_row row = { .queue = queue->row.id, .created_ms = now_wall_ms };

    if (batch)
        return batch;
    row.id = ++books->batch_last;
    text_copy(row.name, sizeof row.name, name);
    batch = remember(books, &row);
    batch->changed = true;
    return batch;
}

void batch_count(struct batch *batch, enum job_state from, enum job_state to)
{
    struct counts *both[] = { &batch->row.counts, &batch->queue->row.counts };

    for (int i = 0; i < 2; i++) {
        if (from != JOB_NONE)
            both[i]->in[from]--;
        both[i]->in[to]++;
    }
    batch->changed = batch->queue->changed = true;
}

void batch_ended(struct batch *batch, int64_t position)
{
    if (position < 0)
        return;
    batch->row.placed_ended++;
    batch->changed = true;
    if (position == batch->row.first_unfinished)
        batch->behind = true;
}

void batch_unended(struct batch *batch, int64_t position)
{
    if (position < 0)
        return;
    batch->row.placed_ended--;
    batch->changed = true;
    if (position < batch->row.first_unfinished)
        batch->row.first_unfinished = position;
}

int64_t batch_live(const struct batch *batch)
{
    const int64_t *in = batch->row.counts.in;

    return in[JOB_READY] + in[JOB_LEASED] + in[JOB_DELAYED];
}

static int64_t batch_jobs(const struct batch *batch)
{
    int64_t jobs = 0;

    for (int s = JOB_READY; s < JOB_STATES; s++)
        jobs += batch->row.counts.in[s];
    return jobs;
}

int64_t batch_total(const struct batch *batch)
{
    return batch->row.total ? batch->row.total : batch_jobs(batch);
}

bool batch_over(const struct batch *batch)
{
    return batch_live(batch) == 0 && (batch->row.cancelling_ms || batch_jobs(batch) >= batch->row.total);
}

bool books_grown(const struct books *books, int64_t id)
{
    struct batch *batch;

    HASH_FIND(by_id, books->by_id, &id, sizeof id, batch);
    return batch && batch->grown;
}

/* The times of the batch as an object.  One that goes on after all (a retry, more jobs) has not ended. */
static void note_times(struct batch *batch, int64_t now_ms)
{
    struct batch_row *row = &batch->row;
    int64_t *end = row->cancelling_ms            ? &row->cancelled_ms
                   : row->counts.in[JOB_EXPIRED] ? &row->expired_ms
                   : !row->in_progress_ms && row->counts.in[JOB_FAILED] == batch_jobs(batch)
                       ? &row->failed_ms
                       : &row->completed_ms;

    if (!batch_over(batch) || batch_jobs(batch) == 0) {
        row->finalizing_ms = row->completed_ms = row->failed_ms = row->expired_ms = row->cancelled_ms = 0;
        return;
    }
    if (!row->finalizing_ms)
        row->finalizing_ms = now_ms;
    if (!batch->behind && !row->completed_ms && !row->failed_ms && !row->expired_ms && !row->cancelled_ms)
        *end = now_ms;
}

bool books_flush(struct books *books, int64_t now_wall_ms)
{
    struct queue_book *queue, *next_queue;
    struct batch *batch, *next;
    bool behind = false;

    HASH_ITER(by_id, books->by_id, batch, next)
    {
        if (batch->behind) {
            batch->row.first_unfinished = books->store->first_unfinished(
                books->store, batch->row.id, batch->row.first_unfinished, POSITIONS_ADVANCED, &batch->behind);
            batch->changed = true;
            behind |= batch->behind;
        }
        if (batch->changed) {
            note_times(batch, now_wall_ms);
            books->store->batch_put(books->store, &batch->row);
        }
        batch->changed = batch->grown = false;
        if (!batch->behind && batch->used + 1000 < books->turn &&
            HASH_CNT(by_id, books->by_id) > BATCHES_KEPT)
            forget(books, batch);
    }
    HASH_ITER(hh, books->queues, queue, next_queue)
    {
        if (queue->changed)
            books->store->queue_put(books->store, &queue->row);
        queue->changed = false;
    }
    books->turn++;
    return behind;
}

struct counts books_counts(const struct books *books)
{
    struct counts sum = { 0 };
    struct queue_book *queue, *next;

    HASH_ITER(hh, books->queues, queue, next)
    for (int s = 0; s < JOB_STATES; s++)
        sum.in[s] += queue->row.counts.in[s];
    return sum;
}
