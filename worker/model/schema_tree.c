#include "worker/model/schema_tree.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/model/dfa.h"
#include "worker/model/schema.h"

/* clang-format off */
enum keyword {
    /* These say nothing about values. */
    K_SCHEMA, K_ID, K_COMMENT, K_TITLE, K_DESCRIPTION, K_DEFAULT, K_EXAMPLES, K_DEPRECATED, K_READ_ONLY, K_WRITE_ONLY,
    K_DEFS, K_DEFINITIONS, K_REF,
    K_TYPE, K_ENUM, K_CONST, K_ANY_OF, K_ONE_OF,
    K_MINIMUM, K_MAXIMUM, K_EXCLUSIVE_MINIMUM, K_EXCLUSIVE_MAXIMUM, K_MULTIPLE_OF,
    K_MIN_LENGTH, K_MAX_LENGTH, K_PATTERN, K_FORMAT,
    K_ITEMS, K_PREFIX_ITEMS, K_MIN_ITEMS, K_MAX_ITEMS,
    K_PROPERTIES, K_REQUIRED, K_ADDITIONAL_PROPERTIES,
    K_COUNT,
};

static const char *const keyword_names[K_COUNT] = {
    [K_SCHEMA] = "$schema", [K_ID] = "$id", [K_COMMENT] = "$comment", [K_TITLE] = "title",
    [K_DESCRIPTION] = "description", [K_DEFAULT] = "default", [K_EXAMPLES] = "examples",
    [K_DEPRECATED] = "deprecated", [K_READ_ONLY] = "readOnly", [K_WRITE_ONLY] = "writeOnly",
    [K_DEFS] = "$defs", [K_DEFINITIONS] = "definitions", [K_REF] = "$ref",
    [K_TYPE] = "type", [K_ENUM] = "enum", [K_CONST] = "const", [K_ANY_OF] = "anyOf", [K_ONE_OF] = "oneOf",
    [K_MINIMUM] = "minimum", [K_MAXIMUM] = "maximum", [K_EXCLUSIVE_MINIMUM] = "exclusiveMinimum",
    [K_EXCLUSIVE_MAXIMUM] = "exclusiveMaximum", [K_MULTIPLE_OF] = "multipleOf",
    [K_MIN_LENGTH] = "minLength", [K_MAX_LENGTH] = "maxLength", [K_PATTERN] = "pattern", [K_FORMAT] = "format",
    [K_ITEMS] = "items", [K_PREFIX_ITEMS] = "prefixItems", [K_MIN_ITEMS] = "minItems", [K_MAX_ITEMS] = "maxItems",
    [K_PROPERTIES] = "properties", [K_REQUIRED] = "required", [K_ADDITIONAL_PROPERTIES] = "additionalProperties",
};
/* clang-format on */

struct tree_place {
    const json_t *json;
    uint32_t id;
};

/* ---- pointers --------------------------------------------------------------------------------------- */

/* Before `at`, as far as there is room; false when there is none. */
static bool put_before(char *text, size_t *at, const char *piece, size_t size)
{
    if (*at < size)
        return false;
    *at -= size;
    memcpy(text + *at, piece, size);
    return true;
}

/* "/token", with the escapes of JSON pointers; what is not printable would break the line it stands in. */
static bool put_token(char *text, size_t *at, const char *token)
{
    for (size_t i = strlen(token); i > 0; i--) {
        char c = token[i - 1];
        bool ok = c == '~'   ? put_before(text, at, "~0", 2)
                  : c == '/' ? put_before(text, at, "~1", 2)
                             : put_before(text, at, (uint8_t)c < 0x20 || c == 0x7f ? "?" : &c, 1);

        if (!ok)
            return false;
    }
    return put_before(text, at, "/", 1);
}

const char *tree_pointer(const struct tree *tree, uint32_t id, const char *keyword,
                         char text[TREE_POINTER_MAX])
{
    static const char cut[] = "#/...";
    char path[TREE_POINTER_MAX - sizeof cut];
    size_t at = sizeof path, whole;
    bool fits = !keyword || put_token(path, &at, keyword);

    whole = at;
    while (fits && id != SCHEMA_ROOT && id != SCHEMA_TRUE && id != SCHEMA_FALSE) {
        const struct schema *schema = tree->schema[id];
        char index[16];

        snprintf(index, sizeof index, "%" PRIu32, schema->index);
        if (schema->name)
            fits = put_token(path, &at, schema->name);
        else if (strcmp(schema->keyword, "items") != 0 &&
                 strcmp(schema->keyword, "additionalProperties") != 0)
            fits = put_token(path, &at, index);
        fits = fits && put_token(path, &at, schema->keyword);
        if (fits)
            whole = at;
        id = schema->parent;
    }
    snprintf(text, TREE_POINTER_MAX, "%s%.*s", fits ? "#" : cut, (int)(sizeof path - whole), path + whole);
    return text;
}

