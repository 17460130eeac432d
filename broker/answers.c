#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core_state.h"
#include "proto/link.h"

enum {
    ITEMS_MAX = 256,
    WAIT_MAX_MS = 60000,
    BYTES_DEFAULT = 4 * 1024 * 1024,
    ENVELOPE_ROOM =
        LINK_ENVELOPE_MAX - 2048, /* what the lists of one answer may take; the rest waits for the next */
    QUEUES_SHOWN = 64,
    BATCHES_SHOWN = 64,
    CONSUMERS_SHOWN = 64,
    STATUS_GONE = 410,
};

static void unknown_batch(const struct event *event, const char *queue, const char *batch,
                          struct effects *effects)
{
    if (!*queue)
        effects_refuse(effects, event->session, event->envelope->correlation,
                       MOOTHALL__REFUSAL_CODE__UNKNOWN_BATCH, 0, "no queue has a batch `%s`", batch);
    else if (*batch)
        effects_refuse(effects, event->session, event->envelope->correlation,
                       MOOTHALL__REFUSAL_CODE__UNKNOWN_BATCH, 0, "queue `%s` has no batch `%s`", queue,
                       batch);
    else
        effects_refuse(effects, event->session, event->envelope->correlation,
                       MOOTHALL__REFUSAL_CODE__UNKNOWN_BATCH, 0, "there is no queue `%s`", queue);
}

bool answers_find(struct core *core, const struct event *event, const char *queue_name,
                  const char *batch_name, struct queue_book **queue, struct batch **batch,
                  struct effects *effects)
{
    *queue = books_queue(&core->books, queue_name);
    *batch = *queue && *batch_name ? books_batch(&core->books, *queue, batch_name) : NULL;
    if (*queue && (*batch || !*batch_name))
        return true;
    unknown_batch(event, queue_name, *queue ? batch_name : "", effects);
    return false;
}

int64_t *answers_named(struct core *core, const struct event *event, const struct batch *batch, char **names,
                       size_t count, struct effects *effects)
{
    int64_t *seqs = malloc((count + 1) * sizeof *seqs);
    struct job job;

    if (!seqs) {
        effects_refuse(effects, event->session, event->envelope->correlation, MOOTHALL__REFUSAL_CODE__NO_ROOM,
                       1000, "no memory for %zu names", count);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (!core->store->job_named(core->store, batch->row.id, names[i], &job)) {
            effects_refuse(effects, event->session, event->envelope->correlation,
                           MOOTHALL__REFUSAL_CODE__UNKNOWN_JOB, 0, "batch `%s` has no job `%s`",
                           batch->row.name, names[i]);
            free(seqs);
            return NULL;
        }
        seqs[i] = job.seq;
    }
    return seqs;
}

/* ---- fetch ---------------------------------------------------------------------------------------- */

void answers_fetch(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__Fetch *m = event->envelope->fetch;
    uint32_t wait_ms = m->wait_ms < WAIT_MAX_MS ? m->wait_ms : WAIT_MAX_MS;
    struct queue_book *queue;
    struct batch *batch;
    int64_t *named = NULL;

    if (!answers_find(core, event, m->queue, m->batch, &queue, &batch, effects))
        return;
    if (core->waiter_count == WAITERS_MAX) {
        effects_refuse(effects, event->session, event->envelope->correlation, MOOTHALL__REFUSAL_CODE__NO_ROOM,
                       1000, "%d fetches wait already", WAITERS_MAX);
        return;
    }
    if (m->order == MOOTHALL__ORDER__NAMED &&
        !(named = answers_named(core, event, batch, m->job, m->n_job, effects)))
        return;
    core->waiter[core->waiter_count++] = (struct waiter){
        .session = event->session,
        .correlation = event->envelope->correlation,
        .queue = queue,
        .batch = batch ? batch->row.id : 0,
        .by_position = m->order == MOOTHALL__ORDER__POSITION,
        .named = named,
        .named_count = (int)m->n_job,
        .from = m->order == MOOTHALL__ORDER__COMPLETION && m->from == 0 ? 1 : (int64_t)m->from,
        .items_max = m->items_max ? (int)m->items_max : ITEMS_MAX,
        .bytes_max = m->bytes_max == 0                         ? BYTES_DEFAULT
                     : m->bytes_max < core->config.payload_max ? m->bytes_max
                                                               : core->config.payload_max,
        .until_ms = core->now.mono_ms + wait_ms,
        .fresh = true,
    };
}

