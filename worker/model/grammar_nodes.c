#include "worker/model/grammar_inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct grammar_builder {
    struct rule *rule; /* 0 is not used: it is the node that stands for an error */
    uint32_t count, capacity;
    size_t states, bytes;
    uint32_t *same; /* by hash of contents: literals, regular languages and strings that are there already */
    uint32_t same_size, same_count;
    struct err err; /* the first */
};

static size_t regular_bytes(const struct regular *r)
{
    return r->dfa ? (size_t)r->dfa->count * (r->dfa->classes * sizeof *r->dfa->next + 8) + sizeof *r->dfa : 0;
}

static void regular_fini(struct regular *r)
{
    dfa_free(r->dfa);
    free(r->far);
    free(r->only);
    free(r->best);
}

static void object_fini(struct object_rule *o)
{
    for (uint32_t i = 0; i < o->count; i++)
        free((void *)(uintptr_t)o->property[i].key.data);
    free(o->property);
    regular_fini(&o->other);
    free(o->key_sorted);
    free(o->required_next);
    free(o->after);
    free(o->property_best);
    free(o->key_best);
    free(o->node);
    free(o->key_child);
}

void rules_free(struct rule *rule, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        switch (rule[i].kind) {
        case RULE_LITERAL:
            free(rule[i].literal.bytes);
            break;
        case RULE_REGULAR:
            regular_fini(&rule[i].regular);
            break;
        case RULE_SEQUENCE:
        case RULE_CHOICE:
            free(rule[i].list.part);
            free(rule[i].list.rest);
            break;
        case RULE_ARRAY:
            free(rule[i].array.prefix);
            free(rule[i].array.sum);
            break;
        case RULE_OBJECT:
            object_fini(&rule[i].object);
            break;
        case RULE_NOTHING:
        case RULE_STRING:
            break;
        }
    free(rule);
}

/* ---- nodes -------------------------------------------------------------------------------------- */

struct grammar_builder *grammar_builder_new(void)
{
    struct grammar_builder *b = calloc(1, sizeof *b);

    if (!b || !(b->rule = calloc(64, sizeof *b->rule))) {
        free(b);
        return NULL;
    }
    b->capacity = 64;
    b->count = 1;
    return b;
}

void grammar_builder_free(struct grammar_builder *b)
{
    if (!b)
        return;
    rules_free(b->rule, b->count);
    free(b->same);
    free(b);
}

/* The first error stays. */
__attribute__((format(printf, 3, 4))) static grammar_node refuse(struct grammar_builder *b,
                                                                 enum err_code code, const char *format, ...)
{
    char text[200];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (b->err.code == ERR_NONE)
        err_set(&b->err, code, "%s", text);
    return 0;
}

static grammar_node no_memory(struct grammar_builder *b)
{
    return refuse(b, ERR_IO, "out of memory");
}

/* Room for one more node, and the count of its states. */
static bool room(struct grammar_builder *b, size_t states, size_t bytes)
{
    if (b->err.code != ERR_NONE)
        return false;
    if (b->count > GRAMMAR_NODES_MAX)
        return refuse(b, ERR_LIMIT, "the grammar has more than %d nodes", GRAMMAR_NODES_MAX), false;
    if (states > GRAMMAR_STATES_MAX || b->states + states > GRAMMAR_STATES_MAX)
        return refuse(b, ERR_LIMIT, "the grammar has more than %d states", GRAMMAR_STATES_MAX), false;
    if (b->bytes + bytes > GRAMMAR_BYTES_MAX / 2)
        return refuse(b, ERR_LIMIT, "the grammar takes more than %d bytes", GRAMMAR_BYTES_MAX / 2), false;
    if (b->count == b->capacity) {
        struct rule *grown = realloc(b->rule, 2 * (size_t)b->capacity * sizeof *grown);

        if (!grown)
            return no_memory(b), false;
        memset(grown + b->capacity, 0, b->capacity * sizeof *grown);
        b->rule = grown;
        b->capacity *= 2;
    }
    b->states += states;
    b->bytes += bytes + sizeof *b->rule;
    return true;
}

