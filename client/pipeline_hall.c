/* What stands around a pipeline's loop: its options, its state directory, its hall. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/files.h"
#include "client/pipeline.h"
#include "client/say.h"
#include "client/stop.h"
#include "worker/model/config.h"

enum { ASKED_BYTES_MAX = 8 << 20, MEASURED_MAX = 8 };

const char *const pipeline_weights[] = { "auto", "f32", "bf16", "q8", "q4", NULL };
const char *const pipeline_chat_templates[] = { "auto", "v2", "v2.5", "v3", "v3-0324", NULL };

/* ---- before anything runs ------------------------------------------------------------------------- */

void pipeline_defaults(struct pipeline_options *o)
{
    o->workers = 1;
    o->timeout_ms = -1;
    o->overlap_tokens = -1;
    strcpy(o->queue, "default");
    strcpy(o->temperature, "0");
}

static void add(json_t **object, const char *key, json_t *value)
{
    if (!*object)
        *object = json_object();
    if (json_object_set_new(*object, key, value) != 0)
        abort(); /* out of memory, or a flag that is not UTF-8, which check_options refuses */
}

void pipeline_asked(struct pipeline *pipeline, const char *key, json_t *value)
{
    add(&pipeline->asked, key, value);
}

void pipeline_shaped(struct pipeline *pipeline, const char *key, json_t *value)
{
    add(&pipeline->shaped, key, value);
}

static bool check_options(struct pipeline *pipeline, int argc, char **argv, struct err *err)
{
    const struct pipeline_options *o = pipeline->options;
    const struct {
        const char *name, *text;
    } texts[] = { { "--instruction", o->instruction },
                  { "--template", o->template },
                  { "--broker", o->broker },
                  { "--queue", o->queue } };
    char *end;

    if (argc < 2)
        return err_set(err, ERR_INPUT, "no documents: expected files, directories, or - for standard input");
    if (!*o->output && !pipeline->dry)
        return err_set(err, ERR_INPUT, "no output: expected -o FILE, or -o - with --state DIR");
    if (o->weights >= 3)
        return err_set(err, ERR_INPUT,
                       "--weights %s: quantised weights are not built yet; expected f32 or bf16",
                       pipeline_weights[o->weights]);
    if (!*o->broker && !*o->model)
        return err_set(err, ERR_INPUT,
                       "no model: expected --model DIR (or --broker ENDPOINT of a hall that has one)");
    if (*o->broker && (o->workers > 1 || o->threads || o->weights || o->sequences))
        return err_set(
            err, ERR_INPUT,
            "--workers, --threads, --weights and --sequences belong to a private hall; with --broker the "
            "workers have their own");
    if (!command_name_is_good(o->queue) || !*o->queue)
        return err_set(err, ERR_INPUT, "--queue takes a name without spaces or control characters");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!span_is_utf8(span_text(texts[i].text)))
            return err_set(err, ERR_INPUT, "%s is not UTF-8", texts[i].name);
    pipeline->temperature = strtod(o->temperature, &end);
    if (!*o->temperature || *end || !(pipeline->temperature >= 0 && pipeline->temperature <= 2))
        return err_set(err, ERR_INPUT, "--temperature %s: expected a number 0..2", o->temperature);
    pipeline->word = argv + 1;
    pipeline->word_count = argc - 1;
    return true;
}

static bool open_model(struct pipeline *pipeline, struct err *err)
{
    const struct pipeline_options *o = pipeline->options;
    const char *template = o->chat_template ? pipeline_chat_templates[o->chat_template] : NULL;
    struct model_config config;
    char path[RECORD_PATH_MAX];

    if (!*o->model)
        return true;
    if (!file_join(path, sizeof path, o->model, "config.json", err) || !config_load(&config, path, 0, err) ||
        !tokenizer_load(&pipeline->tokenizer, o->model, err) ||
        !chat_load(&pipeline->chat, pipeline->tokenizer, o->model, template, err))
        return err_wrap(err, "--model");
    pipeline->context = config.context;
    return true;
}

