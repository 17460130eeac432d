#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "broker/core_state.h"

enum {
    PURGED_MAX = 1024,                   /* entries of one ask */
    PURGE_LOOKED_MAX = 8192,             /* ... and looked at */
    PURGED_BYTES_MAX = 16 * 1024 * 1024, /* they are written once more, as zeroes */
    RETAINED_MAX = 64,                   /* entries of one queue that its retention erases in one tick */
    RETAINED_BYTES_MAX = 1024 * 1024,
    TIGHT_MAX = 16,                      /* where the disk is nearly full */
    TIGHT_BYTES_MAX = 128 * 1024,
    ROWS = 64,
};

/* What may still be erased in this turn.  It is written once more, as zeroes, before it gives anything back: on a
 * disk that is nearly full only a little at a time, else the very thing that makes room would end the broker. */
struct portion {
    int entries;
    uint64_t bytes;
    bool begun;
};

static const struct portion tight_portion = { .entries = TIGHT_MAX, .bytes = TIGHT_BYTES_MAX };

static uint64_t weight(const struct remains *rest)
{
    return rest->size + (rest->newest ? rest->request_size : 0);
}

/* The first is taken whatever its size, where there is room for it. */
static bool fits(const struct core *core, struct portion *left, const struct remains *rest)
{
    uint64_t bytes = weight(rest);

    if (left->entries == 0 ||
        (bytes > left->bytes && (left->begun || !core->store->has_room(core->store, bytes))))
        return false;
    left->begun = true;
    left->entries--;
    left->bytes -= bytes < left->bytes ? bytes : left->bytes;
    return true;
}

/* What the entry of an ended generation keeps, and the request when nobody needs it any more. */
static uint64_t erase(struct core *core, struct queue_book *queue, const struct remains *rest)
{
    core->store->entry_purge(core->store, queue->row.id, rest->number, rest->newest ? rest->job : 0,
                             core->now.wall_ms);
    queue->row.purged++;
    queue->changed = true;
    return weight(rest);
}

void purge_ask(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__Purge *m = event->envelope->purge;
    Moothall__Purged *answer;
    int64_t number = (int64_t)m->after, cutoff_ms;
    struct portion left = { .entries = PURGED_MAX, .bytes = PURGED_BYTES_MAX };
    struct remains rows[ROWS];
    struct queue_book *queue;
    struct batch *batch;
    uint64_t wanted = 0;
    bool enough = false;
    int looked = 0, n;

    if (!answers_find(core, event, m->queue, m->batch, &queue, &batch, effects))
        return;
    answer = effects_new(effects, &moothall__purged__descriptor);
    if (!core->store->has_room(core->store, PURGED_BYTES_MAX))
        left = tight_portion;
    cutoff_ms =
        m->older_than_ms < (uint64_t)core->now.wall_ms ? core->now.wall_ms - (int64_t)m->older_than_ms : 0;
    do {
        n = core->store->remains(core->store, queue->row.id, batch ? batch->row.id : 0, number, rows, ROWS);
        for (int i = 0; i < n && !enough; i++) {
            if (!rows[i].purged_ms && rows[i].finished_ms <= cutoff_ms) {
                if (!fits(core, &left, &rows[i])) {
                    wanted = weight(&rows[i]);
                    enough = true;
                    break;
                }
                answer->bytes += erase(core, queue, &rows[i]);
                answer->jobs += rows[i].newest;
            }
            number = rows[i].number;
        }
        looked += n;
    } while (!enough && n == ROWS && looked < PURGE_LOOKED_MAX);
    if (enough && !left.begun) {
        effects_refuse(effects, event->session, event->envelope->correlation,
                       MOOTHALL__REFUSAL_CODE__NO_ROOM, 0,
                       "the disk has no room to write the %" PRIu64 " bytes of a result and its request over",
                       wanted);
        return;
    }
    answer->next = enough || n == ROWS ? (uint64_t)number : 0;
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
    struct portion tight = tight_portion; /* of all queues together */

    HASH_ITER(hh, core->books.queues, queue, next)
    {
        struct remains rows[RETAINED_MAX];
        int64_t keep_ms = purge_retention_ms(core, queue);
        struct portion whole = { .entries = RETAINED_MAX, .bytes = RETAINED_BYTES_MAX }, *left;
        int n;

        /* Never more than keep_ms away, unless the clock was set back meanwhile. */
        if (keep_ms == 0 ||
            (core->now.wall_ms < queue->retain_at_ms && queue->retain_at_ms <= core->now.wall_ms + keep_ms))
            continue;
        n = core->store->remains(core->store, queue->row.id, 0, queue->row.retained_to, rows, RETAINED_MAX);
        queue->retain_at_ms = n == RETAINED_MAX ? 0 : core->now.wall_ms + keep_ms;
        left = core->store->has_room(core->store, RETAINED_BYTES_MAX) ? &whole : &tight;
        for (int i = 0; i < n; i++) {
            if (rows[i].finished_ms + keep_ms > core->now.wall_ms) {
                queue->retain_at_ms = rows[i].finished_ms + keep_ms;
                break;
            }
            if (!rows[i].purged_ms && !fits(core, left, &rows[i])) {
                queue->retain_at_ms = 0; /* the next tick goes on */
                break;
            }
            if (!rows[i].purged_ms)
                erase(core, queue, &rows[i]);
            queue->row.retained_to = rows[i].number;
            queue->changed = true;
        }
    }
}
