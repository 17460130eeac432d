#include "client/command.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/files.h"
#include "client/say.h"
#include "client/stop.h"
#include "worker/model/model.h"

enum {
    STATUS_EVERY_MS = 1000,
    STATUS_EVERY_QUIET_MS = 5000, /* nobody is looking */
    UNREADY_MS = 100,
    WAITING_SAID_MS = 10 * 1000,
    NOBODY_SAID_EVERY_MS = 60 * 1000,
};

/* ---- places ---------------------------------------------------------------------------------------- */

bool command_find_places(struct command_places *places, const char *output, const char *state, const char *input,
                         struct err *err)
{
    struct stat out, in;
    char dir[RECORD_PATH_MAX], real[PATH_MAX], *slash;

    if (!strcmp(output, "-")) {
        strcpy(places->output, "-");
    } else {
        if (!file_absolute(output, places->output, sizeof places->output, err))
            return err_wrap(err, "output");
        /* What a link names is what is written, and later replaced; the link stays. */
        if (lstat(places->output, &out) == 0 && S_ISLNK(out.st_mode) && stat(places->output, &out) == 0 &&
            S_ISREG(out.st_mode) && realpath(places->output, real) && strlen(real) < sizeof places->output)
            strcpy(places->output, real);
        if (stat(places->output, &out) == 0) {
            if (S_ISDIR(out.st_mode))
                return err_set(err, ERR_INPUT, "output %s is a directory; expected a file", output);
            if (input && strcmp(input, "-") && stat(input, &in) == 0 && in.st_dev == out.st_dev &&
                in.st_ino == out.st_ino && S_ISREG(out.st_mode))
                return err_set(err, ERR_INPUT, "%s is both input and output", output);
            if (S_ISREG(out.st_mode) && access(places->output, W_OK) != 0)
                return err_errno(err, "output %s cannot be written", output);
        } else {
            snprintf(dir, sizeof dir, "%s", places->output);
            slash = strrchr(dir, '/');
            slash[slash == dir] = '\0';
            if (access(dir, W_OK) != 0)
                return err_errno(err, "output %s: its directory cannot be written", output);
        }
    }
    if (*state) {
        if (!file_absolute(state, places->state, sizeof places->state, err))
            return err_wrap(err, "--state");
    } else if (!strcmp(places->output, "-") || (stat(places->output, &out) == 0 && !S_ISREG(out.st_mode))) {
        return err_set(err, ERR_INPUT,
                       "results go to a stream: expected --state DIR, where the run keeps what it has done");
    } else if (snprintf(places->state, sizeof places->state, "%.*s.moothall", RECORD_PATH_MAX - 20,
                        places->output) >= RECORD_PATH_MAX) {
        return err_set(err, ERR_INPUT, "the path %.200s... is too long", places->output);
    }
    if (snprintf(places->beside, sizeof places->beside, "%.*s.moothall-new", RECORD_PATH_MAX - 20, places->output) >=
        RECORD_PATH_MAX)
        return err_set(err, ERR_INPUT, "the path %.200s... is too long", places->output);
    return true;
}

bool command_name_is_good(const char *name)
{
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f)
            return false;
    return true;
}

void command_forget_state(const char *state)
{
    char path[RECORD_PATH_MAX];

    if (file_join(path, sizeof path, state, "record.json", NULL) && access(path, F_OK) == 0)
        return;
    state_clear(state, true, NULL);
    for (int i = 0; i < 2; i++)
        if (file_join(path, sizeof path, state, i ? "run.lock" : "lock", NULL))
            unlink(path);
    rmdir(state);
}

bool command_check_family(const char *recorded, bool mixed, char now[40], struct err *err)
{
    const struct backend *best;

    *now = '\0';
    if (!*recorded)
        return true;
    best = backend_best(err);
    if (!best)
        return err_wrap(err, "this machine");
    if (!strcmp(best->family, recorded))
        return true;
    if (!mixed)
        return err_set(err, ERR_CONFLICT,
                       "this run's results were computed in kernel family %s; this machine computes in %s, "
                       "which gives other "
                       "bits: continue on a machine that has the former, or --mixed to go on in the latter, "
                       "or --restart",
                       recorded, best->family);
    say("going on in kernel family %s; the results so far were computed in %s", best->family, recorded);
    snprintf(now, 40, "%s", best->family);
    return true;
}

