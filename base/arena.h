/* arena - memory that is given back all at once.
 *
 * Blocks are taken as needed up to a bound; a pointer stays good until the arena is reset or
 * freed.  Reset keeps the first block, so a loop that resets each turn stops allocating. */

#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *first, *last;
    size_t used;      /* bytes handed out since the last reset */
    size_t bytes_max; /* 0: no bound beyond memory */
    size_t block_first; /* 0: as all others (64 KiB); less where there are many arenas that hold little */
};

void arena_init(struct arena *arena, size_t bytes_max);
void arena_fini(struct arena *arena);
void arena_reset(struct arena *arena);

/* Aligned to 64 bytes, not cleared.  NULL when the bound or memory is reached. */
void *arena_take(struct arena *arena, size_t size);

/* A terminated copy. */
char *arena_copy(struct arena *arena, const void *text, size_t size);

#endif
