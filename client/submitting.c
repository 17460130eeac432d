#include "client/submitting.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "client/say.h"

const char *const submit_priority_choices[] = { "normal", "high", "low", NULL };

void bad_lines_report(void *arg, uint64_t number, const struct request_fault *fault)
{
    struct bad_lines *bad = arg;

    bad->count++;
    if (fault)
        say_error("%s, line %llu: %s", bad->name, (unsigned long long)number, fault->message);
}

void bad_lines_end(const struct bad_lines *bad)
{
    if (bad->count > BATCH_REPORTED_MAX)
        say_error("%s: and %llu more bad lines", bad->name,
                  (unsigned long long)(bad->count - BATCH_REPORTED_MAX));
}

/* The longest custom_id is bounded by request.h; U+0000 in one is refused there. */
static bool submit_line(struct hall *hall, const struct batch_file *file,
                        const struct hall_submission *submission, size_t i, uint32_t payload_max,
                        struct arena *arena, struct err *err)
{
    struct request request;
    struct request_fault fault;
    struct batch_line line;
    struct buf error = { 0 };
    struct hall_job job = { .position = (uint32_t)i };
    char id[REQUEST_JOB_ID_SIZE], custom_id[REQUEST_ID_MAX + 1], url[64];
    bool refused, ok;

    arena_reset(arena);
    if (!batch_file_line(file, i, &line, err) || !batch_file_read(file, i, arena, &request, &fault, &refused, err))
        return false;
    if (!refused && request.body.size > payload_max) {
        refused = true;
        request_fault_set(&fault, 413, "body_too_long", "body",
                          "the body has %zu bytes, this broker takes %u", request.body.size, payload_max);
    }
    snprintf(custom_id, sizeof custom_id, "%.*s", (int)request.custom_id.size,
             request.custom_id.size ? (const char *)request.custom_id.data : "");
    snprintf(url, sizeof url, "%.*s", (int)(request.url.size < sizeof url ? request.url.size : 0),
             request.url.size ? (const char *)request.url.data : "");
    if (refused) {
        if (submission->mode == MOOTHALL__SUBMIT_MODE__RETRY)
            return true;
        if (strcmp(url, "/v1/completions") != 0)
            strcpy(url, "/v1/chat/completions");
        request_line_id(id, span_text(submission->batch), line.number);
        if (!request.custom_id.size) {
            /* Its line is the only name it has, and `--order completion` does not show it. */
            char said[sizeof fault.message];

            memcpy(said, fault.message, sizeof said);
            snprintf(fault.message, sizeof fault.message, "line %u: %.*s", line.number,
                     (int)sizeof said - 20, said);
        }
        if (!request_fault_write(&fault, &error)) {
            buf_fini(&error);
            return err_set(err, ERR_IO, "no memory for line %u's error", line.number);
        }
        job.refused = true;
        job.status_code = (uint32_t)fault.status_code;
        job.body = buf_span(&error);
    } else {
        request_job_id(id, span_text(submission->batch), request.custom_id);
        job.body = request.body;
        job.seed = (uint64_t)request.seed;
    }
    job.id = id;
    job.custom_id = custom_id;
    job.endpoint = url;
    ok = hall_submit(hall, submission, &job, err);
    buf_fini(&error);
    return ok;
}

bool submit_all(struct hall *hall, const struct batch_file *file, const struct hall_submission *asked,
                bool (*meanwhile)(void *arg, struct err *err), void *arg, struct err *err)
{
    struct hall_submission submission = *asked;
    struct say_progress progress = { .what = "submitted", .total = file->count };
    struct hall_tally before = hall_tally(hall), now;
    struct hall_welcome welcome;
    struct batch_line line;
    struct arena arena;
    bool ok = true;

    submission.batch_total = (uint32_t)file->count;
    if (!hall_open(hall, &welcome, err))
        return false;
    arena_init(&arena, 0);
    say_progress_start(clock_now_ms());
    for (size_t i = 0; ok && i < file->count; i++) {
        ok = submit_line(hall, file, &submission, i, welcome.payload_max, &arena, err);
        progress.done = i + 1;
        if (i % 64 == 0) {
            say_progress(&progress, clock_now_ms());
            ok = ok && (!meanwhile || meanwhile(arg, err));
        }
    }
    ok = ok && hall_submit_end(hall, &submission, err);
    arena_fini(&arena);
    now = hall_tally(hall);
    if (ok && now.conflict > before.conflict)
        return batch_file_line(file, now.conflict_position, &line, err) && err_set(
            err, ERR_CONFLICT,
            "line %u and %llu more are known in batch %s with another body (%s); --update replaces them",
            line.number, (unsigned long long)(now.conflict - before.conflict - 1), submission.batch,
            *now.conflict_reason ? now.conflict_reason : "no reason given");
    return ok;
}
