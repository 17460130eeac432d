#include "broker/store_sqlite_inside.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"

/* ---- writes: bound from data, so that they can be done again ---------------------------------- */

static void write_hall(struct sqlite_store *self, const struct hall_row *hall)
{
    sqlite3_stmt *s = use(self, HALL_PUT);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, (int64_t)hall->hall);
    sqlite3_bind_int64(s, 2, hall->broker_epoch);
    sqlite3_bind_int(s, 3, hall->has_model);
    bind_span(s, 4, span_of(hall->fingerprint, FINGERPRINT_SIZE));
    bind_text(s, 5, hall->family);
    bind_span(s, 6, span_of(hall->map, hall->map_size));
    run(self, s);
}

static void write_queue(struct sqlite_store *self, const struct queue_row *row)
{
    sqlite3_stmt *s = use(self, QUEUE_PUT);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, row->id);
    bind_text(s, 2, row->name);
    sqlite3_bind_int64(s, 3, row->entries);
    bind_counts(s, 4, &row->counts);
    sqlite3_bind_int(s, 12, row->paused);
    sqlite3_bind_int64(s, 13, row->retention_ms);
    sqlite3_bind_int64(s, 14, row->purged);
    sqlite3_bind_int64(s, 15, row->retained_to);
    run(self, s);
}

static void write_batch(struct sqlite_store *self, const struct batch_row *row)
{
    sqlite3_stmt *s = use(self, BATCH_PUT);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, row->id);
    sqlite3_bind_int64(s, 2, row->queue);
    bind_text(s, 3, row->name);
    sqlite3_bind_int64(s, 4, row->total);
    sqlite3_bind_int64(s, 5, row->first_unfinished);
    sqlite3_bind_int64(s, 6, row->placed_ended);
    sqlite3_bind_int64(s, 7, row->positions_end);
    sqlite3_bind_int64(s, 8, row->prompt_tokens);
    sqlite3_bind_int64(s, 9, row->generated_tokens);
    sqlite3_bind_int64(s, 10, row->created_ms);
    bind_counts(s, 11, &row->counts);
    sqlite3_bind_int64(s, 19, row->cached_tokens);
    sqlite3_bind_int64(s, 20, row->in_progress_ms);
    sqlite3_bind_int64(s, 21, row->finalizing_ms);
    sqlite3_bind_int64(s, 22, row->completed_ms);
    sqlite3_bind_int64(s, 23, row->failed_ms);
    sqlite3_bind_int64(s, 24, row->expired_ms);
    sqlite3_bind_int64(s, 25, row->cancelled_ms);
    sqlite3_bind_int64(s, 26, row->cancelling_ms);
    sqlite3_bind_int(s, 27, row->cancel_pending);
    bind_text(s, 28, row->cancel_reason);
    sqlite3_bind_int64(s, 29, row->expires_ms);
    bind_text(s, 30, row->endpoint);
    sqlite3_bind_int(s, 31, row->endpoints_differ);
    sqlite3_bind_int64(s, 32, row->seq_first);
    sqlite3_bind_int64(s, 33, row->seq_last);
    run(self, s);
}

static void write_job(struct sqlite_store *self, enum statement which, const struct job *job, int64_t blob)
{
    sqlite3_stmt *s = use(self, which);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, job->seq);
    if (which != JOB_MOVE) { /* the others name parameters that JOB_MOVE does not have */
        sqlite3_bind_int64(s, 2, job->batch);
        bind_text(s, 3, job->id);
        bind_text(s, 4, job->custom_id);
        bind_text(s, 5, job->endpoint);
        sqlite3_bind_int64(s, 6, (int64_t)job->seed);
        sqlite3_bind_int64(s, 7, job->generation);
        sqlite3_bind_int(s, 9, job->band);
        if (job->position >= 0)
            sqlite3_bind_int64(s, 10, job->position);
        else
            sqlite3_bind_null(s, 10);
        sqlite3_bind_int64(s, 17, job->created_ms);
        sqlite3_bind_int64(s, 20, job->size);
        bind_span(s, 21, span_of(job->digest, JOB_DIGEST_SIZE));
        sqlite3_bind_int64(s, 23, job->queue);
        sqlite3_bind_int64(s, 24, job->deadline_ms);
        sqlite3_bind_int64(s, 25, job->ready_ttl_ms);
        sqlite3_bind_int64(s, 27, job->purged_ms);
        sqlite3_bind_int64(s, 28, blob);
    }
    sqlite3_bind_int(s, 8, job->state);
    sqlite3_bind_int64(s, 11, job->attempt);
    sqlite3_bind_int64(s, 12, job->infra);
    sqlite3_bind_int64(s, 13, job->leases);
    bind_text(s, 14, job->worker);
    sqlite3_bind_int64(s, 15, (int64_t)job->incarnation);
    sqlite3_bind_int64(s, 16, job->run_at_ms);
    sqlite3_bind_int64(s, 18, job->leased_ms);
    sqlite3_bind_int64(s, 19, job->entry);
    bind_text(s, 22, job->reason);
    sqlite3_bind_int64(s, 26, job->wake_ms);
    run(self, s);
}

static void erase(struct sqlite_store *self, enum statement which, int64_t of)
{
    sqlite3_stmt *s = use(self, which);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, of);
    run(self, s);
}

