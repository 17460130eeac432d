/* The core with a store in memory and a clock that the test moves: every row of PROTOCOL.md's tables. */

#include "tests/unit/core_hall.h"

static uint8_t model_b[32] = { 0xbb, 2 };

/* ---- submitting ---- */

/* Row by row as PROTOCOL.md shows it: repeating a command must never run a job twice by mistake. */
static void test_submit_answers_as_the_table_says(void **state)
{
    struct job_line same = { "j", "one", 0, 0, false }, other = { "j", "two", 0, 0, false };

    (void)state;
    CHECK(submit(NEW, same) == MOOTHALL__ACCEPTANCE__ACCEPTED);
    CHECK(submit(NEW, same) == MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(submit(UPDATE, same) == MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(submit(RETRY, same) == MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(submit(NEW, other) == MOOTHALL__ACCEPTANCE__CONFLICT);
    assert_string_equal(last_reason, "job j is known with another body");
    CHECK(submit(RETRY, other) == MOOTHALL__ACCEPTANCE__CONFLICT);
    check_audit(1, 0);

    /* Not ended, another body: the old generation is cancelled with its own entry. */
    CHECK(submit(UPDATE, other) == MOOTHALL__ACCEPTANCE__RENEWED);
    check_audit(1, 1);
    {
        const struct answer *a = fetch("b", MOOTHALL__ORDER__COMPLETION, 1, 0);

        CHECK(a && a->e->entries->n_entry == 1);
        CHECK(a->e->entries->entry[0]->state == MOOTHALL__STATE__CANCELLED &&
              a->e->entries->entry[0]->generation == 1);
        assert_string_equal(a->e->entries->entry[0]->reason, "superseded by an update");
    }

    /* Done. */
    worker(1, "w", 1);
    CHECK(lease_got(1) && lease_got(1)->generation == 2);
    CHECK(finish(1, lease_got(1), "result"));
    CHECK(submit(NEW, other) == MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(submit(UPDATE, other) == MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(submit(RETRY, other) == MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(submit(NEW, same) == MOOTHALL__ACCEPTANCE__CONFLICT);
    CHECK(submit(RETRY, same) == MOOTHALL__ACCEPTANCE__CONFLICT);

    /* Ended otherwise. */
    CHECK(submit(NEW, (struct job_line){ "f", "bad", 1, 0, true }) == MOOTHALL__ACCEPTANCE__ACCEPTED);
    CHECK(submit(NEW, (struct job_line){ "f", "bad", 1, 0, true }) == MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(submit(UPDATE, (struct job_line){ "f", "bad", 1, 0, true }) == MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(submit(RETRY, (struct job_line){ "f", "bad", 1, 0, true }) == MOOTHALL__ACCEPTANCE__RENEWED);
    CHECK(submit(UPDATE, (struct job_line){ "f", "good", 1, 0, false }) == MOOTHALL__ACCEPTANCE__RENEWED);
    CHECK(lease_got(1) && lease_got(1)->generation == 3);
    check_audit(2, 4);
}

/* The same bytes asked of another endpoint, or with another seed, are another request. */
static void test_submit_takes_seed_and_endpoint_as_part_of_the_body(void **state)
{
    Moothall__Submit m = MOOTHALL__SUBMIT__INIT;
    Moothall__NewJob job = MOOTHALL__NEW_JOB__INIT, *jobs[1] = { &job };
    static char queue[] = "q", batch[] = "b", id[] = "j", chat[] = "/v1/chat/completions";

    (void)state;
    CHECK(submit(NEW, (struct job_line){ "j", "one", 0, 0, false }) == MOOTHALL__ACCEPTANCE__ACCEPTED);
    m.queue = queue;
    m.batch = batch;
    m.batch_total = 10;
    m.job = jobs;
    m.n_job = 1;
    job.id = job.custom_id = id;
    job.size = 3;
    job.seed = 1;
    say(900, MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, span_text("one"));
    CHECK(heard(900, MOOTHALL__ENVELOPE__BODY_SUBMITTED, 0)->e->submitted->acceptance[0] ==
          MOOTHALL__ACCEPTANCE__CONFLICT);
    job.seed = 0;
    job.endpoint = chat;
    say(900, MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, span_text("one"));
    CHECK(heard(900, MOOTHALL__ENVELOPE__BODY_SUBMITTED, 0)->e->submitted->acceptance[0] ==
          MOOTHALL__ACCEPTANCE__CONFLICT);
}

/* A line that moved in the input keeps its result and gets the new place. */
static void test_job_moves_to_its_new_position(void **state)
{
    const struct answer *a;

    (void)state;
    worker(1, "w", 10);
    for (uint32_t i = 0; i < 3; i++) {
        char id[2] = { (char)('a' + i), 0 };

        CHECK(submit_to("b", 3, NEW, (struct job_line){ id, id, i, 0, false }) ==
              MOOTHALL__ACCEPTANCE__ACCEPTED);
        CHECK(finish(1, lease_got(1), id));
    }
    /* A line was taken out in front: b and c move up, a has no place any more. */
    CHECK(submit_to("b", 2, NEW, (struct job_line){ "b", "b", 0, 0, false }) ==
          MOOTHALL__ACCEPTANCE__DUPLICATE);
    CHECK(submit_to("b", 2, NEW, (struct job_line){ "c", "c", 1, 0, false }) ==
          MOOTHALL__ACCEPTANCE__DUPLICATE);
    a = fetch("b", MOOTHALL__ORDER__POSITION, 0, 0);
    CHECK(a && a->e->entries->n_entry == 2 && a->e->entries->end);
    assert_string_equal(a->e->entries->entry[0]->job, "b");
    assert_string_equal(a->e->entries->entry[1]->job, "c");
    a = fetch("b", MOOTHALL__ORDER__COMPLETION, 1, 0);
    CHECK(a && a->e->entries->n_entry == 3 && a->e->entries->entry[0]->position == UINT32_MAX);
    check_audit(3, 3);
}

static void test_queue_length_is_bounded(void **state)
{
    (void)state;
    core_free(hall->core);
    hall->config.jobs_max = 2;
    start_core();
    CHECK(submit(NEW, (struct job_line){ "a", "a", 0, 0, false }) == MOOTHALL__ACCEPTANCE__ACCEPTED);
    CHECK(submit(NEW, (struct job_line){ "b", "b", 1, 0, false }) == MOOTHALL__ACCEPTANCE__ACCEPTED);
    CHECK(submit(NEW, (struct job_line){ "c", "c", 2, 0, false }) == MOOTHALL__ACCEPTANCE__TURNED_AWAY);
    CHECK(strstr(last_reason, "jobs_max"));
    CHECK(submit(NEW, (struct job_line){ "a", "a", 0, 0, false }) == MOOTHALL__ACCEPTANCE__DUPLICATE);
    check_audit(2, 0);
}

/* ---- the life of a job ---- */

static void test_finished_and_at_fault_end_a_job_with_one_entry(void **state)
{
    const struct answer *a;

    (void)state;
    worker(1, "w", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    CHECK(lease_got(1) && !lease_got(1)->alone);
    CHECK(span_equal(heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, 0)->payload, span_text("A")));
    CHECK(finish(1, lease_got(1), "yes"));
    submit(NEW, (struct job_line){ "b", "B", 1, 0, false });
    CHECK(result_of(1, "b", 1, lease_got(1)->fence, MOOTHALL__OUTCOME__AT_FAULT, "no"));
    a = fetch("", MOOTHALL__ORDER__COMPLETION, 1, 0);
    CHECK(a && a->e->entries->n_entry == 2 && a->e->entries->next == 3);
    CHECK(span_equal(a->payload, span_text("yesno")));
    CHECK(a->e->entries->entry[0]->state == MOOTHALL__STATE__DONE &&
          a->e->entries->entry[0]->status_code == 200);
    CHECK(a->e->entries->entry[1]->state == MOOTHALL__STATE__FAILED &&
          a->e->entries->entry[1]->status_code == 400);
    assert_string_equal(a->e->entries->entry[0]->worker, "w");
    CHECK(status("b")->counts->done == 1 && status("b")->counts->failed == 1 &&
          status("b")->prompt_tokens == 6);
    check_audit(2, 2);
}

/* Nothing may be recorded twice, and no result may be lost because another was tried meanwhile. */
static void test_first_result_wins_and_a_late_one_is_acknowledged(void **state)
{
    uint64_t first, second;

    (void)state;
    worker(1, "w1", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    first = lease_got(1)->fence;
    tick(hall->config.lease_ms); /* w1 is silent: its job is ready, and leased to nobody while the hall has no
                                    credit */
    CHECK(was_dropped(1, first));
    second = lease_got(1) ? lease_got(1)->fence : 0;
    CHECK(second && second != first);
    CHECK(result_of(1, "a", 1, first, MOOTHALL__OUTCOME__FINISHED, "late"));
    CHECK(!result_of(1, "a", 1, second, MOOTHALL__OUTCOME__FINISHED, "too late"));
    CHECK(span_equal(fetch("b", MOOTHALL__ORDER__COMPLETION, 1, 0)->payload, span_text("late")));
    check_audit(1, 1);

    /* Of a generation that is over, of a job that never was, with a fence that was never given. */
    CHECK(submit(UPDATE, (struct job_line){ "a", "new", 0, 0, false }) == MOOTHALL__ACCEPTANCE__RENEWED);
    CHECK(!result_of(1, "a", 1, first, MOOTHALL__OUTCOME__FINISHED, "old generation"));
    CHECK(!result_of(1, "zzz", 1, UINT64_C(4711) << 20, MOOTHALL__OUTCOME__FINISHED, "?"));
    CHECK(!result_of(1, "a", 2, second + 17, MOOTHALL__OUTCOME__FINISHED, "?"));
    CHECK(!result_of(1, "b", 2, second + 1, MOOTHALL__OUTCOME__FINISHED, "?"));
    check_audit(1, 1);
}

static void test_hindered_job_waits_longer_each_time_and_dies_at_the_fifth(void **state)
{
    const struct answer *a;
    int64_t delay = hall->config.backoff_ms / 2; /* the fixed random draws the shortest: half */

    (void)state;
    worker(1, "w", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    for (uint32_t attempt = 1; attempt < 5; attempt++) {
        CHECK(lease_got(1) && lease_got(1)->attempt == attempt - 1 && lease_got(1)->infra == 0);
        CHECK(hinder(1, lease_got(1)));
        CHECK(status("b")->counts->delayed == 1);
        tick(delay - 1);
        CHECK(!lease_got(1));
        tick(1);
        delay *= 2;
    }
    CHECK(lease_got(1) && lease_got(1)->attempt == 4);
    CHECK(hinder(1, lease_got(1)));
    a = fetch("b", MOOTHALL__ORDER__COMPLETION, 1, 0);
    CHECK(a->e->entries->entry[0]->state == MOOTHALL__STATE__DEAD && a->e->entries->entry[0]->attempt == 5);
    assert_string_equal(a->e->entries->entry[0]->reason, "5 attempts failed; the last: because");
    CHECK(status("b")->counts->dead == 1);
    CHECK(submit(RETRY, (struct job_line){ "a", "A", 0, 0, false }) == MOOTHALL__ACCEPTANCE__RENEWED);
    CHECK(lease_got(1) && lease_got(1)->attempt == 0 && lease_got(1)->generation == 2);
    check_audit(1, 1);
}

/* A clock that is set back must not make a job wait for years. */
static void test_delayed_job_comes_back_though_the_clock_was_set_back(void **state)
{
    (void)state;
    worker(1, "w", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    CHECK(hinder(1, lease_got(1)));
    hall->now.wall_ms -= 365LL * 24 * 3600 * 1000;
    tick(1);
    CHECK(lease_got(1));
}

/* A job that kills workers must not take a hall down; a healthy one must survive bad luck. */
static void test_lost_workers_count_apart_and_the_third_loss_makes_it_alone(void **state)
{
    uint32_t infra = 0;

    (void)state;
    worker(1, "w", 10);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    for (; infra < 3; infra++) {
        CHECK(lease_got(1) && lease_got(1)->infra == infra && lease_got(1)->attempt == 0 &&
              lease_got(1)->alone == (infra >= 3));
        tick(hall->config.lease_ms);
    }
    CHECK(lease_got(1) && lease_got(1)->alone); /* the worker was empty */
    submit(NEW, (struct job_line){ "b", "B", 1, 0, false });
    CHECK(!lease_got(1)); /* nothing beside it */
    tick(hall->config.lease_ms);
    infra++;
    CHECK(heard_count(1, MOOTHALL__ENVELOPE__BODY_LEASE) == 1 && lease_got(1)->alone &&
          lease_got(1)->infra == 4); /* a is older */
    CHECK(finish(1, lease_got(1), "it was only bad luck"));
    CHECK(lease_got(1));
    assert_string_equal(lease_got(1)->job, "b");
    check_audit(2, 1);
}

/* One that wants to be alone must not wait for ever for a worker that is never empty. */
static void test_alone_job_gets_a_worker_that_runs_empty(void **state)
{
    uint64_t fence[2];

    (void)state;
    worker(1, "w", 2);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    tick(hall->config.lease_ms);
    tick(hall->config.lease_ms);
    tick(hall->config.lease_ms);
    CHECK(lease_got(1) && lease_got(1)->alone);
    leave(1); /* its worker goes, and the lease runs out without it */
    tick(hall->config.lease_ms);
    hello(2, (struct hello){ .name = "w", .incarnation = 2 });
    credit(2, 2, 0);
    submit(NEW, (struct job_line){ "b", "B", 1, 1, false }); /* of the high band: leased first */
    seated(2);
    CHECK(heard_count(2, MOOTHALL__ENVELOPE__BODY_LEASE) == 1);
    assert_string_equal(lease_got(2)->job, "b");
    fence[0] = lease_got(2)->fence;
    submit(NEW, (struct job_line){ "c", "C", 2, 0, false });
    CHECK(!lease_got(2)); /* there is credit, but the worker is kept for the lonely one */
    CHECK(result_of(2, "b", 1, fence[0], MOOTHALL__OUTCOME__FINISHED, ""));
    CHECK(heard_count(2, MOOTHALL__ENVELOPE__BODY_LEASE) == 1 && lease_got(2)->alone);
    fence[1] = lease_got(2)->fence;
    CHECK(result_of(2, "a", 1, fence[1], MOOTHALL__OUTCOME__FINISHED, ""));
    assert_string_equal(lease_got(2)->job, "c");
}

static void test_job_is_dead_at_the_cap_of_lost_workers(void **state)
{
    const struct answer *a;

    (void)state;
    worker(1, "w", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    for (uint32_t i = 0; i < hall->config.infra_max; i++) {
        CHECK(lease_got(1));
        tick(hall->config.lease_ms);
    }
    CHECK(!lease_got(1));
    a = fetch("b", MOOTHALL__ORDER__POSITION, 0, 0);
    CHECK(a->e->entries->n_entry == 1 && a->e->entries->entry[0]->state == MOOTHALL__STATE__DEAD &&
          a->e->entries->entry[0]->infra == 20);
    CHECK(strstr(a->e->entries->entry[0]->reason,
                 "20 workers were lost while they held it; the last: worker w did not renew"));
    check_audit(1, 1);
}

static void test_released_job_is_ready_and_nothing_is_counted(void **state)
{
    Moothall__Release m = MOOTHALL__RELEASE__INIT;
    uint64_t fence;

    (void)state;
    worker(1, "w", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    fence = lease_got(1)->fence;
    m.fence = &fence;
    m.n_fence = 1;
    say(1, MOOTHALL__ENVELOPE__BODY_RELEASE, &m, (struct span){ 0 });
    CHECK(lease_got(1) && lease_got(1)->infra == 0 && lease_got(1)->attempt == 0 &&
          lease_got(1)->fence != fence);
}

/* Waiting for a shard is no stall: who says that it holds a lease, holds it. */
static void test_heartbeat_renews_what_it_names_and_nothing_else(void **state)
{
    uint64_t held[2];

    (void)state;
    worker(1, "w", 2);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    held[0] = lease_got(1)->fence;
    submit(NEW, (struct job_line){ "b", "B", 1, 0, false });
    held[1] = lease_got(1)->fence;
    for (int i = 0; i < 5; i++) { /* b is lost twice */
        tick(hall->config.lease_ms / 2);
        beat(1, held, 1);
    }
    CHECK(status("b")->counts->leased == 2 && status("b")->worker[0]->waiting_shard == 3);
    CHECK(!was_dropped(1, held[0]));
    tick(hall->config.lease_ms / 2);
    CHECK(!was_dropped(1, held[0]));
}

static void test_superseded_lease_is_dropped(void **state)
{
    uint64_t fence;

    (void)state;
    worker(1, "w", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    fence = lease_got(1)->fence;
    CHECK(submit(UPDATE, (struct job_line){ "a", "A2", 0, 0, false }) == MOOTHALL__ACCEPTANCE__RENEWED);
    CHECK(was_dropped(1, fence));
    CHECK(lease_got(1) && lease_got(1)->generation == 2);
    CHECK(!result_of(1, "a", 1, fence, MOOTHALL__OUTCOME__FINISHED, "of the old text"));
    check_audit(1, 1);
}

static void test_bands_are_served_four_to_two_to_one(void **state)
{
    char order[64] = "";

    (void)state;
    for (uint32_t i = 0; i < 30; i++) {
        char id[8];

        snprintf(id, sizeof id, "%c%u", "nhl"[i % 3], i);
        submit_to("b", 100, NEW, (struct job_line){ id, id, i, i % 3, false });
    }
    worker(1, "w", 14);
    for (int n = 0; n < heard_count(1, MOOTHALL__ENVELOPE__BODY_LEASE); n++)
        order[n] = heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, n)->e->lease->job[0];
    assert_string_equal(order, "hnhlhnhhnhlhnh");
    assert_string_equal(heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, 0)->e->lease->job,
                        "h1"); /* and oldest first */
    assert_string_equal(heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, 1)->e->lease->job, "n0");
    assert_string_equal(heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, 2)->e->lease->job, "h4");
}

static void test_credit_is_a_window_of_jobs_and_bytes(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 10; i++) {
        char id[8];

        snprintf(id, sizeof id, "j%u", i);
        submit(NEW, (struct job_line){ id, "1234567890", i, 0, false });
    }
    worker(1, "w", 0);
    CHECK(!lease_got(1));
    credit(1, 3, 0);
    CHECK(heard_count(1, MOOTHALL__ENVELOPE__BODY_LEASE) == 3);
    credit(1, 3, 0); /* absolute: saying it again gives nothing more */
    CHECK(!lease_got(1));
    credit(1, 100, 55);
    CHECK(heard_count(1, MOOTHALL__ENVELOPE__BODY_LEASE) == 2);
}

/* ---- workers and seats ---- */

static void test_nothing_is_leased_until_every_worker_is_seated(void **state)
{
    uint64_t old_epoch;

    (void)state;
    core_free(hall->core);
    hall->config.workers = 2;
    start_core();
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    hello(1, (struct hello){ .name = "w1", .shards = 4 });
    CHECK(!heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0));
    assert_string_equal(status("")->waiting_for, "workers: 1 of 2 have come");
    hello(2, (struct hello){ .name = "w2", .shards = 4 });
    CHECK(heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0) && heard(2, MOOTHALL__ENVELOPE__BODY_MAP, 0));
    CHECK(heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0)->e->map->n_seat == 4);
    credit(1, 5, 0);
    credit(2, 5, 0);
    seated(1);
    CHECK(!lease_got(1));
    CHECK(status("")->n_unseated == 2 && status("")->unseated[0] == 2);
    assert_string_equal(status("")->waiting_for, "shard 2-3: w2 is loading it or connecting to its peers");
    seated(2);
    CHECK(lease_got(1) || lease_got(2));

    /* The second goes: nothing new, and status says for what the hall waits. */
    old_epoch = hall->epoch;
    leave(2);
    submit(NEW, (struct job_line){ "b", "B", 1, 0, false });
    CHECK(!lease_got(1));
    assert_string_equal(status("")->waiting_for, "shard 2-3: its worker w2 is not here");
    CHECK(status("")->n_unseated == 2);
    /* A stranger does not take its seats; one of its name does, at the next epoch. */
    hello(3, (struct hello){ .name = "w3", .shards = 4 });
    CHECK(heard(3, MOOTHALL__ENVELOPE__BODY_MAP, 0) && hall->epoch == old_epoch);
    tick(2 * hall->config.heartbeat_ms);
    hello(4, (struct hello){ .name = "w2", .shards = 4, .incarnation = 9 });
    CHECK(heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0) && hall->epoch == old_epoch + 1);
    CHECK(heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0)->e->map->worker[1]->incarnation == 9);
    seated(4);
    CHECK(!lease_got(1));
    seated(1);
    CHECK(lease_got(1));
    /* The spare, once it is connected to all, works too. */
    credit(3, 5, 0);
    seated(3);
    submit(NEW, (struct job_line){ "c", "C", 2, 0, false });
    CHECK(lease_got(3));
}

/* Two are expected, but only with a third there is room for all shards: the seats are dealt to the three, once. */
static void test_more_workers_than_expected_are_dealt_to_once(void **state)
{
    uint64_t epoch;

    (void)state;
    core_free(hall->core);
    hall->config.workers = 2;
    start_core();
    hello(1, (struct hello){ .name = "w1", .shards = 4, .memory = 1 << 20 });
    hello(2, (struct hello){ .name = "w2", .shards = 4, .memory = 1 << 20 });
    CHECK(!heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0));
    hello(3, (struct hello){ .name = "w3", .shards = 4, .memory = 2 << 20 });
    CHECK(heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0) && heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0)->e->map->n_worker == 3);
    epoch = hall->epoch;
    tick(1);
    CHECK(hall->epoch == epoch);
    credit(1, 5, 0);
    for (uint64_t session = 1; session <= 3; session++)
        seated(session);
    CHECK(hall->epoch == epoch);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    CHECK(lease_got(1));
    /* The same number expected by a broker that starts anew: the same map. */
    restart();
    hello(1, (struct hello){ .name = "w1", .shards = 4, .memory = 1 << 20 });
    hello(2, (struct hello){ .name = "w2", .shards = 4, .memory = 1 << 20 });
    hello(3, (struct hello){ .name = "w3", .shards = 4, .memory = 2 << 20 });
    CHECK(hall->epoch == epoch);
}

static void test_without_a_number_seats_are_dealt_when_nobody_new_comes(void **state)
{
    (void)state;
    core_free(hall->core);
    hall->config.workers = 0;
    start_core();
    hello(1, (struct hello){ .name = "w1", .shards = 8, .memory = 5 << 20 });
    tick(hall->config.settle_ms);
    CHECK(!heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0));
    assert_string_equal(status("")->waiting_for, "memory: 1 workers offer it for 5 of 8 shards");
    hello(2, (struct hello){ .name = "w2", .shards = 8, .memory = 5 << 20 });
    tick(hall->config.settle_ms - 1);
    CHECK(!heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0));
    tick(1);
    CHECK(heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0) && heard(2, MOOTHALL__ENVELOPE__BODY_MAP, 0));
}

