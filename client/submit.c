/* submit - a file of requests into a shared hall; returns when all of them are on its disk. */

#include <inttypes.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "client/connect.h"
#include "client/say.h"
#include "client/submitting.h"
#include "client/verbs.h"
#include "client/when.h"

static const char *const bad_line_choices[] = { "error", "fail", NULL };

struct options {
    char broker[256], queue[65], batch[RECORD_NAME_MAX + 1];
    int on_bad_line;
    bool update, retry_failed, quiet;
    int64_t timeout_ms, ready_ttl_ms;
    int priority;
    char not_before[WHEN_TEXT_MAX], deadline[WHEN_TEXT_MAX];
};

static const struct field fields[] = {
    { "broker", OPTION_TEXT(struct options, broker), "the hall: tcp://HOST:PORT or ipc:///PATH" },
    { "queue", OPTION_TEXT(struct options, queue), "queue in the hall (default)" },
    { "batch", OPTION_TEXT(struct options, batch),
      "name of the batch (default: made from queue, input and options)" },
    { "on_bad_line", OPTION_CHOICE(struct options, on_bad_line, bad_line_choices),
      "error: stored as failed (default); fail: nothing is submitted" },
    { "priority", OPTION_CHOICE(struct options, priority, submit_priority_choices),
      "normal (default), high (served first), low (when there is nothing else; never starved)" },
    { "not_before", OPTION_TEXT(struct options, not_before),
      "nothing starts before: a duration from now (8h) or a time (2027-01-31T22:00:00Z)" },
    { "deadline", OPTION_TEXT(struct options, deadline),
      "what has not ended by then expires: a duration from now, or a time" },
    { "ready_ttl", OPTION_NUMBER(struct options, ready_ttl_ms, FIELD_DURATION, 0, WHEN_MS_MAX),
      "what no worker has taken up within this of becoming ready expires (0: never)" },
    { "update", OPTION_FLAG(struct options, update),
      "requests that the batch has with another body are done again" },
    { "retry_failed", OPTION_FLAG(struct options, retry_failed), "what failed is done again" },
    { "timeout", OPTION_NUMBER(struct options, timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),
      "give up when the broker is silent for so long (default: 60 s at the start, then never)" },
    { "quiet", OPTION_FLAG(struct options, quiet), "say nothing but errors" },
};

static bool submit(const struct options *o, const char *input, struct batch_file *file,
                   struct connection *connection, char *batch, struct err *err)
{
    struct bad_lines bad = { 0 };
    struct run_identity identity = { 0 };
    struct hall_submission submission = { .queue = o->queue, .batch = batch, .priority = (uint32_t)o->priority };
    struct hall_tally tally;
    int64_t now_ms = clock_wall_ms();

    if (!when_read("--not-before", o->not_before, now_ms, &submission.not_before_ms, err) ||
        !when_read("--deadline", o->deadline, now_ms, &submission.deadline_ms, err))
        return false;
    if (submission.deadline_ms && submission.deadline_ms <= (submission.not_before_ms ? submission.not_before_ms : now_ms))
        return err_set(err, ERR_INPUT, "--deadline %s: that is before %s; every request would expire", o->deadline,
                       submission.not_before_ms ? "--not-before" : "now");
    submission.ready_ttl_ms = (uint64_t)o->ready_ttl_ms;
    if (!batch_file_open(file, input, NULL, 0, err))
        return false;
    bad.name = file->name;
    if (!batch_file_check(file, bad_lines_report, &bad, err))
        return false;
    bad_lines_end(&bad);
    if (file->bad_count && o->on_bad_line == 1)
        return err_set(err, ERR_INPUT,
                       "%s: %zu of %zu lines are bad, and --on-bad-line is fail: nothing was submitted",
                       file->name, file->bad_count, file->count);
    strcpy(identity.queue, o->queue);
    strcpy(identity.on_bad_line, bad_line_choices[o->on_bad_line]);
    strcpy(identity.chat_template, "auto");
    strcpy(identity.weights, "auto"); /* as `run --broker` names it, so both mean the same batch */
    sodium_bin2hex(identity.input, sizeof identity.input, file->digest, sizeof file->digest);
    if (*o->batch)
        snprintf(batch, RECORD_NAME_MAX + 1, "%s", o->batch);
    else
        record_batch_name(batch, &identity, "");
    if (!connection_open(connection, "submit", o->broker, "", o->timeout_ms, err))
        return false;
    if (file->count == 0) {
        say("no requests: nothing was submitted, and there is no batch");
        return true;
    }
    submission.mode = o->update ? MOOTHALL__SUBMIT_MODE__UPDATE : MOOTHALL__SUBMIT_MODE__NEW;
    if ((o->update || !o->retry_failed) && !submit_all(connection->hall, file, &submission, NULL, NULL, err))
        return false;
    submission.mode = MOOTHALL__SUBMIT_MODE__RETRY;
    if (o->retry_failed && !submit_all(connection->hall, file, &submission, NULL, NULL, err))
        return false;
    tally = hall_tally(connection->hall);
    say_progress_end();
    say("%zu requests: %" PRIu64 " new, %" PRIu64 " known already, %" PRIu64
        " to be done again, %zu bad lines; queue %s, batch %s",
        file->count, tally.accepted, tally.duplicate, tally.renewed, file->bad_count, o->queue, batch);
    return true;
}

static int submit_verb(const struct verb *verb, int argc, char **argv)
{
    struct options options = { .queue = "default", .timeout_ms = -1 };
    struct connection connection = { .lock = { .run_fd = -1, .shared_fd = -1 } };
    struct batch_file file = { .fd = -1 };
    char batch[RECORD_NAME_MAX + 1];
    struct err err = { 0 };
    bool ok, bad;

    if (!verb_flags(verb, &argc, argv, &options, &err))
        return say_failed("submit", &err);
    say_init(options.quiet);
    if (argc != 2) {
        err_set(&err, ERR_INPUT,
                argc < 2 ? "no input: expected a file of requests, or - for standard input"
                         : "expected one input file, found also `%.200s`",
                argc < 2 ? "" : argv[2]);
        return say_failed("submit", &err);
    }
    if (!*options.broker) {
        err_set(&err, ERR_INPUT, "no broker: expected --broker ENDPOINT (`moothall run` needs none)");
        return say_failed("submit", &err);
    }
    ok = submit(&options, argv[1], &file, &connection, batch, &err);
    say_progress_end();
    connection_close(&connection);
    if (ok && file.count)
        printf("%s\n", batch);
    if (!ok && err.code == ERR_INTERRUPTED)
        say_error("moothall submit: interrupted; what was acknowledged is stored, and the same command adds "
                  "the rest");
    else if (!ok)
        say_failed("submit", &err);
    ok = ok && fflush(stdout) == 0;
    bad = file.bad_count > 0;
    batch_file_close(&file);
    return !ok ? 1 : bad ? 2 : 0;
}

const struct verb verb_submit = {
    .name = "submit",
    .what = "a file of requests into a shared hall; prints the batch's name",
    .words = "--broker ENDPOINT REQUESTS.jsonl [flags]",
    .more = "Returns when every request is on the broker's disk.  Killed and repeated, it adds the rest.\n"
            "Exit status 2: submitted, and some lines were bad (their failures are stored as results).",
    .example = "moothall submit --broker tcp://hall:7500 --queue nightly --batch reports-42 requests.jsonl",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = submit_verb,
};
