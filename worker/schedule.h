/* schedule - which sequences take part in the next step, and with how many rows.
 *
 * Pure: the lengths in, the plan out.  A sequence's tokens are its prompt and what it has generated;
 * those whose position is not in the cache yet are what it still has to compute, and when none is left
 * the next token is drawn.  So a prompt, a single decode row and a sequence that was preempted and starts
 * over are the same thing: `total - cached` rows to go.
 *
 * The rules: single rows first (they are what somebody waits for), then chunks, oldest first, up to the
 * budget.  When the cache is full, the youngest gives its place back and starts over later; so the oldest
 * always gets on, and all end.  Nobody overtakes in the queue for admission, so a long prompt is not
 * starved by short ones.
 *
 * Several answers to one request share the pages of their prompt.  Such a page goes back only with its last
 * holder, so what sending somebody away brings is what it has for itself.  That is counted low where two
 * holders are sent away in one plan; the next plan knows better. */

#ifndef WORKER_SCHEDULE_H
#define WORKER_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

struct schedule_item {
    uint32_t total;  /* tokens */
    uint32_t cached; /* positions in the cache; 0 when it is not running */
    bool running;
    bool alone;       /* nothing else may be in progress with it */
    bool held;        /* waits for what another one computes for it; those behind it may go first */
    uint32_t shared;  /* pages that it has in common with others */
    uint32_t offered; /* positions that it can have in common with one that runs, when it is let in */

    /* The plan. */
    uint32_t rows;   /* to compute in this step */
    bool preempt;    /* was running: give its cache back */
    bool share;      /* was let in: take the positions offered first */
    bool impossible; /* it cannot go on even by itself: the cache is too small */
};

struct schedule_limits {
    uint32_t batch_tokens;
    uint32_t sequences_max;
    uint32_t page;       /* positions of one page of the cache */
    uint32_t pages_free; /* now */
    uint32_t pages_all;
};

/* Items are sorted oldest first. */
void schedule_plan(struct schedule_item *item, int count, struct schedule_limits limits);

#endif
