/* The first frame of a message, from anybody: checked and unpacked within its budget, or refused. */

#include "proto/frame.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    const char *fault;
    Moothall__Envelope *envelope;

    if (size > 64 * 1024) /* the link refuses these before it asks */
        return 0;
    arena_init(&arena, FRAME_UNPACKED_MAX);
    envelope = frame_unpack(&arena, span_of(data, size), &fault);
    if (envelope) {
        /* What was accepted can be said again, and is then accepted again. */
        size_t packed = moothall__envelope__get_packed_size(envelope);
        uint8_t *again = malloc(packed ? packed : 1);

        if (moothall__envelope__pack(envelope, again) != packed || frame_check(&moothall__envelope__descriptor, span_of(again, packed)))
            abort();
        free(again);
    } else if (!fault) {
        abort();
    }
    arena_fini(&arena);
    return 0;
}
