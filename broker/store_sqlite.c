#include "broker/store_sqlite.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"

enum {
    APPLICATION_ID = 0x4d6f6f74, /* "Moot" */
    BUSY_MS = 500,               /* a killed broker's lock is gone at once; this is for a slow exit */
    CACHE_KIB = 4 * 1024, /* more is slower: 53,000 submits/s with 4 MiB, 40,000 with 64 (the system caches the file too) */
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

#define AUDIT_OF_ENTRIES (INT64_C(1) << 62)

/* clang-format off */
#define BATCH_COLUMNS \
    "id, queue, name, total, first_unfinished, placed_ended, positions_end, prompt_tokens, generated_tokens, created_ms," \
    " ready, leased, delayed, done, failed, dead, cancelled, expired, cached_tokens, in_progress_ms, finalizing_ms," \
    " completed_ms, failed_ms, expired_ms, cancelled_ms, cancelling_ms, cancel_pending, cancel_reason, expires_ms, endpoint," \
    " endpoints_differ, seq_first, seq_last"
#define QUEUE_COLUMNS \
    "id, name, entries, ready, leased, delayed, done, failed, dead, cancelled, expired, paused, retention_ms, purged," \
    " retained_to"
#define JOB_COLUMNS \
    "seq, batch, id, custom_id, endpoint, seed, generation, state, band, position, attempt, infra, leases, worker," \
    " incarnation, run_at_ms, created_ms, leased_ms, entry, size, digest, reason, queue, deadline_ms, ready_ttl_ms, wake_ms," \
    " purged_ms, blob"
#define ENTRY_READ \
    "SELECT e.key, e.job, e.batch, e.generation, e.state, e.status_code, e.attempt, e.infra, e.seed, e.created_ms," \
    " e.leased_ms, e.finished_ms, e.prompt_tokens, e.generated_tokens, e.endpoint, e.worker, e.numerics, e.reason," \
    " y.crc, y.body, j.id, j.custom_id, j.position, b.name, e.cached_tokens, e.purged_ms, e.blob "
/* clang-format on */

/* clang-format off */
#define BODY_OF_ENTRY " LEFT JOIN blob y ON y.id = e.blob"
#define REMAINS_READ \
    "SELECT e.key, e.job, e.finished_ms, e.purged_ms, length(y.body), j.size, j.entry = (e.key & 0xffffffffff) AND" \
    " j.purged_ms = 0 FROM entry e JOIN job j ON j.seq = e.job LEFT JOIN blob y ON y.id = e.blob"
/* clang-format on */

/* Step i brings a file from version i to i + 1.  Never change one that was released: add another.
 *
 * About `blob`.  What is deleted from a B-tree is overwritten (secure_delete), but when cells move from one page to another their
 * bytes stay behind, and nobody would ever find them again to erase them.  So no body ever moves: bodies are appended,
 * which moves nothing; erased in place, as zeroes of the same length; and deleted only where everything around has been
 * erased too, so that what the tree then moves is zeroes.  The space of erased bodies comes back when all older ones are erased. */
#define VACUUM "VACUUM"
/* clang-format off */
static const char *const migrations[] = {
    "CREATE TABLE hall(id INTEGER PRIMARY KEY CHECK(id = 1), hall INTEGER NOT NULL, broker_epoch INTEGER NOT NULL,"
    " has_model INTEGER NOT NULL, fingerprint BLOB, family TEXT NOT NULL, map BLOB);"

    "CREATE TABLE queue(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, entries INTEGER NOT NULL, ready INTEGER,"
    " leased INTEGER, delayed INTEGER, done INTEGER, failed INTEGER, dead INTEGER, cancelled INTEGER, expired INTEGER);"

    "CREATE TABLE batch(id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, name TEXT NOT NULL, total INTEGER NOT NULL,"
    " first_unfinished INTEGER NOT NULL, placed_ended INTEGER NOT NULL, positions_end INTEGER NOT NULL,"
    " prompt_tokens INTEGER NOT NULL, generated_tokens INTEGER NOT NULL, created_ms INTEGER NOT NULL, ready INTEGER,"
    " leased INTEGER, delayed INTEGER, done INTEGER, failed INTEGER, dead INTEGER, cancelled INTEGER, expired INTEGER,"
    " UNIQUE(queue, name));"
    "CREATE INDEX batch_age ON batch(queue, id);"

    "CREATE TABLE job(seq INTEGER PRIMARY KEY, batch INTEGER NOT NULL, id TEXT NOT NULL, custom_id TEXT NOT NULL,"
    " endpoint TEXT NOT NULL, seed INTEGER NOT NULL, generation INTEGER NOT NULL, state INTEGER NOT NULL,"
    " band INTEGER NOT NULL, position INTEGER, attempt INTEGER NOT NULL, infra INTEGER NOT NULL, leases INTEGER NOT NULL,"
    " worker TEXT NOT NULL, incarnation INTEGER NOT NULL, run_at_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL,"
    " leased_ms INTEGER NOT NULL, entry INTEGER NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL,"
    " reason TEXT NOT NULL);"
    "CREATE UNIQUE INDEX job_id ON job(id, batch);"
    "CREATE UNIQUE INDEX job_position ON job(batch, position) WHERE position IS NOT NULL;"
    /* Only jobs that have not ended are in these two, so they stay small whatever the history. */
    "CREATE INDEX job_live ON job(state, band, seq) WHERE state <= 3;"
    "CREATE INDEX job_delayed ON job(run_at_ms) WHERE state = 3;"

    /* Apart from the job, so that a change of state does not rewrite the request. */
    "CREATE TABLE body(seq INTEGER PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL);"

    "CREATE TABLE entry(key INTEGER PRIMARY KEY, job INTEGER NOT NULL, batch INTEGER NOT NULL,"
    " generation INTEGER NOT NULL, state INTEGER NOT NULL, status_code INTEGER NOT NULL, attempt INTEGER NOT NULL,"
    " infra INTEGER NOT NULL, seed INTEGER NOT NULL, created_ms INTEGER NOT NULL, leased_ms INTEGER NOT NULL,"
    " finished_ms INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, generated_tokens INTEGER NOT NULL,"
    " endpoint TEXT NOT NULL, worker TEXT NOT NULL, numerics TEXT NOT NULL, reason TEXT NOT NULL,"
    " crc INTEGER NOT NULL, body BLOB NOT NULL);"
    /* The database itself refuses a second entry of one generation. */
    "CREATE UNIQUE INDEX entry_job ON entry(job, generation);"
    "CREATE INDEX entry_batch ON entry(batch, key);"

    "CREATE TABLE cursor(queue TEXT NOT NULL, batch TEXT NOT NULL, consumer TEXT NOT NULL, position INTEGER NOT NULL,"
    " note BLOB NOT NULL, PRIMARY KEY(queue, batch, consumer)) WITHOUT ROWID;",

    /* 2: a job's whole life: cancel, pause, deadlines, purge; the batch as an object with its times. */
    "ALTER TABLE queue ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE queue ADD COLUMN retention_ms INTEGER NOT NULL DEFAULT -1;"
    "ALTER TABLE queue ADD COLUMN purged INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE queue ADD COLUMN retained_to INTEGER NOT NULL DEFAULT 0;"

    "ALTER TABLE batch ADD COLUMN cached_tokens INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN in_progress_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN finalizing_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN completed_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN failed_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN expired_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN cancelled_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN cancelling_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN cancel_pending INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN cancel_reason TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE batch ADD COLUMN expires_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN endpoint TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE batch ADD COLUMN endpoints_differ INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN seq_first INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE batch ADD COLUMN seq_last INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX batch_pending ON batch(id) WHERE cancel_pending = 1;"

    "ALTER TABLE job ADD COLUMN queue INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN deadline_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN ready_ttl_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN wake_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN purged_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN blob INTEGER NOT NULL DEFAULT 0;"
    "DROP INDEX job_live;"
    "DROP INDEX job_delayed;"
    "UPDATE job SET queue = (SELECT b.queue FROM batch b WHERE b.id = job.batch),"
    " wake_ms = CASE WHEN state = 3 THEN run_at_ms ELSE 0 END, blob = seq;"
    /* By queue, so that one that is paused costs nothing. */
    "CREATE INDEX job_live ON job(state, queue, band, seq) WHERE state <= 3;"
    "CREATE INDEX job_wake ON job(wake_ms) WHERE wake_ms > 0;"
    "CREATE INDEX job_backoff ON job(run_at_ms) WHERE state = 3 AND attempt > 0;"

    "ALTER TABLE entry ADD COLUMN cached_tokens INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE entry ADD COLUMN purged_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE entry ADD COLUMN blob INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE cursor ADD COLUMN moved_ms INTEGER NOT NULL DEFAULT 0;"

    "CREATE TABLE blob(id INTEGER PRIMARY KEY, gone INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);"
    "INSERT INTO blob(id, gone, crc, body) SELECT seq, 0, crc, body FROM body ORDER BY seq;"
    "INSERT INTO blob(gone, crc, body) SELECT 0, crc, body FROM entry ORDER BY key;"
    "UPDATE entry SET blob = s.n FROM (SELECT key AS k, row_number() OVER (ORDER BY key) +"
    " (SELECT ifnull(max(seq), 0) FROM body) AS n FROM entry) AS s WHERE s.k = entry.key;"
    "DROP TABLE body;"
    "ALTER TABLE entry DROP COLUMN crc;"
    "ALTER TABLE entry DROP COLUMN body;"

    "UPDATE batch SET seq_first = s.a, seq_last = s.b, endpoint = CASE WHEN s.c = s.d THEN s.c ELSE '' END,"
    " endpoints_differ = s.c <> s.d, in_progress_ms = s.e FROM"
    " (SELECT batch, min(seq) AS a, max(seq) AS b, min(endpoint) AS c, max(endpoint) AS d,"
    " ifnull(min(nullif(leased_ms, 0)), 0) AS e FROM job GROUP BY batch) AS s WHERE s.batch = batch.id;"
    "UPDATE batch SET finalizing_ms = s.f, completed_ms = s.f FROM"
    " (SELECT batch, max(finished_ms) AS f FROM entry GROUP BY batch) AS s"
    " WHERE s.batch = batch.id AND ready + leased + delayed = 0 AND done + failed + dead + cancelled + expired >= total;",

    /* 3: what the older format left behind between its rows. */
    VACUUM,
};
/* clang-format on */
enum { FORMAT_VERSION = sizeof migrations / sizeof *migrations };

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

/* clang-format off */
static const char *const sql[STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [HALL_GET] = "SELECT hall, broker_epoch, has_model, fingerprint, family, map FROM hall",
    [HALL_PUT] = "INSERT OR REPLACE INTO hall(id, hall, broker_epoch, has_model, fingerprint, family, map)"
                 " VALUES(1, ?1, ?2, ?3, ?4, ?5, ?6)",
    [QUEUES] = "SELECT " QUEUE_COLUMNS " FROM queue ORDER BY id LIMIT ?1",
    [QUEUE_PUT] = "INSERT INTO queue(" QUEUE_COLUMNS ")"
                  " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT(id) DO UPDATE SET"
                  " entries = ?3, ready = ?4, leased = ?5, delayed = ?6, done = ?7, failed = ?8, dead = ?9, cancelled = ?10,"
                  " expired = ?11, paused = ?12, retention_ms = ?13, purged = ?14, retained_to = ?15",
    [BATCH_NAMED] = "SELECT " BATCH_COLUMNS " FROM batch WHERE queue = ?1 AND name = ?2",
    [BATCH_GET] = "SELECT " BATCH_COLUMNS " FROM batch WHERE id = ?1",
    [BATCHES] = "SELECT " BATCH_COLUMNS " FROM batch ORDER BY id DESC LIMIT ?1",
    [BATCHES_OF] = "SELECT " BATCH_COLUMNS " FROM batch WHERE queue = ?2 ORDER BY id DESC LIMIT ?1",
    [BATCH_LAST] = "SELECT max(id) FROM batch",
    [BATCH_PENDING] = "SELECT id FROM batch WHERE cancel_pending = 1 AND id > ?1 ORDER BY id LIMIT 1",
    [BATCH_PUT] = "INSERT INTO batch(" BATCH_COLUMNS ")"
                  " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,"
                  " ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33)"
                  " ON CONFLICT(id) DO UPDATE SET total = ?4, first_unfinished = ?5, placed_ended = ?6, positions_end = ?7,"
                  " prompt_tokens = ?8, generated_tokens = ?9, ready = ?11, leased = ?12, delayed = ?13, done = ?14,"
                  " failed = ?15, dead = ?16, cancelled = ?17, expired = ?18, cached_tokens = ?19, in_progress_ms = ?20,"
                  " finalizing_ms = ?21, completed_ms = ?22, failed_ms = ?23, expired_ms = ?24, cancelled_ms = ?25,"
                  " cancelling_ms = ?26, cancel_pending = ?27, cancel_reason = ?28, expires_ms = ?29, endpoint = ?30,"
                  " endpoints_differ = ?31, seq_first = ?32, seq_last = ?33",
    [JOB_LAST] = "SELECT max(seq) FROM job",
    [JOB_NAMED] = "SELECT " JOB_COLUMNS " FROM job WHERE id = ?1 AND batch = ?2",
    [JOB_GET] = "SELECT " JOB_COLUMNS " FROM job WHERE seq = ?1",
    [JOB_AT] = "SELECT seq FROM job WHERE batch = ?1 AND position = ?2 AND position IS NOT NULL",
    [JOB_ADD] = "INSERT INTO job(" JOB_COLUMNS ")"
                " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,"
                " ?23, ?24, ?25, ?26, ?27, ?28)",
    [JOB_MOVE] = "UPDATE job SET state = ?8, attempt = ?11, infra = ?12, leases = ?13, worker = ?14, incarnation = ?15,"
                 " run_at_ms = ?16, leased_ms = ?18, entry = ?19, reason = ?22, wake_ms = ?26 WHERE seq = ?1",
    [JOB_RENEW] = "UPDATE job SET custom_id = ?4, endpoint = ?5, seed = ?6, generation = ?7, state = ?8, band = ?9,"
                  " attempt = ?11, infra = ?12, leases = ?13, worker = ?14, incarnation = ?15, run_at_ms = ?16,"
                  " created_ms = ?17, leased_ms = ?18, entry = ?19, size = ?20, digest = ?21, reason = ?22, deadline_ms = ?24,"
                  " ready_ttl_ms = ?25, wake_ms = ?26, purged_ms = ?27, blob = CASE WHEN ?28 > 0 THEN ?28 ELSE blob END"
                  " WHERE seq = ?1",
    [JOB_PLACE] = "UPDATE job SET position = ?2 WHERE seq = ?1",
    [JOB_PURGE] = "UPDATE job SET purged_ms = ?2, reason = '', blob = 0 WHERE seq = ?1",
    [BODY_GET] = "SELECT y.crc, y.body FROM job j JOIN blob y ON y.id = j.blob WHERE j.seq = ?1",
    [BLOB_ADD] = "INSERT INTO blob(id, gone, crc, body) VALUES(?1, 0, ?2, ?3)",
    /* 0 and 1 take no bytes in a row: it keeps its length, and SQLite writes it where it is. */
    [BLOB_ERASE_ENTRYS] = "UPDATE blob SET gone = 1, body = zeroblob(length(body)) WHERE id = (SELECT blob FROM entry WHERE key = ?1)",
    [BLOB_ERASE_JOBS] = "UPDATE blob SET gone = 1, body = zeroblob(length(body)) WHERE id = (SELECT blob FROM job WHERE seq = ?1)",
    [BLOB_LAST] = "SELECT max(id) FROM blob",
    [BLOBS] = "SELECT id, gone FROM blob WHERE id > ?1 ORDER BY id LIMIT ?2",
    [BLOB_DROP] = "DELETE FROM blob WHERE id IN (SELECT id FROM blob WHERE id < ?1 ORDER BY id LIMIT ?2)",
    /* `state <= 3` is what lets SQLite use the partial index. */
    [READY] = "SELECT seq, size, infra, batch FROM job WHERE state = 1 AND state <= 3 AND queue = ?1 AND band = ?2 AND seq > ?3"
              " ORDER BY seq LIMIT ?4",
    [LEASED] = "SELECT " JOB_COLUMNS " FROM job WHERE state = 2 AND state <= 3 AND (queue, band, seq) > (?1, ?2, ?3)"
               " ORDER BY queue, band, seq LIMIT ?4",
    [LIVE] = "SELECT seq, batch FROM job WHERE state = ?1 AND state <= 3 AND queue = ?2 AND band = ?3 AND seq > ?4"
             " ORDER BY seq LIMIT ?5",
    [JOBS] = "SELECT " JOB_COLUMNS " FROM job WHERE seq > ?1 AND seq <= ?2 AND +batch = ?3 ORDER BY seq LIMIT ?4",
    [DUE] = "SELECT seq FROM job WHERE wake_ms > 0 AND wake_ms <= ?1 UNION ALL"
            " SELECT seq FROM job WHERE state = 3 AND attempt > 0 AND run_at_ms > ?2 AND wake_ms > ?1 LIMIT ?3",
    [NEXT_DUE] = "SELECT min(wake_ms) FROM job WHERE wake_ms > 0",
    [POSITIONS] = "SELECT position, entry FROM job WHERE batch = ?1 AND position >= ?2 AND position IS NOT NULL"
                  " ORDER BY position LIMIT ?3",
    [ENTRY_ADD] = "INSERT INTO entry(key, job, batch, generation, state, status_code, attempt, infra, seed, created_ms,"
                  " leased_ms, finished_ms, prompt_tokens, generated_tokens, endpoint, worker, numerics, reason, blob,"
                  " cached_tokens)"
                  " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
    [ENTRY_FLAG] = "UPDATE entry SET state = ?2, reason = ?3 WHERE key = ?1",
    [ENTRY_PURGE] = "UPDATE entry SET purged_ms = ?2, reason = '', blob = 0 WHERE key = ?1",
    [ENTRIES_OF_QUEUE] = ENTRY_READ "FROM entry e JOIN job j ON j.seq = e.job JOIN batch b ON b.id = e.batch" BODY_OF_ENTRY
                                    " WHERE e.key >= ?1 AND e.key < ?2 ORDER BY e.key LIMIT ?3",
    [ENTRIES_OF_BATCH] = ENTRY_READ "FROM entry e JOIN job j ON j.seq = e.job JOIN batch b ON b.id = e.batch" BODY_OF_ENTRY
                                    " WHERE e.batch = ?4 AND e.key >= ?1 AND e.key < ?2 ORDER BY e.key LIMIT ?3",
    /* A job without an ended generation joins nothing, which shows as a gap in the positions. */
    [ENTRIES_BY_POSITION] = ENTRY_READ "FROM job j CROSS JOIN entry e ON e.key = (?2 | j.entry) CROSS JOIN batch b ON b.id = e.batch" BODY_OF_ENTRY
                                       " WHERE j.batch = ?4 AND j.position >= ?1 AND j.position < ?5"
                                       " AND j.position IS NOT NULL ORDER BY j.position LIMIT ?3",
    [REMAINS_OF_QUEUE] = REMAINS_READ " WHERE e.key > ?1 AND e.key < ?2 ORDER BY e.key LIMIT ?3",
    [REMAINS_OF_BATCH] = REMAINS_READ " WHERE e.batch = ?4 AND e.key > ?1 AND e.key < ?2 ORDER BY e.key LIMIT ?3",
    [CURSOR_GET] = "SELECT position, note FROM cursor WHERE queue = ?1 AND batch = ?2 AND consumer = ?3",
    [CURSOR_PUT] = "INSERT OR REPLACE INTO cursor(queue, batch, consumer, position, note, moved_ms)"
                   " VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    [CONSUMERS] = "SELECT batch, consumer, position, moved_ms FROM cursor WHERE queue = ?1 ORDER BY moved_ms DESC LIMIT ?2",
    [CURSOR_COUNT] = "SELECT count(*) FROM (SELECT 1 FROM cursor LIMIT ?1)",
    [AUDIT_JOB] = "SELECT j.seq, j.id, j.generation, j.state, j.entry, y.crc, y.body, j.purged_ms FROM job j JOIN batch b ON b.id = j.batch"
                  " LEFT JOIN blob y ON y.id = j.blob WHERE j.seq > ?1 AND j.seq <= ?2 AND (?3 = '' OR b.name = ?3)"
                  " ORDER BY j.seq",
    [AUDIT_ENTRY] = "SELECT e.key, e.generation, y.crc, y.body, e.blob FROM entry e" BODY_OF_ENTRY
                    " WHERE e.job = ?1 ORDER BY e.generation",
    [AUDIT_KEYS] = "SELECT key FROM entry WHERE key > ?1 ORDER BY key LIMIT ?2",
    [AUDIT_KEY_LAST] = "SELECT q.id, q.entries, (SELECT max(key) FROM entry WHERE key > q.id << 40 AND key < (q.id + 1) << 40),"
                       " q.name FROM queue q",
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
    bool tight; /* the disk was full; nothing new until the ballast is back */
    bool purge_now;    /* what this transaction erases shall leave the WAL with its commit */
    int traces;        /* turns until what was erased before leaves it; 0: nothing was */
    bool reclaiming;   /* there may be rows to drop */
    int64_t blob_last; /* the highest id of a body so far */
    int64_t blob_gone; /* every body up to here is erased ... */
    int64_t blob_dropped; /* ... and those below this have no rows any more */
    bool failed;
    struct err failure;
    int wal_pages;
    size_t bytes_pending; /* of bodies in this transaction */
    struct redo *redo;
    size_t redo_count, redo_max;
    struct arena rows;
};

/* ---- plumbing ------------------------------------------------------------------------------ */

static struct sqlite_store *self_of(struct store *store)
{
    return (struct sqlite_store *)store;
}

static bool fail(struct sqlite_store *self, const char *doing)
{
    if (!self->failed) {
        self->failed = true;
        err_set(&self->failure, ERR_IO, "store %s: %s: %s", self->path, doing, sqlite3_errmsg(self->db));
    }
    return false;
}

/* The statement, ready to be bound; NULL in a store that has failed. */
static sqlite3_stmt *use(struct sqlite_store *self, enum statement which)
{
    if (self->failed)
        return NULL;
    sqlite3_reset(self->statement[which]);
    return self->statement[which];
}

/* The next row; false at the end, where the statement is reset. */
static bool next_row(struct sqlite_store *self, sqlite3_stmt *statement)
{
    int rc = sqlite3_step(statement);

    if (rc == SQLITE_ROW)
        return true;
    if (rc != SQLITE_DONE)
        fail(self, "read");
    sqlite3_reset(statement);
    return false;
}

static void run(struct sqlite_store *self, sqlite3_stmt *statement)
{
    if (sqlite3_step(statement) != SQLITE_DONE)
        fail(self, "write");
    sqlite3_reset(statement);
}

static void bind_text(sqlite3_stmt *statement, int at, const char *text)
{
    sqlite3_bind_text(statement, at, text, -1, SQLITE_STATIC);
}

static void bind_span(sqlite3_stmt *statement, int at, struct span bytes)
{
    /* A NULL pointer would bind NULL, and an empty body is a body. */
    if (bytes.size == 0)
        sqlite3_bind_zeroblob(statement, at, 0);
    else
        sqlite3_bind_blob64(statement, at, bytes.data, bytes.size, SQLITE_STATIC);
}

static struct span column_span(sqlite3_stmt *statement, int at)
{
    const void *data = sqlite3_column_blob(statement, at);

