/* CSV: what is written is read back, by us and by Python's csv module; what cannot be read is said, with its
 * line, and passed over. */

#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/table.h"

static FILE *file_of(const void *text, size_t size)
{
    FILE *file = tmpfile();

    CHECK(file && fwrite(text, 1, size, file) == size);
    rewind(file);
    return file;
}

/* All records, as JSON: [[...], ...]; where one cannot be read, its error's text. */
static json_t *read_all(FILE *file, char separator, size_t bytes_max)
{
    json_t *rows = json_array();
    uint64_t line = 0;
    bool end = false;

    while (!end) {
        json_t *fields = json_array();
        struct err err = { 0 };

        if (!table_read(file, separator, fields, bytes_max, &line, &end, &err))
            json_array_append_new(rows, json_string(err.text));
        else if (!end)
            json_array_append(rows, fields);
        json_decref(fields);
    }
    return rows;
}

static void test_what_is_read(void **state)
{
    static const struct {
        const char *text, *rows;
    } cases[] = {
        { "", "[]" },
        { "a", "[['a']]" },
        { "a,b\nc,d\n", "[['a','b'],['c','d']]" },
        { "a,b\r\nc,d", "[['a','b'],['c','d']]" },
        { "a,b\rc,d\r", "[['a','b'],['c','d']]" },
        { "a,,b,\n", "[['a','','b','']]" },
        { ",", "[['','']]" },
        { "\n\na\n", "[[],[],['a']]" },
        { "\"\"\n", "[['']]" },
        { "\"a,b\",\"c\"\"d\"\n", "[['a,b','c\\\"d']]" },
        { "\"a\r\nb\nc\",d\ne", "[['a\\r\\nb\\nc','d'],['e']]" },
        { "\" a \", b \n", "[[' a ',' b ']]" },
        { "a'b;c\n", "[['a\\u0027b;c']]" },
        /* Faults: named with the line, and the next row is read. */
        { "a\nb\"c,\"x\ny\",d\ne\n", "[['a'],'line 2: field 1: a quote in the middle of a field without "
                                     "quotes (it is written as \\\"\\\" in a "
                                     "quoted field)',['e']]" },
        { "\"a\"b,c\nd\n",
          "['line 1: field 1: something follows the quote that ends it; expected a separator',['d']]" },
        { "a\n\"x\ny\nz\n", "[['a'],'line 2: field 1: the quote that begins it never ends']" },
        { "a,\"", "['line 1: field 2: the quote that begins it never ends']" },
        { "a\nb,\xff\nc\n", "[['a'],'line 2: field 2: not UTF-8',['c']]" },
        { "\"l\n1\"\n\xff\n", "[['l\\n1'],'line 3: field 1: not UTF-8']" },
        { "12345678901\nb\n", "['line 1: the row has more than 10 bytes',['b']]" },
        { "\"1234567890\n1\",2\nb\n", "['line 1: the row has more than 10 bytes',['b']]" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *file = file_of(cases[i].text, strlen(cases[i].text));
        char *wanted = strdup(cases[i].rows);
        json_t *rows, *expected;

        for (char *p = wanted; *p; p++)
            if (*p == '\'')
                *p = '"';
        rows = read_all(file, ',', strncmp(cases[i].rows, "['line 1: the row", 17) ? 1000 : 10);
        expected = json_loads(wanted, 0, NULL);
        if (!expected || !json_equal(rows, expected)) {
            print_error("%s\n%s\n%s\n", cases[i].text, wanted, json_dumps(rows, 0));
            CHECK(false);
        }
        json_decref(rows);
        json_decref(expected);
        free(wanted);
        fclose(file);
    }
}

static void test_tabs_separate_too(void **state)
{
    FILE *file = file_of("a,b\t\"c\td\"\n", 10);
    json_t *rows = read_all(file, '\t', 100);

    (void)state;
    CHECK(json_array_size(json_array_get(rows, 0)) == 2);
    CHECK(!strcmp(json_string_value(json_array_get(json_array_get(rows, 0), 1)), "c\td"));
    json_decref(rows);
    fclose(file);
    file = file_of("5\" disk\tthe \"one\"\n", 18);
    rows = read_all(file, '\t', 100);
    CHECK(!strcmp(json_string_value(json_array_get(json_array_get(rows, 0), 0)), "5\" disk"));
    CHECK(!strcmp(json_string_value(json_array_get(json_array_get(rows, 0), 1)), "the \"one\""));
    json_decref(rows);
    fclose(file);
}

static void test_what_is_written(void **state)
{
    static const struct {
        const char *value, *text;
    } cases[] = {
        { "\"a\"", "a" },
        { "\"\"", "\"\"" },
        { "null", "" },
        { "\"a,b\"", "\"a,b\"" },
        { "\"a\\\"b\"", "\"a\"\"b\"" },
        { "\"\\\"\"", "\"\"\"\"" },
        { "\"a\\nb\"", "\"a\nb\"" },
        { "\"a\\rb\"", "\"a\rb\"" },
        { "\" a\"", "\" a\"" },
        { "\"=1+1\"", "=1+1" },
        { "\"-5\"", "-5" },
        { "12345678901234567", "12345678901234567" },
        { "0.1", "0.1" },
        { "true", "true" },
        { "[1,\"a\"]", "\"[1,\"\"a\"\"]\"" },
        { "{\"a\":null}", "\"{\"\"a\"\":null}\"" },
        { "[]", "[]" },
    };
    struct buf out = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *value = json_loads(cases[i].value, JSON_DECODE_ANY, NULL);

        out.size = 0;
        CHECK(table_field(&out, value, true));
        CHECK(span_equal(buf_span(&out), span_text(cases[i].text)));
        CHECK(table_field(&out, NULL, false) && table_end(&out));
        CHECK(out.size == strlen(cases[i].text) + 3 && !memcmp(out.data + out.size - 3, ",\r\n", 3));
        json_decref(value);
    }
    /* A record of one null is no empty line, which is no record to most readers. */
    out.size = 0;
    CHECK(table_field(&out, NULL, true) && table_end(&out) && table_field(&out, json_null(), true) &&
          table_end(&out));
    CHECK(span_equal(buf_span(&out), span_text("\"\"\r\n\"\"\r\n")));
    buf_fini(&out);
}

