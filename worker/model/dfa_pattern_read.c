/* ECMA-262 patterns in unicode mode, read into a tree.
 *
 * More lenient than the standard in what cannot be meant otherwise: braces and brackets that stand alone are
 * themselves, and so is any escaped ASCII punctuation.  What has another meaning in other engines stays
 * refused. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/model/dfa_pattern.h"
#include "worker/model/utf8.h"

enum { TREE_NODES_MAX = 1 << 16, SIZE_MAX_NODES = 1 << 30 };

struct reader {
    struct pattern_tree *tree;
    const uint8_t *at, *end, *begin;
    unsigned depth;
    struct err *err;
};

static bool refuse(struct reader *r, const uint8_t *where, const char *what)
{
    return err_set(r->err, ERR_INPUT, "pattern, byte %zu: %s", (size_t)(where - r->begin), what);
}

static bool next_is(const struct reader *r, char c)
{
    return r->at < r->end && *r->at == (uint8_t)c;
}

static bool take(struct reader *r, char c)
{
    bool there = next_is(r, c);

    r->at += there;
    return there;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(uint8_t c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* ---- nodes ------------------------------------------------------------------------------------------ */

static bool add_node(struct reader *r, struct pattern_node node, uint32_t *id)
{
    struct pattern_tree *tree = r->tree;

    if (tree->count == TREE_NODES_MAX)
        return dfa_too_large(r->err);
    if (!dfa_grow((void **)&tree->node, &tree->capacity, tree->count + 1, sizeof *tree->node))
        return dfa_no_memory(r->err);
    node.next = DFA_NONE;
    tree->node[tree->count] = node;
    *id = (uint32_t)tree->count++;
    return true;
}

/* Takes the set, settled.  One that is there already is not kept twice. */
static bool add_set(struct reader *r, struct points *points, uint32_t *id)
{
    struct pattern_tree *tree = r->tree;
    size_t all = points->count;

    for (uint32_t i = 0; i < tree->set_count; i++) {
        const struct points *other = &tree->set[i];

        if (other->count == points->count &&
            (points->count == 0 ||
             memcmp(other->range, points->range, points->count * sizeof *points->range) == 0)) {
            points_fini(points);
            *id = i;
            return true;
        }
        all += other->count;
    }
    if (all > PATTERN_RANGES_MAX ||
        !dfa_grow((void **)&tree->set, &tree->set_capacity, tree->set_count + 1, sizeof *tree->set)) {
        points_fini(points);
        return all > PATTERN_RANGES_MAX ? dfa_too_large(r->err) : dfa_no_memory(r->err);
    }
    tree->set[tree->set_count] = *points;
    *points = (struct points){ 0 };
    *id = (uint32_t)tree->set_count++;
    return true;
}

static bool add_set_node(struct reader *r, struct points *points, uint32_t *id)
{
    struct pattern_node node = { .kind = PATTERN_SET, .child = DFA_NONE, .size = 1 };

    points_settle(points);
    return add_set(r, points, &node.set) && add_node(r, node, id);
}

/* ---- characters and escapes ------------------------------------------------------------------------- */

static bool hex(struct reader *r, unsigned digits, uint32_t *value)
{
    const uint8_t *p = r->at;

    *value = 0;
    for (unsigned i = 0; i < digits; i++, p++) {
        if (p == r->end || !(is_digit(*p) || ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'f')))
            return false;
        *value = *value << 4 | (uint32_t)(is_digit(*p) ? *p - '0' : (*p | 0x20) - 'a' + 10);
    }
    r->at = p;
    return true;
}

