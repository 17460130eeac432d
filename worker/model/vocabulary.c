#include "worker/model/grammar_inside.h"

#include <stdlib.h>
#include <string.h>

enum {
    GROUP_BITS_MIN = 512, /* tokens of a group from which a mask is quicker than a list */
    TOKEN_BYTES_MAX = UINT16_MAX,
};

struct entry {
    struct span bytes;
    int32_t id;
};

static int compare(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    size_t n = a->bytes.size < b->bytes.size ? a->bytes.size : b->bytes.size;
    int c = memcmp(a->bytes.data, b->bytes.data, n);

    if (c)
        return c;
    if (a->bytes.size != b->bytes.size)
        return a->bytes.size < b->bytes.size ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static size_t common(struct span a, struct span b)
{
    size_t n = 0;

    while (n < a.size && n < b.size && a.data[n] == b.data[n])
        n++;
    return n;
}

static struct entry *collect(struct vocabulary *v, uint32_t *count)
{
    int32_t size = tokenizer_size(v->tokenizer);
    struct entry *entry;

    if (size > v->vocab)
        size = v->vocab;
    entry = malloc(((size_t)size + 1) * sizeof *entry);
    *count = 0;
    for (int32_t id = 0; entry && id < size; id++) {
        struct span bytes = tokenizer_bytes(v->tokenizer, id);

        if (bytes.size == 0 || bytes.size > TOKEN_BYTES_MAX || tokenizer_is_special(v->tokenizer, id) ||
            tokenizer_is_control(v->tokenizer, id))
            continue;
        entry[(*count)++] = (struct entry){ bytes, id };
        v->allowed[id / 64] |= (uint64_t)1 << (id % 64);
        if (bytes.size == 1)
            v->single[bytes.data[0]] = true;
        if (bytes.size > v->longest)
            v->longest = (uint32_t)bytes.size;
    }
    if (entry)
        qsort(entry, *count, sizeof *entry, compare);
    return entry;
}

/* Sorted tokens are the trie depth first: each adds the nodes behind what it has in common with the one
 * before. */
static bool plant(struct vocabulary *v, const struct entry *entry, uint32_t count)
{
    uint32_t *path = calloc((size_t)v->longest + 1, sizeof *path), *fill;
    size_t nodes = 1, depth = 0;
    uint32_t at = 0;
    bool ok = false;

    for (uint32_t i = 0; i < count; i++)
        nodes += entry[i].bytes.size - (i ? common(entry[i - 1].bytes, entry[i].bytes) : 0);
    v->node = calloc(nodes + 1, sizeof *v->node);
    v->child_first = calloc(nodes + 1, sizeof *v->child_first);
    v->child = calloc(nodes, sizeof *v->child);
    v->token = calloc((size_t)count + 1, sizeof *v->token);
    fill = calloc(nodes, sizeof *fill);
    if (!path || !v->node || !v->child_first || !v->child || !v->token || !fill)
        goto out;
    v->node_count = (uint32_t)nodes;
    v->token_count = count;
    for (uint32_t i = 0; i < count; i++) {
        size_t shared = i ? common(entry[i - 1].bytes, entry[i].bytes) : 0;

        for (; depth > shared; depth--)
            v->node[path[depth]].end = at + 1;
        for (; depth < entry[i].bytes.size; depth++) {
            path[depth + 1] = ++at;
            v->node[at].byte = entry[i].bytes.data[depth];
            v->node[at].depth = (uint16_t)(depth + 1);
            v->node[at].first = i;
            v->child_first[path[depth] + 1]++;
        }
        v->token[i] = entry[i].id;
    }
    for (; depth > 0; depth--)
        v->node[path[depth]].end = at + 1;
    v->node[0].end = (uint32_t)nodes;
    v->node[nodes].first = count;
    for (uint32_t i = 0; i < nodes; i++)
        v->child_first[i + 1] += v->child_first[i];
    for (uint32_t i = 1; i < nodes; i++) {
        uint32_t parent;

        path[v->node[i].depth] = i;
        parent = v->node[i].depth > 1 ? path[v->node[i].depth - 1] : 0;
        v->child[v->child_first[parent] + fill[parent]++] = i;
    }
    ok = true;
out:
    free(path);
    free(fill);
    return ok;
}

uint32_t vocabulary_child(const struct vocabulary *v, uint32_t node, uint8_t byte)
{
    uint32_t low = v->child_first[node], high = v->child_first[node + 1], last = high;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (v->node[v->child[middle]].byte < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low < last && v->node[v->child[low]].byte == byte ? v->child[low] : 0;
}

/* ---- strings ------------------------------------------------------------------------------------ */

struct inside {
    uint32_t state, points;
    int32_t token;
};

static int compare_inside(const void *left, const void *right)
{
    const struct inside *a = left, *b = right;

    if (a->state != b->state)
        return a->state < b->state ? -1 : 1;
    if (a->points != b->points)
        return a->points < b->points ? -1 : 1;
    return a->token < b->token ? -1 : a->token > b->token;
}

static bool group(struct vocabulary *v, struct inside *inside, uint32_t count)
{
    qsort(inside, count, sizeof *inside, compare_inside);
    v->string_token = calloc((size_t)count + 1, sizeof *v->string_token);
    v->string_bits = calloc((size_t)v->words + 1, sizeof *v->string_bits);
    v->string_group = calloc((size_t)count + 1, sizeof *v->string_group);
    if (!v->string_token || !v->string_bits || !v->string_group)
        return false;
    v->string_token_count = count;
    for (uint32_t i = 0, to; i < count; i = to) {
        struct string_group *g = &v->string_group[v->string_group_count++];

        for (to = i;
             to < count && inside[to].state == inside[i].state && inside[to].points == inside[i].points;
             to++) {
            v->string_token[to] = inside[to].token;
            v->string_bits[inside[to].token / 64] |= (uint64_t)1 << (inside[to].token % 64);
        }
        *g = (struct string_group){ inside[i].state, inside[i].points, i, to, NULL };
        if (to - i < GROUP_BITS_MIN)
            continue;
        if (!(g->bits = calloc(v->words, sizeof *g->bits)))
            return false;
        for (uint32_t k = i; k < to; k++)
            g->bits[inside[k].token / 64] |= (uint64_t)1 << (inside[k].token % 64);
    }
    return true;
}

/* Strings are most of what is generated, and in their body only the count of code points differs from place
 * to place: so one walk for all of them. */
static bool read_strings(struct vocabulary *v)
{
    struct inside *inside = calloc((size_t)v->token_count + 1, sizeof *inside);
    uint8_t *state = calloc((size_t)v->longest + 1, 1);
    uint32_t *points = calloc((size_t)v->longest + 1, sizeof *points), count = 0;
    bool ok = false;

    v->string_exit = calloc(v->node_count, sizeof *v->string_exit);
    if (!inside || !state || !points || !v->string_exit)
        goto out;
    state[0] = STRING_BODY;
    for (uint32_t i = 1; i < v->node_count;) {
        uint32_t d = v->node[i].depth;

        points[d] = points[d - 1];
        state[d] = string_move(state[d - 1], v->node[i].byte, &points[d]);
        if (state[d] == STRING_DEAD || state[d] == STRING_END) {
            if (state[d] == STRING_END)
                v->string_exit[v->string_exit_count++] = (struct string_exit){ i, points[d] };
            i = v->node[i].end;
            continue;
        }
        for (uint32_t t = v->node[i].first; t < v->node[i + 1].first; t++)
            inside[count++] = (struct inside){ state[d], points[d], v->token[t] };
        i++;
    }
    ok = group(v, inside, count);
out:
    free(inside);
    free(state);
    free(points);
    return ok;
}

/* ---- the whole ---------------------------------------------------------------------------------- */

struct vocabulary *vocabulary_new(const struct tokenizer *tokenizer, int32_t vocab)
{
    struct vocabulary *v = calloc(1, sizeof *v);
    struct entry *entry = NULL;
    uint32_t count = 0;

    if (!v)
        return NULL;
    v->tokenizer = tokenizer;
    v->vocab = vocab;
    v->words = ((uint32_t)vocab + 63) / 64;
    v->allowed = calloc((size_t)v->words + 1, sizeof *v->allowed);
    if (!v->allowed || !(entry = collect(v, &count)) || !plant(v, entry, count) || !read_strings(v)) {
        free(entry);
        vocabulary_free(v);
        return NULL;
    }
    free(entry);
    return v;
}

void vocabulary_free(struct vocabulary *v)
{
    if (!v)
        return;
    free(v->node);
    free(v->token);
    free(v->child_first);
    free(v->child);
    free(v->allowed);
    for (uint32_t i = 0; i < v->string_group_count; i++)
        free(v->string_group[i].bits);
    free(v->string_group);
    free(v->string_token);
    free(v->string_bits);
    free(v->string_exit);
    free(v);
}

bool vocabulary_cover(const struct vocabulary *v, struct span bytes, struct ids *ids, bool *memory)
{
    uint32_t *least = malloc((bytes.size + 1) * sizeof *least), *size = calloc(bytes.size + 1, sizeof *size);
    int32_t *token = calloc(bytes.size + 1, sizeof *token);
    size_t before = ids->count;
    bool ok = false;

    *memory = least && size && token;
    if (!*memory)
        goto out;
    least[bytes.size] = 0;
    for (size_t i = bytes.size; i-- > 0;) {
        uint32_t node = 0;

        least[i] = UINT32_MAX;
        for (size_t to = i; to < bytes.size && (node = vocabulary_child(v, node, bytes.data[to])) != 0; to++)
            if (v->node[node].first < v->node[node + 1].first && least[to + 1] != UINT32_MAX &&
                least[to + 1] + 1 <= least[i]) {
                least[i] = least[to + 1] + 1;
                size[i] = (uint32_t)(to + 1 - i);
                token[i] = v->token[v->node[node].first];
            }
    }
    ok = least[0] != UINT32_MAX;
    for (size_t i = 0; ok && i < bytes.size; i += size[i])
        if (!ids_add(ids, token[i])) {
            ids->count = before;
            *memory = ok = false;
        }
out:
    free(least);
    free(size);
    free(token);
    return ok;
}
