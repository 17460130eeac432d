/* extract - documents in, rows out: what a JSON Schema describes, with the places where it was found. */

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/files.h"
#include "client/merge.h"
#include "client/pipeline.h"
#include "client/rows.h"
#include "client/say.h"
#include "client/spans.h"
#include "client/table.h"
#include "worker/model/schema.h"

enum {
    OVERLAP_TOKENS = 64,
    MAX_TOKENS = 1024,
    MANY_MAX_TOKENS = 4096,
    POINTER_DEPTH_MAX = 64, /* of "$ref" to "$ref" at the schema's root */
};
#define ELSEWHERE_BYTES_MAX (UINT64_C(4) << 30) /* of a document, times its strings, that are searched */

static const char *const formats[] = { "jsonl", "csv", NULL };

struct options {
    struct pipeline_options common;
    char schema[RECORD_PATH_MAX], merge[1 << 14];
    int format;
    bool many, dry_run;
};

static const struct field fields[] = {
    { "schema", OPTION_TEXT(struct options, schema),
      "JSON Schema of a row; its `description` is the instruction" },
    PIPELINE_FIELDS_IN(struct options),
    { "many", OPTION_FLAG(struct options, many), "a document has any number of rows, each its own line" },
    { "merge", OPTION_TEXT(struct options, merge),
      "FIELD=RULE,...: one row out of several pieces' (first, all, union, longest, vote)" },
    { "format", OPTION_CHOICE(struct options, format, formats), "jsonl (default) or csv" },
    { "dry_run", OPTION_FLAG(struct options, dry_run),
      "count documents, tokens and pieces, measure on the first few, write nothing" },
    PIPELINE_FIELDS_AFTER(struct options),
};

struct extract {
    struct options options;
    struct pipeline pipeline;
    struct buf schema_text;
    json_t *schema;
    const json_t *columns; /* its properties */
    struct buf form, header, instruction;
};

/* ---- the schema ----------------------------------------------------------------------------------- */

static bool is_one_of(const char *key, const char *const *words)
{
    for (; *words; words++)
        if (!strcmp(key, *words))
            return true;
    return false;
}

/* In an array's `items` it is no longer the root, so what refers to the root refers to there.  named: the
 * keys are names of schemas, not keywords. */
static bool move_refs(json_t *value, bool named)
{
    static const char *const maps[] = { "properties", "$defs", "definitions", "patternProperties", NULL };
    static const char *const instances[] = { "const", "enum", "default", "examples", NULL };
    const char *key;
    size_t i;
    json_t *item, *ref;
    struct buf moved = { 0 };
    bool ok = true;

    if (json_is_array(value)) {
        json_array_foreach(value, i, item) ok = ok && move_refs(item, false);
        return ok;
    }
    ref = named ? NULL : json_object_get(value, "$ref");
    if (json_is_string(ref) && json_string_value(ref)[0] == '#') {
        ok = buf_text(&moved, "#/items") && buf_text(&moved, json_string_value(ref) + 1) &&
             json_object_set_new(value, "$ref", json_stringn((const char *)moved.data, moved.size)) == 0;
        buf_fini(&moved);
    }
    json_object_foreach(value, key, item) if (named || !is_one_of(key, instances)) ok =
        ok && move_refs(item, !named && is_one_of(key, maps));
    return ok;
}

/* What describes the row's columns: the schema's properties, or those of what its root refers to; NULL: a row
 * has none. */
static const json_t *find_columns(const json_t *schema)
{
    const json_t *at = schema, *ref;

    for (int depth = 0; depth < POINTER_DEPTH_MAX; depth++) {
        const char *path;

        if (json_is_object(json_object_get(at, "properties")))
            return json_object_get(at, "properties");
        ref = json_object_get(at, "$ref");
        if (!json_is_string(ref) || strncmp(json_string_value(ref), "#/", 2) != 0)
            return NULL;
        path = json_string_value(ref) + 1;
        at = schema;
        while (at && *path) {
            size_t n = strcspn(++path, "/");

            at = json_object_getn(at, path, n);
            path += n;
        }
    }
    return NULL;
}

