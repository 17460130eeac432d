/* run - a file of requests in, a file of results out, whatever dies in between. */

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/batch_file.h"
#include "client/command.h"
#include "client/files.h"
#include "client/hall.h"
#include "client/output.h"
#include "client/private_hall.h"
#include "client/record.h"
#include "client/say.h"
#include "client/stop.h"
#include "client/submitting.h"
#include "client/verbs.h"
#include "worker/model/model.h"

enum { FETCH_WAIT_MS = 1000 };

static const char *const weights_choices[] = { "auto", "f32", "bf16", "q8", "q4", NULL };
static const char *const template_choices[] = { "auto", "v2", "v2.5", "v3", "v3-0324", NULL };
static const char *const order_choices[] = { "input", "completion", NULL };
static const char *const bad_line_choices[] = { "error", "fail", NULL };

struct options {
    char model[RECORD_PATH_MAX], output[RECORD_PATH_MAX], state[RECORD_PATH_MAX];
    int64_t workers, threads, sequences, limit;
    int weights, chat_template, order, on_bad_line, priority;
    bool keep, restart, update, retry_failed, mixed, quiet;
    char batch[RECORD_NAME_MAX + 1], broker[256], queue[65];
    int64_t timeout_ms;
};

static const struct field fields[] = {
    { "model", OPTION_TEXT(struct options, model), "directory of the model (not needed with --broker)" },
    { "output", OPTION_TEXT(struct options, output), "-o FILE: where results go, - for standard output" },
    { "workers", OPTION_NUMBER(struct options, workers, FIELD_INT, 1, PRIVATE_WORKERS_MAX),
      "worker processes; they divide the experts (1)" },
    { "threads", OPTION_NUMBER(struct options, threads, FIELD_INT, 0, 256),
      "compute threads of each worker (0: the machine's, shared out)" },
    { "weights", OPTION_CHOICE(struct options, weights, weights_choices),
      "format computed in: auto (what the checkpoint has), f32, bf16" },
    { "chat_template", OPTION_CHOICE(struct options, chat_template, template_choices),
      "auto (recognised from the model's files), v2, v2.5, v3, v3-0324" },
    { "sequences", OPTION_NUMBER(struct options, sequences, FIELD_INT, 0, 1024),
      "generations in progress at once in a worker (0: its default)" },
    { "order", OPTION_CHOICE(struct options, order, order_choices),
      "of the results: input (default) or completion" },
    { "on_bad_line", OPTION_CHOICE(struct options, on_bad_line, bad_line_choices),
      "error: its failure stands in the output (default); fail: nothing runs" },
    { "limit", OPTION_NUMBER(struct options, limit, FIELD_INT, 1, BATCH_LINES_MAX),
      "only the first so many requests of the file; a later run without it is of other lines (--update goes on)" },
    { "priority", OPTION_CHOICE(struct options, priority, submit_priority_choices),
      "beside other work in a shared hall: normal (default), high, low" },
    { "state", OPTION_TEXT(struct options, state),
      "the run's state (default: OUTPUT.moothall; needed with -o -)" },
    { "keep", OPTION_FLAG(struct options, keep), "keep the store after a run that went well" },
    { "restart", OPTION_FLAG(struct options, restart),
      "forget an earlier run of this output and begin anew" },
    { "update", OPTION_FLAG(struct options, update),
      "the input has changed: do the changed requests, keep the others' results" },
    { "retry_failed", OPTION_FLAG(struct options, retry_failed), "do again what failed" },
    { "mixed", OPTION_FLAG(struct options, mixed),
      "continue although this machine computes with another kernel family" },
    { "batch", OPTION_TEXT(struct options, batch),
      "name of the batch (default: made from queue, input and options)" },
    { "broker", OPTION_TEXT(struct options, broker), "use this shared hall: tcp://HOST:PORT or ipc:///PATH" },
    { "queue", OPTION_TEXT(struct options, queue), "queue in the hall (default)" },
    { "timeout", OPTION_NUMBER(struct options, timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),
      "give up when the broker is silent for so long: 30s, 5m (default: 60 s at the start, then never)" },
    { "quiet", OPTION_FLAG(struct options, quiet), "say nothing but errors" },
};

