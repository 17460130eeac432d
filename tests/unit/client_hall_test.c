/* A client's session, against a broker that is played by the test: on the same thread, in the hall's side. */

#include "tests/check.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/hall.h"
#include "client/say.h"

struct broker {
    struct link_context *context;
    struct link *link;
    char endpoint[64];
    struct link_message message;
    struct link_peer peer; /* who spoke last */
    int hellos, submits, jobs, fetches, goodbyes;
    int welcome_after; /* Hellos that are not answered first */
    int forget_after;  /* after so many submits: NEED_HELLO, once */
    int turn_away;     /* submits whose last job is turned away */
    int swallow;       /* submits that are not answered (their answer was lost) */
    bool conflict;     /* the second job of each submit is a conflict */
    bool refuse;
    bool closed; /* the batch is cancelled: what is turned away is so for good */
    int priority; /* of the last job */
    int64_t deadline_ms;
    uint32_t window;
    uint32_t unanswered, unanswered_max;
    uint64_t held[64]; /* correlations of submits that are answered later */
    size_t held_jobs[64];
    int held_count;
    bool hold;
};

static void say_back(struct broker *broker, Moothall__Envelope__BodyCase kind, void *body,
                     uint64_t correlation)
{
    Moothall__Envelope envelope;

    link_envelope(&envelope, kind, body, correlation);
    CHECK(link_send(broker->link, &broker->peer, &envelope, span_of(NULL, 0)) == LINK_SENT);
}

static void accept_jobs(struct broker *broker, uint64_t correlation, size_t jobs)
{
    Moothall__Submitted submitted = MOOTHALL__SUBMITTED__INIT;
    Moothall__Acceptance acceptance[HALL_GROUP_JOBS_MAX];
    static char full[] = "the disk is full";

    for (size_t i = 0; i < jobs; i++)
        acceptance[i] = MOOTHALL__ACCEPTANCE__ACCEPTED;
    if (broker->turn_away) {
        broker->turn_away--;
        acceptance[jobs - 1] = MOOTHALL__ACCEPTANCE__TURNED_AWAY;
        submitted.reason = full;
        submitted.closed = broker->closed;
    }
    if (broker->conflict && jobs > 1)
        acceptance[1] = MOOTHALL__ACCEPTANCE__CONFLICT;
    submitted.n_acceptance = jobs;
    submitted.acceptance = acceptance;
    say_back(broker, MOOTHALL__ENVELOPE__BODY_SUBMITTED, &submitted, correlation);
}

