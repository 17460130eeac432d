/* pretokenize_pattern - a regular expression from tokenizer.json, meaning what it means there.
 *
 * `tokenizers` runs these patterns with Oniguruma (Ruby's syntax, Unicode 16); here PCRE2 runs them,
 * with JIT where it can.  The two agree on most of what a pattern may say.  So a pattern is read and
 * written anew: classes become explicit where the engines differ (\s, \w, \v, the characters assigned
 * since the Unicode 14 of older PCRE2), and what has another meaning in PCRE2 and is not worth a
 * translation (\b, \h, \R, nested classes, back references, ...) is refused by name.
 *
 * One form is matched by hand: `\s+$` walks long white space again from each of its characters in any
 * backtracking engine; here it is one scan. */

#ifndef MODEL_PRETOKENIZE_PATTERN_H
#define MODEL_PRETOKENIZE_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/span.h"

enum { PATTERN_SOURCE_MAX = 64 * 1024 }; /* bytes */

struct pattern;

/* ERR_INPUT when the pattern is not understood: what, and at which byte. */
bool pattern_new(struct pattern **pattern, struct span source, struct err *err);
/* Matches exactly this text. */
bool pattern_new_literal(struct pattern **pattern, struct span literal, struct err *err);
/* Characters of category N as Rust's char::is_numeric has them (Unicode 17), one at a time. */
bool pattern_new_numeric(struct pattern **pattern, struct err *err);
/* A character that makes a word, as Rust's \w: for added tokens that match only as single words. */
bool pattern_new_word_character(struct pattern **pattern, struct err *err);
void pattern_free(struct pattern *pattern); /* NULL is fine */

/* What matching needs besides the pattern; one for each thread. */
struct pattern_work;
struct pattern_work *pattern_work_new(void); /* NULL when out of memory */
void pattern_work_free(struct pattern_work *work);

/* The leftmost match in text (UTF-8) that begins at or after from; *found says whether there is one.
 * ERR_LIMIT when the pattern needs too much work on this text. */
bool pattern_find(const struct pattern *pattern, struct pattern_work *work, struct span text, size_t from,
                  size_t *match_from, size_t *match_to, bool *found, struct err *err);

#endif