bool pipeline_prepare(struct pipeline *pipeline, int argc, char **argv, struct err *err)
{
    const struct pipeline_options *o = pipeline->options;
    char mark[65] = "", temperature[32];

    if (!check_options(pipeline, argc, argv, err) || !open_model(pipeline, err))
        return false;
    if (*o->model && !*o->broker && !model_mark(o->model, mark, err))
        return err_wrap(err, "--model");
    snprintf(temperature, sizeof temperature, "%.6g", pipeline->temperature);
    pipeline_asked(pipeline, "verb", json_string(pipeline->verb->name));
    pipeline_asked(pipeline, "model", json_string(mark));
    pipeline_asked(pipeline, "weights", json_string(pipeline_weights[o->weights]));
    pipeline_asked(pipeline, "chat-template", json_string(pipeline_chat_templates[o->chat_template]));
    pipeline_asked(pipeline, "queue", json_string(o->queue));
    pipeline_asked(pipeline, "broker", json_string(o->broker));
    pipeline_asked(pipeline, "template", json_string(o->template));
    pipeline_asked(pipeline, "temperature", json_string(temperature));
    return true;
}

void pipeline_fini(struct pipeline *pipeline)
{
    chat_free(pipeline->chat);
    tokenizer_free(pipeline->tokenizer);
    json_decref(pipeline->asked);
    json_decref(pipeline->shaped);
}

/* ---- what was asked, and what there is already
 * --------------------------------------------------------------- */

struct around {
    struct pipeline *pipeline;
    struct command_places at;
    struct state_lock lock;
    struct documents *documents;
    struct record record;
    bool has_record;
    struct command_hall command;
    char family[40]; /* --mixed: go on in this one */
    struct pipeline_tally tally;
    struct say_progress progress;
    struct pipeline_loop loop;
    bool is_file; /* the output: not a pipe, a terminal or a device */
    bool anew;    /* nothing of it was there before */
    struct command_totals totals;
};

static void batch_name(const struct pipeline *pipeline, char name[RECORD_NAME_MAX + 1])
{
    char *text = json_dumps(pipeline->asked, JSON_COMPACT | JSON_SORT_KEYS), hex[33];
    uint8_t digest[16];

    if (!text)
        abort(); /* out of memory */
    crypto_generichash(digest, sizeof digest, (const uint8_t *)text, strlen(text), NULL, 0);
    sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    snprintf(name, RECORD_NAME_MAX + 1, "%s-%s", pipeline->verb->name, hex);
    free(text);
}

static bool save_asked(const struct around *around, struct err *err)
{
    char path[RECORD_PATH_MAX], *text;
    json_t *root =
        json_pack("{s:O,s:O}", "asked", around->pipeline->asked, "shaped", around->pipeline->shaped);
    bool ok;

    text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    ok = (text || err_set(err, ERR_IO, "no memory for what was asked")) &&
         file_join(path, sizeof path, around->at.state, "asked.json", err) &&
         file_replace(path, span_text(text), err);
    free(text);
    json_decref(root);
    return ok;
}

static json_t *load_asked(const struct around *around)
{
    char path[RECORD_PATH_MAX];
    struct buf text = { 0 };
    json_t *root = NULL;

    if (file_join(path, sizeof path, around->at.state, "asked.json", NULL) &&
        file_read(path, ASKED_BYTES_MAX, &text, NULL))
        root = json_loadb((const char *)text.data, text.size, 0, NULL);
    buf_fini(&text);
    return root;
}

static void text_of(const json_t *value, char *text, size_t size)
{
    char *dumped = json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

    snprintf(text, size, "%.60s",
             json_is_string(value) ? json_string_value(value)
             : dumped              ? dumped
                                   : "nothing");
    free(dumped);
}

/* The first option that was another, as words; empty where there is none. */
static void asked_differs(const json_t *was, const json_t *now, char *words, size_t size)
{
    const char *key;
    json_t *value;
    char before[64], after[64];

    *words = '\0';
    json_object_foreach((json_t *)(uintptr_t)now, key, value)
    {
        const json_t *old = json_object_get(was, key);

        if (json_equal(old, value))
            continue;
        if (!strcmp(key, "schema") || !strcmp(key, "model")) {
            snprintf(words, size, "the %s has changed since", key);
        } else {
            text_of(old, before, sizeof before);
            text_of(value, after, sizeof after);
            snprintf(words, size, "%s%s was `%s` and is now `%s`", strcmp(key, "verb") ? "--" : "the ", key,
                     before, after);
        }
        return;
    }
}