struct run {
    struct options options;
    const char *input;
    bool shared;                  /* a shared hall */
    struct command_places at;
    struct state_lock lock;
    struct batch_file file;
    struct record record;
    bool has_record;
    struct command_hall command;
    struct output out;
    struct say_progress progress;
    char family[40];          /* --mixed: go on in this one */
    struct command_totals totals;
};

/* ---- before anything runs ------------------------------------------------------------------------ */

static bool check_options(struct run *run, int argc, char **argv, struct err *err)
{
    const struct options *o = &run->options;

    if (argc < 2)
        return err_set(err, ERR_INPUT, "no input: expected a file of requests, or - for standard input");
    if (argc > 2)
        return err_set(err, ERR_INPUT, "unexpected word `%.200s`; expected one input file", argv[2]);
    run->input = argv[1];
    run->shared = *o->broker;
    if (!*o->output)
        return err_set(err, ERR_INPUT, "no output: expected -o FILE, or -o - with --state DIR");
    if (o->weights >= 3)
        return err_set(err, ERR_INPUT,
                       "--weights %s: quantised weights are not built yet; expected f32 or bf16",
                       weights_choices[o->weights]);
    if (!run->shared && !*o->model)
        return err_set(err, ERR_INPUT,
                       "no model: expected --model DIR (or --broker ENDPOINT of a hall that has one)");
    if (run->shared && (o->workers > 1 || o->threads || o->weights || o->chat_template || o->sequences))
        return err_set(
            err, ERR_INPUT,
            "--workers, --threads, --weights, --chat-template and --sequences belong to a private hall; with "
            "--broker the workers have their own");
    if (!command_name_is_good(o->batch) || !command_name_is_good(o->queue) || !*o->queue)
        return err_set(err, ERR_INPUT, "--batch and --queue take names without spaces or control characters");
    return true;
}

static bool identify(struct run *run, struct run_identity *now, struct err *err)
{
    const struct options *o = &run->options;

    memset(now, 0, sizeof *now);
    strcpy(now->output, run->at.output);
    strcpy(now->broker, o->broker);
    strcpy(now->queue, o->queue);
    strcpy(now->batch_wanted, o->batch);
    strcpy(now->weights, weights_choices[o->weights]);
    strcpy(now->chat_template, template_choices[o->chat_template]);
    strcpy(now->order, order_choices[o->order]);
    strcpy(now->on_bad_line, bad_line_choices[o->on_bad_line]);
    sodium_bin2hex(now->input, sizeof now->input, run->file.digest, sizeof run->file.digest);
    now->lines = run->file.count;
    if (*o->model && !run->shared &&
        (!file_absolute(o->model, now->model, sizeof now->model, err) ||
         !model_mark(o->model, now->model_mark, err)))
        return err_wrap(err, "--model");
    return true;
}

static bool check_input(struct run *run, struct err *err)
{
    struct bad_lines bad = { .name = run->file.name };

    if (!batch_file_check(&run->file, bad_lines_report, &bad, err))
        return false;
    bad_lines_end(&bad);
    if (run->file.bad_count && run->options.on_bad_line == 1)
        return err_set(err, ERR_INPUT,
                       "%s: %zu of %zu lines are bad, and --on-bad-line is fail: nothing was run",
                       run->file.name, run->file.bad_count, run->file.count);
    return true;
}

/* Forgets all of an earlier run, its output too. */
static bool wipe(struct run *run, struct err *err)
{
    char path[RECORD_PATH_MAX];
    struct stat st;

    if (!file_join(path, sizeof path, run->at.state, "record.json", err))
        return false;
    unlink(path);
    for (uint32_t e = 1; e <= run->record.edition; e++)
        record_lines_remove(run->at.state, e);
    unlink(run->at.beside);
    /* its input.jsonl is this run's already */
    if (!file_join(path, sizeof path, run->at.state, "store", err) || !file_remove_tree(path, err))
        return false;
    if (strcmp(run->at.output, "-") && stat(run->at.output, &st) == 0 && S_ISREG(st.st_mode) &&
        truncate(run->at.output, 0) != 0)
        return err_errno(err, "empty %s", run->at.output);
    return true;
}

