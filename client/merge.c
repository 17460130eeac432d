#include "client/merge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/span.h"
#include "client/rows.h"
#include "client/unicode.h"

struct value {
    json_t *value;
    uint32_t chunk;
};

struct values {
    struct value *value;
    size_t count, capacity;
};

struct field {
    char *name;
    size_t name_size;
    enum merge_rule rule;
    struct values values; /* one for each chunk that has the field */
};

struct merge {
    struct field *field;
    size_t count, capacity;
    size_t fixed;        /* the schema's fields; those after it are of the document only */
    json_t *index;       /* name -> its place in field */
    struct values whole; /* of rows that are no objects */
    size_t rows, nodes;
};

static bool no_memory(struct err *err)
{
    return err_set(err, ERR_IO, "no memory to merge the rows");
}

/* ---- rules
 * ----------------------------------------------------------------------------------------------------- */

static const char *const rule_names[] = { "first", "all", "union", "longest", "vote" };

enum { RULES = sizeof rule_names / sizeof *rule_names };

static struct field *add_field(struct merge *m, const char *name, size_t size)
{
    struct field *field;

    if (m->count == m->capacity) {
        size_t capacity = m->capacity ? m->capacity * 2 : 16;
        struct field *grown = realloc(m->field, capacity * sizeof *grown);

        if (!grown)
            return NULL;
        m->field = grown;
        m->capacity = capacity;
    }
    field = &m->field[m->count];
    memset(field, 0, sizeof *field);
    field->name = malloc(size + 1);
    if (!field->name ||
        json_object_setn_new_nocheck(m->index, name, size, json_integer((json_int_t)m->count)) != 0) {
        free(field->name);
        return NULL;
    }
    memcpy(field->name, name, size);
    field->name[size] = '\0';
    field->name_size = size;
    m->count++;
    return field;
}

static struct field *find_field(const struct merge *m, const char *name, size_t size)
{
    const json_t *place = json_object_getn(m->index, name, size);

    return place ? &m->field[json_integer_value(place)] : NULL;
}

/* The schema's own properties, behind a reference too. */
static const json_t *properties_of(const json_t *schema)
{
    const json_t *root = schema;

    for (int i = 0; i < 16; i++) {
        const char *ref = json_string_value(json_object_get(schema, "$ref"));
        const json_t *properties = json_object_get(schema, "properties");

        if (properties || !ref)
            return properties;
        if (!strncmp(ref, "#/$defs/", 8))
            schema = json_object_get(json_object_get(root, "$defs"), ref + 8);
        else if (!strncmp(ref, "#/definitions/", 14))
            schema = json_object_get(json_object_get(root, "definitions"), ref + 14);
        else
            return NULL;
    }
    return NULL;
}

static bool unknown_field(const struct merge *m, const char *name, struct err *err)
{
    const char **names = calloc(m->count + 1, sizeof *names), *nearest;

    if (!names)
        return no_memory(err);
    for (size_t i = 0; i < m->count; i++)
        names[i] = m->field[i].name;
    nearest = err_nearest(name, names, (int)m->count);
    free(names);
    if (nearest)
        return err_set(err, ERR_INPUT,
                       "merge rules: the schema has no field `%.100s` (did you mean `%.100s`?)", name,
                       nearest);
    return err_set(err, ERR_INPUT, "merge rules: the schema has no field `%.100s`", name);
}

/* Names may have commas and equal signs in them: the longest field of the schema that fits is meant. */
static bool read_rules(struct merge *m, const char *rules, struct err *err)
{
    const char *p = rules;

    while (*p) {
        struct field *field = NULL;
        const char *equals, *nearest;
        char word[200];
        size_t n;
        int rule;

        for (size_t i = 0; i < m->count; i++)
            if (!strncmp(p, m->field[i].name, m->field[i].name_size) && p[m->field[i].name_size] == '=' &&
                (!field || m->field[i].name_size > field->name_size))
                field = &m->field[i];
        equals = field ? p + field->name_size : strchr(p, '=');
        if (!equals || equals > p + strcspn(p, ",") + (field ? field->name_size : 0))
            return err_set(err, ERR_INPUT, "merge rules: `%.100s`: expected field=rule,field=rule", p);
        if (!field) {
            snprintf(word, sizeof word, "%.*s", (int)(equals - p), p);
            return unknown_field(m, word, err);
        }
        n = strcspn(equals + 1, ",");
        snprintf(word, sizeof word, "%.*s", (int)n, equals + 1);
        for (rule = 0; rule < RULES && strcmp(word, rule_names[rule]) != 0; rule++)
            ;
        if (rule == RULES) {
            nearest = err_nearest(word, rule_names, RULES);
            return err_set(err, ERR_INPUT, "merge rules: field `%.100s`: there is no rule `%.60s`%s%s%s",
                           field->name, word,
                           nearest ? " (did you mean `" : "; expected first, all, union, longest or vote",
                           nearest ? nearest : "", nearest ? "`?)" : "");
        }
        if (field->rule != MERGE_DEFAULT)
            return err_set(err, ERR_INPUT, "merge rules: field `%.100s` has two rules", field->name);
        field->rule = MERGE_FIRST + rule;
        p = equals + 1 + n;
        if (*p == ',' && !*++p)
            return err_set(err, ERR_INPUT, "merge rules: a comma at the end; expected field=rule,field=rule");
    }
    return true;
}