static bool read_schema(struct extract *extract, struct err *err)
{
    const struct options *o = &extract->options;
    struct schema_options closed = { .closed = true };
    struct grammar_builder *builder;
    grammar_node root;
    json_error_t why;
    json_t *array;
    bool ok;

    if (!*o->schema)
        return err_set(err, ERR_INPUT, "no schema: expected --schema FILE, a JSON Schema of one row");
    if (!file_read(o->schema, SCHEMA_BYTES_MAX, &extract->schema_text, err))
        return err_wrap(err, "--schema");
    /* First as it was written, so that what is wrong with it is said of the user's own text. */
    builder = grammar_builder_new();
    if (!builder)
        return err_set(err, ERR_IO, "no memory for a grammar");
    ok = schema_read(builder, buf_span(&extract->schema_text), &closed, &root, err);
    grammar_builder_free(builder);
    if (!ok)
        return err_wrap(err, "--schema %.300s", o->schema);
    extract->schema =
        json_loadb((const char *)extract->schema_text.data, extract->schema_text.size, JSON_DECODE_ANY, &why);
    /* An integer beyond 64 bits, a maximum most likely: the text goes to the model as it is, and here only
     * its names matter.  But a schema that is put into another would not keep it. */
    if (!extract->schema && o->many)
        return err_set(err, ERR_INPUT, "--schema %.300s: line %d: with --many: %.150s", o->schema, why.line,
                       why.text);
    if (!extract->schema)
        extract->schema = json_loadb((const char *)extract->schema_text.data, extract->schema_text.size,
                                     JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &why);
    if (!json_is_object(extract->schema))
        return err_set(err, ERR_INPUT, "--schema %.300s: #: expected an object, which describes a row",
                       o->schema);
    extract->columns = find_columns(extract->schema);
    if (o->format == 1 && !json_object_size(extract->columns))
        return err_set(err, ERR_INPUT,
                       "--schema %.300s: #: no `properties`, which are the columns of --format csv",
                       o->schema);
    if (!o->many)
        return true;
    array = json_pack("{s:s,s:o}", "type", "array", "items", json_deep_copy(extract->schema));
    extract->schema_text.size = 0;
    ok =
        array && move_refs(json_object_get(array, "items"), false) && row_write(&extract->schema_text, array);
    json_decref(array);
    return ok || err_set(err, ERR_IO, "no memory for the schema");
}

static bool make_instruction(struct extract *extract, struct err *err)
{
    const struct options *o = &extract->options;
    const json_t *description = json_object_get(extract->schema, "description");
    struct buf *words = &extract->instruction;
    const char *name;
    json_t *value;
    bool ok = true, first = true;

    if (*o->common.instruction)
        ok = buf_text(words, o->common.instruction);
    else if (json_is_string(description) && json_string_length(description))
        ok = buf_text(words, json_string_value(description));
    else if (!json_object_size(extract->columns)) {
        return err_set(err, ERR_INPUT,
                       "--schema %.300s: #: neither `description` nor `properties` says what to extract; "
                       "expected one of them, or --instruction",
                       o->schema);
    } else {
        ok = buf_text(words, o->many
                                 ? "Extract these fields as a JSON array, an object for each that there is: "
                                 : "Extract these fields as JSON: ");
        json_object_foreach((json_t *)(uintptr_t)extract->columns, name, value)
        {
            ok = ok && (first || buf_text(words, ", ")) && buf_text(words, name);
            first = false;
        }
        ok = ok && buf_text(words, ".");
    }
    if (!ok || !buf_add(words, "", 1))
        return err_set(err, ERR_IO, "no memory for the instruction");
    extract->pipeline.instruction = (const char *)words->data;
    return true;
}

/* The budget: what was asked for, or enough for most; never less than the shortest row takes. */
static bool set_budget(struct extract *extract, struct err *err)
{
    struct pipeline *pipeline = &extract->pipeline;
    const struct options *o = &extract->options;
    struct schema_options closed = { .closed = true };
    struct vocabulary *vocabulary;
    struct grammar *grammar;
    int32_t usual = o->many ? MANY_MAX_TOKENS : MAX_TOKENS, least = 0;

    if (pipeline->tokenizer) {
        vocabulary = vocabulary_new(pipeline->tokenizer, tokenizer_size(pipeline->tokenizer));
        if (!vocabulary)
            return err_set(err, ERR_IO, "no memory for the vocabulary");
        if (!structured_grammar(&grammar, STRUCTURED_SCHEMA, buf_span(&extract->schema_text), &closed,
                                vocabulary, err)) {
            vocabulary_free(vocabulary);
            return err_wrap(err, "--schema %.300s", o->schema);
        }
        least = grammar_minimum(grammar);
        grammar_free(grammar);
        vocabulary_free(vocabulary);
        if (usual > pipeline->context / 4)
            usual = pipeline->context / 4;
        if (usual < least)
            usual = least;
    }
    pipeline->max_tokens = o->common.max_tokens ? (int32_t)o->common.max_tokens : usual;
    if (pipeline->max_tokens < least)
        return err_set(err, ERR_INPUT,
                       "--max-tokens %" PRId32 ": the shortest row of this schema takes %" PRId32 " tokens",
                       pipeline->max_tokens, least);
    return true;
}

