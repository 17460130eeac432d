/* The rest of a job's life: asked for by name, cancelled, retried, late, delayed, paused, erased. */

#include "tests/unit/core_hall.h"

static const Moothall__NewJob PLAIN = MOOTHALL__NEW_JOB__INIT;

static Moothall__Acceptance add(const char *queue, const char *batch, const char *id)
{
    Moothall__NewJob job = PLAIN;

    job.position = UINT32_MAX;
    return submit_job(queue, batch, 0, NEW, job, id, id);
}

/* job0 .. of a batch, many in a message. */
static void add_many(const char *queue, const char *batch, int count, uint32_t priority)
{
    static Moothall__NewJob job[256];
    static char name[256][24], bodies[256 * 24];
    Moothall__Submit m = MOOTHALL__SUBMIT__INIT;
    Moothall__NewJob *jobs[256];

    for (int at = 0; at < count;) {
        size_t size = 0;

        m.queue = (char *)(uintptr_t)queue;
        m.batch = (char *)(uintptr_t)batch;
        m.batch_total = (uint32_t)count;
        m.job = jobs;
        m.n_job = 0;
        for (; m.n_job < 256 && at < count; at++) {
            size_t i = m.n_job++;

            job[i] = PLAIN;
            jobs[i] = &job[i];
            snprintf(name[i], sizeof name[i], "job%d", at);
            job[i].id = job[i].custom_id = name[i];
            job[i].position = (uint32_t)at;
            job[i].priority = priority;
            job[i].size = (uint32_t)strlen(name[i]);
            memcpy(bodies + size, name[i], job[i].size);
            size += job[i].size;
        }
        say(900, MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, span_of(bodies, size));
        CHECK(heard(900, MOOTHALL__ENVELOPE__BODY_SUBMITTED, 0)->e->submitted->acceptance[0] ==
              MOOTHALL__ACCEPTANCE__ACCEPTED);
    }
}

static const Moothall__Entries *fetch_named(const char *batch, char **names, size_t count, uint32_t wait_ms)
{
    Moothall__Fetch m = MOOTHALL__FETCH__INIT;
    static char queue[] = "q";
    const struct answer *a;

    m.queue = queue;
    m.batch = (char *)(uintptr_t)batch;
    m.order = MOOTHALL__ORDER__NAMED;
    m.job = names;
    m.n_job = count;
    m.wait_ms = wait_ms;
    say(902, MOOTHALL__ENVELOPE__BODY_FETCH, &m, (struct span){ 0 });
    a = heard(902, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0);
    return a ? a->e->entries : NULL;
}

static const Moothall__Refusal *refused(uint64_t session)
{
    const struct answer *a = heard(session, MOOTHALL__ENVELOPE__BODY_REFUSAL, 0);

    return a ? a->e->refusal : NULL;
}

static const Moothall__Cancelled *cancel(const char *batch, char **names, size_t count)
{
    Moothall__Cancel m = MOOTHALL__CANCEL__INIT;
    static char queue[] = "q", reason[] = "not wanted";
    const struct answer *a;

    m.queue = queue;
    m.batch = (char *)(uintptr_t)batch;
    m.job = names;
    m.n_job = count;
    m.reason = reason;
    say(903, MOOTHALL__ENVELOPE__BODY_CANCEL, &m, (struct span){ 0 });
    a = heard(903, MOOTHALL__ENVELOPE__BODY_CANCELLED, 0);
    return a ? a->e->cancelled : NULL;
}

static const Moothall__Retried *retry(const char *batch, char **names, size_t count, uint64_t after)
{
    Moothall__Retry m = MOOTHALL__RETRY__INIT;
    static char queue[] = "q";
    const struct answer *a;

    m.queue = queue;
    m.batch = (char *)(uintptr_t)batch;
    m.job = names;
    m.n_job = count;
    m.after = after;
    say(904, MOOTHALL__ENVELOPE__BODY_RETRY, &m, (struct span){ 0 });
    a = heard(904, MOOTHALL__ENVELOPE__BODY_RETRIED, 0);
    return a ? a->e->retried : NULL;
}

static const Moothall__Purged *purge(const char *batch, uint64_t older_than_ms)
{
    Moothall__Purge m = MOOTHALL__PURGE__INIT;
    static char queue[] = "q";
    const struct answer *a;

    m.queue = queue;
    m.batch = (char *)(uintptr_t)batch;
    m.older_than_ms = older_than_ms;
    say(905, MOOTHALL__ENVELOPE__BODY_PURGE, &m, (struct span){ 0 });
    a = heard(905, MOOTHALL__ENVELOPE__BODY_PURGED, 0);
    return a ? a->e->purged : NULL;
}

static const Moothall__QueueStatus *queue_set(const char *queue, Moothall__QueueSet__Pause pause,
                                              int64_t retention_ms)
{
    Moothall__QueueSet m = MOOTHALL__QUEUE_SET__INIT;
    const struct answer *a;

    m.queue = (char *)(uintptr_t)queue;
    m.pause = pause;
    m.set_retention = retention_ms >= 0;
    m.retention_ms = retention_ms >= 0 ? (uint64_t)retention_ms : 0;
    say(906, MOOTHALL__ENVELOPE__BODY_QUEUE_SET, &m, (struct span){ 0 });
    a = heard(906, MOOTHALL__ENVELOPE__BODY_QUEUE_IS, 0);
    return a ? a->e->queue_is->queue : NULL;
}

static const Moothall__QueueSet__Pause PAUSE = MOOTHALL__QUEUE_SET__PAUSE__PAUSE,
                                       RESUME = MOOTHALL__QUEUE_SET__PAUSE__RESUME;

static const Moothall__BatchStatus *batch_status(const char *batch)
{
    Moothall__Status *m = status(batch);

    CHECK(m && m->n_batch == 1);
    return m->batch[0];
}

static int leases(uint64_t session)
{
    return heard_count(session, MOOTHALL__ENVELOPE__BODY_LEASE);
}

/* A copy that outlives the turns. */
static Moothall__Lease lease_kept(uint64_t session, char job[65])
{
    const Moothall__Lease *got = lease_got(session);
    Moothall__Lease kept;

    CHECK(got != NULL);
    kept = *got;
    snprintf(job, 65, "%s", got->job);
    kept.job = job;
    return kept;
}

/* ---- by name ---- */

