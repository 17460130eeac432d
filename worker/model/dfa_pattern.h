/* dfa_pattern - inside: sets of code points and the tree of a pattern, between its reader and its compiler.
 */

#ifndef MODEL_DFA_PATTERN_H
#define MODEL_DFA_PATTERN_H

#include "worker/model/dfa_build.h"

enum {
    PATTERN_NODES_MAX = 1 << 17,  /* of a pattern with its repetitions written out */
    PATTERN_COUNT_MAX = 1 << 20,  /* in braces; larger ones are read as this, and are too large */
    PATTERN_RANGES_MAX = 1 << 18, /* of all its sets */
    PATTERN_PROPERTIES_MAX = 16,  /* different ones in one pattern: each is looked up for all code points */
    PATTERN_NAME_MAX = 64,        /* of a property, with its value */
};

/* ---- sets ------------------------------------------------------------------------------------------- */

struct points_range {
    uint32_t low, high;
};

struct points { /* zero-initialise; in order, apart and not touching once points_settle has been there */
    struct points_range *range;
    size_t count, capacity;
};

bool points_add(struct points *points, uint32_t low, uint32_t high, struct err *err);
bool points_add_all(struct points *points, const struct points *other, struct err *err);
void points_settle(struct points *points);                  /* sorts and merges; surrogates go */
bool points_negate(struct points *points, struct err *err); /* of settled ones */
void points_fini(struct points *points);

/* \p{name}, or \p{name=value} with value not NULL; adds to points.  False: ERR_INPUT, not known. */
bool points_property(struct points *points, const char *name, const char *value, struct err *err);
/* d, D, w, W, s, S; or '.'. */
bool points_class(struct points *points, char letter, struct err *err);

/* ---- the tree --------------------------------------------------------------------------------------- */

enum pattern_kind {
    PATTERN_EMPTY,
    PATTERN_SET,
    PATTERN_START,      /* ^ */
    PATTERN_END,        /* $ */
    PATTERN_BORDER,     /* \b */
    PATTERN_NOT_BORDER, /* \B */
    PATTERN_SEQUENCE,   /* of its children */
    PATTERN_CHOICE,
    PATTERN_REPEAT, /* of its child, low to high times */
};

struct pattern_node {
    enum pattern_kind kind;
    uint32_t set;
    uint32_t low, high;   /* high UINT32_MAX: without end */
    uint32_t child, next; /* nodes, or DFA_NONE */
    uint64_t size;        /* nodes of the machine that it needs, at most; saturates */
};

struct pattern_property {
    char name[PATTERN_NAME_MAX];
    struct points points;
};

struct pattern_tree { /* zero-initialise */
    struct pattern_node *node;
    size_t count, capacity;
    struct points *set; /* no two alike */
    size_t set_count, set_capacity;
    struct pattern_property *property; /* that have been met */
    size_t property_count, property_capacity;
    bool borders;
    uint32_t root;
};

bool pattern_read(struct pattern_tree *tree, struct span source, struct err *err);
void pattern_tree_fini(struct pattern_tree *tree);

#endif
