/* private_hall - a broker and workers for as long as one command needs them.
 *
 * Everything lasting is in the state directory: the broker's store, the logs, two locks.
 *
 *   run.lock   held by the command alone, with its process id and verb in it
 *   lock       held by the command and, through an inherited descriptor, by every process it started:
 *              so it is free only when the last of them has ended
 *
 * Sockets lie in a short 0700 directory under the runtime directory.  Its name is a digest of the
 * state directory's path, so that whoever holds the locks finds, and removes, what a killed command left.
 *
 * Every child has a control pipe that only the command holds open: when the command ends, however it
 * ends, they end too.  A child that dies is started again, after a while that grows; five deaths in a
 * row before it was ready, or a model that cannot be loaded, end the hall.  The broker is told of each
 * worker's death at once, over a session of the supervisor's own.
 *
 * No thread: the owner calls private_hall_turn, or gives private_hall_side to what waits. */

#ifndef CLIENT_PRIVATE_HALL_H
#define CLIENT_PRIVATE_HALL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "client/hall.h"

enum {
    PRIVATE_WORKERS_MAX = 64,
    PRIVATE_DEATHS_MAX = 5,           /* in a row, before it was ready */
    PRIVATE_LOG_BYTES_MAX = 16 << 20, /* of each log file; then it begins again */
};

/* ---- the state directory ------------------------------------------------------------------------ */

struct state_lock {
    char dir[4096];
    int run_fd, shared_fd; /* -1: not held */
};

/* Makes the directory where it is missing, and takes both locks.  ERR_BUSY names the process that is at
 * work there; ERR_CONFLICT when the directory holds somebody's own files.  Where only the children of a
 * killed command hold on, waits for their end, at most 30 s. */
bool state_lock_take(struct state_lock *lock, const char *dir, const char *verb, struct err *err);
void state_lock_release(struct state_lock *lock);

/* The endpoint of the hall of this state directory, whether a broker runs there or not. */
bool state_endpoint(char *endpoint, size_t size, const char *dir, struct err *err);

/* True where a live command holds run.lock; pid is its. */
bool state_is_live(const char *dir, int *pid);

bool state_store_exists(const char *dir);

/* Removes the store and all else that only an unfinished run needs. */
bool state_clear(const char *dir, bool keep_store, struct err *err);

/* ---- the hall ------------------------------------------------------------------------------------ */

struct private_hall;

struct private_config {
    const struct state_lock *lock;
    int workers;   /* 0: a broker alone */
    int threads;   /* of each worker; 0: the machine's, shared out */
    int sequences; /* 0: the worker's default */
    const char *model;
    const char *weights;       /* "auto", "f32", "bf16" */
    const char *chat_template; /* NULL: recognised from the model's files */
    const char *family;        /* NULL or empty: the store's, or what the workers have in common */
};

bool private_hall_start(struct private_hall **hall, struct link_context *context,
                        const struct private_config *config, struct err *err);

/* Ends workers, then the broker: a step is finished, results are handed over, the store is closed.  Removes
 * the sockets. */
void private_hall_stop(struct private_hall *hall);

const char *private_hall_endpoint(const struct private_hall *hall);

/* Looks after the children.  False when the hall has come to its end, or a stop was asked. */
bool private_hall_turn(struct private_hall *hall, struct err *err);

/* For struct hall_config: also watches for a stop. */
struct hall_side *private_hall_side(struct private_hall *hall);

/* What the broker knows of the workers: who is connected was ready. */
void private_hall_note(struct private_hall *hall, const Moothall__Status *status);

/* Every worker was seen at its seat in its present life. */
bool private_hall_is_ready(const struct private_hall *hall);

/* Starts the hall's workers where it was begun without. */
bool private_hall_add_workers(struct private_hall *hall, int workers, struct err *err);

#endif
