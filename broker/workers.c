#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/core_state.h"

/* ---- who is here ------------------------------------------------------------------------------ */

struct worker *worker_of(struct core *core, uint64_t session)
{
    for (int i = 0; i < core->worker_end; i++)
        if (core->worker[i].here && core->worker[i].session == session && session)
            return &core->worker[i];
    return NULL;
}

uint32_t worker_number(const struct core *core, const struct worker *worker)
{
    return (uint32_t)(worker - core->worker);
}

static struct worker *worker_named(struct core *core, const char *name)
{
    for (int i = 0; i < core->worker_end; i++)
        if (core->worker[i].here && !strcmp(core->worker[i].offer.name, name))
            return &core->worker[i];
    return NULL;
}

static struct worker *worker_new(struct core *core)
{
    for (int i = 0; i < WORKERS_MAX; i++)
        if (!core->worker[i].here) {
            memset(&core->worker[i], 0, sizeof core->worker[i]);
            core->worker[i].here = true;
            core->worker[i].waiting_shard = -1;
            if (i >= core->worker_end)
                core->worker_end = i + 1;
            return &core->worker[i];
        }
    return NULL;
}

/* A worker that is gone stays known for as long as it has leases. */
static void forget_if_done(struct worker *worker)
{
    if (!worker->session && worker->held == 0)
        worker->here = false;
}

static int present(const struct core *core, struct offer *offers)
{
    int n = 0;

    for (int i = 0; i < core->worker_end; i++)
        if (core->worker[i].here && core->worker[i].session) {
            if (offers)
                offers[n] = core->worker[i].offer;
            n++;
        }
    return n;
}

/* ---- what outlives the broker -------------------------------------------------------------------- */

bool workers_read_map(struct core *core)
{
    struct placement *p = &core->placement;
    Moothall__Map *map;
    bool ok = true;

    if (core->hall.map_size == 0)
        return true;
    map = moothall__map__unpack(NULL, core->hall.map_size, core->hall.map);
    if (!map)
        return false;
    ok = map->n_worker <= WORKERS_MAX && map->n_seat <= SHARDS_MAX;
    p->epoch = map->epoch;
    text_copy(p->family, sizeof p->family, map->family);
    for (size_t i = 0; ok && i < map->n_worker; i++) {
        text_copy(p->holder[i].name, sizeof p->holder[i].name, map->worker[i]->name);
        text_copy(p->holder[i].endpoint, sizeof p->holder[i].endpoint, map->worker[i]->endpoint);
        p->holder[i].incarnation = map->worker[i]->incarnation;
    }
    for (size_t i = 0; ok && i < map->n_seat; i++) {
        ok = map->seat[i]->shard == i && map->seat[i]->worker < map->n_worker;
        p->seat[i] = (int16_t)map->seat[i]->worker;
    }
    p->holder_count = (int)map->n_worker;
    p->shard_count = (int)map->n_seat;
    core->dealt_to = map->dealt_to;
    moothall__map__free_unpacked(map, NULL);
    return ok;
}

static Moothall__Map *map_message(struct core *core, struct effects *effects)
{
    const struct placement *p = &core->placement;
    Moothall__Map *map = effects_new(effects, &moothall__map__descriptor);

    map->epoch = p->epoch;
    map->family = effects_text(effects, p->family);
    map->dealt_to = core->dealt_to;
    map->n_worker = (size_t)p->holder_count;
    map->worker = effects_take(effects, (size_t)p->holder_count * sizeof *map->worker);
    for (int i = 0; i < p->holder_count; i++) {
        map->worker[i] = effects_new(effects, &moothall__map_worker__descriptor);
        map->worker[i]->name = effects_text(effects, p->holder[i].name);
        map->worker[i]->endpoint = effects_text(effects, p->holder[i].endpoint);
        map->worker[i]->incarnation = p->holder[i].incarnation;
    }
    map->n_seat = (size_t)p->shard_count;
    map->seat = effects_take(effects, (size_t)p->shard_count * sizeof *map->seat);
    for (int i = 0; i < p->shard_count; i++) {
        map->seat[i] = effects_new(effects, &moothall__seat__descriptor);
        map->seat[i]->shard = (uint32_t)i;
        map->seat[i]->worker = (uint32_t)p->seat[i];
    }
    return map;
}

