#include "broker/window.h"

#include <assert.h>
#include <string.h>

void window_init(struct window *window)
{
    window->first = window->count = 0;
    window->seen = 0;
    window->whole = false;
}

/* The place of seq, or where it would go. */
static size_t place_of(const struct window *window, int64_t seq)
{
    size_t low = 0, high = window->count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (window_at(window, middle)->seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void to_front(struct window *window)
{
    memmove(window->job, window->job + window->first, window->count * sizeof window->job[0]);
    window->first = 0;
}

void window_offer(struct window *window, struct waiting job)
{
    size_t place = place_of(window, job.seq);
    bool full = window->count == WINDOW_MAX;
    struct waiting *at;

    if (place < window->count && window_at(window, place)->seq == job.seq) {
        window->job[window->first + place] = job;
        return;
    }
    if (job.seq > window->seen && !window->whole)
        return; /* the store has older ones in between */
    if (full) {
        window->whole = false;
        if (place == window->count) {
            window->seen = window_at(window, place - 1)->seq;
            return;
        }
        window->count--;
    }
    if (window->first + window->count == WINDOW_MAX * 2)
        to_front(window);
    at = window->job + window->first + place;
    memmove(at + 1, at, (window->count - place) * sizeof *at);
    *at = job;
    window->count++;
    if (full)
        window->seen = window_at(window, window->count - 1)->seq;
}

void window_remove(struct window *window, int64_t seq)
{
    size_t place = place_of(window, seq);
    struct waiting *at = window->job + window->first + place;

    if (place == window->count || at->seq != seq)
        return;
    if (place == 0) {
        window->first++;
    } else {
        memmove(at, at + 1, (window->count - place - 1) * sizeof *at);
    }
    if (--window->count == 0)
        window->first = 0;
}

void window_remove_batch(struct window *window, int64_t batch)
{
    struct waiting *job = window->job + window->first;
    size_t kept = 0;

    for (size_t i = 0; i < window->count; i++)
        if (job[i].batch != batch)
            job[kept++] = job[i];
    window->count = kept;
    if (kept == 0)
        window->first = 0;
}

bool window_wants(const struct window *window, int64_t *after)
{
    if (window->whole || window->count >= WINDOW_LOW)
        return false;
    *after = window->seen;
    return true;
}

void window_refill(struct window *window, const struct waiting *jobs, size_t count, int64_t seen, bool whole)
{
    size_t room = WINDOW_MAX - window->count;

    assert(!window->whole && seen >= window->seen);
    assert(count == 0 || (jobs[0].seq > window->seen && jobs[count - 1].seq <= seen));
    window->seen = seen;
    window->whole = whole;
    if (count > room) {
        count = room;
        window->seen = jobs[count - 1].seq;
        window->whole = false;
    }
    if (count == 0)
        return;
    to_front(window);
    memcpy(window->job + window->count, jobs, count * sizeof *jobs);
    window->count += count;
}
