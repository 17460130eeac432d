/* unicode - what documents need to know about characters, in one place (the only one of this room that names
 * utf8proc). */

#ifndef CLIENT_UNICODE_H
#define CLIENT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The next character of bytes that may be anything: its length, or 0 when they do not begin with a whole,
 * well-formed one.  *partial (may be NULL): they could with more bytes. */
size_t unicode_read(const uint8_t *bytes, size_t size, uint32_t *c, bool *partial);
size_t unicode_write(uint32_t c, uint8_t bytes[4]); /* how many */

/* Code points in text that is UTF-8. */
uint64_t unicode_count(const uint8_t *text, size_t size);

bool unicode_is_space(uint32_t c); /* White_Space, no-break spaces too */
bool unicode_is_lower(uint32_t c);
bool unicode_is_upper(uint32_t c);
bool unicode_is_letter(uint32_t c); /* letters and their marks */
bool unicode_is_digit(uint32_t c);
bool unicode_is_closer(uint32_t c);   /* closing brackets and quotes, which belong to the sentence before */
bool unicode_is_assigned(uint32_t c); /* to a character that text may hold: no surrogate, no private use */

/* Between which characters a word may end. */
enum unicode_word {
    WORD_NONE,   /* spaces, punctuation, symbols */
    WORD_SPACED, /* letters and digits of scripts that put spaces between words */
    WORD_HANGUL, /* the same, but digits and Latin words stand beside it without a space */
    WORD_DENSE,  /* scripts without spaces: Han, kana, Thai, Lao, Khmer, Burmese, ... */
    WORD_MARK    /* belongs to the character before */
};
enum unicode_word unicode_word(uint32_t c);
/* Does a word end, or begin, between these two? */
bool unicode_word_border(uint32_t before, uint32_t after);

/* May a text be cut between these two without cutting a grapheme cluster?  Ask for each pair in turn; state
 * begins 0. */
bool unicode_grapheme_border(uint32_t before, uint32_t after, int32_t *state);

/* Compatibility decomposition and full case folding: at most UNICODE_FOLD_MAX code points. */
enum { UNICODE_FOLD_MAX = 32 };
size_t unicode_fold(uint32_t c, uint32_t out[UNICODE_FOLD_MAX]);
uint8_t unicode_combining_class(uint32_t c);

#endif