static Moothall__Entry *entry_message(struct core *core, const struct entry *entry, struct effects *effects)
{
    Moothall__Entry *m = effects_new(effects, &moothall__entry__descriptor);

    if (!entry->intact)
        jobs_damaged_entry(core, entry);
    m->number = (uint64_t)entry->number;
    m->job = effects_text(effects, entry->id);
    m->custom_id = effects_text(effects, entry->custom_id);
    m->batch = effects_text(effects, entry->batch_name);
    m->position = entry->position >= 0 ? (uint32_t)entry->position : UINT32_MAX;
    m->generation = entry->generation;
    m->state = (Moothall__State)(entry->intact ? entry->state : JOB_DEAD); /* the same numbers */
    m->status_code = entry->purged_ms ? STATUS_GONE : entry->intact ? entry->status_code : 0;
    m->size = entry->size;
    m->reason =
        effects_text(effects, entry->purged_ms ? "purged: its request and its result were erased"
                              : entry->intact  ? entry->reason
                                               : "the stored result is damaged: its checksum is wrong");
    m->purged_ms = entry->purged_ms;
    m->prompt_tokens = entry->prompt_tokens;
    m->generated_tokens = entry->generated_tokens;
    m->cached_tokens = entry->cached_tokens;
    m->attempt = entry->attempt;
    m->infra = entry->infra;
    m->seed = entry->seed;
    m->worker = effects_text(effects, entry->worker);
    m->numerics = effects_text(effects, entry->numerics);
    m->created_ms = entry->created_ms;
    m->leased_ms = entry->leased_ms;
    m->finished_ms = entry->finished_ms;
    m->endpoint = effects_text(effects, entry->endpoint);
    return m;
}

static uint64_t waiting_behind(const struct batch *batch)
{
    int64_t behind = batch->row.placed_ended - batch->row.first_unfinished;

    return behind > 0 ? (uint64_t)behind : 0;
}

/* The end of the batch's positions; of one that grows: of those it has. */
static int64_t positions_end(const struct batch *batch)
{
    return batch->row.total ? batch->row.total : batch->row.positions_end;
}

/* The entries of the jobs that were asked for by name, up to the first that has not ended. */
static int find_named(struct core *core, const struct waiter *waiter, struct entry *rows, struct buf *bodies)
{
    struct entry_query query = { .queue = waiter->queue->row.id, .items_max = 1, .bytes_max = SIZE_MAX };
    int found = 0;
    struct job job;

    for (int64_t i = waiter->from; i < waiter->named_count && found < waiter->items_max; i++) {
        size_t before = bodies->size;

        if (!core->store->job_get(core->store, waiter->named[i], &job) || job.entry == 0)
            break;
        query.from = job.entry;
        if (core->store->entries(core->store, &query, &rows[found], bodies) != 1)
            break;
        if (found > 0 && bodies->size > waiter->bytes_max) {
            bodies->size = before;
            break;
        }
        found++;
    }
    return found;
}

