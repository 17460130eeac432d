/* status - what a hall is doing. */

#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/connect.h"
#include "client/say.h"
#include "client/verbs.h"

struct options {
    char broker[256], state[RECORD_PATH_MAX], queue[65], batch[RECORD_NAME_MAX + 1];
    bool json;
    int64_t timeout_ms;
};

static const struct field fields[] = {
    { "broker", OPTION_TEXT(struct options, broker), "the hall: tcp://HOST:PORT or ipc:///PATH" },
    { "state", OPTION_TEXT(struct options, state), "the state directory of a run: OUTPUT.moothall" },
    { "queue", OPTION_TEXT(struct options, queue), "only this queue" },
    { "batch", OPTION_TEXT(struct options, batch), "only this batch" },
    { "json", OPTION_FLAG(struct options, json), "one JSON object" },
    { "timeout", OPTION_NUMBER(struct options, timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),
      "give up when the broker is silent for so long (60s)" },
};

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
        json_array_append_new(queues, json_pack("{s:s,s:o,s:I}", "name", s->queue[i]->name, "counts",
                                                counts_json(s->queue[i]->counts), "entries",
                                                (json_int_t)s->queue[i]->entries));
    for (size_t i = 0; i < s->n_batch; i++)
        json_array_append_new(batches,
                              json_pack("{s:s,s:s,s:o,s:I,s:I}", "name", s->batch[i]->name, "queue",
                                        s->batch[i]->queue, "counts", counts_json(s->batch[i]->counts),
                                        "total", (json_int_t)s->batch[i]->total, "created_ms",
                                        (json_int_t)s->batch[i]->created_ms));
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

static void print_status(const Moothall__Status *s)
{
    printf("%-28s %8s %8s %8s %8s %8s %8s %8s\n", "", "ready", "leased", "delayed", "done", "failed", "lost",
           "total");
    if (s->batch_total)
        print_counts("this batch", s->counts, s->batch_total);
    else
        print_counts("all", s->counts, 0);
    for (size_t i = 0; i < s->n_queue; i++) {
        char name[80];

        snprintf(name, sizeof name, "queue %s", s->queue[i]->name);
        print_counts(name, s->queue[i]->counts, 0);
    }
    for (size_t i = 0; i < s->n_batch; i++) {
        char name[160];

        snprintf(name, sizeof name, "batch %s", s->batch[i]->name);
        print_counts(name, s->batch[i]->counts, s->batch[i]->total);
    }
    if (s->batch_total)
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
        json_t *root = status_json(answer->envelope->status);

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
    .what = "what a hall is doing: jobs by state, workers and their shards",
    .words = "--broker ENDPOINT | --state DIR [--queue Q] [--batch B] [--json]",
    .example = "moothall status --state results.jsonl.moothall",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = status_verb,
};
