#include "worker/model/schema_form.h"

#include <inttypes.h>
#include <stdlib.h>

#include "worker/model/schema_number.h"

enum {
    SLOTS = 1 << 16,
    REGULAR_SLOTS = 1 << 12,
    FRAMES_A_MEET = 8,
    SHORT_STATES = 3 << 13, /* about what a pattern with a length gets where all of it would be too large */
    SHORT_TRIES = 5,
};
_Static_assert((int)SLOTS >= 2 * (int)SCHEMA_NODES_MAX, "interning always finds a slot");

bool form_init(struct form *form, const struct tree *tree, bool closed, struct err *err)
{
    *form = (struct form){ .tree = tree, .closed = closed };
    if (!valuer_init(&form->valuer, tree, err))
        return false;
    arena_init(&form->arena, FORM_BYTES_MAX);
    form->meet = calloc(SCHEMA_NODES_MAX, sizeof(struct meet *));
    form->shape = calloc(SCHEMA_NODES_MAX, sizeof(struct shape *));
    form->meet_slot = calloc(SLOTS, sizeof *form->meet_slot);
    form->shape_slot = calloc(SLOTS, sizeof *form->shape_slot);
    form->regular_slot = calloc(REGULAR_SLOTS, sizeof(struct regular *));
    if (form->meet && form->shape && form->meet_slot && form->shape_slot && form->regular_slot)
        return true;
    form_fini(form);
    return err_set(err, ERR_IO, "no memory");
}

void form_fini(struct form *form)
{
    for (int i = 0; form->regular_slot && i < REGULAR_SLOTS; i++)
        for (struct regular *r = form->regular_slot[i]; r; r = r->next) {
            dfa_free(r->texts);
            dfa_free(r->written);
        }
    free(form->regular_slot);
    dfa_free(form->no_leap);
    free(form->meet);
    free(form->shape);
    free(form->meet_slot);
    free(form->shape_slot);
    arena_fini(&form->arena);
    valuer_fini(&form->valuer);
    *form = (struct form){ 0 };
}

static void *take(struct form *form, size_t size, struct err *err)
{
    void *p = arena_take(&form->arena, size);

    if (!p)
        err_set(err, ERR_LIMIT, "the schema needs more than %d MiB of memory when it is worked out",
                FORM_BYTES_MAX >> 20);
    return p;
}

static bool spend(struct form *form, uint32_t id, struct err *err)
{
    if (form->work++ < FORM_WORK_MAX)
        return true;
    return tree_error(form->tree, id & ~FORM_OWN, NULL, ERR_LIMIT, err,
                      "to combine its schemas takes more than %d steps", FORM_WORK_MAX);
}

/* ---- interning -------------------------------------------------------------------------------------- */

static uint32_t hash_list(uint32_t type, const uint32_t *id, uint32_t count)
{
    uint64_t hash = (type + 1) * 0x9e3779b97f4a7c15u;

    for (uint32_t i = 0; i < count; i++)
        hash = (hash ^ id[i]) * 0xff51afd7ed558ccdu ^ (hash >> 31);
    return (uint32_t)(hash >> 24);
}

static bool same_list(const uint32_t *a, uint32_t a_count, const uint32_t *b, uint32_t b_count)
{
    return a_count == b_count && (a_count == 0 || memcmp(a, b, a_count * sizeof *a) == 0);
}

/* A schema in place of which nothing need be said, or another, or none at all. */
static uint32_t simplify(const struct tree *tree, uint32_t id)
{
    const struct schema *s;

    if (!(id & FORM_OWN))
        id = tree_resolve(tree, id);
    s = tree->schema[id & ~FORM_OWN];
    if (id & FORM_OWN && !s->own)
        return SCHEMA_TRUE;
    if (s->types == 0)
        return SCHEMA_FALSE;
    /* A schema that is all its own has one name. */
    return s->ref || s->any.count > 0 || s->one.count > 0 ? id : id & ~FORM_OWN;
}

bool form_meet(struct form *form, const uint32_t *id, uint32_t count, uint32_t *meet, struct err *err)
{
    uint32_t list[FORM_TOGETHER_MAX], n = 0, at, *copy;
    struct meet *m;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t one = simplify(form->tree, id[i]), j = 0;

        if (!spend(form, id[i], err))
            return false;
        if (one == SCHEMA_FALSE) {
            list[0] = one;
            n = 1;
            break;
        }
        if (one == SCHEMA_TRUE)
            continue;
        while (j < n && list[j] != one)
            j++;
        if (j < n)
            continue;
        if (n == FORM_TOGETHER_MAX)
            return tree_error(form->tree, one & ~FORM_OWN, NULL, ERR_LIMIT, err,
                              "more than %d schemas apply to one value", FORM_TOGETHER_MAX);
        list[n++] = one;
    }
    for (at = hash_list(TYPE_COUNT, list, n) % SLOTS; form->meet_slot[at]; at = (at + 1) % SLOTS) {
        m = form->meet[form->meet_slot[at] - 1];
        if (same_list(m->id, m->count, list, n)) {
            *meet = form->meet_slot[at] - 1;
            return true;
        }
    }
    if (form->meet_count == SCHEMA_NODES_MAX)
        return tree_error(form->tree, n > 0 ? list[0] & ~FORM_OWN : SCHEMA_ROOT, NULL, ERR_LIMIT, err,
                          "merged with what applies beside them, there are more than %d subschemas",
                          SCHEMA_NODES_MAX);
    m = take(form, sizeof *m, err);
    copy = m ? take(form, n * sizeof *copy, err) : NULL;
    if (!copy)
        return false;
    memcpy(copy, list, n * sizeof *copy);
    *m = (struct meet){ .id = copy, .count = n };
    form->meet[form->meet_count] = m;
    *meet = form->meet_count;
    form->meet_slot[at] = ++form->meet_count;
    return true;
}

