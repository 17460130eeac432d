#include "base/yaml_fields.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { FIELDS_MAX = 128, FILE_BYTES_MAX = 1 << 20 };

/* A number with an optional unit; units are tried by name, the empty one is the bare number. */
struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit byte_units[] = { { "", 1 },           { "B", 1 },         { "K", 1 << 10 },   { "KiB", 1 << 10 },
                                          { "M", 1 << 20 },    { "MiB", 1 << 20 }, { "G", 1 << 30 },   { "GiB", 1 << 30 },
                                          { "T", 1LL << 40 },  { "TiB", 1LL << 40 }, { NULL, 0 } };
static const struct unit time_units[] = { { "", 1 },       { "ms", 1 },      { "s", 1000 },       { "m", 60000 },
                                          { "min", 60000 }, { "h", 3600000 }, { "d", 86400000 },  { NULL, 0 } };
static const struct unit no_units[] = { { "", 1 }, { NULL, 0 } };

static const struct unit *units_of(const struct field *field)
{
    size_t n = strlen(field->key);

    if (field->kind == FIELD_BYTES)
        return byte_units;
    if (field->kind != FIELD_DURATION)
        return no_units;
    /* Only a name that says so makes a bare number milliseconds: who writes `--older-than 30` means days. */
    return n > 3 && !strcmp(field->key + n - 3, "_ms") ? time_units : time_units + 1;
}

static bool parse_number(const char *text, const struct unit *units, int64_t *value)
{
    char *end;
    long long n;

    if (!isdigit((unsigned char)*text) && *text != '-' && *text != '+')
        return false;
    errno = 0;
    n = strtoll(text, &end, 10);
    if (end == text || errno)
        return false;
    if (*end == '.' && units != no_units) { /* 1.5 GiB */
        double d = strtod(text, &end);

        while (*end == ' ')
            end++;
        for (; units->name; units++)
            if (!strcmp(end, units->name)) {
                d *= (double)units->factor;
                if (!(fabs(d) < 9e18))
                    return false;
                *value = (int64_t)d;
                return true;
            }
        return false;
    }
    while (*end == ' ' && units != no_units)
        end++;
    for (; units->name; units++)
        if (!strcmp(end, units->name))
            return !__builtin_mul_overflow((int64_t)n, units->factor, value);
    return false;
}

/* A value for people, in the unit they would write. */
static const char *show(char *out, size_t size, enum field_kind kind, int64_t value)
{
    if (kind == FIELD_BYTES && value >= 1 << 20 && value % (1 << 20) == 0)
        snprintf(out, size, "%lld MiB", (long long)(value >> 20));
    else if (kind == FIELD_DURATION && value >= 1000 && value % 1000 == 0)
        snprintf(out, size, "%llds", (long long)(value / 1000));
    else if (kind == FIELD_DURATION)
        snprintf(out, size, "%lldms", (long long)value);
    else
        snprintf(out, size, "%lld", (long long)value);
    return out;
}

/* key as the reader knows it: `lease_ms` in a file, `--lease-ms` as a flag. */
static bool set_value(const struct field *field, const char *key, const char *text, void *into, struct err *err)
{
    static const char *const kind_words[] = { "text", "a whole number", "a size like 64 MiB", "a time like 15s or 500ms", "true or false", "" };
    char *at = (char *)into + field->offset, low[32], high[32];
    int64_t value = 0;
    bool ok;

    switch (field->kind) {
    case FIELD_TEXT:
        if (strlen(text) >= field->size)
            return err_set(err, ERR_INPUT, "%s: text of %zu bytes, at most %zu fit", key, strlen(text), field->size - 1);
        memcpy(at, text, strlen(text) + 1);
        return true;
    case FIELD_BOOL:
        if (!strcmp(text, "true") || !strcmp(text, "yes") || !strcmp(text, "on"))
            *(bool *)at = true;
        else if (!strcmp(text, "false") || !strcmp(text, "no") || !strcmp(text, "off"))
            *(bool *)at = false;
        else
            return err_set(err, ERR_INPUT, "%s: expected true or false, found `%.80s`", key, text);
        return true;
    case FIELD_CHOICE: {
        char list[256] = "";

        for (int i = 0; field->choices[i]; i++) {
            if (!strcmp(text, field->choices[i])) {
                *(int *)at = i;
                return true;
            }
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", field->choices[i]);
        }
        return err_set(err, ERR_INPUT, "%s: expected one of %s, found `%.80s`", key, list, text);
    }
    default:
        break;
    }
    ok = !strcmp(text, "0") || parse_number(text, units_of(field), &value); /* nothing is nothing in every unit */
    if (!ok)
        return err_set(err, ERR_INPUT, "%s: expected %s, found `%.80s`", key, kind_words[field->kind], text);
    if (value < field->low || value > field->high)
        return err_set(err, ERR_INPUT, "%s: %.80s is out of range, expected %s to %s", key, text,
                       show(low, sizeof low, field->kind, field->low), show(high, sizeof high, field->kind, field->high));
    *(int64_t *)at = value;
    return true;
}

