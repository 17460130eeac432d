#include "broker/check.h"

#include <inttypes.h>
#include <string.h>

#include "broker/job.h"
#include "broker/placement.h"
#include "broker/store.h"

enum {
    SUBMIT_JOBS_MAX = 256,
    FETCH_ITEMS_MAX = 256,
    HELD_MAX = 4096,
    CREDIT_JOBS_MAX = 4096,
    NUMERICS_MAX = JOB_NUMERICS_MAX,
    WEIGHTS_MAX = 16,
    NAMES_MAX = 256,
};

#define NO_POSITION UINT32_MAX
#define TIME_MAX    (INT64_C(1) << 45) /* milliseconds: a thousand years */

static bool no(struct err *err, const char *field, const char *what)
{
    return err_set(err, ERR_INPUT, "%s %s", field, what);
}

/* A name that people will read: no control characters, so that it can stand in a log line. */
static bool check_name(const char *field, const char *name, size_t max, bool may_be_empty, struct err *err)
{
    size_t n = strlen(name);

    if (n == 0 && !may_be_empty)
        return no(err, field, "is empty");
    if (n > max)
        return err_set(err, ERR_INPUT, "%s has %zu bytes; at most %zu are allowed", field, n, max);
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return no(err, field, "holds a control character");
    return true;
}