static bool broker_turn(void *arg, struct err *err)
{
    struct broker *broker = arg;

    (void)err;
    while (link_receive(broker->link, &broker->message)) {
        Moothall__Envelope *e = broker->message.envelope;
        Moothall__Welcome welcome = MOOTHALL__WELCOME__INIT;
        Moothall__Refusal refusal = MOOTHALL__REFUSAL__INIT;
        Moothall__Entries entries = MOOTHALL__ENTRIES__INIT;
        Moothall__Pong pong = MOOTHALL__PONG__INIT;

        broker->peer = broker->message.peer;
        switch (e->body_case) {
        case MOOTHALL__ENVELOPE__BODY_HELLO:
            if (broker->hellos++ < broker->welcome_after)
                break;
            if (broker->refuse) {
                refusal.code = MOOTHALL__REFUSAL_CODE__WRONG_MODEL;
                refusal.text = (char[]){ "another model lives here" };
                say_back(broker, MOOTHALL__ENVELOPE__BODY_REFUSAL, &refusal, 0);
                break;
            }
            welcome.hall = 9;
            welcome.heartbeat_ms = 100;
            welcome.window = broker->window ? broker->window : 4;
            say_back(broker, MOOTHALL__ENVELOPE__BODY_WELCOME, &welcome, 0);
            break;
        case MOOTHALL__ENVELOPE__BODY_SUBMIT:
            broker->submits++;
            broker->priority = (int)e->submit->job[0]->priority;
            broker->deadline_ms = e->submit->job[0]->deadline_ms;
            broker->jobs += (int)e->submit->n_job;
            if (broker->forget_after && broker->submits > broker->forget_after) {
                broker->forget_after = 0;
                refusal.code = MOOTHALL__REFUSAL_CODE__NEED_HELLO;
                say_back(broker, MOOTHALL__ENVELOPE__BODY_REFUSAL, &refusal, e->correlation);
            } else if (broker->swallow) {
                broker->swallow--;
            } else if (broker->hold) {
                broker->held[broker->held_count] = e->correlation;
                broker->held_jobs[broker->held_count++] = e->submit->n_job;
            } else {
                accept_jobs(broker, e->correlation, e->submit->n_job);
            }
            break;
        case MOOTHALL__ENVELOPE__BODY_FETCH:
            broker->fetches++;
            if (e->fetch->from == 77) {
                refusal.code = MOOTHALL__REFUSAL_CODE__UNKNOWN_BATCH;
                refusal.text = (char[]){ "no batch x" };
                say_back(broker, MOOTHALL__ENVELOPE__BODY_REFUSAL, &refusal, e->correlation);
            } else {
                entries.next = e->fetch->from + 1;
                say_back(broker, MOOTHALL__ENVELOPE__BODY_ENTRIES, &entries, e->correlation);
            }
            break;
        case MOOTHALL__ENVELOPE__BODY_GOODBYE:
            broker->goodbyes++;
            break;
        case MOOTHALL__ENVELOPE__BODY_PING:
            say_back(broker, MOOTHALL__ENVELOPE__BODY_PONG, &pong, e->correlation);
            break;
        default:
            CHECK(false);
        }
    }
    return true;
}

static struct hall_side side;

static struct hall *setup(struct broker *broker, int64_t timeout_ms)
{
    struct hall_config config = {
        .role = MOOTHALL__ROLE__CLIENT, .timeout_ms = timeout_ms, .silent = true, .side = &side
    };
    struct hall *hall;
    struct err err = { 0 };

    broker->context = link_context_new();
    snprintf(broker->endpoint, sizeof broker->endpoint, "ipc:///tmp/moothall-client-hall-%d", (int)getpid());
    CHECK(link_bind(&broker->link, broker->context, broker->endpoint, &err));
    link_message_init(&broker->message);
    side = (struct hall_side){ .turn = broker_turn, .arg = broker };
    config.endpoint = broker->endpoint;
    CHECK(hall_new(&hall, broker->context, &config, &err));
    return hall;
}

static void teardown(struct broker *broker, struct hall *hall)
{
    hall_free(hall);
    link_message_fini(&broker->message);
    link_free(broker->link);
    link_context_free(broker->context);
    unlink(broker->endpoint + 6);
}

static const struct hall_submission submission = { .queue = "q", .batch = "b", .batch_total = 10000 };

static bool submit(struct hall *hall, uint32_t number, size_t size, struct err *err)
{
    static char body[HALL_GROUP_BYTES_MAX];
    char id[16];
    struct hall_job job = { .id = id,
                            .custom_id = "",
                            .endpoint = "/v1/completions",
                            .position = number,
                            .body = span_of(body, size) };

    snprintf(id, sizeof id, "%u", number);
    return hall_submit(hall, &submission, &job, err);
}

/* Submits are grouped: a message and a commit for each job would be slow. */
static void test_jobs_go_in_bounded_groups(void **state)
{
    struct broker broker = { 0 };
    struct hall *hall = setup(&broker, 5000);
    struct err err = { 0 };

    (void)state;
    for (uint32_t i = 0; i < 1000; i++)
        CHECK(submit(hall, i, 100, &err));
    CHECK(hall_submit_end(hall, &submission, &err));
    CHECK(broker.jobs == 1000 && broker.submits == 4);
    CHECK(hall_tally(hall).accepted == 1000);
    for (uint32_t i = 0; i < 3; i++) /* by bytes too */
        CHECK(submit(hall, 1000 + i, HALL_GROUP_BYTES_MAX, &err));
    CHECK(hall_submit_end(hall, &submission, &err));
    CHECK(broker.jobs == 1003 && broker.submits == 7);
    teardown(&broker, hall);
}

