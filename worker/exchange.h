/* exchange - expert rows between workers.
 *
 * Every worker of a hall binds one ROUTER here and connects one DEALER to each peer that holds a
 * seat.  A *call* carries rows to the holder of some shards and brings their weighted sums back;
 * *work* is somebody else's call that has arrived here.  The caller keeps a call until it is
 * answered and sends it again, under the same number, to whoever the newest map names: computing
 * it twice gives the same bits.
 *
 * Why there is no circle of waiters: an answer needs neither credit nor room at its receiver (the
 * room was reserved before the dispatch was sent), computing one needs no other worker, and the
 * engine serves work whenever it waits.  So every dispatch that has been sent is answered, and
 * credit always comes back.
 *
 * The sockets belong to the engine thread, not to the link thread: a decode step of a small model
 * makes a call in each layer, a few hundred microseconds apart, and two hand-overs between
 * threads for each message would cost more than the experts do.  The engine looks here between
 * kernels.  Liveness towards the broker is the link thread's affair and does not depend on it. */

#ifndef WORKER_EXCHANGE_H
#define WORKER_EXCHANGE_H

#include "base/err.h"
#include "proto/link.h"
#include "worker/dispatch.h"
#include "worker/seat.h"

enum {
    EXCHANGE_WINDOW_BYTES = 1024 * 1024, /* dispatch bytes a caller may have unanswered here */
    EXCHANGE_CALLERS_MAX = 512,
};

struct exchange_config {
    char endpoint[LINK_ENDPOINT_MAX]; /* to bind */
    char name[SEAT_NAME_MAX];
    uint64_t incarnation;
    uint8_t fingerprint[32];
    char family[32];
    struct dispatch_shape shape; /* its arrays must outlive the exchange */
    size_t bytes_max; /* of calls under way (with the room of their answers), and of work that waits */
};

enum exchange_call_state {
    CALL_WAITING, /* for credit, for a connection, or for a map that seats its shards */
    CALL_SENT,
    CALL_ANSWERED, /* sums are there */
    CALL_RETURNED, /* the newest map divides its shards differently: build it anew */
};

struct exchange_call {
    /* Filled by whoever makes it. */
    uint32_t layer, row_count, pair_count, slot_count;
    uint8_t *payload; /* rows, then pairs */
    size_t payload_size;
    uint16_t *shard; /* the shards it touches, ascending */
    uint32_t shard_count;
    uint32_t *part; /* [slot_count]: the maker's own name for each slot */
    bool decode;    /* every row is a generated position: such calls overtake prompts */

    /* Filled here. */
    enum exchange_call_state state;
    uint8_t *sums; /* [slot_count, hidden] in the carrier */
    uint64_t id;
    int64_t waits_since_ms;
    bool was_sent;
    int peer;
    struct exchange_call *prev, *next;
};

struct exchange_work {
    uint32_t layer, row_count, pair_count, slot_count;
    const uint8_t *rows; /* aligned to 64 bytes */
    struct expert_pair *pairs;
    /* The rest is the exchange's. */
    uint64_t id;
    int caller;
    uint64_t caller_serial;
    size_t size;
    int64_t came_ms;
    uint8_t *memory;
    struct exchange_work *next;
};

struct exchange_counts {
    uint64_t dispatches, dispatch_bytes, dispatch_rows, sums_bytes, resent, served, served_rows;
    uint64_t decode_dispatches; /* first sendings of calls marked decode */
    uint64_t malformed, over_window, strays;
};

struct exchange;

/* Binds.  Nothing is connected until a map comes. */
bool exchange_new(struct exchange **exchange, struct link_context *context,
                  const struct exchange_config *config, struct err *err);
void exchange_free(struct exchange *exchange);                  /* NULL is fine; calls must be freed before */
const char *exchange_endpoint(const struct exchange *exchange); /* as bound, with the real port */

/* Takes over a new map once the shards that it gives to this worker are loaded.  Peers that are
 * gone are let go; calls follow their shards. */
void exchange_map(struct exchange *exchange, const struct seat_map *map);
bool exchange_is_ready(
    const struct exchange *exchange); /* every peer that holds a seat has answered at this epoch */

enum { EXCHANGE_HERE = -1, EXCHANGE_NOWHERE = -2 };
int exchange_holder(const struct exchange *exchange,
                    uint32_t shard); /* a peer's number, or one of these two */

/* The call is kept here (a list, no copy) until it is taken back or freed. */
void exchange_post(struct exchange *exchange, struct exchange_call *call);
/* Frees a call, under way or not, and its arrays. */
void exchange_call_free(struct exchange *exchange, struct exchange_call *call);

/* Takes in what has arrived, sends what may go.  Never blocks. */
void exchange_turn(struct exchange *exchange, int64_t now_ms);
/* Waits until a message or one of the descriptors is there, at most timeout_ms. */
void exchange_wait(struct exchange *exchange, const int *fds, int fd_count, int timeout_ms);

/* The next piece of work for us, or NULL.  Answer it, then it is gone. */
struct exchange_work *exchange_work(struct exchange *exchange);
void exchange_answer(struct exchange *exchange, struct exchange_work *work, const uint8_t *sums);
void exchange_work_free(struct exchange_work *work); /* without an answer, when we leave; NULL is fine */

/* The shard that the longest waiting call has waited for since before now_ms - patience_ms, or -1. */
int exchange_waiting_shard(const struct exchange *exchange, int64_t now_ms, int64_t patience_ms);
struct exchange_counts exchange_counts(const struct exchange *exchange);

#endif