static void write_body(struct sqlite_store *self, int64_t id, struct span body)
{
    sqlite3_stmt *s = use(self, BLOB_ADD);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, id);
    sqlite3_bind_int64(s, 2, span_crc32c(0, body));
    bind_span(s, 3, body);
    run(self, s);
}

static void write_place(struct sqlite_store *self, int64_t seq, int64_t position)
{
    sqlite3_stmt *s = use(self, JOB_PLACE);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, seq);
    if (position >= 0)
        sqlite3_bind_int64(s, 2, position);
    else
        sqlite3_bind_null(s, 2);
    run(self, s);
}

static void write_entry(struct sqlite_store *self, const struct entry *entry, int64_t blob)
{
    sqlite3_stmt *s = use(self, ENTRY_ADD);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, entry_key(entry->queue, entry->number));
    sqlite3_bind_int64(s, 2, entry->job);
    sqlite3_bind_int64(s, 3, entry->batch);
    sqlite3_bind_int64(s, 4, entry->generation);
    sqlite3_bind_int(s, 5, entry->state);
    sqlite3_bind_int64(s, 6, entry->status_code);
    sqlite3_bind_int64(s, 7, entry->attempt);
    sqlite3_bind_int64(s, 8, entry->infra);
    sqlite3_bind_int64(s, 9, (int64_t)entry->seed);
    sqlite3_bind_int64(s, 10, entry->created_ms);
    sqlite3_bind_int64(s, 11, entry->leased_ms);
    sqlite3_bind_int64(s, 12, entry->finished_ms);
    sqlite3_bind_int64(s, 13, entry->prompt_tokens);
    sqlite3_bind_int64(s, 14, entry->generated_tokens);
    bind_text(s, 15, entry->endpoint);
    bind_text(s, 16, entry->worker);
    bind_text(s, 17, entry->numerics);
    bind_text(s, 18, entry->reason);
    sqlite3_bind_int64(s, 19, blob);
    sqlite3_bind_int64(s, 20, entry->cached_tokens);
    run(self, s);
}

static void write_purge(struct sqlite_store *self, int64_t key, int64_t job, int64_t now_ms)
{
    sqlite3_stmt *s;

    erase(self, BLOB_ERASE_ENTRYS, key);
    s = use(self, ENTRY_PURGE);
    if (!s)
        return;
    sqlite3_bind_int64(s, 1, key);
    sqlite3_bind_int64(s, 2, now_ms);
    run(self, s);
    if (!job)
        return;
    erase(self, BLOB_ERASE_JOBS, job);
    s = use(self, JOB_PURGE);
    if (!s)
        return;
    sqlite3_bind_int64(s, 1, job);
    sqlite3_bind_int64(s, 2, now_ms);
    run(self, s);
}

static void write_flag(struct sqlite_store *self, int64_t key, enum job_state state, const char *reason)
{
    sqlite3_stmt *s = use(self, ENTRY_FLAG);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, key);
    sqlite3_bind_int(s, 2, state);
    bind_text(s, 3, reason);
    run(self, s);
}

static void write_cursor(struct sqlite_store *self, const struct cursor_row *cursor)
{
    sqlite3_stmt *s = use(self, CURSOR_PUT);

    if (!s)
        return;
    bind_text(s, 1, cursor->queue);
    bind_text(s, 2, cursor->batch);
    bind_text(s, 3, cursor->consumer);
    sqlite3_bind_int64(s, 4, (int64_t)cursor->position);
    bind_span(s, 5, span_of(cursor->note, cursor->note_size));
    sqlite3_bind_int64(s, 6, cursor->moved_ms);
    run(self, s);
}

static void write_once(struct sqlite_store *self, const struct redo *w)
{
    switch (w->what) {
    case HALL_PUT:
        write_hall(self, w->row);
        break;
    case QUEUE_PUT:
        write_queue(self, w->row);
        break;
    case BATCH_PUT:
        write_batch(self, w->row);
        break;
    case JOB_ADD:
    case JOB_RENEW:
        if (w->a && w->what == JOB_RENEW)
            erase(self, BLOB_ERASE_JOBS, ((const struct job *)w->row)->seq);
        if (w->a)
            write_body(self, w->a, w->body);
        write_job(self, w->what, w->row, w->a);
        break;
    case JOB_MOVE:
        write_job(self, w->what, w->row, 0);
        break;
    case JOB_PLACE:
        write_place(self, w->a, w->b);
        break;
    case ENTRY_ADD:
        if (w->a)
            write_body(self, w->a, w->body);
        write_entry(self, w->row, w->a);
        break;
    case ENTRY_FLAG:
        write_flag(self, w->a, w->state, w->row);
        break;
    case ENTRY_PURGE:
        write_purge(self, w->a, w->b, w->c);
        break;
    case CURSOR_PUT:
        write_cursor(self, w->row);
        break;
    default:
        assert(!"not a write");
    }
}

