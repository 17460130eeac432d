#include "worker/worker.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/exchange.h"
#include "worker/model/chat.h"
#include "worker/model/experts.h"
#include "worker/model/model.h"
#include "worker/model/tokenizer.h"
#include "worker/seat.h"
#include "worker/step.h"

enum {
    PROGRESS_MS = 100,       /* how often the link thread learns what to put into a heartbeat */
    LEAVE_PATIENCE_MS = 500, /* and when it wants to leave it waits no longer than this for them */
    PATIENCE_MS = 1000,      /* rows away for longer are "waiting for a shard" */
    WAIT_MS = 100,
    RESULT_MAX = 32 * 1024 * 1024 - 4096, /* below the payload's bound */
};

struct worker {
    const struct settings *settings;
    struct model *model;
    struct tokenizer *tokenizer;
    struct chat *chat;
    struct err chat_why;
    struct sequence_world world;
    char numerics[MODEL_NUMERICS_MAX];

    struct link_context *context;
    struct seat *seat;
    struct exchange *exchange;
    struct step *step;
    uint8_t *moe; /* [layers], the exchange's shape points here */
    uint64_t incarnation;
    char own_directory[64]; /* made for the exchange's socket; empty when there was no need */
    uint64_t epoch, seated_epoch;
    bool has_map;

    /* Others' rows being computed: a piece at a time, so that nothing waits behind all of it. */
    struct experts *serving;
    struct exchange_work *work;
    uint8_t *work_sums;
    size_t work_sums_size;
    uint64_t served;

    int64_t progress_ms;
    bool stopping;
    enum worker_exit end;
    struct err *err;
};

static void *must(void *memory)
{
    if (!memory) {
        log_error("worker.memory", "reason=\"out of memory\"");
        abort();
    }
    return memory;
}

static void stop(struct worker *w, enum worker_exit end)
{
    w->stopping = true;
    w->end = end;
}

/* ---- results ------------------------------------------------------------------------------------------- */

static struct seat_result *result_new(const struct worker *w, const struct seat_lease *lease,
                                      Moothall__Outcome outcome, uint32_t status)
{
    struct seat_result *result = must(calloc(1, sizeof *result));

    result->fence = lease->fence;
    result->outcome = outcome;
    result->status_code = status;
    snprintf(result->numerics, sizeof result->numerics, "%s", w->numerics);
    result->started_ms = lease->taken_ms;
    return result;
}

/* A reason may quote the request; a message's text must be UTF-8 whatever was cut. */
static void set_reason(struct seat_result *result, const char *text)
{
    size_t size = strlen(text);

    if (size >= sizeof result->reason)
        size = sizeof result->reason - 1;
    while (size > 0 && !span_is_utf8(span_of(text, size)))
        size--;
    memcpy(result->reason, text, size);
    result->reason[size] = '\0';
}

static void send_fault(struct worker *w, const struct seat_lease *lease, const struct request_fault *fault)
{
    struct seat_result *result =
        result_new(w, lease, MOOTHALL__OUTCOME__AT_FAULT, (uint32_t)fault->status_code);

    set_reason(result, fault->message);
    if (!request_fault_write(fault, &result->body))
        abort();
    log_info("job.fault", "job=%s status=%d code=%s", lease->job, fault->status_code, fault->code);
    seat_result(w->seat, result);
}

static void send_hindered(struct worker *w, const struct seat_lease *lease, const char *reason)
{
    struct seat_result *result = result_new(w, lease, MOOTHALL__OUTCOME__HINDERED, 0);

    set_reason(result, reason);
    log_warn("job.hindered", "job=%s reason=\"%s\"", lease->job, reason);
    seat_result(w->seat, result);
}

static void send_answer(struct worker *w, const struct job *job)
{
    struct seat_result *result;
    struct request_fault fault;
    struct err err;

    if (job->impossible) {
        send_hindered(w, job->lease,
                      "the latent cache of this worker is too small for the request even alone; give it more "
                      "with --cache");
        return;
    }
    if (job->failed) {
        send_fault(w, job->lease, &job->fault);
        return;
    }
    result = result_new(w, job->lease, MOOTHALL__OUTCOME__FINISHED, 200);
    result->prompt_tokens = (uint32_t)job->prompt.count;
    result->generated_tokens = job_generated(job);
    result->cached_tokens = job_cached(job);
    if (job->started_ms)
        result->started_ms = job->started_ms;
    if (!job_body(job, RESULT_MAX, &result->body, &err)) {
        buf_fini(&result->body);
        free(result);
        request_fault_set(&fault, 413, "answer_too_large", job->request.logprobs ? "logprobs" : "max_tokens",
                          "%s", err.text);
        send_fault(w, job->lease, &fault);
        return;
    }
    log_debug("job.done", "job=%s prompt=%zu generated=%u", job->lease->job, job->prompt.count,
              job_generated(job));
    seat_result(w->seat, result);
}