static bool begin(struct run *run, const struct run_identity *now, struct err *err)
{
    struct record *record = &run->record;
    uint8_t random[8];
    bool again = run->has_record; /* in a shared hall, an earlier batch of this name is still there */

    if (!wipe(run, err))
        return false;
    memset(record, 0, sizeof *record);
    record->is = *now;
    record->edition = 1;
    randombytes_buf(random, sizeof random);
    sodium_bin2hex(record->nonce, sizeof record->nonce, random, sizeof random);
    if (*now->batch_wanted)
        snprintf(record->batch, sizeof record->batch, "%s", now->batch_wanted);
    else
        record_batch_name(record->batch, now,
                          run->shared && (again || run->options.restart) ? record->nonce : "");
    return record_lines_save(&run->file, run->at.state, 1, err) && record_save(record, run->at.state, err);
}

static bool check_family(struct run *run, struct err *err)
{
    if (run->shared || command_check_family(run->record.family, run->options.mixed, run->family, err)) {
        if (*run->family)
            *run->record.family = '\0'; /* learned again */
        return true;
    }
    return false;
}

static bool begin_edition(struct run *run, const struct run_identity *now, bool update, bool retry,
                          struct err *err)
{
    struct record *record = &run->record;
    uint32_t old = record->edition;

    if (!record_lines_save(&run->file, run->at.state, old + 1, err))
        return false;
    unlink(run->at.beside);
    record->is = *now;
    record->edition = old + 1;
    record->update = update;
    record->retry = retry;
    record->submitted = record->ended = record->finished = false;
    if (!record_save(record, run->at.state, err))
        return false;
    record_lines_remove(run->at.state, old);
    return true;
}

/* ---- the hall -------------------------------------------------------------------------------------- */

static bool open_hall(struct run *run, struct err *err)
{
    const struct options *o = &run->options;
    struct command_hall_config config = {
        .verb = "run",
        .broker = o->broker,
        .timeout_ms = o->timeout_ms,
        .quiet = o->quiet,
        .private_hall = { .lock = &run->lock,
                          .workers = run->record.ended ? 0 : (int)o->workers,
                          .threads = (int)o->threads,
                          .sequences = (int)o->sequences,
                          .model = o->model,
                          .weights = weights_choices[o->weights],
                          .chat_template = o->chat_template ? template_choices[o->chat_template] : NULL,
                          .family = run->family },
    };
    struct hall_welcome welcome;

    if (!command_hall_open(&run->command, &config, &welcome, err))
        return false;
    if (run->record.hall && run->record.hall != welcome.hall) {
        say("this is another store than the run began with: its jobs are submitted again");
        run->record.submitted = run->record.update = run->record.retry = false;
        if (run->record.ended && run->command.private_hall &&
            !private_hall_add_workers(run->command.private_hall, (int)o->workers, err))
            return false;
        run->record.ended = false;
    }
    if (run->record.hall != welcome.hall) {
        run->record.hall = welcome.hall;
        return record_save(&run->record, run->at.state, err);
    }
    return true;
}

/* Now and then: how far it is, why nothing moves, which workers are ready, and what they compute with. */
static bool look(void *arg, struct err *err)
{
    struct run *run = arg;
    struct record *r = &run->record;
    const Moothall__Status *status;

    /* Before all are submitted the broker may know of neither queue nor batch. */
    if (!command_hall_look(&run->command, r->is.queue, r->submitted ? r->batch : "", &status, err))
        return false;
    if (!status)
        return true;
    if (r->submitted && status->counts) {
        run->progress.failed = status->counts->failed + status->counts->dead + status->counts->cancelled +
                               status->counts->expired;
        run->progress.done = status->counts->done + run->progress.failed;
    }
    /* The family is known when the seats are dealt, the numerics id with the first result. */
    if ((!*r->family && *status->family) || (!*r->numerics && *status->numerics)) {
        snprintf(r->family, sizeof r->family, "%s", status->family);
        snprintf(r->numerics, sizeof r->numerics, "%s", status->numerics);
        return record_save(r, run->at.state, err);
    }
    return true;
}

static bool submit_as(struct run *run, struct hall_submission *submission, Moothall__SubmitMode mode, struct err *err)
{
    submission->mode = mode;
    return submit_all(run->command.hall, &run->file, submission, look, run, err) || err_wrap(err, "submit");
}

