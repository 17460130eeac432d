/* Values as they are written into lines of output. */

#include "client/rows.h"

#include <string.h>

#include "tests/check.h"

static void is_written(const char *json, const char *expected)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    struct buf out = { 0 };

    CHECK(value && row_write(&out, value));
    CHECK(out.size == strlen(expected) && memcmp(out.data, expected, out.size) == 0);
    json_decref(value);
    buf_fini(&out);
}

/* A price of 0.1 must not become 0.10000000000000001 because it went through a double. */
static void test_numbers_have_their_shortest_spelling(void **state)
{
    (void)state;
    is_written("[0.1, 1.50, -0.3, 2.0, 1e300, 123456789012345678, -7, 0.30000000000000004]",
               "[0.1,1.5,-0.3,2.0,1e+300,123456789012345678,-7,0.30000000000000004]");
}

/* Columns stand in the schema's order, and every line is one line for every reader. */
static void test_keys_keep_their_order_and_lines_are_one(void **state)
{
    (void)state;
    is_written("{\"z\": null, \"a\": [true, false, {}], \"m\": \"\\u2028x\\n\\u0085\\\"\"}",
               "{\"z\":null,\"a\":[true,false,{}],\"m\":\"\\u2028x\\n\\u0085\\\"\"}");
}

/* A key with a slash in it must not look like two. */
static void test_pointers_are_escaped(void **state)
{
    struct buf pointer = { 0 };

    (void)state;
    CHECK(row_pointer_add(&pointer, "a/b", 3) && row_pointer_add(&pointer, "m~n", 3) &&
          row_pointer_add(&pointer, "", 0) && row_pointer_add(&pointer, "0", 1));
    CHECK(pointer.size == strlen("/a~1b/m~0n//0") &&
          memcmp(pointer.data, "/a~1b/m~0n//0", pointer.size) == 0);
    buf_fini(&pointer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_have_their_shortest_spelling),
        cmocka_unit_test(test_keys_keep_their_order_and_lines_are_one),
        cmocka_unit_test(test_pointers_are_escaped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
