#include "worker/dispatch.h"

#include <stdlib.h>

_Static_assert(sizeof(struct expert_pair) == 12, "a pair has twelve bytes on the wire");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows and pairs are copied as they are");

uint32_t dispatch_rows_max(const struct dispatch_shape *shape, bool decode)
{
    uint32_t row = shape->hidden * shape->carrier_bytes, rows;

    if (decode)
        rows = DISPATCH_DECODE_ROWS_MAX < DISPATCH_DECODE_BYTES_MAX / row ? DISPATCH_DECODE_ROWS_MAX
                                                                          : DISPATCH_DECODE_BYTES_MAX / row;
    else
        rows = DISPATCH_ROW_BYTES_MAX / row < DISPATCH_ROWS_MAX ? DISPATCH_ROW_BYTES_MAX / row
                                                                : DISPATCH_ROWS_MAX;
    return rows ? rows : 1;
}

static uint32_t rows_max(const struct dispatch_shape *shape)
{
    uint32_t prompt = dispatch_rows_max(shape, false), decode = dispatch_rows_max(shape, true);

    return prompt > decode ? prompt : decode;
}

void dispatch_pairs(const struct dispatch_shape *shape, uint32_t row_count, uint32_t pair_count,
                    struct span payload, struct expert_pair *pairs)
{
    size_t rows_size = (size_t)row_count * shape->hidden * shape->carrier_bytes;

    memcpy(pairs, payload.data + rows_size, (size_t)pair_count * sizeof *pairs);
}

struct slot_seen {
    uint32_t shard_plus_1; /* 0: no pair yet */
    uint16_t row;
};

static const char *check_pairs(const struct dispatch_shape *shape, uint32_t row_count, uint32_t pair_count,
                               uint32_t slot_count, const uint8_t *at, struct slot_seen *slots,
                               uint8_t *row_used)
{
    uint32_t last_expert = 0;

    for (uint32_t i = 0; i < pair_count; i++, at += sizeof(struct expert_pair)) {
        struct expert_pair pair;
        struct slot_seen *slot;
        uint32_t shard;

        memcpy(&pair, at, sizeof pair);
        if (pair.row >= row_count)
            return "a pair's row is out of range";
        if (pair.slot >= slot_count)
            return "a pair's slot is out of range";
        if (pair.expert >= shape->expert_count)
            return "a pair's expert is out of range";
        if (pair.expert < last_expert)
            return "pairs do not ascend by expert";
        last_expert = pair.expert;
        shard = pair.expert / shape->experts_per_shard;
        slot = &slots[pair.slot];
        if (slot->shard_plus_1 == 0)
            *slot = (struct slot_seen){ .shard_plus_1 = shard + 1, .row = pair.row };
        else if (slot->shard_plus_1 != shard + 1)
            return "a slot has pairs of two shards";
        else if (slot->row != pair.row)
            return "a slot has pairs of two rows";
        row_used[pair.row] = 1;
    }
    for (uint32_t i = 0; i < slot_count; i++)
        if (slots[i].shard_plus_1 == 0)
            return "a slot without a pair";
    for (uint32_t i = 0; i < row_count; i++)
        if (!row_used[i])
            return "a row that no pair uses";
    return NULL;
}

const char *dispatch_check(const struct dispatch_shape *shape, uint32_t layer, uint32_t row_count,
                           uint32_t pair_count, uint32_t slot_count, struct span payload)
{
    struct slot_seen *slots;
    uint8_t *row_used;
    const char *fault;
    uint64_t size;

    if (layer >= shape->layer_count)
        return "layer out of range";
    if (!shape->moe[layer])
        return "the layer has no experts";
    if (row_count == 0 || row_count > rows_max(shape))
        return "row count out of range";
    if (slot_count < row_count || slot_count > DISPATCH_ROWS_MAX ||
        slot_count > (uint64_t)row_count * shape->shard_count)
        return "slot count out of range";
    if (pair_count < slot_count || pair_count > (uint64_t)row_count * shape->expert_count)
        return "pair count out of range";
    size = (uint64_t)row_count * shape->hidden * shape->carrier_bytes +
           (uint64_t)pair_count * sizeof(struct expert_pair);
    if (payload.size != size)
        return "payload size does not agree with its counts";
    slots = calloc(slot_count, sizeof *slots);
    row_used = calloc(row_count, 1);
    if (!slots || !row_used)
        abort();
    fault =
        check_pairs(shape, row_count, pair_count, slot_count,
                    payload.data + (size_t)row_count * shape->hidden * shape->carrier_bytes, slots, row_used);
    free(slots);
    free(row_used);
    return fault;
}
