/* audit - is there exactly one entry for every job and generation that has ended? */

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "client/connect.h"
#include "client/say.h"
#include "client/verbs.h"

struct options {
    char broker[256], state[RECORD_PATH_MAX], batch[RECORD_NAME_MAX + 1];
    bool json;
    int64_t timeout_ms;
};

static const struct field fields[] = {
    { "broker", OPTION_TEXT(struct options, broker), "the hall: tcp://HOST:PORT or ipc:///PATH" },
    { "state", OPTION_TEXT(struct options, state), "the state directory of a run: OUTPUT.moothall" },
    { "batch", OPTION_TEXT(struct options, batch), "only this batch (default: everything)" },
    { "json", OPTION_FLAG(struct options, json), "one JSON object" },
    { "timeout", OPTION_NUMBER(struct options, timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),
      "give up when the broker is silent for so long (60s)" },
};

struct sums {
    uint64_t jobs, generations, entries, unfinished, missing, doubled, corrupt, holes;
    char first_fault[300];
};

static bool audit(struct hall *hall, const char *batch, struct sums *sums, struct err *err)
{
    uint64_t after = 0;

    do {
        Moothall__AuditAsk ask = MOOTHALL__AUDIT_ASK__INIT;
        const struct link_message *answer;
        const Moothall__Audit *a;

        ask.batch = (char *)(uintptr_t)batch;
        ask.after = after;
        if (!hall_ask(hall, MOOTHALL__ENVELOPE__BODY_AUDIT_ASK, &ask, MOOTHALL__ENVELOPE__BODY_AUDIT, &answer,
                      err))
            return false;
        a = answer->envelope->audit;
        sums->jobs += a->jobs;
        sums->generations += a->generations;
        sums->entries += a->entries;
        sums->unfinished += a->unfinished;
        sums->missing += a->missing;
        sums->doubled += a->doubled;
        sums->corrupt += a->corrupt;
        sums->holes += a->holes;
        if (!*sums->first_fault)
            snprintf(sums->first_fault, sizeof sums->first_fault, "%.280s", a->first_fault);
        after = a->next;
    } while (after);
    return true;
}

struct asked {
    const char *batch;
    struct sums sums;
};

static bool look(struct connection *connection, void *arg, struct err *err)
{
    struct asked *asked = arg;

    asked->sums = (struct sums){ 0 };
    return audit(connection->hall, asked->batch, &asked->sums, err);
}

static int audit_verb(const struct verb *verb, int argc, char **argv)
{
    struct options options = { .timeout_ms = -1 };
    struct asked asked = { .batch = options.batch };
    struct sums sums;
    struct err err = { 0 };
    uint64_t faults;
    bool ok;

    if (!verb_flags(verb, &argc, argv, &options, &err))
        return say_failed("audit", &err);
    if (argc > 1) {
        err_set(&err, ERR_INPUT, "unexpected word `%.200s`; expected only flags", argv[1]);
        return say_failed("audit", &err);
    }
    ok = connection_look("audit", options.broker, options.state, options.timeout_ms, look, &asked, &err);
    sums = asked.sums;
    /* A batch has at least one job: what was asked for is not there, and nothing may be called clean. */
    if (ok && *options.batch && !sums.jobs)
        ok = err_set(&err, ERR_NOT_FOUND, "there is no batch `%s`", options.batch);
    if (!ok)
        return say_failed("audit", &err);
    faults = sums.missing + sums.doubled + sums.corrupt + sums.holes;
    if (options.json)
        printf("{\"verdict\":\"%s\",\"jobs\":%" PRIu64 ",\"generations\":%" PRIu64 ",\"entries\":%" PRIu64
               ",\"unfinished\":%" PRIu64 ",\"missing\":%" PRIu64 ",\"doubled\":%" PRIu64
               ",\"corrupt\":%" PRIu64 ",\"holes\":%" PRIu64 "}\n",
               faults ? "faults" : "clean", sums.jobs, sums.generations, sums.entries, sums.unfinished,
               sums.missing, sums.doubled, sums.corrupt, sums.holes);
    else if (!faults)
        printf("audit: clean: %" PRIu64 " jobs, %" PRIu64 " generations, %" PRIu64 " entries, %" PRIu64
               " unfinished; none missing, none doubled\n",
               sums.jobs, sums.generations, sums.entries, sums.unfinished);
    else
        printf("audit: FAULTS: %" PRIu64 " jobs, %" PRIu64 " generations, %" PRIu64 " entries: %" PRIu64
               " missing, %" PRIu64 " doubled, %" PRIu64 " corrupt, %" PRIu64 " holes; first: %s\n",
               sums.jobs, sums.generations, sums.entries, sums.missing, sums.doubled, sums.corrupt,
               sums.holes, sums.first_fault);
    if (fflush(stdout) != 0) {
        err_errno(&err, "write standard output");
        return say_failed("audit", &err);
    }
    if (faults) {
        err_set(&err, ERR_CONFLICT, "%" PRIu64 " faults; the first: %s", faults, sums.first_fault);
        return say_failed("audit", &err);
    }
    return 0;
}

const struct verb verb_audit = {
    .name = "audit",
    .what = "checks that every job that has ended has exactly one result",
    .words = "--broker ENDPOINT | --state DIR [--batch B] [--json]",
    .more = "Counts, in bounded slices, entries missing, doubled or damaged, and holes in the result "
            "queues.\nExit status 1 when there is a fault.",
    .example = "moothall audit --state results.jsonl.moothall",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = audit_verb,
};
