#include "broker/hall.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <uthash.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/queue.h"
#include "broker/check.h"
#include "broker/store_sqlite.h"
#include "proto/frame.h"
#include "proto/link.h"

enum {
    INBOX_MAX = 16384,
    INBOX_BUSY = 12288,                  /* above this, questions are turned away and only work is taken in */
    INBOX_BYTES_MAX = 256 * 1024 * 1024, /* of payloads on their way to the core */
    OUTBOX_MAX = 4096,
    SPARE_MAX = 1024,  /* messages kept for reuse */
    RECEIVE_MAX = 512, /* messages taken in before answers are looked at again */
    TURN_EVENTS_MAX = 2048,
    TURN_PAYLOAD_MAX = 8 * 1024 * 1024,
    TURN_WEIGHT_MAX =
        2048, /* jobs of one transaction: each takes some kilobytes of memory until it is kept */
    RESULT_WEIGHT = 3,
    TICK_MS = 50,
    PAUSE_MS = 500, /* ten ticks missed: this process did not run */
    SILENCE_BEATS = 5,
    ASKED_MAX = 320, /* unanswered questions of one session: its window and some more */
    BUSY_RETRY_MS = 100,
    DROPPED_MAX = 1024, /* fences in one message */
    SESSIONS_RETRY_MS = 5000,
    SHUTDOWN_RETRY_MS = 1000,
    STORE_PAUSE_US = 1000,
    FAREWELL_US = 100000,
};

/* A message on its way to the core.  The core gives it back through `spare` after the commit. */
struct inbound {
    struct event event;
    struct link_message message;
    size_t bytes;
    bool stop; /* the last one */
    char reason[128];
};

/* Fences that a worker has, ascending: what a heartbeat is compared with. */
struct fences {
    uint64_t *fence;
    size_t count, max;
};

struct session {
    uint64_t id;
    struct link_peer peer; /* the key; bytes beyond its size are zero */
    Moothall__Role role;
    bool open;   /* Welcome was sent */
    bool warned; /* a bad message of it was logged */
    bool probed;
    int asked; /* questions that are not answered yet */
    int64_t heard_ms;
    char name[WORKER_NAME_MAX + 1];
    struct fences held;
    UT_hash_handle by_peer, by_id;
};

struct hall {
    struct broker_config config;
    struct link_context *context;
    struct link *link;
    struct store *store;
    struct core *core;
    struct queue *inbox, *outbox, *spare;
    struct core_time core_now; /* of the last event; the core's thread's */

    /* The rest belongs to the link thread. */
    struct session *by_peer, *by_id;
    uint64_t session_last;
    size_t bytes_in;      /* payloads that the core has not given back */
    struct core_time now; /* without the times in which this process stood still, see look_at_clock */
    int64_t clock_ms;     /* what the clock said then */
    int64_t paused_ms;    /* all of those times */
    int64_t tick_ms;      /* the next */
    struct inbound *free_list[SPARE_MAX];
    int free_count;
};

static void *must(void *memory)
{
    if (!memory) {
        log_error("broker.memory", "reason=\"out of memory\"");
        abort();
    }
    return memory;
}

static struct core_time time_now(void)
{
    return (struct core_time){ .mono_ms = clock_now_ms(), .wall_ms = clock_wall_ms() };
}

/* Leases and sessions are timed by a clock that leaves out our own pauses: while this process stood still
 * (stopped, or its machine was), nobody could renew a lease with it, and on waking all would seem overdue
 * before the first of the messages that wait in the socket is read. */
static void look_at_clock(struct hall *hall)
{
    struct core_time now = time_now();
    int64_t gap_ms = now.mono_ms - hall->clock_ms;

    hall->clock_ms = now.mono_ms;
    if (gap_ms > PAUSE_MS) {
        hall->paused_ms += gap_ms;
        log_warn("broker.paused", "ms=%lld", (long long)gap_ms);
    }
    now.mono_ms -= hall->paused_ms;
    hall->now = now;
}