static bool identify(struct around *around, struct run_identity *now, struct err *err)
{
    const struct pipeline_options *o = around->pipeline->options;

    memset(now, 0, sizeof *now);
    strcpy(now->output, around->at.output);
    strcpy(now->broker, o->broker);
    strcpy(now->queue, o->queue);
    strcpy(now->weights, pipeline_weights[o->weights]);
    strcpy(now->chat_template, pipeline_chat_templates[o->chat_template]);
    strcpy(now->order, "input");
    strcpy(now->on_bad_line, "error");
    batch_name(around->pipeline, now->batch_wanted);
    now->lines = documents_count(around->documents);
    snprintf(now->model_mark, sizeof now->model_mark, "%s",
             json_string_value(json_object_get(around->pipeline->asked, "model")));
    return !*o->model || *o->broker || file_absolute(o->model, now->model, sizeof now->model, err) ||
           err_wrap(err, "--model");
}

static bool inputs_of(struct around *around, char hex[65], struct err *err)
{
    struct pipeline_inputs inputs;
    size_t count = documents_count(around->documents);

    pipeline_inputs_start(&inputs);
    for (size_t i = 0; i < count; i++) {
        struct err why = { 0 };
        uint8_t digest[DOCUMENT_DIGEST_SIZE];
        uint64_t bytes;
        bool ok = pipeline_digest(around->documents, i, digest, &bytes, NULL, NULL, &why);

        if (!ok && !stop_check(err))
            return false;
        pipeline_inputs_add(&inputs, documents_name(around->documents, i), ok ? digest : NULL);
    }
    pipeline_inputs_end(&inputs, hex);
    return true;
}

/* Forgets what an earlier command did, but not its output: that stays until the new one is whole. */
static bool wipe(struct around *around, struct err *err)
{
    char path[RECORD_PATH_MAX];
    static const char *const names[] = { "record.json", "asked.json" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!file_join(path, sizeof path, around->at.state, names[i], err))
            return false;
        unlink(path);
    }
    for (uint32_t e = 1; around->has_record && e <= around->record.edition; e++)
        record_lines_remove(around->at.state, e); /* of a `run` */
    return file_join(path, sizeof path, around->at.state, "store", err) && file_remove_tree(path, err);
}

static bool begin(struct around *around, const struct run_identity *now, bool keep_store, struct err *err)
{
    struct record *record = &around->record;
    const struct pipeline_options *o = around->pipeline->options;
    uint8_t random[8];

    if (keep_store) {
        record->is = *now;
        record->ended = record->finished = false;
    } else {
        around->anew = true;
        if (!wipe(around, err))
            return false;
        memset(record, 0, sizeof *record);
        record->is = *now;
        record->edition = 1;
        randombytes_buf(random, sizeof random);
        sodium_bin2hex(record->nonce, sizeof record->nonce, random, sizeof random);
        snprintf(record->batch, sizeof record->batch, "%.100s%s%s", now->batch_wanted,
                 *o->broker && o->restart ? "-" : "",
                 *o->broker && o->restart ? record->nonce
                                          : ""); /* in a shared hall the earlier jobs are still there */
    }
    record->submitted = true; /* the batch is known from its first job on */
    return save_asked(around, err) && record_save(record, around->at.state, err);
}

enum means { GO, NOTHING_TO_DO, NOTHING_TO_DO_BUT_RETRY, REFUSED };

static enum means decide(struct around *around, struct err *err)
{
    struct pipeline *pipeline = around->pipeline;
    const struct pipeline_options *o = pipeline->options;
    struct record *record = &around->record;
    struct run_identity now;
    struct stat st;
    bool exists = false, over, same_batch, same_all = false, store;
    json_t *asked = NULL;
    char words[300] = "";
    enum means means = REFUSED;

