#include "client/spans.h"

#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "client/unicode.h"

/* The normalised text is a row of units: code points, each with the bytes of the text that it comes from.  It
 * is decomposed, never composed, so each unit comes from one character and marks need only be put in order.
 * A match may begin and end only at a *joint*: before a unit that is no mark and the first of its character.
 * Between joints normalisation knows nothing of its surroundings, so what a match covers is normalised by
 * itself to the same units. */

enum { COUNT_BLOCK = 256 };

struct unit {
    uint32_t c;
    uint32_t from, to; /* bytes of the text */
    uint8_t order;     /* combining class */
    bool joint;        /* a match may begin here, or end before it */
};

struct units {
    struct unit *unit;
    uint32_t *c; /* the code points alone, for the search */
    size_t count, capacity;
};

struct span_text {
    uint8_t *text;
    size_t size;
    uint64_t byte, chars;
    uint32_t *count;       /* code points before each COUNT_BLOCK bytes */
    struct units joined;   /* words put together without the hyphen at a line's end */
    struct units hyphened; /* with it; only where there is one */
};

const char *span_label_name(enum span_label label)
{
    static const char *const names[] = { "exact", "normalised", "not_found" };

    return names[label];
}

/* ---- normalising
 * ---------------------------------------------------------------------------------------------- */

static bool add_unit(struct units *u, struct unit unit)
{
    if (u->count == u->capacity) {
        size_t capacity = u->capacity ? u->capacity * 2 : 256;
        struct unit *grown = realloc(u->unit, capacity * sizeof *grown);

        if (!grown)
            return false;
        u->unit = grown;
        u->capacity = capacity;
    }
    u->unit[u->count++] = unit;
    return true;
}

static void units_fini(struct units *u)
{
    free(u->unit);
    free(u->c);
    memset(u, 0, sizeof *u);
}

/* Marks of the same run by combining class, those of a class in their order.  A hostile run may be as long as
 * the text: so counting, not comparing. */
static bool put_in_order(struct units *u)
{
    struct unit *spare = NULL;
    size_t spare_size = 0;

    for (size_t from = 0; from < u->count;) {
        size_t to, at[257] = { 0 };
        bool sorted = true;

        if (u->unit[from].order == 0) {
            from++;
            continue;
        }
        for (to = from + 1; to < u->count && u->unit[to].order; to++)
            sorted = sorted && u->unit[to - 1].order <= u->unit[to].order;
        if (!sorted) {
            if (spare_size < to - from) {
                free(spare);
                spare_size = (to - from) * 2;
                spare = malloc(spare_size * sizeof *spare);
                if (!spare)
                    return false;
            }
            for (size_t i = from; i < to; i++)
                at[u->unit[i].order + 1]++;
            for (int i = 1; i < 257; i++)
                at[i] += at[i - 1];
            for (size_t i = from; i < to; i++)
                spare[at[u->unit[i].order]++] = u->unit[i];
            memcpy(u->unit + from, spare, (to - from) * sizeof *spare);
        }
        from = to;
    }
    free(spare);
    return true;
}

static bool is_line_end(uint32_t c)
{
    return (c >= '\n' && c <= '\r') || c == 0x85 || c == 0x2028 || c == 0x2029;
}

/* Does white space with a line end begin at `at`, and a letter follow it?  *next: where. */
static bool line_breaks(struct span text, size_t at, size_t *next)
{
    bool line = false;
    uint32_t c;
    size_t n;

    while ((n = unicode_read(text.data + at, text.size - at, &c, NULL)) && unicode_is_space(c)) {
        line = line || is_line_end(c);
        at += n;
    }
    *next = at;
    return line && n && unicode_is_letter(c);
}

/* keep_hyphen: a hyphen at a line's end belongs to the word.  *hyphens (may be NULL): there was one. */
static bool normalise(struct units *u, struct span text, bool keep_hyphen, bool *hyphens)
{
    uint32_t c, before = 0, made[UNICODE_FOLD_MAX];
    size_t at = 0, n, next;

    while ((n = unicode_read(text.data + at, text.size - at, &c, NULL))) {
        size_t from = at, count;
        bool begins = true;

        at += n;
        if (c == 0xad) { /* soft hyphen; `before` stays */
            if (unicode_is_letter(before) && line_breaks(text, at, &next))
                at = next;
            continue;
        }
        if ((c == '-' || c == 0x2010) && unicode_is_letter(before) && line_breaks(text, at, &next)) {
            if (hyphens)
                *hyphens = true;
            if (keep_hyphen &&
                !add_unit(u,
                          (struct unit){ .c = c, .from = (uint32_t)from, .to = (uint32_t)at, .joint = true }))
                return false;
            at = next;
            before = c;
            continue;
        }
        before = c;
        if (unicode_is_space(c)) {
            made[0] = ' ';
            count = 1;
        } else {
            count = unicode_fold(c, made);
        }
        for (size_t i = 0; i < count; i++) {
            uint8_t order = unicode_combining_class(made[i]);

            if (made[i] == ' ' && u->count && u->unit[u->count - 1].c == ' ') {
                u->unit[u->count - 1].to = (uint32_t)at;
            } else if (!add_unit(u, (struct unit){ .c = made[i],
                                                   .from = (uint32_t)from,
                                                   .to = (uint32_t)at,
                                                   .order = order,
                                                   .joint = begins && order == 0 })) {
                return false;
            }
            begins = false;
        }
    }
    if (!put_in_order(u))
        return false;
    u->c = malloc((u->count + 1) * sizeof *u->c);
    for (size_t i = 0; u->c && i < u->count; i++)
        u->c[i] = u->unit[i].c;
    return u->c != NULL;
}