bool tree_error(const struct tree *tree, uint32_t id, const char *keyword, enum err_code code,
                struct err *err, const char *format, ...)
{
    char pointer[TREE_POINTER_MAX], message[512];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return err_set(err, code, "%s: %s", tree_pointer(tree, id, keyword, pointer), message);
}

/* ---- one keyword's value ---------------------------------------------------------------------------- */

struct reading { /* one schema being read */
    struct tree *tree;
    struct schema *schema;
    uint32_t id;
    int depth;
    const char *keyword;
    struct err *err;
};

static bool no_memory(struct err *err)
{
    return err_set(err, ERR_LIMIT, "the schema needs more than %d MiB of memory", TREE_BYTES_MAX >> 20);
}

static void *take(const struct reading *r, size_t size)
{
    void *p = arena_take(&r->tree->arena, size);

    if (!p)
        no_memory(r->err);
    return p;
}

static bool wrong(const struct reading *r, const json_t *value, const char *expected)
{
    return tree_error(r->tree, r->id, r->keyword, ERR_INPUT, r->err, "expected %s, found %s", expected,
                      source_type(value));
}

static bool read_schema(struct tree *tree, const json_t *json, uint32_t parent, const char *keyword,
                        const char *name, uint32_t index, int depth, uint32_t *id, struct err *err);

static bool read_child(const struct reading *r, const json_t *json, const char *name, uint32_t index,
                       uint32_t *id)
{
    return read_schema(r->tree, json, r->id, r->keyword, name, index, r->depth + 1, id, r->err);
}

static bool read_list(const struct reading *r, const json_t *value, const uint32_t **list, uint32_t *count)
{
    uint32_t *id;
    const json_t *item;
    size_t i;

    if (!json_is_array(value))
        return wrong(r, value, "an array of schemas");
    if (json_array_size(value) == 0)
        return tree_error(r->tree, r->id, r->keyword, ERR_INPUT, r->err,
                          "expected at least one schema, found none");
    id = take(r, json_array_size(value) * sizeof *id);
    if (!id)
        return false;
    json_array_foreach(value, i, item) if (!read_child(r, item, NULL, (uint32_t)i, &id[i])) return false;
    *list = id;
    *count = (uint32_t)json_array_size(value);
    return true;
}

static bool read_map(const struct reading *r, const json_t *value, const struct schema_property **map,
                     uint32_t *count)
{
    struct schema_property *property;
    const char *key;
    const json_t *child;
    uint32_t n = 0;

    if (!json_is_object(value))
        return wrong(r, value, "an object of schemas");
    property = take(r, json_object_size(value) * sizeof *property);
    if (!property)
        return false;
    json_object_foreach((json_t *)(uintptr_t)value, key, child)
    {
        property[n].name = key;
        if (!read_child(r, child, key, 0, &property[n].schema))
            return false;
        n++;
    }
    *map = property;
    *count = n;
    return true;
}

static bool read_number(const struct reading *r, const json_t *value, struct decimal *decimal)
{
    if (!json_is_number(value))
        return wrong(r, value, "a number");
    if (!source_decimal(&r->tree->source, value, decimal))
        return tree_error(r->tree, r->id, r->keyword, ERR_LIMIT, r->err,
                          "expected a number of at most %d digits, within 10^%d and above 10^-%d",
                          DECIMAL_DIGITS_MAX, DECIMAL_POINT_MAX, DECIMAL_POINT_MAX);
    return true;
}

/* The tighter of two bounds counts; of equal ones the open. */
static bool read_bound(const struct reading *r, const json_t *value, bool lower, bool open)
{
    struct schema *s = r->schema;
    const struct decimal **bound = lower ? &s->low : &s->high;
    bool *is_open = lower ? &s->low_open : &s->high_open;
    struct decimal *decimal = take(r, sizeof *decimal);
    int order;

    if (!decimal || !read_number(r, value, decimal))
        return false;
    order = *bound ? decimal_compare(decimal, *bound) : 0;
    if (!*bound || (lower ? order > 0 : order < 0) || (order == 0 && open)) {
        *bound = decimal;
        *is_open = open;
    }
    return true;
}