/* Does a write and remembers it until the commit. */
static void write_kept(struct sqlite_store *self, struct redo w, size_t row_size)
{
    void *copy;

    if (self->failed)
        return;
    if (self->redo_count == self->redo_max) {
        size_t more = self->redo_max ? self->redo_max * 2 : 1024;
        struct redo *grown = realloc(self->redo, more * sizeof *grown);

        if (!grown) {
            self->failed = true;
            err_set(&self->failure, ERR_IO, "store %s: no memory for a transaction of %zu writes", self->path,
                    more);
            return;
        }
        self->redo = grown;
        self->redo_max = more;
    }
    if (row_size) {
        copy = arena_take(&self->rows, row_size);
        if (!copy) {
            self->failed = true;
            err_set(&self->failure, ERR_IO, "store %s: no memory for a transaction", self->path);
            return;
        }
        memcpy(copy, w.row, row_size);
        w.row = copy;
    }
    self->bytes_pending += w.body.size;
    self->redo[self->redo_count++] = w;
    write_once(self, &w);
}

static void hall_put(struct store *store, const struct hall_row *hall)
{
    write_kept(self_of(store), (struct redo){ .what = HALL_PUT, .row = hall }, sizeof *hall);
}

static void queue_put(struct store *store, const struct queue_row *row)
{
    write_kept(self_of(store), (struct redo){ .what = QUEUE_PUT, .row = row }, sizeof *row);
}

static void batch_put(struct store *store, const struct batch_row *row)
{
    write_kept(self_of(store), (struct redo){ .what = BATCH_PUT, .row = row }, sizeof *row);
}

static void job_add(struct store *store, const struct job *job, struct span body)
{
    write_kept(self_of(store),
               (struct redo){ .what = JOB_ADD, .row = job, .body = body, .a = ++self_of(store)->blob_last },
               sizeof *job);
}

static void job_move(struct store *store, const struct job *job)
{
    write_kept(self_of(store), (struct redo){ .what = JOB_MOVE, .row = job }, sizeof *job);
}

static void job_renew(struct store *store, const struct job *job, const struct span *body)
{
    struct redo w = { .what = JOB_RENEW, .row = job };

    if (body) {
        w.body = *body;
        w.a = ++self_of(store)->blob_last;
        self_of(store)->reclaiming = true; /* the one before is erased */
    }
    write_kept(self_of(store), w, sizeof *job);
}

static void job_place(struct store *store, int64_t seq, int64_t position)
{
    write_kept(self_of(store), (struct redo){ .what = JOB_PLACE, .a = seq, .b = position }, 0);
}

static void entry_add(struct store *store, const struct entry *entry, struct span body)
{
    struct redo w = { .what = ENTRY_ADD, .row = entry, .body = body };

    if (body.size) /* an end without a body needs no row for it */
        w.a = ++self_of(store)->blob_last;
    write_kept(self_of(store), w, sizeof *entry);
}

static void entry_flag(struct store *store, int64_t queue, int64_t number, enum job_state state,
                       const char *reason)
{
    write_kept(
        self_of(store),
        (struct redo){ .what = ENTRY_FLAG, .row = reason, .a = entry_key(queue, number), .state = state },
        strlen(reason) + 1);
}

static void entry_purge(struct store *store, int64_t queue, int64_t number, int64_t job, int64_t now_ms)
{
    struct sqlite_store *self = self_of(store);

    if (self->traces == 0)
        self->traces = SCRUB_LOOKS;
    self->reclaiming = true;
    write_kept(self_of(store),
               (struct redo){ .what = ENTRY_PURGE, .a = entry_key(queue, number), .b = job, .c = now_ms }, 0);
}

static void purge_now(struct store *store)
{
    self_of(store)->purge_now = true;
}

static bool cursor_get(struct store *store, struct cursor_row *cursor)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, CURSOR_GET);
    struct span note;

    if (!s)
        return false;
    bind_text(s, 1, cursor->queue);
    bind_text(s, 2, cursor->batch);
    bind_text(s, 3, cursor->consumer);
    if (!next_row(self, s))
        return false;
    cursor->position = (uint64_t)sqlite3_column_int64(s, 0);
    note = column_span(s, 1);
    cursor->note_size = note.size < CURSOR_NOTE_MAX ? note.size : CURSOR_NOTE_MAX;
    if (cursor->note_size)
        memcpy(cursor->note, note.data, cursor->note_size);
    sqlite3_reset(s);
    return true;
}

static bool cursor_put(struct store *store, const struct cursor_row *cursor)
{
    struct sqlite_store *self = self_of(store);
    struct cursor_row known = *cursor;

    if (!cursor_get(store, &known)) {
        sqlite3_stmt *s = use(self, CURSOR_COUNT);
        int64_t count = 0;

        if (!s)
            return false;
        sqlite3_bind_int(s, 1, CURSORS_MAX);
        if (next_row(self, s))
            count = sqlite3_column_int64(s, 0);
        sqlite3_reset(s);
        if (count >= CURSORS_MAX)
            return false;
    }
    write_kept(self, (struct redo){ .what = CURSOR_PUT, .row = cursor }, sizeof *cursor);
    return true;
}

/* ---- reads ----------------------------------------------------------------------------------- */

static void hall_get(struct store *store, struct hall_row *hall)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, HALL_GET);
    struct span bytes;

    memset(hall, 0, sizeof *hall);
    if (!s || !next_row(self, s))
        return;
    hall->hall = (uint64_t)sqlite3_column_int64(s, 0);
    hall->broker_epoch = (uint32_t)sqlite3_column_int64(s, 1);
    hall->has_model = sqlite3_column_int(s, 2);
    bytes = column_span(s, 3);
    if (bytes.size == FINGERPRINT_SIZE)
        memcpy(hall->fingerprint, bytes.data, FINGERPRINT_SIZE);
    column_text(s, 4, hall->family, sizeof hall->family);
    bytes = column_span(s, 5);
    if (bytes.size && bytes.size <= MAP_BYTES_MAX) {
        memcpy(hall->map, bytes.data, bytes.size);
        hall->map_size = bytes.size;
    }
    sqlite3_reset(s);
}

