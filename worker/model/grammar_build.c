#include "worker/model/grammar_inside.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { HEAP_START = 64 };

/* ---- compiling: one rule by itself -------------------------------------------------------------- */

static bool read_regular(struct regular *r)
{
    const struct dfa *d = r->dfa;
    size_t edges = 0;
    uint32_t *from, *edge = NULL, *queue, head = 0, tail = 0;
    struct {
        uint16_t bytes;
        uint8_t least;
    } class[256] = { 0 };
    bool ok = false;

    r->far = malloc(((size_t)d->count + 1) * sizeof *r->far);
    r->only = malloc(((size_t)d->count + 1) * sizeof *r->only);
    r->best = calloc((size_t)d->count + 1, 1);
    from = calloc((size_t)d->count + 2, sizeof *from);
    queue = malloc(((size_t)d->count + 1) * sizeof *queue);
    if (!r->far || !r->only || !r->best || !from || !queue)
        goto out;
    for (size_t i = 0; i < (size_t)d->count * d->classes; i++)
        from[d->next[i] + 1]++;
    for (uint32_t s = 0; s < d->count; s++)
        from[s + 1] += from[s];
    edges = from[d->count];
    if (!(edge = malloc((edges + 1) * sizeof *edge)))
        goto out;
    for (uint32_t s = 0; s < d->count; s++)
        for (uint32_t c = 0; c < d->classes; c++)
            edge[from[d->next[(size_t)s * d->classes + c]]++] = s; /* from[t] is then where t + 1 began */
    for (uint32_t s = 0; s < d->count; s++) {
        r->far[s] = d->accepts[s] ? 0 : UINT32_MAX;
        if (d->accepts[s])
            queue[tail++] = s;
    }
    while (head < tail) {
        uint32_t t = queue[head++];

        for (uint32_t i = t ? from[t - 1] : 0; i < from[t]; i++)
            if (r->far[edge[i]] == UINT32_MAX) {
                r->far[edge[i]] = r->far[t] + 1;
                queue[tail++] = edge[i];
            }
    }
    for (int byte = 255; byte >= 0; byte--) {
        class[d->class_of[byte]].least = (uint8_t)byte;
        class[d->class_of[byte]].bytes++;
    }
    for (uint32_t s = 0; s < d->count; s++) {
        int best = 256;

        r->only[s] = -1;
        for (uint32_t c = 0; c < d->classes; c++) {
            uint32_t t = d->next[(size_t)s * d->classes + c];

            if (t == 0 || r->far[t] == UINT32_MAX || class[c].bytes == 0)
                continue;
            r->only[s] = r->only[s] == -1 && class[c].bytes == 1 ? (int16_t) class[c].least : -2;
            if (r->far[t] + 1 == r->far[s] && class[c].least < best)
                best = class[c].least;
        }
        r->best[s] = best < 256 ? (uint8_t)best : 0;
    }
    ok = true;
out:
    free(from);
    free(edge);
    free(queue);
    return ok;
}

/* ---- compiling: nodes that only stand for another ----------------------------------------------- */

static uint32_t stands_for(const struct rule *r)
{
    return (r->kind == RULE_SEQUENCE || r->kind == RULE_CHOICE) && r->list.count == 1 ? r->list.part[0] : 0;
}