/* Answers when there is something, or when the wait is over.  False: it waits on. */
static bool try_fetch(struct core *core, const struct waiter *waiter, struct effects *effects)
{
    struct entry_query query = { .queue = waiter->queue->row.id,
                                 .batch = waiter->batch,
                                 .by_position = waiter->by_position,
                                 .from = waiter->from,
                                 .items_max = waiter->items_max,
                                 .bytes_max = waiter->bytes_max };
    struct batch *batch = waiter->batch ? books_batch_id(&core->books, waiter->batch) : NULL;
    struct buf bodies = { .max = (size_t)LINK_PAYLOAD_MAX };
    struct entry *rows = calloc((size_t)waiter->items_max, sizeof *rows);
    Moothall__Entries *m;
    size_t envelope = 0, payload = 0;
    int found, sent = 0;
    int64_t next = waiter->from;
    uint8_t *data;
    bool past;

    query.over_gaps = batch && waiter->by_position && batch->row.cancelling_ms && batch_over(batch);
    found = !rows           ? 0
            : waiter->named ? find_named(core, waiter, rows, &bodies)
                            : core->store->entries(core->store, &query, rows, &bodies);
    if (waiter->named)
        past = waiter->from >= waiter->named_count;
    else
        past = batch && batch_over(batch) &&
               (waiter->by_position && !query.over_gaps ? waiter->from >= positions_end(batch) : found == 0);
    if (found == 0 && !past && core->now.mono_ms < waiter->until_ms) {
        buf_fini(&bodies);
        free(rows);
        return false;
    }
    m = effects_new(effects, &moothall__entries__descriptor);
    m->entry = effects_take(effects, (size_t)(found + 1) * sizeof *m->entry);
    for (; sent < found; sent++) {
        Moothall__Entry *entry = entry_message(core, &rows[sent], effects);

        envelope += moothall__entry__get_packed_size(entry) + 8;
        if (envelope > ENVELOPE_ROOM)
            break;
        payload += entry->size;
        m->entry[m->n_entry++] = entry;
        next = (waiter->named         ? waiter->from + sent
                : waiter->by_position ? rows[sent].position
                                      : rows[sent].number) +
               1;
    }
    data = effects_take(effects, payload);
    if (payload)
        memcpy(data, bodies.data, payload);
    m->next = (uint64_t)next;
    if (batch) {
        m->waiting = waiter->by_position ? waiting_behind(batch) : 0;
        /* By position and by name the last page itself can say it; by completion the next, empty one does. */
        m->end = past || (waiter->by_position && batch_over(batch) && next >= positions_end(batch)) ||
                 (waiter->named && next >= waiter->named_count);
    }
    effects_send(effects, waiter->session, waiter->correlation, MOOTHALL__ENVELOPE__BODY_ENTRIES, m,
                 span_of(data, payload));
    buf_fini(&bodies);
    free(rows);
    return true;
}

static void waiter_remove(struct core *core, int i)
{
    free(core->waiter[i].named);
    core->waiter[i] = core->waiter[--core->waiter_count];
}

void answers_waiters(struct core *core, struct effects *effects)
{
    struct queue_book *queue, *next;

    for (int i = 0; i < core->waiter_count;) {
        struct waiter *waiter = &core->waiter[i];

        if (!waiter->fresh && core->now.mono_ms < waiter->until_ms &&
            !(waiter->batch ? books_grown(&core->books, waiter->batch) : waiter->queue->grown)) {
            i++;
            continue;
        }
        if (effects->arena.used > TURN_BYTES_MAX) {
            waiter->fresh = true; /* it must not miss what came now */
            core->again = true;
            i++;
            continue;
        }
        waiter->fresh = false;
        if (try_fetch(core, waiter, effects))
            waiter_remove(core, i);
        else
            i++;
    }
    HASH_ITER(hh, core->books.queues, queue, next)
    queue->grown = false;
}

void answers_session_ended(struct core *core, uint64_t session)
{
    for (int i = 0; i < core->waiter_count;)
        if (core->waiter[i].session == session)
            waiter_remove(core, i);
        else
            i++;
}

/* ---- cursors ----------------------------------------------------------------------------------------- */