bool span_text_new(struct span_text **prepared, struct span text, uint64_t byte, uint64_t chars,
                   struct err *err)
{
    struct span_text *t;
    bool hyphens = false;
    uint32_t count = 0;

    if (text.size > SPAN_TEXT_MAX)
        return err_set(err, ERR_LIMIT, "a text of %zu bytes; at most %d can be searched", text.size,
                       SPAN_TEXT_MAX);
    if (!span_is_utf8(text))
        return err_set(err, ERR_INPUT, "text is not UTF-8");
    t = calloc(1, sizeof *t);
    if (!t)
        goto failed;
    t->text = malloc(text.size + 1);
    t->count = malloc((text.size / COUNT_BLOCK + 1) * sizeof *t->count);
    if (!t->text || !t->count)
        goto failed;
    if (text.size)
        memcpy(t->text, text.data, text.size);
    t->size = text.size;
    t->byte = byte;
    t->chars = chars;
    for (size_t i = 0; i <= text.size; i++) {
        if (i % COUNT_BLOCK == 0)
            t->count[i / COUNT_BLOCK] = count;
        count += i < text.size && (text.data[i] & 0xc0) != 0x80;
    }
    if (!normalise(&t->joined, text, false, &hyphens) ||
        (hyphens && !normalise(&t->hyphened, text, true, NULL)))
        goto failed;
    *prepared = t;
    return true;
failed:
    span_text_free(t);
    return err_set(err, ERR_IO, "no memory to search a text of %zu bytes", text.size);
}

void span_text_free(struct span_text *t)
{
    if (!t)
        return;
    free(t->text);
    free(t->count);
    units_fini(&t->joined);
    units_fini(&t->hyphened);
    free(t);
}

/* ---- borders
 * --------------------------------------------------------------------------------------------------- */

static uint32_t before_at(const struct span_text *t, size_t at)
{
    uint32_t c = 0;
    size_t from = at;

    if (at == 0)
        return 0;
    do
        from--;
    while ((t->text[from] & 0xc0) == 0x80);
    unicode_read(t->text + from, at - from, &c, NULL);
    return c;
}

static uint32_t char_at(const struct span_text *t, size_t at)
{
    uint32_t c = 0;

    unicode_read(t->text + at, t->size - at, &c, NULL);
    return c;
}

static bool at_borders(const struct span_text *t, size_t from, size_t to)
{
    return (from == 0 || unicode_word_border(before_at(t, from), char_at(t, from))) &&
           (to == t->size || unicode_word_border(before_at(t, to), char_at(t, to)));
}

/* Is a digit cut off by a point or a comma, as in 3.12 and 12,000? */
static bool in_number(const struct span_text *t, size_t from, size_t to)
{
    uint8_t before = from >= 2 ? t->text[from - 1] : 0, after = to + 1 < t->size ? t->text[to] : 0;

    return ((before == '.' || before == ',') && unicode_is_digit(t->text[from]) &&
            unicode_is_digit(t->text[from - 2])) ||
           ((after == '.' || after == ',') && unicode_is_digit(t->text[to - 1]) &&
            unicode_is_digit(t->text[to + 1]));
}

/* ---- the search
 * -------------------------------------------------------------------------------------------------- */

/* Knuth, Morris and Pratt: all places in one pass, whatever the text.  A match is judged by `judge`: 2 it is
 * meant, 1 it will do, 0 it is none. */
struct search {
    const struct span_text *text;
    const struct units *units; /* NULL: bytes */
    bool words_only;
    size_t from, to; /* the place found, in bytes */
};

static int judge(struct search *s, size_t at, size_t count)
{
    size_t from = at, to = at + count;
    bool border;

    if (s->units) {
        const struct units *u = s->units;
        size_t last;

        if (!u->unit[at].joint || (at + count < u->count && !u->unit[at + count].joint))
            return 0;
        from = u->unit[at].from;
        last = at + count - 1;
        for (to = u->unit[last].to; u->unit[last].order && last > at; last--) /* marks were put in order */
            if (u->unit[last - 1].to > to)
                to = u->unit[last - 1].to;
    }
    border = at_borders(s->text, from, to);
    if (s->words_only && (!border || in_number(s->text, from, to)))
        return 0;
    s->from = from;
    s->to = to;
    return border ? 2 : 1;
}

