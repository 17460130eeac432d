/* The step loop on the demo model, in one process: what is in a batch, how large a chunk is and how
 * often a sequence had to start over must not be seen in what comes out. */

#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/step.h"

/* Under sanitizers everything takes five to twenty times as long. */
#if defined(__SANITIZE_THREAD__)
enum { SEQUENCES = 4, TOKENS = 70, BUDGETS = 2, TIGHT = 4 };
#elif defined(__SANITIZE_ADDRESS__)
enum { SEQUENCES = 13, TOKENS = 45, BUDGETS = 3, TIGHT = 3 };
#else
enum { SEQUENCES = 13, TOKENS = 70, BUDGETS = 12, TIGHT = 4 };
#endif

static char directory[] = "/tmp/moothall-step-XXXXXX";
static struct link_context *context;
static struct model *model;
static struct tokenizer *tokenizer;
static struct exchange *exchange;
static struct sequence_world world;

static int load(void **state)
{
    struct model_options options = { .threads = 1 };
    struct exchange_config config = { .bytes_max = 1 << 24, .incarnation = 1, .name = "w0", .family = "cpu" };
    static uint8_t moe[CONFIG_LAYERS_MAX];
    static struct seat_map_worker self = { .name = "w0", .incarnation = 1 };
    struct seat_map map = { .epoch = 1, .worker_count = 1, .worker = &self };
    const struct model_config *c;
    struct err err;

    (void)state;
    if (!mkdtemp(directory) || !tokenizer_load(&tokenizer, SOURCE_DIR "/deploy/demo/model", &err) ||
        !model_open(&model, SOURCE_DIR "/deploy/demo/model", &options, &err) ||
        !model_seat_all(model, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    c = model_config(model);
    context = link_context_new();
    snprintf(config.endpoint, sizeof config.endpoint, "ipc://%s/x", directory);
    for (int i = 0; i < c->layers; i++)
        moe[i] = config_layer_is_moe(c, i);
    config.shape = (struct dispatch_shape){ .hidden = (uint32_t)c->hidden,
                                            .carrier_bytes = (uint32_t)model_carrier_bytes(model),
                                            .expert_count = (uint32_t)c->experts,
                                            .experts_per_shard = (uint32_t)c->experts_per_shard,
                                            .shard_count = (uint32_t)c->shards,
                                            .layer_count = (uint32_t)c->layers,
                                            .moe = moe };
    if (!exchange_new(&exchange, context, &config, &err))
        return -1;
    map.seat = calloc((size_t)c->shards, sizeof *map.seat);
    for (int i = 0; i < c->shards; i++)
        map.seat[map.seat_count++].shard = (uint32_t)i;
    exchange_map(exchange, &map);
    free(map.seat);
    world = (struct sequence_world){
        .tokenizer = tokenizer, .chat_why = "no template", .context = c->context, .vocab = c->vocab,
        .forms = forms_new(tokenizer, c->vocab, FORMS_BYTES_MAX), .text_bytes_max = tokenizer_token_bytes_max(tokenizer) * (size_t)c->context
    };
    return 0;
}

static int unload(void **state)
{
    char path[64];

    (void)state;
    forms_free(world.forms);
    exchange_free(exchange);
    link_context_free(context);
    model_free(model);
    tokenizer_free(tokenizer);
    snprintf(path, sizeof path, "%s/x", directory);
    unlink(path);
    rmdir(directory);
    return 0;
}

static struct seat_lease *lease_new(int i, const char *body)
{
    struct seat_lease *lease = calloc(1, sizeof *lease);

    lease->fence = (uint64_t)i + 1;
    lease->seed = (uint64_t)i * 31 + 5;
    snprintf(lease->job, sizeof lease->job, "%d", i);
    snprintf(lease->endpoint, sizeof lease->endpoint, "/v1/completions");
    lease->body = (uint8_t *)strdup(body);
    lease->body_size = strlen(body);
    return lease;
}

#define RECORD                                                                                                         \
    "{\"type\":\"object\",\"properties\":{\"zebra\":{\"type\":\"string\",\"maxLength\":30},\"a list\":{\"type\":\"array\","       \
    "\"items\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":999},\"maxItems\":4},\"urgency\":{\"enum\":[\"low\",\"high\"]}}," \
    "\"required\":[\"zebra\",\"a list\",\"urgency\"],\"additionalProperties\":false}"

static struct job *job_of(int i, const char *body)
{
    struct job *job;
    struct request_fault fault;

    if (!job_new(&job, &world, lease_new(i, body), &fault))
        fail_msg("%s: %s", body, fault.message);
    return job;
}

/* Greedy and drawn, scored and echoed, shaped in every way, one choice and several. */
static struct job *job_number(int i)
{
    static const char *const more[] = {
        ",\"logprobs\":2,\"echo\":true", "", ",\"n\":3", ",\"repetition_penalty\":1.3,\"n\":2", ",\"min_p\":0.1,\"logprobs\":1,\"n\":2,\"echo\":true",
        ",\"presence_penalty\":1,\"frequency_penalty\":0.5", ",\"logit_bias\":{\"13\":5,\"300\":-100},\"n\":5", ",\"stop_token_ids\":[5,7,300],\"ignore_eos\":true",
        ",\"n\":3,\"guided_json\":" RECORD, ",\"logprobs\":2,\"guided_json\":" RECORD, ",\"guided_regex\":\"[a-z ]{5,}\",\"presence_penalty\":1",
        ",\"guided_choice\":[\"one long text that leaves no choice at all\"],\"logprobs\":0,\"n\":2", ",\"response_format\":{\"type\":\"json_object\"},\"top_p\":0.9",
    };
    char body[4096], prompt[2048] = "";

    for (int k = 0; k < 1 + i * 7 % 9; k++)
        sprintf(prompt + strlen(prompt), "line %d of %d; ", k, i);
    snprintf(body, sizeof body, "{\"prompt\":\"%s\",\"max_tokens\":%d,\"temperature\":%s%s}", prompt,
             TOKENS + i * 11 % 50, i % 3 ? "2" : "0", more[i % (int)(sizeof more / sizeof *more)]);
    return job_of(i, body);
}

/* Runs them all and gives their bodies. */
static struct step_counts run(struct step_config config, int first, int count, struct buf *bodies)
{
    struct step *step;
    struct step_counts counts;
    struct job *job;
    struct err err;
    int done = 0;

    if (!step_new(&step, model, tokenizer, exchange, &config, &err))
        fail_msg("%s", err.text);
    for (int i = first; i < first + count; i++)
        step_add(step, job_number(i));
    while (done < count) {
        if (step_advance(step, &err) != STEP_WORKED)
            fail_msg("stuck with %d of %d done", done, count);
        while ((job = step_take(step))) {
            int i = atoi(job->lease->job);

            CHECK(!job->impossible && !job->failed);
            bodies[i].size = 0;
            CHECK(job_body(job, 1 << 24, &bodies[i], &err));
            job_free(job);
            done++;
        }
    }
    counts = step_counts(step);
    CHECK(counts.sequences == 0);
    step_free(step);
    return counts;
}

static void check_equal(const struct buf *alone, const struct buf *other, const char *how)
{
    for (int i = 0; i < SEQUENCES; i++)
        if (!span_equal(buf_span(&alone[i]), buf_span(&other[i])))
            fail_msg("sequence %d, %s:\n%.*s\nalone:\n%.*s", i, how, (int)other[i].size,
                     (char *)other[i].data, (int)alone[i].size, (char *)alone[i].data);
}

static void test_the_same_bytes_alone_together_and_after_starting_over(void **state)
{
    const int64_t page = model_position_bytes(model) * 64;
    const struct step_config roomy = { .sequences_max = 64, .batch_tokens = 512, .cache_bytes = 1000 * page };
    const struct step_config chunky = { .sequences_max = 3, .batch_tokens = 13, .cache_bytes = 1000 * page };
    const struct step_config tight = { .sequences_max = 64, .batch_tokens = 64, .cache_bytes = TIGHT * page };
    struct buf alone[SEQUENCES] = { { 0 } }, other[SEQUENCES] = { { 0 } };

    (void)state;
    for (int i = 0; i < SEQUENCES; i++)
        run(roomy, i, 1, alone);
    CHECK(run(roomy, 0, SEQUENCES, other).preempted == 0);
    check_equal(alone, other, "together");
    run(chunky, 0, SEQUENCES, other);
    check_equal(alone, other, "in small chunks");
    CHECK(run(tight, 0, SEQUENCES, other).preempted > 0);
    check_equal(alone, other, "after starting over");
    for (int i = 0; i < SEQUENCES; i++) {
        buf_fini(&alone[i]);
        buf_fini(&other[i]);
    }
}

static struct job *run_one(struct step_config config, struct job *job, struct step_counts *counts)
{
    struct step *step;
    struct err err;

    CHECK(step_new(&step, model, tokenizer, exchange, &config, &err));
    step_add(step, job);
    while (!(job = step_take(step)))
        CHECK(step_advance(step, &err) == STEP_WORKED);
    *counts = step_counts(step);
    step_free(step);
    CHECK(!job->failed && !job->impossible);
    return job;
}

/* n answers cost one prompt; the first is what a request for one gives, the others draw for themselves. */
static void test_choices_share_one_prompt(void **state)
{
    const int64_t page = model_position_bytes(model) * 64;
    const struct step_config roomy = { .sequences_max = 64, .batch_tokens = 512, .cache_bytes = 1000 * page };
    const struct step_config single = { .sequences_max = 1, .batch_tokens = 512, .cache_bytes = 1000 * page };
    char body[1024], prompt[768] = "";
    struct step_counts counts;
    struct job *one, *many, *slow;
    size_t tokens;

    (void)state;
    for (int k = 0; k < 20; k++)
        sprintf(prompt + strlen(prompt), "item %d of the list, ", k);
    snprintf(body, sizeof body, "{\"prompt\":\"%s\",\"max_tokens\":40}", prompt);
    one = run_one(roomy, job_of(1, body), &counts);
    tokens = one->prompt.count;
    CHECK(tokens > 130 && counts.prompt_tokens == tokens && job_cached(one) == 0);
    snprintf(body, sizeof body, "{\"prompt\":\"%s\",\"max_tokens\":40,\"n\":6}", prompt);
    many = run_one(roomy, job_of(1, body), &counts);
    CHECK(counts.prompt_tokens == tokens && job_cached(many) == 5 * tokens);
    slow = run_one(single, job_of(1, body), &counts); /* one after the other, each in the place of the one before */
    CHECK(counts.prompt_tokens == tokens && job_cached(slow) == 5 * tokens);
    for (int i = 0; i < 6; i++) {
        const struct ids *a = &many->choice[i].answer.generated, *b = &slow->choice[i].answer.generated;

        CHECK(a->count == b->count && memcmp(a->id, b->id, a->count * sizeof *a->id) == 0);
        for (int k = 0; k < i; k++) {
            const struct ids *c = &many->choice[k].answer.generated;

            CHECK(a->count != c->count || memcmp(a->id, c->id, a->count * sizeof *a->id) != 0);
        }
    }
    CHECK(one->choice[0].answer.generated.count == many->choice[0].answer.generated.count);
    CHECK(memcmp(one->choice[0].answer.generated.id, many->choice[0].answer.generated.id,
                 one->choice[0].answer.generated.count * sizeof(int32_t)) == 0);
    job_free(one);
    job_free(many);
    job_free(slow);
    /* Over with the first draw: no page is ever needed. */
    one = run_one(roomy, job_of(1, "{\"prompt\":\"a b\",\"max_tokens\":1,\"n\":64}"), &counts);
    CHECK(counts.steps == 1 && job_generated(one) == 64 && job_cached(one) == 63 * one->prompt.count);
    job_free(one);
    one = run_one(roomy, job_of(1, "{\"prompt\":\"a b\",\"max_tokens\":0,\"n\":3,\"echo\":true,\"logprobs\":1}"), &counts);
    CHECK(counts.steps == 1 && job_generated(one) == 0);
    job_free(one);
}

/* A cache that holds a prompt and little more: choices come and go, all end, with the same bytes. */
static void test_choices_end_in_a_small_cache(void **state)
{
    const int64_t page = model_position_bytes(model) * 64;
    struct step_config config = { .sequences_max = 64, .batch_tokens = 64, .cache_bytes = 1000 * page };
    struct buf bodies[4] = { { 0 } };
    char body[1024], prompt[768] = "";
    struct step_counts counts;
    struct err err;

    (void)state;
    for (int k = 0; k < 20; k++)
        sprintf(prompt + strlen(prompt), "item %d of the list, ", k);
    snprintf(body, sizeof body, "{\"prompt\":\"%s\",\"max_tokens\":90,\"n\":5,\"ignore_eos\":true}", prompt);
    for (int i = 0; i < 4; i++) {
        struct job *job = job_of(1, body);

        if (i == 3)
            job->lease->alone = true;
        else if (i > 0)
            config.cache_bytes = (cache_pages_for((int)job->prompt.count + 90) + i - 1) * page;
        job = run_one(config, job, &counts);
        CHECK(job_body(job, 1 << 20, &bodies[i], &err));
        CHECK(i != 2 || counts.preempted > 0);
        CHECK(span_equal(buf_span(&bodies[i]), buf_span(&bodies[0])));
        job_free(job);
    }
    for (int i = 0; i < 4; i++)
        buf_fini(&bodies[i]);
}

static const struct answer *generated_by(const char *body, struct job **job)
{
    const struct step_config roomy = { .sequences_max = 64, .batch_tokens = 512, .cache_bytes = 1 << 28 };
    struct step_counts counts;

    *job = run_one(roomy, job_of(1, body), &counts);
    return &(*job)->choice[0].answer;
}

/* What ends an answer, and how it says so. */
static void test_how_answers_end(void **state)
{
    char body[512];
    const struct answer *free_text, *answer;
    struct job *job, *other;
    int32_t eos = tokenizer_eos(tokenizer), stop;

    (void)state;
    /* Everything but the end of text is banned by bias, so it comes at once. */
    snprintf(body, sizeof body, "{\"prompt\":\"a\",\"max_tokens\":5,\"temperature\":0,\"logit_bias\":{\"%d\":100}}", eos);
    answer = generated_by(body, &job);
    CHECK(answer->generated.count == 1 && answer->generated.id[0] == eos && answer->end == ANSWER_STOP);
    job_free(job);
    snprintf(body, sizeof body, "{\"prompt\":\"a\",\"max_tokens\":5,\"temperature\":0,\"ignore_eos\":true,\"logit_bias\":{\"%d\":100}}", eos);
    answer = generated_by(body, &job);
    CHECK(answer->generated.count == 5 && answer->generated.id[4] == eos && answer->end == ANSWER_LENGTH && answer->text.size == 0);
    job_free(job);
    free_text = generated_by("{\"prompt\":\"a line of text\",\"max_tokens\":12,\"temperature\":0,\"ignore_eos\":true}", &other);
    CHECK(free_text->generated.count == 12);
    stop = free_text->generated.id[3];
    snprintf(body, sizeof body, "{\"prompt\":\"a line of text\",\"max_tokens\":12,\"temperature\":0,\"ignore_eos\":true,\"stop_token_ids\":[%d]}", stop);
    answer = generated_by(body, &job);
    CHECK(answer->end == ANSWER_STOP && answer->generated.id[answer->generated.count - 1] == stop && answer->generated.count <= 4);
    CHECK(answer->text.size < free_text->text.size);
    job_free(job);
    job_free(other);
    /* One token for ever is a pattern of one. */
    snprintf(body, sizeof body, "{\"prompt\":\"a\",\"max_tokens\":50,\"temperature\":0,\"logit_bias\":{\"%d\":100},"
             "\"repetition_detection\":{\"max_pattern_size\":8,\"min_count\":4}}", stop);
    answer = generated_by(body, &job);
    CHECK(answer->end == ANSWER_REPETITION && answer->generated.count == 4);
    job_free(job);
    snprintf(body, sizeof body, "{\"prompt\":\"a\",\"max_tokens\":50,\"temperature\":0,\"logit_bias\":{\"%d\":100},"
             "\"repetition_detection\":{\"max_pattern_size\":8,\"min_pattern_size\":3,\"min_count\":4}}", stop);
    answer = generated_by(body, &job);
    CHECK(answer->end == ANSWER_REPETITION && answer->generated.count == 12);
    job_free(job);
    /* A penalty that cannot be withstood: no token twice. */
    answer = generated_by("{\"prompt\":\"a\",\"max_tokens\":60,\"temperature\":0,\"repetition_penalty\":10,\"presence_penalty\":2,"
                          "\"frequency_penalty\":2,\"ignore_eos\":true}", &job);
    for (size_t i = 0; i < answer->generated.count; i++)
        for (size_t k = 0; k < i; k++)
            CHECK(answer->generated.id[i] != answer->generated.id[k]);
    job_free(job);
}

/* The detector against its definition: the last tokens are `count` times the same `size`. */
static void test_repetition_is_found_where_it_is(void **state)
{
    unsigned seed = 4;

    (void)state;
    for (int round = 0; round < 300; round++) {
        int max = 1 + rand_r(&seed) % 5, min = 1 + rand_r(&seed) % max, count = 2 + rand_r(&seed) % 3, found = 0;
        char body[256];
        struct job *job;
        struct sequence *s;

        snprintf(body, sizeof body, "{\"prompt\":\"a\",\"max_tokens\":100,\"repetition_detection\":{\"max_pattern_size\":%d,"
                 "\"min_pattern_size\":%d,\"min_count\":%d}}", max, min, count);
        job = job_of(1, body);
        s = &job->choice[0];
        while (!s->over) {
            const struct ids *ids = &s->answer.generated;

            sequence_add(s, 20 + rand_r(&seed) % 2, NULL);
            for (int size = min; size <= max; size++) {
                int alike = 1;

                for (int k = 1; k <= size * (count - 1) && alike; k++)
                    alike = (int)ids->count >= size * count && ids->id[ids->count - (size_t)k] == ids->id[ids->count - (size_t)(k + size)];
                found |= alike;
            }
            CHECK(s->over == (found || ids->count == 100));
        }
        CHECK(s->answer.end == (found ? ANSWER_REPETITION : ANSWER_LENGTH));
        job_free(job);
    }
}

/* ---- output that has a form -------------------------------------------------------------------------- */

/* Whether a text is what the form asks for. */
static bool fits(enum request_form kind, const char *form_text, const struct answer *answer)
{
    struct grammar_run *run;
    struct form *form;
    struct err err;
    bool ok;

    CHECK(forms_take(world.forms, &form, kind, span_text(form_text), false, &err));
    run = grammar_run_new(form_grammar(form));
    ok = grammar_advance_bytes(run, buf_span(&answer->text)) && grammar_may_end(run);
    grammar_run_free(run);
    forms_give_back(world.forms, form);
    return ok;
}

/* Every budget from the least one on ends with the form complete; below it nothing runs. */
static void test_what_has_a_form_is_complete_within_any_budget(void **state)
{
    static const struct {
        enum request_form kind;
        const char *field, *text;
    } forms[] = { { REQUEST_SCHEMA, "guided_json", RECORD },
                  { REQUEST_REGEX, "guided_regex", "(ab|cd)+ [0-9]{3}" },
                  { REQUEST_SCHEMA, "guided_json", "{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"minItems\":2}" } };

    (void)state;
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        int minimum = 0;

        for (int budget = 1; budget < minimum + BUDGETS || !minimum; budget++) {
            char body[2048];
            struct request_fault fault;
            struct seat_lease *lease;
            struct step_counts counts;
            struct job *job;

            snprintf(body, sizeof body, "{\"prompt\":\"a line\",\"max_tokens\":%d,\"temperature\":%s,\"n\":4,\"%s\":%s%s%s}", budget,
                     budget % 3 ? "2" : "0", forms[f].field, forms[f].kind == REQUEST_REGEX ? "\"" : "", forms[f].text,
                     forms[f].kind == REQUEST_REGEX ? "\"" : "");
            lease = lease_new(budget, body);
            if (!job_new(&job, &world, lease, &fault)) {
                char expected[128];

                CHECK(!minimum && fault.status_code == 400 && strcmp(fault.param, "max_tokens") == 0);
                snprintf(expected, sizeof expected, "`max_tokens` is %d; the shortest text that `%s` allows has ", budget, forms[f].field);
                CHECK(strncmp(fault.message, expected, strlen(expected)) == 0);
                CHECK(atoi(fault.message + strlen(expected)) > budget && budget < 100);
                seat_lease_free(lease);
                continue;
            }
            minimum = minimum ? minimum : budget;
            job = run_one((struct step_config){ .sequences_max = 64, .batch_tokens = 512, .cache_bytes = 1 << 28 }, job, &counts);
            for (int i = 0; i < 4; i++) {
                const struct answer *answer = &job->choice[i].answer;

                CHECK((int)answer->generated.count <= budget && answer->end == ANSWER_STOP);
                if (!fits(forms[f].kind, forms[f].text, answer))
                    fail_msg("%s, budget %d: %.*s", forms[f].text, budget, (int)answer->text.size, (char *)answer->text.data);
            }
            job_free(job);
        }
        CHECK(minimum > 1);
    }
}

