#include "client/output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/files.h"
#include "client/when.h"

enum {
    ITEMS_MAX = 256,
    BYTES_MAX = 4 << 20,
    PENDING_MAX = 256 << 10, /* written to the file when it is larger */
    KEEP_EVERY_MS = 500,   /* an fsync and a cursor: not for every entry */
};

#define LINE_BEGIN "{\"id\":\"batch_req_"

/* ---- one line --------------------------------------------------------------------------------- */

static bool add_text(struct buf *out, const char *text, size_t size)
{
    bool ok = buf_text(out, "\"");

    for (size_t i = 0, from = 0; ok && i <= size; i++) {
        unsigned char c = i < size ? (unsigned char)text[i] : 0;

        if (i < size && c >= 0x20 && c != '"' && c != '\\')
            continue;
        ok = buf_add(out, text + from, i - from);
        from = i + 1;
        if (i == size)
            break;
        if (c == '"' || c == '\\')
            ok = ok && buf_format(out, "\\%c", c);
        else
            ok = ok && buf_format(out, "\\u%04x", c);
    }
    return ok && buf_text(out, "\"");
}

/* Bodies are one line each; a raw line end in one (nothing of ours writes it) must not make two of it. */
static bool add_body(struct buf *out, struct span body)
{
    size_t from = out->size;

    if (!buf_add(out, body.data, body.size))
        return false;
    for (size_t i = from; i < out->size; i++)
        if (out->data[i] == '\n' || out->data[i] == '\r')
            out->data[i] = ' ';
    return true;
}

/* The size of `{"object":"...",` at the start of a body; 0 when it begins otherwise. */
static size_t object_size(struct span body)
{
    static const char start[] = "{\"object\":\"";
    const size_t n = sizeof start - 1;

    if (body.size < n || memcmp(body.data, start, n) != 0)
        return 0;
    for (size_t i = n; i + 1 < body.size && i < n + 64; i++)
        if (body.data[i] == '"')
            return body.data[i + 1] == ',' ? i + 2 : 0;
    return 0;
}

/* Token counts from the body's last member named usage.  Inside a JSON text the quotes would be escaped,
 * so this can only be a key. */
static void usage_of(struct span body, int64_t *prompt, int64_t *generated)
{
    static const char key[] = "\"usage\":";
    const uint8_t *at = NULL;
    json_t *usage;

    *prompt = *generated = 0;
    for (const uint8_t *p = body.data;
         p && (p = memmem(p, body.size - (size_t)(p - body.data), key, sizeof key - 1)); p++)
        at = p + sizeof key - 1;
    if (!at)
        return;
    usage = json_loadb((const char *)at, body.size - (size_t)(at - body.data), JSON_DISABLE_EOF_CHECK, NULL);
    *prompt = json_integer_value(json_object_get(usage, "prompt_tokens"));
    *generated = json_integer_value(json_object_get(usage, "completion_tokens"));
    json_decref(usage);
}

static bool add_response(struct buf *out, const Moothall__Entry *entry, struct span body)
{
    if (!buf_format(out, "{\"status_code\":%u,\"request_id\":", entry->status_code) ||
        !add_text(out, entry->job, strlen(entry->job)) || !buf_text(out, ",\"body\":"))
        return false;
    if (entry->state == MOOTHALL__STATE__DONE && body.size > 2 && body.data[0] == '{') {
        bool chat = strcmp(entry->endpoint, "/v1/completions") != 0;
        size_t front = object_size(body);
        int64_t created_s = entry->finished_ms / 1000;

        /* id, object, created, then the rest as the worker wrote it */
        return buf_format(out, "{\"id\":\"%s-%s\",", chat ? "chatcmpl" : "cmpl", entry->job) &&
               buf_add(out, body.data + 1, front ? front - 1 : 0) &&
               buf_format(out, "\"created\":%" PRId64 ",", created_s) &&
               add_body(out, span_of(body.data + (front ? front : 1), body.size - (front ? front : 1))) &&
               buf_text(out, "}");
    }
    return (body.size ? add_body(out, body) : buf_text(out, "null")) && buf_text(out, "}");
}

