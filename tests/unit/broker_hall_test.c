/* The hall with both its threads in this process, so that the thread sanitizer sees them meet. */

#include "tests/check.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/hall.h"
#include "proto/link.h"

static struct {
    char directory[128], store[160];
    struct hall *hall;
    int stop_fd;
    pthread_t thread;
    bool ended_well;
    struct link_context *context;
} here;

static void *run_hall(void *unused)
{
    struct err err = { 0 };

    (void)unused;
    here.ended_well = hall_run(here.hall, here.stop_fd, -1, &err);
    return NULL;
}

static int set_up(void **state)
{
    char *argv[] = { (char[]){ "broker" }, NULL };
    struct broker_config config;
    struct err err = { 0 };

    (void)state;
    snprintf(here.directory, sizeof here.directory, "/tmp/moothall-hall-XXXXXX");
    CHECK(mkdtemp(here.directory));
    snprintf(here.store, sizeof here.store, "%s/hall.db", here.directory);
    CHECK(broker_config_read(&config, 1, argv, &err));
    snprintf(config.listen, sizeof config.listen, "tcp://127.0.0.1:*");
    snprintf(config.store, sizeof config.store, "%s", here.store);
    config.heartbeat_ms = 300;
    config.lease_ms = 2000;
    config.settle_ms = 0;
    config.ballast_bytes = 256 << 10;
    if (!hall_open(&here.hall, &config, &err))
        fail_msg("%s", err.text);
    here.stop_fd = eventfd(0, 0);
    CHECK(pthread_create(&here.thread, NULL, run_hall, NULL) == 0);
    here.context = link_context_new();
    return 0;
}

static int tear_down(void **state)
{
    uint64_t one = 1;
    char path[200];

    (void)state;
    CHECK(write(here.stop_fd, &one, sizeof one) == sizeof one);
    pthread_join(here.thread, NULL);
    CHECK(here.ended_well);
    hall_free(here.hall);
    close(here.stop_fd);
    link_context_free(here.context);
    unlink(here.store);
    snprintf(path, sizeof path, "%s.ballast", here.store);
    unlink(path);
    CHECK(rmdir(here.directory) == 0); /* nothing else was left */
    return 0;
}

/* ---- a peer ---- */

struct peer {
    struct link *link;
    struct link_message message;
};

static void open_peer(struct peer *peer)
{
    struct err err;

    link_message_init(&peer->message);
    CHECK(link_connect(&peer->link, here.context, hall_endpoint(here.hall), &err));
}

static void close_peer(struct peer *peer)
{
    link_free(peer->link);
    link_message_fini(&peer->message);
}

static void send_message(struct peer *peer, Moothall__Envelope__BodyCase kind, void *body,
                         struct span payload)
{
    Moothall__Envelope e;

    link_envelope(&e, kind, body, 9);
    for (int i = 0; link_send(peer->link, NULL, &e, payload) != LINK_SENT; i++) {
        CHECK(i < 2000);
        usleep(2000);
    }
}

/* The next message of that kind; anything else is dropped. */
static const Moothall__Envelope *expect(struct peer *peer, Moothall__Envelope__BodyCase kind)
{
    int64_t until = clock_now_ms() + 20000;

    while (clock_now_ms() < until) {
        if (link_receive(peer->link, &peer->message)) {
            if (peer->message.envelope->body_case == kind)
                return peer->message.envelope;
        } else {
            link_wait(&peer->link, 1, NULL, 0, 100, NULL);
        }
    }
    fail_msg("no message of kind %d came", (int)kind);
    return NULL;
}

static void hello(struct peer *peer, Moothall__Role role, const char *name)
{
    static uint8_t fingerprint[32] = { 5 };
    static char family[] = "test", *families[] = { family };
    Moothall__Hello m = MOOTHALL__HELLO__INIT;
    Moothall__WorkerOffer offer = MOOTHALL__WORKER_OFFER__INIT;

    m.role = role;
    m.name = (char *)(uintptr_t)name;
    if (role == MOOTHALL__ROLE__WORKER) {
        m.fingerprint.data = fingerprint;
        m.fingerprint.len = 32;
        m.offer = &offer;
        offer.families = families;
        offer.n_families = 1;
    }
    open_peer(peer);
    send_message(peer, MOOTHALL__ENVELOPE__BODY_HELLO, &m, (struct span){ 0 });
}

