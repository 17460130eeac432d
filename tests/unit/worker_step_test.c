/* The step loop on the demo model, in one process: what is in a batch, how large a chunk is and how
 * often a sequence had to start over must not be seen in what comes out. */

#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/step.h"

#ifdef __SANITIZE_THREAD__
enum { SEQUENCES = 4 }; /* there everything takes twenty times as long */
#else
enum { SEQUENCES = 8 };
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
        .tokenizer = tokenizer, .chat_why = "no template", .context = c->context, .vocab = c->vocab
    };
    return 0;
}

static int unload(void **state)
{
    char path[64];

    (void)state;
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

static struct sequence *sequence_of(int i)
{
    char body[4096], prompt[2048] = "";
    struct sequence *sequence;
    struct request_fault fault;

    for (int k = 0; k < 1 + i * 7 % 9; k++)
        sprintf(prompt + strlen(prompt), "line %d of %d; ", k, i);
    snprintf(body, sizeof body, "{\"prompt\":\"%s\",\"max_tokens\":%d,\"temperature\":%s%s}", prompt,
             70 + i * 11 % 50, i % 3 ? "2" : "0", i % 4 == 0 ? ",\"logprobs\":2,\"echo\":true" : "");
    if (!sequence_new(&sequence, &world, lease_new(i, body), &fault))
        fail_msg("%s", fault.message);
    return sequence;
}

/* Runs them all and gives their bodies. */
static struct step_counts run(struct step_config config, int first, int count, struct buf *bodies)
{
    struct step *step;
    struct step_counts counts;
    struct sequence *s;
    struct err err;
    int done = 0;

    if (!step_new(&step, model, tokenizer, exchange, &config, &err))
        fail_msg("%s", err.text);
    for (int i = first; i < first + count; i++)
        step_add(step, sequence_of(i));
    while (done < count) {
        if (step_advance(step, &err) != STEP_WORKED)
            fail_msg("stuck with %d of %d done", done, count);
        while ((s = step_take(step))) {
            int i = atoi(s->lease->job);

            CHECK(!s->impossible && !s->broken);
            bodies[i].size = 0;
            CHECK(answer_body(&s->answer, 1 << 24, &bodies[i], &err));
            sequence_free(s);
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
    const struct step_config tight = { .sequences_max = 64, .batch_tokens = 64, .cache_bytes = 4 * page };
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
    step_add(step, sequence_of(3));
    step_add(step, sequence_of(4));
    CHECK(step_advance(step, &err) == STEP_WORKED && step_in_pass(step));
    step_drop(step, 4); /* fence 4 is sequence 3 */
    CHECK(step_counts(step).sequences == 2);
    while (step_in_pass(step))
        CHECK(step_advance(step, &err) == STEP_WORKED);
    CHECK(step_counts(step).sequences == 1 && step_sequences(step)->lease->fence == 5);
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
    struct sequence *s;
    struct err err;

    (void)state;
    CHECK(step_new(&step, model, tokenizer, exchange, &config, &err));
    step_add(step, sequence_of(1)); /* one page holds its prompt, not what it will generate */
    while (!(s = step_take(step)))
        CHECK(step_advance(step, &err) == STEP_WORKED);
    CHECK(s->impossible && s->answer.generated.count > 0);
    sequence_free(s);
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
        { "{\"prompt\":\"a\",\"nonsense\":1}", "unknown_parameter", "nonsense" },
        { "not json", "invalid_json", "" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct seat_lease *lease = lease_new(1, bad[i].body);
        struct request_fault fault;
        struct sequence *s;

        CHECK(!sequence_new(&s, &world, lease, &fault));
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
        cmocka_unit_test(test_a_dropped_sequence_goes_when_the_pass_is_over),
        cmocka_unit_test(test_a_sequence_larger_than_the_cache_is_impossible),
        cmocka_unit_test(test_requests_that_the_model_cannot_run_are_refused),
    };

    return cmocka_run_group_tests(tests, load, unload);
}
