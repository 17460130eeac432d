#include "client/hall.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "client/say.h"

enum {
    GREETING_MS = 2000, /* for a Welcome */
    FIRST_PATIENCE_MS = 60 * 1000,
    BACKOFF_MS = 100,
    BACKOFF_MAX_MS = 5000,
    HEARTBEAT_MS = 1000, /* until a Welcome says otherwise */
    SILENT_BEATS = 5,
    NOTICE_AFTER_MS = 2000,
    NOTICE_EVERY_MAX_MS = 60 * 1000,
    AGAIN_MS = 500, /* a job that was turned away is offered again, later each time */
    AGAIN_MAX_MS = 30 * 1000,
    NO_ROOM_EVERY_MS = 30 * 1000,
    WAIT_MS = 100,
};

enum state { RESTING, GREETING, OPEN };

/* One message that wants an answer, kept until it has one. */
struct ask {
    struct ask *next;
    uint64_t correlation;
    Moothall__Envelope__BodyCase kind, expected;
    void *body;
    struct span payload;
    bool sent;
    int64_t not_before_ms; /* turned away: offered again then */
    int64_t again_ms;

    /* a group of jobs; the blocking calls have none */
    Moothall__Submit submit;
    Moothall__NewJob *job[HALL_GROUP_JOBS_MAX];
    bool settled[HALL_GROUP_JOBS_MAX];
    struct arena arena;
    struct buf bodies;
    size_t envelope_bytes;
};

struct hall {
    struct link_context *context;
    struct link *link;
    char endpoint[LINK_ENDPOINT_MAX];
    char name[64];
    Moothall__Role role;
    int64_t timeout_ms, backoff_max_ms;
    bool silent;
    struct hall_side *side;

    enum state state;
    bool hello_sent, was_open;
    int64_t since_ms; /* of the state: when it was entered; RESTING: when it ends */
    int64_t backoff_ms;
    int64_t heard_ms, said_ms;
    int64_t unanswered_since_ms;
    int64_t notice_ms, notice_every_ms;
    int64_t no_room_ms; /* when that was last said */
    uint32_t heartbeat_ms;
    uint64_t incarnation, correlation;
    struct hall_welcome welcome;
    struct err refused; /* the broker gave up on us: every call fails with it */

    struct ask *first, **last; /* unanswered, in the order they were asked */
    struct ask *group;         /* being made */
    uint32_t groups;           /* sent and unanswered */
    uint64_t groups_bytes;
    struct hall_tally tally;
    struct ask *waited; /* the blocking call's */
    bool answered;
    struct err no; /* its refusal */
    struct link_message incoming, answer;
};

static bool asked(const char *endpoint, struct err *err)
{
    if (!*endpoint)
        return err_set(err, ERR_INPUT,
                       "no broker is named; expected --broker tcp://HOST:PORT or ipc:///PATH");
    if (strlen(endpoint) >= LINK_ENDPOINT_MAX)
        return err_set(err, ERR_INPUT, "endpoint is longer than %d bytes", LINK_ENDPOINT_MAX - 1);
    return true;
}

bool hall_new(struct hall **out, struct link_context *context, const struct hall_config *config,
              struct err *err)
{
    struct hall *hall;
    struct link *probe;

    *out = NULL;
    if (!asked(config->endpoint, err) || !link_connect(&probe, context, config->endpoint, err))
        return false;
    hall = calloc(1, sizeof *hall);
    if (!hall) {
        link_free(probe);
        return err_set(err, ERR_IO, "no memory for a session");
    }
    hall->context = context;
    hall->link = probe;
    hall->state = GREETING;
    snprintf(hall->endpoint, sizeof hall->endpoint, "%s", config->endpoint);
    snprintf(hall->name, sizeof hall->name, "%s", config->name ? config->name : "moothall");
    hall->role = config->role;
    hall->timeout_ms = config->timeout_ms;
    hall->backoff_max_ms = config->backoff_max_ms ? config->backoff_max_ms : BACKOFF_MAX_MS;
    hall->silent = config->silent;
    hall->side = config->side;
    hall->backoff_ms = BACKOFF_MS;
    hall->heartbeat_ms = HEARTBEAT_MS;
    hall->since_ms = hall->unanswered_since_ms = hall->heard_ms = clock_now_ms();
    hall->notice_every_ms = NOTICE_AFTER_MS;
    hall->notice_ms = hall->since_ms + NOTICE_AFTER_MS;
    hall->last = &hall->first;
    randombytes_buf(&hall->incarnation, sizeof hall->incarnation);
    link_message_init(&hall->incoming);
    link_message_init(&hall->answer);
    *out = hall;
    return true;
}