bool merge_new(struct merge **merge, const json_t *schema, const char *rules, struct err *err)
{
    struct merge *m = calloc(1, sizeof *m);
    json_t *properties = (json_t *)(uintptr_t)properties_of(schema), *value; /* walked, not changed */
    const char *name;
    size_t size;

    if (!m || !(m->index = json_object())) {
        free(m);
        return no_memory(err);
    }
    if (json_object_size(properties) > MERGE_FIELDS_MAX) {
        err_set(err, ERR_LIMIT, "the schema has %zu fields, at most %d can be merged",
                json_object_size(properties), MERGE_FIELDS_MAX);
        goto failed;
    }
    json_object_keylen_foreach(properties, name, size, value) if (!add_field(m, name, size))
    {
        no_memory(err);
        goto failed;
    }
    m->fixed = m->count;
    if (rules && !read_rules(m, rules, err))
        goto failed;
    *merge = m;
    return true;
failed:
    merge_free(m);
    return false;
}

static void values_clear(struct values *v)
{
    for (size_t i = 0; i < v->count; i++)
        json_decref(v->value[i].value);
    free(v->value);
    memset(v, 0, sizeof *v);
}

/* Ready for the next document. */
static void empty(struct merge *m)
{
    values_clear(&m->whole);
    for (size_t i = 0; i < m->count; i++)
        values_clear(&m->field[i].values);
    while (m->count > m->fixed) {
        struct field *field = &m->field[--m->count];

        json_object_deln(m->index, field->name, field->name_size);
        free(field->name);
    }
    m->rows = m->nodes = 0;
}

void merge_free(struct merge *m)
{
    if (!m)
        return;
    m->fixed = 0;
    empty(m);
    free(m->field);
    json_decref(m->index);
    free(m);
}

/* ---- adding
 * ---------------------------------------------------------------------------------------------------- */

static bool add_value(struct values *v, json_t *value, uint32_t chunk)
{
    if (v->count == v->capacity) {
        size_t capacity = v->capacity ? v->capacity * 2 : 4;
        struct value *grown = realloc(v->value, capacity * sizeof *grown);

        if (!grown)
            return false;
        v->value = grown;
        v->capacity = capacity;
    }
    v->value[v->count++] = (struct value){ json_incref(value), chunk };
    return true;
}

static size_t count_nodes(json_t *value)
{
    size_t nodes = 1, i;
    const char *key;
    json_t *item;

    if (json_is_array(value))
        json_array_foreach(value, i, item) nodes += count_nodes(item);
    else
        json_object_foreach(value, key, item) nodes += count_nodes(item);
    return nodes;
}

bool merge_add(struct merge *m, const json_t *row, uint32_t chunk, struct err *err)
{
    json_t *object = (json_t *)(uintptr_t)row, *value; /* counted and walked, not changed */
    const char *name;
    size_t size;

    m->nodes += count_nodes(object);
    if (m->nodes > MERGE_VALUES_MAX)
        return err_set(err, ERR_LIMIT,
                       "the chunks' rows have more than %d values; give the document in parts",
                       MERGE_VALUES_MAX);
    m->rows++;
    if (!json_is_object(row))
        return add_value(&m->whole, object, chunk) || no_memory(err);
    json_object_keylen_foreach(object, name, size, value)
    {
        struct field *field = find_field(m, name, size);

        if (!field && m->count >= MERGE_FIELDS_MAX)
            return err_set(err, ERR_LIMIT, "the chunks' rows have more than %d fields", MERGE_FIELDS_MAX);
        if (!field)
            field = add_field(m, name, size);
        if (!field || !add_value(&field->values, value, chunk))
            return no_memory(err);
    }
    return true;
}

