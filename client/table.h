/* table - rows as CSV (RFC 4180), read and written. */

#ifndef CLIENT_TABLE_H
#define CLIENT_TABLE_H

#include <jansson.h>
#include <stdio.h>

#include "base/err.h"
#include "base/span.h"

/* One record, which may go on over several lines: fields appended to the array as JSON strings. separator ',' or '\t'. *end: there was
 * none.  ERR_INPUT for a quote that never ends or stands where it must not, with the line. */
bool table_read(FILE *file, char separator, json_t *fields, size_t bytes_max, uint64_t *line, bool *end, struct err *err);

/* Appends one field, quoted where it must be: strings as they are, null as nothing, all else as compact JSON.  A string that a spreadsheet
 * would take for a formula (= + - @ at its start and not a number) is left as it is: what is written is the value. */
bool table_field(struct buf *out, const json_t *value, bool first);
bool table_end(struct buf *out); /* CRLF */

#endif