const struct field *field_find(const struct field *fields, int field_count, const char *name, size_t name_size)
{
    for (int i = 0; i < field_count; i++) {
        const char *key = fields[i].key;
        size_t j = 0;

        for (; j < name_size && key[j]; j++)
            if (key[j] != name[j] && !(key[j] == '_' && name[j] == '-'))
                break;
        if (j == name_size && !key[j])
            return &fields[i];
    }
    return NULL;
}

static const char *nearest_key(const struct field *fields, int field_count, const char *name)
{
    const char *names[FIELDS_MAX];
    char plain[64];

    snprintf(plain, sizeof plain, "%s", name);
    for (char *c = plain; *c; c++)
        if (*c == '-')
            *c = '_';
    if (field_count > FIELDS_MAX)
        field_count = FIELDS_MAX;
    for (int i = 0; i < field_count; i++)
        names[i] = fields[i].key;
    return err_nearest(plain, names, field_count);
}

/* --lease-ms for lease_ms */
static void flag_name(const char *key, char *out, size_t size)
{
    snprintf(out, size, "--%s", key);
    for (char *c = out; *c; c++)
        if (*c == '_')
            *c = '-';
}

bool field_set(const struct field *field, const char *text, void *into, struct err *err)
{
    char flag[80];

    flag_name(field->key, flag, sizeof flag);
    return set_value(field, flag, text, into, err);
}

bool field_flags(const struct field *fields, int field_count, int *argc, char **argv, void *into, struct err *err)
{
    int kept = 1, i = 1;

    for (; i < *argc; i++) {
        const char *word = argv[i], *equals, *value;
        const struct field *field;
        size_t size;

        if (!strcmp(word, "--")) {
            i++;
            break;
        }
        if (strncmp(word, "--", 2) != 0) {
            argv[kept++] = argv[i];
            continue;
        }
        word += 2;
        equals = strchr(word, '=');
        size = equals ? (size_t)(equals - word) : strlen(word);
        field = field_find(fields, field_count, word, size);
        if (!field) {
            char name[64], flag[80];
            const char *near;

            snprintf(name, sizeof name, "%.*s", (int)size, word);
            near = nearest_key(fields, field_count, name);
            if (near)
                flag_name(near, flag, sizeof flag);
            return err_set(err, ERR_INPUT, near ? "unknown flag --%s (did you mean %s?)" : "unknown flag --%s", name, near ? flag : "");
        }
        if (equals)
            value = equals + 1;
        else if (field->kind == FIELD_BOOL)
            value = "true";
        else if (i + 1 < *argc)
            value = argv[++i];
        else
            return err_set(err, ERR_INPUT, "--%s needs a value", word);
        if (!field_set(field, value, into, err))
            return false;
    }
    while (i < *argc)
        argv[kept++] = argv[i++];
    argv[kept] = NULL;
    *argc = kept;
    return true;
}

/* ---- the file ------------------------------------------------------------------------------ */

static bool at_mark(struct err *err, const char *path, yaml_mark_t mark)
{
    return err_wrap(err, "%s:%zu:%zu", path, mark.line + 1, mark.column + 1);
}

