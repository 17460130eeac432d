/* bench hall - N workers of one thread that share the experts, against one worker of N threads. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/bench.h"
#include "client/files.h"
#include "client/hall.h"
#include "client/private_hall.h"
#include "client/say.h"
#include "client/stop.h"
#include "proto/request.h"
#include "worker/model/model.h"
#include "worker/model/tokenizer.h"

enum {
    SEAT_PATIENCE_MS = 30 * 60 * 1000, /* a large model takes its time to load */
    ROUNDS_MAX = 101,
};

struct setting {
    int workers, threads;
    char dir[4096];
    struct state_lock lock;
    struct private_hall *private_hall;
    struct hall *hall;
    double rate[1 + ROUNDS_MAX]; /* the first warms up */
    double tokens;               /* of all rounds but the first */
    double messages, bytes;
    char numerics[80], family[40];
    const char *weights; /* that it computes in */
};

struct work {
    int32_t *id; /* that may stand in a prompt */
    size_t id_count;
    const struct bench_options *options;
};

static bool status(struct setting *s, const char *batch, const Moothall__Status **out, struct err *err)
{
    Moothall__StatusAsk ask = MOOTHALL__STATUS_ASK__INIT;
    const struct link_message *answer;

    ask.batch = (char *)(uintptr_t)batch;
    if (!hall_ask(s->hall, MOOTHALL__ENVELOPE__BODY_STATUS_ASK, &ask, MOOTHALL__ENVELOPE__BODY_STATUS,
                  &answer, err))
        return false;
    *out = answer->envelope->status;
    private_hall_note(s->private_hall, *out);
    return true;
}

static bool open_setting(struct setting *s, struct link_context *context, const struct bench_options *o,
                         const char *name, struct err *err)
{
    static const char *const weights[] = { "auto", "f32", "bf16" };
    struct private_config config = { .lock = &s->lock,
                                     .workers = s->workers,
                                     .threads = s->threads,
                                     .sequences = (int)o->sequences,
                                     .model = o->model,
                                     .weights = weights[o->weights] };
    struct hall_config hall_config = {
        .name = "bench", .role = MOOTHALL__ROLE__CLIENT, .timeout_ms = INT64_MAX, .silent = true
    }; /* one hall hears nothing from us while the other is measured */
    int64_t until_ms = clock_now_ms() + SEAT_PATIENCE_MS;
    const Moothall__Status *st;

    if (!bench_directory(o, name, s->dir, sizeof s->dir, err) ||
        !state_lock_take(&s->lock, s->dir, "bench", err) ||
        !private_hall_start(&s->private_hall, context, &config, err))
        return false;
    hall_config.endpoint = private_hall_endpoint(s->private_hall);
    hall_config.side = private_hall_side(s->private_hall);
    if (!hall_new(&s->hall, context, &hall_config, err) || !hall_open(s->hall, NULL, err))
        return false;
    for (;;) { /* until all sit */
        size_t seated = 0;

        if (!status(s, "", &st, err))
            return false;
        for (size_t i = 0; i < st->n_worker; i++)
            seated += st->worker[i]->connected && st->worker[i]->seated;
        if (seated == (size_t)s->workers && !st->n_unseated)
            return true;
        if (clock_now_ms() > until_ms)
            return err_set(err, ERR_TIMEOUT, "the workers were not seated within %d minutes",
                           SEAT_PATIENCE_MS / 60000);
        usleep(50 * 1000);
    }
}

static void close_setting(struct setting *s)
{
    hall_free(s->hall);
    private_hall_stop(s->private_hall);
    state_lock_release(&s->lock);
    if (*s->dir)
        file_remove_tree(s->dir, NULL);
}

/* Prompts of ids drawn by a fixed rule: the same requests in every measurement. */
static bool make_body(const struct work *work, uint32_t number, struct buf *body)
{
    uint64_t x = number * UINT64_C(0x9e3779b97f4a7c15) + 1;
    bool ok = buf_format(body, "{\"max_tokens\":%" PRId64 ",\"prompt\":[", work->options->max_tokens);

    for (int64_t i = 0; ok && i < work->options->prompt_tokens; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        ok = buf_format(body, i ? ",%d" : "%d", work->id[x % work->id_count]);
    }
    return ok && buf_text(body, "],\"temperature\":1}");
}

