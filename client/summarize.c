/* summarize - documents in, a summary of each out, however long they are.
 *
 * Every chunk of a document has a summary of its own (level 0).  Where there is more than one, summaries are
 * put together in groups, as many as fit the context, and each group is summarized (level 1), and so on until
 * one is left.  A document of one chunk has no reduce at all.
 *
 * It ends: a summary is cut to a *share*, of which two always fit a prompt, so every group that was closed
 * because the next summary did not fit has at least two, and a level has at most half as many summaries as
 * the one below, rounded up.  A single one that is left over goes up as it is.  Groups are made as summaries
 * come, so what is held is one group a level, whatever the number of chunks. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/pipeline.h"
#include "client/rows.h"
#include "client/say.h"

enum {
    JOINT_TOKENS = 4, /* that a summary may take in a group beyond its own: the blank line, and what the
                         borders change */
    SHARE_MIN = 16,
    TOKENS_A_SENTENCE = 48,
    TOKENS_A_PARAGRAPH = 160,
    TOKENS_A_WORD = 2,
    TOKENS_MORE = 32,
    LENGTH_MAX = 10000,
};

struct options {
    struct pipeline_options common;
    char length[64], language[64];
    bool dry_run;
};

static const struct field fields[] = {
    { "length", OPTION_TEXT(struct options, length),
      "N-sentences, N-words, N-paragraphs, short, medium (default), long" },
    { "language", OPTION_TEXT(struct options, language),
      "that the summary is written in (default: the model's choice)" },
    PIPELINE_FIELDS_IN(struct options),
    { "dry_run", OPTION_FLAG(struct options, dry_run),
      "count documents, tokens and pieces, measure on the first few, write nothing" },
    PIPELINE_FIELDS_AFTER(struct options),
};

struct summarize {
    struct options options;
    struct pipeline pipeline;
    struct buf instruction, reduce;
    int32_t usual_tokens; /* for this length */
    uint32_t room;        /* tokens of summaries in a group */
    uint32_t share;
};

/* ---- what is asked
 * ------------------------------------------------------------------------------------------ */

/* "5-sentences" -> "in at most 5 sentences", and a budget. */
static bool read_length(const char *length, char *words, size_t size, int32_t *tokens, struct err *err)
{
    static const struct {
        const char *name, *is;
    } named[] = { { "short", "2-sentences" }, { "medium", "5-sentences" }, { "long", "15-sentences" } };
    static const struct {
        const char *one, *many;
        int32_t tokens;
    } units[] = { { "sentence", "sentences", TOKENS_A_SENTENCE },
                  { "word", "words", TOKENS_A_WORD },
                  { "paragraph", "paragraphs", TOKENS_A_PARAGRAPH } };
    char *unit;
    long count;

    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (!strcmp(length, named[i].name))
            length = named[i].is;
    count = *length >= '1' && *length <= '9' ? strtol(length, &unit, 10) : 0;
    if (count >= 1 && count <= LENGTH_MAX && *unit == '-')
        for (size_t i = 0; i < sizeof units / sizeof *units; i++)
            if (!strcmp(unit + 1, units[i].many) || !strcmp(unit + 1, units[i].one)) {
                snprintf(words, size, "in at most %ld %s", count, count == 1 ? units[i].one : units[i].many);
                *tokens = (int32_t)count * units[i].tokens + TOKENS_MORE;
                return true;
            }
    return err_set(err, ERR_INPUT,
                   "--length %.40s: expected a number of 1..%d and a unit, as 5-sentences, 100-words or "
                   "2-paragraphs; or short, "
                   "medium, long",
                   length, LENGTH_MAX);
}

static bool make_instructions(struct summarize *summarize, struct err *err)
{
    const struct options *o = &summarize->options;
    char length[64], language[96] = "";
    bool own = *o->common.instruction, ok;

    if (!read_length(*o->length ? o->length : "medium", length, sizeof length, &summarize->usual_tokens, err))
        return false;
    if (*o->language && !span_is_utf8(span_text(o->language)))
        return err_set(err, ERR_INPUT, "--language is not UTF-8");
    if (*o->language)
        snprintf(language, sizeof language, " Write in %s.", o->language);
    if (own) {
        /* The user's words, at every level; length and language only where they were asked for, too. */
        ok = buf_text(&summarize->instruction, o->common.instruction) &&
             (!*o->length || buf_format(&summarize->instruction, " Write %s.", length + strlen("in "))) &&
             buf_text(&summarize->instruction, language) &&
             buf_add(&summarize->reduce, summarize->instruction.data, summarize->instruction.size);
    } else {
        ok = buf_format(&summarize->instruction, "Summarize this text %s.%s", length, language) &&
             buf_format(&summarize->reduce,
                        "These are summaries of the parts of one text, in their order. Summarize the whole "
                        "text %s.%s",
                        length, language);
    }
    if (!ok || !buf_add(&summarize->instruction, "", 1) || !buf_add(&summarize->reduce, "", 1))
        return err_set(err, ERR_IO, "no memory for the instruction");
    summarize->pipeline.instruction = (const char *)summarize->instruction.data;
    return true;
}