static bool submit(struct run *run, struct err *err)
{
    struct record *r = &run->record;
    /* Asked for, also where this run has no earlier one: a shared hall may have the batch from elsewhere. */
    Moothall__SubmitMode mode =
        r->update || run->options.update ? MOOTHALL__SUBMIT_MODE__UPDATE : MOOTHALL__SUBMIT_MODE__NEW;
    struct hall_submission submission = {
        .queue = r->is.queue,
        .batch = r->batch,
        .priority = (uint32_t)run->options.priority,
    };

    if (r->submitted)
        return true;
    /* A retry first, where it is nothing else: it also opens a batch that was cancelled.  Then all of them: the edition
     * before may have been stopped in the middle of submitting. */
    if (r->retry && !r->update && !submit_as(run, &submission, MOOTHALL__SUBMIT_MODE__RETRY, err))
        return false;
    if (!submit_as(run, &submission, mode, err))
        return false;
    if (r->retry && r->update && !submit_as(run, &submission, MOOTHALL__SUBMIT_MODE__RETRY, err))
        return false;
    r->submitted = true;
    return record_save(r, run->at.state, err);
}

/* By completion in a later edition only each job's newest generation belongs into the output; which that is
 * is known when all have ended. */
static bool find_newest(struct run *run, struct output_source *source, struct err *err)
{
    uint64_t from = 1;
    bool end = false;

    if (!spool_new(&source->newest, run->at.state, sizeof(uint16_t), err))
        return false;
    source->newest_count = run->file.count;
    while (!end) {
        Moothall__Fetch fetch = MOOTHALL__FETCH__INIT;
        const struct link_message *answer;
        const Moothall__Entries *entries;

        fetch.queue = run->record.is.queue;
        fetch.batch = run->record.batch;
        fetch.order = MOOTHALL__ORDER__COMPLETION;
        fetch.from = from;
        fetch.items_max = 256;
        fetch.bytes_max = 1 << 20;
        fetch.wait_ms = (uint32_t)command_hall_patience(&run->command, FETCH_WAIT_MS);
        if (!hall_ask(run->command.hall, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, MOOTHALL__ENVELOPE__BODY_ENTRIES,
                      &answer, err))
            return false;
        entries = answer->envelope->entries;
        for (size_t i = 0; i < entries->n_entry; i++) {
            const Moothall__Entry *entry = entries->entry[i];
            uint16_t newest, generation = (uint16_t)entry->generation;

            if (entry->position >= source->newest_count || entry->generation > UINT16_MAX)
                continue;
            if (!spool_get(source->newest, entry->position, &newest, err) ||
                (newest < generation && !spool_set(source->newest, entry->position, &generation, err)))
                return false;
        }
        from = entries->next;
        end = entries->end;
        if (!end && (!look(run, err)))
            return false;
        run->progress.note = run->command.waiting_for;
        say_progress(&run->progress, clock_now_ms());
    }
    return true;
}

static bool write_results(struct run *run, struct err *err)
{
    struct record *r = &run->record;
    char consumer[64];
    const char *path = r->edition > 1 && strcmp(run->at.output, "-") ? run->at.beside : run->at.output;
    struct output_source source = { .queue = r->is.queue,
                                    .batch = r->batch,
                                    .consumer = consumer,
                                    .by_position = !strcmp(r->is.order, "input"),
                                    .keeps_cursor = true };
    struct stat st;
    bool end = false, ok = false;
    uint64_t got;

    snprintf(consumer, sizeof consumer, "run-%s-%u", r->nonce, r->edition);
    run->progress = (struct say_progress){ .what = "done", .total = run->file.count };
    say_progress_start(clock_now_ms());
    if (!source.by_position && r->edition > 1 && !find_newest(run, &source, err))
        goto out;
    /* A device or a pipe is written as it is, never beside and renamed. */
    if (stat(run->at.output, &st) == 0 && !S_ISREG(st.st_mode))
        path = run->at.output;
    if (!output_open(&run->out, path, &source, false, false, run->command.hall, err))
        goto out;
    run->progress.done_at_start = run->progress.done = run->out.done;
    while (!end) {
        if (!output_fetch(&run->out, &source, run->command.hall, (uint32_t)command_hall_patience(&run->command, FETCH_WAIT_MS), &end,
                          &got, err))
            goto out;
        if (!end && !look(run, err))
            goto out;
        if (run->progress.done < run->out.done)
            run->progress.done = run->out.done;
        run->progress.note = run->command.waiting_for;
        say_progress(&run->progress, clock_now_ms());
    }
    if (!*r->numerics) { /* a short run: nobody has looked since its first result */
        run->command.looked_ms = 0;
        if (!look(run, err))
            goto out;
    }
    if (run->out.done != run->file.count) {
        err_set(err, ERR_CONFLICT,
                "%" PRIu64 " results for %zu requests; `moothall audit --state %.200s` says more",
                run->out.done, run->file.count, run->at.state);
        goto out;
    }
    if (path == run->at.beside && (rename(run->at.beside, run->at.output) != 0)) {
        err_errno(err, "rename %s to %s", run->at.beside, run->at.output);
        goto out;
    }
    if (run->out.is_file && !file_sync_directory_of(run->at.output, err))
        goto out;
    ok = true;
out:
    spool_free(source.newest);
    if (ok) {
        r->done = run->out.done - run->out.failed;
        r->failed = run->out.failed;
        r->output_bytes = run->out.is_file ? run->out.offset : 0;
    }
    output_close(&run->out);
    say_progress_end();
    return ok;
}

