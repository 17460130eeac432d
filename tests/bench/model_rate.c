/* model_rate - tokens a second of the model alone, in one process, all shards here.  Not installed.
 *
 *     model_rate MODEL [-|f32|bf16] [THREADS] [FLOOR]
 *
 * One line of JSON a case: prefill of a prompt (chunks of 256 rows), and decode of 1, 8, 32, 64 sequences
 * that stand at 128 positions.  Random ids; greedy; logits of every decoded row are computed and the best one
 * is taken. With FLOOR, the exit status is 1 when a case of several sequences gave fewer tokens a processor
 * second (which neighbours on the machine change little). */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "worker/model/forward.h"
#include "worker/model/sample.h"

enum { PROMPT = 128, CHUNK = 256, SEQUENCES = 64, GENERATED = 64 };

static void fail(const struct err *err)
{
    fprintf(stderr, "model_rate: %s\n", err->text);
    exit(1);
}

/* Processor time of all threads: on a machine shared with others it says more than the wall. */
static int64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t start, cpu_start;
static double floor_rate;
static bool slow;

static void begin(void)
{
    start = clock_now_ns();
    cpu_start = cpu_ns();
}

static void report(const struct model *model, const char *name, int sequences, double tokens)
{
    int64_t ns = clock_now_ns() - start, cpu = cpu_ns() - cpu_start;

    printf("{\"bench\": \"engine\", \"case\": \"%s\", \"sequences\": %d, \"value\": %.1f, \"unit\": "
           "\"tokens/s\", \"tokens_per_cpu_s\": %.1f, \"weights\": \"%s\", "
           "\"threads\": %d, \"family\": \"%s\"}\n",
           name, sequences, tokens * 1e9 / (double)ns, tokens * 1e9 / (double)cpu,
           weights_name(model_weights(model)), model_threads(model), model_family(model));
    fflush(stdout);
    if (sequences > 1 && tokens * 1e9 / (double)cpu < floor_rate)
        slow = true;
}

int main(int argc, char **argv)
{
    static struct forward_row row[CHUNK];
    static struct cache_sequence sequence[SEQUENCES];
    static int32_t token[SEQUENCES];
    struct model_options options = { .weights = WEIGHTS_OF_CHECKPOINT };
    struct sample_params greedy = { .top_p = 1 };
    struct err err;
    struct model *model;
    struct forward *step;
    struct experts *experts;
    struct sampler *sampler;
    struct cache_pool *pool;
    unsigned seed = 1;

    if (argc < 2)
        return fprintf(stderr, "usage: model_rate MODEL [-|f32|bf16] [THREADS] [FLOOR]\n"), 1;
    if (argc > 2 && strcmp(argv[2], "-") != 0 && !weights_parse(argv[2], &options.weights))
        return fprintf(stderr, "unknown weights %s\n", argv[2]), 1;
    options.threads = argc > 3 ? atoi(argv[3]) : 1;
    floor_rate = argc > 4 ? atof(argv[4]) : 0;
    if (!model_open(&model, argv[1], &options, &err) || !model_seat_all(model, &err))
        fail(&err);
    step = forward_new(model, CHUNK, SEQUENCES);
    experts = experts_new(model);
    sampler = sampler_new(model_backend(model), model_config(model)->vocab);
    pool = cache_pool_new(model, (int64_t)4 << 30);
    if (!step || !experts || !sampler || !pool)
        return fprintf(stderr, "no memory\n"), 1;
    for (int s = 0; s < SEQUENCES; s++) {
        cache_sequence_init(&sequence[s], pool);
        if (!cache_grow(&sequence[s], PROMPT + 4 * GENERATED, &err))
            fail(&err);
    }
    for (int warm = 0; warm < 2; warm++) {
        begin();
        for (int s = 0; s < SEQUENCES; s += CHUNK / PROMPT) {
            for (int i = 0; i < CHUNK; i++)
                row[i] =
                    (struct forward_row){ &sequence[s + i / PROMPT],
                                          (int32_t)(rand_r(&seed) % (unsigned)model_config(model)->vocab),
                                          i % PROMPT, false, false };
            if (!forward_run(step, experts, row, CHUNK, &err))
                fail(&err);
        }
    }
    report(model, "prefill", CHUNK / PROMPT, SEQUENCES * PROMPT);
    for (int c = 0; c < 4; c++) {
        int count = (int[]){ 1, 8, 32, 64 }[c];

        begin();
        for (int g = 0; g < GENERATED; g++) {
            for (int s = 0; s < count; s++)
                row[s] = (struct forward_row){ &sequence[s], token[s], PROMPT + g, true, true };
            if (!forward_run(step, experts, row, count, &err))
                fail(&err);
            while (!forward_logits(step, 0, count))
                ;
            for (int s = 0; s < count; s++)
                token[s] = sample_token(sampler, forward_logits_of(step, s), model_config(model)->vocab,
                                        &greedy, (uint32_t)g);
        }
        report(model, "decode", count, (double)count * GENERATED);
    }
    for (int s = 0; s < SEQUENCES; s++)
        cache_sequence_fini(&sequence[s]);
    cache_pool_free(pool);
    sampler_free(sampler);
    experts_free(experts);
    forward_free(step);
    model_free(model);
    if (slow)
        fprintf(stderr, "model_rate: below %g tokens a processor second\n", floor_rate);
    return slow;
}
