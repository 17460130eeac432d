/* store_sqlite_inside - what the files of the SQLite store share.  Nobody else includes this; sqlite3.h is
 * named here alone.
 *
 *     store_sqlite_open.c    the format and its migrations, the SQL, opening a file
 *     store_sqlite.c         reads, writes, room on the disk, transactions
 *     store_sqlite_audit.c   is everything as it was acknowledged? */

#ifndef BROKER_STORE_SQLITE_INSIDE_H
#define BROKER_STORE_SQLITE_INSIDE_H

#include <sqlite3.h>

#include "broker/store_sqlite.h"

enum {
    BUSY_MS = 500,        /* a killed broker's lock is gone at once; this is for a slow exit */
    CACHE_KIB = 4 * 1024, /* more is slower: 53,000 submits/s with 4 MiB, 40,000 with 64 (the system caches
                             the file too) */
    PAGE_BYTES = 4096,
    WAL_PAGES_MAX = 4096,  /* checkpoint beyond 16 MiB ... */
    WAL_PAGES_IDLE = 1024, /* ... and when there is nothing else to do, beyond 4 MiB */
    WAL_PAGES_TIGHT = 512, /* ... and beyond 2 MiB on a disk with less than this free: */
    TIGHT_BYTES = 64 * 1024 * 1024,
    SLACK_BYTES = 1024 * 1024, /* for index pages and the like */
    BALLAST_LEAST = 256 * 1024,
    ENTRY_BITS = 40, /* an entry's key is queue << 40 | number */
    AUDIT_JOBS = 1000,
    AUDIT_ENTRIES = 5000,
    AUDIT_BYTES = 8 * 1024 * 1024,
    SCRUB_LOOKS = 400,  /* turns after which what was purged leaves the WAL too ... */
    SCRUB_IDLE = 20,    /* ... where an idle one counts for so many */
    BLOB_MARGIN = 1024, /* erased rows that stay beside one that is kept, see `blob` */
    BLOB_LOOKED = 4096,
    BLOB_DROPPED = 256,
};

/* clang-format off */
enum statement {
    BEGIN, COMMIT, ROLLBACK,
    HALL_GET, HALL_PUT,
    QUEUES, QUEUE_PUT,
    BATCH_NAMED, BATCH_GET, BATCHES, BATCHES_OF, BATCH_LAST, BATCH_PENDING, BATCH_PUT,
    JOB_LAST, JOB_NAMED, JOB_GET, JOB_AT, JOB_ADD, JOB_MOVE, JOB_RENEW, JOB_PLACE, JOB_PURGE,
    BODY_GET, BLOB_ADD, BLOB_ERASE_ENTRYS, BLOB_ERASE_JOBS, BLOB_LAST, BLOBS, BLOB_DROP,
    READY, LEASED, LIVE, JOBS, DUE, NEXT_DUE, POSITIONS,
    ENTRY_ADD, ENTRY_FLAG, ENTRY_PURGE, ENTRIES_OF_QUEUE, ENTRIES_OF_BATCH, ENTRIES_BY_POSITION,
    REMAINS_OF_QUEUE, REMAINS_OF_BATCH,
    CURSOR_GET, CURSOR_PUT, CURSOR_COUNT, CONSUMERS,
    AUDIT_JOB, AUDIT_ENTRY, AUDIT_KEYS, AUDIT_KEY_LAST,
    STATEMENTS
};
/* clang-format on */

/* A write as data, so that a transaction that found the disk full can be done again. */
struct redo {
    enum statement what;
    const void *row;
    struct span body;
    int64_t a, b, c;
    enum job_state state;
};

struct sqlite_store {
    struct store store;
    sqlite3 *db;
    sqlite3_stmt *statement[STATEMENTS];
    char *path;
    char *ballast_path; /* NULL in memory */
    int64_t ballast_max;
    int64_t ballast_bytes; /* of the one that is there */
    bool ballast_there;
    bool tight;           /* the disk was full; nothing new until the ballast is back */
    bool purge_now;       /* what this transaction erases shall leave the WAL with its commit */
    int traces;           /* turns until what was erased before leaves it; 0: nothing was */
    bool reclaiming;      /* there may be rows to drop */
    int64_t blob_last;    /* the highest id of a body so far */
    int64_t blob_gone;    /* every body up to here is erased ... */
    int64_t blob_dropped; /* ... and those below this have no rows any more */
    bool failed;
    struct err failure;
    int wal_pages;
    size_t bytes_pending; /* of bodies in this transaction */
    struct redo *redo;
    size_t redo_count, redo_max;
    struct arena rows;
};

