/* Grammars against brute force: small languages are written out text by text, and everything grammar.h says is computed from
 * that list in the plainest way.  Then what lists cannot hold: recursion, long counts, bounds. */
#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/grammar.h"

/* ---- chance ------------------------------------------------------------------------------------------------ */

static uint64_t chance_state, seed_now;

static uint32_t chance(uint32_t below)
{
    chance_state = chance_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(chance_state >> 33) % below;
}

/* ---- tokenizers ------------------------------------------------------------------------------------------------ */

enum { ADDED_MAX = 40, BYTES_MAX = 16 };

struct made {
    struct tokenizer *tokenizer;
    struct vocabulary *vocabulary;
    int32_t size;
};

static void add_byte(struct buf *out, uint8_t b)
{
    int next = 256;

    if (b == '"' || b == '\\') {
        CHECK(buf_format(out, "\\%c", b));
        return;
    }
    for (int i = 0; i <= b; i++) {
        bool visible = (i >= 33 && i <= 126) || (i >= 0xa1 && i <= 0xac) || i >= 0xae;

        if (i == b)
            CHECK(buf_format(out, "\\u%04x", visible ? i : next));
        next += !visible;
    }
}

static void add_token(struct buf *out, struct span bytes)
{
    for (size_t i = 0; i < bytes.size; i++)
        add_byte(out, bytes.data[i]);
}

/* The bytes are ids 0 to 255; merges make tokens of two that are there; `special` takes ids out of use. */
struct recipe {
    int merge_count;
    uint16_t merge[ADDED_MAX][2];
    const char *special; /* these bytes */
    const char *added;   /* further added tokens as JSON, from id 400 */
    const char *normalizer;
    int32_t vocab;       /* 0: all */
};

static struct made make(const struct recipe *r)
{
    uint8_t bytes[256 + ADDED_MAX][BYTES_MAX];
    size_t size[256 + ADDED_MAX];
    struct buf file = { 0 };
    struct made made;
    struct err err;

    CHECK(buf_text(&file, "{\"added_tokens\":["));
    for (const char *p = r->special ? r->special : ""; *p; p++)
        CHECK(buf_format(&file, "%s{\"id\":%d,\"content\":\"%s%c\",\"special\":true}", p == r->special ? "" : ",", *p,
                         *p == '"' ? "\\" : "", *p));
    if (r->added)
        CHECK(buf_format(&file, "%s%s", r->special && *r->special ? "," : "", r->added));
    CHECK(buf_format(&file, "],\"normalizer\":%s,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                            "\"trim_offsets\":true,\"use_regex\":false},\"post_processor\":null,\"model\":{\"type\":\"BPE\","
                            "\"vocab\":{",
                     r->normalizer ? r->normalizer : "null"));
    for (int b = 0; b < 256; b++) {
        bytes[b][0] = (uint8_t)b;
        size[b] = 1;
        CHECK(buf_text(&file, b ? ",\"" : "\""));
        add_byte(&file, (uint8_t)b);
        CHECK(buf_format(&file, "\":%d", b));
    }
    for (int i = 0; i < r->merge_count; i++) {
        int a = r->merge[i][0], b = r->merge[i][1], n = 256 + i;

        memcpy(bytes[n], bytes[a], size[a]);
        memcpy(bytes[n] + size[a], bytes[b], size[b]);
        size[n] = size[a] + size[b];
        CHECK(buf_text(&file, ",\""));
        add_token(&file, span_of(bytes[n], size[n]));
        CHECK(buf_format(&file, "\":%d", n));
    }
    CHECK(buf_text(&file, "},\"merges\":["));
    for (int i = 0; i < r->merge_count; i++) {
        CHECK(buf_text(&file, i ? ",[\"" : "[\""));
        add_token(&file, span_of(bytes[r->merge[i][0]], size[r->merge[i][0]]));
        CHECK(buf_text(&file, "\",\""));
        add_token(&file, span_of(bytes[r->merge[i][1]], size[r->merge[i][1]]));
        CHECK(buf_text(&file, "\"]"));
    }
    CHECK(buf_text(&file, "]}}"));
    if (!tokenizer_parse(&made.tokenizer, buf_span(&file), span_of(NULL, 0), &err))
        fail_msg("%s\n%.*s", err.text, (int)file.size, (const char *)file.data);
    buf_fini(&file);
    made.size = r->vocab ? r->vocab : tokenizer_size(made.tokenizer);
    made.vocabulary = vocabulary_new(made.tokenizer, made.size);
    CHECK(made.vocabulary);
    return made;
}

static void unmake(struct made *made)
{
    vocabulary_free(made->vocabulary);
    tokenizer_free(made->tokenizer);
}

/* What a text of the small languages is made of: two characters have their first byte in common, and their last are the
 * least that can follow it, so that shortest endings are of our letters. */
static const char letters[] = "\"[]{},: ab\xc3\x80\x81";

/* Random merges of random pairs of these. */
static void random_merges(struct recipe *r, size_t size_max)
{
    size_t size[ADDED_MAX + sizeof letters - 1];
    uint16_t id[ADDED_MAX + sizeof letters - 1];
    uint8_t bytes[ADDED_MAX + sizeof letters - 1][BYTES_MAX];
    int count = sizeof letters - 1, wanted = (int)chance(ADDED_MAX);

    for (int i = 0; i < count; i++) {
        id[i] = (uint8_t)letters[i];
        bytes[i][0] = (uint8_t)letters[i];
        size[i] = 1;
    }
    for (int i = 0; i < wanted; i++) {
        int a = (int)chance((uint32_t)count), b = (int)chance((uint32_t)count);
        bool there = false;

        /* no merge may spell an added token */
        if (r->added && size[a] + size[b] == 2 && bytes[b][0] == 'a')
            continue;
        if (size[a] + size[b] > size_max)
            continue;
        size[count] = size[a] + size[b];
        memcpy(bytes[count], bytes[a], size[a]);
        memcpy(bytes[count] + size[a], bytes[b], size[b]);
        for (int k = 0; k < count; k++)
            there |= span_equal(span_of(bytes[k], size[k]), span_of(bytes[count], size[count]));
        if (there)
            continue;
        id[count] = (uint16_t)(256 + r->merge_count);
        r->merge[r->merge_count][0] = id[a];
        r->merge[r->merge_count++][1] = id[b];
        count++;
    }
}

/* ---- languages as lists ------------------------------------------------------------------------------------------ */

enum { TEXTS_MAX = 1500, TEXT_MAX = 48 };

struct text {
    uint8_t size;
    uint8_t bytes[TEXT_MAX];
};

struct list {
    struct text *text;
    size_t count;
    bool over; /* too many, or too long: of no use */
};

static struct list list_new(void)
{
    struct list list = { .text = malloc((TEXTS_MAX + 1) * sizeof(struct text)) };

    CHECK(list.text);
    return list;
}

static void list_add(struct list *list, const void *bytes, size_t size)
{
    if (list->over || list->count == TEXTS_MAX || size > TEXT_MAX) {
        list->over = true;
        return;
    }
    list->text[list->count].size = (uint8_t)size;
    memcpy(list->text[list->count++].bytes, bytes, size);
}

static int compare_texts(const void *left, const void *right)
{
    const struct text *a = left, *b = right;
    int c = memcmp(a->bytes, b->bytes, a->size < b->size ? a->size : b->size);

    return c ? c : (int)a->size - (int)b->size;
}

static void list_sort(struct list *list)
{
    size_t kept = 0;

    qsort(list->text, list->count, sizeof *list->text, compare_texts);
    for (size_t i = 0; i < list->count; i++)
        if (kept == 0 || compare_texts(&list->text[kept - 1], &list->text[i]) != 0)
            list->text[kept++] = list->text[i];
    list->count = kept;
}

/* Every text of a, then every text of b; a is given back. */
static struct list list_join(struct list a, const struct list *b)
{
    struct list out = list_new();
    uint8_t bytes[2 * TEXT_MAX];

    out.over = a.over || b->over;
    for (size_t i = 0; i < a.count && !out.over; i++)
        for (size_t k = 0; k < b->count && !out.over; k++) {
            memcpy(bytes, a.text[i].bytes, a.text[i].size);
            memcpy(bytes + a.text[i].size, b->text[k].bytes, b->text[k].size);
            list_add(&out, bytes, (size_t)a.text[i].size + b->text[k].size);
        }
    free(a.text);
    if (!out.over)
        list_sort(&out);
    return out;
}

static struct list list_of(const char *text)
{
    struct list list = list_new();

    list_add(&list, text, strlen(text));
    return list;
}

static struct list list_then(struct list a, const char *text)
{
    struct list b = list_of(text), out = list_join(a, &b);

    free(b.text);
    return out;
}

static void list_take(struct list *into, struct list from)
{
    into->over |= from.over;
    for (size_t i = 0; i < from.count; i++)
        list_add(into, from.text[i].bytes, from.text[i].size);
    free(from.text);
    if (!into->over)
        list_sort(into);
}

static struct list list_copy(const struct list *from)
{
    struct list copy = list_new();

    copy.over = from->over;
    copy.count = from->count;
    memcpy(copy.text, from->text, from->count * sizeof *from->text);
    return copy;
}

