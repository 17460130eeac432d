#include "tests/check.h"

#include "broker/job.h"
#include "broker/lease.h"

static struct lease lease_of(int64_t seq, uint32_t count, uint32_t worker, int64_t deadline_ms)
{
    struct job job = { .seq = seq, .leases = count };

    return (
        struct lease){ .fence = job_fence(&job), .worker = worker, .size = 10, .deadline_ms = deadline_ms };
}

/* A worker that dies must not take its job with it. */
static void test_lease_returns_when_worker_is_silent(void **state)
{
    struct lease_table *table = lease_table_new(4);
    struct lease got;
    struct err err;

    (void)state;
    CHECK(lease_grant(table, lease_of(7, 1, 1, 100), &err));
    CHECK(!lease_expire(table, 99, &got));
    CHECK(lease_expire(table, 100, &got));
    CHECK(fence_seq(got.fence) == 7);
    CHECK(lease_count(table) == 0);
    lease_table_free(table);
}

/* A job that takes hours needs no long lease, only a worker that keeps saying that it is there. */
static void test_lease_lives_while_it_is_touched(void **state)
{
    struct lease_table *table = lease_table_new(4);
    struct lease lease = lease_of(7, 1, 1, 100), got;

    (void)state;
    CHECK(lease_grant(table, lease, NULL));
    for (int64_t now = 50; now < 1000; now += 50) {
        CHECK(lease_touch(table, lease.fence, 1, now + 100));
        CHECK(!lease_expire(table, now, &got));
    }
    CHECK(!lease_expire(table, 1049, &got));
    CHECK(lease_expire(table, 1050, &got));
    lease_table_free(table);
}

/* A worker that wakes up late must not keep alive what is somebody else's by now. */
static void test_lease_is_not_renewed_by_an_old_fence_or_another_worker(void **state)
{
    struct lease_table *table = lease_table_new(4);
    struct lease old = lease_of(7, 1, 1, 100), now = lease_of(7, 2, 2, 200), got;

    (void)state;
    CHECK(lease_grant(table, now, NULL));
    CHECK(!lease_touch(table, old.fence, 1, 999));
    CHECK(!lease_touch(table, now.fence, 1, 999));
    CHECK(!lease_remove(table, old.fence));
    CHECK(lease_find_job(table, 7, &got) && got.fence == now.fence && got.deadline_ms == 200);
    lease_table_free(table);
}

static void test_lease_beyond_the_table_is_refused_in_words(void **state)
{
    struct lease_table *table = lease_table_new(2);
    struct err err = { 0 };

    (void)state;
    CHECK(lease_grant(table, lease_of(1, 1, 1, 9), &err));
    CHECK(lease_grant(table, lease_of(2, 1, 1, 9), &err));
    CHECK(!lease_grant(table, lease_of(3, 1, 1, 9), &err));
    CHECK(err.code == ERR_LIMIT);
    assert_string_equal(err.text, "all 2 leases are out");
    lease_table_free(table);
}

/* The table is an array and an index of it: whatever comes and goes, both must say the same. */
static void test_lease_table_agrees_with_a_plain_list(void **state)
{
    enum { MAX = 300, JOBS = 400 };
    struct lease_table *table = lease_table_new(MAX);
    uint32_t count_of[JOBS] = { 0 };
    bool out[JOBS] = { false };
    size_t expected = 0;
    uint64_t random = 88172645463325252u;

    (void)state;
    for (int step = 0; step < 20000; step++) {
        int64_t seq;
        struct lease lease, got;

        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        seq = (int64_t)(random % JOBS);
        lease = lease_of(seq + 1, count_of[seq], (uint32_t)(seq % 5), (int64_t)(random >> 40));
        if (out[seq] && random >> 20 & 1) {
            CHECK(lease_remove(table, lease.fence));
            out[seq] = false;
            expected--;
        } else if (!out[seq] && expected < MAX) {
            lease = lease_of(seq + 1, ++count_of[seq], (uint32_t)(seq % 5), (int64_t)(random >> 40));
            CHECK(lease_grant(table, lease, NULL));
            out[seq] = true;
            expected++;
        }
        CHECK(lease_count(table) == expected);
        CHECK(lease_find_job(table, seq + 1, &got) == out[seq]);
        CHECK(!out[seq] || fence_seq(got.fence) == seq + 1);
    }
    for (uint32_t worker = 0; worker < 5; worker++) {
        struct lease got;

        while (lease_take(table, worker, &got)) {
            CHECK(got.worker == worker && out[fence_seq(got.fence) - 1]);
            out[fence_seq(got.fence) - 1] = false;
            expected--;
        }
    }
    CHECK(expected == 0 && lease_count(table) == 0);
    lease_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lease_returns_when_worker_is_silent),
        cmocka_unit_test(test_lease_lives_while_it_is_touched),
        cmocka_unit_test(test_lease_is_not_renewed_by_an_old_fence_or_another_worker),
        cmocka_unit_test(test_lease_beyond_the_table_is_refused_in_words),
        cmocka_unit_test(test_lease_table_agrees_with_a_plain_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