/* store_sqlite.c */
void inside_fill(struct store *store); /* all but free and audit */
bool inside_checkpoint(struct sqlite_store *self, int how);
bool inside_ballast_make(struct sqlite_store *self);

/* store_sqlite_audit.c */
void inside_audit(struct store *store, const char *batch_name, int64_t after, struct audit_slice *slice);

/* ---- plumbing ------------------------------------------------------------------------------ */

static inline struct sqlite_store *self_of(struct store *store)
{
    return (struct sqlite_store *)store;
}

static inline bool fail(struct sqlite_store *self, const char *doing)
{
    if (!self->failed) {
        self->failed = true;
        err_set(&self->failure, ERR_IO, "store %s: %s: %s", self->path, doing, sqlite3_errmsg(self->db));
    }
    return false;
}

/* The statement, ready to be bound; NULL in a store that has failed. */
static inline sqlite3_stmt *use(struct sqlite_store *self, enum statement which)
{
    if (self->failed)
        return NULL;
    sqlite3_reset(self->statement[which]);
    return self->statement[which];
}

/* The next row; false at the end, where the statement is reset. */
static inline bool next_row(struct sqlite_store *self, sqlite3_stmt *statement)
{
    int rc = sqlite3_step(statement);

    if (rc == SQLITE_ROW)
        return true;
    if (rc != SQLITE_DONE)
        fail(self, "read");
    sqlite3_reset(statement);
    return false;
}

static inline void run(struct sqlite_store *self, sqlite3_stmt *statement)
{
    if (sqlite3_step(statement) != SQLITE_DONE)
        fail(self, "write");
    sqlite3_reset(statement);
}

static inline void bind_text(sqlite3_stmt *statement, int at, const char *text)
{
    sqlite3_bind_text(statement, at, text, -1, SQLITE_STATIC);
}

static inline void bind_span(sqlite3_stmt *statement, int at, struct span bytes)
{
    /* A NULL pointer would bind NULL, and an empty body is a body. */
    if (bytes.size == 0)
        sqlite3_bind_zeroblob(statement, at, 0);
    else
        sqlite3_bind_blob64(statement, at, bytes.data, bytes.size, SQLITE_STATIC);
}

static inline struct span column_span(sqlite3_stmt *statement, int at)
{
    const void *data = sqlite3_column_blob(statement, at);

    return span_of(data, (size_t)sqlite3_column_bytes(statement, at));
}

static inline void column_text(sqlite3_stmt *statement, int at, char *into, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(statement, at);

    text_copy(into, size, text ? text : "");
}

static inline void bind_counts(sqlite3_stmt *statement, int at, const struct counts *counts)
{
    for (int s = JOB_READY; s < JOB_STATES; s++)
        sqlite3_bind_int64(statement, at + s - JOB_READY, counts->in[s]);
}

static inline void column_counts(sqlite3_stmt *statement, int at, struct counts *counts)
{
    counts->in[JOB_NONE] = 0;
    for (int s = JOB_READY; s < JOB_STATES; s++)
        counts->in[s] = sqlite3_column_int64(statement, at + s - JOB_READY);
}

static inline int64_t entry_key(int64_t queue, int64_t number)
{
    return queue << ENTRY_BITS | number;
}

static inline int64_t entry_number(int64_t key)
{
    return key & ((INT64_C(1) << ENTRY_BITS) - 1);
}

static inline int64_t one_number(struct sqlite_store *self, sqlite3_stmt *s, int64_t otherwise)
{
    int64_t number = otherwise;

    if (!s)
        return otherwise;
    if (next_row(self, s)) {
        if (sqlite3_column_type(s, 0) != SQLITE_NULL)
            number = sqlite3_column_int64(s, 0);
        sqlite3_reset(s);
    }
    return number;
}

/* A body that is there, and is what was stored; or none where there never was one. */
static inline bool body_is_intact(sqlite3_stmt *s, int crc_at, int body_at, int blob_at)
{
    if (sqlite3_column_type(s, crc_at) == SQLITE_NULL)
        return sqlite3_column_int64(s, blob_at) == 0;
    return span_crc32c(0, column_span(s, body_at)) == (uint32_t)sqlite3_column_int64(s, crc_at);
}

#endif
