/* torture - a broker that is killed again and again while clients submit, workers come, go, fall silent and
 * answer late.
 *
 *     MOOTHALL_BROKER=build/moothall-broker build/tests/torture_test [JOBS [SEED]]
 *
 * What was said must stay true over every death: a job that was acknowledged is there, a result that was
 * called stored is the one in the end, an entry that was fetched under a number stays under it, and every job
 * has one entry.  The seed (printed when it fails) decides what happens when; when the broker dies in the
 * midst of that it does not. */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/store/peer.h"

enum { WORKERS = 3, CREDIT = 8, JOBS_MAX = 20000, HELD_MAX = 64, IN_FLIGHT = 32, WAIT_MAX_MS = 120000 };

struct held {
    uint64_t fence;
    uint32_t generation;
    int job;
    int nonce; /* of the result that it will be, or is */
    bool sent; /* its result */
};

struct fake_worker {
    struct peer peer;
    bool connected, welcome;
    char name[16];
    uint64_t incarnation;
    struct held held[HELD_MAX];
    int held_count;
    int64_t beat_ms, silent_until_ms;
};

static int jobs;
static uint64_t seed, random_state;
static char endpoint[256], store[256];
static struct broker broker;

/* What has been promised. */
static bool acknowledged[JOBS_MAX];
static int recorded[JOBS_MAX];        /* the nonce of the result that was called stored; 0: none */
static int fetched_job[JOBS_MAX + 1]; /* by entry number */
static int fetched_nonce[JOBS_MAX + 1];
static int last_nonce, kills, losses, late_results;

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
            fprintf(stderr, "torture: " __VA_ARGS__);                                                        \
            fprintf(stderr, "\n(%s:%d, %d jobs, seed %" PRIu64 ", store %s)\n", __FILE__, __LINE__, jobs,    \
                    seed, store);                                                                            \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static void start(void)
{
    char listen[300];
    const char *flags[] = { listen,
                            "--workers=1",
                            "--heartbeat-ms=100ms",
                            "--lease-ms=600ms",
                            "--log-level=error",
                            "--infra-max=1000",
                            NULL };
    int status = 0;

    snprintf(listen, sizeof listen, "--listen=%s", endpoint);
    MUST(broker_start(&broker, store, flags, &status), "the broker does not start again: %s",
         broker.last_words);
}

/* Without waiting: false when the connection is not there (yet). */
static bool put(struct peer *peer, Moothall__Envelope__BodyCase kind, void *body, struct span payload)
{
    Moothall__Envelope e;

    link_envelope(&e, kind, body, ++peer->correlation);
    return link_send(peer->link, NULL, &e, payload) == LINK_SENT;
}

static void open_link(struct peer *peer)
{
    struct err err;

    memset(peer, 0, sizeof *peer);
    link_message_init(&peer->message);
    MUST(link_connect(&peer->link, peer_context(), endpoint, &err), "%s", err.text);
}

/* ---- a client that submits, and one that reads ---- */

struct fake_client {
    struct peer peer;
    bool welcome;
    int64_t hello_ms, ping_ms, asked_ms;
    int next, unanswered;
    int asked[IN_FLIGHT]; /* jobs, in the order of asking */
    uint64_t correlation[IN_FLIGHT];
    uint64_t from; /* the reader's */
};

static void greet_client(struct fake_client *c, int64_t now)
{
    Moothall__Hello hello = MOOTHALL__HELLO__INIT;
    Moothall__Ping ping = MOOTHALL__PING__INIT;
    static char name[] = "torture";

    hello.role = MOOTHALL__ROLE__CLIENT;
    hello.name = name;
    if (!c->welcome && now >= c->hello_ms) {
        put(&c->peer, MOOTHALL__ENVELOPE__BODY_HELLO, &hello, (struct span){ 0 });
        c->hello_ms = now + 300;
    }
    if (c->welcome && now >= c->ping_ms) {
        put(&c->peer, MOOTHALL__ENVELOPE__BODY_PING, &ping, (struct span){ 0 });
        c->ping_ms = now + 70;
    }
}

