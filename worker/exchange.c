#include "worker/exchange.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"

enum {
    PROBE_MS = 20, /* doubling to */
    PROBE_MAX_MS = 500,
    REFUSED_MS = 5000,
    SILENCE_MS = 2000, /* with calls unanswered: they are sent again */
    SILENCE_MAX_MS = 16000,
    SMALL_ROWS = 64,        /* work of at most so many rows goes before larger work, */
    SMALL_IN_A_ROW_MAX = 8, /* but not for ever */
    FAULTS_LOGGED_MAX = 8,
};

enum peer_state { PEER_UNUSED, PEER_PROBING, PEER_OPEN };

struct peer {
    enum peer_state state;
    char name[SEAT_NAME_MAX];
    uint64_t incarnation;
    char endpoint[LINK_ENDPOINT_MAX];
    struct link *link;
    uint64_t epoch;  /* what it said in its welcome */
    uint64_t window; /* bytes it lets us have unanswered */
    uint64_t unanswered_bytes;
    int64_t heard_ms, sent_ms, probe_ms, probe_wait_ms, silence_ms;
    bool named; /* by the newest map: used while maps are compared */
};

struct caller {
    bool used;
    struct link_peer peer;
    uint64_t serial; /* tells a caller from the one that had its place before */
    char name[SEAT_NAME_MAX];
    uint64_t incarnation;
    uint64_t unanswered_bytes;
    int64_t heard_ms;
    const char *logged[FAULTS_LOGGED_MAX];
};

struct work_list {
    struct exchange_work *first, *last;
};

struct exchange {
    struct exchange_config config;
    struct link_context *context;
    struct link *router;
    struct link_message message;
    int64_t now_ms;

    uint64_t epoch;
    int holder[DISPATCH_SHARDS_MAX];
    struct peer peer[SEAT_WORKERS_MAX];
    int peer_count; /* places in use or used before */

    struct exchange_call *first, *last; /* calls, oldest first */
    int waiting_count;
    uint64_t call_id;
    size_t reserved_bytes;

    struct caller caller[EXCHANGE_CALLERS_MAX];
    int caller_count; /* places in use or used before */
    uint64_t caller_serial;
    struct work_list small, large;
    int small_in_a_row;
    size_t work_bytes;
    struct exchange_counts counts;
};

static size_t sums_size(const struct exchange *ex, uint32_t slot_count)
{
    return (size_t)slot_count * ex->config.shape.hidden * ex->config.shape.carrier_bytes;
}

static void *must(void *memory)
{
    if (!memory) {
        log_error("exchange.memory", "reason=\"out of memory\"");
        abort();
    }
    return memory;
}

bool exchange_new(struct exchange **out, struct link_context *context, const struct exchange_config *config,
                  struct err *err)
{
    struct exchange *ex = must(calloc(1, sizeof *ex));

    *out = NULL;
    assert(config->shape.shard_count <= DISPATCH_SHARDS_MAX);
    ex->config = *config;
    ex->context = context;
    for (int i = 0; i < DISPATCH_SHARDS_MAX; i++)
        ex->holder[i] = EXCHANGE_NOWHERE;
    if (!link_bind(&ex->router, context, config->endpoint, err)) {
        free(ex);
        return err_wrap(err, "exchange");
    }
    link_message_init(&ex->message);
    *out = ex;
    return true;
}

void exchange_work_free(struct exchange_work *work)
{
    if (!work)
        return;
    free(work->memory);
    free(work);
}

static void peer_close(struct peer *peer)
{
    link_free(peer->link);
    memset(peer, 0, sizeof *peer);
}

void exchange_free(struct exchange *ex)
{
    if (!ex)
        return;
    assert(!ex->first);
    for (int i = 0; i < ex->peer_count; i++)
        peer_close(&ex->peer[i]);
    for (struct exchange_work *w = ex->small.first, *next; w; w = next) {
        next = w->next;
        exchange_work_free(w);
    }
    for (struct exchange_work *w = ex->large.first, *next; w; w = next) {
        next = w->next;
        exchange_work_free(w);
    }
    link_message_fini(&ex->message);
    link_free(ex->router);
    free(ex);
}

