/* moothall-demo-score RESULTS.jsonl ... TRUTH.jsonl [-o ROWS.jsonl]
 *
 * Holds what `moothall extract` and `moothall summarize` wrote, or what `moothall run` answered, against what the
 * documents say: shows the first of them, and counts.  A line of TRUTH is one document: its name (of the source's file; the
 * request's custom_id), its task, and the record or the synopsis that is right; the documents lie beside TRUTH.  A document
 * without a result, or that failed, counts as wrong, so no figure improves by failing.  -o writes one plain row a document.
 *
 * Exit 0 when the figures were printed, whatever they are; 1 when a file is not what it should be. */

#include "base/err.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define DOCUMENTS_MAX 100000
#define LINE_BYTES_MAX (16u << 20)
#define DOCUMENT_BYTES_MAX (1u << 20)
#define WORDS_MAX 1000 /* of a text that ROUGE-L looks at */
#define SHOWN_RECORDS 8
#define SHOWN_SUMMARIES 6
#define BASELINE_WORDS 12
#define REASON_BYTES_MAX 200
#define TABLE_COLUMNS 100
#define RESULTS_MAX 8

static const char *const fields[] = { "package",    "version", "distribution", "urgency",
                                      "maintainer", "email",   "date",         "closes" };
#define FIELDS (sizeof fields / sizeof fields[0])

enum task { EXTRACT, SUMMARIZE };

struct document {
    const char *source; /* these three belong to the line of TRUTH */
    const json_t *record;
    const char *synopsis;
    enum task task;
    double baseline; /* ROUGE-L of the document's first words */
    bool answered;
};

struct documents {
    json_t *lines;    /* keeps what the documents point to */
    json_t *by_name;  /* name -> index */
    struct document *list;
    size_t count;
    const char *path;
};

/* A result, reduced to what is scored.  Either row or summary or reason. */
struct answer {
    json_t *row;
    char *summary;
    char reason[REASON_BYTES_MAX];
};

struct tally {
    size_t records, whole, json, field[FIELDS];
    size_t summaries;
    double rouge, baseline;
    size_t failed, missing;
    size_t spans, exact, normalised; /* of rows with `spans`: strings, and those found in their document */
    int64_t prompt_tokens, completion_tokens;
};

/* ---- reading ---------------------------------------------------------------------------------- */

/* One line a call, as an object that the caller frees; NULL at the end.  False: not such a file. */
struct reader {
    FILE *file;
    const char *path;
    char *line;
    size_t capacity;
    size_t number;
};

static bool reader_open(struct reader *reader, const char *path, struct err *err)
{
    *reader = (struct reader){ .path = path, .file = fopen(path, "r") };
    if (!reader->file)
        return err_errno(err, "open %s", path);
    return true;
}

static void reader_close(struct reader *reader)
{
    if (reader->file)
        fclose(reader->file);
    free(reader->line);
}

static bool reader_next(struct reader *reader, json_t **object, struct err *err)
{
    json_error_t why;

    *object = NULL;
    for (;;) {
        errno = 0;
        ssize_t size = getline(&reader->line, &reader->capacity, reader->file);
        if (size < 0 && !feof(reader->file))
            return err_errno(err, "read %s", reader->path);
        if (size < 0)
            return true;
        reader->number++;
        if ((size_t)size > LINE_BYTES_MAX)
            return err_set(err, ERR_LIMIT, "%s:%zu: the line has %zd bytes, at most %u are read", reader->path,
                           reader->number, size, LINE_BYTES_MAX);
        if (strspn(reader->line, " \t\r\n") == (size_t)size)
            continue;
        if (reader->number > DOCUMENTS_MAX)
            return err_set(err, ERR_LIMIT, "%s has more than %d lines", reader->path, DOCUMENTS_MAX);
        *object = json_loadb(reader->line, (size_t)size, 0, &why);
        if (!*object)
            return err_set(err, ERR_INPUT, "%s:%zu: not JSON: %s", reader->path, reader->number, why.text);
        if (json_is_object(*object))
            return true;
        json_decref(*object);
        *object = NULL;
        return err_set(err, ERR_INPUT, "%s:%zu: expected an object", reader->path, reader->number);
    }
}