static void ask_free(struct ask *ask)
{
    if (!ask)
        return;
    arena_fini(&ask->arena);
    buf_fini(&ask->bodies);
    free(ask);
}

void hall_free(struct hall *hall)
{
    if (!hall)
        return;
    if (hall->state == OPEN) {
        Moothall__Envelope envelope;
        Moothall__Goodbye goodbye = MOOTHALL__GOODBYE__INIT;

        link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_GOODBYE, &goodbye, 0);
        link_send(hall->link, NULL, &envelope, span_of(NULL, 0));
    }
    link_free(hall->link);
    for (struct ask *ask = hall->first, *next; ask; ask = next) {
        next = ask->next;
        if (ask != hall->waited)
            ask_free(ask);
    }
    ask_free(hall->group);
    link_message_fini(&hall->incoming);
    link_message_fini(&hall->answer);
    free(hall);
}

struct link *hall_link(struct hall *hall)
{
    return hall->link;
}

bool hall_is_open(const struct hall *hall)
{
    return hall->state == OPEN;
}

uint32_t hall_unanswered(const struct hall *hall)
{
    return hall->groups;
}

struct hall_tally hall_tally(const struct hall *hall)
{
    return hall->tally;
}

/* ---- the session ------------------------------------------------------------------------------- */

static void lose(struct hall *hall, int64_t now_ms)
{
    uint32_t jitter = randombytes_uniform((uint32_t)hall->backoff_ms / 4 + 1);

    link_free(hall->link);
    hall->link = NULL;
    if (hall->state == OPEN) {
        hall->unanswered_since_ms = hall->heard_ms;
        hall->notice_every_ms = NOTICE_AFTER_MS;
        hall->notice_ms = now_ms + NOTICE_AFTER_MS;
    }
    hall->state = RESTING;
    hall->since_ms = now_ms + hall->backoff_ms + jitter;
    hall->backoff_ms =
        hall->backoff_ms * 2 < hall->backoff_max_ms ? hall->backoff_ms * 2 : hall->backoff_max_ms;
}

static void greet(struct hall *hall, int64_t now_ms)
{
    Moothall__Envelope envelope;
    Moothall__Hello hello = MOOTHALL__HELLO__INIT;

    hello.role = hall->role;
    hello.name = hall->name;
    hello.incarnation = hall->incarnation;
    link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_HELLO, &hello, 0);
    if (link_send(hall->link, NULL, &envelope, span_of(NULL, 0)) == LINK_SENT) {
        hall->hello_sent = true;
        hall->said_ms = now_ms;
    }
}

static void start_greeting(struct hall *hall, int64_t now_ms)
{
    hall->state = GREETING;
    hall->since_ms = now_ms;
    hall->hello_sent = false;
}

static void welcomed(struct hall *hall, const Moothall__Welcome *welcome, int64_t now_ms)
{
    if (hall->was_open && now_ms - hall->unanswered_since_ms > NOTICE_AFTER_MS &&
        hall->notice_every_ms > NOTICE_AFTER_MS && !hall->silent)
        say("broker %s answers again", hall->endpoint);
    hall->state = OPEN;
    hall->was_open = true;
    hall->backoff_ms = BACKOFF_MS;
    hall->heartbeat_ms = welcome->heartbeat_ms ? welcome->heartbeat_ms : HEARTBEAT_MS;
    hall->welcome =
        (struct hall_welcome){ .hall = welcome->hall,
                               .broker_epoch = welcome->broker_epoch,
                               .payload_max = welcome->payload_max ? welcome->payload_max : LINK_PAYLOAD_MAX,
                               .window = welcome->window ? welcome->window : 1 };
    for (struct ask *ask = hall->first; ask; ask = ask->next)
        ask->sent = false;
}

