#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "broker/core_state.h"

enum {
    LOOKED_AT = 64, /* jobs of a band's window that are looked at for one that can be leased */
    DUE_ROUNDS = 4, /* of LOOKED_AT jobs in one turn */
    REFILLS = 4,    /* of a band in one turn: past jobs that may not be leased */
    GATHERED_EACH_MAX = WINDOW_MAX / 2,
};

/* ---- moving a job -------------------------------------------------------------------------------- */

void jobs_to_window(struct core *core, const struct job *job, const struct batch *batch)
{
    if (batch->row.cancel_pending || batch->queue->row.paused)
        return;
    window_offer(&core->window[job->band], (struct waiting){ .seq = job->seq,
                                                             .batch = job->batch,
                                                             .size = job->size,
                                                             .alone = job->infra >= ALONE_FROM });
}

void jobs_change(struct core *core, struct job *job, struct batch *batch, enum job_cause cause)
{
    enum job_state to = job_next(job->state, cause);

    assert(to != JOB_NONE);
    batch_count(batch, job->state, to);
    job->state = to;
    job->wake_ms = job_wake(job, core->now.wall_ms);
    if (job->wake_ms && job->wake_ms < core->next_due_ms)
        core->next_due_ms = job->wake_ms;
}

void jobs_end(struct core *core, struct job *job, struct batch *batch, const struct ending *how)
{
    struct entry entry = {
        .queue = batch->row.queue,
        .number = ++batch->queue->row.entries,
        .job = job->seq,
        .batch = job->batch,
        .generation = job->generation,
        .status_code = how->status_code,
        .attempt = job->attempt,
        .infra = job->infra,
        .seed = job->seed,
        .created_ms = job->created_ms,
        .leased_ms = job->leased_ms,
        .finished_ms = core->now.wall_ms,
        .prompt_tokens = how->prompt_tokens,
        .generated_tokens = how->generated_tokens,
        .cached_tokens = how->cached_tokens,
    };

    jobs_change(core, job, batch, how->cause);
    entry.state = job->state;
    text_copy(entry.endpoint, sizeof entry.endpoint, job->endpoint);
    text_copy(entry.worker, sizeof entry.worker, how->worker ? how->worker : job->worker);
    text_copy(entry.numerics, sizeof entry.numerics, how->numerics ? how->numerics : "");
    text_copy(entry.reason, sizeof entry.reason, how->reason ? how->reason : "");
    core->store->entry_add(core->store, &entry, how->body);
    job->entry = entry.number;
    batch->queue->changed = batch->queue->grown = batch->grown = true;
    batch->row.prompt_tokens += how->prompt_tokens;
    batch->row.generated_tokens += how->generated_tokens;
    batch->row.cached_tokens += how->cached_tokens;
    batch_ended(batch, job->position);
}

void jobs_leave_holder(struct core *core, struct lease lease, bool tell, struct effects *effects)
{
    struct worker *worker = &core->worker[lease.worker];

    assert(worker->here && worker->held > 0);
    worker->held--;
    worker->held_bytes -= lease.size;
    if (worker->held == 0)
        worker->alone = false;
    if (tell && worker->session)
        effects_drop(effects, worker->session, lease.fence);
    if (!worker->session && worker->held == 0)
        worker->here = false;
}

void jobs_withdraw(struct core *core, const struct job *job, struct effects *effects)
{
    struct lease lease;

    if (job->state == JOB_READY)
        window_remove(&core->window[job->band], job->seq);
    if (job->state == JOB_LEASED && lease_find_job(core->leases, job->seq, &lease)) {
        lease_remove(core->leases, lease.fence);
        jobs_leave_holder(core, lease, true, effects);
    }
}

/* The job of a lease that was just taken from the table. */
static bool leased_job(struct core *core, uint64_t fence, struct job *job, struct batch **batch)
{
    if (!core->store->job_get(core->store, fence_seq(fence), job) || job->state != JOB_LEASED)
        return false; /* only a store that has failed loses a job */
    *batch = books_batch_id(&core->books, job->batch);
    return *batch != NULL;
}