const char *exchange_endpoint(const struct exchange *ex)
{
    return link_endpoint(ex->router);
}

struct exchange_counts exchange_counts(const struct exchange *ex)
{
    return ex->counts;
}

/* ---- calls: ours, at others ------------------------------------------------------------------- */

static void set_state(struct exchange *ex, struct exchange_call *call, enum exchange_call_state state)
{
    ex->waiting_count += (state == CALL_WAITING) - (call->state == CALL_WAITING);
    call->state = state;
}

/* Gives back the credit and the room of a call that is no longer under way. */
static void settle(struct exchange *ex, struct exchange_call *call)
{
    if (call->state != CALL_SENT)
        return;
    ex->peer[call->peer].unanswered_bytes -= call->payload_size;
    ex->reserved_bytes -= call->payload_size + sums_size(ex, call->slot_count);
}

/* Where a call's shards are now: a peer, EXCHANGE_NOWHERE, or EXCHANGE_HERE when they are here or in
 * several places, so that the call must be built anew. */
static int place(const struct exchange *ex, const struct exchange_call *call)
{
    int where = ex->holder[call->shard[0]];

    for (uint32_t i = 1; i < call->shard_count; i++)
        if (ex->holder[call->shard[i]] != where)
            return EXCHANGE_HERE;
    return where;
}

static void unlink_call(struct exchange *ex, struct exchange_call *call)
{
    *(call->prev ? &call->prev->next : &ex->first) = call->next;
    *(call->next ? &call->next->prev : &ex->last) = call->prev;
}

void exchange_post(struct exchange *ex, struct exchange_call *call)
{
    assert(call->shard_count > 0 && call->payload_size > 0);
    call->id = ++ex->call_id;
    call->waits_since_ms = clock_now_ms();
    call->was_sent = false;
    call->sums = NULL;
    call->peer = place(ex, call);
    call->state = CALL_WAITING;
    ex->waiting_count++;
    if (call->peer == EXCHANGE_HERE) {
        set_state(ex, call, CALL_RETURNED);
        call->peer = EXCHANGE_NOWHERE;
    }
    call->prev = ex->last;
    call->next = NULL;
    *(ex->last ? &ex->last->next : &ex->first) = call;
    ex->last = call;
}

void exchange_call_free(struct exchange *ex, struct exchange_call *call)
{
    if (!call)
        return;
    settle(ex, call);
    set_state(ex, call, CALL_RETURNED);
    unlink_call(ex, call);
    free(call->payload);
    free(call->shard);
    free(call->part);
    free(call->sums);
    free(call);
}

/* LINK_LOST leaves the call as it was. */
static bool transmit(struct exchange *ex, struct exchange_call *call)
{
    struct peer *peer = &ex->peer[call->peer];
    Moothall__Envelope envelope;
    Moothall__Dispatch dispatch = MOOTHALL__DISPATCH__INIT;

    dispatch.call = call->id;
    dispatch.epoch = ex->epoch;
    dispatch.layer = call->layer;
    dispatch.row_count = call->row_count;
    dispatch.pair_count = call->pair_count;
    dispatch.slot_count = call->slot_count;
    link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_DISPATCH, &dispatch, call->id);
    if (link_send(peer->link, NULL, &envelope, span_of(call->payload, call->payload_size)) != LINK_SENT)
        return false;
    peer->sent_ms = ex->now_ms;
    if (call->was_sent) {
        ex->counts.resent++;
        return true;
    }
    call->was_sent = true;
    ex->counts.dispatches++;
    ex->counts.decode_dispatches += call->decode;
    ex->counts.dispatch_bytes += call->payload_size;
    ex->counts.dispatch_rows += call->row_count;
    return true;
}

static void probe_now(struct exchange *ex, struct peer *peer)
{
    peer->probe_ms = ex->now_ms;
    peer->probe_wait_ms = PROBE_MS;
}

