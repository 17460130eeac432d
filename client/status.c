/* status, top - what a hall is doing: once, or again and again. */

#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/connect.h"
#include "client/say.h"
#include "client/stop.h"
#include "client/verbs.h"
#include "client/when.h"

struct options {
    char broker[256], state[RECORD_PATH_MAX], queue[65], batch[RECORD_NAME_MAX + 1];
    bool json;
    int64_t timeout_ms, every_ms;
};

static const struct field fields[] = {
    { "broker", OPTION_TEXT(struct options, broker), "the hall: tcp://HOST:PORT or ipc:///PATH" },
    { "state", OPTION_TEXT(struct options, state), "the state directory of a run: OUTPUT.moothall" },
    { "queue", OPTION_TEXT(struct options, queue), "only this queue" },
    { "batch", OPTION_TEXT(struct options, batch), "only this batch" },
    { "json", OPTION_FLAG(struct options, json), "one JSON object; with --batch the OpenAI Batch object" },
    { "timeout", OPTION_NUMBER(struct options, timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),
      "give up when the broker is silent for so long (60s)" },
};

static const struct field top_fields[] = {
    { "broker", OPTION_TEXT(struct options, broker), "the hall: tcp://HOST:PORT or ipc:///PATH" },
    { "state", OPTION_TEXT(struct options, state), "the state directory of a run: OUTPUT.moothall" },
    { "queue", OPTION_TEXT(struct options, queue), "only this queue" },
    { "batch", OPTION_TEXT(struct options, batch), "only this batch" },
    { "every", OPTION_NUMBER(struct options, every_ms, FIELD_DURATION, 100, 3600 * 1000), "time between two looks (2s)" },
    { "timeout", OPTION_NUMBER(struct options, timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),
      "give up when the broker is silent for so long (default: 60 s at the start, then never)" },
};

/* ---- the OpenAI Batch object ----------------------------------------------------------------------------- */

static const char *state_name(Moothall__BatchState state)
{
    static const char *const name[] = { "validating", "validating", "failed",     "in_progress", "finalizing",
                                        "completed",  "expired",    "cancelling", "cancelled" };

    return (size_t)state < sizeof name / sizeof *name ? name[state] : name[0];
}

/* Unix seconds; null until it happens. */
static json_t *seconds(int64_t ms)
{
    return ms ? json_integer(ms / 1000) : json_null();
}

/* What we have none of (files, a window that the service sets) is null.  `failed` counts everything that ended without an
 * answer; what exactly, and where the batch is, stands under `moothall`. */
static json_t *batch_json(const Moothall__Status *s, const Moothall__BatchStatus *b, json_t *counts)
{
    static const Moothall__Counts none = MOOTHALL__COUNTS__INIT;
    const Moothall__Counts *c = b->counts ? b->counts : &none;
    json_int_t failed = (json_int_t)(c->failed + c->dead + c->cancelled + c->expired);

    return json_pack(
        "{s:s,s:s,s:o,s:n,s:n,s:n,s:s,s:n,s:n,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,"
        "s:{s:I,s:I,s:I},s:{s:I,s:{s:I},s:I,s:{s:i},s:I},s:n,s:{s:s,s:o,s:I,s:I,s:s}}",
        "id", b->name, "object", "batch", "endpoint", *b->endpoint ? json_string(b->endpoint) : json_null(), "errors",
        "input_file_id", "completion_window", "status", state_name(b->state), "output_file_id", "error_file_id",
        "created_at", seconds(b->created_ms), "in_progress_at", seconds(b->in_progress_ms), "expires_at",
        seconds(b->expires_ms), "finalizing_at", seconds(b->finalizing_ms), "completed_at", seconds(b->completed_ms),
        "failed_at", seconds(b->failed_ms), "expired_at", seconds(b->expired_ms), "cancelling_at",
        seconds(b->cancelling_ms), "cancelled_at", seconds(b->cancelled_ms), "request_counts", "total",
        (json_int_t)b->total, "completed", (json_int_t)c->done, "failed", failed, "usage", "input_tokens",
        (json_int_t)b->prompt_tokens, "input_tokens_details", "cached_tokens", (json_int_t)b->cached_tokens,
        "output_tokens", (json_int_t)b->generated_tokens, "output_tokens_details", "reasoning_tokens", 0, "total_tokens",
        (json_int_t)(b->prompt_tokens + b->generated_tokens), "metadata", "moothall", "queue", b->queue, "counts", counts,
        "first_unfinished", (json_int_t)s->first_unfinished, "waiting", (json_int_t)s->waiting, "waiting_for",
        s->waiting_for);
}

