/* The session with the broker, against a broker of forty lines that says what the test wants. */

#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "proto/link.h"
#include "worker/seat.h"

static char directory[] = "/tmp/moothall-seat-XXXXXX";

struct broker {
    struct link_context *context;
    struct link *link;
    struct link_message message;
    struct link_peer worker;
    char endpoint[128];
};

static void broker_bind(struct broker *broker)
{
    struct err err;

    CHECK(link_bind(&broker->link, broker->context, broker->endpoint, &err));
}

static void broker_init(struct broker *broker)
{
    memset(broker, 0, sizeof *broker);
    broker->context = link_context_new();
    link_message_init(&broker->message);
    snprintf(broker->endpoint, sizeof broker->endpoint, "ipc://%s/b", directory);
    broker_bind(broker);
}

static void broker_fini(struct broker *broker)
{
    link_message_fini(&broker->message);
    link_free(broker->link);
    link_context_free(broker->context);
    unlink(broker->endpoint + 6);
}

static void say(struct broker *broker, Moothall__Envelope__BodyCase kind, void *body, const char *payload)
{
    Moothall__Envelope envelope;

    link_envelope(&envelope, kind, body, 0);
    CHECK(link_send(broker->link, &broker->worker, &envelope, span_text(payload)) == LINK_SENT);
}

static void answer_heartbeat(struct broker *broker)
{
    Moothall__HeartbeatReply reply = MOOTHALL__HEARTBEAT_REPLY__INIT;

    say(broker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY, &reply, "");
}

/* The next message of this kind; heartbeats before it are answered, everything else is passed over. */
static const Moothall__Envelope *hear(struct broker *broker, Moothall__Envelope__BodyCase kind)
{
    int64_t until_ms = clock_now_ms() + 10000;

    while (clock_now_ms() < until_ms) {
        if (!link_receive(broker->link, &broker->message)) {
            link_wait(&broker->link, 1, NULL, 0, 50, NULL);
            continue;
        }
        broker->worker = broker->message.peer;
        if (broker->message.envelope->body_case == kind)
            return broker->message.envelope;
        if (broker->message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_HEARTBEAT)
            answer_heartbeat(broker);
    }
    fail_msg("no message of kind %d came", (int)kind);
    return NULL;
}

static void welcome(struct broker *broker)
{
    Moothall__Welcome w = MOOTHALL__WELCOME__INIT;

    w.session = 1;
    w.heartbeat_ms = 100;
    w.lease_ms = 1000;
    w.payload_max = 1 << 20;
    w.hall = 77;
    say(broker, MOOTHALL__ENVELOPE__BODY_WELCOME, &w, "");
}

static void lease(struct broker *broker, uint64_t fence, const char *body)
{
    Moothall__Lease l = MOOTHALL__LEASE__INIT;
    char job[] = "job-1", custom[] = "c", endpoint[] = "/v1/completions", queue[] = "default";

    l.fence = fence;
    l.generation = 1;
    l.job = job;
    l.custom_id = custom;
    l.endpoint = endpoint;
    l.queue = queue;
    say(broker, MOOTHALL__ENVELOPE__BODY_LEASE, &l, body);
}

static struct seat *seat_new(struct broker *broker, struct link_context *context, int stop_fd)
{
    struct seat_config config = {
        .incarnation = 5, .shard_count = 8, .credit_jobs = 3, .credit_bytes = 1 << 20
    };
    struct seat *seat;
    struct err err;

    snprintf(config.broker, sizeof config.broker, "%s", broker->endpoint);
    snprintf(config.name, sizeof config.name, "w0");
    snprintf(config.endpoint, sizeof config.endpoint, "ipc:///nowhere");
    snprintf(config.family, sizeof config.family, "cpu");
    snprintf(config.weights, sizeof config.weights, "f32");
    if (stop_fd >= 0)
        config.stop_fd[config.stop_fd_count++] = stop_fd;
    CHECK(seat_start(&seat, context, &config, &err));
    return seat;
}

static struct seat_event *await(struct seat *seat)
{
    int64_t until_ms = clock_now_ms() + 10000;
    struct seat_event *event;

    while (!(event = seat_take(seat)) && clock_now_ms() < until_ms)
        usleep(1000);
    CHECK(event);
    return event;
}

static struct seat_result *result_of(uint64_t fence)
{
    struct seat_result *result = calloc(1, sizeof *result);

    result->fence = fence;
    result->outcome = MOOTHALL__OUTCOME__FINISHED;
    result->status_code = 200;
    buf_text(&result->body, "done");
    return result;
}