/* A peer with nothing unanswered may always be sent one frame, so a small window cannot stop us. */
static bool try_send(struct exchange *ex, struct exchange_call *call)
{
    struct peer *peer;
    size_t room = call->payload_size + sums_size(ex, call->slot_count);

    if (call->peer < 0)
        return false;
    peer = &ex->peer[call->peer];
    if (peer->state != PEER_OPEN)
        return false;
    if (peer->unanswered_bytes && peer->unanswered_bytes + call->payload_size > peer->window)
        return false;
    if (ex->reserved_bytes && ex->reserved_bytes + room > ex->config.bytes_max)
        return false;
    if (!call->sums)
        call->sums = must(malloc(sums_size(ex, call->slot_count)));
    if (!transmit(ex, call)) {
        peer->state = PEER_PROBING;
        probe_now(ex, peer);
        return false;
    }
    peer->unanswered_bytes += call->payload_size;
    ex->reserved_bytes += room;
    set_state(ex, call, CALL_SENT);
    return true;
}

/* Decode rows overtake prompts. */
static void send_waiting(struct exchange *ex)
{
    for (int decode = 1; decode >= 0 && ex->waiting_count; decode--)
        for (struct exchange_call *c = ex->first; c; c = c->next)
            if (c->state == CALL_WAITING && c->decode == (bool)decode)
                try_send(ex, c);
}

/* The peer's link was lost, or it was silent: what it has not answered is sent again. */
static void call_again(struct exchange *ex, int number)
{
    for (struct exchange_call *c = ex->first; c; c = c->next)
        if (c->peer == number && c->state == CALL_SENT) {
            settle(ex, c);
            set_state(ex, c, CALL_WAITING);
        }
}

int exchange_waiting_shard(const struct exchange *ex, int64_t now_ms, int64_t patience_ms)
{
    for (const struct exchange_call *c = ex->first; c; c = c->next)
        if (c->state != CALL_ANSWERED && c->waits_since_ms <= now_ms - patience_ms)
            return c->shard[0];
    return -1;
}

/* ---- the map ------------------------------------------------------------------------------------ */

static int find_peer(const struct exchange *ex, const struct seat_map_worker *worker)
{
    for (int i = 0; i < ex->peer_count; i++) {
        const struct peer *p = &ex->peer[i];

        if (p->state != PEER_UNUSED && p->incarnation == worker->incarnation &&
            !strcmp(p->name, worker->name) && !strcmp(p->endpoint, worker->endpoint))
            return i;
    }
    return -1;
}

static int new_peer(struct exchange *ex, const struct seat_map_worker *worker)
{
    struct peer *peer;
    struct err err;
    int i = 0;

    while (i < ex->peer_count && ex->peer[i].state != PEER_UNUSED)
        i++;
    if (i == SEAT_WORKERS_MAX)
        return EXCHANGE_NOWHERE;
    if (i == ex->peer_count)
        ex->peer_count++;
    peer = &ex->peer[i];
    memset(peer, 0, sizeof *peer);
    if (!link_connect(&peer->link, ex->context, worker->endpoint, &err)) {
        log_error("peer.endpoint", "name=%s reason=\"%s\"", worker->name, err.text);
        return EXCHANGE_NOWHERE;
    }
    peer->state = PEER_PROBING;
    snprintf(peer->name, sizeof peer->name, "%s", worker->name);
    snprintf(peer->endpoint, sizeof peer->endpoint, "%s", worker->endpoint);
    peer->incarnation = worker->incarnation;
    probe_now(ex, peer);
    return i;
}

