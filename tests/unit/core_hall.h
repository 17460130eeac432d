/* core_hall - the core with a store in memory and a clock that the test moves, and words to talk to it with.
 *
 * Everything that is said to one turn is answered after it; the answers stay readable for some turns. */

#ifndef TESTS_CORE_HALL_H
#define TESTS_CORE_HALL_H

#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/core.h"
#include "broker/store_sqlite.h"
#include "proto/link.h"

enum { ANSWERS_MAX = 4096 };

struct answer {
    uint64_t session;
    Moothall__Envelope *e; /* in the hall's effects */
    struct span payload;
    uint64_t dropped; /* a fence */
    bool ended;
    size_t kept; /* leases that a Welcome goes on with */
};

/* A hall without threads and sockets.  Everything said to one turn is answered after it. */
struct test_hall {
    struct core *core;
    struct store *store;
    struct core_config config;
    struct core_time now;
    struct effects effects[64]; /* of the last turns: answers stay readable */
    int turn;
    struct answer answer[ANSWERS_MAX];
    int answers;
    uint64_t epoch; /* of the last Map */
};

static struct test_hall *hall;

static inline uint64_t no_random(struct random *random)
{
    (void)random;
    return 0;
}
static struct random fixed = { .next = no_random };

static uint8_t model_a[32] = { 0xaa, 1 };

static inline void start_core(void)
{
    struct err err = { 0 };

    hall->store->begin(hall->store);
    hall->core = core_new(&hall->config, hall->store, &fixed, hall->now, &err);
    CHECK(hall->core != NULL);
    CHECK(hall->store->commit(hall->store, &err) == STORE_KEPT);
}

static inline int set_up(void **state)
{
    struct store_options options = { .hall = 77 };
    struct err err = { 0 };

    (void)state;
    hall = calloc(1, sizeof *hall);
    CHECK(hall && store_sqlite_open(&hall->store, ":memory:", &options, &err));
    hall->config = core_config_default();
    hall->config.workers = 1;
    hall->now = (struct core_time){ .mono_ms = 1000000, .wall_ms = 1700000000000 };
    start_core();
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    core_free(hall->core);
    hall->store->free(hall->store);
    for (int i = 0; i < 64; i++)
        effects_fini(&hall->effects[i]);
    free(hall);
    return 0;
}

static inline void turn(const struct event *event)
{
    struct effects *effects = &hall->effects[hall->turn++ % 64];
    struct err err = { 0 };

    effects_fini(effects);
    effects_init(effects);
    hall->store->begin(hall->store);
    if (event)
        core_step(hall->core, event, effects);
    core_turn(hall->core, hall->now, effects);
    if (hall->store->commit(hall->store, &err) != STORE_KEPT)
        fail_msg("%s", err.text);
    hall->answers = 0;
    for (struct effect *e = effects->first; e; e = e->next) {
        struct answer *a = &hall->answer[hall->answers++];

        CHECK(hall->answers < ANSWERS_MAX);
        *a = (struct answer){ .session = e->session, .payload = e->payload, .kept = e->fence_count };
        a->e = e->kind == EFFECT_SEND ? &e->envelope : NULL;
        a->dropped = e->kind == EFFECT_DROP ? e->fence : 0;
        a->ended = e->kind == EFFECT_END;
        if (a->e && a->e->body_case == MOOTHALL__ENVELOPE__BODY_MAP)
            hall->epoch = a->e->map->epoch;
    }
}

static inline void say(uint64_t session, Moothall__Envelope__BodyCase kind, void *body, struct span payload)
{
    Moothall__Envelope envelope;
    struct event event = {
        .kind = EVENT_MESSAGE, .session = session, .at = hall->now, .envelope = &envelope, .payload = payload
    };

    link_envelope(&envelope, kind, body, 5);
    turn(&event);
}

static inline void tick(int64_t ms)
{
    struct event event = { .kind = EVENT_TICK };

    hall->now.mono_ms += ms;
    hall->now.wall_ms += ms;
    event.at = hall->now;
    turn(&event);
}

static inline void leave(uint64_t session)
{
    struct event event = { .kind = EVENT_ENDED, .session = session, .at = hall->now, .reason = "test" };

    turn(&event);
}

/* The n-th answer of that kind to that session in the last turn, or NULL. */
static const struct answer *heard(uint64_t session, Moothall__Envelope__BodyCase kind, int n)
{
    for (int i = 0; i < hall->answers; i++)
        if (hall->answer[i].e && hall->answer[i].session == session && hall->answer[i].e->body_case == kind &&
            n-- == 0)
            return &hall->answer[i];
    return NULL;
}

