/* grammar - which tokens may come next, so that the output has its form and ends within its budget.
 *
 * A grammar is built from nodes: regular languages (dfa.h), strings with counted length, arrays, objects,
 * sequences and choices of these, and references to nodes defined later, so it may be recursive.  It is
 * compiled into a pushdown automaton over bytes.  A *run* is one generation's place in it: a set of
 * configurations (state and stack), since a choice may be open until a later byte; all interned, so
 * that equal places share their masks and their endings.
 *
 * Ending.  For every place C is the shortest text that ends it (of equally short ones the first in order
 * of bytes; so C after any of its prefixes is the rest of it), and
 *
 *     minimum(place) = tokens that C takes:  0 at its end;
 *                      where the next bytes are forced: the tokens of them that are sure, and minimum after them;
 *                      else 1 + the least minimum after any token that C begins with and that is allowed there.
 *
 * A token is allowed when minimum(place after it) is at most the budget left after it; so there always is
 * an allowed token, the output is complete when the budget is spent, and a budget below minimum(start)
 * can be refused before anything runs.  No end-of-text token is counted: where the budget is spent the
 * text is complete.
 *
 * Forced bytes.  Where only one byte can follow, and then only one, and so on, that whole run of bytes is given
 * as the tokenizer's own encoding of it, whatever the sampling, so it is not for the model to choose.  Its end is a *seam*
 * where a token covers the last of those bytes and what may follow them, as `[]` does where `[` is forced: the tokenizer
 * might have put them together, and a model that has learned so must be able to.  So the last tokens, from the first place on
 * from which such a token begins, are not forced; a mask there holds the tokenizer's own next token and those that cover all
 * that is left of the run and go on, no others.  Whole
 * characters only: a run ends before a character of which not all bytes are forced, and what is left of a
 * character that was begun before is chosen by masks as all else.  Where the tokenizer's own encoding does not spell the
 * bytes (a normalizer has changed them) or has tokens that may not be generated, the fewest tokens that do spell
 * them are given; where none do, nothing is forced.
 *
 * Masks come from a walk of the vocabulary's trie with the automaton.  They are kept per place (of the
 * local state and what can be seen of the stack), within grammar_limits; a mask of one place costs the walk
 * once.  One thread at a time uses a grammar and its runs; a vocabulary never changes and can be shared. */

#ifndef MODEL_GRAMMAR_H
#define MODEL_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "worker/model/dfa.h"
#include "worker/model/tokenizer.h"

enum {
    GRAMMAR_NODES_MAX = 1 << 16,
    GRAMMAR_STATES_MAX = 1 << 20,   /* of all automata of one grammar */
    GRAMMAR_BYTES_MAX = 64 << 20,   /* memory of one grammar with its masks: beyond it masks are made anew */
    GRAMMAR_DEPTH_MAX = 512,        /* of the stack: a text nested deeper cannot be generated */
    GRAMMAR_PATHS_MAX = 256,        /* configurations of one place; where more are open, those nearest to their end are kept */
    GRAMMAR_ITEMS_MAX = 1 << 24,    /* minItems, maxItems, minLength, maxLength; a greater maximum is as good as none */
    GRAMMAR_ENDING_MAX = 1 << 17,   /* bytes of C: a text that needs more to be ended cannot be generated */
    GRAMMAR_FORCED_MAX = 1 << 16,   /* bytes that are forced together; what is longer is encoded in such parts */
};
#define GRAMMAR_NO_MAX UINT32_MAX

/* ---- the vocabulary: every token's bytes as a trie ---------------------------------------------------- */

struct vocabulary;
/* Takes in every token that may be generated as text: not the special and control tokens, not those without
 * bytes.  `vocab`: rows of the model's output; ids at or above are never allowed.  NULL without memory.  The
 * tokenizer must outlive it. */
struct vocabulary *vocabulary_new(const struct tokenizer *tokenizer, int32_t vocab);
void vocabulary_free(struct vocabulary *vocabulary); /* NULL is fine */

/* ---- building ----------------------------------------------------------------------------------------- */

typedef uint32_t grammar_node; /* 0: none, an error has been met; any call with it gives 0 again */

struct grammar_builder;
struct grammar_builder *grammar_builder_new(void);
void grammar_builder_free(struct grammar_builder *builder); /* NULL is fine */

