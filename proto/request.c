#include "proto/request.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"

#define CHAT_URL       "/v1/chat/completions"
#define COMPLETION_URL "/v1/completions"

/* ---- faults -----------------------------------------------------------------------------------------------
 */

/* What a user wrote is quoted in messages and may be cut anywhere: the words must stay UTF-8 and one line. */
static void clean(char *text)
{
    uint8_t *p = (uint8_t *)text;

    while (*p) {
        size_t size = 1, left = strlen((char *)p);

        while (size <= 4 && size <= left && !span_is_utf8(span_of(p, size)))
            size++;
        if (size > 4 || size > left || *p < 0x20 || *p == 0x7f) {
            *p = '?';
            size = 1;
        }
        p += size;
    }
}

bool request_fault_set(struct request_fault *fault, int status_code, const char *code, const char *param,
                       const char *format, ...)
{
    va_list args;
    int n;

    fault->status_code = status_code;
    fault->code = code;
    snprintf(fault->param, sizeof fault->param, "%s", param ? param : "");
    clean(fault->param);
    va_start(args, format);
    n = vsnprintf(fault->message, sizeof fault->message, format, args);
    va_end(args);
    if (n >= (int)sizeof fault->message)
        memcpy(fault->message + sizeof fault->message - 4, "...", 4);
    clean(fault->message);
    return false;
}

bool request_fault_write(const struct request_fault *fault, struct buf *out)
{
    json_t *param = fault->param[0] ? json_string(fault->param) : json_null();
    json_t *json = json_pack("{s:{s:s,s:s,s:o,s:s}}", "error", "message", fault->message, "type",
                             "invalid_request_error", "param", param, "code", fault->code);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    bool ok = text && buf_text(out, text);

    free(text);
    json_decref(json);
    return ok;
}

static bool no_room(struct request_fault *fault)
{
    return request_fault_set(fault, 413, "request_too_large", NULL,
                             "the request needs more memory than it may take");
}

static const char *found(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a text";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        break;
    }
    return "null";
}

/* A text may hold U+0000, so its length counts. */
static bool is_word(const json_t *v, const char *word)
{
    return json_string_length(v) == strlen(word) && strcmp(json_string_value(v), word) == 0;
}

static bool wrong_type(struct request_fault *fault, const char *param, const char *expected, const json_t *v)
{
    return request_fault_set(fault, 400, "invalid_type", param, "`%s`: expected %s, found %s", param,
                             expected, found(v));
}

/* ---- the line as bytes
 * --------------------------------------------------------------------------------------- */

/* The first byte that is not part of UTF-8, or size. */
static size_t utf8_end(struct span text)
{
    size_t at = 0;

    if (span_is_utf8(text))
        return text.size;
    for (;;) { /* it ends somewhere, so this does */
        size_t size = 1;

        while (size <= 4 && at + size <= text.size && !span_is_utf8(span_of(text.data + at, size)))
            size++;
        if (size > 4 || at + size > text.size)
            return at;
        at += size;
    }
}

/* Depth and number of values, before jansson makes objects of them: 16 MB of `[[],[],...` would take a
 * gigabyte. */
static bool check_shape(struct span line, struct request_fault *fault)
{
    int depth = 0;
    size_t values = 1;
    bool quoted = false;

    for (size_t i = 0; i < line.size; i++) {
        uint8_t c = line.data[i];

        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
            continue;
        }
        if (c == '"')
            quoted = true;
        else if (c == '[' || c == '{')
            depth++;
        else if (c == ']' || c == '}')
            depth--;
        if (c == ',' || c == '[' || c == '{')
            values++;
        if (depth > REQUEST_DEPTH_MAX)
            return request_fault_set(fault, 400, "invalid_json", NULL,
                                     "more than %d lists and objects within each other, at byte %zu",
                                     REQUEST_DEPTH_MAX, i);
        if (values > REQUEST_VALUES_MAX)
            return request_fault_set(fault, 413, "request_too_large", NULL, "more than %d JSON values",
                                     REQUEST_VALUES_MAX);
    }
    return true;
}

/* The key of the number that ends before `at`, for the words of a number that is out of range. */
static bool key_before(struct span line, size_t at, char key[64])
{
    size_t end, start;

    if (at > line.size)
        return false;
    while (at > 0 && strchr("+-.0123456789eE", line.data[at - 1]) && line.data[at - 1])
        at--;
    while (at > 0 && (line.data[at - 1] == ' ' || line.data[at - 1] == '\t'))
        at--;
    if (at == 0 || line.data[--at] != ':')
        return false;
    while (at > 0 && (line.data[at - 1] == ' ' || line.data[at - 1] == '\t'))
        at--;
    if (at == 0 || line.data[at - 1] != '"')
        return false;
    for (end = start = at - 1; start > 0 && line.data[start - 1] != '"'; start--)
        continue;
    if (start == 0 || end - start == 0 || end - start >= 64)
        return false;
    memcpy(key, line.data + start, end - start);
    key[end - start] = '\0';
    return true;
}

/* ---- integers beyond 64 bits
 * ---------------------------------------------------------------------------------
 *
 * A schema may have them (18446744073709551615 is a usual maximum), and they have to be exact; jansson has
 * none.  So text with such integers is read again with ".0" behind each, and where a schema is written they
 * stand as they stood.  Elsewhere they are out of range. */

struct wide {
    const json_t *value; /* a real, as jansson has it */
    struct span text;    /* as it stands in the line */
    size_t number;       /* the how many-th number of the line it is */
};

enum { WIDES_MAX = 1 << 14 }; /* more than a schema may list */

struct wides { /* zero-initialise */
    struct wide *list;
    size_t count, room;
};

static void wides_fini(struct wides *wides)
{
    free(wides->list);
    *wides = (struct wides){ 0 };
}

static bool is_wide(struct span number)
{
    char text[24];
    size_t sign = number.data[0] == '-';

    for (size_t i = sign; i < number.size; i++)
        if (number.data[i] < '0' || number.data[i] > '9')
            return false;
    if (number.size - sign != 19)
        return number.size - sign > 19;
    memcpy(text, number.data, number.size);
    text[number.size] = '\0';
    errno = 0;
    strtoll(text, NULL, 10);
    return errno == ERANGE;
}

static bool add_wide(struct wides *wides, struct span text, size_t number)
{
    if (wides->count == WIDES_MAX)
        return false;
    if (wides->count == wides->room) {
        size_t room = wides->room ? 2 * wides->room : 16;
        struct wide *list = realloc(wides->list, room * sizeof *list);

        if (!list)
            return false;
        wides->list = list;
        wides->room = room;
    }
    wides->list[wides->count++] = (struct wide){ .text = text, .number = number };
    return true;
}

