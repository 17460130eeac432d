/* experts - what the holder of a shard computes for rows, its own or another worker's.
 *
 * A call has rows [row_count, H] in the carrier and pairs (row, slot, expert, weight), ascending by
 * expert.  A slot is one row's part in one shard: the weighted outputs of its experts are added in
 * ascending expert id in f32 and rounded once to the carrier.  The same call is made for rows that
 * never left this process, so nobody can see who holds a shard.
 *
 *     bool more = experts_begin(experts, layer, rows, row_count, pairs, pair_count, slot_count, &err);
 *     while (!experts_work(experts, sums))
 *         look at the inbox;
 *
 * A call of experts_work takes at most about 20 ms.  Numbers that came over a wire must have been
 * checked by the caller; experts_begin checks once more what memory safety needs. */

#ifndef MODEL_EXPERTS_H
#define MODEL_EXPERTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct model;
struct experts;

struct expert_pair { /* the 12 bytes of the wire */
    uint16_t row;
    uint16_t slot;
    uint32_t expert;
    float weight;
};

enum { EXPERTS_ROWS_MAX = 65535, EXPERTS_SLOTS_MAX = 65535 };

/* Scratch for one call at a time; it grows to the largest call and keeps its memory. */
struct experts *experts_new(struct model *model);
void experts_free(struct experts *experts); /* NULL is fine */

/* rows and pairs must stay until the work is done.  ERR_INPUT for a pair that points outside or does
 * not ascend, ERR_NOT_FOUND for an expert whose shard is not seated here, ERR_LIMIT without memory. */
bool experts_begin(struct experts *experts, int layer, const void *rows, int row_count,
                   const struct expert_pair *pairs, int pair_count, int slot_count, struct err *err);

/* One piece; true when all is done, and sums [slot_count, H] in the carrier are then written. */
bool experts_work(struct experts *experts, void *sums);

#endif
