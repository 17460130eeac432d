/* tokenizer - text to ids and ids to text, as the `tokenizers` library does it.
 *
 * Everything comes from the model's own tokenizer.json: the normalizer, the pre-tokenizer with its
 * regular expressions, the vocabulary, the merges, the added tokens.  What that file asks for and this
 * code does not do is refused by name when it is loaded, never approximated.  tokenizer_config.json
 * tells which tokens begin and end a text, and the chat template (chat.h).
 *
 * Text is matched for *added tokens* first ("<｜end▁of▁sentence｜>", and in some models plain letters
 * such as "ü"), leftmost and longest; what lies between goes through normalizer, pre-tokenizer and
 * byte-level BPE.  Nothing here adds a beginning-of-text id by itself except tokenizer_encode_prompt.
 *
 * *Control tokens* are those a user must not be able to write in a message: the special ones, the
 * beginning and end of text, and any of the form <｜...｜> or <|...|>.
 *
 * A loaded tokenizer never changes: any number of threads may use it at once. */

#ifndef MODEL_TOKENIZER_H
#define MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

struct tokenizer;

enum {
    TOKENIZER_FILE_MAX = 256 * 1024 * 1024, /* bytes of tokenizer.json */
    TOKENIZER_IDS_MAX = 1 << 21,            /* ids are below this */
    TOKENIZER_ADDED_MAX = 1 << 16,          /* added tokens */
    TOKENIZER_STEPS_MAX = 64,               /* steps of the normalizer, of the pre-tokenizer */
    TOKENIZER_TEXT_MAX = 64 * 1024 * 1024,  /* bytes of one text */
    TOKENIZER_EOS_MAX = 16,                 /* ids that end a text */
};

/* Reads tokenizer.json, tokenizer_config.json and generation_config.json in dir; no other file of the model
 * is needed.  Without the second there is no bos and no eos, without the third no further ids that end a
 * text. ERR_NOT_FOUND, ERR_IO, or ERR_INPUT naming the file, the key and what was expected. */
bool tokenizer_load(struct tokenizer **tokenizer, const char *dir, struct err *err);

/* The same from the bytes of the two files (config may be empty: then there is no bos, no eos).
 * The names in errors are "tokenizer.json" and "tokenizer_config.json". */
bool tokenizer_parse(struct tokenizer **tokenizer, struct span file, struct span config, struct err *err);

void tokenizer_free(struct tokenizer *tokenizer); /* NULL is fine */

/* ---- what it has --------------------------------------------------------------------------------- */

/* One more than the highest id.  The model's output may have more rows: those, and any id in between
 * that tokenizer_has does not know, must never be sampled. */
int32_t tokenizer_size(const struct tokenizer *tokenizer);
bool tokenizer_has(const struct tokenizer *tokenizer, int32_t id);

/* -1 where the model has none. */
int32_t tokenizer_bos(const struct tokenizer *tokenizer);
int32_t tokenizer_eos(const struct tokenizer *tokenizer);
/* All that end a text: eos, and those that generation_config.json names beside it.  Count 0 to
 * TOKENIZER_EOS_MAX. */
const int32_t *tokenizer_eos_ids(const struct tokenizer *tokenizer, int *count);
bool tokenizer_is_eos(const struct tokenizer *tokenizer, int32_t id);
bool tokenizer_adds_bos(const struct tokenizer *tokenizer); /* to a prompt given as text */

bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id); /* left out of generated text */
bool tokenizer_is_control(const struct tokenizer *tokenizer, int32_t id);

/* The id of an added token by its text, -1 when there is none. */
int32_t tokenizer_added(const struct tokenizer *tokenizer, struct span content);

/* The bytes that id stands for; not always a whole character.  Empty for an id that does not exist. */
struct span tokenizer_bytes(const struct tokenizer *tokenizer, int32_t id);

/* So many bytes of text at most become one token: a text of more than n times as many has more than n tokens.
 * 0: that cannot be said of this tokenizer. */
size_t tokenizer_token_bytes_max(const struct tokenizer *tokenizer);

/* ---- encoding ------------------------------------------------------------------------------------ */

/* A growing list of ids.  Zero-initialise (max 0: no bound beyond memory); free with ids_fini. */
struct ids {
    int32_t *id;
    size_t count, capacity, max;
};
bool ids_add(struct ids *ids, int32_t id); /* false at the bound or out of memory; ids is then unchanged */
void ids_fini(struct ids *ids);

enum added {
    ADDED_ALL,  /* every added token matches: tokenize, prompts, the fixed parts of a chat template */
    ADDED_PLAIN /* only those that are not control tokens: what a user wrote in a message */
};

/* Text in one or more parts.  The parts are one text: words and merges cross their borders.  A
 * control token matches only where every byte of it is in ADDED_ALL parts. */
struct text_part {
    struct span text;
    enum added added;
};

/* Appends to ids; exactly what `tokenizers` gives for encode(text, add_special_tokens=False).
 * ERR_INPUT for text that is not UTF-8, ERR_LIMIT at a bound; ids then keeps what it had before. */
bool tokenizer_encode(const struct tokenizer *tokenizer, struct span text, struct ids *ids, struct err *err);
bool tokenizer_encode_parts(const struct tokenizer *tokenizer, const struct text_part *part,
                            size_t part_count, struct ids *ids, struct err *err);

/* A prompt given as text: with the ids in front that the model's files ask for (add_bos_token, or a
 * post-processor that adds them). */
bool tokenizer_encode_prompt(const struct tokenizer *tokenizer, struct span text, struct ids *ids,
                             struct err *err);
int tokenizer_prefix_count(const struct tokenizer *tokenizer); /* how many those are */

#endif