/* ---- ROUGE-L ---------------------------------------------------------------------------------- */

/* Words are runs of ASCII letters and digits, in lower case; text is cut into them in place. */
static size_t split_words(char *text, char *words[WORDS_MAX])
{
    size_t count = 0;

    for (char *at = text; *at && count < WORDS_MAX;) {
        while (*at && !isalnum((unsigned char)*at))
            at++;
        if (!*at)
            break;
        words[count++] = at;
        for (; isalnum((unsigned char)*at); at++)
            *at = (char)tolower((unsigned char)*at);
        if (*at)
            *at++ = '\0';
    }
    return count;
}

static char *copy_text(const char *text, size_t size)
{
    char *copy = malloc(size + 1);

    if (!copy)
        abort(); /* a demo's documents: there is nothing better to do */
    memcpy(copy, text, size);
    copy[size] = '\0';
    return copy;
}

/* F1 of the longest common subsequence of words. */
static double rouge_l(const char *candidate, const char *reference)
{
    static char *a[WORDS_MAX], *b[WORDS_MAX];
    static size_t row[WORDS_MAX + 1];
    char *left = copy_text(candidate, strlen(candidate)), *right = copy_text(reference, strlen(reference));
    size_t a_count = split_words(left, a), b_count = split_words(right, b);

    memset(row, 0, sizeof row);
    for (size_t i = 0; i < a_count; i++) {
        size_t diagonal = 0; /* the row above, one to the left */
        for (size_t j = 0; j < b_count; j++) {
            size_t above = row[j + 1];
            row[j + 1] = strcmp(a[i], b[j]) == 0 ? diagonal + 1 : above > row[j] ? above : row[j];
            diagonal = above;
        }
    }
    free(left);
    free(right);
    return row[b_count] == 0 ? 0.0 : 2.0 * (double)row[b_count] / (double)(a_count + b_count);
}

/* ---- the truth -------------------------------------------------------------------------------- */

/* ROUGE-L of the first words of the document beside the truth: what any summary must beat. */
static bool baseline_of(const char *truth_path, struct document *document, struct err *err)
{
    const char *slash = strrchr(truth_path, '/');
    int directory = slash ? (int)(slash - truth_path) + 1 : 0;
    char path[4096], *text;
    size_t size, end = 0;
    FILE *file;

    if (strchr(document->source, '/') ||
        snprintf(path, sizeof path, "%.*s%s", directory, truth_path, document->source) >= (int)sizeof path)
        return err_set(err, ERR_INPUT, "`source` is `%s`, expected the name of a file beside it", document->source);
    file = fopen(path, "r");
    if (!file)
        return err_errno(err, "open %s", path);
    text = malloc(DOCUMENT_BYTES_MAX + 1);
    size = text ? fread(text, 1, DOCUMENT_BYTES_MAX, file) : 0;
    if (!text || ferror(file)) {
        err_errno(err, "read %s", path);
        free(text);
        fclose(file);
        return false;
    }
    fclose(file);
    text[size] = '\0';
    for (int word = 0; word < BASELINE_WORDS; word++) {
        end += strspn(text + end, " \t\r\n");
        end += strcspn(text + end, " \t\r\n");
    }
    text[end] = '\0';
    document->baseline = rouge_l(text, document->synopsis);
    free(text);
    return true;
}

static bool read_document(const char *path, json_t *line, struct document *document, struct err *err)
{
    const char *task = json_string_value(json_object_get(line, "task"));

    *document = (struct document){ .source = json_string_value(json_object_get(line, "source")) };
    if (!document->source)
        return err_set(err, ERR_INPUT, "no `source`, expected the document's name");
    if (task && strcmp(task, "extract") == 0) {
        document->task = EXTRACT;
        document->record = json_object_get(line, "record");
        for (size_t i = 0; i < FIELDS; i++)
            if (!json_object_get(document->record, fields[i]))
                return err_set(err, ERR_INPUT, "`record` has no `%s`", fields[i]);
        return true;
    }
    if (task && strcmp(task, "summarize") == 0) {
        document->task = SUMMARIZE;
        document->synopsis = json_string_value(json_object_get(line, "synopsis"));
        if (!document->synopsis)
            return err_set(err, ERR_INPUT, "no `synopsis`");
        return baseline_of(path, document, err);
    }
    return err_set(err, ERR_INPUT, "`task` is `%s`, expected extract or summarize", task ? task : "");
}

