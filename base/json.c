#include "base/json.h"

/* jansson does not look at what writing a key gave, so a bound that was met must stay met. */
struct sink {
    struct buf *out;
    bool full;
};

static int write_bytes(const char *bytes, size_t size, void *arg)
{
    struct sink *sink = arg;

    sink->full = sink->full || !buf_add(sink->out, bytes, size);
    return sink->full ? -1 : 0;
}

bool buf_json(struct buf *out, const json_t *value, size_t flags)
{
    struct sink sink = { .out = out };

    return json_dump_callback(value, write_bytes, &sink, JSON_COMPACT | JSON_ENCODE_ANY | flags) == 0 && !sink.full;
}