static void need_hello(struct fake_client *c)
{
    c->welcome = false;
    c->hello_ms = 0;
    c->unanswered = 0;
    c->asked_ms = 0;
}

static bool submit(struct fake_client *c, int job)
{
    Moothall__Submit m = MOOTHALL__SUBMIT__INIT;
    Moothall__NewJob line = MOOTHALL__NEW_JOB__INIT, *lines[] = { &line };
    static char queue[] = "q", batch[] = "b";
    char id[16];

    snprintf(id, sizeof id, "%d", job);
    m.queue = queue;
    m.batch = batch;
    m.batch_total = (uint32_t)jobs;
    m.job = lines;
    m.n_job = 1;
    line.id = line.custom_id = id;
    line.position = (uint32_t)job;
    line.size = (uint32_t)strlen(id);
    return put(&c->peer, MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, span_text(id));
}

static void run_submitter(struct fake_client *c, int64_t now)
{
    greet_client(c, now);
    while (link_receive(c->peer.link, &c->peer.message)) {
        const Moothall__Envelope *e = c->peer.message.envelope;

        if (e->body_case == MOOTHALL__ENVELOPE__BODY_WELCOME) {
            c->welcome = true;
            /* What is not acknowledged is sent again, and now and then something that is. */
            for (c->next = 0; c->next < jobs && acknowledged[c->next];)
                c->next++;
            if (c->next > 3 && draw(2))
                c->next -= 3;
        } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_REFUSAL) {
            need_hello(c);
        } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_SUBMITTED) {
            for (int i = 0; i < c->unanswered; i++)
                if (c->correlation[i] == e->correlation) {
                    Moothall__Acceptance a = e->submitted->acceptance[0];

                    MUST(a == MOOTHALL__ACCEPTANCE__ACCEPTED || a == MOOTHALL__ACCEPTANCE__DUPLICATE,
                         "job %d was answered %d", c->asked[i], (int)a);
                    MUST(!(acknowledged[c->asked[i]] && a == MOOTHALL__ACCEPTANCE__ACCEPTED),
                         "job %d was acknowledged and is unknown", c->asked[i]);
                    acknowledged[c->asked[i]] = true;
                    c->unanswered--;
                    c->asked[i] = c->asked[c->unanswered];
                    c->correlation[i] = c->correlation[c->unanswered];
                    break;
                }
        }
    }
    while (c->welcome && c->unanswered < IN_FLIGHT && c->next < jobs && submit(c, c->next)) {
        c->correlation[c->unanswered] = c->peer.correlation;
        c->asked[c->unanswered++] = c->next++;
    }
}

