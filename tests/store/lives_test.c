/* lives - the whole life of a job at random: submitted, updated, delayed, overdue, leased, finished,
 * hindered, cancelled alone or with its batch, retried, purged, in queues that are paused and resumed, under
 * a broker that is killed in the midst of it.
 *
 *     MOOTHALL_BROKER=build/moothall-broker build/tests/lives_test [STEPS [SEED]]
 *
 * What was answered must stay true: nothing of a cancelled batch is leased until a retry; a result that was
 * called stored is the entry of its generation, until it is purged; an entry keeps its number; and in the end
 * every generation that ended has exactly one entry.  The seed (printed when it fails) decides what happens
 * when. */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/store/peer.h"

enum { BATCHES = 3, JOBS = 80, GENERATIONS = 512, CREDIT = 6, HELD_MAX = 64 };

static const char *const queue_of[BATCHES] = { "q", "q", "r" };

struct held {
    uint64_t fence;
    uint32_t generation;
    char job[16];
    int batch, number, nonce;
};

/* What was promised: by batch, job and generation. */
static int stored[BATCHES][JOBS][GENERATIONS]; /* the nonce of the result that was called stored */
static int entries[BATCHES][JOBS][GENERATIONS];
static bool closed[BATCHES]; /* cancelled as a whole, and no retry was asked for since */

static int steps, nonce, kills, leases, cancels, retries, purges;
static uint64_t seed, random_state, incarnation;
static char store[256];
static struct broker broker;
static struct peer client, worker;

static struct held held[HELD_MAX];
static int held_count;

static uint32_t draw(uint32_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 20) % below;
}

#define MUST(condition, ...)                                                                                 \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "lives: " __VA_ARGS__);                                                          \
            fprintf(stderr, "\n(%s:%d, %d steps, seed %" PRIu64 ", store %s)\n", __FILE__, __LINE__, steps,  \
                    seed, store);                                                                            \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static void start(void)
{
    static const char *const flags[] = { "--workers=1",      "--log-level=error",
                                         "--infra-max=1000", "--backoff-ms=20ms",
                                         "--attempts-max=3", "--heartbeat-ms=1s",
                                         "--lease-ms=5s",    NULL };
    int status = 0;

    MUST(broker_start(&broker, store, flags, &status), "the broker does not start again: %s",
         broker.last_words);
    MUST(peer_client(&client, broker.endpoint, "lives"), "no Welcome");
    /* A new process each time: what the one before held is lost, as if it had died with the broker. */
    MUST(peer_worker(&worker, broker.endpoint, "w", ++incarnation, CREDIT), "no seat");
    held_count = 0;
}

static void restart(void)
{
    broker_kill(&broker);
    kills++;
    peer_close(&client);
    peer_close(&worker);
    start();
}

static const Moothall__Envelope *ask(Moothall__Envelope__BodyCase kind, void *body, struct span payload)
{
    MUST(peer_ask(&client, kind, body, payload), "a question of kind %d has no answer", (int)kind);
    return client.message.envelope;
}

/* ---- the worker ---- */

static void on_lease(const Moothall__Lease *m, struct span body)
{
    struct held *h = &held[held_count++];

    MUST(held_count < HELD_MAX, "more leases than credit");
    leases++;
    *h = (struct held){ .fence = m->fence, .generation = m->generation, .nonce = ++nonce };
    snprintf(h->job, sizeof h->job, "%s", m->job);
    MUST(sscanf((const char *)body.data, "%d %d ", &h->batch, &h->number) == 2 && body.size > 4 &&
             atoi(h->job + 1) == h->number,
         "job %s came with another body", m->job);
    MUST(!closed[h->batch], "job %s of batch %d was leased after its batch was cancelled", m->job, h->batch);
    MUST(!strcmp(m->queue, queue_of[h->batch]), "job %s came from queue %s", m->job, m->queue);
}

