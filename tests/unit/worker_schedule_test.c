/* Who takes part in the next step. */

#include "tests/check.h"

#include <string.h>

#include "worker/schedule.h"

static const struct schedule_limits roomy = {
    .batch_tokens = 100, .sequences_max = 8, .page = 4, .pages_free = 1000, .pages_all = 1000
};

/* A prompt beside them must not stop those that are generating. */
static void test_single_rows_come_before_chunks(void **state)
{
    struct schedule_item item[4] = {
        { .total = 500, .cached = 100, .running = true },
        { .total = 50, .cached = 49, .running = true },
        { .total = 60, .cached = 59, .running = true },
        { .total = 30 },
    };

    (void)state;
    schedule_plan(item, 4, roomy);
    CHECK(item[1].rows == 1 && item[2].rows == 1);
    CHECK(item[0].rows == 98); /* the rest of the budget: nothing is left for the newcomer */
    CHECK(item[3].rows == 0 && !item[3].running);
}

static void test_newcomers_are_let_in_while_there_is_room(void **state)
{
    struct schedule_item item[3] = { { .total = 10 }, { .total = 10 }, { .total = 10 } };
    struct schedule_limits limits = roomy;

    (void)state;
    limits.sequences_max = 2;
    schedule_plan(item, 3, limits);
    CHECK(item[0].running && item[0].rows == 10 && item[1].running && item[1].rows == 10 && !item[2].running);
    limits.batch_tokens = 15;
    memset(item, 0, sizeof item);
    item[0].total = item[1].total = 10;
    schedule_plan(item, 2, limits);
    CHECK(item[0].rows == 10 && item[1].rows == 5);
}

/* The youngest gives way, so that the oldest always gets on and everything ends. */
static void test_a_full_cache_sends_the_youngest_away(void **state)
{
    struct schedule_item item[3] = {
        { .total = 13, .cached = 12, .running = true },
        { .total = 9, .cached = 8, .running = true },
        { .total = 9, .cached = 8, .running = true },
    };
    struct schedule_limits limits = {
        .batch_tokens = 100, .sequences_max = 8, .page = 4, .pages_free = 0, .pages_all = 7
    };

    (void)state;
    schedule_plan(item, 3, limits);
    CHECK(item[0].rows == 1 && item[1].rows == 1);
    CHECK(item[2].preempt && !item[2].running && item[2].rows == 0 && item[2].cached == 0);
}

/* A row planned for somebody who is then sent away must not count twice. */
static void test_rows_of_one_sent_away_go_back_to_the_budget(void **state)
{
    struct schedule_item item[2] = {
        { .total = 40, .cached = 8, .running = true },
        { .total = 9, .cached = 8, .running = true },
    };
    struct schedule_limits limits = {
        .batch_tokens = 8, .sequences_max = 8, .page = 4, .pages_free = 1, .pages_all = 5
    };

    (void)state;
    schedule_plan(item, 2, limits);
    CHECK(item[1].preempt && item[0].rows == 7);
}

static void test_one_that_must_be_alone_is(void **state)
{
    struct schedule_item item[3] = { { .total = 5, .cached = 4, .running = true },
                                     { .total = 5, .alone = true },
                                     { .total = 5 } };

    (void)state;
    schedule_plan(item, 3, roomy);
    CHECK(item[0].rows == 1 && !item[1].running && !item[2].running); /* and nobody overtakes it */
    schedule_plan(item + 1, 2, roomy);
    CHECK(item[1].running && item[1].rows == 5 && !item[2].running);
    schedule_plan(item + 1, 2, roomy);
    CHECK(!item[2].running);
}

/* Never a wait without an end: what cannot fit even by itself is named. */
static void test_what_can_never_fit_is_named(void **state)
{
    struct schedule_item item[2] = { { .total = 20 }, { .total = 5 } };
    struct schedule_item grown = { .total = 17, .cached = 16, .running = true };
    struct schedule_limits limits = {
        .batch_tokens = 100, .sequences_max = 8, .page = 4, .pages_free = 4, .pages_all = 4
    };

    (void)state;
    schedule_plan(item, 2, limits);
    CHECK(item[0].impossible && !item[0].running && item[1].running && item[1].rows == 5);
    limits.pages_free = 0;
    schedule_plan(&grown, 1, limits);
    CHECK(grown.impossible && grown.rows == 0);
}

/* What waits for another one's prompt must not hold up those behind it, nor be let in. */
static void test_one_that_is_held_is_passed(void **state)
{
    struct schedule_item item[3] = { { .total = 20, .cached = 8, .running = true }, { .total = 20, .held = true }, { .total = 5 } };

    (void)state;
    schedule_plan(item, 3, roomy);
    CHECK(item[0].rows == 12 && !item[1].running && item[2].running && item[2].rows == 5);
}

