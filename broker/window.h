/* window - the oldest ready jobs of one band that may be leased, as many as fit.
 *
 * The store holds every job; the window only the next few, in order of age, so a million waiting
 * jobs cost neither memory nor time at the start.  `seen` is how far the store has been read: every ready
 * job up to there that may be leased is in the window, those beyond it are not.  `whole` says that there is
 * nothing beyond; while it is false the caller reads on when the window runs low.
 *
 * Jobs of a paused queue or of a batch that is being cancelled may not be leased: they are left out, and
 * whoever lets them in again begins the window anew. */

#ifndef BROKER_WINDOW_H
#define BROKER_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WINDOW_MAX = 2048,
    WINDOW_LOW = 512, /* read more from the store below this */
};

struct waiting {
    int64_t seq;
    int64_t batch;
    uint32_t size;
    bool alone; /* to be leased to a worker that holds nothing else */
};

struct window {
    size_t first, count;
    int64_t seen; /* every job up to this one has passed here */
    bool whole;
    struct waiting job[WINDOW_MAX * 2]; /* twice, so that taking from the front seldom moves anything */
};

/* Empty, and not whole: the store has to be asked. */
void window_init(struct window *window);

/* The job became ready.  It is put in by age; when the window is full, or the job lies beyond what an
 * unfinished window has seen, the store keeps it (or the youngest) for later. */
void window_offer(struct window *window, struct waiting job);

/* The job is not ready any more, or is another now.  Nothing happens when it is not in the window. */
void window_remove(struct window *window, int64_t seq);

/* The jobs of that batch are not to be leased any more. */
void window_remove_batch(struct window *window, int64_t batch);

/* The i-th oldest, i < count. */
static inline const struct waiting *window_at(const struct window *window, size_t i)
{
    return &window->job[window->first + i];
}

/* True when the store should be asked for ready jobs younger than *after. */
bool window_wants(const struct window *window, int64_t *after);

/* What the store had after that: jobs in order of age, those that may be leased of all up to `seen`; whole:
 * there was nothing else.  Of more than the window has room for the youngest are left in the store. */
void window_refill(struct window *window, const struct waiting *jobs, size_t count, int64_t seen, bool whole);

#endif