/* ---- the hall ---------------------------------------------------------------------------------------- */

static bool stop_turn(void *arg, struct err *err)
{
    (void)arg;
    return stop_check(err);
}

bool command_hall_open(struct command_hall *command, const struct command_hall_config *config,
                       struct hall_welcome *welcome, struct err *err)
{
    struct hall_config hall = { .name = config->verb,
                                .role = MOOTHALL__ROLE__CLIENT,
                                .timeout_ms = config->timeout_ms };

    memset(command, 0, sizeof *command);
    command->quiet = config->quiet;
    command->context = link_context_new();
    if (*config->broker) {
        command->stop_side = (struct hall_side){ .fd = { stop_fd() }, .fd_count = 1, .turn = stop_turn };
        hall.endpoint = config->broker;
        snprintf(command->broker, sizeof command->broker, "%s", config->broker);
        hall.side = &command->stop_side;
    } else {
        if (!private_hall_start(&command->private_hall, command->context, &config->private_hall, err))
            return false;
        hall.endpoint = private_hall_endpoint(command->private_hall);
        hall.side = private_hall_side(command->private_hall);
        if (config->timeout_ms < 0)
            hall.timeout_ms = INT64_MAX; /* the supervisor knows better when to give up */
        hall.backoff_max_ms = 500;
    }
    return hall_new(&command->hall, command->context, &hall, err) && hall_open(command->hall, welcome, err);
}

void command_hall_close(struct command_hall *command)
{
    hall_free(command->hall);
    command->hall = NULL;
    private_hall_stop(command->private_hall);
    command->private_hall = NULL;
    if (command->context)
        link_context_free(command->context);
    command->context = NULL;
}

int64_t command_hall_patience(const struct command_hall *command, int64_t ms)
{
    return command->private_hall && !private_hall_is_ready(command->private_hall) ? UNREADY_MS : ms;
}

/* Why nothing is leased: in the progress line, and as a line of its own when it lasts. */
static void note_waiting(struct command_hall *command, const char *why, int64_t now_ms)
{
    char now[sizeof command->waiting_for];

    snprintf(now, sizeof now, "%.150s", why);
    if (strcmp(now, command->waiting_for)) {
        strcpy(command->waiting_for, now);
        command->waiting_since_ms = *now ? now_ms : 0;
    } else if (command->waiting_since_ms && !command->nobody_said_ms && now_ms - command->waiting_since_ms >= WAITING_SAID_MS) {
        command->waiting_since_ms = 0;
        say("waiting: %s", now);
    }
}

/* Nobody looks after the workers of a shared hall but the people who run it: they are told at once that there are none,
 * and again every minute, until there is one. */
static void note_nobody(struct command_hall *command, const Moothall__Status *status, int64_t now_ms)
{
    bool seated = false;

    for (size_t i = 0; i < status->n_worker; i++)
        seated = seated || (status->worker[i]->connected && status->worker[i]->seated);
    if (seated) {
        if (command->nobody_said_ms)
            say("a worker is seated now: going on");
        command->nobody_said_ms = 0;
    } else if (!command->nobody_said_ms || now_ms - command->nobody_said_ms >= NOBODY_SAID_EVERY_MS) {
        say("the hall at %s has no seated worker; it waits for %.150s", command->broker,
            *status->waiting_for ? status->waiting_for : "one");
        command->nobody_said_ms = now_ms;
    }
}

/* The same of a queue that somebody has paused. */
static void note_paused(struct command_hall *command, const Moothall__QueueStatus *queue, int64_t now_ms)
{
    if (!queue->paused) {
        if (command->paused_said_ms)
            say("queue %s goes on", queue->name);
        command->paused_said_ms = 0;
    } else if (!command->paused_said_ms || now_ms - command->paused_said_ms >= NOBODY_SAID_EVERY_MS) {
        say("queue %s is paused: nothing of it is begun until `moothall resume`", queue->name);
        command->paused_said_ms = now_ms;
    }
}

