/* pause, resume, retain - what is set of a queue. */

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
    char broker[256], state[RECORD_PATH_MAX], queue[65];
    bool quiet;
    int64_t timeout_ms, keep_ms;
};

#define WHERE                                                                                                \
    { "broker", OPTION_TEXT(struct options, broker), "the hall: tcp://HOST:PORT or ipc:///PATH" },           \
        { "state", OPTION_TEXT(struct options, state), "the state directory of a run: OUTPUT.moothall" },    \
    {                                                                                                        \
        "queue", OPTION_TEXT(struct options, queue), "the queue (with --state: the run's)"                   \
    }
#define HOW                                                                                                  \
    { "timeout",                                                                                             \
      OPTION_NUMBER(struct options, timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),          \
      "give up when the broker is silent for so long (default: 60 s at the start, then never)" },            \
    {                                                                                                        \
        "quiet", OPTION_FLAG(struct options, quiet), "say nothing but errors"                                \
    }

static const struct field fields[] = { WHERE, HOW };
static const struct field retain_fields[] = {
    WHERE,
    { "keep", OPTION_NUMBER(struct options, keep_ms, FIELD_DURATION, 0, WHEN_MS_MAX),
      "how long what has ended is kept: 30d (0s: for ever)" },
    HOW,
};

static bool set(const struct options *o, Moothall__QueueSet *ask, struct connection *connection,
                struct err *err)
{
    static const Moothall__Counts none = MOOTHALL__COUNTS__INIT;
    const struct link_message *answer;
    const Moothall__QueueStatus *queue;
    const Moothall__Counts *c;
    char name[65], kept[64];

    if (!named_queue(name, connection, o->queue, err))
        return false;
    ask->queue = name;
    if (!hall_ask(connection->hall, MOOTHALL__ENVELOPE__BODY_QUEUE_SET, ask,
                  MOOTHALL__ENVELOPE__BODY_QUEUE_IS, &answer, err))
        return false;
    queue = answer->envelope->queue_is->queue;
    if (!queue)
        return err_set(err, ERR_INPUT, "the broker's answer is empty");
    c = queue->counts ? queue->counts : &none;
    if (ask->set_retention)
        say("queue %s: what has ended is kept %s", name,
            when_write_span(kept, sizeof kept, queue->retention_ms));
    else
        say("queue %s: %s; %" PRIu64 " requests wait, %" PRIu64 " are in progress", name,
            queue->paused ? "paused, nothing more of it is begun" : "goes on", c->ready + c->delayed,
            c->leased);
    return true;
}

static int queue_verb(const struct verb *verb, int argc, char **argv, Moothall__QueueSet *ask)
{
    struct options options = { .timeout_ms = -1, .keep_ms = -1 };
    struct connection connection = { .lock = { .run_fd = -1, .shared_fd = -1 } };
    struct err err = { 0 };
    bool ok;

    if (!verb_flags(verb, &argc, argv, &options, &err))
        return say_failed(verb->name, &err);
    say_init(options.quiet);
    if (argc > 1) {
        err_set(&err, ERR_INPUT, "unexpected word `%.200s`; expected only flags", argv[1]);
        return say_failed(verb->name, &err);
    }
    if (ask->set_retention && options.keep_ms < 0) {
        err_set(&err, ERR_INPUT, "expected --keep: how long what has ended is kept (30d; 0s: for ever)");
        return say_failed(verb->name, &err);
    }
    ask->retention_ms = ask->set_retention ? (uint64_t)options.keep_ms : 0;
    ok = named_enough(options.broker, "queue", options.queue, &err) &&
         connection_open(&connection, verb->name, options.broker, options.state, options.timeout_ms, &err) &&
         set(&options, ask, &connection, &err);
    connection_close(&connection);
    return ok ? 0 : say_failed(verb->name, &err);
}

static int pause_verb(const struct verb *verb, int argc, char **argv)
{
    Moothall__QueueSet ask = MOOTHALL__QUEUE_SET__INIT;

    ask.pause = MOOTHALL__QUEUE_SET__PAUSE__PAUSE;
    return queue_verb(verb, argc, argv, &ask);
}

static int resume_verb(const struct verb *verb, int argc, char **argv)
{
    Moothall__QueueSet ask = MOOTHALL__QUEUE_SET__INIT;

    ask.pause = MOOTHALL__QUEUE_SET__PAUSE__RESUME;
    return queue_verb(verb, argc, argv, &ask);
}

static int retain_verb(const struct verb *verb, int argc, char **argv)
{
    Moothall__QueueSet ask = MOOTHALL__QUEUE_SET__INIT;

    ask.set_retention = true;
    return queue_verb(verb, argc, argv, &ask);
}

const struct verb verb_pause = {
    .name = "pause",
    .what = "nothing more of a queue is begun, until `resume`",
    .words = "--broker ENDPOINT --queue Q [flags]",
    .more = "What is in progress is finished; requests are taken and results delivered as before.  It "
            "outlasts a restart\n"
            "of the broker.",
    .example = "moothall pause --broker tcp://hall:7500 --queue nightly",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = pause_verb,
};

const struct verb verb_resume = {
    .name = "resume",
    .what = "a paused queue goes on",
    .words = "--broker ENDPOINT --queue Q [flags]",
    .example = "moothall resume --broker tcp://hall:7500 --queue nightly",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = resume_verb,
};

const struct verb verb_retain = {
    .name = "retain",
    .what = "how long a queue keeps requests and results that have ended",
    .words = "--broker ENDPOINT --queue Q --keep AGE [flags]",
    .more =
        "What is older is erased by the broker, as `moothall purge` would, whether it was fetched or not.",
    .example = "moothall retain --broker tcp://hall:7500 --queue nightly --keep 30d",
    .fields = retain_fields,
    .field_count = OPTION_COUNT(retain_fields),
    .run = retain_verb,
};
