#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/placement.h"

static struct offer offer_of(const char *name, uint64_t memory)
{
    struct offer offer = {
        .incarnation = 1, .shard_count = 8, .shard_bytes = 10, .memory_bytes = memory, .family_count = 1
    };

    snprintf(offer.name, sizeof offer.name, "%s", name);
    snprintf(offer.endpoint, sizeof offer.endpoint, "ipc:///%s", name);
    snprintf(offer.family[0], sizeof offer.family[0], "cpu-avx2");
    return offer;
}

/* "01100..." : who holds shard i. */
static void check_seats(const struct placement *p, const char *expected)
{
    char seats[SHARDS_MAX + 1] = "";

    for (int i = 0; i < p->shard_count; i++)
        seats[i] = (char)('0' + p->seat[i]);
    assert_string_equal(seats, expected);
}

static void test_shards_are_dealt_contiguous_and_in_proportion(void **state)
{
    static const struct {
        uint64_t memory[4];
        int count;
        const char *seats;
    } table[] = {
        { { 100 << 20 }, 1, "00000000" },
        { { 100 << 20, 100 << 20 }, 2, "00001111" },
        { { 300 << 20, 100 << 20 }, 2, "00000011" },
        { { 100 << 20, 100 << 20, 100 << 20 }, 3, "00011122" },
        { { 100 << 20, 100 << 20, 100 << 20, 100 << 20 }, 4, "00112233" },
        { { 0, 0 }, 2, NULL },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct placement p = { 0 };
        struct offer offers[4];
        struct err err = { 0 };

        for (int k = 0; k < table[i].count; k++) {
            char name[32];

            snprintf(name, sizeof name, "worker-%d", k + 1);
            offers[table[i].count - 1 - k] =
                offer_of(name, table[i].memory[k]); /* in whatever order they came */
        }
        if (!table[i].seats) {
            CHECK(!placement_deal(&p, offers, table[i].count, "cpu-avx2", &err));
            assert_string_equal(err.text, "memory for 0 of 8 shards is offered by 2 workers");
            continue;
        }
        CHECK(placement_deal(&p, offers, table[i].count, "cpu-avx2", &err));
        CHECK(p.epoch == 1);
        assert_string_equal(p.holder[0].name, "worker-1");
        check_seats(&p, table[i].seats);
    }
}

/* Proportion must not push a worker over what it has room for. */
static void test_nobody_is_given_more_than_fits(void **state)
{
    struct offer offers[3] = { offer_of("a", 20), offer_of("b", 20), offer_of("c", 1000) };
    struct placement p = { 0 };

    (void)state;
    offers[2].shard_bytes = 250; /* room for 4, though it offers most */
    CHECK(placement_capacity(offers, 3) == 8);
    CHECK(placement_deal(&p, offers, 3, "f", NULL));
    check_seats(&p, "00112222");
}

static void test_names_count_as_numbers(void **state)
{
    struct offer offers[3] = { offer_of("worker-10", 100 << 20), offer_of("worker-9", 100 << 20),
                               offer_of("worker-1", 100 << 20) };
    struct placement p = { 0 };

    (void)state;
    CHECK(placement_deal(&p, offers, 3, "f", NULL));
    assert_string_equal(p.holder[0].name, "worker-1");
    assert_string_equal(p.holder[1].name, "worker-9");
    assert_string_equal(p.holder[2].name, "worker-10");
}

/* The others keep what they hold: only the epoch says that somebody's process is new. */
static void test_restarted_worker_takes_its_predecessors_seats(void **state)
{
    struct offer offers[2] = { offer_of("a", 100 << 20), offer_of("b", 100 << 20) }, again = offers[1],
                 other = offer_of("c", 100 << 20);
    struct placement p = { 0 };

    (void)state;
    CHECK(placement_deal(&p, offers, 2, "f", NULL));
    CHECK(placement_return(&p, &offers[0]) == PLACEMENT_SAME);
    CHECK(p.epoch == 1);
    again.incarnation = 2;
    CHECK(placement_return(&p, &again) == PLACEMENT_MOVED);
    CHECK(p.epoch == 2 && p.holder[1].incarnation == 2);
    check_seats(&p, "00001111");
    CHECK(placement_return(&p, &other) == PLACEMENT_STRANGER);
    CHECK(p.epoch == 2);
}

static void test_more_workers_than_shards_leaves_spares(void **state)
{
    struct offer offers[10];
    struct placement p = { 0 };

    (void)state;
    for (int i = 0; i < 10; i++) {
        char name[32];

        snprintf(name, sizeof name, "w%d", i);
        offers[i] = offer_of(name, 100 << 20);
    }
    CHECK(placement_deal(&p, offers, 10, "f", NULL));
    CHECK(p.holder_count == 8);
    check_seats(&p, "01234567");
}

/* A hall computes what all in it can compute, and no less than it must. */
static void test_family_is_the_lowest_of_the_best(void **state)
{
    struct offer offers[2] = { offer_of("a", 1), offer_of("b", 1) };

    (void)state;
    for (int i = 0; i < 2; i++) {
        offers[i].family_count = 2;
        snprintf(offers[i].family[1], sizeof offers[i].family[1], "cpu-avx512");
    }
    assert_string_equal(placement_family(offers, 2), "cpu-avx512");
    offers[1].family_count = 1;
    assert_string_equal(placement_family(offers, 2), "cpu-avx2");
    snprintf(offers[1].family[0], sizeof offers[1].family[0], "cuda-sm80");
    CHECK(placement_family(offers, 2) == NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards_are_dealt_contiguous_and_in_proportion),
        cmocka_unit_test(test_nobody_is_given_more_than_fits),
        cmocka_unit_test(test_names_count_as_numbers),
        cmocka_unit_test(test_restarted_worker_takes_its_predecessors_seats),
        cmocka_unit_test(test_more_workers_than_shards_leaves_spares),
        cmocka_unit_test(test_family_is_the_lowest_of_the_best),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
