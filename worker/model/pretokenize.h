/* pretokenize - a text cut into the words within which tokens may merge.
 *
 * The steps come from tokenizer.json: Split (by a pattern or a literal), Digits and ByteLevel, in a
 * Sequence or alone.  Each step cuts every piece that the one before left, as if it were a text of its
 * own.  ByteLevel stands last: after it there are bytes, no characters.  Another kind of step is
 * refused by name. */

#ifndef MODEL_PRETOKENIZE_H
#define MODEL_PRETOKENIZE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "worker/model/pretokenize_pattern.h"

enum { PRETOKENIZE_STEPS_MAX = 64, PRETOKENIZE_DEPTH_MAX = 8 /* Sequences within Sequences */ };

struct pretokenizer;

/* The value of "pre_tokenizer". */
bool pretokenizer_new(struct pretokenizer **pretokenizer, const json_t *description, struct err *err);
void pretokenizer_free(struct pretokenizer *pretokenizer); /* NULL is fine */

/* Bytes [from, to) of pretokenize_work.text; never empty. */
struct piece {
    uint32_t from, to;
};

/* The result and what making it needs; zero-initialise, use again and again, free with the function. */
struct pretokenize_work {
    struct span text; /* the text given, or, where a step puts a space in front of pieces, another */
    struct piece *piece;
    size_t piece_count;

    struct piece *spare;
    size_t piece_capacity, spare_capacity;
    struct buf spaced;
};
void pretokenize_work_fini(struct pretokenize_work *work);

/* text: UTF-8, below 4 GiB.  Good until the next call or until text goes away. */
bool pretokenize(const struct pretokenizer *pretokenizer, struct pretokenize_work *work,
                 struct pattern_work *pattern, struct span text, struct err *err);

#endif