static void run_reader(struct fake_client *c, int64_t now)
{
    Moothall__Fetch m = MOOTHALL__FETCH__INIT;
    static char queue[] = "q", batch[] = "b";

    greet_client(c, now);
    while (link_receive(c->peer.link, &c->peer.message)) {
        const Moothall__Envelope *e = c->peer.message.envelope;
        size_t at = 0;

        if (e->body_case == MOOTHALL__ENVELOPE__BODY_WELCOME) {
            c->welcome = true;
            c->from = draw(2) ? 1 : c->from; /* from the start again: the same must come */
        } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_REFUSAL) {
            if (e->refusal->code == MOOTHALL__REFUSAL_CODE__UNKNOWN_BATCH)
                c->asked_ms = now + 50;
            else
                need_hello(c);
        } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_ENTRIES) {
            for (size_t i = 0; i < e->entries->n_entry; i++) {
                const Moothall__Entry *entry = e->entries->entry[i];
                int job = atoi(entry->job), nonce = 0;
                char body[64] = "";

                MUST(entry->number == c->from && entry->number <= (uint64_t)jobs,
                     "entry %" PRIu64 " came where %" PRIu64 " was next", entry->number, c->from);
                MUST(entry->size < sizeof body && entry->state == MOOTHALL__STATE__DONE &&
                         entry->generation == 1,
                     "job %d ended as %d: %s", job, (int)entry->state, entry->reason);
                memcpy(body, c->peer.message.payload.data + at, entry->size);
                at += entry->size;
                MUST(sscanf(body, "result of %*d number %d", &nonce) == 1 && atoi(body + 10) == job,
                     "job %d has the result `%s`", job, body);
                MUST(!fetched_nonce[entry->number] ||
                         (fetched_job[entry->number] == job && fetched_nonce[entry->number] == nonce),
                     "entry %" PRIu64 " was job %d and is job %d", entry->number, fetched_job[entry->number],
                     job);
                fetched_job[entry->number] = job;
                fetched_nonce[entry->number] = nonce;
                c->from++;
            }
            c->asked_ms = 0;
        }
    }
    if (c->welcome && now >= c->asked_ms) {
        m.queue = queue;
        m.batch = batch;
        m.from = c->from;
        m.wait_ms = 200;
        m.items_max = 1 + draw(200);
        if (put(&c->peer, MOOTHALL__ENVELOPE__BODY_FETCH, &m, (struct span){ 0 }))
            c->asked_ms = now + 2000;
    }
}

/* ---- workers that do everything that workers may do ---- */

static void connect_worker(struct fake_worker *w)
{
    static uint8_t fingerprint[32] = { 7 };
    static char family[] = "test", *families[] = { family };
    Moothall__Hello hello = MOOTHALL__HELLO__INIT;
    Moothall__WorkerOffer offer = MOOTHALL__WORKER_OFFER__INIT;
    uint64_t held[HELD_MAX];

    if (!w->peer.link)
        open_link(&w->peer);
    for (int i = 0; i < w->held_count; i++)
        held[i] = w->held[i].fence;
    offer.families = families;
    offer.n_families = 1;
    hello.role = MOOTHALL__ROLE__WORKER;
    hello.name = w->name;
    hello.incarnation = w->incarnation;
    hello.fingerprint.data = fingerprint;
    hello.fingerprint.len = 32;
    hello.offer = &offer;
    hello.held = held;
    hello.n_held = (size_t)w->held_count;
    w->connected = put(&w->peer, MOOTHALL__ENVELOPE__BODY_HELLO, &hello, (struct span){ 0 });
    w->welcome = false;
}

static bool send_result(struct fake_worker *w, struct held *h)
{
    Moothall__Result m = MOOTHALL__RESULT__INIT;
    char id[16], body[64];

    snprintf(id, sizeof id, "%d", h->job);
    snprintf(body, sizeof body, "result of %d number %d", h->job, h->nonce);
    m.job = id;
    m.generation = h->generation;
    m.fence = h->fence;
    m.outcome = MOOTHALL__OUTCOME__FINISHED;
    h->sent = true;
    return put(&w->peer, MOOTHALL__ENVELOPE__BODY_RESULT, &m, span_text(body));
}

static void beat(struct fake_worker *w, int64_t now)
{
    Moothall__Heartbeat m = MOOTHALL__HEARTBEAT__INIT;
    uint64_t held[HELD_MAX];

    for (int i = 0; i < w->held_count; i++)
        held[i] = w->held[i].fence;
    m.held = held;
    m.n_held = (size_t)w->held_count;
    put(&w->peer, MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &m, (struct span){ 0 });
    w->beat_ms = now + 60;
}

static struct held *find(struct fake_worker *w, uint64_t fence)
{
    for (int i = 0; i < w->held_count; i++)
        if (w->held[i].fence == fence)
            return &w->held[i];
    return NULL;
}