/* An answer that was lost must not lose the jobs, nor count them twice. */
static void test_what_is_unanswered_is_sent_again_after_a_new_welcome(void **state)
{
    struct broker broker = { .swallow = 1, .forget_after = 1 };
    struct hall *hall = setup(&broker, 5000);
    struct err err = { 0 };

    (void)state;
    for (uint32_t i = 0; i < 300; i++)
        CHECK(submit(hall, i, 10, &err));
    CHECK(hall_submit_end(hall, &submission, &err));
    CHECK(broker.hellos == 2 && broker.submits == 4); /* one swallowed, one met with NEED_HELLO, both again */
    CHECK(hall_tally(hall).accepted == 300);
    teardown(&broker, hall);
}

/* Beyond the window the broker may drop a session: the client keeps to it. */
static void test_the_window_is_kept(void **state)
{
    struct broker broker = { .hold = true, .window = 2 };
    struct hall *hall = setup(&broker, 5000);
    struct err err = { 0 };
    struct hall_welcome welcome;

    (void)state;
    CHECK(hall_open(hall, &welcome, &err) && welcome.hall == 9 && welcome.window == 2);
    for (uint32_t i = 0; i < 2 * HALL_GROUP_JOBS_MAX + 1; i++)
        CHECK(submit(hall, i, 10, &err));
    for (int i = 0; i < 20; i++) {
        broker_turn(&broker, &err);
        CHECK(hall_turn(hall, &err));
        usleep(1000);
    }
    CHECK(broker.held_count == 2 && hall_unanswered(hall) == 2);
    for (int i = 0; i < 2; i++)
        accept_jobs(&broker, broker.held[i], broker.held_jobs[i]);
    broker.hold = false;
    CHECK(hall_submit_end(hall, &submission, &err));
    CHECK(hall_tally(hall).accepted == 2 * HALL_GROUP_JOBS_MAX + 1);
    teardown(&broker, hall);
}

/* A full disk is a wait, not a loss; the jobs that were taken are counted once. */
static void test_jobs_turned_away_are_offered_again(void **state)
{
    struct broker broker = { .turn_away = 2 };
    struct hall *hall = setup(&broker, 10000);
    struct err err = { 0 };

    (void)state;
    for (uint32_t i = 0; i < 5; i++)
        CHECK(submit(hall, i, 10, &err));
    CHECK(hall_submit_end(hall, &submission, &err));
    CHECK(broker.submits == 3 && hall_tally(hall).accepted == 5);
    teardown(&broker, hall);
}

/* A batch that was cancelled would turn them away for ever: the client must say so, not wait. */
static void test_a_closed_batch_is_not_waited_for(void **state)
{
    struct broker broker = { .turn_away = 100, .closed = true };
    struct hall *hall = setup(&broker, 10000);
    struct err err = { 0 };

    (void)state;
    CHECK(submit(hall, 0, 10, &err));
    CHECK(!hall_submit_end(hall, &submission, &err));
    CHECK(err.code == ERR_REFUSED && strstr(err.text, "batch b takes no more") && broker.submits == 1);
    teardown(&broker, hall);
}

struct watch {
    struct broker *broker;
    struct hall *hall;
    uint32_t unanswered_max;
};

/* The client waits: how much is under way?  Then all of it is answered. */
static bool watch_turn(void *arg, struct err *err)
{
    struct watch *watch = arg;
    struct broker *broker = watch->broker;

    if (hall_unanswered(watch->hall) > watch->unanswered_max)
        watch->unanswered_max = hall_unanswered(watch->hall);
    broker_turn(broker, err);
    while (broker->held_count) {
        broker->held_count--;
        accept_jobs(broker, broker->held[broker->held_count], broker->held_jobs[broker->held_count]);
    }
    return true;
}