/* Scores are an extra: they change neither what is forced nor what is drawn. */
static void test_log_probs_do_not_change_what_is_said(void **state)
{
    (void)state;
    for (int seed = 0; seed < 5; seed++) {
        struct job *job[2];
        const struct ids *ids[2];

        for (int scored = 0; scored < 2; scored++) {
            char body[1024];

            snprintf(body, sizeof body, "{\"prompt\":\"Entry: %d\",\"max_tokens\":80,\"temperature\":1.5,\"guided_json\":" RECORD "%s}", seed,
                     scored ? ",\"logprobs\":3" : "");
            ids[scored] = &generated_by(body, &job[scored])->generated;
        }
        CHECK(ids[0]->count == ids[1]->count && memcmp(ids[0]->id, ids[1]->id, ids[0]->count * sizeof(int32_t)) == 0);
        for (size_t i = 0; i < ids[1]->count; i++)
            CHECK(job[1]->choice[0].answer.score[i].known && job[1]->choice[0].answer.score[i].logprob <= 0);
        job_free(job[0]);
        job_free(job[1]);
    }
}

static void test_how_texts_with_a_form_end(void **state)
{
    struct step_counts counts;
    const struct answer *answer;
    struct ids letter = { 0 };
    struct job *job;
    char body[1024];

    (void)state;
    /* All of it forced: no step is needed, and no draw. */
    job = run_one((struct step_config){ .sequences_max = 4, .batch_tokens = 64, .cache_bytes = 1 << 24 },
                  job_of(1, "{\"prompt\":\"a\",\"max_tokens\":40,\"n\":3,\"guided_choice\":[\"there is no choice\"]}"), &counts);
    CHECK(counts.steps == 0 && job->open == 0);
    for (int i = 0; i < 3; i++) {
        answer = &job->choice[i].answer;
        CHECK(span_equal(buf_span(&answer->text), span_text("there is no choice")) && answer->end == ANSWER_STOP);
        CHECK(!tokenizer_is_eos(tokenizer, answer->generated.id[answer->generated.count - 1]));
    }
    job_free(job);
    /* Where it may end, the end of text is as good a token as another; unless nobody wants it. */
    snprintf(body, sizeof body, "{\"prompt\":\"a\",\"max_tokens\":30,\"guided_regex\":\"[a-z]*\",\"logit_bias\":{\"%d\":100}}", tokenizer_eos(tokenizer));
    answer = generated_by(body, &job);
    CHECK(answer->generated.count == 1 && answer->text.size == 0 && answer->end == ANSWER_STOP);
    job_free(job);
    snprintf(body, sizeof body, "{\"prompt\":\"a\",\"max_tokens\":30,\"guided_regex\":\"[a-z]*\",\"ignore_eos\":true,\"logit_bias\":{\"%d\":100}}", tokenizer_eos(tokenizer));
    answer = generated_by(body, &job);
    CHECK(answer->generated.count == 30 && answer->text.size >= 30 && answer->end == ANSWER_STOP && fits(REQUEST_REGEX, "[a-z]*", answer));
    job_free(job);
    /* A budget that is enough for this end and for no other: what could follow is not drawn, whatever is likely. */
    snprintf(body, sizeof body, "{\"prompt\":\"a\",\"max_tokens\":2,\"temperature\":0,\"guided_regex\":\"1(QQQQQQQQ)?\",\"logit_bias\":{\"%d\":-100}}", tokenizer_eos(tokenizer));
    answer = generated_by(body, &job);
    CHECK(span_equal(buf_span(&answer->text), span_text("1")) && answer->end == ANSWER_STOP);
    job_free(job);
    /* What repeats itself is brought to its end, not cut. */
    CHECK(tokenizer_encode(tokenizer, span_text("a"), &letter, NULL) && letter.count == 1);
    snprintf(body, sizeof body, "{\"prompt\":\"a\",\"max_tokens\":400,\"temperature\":0,\"guided_json\":{\"type\":\"object\",\"properties\":{\"x\":"
             "{\"type\":\"string\",\"pattern\":\"^a*$\"},\"y\":{\"type\":\"boolean\"}},\"required\":[\"x\",\"y\"],\"additionalProperties\":false},"
             "\"logit_bias\":{\"%d\":100},\"repetition_detection\":{\"max_pattern_size\":4,\"min_count\":8}}", letter.id[0]);
    answer = generated_by(body, &job);
    CHECK(answer->end == ANSWER_REPETITION && answer->generated.count < 40);
    CHECK(answer->text.size > 8 && answer->text.data[answer->text.size - 1] == '}' && memmem(answer->text.data, answer->text.size, "aaaaaaaa", 8));
    ids_fini(&letter);
    job_free(job);
    /* No usable logit: a failure of this job, with its name. */
    job = job_of(1, "{\"prompt\":\"a\",\"max_tokens\":30,\"n\":2,\"guided_regex\":\"[a-z]+\"}");
    sequence_add(&job->choice[1], -1, NULL);
    CHECK(job->failed && job->open == 0 && job->fault.status_code == 500 && strcmp(job->fault.code, "no_valid_token") == 0);
    job_free(job);
}