/* A chain of references costs nothing to follow later; a circle of them stays as it is, and has no end. */
static bool resolve(struct grammar *g)
{
    uint32_t *as = malloc(g->rule_count * sizeof *as);

    if (!as)
        return false;
    for (uint32_t i = 0; i < g->rule_count; i++)
        as[i] = UINT32_MAX;
    for (uint32_t i = 1; i < g->rule_count; i++) {
        uint32_t to = i, next;

        for (; as[to] == UINT32_MAX && stands_for(&g->rule[to]) != 0; to = stands_for(&g->rule[to]))
            as[to] = 0; /* on the way */
        if (as[to] == UINT32_MAX)
            as[to] = to;
        else if (as[to] != 0)
            to = as[to];
        for (uint32_t k = i; as[k] == 0; k = next) {
            next = stands_for(&g->rule[k]);
            as[k] = to;
        }
    }
    for (uint32_t i = 1; i < g->rule_count; i++) {
        struct rule *r = &g->rule[i];

        if (r->kind == RULE_SEQUENCE || r->kind == RULE_CHOICE)
            for (uint32_t k = 0; k < r->list.count; k++)
                r->list.part[k] = as[r->list.part[k]];
        if (r->kind == RULE_ARRAY) {
            for (uint32_t k = 0; k < r->array.prefix_count; k++)
                r->array.prefix[k] = as[r->array.prefix[k]];
            if (r->array.items)
                r->array.items = as[r->array.items];
        }
        if (r->kind == RULE_OBJECT) {
            for (uint32_t k = 0; k < r->object.count; k++)
                r->object.property[k].value = as[r->object.property[k].value];
            if (r->object.other_value)
                r->object.other_value = as[r->object.other_value];
        }
    }
    g->root = as[g->root];
    free(as);
    return true;
}

/* ---- compiling: lengths of all ------------------------------------------------------------------ */

/* Knuth's generalisation of Dijkstra's algorithm: the rule with the least length of those that are not final
 * is final, and each rule that waits for it is told once for each place where it stands. */
struct waiting {
    uint32_t rule, times;
};

struct candidate {
    uint64_t len;
    uint32_t rule, by; /* by: the branch */
};

struct lengths {
    struct rule *rule;
    uint32_t count;
    uint32_t *first, *fill; /* [count + 1] of waiting */
    struct waiting *waiting;
    uint32_t *pending; /* what a rule still waits for */
    uint64_t *sum;
    struct candidate *heap;
    size_t heap_count, heap_max;
};

static bool before(struct candidate a, struct candidate b)
{
    return a.len != b.len ? a.len < b.len : a.rule != b.rule ? a.rule < b.rule : a.by < b.by;
}

static bool heap_add(struct lengths *l, struct candidate c)
{
    size_t i = l->heap_count;

    if (i == l->heap_max) {
        struct candidate *grown =
            realloc(l->heap, (l->heap_max = 2 * l->heap_max + HEAP_START) * sizeof *grown);

        if (!grown)
            return false;
        l->heap = grown;
    }
    l->heap_count++;
    for (; i > 0 && before(c, l->heap[(i - 1) / 2]); i = (i - 1) / 2)
        l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = c;
    return true;
}

static struct candidate heap_take(struct lengths *l)
{
    struct candidate least = l->heap[0], c = l->heap[--l->heap_count];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < l->heap_count) {
        if (child + 1 < l->heap_count && before(l->heap[child + 1], l->heap[child]))
            child++;
        if (!before(l->heap[child], c))
            break;
        l->heap[i] = l->heap[child];
        i = child;
    }
    if (l->heap_count)
        l->heap[i] = c;
    return least;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    return a + b < GRAMMAR_FAR ? a + b : GRAMMAR_FAR;
}

static uint64_t times(uint64_t a, uint64_t n)
{
    return n && a > GRAMMAR_FAR / n ? GRAMMAR_FAR : a * n;
}

/* Counts what a rule waits for, or (with waiting allocated) notes it. */
static void wait_for(struct lengths *l, uint32_t rule, uint32_t child, uint32_t number)
{
    if (!l->waiting)
        l->first[child + 1]++;
    else
        l->waiting[l->first[child] + l->fill[child]++] = (struct waiting){ rule, number };
    l->pending[rule]++;
}

