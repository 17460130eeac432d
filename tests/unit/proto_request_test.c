/* A line of a batch file: what it means, and the words in which it is refused. */
#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>

#include "proto/request.h"

#define CHAT "\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":"
#define COMPLETION "\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":"
#define FORTY "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
#define DEEP  FORTY FORTY FORTY FORTY
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static struct arena arena;

static bool read_text(const char *line, struct request *request, struct request_fault *fault)
{
    arena_reset(&arena);
    return request_read(&arena, span_text(line), request, fault);
}

/* Reads a line that must be good. */
static struct request good(const char *line)
{
    struct request request;
    struct request_fault fault;

    if (!read_text(line, &request, &fault))
        fail_msg("%s\n  was refused: %s", line, fault.message);
    return request;
}

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

/* Everything a chat may say arrives where the worker looks for it. */
static void test_a_chat_arrives_whole(void **state)
{
    struct request q = good("{\"custom_id\":\"a\"," CHAT
                            "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"s\\u0000t\"},"
                            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"one \"},{\"type\":\"text\",\"text\":\"two\"}]},"
                            "{\"role\":\"assistant\",\"content\":\"\",\"name\":null}],"
                            "\"max_completion_tokens\":7,\"temperature\":0,\"top_p\":0.5,\"top_k\":-1,\"seed\":-3,"
                            "\"stop\":[\"x\",\"\\n\"],\"n\":1,\"stream\":false,\"logprobs\":true,\"top_logprobs\":20,\"tools\":null}}");

    (void)state;
    CHECK(q.kind == REQUEST_CHAT && span_equal(q.custom_id, span_text("a")) && span_equal(q.model, span_text("m")));
    CHECK(q.message_count == 3 && q.message[0].role == REQUEST_SYSTEM && q.message[2].role == REQUEST_ASSISTANT);
    CHECK(span_equal(q.message[0].content, span_of("s\0t", 3)));
    CHECK(span_equal(q.message[1].content, span_text("one two")) && q.message[2].content.size == 0);
    CHECK(q.max_tokens == 7 && q.temperature == 0 && q.top_p == 0.5 && q.top_k == 0 && q.seed_given && q.seed == -3);
    CHECK(q.stop_count == 2 && span_equal(q.stop[1], span_text("\n")));
    CHECK(q.logprobs && q.top_logprobs == 20 && !q.echo);
}

/* What is left out has the meaning OpenAI's has, and null is left out. */
static void test_defaults(void **state)
{
    struct request q = good("{\"custom_id\":\"a\"," CHAT "{" HI ",\"temperature\":null,\"seed\":null,\"max_tokens\":null,\"stop\":null}}");

    (void)state;
    CHECK(q.max_tokens == -1 && q.temperature == 1 && q.top_p == 1 && q.top_k == 0 && q.stop_count == 0);
    CHECK(!q.seed_given && q.seed >= 0 && q.seed == request_seed(q.body, q.custom_id) && !q.logprobs);
    q = good("{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":\"\"}}");
    CHECK(q.kind == REQUEST_COMPLETION && q.max_tokens == REQUEST_COMPLETION_TOKENS);
    CHECK(!q.prompt_id && q.prompt.data && q.prompt.size == 0);
    q = good("{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":[5,0,2147483647],\"echo\":true,\"max_tokens\":0,\"logprobs\":0}}");
    CHECK(q.prompt_id_count == 3 && q.prompt_id[2] == INT32_MAX && q.max_tokens == 0 && q.echo);
    CHECK(q.logprobs && q.top_logprobs == 0);
}

/* How the rest of sampling is asked for. */
static void test_what_steers_the_sampling_arrives(void **state)
{
    struct request q = good("{\"custom_id\":\"a\"," CHAT "{" HI "}}");

    (void)state;
    CHECK(q.min_p == 0 && q.presence_penalty == 0 && q.frequency_penalty == 0 && q.repetition_penalty == 1);
    CHECK(q.choices == 1 && !q.bias_count && !q.stop_id_count && !q.ignore_eos && !q.pattern_max);
    CHECK(q.form == REQUEST_FREE && !q.form_field && !q.tokens_field);
    q = good("{\"custom_id\":\"a\"," CHAT "{" HI ",\"min_p\":0.1,\"presence_penalty\":-2,\"frequency_penalty\":2,"
             "\"repetition_penalty\":1.25,\"logit_bias\":{\"50\":-100,\"7\":100,\"2147483647\":0.5},\"n\":64,"
             "\"stop_token_ids\":[3,0],\"ignore_eos\":true,\"max_completion_tokens\":9,"
             "\"repetition_detection\":{\"max_pattern_size\":20,\"min_pattern_size\":0,\"min_count\":4}}}");
    CHECK(q.min_p == 0.1 && q.presence_penalty == -2 && q.frequency_penalty == 2 && q.repetition_penalty == 1.25);
    CHECK(q.bias_count == 3 && q.bias[0].id == 7 && q.bias[0].bias == 100 && q.bias[1].id == 50 &&
          q.bias[2].id == INT32_MAX && q.bias[2].bias == 0.5f);
    CHECK(q.choices == 64 && q.stop_id_count == 2 && q.stop_id[0] == 3 && q.ignore_eos);
    CHECK(q.pattern_max == 20 && q.pattern_min == 1 && q.pattern_count == 4);
    CHECK(strcmp(q.tokens_field, "max_completion_tokens") == 0);
    q = good("{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":\"x\",\"repetition_detection\":{\"max_pattern_size\":0,"
             "\"min_count\":0},\"response_format\":{\"type\":\"text\"},\"guided_json\":null}}");
    CHECK(!q.pattern_max && q.form == REQUEST_FREE);
}

