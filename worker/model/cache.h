/* cache - what attention remembers of a sequence: one latent row a position and layer.
 *
 * A row is [kv_lora] of the normalised latent, then [qk_rope] of the rotated key, in the carrier
 * format.  Rows live in pages of 64 positions, a page holding all layers: [layer][64][kv_lora + qk_rope].
 * Attention works in the same blocks of 64, counted from position 0, so a page is a block.
 * Pages come from a pool with a bound; a sequence has a list of them.  Sequences that begin alike can have
 * their full pages in common (cache_share): such a page is only read, and goes back with its last holder. */

#ifndef MODEL_CACHE_H
#define MODEL_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct model;
struct cache_pool;

enum { CACHE_PAGE = 64 }; /* positions */

struct cache_sequence {
    struct cache_pool *pool;
    unsigned char **page; /* [page_count] */
    int page_count, page_room;
};

/* bytes_max: at most this many bytes of pages are out at once (rounded down to whole pages). */
struct cache_pool *cache_pool_new(const struct model *model, int64_t bytes_max);
void cache_pool_free(struct cache_pool *pool); /* every sequence must be finished; NULL is fine */
int cache_pool_pages_max(const struct cache_pool *pool);
int cache_pool_pages_used(const struct cache_pool *pool);
int cache_pages_for(int positions); /* pages that hold so many positions */

void cache_sequence_init(struct cache_sequence *sequence, struct cache_pool *pool);
void cache_sequence_fini(struct cache_sequence *sequence); /* gives its pages back */

/* Makes room for positions 0 .. positions - 1.  ERR_LIMIT when the pool is spent; nothing has changed then.
 */
bool cache_grow(struct cache_sequence *sequence, int positions, struct err *err);
/* Gives back the pages beyond so many positions. */
void cache_shrink(struct cache_sequence *sequence, int positions);

/* Gives an empty sequence the first `positions` of another: its full pages in common, a copy of the page
 * begun. ERR_LIMIT when there is no room for the copy; nothing has changed then.  Rows before `positions` of
 * a page in common may not be written again. */
bool cache_share(struct cache_sequence *sequence, const struct cache_sequence *from, int positions,
                 struct err *err);
/* Pages that would go back to the pool with this sequence: those that nobody has in common with it. */
int cache_pages_own(const struct cache_sequence *sequence);

/* Row of a position in a layer; the page must be there. */
void *cache_row(const struct cache_sequence *sequence, int layer, int position);

#endif