/* ---- a document's rows
 * ---------------------------------------------------------------------------------------- */

struct piece {
    uint64_t byte, chars;
    size_t size;
};

struct row {
    json_t *row;
    uint32_t chunk; /* with --many: all of it is of this one */
    json_t *spans;
};

/* A value to be found in its chunk. */
struct lookup {
    uint32_t chunk;
    size_t row, order;
    char *pointer;
    const json_t *value; /* the row's */
    struct found found;
    bool here; /* it was found in that chunk */
};

struct extracted {
    struct merge *merge; /* not with --many */
    struct piece *piece;
    size_t pieces, piece_room;
    struct row *row;
    size_t rows, row_room;
    size_t before; /* --many: the first row of the chunk before */
    bool listed;   /* lookups are */
    struct lookup *lookup;
    size_t lookups, lookup_room, looked;
    bool everywhere;      /* what does not stand in its own chunk is looked up in the others, too */
    uint32_t chunk_after; /* those that were searched */
    struct buf window;    /* of the document, from window_byte */
    uint64_t window_byte;
};

static bool grow(void **list, size_t *room, size_t count, size_t size)
{
    size_t more = *room ? 2 * *room : 16;
    void *grown;

    if (count < *room)
        return true;
    grown = realloc(*list, more * size);
    if (!grown)
        return false;
    *list = grown;
    *room = more;
    return true;
}

static bool begin(struct pipeline *pipeline, struct unit *unit)
{
    struct extract *extract = pipeline->own;
    struct extracted *own = calloc(1, sizeof *own);
    struct err err;

    unit->own = own;
    if (own && !extract->options.many &&
        !merge_new(&own->merge, extract->schema, *extract->options.merge ? extract->options.merge : NULL,
                   &err)) {
        free(own);
        unit->own = NULL;
    }
    return unit->own != NULL;
}

static void end(struct unit *unit)
{
    struct extracted *own = unit->own;

    merge_free(own->merge);
    for (size_t i = 0; i < own->rows; i++) {
        json_decref(own->row[i].row);
        json_decref(own->row[i].spans);
    }
    for (size_t i = 0; i < own->lookups; i++)
        free(own->lookup[i].pointer);
    free(own->lookup);
    free(own->row);
    free(own->piece);
    buf_fini(&own->window);
    free(own);
}

static bool chunk(struct pipeline *pipeline, struct unit *unit, const struct chunk *chunk_)
{
    struct extracted *own = unit->own;

    (void)pipeline;
    if (!grow((void **)&own->piece, &own->piece_room, own->pieces, sizeof *own->piece))
        return false;
    own->piece[own->pieces++] =
        (struct piece){ .byte = chunk_->byte, .chars = chunk_->chars, .size = chunk_->text.size };
    return true;
}

static bool add_row(struct extracted *own, json_t *row, uint32_t number, struct err *err)
{
    if (!grow((void **)&own->row, &own->row_room, own->rows, sizeof *own->row)) {
        json_decref(row);
        return err_set(err, ERR_IO, "no memory for a document's rows");
    }
    own->row[own->rows++] = (struct row){ .row = row, .chunk = number };
    return true;
}

/* Where pieces overlap, a row may be found in both: what the piece before has said already is left out. */
static bool add_many(struct pipeline *pipeline, struct extracted *own, const json_t *answer, uint32_t number,
                     struct err *err)
{
    size_t first = own->before, last = own->rows, i;
    json_t *row;