static inline int heard_count(uint64_t session, Moothall__Envelope__BodyCase kind)
{
    int n = 0;

    while (heard(session, kind, n))
        n++;
    return n;
}

static inline bool was_dropped(uint64_t session, uint64_t fence)
{
    for (int i = 0; i < hall->answers; i++)
        if (hall->answer[i].session == session && hall->answer[i].dropped == fence)
            return true;
    return false;
}

/* ---- the words of clients and workers ---- */

struct hello {
    const char *name;
    uint64_t incarnation;
    uint8_t *model;
    const char *family;
    uint32_t shards, pid;
    uint64_t memory;
    uint64_t *held;
    size_t held_count;
};

static inline void hello(uint64_t session, struct hello how)
{
    Moothall__Hello m = MOOTHALL__HELLO__INIT;
    Moothall__WorkerOffer offer = MOOTHALL__WORKER_OFFER__INIT;
    char family[33], endpoint[80], *families[1] = { family };

    snprintf(family, sizeof family, "%s", how.family ? how.family : "cpu-avx2");
    snprintf(endpoint, sizeof endpoint, "ipc:///%s", how.name);
    m.role = MOOTHALL__ROLE__WORKER;
    m.name = (char *)(uintptr_t)how.name;
    m.incarnation = how.incarnation ? how.incarnation : 1;
    m.fingerprint.data = how.model ? how.model : model_a;
    m.fingerprint.len = 32;
    m.held = how.held;
    m.n_held = how.held_count;
    m.offer = &offer;
    offer.endpoint = endpoint;
    offer.families = families;
    offer.n_families = 1;
    offer.shard_count = how.shards;
    offer.shard_bytes = 1 << 20;
    offer.memory_bytes = how.memory ? how.memory : 64 << 20;
    offer.pid = how.pid;
    say(session, MOOTHALL__ENVELOPE__BODY_HELLO, &m, (struct span){ 0 });
}

static inline void credit(uint64_t session, uint32_t jobs, uint64_t bytes)
{
    Moothall__Credit m = MOOTHALL__CREDIT__INIT;

    m.jobs = jobs;
    m.bytes = bytes;
    say(session, MOOTHALL__ENVELOPE__BODY_CREDIT, &m, (struct span){ 0 });
}

static inline void seated(uint64_t session)
{
    Moothall__Seated m = MOOTHALL__SEATED__INIT;

    m.epoch = hall->epoch;
    say(session, MOOTHALL__ENVELOPE__BODY_SEATED, &m, (struct span){ 0 });
}

/* A worker that is ready to work. */
static inline void worker(uint64_t session, const char *name, uint32_t jobs)
{
    hello(session, (struct hello){ .name = name });
    CHECK(heard(session, MOOTHALL__ENVELOPE__BODY_WELCOME, 0));
    if (jobs)
        credit(session, jobs, 0);
    seated(session);
}

struct job_line {
    const char *id, *body;
    uint32_t position, priority;
    bool refused;
};

static const char *last_reason;

/* Any job at all; id, custom_id and size are filled in. */
static inline Moothall__Acceptance submit_job(const char *queue, const char *batch, uint32_t total,
                                              Moothall__SubmitMode mode, Moothall__NewJob job, const char *id,
                                              const char *body)
{
    Moothall__Submit m = MOOTHALL__SUBMIT__INIT;
    Moothall__NewJob *jobs[1] = { &job };
    const struct answer *a;

    m.queue = (char *)(uintptr_t)queue;
    m.batch = (char *)(uintptr_t)batch;
    m.batch_total = total;
    m.mode = mode;
    m.job = jobs;
    m.n_job = 1;
    job.id = job.custom_id = (char *)(uintptr_t)id;
    job.size = (uint32_t)strlen(body);
    say(900, MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, span_text(body));
    a = heard(900, MOOTHALL__ENVELOPE__BODY_SUBMITTED, 0);
    CHECK(a && a->e->correlation == 5);
    last_reason = a->e->submitted->reason;
    return a->e->submitted->acceptance[0];
}

static inline Moothall__Acceptance submit_to(const char *batch, uint32_t total, Moothall__SubmitMode mode,
                                             struct job_line line)
{
    Moothall__NewJob job = MOOTHALL__NEW_JOB__INIT;

