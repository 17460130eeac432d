/* bench - measurements that a user can repeat: one JSON object a line, every setting that the figure depends
 * on in it. */

#ifndef CLIENT_BENCH_H
#define CLIENT_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct bench_options {
    char broker[256], model[4096], state[4096];
    int64_t clients, in_flight, size_bytes, seconds;
    int64_t workers, rounds, requests, prompt_tokens, max_tokens, sequences;
    int weights;
    bool quiet;
};

bool bench_queue(const struct bench_options *options, struct err *err);
bool bench_hall(const struct bench_options *options, struct err *err);

/* "ext4", "tmpfs", "overlay", ...: durability costs nothing on some. */
const char *bench_filesystem(const char *path);

/* A directory for a measurement's hall: --state, or a new one under $TMPDIR or /var/tmp. */
bool bench_directory(const struct bench_options *options, const char *what, char *dir, int size,
                     struct err *err);

#endif