    return span_of(data, (size_t)sqlite3_column_bytes(statement, at));
}

static void column_text(sqlite3_stmt *statement, int at, char *into, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(statement, at);

    text_copy(into, size, text ? text : "");
}

static void bind_counts(sqlite3_stmt *statement, int at, const struct counts *counts)
{
    for (int s = JOB_READY; s < JOB_STATES; s++)
        sqlite3_bind_int64(statement, at + s - JOB_READY, counts->in[s]);
}

static void column_counts(sqlite3_stmt *statement, int at, struct counts *counts)
{
    counts->in[JOB_NONE] = 0;
    for (int s = JOB_READY; s < JOB_STATES; s++)
        counts->in[s] = sqlite3_column_int64(statement, at + s - JOB_READY);
}

static int64_t entry_key(int64_t queue, int64_t number)
{
    return queue << ENTRY_BITS | number;
}

static int64_t entry_number(int64_t key)
{
    return key & ((INT64_C(1) << ENTRY_BITS) - 1);
}

/* ---- writes: bound from data, so that they can be done again ---------------------------------- */

static void write_hall(struct sqlite_store *self, const struct hall_row *hall)
{
    sqlite3_stmt *s = use(self, HALL_PUT);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, (int64_t)hall->hall);
    sqlite3_bind_int64(s, 2, hall->broker_epoch);
    sqlite3_bind_int(s, 3, hall->has_model);
    bind_span(s, 4, span_of(hall->fingerprint, FINGERPRINT_SIZE));
    bind_text(s, 5, hall->family);
    bind_span(s, 6, span_of(hall->map, hall->map_size));
    run(self, s);
}

