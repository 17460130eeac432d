/* detokenize - ids back to text, one at a time, never half a character.
 *
 * A token may end inside a UTF-8 character.  Such bytes are held back until the character is whole;
 * bytes that cannot become one are written as U+FFFD, one for each longest part that could have begun
 * a character, so that the result equals that of decoding all bytes at once.  What has been written
 * is never taken back: a stream of pieces joins to the whole text. */

#ifndef MODEL_DETOKENIZE_H
#define MODEL_DETOKENIZE_H

#include "worker/model/tokenizer.h"

struct detokenizer {
    const struct tokenizer *tokenizer;
    bool show_special; /* false: special tokens are left out, as in generated text */
    uint8_t held[4];
    uint8_t held_count;
};

void detokenizer_init(struct detokenizer *detokenizer, const struct tokenizer *tokenizer, bool show_special);

/* Appends to out the characters that became whole.  An id that does not exist adds nothing.
 * False when out is at its bound or memory is out. */
bool detokenizer_add(struct detokenizer *detokenizer, int32_t id, struct buf *out);

/* The end of the text: what is held back becomes U+FFFD. */
bool detokenizer_end(struct detokenizer *detokenizer, struct buf *out);

/* All at once.  ERR_INPUT naming the id that does not exist. */
bool detokenize(const struct tokenizer *tokenizer, const int32_t *id, size_t count, bool show_special,
                struct buf *out, struct err *err);

#endif