static struct ask **find(struct hall *hall, uint64_t correlation)
{
    struct ask **at = &hall->first;

    while (*at && (*at)->correlation != correlation)
        at = &(*at)->next;
    return *at ? at : NULL;
}

static void remove_ask(struct hall *hall, struct ask **at)
{
    struct ask *ask = *at;

    *at = ask->next;
    if (hall->last == &ask->next)
        hall->last = at;
}

static void add_ask(struct hall *hall, struct ask *ask)
{
    ask->correlation = ++hall->correlation;
    ask->next = NULL;
    *hall->last = ask;
    hall->last = &ask->next;
}

/* Once for all that is turned away together. */
static void say_no_room(struct hall *hall, const char *reason, int64_t now_ms)
{
    if (hall->no_room_ms && now_ms - hall->no_room_ms < NO_ROOM_EVERY_MS)
        return;
    hall->no_room_ms = now_ms;
    say_error("the broker has no room now: %.200s; trying again", *reason ? reason : "no reason given");
}

static void ask_again(struct ask *ask, int64_t now_ms, int64_t after_ms)
{
    if (after_ms <= 0) {
        ask->again_ms = ask->again_ms ? ask->again_ms * 2 : AGAIN_MS;
        after_ms = ask->again_ms;
    }
    if (after_ms > AGAIN_MAX_MS)
        ask->again_ms = after_ms = AGAIN_MAX_MS;
    ask->sent = false;
    ask->not_before_ms = now_ms + after_ms;
}

/* What a group takes while it is unanswered, here and in the broker. */
static uint64_t weight(const struct ask *group)
{
    return group->bodies.size + group->envelope_bytes;
}

/* True when every job of the group has its place. */
static bool count_group(struct hall *hall, struct ask *ask, const Moothall__Submitted *submitted,
                        int64_t now_ms)
{
    bool away = false;

    if (submitted->n_acceptance != ask->submit.n_job)
        return false; /* not an answer to this: as if it had not come */
    for (size_t i = 0; i < ask->submit.n_job; i++) {
        if (ask->settled[i])
            continue;
        ask->settled[i] = true;
        switch (submitted->acceptance[i]) {
        case MOOTHALL__ACCEPTANCE__ACCEPTED:
            hall->tally.accepted++;
            break;
        case MOOTHALL__ACCEPTANCE__DUPLICATE:
            hall->tally.duplicate++;
            break;
        case MOOTHALL__ACCEPTANCE__RENEWED:
            hall->tally.renewed++;
            break;
        case MOOTHALL__ACCEPTANCE__CONFLICT:
            if (!hall->tally.conflict++) {
                hall->tally.conflict_position = ask->job[i]->position;
                snprintf(hall->tally.conflict_reason, sizeof hall->tally.conflict_reason, "%.200s",
                         submitted->reason);
            }
            break;
        default:
            ask->settled[i] = false;
            away = true;
        }
    }
    if (!away)
        return true;
    if (submitted->closed) { /* asking again would be in vain */
        err_set(&hall->refused, ERR_REFUSED, "batch %s takes no more requests: %.600s", ask->submit.batch, submitted->reason);
        return false;
    }
    say_no_room(hall, submitted->reason, now_ms);
    ask_again(ask, now_ms, 0);
    return false;
}

