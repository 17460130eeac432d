/* settings - what a worker is told: flags, and the same keys in a YAML file.  Flags override the file. */

#ifndef WORKER_SETTINGS_H
#define WORKER_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/manual.h"
#include "base/yaml_fields.h"
#include "proto/link.h"
#include "worker/seat.h"

enum { SETTINGS_PATH_MAX = 4096 };

/* Indices of weights' choices; the first means "what the checkpoint has". */
enum settings_weights { SETTINGS_AUTO, SETTINGS_F32, SETTINGS_BF16, SETTINGS_Q8, SETTINGS_Q4 };

struct settings {
    char broker[LINK_ENDPOINT_MAX];
    char model[SETTINGS_PATH_MAX];
    int weights;
    int64_t threads; /* 0: one a core that this process may use */
    char name[SEAT_NAME_MAX];
    char exchange[LINK_ENDPOINT_MAX];
    char advertise[LINK_ENDPOINT_MAX];
    int64_t memory; /* bytes offered for shards; 0: three quarters of the machine's */
    int64_t cache;  /* bytes of latent cache; 0: from sequences and the context, within bounds */
    int64_t exchange_bytes_max;
    int64_t sequences;
    int64_t batch_tokens;
    char chat_template[16];
    int64_t control_fd, lock_fd; /* -1: none */
    int log;                     /* 0 text, 1 JSON lines */
    int log_level;               /* enum log_level */
    char config[SETTINGS_PATH_MAX];
};

extern const struct field settings_fields[];
extern const int settings_field_count;

/* argv is reordered.  ERR_INPUT names the flag, or the file, line and key. */
bool settings_read(struct settings *settings, int argc, char **argv, struct err *err);
extern const struct manual settings_manual;

#endif
