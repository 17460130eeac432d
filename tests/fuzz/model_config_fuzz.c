/* Any bytes as a config.json: an error or a configuration whose numbers may be used. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_config config;
    struct err err = { 0 };

    if (!config_parse(&config, span_of(data, size), "config.json", 0, &err)) {
        if (err.code == ERR_NONE || !strstr(err.text, "config.json"))
            abort(); /* an error without words helps nobody */
        return 0;
    }
    if (config.experts > 0 && config.shards * config.experts_per_shard != config.experts)
        abort();
    if (config.layers <= 8 && config.experts <= 64) { /* counting a large one takes a second */
        struct config_counts n = config_counts(&config);
        double *inv_freq = malloc((size_t)config.qk_rope / 2 * sizeof *inv_freq), amplitude, scale;

        if (n.parameters <= 0 || !inv_freq)
            abort();
        config_rope(&config, inv_freq, &amplitude, &scale);
        free(inv_freq);
    }
    return 0;
}