/* A pipeline asks for the jobs whose results it needs next, in the order in which it needs them. */
static void test_named_entries_come_in_the_order_asked_up_to_the_first_unfinished(void **state)
{
    static char a[] = "a", b[] = "b", c[] = "c";
    char *names[] = { c, a, b, a }, job_b[65];
    const Moothall__Entries *m;
    Moothall__Lease lease;

    (void)state;
    worker(1, "w", 1);
    add("q", "grow", "a");
    CHECK(finish(1, lease_got(1), "A"));
    add("q", "grow", "b");
    lease = lease_kept(1, job_b);
    credit(1, 2, 0);
    add("q", "grow", "c");
    CHECK(finish(1, lease_got(1), "C"));
    m = fetch_named("grow", names, 4, 0);
    CHECK(m && m->n_entry == 2 && m->next == 2 && !m->end);
    assert_string_equal(m->entry[0]->job, "c");
    assert_string_equal(m->entry[1]->job, "a");
    CHECK(m->entry[0]->position == UINT32_MAX && m->entry[0]->prompt_tokens == 3 &&
          m->entry[0]->generated_tokens == 4);
    CHECK(span_equal(heard(902, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0)->payload, span_text("CA")));

    /* The first has not ended: the answer waits for it, and comes with all that follows. */
    CHECK(!fetch_named("grow", names + 2, 2, 60000));
    add("q", "other", "z"); /* another batch does not wake it */
    CHECK(!heard(902, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0));
    CHECK(finish(1, &lease, "B"));
    m = heard(902, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0)->e->entries;
    CHECK(m->n_entry == 2 && m->next == 2 && m->end);
    assert_string_equal(m->entry[0]->job, "b");
    assert_string_equal(m->entry[1]->job, "a");
}

/* The wait ends empty, and a client that went away leaves nothing behind. */
static void test_named_fetch_that_gets_nothing_says_so_in_time(void **state)
{
    static char a[] = "a";
    char *names[] = { a };

    (void)state;
    add("q", "grow", "a");
    CHECK(!fetch_named("grow", names, 1, 100));
    tick(50);
    CHECK(!heard(902, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0));
    tick(50);
    CHECK(heard(902, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0));
    CHECK(heard(902, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0)->e->entries->n_entry == 0);
    CHECK(!fetch_named("grow", names, 1, 60000));
    leave(902);
    worker(1, "w", 1);
    CHECK(finish(1, lease_got(1), "A"));
    CHECK(!heard(902, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0));
}

static void test_unknown_name_is_refused_by_that_name(void **state)
{
    static char a[] = "a", x[] = "no-such";
    char *names[] = { a, x };

    (void)state;
    add("q", "grow", "a");
    CHECK(!fetch_named("grow", names, 2, 0));
    CHECK(refused(902) && refused(902)->code == MOOTHALL__REFUSAL_CODE__UNKNOWN_JOB);
    assert_string_equal(refused(902)->text, "batch `grow` has no job `no-such`");
    CHECK(!cancel("grow", names, 2));
    CHECK(refused(903)->code == MOOTHALL__REFUSAL_CODE__UNKNOWN_JOB);
    CHECK(status("grow")->counts->ready == 1); /* nothing was done */
    CHECK(!retry("grow", names, 2, 0));
    CHECK(refused(904)->code == MOOTHALL__REFUSAL_CODE__UNKNOWN_JOB);
}

/* ---- a batch that grows ---- */

static void test_batch_without_a_total_is_over_when_its_jobs_are_and_goes_on_with_more(void **state)
{
    const struct answer *a;

    (void)state;
    worker(1, "w", 5);
    add("q", "grow", "a");
    CHECK(batch_status("grow")->total == 1 &&
          batch_status("grow")->state == MOOTHALL__BATCH_STATE__IN_PROGRESS);
    a = fetch("grow", MOOTHALL__ORDER__COMPLETION, 1, 0);
    CHECK(a && !a->e->entries->end);
    add("q", "grow", "b");
    CHECK(batch_status("grow")->total == 2);
    tick(10);
    CHECK(cancel("grow", (char *[]){ (char[]){ "b" } }, 1)->jobs == 1);
    restart();
    worker(1, "w", 5);
    CHECK(batch_status("grow")->state == MOOTHALL__BATCH_STATE__IN_PROGRESS);
    CHECK(result_of(1, "a", 1, (uint64_t)1 << 20 | 1, MOOTHALL__OUTCOME__FINISHED, "A"));
    CHECK(batch_status("grow")->state == MOOTHALL__BATCH_STATE__COMPLETED &&
          batch_status("grow")->completed_ms);
    a = fetch("grow", MOOTHALL__ORDER__COMPLETION, 3, 0);
    CHECK(a && a->e->entries->end);
    add("q", "grow", "c");
    CHECK(batch_status("grow")->state == MOOTHALL__BATCH_STATE__IN_PROGRESS &&
          !batch_status("grow")->completed_ms);
    check_audit(3, 2);
}

/* ---- cancel ---- */

/* The whole promise at once: from the answer on nothing is leased, what was done stays, everything gets its
 * entry, the workers hear of it, and others go on meanwhile. */
static void test_cancelled_batch_is_never_leased_again_and_each_job_gets_its_entry(void **state)
{
    enum { JOBS = 3000 };
    const Moothall__Cancelled *m;
    const struct answer *a;
    char name[65];
    Moothall__Lease lease;
    int turns = 0;

    (void)state;
    add_many("q", "big", JOBS, 0);
    worker(1, "w", 6);
    CHECK(leases(1) == 6);
    lease = lease_kept(1, name);
    CHECK(finish(1, &lease, "done before"));
    lease = lease_kept(1, name);
    m = cancel("big", NULL, 0);
    CHECK(m && m->jobs == JOBS - 1 && m->more);
    CHECK(was_dropped(1, lease.fence));
    CHECK(leases(1) == 0);
    CHECK(!finish(1, &lease, "too late")); /* acknowledged, and dropped */
    CHECK(leases(1) == 0);
    CHECK(batch_status("big")->state == MOOTHALL__BATCH_STATE__CANCELLING);

    /* Another batch's job, behind all of them, does not wait for them. */
    add("q", "small", "s");
    for (turns = 0; turns < 20 && leases(1) == 0; turns++)
        turn(NULL);
    CHECK(leases(1) == 1);
    assert_string_equal(lease_got(1)->job, "s");

    /* Bounded slices: it takes turns. */
    for (turns = 0; turns < 100 && batch_status("big")->state != MOOTHALL__BATCH_STATE__BATCH_CANCELLED;
         turns++)
        ;
    CHECK(turns > 3 && turns < 30);
    CHECK(batch_status("big")->counts->cancelled == JOBS - 1 && batch_status("big")->counts->done == 1);
    CHECK(batch_status("big")->cancelling_ms && batch_status("big")->cancelled_ms);
    a = fetch("big", MOOTHALL__ORDER__POSITION, 0, 0);
    CHECK(a && a->e->entries->n_entry > 100 && a->e->entries->entry[0]->state == MOOTHALL__STATE__DONE);
    CHECK(a->e->entries->entry[1]->state == MOOTHALL__STATE__CANCELLED);
    assert_string_equal(a->e->entries->entry[1]->reason, "not wanted");
    check_audit(JOBS + 1, JOBS);
    CHECK(cancel("big", NULL, 0)->jobs == 0); /* again: nothing more to do */
    CHECK(!cancel("no-such", NULL, 0) && refused(903)->code == MOOTHALL__REFUSAL_CODE__UNKNOWN_BATCH);
}