static void wait_all(struct lengths *l, uint32_t i)
{
    const struct rule *r = &l->rule[i];

    l->pending[i] = 0;
    if (r->kind == RULE_SEQUENCE || r->kind == RULE_CHOICE) {
        for (uint32_t k = 0; k < r->list.count; k++)
            wait_for(l, i, r->list.part[k], 1);
    } else if (r->kind == RULE_ARRAY) {
        for (uint32_t k = 0; k < r->array.prefix_count && k < r->array.low; k++)
            wait_for(l, i, r->array.prefix[k], 1);
        if (r->array.low > r->array.prefix_count)
            wait_for(l, i, r->array.items, r->array.low - r->array.prefix_count);
    } else if (r->kind == RULE_OBJECT) {
        for (uint32_t k = 0; k < r->object.count; k++)
            if (r->object.property[k].required)
                wait_for(l, i, r->object.property[k].value, 1);
    }
}

/* What a rule's own bytes are; for those that wait for nothing it is their length. */
static uint64_t own_bytes(const struct rule *r)
{
    uint64_t sum = 2, required = 0;

    switch (r->kind) {
    case RULE_NOTHING:
        return GRAMMAR_FAR;
    case RULE_LITERAL:
        return r->literal.size;
    case RULE_REGULAR:
        return r->regular.dfa->count == 0 || r->regular.far[r->regular.dfa->start] == UINT32_MAX
                   ? GRAMMAR_FAR
                   : r->regular.far[r->regular.dfa->start];
    case RULE_STRING:
        return 2 + (uint64_t)r->string.low;
    case RULE_SEQUENCE:
        return 0;
    case RULE_CHOICE:
        return GRAMMAR_FAR;
    case RULE_ARRAY:
        if (r->array.low > r->array.high || (r->array.low > r->array.prefix_count && !r->array.items))
            return GRAMMAR_FAR;
        return 2 + (r->array.low ? r->array.low - 1 : 0);
    case RULE_OBJECT:
        for (uint32_t i = 0; i < r->object.count; i++)
            if (r->object.property[i].required) {
                sum += r->object.property[i].key.size + 1;
                required++;
            }
        return sum + (required ? required - 1 : 0);
    }
    return GRAMMAR_FAR;
}

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* The stack that the shortest text needs; what it is made of is final. */
static uint32_t need_of(const struct lengths *l, const struct rule *r, uint32_t by)
{
    uint32_t need = 0;

    if (r->kind == RULE_CHOICE)
        return l->rule[by].start.need;
    if (r->kind == RULE_SEQUENCE)
        for (uint32_t k = 0; k < r->list.count; k++)
            need = most(need, l->rule[r->list.part[k]].start.need + (k + 1 < r->list.count));
    if (r->kind == RULE_ARRAY) {
        for (uint32_t k = 0; k < r->array.prefix_count && k < r->array.low; k++)
            need = most(need, l->rule[r->array.prefix[k]].start.need + 1);
        if (r->array.low > r->array.prefix_count)
            need = most(need, l->rule[r->array.items].start.need + 1);
    }
    if (r->kind == RULE_OBJECT)
        for (uint32_t k = 0; k < r->object.count; k++)
            if (r->object.property[k].required)
                need = most(need, l->rule[r->object.property[k].value].start.need + 1);
    return need;
}

static bool settle(struct lengths *l)
{
    while (l->heap_count) {
        struct candidate c = heap_take(l);
        struct rule *r = &l->rule[c.rule];

        if (r->start.len != GRAMMAR_FAR)
            continue;
        r->start = (struct reach){ c.len, need_of(l, r, c.by) };
        if (r->kind == RULE_CHOICE)
            r->list.best = c.by;
        for (uint32_t i = l->first[c.rule]; i < l->first[c.rule + 1]; i++) {
            struct waiting w = l->waiting[i];
            uint64_t len = plus(l->sum[w.rule], times(c.len, w.times));

            if (l->rule[w.rule].kind == RULE_CHOICE) {
                if (c.len < GRAMMAR_FAR && !heap_add(l, (struct candidate){ c.len, w.rule, c.rule }))
                    return false;
                continue;
            }
            l->sum[w.rule] = len;
            if (--l->pending[w.rule] == 0 && len < GRAMMAR_FAR &&
                !heap_add(l, (struct candidate){ len, w.rule, 0 }))
                return false;
        }
    }
    return true;
}

