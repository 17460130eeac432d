/* logprobs - what the model says of given tokens, for the parity tests.  Not installed.
 *
 *     logprobs MODEL WEIGHTS(-|f32|bf16) THREADS CHUNK(0: all at once) < lines
 *
 * Each line of stdin is "<prompt length> <id> <id> ...": the first ids form the prompt, the others are
 * fed as generated positions.  For each line, one line of JSON: {"logprobs": [[...], ...]}, log-probs over
 * the whole vocabulary at every position, in full precision.  All lines go through the model together in one
 * mixed batch, CHUNK rows of each prompt a step. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/forward.h"
#include "worker/model/sample.h"

enum { LINES_MAX = 64, IDS_MAX = 4096, ROWS_MAX = 1024 };

struct line {
    int prompt, count, at;
    int32_t id[IDS_MAX];
    struct cache_sequence cache;
    float *logprob; /* [count, V] */
};

static void fail(const struct err *err)
{
    fprintf(stderr, "logprobs: %s\n", err->text);
    exit(1);
}

static int read_lines(struct line *line)
{
    static char text[IDS_MAX * 12];
    int n = 0;

    while (n < LINES_MAX && fgets(text, sizeof text, stdin)) {
        char *at = text, *end;

        line[n].prompt = (int)strtol(at, &end, 10);
        for (at = end; line[n].count < IDS_MAX; at = end) {
            long id = strtol(at, &end, 10);

            if (end == at)
                break;
            line[n].id[line[n].count++] = (int32_t)id;
        }
        n++;
    }
    return n;
}

int main(int argc, char **argv)
{
    static struct line line[LINES_MAX];
    static struct forward_row row[ROWS_MAX];
    static struct {
        int line, position;
    } from[ROWS_MAX];
    struct model_options options = { .weights = WEIGHTS_OF_CHECKPOINT };
    struct err err;
    struct model *model;
    struct forward *step;
    struct experts *experts;
    struct cache_pool *pool;
    int lines, chunk, V;

    if (argc != 5)
        return fprintf(stderr, "usage: logprobs MODEL -|f32|bf16 THREADS CHUNK\n"), 1;
    if (strcmp(argv[2], "-") != 0 && !weights_parse(argv[2], &options.weights))
        return fprintf(stderr, "unknown weights %s\n", argv[2]), 1;
    options.threads = atoi(argv[3]);
    chunk = atoi(argv[4]) > 0 ? atoi(argv[4]) : ROWS_MAX;
    if (!model_open(&model, argv[1], &options, &err) || !model_seat_all(model, &err))
        fail(&err);
    V = model_config(model)->vocab;
    step = forward_new(model, ROWS_MAX, 16);
    experts = experts_new(model);
    pool = cache_pool_new(model, (int64_t)1 << 30);
    if (!step || !experts || !pool)
        return fprintf(stderr, "no memory\n"), 1;
    lines = read_lines(line);
    for (int l = 0; l < lines; l++) {
        cache_sequence_init(&line[l].cache, pool);
        line[l].logprob = malloc((size_t)line[l].count * (size_t)V * sizeof(float));
        if (!line[l].logprob || !cache_grow(&line[l].cache, line[l].count, &err))
            fail(&err);
    }
    for (;;) {
        int rows = 0;

        for (int l = 0; l < lines; l++)
            for (int n = 0; n < chunk && rows < forward_rows_max(step) && line[l].at < line[l].count; n++) {
                bool generated = line[l].at >= line[l].prompt;

                if (generated && n > 0)
                    break;
                from[rows].line = l;
                from[rows].position = line[l].at;
                row[rows++] = (struct forward_row){ &line[l].cache, line[l].id[line[l].at], line[l].at,
                                                    generated, true };
                line[l].at++;
            }
        if (rows == 0)
            break;
        if (!forward_run(step, experts, row, rows, &err))
            fail(&err);
        for (int first = 0; first < rows; first += 16) {
            int count = rows - first < 16 ? rows - first : 16;

            while (!forward_logits(step, first, count))
                ;
            for (int i = first; i < first + count; i++) {
                float *into = line[from[i].line].logprob + (size_t)from[i].position * (size_t)V;
                const float *logits = forward_logits_of(step, i);
                struct sampler *sampler = sampler_new(model_backend(model), V);
                float of_zero = sample_logprobs(sampler, logits, 0, NULL, 0);

                for (int v = 0; v < V; v++)
                    into[v] = logits[v] - (logits[0] - of_zero);
                sampler_free(sampler);
            }
        }
    }
    for (int l = 0; l < lines; l++) {
        printf("{\"logprobs\": [");
        for (int p = 0; p < line[l].count; p++) {
            printf("%s[", p ? ", " : "");
            for (int v = 0; v < V; v++)
                printf("%s%.9g", v ? ", " : "", (double)line[l].logprob[(size_t)p * (size_t)V + (size_t)v]);
            printf("]");
        }
        printf("]}\n");
        cache_sequence_fini(&line[l].cache);
        free(line[l].logprob);
    }
    cache_pool_free(pool);
    experts_free(experts);
    forward_free(step);
    model_free(model);
    return 0;
}