/* ---- merging
 * ----------------------------------------------------------------------------------------------------- */

static bool says_something(const json_t *v)
{
    if (json_is_string(v))
        return json_string_length(v) > 0;
    if (json_is_array(v))
        return json_array_size(v) > 0;
    return json_is_object(v) ? json_object_size(v) > 0 : !json_is_null(v);
}

/* Whole reals as integers, so that 1 and 1.0 are spelled alike. */
static json_t *plain(json_t *value)
{
    const char *key;
    json_t *item, *copy;
    size_t i, size;

    if (json_is_real(value) && fabs(json_real_value(value)) < 9007199254740992.0 &&
        json_real_value(value) == floor(json_real_value(value)))
        return json_integer((json_int_t)json_real_value(value));
    if (json_is_array(value)) {
        copy = json_array();
        json_array_foreach(value, i, item) json_array_append_new(copy, plain(item));
        return copy;
    }
    if (json_is_object(value)) {
        copy = json_object();
        json_object_keylen_foreach(value, key, size, item)
            json_object_setn_new_nocheck(copy, key, size, plain(item));
        return copy;
    }
    return json_incref(value);
}

/* What a value is, whatever the order of its keys. */
static bool spell(struct buf *spelled, json_t *value)
{
    json_t *simple = plain(value);
    bool ok;

    spelled->size = 0;
    ok = simple && buf_json(spelled, simple, JSON_SORT_KEYS);
    json_decref(simple);
    return ok;
}

struct merging {
    json_t *from;
    struct buf pointer; /* of the value being made */
    struct err *err;
};

static bool push(struct merging *g, const char *name, size_t size)
{
    return row_pointer_add(&g->pointer, name, size) || no_memory(g->err);
}

static bool push_index(struct merging *g, size_t index)
{
    return buf_format(&g->pointer, "/%zu", index) || no_memory(g->err);
}

/* A copy of the value at the pointer, with where each of its leaves came from. */
static json_t *take(struct merging *g, json_t *value, uint32_t chunk)
{
    size_t had = g->pointer.size, i, size;
    json_t *copy, *item, *part;
    const char *key;

    if (json_is_array(value)) {
        copy = json_array();
        json_array_foreach(value, i, item)
        {
            part = push_index(g, i) ? take(g, item, chunk) : NULL;
            g->pointer.size = had;
            if (!part || json_array_append_new(copy, part) != 0)
                goto failed;
        }
        return copy;
    }
    if (json_is_object(value)) {
        copy = json_object();
        json_object_keylen_foreach(value, key, size, item)
        {
            part = push(g, key, size) ? take(g, item, chunk) : NULL;
            g->pointer.size = had;
            if (!part || json_object_setn_new_nocheck(copy, key, size, part) != 0)
                goto failed;
        }
        return copy;
    }
    if (!json_is_null(value) &&
        json_object_setn_new_nocheck(g->from, had ? (const char *)g->pointer.data : "", had,
                                     json_integer(chunk)) != 0) {
        no_memory(g->err);
        return NULL;
    }
    return json_incref(value);
failed:
    json_decref(copy);
    no_memory(g->err);
    return NULL;
}

static bool append(struct merging *g, json_t *array, json_t *value, uint32_t chunk)
{
    size_t had = g->pointer.size;
    json_t *copy = push_index(g, json_array_size(array)) ? take(g, value, chunk) : NULL;

    g->pointer.size = had;
    return copy && json_array_append_new(array, copy) == 0;
}

/* Each value once; `known` holds what was seen. */
static bool append_new(struct merging *g, json_t *array, json_t *known, json_t *value, uint32_t chunk)
{
    struct buf spelled = { 0 };
    bool ok = spell(&spelled, value);

    if (ok && !json_object_getn(known, (const char *)spelled.data, spelled.size))
        ok =
            json_object_setn_new_nocheck(known, (const char *)spelled.data, spelled.size, json_true()) == 0 &&
            append(g, array, value, chunk);
    buf_fini(&spelled);
    return ok;
}

static json_t *merge_all(struct merging *g, const struct values *v)
{
    json_t *array = json_array();

    for (size_t i = 0; i < v->count; i++)
        if (says_something(v->value[i].value) && !append(g, array, v->value[i].value, v->value[i].chunk)) {
            json_decref(array);
            return NULL;
        }
    return array;
}

