#include "client/pipeline.h"

#include <assert.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "client/output.h"
#include "client/say.h"
#include "client/stop.h"
#include "proto/request.h"

enum {
    ID_SIZE = 16,
    NAMES_MAX = 256, /* of one fetch */
    FETCH_BYTES_MAX = 4 << 20,
    FETCH_WAIT_MS = 1000,
    MAKE_MS = 200,   /* chunks are made so long before answers are looked for */
    BREATHE_MS = 50, /* the session and the children are never left alone for longer */
    READ_SIZE = 1 << 16,
    SAID_MAX = 20,         /* failed documents that are said one by one */
    CUSTOM_NAME_MAX = 440, /* bytes of a document's name in a custom_id */
};

/* ---- prompts -------------------------------------------------------------------------------------- */

static bool prompt_text(struct buf *out, struct span instruction, struct span text)
{
    return buf_add(out, instruction.data, instruction.size) && buf_text(out, "\n\n") &&
           buf_add(out, text.data, text.size);
}

bool pipeline_count(const struct pipeline *pipeline, struct span instruction, struct span text,
                    uint32_t *tokens, struct err *err)
{
    struct buf prompt = { 0 };
    struct ids ids = { 0 };
    struct chat_message message = { .role = CHAT_USER };
    bool ok;

    ok = prompt_text(&prompt, instruction, text) ||
         err_set(err, ERR_IO, "no memory for a prompt of %zu bytes", text.size);
    message.content = buf_span(&prompt);
    ok = ok && chat_render(pipeline->chat, &message, 1, &ids, err);
    *tokens = (uint32_t)ids.count;
    ids_fini(&ids);
    buf_fini(&prompt);
    return ok;
}

bool pipeline_set_limits(struct pipeline *pipeline, uint32_t overlap_default, struct err *err)
{
    const struct pipeline_options *o = pipeline->options;
    struct chunk_limits *limits = &pipeline->limits;
    uint32_t words;
    int64_t room;

    if (!pipeline->tokenizer) {
        if (o->chunk_tokens || o->overlap_tokens >= 0)
            return err_set(
                err, ERR_INPUT,
                "--chunk-tokens and --overlap-tokens need --model DIR: its tokenizer counts the tokens");
        return true;
    }
    if (!pipeline_count(pipeline, span_text(pipeline->instruction), span_of(NULL, 0), &words, err))
        return false;
    room = (int64_t)pipeline->context - words - pipeline->max_tokens - PIPELINE_SLACK;
    if ((int64_t)pipeline->context - words <= 16 + PIPELINE_SLACK)
        return err_set(err, ERR_INPUT,
                       "the instruction takes %" PRIu32 " tokens and the model's context has %" PRId32
                       ": no room for a document",
                       words, pipeline->context);
    if (room < 16)
        return err_set(err, ERR_INPUT,
                       "the instruction (%" PRIu32 " tokens) and --max-tokens %" PRId32
                       " leave no room for a document in "
                       "the model's context of %" PRId32 "; expected --max-tokens of at most %" PRId64,
                       words, pipeline->max_tokens, pipeline->context,
                       (int64_t)pipeline->context - words - PIPELINE_SLACK - 16);
    if (o->chunk_tokens > room)
        return err_set(err, ERR_INPUT,
                       "--chunk-tokens %" PRId64 ": context %" PRId32 " less the instruction (%" PRIu32
                       " tokens) and --max-tokens %" PRId32 " leaves %" PRId64,
                       o->chunk_tokens, pipeline->context, words, pipeline->max_tokens, room);
    limits->tokens = (uint32_t)(o->chunk_tokens ? o->chunk_tokens : room);
    limits->overlap = overlap_default < limits->tokens / 8 ? overlap_default : limits->tokens / 8;
    if (o->overlap_tokens >= 0) {
        if (o->overlap_tokens * 2 >= limits->tokens)
            return err_set(err, ERR_INPUT,
                           "--overlap-tokens %" PRId64 ": expected less than half of a piece's %" PRIu32
                           " tokens",
                           o->overlap_tokens, limits->tokens);
        limits->overlap = (uint32_t)o->overlap_tokens;
    }
    return true;
}

/* ---- the loop's state ----------------------------------------------------------------------------- */

