/* pipeline - jobs that follow from documents and from other jobs' results, without a state of its own.
 *
 * A pipeline is a consumer: it makes the same jobs from the same documents every time, under ids that are
 * digests of what is asked, so a job that exists is not done again; and it reads results by id.  Killed
 * anywhere and started again it asks for the same jobs and is given what there is.  The output is written
 * from its start each time, in the order of documents, under a name beside its own until it is whole; so it
 * ends with the same bytes, and what looks complete is.
 *
 * A *unit* is one document's way: its text becomes chunks, every chunk a job of level 0, and the verb is
 * given their answers in order, of which it may make jobs of the next levels, and in the end lines of output.
 * Answers of one level come in the order in which its jobs were asked.  A bounded number of units and of jobs
 * is under way at once; documents are read one at a time, as streams.
 *
 * A document is read whole before anything is asked of it: is it text, is it all there?  Then for its chunks,
 * and again where the verb looks up what was found in it.  One that has changed meanwhile is its own failure,
 * and no mixture of two.
 *
 * What belongs to the batch is what was asked (verb, schema, words, budgets, model), not the documents:
 * changed or added ones are other jobs in the same batch. */

#ifndef CLIENT_PIPELINE_H
#define CLIENT_PIPELINE_H

#include <jansson.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"
#include "base/yaml_fields.h"
#include "client/chunks.h"
#include "client/command.h"
#include "client/documents.h"
#include "client/verbs.h"
#include "worker/model/chat.h"
#include "worker/model/tokenizer.h"

enum {
    PIPELINE_UNITS = 512,
    PIPELINE_JOBS = 4096,          /* asked and not answered, when a further chunk is made of a document */
    PIPELINE_BYTES_MAX = 64 << 20, /* of prompts asked and not answered, likewise */
    PIPELINE_LEVELS = 48,          /* levels at least halve: no more can be needed */
    PIPELINE_INSTRUCTION_MAX = 1 << 18,
    PIPELINE_TEMPLATE_MAX = 1 << 16,
    PIPELINE_WHOLE_MAX = 8 << 20, /* a document, where no tokenizer is here to split it */
    PIPELINE_SLACK = 16,          /* tokens that a text may grow by where it meets the words around it */
};

/* ---- what both verbs can be asked ----------------------------------------------------------------- */

struct pipeline_options {
    char model[RECORD_PATH_MAX], output[RECORD_PATH_MAX], state[RECORD_PATH_MAX];
    char broker[256], queue[65];
    char instruction[PIPELINE_INSTRUCTION_MAX], template[PIPELINE_TEMPLATE_MAX];
    char temperature[16];
    int64_t workers, threads, sequences, timeout_ms;
    int64_t chunk_tokens, overlap_tokens, max_tokens; /* 0, -1, 0: the default */
    int weights, chat_template;
    bool keep, restart, retry_failed, mixed, quiet;
};

extern const char *const pipeline_weights[];
extern const char *const pipeline_chat_templates[];

/* Rows of a verb's table of fields; `type` has a struct pipeline_options `common`. */
#define PIPELINE_FIELDS_IN(type)                                                                             \
    { "model", OPTION_TEXT(type, common.model),                                                              \
      "directory of the model (with --broker only its tokenizer's files are read; without it documents are " \
      "not split)" },                                                                                        \
        { "output", OPTION_TEXT(type, common.output), "-o FILE: where lines go, - for standard output" },    \
        { "instruction", OPTION_TEXT(type, common.instruction), "what is said before each document" },       \
        { "template", OPTION_TEXT(type, common.template),                                                    \
          "files are tables (.csv, .tsv, .jsonl): each row is a document made with it, \"{column} ...\"" },  \
        { "chunk_tokens", OPTION_NUMBER(type, common.chunk_tokens, FIELD_INT, 16, 1 << 24),                  \
          "split documents into pieces of at most so many tokens (default: what the context leaves)" },      \
        { "overlap_tokens", OPTION_NUMBER(type, common.overlap_tokens, FIELD_INT, 0, 1 << 23),               \
          "of two neighbouring pieces" },                                                                    \
        { "max_tokens", OPTION_NUMBER(type, common.max_tokens, FIELD_INT, 1, 1 << 24), "of each answer" },   \
    {                                                                                                        \
        "temperature", OPTION_TEXT(type, common.temperature), "0 (default) to 2"                             \
    }

