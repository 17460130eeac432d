/* schema_form - what several schemas allow together, taken apart by type of value.
 *
 * A *meet* is a list of schemas that must all hold: a property's schemas from every schema that speaks of its
 * object, for instance.  It is worked out once, when it is asked about: references are followed, one branch
 * is taken of each anyOf and oneOf in every possible way, and each way gives, type by type, a *shape*: what
 * the keywords about that type say together.  The meet is the union of its shapes and of the values that enum
 * and const list.  Meets and shapes are interned, so recursion comes back to a meet that is there already,
 * and nothing is ever copied out.
 *
 * So a conjunction needs no rule of its own: a keyword beside $ref, a base with anyOf, and the question
 * whether two branches of a oneOf share a value are all meets.  That last question is asked of emptiness,
 * which is *shown*, never guessed: a meet may be empty without being seen to be (recursion), and then a oneOf
 * is refused that needs it. */

#ifndef MODEL_SCHEMA_FORM_H
#define MODEL_SCHEMA_FORM_H

#include "worker/model/grammar.h"
#include "worker/model/schema.h"
#include "worker/model/schema_value.h"

enum {
    FORM_TOGETHER_MAX = 256,       /* schemas of one meet */
    FORM_PROPERTIES_MAX = 1 << 12, /* of one object, after merging */
    FORM_WAYS_MAX = 1 << 10,       /* to take the branches of one meet */
    FORM_FRAMES_MAX = 1 << 12,     /* of calls within one another, to see whether a meet is empty */
    FORM_BYTES_MAX = 64 << 20,     /* of all this */
    FORM_WORK_MAX = 1 << 20,       /* schemas looked at, over all meets */
    FORM_JOIN_MAX = 1 << 13,       /* states of automata that are still joined into one */
};
#define FORM_NONE UINT32_MAX
/* In a meet, with a schema's id: its own keywords only, no $ref, anyOf, oneOf. */
#define FORM_OWN (1u << 31)

struct why { /* it is empty */
    uint32_t id;
    const char *keyword, *text;
};

/* Texts or numbers that are a regular language.  What says the same has the same one, wherever it stands: a
 * hundred dates cost one. */
struct regular {
    uint64_t hash;
    struct span key;     /* what was said */
    struct dfa *texts;   /* as texts; of numbers as they are written */
    struct dfa *written; /* as JSON, made when it is asked for; NULL for numbers: that is `texts` */
    bool number;
    grammar_node node;
    struct regular *next; /* of the same slot */
};

enum form_state { FORM_NEW, FORM_OPEN, FORM_DONE };

struct shape_property {
    const char *name;
    uint32_t meet;
    bool required;
};

struct shape {
    enum schema_type type;
    const uint32_t *id; /* the schemas that speak of it */
    uint32_t count;
    enum form_state state;
    bool empty;
    struct why why;
    struct regular *regular; /* numbers, and strings of which not only the length counts */
    uint32_t low, high;      /* code points, items */
    const uint32_t *prefix;  /* meets */
    uint32_t prefix_count, items;
    const struct shape_property *property;
    uint32_t property_count, other; /* FORM_NONE: no other properties */
    uint32_t seen;                  /* the last spread that took it in */
    grammar_node node;              /* for who makes the grammar */
};

struct meet {
    const uint32_t *id;
    uint32_t count;
    enum form_state state;
    bool empty;
    struct why why;
    uint32_t *shape;
    uint32_t shape_count;
    const json_t **value;
    uint32_t value_count;
    /* for who makes the grammar */
    grammar_node node, reserved;
    bool making, ends;
};

struct form {
    const struct tree *tree;
    bool closed;
    struct valuer valuer;
    struct arena arena;
    struct meet **meet;
    struct shape **shape;
    uint32_t meet_count, shape_count;
    uint32_t *meet_slot, *shape_slot; /* open addressing, id + 1 */
    struct regular **regular_slot;
    struct dfa *no_leap; /* texts without the second 60 */
    uint32_t work, frames, spreads;
};

/* On false there is nothing to free. */
bool form_init(struct form *form, const struct tree *tree, bool closed, struct err *err);
void form_fini(struct form *form);

bool form_meet(struct form *form, const uint32_t *id, uint32_t count, uint32_t *meet, struct err *err);

/* Works the meet out, and what it contains as far as needed to see whether it is empty. */
bool form_settle(struct form *form, uint32_t meet, struct err *err);

/* What is written. */
bool form_written(struct form *form, struct regular *regular, const struct dfa **written, struct err *err);

#endif
