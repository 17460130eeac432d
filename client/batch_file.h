/* batch_file - the requests, one a line, read twice and never held.
 *
 * The first pass checks every line before anything runs and keeps a few words about each: where it
 * stands, a digest of what it asks, what is wrong with it.  The second pass reads a line again when it
 * is submitted.  So a file may be larger than memory, and a line that is too long costs its length in
 * reading, not in memory.  The words are kept in a spool file: a line costs no memory at all.
 *
 * Two lines with one custom_id are found when all have been read: a keyed hash of each custom_id goes into one of 256
 * buckets on the disk, the buckets are taken one after another, and where two hashes are the same the lines are read
 * once more and compared.  That is at most a few MiB in memory, whatever the file says.
 *
 * Blank lines are skipped, so a line has a number (as an editor counts) and a position (among the
 * lines that are not blank).  A byte order mark at the start, CRLF, and a last line without its end
 * are all fine.  Input that cannot be read twice (a pipe) is copied to a spool file first. */

#ifndef CLIENT_BATCH_FILE_H
#define CLIENT_BATCH_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/err.h"
#include "client/spool.h"
#include "proto/request.h"

enum {
    BATCH_LINES_MAX = 10 * 1000 * 1000, /* a broker takes as many positions */
    BATCH_DIGEST_SIZE = 16,
    BATCH_REPORTED_MAX = 1000, /* bad lines that are reported one by one */
};

enum batch_fault {
    BATCH_GOOD,
    BATCH_WRONG, /* request_read says why */
    BATCH_TOO_LONG,
    BATCH_DUPLICATE, /* its custom_id is an earlier line's */
};

struct batch_line {
    uint64_t offset;
    uint64_t size;                     /* without its end */
    uint32_t number;                   /* from 1 */
    uint32_t twin;                     /* BATCH_DUPLICATE: the number of the first line with this custom_id */
    uint8_t fault;                     /* enum batch_fault */
    uint8_t digest[BATCH_DIGEST_SIZE]; /* of what is asked, not of how it is spelled */
};

struct batch_file {
    int fd;
    char name[256]; /* for messages */
    char spool_dir[4096]; /* empty: where temporary files go */
    uint64_t limit;       /* lines that are read; 0: all */
    struct spool *index;  /* a batch_line for each; see batch_file_line */
    size_t count;
    size_t bad_count;
    uint8_t digest[32]; /* of all lines in order */
};

/* path "-" is standard input.  spool: where a copy goes when the input cannot be read twice (what is kept of the lines
 * lies in its directory); NULL makes an unnamed one.  limit: only so many lines that are not blank count, and no more
 * is read; 0: all.  ERR_NOT_FOUND, ERR_IO. */
bool batch_file_open(struct batch_file *file, const char *path, const char *spool, uint64_t limit, struct err *err);
void batch_file_close(struct batch_file *file); /* a zeroed one is fine */

/* The first pass.  Every bad line is reported to `report` (may be NULL) in file order; after BATCH_REPORTED_MAX of them
 * the fault is NULL.  True also when lines are bad; false when the file cannot be read, or has more lines than
 * BATCH_LINES_MAX, or a stop was asked. */
typedef void batch_report(void *arg, uint64_t number, const struct request_fault *fault);
bool batch_file_check(struct batch_file *file, batch_report *report, void *arg, struct err *err);

/* What was kept of one line; reading them in order is cheap. */
bool batch_file_line(const struct batch_file *file, size_t position, struct batch_line *line, struct err *err);

/* One line again.  *refused tells whether fault (else request) was filled; request->custom_id is set
 * either way, and empty where the line has none.  ERR_CONFLICT when the file has changed since the check. */
bool batch_file_read(const struct batch_file *file, size_t position, struct arena *arena,
                     struct request *request, struct request_fault *fault, bool *refused, struct err *err);

#endif
