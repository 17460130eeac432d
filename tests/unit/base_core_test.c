/* base's small parts: errors, spans, buffers, arenas. */

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"
#include "tests/check.h"

#include <stdio.h>

/* The operator reads where, from the outside in. */
static void test_error_grows_a_prefix_a_level(void **state)
{
    struct err err;

    (void)state;
    CHECK(!err_set(&err, ERR_INPUT, "shape %dx%d, expected %d", 2, 3, 4));
    CHECK(!err_wrap(&err, "tensor %s", "kv"));
    CHECK(!err_wrap(&err, "load layer %d", 7));
    assert_string_equal(err.text, "load layer 7: tensor kv: shape 2x3, expected 4");
    CHECK(err.code == ERR_INPUT);
}

static void test_error_that_does_not_fit_shows_that_it_was_cut(void **state)
{
    struct err err;
    char big[3000];

    (void)state;
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    err_set(&err, ERR_IO, "%s", big);
    CHECK(strlen(err.text) == ERR_TEXT_MAX - 1);
    assert_string_equal(err.text + ERR_TEXT_MAX - 4, "...");
    err_wrap(&err, "outside");
    CHECK(!strncmp(err.text, "outside: xxx", 12));
    assert_string_equal(err.text + ERR_TEXT_MAX - 4, "...");
}

static void test_nearest_name_is_offered_only_when_near(void **state)
{
    const char *const names[] = { "lease_ms", "listen", "store" };

    (void)state;
    assert_string_equal(err_nearest("lease_msec", names, 3), "lease_ms");
    assert_string_equal(err_nearest("lsten", names, 3), "listen");
    CHECK(!err_nearest("temperature", names, 3));
}

static void test_crc32c_has_the_published_value(void **state)
{
    uint8_t zeros[32] = { 0 };

    (void)state;
    CHECK(span_crc32c(0, span_text("123456789")) == 0xe3069283u);
    CHECK(span_crc32c(0, span_of(zeros, 32)) == 0x8a9136aau); /* RFC 3720, B.4 */
    CHECK(span_crc32c(span_crc32c(0, span_text("1234")), span_text("56789")) == 0xe3069283u);
}

/* Two machines, one with the instruction and one without, must agree on every length and alignment. */
static void test_crc32c_is_the_same_with_and_without_the_instruction(void **state)
{
    uint8_t bytes[300];

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 37 + 11);
    for (size_t from = 0; from < 9; from++)
        for (size_t size = 0; from + size <= sizeof bytes; size++)
            CHECK(span_crc32c(7, span_of(bytes + from, size)) == span_crc32c_plain(7, span_of(bytes + from, size)));
    CHECK(span_crc32c_plain(0, span_text("123456789")) == 0xe3069283u);
}

static void test_utf8_refuses_what_unicode_refuses(void **state)
{
    static const char *const good[] = { "", "a", "\xc3\xbc", "\xe2\x82\xac", "\xf0\x9f\xa6\x99", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf" };
    static const char *const bad[] = { "\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                                       "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xc3", "\xe2\x82", "a\xff" };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(span_is_utf8(span_text(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!span_is_utf8(span_text(bad[i])));
}

static void test_buffer_refuses_past_its_bound_and_stays_as_it_was(void **state)
{
    struct buf buf = { .max = 10 };

    (void)state;
    CHECK(buf_text(&buf, "12345678"));
    CHECK(!buf_text(&buf, "abc"));
    CHECK(buf.size == 8);
    CHECK(buf_text(&buf, "ab"));
    buf_fini(&buf);
}

static void test_arena_keeps_to_its_bound_and_starts_again_after_reset(void **state)
{
    struct arena arena;

    (void)state;
    arena_init(&arena, 1 << 20);
    for (int round = 0; round < 3; round++) {
        int n = 0;

        while (arena_take(&arena, 1000))
            n++;
        CHECK(n == (1 << 20) / 1024);
        arena_reset(&arena);
    }
    CHECK(!arena_take(&arena, SIZE_MAX));
    assert_string_equal(arena_copy(&arena, "hello", 4), "hell");
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_grows_a_prefix_a_level),
        cmocka_unit_test(test_error_that_does_not_fit_shows_that_it_was_cut),
        cmocka_unit_test(test_nearest_name_is_offered_only_when_near),
        cmocka_unit_test(test_crc32c_has_the_published_value),
        cmocka_unit_test(test_crc32c_is_the_same_with_and_without_the_instruction),
        cmocka_unit_test(test_utf8_refuses_what_unicode_refuses),
        cmocka_unit_test(test_buffer_refuses_past_its_bound_and_stays_as_it_was),
        cmocka_unit_test(test_arena_keeps_to_its_bound_and_starts_again_after_reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