static void write_queue(struct sqlite_store *self, const struct queue_row *row)
{
    sqlite3_stmt *s = use(self, QUEUE_PUT);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, row->id);
    bind_text(s, 2, row->name);
    sqlite3_bind_int64(s, 3, row->entries);
    bind_counts(s, 4, &row->counts);
    sqlite3_bind_int(s, 12, row->paused);
    sqlite3_bind_int64(s, 13, row->retention_ms);
    sqlite3_bind_int64(s, 14, row->purged);
    sqlite3_bind_int64(s, 15, row->retained_to);
    run(self, s);
}

static void write_batch(struct sqlite_store *self, const struct batch_row *row)
{
    sqlite3_stmt *s = use(self, BATCH_PUT);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, row->id);
    sqlite3_bind_int64(s, 2, row->queue);
    bind_text(s, 3, row->name);
    sqlite3_bind_int64(s, 4, row->total);
    sqlite3_bind_int64(s, 5, row->first_unfinished);
    sqlite3_bind_int64(s, 6, row->placed_ended);
    sqlite3_bind_int64(s, 7, row->positions_end);
    sqlite3_bind_int64(s, 8, row->prompt_tokens);
    sqlite3_bind_int64(s, 9, row->generated_tokens);
    sqlite3_bind_int64(s, 10, row->created_ms);
    bind_counts(s, 11, &row->counts);
    sqlite3_bind_int64(s, 19, row->cached_tokens);
    sqlite3_bind_int64(s, 20, row->in_progress_ms);
    sqlite3_bind_int64(s, 21, row->finalizing_ms);
    sqlite3_bind_int64(s, 22, row->completed_ms);
    sqlite3_bind_int64(s, 23, row->failed_ms);
    sqlite3_bind_int64(s, 24, row->expired_ms);
    sqlite3_bind_int64(s, 25, row->cancelled_ms);
    sqlite3_bind_int64(s, 26, row->cancelling_ms);
    sqlite3_bind_int(s, 27, row->cancel_pending);
    bind_text(s, 28, row->cancel_reason);
    sqlite3_bind_int64(s, 29, row->expires_ms);
    bind_text(s, 30, row->endpoint);
    sqlite3_bind_int(s, 31, row->endpoints_differ);
    sqlite3_bind_int64(s, 32, row->seq_first);
    sqlite3_bind_int64(s, 33, row->seq_last);
    run(self, s);
}

static void write_job(struct sqlite_store *self, enum statement which, const struct job *job, int64_t blob)
{
    sqlite3_stmt *s = use(self, which);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, job->seq);
    if (which != JOB_MOVE) { /* the others name parameters that JOB_MOVE does not have */
        sqlite3_bind_int64(s, 2, job->batch);
        bind_text(s, 3, job->id);
        bind_text(s, 4, job->custom_id);
        bind_text(s, 5, job->endpoint);
        sqlite3_bind_int64(s, 6, (int64_t)job->seed);
        sqlite3_bind_int64(s, 7, job->generation);
        sqlite3_bind_int(s, 9, job->band);
        if (job->position >= 0)
            sqlite3_bind_int64(s, 10, job->position);
        else
            sqlite3_bind_null(s, 10);
        sqlite3_bind_int64(s, 17, job->created_ms);
        sqlite3_bind_int64(s, 20, job->size);
        bind_span(s, 21, span_of(job->digest, JOB_DIGEST_SIZE));
        sqlite3_bind_int64(s, 23, job->queue);
        sqlite3_bind_int64(s, 24, job->deadline_ms);
        sqlite3_bind_int64(s, 25, job->ready_ttl_ms);
        sqlite3_bind_int64(s, 27, job->purged_ms);
        sqlite3_bind_int64(s, 28, blob);
    }
    sqlite3_bind_int(s, 8, job->state);
    sqlite3_bind_int64(s, 11, job->attempt);
    sqlite3_bind_int64(s, 12, job->infra);
    sqlite3_bind_int64(s, 13, job->leases);
    bind_text(s, 14, job->worker);
    sqlite3_bind_int64(s, 15, (int64_t)job->incarnation);
    sqlite3_bind_int64(s, 16, job->run_at_ms);
    sqlite3_bind_int64(s, 18, job->leased_ms);
    sqlite3_bind_int64(s, 19, job->entry);
    bind_text(s, 22, job->reason);
    sqlite3_bind_int64(s, 26, job->wake_ms);
    run(self, s);
}

static void erase(struct sqlite_store *self, enum statement which, int64_t of)
{
    sqlite3_stmt *s = use(self, which);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, of);
    run(self, s);
}

static void write_body(struct sqlite_store *self, int64_t id, struct span body)
{
    sqlite3_stmt *s = use(self, BLOB_ADD);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, id);
    sqlite3_bind_int64(s, 2, span_crc32c(0, body));
    bind_span(s, 3, body);
    run(self, s);
}

static void write_place(struct sqlite_store *self, int64_t seq, int64_t position)
{
    sqlite3_stmt *s = use(self, JOB_PLACE);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, seq);
    if (position >= 0)
        sqlite3_bind_int64(s, 2, position);
    else
        sqlite3_bind_null(s, 2);
    run(self, s);
}

static void write_entry(struct sqlite_store *self, const struct entry *entry, int64_t blob)
{
    sqlite3_stmt *s = use(self, ENTRY_ADD);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, entry_key(entry->queue, entry->number));
    sqlite3_bind_int64(s, 2, entry->job);
    sqlite3_bind_int64(s, 3, entry->batch);
    sqlite3_bind_int64(s, 4, entry->generation);
    sqlite3_bind_int(s, 5, entry->state);
    sqlite3_bind_int64(s, 6, entry->status_code);
    sqlite3_bind_int64(s, 7, entry->attempt);
    sqlite3_bind_int64(s, 8, entry->infra);
    sqlite3_bind_int64(s, 9, (int64_t)entry->seed);
    sqlite3_bind_int64(s, 10, entry->created_ms);
    sqlite3_bind_int64(s, 11, entry->leased_ms);
    sqlite3_bind_int64(s, 12, entry->finished_ms);
    sqlite3_bind_int64(s, 13, entry->prompt_tokens);
    sqlite3_bind_int64(s, 14, entry->generated_tokens);
    bind_text(s, 15, entry->endpoint);
    bind_text(s, 16, entry->worker);
    bind_text(s, 17, entry->numerics);
    bind_text(s, 18, entry->reason);
    sqlite3_bind_int64(s, 19, blob);
    sqlite3_bind_int64(s, 20, entry->cached_tokens);
    run(self, s);
}