void jobs_lose(struct core *core, struct lease lease, const char *reason, struct effects *effects)
{
    struct job job;
    struct batch *batch;
    char text[JOB_REASON_MAX + 1 + REASON_SLACK];

    jobs_leave_holder(core, lease, true, effects);
    if (!leased_job(core, lease.fence, &job, &batch))
        return;
    job.infra++;
    text_copy(job.reason, sizeof job.reason, reason);
    if (job.infra >= core->config.infra_max) {
        snprintf(text, sizeof text, "%" PRIu32 " workers were lost while they held it; the last: %s",
                 job.infra, job.reason);
        jobs_end(core, &job, batch, &(struct ending){ .cause = CAUSE_SPENT, .reason = text });
    } else {
        jobs_change(core, &job, batch, CAUSE_LOST);
        jobs_to_window(core, &job, batch);
    }
    core->store->job_move(core->store, &job);
    log_info("job.lost", "job=%s infra=%" PRIu32 " state=%s reason=\"%s\"", job.id, job.infra,
             job_state_name(job.state), reason);
}

void jobs_give_back(struct core *core, struct lease lease, struct effects *effects)
{
    struct job job;
    struct batch *batch;

    jobs_leave_holder(core, lease, true, effects);
    if (!leased_job(core, lease.fence, &job, &batch))
        return;
    jobs_change(core, &job, batch, CAUSE_RELEASED);
    jobs_to_window(core, &job, batch);
    core->store->job_move(core->store, &job);
}

void jobs_forsake(struct core *core, struct job *job)
{
    struct batch *batch = books_batch_id(&core->books, job->batch);

    if (!batch)
        return;
    job->infra++;
    jobs_change(core, job, batch, CAUSE_LOST);
    core->store->job_move(core->store, job);
    jobs_to_window(core, job, batch);
}

void jobs_release(struct core *core, struct worker *worker, const Moothall__Release *release,
                  struct effects *effects)
{
    struct lease lease;

    for (size_t i = 0; i < release->n_fence; i++)
        if (lease_find(core->leases, release->fence[i], &lease) &&
            lease.worker == worker_number(core, worker)) {
            lease_remove(core->leases, lease.fence);
            jobs_give_back(core, lease, effects);
        }
}

void jobs_expire(struct core *core, struct effects *effects)
{
    struct lease lease;
    char reason[REASON_SLACK];

    while (lease_expire(core->leases, core->now.mono_ms, &lease)) {
        const struct worker *worker = &core->worker[lease.worker];

        snprintf(reason, sizeof reason, "worker %s did not renew its lease for %" PRId64 " ms",
                 worker->offer.name, core->config.lease_ms);
        jobs_lose(core, lease, reason, effects);
    }
}

/* Its deadline, or the time that it may wait for a worker, is over. */
static void expire(struct core *core, struct job *job, struct batch *batch, struct effects *effects)
{
    char reason[REASON_SLACK];

    if (job->deadline_ms && job->deadline_ms <= core->now.wall_ms)
        snprintf(reason, sizeof reason, "its deadline passed while it was %s", job_state_name(job->state));
    else
        snprintf(reason, sizeof reason, "no worker took it up within %" PRId64 " ms (ready_ttl_ms)",
                 job->ready_ttl_ms);
    jobs_withdraw(core, job, effects);
    jobs_end(core, job, batch, &(struct ending){ .cause = CAUSE_EXPIRED, .reason = reason });
    core->store->job_move(core->store, job);
}

static void become_due(struct core *core, struct job *job, struct batch *batch, struct effects *effects)
{
    if (batch->row.cancel_pending) { /* the walk over its jobs was slower */
        cancel_job(core, job, batch, batch->row.cancel_reason, effects);
        return;
    }
    if (job->state != JOB_DELAYED || (job->deadline_ms && job->deadline_ms <= core->now.wall_ms)) {
        expire(core, job, batch, effects);
        return;
    }
    jobs_change(core, job, batch, CAUSE_DUE);
    core->store->job_move(core->store, job);
    jobs_to_window(core, job, batch);
}

