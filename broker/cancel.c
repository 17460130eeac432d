#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/core_state.h"

enum {
    CANCELLED_MAX = 256,      /* jobs that are ended in one turn */
    CANCEL_LOOKED_MAX = 4096, /* ... and looked at: those of other batches lie in between */
    RETRIED_MAX = 256,
    RETRY_LOOKED_MAX = 65536,
    STILL_CANCELLING_MS = 100,
};

/* ---- cancel --------------------------------------------------------------------------------------- */

void cancel_job(struct core *core, struct job *job, struct batch *batch, const char *reason,
                struct effects *effects)
{
    if (effects)
        jobs_withdraw(core, job, effects);
    jobs_end(core, job, batch, &(struct ending){ .cause = CAUSE_CANCELLED, .reason = reason });
    core->store->job_move(core->store, job);
}

static uint64_t cancel_named(struct core *core, struct batch *batch, const int64_t *seqs, size_t count,
                             const char *reason, struct effects *effects)
{
    uint64_t cancelled = 0;
    struct job job;

    for (size_t i = 0; i < count; i++)
        if (core->store->job_get(core->store, seqs[i], &job) && !job_ended(job.state)) {
            cancel_job(core, &job, batch, reason, effects);
            cancelled++;
        }
    return cancelled;
}

/* Marks it.  From here on nothing of it is leased and no result of it is taken; what has to be written for
 * each job follows in slices, also after a restart. */
static void cancel_batch(struct core *core, struct batch *batch, const char *reason, struct effects *effects)
{
    batch->row.cancelling_ms = core->now.wall_ms;
    text_copy(batch->row.cancel_reason, sizeof batch->row.cancel_reason, reason);
    batch->changed = true;
    if (batch_live(batch) == 0)
        return;
    batch->row.cancel_pending = true;
    for (int band = 0; band < JOB_BANDS; band++)
        window_remove_batch(&core->window[band], batch->row.id);
    for (size_t i = lease_count(core->leases); i-- > 0;) {
        struct lease lease = lease_at(core->leases, i);

        if (lease.batch != batch->row.id)
            continue;
        lease_remove(core->leases, lease.fence);
        jobs_leave_holder(core, lease, true, effects);
    }
    core->pending = true;
}

void cancel_ask(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__Cancel *m = event->envelope->cancel;
    Moothall__Cancelled *answer = effects_new(effects, &moothall__cancelled__descriptor);
    char reason[CANCEL_REASON_MAX + 1];
    struct queue_book *queue;
    struct batch *batch;
    int64_t *seqs;

    if (!answers_find(core, event, m->queue, m->batch, &queue, &batch, effects))
        return;
    text_copy(reason, sizeof reason, *m->reason ? m->reason : "cancelled on request");
    if (m->n_job) {
        seqs = answers_named(core, event, batch, m->job, m->n_job, effects);
        if (!seqs)
            return;
        answer->jobs = cancel_named(core, batch, seqs, m->n_job, reason, effects);
        free(seqs);
    } else {
        answer->jobs = (uint64_t)batch_live(batch);
        if (!batch->row.cancelling_ms)
            cancel_batch(core, batch, reason, effects);
        log_info("batch.cancelled", "queue=\"%s\" batch=\"%s\" jobs=%llu", queue->row.name, batch->row.name,
                 (unsigned long long)answer->jobs);
    }
    answer->more = batch->row.cancel_pending;
    effects_send(effects, event->session, event->envelope->correlation, MOOTHALL__ENVELOPE__BODY_CANCELLED,
                 answer, (struct span){ 0 });
}

/* The walk over the jobs of that batch is over. */
static void walked(struct core *core, struct batch *batch)
{
    core->cancelling = 0;
    if (batch_live(batch) > 0 && core->cancelling_moved)
        return; /* some changed their place meanwhile: from the start again */
    if (batch_live(batch) > 0)
        log_error("batch.counts", "batch=\"%s\" live=%lld found=0", batch->row.name,
                  (long long)batch_live(batch));
    batch->row.cancel_pending = false;
    batch->changed = true;
}

void cancel_on(struct core *core)
{
    int64_t seqs[CANCELLED_MAX];
    struct batch *batch;
    bool over;
    int n;

    if (!core->pending)
        return;
    if (!core->cancelling) {
        books_flush(&core->books,
                    core->now.wall_ms); /* the store is asked for what was marked in this turn too */
        core->cancelling = core->store->batch_pending(core->store, 0);
        core->cancelling_at = (struct live_at){ 0 };
        core->cancelling_moved = false;
    }
    batch = core->cancelling ? books_batch_id(&core->books, core->cancelling) : NULL;
    if (!batch) {
        core->pending = false;
        return;
    }
    n = core->store->live(core->store, &batch->row, &core->cancelling_at, CANCEL_LOOKED_MAX, seqs,
                          CANCELLED_MAX, &over);
    for (int i = 0; i < n; i++) {
        struct job job;

        /* Neither in a window nor leased: the mark saw to that. */
        if (core->store->job_get(core->store, seqs[i], &job) && !job_ended(job.state))
            cancel_job(core, &job, batch, batch->row.cancel_reason, NULL);
    }
    core->cancelling_moved |= n > 0;
    if (over || batch_live(batch) == 0)
        walked(core, batch);
}

