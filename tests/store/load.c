/* load - how many jobs a second go through a broker: durable submits, and whole lives.
 *
 *     MOOTHALL_BROKER=build/moothall-broker build/tests/broker_load DIRECTORY [SECONDS]
 *
 * 16 clients with 16 submits in flight each, one job of 1 KiB a message, every one acknowledged after its
 * commit. Then the same with two workers that answer at once (1 KiB) and a consumer that fetches.  One JSON
 * line a case. Everything but the broker is one thread, so the figure is the broker's as long as this stays
 * below a core. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tests/store/peer.h"

enum { CLIENTS = 16, IN_FLIGHT = 16, WORKERS = 2, BODY = 1024, CREDIT = 256 };

static char text[BODY];
static uint64_t next_job;

static void submit(struct peer *peer, const char *batch)
{
    Moothall__Submit m = MOOTHALL__SUBMIT__INIT;
    Moothall__NewJob job = MOOTHALL__NEW_JOB__INIT, *jobs[] = { &job };
    static char queue[] = "load";
    char id[48];

    /* Ids as clients make them: nothing like a sequence. */
    snprintf(id, sizeof id, "%016" PRIx64 "%016" PRIx64, next_job * UINT64_C(0x9e3779b97f4a7c15), next_job);
    job.id = job.custom_id = id;
    job.position = (uint32_t)(next_job++ % 10000000);
    job.size = BODY;
    m.queue = queue;
    m.batch = (char *)(uintptr_t)batch;
    m.batch_total = 10000000;
    m.job = jobs;
    m.n_job = 1;
    peer_send(peer, MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, span_of(text, BODY));
}

static void result(struct peer *peer, const Moothall__Lease *lease)
{
    Moothall__Result m = MOOTHALL__RESULT__INIT;

    m.job = lease->job;
    m.generation = lease->generation;
    m.fence = lease->fence;
    m.outcome = MOOTHALL__OUTCOME__FINISHED;
    peer_send(peer, MOOTHALL__ENVELOPE__BODY_RESULT, &m, span_of(text, BODY));
}

static void fetch(struct peer *peer, const char *batch, uint64_t from)
{
    Moothall__Fetch m = MOOTHALL__FETCH__INIT;
    static char queue[] = "load";

    m.queue = queue;
    m.batch = (char *)(uintptr_t)batch;
    m.from = from;
    m.wait_ms = 1000;
    peer_send(peer, MOOTHALL__ENVELOPE__BODY_FETCH, &m, (struct span){ 0 });
}

static bool measure(const char *endpoint, const char *batch, bool life, int seconds)
{
    struct peer peer[CLIENTS + WORKERS + 1];
    struct link *links[CLIENTS + WORKERS + 1];
    int peers = 0, worker_from, consumer = -1;
    uint64_t accepted = 0, refused = 0, done = 0, fetched = 0;
    int64_t start, end, beat;

    for (; peers < CLIENTS; peers++)
        if (!peer_client(&peer[peers], endpoint, "load"))
            return false;
    worker_from = peers;
    if (life) {
        for (; peers < CLIENTS + WORKERS; peers++)
            if (!peer_worker(&peer[peers], endpoint, peers % 2 ? "worker-1" : "worker-2", (uint64_t)peers,
                             CREDIT))
                return false;
        consumer = peers;
        if (!peer_client(&peer[peers++], endpoint, "consumer"))
            return false;
    }
    for (int i = 0; i < peers; i++)
        links[i] = peer[i].link;
    start = beat = clock_now_ms();
    end = start + seconds * 1000;
    for (int k = 0; k < IN_FLIGHT; k++)
        for (int i = 0; i < CLIENTS; i++)
            submit(&peer[i], batch);
    while (clock_now_ms() < end) {
        bool ready[CLIENTS + WORKERS + 1];

        link_wait(links, peers, NULL, 0, 100, ready);
        for (int i = 0; i < peers; i++)
            while (link_receive(peer[i].link, &peer[i].message)) {
                const Moothall__Envelope *e = peer[i].message.envelope;

                if (e->body_case == MOOTHALL__ENVELOPE__BODY_SUBMITTED) {
                    accepted += e->submitted->acceptance[0] == MOOTHALL__ACCEPTANCE__ACCEPTED;
                    if (accepted == 1 && consumer >= 0)
                        fetch(&peer[consumer], batch, 1);
                    submit(&peer[i], batch);
                } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_REFUSAL) {
                    if (!refused++)
                        fprintf(stderr, "refused: %s\n", e->refusal->text);
                } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_LEASE) {
                    result(&peer[i], e->lease);
                } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_STORED) {
                    done += e->stored->recorded;
                } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_ENTRIES) {
                    fetched += e->entries->n_entry;
                    fetch(&peer[i], batch, e->entries->next);
                }
            }
        if (clock_now_ms() - beat > 300) {
            Moothall__Heartbeat m = MOOTHALL__HEARTBEAT__INIT;
            Moothall__Ping ping = MOOTHALL__PING__INIT;

            beat = clock_now_ms();
            for (int i = 0; i < peers; i++)
                if (i >= worker_from && i != consumer)
                    peer_send(&peer[i], MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &m, (struct span){ 0 });
                else
                    peer_send(&peer[i], MOOTHALL__ENVELOPE__BODY_PING, &ping, (struct span){ 0 });
        }
    }
    printf("{\"bench\":\"queue\",\"case\":\"%s\",\"value\":%.0f,\"unit\":\"jobs/"
           "s\",\"clients\":%d,\"in_flight\":%d,\"body_bytes\":%d,"
           "\"durability\":\"fsync before the answer\",\"submitted\":%" PRIu64 ",\"done\":%" PRIu64
           ",\"fetched\":%" PRIu64 ",\"seconds\":%d}\n",
           life ? "life" : "submit", (double)(life ? fetched : accepted) / seconds, CLIENTS, IN_FLIGHT, BODY,
           accepted, done, fetched, seconds);
    fflush(stdout);
    for (int i = 0; i < peers; i++)
        peer_close(&peer[i]);
    return refused == 0;
}

/* Each case has a store of its own, so that neither works off what the other left. */
static bool run(const char *directory, const char *name, bool life, int seconds)
{
    struct broker broker;
    char store[4096];
    int status;
    bool ok;

    snprintf(store, sizeof store, "%s/%s.db", directory, name);
    if (!broker_start(&broker, store, NULL, &status)) {
        fprintf(stderr, "%s\n", broker.last_words);
        return false;
    }
    ok = measure(broker.endpoint, name, life, seconds);
    if (broker_stop(&broker) != 0) {
        fprintf(stderr, "%s\n", broker.last_words);
        ok = false;
    }
    return ok;
}

int main(int argc, char **argv)
{
    int seconds = argc > 2 ? atoi(argv[2]) : 5;

    if (argc < 2 || seconds < 1) {
        fprintf(stderr, "usage: %s DIRECTORY [SECONDS]\n", argv[0]);
        return 1;
    }
    memset(text, 'x', sizeof text);
    return run(argv[1], "submit", false, seconds) && run(argv[1], "life", true, seconds) ? 0 : 1;
}
