#include "worker/model/schema.h"

#include <jansson.h>
#include <stdlib.h>

/* The texts of a JSON array, each of them the whole output. */
static bool read_choice(struct grammar_builder *builder, struct span text, grammar_node *root,
                        struct err *err)
{
    json_error_t fault;
    json_t *list, *seen = json_object();
    const json_t *item;
    struct span *texts = NULL;
    struct dfa *dfa;
    size_t i;
    bool ok = false;

    if (text.size > SCHEMA_BYTES_MAX) {
        json_decref(seen);
        return err_set(err, ERR_LIMIT, "choice: it has %zu bytes; expected at most %d", text.size,
                       SCHEMA_BYTES_MAX);
    }
    list = json_loadb(text.size ? (const char *)text.data : "", text.size, JSON_DECODE_ANY | JSON_ALLOW_NUL,
                      &fault);
    if (!list) {
        err_set(err, ERR_INPUT, "choice: it is not JSON: line %d, column %d: %s", fault.line, fault.column,
                fault.text);
        goto out;
    }
    if (!json_is_array(list) || json_array_size(list) == 0) {
        err_set(err, ERR_INPUT, "choice: expected an array of at least one text");
        goto out;
    }
    if (json_array_size(list) > SCHEMA_ENUM_MAX) {
        err_set(err, ERR_LIMIT, "choice: expected at most %d texts, found %zu", SCHEMA_ENUM_MAX,
                json_array_size(list));
        goto out;
    }
    texts = malloc(json_array_size(list) * sizeof *texts);
    if (!texts || !seen) {
        err_set(err, ERR_IO, "choice: no memory");
        goto out;
    }
    json_array_foreach(list, i, item)
    {
        size_t size = json_string_length(item);

        if (!json_is_string(item) || size == 0) {
            err_set(err, ERR_INPUT, "choice: number %zu: expected a text of at least one character", i + 1);
            goto out;
        }
        texts[i] = span_of(json_string_value(item), size);
        if (json_object_getn(seen, json_string_value(item), size)) {
            err_set(err, ERR_INPUT, "choice: number %zu is there twice", i + 1);
            goto out;
        }
        if (json_object_setn_new(seen, json_string_value(item), size, json_null()) != 0) {
            err_set(err, ERR_IO, "choice: no memory");
            goto out;
        }
    }
    ok = dfa_texts(&dfa, texts, json_array_size(list), err) || err_wrap(err, "choice");
    if (ok)
        *root = grammar_regular(builder, dfa);
out:
    free(texts);
    json_decref(list);
    json_decref(seen);
    return ok;
}

static bool read_regex(struct grammar_builder *builder, struct span text, grammar_node *root, struct err *err)
{
    struct dfa *dfa;

    if (!dfa_pattern(&dfa, text, false, err))
        return err_wrap(err, "regex");
    if (dfa_is_empty(dfa)) {
        dfa_free(dfa);
        return err_set(err, ERR_INPUT, "regex: no text matches it");
    }
    *root = grammar_regular(builder, dfa);
    return true;
}

bool structured_grammar(struct grammar **grammar, enum structured_kind kind, struct span text,
                        const struct schema_options *options, const struct vocabulary *vocabulary,
                        struct err *err)
{
    struct grammar_builder *builder = grammar_builder_new();
    static const char *const names[] = { [STRUCTURED_SCHEMA] = "JSON schema",
                                         [STRUCTURED_JSON_OBJECT] = "JSON object",
                                         [STRUCTURED_CHOICE] = "choice",
                                         [STRUCTURED_REGEX] = "regex" };
    grammar_node part[2] = { 0 };
    bool ok = false;

    *grammar = NULL;
    if (!builder)
        return err_set(err, ERR_IO, "no memory");
    switch (kind) {
    case STRUCTURED_SCHEMA:
        ok = schema_read(builder, text, options, &part[1], err);
        break;
    case STRUCTURED_JSON_OBJECT:
        ok = schema_read(builder, span_text("{\"type\":\"object\"}"), NULL, &part[1], err);
        break;
    case STRUCTURED_CHOICE:
        ok = read_choice(builder, text, &part[1], err);
        break;
    case STRUCTURED_REGEX:
        ok = read_regex(builder, text, &part[1], err);
        break;
    }
    if (ok && (kind == STRUCTURED_SCHEMA || kind == STRUCTURED_JSON_OBJECT)) {
        const grammar_node space[2] = { grammar_literal(builder, span_text("")),
                                        grammar_literal(builder, span_text(" ")) };

        part[0] =
            grammar_choice(builder, space, 2); /* many tokenizers have the value's first token with a space */
        part[1] = grammar_sequence(builder, part, 2);
    }
    ok =
        ok && (grammar_build(grammar, builder, part[1], vocabulary, err) || err_wrap(err, "%s", names[kind]));
    grammar_builder_free(builder);
    return ok;
}
