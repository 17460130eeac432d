#include "worker/sequence.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

enum { ARENA_MAX = 256 * 1024 * 1024 };

static void *must(void *memory)
{
    if (!memory) {
        log_error("sequence.memory", "reason=\"out of memory\"");
        abort();
    }
    return memory;
}

static void must_do(bool done)
{
    if (!done)
        must(NULL);
}

/* ---- a job: what a lease asks for -------------------------------------------------------------------- */

static const char *prompt_field(const struct job *job)
{
    return job->request.kind == REQUEST_CHAT ? "messages" : "prompt";
}

static bool fill_chat(struct job *job, const struct sequence_world *world, struct request_fault *fault)
{
    struct chat_message *message;
    struct err err;

    if (!world->chat)
        return request_fault_set(fault, 400, "no_chat_template", "messages", "%s", world->chat_why);
    message = arena_take(&job->arena, (job->request.message_count + 1) * sizeof *message);
    if (!message)
        return request_fault_set(fault, 413, "too_large", "messages", "%zu messages do not fit into memory",
                                 job->request.message_count);
    for (size_t i = 0; i < job->request.message_count; i++) {
        static const enum chat_role roles[] = {
            [REQUEST_SYSTEM] = CHAT_SYSTEM, [REQUEST_USER] = CHAT_USER, [REQUEST_ASSISTANT] = CHAT_ASSISTANT
        };

        message[i] = (struct chat_message){ .role = roles[job->request.message[i].role],
                                            .content = job->request.message[i].content };
    }
    if (!chat_render(world->chat, message, job->request.message_count, &job->prompt, &err))
        return request_fault_set(fault, 400, "invalid_value", "messages", "%s", err.text);
    return true;
}

static bool fill_completion(struct job *job, const struct sequence_world *world, struct request_fault *fault)
{
    struct err err;

    if (!job->request.prompt_id) {
        if (!tokenizer_encode_prompt(world->tokenizer, job->request.prompt, &job->prompt, &err))
            return request_fault_set(fault, 400, "invalid_value", "prompt", "%s", err.text);
        return true;
    }
    for (size_t i = 0; i < job->request.prompt_id_count; i++) {
        if (job->request.prompt_id[i] >= world->vocab) {
            char param[64];

            snprintf(param, sizeof param, "prompt[%zu]", i);
            return request_fault_set(fault, 400, "invalid_value", param,
                                     "token id %d is out of range; expected 0 to %d",
                                     (int)job->request.prompt_id[i], (int)world->vocab - 1);
        }
        if (!ids_add(&job->prompt, job->request.prompt_id[i]))
            return request_fault_set(fault, 413, "too_large", "prompt",
                                     "the prompt does not fit into memory");
    }
    return true;
}

/* A tokenizer may know more ids than the model has rows; text that needs such an id cannot be asked. */
static bool check_ids(struct job *job, const struct sequence_world *world, struct request_fault *fault)
{
    for (size_t i = 0; i < job->prompt.count; i++)
        if (job->prompt.id[i] >= world->vocab)
            return request_fault_set(
                fault, 400, "invalid_value", prompt_field(job),
                "the tokenizer makes id %d of a part of the text; the model has ids 0 to %d",
                (int)job->prompt.id[i], (int)world->vocab - 1);
    return true;
}

/* Text that cannot fit is refused before it is tokenized, which takes a while for 16 MB. */
static bool check_text(struct job *job, const struct sequence_world *world, struct request_fault *fault)
{
    size_t size = job->request.prompt_id ? 0 : job->request.prompt.size;

    for (size_t i = 0; i < job->request.message_count; i++)
        size += job->request.message[i].content.size;
    if (world->text_bytes_max && size > world->text_bytes_max)
        return request_fault_set(
            fault, 400, "context_length_exceeded", prompt_field(job),
            "the prompt has %zu bytes of text; the model's context of %d tokens holds at most %zu", size,
            (int)world->context, world->text_bytes_max);
    return true;
}

