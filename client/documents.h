/* documents - what `extract` and `summarize` read: files, directories, globs, standard input, and rows of
 * tables through a template.
 *
 * The order is fixed: words in the order given; within a directory (walked whole, links to directories not
 * followed, names beginning with '.' left out) by name, bytewise; within a table by row.  So the same command
 * sees the same documents in the same order.  A file met twice by its device and inode is one document (the first name).
 *
 * A document is read as a stream, whatever its size.  What cannot be read as text is that document's own failure,
 * in words for a person: empty, binary (NUL bytes, or too many controls), not UTF-8 (with the encoding that it looks like and how
 * to convert it), vanished, changed while it was read. A byte order mark is skipped; offsets count it. */

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
};

struct documents;

struct documents_config {
    char *const *word; /* files, directories, globs (quoted ones are matched here), "-" */
    int word_count;
    const char *template; /* NULL: files are text.  Else "...{column}...": files are tables (.csv, .tsv, .jsonl), each row a document;
                             "{{" is a brace */
    const char *spool;    /* where standard input is copied, since documents are read more than once */
};

/* Lists everything; reads no document (but the rows of tables are counted).  A word that names nothing is
 * ERR_NOT_FOUND; a template that names a column that a table does not have is that row's failure, with its row number. */
bool documents_open(struct documents **documents, const struct documents_config *config, struct err *err);
void documents_close(struct documents *documents); /* NULL is fine */
size_t documents_count(const struct documents *documents);

/* The name as it is written into `source`: the file as it was named (bytes that are not UTF-8 as U+FFFD), for a row
 * "FILE#ROW" (from 1, a CSV header not counted), for standard input "-". */
const char *documents_name(const struct documents *documents, size_t index);

/* A document being read.  Its text is UTF-8, exactly the file's bytes after a byte order mark. */
struct document;
bool document_open(struct document **document, struct documents *documents, size_t index, struct err *err);
void document_close(struct document *document); /* NULL is fine */
/* The next bytes, at most `size`, cut at a character; *got 0 at the end.  False: the document failed (err says why, to a person);
 * only at its end is it certain that it did not. */
bool document_read(struct document *document, char *bytes, size_t size, size_t *got, struct err *err);
uint32_t document_bom(const struct document *document); /* bytes skipped at the start: 0 or 3 */

#endif
