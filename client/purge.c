/* purge - requests and results that have ended are erased; that they were there stays known. */

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "client/connect.h"
#include "client/named.h"
#include "client/say.h"
#include "client/verbs.h"
#include "client/when.h"

struct options {
    char broker[256], state[RECORD_PATH_MAX], queue[65], batch[RECORD_NAME_MAX + 1];
    bool quiet;
    int64_t timeout_ms, older_than_ms;
};

static const struct field fields[] = {
    { "broker", OPTION_TEXT(struct options, broker), "the hall: tcp://HOST:PORT or ipc:///PATH" },
    { "state", OPTION_TEXT(struct options, state), "the state directory of a run: OUTPUT.moothall" },
    { "batch", OPTION_TEXT(struct options, batch), "what has ended of this batch (with --state: the run's)" },
    { "queue", OPTION_TEXT(struct options, queue), "of this queue, all batches; needs --older-than" },
    { "older_than", OPTION_NUMBER(struct options, older_than_ms, FIELD_DURATION, 0, WHEN_MS_MAX),
      "only what ended so long ago: 30d (of a batch by default: all that has ended)" },
    { "timeout", OPTION_NUMBER(struct options, timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),
      "give up when the broker is silent for so long (default: 60 s at the start, then never)" },
    { "quiet", OPTION_FLAG(struct options, quiet), "say nothing but errors" },
};

static bool is_enough(const struct options *o, struct err *err)
{
    if (!*o->queue || *o->batch)
        return named_enough(o->broker, "batch", o->batch, err);
    return o->older_than_ms >= 0 ||
           err_set(err, ERR_INPUT,
                   "--queue %s without --batch: say how old what is erased must be with --older-than 30d "
                   "(0s: all that has ended)",
                   o->queue);
}

static bool purge(const struct options *o, struct connection *connection, struct err *err)
{
    Moothall__Purge ask = MOOTHALL__PURGE__INIT;
    struct named_batch named = { 0 };
    bool whole_queue = *o->queue && !*o->batch;
    uint64_t jobs = 0, bytes = 0;

    if (whole_queue) {
        snprintf(named.queue, sizeof named.queue, "%s", o->queue);
    } else if (!named_batch(&named, connection, o->queue, o->batch, err)) {
        return false;
    }
    ask.queue = named.queue;
    ask.batch = named.batch;
    ask.older_than_ms = o->older_than_ms > 0 ? (uint64_t)o->older_than_ms : 0;
    do {
        const struct link_message *answer;

        if (!hall_ask(connection->hall, MOOTHALL__ENVELOPE__BODY_PURGE, &ask, MOOTHALL__ENVELOPE__BODY_PURGED,
                      &answer, err))
            return false;
        jobs += answer->envelope->purged->jobs;
        bytes += answer->envelope->purged->bytes;
        ask.after = answer->envelope->purged->next;
    } while (ask.after);
    say("%s %s: %" PRIu64 " requests and their results erased, %" PRIu64 " bytes",
        whole_queue ? "queue" : "batch", whole_queue ? named.queue : named.batch, jobs, bytes);
    return true;
}

static int purge_verb(const struct verb *verb, int argc, char **argv)
{
    struct options options = { .timeout_ms = -1, .older_than_ms = -1 };
    struct connection connection = { .lock = { .run_fd = -1, .shared_fd = -1 } };
    struct err err = { 0 };
    bool ok;

    if (!verb_flags(verb, &argc, argv, &options, &err))
        return say_failed("purge", &err);
    say_init(options.quiet);
    if (argc > 1) {
        err_set(&err, ERR_INPUT, "unexpected word `%.200s`; expected only flags", argv[1]);
        return say_failed("purge", &err);
    }
    ok = is_enough(&options, &err) &&
         connection_open(&connection, "purge", options.broker, options.state, options.timeout_ms, &err) &&
         purge(&options, &connection, &err);
    connection_close(&connection);
    return ok ? 0 : say_failed("purge", &err);
}

const struct verb verb_purge = {
    .name = "purge",
    .what = "erases requests and results that have ended",
    .words = "--broker ENDPOINT | --state DIR --batch B | --queue Q --older-than AGE [flags]",
    .more = "The texts are gone from the broker's files when this returns; names, states, counts and times "
            "stay, so that\n"
            "audits and consumers hold.  A result that is fetched later says that it was purged.  `moothall "
            "retain` does\n"
            "the same by itself as time goes by.",
    .example = "moothall purge --broker tcp://hall:7500 --queue nightly --older-than 30d",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = purge_verb,
};
