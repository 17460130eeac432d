/* table - rows as CSV (RFC 4180), read and written. */

#ifndef CLIENT_TABLE_H
#define CLIENT_TABLE_H

#include <jansson.h>
#include <stdio.h>

#include "base/err.h"
#include "base/span.h"

/* One record, which may go on over several lines: fields appended to the array as JSON strings (an empty
 * line: none). separator ',' or '\t' (where a quote within a field is itself).  Lines end with LF, CRLF or
 * CR. *end: there was none.
 *
 * *line counts lines: set it to 0 before the first, it is then the number of the record's last line.  A
 * record that cannot be read is ERR_INPUT, with the line: a quote that never ends, or stands where it must
 * not, a field that is not UTF-8; ERR_LIMIT: more than bytes_max.  It has been passed over then (to the end
 * of its line, or of the quoted field), so the next call reads the next. ERR_IO is for good. */
bool table_read(FILE *file, char separator, json_t *fields, size_t bytes_max, uint64_t *line, bool *end,
                struct err *err);

/* Appends one field, quoted where it must be: strings as they are, null (or NULL) as nothing, all else as
 * compact JSON.  An empty string is "", so that a database can tell it from null.  A string that a
 * spreadsheet would take for a formula (= + - @ at its start and not a number) is left as it is: what is
 * written is the value. */
bool table_field(struct buf *out, const json_t *value, bool first);
/* CRLF; a record of one null is "", since an empty line would be no record. */
bool table_end(struct buf *out);

#endif
