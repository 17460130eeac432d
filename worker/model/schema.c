#include "worker/model/schema.h"

#include <assert.h>
#include <stdlib.h>

#include "worker/model/schema_form.h"

enum { MAKER_DEPTH_MAX = 64 }; /* of calls; what lies deeper waits in the queue */

struct maker {
    struct form form;
    struct grammar_builder *builder;
    struct dfa *any_key; /* all JSON strings */
    uint32_t *queue;     /* meets that have been promised */
    uint32_t queue_count, queue_done;
    struct err *err;
};

static bool no_memory(struct err *err)
{
    return err_set(err, ERR_IO, "no memory");
}

static bool make(struct maker *m, uint32_t meet, int depth, grammar_node *node);

/* ---- parts that are regular ------------------------------------------------------------------------- */

struct parts {         /* at most one a shape, and one for all words */
    struct dfa *words; /* owned; NULL: none */
    struct regular **regular;
    size_t regular_count;
    grammar_node *node;
    size_t node_count;
};

/* null, true, false and the values that are listed. */
static bool add_words(struct maker *m, const struct meet *meet, struct parts *parts)
{
    const struct source *source = &m->form.tree->source;
    struct buf text = { 0 };
    size_t count = 0, *end = malloc((meet->value_count + 3) * sizeof *end);
    struct span *word = malloc((meet->value_count + 3) * sizeof *word);
    bool ok = end && word;

    for (uint32_t i = 0; ok && i < meet->value_count; i++) {
        ok = source_spell(source, meet->value[i], &text);
        end[count++] = text.size;
    }
    for (uint32_t i = 0; ok && i < meet->shape_count; i++) {
        enum schema_type type = m->form.shape[meet->shape[i]]->type;

        if (type == TYPE_NULL) {
            ok = buf_text(&text, "null");
            end[count++] = text.size;
        } else if (type == TYPE_BOOLEAN) {
            ok = buf_text(&text, "false");
            end[count++] = text.size;
            ok = ok && buf_text(&text, "true");
            end[count++] = text.size;
        }
    }
    if (!ok)
        no_memory(m->err);
    for (size_t i = 0; ok && i < count; i++) {
        size_t from = i > 0 ? end[i - 1] : 0;

        word[i] = span_of(text.data + from, end[i] - from);
    }
    if (ok && count > 0) {
        ok = dfa_texts(&parts->words, word, count, m->err);
        if (!ok) {
            char pointer[TREE_POINTER_MAX];

            err_wrap(m->err, "%s: its values",
                     tree_pointer(m->form.tree, meet->count > 0 ? meet->id[0] & ~FORM_OWN : SCHEMA_ROOT, NULL,
                                  pointer));
        } else {
            ok = valuer_charge(&m->form.valuer, parts->words, m->err);
        }
    }
    buf_fini(&text);
    free(word);
    free(end);
    return ok;
}

/* By itself: then all who allow it share one node. */
static bool add_regular(struct maker *m, struct regular *regular, struct parts *parts)
{
    const struct dfa *written;
    struct dfa *copy;

    if (!regular->node) {
        if (!form_written(&m->form, regular, &written, m->err) ||
            !valuer_charge(&m->form.valuer, written, m->err))
            return false;
        copy = dfa_copy(written);
        if (!copy)
            return no_memory(m->err);
        regular->node = grammar_regular(m->builder, copy);
    }
    parts->node[parts->node_count++] = regular->node;
    return true;
}

/* One automaton of them all, so that no byte of them leaves two ways open; what would make it too large stays
 * by itself. */
static bool join_regular(struct maker *m, struct parts *parts)
{
    struct dfa *one = parts->words;

    parts->words = NULL;
    for (size_t i = 0; i < parts->regular_count; i++) {
        const struct dfa *written;
        struct dfa *both = NULL;
        bool ok = form_written(&m->form, parts->regular[i], &written, m->err);

        if (ok && !one && parts->regular_count == 1)
            return add_regular(m, parts->regular[i], parts);
        if (ok && !one)
            ok = (both = dfa_copy(written)) || no_memory(m->err);
        else if (ok && (one->count + written->count > FORM_JOIN_MAX || !dfa_union(&both, one, written, NULL)))
            ok = add_regular(m, parts->regular[i], parts);
        if (ok && both) {
            dfa_free(one);
            one = both;
        }
        if (!ok || (both && !valuer_charge(&m->form.valuer, one, m->err))) {
            dfa_free(one);
            return false;
        }
    }
    if (one)
        parts->node[parts->node_count++] = grammar_regular(m->builder, one);
    return true;
}