void exchange_map(struct exchange *ex, const struct seat_map *map)
{
    int number[SEAT_WORKERS_MAX];

    ex->now_ms = clock_now_ms();
    ex->epoch = map->epoch;
    for (int i = 0; i < ex->peer_count; i++)
        ex->peer[i].named = false;
    for (int i = 0; i < map->worker_count; i++)
        number[i] = EXCHANGE_NOWHERE;
    /* Who stays, before anybody new takes a free place. */
    for (int s = 0; s < map->seat_count; s++) {
        uint32_t w = map->seat[s].worker;
        int known = find_peer(ex, &map->worker[w]);

        if (map->worker[w].incarnation == ex->config.incarnation &&
            !strcmp(map->worker[w].name, ex->config.name))
            number[w] = EXCHANGE_HERE;
        else if (known >= 0) {
            number[w] = known;
            ex->peer[known].named = true;
        }
    }
    /* Calls leave the peers that are gone, while those still have their place. */
    for (struct exchange_call *c = ex->first; c; c = c->next)
        if (c->state == CALL_SENT && !ex->peer[c->peer].named) {
            settle(ex, c);
            set_state(ex, c, CALL_WAITING);
        }
    for (int i = 0; i < ex->peer_count; i++)
        if (ex->peer[i].state != PEER_UNUSED && !ex->peer[i].named) {
            log_info("peer.gone", "name=%s", ex->peer[i].name);
            peer_close(&ex->peer[i]);
        }
    for (uint32_t s = 0; s < ex->config.shape.shard_count; s++)
        ex->holder[s] = EXCHANGE_NOWHERE;
    for (int s = 0; s < map->seat_count; s++) {
        uint32_t w = map->seat[s].worker;
        int *holder = &ex->holder[map->seat[s].shard];

        if (number[w] == EXCHANGE_NOWHERE)
            number[w] = new_peer(ex, &map->worker[w]);
        /* Of several holders one that is here is nearest, else the first named. */
        if (*holder == EXCHANGE_NOWHERE || number[w] == EXCHANGE_HERE)
            *holder = number[w];
    }
    for (int i = 0; i < ex->peer_count; i++)
        if (ex->peer[i].state != PEER_UNUSED)
            probe_now(ex, &ex->peer[i]); /* at the new epoch */
    for (struct exchange_call *c = ex->first; c; c = c->next) {
        int where;

        if (c->state == CALL_ANSWERED || c->state == CALL_RETURNED)
            continue;
        where = place(ex, c);
        if (where == c->peer)
            continue;
        settle(ex, c);
        c->peer = where == EXCHANGE_HERE ? EXCHANGE_NOWHERE : where;
        set_state(ex, c, where == EXCHANGE_HERE ? CALL_RETURNED : CALL_WAITING);
    }
}

bool exchange_is_ready(const struct exchange *ex)
{
    for (int i = 0; i < ex->peer_count; i++)
        if (ex->peer[i].state == PEER_PROBING ||
            (ex->peer[i].state == PEER_OPEN && ex->peer[i].epoch < ex->epoch))
            return false;
    return true;
}

int exchange_holder(const struct exchange *ex, uint32_t shard)
{
    return ex->holder[shard];
}

/* ---- what peers say to us as callers --------------------------------------------------------------- */

static void on_welcome(struct exchange *ex, int number, const Moothall__PeerWelcome *welcome)
{
    struct peer *peer = &ex->peer[number];

    if (welcome->incarnation != peer->incarnation || strcmp(welcome->name, peer->name) != 0)
        return; /* its successor at the same endpoint: the next map will name it */
    if (peer->state != PEER_OPEN) {
        peer->state = PEER_OPEN;
        peer->silence_ms = SILENCE_MS;
        log_info("peer.open", "name=%s epoch=%llu", peer->name, (unsigned long long)welcome->epoch);
        call_again(ex, number);
    }
    peer->epoch = welcome->epoch;
    peer->window = welcome->window_bytes;
}

static void on_sums(struct exchange *ex, int number, const Moothall__Sums *sums, struct span payload)
{
    for (struct exchange_call *c = ex->first; c; c = c->next) {
        if (c->id != sums->call || c->peer != number || c->state != CALL_SENT)
            continue;
        if (sums->slot_count != c->slot_count || payload.size != sums_size(ex, c->slot_count)) {
            if (ex->counts.malformed++ < 16)
                log_warn("peer.malformed", "name=%s fault=\"sums of another size than was asked for\"",
                         ex->peer[number].name);
            return;
        }
        settle(ex, c);
        memcpy(c->sums, payload.data, payload.size);
        set_state(ex, c, CALL_ANSWERED);
        ex->counts.sums_bytes += payload.size;
        ex->peer[number].silence_ms = SILENCE_MS;
        return;
    }
    ex->counts.strays++; /* an answer to what was sent twice */
}