static json_t *merge_union(struct merging *g, const struct values *v)
{
    json_t *array = json_array(), *known = json_object(), *item;
    bool ok = array && known;
    size_t k;

    for (size_t i = 0; ok && i < v->count; i++) {
        json_t *value = v->value[i].value;

        if (json_is_array(value)) {
            json_array_foreach(value, k,
                               item) if (!(ok = append_new(g, array, known, item, v->value[i].chunk))) break;
        } else if (says_something(value)) {
            ok = append_new(g, array, known, value, v->value[i].chunk);
        }
    }
    json_decref(known);
    if (ok)
        return array;
    json_decref(array);
    return NULL;
}

static size_t length(const json_t *v)
{
    if (json_is_string(v))
        return 1 + unicode_count((const uint8_t *)json_string_value(v), json_string_length(v));
    return json_is_array(v) ? 1 + json_array_size(v) : json_is_object(v) ? 1 + json_object_size(v) : 0;
}

/* Of those that say something; NULL when none does. */
static const struct value *longest(const struct values *v)
{
    const struct value *best = NULL;

    for (size_t i = 0; i < v->count; i++)
        if (says_something(v->value[i].value) && (!best || length(v->value[i].value) > length(best->value)))
            best = &v->value[i];
    return best;
}

static bool vote(const struct values *v, const struct value **best, struct err *err)
{
    json_t *votes = json_object();
    struct buf spelled = { 0 };
    json_int_t most = 0;
    bool ok = votes != NULL;

    *best = NULL;
    /* Twice: the count first, then the earliest that has the most. */
    for (int pass = 0; ok && pass < 2; pass++)
        for (size_t i = 0; ok && i < v->count && (pass == 0 || !*best); i++) {
            json_int_t count;

            if (!says_something(v->value[i].value))
                continue;
            ok = spell(&spelled, v->value[i].value);
            if (!ok)
                break;
            count = json_integer_value(json_object_getn(votes, (const char *)spelled.data, spelled.size)) + 1;
            if (pass == 0) {
                most = count > most ? count : most;
                ok = json_object_setn_new_nocheck(votes, (const char *)spelled.data, spelled.size,
                                                  json_integer(count)) == 0;
            } else if (count - 1 == most) {
                *best = &v->value[i];
            }
        }
    buf_fini(&spelled);
    json_decref(votes);
    return ok || no_memory(err);
}

static const struct value *first(const struct values *v)
{
    for (size_t i = 0; i < v->count; i++)
        if (says_something(v->value[i].value))
            return &v->value[i];
    return NULL;
}

/* single: the document had one chunk. */
static json_t *merge_values(struct merging *g, const struct values *v, enum merge_rule rule, bool single)
{
    const struct value *best = first(v);

    if (rule == MERGE_DEFAULT)
        rule = best && json_is_array(best->value) ? MERGE_UNION : MERGE_FIRST;
    if (rule == MERGE_ALL)
        return merge_all(g, v);
    if (rule == MERGE_UNION && !(single && v->count && json_is_array(v->value[0].value)))
        return merge_union(g, v);
    if (rule == MERGE_LONGEST)
        best = longest(v);
    if (rule == MERGE_VOTE && !vote(v, &best, g->err))
        return NULL;
    if (!best)
        best = &v->value[0];
    return take(g, best->value, best->chunk);
}

bool merge_take(struct merge *m, json_t **row, json_t **from, struct err *err)
{
    struct merging g = { .from = json_object(), .err = err };
    json_t *made = NULL;
    bool ok = g.from != NULL;

    if (m->rows == 0) {
        json_decref(g.from);
        return err_set(err, ERR_INPUT, "there is no row to merge");
    }
    if (!ok) {
        no_memory(err);
    } else if (m->whole.count) {
        ok = (made = merge_values(&g, &m->whole, MERGE_DEFAULT, m->rows == 1)) != NULL;
    } else {
        ok = (made = json_object()) != NULL;
        for (size_t i = 0; ok && i < m->count; i++) {
            struct field *field = &m->field[i];
            json_t *value;

            if (field->values.count == 0 && field->rule != MERGE_ALL)
                continue;
            g.pointer.size = 0;
            value = push(&g, field->name, field->name_size)
                        ? merge_values(&g, &field->values, field->rule, m->rows == 1)
                        : NULL;
            ok = (value && json_object_setn_new_nocheck(made, field->name, field->name_size, value) == 0) ||
                 no_memory(err);
        }
    }
    buf_fini(&g.pointer);
    empty(m);
    if (ok) {
        *row = made;
        *from = g.from;
        return true;
    }
    json_decref(made);
    json_decref(g.from);
    return false;
}