/* The text with its wide integers as reals. */
static bool widen(struct span bytes, struct wides *wides, struct buf *out)
{
    size_t from = 0, number = 0;

    for (size_t i = 0; i < bytes.size; i++) {
        size_t end = i;
        uint8_t c = bytes.data[i];

        if (c == '"') {
            for (i++; i < bytes.size && bytes.data[i] != '"'; i++)
                i += bytes.data[i] == '\\';
            continue;
        }
        if (c != '-' && (c < '0' || c > '9'))
            continue;
        while (end < bytes.size && bytes.data[end] && strchr("+-.0123456789eE", bytes.data[end]))
            end++;
        if (is_wide(span_of(bytes.data + i, end - i))) {
            if (!add_wide(wides, span_of(bytes.data + i, end - i), number) ||
                !buf_add(out, bytes.data + from, end - from) || !buf_text(out, ".0"))
                return false;
            from = end;
        }
        number++;
        i = end - 1;
    }
    return buf_add(out, bytes.data + from, bytes.size - from);
}

/* Objects keep the order of the text, so the numbers come in its order. */
static void place_wides(struct wides *wides, const json_t *v, size_t *number, size_t *at)
{
    const char *key;
    json_t *item;
    size_t i;

    if (json_is_object(v)) {
        json_object_foreach((json_t *)(uintptr_t)v, key, item) place_wides(wides, item, number, at);
    } else if (json_is_array(v)) {
        json_array_foreach(v, i, item) place_wides(wides, item, number, at);
    } else if (json_is_number(v)) {
        if (*at < wides->count && wides->list[*at].number == *number)
            wides->list[(*at)++].value = v;
        ++*number;
    }
}

static int by_value(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const struct wide *)a)->value, y = (uintptr_t)((const struct wide *)b)->value;

    return (x > y) - (x < y);
}

static const struct wide *find_wide(const struct wides *wides, const json_t *v)
{
    struct wide key = { .value = v };

    return wides->count ? bsearch(&key, wides->list, wides->count, sizeof key, by_value) : NULL;
}

static size_t count_wides(const struct wides *wides, const json_t *v)
{
    const char *key;
    json_t *item;
    size_t i, count = 0;

    if (json_is_object(v)) {
        json_object_foreach((json_t *)(uintptr_t)v, key, item) count += count_wides(wides, item);
    } else if (json_is_array(v)) {
        json_array_foreach(v, i, item) count += count_wides(wides, item);
    } else {
        count = find_wide(wides, v) != NULL;
    }
    return count;
}

/* Where a body holds a schema. */
static const char *const schema_path[][4] = {
    { "guided_json" },
    { "response_format", "json_schema", "schema" },
    { "structured_outputs", "json" },
};
enum { SCHEMA_PATHS = sizeof schema_path / sizeof schema_path[0] };

/* NULL where it does not help: there is none, or one outside of a schema, or something else is wrong too. */
static json_t *parse_wide(struct span bytes, bool line, struct wides *wides)
{
    struct buf text = { .max = 2 * (size_t)REQUEST_LINE_MAX };
    json_t *json = NULL;
    size_t number = 0, at = 0, inside = 0;

    if (widen(bytes, wides, &text) && wides->count)
        json = json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    buf_fini(&text);
    if (json) {
        place_wides(wides, json, &number, &at);
        qsort(wides->list, wides->count, sizeof *wides->list, by_value);
        for (int i = 0; i < SCHEMA_PATHS; i++) {
            const json_t *v = line ? json_object_get(json, "body") : json;

            for (int depth = 0; v && schema_path[i][depth]; depth++)
                v = json_object_get(v, schema_path[i][depth]);
            inside += v ? count_wides(wides, v) : 0;
        }
    }
    if (!json || at != wides->count || inside != wides->count) {
        json_decref(json);
        wides_fini(wides);
        return NULL;
    }
    return json;
}

/* line: a whole line, not a body. */
static json_t *parse(struct span bytes, bool line, struct wides *wides, struct request_fault *fault)
{
    const char *what = line ? "line" : "body";
    json_error_t why;
    size_t good;
    json_t *json;
    char key[64];

    if (bytes.size > REQUEST_LINE_MAX) {
        request_fault_set(fault, 413, "line_too_long", NULL, "%s of %zu bytes, at most %d", what, bytes.size,
                          REQUEST_LINE_MAX);
        return NULL;
    }
    good = utf8_end(bytes);
    if (good < bytes.size) {
        request_fault_set(fault, 400, "invalid_utf8", NULL, "%s is not UTF-8: byte 0x%02x at byte %zu", what,
                          bytes.data[good], good);
        return NULL;
    }
    if (!check_shape(bytes, fault))
        return NULL;
    json = json_loadb(bytes.size ? (const char *)bytes.data : "", bytes.size,
                      JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!json && json_error_code(&why) == json_error_numeric_overflow)
        json = parse_wide(bytes, line, wides);
    if (json)
        return json;
    if (json_error_code(&why) == json_error_numeric_overflow && key_before(bytes, (size_t)why.position, key))
        request_fault_set(fault, 400, "invalid_value", key, "`%s`: the number is out of range", key);
    else
        request_fault_set(fault, 400, "invalid_json", NULL, "%s is not JSON: %s, at byte %d", what, why.text,
                          why.position);
    return NULL;
}

/* ---- fields
 * ----------------------------------------------------------------------------------------------------- */

/* One body being read. */
struct reading {
    struct arena *arena;
    struct request *request;
    struct request_fault *fault;
    const struct wides *wides;
    bool top_logprobs_given;
};

typedef bool read_field(struct reading *r, const char *name, const json_t *v); /* name: a literal */

static bool keep_text(struct reading *r, const json_t *v, struct span *text)
{
    size_t size = json_string_length(v);
    char *copy = arena_copy(r->arena, json_string_value(v), size);

    if (!copy)
        return no_room(r->fault);
    *text = span_of(copy, size);
    return true;
}

static bool read_integer(struct reading *r, const char *name, const json_t *v, json_int_t low,
                         json_int_t high, json_int_t *value)
{
    char expected[96];

    snprintf(expected, sizeof expected, "an integer %" JSON_INTEGER_FORMAT "..%" JSON_INTEGER_FORMAT, low,
             high);
    if (!json_is_integer(v))
        return wrong_type(r->fault, name, expected, v);
    *value = json_integer_value(v);
    if (*value < low || *value > high)
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s`: expected %s, found %" JSON_INTEGER_FORMAT, name, expected, *value);
    return true;
}

static bool read_number(struct reading *r, const char *name, const json_t *v, double low, double high,
                        double *value)
{
    if (!json_is_number(v))
        return request_fault_set(r->fault, 400, "invalid_type", name,
                                 "`%s`: expected a number %g..%g, found %s", name, low, high, found(v));
    *value = json_number_value(v);
    if (!(*value >= low && *value <= high))
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s`: expected a number %g..%g, found %g", name, low, high, *value);
    return true;
}

static bool read_bool(struct reading *r, const char *name, const json_t *v, bool *value)
{
    *value = json_is_true(v);
    return json_is_boolean(v) || wrong_type(r->fault, name, "true or false", v);
}

static bool read_model(struct reading *r, const char *name, const json_t *v)
{
    if (!json_is_string(v))
        return wrong_type(r->fault, name, "a text", v);
    return keep_text(r, v, &r->request->model);
}

