#include "client/batch_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/stop.h"

enum { CHUNK = 1 << 20 };

/* How much of what comes belongs to the first `limit` lines that are not blank. */
struct measure {
    uint64_t limit, count;
    bool written; /* the line that is being read has more than spaces */
};

static size_t measure(struct measure *m, const char *bytes, size_t size)
{
    if (!m->limit)
        return size;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != '\n') {
            m->written = m->written || (bytes[i] != ' ' && bytes[i] != '\t' && bytes[i] != '\r');
        } else if (m->written) {
            m->written = false;
            if (++m->count == m->limit)
                return i + 1;
        }
    }
    return size;
}

bool batch_file_open(struct batch_file *file, const char *path, const char *spool, uint64_t limit,
                     struct err *err)
{
    struct measure wanted = { .limit = limit };
    bool standard = !strcmp(path, "-");
    struct stat st;
    int from, to = -1;
    char *chunk = NULL;
    bool ok = false;

    memset(file, 0, sizeof *file);
    file->fd = -1;
    file->limit = limit;
    snprintf(file->name, sizeof file->name, "%s", standard ? "standard input" : path);
    if (spool && strrchr(spool, '/'))
        snprintf(file->spool_dir, sizeof file->spool_dir, "%.*s", (int)(strrchr(spool, '/') - spool), spool);
    from = standard ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0) {
        bool missing = errno == ENOENT;

        err_errno(err, "open %s", file->name);
        if (missing)
            err->code = ERR_NOT_FOUND;
        return false;
    }
    if (fstat(from, &st) != 0) {
        err_errno(err, "%s", file->name);
        goto out;
    }
    if (S_ISDIR(st.st_mode)) {
        err_set(err, ERR_INPUT, "%s is a directory; expected a file of requests, one JSON object a line",
                file->name);
        goto out;
    }
    if (S_ISREG(st.st_mode) && lseek(from, 0, SEEK_SET) == 0) {
        file->fd = from;
        return true;
    }
    if (spool) {
        to = open(spool, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    } else {
        char name[] = "/tmp/moothall-input-XXXXXX";

        to = mkostemp(name, O_CLOEXEC);
        if (to >= 0)
            unlink(name);
    }
    if (to < 0) {
        err_errno(err, "make a copy of %s%s%s", file->name, spool ? ": " : "", spool ? spool : "");
        goto out;
    }
    chunk = malloc(CHUNK);
    if (!chunk) {
        err_set(err, ERR_IO, "no memory to copy %s", file->name);
        goto out;
    }
    while (!limit || wanted.count < limit) {
        ssize_t n = read(from, chunk, CHUNK);

        if (!stop_check(err))
            goto out;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_errno(err, "read %s", file->name);
            goto out;
        }
        if (n == 0)
            break;
        n = (ssize_t)measure(&wanted, chunk, (size_t)n);
        for (ssize_t done = 0; done < n;) {
            ssize_t m = write(to, chunk + done, (size_t)(n - done));

            if (m < 0 && errno == EINTR)
                continue;
            if (m <= 0) {
                err_errno(err, "make a copy of %s", file->name);
                goto out;
            }
            done += m;
        }
    }
    file->fd = to;
    to = -1;
    ok = true;
out:
    free(chunk);
    if (to >= 0)
        close(to);
    close(from);
    return ok;
}

void batch_file_close(struct batch_file *file)
{
    if (file->fd > 0)
        close(file->fd);
    spool_free(file->index);
    memset(file, 0, sizeof *file);
    file->fd = -1;
}

bool batch_file_line(const struct batch_file *file, size_t position, struct batch_line *line, struct err *err)
{
    return spool_get(file->index, position, line, err) || err_wrap(err, "%s", file->name);
}

/* ---- one line ----------------------------------------------------------------------------------- */

static void fault_too_long(struct request_fault *fault, uint64_t size)
{
    request_fault_set(fault, 413, "line_too_long", NULL, "the line has %llu bytes, at most %d are allowed",
                      (unsigned long long)size, REQUEST_LINE_MAX);
}

