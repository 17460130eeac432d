/* Any bytes as tokenizer.json: loaded or refused; one that loads encodes and decodes. */
#include <stdlib.h>

#include "worker/model/detokenize.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "Hello  <x>y naïve ü 42\r\n\t 語🦙 [L] cat's ";
    struct text_part part[] = { { span_of(text, 8), ADDED_ALL }, { span_of(text + 8, sizeof text - 9), ADDED_PLAIN } };
    struct tokenizer *t;
    struct ids ids = { .max = 4096 };
    struct buf out = { 0 };
    struct err err = { 0 };

    if (!tokenizer_parse(&t, span_of(data, size), span_of(NULL, 0), &err)) {
        if (t || !err.text[0])
            abort();
        return 0;
    }
    if (!tokenizer_encode(t, span_of(text, sizeof text - 1), &ids, &err) && ids.count != 0)
        abort();
    tokenizer_encode_parts(t, part, 2, &ids, &err);
    for (size_t i = 0; i < ids.count; i++)
        if (!tokenizer_has(t, ids.id[i]))
            abort();
    detokenize(t, ids.id, ids.count, true, &out, &err);
    if (!span_is_utf8(buf_span(&out)))
        abort();
    buf_fini(&out);
    ids_fini(&ids);
    tokenizer_free(t);
    return 0;
}