static bool read_lengths(struct rule *rule, uint32_t count)
{
    struct lengths l = { .rule = rule, .count = count };
    bool ok = false;

    l.first = calloc((size_t)count + 1, sizeof *l.first);
    l.fill = calloc((size_t)count + 1, sizeof *l.fill);
    l.pending = calloc((size_t)count + 1, sizeof *l.pending);
    l.sum = calloc((size_t)count + 1, sizeof *l.sum);
    if (!l.first || !l.fill || !l.pending || !l.sum)
        goto out;
    rule[0].start.len = GRAMMAR_FAR;
    for (uint32_t i = 1; i < count; i++) {
        rule[i].start = (struct reach){ GRAMMAR_FAR, 0 };
        l.sum[i] = own_bytes(&rule[i]);
        if (rule[i].kind == RULE_CHOICE || l.sum[i] < GRAMMAR_FAR)
            wait_all(&l, i);
    }
    for (uint32_t i = 0; i < count; i++)
        l.first[i + 1] += l.first[i];
    if (!(l.waiting = malloc(((size_t)l.first[count] + 1) * sizeof *l.waiting)))
        goto out;
    for (uint32_t i = 1; i < count; i++) {
        bool possible = rule[i].kind == RULE_CHOICE || l.sum[i] < GRAMMAR_FAR;

        if (possible)
            wait_all(&l, i);
        if (possible && rule[i].kind != RULE_CHOICE && l.pending[i] == 0 &&
            !heap_add(&l, (struct candidate){ l.sum[i], i, 0 }))
            goto out;
    }
    ok = settle(&l);
out:
    free(l.first);
    free(l.fill);
    free(l.pending);
    free(l.sum);
    free(l.waiting);
    free(l.heap);
    return ok;
}

/* ---- compiling: what depends on the lengths ----------------------------------------------------- */

static bool finish_sequence(const struct grammar *g, struct rule *r)
{
    r->list.rest = calloc((size_t)r->list.count + 1, sizeof *r->list.rest);
    if (!r->list.rest)
        return false;
    for (uint32_t k = r->list.count; k-- > 0;) {
        const struct reach *part = &g->rule[r->list.part[k]].start;

        r->list.rest[k].len = plus(part->len, r->list.rest[k + 1].len);
        r->list.rest[k].need = most(part->need + (k + 1 < r->list.count), r->list.rest[k + 1].need);
    }
    return true;
}

static bool finish_array(const struct grammar *g, struct rule *r)
{
    r->array.sum = calloc((size_t)r->array.prefix_count + 1, sizeof *r->array.sum);
    if (!r->array.sum)
        return false;
    r->array.last = r->array.high;
    if (!r->array.items || !rule_is_usable(g, r->array.items))
        r->array.last = r->array.last < r->array.prefix_count ? r->array.last : r->array.prefix_count;
    for (uint32_t k = r->array.prefix_count; k-- > 0;)
        if (!rule_is_usable(g, r->array.prefix[k]) && r->array.last > k)
            r->array.last = k;
    for (uint32_t k = 0; k < r->array.prefix_count; k++)
        r->array.sum[k + 1] = plus(r->array.sum[k], g->rule[r->array.prefix[k]].start.len + 1);
    r->array.need = r->start.need;
    return true;
}

static int compare_keys(struct span a, struct span b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = memcmp(a.data, b.data, n);

    return c ? c : a.size < b.size ? -1 : a.size > b.size;
}

/* By merging: qsort would need a variable that all threads share. */
static void sort_keys(const struct property *property, uint32_t *index, uint32_t *scratch, uint32_t count)
{
    uint32_t half = count / 2, a = 0, b = half, at = 0;

    if (count < 2)
        return;
    sort_keys(property, index, scratch, half);
    sort_keys(property, index + half, scratch, count - half);
    while (a < half && b < count)
        scratch[at++] =
            compare_keys(property[index[a]].key, property[index[b]].key) <= 0 ? index[a++] : index[b++];
    while (a < half)
        scratch[at++] = index[a++];
    while (b < count)
        scratch[at++] = index[b++];
    memcpy(index, scratch, count * sizeof *index);
}

