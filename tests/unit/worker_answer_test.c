/* From tokens to a response body. */

#include "tests/check.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "worker/answer.h"

static struct tokenizer *tokenizer;

static int load(void **state)
{
    struct err err;

    (void)state;
    return tokenizer_load(&tokenizer, SOURCE_DIR "/deploy/demo/model", &err) ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    tokenizer_free(tokenizer);
    return 0;
}

static struct ids encode(const char *text)
{
    struct ids ids = { 0 };
    struct err err;

    CHECK(tokenizer_encode(tokenizer, span_text(text), &ids, &err));
    return ids;
}

static json_t *body_of(const struct answer *answer)
{
    struct buf out = { 0 };
    struct err err;
    json_t *body;

    CHECK(answer_body(&answer, 1, 1 << 20, &out, &err));
    body = json_loadb((char *)out.data, out.size, JSON_ALLOW_NUL, NULL);
    buf_fini(&out);
    CHECK(body);
    return body;
}

static json_t *at(json_t *json, const char *key)
{
    json_t *value =
        json_is_array(json) ? json_array_get(json, (size_t)atoi(key)) : json_object_get(json, key);

    if (!value)
        fail_msg("no `%s`", key);
    return value;
}

/* A stop string is text; tokens cut text where they like. */
static void test_a_stop_string_is_found_however_tokens_cut_it(void **state)
{
    static const char *const stops[] = { "nd of", "e end", "the end of it all", "of it all, surely",
                                         "zebra", "d" };
    static const char *const expected[] = { "This is the e",    "This is th", "This is ",
                                            "This is the end ", NULL,         "This is the en" };
    struct ids ids = encode("This is the end of it all, surely.");

    (void)state;
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        struct span stop = span_text(stops[i]);
        struct request request = { .kind = REQUEST_CHAT, .stop = &stop, .stop_count = 1 };
        struct answer answer;
        size_t n = 0;

        answer_init(&answer, &request, tokenizer, NULL, 0, NULL);
        while (n < ids.count && answer_add(&answer, ids.id[n++], false, NULL))
            ;
        answer_end(&answer, ANSWER_LENGTH);
        CHECK(answer.end == (expected[i] ? ANSWER_STOP : ANSWER_LENGTH));
        CHECK(span_equal(buf_span(&answer.text),
                         span_text(expected[i] ? expected[i] : "This is the end of it all, surely.")));
        CHECK(answer.generated.count == n);
        answer_fini(&answer);
    }
    ids_fini(&ids);
}

/* Of several stop strings in one token the first in the text counts, not the first in the list. */
static void test_the_earliest_stop_string_cuts(void **state)
{
    struct span stop[2] = { span_text("all"), span_text("end") };
    struct request request = { .kind = REQUEST_COMPLETION, .stop = stop, .stop_count = 2 };
    struct ids ids = encode("the end of it all");
    struct answer answer;

    (void)state;
    answer_init(&answer, &request, tokenizer, NULL, 0, NULL);
    for (size_t i = 0; i < ids.count && answer_add(&answer, ids.id[i], false, NULL); i++)
        ;
    CHECK(answer.end == ANSWER_STOP && span_equal(buf_span(&answer.text), span_text("the ")));
    answer_fini(&answer);
    ids_fini(&ids);
}

/* A character may be cut by the end of the answer; the text must still be UTF-8. */
static void test_half_a_character_at_the_end_is_replaced(void **state)
{
    struct request request = { .kind = REQUEST_CHAT };
    struct ids ids = encode("\xf0\x9f\xa6\x99"); /* a llama: several tokens in this small vocabulary */
    struct answer answer;
    json_t *body;

    (void)state;
    CHECK(ids.count > 1);
    answer_init(&answer, &request, tokenizer, NULL, 0, NULL);
    CHECK(answer_add(&answer, ids.id[0], false, NULL));
    CHECK(answer.text.size == 0);
    answer_end(&answer, ANSWER_LENGTH);
    CHECK(span_equal(buf_span(&answer.text), span_text("\xef\xbf\xbd")));
    body = body_of(&answer);
    CHECK(!strcmp(json_string_value(at(at(at(at(body, "choices"), "0"), "message"), "content")),
                  "\xef\xbf\xbd"));
    CHECK(!strcmp(json_string_value(at(at(at(body, "choices"), "0"), "finish_reason")), "length"));
    json_decref(body);
    answer_fini(&answer);
    ids_fini(&ids);
}