/* ---- random grammars, built twice: as nodes and as lists -------------------------------------------------------------- */

/* A dfa in the shape of the texts' trie, and the dead state. */
static struct dfa *dfa_of(const struct list *list)
{
    struct dfa *dfa = calloc(1, sizeof *dfa);

    CHECK(dfa);
    dfa->classes = 256;
    for (int b = 0; b < 256; b++)
        dfa->class_of[b] = (uint8_t)b;
    dfa->next = calloc((size_t)256 * (list->count * TEXT_MAX + 2), sizeof *dfa->next);
    dfa->accepts = calloc(list->count * TEXT_MAX + 2, 1);
    CHECK(dfa->next && dfa->accepts);
    dfa->count = 2;
    dfa->start = 1;
    for (size_t i = 0; i < list->count; i++) {
        uint32_t state = 1;

        for (size_t k = 0; k < list->text[i].size; k++) {
            uint32_t *next = &dfa->next[256 * (size_t)state + list->text[i].bytes[k]];

            if (!*next)
                *next = dfa->count++;
            state = *next;
        }
        dfa->accepts[state] = 1;
    }
    return dfa;
}

static grammar_node random_literal(struct grammar_builder *b, struct list *list)
{
    static const char *const some[] = { "", "a", "b", "ab", "aab", " ", "\xc3\x81", "\303\200b", "[a]", "\"a", "a,", "ba:" };
    const char *text = some[chance(sizeof some / sizeof some[0])];

    *list = list_of(text);
    return grammar_literal(b, span_text(text));
}

static grammar_node random_regular(struct grammar_builder *b, struct list *list)
{
    static const char *const some[] = { "a", "aa", "aba", "b", "ba", "bab", "\xc3\x81", "\xc3\x80", "\303\201a", "a a", ",a", "\"b\"" };

    *list = list_new();
    for (int i = 1 + (int)chance(5); i > 0; i--) {
        const char *text = some[chance(sizeof some / sizeof some[0])];

        list_add(list, text, strlen(text));
    }
    list_sort(list);
    return grammar_regular(b, dfa_of(list));
}

static grammar_node random_string(struct grammar_builder *b, struct list *list)
{
    /* All that our letters make, so that every token of them is judged. */
    static const char *const point[] = { " ", "a", "b", ",", ":", "[", "]", "{", "}", "\xc3\x80", "\xc3\x81" };
    uint32_t low = chance(2), high = low + chance(2);
    struct list points = list_new(), body = list_of("\"");

    for (size_t i = 0; i < sizeof point / sizeof point[0]; i++)
        list_add(&points, point[i], strlen(point[i]));
    *list = list_new();
    for (uint32_t i = 0; i <= high; i++) {
        if (i >= low)
            list_take(list, list_then(list_copy(&body), "\""));
        body = list_join(body, &points);
    }
    free(points.text);
    free(body.text);
    return grammar_string(b, low, high);
}

static grammar_node random_node(struct grammar_builder *b, int depth, struct list *list);

static grammar_node random_sequence(struct grammar_builder *b, int depth, struct list *list)
{
    grammar_node part[3];
    uint32_t count = chance(4);

    *list = list_of("");
    for (uint32_t i = 0; i < count; i++) {
        struct list one;

        part[i] = random_node(b, depth - 1, &one);
        *list = list_join(*list, &one);
        free(one.text);
    }
    return grammar_sequence(b, part, count);
}

static grammar_node random_choice(struct grammar_builder *b, int depth, struct list *list)
{
    grammar_node branch[4];
    uint32_t count = chance(5);

    *list = list_new();
    for (uint32_t i = 0; i < count; i++) {
        struct list one;

        branch[i] = random_node(b, depth - 1, &one);
        list_take(list, one);
    }
    return grammar_choice(b, branch, count);
}

static grammar_node random_array(struct grammar_builder *b, int depth, struct list *list)
{
    struct list element[2], items = { 0 }, body = list_of("[");
    grammar_node prefix[2];
    struct grammar_array array = { .prefix = prefix, .prefix_count = chance(3), .low = chance(3) };

    for (size_t i = 0; i < array.prefix_count; i++)
        prefix[i] = random_node(b, depth - 1, &element[i]);
    if (chance(2))
        array.items = random_node(b, depth - 1, &items);
    array.high = array.low + chance(2);
    if (!array.items && chance(2))
        array.high = GRAMMAR_NO_MAX;
    *list = list_new();
    for (uint32_t i = 0; i <= array.high; i++) {
        const struct list *next = i < array.prefix_count ? &element[i] : &items;

        if (i >= array.low)
            list_take(list, list_then(list_copy(&body), "]"));
        if (!next->text || i == array.high)
            break;
        if (i > 0)
            body = list_then(body, ",");
        body = list_join(body, next);
    }
    for (size_t i = 0; i < array.prefix_count; i++)
        free(element[i].text);
    free(items.text);
    free(body.text);
    return grammar_array(b, &array);
}

static grammar_node random_object(struct grammar_builder *b, int depth, struct list *list)
{
    static const char *const names[] = { "\"a\"", "\"ab\"", "\"b\"" };
    struct grammar_property property[3];
    struct grammar_object object = { .property = property, .property_count = chance(4) };
    struct list empty = list_of("{"), filled = list_new(), keys = { 0 };
    uint32_t first = chance(3);

    for (size_t i = 0; i < object.property_count; i++) {
        struct list value, with, without = list_copy(&filled);

        property[i].key = span_text(names[(first + i) % 3]);
        property[i].required = chance(2);
        property[i].value = random_node(b, depth - 1, &value);
        with = list_then(list_copy(&empty), names[(first + i) % 3]);
        filled = list_then(list_then(filled, ","), names[(first + i) % 3]);
        list_take(&filled, with);
        filled = list_join(list_then(filled, ":"), &value);
        free(value.text);
        if (property[i].required) {
            free(empty.text);
            empty = list_new(); /* nothing before is no longer possible */
            free(without.text);
        } else {
            list_take(&filled, without);
        }
    }
    if (chance(3) == 0) { /* others that have no value cannot be there; any number of them would make no list */
        keys = list_of("\"bb\"");
        object.other_key = dfa_of(&keys);
        object.other_value = grammar_nothing(b);
    }
    *list = list_then(empty, "}");
    list_take(list, list_then(filled, "}"));
    free(keys.text);
    {
        grammar_node node = grammar_object(b, &object);

        dfa_free(object.other_key);
        return node;
    }
}

static grammar_node random_node(struct grammar_builder *b, int depth, struct list *list)
{
    uint32_t kind = depth == 0 ? chance(4) : chance(9);
    grammar_node node;

    switch (kind) {
    case 0:
        return random_literal(b, list);
    case 1:
        return random_regular(b, list);
    case 2:
        return random_string(b, list);
    case 3:
        if (chance(4) == 0) {
            *list = list_new();
            return grammar_nothing(b);
        }
        return random_literal(b, list);
    case 4:
        return random_sequence(b, depth, list);
    case 5:
        return random_array(b, depth, list);
    case 6:
        return random_object(b, depth, list);
    case 7: /* through a reserved node */
        node = grammar_reserve(b);
        grammar_define(b, node, random_node(b, depth - 1, list));
        return node;
    default:
        return random_choice(b, depth, list);
    }
}

/* ---- what the header says, computed from a list ----------------------------------------------------------------------- */

struct oracle {
    const struct made *made;
    const struct list *list;
    struct memo {
        struct text prefix;
        int32_t minimum;
    } *memo;
    size_t memo_count;
};

enum { MEMO_MAX = 1 << 14 };

static bool begins(const struct text *text, const struct text *prefix)
{
    return text->size >= prefix->size && memcmp(text->bytes, prefix->bytes, prefix->size) == 0;
}

/* The texts that begin with prefix: [*from, *to). */
static void range(const struct oracle *o, const struct text *prefix, size_t *from, size_t *to)
{
    size_t low = 0, high = o->list->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare_texts(&o->list->text[middle], prefix) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (*from = *to = low; *to < o->list->count && begins(&o->list->text[*to], prefix); ++*to) {
    }
}

static bool may_be_generated(const struct made *made, int32_t id)
{
    return id < made->size && tokenizer_bytes(made->tokenizer, id).size > 0 && !tokenizer_is_special(made->tokenizer, id) &&
           !tokenizer_is_control(made->tokenizer, id);
}

static bool is_spelled(const struct made *made, const struct ids *ids, struct span text)
{
    size_t at = 0;

    for (size_t i = 0; i < ids->count; i++) {
        struct span bytes = tokenizer_bytes(made->tokenizer, ids->id[i]);

        if (!may_be_generated(made, ids->id[i]) || at + bytes.size > text.size || memcmp(bytes.data, text.data + at, bytes.size) != 0)
            return false;
        at += bytes.size;
    }
    return at == text.size;
}