/* A count. One that no output can reach is no bound when it is a maximum. */
static bool read_count(const struct reading *r, const json_t *value, bool maximum, uint32_t *count)
{
    struct decimal decimal;
    uint64_t whole = 0;

    if (!read_number(r, value, &decimal))
        return false;
    if (decimal.negative || !decimal_is_integer(&decimal))
        return tree_error(r->tree, r->id, r->keyword, ERR_INPUT, r->err, "expected a whole number from 0");
    if (decimal_whole(&decimal, GRAMMAR_ITEMS_MAX, &whole))
        *count = (uint32_t)whole;
    else if (maximum)
        *count = GRAMMAR_NO_MAX;
    else
        return tree_error(r->tree, r->id, r->keyword, ERR_LIMIT, r->err,
                          "expected a whole number of at most %d", GRAMMAR_ITEMS_MAX);
    return true;
}

static const struct {
    const char *name;
    uint8_t types;
} type_names[] = {
    { "null", 1 << TYPE_NULL },     { "boolean", 1 << TYPE_BOOLEAN }, { "integer", 1 << TYPE_NUMBER },
    { "number", 1 << TYPE_NUMBER }, { "string", 1 << TYPE_STRING },   { "array", 1 << TYPE_ARRAY },
    { "object", 1 << TYPE_OBJECT },
};
enum { TYPE_NAMES = sizeof type_names / sizeof type_names[0] };

static bool read_type_name(const struct reading *r, const json_t *value, uint8_t *types, bool *integer,
                           bool *number)
{
    const char *name = json_string_value(value), *near, *names[TYPE_NAMES];

    if (!name)
        return wrong(r, value, "a type's name or an array of them");
    for (int i = 0; i < TYPE_NAMES; i++) {
        names[i] = type_names[i].name;
        if (strcmp(name, names[i]) == 0 && json_string_length(value) == strlen(name)) {
            *types |= type_names[i].types;
            *integer = *integer || strcmp(name, "integer") == 0;
            *number = *number || strcmp(name, "number") == 0;
            return true;
        }
    }
    near = err_nearest(name, names, TYPE_NAMES);
    return tree_error(
        r->tree, r->id, r->keyword, ERR_INPUT, r->err,
        "`%.64s` is no type%s%s%s; expected null, boolean, integer, number, string, array or object", name,
        near ? " (did you mean `" : "", near ? near : "", near ? "`?)" : "");
}

static bool read_type(const struct reading *r, const json_t *value)
{
    uint8_t types = 0;
    bool integer = false, number = false;
    const json_t *item;
    size_t i;

    if (json_is_array(value)) {
        if (json_array_size(value) == 0)
            return tree_error(r->tree, r->id, r->keyword, ERR_INPUT, r->err,
                              "expected at least one type, found none");
        json_array_foreach(value, i,
                           item) if (!read_type_name(r, item, &types, &integer, &number)) return false;
    } else if (!read_type_name(r, value, &types, &integer, &number)) {
        return false;
    }
    r->schema->types = types;
    r->schema->integer = integer && !number;
    return true;
}

static int by_hash(const void *a, const void *b)
{
    uint64_t x = ((const struct schema_value *)a)->hash, y = ((const struct schema_value *)b)->hash;

    return (x > y) - (x < y);
}

/* Every number of a value, at any depth: it will be written and compared. */
static bool check_numbers(const struct reading *r, const json_t *value)
{
    const char *key;
    const json_t *child;
    struct decimal decimal;
    size_t i;

    if (json_is_number(value))
        return read_number(r, value, &decimal);
    if (json_is_object(value)) {
        json_object_foreach((json_t *)(uintptr_t)value, key,
                            child) if (!check_numbers(r, child)) return false;
    } else if (json_is_array(value)) {
        json_array_foreach(value, i, child) if (!check_numbers(r, child)) return false;
    }
    return true;
}

static bool read_values(const struct reading *r, const json_t *value)
{
    struct schema *s = r->schema;
    bool constant = s->constant == value;
    uint32_t count = constant ? 1 : (uint32_t)json_array_size(value);

    if (!check_numbers(r, value))
        return false;
    if (s->value && !constant) /* const says more */
        return true;
    s->value = take(r, count * sizeof *s->value);
    if (!s->value)
        return false;
    s->value_count = count;
    for (uint32_t i = 0; i < count; i++) {
        s->value[i].value = constant ? value : json_array_get(value, i);
        s->value[i].hash = source_hash(&r->tree->source, s->value[i].value);
    }
    qsort(s->value, count, sizeof *s->value, by_hash);
    return true;
}