/* ---- shapes ----------------------------------------------------------------------------------------- */

static bool make_array(struct maker *m, const struct shape *shape, int depth, grammar_node *node)
{
    grammar_node *prefix = malloc((shape->prefix_count + 1) * sizeof *prefix);
    struct grammar_array array = {
        .prefix = prefix, .prefix_count = shape->prefix_count, .low = shape->low, .high = shape->high
    };
    bool ok = prefix || no_memory(m->err);

    for (uint32_t i = 0; ok && i < shape->prefix_count; i++)
        ok = make(m, shape->prefix[i], depth, &prefix[i]);
    if (ok && shape->high > shape->prefix_count)
        ok = make(m, shape->items, depth, &array.items);
    if (ok)
        *node = grammar_array(m->builder, &array);
    free(prefix);
    return ok;
}

/* Keys that other properties can have. */
static bool other_keys(struct maker *m, const struct span *key, size_t count, struct dfa **keys)
{
    struct dfa *texts = NULL, *declared = NULL;
    bool ok = true;

    if (!m->any_key)
        ok = dfa_any_text(&texts, m->err) && dfa_spell(&m->any_key, texts, m->err);
    ok = ok && dfa_texts(&declared, key, count, m->err) && dfa_subtract(keys, m->any_key, declared, m->err);
    dfa_free(texts);
    dfa_free(declared);
    return ok && valuer_charge(&m->form.valuer, *keys, m->err);
}

static bool make_object(struct maker *m, const struct shape *shape, int depth, grammar_node *node)
{
    size_t count = shape->property_count;
    struct grammar_property *property = malloc((count + 1) * sizeof *property);
    struct span *key = malloc((count + 1) * sizeof *key);
    size_t *end = malloc((count + 1) * sizeof *end);
    struct buf text = { 0 };
    struct dfa *keys = NULL;
    struct grammar_object object = { .property = property, .property_count = count };
    bool ok = (property && key && end) || no_memory(m->err);

    for (size_t i = 0; ok && i < count; i++) {
        ok = source_spell_text(span_text(shape->property[i].name), &text) || no_memory(m->err);
        end[i] = text.size;
    }
    for (size_t i = 0; ok && i < count; i++) {
        size_t from = i > 0 ? end[i - 1] : 0;

        key[i] = span_of(text.data + from, end[i] - from);
        property[i] = (struct grammar_property){ .key = key[i], .required = shape->property[i].required };
        ok = make(m, shape->property[i].meet, depth, &property[i].value);
    }
    if (ok && shape->other != FORM_NONE) {
        ok = form_settle(&m->form, shape->other, m->err);
        if (ok && !m->form.meet[shape->other]->empty) {
            ok = make(m, shape->other, depth, &object.other_value) && other_keys(m, key, count, &keys);
            object.other_key = keys;
        }
    }
    if (ok)
        *node = grammar_object(m->builder, &object);
    dfa_free(keys);
    buf_fini(&text);
    free(end);
    free(key);
    free(property);
    return ok;
}

/* Adds the shape to the parts of a meet. */
static bool add_shape(struct maker *m, struct shape *shape, int depth, struct parts *parts)
{
    bool ok = true;

    if (shape->empty || shape->type == TYPE_NULL ||
        shape->type == TYPE_BOOLEAN) /* the latter are among the words */
        return true;
    if (shape->regular) {
        for (size_t i = 0; i < parts->regular_count; i++)
            if (parts->regular[i] == shape->regular)
                return true;
        parts->regular[parts->regular_count++] = shape->regular;
        return true;
    }
    if (!shape->node) {
        if (shape->type == TYPE_STRING)
            shape->node = grammar_string(m->builder, shape->low, shape->high);
        else
            ok = shape->type == TYPE_ARRAY ? make_array(m, shape, depth, &shape->node)
                                           : make_object(m, shape, depth, &shape->node);
    }
    if (ok)
        parts->node[parts->node_count++] = shape->node;
    return ok;
}