/* ---- as JSON ----------------------------------------------------------------------------------------- */

static json_t *counts_json(const Moothall__Counts *c)
{
    static const Moothall__Counts none = MOOTHALL__COUNTS__INIT;

    if (!c)
        c = &none;
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "ready", (json_int_t)c->ready, "leased",
                     (json_int_t)c->leased, "delayed", (json_int_t)c->delayed, "done", (json_int_t)c->done,
                     "failed", (json_int_t)c->failed, "dead", (json_int_t)c->dead, "cancelled",
                     (json_int_t)c->cancelled, "expired", (json_int_t)c->expired);
}

static json_t *exchange_json(const Moothall__ExchangeCounts *e)
{
    static const Moothall__ExchangeCounts none = MOOTHALL__EXCHANGE_COUNTS__INIT;

    if (!e)
        e = &none;
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "dispatches", (json_int_t)e->dispatches,
                     "dispatch_bytes", (json_int_t)e->dispatch_bytes, "dispatch_rows",
                     (json_int_t)e->dispatch_rows, "sums_bytes", (json_int_t)e->sums_bytes, "resent",
                     (json_int_t)e->resent, "steps", (json_int_t)e->steps, "decode_steps",
                     (json_int_t)e->decode_steps, "decode_dispatches", (json_int_t)e->decode_dispatches,
                     "served", (json_int_t)e->served, "served_rows", (json_int_t)e->served_rows, "moe_layers",
                     (json_int_t)e->moe_layers);
}

static json_t *numbers_json(const uint32_t *number, size_t count)
{
    json_t *list = json_array();

    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_integer(number[i]));
    return list;
}

static json_t *queue_json(const Moothall__QueueStatus *q)
{
    json_t *consumers = json_array();

    for (size_t i = 0; i < q->n_consumer; i++)
        json_array_append_new(consumers, json_pack("{s:s,s:s,s:I,s:I}", "name", q->consumer[i]->name, "batch",
                                                   q->consumer[i]->batch, "position", (json_int_t)q->consumer[i]->position,
                                                   "moved_ms", (json_int_t)q->consumer[i]->moved_ms));
    return json_pack("{s:s,s:o,s:I,s:b,s:I,s:I,s:o}", "name", q->name, "counts", counts_json(q->counts), "entries",
                     (json_int_t)q->entries, "paused", q->paused, "retention_ms", (json_int_t)q->retention_ms, "purged",
                     (json_int_t)q->purged, "consumers", consumers);
}