/* A file larger than memory must not be held there because a broker is slow: the window is in bytes, too. */
static void test_what_is_under_way_is_bounded(void **state)
{
    enum { JOBS = 40 * HALL_GROUP_JOBS_MAX, SIZE = 100 };
    struct broker broker = { .hold = true, .window = 64 };
    struct hall *hall = setup(&broker, 20000);
    struct watch watch = { .broker = &broker, .hall = hall };
    struct err err = { 0 };

    (void)state;
    side = (struct hall_side){ .turn = watch_turn, .arg = &watch };
    for (uint32_t i = 0; i < JOBS; i++)
        CHECK(submit(hall, i, SIZE, &err));
    CHECK(hall_submit_end(hall, &submission, &err) && hall_tally(hall).accepted == JOBS);
    CHECK(watch.unanswered_max >= 2);
    CHECK(watch.unanswered_max * HALL_GROUP_JOBS_MAX * SIZE <= HALL_UNANSWERED_BYTES_MAX);
    teardown(&broker, hall);
}

static void test_priority_and_times_are_sent(void **state)
{
    struct hall_submission urgent = submission;
    struct hall_job job = { .id = "1", .custom_id = "", .endpoint = "/v1/completions", .body = span_of("x", 1) };
    struct broker broker = { 0 };
    struct hall *hall = setup(&broker, 5000);
    struct err err = { 0 };

    (void)state;
    urgent.priority = 1;
    urgent.deadline_ms = 12345;
    CHECK(hall_submit(hall, &urgent, &job, &err) && hall_submit_end(hall, &urgent, &err));
    CHECK(broker.priority == 1 && broker.deadline_ms == 12345);
    teardown(&broker, hall);
}

static void test_the_first_conflict_is_named(void **state)
{
    struct broker broker = { .conflict = true };
    struct hall *hall = setup(&broker, 5000);
    struct err err = { 0 };

    (void)state;
    for (uint32_t i = 0; i < 300; i++)
        CHECK(submit(hall, 1000 + i, 10, &err));
    CHECK(hall_submit_end(hall, &submission, &err));
    CHECK(hall_tally(hall).conflict == 2 && hall_tally(hall).conflict_position == 1001);
    teardown(&broker, hall);
}

static void test_an_answer_and_a_refusal(void **state)
{
    struct broker broker = { 0 };
    struct hall *hall = setup(&broker, 5000);
    struct err err = { 0 };
    Moothall__Fetch fetch = MOOTHALL__FETCH__INIT;
    const struct link_message *answer;

    (void)state;
    fetch.from = 5;
    CHECK(hall_ask(hall, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, MOOTHALL__ENVELOPE__BODY_ENTRIES, &answer,
                   &err));
    CHECK(answer->envelope->entries->next == 6);
    fetch.from = 77;
    CHECK(!hall_ask(hall, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, MOOTHALL__ENVELOPE__BODY_ENTRIES, &answer,
                    &err));
    CHECK(err.code == ERR_NOT_FOUND && strstr(err.text, "no batch x"));
    fetch.from = 6; /* the session goes on */
    CHECK(hall_ask(hall, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, MOOTHALL__ENVELOPE__BODY_ENTRIES, &answer,
                   &err));
    teardown(&broker, hall);
}

/* A broker drops such a message unanswered: whoever mistyped a name would wait for ever. */
static void test_a_name_that_is_not_utf8_is_never_sent(void **state)
{
    static char good[] = "b", bad[] = "b\xff", *jobs[] = { good, bad };
    struct hall_submission unnamed = submission;
    struct hall_job job = { .id = "1", .custom_id = "", .endpoint = "/v1/completions", .body = span_of("x", 1) };
    struct broker broker = { 0 };
    struct hall *hall = setup(&broker, 5000);
    struct err err = { 0 };
    Moothall__Fetch fetch = MOOTHALL__FETCH__INIT;

    (void)state;
    fetch.from = 5;
    fetch.batch = bad;
    CHECK(!hall_ask(hall, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, MOOTHALL__ENVELOPE__BODY_ENTRIES, NULL, &err));
    CHECK(err.code == ERR_INPUT && strstr(err.text, "batch is not"));
    fetch.batch = good;
    fetch.job = jobs;
    fetch.n_job = 2;
    CHECK(!hall_ask(hall, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, MOOTHALL__ENVELOPE__BODY_ENTRIES, NULL, &err));
    CHECK(err.code == ERR_INPUT && strstr(err.text, "job is not"));
    fetch.n_job = 1;
    CHECK(hall_ask(hall, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, MOOTHALL__ENVELOPE__BODY_ENTRIES, NULL, &err));
    unnamed.queue = bad;
    CHECK(!hall_submit(hall, &unnamed, &job, &err) && err.code == ERR_INPUT && strstr(err.text, "queue is not"));
    teardown(&broker, hall);
}

