#include "worker/answer.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/log.h"

/* What OpenAI writes where a log-prob is minus infinity, which JSON cannot. */
#define LOGPROB_FLOOR (-9999.0)

static void *must(void *memory)
{
    if (!memory) {
        log_error("answer.memory", "reason=\"out of memory\"");
        abort();
    }
    return memory;
}

static void must_do(bool done)
{
    if (!done) {
        log_error("answer.memory", "reason=\"out of memory\"");
        abort();
    }
}

void answer_init(struct answer *answer, const struct request *request, const struct tokenizer *tokenizer,
                 const int32_t *prompt, size_t prompt_count, const struct answer *first)
{
    memset(answer, 0, sizeof *answer);
    answer->request = request;
    answer->tokenizer = tokenizer;
    answer->prompt = prompt;
    answer->prompt_count = prompt_count;
    detokenizer_init(&answer->detokenizer, tokenizer, false);
    answer->borrowed = first != NULL;
    if (first)
        answer->prompt_score = first->prompt_score;
    else if (request->echo && request->logprobs)
        answer->prompt_score = must(calloc(prompt_count + 1, sizeof *answer->prompt_score));
}

void answer_fini(struct answer *answer)
{
    ids_fini(&answer->generated);
    if (!answer->borrowed)
        free(answer->prompt_score);
    free(answer->score);
    buf_fini(&answer->text);
}

/* Cuts the text before the first stop string in it, of which at most the last part is new. */
static bool find_stop(struct answer *answer, size_t size_before)
{
    const struct request *request = answer->request;
    size_t first = SIZE_MAX;

    for (size_t i = 0; i < request->stop_count; i++) {
        struct span stop = request->stop[i];
        size_t from = size_before >= stop.size ? size_before - stop.size + 1 : 0;
        const uint8_t *at;

        if (answer->text.size < from + stop.size)
            continue;
        at = memmem(answer->text.data + from, answer->text.size - from, stop.data, stop.size);
        if (at && (size_t)(at - answer->text.data) < first)
            first = (size_t)(at - answer->text.data);
    }
    if (first == SIZE_MAX)
        return false;
    answer->text.size = first;
    return true;
}

bool answer_add(struct answer *answer, int32_t id, bool last, const struct answer_score *score)
{
    size_t size_before = answer->text.size;

    assert(answer->end == ANSWER_OPEN);
    must_do(ids_add(&answer->generated, id));
    if (answer->request->logprobs) {
        if (answer->generated.count > answer->score_capacity) {
            answer->score_capacity = answer->score_capacity ? 2 * answer->score_capacity : 64;
            answer->score = must(realloc(answer->score, answer->score_capacity * sizeof *answer->score));
        }
        answer->score[answer->generated.count - 1] = *score;
    }
    if (last) {
        must_do(detokenizer_end(&answer->detokenizer, &answer->text));
        find_stop(answer, size_before);
        answer->end = ANSWER_STOP;
        return false;
    }
    must_do(detokenizer_add(&answer->detokenizer, id, &answer->text));
    if (find_stop(answer, size_before)) {
        answer->end = ANSWER_STOP;
        return false;
    }
    return true;
}

void answer_end(struct answer *answer, enum answer_end end)
{
    size_t size_before = answer->text.size;

    if (answer->end != ANSWER_OPEN)
        return;
    must_do(detokenizer_end(&answer->detokenizer, &answer->text));
    answer->end = find_stop(answer, size_before) ? ANSWER_STOP : end;
}

/* ---- the body ----------------------------------------------------------------------------------- */

static json_t *text_json(struct span text)
{
    return must(json_stringn(text.size ? (const char *)text.data : "", text.size));
}

static void put(json_t *object, const char *key, json_t *value)
{
    must_do(json_object_set_new_nocheck(object, key, must(value)) == 0);
}

static void put_text(json_t *object, struct span key, json_t *value)
{
    must_do(json_object_setn_new(object, key.size ? (const char *)key.data : "", key.size, must(value)) == 0);
}

static void append(json_t *array, json_t *value)
{
    must_do(json_array_append_new(array, must(value)) == 0);
}

static json_t *logprob_json(float logprob)
{
    return must(
        json_real(isfinite(logprob) && logprob > (float)LOGPROB_FLOOR ? (double)logprob : LOGPROB_FLOOR));
}

/* A token as text: itself, or where it is only a part of a character, "bytes:\xe2\x80" as OpenAI has it.  A
 * row beyond the tokenizer has no text; it is named by its id, so that two of them among the likeliest are
 * two keys. */
