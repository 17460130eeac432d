/* when - a moment, as a person writes it: from now on (90s, 15m, 8h, 30d), or a time (RFC 3339:
 * 2027-01-31T22:00:00Z, 2027-01-31 22:00:00.5+01:00). */

#ifndef CLIENT_WHEN_H
#define CLIENT_WHEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define WHEN_MS_MAX (INT64_C(3650) * 24 * 3600 * 1000) /* ten years */
enum { WHEN_TEXT_MAX = 48 };

/* *ms on the wall clock; empty text gives 0.  A duration counts from now_ms.  Errors begin with `flag`. */
bool when_read(const char *flag, const char *text, int64_t now_ms, int64_t *ms, struct err *err);

enum { WHEN_WRITTEN_SIZE = 32 };

/* "for 30 days", "for 36 hours", "for 90 s"; "for ever" for 0. */
const char *when_write_span(char *text, size_t size, uint64_t ms);

/* "2027-01-31T22:00:00Z"; "-" for 0. */
const char *when_write(char text[WHEN_WRITTEN_SIZE], int64_t ms);

#endif
