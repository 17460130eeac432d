/* seat - the worker's place in the hall: its session with the broker, on a thread of its own.
 *
 * The link thread says Hello, keeps the session alive, takes leases in and carries results out,
 * exactly as the table in proto/PROTOCOL.md says.  It never computes, so a heartbeat never waits
 * for a kernel.  It owns the list of fences held: a fence is held from its lease until the broker
 * has said that the result is stored, or that the lease is gone.  A result is kept, and sent again
 * after every Welcome, until then.
 *
 * The engine thread meets it in two bounded queues and nowhere else: events come out of seat_take,
 * orders go in through the functions below. */

#ifndef WORKER_SEAT_H
#define WORKER_SEAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "proto/link.h"

enum {
    SEAT_NAME_MAX = 64,
    SEAT_HELD_MAX = 4096, /* fences in a heartbeat */
    SEAT_WORKERS_MAX = 256,
    SEAT_SEATS_MAX = 1024,
    SEAT_STOP_FDS_MAX = 4,
};

struct seat_config {
    char broker[LINK_ENDPOINT_MAX];
    char name[SEAT_NAME_MAX];
    char endpoint[LINK_ENDPOINT_MAX]; /* of the exchange, as peers reach it */
    uint64_t incarnation;
    uint8_t fingerprint[32];
    char family[32];
    char weights[8];
    uint32_t shard_count;
    uint64_t shard_bytes, memory_bytes;
    uint32_t credit_jobs;
    uint64_t credit_bytes;
    int stop_fd[SEAT_STOP_FDS_MAX]; /* readable or closed at the other end: the worker should stop */
    int stop_fd_count;
};

struct seat_lease {
    uint64_t fence;
    char job[65];
    char custom_id[513];
    char endpoint[64];
    uint32_t generation, attempt, infra;
    uint64_t seed;
    bool alone;       /* nothing else may be in progress: it may have killed workers */
    int64_t taken_ms; /* wall clock */
    uint8_t *body;
    size_t body_size;
};

struct seat_map_worker {
    char name[SEAT_NAME_MAX];
    uint64_t incarnation;
    char endpoint[LINK_ENDPOINT_MAX];
};

struct seat_map {
    uint64_t epoch;
    char family[32];
    int worker_count, seat_count;
    struct seat_map_worker *worker;
    struct {
        uint32_t shard, worker;
    } * seat;
};

enum seat_event_kind {
    SEAT_LEASE,
    SEAT_MAP,
    SEAT_DROPPED, /* this fence is no longer ours: stop working on it */
    SEAT_STOP,    /* finish the step, give the leases back, leave */
    SEAT_REFUSED, /* the broker will never have us; text says why */
};

struct seat_event {
    enum seat_event_kind kind;
    struct seat_lease *lease; /* SEAT_LEASE; owned by the event until taken out of it */
    struct seat_map *map;     /* SEAT_MAP; likewise */
    uint64_t fence;           /* SEAT_DROPPED */
    char text[ERR_TEXT_MAX];  /* SEAT_REFUSED, SEAT_STOP */
};

void seat_event_free(struct seat_event *event); /* NULL is fine */
void seat_lease_free(struct seat_lease *lease);
void seat_map_free(struct seat_map *map);

struct seat_result {
    uint64_t fence;
    Moothall__Outcome outcome;
    uint32_t status_code;
    char reason[512]; /* UTF-8 */
    char numerics[160];
    uint32_t prompt_tokens, generated_tokens, cached_tokens;
    int64_t started_ms;
    struct buf body;
};

struct seat_progress {
    uint32_t sequences;
    int32_t waiting_shard; /* -1: not waiting */
    uint64_t progress, prompt_tokens, generated_tokens;
    uint64_t dispatches, dispatch_bytes, dispatch_rows, sums_bytes, resent, steps, decode_steps,
        decode_dispatches, served, served_rows, moe_layers;
};

struct seat;

/* Starts the thread.  The broker need not be there yet: the seat tries until it is. */
bool seat_start(struct seat **seat, struct link_context *context, const struct seat_config *config,
                struct err *err);

struct seat_event *seat_take(struct seat *seat); /* the next event, yours to free; NULL when there is none */
int seat_fd(const struct seat *seat);            /* readable while there is one */

void seat_result(struct seat *seat, struct seat_result *result); /* takes result, from malloc, and its body */
void seat_release(struct seat *seat, uint64_t fence);            /* given back unfinished */
void seat_seated(struct seat *seat, uint64_t epoch);             /* said again after every Welcome */
void seat_progress(struct seat *seat, const struct seat_progress *progress);

/* Waits a little until results are stored, says Goodbye, ends the thread and frees the seat. */
void seat_leave(struct seat *seat, const char *reason); /* NULL is fine */

#endif
