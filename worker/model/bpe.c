#include "worker/model/bpe.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>

#include "worker/model/tokenizer.h"
#include "worker/model/utf8.h"

struct place {
    uint32_t at, size;
};

struct merge_slot {
    uint64_t pair; /* left id << 32 | right id; EMPTY when unused */
    uint32_t rank;
    int32_t into;
};
#define EMPTY UINT64_MAX

enum { SHORT_WORD = 32 /* bytes */ };

struct bpe {
    int32_t size;
    struct place *written; /* by id: as in the file, in pool; size 0: no such id */
    struct place *bytes;   /* by id: decoded, in pool */
    struct buf pool;

    int32_t *find; /* open addressing by the written form; -1: free */
    size_t find_mask;
    unsigned char find_key[crypto_shorthash_KEYBYTES];

    struct merge_slot *merge; /* open addressing by pair */
    size_t merge_mask;
    int merge_shift; /* of a hash to its highest bits: only they depend on both ids */
    uint64_t merge_key;

    int32_t byte[256]; /* the token of a single byte, or -1 */
    bool ignore_merges;
};

struct bpe_symbol {
    int32_t id; /* -1: merged into its left neighbour */
    int32_t before, after;
};

struct bpe_merge {
    uint32_t rank;
    int32_t at; /* the left symbol */
    int32_t into;
};

/* ---- GPT-2's table of bytes ---------------------------------------------------------------------------- */

static uint16_t byte_character[256];
static int16_t character_byte[512]; /* -1: no byte */

__attribute__((constructor)) static void make_tables(void)
{
    uint16_t next = 256;

    for (int c = 0; c < 512; c++)
        character_byte[c] = -1;
    for (int b = 0; b < 256; b++) {
        bool visible = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;

        byte_character[b] = visible ? (uint16_t)b : next++;
        character_byte[byte_character[b]] = (int16_t)b;
    }
}

/* ---- finding by the written form ------------------------------------------------------------------------
 */

static size_t find_slot(const struct bpe *bpe, struct span written)
{
    uint64_t hash;
    size_t slot;

    /* Keyed: a file made to collide would otherwise load in quadratic time. */
    crypto_shorthash((unsigned char *)&hash, written.data, written.size, bpe->find_key);
    for (slot = (size_t)hash & bpe->find_mask; bpe->find[slot] >= 0; slot = (slot + 1) & bpe->find_mask) {
        struct place p = bpe->written[bpe->find[slot]];

        if (p.size == written.size && memcmp(bpe->pool.data + p.at, written.data, p.size) == 0)
            break;
    }
    return slot;
}

int32_t bpe_find(const struct bpe *bpe, struct span written)
{
    return bpe->find[find_slot(bpe, written)];
}

static struct merge_slot *merge_slot(const struct bpe *bpe, uint64_t pair)
{
    uint64_t hash = (pair ^ bpe->merge_key) * 0x9e3779b97f4a7c15u;
    size_t slot = (size_t)(hash >> bpe->merge_shift);

    while (bpe->merge[slot].pair != pair && bpe->merge[slot].pair != EMPTY)
        slot = (slot + 1) & bpe->merge_mask;
    return &bpe->merge[slot];
}

static inline uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* ---- loading ----------------------------------------------------------------------------------------------
 */

static size_t table_size(size_t count)
{
    size_t size = 16;

    while (size < count * 2)
        size *= 2;
    return size;
}

static bool add_token(struct bpe *bpe, int32_t id, struct span written, struct err *err)
{
    size_t at = bpe->pool.size, decoded;

    if (!buf_add(&bpe->pool, written.data, written.size))
        return err_set(err, ERR_IO, "out of memory");
    decoded = bpe->pool.size;
    for (size_t i = 0; i < written.size;) {
        uint32_t c = utf8_read(written.data + i);
        uint8_t byte;

        if (c >= 512 || character_byte[c] < 0) { /* not written in the table: its own text */
            bpe->pool.size = decoded;
            decoded = at;
            break;
        }
        byte = (uint8_t)character_byte[c];
        if (!buf_add(&bpe->pool, &byte, 1))
            return err_set(err, ERR_IO, "out of memory");
        i += utf8_length(written.data[i]);
    }
    bpe->written[id] = (struct place){ (uint32_t)at, (uint32_t)written.size };
    bpe->bytes[id] = decoded == at
                         ? bpe->written[id]
                         : (struct place){ (uint32_t)decoded, (uint32_t)(bpe->pool.size - decoded) };
    return true;
}

