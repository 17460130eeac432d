/* A configuration file's mistakes are found by place and by name. */

#include "base/yaml_fields.h"
#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct config {
    char listen[16], config[64];
    int64_t workers, cache_bytes, lease_ms;
    bool keep;
    int log;
};

static const char *const logs[] = { "text", "json", NULL };
static const struct field fields[] = {
    { "config", FIELD_TEXT, offsetof(struct config, config), sizeof(((struct config *)0)->config), 0, 0, NULL, "" },
    { "listen", FIELD_TEXT, offsetof(struct config, listen), sizeof(((struct config *)0)->listen), 0, 0, NULL, "" },
    { "workers", FIELD_INT, offsetof(struct config, workers), 0, 1, 64, NULL, "" },
    { "cache_bytes", FIELD_BYTES, offsetof(struct config, cache_bytes), 0, 1 << 20, 1LL << 40, NULL, "" },
    { "lease_ms", FIELD_DURATION, offsetof(struct config, lease_ms), 0, 100, 3600000, NULL, "" },
    { "keep", FIELD_BOOL, offsetof(struct config, keep), 0, 0, 0, NULL, "" },
    { "log", FIELD_CHOICE, offsetof(struct config, log), 0, 0, 0, logs, "" },
};
enum { FIELD_COUNT = sizeof fields / sizeof *fields };

static char path[] = "/tmp/moothall-yaml-XXXXXX";

static bool load(const char *text, struct config *config, struct err *err)
{
    FILE *file = fopen(path, "w");

    fputs(text, file);
    fclose(file);
    return yaml_fields_load(path, fields, FIELD_COUNT, config, err);
}

static void test_a_good_file_fills_the_struct(void **state)
{
    struct config config = { .workers = 7 };
    struct err err;

    (void)state;
    CHECK(load("# a comment\nlisten: \"ipc:///x\"\ncache_bytes: 1.5 GiB\nlease_ms: 15s\nkeep: yes\nlog: json\n", &config, &err));
    assert_string_equal(config.listen, "ipc:///x");
    CHECK(config.cache_bytes == 3LL << 29);
    CHECK(config.lease_ms == 15000);
    CHECK(config.keep && config.log == 1);
    CHECK(config.workers == 7); /* what the file does not name stays */
    CHECK(load("", &config, &err));
    CHECK(load("# nothing\n", &config, &err));
}

