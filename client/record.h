/* record - what a run is, kept in its state directory, and what a command means beside it.
 *
 * The record is one small JSON file, replaced as a whole (written aside, synced, renamed).  Beside it
 * lies `lines`, one digest a line of input, so that a changed line can be named.  An *edition* is one
 * writing of the output: the first, and one more for every --update or --retry-failed that had something to
 * do. */

#ifndef CLIENT_RECORD_H
#define CLIENT_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "client/batch_file.h"

enum { RECORD_PATH_MAX = 4096, RECORD_NAME_MAX = 128 };

/* Everything that must be the same for two commands to be the same run. */
struct run_identity {
    char output[RECORD_PATH_MAX]; /* absolute; "-" for standard output */
    char model[RECORD_PATH_MAX];  /* absolute; empty with a shared hall */
    char model_mark[65];          /* hex; see model_mark */
    char broker[256];             /* empty: a private hall */
    char queue[65];
    char batch_wanted[RECORD_NAME_MAX + 1]; /* --batch, or empty */
    char weights[16], chat_template[16], order[16], on_bad_line[16];
    char input[65]; /* hex digest of all lines */
    uint64_t lines;
};

struct record {
    struct run_identity is;
    char batch[RECORD_NAME_MAX + 1];
    char nonce[17];        /* tells this output's consumers from any other's */
    uint32_t edition;      /* from 1 */
    bool update, retry;    /* how this edition's jobs are submitted */
    bool submitted;        /* all of them are on the broker's disk */
    bool ended;            /* its output is complete; some requests failed (a finished one: none did) */
    bool finished;         /* complete, and nothing failed: only this record stays */
    bool kept;             /* ... and the store, by --keep */
    uint64_t hall;         /* the broker's store that has the jobs; 0: none yet */
    uint64_t done, failed; /* of a complete edition */
    uint64_t output_bytes;
    char family[40]; /* kernel family of its results; empty: none yet */
    char numerics[80];
};

/* False with ERR_NOT_FOUND when there is none; ERR_INPUT names the file when it is not a record of this
 * version. */
bool record_load(struct record *record, const char *state, struct err *err);
bool record_save(const struct record *record, const char *state, struct err *err);

/* The digests of the input's lines as they were submitted. */
bool record_lines_save(const struct batch_file *file, const char *state, uint32_t edition, struct err *err);

/* Compares them with the file.  False: same.  True: `what` says what differs, the first line named. */
bool record_lines_changed(const struct batch_file *file, const char *state, uint32_t edition, char *what,
                          int size, struct err *err);
void record_lines_remove(const char *state, uint32_t edition);

/* A digest (hex) of what the model's files are, cheap enough for every start: names, sizes, the small
 * files whole, the ends of the large ones.  The fingerprint proper is the worker's and the broker's to
 * compare. */
bool model_mark(const char *dir, char mark[65], struct err *err);

enum run_means {
    RUN_START, /* anew */
    RUN_CONTINUE,
    RUN_COMPLETE, /* nothing to do: it finished, all well */
    RUN_OVER,     /* it finished, some failed; nothing new is asked */
    RUN_EDITION,  /* a new edition in the same batch */
    RUN_REFUSE    /* err says why and what to do */
};

struct run_asks {
    bool restart, update, retry_failed;
    bool output_exists;  /* with at least one byte */
    bool output_is_file; /* not a pipe, a terminal or a device: those are written whole every time */
    uint64_t output_bytes;
    bool store_exists; /* always true with a shared hall */
};

/* Pure.  record NULL: there is none.  changed: what differs in the input's lines, or NULL.
 * RUN_EDITION sets *update and *retry. */
enum run_means record_decide(const struct record *record, const struct run_identity *now,
                             const struct run_asks *asks, const char *changed, bool *update, bool *retry,
                             struct err *err);

/* The batch's name where the user gave none: from queue, input and options. */
void record_batch_name(char name[RECORD_NAME_MAX + 1], const struct run_identity *identity, const char *salt);

#endif
