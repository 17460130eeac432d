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
        cmocka_unit_test(test_a_senseless_number_of_threads_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
