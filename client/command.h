/* command - what the verbs that work through a hall have in common: `run`, `extract`, `summarize`.
 *
 * Such a command has an output, a state directory beside it (private_hall.h, record.h), and a hall: a private one
 * that it starts, or a shared one that it is named. */

#ifndef CLIENT_COMMAND_H
#define CLIENT_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "client/hall.h"
#include "client/private_hall.h"
#include "client/record.h"

/* ---- places ---------------------------------------------------------------------------------------- */

struct command_places {
    char output[RECORD_PATH_MAX]; /* absolute, or "-" */
    char beside[RECORD_PATH_MAX]; /* where an output is written that takes the place of another when it is whole */
    char state[RECORD_PATH_MAX];
};

/* Where the output and the state are; nothing is made yet.  output, state: as the user gave them; input: a file
 * that the output must not be, or NULL. */
bool command_find_places(struct command_places *places, const char *output, const char *state, const char *input,
                         struct err *err);

/* A name of a batch or a queue: no spaces, no control characters. */
bool command_name_is_good(const char *name);

/* Removes a state directory that this command has just made and has nothing to keep in. */
void command_forget_state(const char *state);

/* Why nothing was begun; of an interruption, how to go on. */
void command_say_unbegun(const char *verb, const struct err *err);

/* An unfinished run goes on in the kernel family of its results: another one's bits differ.  recorded: theirs, or
 * empty.  With mixed it goes on in this machine's: *now is then that one, else empty. */
bool command_check_family(const char *recorded, bool mixed, char now[40], struct err *err);

/* ---- the hall ---------------------------------------------------------------------------------------- */

struct command_hall_config {
    const char *verb;
    const char *broker; /* empty: a private hall */
    int64_t timeout_ms; /* -1: hall.h's default */
    bool quiet;
    struct private_config private_hall;
};

struct command_hall {
    struct link_context *context;
    struct private_hall *private_hall; /* NULL: a shared one */
    struct hall *hall;
    struct hall_side stop_side; /* with a shared hall: only a stop is watched for */
    bool quiet;
    int64_t looked_ms;
    char waiting_for[160];
    char broker[LINK_ENDPOINT_MAX]; /* the shared hall's */
    int64_t nobody_said_ms;         /* that it has no seated worker; 0: it has one */
    int64_t paused_said_ms;         /* that the queue is paused; 0: it is not */
    int64_t waiting_since_ms; /* for the same; 0: it was said, or there is nothing */
};

/* After false command_hall_close is still to be called. */
bool command_hall_open(struct command_hall *command, const struct command_hall_config *config,
                       struct hall_welcome *welcome, struct err *err);
void command_hall_close(struct command_hall *command); /* a zeroed one is fine */

/* How long an answer may be held: shorter while a worker is not ready, so that one that dies later does not count
 * as one that cannot start. */
int64_t command_hall_patience(const struct command_hall *command, int64_t ms);

/* Now and then asks how things stand, of a batch or (batch empty) of everything: *status is NULL when it was not time
 * to.  Keeps waiting_for, says it when it lasts, tells the supervisor who is ready; says at once, and
 * every minute, that a shared hall has no seated worker. */
bool command_hall_look(struct command_hall *command, const char *queue, const char *batch,
                       const Moothall__Status **status, struct err *err);

/* ---- how much it was ----------------------------------------------------------------------------------- */

struct command_totals { /* of a whole batch; not known where prompt_tokens is 0 */
    uint64_t prompt_tokens, generated_tokens;
    double messages, bytes; /* between the workers, a token */
};

/* Asks, while the private hall is still there. */
void command_totals_note(struct command_totals *totals, struct command_hall *command, const char *queue, const char *batch);
/* Says the rates: of `count` requests or documents (what: which) in ms. */
void command_totals_say(const struct command_totals *totals, uint64_t count, const char *what, int64_t ms);

#endif