/* ---- the core's thread ------------------------------------------------------------------------- */

static uint64_t random_next(struct random *random)
{
    uint64_t value = 0;

    (void)random;
    if (getrandom(&value, sizeof value, 0) != sizeof value)
        log_warn("broker.random", "reason=\"%s\"", strerror(errno));
    return value;
}

static struct random system_random = { .next = random_next };

/* The link thread always drains its queue, so waiting for room cannot last. */
static void put_always(struct queue *queue, void *item)
{
    while (!queue_put(queue, item))
        usleep(STORE_PAUSE_US);
}

/* What an event adds to the transaction. */
static size_t weight_of(const struct event *event)
{
    if (!event->envelope)
        return 1;
    switch (event->envelope->body_case) {
    case MOOTHALL__ENVELOPE__BODY_SUBMIT:
        return event->envelope->submit->n_job;
    case MOOTHALL__ENVELOPE__BODY_RESULT:
        return RESULT_WEIGHT;
    default:
        return 1;
    }
}

/* One turn.  True when the thread should end. */
static bool turn(struct hall *hall, bool *again)
{
    struct inbound *taken[TURN_EVENTS_MAX];
    struct effects *effects = must(malloc(sizeof *effects));
    struct core_time now = hall->core_now;
    enum store_outcome outcome;
    struct err err = { 0 };
    bool stop = false;
    size_t bytes = 0, weight = 0;
    int n = 0;

    effects_init(effects);
    hall->store->begin(hall->store);
    while (n < TURN_EVENTS_MAX && bytes < TURN_PAYLOAD_MAX && weight < TURN_WEIGHT_MAX && !stop &&
           (taken[n] = queue_take(hall->inbox))) {
        struct inbound *in = taken[n++];

        bytes += in->bytes;
        weight += in->stop ? 0 : weight_of(&in->event);
        stop = in->stop;
        now = in->event.at;
        if (!stop)
            core_step(hall->core, &in->event, effects);
    }
    hall->core_now = now;
    *again = core_turn(hall->core, now, effects);
    outcome = hall->store->commit(hall->store, &err);
    if (outcome != STORE_KEPT) {
        /* Nothing of this turn may be seen by anybody. */
        effects_fini(effects);
        effects_init(effects);
        text_copy(effects->broken, sizeof effects->broken, err.text);
        stop = true;
    }
    effects->stopped = stop;
    if (effects->first || effects->stopped) {
        put_always(hall->outbox, effects);
    } else {
        effects_fini(effects);
        free(effects);
    }
    for (int i = 0; i < n; i++)
        put_always(hall->spare, taken[i]);
    if (!stop)
        hall->store->tend(hall->store, queue_count(hall->inbox) == 0);
    return stop;
}

static void *core_thread(void *context)
{
    struct hall *hall = context;
    bool again = false;

    do {
        struct pollfd inbox = { .fd = queue_fd(hall->inbox), .events = POLLIN };

        if (!again)
            poll(&inbox, 1, -1);
    } while (!turn(hall, &again));
    return NULL;
}

/* ---- messages to the core ------------------------------------------------------------------------ */

static struct inbound *inbound_new(struct hall *hall)
{
    struct inbound *in;

    if (hall->free_count)
        return hall->free_list[--hall->free_count];
    in = must(calloc(1, sizeof *in));
    link_message_init(&in->message);
    return in;
}

static void inbound_free(struct inbound *in)
{
    link_message_fini(&in->message);
    free(in);
}

/* Payloads are let go at once: only small messages are worth keeping. */
static void recycle(struct hall *hall, struct inbound *in)
{
    if (hall->free_count == SPARE_MAX || in->message.arena.used > 64 * 1024 || in->bytes > 64 * 1024) {
        inbound_free(in);
        return;
    }
    hall->free_list[hall->free_count++] = in;
}

