/* spool - an array on disk, for what there is one of a line.
 *
 * Elements have one size and are read and written by number, in any order, through a small cache of pages: so
 * a pass from front to back costs a system call a page, and memory does not depend on how many elements
 * there are.  What was never written reads as zeros.
 *
 * The file has no name: whatever ends the process, nothing is left behind. */

#ifndef CLIENT_SPOOL_H
#define CLIENT_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { SPOOL_PAGE_SIZE = 8 * 1024, SPOOL_PAGES = 16 };

struct spool;

/* dir: where the file lies; NULL: where temporary files go ($TMPDIR, else /tmp).  element_size: 1 to
 * SPOOL_PAGE_SIZE. */
bool spool_new(struct spool **spool, const char *dir, size_t element_size, struct err *err);
void spool_free(struct spool *spool); /* NULL is fine */

bool spool_get(struct spool *spool, uint64_t number, void *element, struct err *err);
bool spool_set(struct spool *spool, uint64_t number, const void *element, struct err *err);

#endif