/* The way of a lease: in, worked on, its result out, kept until stored. */
static void test_a_result_is_kept_until_it_is_stored(void **state)
{
    struct broker broker;
    struct link_context *context = link_context_new();
    struct seat *seat;
    struct seat_event *event;
    const Moothall__Envelope *e;
    Moothall__Stored stored = MOOTHALL__STORED__INIT;

    (void)state;
    broker_init(&broker);
    seat = seat_new(&broker, context, -1);
    e = hear(&broker, MOOTHALL__ENVELOPE__BODY_HELLO);
    CHECK(e->hello->role == MOOTHALL__ROLE__WORKER && e->hello->offer && e->hello->offer->shard_count == 8 &&
          e->hello->n_held == 0);
    welcome(&broker);
    CHECK(hear(&broker, MOOTHALL__ENVELOPE__BODY_CREDIT)->credit->jobs == 3);
    lease(&broker, 42, "{}");
    lease(&broker, 42, "{}"); /* a second time: once is enough */
    event = await(seat);
    CHECK(event->kind == SEAT_LEASE && event->lease->fence == 42 && event->lease->body_size == 2);
    seat_event_free(event);
    e = hear(&broker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT);
    answer_heartbeat(&broker);
    while (e->heartbeat->n_held != 1) {
        e = hear(&broker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT);
        answer_heartbeat(&broker);
    }
    CHECK(e->heartbeat->held[0] == 42);
    seat_result(seat, result_of(42));
    e = hear(&broker, MOOTHALL__ENVELOPE__BODY_RESULT);
    CHECK(e->result->fence == 42 && e->result->generation == 1 && broker.message.payload.size == 4);

    /* The broker restarts before it has stored it. */
    link_free(broker.link);
    usleep(50000);
    broker_bind(&broker);
    e = hear(&broker, MOOTHALL__ENVELOPE__BODY_HELLO);
    CHECK(e->hello->n_held == 1 && e->hello->held[0] == 42);
    welcome(&broker);
    e = hear(&broker, MOOTHALL__ENVELOPE__BODY_RESULT);
    CHECK(e->result->fence == 42 && broker.message.payload.size == 4);
    stored.job = e->result->job;
    stored.generation = 1;
    stored.fence = 42;
    stored.recorded = true;
    say(&broker, MOOTHALL__ENVELOPE__BODY_STORED, &stored, "");
    do {
        e = hear(&broker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT);
        answer_heartbeat(&broker);
    } while (e->heartbeat->n_held != 0);
    CHECK(!seat_take(seat));
    seat_leave(seat, "the test is over");
    hear(&broker, MOOTHALL__ENVELOPE__BODY_GOODBYE);
    broker_fini(&broker);
    link_context_free(context);
}

/* A broker that has forgotten us says NEED_HELLO; one that took a lease away says so in its reply. */
static void test_leases_taken_away_stop_the_engine(void **state)
{
    struct broker broker;
    struct link_context *context = link_context_new();
    struct seat *seat;
    struct seat_event *event;
    Moothall__Refusal refusal = MOOTHALL__REFUSAL__INIT;
    Moothall__HeartbeatReply reply = MOOTHALL__HEARTBEAT_REPLY__INIT;
    uint64_t dropped = 43;
    char text[] = "who are you";

    (void)state;
    broker_init(&broker);
    seat = seat_new(&broker, context, -1);
    hear(&broker, MOOTHALL__ENVELOPE__BODY_HELLO);
    welcome(&broker);
    lease(&broker, 43, "{}");
    seat_event_free(await(seat));
    refusal.code = MOOTHALL__REFUSAL_CODE__NEED_HELLO;
    refusal.text = text;
    say(&broker, MOOTHALL__ENVELOPE__BODY_REFUSAL, &refusal, "");
    CHECK(hear(&broker, MOOTHALL__ENVELOPE__BODY_HELLO)->hello->n_held == 1);
    welcome(&broker);
    hear(&broker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT);
    reply.dropped = &dropped;
    reply.n_dropped = 1;
    say(&broker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY, &reply, "");
    event = await(seat);
    CHECK(event->kind == SEAT_DROPPED && event->fence == 43);
    seat_event_free(event);
    seat_result(seat, result_of(43)); /* too late: it goes nowhere */
    seat_leave(seat, "the test is over");
    while (link_receive(broker.link, &broker.message))
        CHECK(broker.message.envelope->body_case != MOOTHALL__ENVELOPE__BODY_RESULT);
    broker_fini(&broker);
    link_context_free(context);
}