static bool read_truth(struct documents *documents, const char *path, struct err *err)
{
    struct reader reader = { 0 };
    json_t *line = NULL;
    bool ok = false;

    *documents = (struct documents){ .path = path, .lines = json_array(), .by_name = json_object() };
    documents->list = calloc(DOCUMENTS_MAX, sizeof documents->list[0]);
    if (!documents->lines || !documents->by_name || !documents->list) {
        err_set(err, ERR_IO, "out of memory");
        goto out;
    }
    if (!reader_open(&reader, path, err))
        goto out;
    while ((ok = reader_next(&reader, &line, err)) && line) {
        struct document *document = &documents->list[documents->count];
        json_array_append_new(documents->lines, line);
        ok = read_document(path, line, document, err);
        if (ok && json_object_get(documents->by_name, document->source))
            ok = err_set(err, ERR_INPUT, "`%s` stands here for the second time", document->source);
        if (!ok) {
            err_wrap(err, "%s:%zu", path, reader.number);
            goto out;
        }
        json_object_set_new(documents->by_name, document->source, json_integer((json_int_t)documents->count++));
    }
    if (ok && documents->count == 0)
        ok = err_set(err, ERR_INPUT, "%s is empty, expected one document a line", path);
out:
    reader_close(&reader);
    return ok;
}

static void documents_fini(struct documents *documents)
{
    free(documents->list);
    json_decref(documents->by_name);
    json_decref(documents->lines);
}

/* ---- the results ------------------------------------------------------------------------------ */

static const char *trim(const char *text, size_t *size)
{
    while (isspace((unsigned char)*text))
        text++;
    *size = strlen(text);
    while (*size > 0 && isspace((unsigned char)text[*size - 1]))
        --*size;
    return text;
}

/* Copies at most what fits, never half a character. */
static void copy_reason(char reason[REASON_BYTES_MAX], const char *before, const char *text)
{
    int size = snprintf(reason, REASON_BYTES_MAX, "%s%s", before, text);

    if (size >= REASON_BYTES_MAX) {
        size_t end = REASON_BYTES_MAX - 4;
        while (end > 0 && ((unsigned char)reason[end] & 0xc0) == 0x80)
            end--;
        memcpy(reason + end, "...", 4);
    }
}

/* A line of `extract` or `summarize`. */
static void read_row(json_t *line, struct answer *answer)
{
    json_t *row = json_object_get(line, "row"), *error = json_object_get(line, "error");
    const char *summary = json_string_value(json_object_get(line, "summary")), *message;
    size_t size;

    *answer = (struct answer){ 0 };
    if (json_is_object(row)) {
        answer->row = json_incref(row);
    } else if (summary) {
        summary = trim(summary, &size);
        answer->summary = copy_text(summary, size);
    } else {
        message = json_string_value(json_is_object(error) ? json_object_get(error, "message") : error);
        copy_reason(answer->reason, "", message ? message : "neither row, summary nor error");
    }
}

/* What one line of RESULTS says about a document. */
static void read_answer(json_t *line, enum task task, struct answer *answer)
{
    json_t *response = json_object_get(line, "response"), *body = json_object_get(response, "body");
    json_t *choice = json_array_get(json_object_get(body, "choices"), 0);
    const char *content = json_string_value(json_object_get(json_object_get(choice, "message"), "content"));
    json_t *error = json_object_get(line, "error");
    json_int_t status = json_integer_value(json_object_get(response, "status_code"));
    size_t size;

    *answer = (struct answer){ 0 };
    if (!json_is_object(error))
        error = json_object_get(body, "error");
    if (json_is_object(error) || status != 200 || !content) {
        const char *message = json_string_value(json_object_get(error, "message"));
        copy_reason(answer->reason, "", message ? message : status == 200 ? "no content" : "the request failed");
        return;
    }
    content = trim(content, &size);
    if (task == SUMMARIZE) {
        answer->summary = copy_text(content, size);
        return;
    }
    answer->row = json_loadb(content, size, 0, NULL);
    if (json_is_object(answer->row))
        return;
    json_decref(answer->row);
    answer->row = NULL;
    copy_reason(answer->reason, "the answer is not a JSON object: ", content);
}