/* Breadth first, so that a node's children stand together. */
static void grow_keys(struct object_rule *o)
{
    uint32_t children = 0;

    o->node[o->node_count++] = (struct key_node){ 0, o->count, 0, 0, 0, -1 };
    for (uint32_t i = 0; i < o->node_count; i++) {
        struct key_node *n = &o->node[i];

        n->child_from = children;
        for (uint32_t k = n->from, to; k < n->to; k = to) {
            struct span key = o->property[o->key_sorted[k]].key;
            uint8_t byte;

            to = k + 1;
            if (key.size == n->depth) {
                n->property = (int32_t)o->key_sorted[k];
                continue;
            }
            byte = key.data[n->depth];
            while (to < n->to && o->property[o->key_sorted[to]].key.data[n->depth] == byte)
                to++;
            o->key_child[children++] = (struct key_child){ o->node_count, byte };
            o->node[o->node_count++] = (struct key_node){ k, to, n->depth + 1, 0, 0, -1 };
        }
        n->child_to = children;
    }
}

/* Of equals the greater need: then either way has room on the stack. */
static struct reach nearer(struct reach a, struct reach b)
{
    return b.len < a.len || (b.len == a.len && b.need > a.need) ? b : a;
}

static bool finish_object(const struct grammar *g, struct object_rule *o, struct err *err)
{
    const struct reach none = { GRAMMAR_FAR, 0 };
    size_t bytes = 1, n = o->count;
    uint32_t *scratch = malloc((n + 1) * sizeof *scratch);
    struct reach other = none;

    for (uint32_t i = 0; i < n; i++) {
        o->property[i].usable = rule_is_usable(g, o->property[i].value);
        bytes += o->property[i].key.size;
    }
    o->key_sorted = malloc((n + 1) * sizeof *o->key_sorted);
    o->required_next = malloc((n + 1) * sizeof *o->required_next);
    o->after = calloc(n + 1, sizeof *o->after);
    o->property_best = calloc(n + 1, sizeof *o->property_best);
    o->key_best = calloc(n + 1, sizeof *o->key_best);
    o->node = calloc(bytes, sizeof *o->node);
    o->key_child = calloc(bytes, sizeof *o->key_child);
    if (!scratch || !o->key_sorted || !o->required_next || !o->after || !o->property_best || !o->key_best ||
        !o->node || !o->key_child) {
        free(scratch);
        return err_set(err, ERR_IO, "out of memory");
    }
    for (uint32_t i = 0; i < n; i++)
        o->key_sorted[i] = i;
    sort_keys(o->property, o->key_sorted, scratch, (uint32_t)n);
    free(scratch);
    for (uint32_t i = 1; i < n; i++)
        if (span_equal(o->property[o->key_sorted[i - 1]].key, o->property[o->key_sorted[i]].key)) {
            struct span key = o->property[o->key_sorted[i]].key;

            return err_set(err, ERR_INPUT, "the key %.*s stands twice in an object",
                           key.size > 80 ? 80 : (int)key.size, (const char *)key.data);
        }
    grow_keys(o);
    if (o->other_value && rule_is_usable(g, o->other_value) &&
        o->other.far[o->other.dfa->start] != UINT32_MAX) {
        o->other_len = (uint64_t)g->rule[o->other_value].start.len + 2;
        o->other_need = g->rule[o->other_value].start.need + 1;
        other = (struct reach){ o->other.far[o->other.dfa->start] + o->other_len, o->other_need };
    } else {
        o->other_value = 0;
    }
    o->required_next[n] = (uint32_t)n;
    o->after[n] = (struct reach){ 1, 0 };
    o->property_best[n] = none;
    o->key_best[n] = other;
    for (uint32_t i = (uint32_t)n; i-- > 0;) {
        const struct property *p = &o->property[i];
        const struct reach *value = &g->rule[p->value].start;
        struct reach with = none;

        if (p->usable) {
            with.len = plus(p->key.size + 1 + value->len, o->after[i + 1].len);
            with.need = most(value->need + 1, o->after[i + 1].need);
        }
        o->required_next[i] = p->required ? i : o->required_next[i + 1];
        o->property_best[i] = p->required ? with : nearer(with, o->property_best[i + 1]);
        o->key_best[i] = p->required ? with : nearer(with, o->key_best[i + 1]);
        o->after[i] = o->required_next[i] == n
                          ? (struct reach){ 1, 0 }
                          : (struct reach){ plus(o->key_best[i].len, 1), o->key_best[i].need };
    }
    return true;
}