void answers_cursor(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__Envelope *e = event->envelope;
    Moothall__Cursor *m = effects_new(effects, &moothall__cursor__descriptor);
    struct cursor_row row = { 0 };

    if (e->body_case == MOOTHALL__ENVELOPE__BODY_CURSOR_SET) {
        const Moothall__CursorSet *set = e->cursor_set;

        text_copy(row.queue, sizeof row.queue, set->queue);
        text_copy(row.batch, sizeof row.batch, set->batch);
        text_copy(row.consumer, sizeof row.consumer, set->consumer);
        row.position = set->position;
        row.moved_ms = core->now.wall_ms;
        row.note_size = set->note.len;
        if (row.note_size)
            memcpy(row.note, set->note.data, row.note_size);
        if (!core->store->cursor_put(core->store, &row)) {
            effects_refuse(effects, event->session, e->correlation, MOOTHALL__REFUSAL_CODE__NO_ROOM, 0,
                           "there are %d cursors already, as many as a broker keeps", CURSORS_MAX);
            return;
        }
        m->known = true;
    } else {
        text_copy(row.queue, sizeof row.queue, e->cursor_ask->queue);
        text_copy(row.batch, sizeof row.batch, e->cursor_ask->batch);
        text_copy(row.consumer, sizeof row.consumer, e->cursor_ask->consumer);
        m->known = core->store->cursor_get(core->store, &row);
    }
    if (m->known) {
        m->position = row.position;
        m->note.len = row.note_size;
        m->note.data = effects_take(effects, row.note_size);
        memcpy(m->note.data, row.note, row.note_size);
    }
    effects_send(effects, event->session, e->correlation, MOOTHALL__ENVELOPE__BODY_CURSOR, m,
                 (struct span){ 0 });
}

/* ---- status ---------------------------------------------------------------------------------------------
 */

static Moothall__Counts *counts_message(struct effects *effects, const struct counts *counts)
{
    Moothall__Counts *m = effects_new(effects, &moothall__counts__descriptor);

    m->ready = (uint64_t)counts->in[JOB_READY];
    m->leased = (uint64_t)counts->in[JOB_LEASED];
    m->delayed = (uint64_t)counts->in[JOB_DELAYED];
    m->done = (uint64_t)counts->in[JOB_DONE];
    m->failed = (uint64_t)counts->in[JOB_FAILED];
    m->dead = (uint64_t)counts->in[JOB_DEAD];
    m->cancelled = (uint64_t)counts->in[JOB_CANCELLED];
    m->expired = (uint64_t)counts->in[JOB_EXPIRED];
    return m;
}

/* True when the part still fits into the answer. */
static bool fits(size_t *used, size_t size)
{
    if (*used + size + 8 > ENVELOPE_ROOM)
        return false;
    *used += size + 8;
    return true;
}

static Moothall__QueueStatus *queue_message(struct core *core, const struct queue_book *queue,
                                            struct effects *effects)
{
    Moothall__QueueStatus *q = effects_new(effects, &moothall__queue_status__descriptor);
    struct consumer_row *rows = effects_take(effects, CONSUMERS_SHOWN * sizeof *rows);
    int n = core->store->consumers(core->store, queue->row.name, rows, CONSUMERS_SHOWN);

    q->name = effects_text(effects, queue->row.name);
    q->counts = counts_message(effects, &queue->row.counts);
    q->entries = (uint64_t)queue->row.entries;
    q->paused = queue->row.paused;
    q->retention_ms = (uint64_t)purge_retention_ms(core, queue);
    q->purged = (uint64_t)queue->row.purged;
    q->consumer = effects_take(effects, CONSUMERS_SHOWN * sizeof *q->consumer);
    for (int i = 0; i < n; i++) {
        Moothall__ConsumerStatus *c = effects_new(effects, &moothall__consumer_status__descriptor);

        c->name = effects_text(effects, rows[i].consumer);
        c->batch = effects_text(effects, rows[i].batch);
        c->position = rows[i].position;
        c->moved_ms = rows[i].moved_ms;
        q->consumer[q->n_consumer++] = c;
    }
    return q;
}

static void status_queues(struct core *core, const char *only, Moothall__Status *m, size_t *used,
                          struct effects *effects)
{
    struct queue_book *queue, *next;