static void drop(uint64_t fence)
{
    for (int i = 0; i < held_count; i++)
        if (held[i].fence == fence && draw(3)) /* else it is just finished, and comes late */
            held[i--] = held[--held_count];
}

static void on_stored(const Moothall__Stored *m)
{
    for (int i = 0; i < held_count; i++) {
        struct held *h = &held[i];

        if (h->fence != m->fence)
            continue;
        if (m->recorded && h->generation < GENERATIONS)
            stored[h->batch][h->number][h->generation] = h->nonce;
        *h = held[--held_count];
        return;
    }
}

static void listen(int timeout_ms)
{
    while (peer_receive(&worker, timeout_ms)) {
        const Moothall__Envelope *e = worker.message.envelope;

        if (e->body_case == MOOTHALL__ENVELOPE__BODY_LEASE)
            on_lease(e->lease, worker.message.payload);
        else if (e->body_case == MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY)
            for (size_t i = 0; i < e->heartbeat_reply->n_dropped; i++)
                drop(e->heartbeat_reply->dropped[i]);
        timeout_ms = 0;
    }
}

/* Everything that the broker sent to the worker before this has been heard after it. */
static void barrier(void)
{
    Moothall__Heartbeat m = MOOTHALL__HEARTBEAT__INIT;
    uint64_t fences[HELD_MAX], correlation;

    for (int i = 0; i < held_count; i++)
        fences[m.n_held++] = held[i].fence;
    m.held = fences;
    correlation = peer_send(&worker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &m, (struct span){ 0 });
    for (;;) {
        const Moothall__Envelope *e;

        MUST(peer_receive(&worker, 10000), "a heartbeat has no answer");
        e = worker.message.envelope;
        if (e->body_case == MOOTHALL__ENVELOPE__BODY_LEASE)
            on_lease(e->lease, worker.message.payload);
        if (e->body_case == MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY) {
            for (size_t i = 0; i < e->heartbeat_reply->n_dropped; i++)
                drop(e->heartbeat_reply->dropped[i]);
            if (e->correlation == correlation)
                return;
        }
    }
}

/* wait: until it is answered; else the broker is killed before anybody knows. */
static void finish(struct held *h, Moothall__Outcome outcome, bool wait)
{
    Moothall__Result m = MOOTHALL__RESULT__INIT;
    static char reason[] = "because";
    uint64_t fence = h->fence;
    char body[64], job[16];

    snprintf(body, sizeof body, "%d %d number %d", h->batch, h->number, h->nonce);
    snprintf(job, sizeof job, "%s", h->job);
    m.job = job;
    m.generation = h->generation;
    m.fence = fence;
    m.outcome = outcome;
    m.reason = reason;
    peer_send(&worker, MOOTHALL__ENVELOPE__BODY_RESULT, &m,
              outcome == MOOTHALL__OUTCOME__HINDERED ? (struct span){ 0 } : span_text(body));
    while (wait) {
        const Moothall__Envelope *e;

        MUST(peer_receive(&worker, 10000), "a result has no answer");
        e = worker.message.envelope;
        if (e->body_case == MOOTHALL__ENVELOPE__BODY_LEASE) {
            on_lease(e->lease, worker.message.payload);
        } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_STORED) {
            if (outcome == MOOTHALL__OUTCOME__HINDERED && e->stored->recorded)
                for (int i = 0; i < held_count; i++)
                    if (held[i].fence == fence)
                        held[i].generation = GENERATIONS; /* nothing to find an entry of */
            on_stored(e->stored);
            return;
        }
    }
}

/* ---- the client ---- */