static struct span reduce_words(const struct summarize *summarize)
{
    return span_of(summarize->reduce.data, summarize->reduce.size - 1);
}

/* A group has the context less its instruction and its answer; a share is half of it. */
static bool set_share(struct summarize *summarize, struct err *err)
{
    struct pipeline *pipeline = &summarize->pipeline;
    uint32_t words;
    int64_t room;

    pipeline->max_tokens = summarize->options.common.max_tokens
                               ? (int32_t)summarize->options.common.max_tokens
                               : summarize->usual_tokens;
    if (!pipeline->tokenizer)
        return true;
    if (!summarize->options.common.max_tokens && pipeline->max_tokens > pipeline->context / 4)
        pipeline->max_tokens = pipeline->context / 4;
    if (!pipeline_count(pipeline, reduce_words(summarize), span_of(NULL, 0), &words, err))
        return false;
    room = (int64_t)pipeline->context - words - pipeline->max_tokens - PIPELINE_SLACK;
    if (room / 2 - JOINT_TOKENS < SHARE_MIN)
        return err_set(err, ERR_INPUT,
                       "the instruction (%" PRIu32 " tokens) and --max-tokens %" PRId32
                       " leave no room for summaries in the model's context of %" PRId32,
                       words, pipeline->max_tokens, pipeline->context);
    summarize->room = (uint32_t)room;
    summarize->share = summarize->room / 2 - JOINT_TOKENS;
    return true;
}

/* ---- a document's levels
 * ------------------------------------------------------------------------------------ */

struct item {
    struct item *next;
    uint32_t tokens;
    size_t size;
    char text[];
};

/* Level k puts together the summaries of level k - 1. */
struct level {
    struct item *come, **come_last; /* not in a group yet */
    struct item *only;              /* of the open group, while it has no second */
    struct buf group;               /* the open group, joined */
    uint32_t items, tokens;         /* of it */
    uint32_t asked, answered;
    bool closed;       /* no more come, and the last group was asked for */
    struct item *left; /* a single one: it goes up as it is, after the groups' */
};

struct summary {
    struct level level[PIPELINE_LEVELS]; /* [0] is not used */
    struct item *whole;                  /* the last that is left */
    uint32_t levels;
};

static bool begin(struct pipeline *pipeline, struct unit *unit)
{
    struct summary *own = calloc(1, sizeof *own);

    (void)pipeline;
    unit->own = own;
    for (int k = 0; own && k < PIPELINE_LEVELS; k++)
        own->level[k].come_last = &own->level[k].come;
    return own != NULL;
}

static void end(struct unit *unit)
{
    struct summary *own = unit->own;

    for (int k = 0; k < PIPELINE_LEVELS; k++) {
        for (struct item *item = own->level[k].come, *next; item; item = next) {
            next = item->next;
            free(item);
        }
        free(own->level[k].only);
        free(own->level[k].left);
        buf_fini(&own->level[k].group);
    }
    free(own->whole);
    free(own);
}

static bool count_tokens(const struct pipeline *pipeline, struct span text, uint32_t *tokens, struct err *err)
{
    struct ids ids = { 0 };
    bool ok = !pipeline->tokenizer || tokenizer_encode(pipeline->tokenizer, text, &ids, err);

    *tokens = (uint32_t)ids.count;
    ids_fini(&ids);
    return ok;
}

/* The beginning of a text that is longer: at most so many tokens, to a sentence's end where it can be. */
static bool cut(const struct pipeline *pipeline, struct span *text, uint32_t tokens, struct err *err)
{
    struct chunk_limits limits = { .tokens = tokens };
    struct chunks *chunks;
    struct chunk chunk;
    bool end = false;

    if (!chunks_of_text(&chunks, *text, pipeline->tokenizer, limits, err))
        return false;
    if (!chunks_next(chunks, &chunk, &end, err)) {
        chunks_close(chunks);
        return false;
    }
    text->size = end ? 0 : chunk.text.size;
    chunks_close(chunks);
    return true;
}

static struct span trim(struct span text)
{
    while (text.size && strchr(" \t\r\n", text.data[text.size - 1]))
        text.size--;
    while (text.size && strchr(" \t\r\n", *text.data)) {
        text.data++;
        text.size--;
    }
    return text;
}

