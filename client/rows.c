#include "client/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "client/output.h"

void row_number(const json_t *value, char text[40])
{
    if (json_is_integer(value)) {
        snprintf(text, 40, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, 40, "%.*g", digits, json_real_value(value));
        if (strtod(text, NULL) == json_real_value(value))
            break;
    }
    if (!strpbrk(text, ".e"))
        strcat(text, ".0");
}

static bool write_text(struct buf *out, const char *text, size_t size)
{
    json_t *string = json_stringn_nocheck(text, size);
    bool ok = string && buf_json(out, string, 0);

    json_decref(string);
    return ok;
}

static bool write_value(struct buf *out, const json_t *value)
{
    const char *key;
    size_t i, n;
    json_t *item;
    char text[40];
    bool first = true;

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        if (!buf_text(out, "{"))
            return false;
        json_object_keylen_foreach((json_t *)(uintptr_t)value, key, n, item)
        {
            if ((!first && !buf_text(out, ",")) || !write_text(out, key, n) || !buf_text(out, ":") ||
                !write_value(out, item))
                return false;
            first = false;
        }
        return buf_text(out, "}");
    case JSON_ARRAY:
        if (!buf_text(out, "["))
            return false;
        json_array_foreach(value, i, item)
        {
            if ((i && !buf_text(out, ",")) || !write_value(out, item))
                return false;
        }
        return buf_text(out, "]");
    case JSON_STRING:
        return write_text(out, json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
    case JSON_REAL:
        row_number(value, text);
        return buf_text(out, text);
    case JSON_TRUE:
        return buf_text(out, "true");
    case JSON_FALSE:
        return buf_text(out, "false");
    default:
        return buf_text(out, "null");
    }
}

bool row_write(struct buf *out, const json_t *value)
{
    size_t from = out->size;

    return write_value(out, value) && output_one_line(out, from);
}

bool row_pointer_add(struct buf *pointer, const char *key, size_t size)
{
    if (!buf_text(pointer, "/"))
        return false;
    for (size_t i = 0; i < size; i++)
        if (!(key[i] == '~'   ? buf_text(pointer, "~0")
              : key[i] == '/' ? buf_text(pointer, "~1")
                              : buf_add(pointer, key + i, 1)))
            return false;
    return true;
}