static bool check_id(const char *field, const char *id, struct err *err)
{
    size_t n = strlen(id);

    if (n == 0 || n > JOB_ID_MAX ||
        strspn(id, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._-") != n)
        return err_set(err, ERR_INPUT, "%s is not 1 to %d characters of 0-9A-Za-z._-", field, JOB_ID_MAX);
    return true;
}

static bool check_hello(const Moothall__Hello *m, struct err *err)
{
    const Moothall__WorkerOffer *offer = m->offer;

    if (m->role != MOOTHALL__ROLE__CLIENT && m->role != MOOTHALL__ROLE__WORKER &&
        m->role != MOOTHALL__ROLE__SUPERVISOR)
        return no(err, "hello.role", "is unknown");
    if (!check_name("hello.name", m->name, WORKER_NAME_MAX, m->role != MOOTHALL__ROLE__WORKER, err))
        return false;
    if (m->fingerprint.len != 0 && m->fingerprint.len != FINGERPRINT_SIZE)
        return no(err, "hello.fingerprint", "has not 32 bytes");
    if (m->n_held > HELD_MAX)
        return no(err, "hello.held", "names more than 4096 leases");
    if (m->role != MOOTHALL__ROLE__WORKER)
        return true;
    if (m->fingerprint.len == 0)
        return no(err, "hello.fingerprint", "is missing; a worker must say which model it has");
    if (!offer)
        return no(err, "hello.offer", "is missing");
    if (!check_name("hello.offer.endpoint", offer->endpoint, PEER_ENDPOINT_MAX, true, err) ||
        !check_name("hello.offer.weights", offer->weights, WEIGHTS_MAX, true, err))
        return false;
    if (offer->n_families == 0 || offer->n_families > FAMILIES_MAX)
        return no(err, "hello.offer.families", "has not 1 to 16 names");
    for (size_t i = 0; i < offer->n_families; i++)
        if (!check_name("hello.offer.families", offer->families[i], FAMILY_MAX, false, err))
            return false;
    if (offer->shard_count > SHARDS_MAX)
        return no(err, "hello.offer.shard_count", "is above 1024");
    return true;
}

static bool check_job(const Moothall__NewJob *job, uint32_t total, struct err *err)
{
    if (!check_id("id", job->id, err) ||
        !check_name("custom_id", job->custom_id, JOB_CUSTOM_ID_MAX, true, err) ||
        !check_name("endpoint", job->endpoint, JOB_ENDPOINT_MAX, true, err))
        return false;
    if (job->position != NO_POSITION && job->position >= (total ? total : BATCH_POSITIONS_MAX))
        return err_set(err, ERR_INPUT, "position %" PRIu32 " is not below batch_total %" PRIu32,
                       job->position, total ? total : BATCH_POSITIONS_MAX);
    if (job->not_before_ms < 0 || job->not_before_ms > TIME_MAX)
        return no(err, "not_before_ms", "is no time on the wall clock");
    if (job->deadline_ms < 0 || job->deadline_ms > TIME_MAX)
        return no(err, "deadline_ms", "is no time on the wall clock");
    if (job->ready_ttl_ms > TIME_MAX)
        return no(err, "ready_ttl_ms", "is longer than a thousand years");
    if (job->priority > 2)
        return no(err, "priority", "is not 0 (normal), 1 (high) or 2 (low)");
    if (job->status_code > 999)
        return no(err, "status_code", "is above 999");
    return true;
}

static bool check_submit(const Moothall__Submit *m, struct span payload, struct err *err)
{
    uint64_t sum = 0;

    if (!check_name("submit.queue", m->queue, QUEUE_NAME_MAX, false, err) ||
        !check_name("submit.batch", m->batch, BATCH_NAME_MAX, false, err))
        return false;
    if (m->batch_total > BATCH_POSITIONS_MAX)
        return err_set(err, ERR_INPUT, "submit.batch_total is %" PRIu32 "; expected at most %d",
                       m->batch_total, BATCH_POSITIONS_MAX);
    if (m->mode != MOOTHALL__SUBMIT_MODE__NEW && m->mode != MOOTHALL__SUBMIT_MODE__UPDATE &&
        m->mode != MOOTHALL__SUBMIT_MODE__RETRY)
        return no(err, "submit.mode", "is unknown");
    if (m->n_job == 0 || m->n_job > SUBMIT_JOBS_MAX)
        return err_set(err, ERR_INPUT, "submit.job has %zu jobs; expected 1 to %d", m->n_job,
                       SUBMIT_JOBS_MAX);
    for (size_t i = 0; i < m->n_job; i++) {
        struct err inner = { 0 };

        if (!check_job(m->job[i], m->batch_total, &inner))
            return err_set(err, ERR_INPUT, "submit.job[%zu].%s", i, inner.text);
        sum += m->job[i]->size;
    }
    if (sum != payload.size)
        return err_set(err, ERR_INPUT, "submit.job sizes add up to %" PRIu64 ", the payload has %zu bytes",
                       sum, payload.size);
    return true;
}

static bool check_ids(const char *field, char **ids, size_t count, struct err *err)
{
    if (count > NAMES_MAX)
        return err_set(err, ERR_INPUT, "%s has %zu ids; at most %d are allowed", field, count, NAMES_MAX);
    for (size_t i = 0; i < count; i++)
        if (!check_id(field, ids[i], err))
            return false;
    return true;
}

static bool check_cancel(const Moothall__Cancel *m, struct err *err)
{
    return check_name("cancel.queue", m->queue, QUEUE_NAME_MAX, false, err) &&
           check_name("cancel.batch", m->batch, BATCH_NAME_MAX, false, err) &&
           check_name("cancel.reason", m->reason, CANCEL_REASON_MAX, true, err) &&
           check_ids("cancel.job", m->job, m->n_job, err);
}

static bool check_retry(const Moothall__Retry *m, struct err *err)
{
    if (!check_name("retry.queue", m->queue, QUEUE_NAME_MAX, false, err) ||
        !check_name("retry.batch", m->batch, BATCH_NAME_MAX, false, err) ||
        !check_ids("retry.job", m->job, m->n_job, err))
        return false;
    for (size_t i = 0; i < m->n_state; i++)
        if (m->state[i] != MOOTHALL__STATE__FAILED && m->state[i] != MOOTHALL__STATE__DEAD &&
            m->state[i] != MOOTHALL__STATE__CANCELLED && m->state[i] != MOOTHALL__STATE__EXPIRED)
            return no(err, "retry.state", "is not FAILED, DEAD, CANCELLED or EXPIRED");
    if (m->after > INT64_MAX / 2)
        return no(err, "retry.after", "is no `next` of a retry");
    return true;
}

static bool check_purge(const Moothall__Purge *m, struct err *err)
{
    if (!check_name("purge.queue", m->queue, QUEUE_NAME_MAX, false, err) ||
        !check_name("purge.batch", m->batch, BATCH_NAME_MAX, true, err))
        return false;
    if (m->after > UINT64_C(1) << 39)
        return no(err, "purge.after", "is no `next` of a purge");
    return true;
}

static bool check_queue_set(const Moothall__QueueSet *m, struct err *err)
{
    if (!check_name("queue_set.queue", m->queue, QUEUE_NAME_MAX, false, err))
        return false;
    if (m->pause != MOOTHALL__QUEUE_SET__PAUSE__LEAVE && m->pause != MOOTHALL__QUEUE_SET__PAUSE__PAUSE &&
        m->pause != MOOTHALL__QUEUE_SET__PAUSE__RESUME)
        return no(err, "queue_set.pause", "is unknown");
    if (m->retention_ms > TIME_MAX)
        return no(err, "queue_set.retention_ms", "is longer than a thousand years");
    return true;
}

static bool check_fetch(const Moothall__Fetch *m, struct err *err)
{
    if (!check_name("fetch.queue", m->queue, QUEUE_NAME_MAX, false, err) ||
        !check_name("fetch.batch", m->batch, BATCH_NAME_MAX, true, err))
        return false;
    if (m->order != MOOTHALL__ORDER__COMPLETION && m->order != MOOTHALL__ORDER__POSITION &&
        m->order != MOOTHALL__ORDER__NAMED)
        return no(err, "fetch.order", "is unknown");
    if (m->order != MOOTHALL__ORDER__COMPLETION && !*m->batch)
        return no(err, "fetch.batch", "is empty; only a batch has positions and ids");
    if (m->order == MOOTHALL__ORDER__NAMED ? m->n_job == 0 : m->n_job > 0)
        return no(err, "fetch.job",
                  m->n_job ? "is of the order NAMED only" : "is empty; NAMED wants 1 to 256 ids");
    if (!check_ids("fetch.job", m->job, m->n_job, err))
        return false;
    if (m->from > (m->order == MOOTHALL__ORDER__POSITION ? (uint64_t)BATCH_POSITIONS_MAX : UINT64_C(1) << 39))
        return no(err, "fetch.from", "is beyond anything that can be there");
    if (m->items_max > FETCH_ITEMS_MAX)
        return no(err, "fetch.items_max", "is above 256");
    return true;
}

static bool check_cursor(const char *queue, const char *batch, const char *consumer, struct err *err)
{
    return check_name("cursor.queue", queue, QUEUE_NAME_MAX, false, err) &&
           check_name("cursor.batch", batch, BATCH_NAME_MAX, true, err) &&
           check_name("cursor.consumer", consumer, CONSUMER_NAME_MAX, false, err);
}

static bool check_result(const Moothall__Result *m, struct err *err)
{
    if (!check_id("result.job", m->job, err))
        return false;
    if (m->outcome != MOOTHALL__OUTCOME__FINISHED && m->outcome != MOOTHALL__OUTCOME__AT_FAULT &&
        m->outcome != MOOTHALL__OUTCOME__HINDERED)
        return no(err, "result.outcome", "is unknown");
    if (m->status_code > 999)
        return no(err, "result.status_code", "is above 999");
    return check_name("result.numerics", m->numerics, NUMERICS_MAX, true, err);
}

bool check_message(const Moothall__Envelope *e, struct span payload, struct err *err)
{
    bool brings_payload =
        e->body_case == MOOTHALL__ENVELOPE__BODY_SUBMIT || e->body_case == MOOTHALL__ENVELOPE__BODY_RESULT;

    if (!brings_payload && payload.size)
        return no(err, "payload", "is not empty, and this kind of message has none");
    switch (e->body_case) {
    case MOOTHALL__ENVELOPE__BODY_HELLO:
        return check_hello(e->hello, err);
    case MOOTHALL__ENVELOPE__BODY_GOODBYE:
    case MOOTHALL__ENVELOPE__BODY_PING:
    case MOOTHALL__ENVELOPE__BODY_SEATED:
        return true;
    case MOOTHALL__ENVELOPE__BODY_SUBMIT:
        return check_submit(e->submit, payload, err);
    case MOOTHALL__ENVELOPE__BODY_FETCH:
        return check_fetch(e->fetch, err);
    case MOOTHALL__ENVELOPE__BODY_CURSOR_ASK:
        return check_cursor(e->cursor_ask->queue, e->cursor_ask->batch, e->cursor_ask->consumer, err);
    case MOOTHALL__ENVELOPE__BODY_CURSOR_SET:
        if (e->cursor_set->note.len > CURSOR_NOTE_MAX)
            return no(err, "cursor_set.note", "is longer than 1024 bytes");
        if (e->cursor_set->position > INT64_MAX)
            return no(err, "cursor_set.position", "is too large");
        return check_cursor(e->cursor_set->queue, e->cursor_set->batch, e->cursor_set->consumer, err);
    case MOOTHALL__ENVELOPE__BODY_STATUS_ASK:
        return check_name("status_ask.queue", e->status_ask->queue, QUEUE_NAME_MAX, true, err) &&
               check_name("status_ask.batch", e->status_ask->batch, BATCH_NAME_MAX, true, err);
    case MOOTHALL__ENVELOPE__BODY_AUDIT_ASK:
        if (e->audit_ask->after > INT64_MAX)
            return no(err, "audit_ask.after", "is no `next` of an audit");
        return check_name("audit_ask.batch", e->audit_ask->batch, BATCH_NAME_MAX, true, err);
    case MOOTHALL__ENVELOPE__BODY_CANCEL:
        return check_cancel(e->cancel, err);
    case MOOTHALL__ENVELOPE__BODY_RETRY:
        return check_retry(e->retry, err);
    case MOOTHALL__ENVELOPE__BODY_PURGE:
        return check_purge(e->purge, err);
    case MOOTHALL__ENVELOPE__BODY_QUEUE_SET:
        return check_queue_set(e->queue_set, err);
    case MOOTHALL__ENVELOPE__BODY_DEATH:
        return check_name("death.worker", e->death->worker, WORKER_NAME_MAX, false, err);
    case MOOTHALL__ENVELOPE__BODY_CREDIT:
        if (e->credit->jobs > CREDIT_JOBS_MAX)
            return no(err, "credit.jobs", "is above 4096");
        return true;
    case MOOTHALL__ENVELOPE__BODY_RESULT:
        return check_result(e->result, err);
    case MOOTHALL__ENVELOPE__BODY_HEARTBEAT:
        if (e->heartbeat->n_held > HELD_MAX)
            return no(err, "heartbeat.held", "names more than 4096 leases");
        return true;
    case MOOTHALL__ENVELOPE__BODY_RELEASE:
        if (e->release->n_fence > HELD_MAX)
            return no(err, "release.fence", "names more than 4096 leases");
        return true;
    default:
        return no(err, "body", "is a kind of message that a broker does not take");
    }
}

bool check_role(Moothall__Role role, Moothall__Envelope__BodyCase body)
{
    switch (body) {
    case MOOTHALL__ENVELOPE__BODY_CREDIT:
    case MOOTHALL__ENVELOPE__BODY_RESULT:
    case MOOTHALL__ENVELOPE__BODY_HEARTBEAT:
    case MOOTHALL__ENVELOPE__BODY_SEATED:
    case MOOTHALL__ENVELOPE__BODY_RELEASE:
        return role == MOOTHALL__ROLE__WORKER;
    case MOOTHALL__ENVELOPE__BODY_DEATH:
        return role == MOOTHALL__ROLE__SUPERVISOR;
    default:
        return true; /* workers and supervisors may ask what a client may ask */
    }
}