/* ---- shapes: what is said about one type ------------------------------------------------------------ */

static void shape_is_empty(struct shape *shape, uint32_t id, const char *keyword, const char *text)
{
    if (!shape->empty)
        shape->why = (struct why){ .id = id, .keyword = keyword, .text = text };
    shape->empty = true;
}

static bool make_string(struct form *form, struct shape *shape)
{
    uint32_t last = 0;

    for (uint32_t i = 0; i < shape->count; i++) {
        const struct schema *s = form->tree->schema[shape->id[i]];

        if (s->length_low > shape->low) {
            shape->low = s->length_low;
            last = shape->id[i];
        }
        if (s->length_high < shape->high) {
            shape->high = s->length_high;
            last = shape->id[i];
        }
    }
    if (shape->low > shape->high)
        shape_is_empty(shape, last, NULL, "no length is allowed by all that applies here");
    return true;
}

static bool make_array(struct form *form, struct shape *shape, struct err *err)
{
    uint32_t id[FORM_TOGETHER_MAX], *prefix, last = 0;

    for (uint32_t i = 0; i < shape->count; i++) {
        const struct schema *s = form->tree->schema[shape->id[i]];

        if (s->items_low > shape->low) {
            shape->low = s->items_low;
            last = shape->id[i];
        }
        if (s->items_high < shape->high) {
            shape->high = s->items_high;
            last = shape->id[i];
        }
        if (s->prefix_count > shape->prefix_count)
            shape->prefix_count = s->prefix_count;
    }
    if (shape->low > shape->high) {
        shape_is_empty(shape, last, NULL, "no number of items is allowed by all that applies here");
        return true;
    }
    if (shape->prefix_count > shape->high)
        shape->prefix_count = shape->high;
    prefix = take(form, shape->prefix_count * sizeof *prefix, err);
    if (!prefix)
        return false;
    shape->prefix = prefix;
    for (uint32_t at = 0; at <= shape->prefix_count; at++) {
        for (uint32_t i = 0; i < shape->count; i++) {
            const struct schema *s = form->tree->schema[shape->id[i]];

            id[i] = at < s->prefix_count ? s->prefix[at] : s->items;
        }
        if (!form_meet(form, id, shape->count, at < shape->prefix_count ? &prefix[at] : &shape->items, err))
            return false;
    }
    return true;
}

/* Whether one of the first `count` schemas has the property. */
static bool is_declared(const struct form *form, const struct shape *shape, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++)
        if (json_object_get(form->tree->schema[shape->id[i]]->properties, name))
            return true;
    return false;
}

static bool is_required(const struct form *form, const struct shape *shape, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++)
        if (json_object_get(form->tree->schema[shape->id[i]]->is_required, name))
            return true;
    return false;
}

static bool add_property(struct form *form, struct shape *shape, struct shape_property *property,
                         const char *name, struct err *err)
{
    uint32_t id[FORM_TOGETHER_MAX];

    if (shape->property_count == FORM_PROPERTIES_MAX)
        return tree_error(form->tree, shape->id[0], "properties", ERR_LIMIT, err,
                          "an object may have %d properties", FORM_PROPERTIES_MAX);
    for (uint32_t i = 0; i < shape->count; i++)
        id[i] = tree_property(form->tree, form->tree->schema[shape->id[i]], name);
    property[shape->property_count] =
        (struct shape_property){ .name = name, .required = is_required(form, shape, shape->count, name) };
    return form_meet(form, id, shape->count, &property[shape->property_count++].meet, err);
}

/* Properties in the schemas' order; then those that are only required, which some schema's
 * additionalProperties describes, or nothing. */