#define PIPELINE_FIELDS_AFTER(type)                                                                          \
    { "workers", OPTION_NUMBER(type, common.workers, FIELD_INT, 1, PRIVATE_WORKERS_MAX),                     \
      "worker processes; they divide the experts (1)" },                                                     \
        { "threads", OPTION_NUMBER(type, common.threads, FIELD_INT, 0, 256),                                 \
          "compute threads of each worker (0: the machine's, shared out)" },                                 \
        { "weights", OPTION_CHOICE(type, common.weights, pipeline_weights),                                  \
          "format computed in: auto (what the checkpoint has), f32, bf16" },                                 \
        { "chat_template", OPTION_CHOICE(type, common.chat_template, pipeline_chat_templates),               \
          "auto (recognised from the model's files), v2, v2.5, v3, v3-0324" },                               \
        { "sequences", OPTION_NUMBER(type, common.sequences, FIELD_INT, 0, 1024),                            \
          "generations in progress at once in a worker (0: its default)" },                                  \
        { "state", OPTION_TEXT(type, common.state),                                                          \
          "where what is done is kept (default: OUTPUT.moothall; needed with -o -)" },                       \
        { "keep", OPTION_FLAG(type, common.keep), "keep the store after all went well" },                    \
        { "restart", OPTION_FLAG(type, common.restart),                                                      \
          "forget what an earlier command did for this output" },                                            \
        { "retry_failed", OPTION_FLAG(type, common.retry_failed), "do again what failed" },                  \
        { "mixed", OPTION_FLAG(type, common.mixed),                                                          \
          "continue although this machine computes with another kernel family" },                            \
        { "broker", OPTION_TEXT(type, common.broker),                                                        \
          "use this shared hall: tcp://HOST:PORT or ipc:///PATH" },                                          \
        { "queue", OPTION_TEXT(type, common.queue), "queue in the hall (default)" },                         \
        { "timeout",                                                                                         \
          OPTION_NUMBER(type, common.timeout_ms, FIELD_DURATION, 0, INT64_C(30) * 24 * 3600 * 1000),         \
          "give up when the broker is silent for so long: 30s, 5m (default: 60 s at the start, then "        \
          "never)" },                                                                                        \
    {                                                                                                        \
        "quiet", OPTION_FLAG(type, common.quiet), "say nothing but errors"                                   \
    }

/* ---- a verb's part -------------------------------------------------------------------------------- */

struct pipeline;

struct unit {
    struct unit *next;
    size_t document; /* its index */
    void *own;       /* the verb's */

    uint32_t chunks, chunks_answered;
    bool chunked;  /* there will be no more of them */
    uint32_t open; /* jobs that are not answered */

    json_t *error; /* {"code", "message"}: it has failed.  Of its failed jobs the first of the lowest level */
    uint32_t error_level;
    char error_job[33];

    uint32_t jobs;
    uint32_t cut; /* answers that the budget ended, or that went round in a circle */
    uint64_t prompt_tokens, generated_tokens;
    char numerics[80];

    bool over; /* lines are its output */
    struct buf lines;
};

struct pipeline_verb {
    const char *name;
    /* A unit begins: set unit->own.  False: no memory. */
    bool (*begin)(struct pipeline *pipeline, struct unit *unit);
    /* A chunk was asked for; its text is still there.  May be NULL. */
    bool (*chunk)(struct pipeline *pipeline, struct unit *unit, const struct chunk *chunk);
    /* An answer: its text, good until the return.  Keeps what it needs; asks for nothing yet. */
    bool (*answer)(struct pipeline *pipeline, struct unit *unit, uint32_t level, uint32_t number,
                   struct span text, struct err *err);
    /* Answers have come, or the last chunk was made: ask for what follows.  *done: nothing more will be asked
     * and nothing is open. */
    bool (*advance)(struct pipeline *pipeline, struct unit *unit, bool *done, struct err *err);
    /* The document as it was read, from its start again, where the unit is done and well: pieces in order,
     * then one with nothing in it.  May be NULL. */
    bool (*again)(struct pipeline *pipeline, struct unit *unit, uint64_t byte, struct span piece,
                  struct err *err);
    /* Appends the unit's lines: its rows, or its error's. */
    bool (*write)(struct pipeline *pipeline, struct unit *unit, struct buf *lines, struct err *err);
    void (*end)(struct unit *unit); /* frees unit->own */
};

struct pipeline {
    const struct pipeline_verb *verb;
    struct pipeline_options *options;
    void *own;         /* the verb's */
    char *const *word; /* documents as they were named */
    int word_count;

    /* From the model's files; NULL and 0 with --broker and without --model. */
    struct tokenizer *tokenizer;
    struct chat *chat;
    int32_t context;

