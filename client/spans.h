/* spans - where in its document an extracted string stands.
 *
 * exact: byte for byte.  normalised: after Unicode compatibility decomposition (NFKC and NFKD tell the same
 * texts apart) and full case folding, with runs of white space as one space (none at the value's ends), and
 * words put together that a hyphen and a line end (or a soft hyphen) cut, or only the line end after a hyphen
 * that belongs to the word; the offsets are those of the document as it is: what stands there, normalised by
 * itself, is the value normalised.  No offset cuts a character, and a normalised one cuts no letter from its
 * accents.  not_found: neither.
 *
 * Of several places the first at a word's borders is meant, else the first.  A search takes time in
 * proportion to the text and the value, whatever they are. */

#ifndef CLIENT_SPANS_H
#define CLIENT_SPANS_H

#include <jansson.h>

#include "base/err.h"
#include "base/span.h"

enum { SPAN_TEXT_MAX = 256 << 20 /* bytes of one chunk; a prepared one takes about 25 times as much */ };

enum span_label { SPAN_EXACT, SPAN_NORMALISED, SPAN_NOT_FOUND };
const char *span_label_name(enum span_label label);

/* One chunk of a document, prepared for many lookups. */
struct span_text;
/* Copies text, which is UTF-8 and begins at that byte and code point of its document.  ERR_LIMIT above
 * SPAN_TEXT_MAX, ERR_INPUT when it is not UTF-8. */
bool span_text_new(struct span_text **prepared, struct span text, uint64_t byte, uint64_t chars,
                   struct err *err);
void span_text_free(struct span_text *prepared); /* NULL is fine */

struct found {
    enum span_label label;
    uint64_t byte_from, byte_to, char_from, char_to; /* of the document; all 0 when it was not found */
};
/* An empty value, and one that is not UTF-8, is not found. */
struct found span_find(const struct span_text *prepared, struct span value);

/* Only at word borders: for numbers and booleans, as they are spelled.  "12" is not found in "3.12" or in
 * "12,000". */
struct found span_find_word(const struct span_text *prepared, struct span value);

#endif
