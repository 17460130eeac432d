/* chunks - a document in pieces of at most so many tokens.
 *
 * Cuts fall, in this order of preference, at the end of a paragraph (a blank line; a Markdown heading begins
 * one; nothing within a fenced block of code does), of a sentence (also of scripts without spaces: 。！？ and
 * the like), of a line, of a word, of a character (never inside a grapheme cluster where that can be helped);
 * at the last such place that keeps the chunk within its tokens, but never so early that the chunk has less
 * than half of them while a lesser place would do.  The next chunk begins `overlap` tokens before the cut, at
 * the nearest sentence or word.  White space at a chunk's ends is left out, so chunks cover every character
 * of the document but white space.  Counts are the tokenizer's own, of the chunk's text by itself, as that of
 * a message (what looks like a control token is letters).
 *
 * A document is streamed: memory is a few chunks, whatever its size. */

#ifndef CLIENT_CHUNKS_H
#define CLIENT_CHUNKS_H

#include "client/documents.h"
#include "worker/model/tokenizer.h"

enum { CHUNK_TOKENS_MIN = 16 };

struct chunk_limits {
    uint32_t tokens;  /* of a chunk, at least CHUNK_TOKENS_MIN */
    uint32_t overlap; /* tokens, less than half of `tokens` */
};

struct chunk {
    uint32_t index;       /* from 0 */
    struct span text;     /* good until the next call */
    uint64_t byte, chars; /* where it begins in the document: bytes of the file, code points (a byte order
                             mark is one) */
    uint32_t tokens;
    bool last;
};

struct chunks;
/* Keeps the document and the tokenizer, which must outlive it.  ERR_INPUT for limits that are none. */
bool chunks_open(struct chunks **chunks, struct document *document, const struct tokenizer *tokenizer,
                 struct chunk_limits limits, struct err *err);
void chunks_close(struct chunks *chunks); /* NULL is fine */
/* *end: there was no further chunk.  False: the document failed (document_read); what came before is to be
 * thrown away. */
bool chunks_next(struct chunks *chunks, struct chunk *chunk, bool *end, struct err *err);

/* For a text in memory (a summary to be cut, the tests), which must outlive it.  One of white space has no
 * chunk. */
bool chunks_of_text(struct chunks **chunks, struct span text, const struct tokenizer *tokenizer,
                    struct chunk_limits limits, struct err *err);

#endif
