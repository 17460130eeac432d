/* yaml_fields - a configuration file into a struct, through one table of fields.
 *
 * The file is one mapping of scalars (and lists of text).  Every mistake is an error that names
 * file:line:column and the key: an unknown key (with the nearest known one), a duplicate key, a
 * wrong type, a number out of its range, a tab, a nested value where none is expected.
 * The same table serves the command line: field_set takes a flag's text. */

#ifndef BASE_YAML_FIELDS_H
#define BASE_YAML_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum field_kind {
    FIELD_TEXT,     /* char[size], terminated; longer text is an error */
    FIELD_INT,      /* int64_t within [low, high] */
    FIELD_BYTES,    /* int64_t within [low, high]; "64 MiB", "2G", "1000" */
    FIELD_DURATION, /* int64_t milliseconds within [low, high]; "15s", "500ms", "2m", "1h", "30d"; a bare number is ms where the
                       key ends in _ms, else only 0 needs no unit */
    FIELD_BOOL,     /* bool; true/false/yes/no */
    FIELD_CHOICE,   /* int, the index in choices */
};

struct field {
    const char *key; /* lower_case with underscores; as a flag: --lower-case */
    enum field_kind kind;
    size_t offset;                /* in the struct */
    size_t size;                  /* FIELD_TEXT: the array's size */
    int64_t low, high;
    const char *const *choices;   /* FIELD_CHOICE: NULL-terminated */
    const char *help;             /* one line for --help */
};

/* Fills `into` with what the file says; fields that it does not name keep their values. */
bool yaml_fields_load(const char *path, const struct field *fields, int field_count, void *into, struct err *err);

/* One value from text (a flag).  The error names the key as `--key`. */
bool field_set(const struct field *field, const char *text, void *into, struct err *err);

/* The field of a flag: "lease-ms" or "lease_ms"; NULL when there is none. */
const struct field *field_find(const struct field *fields, int field_count, const char *name, size_t name_size);

/* Takes the flags out of argv (in the forms --key value and --key=value; a bool may stand alone).  Words that are
 * not flags stay, in order; *argc is changed.  An unknown flag is an error with the nearest known one.
 * "--" ends the flags. */
bool field_flags(const struct field *fields, int field_count, int *argc, char **argv, void *into, struct err *err);

/* A program's settings: `into` holds the defaults on entry; then comes the file that the text field `config` names
 * on the command line, if it does, and then the flags, which override it.  Words beside flags are an error. */
bool yaml_fields_settings(const struct field *fields, int field_count, int argc, char *const *argv, void *into, size_t into_size,
                          struct err *err);

#endif