static void check_form(const char *fields, enum request_form form, const char *field, const char *text, bool closed)
{
    char line[1024];
    struct request q;

    snprintf(line, sizeof line, "{\"custom_id\":\"a\"," CHAT "{" HI ",%s}}", fields);
    q = good(line);
    if (q.form != form || strcmp(q.form_field, field) || !span_equal(q.form_text, span_text(text)) || q.form_closed != closed)
        fail_msg("%s\n  has form %d of %s: %.*s", fields, q.form, q.form_field, (int)q.form_text.size, (const char *)q.form_text.data);
}

/* One meaning, whichever service's words it came in. */
static void test_the_form_of_the_output_arrives(void **state)
{
    (void)state;
    check_form("\"response_format\":{\"type\":\"json_object\"}", REQUEST_JSON_OBJECT, "response_format", "", false);
    check_form("\"response_format\":{\"json_schema\":{\"name\":\"n\",\"description\":\"d\",\"strict\":true,"
               "\"schema\":{\"b\": 1, \"a\":[0.1, 1.0, 1e300]}},\"type\":\"json_schema\"}",
               REQUEST_SCHEMA, "response_format", "{\"b\":1,\"a\":[0.1,1.0,1e+300]}", true);
    check_form("\"guided_json\":{ \"z\":{\"y\":1,\"x\":\"\\u00e4\\n\"},\"a\":true}", REQUEST_SCHEMA, "guided_json",
               "{\"z\":{\"y\":1,\"x\":\"ä\\n\"},\"a\":true}", false);
    check_form("\"guided_json\":\"{ \\\"z\\\":1}\"", REQUEST_SCHEMA, "guided_json", "{ \"z\":1}", false);
    check_form("\"guided_choice\":[\"b\",\"\",\"a\"]", REQUEST_CHOICE, "guided_choice", "[\"b\",\"\",\"a\"]", false);
    check_form("\"guided_regex\":\"[ab]+\"", REQUEST_REGEX, "guided_regex", "[ab]+", false);
    check_form("\"structured_outputs\":{\"json\":{\"b\":1,\"a\":2},\"regex\":null}", REQUEST_SCHEMA, "structured_outputs",
               "{\"b\":1,\"a\":2}", false);
    check_form("\"structured_outputs\":{\"choice\":[\"a\"]}", REQUEST_CHOICE, "structured_outputs", "[\"a\"]", false);
    check_form("\"structured_outputs\":{\"regex\":\"a\"}", REQUEST_REGEX, "structured_outputs", "a", false);
    check_form("\"structured_outputs\":{\"json_object\":true}", REQUEST_JSON_OBJECT, "structured_outputs", "", false);
}

/* In a schema the order of properties is the order in which they are generated; nowhere else does it matter. */
static void test_only_a_schema_keeps_the_order_of_its_keys(void **state)
{
    static const char body[] = "{\"guided_json\":{\"z\":1,\"a\":{\"y\":0.1,\"b\":[{\"d\":1,\"c\":2}]}},"
                               "\"max_tokens\":5,\"messages\":[{\"content\":\"hi\",\"role\":\"user\"}],\"top_p\":0.10000000000000001}";
    struct request a = good("{\"custom_id\":\"a\"," CHAT "{\"top_p\":0.1,\"max_tokens\":5,\"guided_json\":{\"z\":1,\"a\":"
                            "{\"y\":0.1,\"b\":[{\"d\":1,\"c\":2}]}}," HI "}}"), b;
    struct request_fault fault;

    (void)state;
    CHECK(span_equal(a.body, span_text(body)));
    CHECK(request_read_body(&arena, a.url, a.custom_id, a.body, &b, &fault));
    CHECK(span_equal(a.body, b.body) && span_equal(a.form_text, b.form_text) && a.seed == b.seed);
    b = good("{\"custom_id\":\"a\"," CHAT "{\"top_p\":0.1,\"max_tokens\":5,\"guided_json\":{\"a\":{\"y\":0.1,\"b\":"
             "[{\"d\":1,\"c\":2}]},\"z\":1}," HI "}}");
    CHECK(b.seed != request_seed(span_text(body), span_text("a")));
    b = good("{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"strict\":true,"
             "\"schema\":{\"b\":1,\"a\":2},\"name\":\"n\"}},\"structured_outputs\":null,\"logit_bias\":{\"2\":1,\"1\":1}}}");
    CHECK(span_equal(b.body, span_text("{\"logit_bias\":{\"1\":1,\"2\":1},\"messages\":[{\"content\":\"hi\",\"role\":\"user\"}],"
                                       "\"response_format\":{\"json_schema\":{\"name\":\"n\",\"schema\":{\"b\":1,\"a\":2},\"strict\":true},"
                                       "\"type\":\"json_schema\"},\"structured_outputs\":null}")));
}