static void write_purge(struct sqlite_store *self, int64_t key, int64_t job, int64_t now_ms)
{
    sqlite3_stmt *s;

    erase(self, BLOB_ERASE_ENTRYS, key);
    s = use(self, ENTRY_PURGE);
    if (!s)
        return;
    sqlite3_bind_int64(s, 1, key);
    sqlite3_bind_int64(s, 2, now_ms);
    run(self, s);
    if (!job)
        return;
    erase(self, BLOB_ERASE_JOBS, job);
    s = use(self, JOB_PURGE);
    if (!s)
        return;
    sqlite3_bind_int64(s, 1, job);
    sqlite3_bind_int64(s, 2, now_ms);
    run(self, s);
}

static void write_flag(struct sqlite_store *self, int64_t key, enum job_state state, const char *reason)
{
    sqlite3_stmt *s = use(self, ENTRY_FLAG);

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, key);
    sqlite3_bind_int(s, 2, state);
    bind_text(s, 3, reason);
    run(self, s);
}

static void write_cursor(struct sqlite_store *self, const struct cursor_row *cursor)
{
    sqlite3_stmt *s = use(self, CURSOR_PUT);

    if (!s)
        return;
    bind_text(s, 1, cursor->queue);
    bind_text(s, 2, cursor->batch);
    bind_text(s, 3, cursor->consumer);
    sqlite3_bind_int64(s, 4, (int64_t)cursor->position);
    bind_span(s, 5, span_of(cursor->note, cursor->note_size));
    sqlite3_bind_int64(s, 6, cursor->moved_ms);
    run(self, s);
}

static void write_once(struct sqlite_store *self, const struct redo *w)
{
    switch (w->what) {
    case HALL_PUT:
        write_hall(self, w->row);
        break;
    case QUEUE_PUT:
        write_queue(self, w->row);
        break;
    case BATCH_PUT:
        write_batch(self, w->row);
        break;
    case JOB_ADD:
    case JOB_RENEW:
        if (w->a && w->what == JOB_RENEW)
            erase(self, BLOB_ERASE_JOBS, ((const struct job *)w->row)->seq);
        if (w->a)
            write_body(self, w->a, w->body);
        write_job(self, w->what, w->row, w->a);
        break;
    case JOB_MOVE:
        write_job(self, w->what, w->row, 0);
        break;
    case JOB_PLACE:
        write_place(self, w->a, w->b);
        break;
    case ENTRY_ADD:
        if (w->a)
            write_body(self, w->a, w->body);
        write_entry(self, w->row, w->a);
        break;
    case ENTRY_FLAG:
        write_flag(self, w->a, w->state, w->row);
        break;
    case ENTRY_PURGE:
        write_purge(self, w->a, w->b, w->c);
        break;
    case CURSOR_PUT:
        write_cursor(self, w->row);
        break;
    default:
        assert(!"not a write");
    }
}

/* Does a write and remembers it until the commit. */
static void write_kept(struct sqlite_store *self, struct redo w, size_t row_size)
{
    void *copy;

    if (self->failed)
        return;
    if (self->redo_count == self->redo_max) {
        size_t more = self->redo_max ? self->redo_max * 2 : 1024;
        struct redo *grown = realloc(self->redo, more * sizeof *grown);

        if (!grown) {
            self->failed = true;
            err_set(&self->failure, ERR_IO, "store %s: no memory for a transaction of %zu writes", self->path,
                    more);
            return;
        }
        self->redo = grown;
        self->redo_max = more;
    }
    if (row_size) {
        copy = arena_take(&self->rows, row_size);
        if (!copy) {
            self->failed = true;
            err_set(&self->failure, ERR_IO, "store %s: no memory for a transaction", self->path);
            return;
        }
        memcpy(copy, w.row, row_size);
        w.row = copy;
    }
    self->bytes_pending += w.body.size;
    self->redo[self->redo_count++] = w;
    write_once(self, &w);
}

static void hall_put(struct store *store, const struct hall_row *hall)
{
    write_kept(self_of(store), (struct redo){ .what = HALL_PUT, .row = hall }, sizeof *hall);
}

static void queue_put(struct store *store, const struct queue_row *row)
{
    write_kept(self_of(store), (struct redo){ .what = QUEUE_PUT, .row = row }, sizeof *row);
}

static void batch_put(struct store *store, const struct batch_row *row)
{
    write_kept(self_of(store), (struct redo){ .what = BATCH_PUT, .row = row }, sizeof *row);
}

static void job_add(struct store *store, const struct job *job, struct span body)
{
    write_kept(self_of(store),
               (struct redo){ .what = JOB_ADD, .row = job, .body = body, .a = ++self_of(store)->blob_last }, sizeof *job);
}

static void job_move(struct store *store, const struct job *job)
{
    write_kept(self_of(store), (struct redo){ .what = JOB_MOVE, .row = job }, sizeof *job);
}

static void job_renew(struct store *store, const struct job *job, const struct span *body)
{
    struct redo w = { .what = JOB_RENEW, .row = job };

    if (body) {
        w.body = *body;
        w.a = ++self_of(store)->blob_last;
        self_of(store)->reclaiming = true; /* the one before is erased */
    }
    write_kept(self_of(store), w, sizeof *job);
}

static void job_place(struct store *store, int64_t seq, int64_t position)
{
    write_kept(self_of(store), (struct redo){ .what = JOB_PLACE, .a = seq, .b = position }, 0);
}

static void entry_add(struct store *store, const struct entry *entry, struct span body)
{
    struct redo w = { .what = ENTRY_ADD, .row = entry, .body = body };

    if (body.size) /* an end without a body needs no row for it */
        w.a = ++self_of(store)->blob_last;
    write_kept(self_of(store), w, sizeof *entry);
}

static void entry_flag(struct store *store, int64_t queue, int64_t number, enum job_state state,
                       const char *reason)
{
    write_kept(
        self_of(store),
        (struct redo){ .what = ENTRY_FLAG, .row = reason, .a = entry_key(queue, number), .state = state },
        strlen(reason) + 1);
}

static void entry_purge(struct store *store, int64_t queue, int64_t number, int64_t job, int64_t now_ms)
{
    struct sqlite_store *self = self_of(store);

    if (self->traces == 0)
        self->traces = SCRUB_LOOKS;
    self->reclaiming = true;
    write_kept(self_of(store),
               (struct redo){ .what = ENTRY_PURGE, .a = entry_key(queue, number), .b = job, .c = now_ms }, 0);
}

static void purge_now(struct store *store)
{
    self_of(store)->purge_now = true;
}

static bool cursor_get(struct store *store, struct cursor_row *cursor)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, CURSOR_GET);
    struct span note;

    if (!s)
        return false;
    bind_text(s, 1, cursor->queue);
    bind_text(s, 2, cursor->batch);
    bind_text(s, 3, cursor->consumer);
    if (!next_row(self, s))
        return false;
    cursor->position = (uint64_t)sqlite3_column_int64(s, 0);
    note = column_span(s, 1);
    cursor->note_size = note.size < CURSOR_NOTE_MAX ? note.size : CURSOR_NOTE_MAX;
    if (cursor->note_size)
        memcpy(cursor->note, note.data, cursor->note_size);
    sqlite3_reset(s);
    return true;
}

static bool cursor_put(struct store *store, const struct cursor_row *cursor)
{
    struct sqlite_store *self = self_of(store);
    struct cursor_row known = *cursor;

    if (!cursor_get(store, &known)) {
        sqlite3_stmt *s = use(self, CURSOR_COUNT);
        int64_t count = 0;

        if (!s)
            return false;
        sqlite3_bind_int(s, 1, CURSORS_MAX);
        if (next_row(self, s))
            count = sqlite3_column_int64(s, 0);
        sqlite3_reset(s);
        if (count >= CURSORS_MAX)
            return false;
    }
    write_kept(self, (struct redo){ .what = CURSOR_PUT, .row = cursor }, sizeof *cursor);
    return true;
}

/* ---- reads ----------------------------------------------------------------------------------- */

static void hall_get(struct store *store, struct hall_row *hall)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, HALL_GET);
    struct span bytes;

    memset(hall, 0, sizeof *hall);
    if (!s || !next_row(self, s))
        return;
    hall->hall = (uint64_t)sqlite3_column_int64(s, 0);
    hall->broker_epoch = (uint32_t)sqlite3_column_int64(s, 1);
    hall->has_model = sqlite3_column_int(s, 2);
    bytes = column_span(s, 3);
    if (bytes.size == FINGERPRINT_SIZE)
        memcpy(hall->fingerprint, bytes.data, FINGERPRINT_SIZE);
    column_text(s, 4, hall->family, sizeof hall->family);
    bytes = column_span(s, 5);
    if (bytes.size && bytes.size <= MAP_BYTES_MAX) {
        memcpy(hall->map, bytes.data, bytes.size);
        hall->map_size = bytes.size;
    }
    sqlite3_reset(s);
}

static int queues(struct store *store, struct queue_row *rows, int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, QUEUES);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int(s, 1, rows_max);
    while (next_row(self, s)) {
        rows[n].id = sqlite3_column_int64(s, 0);
        column_text(s, 1, rows[n].name, sizeof rows[n].name);
        rows[n].entries = sqlite3_column_int64(s, 2);
        column_counts(s, 3, &rows[n].counts);
        rows[n].paused = sqlite3_column_int(s, 11);
        rows[n].retention_ms = sqlite3_column_int64(s, 12);
        rows[n].purged = sqlite3_column_int64(s, 13);
        rows[n].retained_to = sqlite3_column_int64(s, 14);
        n++;
    }
    return n;
}

