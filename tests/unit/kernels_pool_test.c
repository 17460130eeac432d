/* The pool: every unit is run exactly once, and its work is seen by the caller. */

#include "kernels/pool.h"
#include "tests/check.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { UNITS = 1000 };

struct job {
    int *count; /* [UNITS], plain ints: the pool must order the accesses */
    int add;
};

static void count_unit(void *context, int unit)
{
    struct job *job = context;

    job->count[unit] += job->add;
}

static void test_every_unit_runs_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        static const int units[] = { 0, 1, 2, 3, 7, 64, UNITS };
        int count[UNITS] = { 0 }, expected[UNITS] = { 0 };
        struct pool *pool;
        struct err err;

        CHECK(pool_new(&pool, threads, &err));
        CHECK(pool_threads(pool) == threads);
        for (int round = 0; round < 700; round++) {
            int n = units[round % 7];
            struct job job = { count, round };

            pool_run(pool, count_unit, &job, n);
            for (int i = 0; i < n; i++)
                expected[i] += round;
            CHECK(memcmp(count, expected, sizeof count) == 0);
            if (round % 100 == 99) /* long enough for the threads to fall asleep */
                nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
        }
        pool_free(pool);
    }
    pool_free(NULL);
}

/* A worker that waits for its peers, or has no jobs, must leave the machine to others. */
static void test_an_idle_pool_costs_nothing(void **state)
{
    struct timespec before, after;
    int count[UNITS] = { 0 };
    struct job job = { count, 1 };
    struct pool *pool;
    struct err err;

    (void)state;
    CHECK(pool_new(&pool, 4, &err));
    pool_run(pool, count_unit, &job, UNITS);
    nanosleep(&(struct timespec){ .tv_nsec = 20000000 },
              NULL); /* longer than the threads look before they sleep */
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    CHECK((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec < 20000000);
    pool_run(pool, count_unit, &job, UNITS); /* and they wake again */
    for (int i = 0; i < UNITS; i++)
        CHECK(count[i] == 2);
    pool_free(pool);
}

static void test_a_senseless_number_of_threads_is_refused(void **state)
{
    struct pool *pool;
    struct err err;

    (void)state;
    CHECK(!pool_new(&pool, 0, &err));
    CHECK(!pool_new(&pool, POOL_THREADS_MAX + 1, &err));
    CHECK(err.code == ERR_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_unit_runs_once),
        cmocka_unit_test(test_an_idle_pool_costs_nothing),
        cmocka_unit_test(test_a_senseless_number_of_threads_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