static int queues(struct store *store, struct queue_row *rows, int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, QUEUES);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int(s, 1, rows_max);
    while (next_row(self, s)) {
        rows[n].id = sqlite3_column_int64(s, 0);
        column_text(s, 1, rows[n].name, sizeof rows[n].name);
        rows[n].entries = sqlite3_column_int64(s, 2);
        column_counts(s, 3, &rows[n].counts);
        rows[n].paused = sqlite3_column_int(s, 11);
        rows[n].retention_ms = sqlite3_column_int64(s, 12);
        rows[n].purged = sqlite3_column_int64(s, 13);
        rows[n].retained_to = sqlite3_column_int64(s, 14);
        n++;
    }
    return n;
}

static void column_batch(sqlite3_stmt *s, struct batch_row *row)
{
    row->id = sqlite3_column_int64(s, 0);
    row->queue = sqlite3_column_int64(s, 1);
    column_text(s, 2, row->name, sizeof row->name);
    row->total = sqlite3_column_int64(s, 3);
    row->first_unfinished = sqlite3_column_int64(s, 4);
    row->placed_ended = sqlite3_column_int64(s, 5);
    row->positions_end = sqlite3_column_int64(s, 6);
    row->prompt_tokens = sqlite3_column_int64(s, 7);
    row->generated_tokens = sqlite3_column_int64(s, 8);
    row->created_ms = sqlite3_column_int64(s, 9);
    column_counts(s, 10, &row->counts);
    row->cached_tokens = sqlite3_column_int64(s, 18);
    row->in_progress_ms = sqlite3_column_int64(s, 19);
    row->finalizing_ms = sqlite3_column_int64(s, 20);
    row->completed_ms = sqlite3_column_int64(s, 21);
    row->failed_ms = sqlite3_column_int64(s, 22);
    row->expired_ms = sqlite3_column_int64(s, 23);
    row->cancelled_ms = sqlite3_column_int64(s, 24);
    row->cancelling_ms = sqlite3_column_int64(s, 25);
    row->cancel_pending = sqlite3_column_int(s, 26);
    column_text(s, 27, row->cancel_reason, sizeof row->cancel_reason);
    row->expires_ms = sqlite3_column_int64(s, 28);
    column_text(s, 29, row->endpoint, sizeof row->endpoint);
    row->endpoints_differ = sqlite3_column_int(s, 30);
    row->seq_first = sqlite3_column_int64(s, 31);
    row->seq_last = sqlite3_column_int64(s, 32);
}

static bool one_batch(struct sqlite_store *self, sqlite3_stmt *s, struct batch_row *row)
{
    if (!next_row(self, s))
        return false;
    column_batch(s, row);
    sqlite3_reset(s);
    return true;
}

static bool batch_named(struct store *store, int64_t queue, const char *name, struct batch_row *row)
{
    sqlite3_stmt *s = use(self_of(store), BATCH_NAMED);

    if (!s)
        return false;
    sqlite3_bind_int64(s, 1, queue);
    bind_text(s, 2, name);
    return one_batch(self_of(store), s, row);
}

static bool batch_get(struct store *store, int64_t id, struct batch_row *row)
{
    sqlite3_stmt *s = use(self_of(store), BATCH_GET);

    if (!s)
        return false;
    sqlite3_bind_int64(s, 1, id);
    return one_batch(self_of(store), s, row);
}

static int batches(struct store *store, int64_t queue, struct batch_row *rows, int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, queue ? BATCHES_OF : BATCHES);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int(s, 1, rows_max);
    if (queue)
        sqlite3_bind_int64(s, 2, queue);
    while (next_row(self, s))
        column_batch(s, &rows[n++]);
    return n;
}

static int64_t batch_last(struct store *store)
{
    return one_number(self_of(store), use(self_of(store), BATCH_LAST), 0);
}

static int64_t batch_pending(struct store *store, int64_t after)
{
    sqlite3_stmt *s = use(self_of(store), BATCH_PENDING);

    if (s)
        sqlite3_bind_int64(s, 1, after);
    return one_number(self_of(store), s, 0);
}

static int64_t job_last(struct store *store)
{
    return one_number(self_of(store), use(self_of(store), JOB_LAST), 0);
}

static int64_t next_due(struct store *store)
{
    return one_number(self_of(store), use(self_of(store), NEXT_DUE), INT64_MAX);
}