static bool read_vocab(struct bpe *bpe, json_t *vocab, struct err *err)
{
    const char *key;
    json_t *value;
    json_int_t highest = -1;

    json_object_foreach(vocab, key, value)
    {
        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) >= BPE_IDS_MAX)
            return err_set(err, ERR_INPUT, "vocab: id of `%.60s`: expected an integer 0..%d", key,
                           BPE_IDS_MAX - 1);
        if (*key == '\0' || strlen(key) > BPE_TOKEN_BYTES_MAX)
            return err_set(err, ERR_INPUT, "vocab: token of id %lld has %zu bytes, expected 1..%d",
                           (long long)json_integer_value(value), strlen(key), BPE_TOKEN_BYTES_MAX);
        if (json_integer_value(value) > highest)
            highest = json_integer_value(value);
    }
    if (highest < 0)
        return err_set(err, ERR_INPUT, "vocab: no token");
    bpe->size = (int32_t)highest + 1;
    bpe->written = calloc((size_t)bpe->size, sizeof *bpe->written);
    bpe->bytes = calloc((size_t)bpe->size, sizeof *bpe->bytes);
    bpe->find_mask = table_size(json_object_size(vocab)) - 1;
    bpe->find = malloc((bpe->find_mask + 1) * sizeof *bpe->find);
    if (!bpe->written || !bpe->bytes || !bpe->find)
        return err_set(err, ERR_IO, "out of memory");
    memset(bpe->find, 0xff, (bpe->find_mask + 1) * sizeof *bpe->find);
    json_object_foreach(vocab, key, value)
    {
        int32_t id = (int32_t)json_integer_value(value);

        if (bpe->written[id].size) {
            struct place other = bpe->written[id];

            return err_set(err, ERR_INPUT, "vocab: id %d stands for `%.*s` and for `%.60s`", id,
                           other.size > 60 ? 60 : (int)other.size, (const char *)bpe->pool.data + other.at,
                           key);
        }
        if (!add_token(bpe, id, span_text(key), err))
            return false;
        bpe->find[find_slot(bpe, span_text(key))] = id;
    }
    for (int b = 0; b < 256; b++)
        bpe->byte[b] = -1;
    for (int32_t id = 0; id < bpe->size; id++)
        if (bpe->bytes[id].size == 1 && bpe->bytes[id].at != bpe->written[id].at)
            bpe->byte[bpe->pool.data[bpe->bytes[id].at]] = id;
    return true;
}

/* "a b" or ["a", "b"]. */
static bool read_pair(const json_t *merge, struct span half[2])
{
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        size_t size = json_string_length(merge);

        if (!space || strlen(text) != size || strchr(space + 1, ' '))
            return false;
        half[0] = span_of(text, (size_t)(space - text));
        half[1] = span_of(space + 1, size - half[0].size - 1);
        return true;
    }
    if (json_array_size(merge) != 2)
        return false;
    for (size_t i = 0; i < 2; i++) {
        const json_t *text = json_array_get(merge, i);

        if (!json_is_string(text))
            return false;
        half[i] = span_of(json_string_value(text), json_string_length(text));
    }
    return true;
}

