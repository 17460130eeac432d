/* schema - JSON Schema, as far as a grammar can hold it.
 *
 * The table of keywords, with their limits, stands in SCHEMA.md.  A keyword that is not in it is an error
 * that names its JSON pointer and the nearest keyword that is; nothing is skipped.  Semantics are the
 * standard's (2020-12): a keyword speaks only of its own type of value, additional properties are allowed
 * unless the schema says otherwise, patterns match anywhere.  What is generated is compact, with properties
 * in the schema's order.
 *
 * A hostile schema (nested, recursive, exploding) gets an error in well under a second. */

#ifndef MODEL_SCHEMA_H
#define MODEL_SCHEMA_H

#include "base/err.h"
#include "base/span.h"
#include "worker/model/grammar.h"

enum {
    SCHEMA_BYTES_MAX = 1 << 20,
    SCHEMA_DEPTH_MAX = 64,      /* of the schema's own nesting; $ref may recurse */
    SCHEMA_NODES_MAX = 1 << 14, /* subschemas, after merging */
    SCHEMA_ENUM_MAX = 1 << 14,  /* values of one enum */
};

struct schema_options {
    /* Objects whose schema has `properties` and does not say additionalProperties (nor merges with one that
     * does) take none.  For extraction: a row has the columns that were asked for. */
    bool closed;
};

/* text: the schema as JSON.  root: the node of its instances, 0 on false.
 * ERR_INPUT with "#/properties/a/maxLength: expected ..., found ..."; ERR_LIMIT naming the bound and the
 * pointer. */
bool schema_read(struct grammar_builder *builder, struct span text, const struct schema_options *options,
                 grammar_node *root, struct err *err);

/* ---- structured output: what a request can ask its output to be ------------------------------------- */

enum structured_kind {
    STRUCTURED_SCHEMA,      /* text: a JSON Schema */
    STRUCTURED_JSON_OBJECT, /* any JSON object */
    STRUCTURED_CHOICE,      /* text: a JSON array of strings; the output is one of them, as it is */
    STRUCTURED_REGEX,       /* text: a pattern that the whole output matches */
};

/* The JSON kinds let at most one space stand before the value. */
bool structured_grammar(struct grammar **grammar, enum structured_kind kind, struct span text,
                        const struct schema_options *options, const struct vocabulary *vocabulary,
                        struct err *err);

#endif