    const char *instruction; /* of level 0 */
    int32_t max_tokens;
    double temperature;
    struct chunk_limits limits;
    struct span form;   /* `"response_format":...`, or nothing */
    struct span header; /* of the output */
    json_t *asked;      /* all that decides which jobs there are */
    json_t *shaped;     /* what else decides how the output looks */
    const char
        *notes; /* with --keep: the file in the state directory that pipeline_note writes to; or NULL */
    bool dry;   /* --dry-run: there need be no output */

    struct pipeline_work *work; /* pipeline.c's */
};

/* Defaults; then, the flags taken out of argv, what can be said at once.  Opens the model. */
void pipeline_defaults(struct pipeline_options *options);
bool pipeline_prepare(struct pipeline *pipeline, int argc, char **argv, struct err *err);
/* Adds to what was asked (shaped: only to how it looks); takes value.  Aborts without memory. */
void pipeline_asked(struct pipeline *pipeline, const char *key, json_t *value);
void pipeline_shaped(struct pipeline *pipeline, const char *key, json_t *value);
void pipeline_fini(struct pipeline *pipeline);

/* Sets limits: chunks as large as context, instruction and max_tokens leave, or as was asked.  least: tokens
 * of a document that must have room.  The error says what leaves no room. */
bool pipeline_set_limits(struct pipeline *pipeline, uint32_t overlap_default, struct err *err);

/* Tokens of a prompt: the template, the instruction, a blank line, the text. */
bool pipeline_count(const struct pipeline *pipeline, struct span instruction, struct span text,
                    uint32_t *tokens, struct err *err);

/* Asks for a further job of a unit.  A text that cannot be asked (too long for the context or the broker) is
 * the unit's failure.  what: stands in custom_id after the document's name, "#3". */
bool pipeline_ask(struct pipeline *pipeline, struct unit *unit, uint32_t level, uint32_t number,
                  const char *what, struct span instruction, struct span text, struct err *err);

/* A note for --keep (a line of JSON; takes it). */
bool pipeline_note(struct pipeline *pipeline, json_t *note, struct err *err);

/* The unit fails; nothing further is asked for it at levels above. */
void unit_fail(struct unit *unit, uint32_t level, const char *job, const char *code, const char *message);

/* The name of a unit's document. */
const char *pipeline_source(const struct pipeline *pipeline, const struct unit *unit);

/* For `moothall` in a line: what it took (a new reference). */
json_t *pipeline_provenance(const struct pipeline *pipeline, const struct unit *unit);

/* Everything from the state's lock to the last line on stderr; returns the exit status. */
int pipeline_run(struct pipeline *pipeline);

/* Counts documents, tokens, pieces, what cannot be read and what is there twice; measures on the first few;
 * one JSON object on stdout. */
int pipeline_dry_run(struct pipeline *pipeline);

/* ---- pipeline_work's, between pipeline.c and pipeline_hall.c -------------------------------------- */

/* A digest of all documents in order, with their names; of one that cannot be read, only that. */
struct pipeline_inputs {
    crypto_generichash_state hash;
};
void pipeline_inputs_start(struct pipeline_inputs *inputs);
void pipeline_inputs_add(struct pipeline_inputs *inputs, const char *name,
                         const uint8_t digest[DOCUMENT_DIGEST_SIZE]); /* NULL: unreadable */
void pipeline_inputs_end(struct pipeline_inputs *inputs, char hex[65]);

struct pipeline_tally {
    uint64_t documents, failed;
    uint64_t prompt_tokens, generated_tokens, jobs;
    int64_t leased_ms, finished_ms; /* first and last, of the store's clock; 0: none */
    struct pipeline_inputs inputs;
};

/* The loop: every document of `documents` below count becomes lines in `file` (NULL: nowhere). */
struct pipeline_loop {
    struct documents *documents;
    size_t count;
    struct command_hall *command;
    const char *queue, *batch;
    uint64_t chunks_max; /* no more are made of all of them together; 0: no bound */
    bool retry;
    FILE *file;
    const char *file_name;
    bool flush; /* somebody reads along */
    FILE *notes;
    bool (*meanwhile)(void *arg, struct err *err); /* now and then */
    void *arg;
};
bool pipeline_loop(struct pipeline *pipeline, const struct pipeline_loop *loop, struct pipeline_tally *tally,
                   struct err *err);

/* Reads a document to its end: its digest and size. */
bool pipeline_digest(struct documents *documents, size_t index, uint8_t digest[DOCUMENT_DIGEST_SIZE],
                     uint64_t *bytes, bool (*meanwhile)(void *arg, struct err *err), void *arg,
                     struct err *err);

#endif