    if (!identify(around, &now, err))
        return REFUSED;
    around->has_record = record_load(record, around->at.state, err);
    if (!around->has_record && err->code != ERR_NOT_FOUND && !o->restart)
        return REFUSED;
    around->is_file = strcmp(around->at.output, "-") != 0;
    if (around->is_file && stat(around->at.output, &st) == 0) {
        around->is_file = S_ISREG(st.st_mode);
        exists = around->is_file;
    }
    if (o->restart)
        return begin(around, &now, false, err) ? GO : REFUSED;
    if (!around->has_record) {
        if (exists && st.st_size > 0) {
            err_set(
                err, ERR_CONFLICT,
                "%s exists and no earlier command wrote it; name another file, or --restart to write over it",
                o->output);
            return REFUSED;
        }
        return begin(around, &now, false, err) ? GO : REFUSED;
    }
    asked = load_asked(around);
    over = record->ended || record->finished;
    same_batch = !strcmp(record->is.batch_wanted, now.batch_wanted) && !strcmp(record->is.output, now.output);
    asked_differs(json_object_get(asked, "asked"), pipeline->asked, words, sizeof words);
    store = state_store_exists(around->at.state) || *o->broker;
    if (over && around->is_file && exists && (uint64_t)st.st_size != record->output_bytes) {
        err_set(err, ERR_CONFLICT,
                "%s was changed since it was written (%" PRIu64 " bytes, now %" PRIu64
                "); name another file, or --restart to write over it",
                o->output, record->output_bytes, (uint64_t)st.st_size);
        goto out;
    }
    if (!record->finished && !same_batch && record->hall) {
        err_set(err, ERR_CONFLICT,
                "an earlier command of %s is not finished, and %s; repeat that one, or --restart", o->output,
                !asked   ? "it was a `moothall run`"
                : *words ? words
                         : "it was another");
        goto out;
    }
    if (over && same_batch) {
        if (!inputs_of(around, now.input, err))
            goto out;
        same_all = !strcmp(now.input, record->is.input) && now.lines == record->is.lines &&
                   json_equal(json_object_get(asked, "shaped"), pipeline->shaped);
        if (same_all && (around->is_file ? exists : record->finished)) {
            if (record->finished) {
                means = NOTHING_TO_DO;
                goto out;
            }
            if (!o->retry_failed) {
                means = NOTHING_TO_DO_BUT_RETRY;
                goto out;
            }
        }
    }
    if (same_batch && store &&
        !command_check_family(*o->broker ? "" : record->family, o->mixed, around->family, err))
        goto out;
    if (*around->family)
        *record->family = '\0'; /* learned again */
    if (!over && same_batch)
        say("continuing an earlier command of %s", around->at.output);
    else if (over && exists && !same_all)
        say("%s is the result of other documents or options; it is written anew", around->at.output);
    if (begin(around, &now, same_batch && store, err))
        means = GO;
out:
    json_decref(asked);
    return means;
}

/* ---- running
 * ----------------------------------------------------------------------------------------------- */

static bool look(void *arg, struct err *err)
{
    struct around *around = arg;
    struct record *record = &around->record;
    const Moothall__Status *status;

    around->progress.done = around->tally.documents;
    around->progress.failed = around->tally.failed;
    around->progress.note = around->command.waiting_for;
    say_progress(&around->progress, clock_now_ms());
    if (!command_hall_look(&around->command, "", "", &status, err))
        return false;
    if (status && ((!*record->family && *status->family) || (!*record->numerics && *status->numerics))) {
        snprintf(record->family, sizeof record->family, "%s", status->family);
        snprintf(record->numerics, sizeof record->numerics, "%s", status->numerics);
        return record_save(record, around->at.state, err);
    }
    return true;
}

static bool open_hall(struct around *around, struct err *err)
{
    const struct pipeline_options *o = around->pipeline->options;
    struct command_hall_config config = {
        .verb = around->pipeline->verb->name,
        .broker = o->broker,
        .timeout_ms = o->timeout_ms,
        .quiet = o->quiet,
        .private_hall = { .lock = &around->lock,
                          .workers = (int)o->workers,
                          .threads = (int)o->threads,
                          .sequences = (int)o->sequences,
                          .model = o->model,
                          .weights = pipeline_weights[o->weights],
                          .chat_template =
                              o->chat_template ? pipeline_chat_templates[o->chat_template] : NULL,
                          .family = around->family },
    };
    struct hall_welcome welcome;

    if (!command_hall_open(&around->command, &config, &welcome, err))
        return false;
    if (around->record.hall == welcome.hall)
        return true;
    around->record.hall = welcome.hall;
    return record_save(&around->record, around->at.state, err);
}