/* Fewest tokens, the longest first: by trying all. */
static bool cover(const struct made *made, struct span text, struct ids *ids)
{
    int least[TEXT_MAX + 1] = { 0 };
    int32_t token[TEXT_MAX + 1];

    for (size_t i = text.size; i-- > 0;) {
        size_t longest = 0;

        least[i] = 1 << 20;
        for (int32_t id = 0; id < made->size; id++) {
            struct span bytes = tokenizer_bytes(made->tokenizer, id);
            int here;

            if (!may_be_generated(made, id) || bytes.size > text.size - i || memcmp(bytes.data, text.data + i, bytes.size) != 0)
                continue;
            here = least[i + bytes.size] + 1;
            if (here < least[i] || (here == least[i] && bytes.size > longest)) {
                least[i] = here;
                token[i] = id;
                longest = bytes.size;
            }
        }
    }
    if (least[0] >= 1 << 20)
        return false;
    for (size_t i = 0; i < text.size; i += tokenizer_bytes(made->tokenizer, token[i]).size)
        CHECK(ids_add(ids, token[i]));
    return true;
}

/* How many bytes are forced after prefix, and the tokenizer's tokens of them. */
static size_t forced_run(const struct oracle *o, const struct text *prefix, struct ids *ids)
{
    size_t from, to, end = prefix->size, whole = prefix->size;
    const struct text *first, *last;
    struct text_part part = { .added = ADDED_PLAIN };
    struct err err;

    range(o, prefix, &from, &to);
    first = &o->list->text[from];
    last = &o->list->text[to - 1];
    while (first->size > end && last->size > end && first->bytes[end] == last->bytes[end])
        end++;
    for (size_t size = 1; whole + size <= end && size <= 4; size++)
        if (span_is_utf8(span_of(first->bytes + whole, size))) {
            whole += size;
            size = 0;
        }
    if (whole == prefix->size)
        return 0;
    part.text = span_of(first->bytes + prefix->size, whole - prefix->size);
    if (!tokenizer_encode_parts(o->made->tokenizer, &part, 1, ids, &err) || !is_spelled(o->made, ids, part.text)) {
        ids->count = 0;
        if (!cover(o->made, part.text, ids))
            return 0;
    }
    return part.text.size;
}

/* Does this token, at prefix, cover the next `rest` bytes of the forced run and go on? */
static bool covers(const struct oracle *o, const struct text *prefix, struct span rest, int32_t id)
{
    struct span bytes = tokenizer_bytes(o->made->tokenizer, id);
    struct text after = *prefix;
    size_t from, to;

    if (!may_be_generated(o->made, id) || bytes.size <= rest.size || memcmp(bytes.data, rest.data, rest.size) != 0 ||
        prefix->size + bytes.size > TEXT_MAX)
        return false;
    memcpy(after.bytes + after.size, bytes.data, bytes.size);
    after.size = (uint8_t)(after.size + bytes.size);
    range(o, &after, &from, &to);
    return from < to;
}

struct seam {
    size_t bytes; /* of the run; 0: it is none */
    size_t first_bytes;
    int32_t first;
};

/* How many bytes are sure after prefix, and their tokens; or what the seam is. */
static size_t forced(const struct oracle *o, const struct text *prefix, struct ids *ids, struct seam *seam)
{
    size_t size = forced_run(o, prefix, ids), from, to, at = 0;
    struct text here = *prefix;

    *seam = (struct seam){ 0 };
    if (size == 0)
        return 0;
    range(o, prefix, &from, &to);
    for (size_t i = 0; i < ids->count; i++) {
        struct span rest = span_of(o->list->text[from].bytes + prefix->size + at, size - at);

        here.size = (uint8_t)(prefix->size + at);
        memcpy(here.bytes, o->list->text[from].bytes, here.size);
        for (int32_t id = 0; id < o->made->size; id++) {
            if (!covers(o, &here, rest, id))
                continue;
            if (i == 0)
                *seam = (struct seam){ size, tokenizer_bytes(o->made->tokenizer, ids->id[0]).size, ids->id[0] };
            ids->count = i;
            return at;
        }
        at += tokenizer_bytes(o->made->tokenizer, ids->id[i]).size;
    }
    return size;
}

static int32_t minimum(struct oracle *o, const struct text *prefix)
{
    size_t from, to, size;
    const struct text *c;
    struct seam seam;
    struct ids ids = { 0 };
    int32_t least = INT32_MAX;

    for (size_t i = 0; i < o->memo_count; i++)
        if (compare_texts(&o->memo[i].prefix, prefix) == 0)
            return o->memo[i].minimum;
    range(o, prefix, &from, &to);
    CHECK(from < to);
    c = &o->list->text[from];
    for (size_t i = from + 1; i < to; i++)
        if (o->list->text[i].size < c->size)
            c = &o->list->text[i];
    if (c->size == prefix->size) {
        least = 0;
    } else if ((size = forced(o, prefix, &ids, &seam)) > 0) {
        struct text after = *c;

        after.size = (uint8_t)(prefix->size + size);
        least = minimum(o, &after);
        if (least < INT32_MAX)
            least += (int32_t)ids.count;
    } else {
        for (int32_t id = 0; id < o->made->size; id++) {
            struct span bytes = tokenizer_bytes(o->made->tokenizer, id);
            struct text after = *c;
            int32_t here;

            if (!may_be_generated(o->made, id) || bytes.size > (size_t)c->size - prefix->size ||
                memcmp(bytes.data, c->bytes + prefix->size, bytes.size) != 0)
                continue;
            if (seam.bytes && bytes.size <= seam.bytes && bytes.size != seam.first_bytes)
                continue;
            after.size = (uint8_t)(prefix->size + bytes.size);
            here = minimum(o, &after);
            if (here < INT32_MAX && here + 1 < least)
                least = here + 1;
        }
    }
    ids_fini(&ids);
    CHECK(o->memo_count < MEMO_MAX);
    o->memo[o->memo_count++] = (struct memo){ *prefix, least };
    return least;
}

/* ---- comparing ----------------------------------------------------------------------------------------------------------- */

static bool has(const uint64_t *mask, int32_t id)
{
    return mask && (mask[id / 64] >> (id % 64) & 1);
}

/* Only of our letters: other bytes fit into strings too, and the list does not have them. */
static bool is_ours(struct span bytes)
{
    for (size_t i = 0; i < bytes.size; i++)
        if (!memchr(letters, bytes.data[i], sizeof letters - 1))
            return false;
    return true;
}

static void check_place(struct oracle *o, struct grammar_run *run, const struct text *prefix, int32_t budget)
{
    struct ids want = { 0 }, got = { 0 };
    size_t from, to, count, size;
    const uint64_t *mask;
    struct seam seam;
    struct err err;
    bool any = false;

    range(o, prefix, &from, &to);
    CHECK(from < to);
    CHECK(grammar_may_end(run) == (o->list->text[from].size == prefix->size));
    CHECK(grammar_must_end(run) == (to - from == 1 && o->list->text[from].size == prefix->size));
    assert_int_equal(grammar_run_minimum(run), minimum(o, prefix));
    size = 0;
    seam.bytes = 0;
    if (!grammar_must_end(run))
        size = forced(o, prefix, &want, &seam);
    CHECK(grammar_forced(run, &got, &count, &err));
    assert_int_equal(count, size ? want.count : 0);
    CHECK(got.count == count && (count == 0 || memcmp(want.id, got.id, count * sizeof *got.id) == 0));
    mask = grammar_mask(run, budget);
    for (int32_t id = 0; id < o->made->size; id++) {
        struct span bytes = tokenizer_bytes(o->made->tokenizer, id);
        struct text after = *prefix;
        bool fits = false;

        if (bytes.size == 0 || !is_ours(bytes))
            continue;
        if (may_be_generated(o->made, id) && prefix->size + bytes.size <= TEXT_MAX) {
            memcpy(after.bytes + after.size, bytes.data, bytes.size);
            after.size = (uint8_t)(after.size + bytes.size);
            range(o, &after, &from, &to);
            fits = from < to && minimum(o, &after) <= budget - 1;
        }
        if (seam.bytes)
            fits &= bytes.size > seam.bytes || id == seam.first;
        if (size)
            fits = id == want.id[0] && minimum(o, prefix) <= budget;
        if (has(mask, id) != fits)
            fail_msg("seed %d, after `%.*s`, budget %d, token %d `%.*s`: %d, expected %d", (int)seed_now, prefix->size, (const char *)prefix->bytes, budget,
                     id, (int)bytes.size, (const char *)bytes.data, has(mask, id), fits);
        any |= fits;
    }
    CHECK(any || !mask || grammar_run_minimum(run) <= budget);
    ids_fini(&want);
    ids_fini(&got);
}

