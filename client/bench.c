#include "client/bench.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/say.h"
#include "client/stop.h"
#include "client/verbs.h"

static const char *const weights_choices[] = { "auto", "f32", "bf16", NULL };

static const struct field fields[] = {
    { "broker", OPTION_TEXT(struct bench_options, broker),
      "queue: measure this broker (default: a private one on a new store)" },
    { "state", OPTION_TEXT(struct bench_options, state),
      "directory for the private hall's store (default: a new one in $TMPDIR or /var/tmp)" },
    { "clients", OPTION_NUMBER(struct bench_options, clients, FIELD_INT, 1, 256),
      "queue: sessions that submit (16)" },
    { "in_flight", OPTION_NUMBER(struct bench_options, in_flight, FIELD_INT, 1, 4096),
      "queue: unanswered submits of each (16)" },
    { "size", OPTION_NUMBER(struct bench_options, size_bytes, FIELD_BYTES, 16, 1 << 20),
      "queue: bytes of a job (1024)" },
    { "seconds", OPTION_NUMBER(struct bench_options, seconds, FIELD_INT, 1, 3600), "queue: how long (5)" },
    { "model", OPTION_TEXT(struct bench_options, model), "hall: directory of the model" },
    { "workers", OPTION_NUMBER(struct bench_options, workers, FIELD_INT, 2, 16),
      "hall: worker processes of one thread, against one of so many threads (2)" },
    { "weights", OPTION_CHOICE(struct bench_options, weights, weights_choices), "hall: auto, f32, bf16" },
    { "rounds", OPTION_NUMBER(struct bench_options, rounds, FIELD_INT, 1, 101),
      "hall: measurements of each, interleaved; medians count (3)" },
    { "requests", OPTION_NUMBER(struct bench_options, requests, FIELD_INT, 1, 4096),
      "hall: requests of a measurement (64)" },
    { "prompt_tokens", OPTION_NUMBER(struct bench_options, prompt_tokens, FIELD_INT, 1, 65536),
      "hall: of each request (128)" },
    { "max_tokens", OPTION_NUMBER(struct bench_options, max_tokens, FIELD_INT, 1, 65536),
      "hall: of each request (64)" },
    { "sequences", OPTION_NUMBER(struct bench_options, sequences, FIELD_INT, 0, 1024),
      "hall: generations at once in a worker (0: its default)" },
    { "quiet", OPTION_FLAG(struct bench_options, quiet), "say nothing but errors" },
};

const char *bench_filesystem(const char *path)
{
    static char other[24];
    struct statfs st;

    if (statfs(path, &st) != 0)
        return "unknown";
    switch ((unsigned long)st.f_type) {
    case 0xef53:
        return "ext";
    case 0x58465342:
        return "xfs";
    case 0x9123683e:
        return "btrfs";
    case 0x01021994:
        return "tmpfs";
    case 0x794c7630:
        return "overlay";
    case 0x6969:
        return "nfs";
    case 0x01021997:
        return "9p";
    default:
        snprintf(other, sizeof other, "0x%lx", (unsigned long)st.f_type);
        return other;
    }
}

bool bench_directory(const struct bench_options *options, const char *what, char *dir, int size,
                     struct err *err)
{
    const char *base = getenv("TMPDIR");
    int n;

    if (*options->state) {
        n = snprintf(dir, (size_t)size, "%s/%s", options->state, what);
        if (n < 0 || n >= size)
            return err_set(err, ERR_INPUT, "--state is too long");
        if (mkdir(options->state, 0700) != 0 && errno != EEXIST)
            return err_errno(err, "make %s", options->state);
        return mkdir(dir, 0700) == 0 ||
               err_errno(err, "make %s for the measurement (it must not exist yet)", dir);
    }
    n = snprintf(dir, (size_t)size, "%s/moothall-bench-XXXXXX", base && *base ? base : "/var/tmp");
    if (n < 0 || n >= size)
        return err_set(err, ERR_INPUT, "$TMPDIR is too long");
    return mkdtemp(dir) != NULL || err_errno(err, "make %s", dir);
}

static int bench_verb(const struct verb *verb, int argc, char **argv)
{
    struct bench_options options = { .clients = 16,
                                     .in_flight = 16,
                                     .size_bytes = 1024,
                                     .seconds = 5,
                                     .workers = 2,
                                     .rounds = 3,
                                     .requests = 64,
                                     .prompt_tokens = 128,
                                     .max_tokens = 64 };
    static const char *const kinds[] = { "queue", "hall" };
    struct err err = { 0 };
    bool ok;

    if (!verb_flags(verb, &argc, argv, &options, &err))
        return say_failed("bench", &err);
    say_init(options.quiet);
    if (argc != 2 || (strcmp(argv[1], "queue") && strcmp(argv[1], "hall"))) {
        const char *near = argc == 2 ? err_nearest(argv[1], kinds, 2) : NULL;

        err_set(&err, ERR_INPUT, "expected `bench queue` or `bench hall`%s%s%s",
                near ? " (did you mean `" : "", near ? near : "", near ? "`?)" : "");
        return say_failed("bench", &err);
    }
    ok = !strcmp(argv[1], "queue") ? bench_queue(&options, &err) : bench_hall(&options, &err);
    return ok ? 0 : say_failed("bench", &err);
}

const struct verb verb_bench = {
    .name = "bench",
    .what = "measures the queue, or a hall of several workers against one process",
    .words = "queue | hall --model DIR [flags]",
    .more = "queue: durable submits a second (case submit), and whole lives of jobs a second (case life: "
            "submit, lease, result, fetch;\n"
            "the worker answers without computing).  hall: the rate of N workers with one thread each, as a "
            "share of one worker with\n"
            "N threads (case two-workers-share), messages and bytes a token.  One JSON object a line on "
            "standard output.",
    .example = "moothall bench queue --clients 16 --in-flight 16 --size 1024 --seconds 5",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = bench_verb,
};