struct job {
    uint8_t id[ID_SIZE];
    struct unit *unit;
    uint32_t level, number;
    size_t bytes;
};

struct pipeline_work {
    const struct pipeline_loop *loop;
    struct pipeline_tally *tally;
    struct hall *hall;
    struct hall_submission submission;
    uint32_t payload_max;
    struct hall_tally before;

    struct job *job; /* a ring, in the order they were asked */
    size_t job_first, job_count, job_capacity;
    size_t bytes; /* of their bodies */
    bool unsent;

    struct unit *first, **last; /* in the order of documents */
    size_t units;
    size_t next; /* document */

    struct unit *reading; /* whose chunks are being made */
    uint64_t chunks_made;
    struct document *document;
    struct chunks *chunks;
    struct buf whole; /* without a tokenizer */

    struct arena arena;
    int64_t breathed_ms;
    bool breathless; /* breathe failed: the end of all, not of a document */
};

/* Between pieces of work: pings, children, a stop, the progress line. */
static bool breathe(struct pipeline_work *work, struct err *err)
{
    int64_t now_ms = clock_now_ms();

    if (now_ms - work->breathed_ms < BREATHE_MS)
        return true;
    work->breathed_ms = now_ms;
    work->breathless =
        !stop_check(err) ||
        (work->loop->command->private_hall && !private_hall_turn(work->loop->command->private_hall, err)) ||
        !hall_turn(work->hall, err);
    return !work->breathless;
}

static bool breathe_arg(void *arg, struct err *err)
{
    return breathe(arg, err);
}

/* ---- documents ------------------------------------------------------------------------------------ */

static bool bare_stop(void *arg, struct err *err)
{
    (void)arg;
    return stop_check(err);
}

bool pipeline_digest(struct documents *documents, size_t index, uint8_t digest[DOCUMENT_DIGEST_SIZE],
                     uint64_t *bytes, bool (*meanwhile)(void *arg, struct err *err), void *arg,
                     struct err *err)
{
    struct document *document;
    char piece[READ_SIZE];
    size_t got = 1;
    bool ok = true;

    if (!meanwhile)
        meanwhile = bare_stop;
    *bytes = 0;
    if (!document_open(&document, documents, index, err))
        return false;
    while (ok && got) {
        ok = document_read(document, piece, sizeof piece, &got, err) && meanwhile(arg, err);
        *bytes += ok ? got : 0;
    }
    ok = ok && (document_digest(document, digest) || err_set(err, ERR_IO, "it has no digest"));
    document_close(document);
    return ok;
}

void pipeline_inputs_start(struct pipeline_inputs *inputs)
{
    crypto_generichash_init(&inputs->hash, NULL, 0, 32);
}

void pipeline_inputs_add(struct pipeline_inputs *inputs, const char *name,
                         const uint8_t digest[DOCUMENT_DIGEST_SIZE])
{
    crypto_generichash_update(&inputs->hash, (const uint8_t *)name, strlen(name) + 1);
    crypto_generichash_update(&inputs->hash, (const uint8_t *)(digest ? "text" : "none"), 5);
    if (digest)
        crypto_generichash_update(&inputs->hash, digest, DOCUMENT_DIGEST_SIZE);
}

void pipeline_inputs_end(struct pipeline_inputs *inputs, char hex[65])
{
    uint8_t digest[32];

    crypto_generichash_final(&inputs->hash, digest, sizeof digest);
    sodium_bin2hex(hex, 65, digest, sizeof digest);
}

