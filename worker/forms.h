/* forms - the compiled grammars of a worker, one for each form that requests ask for.
 *
 * Ten thousand requests of a batch ask for the same schema, so a grammar is compiled once and kept, by a
 * digest of what was asked, with all the masks it has made meanwhile.  A form that cannot be compiled is
 * remembered too, with its error: it must not cost its second twice.
 *
 * Kept are FORMS_MAX of them, the longest unused is given up first.  Those in use stay whatever the bounds
 * say; when they alone take bytes_max, no other is compiled (ERR_REFUSED: the job can run elsewhere or
 * later). The engine thread alone uses them. */

#ifndef WORKER_FORMS_H
#define WORKER_FORMS_H

#include "base/err.h"
#include "proto/request.h"
#include "worker/model/grammar.h"

enum { FORMS_MAX = 64, FORMS_BYTES_MAX = 1 << 30 };

struct forms;
struct form; /* borrowed from the forms until it is given back */

/* The tokenizer must outlive it.  vocab: rows of the model's output. */
struct forms *forms_new(const struct tokenizer *tokenizer, int32_t vocab, size_t bytes_max);
void forms_free(struct forms *forms); /* every form must have been given back; NULL is fine */

/* False: ERR_INPUT or ERR_LIMIT when the form is to blame, ERR_REFUSED when the worker is. */
bool forms_take(struct forms *forms, struct form **form, enum request_form kind, struct span text,
                bool closed, struct err *err);
void forms_give_back(struct forms *forms, struct form *form); /* its runs must be gone; NULL is fine */

struct grammar *form_grammar(struct form *form);
int forms_compiled(const struct forms *forms); /* how often it came to that, since the start */

#endif