/* More are leased than one slice ends: a result that comes before its job's turn is dropped all the same. */
static void test_result_of_a_marked_job_is_not_recorded_though_its_entry_is_still_to_come(void **state)
{
    enum { JOBS = 1500 };
    Moothall__Lease lease;
    char name[65];

    (void)state;
    add_many("q", "big", JOBS, 0);
    worker(1, "w", JOBS);
    CHECK(leases(1) == JOBS);
    lease = *heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, JOBS - 1)->e->lease;
    snprintf(name, sizeof name, "%s", lease.job);
    lease.job = name;
    CHECK(cancel("big", NULL, 0)->jobs == JOBS);
    CHECK(status("big")->counts->leased > 500);
    CHECK(!finish(1, &lease, "late"));
    restart(); /* what the store still calls leased is nobody's */
    CHECK(status("big")->counts->leased > 500);
    hello(1, (struct hello){ .name = "w" });
    CHECK(heard(1, MOOTHALL__ENVELOPE__BODY_WELCOME, 0)->kept == 0);
    for (int i = 0; i < 10; i++)
        turn(NULL);
    CHECK(status("big")->counts->cancelled == JOBS && status("big")->worker[0]->leases == 0);
    check_audit(JOBS, JOBS);
}

/* The mark is durable: a broker that dies in the middle goes on where it was, and leases nothing of it. */
static void test_cancel_goes_on_after_a_restart(void **state)
{
    enum { JOBS = 2000 };
    Moothall__Lease lease;
    char name[65];

    (void)state;
    add_many("q", "big", JOBS, 2);
    add("q", "small", "s");
    worker(1, "w", 4);
    CHECK(leases(1) == 4);
    lease = lease_kept(1, name);
    if (!strcmp(name, "s")) /* the other band's is first */
        lease = *heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, 1)->e->lease;
    CHECK(cancel("big", NULL, 0)->more);
    restart();
    CHECK(batch_status("big")->state == MOOTHALL__BATCH_STATE__CANCELLING);
    hello(1, (struct hello){ .name = "w" });
    CHECK(heard(1, MOOTHALL__ENVELOPE__BODY_WELCOME, 0)->kept == 1); /* of the small one alone */
    credit(1, 4, 0);
    seated(1);
    for (int i = 0; i < 30; i++) {
        CHECK(leases(1) == 0);
        turn(NULL);
    }
    CHECK(!result_of(1, "job0", 1, lease.fence, MOOTHALL__OUTCOME__FINISHED, "late"));
    CHECK(batch_status("big")->state == MOOTHALL__BATCH_STATE__BATCH_CANCELLED);
    CHECK(batch_status("big")->counts->cancelled == JOBS);
    check_audit(JOBS + 1, JOBS);
}

/* A cancelled batch is closed: a client that goes on submitting learns that it is, and why. */
static void test_cancelled_batch_takes_no_jobs_until_a_retry(void **state)
{
    const struct answer *a;

    (void)state;
    CHECK(submit_to("b", 3, NEW, (struct job_line){ "a", "A", 0, 0, false }) ==
          MOOTHALL__ACCEPTANCE__ACCEPTED);
    CHECK(cancel("b", NULL, 0)->jobs == 1);
    turn(NULL);
    CHECK(submit_to("b", 3, NEW, (struct job_line){ "c", "C", 2, 0, false }) ==
          MOOTHALL__ACCEPTANCE__TURNED_AWAY);
    assert_string_equal(last_reason, "the batch is cancelled (not wanted); a retry of it opens it again");
    CHECK(heard(900, MOOTHALL__ENVELOPE__BODY_SUBMITTED, 0)->e->submitted->closed);
    CHECK(submit_to("b", 3, UPDATE, (struct job_line){ "a", "A2", 0, 0, false }) ==
          MOOTHALL__ACCEPTANCE__TURNED_AWAY);
    CHECK(submit_to("b", 3, NEW, (struct job_line){ "a", "A", 0, 0, false }) ==
          MOOTHALL__ACCEPTANCE__DUPLICATE);
    /* Whoever reads in order is not left waiting for what will never be submitted. */
    a = fetch("b", MOOTHALL__ORDER__POSITION, 0, 60000);
    CHECK(a && a->e->entries->n_entry == 1);
    a = fetch("b", MOOTHALL__ORDER__POSITION, a->e->entries->next, 60000);
    CHECK(a && a->e->entries->n_entry == 0 && a->e->entries->end);

    CHECK(submit_to("b", 3, RETRY, (struct job_line){ "a", "A", 0, 0, false }) ==
          MOOTHALL__ACCEPTANCE__RENEWED);
    CHECK(submit_to("b", 3, NEW, (struct job_line){ "c", "C", 2, 0, false }) ==
          MOOTHALL__ACCEPTANCE__ACCEPTED);
    CHECK(batch_status("b")->cancelling_ms == 0 &&
          batch_status("b")->state == MOOTHALL__BATCH_STATE__VALIDATING);
    check_audit(2, 1);
}

/* Behind a hole that a cancel left there may be finished entries: they come. */
static void test_reader_in_order_of_a_cancelled_batch_gets_what_lies_behind_a_hole(void **state)
{
    const struct answer *a;

    (void)state;
    worker(1, "w", 1);
    CHECK(submit_to("b", 2000, NEW, (struct job_line){ "z", "Z", 1500, 0, false }) ==
          MOOTHALL__ACCEPTANCE__ACCEPTED);
    CHECK(finish(1, lease_got(1), "Z"));
    CHECK(!fetch("b", MOOTHALL__ORDER__POSITION, 0, 60000));
    CHECK(cancel("b", NULL, 0)->jobs == 0);
    a = fetch("b", MOOTHALL__ORDER__POSITION, 0, 60000);
    CHECK(a && a->e->entries->n_entry == 1 && a->e->entries->next == 1501);
    a = fetch("b", MOOTHALL__ORDER__POSITION, 1501, 60000);
    CHECK(a && a->e->entries->n_entry == 0 && a->e->entries->end);
}

static void test_named_jobs_are_cancelled_in_every_state(void **state)
{
    static char ready[] = "ready", leased[] = "leased", later[] = "later", done[] = "done";
    char *names[] = { ready, leased, later, done, ready };
    Moothall__NewJob job = PLAIN;
    uint64_t fence;

    (void)state;
    worker(1, "w", 1);
    add("q", "b", "done");
    CHECK(finish(1, lease_got(1), "D"));
    add("q", "b", "leased");
    fence = lease_got(1)->fence;
    add("q", "b", "ready");
    job.position = UINT32_MAX;
    job.not_before_ms = hall->now.wall_ms + 1000000;
    submit_job("q", "b", 0, NEW, job, "later", "later");
    CHECK(status("b")->counts->delayed == 1);
    CHECK(cancel("b", names, 5)->jobs == 3);
    CHECK(was_dropped(1, fence) && !leases(1));
    CHECK(!result_of(1, "leased", 1, fence, MOOTHALL__OUTCOME__FINISHED, "late"));
    CHECK(status("b")->counts->cancelled == 3 && status("b")->counts->done == 1);
    CHECK(batch_status("b")->state == MOOTHALL__BATCH_STATE__COMPLETED); /* it was not cancelled as a whole */
    add("q", "b", "more");
    CHECK(leases(1) == 1);
    check_audit(5, 4);
}