static bool make_object(struct form *form, struct shape *shape, struct err *err)
{
    uint32_t id[FORM_TOGETHER_MAX], bound = 0;
    struct shape_property *property;
    bool has_properties = false, says_additional = false;

    for (uint32_t i = 0; i < shape->count; i++) {
        const struct schema *s = form->tree->schema[shape->id[i]];

        bound += s->property_count + (uint32_t)json_array_size(s->required);
        has_properties = has_properties || s->properties;
        says_additional = says_additional || s->says_additional;
        id[i] = s->additional;
    }
    property = take(form, bound * sizeof *property, err);
    if (!property)
        return false;
    shape->property = property;
    for (uint32_t i = 0; i < shape->count; i++) {
        const struct schema *s = form->tree->schema[shape->id[i]];

        for (uint32_t j = 0; j < s->property_count; j++)
            if (!is_declared(form, shape, i, s->property[j].name) &&
                !add_property(form, shape, property, s->property[j].name, err))
                return false;
    }
    for (uint32_t i = 0; i < shape->count; i++) {
        const char *name;
        json_t *nothing;

        json_object_foreach(form->tree->schema[shape->id[i]]->is_required, name,
                            nothing) if (!is_declared(form, shape, shape->count, name) &&
                                         !is_required(form, shape, i, name) &&
                                         !add_property(form, shape, property, name, err)) return false;
    }
    if (form->closed && has_properties && !says_additional) {
        shape->other = FORM_NONE;
        return true;
    }
    return form_meet(form, id, shape->count, &shape->other, err);
}

static bool get_shape(struct form *form, enum schema_type type, const uint32_t *id, uint32_t count,
                      uint32_t *index, struct err *err)
{
    struct shape *shape;
    uint32_t at, *copy;

    for (at = hash_list(type, id, count) % SLOTS; form->shape_slot[at]; at = (at + 1) % SLOTS) {
        shape = form->shape[form->shape_slot[at] - 1];
        if (shape->type == type && same_list(shape->id, shape->count, id, count)) {
            *index = form->shape_slot[at] - 1;
            return true;
        }
    }
    if (form->shape_count == SCHEMA_NODES_MAX)
        return tree_error(form->tree, count > 0 ? id[0] : SCHEMA_ROOT, NULL, ERR_LIMIT, err,
                          "merged with what applies beside them, there are more than %d subschemas",
                          SCHEMA_NODES_MAX);
    shape = take(form, sizeof *shape, err);
    copy = shape ? take(form, count * sizeof *copy, err) : NULL;
    if (!copy)
        return false;
    memcpy(copy, id, count * sizeof *copy);
    *shape = (struct shape){ .type = type,
                             .id = copy,
                             .count = count,
                             .high = GRAMMAR_NO_MAX,
                             .items = FORM_NONE,
                             .other = FORM_NONE };
    form->shape[form->shape_count] = shape;
    *index = form->shape_count;
    form->shape_slot[at] = ++form->shape_count;
    return type == TYPE_STRING   ? make_string(form, shape)
           : type == TYPE_ARRAY  ? make_array(form, shape, err)
           : type == TYPE_OBJECT ? make_object(form, shape, err)
                                 : true;
}

/* ---- the ways of a meet ----------------------------------------------------------------------------- */

struct spread { /* a meet being taken apart */
    struct form *form;
    struct meet *meet;
    uint32_t fixed[FORM_TOGETHER_MAX]; /* schemas of every way, own keywords only */
    uint32_t fixed_count;
    uint8_t fixed_types;
    uint32_t way[FORM_TOGETHER_MAX]; /* of this way so far, own keywords only */
    uint32_t way_count;
    uint32_t ways;
    uint32_t listed[FORM_TOGETHER_MAX]; /* enums whose values the meet has */
    uint32_t listed_count, value_capacity;
    uint32_t shape[FORM_WAYS_MAX * 2];
    uint32_t shape_count;
    uint32_t number; /* of this spread */
    struct err *err;
};

struct todo { /* what still applies */
    enum { TODO_SCHEMA, TODO_OWN, TODO_ANY, TODO_ONE } what;
    uint32_t id;
    const struct todo *next;
};

static bool too_many(const struct spread *x, uint32_t id)
{
    return tree_error(x->form->tree, id, NULL, ERR_LIMIT, x->err, "more than %d schemas apply to one value",
                      FORM_TOGETHER_MAX);
}

static bool add_to(const struct spread *x, uint32_t *list, uint32_t *count, uint32_t id)
{
    for (uint32_t i = 0; i < *count; i++)
        if (list[i] == id)
            return true;
    if (*count == FORM_TOGETHER_MAX)
        return too_many(x, id);
    list[(*count)++] = id;
    return true;
}

/* What applies whatever branches are taken: along $ref, own keywords. */
static bool find_fixed(struct spread *x, uint32_t id)
{
    const struct tree *tree = x->form->tree;

    for (bool own = id & FORM_OWN; id; id = own ? 0 : tree->schema[id]->ref) {
        const struct schema *s = tree->schema[id &= ~FORM_OWN];

        if (!spend(x->form, id, x->err))
            return false;
        if (s->own && !add_to(x, x->fixed, &x->fixed_count, id))
            return false;
        x->fixed_types &= s->types;
    }
    return true;
}

/* Takes in those of the values that the whole meet allows: with a list at hand the question can be asked
 * exactly. */