static void column_job(sqlite3_stmt *s, struct job *job)
{
    struct span digest;

    job->seq = sqlite3_column_int64(s, 0);
    job->batch = sqlite3_column_int64(s, 1);
    column_text(s, 2, job->id, sizeof job->id);
    column_text(s, 3, job->custom_id, sizeof job->custom_id);
    column_text(s, 4, job->endpoint, sizeof job->endpoint);
    job->seed = (uint64_t)sqlite3_column_int64(s, 5);
    job->generation = (uint32_t)sqlite3_column_int64(s, 6);
    job->state = (enum job_state)sqlite3_column_int(s, 7);
    job->band = sqlite3_column_int(s, 8);
    job->position = sqlite3_column_type(s, 9) == SQLITE_NULL ? JOB_NO_POSITION : sqlite3_column_int64(s, 9);
    job->attempt = (uint32_t)sqlite3_column_int64(s, 10);
    job->infra = (uint32_t)sqlite3_column_int64(s, 11);
    job->leases = (uint32_t)sqlite3_column_int64(s, 12);
    column_text(s, 13, job->worker, sizeof job->worker);
    job->incarnation = (uint64_t)sqlite3_column_int64(s, 14);
    job->run_at_ms = sqlite3_column_int64(s, 15);
    job->created_ms = sqlite3_column_int64(s, 16);
    job->leased_ms = sqlite3_column_int64(s, 17);
    job->entry = sqlite3_column_int64(s, 18);
    job->size = (uint32_t)sqlite3_column_int64(s, 19);
    digest = column_span(s, 20);
    memset(job->digest, 0, JOB_DIGEST_SIZE);
    if (digest.size == JOB_DIGEST_SIZE)
        memcpy(job->digest, digest.data, JOB_DIGEST_SIZE);
    column_text(s, 21, job->reason, sizeof job->reason);
    job->queue = sqlite3_column_int64(s, 22);
    job->deadline_ms = sqlite3_column_int64(s, 23);
    job->ready_ttl_ms = sqlite3_column_int64(s, 24);
    job->wake_ms = sqlite3_column_int64(s, 25);
    job->purged_ms = sqlite3_column_int64(s, 26);
}

static bool one_job(struct sqlite_store *self, sqlite3_stmt *s, struct job *job)
{
    if (!next_row(self, s))
        return false;
    column_job(s, job);
    sqlite3_reset(s);
    return true;
}

static bool job_named(struct store *store, int64_t batch, const char *id, struct job *job)
{
    sqlite3_stmt *s = use(self_of(store), JOB_NAMED);

    if (!s)
        return false;
    bind_text(s, 1, id);
    sqlite3_bind_int64(s, 2, batch);
    return one_job(self_of(store), s, job);
}

static bool job_get(struct store *store, int64_t seq, struct job *job)
{
    sqlite3_stmt *s = use(self_of(store), JOB_GET);

    if (!s)
        return false;
    sqlite3_bind_int64(s, 1, seq);
    return one_job(self_of(store), s, job);
}

static int64_t job_at(struct store *store, int64_t batch, int64_t position)
{
    sqlite3_stmt *s = use(self_of(store), JOB_AT);

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, batch);
    sqlite3_bind_int64(s, 2, position);
    return one_number(self_of(store), s, 0);
}

static bool body(struct store *store, int64_t seq, struct arena *arena, struct span *out)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, BODY_GET);
    bool intact = false;
    struct span data;
    char *copy;

    *out = (struct span){ 0 };
    if (!s)
        return false;
    sqlite3_bind_int64(s, 1, seq);
    if (!next_row(self, s))
        return false;
    data = column_span(s, 1);
    if (span_crc32c(0, data) == (uint32_t)sqlite3_column_int64(s, 0)) {
        copy = arena_copy(arena, data.data, data.size);
        intact = copy != NULL;
        if (!copy)
            fail(self, "no memory for a body");
        *out = span_of(copy, data.size);
    }
    sqlite3_reset(s);
    return intact;
}

static int ready(struct store *store, int64_t queue, int band, int64_t after, struct waiting *rows,
                 int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, READY);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, queue);
    sqlite3_bind_int(s, 2, band);
    sqlite3_bind_int64(s, 3, after);
    sqlite3_bind_int(s, 4, rows_max);
    while (next_row(self, s))
        rows[n++] = (struct waiting){ .seq = sqlite3_column_int64(s, 0),
                                      .batch = sqlite3_column_int64(s, 3),
                                      .size = (uint32_t)sqlite3_column_int64(s, 1),
                                      .alone = sqlite3_column_int64(s, 2) >= 3 };
    return n;
}

static int leased(struct store *store, const struct job *after, struct job *rows, int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, LEASED);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, after ? after->queue : 0);
    sqlite3_bind_int(s, 2, after ? after->band : 0);
    sqlite3_bind_int64(s, 3, after ? after->seq : 0);
    sqlite3_bind_int(s, 4, rows_max);
    while (next_row(self, s))
        column_job(s, &rows[n++]);
    return n;
}

static int live(struct store *store, const struct batch_row *batch, struct live_at *at, int most,
                int64_t *seqs, int seqs_max, bool *over)
{
    static const enum job_state states[] = { JOB_LEASED, JOB_READY, JOB_DELAYED };
    enum { STAGES = 3 * JOB_BANDS };
    struct sqlite_store *self = self_of(store);
    int n = 0;

    while (at->stage < STAGES && most > 0 && n < seqs_max) {
        sqlite3_stmt *s = use(self, LIVE);
        int asked = most, rows = 0;

        if (!s)
            break;
        if (at->seq < batch->seq_first - 1)
            at->seq = batch->seq_first - 1;
        sqlite3_bind_int(s, 1, states[at->stage / JOB_BANDS]);
        sqlite3_bind_int64(s, 2, batch->queue);
        sqlite3_bind_int(s, 3, at->stage % JOB_BANDS);
        sqlite3_bind_int64(s, 4, at->seq);
        sqlite3_bind_int(s, 5, asked);
        while (n < seqs_max && next_row(self, s)) {
            at->seq = sqlite3_column_int64(s, 0);
            if (sqlite3_column_int64(s, 1) == batch->id)
                seqs[n++] = at->seq;
            rows++;
        }
        sqlite3_reset(s);
        most -= rows;
        if (rows < asked && n < seqs_max) {
            at->stage++;
            at->seq = 0;
        }
    }
    *over = at->stage == STAGES;
    return n;
}

