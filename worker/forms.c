#include "worker/forms.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/model/schema.h"

struct form {
    uint8_t digest[32];
    struct grammar *grammar; /* NULL: it cannot be had, why says why */
    struct err why;
    int users;
    uint64_t used; /* the turn in which it was last asked for */
    struct form *next;
};

struct forms {
    const struct tokenizer *tokenizer;
    int32_t vocab;
    size_t bytes_max;
    struct vocabulary *vocabulary; /* made for the first form: most workers never need it */
    struct form *first;
    uint64_t turn;
    int compiled;
};

static void *must(void *memory)
{
    if (!memory) {
        log_error("forms.memory", "reason=\"out of memory\"");
        abort();
    }
    return memory;
}

struct forms *forms_new(const struct tokenizer *tokenizer, int32_t vocab, size_t bytes_max)
{
    struct forms *forms = must(calloc(1, sizeof *forms));

    forms->tokenizer = tokenizer;
    forms->vocab = vocab;
    forms->bytes_max = bytes_max;
    return forms;
}

static void form_free(struct form *form)
{
    assert(form->users == 0);
    grammar_free(form->grammar);
    free(form);
}

void forms_free(struct forms *forms)
{
    if (!forms)
        return;
    for (struct form *form = forms->first, *next; form; form = next) {
        next = form->next;
        form_free(form);
    }
    vocabulary_free(forms->vocabulary);
    free(forms);
}

static void digest_of(uint8_t digest[32], enum request_form kind, struct span text, bool closed)
{
    uint8_t head[2] = { (uint8_t)kind, closed };
    crypto_generichash_state state;

    crypto_generichash_init(&state, NULL, 0, 32);
    crypto_generichash_update(&state, head, sizeof head);
    crypto_generichash_update(&state, text.data, text.size);
    crypto_generichash_final(&state, digest, 32);
}

/* Makes room for one more: gives up what nobody uses, the longest unused first.  False when what is in use
 * takes all there may be.  Masks grow while a grammar is used, so the bytes are counted anew each time. */
static bool make_room(struct forms *forms)
{
    for (;;) {
        struct form **oldest = NULL;
        size_t bytes = 0;
        int count = 0;

        for (struct form **at = &forms->first; *at; at = &(*at)->next) {
            bytes += (*at)->grammar ? grammar_bytes((*at)->grammar) : 0;
            count++;
            if ((*at)->users == 0 && (!oldest || (*at)->used < (*oldest)->used))
                oldest = at;
        }
        if (count < FORMS_MAX && bytes < forms->bytes_max)
            return true;
        if (!oldest)
            return bytes < forms->bytes_max; /* more forms than FORMS_MAX, but each has its job */
        {
            struct form *gone = *oldest;

            *oldest = gone->next;
            form_free(gone);
        }
    }
}

static bool compile(struct forms *forms, struct form *form, enum request_form kind, struct span text,
                    bool closed)
{
    static const enum structured_kind kinds[] = { [REQUEST_JSON_OBJECT] = STRUCTURED_JSON_OBJECT,
                                                  [REQUEST_SCHEMA] = STRUCTURED_SCHEMA,
                                                  [REQUEST_CHOICE] = STRUCTURED_CHOICE,
                                                  [REQUEST_REGEX] = STRUCTURED_REGEX };
    struct schema_options options = { .closed = closed };
    int64_t began_ns = clock_now_ns();
    bool done;

    if (!forms->vocabulary)
        forms->vocabulary = must(vocabulary_new(forms->tokenizer, forms->vocab));
    forms->compiled++;
    done = structured_grammar(&form->grammar, kinds[kind], text, &options, forms->vocabulary, &form->why);
    if (!done)
        form->grammar = NULL;
    log_info("form.compiled", "ok=%d bytes=%zu us=%lld", done, done ? grammar_bytes(form->grammar) : 0,
             (long long)((clock_now_ns() - began_ns) / 1000));
    return done;
}

bool forms_take(struct forms *forms, struct form **out, enum request_form kind, struct span text, bool closed,
                struct err *err)
{
    uint8_t digest[32];
    struct form *form;

    assert(kind != REQUEST_FREE);
    *out = NULL;
    digest_of(digest, kind, text, closed);
    for (form = forms->first; form; form = form->next)
        if (memcmp(form->digest, digest, sizeof digest) == 0)
            break;
    if (!form) {
        if (!make_room(forms))
            return err_set(err, ERR_REFUSED, "the grammars in use take all of their %zu bytes",
                           forms->bytes_max);
        form = must(calloc(1, sizeof *form));
        memcpy(form->digest, digest, sizeof digest);
        if (!compile(forms, form, kind, text, closed) && form->why.code == ERR_IO) {
            *err = form->why; /* no memory now: another time there may be */
            err->code = ERR_REFUSED;
            free(form);
            return false;
        }
        form->next = forms->first;
        forms->first = form;
    }
    form->used = ++forms->turn;
    if (!form->grammar) {
        *err = form->why;
        return false;
    }
    form->users++;
    *out = form;
    return true;
}

void forms_give_back(struct forms *forms, struct form *form)
{
    (void)forms;
    if (!form)
        return;
    assert(form->users > 0);
    form->users--;
}

struct grammar *form_grammar(struct form *form)
{
    return form->grammar;
}

int forms_compiled(const struct forms *forms)
{
    return forms->compiled;
}