static void send_map(struct worker *worker, Moothall__Map *map, struct effects *effects)
{
    worker->wants_map = false;
    effects_send(effects, worker->session, 0, MOOTHALL__ENVELOPE__BODY_MAP, map, (struct span){ 0 });
}

/* False while the seats have not been dealt, or will be dealt anew because another number of workers is
 * expected than before the broker's start: nobody should load shards for a map that is about to change. */
static bool map_holds(const struct core *core)
{
    if (core->placement.epoch == 0)
        return false;
    return core->opened || core->config.workers == 0 || core->dealt_to == (uint32_t)core->config.workers;
}

/* Keeps the map in the store and tells everybody. */
static void publish_map(struct core *core, struct effects *effects)
{
    Moothall__Map *map = map_message(core, effects);
    size_t size = moothall__map__get_packed_size(map);

    if (size <= MAP_BYTES_MAX) { /* names and endpoints are bounded so that it always is */
        moothall__map__pack(map, core->hall.map);
        core->hall.map_size = size;
    }
    core->hall_changed = true;
    for (int i = 0; i < core->worker_end; i++)
        if (core->worker[i].here && core->worker[i].session)
            send_map(&core->worker[i], map, effects);
    log_info("seats.map", "epoch=%" PRIu64 " family=%s holders=%d shards=%d", core->placement.epoch,
             core->placement.family, core->placement.holder_count, core->placement.shard_count);
}

/* Leases go on while the broker is away.  They get twice the usual time, for the workers have to find
 * the new broker first. */
void workers_restore(struct core *core)
{
    struct job last;
    int n, restored = 0;
    bool any = false;

    do {
        n = core->store->leased(core->store, any ? &last : NULL, core->scratch,
                                (int)(sizeof core->scratch / sizeof *core->scratch));
        for (int i = 0; i < n; i++) {
            struct job *job = &core->scratch[i];
            struct worker *worker = worker_named(core, job->worker);
            const struct batch *batch = books_batch_id(&core->books, job->batch);
            struct lease lease = { .fence = job_fence(job),
                                   .size = job->size,
                                   .batch = job->batch,
                                   .deadline_ms = core->now.mono_ms + 2 * core->config.lease_ms };

            last = *job;
            any = true;
            if (batch && batch->row.cancel_pending)
                continue; /* nobody has it any more; its entry will follow */
            if (!worker && !(worker = worker_new(core))) {
                jobs_forsake(core, job); /* more names than a hall has workers */
                continue;
            }
            if (!*worker->offer.name) {
                text_copy(worker->offer.name, sizeof worker->offer.name, job->worker);
                worker->offer.incarnation = job->incarnation;
            }
            lease.worker = worker_number(core, worker);
            if (!lease_grant(core->leases, lease, NULL)) {
                jobs_forsake(core, job);
                continue;
            }
            worker->held++;
            worker->held_bytes += job->size;
            worker->alone |= job->infra >= ALONE_FROM;
            restored++;
        }
    } while (n == (int)(sizeof core->scratch / sizeof *core->scratch));
    if (restored)
        log_info("leases.restored", "count=%d", restored);
}

/* ---- coming and going ------------------------------------------------------------------------------ */

static void hex(char *into, const uint8_t *bytes)
{
    for (int i = 0; i < 8; i++)
        sprintf(into + 2 * i, "%02x", bytes[i]);
}

static void welcome(struct core *core, const struct event *event, const uint64_t *fences, size_t fence_count,
                    struct effects *effects)
{
    Moothall__Welcome *m = effects_new(effects, &moothall__welcome__descriptor);
    struct effect *effect;

    m->session = event->session;
    m->heartbeat_ms = (uint32_t)core->config.heartbeat_ms;
    m->lease_ms = (uint32_t)core->config.lease_ms;
    m->payload_max = core->config.payload_max;
    m->window = core->config.window;
    m->hall = core->hall.hall;
    m->broker_epoch = core->hall.broker_epoch;
    if (core->hall.has_model) {
        m->fingerprint.len = FINGERPRINT_SIZE;
        m->fingerprint.data =
            memcpy(effects_take(effects, FINGERPRINT_SIZE), core->hall.fingerprint, FINGERPRINT_SIZE);
    }
    effect = effects_send(effects, event->session, event->envelope->correlation,
                          MOOTHALL__ENVELOPE__BODY_WELCOME, m, (struct span){ 0 });
    effect->fences = fences;
    effect->fence_count = fence_count;
}