static void take_answer(struct hall *hall, int64_t now_ms)
{
    Moothall__Envelope *envelope = hall->incoming.envelope;
    struct ask **at = envelope->correlation ? find(hall, envelope->correlation) : NULL;
    struct ask *ask = at ? *at : NULL;

    if (envelope->body_case == MOOTHALL__ENVELOPE__BODY_REFUSAL) {
        const Moothall__Refusal *refusal = envelope->refusal;

        if (refusal->code == MOOTHALL__REFUSAL_CODE__NEED_HELLO) {
            if (hall->state == OPEN) {
                hall->unanswered_since_ms = now_ms;
                start_greeting(hall, now_ms);
            }
        } else if (ask && refusal->retry_after_ms) {
            say_no_room(hall, refusal->text, now_ms);
            ask->again_ms = refusal->retry_after_ms;
            ask_again(ask, now_ms, refusal->retry_after_ms);
        } else if (ask && ask == hall->waited) {
            remove_ask(hall, at);
            hall->answered = true;
            err_set(&hall->no, ERR_REFUSED, "the broker refused: %.800s", refusal->text);
            if (refusal->code == MOOTHALL__REFUSAL_CODE__UNKNOWN_BATCH ||
                refusal->code == MOOTHALL__REFUSAL_CODE__UNKNOWN_JOB)
                hall->no.code = ERR_NOT_FOUND;
        } else if (refusal->retry_after_ms) {
            if (hall->state != OPEN) { /* no room for a session, say */
                lose(hall, now_ms);
                if (hall->since_ms < now_ms + refusal->retry_after_ms)
                    hall->since_ms = now_ms + refusal->retry_after_ms;
            }
        } else {
            err_set(&hall->refused, ERR_REFUSED, "broker %s refused: %.800s", hall->endpoint, refusal->text);
        }
        return;
    }
    if (!ask || !ask->sent || envelope->body_case != ask->expected)
        return; /* a Pong, or an answer that came twice */
    if (ask == hall->waited) {
        struct link_message kept = hall->answer;

        hall->answer = hall->incoming;
        hall->incoming = kept;
        remove_ask(hall, at);
        hall->answered = true;
    } else if (count_group(hall, ask, envelope->submitted, now_ms)) {
        remove_ask(hall, at);
        hall->groups--;
        hall->groups_bytes -= weight(ask);
        ask_free(ask);
    }
}

static void receive(struct hall *hall, int64_t now_ms)
{
    while (hall->link && link_receive(hall->link, &hall->incoming)) {
        Moothall__Envelope *envelope = hall->incoming.envelope;

        hall->heard_ms = now_ms;
        if (envelope->body_case == MOOTHALL__ENVELOPE__BODY_WELCOME) {
            if (hall->state == GREETING)
                welcomed(hall, envelope->welcome, now_ms);
        } else {
            take_answer(hall, now_ms);
        }
    }
}

static void send_all(struct hall *hall, int64_t now_ms)
{
    Moothall__Envelope envelope;

    for (struct ask *ask = hall->first; ask; ask = ask->next) {
        if (ask->sent || ask->not_before_ms > now_ms)
            continue;
        link_envelope(&envelope, ask->kind, ask->body, ask->correlation);
        if (link_send(hall->link, NULL, &envelope, ask->payload) != LINK_SENT) {
            lose(hall, now_ms);
            return;
        }
        ask->sent = true;
        hall->said_ms = now_ms;
    }
    if (now_ms - hall->said_ms >= hall->heartbeat_ms) {
        Moothall__Ping ping = MOOTHALL__PING__INIT;

        link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_PING, &ping, ++hall->correlation);
        if (link_send(hall->link, NULL, &envelope, span_of(NULL, 0)) != LINK_SENT)
            lose(hall, now_ms);
        hall->said_ms = now_ms;
    }
}

bool hall_turn(struct hall *hall, struct err *err)
{
    int64_t now_ms = clock_now_ms();

    if (hall->state == RESTING && now_ms >= hall->since_ms) {
        if (!link_connect(&hall->link, hall->context, hall->endpoint, err))
            return false;
        start_greeting(hall, now_ms);
    }
    receive(hall, now_ms);
    if (hall->refused.code) {
        *err = hall->refused;
        return false;
    }
    if (hall->state == GREETING) {
        if (!hall->hello_sent)
            greet(hall, now_ms);
        if (now_ms - hall->since_ms >= GREETING_MS)
            lose(hall, now_ms);
    }
    if (hall->state == OPEN) {
        send_all(hall, now_ms);
        if (hall->state == OPEN && now_ms - hall->heard_ms > (int64_t)SILENT_BEATS * hall->heartbeat_ms)
            lose(hall, now_ms);
    }
    if (hall->state != OPEN) {
        int64_t patience = hall->timeout_ms >= 0 ? hall->timeout_ms
                           : hall->was_open      ? INT64_MAX
                                                 : FIRST_PATIENCE_MS;
        int64_t silent_ms = now_ms - hall->unanswered_since_ms;

        if (silent_ms >= patience)
            return err_set(
                err, ERR_TIMEOUT,
                "broker %s did not answer for %.1f s; is it running there? (--timeout says how long to try)",
                hall->endpoint, (double)silent_ms / 1000);
        if (now_ms >= hall->notice_ms) {
            if (!hall->silent)
                say_error("broker %s does not answer; trying again", hall->endpoint);
            hall->notice_every_ms = hall->notice_every_ms * 2 < NOTICE_EVERY_MAX_MS
                                        ? hall->notice_every_ms * 2
                                        : NOTICE_EVERY_MAX_MS;
            hall->notice_ms = now_ms + hall->notice_every_ms;
        }
    }
    return true;
}