static int jobs(struct store *store, int64_t batch, int64_t *at, int most, struct job *rows, int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, JOBS);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, *at);
    sqlite3_bind_int64(s, 2, *at + most);
    sqlite3_bind_int64(s, 3, batch);
    sqlite3_bind_int(s, 4, rows_max);
    while (next_row(self, s))
        column_job(s, &rows[n++]);
    *at = n == rows_max ? rows[n - 1].seq : *at + most;
    return n;
}

static int due(struct store *store, int64_t wall_ms, int64_t delay_max_ms, int64_t *seqs, int seqs_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, DUE);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, wall_ms);
    sqlite3_bind_int64(s, 2, wall_ms + delay_max_ms);
    sqlite3_bind_int(s, 3, seqs_max);
    while (next_row(self, s))
        seqs[n++] = sqlite3_column_int64(s, 0);
    return n;
}

static int64_t first_unfinished(struct store *store, int64_t batch, int64_t from, int most, bool *more)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, POSITIONS);
    int64_t position = from;

    *more = false;
    if (!s)
        return from;
    sqlite3_bind_int64(s, 1, batch);
    sqlite3_bind_int64(s, 2, from);
    sqlite3_bind_int(s, 3, most);
    while (next_row(self, s)) {
        if (sqlite3_column_int64(s, 0) != position || sqlite3_column_int64(s, 1) == 0) {
            sqlite3_reset(s);
            return position;
        }
        position++;
    }
    *more = position - from == most;
    return position;
}

static void column_entry(sqlite3_stmt *s, struct entry *entry)
{
    int64_t key = sqlite3_column_int64(s, 0);

    entry->queue = key >> ENTRY_BITS;
    entry->number = entry_number(key);
    entry->job = sqlite3_column_int64(s, 1);
    entry->batch = sqlite3_column_int64(s, 2);
    entry->generation = (uint32_t)sqlite3_column_int64(s, 3);
    entry->state = (enum job_state)sqlite3_column_int(s, 4);
    entry->status_code = (uint32_t)sqlite3_column_int64(s, 5);
    entry->attempt = (uint32_t)sqlite3_column_int64(s, 6);
    entry->infra = (uint32_t)sqlite3_column_int64(s, 7);
    entry->seed = (uint64_t)sqlite3_column_int64(s, 8);
    entry->created_ms = sqlite3_column_int64(s, 9);
    entry->leased_ms = sqlite3_column_int64(s, 10);
    entry->finished_ms = sqlite3_column_int64(s, 11);
    entry->prompt_tokens = (uint32_t)sqlite3_column_int64(s, 12);
    entry->generated_tokens = (uint32_t)sqlite3_column_int64(s, 13);
    column_text(s, 14, entry->endpoint, sizeof entry->endpoint);
    column_text(s, 15, entry->worker, sizeof entry->worker);
    column_text(s, 16, entry->numerics, sizeof entry->numerics);
    column_text(s, 17, entry->reason, sizeof entry->reason);
    column_text(s, 20, entry->id, sizeof entry->id);
    column_text(s, 21, entry->custom_id, sizeof entry->custom_id);
    entry->position =
        sqlite3_column_type(s, 22) == SQLITE_NULL ? JOB_NO_POSITION : sqlite3_column_int64(s, 22);
    column_text(s, 23, entry->batch_name, sizeof entry->batch_name);
    entry->cached_tokens = (uint32_t)sqlite3_column_int64(s, 24);
    entry->purged_ms = sqlite3_column_int64(s, 25);
}

static int entries(struct store *store, const struct entry_query *query, struct entry *rows,
                   struct buf *bodies)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s;
    size_t start = bodies->size;
    int n = 0;

    s = use(self, query->by_position ? ENTRIES_BY_POSITION
                  : query->batch     ? ENTRIES_OF_BATCH
                                     : ENTRIES_OF_QUEUE);
    if (!s)
        return 0;
    if (query->by_position) {
        sqlite3_bind_int64(s, 1, query->from);
        sqlite3_bind_int64(s, 2, entry_key(query->queue, 0));
        sqlite3_bind_int64(s, 5, query->over_gaps ? BATCH_POSITIONS_MAX : query->from + query->items_max);
    } else {
        sqlite3_bind_int64(s, 1, entry_key(query->queue, query->from));
        sqlite3_bind_int64(s, 2, entry_key(query->queue + 1, 0));
    }
    sqlite3_bind_int(s, 3, query->items_max);
    if (query->batch)
        sqlite3_bind_int64(s, 4, query->batch);
    while (n < query->items_max && next_row(self, s)) {
        struct entry *entry = &rows[n];
        struct span data = column_span(s, 19);

        column_entry(s, entry);
        if (query->by_position && !query->over_gaps && entry->position != query->from + n)
            break; /* one in between has not ended */
        if (n > 0 && bodies->size - start + data.size > query->bytes_max)
            break;
        entry->intact = body_is_intact(s, 18, 19, 26);
        entry->size = entry->intact ? (uint32_t)data.size : 0;
        if (!buf_add(bodies, data.data, entry->size)) {
            if (n == 0)
                fail(self, "no memory for an entry");
            break;
        }
        n++;
    }
    sqlite3_reset(s);
    return n;
}