/* False when the models differ; then it has been refused. */
static bool same_model(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__Hello *hello = event->envelope->hello;
    char ours[17], theirs[17];

    if (hello->fingerprint.len == 0 || !core->hall.has_model ||
        !memcmp(hello->fingerprint.data, core->hall.fingerprint, FINGERPRINT_SIZE))
        return true;
    hex(ours, core->hall.fingerprint);
    hex(theirs, hello->fingerprint.data);
    log_warn("hello.refused", "name=\"%s\" fingerprint=%s hall=%s", hello->name, theirs, ours);
    effects_refuse(effects, event->session, event->envelope->correlation, MOOTHALL__REFUSAL_CODE__WRONG_MODEL,
                   0, "another model: %s has fingerprint %s, this hall's is %s",
                   *hello->name ? hello->name : "the client", theirs, ours);
    effects_end(effects, event->session);
    return false;
}

static void read_offer(struct offer *offer, const Moothall__Hello *hello)
{
    memset(offer, 0, sizeof *offer);
    text_copy(offer->name, sizeof offer->name, hello->name);
    offer->incarnation = hello->incarnation;
    text_copy(offer->endpoint, sizeof offer->endpoint, hello->offer->endpoint);
    offer->family_count = (int)hello->offer->n_families;
    for (int i = 0; i < offer->family_count; i++)
        text_copy(offer->family[i], sizeof offer->family[i], hello->offer->families[i]);
    offer->shard_count = (int)hello->offer->shard_count;
    offer->shard_bytes = hello->offer->shard_bytes;
    offer->memory_bytes = hello->offer->memory_bytes;
}

/* False when the worker cannot compute what this hall computes; then it has been refused. */
static bool same_family(struct core *core, const struct event *event, const struct offer *offer,
                        struct effects *effects)
{
    struct offer offers[WORKERS_MAX + 1];
    char can[FAMILIES_MAX * (FAMILY_MAX + 2)] = "", must[FAMILY_MAX + 64];
    int n;

    if (*core->hall.family) {
        if (offer_has_family(offer, core->hall.family))
            return true;
        snprintf(must, sizeof must, "%s", core->hall.family);
    } else {
        n = present(core, offers);
        offers[n] = *offer;
        if (placement_family(offers, n + 1))
            return true;
        snprintf(must, sizeof must, "what %s can: %s", offers[0].name,
                 offers[0].family[offers[0].family_count - 1]);
    }
    for (int i = 0; i < offer->family_count; i++)
        snprintf(can + strlen(can), sizeof can - strlen(can), "%s%s", i ? ", " : "", offer->family[i]);
    log_warn("hello.refused", "name=\"%s\" families=\"%s\" hall=\"%s\"", offer->name, can, must);
    effects_refuse(
        effects, event->session, event->envelope->correlation, MOOTHALL__REFUSAL_CODE__WRONG_FAMILY, 0,
        "another kernel family: %s can run %s, this hall computes with %s", offer->name, can, must);
    effects_end(effects, event->session);
    return false;
}

static void lose_all(struct core *core, struct worker *worker, const char *reason, struct effects *effects)
{
    struct lease lease;

    while (lease_take(core->leases, worker_number(core, worker), &lease))
        jobs_lose(core, lease, reason, effects);
}