    own->before = last;
    json_array_foreach(answer, i, row)
    {
        bool known = false;

        for (size_t k = first; pipeline->limits.overlap && k < last && !known; k++)
            known = json_equal(own->row[k].row, row);
        if (!known && !add_row(own, json_incref(row), number, err))
            return false;
    }
    return true;
}

static bool answer(struct pipeline *pipeline, struct unit *unit, uint32_t level, uint32_t number,
                   struct span text, struct err *err)
{
    struct extract *extract = pipeline->own;
    struct extracted *own = unit->own;
    json_error_t why;
    json_t *root = json_loadb((const char *)text.data, text.size, JSON_ALLOW_NUL | JSON_DECODE_ANY, &why);
    char message[300];
    bool ok = true;

    (void)level;
    if (!root || (extract->options.many && !json_is_array(root))) {
        snprintf(message, sizeof message, "piece %" PRIu32 ": the answer is no row: %.160s", number + 1,
                 root ? "another kind of JSON" : why.text);
        unit_fail(unit, 0, "", "bad_answer", message);
    } else if (extract->options.many) {
        ok = add_many(pipeline, own, root, number, err);
    } else {
        ok = merge_add(own->merge, root, number, err);
        if (!ok && err->code != ERR_IO) { /* a bound: of this document alone */
            unit_fail(unit, 0, "", "bad_answer", err->text);
            err->code = ERR_NONE;
            ok = true;
        }
    }
    json_decref(root);
    return ok;
}

static bool advance(struct pipeline *pipeline, struct unit *unit, bool *done, struct err *err)
{
    (void)pipeline;
    (void)err;
    *done = unit->chunked && !unit->open;
    return true;
}

/* ---- where it was found
 * ----------------------------------------------------------------------------------------- */

/* Every string and number in a value; from: which chunk each came from, or NULL where all came from one. */
static bool list_values(struct extracted *own, size_t row, const json_t *value, const json_t *from,
                        uint32_t chunk_, struct buf *pointer)
{
    size_t size = pointer->size, i, n;
    const char *key;
    char index[24];
    json_t *item;
    bool ok = true;

    if (json_is_object(value)) {
        json_object_keylen_foreach((json_t *)(uintptr_t)value, key, n, item)
        {
            ok = ok && row_pointer_add(pointer, key, n) && list_values(own, row, item, from, chunk_, pointer);
            pointer->size = size;
        }
        return ok;
    }
    if (json_is_array(value)) {
        json_array_foreach(value, i, item)
        {
            snprintf(index, sizeof index, "%zu", i);
            ok = ok && row_pointer_add(pointer, index, strlen(index)) &&
                 list_values(own, row, item, from, chunk_, pointer);
            pointer->size = size;
        }
        return ok;
    }
    if (!json_is_number(value) && !(json_is_string(value) && json_string_length(value)))
        return true;
    if (!grow((void **)&own->lookup, &own->lookup_room, own->lookups, sizeof *own->lookup))
        return false;
    {
        struct lookup *lookup = &own->lookup[own->lookups];

        *lookup = (struct lookup){ .chunk = chunk_,
                                   .row = row,
                                   .order = own->lookups,
                                   .value = value,
                                   .found = { .label = SPAN_NOT_FOUND } };
        lookup->pointer = strndup(size ? (const char *)pointer->data : "", size);
        if (!lookup->pointer)
            return false;
        own->lookups++;
        item = json_object_get(from, lookup->pointer);
        if (json_is_integer(item))
            lookup->chunk = (uint32_t)json_integer_value(item);
    }
    return true;
}