static void fault_duplicate(struct request_fault *fault, struct span custom_id, uint32_t twin)
{
    request_fault_set(fault, 400, "duplicate_custom_id", "custom_id",
                      "custom_id \"%.*s\" is line %u's already; expected each only once",
                      (int)(custom_id.size < 200 ? custom_id.size : 200), (const char *)custom_id.data, twin);
}

static void digest_bad(uint8_t digest[BATCH_DIGEST_SIZE], const char *kind, struct span bytes)
{
    crypto_generichash_state state;

    crypto_generichash_init(&state, NULL, 0, BATCH_DIGEST_SIZE);
    crypto_generichash_update(&state, (const uint8_t *)kind, strlen(kind) + 1);
    crypto_generichash_update(&state, bytes.data, bytes.size);
    crypto_generichash_final(&state, digest, BATCH_DIGEST_SIZE);
}

/* Of a line that fits: what it asks, in digest. */
static bool judge(struct arena *arena, struct span line, struct request *request, struct request_fault *fault,
                  uint8_t digest[BATCH_DIGEST_SIZE])
{
    uint8_t whole[32];

    memset(request, 0, sizeof *request);
    if (request_read(arena, line, request, fault)) {
        request_digest(whole, request);
        memcpy(digest, whole, BATCH_DIGEST_SIZE);
        return true;
    }
    digest_bad(digest, "wrong", line);
    return false;
}

static bool read_again(const struct batch_file *file, const struct batch_line *line, struct buf *into,
                       struct err *err)
{
    into->size = 0;
    if (!buf_reserve(into, line->size + 1))
        return err_set(err, ERR_IO, "no memory for line %u", line->number);
    while (into->size < line->size) {
        ssize_t n = pread(file->fd, into->data + into->size, line->size - into->size,
                          (off_t)(line->offset + into->size));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, "read %s, line %u", file->name, line->number);
        if (n == 0)
            return err_set(err, ERR_CONFLICT, "%s, line %u: the file was changed while it was read",
                           file->name, line->number);
        into->size += (size_t)n;
    }
    return true;
}

/* ---- which custom_ids there were: hashes, verified against the file on a match --------------------- */

enum { BUCKETS = 256, BLOCK_ENTRIES = 63, NO_BLOCK = UINT32_MAX };

struct name {
    uint64_t hash; /* never 0 */
    uint32_t position;
};

/* Names of one bucket, in the order of the file. */
struct block {
    uint32_t before; /* the bucket's block before this one, or NO_BLOCK */
    uint32_t count;
    struct name name[BLOCK_ENTRIES];
};

struct names {
    struct block open[BUCKETS]; /* being filled */
    struct spool *full;         /* struct block */
    uint32_t full_count;
    uint8_t key[crypto_shorthash_KEYBYTES]; /* random: no input can be made to collide */
};

static bool names_add(struct names *names, struct span custom_id, uint32_t position, struct err *err)
{
    struct block *block;
    uint64_t hash;

    crypto_shorthash((uint8_t *)&hash, custom_id.data, custom_id.size, names->key);
    hash += hash == 0;
    block = &names->open[hash >> 56];
    if (block->count == BLOCK_ENTRIES) {
        if (!spool_set(names->full, names->full_count, block, err))
            return false;
        block->before = names->full_count++;
        block->count = 0;
    }
    block->name[block->count++] = (struct name){ .hash = hash, .position = position };
    return true;
}

/* The first line of each name in one bucket. */
struct seen {
    struct name *name; /* hash 0: free */
    size_t capacity, count;
};

static void seen_put(struct seen *seen, struct name name)
{
    size_t at = name.hash & (seen->capacity - 1);

    while (seen->name[at].hash)
        at = (at + 1) & (seen->capacity - 1);
    seen->name[at] = name;
}

static bool seen_grow(struct seen *seen)
{
    struct seen old = *seen;

    if (seen->count * 2 < seen->capacity)
        return true;
    seen->capacity = old.capacity ? old.capacity * 2 : 1024;
    seen->name = calloc(seen->capacity, sizeof *seen->name);
    if (!seen->name) {
        *seen = old;
        return false;
    }
    for (size_t i = 0; i < old.capacity; i++)
        if (old.name[i].hash)
            seen_put(seen, old.name[i]);
    free(old.name);
    return true;
}

