#include "worker/seat.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/queue.h"

enum {
    GREETING_MS = 2000,
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 5000,
    HELLO_RETRY_MS = 20, /* a DEALER whose connection is not made yet refuses to send */
    SILENCE_BEATS = 5,   /* heartbeats missed before a side is given up */
    LEAVE_MS = 2000,     /* how long results may still wait to be stored when the worker leaves */
    EVENTS_MAX = 2 * SEAT_HELD_MAX + 64,
    ORDERS_MAX = 2 * SEAT_HELD_MAX + 64,
};

enum order_kind { ORDER_RESULT, ORDER_RELEASE, ORDER_SEATED, ORDER_PROGRESS, ORDER_LEAVE };

struct order {
    enum order_kind kind;
    uint64_t number; /* a fence or an epoch */
    struct seat_result *result;
    struct seat_progress progress;
    char text[128];
};

struct held {
    uint64_t fence;
    char job[65];
    uint32_t generation;
    struct seat_result *result; /* kept until it is stored; NULL while the engine works on it */
    bool sent;
    bool dropped; /* the engine has not been told yet: its queue was full */
};

enum session { CONNECTING, GREETING, OPEN, WAITING, CLOSED };

struct seat {
    struct seat_config config;
    struct link_context *context;
    struct queue *events, *orders;
    pthread_t thread;

    /* The rest belongs to the link thread. */
    struct link *link;
    enum session session;
    int64_t now_ms, heard_ms, greeting_since_ms, try_ms, beat_ms;
    int backoff_ms;
    uint64_t random;
    uint32_t heartbeat_ms;
    uint32_t payload_max;
    uint64_t hall;
    bool hello_sent, refused, leaving;
    int64_t leave_ms;
    char leave_reason[128];
    uint64_t seated_epoch;
    bool has_seated;
    struct seat_progress progress;
    struct held *held; /* [SEAT_HELD_MAX] */
    int held_count;
    struct seat_event *map_waiting; /* the newest map while the engine's queue is full */
};

void seat_lease_free(struct seat_lease *lease)
{
    if (!lease)
        return;
    free(lease->body);
    free(lease);
}

void seat_map_free(struct seat_map *map)
{
    if (!map)
        return;
    free(map->worker);
    free(map->seat);
    free(map);
}

void seat_event_free(struct seat_event *event)
{
    if (!event)
        return;
    seat_lease_free(event->lease);
    seat_map_free(event->map);
    free(event);
}

static void result_free(struct seat_result *result)
{
    if (!result)
        return;
    buf_fini(&result->body);
    free(result);
}

static void *must(void *memory)
{
    if (!memory) {
        log_error("seat.memory", "reason=\"out of memory\"");
        abort();
    }
    return memory;
}

/* ---- events and orders ----------------------------------------------------------------------- */

static struct seat_event *event_new(enum seat_event_kind kind)
{
    struct seat_event *event = must(calloc(1, sizeof *event));

    event->kind = kind;
    return event;
}

static struct held *find_held(struct seat *seat, uint64_t fence)
{
    for (int i = 0; i < seat->held_count; i++)
        if (seat->held[i].fence == fence)
            return &seat->held[i];
    return NULL;
}

static void forget_held(struct seat *seat, struct held *held)
{
    result_free(held->result);
    *held = seat->held[--seat->held_count];
}

/* The engine hears of a lost lease once.  While its queue is full the fence stays listed. */
static void tell_dropped(struct seat *seat, struct held *held)
{
    struct seat_event *event = event_new(SEAT_DROPPED);

    event->fence = held->fence;
    held->dropped = true;
    if (queue_put(seat->events, event))
        forget_held(seat, held);
    else
        seat_event_free(event);
}

static void tell_again(struct seat *seat)
{
    if (seat->map_waiting && queue_put(seat->events, seat->map_waiting))
        seat->map_waiting = NULL;
    for (int i = seat->held_count - 1; i >= 0; i--)
        if (seat->held[i].dropped)
            tell_dropped(seat, &seat->held[i]);
}

