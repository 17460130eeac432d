/* connect - the hall that a verb speaks with: a shared one (--broker), or that of a run's state directory
 * (--state), which gets a broker without workers where none is running. */

#ifndef CLIENT_CONNECT_H
#define CLIENT_CONNECT_H

#include <stdbool.h>

#include "base/err.h"
#include "client/hall.h"
#include "client/private_hall.h"
#include "client/record.h"

struct connection {
    struct link_context *context;
    struct private_hall *private_hall; /* NULL: somebody else's broker */
    struct state_lock lock;
    struct hall *hall;
    struct hall_side stop_side;
    const char *watched; /* the state directory whose run's broker this is; NULL: none */
    int64_t watch_ms;    /* when to look next whether it is at work still */
    bool run_ended;      /* it is not: nobody will answer */
    struct record record; /* of the state directory */
    bool has_record;
};

/* verb: for messages and the lock.  state is kept.  Exactly one of broker and state is given ("" where not).  After
 * false, connection_close is still to be called. */
bool connection_open(struct connection *connection, const char *verb, const char *broker, const char *state,
                     int64_t timeout_ms, struct err *err);
void connection_close(struct connection *connection);

/* After a stop was asked: what is asked of a shared hall within two seconds is answered all the same. */
void connection_ignore_stop(struct connection *connection);

/* Opens, looks, closes.  look only asks, so it is begun anew where the run whose broker answered ends meanwhile. */
bool connection_look(const char *verb, const char *broker, const char *state, int64_t timeout_ms,
                     bool (*look)(struct connection *connection, void *arg, struct err *err), void *arg, struct err *err);

#endif
