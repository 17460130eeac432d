/* documents - what `extract` and `summarize` read: files, directories, globs, standard input, and rows of
 * tables through a template.
 *
 * The order is fixed: words in the order given; within a directory (walked whole, links to directories not
 * followed, names beginning with '.' left out) by name, bytewise; what a glob matches by name, too; within a
 * table by row.  So the same command sees the same documents in the same order.  A file met twice by its
 * device and inode is one document (the first name), so hard links are one, and copies are two.
 *
 * A directory gives every file in it, whatever its name: what is no text becomes a document that failed and
 * says what it is, never one that is silently left out (a glob, in quotes, takes only some; in it "**" is any
 * number of directories).  With a template it gives its tables only (.csv, .tsv, .tab, .jsonl, .ndjson).
 *
 * A document is read as a stream, whatever its size, and may be read again: what is not the same then (a
 * digest says so, and the file's size, time and inode) is a document that changed.  What cannot be read as
 * text is that document's own failure, in words for a person: empty (white space is nothing), binary (NUL
 * bytes, or too many controls), not UTF-8 (with the encoding that it looks like and how to convert it), no
 * file (a pipe, a device), vanished, changed while it was read.  A byte order mark is skipped; offsets count
 * it.
 *
 * Two documents may have the same name for a person (names that are not UTF-8): the index tells them apart.
 * One thread at a time uses a struct documents. */

#ifndef CLIENT_DOCUMENTS_H
#define CLIENT_DOCUMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

enum {
    DOCUMENTS_MAX = 1000 * 1000,
    DOCUMENT_NAME_MAX = 4096,
    DOCUMENT_ROW_MAX = 16 << 20, /* bytes of one row of a table, and of what a template makes of it */
    DOCUMENT_DIGEST_SIZE = 16,
};

struct documents;

struct documents_config {
    char *const *word; /* files, directories, globs (quoted ones are matched here), "-" */
    int word_count;
    const char *template; /* NULL: files are text.  Else "...{column}..." (template.h): files are tables, each
                             row a document. CSV and TSV begin with a row of names; empty lines are no rows;
                             standard input is JSONL when it begins with '{', else CSV, or TSV when its first
                             line has more tabs than commas */
    const char *spool;    /* where standard input is copied, since documents are read more than once; NULL: an
                             unnamed file.  A file (`< FILE`) is not copied */
};

/* Lists everything; reads no document (but the rows of tables are counted).  A word that names nothing (an
 * empty directory, a glob that matches nothing) is ERR_NOT_FOUND; a template that cannot be read ERR_INPUT; a
 * column that a table does not have is that row's failure, with its row number. */
bool documents_open(struct documents **documents, const struct documents_config *config, struct err *err);
void documents_close(struct documents *documents); /* NULL is fine; its documents must be closed before */
size_t documents_count(const struct documents *documents);

/* The name as it is written into `source`: the file as it was named (bytes that are not UTF-8 as U+FFFD), for
 * a row "FILE#ROW" (from 1, a CSV header not counted), for standard input "-". */
const char *documents_name(const struct documents *documents, size_t index);

/* A document being read.  Its text is UTF-8, exactly the file's bytes after a byte order mark. */
struct document;
bool document_open(struct document **document, struct documents *documents, size_t index, struct err *err);
void document_close(struct document *document); /* NULL is fine */
/* The next bytes, at most `size` (at least 4), cut at a character; *got 0 at the end.  False: the document
 * failed (err says why, to a person); only at its end is it certain that it did not.  ERR_INPUT: it is no
 * text; ERR_CONFLICT: it changed; ERR_NOT_FOUND: it vanished. */
bool document_read(struct document *document, char *bytes, size_t size, size_t *got, struct err *err);
uint32_t document_bom(
    const struct document *document); /* bytes skipped at the start: 0 or 3; known after the first read */

/* Of all its bytes; after document_read has come to the end.  Documents with the same digest have the same
 * text. */
bool document_digest(const struct document *document, uint8_t digest[DOCUMENT_DIGEST_SIZE]);

#endif