grammar_node grammar_nothing(struct grammar_builder *builder);                                 /* the empty language: no text */
grammar_node grammar_literal(struct grammar_builder *builder, struct span bytes);              /* copied; may be empty */
grammar_node grammar_regular(struct grammar_builder *builder, struct dfa *dfa);                /* takes it */
/* A JSON string literal of low to high code points, any text (spelled as dfa.h says); counted, not unrolled. */
grammar_node grammar_string(struct grammar_builder *builder, uint32_t low, uint32_t high);
grammar_node grammar_sequence(struct grammar_builder *builder, const grammar_node *part, size_t count);
grammar_node grammar_choice(struct grammar_builder *builder, const grammar_node *branch, size_t count);

struct grammar_array { /* [a,b,c]: the prefix's nodes in order, then items */
    const grammar_node *prefix;
    size_t prefix_count;
    grammar_node items;  /* 0: nothing beyond the prefix */
    uint32_t low, high;  /* items in all */
};
grammar_node grammar_array(struct grammar_builder *builder, const struct grammar_array *array);

struct grammar_property {
    struct span key;    /* the JSON literal, with its quotes */
    grammar_node value; /* grammar_nothing: it may not be there */
    bool required;
};
struct grammar_object { /* {"a":1,"b":2}: the properties in order, then any number of others */
    const struct grammar_property *property;
    size_t property_count;
    struct dfa *other_key;    /* JSON literals of keys that others may have; borrowed; NULL: no others */
    grammar_node other_value; /* 0 with other_key NULL */
};
grammar_node grammar_object(struct grammar_builder *builder, const struct grammar_object *object);

grammar_node grammar_reserve(struct grammar_builder *builder); /* for recursion: defined later */
void grammar_define(struct grammar_builder *builder, grammar_node reserved, grammar_node as);

struct grammar;
/* Compiles; drops what can never end.  The vocabulary must outlive it.  Uses the builder up: there is nothing left to do
 * with it but grammar_builder_free.
 * ERR_INPUT: no finite text fits (it is empty, or recursive without an end), or it cannot be written with this tokenizer's
 * tokens.  ERR_LIMIT: a bound, named.  Errors met while building come out here, the first one. */
bool grammar_build(struct grammar **grammar, struct grammar_builder *builder, grammar_node root,
                   const struct vocabulary *vocabulary, struct err *err);
void grammar_free(struct grammar *grammar); /* its runs must be gone; NULL is fine */
size_t grammar_bytes(const struct grammar *grammar); /* memory it takes now */
/* minimum(start). */
int32_t grammar_minimum(const struct grammar *grammar);

/* ---- running ------------------------------------------------------------------------------------------- */

struct grammar_run;
struct grammar_run *grammar_run_new(struct grammar *grammar); /* at the start; NULL without memory */
void grammar_run_free(struct grammar_run *run);               /* NULL is fine */

bool grammar_may_end(const struct grammar_run *run);  /* what there is now is complete */
bool grammar_must_end(const struct grammar_run *run); /* and nothing can follow */
int32_t grammar_run_minimum(struct grammar_run *run);

/* The tokens of the forced bytes that come next, appended to ids; *count 0 where nothing is forced.  They always fit into
 * the budget that masks were asked with.  The run does not move: give each to grammar_advance. */
bool grammar_forced(struct grammar_run *run, struct ids *ids, size_t *count, struct err *err);

/* Ask grammar_forced first: where bytes are forced only the first of its tokens has a bit here.
 * One bit a token id (bit id % 64 of word id / 64; words = (vocab + 63) / 64), good until the next call with this
 * grammar.  budget: tokens that may still be generated, this one included, at least 1.  NULL: no token is allowed:
 * where the place may end there is nothing else to do (it must end, or what could follow cannot be spelled or takes
 * more than the budget); elsewhere the caller went below grammar_run_minimum. */
const uint64_t *grammar_mask(struct grammar_run *run, int32_t budget);

/* Moves on.  False: this token does not fit, or a bound (GRAMMAR_DEPTH_MAX, GRAMMAR_PATHS_MAX) was met, which a mask never lets
 * happen; the run has not moved. */
bool grammar_advance(struct grammar_run *run, int32_t token);
bool grammar_advance_bytes(struct grammar_run *run, struct span bytes); /* for tests: accepts an instance when it then may end */

#endif