static const char *code_of(Moothall__State state)
{
    switch (state) {
    case MOOTHALL__STATE__DEAD:
        return "job_dead";
    case MOOTHALL__STATE__CANCELLED:
        return "batch_cancelled"; /* as OpenAI has it */
    case MOOTHALL__STATE__EXPIRED:
        return "batch_expired";
    default:
        return "job_failed";
    }
}

bool output_error(struct buf *out, const Moothall__Entry *entry, struct span body)
{
    const char *code = code_of(entry->state), *message = entry->reason;
    json_t *root = NULL, *error;
    bool ok;

    if (entry->purged_ms) {
        char when[WHEN_WRITTEN_SIZE];

        return buf_format(out, "{\"code\":\"result_purged\",\"message\":\"its result was purged on %s\"}",
                          when_write(when, entry->purged_ms));
    }
    if (entry->state == MOOTHALL__STATE__DONE)
        return buf_text(out, "null");
    if (entry->state == MOOTHALL__STATE__FAILED) {
        root = json_loadb((const char *)body.data, body.size, 0, NULL);
        error = json_object_get(root, "error");
        if (json_is_string(json_object_get(error, "message")))
            message = json_string_value(json_object_get(error, "message"));
        if (json_is_string(json_object_get(error, "code")))
            code = json_string_value(json_object_get(error, "code"));
        else if (json_is_string(json_object_get(error, "type")))
            code = json_string_value(json_object_get(error, "type"));
    }
    ok = buf_text(out, "{\"code\":") && add_text(out, code, strlen(code)) && buf_text(out, ",\"message\":") &&
         add_text(out, message, strlen(message)) && buf_text(out, "}");
    json_decref(root);
    return ok;
}

static bool add_provenance(struct buf *out, const Moothall__Entry *entry, struct span body)
{
    int64_t prompt = entry->prompt_tokens, generated = entry->generated_tokens;

    if (entry->state == MOOTHALL__STATE__DONE && !prompt && !generated) /* a broker that did not keep them */
        usage_of(body, &prompt, &generated);
    return buf_text(out, "{\"numerics\":") &&
           (*entry->numerics ? add_text(out, entry->numerics, strlen(entry->numerics))
                             : buf_text(out, "null")) &&
           buf_format(out, ",\"seed\":%" PRId64 ",\"attempt\":%u,\"infra\":%u,\"generation\":%u,\"worker\":",
                      (int64_t)entry->seed, entry->attempt, entry->infra, entry->generation) &&
           (*entry->worker ? add_text(out, entry->worker, strlen(entry->worker)) : buf_text(out, "null")) &&
           buf_format(out,
                      ",\"prompt_tokens\":%" PRId64 ",\"generated_tokens\":%" PRId64 ",\"cached_tokens\":%u"
                      ",\"created_ms\":%" PRId64 ",\"leased_ms\":%" PRId64 ",\"finished_ms\":%" PRId64 "}",
                      prompt, generated, entry->cached_tokens, entry->created_ms, entry->leased_ms, entry->finished_ms);
}

/* The size of the Unicode line end at p, or 0. */
static size_t line_end_size(const uint8_t *p, const uint8_t *end)
{
    if (end - p >= 2 && p[0] == 0xc2 && p[1] == 0x85)
        return 2;
    return end - p >= 3 && p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9) ? 3 : 0;
}

bool output_one_line(struct buf *out, size_t from)
{
    struct buf line = { 0 };
    size_t start = from;

    for (size_t i = from; i < out->size;) {
        const uint8_t *p = out->data + i;
        size_t n = line_end_size(p, out->data + out->size);

        if (!n) {
            i++;
            continue;
        }
        if (!buf_add(&line, out->data + start, i - start) || !buf_text(&line, n == 2 ? "\\u0085" : p[2] == 0xa8 ? "\\u2028" : "\\u2029"))
            goto no_memory;
        start = i += n;
    }
    if (start == from) /* nearly always */
        return true;
    if (!buf_add(&line, out->data + start, out->size - start))
        goto no_memory;
    out->size = from;
    if (!buf_add(out, line.data, line.size))
        goto no_memory;
    buf_fini(&line);
    return true;
no_memory:
    buf_fini(&line);
    return false;
}