static bool read_merges(struct bpe *bpe, json_t *merges, struct err *err)
{
    char joined[2 * BPE_TOKEN_BYTES_MAX];
    json_t *merge;
    size_t rank;

    if (json_array_size(merges) > BPE_MERGES_MAX)
        return err_set(err, ERR_LIMIT, "merges: %zu of them, at most %d", json_array_size(merges),
                       BPE_MERGES_MAX);
    bpe->merge_mask = table_size(json_array_size(merges)) - 1;
    bpe->merge_shift = __builtin_clzll(bpe->merge_mask);
    bpe->merge = malloc((bpe->merge_mask + 1) * sizeof *bpe->merge);
    if (!bpe->merge)
        return err_set(err, ERR_IO, "out of memory");
    for (size_t i = 0; i <= bpe->merge_mask; i++)
        bpe->merge[i].pair = EMPTY;
    json_array_foreach(merges, rank, merge)
    {
        struct span half[2];
        int32_t id[2], into = -1;
        struct merge_slot *slot;

        if (!read_pair(merge, half))
            return err_set(err, ERR_INPUT, "merges[%zu]: expected \"a b\" or [\"a\", \"b\"]", rank);
        for (int i = 0; i < 2; i++)
            if ((id[i] = bpe_find(bpe, half[i])) < 0)
                return err_set(err, ERR_INPUT, "merges[%zu]: `%.*s` is not in the vocab", rank,
                               half[i].size > 60 ? 60 : (int)half[i].size, (const char *)half[i].data);
        if (half[0].size + half[1].size <= sizeof joined) { /* halves exist, so each is within its bound */
            memcpy(joined, half[0].data, half[0].size);
            memcpy(joined + half[0].size, half[1].data, half[1].size);
            into = bpe_find(bpe, span_of(joined, half[0].size + half[1].size));
        }
        if (into < 0)
            return err_set(err, ERR_INPUT, "merges[%zu]: `%.*s%.*s`, which it makes, is not in the vocab",
                           rank, half[0].size > 60 ? 60 : (int)half[0].size, (const char *)half[0].data,
                           half[1].size > 60 ? 60 : (int)half[1].size, (const char *)half[1].data);
        slot = merge_slot(bpe, pair_of(id[0], id[1]));
        *slot =
            (struct merge_slot){ pair_of(id[0], id[1]), (uint32_t)rank, into }; /* the last of equals holds */
    }
    return true;
}

/* Options that change what comes out and that byte-level BPE has no use for. */
static bool check_options(const json_t *description, struct err *err)
{
    static const char *const off[] = { "dropout", "unk_token", "continuing_subword_prefix",
                                       "end_of_word_suffix" };
    const json_t *v;

    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
        v = json_object_get(description, off[i]);
        if (v && !json_is_null(v) && !(json_is_string(v) && json_string_length(v) == 0) &&
            !(json_is_number(v) && json_number_value(v) == 0))
            return err_set(err, ERR_INPUT, "`%s` is set; expected null: only byte-level BPE is supported",
                           off[i]);
    }
    v = json_object_get(description, "byte_fallback");
    if (v && !json_is_null(v) && !json_is_false(v))
        return err_set(err, ERR_INPUT,
                       "`byte_fallback` is set; expected false: only byte-level BPE is supported");
    v = json_object_get(description, "ignore_merges");
    if (v && !json_is_null(v) && !json_is_boolean(v))
        return err_set(err, ERR_INPUT, "`ignore_merges`: expected true or false");
    return true;
}

bool bpe_new(struct bpe **out, const json_t *description, struct err *err)
{
    const json_t *type = json_object_get(description, "type");
    json_t *vocab = json_object_get(description, "vocab"), *merges = json_object_get(description, "merges");
    struct bpe *bpe;

    *out = NULL;
    /* Files from before the library wrote the type have none, and merges only where they are BPE's. */
    if (json_is_string(type) ? strcmp(json_string_value(type), "BPE") != 0 : !merges)
        return err_set(err, ERR_INPUT, "type `%.40s` is not supported; expected BPE",
                       json_is_string(type) ? json_string_value(type) : "");
    if (!json_is_object(vocab) || !json_is_array(merges))
        return err_set(err, ERR_INPUT, "expected an object \"vocab\" and a list \"merges\"");
    if (!check_options(description, err))
        return false;
    bpe = calloc(1, sizeof *bpe);
    if (!bpe)
        return err_set(err, ERR_IO, "out of memory");
    bpe->ignore_merges = json_is_true(json_object_get(description, "ignore_merges"));
    randombytes_buf(bpe->find_key, sizeof bpe->find_key);
    randombytes_buf(&bpe->merge_key, sizeof bpe->merge_key);
    if (!read_vocab(bpe, vocab, err) || !read_merges(bpe, merges, err)) {
        bpe_free(bpe);
        return false;
    }
    *out = bpe;
    return true;
}

