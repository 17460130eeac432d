/* output - result lines, and writing them effectively once.
 *
 * Every entry of the result queue becomes one line of the OpenAI batch output shape.  A line depends
 * only on the entry, so writing it again gives the same bytes; what may differ between two runs of
 * one request stands under `moothall`, or in `created`.
 *
 * The writer syncs its file and then stores (position, byte offset, counts) as the consumer's cursor;
 * on restart it truncates the file to that offset and goes on from that position.  A stream (standard output,
 * a pipe) cannot be truncated: it is written from the beginning every time.
 *
 * A consumer that people name may be given another file, or another order, than the last time.  So its cursor's note
 * also has the order and a checksum of the last bytes written: a file that does not have them there is not cut. */

#ifndef CLIENT_OUTPUT_H
#define CLIENT_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "client/hall.h"
#include "client/spool.h"

/* Appends the entry's line, with its end.  False only without memory. */
bool output_line(struct buf *out, const Moothall__Entry *entry, struct span body);

/* Appends what a line says under `error`: null, or {"code","message"}.  False only without memory. */
bool output_error(struct buf *out, const Moothall__Entry *entry, struct span body);

/* Unicode has line ends of its own (U+0085, U+2028, U+2029), and readers that split text at them are common.  In JSON
 * they stand only inside strings, where an escape means the same: out[from ..] gets them escaped.  False only without memory. */
bool output_one_line(struct buf *out, size_t from);

struct output_source {
    const char *queue, *batch, *consumer;
    bool by_position; /* the order: by place in the batch, else by completion */
    struct spool *newest; /* by completion: a uint16_t, the newest generation, of each position; entries of others are
                             left out; NULL: all entries */
    uint64_t newest_count;
    bool keeps_cursor; /* false: reads from the start and leaves no trace */
};

enum { OUTPUT_TAIL_MAX = 64 };

struct output {
    int fd; /* -1: not open */
    bool is_file;
    char name[4096];        /* for messages */
    uint64_t offset;        /* of the file, what is in pending not counted */
    uint64_t position;      /* of the next fetch */
    uint64_t done, failed;  /* lines written, and those of them that are failures */
    uint64_t kept_position; /* the cursor as it is stored */
    int64_t kept_ms;
    struct buf pending;
    bool exclusive;         /* the file is checked to be the one that this consumer has written */
    uint8_t tail[OUTPUT_TAIL_MAX]; /* exclusive: the last bytes before offset */
    size_t tail_size;
};

/* Opens `path` ("-": standard output) where the cursor says, or from the start.  With begin_anew the cursor
 * is set back first.  exclusive: an existing file that the cursor does not know is refused,
 * as is one that this consumer has not written, and another order than it has (ERR_CONFLICT). */
bool output_open(struct output *output, const char *path, const struct output_source *source, bool begin_anew,
                 bool exclusive, struct hall *hall, struct err *err);
void output_close(struct output *output);

/* Fetches once, waiting at most wait_ms for something, and writes what came.  *end: that was all there will
 * ever be.  *got: entries that came. */
bool output_fetch(struct output *output, const struct output_source *source, struct hall *hall,
                  uint32_t wait_ms, bool *end, uint64_t *got, struct err *err);

/* Makes what was written durable and sets the cursor. */
bool output_keep(struct output *output, const struct output_source *source, struct hall *hall,
                 struct err *err);

#endif