/* ---- retry ---- */

static void test_retry_begins_new_generations_from_what_is_stored(void **state)
{
    const Moothall__Retried *m;
    uint64_t after = 0, jobs = 0;
    int asks = 0;

    (void)state;
    add_many("q", "big", 1000, 1);
    CHECK(cancel("big", NULL, 0)->more);
    CHECK(!retry("big", NULL, 0, 0)); /* first the one, then the other */
    CHECK(refused(904)->code == MOOTHALL__REFUSAL_CODE__NO_ROOM && refused(904)->retry_after_ms > 0);
    for (int i = 0; i < 20; i++)
        turn(NULL);
    do {
        m = retry("big", NULL, 0, after);
        CHECK(m != NULL && m->jobs <= 256 && m->skipped == 0);
        jobs += m->jobs;
        after = m->next;
        asks++;
    } while (after && asks < 100);
    CHECK(jobs == 1000 && asks >= 4);
    CHECK(status("big")->counts->ready == 1000 && batch_status("big")->cancelling_ms == 0);
    worker(1, "w", 1);
    CHECK(lease_got(1)->generation == 2);
    CHECK(span_equal(heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, 0)->payload, span_text("job0")));
    CHECK(finish(1, lease_got(1), "second"));
    CHECK(retry("big", NULL, 0, 0)->jobs == 0); /* nothing that ended otherwise than done */
    check_audit(1000, 1001);
}

/* Done jobs are not touched; what cannot be done again is counted and named. */
static void test_retry_skips_what_is_not_there_to_be_done_again(void **state)
{
    static char purged[] = "purged";
    char *names[] = { purged };
    const Moothall__Retried *m;

    (void)state;
    worker(1, "w", 1);
    add("q", "b", "purged");
    CHECK(cancel("b", names, 1)->jobs == 1);
    CHECK(purge("b", 0)->jobs == 1);
    CHECK(submit_job("q", "b", 0, NEW,
                     (Moothall__NewJob){ .base = PLAIN.base,
                                         .refused = true,
                                         .position = UINT32_MAX,
                                         .custom_id = PLAIN.custom_id,
                                         .endpoint = PLAIN.endpoint,
                                         .id = PLAIN.id },
                     "bad", "{}") == MOOTHALL__ACCEPTANCE__ACCEPTED);
    m = retry("b", NULL, 0, 0);
    CHECK(m && m->jobs == 0 && m->skipped == 2 && m->next == 0);
    assert_string_equal(m->reason, "job purged was purged: its request is not there any more");
    m = retry("b", names, 1, 0);
    CHECK(m && m->jobs == 0 && m->skipped == 1);
    /* Submitted again with its body it can. */
    CHECK(submit_job("q", "b", 0, RETRY,
                     (Moothall__NewJob){ .base = PLAIN.base,
                                         .position = UINT32_MAX,
                                         .custom_id = PLAIN.custom_id,
                                         .endpoint = PLAIN.endpoint,
                                         .id = PLAIN.id },
                     "purged", "purged") == MOOTHALL__ACCEPTANCE__RENEWED);
    CHECK(lease_got(1) && lease_got(1)->generation == 2);
    CHECK(finish(1, lease_got(1), "P"));
    check_audit(2, 3);
}

/* ---- time ---- */

static Moothall__NewJob timed(int64_t not_before_ms, int64_t deadline_ms, uint64_t ready_ttl_ms)
{
    Moothall__NewJob job = PLAIN;

    job.position = UINT32_MAX;
    job.not_before_ms = not_before_ms ? hall->now.wall_ms + not_before_ms : 0;
    job.deadline_ms = deadline_ms ? hall->now.wall_ms + deadline_ms : 0;
    job.ready_ttl_ms = ready_ttl_ms;
    return job;
}

static const Moothall__Entry *entry_of(const char *batch, const char *id)
{
    char *name = (char *)(uintptr_t)id;
    const Moothall__Entries *m = fetch_named(batch, &name, 1, 0);

    CHECK(m != NULL);
    return m->n_entry ? m->entry[0] : NULL;
}

static void test_deadline_ends_a_job_in_whatever_state_it_is(void **state)
{
    uint64_t fence;

    (void)state;
    worker(1, "w", 1);
    submit_job("q", "b", 0, NEW, timed(0, 1000, 0), "leased", "x");
    fence = lease_got(1)->fence;
    submit_job("q", "b", 0, NEW, timed(0, 1000, 0), "ready", "x");
    submit_job("q", "b", 0, NEW, timed(5000, 1000, 0), "later", "x");
    CHECK(batch_status("b")->expires_ms == hall->now.wall_ms + 1000);
    tick(990);
    CHECK(status("b")->counts->expired == 0);
    restart(); /* the index is on disk */
    hello(1, (struct hello){ .name = "w" });
    seated(1);
    tick(10);
    CHECK(was_dropped(1, fence));
    CHECK(status("b")->counts->expired == 3);
    assert_string_equal(entry_of("b", "leased")->reason, "its deadline passed while it was leased");
    assert_string_equal(entry_of("b", "ready")->reason, "its deadline passed while it was ready");
    CHECK(entry_of("b", "later")->state == MOOTHALL__STATE__EXPIRED &&
          entry_of("b", "later")->status_code == 0);
    CHECK(!result_of(1, "leased", 1, fence, MOOTHALL__OUTCOME__FINISHED, "late"));
    CHECK(batch_status("b")->state == MOOTHALL__BATCH_STATE__BATCH_EXPIRED && batch_status("b")->expired_ms);
    check_audit(3, 3);
    /* A retry does not expire at once: the old promise cannot be kept any more. */
    CHECK(retry("b", NULL, 0, 0)->jobs == 3);
    tick(10000);
    CHECK(status("b")->counts->expired == 0);
}

/* A job whose deadline passed since the last tick is not handed out. */
static void test_overdue_job_is_not_leased_between_two_ticks(void **state)
{
    (void)state;
    submit_job("q", "b", 0, NEW, timed(0, 10, 0), "a", "x");
    hall->now.mono_ms += 20;
    hall->now.wall_ms += 20;
    worker(1, "w", 1);
    CHECK(!leases(1) && status("b")->counts->expired == 1);
    check_audit(1, 1);
}

