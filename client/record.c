#include "client/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/files.h"

enum {
    RECORD_VERSION = 1,
    RECORD_BYTES_MAX = 64 * 1024,
    MARK_WHOLE_MAX = 32 * 1024 * 1024, /* a file up to this is digested whole */
    MARK_ENDS = 256 * 1024,            /* else so much of both its ends */
    MARK_FILES_MAX = 4096,
    LINES_AT_ONCE = 512,
};

/* ---- the file ------------------------------------------------------------------------------- */

static json_t *hex64(uint64_t value)
{
    char text[17];

    snprintf(text, sizeof text, "%016" PRIx64, value);
    return json_string(text);
}

bool record_save(const struct record *r, const char *state, struct err *err)
{
    char path[RECORD_PATH_MAX];
    json_t *root = json_object();
    char *text = NULL;
    bool ok = false;

    /* Paths and names may hold any bytes; what is not UTF-8 cannot be kept. */
    if (!root || json_object_set_new(root, "moothall_run", json_integer(RECORD_VERSION)) ||
        json_object_set_new(root, "output", json_string(r->is.output)) ||
        json_object_set_new(root, "model", json_string(r->is.model)) ||
        json_object_set_new(root, "model_mark", json_string(r->is.model_mark)) ||
        json_object_set_new(root, "broker", json_string(r->is.broker)) ||
        json_object_set_new(root, "queue", json_string(r->is.queue)) ||
        json_object_set_new(root, "batch_wanted", json_string(r->is.batch_wanted)) ||
        json_object_set_new(root, "weights", json_string(r->is.weights)) ||
        json_object_set_new(root, "chat_template", json_string(r->is.chat_template)) ||
        json_object_set_new(root, "order", json_string(r->is.order)) ||
        json_object_set_new(root, "on_bad_line", json_string(r->is.on_bad_line)) ||
        json_object_set_new(root, "input", json_string(r->is.input)) ||
        json_object_set_new(root, "lines", json_integer((json_int_t)r->is.lines)) ||
        json_object_set_new(root, "batch", json_string(r->batch)) ||
        json_object_set_new(root, "nonce", json_string(r->nonce)) ||
        json_object_set_new(root, "edition", json_integer(r->edition)) ||
        json_object_set_new(root, "update", json_boolean(r->update)) ||
        json_object_set_new(root, "retry", json_boolean(r->retry)) ||
        json_object_set_new(root, "submitted", json_boolean(r->submitted)) ||
        json_object_set_new(root, "ended", json_boolean(r->ended)) ||
        json_object_set_new(root, "finished", json_boolean(r->finished)) ||
        json_object_set_new(root, "kept", json_boolean(r->kept)) ||
        json_object_set_new(root, "hall", hex64(r->hall)) ||
        json_object_set_new(root, "done", json_integer((json_int_t)r->done)) ||
        json_object_set_new(root, "failed", json_integer((json_int_t)r->failed)) ||
        json_object_set_new(root, "output_bytes", json_integer((json_int_t)r->output_bytes)) ||
        json_object_set_new(root, "family", json_string(r->family)) ||
        json_object_set_new(root, "numerics", json_string(r->numerics)) ||
        json_object_set_new(root, "written_by", json_string("moothall " MOOTHALL_VERSION))) {
        err_set(err, ERR_INPUT, "the run's record cannot be made: is a path or name not UTF-8?");
        goto out;
    }
    text = json_dumps(root, JSON_INDENT(1));
    if (!text) {
        err_set(err, ERR_IO, "no memory for the run's record");
        goto out;
    }
    ok = file_join(path, sizeof path, state, "record.json", err) && file_replace(path, span_text(text), err);
out:
    free(text);
    json_decref(root);
    return ok;
}

static bool text_of(json_t *root, const char *key, char *into, size_t size)
{
    const char *text = json_string_value(json_object_get(root, key));

    if (!text || strlen(text) >= size)
        return false;
    memcpy(into, text, strlen(text) + 1);
    return true;
}

