/* bpe - a vocabulary of byte strings and the order in which pairs of them merge.
 *
 * A word is cut into single bytes; then, again and again, the pair of neighbours with the lowest rank
 * becomes one token (the leftmost of equals), until no pair has a rank.  Ranks belong to pairs of ids:
 * two pairs that spell the same text may have different ranks.
 *
 * In tokenizer.json bytes are written as visible characters (GPT-2's table: space is U+0120); here
 * tokens are plain bytes.  A token that holds another character than those of the table cannot come out
 * of any text; its bytes are its UTF-8, as the library's decoder has it. */

#ifndef MODEL_BPE_H
#define MODEL_BPE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

struct bpe;
struct ids;

enum { BPE_IDS_MAX = 1 << 21, BPE_MERGES_MAX = 1 << 22, BPE_TOKEN_BYTES_MAX = 4096 };

/* The value of "model".  ERR_INPUT for another kind of model, for options that are not byte-level BPE's, for
 * an id twice or beyond BPE_IDS_MAX, for a merge of tokens that do not exist (naming the merge). */
bool bpe_new(struct bpe **bpe, const json_t *description, struct err *err);
void bpe_free(struct bpe *bpe); /* NULL is fine */

int32_t bpe_size(const struct bpe *bpe); /* one more than the highest id */
bool bpe_has(const struct bpe *bpe, int32_t id);
struct span bpe_bytes(const struct bpe *bpe, int32_t id);

/* The id of a token as tokenizer.json writes it, or -1. */
int32_t bpe_find(const struct bpe *bpe, struct span written);

/* Zero-initialise, use again and again. */
struct bpe_work {
    struct bpe_symbol *symbol;
    struct bpe_merge *heap;
    size_t symbol_capacity, heap_capacity, heap_count;
};
void bpe_work_fini(struct bpe_work *work);

/* Appends the tokens of word.  banned (NULL, or a byte for each id): ids that must not come out.
 * n log n in the word's length.  ERR_INPUT naming a byte that has no token; ERR_LIMIT when ids is full. */
bool bpe_word(const struct bpe *bpe, struct bpe_work *work, struct span word, const uint8_t *banned,
              struct ids *ids, struct err *err);

#endif
