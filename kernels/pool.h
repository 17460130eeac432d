/* pool - threads that share one job at a time.
 *
 * A job is a function and a number of units; each unit is run exactly once, by whoever is free.  The
 * caller works too, and waits only for units that somebody has begun: a thread that the machine
 * did not schedule is not waited for.  Waiting is a short spin and then sleep, so an idle pool costs nothing
 * and a busy neighbour costs its share, not everything.
 *
 * One caller at a time.  Units must not depend on each other. */

#ifndef KERNELS_POOL_H
#define KERNELS_POOL_H

#include <stdbool.h>

#include "base/err.h"

enum { POOL_THREADS_MAX = 256, POOL_UNITS_MAX = 1 << 20 };

struct pool;

typedef void pool_work(void *context, int unit);

/* threads: the caller included; 1 makes no thread. */
bool pool_new(struct pool **pool, int threads, struct err *err);
void pool_free(struct pool *pool); /* NULL is fine */
int pool_threads(const struct pool *pool);

/* Returns when all units are done.  units <= POOL_UNITS_MAX. */
void pool_run(struct pool *pool, pool_work *work, void *context, int units);

#endif
