#include "worker/model/tokenizer_added.h"

#include <stdlib.h>

#include "worker/model/utf8.h"

struct entry {
    struct span text;
    const struct added_token *token;
    size_t order;
};

struct added_set {
    struct entry *entry; /* sorted by text, then by order */
    size_t count;
    size_t first[257]; /* entries that begin with byte b: [first[b], first[b + 1]) */
};

static int compare(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    size_t n = a->text.size < b->text.size ? a->text.size : b->text.size;
    int c = memcmp(a->text.data, b->text.data, n);

    if (c)
        return c;
    if (a->text.size != b->text.size)
        return a->text.size < b->text.size ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

bool added_set_new(struct added_set **out, const struct added_token *token, size_t token_count,
                   bool normalized, bool (*wanted)(const struct added_token *token, const void *context),
                   const void *context, struct err *err)
{
    struct added_set *set = *out = calloc(1, sizeof *set);
    size_t at = 0;

    if (!set || !(set->entry = calloc(token_count + 1, sizeof *set->entry))) {
        free(set);
        *out = NULL;
        return err_set(err, ERR_IO, "out of memory");
    }
    for (size_t i = 0; i < token_count; i++) {
        struct span text = normalized ? token[i].normalized : token[i].content;

        if (wanted(&token[i], context) && text.size > 0)
            set->entry[set->count++] = (struct entry){ text, &token[i], i };
    }
    qsort(set->entry, set->count, sizeof *set->entry, compare);
    for (int b = 0; b < 256; b++) {
        set->first[b] = at;
        while (at < set->count && set->entry[at].text.data[0] == b)
            at++;
    }
    set->first[256] = at;
    return true;
}

void added_set_free(struct added_set *set)
{
    if (!set)
        return;
    free(set->entry);
    free(set);
}

/* The first entry in [low, high) whose byte at depth is not below b; all agree before depth and are longer.
 */
static size_t lower_bound(const struct added_set *set, size_t low, size_t high, size_t depth, int b)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (set->entry[middle].text.data[depth] < b)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest entry that the text has at this place. */
static const struct entry *longest(const struct added_set *set, const struct added_scan *scan, size_t at)
{
    const struct entry *best = NULL;
    size_t low = set->first[scan->text.data[at]], high = set->first[scan->text.data[at] + 1];

    for (size_t depth = 1; low < high; depth++) {
        bool taken = false;

        for (; low < high && set->entry[low].text.size == depth; low++)
            if (!taken && (!scan->rule.allows ||
                           scan->rule.allows(set->entry[low].token, at, at + depth, scan->rule.context))) {
                best = &set->entry[low];
                taken = true;
            }
        if (low == high || at + depth == scan->text.size)
            break;
        low = lower_bound(set, low, high, depth, scan->text.data[at + depth]);
        high = lower_bound(set, low, high, depth, scan->text.data[at + depth] + 1);
    }
    return best;
}

static bool is_word_character(const struct pattern *word_character, struct pattern_work *work,
                              const uint8_t *at)
{
    size_t from, to;
    bool found;

    return pattern_find(word_character, work, span_of(at, utf8_length(*at)), 0, &from, &to, &found, NULL) &&
           found;
}

void added_next(const struct added_set *set, const struct pattern *word_character, struct pattern_work *work,
                struct added_scan *scan, size_t *text_from, size_t *text_to, const struct added_token **token)
{
    struct span text = scan->text;

    *token = NULL;
    while (set->count > 0 && scan->at < text.size) {
        const struct entry *found = longest(set, scan, scan->at);
        size_t from = scan->at, to;

        if (!found) {
            scan->at++;
            continue;
        }
        scan->at = to = from + found->text.size;
        if (found->token->single_word &&
            ((from > 0 &&
              is_word_character(word_character, work, text.data + utf8_before(text.data, from))) ||
             (to < text.size && is_word_character(word_character, work, text.data + to))))
            continue;
        if (found->token->lstrip) {
            while (from > 0 && utf8_is_space(utf8_read(text.data + utf8_before(text.data, from))))
                from = utf8_before(text.data, from);
            if (from < scan->done)
                from = scan->done;
        }
        if (found->token->rstrip)
            while (to < text.size && utf8_is_space(utf8_read(text.data + to)))
                to += utf8_length(text.data[to]);
        *text_from = scan->done;
        *text_to = from > scan->done ? from : scan->done;
        *token = found->token;
        scan->done = to;
        return;
    }
    *text_from = scan->done;
    *text_to = text.size > scan->done ? text.size : scan->done;
    scan->done = text.size;
}