bool command_hall_look(struct command_hall *command, const char *queue, const char *batch,
                       const Moothall__Status **status, struct err *err)
{
    int64_t now_ms = clock_now_ms();
    Moothall__StatusAsk ask = MOOTHALL__STATUS_ASK__INIT;
    const struct link_message *answer;

    *status = NULL;
    if (now_ms - command->looked_ms <
        command_hall_patience(command, command->quiet ? STATUS_EVERY_QUIET_MS : STATUS_EVERY_MS))
        return true;
    command->looked_ms = now_ms;
    if (*batch) {
        ask.queue = (char *)(uintptr_t)queue;
        ask.batch = (char *)(uintptr_t)batch;
    }
    if (!hall_ask(command->hall, MOOTHALL__ENVELOPE__BODY_STATUS_ASK, &ask, MOOTHALL__ENVELOPE__BODY_STATUS, &answer,
                  err))
        return false;
    if (command->private_hall)
        private_hall_note(command->private_hall, answer->envelope->status);
    else
        note_nobody(command, answer->envelope->status, now_ms);
    if (*batch && answer->envelope->status->n_queue == 1)
        note_paused(command, answer->envelope->status->queue[0], now_ms);
    note_waiting(command, answer->envelope->status->waiting_for, now_ms);
    *status = answer->envelope->status;
    return true;
}

void command_say_unbegun(const char *name, const struct err *err)
{
    if (err->code == ERR_INTERRUPTED)
        say_error("moothall %s: interrupted before anything ran; the same command begins or continues", name);
    else
        say_failed(name, err);
}

/* ---- how much it was ----------------------------------------------------------------------------------- */

void command_totals_note(struct command_totals *totals, struct command_hall *command, const char *queue, const char *batch)
{
    Moothall__StatusAsk ask = MOOTHALL__STATUS_ASK__INIT;
    char queue_name[65], batch_name[RECORD_NAME_MAX + 1];
    const struct link_message *answer;
    const Moothall__Status *status;
    double messages, bytes, tokens = 0;

    snprintf(queue_name, sizeof queue_name, "%s", queue);
    snprintf(batch_name, sizeof batch_name, "%s", batch);
    ask.queue = queue_name;
    ask.batch = batch_name;
    if (!hall_ask(command->hall, MOOTHALL__ENVELOPE__BODY_STATUS_ASK, &ask, MOOTHALL__ENVELOPE__BODY_STATUS, &answer, NULL))
        return;
    status = answer->envelope->status;
    totals->prompt_tokens = status->prompt_tokens;
    totals->generated_tokens = status->generated_tokens;
    /* A worker's tokens and what it exchanged for them come in one heartbeat, so the shares fit each other although the
     * last heartbeat is some time ago. */
    messages = hall_exchange(status, &bytes);
    for (size_t i = 0; i < status->n_worker; i++)
        tokens += (double)(status->worker[i]->prompt_tokens + status->worker[i]->generated_tokens);
    if (tokens > 0) {
        totals->messages = messages / tokens;
        totals->bytes = bytes / tokens;
    }
}

void command_totals_say(const struct command_totals *totals, uint64_t count, const char *what, int64_t ms)
{
    double seconds = (double)ms / 1000, tokens = (double)(totals->prompt_tokens + totals->generated_tokens);
    char between[80] = "";

    if (totals->prompt_tokens == 0 || ms <= 0)
        return;
    if (totals->messages > 0)
        snprintf(between, sizeof between, "; between workers %.2f messages and %.1f kB a token", totals->messages,
                 totals->bytes / 1000);
    say("%" PRIu64 " tokens of prompts, %" PRIu64 " generated: %.1f %s and %.0f tokens a second%s", totals->prompt_tokens,
        totals->generated_tokens, (double)count / seconds, what, tokens / seconds, between);
}
