/* sample - from logits to a token, and what the log-probs were.
 *
 * A draw is a function of (seed, choice, position) and nothing else: Philox4x32-10 with the seed as
 * its key and (choice, position) as its counter.  So the same request draws the same tokens whatever
 * runs beside it.  Order wherever it matters is (logit descending, id ascending); there are no ties.
 *
 * Order of the filters: temperature, then top_k, then top_p over what top_k left (the smallest prefix
 * whose share reaches top_p).  Ids at or above `known` (rows beyond the tokenizer) are never drawn, but
 * log-probs are normalised over all rows, at temperature 1, as the reference does. */

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
};

struct sample_logprob {
    int32_t token;
    float logprob;
};

struct sampler; /* scratch */

struct sampler *sampler_new(const struct backend *backend, int vocab); /* NULL without memory */
void sampler_free(struct sampler *sampler);                            /* NULL is fine */

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
