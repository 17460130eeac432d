/* hall - the broker as a whole: a store, a socket, and the two threads between them.
 *
 * The link thread (whoever calls hall_run) owns the socket and the sessions.  It answers heartbeats and
 * pings itself, so that they never wait behind the disk, and stamps everything with the time it came.
 * The core thread owns the queue and is the only user of the store: it takes in all that has
 * arrived, decides, commits once, and releases the answers.  They meet in two queues, one each way. */

#ifndef BROKER_HALL_H
#define BROKER_HALL_H

#include "broker/config.h"

struct hall;

/* Opens the store and binds the socket: every mistake in what was given shows here. */
bool hall_open(struct hall **hall, const struct broker_config *config, struct err *err);
void hall_free(struct hall *hall); /* NULL is fine */

const char *hall_endpoint(const struct hall *hall); /* with its real port */

/* Works until stop_fd can be read or the pipe control_fd (-1: none) ends; then tells every peer,
 * finishes what has arrived, and leaves the store in one file.  False when the store failed: nothing
 * was acknowledged that is not in it. */
bool hall_run(struct hall *hall, int stop_fd, int control_fd, struct err *err);

#endif
