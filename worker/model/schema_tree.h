/* schema_tree - a schema as records: every keyword known, every keyword's value of the right kind, every $ref
 * led to its target.
 *
 * Here everything is refused that can be seen in one schema object by itself: keywords that are not
 * supported, wrong values, a minimum over its maximum, and references that come back to themselves in place,
 * which no value could ever be compared with. */

#ifndef MODEL_SCHEMA_TREE_H
#define MODEL_SCHEMA_TREE_H

#include "base/arena.h"
#include "worker/model/schema_source.h"

enum {
    TREE_POINTER_MAX = 320,    /* bytes of a pointer in an error: a longer one lacks its beginning */
    TREE_BYTES_MAX = 64 << 20, /* of all records */
    TREE_CHAIN_MAX = 128,      /* $ref, anyOf and oneOf that lead from one schema to another on the same value */
};

enum { /* ids of records that are always there */
    SCHEMA_TRUE,
    SCHEMA_FALSE,
    SCHEMA_ROOT,
};

enum schema_type {
    TYPE_NULL,
    TYPE_BOOLEAN,
    TYPE_NUMBER,
    TYPE_STRING,
    TYPE_ARRAY,
    TYPE_OBJECT,
    TYPE_COUNT,
    TYPES_ALL = (1 << TYPE_COUNT) - 1,
};

struct schema_property {
    const char *name;
    uint32_t schema;
};

struct schema_value { /* of an enum or const; in order of hash */
    uint64_t hash;
    const json_t *value;
};

struct schema_several { /* anyOf, oneOf */
    const uint32_t *schema;
    uint32_t count;
    bool first; /* it stands before `properties` */
};

/* A keyword that is not there has the value that says nothing, so that a schema can be read without asking
 * which are. */
struct schema {
    const json_t *json; /* NULL: SCHEMA_TRUE, SCHEMA_FALSE */
    uint32_t parent;    /* where it stands: /KEYWORD, then /NAME or /INDEX in it */
    const char *keyword, *name;
    uint32_t index;

    bool own;       /* it has keywords that restrict, other than $ref, anyOf, oneOf */
    uint8_t types;  /* 1 << TYPE_... */
    bool integer;   /* numbers are whole */
    uint8_t speaks; /* 1 << TYPE_... about whose values it has keywords; `integer` is one */

    struct schema_value *value; /* enum or const, NULL without; both: const, then enum */
    uint32_t value_count;
    const json_t *constant, *choice; /* the keywords' values, NULL without */

    const struct decimal *low, *high; /* the tighter one of minimum and exclusiveMinimum */
    bool low_open, high_open;
    struct decimal_step step;

    uint32_t length_low, length_high;
    const json_t *pattern, *format;

    uint32_t items_low, items_high;
    const uint32_t *prefix;
    uint32_t prefix_count, items;

    const json_t *properties; /* NULL: no such keyword */
    const struct schema_property *property;
    uint32_t property_count;
    const json_t *required; /* the array */
    json_t *is_required;    /* names as keys */
    uint32_t additional;    /* SCHEMA_TRUE when it is absent: */
    bool says_additional;

    uint32_t ref; /* 0: none */
    bool ref_first;
    struct schema_several any, one;
};

struct tree {
    struct source source;
    struct arena arena;
    struct schema **schema; /* by id */
    uint32_t count, capacity;
    struct tree_place *place; /* ids by the json's address */
    json_t *own_required;     /* keeps what is_required points to */
};

/* text must outlive it. On false there is nothing to free. */
bool tree_read(struct tree *tree, struct span text, struct err *err);
void tree_fini(struct tree *tree);

/* SCHEMA_TRUE where this schema allows everything, the target where it only refers; else id. */
uint32_t tree_resolve(const struct tree *tree, uint32_t id);

/* The schema of property `name` by this schema alone. */
uint32_t tree_property(const struct tree *tree, const struct schema *schema, const char *name);

/* "#/properties/a/maxLength"; keyword NULL: the schema itself. */
const char *tree_pointer(const struct tree *tree, uint32_t id, const char *keyword,
                         char text[TREE_POINTER_MAX]);

/* false, with "POINTER: message". */
bool tree_error(const struct tree *tree, uint32_t id, const char *keyword, enum err_code code,
                struct err *err, const char *format, ...) __attribute__((format(printf, 6, 7)));

#endif