static bool measure(struct setting *s, struct work *work, int round, struct err *err)
{
    const struct bench_options *o = work->options;
    char batch[40];
    struct hall_submission submission = { .queue = "bench",
                                          .batch = batch,
                                          .batch_total = (uint32_t)o->requests };
    const Moothall__Status *st;
    double messages, bytes, bytes_after, tokens;
    int64_t begin_ns;

    snprintf(batch, sizeof batch, "round-%d", round);
    usleep(1200 * 1000); /* the counts come with heartbeats: let the last round's arrive */
    if (!status(s, "", &st, err))
        return false;
    messages = hall_exchange(st, &bytes);
    begin_ns = clock_now_ns();
    for (uint32_t i = 0; i < o->requests; i++) {
        struct buf body = { 0 };
        char id[REQUEST_JOB_ID_SIZE], custom_id[24];
        struct hall_job job = {
            .id = id, .custom_id = custom_id, .position = i, .seed = i + 1, .endpoint = "/v1/completions"
        };
        bool ok;

        snprintf(custom_id, sizeof custom_id, "%u", i);
        request_job_id(id, span_text(batch), span_text(custom_id));
        if (!make_body(work, i, &body)) {
            buf_fini(&body);
            return err_set(err, ERR_IO, "no memory for a request");
        }
        job.body = buf_span(&body);
        ok = hall_submit(s->hall, &submission, &job, err);
        buf_fini(&body);
        if (!ok)
            return false;
    }
    if (!hall_submit_end(s->hall, &submission, err))
        return false;
    for (;;) { /* the answer to a fetch by position comes as soon as there is something */
        Moothall__Fetch fetch = MOOTHALL__FETCH__INIT;
        const struct link_message *answer;
        const Moothall__Entries *entries;

        fetch.queue = (char *)(uintptr_t)submission.queue;
        fetch.batch = batch;
        fetch.order = MOOTHALL__ORDER__POSITION;
        fetch.from = (uint64_t)o->requests - 1;
        fetch.items_max = 1;
        fetch.bytes_max = 1 << 20;
        fetch.wait_ms = 1000;
        if (!hall_ask(s->hall, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, MOOTHALL__ENVELOPE__BODY_ENTRIES,
                      &answer, err))
            return false;
        entries = answer->envelope->entries;
        if (entries->n_entry && entries->entry[0]->state != MOOTHALL__STATE__DONE)
            return err_set(err, ERR_INPUT, "a request of the measurement failed: %.500s %.*s",
                           entries->entry[0]->reason,
                           (int)(answer->payload.size < 300 ? answer->payload.size : 300),
                           (const char *)answer->payload.data);
        if (!status(s, batch, &st, err))
            return false;
        if (st->counts && st->counts->done + st->counts->failed + st->counts->dead >= (uint64_t)o->requests)
            break;
        if (entries->n_entry)
            usleep(2000);
    }
    tokens = (double)(st->prompt_tokens + st->generated_tokens);
    s->rate[round] = tokens * 1e9 / (double)(clock_now_ns() - begin_ns);
    snprintf(s->family, sizeof s->family, "%s", st->family);
    snprintf(s->numerics, sizeof s->numerics, "%s", st->numerics);
    usleep(1200 * 1000);
    if (!status(s, "", &st, err))
        return false;
    s->messages += hall_exchange(st, &bytes_after) - messages;
    s->bytes += bytes_after - bytes;
    s->tokens += tokens;
    return true;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *value, int count)
{
    qsort(value, (size_t)count, sizeof *value, by_value);
    return count % 2 ? value[count / 2] : (value[count / 2 - 1] + value[count / 2]) / 2;
}

