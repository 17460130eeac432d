#include "worker/model/schema_source.h"

#include <assert.h>
#include <stdlib.h>

/* Bounds the tree before jansson makes one, and finds the numbers: in a text that is JSON, whatever stands
 * outside strings and begins with a digit or a sign.  Of one that is not, jansson will say so. */
static bool scan(struct span text, struct source *source, struct err *err)
{
    size_t depth = 0, values = 1, capacity = 0;
    bool quoted = false;

    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];

        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
            continue;
        }
        quoted = c == '"';
        depth += c == '[' || c == '{';
        depth -= (c == ']' || c == '}') && depth > 0;
        values += c == ',' || c == '[' || c == '{';
        if (depth > SOURCE_DEPTH_MAX)
            return err_set(err, ERR_LIMIT, "it is nested deeper than %d levels", SOURCE_DEPTH_MAX);
        if (values > SOURCE_VALUES_MAX)
            return err_set(err, ERR_LIMIT, "it has more than %d values", SOURCE_VALUES_MAX);
        if (c == '-' || (c >= '0' && c <= '9')) {
            size_t from = i;

            while (i + 1 < text.size && strchr("0123456789+-.eE", text.data[i + 1]) && text.data[i + 1])
                i++;
            if (source->number_count == capacity) {
                struct source_number *more;

                capacity = capacity ? 2 * capacity : 64;
                more = realloc(source->number, capacity * sizeof *more);
                if (!more)
                    return err_set(err, ERR_IO, "no memory for its numbers");
                source->number = more;
            }
            source->number[source->number_count++] =
                (struct source_number){ .text = span_of(text.data + from, i + 1 - from) };
        }
    }
    return true;
}

/* Gives the numbers their places in the tree, both in the order of the text. */
static void place(struct source *source, json_t *value, size_t *at)
{
    const char *key;
    json_t *child;
    size_t i;

    if (json_is_object(value)) {
        json_object_foreach(value, key, child) place(source, child, at);
    } else if (json_is_array(value)) {
        json_array_foreach(value, i, child) place(source, child, at);
    } else if (json_is_number(value)) {
        assert(*at < source->number_count);
        source->number[(*at)++].value = value;
    }
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const struct source_number *)a)->value;
    uintptr_t y = (uintptr_t)((const struct source_number *)b)->value;

    return (x > y) - (x < y);
}

bool source_read(struct source *source, struct span text, struct err *err)
{
    json_error_t fault;
    size_t placed = 0;

    *source = (struct source){ 0 };
    if (!scan(text, source, err)) {
        source_fini(source);
        return false;
    }
    /* Integers as reals: ones beyond 64 bits are fine here. */
    source->root = json_loadb(
        text.size ? (const char *)text.data : "", text.size,
        JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &fault);
    if (!source->root) {
        source_fini(source);
        return err_set(err, ERR_INPUT, "it is not JSON: line %d, column %d: %s", fault.line, fault.column,
                       fault.text);
    }
    place(source, source->root, &placed);
    assert(placed == source->number_count);
    if (placed > 0)
        qsort(source->number, placed, sizeof *source->number, by_address);
    return true;
}

void source_fini(struct source *source)
{
    json_decref(source->root);
    free(source->number);
    *source = (struct source){ 0 };
}

bool source_decimal(const struct source *source, const json_t *number, struct decimal *decimal)
{
    struct source_number key = { .value = number };
    const struct source_number *found =
        bsearch(&key, source->number, source->number_count, sizeof key, by_address);

    assert(found);
    return decimal_read(decimal, found->text);
}

const char *source_type(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "text";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    default:
        return "null";
    }
}

bool source_spell_text(struct span text, struct buf *out)
{
    static const char named[] = "\b\f\n\r\t\"\\", as[] = "bfnrt\"\\";
    size_t from = 0;

    if (!buf_add(out, "\"", 1))
        return false;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        const char *name = c ? strchr(named, c) : NULL;

        if (c >= 0x20 && !name)
            continue;
        if (!buf_add(out, text.data + from, i - from) ||
            !(name ? buf_format(out, "\\%c", as[name - named]) : buf_format(out, "\\u%04x", c)))
            return false;
        from = i + 1;
    }
    return buf_add(out, text.data + from, text.size - from) && buf_add(out, "\"", 1);
}