static bool check_bias(struct job *job, const struct sequence_world *world, struct request_fault *fault)
{
    const struct request *q = &job->request;
    char param[64];

    for (size_t i = 0; i < q->stop_id_count; i++)
        if (q->stop_id[i] >= world->vocab) {
            snprintf(param, sizeof param, "stop_token_ids[%zu]", i);
            return request_fault_set(fault, 400, "invalid_value", param,
                                     "token id %d is out of range; expected 0 to %d", (int)q->stop_id[i],
                                     (int)world->vocab - 1);
        }
    for (size_t i = 0; i < q->bias_count; i++)
        if (q->bias[i].id >= world->vocab) {
            snprintf(param, sizeof param, "logit_bias.%d", (int)q->bias[i].id);
            return request_fault_set(fault, 400, "invalid_value", param,
                                     "token id %d is out of range; expected 0 to %d", (int)q->bias[i].id,
                                     (int)world->vocab - 1);
        }
    job->bias = q->bias_count ? arena_take(&job->arena, q->bias_count * sizeof *job->bias) : NULL;
    if (q->bias_count && !job->bias)
        return request_fault_set(fault, 413, "too_large", "logit_bias", "it does not fit into memory");
    for (size_t i = 0; i < q->bias_count; i++)
        job->bias[i] = (struct sample_bias){ q->bias[i].id, q->bias[i].bias };
    return true;
}

static bool check_length(struct job *job, const struct sequence_world *world, int32_t *new_max,
                         struct request_fault *fault)
{
    const char *param = prompt_field(job);
    int64_t prompt = (int64_t)job->prompt.count, wanted = job->request.max_tokens;

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
    *new_max = (int32_t)wanted;
    return true;
}

/* A budget below the shortest text of that form could only give a text that is cut. */
static bool take_form(struct job *job, const struct sequence_world *world, int32_t new_max,
                      struct request_fault *fault)
{
    const struct request *q = &job->request;
    int32_t minimum;
    struct err err;

    if (q->form == REQUEST_FREE)
        return true;
    if (!forms_take(world->forms, &job->form, q->form, q->form_text, q->form_closed, &err))
        return err.code == ERR_REFUSED ? request_fault_set(fault, 503, "busy", q->form_field, "%s", err.text)
                                       : request_fault_set(fault, 400, "invalid_value", q->form_field,
                                                           "`%s`: %s", q->form_field, err.text);
    minimum = grammar_minimum(form_grammar(job->form));
    if (new_max >= minimum)
        return true;
    if (q->max_tokens < 0)
        return request_fault_set(
            fault, 400, "context_length_exceeded", prompt_field(job),
            "the prompt has %zu tokens and leaves %d of the context; the shortest text that `%s` "
            "allows has %d",
            job->prompt.count, (int)new_max, q->form_field, (int)minimum);
    return request_fault_set(
        fault, 400, "invalid_value", q->tokens_field ? q->tokens_field : "max_tokens",
        "`%s` is %d%s; the shortest text that `%s` allows has %d tokens; expected at least %d",
        q->tokens_field ? q->tokens_field : "max_tokens", (int)new_max,
        q->tokens_field ? "" : " where it is not given", q->form_field, (int)minimum, (int)minimum);
}

static void choice_init(struct job *job, int choice, int32_t new_max)
{
    const struct request *q = &job->request;
    struct sequence *s = &job->choice[choice];

    s->job = job;
    s->new_max = new_max;
    s->sampling = (struct sample_params){ .temperature = (float)q->temperature,
                                          .top_p = (float)q->top_p,
                                          .top_k = q->top_k,
                                          .seed = job->lease->seed,
                                          .choice = (uint32_t)choice,
                                          .min_p = (float)q->min_p };
    answer_init(&s->answer, q, job->tokenizer, job->prompt.id, job->prompt.count,
                choice ? &job->choice[0].answer : NULL);
    if (q->repetition_penalty != 1)
        for (size_t i = 0; i < job->prompt.count; i++)
            must_do(sample_history_add(&s->history, job->prompt.id[i], false));
    if (q->pattern_max)
        s->alike = must(calloc((size_t)q->pattern_max + 1, sizeof *s->alike));
    if (job->form)
        s->run = must(grammar_run_new(form_grammar(job->form)));
}

static void settle(struct sequence *s);

/* Room for n choices is made before the request is read: this many at once cost nothing. */
bool job_new(struct job **out, const struct sequence_world *world, struct seat_lease *lease,
             struct request_fault *fault)
{
    struct job *job = must(calloc(1, sizeof *job + REQUEST_CHOICES_MAX * sizeof *job->choice)), *fitting;
    int32_t new_max = 0;
    bool done;

