/* A dispatch comes from another process.  Whatever it says, no number of it is used before it was
 * checked. */

#include "tests/check.h"

#include <stdlib.h>
#include <string.h>

#include "worker/dispatch.h"

static const uint8_t moe[3] = { 0, 1, 1 };
static const struct dispatch_shape shape = {
    .hidden = 4,
    .carrier_bytes = 2,
    .expert_count = 8,
    .experts_per_shard = 2,
    .shard_count = 4,
    .layer_count = 3,
    .moe = moe,
};

struct example {
    const char *name;
    uint32_t layer, rows, pairs, slots;
    struct expert_pair pair[6];
    int extra_bytes;
    bool good;
};

#define TWO_ROWS                                                                                             \
    {                                                                                                        \
        { 0, 0, 0, 1 }, { 1, 1, 2, 1 }, { 0, 0, 1, 1 }, { 0 }, { 0 },                                        \
        {                                                                                                    \
            0                                                                                                \
        }                                                                                                    \
    }

static const struct example examples[] = {
    { "one row, one pair", 1, 1, 1, 1, { { 0, 0, 3, 0.5f } }, 0, true },
    { "one row in two shards", 2, 1, 3, 2, { { 0, 0, 0, 1 }, { 0, 0, 1, 1 }, { 0, 1, 6, 1 } }, 0, true },
    { "two rows at one expert", 1, 2, 2, 2, { { 1, 1, 5, 1 }, { 0, 0, 5, 1 } }, 0, true },
    { "a dense layer", 0, 1, 1, 1, { { 0, 0, 3, 1 } }, 0, false },
    { "a layer beyond the last", 3, 1, 1, 1, { { 0, 0, 3, 1 } }, 0, false },
    { "a layer far beyond", 0xffffffffu, 1, 1, 1, { { 0, 0, 3, 1 } }, 0, false },
    { "no rows", 1, 0, 1, 1, { { 0, 0, 3, 1 } }, 0, false },
    { "no pairs", 1, 1, 0, 1, { { 0, 0, 3, 1 } }, 0, false },
    { "no slots", 1, 1, 1, 0, { { 0, 0, 3, 1 } }, 0, false },
    { "fewer slots than rows", 1, 2, 2, 1, { { 0, 0, 3, 1 }, { 1, 0, 3, 1 } }, 0, false },
    { "more slots than pairs", 1, 1, 1, 2, { { 0, 0, 3, 1 } }, 0, false },
    { "a row beyond the rows", 1, 1, 1, 1, { { 1, 0, 3, 1 } }, 0, false },
    { "a slot beyond the slots", 1, 1, 1, 1, { { 0, 1, 3, 1 } }, 0, false },
    { "an expert beyond the experts", 1, 1, 1, 1, { { 0, 0, 8, 1 } }, 0, false },
    { "descending experts", 1, 2, 3, 2, TWO_ROWS, 0, false },
    { "a slot of two shards", 1, 1, 2, 1, { { 0, 0, 1, 1 }, { 0, 0, 2, 1 } }, 0, false },
    { "a slot of two rows", 1, 2, 3, 2, { { 0, 0, 1, 1 }, { 1, 0, 1, 1 }, { 1, 1, 2, 1 } }, 0, false },
    { "a slot that no pair fills", 1, 1, 2, 2, { { 0, 0, 0, 1 }, { 0, 0, 1, 1 } }, 0, false },
    { "a row that no pair uses", 1, 2, 2, 2, { { 0, 0, 0, 1 }, { 0, 1, 2, 1 } }, 0, false },
    { "a byte too few", 1, 1, 1, 1, { { 0, 0, 3, 1 } }, -1, false },
    { "a byte too many", 1, 1, 1, 1, { { 0, 0, 3, 1 } }, 1, false },
    { "counts whose product overflows",
      1,
      0xffffffffu,
      0xffffffffu,
      0xffffffffu,
      { { 0, 0, 3, 1 } },
      0,
      false },
};

/* Without this a peer of another version, or a hostile one, could make a worker read or write where
 * it must not. */
static void test_a_malformed_dispatch_is_refused_with_a_word(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        const struct example *e = &examples[i];
        uint32_t rows = e->rows > 6 ? 1 : e->rows, pairs = e->pairs > 6 ? 1 : e->pairs;
        size_t size = (size_t)rows * 8 + pairs * 12;
        uint8_t *payload = calloc(1, size + 1); /* on the heap, so that a sanitizer sees a byte too far */
        uint8_t *exact;
        const char *fault;

        memcpy(payload + (size_t)rows * 8, e->pair, pairs * 12);
        size = (size_t)((int64_t)size + e->extra_bytes);
        exact = malloc(size ? size : 1);
        memcpy(exact, payload, size);
        fault = dispatch_check(&shape, e->layer, e->rows, e->pairs, e->slots, span_of(exact, size));
        if ((fault == NULL) != e->good)
            fail_msg("%s: %s", e->name, fault ? fault : "was believed");
        free(payload);
        free(exact);
    }
}

/* A frame is bounded in bytes, yet a model with enormous rows must still be able to send one. */
static void test_a_frame_holds_at_least_one_row(void **state)
{
    struct dispatch_shape big = shape;

    (void)state;
    CHECK(dispatch_rows_max(&shape, false) == 256 * 1024 / 8);
    CHECK(dispatch_rows_max(&shape, true) == DISPATCH_DECODE_ROWS_MAX);
    big.hidden = 1 << 24;
    CHECK(dispatch_rows_max(&big, false) == 1 && dispatch_rows_max(&big, true) == 1);
    big.hidden = 1;
    CHECK(dispatch_rows_max(&big, false) == DISPATCH_ROWS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_malformed_dispatch_is_refused_with_a_word),
        cmocka_unit_test(test_a_frame_holds_at_least_one_row),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