static bool read_enum(const struct reading *r, const json_t *value)
{
    if (!json_is_array(value))
        return wrong(r, value, "an array of values");
    if (json_array_size(value) == 0)
        return tree_error(r->tree, r->id, r->keyword, ERR_INPUT, r->err,
                          "expected at least one value, found none: nothing could be generated");
    if (json_array_size(value) > SCHEMA_ENUM_MAX)
        return tree_error(r->tree, r->id, r->keyword, ERR_LIMIT, r->err,
                          "expected at most %d values, found %zu", SCHEMA_ENUM_MAX, json_array_size(value));
    r->schema->choice = value;
    return read_values(r, value);
}

static bool read_required(const struct reading *r, const json_t *value)
{
    json_t *names;
    const json_t *name;
    size_t i;

    if (!json_is_array(value))
        return wrong(r, value, "an array of names");
    names = json_object();
    if (!names || json_array_append_new(r->tree->own_required, names) != 0)
        return err_set(r->err, ERR_IO, "no memory");
    json_array_foreach(value, i, name)
    {
        if (!json_is_string(name))
            return wrong(r, name, "a name");
        if (strlen(json_string_value(name)) != json_string_length(name))
            return tree_error(r->tree, r->id, r->keyword, ERR_INPUT, r->err, "name %zu contains U+0000", i);
        if (json_object_set_new(names, json_string_value(name), json_null()) != 0)
            return err_set(r->err, ERR_IO, "no memory");
    }
    r->schema->required = value;
    r->schema->is_required = names;
    return true;
}

static bool read_step(const struct reading *r, const json_t *value)
{
    struct decimal decimal;

    if (!read_number(r, value, &decimal))
        return false;
    if (decimal.negative || decimal.count == 0)
        return tree_error(r->tree, r->id, r->keyword, ERR_INPUT, r->err, "expected a number above 0");
    if (!decimal_step(&decimal, &r->schema->step))
        return tree_error(r->tree, r->id, r->keyword, ERR_LIMIT, r->err,
                          "expected a number of at most 18 digits, at most 17 of them after the point");
    return true;
}

static bool read_keyword(const struct reading *r, enum keyword keyword, const json_t *value)
{
    struct schema *s = r->schema;
    const struct schema_property *map;
    uint32_t count;

    switch (keyword) {
    case K_DEFAULT:
        return true;
    case K_EXAMPLES:
        return json_is_array(value) || wrong(r, value, "an array");
    case K_DEPRECATED:
    case K_READ_ONLY:
    case K_WRITE_ONLY:
        return json_is_boolean(value) || wrong(r, value, "true or false");
    case K_ID:
        if (r->id != SCHEMA_ROOT)
            return tree_error(r->tree, r->id, r->keyword, ERR_INPUT, r->err,
                              "it is supported only at the root");
        return json_is_string(value) || wrong(r, value, "text");
    case K_SCHEMA:
    case K_COMMENT:
    case K_TITLE:
    case K_DESCRIPTION:
    case K_REF: /* followed when everything is read */
        return json_is_string(value) || wrong(r, value, "text");
    case K_DEFS:
    case K_DEFINITIONS:
        return read_map(r, value, &map, &count);
    case K_TYPE:
        return read_type(r, value);
    case K_ENUM:
        return read_enum(r, value);
    case K_CONST:
        s->constant = value;
        return read_values(r, value);
    case K_ANY_OF:
        s->any.first = !s->properties;
        return read_list(r, value, &s->any.schema, &s->any.count);
    case K_ONE_OF:
        s->one.first = !s->properties;
        return read_list(r, value, &s->one.schema, &s->one.count);
    case K_MINIMUM:
        return read_bound(r, value, true, false);
    case K_MAXIMUM:
        return read_bound(r, value, false, false);
    case K_EXCLUSIVE_MINIMUM:
        return read_bound(r, value, true, true);
    case K_EXCLUSIVE_MAXIMUM:
        return read_bound(r, value, false, true);
    case K_MULTIPLE_OF:
        return read_step(r, value);
    case K_MIN_LENGTH:
        return read_count(r, value, false, &s->length_low);
    case K_MAX_LENGTH:
        return read_count(r, value, true, &s->length_high);
    case K_PATTERN:
        s->pattern = value;
        return json_is_string(value) || wrong(r, value, "text");
    case K_FORMAT:
        s->format = value;
        return json_is_string(value) || wrong(r, value, "text");
    case K_ITEMS:
        if (json_is_array(value))
            return tree_error(
                r->tree, r->id, r->keyword, ERR_INPUT, r->err,
                "expected a schema, found an array; one schema for each place is `prefixItems`");
        return read_child(r, value, NULL, 0, &s->items);
    case K_PREFIX_ITEMS:
        return read_list(r, value, &s->prefix, &s->prefix_count);
    case K_MIN_ITEMS:
        return read_count(r, value, false, &s->items_low);
    case K_MAX_ITEMS:
        return read_count(r, value, true, &s->items_high);
    case K_PROPERTIES:
        s->properties = value;
        return read_map(r, value, &s->property, &s->property_count);
    case K_REQUIRED:
        return read_required(r, value);
    case K_ADDITIONAL_PROPERTIES:
        s->says_additional = true;
        return read_child(r, value, NULL, 0, &s->additional);
    case K_COUNT:
        break;
    }
    assert(!"every keyword is read");
    return false;
}

