/* dispatch - the payload of one expert call: what it looks like, and whether it may be believed.
 *
 * A dispatch carries rows to the holder of some shards: row_count rows of `hidden` values in the
 * carrier, then pair_count pairs (row, slot, expert, weight), ascending by expert.  A slot is one
 * row's part in one shard; the answer has one row a slot.  proto/PROTOCOL.md has the bytes.
 *
 * Nothing that came over a wire is used before dispatch_check has passed it. */

#ifndef WORKER_DISPATCH_H
#define WORKER_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "worker/model/experts.h"

enum {
    DISPATCH_ROW_BYTES_MAX = 256 * 1024, /* rows in one frame; at least one row always goes */
    DISPATCH_ROWS_MAX = 65535,
    DISPATCH_DECODE_BYTES_MAX = 24 * 1024 * 1024, /* below a payload's bound, pairs included */
    DISPATCH_DECODE_ROWS_MAX = 1024,              /* generations in progress at once */
    DISPATCH_SHARDS_MAX = 1024,
};

/* What both ends know of the model. */
struct dispatch_shape {
    uint32_t hidden;
    uint32_t carrier_bytes; /* 2 (bf16) or 4 (f32) */
    uint32_t expert_count;
    uint32_t experts_per_shard; /* shard of an expert: expert / experts_per_shard */
    uint32_t shard_count;
    uint32_t layer_count;
    const uint8_t *moe; /* [layer_count]: 1 where the layer has experts */
};

/* Rows of one frame.  A prompt's rows are cut into frames of DISPATCH_ROW_BYTES_MAX, so that they do not
 * keep others waiting; the rows of a decode step go in one, so that a step costs one message a layer. */
uint32_t dispatch_rows_max(const struct dispatch_shape *shape, bool decode);

/* NULL when every number is in its range and agrees with the others, else what is wrong: the layer
 * has experts, sizes add up, pairs ascend by expert, a slot has at least one pair and all of its
 * pairs are of one row and one shard, every row is used. */
const char *dispatch_check(const struct dispatch_shape *shape, uint32_t layer, uint32_t row_count,
                           uint32_t pair_count, uint32_t slot_count, struct span payload);

/* The pairs of a checked payload, copied out (they may stand unaligned). */
void dispatch_pairs(const struct dispatch_shape *shape, uint32_t row_count, uint32_t pair_count,
                    struct span payload, struct expert_pair *pairs);

#endif