static bool number_of(json_t *root, const char *key, uint64_t *into)
{
    json_t *value = json_object_get(root, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *into = (uint64_t)json_integer_value(value);
    return true;
}

bool record_load(struct record *r, const char *state, struct err *err)
{
    char path[RECORD_PATH_MAX], hall[17];
    struct buf text = { 0 };
    json_error_t why;
    json_t *root;
    uint64_t version = 0, edition = 0;
    bool ok;

    memset(r, 0, sizeof *r);
    if (!file_join(path, sizeof path, state, "record.json", err))
        return false;
    if (!file_read(path, RECORD_BYTES_MAX, &text, err)) {
        buf_fini(&text);
        return false;
    }
    root = json_loadb((const char *)text.data, text.size, 0, &why);
    buf_fini(&text);
    if (!root || !number_of(root, "moothall_run", &version)) {
        json_decref(root);
        return err_set(err, ERR_INPUT, "%s is not the record of a run; --restart begins anew", path);
    }
    if (version != RECORD_VERSION) {
        json_decref(root);
        return err_set(err, ERR_INPUT,
                       "%s has version %" PRIu64 ", this program knows %d; --restart begins anew", path,
                       version, RECORD_VERSION);
    }
    ok = text_of(root, "output", r->is.output, sizeof r->is.output) &&
         text_of(root, "model", r->is.model, sizeof r->is.model) &&
         text_of(root, "model_mark", r->is.model_mark, sizeof r->is.model_mark) &&
         text_of(root, "broker", r->is.broker, sizeof r->is.broker) &&
         text_of(root, "queue", r->is.queue, sizeof r->is.queue) &&
         text_of(root, "batch_wanted", r->is.batch_wanted, sizeof r->is.batch_wanted) &&
         text_of(root, "weights", r->is.weights, sizeof r->is.weights) &&
         text_of(root, "chat_template", r->is.chat_template, sizeof r->is.chat_template) &&
         text_of(root, "order", r->is.order, sizeof r->is.order) &&
         text_of(root, "on_bad_line", r->is.on_bad_line, sizeof r->is.on_bad_line) &&
         text_of(root, "input", r->is.input, sizeof r->is.input) && number_of(root, "lines", &r->is.lines) &&
         text_of(root, "batch", r->batch, sizeof r->batch) &&
         text_of(root, "nonce", r->nonce, sizeof r->nonce) && number_of(root, "edition", &edition) &&
         text_of(root, "hall", hall, sizeof hall) && number_of(root, "done", &r->done) &&
         number_of(root, "failed", &r->failed) && number_of(root, "output_bytes", &r->output_bytes) &&
         text_of(root, "family", r->family, sizeof r->family) &&
         text_of(root, "numerics", r->numerics, sizeof r->numerics);
    r->edition = (uint32_t)edition;
    r->update = json_is_true(json_object_get(root, "update"));
    r->retry = json_is_true(json_object_get(root, "retry"));
    r->submitted = json_is_true(json_object_get(root, "submitted"));
    r->ended = json_is_true(json_object_get(root, "ended"));
    r->finished = json_is_true(json_object_get(root, "finished"));
    r->kept = json_is_true(json_object_get(root, "kept"));
    if (ok)
        r->hall = strtoull(hall, NULL, 16);
    json_decref(root);
    return ok || err_set(err, ERR_INPUT, "%s is not a whole record of a run; --restart begins anew", path);
}

/* ---- the lines -------------------------------------------------------------------------------- */

static bool lines_path(char *path, size_t size, const char *state, uint32_t edition, struct err *err)
{
    char name[32];

    snprintf(name, sizeof name, "lines-%u", edition);
    return file_join(path, size, state, name, err);
}

bool record_lines_save(const struct batch_file *file, const char *state, uint32_t edition, struct err *err)
{
    char path[RECORD_PATH_MAX], aside[RECORD_PATH_MAX + 4];
    uint8_t digests[LINES_AT_ONCE * BATCH_DIGEST_SIZE];
    size_t size = 0;
    int fd;
    bool ok = true;

    if (!lines_path(path, sizeof path, state, edition, err))
        return false;
    snprintf(aside, sizeof aside, "%s.new", path);
    fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, "write %s", aside);
    for (size_t i = 0; ok && i < file->count; i++) {
        struct batch_line line;

        ok = batch_file_line(file, i, &line, err);
        if (!ok)
            break;
        memcpy(digests + size, line.digest, BATCH_DIGEST_SIZE);
        size += BATCH_DIGEST_SIZE;
        if (size == sizeof digests || i + 1 == file->count) {
            ok = file_write_all(fd, span_of(digests, size), aside, err);
            size = 0;
        }
    }
    return file_close_in_place(fd, ok, aside, path, err);
}

void record_lines_remove(const char *state, uint32_t edition)
{
    char path[RECORD_PATH_MAX];

    if (lines_path(path, sizeof path, state, edition, NULL))
        unlink(path);
}