static void tell_end(struct seat *seat, enum seat_event_kind kind, const char *text)
{
    struct seat_event *event = event_new(kind);

    snprintf(event->text, sizeof event->text, "%s", text);
    while (!queue_put(seat->events, event)) /* the last event there is; the engine always drains */
        usleep(1000);
}

/* ---- sending ----------------------------------------------------------------------------------- */

static void connection_lost(struct seat *seat, const char *why);

static bool seat_send(struct seat *seat, Moothall__Envelope__BodyCase kind, void *body, struct span payload)
{
    Moothall__Envelope envelope;

    link_envelope(&envelope, kind, body, 0);
    return link_send(seat->link, NULL, &envelope, payload) == LINK_SENT;
}

static bool send_hello(struct seat *seat)
{
    Moothall__Hello hello = MOOTHALL__HELLO__INIT;
    Moothall__WorkerOffer offer = MOOTHALL__WORKER_OFFER__INIT;
    char *families[1] = { seat->config.family };
    uint64_t held[SEAT_HELD_MAX];

    for (int i = 0; i < seat->held_count; i++)
        held[i] = seat->held[i].fence;
    offer.endpoint = seat->config.endpoint;
    offer.families = families;
    offer.n_families = 1;
    offer.weights = seat->config.weights;
    offer.shard_count = seat->config.shard_count;
    offer.shard_bytes = seat->config.shard_bytes;
    offer.memory_bytes = seat->config.memory_bytes;
    offer.pid = (uint32_t)getpid();
    hello.role = MOOTHALL__ROLE__WORKER;
    hello.name = seat->config.name;
    hello.incarnation = seat->config.incarnation;
    hello.fingerprint.data = seat->config.fingerprint;
    hello.fingerprint.len = sizeof seat->config.fingerprint;
    hello.offer = &offer;
    hello.held = held;
    hello.n_held = (size_t)seat->held_count;
    return seat_send(seat, MOOTHALL__ENVELOPE__BODY_HELLO, &hello, (struct span){ 0 });
}

static bool send_result(struct seat *seat, struct held *held)
{
    Moothall__Result body = MOOTHALL__RESULT__INIT;
    struct seat_result *result = held->result;

    body.job = held->job;
    body.generation = held->generation;
    body.fence = held->fence;
    body.outcome = result->outcome;
    body.status_code = result->status_code;
    body.reason = result->reason;
    body.numerics = result->numerics;
    body.prompt_tokens = result->prompt_tokens;
    body.generated_tokens = result->generated_tokens;
    body.cached_tokens = result->cached_tokens;
    body.started_ms = result->started_ms;
    held->sent = seat_send(seat, MOOTHALL__ENVELOPE__BODY_RESULT, &body, buf_span(&result->body));
    return held->sent;
}

static bool send_heartbeat(struct seat *seat)
{
    Moothall__Heartbeat beat = MOOTHALL__HEARTBEAT__INIT;
    Moothall__ExchangeCounts counts = MOOTHALL__EXCHANGE_COUNTS__INIT;
    const struct seat_progress *p = &seat->progress;
    uint64_t held[SEAT_HELD_MAX];

    for (int i = 0; i < seat->held_count; i++)
        held[i] = seat->held[i].fence;
    beat.held = held;
    beat.n_held = (size_t)seat->held_count;
    beat.sequences = p->sequences;
    beat.waiting_shard = p->waiting_shard;
    beat.progress = p->progress;
    beat.prompt_tokens = p->prompt_tokens;
    beat.generated_tokens = p->generated_tokens;
    counts.dispatches = p->dispatches;
    counts.dispatch_bytes = p->dispatch_bytes;
    counts.dispatch_rows = p->dispatch_rows;
    counts.sums_bytes = p->sums_bytes;
    counts.resent = p->resent;
    counts.steps = p->steps;
    counts.decode_steps = p->decode_steps;
    counts.decode_dispatches = p->decode_dispatches;
    counts.served = p->served;
    counts.served_rows = p->served_rows;
    counts.moe_layers = p->moe_layers;
    beat.exchange = &counts;
    seat->beat_ms = seat->now_ms + seat->heartbeat_ms * 2 / 3;
    return seat_send(seat, MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &beat, (struct span){ 0 });
}

