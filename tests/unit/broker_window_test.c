#include "tests/check.h"

#include <stdlib.h>

#include "broker/window.h"

static struct window *window_new(void)
{
    struct window *window = malloc(sizeof *window);

    CHECK(window != NULL);
    window_init(window);
    return window;
}

static void offer(struct window *window, int64_t seq)
{
    window_offer(window, (struct waiting){ .seq = seq, .size = 1 });
}

/* What the store would answer: every ready job above `after`, oldest first. */
static void refill_from(struct window *window, const bool *ready, int64_t jobs)
{
    struct waiting rows[WINDOW_MAX / 2];
    int64_t after;
    size_t n = 0;

    if (!window_wants(window, &after))
        return;
    for (int64_t seq = after + 1; seq < jobs && n < WINDOW_MAX / 2; seq++)
        if (ready[seq])
            rows[n++] = (struct waiting){ .seq = seq, .size = 1 };
    window_refill(window, rows, n, n ? rows[n - 1].seq : after, n < WINDOW_MAX / 2);
}

/* Oldest first, also those that come back. */
static void test_window_gives_the_oldest_first(void **state)
{
    struct window *window = window_new();

    (void)state;
    window_refill(window, NULL, 0, 0, true); /* the store has nothing: from now on every ready job passes here */
    offer(window, 5);
    offer(window, 9);
    offer(window, 7);
    offer(window, 2); /* returned by a lost worker */
    CHECK(window->count == 4);
    CHECK(window_at(window, 0)->seq == 2 && window_at(window, 1)->seq == 5);
    CHECK(window_at(window, 2)->seq == 7 && window_at(window, 3)->seq == 9);
    window_remove(window, 7);
    window_remove(window, 6); /* not there: nothing happens */
    CHECK(window->count == 3 && window_at(window, 2)->seq == 9);
    free(window);
}

/* A job that was offered while older ones are still in the store must not overtake them. */
static void test_window_that_is_not_whole_leaves_the_young_to_the_store(void **state)
{
    struct window *window = window_new();
    int64_t after;

    (void)state;
    offer(window, 50);
    CHECK(window->count == 0);
    CHECK(window_wants(window, &after) && after == 0);
    window_refill(window, (struct waiting[]){ { .seq = 10 }, { .seq = 20 } }, 2, 20, false);
    CHECK(!window->whole);
    offer(window, 50);
    CHECK(window->count == 2);
    offer(window, 15);
    CHECK(window->count == 3 && window_at(window, 1)->seq == 15);
    CHECK(window_wants(window, &after) && after == 20);
    free(window);
}

/* However many wait, memory is that of the window; and none is left out or given twice. */
static void test_window_of_many_jobs_gives_each_once_and_in_order(void **state)
{
    enum { JOBS = 20000 };
    struct window *window = window_new();
    bool *ready = calloc(JOBS, sizeof *ready);
    uint64_t random = 1234567;
    int64_t added = 1, given = 0, left = 0;

    (void)state;
    CHECK(ready != NULL);
    while (given < JOBS - 1) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        for (uint64_t n = random >> 60; n > 0 && added < JOBS; n--) {
            ready[added] = true;
            offer(window, added++);
            left++;
        }
        refill_from(window, ready, JOBS);
        CHECK(window->count <= WINDOW_MAX);
        for (uint64_t n = random >> 57 & 15; n > 0 && left > 0; n--) {
            int64_t seq, oldest = 1;

            refill_from(window, ready, JOBS);
            while (!ready[oldest])
                oldest++;
            CHECK(window->count > 0);
            seq = window_at(window, 0)->seq;
            CHECK(seq == oldest);
            window_remove(window, seq);
            ready[seq] = false;
            left--;
            if (random >> 50 & 1 && given % 7 == 0) { /* it comes back: its worker was lost */
                ready[seq] = true;
                offer(window, seq);
                left++;
                random = random * 6364136223846793005u + 1;
            } else {
                given++;
            }
        }
    }
    CHECK(left == 0);
    free(ready);
    free(window);
}