static void token_text(const struct answer *answer, int32_t id, struct buf *out)
{
    struct span bytes = tokenizer_bytes(answer->tokenizer, id);

    out->size = 0;
    if (bytes.size == 0) {
        must_do(buf_format(out, "token_id:%d", (int)id));
        return;
    }
    if (span_is_utf8(bytes)) {
        must_do(buf_add(out, bytes.data, bytes.size));
        return;
    }
    must_do(buf_text(out, "bytes:"));
    for (size_t i = 0; i < bytes.size; i++)
        must_do(buf_format(out, "\\x%02x", bytes.data[i]));
}

static json_t *token_json(const struct answer *answer, int32_t id, struct buf *scratch)
{
    token_text(answer, id, scratch);
    return text_json(buf_span(scratch));
}

static json_t *bytes_json(const struct answer *answer, int32_t id)
{
    struct span bytes = tokenizer_bytes(answer->tokenizer, id);
    json_t *array = must(json_array());

    for (size_t i = 0; i < bytes.size; i++)
        append(array, json_integer(bytes.data[i]));
    return array;
}

static json_t *chat_token_json(const struct answer *answer, int32_t id, float logprob, struct buf *scratch)
{
    json_t *token = must(json_object());

    put(token, "token", token_json(answer, id, scratch));
    put(token, "logprob", logprob_json(logprob));
    put(token, "bytes", bytes_json(answer, id));
    return token;
}

static json_t *chat_logprobs(const struct answer *answer, struct buf *scratch)
{
    json_t *logprobs = must(json_object()), *content = must(json_array());

    for (size_t i = 0; i < answer->generated.count; i++) {
        const struct answer_score *score = &answer->score[i];
        json_t *token = chat_token_json(answer, answer->generated.id[i], score->logprob, scratch);
        json_t *top = must(json_array());

        for (int k = 0; k < score->top_count; k++)
            append(top, chat_token_json(answer, score->top[k].id, score->top[k].logprob, scratch));
        put(token, "top_logprobs", top);
        append(content, token);
    }
    put(logprobs, "content", content);
    return logprobs;
}

static size_t count_characters(const struct buf *text, size_t from)
{
    size_t count = 0;

    for (size_t i = from; i < text->size; i++)
        count += (text->data[i] & 0xc0) != 0x80;
    return count;
}

struct completion_logprobs {
    json_t *tokens, *token_logprobs, *top_logprobs, *text_offset;
    struct detokenizer detokenizer;
    struct buf text; /* of the tokens so far, not cut by stop strings */
    size_t characters;
};

/* in_text: false for what stands before a prompt's text without being part of it. */
static void add_completion_token(const struct answer *answer, struct completion_logprobs *to, int32_t id,
                                 bool in_text, const struct answer_score *score, struct buf *scratch)
{
    size_t size_before = to->text.size;

    append(to->tokens, token_json(answer, id, scratch));
    append(to->text_offset, json_integer((json_int_t)to->characters));
    if (in_text)
        must_do(detokenizer_add(&to->detokenizer, id, &to->text));
    to->characters += count_characters(&to->text, size_before);
    if (!score->known) {
        append(to->token_logprobs, json_null());
        append(to->top_logprobs, json_null());
        return;
    }
    append(to->token_logprobs, logprob_json(score->logprob));
    {
        json_t *top = must(json_object());

        for (int k = 0; k < score->top_count; k++) {
            token_text(answer, score->top[k].id, scratch);
            if (json_object_getn(top, (const char *)scratch->data, scratch->size))
                continue; /* two tokens can read the same: the better one stays */
            put_text(top, buf_span(scratch), logprob_json(score->top[k].logprob));
        }
        /* The chosen one is always among them. */
        token_text(answer, id, scratch);
        put_text(top, buf_span(scratch), logprob_json(score->logprob));
        append(to->top_logprobs, top);
    }
}