bool source_spell(const struct source *source, const json_t *value, struct buf *out)
{
    const char *key;
    const json_t *child;
    struct decimal decimal;
    char text[DECIMAL_TEXT_MAX];
    bool ok = true, first = true;
    size_t i;

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        ok = buf_add(out, "{", 1);
        json_object_foreach((json_t *)(uintptr_t)value, key, child)
        {
            ok = ok && (first || buf_add(out, ",", 1)) && source_spell_text(span_text(key), out) &&
                 buf_add(out, ":", 1) && source_spell(source, child, out);
            first = false;
        }
        return ok && buf_add(out, "}", 1);
    case JSON_ARRAY:
        ok = buf_add(out, "[", 1);
        json_array_foreach(value, i, child) ok =
            ok && (i == 0 || buf_add(out, ",", 1)) && source_spell(source, child, out);
        return ok && buf_add(out, "]", 1);
    case JSON_STRING:
        return source_spell_text(source_text(value), out);
    case JSON_INTEGER:
    case JSON_REAL:
        if (!source_decimal(source, value, &decimal))
            return false;
        decimal_write(&decimal, text);
        return buf_text(out, text);
    case JSON_TRUE:
        return buf_text(out, "true");
    case JSON_FALSE:
        return buf_text(out, "false");
    default:
        return buf_text(out, "null");
    }
}

bool source_equal(const struct source *source, const json_t *a, const json_t *b)
{
    const char *key;
    const json_t *child;
    struct decimal x, y;
    size_t i;

    if (json_is_number(a) && json_is_number(b))
        return source_decimal(source, a, &x) && source_decimal(source, b, &y) && decimal_compare(&x, &y) == 0;
    if (json_typeof(a) != json_typeof(b))
        return false;
    switch (json_typeof(a)) {
    case JSON_OBJECT:
        if (json_object_size(a) != json_object_size(b))
            return false;
        json_object_foreach((json_t *)(uintptr_t)a, key, child)
        {
            const json_t *other = json_object_get(b, key);

            if (!other || !source_equal(source, child, other))
                return false;
        }
        return true;
    case JSON_ARRAY:
        if (json_array_size(a) != json_array_size(b))
            return false;
        json_array_foreach(a, i, child) if (!source_equal(source, child, json_array_get(b, i))) return false;
        return true;
    case JSON_STRING:
        return span_equal(source_text(a), source_text(b));
    default:
        return true;
    }
}

static uint64_t mix(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *byte = data;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ byte[i]) * 0x100000001b3u;
    return hash ^ (hash >> 29);
}

uint64_t source_hash(const struct source *source, const json_t *value)
{
    enum { SEED = 14695981 };
    const char *key;
    const json_t *child;
    struct decimal decimal;
    char text[DECIMAL_TEXT_MAX] = "";
    uint64_t hash = SEED;
    size_t i;

    switch (json_typeof(value)) {
    case JSON_OBJECT: /* the sum has no order */
        json_object_foreach((json_t *)(uintptr_t)value, key, child) hash +=
            mix(source_hash(source, child), key, strlen(key));
        return mix(hash, "{", 1);
    case JSON_ARRAY:
        json_array_foreach(value, i, child)
        {
            uint64_t inner = source_hash(source, child);

            hash = mix(hash, &inner, sizeof inner);
        }
        return mix(hash, "[", 1);
    case JSON_STRING:
        return mix(mix(hash, "\"", 1), json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
    case JSON_REAL:
        if (source_decimal(source, value, &decimal))
            decimal_write(&decimal, text);
        return mix(hash, text, strlen(text));
    default: {
        uint8_t type = (uint8_t)json_typeof(value);

        return mix(hash, &type, 1);
    }
    }
}