/* At the bound the youngest goes back to the store, not the newcomer that is older. */
static void test_window_that_is_full_keeps_the_older(void **state)
{
    struct window *window = window_new();

    (void)state;
    window_refill(window, NULL, 0, 0, true);
    for (int64_t seq = 10; seq < 10 + WINDOW_MAX; seq++)
        offer(window, seq);
    CHECK(window->count == WINDOW_MAX && window->whole);
    offer(window, 5);
    CHECK(window->count == WINDOW_MAX && !window->whole);
    CHECK(window_at(window, 0)->seq == 5);
    CHECK(window_at(window, WINDOW_MAX - 1)->seq == 10 + WINDOW_MAX - 2);
    offer(window, 100000);
    CHECK(window->count == WINDOW_MAX && window_at(window, WINDOW_MAX - 1)->seq == 10 + WINDOW_MAX - 2);
    free(window);
}

/* Ready jobs that may not be leased are read past once, not at every look. */
static void test_window_goes_on_behind_jobs_that_are_left_out(void **state)
{
    struct window *window = window_new();
    int64_t after;

    (void)state;
    window_refill(window, NULL, 0, 1000, false); /* a thousand of a batch that is being cancelled */
    CHECK(window_wants(window, &after) && after == 1000);
    offer(window, 500); /* another batch's, lost by its worker */
    CHECK(window->count == 1);
    offer(window, 1500);
    CHECK(window->count == 1);
    window_remove(window, 500);
    CHECK(window_wants(window, &after) && after == 1000);
    window_refill(window, (struct waiting[]){ { .seq = 1500 } }, 1, 1500, true);
    offer(window, 1600);
    CHECK(window->count == 2);
    free(window);
}

/* After a cancel nothing of the batch is in reach of a worker. */
static void test_window_lets_go_of_a_batch(void **state)
{
    struct window *window = window_new();

    (void)state;
    window_refill(window, NULL, 0, 0, true);
    for (int64_t seq = 1; seq <= 100; seq++)
        window_offer(window, (struct waiting){ .seq = seq, .batch = seq % 3 });
    window_remove(window, 1);
    window_remove_batch(window, 2);
    CHECK(window->count == 66);
    for (size_t i = 0; i < window->count; i++)
        CHECK(window_at(window, i)->batch != 2 && (i == 0 || window_at(window, i)->seq > window_at(window, i - 1)->seq));
    window_remove_batch(window, 0);
    window_remove_batch(window, 1);
    CHECK(window->count == 0 && window->whole);
    free(window);
}

/* More than there is room for: the youngest stay in the store, and are read again. */
static void test_window_takes_no_more_than_it_has_room_for(void **state)
{
    enum { MANY = WINDOW_MAX + 100 };
    struct window *window = window_new();
    struct waiting *rows = calloc(MANY, sizeof *rows);

    (void)state;
    CHECK(rows != NULL);
    for (int i = 0; i < MANY; i++)
        rows[i].seq = i + 1;
    window_refill(window, rows, MANY, MANY, true);
    CHECK(window->count == WINDOW_MAX && !window->whole && window->seen == WINDOW_MAX);
    offer(window, MANY + 1);
    CHECK(window->count == WINDOW_MAX);
    free(rows);
    free(window);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window_gives_the_oldest_first),
        cmocka_unit_test(test_window_that_is_not_whole_leaves_the_young_to_the_store),
        cmocka_unit_test(test_window_of_many_jobs_gives_each_once_and_in_order),
        cmocka_unit_test(test_window_that_is_full_keeps_the_older),
        cmocka_unit_test(test_window_goes_on_behind_jobs_that_are_left_out),
        cmocka_unit_test(test_window_lets_go_of_a_batch),
        cmocka_unit_test(test_window_takes_no_more_than_it_has_room_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