/* ---- waiting ----------------------------------------------------------------------------------- */

/* Until something comes, the side has something to do, or a little time has passed. */
static bool wait_turn(struct hall *hall, struct err *err)
{
    struct link *links[1] = { hall->link };
    const int *fds = hall->side ? hall->side->fd : NULL;
    int fd_count = hall->side ? hall->side->fd_count : 0;
    /* A DEALER whose connection is not made yet cannot be waited for: look again soon. */
    int wait_ms = hall->state == GREETING && !hall->hello_sent ? 5 : WAIT_MS;

    if (hall->side && !hall->side->turn(hall->side->arg, err))
        return false;
    link_wait(links, hall->link ? 1 : 0, fds, fd_count, wait_ms, NULL);
    return hall_turn(hall, err);
}

bool hall_open(struct hall *hall, struct hall_welcome *welcome, struct err *err)
{
    while (hall->state != OPEN)
        if (!wait_turn(hall, err))
            return false;
    if (welcome)
        *welcome = hall->welcome;
    return true;
}

/* The broker drops what holds other bytes, as it must, and an answer would be waited for in vain. */
static bool texts_are_utf8(const ProtobufCMessage *message, struct err *err)
{
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const char *at = (const char *)message + field->offset;
        char *const *text = (char *const *)(const void *)at;
        size_t count = 1;

        if (field->type != PROTOBUF_C_TYPE_STRING)
            continue;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            count = *(const size_t *)(const void *)((const char *)message + field->quantifier_offset);
            text = *(char *const *const *)(const void *)at;
        }
        for (size_t j = 0; j < count; j++)
            if (text[j] && !span_is_utf8(span_text(text[j])))
                return err_set(err, ERR_INPUT, "%s is not text in UTF-8: expected a name as `moothall status` shows it",
                               field->name);
    }
    return true;
}

bool hall_ask(struct hall *hall, Moothall__Envelope__BodyCase kind, void *body,
              Moothall__Envelope__BodyCase expected, const struct link_message **answer, struct err *err)
{
    struct ask *ask;
    bool ok = true;

    assert(!hall->waited);
    if (!texts_are_utf8(body, err))
        return false;
    ask = calloc(1, sizeof *ask);
    if (!ask)
        return err_set(err, ERR_IO, "no memory for a question");
    ask->kind = kind;
    ask->body = body;
    ask->expected = expected;
    add_ask(hall, ask);
    hall->waited = ask;
    hall->answered = false;
    hall->no.code = ERR_NONE;
    ok = hall_turn(hall, err);
    while (ok && !hall->answered)
        ok = wait_turn(hall, err);
    if (!hall->answered) {
        struct ask **at = find(hall, ask->correlation);

        if (at)
            remove_ask(hall, at);
    } else if (hall->no.code) {
        *err = hall->no;
        ok = false;
    } else {
        ok = true;
        if (answer)
            *answer = &hall->answer;
    }
    hall->waited = NULL;
    ask_free(ask);
    return ok;
}

/* ---- submitting ------------------------------------------------------------------------------ */

static struct ask *group_new(const struct hall_submission *submission)
{
    struct ask *group = calloc(1, sizeof *group);