static void on_not_here(struct exchange *ex, int number, const Moothall__NotHere *not_here)
{
    for (struct exchange_call *c = ex->first; c; c = c->next) {
        if (c->id != not_here->call || c->peer != number || c->state != CALL_SENT)
            continue;
        /* It and we have different maps; ours or its next one will agree.  The probe that comes first paces
         * the repetition: its answer opens the peer again. */
        log_info("peer.not_here", "name=%s shard=%u epoch=%llu ours=%llu", ex->peer[number].name,
                 not_here->shard, (unsigned long long)not_here->epoch, (unsigned long long)ex->epoch);
        settle(ex, c);
        set_state(ex, c, CALL_WAITING);
        ex->peer[number].state = PEER_PROBING;
        ex->peer[number].probe_ms = ex->now_ms + PROBE_MAX_MS;
        ex->peer[number].probe_wait_ms = PROBE_MAX_MS;
        return;
    }
}

static void on_peer_refusal(struct exchange *ex, int number, const Moothall__Refusal *refusal)
{
    struct peer *peer = &ex->peer[number];

    peer->state = PEER_PROBING;
    if (refusal->code == MOOTHALL__REFUSAL_CODE__NEED_HELLO) {
        if (peer->probe_ms > ex->now_ms + PROBE_MS)
            probe_now(ex, peer);
        return;
    }
    log_error("peer.refusal", "name=%s reason=\"%s\"", peer->name, refusal->text);
    peer->probe_ms = ex->now_ms + REFUSED_MS;
    peer->probe_wait_ms = REFUSED_MS;
}

static void receive_from_peer(struct exchange *ex, int number)
{
    struct peer *peer = &ex->peer[number];

    while (peer->link && link_receive(peer->link, &ex->message)) {
        const Moothall__Envelope *e = ex->message.envelope;

        peer->heard_ms = ex->now_ms;
        switch (e->body_case) {
        case MOOTHALL__ENVELOPE__BODY_PEER_WELCOME:
            on_welcome(ex, number, e->peer_welcome);
            break;
        case MOOTHALL__ENVELOPE__BODY_SUMS:
            on_sums(ex, number, e->sums, ex->message.payload);
            break;
        case MOOTHALL__ENVELOPE__BODY_NOT_HERE:
            on_not_here(ex, number, e->not_here);
            break;
        case MOOTHALL__ENVELOPE__BODY_REFUSAL:
            on_peer_refusal(ex, number, e->refusal);
            break;
        default:
            ex->counts.malformed++;
        }
    }
}

static void send_probe(struct exchange *ex, struct peer *peer)
{
    Moothall__Envelope envelope;
    Moothall__PeerHello hello = MOOTHALL__PEER_HELLO__INIT;
    bool sent;

    hello.name = ex->config.name;
    hello.incarnation = ex->config.incarnation;
    hello.fingerprint.data = ex->config.fingerprint;
    hello.fingerprint.len = sizeof ex->config.fingerprint;
    hello.family = ex->config.family;
    hello.epoch = ex->epoch;
    link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_PEER_HELLO, &hello, ex->epoch);
    sent = link_send(peer->link, NULL, &envelope, (struct span){ 0 }) == LINK_SENT;
    if (!sent) {
        peer->probe_ms = ex->now_ms + PROBE_MS; /* not connected yet: nothing went out */
        return;
    }
    peer->probe_ms = ex->now_ms + peer->probe_wait_ms;
    peer->probe_wait_ms = peer->probe_wait_ms * 2 < PROBE_MAX_MS ? peer->probe_wait_ms * 2 : PROBE_MAX_MS;
}