static bool take_values(struct spread *x, uint32_t id)
{
    struct form *form = x->form;
    const struct schema *s = form->tree->schema[id];
    struct meet *m = x->meet;
    const json_t **more;

    for (uint32_t i = 0; i < x->listed_count; i++)
        if (x->listed[i] == id)
            return true;
    if (x->listed_count == FORM_TOGETHER_MAX) /* then some may be there twice */
        x->listed_count = 0;
    x->listed[x->listed_count++] = id;
    if (m->value_count + s->value_count > x->value_capacity) {
        x->value_capacity = 2 * (m->value_count + s->value_count);
        more = take(form, x->value_capacity * sizeof(json_t *), x->err);
        if (!more)
            return false;
        if (m->value_count > 0)
            memcpy(more, m->value, m->value_count * sizeof(json_t *));
        m->value = more;
    }
    for (uint32_t i = 0; i < s->value_count; i++) {
        bool fits = true;

        for (uint32_t j = 0; fits && j < m->count; j++)
            if (!value_fits(&form->valuer, m->id[j] & ~FORM_OWN, m->id[j] & FORM_OWN, s->value[i].value,
                            &fits, x->err))
                return false;
        if (fits)
            m->value[m->value_count++] = s->value[i].value;
    }
    if (m->value_count == 0)
        m->why = (struct why){ .id = id,
                               .keyword = s->constant ? "const" : "enum",
                               .text = "no value of it is allowed by what else applies here" };
    return true;
}

static bool finish_way(struct spread *x, uint8_t types)
{
    struct form *form = x->form;

    if (++x->ways > FORM_WAYS_MAX)
        return tree_error(form->tree, x->meet->id[0] & ~FORM_OWN, NULL, ERR_LIMIT, x->err,
                          "anyOf and oneOf can be combined in more than %d ways", FORM_WAYS_MAX);
    for (int type = 0; type < TYPE_COUNT; type++) {
        uint32_t speaking[FORM_TOGETHER_MAX], n = 0, shape = 0;

        if (!(types >> type & 1))
            continue;
        for (uint32_t j = 0; j < x->way_count; j++)
            if (form->tree->schema[x->way[j]]->speaks >> type & 1)
                speaking[n++] = x->way[j];
        if (!spend(form, x->meet->count > 0 ? x->meet->id[0] : SCHEMA_ROOT, x->err) ||
            !get_shape(form, (enum schema_type)type, speaking, n, &shape, x->err))
            return false;
        if (form->shape[shape]->seen == x->number)
            continue;
        form->shape[shape]->seen = x->number;
        if (x->shape_count == sizeof x->shape / sizeof x->shape[0])
            return tree_error(form->tree, x->meet->id[0] & ~FORM_OWN, NULL, ERR_LIMIT, x->err,
                              "anyOf and oneOf combine to more than %zu different forms",
                              sizeof x->shape / sizeof x->shape[0]);
        x->shape[x->shape_count++] = shape;
    }
    return true;
}

static uint8_t types_of(const struct tree *tree, uint32_t id)
{
    uint8_t types = TYPES_ALL;

    for (; id; id = tree->schema[id]->ref)
        types &= tree->schema[id]->types;
    return types;
}

/* The schema's values, or those of what it refers to; NULL: it lists none. */
static const struct schema *listing(const struct tree *tree, uint32_t id)
{
    for (; id; id = tree->schema[id]->ref)
        if (tree->schema[id]->value)
            return tree->schema[id];
    return NULL;
}

static bool share_a_value(const struct schema *a, const struct schema *b)
{
    for (uint32_t i = 0, j = 0; i < a->value_count && j < b->value_count;) {
        if (a->value[i].hash ==
            b->value[j].hash) /* equal, most likely; whoever needs to be sure looks closer */
            return true;
        if (a->value[i].hash < b->value[j].hash)
            i++;
        else
            j++;
    }
    return false;
}

/* The common case, without making a meet of the two: a property that one of them requires, with constants
 * that differ. */
static bool have_different_constants(struct form *form, uint32_t a, uint32_t b)
{
    const struct tree *tree = form->tree;

    for (uint32_t x = a; x; x = tree->schema[x]->ref) {
        const struct schema *s = tree->schema[x];

        for (uint32_t i = 0; i < s->property_count; i++) {
            const char *name = s->property[i].name;
            const struct schema *mine = listing(tree, s->property[i].schema);

            form->work += mine ? 1 : 0;
            for (uint32_t y = b; mine && y; y = tree->schema[y]->ref) {
                const struct schema *t = tree->schema[y], *theirs;

                if (!json_object_get(s->is_required, name) && !json_object_get(t->is_required, name))
                    continue;
                theirs =
                    json_object_get(t->properties, name) ? listing(tree, tree_property(tree, t, name)) : NULL;
                if (theirs && !share_a_value(mine, theirs))
                    return true;
            }
        }
    }
    return false;
}

/* Shows that no value of this meet is in two branches of a oneOf.  Branches that list their values need no
 * showing against each other: of those each value is asked. */