static void send_answers(struct worker *w)
{
    struct job *job;

    while ((job = step_take(w->step))) {
        send_answer(w, job);
        job_free(job);
    }
}

/* ---- what the broker says ---------------------------------------------------------------------------------
 */

static void on_lease(struct worker *w, struct seat_event *event)
{
    struct request_fault fault;
    struct job *job;

    if (w->stopping) {
        seat_release(w->seat, event->lease->fence);
        return;
    }
    if (!job_new(&job, &w->world, event->lease, &fault)) {
        if (fault.status_code == 503)
            send_hindered(w, event->lease, fault.message);
        else
            send_fault(w, event->lease, &fault);
        return;
    }
    event->lease = NULL; /* the job's now */
    step_add(w->step, job);
}

/* A shard once seated stays: an older epoch's calls are still answered, and a pass under way may be
 * about to use it.  At most the whole model is here then, which the mapped file bounds. */
static void on_map(struct worker *w, const struct seat_map *map)
{
    int own = 0;

    if (map->family[0] && strcmp(map->family, model_family(w->model)) != 0) {
        err_set(w->err, ERR_REFUSED, "the hall computes with kernel family %s, this worker with %s",
                map->family, model_family(w->model));
        stop(w, WORKER_REFUSED);
        return;
    }
    for (int i = 0; i < map->seat_count; i++) {
        const struct seat_map_worker *holder = &map->worker[map->seat[i].worker];

        if (holder->incarnation != w->incarnation || strcmp(holder->name, w->settings->name) != 0)
            continue;
        own++;
        if (!model_seat(w->model, (int)map->seat[i].shard, w->err)) {
            err_wrap(w->err, "seat shard %u", map->seat[i].shard);
            stop(w, WORKER_MODEL);
            return;
        }
    }
    log_info("map", "epoch=%llu workers=%d seats=%d own=%d", (unsigned long long)map->epoch,
             map->worker_count, map->seat_count, own);
    exchange_map(w->exchange, map);
    w->epoch = map->epoch;
    w->has_map = true;
    w->seated_epoch = 0; /* said again, also when the map is one we know: the broker may have restarted */
}

static void on_event(struct worker *w, struct seat_event *event)
{
    switch (event->kind) {
    case SEAT_LEASE:
        on_lease(w, event);
        break;
    case SEAT_MAP:
        on_map(w, event->map);
        break;
    case SEAT_DROPPED:
        log_info("lease.dropped", "fence=%llu", (unsigned long long)event->fence);
        step_drop(w->step, event->fence);
        break;
    case SEAT_STOP:
        if (!w->stopping) {
            log_info("worker.stop", "reason=\"%s\"", event->text);
            stop(w, WORKER_LEFT);
        }
        break;
    case SEAT_REFUSED:
        err_set(w->err, ERR_REFUSED, "the broker refused this worker: %s", event->text);
        stop(w, WORKER_REFUSED);
        break;
    }
    seat_event_free(event);
}

static void tell_progress(struct worker *w, int64_t now_ms)
{
    struct exchange_counts e = exchange_counts(w->exchange);
    struct step_counts s = step_counts(w->step);
    struct seat_progress progress = {
        .sequences = (uint32_t)s.sequences,
        .waiting_shard = exchange_waiting_shard(w->exchange, now_ms, PATIENCE_MS),
        .progress = s.steps + w->served,
        .prompt_tokens = s.prompt_tokens,
        .generated_tokens = s.generated_tokens,
        .dispatches = e.dispatches,
        .dispatch_bytes = e.dispatch_bytes,
        .dispatch_rows = e.dispatch_rows,
        .sums_bytes = e.sums_bytes,
        .resent = e.resent,
        .steps = s.steps,
        .decode_steps = s.decode_steps,
        .decode_dispatches = e.decode_dispatches,
        .served = e.served,
        .served_rows = e.served_rows,
        .moe_layers = (uint64_t)config_moe_layers(model_config(w->model)),
    };

    seat_progress(w->seat, &progress);
    w->progress_ms = now_ms + PROGRESS_MS;
}