static bool send_seated(struct seat *seat)
{
    Moothall__Seated seated = MOOTHALL__SEATED__INIT;

    seated.epoch = seat->seated_epoch;
    return seat_send(seat, MOOTHALL__ENVELOPE__BODY_SEATED, &seated, (struct span){ 0 });
}

static bool send_release(struct seat *seat, uint64_t fence, const char *reason)
{
    Moothall__Release release = MOOTHALL__RELEASE__INIT;
    char text[128];

    snprintf(text, sizeof text, "%s", reason);
    release.fence = &fence;
    release.n_fence = 1;
    release.reason = text;
    return seat_send(seat, MOOTHALL__ENVELOPE__BODY_RELEASE, &release, (struct span){ 0 });
}

/* ---- the session --------------------------------------------------------------------------------- */

static uint64_t random_next(struct seat *seat)
{
    seat->random ^= seat->random << 13;
    seat->random ^= seat->random >> 7;
    seat->random ^= seat->random << 17;
    return seat->random;
}

/* Between half and the whole of the present back-off, so that a hall's workers do not all come at once. */
static void back_off(struct seat *seat)
{
    int half = seat->backoff_ms / 2;

    seat->try_ms = seat->now_ms + half + (int64_t)(random_next(seat) % (uint64_t)(half + 1));
    seat->backoff_ms = seat->backoff_ms * 2 < BACKOFF_MAX_MS ? seat->backoff_ms * 2 : BACKOFF_MAX_MS;
}

static void connection_lost(struct seat *seat, const char *why)
{
    if (seat->session == OPEN || seat->backoff_ms >= BACKOFF_MAX_MS / 2)
        log_warn("broker.lost", "endpoint=%s reason=\"%s\" held=%d", seat->config.broker, why,
                 seat->held_count);
    link_free(seat->link);
    seat->link = NULL;
    seat->session = CONNECTING;
    back_off(seat);
}

static void greet(struct seat *seat)
{
    seat->session = GREETING;
    seat->greeting_since_ms = seat->now_ms;
    seat->hello_sent = false;
}

static void give_up(struct seat *seat, const char *text)
{
    if (seat->refused)
        return;
    seat->refused = true;
    seat->session = CLOSED;
    tell_end(seat, SEAT_REFUSED, text);
}

static void on_welcome(struct seat *seat, const Moothall__Welcome *welcome)
{
    Moothall__Credit credit = MOOTHALL__CREDIT__INIT;
    bool sent;

    if (seat->session != GREETING)
        return;
    if (seat->hall && welcome->hall != seat->hall) {
        /* Another store: what we hold means nothing there. */
        log_warn("hall.changed", "held=%d", seat->held_count);
        for (int i = seat->held_count - 1; i >= 0; i--) {
            if (seat->held[i].result)
                forget_held(seat, &seat->held[i]);
            else
                tell_dropped(seat, &seat->held[i]);
        }
        seat->has_seated = false;
    }
    seat->hall = welcome->hall;
    seat->heartbeat_ms =
        welcome->heartbeat_ms >= 50 && welcome->heartbeat_ms <= 60000 ? welcome->heartbeat_ms : 1000;
    seat->payload_max = welcome->payload_max;
    seat->session = OPEN;
    seat->backoff_ms = BACKOFF_MIN_MS;
    log_info("broker.welcome", "endpoint=%s session=%llu held=%d", seat->config.broker,
             (unsigned long long)welcome->session, seat->held_count);

    credit.jobs = seat->leaving ? 0 : seat->config.credit_jobs;
    credit.bytes = seat->config.credit_bytes;
    sent = seat_send(seat, MOOTHALL__ENVELOPE__BODY_CREDIT, &credit, (struct span){ 0 });
    for (int i = 0; sent && i < seat->held_count; i++)
        if (seat->held[i].result)
            sent = send_result(seat, &seat->held[i]);
    if (sent && seat->has_seated)
        sent = send_seated(seat);
    if (!sent || !send_heartbeat(seat))
        connection_lost(seat, "sending failed");
}