static grammar_node add(struct grammar_builder *b, const struct rule *rule)
{
    b->rule[b->count] = *rule;
    return b->count++;
}

static bool are_nodes(struct grammar_builder *b, const grammar_node *node, size_t count)
{
    bool ok = true;

    for (size_t i = 0; i < count; i++)
        ok &= node[i] != 0 && node[i] < b->count;
    if (!ok)
        refuse(b, ERR_INPUT, "a part of the grammar is missing");
    return ok;
}

static uint32_t *copy_nodes(const grammar_node *node, size_t count)
{
    uint32_t *copy = malloc((count + 1) * sizeof *copy);

    if (copy && count)
        memcpy(copy, node, count * sizeof *copy);
    return copy;
}

/* ---- nodes that are there already --------------------------------------------------------------- */

static uint32_t hash_bytes(uint32_t hash, const void *data, size_t size)
{
    return span_crc32c(hash, span_of(data, size));
}

static uint32_t hash_rule(const struct rule *r)
{
    uint32_t hash = hash_bytes(0, &r->kind, sizeof r->kind);

    if (r->kind == RULE_LITERAL)
        return hash_bytes(hash, r->literal.bytes, r->literal.size);
    if (r->kind == RULE_STRING)
        return hash_bytes(hash, &r->string, sizeof r->string);
    hash = hash_bytes(hash, r->regular.dfa->class_of, sizeof r->regular.dfa->class_of);
    hash = hash_bytes(hash, r->regular.dfa->accepts, r->regular.dfa->count);
    return hash_bytes(hash, r->regular.dfa->next,
                      (size_t)r->regular.dfa->count * r->regular.dfa->classes * sizeof *r->regular.dfa->next);
}

static bool is_same(const struct rule *r, const struct rule *s)
{
    const struct dfa *a, *b;

    if (r->kind != s->kind)
        return false;
    if (r->kind == RULE_LITERAL)
        return span_equal(span_of(r->literal.bytes, r->literal.size),
                          span_of(s->literal.bytes, s->literal.size));
    if (r->kind == RULE_STRING)
        return r->string.low == s->string.low && r->string.high == s->string.high;
    a = r->regular.dfa;
    b = s->regular.dfa;
    return a->count == b->count && a->start == b->start && a->classes == b->classes &&
           memcmp(a->class_of, b->class_of, sizeof a->class_of) == 0 &&
           memcmp(a->accepts, b->accepts, a->count) == 0 &&
           memcmp(a->next, b->next, (size_t)a->count * a->classes * sizeof *a->next) == 0;
}

static bool same_grow(struct grammar_builder *b)
{
    uint32_t size = b->same_size ? b->same_size * 2 : 64, *grown = calloc(size, sizeof *grown);

    if (!grown)
        return false;
    for (uint32_t i = 0; i < b->same_size; i++)
        if (b->same[i]) {
            uint32_t at = hash_rule(&b->rule[b->same[i]]) & (size - 1);

            while (grown[at])
                at = (at + 1) & (size - 1);
            grown[at] = b->same[i];
        }
    free(b->same);
    b->same = grown;
    b->same_size = size;
    return true;
}

/* Equal leaves are one node, so that fields of the same form share their masks.  *fresh: it was not there. */
static grammar_node add_leaf(struct grammar_builder *b, const struct rule *rule, bool *fresh)
{
    uint32_t at;

    *fresh = false;
    if (2 * b->same_count >= b->same_size && !same_grow(b))
        return no_memory(b);
    for (at = hash_rule(rule) & (b->same_size - 1); b->same[at]; at = (at + 1) & (b->same_size - 1))
        if (is_same(&b->rule[b->same[at]], rule))
            return b->same[at];
    *fresh = true;
    b->same_count++;
    return b->same[at] = add(b, rule);
}