static void submit(struct peer *peer, const char *id, uint32_t position)
{
    Moothall__Submit m = MOOTHALL__SUBMIT__INIT;
    Moothall__NewJob job = MOOTHALL__NEW_JOB__INIT, *jobs[] = { &job };
    static char queue[] = "q", batch[] = "b";

    m.queue = queue;
    m.batch = batch;
    m.batch_total = 1000;
    m.job = jobs;
    m.n_job = 1;
    job.id = (char *)(uintptr_t)id;
    job.position = position;
    job.size = 4;
    send_message(peer, MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, span_text("body"));
}

static void expect_refusal(struct peer *peer, Moothall__RefusalCode code, const char *words)
{
    const Moothall__Refusal *refusal = expect(peer, MOOTHALL__ENVELOPE__BODY_REFUSAL)->refusal;

    if (refusal->code != code || !strstr(refusal->text, words))
        fail_msg("refused with %d `%s`, expected %d `%s`", (int)refusal->code, refusal->text, (int)code,
                 words);
    CHECK(peer->message.envelope->correlation == 9);
}

/* ---- what it does ---- */

/* Clients, workers and a reader at once; every job's one entry arrives. */
static void test_jobs_of_many_clients_all_come_back(void **state)
{
    enum { CLIENTS = 4, WORKERS = 2, JOBS = 100 };
    struct peer client[CLIENTS], worker[WORKERS], reader;
    struct link *links[CLIENTS + WORKERS + 1];
    Moothall__Fetch fetch = MOOTHALL__FETCH__INIT;
    static char queue[] = "q", batch[] = "b";
    int64_t until = clock_now_ms() + 60000, beat = 0;
    int acknowledged = 0, stored = 0, seen = 0;
    bool fetching = false;

    (void)state;
    for (int i = 0; i < CLIENTS; i++) {
        hello(&client[i], MOOTHALL__ROLE__CLIENT, "c");
        expect(&client[i], MOOTHALL__ENVELOPE__BODY_WELCOME);
    }
    for (int i = 0; i < WORKERS; i++) {
        Moothall__Credit credit = MOOTHALL__CREDIT__INIT;

        credit.jobs = 16;
        hello(&worker[i], MOOTHALL__ROLE__WORKER, i ? "w1" : "w0");
        expect(&worker[i], MOOTHALL__ENVELOPE__BODY_WELCOME);
        send_message(&worker[i], MOOTHALL__ENVELOPE__BODY_CREDIT, &credit, (struct span){ 0 });
    }
    hello(&reader, MOOTHALL__ROLE__CLIENT, "r");
    expect(&reader, MOOTHALL__ENVELOPE__BODY_WELCOME);
    for (int k = 0; k < JOBS; k++)
        for (int i = 0; i < CLIENTS; i++) {
            char id[16];

            snprintf(id, sizeof id, "c%dj%d", i, k);
            submit(&client[i], id, (uint32_t)(i * JOBS + k));
        }
    for (int i = 0; i < CLIENTS; i++)
        links[i] = client[i].link;
    links[CLIENTS] = worker[0].link;
    links[CLIENTS + 1] = worker[1].link;
    links[CLIENTS + 2] = reader.link;
    while (seen < CLIENTS * JOBS) {
        CHECK(clock_now_ms() < until);
        link_wait(links, CLIENTS + WORKERS + 1, NULL, 0, 50, NULL);
        for (int i = 0; i < CLIENTS; i++)
            while (link_receive(client[i].link, &client[i].message))
                if (client[i].message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_SUBMITTED)
                    acknowledged++;
        for (int i = 0; i < WORKERS; i++)
            while (link_receive(worker[i].link, &worker[i].message)) {
                const Moothall__Envelope *e = worker[i].message.envelope;
                Moothall__Result m = MOOTHALL__RESULT__INIT;
                Moothall__Seated seated = MOOTHALL__SEATED__INIT;

                if (e->body_case == MOOTHALL__ENVELOPE__BODY_MAP) {
                    seated.epoch = e->map->epoch;
                    send_message(&worker[i], MOOTHALL__ENVELOPE__BODY_SEATED, &seated, (struct span){ 0 });
                } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_LEASE) {
                    CHECK(span_equal(worker[i].message.payload, span_text("body")));
                    m.job = e->lease->job;
                    m.generation = e->lease->generation;
                    m.fence = e->lease->fence;
                    m.outcome = MOOTHALL__OUTCOME__FINISHED;
                    send_message(&worker[i], MOOTHALL__ENVELOPE__BODY_RESULT, &m, span_text("answer"));
                } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_STORED) {
                    stored += e->stored->recorded;
                }
            }
        while (link_receive(reader.link, &reader.message)) {
            const Moothall__Envelope *e = reader.message.envelope;

            if (e->body_case != MOOTHALL__ENVELOPE__BODY_ENTRIES)
                continue;
            for (size_t k = 0; k < e->entries->n_entry; k++)
                CHECK(e->entries->entry[k]->number == (uint64_t)++seen);
            fetch.from = e->entries->next;
            fetching = false;
        }
        if (!fetching && acknowledged > 0) {
            fetch.queue = queue;
            fetch.batch = batch;
            fetch.wait_ms = 1000;
            send_message(&reader, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, (struct span){ 0 });
            fetching = true;
        }
        if (clock_now_ms() > beat) {
            Moothall__Heartbeat m = MOOTHALL__HEARTBEAT__INIT;
            Moothall__Ping ping = MOOTHALL__PING__INIT;

            beat = clock_now_ms() + 50;
            for (int i = 0; i < WORKERS; i++)
                send_message(&worker[i], MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &m, (struct span){ 0 });
            for (int i = 0; i < CLIENTS; i++)
                send_message(&client[i], MOOTHALL__ENVELOPE__BODY_PING, &ping, (struct span){ 0 });
            send_message(&reader, MOOTHALL__ENVELOPE__BODY_PING, &ping, (struct span){ 0 });
        }
    }
    CHECK(acknowledged == CLIENTS * JOBS && stored == CLIENTS * JOBS);
    for (int i = 0; i < CLIENTS; i++)
        close_peer(&client[i]);
    for (int i = 0; i < WORKERS; i++)
        close_peer(&worker[i]);
    close_peer(&reader);
}

