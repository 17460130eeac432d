/* answer - what a sequence has said so far, and the response body it becomes.
 *
 * Tokens come in one by one; the text grows by the characters they complete.  A stop string is looked
 * for in the text, so it does not matter how tokens cut it; the text ends before it.  The tokens that
 * were sampled are all kept: `token_ids`, the log-probs and usage count every one, also the end of
 * text, a stop token and what made up a stop string.
 *
 * A request may ask for several answers (n).  They share the prompt and its scores; the body holds them
 * all as `choices`, and its usage counts the prompt once.
 *
 * Log-probs are of the model's own distribution, before temperature, over all rows of its output. */

#ifndef WORKER_ANSWER_H
#define WORKER_ANSWER_H

#include "base/err.h"
#include "base/span.h"
#include "proto/request.h"
#include "worker/model/detokenize.h"
#include "worker/model/tokenizer.h"

struct answer_top {
    int32_t id;
    float logprob;
};

/* One scored token: its own log-prob and those of the likeliest at that place. */
struct answer_score {
    float logprob;
    bool known; /* false for the first token of a prompt: nothing predicts it */
    int top_count;
    struct answer_top top[REQUEST_TOP_LOGPROBS_MAX];
};

enum answer_end { ANSWER_OPEN, ANSWER_STOP, ANSWER_LENGTH, ANSWER_REPETITION };

struct answer {
    const struct request *request;
    const struct tokenizer *tokenizer;
    struct detokenizer detokenizer;
    const int32_t *prompt; /* borrowed */
    size_t prompt_count;
    struct ids generated;
    struct answer_score *prompt_score; /* [prompt_count], with echo and logprobs; else NULL */
    bool borrowed;                     /* the prompt's scores are the first choice's */
    struct answer_score *score;        /* one a generated token, with logprobs */
    size_t score_capacity;
    struct buf text; /* generated only */
    enum answer_end end;
};

/* Keeps request, tokenizer and prompt, which must outlive it.  first: the answer of choice 0, for the others.
 */
void answer_init(struct answer *answer, const struct request *request, const struct tokenizer *tokenizer,
                 const int32_t *prompt, size_t prompt_count, const struct answer *first);
void answer_fini(struct answer *answer);

/* The next token.  score may be NULL when no log-probs were asked for.  last: it ends the text and adds
 * nothing to it.  True while the answer goes on; false when answer->end was set. */
bool answer_add(struct answer *answer, int32_t id, bool last, const struct answer_score *score);

/* Ends it where it is: for that reason, unless what is still held back of its text completes a stop string.
 */
void answer_end(struct answer *answer, enum answer_end end);

/* The response body without `id` and `created`, of the choices in their order: keys in a fixed order,
 * compact. ERR_LIMIT when it would be larger than size_max. */
bool answer_body(const struct answer *const *choice, int count, size_t size_max, struct buf *out,
                 struct err *err);

#endif