/* A batch asks ten thousand times for one schema. */
static void test_a_form_is_compiled_once(void **state)
{
    static const char bad[] = "{\"type\":\"object\",\"propertys\":{}}";
    struct forms *forms = forms_new(tokenizer, world.vocab, FORMS_BYTES_MAX);
    struct form *form[4], *many[FORMS_MAX + 3];
    struct err err;

    (void)state;
    for (int i = 0; i < 3; i++)
        CHECK(forms_take(forms, &form[i], REQUEST_SCHEMA, span_text(RECORD), false, &err) && form[i] == form[0]);
    CHECK(forms_compiled(forms) == 1);
    CHECK(forms_take(forms, &form[3], REQUEST_SCHEMA, span_text(RECORD), true, &err) && form[3] != form[0]);
    for (int i = 0; i < 3; i++) {
        CHECK(!forms_take(forms, &many[0], REQUEST_SCHEMA, span_text(bad), false, &err) && !many[0]);
        CHECK(err.code == ERR_INPUT && strstr(err.text, "#/propertys"));
    }
    CHECK(forms_compiled(forms) == 3);
    /* Those in use stay; of the others the longest unused go. */
    for (int i = 0; i < FORMS_MAX + 3; i++) {
        char regex[32];

        snprintf(regex, sizeof regex, "x{%d}", i + 1);
        CHECK(forms_take(forms, &many[i], REQUEST_REGEX, span_text(regex), false, &err));
    }
    CHECK(grammar_minimum(form_grammar(form[0])) > 0);
    for (int i = 0; i < FORMS_MAX + 3; i++)
        forms_give_back(forms, many[i]);
    CHECK(forms_compiled(forms) == FORMS_MAX + 6);
    CHECK(forms_take(forms, &many[0], REQUEST_REGEX, span_text("fresh"), false, &err)); /* now there is room again */
    CHECK(forms_take(forms, &many[1], REQUEST_REGEX, span_text("x{67}"), false, &err) && forms_compiled(forms) == FORMS_MAX + 7);
    CHECK(forms_take(forms, &many[2], REQUEST_REGEX, span_text("x{1}"), false, &err) && forms_compiled(forms) == FORMS_MAX + 8);
    CHECK(forms_take(forms, &many[3], REQUEST_SCHEMA, span_text(RECORD), false, &err) && many[3] == form[0]);
    for (int i = 0; i < 4; i++) {
        forms_give_back(forms, form[i]);
        forms_give_back(forms, many[i]);
    }
    forms_give_back(forms, NULL);
    forms_free(forms);
    forms_free(NULL);
}

