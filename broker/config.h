/* config - what a broker is told: a YAML file, and flags that override it.  One table serves both. */

#ifndef BROKER_CONFIG_H
#define BROKER_CONFIG_H

#include "base/yaml_fields.h"
#include "broker/core.h"

struct broker_config {
    char listen[256], store[4096], family[FAMILY_MAX + 1], config[4096];
    int64_t workers;
    int64_t lease_ms, heartbeat_ms, settle_ms;
    int64_t attempts_max, infra_max, backoff_ms, backoff_max_ms;
    int64_t retention_ms, jobs_max, sessions_max, ballast_bytes;
    int64_t control_fd, lock_fd; /* -1: none */
    int log, log_level;          /* text or json; debug, info, warn, error, quiet */
};

extern const struct field broker_fields[];
extern const int broker_field_count;

/* The file named by --config first, then the flags.  argv is changed. */
bool broker_config_read(struct broker_config *config, int argc, char **argv, struct err *err);

struct core_config broker_config_core(const struct broker_config *config);

#endif
