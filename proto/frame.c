#include "proto/frame.h"

#include <stdlib.h>

/* One varint; false at the end of the bytes or after ten of them. */
static bool take_varint(const uint8_t **p, const uint8_t *end, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 70 && *p < end; shift += 7) {
        uint8_t byte = *(*p)++;

        *value |= shift < 64 ? (uint64_t)(byte & 0x7f) << shift : 0;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static bool is_text(struct span text)
{
    return (text.size == 0 || !memchr(text.data, 0, text.size)) && span_is_utf8(text);
}

/* The elements of a packed repeated field. */
static uint64_t count_packed(ProtobufCType type, struct span bytes)
{
    uint64_t n = 0;

    switch (type) {
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return bytes.size / 8;
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return bytes.size / 4;
    default:
        for (size_t i = 0; i < bytes.size; i++)
            n += !(bytes.data[i] & 0x80);
        return n;
    }
}

static const char *check(const ProtobufCMessageDescriptor *type, struct span bytes, int depth)
{
    enum { FIELDS_MAX = 64 };
    const uint8_t *p = bytes.data, *end = p + bytes.size;
    uint32_t seen[FIELDS_MAX] = { 0 };
    int unknown = 0;

    if (depth > FRAME_DEPTH_MAX)
        return "nested too deep";
    if (type->n_fields > FIELDS_MAX)
        return "type has too many fields"; /* a mistake in the .proto; the descriptor test finds it */
    while (p < end) {
        const ProtobufCFieldDescriptor *field;
        struct span inner = { 0 };
        uint64_t tag, value = 0, elements = 1;

        if (!take_varint(&p, end, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
            return "broken field tag";
        switch (tag & 7) {
        case 0:
            if (!take_varint(&p, end, &value))
                return "broken number";
            break;
        case 1:
            if (end - p < 8)
                return "cut short";
            p += 8;
            break;
        case 2:
            if (!take_varint(&p, end, &value) || value > (uint64_t)(end - p))
                return "cut short";
            inner = span_of(p, (size_t)value);
            p += value;
            break;
        case 5:
            if (end - p < 4)
                return "cut short";
            p += 4;
            break;
        default:
            return "unknown wire type";
        }
        field = protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3));
        if (!field) {
            if (++unknown > FRAME_UNKNOWN_MAX)
                return "too many unknown fields";
            continue;
        }
        if ((tag & 7) == 2) {
            const char *fault;

            if (field->type == PROTOBUF_C_TYPE_STRING) {
                if (!is_text(inner))
                    return "text that is not UTF-8 or holds U+0000";
            } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
                fault = check(field->descriptor, inner, depth + 1);
                if (fault)
                    return fault;
            } else if (field->type != PROTOBUF_C_TYPE_BYTES) {
                elements = count_packed(field->type, inner);
            }
        }
        seen[field - type->fields] += elements > FRAME_REPEATED_MAX ? FRAME_REPEATED_MAX + 1 : (uint32_t)elements;
        if (seen[field - type->fields] > FRAME_REPEATED_MAX)
            return "too many of a repeated field";
    }
    return NULL;
}

const char *frame_check(const ProtobufCMessageDescriptor *type, struct span bytes)
{
    return check(type, bytes, 1);
}

static void *arena_alloc(void *arena, size_t size)
{
    return arena_take(arena, size);
}

static void arena_keep(void *arena, void *pointer)
{
    (void)arena;
    (void)pointer; /* everything goes at once, with the arena */
}

Moothall__Envelope *frame_unpack(struct arena *arena, struct span bytes, const char **fault)
{
    ProtobufCAllocator allocator = { .alloc = arena_alloc, .free = arena_keep, .allocator_data = arena };
    Moothall__Envelope *envelope;

    *fault = frame_check(&moothall__envelope__descriptor, bytes);
    if (*fault)
        return NULL;
    envelope = moothall__envelope__unpack(&allocator, bytes.size, bytes.data);
    if (!envelope)
        *fault = "not an envelope";
    else if (envelope->major != FRAME_MAJOR)
        *fault = "another major version";
    else if (envelope->body_case == MOOTHALL__ENVELOPE__BODY__NOT_SET)
        *fault = "no body that is known here";
    else
        return envelope;
    return NULL;
}