/* ---- others' rows
 * ------------------------------------------------------------------------------------------ */

static bool begin_work(struct worker *w, struct err *err)
{
    size_t size;

    w->work = exchange_work(w->exchange);
    if (!w->work)
        return true;
    size =
        (size_t)w->work->slot_count * (size_t)model_config(w->model)->hidden * model_carrier_bytes(w->model);
    if (size > w->work_sums_size) {
        free(w->work_sums);
        w->work_sums = must(malloc(size));
        w->work_sums_size = size;
    }
    return experts_begin(w->serving, (int)w->work->layer, w->work->rows, (int)w->work->row_count,
                         w->work->pairs, (int)w->work->pair_count, (int)w->work->slot_count, err);
}

/* One piece.  True in *worked when there was something to do. */
static bool serve(struct worker *w, bool *worked, struct err *err)
{
    *worked = false;
    if (!w->work && !begin_work(w, err))
        return err_wrap(err, "serve rows of another worker");
    if (!w->work)
        return true;
    *worked = true;
    if (!experts_work(w->serving, w->work_sums))
        return true;
    w->served++;
    exchange_answer(w->exchange, w->work, w->work_sums);
    w->work = NULL;
    return true;
}

/* ---- the loop
 * ------------------------------------------------------------------------------------------------ */

static void fail(struct worker *w, const struct err *err)
{
    *w->err = *err;
    stop(w, WORKER_FAILED);
}

static void loop(struct worker *w)
{
    int64_t away_since_ms = 0; /* the pass has waited for rows since then; 0: it does not wait */
    struct err err;

    for (;;) {
        struct seat_event *event;
        int64_t now_ms = clock_now_ms();
        enum step_state state = STEP_IDLE;
        bool served;
        int fd = seat_fd(w->seat);

        /* To stop is to finish the pass first, unless it waits for rows that may never come. */
        if (w->stopping && (w->end != WORKER_LEFT || !step_in_pass(w->step) ||
                            (away_since_ms && now_ms > away_since_ms + LEAVE_PATIENCE_MS)))
            break;
        while ((event = seat_take(w->seat)))
            on_event(w, event);
        exchange_turn(w->exchange, now_ms);
        if (w->has_map && w->seated_epoch != w->epoch && exchange_is_ready(w->exchange)) {
            w->seated_epoch = w->epoch;
            seat_seated(w->seat, w->epoch);
            log_info("worker.seated", "epoch=%llu", (unsigned long long)w->epoch);
        }
        if (now_ms >= w->progress_ms)
            tell_progress(w, now_ms);
        /* Others first: a neighbour that has its rows back goes on, and so do its answers to us. */
        if (!serve(w, &served, &err)) {
            fail(w, &err);
            break;
        }
        if (!w->stopping || step_in_pass(w->step)) {
            state = step_advance(w->step, &err);
            if (state == STEP_FAILED) {
                fail(w, &err);
                break;
            }
            send_answers(w);
        }
        away_since_ms = state != STEP_AWAITS ? 0 : away_since_ms ? away_since_ms : now_ms;
        if (!served && state != STEP_WORKED) {
            int64_t wait_ms = w->progress_ms - clock_now_ms();

            /* What arrived or was to be sent since the turn above is looked at before sleeping. */
            exchange_wait(w->exchange, &fd, 1, wait_ms < 0 ? 0 : wait_ms < WAIT_MS ? (int)wait_ms : WAIT_MS);
        }
    }
}

/* ---- coming and going
 * -------------------------------------------------------------------------------------------- */

