#include "worker/model/pretokenize.h"

#include <assert.h>
#include <stdlib.h>

#include "worker/model/utf8.h"

/* What becomes of a match, in the library's words. */
enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS, BEHAVIOR_COUNT };
static const char *const behavior_names[BEHAVIOR_COUNT] = { "Removed", "Isolated", "MergedWithPrevious",
                                                            "MergedWithNext", "Contiguous" };

struct step {
    struct pattern *pattern; /* NULL: does not cut */
    enum behavior behavior;
    bool invert;
    bool space_first; /* ByteLevel's add_prefix_space */
};

struct pretokenizer {
    struct step step[PRETOKENIZE_STEPS_MAX];
    int step_count;
    bool byte_level; /* seen: nothing may follow */
};

/* GPT-2's, built into ByteLevel. */
static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- reading the description -------------------------------------------------------------------------- */

static bool read_bool(const json_t *step, const char *key, bool absent, bool *value, struct err *err)
{
    const json_t *v = json_object_get(step, key);

    *value = v ? json_is_true(v) : absent;
    return !v || json_is_boolean(v) || err_set(err, ERR_INPUT, "%s: expected true or false", key);
}

static bool read_split(struct step *step, const json_t *description, struct err *err)
{
    const json_t *pattern = json_object_get(description, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *literal = json_object_get(pattern, "String");
    const char *behavior = json_string_value(json_object_get(description, "behavior"));
    const json_t *text = regex ? regex : literal;
    struct span source;

    if (!json_is_string(text) || json_object_size(pattern) != 1)
        return err_set(err, ERR_INPUT, "pattern: expected {\"Regex\": text} or {\"String\": text}");
    source = span_of(json_string_value(text), json_string_length(text));
    for (int i = 0; i <= BEHAVIOR_COUNT; i++) {
        if (i == BEHAVIOR_COUNT)
            return err_set(err, ERR_INPUT,
                           "behavior `%.40s`, expected Removed, Isolated, MergedWithPrevious, "
                           "MergedWithNext or Contiguous",
                           behavior ? behavior : "");
        if (behavior && strcmp(behavior, behavior_names[i]) == 0) {
            step->behavior = (enum behavior)i;
            break;
        }
    }
    if (!read_bool(description, "invert", false, &step->invert, err))
        return false;
    return regex ? pattern_new(&step->pattern, source, err)
                 : pattern_new_literal(&step->pattern, source, err);
}

static bool read_digits(struct step *step, const json_t *description, struct err *err)
{
    bool individual;

    if (!read_bool(description, "individual_digits", false, &individual, err))
        return false;
    step->behavior = individual ? ISOLATED : CONTIGUOUS;
    return pattern_new_numeric(&step->pattern, err);
}

static bool read_byte_level(struct step *step, const json_t *description, struct err *err)
{
    bool regex;

    if (!read_bool(description, "add_prefix_space", true, &step->space_first, err) ||
        !read_bool(description, "use_regex", true, &regex, err))
        return false;
    step->behavior = ISOLATED;
    return !regex || pattern_new(&step->pattern, span_text(gpt2), err);
}

static bool read_step(struct pretokenizer *p, const json_t *description, int depth, struct err *err)
{
    const char *type = json_string_value(json_object_get(description, "type"));
    struct step *step;
    bool ok;

    if (!type)
        return err_set(err, ERR_INPUT, "expected an object with a \"type\"");
    if (p->byte_level)
        return err_set(err, ERR_INPUT, "a `%.40s` after ByteLevel is not supported", type);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(description, "pretokenizers"), *item;
        size_t i;

        if (!json_is_array(list))
            return err_set(err, ERR_INPUT, "Sequence: expected a list \"pretokenizers\"");
        if (depth == PRETOKENIZE_DEPTH_MAX)
            return err_set(err, ERR_LIMIT, "more than %d Sequences within each other", PRETOKENIZE_DEPTH_MAX);
        json_array_foreach(list, i, item) if (!read_step(p, item, depth + 1, err)) return err_wrap(
            err, "step %zu", i + 1);
        return true;
    }
    if (p->step_count == PRETOKENIZE_STEPS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d steps", PRETOKENIZE_STEPS_MAX);
    step = &p->step[p->step_count++];
    if (strcmp(type, "Split") == 0)
        ok = read_split(step, description, err);
    else if (strcmp(type, "Digits") == 0)
        ok = read_digits(step, description, err);
    else if (strcmp(type, "ByteLevel") == 0)
        ok = p->byte_level = read_byte_level(step, description, err);
    else
        return err_set(err, ERR_INPUT,
                       "type `%.40s` is not supported; expected Sequence, Split, Digits or ByteLevel", type);
    return ok || err_wrap(err, "%s", type);
}

bool pretokenizer_new(struct pretokenizer **pretokenizer, const json_t *description, struct err *err)
{
    struct pretokenizer *p = *pretokenizer = calloc(1, sizeof *p);

    if (!p)
        return err_set(err, ERR_IO, "out of memory");
    if (read_step(p, description, 0, err)) {
        if (p->byte_level)
            return true;
        err_set(err, ERR_INPUT, "no ByteLevel step; only byte-level tokenizers are supported");
    }
    pretokenizer_free(p);
    *pretokenizer = NULL;
    return false;
}

void pretokenizer_free(struct pretokenizer *pretokenizer)
{
    if (!pretokenizer)
        return;
    for (int i = 0; i < pretokenizer->step_count; i++)
        pattern_free(pretokenizer->step[i].pattern);
    free(pretokenizer);
}

/* ---- cutting ------------------------------------------------------------------------------------------ */

/* The pieces that a step makes of one piece, in order; matches and what lies between alternate as the
 * library lists them before it applies the behavior. */
struct cuts {
    struct pretokenize_work *work; /* piece[first..] are this piece's */
    size_t first;
    enum behavior behavior;
    bool previous_match;
};

static bool push(struct pretokenize_work *work, size_t from, size_t to)
{
    if (work->piece_count == work->piece_capacity) {
        size_t capacity = work->piece_capacity ? work->piece_capacity * 2 : 256;
        struct piece *grown = realloc(work->piece, capacity * sizeof *grown);

        if (!grown)
            return false;
        work->piece = grown;
        work->piece_capacity = capacity;
    }
    work->piece[work->piece_count++] = (struct piece){ (uint32_t)from, (uint32_t)to };
    return true;
}

static bool cut(struct cuts *cuts, size_t from, size_t to, bool match)
{
    struct pretokenize_work *work = cuts->work;
    struct piece *last = work->piece_count > cuts->first ? &work->piece[work->piece_count - 1] : NULL;
    bool previous = cuts->previous_match, join = false;

    cuts->previous_match = match;
    switch (cuts->behavior) {
    case REMOVED:
        if (match)
            return true;
        break;
    case ISOLATED:
        break;
    case CONTIGUOUS:
        join = match == previous;
        break;
    case MERGED_WITH_PREVIOUS:
        join = match && !previous;
        break;
    case MERGED_WITH_NEXT: /* a match before this takes it in, unless this is a match too */
        join = !match && previous;
        break;
    case BEHAVIOR_COUNT:
        break;
    }
    if (join && last) {
        last->to = (uint32_t)to;
        return true;
    }
    return push(work, from, to);
}

static bool cut_piece(const struct step *step, struct pretokenize_work *work, struct pattern_work *pattern,
                      struct piece piece, struct err *err)
{
    struct span text = span_of(work->text.data + piece.from, piece.to - piece.from);
    struct cuts cuts = { .work = work, .first = work->piece_count, .behavior = step->behavior };
    size_t done = 0, at = 0, last_end = SIZE_MAX, kept;
    bool fits = true;

    while (fits && at <= text.size) {
        size_t from, to;
        bool found;

        if (!pattern_find(step->pattern, pattern, text, at, &from, &to, &found, err))
            return false;
        if (!found)
            break;
        if (from == to) {
            /* An empty match cuts, but not where a match has just ended. */
            at = to < text.size ? to + utf8_length(text.data[to]) : to + 1;
            if (to == last_end)
                continue;
        } else {
            at = to;
        }
        if (done < from)
            fits = cut(&cuts, piece.from + done, piece.from + from, step->invert);
        fits = fits && cut(&cuts, piece.from + from, piece.from + to, !step->invert);
        done = last_end = to;
    }
    if (fits && done < text.size)
        fits = cut(&cuts, piece.from + done, piece.to, step->invert);
    if (!fits)
        return err_set(err, ERR_IO, "out of memory");
    kept = cuts.first;
    for (size_t i = cuts.first; i < work->piece_count; i++)
        if (work->piece[i].from < work->piece[i].to)
            work->piece[kept++] = work->piece[i];
    work->piece_count = kept;
    return true;
}

/* Puts a space in front of every piece that does not begin with one; the text is then another. */
static bool put_spaces(struct pretokenize_work *work, const struct piece *piece, size_t piece_count,
                       struct err *err)
{
    struct buf spaced = { 0 };
    bool fits = buf_reserve(&spaced, work->text.size + piece_count);

    work->piece_count = 0;
    for (size_t i = 0; fits && i < piece_count; i++) {
        size_t from = spaced.size;

        if (work->text.data[piece[i].from] != ' ')
            fits = buf_add(&spaced, " ", 1);
        fits = fits && buf_add(&spaced, work->text.data + piece[i].from, piece[i].to - piece[i].from) &&
               push(work, from, spaced.size);
    }
    buf_fini(&work->spaced); /* after the copy: the text may have been this one */
    work->spaced = spaced;
    work->text = buf_span(&work->spaced);
    return fits || err_set(err, ERR_IO, "out of memory");
}

/* What the last step made becomes what the next one reads. */
static size_t turn(struct pretokenize_work *work)
{
    struct piece *piece = work->piece;
    size_t capacity = work->piece_capacity, count = work->piece_count;

    work->piece = work->spare;
    work->piece_capacity = work->spare_capacity;
    work->piece_count = 0;
    work->spare = piece;
    work->spare_capacity = capacity;
    return count;
}

bool pretokenize(const struct pretokenizer *pretokenizer, struct pretokenize_work *work,
                 struct pattern_work *pattern, struct span text, struct err *err)
{
    assert(text.size <= UINT32_MAX / 2);

    work->text = text;
    work->piece_count = 0;
    if (text.size > 0 && !push(work, 0, text.size))
        return err_set(err, ERR_IO, "out of memory");
    for (int s = 0; s < pretokenizer->step_count; s++) {
        const struct step *step = &pretokenizer->step[s];
        size_t count;

        if (step->space_first) {
            count = turn(work);
            if (!put_spaces(work, work->spare, count, err))
                return false;
        }
        if (!step->pattern)
            continue;
        count = turn(work);
        for (size_t i = 0; i < count; i++)
            if (!cut_piece(step, work, pattern, work->spare[i], err))
                return err_wrap(err, "pre-tokenizer step %d", s + 1);
    }
    return true;
}

void pretokenize_work_fini(struct pretokenize_work *work)
{
    free(work->piece);
    free(work->spare);
    buf_fini(&work->spaced);
    *work = (struct pretokenize_work){ 0 };
}