static json_t *status_json(const Moothall__Status *s)
{
    json_t *root = json_object(), *queues = json_array(), *batches = json_array(), *workers = json_array();
    char hex[2 * 64 + 1] = "";

    if (s->fingerprint.len <= 64)
        sodium_bin2hex(hex, sizeof hex, s->fingerprint.data, s->fingerprint.len);
    json_object_set_new(root, "counts", counts_json(s->counts));
    json_object_set_new(root, "batch_total", json_integer((json_int_t)s->batch_total));
    json_object_set_new(root, "first_unfinished", json_integer((json_int_t)s->first_unfinished));
    json_object_set_new(root, "waiting", json_integer((json_int_t)s->waiting));
    json_object_set_new(root, "prompt_tokens", json_integer((json_int_t)s->prompt_tokens));
    json_object_set_new(root, "generated_tokens", json_integer((json_int_t)s->generated_tokens));
    for (size_t i = 0; i < s->n_queue; i++)
        json_array_append_new(queues, queue_json(s->queue[i]));
    for (size_t i = 0; i < s->n_batch; i++)
        json_array_append_new(batches,
                              json_pack("{s:s,s:s,s:s,s:o,s:I,s:I}", "name", s->batch[i]->name, "queue",
                                        s->batch[i]->queue, "status", state_name(s->batch[i]->state), "counts",
                                        counts_json(s->batch[i]->counts), "total", (json_int_t)s->batch[i]->total,
                                        "created_ms", (json_int_t)s->batch[i]->created_ms));
    for (size_t i = 0; i < s->n_worker; i++) {
        const Moothall__WorkerStatus *w = s->worker[i];

        json_array_append_new(
            workers,
            json_pack("{s:s,s:i,s:s,s:b,s:b,s:o,s:i,s:i,s:i,s:I,s:I,s:I,s:s,s:o}", "name", w->name, "pid",
                      (int)w->pid, "endpoint", w->endpoint, "connected", w->connected, "seated", w->seated,
                      "shards", numbers_json(w->shard, w->n_shard), "leases", (int)w->leases, "sequences",
                      (int)w->sequences, "waiting_shard", (int)w->waiting_shard, "prompt_tokens",
                      (json_int_t)w->prompt_tokens, "generated_tokens", (json_int_t)w->generated_tokens,
                      "silent_ms", (json_int_t)w->silent_ms, "family", w->family, "exchange",
                      exchange_json(w->exchange)));
    }
    json_object_set_new(root, "queues", queues);
    json_object_set_new(root, "batches", batches);
    json_object_set_new(root, "workers", workers);
    json_object_set_new(root, "epoch", json_integer((json_int_t)s->epoch));
    json_object_set_new(root, "unseated", numbers_json(s->unseated, s->n_unseated));
    json_object_set_new(root, "waiting_for", json_string(s->waiting_for));
    json_object_set_new(root, "family", json_string(s->family));
    json_object_set_new(root, "numerics", json_string(s->numerics));
    json_object_set_new(root, "started_ms", json_integer((json_int_t)s->started_ms));
    json_object_set_new(root, "fingerprint", json_string(hex));
    return root;
}

/* ---- for people --------------------------------------------------------------------------------------- */

static void print_counts(const char *name, const Moothall__Counts *c, uint64_t total)
{
    static const Moothall__Counts none = MOOTHALL__COUNTS__INIT;

    if (!c)
        c = &none;
    if (strlen(name) > 28) { /* whole, so that it can be copied */
        printf("%s\n", name);
        name = "";
    }
    printf("%-28s %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8" PRIu64, name,
           c->ready, c->leased, c->delayed, c->done, c->failed, c->dead + c->cancelled + c->expired);
    if (total)
        printf(" %8" PRIu64, total);
    printf("\n");
}

/* Runs as a-b. */
static void print_shards(const uint32_t *shard, size_t count)
{
    size_t i = 0;

    if (!count)
        printf("none");
    while (i < count) {
        size_t j = i;

        while (j + 1 < count && shard[j + 1] == shard[j] + 1)
            j++;
        printf("%s%u", i ? "," : "", shard[i]);
        if (j > i)
            printf("-%u", shard[j]);
        i = j + 1;
    }
}

static void print_worker(const Moothall__WorkerStatus *w)
{
    if (!w->connected) {
        printf("worker %s: gone; it held shards ", w->name);
        print_shards(w->shard, w->n_shard);
        printf("\n");
        return;
    }
    printf("worker %s (process %u): %s, shards ", w->name, w->pid, w->seated ? "seated" : "loading");
    print_shards(w->shard, w->n_shard);
    printf(", %u leases, %u sequences, %" PRIu64 " tokens generated", w->leases, w->sequences,
           w->generated_tokens);
    if (w->waiting_shard >= 0 && w->seated && w->sequences)
        printf(", waiting for shard %d", w->waiting_shard);
    printf("\n");
}

