/* step - the sequences in progress, and the forward pass that moves them all one on.
 *
 * Between route and combine the rows of shards held elsewhere are away.  So a step is not a call that
 * returns when it is done but a state that step_advance moves on by one piece of work (at most about
 * 20 ms); when the next piece needs rows that are still away it says so, and its caller does something
 * useful meanwhile.  Nothing here waits.
 *
 * Which sequences take part, and with how many rows, is the plan of schedule.h.  A sequence that is sent
 * away when the cache is full starts over later: its prompt in the expanded form and what it had
 * generated in the absorbed form, each position as before, so its bytes do not change.
 *
 * What comes in and goes out is a job; what takes part is a sequence, one for each of its choices. */

#ifndef WORKER_STEP_H
#define WORKER_STEP_H

#include "base/err.h"
#include "worker/exchange.h"
#include "worker/model/model.h"
#include "worker/sequence.h"

struct step_config {
    int sequences_max; /* in progress at once */
    int batch_tokens;  /* rows of one pass */
    int64_t cache_bytes;
};

struct step_counts {
    uint64_t steps;             /* passes begun */
    uint64_t decode_steps;      /* of those, with nothing but generated positions */
    uint64_t decode_steps_away; /* of those, with rows that went to other workers */
    uint64_t prompt_tokens;     /* positions of prompts computed, again after a preemption too */
    uint64_t generated_tokens;  /* tokens drawn */
    uint64_t preempted;
    int sequences; /* here now, waiting ones included */
    int running;
};

struct step;

/* exchange must outlive it.  ERR_INPUT when the cache cannot hold a single page, ERR_IO without memory. */
bool step_new(struct step **step, struct model *model, const struct tokenizer *tokenizer,
              struct exchange *exchange, const struct step_config *config, struct err *err);
void step_free(struct step *step); /* with all its sequences; NULL is fine */

void step_add(struct step *step, struct job *job); /* takes it; it waits for room */
/* The lease of that fence is gone: its job ends without a result, as soon as the pass allows. */
void step_drop(struct step *step, uint64_t fence);
/* A job that is over, taken out and yours; NULL when there is none. */
struct job *step_take(struct step *step);
const struct job *step_jobs(const struct step *step); /* all that are not over, oldest first */

enum step_state {
    STEP_IDLE,   /* no sequence can move */
    STEP_WORKED, /* a piece was done */
    STEP_AWAITS, /* rows are away */
    STEP_FAILED, /* err says why; the worker cannot go on */
};

enum step_state step_advance(struct step *step, struct err *err);
bool step_in_pass(const struct step *step);
struct step_counts step_counts(const struct step *step);

#endif