void bpe_free(struct bpe *bpe)
{
    if (!bpe)
        return;
    free(bpe->written);
    free(bpe->bytes);
    buf_fini(&bpe->pool);
    free(bpe->find);
    free(bpe->merge);
    free(bpe);
}

int32_t bpe_size(const struct bpe *bpe)
{
    return bpe->size;
}

bool bpe_has(const struct bpe *bpe, int32_t id)
{
    return id >= 0 && id < bpe->size && bpe->written[id].size > 0;
}

struct span bpe_bytes(const struct bpe *bpe, int32_t id)
{
    if (!bpe_has(bpe, id))
        return span_of(NULL, 0);
    return span_of(bpe->pool.data + bpe->bytes[id].at, bpe->bytes[id].size);
}

/* ---- merging
 * ------------------------------------------------------------------------------------------------ */

static inline bool before(struct bpe_merge a, struct bpe_merge b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static bool heap_push(struct bpe_work *work, struct bpe_merge merge)
{
    size_t i;

    if (work->heap_count == work->heap_capacity) {
        size_t capacity = work->heap_capacity ? work->heap_capacity * 2 : 64;
        struct bpe_merge *grown = realloc(work->heap, capacity * sizeof *grown);

        if (!grown)
            return false;
        work->heap = grown;
        work->heap_capacity = capacity;
    }
    for (i = work->heap_count++; i > 0 && before(merge, work->heap[(i - 1) / 2]); i = (i - 1) / 2)
        work->heap[i] = work->heap[(i - 1) / 2];
    work->heap[i] = merge;
    return true;
}

static struct bpe_merge heap_pop(struct bpe_work *work)
{
    struct bpe_merge top = work->heap[0], last = work->heap[--work->heap_count];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < work->heap_count) {
        if (child + 1 < work->heap_count && before(work->heap[child + 1], work->heap[child]))
            child++;
        if (!before(work->heap[child], last))
            break;
        work->heap[i] = work->heap[child];
        i = child;
    }
    work->heap[i] = last;
    return top;
}

/* Queues the merge of symbol at with the one after it, if they have a rank. */
static bool offer(const struct bpe *bpe, struct bpe_work *work, const uint8_t *banned, int32_t at)
{
    const struct bpe_symbol *left = &work->symbol[at];
    const struct merge_slot *slot;

    if (left->after < 0)
        return true;
    slot = merge_slot(bpe, pair_of(left->id, work->symbol[left->after].id));
    if (slot->pair == EMPTY || (banned && banned[slot->into]))
        return true;
    return heap_push(work, (struct bpe_merge){ slot->rank, at, slot->into });
}

/* Where the word as a whole is a token, that is all (ignore_merges). */
static int32_t whole_word(const struct bpe *bpe, struct span word)
{
    uint8_t written[2 * BPE_TOKEN_BYTES_MAX];
    size_t n = 0;

    if (word.size > BPE_TOKEN_BYTES_MAX)
        return -1;
    for (size_t i = 0; i < word.size; i++) {
        uint16_t c = byte_character[word.data[i]];

        if (c >= 0x80)
            written[n++] = (uint8_t)(0xc0 | c >> 6);
        written[n++] = c < 0x80 ? (uint8_t)c : (uint8_t)(0x80 | (c & 0x3f));
    }
    return bpe_find(bpe, span_of(written, n));
}

static bool full(const struct ids *ids, struct err *err)
{
    if (ids->max && ids->count >= ids->max)
        return err_set(err, ERR_LIMIT, "the text has more than %zu tokens", ids->max);
    return err_set(err, ERR_IO, "out of memory");
}

static uint32_t rank_of(const struct bpe *bpe, const uint8_t *banned, int32_t left, int32_t right,
                        int32_t *into)
{
    const struct merge_slot *slot = merge_slot(bpe, pair_of(left, right));

    *into = slot->into;
    return slot->pair == EMPTY || (banned && banned[slot->into]) ? UINT32_MAX : slot->rank;
}