static void on_worker_message(struct fake_worker *w)
{
    const Moothall__Envelope *e = w->peer.message.envelope;
    Moothall__Credit credit = MOOTHALL__CREDIT__INIT;
    Moothall__Seated seated = MOOTHALL__SEATED__INIT;
    struct held *h;

    switch (e->body_case) {
    case MOOTHALL__ENVELOPE__BODY_WELCOME:
        w->welcome = true;
        credit.jobs = CREDIT;
        put(&w->peer, MOOTHALL__ENVELOPE__BODY_CREDIT, &credit, (struct span){ 0 });
        for (int i = 0; i < w->held_count; i++)
            if (w->held[i].sent)
                send_result(w, &w->held[i]);
        break;
    case MOOTHALL__ENVELOPE__BODY_MAP:
        seated.epoch = e->map->epoch;
        put(&w->peer, MOOTHALL__ENVELOPE__BODY_SEATED, &seated, (struct span){ 0 });
        break;
    case MOOTHALL__ENVELOPE__BODY_REFUSAL:
        w->welcome = w->connected = false;
        break;
    case MOOTHALL__ENVELOPE__BODY_LEASE:
        if (find(w, e->lease->fence) || w->held_count == HELD_MAX)
            break;
        w->held[w->held_count++] = (struct held){ .fence = e->lease->fence,
                                                  .generation = e->lease->generation,
                                                  .job = atoi(e->lease->job),
                                                  .nonce = ++last_nonce };
        MUST(e->lease->generation == 1 && span_equal(w->peer.message.payload, span_text(e->lease->job)),
             "job %s came with another body", e->lease->job);
        break;
    case MOOTHALL__ENVELOPE__BODY_STORED:
        h = find(w, e->stored->fence);
        if (!h)
            break;
        if (e->stored->recorded) {
            MUST(!recorded[h->job] || recorded[h->job] == h->nonce,
                 "two results of job %d were called stored", h->job);
            recorded[h->job] = h->nonce;
        }
        *h = w->held[--w->held_count];
        break;
    case MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY:
        for (size_t i = 0; i < e->heartbeat_reply->n_dropped; i++) {
            h = find(w, e->heartbeat_reply->dropped[i]);
            if (h && !h->sent) {
                if (draw(3) == 0) { /* too late to stop: it was just finished */
                    late_results++;
                    send_result(w, h);
                } else {
                    *h = w->held[--w->held_count];
                }
            }
        }
        break;
    default:
        break;
    }
}

static void run_worker(struct fake_worker *w, int64_t now)
{
    if (now < w->silent_until_ms)
        return;
    if (!w->connected || (!w->welcome && now >= w->beat_ms)) {
        connect_worker(w);
        w->beat_ms = now + 300;
    }
    while (w->peer.link && link_receive(w->peer.link, &w->peer.message))
        on_worker_message(w);
    if (!w->welcome)
        return;
    if (now >= w->beat_ms)
        beat(w, now);
    for (int i = w->held_count - 1; i >= 0; i--)
        if (!w->held[i].sent && draw(40) == 0)
            send_result(w, &w->held[i]);
    if (draw(600) == 0) { /* it dies, with all it knew */
        losses++;
        peer_close(&w->peer);
        w->incarnation++;
        w->held_count = 0;
        w->connected = w->welcome = false;
    } else if (draw(900) == 0) { /* it is stuck, and wakes up late */
        w->silent_until_ms = now + 200 + draw(1500);
    } else if (draw(900) == 0) { /* its connection breaks */
        peer_close(&w->peer);
        w->connected = w->welcome = false;
    } else if (w->held_count && draw(300) == 0) {
        Moothall__Release m = MOOTHALL__RELEASE__INIT;
        struct held *h = &w->held[w->held_count - 1];

        if (!h->sent) {
            m.fence = &h->fence;
            m.n_fence = 1;
            put(&w->peer, MOOTHALL__ENVELOPE__BODY_RELEASE, &m, (struct span){ 0 });
            w->held_count--;
        }
    }
}