/* Grammars in use are not given up; who comes when there is no room is sent elsewhere, not refused. */
static void test_grammars_have_a_bound(void **state)
{
    struct sequence_world small = world;
    struct seat_lease *lease = lease_new(1, "{\"prompt\":\"a\",\"guided_regex\":\"ab+\"}");
    struct request_fault fault;
    struct form *form;
    struct job *job;
    struct err err;

    (void)state;
    small.forms = forms_new(tokenizer, world.vocab, 1);
    CHECK(forms_take(small.forms, &form, REQUEST_SCHEMA, span_text(RECORD), false, &err));
    CHECK(!job_new(&job, &small, lease, &fault) && fault.status_code == 503 && strstr(fault.message, "grammars in use"));
    forms_give_back(small.forms, form);
    CHECK(job_new(&job, &small, lease, &fault));
    job_free(job);
    forms_free(small.forms);
}

/* A lease that was taken away must stop costing anything, in the middle of a pass too. */
static void test_a_dropped_sequence_goes_when_the_pass_is_over(void **state)
{
    struct step_config config = { .sequences_max = 8,
                                  .batch_tokens = 64,
                                  .cache_bytes = model_position_bytes(model) * 64 * 100 };
    struct step *step;
    struct err err;

    (void)state;
    CHECK(step_new(&step, model, tokenizer, exchange, &config, &err));
    step_add(step, job_number(3));
    step_add(step, job_number(4));
    CHECK(step_advance(step, &err) == STEP_WORKED && step_in_pass(step));
    step_drop(step, 4); /* fence 4 is sequence 3 */
    CHECK(step_counts(step).sequences == 4); /* two choices each */
    while (step_in_pass(step))
        CHECK(step_advance(step, &err) == STEP_WORKED);
    CHECK(step_counts(step).sequences == 2 && step_jobs(step)->lease->fence == 5);
    step_drop(step, 5);
    CHECK(step_counts(step).sequences == 0 && !step_take(step));
    CHECK(step_advance(step, &err) == STEP_IDLE);
    step_free(step);
}