static bool show_disjoint(struct spread *x, uint32_t id)
{
    struct form *form = x->form;
    const struct tree *tree = form->tree;
    const struct schema_several *one = &tree->schema[id]->one;
    uint32_t list[2 * FORM_TOGETHER_MAX + 2], n = 0;

    for (uint32_t i = 0; i < x->fixed_count; i++)
        list[n++] = x->fixed[i] | FORM_OWN;
    for (uint32_t i = 0; i < x->way_count; i++)
        list[n++] = x->way[i] | FORM_OWN;
    for (uint32_t i = 0; i < one->count; i++) {
        uint8_t types = types_of(tree, one->schema[i]) & x->fixed_types;
        bool lists = listing(tree, one->schema[i]);

        for (uint32_t j = 0; j < i; j++) {
            char pointer[TREE_POINTER_MAX];
            uint32_t both;
            uint8_t common;

            if (!spend(form, id, x->err))
                return false;
            common = types & types_of(tree, one->schema[j]);
            if (!common || (lists && listing(tree, one->schema[j])) ||
                (common == 1 << TYPE_OBJECT &&
                 have_different_constants(form, one->schema[i], one->schema[j])))
                continue;
            list[n] = one->schema[j];
            list[n + 1] = one->schema[i];
            if (!form_meet(form, list, n + 2, &both, x->err) || !form_settle(form, both, x->err))
                return false;
            if (!form->meet[both]->empty)
                return tree_error(tree, one->schema[i], NULL, ERR_INPUT, x->err,
                                  "it cannot be shown to share no value with %s, as oneOf needs; expected "
                                  "other types, other constants, or an object with a required property "
                                  "that tells them apart",
                                  tree_pointer(tree, one->schema[j], NULL, pointer));
        }
    }
    return true;
}

/* Takes the rest of the way in every possible manner. types: those that are left. */
static bool walk(struct spread *x, const struct todo *todo, uint8_t types);

static bool walk_schema(struct spread *x, uint32_t id, const struct todo *rest, uint8_t types)
{
    const struct schema *s;
    struct todo next[4];
    int n = 0;

    id = simplify(x->form->tree, id);
    s = x->form->tree->schema[id & ~FORM_OWN];
    if (id & FORM_OWN) {
        next[n++] = (struct todo){ .what = TODO_OWN, .id = id & ~FORM_OWN };
    } else {
        /* In the order of the keywords, since properties stand in it. */
        if (s->ref && s->ref_first)
            next[n++] = (struct todo){ .what = TODO_SCHEMA, .id = s->ref };
        if (s->any.count > 0 && s->any.first)
            next[n++] = (struct todo){ .what = TODO_ANY, .id = id };
        if (s->one.count > 0 && s->one.first)
            next[n++] = (struct todo){ .what = TODO_ONE, .id = id };
        next[n++] = (struct todo){ .what = TODO_OWN, .id = id };
        if (s->ref && !s->ref_first)
            next[n++] = (struct todo){ .what = TODO_SCHEMA, .id = s->ref };
        if (s->any.count > 0 && !s->any.first)
            next[n++] = (struct todo){ .what = TODO_ANY, .id = id };
        if (s->one.count > 0 && !s->one.first)
            next[n++] = (struct todo){ .what = TODO_ONE, .id = id };
    }
    for (int i = 0; i < n; i++)
        next[i].next = i + 1 < n ? &next[i + 1] : rest;
    return walk(x, n > 0 ? next : rest, types);
}

static bool walk_branches(struct spread *x, const struct schema_several *several, const struct todo *rest,
                          uint8_t types)
{
    uint32_t count = x->way_count;

    for (uint32_t i = 0; i < several->count; i++) {
        x->form->valuer.hint = several; /* the values that this branch lists will fit in it */
        x->form->valuer.hint_index = i;
        if (!walk_schema(x, several->schema[i], rest, types))
            return false;
        x->way_count = count;
    }
    return true;
}

static bool walk_one(struct spread *x, const struct todo *todo, uint8_t types)
{
    const struct schema *s;

    if (!todo)
        return finish_way(x, types);
    s = x->form->tree->schema[todo->id & ~FORM_OWN];
    if (!spend(x->form, todo->id, x->err))
        return false;
    switch (todo->what) {
    case TODO_SCHEMA:
        return walk_schema(x, todo->id, todo->next, types);
    case TODO_OWN:
        types &= s->types;
        if (types == 0)
            return true; /* no value goes this way */
        if (s->value)
            return take_values(x, todo->id);
        if (s->own && !add_to(x, x->way, &x->way_count, todo->id))
            return false;
        return walk(x, todo->next, types);
    case TODO_ANY:
        return walk_branches(x, &s->any, todo->next, types);
    case TODO_ONE:
        return show_disjoint(x, todo->id) && walk_branches(x, &s->one, todo->next, types);
    }
    return true;
}

static bool walk(struct spread *x, const struct todo *todo, uint8_t types)
{
    bool ok;

    x->form->frames++;
    ok = walk_one(x, todo, types);
    x->form->frames--;
    return ok;
}