/* Opens the output: a file beside its place, or the stream itself. */
static FILE *open_output(struct around *around, struct err *err)
{
    const char *path = around->is_file ? around->at.beside : around->at.output;
    FILE *file;

    if (!strcmp(around->at.output, "-")) {
        int fd = dup(STDOUT_FILENO);

        file = fd >= 0 ? fdopen(fd, "w") : NULL;
        around->loop.file_name = "standard output";
    } else {
        file = fopen(path, "we");
        around->loop.file_name = path;
    }
    if (!file)
        err_errno(err, "write %s", around->loop.file_name);
    around->loop.flush = !around->is_file;
    return file;
}

static bool close_output(struct around *around, FILE *file, bool ok, struct err *err)
{
    struct stat st = { 0 };

    if (ok && (fflush(file) != 0 ||
               (around->is_file && (fstat(fileno(file), &st) != 0 || fsync(fileno(file)) != 0))))
        ok = err_errno(err, "write %s", around->loop.file_name);
    if (fclose(file) != 0 && ok)
        ok = err_errno(err, "write %s", around->loop.file_name);
    if (!around->is_file || !ok)
        return ok;
    around->record.output_bytes = (uint64_t)st.st_size;
    return file_put_in_place(around->at.beside, around->at.output, err);
}

static FILE *open_notes(struct around *around)
{
    char path[RECORD_PATH_MAX];
    const char *name = around->pipeline->notes;

    return name && file_join(path, sizeof path, around->at.state, name, NULL) ? fopen(path, "we") : NULL;
}

static void forget_stdin(const struct around *around)
{
    char path[RECORD_PATH_MAX];

    if (file_join(path, sizeof path, around->at.state, "stdin", NULL))
        unlink(path);
}

static bool finish(struct around *around, struct err *err)
{
    struct record *record = &around->record;

    pipeline_inputs_end(&around->tally.inputs, record->is.input);
    record->ended = true;
    record->finished = !around->tally.failed;
    record->kept = around->pipeline->options->keep;
    record->failed = around->tally.failed;
    record->done = around->tally.documents - around->tally.failed;
    if (!record_save(record, around->at.state, err))
        return false;
    forget_stdin(around);
    return !record->finished || state_clear(around->at.state, record->kept, err);
}

static bool execute(struct around *around, struct err *err)
{
    struct pipeline *pipeline = around->pipeline;
    FILE *file = NULL, *notes = NULL;
    bool ok;

    around->loop = (struct pipeline_loop){ .documents = around->documents,
                                           .count = documents_count(around->documents),
                                           .command = &around->command,
                                           .queue = around->record.is.queue,
                                           .batch = around->record.batch,
                                           .retry = pipeline->options->retry_failed,
                                           .meanwhile = look,
                                           .arg = around };
    ok = open_hall(around, err) && (file = open_output(around, err));
    if (ok) {
        around->loop.file = file;
        around->loop.notes = notes = open_notes(around);
        around->progress = (struct say_progress){ .what = "done", .total = around->loop.count };
        say_progress_start(clock_now_ms());
        ok = pipeline_loop(pipeline, &around->loop, &around->tally, err);
        say_progress_end();
        if (ok && !*around->record.numerics) { /* it was short: nobody has looked since its first result */
            around->command.looked_ms = 0;
            ok = look(around, err);
            say_progress_end();
        }
    }
    if (ok && around->anew && around->command.private_hall) /* else part of it was done by an earlier command */
        command_totals_note(&around->totals, &around->command, around->record.is.queue, around->record.batch);
    command_hall_close(&around->command);
    if (notes)
        fclose(notes);
    if (file)
        ok = close_output(around, file, ok, err);
    return ok && finish(around, err);
}