void jobs_due(struct core *core, struct effects *effects)
{
    int64_t seq[LOOKED_AT];
    int n = LOOKED_AT;

    core->due_left = false;
    if (core->next_due_ms == INT64_MAX)
        return;
    if (core->now.wall_ms < core->next_due_ms &&
        core->next_due_ms <= core->now.wall_ms + core->config.backoff_max_ms)
        return;
    for (int round = 0; round < DUE_ROUNDS && n == LOOKED_AT; round++) {
        n = core->store->due(core->store, core->now.wall_ms, core->config.backoff_max_ms, seq, LOOKED_AT);
        for (int i = 0; i < n; i++) {
            struct batch *batch;
            struct job job;

            if (!core->store->job_get(core->store, seq[i], &job) ||
                !(batch = books_batch_id(&core->books, job.batch)))
                return;
            become_due(core, &job, batch, effects);
        }
    }
    core->due_left = n == LOOKED_AT;
    core->next_due_ms = core->store->next_due(core->store);
}

/* ---- submit ------------------------------------------------------------------------------------------ */

struct submission {
    const Moothall__Submit *m;
    struct batch *batch; /* NULL until something of it has to be stored */
    bool room;
    bool closed;  /* the batch is cancelled */
    int64_t live; /* jobs that have not ended */
    char reason[JOB_REASON_MAX + 1];
};