static bool work_out(struct spread *x)
{
    struct form *form = x->form;
    struct meet *m = x->meet;
    struct todo *todo = NULL, *next = NULL;
    uint8_t anything = 0;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < m->count; i++)
        if (!find_fixed(x, m->id[i]))
            return false;
    for (uint32_t i = 0; i < x->fixed_count; i++)
        if (form->tree->schema[x->fixed[i]]->value) /* the list is all there is */
            return take_values(x, x->fixed[i]);
    if (m->count > 0) {
        todo = take(form, m->count * sizeof *todo, x->err);
        if (!todo)
            return false;
    }
    for (uint32_t i = m->count; i > 0; i--) {
        todo[i - 1] = (struct todo){ .what = TODO_SCHEMA, .id = m->id[i - 1], .next = next };
        next = &todo[i - 1];
    }
    if (x->fixed_types != 0 && !walk(x, next, x->fixed_types))
        return false;
    /* Where one way says nothing about a type, the others need not be looked at. */
    for (uint32_t i = 0; i < x->shape_count; i++)
        if (form->shape[x->shape[i]]->count == 0)
            anything |= (uint8_t)(1 << form->shape[x->shape[i]]->type);
    m->shape = take(form, x->shape_count * sizeof *m->shape, x->err);
    if (!m->shape)
        return false;
    for (uint32_t i = 0; i < x->shape_count; i++) {
        const struct shape *shape = form->shape[x->shape[i]];

        if (shape->count == 0 || !(anything >> shape->type & 1))
            m->shape[kept++] = x->shape[i];
    }
    m->shape_count = kept;
    return true;
}

/* ---- emptiness -------------------------------------------------------------------------------------- */

/* The one with this key, or a new one that is put in its place; *regular->texts is NULL when it is new. */
static bool get_regular(struct form *form, struct buf *key, bool number, struct regular **regular,
                        struct err *err)
{
    uint64_t hash = 14695981039346656037u;
    struct regular *r;
    char *copy;

    for (size_t i = 0; i < key->size; i++)
        hash = (hash ^ key->data[i]) * 0x100000001b3u;
    for (r = form->regular_slot[hash % REGULAR_SLOTS]; r; r = r->next)
        if (r->hash == hash && r->number == number && span_equal(r->key, buf_span(key))) {
            *regular = r;
            return true;
        }
    r = take(form, sizeof *r, err);
    copy = r ? take(form, key->size + 1, err) : NULL;
    if (!copy)
        return false;
    memcpy(copy, key->data, key->size);
    *r = (struct regular){ .hash = hash,
                           .key = span_of(copy, key->size),
                           .number = number,
                           .next = form->regular_slot[hash % REGULAR_SLOTS] };
    form->regular_slot[hash % REGULAR_SLOTS] = r;
    *regular = r;
    return true;
}

bool form_written(struct form *form, struct regular *regular, const struct dfa **written, struct err *err)
{
    if (!regular->number && !regular->written &&
        (!dfa_spell(&regular->written, regular->texts, err) ||
         !valuer_charge(&form->valuer, regular->written, err)))
        return false;
    *written = regular->number ? regular->texts : regular->written;
    return true;
}

/* texts: those that it had and `more` allows too; NULL before was all of them. */
static bool narrow(struct form *form, struct dfa **texts, const struct dfa *more, struct err *err)
{
    struct dfa *joint;

    if (!dfa_intersect(&joint, *texts ? *texts : more, more, err))
        return false;
    dfa_free(*texts);
    *texts = joint;
    return valuer_charge(&form->valuer, joint, err);
}

/* A leap second is a time, and an enum may list one; but what reads the output may not know that there are
 * such, as few programs do, so none is made up. */
static bool leave_out_leaps(struct form *form, const json_t *format, struct dfa **texts, struct err *err)
{
    struct dfa *any = NULL, *leap = NULL;
    bool ok = true;

    if (strcmp(json_string_value(format), "time") != 0 && strcmp(json_string_value(format), "date-time") != 0)
        return true;
    if (!form->no_leap)
        ok = dfa_any_text(&any, err) && dfa_pattern(&leap, span_text(":60"), true, err) &&
             dfa_subtract(&form->no_leap, any, leap, err);
    dfa_free(any);
    dfa_free(leap);
    return ok && narrow(form, texts, form->no_leap, err);
}

/* The texts of at most `high` code points, also as they are written. */
static bool of_length(const struct dfa *texts, uint32_t low, uint32_t high, struct dfa **joint, struct dfa **written,
                      struct err *err)
{
    struct dfa *length = NULL;
    bool ok = dfa_length(&length, low, high, err) && dfa_intersect(joint, texts, length, err);

    dfa_free(length);
    if (ok && !dfa_spell(written, *joint, err)) {
        dfa_free(*joint);
        ok = false;
    }
    return ok;
}

/* States that texts of many lengths come to: those in a cycle or behind one.  Each is needed once for every length. */
static bool count_repeated(const struct dfa *texts, uint32_t *repeated, struct err *err)
{
    uint32_t *into = calloc(texts->count, sizeof *into), *ready = calloc(texts->count, sizeof *ready), count = 0;

    if (!into || !ready) {
        free(into);
        free(ready);
        return err_set(err, ERR_IO, "no memory");
    }
    for (size_t i = texts->classes; i < (size_t)texts->count * texts->classes; i++)
        into[texts->next[i]]++;
    *repeated = texts->count - 1;
    if (into[texts->start] == 0)
        ready[count++] = texts->start;
    for (uint32_t i = 0; i < count; i++) {
        --*repeated;
        for (uint32_t c = 0; c < texts->classes; c++) {
            uint32_t to = texts->next[(size_t)ready[i] * texts->classes + c];

            if (to != 0 && --into[to] == 0)
                ready[count++] = to;
        }
    }
    free(into);
    free(ready);
    return true;
}

