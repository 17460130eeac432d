/* sequence - one generation: from the body of a lease to the tokens it has so far.
 *
 * A *job* is what a lease asks for; it has one sequence a choice (n), most often one.  What depends on the
 * model is checked when it is made: ids that exist, the length of the context, a chat template, a form that
 * can be compiled and fits into max_tokens.  A request that fails such a check has a fault in the words of an
 * OpenAI error and never runs.
 *
 * Choices begin alike: with the prompt and, where the output has a form whose first bytes are forced, with
 * those.  That much, `common` tokens, choice 0 computes for all: each draws its own next token from the same
 * logits, and takes over the cache pages if they are still there.  It is not to be seen in the bytes.
 *
 * Where the output has a form, tokens of forced bytes are added without a draw, all at once; with log-probs
 * one at a time, so that each has its own.  The end-of-text token may be drawn where the text is complete,
 * unless ignore_eos says otherwise.  It ends with "stop" too where nothing can follow or where the budget is
 * spent: then it is complete.  A repetition ends a free text at once; one that has a form gets the shortest
 * end that it can have from there. */

#ifndef WORKER_SEQUENCE_H
#define WORKER_SEQUENCE_H

#include "proto/request.h"
#include "worker/answer.h"
#include "worker/forms.h"
#include "worker/model/cache.h"
#include "worker/model/chat.h"
#include "worker/model/grammar.h"
#include "worker/model/sample.h"
#include "worker/seat.h"

/* What every sequence of a worker shares. */
struct sequence_world {
    const struct tokenizer *tokenizer;
    const struct chat *chat; /* NULL: chat_why says why chat requests cannot be answered */
    const char *chat_why;
    int32_t context;
    int32_t vocab;
    struct forms *forms;
    size_t text_bytes_max; /* a longer prompt cannot fit into the context; 0: not known */
};

struct sequence {
    struct job *job;
    struct answer answer;
    struct sample_params sampling;
    struct sample_history history; /* with penalties */
    struct grammar_run *run;       /* with a form */
    struct ids forced;             /* tokens that come next, whatever the model says: from forced_done on */
    size_t forced_done;
    uint32_t *alike; /* with repetition_detection: [pattern_max + 1], see sequence.c */
    bool repeated;
    int32_t new_max; /* tokens to generate at most */

    bool running;   /* it has its place in the cache */
    bool over;      /* nothing more to compute */
    int32_t cached; /* positions 0 .. cached - 1 are in the cache */
    int32_t taken;  /* of them, positions of the prompt that another choice computed, the first time */
    bool begun;     /* its first draw is done */
    bool placed;    /* it has been running */
    struct cache_sequence cache;
    struct sequence *next; /* in a list, oldest first */
};

struct job {
    struct seat_lease *lease;
    struct arena arena;
    struct request request;
    struct ids prompt;
    struct form *form; /* NULL: none */
    struct forms *forms;
    const struct tokenizer *tokenizer;
    struct sample_bias *bias;
    int32_t common;
    int64_t started_ms; /* wall clock: when it first took part in a step */

    bool dropped;    /* the lease is gone: free it when the step is over */
    bool impossible; /* the cache is too small even for one of its choices alone */
    bool failed;     /* with `fault` */
    struct request_fault fault;
    int open; /* choices that are not over */
    struct job *next;
    int choice_count;
    struct sequence choice[];
};

/* Takes lease.  False with a fault when the request cannot be run; the lease is then still the caller's.  A
 * fault with status 503 is this worker's own trouble: the request can run elsewhere, or later. */
bool job_new(struct job **job, const struct sequence_world *world, struct seat_lease *lease,
             struct request_fault *fault);
void job_free(struct job *job); /* NULL is fine; its caches must have been initialised or never used */
/* All of its choices are over, for this reason. */
void job_fail(struct job *job, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void job_scored(struct job *job);              /* its prompt, and that was all that was asked for */
uint32_t job_generated(const struct job *job); /* tokens of all choices */
uint32_t job_cached(const struct job *job);    /* tokens of the prompt that choices took from another */
bool job_body(const struct job *job, size_t size_max, struct buf *out, struct err *err);

int32_t sequence_total(const struct sequence *sequence); /* tokens known: prompt and generated */
int32_t sequence_token(const struct sequence *sequence, int32_t position);

/* True when the logits of this position are needed: to draw the next token, or to score a prompt. */
bool sequence_wants(const struct sequence *sequence, int32_t position);

/* A choice that waits for choice 0 to compute what they have in common. */
bool sequence_is_held(const struct sequence *sequence);

/* The next token, where it is not for the model to choose: forced by the form, with log-probs.  -1: it is. */
int32_t sequence_forced(const struct sequence *sequence);
/* What is done to the logits of its next draw.  False: it is over, because nothing may follow. */
bool sequence_shape(struct sequence *sequence, struct sample_shape *shape);
/* The token drawn, with its score if log-probs were asked for; -1: no logit was usable.  What is forced after
 * it is added too. */
void sequence_add(struct sequence *sequence, int32_t token, const struct answer_score *score);

#endif