int main(int argc, char **argv)
{
    static struct fake_worker worker[WORKERS];
    static struct fake_client submitter, reader;
    char directory[] = "/tmp/moothall-torture-XXXXXX", path[300];
    Moothall__Audit audit;
    struct peer auditor;
    int64_t began = clock_now_ms(), kill_ms, moved_ms = began;
    uint64_t moved_from = 0;

    jobs = argc > 1 ? atoi(argv[1]) : 1500;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)clock_wall_ms();
    random_state = seed | 1;
    if (jobs < 1 || jobs > JOBS_MAX || !mkdtemp(directory)) {
        fprintf(stderr, "usage: %s [JOBS (at most %d) [SEED]]\n", argv[0], JOBS_MAX);
        return 1;
    }
    snprintf(store, sizeof store, "%s/hall.db", directory);
    snprintf(endpoint, sizeof endpoint, "ipc://%s/broker", directory);
    start();
    open_link(&submitter.peer);
    open_link(&reader.peer);
    reader.from = 1;
    for (int i = 0; i < WORKERS; i++) {
        snprintf(worker[i].name, sizeof worker[i].name, "w%d", i);
        worker[i].incarnation = 1;
    }
    kill_ms = began + 300;
    while (reader.from <= (uint64_t)jobs) {
        int64_t now = clock_now_ms();

        if (reader.from != moved_from) {
            moved_from = reader.from;
            moved_ms = now;
        }
        MUST(now - moved_ms < WAIT_MAX_MS, "nothing has come for two minutes after entry %" PRIu64,
             reader.from - 1);
        run_submitter(&submitter, now);
        run_reader(&reader, now);
        for (int i = 0; i < WORKERS; i++)
            run_worker(&worker[i], now);
        if (now >= kill_ms) {
            if (draw(4)) {
                broker_kill(&broker);
                kills++;
                start();
            } else { /* it is only stopped for a while: what waited in its socket must count as having come in
                        time */
                kill(broker.pid, SIGSTOP);
                usleep(200000 + 1000 * draw(900));
                kill(broker.pid, SIGCONT);
            }
            kill_ms = now + 50 + draw(500);
        }
        usleep(2000);
    }
    for (int i = 0; i < jobs; i++) {
        int entries = 0;

        MUST(acknowledged[i], "job %d has a result and was never acknowledged", i);
        for (int n = 1; n <= jobs; n++)
            if (fetched_job[n] == i) {
                entries++;
                MUST(!recorded[i] || recorded[i] == fetched_nonce[n],
                     "job %d: result %d was called stored, %d is there", i, recorded[i], fetched_nonce[n]);
            }
        MUST(entries == 1, "job %d has %d entries", i, entries);
    }
    MUST(peer_client(&auditor, endpoint, "auditor") && peer_audit(&auditor, &audit),
         "no audit was to be had");
    MUST(audit.jobs == (uint64_t)jobs && audit.entries == (uint64_t)jobs && !audit.unfinished &&
             !audit.missing && !audit.doubled && !audit.corrupt && !audit.holes,
         "the audit: %" PRIu64 " jobs, %" PRIu64 " entries, %" PRIu64 " missing, %" PRIu64
         " doubled, %" PRIu64 " holes",
         audit.jobs, audit.entries, audit.missing, audit.doubled, audit.holes);
    peer_close(&auditor);
    peer_close(&submitter.peer);
    peer_close(&reader.peer);
    for (int i = 0; i < WORKERS; i++)
        if (worker[i].peer.link)
            peer_close(&worker[i].peer);
    MUST(broker_stop(&broker) == 0, "the broker ends with `%s`", broker.last_words);
    printf("%d jobs, %d broker deaths, %d worker deaths, %d late results, %d leases, %.1f s, seed %" PRIu64
           "\n",
           jobs, kills, losses, late_results, last_nonce, (double)(clock_now_ms() - began) / 1000, seed);
    unlink(store);
    snprintf(path, sizeof path, "%s.ballast", store);
    unlink(path);
    snprintf(path, sizeof path, "%s/broker", directory);
    unlink(path);
    rmdir(directory);
    return 0;
}