/* What can never fit is said, not waited for. */
static void test_a_sequence_larger_than_the_cache_is_impossible(void **state)
{
    struct step_config config = { .sequences_max = 8,
                                  .batch_tokens = 64,
                                  .cache_bytes = model_position_bytes(model) * 64 };
    struct step *step;
    struct job *job;
    struct err err;

    (void)state;
    CHECK(step_new(&step, model, tokenizer, exchange, &config, &err));
    step_add(step, job_number(1)); /* one page holds its prompt, not what it will generate */
    while (!(job = step_take(step)))
        CHECK(step_advance(step, &err) == STEP_WORKED);
    CHECK(job->impossible && job_generated(job) > 0);
    job_free(job);
    step_free(step);
    config.cache_bytes = 10;
    CHECK(!step_new(&step, model, tokenizer, exchange, &config, &err) && strstr(err.text, "--cache"));
}

/* The request's own mistakes, in words with figures. */
static void test_requests_that_the_model_cannot_run_are_refused(void **state)
{
    static const struct {
        const char *body, *code, *word;
    } bad[] = {
        { "{\"prompt\":[1,2,99999999]}", "invalid_value", "token id 99999999" },
        { "{\"prompt\":\"a b c\",\"max_tokens\":4095}", "context_length_exceeded", "4096" },
        { "{\"prompt\":\"a b c\",\"max_tokens\":2000000000}", "context_length_exceeded", "2000000000" },
        { "{\"prompt\":\"a\",\"stop_token_ids\":[1,99999]}", "invalid_value", "token id 99999 is out of range" },
        { "{\"prompt\":\"a\",\"logit_bias\":{\"99999\":1}}", "invalid_value", "token id 99999 is out of range" },
        { "{\"prompt\":\"LONG\"}", "context_length_exceeded", "bytes of text; the model's context of 4096 tokens" },
        { "{\"prompt\":\"a\",\"guided_json\":\"{\"}", "invalid_value", "`guided_json`: " },
        { "{\"prompt\":\"a\",\"guided_regex\":\"(a\"}", "invalid_value", "`guided_regex`: " },
        { "{\"prompt\":\"a\",\"guided_json\":{\"propertys\":{}}}", "invalid_value", "#/propertys" },
        { "{\"prompt\":\"a\",\"guided_json\":{\"enum\":[]}}", "invalid_value", "#/enum" },
        { "{\"prompt\":\"a\",\"guided_regex\":\"[ab]{100}\"}", "invalid_value", "`max_tokens` is 16 where it is not given; the shortest text that `guided_regex` allows has" },
        { "{\"prompt\":\"a\",\"nonsense\":1}", "unknown_parameter", "nonsense" },
        { "not json", "invalid_json", "" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *hole = strstr(bad[i].body, "LONG"), *body = NULL;
        struct seat_lease *lease;
        struct request_fault fault;
        struct job *job;

        if (hole) /* 8 MB: refused before anybody tokenizes it */
            CHECK(asprintf(&body, "%.*s%0*d%s", (int)(hole - bad[i].body), bad[i].body, 1 << 23, 0, hole + 4) > 0);
        lease = lease_new(1, body ? body : bad[i].body);
        free(body);
        CHECK(!job_new(&job, &world, lease, &fault));
        if (strcmp(fault.code, bad[i].code) != 0 || !strstr(fault.message, bad[i].word) ||
            fault.status_code != 400)
            fail_msg("%s: %d %s: %s", bad[i].body, fault.status_code, fault.code, fault.message);
        seat_lease_free(lease);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_bytes_alone_together_and_after_starting_over),
        cmocka_unit_test(test_choices_share_one_prompt),
        cmocka_unit_test(test_choices_end_in_a_small_cache),
        cmocka_unit_test(test_how_answers_end),
        cmocka_unit_test(test_repetition_is_found_where_it_is),
        cmocka_unit_test(test_what_has_a_form_is_complete_within_any_budget),
        cmocka_unit_test(test_log_probs_do_not_change_what_is_said),
        cmocka_unit_test(test_how_texts_with_a_form_end),
        cmocka_unit_test(test_a_form_is_compiled_once),
        cmocka_unit_test(test_grammars_have_a_bound),
        cmocka_unit_test(test_a_dropped_sequence_goes_when_the_pass_is_over),
        cmocka_unit_test(test_a_sequence_larger_than_the_cache_is_impossible),
        cmocka_unit_test(test_requests_that_the_model_cannot_run_are_refused),
    };

    return cmocka_run_group_tests(tests, load, unload);
}