static int say_over(const struct around *around, int64_t ms)
{
    const struct pipeline_tally *tally = &around->tally;
    const char *where = strcmp(around->at.output, "-") ? around->at.output : "standard output";

    if (tally->failed)
        say("%" PRIu64 " documents: %" PRIu64 " done, %" PRIu64
            " failed, in %.1f s; lines in %s; --retry-failed does those again",
            tally->documents, tally->documents - tally->failed, tally->failed, (double)ms / 1000, where);
    else
        say("%" PRIu64 " documents: all done, with %" PRIu64 " jobs, in %.1f s; lines in %s",
            tally->documents, tally->jobs, (double)ms / 1000, where);
    command_totals_say(&around->totals, tally->documents, "documents", ms);
    return tally->failed ? 2 : 0;
}

/* The output and the state must not be documents of the next time. */
static bool check_words(const struct around *around, struct err *err)
{
    const char *place[] = { around->at.output, around->at.state };
    struct stat st;
    char real[PATH_MAX];

    for (int i = 0; i < around->pipeline->word_count; i++) {
        const char *word = around->pipeline->word[i];

        if (!strcmp(word, "-") || stat(word, &st) != 0)
            continue;
        if (!S_ISDIR(st.st_mode) || !realpath(word, real))
            continue;
        for (int k = 0; k < 2; k++) {
            size_t n = strlen(real);

            if (strncmp(place[k], real, n) == 0 && (place[k][n] == '/' || (n && real[n - 1] == '/')))
                return err_set(
                    err, ERR_INPUT,
                    "the %s lies in %s, whose files are all read as documents; name one outside of it",
                    k ? "state" : "output", word);
        }
    }
    return true;
}

/* An earlier output that a glob matches. */
static bool check_names(const struct around *around, struct err *err)
{
    struct stat st, out;

    if (stat(around->at.output, &out) != 0 || !S_ISREG(out.st_mode))
        return true;
    for (size_t i = 0; i < documents_count(around->documents); i++) {
        const char *name = documents_name(around->documents, i);

        if (stat(name, &st) == 0 && out.st_dev == st.st_dev && out.st_ino == st.st_ino)
            return err_set(err, ERR_INPUT, "%s is both document and output", name);
    }
    return true;
}

static bool open_documents(struct around *around, struct err *err)
{
    char spool[RECORD_PATH_MAX];
    struct documents_config config = { .word = around->pipeline->word,
                                       .word_count = around->pipeline->word_count,
                                       .template = *around->pipeline->options->template
                                                       ? around->pipeline->options->template
                                                       : NULL,
                                       .spool = spool };

    return file_join(spool, sizeof spool, around->at.state, "stdin", err) &&
           documents_open(&around->documents, &config, err) && check_names(around, err);
}

int pipeline_run(struct pipeline *pipeline)
{
    const struct pipeline_options *o = pipeline->options;
    const char *name = pipeline->verb->name;
    struct around *around = calloc(1, sizeof *around);
    int64_t started_ms = clock_now_ms();
    struct err err = { 0 };
    enum means means = REFUSED;
    int status = 1;

    if (!around)
        return 1;
    around->pipeline = pipeline;
    around->lock.run_fd = around->lock.shared_fd = -1;
    say_init(o->quiet);
    if (!command_find_places(&around->at, o->output, o->state, NULL, &err) || !check_words(around, &err) ||
        !state_lock_take(&around->lock, around->at.state, name, &err)) {
        command_say_unbegun(name, &err);
        free(around);
        return 1;
    }
    if (open_documents(around, &err))
        means = decide(around, &err);
    switch (means) {
    case REFUSED:
        command_say_unbegun(name, &err);
        forget_stdin(around);
        command_forget_state(around->at.state);
        break;
    case NOTHING_TO_DO:
        say("nothing to do: %s is complete (%" PRIu64 " documents, all done)", around->at.output,
            around->record.done);
        state_clear(around->at.state, around->record.kept, &err);
        status = 0;
        break;
    case NOTHING_TO_DO_BUT_RETRY:
        say("nothing to do: %s is complete, %" PRIu64 " documents done, %" PRIu64
            " failed; --retry-failed does those again",
            around->at.output, around->record.done, around->record.failed);
        status = 2;
        break;
    case GO:
        if (execute(around, &err))
            status = say_over(around, clock_now_ms() - started_ms);
        else if (err.code == ERR_INTERRUPTED)
            say_error("moothall %s: interrupted; what is done is kept, and the same command continues", name);
        else
            say_failed(name, &err);
    }
    documents_close(around->documents);
    state_lock_release(&around->lock);
    free(around);
    return status;
}

