/* frame - the first frame: is it what the protocol allows, before anything is unpacked from it.
 *
 * protobuf-c has no bounds of its own: nested messages use stack without limit, and a few kilobytes
 * of empty repeated fields ask for megabytes.  So the bytes are walked once beside the descriptors:
 * nesting, counts, text (UTF-8, no U+0000: a C string would be cut there) and unknown fields are
 * bounded here, and the unpacking that follows draws on an arena with a budget. */

#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "base/arena.h"
#include "base/span.h"
#include "proto/moothall.pb-c.h"

enum {
    FRAME_MAJOR = 1,
    FRAME_MINOR = 0,
    FRAME_DEPTH_MAX = 6,
    FRAME_REPEATED_MAX = 4096,
    FRAME_UNKNOWN_MAX = 16,
    FRAME_UNPACKED_MAX = 8 * 1024 * 1024,
    FRAME_FIRST_BLOCK = 4 * 1024, /* of a message's arena: a broker has many messages under way, and most are small */
};

/* NULL when the bytes are well formed for this message type, else what is wrong with them. */
const char *frame_check(const ProtobufCMessageDescriptor *type, struct span bytes);

/* Checks and unpacks into arena.  NULL with *fault set when the frame is not to be had. */
Moothall__Envelope *frame_unpack(struct arena *arena, struct span bytes, const char **fault);

#endif
