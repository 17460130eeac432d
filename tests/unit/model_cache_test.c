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

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_a_spent_pool_refuses_and_nothing_changes) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