/* ---- before a long run
 * ---------------------------------------------------------------------------------------- */

struct survey {
    uint64_t documents, unreadable, over_long, twice, pieces, bytes, tokens;
    uint8_t (*digest)[DOCUMENT_DIGEST_SIZE];
    size_t digests;
};

static int compare_digests(const void *a, const void *b)
{
    return memcmp(a, b, DOCUMENT_DIGEST_SIZE);
}

static bool survey_document(struct around *around, struct survey *survey, size_t index, bool *good,
                            struct err *err)
{
    struct pipeline *pipeline = around->pipeline;
    struct err why = { 0 };
    struct document *document = NULL;
    struct chunks *chunks = NULL;
    struct chunk chunk;
    uint64_t bytes = 0, pieces = 0, tokens = 0;
    uint8_t digest[DOCUMENT_DIGEST_SIZE];
    bool end = false, ok;

    ok = pipeline_digest(around->documents, index, digest, &bytes, NULL, NULL, &why) &&
         document_open(&document, around->documents, index, &why) &&
         chunks_open(&chunks, document, pipeline->tokenizer, pipeline->limits, &why);
    while (ok && !end) {
        ok = chunks_next(chunks, &chunk, &end, &why) && stop_check(&why);
        if (ok && !end) {
            pieces++;
            tokens += chunk.tokens;
            end = chunk.last;
        }
    }
    chunks_close(chunks);
    document_close(document);
    if (!stop_check(err))
        return false;
    survey->documents++;
    *good = ok && pieces;
    if (!*good) {
        if (++survey->unreadable <= 20)
            say_error("%s: %s", documents_name(around->documents, index), ok ? "it has no text" : why.text);
        return true;
    }
    survey->bytes += bytes;
    survey->tokens += tokens;
    survey->pieces += pieces;
    survey->over_long += pieces > 1;
    memcpy(survey->digest[survey->digests++], digest, DOCUMENT_DIGEST_SIZE);
    return true;
}

/* The first few documents, for real, in a state directory that nobody keeps. */
static bool measure(struct around *around, size_t count, double *seconds_a_token, double *generated_a_job,
                    struct err *err)
{
    struct pipeline *pipeline = around->pipeline;
    double tokens;
    bool ok;

    around->loop = (struct pipeline_loop){ .documents = around->documents,
                                           .count = count,
                                           .command = &around->command,
                                           .queue = around->record.is.queue,
                                           .batch = around->record.batch,
                                           .chunks_max = MEASURED_MAX,
                                           .meanwhile = look,
                                           .arg = around };
    around->progress = (struct say_progress){ .what = "measured", .total = count };
    ok = open_hall(around, err) && pipeline_loop(pipeline, &around->loop, &around->tally, err);
    say_progress_end();
    command_hall_close(&around->command);
    tokens = (double)(around->tally.prompt_tokens + around->tally.generated_tokens);
    *seconds_a_token = tokens > 0 && around->tally.finished_ms > around->tally.leased_ms
                           ? (double)(around->tally.finished_ms - around->tally.leased_ms) / 1000 / tokens
                           : 0;
    *generated_a_job =
        around->tally.jobs ? (double)around->tally.generated_tokens / (double)around->tally.jobs : 0;
    return ok;
}

