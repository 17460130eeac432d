/* verbs - the commands of `moothall`, as a table.
 *
 * A verb is a name, its flags (a table of fields, which also makes its --help), an example, and a
 * function that returns the exit status: 0 all well, 1 it could not be done, 2 finished and some requests
 * failed. */

#ifndef CLIENT_VERBS_H
#define CLIENT_VERBS_H

#include "base/err.h"
#include "base/yaml_fields.h"

struct verb {
    const char *name;
    const char *what;  /* one line */
    const char *words; /* after the name, as a person would type them */
    const char *more;  /* for --help: what else there is to know; may be NULL */
    const char *example;
    const struct field *fields;
    int field_count;
    int (*run)(const struct verb *verb, int argc, char **argv); /* argv[0] is the verb */
};

extern const struct verb verb_run, verb_extract, verb_summarize, verb_submit, verb_status, verb_top, verb_fetch, verb_cancel, verb_retry, verb_pause,
    verb_resume, verb_purge, verb_retain, verb_audit, verb_inspect, verb_tokenize, verb_bench;

/* The whole program. */
int verbs_main(int argc, char **argv);

/* Takes the flags out of argv; what stays are the words, argv[0] first.  -o is --output, -q is --quiet. */
bool verb_flags(const struct verb *verb, int *argc, char **argv, void *into, struct err *err);

/* For tables of fields. */
#define OPTION_TEXT(type, member)                    FIELD_TEXT, offsetof(type, member), sizeof((type *)0)->member, 0, 0, NULL
#define OPTION_NUMBER(type, member, kind, low, high) kind, offsetof(type, member), 0, low, high, NULL
#define OPTION_FLAG(type, member)                    FIELD_BOOL, offsetof(type, member), 0, 0, 0, NULL
#define OPTION_CHOICE(type, member, choices)         FIELD_CHOICE, offsetof(type, member), 0, 0, 0, choices
#define OPTION_COUNT(table)                          (int)(sizeof(table) / sizeof *(table))

#endif