/* The patience is for the first lease of a generation only. */
static void test_ready_ttl_counts_until_the_first_lease(void **state)
{
    char name[65];
    Moothall__Lease lease;

    (void)state;
    worker(1, "w", 1);
    submit_job("q", "b", 0, NEW, timed(0, 0, 500), "taken", "x");
    lease = lease_kept(1, name);
    submit_job("q", "b", 0, NEW, timed(0, 0, 500), "waits", "x");
    tick(499);
    CHECK(status("b")->counts->ready == 1);
    tick(1);
    CHECK(status("b")->counts->expired == 1 && status("b")->counts->leased == 1);
    assert_string_equal(entry_of("b", "waits")->reason, "no worker took it up within 500 ms (ready_ttl_ms)");
    credit(1, 0, 0);
    CHECK(hinder(1, &lease)); /* back later, and patient now */
    tick(1000);
    CHECK(status("b")->counts->ready == 1);
    tick(10000);
    CHECK(status("b")->counts->expired == 1 && status("b")->counts->ready == 1);
    /* With a delayed start it begins when the job becomes ready. */
    submit_job("q", "b", 0, NEW, timed(1000, 0, 500), "slow", "x");
    tick(999);
    CHECK(!entry_of("b", "slow"));
    tick(1);
    tick(499);
    CHECK(!entry_of("b", "slow"));
    tick(1);
    CHECK(entry_of("b", "slow")->state == MOOTHALL__STATE__EXPIRED);
}

static void test_delayed_start_waits_also_over_a_restart(void **state)
{
    (void)state;
    submit_job("q", "b", 0, NEW, timed(86400000, 0, 0), "a", "x"); /* longer than any back-off */
    CHECK(status("b")->counts->delayed == 1);
    worker(1, "w", 1);
    tick(1000000);
    CHECK(!leases(1));
    restart();
    worker(1, "w", 1);
    tick(86400000 - 1000001);
    worker(1, "w", 1);
    CHECK(!leases(1));
    tick(1);
    CHECK(leases(1) == 1);
}

/* However many are due at once, a turn does a bounded part, and the rest follows without waiting for a tick.
 */
static void test_many_deadlines_at_once_are_done_in_bounded_turns(void **state)
{
    enum { JOBS = 2000 };
    uint64_t first, turns = 0;

    (void)state;
    for (int i = 0; i < JOBS; i++) {
        char id[16];

        snprintf(id, sizeof id, "j%d", i);
        submit_job("q", "b", 0, NEW, timed(0, 100000, 0), id, id);
    }
    tick(100000);
    first = status("b")->counts->expired;
    CHECK(first > 0 && first <= 2 * 256);
    while (status("b")->counts->expired < JOBS && turns++ < 100)
        ;
    CHECK(turns < 20);
    check_audit(JOBS, JOBS);
}

/* ---- pause ---- */

static void test_paused_queue_leases_nothing_and_keeps_nobody_waiting(void **state)
{
    const Moothall__QueueStatus *m;
    char name[65];
    Moothall__Lease lease;

    (void)state;
    CHECK(!queue_set("q", PAUSE, -1) && refused(906)->code == MOOTHALL__REFUSAL_CODE__UNKNOWN_BATCH);
    add_many("q", "old", 5000, 0); /* more than the window holds, and all older than the other's */
    worker(1, "w", 1);
    lease = lease_kept(1, name);
    m = queue_set("q", PAUSE, -1);
    CHECK(m && m->paused && m->counts->ready == 4999);
    credit(1, 3, 0);
    CHECK(!leases(1));
    assert_string_equal(status("")->waiting_for, "queue q, which is paused");
    add("other", "b", "mine");
    CHECK(leases(1) == 1);
    assert_string_equal(lease_got(1)->job, "mine");
    CHECK(finish(1, &lease, "in flight")); /* results are taken */
    CHECK(!leases(1));
    add("q", "old", "new"); /* so are submits */
    CHECK(!leases(1));
    restart(); /* it outlives the broker */
    worker(1, "w", 3);
    CHECK(!leases(1) && status("")->n_queue == 2);
    m = queue_set("q", RESUME, -1);
    CHECK(m && !m->paused && leases(1) == 2);
    assert_string_equal(lease_got(1)->job, "job1"); /* the oldest, again */
}

/* A job that is lost while its queue is paused waits with the others. */
static void test_job_that_comes_back_to_a_paused_queue_waits(void **state)
{
    (void)state;
    add("q", "b", "a");
    worker(1, "w", 1);
    queue_set("q", PAUSE, -1);
    leave(1);
    tick(20000);
    worker(2, "x", 1);
    CHECK(!leases(2) && status("b")->counts->ready == 1);
    queue_set("q", RESUME, -1);
    CHECK(leases(2) == 1);
}

/* Whatever the number of queues, the oldest come first. */
static void test_oldest_of_all_queues_come_first(void **state)
{
    enum { QUEUES = 50, JOBS = 600 };

    (void)state;
    for (int i = 0; i < JOBS; i++) {
        char queue[16], id[16];

        snprintf(queue, sizeof queue, "q%d", i * 7 % QUEUES);
        snprintf(id, sizeof id, "%d", i);
        add(queue, "b", id);
    }
    restart(); /* the windows are read anew */
    worker(1, "w", JOBS);
    CHECK(leases(1) == JOBS);
    for (int i = 0; i < JOBS; i++)
        CHECK(atoi(heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, i)->e->lease->job) == i);
}

/* Also when each holds more than is read at once. */
static void test_oldest_of_two_long_queues_come_first(void **state)
{
    enum { JOBS = 1500 };

    (void)state;
    add_many("first", "b", JOBS, 0);
    add_many("second", "b", JOBS, 0);
    restart();
    worker(1, "w", 2 * JOBS);
    CHECK(leases(1) == 2 * JOBS);
    for (int i = 0; i < 2 * JOBS; i++)
        assert_string_equal(heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, i)->e->lease->queue,
                            i < JOBS ? "first" : "second");
}

/* ---- priorities ---- */

/* However much work of a higher band there is, and goes on coming, each band gets its part: 4, 2 and 1 of 7.
 */
static void test_low_band_is_never_starved(void **state)
{
    int served[3] = { 0 }, waited = 0, longest = 0, next = 0;

    (void)state;
    for (int i = 0; i < 100; i++)
        for (uint32_t p = 0; p < 3; p++) {
            Moothall__NewJob job = PLAIN;
            char id[16];

            job.position = UINT32_MAX;
            job.priority = p;
            snprintf(id, sizeof id, "%u-%d", p, next++);
            submit_job("q", "b", 0, NEW, job, id, id);
        }
    worker(1, "w", 1);
    for (int i = 0; i < 210; i++) {
        char name[65];
        Moothall__Lease lease = lease_kept(1, name);
        Moothall__NewJob job = PLAIN;
        char id[16];

        served[name[0] - '0']++;
        waited = name[0] == '2' ? 0 : waited + 1;
        longest = waited > longest ? waited : longest;
        hall->answers = 0;
        CHECK(finish(1, &lease, "r"));
        /* The flood does not end. */
        lease = lease_kept(1, name);
        job.position = UINT32_MAX;
        job.priority = 1;
        snprintf(id, sizeof id, "1-%d", next++);
        submit_job("q", "b", 0, NEW, job, id, id);
        served[name[0] - '0']++;
        waited = name[0] == '2' ? 0 : waited + 1;
        longest = waited > longest ? waited : longest;
        CHECK(finish(1, &lease, "r"));
    }
    CHECK(served[1] >= 420 * 4 / 7 && served[2] >= 420 / 7 && served[0] == 100); /* all of the normal ones */
    CHECK(longest <= 6);
}

