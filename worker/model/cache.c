#include "worker/model/cache.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/inside.h"

/* A free page begins with the pointer to the next one.  Behind the rows of a page stands how many sequences
 * have it. */
struct cache_pool {
    size_t row_bytes, layer_bytes;
    size_t page_bytes; /* rows only: what the bound counts */
    int pages_max, pages_used;
    unsigned char *free_page;
};

struct cache_pool *cache_pool_new(const struct model *model, int64_t bytes_max)
{
    struct cache_pool *pool = calloc(1, sizeof *pool);
    int64_t pages;

    if (!pool)
        return NULL;
    pool->row_bytes = (size_t)config_latent(&model->config) * model_carrier_bytes(model);
    pool->layer_bytes = CACHE_PAGE * pool->row_bytes;
    pool->page_bytes = (size_t)model->config.layers * pool->layer_bytes;
    pages = bytes_max / (int64_t)pool->page_bytes;
    pool->pages_max = pages > INT_MAX ? INT_MAX : (int)pages;
    return pool;
}

void cache_pool_free(struct cache_pool *pool)
{
    if (!pool)
        return;
    assert(pool->pages_used == 0);
    while (pool->free_page) {
        unsigned char *page = pool->free_page;

        memcpy(&pool->free_page, page, sizeof pool->free_page);
        free(page);
    }
    free(pool);
}

int cache_pool_pages_max(const struct cache_pool *pool)
{
    return pool->pages_max;
}

int cache_pool_pages_used(const struct cache_pool *pool)
{
    return pool->pages_used;
}

int cache_pages_for(int positions)
{
    return positions / CACHE_PAGE + (positions % CACHE_PAGE != 0);
}

void cache_sequence_init(struct cache_sequence *sequence, struct cache_pool *pool)
{
    *sequence = (struct cache_sequence){ .pool = pool };
}

static size_t holders_at(const struct cache_pool *pool)
{
    return (pool->page_bytes + 63) / 64 * 64;
}

static uint32_t *holders(const struct cache_pool *pool, unsigned char *page)
{
    return (uint32_t *)(void *)(page + holders_at(pool));
}

static void give_back(struct cache_sequence *sequence)
{
    struct cache_pool *pool = sequence->pool;
    unsigned char *page = sequence->page[--sequence->page_count];

    if (--*holders(pool, page) > 0)
        return;
    memcpy(page, &pool->free_page, sizeof pool->free_page);
    pool->free_page = page;
    pool->pages_used--;
}

void cache_sequence_fini(struct cache_sequence *sequence)
{
    cache_shrink(sequence, 0);
    free(sequence->page);
    sequence->page = NULL;
    sequence->page_room = 0;
}

void cache_shrink(struct cache_sequence *sequence, int positions)
{
    while (sequence->page_count > cache_pages_for(positions))
        give_back(sequence);
}

static bool make_room(struct cache_sequence *sequence, int pages, struct err *err)
{
    int room = pages > 2 * sequence->page_room ? pages : 2 * sequence->page_room;
    unsigned char **list;

    if (pages <= sequence->page_room)
        return true;
    list = realloc(sequence->page, (size_t)room * sizeof *list);
    if (!list)
        return err_set(err, ERR_IO, "no memory for a list of %d pages", room);
    sequence->page = list;
    sequence->page_room = room;
    return true;
}

/* One more page, for which the pool and the list have room. */
static bool take_page(struct cache_sequence *sequence, struct err *err)
{
    struct cache_pool *pool = sequence->pool;
    unsigned char *page = pool->free_page;

    if (page)
        memcpy(&pool->free_page, page, sizeof pool->free_page);
    else
        page = aligned_alloc(64, holders_at(pool) + 64);
    if (!page)
        return err_set(err, ERR_IO, "no memory for a cache page of %zu bytes", pool->page_bytes);
    *holders(pool, page) = 1;
    sequence->page[sequence->page_count++] = page;
    pool->pages_used++;
    return true;
}

bool cache_grow(struct cache_sequence *sequence, int positions, struct err *err)
{
    struct cache_pool *pool = sequence->pool;
    int want = cache_pages_for(positions), had = sequence->page_count;

    if (want <= had)
        return true;
    if (want - had > pool->pages_max - pool->pages_used)
        return err_set(err, ERR_LIMIT, "the cache has %d of %d pages left, and %d are needed",
                       pool->pages_max - pool->pages_used, pool->pages_max, want - had);
    if (!make_room(sequence, want, err))
        return false;
    while (sequence->page_count < want)
        if (!take_page(sequence, err)) {
            while (sequence->page_count > had)
                give_back(sequence);
            return false;
        }
    return true;
}

bool cache_share(struct cache_sequence *sequence, const struct cache_sequence *from, int positions,
                 struct err *err)
{
    struct cache_pool *pool = sequence->pool;
    int full = positions / CACHE_PAGE;

    assert(sequence->page_count == 0 && from->pool == pool && cache_pages_for(positions) <= from->page_count);
    if (positions % CACHE_PAGE && pool->pages_used == pool->pages_max)
        return err_set(err, ERR_LIMIT, "the cache has no page left for a copy");
    if (!make_room(sequence, full + 1, err))
        return false;
    for (; sequence->page_count < full; sequence->page_count++) {
        sequence->page[sequence->page_count] = from->page[sequence->page_count];
        ++*holders(pool, sequence->page[sequence->page_count]);
    }
    if (positions % CACHE_PAGE == 0)
        return true;
    if (!take_page(sequence, err)) {
        cache_shrink(sequence, 0);
        return false;
    }
    memcpy(sequence->page[full], from->page[full], pool->page_bytes);
    return true;
}

int cache_pages_own(const struct cache_sequence *sequence)
{
    int own = 0;

    for (int i = 0; i < sequence->page_count; i++)
        own += *holders(sequence->pool, sequence->page[i]) == 1;
    return own;
}

void *cache_row(const struct cache_sequence *sequence, int layer, int position)
{
    const struct cache_pool *pool = sequence->pool;

    assert(position >= 0 && position / CACHE_PAGE < sequence->page_count);
    return sequence->page[position / CACHE_PAGE] + (size_t)layer * pool->layer_bytes +
           (size_t)(position % CACHE_PAGE) * pool->row_bytes;
}
