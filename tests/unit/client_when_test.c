/* Moments as people write them. */

#include "tests/check.h"

#include <string.h>

#include "client/when.h"

static void test_durations_and_times(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = {
        { "", 0 },
        { "90s", 1000 + 90 * 1000 },
        { "8h", 1000 + 8 * 3600 * 1000 },
        { "30d", 1000 + INT64_C(30) * 24 * 3600 * 1000 },
        { "1970-01-01T00:00:01Z", 1000 },
        { "2024-02-29T23:59:59.25Z", INT64_C(1709251199250) },
        { "2027-01-31t22:00:00z", INT64_C(1801432800000) },
        { "2027-01-31 23:00:00+01:00", INT64_C(1801432800000) },
        { "2027-01-31T18:30:00-03:30", INT64_C(1801432800000) },
    };
    int64_t ms;
    struct err err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK(when_read("--deadline", rows[i].text, 1000, &ms, &err) && ms == rows[i].ms);
}

/* A deadline that was misread would expire a night's work. */
static void test_what_is_not_clear_is_refused(void **state)
{
    static const char *const bad[] = {
        "tomorrow", "5", "-5s", "8 hours from now", "5000d", "2027-01-31", "2027-01-31T22:00:00", "2027-02-29T00:00:00Z",
        "2027-13-01T00:00:00Z", "2027-01-31T24:00:00Z", "2027-01-31T22:00:00Zulu", "2027-01-31T22:00:00+1:00", "2027-01-31T22:00:00.Z",
    };
    int64_t ms;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = { 0 };

        CHECK(!when_read("--deadline", bad[i], 1000, &ms, &err));
        CHECK(err.code == ERR_INPUT && strstr(err.text, "--deadline: expected") && strstr(err.text, bad[i]));
    }
}

static void test_a_time_is_written_for_people(void **state)
{
    char text[WHEN_WRITTEN_SIZE];

    (void)state;
    CHECK(!strcmp(when_write(text, INT64_C(1801432800999)), "2027-01-31T22:00:00Z"));
    CHECK(!strcmp(when_write(text, 0), "-"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations_and_times),
        cmocka_unit_test(test_what_is_not_clear_is_refused),
        cmocka_unit_test(test_a_time_is_written_for_people),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
