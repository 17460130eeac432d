/* json - what jansson makes, into a buffer. */

#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

/* Appends any value, compact; flags: jansson's further ones.  False at the buffer's bound, or without memory: what was
 * appended by then is of no use. */
bool buf_json(struct buf *out, const json_t *value, size_t flags);

#endif
