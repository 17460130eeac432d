/* tokenizer_added - texts that are one token wherever they stand.
 *
 * A set holds such texts and finds, from left to right, the longest that begins at each place; what a
 * match covers is not looked at again.  Options of a token, as the library has them: single_word (a
 * match beside a word character is passed over, whole), lstrip and rstrip (white space beside the match
 * belongs to it). */

#ifndef MODEL_TOKENIZER_ADDED_H
#define MODEL_TOKENIZER_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "worker/model/pretokenize_pattern.h"

enum { ADDED_CONTENT_MAX = 1024 /* bytes of one text */ };

struct added_token {
    int32_t id;
    struct span content;    /* as in the file */
    struct span normalized; /* the same through the normalizer; what a set of normalized tokens matches */
    bool special, normalize, lstrip, rstrip, single_word;
    bool control;
};

struct added_set;

/* Which of the tokens: those for which wanted(token, context) holds, in the order given (of equal texts the
 * first). normalized: match token.normalized instead of token.content.  Keeps the tokens, which must outlive
 * the set. */
bool added_set_new(struct added_set **set, const struct added_token *token, size_t token_count,
                   bool normalized, bool (*wanted)(const struct added_token *token, const void *context),
                   const void *context, struct err *err);
void added_set_free(struct added_set *set); /* NULL is fine */

/* May token stand for bytes [from, to) of the text? */
struct added_rule {
    bool (*allows)(const struct added_token *token, size_t from, size_t to, const void *context);
    const void *context;
};

/* Walks a text.  Set text, rule (allows NULL: everything) and zero the rest. */
struct added_scan {
    struct span text;
    struct added_rule rule;
    size_t at;   /* where to look for the next match */
    size_t done; /* what has been handed out ends here */
};

/* The next match, and in [*text_from, *text_to) what lies before it and after the last.  *token is NULL at
 * the end. */
void added_next(const struct added_set *set, const struct pattern *word_character, struct pattern_work *work,
                struct added_scan *scan, size_t *text_from, size_t *text_to,
                const struct added_token **token);

#endif