/* Of a prompt that is there already only the page begun is copied. */
static void test_pages_in_common_cost_nothing(void **state)
{
    struct schedule_item item[3] = { { .total = 15, .cached = 14, .running = true },
                                     { .total = 15, .offered = 14 },
                                     { .total = 15, .offered = 14 } };
    struct schedule_limits limits = {
        .batch_tokens = 100, .sequences_max = 8, .page = 4, .pages_free = 3, .pages_all = 7
    };

    (void)state;
    schedule_plan(item, 3, limits);
    CHECK(item[1].running && item[1].share && item[1].cached == 14 && item[1].rows == 1);
    CHECK(!item[2].running && !item[2].share && item[2].cached == 0); /* a page for each that runs stays free */
    item[0].total = item[1].total = 16; /* a page border: nothing to copy, a new page each */
    item[0].cached = 15;
    item[1] = (struct schedule_item){ .total = 15, .offered = 12 };
    limits.pages_free = 2;
    schedule_plan(item, 2, limits);
    CHECK(item[1].running && item[1].rows == 3);
}

/* Sending one away brings only what it has for itself; the plan does not promise more. */
static void test_shared_pages_do_not_come_free(void **state)
{
    struct schedule_item item[3] = {
        { .total = 17, .cached = 16, .running = true, .shared = 3 },
        { .total = 14, .cached = 13, .running = true, .shared = 3 },
        { .total = 13, .cached = 12, .running = true, .shared = 3 },
    };
    struct schedule_limits limits = {
        .batch_tokens = 100, .sequences_max = 8, .page = 4, .pages_free = 0, .pages_all = 5
    };

    (void)state;
    schedule_plan(item, 3, limits);
    CHECK(item[2].preempt && item[1].preempt && item[0].rows == 1);
    /* Nothing of its own to give: the oldest waits for the next plan, and is not called impossible. */
    item[0] = (struct schedule_item){ .total = 13, .cached = 12, .running = true, .shared = 3 };
    item[1] = (struct schedule_item){ .total = 13, .cached = 12, .running = true, .shared = 3 };
    schedule_plan(item, 2, limits);
    CHECK(item[1].preempt && item[0].rows == 0 && !item[0].impossible);
}

/* Whatever the mix, a run of plans ends with every sequence done, and pages are never overdrawn. */
static void test_every_sequence_ends_in_a_small_cache(void **state)
{
    struct schedule_item item[6];
    uint32_t goal[6], steps = 0;
    struct schedule_limits limits = { .batch_tokens = 7, .sequences_max = 4, .page = 4, .pages_all = 12 };
    int left = 6;

    (void)state;
    memset(item, 0, sizeof item);
    for (int i = 0; i < 6; i++) {
        item[i].total = 3 + (uint32_t)i * 4;
        goal[i] = item[i].total + 20;
    }
    while (left) {
        uint32_t used = 0, budget = 0;

        for (int i = 0; i < left; i++)
            used += (item[i].cached + 3) / 4;
        CHECK(used <= limits.pages_all);
        limits.pages_free = limits.pages_all - used;
        schedule_plan(item, left, limits);
        for (int i = 0; i < left; i++) {
            CHECK(!item[i].impossible);
            budget += item[i].rows;
            item[i].cached += item[i].rows;
            item[i].total += item[i].running && item[i].cached == item[i].total;
        }
        CHECK(budget > 0 && budget <= 7);
        for (int i = left - 1; i >= 0; i--)
            if (item[i].total > goal[i]) {
                memmove(&item[i], &item[i + 1], (size_t)(left - i - 1) * sizeof *item);
                memmove(&goal[i], &goal[i + 1], (size_t)(left - i - 1) * sizeof *goal);
                left--;
            }
        CHECK(++steps < 2000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single_rows_come_before_chunks),
        cmocka_unit_test(test_newcomers_are_let_in_while_there_is_room),
        cmocka_unit_test(test_a_full_cache_sends_the_youngest_away),
        cmocka_unit_test(test_rows_of_one_sent_away_go_back_to_the_budget),
        cmocka_unit_test(test_one_that_must_be_alone_is),
        cmocka_unit_test(test_one_that_is_held_is_passed),
        cmocka_unit_test(test_pages_in_common_cost_nothing),
        cmocka_unit_test(test_shared_pages_do_not_come_free),
        cmocka_unit_test(test_what_can_never_fit_is_named),
        cmocka_unit_test(test_every_sequence_ends_in_a_small_cache),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