/* Under masks to the end: whatever is drawn, the text is complete when the budget is spent. */
static void wander(struct oracle *o, struct grammar *grammar, int32_t budget, bool compare)
{
    struct grammar_run *run = grammar_run_new(grammar);
    struct text text = { 0 };
    size_t from, to;
    struct err err;

    CHECK(run);
    while (!grammar_must_end(run) && budget > 0 && !(grammar_may_end(run) && chance(6) == 0)) {
        struct ids ids = { 0 };
        size_t count;

        CHECK(grammar_run_minimum(run) <= budget);
        if (compare)
            check_place(o, run, &text, 1 + (int32_t)chance((uint32_t)budget + 2));
        CHECK(grammar_forced(run, &ids, &count, &err));
        if (count == 0) {
            const uint64_t *mask = grammar_mask(run, budget);
            int32_t id, seen = 0, picked = -1;

            if (!mask && grammar_may_end(run))
                break; /* more could follow, but cannot be written */
            if (!mask)
                fail_msg("seed %d, after `%.*s`: no token with a budget of %d, minimum %d", (int)seed_now, text.size,
                         (const char *)text.bytes, budget, grammar_run_minimum(run));
            for (id = 0; id < o->made->size; id++)
                if (has(mask, id) && is_ours(tokenizer_bytes(o->made->tokenizer, id)) && chance((uint32_t)++seen) == 0)
                    picked = id;
            CHECK(picked >= 0);
            CHECK(ids_add(&ids, picked));
        }
        for (size_t i = 0; i < ids.count; i++) {
            struct span bytes = tokenizer_bytes(o->made->tokenizer, ids.id[i]);

            CHECK(budget-- > 0);
            CHECK(grammar_advance(run, ids.id[i]));
            CHECK(text.size + bytes.size <= TEXT_MAX);
            memcpy(text.bytes + text.size, bytes.data, bytes.size);
            text.size = (uint8_t)(text.size + bytes.size);
        }
        ids_fini(&ids);
    }
    CHECK(grammar_may_end(run));
    range(o, &text, &from, &to);
    CHECK(from < to && o->list->text[from].size == text.size);
    if (compare)
        check_place(o, run, &text, 1);
    grammar_run_free(run);
}

static void check_acceptance(const struct oracle *o, struct grammar *grammar)
{
    for (int i = 0; i < 20 && o->list->count > 0; i++) {
        struct grammar_run *run = grammar_run_new(grammar);
        struct text text = o->list->text[chance((uint32_t)o->list->count)];
        size_t from, to;

        if (i >= 10 && text.size > 0) /* one byte is another: it is in the list, or it is not accepted */
            text.bytes[chance(text.size)] = (uint8_t)letters[chance(sizeof letters - 1)];
        if (i >= 15 && text.size > 0)
            text.size = (uint8_t)chance(text.size);
        range(o, &text, &from, &to);
        CHECK(grammar_advance_bytes(run, span_of(text.bytes, text.size)) == (from < to));
        if (from < to)
            CHECK(grammar_may_end(run) == (o->list->text[from].size == text.size));
        else
            CHECK(grammar_advance_bytes(run, span_of(NULL, 0))); /* it has not moved */
        grammar_run_free(run);
    }
}

static void check_random(uint64_t seed, int *built, int *refused)
{
    struct grammar_builder *b = grammar_builder_new();
    struct recipe recipe = { 0 };
    struct grammar *grammar = NULL;
    struct list list;
    struct made made;
    struct err err;
    grammar_node root;
    char special[3] = { 0 };

    chance_state = seed * 0x9E3779B97F4A7C15u;
    seed_now = seed;
    if (chance(4) == 0)
        special[0] = "\"[]{},:ab"[chance(9)];
    recipe.special = special;
    if (chance(3) == 0)
        recipe.added = "{\"id\":400,\"content\":\"ba\"},{\"id\":401,\"content\":\"[a\",\"special\":true},{\"id\":402,\"content\":\"<|a|>\"}";
    random_merges(&recipe, BYTES_MAX);
    if (chance(8) == 0)
        recipe.vocab = 256 + (int32_t)chance(10);
    made = make(&recipe);
    root = random_node(b, 3, &list);
    if (list.over) {
        grammar_builder_free(b);
    } else {
        struct oracle o = { .made = &made, .list = &list, .memo = malloc(MEMO_MAX * sizeof(struct memo)) };
        struct text nothing = { 0 };
        int32_t least = list.count ? minimum(&o, &nothing) : INT32_MAX;

        CHECK(o.memo);
        if (!grammar_build(&grammar, b, root, made.vocabulary, &err)) {
            if (least != INT32_MAX)
                fail_msg("seed %d: %s, and the minimum is %d", (int)seed, err.text, least);
            CHECK(err.code == ERR_INPUT);
            ++*refused;
        } else {
            assert_int_equal(grammar_minimum(grammar), least);
            check_acceptance(&o, grammar);
            for (int32_t extra = 0; extra < 6; extra++)
                wander(&o, grammar, least + (extra < 5 ? extra : (int32_t)chance(60)), extra != 4);
            ++*built;
        }
        grammar_builder_free(b);
        grammar_free(grammar);
        free(o.memo);
    }
    free(list.text);
    unmake(&made);
}

/* Everything at once, over languages that can be listed. */
static void test_small_languages_are_as_their_lists_say(void **state)
{
    const char *rounds = getenv("MOOTHALL_GRAMMAR_ROUNDS"), *first = getenv("MOOTHALL_GRAMMAR_SEED");
    int built = 0, refused = 0, count = rounds ? atoi(rounds) : 400;

    (void)state;
    for (int i = 0; i < count; i++)
        check_random((uint64_t)(first ? atoi(first) : 1) + (uint64_t)i, &built, &refused);
    CHECK(built > count / 3 && refused > count / 40);
}

/* ---- what lists cannot hold ---------------------------------------------------------------------------------------------- */

static struct made plain(void)
{
    return make(&(struct recipe){ .merge_count = 5, .merge = { { 'a', 'a' }, { '"', ',' }, { 256, 256 }, { '[', '[' }, { 'b', ']' } } });
}

static struct grammar *built(struct grammar_builder *b, grammar_node root, const struct made *made)
{
    struct grammar *grammar;
    struct err err;

    if (!grammar_build(&grammar, b, root, made->vocabulary, &err))
        fail_msg("%s", err.text);
    grammar_builder_free(b);
    return grammar;
}

static enum err_code refusal(struct grammar_builder *b, grammar_node root, const struct made *made, const char *words)
{
    struct grammar *grammar;
    struct err err;

    CHECK(!grammar_build(&grammar, b, root, made->vocabulary, &err));
    CHECK(!grammar);
    if (!strstr(err.text, words))
        fail_msg("`%s`, expected `%s`", err.text, words);
    grammar_builder_free(b);
    return err.code;
}

static bool accepts_bytes(struct grammar *grammar, struct span text)
{
    struct grammar_run *run = grammar_run_new(grammar);
    bool ok = grammar_advance_bytes(run, text) && grammar_may_end(run);

    grammar_run_free(run);
    return ok;
}

static bool accepts(struct grammar *grammar, const char *text)
{
    return accepts_bytes(grammar, span_text(text));
}

static grammar_node literal(struct grammar_builder *b, const char *text)
{
    return grammar_literal(b, span_text(text));
}

static grammar_node sequence(struct grammar_builder *b, grammar_node x, grammar_node y, grammar_node z)
{
    grammar_node part[3] = { x, y, z };

    return grammar_sequence(b, part, 3);
}

static grammar_node choice(struct grammar_builder *b, grammar_node x, grammar_node y)
{
    grammar_node branch[2] = { x, y };

    return grammar_choice(b, branch, 2);
}

static struct dfa *dfa_of_texts(const char *const *text, size_t count)
{
    struct list list = list_new();
    struct dfa *dfa;

    for (size_t i = 0; i < count; i++)
        list_add(&list, text[i], strlen(text[i]));
    dfa = dfa_of(&list);
    free(list.text);
    return dfa;
}

enum whom { OURS, EVERY }; /* the tokens of our letters, or all */

static bool fits_after(struct grammar *grammar, struct span before, int32_t token, int32_t left)
{
    struct grammar_run *run = grammar_run_new(grammar);
    bool fits;

    CHECK(grammar_advance_bytes(run, before));
    fits = grammar_advance(run, token) && grammar_run_minimum(run) <= left;
    grammar_run_free(run);
    return fits;
}

/* Where only one byte can follow a mask may hold fewer tokens: the tokenizer's own, and those beyond the forced bytes. */
static bool is_choice(struct grammar *grammar, const struct made *made, struct span before, enum whom whom)
{
    struct grammar_run *run = grammar_run_new(grammar);
    int ways = 0;

    CHECK(grammar_advance_bytes(run, before));
    for (int32_t id = 0; id < made->size && ways < 2; id++) {
        struct span bytes = tokenizer_bytes(made->tokenizer, id);

        if (bytes.size != 1 || (whom == OURS && !is_ours(bytes)) || !grammar_advance(run, id))
            continue;
        ways++;
        grammar_run_free(run);
        run = grammar_run_new(grammar);
        CHECK(grammar_advance_bytes(run, before));
    }
    grammar_run_free(run);
    return ways != 1;
}