bool output_line(struct buf *out, const Moothall__Entry *entry, struct span body)
{
    size_t from = out->size;
    bool answered = !entry->purged_ms && (entry->state == MOOTHALL__STATE__DONE || entry->state == MOOTHALL__STATE__FAILED);

    return buf_text(out, LINE_BEGIN) && buf_text(out, entry->job) &&
           buf_text(out, "\",\"custom_id\":") &&
           (*entry->custom_id ? add_text(out, entry->custom_id, strlen(entry->custom_id))
                              : buf_text(out, "null")) &&
           buf_text(out, ",\"response\":") &&
           (answered ? add_response(out, entry, body) : buf_text(out, "null")) &&
           buf_text(out, ",\"error\":") && output_error(out, entry, body) && buf_text(out, ",\"moothall\":") &&
           add_provenance(out, entry, body) && buf_text(out, "}\n") && output_one_line(out, from);
}

/* ---- the writer ---------------------------------------------------------------------------------- */

static const char *order_of(const struct output_source *source)
{
    return source->by_position ? "input" : "completion";
}

static void note_tail(struct output *output, struct span written)
{
    size_t n = written.size < OUTPUT_TAIL_MAX ? written.size : OUTPUT_TAIL_MAX;
    size_t kept = output->tail_size < OUTPUT_TAIL_MAX - n ? output->tail_size : OUTPUT_TAIL_MAX - n;

    memmove(output->tail, output->tail + output->tail_size - kept, kept);
    memcpy(output->tail + kept, written.data + written.size - n, n);
    output->tail_size = kept + n;
}

/* Also whether what follows, written after the cursor was kept, begins as our lines do. */
static bool read_tail(struct output *output, const char *path, bool *follows, struct err *err)
{
    char next[sizeof LINE_BEGIN - 1];
    size_t n = output->offset < OUTPUT_TAIL_MAX ? (size_t)output->offset : OUTPUT_TAIL_MAX;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && pread(fd, output->tail, n, (off_t)(output->offset - n)) == (ssize_t)n;
    ssize_t got = ok ? pread(fd, next, sizeof next, (off_t)output->offset) : -1;

    if (got < 0)
        err_errno(err, "read %s", output->name);
    if (fd >= 0)
        close(fd);
    output->tail_size = n;
    *follows = got >= 0 && memcmp(next, LINE_BEGIN, (size_t)got) == 0;
    return got >= 0;
}

/* -1 where nothing can be compared: a stream has no bytes to come back to. */
static int64_t tail_sum(const struct output *output)
{
    return output->is_file ? (int64_t)span_crc32c(0, span_of(output->tail, output->tail_size)) : -1;
}

static bool set_cursor(struct output *output, const struct output_source *source, struct hall *hall,
                       struct err *err)
{
    Moothall__CursorSet set = MOOTHALL__CURSOR_SET__INIT;
    char note[256];
    int n = snprintf(note, sizeof note, "{\"offset\":%" PRIu64 ",\"done\":%" PRIu64 ",\"failed\":%" PRIu64,
                     output->offset, output->done, output->failed);

    if (output->exclusive)
        n += snprintf(note + n, sizeof note - (size_t)n, ",\"order\":\"%s\",\"tail\":%" PRId64, order_of(source),
                      tail_sum(output));
    snprintf(note + n, sizeof note - (size_t)n, "}");
    set.queue = (char *)(uintptr_t)source->queue;
    set.batch = (char *)(uintptr_t)source->batch;
    set.consumer = (char *)(uintptr_t)source->consumer;
    set.position = output->position;
    set.note.data = (uint8_t *)note;
    set.note.len = strlen(note);
    return hall_ask(hall, MOOTHALL__ENVELOPE__BODY_CURSOR_SET, &set, MOOTHALL__ENVELOPE__BODY_CURSOR, NULL,
                    err) ||
           err_wrap(err, "store the place in %s", output->name);
}