static void submit(bool wait)
{
    Moothall__Submit m = MOOTHALL__SUBMIT__INIT;
    Moothall__NewJob job[8], *jobs[8];
    int batch = (int)draw(BATCHES);
    char name[8], id[8][16], bodies[8 * 40];
    size_t size = 0;

    snprintf(name, sizeof name, "b%d", batch);
    m.queue = (char *)(uintptr_t)queue_of[batch];
    m.batch = name;
    m.batch_total = batch == 2 ? 0 : JOBS;
    m.mode = (Moothall__SubmitMode)(draw(4) == 0 ? draw(3) : 0);
    m.job = jobs;
    m.n_job = 1 + draw(8);
    for (size_t i = 0; i < m.n_job; i++) {
        int number = (int)draw(JOBS), n;

        moothall__new_job__init(&job[i]);
        jobs[i] = &job[i];
        snprintf(id[i], sizeof id[i], "j%d", number);
        n = snprintf(bodies + size, sizeof bodies - size, "%d %d body %d", batch, number,
                     m.mode == MOOTHALL__SUBMIT_MODE__UPDATE ? (int)draw(2) : 0);
        job[i].id = job[i].custom_id = id[i];
        job[i].position = batch == 2 ? UINT32_MAX : (uint32_t)number;
        job[i].size = (uint32_t)n;
        job[i].priority = draw(3);
        size += (size_t)n;
        if (draw(6) == 0)
            job[i].not_before_ms = clock_wall_ms() + draw(60);
        if (draw(6) == 0)
            job[i].deadline_ms = clock_wall_ms() + 1 + draw(80);
        if (draw(6) == 0)
            job[i].ready_ttl_ms = 1 + draw(80);
    }
    if (m.mode == MOOTHALL__SUBMIT_MODE__RETRY)
        closed[batch] = false;
    if (wait)
        MUST(ask(MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, span_of(bodies, size))->body_case ==
                 MOOTHALL__ENVELOPE__BODY_SUBMITTED,
             "a submit was refused: %s", client.message.envelope->refusal->text);
    else
        peer_send(&client, MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, span_of(bodies, size));
}

static void cancel(bool wait)
{
    Moothall__Cancel m = MOOTHALL__CANCEL__INIT;
    int batch = (int)draw(BATCHES);
    char name[8], id[16], *names[] = { id };
    const Moothall__Envelope *e;

    snprintf(name, sizeof name, "b%d", batch);
    snprintf(id, sizeof id, "j%u", draw(JOBS));
    m.queue = (char *)(uintptr_t)queue_of[batch];
    m.batch = name;
    m.job = names;
    m.n_job = draw(4) != 0;
    if (!wait) {
        peer_send(&client, MOOTHALL__ENVELOPE__BODY_CANCEL, &m, (struct span){ 0 });
        return;
    }
    e = ask(MOOTHALL__ENVELOPE__BODY_CANCEL, &m, (struct span){ 0 });
    cancels += e->body_case == MOOTHALL__ENVELOPE__BODY_CANCELLED;
    if (e->body_case == MOOTHALL__ENVELOPE__BODY_CANCELLED && m.n_job == 0) {
        barrier(); /* what was leased before the answer may still be on its way */
        closed[batch] = true;
    }
}

/* all: until nothing is left to be retried. */
static void retry(int batch, bool wait, bool all)
{
    Moothall__Retry m = MOOTHALL__RETRY__INIT;
    char name[8];

    snprintf(name, sizeof name, "b%d", batch);
    m.queue = (char *)(uintptr_t)queue_of[batch];
    m.batch = name;
    closed[batch] = false;
    if (!wait) {
        peer_send(&client, MOOTHALL__ENVELOPE__BODY_RETRY, &m, (struct span){ 0 });
        return;
    }
    for (int i = 0; i < 1000; i++) {
        const Moothall__Envelope *e = ask(MOOTHALL__ENVELOPE__BODY_RETRY, &m, (struct span){ 0 });

        if (e->body_case == MOOTHALL__ENVELOPE__BODY_RETRIED) {
            retries++;
            m.after = e->retried->next;
            if (m.after == 0)
                return;
        } else if (!all || e->refusal->code != MOOTHALL__REFUSAL_CODE__NO_ROOM) {
            return;
        } else {
            usleep(1000 * e->refusal->retry_after_ms); /* it is still being cancelled */
        }
    }
}

