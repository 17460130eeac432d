/* encoding - what bytes that are not UTF-8 look like, in words for a person.
 *
 * A guess from a sample: byte order marks, what decodes without a fault into characters that exist, and which
 * of them are common in a language.  Nothing is converted by it: the text of a document is never a guess. */

#ifndef CLIENT_ENCODING_H
#define CLIENT_ENCODING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

enum { ENCODING_SAMPLE = 64 * 1024 };

/* The name that iconv knows it by, "binary" for what is no text, NULL when nothing fits. */
const char *encoding_guess(struct span sample);

/* The kind of file that its first bytes tell ("a PDF file"), or NULL. */
const char *encoding_magic(struct span head);

/* ERR_INPUT for a document whose byte at `offset` is a fault (NUL, or not UTF-8; size bytes from there are in
 * `fault`).  head: the file's first bytes, near: those around the fault. */
bool encoding_refuse(struct span head, struct span near, uint64_t offset, struct span fault, struct err *err);

/* What switches between sets of characters by escapes, and so has only bytes of ASCII: the name that iconv
 * knows it by, else NULL. */
const char *encoding_of_escapes(struct span text);

/* Too many control characters for a text? */
bool encoding_has_controls(struct span text);

#endif