/* A schema's integers may have more digits than 64 bits hold, and come out as they went in, twice over. */
static void test_a_schema_may_have_integers_beyond_64_bits(void **state)
{
    static const char schema[] = "{\"maximum\":18446744073709551615,\"enum\":[-9223372036854775809,9223372036854775807,"
                                 "{\"a \\\" 99999999999999999999\":123456789012345678901234567890}]}";
    struct request q, again;
    struct request_fault fault;
    char line[1024];

    (void)state;
    snprintf(line, sizeof line, "\"seed\":9223372036854775807,\"guided_json\":%s", schema);
    check_form(line, REQUEST_SCHEMA, "guided_json", schema, false);
    snprintf(line, sizeof line, "\"structured_outputs\":{\"json\":%s},\"min_p\":0.5", schema);
    check_form(line, REQUEST_SCHEMA, "structured_outputs", schema, false);
    snprintf(line, sizeof line, "{\"custom_id\":\"a\"," CHAT "{\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":%s}}," HI "}}",
             schema);
    q = good(line);
    CHECK(span_equal(q.form_text, span_text(schema)));
    CHECK(request_read_body(&arena, q.url, q.custom_id, q.body, &again, &fault));
    CHECK(span_equal(q.body, again.body) && span_equal(again.form_text, span_text(schema)));
    /* one outside of the schema is still too large, and named */
    snprintf(line, sizeof line, "{\"custom_id\":\"a\"," CHAT "{\"seed\":9223372036854775808,\"guided_json\":%s," HI "}}", schema);
    CHECK(!request_read(&arena, span_text(line), &q, &fault));
    CHECK(strcmp(fault.param, "seed") == 0 && strstr(fault.message, "out of range"));
}

