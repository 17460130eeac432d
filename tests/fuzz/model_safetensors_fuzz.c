/* Any bytes as a safetensors file: an error, or entries that all lie within the file.  The first eight bytes
 * are the header's size, which mutations rarely get right, so an input without them is tried too. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_file(const uint8_t *data, size_t size)
{
    struct safetensors_entry *entry;
    struct err err = { 0 };
    size_t count;
    volatile unsigned char sum = 0;

    if (!safetensors_parse(span_of(data, size), "file", &entry, &count, NULL, &err)) {
        if (err.code == ERR_NONE || strncmp(err.text, "file", 4) != 0)
            abort();
        return;
    }
    for (size_t i = 0; i < count; i++)
        for (uint64_t b = 0; b < entry[i].bytes; b++)
            sum = (unsigned char)(sum + entry[i].data[b]);
    safetensors_entries_free(entry, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 8 ? memrchr(data + 8, '}', size - 8) : NULL;

    try_file(data, size);
    if (end) {
        uint64_t header = (uint64_t)(end + 1 - (data + 8));
        uint8_t *fixed = malloc(size);

        if (!fixed)
            abort();
        memcpy(fixed, data, size);
        memcpy(fixed, &header, 8);
        try_file(fixed, size);
        free(fixed);
    }
    return 0;
}