    job.position = line.position;
    job.priority = line.priority;
    job.refused = line.refused;
    return submit_job("q", batch, total, mode, job, line.id, line.body);
}

static inline Moothall__Acceptance submit(Moothall__SubmitMode mode, struct job_line line)
{
    return submit_to("b", 10, mode, line);
}

static const Moothall__SubmitMode NEW = MOOTHALL__SUBMIT_MODE__NEW, UPDATE = MOOTHALL__SUBMIT_MODE__UPDATE,
                                  RETRY = MOOTHALL__SUBMIT_MODE__RETRY;

/* The lease that the session got in the last turn. */
static inline Moothall__Lease *lease_got(uint64_t session)
{
    const struct answer *a = heard(session, MOOTHALL__ENVELOPE__BODY_LEASE, 0);

    return a ? a->e->lease : NULL;
}

static inline bool result_of(uint64_t session, const char *job, uint32_t generation, uint64_t fence,
                             Moothall__Outcome outcome, const char *body)
{
    Moothall__Result m = MOOTHALL__RESULT__INIT;
    const struct answer *a;
    static char why[] = "because";

    m.job = (char *)(uintptr_t)job;
    m.generation = generation;
    m.fence = fence;
    m.outcome = outcome;
    m.prompt_tokens = 3;
    m.generated_tokens = 4;
    m.reason = why;
    say(session, MOOTHALL__ENVELOPE__BODY_RESULT, &m, span_text(body));
    a = heard(session, MOOTHALL__ENVELOPE__BODY_STORED, 0);
    CHECK(a && a->e->stored->fence == fence);
    return a->e->stored->recorded;
}

static inline bool finish(uint64_t session, const Moothall__Lease *lease, const char *body)
{
    char job[65];

    snprintf(job, sizeof job, "%s", lease->job);
    return result_of(session, job, lease->generation, lease->fence, MOOTHALL__OUTCOME__FINISHED, body);
}

static inline bool hinder(uint64_t session, const Moothall__Lease *lease)
{
    char job[65];

    snprintf(job, sizeof job, "%s", lease->job);
    return result_of(session, job, lease->generation, lease->fence, MOOTHALL__OUTCOME__HINDERED, "");
}

static const struct answer *fetch(const char *batch, Moothall__Order order, uint64_t from, uint32_t wait_ms)
{
    Moothall__Fetch m = MOOTHALL__FETCH__INIT;
    static char queue[] = "q";

    m.queue = queue;
    m.batch = (char *)(uintptr_t)batch;
    m.order = order;
    m.from = from;
    m.wait_ms = wait_ms;
    say(901, MOOTHALL__ENVELOPE__BODY_FETCH, &m, (struct span){ 0 });
    return heard(901, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0);
}

static inline Moothall__Status *status(const char *batch)
{
    Moothall__StatusAsk m = MOOTHALL__STATUS_ASK__INIT;
    const struct answer *a;

    m.batch = (char *)(uintptr_t)batch;
    say(901, MOOTHALL__ENVELOPE__BODY_STATUS_ASK, &m, (struct span){ 0 });
    a = heard(901, MOOTHALL__ENVELOPE__BODY_STATUS, 0);
    return a ? a->e->status : NULL;
}

static inline void beat(uint64_t session, uint64_t *held, size_t count)
{
    Moothall__Heartbeat m = MOOTHALL__HEARTBEAT__INIT;

    m.held = held;
    m.n_held = count;
    m.waiting_shard = 3;
    say(session, MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &m, (struct span){ 0 });
}

static inline void check_audit(uint64_t jobs, uint64_t entries)
{
    Moothall__AuditAsk m = MOOTHALL__AUDIT_ASK__INIT;
    uint64_t jobs_seen = 0, entries_seen = 0;

    do {
        const struct answer *a;
        const Moothall__Audit *audit;

        say(901, MOOTHALL__ENVELOPE__BODY_AUDIT_ASK, &m, (struct span){ 0 });
        a = heard(901, MOOTHALL__ENVELOPE__BODY_AUDIT, 0);
        CHECK(a);
        audit = a->e->audit;
        if (audit->missing || audit->doubled || audit->corrupt || audit->holes)
            fail_msg("audit: %s", audit->first_fault);
        jobs_seen += audit->jobs;
        entries_seen += audit->entries;
        m.after = audit->next;
    } while (m.after);
    assert_int_equal(jobs_seen, jobs);
    assert_int_equal(entries_seen, entries);
}

static inline void restart(void)
{
    core_free(hall->core);
    start_core();
}

#endif
