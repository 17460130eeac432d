/* spans - where in its document an extracted string stands.
 *
 * exact: byte for byte.  normalised: after Unicode NFKC and case folding, with runs of white space as one space, and words
 * put together that a hyphen and a line end (or a soft hyphen) cut; the offsets are those of the document as it is.  not_found: neither.
 * Of several places the first at a word's border is meant, else the first; numbers and booleans are looked for as they are spelled, too,
 * only at word borders. */

#ifndef CLIENT_SPANS_H
#define CLIENT_SPANS_H

#include <jansson.h>

#include "base/err.h"
#include "base/span.h"

enum span_label { SPAN_EXACT, SPAN_NORMALISED, SPAN_NOT_FOUND };
const char *span_label_name(enum span_label label);

/* One chunk of a document, prepared for many lookups. */
struct span_text;
bool span_text_new(struct span_text **prepared, struct span text, uint64_t byte, uint64_t chars, struct err *err); /* copies text */
void span_text_free(struct span_text *prepared); /* NULL is fine */

struct found {
    enum span_label label;
    uint64_t byte_from, byte_to, char_from, char_to; /* of the document */
};
struct found span_find(const struct span_text *prepared, struct span value);

#endif