/* At the bounds, too: a token has its bit when advance takes it and the rest of the budget is enough, and only then. */
static void check_agreement(struct grammar *grammar, const struct made *made, struct span before, int32_t budget, enum whom whom)
{
    struct grammar_run *run = grammar_run_new(grammar);
    uint64_t *mask = calloc((size_t)made->size / 64 + 1, sizeof *mask);
    const uint64_t *got;
    bool choice_here = is_choice(grammar, made, before, whom);
    struct ids ids = { 0 };
    size_t count;
    struct err err;

    CHECK(mask && grammar_advance_bytes(run, before));
    CHECK(grammar_forced(run, &ids, &count, &err));
    choice_here |= grammar_may_end(run);
    if ((got = grammar_mask(run, budget)) != NULL)
        memcpy(mask, got, (size_t)(made->size + 63) / 64 * 8);
    grammar_run_free(run);
    for (int32_t id = 0; id < made->size && count == 0; id++) {
        bool fits;

        if (whom == OURS && !is_ours(tokenizer_bytes(made->tokenizer, id)) && id != 'c')
            continue;
        fits = fits_after(grammar, before, id, budget - 1);
        if (has(mask, id) ? !fits : fits && choice_here)
            fail_msg("after `%.*s` (%zu bytes), budget %d, token %d: %d, expected %d",
                     before.size < 200 ? (int)before.size : 200, (const char *)before.data, before.size, budget, id, has(mask, id),
                     fits);
    }
    ids_fini(&ids);
    free(mask);
}

/* As nested as the stack is deep, and not one deeper; a mask does not lead there, so nothing is ever stuck. */
static void test_recursion_goes_as_deep_as_the_stack(void **state)
{
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    grammar_node self = grammar_reserve(b);
    struct grammar *grammar;
    struct grammar_run *run;
    char text[2 * GRAMMAR_DEPTH_MAX + 4];

    (void)state;
    grammar_define(b, self, choice(b, literal(b, "b"), sequence(b, literal(b, "["), self, literal(b, "]"))));
    grammar = built(b, self, &made);
    CHECK(accepts(grammar, "b") && accepts(grammar, "[[b]]") && !accepts(grammar, "[[b]") && !accepts(grammar, "[]"));
    for (int depth = GRAMMAR_DEPTH_MAX; depth <= GRAMMAR_DEPTH_MAX + 1; depth++) {
        memset(text, '[', (size_t)depth);
        text[depth] = 'b';
        memset(text + depth + 1, ']', (size_t)depth);
        CHECK(accepts_bytes(grammar, span_of(text, 2 * (size_t)depth + 1)) == (depth == GRAMMAR_DEPTH_MAX));
    }
    run = grammar_run_new(grammar);
    for (int depth = 0; depth <= GRAMMAR_DEPTH_MAX; depth++) {
        const uint64_t *mask = grammar_mask(run, 100000);

        if (depth < 3 || depth > GRAMMAR_DEPTH_MAX - 6) {
            memset(text, '[', (size_t)depth);
            for (int32_t budget = depth; budget < depth + 5; budget += 2)
                check_agreement(grammar, &made, span_of(text, (size_t)depth), budget, OURS);
            mask = grammar_mask(run, 100000);
        }
        CHECK(has(mask, '[') == (depth < GRAMMAR_DEPTH_MAX) && (!mask || has(mask, 'b') || depth == GRAMMAR_DEPTH_MAX));
        assert_int_equal(grammar_run_minimum(run), depth ? depth : 1); /* b] is a token */
        CHECK(grammar_advance(run, '[') == (depth < GRAMMAR_DEPTH_MAX));
    }
    CHECK(grammar_advance(run, 'b')); /* the refusal did no harm */
    for (int depth = 0; depth < GRAMMAR_DEPTH_MAX; depth++)
        CHECK(!grammar_may_end(run) && grammar_advance(run, ']'));
    CHECK(grammar_must_end(run));
    grammar_run_free(run);
    grammar_free(grammar);
    unmake(&made);
}

/* Budgets in a recursive language: the deeper, the more must be left. */
static void test_a_budget_bounds_the_nesting(void **state)
{
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    grammar_node self = grammar_reserve(b);
    struct grammar *grammar;

    (void)state;
    grammar_define(b, self, choice(b, grammar_array(b, &(struct grammar_array){ .items = self, .high = GRAMMAR_NO_MAX }),
                                   grammar_string(b, 0, GRAMMAR_NO_MAX)));
    grammar = built(b, self, &made);
    CHECK(accepts(grammar, "[[\"a\",[],[\"[\"]],\"\"]") && !accepts(grammar, "[[\"a\",],\"\"]"));
    for (int32_t budget = 2; budget < 300; budget++) {
        struct grammar_run *run = grammar_run_new(grammar);

        chance_state = (uint64_t)budget;
        for (int32_t left = budget; !grammar_must_end(run); left--) {
            const uint64_t *mask;
            int32_t token = -1, seen = 0;
            struct ids ids = { 0 };
            size_t count;
            struct err err;

            CHECK(left > 0 && grammar_run_minimum(run) <= left);
            CHECK(grammar_forced(run, &ids, &count, &err));
            mask = count ? NULL : grammar_mask(run, left);
            CHECK(count || mask);
            if (count)
                token = ids.id[0];
            else if (has(mask, '[') && chance(8)) /* as deep as it goes */
                token = '[';
            else
                for (int32_t id = 0; id < made.size; id++)
                    if (has(mask, id) && chance((uint32_t)++seen) == 0)
                        token = id;
            CHECK(grammar_advance(run, token));
            ids_fini(&ids);
        }
        grammar_run_free(run);
    }
    grammar_free(grammar);
    unmake(&made);
}

static void test_recursion_without_an_end_is_refused(void **state)
{
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    grammar_node self = grammar_reserve(b), other;

    (void)state;
    grammar_define(b, self, sequence(b, literal(b, "a"), self, literal(b, "")));
    CHECK(refusal(b, self, &made, "no finite text") == ERR_INPUT);

    b = grammar_builder_new();
    self = grammar_reserve(b);
    grammar_define(b, self, self);
    CHECK(refusal(b, self, &made, "no finite text") == ERR_INPUT);

    b = grammar_builder_new();
    self = grammar_reserve(b);
    other = grammar_reserve(b);
    grammar_define(b, self, other);
    grammar_define(b, other, grammar_sequence(b, &self, 1));
    CHECK(refusal(b, choice(b, self, sequence(b, literal(b, "a"), other, self)), &made, "no finite text") == ERR_INPUT);

    b = grammar_builder_new();
    CHECK(refusal(b, grammar_nothing(b), &made, "no finite text") == ERR_INPUT);

    b = grammar_builder_new();
    CHECK(refusal(b, grammar_array(b, &(struct grammar_array){ .items = grammar_nothing(b), .low = 1, .high = 2 }), &made,
                  "no finite text") == ERR_INPUT);

    b = grammar_builder_new();
    CHECK(refusal(b, grammar_reserve(b), &made, "never defined") == ERR_INPUT);

    /* What cannot end is dropped where there is another way. */
    b = grammar_builder_new();
    self = grammar_reserve(b);
    grammar_define(b, self, sequence(b, literal(b, "a"), self, literal(b, "")));
    other = choice(b, self, literal(b, "ab"));
    {
        struct grammar *grammar = built(b, other, &made);
        struct grammar_run *run = grammar_run_new(grammar);

        CHECK(accepts(grammar, "ab") && grammar_advance(run, 'a') && !grammar_advance(run, 'a'));
        grammar_run_free(run);
        grammar_free(grammar);
    }
    unmake(&made);
}

/* Left recursion, empty cycles, ambiguity: calls without a byte between them must come to an end. */
static void test_cycles_without_a_byte_end(void **state)
{
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    grammar_node self = grammar_reserve(b);
    struct grammar *grammar;

    (void)state;
    grammar_define(b, self, choice(b, self, choice(b, literal(b, "a"), sequence(b, self, literal(b, "b"), literal(b, "")))));
    grammar = built(b, self, &made);
    CHECK(accepts(grammar, "a") && accepts(grammar, "abbbb") && !accepts(grammar, "b") && !accepts(grammar, "aba"));
    assert_int_equal(grammar_minimum(grammar), 1);
    grammar_free(grammar);

    b = grammar_builder_new();
    self = grammar_reserve(b);
    grammar_define(b, self, choice(b, literal(b, ""), choice(b, literal(b, "a"), sequence(b, self, self, self))));
    grammar = built(b, self, &made);
    CHECK(accepts(grammar, "") && accepts(grammar, "aaaaaaaa") && !accepts(grammar, "aab"));
    for (size_t size = 0; size < 6; size++)
        check_agreement(grammar, &made, span_of("aaaaaa", size), 1 + (int32_t)size, OURS);
    assert_int_equal(grammar_minimum(grammar), 0);
    grammar_free(grammar);
    unmake(&made);
}