static void on_peer_time(struct exchange *ex, int number)
{
    struct peer *peer = &ex->peer[number];
    int64_t since;

    if (peer->state == PEER_UNUSED)
        return;
    if ((peer->state == PEER_PROBING || peer->epoch < ex->epoch) && ex->now_ms >= peer->probe_ms)
        send_probe(ex, peer);
    since = peer->heard_ms > peer->sent_ms ? peer->heard_ms : peer->sent_ms;
    if (peer->state == PEER_OPEN && peer->unanswered_bytes && ex->now_ms >= since + peer->silence_ms) {
        peer->silence_ms = peer->silence_ms * 2 < SILENCE_MAX_MS ? peer->silence_ms * 2 : SILENCE_MAX_MS;
        log_warn("peer.silent", "name=%s bytes=%llu", peer->name, (unsigned long long)peer->unanswered_bytes);
        call_again(ex, number);
    }
}

/* ---- what callers ask of us ------------------------------------------------------------------------ */

static struct caller *find_caller(struct exchange *ex, const struct link_peer *peer)
{
    for (int i = 0; i < ex->caller_count; i++) {
        struct caller *c = &ex->caller[i];

        if (c->used && c->peer.size == peer->size && !memcmp(c->peer.id, peer->id, peer->size))
            return c;
    }
    return NULL;
}

static void drop_work_of(struct exchange *ex, struct work_list *list, uint64_t serial)
{
    struct exchange_work *kept = NULL, *last = NULL;

    for (struct exchange_work *w = list->first, *next; w; w = next) {
        next = w->next;
        w->next = NULL;
        if (w->caller_serial == serial) {
            ex->work_bytes -= w->size;
            exchange_work_free(w);
            continue;
        }
        *(last ? &last->next : &kept) = w;
        last = w;
    }
    list->first = kept;
    list->last = last;
}

static void forget_caller(struct exchange *ex, struct caller *caller)
{
    drop_work_of(ex, &ex->small, caller->serial);
    drop_work_of(ex, &ex->large, caller->serial);
    caller->used = false;
}

static void refuse(struct exchange *ex, Moothall__RefusalCode code, const char *what, const char *theirs,
                   const char *ours)
{
    Moothall__Envelope envelope;
    Moothall__Refusal refusal = MOOTHALL__REFUSAL__INIT;
    char text[512];

    snprintf(text, sizeof text, "%s: %s, this worker has %s", what, theirs, ours);
    refusal.code = code;
    refusal.text = text;
    link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_REFUSAL, &refusal, ex->message.envelope->correlation);
    link_send(ex->router, &ex->message.peer, &envelope, (struct span){ 0 });
}

static void to_hex(char *text, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    text[2 * size] = '\0';
}

static void on_hello(struct exchange *ex, const Moothall__PeerHello *hello)
{
    struct caller *caller = find_caller(ex, &ex->message.peer);
    Moothall__Envelope envelope;
    Moothall__PeerWelcome welcome = MOOTHALL__PEER_WELCOME__INIT;

    if (hello->fingerprint.len != sizeof ex->config.fingerprint ||
        memcmp(hello->fingerprint.data, ex->config.fingerprint, sizeof ex->config.fingerprint) != 0) {
        char theirs[2 * 32 + 1] = "none", ours[2 * 32 + 1];

        to_hex(ours, ex->config.fingerprint, sizeof ex->config.fingerprint);
        if (hello->fingerprint.len == 32)
            to_hex(theirs, hello->fingerprint.data, 32);
        refuse(ex, MOOTHALL__REFUSAL_CODE__WRONG_MODEL, "another model: fingerprint", theirs, ours);
        return;
    }
    if (strcmp(hello->family, ex->config.family) != 0) {
        char theirs[64];

        snprintf(theirs, sizeof theirs, "%s", hello->family);
        refuse(ex, MOOTHALL__REFUSAL_CODE__WRONG_FAMILY, "another kernel family", theirs, ex->config.family);
        return;
    }
    if (strlen(hello->name) >= SEAT_NAME_MAX)
        return;
    if (!caller) {
        for (int i = 0; i < ex->caller_count; i++)
            if (ex->caller[i].used && !strcmp(ex->caller[i].name, hello->name))
                forget_caller(ex, &ex->caller[i]); /* its older connection */
        /* A free place, else that of whoever was silent longest. */
        caller = &ex->caller[0];
        for (int i = 1; i < EXCHANGE_CALLERS_MAX && caller->used; i++)
            if (!ex->caller[i].used || ex->caller[i].heard_ms < caller->heard_ms)
                caller = &ex->caller[i];
        if (caller->used)
            forget_caller(ex, caller);
        if (caller - ex->caller >= ex->caller_count)
            ex->caller_count = (int)(caller - ex->caller) + 1;
        memset(caller, 0, sizeof *caller);
        caller->used = true;
        caller->peer = ex->message.peer;
        caller->serial = ++ex->caller_serial;
    }
    snprintf(caller->name, sizeof caller->name, "%s", hello->name);
    caller->incarnation = hello->incarnation;
    caller->heard_ms = ex->now_ms;
    welcome.name = ex->config.name;
    welcome.incarnation = ex->config.incarnation;
    welcome.window_bytes = EXCHANGE_WINDOW_BYTES;
    welcome.epoch = ex->epoch;
    link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_PEER_WELCOME, &welcome,
                  ex->message.envelope->correlation);
    link_send(ex->router, &ex->message.peer, &envelope, (struct span){ 0 });
}