static void test_a_chat_answer_has_the_shape_of_openai(void **state)
{
    struct request request = {
        .kind = REQUEST_CHAT, .model = span_text("any name"), .logprobs = true, .top_logprobs = 2
    };
    struct answer_score score = { .logprob = -0.5f, .known = true, .top_count = 2 };
    struct ids ids = encode("a");
    int32_t prompt[3] = { 1, 2, 3 };
    struct answer answer;
    struct buf first = { 0 }, second = { 0 };
    struct err err;
    json_t *body, *choice, *token;

    (void)state;
    score.top[0] = (struct answer_top){ ids.id[0], -0.5f };
    score.top[1] = (struct answer_top){ tokenizer_eos(tokenizer), -1.5f };
    answer_init(&answer, &request, tokenizer, prompt, 3, NULL);
    CHECK(answer_add(&answer, ids.id[0], false, &score));
    CHECK(!answer_add(&answer, tokenizer_eos(tokenizer), true, &score));
    body = body_of(&answer);
    choice = at(at(body, "choices"), "0");
    CHECK(!strcmp(json_string_value(at(body, "object")), "chat.completion"));
    CHECK(!strcmp(json_string_value(at(body, "model")), "any name"));
    CHECK(!strcmp(json_string_value(at(choice, "finish_reason")), "stop"));
    CHECK(!strcmp(json_string_value(at(at(choice, "message"), "content")), "a"));
    CHECK(json_array_size(at(choice, "token_ids")) == 2);
    token = at(at(at(choice, "logprobs"), "content"), "0");
    CHECK(json_real_value(at(token, "logprob")) == -0.5 &&
          json_integer_value(at(at(token, "bytes"), "0")) == 'a');
    CHECK(json_array_size(at(token, "top_logprobs")) == 2);
    CHECK(json_integer_value(at(at(body, "usage"), "prompt_tokens")) == 3);
    CHECK(json_integer_value(at(at(body, "usage"), "total_tokens")) == 5);
    json_decref(body);

    /* Promise 3 is about bytes, so the order of keys counts. */
    CHECK(answer_body(&(const struct answer *){ &answer }, 1, 1 << 20, &first, &err) && answer_body(&(const struct answer *){ &answer }, 1, 1 << 20, &second, &err));
    CHECK(span_equal(buf_span(&first), buf_span(&second)));
    first.size = 0;
    CHECK(!answer_body(&(const struct answer *){ &answer }, 1, 100, &first, &err) && err.code == ERR_LIMIT);
    buf_fini(&first);
    buf_fini(&second);
    answer_fini(&answer);
    ids_fini(&ids);
}

/* Scoring a prompt: its tokens stand in front, and nothing predicts the first one. */
static void test_echo_scores_the_prompt(void **state)
{
    struct ids prompt = { 0 };
    struct request request = { .kind = REQUEST_COMPLETION,
                               .echo = true,
                               .logprobs = true,
                               .max_tokens = 0,
                               .prompt = span_text("to be or") };
    struct answer answer;
    struct err err;
    json_t *body, *logprobs;

    (void)state;
    CHECK(tokenizer_encode_prompt(tokenizer, request.prompt, &prompt, &err));
    CHECK(prompt.count > 2 && prompt.id[0] == tokenizer_bos(tokenizer));
    answer_init(&answer, &request, tokenizer, prompt.id, prompt.count, NULL);
    for (size_t i = 1; i < prompt.count; i++)
        answer.prompt_score[i] = (struct answer_score){ .logprob = -(float)i, .known = true };
    answer_end(&answer, ANSWER_LENGTH);
    body = body_of(&answer);
    logprobs = at(at(at(body, "choices"), "0"), "logprobs");
    CHECK(!strcmp(json_string_value(at(at(at(body, "choices"), "0"), "text")), "to be or"));
    CHECK(json_array_size(at(logprobs, "tokens")) == prompt.count);
    CHECK(json_is_null(at(at(logprobs, "token_logprobs"), "0")) &&
          json_is_null(at(at(logprobs, "top_logprobs"), "0")));
    CHECK(json_real_value(at(at(logprobs, "token_logprobs"), "1")) == -1.0);
    CHECK(json_object_size(at(at(logprobs, "top_logprobs"), "1")) == 1);
    CHECK(json_integer_value(at(at(logprobs, "text_offset"), "0")) == 0);
    /* Offsets are into the text, of which the beginning-of-text id in front is no part. */
    CHECK(json_integer_value(at(at(logprobs, "text_offset"), "1")) == 0);
    CHECK(json_integer_value(at(at(logprobs, "text_offset"), "2")) ==
          (json_int_t)tokenizer_bytes(tokenizer, prompt.id[1]).size);
    CHECK(json_array_size(at(at(at(body, "choices"), "0"), "token_ids")) == 0);
    json_decref(body);
    answer_fini(&answer);
    ids_fini(&prompt);
}

/* Rows beyond the tokenizer count in the distribution, so they can be among the likeliest.  They have no
 * text, and a completion's top_logprobs is keyed by text: as one key, the likeliest of all would be lost. */