/* After \u: XXXX, two of them for a pair of surrogates, or {X...}. */
static bool unicode_escape(struct reader *r, const uint8_t *where, uint32_t *c)
{
    uint32_t low;

    if (take(r, '{')) {
        const uint8_t *first = r->at;

        for (*c = 0; hex(r, 1, &low);) {
            *c = *c << 4 | low;
            if (*c >= DFA_CODE_POINTS)
                return refuse(r, where, "\\u{...} is above U+10FFFF");
        }
        return (r->at > first && take(r, '}')) ||
               refuse(r, where, "expected \\u{X...} with hexadecimal digits");
    }
    if (!hex(r, 4, c))
        return refuse(r, where, "expected \\uXXXX with four hexadecimal digits");
    if (*c >= 0xd800 && *c < 0xdc00 && r->end - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u') {
        const uint8_t *back = r->at;

        r->at += 2;
        if (hex(r, 4, &low) && low >= 0xdc00 && low < 0xe000)
            *c = 0x10000 + ((*c & 0x3ff) << 10) + (low & 0x3ff);
        else
            r->at = back;
    }
    return true;
}

/* The set of a name, or of name=value, from among those met before, or looked up now. */
static const struct points *find_property(struct reader *r, const uint8_t *where, const char *name)
{
    struct pattern_tree *tree = r->tree;
    struct pattern_property *found;
    char word[PATTERN_NAME_MAX], *value;

    for (size_t i = 0; i < tree->property_count; i++)
        if (strcmp(tree->property[i].name, name) == 0)
            return &tree->property[i].points;
    if (tree->property_count == PATTERN_PROPERTIES_MAX) {
        err_set(r->err, ERR_LIMIT, "pattern, byte %zu: more than %d different \\p{...}",
                (size_t)(where - r->begin), PATTERN_PROPERTIES_MAX);
        return NULL;
    }
    if (!dfa_grow((void **)&tree->property, &tree->property_capacity, tree->property_count + 1,
                  sizeof *tree->property)) {
        dfa_no_memory(r->err);
        return NULL;
    }
    found = &tree->property[tree->property_count++];
    *found = (struct pattern_property){ 0 };
    strcpy(found->name, name);
    strcpy(word, name);
    if ((value = strchr(word, '=')))
        *value++ = '\0';
    if (!points_property(&found->points, word, value, r->err)) {
        err_wrap(r->err, "pattern, byte %zu", (size_t)(where - r->begin));
        return NULL;
    }
    points_settle(&found->points);
    return &found->points;
}

static bool property_escape(struct reader *r, const uint8_t *where, bool negative, struct points *points)
{
    char name[PATTERN_NAME_MAX];
    const struct points *found;
    const uint8_t *first;
    size_t size;

    if (!take(r, '{'))
        return refuse(r, where, "expected \\p{Name} or \\p{Name=Value}");
    first = r->at;
    while (r->at < r->end && (is_letter(*r->at) || is_digit(*r->at) || *r->at == '_' || *r->at == '='))
        r->at++;
    size = (size_t)(r->at - first);
    if (size == 0 || size >= sizeof name || !take(r, '}'))
        return refuse(r, where, "expected \\p{Name} or \\p{Name=Value}");
    memcpy(name, first, size);
    name[size] = '\0';
    return (found = find_property(r, where, name)) && points_add_all(points, found, r->err) &&
           (!negative || points_negate(points, r->err));
}

/* After a backslash, inside a class or out of it: one character, or a set of them (*single false), which
 * points gets. */