/* Counted always, logged once a caller and kind. */
static void on_fault(struct exchange *ex, struct caller *caller, const char *fault)
{
    ex->counts.malformed++;
    for (int i = 0; i < FAULTS_LOGGED_MAX; i++) {
        if (caller->logged[i] == fault)
            return;
        if (!caller->logged[i]) {
            caller->logged[i] = fault;
            log_warn("peer.malformed", "name=%s fault=\"%s\"", caller->name, fault);
            return;
        }
    }
}

static bool is_waiting(const struct work_list *list, uint64_t serial, uint64_t id)
{
    for (const struct exchange_work *w = list->first; w; w = w->next)
        if (w->caller_serial == serial && w->id == id)
            return true;
    return false;
}

static void answer_not_here(struct exchange *ex, uint64_t id, uint32_t shard)
{
    Moothall__Envelope envelope;
    Moothall__NotHere not_here = MOOTHALL__NOT_HERE__INIT;

    not_here.call = id;
    not_here.epoch = ex->epoch;
    not_here.shard = shard;
    link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_NOT_HERE, &not_here, id);
    link_send(ex->router, &ex->message.peer, &envelope, (struct span){ 0 });
}

static void on_dispatch(struct exchange *ex, const Moothall__Dispatch *d)
{
    const struct dispatch_shape *shape = &ex->config.shape;
    struct span payload = ex->message.payload;
    struct caller *caller = find_caller(ex, &ex->message.peer);
    struct exchange_work *work;
    struct work_list *list;
    const char *fault;
    size_t rows_size, padded;

    if (!caller) {
        refuse(ex, MOOTHALL__REFUSAL_CODE__NEED_HELLO, "no greeting", "a dispatch", "not met this peer");
        return;
    }
    caller->heard_ms = ex->now_ms;
    fault = dispatch_check(shape, d->layer, d->row_count, d->pair_count, d->slot_count, payload);
    if (fault) {
        on_fault(ex, caller, fault);
        return;
    }
    if (is_waiting(&ex->small, caller->serial, d->call) || is_waiting(&ex->large, caller->serial, d->call))
        return; /* sent twice; it will be answered once */
    if ((caller->unanswered_bytes && caller->unanswered_bytes + payload.size > EXCHANGE_WINDOW_BYTES) ||
        (ex->work_bytes && ex->work_bytes + payload.size > ex->config.bytes_max)) {
        ex->counts.over_window++;
        on_fault(ex, caller, "more bytes than its window");
        return;
    }
    rows_size = (size_t)d->row_count * shape->hidden * shape->carrier_bytes;
    padded = (rows_size + 63) / 64 * 64;
    work = must(calloc(1, sizeof *work));
    work->memory =
        must(aligned_alloc(64, padded + ((size_t)d->pair_count * sizeof *work->pairs + 63) / 64 * 64));
    memcpy(work->memory, payload.data, rows_size);
    work->rows = work->memory;
    work->pairs = (struct expert_pair *)(void *)(work->memory + padded);
    dispatch_pairs(shape, d->row_count, d->pair_count, payload, work->pairs);
    for (uint32_t i = 0; i < d->pair_count; i++) {
        uint32_t shard = work->pairs[i].expert / shape->experts_per_shard;

        if (ex->holder[shard] != EXCHANGE_HERE) {
            answer_not_here(ex, d->call, shard);
            exchange_work_free(work);
            return;
        }
    }
    work->layer = d->layer;
    work->row_count = d->row_count;
    work->pair_count = d->pair_count;
    work->slot_count = d->slot_count;
    work->id = d->call;
    work->caller = (int)(caller - ex->caller);
    work->caller_serial = caller->serial;
    work->size = payload.size;
    work->came_ms = ex->now_ms;
    caller->unanswered_bytes += work->size;
    ex->work_bytes += work->size;
    list = d->row_count <= SMALL_ROWS ? &ex->small : &ex->large;
    *(list->last ? &list->last->next : &list->first) = work;
    list->last = work;
}