static json_t *completion_logprobs(const struct answer *answer, struct buf *scratch)
{
    json_t *logprobs = must(json_object());
    struct completion_logprobs to = { .tokens = must(json_array()),
                                      .token_logprobs = must(json_array()),
                                      .top_logprobs = must(json_array()),
                                      .text_offset = must(json_array()) };

    if (answer->request->echo) {
        size_t before = answer->request->prompt_id ? 0 : (size_t)tokenizer_prefix_count(answer->tokenizer),
               size;

        detokenizer_init(&to.detokenizer, answer->tokenizer, true);
        for (size_t i = 0; i < answer->prompt_count; i++)
            add_completion_token(answer, &to, answer->prompt[i], i >= before, &answer->prompt_score[i],
                                 scratch);
        size = to.text.size;
        must_do(detokenizer_end(&to.detokenizer, &to.text));
        to.characters += count_characters(&to.text, size);
    }
    detokenizer_init(&to.detokenizer, answer->tokenizer, false);
    for (size_t i = 0; i < answer->generated.count; i++)
        add_completion_token(answer, &to, answer->generated.id[i], true, &answer->score[i], scratch);
    put(logprobs, "tokens", to.tokens);
    put(logprobs, "token_logprobs", to.token_logprobs);
    put(logprobs, "top_logprobs", to.top_logprobs);
    put(logprobs, "text_offset", to.text_offset);
    buf_fini(&to.text);
    return logprobs;
}

/* A completion's text: with echo the prompt stands in front, as it was given or as its ids read. */
static json_t *completion_text(const struct answer *answer)
{
    struct buf text = { 0 };
    json_t *json;

    if (answer->request->echo) {
        if (answer->request->prompt_id) {
            struct detokenizer detokenizer;

            detokenizer_init(&detokenizer, answer->tokenizer, true);
            for (size_t i = 0; i < answer->prompt_count; i++)
                must_do(detokenizer_add(&detokenizer, answer->prompt[i], &text));
            must_do(detokenizer_end(&detokenizer, &text));
        } else {
            must_do(buf_add(&text, answer->request->prompt.data, answer->request->prompt.size));
        }
    }
    must_do(buf_add(&text, answer->text.data, answer->text.size));
    json = text_json(buf_span(&text));
    buf_fini(&text);
    return json;
}

static json_t *choice_json(const struct answer *answer, int index, struct buf *scratch)
{
    static const char *const reasons[] = {
        [ANSWER_STOP] = "stop", [ANSWER_LENGTH] = "length", [ANSWER_REPETITION] = "repetition"
    };
    bool chat = answer->request->kind == REQUEST_CHAT;
    json_t *choice = must(json_object()), *ids = must(json_array());

    put(choice, "index", json_integer(index));
    if (chat) {
        json_t *message = must(json_object());

        put(message, "role", json_string("assistant"));
        put(message, "content", text_json(buf_span(&answer->text)));
        put(choice, "message", message);
    } else {
        put(choice, "text", completion_text(answer));
    }
    if (!answer->request->logprobs)
        put(choice, "logprobs", json_null());
    else
        put(choice, "logprobs", chat ? chat_logprobs(answer, scratch) : completion_logprobs(answer, scratch));
    put(choice, "finish_reason", json_string(reasons[answer->end]));
    for (size_t i = 0; i < answer->generated.count; i++)
        append(ids, json_integer(answer->generated.id[i]));
    put(choice, "token_ids", ids);
    return choice;
}

/* Frees value.  False at the buffer's bound. */
static bool write_json(struct buf *out, json_t *value)
{
    bool done = buf_json(out, value, JSON_REAL_PRECISION(9));

    json_decref(value);
    return done;
}

/* Written choice by choice: as one tree, 64 choices with log-probs would be gigabytes before the bound is
 * met. */
bool answer_body(const struct answer *const *choice, int count, size_t size_max, struct buf *out,
                 struct err *err)
{
    const struct answer *first = choice[0];
    json_t *usage = must(json_object());
    struct buf scratch = { 0 };
    size_t generated = 0;
    bool done;

    out->max = size_max;
    done = buf_format(out, "{\"object\":\"%s\",\"model\":",
                      first->request->kind == REQUEST_CHAT ? "chat.completion" : "text_completion") &&
           write_json(out, text_json(first->request->model)) && buf_text(out, ",\"choices\":[");
    for (int i = 0; i < count; i++) {
        assert(choice[i]->end != ANSWER_OPEN);
        done = done && (i == 0 || buf_text(out, ",")) && write_json(out, choice_json(choice[i], i, &scratch));
        generated += choice[i]->generated.count;
    }
    put(usage, "prompt_tokens", json_integer((json_int_t)first->prompt_count));
    put(usage, "completion_tokens", json_integer((json_int_t)generated));
    put(usage, "total_tokens", json_integer((json_int_t)(first->prompt_count + generated)));
    done = done && buf_text(out, "],\"usage\":");
    done = write_json(out, usage) && done && buf_text(out, "}");
    buf_fini(&scratch);
    if (!done)
        return err_set(err, ERR_LIMIT, "the answer is larger than %zu bytes; ask for fewer log-probs%s",
                       size_max, count > 1 ? " or choices" : "");
    return true;
}
