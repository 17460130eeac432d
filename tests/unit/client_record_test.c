/* What a command means beside what an earlier one left: a table, since every row is a promise. */

#include "tests/check.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/record.h"

static struct record a_record(void)
{
    struct record record = { .edition = 1, .hall = 7, .submitted = true, .output_bytes = 100 };

    strcpy(record.is.output, "/o/out.jsonl");
    strcpy(record.is.model, "/m");
    strcpy(record.is.model_mark, "mark");
    strcpy(record.is.weights, "auto");
    strcpy(record.is.order, "input");
    strcpy(record.is.on_bad_line, "error");
    strcpy(record.is.queue, "default");
    strcpy(record.is.input, "digest");
    strcpy(record.batch, "batch-1");
    strcpy(record.nonce, "0011223344556677");
    strcpy(record.family, "cpu-avx2");
    record.is.lines = 10;
    return record;
}

enum left { NOTHING, IN_PROGRESS, NEVER_REACHED_A_HALL, NO_WORKER_YET, OVER, FINISHED };
enum changed { SAME, INPUT, MODEL, WEIGHTS, ORDER };

/* output: bytes that stand in the output file; -1: there is none. */
static const struct row {
    enum left left;
    enum changed changed;
    const char *flags; /* r: restart, u: update, f: retry-failed, s: the store is there */
    int output;
    enum run_means means;
    bool update, retry;
    const char *says;
} rows[] = {
    { NOTHING, SAME, "", -1, RUN_START, 0, 0, NULL },
    { NOTHING, SAME, "", 0, RUN_START, 0, 0, NULL },
    { NOTHING, SAME, "", 5, RUN_REFUSE, 0, 0, "no earlier run wrote it" },
    { NOTHING, SAME, "r", 5, RUN_START, 0, 0, NULL },
    { NOTHING, SAME, "u", -1, RUN_START, 0, 0, NULL },

    { IN_PROGRESS, SAME, "s", 50, RUN_CONTINUE, 0, 0, NULL },
    { IN_PROGRESS, SAME, "s", -1, RUN_CONTINUE, 0, 0, NULL },
    { IN_PROGRESS, SAME, "us", 50, RUN_CONTINUE, 0, 0, NULL },
    { IN_PROGRESS, SAME, "fs", 50, RUN_EDITION, 0, 1, NULL },
    { IN_PROGRESS, SAME, "rs", 50, RUN_START, 0, 0, NULL },
    { IN_PROGRESS, INPUT, "s", 50, RUN_REFUSE, 0, 0, "line 3" },
    { IN_PROGRESS, INPUT, "us", 50, RUN_EDITION, 1, 0, NULL },
    { IN_PROGRESS, INPUT, "ufs", 50, RUN_EDITION, 1, 1, NULL },
    { IN_PROGRESS, MODEL, "s", 50, RUN_REFUSE, 0, 0, "model has changed" },
    { IN_PROGRESS, MODEL, "us", 50, RUN_REFUSE, 0, 0, "model has changed" },
    { IN_PROGRESS, WEIGHTS, "s", 50, RUN_REFUSE, 0, 0, "--weights" },
    { IN_PROGRESS, ORDER, "s", 50, RUN_REFUSE, 0, 0, "--order" },

    { NEVER_REACHED_A_HALL, WEIGHTS, "", -1, RUN_START, 0, 0, NULL },
    { NEVER_REACHED_A_HALL, INPUT, "", 0, RUN_START, 0, 0, NULL },
    { NO_WORKER_YET, MODEL, "s", -1, RUN_CONTINUE, 0, 0, NULL },

    { OVER, SAME, "s", 100, RUN_OVER, 0, 0, NULL },
    { OVER, SAME, "s", -1, RUN_CONTINUE, 0, 0, NULL },
    { OVER, SAME, "s", 120, RUN_REFUSE, 0, 0, "changed since" },
    { OVER, SAME, "fs", 100, RUN_EDITION, 0, 1, NULL },
    { OVER, INPUT, "s", 100, RUN_REFUSE, 0, 0, "--update" },
    { OVER, INPUT, "us", 100, RUN_EDITION, 1, 0, NULL },

    { FINISHED, SAME, "", 100, RUN_COMPLETE, 0, 0, NULL },
    { FINISHED, SAME, "uf", 100, RUN_COMPLETE, 0, 0, NULL },
    { FINISHED, SAME, "", -1, RUN_START, 0, 0, NULL },
    { FINISHED, SAME, "", 120, RUN_REFUSE, 0, 0, "changed since" },
    { FINISHED, SAME, "r", 120, RUN_START, 0, 0, NULL },
    { FINISHED, INPUT, "", 100, RUN_START, 0, 0, NULL },
    { FINISHED, INPUT, "u", 100, RUN_START, 0, 0, NULL },
    { FINISHED, INPUT, "us", 100, RUN_EDITION, 1, 0, NULL },
    { FINISHED, MODEL, "", 100, RUN_START, 0, 0, NULL },
    { FINISHED, WEIGHTS, "", 100, RUN_START, 0, 0, NULL },
};