/* ---- kinds of nodes ----------------------------------------------------------------------------- */

grammar_node grammar_nothing(struct grammar_builder *b)
{
    struct rule rule = { .kind = RULE_NOTHING };

    return room(b, 1, 0) ? add(b, &rule) : 0;
}

grammar_node grammar_literal(struct grammar_builder *b, struct span bytes)
{
    struct rule rule = { .kind = RULE_LITERAL };
    grammar_node node;
    bool fresh;

    if (!room(b, bytes.size + 1, bytes.size))
        return 0;
    if (!(rule.literal.bytes = malloc(bytes.size + 1)))
        return no_memory(b);
    if (bytes.size)
        memcpy(rule.literal.bytes, bytes.data, bytes.size);
    rule.literal.size = (uint32_t)bytes.size;
    node = add_leaf(b, &rule, &fresh);
    if (!fresh)
        free(rule.literal.bytes);
    return node;
}

grammar_node grammar_regular(struct grammar_builder *b, struct dfa *dfa)
{
    struct rule rule = { .kind = RULE_REGULAR, .regular = { .dfa = dfa } };
    grammar_node node;
    bool fresh;

    if (!dfa)
        return refuse(b, ERR_INPUT, "a part of the grammar is missing");
    if (!room(b, dfa->count, regular_bytes(&rule.regular))) {
        dfa_free(dfa);
        return 0;
    }
    node = add_leaf(b, &rule, &fresh);
    if (!fresh) {
        b->states -= dfa->count;
        b->bytes -= regular_bytes(&rule.regular);
        dfa_free(dfa);
    }
    return node;
}

static bool check_bounds(struct grammar_builder *b, uint32_t low, uint32_t *high)
{
    if (low > GRAMMAR_ITEMS_MAX && b->err.code == ERR_NONE)
        refuse(b, ERR_LIMIT, "a least length of more than %d", GRAMMAR_ITEMS_MAX);
    if (*high > GRAMMAR_ITEMS_MAX)
        *high = GRAMMAR_NO_MAX;
    return low <= GRAMMAR_ITEMS_MAX;
}

grammar_node grammar_string(struct grammar_builder *b, uint32_t low, uint32_t high)
{
    struct rule rule = { .kind = RULE_STRING };
    bool fresh;

    if (!check_bounds(b, low, &high) || !room(b, STRING_STATES, 0))
        return 0;
    if (low > high)
        return grammar_nothing(b);
    rule.string.low = low;
    rule.string.high = high;
    return add_leaf(b, &rule, &fresh);
}

static grammar_node add_list(struct grammar_builder *b, enum rule_kind kind, const grammar_node *part,
                             size_t count)
{
    struct rule rule = { .kind = kind, .list = { .count = (uint32_t)count, .defined = true } };

    if (!room(b, count + 1, (count + 1) * 16) || !are_nodes(b, part, count))
        return 0;
    if (!(rule.list.part = copy_nodes(part, count)))
        return no_memory(b);
    return add(b, &rule);
}

grammar_node grammar_sequence(struct grammar_builder *b, const grammar_node *part, size_t count)
{
    return add_list(b, RULE_SEQUENCE, part, count);
}

grammar_node grammar_choice(struct grammar_builder *b, const grammar_node *branch, size_t count)
{
    return add_list(b, RULE_CHOICE, branch, count);
}

grammar_node grammar_array(struct grammar_builder *b, const struct grammar_array *array)
{
    struct rule rule = { .kind = RULE_ARRAY };
    uint32_t high = array->high;

    if (!check_bounds(b, array->low, &high) || !room(b, array->prefix_count + 5, array->prefix_count * 12) ||
        !are_nodes(b, array->prefix, array->prefix_count))
        return 0;
    if (array->items && !are_nodes(b, &array->items, 1))
        return 0;
    rule.array.prefix_count = (uint32_t)array->prefix_count;
    rule.array.items = array->items;
    rule.array.low = array->low;
    rule.array.high = high;
    if (!(rule.array.prefix = copy_nodes(array->prefix, array->prefix_count)))
        return no_memory(b);
    return add(b, &rule);
}

