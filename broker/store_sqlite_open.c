#include "broker/store_sqlite_inside.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum { APPLICATION_ID = 0x4d6f6f74 }; /* "Moot" */

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
 * About `blob`.  What is deleted from a B-tree is overwritten (secure_delete), but when cells move from one
 * page to another their bytes stay behind, and nobody would ever find them again to erase them.  So no body
 * ever moves: bodies are appended, which moves nothing; erased in place, as zeroes of the same length; and
 * deleted only where everything around has been erased too, so that what the tree then moves is zeroes.  The
 * space of erased bodies comes back when all older ones are erased. */
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
        inside_checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE);
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
    if (!inside_ballast_make(self)) {
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
    inside_fill(&self->store);
    self->store.free = store_free;
    self->store.audit = inside_audit;
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
