/* tokenize - text to token ids, a line at a time, and back. */

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/output.h"
#include "client/say.h"
#include "client/stop.h"
#include "client/verbs.h"
#include "worker/model/detokenize.h"
#include "worker/model/tokenizer.h"

enum { LINE_MAX_BYTES = 256 * 1024 * 1024 }; /* JSON may spell a byte in six */

struct options {
    char model[4096], output[4096];
    bool decode, skip_special;
};

static const struct field fields[] = {
    { "model", OPTION_TEXT(struct options, model),
      "directory of the model; only its tokenizer's files are read" },
    { "output", OPTION_TEXT(struct options, output), "-o FILE (default: standard output)" },
    { "decode", OPTION_FLAG(struct options, decode),
      "the reverse: lines of {\"ids\": [...]} become {\"text\": ...}" },
    { "skip_special", OPTION_FLAG(struct options, skip_special),
      "with --decode: leave special tokens out, as in generated text" },
};

static void write_error(FILE *out, uint64_t number, const char *text)
{
    json_t *root = json_pack("{s:{s:I,s:s}}", "error", "line", (json_int_t)number, "message", text);

    json_dumpf(root, out, JSON_COMPACT);
    fputc('\n', out);
    json_decref(root);
}

static bool encode_line(const struct tokenizer *tokenizer, json_t *root, FILE *out, struct err *err)
{
    json_t *text = json_object_get(root, "text");
    struct ids ids = { 0 };

    if (!json_is_string(text))
        return err_set(err, ERR_INPUT, "expected {\"text\": \"...\"}");
    if (!tokenizer_encode(tokenizer, span_of(json_string_value(text), json_string_length(text)), &ids, err)) {
        ids_fini(&ids);
        return false;
    }
    fputs("{\"ids\":[", out);
    for (size_t i = 0; i < ids.count; i++)
        fprintf(out, i ? ",%d" : "%d", ids.id[i]);
    fputs("]}\n", out);
    ids_fini(&ids);
    return true;
}

static bool decode_line(const struct tokenizer *tokenizer, json_t *root, bool skip_special, FILE *out,
                        struct err *err)
{
    json_t *list = json_object_get(root, "ids"), *text;
    struct ids ids = { 0 };
    struct buf bytes = { 0 };
    size_t i;
    json_t *value;
    bool ok = true;

    if (!json_is_array(list))
        return err_set(err, ERR_INPUT, "expected {\"ids\": [1, 2, ...]}");
    json_array_foreach(list, i, value)
    {
        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) >= TOKENIZER_IDS_MAX)
            ok = err_set(err, ERR_INPUT, "ids[%zu] is not a token id", i);
        else if (!ids_add(&ids, (int32_t)json_integer_value(value)))
            ok = err_set(err, ERR_IO, "no memory for %zu ids", i);
        if (!ok)
            break;
    }
    ok = ok && detokenize(tokenizer, ids.id, ids.count, !skip_special, &bytes, err);
    if (ok) {
        text = json_stringn(bytes.size ? (const char *)bytes.data : "", bytes.size);
        root = json_object();
        json_object_set_new(root, "text", text);
        char *dumped = json_dumps(root, JSON_COMPACT);
        struct buf line = { 0 };

        if (!dumped || !buf_text(&line, dumped) || !output_one_line(&line, 0))
            ok = err_set(err, ERR_IO, "no memory for a text of %zu bytes", bytes.size);
        else
            fprintf(out, "%.*s\n", (int)line.size, (const char *)line.data);
        buf_fini(&line);
        free(dumped);
        json_decref(root);
    }
    ids_fini(&ids);
    buf_fini(&bytes);
    return ok;
}

/* A line without its end into `line`; false at the end of the file.  What is over the bound is read and not
 * kept. */
static bool read_line(FILE *in, struct buf *line, bool *too_long)
{
    bool any = false;
    int c;

    line->size = 0;
    *too_long = false;
    while ((c = getc_unlocked(in)) != EOF && c != '\n') {
        uint8_t byte = (uint8_t)c;

        any = true;
        if (!*too_long && !buf_add(line, &byte, 1))
            *too_long = true;
    }
    return any || c == '\n';
}