/* So that no key begins another, and a colon tells where it ends. */
static bool is_literal(struct span key)
{
    if (key.size < 2 || key.data[0] != '"' || key.data[key.size - 1] != '"')
        return false;
    for (size_t i = 1; i + 1 < key.size; i++) {
        if (key.data[i] == '"')
            return false;
        if (key.data[i] == '\\' && ++i + 1 == key.size)
            return false;
    }
    return true;
}

static bool copy_properties(struct grammar_builder *b, struct object_rule *o,
                            const struct grammar_object *object)
{
    if (!(o->property = calloc(object->property_count + 1, sizeof *o->property)))
        return no_memory(b), false;
    for (size_t i = 0; i < object->property_count; i++) {
        const struct grammar_property *from = &object->property[i];
        uint8_t *key;

        if (!are_nodes(b, &from->value, 1))
            return false;
        if (!is_literal(from->key))
            return refuse(b, ERR_INPUT, "a key is not a JSON string literal"), false;
        if (!(key = malloc(from->key.size)))
            return no_memory(b), false;
        memcpy(key, from->key.data, from->key.size);
        o->property[o->count++] = (struct property){ .key = span_of(key, from->key.size),
                                                     .value = from->value,
                                                     .required = from->required };
    }
    return true;
}

grammar_node grammar_object(struct grammar_builder *b, const struct grammar_object *object)
{
    struct rule rule = { .kind = RULE_OBJECT };
    struct object_rule *o = &rule.object;
    struct regular other = { .dfa = object->other_key };
    size_t key_bytes = 0;

    for (size_t i = 0; i < object->property_count; i++)
        key_bytes += object->property[i].key.size;
    if (object->other_key && !are_nodes(b, &object->other_value, 1))
        return 0;
    if (!room(b, key_bytes + OBJECT_KEY + 1 + (object->other_key ? object->other_key->count : 0),
              key_bytes * 40 + object->property_count * 120 + regular_bytes(&other)))
        return 0;
    if (!copy_properties(b, o, object)) {
        object_fini(o);
        return 0;
    }
    if (object->other_key) {
        o->other_value = object->other_value;
        if (!(o->other.dfa = dfa_copy(object->other_key))) {
            object_fini(o);
            return no_memory(b);
        }
    }
    return add(b, &rule);
}

grammar_node grammar_reserve(struct grammar_builder *b)
{
    struct rule rule = { .kind = RULE_CHOICE, .list = { .reserved = true } };

    if (!room(b, 2, 32))
        return 0;
    if (!(rule.list.part = malloc(2 * sizeof *rule.list.part)))
        return no_memory(b);
    return add(b, &rule);
}

void grammar_define(struct grammar_builder *b, grammar_node reserved, grammar_node as)
{
    struct rule *rule;

    if (b->err.code != ERR_NONE || !are_nodes(b, &reserved, 1) || !are_nodes(b, &as, 1))
        return;
    rule = &b->rule[reserved];
    if (rule->kind != RULE_CHOICE || !rule->list.reserved || rule->list.defined) {
        refuse(b, ERR_INPUT, "a node is defined that was not reserved, or twice");
        return;
    }
    rule->list.part[0] = as;
    rule->list.count = 1;
    rule->list.defined = true;
}

bool builder_hand_over(struct grammar_builder *b, struct grammar *g, struct err *err)
{
    if (b->err.code != ERR_NONE) {
        if (err)
            *err = b->err;
        return false;
    }
    if (g->root == 0 || g->root >= b->count)
        return err_set(err, ERR_INPUT, "the grammar is missing");
    g->rule = b->rule;
    g->rule_count = b->count;
    g->rule_bytes = b->bytes;
    b->rule = NULL;
    b->count = 0;
    refuse(b, ERR_INPUT, "the grammar has been built");
    return true;
}