/* ---- one schema ------------------------------------------------------------------------------------- */

/* Keywords of this and older drafts that are not supported, and what says something like them. */
static const char *const instead[][2] = {
    { "additionalItems", "items" },
    { "allOf", "$ref" },
    { "contains", "items" },
    { "contentEncoding", "format" },
    { "contentMediaType", "format" },
    { "contentSchema", "$ref" },
    { "dependencies", "required" },
    { "dependentRequired", "required" },
    { "dependentSchemas", "anyOf" },
    { "discriminator", "oneOf" },
    { "else", "oneOf" },
    { "if", "oneOf" },
    { "maxContains", "maxItems" },
    { "maxProperties", "additionalProperties" },
    { "minContains", "minItems" },
    { "minProperties", "required" },
    { "not", "enum" },
    { "nullable", "type" },
    { "patternProperties", "additionalProperties" },
    { "propertyNames", "properties" },
    { "then", "oneOf" },
    { "unevaluatedItems", "items" },
    { "unevaluatedProperties", "additionalProperties" },
    { "uniqueItems", "maxItems" },
    { "$anchor", "$defs" },
    { "$dynamicAnchor", "$defs" },
    { "$dynamicRef", "$ref" },
    { "$recursiveAnchor", "$defs" },
    { "$recursiveRef", "$ref" },
    { "$vocabulary", "$schema" },
};

static bool unknown(const struct reading *r)
{
    const char *near = NULL;
    char pointer[TREE_POINTER_MAX];

    tree_pointer(r->tree, r->id, r->keyword, pointer);
    for (size_t i = 0; i < sizeof instead / sizeof instead[0]; i++)
        if (strcmp(r->keyword, instead[i][0]) == 0)
            return err_set(r->err, ERR_INPUT, "%s: this keyword is not supported; the nearest that is: `%s`",
                           pointer, instead[i][1]);
    near = err_nearest(r->keyword, keyword_names, K_COUNT);
    if (near)
        return err_set(r->err, ERR_INPUT, "%s: this keyword is not supported (did you mean `%s`?)", pointer,
                       near);
    return err_set(r->err, ERR_INPUT, "%s: this keyword is not supported", pointer);
}

/* What contradicts itself in one schema object is a slip, wherever it stands. */
static bool check_bounds(const struct reading *r)
{
    const struct schema *s = r->schema;
    int order = s->low && s->high ? decimal_compare(s->low, s->high) : -1;

    if (order > 0 || (order == 0 && (s->low_open || s->high_open))) {
        char low[DECIMAL_TEXT_MAX], high[DECIMAL_TEXT_MAX];

        decimal_write(s->low, low);
        decimal_write(s->high, high);
        return tree_error(r->tree, r->id, s->low_open ? "exclusiveMinimum" : "minimum", ERR_INPUT, r->err,
                          "%s leaves no number up to the %s %s", low,
                          s->high_open ? "exclusiveMaximum" : "maximum", high);
    }
    if (s->length_low > s->length_high)
        return tree_error(r->tree, r->id, "minLength", ERR_INPUT, r->err,
                          "%" PRIu32 " is over the maxLength %" PRIu32, s->length_low, s->length_high);
    if (s->items_low > s->items_high)
        return tree_error(r->tree, r->id, "minItems", ERR_INPUT, r->err,
                          "%" PRIu32 " is over the maxItems %" PRIu32, s->items_low, s->items_high);
    return true;
}