/* A line whose custom_id was read once more. */
struct named {
    uint32_t position;
    bool known;
    struct batch_line line;
    struct buf text;
    struct arena arena;
    struct span custom_id; /* in the arena, or in text */
};

static bool read_name(const struct batch_file *file, uint32_t position, struct named *named, struct err *err)
{
    struct request request = { 0 };
    struct request_fault fault;

    named->known = false;
    arena_reset(&named->arena);
    if (!batch_file_line(file, position, &named->line, err) ||
        !read_again(file, &named->line, &named->text, err))
        return false;
    request_read(&named->arena, buf_span(&named->text), &request, &fault);
    named->custom_id = request.custom_id;
    named->position = position;
    named->known = true;
    return true;
}

struct twins {
    struct batch_file *file;
    struct seen seen;
    struct named first, again;
};

static bool take_name(struct twins *twins, struct name name, struct err *err)
{
    struct seen *seen = &twins->seen;
    struct named *first = &twins->first, *again = &twins->again;

    if (!seen_grow(seen))
        return err_set(err, ERR_IO, "no memory for %zu names", seen->count);
    again->known = false;
    for (size_t at = name.hash & (seen->capacity - 1); seen->name[at].hash;
         at = (at + 1) & (seen->capacity - 1)) {
        if (seen->name[at].hash != name.hash)
            continue;
        if ((!first->known || first->position != seen->name[at].position) &&
            !read_name(twins->file, seen->name[at].position, first, err))
            return false;
        if (!again->known && !read_name(twins->file, name.position, again, err))
            return false;
        if (!span_equal(first->custom_id, again->custom_id))
            continue;
        if (again->line.fault != BATCH_GOOD)
            return true; /* what is wrong with it comes first */
        again->line.fault = BATCH_DUPLICATE;
        again->line.twin = first->line.number;
        digest_bad(again->line.digest, "twin", buf_span(&again->text));
        twins->file->bad_count++;
        return spool_set(twins->file->index, name.position, &again->line, err);
    }
    seen_put(seen, name);
    seen->count++;
    return true;
}

static bool take_block(struct twins *twins, const struct block *block, struct err *err)
{
    for (uint32_t i = 0; i < block->count; i++)
        if (!take_name(twins, block->name[i], err))
            return false;
    return true;
}

/* The blocks of a bucket are chained from the last to the first, and taken from the first to the last. */
static bool take_bucket(struct twins *twins, struct names *names, const struct block *last, struct err *err)
{
    struct buf chain = { 0 };
    struct block block;
    bool ok = true;

    for (uint32_t at = last->before; ok && at != NO_BLOCK; at = block.before)
        ok = spool_get(names->full, at, &block, err) &&
             (buf_add(&chain, &at, sizeof at) || err_set(err, ERR_IO, "no memory for a list of names"));
    for (size_t i = chain.size / sizeof(uint32_t); ok && i > 0; i--) {
        uint32_t at;

        memcpy(&at, chain.data + (i - 1) * sizeof at, sizeof at);
        ok = stop_check(err) && spool_get(names->full, at, &block, err) && take_block(twins, &block, err);
    }
    buf_fini(&chain);
    return ok && take_block(twins, last, err);
}

static bool find_twins(struct batch_file *file, struct names *names, struct err *err)
{
    struct twins twins = { .file = file };
    bool ok = true;

    arena_init(&twins.first.arena, 0);
    arena_init(&twins.again.arena, 0);
    for (int i = 0; ok && i < BUCKETS; i++) {
        ok = take_bucket(&twins, names, &names->open[i], err);
        if (twins.seen.count)
            memset(twins.seen.name, 0, twins.seen.capacity * sizeof *twins.seen.name);
        twins.seen.count = 0;
    }
    free(twins.seen.name);
    arena_fini(&twins.first.arena);
    arena_fini(&twins.again.arena);
    buf_fini(&twins.first.text);
    buf_fini(&twins.again.text);
    return ok;
}

/* ---- the first pass -------------------------------------------------------------------------------- */

struct check {
    struct batch_file *file;
    struct names *names;
    struct arena arena;
};

