/* grammar_inside - what vocabulary.c and the grammar_*.c files know of each other.  Nobody else includes this.
 *
 *     vocabulary.c     the trie of the tokens' bytes
 *     grammar_nodes.c  the builder: nodes become rules
 *     grammar_build.c  what is computed of all rules once: lengths, and what can end
 *     grammar_local.c  a rule's own automaton: which byte leads where, how far its end is
 *     grammar_run.c    stacks, places, steps, runs
 *     grammar_end.c    shortest endings in tokens, forced bytes
 *     grammar_mask.c   masks
 *
 * A node becomes a *rule*: a small automaton of its own (local state and counter).  A *configuration* is a state of
 * one rule and the stack of those that called it; a *place* is a set of configurations, closed under calls and
 * returns, in an order that depends on nothing but its contents, and interned.
 *
 * The length of the shortest ending is a sum: that of the local state, and one term for each frame of the stack.
 * No order among equally short endings has to be kept: the next byte of C is the least byte that any
 * configuration of least length can take towards its end, and a place's set has them all. */

#ifndef MODEL_GRAMMAR_INSIDE_H
#define MODEL_GRAMMAR_INSIDE_H

#include "worker/model/grammar.h"

/* ---- vocabulary.c ------------------------------------------------------------------------------- */

/* Tokens of one outcome when read inside a JSON string. */
struct string_group {
    uint32_t state;   /* of the string's automaton after it */
    uint32_t points;  /* code points that it begins */
    uint32_t from, to; /* of string_token */
    uint64_t *bits;   /* of many tokens; else NULL */
};

struct vocabulary {
    const struct tokenizer *tokenizer;
    int32_t vocab;
    uint32_t words; /* of a mask */
    uint32_t longest; /* bytes of the longest token */

    /* Depth first, children in order of byte; node 0 is the root.  Tokens stand in the same order. */
    uint32_t node_count, token_count;
    struct trie_node { /* [node_count + 1] */
        uint32_t end;   /* the first node behind the subtree */
        uint32_t first; /* of the node's own tokens, which go on to the next node's first */
        uint16_t depth;
        uint8_t byte;
    } *node;
    int32_t *token;
    uint32_t *child_first; /* [node_count + 1] */
    uint32_t *child;

    uint64_t *allowed; /* [words] tokens that are in the trie */
    bool single[256];  /* there is a token of this byte alone */

    /* What becomes of each token in the body of a JSON string: stays inside, or reaches the closing quote. */
    struct string_group *string_group;
    uint32_t string_group_count;
    int32_t *string_token;
    uint32_t string_token_count;
    uint64_t *string_bits; /* all that stay inside */
    struct string_exit {
        uint32_t node, points; /* where the quote stands */
    } *string_exit;
    uint32_t string_exit_count;
};

/* The child of node along byte, 0 when there is none. */
uint32_t vocabulary_child(const struct vocabulary *vocabulary, uint32_t node, uint8_t byte);
static inline bool vocabulary_allows(const struct vocabulary *vocabulary, int32_t token)
{
    return token >= 0 && token < vocabulary->vocab && (vocabulary->allowed[token / 64] >> (token % 64) & 1);
}
/* The fewest tokens that spell bytes; of several such spellings that whose tokens are longest from the left.  False: there
 * is none, or no memory (*memory false). */
bool vocabulary_cover(const struct vocabulary *vocabulary, struct span bytes, struct ids *ids, bool *memory);

/* ---- grammar_nodes.c, grammar_build.c ----------------------------------------------------------- */

#define GRAMMAR_FAR (UINT64_MAX / 4) /* a length: there is no end */

struct grammar;

enum rule_kind { RULE_NOTHING, RULE_LITERAL, RULE_REGULAR, RULE_STRING, RULE_SEQUENCE, RULE_CHOICE, RULE_ARRAY, RULE_OBJECT };

/* A dfa and what is known of its states. */
struct regular {
    struct dfa *dfa;
    uint32_t *far; /* [count] bytes to the nearest accepting state; UINT32_MAX: none */
    int16_t *only; /* [count] the one byte that leads on; -1: none, -2: several */
    uint8_t *best; /* [count] the least byte that leads nearer */
};

/* The least of something, and the stack it needs. */
struct reach {
    uint64_t len;
    uint32_t need;
};

struct property {
    struct span key; /* with quotes */
    uint32_t value;
    bool required, usable;
};

struct object_rule {
    struct property *property;
    uint32_t count;
    struct regular other;
    uint32_t other_value; /* 0: no others */
    uint32_t other_need, *key_sorted; /* property indexes in order of key */
    uint64_t other_len; /* least of key, colon, value and the closing brace */

    uint32_t *required_next; /* [count + 1] the first required property at or after; count: none */
    struct reach *after;     /* [count + 1] from behind a value, properties from this one on still to come */
    struct reach *property_best; /* [count + 1] from where a property's key begins; none: GRAMMAR_FAR */
    struct reach *key_best;  /* [count + 1] the same, others too */