static bool read_max_tokens(struct reading *r, const char *name, const json_t *v)
{
    json_int_t value = 0;

    if (r->request->tokens_field)
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s` and `%s` mean the same; expected one", r->request->tokens_field, name);
    r->request->tokens_field = name;
    /* 0 is judged when it is known whether the prompt is echoed. */
    if (json_is_integer(v) && json_integer_value(v) == 0) {
        r->request->max_tokens = 0;
        return true;
    }
    if (!read_integer(r, name, v, 1, INT32_MAX, &value))
        return false;
    r->request->max_tokens = (int32_t)value;
    return true;
}

static bool read_temperature(struct reading *r, const char *name, const json_t *v)
{
    return read_number(r, name, v, 0, 2, &r->request->temperature);
}

static bool read_top_p(struct reading *r, const char *name, const json_t *v)
{
    return read_number(r, name, v, 0, 1, &r->request->top_p);
}

static bool read_top_k(struct reading *r, const char *name, const json_t *v)
{
    json_int_t value = 0;

    if (!read_integer(r, name, v, -1, INT32_MAX, &value))
        return false;
    r->request->top_k = value > 0 ? (int32_t)value : 0;
    return true;
}

static bool read_seed(struct reading *r, const char *name, const json_t *v)
{
    if (!json_is_integer(v))
        return wrong_type(r->fault, name, "an integer of 64 bits", v);
    r->request->seed = json_integer_value(v);
    r->request->seed_given = true;
    return true;
}

static bool read_stop_text(struct reading *r, const char *name, const json_t *v, struct span *stop)
{
    if (!json_is_string(v))
        return wrong_type(r->fault, name, "a text", v);
    if (json_string_length(v) == 0 || json_string_length(v) > REQUEST_STOP_BYTES_MAX)
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s`: expected 1..%d bytes, found %zu", name, REQUEST_STOP_BYTES_MAX,
                                 json_string_length(v));
    return keep_text(r, v, stop);
}

static bool read_stop(struct reading *r, const char *name, const json_t *v)
{
    size_t count = json_is_array(v) ? json_array_size(v) : 1;
    char item_name[64];

    if (!json_is_array(v) && !json_is_string(v))
        return wrong_type(r->fault, name, "a text or a list of texts", v);
    if (count > REQUEST_STOP_MAX)
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s`: expected at most %d texts, found %zu", name, REQUEST_STOP_MAX, count);
    r->request->stop = arena_take(r->arena, (count + 1) * sizeof *r->request->stop);
    if (!r->request->stop)
        return no_room(r->fault);
    r->request->stop_count = count;
    if (json_is_string(v))
        return read_stop_text(r, name, v, &r->request->stop[0]);
    for (size_t i = 0; i < count; i++) {
        snprintf(item_name, sizeof item_name, "stop[%zu]", i);
        if (!read_stop_text(r, item_name, json_array_get(v, i), &r->request->stop[i]))
            return false;
    }
    return true;
}

static bool read_n(struct reading *r, const char *name, const json_t *v)
{
    json_int_t value = 0;

    if (!read_integer(r, name, v, 1, REQUEST_CHOICES_MAX, &value))
        return false;
    r->request->choices = (int32_t)value;
    return true;
}

static bool read_min_p(struct reading *r, const char *name, const json_t *v)
{
    return read_number(r, name, v, 0, 1, &r->request->min_p);
}

static bool read_presence_penalty(struct reading *r, const char *name, const json_t *v)
{
    return read_number(r, name, v, -2, 2, &r->request->presence_penalty);
}

static bool read_frequency_penalty(struct reading *r, const char *name, const json_t *v)
{
    return read_number(r, name, v, -2, 2, &r->request->frequency_penalty);
}

static bool read_repetition_penalty(struct reading *r, const char *name, const json_t *v)
{
    return read_number(r, name, v, 0.01, 10, &r->request->repetition_penalty);
}

/* A key of logit_bias: an id in decimal, in the one way that it can be written. */
static bool read_id(const char *key, int32_t *id)
{
    int64_t value = 0;

    if (!*key || (key[0] == '0' && key[1]))
        return false;
    for (; *key; key++) {
        if (*key < '0' || *key > '9' || value > INT32_MAX)
            return false;
        value = 10 * value + (*key - '0');
    }
    *id = (int32_t)value;
    return value <= INT32_MAX;
}

static int compare_bias(const void *a, const void *b)
{
    int32_t x = ((const struct request_bias *)a)->id, y = ((const struct request_bias *)b)->id;

    return x < y ? -1 : x > y;
}

static bool read_logit_bias(struct reading *r, const char *name, const json_t *v)
{
    struct request *q = r->request;
    size_t count = json_object_size(v);
    char item_name[96];
    const char *key;
    json_t *value;

    if (!json_is_object(v))
        return wrong_type(r->fault, name, "an object of token ids and numbers", v);
    if (count > REQUEST_BIAS_MAX)
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s`: expected at most %d ids, found %zu", name, REQUEST_BIAS_MAX, count);
    q->bias = arena_take(r->arena, (count + 1) * sizeof *q->bias);
    if (!q->bias)
        return no_room(r->fault);
    json_object_foreach((json_t *)(uintptr_t)v, key, value)
    {
        double bias = 0;

        snprintf(item_name, sizeof item_name, "%s.%.40s", name, key);
        if (!read_id(key, &q->bias[q->bias_count].id))
            return request_fault_set(r->fault, 400, "invalid_value", item_name,
                                     "`%s`: expected a token id as the key, such as \"42\"", item_name);
        if (!read_number(r, item_name, value, -100, 100, &bias))
            return false;
        q->bias[q->bias_count++].bias = (float)bias;
    }
    if (q->bias_count)
        qsort(q->bias, q->bias_count, sizeof *q->bias, compare_bias);
    return true;
}

static bool read_stop_token_ids(struct reading *r, const char *name, const json_t *v)
{
    struct request *q = r->request;
    size_t count = json_array_size(v);
    char item_name[64];

    if (!json_is_array(v))
        return wrong_type(r->fault, name, "a list of token ids", v);
    if (count > REQUEST_STOP_IDS_MAX)
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s`: expected at most %d ids, found %zu", name, REQUEST_STOP_IDS_MAX,
                                 count);
    q->stop_id = arena_take(r->arena, (count + 1) * sizeof *q->stop_id);
    if (!q->stop_id)
        return no_room(r->fault);
    for (size_t i = 0; i < count; i++) {
        json_int_t id = 0;

        snprintf(item_name, sizeof item_name, "%s[%zu]", name, i);
        if (!read_integer(r, item_name, json_array_get(v, i), 0, INT32_MAX, &id))
            return false;
        q->stop_id[q->stop_id_count++] = (int32_t)id;
    }
    return true;
}

static bool read_ignore_eos(struct reading *r, const char *name, const json_t *v)
{
    return read_bool(r, name, v, &r->request->ignore_eos);
}

/* Refuses the first key that is not in the list; one whose value is null counts as absent. */
static bool only_keys(struct reading *r, const char *name, const json_t *v, const char *const *known,
                      int count)
{
    char param[128];
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)v, key, value)
    {
        const char *nearest;
        bool listed = false;

        for (int i = 0; i < count; i++)
            listed = listed || strcmp(key, known[i]) == 0;
        if (listed || json_is_null(value))
            continue;
        snprintf(param, sizeof param, "%s.%.60s", name, key);
        nearest = err_nearest(key, known, count);
        return request_fault_set(r->fault, 400, "unsupported_parameter", param, "`%s` is not supported%s%s%s",
                                 param, nearest ? " (did you mean `" : "", nearest ? nearest : "",
                                 nearest ? "`?)" : "");
    }
    return true;
}