static void note_what_it_says(struct schema *s)
{
    s->speaks = 0;
    if (s->low || s->high || s->step.over || s->integer)
        s->speaks |= 1 << TYPE_NUMBER;
    if (s->length_low > 0 || s->length_high < GRAMMAR_NO_MAX || s->pattern || s->format)
        s->speaks |= 1 << TYPE_STRING;
    if (s->items_low > 0 || s->items_high < GRAMMAR_NO_MAX || s->prefix_count > 0 || s->items != SCHEMA_TRUE)
        s->speaks |= 1 << TYPE_ARRAY;
    if (s->properties || s->required || s->says_additional)
        s->speaks |= 1 << TYPE_OBJECT;
    s->own = s->speaks || s->types != TYPES_ALL || s->value;
}

static bool new_record(struct tree *tree, struct schema **schema, uint32_t *id, struct err *err)
{
    struct schema *s;

    if (tree->count == SCHEMA_NODES_MAX)
        return err_set(err, ERR_LIMIT, "it has more than %d subschemas", SCHEMA_NODES_MAX);
    if (tree->count == tree->capacity) {
        uint32_t capacity = tree->capacity ? 2 * tree->capacity : 64;
        struct schema **more = realloc(tree->schema, capacity * sizeof(struct schema *));

        if (!more)
            return err_set(err, ERR_IO, "no memory");
        tree->schema = more;
        tree->capacity = capacity;
    }
    s = arena_take(&tree->arena, sizeof *s);
    if (!s)
        return no_memory(err);
    *s = (struct schema){ .types = TYPES_ALL,
                          .length_high = GRAMMAR_NO_MAX,
                          .items_high = GRAMMAR_NO_MAX,
                          .items = SCHEMA_TRUE,
                          .additional = SCHEMA_TRUE };
    tree->schema[tree->count] = s;
    *schema = s;
    *id = tree->count++;
    return true;
}

static bool read_schema(struct tree *tree, const json_t *json, uint32_t parent, const char *keyword,
                        const char *name, uint32_t index, int depth, uint32_t *id, struct err *err)
{
    struct reading r = { .tree = tree, .depth = depth, .err = err };
    const char *key;
    const json_t *value;

    if (!new_record(tree, &r.schema, id, err))
        return false;
    r.id = *id;
    r.schema->parent = parent;
    r.schema->keyword = keyword;
    r.schema->name = name;
    r.schema->index = index;
    if (depth > SCHEMA_DEPTH_MAX)
        return tree_error(tree, r.id, NULL, ERR_LIMIT, err, "schemas are nested deeper than %d",
                          SCHEMA_DEPTH_MAX);
    if (json_is_boolean(json)) {
        if (json_is_false(json)) {
            r.schema->types = 0;
            r.schema->own = true;
        }
        return true;
    }
    if (!json_is_object(json)) {
        char pointer[TREE_POINTER_MAX];

        return err_set(err, ERR_INPUT, "%s: expected a schema (an object, true or false), found %s",
                       tree_pointer(tree, r.id, NULL, pointer), source_type(json));
    }
    r.schema->json = json;
    json_object_foreach((json_t *)(uintptr_t)json, key, value)
    {
        int k = 0;

        r.keyword = key;
        while (k < K_COUNT && strcmp(key, keyword_names[k]) != 0)
            k++;
        if (k == K_COUNT)
            return unknown(&r);
        if (k == K_REF)
            r.schema->ref_first = !r.schema->properties;
        if (!read_keyword(&r, (enum keyword)k, value))
            return false;
    }
    note_what_it_says(r.schema);
    return check_bounds(&r);
}

/* ---- references ------------------------------------------------------------------------------------- */

static int by_json(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const struct tree_place *)a)->json,
              y = (uintptr_t)((const struct tree_place *)b)->json;

    return (x > y) - (x < y);
}

