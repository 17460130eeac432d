/* forward - one step: a forward pass over a mixed batch of rows, as stages.
 *
 * A row is one position of one sequence.  Rows of one sequence stand together, ascending by position;
 * every earlier position is in its cache already or stands in the same step.  The stages are plain
 * functions; those that return bool do one piece of work (at most about 20 ms) and are called again
 * until they return true, so that the caller can look at its network in between:
 *
 *     forward_begin(step, rows, row_count);
 *     for (layer = 0; layer < L; layer++) {
 *         while (!forward_attend(step, layer)) ...;
 *         if (config_layer_is_moe(config, layer)) {
 *             forward_route(step, layer);
 *             ... send step->carried and step->pairs to the holders; local shards: experts.h ...
 *             while (!forward_shared(step, layer)) ...;   // while the rows are away
 *             forward_combine(step, layer, sums, shard by shard);
 *         } else
 *             while (!forward_dense(step, layer)) ...;
 *     }
 *     while (!forward_logits(step, first, count)) ...;
 *
 * What a row's bits are depends on its sequence alone: never on the other rows, the chunk it came in,
 * the number of threads, or who computed its experts.  MODEL.md says where each rounding happens. */

#ifndef MODEL_FORWARD_H
#define MODEL_FORWARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "worker/model/cache.h"
#include "worker/model/experts.h"
#include "worker/model/model.h"

struct forward_row {
    struct cache_sequence *sequence; /* grown to hold position */
    int32_t token;                   /* below the vocabulary; out of range is a bug of the caller */
    int32_t position;
    bool generated; /* the absorbed form; false: the expanded one, for positions of the prompt */
    bool want_logits;
};

enum { FORWARD_ROWS_MAX = 4096 };

/* One token's choice: experts ascending by id. */
struct forward_choice {
    uint32_t expert;
    float weight;
};

struct forward; /* a step's workspace, made once and used again */

/* Room for rows_max rows (lowered so that rows * experts_per_token fits 16 bits: forward_rows_max
 * says what it became); logits for logits_max rows at once.  NULL without memory. */
struct forward *forward_new(struct model *model, int rows_max, int logits_max);
int forward_rows_max(const struct forward *step);
void forward_free(struct forward *step); /* NULL is fine */

void forward_begin(struct forward *step, const struct forward_row *rows, int row_count);
bool forward_attend(struct forward *step, int layer);
bool forward_dense(struct forward *step, int layer);

/* In one call: the router is small.  After it: carried rows and choices are there to be read until the layer
 * is combined. */
void forward_route(struct forward *step, int layer);
const void *forward_carried(const struct forward *step);                  /* [row_count, H] in the carrier */
const struct forward_choice *forward_choices(const struct forward *step); /* [row_count, experts_per_token] */

bool forward_shared(struct forward *step, int layer);

/* A shard's answer to one row.  The caller hands in all answers of a row in ascending shard order:
 * sums: row_count * (at most experts_per_token) entries, ordered by row, then by shard. */
struct forward_sum {
    uint16_t row;
    uint16_t shard;
    const void *sum; /* [H] in the carrier, any alignment */
};
void forward_combine(struct forward *step, int layer, const struct forward_sum *sums, int sum_count);

/* Rows that want logits are numbered in the order of the rows.  Logits of the wanted rows first .. first + count - 1
 * (count <= logits_max). */
bool forward_logits(struct forward *step, int first, int count);
/* f32 [vocab] of wanted row number wanted, which was in the last forward_logits. */
const float *forward_logits_of(const struct forward *step, int wanted);

/* All layers in one process: every shard must be seated.  Then use forward_logits. */
bool forward_run(struct forward *step, struct experts *experts, const struct forward_row *rows, int row_count,
                 struct err *err);

/* The choices of a step as one expert call over the shards for which `shards[shard]` is true, pairs
 * ascending by expert; `row_of` and `slot_shard` say what each slot is; slots are ordered by row, then
 * by shard.  Returns the number of pairs; *slot_count gets the slots.  Room: row_count *
 * experts_per_token of each.  Rows are numbered as in the step. */
int forward_pairs(const struct forward *step, const bool *shards, struct expert_pair *pairs,
                  uint16_t *slot_row, uint16_t *slot_shard, int *slot_count);

#endif