/* What it took, for the last line.  Not being able to say it is no failure. */
/* ---- the whole ----------------------------------------------------------------------------------------- */

static int say_over(const struct run *run, int64_t ms)
{
    const struct record *r = &run->record;
    const char *where = strcmp(run->at.output, "-") ? run->at.output : "standard output";
    uint64_t all = r->done + r->failed;

    if (r->failed)
        say("%" PRIu64 " requests: %" PRIu64 " done, %" PRIu64
            " failed, in %.1f s; results in %s; --retry-failed does those again",
            all, r->done, r->failed, (double)ms / 1000, where);
    else
        say("%" PRIu64 " requests: all done, in %.1f s; results in %s", all, (double)ms / 1000, where);
    command_totals_say(&run->totals, all, "requests", ms);
    return r->failed ? 2 : 0;
}

/* After exit 0 only the record stays (and, with --keep, the store). */
static bool finish(struct run *run, struct err *err)
{
    struct record *r = &run->record;

    r->ended = true;
    r->finished = r->failed == 0;
    r->kept = run->options.keep;
    if (!record_save(r, run->at.state, err))
        return false;
    if (!r->finished)
        return true;
    if (!run->options.keep)
        record_lines_remove(run->at.state, r->edition);
    return state_clear(run->at.state, run->options.keep, err);
}

/* Decides what the command means beside what is there, and does all up to the hall. */
static enum run_means prepare(struct run *run, struct err *err)
{
    struct run_identity now;
    struct run_asks asks = { .restart = run->options.restart,
                             .update = run->options.update,
                             .retry_failed = run->options.retry_failed };
    char spool[RECORD_PATH_MAX], changed[200] = "";
    struct stat st;
    bool update, retry;
    enum run_means means;

    if (!file_join(spool, sizeof spool, run->at.state, "input.jsonl", err) ||
        !batch_file_open(&run->file, run->input, spool, (uint64_t)run->options.limit, err) || !check_input(run, err) ||
        !identify(run, &now, err))
        return RUN_REFUSE;
    run->has_record = record_load(&run->record, run->at.state, err);
    if (!run->has_record && err->code != ERR_NOT_FOUND && !asks.restart)
        return RUN_REFUSE;
    asks.output_is_file = strcmp(run->at.output, "-") && (stat(run->at.output, &st) != 0 || S_ISREG(st.st_mode));
    if (strcmp(run->at.output, "-") && stat(run->at.output, &st) == 0) {
        asks.output_exists = st.st_size > 0;
        asks.output_bytes = (uint64_t)st.st_size;
    }
    asks.store_exists = run->shared || state_store_exists(run->at.state);
    if (run->has_record && !run->record.finished)
        record_lines_changed(&run->file, run->at.state, run->record.edition, changed, sizeof changed, err);
    means = record_decide(run->has_record ? &run->record : NULL, &now, &asks, *changed ? changed : NULL,
                          &update, &retry, err);
    if (means == RUN_START) {
        if (run->has_record && run->record.finished && !asks.restart && asks.output_exists)
            say("%s is the result of another run, which finished; it is written anew", run->at.output);
        if (!begin(run, &now, err))
            return RUN_REFUSE;
    } else if (means == RUN_EDITION) {
        if (!check_family(run, err) || !begin_edition(run, &now, update, retry, err))
            return RUN_REFUSE;
    } else if (means == RUN_CONTINUE) {
        run->record.is = now;
        if (!check_family(run, err))
            return RUN_REFUSE;
        say("continuing an earlier run of %s", run->at.output);
    }
    return means;
}

