/* The latent cache: a bound that holds, and growing that fails without a trace. */

#include "worker/model/cache.h"

#include "tests/check.h"
#include "tests/unit/checkpoint.h"
#include "worker/model/model.h"

static void test_a_spent_pool_refuses_and_nothing_changes(void **state)
{
    char *dir = checkpoint_dir();
    struct model_options options = { .threads = 1 };
    struct cache_sequence a, b;
    struct cache_pool *pool;
    struct model *model;
    struct err err = { 0 };
    int64_t page;

    (void)state;
    checkpoint_write(dir, CHECKPOINT_CONFIG, 1, (struct checkpoint_quirks){ 0 });
    CHECK(model_open(&model, dir, &options, &err));
    page = CACHE_PAGE * model_position_bytes(model);
    pool = cache_pool_new(model, 3 * page + page / 2);
    CHECK(cache_pool_pages_max(pool) == 3);
    cache_sequence_init(&a, pool);
    cache_sequence_init(&b, pool);
    CHECK(cache_grow(&a, 0, &err) && cache_pool_pages_used(pool) == 0);
    CHECK(cache_grow(&a, 1, &err) && cache_pool_pages_used(pool) == 1);
    CHECK(cache_grow(&a, 64, &err) && cache_pool_pages_used(pool) == 1);
    CHECK(cache_grow(&a, 65, &err) && cache_pool_pages_used(pool) == 2);
    CHECK(!cache_grow(&b, 65, &err) && err.code == ERR_LIMIT);
    CHECK(cache_pool_pages_used(pool) == 2 && b.page_count == 0);
    CHECK(cache_grow(&b, 64, &err) && cache_pool_pages_used(pool) == 3);
    CHECK(!cache_grow(&a, 129, &err) && a.page_count == 2);
    /* Pages do not overlap: every row of every layer keeps what is written to it. */
    for (int layer = 0; layer < 3; layer++)
        for (int p = 0; p < 128; p++)
            memset(cache_row(&a, layer, p), layer * 128 + p, (size_t)model_position_bytes(model) / 3);
    memset(cache_row(&b, 2, 63), 0xee, (size_t)model_position_bytes(model) / 3);
    for (int layer = 0; layer < 3; layer++)
        for (int p = 0; p < 128; p++)
            CHECK(((unsigned char *)cache_row(&a, layer, p))[model_position_bytes(model) / 3 - 1] ==
                  (unsigned char)(layer * 128 + p));
    cache_shrink(&a, 64);
    CHECK(cache_pool_pages_used(pool) == 2 && a.page_count == 1);
    CHECK(cache_grow(&b, 65, &err));
    cache_sequence_fini(&a);
    cache_sequence_fini(&b);
    CHECK(cache_pool_pages_used(pool) == 0);
    cache_pool_free(pool);
    cache_pool_free(NULL);
    model_free(model);
    checkpoint_remove(dir);
}

static unsigned char *row(const struct cache_sequence *s, int layer, int position)
{
    return cache_row(s, layer, position);
}

/* Several answers to one prompt keep it once; what each adds is its own. */
static void test_sequences_that_begin_alike_have_full_pages_in_common(void **state)
{
    char *dir = checkpoint_dir();
    struct model_options options = { .threads = 1 };
    struct cache_sequence a, b, c;
    struct cache_pool *pool;
    struct model *model;
    struct err err = { 0 };

    (void)state;
    checkpoint_write(dir, CHECKPOINT_CONFIG, 1, (struct checkpoint_quirks){ 0 });
    CHECK(model_open(&model, dir, &options, &err));
    pool = cache_pool_new(model, 5 * CACHE_PAGE * model_position_bytes(model));
    cache_sequence_init(&a, pool);
    cache_sequence_init(&b, pool);
    cache_sequence_init(&c, pool);
    CHECK(cache_grow(&a, 150, &err) && cache_pool_pages_used(pool) == 3 && cache_pages_own(&a) == 3);
    for (int layer = 0; layer < 3; layer++)
        for (int p = 0; p < 150; p++)
            row(&a, layer, p)[0] = (unsigned char)(layer * 3 + p);
    CHECK(cache_share(&b, &a, 140, &err) && cache_pool_pages_used(pool) == 4);
    CHECK(cache_pages_own(&a) == 1 && cache_pages_own(&b) == 1);
    CHECK(row(&a, 1, 127) == row(&b, 1, 127) && row(&a, 1, 128) != row(&b, 1, 128));
    for (int layer = 0; layer < 3; layer++)
        for (int p = 0; p < 140; p++)
            CHECK(row(&b, layer, p)[0] == (unsigned char)(layer * 3 + p));
    row(&b, 2, 140)[0] = 99; /* its own next position */
    CHECK(row(&a, 2, 140)[0] == (unsigned char)(2 * 3 + 140));
    CHECK(cache_share(&c, &a, 128, &err) && cache_pool_pages_used(pool) == 4); /* no page begun: no copy */
    cache_shrink(&a, 0);
    CHECK(cache_pool_pages_used(pool) == 3 && cache_pages_own(&b) == 1 && row(&b, 0, 5)[0] == 5);
    CHECK(cache_grow(&a, 65, &err) && cache_pool_pages_used(pool) == 5);
    cache_shrink(&c, 0);
    CHECK(cache_pages_own(&b) == 3);
    CHECK(!cache_share(&c, &b, 140, &err) && err.code == ERR_LIMIT && c.page_count == 0 && cache_pages_own(&b) == 3);
    CHECK(cache_share(&c, &b, 128, &err));
    cache_sequence_fini(&b);
    CHECK(cache_pool_pages_used(pool) == 4);
    cache_sequence_fini(&c);
    cache_sequence_fini(&a);
    CHECK(cache_pool_pages_used(pool) == 0);
    cache_pool_free(pool);
    model_free(model);
    checkpoint_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_spent_pool_refuses_and_nothing_changes),
        cmocka_unit_test(test_sequences_that_begin_alike_have_full_pages_in_common),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