    /* The trie of the keys. */
    struct key_node {
        uint32_t from, to; /* keys below it, in key_sorted */
        uint32_t depth;
        uint32_t child_from, child_to; /* of key_child */
        int32_t property;              /* whose key ends here, or -1 */
    } *node;
    uint32_t node_count;
    struct key_child {
        uint32_t node;
        uint8_t byte;
    } *key_child;
};

struct rule {
    enum rule_kind kind;
    struct reach start; /* from its beginning to its end */
    union {
        struct {
            uint8_t *bytes;
            uint32_t size;
        } literal;
        struct regular regular;
        struct {
            uint32_t low, high;
        } string;
        struct {
            uint32_t *part; /* or branch */
            uint32_t count;
            uint32_t best;      /* branch */
            struct reach *rest; /* [count + 1] of a sequence */
            bool defined;       /* of a reserved node */
            bool reserved;
        } list;
        struct {
            uint32_t *prefix, prefix_count;
            uint32_t items, low, high;
            uint32_t last;      /* elements there can be */
            uint64_t *sum;      /* [prefix_count + 1] bytes of the prefix's elements before this, each with a comma */
            uint32_t need;      /* while required elements are to come */
        } array;
        struct object_rule object;
    };
};

void rules_free(struct rule *rule, uint32_t count);
/* The rules are the grammar's then; its root is set already. */
bool builder_hand_over(struct grammar_builder *builder, struct grammar *grammar, struct err *err);

/* ---- grammar_run.c ------------------------------------------------------------------------------ */

enum {
    PLACE_WORK_MAX = 16 * GRAMMAR_PATHS_MAX, /* configurations looked at for one place */
    PLACE_SEEN_MAX = 2 * PLACE_WORK_MAX,     /* and with those that lead to the shortest ending */
    PLACE_HASH = 4 * PLACE_SEEN_MAX,
};

/* Interned.  Two bottoms: that of a text, and one that stands for whatever lies below. */
struct stack {
    struct stack *parent;
    uint32_t rule, local, counter; /* where to go on */
    uint32_t depth;
    uint64_t len; /* bytes to the end of the text, from here on */
};

struct config {
    struct stack *stack;
    uint32_t rule, local, counter;
};

/* Tokens that are sure: count of them, `bytes` long, to the place `end`.  With none, the place is a *seam*: the tokenizer's
 * own token of the forced bytes may be given, or one that covers all of them and goes on. */
struct forced {
    uint32_t bytes, count;
    struct place *end;
    uint32_t seam_bytes; /* of the run */
    uint32_t seam_node;  /* of the trie, at its end */
    struct place *seam_end;
    uint32_t first_bytes; /* of id[0] */
    struct place *first_end;
    const struct tail *seam_tail;
    int32_t id[];
};

struct place {
    struct config *config; /* by length, rule, local state, counter, stack */
    uint32_t count;
    uint32_t hash;
    bool ends;    /* the text is complete */
    bool open;    /* what lies below the bottom may go on here */
    bool tight;   /* a bound has left something out */
    bool forced_known;
    int16_t only; /* the one byte that can follow; -1: none or several; -3: not known yet */
    uint8_t best; /* C's next byte */
    uint32_t len; /* of C */
    uint32_t deep; /* the greatest depth, with what is needed, of any configuration met on the way here */
    uint64_t far;  /* the greatest length of any of these */
    int32_t minimum; /* -1: not known yet; INT32_MAX: cannot be spelled */
    uint32_t mark;   /* scratch of a walk */
    uint32_t walked; /* the last walk that came here */
    struct place *after; /* along C */
    struct place **next; /* [256], or NULL */
    struct forced *forced;
    struct outlook *outlook; /* grammar_mask.c */
    const struct tail *tail; /* behind the closing quote of a string */
    struct local_mask *local_mask;
};

struct seen {
    struct config config;
    uint64_t len;
    bool active;
};

struct pool_block {
    struct pool_block *next;
    size_t size, used;
};

struct table { /* open addressing */
    void **slot;
    size_t size, count;
};

struct grammar {
    const struct vocabulary *vocabulary;
    struct rule *rule;
    uint32_t rule_count, root;
    int32_t minimum; /* of the start */
    size_t rule_bytes;
    bool spelled; /* every byte that can occur is a token: a text has at least so few tokens as bytes */
    bool failed;  /* no memory: nothing is allowed from now on */

    /* Everything below the line can be made anew. */
    struct pool_block *pool;
    size_t pool_bytes;
    struct table places, stacks, steps;
    struct stack *bottom, *below;
    struct place *dead, *start;
    struct grammar_run *runs;

