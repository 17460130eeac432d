/* Result lines: the OpenAI batch output shape, the same bytes for the same entry; and the progress line. */

#include "tests/check.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "client/output.h"
#include "client/say.h"

static Moothall__Entry an_entry(void)
{
    Moothall__Entry entry = MOOTHALL__ENTRY__INIT;
    static char job[] = "00ff", custom_id[] = "a \"quoted\"\n\xc3\xa4", worker[] = "worker-1",
                numerics[] = "cpu", endpoint[] = "/v1/chat/completions";
    static char reason[] = "lost 20 workers";

    entry.number = 1;
    entry.job = job;
    entry.custom_id = custom_id;
    entry.state = MOOTHALL__STATE__DONE;
    entry.status_code = 200;
    entry.generation = 1;
    entry.attempt = 2;
    entry.infra = 3;
    entry.seed = 42;
    entry.worker = worker;
    entry.numerics = numerics;
    entry.endpoint = endpoint;
    entry.reason = reason;
    entry.created_ms = 1000;
    entry.leased_ms = 2000;
    entry.finished_ms = 3999;
    return entry;
}

static json_t *line_of(const Moothall__Entry *entry, const char *body, char *text, size_t size)
{
    struct buf out = { 0 };
    json_t *root;

    CHECK(output_line(&out, entry, span_text(body)));
    CHECK(out.size > 1 && out.data[out.size - 1] == '\n' && !memchr(out.data, '\n', out.size - 1));
    if (text)
        snprintf(text, size, "%.*s", (int)out.size, (const char *)out.data);
    root = json_loadb((const char *)out.data, out.size, 0, NULL);
    CHECK(root);
    buf_fini(&out);
    return root;
}

/* Numbers of the body must come out as the worker wrote them: a parser would round log-probs. */
static void test_a_finished_job_becomes_a_response(void **state)
{
    static const char body[] = "{\"object\":\"chat.completion\",\"model\":\"m\",\"choices\":[{\"index\":0,"
                               "\"logprob\":-0.12300000000000001}],"
                               "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,\"total_tokens\":12}}";
    Moothall__Entry entry = an_entry();
    char text[2000];
    json_t *root = line_of(&entry, body, text, sizeof text), *inner;
    json_int_t prompt, generated, seed, attempt;

    (void)state;
    CHECK(!strncmp(
        text,
        "{\"id\":\"batch_req_00ff\",\"custom_id\":\"a "
        "\\\"quoted\\\"\\u000a\xc3\xa4\",\"response\":{\"status_code\":200,\"request_id\":\"00ff\","
        "\"body\":{\"id\":\"chatcmpl-00ff\",\"object\":\"chat.completion\",\"created\":3,\"model\":\"m\",",
        150));
    CHECK(strstr(text, "-0.12300000000000001"));
    CHECK(json_is_null(json_object_get(root, "error")));
    inner = json_object_get(root, "moothall");
    CHECK(!json_unpack(inner, "{s:I,s:I,s:I,s:I}", "prompt_tokens", &prompt, "generated_tokens", &generated,
                       "seed", &seed, "attempt", &attempt));
    CHECK(prompt == 7 && generated == 5 && seed == 42 && attempt == 2);
    json_decref(root);

    entry.endpoint = (char[]){ "/v1/completions" };
    root = line_of(&entry, body, text, sizeof text);
    CHECK(strstr(text, "\"id\":\"cmpl-00ff\""));
    json_decref(root);
}

/* Output that quotes usage in a text must not be counted by it. */
static void test_token_counts_come_from_the_bodys_own_usage(void **state)
{
    static const char body[] = "{\"object\":\"x\",\"choices\":[{\"text\":\"\\\"usage\\\":{\\\"prompt_"
                               "tokens\\\":99}\"}],\"usage\":{\"prompt_tokens\":7}}";
    Moothall__Entry entry = an_entry();
    json_t *root = line_of(&entry, body, NULL, 0);

    (void)state;
    CHECK(json_integer_value(json_object_get(json_object_get(root, "moothall"), "prompt_tokens")) == 7);
    json_decref(root);
}

static void test_a_refused_request_has_its_error_twice(void **state)
{
    static const char body[] =
        "{\"error\":{\"message\":\"max_tokens: "
        "no\",\"type\":\"invalid_request_error\",\"param\":\"max_tokens\",\"code\":\"invalid_value\"}}";
    Moothall__Entry entry = an_entry();
    json_t *root, *error;

    (void)state;
    entry.state = MOOTHALL__STATE__FAILED;
    entry.status_code = 400;
    entry.custom_id = (char[]){ "" };
    entry.worker = entry.numerics = (char[]){ "" };
    root = line_of(&entry, body, NULL, 0);
    error = json_object_get(root, "error");
    CHECK(!strcmp(json_string_value(json_object_get(error, "code")), "invalid_value"));
    CHECK(!strcmp(json_string_value(json_object_get(error, "message")), "max_tokens: no"));
    CHECK(json_integer_value(json_object_get(json_object_get(root, "response"), "status_code")) == 400);
    CHECK(
        json_is_object(json_object_get(json_object_get(json_object_get(root, "response"), "body"), "error")));
    CHECK(json_is_null(json_object_get(root, "custom_id")));
    CHECK(json_is_null(json_object_get(json_object_get(root, "moothall"), "worker")));
    json_decref(root);
}