static void on_refusal(struct seat *seat, const Moothall__Refusal *refusal)
{
    if (refusal->code == MOOTHALL__REFUSAL_CODE__NEED_HELLO) {
        greet(seat);
        return;
    }
    if (seat->session != GREETING) {
        log_warn("broker.refusal", "code=%d reason=\"%s\"", (int)refusal->code, refusal->text);
        return;
    }
    if (refusal->retry_after_ms == 0) {
        give_up(seat, refusal->text);
        return;
    }
    log_warn("broker.refusal", "code=%d retry_ms=%u reason=\"%s\"", (int)refusal->code,
             refusal->retry_after_ms, refusal->text);
    seat->session = WAITING;
    seat->try_ms = seat->now_ms + (refusal->retry_after_ms < 60000 ? refusal->retry_after_ms : 60000);
}

static void on_lease(struct seat *seat, const Moothall__Lease *lease, struct span payload)
{
    struct seat_event *event;
    struct seat_lease *own;
    struct held *held;

    if (find_held(seat, lease->fence)) /* sent again because it crossed our Hello */
        return;
    if (seat->leaving || seat->held_count == SEAT_HELD_MAX || strlen(lease->job) > 64 ||
        strlen(lease->custom_id) > 512 || strlen(lease->endpoint) > 63) {
        if (!send_release(seat, lease->fence,
                          seat->leaving ? "the worker is leaving" : "the worker holds too many"))
            connection_lost(seat, "sending failed");
        return;
    }
    event = event_new(SEAT_LEASE);
    own = event->lease = must(calloc(1, sizeof *own));
    own->fence = lease->fence;
    snprintf(own->job, sizeof own->job, "%s", lease->job);
    snprintf(own->custom_id, sizeof own->custom_id, "%s", lease->custom_id);
    snprintf(own->endpoint, sizeof own->endpoint, "%s", lease->endpoint);
    own->generation = lease->generation;
    own->attempt = lease->attempt;
    own->infra = lease->infra;
    own->seed = lease->seed;
    own->alone = lease->alone;
    own->taken_ms = clock_wall_ms();
    own->body = must(malloc(payload.size + 1));
    if (payload.size)
        memcpy(own->body, payload.data, payload.size);
    own->body[payload.size] = '\0';
    own->body_size = payload.size;

    held = &seat->held[seat->held_count++];
    *held = (struct held){ .fence = own->fence, .generation = own->generation };
    memcpy(held->job, own->job, sizeof held->job);
    if (!queue_put(seat->events, event)) {
        seat->held_count--;
        seat_event_free(event);
        if (!send_release(seat, lease->fence, "the worker's queue is full"))
            connection_lost(seat, "sending failed");
    }
}