static void column_batch(sqlite3_stmt *s, struct batch_row *row)
{
    row->id = sqlite3_column_int64(s, 0);
    row->queue = sqlite3_column_int64(s, 1);
    column_text(s, 2, row->name, sizeof row->name);
    row->total = sqlite3_column_int64(s, 3);
    row->first_unfinished = sqlite3_column_int64(s, 4);
    row->placed_ended = sqlite3_column_int64(s, 5);
    row->positions_end = sqlite3_column_int64(s, 6);
    row->prompt_tokens = sqlite3_column_int64(s, 7);
    row->generated_tokens = sqlite3_column_int64(s, 8);
    row->created_ms = sqlite3_column_int64(s, 9);
    column_counts(s, 10, &row->counts);
    row->cached_tokens = sqlite3_column_int64(s, 18);
    row->in_progress_ms = sqlite3_column_int64(s, 19);
    row->finalizing_ms = sqlite3_column_int64(s, 20);
    row->completed_ms = sqlite3_column_int64(s, 21);
    row->failed_ms = sqlite3_column_int64(s, 22);
    row->expired_ms = sqlite3_column_int64(s, 23);
    row->cancelled_ms = sqlite3_column_int64(s, 24);
    row->cancelling_ms = sqlite3_column_int64(s, 25);
    row->cancel_pending = sqlite3_column_int(s, 26);
    column_text(s, 27, row->cancel_reason, sizeof row->cancel_reason);
    row->expires_ms = sqlite3_column_int64(s, 28);
    column_text(s, 29, row->endpoint, sizeof row->endpoint);
    row->endpoints_differ = sqlite3_column_int(s, 30);
    row->seq_first = sqlite3_column_int64(s, 31);
    row->seq_last = sqlite3_column_int64(s, 32);
}

static bool one_batch(struct sqlite_store *self, sqlite3_stmt *s, struct batch_row *row)
{
    if (!next_row(self, s))
        return false;
    column_batch(s, row);
    sqlite3_reset(s);
    return true;
}

static bool batch_named(struct store *store, int64_t queue, const char *name, struct batch_row *row)
{
    sqlite3_stmt *s = use(self_of(store), BATCH_NAMED);

    if (!s)
        return false;
    sqlite3_bind_int64(s, 1, queue);
    bind_text(s, 2, name);
    return one_batch(self_of(store), s, row);
}

static bool batch_get(struct store *store, int64_t id, struct batch_row *row)
{
    sqlite3_stmt *s = use(self_of(store), BATCH_GET);

    if (!s)
        return false;
    sqlite3_bind_int64(s, 1, id);
    return one_batch(self_of(store), s, row);
}

static int batches(struct store *store, int64_t queue, struct batch_row *rows, int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, queue ? BATCHES_OF : BATCHES);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int(s, 1, rows_max);
    if (queue)
        sqlite3_bind_int64(s, 2, queue);
    while (next_row(self, s))
        column_batch(s, &rows[n++]);
    return n;
}

static int64_t one_number(struct sqlite_store *self, sqlite3_stmt *s, int64_t otherwise)
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

static int64_t batch_last(struct store *store)
{
    return one_number(self_of(store), use(self_of(store), BATCH_LAST), 0);
}

static int64_t batch_pending(struct store *store, int64_t after)
{
    sqlite3_stmt *s = use(self_of(store), BATCH_PENDING);

    if (s)
        sqlite3_bind_int64(s, 1, after);
    return one_number(self_of(store), s, 0);
}

static int64_t job_last(struct store *store)
{
    return one_number(self_of(store), use(self_of(store), JOB_LAST), 0);
}

static int64_t next_due(struct store *store)
{
    return one_number(self_of(store), use(self_of(store), NEXT_DUE), INT64_MAX);
}

static void column_job(sqlite3_stmt *s, struct job *job)
{
    struct span digest;

    job->seq = sqlite3_column_int64(s, 0);
    job->batch = sqlite3_column_int64(s, 1);
    column_text(s, 2, job->id, sizeof job->id);
    column_text(s, 3, job->custom_id, sizeof job->custom_id);
    column_text(s, 4, job->endpoint, sizeof job->endpoint);
    job->seed = (uint64_t)sqlite3_column_int64(s, 5);
    job->generation = (uint32_t)sqlite3_column_int64(s, 6);
    job->state = (enum job_state)sqlite3_column_int(s, 7);
    job->band = sqlite3_column_int(s, 8);
    job->position = sqlite3_column_type(s, 9) == SQLITE_NULL ? JOB_NO_POSITION : sqlite3_column_int64(s, 9);
    job->attempt = (uint32_t)sqlite3_column_int64(s, 10);
    job->infra = (uint32_t)sqlite3_column_int64(s, 11);
    job->leases = (uint32_t)sqlite3_column_int64(s, 12);
    column_text(s, 13, job->worker, sizeof job->worker);
    job->incarnation = (uint64_t)sqlite3_column_int64(s, 14);
    job->run_at_ms = sqlite3_column_int64(s, 15);
    job->created_ms = sqlite3_column_int64(s, 16);
    job->leased_ms = sqlite3_column_int64(s, 17);
    job->entry = sqlite3_column_int64(s, 18);
    job->size = (uint32_t)sqlite3_column_int64(s, 19);
    digest = column_span(s, 20);
    memset(job->digest, 0, JOB_DIGEST_SIZE);
    if (digest.size == JOB_DIGEST_SIZE)
        memcpy(job->digest, digest.data, JOB_DIGEST_SIZE);
    column_text(s, 21, job->reason, sizeof job->reason);
    job->queue = sqlite3_column_int64(s, 22);
    job->deadline_ms = sqlite3_column_int64(s, 23);
    job->ready_ttl_ms = sqlite3_column_int64(s, 24);
    job->wake_ms = sqlite3_column_int64(s, 25);
    job->purged_ms = sqlite3_column_int64(s, 26);
}

static bool one_job(struct sqlite_store *self, sqlite3_stmt *s, struct job *job)
{
    if (!next_row(self, s))
        return false;
    column_job(s, job);
    sqlite3_reset(s);
    return true;
}

static bool job_named(struct store *store, int64_t batch, const char *id, struct job *job)
{
    sqlite3_stmt *s = use(self_of(store), JOB_NAMED);

    if (!s)
        return false;
    bind_text(s, 1, id);
    sqlite3_bind_int64(s, 2, batch);
    return one_job(self_of(store), s, job);
}

static bool job_get(struct store *store, int64_t seq, struct job *job)
{
    sqlite3_stmt *s = use(self_of(store), JOB_GET);

    if (!s)
        return false;
    sqlite3_bind_int64(s, 1, seq);
    return one_job(self_of(store), s, job);
}

static int64_t job_at(struct store *store, int64_t batch, int64_t position)
{
    sqlite3_stmt *s = use(self_of(store), JOB_AT);

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, batch);
    sqlite3_bind_int64(s, 2, position);
    return one_number(self_of(store), s, 0);
}

static bool body(struct store *store, int64_t seq, struct arena *arena, struct span *out)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, BODY_GET);
    bool intact = false;
    struct span data;
    char *copy;

    *out = (struct span){ 0 };
    if (!s)
        return false;
    sqlite3_bind_int64(s, 1, seq);
    if (!next_row(self, s))
        return false;
    data = column_span(s, 1);
    if (span_crc32c(0, data) == (uint32_t)sqlite3_column_int64(s, 0)) {
        copy = arena_copy(arena, data.data, data.size);
        intact = copy != NULL;
        if (!copy)
            fail(self, "no memory for a body");
        *out = span_of(copy, data.size);
    }
    sqlite3_reset(s);
    return intact;
}

static int ready(struct store *store, int64_t queue, int band, int64_t after, struct waiting *rows, int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, READY);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, queue);
    sqlite3_bind_int(s, 2, band);
    sqlite3_bind_int64(s, 3, after);
    sqlite3_bind_int(s, 4, rows_max);
    while (next_row(self, s))
        rows[n++] = (struct waiting){ .seq = sqlite3_column_int64(s, 0),
                                      .batch = sqlite3_column_int64(s, 3),
                                      .size = (uint32_t)sqlite3_column_int64(s, 1),
                                      .alone = sqlite3_column_int64(s, 2) >= 3 };
    return n;
}

static int leased(struct store *store, const struct job *after, struct job *rows, int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, LEASED);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, after ? after->queue : 0);
    sqlite3_bind_int(s, 2, after ? after->band : 0);
    sqlite3_bind_int64(s, 3, after ? after->seq : 0);
    sqlite3_bind_int(s, 4, rows_max);
    while (next_row(self, s))
        column_job(s, &rows[n++]);
    return n;
}

static int live(struct store *store, const struct batch_row *batch, struct live_at *at, int most, int64_t *seqs,
                int seqs_max, bool *over)
{
    static const enum job_state states[] = { JOB_LEASED, JOB_READY, JOB_DELAYED };
    enum { STAGES = 3 * JOB_BANDS };
    struct sqlite_store *self = self_of(store);
    int n = 0;

    while (at->stage < STAGES && most > 0 && n < seqs_max) {
        sqlite3_stmt *s = use(self, LIVE);
        int asked = most, rows = 0;

        if (!s)
            break;
        if (at->seq < batch->seq_first - 1)
            at->seq = batch->seq_first - 1;
        sqlite3_bind_int(s, 1, states[at->stage / JOB_BANDS]);
        sqlite3_bind_int64(s, 2, batch->queue);
        sqlite3_bind_int(s, 3, at->stage % JOB_BANDS);
        sqlite3_bind_int64(s, 4, at->seq);
        sqlite3_bind_int(s, 5, asked);
        while (n < seqs_max && next_row(self, s)) {
            at->seq = sqlite3_column_int64(s, 0);
            if (sqlite3_column_int64(s, 1) == batch->id)
                seqs[n++] = at->seq;
            rows++;
        }
        sqlite3_reset(s);
        most -= rows;
        if (rows < asked && n < seqs_max) {
            at->stage++;
            at->seq = 0;
        }
    }
    *over = at->stage == STAGES;
    return n;
}

static int jobs(struct store *store, int64_t batch, int64_t *at, int most, struct job *rows, int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, JOBS);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, *at);
    sqlite3_bind_int64(s, 2, *at + most);
    sqlite3_bind_int64(s, 3, batch);
    sqlite3_bind_int(s, 4, rows_max);
    while (next_row(self, s))
        column_job(s, &rows[n++]);
    *at = n == rows_max ? rows[n - 1].seq : *at + most;
    return n;
}

static int due(struct store *store, int64_t wall_ms, int64_t delay_max_ms, int64_t *seqs, int seqs_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, DUE);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, wall_ms);
    sqlite3_bind_int64(s, 2, wall_ms + delay_max_ms);
    sqlite3_bind_int(s, 3, seqs_max);
    while (next_row(self, s))
        seqs[n++] = sqlite3_column_int64(s, 0);
    return n;
}

static int64_t first_unfinished(struct store *store, int64_t batch, int64_t from, int most, bool *more)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, POSITIONS);
    int64_t position = from;

    *more = false;
    if (!s)
        return from;
    sqlite3_bind_int64(s, 1, batch);
    sqlite3_bind_int64(s, 2, from);
    sqlite3_bind_int(s, 3, most);
    while (next_row(self, s)) {
        if (sqlite3_column_int64(s, 0) != position || sqlite3_column_int64(s, 1) == 0) {
            sqlite3_reset(s);
            return position;
        }
        position++;
    }
    *more = position - from == most;
    return position;
}