bool record_lines_changed(const struct batch_file *file, const char *state, uint32_t edition, char *what,
                          int size, struct err *err)
{
    char path[RECORD_PATH_MAX];
    struct batch_line line = { 0 };
    struct stat st;
    size_t count, i;
    bool changed = true;
    FILE *old;

    err->code = ERR_NONE;
    if (!lines_path(path, sizeof path, state, edition, err))
        return false;
    old = fopen(path, "re");
    if (!old || fstat(fileno(old), &st) != 0) {
        err_errno(err, "open %s", path);
        if (old)
            fclose(old);
        return false;
    }
    count = (size_t)st.st_size / BATCH_DIGEST_SIZE;
    for (i = 0; i < count && i < file->count; i++) {
        uint8_t digest[BATCH_DIGEST_SIZE];

        if (fread(digest, sizeof digest, 1, old) != 1)
            count = i; /* it was cut meanwhile: no worse than one that was cut before */
        else if (!batch_file_line(file, i, &line, err)) {
            fclose(old);
            return false;
        } else if (memcmp(digest, line.digest, sizeof digest) != 0)
            break;
    }
    fclose(old);
    if (i >= count && i < file->count && !batch_file_line(file, i, &line, err))
        return false;
    if (i < count && i < file->count)
        snprintf(what, (size_t)size, "line %u is another request than it was", line.number);
    else if (i < file->count)
        snprintf(what, (size_t)size, "line %u is new (there were %zu requests)", line.number, count);
    else if (i < count)
        snprintf(what, (size_t)size, "it ends after %zu requests (there were %zu)", file->count, count);
    else
        changed = false;
    return changed;
}

/* ---- the model's mark --------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool mark_file(crypto_generichash_state *hash, const char *dir, const char *name, struct err *err)
{
    char path[RECORD_PATH_MAX];
    struct stat st;
    uint8_t *bytes = NULL;
    size_t ends = MARK_ENDS;
    int fd;
    bool ok = false;

    if (!file_join(path, sizeof path, dir, name, err))
        return false;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        err_errno(err, "open %s", path);
        goto out;
    }
    crypto_generichash_update(hash, (const uint8_t *)name, strlen(name) + 1);
    crypto_generichash_update(hash, (const uint8_t *)&(uint64_t){ (uint64_t)st.st_size }, sizeof(uint64_t));
    bytes = malloc(MARK_ENDS);
    if (!bytes) {
        err_set(err, ERR_IO, "no memory to read %s", path);
        goto out;
    }
    for (off_t at = 0; at < st.st_size;) {
        ssize_t n = pread(fd, bytes, ends, at);

        if (n <= 0) {
            err_errno(err, "read %s", path);
            goto out;
        }
        crypto_generichash_update(hash, bytes, (size_t)n);
        at += n;
        if (st.st_size > MARK_WHOLE_MAX && at < st.st_size - MARK_ENDS)
            at = st.st_size - MARK_ENDS;
    }
    ok = true;
out:
    free(bytes);
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool is_models(const char *name)
{
    size_t n = strlen(name);
    static const char *const ends[] = { ".json", ".safetensors", ".jinja" };

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (n > strlen(ends[i]) && !strcmp(name + n - strlen(ends[i]), ends[i]))
            return true;
    return false;
}

bool model_mark(const char *dir, char mark[65], struct err *err)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    char **name = NULL;
    size_t count = 0;
    uint8_t digest[32];
    crypto_generichash_state hash;
    bool ok = true;

    if (!d) {
        int why = errno;

        if (why == ENOENT || why == ENOTDIR)
            return err_set(err, ERR_NOT_FOUND,
                           "%s: there is no such directory; expected a model in Hugging Face layout", dir);
        errno = why;
        return err_errno(err, "open model %s", dir);
    }
    name = calloc(MARK_FILES_MAX, sizeof *name);
    if (!name)
        ok = err_set(err, ERR_IO, "no memory to list %s", dir);
    while (ok && (entry = readdir(d))) {
        if (!is_models(entry->d_name))
            continue;
        if (count == MARK_FILES_MAX)
            ok = err_set(err, ERR_LIMIT, "%s holds more than %d model files", dir, MARK_FILES_MAX);
        else if (!(name[count++] = strdup(entry->d_name)))
            ok = err_set(err, ERR_IO, "no memory to list %s", dir);
    }
    closedir(d);
    if (ok && !count)
        ok = err_set(err, ERR_INPUT, "%s: no config.json; expected a model in Hugging Face layout", dir);
    crypto_generichash_init(&hash, NULL, 0, sizeof digest);
    if (ok)
        qsort(name, count, sizeof *name, by_name);
    for (size_t i = 0; ok && i < count; i++)
        ok = mark_file(&hash, dir, name[i], err);
    if (ok) {
        crypto_generichash_final(&hash, digest, sizeof digest);
        sodium_bin2hex(mark, 65, digest, sizeof digest);
    }
    for (size_t i = 0; i < count; i++)
        free(name[i]);
    free(name);
    return ok;
}

/* ---- what a command means ------------------------------------------------------------------------ */