static int remains(struct store *store, int64_t queue, int64_t batch, int64_t after, struct remains *rows,
                   int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, batch ? REMAINS_OF_BATCH : REMAINS_OF_QUEUE);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, entry_key(queue, after));
    sqlite3_bind_int64(s, 2, entry_key(queue + 1, 0));
    sqlite3_bind_int(s, 3, rows_max);
    if (batch)
        sqlite3_bind_int64(s, 4, batch);
    while (next_row(self, s))
        rows[n++] = (struct remains){ .number = entry_number(sqlite3_column_int64(s, 0)),
                                      .job = sqlite3_column_int64(s, 1),
                                      .finished_ms = sqlite3_column_int64(s, 2),
                                      .purged_ms = sqlite3_column_int64(s, 3),
                                      .size = (uint32_t)sqlite3_column_int64(s, 4),
                                      .request_size = (uint32_t)sqlite3_column_int64(s, 5),
                                      .newest = sqlite3_column_int(s, 6) };
    return n;
}

static int consumers(struct store *store, const char *queue, struct consumer_row *rows, int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, CONSUMERS);
    int n = 0;

    if (!s)
        return 0;
    bind_text(s, 1, queue);
    sqlite3_bind_int(s, 2, rows_max);
    while (next_row(self, s)) {
        column_text(s, 0, rows[n].batch, sizeof rows[n].batch);
        column_text(s, 1, rows[n].consumer, sizeof rows[n].consumer);
        rows[n].position = (uint64_t)sqlite3_column_int64(s, 2);
        rows[n].moved_ms = sqlite3_column_int64(s, 3);
        n++;
    }
    return n;
}

/* ---- room ------------------------------------------------------------------------------------ */

static int64_t bytes_free(const struct sqlite_store *self)
{
    struct statvfs fs;

    if (!self->ballast_path || statvfs(self->path, &fs) != 0)
        return INT64_MAX;
    return (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
}

/* An eighth of what is free, at most what was asked for. */
bool inside_ballast_make(struct sqlite_store *self)
{
    int64_t part = bytes_free(self) / 8;
    int fd, rc;

    if (self->ballast_there)
        return true;
    if (part < BALLAST_LEAST)
        return false;
    self->ballast_bytes = part < self->ballast_max ? part : self->ballast_max;
    fd = open(self->ballast_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    rc = posix_fallocate(fd, 0, (off_t)self->ballast_bytes);
    if (rc != 0 && ftruncate(fd, 0) != 0)
        log_warn("store.ballast", "path=%s reason=\"%s\"", self->ballast_path, strerror(errno));
    close(fd);
    self->ballast_there = rc == 0;
    return rc == 0;
}

static void ballast_drop(struct sqlite_store *self)
{
    if (!self->ballast_path || !self->ballast_there)
        return;
    if (truncate(self->ballast_path, 0) != 0)
        log_warn("store.ballast", "path=%s reason=\"%s\"", self->ballast_path, strerror(errno));
    self->ballast_there = false;
    log_warn("store.full", "path=%s freed=%" PRId64, self->path, self->ballast_bytes);
}

static bool has_room(struct store *store, size_t bytes)
{
    struct sqlite_store *self = self_of(store);
    int64_t need;

    if (self->tight)
        return false;
    /* Once in the WAL, once more when it is copied into the file, where the WAL's own pages have to go too.
     */
    need = 2 * (int64_t)(self->bytes_pending + bytes) + (int64_t)self->wal_pages * PAGE_BYTES + SLACK_BYTES;
    return bytes_free(self) >= need;
}

bool inside_checkpoint(struct sqlite_store *self, int how)
{
    int rc, pages = 0, done = 0;

    if (!self->ballast_path)
        return true;
    rc = sqlite3_wal_checkpoint_v2(self->db, NULL, how, &pages, &done);
    if (rc == SQLITE_OK) {
        self->wal_pages = pages - done;
        return true;
    }
    if (rc != SQLITE_FULL && rc != SQLITE_BUSY &&
        !(rc == SQLITE_IOERR && sqlite3_system_errno(self->db) == ENOSPC))
        return fail(self, "checkpoint");
    return false;
}

/* Gives back the space of the oldest bodies when all up to some way behind them are erased.  True when some
 * was. */
static bool reclaim(struct sqlite_store *self)
{
    sqlite3_stmt *s = use(self, BLOBS);
    bool dropped;

    if (!s)
        return false;
    sqlite3_bind_int64(s, 1, self->blob_gone);
    sqlite3_bind_int(s, 2, BLOB_LOOKED);
    while (next_row(self, s)) {
        if (!sqlite3_column_int(s, 1)) {
            sqlite3_reset(s);
            break;
        }
        self->blob_gone = sqlite3_column_int64(s, 0);
    }
    if (self->failed || self->blob_gone - BLOB_MARGIN <= self->blob_dropped || !(s = use(self, BLOB_DROP)))
        return false;
    sqlite3_bind_int64(s, 1, self->blob_gone - BLOB_MARGIN);
    sqlite3_bind_int(s, 2, BLOB_DROPPED);
    dropped =
        sqlite3_step(s) == SQLITE_DONE && sqlite3_changes(self->db) > 0; /* on a full disk: another time */
    if (!dropped)
        self->blob_dropped = self->blob_gone - BLOB_MARGIN;
    sqlite3_reset(s);
    return dropped;
}

static void tend(struct store *store, bool idle)
{
    struct sqlite_store *self = self_of(store);
    int64_t room;

    if (!self->ballast_path || self->failed)
        return;
    room = bytes_free(self);
    self->reclaiming = self->reclaiming && (!idle || reclaim(self));
    if (self->traces > 0 && (self->traces -= idle ? SCRUB_IDLE : 1) <= 0)
        self->traces = inside_checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE) ? 0 : SCRUB_LOOKS;
    if (self->wal_pages >= (room < TIGHT_BYTES ? WAL_PAGES_TIGHT : idle ? WAL_PAGES_IDLE : WAL_PAGES_MAX))
        inside_checkpoint(self, SQLITE_CHECKPOINT_PASSIVE);
    if ((self->tight || !self->ballast_there) && idle && inside_ballast_make(self)) {
        if (self->tight)
            log_info("store.room", "path=%s ballast=%" PRId64, self->path, self->ballast_bytes);
        self->tight = false;
    }
}

/* ---- transactions ------------------------------------------------------------------------------ */

static void begin(struct store *store)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, BEGIN);

    self->redo_count = 0;
    self->bytes_pending = 0;
    self->purge_now = false;
    arena_reset(&self->rows);
    if (s)
        run(self, s);
}