static void test_rows_without_text_are_named_by_their_id(void **state)
{
    struct ids prompt = encode("to be");
    struct request request = { .kind = REQUEST_COMPLETION,
                               .echo = true,
                               .logprobs = true,
                               .top_logprobs = 3,
                               .max_tokens = 0,
                               .prompt = span_text("to be") };
    int32_t beyond = tokenizer_size(tokenizer);
    struct answer answer;
    json_t *body, *top;

    (void)state;
    CHECK(prompt.count >= 2);
    answer_init(&answer, &request, tokenizer, prompt.id, prompt.count, NULL);
    for (size_t i = 1; i < prompt.count; i++)
        answer.prompt_score[i] =
            (struct answer_score){ .logprob = -3,
                                   .known = true,
                                   .top_count = 3,
                                   .top = { { beyond, -1 }, { beyond + 7, -1.5f }, { prompt.id[0], -2 } } };
    answer_end(&answer, ANSWER_LENGTH);
    body = body_of(&answer);
    top = at(at(at(at(at(body, "choices"), "0"), "logprobs"), "top_logprobs"), "1");
    CHECK(json_object_size(top) == 4);
    CHECK(json_real_value(json_object_iter_value(json_object_iter(top))) == -1.0); /* best first */
    json_decref(body);
    answer_fini(&answer);
    ids_fini(&prompt);
}

/* Several answers to one prompt: each has its place, the prompt is counted and scored once. */
static void test_choices_stand_in_their_order(void **state)
{
    struct ids prompt = encode("one two"), said = encode("three");
    struct request request = { .kind = REQUEST_COMPLETION, .prompt = span_text("one two"), .echo = true, .logprobs = true };
    struct answer answer[3];
    const struct answer *choice[3] = { &answer[0], &answer[1], &answer[2] };
    struct answer_score score = { .known = true, .logprob = -1 };
    struct buf out = { 0 };
    struct err err;
    json_t *body;

    (void)state;
    for (int i = 0; i < 3; i++)
        answer_init(&answer[i], &request, tokenizer, prompt.id, prompt.count, i ? &answer[0] : NULL);
    answer[0].prompt_score[1] = (struct answer_score){ .known = true, .logprob = -0.5f };
    for (int i = 0; i < 3; i++)
        for (size_t k = 0; k < said.count && (int)k < i; k++)
            CHECK(answer_add(&answer[i], said.id[k], false, &score));
    answer_end(&answer[0], ANSWER_LENGTH);
    answer_end(&answer[1], ANSWER_REPETITION);
    answer_end(&answer[2], ANSWER_STOP);
    CHECK(answer_body(choice, 3, 1 << 20, &out, &err));
    body = json_loadb((char *)out.data, out.size, 0, NULL);
    CHECK(body && json_array_size(at(body, "choices")) == 3);
    for (int i = 0; i < 3; i++) {
        static const char *const reasons[] = { "length", "repetition", "stop" };
        json_t *one = json_array_get(at(body, "choices"), (size_t)i);

        CHECK(json_integer_value(at(one, "index")) == i);
        assert_string_equal(json_string_value(at(one, "finish_reason")), reasons[i]);
        CHECK(json_number_value(at(at(at(one, "logprobs"), "token_logprobs"), "1")) == -0.5);
        CHECK((int)json_array_size(at(one, "token_ids")) == (i < (int)said.count ? i : (int)said.count));
    }
    CHECK(json_integer_value(at(at(body, "usage"), "prompt_tokens")) == (json_int_t)prompt.count);
    CHECK(json_integer_value(at(at(body, "usage"), "completion_tokens")) ==
          (json_int_t)(answer[1].generated.count + answer[2].generated.count));
    json_decref(body);
    /* At every bound it is refused or whole. */
    for (size_t max = 1; max <= 4096; max += 7) {
        struct buf small = { 0 };

        if (answer_body(choice, 3, max, &small, &err))
            CHECK(span_equal(buf_span(&small), buf_span(&out)));
        else
            CHECK(err.code == ERR_LIMIT && max < out.size && small.size <= max);
        buf_fini(&small);
    }
    for (int i = 2; i >= 0; i--)
        answer_fini(&answer[i]);
    buf_fini(&out);
    ids_fini(&prompt);
    ids_fini(&said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choices_stand_in_their_order),
        cmocka_unit_test(test_a_stop_string_is_found_however_tokens_cut_it),
        cmocka_unit_test(test_the_earliest_stop_string_cuts),
        cmocka_unit_test(test_half_a_character_at_the_end_is_replaced),
        cmocka_unit_test(test_a_chat_answer_has_the_shape_of_openai),
        cmocka_unit_test(test_echo_scores_the_prompt),
        cmocka_unit_test(test_rows_without_text_are_named_by_their_id),
    };

    return cmocka_run_group_tests(tests, load, unload);
}