static bool open_model(struct worker *w, struct err *err)
{
    struct model_options options = { .threads = (int)w->settings->threads };
    const char *template_name = w->settings->chat_template[0] ? w->settings->chat_template : NULL;

    options.weights = w->settings->weights == SETTINGS_F32    ? WEIGHTS_F32
                      : w->settings->weights == SETTINGS_BF16 ? WEIGHTS_BF16
                                                              : WEIGHTS_OF_CHECKPOINT;
    if (!model_open(&w->model, w->settings->model, &options, err) ||
        !tokenizer_load(&w->tokenizer, w->settings->model, err))
        return false;
    /* A model without a known template still completes; only chat requests are refused, with this reason. */
    if (!chat_load(&w->chat, w->tokenizer, w->settings->model, template_name, &w->chat_why)) {
        w->chat = NULL;
        if (template_name) {
            *err = w->chat_why;
            return false;
        }
        log_warn("chat.template", "reason=\"%s\"", w->chat_why.text);
    }
    w->world = (struct sequence_world){ .tokenizer = w->tokenizer,
                                        .chat = w->chat,
                                        .chat_why = w->chat_why.text,
                                        .context = model_config(w->model)->context,
                                        .vocab = model_config(w->model)->vocab };
    w->world.forms = forms_new(w->tokenizer, w->world.vocab, FORMS_BYTES_MAX);
    w->world.text_bytes_max = tokenizer_token_bytes_max(w->tokenizer) * (size_t)w->world.context;
    model_numerics(w->model, w->numerics);
    return true;
}

static int64_t machine_bytes(void)
{
    struct sysinfo info;

    return sysinfo(&info) == 0 ? (int64_t)info.totalram * info.mem_unit : INT64_C(1) << 32;
}

/* Enough for every sequence at its longest, but no more than 4 GiB or a quarter of the machine. */
static int64_t cache_bytes(const struct worker *w)
{
    const int64_t most = INT64_C(4) << 30, machine = machine_bytes() / 4;
    int64_t position = model_position_bytes(w->model), context = model_config(w->model)->context;
    int64_t page = position * 64, all = (context + 63) / 64 * page;
    int64_t bytes = all > most / w->settings->sequences ? most : all * w->settings->sequences;

    if (w->settings->cache)
        return w->settings->cache;
    if (bytes > machine)
        bytes = machine;
    return bytes < page ? page : bytes;
}

/* Beside the broker's socket when that is in a private directory of ours (then whoever made it also
 * clears it away), else in one of our own; tcp when the broker is on tcp. */
static bool exchange_place(struct worker *w, char *endpoint, size_t size, struct err *err)
{
    const char *broker = w->settings->broker, *runtime = getenv("XDG_RUNTIME_DIR");
    struct stat st;
    char directory[SETTINGS_PATH_MAX];
    char *slash;

    if (w->settings->exchange[0]) {
        snprintf(endpoint, size, "%s", w->settings->exchange);
        return true;
    }
    if (strncmp(broker, "ipc://", 6) != 0) {
        snprintf(endpoint, size, "tcp://127.0.0.1:*");
        return true;
    }
    snprintf(directory, sizeof directory, "%s", broker + 6);
    slash = strrchr(directory, '/');
    if (slash && slash != directory) {
        *slash = '\0';
        if (strlen(directory) < 80 && stat(directory, &st) == 0 && st.st_uid == geteuid() &&
            (st.st_mode & 0777) == 0700) {
            snprintf(endpoint, size, "ipc://%.80s/x%08llx", directory,
                     (unsigned long long)(w->incarnation & 0xffffffff));
            return true;
        }
    }
    if (!runtime || strlen(runtime) > 40 || access(runtime, W_OK) != 0)
        runtime = "/tmp";
    snprintf(w->own_directory, sizeof w->own_directory, "%.40s/moothall-XXXXXX", runtime);
    if (!mkdtemp(w->own_directory)) {
        w->own_directory[0] = '\0';
        return err_errno(err, "make a directory for the exchange's socket in %s", runtime);
    }
    snprintf(endpoint, size, "ipc://%s/x", w->own_directory);
    return true;
}

static bool open_exchange(struct worker *w, struct err *err)
{
    const struct model_config *c = model_config(w->model);
    struct exchange_config config = { .incarnation = w->incarnation,
                                      .bytes_max = (size_t)w->settings->exchange_bytes_max };
    struct step_config steps = { .sequences_max = (int)w->settings->sequences,
                                 .batch_tokens = (int)w->settings->batch_tokens,
                                 .cache_bytes = cache_bytes(w) };

    w->moe = must(calloc((size_t)c->layers, 1));
    for (int i = 0; i < c->layers; i++)
        w->moe[i] = config_layer_is_moe(c, i);
    config.shape = (struct dispatch_shape){
        .hidden = (uint32_t)c->hidden,
        .carrier_bytes = (uint32_t)model_carrier_bytes(w->model),
        .expert_count = (uint32_t)c->experts,
        .experts_per_shard = c->experts_per_shard ? (uint32_t)c->experts_per_shard : 1,
        .shard_count = (uint32_t)c->shards,
        .layer_count = (uint32_t)c->layers,
        .moe = w->moe,
    };
    snprintf(config.name, sizeof config.name, "%s", w->settings->name);
    snprintf(config.family, sizeof config.family, "%s", model_family(w->model));
    model_fingerprint(w->model, config.fingerprint);
    if (!exchange_place(w, config.endpoint, sizeof config.endpoint, err) ||
        !exchange_new(&w->exchange, w->context, &config, err))
        return false;
    w->serving = must(experts_new(w->model));
    return step_new(&w->step, w->model, w->tokenizer, w->exchange, &steps, err);
}

