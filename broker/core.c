#include "broker/core.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core_state.h"
#include "proto/frame.h"
#include "proto/link.h"

struct core_config core_config_default(void)
{
    return (struct core_config){
        .lease_ms = 15000,
        .heartbeat_ms = 1000,
        .settle_ms = 2000,
        .attempts_max = 5,
        .infra_max = 20,
        .backoff_ms = 1000,
        .backoff_max_ms = 600000,
        .jobs_max = 100 * 1000 * 1000,
        .payload_max = LINK_PAYLOAD_MAX,
        .window = 256,
        .leases_max = 65536,
    };
}

struct core *core_new(const struct core_config *config, struct store *store, struct random *random,
                      struct core_time now, struct err *err)
{
    struct core *core = calloc(1, sizeof *core);

    if (core)
        core->leases = lease_table_new(config->leases_max);
    if (!core || !core->leases) {
        free(core);
        err_set(err, ERR_IO, "no memory for a hall with %zu leases", config->leases_max);
        return NULL;
    }
    core->config = *config;
    core->store = store;
    core->random = random;
    core->now = core->started = now;
    core->last_came_ms = now.mono_ms;
    core->room = true;
    core->pending = true;
    for (int band = 0; band < JOB_BANDS; band++)
        window_init(&core->window[band]);
    books_init(&core->books, store);
    core->seq_last = store->job_last(store);
    core->next_due_ms = store->next_due(store);
    store->hall_get(store, &core->hall);
    core->hall.broker_epoch++;
    if (*config->family)
        text_copy(core->hall.family, sizeof core->hall.family, config->family);
    if (!workers_read_map(core)) {
        err_set(err, ERR_INPUT,
                "the store's map of seats cannot be read; expected a Map of at most %d shards", SHARDS_MAX);
        core_free(core);
        return NULL;
    }
    workers_restore(core);
    books_flush(&core->books, now.wall_ms);
    store->hall_put(store, &core->hall);
    return core;
}

void core_free(struct core *core)
{
    if (!core)
        return;
    books_fini(&core->books);
    for (int i = 0; i < core->waiter_count; i++)
        free(core->waiter[i].named);
    lease_table_free(core->leases);
    free(core);
}

static void on_message(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__Envelope *e = event->envelope;
    struct worker *worker = worker_of(core, event->session);

    if (worker)
        worker->heard_ms = event->at.mono_ms;
    switch (e->body_case) {
    case MOOTHALL__ENVELOPE__BODY_HELLO:
        workers_hello(core, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_SUBMIT:
        jobs_submit(core, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_FETCH:
        answers_fetch(core, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_CURSOR_ASK:
    case MOOTHALL__ENVELOPE__BODY_CURSOR_SET:
        answers_cursor(core, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_STATUS_ASK:
        answers_status(core, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_AUDIT_ASK:
        answers_audit(core, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_CANCEL:
        cancel_ask(core, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_RETRY:
        retry_ask(core, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_PURGE:
        purge_ask(core, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_QUEUE_SET:
        answers_queue_set(core, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_DEATH:
        workers_death(core, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_RESULT:
        if (worker)
            jobs_result(core, worker, event, effects);
        break;
    case MOOTHALL__ENVELOPE__BODY_CREDIT:
        if (worker)
            workers_credit(worker, e->credit);
        break;
    case MOOTHALL__ENVELOPE__BODY_HEARTBEAT:
        if (worker)
            workers_heartbeat(core, worker, e->heartbeat);
        break;
    case MOOTHALL__ENVELOPE__BODY_SEATED:
        if (worker)
            workers_seated(worker, e->seated);
        break;
    case MOOTHALL__ENVELOPE__BODY_RELEASE:
        if (worker)
            jobs_release(core, worker, e->release, effects);
        break;
    default:
        assert(!"check_message lets nothing else pass");
    }
}

void core_step(struct core *core, const struct event *event, struct effects *effects)
{
    core->now = event->at;
    switch (event->kind) {
    case EVENT_MESSAGE:
        on_message(core, event, effects);
        break;
    case EVENT_ENDED:
        answers_session_ended(core, event->session);
        workers_ended(core, event, effects);
        break;
    case EVENT_TICK:
        jobs_expire(core, effects);
        core->due_left = true;
        purge_retained(core);
        break;
    }
}

bool core_turn(struct core *core, struct core_time now, struct effects *effects)
{
    bool behind;

    core->now = now;
    core->again = false;
    core->room = core->store->has_room(core->store, 64 * 1024);
    if (core->due_left)
        jobs_due(core, effects);
    cancel_on(core);
    workers_review(core, effects);
    jobs_lease_out(core, effects);
    answers_waiters(core, effects);
    behind = books_flush(&core->books, now.wall_ms);
    if (core->hall_changed)
        core->store->hall_put(core->store, &core->hall);
    core->hall_changed = false;
    return behind || core->again || core->due_left || core->pending;
}