static bool character_escape(struct reader *r, bool in_class, struct points *points, uint32_t *c,
                             bool *single)
{
    const uint8_t *where = r->at - 1;
    uint8_t letter;
    char what[96];

    *single = true;
    if (r->at == r->end)
        return refuse(r, where, "a backslash at the end");
    letter = *r->at++;
    switch (letter) {
    case 'd':
    case 'D':
    case 'w':
    case 'W':
    case 's':
    case 'S':
        *single = false;
        return points_class(points, (char)letter, r->err);
    case 'p':
    case 'P':
        *single = false;
        return property_escape(r, where, letter == 'P', points);
    case 't':
        *c = '\t';
        return true;
    case 'n':
        *c = '\n';
        return true;
    case 'v':
        *c = '\v';
        return true;
    case 'f':
        *c = '\f';
        return true;
    case 'r':
        *c = '\r';
        return true;
    case 'b': /* out of classes it has been dealt with */
        assert(in_class);
        *c = '\b';
        return true;
    case 'c':
        if (r->at == r->end || !is_letter(*r->at))
            return refuse(r, where, "expected a letter after \\c");
        *c = *r->at++ & 0x1f;
        return true;
    case 'x':
        return hex(r, 2, c) || refuse(r, where, "expected \\xHH with two hexadecimal digits");
    case 'u':
        return unicode_escape(r, where, c);
    case '0':
        if (r->at < r->end && is_digit(*r->at))
            return refuse(r, where, "octal escapes are not part of the standard");
        *c = 0;
        return true;
    case 'k':
        if (!in_class)
            return refuse(r, where, "back-references (\\k<name>) are not supported");
        break;
    default:
        break;
    }
    if (letter >= '1' && letter <= '9')
        return refuse(r, where,
                      in_class ? "octal escapes are not part of the standard"
                               : "back-references (\\1) are not supported");
    if (letter >= 0x80 || is_letter(letter) || letter < 0x21 || letter == 0x7f) {
        snprintf(what, sizeof what,
                 letter > 0x20 && letter < 0x7f ? "\\%c is not an escape of the standard"
                                                : "this character needs no backslash",
                 letter);
        return refuse(r, where, what);
    }
    *c = letter;
    return true;
}

static uint32_t read_character(struct reader *r)
{
    uint32_t c = utf8_read(r->at);

    r->at += utf8_length(*r->at);
    return c;
}

/* One member of a class: a character, or a set, which points then has. */
static bool class_atom(struct reader *r, struct points *points, uint32_t *c, bool *single)
{
    *single = true;
    if (!take(r, '\\')) {
        *c = read_character(r);
        return true;
    }
    if (next_is(r, 'B'))
        return refuse(r, r->at - 1, "\\B cannot stand in a class");
    return character_escape(r, true, points, c, single);
}

/* points begins empty and gets the whole class; what is in it for an escape is settled before it is added. */
static bool read_class(struct reader *r, struct points *points)
{
    const uint8_t *where = r->at - 1;
    bool negative = take(r, '^'), single, also_single;

    while (!next_is(r, ']')) {
        struct points part = { 0 };
        uint32_t low = 0, high = 0;
        const uint8_t *from = r->at;
        bool ok;

        if (r->at == r->end)
            return refuse(r, where, "this class has no end (a ] is missing)");
        ok = class_atom(r, &part, &low, &single);
        high = low;
        if (ok && r->end - r->at >= 2 && r->at[0] == '-' && r->at[1] != ']') {
            if (!single) { /* [\w-.]: the - is itself */
                r->at++;
                ok = points_add(&part, '-', '-', r->err);
            } else {
                r->at++;
                ok = class_atom(r, &part, &high, &also_single);
                if (ok && !also_single) /* [a-\d]: all three */
                    ok = points_add(&part, '-', '-', r->err), high = low;
                else if (ok && high < low)
                    ok = refuse(r, from, "the range is in the wrong order");
            }
        }
        ok =
            ok && points_add_all(points, &part, r->err) && (!single || points_add(points, low, high, r->err));
        points_fini(&part);
        if (!ok)
            return false;
    }
    r->at++;
    points_settle(points);
    return !negative || points_negate(points, r->err);
}

/* ---- structure -------------------------------------------------------------------------------------- */

static bool read_choice(struct reader *r, uint32_t *id);