static void column_entry(sqlite3_stmt *s, struct entry *entry)
{
    int64_t key = sqlite3_column_int64(s, 0);

    entry->queue = key >> ENTRY_BITS;
    entry->number = entry_number(key);
    entry->job = sqlite3_column_int64(s, 1);
    entry->batch = sqlite3_column_int64(s, 2);
    entry->generation = (uint32_t)sqlite3_column_int64(s, 3);
    entry->state = (enum job_state)sqlite3_column_int(s, 4);
    entry->status_code = (uint32_t)sqlite3_column_int64(s, 5);
    entry->attempt = (uint32_t)sqlite3_column_int64(s, 6);
    entry->infra = (uint32_t)sqlite3_column_int64(s, 7);
    entry->seed = (uint64_t)sqlite3_column_int64(s, 8);
    entry->created_ms = sqlite3_column_int64(s, 9);
    entry->leased_ms = sqlite3_column_int64(s, 10);
    entry->finished_ms = sqlite3_column_int64(s, 11);
    entry->prompt_tokens = (uint32_t)sqlite3_column_int64(s, 12);
    entry->generated_tokens = (uint32_t)sqlite3_column_int64(s, 13);
    column_text(s, 14, entry->endpoint, sizeof entry->endpoint);
    column_text(s, 15, entry->worker, sizeof entry->worker);
    column_text(s, 16, entry->numerics, sizeof entry->numerics);
    column_text(s, 17, entry->reason, sizeof entry->reason);
    column_text(s, 20, entry->id, sizeof entry->id);
    column_text(s, 21, entry->custom_id, sizeof entry->custom_id);
    entry->position =
        sqlite3_column_type(s, 22) == SQLITE_NULL ? JOB_NO_POSITION : sqlite3_column_int64(s, 22);
    column_text(s, 23, entry->batch_name, sizeof entry->batch_name);
    entry->cached_tokens = (uint32_t)sqlite3_column_int64(s, 24);
    entry->purged_ms = sqlite3_column_int64(s, 25);
}

/* A body that is there, and is what was stored; or none where there never was one. */
static bool body_is_intact(sqlite3_stmt *s, int crc_at, int body_at, int blob_at)
{
    if (sqlite3_column_type(s, crc_at) == SQLITE_NULL)
        return sqlite3_column_int64(s, blob_at) == 0;
    return span_crc32c(0, column_span(s, body_at)) == (uint32_t)sqlite3_column_int64(s, crc_at);
}

static int entries(struct store *store, const struct entry_query *query, struct entry *rows,
                   struct buf *bodies)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s;
    size_t start = bodies->size;
    int n = 0;

    s = use(self, query->by_position ? ENTRIES_BY_POSITION
                  : query->batch     ? ENTRIES_OF_BATCH
                                     : ENTRIES_OF_QUEUE);
    if (!s)
        return 0;
    if (query->by_position) {
        sqlite3_bind_int64(s, 1, query->from);
        sqlite3_bind_int64(s, 2, entry_key(query->queue, 0));
        sqlite3_bind_int64(s, 5, query->over_gaps ? BATCH_POSITIONS_MAX : query->from + query->items_max);
    } else {
        sqlite3_bind_int64(s, 1, entry_key(query->queue, query->from));
        sqlite3_bind_int64(s, 2, entry_key(query->queue + 1, 0));
    }
    sqlite3_bind_int(s, 3, query->items_max);
    if (query->batch)
        sqlite3_bind_int64(s, 4, query->batch);
    while (n < query->items_max && next_row(self, s)) {
        struct entry *entry = &rows[n];
        struct span data = column_span(s, 19);

        column_entry(s, entry);
        if (query->by_position && !query->over_gaps && entry->position != query->from + n)
            break; /* one in between has not ended */
        if (n > 0 && bodies->size - start + data.size > query->bytes_max)
            break;
        entry->intact = body_is_intact(s, 18, 19, 26);
        entry->size = entry->intact ? (uint32_t)data.size : 0;
        if (!buf_add(bodies, data.data, entry->size)) {
            if (n == 0)
                fail(self, "no memory for an entry");
            break;
        }
        n++;
    }
    sqlite3_reset(s);
    return n;
}

static int remains(struct store *store, int64_t queue, int64_t batch, int64_t after, struct remains *rows,
                   int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, batch ? REMAINS_OF_BATCH : REMAINS_OF_QUEUE);
    int n = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, entry_key(queue, after));
    sqlite3_bind_int64(s, 2, entry_key(queue + 1, 0));
    sqlite3_bind_int(s, 3, rows_max);
    if (batch)
        sqlite3_bind_int64(s, 4, batch);
    while (next_row(self, s))
        rows[n++] = (struct remains){ .number = entry_number(sqlite3_column_int64(s, 0)),
                                      .job = sqlite3_column_int64(s, 1),
                                      .finished_ms = sqlite3_column_int64(s, 2),
                                      .purged_ms = sqlite3_column_int64(s, 3),
                                      .size = (uint32_t)sqlite3_column_int64(s, 4),
                                      .request_size = (uint32_t)sqlite3_column_int64(s, 5),
                                      .newest = sqlite3_column_int(s, 6) };
    return n;
}

static int consumers(struct store *store, const char *queue, struct consumer_row *rows, int rows_max)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, CONSUMERS);
    int n = 0;

    if (!s)
        return 0;
    bind_text(s, 1, queue);
    sqlite3_bind_int(s, 2, rows_max);
    while (next_row(self, s)) {
        column_text(s, 0, rows[n].batch, sizeof rows[n].batch);
        column_text(s, 1, rows[n].consumer, sizeof rows[n].consumer);
        rows[n].position = (uint64_t)sqlite3_column_int64(s, 2);
        rows[n].moved_ms = sqlite3_column_int64(s, 3);
        n++;
    }
    return n;
}

/* ---- audit ----------------------------------------------------------------------------------- */

static void fault(struct audit_slice *slice, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fault(struct audit_slice *slice, const char *format, ...)
{
    va_list args;

    if (*slice->first_fault)
        return;
    va_start(args, format);
    vsnprintf(slice->first_fault, sizeof slice->first_fault, format, args);
    va_end(args);
}

/* One job: does every ended generation have its one entry, and are the bytes what was stored? */
static size_t audit_entries_of(struct sqlite_store *self, int64_t seq, const char *id, int64_t generations,
                               bool ended, int64_t newest, struct audit_slice *slice)
{
    sqlite3_stmt *s = use(self, AUDIT_ENTRY);
    int64_t distinct = 0, last = 0, newest_key = 0;
    size_t bytes = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, seq);
    while (next_row(self, s)) {
        int64_t generation = sqlite3_column_int64(s, 1);
        struct span data = column_span(s, 3);

        slice->entries++;
        bytes += data.size;
        newest_key = sqlite3_column_int64(s, 0);
        if (generation == last) {
            slice->doubled++;
            fault(slice, "job %s generation %" PRId64 " has two entries", id, generation);
        } else if (generation < 1 || generation > generations - !ended) {
            slice->doubled++;
            fault(slice, "job %s has an entry of generation %" PRId64 ", which has not ended", id,
                  generation);
        } else {
            distinct++;
        }
        last = generation;
        if (!body_is_intact(s, 2, 3, 4)) {
            slice->corrupt++;
            fault(slice, "the result of job %s (entry %" PRId64 ") has a wrong checksum", id,
                  entry_number(newest_key));
        }
    }
    if (distinct != generations - !ended) {
        slice->missing += generations - !ended - distinct;
        fault(slice, "job %s: %" PRId64 " generations have ended, %" PRId64 " have an entry", id,
              generations - !ended, distinct);
    } else if (ended && newest != entry_number(newest_key)) {
        slice->missing++;
        fault(slice, "job %s names entry %" PRId64 ", its newest is %" PRId64, id, newest,
              entry_number(newest_key));
    }
    return bytes;
}

static void audit_jobs(struct sqlite_store *self, const char *batch_name, int64_t after,
                       struct audit_slice *slice)
{
    sqlite3_stmt *s = use(self, AUDIT_JOB);
    int64_t last = job_last(&self->store), end = after + AUDIT_JOBS;
    size_t bytes = 0;

    slice->next = AUDIT_OF_ENTRIES;
    if (!s)
        return;
    sqlite3_bind_int64(s, 1, after);
    sqlite3_bind_int64(s, 2, end);
    bind_text(s, 3, batch_name);
    if (end < last)
        slice->next = end;
    while (next_row(self, s)) {
        int64_t seq = sqlite3_column_int64(s, 0);
        char id[JOB_ID_MAX + 1];
        int64_t generations = sqlite3_column_int64(s, 2);
        bool ended = job_ended((enum job_state)sqlite3_column_int(s, 3));
        struct span data = column_span(s, 6);

        column_text(s, 1, id, sizeof id);
        slice->jobs++;
        slice->generations += generations;
        slice->unfinished += !ended;
        bytes += data.size;
        if (sqlite3_column_type(s, 5) == SQLITE_NULL
                ? sqlite3_column_int64(s, 7) == 0 /* it was not purged */
                : span_crc32c(0, data) != (uint32_t)sqlite3_column_int64(s, 5)) {
            slice->corrupt++;
            fault(slice, "the request of job %s has a wrong checksum", id);
        }
        bytes += audit_entries_of(self, seq, id, generations, ended, sqlite3_column_int64(s, 4), slice);
        if (bytes >= AUDIT_BYTES && seq < last) {
            slice->next = seq;
            sqlite3_reset(s);
            return;
        }
    }
}

static void audit_numbers(struct sqlite_store *self, int64_t after, struct audit_slice *slice)
{
    sqlite3_stmt *s = use(self, AUDIT_KEYS);
    int64_t before = after;
    int n = 0;

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, after);
    sqlite3_bind_int(s, 2, AUDIT_ENTRIES);
    while (next_row(self, s)) {
        int64_t key = sqlite3_column_int64(s, 0);
        int64_t expected =
            key >> ENTRY_BITS == before >> ENTRY_BITS ? before + 1 : entry_key(key >> ENTRY_BITS, 1);

        if (key != expected) {
            slice->holes += key - expected;
            fault(slice, "a result queue jumps from entry %" PRId64 " to %" PRId64, entry_number(before),
                  entry_number(key));
        }
        before = key;
        n++;
    }
    if (n == AUDIT_ENTRIES) {
        slice->next = AUDIT_OF_ENTRIES | before;
        return;
    }
    slice->next = 0;
    s = use(self, AUDIT_KEY_LAST);
    while (s && next_row(self, s)) {
        int64_t counted = sqlite3_column_int64(s, 1), there = entry_number(sqlite3_column_int64(s, 2));

        if (counted != there) {
            slice->holes += counted > there ? counted - there : there - counted;
            fault(slice, "queue %s counts %" PRId64 " entries, its last has number %" PRId64,
                  (const char *)sqlite3_column_text(s, 3), counted, there);
        }
    }
}

