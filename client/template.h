/* template - a text with columns of a table in it: "Title: {title}\n\n{body}".
 *
 * A column's value stands as it is when it is a string, as nothing when it is null, else as compact JSON.
 * "{{" is a brace that opens,
 * "}}" one that closes (one alone is itself). */

#ifndef CLIENT_TEMPLATE_H
#define CLIENT_TEMPLATE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/span.h"

enum { TEMPLATE_PARTS_MAX = 1024 };

struct template;

/* ERR_INPUT naming the byte: a brace that does not close, a column without a name, no column at all, not
 * UTF-8. */
bool template_new(struct template **made, const char *text, struct err *err);
void template_free(struct template *template); /* NULL is fine */

/* Appends the text for one row, an object.  ERR_INPUT naming the column that it does not have, and the
 * nearest that it has; ERR_LIMIT when out's bound is reached. */
bool template_fill(const struct template *template, const json_t *row, struct buf *out, struct err *err);

#endif