static bool note(struct pipeline *pipeline, const struct unit *unit, uint32_t level, uint32_t number,
                 struct span text, struct err *err)
{
    if (!pipeline->notes || (level == 0 && unit->chunked && unit->chunks == 1))
        return true;
    return pipeline_note(pipeline,
                         json_pack("{s:s,s:I,s:I,s:s%}", "source", pipeline_source(pipeline, unit), "level",
                                   (json_int_t)level, "number", (json_int_t)number, "summary",
                                   text.size ? (const char *)text.data : "", text.size),
                         err);
}

static bool answer(struct pipeline *pipeline, struct unit *unit, uint32_t level, uint32_t number,
                   struct span text, struct err *err)
{
    struct summary *own = unit->own;
    struct level *above = &own->level[level + 1];
    struct item *item;
    uint32_t tokens;

    text = trim(text);
    if (!count_tokens(pipeline, text, &tokens, err) || !note(pipeline, unit, level, number, text, err))
        return false;
    own->level[level].answered++;
    item = malloc(sizeof *item + text.size + 1);
    if (!item)
        return err_set(err, ERR_IO, "no memory for a summary");
    *item = (struct item){ .tokens = tokens, .size = text.size };
    if (text.size)
        memcpy(item->text, text.data, text.size);
    *above->come_last = item;
    above->come_last = &item->next;
    return true;
}

static bool ask_group(struct pipeline *pipeline, struct unit *unit, uint32_t k, struct err *err)
{
    struct summarize *summarize = pipeline->own;
    struct level *level = &((struct summary *)unit->own)->level[k];
    struct span text = buf_span(&level->group);
    uint32_t tokens, room = summarize->room;
    char what[40];
    bool ok;

    /* The sum of the items' tokens and joints is more than the whole has, but for texts that nobody has met;
     * those are cut. */
    ok = pipeline_count(pipeline, reduce_words(summarize), text, &tokens, err);
    while (ok && (int64_t)tokens + pipeline->max_tokens > pipeline->context) {
        room -= room / 8;
        ok = cut(pipeline, &text, room, err) &&
             pipeline_count(pipeline, reduce_words(summarize), text, &tokens, err);
    }
    snprintf(what, sizeof what, "#%" PRIu32 ".%" PRIu32, k, level->asked);
    ok = ok && pipeline_ask(pipeline, unit, k, level->asked, what, reduce_words(summarize), text, err);
    level->asked++;
    level->group.size = 0;
    level->items = level->tokens = 0;
    return ok;
}

/* Put together with others, a summary has its share and no more. */
static bool join(struct pipeline *pipeline, struct level *level, const struct item *item, struct err *err)
{
    struct summarize *summarize = pipeline->own;
    struct span text = span_of(item->text, item->size);

    if (item->tokens > summarize->share && !cut(pipeline, &text, summarize->share, err))
        return false;
    return ((!level->group.size || buf_text(&level->group, "\n\n")) &&
            buf_add(&level->group, text.data, text.size)) ||
           err_set(err, ERR_IO, "no memory for a group of summaries");
}

/* Takes item. */
static bool add_item(struct pipeline *pipeline, struct unit *unit, uint32_t k, struct item *item,
                     struct err *err)
{
    struct summarize *summarize = pipeline->own;
    struct level *level = &((struct summary *)unit->own)->level[k];
    uint32_t tokens = (item->tokens < summarize->share ? item->tokens : summarize->share) + JOINT_TOKENS;
    bool ok;

    if (level->items >= 2 && level->tokens + tokens > summarize->room && !ask_group(pipeline, unit, k, err)) {
        free(item);
        return false;
    }
    level->tokens += tokens;
    if (!level->items++) {
        level->only = item;
        return true;
    }
    ok = (!level->only || join(pipeline, level, level->only, err)) && join(pipeline, level, item, err);
    free(level->only);
    level->only = NULL;
    free(item);
    return ok;
}

static bool advance(struct pipeline *pipeline, struct unit *unit, bool *done, struct err *err)
{
    struct summary *own = unit->own;
    bool below_over = unit->chunked && unit->chunks_answered == unit->chunks;

    for (uint32_t k = 1; k < PIPELINE_LEVELS - 1; k++) {
        struct level *level = &own->level[k], *above = &own->level[k + 1];
        struct item *item;

        while ((item = level->come)) {
            level->come = item->next;
            if (!level->come)
                level->come_last = &level->come;
            item->next = NULL;
            if (!add_item(pipeline, unit, k, item, err))
                return false;
        }
        if (below_over && !level->closed) {
            level->closed = true;
            if (level->items == 1) {
                item = level->only;
                level->only = NULL;
                level->items = level->tokens = 0;
                if (!level->asked) {
                    own->whole = item;
                    own->levels = k - 1;
                    *done = true;
                    return true;
                }
                level->left = item;
            } else if (level->items && !ask_group(pipeline, unit, k, err)) {
                return false;
            }
        }
        if (!level->closed || level->answered < level->asked) {
            below_over = false;
        } else if (level->left) {
            *above->come_last = level->left;
            above->come_last = &level->left->next;
            level->left = NULL;
        }
        if (!level->asked && !level->items)
            return true;
    }
    return true;
}

