/* window - the oldest ready jobs of one band, as many as fit.
 *
 * The store holds every job; the window only the next few, in order of age, so a million waiting
 * jobs cost neither memory nor time at the start.  `whole` says that there are no ready jobs
 * beyond the window's last; while it is false the caller reads more from the store when the window
 * runs low, and jobs younger than its last stay in the store. */

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
    uint32_t size;
    bool alone; /* to be leased to a worker that holds nothing else */
};

struct window {
    size_t first, count;
    bool whole;
    struct waiting job[WINDOW_MAX * 2]; /* twice, so that taking from the front seldom moves anything */
};

/* Empty, and not whole: the store has to be asked. */
void window_init(struct window *window);

/* The job became ready.  It is put in by age; when the window is full, or the job is younger than
 * what an unfinished window knows, the store keeps it (or the youngest) for later. */
void window_offer(struct window *window, struct waiting job);

/* The job is not ready any more, or is another now.  Nothing happens when it is not in the window. */
void window_remove(struct window *window, int64_t seq);

/* The i-th oldest, i < count. */
static inline const struct waiting *window_at(const struct window *window, size_t i)
{
    return &window->job[window->first + i];
}

/* True when the store should be asked for ready jobs younger than *after. */
bool window_wants(const struct window *window, int64_t *after);

/* What the store had: jobs in order of age, all younger than the window's last.  more: the store
 * was asked for `asked` and had as many, so there may be others beyond. */
void window_refill(struct window *window, const struct waiting *jobs, size_t count, size_t asked);

#endif