    m->queue = effects_take(effects, QUEUES_SHOWN * sizeof *m->queue);
    HASH_ITER(hh, core->books.queues, queue, next)
    {
        Moothall__QueueStatus *q;

        if (m->n_queue == QUEUES_SHOWN || (*only && strcmp(only, queue->row.name) != 0))
            continue;
        q = queue_message(core, queue, effects);
        if (!fits(used, moothall__queue_status__get_packed_size(q))) {
            q->n_consumer = 0; /* who reads it can be asked of the queue alone */
            if (!fits(used, moothall__queue_status__get_packed_size(q)))
                continue;
        }
        m->queue[m->n_queue++] = q;
    }
}

static Moothall__BatchState batch_state(const struct batch *batch)
{
    const struct batch_row *row = &batch->row;

    if (row->cancelled_ms)
        return MOOTHALL__BATCH_STATE__BATCH_CANCELLED;
    if (row->completed_ms) /* it was over when it was cancelled: that only closed it */
        return MOOTHALL__BATCH_STATE__COMPLETED;
    if (row->failed_ms)
        return MOOTHALL__BATCH_STATE__BATCH_FAILED;
    if (row->expired_ms)
        return MOOTHALL__BATCH_STATE__BATCH_EXPIRED;
    if (row->cancelling_ms)
        return MOOTHALL__BATCH_STATE__CANCELLING;
    if (row->finalizing_ms)
        return MOOTHALL__BATCH_STATE__FINALIZING;
    return row->in_progress_ms ? MOOTHALL__BATCH_STATE__IN_PROGRESS : MOOTHALL__BATCH_STATE__VALIDATING;
}

static void add_batch(const struct batch *batch, Moothall__Status *m, size_t *used, struct effects *effects)
{
    Moothall__BatchStatus *b = effects_new(effects, &moothall__batch_status__descriptor);

    b->name = effects_text(effects, batch->row.name);
    b->queue = effects_text(effects, batch->queue->row.name);
    b->counts = counts_message(effects, &batch->row.counts);
    b->total = (uint64_t)batch_total(batch);
    b->created_ms = batch->row.created_ms;
    b->state = batch_state(batch);
    b->in_progress_ms = batch->row.in_progress_ms;
    b->finalizing_ms = batch->row.finalizing_ms;
    b->completed_ms = batch->row.completed_ms;
    b->failed_ms = batch->row.failed_ms;
    b->expired_ms = batch->row.expired_ms;
    b->cancelling_ms = batch->row.cancelling_ms;
    b->cancelled_ms = batch->row.cancelled_ms;
    b->expires_ms = batch->row.expires_ms;
    b->prompt_tokens = (uint64_t)batch->row.prompt_tokens;
    b->generated_tokens = (uint64_t)batch->row.generated_tokens;
    b->cached_tokens = (uint64_t)batch->row.cached_tokens;
    b->endpoint = effects_text(effects, batch->row.endpoint);
    if (fits(used, moothall__batch_status__get_packed_size(b)))
        m->batch[m->n_batch++] = b;
}

/* The batch of that name; without a queue all that have it, each in its own. */
static int batches_named(struct core *core, const struct queue_book *only, const char *name,
                         struct batch *found[BATCHES_SHOWN])
{
    struct queue_book *queue, *next;
    struct batch *batch;
    int n = 0;

    HASH_ITER(hh, core->books.queues, queue, next)
    if (n < BATCHES_SHOWN && (!only || queue == only) && (batch = books_batch(&core->books, queue, name)))
        found[n++] = batch;
    return n;
}

static void status_batches(struct core *core, const struct queue_book *queue, struct batch *const *named,
                           int count, Moothall__Status *m, size_t *used, struct effects *effects)
{
    struct batch_row *rows;
    int n;

    m->batch = effects_take(effects, BATCHES_SHOWN * sizeof *m->batch);
    for (int i = 0; i < count; i++)
        add_batch(named[i], m, used, effects);
    if (count)
        return;
    rows = effects_take(effects, BATCHES_SHOWN * sizeof *rows);
    n = core->store->batches(core->store, queue ? queue->row.id : 0, rows, BATCHES_SHOWN);
    for (int i = 0; i < n; i++) {
        const struct batch *batch =
            books_batch_id(&core->books, rows[i].id); /* memory is newer than the store */

        if (batch)
            add_batch(batch, m, used, effects);
    }
}