static bool make_parts(struct maker *m, struct meet *meet, int depth, grammar_node *node)
{
    struct parts parts = { 0 };
    bool ok;

    parts.regular = malloc((meet->shape_count + 1) * sizeof(struct regular *));
    parts.node = malloc((meet->shape_count + 1) * sizeof *parts.node);
    ok = (parts.regular && parts.node) || no_memory(m->err);
    ok = ok && add_words(m, meet, &parts);
    for (uint32_t i = 0; ok && i < meet->shape_count; i++)
        ok = add_shape(m, m->form.shape[meet->shape[i]], depth + 1, &parts);
    ok = ok && join_regular(m, &parts);
    if (ok && parts.node_count > GRAMMAR_PATHS_MAX)
        ok = tree_error(m->form.tree, meet->id[0] & ~FORM_OWN, NULL, ERR_LIMIT, m->err,
                        "it allows %zu kinds of objects, arrays and strings; at most %d can be told apart "
                        "while they are written",
                        parts.node_count, GRAMMAR_PATHS_MAX);
    if (ok)
        *node = parts.node_count == 0   ? grammar_nothing(m->builder)
                : parts.node_count == 1 ? parts.node[0]
                                        : grammar_choice(m->builder, parts.node, parts.node_count);
    dfa_free(parts.words);
    free(parts.regular);
    free(parts.node);
    return ok;
}

/* ---- meets ------------------------------------------------------------------------------------------ */

/* depth: of calls. A meet that is being made, or lies too deep, is promised and defined later. */
static bool make(struct maker *m, uint32_t index, int depth, grammar_node *node)
{
    struct meet *meet = m->form.meet[index];
    bool ok;

    if (meet->node || meet->reserved) {
        *node = meet->node ? meet->node : meet->reserved;
        return true;
    }
    if (meet->making || depth > MAKER_DEPTH_MAX) {
        *node = meet->reserved = grammar_reserve(m->builder);
        if (!meet->making)
            m->queue[m->queue_count++] = index;
        return true;
    }
    if (!form_settle(&m->form, index, m->err))
        return false;
    meet->making = true;
    ok = make_parts(m, meet, depth, &meet->node);
    meet->making = false;
    if (ok && meet->reserved)
        grammar_define(m->builder, meet->reserved, meet->node);
    *node = meet->node;
    return ok;
}

static bool make_all(struct maker *m, uint32_t root, grammar_node *node)
{
    if (!make(m, root, 0, node))
        return false;
    while (m->queue_done < m->queue_count) {
        uint32_t index = m->queue[m->queue_done++];
        struct meet *meet = m->form.meet[index];

        if (!form_settle(&m->form, index, m->err))
            return false;
        meet->making = true;
        if (!make_parts(m, meet, 0, &meet->node))
            return false;
        meet->making = false;
        grammar_define(m->builder, meet->reserved, meet->node);
    }
    return true;
}

/* ---- what never ends -------------------------------------------------------------------------------- */

/* The first part that must be there and does not end, or FORM_NONE. */
static uint32_t endless_part(const struct form *form, const struct shape *shape)
{
    if (shape->type == TYPE_ARRAY) {
        for (uint32_t i = 0; i < shape->low && i < shape->prefix_count; i++)
            if (!form->meet[shape->prefix[i]]->ends)
                return shape->prefix[i];
        if (shape->low > shape->prefix_count && !form->meet[shape->items]->ends)
            return shape->items;
    } else if (shape->type == TYPE_OBJECT) {
        for (uint32_t i = 0; i < shape->property_count; i++)
            if (shape->property[i].required && !form->meet[shape->property[i].meet]->ends)
                return shape->property[i].meet;
    }
    return FORM_NONE;
}

