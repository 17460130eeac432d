/* The demo's referee, run as a program on made-up files. */

#include "tests/check.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_BYTES_MAX 65536

static char directory[] = "/tmp/demo-score-XXXXXX";
static char printed[OUTPUT_BYTES_MAX]; /* stdout and stderr of the last run */

static void put(const char *name, const char *text)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", directory, name);
    file = fopen(path, "w");
    CHECK(file != NULL);
    CHECK(fputs(text, file) != EOF);
    CHECK(fclose(file) == 0);
}

static void read_all(FILE *file, char *text)
{
    size_t size = fread(text, 1, OUTPUT_BYTES_MAX - 1, file);
    text[size] = '\0';
}

/* Runs the program on results.jsonl and truth.jsonl; its exit status. */
static int run(const char *arguments)
{
    char command[1024];
    FILE *pipe;
    int status;

    snprintf(command, sizeof command, "cd %s && %s %s 2>&1", directory, DEMO_SCORE, arguments);
    pipe = popen(command, "r");
    CHECK(pipe != NULL);
    read_all(pipe, printed);
    status = pclose(pipe);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int run_usual(void)
{
    return run("results.jsonl truth.jsonl -o rows.jsonl");
}

static bool says(const char *text)
{
    return strstr(printed, text) != NULL;
}

static const char *rows(void)
{
    static char text[OUTPUT_BYTES_MAX];
    char path[256];
    FILE *file;

    snprintf(path, sizeof path, "%s/rows.jsonl", directory);
    file = fopen(path, "r");
    CHECK(file != NULL);
    read_all(file, text);
    fclose(file);
    return text;
}

#define RECORD(version, closes)                                                                                   \
    "{\"package\":\"a\",\"version\":\"" version "\",\"distribution\":\"sid\",\"urgency\":\"low\","             \
    "\"maintainer\":\"Zo\xc3\xab \xe6\xb8\xa9\",\"email\":\"z@e.x\",\"date\":\"2020-01-02\",\"closes\":" closes "}"
/* The same as the content of a message: quotes escaped. */
#define ANSWER(version, closes)                                                                                            \
    "{\\\"package\\\":\\\"a\\\",\\\"version\\\":\\\"" version "\\\",\\\"distribution\\\":\\\"sid\\\",\\\"urgency\\\":"     \
    "\\\"low\\\",\\\"maintainer\\\":\\\"Zo\xc3\xab \xe6\xb8\xa9\\\",\\\"email\\\":\\\"z@e.x\\\",\\\"date\\\":"             \
    "\\\"2020-01-02\\\",\\\"closes\\\":" closes "}"
#define RESULT(id, content)                                                                                                \
    "{\"custom_id\":\"" id "\",\"response\":{\"status_code\":200,\"body\":{\"choices\":[{\"message\":{\"content\":\""      \
    content "\"}}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3}}},\"error\":null}\n"

#define TRUTH                                                                                                    \
    "{\"source\":\"one.txt\",\"task\":\"extract\",\"record\":" RECORD("1:2-3", "[5,6]") "}\n"                    \
    "{\"source\":\"two.txt\",\"task\":\"extract\",\"record\":" RECORD("1:2-3", "[5,6]") "}\n"                    \
    "{\"source\":\"sum.txt\",\"task\":\"summarize\",\"synopsis\":\"tool to cut long texts\"}\n"

static void put_truth(void)
{
    put("truth.jsonl", TRUTH);
    put("sum.txt", "Cutter is a tool to cut\nlong texts, and a b c d e f g h i j k l.\n");
}

/* A figure that nobody can recompute by hand is worth nothing: every number here was. */
static void test_counts_what_is_right_field_by_field(void **state)
{
    (void)state;
    put_truth();
    put("results.jsonl", RESULT("one.txt", " " ANSWER("1:2-3", "[5,6]")) RESULT("two.txt", ANSWER("1:2-4", "[5,6]"))
                             RESULT("sum.txt", " A tool to cut texts\\n"));
    CHECK(run_usual() == 0);
    CHECK(says("whole record    50.0 %   1 of 2"));
    CHECK(says("valid JSON     100.0 %   2 of 2"));
    CHECK(says("version         50.0 %   1 of 2"));
    CHECK(says("closes         100.0 %   2 of 2"));
    /* "a tool to cut texts" and "tool to cut long texts": 4 words in common order, 5 and 5 long. */
    CHECK(says("the model                                   0.800"));
    /* "cutter is a tool to cut long texts and a b c": 5 of 12 and 5. */
    CHECK(says("the first twelve words of the description   0.588"));
    CHECK(says("Tokens: 30 of prompts + 9 generated = 39"));
    CHECK(strstr(rows(), "{\"source\":\"one.txt\",\"row\":{\"package\":\"a\"") != NULL);
    CHECK(strstr(rows(), "{\"source\":\"sum.txt\",\"summary\":\"A tool to cut texts\"}\n") != NULL);
}

/* What `extract` and `summarize` write is judged as what `run` answers. */
static void test_rows_of_several_files(void **state)
{
    (void)state;
    put_truth();
    put("rows-in.jsonl", "{\"source\":\"inbox/one.txt\",\"row\":" RECORD("1:2-3", "[5,6]") ",\"spans\":{\"/package\":"
                         "{\"label\":\"exact\",\"bytes\":[0,1],\"chars\":[0,1]},\"/version\":{\"label\":\"not_found\"}}}\n"
                         "{\"source\":\"two.txt\",\"error\":{\"code\":\"x\",\"message\":\"no text in it\"}}\n");
    put("sums-in.jsonl", "{\"source\":\"deep/in/sum.txt\",\"summary\":\" A tool to cut texts\"}\n");
    CHECK(run("rows-in.jsonl sums-in.jsonl truth.jsonl") == 0);
    CHECK(says("whole record    50.0 %   1 of 2"));
    CHECK(says("valid JSON      50.0 %   1 of 2"));
    CHECK(says("the model                                   0.800"));
    CHECK(says("no text in it"));
    CHECK(says("Failed requests: 1"));
    CHECK(says("found in their documents: 50.0 % as they are, 0.0 % but"));
    CHECK(!says("without a result"));
}

/* Otherwise a run that fails on the hard documents would look better than one that answers them. */
static void test_failed_and_missing_documents_count_as_wrong(void **state)
{
    (void)state;
    put_truth();
    put("results.jsonl", "{\"custom_id\":\"one.txt\",\"response\":null,\"error\":{\"code\":\"x\",\"message\":\"too long\"}}\n"
                         RESULT("two.txt", "not {json"));
    CHECK(run_usual() == 0);
    CHECK(says("whole record     0.0 %   0 of 2"));
    CHECK(says("valid JSON       0.0 %   0 of 2"));
    CHECK(says("the model                                   0.000"));
    CHECK(says("Failed requests: 1"));
    CHECK(says("Documents without a result: 1"));
    CHECK(strstr(rows(), "{\"source\":\"one.txt\",\"error\":\"too long\"}\n") != NULL);
    CHECK(strstr(rows(), "{\"source\":\"two.txt\",\"error\":\"the answer is not a JSON object: not {json\"}\n") != NULL);
    CHECK(strstr(rows(), "{\"source\":\"sum.txt\",\"error\":\"no result\"}\n") != NULL);
}

/* An answer that is JSON but no record must not crash the referee nor earn a point. */
static void test_odd_answers_are_wrong_and_harmless(void **state)
{
    (void)state;
    put_truth();
    put("results.jsonl", RESULT("one.txt", "[1,2]") RESULT("two.txt", "{\\\"package\\\":{\\\"a\\\":[null]},\\\"version\\\":7}")
                             RESULT("sum.txt", ""));
    CHECK(run_usual() == 0);
    CHECK(says("whole record     0.0 %   0 of 2"));
    CHECK(says("valid JSON      50.0 %   1 of 2"));
    CHECK(says("package          0.0 %   0 of 2"));
}

/* The table is read on a terminal: no line wraps, whatever an answer contains. */
static void test_table_fits_100_columns(void **state)
{
    char long_text[1500] = "";

    (void)state;
    for (int i = 0; i < 100; i++)
        strcat(long_text, "\xe6\xb8\xa9\xc3\xab\\u0007");
    put_truth();
    char *results = malloc(OUTPUT_BYTES_MAX);
    CHECK(results != NULL);
    snprintf(results, OUTPUT_BYTES_MAX,
             "%s{\"custom_id\":\"sum.txt\",\"response\":{\"status_code\":200,\"body\":{\"choices\":[{\"message\":{\"content\":\"%s\"}}]}}}\n"
             "{\"custom_id\":\"two.txt\",\"response\":{\"status_code\":200,\"body\":{\"choices\":[{\"message\":{\"content\":\"%s\"}}]}}}\n",
             RESULT("one.txt", ANSWER("1:2-3-a-very-long-version-indeed~git20200101", "[5,6,7,8,9,10,11,12]")), long_text, long_text);
    put("results.jsonl", results);
    free(results);
    CHECK(run_usual() == 0);
    CHECK(says("1:2-3-a-very-lo\u2026"));
    for (char *line = strtok(printed, "\n"); line; line = strtok(NULL, "\n")) {
        int columns = 0;
        for (const char *at = line; *at; at++) {
            CHECK((unsigned char)*at >= 0x20);
            columns += ((unsigned char)*at & 0xc0) != 0x80;          /* a character each, */
            columns += (unsigned char)*at >= 0xe3 && (unsigned char)*at < 0xf0; /* and two for one of these */
        }
        CHECK(columns <= 100);
    }
}

/* A wrong file must be named with its line, not scored as zero. */
static void test_bad_files_are_refused_with_their_line(void **state)
{
    static const struct {
        const char *truth, *results, *expected;
    } table[] = {
        { TRUTH, "\n{]\n", "results.jsonl:2: not JSON" },
        { TRUTH, "[]\n", "results.jsonl:1: expected an object" },
        { TRUTH, "{\"id\":1}\n", "results.jsonl:1: neither `source` nor `custom_id`" },
        { TRUTH, RESULT("who.txt", "x"), "results.jsonl:1: `who.txt` is no document of truth.jsonl" },
        { TRUTH, RESULT("one.txt", "x") RESULT("one.txt", "x"), "results.jsonl:2: a second result for `one.txt`" },
        { "", "", "truth.jsonl is empty" },
        { "{\"source\":\"a\",\"task\":\"guess\"}\n", "", "truth.jsonl:1: `task` is `guess`, expected extract or summarize" },
        { "{\"source\":\"a\",\"task\":\"extract\",\"record\":{}}\n", "", "truth.jsonl:1: `record` has no `package`" },
        { "{\"task\":\"extract\"}\n", "", "truth.jsonl:1: no `source`" },
        { "{\"source\":\"none.txt\",\"task\":\"summarize\",\"synopsis\":\"x\"}\n", "", "truth.jsonl:1: open none.txt: " },
        { "{\"source\":\"../x\",\"task\":\"summarize\",\"synopsis\":\"x\"}\n", "", "expected the name of a file beside it" },
        { TRUTH TRUTH, "", "truth.jsonl:4: `one.txt` stands here for the second time" },
    };

    (void)state;
    put_truth();
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        put("truth.jsonl", table[i].truth);
        put("results.jsonl", table[i].results);
        CHECK(run_usual() == 1);
        CHECK(says(table[i].expected));
    }
    CHECK(run("absent.jsonl truth.jsonl -o rows.jsonl") == 1);
    put_truth();
    CHECK(run("absent.jsonl truth.jsonl -o rows.jsonl") == 1 && says("open absent.jsonl: No such file"));
    CHECK(run("results.jsonl truth.jsonl -o no/rows.jsonl") == 1 && says("open no/rows.jsonl: "));
    CHECK(run("truth.jsonl") == 1 && says("usage: "));
    put("results.jsonl", RESULT("one.txt", "x"));
    CHECK(run("results.jsonl truth.jsonl -o /dev/full") == 1 && says("write /dev/full: "));
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    char command[64];

    (void)state;
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_what_is_right_field_by_field),
        cmocka_unit_test(test_rows_of_several_files),
        cmocka_unit_test(test_failed_and_missing_documents_count_as_wrong),
        cmocka_unit_test(test_odd_answers_are_wrong_and_harmless),
        cmocka_unit_test(test_table_fits_100_columns),
        cmocka_unit_test(test_bad_files_are_refused_with_their_line),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
