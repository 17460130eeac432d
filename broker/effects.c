#include "broker/effects.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "proto/link.h"

void effects_init(struct effects *effects)
{
    memset(effects, 0, sizeof *effects);
    arena_init(&effects->arena, 0);
}

void effects_fini(struct effects *effects)
{
    arena_fini(&effects->arena);
}

void *effects_take(struct effects *effects, size_t size)
{
    void *memory = arena_take(&effects->arena, size);

    if (!memory) {
        log_error("broker.memory", "reason=\"out of memory\"");
        abort();
    }
    return memory;
}

char *effects_text(struct effects *effects, const char *text)
{
    size_t n = strlen(text) + 1;

    return memcpy(effects_take(effects, n), text, n);
}

void *effects_new(struct effects *effects, const ProtobufCMessageDescriptor *type)
{
    void *message = effects_take(effects, type->sizeof_message);

    protobuf_c_message_init(type, message);
    return message;
}

static struct effect *add(struct effects *effects, enum effect_kind kind, uint64_t session)
{
    struct effect *effect = effects_take(effects, sizeof *effect);

    memset(effect, 0, sizeof *effect);
    effect->kind = kind;
    effect->session = session;
    if (effects->last)
        effects->last->next = effect;
    else
        effects->first = effect;
    effects->last = effect;
    return effect;
}

struct effect *effects_send(struct effects *effects, uint64_t session, uint64_t correlation,
                            Moothall__Envelope__BodyCase kind, void *body, struct span payload)
{
    struct effect *effect = add(effects, EFFECT_SEND, session);

    link_envelope(&effect->envelope, kind, body, correlation);
    effect->payload = payload;
    return effect;
}

void effects_drop(struct effects *effects, uint64_t session, uint64_t fence)
{
    add(effects, EFFECT_DROP, session)->fence = fence;
}

void effects_end(struct effects *effects, uint64_t session)
{
    add(effects, EFFECT_END, session);
}

void effects_refuse(struct effects *effects, uint64_t session, uint64_t correlation,
                    Moothall__RefusalCode code, uint32_t retry_after_ms, const char *format, ...)
{
    Moothall__Refusal *refusal = effects_new(effects, &moothall__refusal__descriptor);
    char text[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    refusal->code = code;
    refusal->text = effects_text(effects, text);
    refusal->retry_after_ms = retry_after_ms;
    effects_send(effects, session, correlation, MOOTHALL__ENVELOPE__BODY_REFUSAL, refusal,
                 (struct span){ 0 });
}
