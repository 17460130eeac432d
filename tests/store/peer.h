/* peer - for tests: a broker as a real process, and clients and workers that talk to it. */

#ifndef TESTS_STORE_PEER_H
#define TESTS_STORE_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/span.h"
#include "proto/link.h"

/* ---- a broker ---- */

struct broker {
    pid_t pid;
    char endpoint[256];
    char last_words[1024]; /* its stderr's last line, once it has ended */
    int errors;            /* the pipe from its stderr */
};

/* Starts MOOTHALL_BROKER (a path) on the store, with more flags (NULL-terminated; those of the form
 * NAME=value without dashes are put into its environment).  False when it ends before it listens; then
 * `status` and last_words say how. */
bool broker_start(struct broker *broker, const char *store, const char *const *flags, int *status);
void broker_kill(struct broker *broker); /* SIGKILL, and waits */
int broker_stop(struct broker *broker);  /* SIGTERM, and waits: its exit status */
int broker_wait(struct broker *broker);  /* for one that ends by itself; 99 after 20 s */

/* ---- who talks to it ---- */

struct peer {
    struct link *link;
    struct link_message message; /* the last one received */
    uint64_t correlation;
};

struct link_context *peer_context(void); /* one for the process */

/* Connects and says Hello until there is a Welcome, for at most 10 s.  False with a Refusal in peer->message,
 * or nothing. */
bool peer_connect(struct peer *peer, const char *endpoint, Moothall__Hello *hello);
bool peer_client(struct peer *peer, const char *endpoint, const char *name);
/* A worker without shards; it has said that it is seated and has that much credit. */
bool peer_worker(struct peer *peer, const char *endpoint, const char *name, uint64_t incarnation,
                 uint32_t credit);
void peer_close(struct peer *peer);

/* Returns the correlation of what was sent, 0 when it could not be sent within 5 s. */
uint64_t peer_send(struct peer *peer, Moothall__Envelope__BodyCase kind, void *body, struct span payload);
/* The next message in peer->message; false when none came in time. */
bool peer_receive(struct peer *peer, int timeout_ms);
/* Sends, and waits for the answer of that correlation (others are dropped). */
bool peer_ask(struct peer *peer, Moothall__Envelope__BodyCase kind, void *body, struct span payload);
/* Waits for a message of that kind. */
bool peer_expect(struct peer *peer, Moothall__Envelope__BodyCase kind, int timeout_ms);

/* Submits one job; its acceptance, or 0 when there was no answer (or a Refusal, in peer->message). */
Moothall__Acceptance peer_submit(struct peer *peer, const char *batch, uint32_t total, const char *id,
                                 uint32_t position, Moothall__SubmitMode mode, const char *body);

/* All slices together; false when the audit could not be had. */
bool peer_audit(struct peer *peer, Moothall__Audit *sum);

#endif