static bool read_group(struct reader *r, uint32_t *id)
{
    const uint8_t *where = r->at - 1;
    bool ok;

    if (take(r, '?')) {
        if (next_is(r, '=') || next_is(r, '!'))
            return refuse(r, where,
                          next_is(r, '=') ? "look-ahead (?=...) is not supported"
                                          : "look-ahead (?!...) is not supported");
        if (take(r, '<')) {
            if (next_is(r, '=') || next_is(r, '!'))
                return refuse(r, where,
                              next_is(r, '=') ? "look-behind (?<=...) is not supported"
                                              : "look-behind (?<!...) is not supported");
            if (r->at == r->end || is_digit(*r->at) || next_is(r, '>'))
                return refuse(r, where, "expected a name in (?<name>...)");
            while (r->at < r->end && (is_letter(*r->at) || is_digit(*r->at) || *r->at == '_' ||
                                      *r->at == '$' || *r->at >= 0x80))
                r->at++;
            if (!take(r, '>'))
                return refuse(r, where, "expected a name in (?<name>...)");
        } else if (!take(r, ':')) {
            return refuse(r, where,
                          "this kind of group is not supported; there are (...), (?:...) and (?<name>...)");
        }
    }
    if (++r->depth > DFA_DEPTH_MAX)
        return err_set(r->err, ERR_LIMIT, "pattern, byte %zu: groups nested more than %d deep",
                       (size_t)(where - r->begin), DFA_DEPTH_MAX);
    ok = read_choice(r, id);
    r->depth--;
    return ok && (take(r, ')') || refuse(r, where, "this group has no end (a ) is missing)"));
}

/* {n}, {n,}, {n,m} at r->at; false leaves it alone: the brace is itself. */
static bool take_braces(struct reader *r, uint32_t *low, uint32_t *high)
{
    const uint8_t *p = r->at;
    uint32_t value[2] = { 0, UINT32_MAX };

    if (p == r->end || *p++ != '{')
        return false;
    for (int i = 0; i < 2; i++) {
        const uint8_t *first = p;
        uint32_t v = 0;

        for (; p < r->end && is_digit(*p); p++)
            v = v * 10 + (*p - '0') > PATTERN_COUNT_MAX ? PATTERN_COUNT_MAX : v * 10 + (*p - '0');
        if (i == 0 && p == first)
            return false;
        if (p > first)
            value[i] = v;
        if (i == 0 && p < r->end && *p == '}') {
            value[1] = value[0];
            break;
        }
        if (i == 0 && (p == r->end || *p++ != ','))
            return false;
    }
    if (p == r->end || *p != '}')
        return false;
    r->at = p + 1;
    *low = value[0];
    *high = value[1];
    return true;
}

/* True: there is one. */
static bool take_quantifier(struct reader *r, uint32_t *low, uint32_t *high)
{
    *low = 0;
    *high = UINT32_MAX;
    if (take(r, '*'))
        return true;
    if (take(r, '+')) {
        *low = 1;
        return true;
    }
    if (take(r, '?')) {
        *high = 1;
        return true;
    }
    return take_braces(r, low, high);
}

static bool read_atom(struct reader *r, uint32_t *id, bool *assertion)
{
    struct points points = { 0 };
    struct pattern_node node = { .child = DFA_NONE, .size = 1 };
    const uint8_t *where = r->at;
    uint32_t c, low, high;
    bool single, ok;

    *assertion = false;
    if (take_quantifier(r, &low, &high))
        return refuse(r, where, "there is nothing to repeat");
    if (take(r, '('))
        return read_group(r, id);
    if (next_is(r, '^') || next_is(r, '$') ||
        (r->end - r->at >= 2 && r->at[0] == '\\' && (r->at[1] == 'b' || r->at[1] == 'B'))) {
        *assertion = true;
        node.kind = next_is(r, '^')   ? PATTERN_START
                    : next_is(r, '$') ? PATTERN_END
                    : r->at[1] == 'b' ? PATTERN_BORDER
                                      : PATTERN_NOT_BORDER;
        r->tree->borders |= node.kind == PATTERN_BORDER || node.kind == PATTERN_NOT_BORDER;
        r->at += next_is(r, '\\') ? 2 : 1;
        return add_node(r, node, id);
    }
    if (take(r, '.')) {
        ok = points_class(&points, '.', r->err);
    } else if (take(r, '[')) {
        ok = read_class(r, &points);
    } else if (take(r, '\\')) {
        ok = character_escape(r, false, &points, &c, &single) &&
             (!single || points_add(&points, c, c, r->err));
    } else {
        c = read_character(r);
        ok = points_add(&points, c, c, r->err);
    }
    ok = ok && add_set_node(r, &points, id);
    points_fini(&points);
    return ok;
}