static void purge(bool wait)
{
    Moothall__Purge m = MOOTHALL__PURGE__INIT;
    int batch = (int)draw(BATCHES);
    char name[8];

    snprintf(name, sizeof name, "b%d", batch);
    m.queue = (char *)(uintptr_t)queue_of[batch];
    m.batch = draw(2) ? name : (char[]){ "" };
    m.older_than_ms = draw(2) ? 0 : draw(500);
    if (wait)
        purges += ask(MOOTHALL__ENVELOPE__BODY_PURGE, &m, (struct span){ 0 })->body_case ==
                  MOOTHALL__ENVELOPE__BODY_PURGED;
    else
        peer_send(&client, MOOTHALL__ENVELOPE__BODY_PURGE, &m, (struct span){ 0 });
}

static void pause_queue(const char *queue, bool pause, bool wait)
{
    Moothall__QueueSet m = MOOTHALL__QUEUE_SET__INIT;

    m.queue = (char *)(uintptr_t)queue;
    m.pause = pause ? MOOTHALL__QUEUE_SET__PAUSE__PAUSE : MOOTHALL__QUEUE_SET__PAUSE__RESUME;
    if (wait)
        ask(MOOTHALL__ENVELOPE__BODY_QUEUE_SET, &m, (struct span){ 0 });
    else
        peer_send(&client, MOOTHALL__ENVELOPE__BODY_QUEUE_SET, &m, (struct span){ 0 });
}

