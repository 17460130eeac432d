/* schema_source - a schema's JSON text, read: jansson's tree, with every number's own digits beside it.
 *
 * jansson keeps the order of keys and refuses double ones, but makes doubles of numbers, so the texts of the
 * numbers are found in the source again: the tree's order is the text's.  true, false and null are one value
 * each in jansson's tree, so their address says nothing. */

#ifndef MODEL_SCHEMA_SOURCE_H
#define MODEL_SCHEMA_SOURCE_H

#include <jansson.h>

#include "base/err.h"
#include "base/span.h"
#include "worker/model/schema_decimal.h"

enum {
    SOURCE_DEPTH_MAX = 256, /* arrays and objects within each other */
    SOURCE_VALUES_MAX = 1 << 17,
};

struct source_number {
    const json_t *value;
    struct span text;
};

struct source {
    json_t *root;
    struct source_number *number; /* by address */
    size_t number_count;
};

/* text must outlive it.  ERR_INPUT with line and column; ERR_LIMIT naming the bound.  On false there is
 * nothing to free. */
bool source_read(struct source *source, struct span text, struct err *err);
void source_fini(struct source *source);

/* False when the number is too long (schema_decimal.h). */
bool source_decimal(const struct source *source, const json_t *number, struct decimal *decimal);

/* "an object", "text", ... */
const char *source_type(const json_t *value);

/* Texts as JSON literals, in the one spelling that is generated (dfa.h). False: no memory. */
bool source_spell_text(struct span text, struct buf *out);
/* Any value, compact, keys in the value's order.  False: no memory. */
bool source_spell(const struct source *source, const json_t *value, struct buf *out);

/* As JSON Schema compares: numbers by value, objects without order.  Equal values have equal hashes. */
bool source_equal(const struct source *source, const json_t *a, const json_t *b);
uint64_t source_hash(const struct source *source, const json_t *value);

static inline struct span source_text(const json_t *string)
{
    return span_of(json_string_value(string), json_string_length(string));
}

#endif