/* What is set of a queue, and who reads it. */
static void print_queue(const Moothall__QueueStatus *q)
{
    char text[64];

    if (q->paused)
        printf("queue %s is paused; `moothall resume` lets it go on\n", q->name);
    if (q->retention_ms)
        printf("queue %s keeps what has ended %s\n", q->name, when_write_span(text, sizeof text, q->retention_ms));
    if (q->purged)
        printf("queue %s: the texts of %" PRIu64 " results were erased\n", q->name, q->purged);
    for (size_t i = 0; i < q->n_consumer; i++) {
        const Moothall__ConsumerStatus *c = q->consumer[i];

        if (!strncmp(c->name, "run-", 4)) /* a run's own: its output says it */
            continue;
        if (*c->batch) /* a number of a result, or a place in the batch: its order says which */
            printf("queue %s, consumer %s of batch %s: at %" PRIu64, q->name, c->name, c->batch, c->position);
        else /* the next one's number, from 1 */
            printf("queue %s, consumer %s: has %" PRIu64 " of %" PRIu64 " results", q->name, c->name,
                   c->position ? c->position - 1 : 0, q->entries);
        printf(", moved %s\n", when_write(text, c->moved_ms));
    }
}

static void print_status(const Moothall__Status *s)
{
    printf("%-28s %8s %8s %8s %8s %8s %8s %8s\n", "", "ready", "leased", "delayed", "done", "failed", "not done",
           "total");
    if (s->batch_total)
        print_counts(s->n_batch > 1 ? "these batches" : "this batch", s->counts, s->batch_total);
    else
        print_counts("all", s->counts, 0);
    for (size_t i = 0; i < s->n_queue; i++) {
        char name[80];

        snprintf(name, sizeof name, "queue %s", s->queue[i]->name);
        print_counts(name, s->queue[i]->counts, 0);
    }
    for (size_t i = 0; i < s->n_batch; i++) {
        char name[240];

        snprintf(name, sizeof name, "batch %.128s%s%.64s%s%s", s->batch[i]->name,
                 s->batch_total && s->n_batch > 1 ? " of queue " : "",
                 s->batch_total && s->n_batch > 1 ? s->batch[i]->queue : "",
                 s->batch[i]->state == MOOTHALL__BATCH_STATE__CANCELLING ||
                         s->batch[i]->state == MOOTHALL__BATCH_STATE__BATCH_CANCELLED
                     ? ", "
                     : "",
                 s->batch[i]->state == MOOTHALL__BATCH_STATE__CANCELLING        ? "cancelling"
                 : s->batch[i]->state == MOOTHALL__BATCH_STATE__BATCH_CANCELLED ? "cancelled"
                                                                                : "");
        print_counts(name, s->batch[i]->counts, s->batch[i]->total);
    }
    for (size_t i = 0; i < s->n_queue; i++)
        print_queue(s->queue[i]);
    if (s->batch_total && s->n_batch == 1)
        printf("first unfinished: position %" PRIu64 "; %" PRIu64 " finished ones wait behind it\n",
               s->first_unfinished, s->waiting);
    if (s->prompt_tokens)
        printf("tokens: %" PRIu64 " of prompts, %" PRIu64 " generated\n", s->prompt_tokens,
               s->generated_tokens);
    if (*s->numerics)
        printf("numerics: %s\n", s->numerics);
    if (!s->n_worker)
        printf("no workers\n");
    for (size_t i = 0; i < s->n_worker; i++)
        print_worker(s->worker[i]);
    if (s->n_unseated) {
        printf("without a seat: shards ");
        print_shards(s->unseated, s->n_unseated);
        printf("\n");
    }
    if (*s->waiting_for)
        printf("waiting: %s\n", s->waiting_for);
}