static uint64_t bounded(uint64_t size)
{
    return size < SIZE_MAX_NODES ? size : SIZE_MAX_NODES;
}

/* An atom with its quantifier. */
static bool read_repeat(struct reader *r, uint32_t *id)
{
    struct pattern_node node = { .kind = PATTERN_REPEAT };
    const uint8_t *where;
    uint64_t times;
    bool assertion;

    if (!read_atom(r, &node.child, &assertion))
        return false;
    *id = node.child;
    where = r->at;
    if (!take_quantifier(r, &node.low, &node.high))
        return true;
    if (assertion)
        return refuse(r, where, "an assertion cannot be repeated");
    if (node.high < node.low)
        return refuse(r, where, "the numbers in {n,m} are in the wrong order");
    take(r, '?'); /* lazy: the same language */
    times = node.high == UINT32_MAX ? (uint64_t)node.low + 1 : node.high;
    node.size = bounded(times * (r->tree->node[node.child].size + 1) + 1);
    return add_node(r, node, id);
}

static bool read_sequence(struct reader *r, uint32_t *id)
{
    struct pattern_node node = { .kind = PATTERN_SEQUENCE, .child = DFA_NONE };
    uint32_t last = DFA_NONE, part;
    uint64_t size = 0;

    while (r->at < r->end && *r->at != '|' && *r->at != ')') {
        if (!read_repeat(r, &part))
            return false;
        size = bounded(size + r->tree->node[part].size);
        if (last == DFA_NONE)
            node.child = part;
        else
            r->tree->node[last].next = part;
        last = part;
    }
    node.size = size;
    if (node.child == DFA_NONE)
        node.kind = PATTERN_EMPTY;
    return add_node(r, node, id);
}

static bool read_choice(struct reader *r, uint32_t *id)
{
    struct pattern_node node = { .kind = PATTERN_CHOICE };
    uint32_t last, part;

    if (!read_sequence(r, &node.child))
        return false;
    *id = last = node.child;
    if (!next_is(r, '|'))
        return true;
    node.size = r->tree->node[last].size;
    while (take(r, '|')) {
        if (!read_sequence(r, &part))
            return false;
        r->tree->node[last].next = part;
        node.size = bounded(node.size + r->tree->node[part].size + 1);
        last = part;
    }
    return add_node(r, node, id);
}

bool pattern_read(struct pattern_tree *tree, struct span source, struct err *err)
{
    struct reader r = {
        .tree = tree, .at = source.data, .end = source.data + source.size, .begin = source.data, .err = err
    };

    if (source.size > 0 && !span_is_utf8(source))
        return err_set(err, ERR_INPUT, "the pattern is not UTF-8");
    if (!read_choice(&r, &tree->root))
        return false;
    return r.at == r.end || refuse(&r, r.at, "this ) closes nothing");
}

void pattern_tree_fini(struct pattern_tree *tree)
{
    for (size_t i = 0; i < tree->set_count; i++)
        points_fini(&tree->set[i]);
    for (size_t i = 0; i < tree->property_count; i++)
        points_fini(&tree->property[i].points);
    free(tree->property);
    free(tree->set);
    free(tree->node);
    *tree = (struct pattern_tree){ 0 };
}
