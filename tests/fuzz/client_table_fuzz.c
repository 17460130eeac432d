/* A table that somebody made: every record is read or refused with its line, and what was read is the same
 * after it was written and read again.  The first line is a template (and its length says what separates). */

#include <stdlib.h>
#include <string.h>

#include "client/table.h"
#include "client/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static json_t *read_table(const void *data, size_t size, char separator, json_t **faults)
{
    FILE *file = size ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
    json_t *rows = json_array();
    uint64_t line = 0, before = 0;
    bool end = !file;

    while (!end) {
        json_t *fields = json_array();
        struct err err = { 0 };

        if (!table_read(file, separator, fields, 4096, &line, &end, &err)) {
            if (!strstr(err.text, "line ") || !faults)
                abort();
            json_array_append_new(*faults, json_string(err.text));
        } else if (!end && json_array_size(fields)) {
            json_array_append(rows, fields);
        }
        if (!end && line <= before)
            abort();
        before = line;
        json_decref(fields);
    }
    if (file)
        fclose(file);
    return rows;
}

static void fill_template(const char *text, const json_t *rows)
{
    struct template *template;
    struct err err;

    if (!template_new(&template, text, &err))
        return;
    for (size_t i = 1; i < json_array_size(rows); i++) {
        const json_t *names = json_array_get(rows, 0), *fields = json_array_get(rows, i);
        json_t *row = json_object();
        struct buf out = { .max = 65536 };

        for (size_t k = 0; k < json_array_size(names) && k < json_array_size(fields); k++) {
            const json_t *name = json_array_get(names, k);

            json_object_setn(row, json_string_value(name), json_string_length(name), json_array_get(fields, k));
        }
        template_fill(template, row, &out, &err);
        buf_fini(&out);
        json_decref(row);
    }
    template_free(template);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *rows, *again, *faults;
    struct buf out = { 0 };
    char template[256];
    size_t n = 0;

    if (size < 1)
        return 0;
    while (n + 1 < size && n + 1 < sizeof template && data[n + 1] != '\n') {
        template[n] = (char)data[n + 1];
        n++;
    }
    template[n] = '\0';
    faults = json_array();
    data += n + 1;
    size -= n + 1;
    rows = read_table(data, size, n % 2 ? '\t' : ',', &faults);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);

        for (size_t k = 0; k < json_array_size(row); k++)
            if (!table_field(&out, json_array_get(row, k), k == 0))
                abort();
        if (!table_end(&out))
            abort();
    }
    again = read_table(out.data, out.size, ',', NULL);
    if (!json_equal(rows, again))
        abort();
    fill_template(template, rows);
    json_decref(rows);
    json_decref(again);
    json_decref(faults);
    buf_fini(&out);
    return 0;
}
