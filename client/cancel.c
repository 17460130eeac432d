/* cancel - what has not ended shall not be done any more; what was done is kept and delivered. */

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/connect.h"
#include "client/named.h"
#include "client/say.h"
#include "client/stop.h"
#include "client/verbs.h"

struct options {
    char broker[256], state[RECORD_PATH_MAX], queue[65], batch[RECORD_NAME_MAX + 1], reason[256];
    bool wait, quiet;
    int64_t timeout_ms;
};

static const struct field fields[] = {
    { "broker", OPTION_TEXT(struct options, broker), "the hall: tcp://HOST:PORT or ipc:///PATH" },
    { "state", OPTION_TEXT(struct options, state), "the state directory of a run: OUTPUT.moothall" },
    { "batch", OPTION_TEXT(struct options, batch), "the batch (with --state: the run's)" },
    { "queue", OPTION_TEXT(struct options, queue), "its queue, where two queues have a batch of this name" },
    { "reason", OPTION_TEXT(struct options, reason),
      "stands in the result of every request that was cancelled" },
    { "wait", OPTION_FLAG(struct options, wait), "until the last cancelled request has its result" },
    { "timeout", OPTION_NUMBER(struct options, timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),
      "give up when the broker is silent for so long (default: 60 s at the start, then never)" },
    { "quiet", OPTION_FLAG(struct options, quiet), "say nothing but errors" },
};

enum { LOOK_AGAIN_MS = 20 };

struct cancel {
    struct hall *hall;
    Moothall__Cancel ask;
    uint64_t jobs; /* that had not ended */
    bool more;
};

static bool ask(void *arg, char **id, size_t count, struct err *err)
{
    struct cancel *cancel = arg;
    const struct link_message *answer;

    cancel->ask.job = id;
    cancel->ask.n_job = count;
    if (!hall_ask(cancel->hall, MOOTHALL__ENVELOPE__BODY_CANCEL, &cancel->ask,
                  MOOTHALL__ENVELOPE__BODY_CANCELLED, &answer, err))
        return false;
    cancel->jobs += answer->envelope->cancelled->jobs;
    cancel->more = answer->envelope->cancelled->more;
    return true;
}

/* The batch may have grown, and some of it ended, since it was looked at. */
static uint64_t ended_before(const struct named_batch *named, uint64_t jobs)
{
    return named->live > jobs ? named->ended + named->live - jobs : named->ended;
}

static bool cancel_all(const struct options *o, struct connection *connection, char **word, int count,
                       struct err *err)
{
    struct cancel cancel = { .hall = connection->hall };
    struct named_batch named;
    uint64_t jobs;

    if (!named_batch(&named, connection, o->queue, o->batch, err))
        return false;
    moothall__cancel__init(&cancel.ask);
    cancel.ask.queue = named.queue;
    cancel.ask.batch = named.batch;
    cancel.ask.reason = (char *)(uintptr_t)o->reason;
    if (count ? !named_jobs(&named, word, count, ask, &cancel, err) : !ask(&cancel, NULL, 0, err))
        return false;
    jobs = cancel.jobs;
    if (jobs)
        say("batch %s: %" PRIu64 " requests cancelled; %" PRIu64 " had ended and keep their results",
            named.batch, jobs, count ? (uint64_t)count - jobs : ended_before(&named, jobs));
    else
        say("batch %s: nothing to cancel, %s ended already", named.batch,
            count ? "those have" : "all of it has");
    /* A broker that ends with us goes on with the rest at its next start only. */
    while (cancel.more && (o->wait || connection->private_hall)) {
        nanosleep(&(struct timespec){ .tv_nsec = LOOK_AGAIN_MS * 1000 * 1000 }, NULL);
        if (!stop_check(err) || !ask(&cancel, NULL, 0, err))
            return false;
    }
    return true;
}

static int cancel_verb(const struct verb *verb, int argc, char **argv)
{
    struct options options = { .timeout_ms = -1 };
    struct connection connection = { .lock = { .run_fd = -1, .shared_fd = -1 } };
    struct err err = { 0 };
    bool ok;

    if (!verb_flags(verb, &argc, argv, &options, &err))
        return say_failed("cancel", &err);
    say_init(options.quiet);
    ok = named_enough(options.broker, "batch", options.batch, &err) &&
         connection_open(&connection, "cancel", options.broker, options.state, options.timeout_ms, &err) &&
         cancel_all(&options, &connection, argv + 1, argc - 1, &err);
    connection_close(&connection);
    return ok ? 0 : say_failed("cancel", &err);
}

const struct verb verb_cancel = {
    .name = "cancel",
    .what = "ends a batch, or some of its requests; what is done is kept",
    .words = "--broker ENDPOINT | --state DIR [--batch B] [CUSTOM_ID ...] [flags]",
    .more = "Once it returns, nothing of what was cancelled is begun any more, and what was in progress is "
            "dropped.\n"
            "Each cancelled request has its own line in the results (code batch_cancelled), those done "
            "before theirs.\n"
            "A batch that was cancelled as a whole takes no more requests until `moothall retry` opens it "
            "again.\n"
            "Exit status 0 also where nothing was left to cancel; 1: there is no such batch or request.",
    .example = "moothall cancel --broker tcp://hall:7500 --batch reports-42 --reason \"wrong prompt\"",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = cancel_verb,
};
