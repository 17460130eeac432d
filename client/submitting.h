/* submitting - the lines of a batch file as jobs of a batch. */

#ifndef CLIENT_SUBMITTING_H
#define CLIENT_SUBMITTING_H

#include <stdbool.h>

#include "client/batch_file.h"
#include "client/hall.h"

/* Prints what is wrong with a line to stderr: the first BATCH_REPORTED_MAX, then only their number. */
struct bad_lines {
    const char *name; /* of the file */
    uint64_t count;
};
void bad_lines_report(void *bad_lines, uint64_t number, const struct request_fault *fault);
void bad_lines_end(const struct bad_lines *bad_lines);

/* --priority: normal, high, low; the index is the protocol's number. */
extern const char *const submit_priority_choices[];

/* Submits every line, each acknowledged when this returns true.  A bad line becomes a job that has
 * failed already, under an id made from its number; in mode RETRY only good lines are sent.  batch_total need not be
 * filled in.  Draws progress, and calls `meanwhile` (may be NULL) now and then: false from it ends the submitting.
 * ERR_CONFLICT names the first line that is known with another body. */
bool submit_all(struct hall *hall, const struct batch_file *file, const struct hall_submission *submission,
                bool (*meanwhile)(void *arg, struct err *err), void *arg, struct err *err);

#endif
