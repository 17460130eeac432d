#include "broker/config.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const char *const log_choices[] = { "text", "json", NULL };
static const char *const level_choices[] = { "debug", "info", "warn", "error", "quiet", NULL };

#define TEXT(member)                                                                                         \
    FIELD_TEXT, offsetof(struct broker_config, member), sizeof((struct broker_config *)0)->member, 0, 0, NULL
#define NUMBER(kind, member, low, high) kind, offsetof(struct broker_config, member), 0, low, high, NULL
#define CHOICE(member, choices)         FIELD_CHOICE, offsetof(struct broker_config, member), 0, 0, 0, choices

#define HOUR_MS INT64_C(3600000)

const struct field broker_fields[] = {
    { "listen", TEXT(listen), "endpoint to bind: tcp://127.0.0.1:PORT (PORT may be *) or ipc:///PATH" },
    { "store", TEXT(store), "the store's file; made when it is missing" },
    { "workers", NUMBER(FIELD_INT, workers, 0, WORKERS_MAX),
      "deal the experts when so many workers have come (0: when those present suffice)" },
    { "family", TEXT(family), "kernel family to compute in (default: the lowest rung present)" },
    { "lease_ms", NUMBER(FIELD_DURATION, lease_ms, 200, HOUR_MS),
      "a lease that is not renewed for so long is lost" },
    { "heartbeat_ms", NUMBER(FIELD_DURATION, heartbeat_ms, 50, 60000),
      "how often each side says that it is alive" },
    { "settle_ms", NUMBER(FIELD_DURATION, settle_ms, 0, HOUR_MS),
      "without `workers`: deal when nobody new came for so long" },
    { "attempts_max", NUMBER(FIELD_INT, attempts_max, 1, 1000), "failed attempts after which a job is dead" },
    { "infra_max", NUMBER(FIELD_INT, infra_max, 1, 1000), "lost workers after which a job is dead" },
    { "backoff_ms", NUMBER(FIELD_DURATION, backoff_ms, 1, HOUR_MS),
      "wait after a first failed attempt; doubles each time" },
    { "backoff_max_ms", NUMBER(FIELD_DURATION, backoff_max_ms, 1, 24 * HOUR_MS), "longest such wait" },
    { "retention", NUMBER(FIELD_DURATION, retention_ms, 0, 100 * 365 * 24 * HOUR_MS),
      "erase requests and results so long after their end (0: keep them; a queue may say otherwise)" },
    { "jobs_max", NUMBER(FIELD_INT, jobs_max, 1, INT64_C(1) << 40), "unfinished jobs that are held at most" },
    { "sessions_max", NUMBER(FIELD_INT, sessions_max, 1, 100000), "clients and workers at once" },
    { "ballast", NUMBER(FIELD_BYTES, ballast_bytes, 256 << 10, INT64_C(1) << 40),
      "disk space kept for the results of leased jobs" },
    { "control_fd", NUMBER(FIELD_INT, control_fd, -1, 1 << 20),
      "end when this descriptor is closed at its other end" },
    { "lock_fd", NUMBER(FIELD_INT, lock_fd, -1, 1 << 20), "a descriptor to keep open: it holds a lock" },
    { "log", CHOICE(log, log_choices), "text or json" },
    { "log_level", CHOICE(log_level, level_choices), "debug, info, warn, error or quiet" },
    { "config", TEXT(config), "a YAML file with these keys" },
};
const int broker_field_count = sizeof broker_fields / sizeof *broker_fields;

static struct broker_config defaults(void)
{
    struct core_config core = core_config_default();
    struct broker_config config = {
        .listen = "tcp://127.0.0.1:7500",
        .store = "moothall.db",
        .lease_ms = core.lease_ms,
        .heartbeat_ms = core.heartbeat_ms,
        .settle_ms = core.settle_ms,
        .attempts_max = core.attempts_max,
        .infra_max = core.infra_max,
        .backoff_ms = core.backoff_ms,
        .backoff_max_ms = core.backoff_max_ms,
        .jobs_max = core.jobs_max,
        .sessions_max = 2048,
        .ballast_bytes = 16 << 20,
        .control_fd = -1,
        .lock_fd = -1,
        .log_level = 1,
    };

    return config;
}

bool broker_config_read(struct broker_config *config, int argc, char **argv, struct err *err)
{
    *config = defaults();
    if (!yaml_fields_settings(broker_fields, broker_field_count, argc, argv, config, sizeof *config, err))
        return false;
    if (!config->listen[0] || !config->store[0])
        return err_set(err, ERR_INPUT, "%s is empty", config->listen[0] ? "store" : "listen");
    if (strstr(config->store, "://"))
        return err_set(err, ERR_INPUT,
                       "store `%s` is a URL; this version keeps its queue in a file: expected a path",
                       config->store);
    /* One lost heartbeat must not cost a lease. */
    if (config->lease_ms < 3 * config->heartbeat_ms)
        return err_set(err, ERR_INPUT,
                       "lease_ms is %lld; expected at least three heartbeats (heartbeat_ms is %lld)",
                       (long long)config->lease_ms, (long long)config->heartbeat_ms);
    return true;
}

struct core_config broker_config_core(const struct broker_config *config)
{
    struct core_config core = core_config_default();

    core.workers = (int)config->workers;
    text_copy(core.family, sizeof core.family, config->family);
    core.lease_ms = config->lease_ms;
    core.heartbeat_ms = config->heartbeat_ms;
    core.settle_ms = config->settle_ms;
    core.attempts_max = (uint32_t)config->attempts_max;
    core.infra_max = (uint32_t)config->infra_max;
    core.backoff_ms = config->backoff_ms;
    core.backoff_max_ms = config->backoff_max_ms;
    core.jobs_max = config->jobs_max;
    core.retention_ms = config->retention_ms;
    return core;
}