/* The same as by the heap; most words are so short that looking at all pairs again is faster. */
static bool short_word(const struct bpe *bpe, struct span word, const uint8_t *banned, struct ids *ids,
                       struct err *err)
{
    int32_t id[SHORT_WORD], into[SHORT_WORD];
    uint32_t rank[SHORT_WORD]; /* of the pair that begins there */
    size_t n = word.size;

    for (size_t i = 0; i < n; i++) {
        id[i] = bpe->byte[word.data[i]];
        if (id[i] < 0)
            return err_set(err, ERR_INPUT, "the vocabulary has no token for byte 0x%02x", word.data[i]);
    }
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = rank_of(bpe, banned, id[i], id[i + 1], &into[i]);
    while (n > 1) {
        size_t best = 0, behind;

        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == UINT32_MAX)
            break;
        id[best] = into[best];
        behind = --n - best - 1;
        memmove(id + best + 1, id + best + 2, behind * sizeof *id);
        if (behind) {
            memmove(rank + best + 1, rank + best + 2, (behind - 1) * sizeof *rank);
            memmove(into + best + 1, into + best + 2, (behind - 1) * sizeof *into);
            rank[best] = rank_of(bpe, banned, id[best], id[best + 1], &into[best]);
        }
        if (best)
            rank[best - 1] = rank_of(bpe, banned, id[best - 1], id[best], &into[best - 1]);
    }
    for (size_t i = 0; i < n; i++)
        if (!ids_add(ids, id[i]))
            return full(ids, err);
    return true;
}

bool bpe_word(const struct bpe *bpe, struct bpe_work *work, struct span word, const uint8_t *banned,
              struct ids *ids, struct err *err)
{
    int32_t n = (int32_t)word.size;
    bool fits = true;

    assert(word.size > 0 && word.size <= INT32_MAX);
    if (bpe->ignore_merges) {
        int32_t id = whole_word(bpe, word);

        if (id >= 0 && !(banned && banned[id]))
            return ids_add(ids, id) || full(ids, err);
    }
    if (word.size <= SHORT_WORD)
        return short_word(bpe, word, banned, ids, err);
    if (work->symbol_capacity < word.size) {
        size_t capacity = word.size < 128 ? 128 : word.size;
        struct bpe_symbol *grown = realloc(work->symbol, capacity * sizeof *grown);

        if (!grown)
            return err_set(err, ERR_IO, "out of memory");
        work->symbol = grown;
        work->symbol_capacity = capacity;
    }
    for (int32_t i = 0; i < n; i++) {
        if (bpe->byte[word.data[i]] < 0)
            return err_set(err, ERR_INPUT, "the vocabulary has no token for byte 0x%02x", word.data[i]);
        work->symbol[i] = (struct bpe_symbol){ bpe->byte[word.data[i]], i - 1, i + 1 < n ? i + 1 : -1 };
    }
    work->heap_count = 0;
    for (int32_t i = 0; fits && i < n; i++)
        fits = offer(bpe, work, banned, i);
    while (fits && work->heap_count > 0) {
        struct bpe_merge top = heap_pop(work);
        struct bpe_symbol *left = &work->symbol[top.at], *right;
        const struct merge_slot *slot;

        if (left->id < 0 || left->after < 0)
            continue;
        right = &work->symbol[left->after];
        /* Either may have become another token since: then this entry is of the past. */
        slot = merge_slot(bpe, pair_of(left->id, right->id));
        if (slot->pair == EMPTY || slot->into != top.into)
            continue;
        left->id = top.into;
        left->after = right->after;
        right->id = -1;
        if (left->after >= 0)
            work->symbol[left->after].before = top.at;
        fits =
            (left->before < 0 || offer(bpe, work, banned, left->before)) && offer(bpe, work, banned, top.at);
    }
    if (!fits)
        return err_set(err, ERR_IO, "out of memory");
    for (int32_t i = 0; i >= 0; i = work->symbol[i].after)
        if (!ids_add(ids, work->symbol[i].id))
            return full(ids, err);
    return true;
}

void bpe_work_fini(struct bpe_work *work)
{
    free(work->symbol);
    free(work->heap);
    *work = (struct bpe_work){ 0 };
}