static void test_worker_of_another_model_is_refused_with_both_fingerprints(void **state)
{
    const struct answer *a;

    (void)state;
    worker(1, "w", 1);
    hello(2, (struct hello){ .name = "x", .model = model_b });
    a = heard(2, MOOTHALL__ENVELOPE__BODY_REFUSAL, 0);
    CHECK(a && a->e->refusal->code == MOOTHALL__REFUSAL_CODE__WRONG_MODEL &&
          a->e->refusal->retry_after_ms == 0);
    assert_string_equal(a->e->refusal->text,
                        "another model: x has fingerprint bb02000000000000, this hall's is aa01000000000000");
    CHECK(hall->answer[hall->answers - 1].ended);
    /* The store remembers. */
    restart();
    hello(3, (struct hello){ .name = "x", .model = model_b });
    CHECK(heard(3, MOOTHALL__ENVELOPE__BODY_REFUSAL, 0));
}

/* A worker that came by mistake, before any work, must not bind the store for ever. */
static void test_model_of_a_worker_that_left_before_seats_were_dealt_is_forgotten(void **state)
{
    (void)state;
    core_free(hall->core);
    hall->config.workers = 2;
    start_core();
    hello(1, (struct hello){ .name = "x", .model = model_b });
    leave(1);
    hello(2, (struct hello){ .name = "w" });
    CHECK(heard(2, MOOTHALL__ENVELOPE__BODY_WELCOME, 0));
}