/* The best place among those from `start` on; 0 when there is none. */
#define DEFINE_SEARCH(name, type)                                                                            \
    static int name(struct search *s, const type *text, size_t size, const type *value, size_t count,        \
                    const uint32_t *back)                                                                    \
    {                                                                                                        \
        struct search first = { 0 };                                                                         \
        size_t had = 0;                                                                                      \
        int best = 0;                                                                                        \
                                                                                                             \
        for (size_t i = 0; i < size; i++) {                                                                  \
            while (had && text[i] != value[had])                                                             \
                had = back[had - 1];                                                                         \
            had += text[i] == value[had];                                                                    \
            if (had == count) {                                                                              \
                int how = judge(s, i + 1 - count, count);                                                    \
                                                                                                             \
                if (how == 2)                                                                                \
                    return 2;                                                                                \
                if (how == 1 && best == 0) {                                                                 \
                    best = 1;                                                                                \
                    first = *s;                                                                              \
                }                                                                                            \
                had = back[had - 1];                                                                         \
            }                                                                                                \
        }                                                                                                    \
        if (best)                                                                                            \
            *s = first;                                                                                      \
        return best;                                                                                         \
    }
DEFINE_SEARCH(search_bytes, uint8_t)
DEFINE_SEARCH(search_units, uint32_t)

#define DEFINE_BACK(name, type)                                                                              \
    static uint32_t *name(const type *value, size_t count)                                                   \
    {                                                                                                        \
        uint32_t *back = malloc(count * sizeof *back), had = 0;                                              \
                                                                                                             \
        for (size_t i = 0; back && i < count; i++) {                                                         \
            while (i && had && value[i] != value[had])                                                       \
                had = back[had - 1];                                                                         \
            had += i && value[i] == value[had];                                                              \
            back[i] = had;                                                                                   \
        }                                                                                                    \
        return back;                                                                                         \
    }
DEFINE_BACK(back_bytes, uint8_t)
DEFINE_BACK(back_units, uint32_t)

/* memmem is several times as fast, and most values stand once or at a border where they stand first. */
static bool find_exact(struct search *s, struct span value)
{
    const struct span_text *t = s->text;
    const uint8_t *first = memmem(t->text, t->size, value.data, value.size);
    uint32_t *back;
    int how;

    if (!first)
        return false;
    how = judge(s, (size_t)(first - t->text), value.size);
    if (how == 2)
        return true;
    back = back_bytes(value.data, value.size);
    if (back)
        how = search_bytes(s, t->text, t->size, value.data, value.size, back);
    free(back);
    return how > 0;
}

static bool find_units(struct search *s, const struct units *units, const struct units *value)
{
    const uint32_t *c = value->c;
    size_t count = value->count, skip = 0;
    uint32_t *back;
    int how = 0;

    if (count && c[0] == ' ') {
        c++;
        count--;
    }
    if (count && c[count - 1] == ' ')
        count--;
    if (count == 0 || count > units->count)
        return false;
    s->units = units;
    while (skip < units->count && units->c[skip] != c[0])
        skip++;
    back = skip < units->count ? back_units(c, count) : NULL;
    if (back)
        how = search_units(s, units->c, units->count, c, count, back);
    free(back);
    return how > 0;
}

static struct found find(const struct span_text *t, struct span value, bool words_only)
{
    struct search s = { .text = t, .words_only = words_only };
    struct found found = { .label = SPAN_NOT_FOUND };
    struct units units = { 0 }, hyphened = { 0 };
    bool hyphens = false;

    if (value.size == 0 || value.size > SPAN_TEXT_MAX || !span_is_utf8(value))
        return found;
    if (find_exact(&s, value)) {
        found.label = SPAN_EXACT;
    } else if (normalise(&units, value, false, &hyphens) &&
               (find_units(&s, &t->joined, &units) ||
                ((hyphens || t->hyphened.count) && normalise(&hyphened, value, true, NULL) &&
                 find_units(&s, t->hyphened.count ? &t->hyphened : &t->joined, &hyphened)))) {
        found.label = SPAN_NORMALISED;
    }
    units_fini(&units);
    units_fini(&hyphened);
    if (found.label == SPAN_NOT_FOUND)
        return found;
    found.byte_from = t->byte + s.from;
    found.byte_to = t->byte + s.to;
    found.char_from = t->chars + t->count[s.from / COUNT_BLOCK] +
                      unicode_count(t->text + s.from / COUNT_BLOCK * COUNT_BLOCK, s.from % COUNT_BLOCK);
    found.char_to = t->chars + t->count[s.to / COUNT_BLOCK] +
                    unicode_count(t->text + s.to / COUNT_BLOCK * COUNT_BLOCK, s.to % COUNT_BLOCK);
    return found;
}

struct found span_find(const struct span_text *prepared, struct span value)
{
    return find(prepared, value, false);
}

struct found span_find_word(const struct span_text *prepared, struct span value)
{
    return find(prepared, value, true);
}
