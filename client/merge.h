/* merge - one row out of the rows of a document's chunks, field by field.
 *
 * Rules are for the top-level fields of the schema: `first` (the first that says something: not null, not an
 * empty string, array or object), `all` (every chunk's that says something, as an array, in document order),
 * `union` (of arrays: each value once, in order of first appearance; what is no array counts as an array of
 * itself), `longest` (of strings by code points, of arrays and objects by size; the first of equals; others
 * are shorter than any), `vote` (what most chunks say, of those that say something; the earliest of equals).
 * Default: `union` for arrays, `first` for all else. With one chunk nothing is merged, but `all` and `union`
 * still make arrays.
 *
 * Where no chunk says anything, a field is what the first chunk that has it says (null, ""), under `all` an
 * empty array.  Fields stand in the schema's order.  Two values are the same when they are the same JSON, in
 * whatever order the keys of objects stand; 1 and 1.0 are the same. Rows that are no objects (a schema may
 * ask for an array) are merged as one field would be. */

#ifndef CLIENT_MERGE_H
#define CLIENT_MERGE_H

#include <jansson.h>
#include <stdint.h>

#include "base/err.h"

enum {
    MERGE_FIELDS_MAX = 10 * 1000,
    MERGE_VALUES_MAX = 10 * 1000 * 1000, /* strings, numbers, ... in all rows of one document */
};

enum merge_rule { MERGE_DEFAULT, MERGE_FIRST, MERGE_ALL, MERGE_UNION, MERGE_LONGEST, MERGE_VOTE };

struct merge; /* the rules, and the rows so far */
/* rules: "field=rule,field=rule" or NULL; a field that the schema lacks, or a rule that there is not, is
 * ERR_INPUT naming the nearest. */
bool merge_new(struct merge **merge, const json_t *schema, const char *rules, struct err *err);
void merge_free(struct merge *merge); /* NULL is fine */
/* The row of the next chunk (borrowed, but its values are kept until merge_take: do not change them); chunk:
 * its number, for merge_take. */
bool merge_add(struct merge *merge, const json_t *row, uint32_t chunk, struct err *err);
/* The merged row (a new reference), and for each value in it the chunk it came from: from[JSON pointer] =
 * chunk, for strings, numbers, booleans. Empties the merge for the next document.  ERR_INPUT when no row was
 * added. */
bool merge_take(struct merge *merge, json_t **row, json_t **from, struct err *err);

#endif