/* More ways than can be kept open: refused where it is plain to see, else the shortest are kept and nothing is stuck. */
static void test_open_ways_are_bounded(void **state)
{
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    grammar_node branch[GRAMMAR_PATHS_MAX + 1], half[2];
    struct grammar *grammar;
    struct grammar_run *run;
    char text[GRAMMAR_PATHS_MAX * 2 + 8];

    (void)state;
    for (int i = 0; i <= GRAMMAR_PATHS_MAX; i++) {
        memset(text, 'a', (size_t)i + 1);
        text[i + 1] = '\0';
        branch[i] = literal(b, text);
    }
    CHECK(refusal(b, grammar_choice(b, branch, GRAMMAR_PATHS_MAX + 1), &made, "a choice of more than 256") == ERR_LIMIT);

    /* Choices within choices count together, whatever circles they have. */
    for (int each = GRAMMAR_PATHS_MAX / 2; each <= GRAMMAR_PATHS_MAX / 2 + 1; each++) {
        grammar_node self;

        b = grammar_builder_new();
        self = grammar_reserve(b);
        for (int h = 0; h < 2; h++) {
            for (int i = 0; i < each; i++) {
                memset(text, 'a', (size_t)(h * each + i) + 1);
                memcpy(text + h * each + i + 1, "b", 2);
                branch[i] = literal(b, text);
            }
            branch[each] = self;
            half[h] = grammar_choice(b, branch, (size_t)each + 1);
        }
        grammar_define(b, self, grammar_choice(b, half, 2));
        if (each == GRAMMAR_PATHS_MAX / 2)
            grammar_free(built(b, self, &made));
        else
            CHECK(refusal(b, self, &made, "a choice of more than 256") == ERR_LIMIT);
    }

    /* Two choices, one after the other: what is open grows with the text. */
    b = grammar_builder_new();
    for (int h = 0; h < 2; h++) {
        for (int i = 0; i < GRAMMAR_PATHS_MAX; i++) {
            memset(text, 'a', (size_t)i);
            text[i] = h ? 'b' : '\0';
            text[i + 1] = '\0';
            branch[i] = literal(b, text);
        }
        half[h] = grammar_choice(b, branch, GRAMMAR_PATHS_MAX);
    }
    grammar = built(b, grammar_sequence(b, half, 2), &made);
    memset(text, 'a', sizeof text);
    text[10] = text[2 * GRAMMAR_PATHS_MAX - 2] = 'b';
    CHECK(accepts_bytes(grammar, span_of(text, 11))); /* what is near its end is kept, what is far is given up */
    text[10] = 'a';
    CHECK(!accepts_bytes(grammar, span_of(text, 2 * GRAMMAR_PATHS_MAX - 1)));
    text[2 * GRAMMAR_PATHS_MAX - 2] = 'a';
    run = grammar_run_new(grammar);
    for (int at = 0; !grammar_must_end(run); at++) {
        const uint64_t *mask = grammar_mask(run, 1000);

        CHECK(mask && at < 2 * GRAMMAR_PATHS_MAX);
        if (at % 4 == 0 && at < 40)
            check_agreement(grammar, &made, span_of(text, (size_t)at), 1 + at, OURS);
        mask = grammar_mask(run, 1000);
        CHECK(grammar_advance(run, has(mask, 'a') ? 'a' : 'b'));
    }
    grammar_run_free(run);
    grammar_free(grammar);
    unmake(&made);
}

/* Choices with a long common beginning stay open until they part. */
static void test_common_beginnings_stay_open(void **state)
{
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    grammar_node branch[3];
    struct grammar *grammar;
    struct grammar_run *run;
    struct ids ids = { 0 };
    size_t count;
    struct err err;

    (void)state;
    branch[0] = literal(b, "aaaaaaaaaaaaa:a");
    branch[1] = sequence(b, literal(b, "aaaaaaaaaaaaa"), literal(b, ":"), literal(b, "b"));
    branch[2] = sequence(b, literal(b, "aaa"), literal(b, "aaaaaaaaaa:"), grammar_string(b, 0, 0));
    grammar = built(b, grammar_choice(b, branch, 3), &made);
    run = grammar_run_new(grammar);
    CHECK(grammar_forced(run, &ids, &count, &err));
    assert_int_equal(count, 5); /* aaaa aaaa aaaa a : */
    for (size_t i = 0; i < count; i++)
        CHECK(grammar_advance(run, ids.id[i]));
    {
        const uint64_t *mask = grammar_mask(run, 2);

        CHECK(has(mask, 'a') && has(mask, 'b') && has(mask, '"') && !has(mask, ':'));
    }
    CHECK(!has(grammar_mask(run, 1), '"') && has(grammar_mask(run, 1), 'b'));
    ids_fini(&ids);
    grammar_run_free(run);
    grammar_free(grammar);
    unmake(&made);
}

/* Each text has one spelling. */
static void test_strings_are_spelled_one_way(void **state)
{
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    struct grammar *grammar = built(b, grammar_string(b, 1, 3), &made);
    static const char *const begun[] = { "\"", "\"a", "\"ab", "\"abc", "\"\\", "\"\\u0", "\"\\u00", "\"\\u000", "\"a\\u001",
                                         "\"\xc3", "\"a\xe0", "\"\xe2\x82", "\"\xed", "\"ab\xf0", "\"\xf0\x9f", "\"\xf4" };

    (void)state;
    CHECK(!accepts(grammar, "\"\"") && accepts(grammar, "\"abc\"") && !accepts(grammar, "\"abcd\""));
    CHECK(accepts(grammar, "\"\\\"\\\\\\n\"") && !accepts(grammar, "\"\\/\"") && !accepts(grammar, "\"\n\""));
    CHECK(accepts(grammar, "\"\\u0000\\u001f\\u000b\"") && !accepts(grammar, "\"\\u000a\"") && !accepts(grammar, "\"\\u0008\""));
    CHECK(!accepts(grammar, "\"\\u001F\"") && !accepts(grammar, "\"\\u0020\"") && accepts(grammar, "\"\x7f\""));
    CHECK(accepts(grammar, "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"") && !accepts(grammar, "\"\xf0\x9f\x98\x80" "abc\""));
    for (int32_t budget = 1; budget < 8; budget++)
        for (size_t i = 0; i < sizeof begun / sizeof begun[0]; i++)
            check_agreement(grammar, &made, span_text(begun[i]), budget, EVERY);
    CHECK(!accepts(grammar, "\"\xed\xa0\x80\"") && !accepts(grammar, "\"\xc0\x80\"") && !accepts(grammar, "\"\xf4\x90\x80\x80\""));
    grammar_free(grammar);
    unmake(&made);
}

/* Sixty thousand characters cost nothing to build, and the last of them are counted exactly. */
static void test_long_counts(void **state)
{
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    struct grammar *grammar = built(b, grammar_string(b, 0, 60000), &made);
    struct grammar_run *run = grammar_run_new(grammar);
    char *text = malloc(70000);
    const uint64_t *mask;

    (void)state;
    memset(text, 'a', 70000);
    text[0] = '"';
    CHECK(grammar_bytes(grammar) < 4 << 20);
    CHECK(grammar_advance_bytes(run, span_of(text, 1 + 59997)));
    mask = grammar_mask(run, 100);
    CHECK(has(mask, 256) && !has(mask, 258) && has(mask, 'a') && has(mask, '"')); /* aa, aaaa */
    CHECK(grammar_advance(run, 256));
    CHECK(!has(grammar_mask(run, 100), 256) && has(grammar_mask(run, 100), 'a'));
    CHECK(!grammar_advance(run, 256) && grammar_advance(run, 'a') && !grammar_advance(run, 'a'));
    CHECK(grammar_advance(run, '"') && grammar_must_end(run));
    grammar_run_free(run);
    grammar_free(grammar);

    b = grammar_builder_new();
    grammar = built(b, grammar_string(b, 60000, GRAMMAR_NO_MAX), &made);
    assert_int_equal(grammar_minimum(grammar), 60002); /* a space has no longer token here */
    text[60000] = '"';
    CHECK(!accepts_bytes(grammar, span_of(text, 60001)));
    text[60000] = 'a';
    text[60001] = '"';
    CHECK(accepts_bytes(grammar, span_of(text, 60002)));
    grammar_free(grammar);

    b = grammar_builder_new();
    CHECK(refusal(b, grammar_string(b, GRAMMAR_ENDING_MAX, GRAMMAR_NO_MAX), &made, "at most 131072") == ERR_LIMIT);
    b = grammar_builder_new();
    CHECK(refusal(b, grammar_string(b, GRAMMAR_ITEMS_MAX + 1, GRAMMAR_NO_MAX), &made, "16777216") == ERR_LIMIT);

    b = grammar_builder_new();
    grammar = built(b, grammar_array(b, &(struct grammar_array){ .items = literal(b, "a"), .low = 30000, .high = 30001 }), &made);
    for (size_t i = 0; i < 30002; i++)
        memcpy(text + 2 * i, i ? ",a" : "[a", 2);
    for (size_t n = 29999; n <= 30002; n++) {
        char last = text[2 * n];

        text[2 * n] = ']';
        CHECK(accepts_bytes(grammar, span_of(text, 2 * n + 1)) == (n == 30000 || n == 30001));
        text[2 * n] = last;
    }
    grammar_free(grammar);
    free(text);
    unmake(&made);
}

/* What would take too long to end is not begun. */
static void test_no_ending_is_longer_than_the_bound(void **state)
{
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    grammar_node text = grammar_string(b, 70000, GRAMMAR_NO_MAX);
    struct grammar_property property[] = { { span_text("\"a\""), text, false }, { span_text("\"b\""), choice(b, text, literal(b, "{")), false },
                                           { span_text("\"c\""), text, true } };
    struct grammar *grammar = built(b, grammar_object(b, &(struct grammar_object){ property, 3, NULL, 0 }), &made);

    (void)state;
    check_agreement(grammar, &made, span_text("{"), 200000, OURS);
    check_agreement(grammar, &made, span_text("{\""), 200000, OURS);
    check_agreement(grammar, &made, span_text("{\"b\":"), 200000, OURS);
    check_agreement(grammar, &made, span_text("{\"b\":{"), 200000, OURS);
    CHECK(!accepts(grammar, "{\"a"));
    {
        struct grammar_run *run = grammar_run_new(grammar);

        CHECK(!grammar_advance_bytes(run, span_text("{\"a")) && grammar_advance_bytes(run, span_text("{\"b\":{,\"c\":\"")));
        grammar_run_free(run);
    }
    grammar_free(grammar);
    unmake(&made);
}