void cancel_lift(struct batch *batch)
{
    batch->row.cancelling_ms = batch->row.cancelled_ms = 0;
    batch->row.cancel_reason[0] = '\0';
    batch->changed = true;
}

/* ---- retry ------------------------------------------------------------------------------------------ */

struct retry {
    bool wanted[JOB_STATES];
    int64_t live;
    Moothall__Retried *answer;
    struct effects *effects;
};

static void skip(struct retry *retry, const struct job *job, const char *why)
{
    char text[JOB_ID_MAX + 128];

    if (retry->answer->skipped++ > 0)
        return;
    snprintf(text, sizeof text, "job %s %s", job->id, why);
    retry->answer->reason = effects_text(retry->effects, text);
}

/* A new generation of what is stored, with the first one's promises about time as far as they can still be
 * kept. */
static void begin_again(struct core *core, struct retry *retry, struct job *job, struct batch *batch)
{
    if (!job_ended(job->state) || !retry->wanted[job->state])
        return;
    if (job->purged_ms) {
        skip(retry, job, "was purged: its request is not there any more");
        return;
    }
    if (job->state == JOB_FAILED && !job->leased_ms) {
        skip(retry, job, "was refused by its client: what is stored is the error, not a request");
        return;
    }
    batch_unended(batch, job->position);
    job->generation++;
    job->attempt = job->infra = 0;
    job->worker[0] = job->reason[0] = '\0';
    job->incarnation = 0;
    job->run_at_ms = job->leased_ms = 0;
    job->created_ms = core->now.wall_ms;
    job->entry = 0;
    if (job->deadline_ms <= core->now.wall_ms)
        job->deadline_ms = 0;
    jobs_change(core, job, batch, CAUSE_RENEWED);
    jobs_to_window(core, job, batch);
    core->store->job_renew(core->store, job, NULL);
    retry->answer->jobs++;
    retry->live++;
}

static void retry_named(struct core *core, struct retry *retry, struct batch *batch, const int64_t *seqs,
                        size_t count)
{
    struct job job;

    for (size_t i = 0; i < count; i++)
        if (core->store->job_get(core->store, seqs[i], &job))
            begin_again(core, retry, &job, batch);
}

static void retry_slice(struct core *core, struct retry *retry, struct batch *batch, int64_t after)
{
    enum { ROWS = sizeof core->scratch / sizeof *core->scratch };
    int64_t at = after >= batch->row.seq_first ? after : batch->row.seq_first - 1;
    int64_t end = at + RETRY_LOOKED_MAX;

    while (at < batch->row.seq_last && at < end && retry->answer->jobs + ROWS <= RETRIED_MAX) {
        int n =
            core->store->jobs(core->store, batch->row.id, &at, RETRY_LOOKED_MAX / 16, core->scratch, ROWS);

        for (int i = 0; i < n; i++)
            begin_again(core, retry, &core->scratch[i], batch);
    }
    retry->answer->next = at < batch->row.seq_last ? (uint64_t)at : 0;
}

void retry_ask(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__Retry *m = event->envelope->retry;
    uint64_t correlation = event->envelope->correlation;
    struct retry retry = { .effects = effects, .live = jobs_live(core) };
    struct queue_book *queue;
    struct batch *batch;
    int64_t *seqs = NULL;

    if (!answers_find(core, event, m->queue, m->batch, &queue, &batch, effects))
        return;
    if (batch->row.cancel_pending) {
        effects_refuse(effects, event->session, correlation, MOOTHALL__REFUSAL_CODE__NO_ROOM,
                       STILL_CANCELLING_MS, "batch `%s` is still being cancelled", m->batch);
        return;
    }
    if (!core->store->has_room(core->store, RETRIED_MAX * 1024) ||
        retry.live + RETRIED_MAX > core->config.jobs_max) {
        effects_refuse(effects, event->session, correlation, MOOTHALL__REFUSAL_CODE__NO_ROOM, 1000,
                       "the broker has no room for %d unfinished jobs more (disk, or jobs_max)", RETRIED_MAX);
        return;
    }
    if (m->n_job && !(seqs = answers_named(core, event, batch, m->job, m->n_job, effects)))
        return;
    retry.answer = effects_new(effects, &moothall__retried__descriptor);
    for (size_t i = 0; i < m->n_state; i++)
        retry.wanted[m->state[i]] = true; /* the same numbers */
    if (m->n_state == 0)
        retry.wanted[JOB_FAILED] = retry.wanted[JOB_DEAD] = retry.wanted[JOB_CANCELLED] =
            retry.wanted[JOB_EXPIRED] = true;
    if (batch->row.cancelling_ms)
        cancel_lift(batch);
    if (seqs)
        retry_named(core, &retry, batch, seqs, m->n_job);
    else
        retry_slice(core, &retry, batch, (int64_t)m->after);
    free(seqs);
    effects_send(effects, event->session, correlation, MOOTHALL__ENVELOPE__BODY_RETRIED, retry.answer,
                 (struct span){ 0 });
}
