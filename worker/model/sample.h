/* sample - from logits to a token, and what the log-probs were.
 *
 * A draw is a function of (seed, choice, position) and nothing else: Philox4x32-10 with the seed as
 * its key and (choice, position) as its counter.  So the same request draws the same tokens whatever
 * runs beside it.  Order wherever it matters is (logit descending, id ascending); there are no ties.
 *
 * What happens to the logits, in this order: what may not come is taken out (mask, banned ids); bias is
 * added; repetition_penalty divides positive logits of tokens seen in prompt or output and multiplies
 * negative ones; frequency_penalty is taken off once for each time a token was generated, presence_penalty
 * once for all of them.  Then the filters: temperature, min_p (ids whose probability is below min_p times the
 * best one's go), top_k, top_p over what these left (the smallest prefix whose share reaches top_p).  Greedy
 * draws take the best shaped logit.  The order is vLLM's.
 *
 * Ids at or above `known` (rows beyond the tokenizer) are never drawn, but log-probs are the model's own: of
 * the logits before all this, over all rows, at temperature 1, as the reference does. */

#ifndef MODEL_SAMPLE_H
#define MODEL_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/backend.h"

enum { SAMPLE_TOP_LOGPROBS_MAX = 20 };

struct sample_params {
    float temperature; /* 0: greedy */
    float top_p;       /* 1: off */
    int top_k;         /* 0: off */
    uint64_t seed;
    uint32_t choice; /* which of n answers to one request */
    float min_p;     /* 0: off */
};

struct sample_bias {
    int32_t id;
    float bias;
};

/* Which tokens a sequence has seen, each once: what penalties go over, instead of the vocabulary.
 * Zero-initialise. */
struct sample_seen {
    int32_t id;     /* -1: an empty place */
    uint32_t count; /* generated so often */
};
struct sample_history {
    struct sample_seen *seen; /* [room], by open addressing; room is 0 or a power of two */
    uint32_t room, used;
};
bool sample_history_add(struct sample_history *history, int32_t id,
                        bool generated); /* false without memory */
void sample_history_fini(struct sample_history *history);

/* What is done to logits before a draw.  All zero: nothing (a repetition of 0 counts as 1). */
struct sample_shape {
    const uint64_t *mask;  /* one bit an id, see grammar_mask: the ids that may come; NULL: all */
    const int32_t *beside; /* that may come although the mask lacks them */
    int beside_count;
    const int32_t *banned; /* that may not come */
    int banned_count;
    const struct sample_bias *bias;
    size_t bias_count;
    const struct sample_history *history; /* NULL: no penalties */
    float presence, frequency, repetition;
};

struct sample_logprob {
    int32_t token;
    float logprob;
};

struct sampler; /* scratch */

struct sampler *sampler_new(const struct backend *backend, int vocab); /* NULL without memory */
void sampler_free(struct sampler *sampler);                            /* NULL is fine */

/* Logits to draw from: those given where there is nothing to do, else a copy, good until the next call. */
const float *sample_shaped(struct sampler *sampler, const float *logits, int known,
                           const struct sample_shape *shape);

/* -1 when no logit of an allowed id is finite: the caller fails that request alone.
 * position: of the token that is drawn. */
int32_t sample_token(struct sampler *sampler, const float *logits, int known,
                     const struct sample_params *params, uint32_t position);

/* The log-prob of `token`, and of the `top_count` likeliest ids, best first. */
float sample_logprobs(struct sampler *sampler, const float *logits, int32_t token, struct sample_logprob *top,
                      int top_count);

/* In (0, 1): what the draw uses.  Public so that its values can be pinned by a test. */
double sample_uniform(uint64_t seed, uint32_t choice, uint32_t position);

#endif