static void count_answer(struct tally *tally, const struct document *document, const struct answer *answer)
{
    if (document->task == SUMMARIZE) {
        tally->summaries++;
        tally->baseline += document->baseline;
        if (answer->summary)
            tally->rouge += rouge_l(answer->summary, document->synopsis);
    } else {
        tally->records++;
        tally->json += answer->row != NULL;
        tally->whole += answer->row != NULL && json_equal(answer->row, (json_t *)(uintptr_t)document->record);
        for (size_t i = 0; i < FIELDS; i++) {
            json_t *is = json_object_get(answer->row, fields[i]);
            tally->field[i] += is != NULL && json_equal(is, json_object_get(document->record, fields[i]));
        }
    }
}

static void count_spans(struct tally *tally, json_t *spans)
{
    const char *pointer;
    json_t *span;

    json_object_foreach(spans, pointer, span) {
        const char *label = json_string_value(json_object_get(span, "label"));

        tally->spans++;
        tally->exact += label && strcmp(label, "exact") == 0;
        tally->normalised += label && strcmp(label, "normalised") == 0;
    }
}

static bool write_row(FILE *out, const struct document *document, const struct answer *answer)
{
    json_t *row = json_pack("{s:s}", "source", document->source);
    bool ok;

    if (answer->row)
        json_object_set(row, "row", answer->row);
    else if (answer->summary)
        json_object_set_new(row, "summary", json_string(answer->summary));
    else
        json_object_set_new(row, "error", json_string(answer->reason));
    ok = row && json_dumpf(row, out, JSON_COMPACT) == 0 && fputc('\n', out) != EOF;
    json_decref(row);
    return ok;
}

/* ---- the table -------------------------------------------------------------------------------- */

/* One cell: exactly `columns` wide on a terminal, cut with an ellipsis; what cannot be shown is '?'. */
static void print_cell(const char *text, int columns, bool last)
{
    size_t size = strlen(text);
    int used = 0, whole = 0;

    for (int pass = 0; pass < 2; pass++) { /* first its width, then itself */
        mbstate_t state = { 0 };
        for (size_t at = 0; at < size;) {
            wchar_t character;
            size_t bytes = mbrtowc(&character, text + at, size - at, &state);
            bool bad = bytes == 0 || bytes > size - at;
            int width = bad ? -1 : wcwidth(character);
            if (bad) {
                bytes = 1;
                state = (mbstate_t){ 0 };
            }
            if (pass == 0) {
                whole += width < 0 ? 1 : width;
            } else {
                if (used + (width < 0 ? 1 : width) > columns - (whole > columns))
                    break;
                used += width < 0 ? 1 : width;
                fwrite(width < 0 ? "?" : text + at, 1, width < 0 ? 1 : bytes, stdout);
            }
            at += bytes;
        }
    }
    if (whole > columns) {
        fputs("\u2026", stdout);
        used++;
    }
    if (last)
        putchar('\n');
    else
        printf("%*s  ", columns - used, "");
}

static const struct column {
    const char *name;
    int columns;
} record_columns[] = { { "", 1 },          { "package", 21 }, { "version", 16 }, { "distribution", 12 },
                       { "maintainer", 18 }, { "date", 10 },    { "closes", 8 } };
#define RECORD_COLUMNS (sizeof record_columns / sizeof record_columns[0])
#define SUMMARY_NAME_COLUMNS 32

static void print_record(const struct document *document, const struct answer *answer)
{
    if (!answer->row) {
        print_cell("-", 1, false);
        print_cell(document->source, record_columns[1].columns, false);
        print_cell(answer->reason, TABLE_COLUMNS - 5 - record_columns[1].columns, true);
        return;
    }
    print_cell(json_equal(answer->row, (json_t *)(uintptr_t)document->record) ? "+" : "-", 1, false);
    for (size_t i = 1; i < RECORD_COLUMNS; i++) {
        json_t *value = json_object_get(answer->row, record_columns[i].name);
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        print_cell(json_is_string(value) ? json_string_value(value) : text ? text : "", record_columns[i].columns,
                   i + 1 == RECORD_COLUMNS);
        free(text);
    }
}