static void take_back(struct hall *hall)
{
    struct inbound *in;

    while ((in = queue_take(hall->spare))) {
        hall->bytes_in -= in->bytes;
        recycle(hall, in);
    }
}

/* False when the queue is full; `in` is then given back to be freed. */
static bool to_core(struct hall *hall, struct inbound *in, enum event_kind kind, uint64_t session)
{
    in->event = (struct event){ .kind = kind, .session = session, .at = hall->now };
    in->bytes = 0;
    in->stop = false;
    if (kind == EVENT_MESSAGE || in->message.envelope) {
        in->event.envelope = in->message.envelope;
        in->event.payload = in->message.payload;
        in->bytes = in->message.payload.size + in->message.arena.used; /* a submit's names take as much as its bodies */
    }
    in->event.reason = in->reason;
    hall->bytes_in += in->bytes;
    if (queue_put(hall->inbox, in))
        return true;
    hall->bytes_in -= in->bytes;
    recycle(hall, in);
    return false;
}

/* What must not be lost: the end of a session.  The core always drains its queue. */
static void tell_core(struct hall *hall, enum event_kind kind, uint64_t session, const char *reason)
{
    for (;;) {
        struct inbound *in = inbound_new(hall);

        in->message.envelope = NULL;
        in->message.payload = (struct span){ 0 };
        text_copy(in->reason, sizeof in->reason, reason);
        if (to_core(hall, in, kind, session))
            return;
        take_back(hall);
        usleep(STORE_PAUSE_US);
    }
}

/* ---- fences ------------------------------------------------------------------------------------------ */