/* How many ways a choice opens at once, through choices within choices; what leads back to itself opens
 * nothing new.  A path instead of recursion: they may be nested as deep as there are nodes. */
static bool check_choices(const struct grammar *g, struct err *err)
{
    enum { UNSEEN = -1, BUSY = 0 };
    struct visit {
        uint32_t rule, next;
        int32_t open;
    } *path = malloc(g->rule_count * sizeof *path);
    int32_t *open = malloc(g->rule_count * sizeof *open);
    uint32_t depth = 0;
    bool ok = open && path;

    if (!ok)
        err_set(err, ERR_IO, "out of memory");
    for (uint32_t i = 0; ok && i < g->rule_count; i++)
        open[i] = g->rule[i].kind == RULE_CHOICE ? UNSEEN : 1;
    for (uint32_t i = 1; ok && i < g->rule_count; i++) {
        if (open[i] == UNSEEN)
            path[depth++] = (struct visit){ i, 0, open[i] = BUSY };
        while (ok && depth > 0) {
            struct visit *v = &path[depth - 1];
            const struct rule *r = &g->rule[v->rule];
            uint32_t branch;

            if (v->next == r->list.count) {
                open[v->rule] = v->open;
                depth--;
                continue;
            }
            branch = r->list.part[v->next];
            if (rule_is_usable(g, branch) && open[branch] == UNSEEN) {
                path[depth++] = (struct visit){ branch, 0, open[branch] = BUSY };
                continue; /* and then again, when its count is known */
            }
            v->open += rule_is_usable(g, branch) ? open[branch] : 0;
            v->next++;
            if (v->open > GRAMMAR_PATHS_MAX)
                ok = err_set(err, ERR_LIMIT,
                             "a choice of more than %d, which is as many as can be open at once",
                             GRAMMAR_PATHS_MAX);
        }
    }
    free(open);
    free(path);
    return ok;
}

static bool finish(struct grammar *g, struct err *err)
{
    for (uint32_t i = 1; i < g->rule_count; i++) {
        struct rule *r = &g->rule[i];
        bool ok = true;

        if (r->kind == RULE_OBJECT && !finish_object(g, &r->object, err))
            return false;
        if (r->kind == RULE_SEQUENCE)
            ok = finish_sequence(g, r);
        else if (r->kind == RULE_ARRAY)
            ok = finish_array(g, r);
        if (!ok)
            return err_set(err, ERR_IO, "out of memory");
    }
    return check_choices(g, err);
}

/* Every byte that a text can have; a few too many do no harm but to speed. */
static void note_regular(const struct regular *r, bool used[256])
{
    bool class[256] = { false };

    for (uint32_t s = 1; s < r->dfa->count; s++)
        for (uint32_t c = 0; c < r->dfa->classes && c < 256; c++)
            if (!class[c]) {
                uint32_t t = r->dfa->next[(size_t)s * r->dfa->classes + c];

                class[c] = t != 0 && r->far[t] != UINT32_MAX;
            }
    for (int b = 0; b < 256; b++)
        used[b] |= class[r->dfa->class_of[b]];
}