static void test_every_mistake_names_its_place_and_key(void **state)
{
    static const struct {
        const char *file, *place, *says;
    } table[] = {
        { "workers: 2\nlease_msec: 5s\n", ":2:1:", "unknown key `lease_msec` (did you mean `lease_ms`?)" },
        { "zebra: 2\n", ":1:1:", "unknown key `zebra`" },
        { "workers: 2\nworkers: 3\n", ":2:1:", "duplicate key `workers`" },
        { "workers: two\n", ":1:10:", "workers: expected a whole number, found `two`" },
        { "workers: 2x\n", ":1:10:", "expected a whole number" },
        { "workers: \"2\"\n", ":1:10:", "expected a whole number, found the text" },
        { "workers: 65\n", ":1:10:", "workers: 65 is out of range, expected 1 to 64" },
        { "workers: 99999999999999999999\n", ":1:10:", "expected a whole number" },
        { "cache_bytes: 12 parsecs\n", ":1:14:", "expected a size like 64 MiB" },
        { "cache_bytes: 9000000000000 GiB\n", ":1:14:", "expected a size" },
        { "lease_ms: 99h\n", ":1:11:", "expected 100ms to 3600s" },
        { "keep: perhaps\n", ":1:7:", "expected true or false" },
        { "log: xml\n", ":1:6:", "expected one of text, json, found `xml`" },
        { "workers:\n", ":1:", "workers: no value" },
        { "workers: [1, 2]\n", ":1:10:", "found a list" },
        { "workers:\n  a: 1\n", ":2:", "found a mapping" },
        { "listen: a-text-that-does-not-fit\n", ":1:9:", "at most 15 fit" },
        { "\tworkers: 2\n", ":1:1:", "cannot start any token" },
        { "workers: 2\n\tkeep: true\n", ":2:", "" },
        { "- workers\n", ":1:1:", "found a list" },
        { "just text\n", ":1:1:", "expected `key: value` lines" },
        { "workers: 2\n---\nworkers: 2\n", ":2:", "second document" },
        { "listen: {\n", ":1:9:", "found a mapping" },
        { "listen: \"a\n", ":2:1:", "quoted scalar" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct config config = { 0 };
        struct err err = { 0 };

        if (load(table[i].file, &config, &err))
            fail_msg("accepted: %s", table[i].file);
        if (strncmp(err.text, path, strlen(path)) != 0 || strncmp(err.text + strlen(path), table[i].place, strlen(table[i].place)) != 0 ||
            !strstr(err.text, table[i].says))
            fail_msg("%s gave: %s", table[i].file, err.text);
    }
}

/* Who purges with `--older-than 30` means days, and would erase all but what ended in the last 30 ms. */
static void test_bare_number_is_a_time_only_where_the_name_has_the_unit(void **state)
{
    static const struct field keep = { "keep", FIELD_DURATION, 0, 0, 0, INT64_C(365) * 86400000, NULL, "" };
    static const struct field wait_ms = { "wait_ms", FIELD_DURATION, 0, 0, 0, 3600000, NULL, "" };
    int64_t ms = 7;
    struct err err = { 0 };

    (void)state;
    CHECK(!field_set(&keep, "30", &ms, &err) && ms == 7 && strstr(err.text, "expected a time like 15s"));
    CHECK(!field_set(&keep, "1.5", &ms, &err) && ms == 7);
    CHECK(field_set(&keep, "30d", &ms, &err) && ms == INT64_C(30) * 86400000);
    CHECK(field_set(&keep, "1.5 h", &ms, &err) && ms == 5400000);
    CHECK(field_set(&keep, "0", &ms, &err) && ms == 0); /* for ever, at once: the same in every unit */
    CHECK(field_set(&wait_ms, "30", &ms, &err) && ms == 30);
}

static void test_flags_override_and_leave_words_in_order(void **state)
{
    char *argv[] = { (char[]){ "run" }, (char[]){ "in" }, (char[]){ "--workers=3" }, (char[]){ "--keep" }, (char[]){ "--lease-ms" },
                     (char[]){ "2s" }, (char[]){ "out" }, (char[]){ "--" }, (char[]){ "--keep" }, NULL };
    char *bad[] = { (char[]){ "run" }, (char[]){ "--wokers" }, (char[]){ "2" }, NULL };
    char *cut[] = { (char[]){ "run" }, (char[]){ "--workers" }, NULL };
    struct config config = { 0 };
    struct err err;
    int argc = 9;

    (void)state;
    CHECK(field_flags(fields, FIELD_COUNT, &argc, argv, &config, &err));
    CHECK(config.workers == 3 && config.keep && config.lease_ms == 2000);
    CHECK(argc == 4);
    assert_string_equal(argv[1], "in");
    assert_string_equal(argv[2], "out");
    assert_string_equal(argv[3], "--keep");
    argc = 3;
    CHECK(!field_flags(fields, FIELD_COUNT, &argc, bad, &config, &err));
    assert_string_equal(err.text, "unknown flag --wokers (did you mean --workers?)");
    argc = 2;
    CHECK(!field_flags(fields, FIELD_COUNT, &argc, cut, &config, &err));
    assert_string_equal(err.text, "--workers needs a value");
}

static void test_flags_win_over_the_file_and_the_file_over_defaults(void **state)
{
    char *argv[] = { (char[]){ "program" }, (char[]){ "--workers=3" }, (char[]){ "--config" }, path, NULL };
    char *word[] = { (char[]){ "program" }, (char[]){ "stray" }, NULL };
    struct config config = { .workers = 1, .lease_ms = 500, .listen = "default" };
    FILE *file = fopen(path, "w");
    struct err err;

    (void)state;
    fputs("workers: 2\nlease_ms: 4s\n", file);
    fclose(file);
    CHECK(yaml_fields_settings(fields, FIELD_COUNT, 4, argv, &config, sizeof config, &err));
    CHECK(config.workers == 3 && config.lease_ms == 4000);
    assert_string_equal(config.listen, "default");
    CHECK(!yaml_fields_settings(fields, FIELD_COUNT, 2, word, &config, sizeof config, &err));
    assert_string_equal(err.text, "unexpected word `stray`; expected only flags");
}

static void test_a_file_that_is_not_there_is_named(void **state)
{
    struct config config;
    struct err err;

    (void)state;
    CHECK(!yaml_fields_load("/nonexistent/broker.yaml", fields, FIELD_COUNT, &config, &err));
    CHECK(strstr(err.text, "/nonexistent/broker.yaml: No such file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_file_fills_the_struct),
        cmocka_unit_test(test_every_mistake_names_its_place_and_key),
        cmocka_unit_test(test_bare_number_is_a_time_only_where_the_name_has_the_unit),
        cmocka_unit_test(test_flags_override_and_leave_words_in_order),
        cmocka_unit_test(test_flags_win_over_the_file_and_the_file_over_defaults),
        cmocka_unit_test(test_a_file_that_is_not_there_is_named),
    };
    int fd = mkstemp(path), rc;

    close(fd);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}