static void on_map(struct seat *seat, const Moothall__Map *map)
{
    struct seat_event *event;
    struct seat_map *own;

    if (map->n_worker > SEAT_WORKERS_MAX || map->n_seat > SEAT_SEATS_MAX ||
        strlen(map->family) >= sizeof own->family) {
        log_warn("map.malformed", "workers=%zu seats=%zu", map->n_worker, map->n_seat);
        return;
    }
    event = event_new(SEAT_MAP);
    own = event->map = must(calloc(1, sizeof *own));
    own->epoch = map->epoch;
    snprintf(own->family, sizeof own->family, "%s", map->family);
    own->worker_count = (int)map->n_worker;
    own->seat_count = (int)map->n_seat;
    own->worker = must(calloc(map->n_worker + 1, sizeof *own->worker));
    own->seat = must(calloc(map->n_seat + 1, sizeof *own->seat));
    for (int i = 0; i < own->worker_count; i++) {
        const Moothall__MapWorker *w = map->worker[i];

        if (strlen(w->name) >= SEAT_NAME_MAX || strlen(w->endpoint) >= LINK_ENDPOINT_MAX)
            goto malformed;
        snprintf(own->worker[i].name, SEAT_NAME_MAX, "%s", w->name);
        snprintf(own->worker[i].endpoint, LINK_ENDPOINT_MAX, "%s", w->endpoint);
        own->worker[i].incarnation = w->incarnation;
    }
    for (int i = 0; i < own->seat_count; i++) {
        own->seat[i].shard = map->seat[i]->shard;
        own->seat[i].worker = map->seat[i]->worker;
        if (own->seat[i].shard >= seat->config.shard_count || own->seat[i].worker >= map->n_worker)
            goto malformed;
    }
    /* Only the newest map matters. */
    seat_event_free(seat->map_waiting);
    seat->map_waiting = NULL;
    if (!queue_put(seat->events, event))
        seat->map_waiting = event;
    return;
malformed:
    log_warn("map.malformed", "epoch=%llu", (unsigned long long)map->epoch);
    seat_event_free(event);
}

static void on_dropped(struct seat *seat, const Moothall__HeartbeatReply *reply)
{
    for (size_t i = 0; i < reply->n_dropped; i++) {
        struct held *held = find_held(seat, reply->dropped[i]);

        /* A lease whose result is under way ends with `Stored`, which may come after this. */
        if (held && !held->result && !held->dropped)
            tell_dropped(seat, held);
    }
}

static void on_stored(struct seat *seat, const Moothall__Stored *stored)
{
    struct held *held = find_held(seat, stored->fence);

    if (held && held->result && strcmp(held->job, stored->job) == 0)
        forget_held(seat, held);
}

static void on_message(struct seat *seat, const struct link_message *message)
{
    const Moothall__Envelope *e = message->envelope;

    seat->heard_ms = seat->now_ms;
    switch (e->body_case) {
    case MOOTHALL__ENVELOPE__BODY_WELCOME:
        on_welcome(seat, e->welcome);
        break;
    case MOOTHALL__ENVELOPE__BODY_REFUSAL:
        on_refusal(seat, e->refusal);
        break;
    case MOOTHALL__ENVELOPE__BODY_LEASE:
        if (seat->session == OPEN)
            on_lease(seat, e->lease, message->payload);
        break;
    case MOOTHALL__ENVELOPE__BODY_MAP:
        if (seat->session == OPEN)
            on_map(seat, e->map);
        break;
    case MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY:
        on_dropped(seat, e->heartbeat_reply);
        break;
    case MOOTHALL__ENVELOPE__BODY_STORED:
        on_stored(seat, e->stored);
        break;
    case MOOTHALL__ENVELOPE__BODY_PONG:
        break;
    default:
        log_warn("broker.unexpected", "kind=%d", (int)e->body_case);
    }
}

/* ---- orders ------------------------------------------------------------------------------------- */

static void on_order(struct seat *seat, struct order *order)
{
    struct held *held;
    bool sent = true;

    switch (order->kind) {
    case ORDER_RESULT:
        held = find_held(seat, order->result->fence);
        if (!held || held->dropped) { /* lost meanwhile: another worker has it */
            result_free(order->result);
            break;
        }
        assert(!held->result);
        held->result = order->result;
        if (seat->session == OPEN)
            sent = send_result(seat, held);
        break;
    case ORDER_RELEASE:
        held = find_held(seat, order->number);
        if (held && !held->result)
            forget_held(seat, held);
        if (seat->session == OPEN)
            sent = send_release(seat, order->number, "the worker is leaving");
        break;
    case ORDER_SEATED:
        seat->seated_epoch = order->number;
        seat->has_seated = true;
        if (seat->session == OPEN)
            sent = send_seated(seat);
        break;
    case ORDER_PROGRESS:
        seat->progress = order->progress;
        break;
    case ORDER_LEAVE:
        seat->leaving = true;
        seat->leave_ms = seat->now_ms + LEAVE_MS;
        memcpy(seat->leave_reason, order->text, sizeof seat->leave_reason);
        break;
    }
    free(order);
    if (!sent)
        connection_lost(seat, "sending failed");
}

