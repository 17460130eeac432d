/* retry - what ended otherwise than done is done again, from the requests that the hall has. */

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "client/connect.h"
#include "client/named.h"
#include "client/say.h"
#include "client/verbs.h"

struct options {
    char broker[256], queue[65], batch[RECORD_NAME_MAX + 1], only[64];
    bool quiet;
    int64_t timeout_ms;
};

static const struct field fields[] = {
    { "broker", OPTION_TEXT(struct options, broker), "the hall: tcp://HOST:PORT or ipc:///PATH" },
    { "batch", OPTION_TEXT(struct options, batch), "the batch" },
    { "queue", OPTION_TEXT(struct options, queue), "its queue, where two queues have a batch of this name" },
    { "only", OPTION_TEXT(struct options, only),
      "which, with commas: failed,dead,expired,cancelled (default: all of these)" },
    { "timeout", OPTION_NUMBER(struct options, timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),
      "give up when the broker is silent for so long (default: 60 s at the start, then never)" },
    { "quiet", OPTION_FLAG(struct options, quiet), "say nothing but errors" },
};

struct retry {
    struct hall *hall;
    struct named_batch named;
    Moothall__Retry ask;
    Moothall__State state[4];
    uint64_t jobs, skipped;
    char reason[300]; /* of the first that was skipped */
};

static bool read_only(const char *text, struct retry *retry, struct err *err)
{
    static const struct {
        const char *name;
        Moothall__State state;
    } known[] = {
        { "failed", MOOTHALL__STATE__FAILED },
        { "dead", MOOTHALL__STATE__DEAD },
        { "expired", MOOTHALL__STATE__EXPIRED },
        { "cancelled", MOOTHALL__STATE__CANCELLED },
    };

    retry->ask.state = retry->state;
    while (*text) {
        size_t n = strcspn(text, ","), i = 0;

        while (i < sizeof known / sizeof *known &&
               (strlen(known[i].name) != n || strncmp(text, known[i].name, n) != 0))
            i++;
        if (i == sizeof known / sizeof *known)
            return err_set(err, ERR_INPUT,
                           "--only: expected failed, dead, expired or cancelled, with commas, found `%.*s`",
                           (int)(n < 80 ? n : 80), text);
        for (size_t j = 0; j < retry->ask.n_state; j++)
            if (retry->state[j] == known[i].state)
                return err_set(err, ERR_INPUT, "--only: `%s` stands there twice", known[i].name);
        retry->state[retry->ask.n_state++] = known[i].state;
        text += n + (text[n] == ',');
    }
    return true;
}

static bool ask(void *arg, char **id, size_t count, struct err *err)
{
    struct retry *retry = arg;
    const struct link_message *answer;
    const Moothall__Retried *retried;

    retry->ask.job = id;
    retry->ask.n_job = count;
    if (!hall_ask(retry->hall, MOOTHALL__ENVELOPE__BODY_RETRY, &retry->ask, MOOTHALL__ENVELOPE__BODY_RETRIED,
                  &answer, err))
        return false;
    retried = answer->envelope->retried;
    if (retried->skipped && !retry->skipped)
        snprintf(retry->reason, sizeof retry->reason, "%.280s", retried->reason);
    retry->jobs += retried->jobs;
    retry->skipped += retried->skipped;
    retry->ask.after = count ? 0 : retried->next;
    return true;
}

static bool retry_all(const struct options *o, struct retry *retry, struct connection *connection,
                      char **word, int count, struct err *err)
{
    struct named_batch *named = &retry->named;

    if (!named_batch(named, connection, o->queue, o->batch, err))
        return false;
    retry->hall = connection->hall;
    retry->ask.queue = named->queue;
    retry->ask.batch = named->batch;
    if (count && !named_jobs(named, word, count, ask, retry, err))
        return false;
    if (!count)
        do
            if (!ask(retry, NULL, 0, err))
                return false;
        while (retry->ask.after);
    if (retry->jobs)
        say("batch %s: %" PRIu64 " requests are done again", named->batch, retry->jobs);
    else if (!retry->skipped)
        say("batch %s: nothing to do again", named->batch);
    if (retry->skipped)
        say_error("batch %s: %" PRIu64 " requests cannot be done again: %s", named->batch, retry->skipped,
                  retry->reason);
    return true;
}

static int retry_verb(const struct verb *verb, int argc, char **argv)
{
    struct options options = { .timeout_ms = -1 };
    struct connection connection = { .lock = { .run_fd = -1, .shared_fd = -1 } };
    struct retry retry = { 0 };
    struct err err = { 0 };
    bool ok;

    moothall__retry__init(&retry.ask);
    if (!verb_flags(verb, &argc, argv, &options, &err) || !read_only(options.only, &retry, &err))
        return say_failed("retry", &err);
    say_init(options.quiet);
    if (!*options.broker) {
        err_set(&err, ERR_INPUT,
                "no broker: expected --broker ENDPOINT (for a run: `moothall run --retry-failed`)");
        return say_failed("retry", &err);
    }
    ok = named_enough(options.broker, "batch", options.batch, &err) &&
         connection_open(&connection, "retry", options.broker, "", options.timeout_ms, &err) &&
         retry_all(&options, &retry, &connection, argv + 1, argc - 1, &err);
    connection_close(&connection);
    return !ok ? say_failed("retry", &err) : retry.skipped ? 2 : 0;
}

const struct verb verb_retry = {
    .name = "retry",
    .what = "does again what failed, was lost, expired or was cancelled",
    .words = "--broker ENDPOINT --batch B [--only STATES] [CUSTOM_ID ...] [flags]",
    .more = "Each request begins a new generation, from the request that the hall has stored; its result "
            "comes after the\n"
            "older one, and takes its place.  A batch that was cancelled is open again.  For a run of one's "
            "own there is\n"
            "`moothall run --retry-failed`.  Exit status 2: some cannot be done again (purged, or refused by "
            "the client).",
    .example = "moothall retry --broker tcp://hall:7500 --batch reports-42 --only dead,expired",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = retry_verb,
};
