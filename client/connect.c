#include "client/connect.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "client/stop.h"

enum { WATCH_MS = 300, OPENINGS_MAX = 10, LAST_MS = 2000 };

static bool stop_turn(void *arg, struct err *err)
{
    (void)arg;
    return stop_check(err);
}

/* A run's broker ends with the run, and a session would wait for its return in vain. */
static bool watch_turn(void *arg, struct err *err)
{
    struct connection *c = arg;
    int64_t now_ms = clock_now_ms();
    int pid;

    if (!stop_check(err))
        return false;
    if (now_ms < c->watch_ms)
        return true;
    c->watch_ms = now_ms + WATCH_MS;
    if (state_is_live(c->watched, &pid))
        return true;
    c->run_ended = true;
    return err_set(err, ERR_NOT_FOUND, "the run in %s ended meanwhile; the same command again looks into what it left",
                   c->watched);
}

static bool open_once(struct connection *c, const char *verb, const char *broker, const char *state,
                      int64_t timeout_ms, struct err *err)
{
    struct hall_config config = { .name = verb, .role = MOOTHALL__ROLE__CLIENT, .timeout_ms = timeout_ms };
    char endpoint[LINK_ENDPOINT_MAX];
    struct stat st;
    int pid;

    memset(c, 0, sizeof *c);
    c->lock.run_fd = c->lock.shared_fd = -1;
    if (!*broker == !*state)
        return err_set(err, ERR_INPUT,
                       "expected either --broker ENDPOINT or --state DIR (the OUTPUT.moothall of a run)");
    c->context = link_context_new();
    c->stop_side = (struct hall_side){ .fd = { stop_fd() }, .fd_count = 1, .turn = stop_turn };
    config.endpoint = broker;
    config.side = &c->stop_side;
    if (*state) {
        if (stat(state, &st) != 0 || !S_ISDIR(st.st_mode))
            return err_set(err, ERR_NOT_FOUND, "--state %s: there is no such directory", state);
        c->has_record = record_load(&c->record, state, err);
        if (c->has_record && *c->record.is.broker) {
            snprintf(endpoint, sizeof endpoint, "%s", c->record.is.broker);
            config.endpoint = endpoint;
        } else if (state_is_live(state, &pid)) {
            if (!state_endpoint(endpoint, sizeof endpoint, state, err))
                return false;
            config.endpoint = endpoint;
            c->watched = state;
            c->stop_side.turn = watch_turn;
            c->stop_side.arg = c;
        } else {
            struct private_config private_config = { .lock = &c->lock };

            if (!state_store_exists(state)) {
                if (c->has_record && c->record.finished)
                    return err_set(err, ERR_NOT_FOUND,
                                   "--state %s: that run is complete (%llu done) and its store was not kept; "
                                   "run with --keep to keep it",
                                   state, (unsigned long long)c->record.done);
                return err_set(err, ERR_NOT_FOUND, "--state %s holds no store of a run", state);
            }
            if (!state_lock_take(&c->lock, state, verb, err) ||
                !private_hall_start(&c->private_hall, c->context, &private_config, err))
                return false;
            config.endpoint = private_hall_endpoint(c->private_hall);
            config.side = private_hall_side(c->private_hall);
            config.backoff_max_ms = 500;
        }
    }
    return hall_new(&c->hall, c->context, &config, err) && hall_open(c->hall, NULL, err);
}

bool connection_open(struct connection *c, const char *verb, const char *broker, const char *state,
                     int64_t timeout_ms, struct err *err)
{
    for (int i = 1;; i++) {
        if (open_once(c, verb, broker, state, timeout_ms, err))
            return true;
        if (!c->run_ended || i == OPENINGS_MAX)
            return false;
        connection_close(c); /* it ended as we came: then the broker is ours to start */
    }
}

void connection_close(struct connection *c)
{
    hall_free(c->hall);
    private_hall_stop(c->private_hall);
    if (c->context)
        link_context_free(c->context);
    state_lock_release(&c->lock);
    memset(c, 0, sizeof *c);
    c->lock.run_fd = c->lock.shared_fd = -1;
}

static bool last_turn(void *arg, struct err *err)
{
    const struct connection *c = arg;

    return clock_now_ms() < c->watch_ms || err_set(err, ERR_INTERRUPTED, "the broker does not answer at once");
}

void connection_ignore_stop(struct connection *c)
{
    c->stop_side.turn = last_turn;
    c->stop_side.arg = c;
    c->watch_ms = clock_now_ms() + LAST_MS;
    c->stop_side.fd_count = 0; /* it stays readable */
}

bool connection_look(const char *verb, const char *broker, const char *state, int64_t timeout_ms,
                     bool (*look)(struct connection *connection, void *arg, struct err *err), void *arg, struct err *err)
{
    for (int i = 1;; i++) {
        struct connection c = { .lock = { .run_fd = -1, .shared_fd = -1 } };
        bool ok = connection_open(&c, verb, broker, state, timeout_ms, err) && look(&c, arg, err);
        bool again = !ok && c.run_ended && i < OPENINGS_MAX;

        connection_close(&c);
        if (!again)
            return ok;
    }
}
