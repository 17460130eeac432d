/* Any text through the demo model's tokenizer comes back; any cut of it into parts is one text. */
#include <stdio.h>
#include <stdlib.h>

#include "worker/model/detokenize.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *t;
    struct ids whole = { 0 }, cut = { 0 };
    struct buf out = { 0 };
    struct err err;

    if (!t && !tokenizer_load(&t, SOURCE_DIR "/deploy/demo/model", &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    if (!tokenizer_encode(t, span_of(data, size), &whole, &err)) {
        if (span_is_utf8(span_of(data, size)) || whole.count != 0)
            abort();
    } else {
        struct text_part part[2] = { { span_of(data, size / 2), ADDED_ALL }, { span_of(data + size / 2, size - size / 2), ADDED_ALL } };

        if (!detokenize(t, whole.id, whole.count, true, &out, &err) || !span_equal(buf_span(&out), span_of(data, size)))
            abort();
        if (!tokenizer_encode_parts(t, part, 2, &cut, &err) || cut.count != whole.count ||
            (cut.count && memcmp(cut.id, whole.id, cut.count * sizeof cut.id[0]) != 0))
            abort();
        /* As a user's words: the same text, and no control token in it. */
        part[0].added = part[1].added = ADDED_PLAIN;
        cut.count = out.size = 0;
        if (!tokenizer_encode_parts(t, part, 2, &cut, &err) || !detokenize(t, cut.id, cut.count, true, &out, &err) ||
            !span_equal(buf_span(&out), span_of(data, size)))
            abort();
        for (size_t i = 0; i < cut.count; i++)
            if (tokenizer_is_control(t, cut.id[i]))
                abort();
    }
    /* The bytes as ids: never half a character. */
    out.size = 0;
    whole.count = 0;
    for (size_t i = 0; i + 1 < size; i += 2)
        if (tokenizer_has(t, data[i] | data[i + 1] << 8))
            ids_add(&whole, data[i] | data[i + 1] << 8);
    if (!detokenize(t, whole.id, whole.count, false, &out, &err) || !span_is_utf8(buf_span(&out)))
        abort();
    buf_fini(&out);
    ids_fini(&whole);
    ids_fini(&cut);
    return 0;
}