/* A pattern and a length can need more states together than there are.  Then texts are kept shorter than they might be: those
 * that are written are as good.  That none fits is never concluded from the short ones. */
static bool narrow_length(struct form *form, const struct shape *shape, struct regular *regular, struct err *err)
{
    uint32_t all = shape->high, high, repeated = 0;
    struct dfa *joint, *written;
    struct err first = { 0 };
    bool tried = false;

    if (!count_repeated(regular->texts, &repeated, err))
        return false;
    if (repeated == 0 && all > regular->texts->count) /* none has as many */
        all = shape->low > regular->texts->count ? shape->low : regular->texts->count;
    high = all;
    if (high != GRAMMAR_NO_MAX && (uint64_t)repeated * high > DFA_STATES_MAX && repeated < SHORT_STATES &&
        shape->low <= SHORT_STATES / repeated)
        high = SHORT_STATES / repeated; /* all of it would be tried in vain, and that takes long */
    for (int i = 0; i < SHORT_TRIES; i++) {
        struct err why = { 0 };

        if (of_length(regular->texts, shape->low, high, &joint, &written, &why)) {
            if (high == all || !dfa_is_empty(joint)) {
                dfa_free(regular->texts);
                regular->texts = joint;
                regular->written = written;
                return valuer_charge(&form->valuer, joint, err) && valuer_charge(&form->valuer, written, err);
            }
            dfa_free(joint);
            dfa_free(written);
            if (tried) /* all of it already was */
                break;
            high = all; /* nothing so short */
            continue;
        }
        if (first.code == 0)
            first = why;
        tried |= high == all;
        high /= 2;
        if (why.code != ERR_LIMIT || all == GRAMMAR_NO_MAX || high == 0 || high < shape->low)
            break;
    }
    *err = first;
    return false;
}

static bool string_texts(struct form *form, const struct shape *shape, struct regular *regular, struct err *err)
{
    char pointer[TREE_POINTER_MAX];
    struct dfa **texts = &regular->texts;

    for (uint32_t i = 0; i < shape->count; i++) {
        const struct dfa *pattern, *format;

        if (!valuer_pattern(&form->valuer, shape->id[i], &pattern, err) ||
            !valuer_format(&form->valuer, shape->id[i], &format, err))
            return false;
        if (pattern && !narrow(form, texts, pattern, err))
            return err_wrap(err, "%s", tree_pointer(form->tree, shape->id[i], "pattern", pointer));
        if (format && (!narrow(form, texts, format, err) ||
                       !leave_out_leaps(form, form->tree->schema[shape->id[i]]->format, texts, err)))
            return err_wrap(err, "%s", tree_pointer(form->tree, shape->id[i], "format", pointer));
    }
    if (dfa_is_empty(*texts) || (shape->low == 0 && shape->high == GRAMMAR_NO_MAX))
        return true;
    return narrow_length(form, shape, regular, err) ||
           err_wrap(err, "%s: its length together with its pattern or format",
                    tree_pointer(form->tree, shape->id[0], NULL, pointer));
}

static bool settle_string(struct form *form, struct shape *shape, struct err *err)
{
    struct buf key = { 0 };
    bool plain = true, ok;

    ok = buf_format(&key, "%" PRIu32 " %" PRIu32, shape->low, shape->high);
    for (uint32_t i = 0; i < shape->count; i++) {
        const struct schema *s = form->tree->schema[shape->id[i]];

        if (s->pattern) /* the size tells where it ends */
            ok = ok && buf_format(&key, " p%zu ", json_string_length(s->pattern)) &&
                 buf_add(&key, json_string_value(s->pattern), json_string_length(s->pattern));
        if (s->format)
            ok = ok && buf_format(&key, " f%zu ", json_string_length(s->format)) &&
                 buf_add(&key, json_string_value(s->format), json_string_length(s->format));
        plain = plain && !s->pattern && !s->format;
    }
    if (!ok)
        err_set(err, ERR_IO, "no memory");
    if (ok && !plain) {
        ok = get_regular(form, &key, false, &shape->regular, err) &&
             (shape->regular->texts || string_texts(form, shape, shape->regular, err));
        if (ok && dfa_is_empty(shape->regular->texts))
            shape_is_empty(shape, shape->id[0], NULL,
                           "no text fits its length, pattern and format and all that applies beside");
    }
    buf_fini(&key);
    return ok;
}