/* *tail: as the note has it, for a file to be compared with; INT64_MIN where there is none. */
static bool get_cursor(struct output *output, const struct output_source *source, struct hall *hall,
                       bool *known, int64_t *tail, struct err *err)
{
    Moothall__CursorAsk ask = MOOTHALL__CURSOR_ASK__INIT;
    const struct link_message *answer;
    const Moothall__Cursor *cursor;
    const char *order;
    json_t *note;

    *known = false;
    *tail = INT64_MIN;
    ask.queue = (char *)(uintptr_t)source->queue;
    ask.batch = (char *)(uintptr_t)source->batch;
    ask.consumer = (char *)(uintptr_t)source->consumer;
    if (!hall_ask(hall, MOOTHALL__ENVELOPE__BODY_CURSOR_ASK, &ask, MOOTHALL__ENVELOPE__BODY_CURSOR, &answer,
                  err))
        return false;
    cursor = answer->envelope->cursor;
    if (!cursor->known)
        return true;
    note = json_loadb((const char *)cursor->note.data, cursor->note.len, 0, NULL);
    if (!json_is_integer(json_object_get(note, "offset"))) {
        json_decref(note);
        return err_set(err, ERR_CONFLICT,
                       "consumer `%s` was set by another program: its note is not one of ours",
                       source->consumer);
    }
    order = json_string_value(json_object_get(note, "order"));
    if (order && strcmp(order, order_of(source)) != 0) {
        err_set(err, ERR_CONFLICT, "consumer `%s` reads in %s order; --order %s needs a consumer of its own",
                source->consumer, source->by_position ? "completion" : "input", order_of(source));
        json_decref(note);
        return false;
    }
    if (json_is_integer(json_object_get(note, "tail")))
        *tail = json_integer_value(json_object_get(note, "tail"));
    output->position = cursor->position;
    output->offset = (uint64_t)json_integer_value(json_object_get(note, "offset"));
    output->done = (uint64_t)json_integer_value(json_object_get(note, "done"));
    output->failed = (uint64_t)json_integer_value(json_object_get(note, "failed"));
    json_decref(note);
    *known = true;
    return true;
}

static void from_start(struct output *output, const struct output_source *source)
{
    output->position = source->by_position ? 0 : 1; /* entries are numbered from 1 */
    output->offset = output->done = output->failed = 0;
    output->tail_size = 0;
}

/* Whether what stands there is what this consumer has written: all of it, and perhaps more that its cursor does not
 * have yet. */
static bool is_its_own(struct output *output, const char *path, uint64_t size, bool known, int64_t tail, struct err *err)
{
    if (size == 0)
        return true;
    if (known && size >= output->offset) {
        bool follows;

        if (!read_tail(output, path, &follows, err))
            return false;
        /* What follows known bytes may be anything: a machine that lost its power can leave zeros there. */
        if (output->offset > 0 && tail != INT64_MIN ? tail == tail_sum(output) : follows)
            return true;
    }
    return err_set(err, ERR_CONFLICT, "%s exists and %s; name another file", output->name,
                   known && size < output->offset ? "is shorter than what this consumer has written"
                                                  : "this consumer has not written it");
}

bool output_open(struct output *output, const char *path, const struct output_source *source, bool begin_anew,
                 bool exclusive, struct hall *hall, struct err *err)
{
    struct stat st;
    bool known = false;
    int64_t tail = INT64_MIN;

    memset(output, 0, sizeof *output);
    output->fd = -1;
    output->exclusive = exclusive;
    snprintf(output->name, sizeof output->name, "%s", strcmp(path, "-") ? path : "standard output");
    from_start(output, source);
    output->fd = strcmp(path, "-") ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666) : dup(STDOUT_FILENO);
    if (output->fd < 0)
        return err_errno(err, "write %s", output->name);
    if (fstat(output->fd, &st) != 0) {
        err_errno(err, "write %s", output->name);
        goto fail;
    }
    output->is_file = strcmp(path, "-") && S_ISREG(st.st_mode);
    if (source->keeps_cursor && !begin_anew && !get_cursor(output, source, hall, &known, &tail, err))
        goto fail;
    if (!output->is_file && strcmp(path, "-") == 0 && source->keeps_cursor && exclusive) {
        /* a named consumer on a stream goes on where it was: what it took is gone from here */
    } else if (!output->is_file) {
        from_start(output, source);
    } else {
        if (exclusive && !is_its_own(output, path, (uint64_t)st.st_size, known, tail, err))
            goto fail;
        /* Shorter than the cursor says: somebody cut it.  The results are all in the store still. */
        if ((uint64_t)st.st_size < output->offset)
            from_start(output, source);
        if (ftruncate(output->fd, (off_t)output->offset) != 0 ||
            lseek(output->fd, (off_t)output->offset, SEEK_SET) < 0) {
            err_errno(err, "continue %s", output->name);
            goto fail;
        }
    }
    /* Known from now on, so that a file we have made is never taken for somebody else's. */
    if (source->keeps_cursor && !set_cursor(output, source, hall, err))
        goto fail;
    output->kept_position = output->position;
    output->kept_ms = clock_now_ms();
    return true;