/* At a bound nothing is half-written. */
static void test_a_full_buffer_is_unchanged(void **state)
{
    struct buf out = { .max = 8 };
    json_t *value = json_string("a,b,c,d");

    (void)state;
    CHECK(buf_text(&out, "x"));
    CHECK(!table_field(&out, value, false) && out.size == 1);
    json_decref(value);
    buf_fini(&out);
}

static json_t *odd_rows(void)
{
    static const char *const odd[] = { "",       " ",      "a",    "a,b",  "\"",         "\"\"",
                                       "a\"b\"", "\n",     "\r",   "\r\n", "line\nline", "\t",
                                       ";",      "'",      "é漢😀", "=cmd", "@x",         " lead",
                                       "trail ", ",",      ",,",   "\\",   "\\\"",       "a\vb",
                                       "\ufeff", "\u2028", "0012", "1e5",  "null" };
    enum { ODD = sizeof odd / sizeof *odd };
    json_t *rows = json_array();
    uint32_t seed = 3;

    for (int i = 0; i < 500; i++) {
        json_t *row = json_array();

        for (int k = 0; k < 1 + i % 5; k++) {
            seed = seed * 1664525 + 1013904223;
            json_array_append_new(row, json_string(odd[(seed >> 8) % ODD]));
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

static void write_rows(const char *path, const json_t *rows)
{
    FILE *file = fopen(path, "w");
    struct buf out = { 0 };

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);

        for (size_t k = 0; k < json_array_size(row); k++)
            CHECK(table_field(&out, json_array_get(row, k), k == 0));
        CHECK(table_end(&out));
    }
    CHECK(file && fwrite(out.data, 1, out.size, file) == out.size && fclose(file) == 0);
    buf_fini(&out);
}

static void test_what_is_written_is_read(void **state)
{
    char path[] = "/tmp/moothall-table-XXXXXX";
    json_t *rows = odd_rows(), *again;
    FILE *file;

    (void)state;
    close(mkstemp(path));
    write_rows(path, rows);
    file = fopen(path, "r");
    again = read_all(file, ',', 1000);
    CHECK(json_equal(rows, again));
    json_decref(again);
    json_decref(rows);
    fclose(file);
    remove(path);
}

/* Python's csv module reads what we write, and we read what it writes. */
static void test_python_agrees(void **state)
{
    char path[] = "/tmp/moothall-table-XXXXXX", command[1024];
    json_t *rows = odd_rows(), *theirs;
    FILE *file;

    (void)state;
    close(mkstemp(path));
    write_rows(path, rows);
    snprintf(command, sizeof command,
             "python3 -c 'import csv,json\n"
             "rows=list(csv.reader(open(\"%s\",newline=\"\",encoding=\"utf-8\")))\n"
             "print(json.dumps(rows))\n"
             "csv.writer(open(\"%s\",\"w\",newline=\"\",encoding=\"utf-8\")).writerows(rows)' 2>/dev/null",
             path, path);
    file = popen(command, "r");
    CHECK(file);
    theirs = json_loadf(file, 0, NULL);
    if (pclose(file) != 0) {
        json_decref(theirs);
        json_decref(rows);
        remove(path);
        print_message("skipped: no python3\n");
        skip();
    }
    CHECK(json_equal(rows, theirs));
    json_decref(theirs);
    file = fopen(path, "r");
    theirs = read_all(file, ',', 1000);
    CHECK(json_equal(rows, theirs));
    json_decref(theirs);
    json_decref(rows);
    fclose(file);
    remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_read),
        cmocka_unit_test(test_tabs_separate_too),
        cmocka_unit_test(test_what_is_written),
        cmocka_unit_test(test_a_full_buffer_is_unchanged),
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_python_agrees),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