static void print_heading(enum task task)
{
    if (task == SUMMARIZE) {
        puts("The first summaries");
        print_cell("description", SUMMARY_NAME_COLUMNS, false);
        print_cell("summary", TABLE_COLUMNS - 2 - SUMMARY_NAME_COLUMNS, true);
        return;
    }
    puts("The first records (+: every field is right, -: not)");
    for (size_t i = 0; i < RECORD_COLUMNS; i++)
        print_cell(record_columns[i].name, record_columns[i].columns, i + 1 == RECORD_COLUMNS);
}

static void print_answer(const struct document *document, const struct answer *answer)
{
    if (document->task == EXTRACT) {
        print_record(document, answer);
    } else {
        print_cell(document->source, SUMMARY_NAME_COLUMNS, false);
        print_cell(answer->summary ? answer->summary : answer->reason, TABLE_COLUMNS - 2 - SUMMARY_NAME_COLUMNS, true);
    }
}

static void print_share(const char *what, size_t hits, size_t of)
{
    printf("  %-14s %5.1f %%   %zu of %zu\n", what, 100.0 * (double)hits / (double)of, hits, of);
}

static void print_tally(const struct tally *tally)
{
    if (tally->records > 0) {
        printf("\nRecords, %zu changelog entries, every field held against the truth:\n", tally->records);
        print_share("whole record", tally->whole, tally->records);
        print_share("valid JSON", tally->json, tally->records);
        for (size_t i = 0; i < FIELDS; i++)
            print_share(fields[i], tally->field[i], tally->records);
    }
    if (tally->summaries > 0) {
        printf("\nSummaries, %zu package descriptions, against the packager's own line (ROUGE-L F1):\n", tally->summaries);
        printf("  the model                                   %.3f\n", tally->rouge / (double)tally->summaries);
        printf("  the first twelve words of the description   %.3f\n", tally->baseline / (double)tally->summaries);
    }
    if (tally->spans > 0)
        printf("\nStrings of the rows: %zu, found in their documents: %.1f %% as they are, %.1f %% but for case, spaces and hyphens\n",
               tally->spans, 100.0 * (double)tally->exact / (double)tally->spans,
               100.0 * (double)tally->normalised / (double)tally->spans);
    if (tally->prompt_tokens > 0)
        printf("\nTokens: %" PRId64 " of prompts + %" PRId64 " generated = %" PRId64 "\n", tally->prompt_tokens,
           tally->completion_tokens, tally->prompt_tokens + tally->completion_tokens);
    if (tally->failed > 0)
        printf("Failed requests: %zu (counted as wrong)\n", tally->failed);
    if (tally->missing > 0)
        printf("Documents without a result: %zu (counted as wrong)\n", tally->missing);
}

/* ---- all of it -------------------------------------------------------------------------------- */

static void take(struct tally *tally, const struct document *document, const struct answer *answer, size_t shown[2])
{
    const size_t most[2] = { [EXTRACT] = SHOWN_RECORDS, [SUMMARIZE] = SHOWN_SUMMARIES };

    count_answer(tally, document, answer);
    if (shown[document->task] == 0) {
        if (shown[EXTRACT] + shown[SUMMARIZE] > 0)
            putchar('\n');
        print_heading(document->task);
    }
    if (shown[document->task]++ < most[document->task])
        print_answer(document, answer);
}

/* The document that a line speaks of, NULL with why. */
static struct document *document_of(struct documents *documents, json_t *line, struct err *err)
{
    const char *source = json_string_value(json_object_get(line, "source"));
    const char *name = source ? source : json_string_value(json_object_get(line, "custom_id"));
    struct document *document;
    json_t *index;

    if (!name) {
        err_set(err, ERR_INPUT, "neither `source` nor `custom_id`");
        return NULL;
    }
    if (source && strrchr(source, '/'))
        name = strrchr(source, '/') + 1;
    index = json_object_get(documents->by_name, name);
    if (!index) {
        err_set(err, ERR_INPUT, "`%s` is no document of %s", name, documents->path);
        return NULL;
    }
    document = &documents->list[json_integer_value(index)];
    if (document->answered) {
        err_set(err, ERR_INPUT, "a second result for `%s`", name);
        return NULL;
    }
    return document;
}

