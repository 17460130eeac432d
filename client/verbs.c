#include "client/verbs.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/manual.h"
#include "client/say.h"
#include "client/stop.h"

static const struct verb *const verbs[] = {
    &verb_run,    &verb_extract, &verb_summarize, &verb_submit, &verb_status, &verb_top,
    &verb_fetch,  &verb_cancel,  &verb_retry,     &verb_pause,  &verb_resume, &verb_purge,
    &verb_retain, &verb_audit,   &verb_inspect,   &verb_tokenize, &verb_bench,
};
enum { VERB_COUNT = sizeof verbs / sizeof *verbs };

static const char exit_status[] = "0 all well; 1 it could not be done (one line on stderr says why);\n"
                                  "2 finished, and some requests failed (each has its own line in the output).";

static struct manual manual_of(const struct verb *verb)
{
    return (struct manual){
        .program = "moothall",
        .verb = verb->name,
        .what = verb->what,
        .words = verb->words,
        .more = verb->more,
        .example = verb->example,
        .status = exit_status,
        .fields = verb->fields,
        .field_count = verb->field_count,
    };
}

static const struct manual whole = {
    .program = "moothall",
    .what = "documents and files of requests through DeepSeek-V2 models: one line out for each that goes in, whatever happens",
    .words = "VERB [words and flags]",
    .more = "run, extract and summarize bring their own broker and workers; with --broker they use a shared hall.\n"
            "Results go to standard output or to the file that is named; everything else goes to standard error.\n"
            "The first ^C (or SIGTERM) brings what is under way to a good end, and the same command continues; the "
            "second ends it at once.",
    .example = "moothall run --model deploy/demo/model --workers 2 requests.jsonl -o results.jsonl",
    .status = exit_status,
};

static void help(FILE *file)
{
    fprintf(file, "moothall - %s\n\n", whole.what);
    for (int i = 0; i < VERB_COUNT; i++)
        fprintf(file, "    moothall %-9s %s\n", verbs[i]->name, verbs[i]->what);
    fprintf(file,
            "\n    moothall VERB --help says more, with an example; moothall --version\n\n"
            "Exit status: %s\n\n"
            "Example: one machine, one command, two processes that share the experts:\n"
            "    %s\n",
            exit_status, whole.example);
}

/* For the build, not for people: `moothall --man [VERB]` and `moothall --completion`. */
static bool generate(int argc, char **argv)
{
    struct manual manuals[VERB_COUNT];

    for (int i = 0; i < VERB_COUNT; i++)
        manuals[i] = manual_of(verbs[i]);
    if (!strcmp(argv[1], "--completion") && argc == 2) {
        manual_completion(manuals, VERB_COUNT, stdout);
        return true;
    }
    if (strcmp(argv[1], "--man") != 0 || argc > 3)
        return false;
    if (argc == 2) {
        manual_page_of_verbs(&whole, manuals, VERB_COUNT, stdout);
        return true;
    }
    for (int i = 0; i < VERB_COUNT; i++)
        if (!strcmp(argv[2], verbs[i]->name)) {
            manual_page(&manuals[i], "moothall(1), moothall-broker(1), moothall-worker(1)", stdout);
            return true;
        }
    return false;
}

bool verb_flags(const struct verb *verb, int *argc, char **argv, void *into, struct err *err)
{
    static char output[] = "--output", quiet[] = "--quiet";
    bool value = false; /* the word before is a flag that takes this one */

    for (int i = 1; i < *argc; i++) {
        const struct field *field;

        if (!strcmp(argv[i], "--"))
            break;
        if (value) {
            value = false;
            continue;
        }
        if (!strcmp(argv[i], "-o"))
            argv[i] = output;
        else if (!strcmp(argv[i], "-q"))
            argv[i] = quiet;
        else if (argv[i][0] == '-' && argv[i][1] && argv[i][1] != '-')
            return err_set(err, ERR_INPUT, "unknown flag %s; `moothall %s --help` lists them", argv[i],
                           verb->name);
        if (strncmp(argv[i], "--", 2) != 0 || strchr(argv[i], '='))
            continue;
        field = field_find(verb->fields, verb->field_count, argv[i] + 2, strlen(argv[i] + 2));
        value = field && field->kind != FIELD_BOOL;
    }
    return field_flags(verb->fields, verb->field_count, argc, argv, into, err);
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return true;
    return false;
}

int verbs_main(int argc, char **argv)
{
    const char *names[VERB_COUNT], *near;

    stop_install();
    say_init(false);
    log_init("moothall", LOG_WARN, false);
    if (sodium_init() < 0) {
        say_error("moothall: libsodium cannot be used");
        return 1;
    }
    if (argc < 2) {
        help(stderr);
        return 1;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        help(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("moothall " MOOTHALL_VERSION);
        return 0;
    }
    if (generate(argc, argv))
        return fflush(stdout) == 0 ? 0 : 1;
    for (int i = 0; i < VERB_COUNT; i++) {
        names[i] = verbs[i]->name;
        if (strcmp(argv[1], names[i]) != 0)
            continue;
        if (wants_help(argc - 1, argv + 1)) {
            struct manual manual = manual_of(verbs[i]);

            manual_help(&manual, stdout);
            return 0;
        }
        return verbs[i]->run(verbs[i], argc - 1, argv + 1);
    }
    near = err_nearest(argv[1], names, VERB_COUNT);
    if (near)
        say_error("moothall: unknown verb `%.80s` (did you mean `%s`?); `moothall --help` lists them",
                  argv[1], near);
    else
        say_error("moothall: unknown %s `%.80s`; `moothall --help` lists the verbs",
                  argv[1][0] == '-' ? "flag" : "verb", argv[1]);
    return 1;
}