static bool load(yaml_parser_t *parser, const char *path, const struct field *fields, int field_count, void *into, struct err *err)
{
    bool seen[FIELDS_MAX] = { false };
    const struct field *field = NULL; /* whose value comes next */
    int depth = 0, documents = 0;
    bool ok = false;

    for (bool more = true; more;) {
        yaml_event_t event;

        if (!yaml_parser_parse(parser, &event)) {
            err_set(err, ERR_INPUT, "%s%s%s", parser->problem ? parser->problem : "not YAML", parser->context ? " " : "",
                    parser->context ? parser->context : "");
            return at_mark(err, path, parser->problem_mark);
        }
        ok = true;
        switch (event.type) {
        case YAML_STREAM_END_EVENT:
            more = false;
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (documents++)
                ok = err_set(err, ERR_INPUT, "a second document; expected one");
            break;
        case YAML_MAPPING_START_EVENT:
            if (depth == 1)
                ok = err_set(err, ERR_INPUT, "%s: expected a single value, found a mapping", field ? field->key : "key");
            depth++;
            break;
        case YAML_MAPPING_END_EVENT:
            depth--;
            break;
        case YAML_SEQUENCE_START_EVENT:
            ok = err_set(err, ERR_INPUT, depth ? "%s: expected a single value, found a list" : "%s: found a list",
                         depth && field ? field->key : "expected `key: value` lines");
            break;
        case YAML_ALIAS_EVENT:
            ok = err_set(err, ERR_INPUT, "aliases are not understood here");
            break;
        case YAML_SCALAR_EVENT: {
            const char *text = (const char *)event.data.scalar.value;

            if (strlen(text) != event.data.scalar.length) {
                ok = err_set(err, ERR_INPUT, "text with a zero byte");
            } else if (depth == 0) {
                /* An empty file is one empty plain scalar or nothing; anything else is not a mapping. */
                if (*text)
                    ok = err_set(err, ERR_INPUT, "expected `key: value` lines, found `%.80s`", text);
            } else if (!field) {
                field = field_find(fields, field_count, text, strlen(text));
                if (!field || strchr(text, '-')) {
                    const char *near = nearest_key(fields, field_count, text);

                    ok = err_set(err, ERR_INPUT, near ? "unknown key `%.80s` (did you mean `%s`?)" : "unknown key `%.80s`", text, near ? near : "");
                } else if (seen[field - fields]) {
                    ok = err_set(err, ERR_INPUT, "duplicate key `%s`", field->key);
                } else {
                    seen[field - fields] = true;
                }
            } else {
                bool empty = !*text && event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
                bool quoted = event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;

                if (empty)
                    ok = err_set(err, ERR_INPUT, "%s: no value", field->key);
                else if (quoted && (field->kind == FIELD_INT || field->kind == FIELD_BOOL))
                    ok = err_set(err, ERR_INPUT, "%s: expected %s, found the text \"%.80s\"", field->key,
                                 field->kind == FIELD_INT ? "a whole number" : "true or false", text);
                else
                    ok = set_value(field, field->key, text, into, err);
                field = NULL;
            }
            break;
        }
        default:
            break;
        }
        if (!ok)
            at_mark(err, path, event.start_mark);
        yaml_event_delete(&event);
        if (!ok)
            return false;
    }
    return true;
}

bool yaml_fields_load(const char *path, const struct field *fields, int field_count, void *into, struct err *err)
{
    yaml_parser_t parser;
    FILE *file;
    bool ok;

    if (field_count > FIELDS_MAX)
        return err_set(err, ERR_LIMIT, "%d fields, at most %d", field_count, FIELDS_MAX);
    file = fopen(path, "re");
    if (!file)
        return err_errno(err, "open %s", path);
    if (fseek(file, 0, SEEK_END) != 0 || ftell(file) > FILE_BYTES_MAX) {
        fclose(file);
        return err_set(err, ERR_INPUT, "%s: not a configuration file of at most 1 MiB", path);
    }
    rewind(file);
    if (!yaml_parser_initialize(&parser)) {
        fclose(file);
        return err_set(err, ERR_IO, "%s: no memory", path);
    }
    yaml_parser_set_input_file(&parser, file);
    ok = load(&parser, path, fields, field_count, into, err);
    yaml_parser_delete(&parser);
    fclose(file);
    return ok;
}

static bool take_flags(const struct field *fields, int field_count, int argc, char *const *argv, void *into, struct err *err)
{
    char **word = calloc((size_t)argc + 1, sizeof *word); /* field_flags moves them about */
    bool ok;

    if (!word)
        return err_set(err, ERR_IO, "no memory for %d arguments", argc);
    memcpy(word, argv, (size_t)argc * sizeof *word);
    ok = field_flags(fields, field_count, &argc, word, into, err);
    if (ok && argc > 1)
        ok = err_set(err, ERR_INPUT, "unexpected word `%s`; expected only flags", word[1]);
    free(word);
    return ok;
}

bool yaml_fields_settings(const struct field *fields, int field_count, int argc, char *const *argv, void *into, size_t into_size,
                          struct err *err)
{
    const struct field *config = field_find(fields, field_count, "config", strlen("config"));
    void *first = malloc(into_size);
    bool ok;

    if (!first)
        return err_set(err, ERR_IO, "no memory for the settings");
    /* Once for the file's name, then again over what the file says. */
    memcpy(first, into, into_size);
    ok = take_flags(fields, field_count, argc, argv, first, err);
    if (ok && *((char *)first + config->offset))
        ok = yaml_fields_load((char *)first + config->offset, fields, field_count, into, err);
    free(first);
    return ok && take_flags(fields, field_count, argc, argv, into, err);
}