static void add_worker(struct core *core, const struct worker *worker, const char *name, int holder,
                       Moothall__Status *m, size_t *used, struct effects *effects)
{
    const struct placement *p = &core->placement;
    Moothall__WorkerStatus *w = effects_new(effects, &moothall__worker_status__descriptor);

    w->name = effects_text(effects, name);
    w->waiting_shard = -1;
    w->shard = effects_take(effects, SHARDS_MAX * sizeof *w->shard);
    for (int s = 0; holder >= 0 && s < p->shard_count; s++)
        if (p->seat[s] == holder)
            w->shard[w->n_shard++] = (uint32_t)s;
    if (worker) {
        w->pid = worker->pid;
        w->endpoint = effects_text(effects, worker->offer.endpoint);
        w->connected = worker->session != 0;
        w->seated = worker->session && p->epoch && worker->seated_epoch == p->epoch;
        w->leases = worker->held;
        w->sequences = worker->sequences;
        w->waiting_shard = worker->session ? worker->waiting_shard : -1;
        w->prompt_tokens = worker->prompt_tokens;
        w->generated_tokens = worker->generated_tokens;
        w->silent_ms = core->now.mono_ms - worker->heard_ms;
        if (worker->offer.family_count)
            w->family = effects_text(effects, worker->offer.family[worker->offer.family_count - 1]);
        w->exchange = effects_new(effects, &moothall__exchange_counts__descriptor);
        if (worker->exchange.base.descriptor)
            *w->exchange = worker->exchange;
    }
    if (fits(used, moothall__worker_status__get_packed_size(w)))
        m->worker[m->n_worker++] = w;
}

static void status_workers(struct core *core, Moothall__Status *m, size_t *used, struct effects *effects)
{
    const struct placement *p = &core->placement;

    m->worker = effects_take(effects, 2 * WORKERS_MAX * sizeof *m->worker);
    for (int i = 0; i < core->worker_end; i++)
        if (core->worker[i].here)
            add_worker(core, &core->worker[i], core->worker[i].offer.name,
                       placement_holder(p, core->worker[i].offer.name), m, used, effects);
    m->unseated = effects_take(effects, SHARDS_MAX * sizeof *m->unseated);
    for (int h = 0; h < p->holder_count; h++) {
        bool known = false, seated = false;

        for (int i = 0; i < core->worker_end; i++) {
            const struct worker *w = &core->worker[i];

            if (!w->here || strcmp(w->offer.name, p->holder[h].name) != 0)
                continue;
            known = true;
            seated =
                w->session && w->offer.incarnation == p->holder[h].incarnation && w->seated_epoch == p->epoch;
        }
        if (!known)
            add_worker(core, NULL, p->holder[h].name, h, m, used, effects);
        for (int s = 0; s < p->shard_count && !seated; s++)
            if (p->seat[s] == h)
                m->unseated[m->n_unseated++] = (uint32_t)s;
    }
}