static void audit(struct store *store, const char *batch_name, int64_t after, struct audit_slice *slice)
{
    memset(slice, 0, sizeof *slice);
    if (after & AUDIT_OF_ENTRIES)
        audit_numbers(self_of(store), after & ~AUDIT_OF_ENTRIES, slice);
    else
        audit_jobs(self_of(store), batch_name, after, slice);
}

/* ---- room ------------------------------------------------------------------------------------ */

static int64_t bytes_free(const struct sqlite_store *self)
{
    struct statvfs fs;

    if (!self->ballast_path || statvfs(self->path, &fs) != 0)
        return INT64_MAX;
    return (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
}

/* An eighth of what is free, at most what was asked for. */
static bool ballast_make(struct sqlite_store *self)
{
    int64_t part = bytes_free(self) / 8;
    int fd, rc;

    if (self->ballast_there)
        return true;
    if (part < BALLAST_LEAST)
        return false;
    self->ballast_bytes = part < self->ballast_max ? part : self->ballast_max;
    fd = open(self->ballast_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    rc = posix_fallocate(fd, 0, (off_t)self->ballast_bytes);
    if (rc != 0 && ftruncate(fd, 0) != 0)
        log_warn("store.ballast", "path=%s reason=\"%s\"", self->ballast_path, strerror(errno));
    close(fd);
    self->ballast_there = rc == 0;
    return rc == 0;
}

static void ballast_drop(struct sqlite_store *self)
{
    if (!self->ballast_path || !self->ballast_there)
        return;
    if (truncate(self->ballast_path, 0) != 0)
        log_warn("store.ballast", "path=%s reason=\"%s\"", self->ballast_path, strerror(errno));
    self->ballast_there = false;
    log_warn("store.full", "path=%s freed=%" PRId64, self->path, self->ballast_bytes);
}

static bool has_room(struct store *store, size_t bytes)
{
    struct sqlite_store *self = self_of(store);
    int64_t need;

    if (self->tight)
        return false;
    /* Once in the WAL, once more when it is copied into the file, where the WAL's own pages have to go too.
     */
    need = 2 * (int64_t)(self->bytes_pending + bytes) + (int64_t)self->wal_pages * PAGE_BYTES + SLACK_BYTES;
    return bytes_free(self) >= need;
}

static bool checkpoint(struct sqlite_store *self, int how)
{
    int rc, pages = 0, done = 0;

    if (!self->ballast_path)
        return true;
    rc = sqlite3_wal_checkpoint_v2(self->db, NULL, how, &pages, &done);
    if (rc == SQLITE_OK) {
        self->wal_pages = pages - done;
        return true;
    }
    if (rc != SQLITE_FULL && rc != SQLITE_BUSY &&
        !(rc == SQLITE_IOERR && sqlite3_system_errno(self->db) == ENOSPC))
        return fail(self, "checkpoint");
    return false;
}

/* Gives back the space of the oldest bodies when all up to some way behind them are erased.  True when some was. */
static bool reclaim(struct sqlite_store *self)
{
    sqlite3_stmt *s = use(self, BLOBS);
    bool dropped;

    if (!s)
        return false;
    sqlite3_bind_int64(s, 1, self->blob_gone);
    sqlite3_bind_int(s, 2, BLOB_LOOKED);
    while (next_row(self, s)) {
        if (!sqlite3_column_int(s, 1)) {
            sqlite3_reset(s);
            break;
        }
        self->blob_gone = sqlite3_column_int64(s, 0);
    }
    if (self->failed || self->blob_gone - BLOB_MARGIN <= self->blob_dropped || !(s = use(self, BLOB_DROP)))
        return false;
    sqlite3_bind_int64(s, 1, self->blob_gone - BLOB_MARGIN);
    sqlite3_bind_int(s, 2, BLOB_DROPPED);
    dropped = sqlite3_step(s) == SQLITE_DONE && sqlite3_changes(self->db) > 0; /* on a full disk: another time */
    if (!dropped)
        self->blob_dropped = self->blob_gone - BLOB_MARGIN;
    sqlite3_reset(s);
    return dropped;
}

static void tend(struct store *store, bool idle)
{
    struct sqlite_store *self = self_of(store);
    int64_t room;

    if (!self->ballast_path || self->failed)
        return;
    room = bytes_free(self);
    self->reclaiming = self->reclaiming && (!idle || reclaim(self));
    if (self->traces > 0 && (self->traces -= idle ? SCRUB_IDLE : 1) <= 0)
        self->traces = checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE) ? 0 : SCRUB_LOOKS;
    if (self->wal_pages >= (room < TIGHT_BYTES ? WAL_PAGES_TIGHT : idle ? WAL_PAGES_IDLE : WAL_PAGES_MAX))
        checkpoint(self, SQLITE_CHECKPOINT_PASSIVE);
    if ((self->tight || !self->ballast_there) && idle && ballast_make(self)) {
        if (self->tight)
            log_info("store.room", "path=%s ballast=%" PRId64, self->path, self->ballast_bytes);
        self->tight = false;
    }
}

/* ---- transactions ------------------------------------------------------------------------------ */

static void begin(struct store *store)
{
    struct sqlite_store *self = self_of(store);
    sqlite3_stmt *s = use(self, BEGIN);

    self->redo_count = 0;
    self->bytes_pending = 0;
    self->purge_now = false;
    arena_reset(&self->rows);
    if (s)
        run(self, s);
}

static bool is_full(struct sqlite_store *self, int rc)
{
    return rc == SQLITE_FULL || (rc == SQLITE_IOERR && (sqlite3_system_errno(self->db) == ENOSPC ||
                                                        sqlite3_system_errno(self->db) == EDQUOT));
}

/* COMMIT.  True when it is on disk; else *full tells whether room would have helped. */
static bool try_commit(struct sqlite_store *self, bool *full)
{
    sqlite3_stmt *s = use(self, COMMIT);
    int rc;

    *full = false;
    if (!s)
        return false;
    rc = sqlite3_step(s);
    *full = rc != SQLITE_DONE && is_full(self, rc);
    if (rc != SQLITE_DONE && !*full)
        fail(self, "commit");
    sqlite3_reset(s);
    return rc == SQLITE_DONE;
}

static void write_again(struct sqlite_store *self)
{
    sqlite3_stmt *s = use(self, BEGIN);

    if (s)
        run(self, s);
    for (size_t i = 0; i < self->redo_count; i++)
        write_once(self, &self->redo[i]);
}

/* Old pages that the WAL still holds, and those of the file that it has not replaced yet, hold what was erased. */
static bool scrub(struct sqlite_store *self)
{
    if (!checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE) && !self->failed) {
        ballast_drop(self);
        self->tight = true;
        if (!checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE))
            fail(self, "erase what was purged");
    }
    return !self->failed;
}

static enum store_outcome commit(struct store *store, struct err *err)
{
    struct sqlite_store *self = self_of(store);
    bool full;

    /* Full: first what a checkpoint gives back, then the ballast.  The writes are data; they are simply done
     * again. */
    for (int try = 0;; try++) {
        if (try_commit(self, &full)) {
            if (!self->purge_now || scrub(self))
                return STORE_KEPT;
            break;
        }
        if (!full)
            break;
        self->tight = true;
        if (!sqlite3_get_autocommit(self->db)) {
            sqlite3_stmt *s = use(self, ROLLBACK);

            if (s)
                run(self, s);
        }
        if (try == 2) {
            self->failed = true;
            err_set(&self->failure, ERR_IO,
                    "store %s: the disk is full, and the ballast of %" PRId64 " bytes is used up", self->path,
                    self->ballast_bytes);
            break;
        }
        if (try == 0)
            checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE);
        else
            ballast_drop(self);
        write_again(self);
    }
    if (err)
        *err = self->failure;
    return STORE_BROKEN;
}

static int on_wal(void *self, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    ((struct sqlite_store *)self)->wal_pages = pages;
    return SQLITE_OK;
}

/* ---- opening ----------------------------------------------------------------------------------- */

static void store_free(struct store *store)
{
    struct sqlite_store *self = self_of(store);

    if (!self)
        return;
    if (self->db && !self->failed && self->wal_pages)
        checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE);
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(self->statement[i]);
    sqlite3_close(self->db);
    arena_fini(&self->rows);
    free(self->redo);
    free(self->ballast_path);
    free(self->path);
    free(self);
}

/* What can be known of the file without opening it as a database.  Nothing has it open in this
 * process yet: closing any descriptor of a file drops all its POSIX locks. */
static bool look_at_file(const char *path, struct err *err)
{
    uint8_t head[100];
    struct stat st;
    char beside[PATH_MAX];
    bool recovering;
    ssize_t n;
    int fd;

    if (stat(path, &st) != 0) {
        if (errno == ENOENT)
            return true;
        return err_errno(err, "store %s", path);
    }
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INPUT,
                       "store %s is not a regular file; expected a Moothall store or a new name", path);
    if (!(st.st_mode & 0222) || access(path, W_OK) != 0)
        return err_set(err, ERR_INPUT, "store %s is read-only; expected a file that can be written", path);
    if (st.st_size == 0)
        return true;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "store %s", path);
    n = pread(fd, head, sizeof head, 0);
    close(fd);
    if (n < (ssize_t)sizeof head || memcmp(head, "SQLite format 3", 16) != 0)
        return err_set(err, ERR_INPUT, "store %s is not a database; expected a Moothall store or a new name",
                       path);
    snprintf(beside, sizeof beside, "%s-journal", path);
    recovering = access(beside, F_OK) == 0;
    if (!recovering &&
        ((uint32_t)head[68] << 24 | head[69] << 16 | head[70] << 8 | head[71]) != APPLICATION_ID)
        return err_set(err, ERR_INPUT,
                       "store %s belongs to another program; expected a Moothall store or a new name", path);
    snprintf(beside, sizeof beside, "%s-wal", path);
    if (!recovering && access(beside, F_OK) != 0) {
        /* Without a log beside it the file must have all its pages. */
        int64_t page = head[16] << 8 | head[17],
                pages = (int64_t)head[28] << 24 | head[29] << 16 | head[30] << 8 | head[31];

        if (page == 1)
            page = 65536;
        if (st.st_size < page * pages)
            return err_set(err, ERR_INPUT,
                           "store %s is cut short: it has %" PRId64 " bytes, its header says %" PRId64, path,
                           (int64_t)st.st_size, page * pages);
    }
    return true;
}

