#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, BLOCK_BYTES = 1 << 16 };

struct arena_block {
    struct arena_block *next;
    size_t size, used;
    _Alignas(ALIGN) uint8_t data[];
};

void arena_init(struct arena *arena, size_t bytes_max)
{
    *arena = (struct arena){ .bytes_max = bytes_max };
}

void arena_fini(struct arena *arena)
{
    struct arena_block *block = arena->first;

    while (block) {
        struct arena_block *next = block->next;

        free(block);
        block = next;
    }
    *arena = (struct arena){ .bytes_max = arena->bytes_max, .block_first = arena->block_first };
}

void arena_reset(struct arena *arena)
{
    struct arena_block *block = arena->first ? arena->first->next : NULL;

    while (block) {
        struct arena_block *next = block->next;

        free(block);
        block = next;
    }
    if (arena->first) {
        arena->first->next = NULL;
        arena->first->used = 0;
    }
    arena->last = arena->first;
    arena->used = 0;
}

void *arena_take(struct arena *arena, size_t size)
{
    struct arena_block *block = arena->last;
    size_t rounded, used;
    void *p;

    if (size > SIZE_MAX - 2 * ALIGN)
        return NULL;
    rounded = size ? (size + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    if (__builtin_add_overflow(arena->used, rounded, &used) || (arena->bytes_max && used > arena->bytes_max))
        return NULL;
    if (!block || block->size - block->used < rounded) {
        size_t least = !block && arena->block_first ? arena->block_first : BLOCK_BYTES;
        size_t room = rounded > least ? rounded : least;

        if (room > SIZE_MAX - sizeof *block - ALIGN)
            return NULL;
        block = aligned_alloc(ALIGN, (sizeof *block + room + ALIGN - 1) / ALIGN * ALIGN);
        if (!block)
            return NULL;
        *block = (struct arena_block){ .size = room };
        if (arena->last)
            arena->last->next = block;
        else
            arena->first = block;
        arena->last = block;
    }
    p = block->data + block->used;
    block->used += rounded;
    arena->used = used;
    return p;
}

char *arena_copy(struct arena *arena, const void *text, size_t size)
{
    char *copy = size == SIZE_MAX ? NULL : arena_take(arena, size + 1);

    if (!copy)
        return NULL;
    if (size)
        memcpy(copy, text, size);
    copy[size] = '\0';
    return copy;
}