static bool is_full(struct sqlite_store *self, int rc)
{
    return rc == SQLITE_FULL || (rc == SQLITE_IOERR && (sqlite3_system_errno(self->db) == ENOSPC ||
                                                        sqlite3_system_errno(self->db) == EDQUOT));
}

/* COMMIT.  True when it is on disk; else *full tells whether room would have helped. */
static bool try_commit(struct sqlite_store *self, bool *full)
{
    sqlite3_stmt *s = use(self, COMMIT);
    int rc;

    *full = false;
    if (!s)
        return false;
    rc = sqlite3_step(s);
    *full = rc != SQLITE_DONE && is_full(self, rc);
    if (rc != SQLITE_DONE && !*full)
        fail(self, "commit");
    sqlite3_reset(s);
    return rc == SQLITE_DONE;
}

static void write_again(struct sqlite_store *self)
{
    sqlite3_stmt *s = use(self, BEGIN);

    if (s)
        run(self, s);
    for (size_t i = 0; i < self->redo_count; i++)
        write_once(self, &self->redo[i]);
}

/* Old pages that the WAL still holds, and those of the file that it has not replaced yet, hold what was
 * erased. */
static bool scrub(struct sqlite_store *self)
{
    if (!inside_checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE) && !self->failed) {
        ballast_drop(self);
        self->tight = true;
        if (!inside_checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE))
            fail(self, "erase what was purged");
    }
    return !self->failed;
}

static enum store_outcome commit(struct store *store, struct err *err)
{
    struct sqlite_store *self = self_of(store);
    bool full;

    /* Full: first what a checkpoint gives back, then the ballast.  The writes are data; they are simply done
     * again. */
    for (int try = 0;; try++) {
        if (try_commit(self, &full)) {
            if (!self->purge_now || scrub(self))
                return STORE_KEPT;
            break;
        }
        if (!full)
            break;
        self->tight = true;
        if (!sqlite3_get_autocommit(self->db)) {
            sqlite3_stmt *s = use(self, ROLLBACK);

            if (s)
                run(self, s);
        }
        if (try == 2) {
            self->failed = true;
            err_set(&self->failure, ERR_IO,
                    "store %s: the disk is full, and the ballast of %" PRId64 " bytes is used up", self->path,
                    self->ballast_bytes);
            break;
        }
        if (try == 0)
            inside_checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE);
        else
            ballast_drop(self);
        write_again(self);
    }
    if (err)
        *err = self->failure;
    return STORE_BROKEN;
}

void inside_fill(struct store *store)
{
    *store = (struct store){
        .begin = begin,
        .commit = commit,
        .has_room = has_room,
        .tend = tend,
        .hall_get = hall_get,
        .hall_put = hall_put,
        .queues = queues,
        .queue_put = queue_put,
        .batch_named = batch_named,
        .batch_get = batch_get,
        .batches = batches,
        .batch_last = batch_last,
        .batch_pending = batch_pending,
        .batch_put = batch_put,
        .job_last = job_last,
        .job_named = job_named,
        .job_get = job_get,
        .job_at = job_at,
        .job_add = job_add,
        .job_move = job_move,
        .job_renew = job_renew,
        .job_place = job_place,
        .body = body,
        .ready = ready,
        .leased = leased,
        .live = live,
        .jobs = jobs,
        .due = due,
        .next_due = next_due,
        .first_unfinished = first_unfinished,
        .entry_add = entry_add,
        .entry_flag = entry_flag,
        .entry_purge = entry_purge,
        .purge_now = purge_now,
        .remains = remains,
        .consumers = consumers,
        .entries = entries,
        .cursor_get = cursor_get,
        .cursor_put = cursor_put,
    };
}
