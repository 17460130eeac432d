/* sequence - one generation: from the body of a lease to the tokens it has so far.
 *
 * What depends on the model is checked here: ids that exist, the length of the context, a chat
 * template.  A request that fails such a check has a fault in the words of an OpenAI error and never
 * runs. */

#ifndef WORKER_SEQUENCE_H
#define WORKER_SEQUENCE_H

#include "proto/request.h"
#include "worker/answer.h"
#include "worker/model/cache.h"
#include "worker/model/chat.h"
#include "worker/model/sample.h"
#include "worker/seat.h"

/* What every sequence of a worker shares. */
struct sequence_world {
    const struct tokenizer *tokenizer;
    const struct chat *chat; /* NULL: chat_why says why chat requests cannot be answered */
    const char *chat_why;
    int32_t context;
    int32_t vocab;
};

struct sequence {
    struct seat_lease *lease;
    struct arena arena;
    struct request request;
    struct ids prompt;
    struct answer answer;
    struct sample_params sampling;
    int32_t new_max;    /* tokens to generate at most */
    int64_t started_ms; /* wall clock: when it first took part in a step */

    bool running;    /* it has its place in the cache */
    bool dropped;    /* the lease is gone: free it when the step is over */
    bool over;       /* nothing more to compute */
    bool broken;     /* the model gave no usable logits */
    bool impossible; /* the cache is too small even for it alone */
    int32_t cached;  /* positions 0 .. cached - 1 are in the cache */
    struct cache_sequence cache;
    struct sequence *next; /* in a list, oldest first */
};

/* Takes lease.  False with a fault when the request cannot be run; the lease is then still the caller's. */
bool sequence_new(struct sequence **sequence, const struct sequence_world *world, struct seat_lease *lease,
                  struct request_fault *fault);
void sequence_free(
    struct sequence *sequence); /* NULL is fine; the cache must have been initialised or never used */

int32_t sequence_total(const struct sequence *sequence); /* tokens known: prompt and generated */
int32_t sequence_token(const struct sequence *sequence, int32_t position);

/* True when the logits of this position are needed: to draw the next token, or to score a prompt. */
bool sequence_wants(const struct sequence *sequence, int32_t position);

#endif