static void test_what_a_command_means(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = &rows[i];
        struct record record = a_record();
        struct run_identity now = record.is;
        struct run_asks asks = { .output_is_file = true,
                                 .output_exists = row->output > 0,
                                 .output_bytes = row->output > 0 ? (uint64_t)row->output : 0 };
        struct err err = { 0 };
        bool update, retry;
        enum run_means means;

        asks.restart = strchr(row->flags, 'r');
        asks.update = strchr(row->flags, 'u');
        asks.retry_failed = strchr(row->flags, 'f');
        asks.store_exists = strchr(row->flags, 's');
        record.ended = row->left == OVER || row->left == FINISHED;
        record.finished = row->left == FINISHED;
        if (row->left == NEVER_REACHED_A_HALL)
            record.hall = 0;
        if (row->left == NEVER_REACHED_A_HALL || row->left == NO_WORKER_YET)
            *record.family = '\0';
        if (row->changed == INPUT)
            strcpy(now.input, "another");
        if (row->changed == MODEL)
            strcpy(now.model_mark, "another");
        if (row->changed == WEIGHTS)
            strcpy(now.weights, "f32");
        if (row->changed == ORDER)
            strcpy(now.order, "completion");
        means = record_decide(row->left == NOTHING ? NULL : &record, &now, &asks,
                              row->changed == INPUT ? "line 3 is another" : NULL, &update, &retry, &err);
        if (means != row->means || update != row->update || retry != row->retry)
            print_error("row %zu: means %d, expected %d (%s)\n", i, means, row->means, err.text);
        CHECK(means == row->means && update == row->update && retry == row->retry);
        if (row->says)
            CHECK(strstr(err.text, row->says));
    }
}

/* A record that comes back other than it was saved would make a run another run. */
static void test_a_record_comes_back_as_it_was(void **state)
{
    char dir[] = "/tmp/moothall-client-record-XXXXXX", path[300];
    struct record saved = a_record(), loaded;
    struct err err = { 0 };

    (void)state;
    CHECK(mkdtemp(dir));
    CHECK(!record_load(&loaded, dir, &err) && err.code == ERR_NOT_FOUND);
    saved.hall = UINT64_C(0xfedcba9876543210);
    saved.retry = saved.ended = saved.kept = true;
    saved.done = 9;
    saved.failed = 1;
    strcpy(saved.is.output, "/o/\"quoted\" \xc3\xa4.jsonl");
    CHECK(record_save(&saved, dir, &err));
    CHECK(record_load(&loaded, dir, &err));
    CHECK(!memcmp(&saved, &loaded, sizeof saved));
    snprintf(path, sizeof path, "%s/record.json", dir);
    for (size_t size = 0; size < 400; size += 37) { /* cut anywhere, it is refused and says how to go on */
        CHECK(record_save(&saved, dir, &err));
        CHECK(truncate(path, (off_t)size) == 0);
        CHECK(!record_load(&loaded, dir, &err) && err.code == ERR_INPUT && strstr(err.text, "--restart"));
    }
    unlink(path);
    rmdir(dir);
}

/* The batch's name must not depend on how many workers there are, and must on what is asked. */
static void test_the_batch_is_named_by_what_is_asked(void **state)
{
    struct run_identity a = a_record().is, b = a;
    char first[RECORD_NAME_MAX + 1], second[RECORD_NAME_MAX + 1];

    (void)state;
    record_batch_name(first, &a, "");
    strcpy(b.output, "/elsewhere");
    record_batch_name(second, &b, "");
    CHECK(!strcmp(first, second));
    strcpy(b.input, "another");
    record_batch_name(second, &b, "");
    CHECK(strcmp(first, second));
    record_batch_name(second, &a, "again");
    CHECK(strcmp(first, second));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_command_means),
        cmocka_unit_test(test_a_record_comes_back_as_it_was),
        cmocka_unit_test(test_the_batch_is_named_by_what_is_asked),
    };

    CHECK(sodium_init() >= 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