/* text: the line, unless it was too long to keep; then hash is of its bytes. */
static bool add_line(struct check *check, uint64_t offset, uint64_t size, uint32_t number,
                     const struct span *text, crypto_generichash_state *hash, struct err *err)
{
    struct batch_file *file = check->file;
    struct batch_line line = { .offset = offset, .size = size, .number = number };
    struct request_fault fault;
    struct request request;

    if (file->count == BATCH_LINES_MAX)
        return err_set(err, ERR_LIMIT, "%s has more than %d requests; split it", file->name, BATCH_LINES_MAX);
    arena_reset(&check->arena);
    if (!text) {
        uint8_t bytes[32];

        line.fault = BATCH_TOO_LONG;
        crypto_generichash_final(hash, bytes, sizeof bytes);
        digest_bad(line.digest, "long", span_of(bytes, sizeof bytes));
    } else {
        if (!judge(&check->arena, *text, &request, &fault, line.digest))
            line.fault = BATCH_WRONG;
        if (request.custom_id.size && !names_add(check->names, request.custom_id, (uint32_t)file->count, err))
            return false;
    }
    file->bad_count += line.fault != BATCH_GOOD;
    return spool_set(file->index, file->count++, &line, err);
}

/* When all is known of every line: what is wrong is reported, and the digest of the whole is made. */
static bool sum_up(struct batch_file *file, batch_report *report, void *arg, struct err *err)
{
    crypto_generichash_state whole;
    struct arena arena;
    struct request request;
    struct request_fault fault;
    uint64_t reported = 0;
    bool refused, ok = true;

    arena_init(&arena, 0);
    crypto_generichash_init(&whole, NULL, 0, sizeof file->digest);
    for (size_t i = 0; ok && i < file->count; i++) {
        struct batch_line line;

        ok = batch_file_line(file, i, &line, err);
        if (!ok)
            break;
        crypto_generichash_update(&whole, line.digest, sizeof line.digest);
        if (line.fault == BATCH_GOOD || !report)
            continue;
        if (++reported > BATCH_REPORTED_MAX) {
            report(arg, line.number, NULL);
            continue;
        }
        arena_reset(&arena);
        ok = batch_file_read(file, i, &arena, &request, &fault, &refused, err);
        if (ok)
            report(arg, line.number, &fault);
    }
    crypto_generichash_final(&whole, file->digest, sizeof file->digest);
    arena_fini(&arena);
    return ok;
}

static bool is_blank(struct span text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] != ' ' && text.data[i] != '\t' && text.data[i] != '\r')
            return false;
    return true;
}

/* A line being gathered across chunks. */
struct gather {
    struct buf text;
    uint64_t offset, size;
    bool too_long;
    crypto_generichash_state hash;
};

static bool gather_add(struct gather *gather, struct span piece, struct err *err)
{
    gather->size += piece.size;
    if (!gather->too_long && gather->size > REQUEST_LINE_MAX + 1) { /* one more: a CR may stand at its end */
        gather->too_long = true;
        crypto_generichash_init(&gather->hash, NULL, 0, 32);
        crypto_generichash_update(&gather->hash, gather->text.data, gather->text.size);
        gather->text.size = 0;
    }
    if (gather->too_long)
        crypto_generichash_update(&gather->hash, piece.data, piece.size);
    else if (!buf_add(&gather->text, piece.data, piece.size))
        return err_set(err, ERR_IO, "no memory for a line");
    return true;
}

static bool gather_end(struct check *check, struct gather *gather, uint32_t number, struct err *err)
{
    struct span text = buf_span(&gather->text);
    uint64_t offset = gather->offset, size = gather->size;
    bool ok = true;

    if (gather->too_long) {
        ok = add_line(check, offset, size, number, NULL, &gather->hash, err);
    } else {
        if (offset == 0 && text.size >= 3 && !memcmp(text.data, "\xef\xbb\xbf", 3)) {
            text = span_of(text.data + 3, text.size - 3);
            offset += 3;
        }
        if (text.size && text.data[text.size - 1] == '\r')
            text.size--;
        if (text.size > REQUEST_LINE_MAX) {
            crypto_generichash_init(&gather->hash, NULL, 0, 32);
            crypto_generichash_update(&gather->hash, text.data, text.size);
            ok = add_line(check, offset, text.size, number, NULL, &gather->hash, err);
        } else if (!is_blank(text)) {
            ok = add_line(check, offset, text.size, number, &text, NULL, err);
        }
    }
    gather->offset += gather->size + 1;
    gather->size = gather->text.size = 0;
    gather->too_long = false;
    return ok;
}