/* One thing.  Now and then the broker dies before the answer: then only what is on disk is true. */
static void step(void)
{
    bool wait = draw(12) != 0;

    switch (draw(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
        submit(wait);
        break;
    case 4:
        cancel(wait);
        break;
    case 5:
        retry((int)draw(BATCHES), wait, false);
        break;
    case 6:
        if (draw(3) == 0)
            purge(wait);
        break;
    case 7:
        pause_queue(queue_of[draw(BATCHES)], draw(3) == 0, wait);
        break;
    case 8:
        barrier();
        break;
    case 9:
        listen((int)draw(20));
        break;
    default:
        listen(0);
        if (held_count)
            finish(&held[draw((uint32_t)held_count)],
                   draw(4)   ? MOOTHALL__OUTCOME__FINISHED
                   : draw(2) ? MOOTHALL__OUTCOME__AT_FAULT
                             : MOOTHALL__OUTCOME__HINDERED,
                   wait);
        else
            listen(3);
    }
    if (!wait || draw(60) == 0)
        restart();
}

/* ---- in the end ---- */

static uint64_t unfinished(void)
{
    Moothall__StatusAsk m = MOOTHALL__STATUS_ASK__INIT;
    const Moothall__Counts *c =
        ask(MOOTHALL__ENVELOPE__BODY_STATUS_ASK, &m, (struct span){ 0 })->status->counts;

    return c->ready + c->leased + c->delayed;
}

static void read_all(const char *queue)
{
    Moothall__Fetch m = MOOTHALL__FETCH__INIT;
    uint64_t next = 1;

    m.queue = (char *)(uintptr_t)queue;
    for (;;) {
        const Moothall__Envelope *e;
        size_t at = 0;

        m.from = next;
        e = ask(MOOTHALL__ENVELOPE__BODY_FETCH, &m, (struct span){ 0 });
        if (e->body_case != MOOTHALL__ENVELOPE__BODY_ENTRIES || e->entries->n_entry == 0)
            return;
        for (size_t i = 0; i < e->entries->n_entry; i++) {
            const Moothall__Entry *entry = e->entries->entry[i];
            int batch = atoi(entry->batch + 1), job = atoi(entry->job + 1), found = 0;
            char body[64] = "";

            MUST(entry->number == next++, "entry %" PRIu64 " came where %" PRIu64 " was next", entry->number,
                 next - 1);
            MUST(entry->generation < GENERATIONS && entry->size < sizeof body,
                 "more generations than this test counts");
            memcpy(body, client.message.payload.data + at, entry->size);
            at += entry->size;
            entries[batch][job][entry->generation]++;
            if (entry->purged_ms) {
                MUST(entry->size == 0 && entry->status_code == 410, "a purged entry has a body");
                continue;
            }
            if (entry->state == MOOTHALL__STATE__DONE)
                MUST(sscanf(body, "%*d %*d number %d", &found) == 1, "job %s of %s has the result `%s`",
                     entry->job, entry->batch, body);
            if (stored[batch][job][entry->generation] && entry->state == MOOTHALL__STATE__DONE)
                MUST(stored[batch][job][entry->generation] == found,
                     "job %s of %s, generation %u: result %d was called stored, %d is there", entry->job,
                     entry->batch, entry->generation, stored[batch][job][entry->generation], found);
            MUST(!stored[batch][job][entry->generation] || entry->state == MOOTHALL__STATE__DONE ||
                     entry->state == MOOTHALL__STATE__FAILED,
                 "job %s of %s: its result was called stored, and it ended as %d", entry->job, entry->batch,
                 (int)entry->state);
        }
    }
}

int main(int argc, char **argv)
{
    char directory[] = "/tmp/moothall-lives-XXXXXX", path[300];
    int64_t began = clock_now_ms();
    Moothall__Audit audit;
    int twice = 0, lost = 0;

    steps = argc > 1 ? atoi(argv[1]) : 1500;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)clock_wall_ms();
    random_state = seed * 0x9e3779b97f4a7c15u | 1;
    if (steps < 1 || !mkdtemp(directory)) {
        fprintf(stderr, "usage: %s [STEPS [SEED]]\n", argv[0]);
        return 1;
    }
    snprintf(store, sizeof store, "%s/hall.db", directory);
    start();
    for (int i = 0; i < steps; i++)
        step();
    restart();
    /* Everything that can still be done is done. */
    for (int batch = 0; batch < BATCHES; batch++) {
        pause_queue(queue_of[batch], false, true);
        retry(batch, true, true);
    }
    for (int64_t until = clock_now_ms() + 30000; unfinished() > 0;) {
        MUST(clock_now_ms() < until, "%" PRIu64 " jobs do not end", unfinished());
        listen(2);
        while (held_count)
            finish(&held[0], MOOTHALL__OUTCOME__FINISHED, true);
    }
    MUST(peer_audit(&client, &audit), "no audit was to be had");
    MUST(!audit.unfinished && !audit.missing && !audit.doubled && !audit.corrupt && !audit.holes &&
             audit.entries == audit.generations,
         "the audit: %" PRIu64 " generations, %" PRIu64 " entries, %" PRIu64 " missing, %" PRIu64
         " doubled, %" PRIu64 " corrupt, %" PRIu64 " holes",
         audit.generations, audit.entries, audit.missing, audit.doubled, audit.corrupt, audit.holes);
    read_all("q");
    read_all("r");
    for (int b = 0; b < BATCHES; b++)
        for (int j = 0; j < JOBS; j++)
            for (int g = 1; g < GENERATIONS; g++) {
                twice += entries[b][j][g] > 1;
                lost += entries[b][j][g] == 0 &&
                        (stored[b][j][g] || (g + 1 < GENERATIONS && entries[b][j][g + 1]));
            }
    MUST(!twice && !lost, "%d generations have two entries, %d have none", twice, lost);
    peer_close(&client);
    peer_close(&worker);
    MUST(broker_stop(&broker) == 0, "the broker ends with `%s`", broker.last_words);
    printf(
        "%" PRIu64 " jobs, %" PRIu64
        " generations, %d broker deaths, %d leases, %d cancels, %d retries, %d purges, %.1f s, seed %" PRIu64
        "\n",
        audit.jobs, audit.generations, kills, leases, cancels, retries, purges,
        (double)(clock_now_ms() - began) / 1000, seed);
    unlink(store);
    snprintf(path, sizeof path, "%s.ballast", store);
    unlink(path);
    rmdir(directory);
    return 0;
}