/* A consumer never waits for a job that is over: each such end has its own code, and a reason. */
static void test_jobs_that_ended_otherwise_have_a_typed_error(void **state)
{
    static const struct {
        Moothall__State state;
        const char *code;
    } rows[] = {
        { MOOTHALL__STATE__DEAD, "job_dead" },
        { MOOTHALL__STATE__CANCELLED, "batch_cancelled" },
        { MOOTHALL__STATE__EXPIRED, "batch_expired" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Moothall__Entry entry = an_entry();
        json_t *root;

        entry.state = rows[i].state;
        entry.status_code = 0;
        root = line_of(&entry, "", NULL, 0);
        CHECK(json_is_null(json_object_get(root, "response")));
        CHECK(!strcmp(json_string_value(json_object_get(json_object_get(root, "error"), "code")),
                      rows[i].code));
        CHECK(!strcmp(json_string_value(json_object_get(json_object_get(root, "error"), "message")),
                      "lost 20 workers"));
        json_decref(root);
    }
}

/* What was erased is not there: its line says so, whatever the job had come to, and counts as a failure. */
static void test_a_purged_result_says_so(void **state)
{
    static const Moothall__State ends[] = { MOOTHALL__STATE__DONE, MOOTHALL__STATE__FAILED, MOOTHALL__STATE__DEAD };

    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        Moothall__Entry entry = an_entry();
        json_t *root, *error;

        entry.state = ends[i];
        entry.status_code = 410;
        entry.purged_ms = INT64_C(1801432800000);
        entry.cached_tokens = 5;
        root = line_of(&entry, "", NULL, 0);
        error = json_object_get(root, "error");
        CHECK(json_is_null(json_object_get(root, "response")));
        CHECK(!strcmp(json_string_value(json_object_get(error, "code")), "result_purged"));
        CHECK(strstr(json_string_value(json_object_get(error, "message")), "2027-01-31T22:00:00Z"));
        CHECK(json_integer_value(json_object_get(json_object_get(root, "moothall"), "cached_tokens")) == 5);
        json_decref(root);
    }
}

/* A body with a raw line end would make two lines of one result. */
static void test_a_line_end_in_a_body_does_not_break_the_line(void **state)
{
    Moothall__Entry entry = an_entry();
    json_t *root = line_of(&entry, "{\"object\":\"x\",\n\"choices\":[]\r\n}", NULL, 0);

    (void)state;
    json_decref(root);
}

/* Readers that split text at Unicode's line ends must find one line a result too. */
static void test_unicode_line_ends_are_escaped(void **state)
{
    Moothall__Entry entry = an_entry();
    char text[2000];
    json_t *root = line_of(&entry, "{\"object\":\"x\",\"choices\":\"\xe2\x80\xa8" "a\xc2\x85\xe2\x80\xa9\xe2\x80\xaa\xc2\x86\"}", text, sizeof text);

    (void)state;
    CHECK(strstr(text, "\"choices\":\"\\u2028a\\u0085\\u2029\xe2\x80\xaa\xc2\x86\""));
    assert_string_equal(json_string_value(json_object_get(json_object_get(json_object_get(root, "response"), "body"), "choices")),
                        "\xe2\x80\xa8" "a\xc2\x85\xe2\x80\xa9\xe2\x80\xaa\xc2\x86");
    json_decref(root);
}

static void test_progress_tells_rate_and_time_left(void **state)
{
    static const struct {
        struct say_progress p;
        int64_t ms;
        int width;
        const char *text;
    } rows[] = {
        { { .what = "done", .done = 50, .total = 100 }, 10000, 0, "50/100 done, 5.00/s, 0:10 left" },
        { { .what = "done", .done = 50, .total = 100, .done_at_start = 50 },
          10000,
          0,
          "50/100 done, 0.00/s" },
        { { .what = "done", .done = 60, .total = 100, .done_at_start = 50, .failed = 2 },
          10000,
          0,
          "60/100 done, 1.00/s, 0:40 left, 2 failed" },
        { { .what = "done", .done = 1, .total = 10000, .note = "shard 3" },
          1000,
          0,
          "1/10000 done, 1.00/s, 2:46:39 left (shard 3)" },
        { { .what = "done", .done = 50, .total = 100 },
          10000,
          80,
          "[############............] 50/100 done, 5.00/s, 0:10 left" },
        { { .what = "done", .total = 0 }, 0, 0, "0/0 done, 0.00/s" },
        { { .what = "done", .done = 50, .total = 100 }, 10000, 12, "50/100 done," },
    };
    char text[400];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        say_progress_text(text, sizeof text, &rows[i].p, rows[i].ms, rows[i].width);
        if (strcmp(text, rows[i].text))
            print_error("row %zu: %s\n", i, text);
        CHECK(!strcmp(text, rows[i].text));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_finished_job_becomes_a_response),
        cmocka_unit_test(test_token_counts_come_from_the_bodys_own_usage),
        cmocka_unit_test(test_a_refused_request_has_its_error_twice),
        cmocka_unit_test(test_jobs_that_ended_otherwise_have_a_typed_error),
        cmocka_unit_test(test_a_purged_result_says_so),
        cmocka_unit_test(test_a_line_end_in_a_body_does_not_break_the_line),
        cmocka_unit_test(test_unicode_line_ends_are_escaped),
        cmocka_unit_test(test_progress_tells_rate_and_time_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