/* Each is one mistake; the words must name the field and what was expected, the code and param go into the output. */
static void test_each_mistake_is_named(void **state)
{
    static const struct {
        const char *line, *code, *param, *words;
    } cases[] = {
        { "", "invalid_json", "", "line is not JSON" },
        { "hello", "invalid_json", "", "line is not JSON" },
        { "{\"custom_id\":\"a\"", "invalid_json", "", "line is not JSON" },
        { "[1]", "invalid_type", "", "expected an object, found a list" },
        { "{\"custom_id\":\"a\",\"custom_id\":\"b\"}", "invalid_json", "", "duplicate object key" },
        { "{" CHAT "{" HI "}}", "missing_required_parameter", "custom_id", "`custom_id` is missing" },
        { "{\"custom_id\":7," CHAT "{" HI "}}", "invalid_type", "custom_id", "expected a text, found an integer" },
        { "{\"custom_id\":\"\"," CHAT "{" HI "}}", "invalid_value", "custom_id", "expected 1..512 bytes, found 0" },
        { "{\"custom_id\":\"a\\nb\"," CHAT "{" HI "}}", "invalid_value", "custom_id", "control character U+000A at byte 1" },
        { "{\"custom_id\":\"a\\u0000b\"," CHAT "{" HI "}}", "invalid_value", "custom_id", "control character U+0000" },
        { "{\"custom_id\":\"a\",\"url\":\"/v1/completions\",\"body\":{}}", "missing_required_parameter", "method", "`method` is missing" },
        { "{\"custom_id\":\"a\",\"method\":\"GET\",\"url\":\"/v1/completions\",\"body\":{}}", "invalid_value", "method", "expected POST, found `GET`" },
        { "{\"custom_id\":\"a\",\"method\":\"POST\",\"body\":{}}", "missing_required_parameter", "url", "`url` is missing" },
        { "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/embeddings\",\"body\":{}}", "invalid_url", "url", "`/v1/embeddings` is not supported; expected /v1/chat/completions or /v1/completions" },
        { "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\"}", "missing_required_parameter", "body", "`body` is missing" },
        { "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"boddy\":{}}", "unknown_parameter", "boddy", "did you mean `body`" },
        { "{\"custom_id\":\"a\"," COMPLETION "null}", "invalid_type", "body", "expected an object, found null" },
        { "{\"custom_id\":\"a\"," COMPLETION "\"x\"}", "invalid_type", "body", "expected an object, found a text" },
        { "{\"custom_id\":\"a\"," COMPLETION "{}}", "missing_required_parameter", "prompt", "`prompt` is missing" },
        { "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":7}}", "invalid_type", "prompt", "expected a text or a list of token ids, found an integer" },
        { "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":[]}}", "invalid_value", "prompt", "found 0" },
        { "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":[\"a\",\"b\"]}}", "unsupported_value", "prompt", "several prompts" },
        { "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":[[1],[2]]}}", "unsupported_value", "prompt", "several prompts" },
        { "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":[1,-2]}}", "invalid_value", "prompt[1]", "found -2" },
        { "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":[1,2.5]}}", "invalid_type", "prompt[1]", "found a number with a fraction" },
        { "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":\"x\",\"messages\":[]}}", "unknown_parameter", "messages", "not a field of /v1/completions" },
        { "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":\"x\",\"logprobs\":true}}", "invalid_type", "logprobs", "expected an integer 0..20, found true" },
        { "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":\"x\",\"logprobs\":21}}", "invalid_value", "logprobs", "found 21" },
        { "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":\"x\",\"max_tokens\":0}}", "invalid_value", "max_tokens", "expected at least 1, found 0" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"max_tokens\":0}}", "invalid_value", "max_tokens", "expected at least 1, found 0" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"max_tokens\":-1}}", "invalid_value", "max_tokens", "found -1" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"max_tokens\":2147483648}}", "invalid_value", "max_tokens", "found 2147483648" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"max_tokens\": 99999999999999999999}}", "invalid_value", "max_tokens", "out of range" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"max_tokens\":\"5\"}}", "invalid_type", "max_tokens", "found a text" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"max_tokens\":5.0}}", "invalid_type", "max_tokens", "found a number with a fraction" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"max_tokens\":5,\"max_completion_tokens\":5}}", "invalid_value", "max_completion_tokens", "mean the same" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"temperature\":2.5}}", "invalid_value", "temperature", "expected a number 0..2, found 2.5" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"temperature\":1e999}}", "invalid_value", "temperature", "out of range" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"temperature\":NaN}}", "invalid_json", "", "NaN" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"temperature\":\"hot\"}}", "invalid_type", "temperature", "found a text" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"top_p\":-0.1}}", "invalid_value", "top_p", "expected a number 0..1" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"top_k\":-2}}", "invalid_value", "top_k", "found -2" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"seed\":1.5}}", "invalid_type", "seed", "expected an integer of 64 bits" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"stop\":\"\"}}", "invalid_value", "stop", "expected 1..512 bytes, found 0" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"stop\":[\"a\",\"\"]}}", "invalid_value", "stop[1]", "found 0" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"stop\":[\"a\",1]}}", "invalid_type", "stop[1]", "found an integer" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"stop\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}}", "invalid_value", "stop", "at most 16 texts, found 17" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"n\":65}}", "invalid_value", "n", "expected an integer 1..64, found 65" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"n\":0}}", "invalid_value", "n", "found 0" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"stream\":true}}", "unsupported_value", "stream", "only false is supported" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"top_logprobs\":3}}", "invalid_value", "top_logprobs", "needs `logprobs`" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"echo\":true}}", "unknown_parameter", "echo", "not a field of /v1/chat/completions" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{}}}", "missing_required_parameter", "response_format.type", "is missing" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":\"text\"}}", "invalid_type", "response_format", "an object with \"type\", found a text" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{\"type\":\"xml\"}}}", "unsupported_value", "response_format.type", "`xml` is not supported; expected text, json_object or json_schema" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{\"type\":\"json_schema\"}}}", "missing_required_parameter", "response_format.json_schema", "is missing" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{\"type\":\"json_object\",\"json_schema\":{\"schema\":{}}}}}", "invalid_value", "response_format.json_schema", "needs `type`: json_schema" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\"}}}}", "missing_required_parameter", "response_format.json_schema.schema", "is missing" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":\"{}\"}}}}", "invalid_type", "response_format.json_schema.schema", "expected a JSON Schema, found a text" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{},\"strikt\":true}}}}", "unsupported_parameter", "response_format.json_schema.strikt", "did you mean `strict`" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{},\"strict\":1}}}}", "invalid_type", "response_format.json_schema.strict", "expected true or false" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{},\"name\":1}}}}", "invalid_type", "response_format.json_schema.name", "expected a text" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_json\":7}}", "invalid_type", "guided_json", "expected a JSON Schema, or one as a text" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_json\":{},\"guided_regex\":\"a\"}}", "invalid_value", "guided_regex", "`guided_json` and `guided_regex` both say" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{\"type\":\"json_object\"},\"guided_choice\":[\"a\"]}}", "invalid_value", "guided_choice", "both say" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_choice\":[]}}", "invalid_value", "guided_choice", "found 0" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_choice\":[\"a\",1]}}", "invalid_type", "guided_choice[1]", "found an integer" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_choice\":\"a\"}}", "invalid_type", "guided_choice", "expected a list of texts" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_regex\":\"\"}}", "invalid_value", "guided_regex", "expected 1..4096 bytes, found 0" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_regex\":[\"a\"]}}", "invalid_type", "guided_regex", "as a text" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"structured_outputs\":{}}}", "invalid_value", "structured_outputs", "expected one of json, choice, regex and json_object, found 0" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"structured_outputs\":{\"regex\":\"a\",\"json\":{}}}}", "invalid_value", "structured_outputs", "found 2" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"structured_outputs\":{\"json_object\":false}}}", "invalid_value", "structured_outputs", "found 0" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"structured_outputs\":{\"grammar\":\"x\"}}}", "unsupported_parameter", "structured_outputs.grammar", "not supported" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_grammar\":\"x\"}}", "unsupported_parameter", "guided_grammar", "not supported" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_json\":{},\"stop\":\"x\"}}", "invalid_value", "stop", "`stop` does not go together with `guided_json`" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_json\":{},\"stop_token_ids\":[1]}}", "invalid_value", "stop_token_ids", "does not go together" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"frequency_penalty\":2.1}}", "invalid_value", "frequency_penalty", "expected a number -2..2, found 2.1" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"presence_penalty\":\"a\"}}", "invalid_type", "presence_penalty", "expected a number -2..2" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"repetition_penalty\":0}}", "invalid_value", "repetition_penalty", "expected a number 0.01..10, found 0" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"min_p\":1.5}}", "invalid_value", "min_p", "expected a number 0..1" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"logit_bias\":[1]}}", "invalid_type", "logit_bias", "expected an object of token ids and numbers" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"logit_bias\":{\"01\":1}}}", "invalid_value", "logit_bias.01", "expected a token id" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"logit_bias\":{\"-1\":1}}}", "invalid_value", "logit_bias.-1", "expected a token id" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"logit_bias\":{\"2147483648\":1}}}", "invalid_value", "logit_bias.2147483648", "expected a token id" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"logit_bias\":{\"5\":101}}}", "invalid_value", "logit_bias.5", "expected a number -100..100, found 101" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"stop_token_ids\":5}}", "invalid_type", "stop_token_ids", "a list of token ids" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"stop_token_ids\":[5,-1]}}", "invalid_value", "stop_token_ids[1]", "found -1" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"ignore_eos\":1}}", "invalid_type", "ignore_eos", "expected true or false" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"repetition_detection\":true}}", "invalid_type", "repetition_detection", "expected an object" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"repetition_detection\":{\"max_pattern_size\":5}}}", "missing_required_parameter", "repetition_detection.min_count", "is missing" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"repetition_detection\":{\"max_pattern_size\":5,\"min_count\":1}}}", "invalid_value", "repetition_detection.min_count", "expected an integer 2..1024, found 1" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"repetition_detection\":{\"max_pattern_size\":5,\"min_pattern_size\":6,\"min_count\":2}}}", "invalid_value", "repetition_detection.min_pattern_size", "expected an integer 0..5, found 6" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"repetition_detection\":{\"max_patern_size\":5}}}", "unsupported_parameter", "repetition_detection.max_patern_size", "did you mean `max_pattern_size`" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"temprature\":1}}", "unknown_parameter", "temprature", "did you mean `temperature`" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"temprature\":null}}", "unknown_parameter", "temprature", "did you mean `temperature`" },
        { "{\"custom_id\":\"a\"," CHAT "{}}", "missing_required_parameter", "messages", "`messages` is missing" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[]}}", "invalid_value", "messages", "found 0" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":\"hi\"}}", "invalid_type", "messages", "expected a list of messages" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[\"hi\"]}}", "invalid_type", "messages[0]", "found a text" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[{\"content\":\"x\"}]}}", "missing_required_parameter", "messages[0].role", "is missing" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}}", "invalid_value", "messages[0].role", "`tool` is not supported; expected system, user or assistant" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[{\"role\":\"user\\u0000\",\"content\":\"x\"}]}}", "invalid_value", "messages[0].role", "not supported" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[{\"role\":\"user\"}]}}", "missing_required_parameter", "messages[0].content", "is missing" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[{\"role\":\"user\",\"content\":null}]}}", "invalid_type", "messages[0].content", "found null" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"name\":\"bob\"}]}}", "unsupported_parameter", "messages[0].name", "not supported" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"rolle\":\"user\",\"content\":\"x\"}]}}", "unsupported_parameter", "messages[1].rolle", "did you mean `role`" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}}", "unsupported_value", "messages[0].content[0].type", "`image_url` is not supported; expected text" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}}", "missing_required_parameter", "messages[0].content[0].text", "is missing" },
        { "{\"custom_id\":\"a\"," CHAT "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\",\"cache\":1}]}]}}", "unsupported_parameter", "messages[0].content[0].cache", "not supported" },
        { "{\"custom_id\":\"a\"," CHAT "{\"x\":" DEEP "}}", "invalid_json", "", "more than 160 lists and objects within each other" },
        { "{\"custom_id\":\"a\"," CHAT "{\"\\ud800\":1}}", "invalid_json", "", "not JSON" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct request request;
        struct request_fault fault;

        if (read_text(cases[i].line, &request, &fault))
            fail_msg("accepted: %s", cases[i].line);
        if (strcmp(fault.code, cases[i].code) || strcmp(fault.param, cases[i].param) ||
            !strstr(fault.message, cases[i].words) || fault.status_code != 400)
            fail_msg("%s\n  gave %d %s, param `%s`: %s", cases[i].line, fault.status_code, fault.code, fault.param,
                     fault.message);
    }
}

/* A bad line keeps its place in the output by its custom_id, if that much of it is good. */
static void test_the_custom_id_survives_a_bad_body(void **state)
{
    struct request request;
    struct request_fault fault;

    (void)state;
    CHECK(!read_text("{\"custom_id\":\"a-1\"," CHAT "{\"messages\":7}}", &request, &fault));
    CHECK(span_equal(request.custom_id, span_text("a-1")));
    CHECK(span_equal(request.url, span_text("/v1/chat/completions")));
    CHECK(!read_text("{\"custom_id\":7}", &request, &fault) && request.custom_id.size == 0);
}

/* Programs write NaN and 1e30 without knowing better; their results are joined by custom_id like all others. */
static void test_the_custom_id_survives_what_json_refuses(void **state)
{
    static const struct { const char *line, *custom_id; } table[] = {
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"temperature\":NaN}}", "a" },
        { "{" CHAT "{" HI ",\"max_tokens\":1" "000000000000000000000000000000}, \"custom_id\" : \"\\u00e9 \\\"q\\\"\" }", "é \"q\"" },
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"n\":1,\"n\":1,\"custom_id\":\"b\"}}", "a" },
        { "{\"custom_id\":\"a\"," CHAT "{\"temprature\":NaN,\"messages\":[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}}", "a" },
        /* Not whole, not one, not a text, not at its place, not fit to be one. */
        { "{\"custom_id\":\"a\"," CHAT "{" HI ",\"temperature\":NaN}", "" },
        { "{\"custom_id\":\"a\",\"custom_id\":\"b\"," CHAT "{" HI "}}", "" },
        { "{\"custom_id\":5," CHAT "{" HI ",\"temperature\":NaN}}", "" },
        { "{\"custom_id\":[\"a\"]," CHAT "{" HI ",\"temperature\":NaN}}", "" },
        { "{" CHAT "{\"custom_id\":\"a\",\"temperature\":NaN}}", "" },
        { "{\"custom_id\":\"a\\nb\"," CHAT "{" HI ",\"temperature\":NaN}}", "" },
        { "{\"custom_id\":\"\\ud800\"," CHAT "{" HI "}}", "" },
        { "[\"custom_id\",\"a\"", "" },
        { "\"custom_id\":\"a", "" },
    };
    struct request request;
    struct request_fault fault;

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK(!read_text(table[i].line, &request, &fault));
        if (!span_equal(request.custom_id, span_text(table[i].custom_id)))
            fail_msg("%s\n  has custom_id `%.*s`", table[i].line, (int)request.custom_id.size, (const char *)request.custom_id.data);
    }
}

