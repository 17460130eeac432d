/* say - what the command tells a person, on stderr.
 *
 * Results never come this way.  A terminal gets a progress bar that is redrawn in place; lines that are
 * said meanwhile push it down.  Anything else gets a progress line a minute.  With quiet only errors
 * remain. */

#ifndef CLIENT_SAY_H
#define CLIENT_SAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

void say_init(bool quiet);

/* A line, not with quiet. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line, always: something is wrong, or was lost. */
void say_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "moothall VERB: text", always.  Returns 1, the exit status of what could not be done. */
int say_failed(const char *verb, const struct err *err);

/* What a progress line shows.  Draws when it is time to: call it as often as you like. */
struct say_progress {
    const char *what; /* "submitted", "done" */
    uint64_t done, total;
    uint64_t failed;
    uint64_t done_at_start; /* what an earlier run had done: not part of the rate */
    const char *note;       /* what it waits for; may be NULL or empty */
};
void say_progress(const struct say_progress *progress, int64_t now_ms);
void say_progress_start(int64_t now_ms); /* the rate counts from here */
void say_progress_end(void);             /* removes the bar */

/* The bar's text, without its end; width in columns.  Pure, for tests. */
void say_progress_text(char *text, int size, const struct say_progress *progress, int64_t elapsed_ms,
                       int width);

#endif