static bool is_blank(const struct buf *line)
{
    for (size_t i = 0; i < line->size; i++)
        if (!strchr(" \t\r", line->data[i]) || !line->data[i])
            return false;
    return true;
}

static int tokenize(const struct options *o, FILE *in, FILE *out, struct err *err)
{
    struct tokenizer *tokenizer;
    struct buf line = { .max = LINE_MAX_BYTES };
    uint64_t number = 0;
    bool too_long, bad = false;

    if (!tokenizer_load(&tokenizer, o->model, err))
        return 1;
    while (!stop_asked() && read_line(in, &line, &too_long)) {
        struct err wrong = { 0 };
        json_error_t why;
        json_t *root;
        size_t skip = number == 0 && line.size >= 3 && !memcmp(line.data, "\xef\xbb\xbf", 3) ? 3 : 0;
        bool ok;

        number++;
        if (too_long) {
            err_set(&wrong, ERR_LIMIT, "the line has more than %d bytes", LINE_MAX_BYTES);
            write_error(out, number, wrong.text);
            bad = true;
            continue;
        }
        if (is_blank(&line))
            continue;
        root = json_loadb((const char *)line.data + skip, line.size - skip, JSON_ALLOW_NUL, &why);
        if (!root)
            ok = err_set(&wrong, ERR_INPUT, "not JSON: %s", why.text);
        else if (o->decode)
            ok = decode_line(tokenizer, root, o->skip_special, out, &wrong);
        else
            ok = encode_line(tokenizer, root, out, &wrong);
        json_decref(root);
        if (!ok) {
            write_error(out, number, wrong.text);
            bad = true;
        }
    }
    tokenizer_free(tokenizer);
    buf_fini(&line);
    if (stop_asked()) {
        stop_check(err);
        return 1;
    }
    if (ferror(in)) {
        err_errno(err, "read the input");
        return 1;
    }
    if (fflush(out) != 0 || ferror(out)) {
        err_errno(err, "write the output");
        return 1;
    }
    return bad ? 2 : 0;
}

static int tokenize_verb(const struct verb *verb, int argc, char **argv)
{
    struct options options = { 0 };
    struct err err = { 0 };
    FILE *in = stdin, *out = stdout;
    int status;

    if (!verb_flags(verb, &argc, argv, &options, &err))
        return say_failed("tokenize", &err);
    if (!*options.model) {
        err_set(&err, ERR_INPUT, "no model: expected --model DIR");
        return say_failed("tokenize", &err);
    }
    if (argc > 2) {
        err_set(&err, ERR_INPUT, "unexpected word `%.200s`; expected one input file", argv[2]);
        return say_failed("tokenize", &err);
    }
    if (argc == 2 && strcmp(argv[1], "-") != 0 && !(in = fopen(argv[1], "re"))) {
        err_errno(&err, "open %s", argv[1]);
        return say_failed("tokenize", &err);
    }
    if (*options.output && strcmp(options.output, "-") != 0 && !(out = fopen(options.output, "we"))) {
        err_errno(&err, "write %s", options.output);
        return say_failed("tokenize", &err);
    }
    status = tokenize(&options, in, out, &err);
    if (status == 1)
        say_failed("tokenize", &err);
    if (in != stdin)
        fclose(in);
    if (out != stdout && fclose(out) != 0 && status != 1) {
        err_errno(&err, "write %s", options.output);
        status = say_failed("tokenize", &err);
    }
    return status;
}

const struct verb verb_tokenize = {
    .name = "tokenize",
    .what = "text to token ids, as the model's tokenizer does it, and back",
    .words = "--model DIR [TEXTS.jsonl] [--decode] [-o FILE]",
    .more = "Reads lines of {\"text\": ...} (standard input when no file is named) and writes lines of "
            "{\"ids\": [...]}.\n"
            "All added tokens match; no beginning-of-text is added.  A bad line becomes a line with `error`, "
            "its number in it,\n"
            "and the exit status 2.",
    .example = "echo '{\"text\": \"A moot hall.\"}' | moothall tokenize --model deploy/demo/model",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = tokenize_verb,
};