/* A vocabulary of real size and shape: the demo's, or what MOOTHALL_GRAMMAR_TOKENIZER names. */
static void test_masks_agree_at_a_real_vocabulary(void **state)
{
    static const char *const other[] = { "\"c\"", "\"cc\"" }, *const dates[] = { "\"2024-01-31\"", "\"2024-12-01\"", "\"1999-01-31\"" };
    const char *dir = getenv("MOOTHALL_GRAMMAR_TOKENIZER");
    struct made made;
    struct grammar_builder *b = grammar_builder_new();
    struct dfa *keys = dfa_of_texts(other, 2);
    grammar_node self = grammar_reserve(b), text = grammar_string(b, 0, GRAMMAR_NO_MAX);
    grammar_node date = grammar_regular(b, dfa_of_texts(dates, 3));
    struct grammar_property property[] = {
        { span_text("\"name\""), grammar_string(b, 2, 12), true },
        { span_text("\"note\""), choice(b, text, literal(b, "null")), false },
        { span_text("\"date\""), date, true },
        { span_text("\"list\""), grammar_array(b, &(struct grammar_array){ .items = self, .low = 1, .high = 3 }), false },
    };
    struct grammar *grammar;
    struct err err;

    (void)state;
    if (!tokenizer_load(&made.tokenizer, dir ? dir : SOURCE_DIR "/deploy/demo/model", &err))
        fail_msg("%s", err.text);
    made.size = tokenizer_size(made.tokenizer);
    made.vocabulary = vocabulary_new(made.tokenizer, made.size);
    CHECK(made.vocabulary);
    grammar_define(b, self, choice(b, grammar_object(b, &(struct grammar_object){ property, 4, keys, text }), date));
    dfa_free(keys);
    grammar = built(b, self, &made);
    for (int round = 0; round < 12; round++) {
        struct grammar_run *run = grammar_run_new(grammar);
        struct buf before = { 0 };
        int32_t left = grammar_minimum(grammar) + round * 4;

        chance_state = (uint64_t)round + 1;
        while (!grammar_must_end(run)) {
            struct ids ids = { 0 };
            const uint64_t *mask;
            int32_t seen = 0;
            size_t count;

            CHECK(grammar_forced(run, &ids, &count, &err));
            if (count == 0) {
                if (chance(3) == 0)
                    check_agreement(grammar, &made, buf_span(&before), 1 + (int32_t)chance((uint32_t)left + 2), EVERY);
                CHECK(grammar_run_minimum(run) <= left);
                mask = grammar_mask(run, left);
                if (!mask) {
                    CHECK(grammar_may_end(run));
                    break;
                }
                CHECK(ids_add(&ids, -1));
                for (int32_t id = 0; id < made.size; id++)
                    if (has(mask, id) && chance((uint32_t)++seen) == 0)
                        ids.id[0] = id;
            }
            for (size_t i = 0; i < ids.count; i++) {
                struct span bytes = tokenizer_bytes(made.tokenizer, ids.id[i]);

                CHECK(left-- > 0 && grammar_advance(run, ids.id[i]) && buf_add(&before, bytes.data, bytes.size));
            }
            ids_fini(&ids);
        }
        CHECK(accepts_bytes(grammar, buf_span(&before)));
        buf_fini(&before);
        grammar_run_free(run);
    }
    grammar_free(grammar);
    unmake(&made);
}

static void test_a_long_constant_is_forced_in_parts(void **state)
{
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    size_t size = 100000, count;
    char *text = malloc(GRAMMAR_ENDING_MAX + 1);
    struct ids ids = { 0 };
    struct grammar *grammar;
    struct grammar_run *run;
    struct err err;

    (void)state;
    memset(text, 'a', GRAMMAR_ENDING_MAX + 1);
    grammar = built(b, grammar_literal(b, span_of(text, size)), &made);
    assert_int_equal(grammar_minimum(grammar), size / 4); /* aaaa is the longest */
    run = grammar_run_new(grammar);
    while (!grammar_must_end(run)) {
        size_t before = ids.count;

        CHECK(grammar_forced(run, &ids, &count, &err) && count > 0 && count <= GRAMMAR_FORCED_MAX);
        for (size_t i = before; i < ids.count; i++)
            CHECK(grammar_advance(run, ids.id[i]));
    }
    assert_int_equal(ids.count, size / 4);
    ids_fini(&ids);
    grammar_run_free(run);
    grammar_free(grammar);

    b = grammar_builder_new();
    CHECK(refusal(b, grammar_literal(b, span_of(text, GRAMMAR_ENDING_MAX + 1)), &made, "131073 bytes") == ERR_LIMIT);
    free(text);
    unmake(&made);
}

/* What a grammar asks for is spelled as it says, and never with a token that means something else. */
static void test_forced_tokens_spell_the_bytes(void **state)
{
    struct made made = make(&(struct recipe){ .added = "{\"id\":400,\"content\":\"<|a|>\"},{\"id\":401,\"content\":\"bb\"}",
                                              .normalizer = "{\"type\":\"NFC\"}" });
    struct grammar_builder *b = grammar_builder_new();
    struct grammar *grammar = built(b, literal(b, "<|a|>e\xcc\x81" "bb"), &made);
    struct grammar_run *run = grammar_run_new(grammar);
    static const int32_t want[] = { '<', '|', 'a', '|', '>', 'e', 0xcc, 0x81, 401 };
    struct ids ids = { 0 };
    size_t count;
    struct err err;

    (void)state;
    CHECK(grammar_forced(run, &ids, &count, &err));
    CHECK(count == sizeof want / sizeof want[0] && memcmp(ids.id, want, sizeof want) == 0);
    CHECK(!grammar_advance(run, 400) && !grammar_advance(run, -1) && !grammar_advance(run, 5000));
    for (size_t i = 0; i < count; i++)
        CHECK(grammar_advance(run, ids.id[i]));
    CHECK(grammar_must_end(run) && !grammar_mask(run, 10));
    ids.max = ids.count + 3; /* no room: the list stays as it was */
    grammar_run_free(run);
    run = grammar_run_new(grammar);
    CHECK(!grammar_forced(run, &ids, &count, &err) && err.code == ERR_LIMIT && ids.count == sizeof want / sizeof want[0]);
    ids_fini(&ids);
    grammar_run_free(run);
    grammar_free(grammar);
    unmake(&made);
}

static void test_objects_have_their_order_and_others_behind(void **state)
{
    static const char *const other[] = { "\"c\"", "\"cc\"", "\"\xc3\xa9\"" };
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    struct dfa *keys = dfa_of_texts(other, 3);
    grammar_node one = literal(b, "1");
    struct grammar_property property[] = {
        { span_text("\"a\""), one, false },  { span_text("\"ab\""), one, true }, { span_text("\"\\\"b\""), one, false },
        { span_text("\"n\""), grammar_nothing(b), false }, { span_text("\"z\""), one, false },
    };
    struct grammar *grammar = built(b, grammar_object(b, &(struct grammar_object){ property, 5, keys, literal(b, "2") }), &made);
    static const struct {
        const char *text;
        bool fits;
    } cases[] = {
        { "{\"ab\":1}", true },
        { "{}", false },
        { "{\"a\":1,\"ab\":1}", true },
        { "{\"a\":1}", false },
        { "{\"ab\":1,\"a\":1}", false },
        { "{\"ab\":1,\"\\\"b\":1,\"z\":1}", true },
        { "{\"ab\":1,\"z\":1,\"\\\"b\":1}", false },
        { "{\"ab\":1,\"n\":1}", false },
        { "{\"ab\":1,\"c\":2,\"cc\":2,\"c\":2,\"\xc3\xa9\":2}", true },
        { "{\"ab\":1,\"c\":1}", false },
        { "{\"c\":2,\"ab\":1}", false },
        { "{\"ab\":1,\"c\":2,\"z\":1}", false },
        { "{\"ab\":1,}", false },
        { "{,\"ab\":1}", false },
        { "{\"ab\" :1}", false },
    };

    (void)state;
    dfa_free(keys);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (accepts(grammar, cases[i].text) != cases[i].fits)
            fail_msg("%s: expected %d", cases[i].text, cases[i].fits);
    grammar_free(grammar);
    unmake(&made);
}

/* Fifty required fields: the closing text is long in bytes and shorter in tokens, and every token beyond its minimum is
 * free to be used, no fewer and no more. */
