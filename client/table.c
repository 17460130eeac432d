#include "client/table.h"

#include <errno.h>
#include <string.h>

#include "client/rows.h"

/* ---- reading ---------------------------------------------------------------------------------------------
 */

struct reading {
    FILE *file;
    int separator;
    json_t *fields;
    struct buf field;
    size_t bytes, bytes_max;
    uint64_t first_line;
    uint64_t *line;
    bool failed; /* err says why; what is left of the record is only passed over */
    struct err *err;
};

static bool fail(struct reading *r, enum err_code code, const char *text)
{
    if (!r->failed)
        err_set(r->err, code, "line %llu: field %zu: %s", (unsigned long long)r->first_line,
                json_array_size(r->fields) + 1, text);
    r->failed = true;
    return false;
}

static bool keep(struct reading *r, int c)
{
    uint8_t byte = (uint8_t)c;

    if (r->failed)
        return false;
    if (r->bytes++ == r->bytes_max) {
        err_set(r->err, ERR_LIMIT, "line %llu: the row has more than %zu bytes",
                (unsigned long long)r->first_line, r->bytes_max);
        r->failed = true;
        return false;
    }
    return buf_add(&r->field, &byte, 1) || fail(r, ERR_IO, "no memory");
}

static void end_field(struct reading *r)
{
    json_t *text;

    if (r->failed)
        return;
    if (!span_is_utf8(buf_span(&r->field))) {
        fail(r, ERR_INPUT, "not UTF-8");
        return;
    }
    text = json_stringn_nocheck(r->field.size ? (const char *)r->field.data : "", r->field.size);
    if (json_array_append_new(r->fields, text) != 0) /* takes care of NULL, too */
        fail(r, ERR_IO, "no memory");
    r->field.size = 0;
}

/* A line end was read as CR: the LF that may follow belongs to it. */
static void pass_lf(FILE *file)
{
    int c = getc_unlocked(file);

    if (c != '\n' && c != EOF)
        ungetc(c, file);
}

/* After the opening quote; the closing one is taken.  False: the file ended. */
static bool read_quoted(struct reading *r)
{
    int c, before = 0;

    while ((c = getc_unlocked(r->file)) != EOF) {
        if (c == '"') {
            int next = getc_unlocked(r->file);

            if (next != '"') {
                if (next != EOF)
                    ungetc(next, r->file);
                return true;
            }
        }
        if (c == '\r' || (c == '\n' && before != '\r'))
            ++*r->line;
        before = c;
        keep(r, c);
    }
    fail(r, ERR_INPUT, "the quote that begins it never ends");
    return false;
}

bool table_read(FILE *file, char separator, json_t *fields, size_t bytes_max, uint64_t *line, bool *end,
                struct err *err)
{
    struct reading r = { .file = file,
                         .separator = (unsigned char)separator,
                         .fields = fields,
                         .bytes_max = bytes_max,
                         .first_line = *line + 1,
                         .line = line,
                         .err = err };
    bool begins = true;  /* nothing of the field has been read */
    bool quoted = false; /* the field began with a quote, which has ended */
    bool any = false;
    int c;

    *end = false;
    ++*line;
    while ((c = getc_unlocked(file)) != EOF && c != '\n' && c != '\r') {
        if (c == r.separator) {
            end_field(&r);
            begins = any = true;
            quoted = false;
            continue;
        }
        any = true;
        if (quoted) {
            fail(&r, ERR_INPUT, "something follows the quote that ends it; expected a separator");
        } else if (c == '"' && begins) {
            if (!read_quoted(&r)) {
                c = EOF;
                break;
            }
            quoted = true;
        } else if (c == '"' && r.separator != '\t') { /* where tabs separate, hardly anybody quotes */
            fail(&r, ERR_INPUT,
                 "a quote in the middle of a field without quotes (it is written as \"\" in a quoted field)");
        } else {
            keep(&r, c);
        }
        begins = false;
    }
    if (c == '\r')
        pass_lf(file);
    if (any)
        end_field(&r);
    buf_fini(&r.field);
    if (ferror(file)) {
        err_errno(err, "read");
        return false;
    }
    if (c == EOF && !any && !r.failed) {
        --*line;
        *end = true;
    }
    return !r.failed;
}

/* ---- writing ---------------------------------------------------------------------------------------------
 */

static bool must_quote(const char *text, size_t size)
{
    if (size == 0 || text[0] == ' ' || text[size - 1] == ' ')
        return true; /* some readers strip spaces of fields without quotes */
    for (size_t i = 0; i < size; i++)
        if (text[i] == '"' || text[i] == ',' || text[i] == '\n' || text[i] == '\r')
            return true;
    return false;
}

static bool add_text(struct buf *out, const char *text, size_t size)
{
    const char *quote;

    if (!must_quote(text, size))
        return buf_add(out, text, size);
    if (!buf_text(out, "\""))
        return false;
    while (size && (quote = memchr(text, '"', size))) {
        size_t upto = (size_t)(quote - text) + 1;

        if (!buf_add(out, text, upto) || !buf_text(out, "\""))
            return false;
        text += upto;
        size -= upto;
    }
    return buf_add(out, text, size) && buf_text(out, "\"");
}

bool table_field(struct buf *out, const json_t *value, bool first)
{
    size_t had = out->size;
    bool ok = first || buf_text(out, ",");

    if (ok && json_is_string(value)) {
        ok = add_text(out, json_string_value(value), json_string_length(value));
    } else if (ok && value && !json_is_null(value)) {
        struct buf text = { .max = out->max };

        ok = row_write(&text, value) && add_text(out, (const char *)text.data, text.size);
        buf_fini(&text);
    }
    if (!ok)
        out->size = had;
    return ok;
}

bool table_end(struct buf *out)
{
    bool nothing = out->size == 0 || out->data[out->size - 1] == '\n';
    size_t had = out->size;

    if ((!nothing || buf_text(out, "\"\"")) && buf_text(out, "\r\n"))
        return true;
    out->size = had;
    return false;
}