fail:
    output_close(output);
    return false;
}

void output_close(struct output *output)
{
    if (output->fd >= 0)
        close(output->fd);
    buf_fini(&output->pending);
    memset(output, 0, sizeof *output);
    output->fd = -1;
}

static bool flush(struct output *output, struct err *err)
{
    if (!file_write_all(output->fd, buf_span(&output->pending), output->name, err))
        return false;
    output->offset += output->pending.size;
    if (output->exclusive && output->pending.size)
        note_tail(output, buf_span(&output->pending));
    output->pending.size = 0;
    return true;
}

bool output_keep(struct output *output, const struct output_source *source, struct hall *hall,
                 struct err *err)
{
    if (!flush(output, err))
        return false;
    if (output->kept_position == output->position)
        return true;
    if (output->is_file && fdatasync(output->fd) != 0)
        return err_errno(err, "sync %s", output->name);
    if (source->keeps_cursor && !set_cursor(output, source, hall, err))
        return false;
    output->kept_position = output->position;
    output->kept_ms = clock_now_ms();
    return true;
}

static bool is_wanted(const struct output_source *source, const Moothall__Entry *entry, bool *wanted, struct err *err)
{
    uint16_t newest = 0;

    *wanted = !source->newest;
    if (*wanted || entry->position >= source->newest_count)
        return true;
    if (!spool_get(source->newest, entry->position, &newest, err))
        return false;
    *wanted = entry->generation == newest;
    return true;
}

bool output_fetch(struct output *output, const struct output_source *source, struct hall *hall,
                  uint32_t wait_ms, bool *end, uint64_t *got, struct err *err)
{
    Moothall__Fetch fetch = MOOTHALL__FETCH__INIT;
    const struct link_message *answer;
    const Moothall__Entries *entries;
    struct span rest;

    fetch.queue = (char *)(uintptr_t)source->queue;
    fetch.batch = (char *)(uintptr_t)source->batch;
    fetch.order = source->by_position ? MOOTHALL__ORDER__POSITION : MOOTHALL__ORDER__COMPLETION;
    fetch.from = output->position;
    fetch.items_max = ITEMS_MAX;
    fetch.bytes_max = BYTES_MAX;
    fetch.wait_ms = wait_ms;
    if (!hall_ask(hall, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, MOOTHALL__ENVELOPE__BODY_ENTRIES, &answer,
                  err))
        return false;
    entries = answer->envelope->entries;
    rest = answer->payload;
    for (size_t i = 0; i < entries->n_entry; i++) {
        const Moothall__Entry *entry = entries->entry[i];
        bool wanted;

        if (entry->size > rest.size)
            return err_set(err, ERR_INPUT, "the broker's answer is shorter than it says: entry %" PRIu64,
                           entry->number);
        if (!is_wanted(source, entry, &wanted, err))
            return false;
        if (wanted) {
            if (!output_line(&output->pending, entry, span_of(rest.data, entry->size)))
                return err_set(err, ERR_IO, "no memory for a result of %u bytes", entry->size);
            output->done++;
            output->failed += entry->state != MOOTHALL__STATE__DONE || entry->purged_ms;
        }
        rest = span_of(rest.data + entry->size, rest.size - entry->size);
    }
    *got = entries->n_entry;
    *end = entries->end;
    output->position = entries->next;
    if (output->pending.size > PENDING_MAX && !flush(output, err))
        return false;
    if (*end || !*got || clock_now_ms() - output->kept_ms >= KEEP_EVERY_MS)
        return output_keep(output, source, hall, err);
    return true;
}