/* Who holds SQLite's lock on the file; 0 when nobody does. */
static pid_t lock_holder(const char *path)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0x40000000, .l_len = 512 };
    int fd = open(path, O_RDWR | O_CLOEXEC);
    pid_t pid = 0;

    if (fd < 0)
        return 0;
    if (fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
        pid = lock.l_pid;
    close(fd);
    return pid;
}

static bool open_error(struct sqlite_store *self, int rc, struct err *err)
{
    const char *path = self->path;

    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        sqlite3_close(self->db);
        self->db = NULL;
        return err_set(err, ERR_BUSY, "store %s is in use by process %ld; one broker at a time", path,
                       (long)lock_holder(path));
    case SQLITE_NOTADB:
        return err_set(err, ERR_INPUT, "store %s is not a database; expected a Moothall store or a new name",
                       path);
    case SQLITE_CORRUPT:
        return err_set(err, ERR_INPUT, "store %s is damaged (%s); restore it from a copy, or use a new name",
                       path, sqlite3_errmsg(self->db));
    case SQLITE_FULL:
        return err_set(err, ERR_IO, "store %s: no room on the disk", path);
    case SQLITE_READONLY:
        return err_set(err, ERR_INPUT,
                       "store %s is read-only; expected a file and a directory that can be written", path);
    case SQLITE_CANTOPEN:
        return err_set(err, ERR_IO, "store %s cannot be opened: %s", path,
                       sqlite3_system_errno(self->db) ? strerror(sqlite3_system_errno(self->db))
                                                      : "the directory is missing or cannot be written");
    default:
        if (rc == SQLITE_IOERR && sqlite3_system_errno(self->db) == ENOSPC)
            return err_set(err, ERR_IO, "store %s: no room on the disk", path);
        return err_set(err, ERR_IO, "store %s: %s", path, sqlite3_errmsg(self->db));
    }
}

static int query_int(struct sqlite_store *self, const char *text, int *value)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(self->db, text, -1, &s, NULL);

    if (rc == SQLITE_OK) {
        rc = sqlite3_step(s);
        if (rc == SQLITE_ROW) {
            *value = sqlite3_column_int(s, 0);
            rc = SQLITE_OK;
        }
    }
    sqlite3_finalize(s);
    return rc;
}

static int execute(struct sqlite_store *self, const char *text)
{
    return sqlite3_exec(self->db, text, NULL, NULL, NULL);
}

/* An older file, a step at a time: one that is killed in between goes on from there. */
static bool bring_up(struct sqlite_store *self, int version, struct err *err)
{
    int rc = SQLITE_OK;
    char text[80];

    log_info("store.format", "path=%s from=%d to=%d", self->path, version, FORMAT_VERSION);
    for (int i = version; rc == SQLITE_OK && i < FORMAT_VERSION; i++) {
        bool whole = strcmp(migrations[i], VACUUM) != 0; /* that one cannot be part of a transaction */

        if (whole)
            rc = execute(self, "BEGIN IMMEDIATE");
        if (rc == SQLITE_OK)
            rc = execute(self, migrations[i]);
        snprintf(text, sizeof text, "PRAGMA user_version = %d;", i + 1);
        if (rc == SQLITE_OK)
            rc = execute(self, text);
        if (rc == SQLITE_OK && whole)
            rc = execute(self, "COMMIT");
    }
    return rc == SQLITE_OK || open_error(self, rc, err);
}

static bool migrate(struct sqlite_store *self, uint64_t hall, struct err *err)
{
    int rc, version = 0, id = 0, tables = 0;
    char text[160];

    rc = query_int(self, "PRAGMA application_id", &id);
    if (rc == SQLITE_OK)
        rc = query_int(self, "PRAGMA user_version", &version);
    if (rc == SQLITE_OK)
        rc = query_int(self, "SELECT count(*) FROM sqlite_master", &tables);
    if (rc != SQLITE_OK)
        return open_error(self, rc, err);
    if (id != APPLICATION_ID && tables > 0)
        return err_set(err, ERR_INPUT,
                       "store %s belongs to another program; expected a Moothall store or a new name",
                       self->path);
    if (version > FORMAT_VERSION)
        return err_set(err, ERR_INPUT, "store %s has format version %d; this program (%s) knows up to %d",
                       self->path, version, MOOTHALL_VERSION, FORMAT_VERSION);
    if (version == FORMAT_VERSION)
        return true;
    if (version > 0)
        return bring_up(self, version, err);
    rc = execute(self, "BEGIN IMMEDIATE");
    for (int i = 0; rc == SQLITE_OK && i < FORMAT_VERSION; i++)
        if (strcmp(migrations[i], VACUUM) != 0) /* nothing is in it yet */
            rc = execute(self, migrations[i]);
    snprintf(text, sizeof text, "PRAGMA application_id = %d; PRAGMA user_version = %d;", APPLICATION_ID,
             FORMAT_VERSION);
    if (rc == SQLITE_OK)
        rc = execute(self, text);
    if (rc == SQLITE_OK) {
        snprintf(text, sizeof text,
                 "INSERT INTO hall(id, hall, broker_epoch, has_model, family) VALUES(1, %" PRId64
                 ", 0, 0, '')",
                 (int64_t)hall);
        rc = execute(self, text);
    }
    if (rc == SQLITE_OK)
        rc = execute(self, "COMMIT");
    return rc == SQLITE_OK || open_error(self, rc, err);
}

static bool open_database(struct sqlite_store *self, const struct store_options *options, struct err *err)
{
    char text[128];
    int rc;

    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* statistics that nobody reads, at the price of a lock */
    rc = sqlite3_open_v2(self->path, &self->db,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return open_error(self, rc, err);
    sqlite3_extended_result_codes(self->db, 0);
    sqlite3_busy_timeout(self->db, BUSY_MS);
    sqlite3_db_config(self->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    snprintf(text, sizeof text, "PRAGMA page_size = %d; PRAGMA locking_mode = EXCLUSIVE;", PAGE_BYTES);
    rc = execute(self, text);
    /* A new file gets its tables before it becomes a WAL file, so that its header says whose it is from the
     * start. */
    if (rc == SQLITE_OK)
        rc = execute(self,
                     "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;"
                     "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;");
    if (rc != SQLITE_OK)
        return open_error(self, rc, err);
    if (!migrate(self, options->hall, err))
        return false;
    rc = execute(self, "PRAGMA journal_mode = WAL;");
    if (rc == SQLITE_OK) {
        /* No spilling: pages reach the WAL at COMMIT only, so a full disk is found there and nowhere else. */
        snprintf(text, sizeof text,
                 "PRAGMA cache_size = -%d; PRAGMA cache_spill = OFF; PRAGMA journal_size_limit = %d;",
                 CACHE_KIB, 4 * WAL_PAGES_MAX * PAGE_BYTES);
        rc = execute(self, text);
    }
    if (rc == SQLITE_OK)
        rc = execute(self, "BEGIN EXCLUSIVE; COMMIT;"); /* the lock is taken now, not at the first job */
    if (rc != SQLITE_OK)
        return open_error(self, rc, err);
    sqlite3_wal_hook(self->db, on_wal, self);
    for (int i = 0; i < STATEMENTS; i++) {
        rc = sqlite3_prepare_v3(self->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &self->statement[i], NULL);
        if (rc != SQLITE_OK)
            return open_error(self, rc, err);
    }
    self->blob_last = one_number(self, use(self, BLOB_LAST), 0);
    self->traces = SCRUB_LOOKS; /* of the broker before, perhaps */
    self->reclaiming = true;
    return true;
}

static bool use_ballast(struct sqlite_store *self, int64_t bytes_max, struct err *err)
{
    struct stat st;

    if (asprintf(&self->ballast_path, "%s.ballast", self->path) < 0) {
        self->ballast_path = NULL;
        return err_set(err, ERR_IO, "no memory for the store");
    }
    self->ballast_max = bytes_max;
    /* One that is left from before is taken as it is, unless it was given back then. */
    if (stat(self->ballast_path, &st) == 0 && (int64_t)st.st_blocks * 512 >= BALLAST_LEAST &&
        st.st_size <= bytes_max) {
        self->ballast_bytes = st.st_size;
        self->ballast_there = true;
    }
    if (!ballast_make(self)) {
        self->tight = true; /* what is there can still be fetched */
        log_warn("store.full", "path=%s reason=\"no room for a ballast\"", self->path);
    }
    return true;
}

bool store_sqlite_open(struct store **out, const char *path, const struct store_options *options,
                       struct err *err)
{
    struct sqlite_store *self = calloc(1, sizeof *self);
    bool in_memory = !strcmp(path, ":memory:");

    *out = NULL;
    if (!self || !(self->path = strdup(path))) {
        free(self);
        return err_set(err, ERR_IO, "no memory for the store");
    }
    self->store = (struct store){
        .free = store_free,
        .begin = begin,
        .commit = commit,
        .has_room = has_room,
        .tend = tend,
        .hall_get = hall_get,
        .hall_put = hall_put,
        .queues = queues,
        .queue_put = queue_put,
        .batch_named = batch_named,
        .batch_get = batch_get,
        .batches = batches,
        .batch_last = batch_last,
        .batch_pending = batch_pending,
        .batch_put = batch_put,
        .job_last = job_last,
        .job_named = job_named,
        .job_get = job_get,
        .job_at = job_at,
        .job_add = job_add,
        .job_move = job_move,
        .job_renew = job_renew,
        .job_place = job_place,
        .body = body,
        .ready = ready,
        .leased = leased,
        .live = live,
        .jobs = jobs,
        .due = due,
        .next_due = next_due,
        .first_unfinished = first_unfinished,
        .entry_add = entry_add,
        .entry_flag = entry_flag,
        .entry_purge = entry_purge,
        .purge_now = purge_now,
        .remains = remains,
        .consumers = consumers,
        .entries = entries,
        .cursor_get = cursor_get,
        .cursor_put = cursor_put,
        .audit = audit,
    };
    arena_init(&self->rows, 0);
    if ((!in_memory && !look_at_file(path, err)) || !open_database(self, options, err) ||
        (!in_memory && !use_ballast(self, options->ballast_bytes, err))) {
        self->failed = true; /* nothing to write back */
        store_free(&self->store);
        return false;
    }
    *out = &self->store;
    return true;
}