/* The byte is named, so that the line can be mended. */
static void test_bytes_that_are_not_utf8_are_named(void **state)
{
    struct request request;
    struct request_fault fault;

    (void)state;
    CHECK(!read_text("{\"custom_id\":\"\xc3\xa4\xc3\"}", &request, &fault));
    CHECK(strcmp(fault.code, "invalid_utf8") == 0 && strstr(fault.message, "byte 0xc3 at byte 16"));
    CHECK(!read_text("\xed\xa0\x80", &request, &fault) && strstr(fault.message, "at byte 0"));
}

/* At each bound the line is good; one beyond it is refused. */
static void test_bounds(void **state)
{
    struct request request;
    struct request_fault fault;
    struct buf line = { 0 };

    (void)state;
    for (int more = 0; more < 2; more++) {
        line.size = 0;
        CHECK(buf_text(&line, "{\"custom_id\":\""));
        for (int i = 0; i < REQUEST_ID_MAX + more; i++)
            CHECK(buf_text(&line, "x"));
        CHECK(buf_text(&line, "\"," COMPLETION "{\"prompt\":\"x\"}}"));
        CHECK(request_read(&arena, buf_span(&line), &request, &fault) == !more);

        line.size = 0;
        CHECK(buf_text(&line, "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":[1"));
        for (int i = 1; i < REQUEST_PROMPT_IDS_MAX + more; i++)
            CHECK(buf_text(&line, ",2"));
        CHECK(buf_text(&line, "]}}"));
        CHECK(request_read(&arena, buf_span(&line), &request, &fault) == !more);

        line.size = 0;
        CHECK(buf_text(&line, "{\"custom_id\":\"a\"," COMPLETION "{\"prompt\":\""));
        while (line.size + 3 < (size_t)REQUEST_LINE_MAX + (size_t)more)
            CHECK(buf_text(&line, "x"));
        CHECK(buf_text(&line, "\"}}"));
        CHECK(line.size == (size_t)REQUEST_LINE_MAX + (size_t)more);
        CHECK(request_read(&arena, buf_span(&line), &request, &fault) == !more);
    }
    CHECK(fault.status_code == 413 && strcmp(fault.code, "line_too_long") == 0);

    /* Many small values cost far more memory than bytes. */
    line.size = 0;
    CHECK(buf_text(&line, "["));
    for (int i = 0; i < REQUEST_VALUES_MAX; i++)
        CHECK(buf_text(&line, "[],"));
    CHECK(!request_read(&arena, buf_span(&line), &request, &fault) && strstr(fault.message, "JSON values"));

    /* A caller's own bound on memory is a refusal, not a crash. */
    for (size_t max = 0; max < 2048; max += 64) {
        struct arena small;

        arena_init(&small, max + 1);
        if (!request_read(&small, span_text("{\"custom_id\":\"a\"," CHAT "{" HI ",\"stop\":[\"a\"],\"model\":\"m\"}}"),
                          &request, &fault))
            CHECK(fault.status_code == 413);
        arena_fini(&small);
    }
    buf_fini(&line);
}

/* Schemas of 64 levels are read, hostile nesting is refused before anything is built of it. */
static void test_the_bounds_of_what_steers_the_output(void **state)
{
    struct request request;
    struct request_fault fault;
    struct buf line = { 0 };

    (void)state;
    for (int levels = 64; levels <= 10000; levels += 10000 - 64) {
        line.size = 0;
        CHECK(buf_text(&line, "{\"custom_id\":\"a\"," CHAT "{" HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":"));
        for (int i = 0; i < levels; i++)
            CHECK(buf_text(&line, "{\"properties\":{\"a\":"));
        CHECK(buf_text(&line, "{}"));
        for (int i = 0; i < levels; i++)
            CHECK(buf_text(&line, "}}"));
        CHECK(buf_text(&line, "}}}}"));
        arena_reset(&arena);
        CHECK(request_read(&arena, buf_span(&line), &request, &fault) == (levels == 64));
    }
    CHECK(strstr(fault.message, "more than 160 lists"));
    for (int more = 0; more < 2; more++) {
        line.size = 0;
        CHECK(buf_text(&line, "{\"custom_id\":\"a\"," CHAT "{" HI ",\"logit_bias\":{\"0\":1"));
        for (int i = 1; i < REQUEST_BIAS_MAX + more; i++)
            CHECK(buf_format(&line, ",\"%d\":1", i));
        CHECK(buf_text(&line, "}}}"));
        CHECK(request_read(&arena, buf_span(&line), &request, &fault) == !more);
        line.size = 0;
        CHECK(buf_text(&line, "{\"custom_id\":\"a\"," CHAT "{" HI ",\"stop_token_ids\":[0"));
        for (int i = 1; i < REQUEST_STOP_IDS_MAX + more; i++)
            CHECK(buf_format(&line, ",%d", i));
        CHECK(buf_text(&line, "]}}"));
        CHECK(request_read(&arena, buf_span(&line), &request, &fault) == !more);
        line.size = 0;
        CHECK(buf_text(&line, "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_choice\":[\"a\""));
        for (int i = 1; i < REQUEST_FORM_TEXTS_MAX + more; i++)
            CHECK(buf_format(&line, ",\"%d\"", i));
        CHECK(buf_text(&line, "]}}"));
        CHECK(request_read(&arena, buf_span(&line), &request, &fault) == !more);
        line.size = 0;
        CHECK(buf_text(&line, "{\"custom_id\":\"a\"," CHAT "{" HI ",\"guided_json\":{\"description\":\""));
        for (int i = 0; i < REQUEST_FORM_BYTES_MAX - (int)strlen("{'description':''}") + more; i++)
            CHECK(buf_text(&line, "x"));
        CHECK(buf_text(&line, "\"}}}"));
        CHECK(request_read(&arena, buf_span(&line), &request, &fault) == !more);
    }
    CHECK(fault.status_code == 400 && strstr(fault.message, "more than 1048576 bytes"));
    buf_fini(&line);
}

/* The order of keys and white space make no other job; a worker that reads the stored body reads the same request. */
static void test_the_stored_body_is_canonical(void **state)
{
    struct request a = good("{\"custom_id\":\"a\"," CHAT "{ \"top_p\": 0.1, \"model\" : \"\\u00e9\", " HI "}}"), b, c;
    struct request_fault fault;
    uint8_t first[32], second[32];

    (void)state;
    request_digest(first, &a);
    CHECK(span_equal(a.body, span_text("{\"messages\":[{\"content\":\"hi\",\"role\":\"user\"}],\"model\":\"é\","
                                       "\"top_p\":0.10000000000000001}")));
    CHECK(request_read_body(&arena, a.url, a.custom_id, a.body, &b, &fault));
    CHECK(span_equal(a.body, b.body) && b.top_p == 0.1 && b.seed == a.seed && b.message_count == 1);
    c = good("{" CHAT "{" HI ",\"top_p\":0.1,\"model\":\"é\"},\"custom_id\":\"a\"}");
    request_digest(second, &c);
    CHECK(memcmp(first, second, 32) == 0);
    c = good("{" CHAT "{" HI ",\"top_p\":0.2,\"model\":\"é\"},\"custom_id\":\"a\"}");
    request_digest(second, &c);
    CHECK(memcmp(first, second, 32) != 0);
}

/* Others compute these too: they may never change. */
static void test_ids_and_seeds_are_fixed(void **state)
{
    char id[REQUEST_JOB_ID_SIZE];

    (void)state;
    request_job_id(id, span_text("nightly"), span_text("doc-1"));
    assert_string_equal(id, "1415fe1601c61d28eb9a57d91ac9809f");
    request_line_id(id, span_text("nightly"), 17);
    assert_string_equal(id, "38a2dc85ed2e809086af478dd348fe83");
    CHECK(request_seed(span_text("{}"), span_text("doc-1")) == 7006534262117239531);
    CHECK(request_seed(span_text("{}"), span_text("doc-1")) != request_seed(span_text("{}"), span_text("doc-2")));
}

/* A fault is an OpenAI error, whatever the user put into the words. */
static void test_a_fault_is_written_as_an_error(void **state)
{
    struct request_fault fault;
    struct buf out = { 0 };
    struct request request;
    char line[4096];

    (void)state;
    CHECK(!read_text("{\"custom_id\":\"a\"," CHAT "{" HI ",\"te\\u0007mp\\u00e9rature\":1}}", &request, &fault));
    CHECK(request_fault_write(&fault, &out));
    CHECK(buf_add(&out, "", 1));
    assert_string_equal((char *)out.data,
                        "{\"error\":{\"message\":\"unknown field `te?mpérature` (did you mean `temperature`?)\",\"type\":\"invalid_request_error\","
                        "\"param\":\"te?mpérature\",\"code\":\"unknown_parameter\"}}");
    out.size = 0;
    CHECK(!read_text("", &request, &fault) && request_fault_write(&fault, &out) && buf_add(&out, "", 1));
    CHECK(strstr((char *)out.data, "\"param\":null"));

    /* Cut in the middle of a character. */
    for (int i = 0; i < 4; i++) {
        int n = snprintf(line, sizeof line, "{\"custom_id\":\"a\"," CHAT "{" HI ",\"%.*s", i, "xxxx");

        for (int k = 0; k < 400; k++)
            n += snprintf(line + n, sizeof line - (size_t)n, "語");
        snprintf(line + n, sizeof line - (size_t)n, "\":1}}");
        out.size = 0;
        CHECK(!read_text(line, &request, &fault));
        CHECK(span_is_utf8(span_text(fault.param)) && span_is_utf8(span_text(fault.message)));
        CHECK(request_fault_write(&fault, &out));
    }
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_chat_arrives_whole),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_what_steers_the_sampling_arrives),
        cmocka_unit_test(test_the_form_of_the_output_arrives),
        cmocka_unit_test(test_only_a_schema_keeps_the_order_of_its_keys),
        cmocka_unit_test(test_a_schema_may_have_integers_beyond_64_bits),
        cmocka_unit_test(test_each_mistake_is_named),
        cmocka_unit_test(test_the_custom_id_survives_a_bad_body),
        cmocka_unit_test(test_the_custom_id_survives_what_json_refuses),
        cmocka_unit_test(test_bytes_that_are_not_utf8_are_named),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_the_bounds_of_what_steers_the_output),
        cmocka_unit_test(test_the_stored_body_is_canonical),
        cmocka_unit_test(test_ids_and_seeds_are_fixed),
        cmocka_unit_test(test_a_fault_is_written_as_an_error),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