static bool enough(const struct batch_file *file)
{
    return file->limit && file->count >= file->limit;
}

bool batch_file_check(struct batch_file *file, batch_report *report, void *arg, struct err *err)
{
    struct check check = { .file = file, .names = calloc(1, sizeof *check.names) };
    struct gather gather = { 0 };
    uint8_t *chunk = malloc(CHUNK);
    const char *dir = *file->spool_dir ? file->spool_dir : NULL;
    uint64_t at = 0;
    uint32_t number = 1;
    bool ok = false;

    spool_free(file->index);
    file->index = NULL;
    file->count = file->bad_count = 0;
    arena_init(&check.arena, 0);
    if (!chunk || !check.names) {
        err_set(err, ERR_IO, "no memory to read %s", file->name);
        goto out;
    }
    for (int i = 0; i < BUCKETS; i++)
        check.names->open[i].before = NO_BLOCK;
    randombytes_buf(check.names->key, sizeof check.names->key);
    if (!spool_new(&file->index, dir, sizeof(struct batch_line), err) ||
        !spool_new(&check.names->full, dir, sizeof(struct block), err)) {
        err_wrap(err, "%s", file->name);
        goto out;
    }
    while (!enough(file)) {
        ssize_t n = pread(file->fd, chunk, CHUNK, (off_t)at);
        struct span rest;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_errno(err, "read %s", file->name);
            goto out;
        }
        if (n == 0)
            break;
        at += (uint64_t)n;
        rest = span_of(chunk, (size_t)n);
        while (rest.size && !enough(file)) {
            const uint8_t *end = memchr(rest.data, '\n', rest.size);
            size_t size = end ? (size_t)(end - rest.data) : rest.size;

            if (!gather_add(&gather, span_of(rest.data, size), err))
                goto out;
            if (!end)
                break;
            if (!stop_check(err) || !gather_end(&check, &gather, number, err))
                goto out;
            number++;
            rest = span_of(end + 1, rest.size - size - 1);
        }
    }
    if (!enough(file) && gather.size && !gather_end(&check, &gather, number, err))
        goto out;
    /* Neither is needed for what follows, which has its own. */
    free(chunk);
    chunk = NULL;
    buf_fini(&gather.text);
    ok = find_twins(file, check.names, err) && sum_up(file, report, arg, err);
out:
    free(chunk);
    buf_fini(&gather.text);
    arena_fini(&check.arena);
    if (check.names)
        spool_free(check.names->full);
    free(check.names);
    return ok;
}

bool batch_file_read(const struct batch_file *file, size_t position, struct arena *arena,
                     struct request *request, struct request_fault *fault, bool *refused, struct err *err)
{
    struct batch_line kept_line, *line = &kept_line;
    uint8_t digest[BATCH_DIGEST_SIZE];
    struct buf text = { 0 };
    uint8_t *kept;

    memset(request, 0, sizeof *request);
    *refused = true;
    if (!batch_file_line(file, position, line, err))
        return false;
    if (line->fault == BATCH_TOO_LONG) {
        fault_too_long(fault, line->size);
        return true;
    }
    if (!read_again(file, line, &text, err)) {
        buf_fini(&text);
        return false;
    }
    kept = (uint8_t *)arena_copy(arena, text.data, text.size); /* request_read may point into it */
    buf_fini(&text);
    if (!kept)
        return err_set(err, ERR_IO, "no memory for line %u", line->number);
    *refused = !judge(arena, span_of(kept, line->size), request, fault, digest);
    if (line->fault == BATCH_DUPLICATE && !*refused) {
        *refused = true;
        digest_bad(digest, "twin", span_of(kept, line->size));
        fault_duplicate(fault, request->custom_id, line->twin);
    }
    if (memcmp(digest, line->digest, sizeof digest) != 0)
        return err_set(err, ERR_CONFLICT, "%s, line %u: the file was changed while it was read", file->name,
                       line->number);
    return true;
}
