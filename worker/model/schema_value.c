#include "worker/model/schema_value.h"

#include <stdlib.h>

enum { BYTES_A_STEP = 64 }; /* of text, read in about the time of a question */

bool valuer_init(struct valuer *valuer, const struct tree *tree, struct err *err)
{
    *valuer = (struct valuer){ .tree = tree, .count = tree->count, .first_step = dfa_steps() };
    valuer->pattern = calloc(tree->count, sizeof(struct dfa *));
    valuer->format = calloc(tree->count, sizeof(struct dfa *));
    if (valuer->pattern && valuer->format)
        return true;
    valuer_fini(valuer);
    return err_set(err, ERR_IO, "no memory");
}

void valuer_fini(struct valuer *valuer)
{
    for (uint32_t i = 0; i < valuer->count; i++) {
        if (valuer->pattern)
            dfa_free(valuer->pattern[i]);
        if (valuer->format)
            dfa_free(valuer->format[i]);
    }
    free(valuer->pattern);
    free(valuer->format);
    *valuer = (struct valuer){ 0 };
}

bool valuer_charge(struct valuer *valuer, const struct dfa *dfa, struct err *err)
{
    valuer->states += dfa->count;
    if (valuer->states > VALUER_STATES_MAX)
        return err_set(err, ERR_LIMIT,
                       "its patterns, formats, numbers, names and values need more than %d states",
                       VALUER_STATES_MAX);
    if (dfa_steps() - valuer->first_step > VALUER_STEPS_MAX)
        return err_set(err, ERR_LIMIT,
                       "its patterns, formats, numbers, names and values take more than %d steps to work out",
                       VALUER_STEPS_MAX);
    return true;
}

/* The error of a keyword's value, with the keyword's pointer before it. */
static bool at_keyword(const struct valuer *valuer, uint32_t id, const char *keyword, struct err *err)
{
    char pointer[TREE_POINTER_MAX];

    if (err && err->code == ERR_NOT_FOUND) /* a format's name: what was given is wrong */
        err->code = ERR_INPUT;
    return err_wrap(err, "%s", tree_pointer(valuer->tree, id, keyword, pointer));
}

bool valuer_pattern(struct valuer *valuer, uint32_t id, const struct dfa **texts, struct err *err)
{
    const json_t *pattern = valuer->tree->schema[id]->pattern;

    if (pattern && !valuer->pattern[id]) {
        if (!dfa_pattern(&valuer->pattern[id], source_text(pattern), true, err))
            return at_keyword(valuer, id, "pattern", err);
        if (!valuer_charge(valuer, valuer->pattern[id], err))
            return false;
    }
    *texts = valuer->pattern[id];
    return true;
}

bool valuer_format(struct valuer *valuer, uint32_t id, const struct dfa **texts, struct err *err)
{
    const json_t *format = valuer->tree->schema[id]->format;

    if (format && !valuer->format[id]) {
        if (!dfa_format(&valuer->format[id], json_string_value(format), err))
            return at_keyword(valuer, id, "format", err);
        if (!valuer_charge(valuer, valuer->format[id], err))
            return false;
    }
    *texts = valuer->format[id];
    return true;
}

static bool number_fits(const struct source *source, const struct schema *s, const json_t *value)
{
    struct decimal decimal;
    int low, high;

    if (!source_decimal(source, value, &decimal)) /* the tree has checked them all */
        return false;
    low = s->low ? decimal_compare(&decimal, s->low) : 1;
    high = s->high ? decimal_compare(&decimal, s->high) : -1;
    return (!s->integer || decimal_is_integer(&decimal)) && low >= (s->low_open ? 1 : 0) &&
           high <= (s->high_open ? -1 : 0) && decimal_is_multiple(&decimal, s->step);
}

static uint32_t code_points(struct span text)
{
    uint32_t count = 0;

    for (size_t i = 0; i < text.size; i++)
        count += (text.data[i] & 0xc0) != 0x80;
    return count;
}

static bool text_fits(struct valuer *valuer, uint32_t id, const json_t *value, bool *fits, struct err *err)
{
    const struct schema *s = valuer->tree->schema[id];
    struct span text = source_text(value);
    uint32_t length = code_points(text);
    const struct dfa *pattern, *format;

    valuer->work += (uint32_t)(text.size / BYTES_A_STEP);
    if (!valuer_pattern(valuer, id, &pattern, err) || !valuer_format(valuer, id, &format, err))
        return false;
    *fits = length >= s->length_low && length <= s->length_high && (!pattern || dfa_matches(pattern, text)) &&
            (!format || dfa_matches(format, text));
    return true;
}

static bool array_fits(struct valuer *valuer, const struct schema *s, const json_t *value, bool *fits,
                       struct err *err)
{
    size_t count = json_array_size(value);