/* ---- purge ---- */

/* The typed entry stays, and cannot be taken for an answer. */
static void test_purged_entry_says_so_and_audits_clean(void **state)
{
    const Moothall__Entry *e;
    const Moothall__Purged *m;

    (void)state;
    worker(1, "w", 1);
    add("q", "b", "a");
    CHECK(finish(1, lease_got(1), "a result"));
    add("q", "b", "live");
    CHECK(purge("b", 1000)->jobs == 0); /* not old enough */
    tick(1000);
    m = purge("b", 1000);
    CHECK(m && m->jobs == 1 && m->bytes == 1 + 8 && m->next == 0);
    CHECK(purge("", 0)->jobs == 0); /* nothing twice */
    e = entry_of("b", "a");
    CHECK(e->state == MOOTHALL__STATE__DONE && e->status_code == 410 && e->size == 0 && e->purged_ms);
    assert_string_equal(e->reason, "purged: its request and its result were erased");
    CHECK(e->prompt_tokens == 3 && e->finished_ms && e->number == 1);
    CHECK(status("b")->queue[0]->purged == 1);
    check_audit(2, 1);
    /* Its id is still known, by its digest. */
    CHECK(add("q", "b", "a") == MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(submit_job("q", "b", 0, NEW, timed(0, 0, 0), "a", "other") == MOOTHALL__ACCEPTANCE__CONFLICT);
    CHECK(submit_job("q", "b", 0, UPDATE, timed(0, 0, 0), "a", "a") == MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(submit_job("q", "b", 0, UPDATE, timed(0, 0, 0), "a", "other") == MOOTHALL__ACCEPTANCE__RENEWED);
    CHECK(!purge("no-such", 0) && refused(905)->code == MOOTHALL__REFUSAL_CODE__UNKNOWN_BATCH);
    restart();
    check_audit(2, 1);
}

/* A run whose results were purged before it had them is told to do again what failed: it must be able to. */
static void test_done_and_purged_job_is_done_again_from_the_body_of_a_retry(void **state)
{
    const Moothall__Entry *e;

    (void)state;
    worker(1, "w", 1);
    add("q", "b", "a");
    CHECK(finish(1, lease_got(1), "a result"));
    CHECK(submit_job("q", "b", 0, RETRY, timed(0, 0, 0), "a", "a") == MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(purge("b", 0)->jobs == 1);
    CHECK(submit_job("q", "b", 0, RETRY, timed(0, 0, 0), "a", "other") == MOOTHALL__ACCEPTANCE__CONFLICT);
    CHECK(submit_job("q", "b", 0, RETRY, timed(0, 0, 0), "a", "a") == MOOTHALL__ACCEPTANCE__RENEWED);
    CHECK(lease_got(1)->generation == 2);
    CHECK(finish(1, lease_got(1), "a result"));
    e = entry_of("b", "a");
    CHECK(e->state == MOOTHALL__STATE__DONE && e->generation == 2 && e->size == 8 && !e->purged_ms);
    restart();
    check_audit(1, 2);
}

/* The older result goes; the request is needed by the generation that runs now. */
static void test_purge_leaves_the_request_of_a_generation_that_runs(void **state)
{
    static char a[] = "a";
    char *names[] = { a };

    (void)state;
    add("q", "b", "a");
    CHECK(cancel("b", names, 1)->jobs == 1);
    CHECK(retry("b", names, 1, 0)->jobs == 1);
    CHECK(purge("b", 0)->jobs == 0);
    worker(1, "w", 1);
    CHECK(leases(1) == 1);
    CHECK(span_equal(heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, 0)->payload, span_text("a")));
    CHECK(finish(1, lease_got(1), "A"));
    CHECK(purge("b", 0)->jobs == 1);
    check_audit(1, 2);
}

static void test_purge_comes_in_slices(void **state)
{
    Moothall__Purge m = MOOTHALL__PURGE__INIT;
    static char queue[] = "q";
    uint64_t jobs = 0;
    int asks = 0;

    (void)state;
    add_many("q", "big", 3000, 0);
    cancel("big", NULL, 0);
    for (int i = 0; i < 20; i++)
        turn(NULL);
    m.queue = queue;
    do {
        const Moothall__Purged *p;

        say(905, MOOTHALL__ENVELOPE__BODY_PURGE, &m, (struct span){ 0 });
        p = heard(905, MOOTHALL__ENVELOPE__BODY_PURGED, 0)->e->purged;
        jobs += p->jobs;
        m.after = p->next;
        CHECK(++asks < 10 && p->jobs <= 1024);
    } while (m.after);
    CHECK(jobs == 3000 && asks >= 3);
    check_audit(3000, 3000);
}

static size_t room;

static bool little_room(struct store *store, size_t bytes)
{
    (void)store;
    return bytes <= room;
}

/* Erasing writes everything once more: a purge on a full disk, which is when people purge, ended the broker. */
static void test_purge_and_retention_go_in_small_steps_on_a_full_disk(void **state)
{
    static char body[200 * 1024];
    bool (*has_room)(struct store *store, size_t bytes) = hall->store->has_room;
    Moothall__Purge m = MOOTHALL__PURGE__INIT;
    static char queue[] = "q", batch[] = "b";
    uint64_t jobs = 0;

    (void)state;
    add_many("q", "b", 100, 0);
    cancel("b", NULL, 0);
    turn(NULL);
    hall->store->has_room = little_room;
    room = 0;
    m.queue = queue;
    m.batch = batch;
    do {
        const Moothall__Purged *p;

        say(905, MOOTHALL__ENVELOPE__BODY_PURGE, &m, (struct span){ 0 });
        p = heard(905, MOOTHALL__ENVELOPE__BODY_PURGED, 0)->e->purged;
        jobs += p->jobs;
        m.after = p->next;
        CHECK(p->jobs <= 16);
    } while (m.after);
    CHECK(jobs == 100);
    /* One that is too large for what is there is refused, and taken when there is room. */
    memset(body, 'x', sizeof body - 1);
    hall->store->has_room = has_room;
    add("q", "large", body);
    cancel("large", NULL, 0);
    turn(NULL);
    hall->store->has_room = little_room;
    CHECK(!purge("large", 0) && refused(905)->code == MOOTHALL__REFUSAL_CODE__NO_ROOM);
    assert_non_null(strstr(refused(905)->text, "no room"));
    room = sizeof body;
    CHECK(purge("large", 0)->jobs == 1);
    /* By retention the same. */
    hall->store->has_room = has_room;
    add_many("q", "c", 100, 0);
    cancel("c", NULL, 0);
    turn(NULL);
    hall->store->has_room = little_room;
    room = 0;
    CHECK(queue_set("q", MOOTHALL__QUEUE_SET__PAUSE__LEAVE, 1)->purged <= 101 + 16);
    for (int i = 0; i < 30; i++)
        tick(50);
    CHECK(queue_set("q", MOOTHALL__QUEUE_SET__PAUSE__LEAVE, 0)->purged == 201);
    hall->store->has_room = has_room;
    check_audit(201, 201);
}

static void test_retention_erases_in_idle_slices_by_queue_or_by_default(void **state)
{
    (void)state;
    core_free(hall->core);
    hall->config.retention_ms = 10000;
    start_core();
    worker(1, "w", 1);
    for (int i = 0; i < 100; i++) {
        char id[16];

        snprintf(id, sizeof id, "%d", i);
        add(i % 2 ? "q" : "kept", "b", id);
        CHECK(finish(1, lease_got(1), id));
    }
    CHECK(queue_set("kept", MOOTHALL__QUEUE_SET__PAUSE__LEAVE, 0)->retention_ms == 0);
    CHECK(queue_set("q", MOOTHALL__QUEUE_SET__PAUSE__LEAVE, -1)->retention_ms == 10000);
    tick(9999);
    CHECK(queue_set("q", MOOTHALL__QUEUE_SET__PAUSE__LEAVE, -1)->purged == 0);
    tick(1);
    tick(50);
    CHECK(queue_set("q", MOOTHALL__QUEUE_SET__PAUSE__LEAVE, -1)->purged == 50);
    CHECK(queue_set("kept", MOOTHALL__QUEUE_SET__PAUSE__LEAVE, 5000)->purged == 0);
    restart(); /* both the setting and how far it has got */
    tick(50);
    CHECK(queue_set("kept", MOOTHALL__QUEUE_SET__PAUSE__LEAVE, -1)->purged == 50);
    worker(1, "w", 1);
    add("q", "b", "new");
    CHECK(finish(1, lease_got(1), "n"));
    tick(10000);
    CHECK(queue_set("q", MOOTHALL__QUEUE_SET__PAUSE__LEAVE, -1)->purged == 51);
    check_audit(101, 101);
    /* A clock that was a day ahead and is set right again stops nothing for a day. */
    hall->now.wall_ms += 86400000;
    tick(50);
    hall->now.wall_ms -= 86400000;
    add("q", "b", "right");
    CHECK(finish(1, lease_got(1), "r"));
    tick(10000);
    tick(50);
    CHECK(queue_set("q", MOOTHALL__QUEUE_SET__PAUSE__LEAVE, -1)->purged == 52);
}

/* ---- the batch as an object, and who reads ---- */

static void test_batch_goes_through_the_statuses_of_the_openai_object(void **state)
{
    const Moothall__BatchStatus *b;
    int64_t began;

    (void)state;
    CHECK(submit_to("b", 2, NEW, (struct job_line){ "a", "A", 0, 0, false }) ==
          MOOTHALL__ACCEPTANCE__ACCEPTED);
    b = batch_status("b");
    CHECK(b->state == MOOTHALL__BATCH_STATE__VALIDATING && b->created_ms == hall->now.wall_ms &&
          b->total == 2);
    tick(1000);
    worker(1, "w", 1);
    began = hall->now.wall_ms;
    tick(1000);
    b = batch_status("b");
    CHECK(b->state == MOOTHALL__BATCH_STATE__IN_PROGRESS && b->in_progress_ms == began);
    CHECK(result_of(1, "a", 1, (uint64_t)1 << 20 | 1, MOOTHALL__OUTCOME__FINISHED, "r"));
    CHECK(batch_status("b")->state == MOOTHALL__BATCH_STATE__IN_PROGRESS); /* one is still to come */
    CHECK(submit_to("b", 2, NEW, (struct job_line){ "f", "{}", 1, 0, true }) ==
          MOOTHALL__ACCEPTANCE__ACCEPTED);
    b = batch_status("b");
    CHECK(b->state == MOOTHALL__BATCH_STATE__COMPLETED && b->completed_ms == hall->now.wall_ms &&
          b->finalizing_ms);
    CHECK(b->prompt_tokens == 3 && b->generated_tokens == 4 && b->counts->failed == 1 && !b->failed_ms);
    restart();
    CHECK(batch_status("b")->state == MOOTHALL__BATCH_STATE__COMPLETED &&
          batch_status("b")->in_progress_ms == began);

    CHECK(submit_to("bad", 1, NEW, (struct job_line){ "f", "{}", 0, 0, true }) ==
          MOOTHALL__ACCEPTANCE__ACCEPTED);
    CHECK(batch_status("bad")->state == MOOTHALL__BATCH_STATE__BATCH_FAILED &&
          batch_status("bad")->failed_ms);
}

static void test_batch_names_its_endpoint_unless_they_differ(void **state)
{
    Moothall__NewJob job = PLAIN;
    static char chat[] = "/v1/chat/completions", text[] = "/v1/completions";

    (void)state;
    job.position = UINT32_MAX;
    job.endpoint = chat;
    submit_job("q", "b", 0, NEW, job, "a", "x");
    assert_string_equal(batch_status("b")->endpoint, chat);
    job.endpoint = text;
    submit_job("q", "b", 0, NEW, job, "b", "x");
    assert_string_equal(batch_status("b")->endpoint, "");
    job.endpoint = chat;
    submit_job("q", "b", 0, NEW, job, "c", "x");
    assert_string_equal(batch_status("b")->endpoint, "");
}

static void test_consumers_are_listed_with_their_positions(void **state)
{
    Moothall__CursorSet m = MOOTHALL__CURSOR_SET__INIT;
    static char q[] = "q", b[] = "b", none[] = "", fast[] = "fast", slow[] = "slow";
    const Moothall__QueueStatus *s;

    (void)state;
    add("q", "b", "a");
    m.queue = q;
    m.batch = b;
    m.consumer = slow;
    m.position = 3;
    say(907, MOOTHALL__ENVELOPE__BODY_CURSOR_SET, &m, (struct span){ 0 });
    tick(500);
    m.batch = none;
    m.consumer = fast;
    m.position = 99;
    say(907, MOOTHALL__ENVELOPE__BODY_CURSOR_SET, &m, (struct span){ 0 });
    s = status("")->queue[0];
    CHECK(s->n_consumer == 2);
    assert_string_equal(s->consumer[0]->name, "fast"); /* who moved last */
    assert_string_equal(s->consumer[1]->name, "slow");
    assert_string_equal(s->consumer[1]->batch, "b");
    CHECK(s->consumer[0]->position == 99 && s->consumer[0]->moved_ms == hall->now.wall_ms);
    CHECK(s->consumer[1]->position == 3 && s->consumer[1]->moved_ms == hall->now.wall_ms - 500);
}

/* ---- all of it at once ---- */

/* Whatever is asked in whatever order, over restarts: one entry for every ended generation, and counts that
 * agree. */
static void test_random_lives_audit_clean(void **state)
{
    enum { JOBS = 60, STEPS = 4000 };
    static uint64_t random = 20261125;
    char names[256][16];
    struct {
        uint64_t fence;
        uint32_t generation;
    } held[256];
    int holds = 0, ended = 0, moved = 0;

    (void)state;
    hall->config.retention_ms = 60000;
    restart();
    worker(1, "w", 8);
    for (int step = 0; step < STEPS; step++) {
        Moothall__NewJob job = PLAIN;
        char id[16], body[4];
        char *some[1] = { id };
        const char *batch;

        random = random * 6364136223846793005u + 1442695040888963407u;
        snprintf(id, sizeof id, "j%d", (int)(random >> 40 & 0xffff) % JOBS);
        snprintf(body, sizeof body, "%d", (int)(random >> 20 & 1));
        batch = random >> 21 & 1 ? "b" : "c";
        switch ((random >> 56) % 16) {
        case 0:
        case 1:
        case 2:
        case 3:
            job = timed((random >> 22 & 7) == 0 ? 500 : 0, (random >> 25 & 3) == 0 ? 700 : 0,
                        (random >> 27 & 3) ? 0 : 400);
            job.priority = (uint32_t)(random >> 30) % 3;
            job.refused = (random >> 33 & 15) == 0;
            submit_job("q", batch, 0, (Moothall__SubmitMode)((random >> 37) % 3), job, id, body);
            break;
        case 4:
        case 5:
        case 6:
        case 7:
            if (holds > 0) {
                holds--;
                moved += result_of(1, names[holds], held[holds].generation, held[holds].fence,
                                   (Moothall__Outcome)(1 + (random >> 22) % 3), "result");
            }
            break;
        case 8:
        case 9:
            tick((int64_t)(random >> 22) % 400);
            break;
        case 10:
            cancel(batch, (random >> 22 & 7) == 0 ? NULL : some, (random >> 22 & 7) == 0 ? 0 : 1);
            break;
        case 11:
            retry(batch, (random >> 22 & 1) ? NULL : some, (random >> 22 & 1) ? 0 : 1, 0);
            break;
        case 12:
            purge(random >> 22 & 1 ? batch : "", random >> 23 & 1 ? 0 : 1000);
            break;
        case 13:
            queue_set("q", random >> 22 & 3 ? RESUME : PAUSE, -1);
            break;
        case 14: {
            uint64_t fences[256];

            for (int i = 0; i < holds; i++)
                fences[i] = held[i].fence;
            beat(1, fences, (size_t)holds);
            break;
        }
        default:
            if ((random >> 22) % 8 == 0) {
                restart();
                worker(1, "w", 8);
            }
        }
        for (int n = 0; heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, n) && holds < 256; n++) {
            const Moothall__Lease *lease = heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, n)->e->lease;

            snprintf(names[holds], sizeof names[holds], "%s", lease->job);
            held[holds].generation = lease->generation;
            held[holds++].fence = lease->fence;
        }
        if (step % 50 == 49 && hall->now.mono_ms > 1000000) {
            Moothall__AuditAsk ask = MOOTHALL__AUDIT_ASK__INIT;
            uint64_t unfinished = 0, entries = 0, live;
            const Moothall__Status *now;

            do {
                const Moothall__Audit *audit;

                say(901, MOOTHALL__ENVELOPE__BODY_AUDIT_ASK, &ask, (struct span){ 0 });
                audit = heard(901, MOOTHALL__ENVELOPE__BODY_AUDIT, 0)->e->audit;
                if (audit->missing || audit->doubled || audit->holes || audit->corrupt)
                    fail_msg("step %d: %s", step, audit->first_fault);
                unfinished += audit->unfinished;
                entries += audit->entries;
                ask.after = audit->next;
            } while (ask.after);
            now = status("");
            live = now->counts->ready + now->counts->leased + now->counts->delayed;
            /* Between the audit and the question nothing but a slice of a cancel may have happened. */
            CHECK(live <= unfinished);
            for (int i = 0; i < 3; i++)
                turn(NULL);
            now = status("");
            for (size_t i = 0; i < now->n_batch; i++)
                CHECK(now->batch[i]->state != MOOTHALL__BATCH_STATE__CANCELLING);
            CHECK((now->counts->leased == 0) == (now->worker[0]->leases == 0));
            CHECK(now->counts->leased == now->worker[0]->leases);
            CHECK(entries >= (uint64_t)ended);
            ended = (int)entries;
        }
    }
    if (ended < STEPS / 10 || moved < STEPS / 20)
        fail_msg("%d entries, %d results: too few to prove anything", ended, moved);
}

