/* effects - what the core has decided: messages to send once the transaction is on disk.
 *
 * Everything is in one arena, which the link thread frees after sending. */

#ifndef BROKER_EFFECTS_H
#define BROKER_EFFECTS_H

#include "base/arena.h"
#include "base/span.h"
#include "proto/moothall.pb-c.h"

enum effect_kind {
    EFFECT_SEND,
    EFFECT_DROP, /* the session's worker no longer has the lease `fence` */
    EFFECT_END   /* the session is over (after what was sent to it) */
};

struct effect {
    struct effect *next;
    enum effect_kind kind;
    uint64_t session;
    Moothall__Envelope envelope;
    struct span payload;
    uint64_t fence;
    const uint64_t *fences; /* with a Welcome: the leases that the worker has */
    size_t fence_count;
};

struct effects {
    struct arena arena;
    struct effect *first, *last;
    bool stopped;      /* the core's last: after it nothing comes */
    char broken[1024]; /* with `stopped`: why, when the store failed */
};

void effects_init(struct effects *effects);
void effects_fini(struct effects *effects);

/* Memory of the arena; never NULL (out of memory ends the process: nothing is lost by it). */
void *effects_take(struct effects *effects, size_t size);
char *effects_text(struct effects *effects, const char *text);

/* An empty message of that type, in the arena. */
void *effects_new(struct effects *effects, const ProtobufCMessageDescriptor *type);

/* body is in the arena (or constant); so is the payload. */
struct effect *effects_send(struct effects *effects, uint64_t session, uint64_t correlation,
                            Moothall__Envelope__BodyCase kind, void *body, struct span payload);
void effects_drop(struct effects *effects, uint64_t session, uint64_t fence);
void effects_end(struct effects *effects, uint64_t session);

void effects_refuse(struct effects *effects, uint64_t session, uint64_t correlation,
                    Moothall__RefusalCode code, uint32_t retry_after_ms, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

#endif