static bool ends(const struct form *form, const struct meet *meet)
{
    if (meet->value_count > 0 ||
        meet->state == FORM_NEW) /* one that was not looked at stands where nothing needs it */
        return true;
    for (uint32_t i = 0; i < meet->shape_count; i++)
        if (!form->shape[meet->shape[i]]->empty &&
            endless_part(form, form->shape[meet->shape[i]]) == FORM_NONE)
            return true;
    return false;
}

/* Recursion that has no end: an object that requires itself.  The compiler of the grammar would see it too,
 * but here it has a pointer. */
static bool check_ends(struct maker *m, uint32_t root)
{
    struct form *form = &m->form;
    bool changed = true;
    uint32_t at = root;

    while (changed) {
        changed = false;
        for (uint32_t i = form->meet_count; i > 0; i--) { /* parts come after what they are part of */
            struct meet *meet = form->meet[i - 1];

            if (!meet->ends && ends(form, meet))
                meet->ends = changed = true;
        }
    }
    for (uint32_t step = 0; !form->meet[root]->ends && step < form->meet_count;
         step++) { /* far enough to stand in the circle */
        const struct meet *meet = form->meet[at];

        for (uint32_t i = 0; i < meet->shape_count; i++)
            if (!form->shape[meet->shape[i]]->empty) {
                at = endless_part(form, form->shape[meet->shape[i]]);
                break;
            }
        if (form->meet[at]->empty)
            break;
    }
    if (form->meet[root]->ends)
        return true;
    if (form->meet[at]->empty)
        return tree_error(form->tree, form->meet[at]->why.id, form->meet[at]->why.keyword, ERR_INPUT, m->err,
                          "%s", form->meet[at]->why.text);
    return tree_error(form->tree, form->meet[at]->count > 0 ? form->meet[at]->id[0] & ~FORM_OWN : SCHEMA_ROOT,
                      NULL, ERR_INPUT, m->err, "no value of it ever ends: it requires itself without end");
}

/* Messages quote what a user wrote, which may be anything, and may be cut anywhere. */
static void make_one_line(struct err *err)
{
    uint8_t *at = err ? (uint8_t *)err->text : NULL;

    while (at && *at) {
        size_t size = 1, left = strlen((char *)at);

        while (size <= 4 && size <= left && !span_is_utf8(span_of(at, size)))
            size++;
        if (size > 4 || size > left || *at < 0x20 || *at == 0x7f) {
            *at = '?';
            size = 1;
        }
        at += size;
    }
}

/* ---- the whole -------------------------------------------------------------------------------------- */

static bool read_all(struct maker *m, struct span text, bool closed, grammar_node *root)
{
    const uint32_t whole = SCHEMA_ROOT;
    struct tree tree;
    uint32_t meet;
    bool ok;

    if (!tree_read(&tree, text, m->err))
        return false;
    if (!form_init(&m->form, &tree, closed, m->err)) {
        tree_fini(&tree);
        return false;
    }
    m->queue = malloc(SCHEMA_NODES_MAX * sizeof *m->queue);
    ok = (m->queue || no_memory(m->err)) && form_meet(&m->form, &whole, 1, &meet, m->err) &&
         form_settle(&m->form, meet, m->err);
    if (ok && m->form.meet[meet]->empty) {
        const struct why *why = &m->form.meet[meet]->why;

        ok = tree_error(&tree, why->id, why->keyword, ERR_INPUT, m->err, "%s", why->text);
    }
    ok = ok && make_all(m, meet, root) && check_ends(m, meet);
    dfa_free(m->any_key);
    free(m->queue);
    form_fini(&m->form);
    tree_fini(&tree);
    return ok;
}

bool schema_read(struct grammar_builder *builder, struct span text, const struct schema_options *options,
                 grammar_node *root, struct err *err)
{
    struct maker m = { .builder = builder, .err = err };

    *root = 0;
    if (read_all(&m, text, options && options->closed, root))
        return true;
    *root = 0;
    make_one_line(err);
    return err_wrap(err, "JSON schema");
}