/* Words may have been cut within a character, and names may be anything. */
static json_t *json_words(const char *words)
{
    char *copy;
    json_t *json;

    if (span_is_utf8(span_text(words)))
        return json_string(words);
    copy = strdup(words);
    for (char *c = copy; c && *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    json = copy ? json_string(copy) : NULL;
    free(copy);
    return json;
}

void unit_fail(struct unit *unit, uint32_t level, const char *job, const char *code, const char *message)
{
    if (unit->error && unit->error_level <= level)
        return;
    json_decref(unit->error);
    unit->error = json_object();
    if (!unit->error || json_object_set_new(unit->error, "code", json_words(code)) ||
        json_object_set_new(unit->error, "message", json_words(message)))
        abort(); /* out of memory, for two short texts */
    unit->error_level = level;
    snprintf(unit->error_job, sizeof unit->error_job, "%s", job);
}

/* A document's own failure stands before those of its jobs: it is known before any of them is asked. */
static void document_failed(struct unit *unit, const struct err *err)
{
    json_decref(unit->error);
    unit->error = NULL;
    unit_fail(unit, 0, "", "bad_document", err->text);
}

/* Reads it once more, for the verb; documents.h sees to it that it is the same. */
static bool read_again(struct pipeline *pipeline, struct unit *unit, struct err *err)
{
    struct pipeline_work *work = pipeline->work;
    struct document *document = NULL;
    struct err why = { 0 };
    char piece[READ_SIZE];
    uint64_t byte = 0;
    size_t got = 1;
    bool ok = true, read = document_open(&document, work->loop->documents, unit->document, &why);

    while (ok && read && got) {
        read = document_read(document, piece, sizeof piece, &got, &why);
        if (!byte)
            byte = document_bom(document);
        if (!read)
            break;
        ok = pipeline->verb->again(pipeline, unit, byte, span_of(piece, got), err) && breathe(work, err);
        byte += got;
    }
    document_close(document);
    if (ok && !read)
        document_failed(unit, &why);
    return ok;
}

/* ---- units ---------------------------------------------------------------------------------------- */

static void unit_free(struct pipeline *pipeline, struct unit *unit)
{
    if (unit->own)
        pipeline->verb->end(unit);
    json_decref(unit->error);
    buf_fini(&unit->lines);
    free(unit);
}

static void say_document_failed(struct pipeline_work *work, const struct unit *unit)
{
    char name[256];

    if (++work->tally->failed > SAID_MAX)
        return;
    snprintf(name, sizeof name, "%.250s", documents_name(work->loop->documents, unit->document));
    for (char *c = name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    say_error("%s: %s%s", name, json_string_value(json_object_get(unit->error, "message")),
              work->tally->failed == SAID_MAX ? " (further ones are not said here)" : "");
}

static bool unit_over(struct pipeline *pipeline, struct unit *unit, struct err *err)
{
    if (!unit->error && pipeline->verb->again && !read_again(pipeline, unit, err))
        return false;
    if (!pipeline->verb->write(pipeline, unit, &unit->lines, err))
        return false;
    pipeline->verb->end(unit);
    unit->own = NULL;
    unit->over = true;
    if (unit->error)
        say_document_failed(pipeline->work, unit);
    return true;
}

/* After anything that may have brought it on. */
static bool unit_advance(struct pipeline *pipeline, struct unit *unit, struct err *err)
{
    bool done = false;

    if (unit->over)
        return true;
    if (!pipeline->verb->advance(pipeline, unit, &done, err))
        return false;
    if (unit->error)
        done = unit->chunked && !unit->open;
    return !done || unit_over(pipeline, unit, err);
}

static bool stop_reading(struct pipeline *pipeline, struct err *err)
{
    struct pipeline_work *work = pipeline->work;
    struct unit *unit = work->reading;

    chunks_close(work->chunks);
    work->chunks = NULL;
    document_close(work->document);
    work->document = NULL;
    work->reading = NULL;
    unit->chunked = true;
    return unit_advance(pipeline, unit, err);
}

static bool start_reading(struct pipeline *pipeline, struct err *err)
{
    struct pipeline_work *work = pipeline->work;
    struct unit *unit = calloc(1, sizeof *unit);
    struct err why = { 0 };
    uint8_t digest[DOCUMENT_DIGEST_SIZE];
    uint64_t bytes = 0;
    bool read;

    if (!unit || !pipeline->verb->begin(pipeline, unit)) {
        free(unit);
        return err_set(err, ERR_IO, "no memory for a document");
    }
    unit->document = work->next++;
    *work->last = unit;
    work->last = &unit->next;
    work->units++;
    work->reading = unit;
    read = pipeline_digest(work->loop->documents, unit->document, digest, &bytes, breathe_arg, work, &why);
    if (!read && work->breathless) {
        *err = why;
        return false;
    }
    pipeline_inputs_add(&work->tally->inputs, documents_name(work->loop->documents, unit->document),
                        read ? digest : NULL);
    if (!read) {
        document_failed(unit, &why);
    } else if (!document_open(&work->document, work->loop->documents, unit->document, &why)) {
        document_failed(unit, &why);
    } else if (!pipeline->tokenizer) {
        if (bytes > PIPELINE_WHOLE_MAX)
            err_set(&why, ERR_LIMIT,
                    "%" PRIu64 " bytes; without --model DIR, whose tokenizer would split it, at most %d",
                    bytes, PIPELINE_WHOLE_MAX);
    } else if (!chunks_open(&work->chunks, work->document, pipeline->tokenizer, pipeline->limits, &why)) {
        document_failed(unit, &why);
    }
    if (why.code && !unit->error)
        document_failed(unit, &why);
    return !unit->error || stop_reading(pipeline, err);
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* The whole document as one chunk; as of chunks, without white space at its ends. */
static bool read_whole(struct pipeline_work *work, struct chunk *chunk, struct err *err)
{
    char piece[READ_SIZE];
    size_t got = 1, blanks = 0;

    work->whole.size = 0;
    while (got) {
        if (!document_read(work->document, piece, sizeof piece, &got, err))
            return false;
        if (work->whole.size + got > PIPELINE_WHOLE_MAX || !buf_add(&work->whole, piece, got))
            return err_set(err, ERR_LIMIT, "it grew while it was read");
    }
    memset(chunk, 0, sizeof *chunk);
    chunk->text = buf_span(&work->whole);
    while (chunk->text.size && is_blank(chunk->text.data[chunk->text.size - 1]))
        chunk->text.size--;
    while (chunk->text.size && is_blank(chunk->text.data[blanks])) {
        chunk->text.size--;
        blanks++;
    }
    if (blanks)
        chunk->text.data += blanks;
    chunk->byte = document_bom(work->document) + blanks;
    chunk->chars = (document_bom(work->document) ? 1 : 0) + blanks;
    chunk->last = true;
    return true;
}

static bool make_chunk(struct pipeline *pipeline, struct err *err)
{
    struct pipeline_work *work = pipeline->work;
    struct unit *unit = work->reading;
    struct err why = { 0 };
    struct chunk chunk;
    char what[32];
    bool end = false, ok;

    if ((unit->error && unit->error_level == 0) ||
        (work->loop->chunks_max && work->chunks_made == work->loop->chunks_max))
        return stop_reading(pipeline, err);
    ok = pipeline->tokenizer ? chunks_next(work->chunks, &chunk, &end, &why) : read_whole(work, &chunk, &why);
    if (ok && end && !unit->chunks)
        ok = err_set(&why, ERR_INPUT, "it has no text");
    if (!ok)
        document_failed(unit, &why);
    if (!ok || end)
        return stop_reading(pipeline, err);
    unit->chunks++;
    work->chunks_made++;
    snprintf(what, sizeof what, "#%" PRIu32, chunk.index);
    if (pipeline->verb->chunk && !pipeline->verb->chunk(pipeline, unit, &chunk))
        return err_set(err, ERR_IO, "no memory for a document's pieces");
    if (!pipeline_ask(pipeline, unit, 0, chunk.index, what, span_text(pipeline->instruction), chunk.text,
                      err))
        return false;
    return !chunk.last || stop_reading(pipeline, err);
}

static bool can_make(const struct pipeline_work *work)
{
    if (work->job_count >= PIPELINE_JOBS || work->bytes >= PIPELINE_BYTES_MAX)
        return false;
    return work->reading || (work->next < work->loop->count && work->units < PIPELINE_UNITS);
}

/* ---- jobs ----------------------------------------------------------------------------------------- */

/* {"max_tokens":..,"messages":[..],...}, before it is put into its canonical spelling. */
static bool body_text(const struct pipeline *pipeline, struct span instruction, struct span text,
                      struct buf *body)
{
    struct buf prompt = { 0 };
    json_t *content = NULL;
    char *dumped = NULL, temperature[32];
    bool ok;

    snprintf(temperature, sizeof temperature, "%.6g", pipeline->temperature);
    ok = prompt_text(&prompt, instruction, text);
    if (ok)
        content = json_stringn((const char *)prompt.data, prompt.size);
    if (content)
        dumped = json_dumps(content, JSON_ENCODE_ANY);
    ok = ok && dumped &&
         buf_format(body,
                    "{\"max_tokens\":%" PRId32
                    ",\"temperature\":%s,\"messages\":[{\"role\":\"user\",\"content\":",
                    pipeline->max_tokens, temperature) &&
         buf_text(body, dumped) && buf_text(body, "}]") &&
         (!pipeline->form.size ||
          (buf_text(body, ",") && buf_add(body, pipeline->form.data, pipeline->form.size))) &&
         buf_text(body, "}");
    free(dumped);
    json_decref(content);
    buf_fini(&prompt);
    return ok;
}

static void make_id(uint8_t id[ID_SIZE], const struct pipeline_work *work, const char *source, uint32_t level,
                    uint32_t number, struct span body)
{
    crypto_generichash_state hash;
    uint8_t place[8];
    uint8_t digest[64];

    for (int i = 0; i < 4; i++) {
        place[i] = (uint8_t)(level >> 8 * i);
        place[4 + i] = (uint8_t)(number >> 8 * i);
    }
    crypto_generichash_init(&hash, NULL, 0, sizeof digest);
    crypto_generichash_update(&hash, (const uint8_t *)work->submission.batch,
                              strlen(work->submission.batch) + 1);
    crypto_generichash_update(&hash, (const uint8_t *)source, strlen(source) + 1);
    crypto_generichash_update(&hash, place, sizeof place);
    crypto_generichash_update(&hash, body.data, body.size);
    crypto_generichash_final(&hash, digest, sizeof digest);
    memcpy(id, digest, ID_SIZE);
}

/* The end of a long name says more than its beginning; controls would spoil a listing. */
static void make_custom_id(char *custom_id, size_t size, const char *source, const char *what)
{
    size_t length = strlen(source);
    const char *from = source;

    if (length > CUSTOM_NAME_MAX) {
        from += length - CUSTOM_NAME_MAX;
        while (((unsigned char)*from & 0xc0) == 0x80)
            from++;
    }
    snprintf(custom_id, size, "%s%s%s", from > source ? "..." : "", from, what);
    for (char *c = custom_id; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
}

static bool push_job(struct pipeline_work *work, const struct job *job)
{
    if (work->job_count == work->job_capacity) {
        size_t capacity = work->job_capacity ? 2 * work->job_capacity : 256;
        struct job *ring = malloc(capacity * sizeof *ring);

        if (!ring)
            return false;
        for (size_t i = 0; i < work->job_count; i++)
            ring[i] = work->job[(work->job_first + i) % work->job_capacity];
        free(work->job);
        work->job = ring;
        work->job_first = 0;
        work->job_capacity = capacity;
    }
    work->job[(work->job_first + work->job_count++) % work->job_capacity] = *job;
    return true;
}

bool pipeline_ask(struct pipeline *pipeline, struct unit *unit, uint32_t level, uint32_t number,
                  const char *what, struct span instruction, struct span text, struct err *err)
{
    struct pipeline_work *work = pipeline->work;
    const char *source = pipeline_source(pipeline, unit);
    struct job job = { .unit = unit, .level = level, .number = number };
    struct hall_job asked = { .position = UINT32_MAX, .endpoint = "/v1/chat/completions" };
    char custom_id[REQUEST_ID_MAX + 1], hex[2 * ID_SIZE + 1], message[300];
    struct buf body = { 0 };
    struct request request;
    struct request_fault fault;
    uint32_t tokens = 0;
    bool ok = false;

    if (unit->error && unit->error_level <= level)
        return true;
    if (pipeline->tokenizer && !pipeline_count(pipeline, instruction, text, &tokens, err))
        return false;
    if (pipeline->tokenizer && (int64_t)tokens + pipeline->max_tokens > pipeline->context) {
        snprintf(message, sizeof message,
                 "piece %" PRIu32 " with its instruction has %" PRIu32 " tokens, and --max-tokens is %" PRId32
                 ": together more than the context of %" PRId32 "; expected a smaller --chunk-tokens",
                 number + 1, tokens, pipeline->max_tokens, pipeline->context);
        unit_fail(unit, level, "", "context_length_exceeded", message);
        return true;
    }
    make_custom_id(custom_id, sizeof custom_id, source, what);
    if (!body_text(pipeline, instruction, text, &body)) {
        err_set(err, ERR_IO, "no memory for a prompt of %zu bytes", text.size);
        goto out;
    }
    arena_reset(&work->arena);
    if (!request_read_body(&work->arena, span_text(asked.endpoint), span_text(custom_id), buf_span(&body),
                           &request, &fault)) {
        unit_fail(unit, level, "", fault.code, fault.message);
        ok = true;
        goto out;
    }
    if (request.body.size > work->payload_max) {
        snprintf(message, sizeof message,
                 "the prompt has %zu bytes, this broker takes %" PRIu32 "; expected a smaller --chunk-tokens",
                 request.body.size, work->payload_max);
        unit_fail(unit, level, "", "body_too_long", message);
        ok = true;
        goto out;
    }
    make_id(job.id, work, source, level, number, request.body);
    sodium_bin2hex(hex, sizeof hex, job.id, sizeof job.id);
    job.bytes = request.body.size;
    asked.id = hex;
    asked.custom_id = custom_id;
    asked.body = request.body;
    asked.seed = (uint64_t)request.seed;
    if (!push_job(work, &job)) {
        err_set(err, ERR_IO, "no memory for a job");
        goto out;
    }
    work->bytes += job.bytes;
    work->unsent = true;
    unit->open++;
    unit->jobs++;
    work->tally->jobs++;
    ok = hall_submit(work->hall, &work->submission, &asked, err);
out:
    buf_fini(&body);
    return ok;
}

/* All of them are on the broker's disk. */
static bool send_jobs(struct pipeline_work *work, struct err *err)
{
    struct hall_tally now;

    if (!work->unsent)
        return true;
    if (!hall_submit_end(work->hall, &work->submission, err))
        return err_wrap(err, "submit");
    work->unsent = false;
    now = hall_tally(work->hall);
    if (now.conflict > work->before.conflict)
        return err_set(err, ERR_CONFLICT, "batch %s has other jobs under our ids (%.200s)",
                       work->submission.batch,
                       *now.conflict_reason ? now.conflict_reason : "no reason given");
    return true;
}

/* ---- answers -------------------------------------------------------------------------------------- */

static void job_failed(const struct job *job, const Moothall__Entry *entry, struct span body)
{
    struct buf text = { 0 };
    json_t *error = NULL;
    const char *code, *message;

    if (output_error(&text, entry, body))
        error = json_loadb((const char *)text.data, text.size, 0, NULL);
    code = json_string_value(json_object_get(error, "code"));
    message = json_string_value(json_object_get(error, "message"));
    unit_fail(job->unit, job->level, entry->job, code && *code ? code : "failed",
              message && *message ? message : "no reason was given");
    json_decref(error);
    buf_fini(&text);
}

static bool job_done(struct pipeline *pipeline, const struct job *job, const Moothall__Entry *entry,
                     struct span body, struct err *err)
{
    json_t *root = json_loadb((const char *)body.data, body.size, JSON_ALLOW_NUL, NULL);
    json_t *choice = json_array_get(json_object_get(root, "choices"), 0), *usage, *content;
    const char *reason = json_string_value(json_object_get(choice, "finish_reason"));
    struct unit *unit = job->unit;
    json_int_t generated;
    bool ok;

    content = json_object_get(json_object_get(choice, "message"), "content");
    usage = json_object_get(root, "usage");
    if (!json_is_string(content)) {
        json_decref(root);
        unit_fail(unit, job->level, entry->job, "bad_answer", "the answer has no text");
        return true;
    }
    unit->prompt_tokens += (uint64_t)json_integer_value(json_object_get(usage, "prompt_tokens"));
    generated = json_integer_value(json_object_get(usage, "completion_tokens"));
    unit->generated_tokens += (uint64_t)generated;
    /* A grammar closes what the budget ends, so the reason alone does not say it. */
    unit->cut += generated >= pipeline->max_tokens || !reason || strcmp(reason, "stop") != 0;
    if (!*unit->numerics)
        snprintf(unit->numerics, sizeof unit->numerics, "%s", entry->numerics);
    ok = pipeline->verb->answer(pipeline, unit, job->level, job->number,
                                span_of(json_string_value(content), json_string_length(content)), err);
    json_decref(root);
    if (unit->error && !*unit->error_job)
        snprintf(unit->error_job, sizeof unit->error_job, "%s", entry->job);
    return ok;
}

static bool take_entry(struct pipeline *pipeline, const Moothall__Entry *entry, struct span body,
                       struct err *err)
{
    struct pipeline_work *work = pipeline->work;
    struct pipeline_tally *tally = work->tally;
    struct job job = work->job[work->job_first];
    struct unit *unit = job.unit;
    char hex[2 * ID_SIZE + 1];

    sodium_bin2hex(hex, sizeof hex, job.id, sizeof job.id);
    if (strcmp(hex, entry->job) != 0)
        return err_set(err, ERR_INPUT, "the broker answered for job %.64s where %s was asked", entry->job,
                       hex);
    work->job_first = (work->job_first + 1) % work->job_capacity;
    work->job_count--;
    work->bytes -= job.bytes;
    unit->open--;
    unit->chunks_answered += job.level == 0;
    if (entry->leased_ms && (!tally->leased_ms || entry->leased_ms < tally->leased_ms))
        tally->leased_ms = entry->leased_ms;
    if (entry->finished_ms > tally->finished_ms)
        tally->finished_ms = entry->finished_ms;
    tally->prompt_tokens += entry->prompt_tokens;
    tally->generated_tokens += entry->generated_tokens;
    if (unit->error && unit->error_level <= job.level) {
        /* it is lost already */
    } else if (entry->state != MOOTHALL__STATE__DONE) {
        job_failed(&job, entry, body);
    } else {
        return job_done(pipeline, &job, entry, body, err);
    }
    return true;
}

/* Asks for the answers of the oldest jobs, in their order, up to the first that is not there yet. */
static bool take_answers(struct pipeline *pipeline, uint32_t wait_ms, struct err *err)
{
    struct pipeline_work *work = pipeline->work;
    char hex[NAMES_MAX][2 * ID_SIZE + 1], *name[NAMES_MAX];
    Moothall__Fetch fetch = MOOTHALL__FETCH__INIT;
    const struct link_message *answer;
    const Moothall__Entries *entries;
    struct unit *unit[NAMES_MAX];
    struct span rest;
    size_t count = work->job_count < NAMES_MAX ? work->job_count : NAMES_MAX, taken;

    for (size_t i = 0; i < count; i++) {
        sodium_bin2hex(hex[i], sizeof hex[i], work->job[(work->job_first + i) % work->job_capacity].id,
                       ID_SIZE);
        name[i] = hex[i];
    }
    fetch.queue = (char *)(uintptr_t)work->loop->queue;
    fetch.batch = (char *)(uintptr_t)work->loop->batch;
    fetch.order = MOOTHALL__ORDER__NAMED;
    fetch.items_max = NAMES_MAX;
    fetch.bytes_max = FETCH_BYTES_MAX;
    fetch.wait_ms = wait_ms;
    fetch.n_job = count;
    fetch.job = name;
    if (!hall_ask(work->hall, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, MOOTHALL__ENVELOPE__BODY_ENTRIES,
                  &answer, err))
        return false;
    entries = answer->envelope->entries;
    if (entries->n_entry > count)
        return err_set(err, ERR_INPUT, "the broker's answer has %zu entries for %zu names", entries->n_entry,
                       count);
    /* The answer is good until the next call to the hall: first all are taken, then is asked what follows. */
    rest = answer->payload;
    taken = entries->n_entry;
    for (size_t i = 0; i < taken; i++) {
        const Moothall__Entry *entry = entries->entry[i];

        if (entry->size > rest.size)
            return err_set(err, ERR_INPUT, "the broker's answer is shorter than it says: job %.64s",
                           entry->job);
        unit[i] = work->job[work->job_first].unit;
        if (!take_entry(pipeline, entry, span_of(rest.data, entry->size), err))
            return false;
        rest = span_of(rest.data + entry->size, rest.size - entry->size);
    }
    for (size_t i = 0; i < taken; i++)
        if ((i + 1 == taken || unit[i + 1] != unit[i]) && !unit_advance(pipeline, unit[i], err))
            return false;
    return true;
}

/* ---- output --------------------------------------------------------------------------------------- */

static bool write_out(const struct pipeline_loop *loop, struct span text, struct err *err)
{
    if (!loop->file || !text.size)
        return true;
    if (fwrite(text.data, 1, text.size, loop->file) != text.size || (loop->flush && fflush(loop->file) != 0))
        return err_errno(err, "write %s", loop->file_name);
    return true;
}

static bool write_over(struct pipeline *pipeline, struct err *err)
{
    struct pipeline_work *work = pipeline->work;
    struct unit *unit;

    while ((unit = work->first) && unit->over) {
        if (!write_out(work->loop, buf_span(&unit->lines), err))
            return false;
        work->first = unit->next;
        if (!work->first)
            work->last = &work->first;
        work->units--;
        work->tally->documents++;
        unit_free(pipeline, unit);
    }
    return true;
}

bool pipeline_note(struct pipeline *pipeline, json_t *note, struct err *err)
{
    FILE *notes = pipeline->work->loop->notes;
    bool ok = note != NULL || err_set(err, ERR_IO, "no memory for a note");

    if (ok && notes && (json_dumpf(note, notes, JSON_COMPACT) != 0 || fputc('\n', notes) == EOF))
        ok = err_errno(err, "write the notes");
    json_decref(note);
    return ok;
}

const char *pipeline_source(const struct pipeline *pipeline, const struct unit *unit)
{
    return documents_name(pipeline->work->loop->documents, unit->document);
}

json_t *pipeline_provenance(const struct pipeline *pipeline, const struct unit *unit)
{
    json_t *made = json_object();
    const char *batch = pipeline->work->loop->batch;
    int bad;

    if (!made)
        return NULL;
    bad = json_object_set_new(made, "batch", json_string(batch));
    if (unit->error) {
        if (*unit->error_job)
            bad |= json_object_set_new(made, "job", json_string(unit->error_job));
    } else {
        bad |= json_object_set_new(made, "numerics",
                                   *unit->numerics ? json_string(unit->numerics) : json_null());
        bad |= json_object_set_new(made, "chunks", json_integer(unit->chunks));
        bad |= json_object_set_new(made, "jobs", json_integer(unit->jobs));
        bad |= json_object_set_new(made, "cut", json_integer(unit->cut));
        bad |= json_object_set_new(made, "prompt_tokens", json_integer((json_int_t)unit->prompt_tokens));
        bad |=
            json_object_set_new(made, "generated_tokens", json_integer((json_int_t)unit->generated_tokens));
    }
    if (bad) {
        json_decref(made);
        return NULL;
    }
    return made;
}

/* ---- the loop ------------------------------------------------------------------------------------- */

bool pipeline_loop(struct pipeline *pipeline, const struct pipeline_loop *loop, struct pipeline_tally *tally,
                   struct err *err)
{
    struct pipeline_work work = {
        .loop = loop,
        .tally = tally,
        .hall = loop->command->hall,
        .submission = { .queue = loop->queue,
                        .batch = loop->batch,
                        .mode = loop->retry ? MOOTHALL__SUBMIT_MODE__RETRY : MOOTHALL__SUBMIT_MODE__NEW },
        .before = hall_tally(loop->command->hall),
    };
    struct hall_welcome welcome;
    bool ok;

    memset(tally, 0, sizeof *tally);
    pipeline_inputs_start(&tally->inputs);
    work.last = &work.first;
    arena_init(&work.arena, 0);
    pipeline->work = &work;
    ok = hall_open(work.hall, &welcome, err) && write_out(loop, pipeline->header, err);
    work.payload_max = ok ? welcome.payload_max : 0;
    while (ok && (work.first || work.next < loop->count)) {
        int64_t until_ms = clock_now_ms() + MAKE_MS;

        while (ok && can_make(&work) && clock_now_ms() < until_ms) {
            ok = work.reading ? make_chunk(pipeline, err) : start_reading(pipeline, err);
            ok = ok && breathe(&work, err);
        }
        ok = ok && send_jobs(&work, err);
        if (ok && work.job_count)
            ok = take_answers(
                pipeline, can_make(&work) ? 0 : (uint32_t)command_hall_patience(loop->command, FETCH_WAIT_MS),
                err);
        ok = ok && write_over(pipeline, err) && breathe(&work, err) && loop->meanwhile(loop->arg, err);
    }
    assert(!ok || !work.job_count);
    for (struct unit *unit = work.first, *next; unit; unit = next) {
        next = unit->next;
        unit_free(pipeline, unit);
    }
    chunks_close(work.chunks);
    document_close(work.document);
    buf_fini(&work.whole);
    arena_fini(&work.arena);
    free(work.job);
    pipeline->work = NULL;
    return ok;
}