    *fits = count >= s->items_low && count <= s->items_high;
    for (size_t i = 0; *fits && i < count; i++)
        if (!value_fits(valuer, i < s->prefix_count ? s->prefix[i] : s->items, false,
                        json_array_get(value, i), fits, err))
            return false;
    return true;
}

static bool object_fits(struct valuer *valuer, const struct schema *s, const json_t *value, bool *fits,
                        struct err *err)
{
    const char *name;
    json_t *child;
    const json_t *required;
    size_t i;

    *fits = true;
    json_array_foreach(s->required, i, required) *fits =
        *fits && json_object_get(value, json_string_value(required));
    json_object_foreach((json_t *)(uintptr_t)value, name, child)
    {
        if (!*fits)
            break;
        if (!value_fits(valuer, tree_property(valuer->tree, s, name), false, child, fits, err))
            return false;
    }
    return true;
}

static enum schema_type type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return TYPE_OBJECT;
    case JSON_ARRAY:
        return TYPE_ARRAY;
    case JSON_STRING:
        return TYPE_STRING;
    case JSON_INTEGER:
    case JSON_REAL:
        return TYPE_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE:
        return TYPE_BOOLEAN;
    default:
        return TYPE_NULL;
    }
}

static bool is_listed(struct valuer *valuer, const struct schema *s, const json_t *value)
{
    const struct source *source = &valuer->tree->source;
    uint32_t low = 0, high = s->value_count;
    uint64_t hash;

    if (value != valuer->last) {
        valuer->work += (uint32_t)(json_string_length(value) /
                                   BYTES_A_STEP); /* often one value is held against many lists */
        valuer->last = value;
        valuer->last_hash = source_hash(source, value);
    }
    hash = valuer->last_hash;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (s->value[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < s->value_count && s->value[low].hash == hash; low++)
        if (source_equal(source, s->value[low].value, value))
            return true;
    return false;
}

static bool own_fits(struct valuer *valuer, uint32_t id, const json_t *value, bool *fits, struct err *err)
{
    const struct schema *s = valuer->tree->schema[id];
    enum schema_type type = type_of(value);

    *fits = s->types >> type & 1 && (!s->value || is_listed(valuer, s, value));
    if (*fits && s->constant && s->choice) { /* the list is that of const */
        const json_t *choice;
        size_t i;

        *fits = false;
        json_array_foreach(s->choice, i, choice) *fits =
            *fits || source_equal(&valuer->tree->source, choice, value);
    }
    if (!*fits || !(s->speaks >> type & 1))
        return true;
    switch (type) {
    case TYPE_NUMBER:
        *fits = number_fits(&valuer->tree->source, s, value);
        return true;
    case TYPE_STRING:
        return text_fits(valuer, id, value, fits, err);
    case TYPE_ARRAY:
        return array_fits(valuer, s, value, fits, err);
    case TYPE_OBJECT:
        return object_fits(valuer, s, value, fits, err);
    default:
        return true;
    }
}

static bool all_fits(struct valuer *valuer, uint32_t id, const json_t *value, bool *fits, struct err *err)
{
    const struct schema *s = valuer->tree->schema[id];
    uint32_t matching = 0;
    bool branch = false;

    if (!own_fits(valuer, id, value, fits, err))
        return false;
    if (*fits && s->ref && !value_fits(valuer, s->ref, false, value, fits, err))
        return false;
    if (!*fits)
        return true;
    if (valuer->hint == &s->any) {
        if (!value_fits(valuer, s->any.schema[valuer->hint_index], false, value, &branch, err))
            return false;
        matching = branch;
    }
    for (uint32_t i = 0; i < s->any.count && matching == 0; i++) {
        if (!value_fits(valuer, s->any.schema[i], false, value, &branch, err))
            return false;
        matching += branch;
    }
    *fits = s->any.count == 0 || matching > 0;
    matching = 0;
    for (uint32_t i = 0; *fits && i < s->one.count && matching < 2; i++) {
        if (!value_fits(valuer, s->one.schema[i], false, value, &branch, err))
            return false;
        matching += branch;
    }
    *fits = *fits && (s->one.count == 0 || matching == 1);
    return true;
}

bool value_fits(struct valuer *valuer, uint32_t id, bool own, const json_t *value, bool *fits,
                struct err *err)
{
    bool ok;

    if (valuer->work >= VALUE_WORK_MAX || valuer->depth == VALUE_DEPTH_MAX)
        return tree_error(
            valuer->tree, id, NULL, ERR_LIMIT, err,
            "it takes more than %d comparisons, or more than %d within each other, to know which values of "
            "enum and const it allows",
            VALUE_WORK_MAX, VALUE_DEPTH_MAX);
    valuer->work++;
    valuer->depth++;
    ok = own ? own_fits(valuer, id, value, fits, err) : all_fits(valuer, id, value, fits, err);
    valuer->depth--;
    return ok;
}