static void test_a_broker_that_will_never_have_us_ends_the_call(void **state)
{
    struct broker broker = { .refuse = true };
    struct hall *hall = setup(&broker, 5000);
    struct err err = { 0 };

    (void)state;
    CHECK(!hall_open(hall, NULL, &err) && err.code == ERR_REFUSED &&
          strstr(err.text, "another model lives here"));
    teardown(&broker, hall);
}

/* Silence in greeting: a new connection, with a new Hello. */
static void test_a_silent_broker_is_greeted_again_until_the_timeout(void **state)
{
    struct broker broker = { .welcome_after = 1 }, silent = { .welcome_after = 1000 };
    struct hall *hall = setup(&broker, 10000);
    struct err err = { 0 };
    int64_t begin_ms;

    (void)state;
    CHECK(hall_open(hall, NULL, &err) && broker.hellos == 2);
    teardown(&broker, hall);
    hall = setup(&silent, 300);
    begin_ms = clock_now_ms();
    CHECK(!hall_open(hall, NULL, &err) && err.code == ERR_TIMEOUT && strstr(err.text, silent.endpoint));
    CHECK(clock_now_ms() - begin_ms < 2000);
    teardown(&silent, hall);
}

static bool stop_turn(void *arg, struct err *err)
{
    int *turns = arg;

    return ++*turns < 3 || err_set(err, ERR_INTERRUPTED, "enough");
}

/* ^C must end a call that waits for a broker that is not there. */
static void test_the_side_may_end_a_call(void **state)
{
    struct hall_config config = { .role = MOOTHALL__ROLE__CLIENT,
                                  .timeout_ms = -1,
                                  .silent = true,
                                  .endpoint = "ipc:///tmp/moothall-nobody" };
    struct hall_side stopping = { .turn = stop_turn };
    struct link_context *context = link_context_new();
    struct hall *hall;
    struct err err = { 0 };
    int turns = 0;

    (void)state;
    stopping.arg = &turns;
    config.side = &stopping;
    CHECK(hall_new(&hall, context, &config, &err));
    CHECK(!hall_open(hall, NULL, &err) && err.code == ERR_INTERRUPTED);
    hall_free(hall);
    config.endpoint = "tpc://nowhere:1";
    CHECK(!hall_new(&hall, context, &config, &err) && err.code == ERR_INPUT);
    config.endpoint = "";
    CHECK(!hall_new(&hall, context, &config, &err) && strstr(err.text, "--broker"));
    link_context_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jobs_go_in_bounded_groups),
        cmocka_unit_test(test_what_is_unanswered_is_sent_again_after_a_new_welcome),
        cmocka_unit_test(test_the_window_is_kept),
        cmocka_unit_test(test_jobs_turned_away_are_offered_again),
        cmocka_unit_test(test_a_closed_batch_is_not_waited_for),
        cmocka_unit_test(test_what_is_under_way_is_bounded),
        cmocka_unit_test(test_priority_and_times_are_sent),
        cmocka_unit_test(test_the_first_conflict_is_named),
        cmocka_unit_test(test_an_answer_and_a_refusal),
        cmocka_unit_test(test_a_name_that_is_not_utf8_is_never_sent),
        cmocka_unit_test(test_a_broker_that_will_never_have_us_ends_the_call),
        cmocka_unit_test(test_a_silent_broker_is_greeted_again_until_the_timeout),
        cmocka_unit_test(test_the_side_may_end_a_call),
    };

    CHECK(sodium_init() >= 0);
    say_init(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