static const json_t *given(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);

    return json_is_null(v) ? NULL : v;
}

static bool read_repetition_detection(struct reading *r, const char *name, const json_t *v)
{
    static const char *const known[] = { "max_pattern_size", "min_pattern_size", "min_count" };
    const json_t *max = given(v, known[0]), *min = given(v, known[1]), *count = given(v, known[2]);
    json_int_t high = 0, low = 1, times = 0;

    if (!json_is_object(v))
        return wrong_type(r->fault, name, "an object with \"max_pattern_size\" and \"min_count\"", v);
    if (!only_keys(r, name, v, known, 3) || (max && !read_integer(r, "repetition_detection.max_pattern_size",
                                                                  max, 0, REQUEST_PATTERN_MAX, &high)))
        return false;
    if (high == 0) /* off, whatever else there is, so that a template can switch it off by one field */
        return true;
    if (min && !read_integer(r, "repetition_detection.min_pattern_size", min, 0, high, &low))
        return false;
    if (!count)
        return request_fault_set(r->fault, 400, "missing_required_parameter",
                                 "repetition_detection.min_count",
                                 "`repetition_detection.min_count` is missing");
    if (!read_integer(r, "repetition_detection.min_count", count, 2, REQUEST_PATTERN_MAX, &times))
        return false;
    r->request->pattern_max = (int32_t)high;
    r->request->pattern_min = low > 0 ? (int32_t)low : 1;
    r->request->pattern_count = (int32_t)times;
    return true;
}

/* ---- the form of the output ------------------------------------------------------------------------- */

static bool set_form(struct reading *r, const char *field, enum request_form form)
{
    if (r->request->form_field)
        return request_fault_set(r->fault, 400, "invalid_value", field,
                                 "`%s` and `%s` both say what the output has to be; expected one",
                                 r->request->form_field, field);
    r->request->form = form;
    r->request->form_field = field;
    return true;
}

/* Numbers in the shortest spelling that gives them back: what a schema says of 0.1 must not become
 * 0.10000000000000001.  The depth was checked with the line. */
static bool write_ordered(struct buf *out, const json_t *v, const struct wides *wides)
{
    const char *key, *comma = "";
    const struct wide *wide;
    char text[40];
    json_t *item;
    size_t i;

    switch (json_typeof(v)) {
    case JSON_OBJECT:
        if (!buf_add(out, "{", 1))
            return false;
        json_object_foreach((json_t *)(uintptr_t)v, key, item)
        {
            json_t *name = json_string(key);
            bool ok = name && buf_text(out, comma) && write_ordered(out, name, wides) &&
                      buf_add(out, ":", 1) && write_ordered(out, item, wides);

            json_decref(name);
            if (!ok)
                return false;
            comma = ",";
        }
        return buf_add(out, "}", 1);
    case JSON_ARRAY:
        if (!buf_add(out, "[", 1))
            return false;
        json_array_foreach(v, i, item)
        {
            if (!buf_text(out, comma) || !write_ordered(out, item, wides))
                return false;
            comma = ",";
        }
        return buf_add(out, "]", 1);
    case JSON_REAL:
        if ((wide = find_wide(wides, v)))
            return buf_add(out, wide->text.data, wide->text.size);
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, json_real_value(v));
            if (strtod(text, NULL) == json_real_value(v))
                break;
        }
        return buf_text(out, text) && (strpbrk(text, ".e") || buf_text(out, ".0"));
    default:
        return buf_json(out, v, 0);
    }
}

/* Takes a schema, texts to choose from or a pattern out of its field. */
static bool keep_form(struct reading *r, const char *name, const json_t *v)
{
    struct buf text = { .max = REQUEST_FORM_BYTES_MAX };
    bool ok = write_ordered(&text, v, r->wides);
    char *copy = ok ? arena_copy(r->arena, text.data, text.size) : NULL;

    r->request->form_text = span_of(copy, text.size);
    buf_fini(&text);
    if (!ok)
        return request_fault_set(r->fault, 400, "invalid_value", name, "`%s`: more than %d bytes", name,
                                 REQUEST_FORM_BYTES_MAX);
    return copy || no_room(r->fault);
}

static bool keep_schema(struct reading *r, const char *name, const json_t *v, bool text_too)
{
    if (json_is_object(v) || (json_is_boolean(v) && text_too))
        return keep_form(r, name, v);
    if (!text_too || !json_is_string(v))
        return wrong_type(r->fault, name, text_too ? "a JSON Schema, or one as a text" : "a JSON Schema", v);
    if (json_string_length(v) > REQUEST_FORM_BYTES_MAX)
        return request_fault_set(r->fault, 400, "invalid_value", name, "`%s`: more than %d bytes", name,
                                 REQUEST_FORM_BYTES_MAX);
    return keep_text(r, v, &r->request->form_text);
}

static bool keep_choice(struct reading *r, const char *name, const json_t *v)
{
    const json_t *text;
    char item_name[64];
    size_t i;

    if (!json_is_array(v))
        return wrong_type(r->fault, name, "a list of texts", v);
    if (json_array_size(v) == 0 || json_array_size(v) > REQUEST_FORM_TEXTS_MAX)
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s`: expected 1..%d texts, found %zu", name, REQUEST_FORM_TEXTS_MAX,
                                 json_array_size(v));
    json_array_foreach(v, i, text)
    {
        snprintf(item_name, sizeof item_name, "%s[%zu]", name, i);
        if (!json_is_string(text))
            return wrong_type(r->fault, item_name, "a text", text);
    }
    return keep_form(r, name, v);
}

static bool keep_regex(struct reading *r, const char *name, const json_t *v)
{
    if (!json_is_string(v))
        return wrong_type(r->fault, name, "a regular expression as a text", v);
    if (json_string_length(v) == 0 || json_string_length(v) > REQUEST_REGEX_BYTES_MAX)
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s`: expected 1..%d bytes, found %zu", name, REQUEST_REGEX_BYTES_MAX,
                                 json_string_length(v));
    return keep_text(r, v, &r->request->form_text);
}

static bool read_guided_json(struct reading *r, const char *name, const json_t *v)
{
    return set_form(r, name, REQUEST_SCHEMA) && keep_schema(r, name, v, true);
}

static bool read_guided_choice(struct reading *r, const char *name, const json_t *v)
{
    return set_form(r, name, REQUEST_CHOICE) && keep_choice(r, name, v);
}

static bool read_guided_regex(struct reading *r, const char *name, const json_t *v)
{
    return set_form(r, name, REQUEST_REGEX) && keep_regex(r, name, v);
}