static void print_line(const char *which, double value, const char *unit, const struct setting *s,
                       const struct bench_options *o)
{
    printf("{\"bench\":\"hall\",\"case\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"workers\":%d,\"threads\":%d,"
           "\"weights\":\"%s\",\"numerics\":\"%s\",\"family\":\"%s\","
           "\"sequences\":%" PRId64 ",\"requests\":%" PRId64 ",\"prompt_tokens\":%" PRId64
           ",\"max_tokens\":%" PRId64 ",\"rounds\":%" PRId64
           ",\"cores\":%ld,\"durability\":\"fsync\",\"version\":\"%s\"}\n",
           which, value, unit, s->workers, s->threads, s->weights, s->numerics, s->family, o->sequences,
           o->requests, o->prompt_tokens, o->max_tokens, o->rounds, sysconf(_SC_NPROCESSORS_ONLN),
           MOOTHALL_VERSION);
    fflush(stdout);
}

/* What "auto" comes to. */
static bool find_weights(const struct bench_options *o, const char **weights, struct err *err)
{
    struct model_options options = { .threads = 1,
                                     .weights = o->weights == 1   ? WEIGHTS_F32
                                                : o->weights == 2 ? WEIGHTS_BF16
                                                                  : WEIGHTS_OF_CHECKPOINT };
    struct model *model;

    if (!model_open(&model, o->model, &options, err))
        return false;
    *weights = weights_name(model_weights(model)); /* a literal */
    model_free(model);
    return true;
}

static bool find_ids(struct work *work, struct err *err)
{
    struct tokenizer *tokenizer;
    int32_t size;

    if (!tokenizer_load(&tokenizer, work->options->model, err))
        return false;
    size = tokenizer_size(tokenizer);
    work->id = malloc((size_t)size * sizeof *work->id);
    if (!work->id) {
        tokenizer_free(tokenizer);
        return err_set(err, ERR_IO, "no memory for %d ids", size);
    }
    for (int32_t id = 0; id < size; id++)
        if (tokenizer_has(tokenizer, id) && !tokenizer_is_control(tokenizer, id))
            work->id[work->id_count++] = id;
    tokenizer_free(tokenizer);
    return work->id_count > 0 ||
           err_set(err, ERR_INPUT, "%s: the tokenizer has no ids", work->options->model);
}

bool bench_hall(const struct bench_options *o, struct err *err)
{
    struct setting *set = calloc(2, sizeof *set);
    struct link_context *context = link_context_new();
    struct work work = { .options = o };
    char name[40];
    double shared, single;
    bool ok = false;

    if (!set) {
        err_set(err, ERR_IO, "no memory for a measurement");
        goto out;
    }
    for (int i = 0; i < 2; i++)
        set[i].lock.run_fd = set[i].lock.shared_fd = -1;
    set[0].workers = (int)o->workers;
    set[0].threads = 1;
    set[1].workers = 1;
    set[1].threads = (int)o->workers;
    if (!*o->model) {
        err_set(err, ERR_INPUT, "no model: expected --model DIR");
        goto out;
    }
    if (!find_ids(&work, err) || !find_weights(o, &set[0].weights, err) ||
        !find_weights(o, &set[1].weights, err) || !open_setting(&set[0], context, o, "shared", err) ||
        !open_setting(&set[1], context, o, "single", err))
        goto out;
    for (int i = 0; i < 2; i++) /* warms up: pages, caches, threads */
        if (!measure(&set[i], &work, 0, err))
            goto out;
    for (int i = 0; i < 2; i++)
        set[i].messages = set[i].bytes = set[i].tokens = 0;
    for (int round = 1; round <= o->rounds; round++)
        for (int i = 0; i < 2; i++)
            if (!measure(&set[i], &work, round, err))
                goto out;
    shared = median(set[0].rate + 1, (int)o->rounds);
    single = median(set[1].rate + 1, (int)o->rounds);
    snprintf(name, sizeof name, o->workers == 2 ? "two-workers-share" : "%d-workers-share", (int)o->workers);
    print_line("shared", shared, "tokens/s", &set[0], o);
    print_line("single", single, "tokens/s", &set[1], o);
    print_line(name, shared / single, "share", &set[0], o);
    print_line("messages", set[0].messages / set[0].tokens, "messages/token", &set[0], o);
    print_line("bytes", set[0].bytes / set[0].tokens, "bytes/token", &set[0], o);
    ok = true;
out:
    if (set) {
        close_setting(&set[0]);
        close_setting(&set[1]);
    }
    free(set);
    free(work.id);
    link_context_free(context);
    return ok;
}
