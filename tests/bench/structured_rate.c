/* structured_rate - what a grammar, penalties and several choices cost: tokens/s of the step loop with them
 * against without, in one process, interleaved, medians.
 *
 *     structured_rate MODEL [threads [sequences [rounds [floor]]]]
 *
 * One JSON object a line: the case, tokens a processor second (which neighbours on the machine change
 * little), and the share of the plain case's.  With a floor the exit status is 1 when a case with a form has
 * a smaller share.  Where bytes are forced no draw is needed, so a record can be faster than plain text;
 * "text" is a schema of almost nothing but free strings. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "worker/step.h"

enum { TOKENS = 128, ROUNDS_MAX = 99 };

#define RECORD                                                                                               \
    "{\"type\":\"object\",\"properties\":{\"package\":{\"type\":\"string\",\"maxLength\":40},\"version\":{"  \
    "\"type\":\"string\",\"pattern\":"                                                                       \
    "\"^[0-9]+\\\\.[0-9]+$\"},\"urgency\":{\"enum\":[\"low\",\"medium\",\"high\"]},\"closes\":{\"type\":"    \
    "\"array\",\"items\":"                                                                                   \
    "{\"type\":\"integer\",\"minimum\":1,\"maximum\":999999},\"maxItems\":8},\"date\":{\"type\":\"string\"," \
    "\"format\":\"date\"},\"changes\":"                                                                      \
    "{\"type\":\"array\",\"minItems\":12,\"items\":{\"type\":\"string\"}}},\"required\":[\"package\","       \
    "\"version\",\"urgency\",\"closes\","                                                                    \
    "\"date\",\"changes\"],\"additionalProperties\":false}"

static const struct {
    const char *name, *fields;
} cases[] = {
    { "plain", ",\"ignore_eos\":true" },
    { "text", ",\"ignore_eos\":true,\"guided_json\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}" },
    { "record", ",\"ignore_eos\":true,\"guided_json\":" RECORD },
    { "regex", ",\"ignore_eos\":true,\"guided_regex\":\"[a-z ]*\"" },
    { "penalties",
      ",\"ignore_eos\":true,\"presence_penalty\":0.5,\"frequency_penalty\":0.2,\"repetition_penalty\":1.1" },
    { "four-choices", ",\"ignore_eos\":true,\"n\":4" },
};
enum { CASES = sizeof cases / sizeof *cases };

static struct sequence_world world;
static struct step *step;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void add(int i, const char *fields, int sequences)
{
    struct seat_lease *lease = calloc(1, sizeof *lease);
    struct request_fault fault;
    struct job *job;
    char *body;

    if (!lease ||
        asprintf(
            &body,
            "{\"prompt\":\"Package: number %d of %d\\nDescription:\",\"max_tokens\":%d,\"temperature\":1%s}",
            i, sequences, TOKENS, fields) < 0)
        die("memory", "none");
    lease->fence = (uint64_t)i + 1;
    lease->seed = (uint64_t)i;
    snprintf(lease->job, sizeof lease->job, "%d", i);
    snprintf(lease->endpoint, sizeof lease->endpoint, "/v1/completions");
    lease->body = (uint8_t *)body;
    lease->body_size = strlen(body);
    if (!job_new(&job, &world, lease, &fault))
        die(fields, fault.message);
    step_add(step, job);
}

static int64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Tokens/s of so many sequences, from the first step to the last answer. */
static double rate(const char *fields, int sequences)
{
    int count = strstr(fields, "\"n\":4") ? (sequences + 3) / 4 : sequences, done = 0;
    uint64_t tokens = 0;
    int64_t began;
    struct job *job;
    struct err err;

    for (int i = 0; i < count; i++)
        add(i, fields, sequences);
    began = cpu_ns();
    while (done < count) {
        if (step_advance(step, &err) != STEP_WORKED)
            die("step", "stuck");
        while ((job = step_take(step))) {
            if (job->failed || job->impossible)
                die(fields, job->fault.message);
            tokens += job_generated(job);
            job_free(job);
            done++;
        }
    }
    return (double)tokens / ((double)(cpu_ns() - began) / 1e9);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    int threads = argc > 2 ? atoi(argv[2]) : 1, sequences = argc > 3 ? atoi(argv[3]) : 32,
        rounds = argc > 4 ? atoi(argv[4]) : 7;
    struct model_options options = { .threads = threads };
    struct exchange_config config = { .bytes_max = 1 << 24, .incarnation = 1, .name = "w0", .family = "cpu" };
    struct seat_map_worker self = { .name = "w0", .incarnation = 1 };
    struct seat_map map = { .epoch = 1, .worker_count = 1, .worker = &self };
    char directory[] = "/tmp/moothall-rate-XXXXXX", path[64];
    static double seen[CASES][ROUNDS_MAX];
    static uint8_t moe[CONFIG_LAYERS_MAX];
    const struct model_config *c;
    double floor = argc > 5 ? atof(argv[5]) : 0;
    bool slow = false;
    struct step_config steps;
    struct tokenizer *tokenizer;
    struct exchange *exchange;
    struct link_context *context = link_context_new();
    struct model *model;
    struct err err;

    if (argc < 2 || sequences < 1 || sequences > 1024 || rounds < 1 || rounds > ROUNDS_MAX)
        die("structured_rate", "expected MODEL [threads [sequences [rounds [floor]]]]");
    if (!mkdtemp(directory) || !tokenizer_load(&tokenizer, argv[1], &err) ||
        !model_open(&model, argv[1], &options, &err) || !model_seat_all(model, &err))
        die(argv[1], err.text);
    c = model_config(model);
    snprintf(config.endpoint, sizeof config.endpoint, "ipc://%s/x", directory);
    for (int i = 0; i < c->layers; i++)
        moe[i] = config_layer_is_moe(c, i);
    config.shape = (struct dispatch_shape){ .hidden = (uint32_t)c->hidden,
                                            .carrier_bytes = (uint32_t)model_carrier_bytes(model),
                                            .expert_count = (uint32_t)c->experts,
                                            .experts_per_shard =
                                                c->experts_per_shard ? (uint32_t)c->experts_per_shard : 1,
                                            .shard_count = (uint32_t)c->shards,
                                            .layer_count = (uint32_t)c->layers,
                                            .moe = moe };
    map.seat = calloc((size_t)c->shards + 1, sizeof *map.seat);
    if (!map.seat || !exchange_new(&exchange, context, &config, &err))
        die("exchange", err.text);
    for (int i = 0; i < c->shards; i++)
        map.seat[map.seat_count++].shard = (uint32_t)i;
    exchange_map(exchange, &map);
    world = (struct sequence_world){ .tokenizer = tokenizer,
                                     .chat_why = "",
                                     .context = c->context,
                                     .vocab = c->vocab,
                                     .forms = forms_new(tokenizer, c->vocab, FORMS_BYTES_MAX) };
    steps = (struct step_config){ .sequences_max = sequences,
                                  .batch_tokens = 512,
                                  .cache_bytes = INT64_C(1) << 30 };
    if (!step_new(&step, model, tokenizer, exchange, &steps, &err))
        die("step", err.text);
    log_init("structured_rate", LOG_WARN, false);
    for (int round = -1; round < rounds;
         round++) /* the first one compiles and fills caches, and does not count */
        for (int i = 0; i < CASES; i++) {
            double got = rate(cases[i].fields, sequences);

            if (round >= 0)
                seen[i][round] = got;
        }
    for (int i = 0; i < CASES; i++) {
        qsort(seen[i], (size_t)rounds, sizeof seen[i][0], compare);
        slow =
            slow || (strstr(cases[i].fields, "guided") && seen[i][rounds / 2] < floor * seen[0][rounds / 2]);
        printf("{\"bench\":\"structured\",\"case\":\"%s\",\"value\":%.0f,\"unit\":\"tokens/"
               "cpu-s\",\"of_plain\":%.3f,\"sequences\":%d,"
               "\"threads\":%d,\"rounds\":%d,\"weights\":\"%s\"}\n",
               cases[i].name, seen[i][rounds / 2], seen[i][rounds / 2] / seen[0][rounds / 2], sequences,
               threads, rounds, weights_name(model_weights(model)));
    }
    free(map.seat);
    step_free(step);
    forms_free(world.forms);
    exchange_free(exchange);
    link_context_free(context);
    tokenizer_free(tokenizer);
    model_free(model);
    snprintf(path, sizeof path, "%s/x", directory);
    unlink(path);
    rmdir(directory);
    return slow;
}