    *out = NULL;
    arena_init(&job->arena, ARENA_MAX);
    job->tokenizer = world->tokenizer;
    job->forms = world->forms;
    done = request_read_body(&job->arena, span_text(lease->endpoint), span_text(lease->custom_id),
                             span_of(lease->body, lease->body_size), &job->request, fault) &&
           check_text(job, world, fault) && check_bias(job, world, fault) &&
           (job->request.kind == REQUEST_CHAT ? fill_chat(job, world, fault)
                                              : fill_completion(job, world, fault)) &&
           check_ids(job, world, fault) && check_length(job, world, &new_max, fault) &&
           take_form(job, world, new_max, fault);
    if (!done) {
        job_free(job);
        return false;
    }
    fitting = realloc(job, sizeof *job + (size_t)job->request.choices * sizeof *job->choice);
    job = fitting ? fitting : job;
    job->lease = lease;
    job->choice_count = job->open = job->request.choices;
    for (int i = 0; i < job->choice_count; i++)
        choice_init(job, i, new_max);
    for (int i = 0; i < job->choice_count && new_max > 0; i++)
        settle(&job->choice[i]);
    job->common = sequence_total(&job->choice[0]);
    *out = job;
    return true;
}

void job_free(struct job *job)
{
    if (!job)
        return;
    for (int i = 0; i < job->choice_count; i++) {
        struct sequence *s = &job->choice[i];

        if (s->cache.pool)
            cache_sequence_fini(&s->cache);
        grammar_run_free(s->run);
        ids_fini(&s->forced);
        sample_history_fini(&s->history);
        free(s->alike);
    }
    for (int i = job->choice_count - 1; i >= 0; i--) /* choice 0 owns the prompt's scores */
        answer_fini(&job->choice[i].answer);
    forms_give_back(job->forms, job->form);
    ids_fini(&job->prompt);
    arena_fini(&job->arena);
    seat_lease_free(job->lease);
    free(job);
}

static void close_choice(struct sequence *s)
{
    assert(!s->over);
    s->over = true;
    s->job->open--;
}

void job_fail(struct job *job, const char *code, const char *format, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!job->failed)
        request_fault_set(&job->fault, 500, code, NULL, "%s", text);
    job->failed = true;
    for (int i = 0; i < job->choice_count; i++)
        if (!job->choice[i].over)
            close_choice(&job->choice[i]);
}

void job_scored(struct job *job)
{
    for (int i = 0; i < job->choice_count; i++) {
        answer_end(&job->choice[i].answer, ANSWER_LENGTH);
        if (!job->choice[i].over)
            close_choice(&job->choice[i]);
    }
}

uint32_t job_generated(const struct job *job)
{
    size_t count = 0;

    for (int i = 0; i < job->choice_count; i++)
        count += job->choice[i].answer.generated.count;
    return (uint32_t)count;
}

uint32_t job_cached(const struct job *job)
{
    uint32_t count = 0;

    for (int i = 0; i < job->choice_count; i++)
        count += (uint32_t)job->choice[i].taken;
    return count;
}

bool job_body(const struct job *job, size_t size_max, struct buf *out, struct err *err)
{
    const struct answer *answer[REQUEST_CHOICES_MAX];

    for (int i = 0; i < job->choice_count; i++)
        answer[i] = &job->choice[i].answer;
    return answer_body(answer, job->choice_count, size_max, out, err);
}

/* ---- a sequence: one of its choices ------------------------------------------------------------------ */

int32_t sequence_total(const struct sequence *s)
{
    return (int32_t)(s->job->prompt.count + s->answer.generated.count);
}

int32_t sequence_token(const struct sequence *s, int32_t position)
{
    size_t at = (size_t)position, prompt = s->job->prompt.count;

    return at < prompt ? s->job->prompt.id[at] : s->answer.generated.id[at - prompt];
}

bool sequence_wants(const struct sequence *s, int32_t position)
{
    size_t next = (size_t)position + 1;

    if (position + 1 == sequence_total(s))
        return s->new_max > 0;
    /* The position before scores each token of the prompt; once is enough, also after a preemption. */
    return next < s->job->prompt.count && s->answer.prompt_score && !s->answer.prompt_score[next].known;
}

bool sequence_is_held(const struct sequence *s)
{
    return s != s->job->choice && !s->begun;
}

static bool is_last(const struct sequence *s, int32_t token)
{
    const struct request *q = &s->job->request;

    if (!q->ignore_eos && tokenizer_is_eos(s->job->tokenizer, token))
        return true;
    for (size_t i = 0; i < q->stop_id_count; i++)
        if (q->stop_id[i] == token)
            return true;
    return false;
}

/* alike[k] is how many of the last tokens in a row are what stood k before them.  The last c * k tokens are c
 * times the same k when (c - 1) * k of them are.  So each token costs pattern_max comparisons, however long
 * the repeats are. */
static bool repeats(struct sequence *s)
{
    const struct request *q = &s->job->request;
    const struct ids *ids = &s->answer.generated;
    bool found = false;

    for (size_t k = (size_t)q->pattern_min; k <= (size_t)q->pattern_max && k < ids->count; k++) {
        s->alike[k] = ids->id[ids->count - 1] == ids->id[ids->count - 1 - k] ? s->alike[k] + 1 : 0;
        found = found || s->alike[k] >= k * (size_t)(q->pattern_count - 1);
    }
    return found;
}

