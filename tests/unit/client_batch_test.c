/* The batch file: what is checked, how it is counted, and that reading it twice sees a change. */

#include "tests/check.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/span.h"
#include "client/batch_file.h"
#include "client/record.h"
#include "client/stop.h"

#define GOOD(id)                                                                                             \
    "{\"custom_id\":\"" id "\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\"}}"

static char path[] = "/tmp/moothall-client-batch-XXXXXX";

static void write_file(const void *data, size_t size)
{
    FILE *file = fopen(path, "w");

    CHECK(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

struct reports {
    int count;
    uint64_t number[64];
    char code[64][40];
};

static void report(void *arg, uint64_t number, const struct request_fault *fault)
{
    struct reports *r = arg;

    r->number[r->count] = number;
    snprintf(r->code[r->count++], 40, "%s", fault->code);
}

static void check_text(struct batch_file *file, const void *data, size_t size, struct reports *reports)
{
    struct err err = { 0 };

    memset(reports, 0, sizeof *reports);
    write_file(data, size);
    CHECK(batch_file_open(file, path, NULL, 0, &err));
    CHECK(batch_file_check(file, report, reports, &err));
}

static struct batch_line line_of(const struct batch_file *file, size_t position)
{
    struct batch_line line;

    CHECK(batch_file_line(file, position, &line, NULL));
    return line;
}

/* Users make files with editors, spreadsheets and other systems: all these are the same two requests. */
static void test_shapes_that_mean_the_same(void **state)
{
    static const char *const shapes[] = {
        GOOD("a") "\n" GOOD("b") "\n",
        GOOD("a") "\n" GOOD("b"),
        GOOD("a") "\r\n" GOOD("b") "\r\n",
        "\xef\xbb\xbf" GOOD("a") "\n" GOOD("b") "\n",
        "\n \t\n" GOOD("a") "\n\r\n" GOOD("b") "\n\n",
        "{ \"custom_id\": \"a\", "
        "\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"\\u0061\"}}\n" GOOD("b"),
    };
    uint8_t digest[32];

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct batch_file file;
        struct reports reports;

        check_text(&file, shapes[i], strlen(shapes[i]), &reports);
        CHECK(file.count == 2 && file.bad_count == 0 && reports.count == 0);
        if (i == 0)
            memcpy(digest, file.digest, sizeof digest);
        CHECK(!memcmp(digest, file.digest, sizeof digest));
        batch_file_close(&file);
    }
}

/* Each line is judged by itself; numbers are those of an editor. */
static void test_bad_lines_are_reported_with_their_numbers(void **state)
{
    static const char text[] =
        GOOD("a") "\n\nnonsense\n" GOOD("a") "\n[]\n{\"custom_id\":\"c\"}\n" GOOD("b") "\nx\0y\n\xff\xfe\n";
    static const struct {
        uint64_t number;
        const char *code;
    } expected[] = {
        { 3, "invalid_json" }, { 4, "duplicate_custom_id" }, { 5, NULL }, { 6, NULL }, { 8, NULL },
        { 9, NULL },
    };
    struct batch_file file;
    struct reports reports;

    (void)state;
    check_text(&file, text, sizeof text - 1, &reports);
    CHECK(file.count == 8 && file.bad_count == 6 && reports.count == 6);
    for (int i = 0; i < 6; i++) {
        CHECK(reports.number[i] == expected[i].number);
        CHECK(!expected[i].code || !strcmp(reports.code[i], expected[i].code));
    }
    CHECK(line_of(&file, 2).fault == BATCH_DUPLICATE && line_of(&file, 2).twin == 1);
    CHECK(line_of(&file, 5).fault == BATCH_GOOD && line_of(&file, 5).number == 7);
    batch_file_close(&file);
}

/* A line beyond the bound costs its reading, and is told apart from another such line. */
static void test_a_line_too_long_is_a_bad_line(void **state)
{
    size_t size = REQUEST_LINE_MAX + 10;
    char *text = malloc(size + 200);
    struct batch_file file;
    struct reports reports;
    uint8_t digest[BATCH_DIGEST_SIZE];
    struct batch_line first;
    size_t n;

    (void)state;
    CHECK(text);
    memset(text, 'x', size);
    n = size + (size_t)sprintf(text + size, "\n%s\n", GOOD("after"));
    check_text(&file, text, n, &reports);
    CHECK(file.count == 2 && file.bad_count == 1);
    CHECK(line_of(&file, 0).fault == BATCH_TOO_LONG && !strcmp(reports.code[0], "line_too_long"));
    CHECK(line_of(&file, 1).fault == BATCH_GOOD);
    first = line_of(&file, 0);
    memcpy(digest, first.digest, sizeof digest);
    batch_file_close(&file);

    text[size - 1] = 'y';
    check_text(&file, text, n, &reports);
    first = line_of(&file, 0);
    CHECK(memcmp(digest, first.digest, sizeof digest) != 0);
    batch_file_close(&file);

    /* Exactly at the bound, with CRLF: judged as a line (and not JSON). */
    memset(text, 'x', REQUEST_LINE_MAX);
    strcpy(text + REQUEST_LINE_MAX, "\r\n");
    check_text(&file, text, REQUEST_LINE_MAX + 2, &reports);
    CHECK(file.count == 1 && line_of(&file, 0).fault == BATCH_WRONG);
    batch_file_close(&file);
    free(text);
}

/* Many ids: the table that finds twins must grow without losing any. */
static void test_twins_are_found_among_many(void **state)
{
    struct buf text = { 0 };
    struct batch_file file;
    struct reports reports;

    (void)state;
    for (int i = 0; i < 5000; i++)
        CHECK(buf_format(&text,
                         "{\"custom_id\":\"n%d\",\"method\":\"POST\",\"url\":\"/v1/"
                         "completions\",\"body\":{\"prompt\":\"a\"}}\n",
                         i));
    CHECK(buf_text(&text, GOOD("n0") "\n" GOOD("n4999") "\n" GOOD("n5000") "\n"));
    check_text(&file, text.data, text.size, &reports);
    CHECK(file.count == 5003 && file.bad_count == 2);
    CHECK(line_of(&file, 5000).twin == 1 && line_of(&file, 5001).twin == 5000 && line_of(&file, 5002).fault == BATCH_GOOD);
    batch_file_close(&file);
    buf_fini(&text);
}

/* More names than the buckets hold in memory, the same one again and again, and a wrong line between: the first line
 * with a name is everybody's twin, and memory is not what finds it. */
static void test_names_beyond_memory_are_compared_too(void **state)
{
    enum { LINES = 40 * 1000 };
    struct buf text = { 0 };
    struct batch_file file;
    struct reports reports;
    struct batch_line line;
    struct err err = { 0 };

    (void)state;
    for (int i = 0; i < LINES; i++)
        CHECK(buf_format(&text,
                         "{\"custom_id\":\"n%d\",\"method\":\"POST\",\"url\":\"/v1/"
                         "completions\",\"body\":{\"prompt\":\"a\"%s}}\n",
                         i % 10 == 9 ? 0 : i, i % 1000 == 19 ? ",\"colour\":1" : ""));
    write_file(text.data, text.size);
    CHECK(batch_file_open(&file, path, NULL, 0, &err));
    memset(&reports, 0, sizeof reports);
    CHECK(batch_file_check(&file, NULL, &reports, &err));
    CHECK(file.count == LINES && file.bad_count == LINES / 10);
    for (int i = 0; i < LINES; i++) {
        line = line_of(&file, (size_t)i);
        CHECK(line.number == (uint32_t)i + 1);
        CHECK(line.fault == (i % 1000 == 19 ? BATCH_WRONG : i % 10 == 9 ? BATCH_DUPLICATE : BATCH_GOOD));
        CHECK(line.twin == (line.fault == BATCH_DUPLICATE ? 1 : 0));
    }
    batch_file_close(&file);
    buf_fini(&text);
}

static void report_some(void *arg, uint64_t number, const struct request_fault *fault)
{
    uint64_t *said = arg;

    CHECK((fault != NULL) == (said[0] < BATCH_REPORTED_MAX));
    CHECK(number == ++said[0]);
}

/* A file with nothing good in it must not fill a terminal, nor be read a third time for that. */
static void test_only_the_first_faults_are_told(void **state)
{
    struct buf text = { 0 };
    struct batch_file file;
    struct err err = { 0 };
    uint64_t said = 0;

    (void)state;
    for (int i = 0; i < BATCH_REPORTED_MAX + 5; i++)
        CHECK(buf_text(&text, "x\n"));
    write_file(text.data, text.size);
    CHECK(batch_file_open(&file, path, NULL, 0, &err));
    CHECK(batch_file_check(&file, report_some, &said, &err));
    CHECK(said == BATCH_REPORTED_MAX + 5 && file.bad_count == said);
    batch_file_close(&file);
    buf_fini(&text);
}

/* `--limit 2` is the run of a file that ends after its second request: nothing behind it may be seen. */
static void test_a_limit_is_the_end_of_the_file(void **state)
{
    static const char whole[] = GOOD("a") "\n\n \r\n" GOOD("b") "\n\n" GOOD("c") "\nnonsense\n" GOOD("a");
    static const char first[] = GOOD("a") "\n" GOOD("b") "\n";
    struct batch_file file;
    struct reports reports;
    struct err err = { 0 };
    uint8_t digest[32];
    int pipe_fd[2], kept;

    (void)state;
    check_text(&file, first, sizeof first - 1, &reports);
    memcpy(digest, file.digest, sizeof digest);
    batch_file_close(&file);
    memset(&reports, 0, sizeof reports);
    write_file(whole, sizeof whole - 1);
    CHECK(batch_file_open(&file, path, NULL, 2, &err));
    CHECK(batch_file_check(&file, report, &reports, &err));
    CHECK(file.count == 2 && file.bad_count == 0 && reports.count == 0);
    CHECK(!memcmp(digest, file.digest, sizeof digest));
    CHECK(line_of(&file, 1).number == 4);
    batch_file_close(&file);
    CHECK(batch_file_open(&file, path, NULL, 100, &err));
    CHECK(batch_file_check(&file, report, &reports, &err));
    CHECK(file.count == 5 && file.bad_count == 2);
    batch_file_close(&file);

    /* Of a pipe that never ends, no more is read than is wanted. */
    kept = dup(STDIN_FILENO);
    CHECK(pipe(pipe_fd) == 0 && dup2(pipe_fd[0], STDIN_FILENO) >= 0);
    CHECK(write(pipe_fd[1], whole, sizeof whole - 1) == sizeof whole - 1);
    CHECK(batch_file_open(&file, "-", NULL, 2, &err));
    CHECK(batch_file_check(&file, report, &reports, &err));
    CHECK(file.count == 2 && !memcmp(digest, file.digest, sizeof digest));
    batch_file_close(&file);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
    CHECK(dup2(kept, STDIN_FILENO) >= 0);
    close(kept);
}

/* Between check and submit an editor may save the file: that must not send another request than was checked.
 */
static void test_a_change_between_the_two_readings_is_seen(void **state)
{
    static const char before[] = GOOD("a") "\n" GOOD("b") "\n", after[] = GOOD("a") "\n" GOOD("c") "\n";
    struct batch_file file;
    struct reports reports;
    struct arena arena;
    struct request request;
    struct request_fault fault;
    struct err err = { 0 };
    bool refused;

    (void)state;
    arena_init(&arena, 0);
    check_text(&file, before, sizeof before - 1, &reports);
    CHECK(batch_file_read(&file, 1, &arena, &request, &fault, &refused, &err) && !refused);
    CHECK(span_equal(request.custom_id, span_text("b")));
    write_file(after, sizeof after - 1);
    CHECK(batch_file_read(&file, 0, &arena, &request, &fault, &refused, &err) && !refused);
    CHECK(!batch_file_read(&file, 1, &arena, &request, &fault, &refused, &err));
    CHECK(err.code == ERR_CONFLICT && strstr(err.text, "line 2"));
    write_file(after, 5);
    CHECK(!batch_file_read(&file, 0, &arena, &request, &fault, &refused, &err) && err.code == ERR_CONFLICT);
    batch_file_close(&file);
    arena_fini(&arena);
}

/* A user who changed a file wants to know where. */
static void test_the_first_changed_line_is_named(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        { GOOD("a") "\n" GOOD("b") "\n", NULL },
        { "\n" GOOD("a") "\n\n" GOOD("b"), NULL },
        { GOOD("a") "\n" GOOD("x") "\n", "line 2 is another" },
        { GOOD("b") "\n" GOOD("a") "\n", "line 1 is another" },
        { GOOD("a") "\n" GOOD("b") "\n\n" GOOD("c"), "line 4 is new" },
        { GOOD("a") "\n", "ends after 1" },
        { GOOD("a") "\n" GOOD("a") "\n", "line 2 is another" },
    };
    char dir[] = "/tmp/moothall-client-record-XXXXXX", what[200], lines[300];
    struct batch_file file;
    struct reports reports;
    struct err err = { 0 };

    (void)state;
    CHECK(mkdtemp(dir));
    check_text(&file, rows[0].text, strlen(rows[0].text), &reports);
    CHECK(record_lines_save(&file, dir, 1, &err));
    batch_file_close(&file);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        check_text(&file, rows[i].text, strlen(rows[i].text), &reports);
        CHECK(record_lines_changed(&file, dir, 1, what, sizeof what, &err) == (rows[i].says != NULL));
        CHECK(err.code == ERR_NONE);
        if (rows[i].says)
            CHECK(strstr(what, rows[i].says));
        batch_file_close(&file);
    }
    snprintf(lines, sizeof lines, "%s/lines-1", dir);
    unlink(lines);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes_that_mean_the_same),
        cmocka_unit_test(test_bad_lines_are_reported_with_their_numbers),
        cmocka_unit_test(test_a_line_too_long_is_a_bad_line),
        cmocka_unit_test(test_twins_are_found_among_many),
        cmocka_unit_test(test_names_beyond_memory_are_compared_too),
        cmocka_unit_test(test_only_the_first_faults_are_told),
        cmocka_unit_test(test_a_limit_is_the_end_of_the_file),
        cmocka_unit_test(test_a_change_between_the_two_readings_is_seen),
        cmocka_unit_test(test_the_first_changed_line_is_named),
    };
    int fd, failed;

    CHECK(sodium_init() >= 0);
    stop_install();
    fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