void record_batch_name(char name[RECORD_NAME_MAX + 1], const struct run_identity *is, const char *salt)
{
    crypto_generichash_state state;
    uint8_t digest[16];
    const char *part[] = { is->queue, is->input, is->on_bad_line, is->weights, is->chat_template, salt };

    crypto_generichash_init(&state, NULL, 0, sizeof digest);
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        crypto_generichash_update(&state, (const uint8_t *)part[i], strlen(part[i]) + 1);
    crypto_generichash_final(&state, digest, sizeof digest);
    strcpy(name, "batch-");
    sodium_bin2hex(name + 6, 2 * sizeof digest + 1, digest, sizeof digest);
}

/* The first option that makes this another run, as words; NULL when all are the same. */
static const char *option_changed(const struct run_identity *was, const struct run_identity *now, char *text,
                                  size_t size)
{
    const struct {
        const char *name, *was, *now;
    } option[] = {
        { "--weights", was->weights, now->weights },
        { "--chat-template", was->chat_template, now->chat_template },
        { "--order", was->order, now->order },
        { "--on-bad-line", was->on_bad_line, now->on_bad_line },
        { "--queue", was->queue, now->queue },
        { "--broker", was->broker, now->broker },
        { "--batch", was->batch_wanted, now->batch_wanted },
        { "-o", was->output, now->output },
    };

    for (size_t i = 0; i < sizeof option / sizeof *option; i++)
        if (strcmp(option[i].was, option[i].now) != 0) {
            snprintf(text, size, "%s was `%.200s` and is now `%.200s`", option[i].name, option[i].was,
                     option[i].now);
            return text;
        }
    return NULL;
}

enum run_means record_decide(const struct record *record, const struct run_identity *now,
                             const struct run_asks *asks, const char *changed, bool *update, bool *retry,
                             struct err *err)
{
    char text[512];
    const char *option;
    bool same_input, same_model;

    *update = *retry = false;
    if (asks->restart)
        return RUN_START;
    if (!record) {
        if (asks->output_is_file && asks->output_exists) {
            err_set(err, ERR_CONFLICT,
                    "%s exists and no earlier run wrote it; name another file, or --restart to write over it",
                    now->output);
            return RUN_REFUSE;
        }
        return RUN_START;
    }
    option = option_changed(&record->is, now, text, sizeof text);
    same_input = !strcmp(record->is.input, now->input) && record->is.lines == now->lines;
    same_model = !strcmp(record->is.model_mark, now->model_mark);
    if (record->finished) {
        if (asks->output_is_file && !asks->output_exists && record->output_bytes > 0)
            return RUN_START; /* its output is gone: somebody wants it again */
        if (asks->output_is_file && asks->output_bytes != record->output_bytes) {
            err_set(err, ERR_CONFLICT,
                    "%s was changed since it was written (%" PRIu64 " bytes, now %" PRIu64
                    "); name another file, or --restart to write over it",
                    now->output, record->output_bytes, asks->output_bytes);
            return RUN_REFUSE;
        }
        if (same_input && !option && same_model)
            return RUN_COMPLETE;
        if (asks->update && asks->store_exists && !option && same_model) {
            *update = true;
            return RUN_EDITION;
        }
        return RUN_START;
    }
    if (!record->hall && !(asks->output_is_file && asks->output_exists))
        return RUN_START; /* it never reached a hall: nothing of it is anywhere */
    if (option) {
        err_set(err, ERR_CONFLICT,
                "an earlier run of %s is not finished, and %s; run it as before, or --restart", now->output,
                option);
        return RUN_REFUSE;
    }
    /* No family: no worker was ever ready, so there is no result of another model yet (should there be, the
     * broker compares fingerprints). */
    if (!same_model && *record->family) {
        err_set(err, ERR_CONFLICT,
                "an earlier run of %s is not finished, and the model has changed since (%.200s); "
                "results of two models do not go into one output: --restart begins anew",
                now->output, now->model);
        return RUN_REFUSE;
    }
    if (!same_input && !asks->update) {
        err_set(err, ERR_CONFLICT,
                "the input has changed since the run began: %s; --update does the changed requests, "
                "--restart all",
                changed ? changed : "its requests are others");
        return RUN_REFUSE;
    }
    *update = !same_input;
    *retry = asks->retry_failed && (record->ended || !record->retry);
    if (*update || *retry)
        return RUN_EDITION;
    if (!record->ended)
        return RUN_CONTINUE;
    if (!asks->output_is_file || asks->output_bytes == record->output_bytes)
        return RUN_OVER;
    if (!asks->output_exists)
        return RUN_CONTINUE; /* it is gone, the results are not: they are written again */
    err_set(err, ERR_CONFLICT,
            "%s was changed since it was written (%" PRIu64 " bytes, now %" PRIu64
            "); remove it and it is written again",
            now->output, record->output_bytes, asks->output_bytes);
    return RUN_REFUSE;
}