/* A worker must learn that a lease is no longer its own, whatever it believes. */
static void test_heartbeat_is_answered_with_what_was_dropped(void **state)
{
    Moothall__Heartbeat m = MOOTHALL__HEARTBEAT__INIT;
    uint64_t held[] = { 17, 4711 };
    const Moothall__HeartbeatReply *reply;
    struct peer worker;

    (void)state;
    hello(&worker, MOOTHALL__ROLE__WORKER, "w");
    expect(&worker, MOOTHALL__ENVELOPE__BODY_WELCOME);
    m.held = held;
    m.n_held = 2;
    send_message(&worker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &m, (struct span){ 0 });
    reply = expect(&worker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY)->heartbeat_reply;
    CHECK(reply->n_dropped == 2 && reply->dropped[0] == 17 && reply->dropped[1] == 4711);
    close_peer(&worker);
}

/* A cancelled job is not worked on until the next heartbeat: its worker is told at once. */
static void test_worker_hears_of_a_cancel_without_asking(void **state)
{
    Moothall__Credit credit = MOOTHALL__CREDIT__INIT;
    Moothall__Seated seated = MOOTHALL__SEATED__INIT;
    Moothall__Cancel cancel = MOOTHALL__CANCEL__INIT;
    static char q[] = "q", b[] = "b";
    const Moothall__HeartbeatReply *reply;
    struct peer client, worker;
    uint64_t fence;

    (void)state;
    hello(&worker, MOOTHALL__ROLE__WORKER, "w");
    expect(&worker, MOOTHALL__ENVELOPE__BODY_WELCOME);
    credit.jobs = 1;
    send_message(&worker, MOOTHALL__ENVELOPE__BODY_CREDIT, &credit, (struct span){ 0 });
    seated.epoch = expect(&worker, MOOTHALL__ENVELOPE__BODY_MAP)->map->epoch;
    send_message(&worker, MOOTHALL__ENVELOPE__BODY_SEATED, &seated, (struct span){ 0 });
    hello(&client, MOOTHALL__ROLE__CLIENT, "c");
    expect(&client, MOOTHALL__ENVELOPE__BODY_WELCOME);
    submit(&client, "j", 0);
    expect(&client, MOOTHALL__ENVELOPE__BODY_SUBMITTED);
    fence = expect(&worker, MOOTHALL__ENVELOPE__BODY_LEASE)->lease->fence;
    cancel.queue = q;
    cancel.batch = b;
    send_message(&client, MOOTHALL__ENVELOPE__BODY_CANCEL, &cancel, (struct span){ 0 });
    CHECK(expect(&client, MOOTHALL__ENVELOPE__BODY_CANCELLED)->cancelled->jobs == 1);
    reply = expect(&worker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY)->heartbeat_reply;
    CHECK(reply->n_dropped == 1 && reply->dropped[0] == fence);
    close_peer(&client);
    close_peer(&worker);
}

