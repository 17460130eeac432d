/* check - is what a message says within what PROTOCOL.md allows?
 *
 * The link has checked the frames; this checks the fields of every message that a broker may
 * get, before anything believes them: lengths, character sets, enums, counts, and that
 * sizes add up to the payload.  What passes needs no further look. */

#ifndef BROKER_CHECK_H
#define BROKER_CHECK_H

#include <stdbool.h>

#include "base/err.h"
#include "base/span.h"
#include "proto/moothall.pb-c.h"

/* False with the field and what was expected of it: "submit.job[3].id is empty". */
bool check_message(const Moothall__Envelope *envelope, struct span payload, struct err *err);

/* May a session of that role send such a message? */
bool check_role(Moothall__Role role, Moothall__Envelope__BodyCase body);

#endif
