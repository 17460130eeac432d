#include "client/template.h"

#include <stdlib.h>
#include <string.h>

#include "client/rows.h"

struct part {
    bool column;
    size_t from, size; /* in template.text */
};

struct template
{
    struct buf text;
    struct part *part;
    size_t count, capacity;
};

static bool add_part(struct template *t, bool column, size_t from, struct err *err)
{
    if (!column && from == t->text.size)
        return true;
    if (t->count == TEMPLATE_PARTS_MAX)
        return err_set(err, ERR_LIMIT, "the template has more than %d parts", TEMPLATE_PARTS_MAX);
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 16;
        struct part *grown = realloc(t->part, capacity * sizeof *grown);

        if (!grown)
            return err_set(err, ERR_IO, "no memory for the template");
        t->part = grown;
        t->capacity = capacity;
    }
    t->part[t->count++] = (struct part){ column, from, t->text.size - from };
    return true;
}

static bool parse(struct template *t, const char *text, struct err *err)
{
    size_t from = 0, columns = 0;
    const char *p = text;

    if (!span_is_utf8(span_text(text)))
        return err_set(err, ERR_INPUT, "the template is not UTF-8");
    if (!buf_reserve(&t->text, strlen(text) + 1)) /* all that follows fits */
        return err_set(err, ERR_IO, "no memory for the template");
    while (*p) {
        const char *close;

        if ((p[0] == '{' && p[1] == '{') || (p[0] == '}' && p[1] == '}')) {
            buf_add(&t->text, p, 1);
            p += 2;
            continue;
        }
        if (*p != '{') {
            buf_add(&t->text, p++, 1);
            continue;
        }
        close = strchr(p, '}');
        if (!close)
            return err_set(err, ERR_INPUT,
                           "template, byte %zu: `{` has no `}`; expected {column}, or {{ for a brace",
                           (size_t)(p - text));
        if (close == p + 1)
            return err_set(err, ERR_INPUT, "template, byte %zu: {} names no column", (size_t)(p - text));
        if (!add_part(t, false, from, err))
            return false;
        from = t->text.size;
        buf_add(&t->text, p + 1, (size_t)(close - p - 1));
        if (!add_part(t, true, from, err))
            return false;
        from = t->text.size;
        columns++;
        p = close + 1;
    }
    if (columns == 0)
        return err_set(err, ERR_INPUT,
                       "the template names no column, so all rows would be the same; expected {column}");
    return add_part(t, false, from, err);
}

bool template_new(struct template **made, const char *text, struct err *err)
{
    struct template *t = calloc(1, sizeof *t);

    if (!t)
        return err_set(err, ERR_IO, "no memory for the template");
    if (!parse(t, text, err)) {
        template_free(t);
        return false;
    }
    *made = t;
    return true;
}

void template_free(struct template *t)
{
    if (!t)
        return;
    buf_fini(&t->text);
    free(t->part);
    free(t);
}

static bool missing_column(const json_t *row, struct span column, struct err *err)
{
    enum { NAMES = 256 };
    const char *names[NAMES], *nearest, *key;
    char word[200];
    json_t *value;
    int count = 0;
    json_t *object = json_incref((json_t *)(uintptr_t)row); /* jansson walks only what is not const */

    json_object_foreach(object, key, value) if (count < NAMES) names[count++] = key;
    snprintf(word, sizeof word, "%.*s", (int)column.size, (const char *)column.data);
    nearest = err_nearest(word, names, count);
    if (nearest)
        err_set(err, ERR_INPUT, "there is no column `%s` (did you mean `%.100s`?)", word, nearest);
    else if (count && count <= 8) {
        char all[600];
        size_t n = 0;

        for (int i = 0; i < count; i++)
            n += (size_t)snprintf(all + n, sizeof all - n, "%s%.60s", i ? ", " : "", names[i]);
        err_set(err, ERR_INPUT, "there is no column `%s`; expected one of %s", word, all);
    } else {
        err_set(err, ERR_INPUT, "there is no column `%s` among the %zu", word, json_object_size(object));
    }
    json_decref(object);
    return false;
}

bool template_fill(const struct template *t, const json_t *row, struct buf *out, struct err *err)
{
    for (size_t i = 0; i < t->count; i++) {
        struct span text = span_of(t->text.data + t->part[i].from, t->part[i].size);
        const json_t *value;
        bool ok;

        if (!t->part[i].column) {
            ok = buf_add(out, text.data, text.size);
        } else {
            value = json_object_getn(row, (const char *)text.data, text.size);
            if (!value)
                return missing_column(row, text, err);
            if (json_is_string(value))
                ok = buf_add(out, json_string_value(value), json_string_length(value));
            else
                ok = json_is_null(value) || row_write(out, value);
        }
        if (!ok)
            return err_set(err, ERR_LIMIT, "the template makes more than %zu bytes of it", out->max);
    }
    return true;
}