static int hex(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One token of a pointer in a URI: %-escapes first, then ~0 and ~1.  out has room for the token and a NUL. */
static bool unescape(struct span token, char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < token.size; i++) {
        uint8_t c = token.data[i];

        if (c == '%') {
            if (i + 2 >= token.size || hex(token.data[i + 1]) < 0 || hex(token.data[i + 2]) < 0)
                return false;
            c = (uint8_t)(hex(token.data[i + 1]) * 16 + hex(token.data[i + 2]));
            i += 2;
            if (c == 0)
                return false;
        }
        out[n++] = (char)c;
    }
    out[n] = '\0';
    for (char *at = strchr(out, '~'); at; at = strchr(at + 1, '~')) {
        if (at[1] != '0' && at[1] != '1')
            return false;
        *at = at[1] == '0' ? '~' : '/';
        memmove(at + 1, at + 2, strlen(at + 2) + 1);
    }
    return true;
}

static const json_t *step_into(const json_t *json, const char *token)
{
    size_t index = 0;

    if (json_is_object(json))
        return json_object_get(json, token);
    if (!json_is_array(json) || token[0] == '\0' || (token[0] == '0' && token[1]))
        return NULL;
    for (; *token; token++) {
        if (*token < '0' || *token > '9' || index > SOURCE_VALUES_MAX)
            return NULL;
        index = index * 10 + (size_t)(*token - '0');
    }
    return json_array_get(json, index);
}

/* The value at the fragment of a reference, or NULL. */
static const json_t *follow(const struct tree *tree, struct span fragment)
{
    const json_t *json = tree->source.root;
    char *token = malloc(fragment.size + 1);
    size_t at = 0;

    while (token && json && at < fragment.size) {
        size_t end = ++at;

        while (end < fragment.size && fragment.data[end] != '/')
            end++;
        json = unescape(span_of(fragment.data + at, end - at), token) ? step_into(json, token) : NULL;
        at = end;
    }
    if (!token)
        json = NULL;
    free(token);
    return json;
}

static bool link_ref(struct tree *tree, uint32_t id, struct err *err)
{
    struct schema *s = tree->schema[id];
    const json_t *value = s->json ? json_object_get(s->json, "$ref") : NULL, *target;
    const json_t *base = json_object_get(tree->source.root, "$id");
    struct tree_place key, *found;
    struct span ref, root;

    if (!value)
        return true;
    ref = source_text(value);
    if (base && ref.size > 0 &&
        ref.data[0] != '#') { /* the document's own name before the fragment changes nothing */
        root = source_text(base);
        if (root.size > 0 && root.data[root.size - 1] == '#')
            root.size--;
        if (ref.size >= root.size && memcmp(ref.data, root.data, root.size) == 0 &&
            (ref.size == root.size || ref.data[root.size] == '#')) {
            ref.data += root.size;
            ref.size -= root.size;
        }
    }
    if (ref.size > 0 && ref.data[0] == '#') {
        ref.data++;
        ref.size--;
    } else if (ref.size > 0 || json_string_length(value) == 0) {
        return tree_error(tree, id, "$ref", ERR_INPUT, err,
                          "expected a reference within the schema, as in #/$defs/name, found `%.128s`",
                          json_string_value(value));
    }
    if (ref.size > 0 && ref.data[0] != '/')
        return tree_error(tree, id, "$ref", ERR_INPUT, err,
                          "expected #, or # and a JSON pointer, found `%.128s`", json_string_value(value));
    target = follow(tree, ref);
    if (!target)
        return tree_error(tree, id, "$ref", ERR_INPUT, err, "`%.128s` leads nowhere",
                          json_string_value(value));
    if (json_is_boolean(target)) {
        s->ref = json_is_true(target) ? SCHEMA_TRUE : SCHEMA_FALSE;
        return true;
    }
    key.json = target;
    found = bsearch(&key, tree->place, tree->count, sizeof key, by_json);
    if (!found || !json_is_object(target))
        return tree_error(tree, id, "$ref", ERR_INPUT, err, "`%.128s` leads to something that is no schema",
                          json_string_value(value));
    s->ref = found->id;
    return true;
}

/* What is applied to the same value as the schema: its i-th, or 0 when there are no more. */
static uint32_t in_place(const struct schema *s, uint32_t i)
{
    if (s->ref && i-- == 0)
        return s->ref;
    if (i < s->any.count)
        return s->any.schema[i];
    i -= s->any.count;
    return i < s->one.count ? s->one.schema[i] : 0;
}