/* ---- the thread ---------------------------------------------------------------------------------- */

/* What is due now; returns how long to wait for the next. */
static int on_time(struct seat *seat)
{
    struct err err;
    int64_t due = seat->now_ms + 1000;

    switch (seat->session) {
    case CONNECTING:
        if (seat->now_ms < seat->try_ms) {
            due = seat->try_ms;
            break;
        }
        if (!link_connect(&seat->link, seat->context, seat->config.broker, &err)) {
            give_up(seat, err.text);
            break;
        }
        greet(seat);
        /* fall through */
    case GREETING:
        if (!seat->hello_sent)
            seat->hello_sent = send_hello(seat);
        if (seat->now_ms >= seat->greeting_since_ms + GREETING_MS) {
            connection_lost(seat, "no answer");
            due = seat->try_ms;
            break;
        }
        due = seat->hello_sent ? seat->greeting_since_ms + GREETING_MS : seat->now_ms + HELLO_RETRY_MS;
        break;
    case WAITING:
        due = seat->try_ms;
        if (seat->now_ms >= seat->try_ms) {
            greet(seat);
            due = seat->now_ms;
        }
        break;
    case OPEN:
        if (seat->now_ms >= seat->heard_ms + (int64_t)SILENCE_BEATS * seat->heartbeat_ms) {
            connection_lost(seat, "the broker is silent");
            due = seat->try_ms;
            break;
        }
        if (seat->now_ms >= seat->beat_ms && !send_heartbeat(seat)) {
            connection_lost(seat, "sending failed");
            due = seat->try_ms;
            break;
        }
        due = seat->beat_ms;
        break;
    case CLOSED:
        break;
    }
    if (seat->leaving && due > seat->leave_ms)
        due = seat->leave_ms;
    if (seat->map_waiting && due > seat->now_ms + 10)
        due = seat->now_ms + 10;
    return due <= seat->now_ms ? 0 : (int)(due - seat->now_ms);
}

static bool results_wait(const struct seat *seat)
{
    for (int i = 0; i < seat->held_count; i++)
        if (seat->held[i].result)
            return true;
    return false;
}

/* True when that descriptor says stop: a signal, or the other end is gone. */
static bool drain_stop_fd(int fd)
{
    char bytes[512];
    ssize_t n = read(fd, bytes, sizeof bytes);

    return n >= 0 || (errno != EAGAIN && errno != EINTR);
}

static void *seat_thread(void *argument)
{
    struct seat *seat = argument;
    struct link_message message;
    int fds[1 + SEAT_STOP_FDS_MAX], fd_count;
    bool ready[2 + SEAT_STOP_FDS_MAX], stopped = false;

    link_message_init(&message);
    for (;;) {
        struct order *order;
        int timeout_ms, link_count;

        seat->now_ms = clock_now_ms();
        if (seat->leaving && (seat->session != OPEN || !results_wait(seat) || seat->now_ms >= seat->leave_ms))
            break;
        tell_again(seat);
        timeout_ms = on_time(seat);
        fd_count = 0;
        fds[fd_count++] = queue_fd(seat->orders);
        for (int i = 0; !stopped && i < seat->config.stop_fd_count; i++)
            fds[fd_count++] = seat->config.stop_fd[i];
        link_count = seat->link ? 1 : 0;
        link_wait(&seat->link, link_count, fds, fd_count, timeout_ms, ready);
        seat->now_ms = clock_now_ms();
        for (int i = 1; i < fd_count; i++)
            if (ready[link_count + i] && !stopped && drain_stop_fd(fds[i])) {
                stopped = true;
                tell_end(seat, SEAT_STOP, i == 1 ? "a signal" : "the supervisor is gone");
            }
        while (seat->link && link_receive(seat->link, &message))
            on_message(seat, &message);
        while ((order = queue_take(seat->orders)))
            on_order(seat, order);
    }
    if (seat->link && seat->session == OPEN) {
        Moothall__Goodbye goodbye = MOOTHALL__GOODBYE__INIT;

        goodbye.reason = seat->leave_reason;
        seat_send(seat, MOOTHALL__ENVELOPE__BODY_GOODBYE, &goodbye, (struct span){ 0 });
    }
    link_message_fini(&message);
    link_free(seat->link);
    seat->link = NULL;
    return NULL;
}