static int by_chunk(const void *a, const void *b)
{
    const struct lookup *x = a, *y = b;

    if (x->chunk != y->chunk)
        return x->chunk < y->chunk ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static int by_order(const void *a, const void *b)
{
    const struct lookup *x = a, *y = b;

    return x->order < y->order ? -1 : x->order > y->order;
}

static bool list_lookups(struct pipeline *pipeline, struct unit *unit, struct err *err)
{
    struct extract *extract = pipeline->own;
    struct extracted *own = unit->own;
    json_t *row, *from = NULL;
    struct buf pointer = { 0 };
    uint64_t strings = 0, bytes = 0;
    bool ok = true;

    own->listed = true;
    if (!extract->options.many) {
        if (!merge_take(own->merge, &row, &from, err) || !add_row(own, row, 0, err)) {
            json_decref(from);
            return false;
        }
    }
    for (size_t i = 0; ok && i < own->rows; i++)
        ok = list_values(own, i, own->row[i].row, from, own->row[i].chunk, &pointer);
    json_decref(from);
    buf_fini(&pointer);
    if (!ok)
        return err_set(err, ERR_IO, "no memory for a document's values");
    if (own->lookups)
        qsort(own->lookup, own->lookups, sizeof *own->lookup, by_chunk);
    for (size_t i = 0; i < own->lookups; i++)
        strings += json_is_string(own->lookup[i].value);
    for (size_t i = 0; i < own->pieces; i++)
        bytes += own->piece[i].size;
    own->everywhere = own->pieces > 1 && strings && strings <= ELSEWHERE_BYTES_MAX / (bytes + 1);
    return true;
}

/* A string that its own chunk does not have, and that this one may have. */
static void look_up_stray(struct lookup *lookup, const struct span_text *prepared, uint32_t number)
{
    struct found found;

    if (lookup->chunk == number || lookup->here || lookup->found.label == SPAN_EXACT ||
        !json_is_string(lookup->value))
        return;
    found = span_find(prepared, span_of(json_string_value(lookup->value), json_string_length(lookup->value)));
    if (found.label < lookup->found.label)
        lookup->found = found;
}

/* All lookups of a chunk, and those that were not found yet; its bytes are at the window's start. */
static bool look_up(struct extracted *own, uint32_t number, struct err *err)
{
    const struct piece *piece = &own->piece[number];
    struct found found;
    struct span_text *prepared;

    if (!span_text_new(&prepared, span_of(own->window.data, piece->size), piece->byte, piece->chars, err))
        return false;
    for (; own->looked < own->lookups && own->lookup[own->looked].chunk == number; own->looked++) {
        struct lookup *lookup = &own->lookup[own->looked];
        char text[40];

        if (json_is_string(lookup->value)) {
            found = span_find(prepared,
                              span_of(json_string_value(lookup->value), json_string_length(lookup->value)));
        } else {
            row_number(lookup->value, text);
            found = span_find_word(prepared, span_text(text));
        }
        lookup->here = found.label != SPAN_NOT_FOUND;
        if (lookup->here)
            lookup->found = found;
    }
    for (size_t i = 0; own->everywhere && i < own->lookups; i++)
        look_up_stray(&own->lookup[i], prepared, number);
    own->chunk_after = number + 1;
    span_text_free(prepared);
    return true;
}

static void drop(struct buf *window, size_t size)
{
    memmove(window->data, window->data + size, window->size - size);
    window->size -= size;
}

static bool again(struct pipeline *pipeline, struct unit *unit, uint64_t byte, struct span piece,
                  struct err *err)
{
    struct extracted *own = unit->own;

    if (!own->listed && !list_lookups(pipeline, unit, err))
        return false;
    while (own->everywhere ? own->chunk_after < own->pieces : own->looked < own->lookups) {
        uint32_t number = own->everywhere ? own->chunk_after : own->lookup[own->looked].chunk;
        const struct piece *wanted;
        uint64_t window_end;

        if (number >= own->pieces) { /* merge knows no other chunks than ours */
            own->looked++;
            continue;
        }
        wanted = &own->piece[number];
        if (!own->window.size)
            own->window_byte = byte;
        window_end = own->window_byte + own->window.size;
        if (wanted->byte > own->window_byte && own->window.size) {
            size_t past =
                wanted->byte < window_end ? (size_t)(wanted->byte - own->window_byte) : own->window.size;

            drop(&own->window, past);
            own->window_byte += past;
            continue;
        }
        /* The window is empty, or begins where the chunk does. */
        if (window_end < byte + piece.size) {
            uint64_t from = window_end > wanted->byte ? window_end : wanted->byte;

            if (from >= byte + piece.size)
                return true; /* it begins later */
            if (!own->window.size)
                own->window_byte = from;
            if (!buf_add(&own->window, piece.data + (from - byte), (size_t)(byte + piece.size - from)))
                return err_set(err, ERR_IO, "no memory for a piece of a document");
        }
        if (own->window.size < wanted->size)
            return true; /* more of it is to come */
        if (!look_up(own, number, err))
            return false;
    }
    return true;
}

/* ---- lines
 * ---------------------------------------------------------------------------------------------------------
 */

static json_t *range(uint64_t from, uint64_t to)
{
    return json_pack("[I,I]", (json_int_t)from, (json_int_t)to);
}

/* In the order of the rows; strings with whatever was found, numbers where they were. */
static bool set_spans(struct extracted *own)
{
    for (size_t i = 0; i < own->rows; i++)
        if (!own->row[i].spans && !(own->row[i].spans = json_object()))
            return false;
    if (own->lookups)
        qsort(own->lookup, own->lookups, sizeof *own->lookup, by_order);
    for (size_t i = 0; i < own->lookups; i++) {
        const struct lookup *l = &own->lookup[i];
        json_t *span;

        if (l->found.label == SPAN_NOT_FOUND && !json_is_string(l->value))
            continue;
        span = json_pack("{s:s}", "label", span_label_name(l->found.label));
        if (!span || json_object_set_new(own->row[l->row].spans, l->pointer, span))
            return false;
        if (l->found.label != SPAN_NOT_FOUND &&
            (json_object_set_new(span, "bytes", range(l->found.byte_from, l->found.byte_to)) ||
             json_object_set_new(span, "chars", range(l->found.char_from, l->found.char_to))))
            return false;
    }
    return true;
}

static bool write_csv(struct extract *extract, const struct unit *unit, const char *source, const json_t *row,
                      struct buf *lines)
{
    json_t *name = json_string(source), *error = NULL, *value;
    const char *column;
    char *text = NULL;
    bool ok;

    if (unit->error && asprintf(&text, "%s: %s", json_string_value(json_object_get(unit->error, "code")),
                                json_string_value(json_object_get(unit->error, "message"))) > 0)
        error = json_string(text);
    ok = name && (!unit->error || error) && table_field(lines, name, true);
    json_object_foreach((json_t *)(uintptr_t)extract->columns, column, value) ok =
        ok && table_field(lines, json_object_get(row, column), false);
    ok = ok && table_field(lines, error, false) && table_end(lines);
    free(text);
    json_decref(name);
    json_decref(error);
    return ok;
}

static bool write_line(struct extract *extract, struct unit *unit, const char *source, const struct row *row,
                       struct buf *lines)
{
    json_t *line, *moothall;
    bool ok;

    if (extract->options.format == 1)
        return write_csv(extract, unit, source, row ? row->row : NULL, lines);
    line = json_pack("{s:s}", "source", source);
    moothall = pipeline_provenance(&extract->pipeline, unit);
    ok = line && moothall;
    if (ok && unit->error)
        ok = json_object_set(line, "error", unit->error) == 0;
    else if (ok)
        ok = json_object_set(line, "row", row->row) == 0 && json_object_set(line, "spans", row->spans) == 0;
    if (moothall)
        ok = json_object_set_new(line, "moothall", moothall) == 0 && ok;
    ok = ok && row_write(lines, line) && buf_text(lines, "\n");
    json_decref(line);
    return ok;
}

static bool write_unit(struct pipeline *pipeline, struct unit *unit, struct buf *lines, struct err *err)
{
    struct extract *extract = pipeline->own;
    struct extracted *own = unit->own;
    const char *source = pipeline_source(pipeline, unit);
    bool ok = true;

    if (unit->error) {
        ok = write_line(extract, unit, source, NULL, lines);
    } else {
        ok = set_spans(own);
        for (size_t i = 0; ok && i < own->rows; i++)
            ok = write_line(extract, unit, source, &own->row[i], lines);
    }
    return ok || err_set(err, ERR_IO, "no memory for a document's lines");
}

static const struct pipeline_verb pipeline_verb = {
    .name = "extract",
    .begin = begin,
    .chunk = chunk,
    .answer = answer,
    .advance = advance,
    .again = again,
    .write = write_unit,
    .end = end,
};

/* ---- the verb
 * ----------------------------------------------------------------------------------------------------- */

static bool make_header(struct extract *extract)
{
    json_t *source = json_string("source"), *error = json_string("error"), *value;
    const char *name;
    bool ok = source && error && table_field(&extract->header, source, true);

    json_object_foreach((json_t *)(uintptr_t)extract->columns, name, value)
    {
        json_t *column = json_string(name);

        ok = ok && column && table_field(&extract->header, column, false);
        json_decref(column);
    }
    ok = ok && table_field(&extract->header, error, false) && table_end(&extract->header);
    json_decref(source);
    json_decref(error);
    return ok;
}

static bool prepare(struct extract *extract, int argc, char **argv, struct err *err)
{
    struct pipeline *pipeline = &extract->pipeline;
    const struct options *o = &extract->options;
    struct merge *merge;
    uint8_t digest[16];
    char hex[33];

    pipeline->dry = o->dry_run;
    if (!read_schema(extract, err))
        return false;
    if (o->many && *o->merge)
        return err_set(
            err, ERR_INPUT,
            "--merge makes one row of several, and --many keeps them all; expected one of the two");
    if (!o->many) {
        if (!merge_new(&merge, extract->schema, *o->merge ? o->merge : NULL, err))
            return err_wrap(err, "--merge");
        merge_free(merge);
    }
    if (!pipeline_prepare(pipeline, argc, argv, err) || !make_instruction(extract, err) ||
        !set_budget(extract, err) || !pipeline_set_limits(pipeline, OVERLAP_TOKENS, err))
        return false;
    if (!buf_text(
            &extract->form,
            "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"row\",\"strict\":true,"
            "\"schema\":") ||
        !buf_add(&extract->form, extract->schema_text.data, extract->schema_text.size) ||
        !buf_text(&extract->form, "}}") || (o->format == 1 && !make_header(extract)))
        return err_set(err, ERR_IO, "no memory for the schema");
    pipeline->form = buf_span(&extract->form);
    pipeline->header = buf_span(&extract->header);
    crypto_generichash(digest, sizeof digest, extract->schema_text.data, extract->schema_text.size, NULL, 0);
    sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    pipeline_asked(pipeline, "many", json_boolean(o->many)); /* first: it changes the schema, too */
    pipeline_asked(pipeline, "schema", json_string(hex));
    pipeline_asked(pipeline, "instruction", json_string(pipeline->instruction));
    pipeline_asked(pipeline, "max-tokens", json_integer(pipeline->max_tokens));
    pipeline_asked(pipeline, "chunk-tokens", json_integer(pipeline->limits.tokens));
    pipeline_asked(pipeline, "overlap-tokens", json_integer(pipeline->limits.overlap));
    pipeline_shaped(pipeline, "merge", json_string(o->merge));
    pipeline_shaped(pipeline, "format", json_string(formats[o->format]));
    return true;
}

static int extract_verb(const struct verb *verb, int argc, char **argv)
{
    struct extract *extract = calloc(1, sizeof *extract);
    struct err err = { 0 };
    int status;

    if (!extract)
        return 1;
    pipeline_defaults(&extract->options.common);
    extract->pipeline.verb = &pipeline_verb;
    extract->pipeline.options = &extract->options.common;
    extract->pipeline.own = extract;
    if (!verb_flags(verb, &argc, argv, &extract->options, &err) || !prepare(extract, argc, argv, &err))
        status = say_failed("extract", &err);
    else
        status = extract->options.dry_run ? pipeline_dry_run(&extract->pipeline)
                                          : pipeline_run(&extract->pipeline);
    pipeline_fini(&extract->pipeline);
    json_decref(extract->schema);
    buf_fini(&extract->schema_text);
    buf_fini(&extract->form);
    buf_fini(&extract->header);
    buf_fini(&extract->instruction);
    free(extract);
    return status;
}

const struct verb verb_extract = {
    .name = "extract",
    .what = "documents in, rows out: what a JSON Schema describes, always valid, with its places in the text",
    .words = "--model DIR --schema SCHEMA.json DOCUMENTS... -o ROWS.jsonl [flags]",
    .more = "DOCUMENTS are text files, directories, globs in quotes, - for standard input; with --template, "
            "tables.\n"
            "A row is {\"source\", \"row\", \"spans\", \"moothall\"}; a document that failed has \"error\" "
            "instead of its row.\n"
            "Long documents are read in overlapping pieces, and --merge says how their rows become one.\n"
            "The same command again continues where the last one was stopped, or says that all is done.",
    .example = "moothall extract --model deploy/demo/model --schema deploy/demo/changelog.schema.json \\\n"
               "        'deploy/demo/documents/entry-*.txt' -o rows.jsonl",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = extract_verb,
};
