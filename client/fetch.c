/* fetch - results out of a hall, as a named consumer that knows how far it is, or from the start. */

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "client/connect.h"
#include "client/output.h"
#include "client/say.h"
#include "client/verbs.h"

static const char *const order_choices[] = { "completion", "input", NULL };

struct options {
    char broker[256], state[RECORD_PATH_MAX], queue[65], batch[RECORD_NAME_MAX + 1], consumer[65],
        output[RECORD_PATH_MAX];
    int order;
    bool wait, follow, quiet;
    int64_t timeout_ms;
};

static const struct field fields[] = {
    { "broker", OPTION_TEXT(struct options, broker), "the hall: tcp://HOST:PORT or ipc:///PATH" },
    { "state", OPTION_TEXT(struct options, state), "the state directory of a run: OUTPUT.moothall" },
    { "queue", OPTION_TEXT(struct options, queue), "queue in the hall (default)" },
    { "batch", OPTION_TEXT(struct options, batch),
      "only this batch (default: the whole queue; with --state, the run's)" },
    { "order", OPTION_CHOICE(struct options, order, order_choices),
      "completion (default); input: by place in the batch, up to the first unfinished" },
    { "consumer", OPTION_TEXT(struct options, consumer),
      "continue where the consumer of this name was (default: from the start)" },
    { "output", OPTION_TEXT(struct options, output), "-o FILE (default: standard output)" },
    { "wait", OPTION_FLAG(struct options, wait), "until the batch is over (a queue never is)" },
    { "follow", OPTION_FLAG(struct options, follow), "results as they come: of a batch until it is over, of a queue until ^C" },
    { "timeout", OPTION_NUMBER(struct options, timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),
      "give up when the broker is silent for so long (default: 60 s at the start, then never)" },
    { "quiet", OPTION_FLAG(struct options, quiet), "say nothing but errors" },
};

static bool fetch(const struct options *o, struct connection *connection, struct output *output,
                  uint64_t *done_before, uint64_t *failed_before, struct err *err)
{
    bool from_state = connection->has_record && !*o->batch;
    struct output_source source = {
        .queue = *o->queue                ? o->queue
                 : connection->has_record ? connection->record.is.queue
                                          : "default",
        .batch = from_state ? connection->record.batch : o->batch,
        .consumer = o->consumer,
        .by_position = o->order == 1,
        .keeps_cursor = *o->consumer,
    };
    bool end = false;
    uint64_t got;

    if (source.by_position && !*source.batch)
        return err_set(err, ERR_INPUT, "--order input needs --batch: places are counted in a batch");
    if (o->wait && !*source.batch)
        return err_set(err, ERR_INPUT, "--wait needs --batch: a queue is never over");
    if (!output_open(output, *o->output ? o->output : "-", &source, false, true, connection->hall, err))
        return false;
    *done_before = output->done; /* by the same consumer, earlier */
    *failed_before = output->failed;
    for (;;) {
        if (!output_fetch(output, &source, connection->hall, o->wait || o->follow ? 1000 : 0, &end, &got,
                          err)) {
            struct err ignored;

            /* What has come is not held back, and a consumer's place is kept if that can be done at once; else what lies
             * beyond it comes again the next time, to a file that is cut there. */
            if (err->code == ERR_INTERRUPTED) {
                connection_ignore_stop(connection);
                output_keep(output, &source, connection->hall, &ignored);
            }
            return false;
        }
        if (end ? *source.batch || !o->follow : !got && !o->wait && !o->follow)
            break;
    }
    return output_keep(output, &source, connection->hall, err);
}

static int fetch_verb(const struct verb *verb, int argc, char **argv)
{
    struct options options = { .timeout_ms = -1 };
    struct connection connection = { .lock = { .run_fd = -1, .shared_fd = -1 } };
    struct output output = { .fd = -1 };
    struct err err = { 0 };
    uint64_t done_before = 0, failed_before = 0, failed;
    bool ok;

    if (!verb_flags(verb, &argc, argv, &options, &err))
        return say_failed("fetch", &err);
    say_init(options.quiet);
    if (argc > 1) {
        err_set(&err, ERR_INPUT, "unexpected word `%.200s`; expected only flags", argv[1]);
        return say_failed("fetch", &err);
    }
    ok = connection_open(&connection, "fetch", options.broker, options.state, options.timeout_ms, &err) &&
         fetch(&options, &connection, &output, &done_before, &failed_before, &err);
    /* To be told to stop is the good end of what has no other. */
    ok = ok || (err.code == ERR_INTERRUPTED && options.follow && !*options.batch && !connection.has_record);
    failed = output.failed - failed_before;
    if (ok)
        say("%" PRIu64 " results, %" PRIu64 " of them failures", output.done - done_before, failed);
    output_close(&output);
    connection_close(&connection);
    if (!ok && err.code == ERR_INTERRUPTED) {
        say_error("moothall fetch: interrupted%s", *options.consumer ? "; the same command continues" : "");
        return 1;
    }
    return !ok ? say_failed("fetch", &err) : failed ? 2 : 0;
}

const struct verb verb_fetch = {
    .name = "fetch",
    .what = "results out of a hall, as JSON lines",
    .words = "--broker ENDPOINT | --state DIR [--batch B] [--consumer NAME] [-o FILE]",
    .more = "With --consumer the hall remembers how far that consumer is, and FILE gets every result exactly "
            "once, also\n"
            "when fetch or the hall is killed in between.  Several consumers read one queue, each at its own place.\n"
            "Exit status 2: some of the results are failures.",
    .example = "moothall fetch --broker tcp://hall:7500 --queue nightly --consumer reports --follow -o "
               "results.jsonl",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = fetch_verb,
};