static bool read_structured_outputs(struct reading *r, const char *name, const json_t *v)
{
    static const char *const known[] = { "json", "choice", "regex", "json_object" };
    const json_t *json = given(v, known[0]), *choice = given(v, known[1]), *regex = given(v, known[2]),
                 *object = given(v, known[3]);
    bool any = false;

    if (!json_is_object(v))
        return wrong_type(r->fault, name, "an object with \"json\", \"choice\", \"regex\" or \"json_object\"",
                          v);
    if (!only_keys(r, name, v, known, 4) ||
        (object && !read_bool(r, "structured_outputs.json_object", object, &any)))
        return false;
    if (!json + !choice + !regex + !any != 3)
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s`: expected one of json, choice, regex and json_object, found %d", name,
                                 !!json + !!choice + !!regex + any);
    if (json)
        return set_form(r, name, REQUEST_SCHEMA) && keep_schema(r, "structured_outputs.json", json, true);
    if (choice)
        return set_form(r, name, REQUEST_CHOICE) && keep_choice(r, "structured_outputs.choice", choice);
    if (regex)
        return set_form(r, name, REQUEST_REGEX) && keep_regex(r, "structured_outputs.regex", regex);
    return set_form(r, name, REQUEST_JSON_OBJECT);
}

static bool read_json_schema(struct reading *r, const json_t *v)
{
    static const char *const known[] = { "schema", "strict", "name", "description" };
    const json_t *schema = given(v, known[0]), *strict = given(v, known[1]);
    char name[64];

    if (!json_is_object(v))
        return v ? wrong_type(r->fault, "response_format.json_schema", "an object with \"schema\"", v)
                 : request_fault_set(r->fault, 400, "missing_required_parameter",
                                     "response_format.json_schema",
                                     "`response_format.json_schema` is missing");
    if (!only_keys(r, "response_format.json_schema", v, known, 4))
        return false;
    for (int i = 2; i < 4; i++) {
        const json_t *text = given(v, known[i]);

        snprintf(name, sizeof name, "response_format.json_schema.%s", known[i]);
        if (text && !json_is_string(text))
            return wrong_type(r->fault, name, "a text", text);
    }
    if (strict && !read_bool(r, "response_format.json_schema.strict", strict, &r->request->form_closed))
        return false;
    if (!schema)
        return request_fault_set(r->fault, 400, "missing_required_parameter",
                                 "response_format.json_schema.schema",
                                 "`response_format.json_schema.schema` is missing");
    return set_form(r, "response_format", REQUEST_SCHEMA) &&
           keep_schema(r, "response_format.json_schema.schema", schema, false);
}

static bool read_response_format(struct reading *r, const char *name, const json_t *v)
{
    static const char *const known[] = { "type", "json_schema" };
    const json_t *type = given(v, known[0]), *schema = given(v, known[1]);

    if (!json_is_object(v))
        return wrong_type(r->fault, name, "an object with \"type\"", v);
    if (!only_keys(r, name, v, known, 2))
        return false;
    if (!type)
        return request_fault_set(r->fault, 400, "missing_required_parameter", "response_format.type",
                                 "`response_format.type` is missing");
    if (!json_is_string(type))
        return wrong_type(r->fault, "response_format.type", "a text", type);
    if (is_word(type, "json_schema"))
        return read_json_schema(r, schema);
    if (schema)
        return request_fault_set(r->fault, 400, "invalid_value", "response_format.json_schema",
                                 "`response_format.json_schema` needs `type`: json_schema");
    if (is_word(type, "text"))
        return true;
    if (is_word(type, "json_object"))
        return set_form(r, name, REQUEST_JSON_OBJECT);
    return request_fault_set(
        r->fault, 400, "unsupported_value", "response_format.type",
        "`response_format.type`: `%.40s` is not supported; expected text, json_object or "
        "json_schema",
        json_string_value(type));
}

static bool read_stream(struct reading *r, const char *name, const json_t *v)
{
    bool value;

    if (!read_bool(r, name, v, &value))
        return false;
    return !value || request_fault_set(r->fault, 400, "unsupported_value", name,
                                       "`stream`: only false is supported: a batch has no one to stream to");
}

static bool read_echo(struct reading *r, const char *name, const json_t *v)
{
    return read_bool(r, name, v, &r->request->echo);
}

static bool read_chat_logprobs(struct reading *r, const char *name, const json_t *v)
{
    return read_bool(r, name, v, &r->request->logprobs);
}

static bool read_top_logprobs(struct reading *r, const char *name, const json_t *v)
{
    json_int_t value = 0;

    if (!read_integer(r, name, v, 0, REQUEST_TOP_LOGPROBS_MAX, &value))
        return false;
    r->request->top_logprobs = (int32_t)value;
    r->top_logprobs_given = true;
    return true;
}

static bool read_completion_logprobs(struct reading *r, const char *name, const json_t *v)
{
    r->request->logprobs = true;
    return read_top_logprobs(r, name, v);
}

/* ---- messages
 * ------------------------------------------------------------------------------------------------------ */

/* {"type": "text", "text": "..."} */
static bool part_text(struct reading *r, const char *name, const json_t *part, const json_t **text)
{
    static const char *const known[] = { "type", "text" };
    const json_t *type = json_object_get(part, "type");
    const char *key;
    char param[256];
    json_t *v;

    if (!json_is_object(part))
        return wrong_type(r->fault, name, "an object with \"type\" and \"text\"", part);
    *text = json_object_get(part, "text");
    snprintf(param, sizeof param, "%s.type", name);
    if (!json_is_string(type))
        return type ? wrong_type(r->fault, param, "a text", type)
                    : request_fault_set(r->fault, 400, "missing_required_parameter", param, "`%s` is missing",
                                        param);
    if (!is_word(type, "text"))
        return request_fault_set(r->fault, 400, "unsupported_value", param,
                                 "`%s`: `%.40s` is not supported; expected text", param,
                                 json_string_value(type));
    json_object_foreach((json_t *)(uintptr_t)part, key, v)
    {
        if (json_is_null(v) || strcmp(key, known[0]) == 0 || strcmp(key, known[1]) == 0)
            continue;
        snprintf(param, sizeof param, "%s.%.60s", name, key);
        return request_fault_set(r->fault, 400, "unsupported_parameter", param, "`%s` is not supported",
                                 param);
    }
    snprintf(param, sizeof param, "%s.text", name);
    if (!*text)
        return request_fault_set(r->fault, 400, "missing_required_parameter", param, "`%s` is missing",
                                 param);
    return json_is_string(*text) || wrong_type(r->fault, param, "a text", *text);
}

static bool read_content(struct reading *r, const char *name, const json_t *v, struct span *content)
{
    const json_t *part, *text = NULL;
    char part_name[96 + 32];
    size_t i, size = 0;
    char *joined;

    if (json_is_string(v))
        return keep_text(r, v, content);
    if (!json_is_array(v))
        return wrong_type(r->fault, name, "a text or a list of text parts", v);
    json_array_foreach(v, i, part)
    {
        snprintf(part_name, sizeof part_name, "%s[%zu]", name, i);
        if (!part_text(r, part_name, part, &text))
            return false;
        size += json_string_length(text);
    }
    joined = arena_take(r->arena, size + 1);
    if (!joined)
        return no_room(r->fault);
    *content = span_of(joined, size);
    json_array_foreach(v, i, part)
    {
        text = json_object_get(part, "text");
        memcpy(joined, json_string_value(text), json_string_length(text));
        joined += json_string_length(text);
    }
    return true;
}

static const char *const roles[] = { "system", "user", "assistant" };

static bool read_message(struct reading *r, size_t i, const json_t *v, struct request_message *message)
{
    static const char *const known[] = { "role", "content" };
    const json_t *role = json_object_get(v, "role"), *content = json_object_get(v, "content");
    char name[96];
    const char *key;
    json_t *field;

    snprintf(name, sizeof name, "messages[%zu]", i);
    if (!json_is_object(v))
        return wrong_type(r->fault, name, "an object with \"role\" and \"content\"", v);
    json_object_foreach((json_t *)(uintptr_t)v, key, field)
    {
        const char *nearest;

        if (strcmp(key, known[0]) == 0 || strcmp(key, known[1]) == 0 || json_is_null(field))
            continue;
        snprintf(name, sizeof name, "messages[%zu].%.60s", i, key);
        nearest = err_nearest(key, known, 2);
        return request_fault_set(r->fault, 400, "unsupported_parameter", name, "`%s` is not supported%s%s%s",
                                 name, nearest ? " (did you mean `" : "", nearest ? nearest : "",
                                 nearest ? "`?)" : "");
    }
    snprintf(name, sizeof name, "messages[%zu].role", i);
    if (!role)
        return request_fault_set(r->fault, 400, "missing_required_parameter", name, "`%s` is missing", name);
    if (!json_is_string(role))
        return wrong_type(r->fault, name, "a text", role);
    for (int k = 0;; k++) {
        if (k == 3)
            return request_fault_set(r->fault, 400, "invalid_value", name,
                                     "`%s`: `%.40s` is not supported; expected system, user or assistant",
                                     name, json_string_value(role));
        if (is_word(role, roles[k])) {
            message->role = (enum request_role)k;
            break;
        }
    }
    snprintf(name, sizeof name, "messages[%zu].content", i);
    if (!content)
        return request_fault_set(r->fault, 400, "missing_required_parameter", name, "`%s` is missing", name);
    return read_content(r, name, content, &message->content);
}