static void hello_worker(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__Hello *hello = event->envelope->hello;
    struct worker *worker;
    struct offer offer;
    uint64_t *fences;
    size_t fence_count = 0;
    char reason[REASON_SLACK];

    read_offer(&offer, hello);
    if (!same_family(core, event, &offer, effects))
        return;
    for (int i = 0; i < core->worker_end; i++)
        if (core->worker[i].here && core->worker[i].session &&
            core->worker[i].offer.shard_count != offer.shard_count) {
            effects_refuse(effects, event->session, event->envelope->correlation,
                           MOOTHALL__REFUSAL_CODE__WRONG_MODEL, 0,
                           "%s divides the experts into %d shards, %s into %d", offer.name, offer.shard_count,
                           core->worker[i].offer.name, core->worker[i].offer.shard_count);
            effects_end(effects, event->session);
            return;
        }
    worker = worker_named(core, hello->name);
    if (worker && worker->offer.incarnation != hello->incarnation) {
        if (worker->session && core->now.mono_ms - worker->heard_ms < 2 * core->config.heartbeat_ms) {
            effects_refuse(effects, event->session, event->envelope->correlation,
                           MOOTHALL__REFUSAL_CODE__NO_ROOM, (uint32_t)core->config.heartbeat_ms,
                           "a worker named %s is here already (process %" PRIu32
                           "); it is replaced when it falls silent",
                           worker->offer.name, worker->pid);
            effects_end(effects, event->session);
            return;
        }
        if (worker->session)
            effects_end(effects, worker->session);
        worker->session = 0;
        snprintf(reason, sizeof reason, "worker %s was replaced by another process", worker->offer.name);
        lose_all(core, worker, reason, effects);
        worker->here = false;
        worker = NULL;
    }
    if (worker && worker->session && worker->session != event->session)
        effects_end(effects, worker->session); /* the same process on a new connection */
    if (!worker) {
        worker = worker_new(core);
        if (!worker) {
            effects_refuse(effects, event->session, event->envelope->correlation,
                           MOOTHALL__REFUSAL_CODE__NO_ROOM, 5000,
                           "this hall has %d workers, as many as it can have", WORKERS_MAX);
            effects_end(effects, event->session);
            return;
        }
        core->last_came_ms = core->now.mono_ms;
    }
    worker->offer = offer;
    worker->pid = hello->offer->pid;
    worker->session = event->session;
    worker->heard_ms = core->now.mono_ms;
    worker->seated_epoch = 0;
    worker->credit_jobs = 0;
    if (!core->hall.has_model) {
        core->hall.has_model = true;
        memcpy(core->hall.fingerprint, hello->fingerprint.data, FINGERPRINT_SIZE);
        core->hall_changed = true;
    }

    /* Its leases go on; those that it does not know of are sent again. */
    fences = effects_take(effects, (worker->held + 1) * sizeof *fences);
    for (size_t i = 0; i < lease_count(core->leases); i++) {
        struct lease lease = lease_at(core->leases, i);

        if (lease.worker != worker_number(core, worker))
            continue;
        lease_touch(core->leases, lease.fence, lease.worker, core->now.mono_ms + core->config.lease_ms);
        fences[fence_count++] = lease.fence;
    }
    welcome(core, event, fences, fence_count, effects);
    log_info("worker.came", "name=\"%s\" pid=%" PRIu32 " session=%" PRIu64 " leases=%zu", worker->offer.name,
             worker->pid, worker->session, fence_count);
    for (size_t i = 0; i < fence_count; i++) {
        bool listed = false;

        for (size_t k = 0; k < hello->n_held && !listed; k++)
            listed = hello->held[k] == fences[i];
        if (!listed)
            jobs_send_lease(core, worker, fences[i], effects);
    }
    worker->wants_map = true;
    if (map_holds(core) && placement_return(&core->placement, &worker->offer) == PLACEMENT_MOVED)
        publish_map(core, effects);
}

void workers_hello(struct core *core, const struct event *event, struct effects *effects)
{
    if (!same_model(core, event, effects))
        return;
    if (event->envelope->hello->role == MOOTHALL__ROLE__WORKER)
        hello_worker(core, event, effects);
    else
        welcome(core, event, NULL, 0, effects);
}

/* A model that only a passing worker brought does not bind the store. */
static void forget_model_if_unused(struct core *core)
{
    if (core->placement.epoch == 0 && present(core, NULL) == 0 && core->hall.has_model) {
        core->hall.has_model = false;
        core->hall_changed = true;
    }
}

void workers_ended(struct core *core, const struct event *event, struct effects *effects)
{
    struct worker *worker = worker_of(core, event->session);
    struct lease lease;

    if (!worker)
        return;
    log_info("worker.gone", "name=\"%s\" pid=%" PRIu32 " leases=%" PRIu32 " reason=\"%s\"",
             worker->offer.name, worker->pid, worker->held, event->reason);
    worker->session = 0;
    worker->seated_epoch = 0;
    /* One that said goodbye will not come back for them; nothing is held against the jobs. */
    if (event->envelope && event->envelope->body_case == MOOTHALL__ENVELOPE__BODY_GOODBYE)
        while (lease_take(core->leases, worker_number(core, worker), &lease))
            jobs_give_back(core, lease, effects);
    forget_if_done(worker);
    forget_model_if_unused(core);
}