    /* Scratch. */
    struct seen *seen;
    uint32_t seen_count;
    uint32_t *seen_slot, *seen_stamp, stamp;
    struct seen *sort;
    struct config *hand;
    uint64_t *mask;
    struct place **trail; /* [longest + 1] */
    uint32_t walks;
    struct found *found; /* [token_count + 1] grammar_mask.c */
    uint8_t *text;        /* [GRAMMAR_FORCED_MAX + 4] a forced run */
};

struct grammar_run {
    struct grammar *grammar;
    struct place *place;
    struct grammar_run *previous, *next;
};

void *pool_take(struct grammar *grammar, size_t size); /* cleared; NULL: failed is set */
bool masks_begin(struct grammar *grammar); /* scratch */
bool runs_begin(struct grammar *grammar); /* the scratch, and the start's place */
void runs_end(struct grammar *grammar);
/* At the door of every call: drops what can be made anew where it has grown too large. */
void grammar_trim(struct grammar *grammar);
bool grammar_is_full(const struct grammar *grammar); /* no more tables */

/* grammar->dead where the byte does not fit. */
struct place *place_step(struct grammar *grammar, struct place *place, uint8_t byte);
struct place *place_walk(struct grammar *grammar, struct place *place, uint8_t byte); /* remembers in a table of the place */
struct place *place_recall(struct grammar *grammar, struct place *place, uint8_t byte); /* remembers in one for all */
struct place *place_of(struct grammar *grammar, const struct config *config, uint32_t count);
/* The common bottom of its stacks, and the same place above grammar->below. */
struct place *place_lift(struct grammar *grammar, struct place *place, struct stack **bottom);
/* The other way round; what lies below goes on where `place` is open. */
struct place *place_attach(struct grammar *grammar, struct place *place, struct stack *bottom);
int place_only(struct grammar *grammar, struct place *place);

/* ---- grammar_local.c ---------------------------------------------------------------------------- */

enum { /* local states */
    STRING_START,
    STRING_BODY,
    STRING_END,
    STRING_ESCAPE,
    STRING_U,   /* \u */
    STRING_U0,  /* \u0 */
    STRING_U00, /* \u00 */
    STRING_U000,
    STRING_U001,
    STRING_MORE1, /* bytes of the character that are still to come */
    STRING_MORE2,
    STRING_MORE3,
    STRING_E0, /* after these bytes not every second byte is right */
    STRING_ED,
    STRING_F0,
    STRING_F4,
    STRING_STATES,
    STRING_DEAD = 255,

    ARRAY_START = 0,
    ARRAY_OPEN,  /* behind [ */
    ARRAY_AFTER, /* behind an element; counter: elements there are */
    ARRAY_COMMA,
    ARRAY_END,

    OBJECT_START = 0,
    OBJECT_OPEN,  /* behind { */
    OBJECT_AFTER, /* behind a value; counter: the first property that may still come */
    OBJECT_COMMA,
    OBJECT_END,
    OBJECT_VALUE, /* behind the colon; counter: whose */
    OBJECT_OTHER, /* behind the colon of another */
    OBJECT_KEY,   /* the first node of the keys' trie; behind these the states of the other keys' dfa */
};

/* *points is raised where a code point begins. */
uint8_t string_move(uint8_t state, uint8_t byte, uint32_t *points);

bool local_move(const struct grammar *grammar, const struct config *from, uint8_t byte, struct config *to);
struct reach local_reach(const struct grammar *grammar, uint32_t rule, uint32_t local, uint32_t counter);
bool local_is_active(const struct grammar *grammar, const struct config *config); /* a byte can follow in the rule itself */
int local_only(const struct grammar *grammar, const struct config *config);       /* as place.only, -2 for several */
int local_best(const struct grammar *grammar, const struct config *config);       /* -1: its rule is at its end */
bool local_is_over(const struct grammar *grammar, uint32_t rule, uint32_t local); /* its end and nothing else */

/* What follows without a byte, the way to the shortest ending first.  False when there is no i-th. */
enum silent { SILENT_STATE, SILENT_CALL, SILENT_RETURN };
bool local_silent(const struct grammar *grammar, const struct config *config, uint32_t i, enum silent *silent,
                  struct config *to, struct config *back);

static inline bool rule_is_usable(const struct grammar *grammar, uint32_t rule)
{
    return grammar->rule[rule].start.len <= GRAMMAR_ENDING_MAX && grammar->rule[rule].start.need <= GRAMMAR_DEPTH_MAX;
}

/* ---- grammar_end.c ------------------------------------------------------------------------------ */

struct place *place_after(struct grammar *grammar, struct place *place); /* the next along C */
/* NULL: nothing is, and any token may come. */
const struct forced *place_forced(struct grammar *grammar, struct place *place);
/* Does any token that is longer than the node's fit? */
bool place_goes_on(struct grammar *grammar, struct place *place, uint32_t node);
int32_t place_minimum(struct grammar *grammar, struct place *place);             /* INT32_MAX: cannot be spelled */

#endif