/* ---- lines
 * ---------------------------------------------------------------------------------------------------------
 */

static bool write_unit(struct pipeline *pipeline, struct unit *unit, struct buf *lines, struct err *err)
{
    const struct summary *own = unit->own;
    json_t *line = json_pack("{s:s}", "source", pipeline_source(pipeline, unit)),
           *moothall = pipeline_provenance(pipeline, unit);
    bool ok = line && moothall;

    if (ok && unit->error)
        ok = json_object_set(line, "error", unit->error) == 0;
    else if (ok)
        ok = json_object_set_new(line, "summary", json_stringn(own->whole->text, own->whole->size)) == 0 &&
             json_object_set_new(moothall, "levels", json_integer(own->levels)) == 0;
    if (moothall)
        ok = json_object_set_new(line, "moothall", moothall) == 0 && ok;
    ok = ok && row_write(lines, line) && buf_text(lines, "\n");
    json_decref(line);
    return ok || err_set(err, ERR_IO, "no memory for a document's line");
}

static const struct pipeline_verb pipeline_verb = {
    .name = "summarize",
    .begin = begin,
    .answer = answer,
    .advance = advance,
    .write = write_unit,
    .end = end,
};

/* ---- the verb
 * ----------------------------------------------------------------------------------------------------- */

static bool prepare(struct summarize *summarize, int argc, char **argv, struct err *err)
{
    struct pipeline *pipeline = &summarize->pipeline;
    const struct options *o = &summarize->options;

    pipeline->dry = o->dry_run;
    pipeline->notes = o->common.keep ? "summaries.jsonl" : NULL;
    if (!make_instructions(summarize, err) || !pipeline_prepare(pipeline, argc, argv, err) ||
        !set_share(summarize, err) || !pipeline_set_limits(pipeline, 0, err))
        return false;
    pipeline_asked(pipeline, "instruction", json_string(pipeline->instruction));
    pipeline_asked(pipeline, "reduce",
                   json_stringn((const char *)summarize->reduce.data, summarize->reduce.size - 1));
    pipeline_asked(pipeline, "max-tokens", json_integer(pipeline->max_tokens));
    pipeline_asked(pipeline, "chunk-tokens", json_integer(pipeline->limits.tokens));
    pipeline_asked(pipeline, "overlap-tokens", json_integer(pipeline->limits.overlap));
    pipeline_shaped(pipeline, "format", json_string("jsonl"));
    return true;
}

static int summarize_verb(const struct verb *verb, int argc, char **argv)
{
    struct summarize *summarize = calloc(1, sizeof *summarize);
    struct err err = { 0 };
    int status;

    if (!summarize)
        return 1;
    pipeline_defaults(&summarize->options.common);
    summarize->pipeline.verb = &pipeline_verb;
    summarize->pipeline.options = &summarize->options.common;
    summarize->pipeline.own = summarize;
    if (!verb_flags(verb, &argc, argv, &summarize->options, &err) || !prepare(summarize, argc, argv, &err))
        status = say_failed("summarize", &err);
    else
        status = summarize->options.dry_run ? pipeline_dry_run(&summarize->pipeline)
                                            : pipeline_run(&summarize->pipeline);
    pipeline_fini(&summarize->pipeline);
    buf_fini(&summarize->instruction);
    buf_fini(&summarize->reduce);
    free(summarize);
    return status;
}

const struct verb verb_summarize = {
    .name = "summarize",
    .what = "documents in, a summary of each out, however long they are",
    .words = "--model DIR DOCUMENTS... -o SUMMARIES.jsonl [--length 5-sentences] [flags]",
    .more = "DOCUMENTS are text files, directories, globs in quotes, - for standard input; with --template, "
            "tables.\n"
            "A line is {\"source\", \"summary\", \"moothall\"}; a document that failed has \"error\" instead "
            "of its summary.\n"
            "Long documents are summarized piece by piece, and the pieces' summaries together, as often as "
            "it takes;\n"
            "--keep leaves the pieces' in OUTPUT.moothall/summaries.jsonl.\n"
            "The same command again continues where the last one was stopped, or says that all is done.",
    .example = "moothall summarize --model deploy/demo/model --instruction 'Summarize this package "
               "description in one line.' \\\n"
               "        'deploy/demo/documents/description-*.txt' -o summaries.jsonl",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = summarize_verb,
};