static void test_worker_that_cannot_run_the_family_is_refused_by_both_names(void **state)
{
    const struct answer *a;

    (void)state;
    worker(1, "w", 1);
    hello(2, (struct hello){ .name = "x", .family = "cuda-sm80" });
    a = heard(2, MOOTHALL__ENVELOPE__BODY_REFUSAL, 0);
    CHECK(a && a->e->refusal->code == MOOTHALL__REFUSAL_CODE__WRONG_FAMILY);
    assert_string_equal(a->e->refusal->text,
                        "another kernel family: x can run cuda-sm80, this hall computes with cpu-avx2");
}

/* `family:` holds from the first worker on. */
static void test_pinned_family_refuses_the_first_worker_already(void **state)
{
    (void)state;
    core_free(hall->core);
    snprintf(hall->config.family, sizeof hall->config.family, "cpu-avx512");
    start_core();
    hello(1, (struct hello){ .name = "w" });
    CHECK(heard(1, MOOTHALL__ENVELOPE__BODY_REFUSAL, 0));
    assert_string_equal(heard(1, MOOTHALL__ENVELOPE__BODY_REFUSAL, 0)->e->refusal->text,
                        "another kernel family: w can run cpu-avx2, this hall computes with cpu-avx512");
    hello(2, (struct hello){ .name = "w", .family = "cpu-avx512" });
    CHECK(heard(2, MOOTHALL__ENVELOPE__BODY_WELCOME, 0));
}