static void first_reason(struct submission *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void first_reason(struct submission *s, const char *format, ...)
{
    va_list args;

    if (*s->reason)
        return;
    va_start(args, format);
    vsnprintf(s->reason, sizeof s->reason, format, args);
    va_end(args);
}

/* Room for one job more?  A named bound is the reason where there is none. */
static bool admit(struct core *core, struct submission *s)
{
    if (s->closed) {
        first_reason(s, "the batch is cancelled (%s); a retry of it opens it again",
                     s->batch->row.cancel_reason);
        return false;
    }
    if (!s->room) {
        first_reason(s, "the broker's disk is full");
        return false;
    }
    if (s->live >= core->config.jobs_max) {
        first_reason(s, "the broker holds %" PRId64 " unfinished jobs, as many as it may (jobs_max)",
                     s->live);
        return false;
    }
    return true;
}

static const int band_of[] = { 1, 0, 2 }; /* by the wire's priority: normal, high, low */

static void fill(struct core *core, struct job *job, const Moothall__NewJob *m,
                 const uint8_t digest[JOB_DIGEST_SIZE])
{
    text_copy(job->custom_id, sizeof job->custom_id, m->custom_id);
    text_copy(job->endpoint, sizeof job->endpoint, m->endpoint);
    job->seed = m->seed;
    job->band = band_of[m->priority];
    job->attempt = job->infra = 0;
    job->worker[0] = job->reason[0] = '\0';
    job->incarnation = 0;
    job->leased_ms = job->purged_ms = 0;
    job->created_ms = core->now.wall_ms;
    job->run_at_ms = m->not_before_ms > core->now.wall_ms ? m->not_before_ms : 0;
    job->deadline_ms = m->deadline_ms;
    job->ready_ttl_ms = (int64_t)m->ready_ttl_ms;
    job->size = m->size;
    memcpy(job->digest, digest, JOB_DIGEST_SIZE);
}

/* What the batch as a whole says of its jobs. */
static void note_job(struct batch *batch, const struct job *job)
{
    struct batch_row *row = &batch->row;

    if (row->seq_last == 0)
        row->seq_first = job->seq;
    if (row->seq_last == 0 && !row->endpoints_differ)
        text_copy(row->endpoint, sizeof row->endpoint, job->endpoint);
    if (strcmp(row->endpoint, job->endpoint) != 0) {
        row->endpoints_differ = true;
        row->endpoint[0] = '\0';
    }
    if (job->seq > row->seq_last)
        row->seq_last = job->seq;
    if (job->deadline_ms > row->expires_ms)
        row->expires_ms = job->deadline_ms;
    batch->changed = true;
}

/* Ready, or delayed, or failed at once when the client refused it. */
static void start(struct core *core, struct job *job, struct batch *batch, const Moothall__NewJob *m,
                  struct span body, enum job_cause cause)
{
    job->entry = 0;
    note_job(batch, job);
    if (m->refused) {
        jobs_end(core, job, batch,
                 &(struct ending){ .cause = CAUSE_REFUSED,
                                   .status_code = m->status_code ? m->status_code : 400,
                                   .reason = "the request was refused before it was submitted",
                                   .body = body });
    } else if (job->run_at_ms) {
        jobs_change(core, job, batch, CAUSE_POSTPONED);
    } else {
        jobs_change(core, job, batch, cause);
        jobs_to_window(core, job, batch);
    }
}

/* Whoever stands at that position has none any more. */
static void clear_position(struct core *core, struct batch *batch, int64_t position)
{
    struct job other;
    int64_t seq;

    if (position == JOB_NO_POSITION)
        return;
    if (position >= batch->row.positions_end) {
        batch->row.positions_end = position + 1;
        batch->changed = true;
        return; /* nobody ever stood there: the usual case costs no look */
    }
    seq = core->store->job_at(core->store, batch->row.id, position);
    if (seq == 0 || !core->store->job_get(core->store, seq, &other))
        return;
    core->store->job_place(core->store, seq, JOB_NO_POSITION);
    if (job_ended(other.state))
        batch_unended(batch, position);
}

static void add_new(struct core *core, struct submission *s, const Moothall__NewJob *m,
                    const uint8_t digest[JOB_DIGEST_SIZE], struct span body)
{
    struct job job = { .seq = ++core->seq_last,
                       .batch = s->batch->row.id,
                       .queue = s->batch->row.queue,
                       .generation = 1,
                       .position = m->position == UINT32_MAX ? JOB_NO_POSITION : (int64_t)m->position };

    text_copy(job.id, sizeof job.id, m->id);
    clear_position(core, s->batch, job.position);
    fill(core, &job, m, digest);
    start(core, &job, s->batch, m, body, CAUSE_SUBMITTED);
    core->store->job_add(core->store, &job, body);
}

static void move_position(struct core *core, struct submission *s, struct job *job, int64_t position)
{
    if (job->position == position)
        return;
    clear_position(core, s->batch, position);
    core->store->job_place(core->store, job->seq, position);
    if (job_ended(job->state)) {
        batch_unended(s->batch, job->position);
        batch_ended(s->batch, position);
    }
    /* The position it leaves stops a reader just as an unfinished one does. */
    job->position = position;
    s->batch->changed = true;
}

/* A new generation; the one before ends as cancelled if it has not ended. */
static void renew(struct core *core, struct submission *s, struct job *job, const Moothall__NewJob *m,
                  const uint8_t digest[JOB_DIGEST_SIZE], struct span body, struct effects *effects)
{
    if (!job_ended(job->state)) {
        jobs_withdraw(core, job, effects);
        jobs_end(core, job, s->batch,
                 &(struct ending){ .cause = CAUSE_SUPERSEDED, .reason = "superseded by an update" });
    }
    batch_unended(s->batch, job->position);
    job->generation++;
    fill(core, job, m, digest);
    start(core, job, s->batch, m, body, CAUSE_RENEWED);
    core->store->job_renew(core->store, job, &body);
}

static Moothall__Acceptance submit_one(struct core *core, struct submission *s, const Moothall__NewJob *m,
                                       struct span body, struct effects *effects)
{
    uint8_t digest[JOB_DIGEST_SIZE];
    struct job job;
    bool same, renews;

    job_digest(digest, m->endpoint, m->custom_id, m->seed, m->refused, body);
    if (!s->batch || !core->store->job_named(core->store, s->batch->row.id, m->id, &job)) {
        if (!admit(core, s))
            return MOOTHALL__ACCEPTANCE__TURNED_AWAY;
        add_new(core, s, m, digest, body);
        s->live += !m->refused;
        return MOOTHALL__ACCEPTANCE__ACCEPTED;
    }
    same = !memcmp(digest, job.digest, JOB_DIGEST_SIZE);
    if (!same && s->m->mode != MOOTHALL__SUBMIT_MODE__UPDATE) {
        first_reason(s, "job %s is known with another body", m->id);
        return MOOTHALL__ACCEPTANCE__CONFLICT;
    }
    /* What was done and purged is as good as not done to whoever wants it again: the body comes with the ask. */
    renews = !same || (s->m->mode == MOOTHALL__SUBMIT_MODE__RETRY && job_ended(job.state) &&
                       (job.state != JOB_DONE || job.purged_ms));
    if (renews && !admit(core, s))
        return MOOTHALL__ACCEPTANCE__TURNED_AWAY;
    if (m->position != UINT32_MAX)
        move_position(core, s, &job, m->position);
    if (!renews)
        return MOOTHALL__ACCEPTANCE__DUPLICATE;
    s->live += job_ended(job.state) && !m->refused;
    renew(core, s, &job, m, digest, body, effects);
    return MOOTHALL__ACCEPTANCE__RENEWED;
}

int64_t jobs_live(const struct core *core)
{
    struct counts counts = books_counts(&core->books);

    return counts.in[JOB_READY] + counts.in[JOB_LEASED] + counts.in[JOB_DELAYED];
}

void jobs_submit(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__Submit *m = event->envelope->submit;
    struct submission s = { .m = m, .live = jobs_live(core) };
    Moothall__Submitted *answer = effects_new(effects, &moothall__submitted__descriptor);
    struct queue_book *queue = books_queue(&core->books, m->queue);
    size_t at = 0;

    s.room = core->store->has_room(core->store, event->payload.size + m->n_job * 1024);
    if (!queue && s.room) {
        queue = books_queue_make(&core->books, m->queue);
        if (!queue) {
            effects_refuse(
                effects, event->session, event->envelope->correlation, MOOTHALL__REFUSAL_CODE__NO_ROOM, 0,
                "queue `%s` would be one more than the %d that a broker holds", m->queue, QUEUES_MAX);
            return;
        }
    }
    if (queue)
        s.batch = s.room ? books_batch_make(&core->books, queue, m->batch, core->now.wall_ms)
                         : books_batch(&core->books, queue, m->batch);
    if (s.batch && s.batch->row.cancelling_ms && !s.batch->row.cancel_pending &&
        m->mode == MOOTHALL__SUBMIT_MODE__RETRY)
        cancel_lift(s.batch);
    s.closed = s.batch && s.batch->row.cancelling_ms;
    if (s.batch && s.batch->row.total != m->batch_total && s.room && !s.closed) {
        s.batch->row.total = m->batch_total;
        s.batch->changed = true;
    }
    answer->n_acceptance = m->n_job;
    answer->acceptance = effects_take(effects, m->n_job * sizeof *answer->acceptance);
    for (size_t i = 0; i < m->n_job; i++) {
        answer->acceptance[i] =
            submit_one(core, &s, m->job[i], span_of(event->payload.data + at, m->job[i]->size), effects);
        at += m->job[i]->size;
    }
    answer->reason = effects_text(effects, s.reason);
    answer->closed = s.closed && !(s.batch->row.cancel_pending && m->mode == MOOTHALL__SUBMIT_MODE__RETRY);
    effects_send(effects, event->session, event->envelope->correlation, MOOTHALL__ENVELOPE__BODY_SUBMITTED,
                 answer, (struct span){ 0 });
}

/* ---- lease --------------------------------------------------------------------------------------------- */

static void damaged(struct core *core, struct job *job, struct batch *batch)
{
    log_error("job.damaged", "job=%s seq=%" PRId64, job->id, job->seq);
    jobs_end(core, job, batch,
             &(struct ending){ .cause = CAUSE_DAMAGED,
                               .reason = "the stored request is damaged: its checksum is wrong" });
    core->store->job_move(core->store, job);
}

static void send_lease(struct worker *worker, const struct job *job, const struct batch *batch,
                       struct span body, struct effects *effects)
{
    Moothall__Lease *m = effects_new(effects, &moothall__lease__descriptor);

    m->job = effects_text(effects, job->id);
    m->generation = job->generation;
    m->fence = job_fence(job);
    m->attempt = job->attempt;
    m->infra = job->infra;
    m->custom_id = effects_text(effects, job->custom_id);
    m->seed = job->seed;
    m->alone = job->infra >= ALONE_FROM;
    m->endpoint = effects_text(effects, job->endpoint);
    m->queue = effects_text(effects, batch->queue->row.name);
    effects_send(effects, worker->session, 0, MOOTHALL__ENVELOPE__BODY_LEASE, m, body);
}

void jobs_send_lease(struct core *core, struct worker *worker, uint64_t fence, struct effects *effects)
{
    struct job job;
    struct batch *batch;
    struct span body;
    struct lease lease;

    if (!leased_job(core, fence, &job, &batch))
        return;
    if (core->store->body(core->store, job.seq, &effects->arena, &body)) {
        send_lease(worker, &job, batch, body, effects);
    } else if (lease_find(core->leases, fence, &lease)) {
        lease_remove(core->leases, fence);
        jobs_leave_holder(core, lease, true, effects);
        damaged(core, &job, batch);
    }
}

static bool has_credit(const struct core *core, const struct worker *worker, uint32_t size)
{
    if (!workers_may_lease(core, worker) || worker->alone || worker->held >= worker->credit_jobs)
        return false;
    return worker->held == 0 || worker->credit_bytes == 0 ||
           worker->held_bytes + size <= worker->credit_bytes;
}

/* The one with the fewest jobs in hand, so that all are busy before one is full. */
static struct worker *idlest(struct core *core, const struct worker * not, uint32_t size)
{
    struct worker *best = NULL;

    for (int i = 0; i < core->worker_end; i++) {
        struct worker *w = &core->worker[i];

        if (w != not &&has_credit(core, w, size) && (!best || w->held < best->held))
            best = w;
    }
    return best;
}

static int by_age(const void *a, const void *b)
{
    const struct waiting *x = a, *y = b;

    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Reads on, once.  Every queue that has ready jobs and is not paused gives its oldest; of those only what
 * lies before the youngest that a queue with more has given is certain to be next. */
static void gather(struct core *core, int band, int64_t after)
{
    struct waiting *rows = core->gathered;
    struct queue_book *queue, *next;
    int64_t seen = INT64_MAX, last;
    int queues = 0, each, n = 0, kept = 0;

    HASH_ITER(hh, core->books.queues, queue, next)
    queues += queue->row.counts.in[JOB_READY] > 0 && !queue->row.paused;
    each = queues ? GATHERED_MAX / queues : 0;
    if (each > GATHERED_EACH_MAX)
        each = GATHERED_EACH_MAX;
    HASH_ITER(hh, core->books.queues, queue, next)
    {
        int found;

        if (queue->row.counts.in[JOB_READY] == 0 || queue->row.paused)
            continue;
        found = core->store->ready(core->store, queue->row.id, band, after, rows + n, each);
        n += found;
        if (found == each && rows[n - 1].seq < seen)
            seen = rows[n - 1].seq;
    }
    if (queues > 1)
        qsort(rows, (size_t)n, sizeof *rows, by_age);
    last = n ? rows[n - 1].seq : after;
    for (int i = 0; i < n && rows[i].seq <= seen; i++) {
        const struct batch *batch = core->pending ? books_batch_id(&core->books, rows[i].batch) : NULL;

        if (!batch || !batch->row.cancel_pending)
            rows[kept++] = rows[i];
    }
    window_refill(&core->window[band], rows, (size_t)kept, seen == INT64_MAX ? last : seen,
                  seen == INT64_MAX);
}

static void refill(struct core *core, int band)
{
    struct window *window = &core->window[band];
    int64_t after;

    while (window_wants(window, &after) && core->refills[band] < REFILLS) {
        gather(core, band, after);
        core->refills[band]++;
        if (window->count >= LOOKED_AT)
            return;
    }
    /* So many may not be leased that none was found: on in the next turn. */
    core->again |= window_wants(window, &after) && window->count < LOOKED_AT;
}

/* The oldest job of the band that some worker can take now. */
static bool match(struct core *core, int band, struct waiting *job, struct worker **worker,
                  struct worker **kept)
{
    struct window *window = &core->window[band];

    refill(core, band);
    for (size_t i = 0; i < window->count && i < LOOKED_AT; i++) {
        *job = *window_at(window, i);
        if (!job->alone) {
            *worker = idlest(core, *kept, job->size);
            if (*worker)
                return true;
            continue; /* a smaller or a lonely one may still fit */
        }
        /* It waits for a worker to become empty; that one gets nothing else meanwhile. */
        *worker = *kept ? *kept : idlest(core, NULL, job->size);
        if (*worker && (*worker)->held == 0)
            return true;
        *kept = *worker;
    }
    return false;
}

static bool grant(struct core *core, int band, struct waiting waiting, struct worker *worker,
                  struct effects *effects)
{
    struct lease lease = { .worker = worker_number(core, worker),
                           .batch = waiting.batch,
                           .deadline_ms = core->now.mono_ms + core->config.lease_ms };
    struct batch *batch;
    struct span body;
    struct job job;

    if (lease_count(core->leases) >= core->config.leases_max)
        return false;
    window_remove(&core->window[band], waiting.seq);
    if (!core->store->job_get(core->store, waiting.seq, &job) || job.state != JOB_READY ||
        !(batch = books_batch_id(&core->books, job.batch)))
        return true;
    assert(!batch->row.cancel_pending && !batch->queue->row.paused); /* no window holds such a job */
    if (job.wake_ms && job.wake_ms <= core->now.wall_ms) {           /* between two ticks */
        expire(core, &job, batch, effects);
        return true;
    }
    if (!core->store->body(core->store, job.seq, &effects->arena, &body)) {
        damaged(core, &job, batch);
        return true;
    }
    jobs_change(core, &job, batch, CAUSE_LEASED);
    job.leases++;
    job.leased_ms = core->now.wall_ms;
    if (!batch->row.in_progress_ms)
        batch->row.in_progress_ms = core->now.wall_ms;
    text_copy(job.worker, sizeof job.worker, worker->offer.name);
    job.incarnation = worker->offer.incarnation;
    core->store->job_move(core->store, &job);
    lease.fence = job_fence(&job);
    lease.size = job.size;
    lease_grant(core->leases, lease, NULL);
    worker->held++;
    worker->held_bytes += job.size;
    worker->alone = job.infra >= ALONE_FROM;
    send_lease(worker, &job, batch, body, effects);
    return true;
}

void jobs_lease_out(struct core *core, struct effects *effects)
{
    /* Four of the high band for two of the normal and one of the low; what a band leaves the others take. */
    static const int turns[] = { 0, 1, 0, 2, 0, 1, 0 };
    enum { TURNS = sizeof turns / sizeof *turns };
    struct worker *kept = NULL, *worker;
    struct waiting job;

    if (!core->open || !core->room)
        return;
    memset(core->refills, 0, sizeof core->refills);
    for (;;) {
        int tried = 0;

        if (!idlest(core, NULL, 0))
            return;
        if (effects->arena.used > TURN_BYTES_MAX) {
            core->again = true;
            return;
        }
        while (tried < TURNS && !match(core, turns[core->band_turn], &job, &worker, &kept)) {
            core->band_turn = (core->band_turn + 1) % TURNS;
            tried++;
        }
        if (tried == TURNS || !grant(core, turns[core->band_turn], job, worker, effects))
            return;
        core->band_turn = (core->band_turn + 1) % TURNS;
    }
}

/* ---- result
 * ------------------------------------------------------------------------------------------------ */

static void hinder(struct core *core, struct job *job, struct batch *batch, const Moothall__Result *m)
{
    char text[JOB_REASON_MAX + 1 + REASON_SLACK];
    int64_t delay;

    job->attempt++;
    text_copy(job->reason, sizeof job->reason, m->reason);
    if (job->attempt >= core->config.attempts_max) {
        snprintf(text, sizeof text, "%" PRIu32 " attempts failed; the last: %s", job->attempt, job->reason);
        jobs_end(core, job, batch, &(struct ending){ .cause = CAUSE_SPENT, .reason = text });
        return;
    }
    delay = core->config.backoff_ms;
    for (uint32_t i = 1; i < job->attempt && delay < core->config.backoff_max_ms; i++)
        delay *= 2;
    if (delay > core->config.backoff_max_ms)
        delay = core->config.backoff_max_ms;
    /* Between half and the whole, so that jobs that failed together do not come back together. */
    delay = delay / 2 + (int64_t)(core->random->next(core->random) % (uint64_t)(delay / 2 + 1));
    job->run_at_ms = core->now.wall_ms + delay;
    jobs_change(core, job, batch, CAUSE_HINDERED);
}

/* Records it when it is the first of its generation.  The lease that brought it, or that it makes needless,
 * ends. */
static bool record(struct core *core, struct worker *worker, const Moothall__Result *m, struct span body,
                   struct effects *effects)
{
    enum job_cause cause = m->outcome == MOOTHALL__OUTCOME__FINISHED   ? CAUSE_FINISHED
                           : m->outcome == MOOTHALL__OUTCOME__AT_FAULT ? CAUSE_AT_FAULT
                                                                       : CAUSE_HINDERED;
    struct job job;
    struct lease lease;
    struct batch *batch;
    bool holds;

    holds = lease_find(core->leases, m->fence, &lease);
    if (!core->store->job_get(core->store, fence_seq(m->fence), &job) || strcmp(job.id, m->job) != 0 ||
        job.generation != m->generation || !(batch = books_batch_id(&core->books, job.batch)))
        return false;
    if ((m->fence & ((1u << FENCE_COUNT_BITS) - 1)) > job.leases)
        return false; /* no such lease was ever given */
    if (batch->row.cancel_pending)
        return false; /* its entry as cancelled is on the way */
    if (job_next(job.state, cause) == JOB_NONE || (cause == CAUSE_HINDERED && !holds))
        return false; /* it ended, or is somebody else's by now and that one may do better */
    if (job.state == JOB_READY)
        window_remove(&core->window[job.band], job.seq);
    if (holds || lease_find_job(core->leases, job.seq, &lease)) {
        lease_remove(core->leases, lease.fence);
        jobs_leave_holder(core, lease, !holds || lease.worker != worker_number(core, worker), effects);
    }
    if (cause == CAUSE_HINDERED) {
        hinder(core, &job, batch, m);
    } else {
        uint32_t status = m->status_code ? m->status_code : cause == CAUSE_FINISHED ? 200 : 400;

        if (*m->numerics)
            text_copy(core->numerics, sizeof core->numerics, m->numerics);
        jobs_end(core, &job, batch,
                 &(struct ending){ .cause = cause,
                                   .status_code = status,
                                   .reason = m->reason,
                                   .numerics = m->numerics,
                                   .worker = worker->offer.name,
                                   .prompt_tokens = m->prompt_tokens,
                                   .generated_tokens = m->generated_tokens,
                                   .cached_tokens = m->cached_tokens,
                                   .body = body });
    }
    core->store->job_move(core->store, &job);
    return true;
}

void jobs_result(struct core *core, struct worker *worker, const struct event *event, struct effects *effects)
{
    const Moothall__Result *m = event->envelope->result;
    Moothall__Stored *answer = effects_new(effects, &moothall__stored__descriptor);

    answer->recorded = record(core, worker, m, event->payload, effects);
    answer->job = effects_text(effects, m->job);
    answer->generation = m->generation;
    answer->fence = m->fence;
    effects_send(effects, event->session, event->envelope->correlation, MOOTHALL__ENVELOPE__BODY_STORED,
                 answer, (struct span){ 0 });
}

/* ---- damage found while reading
 * ------------------------------------------------------------------------------- */

void jobs_damaged_entry(struct core *core, const struct entry *entry)
{
    static const char reason[] = "the stored result is damaged: its checksum is wrong";
    struct batch *batch = books_batch_id(&core->books, entry->batch);
    struct job job;

    if (entry->state == JOB_DEAD || !batch || !core->store->job_get(core->store, entry->job, &job))
        return;
    log_error("entry.damaged", "job=%s entry=%" PRId64, entry->id, entry->number);
    core->store->entry_flag(core->store, entry->queue, entry->number, JOB_DEAD, reason);
    if (job.generation == entry->generation && job_next(job.state, CAUSE_DAMAGED) == JOB_DEAD &&
        job_ended(job.state)) {
        jobs_change(core, &job, batch, CAUSE_DAMAGED); /* so that a retry can make it anew */
        text_copy(job.reason, sizeof job.reason, reason);
        core->store->job_move(core->store, &job);
    }
}