static size_t fence_place(const struct fences *held, uint64_t fence)
{
    size_t low = 0, high = held->count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (held->fence[middle] < fence)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool fence_held(const struct fences *held, uint64_t fence)
{
    size_t place = fence_place(held, fence);

    return place < held->count && held->fence[place] == fence;
}

static void fence_add(struct fences *held, uint64_t fence)
{
    size_t place = fence_place(held, fence);

    if (place < held->count && held->fence[place] == fence)
        return;
    if (held->count == held->max) {
        held->max = held->max ? held->max * 2 : 64; /* credit bounds it */
        held->fence = must(realloc(held->fence, held->max * sizeof *held->fence));
    }
    memmove(held->fence + place + 1, held->fence + place, (held->count - place) * sizeof *held->fence);
    held->fence[place] = fence;
    held->count++;
}

static void fence_remove(struct fences *held, uint64_t fence)
{
    size_t place = fence_place(held, fence);

    if (place == held->count || held->fence[place] != fence)
        return;
    held->count--;
    memmove(held->fence + place, held->fence + place + 1, (held->count - place) * sizeof *held->fence);
}

/* ---- sessions ------------------------------------------------------------------------------------------ */

static struct session *find_peer(struct hall *hall, const struct link_peer *peer)
{
    struct session *session;
    struct link_peer key = { .size = peer->size };

    memcpy(key.id, peer->id, peer->size);
    HASH_FIND(by_peer, hall->by_peer, &key, sizeof key, session);
    return session;
}

static struct session *find_id(struct hall *hall, uint64_t id)
{
    struct session *session;

    HASH_FIND(by_id, hall->by_id, &id, sizeof id, session);
    return session;
}

static struct session *session_new(struct hall *hall, const struct link_peer *peer,
                                   const Moothall__Hello *hello)
{
    struct session *session = must(calloc(1, sizeof *session));

    session->id = ++hall->session_last;
    session->peer.size = peer->size;
    memcpy(session->peer.id, peer->id, peer->size);
    session->role = hello->role;
    session->heard_ms = hall->now.mono_ms;
    text_copy(session->name, sizeof session->name, hello->name);
    HASH_ADD(by_peer, hall->by_peer, peer, sizeof session->peer, session);
    HASH_ADD(by_id, hall->by_id, id, sizeof session->id, session);
    return session;
}

static void session_free(struct hall *hall, struct session *session)
{
    HASH_DELETE(by_peer, hall->by_peer, session);
    HASH_DELETE(by_id, hall->by_id, session);
    free(session->held.fence);
    free(session);
}

static void session_ended(struct hall *hall, struct session *session, const char *reason)
{
    uint64_t id = session->id;

    log_debug("session.ended", "session=%" PRIu64 " name=\"%s\" reason=\"%s\"", id, session->name, reason);
    session_free(hall, session);
    tell_core(hall, EVENT_ENDED, id, reason);
}

/* ---- answers of the link thread itself ---------------------------------------------------------------- */

static bool send_to(struct hall *hall, const struct link_peer *peer, Moothall__Envelope__BodyCase kind,
                    void *body, uint64_t correlation)
{
    Moothall__Envelope envelope;

    link_envelope(&envelope, kind, body, correlation);
    return link_send(hall->link, peer, &envelope, (struct span){ 0 }) == LINK_SENT;
}

static bool send_pong(struct hall *hall, const struct link_peer *peer, uint64_t correlation)
{
    Moothall__Pong pong = MOOTHALL__PONG__INIT;

    return send_to(hall, peer, MOOTHALL__ENVELOPE__BODY_PONG, &pong, correlation);
}

static void send_refusal(struct hall *hall, const struct link_peer *peer, uint64_t correlation,
                         Moothall__RefusalCode code, uint32_t retry_after_ms, const char *text)
{
    Moothall__Refusal refusal = MOOTHALL__REFUSAL__INIT;
    char copy[ERR_TEXT_MAX];

    text_copy(copy, sizeof copy, text);
    refusal.code = code;
    refusal.text = copy;
    refusal.retry_after_ms = retry_after_ms;
    send_to(hall, peer, MOOTHALL__ENVELOPE__BODY_REFUSAL, &refusal, correlation);
}

static bool answer_heartbeat(struct hall *hall, struct session *session, const Moothall__Envelope *e)
{
    Moothall__HeartbeatReply reply = MOOTHALL__HEARTBEAT_REPLY__INIT;
    const Moothall__Heartbeat *beat = e->heartbeat;
    uint64_t *dropped = must(malloc((beat->n_held + 1) * sizeof *dropped));
    bool sent;

    reply.dropped = dropped;
    for (size_t i = 0; i < beat->n_held; i++)
        if (!fence_held(&session->held, beat->held[i]))
            dropped[reply.n_dropped++] = beat->held[i];
    sent = send_to(hall, &session->peer, MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY, &reply, e->correlation);
    free(dropped);
    return sent;
}

/* ---- what arrives ---------------------------------------------------------------------------------------
 */

/* A worker that comes back under its name right after its process died: its old connection is tried, so that
 * the core does not take it for one that lives. */
static void probe_namesakes(struct hall *hall, const Moothall__Hello *hello)
{
    struct session *session, *next;

    HASH_ITER(by_id, hall->by_id, session, next)
    if (session->role == MOOTHALL__ROLE__WORKER && !strcmp(session->name, hello->name) &&
        !send_pong(hall, &session->peer, 0))
        session_ended(hall, session, "its connection is gone");
}

static void on_hello(struct hall *hall, struct inbound *in)
{
    const Moothall__Hello *hello = in->message.envelope->hello;
    const struct link_peer *peer = &in->message.peer;
    struct session *session = find_peer(hall, peer);
    char text[160];

    if (session)
        session_ended(hall, session, "it said Hello again");
    if (hello->minor_min > FRAME_MINOR || hello->minor_max < hello->minor_min) {
        snprintf(text, sizeof text,
                 "protocol %d.%" PRIu32 " to %d.%" PRIu32 " is spoken there, %d.0 to %d.%d here", FRAME_MAJOR,
                 hello->minor_min, FRAME_MAJOR, hello->minor_max, FRAME_MAJOR, FRAME_MAJOR, FRAME_MINOR);
        send_refusal(hall, peer, in->message.envelope->correlation, MOOTHALL__REFUSAL_CODE__BAD_VERSION, 0,
                     text);
        recycle(hall, in);
        return;
    }
    if (HASH_CNT(by_id, hall->by_id) >= (unsigned)hall->config.sessions_max) {
        snprintf(text, sizeof text, "%" PRId64 " sessions are open, as many as the broker has (sessions_max)",
                 hall->config.sessions_max);
        send_refusal(hall, peer, in->message.envelope->correlation, MOOTHALL__REFUSAL_CODE__NO_ROOM,
                     SESSIONS_RETRY_MS, text);
        recycle(hall, in);
        return;
    }
    if (hello->role == MOOTHALL__ROLE__WORKER)
        probe_namesakes(hall, hello);
    session = session_new(hall, peer, hello);
    if (!to_core(hall, in, EVENT_MESSAGE, session->id))
        session_free(hall, session); /* full: it will ask again */
}

static bool is_question(Moothall__Envelope__BodyCase kind)
{
    switch (kind) {
    case MOOTHALL__ENVELOPE__BODY_SUBMIT:
    case MOOTHALL__ENVELOPE__BODY_FETCH:
    case MOOTHALL__ENVELOPE__BODY_CURSOR_ASK:
    case MOOTHALL__ENVELOPE__BODY_CURSOR_SET:
    case MOOTHALL__ENVELOPE__BODY_STATUS_ASK:
    case MOOTHALL__ENVELOPE__BODY_AUDIT_ASK:
    case MOOTHALL__ENVELOPE__BODY_CANCEL:
    case MOOTHALL__ENVELOPE__BODY_RETRY:
    case MOOTHALL__ENVELOPE__BODY_PURGE:
    case MOOTHALL__ENVELOPE__BODY_QUEUE_SET:
    case MOOTHALL__ENVELOPE__BODY_DEATH:
        return true;
    default:
        return false;
    }
}

/* Too much is on its way already.  Questions are asked again later; what workers bring is never turned away.
 */
static const char *too_much(struct hall *hall, const struct session *session, const struct inbound *in)
{
    if (session->asked >= ASKED_MAX)
        return "too many questions of this session are unanswered";
    if (queue_count(hall->inbox) > INBOX_BUSY || hall->bytes_in + in->message.payload.size > INBOX_BYTES_MAX)
        return "the broker has as much to do as it can hold";
    return NULL;
}

static void on_message(struct hall *hall, struct inbound *in)
{
    const Moothall__Envelope *e = in->message.envelope;
    struct session *session = find_peer(hall, &in->message.peer);
    Moothall__Envelope__BodyCase kind = e->body_case;
    const char *why;
    struct err err;

    if (session) {
        session->heard_ms = hall->now.mono_ms;
        session->probed = false;
    }
    if (!check_message(e, in->message.payload, &err)) {
        if (!session || !session->warned)
            log_warn("message.bad", "name=\"%s\" fault=\"%s\"", session ? session->name : "", err.text);
        if (session)
            session->warned = true;
        send_refusal(hall, &in->message.peer, e->correlation, MOOTHALL__REFUSAL_CODE__BAD_MESSAGE, 0,
                     err.text);
        recycle(hall, in);
        return;
    }
    if (kind == MOOTHALL__ENVELOPE__BODY_HELLO) {
        on_hello(hall, in);
        return;
    }
    if (!session) {
        if (kind != MOOTHALL__ENVELOPE__BODY_GOODBYE)
            send_refusal(hall, &in->message.peer, e->correlation, MOOTHALL__REFUSAL_CODE__NEED_HELLO, 0,
                         "this broker has no session with you: say Hello");
        recycle(hall, in);
        return;
    }
    if (!check_role(session->role, kind)) {
        send_refusal(hall, &in->message.peer, e->correlation, MOOTHALL__REFUSAL_CODE__WRONG_ROLE, 0,
                     "this kind of message is not for a session of this role");
        recycle(hall, in);
        return;
    }
    if (kind == MOOTHALL__ENVELOPE__BODY_PING) {
        if (!send_pong(hall, &session->peer, e->correlation))
            session_ended(hall, session, "unreachable");
        recycle(hall, in);
        return;
    }
    if (kind == MOOTHALL__ENVELOPE__BODY_GOODBYE) {
        uint64_t id = session->id;

        snprintf(in->reason, sizeof in->reason, "it said goodbye");
        session_free(hall, session);
        if (!to_core(hall, in, EVENT_ENDED, id))
            tell_core(hall, EVENT_ENDED, id, "it said goodbye");
        return;
    }
    if (!session->open) { /* it did not wait for its Welcome, which may still be a refusal */
        if (is_question(kind))
            send_refusal(hall, &session->peer, e->correlation, MOOTHALL__REFUSAL_CODE__NO_ROOM, BUSY_RETRY_MS,
                         "the session is not open yet; ask again after its Welcome");
        recycle(hall, in);
        return;
    }
    if (kind == MOOTHALL__ENVELOPE__BODY_HEARTBEAT && !answer_heartbeat(hall, session, e)) {
        session_ended(hall, session, "unreachable");
        recycle(hall, in);
        return;
    }
    if (is_question(kind)) {
        why = too_much(hall, session, in);
        if (why) {
            send_refusal(hall, &session->peer, e->correlation, MOOTHALL__REFUSAL_CODE__NO_ROOM, BUSY_RETRY_MS,
                         why);
            recycle(hall, in);
            return;
        }
        session->asked++;
    }
    to_core(hall, in, EVENT_MESSAGE, session->id);
}

/* True when everything that had arrived was taken in. */
static bool receive(struct hall *hall)
{
    for (int i = 0; i < RECEIVE_MAX; i++) {
        struct inbound *in;

        if (queue_count(hall->inbox) >= INBOX_MAX - 64 || hall->bytes_in >= 2 * (size_t)INBOX_BYTES_MAX)
            return false; /* the core is behind; the socket's own queue holds the rest */
        in = inbound_new(hall);
        if (!link_receive(hall->link, &in->message)) {
            recycle(hall, in);
            return true;
        }
        on_message(hall, in);
    }
    return false;
}

/* ---- what the core decided
 * --------------------------------------------------------------------------------- */

static void send_effect(struct hall *hall, const struct effect *effect)
{
    struct session *session = find_id(hall, effect->session);
    Moothall__Envelope envelope = effect->envelope;

    if (!session)
        return; /* it ended meanwhile */
    switch (envelope.body_case) {
    case MOOTHALL__ENVELOPE__BODY_WELCOME:
        session->open = true;
        for (size_t i = 0; i < effect->fence_count; i++)
            fence_add(&session->held, effect->fences[i]);
        break;
    case MOOTHALL__ENVELOPE__BODY_LEASE:
        fence_add(&session->held, envelope.lease->fence);
        break;
    case MOOTHALL__ENVELOPE__BODY_STORED:
        fence_remove(&session->held, envelope.stored->fence);
        break;
    case MOOTHALL__ENVELOPE__BODY_MAP:
        break;
    default:
        session->asked -= session->asked > 0;
        break;
    }
    if (link_send(hall->link, &session->peer, &envelope, effect->payload) == LINK_LOST)
        session_ended(hall, session, "unreachable");
}

/* Leases that are over before their worker knows: it is told at once, not only when it asks by its next
 * heartbeat.  Returns the last effect that went into the message. */
static const struct effect *send_dropped(struct hall *hall, const struct effect *effect)
{
    Moothall__HeartbeatReply reply = MOOTHALL__HEARTBEAT_REPLY__INIT;
    struct session *session = find_id(hall, effect->session);
    uint64_t dropped[DROPPED_MAX];

    reply.dropped = dropped;
    for (;;) {
        dropped[reply.n_dropped++] = effect->fence;
        if (session)
            fence_remove(&session->held, effect->fence);
        if (reply.n_dropped == DROPPED_MAX || !effect->next || effect->next->kind != EFFECT_DROP ||
            effect->next->session != effect->session)
            break;
        effect = effect->next;
    }
    if (session && session->open &&
        !send_to(hall, &session->peer, MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY, &reply, 0))
        session_ended(hall, session, "unreachable");
    return effect;
}

static void apply(struct hall *hall, const struct effects *effects)
{
    for (const struct effect *effect = effects->first; effect; effect = effect->next) {
        struct session *session;

        switch (effect->kind) {
        case EFFECT_SEND:
            send_effect(hall, effect);
            break;
        case EFFECT_DROP:
            effect = send_dropped(hall, effect);
            break;
        case EFFECT_END:
            session = find_id(hall, effect->session);
            if (session)
                session_free(hall, session);
            break;
        }
    }
}

/* False when the core has ended; then err says why, or nothing when it was asked to. */
static bool send_answers(struct hall *hall, struct err *err)
{
    struct effects *effects;
    bool going_on = true;

    while (going_on && (effects = queue_take(hall->outbox))) {
        apply(hall, effects);
        going_on = !effects->stopped;
        if (*effects->broken)
            err_set(err, ERR_IO, "%s", effects->broken);
        effects_fini(effects);
        free(effects);
    }
    return going_on;
}

/* ---- time
 * --------------------------------------------------------------------------------------------------- */

static void tick(struct hall *hall)
{
    struct session *session, *next;
    int64_t beat = hall->config.heartbeat_ms;
    struct inbound *in;

    HASH_ITER(by_id, hall->by_id, session, next)
    {
        int64_t silent = hall->now.mono_ms - session->heard_ms;

        if (silent > SILENCE_BEATS * beat) {
            session_ended(hall, session, "silent");
        } else if (silent > 2 * beat && !session->probed) {
            session->probed = true; /* a dead process is found by its dead connection */
            if (!send_pong(hall, &session->peer, 0))
                session_ended(hall, session, "its connection is gone");
        }
    }
    if (queue_count(hall->inbox) < INBOX_BUSY) {
        in = inbound_new(hall);
        in->message.envelope = NULL;
        in->message.payload = (struct span){ 0 };
        to_core(hall, in, EVENT_TICK, 0);
    }
    hall->tick_ms = hall->now.mono_ms + TICK_MS;
}

/* ---- the whole ----------------------------------------------------------------------------------- */

bool hall_open(struct hall **out, const struct broker_config *config, struct err *err)
{
    struct store_options options = { .ballast_bytes = config->ballast_bytes,
                                     .hall = random_next(&system_random) | 1 };
    struct core_config core = broker_config_core(config);
    struct hall *hall = must(calloc(1, sizeof *hall));

    *out = NULL;
    hall->config = *config;
    hall->inbox = must(queue_new(INBOX_MAX));
    hall->outbox = must(queue_new(OUTBOX_MAX));
    hall->spare = must(queue_new(INBOX_MAX + TURN_EVENTS_MAX));
    hall->context = link_context_new();
    if (!store_sqlite_open(&hall->store, config->store, &options, err))
        goto fail;
    hall->store->begin(hall->store);
    hall->core_now = time_now();
    hall->core = core_new(&core, hall->store, &system_random, hall->core_now, err);
    if (!hall->core)
        goto fail;
    if (!link_bind(&hall->link, hall->context, config->listen, err))
        goto fail;
    if (hall->store->commit(hall->store, err) != STORE_KEPT)
        goto fail;
    *out = hall;
    return true;
fail:
    hall_free(hall);
    return false;
}

void hall_free(struct hall *hall)
{
    struct session *session, *next;
    struct inbound *in;

    if (!hall)
        return;
    while ((in = queue_take(hall->inbox)))
        inbound_free(in);
    while ((in = queue_take(hall->spare)))
        inbound_free(in);
    while (hall->free_count)
        inbound_free(hall->free_list[--hall->free_count]);
    HASH_ITER(by_id, hall->by_id, session, next)
    session_free(hall, session);
    link_free(hall->link);
    link_context_free(hall->context);
    core_free(hall->core);
    if (hall->store)
        hall->store->free(hall->store);
    queue_free(hall->inbox);
    queue_free(hall->outbox);
    queue_free(hall->spare);
    free(hall);
}

const char *hall_endpoint(const struct hall *hall)
{
    return link_endpoint(hall->link);
}

/* The other end of the pipe is closed. */
static bool is_over(int fd)
{
    char byte;
    ssize_t n = read(fd, &byte, 1);

    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static void say_farewell(struct hall *hall)
{
    struct session *session, *next;

    HASH_ITER(by_id, hall->by_id, session, next)
    send_refusal(hall, &session->peer, 0, MOOTHALL__REFUSAL_CODE__SHUTTING_DOWN, SHUTDOWN_RETRY_MS,
                 "the broker is shutting down");
    /* On a busy machine a connection that is closed at once can take with it what was sent last. */
    if (hall->by_id)
        usleep(FAREWELL_US);
}

bool hall_run(struct hall *hall, int stop_fd, int control_fd, struct err *err)
{
    int fds[4] = { queue_fd(hall->outbox), queue_fd(hall->spare), stop_fd, control_fd };
    struct link *links[1] = { hall->link };
    bool ready[5], stopping = false, drained = true;
    pthread_t thread;
    int rc;

    err->code = ERR_NONE;
    rc = pthread_create(&thread, NULL, core_thread, hall);
    if (rc != 0)
        return err_set(err, ERR_IO, "start the core's thread: %s", strerror(rc));
    hall->clock_ms = clock_now_ms(); /* what opening the store took is no pause */
    look_at_clock(hall);
    for (;;) {
        int64_t wait = hall->tick_ms - (clock_now_ms() - hall->paused_ms);

        if (stopping)
            link_wait(NULL, 0, fds, 1, TICK_MS, ready);
        else
            link_wait(links, drained ? 1 : 0, fds, control_fd >= 0 ? 4 : 3,
                      drained                                  ? wait < 0 ? 0 : (int)wait
                      : queue_count(hall->inbox) >= INBOX_BUSY ? 1
                                                               : 0,
                      ready);
        look_at_clock(hall);
        take_back(hall);
        if (!send_answers(hall, err))
            break;
        if (stopping)
            continue;
        drained = receive(hall);
        if (drained && hall->now.mono_ms >= hall->tick_ms)
            tick(hall);
        {
            struct pollfd stop[2] = { { .fd = stop_fd, .events = POLLIN },
                                      { .fd = control_fd, .events = POLLIN } };

            if (poll(stop, control_fd >= 0 ? 2 : 1, 0) > 0 &&
                (stop[0].revents || (stop[1].revents && is_over(control_fd)))) {
                struct inbound *in = inbound_new(hall);

                log_info("broker.stopping", "reason=\"%s\"",
                         stop[0].revents ? "asked to" : "its starter is gone");
                in->message.envelope = NULL;
                in->message.payload = (struct span){ 0 };
                in->event = (struct event){ .kind = EVENT_TICK, .at = hall->now };
                in->bytes = 0;
                in->stop = true;
                put_always(hall->inbox, in);
                stopping = true;
            }
        }
    }
    pthread_join(thread, NULL);
    if (err->code == ERR_NONE)
        say_farewell(hall);
    return err->code == ERR_NONE;
}