static bool settle_number(struct form *form, struct shape *shape, struct err *err)
{
    struct number_form number = { 0 };
    struct buf key = { 0 };
    uint32_t last = 0;
    char pointer[TREE_POINTER_MAX], text[DECIMAL_TEXT_MAX];
    bool ok;

    for (uint32_t i = 0; i < shape->count; i++) {
        last = shape->id[i];
        if (!number_add(&number, form->tree->schema[last]))
            return tree_error(form->tree, last, "multipleOf", ERR_LIMIT, err,
                              "together with the others that apply it is too large");
    }
    ok = buf_format(&key, "%d %" PRIu64 "/%" PRIu64, number.integer, number.step.over, number.step.under);
    if (number.low) {
        decimal_write(number.low, text);
        ok = ok && buf_format(&key, " %s %s", number.low_open ? "above" : "from", text);
    }
    if (number.high) {
        decimal_write(number.high, text);
        ok = ok && buf_format(&key, " %s %s", number.high_open ? "below" : "to", text);
    }
    if (!ok)
        err_set(err, ERR_IO, "no memory");
    ok = ok && get_regular(form, &key, true, &shape->regular, err);
    if (ok && !shape->regular->texts) {
        ok = number_texts(&shape->regular->texts, &number, err);
        if (!ok)
            err_wrap(err, "%s",
                     tree_pointer(form->tree, last, number.step.over ? "multipleOf" : NULL, pointer));
        ok = ok && valuer_charge(&form->valuer, shape->regular->texts, err);
    }
    if (ok && dfa_is_empty(shape->regular->texts))
        shape_is_empty(shape, last, NULL, "no number is allowed by all that applies here");
    buf_fini(&key);
    return ok;
}

/* Whether a meet inside is empty; where one is not looked at, it is taken not to be. */
static bool ask(struct form *form, uint32_t meet, bool *empty, struct err *err)
{
    if (!form_settle(form, meet, err))
        return false;
    *empty = form->meet[meet]->state == FORM_DONE && form->meet[meet]->empty;
    return true;
}

static bool settle_array(struct form *form, struct shape *shape, struct err *err)
{
    bool empty;

    for (uint32_t i = 0; i < shape->prefix_count; i++) {
        if (!ask(form, shape->prefix[i], &empty, err))
            return false;
        if (!empty)
            continue;
        if (i < shape->low) {
            shape->why = form->meet[shape->prefix[i]]->why;
            shape->empty = true;
            return true;
        }
        shape->prefix_count = i; /* none so long */
        shape->high = i;
    }
    if (shape->high == shape->prefix_count)
        return true;
    if (!ask(form, shape->items, &empty, err))
        return false;
    if (empty && shape->low > shape->prefix_count) {
        shape->why = form->meet[shape->items]->why;
        shape->empty = true;
    } else if (empty) {
        shape->high = shape->prefix_count;
    }
    return true;
}

static bool settle_object(struct form *form, struct shape *shape, struct err *err)
{
    bool empty;

    for (uint32_t i = 0; i < shape->property_count; i++) {
        if (!shape->property[i].required)
            continue;
        if (!ask(form, shape->property[i].meet, &empty, err))
            return false;
        if (empty) {
            shape->why = form->meet[shape->property[i].meet]->why;
            shape->empty = true;
            return true;
        }
    }
    return true;
}

static bool settle_shape(struct form *form, struct shape *shape, struct err *err)
{
    bool ok = true;

    if (shape->state != FORM_NEW)
        return true;
    if (shape->empty) { /* its counts have said so */
        shape->state = FORM_DONE;
        return true;
    }
    shape->state = FORM_OPEN;
    switch (shape->type) {
    case TYPE_NUMBER:
        ok = settle_number(form, shape, err);
        break;
    case TYPE_STRING:
        ok = settle_string(form, shape, err);
        break;
    case TYPE_ARRAY:
        ok = settle_array(form, shape, err);
        break;
    case TYPE_OBJECT:
        ok = settle_object(form, shape, err);
        break;
    default:
        break;
    }
    shape->state = FORM_DONE;
    return ok;
}

bool form_settle(struct form *form, uint32_t meet, struct err *err)
{
    struct meet *m = form->meet[meet];
    struct spread *x;
    bool ok;

    if (m->state != FORM_NEW || form->frames >= FORM_FRAMES_MAX)
        return true;
    m->state = FORM_OPEN;
    m->why = (struct why){ .id = m->count > 0 ? m->id[0] & ~FORM_OWN : SCHEMA_ROOT,
                           .text = "no value is allowed" };
    if (m->count == 1 && m->id[0] == SCHEMA_FALSE) {
        m->empty = true;
        m->state = FORM_DONE;
        return true;
    }
    x = calloc(1, sizeof *x);
    if (!x)
        return err_set(err, ERR_IO, "no memory");
    x->form = form;
    x->meet = m;
    x->fixed_types = TYPES_ALL;
    x->number = ++form->spreads;
    x->err = err;
    form->frames += FRAMES_A_MEET;
    ok = work_out(x);
    free(x);
    m->empty = m->value_count == 0;
    for (uint32_t i = 0; ok && i < m->shape_count; i++) {
        struct shape *shape = form->shape[m->shape[i]];

        ok = settle_shape(form, shape, err);
        if (shape->state == FORM_DONE && shape->empty)
            m->why = shape->why;
        else
            m->empty = false;
    }
    form->frames -= FRAMES_A_MEET;
    m->state = FORM_DONE;
    return ok;
}