static bool look(struct connection *connection, void *arg, struct err *err)
{
    const struct options *o = arg;
    Moothall__StatusAsk ask = MOOTHALL__STATUS_ASK__INIT;
    const struct link_message *answer;
    char queue[sizeof o->queue], batch[RECORD_NAME_MAX + 1];

    snprintf(queue, sizeof queue, "%s", o->queue);
    snprintf(batch, sizeof batch, "%s",
             connection->has_record && !*o->queue && !*o->batch ? connection->record.batch : o->batch); /* the run's own */
    ask.queue = queue;
    ask.batch = batch;
    if (!hall_ask(connection->hall, MOOTHALL__ENVELOPE__BODY_STATUS_ASK, &ask, MOOTHALL__ENVELOPE__BODY_STATUS, &answer, err))
        return false;
    if (o->json) {
        const Moothall__Status *s = answer->envelope->status;
        json_t *root = *o->batch && s->n_batch == 1 ? batch_json(s, s->batch[0], counts_json(s->batch[0]->counts)) : status_json(s);

        json_dumpf(root, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(root);
    } else {
        print_status(answer->envelope->status);
    }
    return fflush(stdout) == 0 || err_errno(err, "write standard output");
}

static int status_verb(const struct verb *verb, int argc, char **argv)
{
    struct options options = { .timeout_ms = -1 };
    struct err err = { 0 };
    bool ok;

    if (!verb_flags(verb, &argc, argv, &options, &err))
        return say_failed("status", &err);
    if (argc > 1) {
        err_set(&err, ERR_INPUT, "unexpected word `%.200s`; expected only flags", argv[1]);
        return say_failed("status", &err);
    }
    ok = connection_look("status", options.broker, options.state, options.timeout_ms, look, &options, &err);
    return ok ? 0 : say_failed("status", &err);
}

const struct verb verb_status = {
    .name = "status",
    .what = "what a hall is doing: jobs by state, queues, workers and their shards",
    .words = "--broker ENDPOINT | --state DIR [--queue Q] [--batch B] [--json]",
    .more = "With --batch and --json it is the batch as the OpenAI Batch API shows it: status, request_counts, usage, and\n"
            "times in seconds since 1970 that are null until they happen.",
    .example = "moothall status --state results.jsonl.moothall",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = status_verb,
};

/* ---- top -------------------------------------------------------------------------------------------------- */

static bool look_again(struct connection *connection, void *arg, struct err *err)
{
    const struct options *o = arg;
    bool terminal = isatty(STDOUT_FILENO);

    for (;;) {
        int64_t until_ms;
        char when[WHEN_WRITTEN_SIZE];

        if (terminal)
            fputs("\033[H\033[J", stdout); /* home, and clear what was below */
        printf("moothall %s\n\n", when_write(when, clock_wall_ms()));
        if (!look(connection, arg, err))
            return false;
        if (!terminal)
            putchar('\n');
        /* The session is kept alive by asking: a long pause is cut into short ones. */
        until_ms = clock_now_ms() + o->every_ms;
        while (clock_now_ms() < until_ms) {
            int64_t left_ms = until_ms - clock_now_ms();

            if (!stop_check(err) || !hall_turn(connection->hall, err) ||
                (connection->private_hall && !private_hall_turn(connection->private_hall, err)))
                return false;
            nanosleep(&(struct timespec){ .tv_nsec = (left_ms < 50 ? left_ms : 50) * 1000 * 1000 }, NULL);
        }
    }
}

static int top_verb(const struct verb *verb, int argc, char **argv)
{
    struct options options = { .timeout_ms = -1, .every_ms = 2000 };
    struct err err = { 0 };

    if (!verb_flags(verb, &argc, argv, &options, &err))
        return say_failed("top", &err);
    if (argc > 1) {
        err_set(&err, ERR_INPUT, "unexpected word `%.200s`; expected only flags", argv[1]);
        return say_failed("top", &err);
    }
    connection_look("top", options.broker, options.state, options.timeout_ms, look_again, &options, &err);
    /* It has no end of its own: to be told to stop is the good one. */
    return err.code == ERR_INTERRUPTED ? 0 : say_failed("top", &err);
}

const struct verb verb_top = {
    .name = "top",
    .what = "status, again and again, until ^C",
    .words = "--broker ENDPOINT | --state DIR [--every 2s] [--queue Q] [--batch B]",
    .example = "moothall top --broker tcp://hall:7500 --every 5s",
    .fields = top_fields,
    .field_count = OPTION_COUNT(top_fields),
    .run = top_verb,
};