/* A worker of other weights must learn why it is refused, and not come back for ever. */
static void test_a_refusal_for_good_reaches_the_worker_with_its_text(void **state)
{
    struct broker broker;
    struct link_context *context = link_context_new();
    struct seat *seat;
    struct seat_event *event;
    Moothall__Refusal refusal = MOOTHALL__REFUSAL__INIT;
    char text[] = "this hall serves another model";

    (void)state;
    broker_init(&broker);
    seat = seat_new(&broker, context, -1);
    refusal.code = MOOTHALL__REFUSAL_CODE__NO_ROOM;
    refusal.text = text;
    refusal.retry_after_ms = 50;
    hear(&broker, MOOTHALL__ENVELOPE__BODY_HELLO);
    say(&broker, MOOTHALL__ENVELOPE__BODY_REFUSAL, &refusal, "");
    hear(&broker, MOOTHALL__ENVELOPE__BODY_HELLO); /* a refusal for now is followed by another try */
    refusal.code = MOOTHALL__REFUSAL_CODE__WRONG_MODEL;
    refusal.retry_after_ms = 0;
    say(&broker, MOOTHALL__ENVELOPE__BODY_REFUSAL, &refusal, "");
    event = await(seat);
    CHECK(event->kind == SEAT_REFUSED && !strcmp(event->text, text));
    seat_event_free(event);
    seat_leave(seat, "refused");
    broker_fini(&broker);
    link_context_free(context);
}

/* A killed `run` closes the pipe; a worker that stayed would hold the machine and the lock. */
static void test_the_end_of_the_control_pipe_stops_the_worker(void **state)
{
    struct broker broker;
    struct link_context *context = link_context_new();
    struct seat *seat;
    struct seat_event *event;
    int pipes[2];

    (void)state;
    CHECK(pipe(pipes) == 0);
    broker_init(&broker);
    seat = seat_new(&broker, context, pipes[0]);
    usleep(20000);
    CHECK(!seat_take(seat));
    close(pipes[1]);
    event = await(seat);
    CHECK(event->kind == SEAT_STOP);
    seat_event_free(event);
    seat_leave(seat, "stopped");
    close(pipes[0]);
    broker_fini(&broker);
    link_context_free(context);
}

/* A map names shards and workers by number; a wrong number must not be followed. */
static void test_a_map_with_numbers_out_of_range_is_dropped(void **state)
{
    struct broker broker;
    struct link_context *context = link_context_new();
    struct seat *seat;
    struct seat_event *event;
    Moothall__Map map = MOOTHALL__MAP__INIT;
    Moothall__MapWorker worker = MOOTHALL__MAP_WORKER__INIT, *workers[1] = { &worker };
    Moothall__Seat place = MOOTHALL__SEAT__INIT, *places[1] = { &place };
    char name[] = "w0", endpoint[] = "ipc:///x", family[] = "cpu";

    (void)state;
    broker_init(&broker);
    seat = seat_new(&broker, context, -1);
    hear(&broker, MOOTHALL__ENVELOPE__BODY_HELLO);
    welcome(&broker);
    worker.name = name;
    worker.endpoint = endpoint;
    map.family = family;
    map.worker = workers;
    map.n_worker = 1;
    map.seat = places;
    map.n_seat = 1;
    place.shard = 8;
    say(&broker, MOOTHALL__ENVELOPE__BODY_MAP, &map, "");
    place.shard = 0;
    place.worker = 1;
    say(&broker, MOOTHALL__ENVELOPE__BODY_MAP, &map, "");
    place.worker = 0;
    map.epoch = 9;
    say(&broker, MOOTHALL__ENVELOPE__BODY_MAP, &map, "");
    event = await(seat);
    CHECK(event->kind == SEAT_MAP && event->map->epoch == 9 && event->map->seat_count == 1);
    seat_event_free(event);
    seat_seated(seat, 9);
    CHECK(hear(&broker, MOOTHALL__ENVELOPE__BODY_SEATED)->seated->epoch == 9);
    seat_leave(seat, "the test is over");
    broker_fini(&broker);
    link_context_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_result_is_kept_until_it_is_stored),
        cmocka_unit_test(test_leases_taken_away_stop_the_engine),
        cmocka_unit_test(test_a_refusal_for_good_reaches_the_worker_with_its_text),
        cmocka_unit_test(test_the_end_of_the_control_pipe_stops_the_worker),
        cmocka_unit_test(test_a_map_with_numbers_out_of_range_is_dropped),
    };
    int rc;

    if (!mkdtemp(directory))
        return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(directory);
    return rc;
}
