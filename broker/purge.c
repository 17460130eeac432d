#include <string.h>

#include "base/log.h"
#include "broker/core_state.h"

enum {
    PURGED_MAX = 1024,                   /* entries of one ask */
    PURGE_LOOKED_MAX = 8192,             /* ... and looked at */
    PURGED_BYTES_MAX = 16 * 1024 * 1024, /* they are written once more, as zeroes */
    RETAINED_MAX = 64,                   /* entries of one queue that its retention erases in one tick */
    ROWS = 64,
};

/* What the entry of an ended generation keeps, and the request when nobody needs it any more. */
static uint64_t erase(struct core *core, struct queue_book *queue, const struct remains *rest)
{
    core->store->entry_purge(core->store, queue->row.id, rest->number, rest->newest ? rest->job : 0,
                             core->now.wall_ms);
    queue->row.purged++;
    queue->changed = true;
    return rest->size + (rest->newest ? rest->request_size : 0);
}

void purge_ask(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__Purge *m = event->envelope->purge;
    Moothall__Purged *answer;
    int64_t number = (int64_t)m->after, cutoff_ms;
    struct remains rows[ROWS];
    struct queue_book *queue;
    struct batch *batch;
    int looked = 0, n;

    if (!answers_find(core, event, m->queue, m->batch, &queue, &batch, effects))
        return;
    answer = effects_new(effects, &moothall__purged__descriptor);
    cutoff_ms =
        m->older_than_ms < (uint64_t)core->now.wall_ms ? core->now.wall_ms - (int64_t)m->older_than_ms : 0;
    do {
        n = core->store->remains(core->store, queue->row.id, batch ? batch->row.id : 0, number, rows, ROWS);
        for (int i = 0; i < n; i++) {
            number = rows[i].number;
            if (rows[i].purged_ms || rows[i].finished_ms > cutoff_ms)
                continue;
            answer->bytes += erase(core, queue, &rows[i]);
            answer->jobs += rows[i].newest;
        }
        looked += n;
    } while (n == ROWS && looked < PURGE_LOOKED_MAX && answer->jobs + ROWS <= PURGED_MAX &&
             answer->bytes < PURGED_BYTES_MAX);
    answer->next = n == ROWS ? (uint64_t)number : 0;
    core->store->purge_now(core->store);
    if (answer->jobs)
        log_info("queue.purged", "queue=\"%s\" batch=\"%s\" jobs=%llu bytes=%llu", m->queue, m->batch,
                 (unsigned long long)answer->jobs, (unsigned long long)answer->bytes);
    effects_send(effects, event->session, event->envelope->correlation, MOOTHALL__ENVELOPE__BODY_PURGED,
                 answer, (struct span){ 0 });
}

int64_t purge_retention_ms(const struct core *core, const struct queue_book *queue)
{
    return queue->row.retention_ms == RETENTION_DEFAULT ? core->config.retention_ms : queue->row.retention_ms;
}

/* Entries end in the order of their numbers, so one number says how far a queue has got. */
void purge_retained(struct core *core)
{
    struct queue_book *queue, *next;

    HASH_ITER(hh, core->books.queues, queue, next)
    {
        struct remains rows[RETAINED_MAX];
        int64_t keep_ms = purge_retention_ms(core, queue);
        int n;

        /* Never more than keep_ms away, unless the clock was set back meanwhile. */
        if (keep_ms == 0 ||
            (core->now.wall_ms < queue->retain_at_ms && queue->retain_at_ms <= core->now.wall_ms + keep_ms))
            continue;
        n = core->store->remains(core->store, queue->row.id, 0, queue->row.retained_to, rows, RETAINED_MAX);
        queue->retain_at_ms = n == RETAINED_MAX ? 0 : core->now.wall_ms + keep_ms;
        for (int i = 0; i < n; i++) {
            if (rows[i].finished_ms + keep_ms > core->now.wall_ms) {
                queue->retain_at_ms = rows[i].finished_ms + keep_ms;
                break;
            }
            if (!rows[i].purged_ms)
                erase(core, queue, &rows[i]);
            queue->row.retained_to = rows[i].number;
            queue->changed = true;
        }
    }
}
