/* worker - one process of a hall: its model, its seat, its exchange and the loop that turns them.
 *
 * The loop is the only place that waits.  A turn takes in what the broker and the peers have said,
 * serves a piece of other workers' rows, or advances the step in progress by one stage.  When the step
 * is waiting for rows that are away, others' rows are what there is to do; when there is nothing at
 * all, the loop sleeps until a message comes. */

#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "base/err.h"
#include "worker/settings.h"

enum worker_exit {
    WORKER_LEFT = 0,
    WORKER_FAILED = 1,
    WORKER_MODEL = 3,   /* the model cannot be loaded: starting it again is of no use */
    WORKER_REFUSED = 4, /* the broker will never have it */
};

/* Runs until it is told to leave.  stop_fd (a signalfd) is readable then; -1 for none.  err says why
 * unless WORKER_LEFT is returned. */
enum worker_exit worker_run(const struct settings *settings, int stop_fd, struct err *err);

#endif
