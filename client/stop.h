/* stop - a person, or the system, asks the command to end.
 *
 * The first SIGINT, SIGTERM or SIGHUP only leaves a mark: what is under way is brought to a good end, what is
 * done is kept, and the command says how to go on.  The second ends the process as if nobody had
 * caught it. */

#ifndef CLIENT_STOP_H
#define CLIENT_STOP_H

#include <stdbool.h>

#include "base/err.h"

void stop_install(void); /* once, first thing */
bool stop_asked(void);
int stop_fd(void); /* readable once asked; -1 before stop_install */

/* False, with ERR_INTERRUPTED, once asked. */
bool stop_check(struct err *err);

/* In a child between fork and exec: signals as a fresh program expects them. */
void stop_restore(void);

#endif
