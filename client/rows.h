/* rows - JSON values as they are written into lines of output. */

#ifndef CLIENT_ROWS_H
#define CLIENT_ROWS_H

#include <jansson.h>

#include "base/err.h"
#include "base/span.h"

/* Appends it compactly, keys in their order, a real number in the fewest digits that give it back, and
 * nothing in it that a reader could take for the end of a line.  False only without memory. */
bool row_write(struct buf *out, const json_t *value);

/* A number as row_write spells it. */
void row_number(const json_t *value, char text[40]);

/* A place in a row: pointer, then "/" and key or index, escaped as RFC 6901 says. */
bool row_pointer_add(struct buf *pointer, const char *key, size_t size);

#endif
