/* named - batches and jobs of a hall, as a person names them.
 *
 * A batch is named by its name alone where no queue is given: the broker looks through all queues.  A job is
 * named by its custom_id, as in the file, or by its id, as `id` in a result shows it (batch_req_ may stand
 * before it). */

#ifndef CLIENT_NAMED_H
#define CLIENT_NAMED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "client/connect.h"

struct named_batch {
    char queue[65], batch[RECORD_NAME_MAX + 1];
    uint64_t live, ended; /* its jobs */
};

/* What `named_batch` and `named_queue` would miss, said before anybody is asked: with --broker there is no
 * run whose own it could be. */
bool named_enough(const char *broker, const char *flag, const char *name, struct err *err);

/* queue, batch: as given, or empty; with --state the run's own where both are. */
bool named_batch(struct named_batch *named, struct connection *connection, const char *queue,
                 const char *batch, struct err *err);

/* The queue given, or, with --state, the run's. */
bool named_queue(char queue[65], const struct connection *connection, const char *given, struct err *err);

/* Calls `ask` with the ids of the jobs that the words name, at most 256 a call.  False with ERR_NOT_FOUND
 * from it means that one of them is unknown, and that nothing was done.  ERR_NOT_FOUND here names the word.
 */
typedef bool named_ask(void *arg, char **id, size_t count, struct err *err);
bool named_jobs(const struct named_batch *named, char **word, int count, named_ask *ask, void *arg,
                struct err *err);

#endif
