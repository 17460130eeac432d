/* A dispatch from another worker: what the check passes may be read without looking again. */

#include "worker/dispatch.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t moe[4] = { 0, 1, 1, 0 };
    const struct dispatch_shape shape = { .hidden = 4,
                                          .carrier_bytes = 2,
                                          .expert_count = 16,
                                          .experts_per_shard = 4,
                                          .shard_count = 4,
                                          .layer_count = 4,
                                          .moe = moe };
    uint32_t head[4];
    struct span payload;

    /* layer, rows, pairs, slots; then the payload in memory of just its size, so that a sanitizer sees every
     * step beyond it */
    if (size < sizeof head)
        return 0;
    memcpy(head, data, sizeof head);
    size -= sizeof head;
    uint8_t *copy = malloc(size ? size : 1);

    memcpy(copy, data + sizeof head, size);
    payload = span_of(copy, size);
    if (!dispatch_check(&shape, head[0], head[1], head[2], head[3], payload)) {
        struct expert_pair *pair = malloc(head[2] * sizeof *pair);
        uint32_t last = 0;

        dispatch_pairs(&shape, head[1], head[2], payload, pair);
        for (uint32_t i = 0; i < head[2]; i++) {
            if (pair[i].row >= head[1] || pair[i].slot >= head[3] || pair[i].expert >= shape.expert_count ||
                pair[i].expert < last)
                abort();
            last = pair[i].expert;
        }
        free(pair);
    }
    free(copy);
    return 0;
}