static void finish(struct sequence *s, enum answer_end end)
{
    answer_end(&s->answer, s->repeated ? ANSWER_REPETITION : end);
    close_choice(s);
}

/* One token more.  What that leads to is settled by the caller. */
static void push(struct sequence *s, int32_t token, const struct answer_score *score)
{
    const struct request *q = &s->job->request;
    bool last = is_last(s, token);

    if (!last && s->run && !grammar_advance(s->run, token)) {
        job_fail(s->job, "no_valid_token", "token %d does not continue what `%s` allows after %zu tokens",
                 (int)token, q->form_field, s->answer.generated.count);
        return;
    }
    if (!answer_add(&s->answer, token, last, score)) {
        if (s->repeated)
            s->answer.end = ANSWER_REPETITION;
        close_choice(s);
        return;
    }
    if (q->repetition_penalty != 1 || q->presence_penalty != 0 || q->frequency_penalty != 0)
        must_do(sample_history_add(&s->history, token, true));
    if (q->pattern_max && !s->repeated)
        s->repeated = repeats(s);
}

/* What follows by itself: the end, or tokens that are forced. */
static void settle(struct sequence *s)
{
    bool one_by_one = s->job->request.logprobs;
    struct err err;
    size_t count;

    while (!s->over) {
        int32_t spent = (int32_t)s->answer.generated.count;

        if (s->forced_done == s->forced.count) {
            s->forced.count = s->forced_done = 0;
            if (s->repeated && !s->run) {
                finish(s, ANSWER_REPETITION);
                return;
            }
            if (s->repeated && s->new_max - spent > grammar_run_minimum(s->run))
                s->new_max = spent + grammar_run_minimum(s->run);
            if (s->run && grammar_must_end(s->run)) {
                finish(s, ANSWER_STOP);
                return;
            }
        }
        if (spent >= s->new_max) {
            finish(s, s->run && grammar_may_end(s->run) ? ANSWER_STOP : ANSWER_LENGTH);
            return;
        }
        if (!s->run)
            return;
        if (s->forced_done == s->forced.count && !grammar_forced(s->run, &s->forced, &count, &err)) {
            job_fail(s->job, "no_valid_token", "%s", err.text);
            return;
        }
        if (one_by_one || s->forced_done == s->forced.count)
            return;
        push(s, s->forced.id[s->forced_done++], NULL);
    }
}

int32_t sequence_forced(const struct sequence *s)
{
    return s->forced_done < s->forced.count ? s->forced.id[s->forced_done] : -1;
}

bool sequence_shape(struct sequence *s, struct sample_shape *shape)
{
    const struct request *q = &s->job->request;

    *shape = (struct sample_shape){ .bias = s->job->bias, .bias_count = q->bias_count };
    if (q->repetition_penalty != 1 || q->presence_penalty != 0 || q->frequency_penalty != 0) {
        shape->history = &s->history;
        shape->repetition = (float)q->repetition_penalty;
        shape->frequency = (float)q->frequency_penalty;
        shape->presence = (float)q->presence_penalty;
    }
    if (!s->run)
        return true;
    shape->mask = grammar_mask(s->run, s->new_max - (int32_t)s->answer.generated.count);
    if (!shape->mask) {              /* a mask of nothing, which is not the same as no mask */
        if (grammar_may_end(s->run)) /* it could go on, but not to another end within the budget */
            finish(s, ANSWER_STOP);
        else
            job_fail(s->job, "no_valid_token", "no token may follow what `%s` allows after %zu tokens",
                     q->form_field, s->answer.generated.count);
        return false;
    }
    if (grammar_may_end(s->run) && !q->ignore_eos)
        shape->beside = tokenizer_eos_ids(s->job->tokenizer, &shape->beside_count);
    return true;
}

void sequence_add(struct sequence *s, int32_t token, const struct answer_score *score)
{
    s->begun = true;
    if (token < 0) {
        if (s->run)
            job_fail(s->job, "no_valid_token",
                     "no token that `%s` allows has a finite logit after %zu tokens",
                     s->job->request.form_field, s->answer.generated.count);
        else
            job_fail(s->job, "no_finite_logits",
                     "the model gave no finite logits for this prompt after %zu tokens",
                     s->answer.generated.count);
        return;
    }
    if (s->forced_done < s->forced.count) {
        assert(s->forced.id[s->forced_done] == token);
        s->forced_done++;
    }
    push(s, token, score);
    settle(s);
}