static bool keep_row(FILE *rows, const struct document *document, struct answer *answer, struct err *err)
{
    bool ok = !rows || write_row(rows, document, answer) || err_errno(err, "write a row");

    json_decref(answer->row);
    free(answer->summary);
    return ok;
}

static bool score_line(struct documents *documents, json_t *line, FILE *rows, struct tally *tally, size_t shown[2], struct err *err)
{
    struct document *document = document_of(documents, line, err);
    struct answer answer = { 0 };

    if (!document)
        return false;
    document->answered = true;
    if (json_object_get(line, "source")) {
        read_row(line, &answer);
        tally->failed += !answer.row && !answer.summary;
        count_spans(tally, json_object_get(line, "spans"));
    } else {
        json_t *response = json_object_get(line, "response"), *usage = json_object_get(json_object_get(response, "body"), "usage");

        read_answer(line, document->task, &answer);
        tally->failed += json_integer_value(json_object_get(response, "status_code")) != 200;
        tally->prompt_tokens += json_integer_value(json_object_get(usage, "prompt_tokens"));
        tally->completion_tokens += json_integer_value(json_object_get(usage, "completion_tokens"));
    }
    take(tally, document, &answer, shown);
    return keep_row(rows, document, &answer, err);
}

static bool score_file(struct documents *documents, const char *path, FILE *rows, struct tally *tally, size_t shown[2], struct err *err)
{
    struct reader reader = { 0 };
    json_t *line = NULL;
    bool ok;

    if (!reader_open(&reader, path, err))
        return false;
    while ((ok = reader_next(&reader, &line, err)) && line) {
        ok = score_line(documents, line, rows, tally, shown, err) || err_wrap(err, "%s:%zu", path, reader.number);
        json_decref(line);
        if (!ok)
            break;
    }
    reader_close(&reader);
    return ok;
}

static bool score(struct documents *documents, const char *const *results, int count, FILE *rows, struct tally *tally,
                  struct err *err)
{
    size_t shown[2] = { 0 };

    for (int i = 0; i < count; i++)
        if (!score_file(documents, results[i], rows, tally, shown, err))
            return false;
    for (size_t i = 0; i < documents->count; i++) {
        struct answer answer = { .reason = "no result" };

        if (documents->list[i].answered)
            continue;
        tally->missing++;
        take(tally, &documents->list[i], &answer, shown);
        if (!keep_row(rows, &documents->list[i], &answer, err))
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    const char *files[RESULTS_MAX + 1] = { NULL }, *out_path = NULL;
    int given = 0;
    struct documents documents = { 0 };
    struct tally tally = { 0 };
    struct err err = { 0 };
    FILE *rows = NULL;
    bool ok = false;

    setlocale(LC_CTYPE, "C.UTF-8"); /* widths of characters; without it, bytes are shown as '?' */
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-o") == 0 && i + 1 < argc)
            out_path = argv[++i];
        else if (argv[i][0] != '-' && given <= RESULTS_MAX)
            files[given++] = argv[i];
        else
            given = RESULTS_MAX + 2;
    }
    if (given < 2 || given > RESULTS_MAX + 1) {
        fputs("usage: moothall-demo-score RESULTS.jsonl ... TRUTH.jsonl [-o ROWS.jsonl]\n", stderr);
        return 1;
    }
    if (!read_truth(&documents, files[given - 1], &err))
        goto out;
    if (out_path && !(rows = fopen(out_path, "w"))) {
        err_errno(&err, "open %s", out_path);
        goto out;
    }
    if (!score(&documents, files, given - 1, rows, &tally, &err))
        goto out;
    ok = !rows || fclose(rows) == 0;
    rows = NULL;
    if (!ok) {
        err_errno(&err, "write %s", out_path);
        goto out;
    }
    print_tally(&tally);
    ok = fflush(stdout) == 0;
    if (!ok)
        err_errno(&err, "write to stdout");
out:
    if (rows)
        fclose(rows);
    documents_fini(&documents);
    if (!ok)
        fprintf(stderr, "moothall-demo-score: %s\n", err.text);
    return ok ? 0 : 1;
}