static void receive_from_callers(struct exchange *ex)
{
    while (link_receive(ex->router, &ex->message)) {
        const Moothall__Envelope *e = ex->message.envelope;

        switch (e->body_case) {
        case MOOTHALL__ENVELOPE__BODY_PEER_HELLO:
            on_hello(ex, e->peer_hello);
            break;
        case MOOTHALL__ENVELOPE__BODY_DISPATCH:
            on_dispatch(ex, e->dispatch);
            break;
        default:
            ex->counts.malformed++;
        }
    }
}

struct exchange_work *exchange_work(struct exchange *ex)
{
    bool large = ex->large.first && (!ex->small.first || ex->small_in_a_row >= SMALL_IN_A_ROW_MAX);
    struct work_list *list = large ? &ex->large : &ex->small;
    struct exchange_work *work = list->first;

    if (!work)
        return NULL;
    ex->small_in_a_row = large ? 0 : ex->small_in_a_row + 1;
    list->first = work->next;
    if (!list->first)
        list->last = NULL;
    work->next = NULL;
    return work;
}

void exchange_answer(struct exchange *ex, struct exchange_work *work, const uint8_t *result)
{
    struct caller *caller = &ex->caller[work->caller];
    Moothall__Envelope envelope;
    Moothall__Sums sums = MOOTHALL__SUMS__INIT;

    ex->work_bytes -= work->size;
    ex->counts.served++;
    ex->counts.served_rows += work->row_count;
    if (caller->used && caller->serial == work->caller_serial) {
        caller->unanswered_bytes -= work->size;
        sums.call = work->id;
        sums.slot_count = work->slot_count;
        link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_SUMS, &sums, work->id);
        if (link_send(ex->router, &caller->peer, &envelope,
                      span_of(result, sums_size(ex, work->slot_count))) != LINK_SENT)
            forget_caller(ex, caller); /* it will greet us again and repeat the call */
    }
    exchange_work_free(work);
}

/* ---- turns ------------------------------------------------------------------------------------------ */

void exchange_turn(struct exchange *ex, int64_t now_ms)
{
    ex->now_ms = now_ms;
    receive_from_callers(ex);
    for (int i = 0; i < ex->peer_count; i++) {
        receive_from_peer(ex, i);
        on_peer_time(ex, i);
    }
    if (ex->waiting_count)
        send_waiting(ex);
}

void exchange_wait(struct exchange *ex, const int *fds, int fd_count, int timeout_ms)
{
    struct link *links[1 + SEAT_WORKERS_MAX];
    int count = 0;

    links[count++] = ex->router;
    for (int i = 0; i < ex->peer_count; i++)
        if (ex->peer[i].link) {
            links[count++] = ex->peer[i].link;
            /* Probes and repetitions are timed. */
            if ((ex->peer[i].state == PEER_PROBING || ex->peer[i].epoch < ex->epoch) && timeout_ms > PROBE_MS)
                timeout_ms = PROBE_MS;
        }
    link_wait(links, count, fds, fd_count, timeout_ms, NULL);
}