static bool survey_all(struct around *around, struct survey *survey, json_t *out, struct err *err)
{
    struct pipeline *pipeline = around->pipeline;
    size_t count = documents_count(around->documents), first = 0;
    double seconds = 0, generated = 0, total;
    uint32_t words = 0;
    bool good, ok = true;

    survey->digest = malloc((count + 1) * sizeof *survey->digest);
    if (!survey->digest)
        return err_set(err, ERR_IO, "no memory for %zu documents", count);
    say_progress_start(clock_now_ms());
    for (size_t i = 0; ok && i < count; i++) {
        around->progress = (struct say_progress){ .what = "counted", .done = i, .total = count };
        say_progress(&around->progress, clock_now_ms());
        ok = survey_document(around, survey, i, &good, err);
        if (ok && survey->pieces <= MEASURED_MAX)
            first = i + 1;
    }
    say_progress_end();
    if (!ok)
        return false;
    qsort(survey->digest, survey->digests, sizeof *survey->digest, compare_digests);
    for (size_t i = 1; i < survey->digests; i++)
        survey->twice += !memcmp(survey->digest[i - 1], survey->digest[i], DOCUMENT_DIGEST_SIZE);
    ok = pipeline_count(pipeline, span_text(pipeline->instruction), span_of(NULL, 0), &words, err);
    if (!first && count)
        first = 1;
    if (ok && survey->pieces && !*pipeline->options->broker)
        ok = measure(around, first, &seconds, &generated, err);
    if (!ok)
        return false;
    total = (double)survey->tokens + (double)survey->pieces * (words + generated);
    if (json_object_set_new(out, "documents", json_integer((json_int_t)survey->documents)) ||
        json_object_set_new(out, "unreadable", json_integer((json_int_t)survey->unreadable)) ||
        json_object_set_new(out, "duplicates", json_integer((json_int_t)survey->twice)) ||
        json_object_set_new(out, "over_long", json_integer((json_int_t)survey->over_long)) ||
        json_object_set_new(out, "pieces", json_integer((json_int_t)survey->pieces)) ||
        json_object_set_new(out, "bytes", json_integer((json_int_t)survey->bytes)) ||
        json_object_set_new(out, "tokens", json_integer((json_int_t)survey->tokens)) ||
        json_object_set_new(out, "piece_tokens_max", json_integer(pipeline->limits.tokens)) ||
        json_object_set_new(out, "measured_documents", json_integer((json_int_t)around->tally.documents)) ||
        json_object_set_new(out, "tokens_a_second",
                            seconds > 0 ? json_integer((json_int_t)(1 / seconds)) : json_null()) ||
        json_object_set_new(out, "seconds",
                            seconds > 0 ? json_integer((json_int_t)(total * seconds + 1)) : json_null()))
        return err_set(err, ERR_IO, "no memory for the survey");
    return true;
}

int pipeline_dry_run(struct pipeline *pipeline)
{
    const struct pipeline_options *o = pipeline->options;
    const char *name = pipeline->verb->name, *base = getenv("TMPDIR");
    struct around *around = calloc(1, sizeof *around);
    struct survey survey = { 0 };
    json_t *out = json_object();
    struct run_identity now;
    struct err err = { 0 };
    int status = 1;

    if (!around || !out) {
        free(around);
        json_decref(out);
        return 1;
    }
    around->pipeline = pipeline;
    around->lock.run_fd = around->lock.shared_fd = -1;
    strcpy(around->at.output, "-");
    say_init(o->quiet);
    snprintf(around->at.state, sizeof around->at.state, "%.4000s/moothall-dry-XXXXXX",
             base && *base == '/' ? base : "/tmp");
    if (!pipeline->tokenizer) {
        err_set(&err, ERR_INPUT, "--dry-run counts tokens: expected --model DIR");
    } else if (!mkdtemp(around->at.state)) {
        err_errno(&err, "make a directory for --dry-run");
    } else {
        if (state_lock_take(&around->lock, around->at.state, name, &err) && open_documents(around, &err) &&
            identify(around, &now, &err) && begin(around, &now, false, &err) &&
            survey_all(around, &survey, out, &err)) {
            json_dumpf(out, stdout, JSON_COMPACT);
            putchar('\n');
            status = fflush(stdout) == 0 ? 0 : 1;
            if (status)
                err_errno(&err, "write standard output");
        }
        documents_close(around->documents);
        state_lock_release(&around->lock);
        file_remove_tree(around->at.state, NULL);
    }
    if (status)
        command_say_unbegun(name, &err);
    free(survey.digest);
    json_decref(out);
    free(around);
    return status;
}
