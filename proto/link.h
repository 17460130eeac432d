/* link - ZeroMQ, and the only place that knows it.
 *
 * A link is one socket: a ROUTER that others connect to, or a DEALER that connects to one peer.
 * A message is an envelope (protobuf, checked and unpacked into the message's own bounded arena)
 * and a payload.  What arrives malformed never reaches the caller: it is counted, logged once a
 * peer and kind, and dropped.
 *
 * Sending never blocks.  ROUTER sockets are MANDATORY and high-water marks lie above every credit
 * window, so "full" and "unreachable" both mean that the peer is lost.  A link belongs to the
 * thread that made it. */

#ifndef PROTO_LINK_H
#define PROTO_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"
#include "proto/moothall.pb-c.h"

enum {
    LINK_ENVELOPE_MAX = 64 * 1024,
    LINK_PAYLOAD_MAX = 32 * 1024 * 1024, /* the default of payload_max */
    LINK_PEER_ID_MAX = 32,
    LINK_ENDPOINT_MAX = 256,
};

struct link_context; /* one a process: libzmq's io thread */
struct link;

struct link_context *link_context_new(void);       /* never NULL; aborts when libzmq is unusable */
void link_context_free(struct link_context *context); /* after the last link is closed */

/* Who a message came from or goes to, on a ROUTER.  On a DEALER it is empty. */
struct link_peer {
    uint8_t size;
    uint8_t id[LINK_PEER_ID_MAX];
};

struct link_message {
    struct link_peer peer;
    Moothall__Envelope *envelope; /* in arena; body_case is one that this build knows */
    struct span payload;          /* owned by the message; length and CRC-32C were checked */
    struct arena arena;
    void *frame;
};

void link_message_init(struct link_message *message);
void link_message_fini(struct link_message *message); /* also between receives: frees what the last one held */

/* Binds.  Only ipc, loopback tcp and inproc are allowed; any other address is refused until links are
 * encrypted, unless the process runs in a network namespace of its own and MOOTHALL_TEST_NETNS=1 says
 * that a test wants this.  A tcp port may be `*`.  "port in use" and the like name the endpoint. */
bool link_bind(struct link **link, struct link_context *context, const char *endpoint, struct err *err);

/* Connects in the background; success says only that the endpoint is well formed. */
bool link_connect(struct link **link, struct link_context *context, const char *endpoint, struct err *err);
void link_free(struct link *link); /* NULL is fine; waits at most 200 ms for what was sent last */

const char *link_endpoint(const struct link *link); /* the bound one, with its real port */

enum link_sent {
    LINK_SENT,
    LINK_LOST, /* unreachable, or its pipe is full: the session is over.  On a DEALER also while the
                * connection is not made yet: nothing was queued, try again a little later. */
};

/* Fills in major, payload size and checksum.  peer is NULL on a DEALER.  The envelope must fit
 * LINK_ENVELOPE_MAX (an assert: every sender bounds what it puts in). */
enum link_sent link_send(struct link *link, const struct link_peer *peer, Moothall__Envelope *envelope, struct span payload);

/* Without blocking: true and the next well-formed message, or false when there is none. */
bool link_receive(struct link *link, struct link_message *message);

/* Waits until one of the links or descriptors (eventfds and the like) can be read, or timeout_ms
 * (-1: for ever) has passed.  Returns true when something is there; ready[i] (may be NULL) tells
 * which, links first. */
bool link_wait(struct link *const *links, int link_count, const int *fds, int fd_count, int timeout_ms, bool *ready);

struct link_counts {
    uint64_t sent, received, bytes_sent, bytes_received, malformed;
};
struct link_counts link_counts(const struct link *link);

/* Puts a freshly initialised body of the given kind into an envelope:
 *     Moothall__Envelope e; Moothall__Ping ping = MOOTHALL__PING__INIT;
 *     link_envelope(&e, MOOTHALL__ENVELOPE__BODY_PING, &ping, 0); */
void link_envelope(Moothall__Envelope *envelope, Moothall__Envelope__BodyCase kind, void *body, uint64_t correlation);

#endif