void answers_status(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__StatusAsk *ask = event->envelope->status_ask;
    struct queue_book *queue = *ask->queue ? books_queue(&core->books, ask->queue) : NULL;
    struct batch *named[BATCHES_SHOWN];
    Moothall__Status *m = effects_new(effects, &moothall__status__descriptor);
    int count = 0;
    struct counts all, sum = { 0 };
    char text[256];
    size_t used = 1024;

    if (*ask->queue && !queue) {
        unknown_batch(event, ask->queue, "", effects);
        return;
    }
    if (*ask->batch) {
        count = batches_named(core, queue, ask->batch, named);
        if (!count) {
            unknown_batch(event, ask->queue, ask->batch, effects);
            return;
        }
    }
    all = books_counts(&core->books);
    for (int i = 0; i < count; i++) {
        const struct batch_row *row = &named[i]->row;

        for (int s = 0; s < JOB_STATES; s++)
            sum.in[s] += row->counts.in[s];
        m->batch_total += (uint64_t)batch_total(named[i]);
        m->prompt_tokens += (uint64_t)row->prompt_tokens;
        m->generated_tokens += (uint64_t)row->generated_tokens;
    }
    m->counts = counts_message(effects, count ? &sum : queue ? &queue->row.counts : &all);
    if (count == 1) {
        m->first_unfinished = (uint64_t)named[0]->row.first_unfinished;
        m->waiting = waiting_behind(named[0]);
    }
    m->epoch = core->placement.epoch;
    workers_waiting_for(core, text, sizeof text);
    m->waiting_for = effects_text(effects, text);
    m->family = effects_text(effects, core->hall.family);
    m->numerics = effects_text(effects, core->numerics);
    m->started_ms = core->started.wall_ms;
    if (core->hall.has_model) {
        m->fingerprint.len = FINGERPRINT_SIZE;
        m->fingerprint.data =
            memcpy(effects_take(effects, FINGERPRINT_SIZE), core->hall.fingerprint, FINGERPRINT_SIZE);
    }
    status_workers(core, m, &used, effects);
    used += 4 * m->n_unseated;
    status_batches(core, queue, named, count, m, &used, effects);
    status_queues(core, queue ? queue->row.name : "", m, &used, effects);
    effects_send(effects, event->session, event->envelope->correlation, MOOTHALL__ENVELOPE__BODY_STATUS, m,
                 (struct span){ 0 });
}

/* ---- settings of a queue
 * ------------------------------------------------------------------------------------------------- */

void answers_queue_set(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__QueueSet *m = event->envelope->queue_set;
    Moothall__QueueIs *answer = effects_new(effects, &moothall__queue_is__descriptor);
    struct queue_book *queue;
    struct batch *none;

    if (!answers_find(core, event, m->queue, "", &queue, &none, effects))
        return;
    if (m->pause != MOOTHALL__QUEUE_SET__PAUSE__LEAVE) {
        bool paused = m->pause == MOOTHALL__QUEUE_SET__PAUSE__PAUSE;

        /* The windows hold what may be leased of all queues: they are read anew. */
        for (int band = 0; band < JOB_BANDS && paused != queue->row.paused; band++)
            window_init(&core->window[band]);
        queue->row.paused = paused;
    }
    if (m->set_retention) {
        queue->row.retention_ms = (int64_t)m->retention_ms;
        queue->retain_at_ms = 0;
    }
    queue->changed = true;
    answer->queue = queue_message(core, queue, effects);
    effects_send(effects, event->session, event->envelope->correlation, MOOTHALL__ENVELOPE__BODY_QUEUE_IS,
                 answer, (struct span){ 0 });
}

/* ---- audit
 * ------------------------------------------------------------------------------------------------- */

void answers_audit(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__AuditAsk *ask = event->envelope->audit_ask;
    Moothall__Audit *m = effects_new(effects, &moothall__audit__descriptor);
    struct audit_slice slice;

    /* The store compares queues with their counts, so those have to be there first. */
    books_flush(&core->books, core->now.wall_ms);
    core->store->audit(core->store, ask->batch, (int64_t)ask->after, &slice);
    m->jobs = (uint64_t)slice.jobs;
    m->generations = (uint64_t)slice.generations;
    m->entries = (uint64_t)slice.entries;
    m->unfinished = (uint64_t)slice.unfinished;
    m->missing = (uint64_t)slice.missing;
    m->doubled = (uint64_t)slice.doubled;
    m->corrupt = (uint64_t)slice.corrupt;
    m->holes = (uint64_t)slice.holes;
    m->first_fault = effects_text(effects, slice.first_fault);
    m->next = (uint64_t)slice.next;
    effects_send(effects, event->session, event->envelope->correlation, MOOTHALL__ENVELOPE__BODY_AUDIT, m,
                 (struct span){ 0 });
}
