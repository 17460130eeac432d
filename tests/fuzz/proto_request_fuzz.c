/* Any bytes as a line: read or refused, and what was read survives being stored and read again. */
#include <stdlib.h>

#include "proto/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct request first, again;
    struct request_fault fault;
    struct buf words = { 0 };

    arena_init(&arena, 16 * 1024 * 1024);
    if (request_read(&arena, span_of(data, size), &first, &fault)) {
        must(first.custom_id.size >= 1 && first.custom_id.size <= REQUEST_ID_MAX && span_is_utf8(first.body));
        must(first.kind == REQUEST_CHAT ? first.message_count > 0 : first.prompt_id || first.prompt.data);
        must(first.max_tokens >= -1 && (first.max_tokens != 0 || first.echo) && first.top_k >= 0);
        must(request_read_body(&arena, first.url, first.custom_id, first.body, &again, &fault));
        must(span_equal(first.body, again.body) && first.seed == again.seed && first.temperature == again.temperature);
        must(first.form == again.form && span_equal(first.form_text, again.form_text) && !first.form == !first.form_field);
        must(first.choices >= 1 && first.choices <= REQUEST_CHOICES_MAX && first.repetition_penalty > 0);
        must(first.bias_count == again.bias_count && first.bias_count <= REQUEST_BIAS_MAX);
        must(!first.pattern_max || (first.pattern_min >= 1 && first.pattern_min <= first.pattern_max && first.pattern_count >= 2));
        must(first.message_count == again.message_count && first.prompt_id_count == again.prompt_id_count);
    } else {
        must(fault.message[0] && fault.code && fault.status_code >= 400 && fault.status_code < 500);
        must(request_fault_write(&fault, &words) && span_is_utf8(buf_span(&words)));
        must(!memchr(words.data, '\n', words.size));
    }
    buf_fini(&words);
    arena_fini(&arena);
    return 0;
}