/* A worker that is stopped in good order must not count against the jobs it had. */
static void test_goodbye_gives_leases_back_and_counts_nothing(void **state)
{
    Moothall__Goodbye goodbye = MOOTHALL__GOODBYE__INIT;
    Moothall__Envelope e;
    struct event event = { .kind = EVENT_ENDED, .session = 1, .envelope = &e, .reason = "it said goodbye" };

    (void)state;
    worker(1, "w", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    CHECK(lease_got(1));
    link_envelope(&e, MOOTHALL__ENVELOPE__BODY_GOODBYE, &goodbye, 0);
    event.at = hall->now;
    turn(&event);
    CHECK(status("b")->counts->ready == 1);
    worker(2, "w", 1);
    CHECK(lease_got(2) && lease_got(2)->infra == 0);
}

/* Two processes under one name: the one that lives keeps it. */
static void test_name_is_not_taken_from_a_worker_that_lives(void **state)
{
    const struct answer *a;

    (void)state;
    worker(1, "w", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    hello(2, (struct hello){ .name = "w", .incarnation = 2 });
    a = heard(2, MOOTHALL__ENVELOPE__BODY_REFUSAL, 0);
    CHECK(a && a->e->refusal->code == MOOTHALL__REFUSAL_CODE__NO_ROOM && a->e->refusal->retry_after_ms > 0);
    /* Silent for two heartbeats: replaced, and what it held is lost. */
    tick(2 * hall->config.heartbeat_ms);
    hello(3, (struct hello){ .name = "w", .incarnation = 2 });
    CHECK(heard(3, MOOTHALL__ENVELOPE__BODY_WELCOME, 0) &&
          heard(3, MOOTHALL__ENVELOPE__BODY_WELCOME, 0)->kept == 0);
    CHECK(status("b")->counts->ready == 1);
}

static void test_death_loses_the_leases_at_once(void **state)
{
    Moothall__Death m = MOOTHALL__DEATH__INIT;
    static char name[] = "w", reason[] = "killed by signal 9";
    uint64_t fence;

    (void)state;
    hello(1, (struct hello){ .name = "w", .pid = 42 });
    credit(1, 1, 0);
    seated(1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    fence = lease_got(1)->fence;
    m.worker = name;
    m.reason = reason;
    m.pid = 41; /* of an earlier process of that name */
    say(800, MOOTHALL__ENVELOPE__BODY_DEATH, &m, (struct span){ 0 });
    CHECK(heard(800, MOOTHALL__ENVELOPE__BODY_PONG, 0) && status("b")->counts->leased == 1);
    m.pid = 42;
    say(800, MOOTHALL__ENVELOPE__BODY_DEATH, &m, (struct span){ 0 });
    CHECK(heard(800, MOOTHALL__ENVELOPE__BODY_PONG, 0) && status("b")->counts->ready == 1);
    hello(2, (struct hello){ .name = "w", .incarnation = 2 });
    credit(2, 1, 0);
    seated(2);
    CHECK(lease_got(2) && lease_got(2)->infra == 1 && lease_got(2)->fence != fence);
}

/* ---- the broker dies ---- */

static void test_leases_go_on_over_a_restart_of_the_broker(void **state)
{
    uint64_t fence[2], listed;
    const struct answer *a;

    (void)state;
    worker(1, "w", 2);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    fence[0] = lease_got(1)->fence;
    submit(NEW, (struct job_line){ "b", "B", 1, 0, false });
    fence[1] = lease_got(1)->fence;
    restart();
    tick(2 * hall->config.lease_ms - 1); /* the workers have that long to come back */
    listed = fence[0];
    hello(7, (struct hello){ .name = "w", .held = &listed, .held_count = 1 });
    a = heard(7, MOOTHALL__ENVELOPE__BODY_WELCOME, 0);
    CHECK(a && a->kept == 2 && a->e->welcome->broker_epoch == 2);
    /* The one that it does not know of is sent again, with the same fence. */
    CHECK(heard_count(7, MOOTHALL__ENVELOPE__BODY_LEASE) == 1 && lease_got(7)->fence == fence[1]);
    CHECK(span_equal(heard(7, MOOTHALL__ENVELOPE__BODY_LEASE, 0)->payload, span_text("B")));
    CHECK(heard(7, MOOTHALL__ENVELOPE__BODY_MAP, 0) &&
          hall->epoch == 1); /* the same seats: nothing to load again */
    CHECK(result_of(7, "a", 1, fence[0], MOOTHALL__OUTCOME__FINISHED, "a"));
    CHECK(result_of(7, "b", 1, fence[1], MOOTHALL__OUTCOME__FINISHED, "b"));
    check_audit(2, 2);
}

static void test_leases_of_a_worker_that_does_not_come_back_are_lost(void **state)
{
    uint64_t fence;

    (void)state;
    worker(1, "w", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    fence = lease_got(1)->fence;
    restart();
    tick(2 * hall->config.lease_ms);
    CHECK(status("b")->counts->ready == 1);
    hello(2, (struct hello){ .name = "w", .incarnation = 2 });
    credit(2, 1, 0);
    seated(2);
    CHECK(lease_got(2) && lease_got(2)->infra == 1 && lease_got(2)->fence > fence);
}

static void test_hall_that_starts_with_another_number_of_workers_deals_anew(void **state)
{
    (void)state;
    hello(1, (struct hello){ .name = "w1", .shards = 4 });
    CHECK(heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0) && hall->epoch == 1);
    hall->config.workers = 2;
    restart();
    hello(1, (struct hello){ .name = "w1", .shards = 4 });
    hello(2, (struct hello){ .name = "w2", .shards = 4 });
    CHECK(hall->epoch == 2 && heard(1, MOOTHALL__ENVELOPE__BODY_MAP, 0)->e->map->n_worker == 2);
    hall->config.workers = 1;
    restart();
    hello(3, (struct hello){ .name = "w2", .shards = 4 });
    CHECK(hall->epoch == 3 && heard(3, MOOTHALL__ENVELOPE__BODY_MAP, 0)->e->map->n_worker == 1);
    /* The same number, the same names: nothing changes. */
    restart();
    hello(4, (struct hello){ .name = "w2", .shards = 4 });
    CHECK(hall->epoch == 3);
}

static void test_delayed_job_comes_back_after_a_restart(void **state)
{
    (void)state;
    worker(1, "w", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    CHECK(hinder(1, lease_got(1)));
    restart();
    worker(1, "w", 1);
    CHECK(!lease_got(1));
    tick(hall->config.backoff_ms / 2);
    CHECK(lease_got(1) && lease_got(1)->attempt == 1);
}

/* ---- fetching ---- */

static void test_fetch_by_position_stops_before_the_first_unfinished(void **state)
{
    const struct answer *a;
    uint64_t fence[4];

    (void)state;
    worker(1, "w", 4);
    for (uint32_t i = 0; i < 4; i++) {
        char id[2] = { (char)('0' + i), 0 };

        submit_to("b", 4, NEW, (struct job_line){ id, id, i, 0, false });
        fence[i] = lease_got(1)->fence;
    }
    CHECK(result_of(1, "2", 1, fence[2], MOOTHALL__OUTCOME__FINISHED, "r2"));
    CHECK(result_of(1, "0", 1, fence[0], MOOTHALL__OUTCOME__FINISHED, "r0"));
    a = fetch("b", MOOTHALL__ORDER__POSITION, 0, 0);
    CHECK(a->e->entries->n_entry == 1 && a->e->entries->next == 1 && !a->e->entries->end &&
          a->e->entries->waiting == 1);
    CHECK(status("b")->first_unfinished == 1 && status("b")->waiting == 1);
    CHECK(result_of(1, "3", 1, fence[3], MOOTHALL__OUTCOME__FINISHED, "r3"));
    CHECK(result_of(1, "1", 1, fence[1], MOOTHALL__OUTCOME__FINISHED, "r1"));
    a = fetch("b", MOOTHALL__ORDER__POSITION, 1, 0);
    CHECK(a->e->entries->n_entry == 3 && a->e->entries->next == 4 && a->e->entries->end);
    CHECK(span_equal(a->payload, span_text("r1r2r3")));
    a = fetch("b", MOOTHALL__ORDER__POSITION, 4, 60000);
    CHECK(a && a->e->entries->n_entry == 0 && a->e->entries->end); /* at once: nothing more can come */
    /* A retry at the front takes the reader back. */
    CHECK(submit_to("b", 4, UPDATE, (struct job_line){ "1", "other", 1, 0, false }) ==
          MOOTHALL__ACCEPTANCE__RENEWED);
    CHECK(status("b")->first_unfinished == 1 && status("b")->waiting == 2);
    CHECK(!fetch("b", MOOTHALL__ORDER__POSITION, 1, 1000));
}

static void test_fetch_waits_until_something_comes_or_its_time_is_over(void **state)
{
    const struct answer *a;

    (void)state;
    worker(1, "w", 1);
    submit(NEW, (struct job_line){ "a", "A", 0, 0, false });
    {
        uint64_t fence = lease_got(1)->fence;

        CHECK(!fetch("b", MOOTHALL__ORDER__COMPLETION, 1, 500));
        tick(499);
        CHECK(!heard(901, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0));
        CHECK(result_of(1, "a", 1, fence, MOOTHALL__OUTCOME__FINISHED, "r"));
    }
    a = heard(901, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0); /* in the same turn as the result */
    CHECK(a && a->e->entries->n_entry == 1);
    CHECK(!fetch("b", MOOTHALL__ORDER__COMPLETION, 2, 500));
    tick(500);
    a = heard(901, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0);
    CHECK(a && a->e->entries->n_entry == 0 && a->e->entries->next == 2 && !a->e->entries->end);
    /* Who is gone is not answered. */
    CHECK(!fetch("b", MOOTHALL__ORDER__COMPLETION, 2, 500));
    leave(901);
    tick(1000);
    CHECK(!heard(901, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0));
}

static void test_fetch_is_bounded_by_items_bytes_and_the_envelope(void **state)
{
    Moothall__Fetch m = MOOTHALL__FETCH__INIT;
    static char queue[] = "q", batch[] = "b", body[] = "0123456789";
    const struct answer *a;
    char custom[512];
    uint64_t from = 1;
    int seen = 0;

    (void)state;
    for (uint32_t i = 0; i < 250; i++) {
        Moothall__Submit s = MOOTHALL__SUBMIT__INIT;
        Moothall__NewJob job = MOOTHALL__NEW_JOB__INIT, *jobs[1] = { &job };
        char id[16];

        snprintf(id, sizeof id, "j%u", i);
        memset(custom, 'c', sizeof custom - 1);
        custom[sizeof custom - 1] = '\0';
        s.queue = queue;
        s.batch = batch;
        s.batch_total = 250;
        s.job = jobs;
        s.n_job = 1;
        job.id = id;
        job.custom_id = custom;
        job.position = i;
        job.refused = true;
        job.size = 10;
        say(900, MOOTHALL__ENVELOPE__BODY_SUBMIT, &s, span_text(body));
    }
    m.queue = queue;
    m.batch = batch;
    m.items_max = 7;
    say(901, MOOTHALL__ENVELOPE__BODY_FETCH, &m, (struct span){ 0 });
    a = heard(901, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0);
    CHECK(a->e->entries->n_entry == 7 && a->payload.size == 70);
    m.items_max = 256;
    m.bytes_max = 35;
    say(901, MOOTHALL__ENVELOPE__BODY_FETCH, &m, (struct span){ 0 });
    CHECK(heard(901, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0)->e->entries->n_entry == 3);
    m.bytes_max = 1; /* the first always comes, or nobody would get on */
    say(901, MOOTHALL__ENVELOPE__BODY_FETCH, &m, (struct span){ 0 });
    CHECK(heard(901, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0)->e->entries->n_entry == 1);
    m.bytes_max = 0;
    do {
        m.from = from;
        say(901, MOOTHALL__ENVELOPE__BODY_FETCH, &m, (struct span){ 0 });
        a = heard(901, MOOTHALL__ENVELOPE__BODY_ENTRIES, 0);
        CHECK(a && moothall__envelope__get_packed_size(a->e) <= LINK_ENVELOPE_MAX);
        CHECK(a->payload.size == 10 * a->e->entries->n_entry);
        for (size_t i = 0; i < a->e->entries->n_entry; i++)
            CHECK(a->e->entries->entry[i]->number == from + i);
        seen += (int)a->e->entries->n_entry;
        from = a->e->entries->next;
    } while (!a->e->entries->end);
    CHECK(seen == 250);
}

static void test_unknown_batches_are_refused_by_name(void **state)
{
    const struct answer *a;

    (void)state;
    CHECK(!fetch("nope", MOOTHALL__ORDER__COMPLETION, 1, 0));
    a = heard(901, MOOTHALL__ENVELOPE__BODY_REFUSAL, 0);
    CHECK(a && a->e->refusal->code == MOOTHALL__REFUSAL_CODE__UNKNOWN_BATCH && a->e->correlation == 5);
    CHECK(!status("nope"));
    CHECK(strstr(heard(901, MOOTHALL__ENVELOPE__BODY_REFUSAL, 0)->e->refusal->text, "nope"));
}

static void test_cursor_keeps_its_note_over_a_restart(void **state)
{
    Moothall__CursorSet set = MOOTHALL__CURSOR_SET__INIT;
    Moothall__CursorAsk ask = MOOTHALL__CURSOR_ASK__INIT;
    static char queue[] = "q", consumer[] = "c";
    uint8_t note[] = { 1, 0, 2 };
    const Moothall__Cursor *cursor;

    (void)state;
    ask.queue = set.queue = queue;
    ask.consumer = set.consumer = consumer;
    say(1, MOOTHALL__ENVELOPE__BODY_CURSOR_ASK, &ask, (struct span){ 0 });
    CHECK(!heard(1, MOOTHALL__ENVELOPE__BODY_CURSOR, 0)->e->cursor->known);
    set.position = 17;
    set.note.data = note;
    set.note.len = 3;
    say(1, MOOTHALL__ENVELOPE__BODY_CURSOR_SET, &set, (struct span){ 0 });
    CHECK(heard(1, MOOTHALL__ENVELOPE__BODY_CURSOR, 0)->e->cursor->position == 17);
    restart();
    say(1, MOOTHALL__ENVELOPE__BODY_CURSOR_ASK, &ask, (struct span){ 0 });
    cursor = heard(1, MOOTHALL__ENVELOPE__BODY_CURSOR, 0)->e->cursor;
    CHECK(cursor->known && cursor->position == 17 && cursor->note.len == 3 &&
          !memcmp(cursor->note.data, note, 3));
}

/* Only batches in use are in memory; one that was put aside comes back as it was. */
static void test_counts_of_many_batches_outlive_their_place_in_memory(void **state)
{
    enum { BATCHES = 1500 };
    char name[16];

    (void)state;
    for (int i = 0; i < BATCHES; i++) {
        snprintf(name, sizeof name, "b%d", i);
        CHECK(submit_to(name, 2, NEW, (struct job_line){ "a", "A", 0, 0, true }) ==
              MOOTHALL__ACCEPTANCE__ACCEPTED);
    }
    for (int i = 0; i < 1100; i++)
        tick(1);
    for (int i = 0; i < BATCHES; i += 7) {
        snprintf(name, sizeof name, "b%d", i);
        CHECK(submit_to(name, 2, NEW, (struct job_line){ "b", "B", 1, 0, false }) ==
              MOOTHALL__ACCEPTANCE__ACCEPTED);
        CHECK(status(name)->counts->failed == 1 && status(name)->counts->ready == 1 &&
              status(name)->first_unfinished == 1);
    }
    CHECK(status("")->counts->failed == BATCHES && status("")->n_batch == 64);
    check_audit(BATCHES + (BATCHES + 6) / 7, BATCHES);
}

/* Counts are kept, never counted: whatever happens to jobs, they must add up. */
static void test_counts_agree_with_the_jobs_after_a_random_life(void **state)
{
    enum { JOBS = 40 };
    uint64_t random = 42, held[512];
    Moothall__Lease lease[512];
    char names[512][16];
    int holds = 0;

    (void)state;
    worker(1, "w", 8);
    for (int step = 0; step < 3000; step++) {
        const Moothall__Status *now;
        uint64_t sum;
        char id[16], body[16];
        uint32_t position;

        random = random * 6364136223846793005u + 1442695040888963407u;
        position = (uint32_t)(random >> 40) % JOBS;
        snprintf(id, sizeof id, "j%u",
                 (uint32_t)(random >> 50) % 4 ? position : (uint32_t)(random >> 33) % JOBS);
        snprintf(body, sizeof body, "%u", (uint32_t)(random >> 60) % 2);
        switch ((random >> 55) % 6) {
        case 0:
        case 1:
            submit_to("b", JOBS, (Moothall__SubmitMode)((random >> 20) % 3),
                      (struct job_line){ id, body, position, 0, (random >> 23) % 8 == 0 });
            break;
        case 2:
        case 3:
            if (holds == 0) {
                tick(10);
                break;
            }
            holds--;
            result_of(1, names[holds], lease[holds].generation, held[holds],
                      (Moothall__Outcome)(1 + (random >> 25) % 3), "r");
            break;
        case 4:
            tick((int64_t)(random >> 30) % 3000);
            break;
        default:
            beat(1, held, (size_t)holds);
        }
        for (int n = 0; heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, n) && holds < 512; n++) {
            lease[holds] = *heard(1, MOOTHALL__ENVELOPE__BODY_LEASE, n)->e->lease;
            snprintf(names[holds], sizeof names[holds], "%s", lease[holds].job);
            held[holds] = lease[holds].fence;
            holds++;
        }
        if (step % 100)
            continue;
        if (step % 500 == 0) {
            restart();
            worker(1, "w", 8);
        }
        now = hall->now.mono_ms > 1001000 ? status("b") : NULL;
        if (!now)
            continue;
        sum = now->counts->ready + now->counts->leased + now->counts->delayed + now->counts->done +
              now->counts->failed + now->counts->dead;
        {
            Moothall__AuditAsk ask = MOOTHALL__AUDIT_ASK__INIT;
            Moothall__Audit total = MOOTHALL__AUDIT__INIT;
            uint64_t unfinished = now->counts->ready + now->counts->leased + now->counts->delayed,
                     first = now->first_unfinished, waiting = now->waiting, entries = 0;
            const struct answer *a;

            do {
                say(901, MOOTHALL__ENVELOPE__BODY_AUDIT_ASK, &ask, (struct span){ 0 });
                a = heard(901, MOOTHALL__ENVELOPE__BODY_AUDIT, 0);
                total.jobs += a->e->audit->jobs;
                total.unfinished += a->e->audit->unfinished;
                if (a->e->audit->missing || a->e->audit->doubled || a->e->audit->holes ||
                    a->e->audit->corrupt)
                    fail_msg("step %d: %s", step, a->e->audit->first_fault);
                ask.after = a->e->audit->next;
            } while (ask.after);
            assert_int_equal(total.jobs, sum);
            assert_int_equal(total.unfinished, unfinished);
            a = fetch("b", MOOTHALL__ORDER__POSITION, 0, 0);
            entries = a->e->entries->next;
            assert_int_equal(entries, first);
            CHECK(waiting <= JOBS);
        }
    }
}

int main(void)
{
#define PROMISE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        PROMISE(test_submit_answers_as_the_table_says),
        PROMISE(test_submit_takes_seed_and_endpoint_as_part_of_the_body),
        PROMISE(test_job_moves_to_its_new_position),
        PROMISE(test_queue_length_is_bounded),
        PROMISE(test_finished_and_at_fault_end_a_job_with_one_entry),
        PROMISE(test_first_result_wins_and_a_late_one_is_acknowledged),
        PROMISE(test_hindered_job_waits_longer_each_time_and_dies_at_the_fifth),
        PROMISE(test_delayed_job_comes_back_though_the_clock_was_set_back),
        PROMISE(test_lost_workers_count_apart_and_the_third_loss_makes_it_alone),
        PROMISE(test_alone_job_gets_a_worker_that_runs_empty),
        PROMISE(test_job_is_dead_at_the_cap_of_lost_workers),
        PROMISE(test_released_job_is_ready_and_nothing_is_counted),
        PROMISE(test_heartbeat_renews_what_it_names_and_nothing_else),
        PROMISE(test_superseded_lease_is_dropped),
        PROMISE(test_bands_are_served_four_to_two_to_one),
        PROMISE(test_credit_is_a_window_of_jobs_and_bytes),
        PROMISE(test_nothing_is_leased_until_every_worker_is_seated),
        PROMISE(test_more_workers_than_expected_are_dealt_to_once),
        PROMISE(test_without_a_number_seats_are_dealt_when_nobody_new_comes),
        PROMISE(test_worker_of_another_model_is_refused_with_both_fingerprints),
        PROMISE(test_model_of_a_worker_that_left_before_seats_were_dealt_is_forgotten),
        PROMISE(test_worker_that_cannot_run_the_family_is_refused_by_both_names),
        PROMISE(test_pinned_family_refuses_the_first_worker_already),
        PROMISE(test_goodbye_gives_leases_back_and_counts_nothing),
        PROMISE(test_name_is_not_taken_from_a_worker_that_lives),
        PROMISE(test_death_loses_the_leases_at_once),
        PROMISE(test_leases_go_on_over_a_restart_of_the_broker),
        PROMISE(test_leases_of_a_worker_that_does_not_come_back_are_lost),
        PROMISE(test_hall_that_starts_with_another_number_of_workers_deals_anew),
        PROMISE(test_delayed_job_comes_back_after_a_restart),
        PROMISE(test_fetch_by_position_stops_before_the_first_unfinished),
        PROMISE(test_fetch_waits_until_something_comes_or_its_time_is_over),
        PROMISE(test_fetch_is_bounded_by_items_bytes_and_the_envelope),
        PROMISE(test_unknown_batches_are_refused_by_name),
        PROMISE(test_cursor_keeps_its_note_over_a_restart),
        PROMISE(test_counts_of_many_batches_outlive_their_place_in_memory),
        PROMISE(test_counts_agree_with_the_jobs_after_a_random_life),
    };

    log_init("test", LOG_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
