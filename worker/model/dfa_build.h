/* dfa_build - what the parts of dfa share: automata that are not yet minimal, and interned sequences.
 *
 * A raw automaton is deterministic and partial: states from 0 (the start), edges in any order, each (state,
 * symbol) at most once.  A symbol is whatever the maker chose: a class of bytes, or a class of code points
 * that dfa_expand then writes as UTF-8.  Raw automata may be larger than what comes of them, within bounds of
 * their own; together with DFA_WORK_MAX these keep every operation well under a second. */

#ifndef MODEL_DFA_BUILD_H
#define MODEL_DFA_BUILD_H

#include "worker/model/dfa.h"

enum {
    DFA_RAW_STATES_MAX = 1 << 18,
    DFA_RAW_EDGES_MAX = 1 << 21,
    DFA_CELLS_MAX = 1 << 23, /* of a finished table: 32 MiB */
    DFA_POOL_MAX = 1 << 23,  /* words of all interned sequences of one operation */
    DFA_WORK_MAX = 1 << 24,  /* elementary steps of one operation that makes sets of states */
    DFA_CODE_POINTS = 0x110000,
};
#define DFA_NONE UINT32_MAX

/* Makes room for need elements of this size; the capacity at least doubles.  False without memory. */
bool dfa_grow(void **array, size_t *capacity, size_t need, size_t size);
bool dfa_no_memory(struct err *err); /* false */
bool dfa_too_large(struct err *err); /* false: ERR_LIMIT */
/* Adds to the work of one operation, which is bounded, and to dfa_steps. */
bool dfa_spend(uint64_t *work, uint64_t steps, struct err *err);
void dfa_count_steps(uint64_t steps); /* to dfa_steps only */

/* ---- sequences of words, each kept once ------------------------------------------------------------- */

struct dfa_words { /* zero-initialise */
    uint32_t *pool;
    size_t pool_size, pool_capacity;
    size_t *end; /* of sequence i in the pool; it begins where i - 1 ends */
    size_t count, end_capacity;
    uint32_t *slot; /* open addressing: id + 1 */
    size_t slots;
};

/* Equal sequences have equal ids; ids count from 0 in order of arrival. */
bool dfa_words_intern(struct dfa_words *words, const uint32_t *word, size_t size, uint32_t *id,
                      struct err *err);
static inline const uint32_t *dfa_words_get(const struct dfa_words *words, uint32_t id, size_t *size)
{
    size_t first = id == 0 ? 0 : words->end[id - 1];

    *size = words->end[id] - first;
    return words->pool + first; /* good until the next intern */
}
void dfa_words_fini(struct dfa_words *words);

/* ---- raw automata ----------------------------------------------------------------------------------- */

struct dfa_edge {
    uint32_t from, to, symbol;
};

struct dfa_raw { /* zero-initialise */
    uint32_t count;
    uint8_t *accepts;
    size_t accepts_capacity;
    struct dfa_edge *edge;
    size_t edge_count, edge_capacity;
};

bool dfa_raw_states(struct dfa_raw *raw, uint32_t count,
                    struct err *err); /* so many, none accepting yet; never fewer than before */
bool dfa_raw_edge(struct dfa_raw *raw, uint32_t from, uint32_t symbol, uint32_t to, struct err *err);
void dfa_raw_fini(struct dfa_raw *raw);

/* In place: only states on a way from the start to an accepting one, no two alike; count 0: the empty
 * language. */
bool dfa_raw_minimise(struct dfa_raw *raw, uint32_t symbols, struct err *err);
/* The canonical automaton, where class_of gives each byte its symbol (below symbols, at most 256).  Minimises
 * raw. */
bool dfa_raw_finish(struct dfa **out, struct dfa_raw *raw, const uint8_t class_of[256], uint32_t symbols,
                    struct err *err);
/* The same where raw is known to be minimal and trimmed. */
bool dfa_raw_number(struct dfa **out, const struct dfa_raw *raw, const uint8_t class_of[256],
                    uint32_t symbols, struct err *err);

/* The bytes that neither a nor b tells apart; of[] gives each byte its joint class, byte[] each class one of
 * its bytes. */
struct dfa_joint {
    uint32_t classes;
    uint8_t of[256], byte[256];
};
void dfa_join_classes(struct dfa_joint *joint, const struct dfa *a, const struct dfa *b);

/* ---- automata over code points ---------------------------------------------------------------------- */

/* Intervals of code points, in order and without gaps: the first begins at 0, the last ends at
 * DFA_CODE_POINTS.  Each has a symbol, or DFA_NONE where no text has such a character (surrogates). */
struct dfa_alphabet {
    uint32_t *low;
    uint32_t *symbol;
    uint32_t intervals;
    uint32_t symbols;
};

/* Writes the symbols as UTF-8.  raw must have been minimised. */
bool dfa_expand(struct dfa **out, const struct dfa_raw *raw, const struct dfa_alphabet *alphabet,
                struct err *err);

/* dfa_pattern without a bound of the pattern's length, for those written here. */
bool dfa_pattern_compile(struct dfa **out, struct span pattern, bool search, struct err *err);

#endif
