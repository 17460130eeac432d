/* manual - what a command says about itself, from the table that also reads its flags: --help, the manual
 * page, and the shell's completion.  So none of them can go stale. */

#ifndef BASE_MANUAL_H
#define BASE_MANUAL_H

#include <stdio.h>

#include "base/yaml_fields.h"

struct manual {
    const char *program; /* "moothall" */
    const char *verb;    /* "run"; NULL: the program has none */
    const char *what;    /* one line */
    const char *words;   /* after the name, as a person would type them */
    const char *more;    /* lines that are kept as they are; may be NULL */
    const char *example; /* one or more lines */
    const char *status;  /* what its exit status means; lines */
    const struct field *fields;
    int field_count;
    bool keys; /* each flag is a key of a configuration file too */
};

/* --help. */
void manual_help(const struct manual *manual, FILE *file);

/* The manual page, in groff's man macros.  see_also: "moothall(1)\nmoothall-run(1)". */
void manual_page(const struct manual *manual, const char *see_also, FILE *file);

/* The page of a program of verbs, each with one line. */
void manual_page_of_verbs(const struct manual *manual, const struct manual *verbs, int verb_count,
                          FILE *file);

/* A function for bash that completes verbs, flags, the values of choices, and names of files and directories
 * where those are wanted.  One manual without a verb, or several with. */
void manual_completion(const struct manual *verbs, int verb_count, FILE *file);

#endif