bool seat_start(struct seat **out, struct link_context *context, const struct seat_config *config,
                struct err *err)
{
    struct seat *seat;
    struct link *probe;

    *out = NULL;
    /* An endpoint that can never be connected to is the caller's mistake, not the broker's absence. */
    if (!link_connect(&probe, context, config->broker, err))
        return err_wrap(err, "broker");
    link_free(probe);
    seat = must(calloc(1, sizeof *seat));
    assert(config->stop_fd_count <= SEAT_STOP_FDS_MAX);
    seat->config = *config;
    seat->context = context;
    seat->backoff_ms = BACKOFF_MIN_MS;
    seat->progress.waiting_shard = -1;
    seat->held = must(calloc(SEAT_HELD_MAX, sizeof *seat->held));
    if (getrandom(&seat->random, sizeof seat->random, 0) != sizeof seat->random || !seat->random)
        seat->random = config->incarnation | 1;
    seat->events = queue_new(EVENTS_MAX);
    seat->orders = queue_new(ORDERS_MAX);
    if (!seat->events || !seat->orders || pthread_create(&seat->thread, NULL, seat_thread, seat) != 0) {
        queue_free(seat->events);
        queue_free(seat->orders);
        free(seat->held);
        free(seat);
        return err_set(err, ERR_IO, "start the link thread: no memory or descriptors");
    }
    *out = seat;
    return true;
}

struct seat_event *seat_take(struct seat *seat)
{
    return queue_take(seat->events);
}

int seat_fd(const struct seat *seat)
{
    return queue_fd(seat->events);
}

static void give_order(struct seat *seat, struct order order)
{
    struct order *own = must(malloc(sizeof *own));

    *own = order;
    while (!queue_put(seat->orders, own)) /* the link thread always drains */
        usleep(1000);
}

void seat_result(struct seat *seat, struct seat_result *result)
{
    give_order(seat, (struct order){ .kind = ORDER_RESULT, .result = result });
}

void seat_release(struct seat *seat, uint64_t fence)
{
    give_order(seat, (struct order){ .kind = ORDER_RELEASE, .number = fence });
}

void seat_seated(struct seat *seat, uint64_t epoch)
{
    give_order(seat, (struct order){ .kind = ORDER_SEATED, .number = epoch });
}

void seat_progress(struct seat *seat, const struct seat_progress *progress)
{
    give_order(seat, (struct order){ .kind = ORDER_PROGRESS, .progress = *progress });
}

void seat_leave(struct seat *seat, const char *reason)
{
    struct order leave = { .kind = ORDER_LEAVE };
    struct seat_event *event;
    struct order *order;

    if (!seat)
        return;
    snprintf(leave.text, sizeof leave.text, "%s", reason);
    give_order(seat, leave);
    pthread_join(seat->thread, NULL);
    while ((event = queue_take(seat->events)))
        seat_event_free(event);
    while ((order = queue_take(seat->orders))) {
        result_free(order->result);
        free(order);
    }
    queue_free(seat->events);
    queue_free(seat->orders);
    for (int i = 0; i < seat->held_count; i++)
        result_free(seat->held[i].result);
    seat_event_free(seat->map_waiting);
    free(seat->held);
    free(seat);
}