void workers_death(struct core *core, const struct event *event, struct effects *effects)
{
    const Moothall__Death *death = event->envelope->death;
    struct worker *worker = worker_named(core, death->worker);
    Moothall__Pong *pong = effects_new(effects, &moothall__pong__descriptor);
    char reason[REASON_SLACK], why[128];

    text_copy(why, sizeof why, death->reason);
    /* Of a worker from before the broker's start the process is not known: its successor would have
     * said Hello by its own. */
    if (worker && (worker->pid == 0 || death->pid == 0 || worker->pid == death->pid)) {
        snprintf(reason, sizeof reason, "worker %s died%s%s", worker->offer.name, *why ? ": " : "", why);
        log_info("worker.died", "name=\"%s\" pid=%" PRIu32 " leases=%" PRIu32 " reason=\"%s\"",
                 worker->offer.name, worker->pid, worker->held, reason);
        if (worker->session)
            effects_end(effects, worker->session);
        worker->session = 0;
        worker->seated_epoch = 0;
        lose_all(core, worker, reason, effects);
        forget_if_done(worker);
        forget_model_if_unused(core);
    }
    effects_send(effects, event->session, event->envelope->correlation, MOOTHALL__ENVELOPE__BODY_PONG, pong,
                 (struct span){ 0 });
}

void workers_heartbeat(struct core *core, struct worker *worker, const Moothall__Heartbeat *heartbeat)
{
    uint32_t number = worker_number(core, worker);

    /* Every fence it names, whatever it is doing: waiting for a shard is no stall. */
    for (size_t i = 0; i < heartbeat->n_held; i++)
        lease_touch(core->leases, heartbeat->held[i], number, core->now.mono_ms + core->config.lease_ms);
    worker->sequences = heartbeat->sequences;
    worker->waiting_shard = heartbeat->waiting_shard;
    worker->prompt_tokens = heartbeat->prompt_tokens;
    worker->generated_tokens = heartbeat->generated_tokens;
    if (heartbeat->exchange) {
        worker->exchange = *heartbeat->exchange; /* numbers only */
        worker->exchange.base.n_unknown_fields = 0;
        worker->exchange.base.unknown_fields = NULL;
    }
}

void workers_credit(struct worker *worker, const Moothall__Credit *credit)
{
    worker->credit_jobs = credit->jobs;
    worker->credit_bytes = credit->bytes;
}

void workers_seated(struct worker *worker, const Moothall__Seated *seated)
{
    worker->seated_epoch = seated->epoch;
}

/* ---- seats -------------------------------------------------------------------------------------------- */

static struct worker *holder_of(const struct core *core, int holder)
{
    const struct holder *h = &core->placement.holder[holder];

    for (int i = 0; i < core->worker_end; i++) {
        const struct worker *w = &core->worker[i];

        if (w->here && w->session && !strcmp(w->offer.name, h->name) &&
            w->offer.incarnation == h->incarnation)
            return (struct worker *)(uintptr_t)w;
    }
    return NULL;
}

static int holders_absent(const struct core *core)
{
    int absent = 0;

    for (int i = 0; i < core->placement.holder_count; i++)
        absent += holder_of(core, i) == NULL;
    return absent;
}

bool workers_may_lease(const struct core *core, const struct worker *worker)
{
    return core->open && worker->here && worker->session && worker->seated_epoch == core->placement.epoch;
}

/* Should the seats be dealt (again)?  Once every seat was filled they stay: a worker that is missing is
 * waited for. */
static bool should_deal(const struct core *core)
{
    int here = present(core, NULL), expected = core->config.workers;
    int64_t quiet_ms = core->now.mono_ms - core->last_came_ms;

    if (here == 0 || core->opened)
        return false;
    if (core->placement.epoch == 0)
        return expected ? here >= expected : quiet_ms >= core->config.settle_ms;
    /* Dealt before this broker's start.  Other workers may have come this time, or another number of them. */
    if (expected)
        return here >= expected && (holders_absent(core) > 0 || core->dealt_to != (uint32_t)expected);
    return holders_absent(core) > 0 && quiet_ms >= core->config.settle_ms &&
           core->now.mono_ms - core->started.mono_ms >= 2 * core->config.lease_ms;
}