static bool take_seat(struct worker *w, int stop_fd, struct err *err)
{
    const struct settings *s = w->settings;
    struct seat_config config = { .incarnation = w->incarnation, .credit_bytes = 64 << 20 };
    int64_t shard_bytes = model_config(w->model)->experts ? model_shard_bytes(w->model) : 0;

    snprintf(config.broker, sizeof config.broker, "%s", s->broker);
    snprintf(config.name, sizeof config.name, "%s", s->name);
    snprintf(config.endpoint, sizeof config.endpoint, "%s",
             s->advertise[0] ? s->advertise : exchange_endpoint(w->exchange));
    snprintf(config.family, sizeof config.family, "%s", model_family(w->model));
    snprintf(config.weights, sizeof config.weights, "%s", weights_name(model_weights(w->model)));
    model_fingerprint(w->model, config.fingerprint);
    config.shard_count = (uint32_t)model_config(w->model)->shards;
    config.shard_bytes = (uint64_t)shard_bytes;
    config.memory_bytes = (uint64_t)(s->memory ? s->memory : machine_bytes() / 4 * 3);
    /* A quarter more than run at once, so that a place that falls free is filled without a round trip. */
    config.credit_jobs = (uint32_t)(s->sequences + (s->sequences + 3) / 4);
    if (stop_fd >= 0)
        config.stop_fd[config.stop_fd_count++] = stop_fd;
    if (s->control_fd >= 0)
        config.stop_fd[config.stop_fd_count++] = (int)s->control_fd;
    return seat_start(&w->seat, w->context, &config, err);
}

/* What has its answer is sent, the rest given back; step_free takes the jobs themselves. */
static void release_all(struct worker *w)
{
    struct seat_event *event;

    while ((event = seat_take(w->seat))) /* leases that came meanwhile go back too */
        on_event(w, event);
    for (const struct job *job = step_jobs(w->step); job; job = job->next)
        if (!job->dropped)
            seat_release(w->seat, job->lease->fence);
}

enum worker_exit worker_run(const struct settings *settings, int stop_fd, struct err *err)
{
    struct worker *w = must(calloc(1, sizeof *w));
    enum worker_exit end;
    int64_t began_ms = clock_now_ms();

    w->settings = settings;
    w->err = err;
    w->end = WORKER_FAILED;
    w->context = link_context_new();
    if (getrandom(&w->incarnation, sizeof w->incarnation, 0) != sizeof w->incarnation || w->incarnation == 0)
        w->incarnation = (uint64_t)clock_now_ns() | 1;
    if (!open_model(w, err)) {
        w->end = WORKER_MODEL;
        goto out;
    }
    log_info("worker.model", "numerics=%s ms=%lld", w->numerics, (long long)(clock_now_ms() - began_ms));
    if (!open_exchange(w, err) || !take_seat(w, stop_fd, err))
        goto out;
    log_info("worker.start", "broker=%s exchange=%s threads=%d", settings->broker,
             exchange_endpoint(w->exchange), model_threads(w->model));
    loop(w);
    assert(w->stopping);
    release_all(w);
out:
    end = w->end;
    seat_leave(w->seat, end == WORKER_LEFT ? "told to leave" : err->text);
    step_free(w->step);
    experts_free(w->serving);
    free(w->work_sums);
    exchange_work_free(w->work);
    if (w->exchange && !strncmp(exchange_endpoint(w->exchange), "ipc://", 6))
        unlink(exchange_endpoint(w->exchange) + 6); /* libzmq leaves the socket's file where it is */
    exchange_free(w->exchange);
    if (w->own_directory[0])
        rmdir(w->own_directory);
    link_context_free(w->context);
    forms_free(w->world.forms);
    chat_free(w->chat);
    tokenizer_free(w->tokenizer);
    model_free(w->model);
    free(w->moe);
    free(w);
    return end;
}