static bool execute(struct run *run, struct err *err)
{
    bool ok, all_here;

    if (run->file.count == 0) {
        /* Nothing to do is done: an empty output, and no hall for it. */
        FILE *file = strcmp(run->at.output, "-") ? fopen(run->at.output, "we") : NULL;

        if (strcmp(run->at.output, "-") && !file)
            return err_errno(err, "write %s", run->at.output);
        if (file)
            fclose(file);
        run->record.submitted = true;
        run->record.done = run->record.failed = run->record.output_bytes = 0;
        return finish(run, err);
    }
    all_here = !run->record.submitted; /* else part of the batch was done by an earlier command */

    ok = open_hall(run, err) && submit(run, err) && write_results(run, err);
    if (ok && all_here && run->command.private_hall)
        command_totals_note(&run->totals, &run->command, run->record.is.queue, run->record.batch);
    command_hall_close(&run->command);
    return ok && finish(run, err);
}

static int run_verb(const struct verb *verb, int argc, char **argv)
{
    struct run *run = calloc(1, sizeof *run);
    struct err err = { 0 };
    int64_t started_ms = clock_now_ms();
    enum run_means means = RUN_REFUSE;
    int status = 1;

    if (!run)
        return 1;
    run->lock.run_fd = run->lock.shared_fd = -1;
    run->file.fd = -1;
    run->out.fd = -1;
    run->options.workers = 1;
    run->options.timeout_ms = -1;
    strcpy(run->options.queue, "default");
    if (!verb_flags(verb, &argc, argv, &run->options, &err) || !check_options(run, argc, argv, &err) ||
        !command_find_places(&run->at, run->options.output, run->options.state, run->input, &err)) {
        say_failed("run", &err);
        free(run);
        return 1;
    }
    say_init(run->options.quiet);
    if (!state_lock_take(&run->lock, run->at.state, "run", &err)) {
        command_say_unbegun("run", &err);
        goto out;
    }
    means = prepare(run, &err);
    switch (means) {
    case RUN_REFUSE:
        command_say_unbegun("run", &err);
        command_forget_state(run->at.state);
        break;
    case RUN_COMPLETE:
        say("nothing to do: %s is complete (%" PRIu64 " requests, all done)", run->at.output, run->record.done);
        state_clear(run->at.state, run->record.kept, &err);
        status = 0;
        break;
    case RUN_OVER:
        say("nothing to do: %s is complete, %" PRIu64 " done, %" PRIu64
            " failed; --retry-failed does those again",
            run->at.output, run->record.done, run->record.failed);
        status = 2;
        break;
    default:
        if (execute(run, &err)) {
            /* No rate where results were there already: it would be of work that this command has not done. */
            if (means != RUN_START || run->shared)
                run->totals.prompt_tokens = 0;
            status = say_over(run, clock_now_ms() - started_ms);
        } else if (err.code == ERR_INTERRUPTED) {
            say_error("moothall run: interrupted; what is done is kept, and the same command continues");
        } else {
            say_failed("run", &err);
        }
    }
out:
    batch_file_close(&run->file);
    state_lock_release(&run->lock);
    free(run);
    return status;
}

const struct verb verb_run = {
    .name = "run",
    .what = "a file of requests in, a file of results out; killed and repeated, it continues",
    .words = "--model DIR REQUESTS.jsonl -o RESULTS.jsonl [--workers N] [flags]",
    .more = "REQUESTS.jsonl has one OpenAI batch request a line (custom_id, method, url, body); - is "
            "standard input.\n"
            "The same command again continues where the last one was stopped, or says that all is done.",
    .example = "moothall run --model deploy/demo/model --workers 2 requests.jsonl -o results.jsonl",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = run_verb,
};