int main(void)
{
#define PROMISE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        PROMISE(test_named_entries_come_in_the_order_asked_up_to_the_first_unfinished),
        PROMISE(test_named_fetch_that_gets_nothing_says_so_in_time),
        PROMISE(test_unknown_name_is_refused_by_that_name),
        PROMISE(test_batch_without_a_total_is_over_when_its_jobs_are_and_goes_on_with_more),
        PROMISE(test_cancelled_batch_is_never_leased_again_and_each_job_gets_its_entry),
        PROMISE(test_result_of_a_marked_job_is_not_recorded_though_its_entry_is_still_to_come),
        PROMISE(test_cancel_goes_on_after_a_restart),
        PROMISE(test_cancelled_batch_takes_no_jobs_until_a_retry),
        PROMISE(test_reader_in_order_of_a_cancelled_batch_gets_what_lies_behind_a_hole),
        PROMISE(test_named_jobs_are_cancelled_in_every_state),
        PROMISE(test_retry_begins_new_generations_from_what_is_stored),
        PROMISE(test_retry_skips_what_is_not_there_to_be_done_again),
        PROMISE(test_deadline_ends_a_job_in_whatever_state_it_is),
        PROMISE(test_overdue_job_is_not_leased_between_two_ticks),
        PROMISE(test_ready_ttl_counts_until_the_first_lease),
        PROMISE(test_delayed_start_waits_also_over_a_restart),
        PROMISE(test_many_deadlines_at_once_are_done_in_bounded_turns),
        PROMISE(test_paused_queue_leases_nothing_and_keeps_nobody_waiting),
        PROMISE(test_job_that_comes_back_to_a_paused_queue_waits),
        PROMISE(test_oldest_of_all_queues_come_first),
        PROMISE(test_oldest_of_two_long_queues_come_first),
        PROMISE(test_low_band_is_never_starved),
        PROMISE(test_purged_entry_says_so_and_audits_clean),
        PROMISE(test_done_and_purged_job_is_done_again_from_the_body_of_a_retry),
        PROMISE(test_purge_leaves_the_request_of_a_generation_that_runs),
        PROMISE(test_purge_comes_in_slices),
        PROMISE(test_purge_and_retention_go_in_small_steps_on_a_full_disk),
        PROMISE(test_retention_erases_in_idle_slices_by_queue_or_by_default),
        PROMISE(test_batch_goes_through_the_statuses_of_the_openai_object),
        PROMISE(test_batch_names_its_endpoint_unless_they_differ),
        PROMISE(test_consumers_are_listed_with_their_positions),
        PROMISE(test_random_lives_audit_clean),
    };

    log_init("test", LOG_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
