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

bool batch_file_open(struct batch_file *file, const char *path, const char *spool, struct err *err)
{
    bool standard = !strcmp(path, "-");
    struct stat st;
    int from, to = -1;
    char *chunk = NULL;
    bool ok = false;

    memset(file, 0, sizeof *file);
    file->fd = -1;
    snprintf(file->name, sizeof file->name, "%s", standard ? "standard input" : path);
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
    for (;;) {
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
    free(file->line);
    memset(file, 0, sizeof *file);
    file->fd = -1;
}

/* ---- which custom_ids there were: hashes, verified against the file on a match --------------------- */

struct seen {
    uint64_t *hash; /* 0: free */
    uint32_t *position;
    size_t capacity, count;
    uint8_t key[crypto_shorthash_KEYBYTES]; /* random: no input can be made to collide */
};

static void seen_put(struct seen *seen, uint64_t hash, uint32_t position)
{
    size_t at = hash & (seen->capacity - 1);

    while (seen->hash[at])
        at = (at + 1) & (seen->capacity - 1);
    seen->hash[at] = hash;
    seen->position[at] = position;
}

static bool seen_grow(struct seen *seen)
{
    struct seen old = *seen;

    if (seen->count * 2 < seen->capacity)
        return true;
    seen->capacity = old.capacity ? old.capacity * 2 : 1024;
    seen->hash = calloc(seen->capacity, sizeof *seen->hash);
    seen->position = calloc(seen->capacity, sizeof *seen->position);
    if (!seen->hash || !seen->position) {
        free(seen->hash);
        free(seen->position);
        *seen = old;
        return false;
    }
    for (size_t i = 0; i < old.capacity; i++)
        if (old.hash[i])
            seen_put(seen, old.hash[i], old.position[i]);
    free(old.hash);
    free(old.position);
    return true;
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

struct check {
    struct batch_file *file;
    struct seen seen;
    struct arena arena;
    struct buf again; /* an earlier line, read once more */
    size_t capacity;
    batch_report *report;
    void *arg;
    crypto_generichash_state whole;
};

/* The number of the earlier line that has this custom_id, or 0. */
static bool find_twin(struct check *check, struct span custom_id, uint64_t hash, uint32_t *twin,
                      struct err *err)
{
    const struct seen *seen = &check->seen;

    *twin = 0;
    for (size_t at = hash & (seen->capacity - 1); seen->hash[at]; at = (at + 1) & (seen->capacity - 1)) {
        const struct batch_line *line = &check->file->line[seen->position[at]];
        struct arena arena;
        struct request request = { 0 };
        struct request_fault fault;
        bool same;

        if (seen->hash[at] != hash)
            continue;
        if (!read_again(check->file, line, &check->again, err))
            return false;
        arena_init(&arena, 0);
        request_read(&arena, buf_span(&check->again), &request, &fault);
        same = span_equal(request.custom_id, custom_id);
        arena_fini(&arena);
        if (same) {
            *twin = line->number;
            return true;
        }
    }
    return true;
}

/* text: the line, unless it was too long to keep; then hash is of its bytes. */
static bool add_line(struct check *check, uint64_t offset, uint64_t size, uint32_t number,
                     const struct span *text, crypto_generichash_state *hash, struct err *err)
{
    struct batch_file *file = check->file;
    struct batch_line *line;
    struct request_fault fault;
    struct request request;

    if (file->count == BATCH_LINES_MAX)
        return err_set(err, ERR_LIMIT, "%s has more than %d requests; split it", file->name, BATCH_LINES_MAX);
    if (file->count == check->capacity) {
        size_t capacity = check->capacity ? check->capacity * 2 : 256;
        struct batch_line *grown = realloc(file->line, capacity * sizeof *grown);

        if (!grown)
            return err_set(err, ERR_IO, "no memory for %zu lines", capacity);
        file->line = grown;
        check->capacity = capacity;
    }
    line = &file->line[file->count];
    *line = (struct batch_line){ .offset = offset, .size = size, .number = number };
    arena_reset(&check->arena);
    if (!text) {
        uint8_t bytes[32];

        line->fault = BATCH_TOO_LONG;
        crypto_generichash_final(hash, bytes, sizeof bytes);
        digest_bad(line->digest, "long", span_of(bytes, sizeof bytes));
        fault_too_long(&fault, size);
    } else {
        if (!judge(&check->arena, *text, &request, &fault, line->digest))
            line->fault = BATCH_WRONG;
        if (request.custom_id.size) {
            uint64_t h;
            uint32_t twin;

            if (!seen_grow(&check->seen))
                return err_set(err, ERR_IO, "no memory for %zu names", check->seen.count);
            crypto_shorthash((uint8_t *)&h, request.custom_id.data, request.custom_id.size, check->seen.key);
            h += h == 0;
            if (!find_twin(check, request.custom_id, h, &twin, err))
                return false;
            if (!twin) {
                seen_put(&check->seen, h, (uint32_t)file->count);
                check->seen.count++;
            } else if (line->fault == BATCH_GOOD) {
                line->fault = BATCH_DUPLICATE;
                line->twin = twin;
                digest_bad(line->digest, "twin", *text);
                fault_duplicate(&fault, request.custom_id, twin);
            }
        }
    }
    if (line->fault != BATCH_GOOD) {
        file->bad_count++;
        if (check->report)
            check->report(check->arg, number, &fault);
    }
    crypto_generichash_update(&check->whole, line->digest, sizeof line->digest);
    file->count++;
    return true;
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

bool batch_file_check(struct batch_file *file, batch_report *report, void *arg, struct err *err)
{
    struct check check = { .file = file, .report = report, .arg = arg };
    struct gather gather = { 0 };
    uint8_t *chunk = malloc(CHUNK);
    uint64_t at = 0;
    uint32_t number = 1;
    bool ok = false;

    free(file->line);
    file->line = NULL;
    file->count = file->bad_count = 0;
    arena_init(&check.arena, 0);
    randombytes_buf(check.seen.key, sizeof check.seen.key);
    crypto_generichash_init(&check.whole, NULL, 0, sizeof file->digest);
    if (!chunk) {
        err_set(err, ERR_IO, "no memory to read %s", file->name);
        goto out;
    }
    for (;;) {
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
        while (rest.size) {
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
    if (gather.size && !gather_end(&check, &gather, number, err))
        goto out;
    crypto_generichash_final(&check.whole, file->digest, sizeof file->digest);
    ok = true;
out:
    free(chunk);
    buf_fini(&gather.text);
    buf_fini(&check.again);
    arena_fini(&check.arena);
    free(check.seen.hash);
    free(check.seen.position);
    return ok;
}

bool batch_file_read(const struct batch_file *file, size_t position, struct arena *arena,
                     struct request *request, struct request_fault *fault, bool *refused, struct err *err)
{
    const struct batch_line *line = &file->line[position];
    uint8_t digest[BATCH_DIGEST_SIZE];
    struct buf text = { 0 };
    uint8_t *kept;

    memset(request, 0, sizeof *request);
    *refused = true;
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
