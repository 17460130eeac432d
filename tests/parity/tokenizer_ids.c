/* tokenizer_ids - lines in, lines out, with a tokenizer of one directory: what tokenizer_parity.py compares.
 *
 *     tokenizer_ids DIR            {"text": "..."}   -> {"ids": [...]}
 *     tokenizer_ids DIR --decode   {"ids": [...]}    -> {"text": "..."}
 *
 * A tokenizer that does not load is one line on stderr and status 1; so is a line that fails. */

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/detokenize.h"
#include "worker/model/tokenizer.h"

static json_t *encode(const struct tokenizer *tokenizer, const json_t *line, struct err *err)
{
    const json_t *text = json_object_get(line, "text");
    struct ids ids = { 0 };
    json_t *list = json_array();

    if (!tokenizer_encode(tokenizer, span_of(json_string_value(text), json_string_length(text)), &ids, err)) {
        json_decref(list);
        list = NULL;
    }
    for (size_t i = 0; i < ids.count; i++)
        json_array_append_new(list, json_integer(ids.id[i]));
    ids_fini(&ids);
    return list ? json_pack("{s:o}", "ids", list) : NULL;
}

/* One id at a time, as a generation does. */
static json_t *decode(const struct tokenizer *tokenizer, const json_t *line)
{
    struct detokenizer detokenizer;
    struct buf text = { 0 };
    const json_t *id;
    json_t *out;
    size_t i;

    detokenizer_init(&detokenizer, tokenizer, true);
    json_array_foreach(json_object_get(line, "ids"), i, id)
        detokenizer_add(&detokenizer, (int32_t)json_integer_value(id), &text);
    detokenizer_end(&detokenizer, &text);
    out = json_pack("{s:o}", "text", json_stringn(text.data ? (const char *)text.data : "", text.size));
    buf_fini(&text);
    return out;
}

int main(int argc, char **argv)
{
    bool decoding = argc > 2 && strcmp(argv[2], "--decode") == 0;
    struct tokenizer *tokenizer;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    struct err err = { 0 };
    int status = 0;

    if (argc < 2) {
        fprintf(stderr, "tokenizer_ids: DIR expected\n");
        return 1;
    }
    if (!tokenizer_load(&tokenizer, argv[1], &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    while (status == 0 && (size = getline(&line, &capacity, stdin)) > 0) {
        json_error_t fault;
        json_t *in = json_loadb(line, (size_t)size, JSON_ALLOW_NUL, &fault);
        json_t *out = in ? (decoding ? decode(tokenizer, in) : encode(tokenizer, in, &err)) : NULL;

        if (!out || json_dumpf(out, stdout, JSON_COMPACT) != 0) {
            fprintf(stderr, "%s\n", in ? err.text : fault.text);
            status = 1;
        }
        putchar('\n');
        json_decref(in);
        json_decref(out);
    }
    free(line);
    tokenizer_free(tokenizer);
    return status;
}