static bool is_spelled(const struct grammar *g)
{
    bool used[256] = { false }, ok = true;

    for (uint32_t i = 1; i < g->rule_count; i++) {
        const struct rule *r = &g->rule[i];

        if (r->kind == RULE_LITERAL)
            for (uint32_t k = 0; k < r->literal.size; k++)
                used[r->literal.bytes[k]] = true;
        if (r->kind == RULE_REGULAR)
            note_regular(&r->regular, used);
        if (r->kind == RULE_STRING)
            for (int b = 0x20; b < 0xf5; b++)
                used[b] |= b != 0xc0 && b != 0xc1;
        if (r->kind == RULE_ARRAY || r->kind == RULE_OBJECT)
            for (const char *p = "[]{},:"; *p; p++)
                used[(uint8_t)*p] = true;
        if (r->kind == RULE_OBJECT) {
            for (uint32_t k = 0; k < r->object.count; k++)
                for (size_t at = 0; at < r->object.property[k].key.size; at++)
                    used[r->object.property[k].key.data[at]] = true;
            if (r->object.other_value)
                note_regular(&r->object.other, used);
        }
    }
    for (int b = 0; b < 256; b++)
        ok &= !used[b] || g->vocabulary->single[b];
    return ok;
}

/* ---- the whole ---------------------------------------------------------------------------------- */

static bool compile(struct grammar *g, struct err *err)
{
    const struct reach *start;

    for (uint32_t i = 1; i < g->rule_count; i++) {
        struct rule *r = &g->rule[i];
        bool ok = true;

        if (r->kind == RULE_CHOICE && r->list.reserved && !r->list.defined)
            return err_set(err, ERR_INPUT, "a part of the grammar was reserved and never defined");
        if (r->kind == RULE_REGULAR)
            ok = read_regular(&r->regular);
        else if (r->kind == RULE_OBJECT && r->object.other.dfa)
            ok = read_regular(&r->object.other);
        if (!ok)
            return err_set(err, ERR_IO, "out of memory");
    }
    if (!resolve(g) || !read_lengths(g->rule, g->rule_count))
        return err_set(err, ERR_IO, "out of memory");
    start = &g->rule[g->root].start;
    if (start->len == GRAMMAR_FAR)
        return err_set(err, ERR_INPUT, "no finite text fits");
    if (start->len > GRAMMAR_ENDING_MAX)
        return err_set(err, ERR_LIMIT, "the shortest text that fits has %llu bytes, at most %d are possible",
                       (unsigned long long)start->len, GRAMMAR_ENDING_MAX);
    if (start->need > GRAMMAR_DEPTH_MAX)
        return err_set(err, ERR_LIMIT,
                       "the shortest text that fits is nested %u deep, at most %d are possible", start->need,
                       GRAMMAR_DEPTH_MAX);
    if (!finish(g, err))
        return false;
    g->spelled = is_spelled(g);
    if (!runs_begin(g))
        return err_set(err, ERR_IO, "out of memory");
    if (g->start == g->dead)
        return err_set(err, ERR_LIMIT, "more than %d ways are open at the beginning", PLACE_WORK_MAX);
    g->minimum = place_minimum(g, g->start);
    if (g->minimum == INT32_MAX && !g->failed)
        return err_set(err, ERR_INPUT, "no text that fits can be written with this tokenizer's tokens");
    return !g->failed || err_set(err, ERR_IO, "out of memory");
}

bool grammar_build(struct grammar **grammar, struct grammar_builder *builder, grammar_node root,
                   const struct vocabulary *vocabulary, struct err *err)
{
    struct grammar *g = calloc(1, sizeof *g);

    *grammar = NULL;
    if (!g)
        return err_set(err, ERR_IO, "out of memory");
    g->vocabulary = vocabulary;
    g->root = root;
    if (!builder_hand_over(builder, g, err) || !compile(g, err)) {
        grammar_free(g);
        return false;
    }
    *grammar = g;
    return true;
}

void grammar_free(struct grammar *g)
{
    if (!g)
        return;
    assert(!g->runs);
    runs_end(g);
    rules_free(g->rule, g->rule_count);
    free(g);
}

size_t grammar_bytes(const struct grammar *g)
{
    return sizeof *g + g->rule_bytes + g->pool_bytes;
}