/* A schema that is applied to the same value again by what it applies to it never comes to an end. */
static bool check_loops(const struct tree *tree, struct err *err)
{
    enum { NEW, OPEN, DONE };
    uint8_t *colour = calloc(tree->count, 1);
    uint32_t *height = calloc(tree->count, sizeof *height);    /* of what it applies in place */
    uint32_t *stack = malloc(2 * tree->count * sizeof *stack); /* (id, next) */
    bool ok = true;

    if (!colour || !height || !stack)
        ok = err_set(err, ERR_IO, "no memory");
    for (uint32_t start = 0; ok && start < tree->count; start++) {
        uint32_t depth = 0;

        if (colour[start] != NEW)
            continue;
        stack[0] = start;
        stack[1] = 0;
        colour[start] = OPEN;
        for (depth = 1; ok && depth > 0;) {
            uint32_t *top = &stack[2 * (depth - 1)], child = in_place(tree->schema[top[0]], top[1]++);

            if (child == 0) {
                colour[top[0]] = DONE;
                depth--;
                if (depth > 0 && height[stack[2 * (depth - 1)]] <= height[top[0]])
                    height[stack[2 * (depth - 1)]] = height[top[0]] + 1;
                if (height[top[0]] > TREE_CHAIN_MAX)
                    ok =
                        tree_error(tree, top[0], NULL, ERR_LIMIT, err,
                                   "more than %d references, anyOf and oneOf follow one another on one value",
                                   TREE_CHAIN_MAX);
            } else if (colour[child] == DONE) {
                if (height[top[0]] <= height[child])
                    height[top[0]] = height[child] + 1;
            } else if (colour[child] == OPEN) {
                const struct schema *s = tree->schema[top[0]];

                ok = tree_error(tree, top[0], s->ref == child ? "$ref" : NULL, ERR_INPUT, err,
                                "it refers to itself without end");
            } else {
                colour[child] = OPEN;
                stack[2 * depth] = child;
                stack[2 * depth + 1] = 0;
                depth++;
            }
        }
    }
    free(colour);
    free(height);
    free(stack);
    return ok;
}

static bool link_all(struct tree *tree, struct err *err)
{
    tree->place = malloc(tree->count * sizeof *tree->place);
    if (!tree->place)
        return err_set(err, ERR_IO, "no memory");
    for (uint32_t i = 0; i < tree->count; i++)
        tree->place[i] = (struct tree_place){ .json = tree->schema[i]->json, .id = i };
    qsort(tree->place, tree->count, sizeof *tree->place, by_json);
    for (uint32_t i = 0; i < tree->count; i++)
        if (!link_ref(tree, i, err))
            return false;
    return check_loops(tree, err);
}

/* ---- the whole -------------------------------------------------------------------------------------- */

bool tree_read(struct tree *tree, struct span text, struct err *err)
{
    struct schema *schema;
    uint32_t id;

    *tree = (struct tree){ 0 };
    arena_init(&tree->arena, TREE_BYTES_MAX);
    if (text.size > SCHEMA_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "it has %zu bytes; expected at most %d", text.size, SCHEMA_BYTES_MAX);
    if (!source_read(&tree->source, text, err))
        return false;
    tree->own_required = json_array();
    if (!tree->own_required) {
        err_set(err, ERR_IO, "no memory");
        goto fail;
    }
    if (!new_record(tree, &schema, &id, err) || !new_record(tree, &schema, &id, err))
        goto fail;
    schema->types = 0; /* SCHEMA_FALSE */
    schema->own = true;
    if (read_schema(tree, tree->source.root, SCHEMA_ROOT, NULL, NULL, 0, 0, &id, err) && link_all(tree, err))
        return true;
fail:
    tree_fini(tree);
    return false;
}

void tree_fini(struct tree *tree)
{
    arena_fini(&tree->arena);
    json_decref(tree->own_required);
    free(tree->schema);
    free(tree->place);
    source_fini(&tree->source);
    *tree = (struct tree){ 0 };
}

uint32_t tree_resolve(const struct tree *tree, uint32_t id)
{
    for (;;) { /* in place there are no loops */
        const struct schema *s = tree->schema[id];

        if (s->own || s->any.count > 0 || s->one.count > 0)
            return id;
        if (!s->ref)
            return SCHEMA_TRUE;
        id = s->ref;
    }
}

uint32_t tree_property(const struct tree *tree, const struct schema *schema, const char *name)
{
    struct tree_place key, *found;
    json_t *json = json_object_get(schema->properties, name);

    if (!json)
        return schema->additional;
    if (json_is_boolean(json))
        return json_is_true(json) ? SCHEMA_TRUE : SCHEMA_FALSE;
    key.json = json;
    found = bsearch(&key, tree->place, tree->count, sizeof key, by_json);
    assert(found);
    return found->id;
}