static bool read_messages(struct reading *r, const char *name, const json_t *v)
{
    size_t count = json_array_size(v);

    if (!json_is_array(v))
        return wrong_type(r->fault, name, "a list of messages", v);
    if (count == 0 || count > REQUEST_MESSAGES_MAX)
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s`: expected 1..%d messages, found %zu", name, REQUEST_MESSAGES_MAX,
                                 count);
    r->request->message = arena_take(r->arena, count * sizeof *r->request->message);
    if (!r->request->message)
        return no_room(r->fault);
    r->request->message_count = count;
    for (size_t i = 0; i < count; i++)
        if (!read_message(r, i, json_array_get(v, i), &r->request->message[i]))
            return false;
    return true;
}

/* ---- prompts
 * -------------------------------------------------------------------------------------------------------- */

static bool read_prompt(struct reading *r, const char *name, const json_t *v)
{
    struct request *q = r->request;
    size_t count = json_array_size(v);
    char item_name[64];

    if (json_is_string(v))
        return keep_text(r, v, &q->prompt);
    if (!json_is_array(v))
        return wrong_type(r->fault, name, "a text or a list of token ids", v);
    if (json_is_string(json_array_get(v, 0)) || json_is_array(json_array_get(v, 0)))
        return request_fault_set(
            r->fault, 400, "unsupported_value", name,
            "`%s`: several prompts in one request are not supported; give each its own line", name);
    if (count == 0 || count > REQUEST_PROMPT_IDS_MAX)
        return request_fault_set(r->fault, 400, "invalid_value", name,
                                 "`%s`: expected 1..%d token ids, found %zu", name, REQUEST_PROMPT_IDS_MAX,
                                 count);
    q->prompt_id = arena_take(r->arena, count * sizeof *q->prompt_id);
    if (!q->prompt_id)
        return no_room(r->fault);
    q->prompt_id_count = count;
    for (size_t i = 0; i < count; i++) {
        json_int_t id = 0;

        snprintf(item_name, sizeof item_name, "prompt[%zu]", i);
        if (!read_integer(r, item_name, json_array_get(v, i), 0, INT32_MAX, &id))
            return false;
        q->prompt_id[i] = (int32_t)id;
    }
    return true;
}

/* ---- a body
 * ------------------------------------------------------------------------------------------------------------
 */

enum { IN_CHAT = 1, IN_COMPLETION = 2, IN_BOTH = 3 };

static const struct {
    const char *name;
    int where;
    read_field *read;
} fields[] = {
    { "model", IN_BOTH, read_model },
    { "messages", IN_CHAT, read_messages },
    { "prompt", IN_COMPLETION, read_prompt },
    { "max_tokens", IN_BOTH, read_max_tokens },
    { "max_completion_tokens", IN_CHAT, read_max_tokens },
    { "temperature", IN_BOTH, read_temperature },
    { "top_p", IN_BOTH, read_top_p },
    { "top_k", IN_BOTH, read_top_k },
    { "min_p", IN_BOTH, read_min_p },
    { "presence_penalty", IN_BOTH, read_presence_penalty },
    { "frequency_penalty", IN_BOTH, read_frequency_penalty },
    { "repetition_penalty", IN_BOTH, read_repetition_penalty },
    { "logit_bias", IN_BOTH, read_logit_bias },
    { "stop_token_ids", IN_BOTH, read_stop_token_ids },
    { "ignore_eos", IN_BOTH, read_ignore_eos },
    { "repetition_detection", IN_BOTH, read_repetition_detection },
    { "response_format", IN_BOTH, read_response_format },
    { "guided_json", IN_BOTH, read_guided_json },
    { "guided_choice", IN_BOTH, read_guided_choice },
    { "guided_regex", IN_BOTH, read_guided_regex },
    { "structured_outputs", IN_BOTH, read_structured_outputs },
    { "seed", IN_BOTH, read_seed },
    { "stop", IN_BOTH, read_stop },
    { "n", IN_BOTH, read_n },
    { "stream", IN_BOTH, read_stream },
    { "echo", IN_COMPLETION, read_echo },
    { "logprobs", IN_CHAT, read_chat_logprobs },
    { "logprobs", IN_COMPLETION, read_completion_logprobs },
    { "top_logprobs", IN_CHAT, read_top_logprobs },
};
enum { FIELD_COUNT = sizeof fields / sizeof fields[0] };

/* Fields that other services know: so that nobody is told to mean another one. */
static const char *const elsewhere[] = {
    "audio",
    "bad_words",
    "best_of",
    "chat_template",
    "chat_template_kwargs",
    "documents",
    "extra_body",
    "function_call",
    "functions",
    "guided_grammar",
    "include_stop_str_in_output",
    "length_penalty",
    "logits_processors",
    "metadata",
    "min_tokens",
    "modalities",
    "parallel_tool_calls",
    "prediction",
    "priority",
    "prompt_logprobs",
    "reasoning_effort",
    "service_tier",
    "skip_special_tokens",
    "store",
    "stream_options",
    "suffix",
    "tool_choice",
    "tools",
    "use_beam_search",
    "user",
    "verbosity",
    "web_search_options",
};

static bool refuse_field(struct reading *r, const char *name, int where)
{
    const char *url = where == IN_CHAT ? CHAT_URL : COMPLETION_URL;
    const char *names[FIELD_COUNT], *nearest;
    int count = 0;

    for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++)
        if (strcmp(name, elsewhere[i]) == 0)
            return request_fault_set(r->fault, 400, "unsupported_parameter", name, "`%s` is not supported",
                                     name);
    for (int i = 0; i < FIELD_COUNT; i++) {
        if (fields[i].where & where)
            names[count++] = fields[i].name;
        else if (strcmp(fields[i].name, name) == 0)
            return request_fault_set(r->fault, 400, "unknown_parameter", name, "`%s` is not a field of %s",
                                     name, url);
    }
    nearest = err_nearest(name, names, count);
    return request_fault_set(r->fault, 400, "unknown_parameter", name, "unknown field `%.100s`%s%s%s", name,
                             nearest ? " (did you mean `" : "", nearest ? nearest : "", nearest ? "`?)" : "");
}

static bool read_one(struct reading *r, const char *name, const json_t *v, int where)
{
    for (int i = 0; i < FIELD_COUNT; i++)
        if ((fields[i].where & where) && strcmp(fields[i].name, name) == 0)
            return json_is_null(v) || fields[i].read(r, fields[i].name, v);
    if (json_is_null(v)) /* a client that spells out what it leaves open changes nothing */
        for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++)
            if (strcmp(name, elsewhere[i]) == 0)
                return true;
    return refuse_field(r, name, where);
}

static bool missing(struct reading *r, const char *name)
{
    return request_fault_set(r->fault, 400, "missing_required_parameter", name, "`%s` is missing", name);
}

/* What fields mean together. */
static bool check_together(struct reading *r)
{
    struct request *q = r->request;

    if (q->kind == REQUEST_CHAT && !q->message)
        return missing(r, "messages");
    if (q->kind == REQUEST_COMPLETION && !q->prompt_id && !q->prompt.data)
        return missing(r, "prompt");
    if (!q->tokens_field)
        q->max_tokens = q->kind == REQUEST_CHAT ? -1 : REQUEST_COMPLETION_TOKENS;
    if (q->max_tokens == 0 && !q->echo)
        return request_fault_set(r->fault, 400, "invalid_value", q->tokens_field,
                                 "`%s`: expected at least 1, found 0%s", q->tokens_field,
                                 q->kind == REQUEST_COMPLETION ? " (0 is for scoring a prompt, with `echo`)"
                                                               : "");
    if (r->top_logprobs_given && !q->logprobs)
        return request_fault_set(r->fault, 400, "invalid_value", "top_logprobs",
                                 "`top_logprobs` needs `logprobs`: true");
    if (q->form_field && (q->stop_count || q->stop_id_count))
        return request_fault_set(r->fault, 400, "invalid_value", q->stop_count ? "stop" : "stop_token_ids",
                                 "`%s` does not go together with `%s`: it could cut what has a form",
                                 q->stop_count ? "stop" : "stop_token_ids", q->form_field);
    return true;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* on: a bit for each schema_path whose first `depth` names lead to v. */
static bool write_canonical(struct buf *out, const json_t *v, int depth, unsigned on,
                            const struct wides *wides)
{
    const char **keys, *key;
    size_t count = 0;
    json_t *value;
    bool ok;

    for (int i = 0; i < SCHEMA_PATHS; i++)
        if (on >> i & 1 && !schema_path[i][depth])
            return write_ordered(out, v, wides);
    /* 17 digits give every number back exactly, whatever jansson's own default is. */
    if (!on || !json_is_object(v))
        return buf_json(out, v, JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    keys = malloc((json_object_size(v) + 1) * sizeof *keys);
    if (!keys)
        return false;
    json_object_foreach((json_t *)(uintptr_t)v, key, value) keys[count++] = key;
    qsort(keys, count, sizeof *keys, compare_keys);
    ok = buf_add(out, "{", 1);
    for (size_t k = 0; ok && k < count; k++) {
        unsigned further = 0;

        for (int i = 0; i < SCHEMA_PATHS; i++)
            if (on >> i & 1 && strcmp(schema_path[i][depth], keys[k]) == 0)
                further |= 1u << i;
        value = json_string(keys[k]);
        ok = value && (k == 0 || buf_add(out, ",", 1)) && write_ordered(out, value, wides) &&
             buf_add(out, ":", 1) &&
             write_canonical(out, json_object_get(v, keys[k]), depth + 1, further, wides);
        json_decref(value);
    }
    free(keys);
    return ok && buf_add(out, "}", 1);
}

static bool keep_canonical(struct reading *r, const json_t *body)
{
    struct buf text = { .max = 2 * (size_t)REQUEST_LINE_MAX };
    bool ok = write_canonical(&text, body, 0, (1u << SCHEMA_PATHS) - 1, r->wides);
    char *copy = ok ? arena_copy(r->arena, text.data, text.size) : NULL;

    r->request->body = span_of(copy, text.size);
    buf_fini(&text);
    return copy || no_room(r->fault);
}

static bool read_url(struct request *request, struct span url, struct request_fault *fault)
{
    request->url = url;
    if (span_equal(url, span_text(CHAT_URL)))
        request->kind = REQUEST_CHAT;
    else if (span_equal(url, span_text(COMPLETION_URL)))
        request->kind = REQUEST_COMPLETION;
    else
        return request_fault_set(fault, 400, "invalid_url", "url",
                                 "`url`: `%.*s` is not supported; expected " CHAT_URL " or " COMPLETION_URL,
                                 url.size > 80 ? 80 : (int)url.size, (const char *)url.data);
    return true;
}

static bool read_body(struct arena *arena, json_t *body, const struct wides *wides, struct request *request,
                      struct request_fault *fault)
{
    struct reading r = { .arena = arena, .request = request, .fault = fault, .wides = wides };
    int where = request->kind == REQUEST_CHAT ? IN_CHAT : IN_COMPLETION;
    const char *name;
    json_t *v;

    request->temperature = 1;
    request->top_p = 1;
    request->repetition_penalty = 1;
    request->choices = 1;
    if (!json_is_object(body))
        return wrong_type(fault, "body", "an object", body);
    json_object_foreach(body, name, v) if (!read_one(&r, name, v, where)) return false;
    if (!check_together(&r) || !keep_canonical(&r, body))
        return false;
    if (!request->seed_given)
        request->seed = request_seed(request->body, request->custom_id);
    return true;
}

/* ---- a line
 * --------------------------------------------------------------------------------------------------------------
 */

static bool read_custom_id(struct arena *arena, const json_t *v, struct request *request,
                           struct request_fault *fault)
{
    size_t size = json_string_length(v);
    const char *text = json_string_value(v);
    char *copy;

    if (!v)
        return request_fault_set(fault, 400, "missing_required_parameter", "custom_id",
                                 "`custom_id` is missing");
    if (!json_is_string(v))
        return wrong_type(fault, "custom_id", "a text", v);
    if (size == 0 || size > REQUEST_ID_MAX)
        return request_fault_set(fault, 400, "invalid_value", "custom_id",
                                 "`custom_id`: expected 1..%d bytes, found %zu", REQUEST_ID_MAX, size);
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)text[i] < 0x20 || text[i] == 0x7f)
            return request_fault_set(fault, 400, "invalid_value", "custom_id",
                                     "`custom_id`: control character U+%04X at byte %zu", (unsigned)text[i],
                                     i);
    copy = arena_copy(arena, text, size);
    if (!copy)
        return no_room(fault);
    request->custom_id = span_of(copy, size);
    return true;
}

static bool read_line(struct arena *arena, json_t *line, const struct wides *wides, struct request *request,
                      struct request_fault *fault)
{
    static const char *const known[] = { "custom_id", "method", "url", "body" };
    const json_t *method = json_object_get(line, "method"), *url = json_object_get(line, "url");
    json_t *body = json_object_get(line, "body"), *v;
    const char *name;
    char *copy;

    if (!json_is_object(line))
        return request_fault_set(fault, 400, "invalid_type", NULL, "line: expected an object, found %s",
                                 found(line));
    if (!read_custom_id(arena, json_object_get(line, "custom_id"), request, fault))
        return false;
    if (!url)
        return request_fault_set(fault, 400, "missing_required_parameter", "url", "`url` is missing");
    if (!json_is_string(url))
        return wrong_type(fault, "url", "a text", url);
    copy = arena_copy(arena, json_string_value(url), json_string_length(url));
    if (!copy)
        return no_room(fault);
    if (!read_url(request, span_of(copy, json_string_length(url)), fault))
        return false;
    if (!method)
        return request_fault_set(fault, 400, "missing_required_parameter", "method", "`method` is missing");
    if (!json_is_string(method))
        return wrong_type(fault, "method", "POST", method);
    if (!is_word(method, "POST"))
        return request_fault_set(fault, 400, "invalid_value", "method",
                                 "`method`: expected POST, found `%.20s`", json_string_value(method));
    json_object_foreach(line, name, v)
    {
        const char *nearest = err_nearest(name, known, 4);
        bool listed = false;

        for (int i = 0; i < 4; i++)
            listed = listed || strcmp(name, known[i]) == 0;
        if (!listed && !json_is_null(v))
            return request_fault_set(
                fault, 400, "unknown_parameter", name, "unknown field `%.100s` of the line%s%s%s", name,
                nearest ? " (did you mean `" : "", nearest ? nearest : "", nearest ? "`?)" : "");
    }
    if (!body)
        return request_fault_set(fault, 400, "missing_required_parameter", "body", "`body` is missing");
    return read_body(arena, body, wides, request, fault);
}

/* Of a line that JSON refuses (a number out of range, NaN, a key twice, too deep): the custom_id, so that its
 * failure can be joined like any other.  Only where the line is one whole object that has one custom_id. */
static void find_custom_id(struct arena *arena, struct span line, struct request *request)
{
    static const char name[] = "\"custom_id\"";
    struct span value = { 0 };
    int depth = 0, named = 0;
    bool key = false, wanted = false;
    struct request_fault ignored;
    json_t *json;

    for (size_t i = 0, from; i < line.size; i++) {
        switch (line.data[i]) {
        case '"':
            for (from = i++; i < line.size && line.data[i] != '"'; i++)
                i += line.data[i] == '\\';
            if (i >= line.size)
                return;
            if (depth == 1 && key && i + 1 - from == sizeof name - 1 &&
                memcmp(line.data + from, name, sizeof name - 1) == 0) {
                named++;
                wanted = true;
            } else if (depth == 1 && !key && wanted) {
                value = span_of(line.data + from, i + 1 - from);
                wanted = false;
            }
            break;
        case '{':
        case '[':
            key = ++depth == 1;
            wanted = false;
            break;
        case '}':
        case ']':
            depth--;
            break;
        case ',':
            key = depth == 1;
            wanted = false;
            break;
        case ':':
            key = false;
            break;
        }
    }
    if (depth != 0 || named != 1 || !value.size)
        return;
    json = json_loadb((const char *)value.data, value.size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (json)
        read_custom_id(arena, json, request, &ignored);
    json_decref(json);
}

bool request_read(struct arena *arena, struct span line, struct request *request, struct request_fault *fault)
{
    struct wides wides = { 0 };
    json_t *json;
    bool ok;

    *request = (struct request){ 0 };
    json = parse(line, true, &wides, fault);
    if (!json)
        find_custom_id(arena, line, request);
    ok = json && read_line(arena, json, &wides, request, fault);
    json_decref(json);
    wides_fini(&wides);
    return ok;
}

bool request_read_body(struct arena *arena, struct span url, struct span custom_id, struct span body,
                       struct request *request, struct request_fault *fault)
{
    struct wides wides = { 0 };
    json_t *json;
    bool ok;

    *request = (struct request){ .custom_id = custom_id };
    if (!read_url(request, url, fault))
        return false;
    json = parse(body, false, &wides, fault);
    ok = json && read_body(arena, json, &wides, request, fault);
    json_decref(json);
    wides_fini(&wides);
    return ok;
}

/* ---- what is made of it
 * ------------------------------------------------------------------------------------------------------ */

/* BLAKE2b over parts with a zero byte between them. */
static void hash(uint8_t *digest, size_t size, const struct span *part, int part_count)
{
    crypto_generichash_state state;

    crypto_generichash_init(&state, NULL, 0, size);
    for (int i = 0; i < part_count; i++) {
        if (i > 0)
            crypto_generichash_update(&state, (const uint8_t *)"", 1);
        crypto_generichash_update(&state, part[i].data, part[i].size);
    }
    crypto_generichash_final(&state, digest, size);
}

int64_t request_seed(struct span body, struct span custom_id)
{
    struct span part[] = { body, custom_id };
    uint8_t digest[32];
    uint64_t seed = 0;

    hash(digest, sizeof digest, part, 2);
    for (int i = 7; i >= 0; i--)
        seed = seed << 8 | digest[i];
    return (int64_t)(seed & INT64_MAX);
}

static void write_id(char id[REQUEST_JOB_ID_SIZE], const struct span *part, int part_count)
{
    uint8_t digest[64];

    hash(digest, sizeof digest, part, part_count);
    sodium_bin2hex(id, REQUEST_JOB_ID_SIZE, digest, (REQUEST_JOB_ID_SIZE - 1) / 2);
}

void request_job_id(char id[REQUEST_JOB_ID_SIZE], struct span batch, struct span custom_id)
{
    struct span part[] = { batch, custom_id };

    write_id(id, part, 2);
}

void request_line_id(char id[REQUEST_JOB_ID_SIZE], struct span batch, uint64_t line)
{
    char number[24];
    struct span part[] = { batch, span_of("", 0),
                           span_of(number, (size_t)snprintf(number, sizeof number, "%" PRIu64, line)) };

    write_id(id, part, 3);
}

void request_digest(uint8_t digest[32], const struct request *request)
{
    struct span part[] = { request->url, request->custom_id, request->body };

    hash(digest, 32, part, 3);
}