static void test_session_rules_are_kept(void **state)
{
    Moothall__Hello m = MOOTHALL__HELLO__INIT;
    Moothall__Death death = MOOTHALL__DEATH__INIT;
    Moothall__Ping ping = MOOTHALL__PING__INIT;
    static char w[] = "w", none[] = "";
    struct peer peer;

    (void)state;
    /* Before Hello nothing is heard. */
    open_peer(&peer);
    submit(&peer, "j", 0);
    expect_refusal(&peer, MOOTHALL__REFUSAL_CODE__NEED_HELLO, "say Hello");
    m.role = MOOTHALL__ROLE__CLIENT;
    m.minor_min = 3;
    m.minor_max = 4;
    send_message(&peer, MOOTHALL__ENVELOPE__BODY_HELLO, &m, (struct span){ 0 });
    expect_refusal(&peer, MOOTHALL__REFUSAL_CODE__BAD_VERSION,
                   "protocol 1.3 to 1.4 is spoken there, 1.0 to 1.0 here");
    m.minor_min = 0;
    send_message(&peer, MOOTHALL__ENVELOPE__BODY_HELLO, &m, (struct span){ 0 });
    CHECK(expect(&peer, MOOTHALL__ENVELOPE__BODY_WELCOME)->welcome->heartbeat_ms == 300);
    /* A client says only what clients say; a bad field does not end its session. */
    death.worker = w;
    send_message(&peer, MOOTHALL__ENVELOPE__BODY_DEATH, &death, (struct span){ 0 });
    expect_refusal(&peer, MOOTHALL__REFUSAL_CODE__WRONG_ROLE, "role");
    submit(&peer, none, 0);
    expect_refusal(&peer, MOOTHALL__REFUSAL_CODE__BAD_MESSAGE, "submit.job[0].id");
    submit(&peer, "j", 0);
    CHECK(expect(&peer, MOOTHALL__ENVELOPE__BODY_SUBMITTED)->submitted->acceptance[0] ==
          MOOTHALL__ACCEPTANCE__ACCEPTED);
    /* Silent for five heartbeats: the session is over. */
    usleep(2000000);
    send_message(&peer, MOOTHALL__ENVELOPE__BODY_PING, &ping, (struct span){ 0 });
    expect_refusal(&peer, MOOTHALL__REFUSAL_CODE__NEED_HELLO, "");
    close_peer(&peer);
}

/* A worker that is killed and comes back at once finds its name free: its old connection is tried, not
 * trusted. */
static void test_name_is_free_as_soon_as_the_connection_is_gone(void **state)
{
    struct peer first, second;

    (void)state;
    hello(&first, MOOTHALL__ROLE__WORKER, "w");
    expect(&first, MOOTHALL__ENVELOPE__BODY_WELCOME);
    close_peer(&first); /* no Goodbye */
    usleep(20000);
    {
        static uint8_t fingerprint[32] = { 5 };
        static char family[] = "test", *families[] = { family }, name[] = "w";
        Moothall__Hello m = MOOTHALL__HELLO__INIT;
        Moothall__WorkerOffer offer = MOOTHALL__WORKER_OFFER__INIT;

        m.role = MOOTHALL__ROLE__WORKER;
        m.name = name;
        m.incarnation = 2;
        m.fingerprint.data = fingerprint;
        m.fingerprint.len = 32;
        m.offer = &offer;
        offer.families = families;
        offer.n_families = 1;
        open_peer(&second);
        send_message(&second, MOOTHALL__ENVELOPE__BODY_HELLO, &m, (struct span){ 0 });
        for (int i = 0; i < 50; i++) { /* refused for as long as the old one seems to live: ask again */
            CHECK(link_wait(&second.link, 1, NULL, 0, 10000, NULL));
            if (!link_receive(second.link, &second.message))
                continue;
            if (second.message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_WELCOME)
                break;
            usleep(20000);
            send_message(&second, MOOTHALL__ENVELOPE__BODY_HELLO, &m, (struct span){ 0 });
        }
        CHECK(second.message.envelope &&
              second.message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_WELCOME);
    }
    close_peer(&second);
}

int main(void)
{
#define PROMISE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        PROMISE(test_jobs_of_many_clients_all_come_back),
        PROMISE(test_heartbeat_is_answered_with_what_was_dropped),
        PROMISE(test_worker_hears_of_a_cancel_without_asking),
        PROMISE(test_session_rules_are_kept),
        PROMISE(test_name_is_free_as_soon_as_the_connection_is_gone),
    };

    log_init("test", LOG_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