static void test_a_budget_leaves_exactly_what_is_free(void **state)
{
    enum { COUNT = 50, FREE = 77 };
    struct made made = make(&(struct recipe){ .merge_count = 4, .merge = { { '"', ':' }, { 256, '"' }, { ',', '"' }, { '"', '}' } } });
    struct grammar_builder *b = grammar_builder_new();
    struct grammar_property property[COUNT];
    char key[COUNT][16];
    struct grammar *grammar;
    struct grammar_run *run;
    struct ids ids = { 0 };
    int32_t budget, used = 0;
    size_t count;
    struct err err;

    (void)state;
    for (int i = 0; i < COUNT; i++) {
        snprintf(key[i], sizeof key[i], "\"field%d\"", i);
        property[i] = (struct grammar_property){ span_text(key[i]), grammar_string(b, 0, GRAMMAR_NO_MAX), true };
    }
    grammar = built(b, grammar_object(b, &(struct grammar_object){ property, COUNT, NULL, 0 }), &made);
    budget = grammar_minimum(grammar) + FREE;
    run = grammar_run_new(grammar);
    CHECK(grammar_forced(run, &ids, &count, &err) && count > 0);
    for (size_t i = 0; i < count; i++)
        CHECK(grammar_advance(run, ids.id[i]));
    budget -= (int32_t)count;
    while (has(grammar_mask(run, budget), 'x')) {
        CHECK(grammar_advance(run, 'x'));
        budget--;
        used++;
    }
    assert_int_equal(used, FREE);
    for (; !grammar_must_end(run); budget--) {
        ids.count = 0;
        CHECK(budget > 0 && grammar_forced(run, &ids, &count, &err));
        if (count == 0) {
            const uint64_t *mask = grammar_mask(run, budget);

            for (int32_t id = made.size; count == 0 && id-- > 0;)
                if (has(mask, id))
                    count = ids_add(&ids, id);
            CHECK(count == 1);
        }
        CHECK(grammar_advance(run, ids.id[0]));
    }
    assert_int_equal(budget, 0);
    ids_fini(&ids);
    grammar_run_free(run);
    grammar_free(grammar);
    unmake(&made);
}

/* A hundred thousand different places: what can be made anew is dropped, and what comes after is the same as without. */
static void test_memory_is_bounded_and_nothing_changes_by_it(void **state)
{
    struct made made = plain();
    struct grammar_builder *b[2] = { grammar_builder_new(), grammar_builder_new() };
    struct grammar *grammar[2];
    struct grammar_run *run[2];
    size_t most = 0, drops = 0, last = 0;

    (void)state;
    for (int i = 0; i < 2; i++) {
        grammar_node node = grammar_array(b[i], &(struct grammar_array){ .items = grammar_string(b[i], 0, 9), .high = 5000000 });

        grammar[i] = built(b[i], node, &made);
        run[i] = grammar_run_new(grammar[i]);
        CHECK(grammar_advance(run[i], '['));
    }
    for (int i = 0; i < 100000; i++) {
        static const int32_t round[] = { '"', 'a', 256, '"', ',' };
        const uint64_t *mask;

        mask = grammar_mask(run[0], 5 + i % 50);
        CHECK(mask);
        if (i % 1000 < 3) { /* the other has seen little of this */
            uint64_t copy[8];

            memcpy(copy, mask, (size_t)(made.size + 63) / 64 * 8);
            mask = grammar_mask(run[1], 5 + i % 50);
            CHECK(mask && memcmp(copy, mask, (size_t)(made.size + 63) / 64 * 8) == 0);
        }
        if (grammar_bytes(grammar[0]) > most)
            most = grammar_bytes(grammar[0]);
        drops += grammar_bytes(grammar[0]) < last;
        last = grammar_bytes(grammar[0]);
        for (int k = 0; k < 2; k++)
            CHECK(grammar_advance(run[k], round[i % 5]));
    }
    CHECK(most <= GRAMMAR_BYTES_MAX && drops > 0);
    for (int i = 0; i < 2; i++) {
        grammar_run_free(run[i]);
        grammar_free(grammar[i]);
    }
    unmake(&made);
}

static void test_errors_of_building_come_out_at_the_end(void **state)
{
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    struct grammar_property twice[] = { { span_text("\"a\""), literal(b, "1"), true }, { span_text("\"a\""), literal(b, "2"), true } };
    struct grammar_property bare[] = { { span_text("a"), literal(b, "1"), true } };
    struct grammar *grammar;
    struct err err;
    grammar_node node;

    (void)state;
    CHECK(refusal(b, grammar_object(b, &(struct grammar_object){ twice, 2, NULL, 0 }), &made, "twice") == ERR_INPUT);
    b = grammar_builder_new();
    bare[0].value = literal(b, "1");
    CHECK(grammar_object(b, &(struct grammar_object){ bare, 1, NULL, 0 }) == 0);
    CHECK(literal(b, "a") == 0 && grammar_sequence(b, (grammar_node[]){ 0 }, 1) == 0); /* 0 gives 0 again */
    CHECK(refusal(b, 1, &made, "not a JSON string literal") == ERR_INPUT);
    b = grammar_builder_new();
    CHECK(refusal(b, grammar_string(b, 3, 2), &made, "no finite text") == ERR_INPUT);
    b = grammar_builder_new();
    CHECK(refusal(b, grammar_regular(b, NULL), &made, "missing") == ERR_INPUT);
    b = grammar_builder_new();
    for (int i = 0; i <= GRAMMAR_NODES_MAX; i++)
        node = grammar_sequence(b, NULL, 0);
    CHECK(node == 0);
    CHECK(refusal(b, node, &made, "65536 nodes") == ERR_LIMIT);
    b = grammar_builder_new();
    node = literal(b, "a");
    CHECK(grammar_build(&grammar, b, node, made.vocabulary, &err));
    grammar_free(grammar);
    CHECK(!grammar_build(&grammar, b, node, made.vocabulary, &err)); /* it has been used up */
    grammar_builder_free(b);
    unmake(&made);

    /* No token for one of the bytes. */
    made = make(&(struct recipe){ .special = "a" });
    b = grammar_builder_new();
    CHECK(refusal(b, literal(b, "bab"), &made, "can be written") == ERR_INPUT);
    unmake(&made);
}

/* Deep shapes cost no stack of ours, wide ones no quadratic time. */
static void test_large_grammars_build_quickly(void **state)
{
    enum { CHAIN = 20000, WIDE = 5000 };
    struct made made = plain();
    struct grammar_builder *b = grammar_builder_new();
    grammar_node node = literal(b, "b"), value, chain;
    struct grammar_property *property = calloc(WIDE, sizeof *property);
    char (*key)[16] = calloc(WIDE, sizeof *key);
    struct grammar *grammar;

    (void)state;
    for (int i = 0; i < CHAIN; i++)
        node = i % 2 ? grammar_choice(b, &node, 1) : grammar_sequence(b, &node, 1);
    CHECK(property && key);
    chain = node;
    value = literal(b, "1");
    for (int i = 0; i < WIDE; i++) {
        snprintf(key[i], sizeof key[i], "\"%d\"", i);
        property[i] = (struct grammar_property){ span_text(key[i]), value, false };
    }
    property[17].value = chain;
    grammar = built(b, grammar_object(b, &(struct grammar_object){ property, WIDE, NULL, 0 }), &made);
    CHECK(accepts(grammar, "{\"0\":1,\"17\":b,\"4999\":1}") && !accepts(grammar, "{\"17\":1,\"0\":1}"));
    grammar_free(grammar);
    b = grammar_builder_new();
    node = literal(b, "b");
    for (int i = 0; i < 300; i++)
        node = sequence(b, literal(b, "["), node, literal(b, "]"));
    grammar = built(b, node, &made);
    assert_int_equal(grammar_minimum(grammar), 150 + 1 + 299); /* [[ and b] are tokens */
    grammar_free(grammar);
    b = grammar_builder_new();
    node = literal(b, "b");
    for (int i = 0; i <= GRAMMAR_DEPTH_MAX; i++)
        node = sequence(b, literal(b, "["), node, literal(b, "]"));
    CHECK(refusal(b, node, &made, "513 deep") == ERR_LIMIT);
    free(property);
    free(key);
    unmake(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_languages_are_as_their_lists_say),
        cmocka_unit_test(test_recursion_goes_as_deep_as_the_stack),
        cmocka_unit_test(test_a_budget_bounds_the_nesting),
        cmocka_unit_test(test_recursion_without_an_end_is_refused),
        cmocka_unit_test(test_cycles_without_a_byte_end),
        cmocka_unit_test(test_open_ways_are_bounded),
        cmocka_unit_test(test_common_beginnings_stay_open),
        cmocka_unit_test(test_strings_are_spelled_one_way),
        cmocka_unit_test(test_long_counts),
        cmocka_unit_test(test_masks_agree_at_a_real_vocabulary),
        cmocka_unit_test(test_no_ending_is_longer_than_the_bound),
        cmocka_unit_test(test_a_long_constant_is_forced_in_parts),
        cmocka_unit_test(test_forced_tokens_spell_the_bytes),
        cmocka_unit_test(test_objects_have_their_order_and_others_behind),
        cmocka_unit_test(test_a_budget_leaves_exactly_what_is_free),
        cmocka_unit_test(test_memory_is_bounded_and_nothing_changes_by_it),
        cmocka_unit_test(test_errors_of_building_come_out_at_the_end),
        cmocka_unit_test(test_large_grammars_build_quickly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
