#include "worker/sequence.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

enum { ARENA_MAX = 256 * 1024 * 1024 };

static bool fill_chat(struct sequence *s, const struct sequence_world *world, struct request_fault *fault)
{
    struct chat_message *message;
    struct err err;

    if (!world->chat)
        return request_fault_set(fault, 400, "no_chat_template", "messages", "%s", world->chat_why);
    message = arena_take(&s->arena, (s->request.message_count + 1) * sizeof *message);
    if (!message)
        return request_fault_set(fault, 413, "too_large", "messages", "%zu messages do not fit into memory",
                                 s->request.message_count);
    for (size_t i = 0; i < s->request.message_count; i++) {
        static const enum chat_role roles[] = {
            [REQUEST_SYSTEM] = CHAT_SYSTEM, [REQUEST_USER] = CHAT_USER, [REQUEST_ASSISTANT] = CHAT_ASSISTANT
        };

        message[i] = (struct chat_message){ .role = roles[s->request.message[i].role],
                                            .content = s->request.message[i].content };
    }
    if (!chat_render(world->chat, message, s->request.message_count, &s->prompt, &err))
        return request_fault_set(fault, 400, "invalid_value", "messages", "%s", err.text);
    return true;
}

static bool fill_completion(struct sequence *s, const struct sequence_world *world,
                            struct request_fault *fault)
{
    struct err err;

    if (!s->request.prompt_id) {
        if (!tokenizer_encode_prompt(world->tokenizer, s->request.prompt, &s->prompt, &err))
            return request_fault_set(fault, 400, "invalid_value", "prompt", "%s", err.text);
        return true;
    }
    for (size_t i = 0; i < s->request.prompt_id_count; i++) {
        if (s->request.prompt_id[i] >= world->vocab) {
            char param[64];

            snprintf(param, sizeof param, "prompt[%zu]", i);
            return request_fault_set(fault, 400, "invalid_value", param,
                                     "token id %d is out of range; expected 0 to %d",
                                     (int)s->request.prompt_id[i], (int)world->vocab - 1);
        }
        if (!ids_add(&s->prompt, s->request.prompt_id[i]))
            return request_fault_set(fault, 413, "too_large", "prompt",
                                     "the prompt does not fit into memory");
    }
    return true;
}

/* A tokenizer may know more ids than the model has rows; text that needs such an id cannot be asked. */
static bool check_ids(struct sequence *s, const struct sequence_world *world, struct request_fault *fault)
{
    for (size_t i = 0; i < s->prompt.count; i++)
        if (s->prompt.id[i] >= world->vocab)
            return request_fault_set(
                fault, 400, "invalid_value", s->request.kind == REQUEST_CHAT ? "messages" : "prompt",
                "the tokenizer makes id %d of a part of the text; the model has ids 0 to %d",
                (int)s->prompt.id[i], (int)world->vocab - 1);
    return true;
}

static bool check_length(struct sequence *s, const struct sequence_world *world, struct request_fault *fault)
{
    const char *param = s->request.kind == REQUEST_CHAT ? "messages" : "prompt";
    int64_t prompt = (int64_t)s->prompt.count, wanted = s->request.max_tokens;

    if (prompt == 0)
        return request_fault_set(fault, 400, "invalid_value", param,
                                 "the prompt has no tokens; expected at least one");
    if (wanted < 0) {
        if (prompt >= world->context)
            return request_fault_set(
                fault, 400, "context_length_exceeded", param,
                "the prompt has %lld tokens and the model's context is %d; expected at most %d",
                (long long)prompt, (int)world->context, (int)world->context - 1);
        wanted = world->context - prompt;
    }
    if (prompt + wanted > world->context)
        return request_fault_set(
            fault, 400, "context_length_exceeded", param,
            "the prompt has %lld tokens and max_tokens is %lld, together %lld; the model's context is %d",
            (long long)prompt, (long long)wanted, (long long)(prompt + wanted), (int)world->context);
    s->new_max = (int32_t)wanted;
    return true;
}

bool sequence_new(struct sequence **out, const struct sequence_world *world, struct seat_lease *lease,
                  struct request_fault *fault)
{
    struct sequence *s = calloc(1, sizeof *s);
    bool done;

    *out = NULL;
    if (!s)
        abort();
    arena_init(&s->arena, ARENA_MAX);
    done =
        request_read_body(&s->arena, span_text(lease->endpoint), span_text(lease->custom_id),
                          span_of(lease->body, lease->body_size), &s->request, fault) &&
        (s->request.kind == REQUEST_CHAT ? fill_chat(s, world, fault) : fill_completion(s, world, fault)) &&
        check_ids(s, world, fault) && check_length(s, world, fault);
    if (!done) {
        sequence_free(s);
        return false;
    }
    s->lease = lease;
    s->sampling = (struct sample_params){ .temperature = (float)s->request.temperature,
                                          .top_p = (float)s->request.top_p,
                                          .top_k = s->request.top_k,
                                          .seed = lease->seed };
    answer_init(&s->answer, &s->request, world->tokenizer, s->prompt.id, s->prompt.count);
    *out = s;
    return true;
}

void sequence_free(struct sequence *s)
{
    if (!s)
        return;
    if (s->cache.pool)
        cache_sequence_fini(&s->cache);
    if (s->lease)
        answer_fini(&s->answer);
    ids_fini(&s->prompt);
    arena_fini(&s->arena);
    seat_lease_free(s->lease);
    free(s);
}

int32_t sequence_total(const struct sequence *s)
{
    return (int32_t)(s->prompt.count + s->answer.generated.count);
}

int32_t sequence_token(const struct sequence *s, int32_t position)
{
    size_t at = (size_t)position;

    return at < s->prompt.count ? s->prompt.id[at] : s->answer.generated.id[at - s->prompt.count];
}

bool sequence_wants(const struct sequence *s, int32_t position)
{
    size_t next = (size_t)position + 1;

    if (position + 1 == sequence_total(s))
        return s->new_max > 0;
    /* The position before scores each token of the prompt; once is enough, also after a preemption. */
    return next < s->prompt.count && s->answer.prompt_score && !s->answer.prompt_score[next].known;
}