static void deal(struct core *core, struct effects *effects)
{
    struct offer *offers = effects_take(effects, WORKERS_MAX * sizeof *offers);
    int count = present(core, offers);
    const char *family = *core->hall.family ? core->hall.family : placement_family(offers, count);
    struct err err;

    if (!family)
        return; /* same_family() lets nobody in who has none in common */
    if (!placement_deal(&core->placement, offers, count, family, &err))
        return; /* workers_waiting_for() says what is missing */
    text_copy(core->hall.family, sizeof core->hall.family, core->placement.family);
    /* What was expected, not who was there: more may come at once, and the seats are theirs as well. */
    core->dealt_to = core->config.workers ? (uint32_t)core->config.workers : (uint32_t)count;
    publish_map(core, effects);
}

void workers_review(struct core *core, struct effects *effects)
{
    bool was_open = core->open;

    if (should_deal(core))
        deal(core, effects);
    for (int i = 0; map_holds(core) && i < core->worker_end; i++)
        if (core->worker[i].here && core->worker[i].session && core->worker[i].wants_map)
            send_map(&core->worker[i], map_message(core, effects), effects);
    core->open = core->placement.epoch > 0;
    for (int i = 0; core->open && i < core->placement.holder_count; i++) {
        const struct worker *w = holder_of(core, i);

        core->open = w && w->seated_epoch == core->placement.epoch;
    }
    if (core->open && core->placement.shard_count == 0)
        core->open = present(core, NULL) > 0;
    core->opened |= core->open;
    if (core->open != was_open)
        log_info(core->open ? "hall.open" : "hall.closed", "epoch=%" PRIu64, core->placement.epoch);
}

/* "0-3,7": the shards of one holder. */
static void shard_list(const struct placement *p, int holder, char *text, size_t size)
{
    size_t at = 0;

    *text = '\0';
    for (int s = 0; s < p->shard_count && at + 16 < size; s++) {
        int end = s;

        if (p->seat[s] != holder)
            continue;
        while (end + 1 < p->shard_count && p->seat[end + 1] == holder)
            end++;
        at += (size_t)snprintf(text + at, size - at, end > s ? "%s%d-%d" : "%s%d", at ? "," : "", s, end);
        s = end;
    }
}

/* Where all that is ready stands in paused queues. */
static void waiting_for_resume(const struct core *core, char *text, size_t size)
{
    const struct queue_book *queue, *next, *paused = NULL;

    HASH_ITER(hh, core->books.queues, queue, next)
    {
        if (queue->row.counts.in[JOB_READY] > 0 && !queue->row.paused)
            return;
        if (queue->row.counts.in[JOB_READY] > 0)
            paused = queue;
    }
    if (paused)
        snprintf(text, size, "queue %s, which is paused", paused->row.name);
}

void workers_waiting_for(const struct core *core, char *text, size_t size)
{
    const struct placement *p = &core->placement;
    int here = present(core, NULL), expected = core->config.workers;
    char shards[128];

    *text = '\0';
    if (core->open) {
        if (!core->room)
            snprintf(text, size, "room on the disk");
        else
            waiting_for_resume(core, text, size);
        return;
    }
    if (p->epoch == 0 || (here < expected && !core->opened)) {
        struct offer *offers = malloc(WORKERS_MAX * sizeof *offers);
        int64_t capacity = 0;

        if (here == 0) {
            if (expected)
                snprintf(text, size, "workers: none of %d has come", expected);
            else
                snprintf(text, size, "a worker");
        } else if (here < expected) {
            snprintf(text, size, "workers: %d of %d have come", here, expected);
        } else if (offers) {
            present(core, offers);
            capacity = placement_capacity(offers, here);
            if (capacity < offers[0].shard_count)
                snprintf(text, size, "memory: %d workers offer it for %" PRId64 " of %d shards", here,
                         capacity, offers[0].shard_count);
            else
                snprintf(text, size, "more workers, until none has come for %" PRId64 " ms",
                         core->config.settle_ms);
        }
        free(offers);
        return;
    }
    for (int i = 0; i < p->holder_count; i++) {
        const struct worker *w = holder_of(core, i);

        if (w && w->seated_epoch == p->epoch)
            continue;
        shard_list(p, i, shards, sizeof shards);
        snprintf(text, size,
                 w ? "shard %s: %s is loading it or connecting to its peers"
                   : "shard %s: its worker %s is not here",
                 shards, p->holder[i].name);
        return;
    }
}