    if (!group)
        return NULL;
    moothall__submit__init(&group->submit);
    group->submit.queue = (char *)(uintptr_t)submission->queue;
    group->submit.batch = (char *)(uintptr_t)submission->batch;
    group->submit.batch_total = submission->batch_total;
    group->submit.mode = submission->mode;
    group->submit.job = group->job;
    group->kind = MOOTHALL__ENVELOPE__BODY_SUBMIT;
    group->expected = MOOTHALL__ENVELOPE__BODY_SUBMITTED;
    group->body = &group->submit;
    arena_init(&group->arena, 0);
    return group;
}

/* Waits for room in the window, then hands the group over. */
bool hall_submit_push(struct hall *hall, const struct hall_submission *submission, struct err *err)
{
    struct ask *group = hall->group;

    (void)submission;
    if (!group || !group->submit.n_job)
        return true;
    if (!hall_open(hall, NULL, err))
        return false;
    while (hall->groups && (hall->groups >= hall->welcome.window ||
                            hall->groups_bytes + weight(group) > HALL_UNANSWERED_BYTES_MAX))
        if (!wait_turn(hall, err))
            return false;
    group->payload = buf_span(&group->bodies);
    hall->groups++;
    hall->groups_bytes += weight(group);
    add_ask(hall, group);
    hall->group = NULL;
    return hall_turn(hall, err);
}

bool hall_submit(struct hall *hall, const struct hall_submission *submission, const struct hall_job *job,
                 struct err *err)
{
    size_t words = strlen(job->id) + strlen(job->custom_id) + strlen(job->endpoint) + 96;
    Moothall__NewJob *made;
    struct ask *group = hall->group;

    if (group && group->submit.n_job &&
        (group->submit.n_job == HALL_GROUP_JOBS_MAX ||
         group->envelope_bytes + words > HALL_GROUP_ENVELOPE_MAX ||
         group->bodies.size + job->body.size > HALL_GROUP_BYTES_MAX)) {
        if (!hall_submit_push(hall, submission, err))
            return false;
        group = NULL;
    }
    if (!group) {
        group = hall->group = group_new(submission);
        if (!group)
            return err_set(err, ERR_IO, "no memory for a group of jobs");
        if (!texts_are_utf8(&group->submit.base, err)) /* of queue and batch: what comes out of JSON always is */
            return false;
    }
    made = arena_take(&group->arena, sizeof *made);
    if (!made || !buf_add(&group->bodies, job->body.data, job->body.size))
        return err_set(err, ERR_IO, "no memory for a group of jobs");
    moothall__new_job__init(made);
    made->id = arena_copy(&group->arena, job->id, strlen(job->id));
    made->custom_id = arena_copy(&group->arena, job->custom_id, strlen(job->custom_id));
    made->endpoint = arena_copy(&group->arena, job->endpoint, strlen(job->endpoint));
    if (!made->id || !made->custom_id || !made->endpoint)
        return err_set(err, ERR_IO, "no memory for a group of jobs");
    made->position = job->position;
    made->size = (uint32_t)job->body.size;
    made->seed = job->seed;
    made->priority = submission->priority;
    made->not_before_ms = submission->not_before_ms;
    made->deadline_ms = submission->deadline_ms;
    made->ready_ttl_ms = submission->ready_ttl_ms;
    made->refused = job->refused;
    made->status_code = job->refused ? job->status_code : 0;
    group->job[group->submit.n_job++] = made;
    group->envelope_bytes += words;
    return true;
}

bool hall_submit_end(struct hall *hall, const struct hall_submission *submission, struct err *err)
{
    if (!hall_submit_push(hall, submission, err))
        return false;
    while (hall->groups)
        if (!wait_turn(hall, err))
            return false;
    return true;
}

double hall_exchange(const Moothall__Status *status, double *bytes)
{
    double messages = 0;

    *bytes = 0;
    for (size_t i = 0; i < status->n_worker; i++) {
        const Moothall__ExchangeCounts *e = status->worker[i]->exchange;

        if (!e)
            continue;
        messages += 2 * (double)e->dispatches;
        *bytes += (double)e->dispatch_bytes + (double)e->sums_bytes;
    }
    return messages;
}
