#include "worker/model/dfa.h"

#include <assert.h>
#include <stdlib.h>

#include "worker/model/dfa_build.h"

void dfa_free(struct dfa *dfa)
{
    if (!dfa)
        return;
    free(dfa->next);
    free(dfa->accepts);
    free(dfa);
}

struct dfa *dfa_copy(const struct dfa *dfa)
{
    struct dfa *copy = malloc(sizeof *copy);
    size_t cells = (size_t)dfa->count * dfa->classes;

    if (!copy)
        return NULL;
    *copy = *dfa;
    copy->next = malloc(cells * sizeof *copy->next);
    copy->accepts = malloc(dfa->count);
    if (!copy->next || !copy->accepts) {
        dfa_free(copy);
        return NULL;
    }
    memcpy(copy->next, dfa->next, cells * sizeof *copy->next);
    memcpy(copy->accepts, dfa->accepts, dfa->count);
    return copy;
}

bool dfa_matches(const struct dfa *dfa, struct span bytes)
{
    uint32_t state = dfa->start;

    for (size_t i = 0; i < bytes.size && state != 0; i++)
        state = dfa_step(dfa, state, bytes.data[i]);
    return dfa->accepts[state];
}

bool dfa_equal(const struct dfa *a, const struct dfa *b)
{
    return a->count == b->count && a->classes == b->classes &&
           memcmp(a->class_of, b->class_of, sizeof a->class_of) == 0 &&
           memcmp(a->accepts, b->accepts, a->count) == 0 &&
           memcmp(a->next, b->next, (size_t)a->count * a->classes * sizeof a->next[0]) == 0;
}

/* ---- steps ------------------------------------------------------------------------------------------ */

static _Thread_local uint64_t all_steps;

uint64_t dfa_steps(void)
{
    return all_steps;
}

void dfa_count_steps(uint64_t steps)
{
    all_steps += steps;
}

bool dfa_spend(uint64_t *work, uint64_t steps, struct err *err)
{
    *work += steps;
    all_steps += steps;
    return *work <= DFA_WORK_MAX || dfa_too_large(err);
}

/* ---- growing ---------------------------------------------------------------------------------------- */

bool dfa_no_memory(struct err *err)
{
    return err_set(err, ERR_IO, "no memory for an automaton");
}

bool dfa_too_large(struct err *err)
{
    return err_set(err, ERR_LIMIT, "its automaton would be too large (at most %d states)", DFA_STATES_MAX);
}

bool dfa_grow(void **array, size_t *capacity, size_t need, size_t size)
{
    size_t to = *capacity * 2;
    void *larger;

    if (need <= *capacity)
        return true;
    if (to < need)
        to = need < 64 ? 64 : need;
    if (!(larger = realloc(*array, to * size)))
        return false;
    *array = larger;
    *capacity = to;
    return true;
}

static uint64_t mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static bool words_rehash(struct dfa_words *words)
{
    size_t slots = words->slots == 0 ? 256 : words->slots * 2;
    uint32_t *slot = calloc(slots, sizeof *slot);

    if (!slot)
        return false;
    for (uint32_t id = 0; id < words->count; id++) {
        size_t size, at;
        const uint32_t *word = dfa_words_get(words, id, &size);
        uint64_t h = size;

        for (size_t i = 0; i < size; i++)
            h = mix(h, word[i]);
        for (at = h & (slots - 1); slot[at] != 0; at = (at + 1) & (slots - 1))
            ;
        slot[at] = id + 1;
    }
    free(words->slot);
    words->slot = slot;
    words->slots = slots;
    return true;
}

bool dfa_words_intern(struct dfa_words *words, const uint32_t *word, size_t size, uint32_t *id,
                      struct err *err)
{
    uint64_t h = size;
    size_t at;

    all_steps += size + 4;
    if (words->count * 2 >= words->slots && !words_rehash(words))
        return dfa_no_memory(err);
    for (size_t i = 0; i < size; i++)
        h = mix(h, word[i]);
    for (at = h & (words->slots - 1); words->slot[at] != 0; at = (at + 1) & (words->slots - 1)) {
        size_t other_size;
        const uint32_t *other = dfa_words_get(words, words->slot[at] - 1, &other_size);

        if (other_size == size && (size == 0 || memcmp(other, word, size * sizeof *word) == 0)) {
            *id = words->slot[at] - 1;
            return true;
        }
    }
    if (words->count >= DFA_RAW_STATES_MAX || words->pool_size + size > DFA_POOL_MAX)
        return dfa_too_large(err);
    if (!dfa_grow((void **)&words->pool, &words->pool_capacity, words->pool_size + size + 1,
                  sizeof *words->pool) ||
        !dfa_grow((void **)&words->end, &words->end_capacity, words->count + 1, sizeof *words->end))
        return dfa_no_memory(err);
    if (size != 0)
        memcpy(words->pool + words->pool_size, word, size * sizeof *word);
    words->pool_size += size;
    words->end[words->count] = words->pool_size;
    words->slot[at] = (uint32_t)++words->count;
    *id = (uint32_t)words->count - 1;
    return true;
}

void dfa_words_fini(struct dfa_words *words)
{
    free(words->pool);
    free(words->end);
    free(words->slot);
    *words = (struct dfa_words){ 0 };
}

bool dfa_raw_states(struct dfa_raw *raw, uint32_t count, struct err *err)
{
    assert(count >= raw->count);
    if (count > DFA_RAW_STATES_MAX)
        return dfa_too_large(err);
    if (!dfa_grow((void **)&raw->accepts, &raw->accepts_capacity, count, sizeof *raw->accepts))
        return dfa_no_memory(err);
    if (count > raw->count)
        memset(raw->accepts + raw->count, 0, count - raw->count);
    raw->count = count;
    return true;
}

bool dfa_raw_edge(struct dfa_raw *raw, uint32_t from, uint32_t symbol, uint32_t to, struct err *err)
{
    if (raw->edge_count == DFA_RAW_EDGES_MAX)
        return dfa_too_large(err);
    if (!dfa_grow((void **)&raw->edge, &raw->edge_capacity, raw->edge_count + 1, sizeof *raw->edge))
        return dfa_no_memory(err);
    all_steps++;
    raw->edge[raw->edge_count++] = (struct dfa_edge){ .from = from, .to = to, .symbol = symbol };
    return true;
}

void dfa_raw_fini(struct dfa_raw *raw)
{
    free(raw->accepts);
    free(raw->edge);
    *raw = (struct dfa_raw){ 0 };
}

/* ---- minimising ------------------------------------------------------------------------------------- */

/* Edges by one of their ends: those of state s are list[first[s]] up to list[first[s + 1]], in the order they
 * stand. */
struct adjacent {
    uint32_t *first, *list;
};

static void adjacent_fini(struct adjacent *adjacent)
{
    free(adjacent->first);
    free(adjacent->list);
}

static bool adjacent_init(struct adjacent *adjacent, const struct dfa_raw *raw, bool by_head)
{
    uint32_t *first = calloc((size_t)raw->count + 2, sizeof *first);
    uint32_t *list = malloc((raw->edge_count + 1) * sizeof *list);

    *adjacent = (struct adjacent){ .first = first, .list = list };
    if (!first || !list)
        return false;
    for (size_t i = 0; i < raw->edge_count; i++)
        first[(by_head ? raw->edge[i].to : raw->edge[i].from) + 2]++;
    for (uint32_t s = 0; s < raw->count; s++)
        first[s + 2] += first[s + 1];
    for (size_t i = 0; i < raw->edge_count; i++) /* each first[s + 1] moves from the begin of s to its end */
        list[first[(by_head ? raw->edge[i].to : raw->edge[i].from) + 1]++] = (uint32_t)i;
    return true;
}

/* Marks what can be reached from the marked states; queue holds them, with room for all. */
static void spread(const struct dfa_raw *raw, const struct adjacent *adjacent, bool by_head, uint8_t *mark,
                   uint32_t *queue, uint32_t count)
{
    for (uint32_t at = 0; at < count; at++)
        for (uint32_t i = adjacent->first[queue[at]]; i < adjacent->first[queue[at] + 1]; i++) {
            const struct dfa_edge *edge = &raw->edge[adjacent->list[i]];
            uint32_t other = by_head ? edge->from : edge->to;

            if (!mark[other]) {
                mark[other] = 1;
                queue[count++] = other;
            }
        }
}

/* Renumbers: state s becomes to[s], or goes with its edges where that is DFA_NONE.  Where several become one,
 * their edges must agree, and keep[s] says whose stay (NULL: all). */
static void renumber(struct dfa_raw *raw, const uint32_t *to, uint32_t count, const uint8_t *keep)
{
    size_t kept = 0;

    for (size_t i = 0; i < raw->edge_count; i++) {
        struct dfa_edge edge = raw->edge[i];

        if (to[edge.from] != DFA_NONE && to[edge.to] != DFA_NONE && (!keep || keep[edge.from]))
            raw->edge[kept++] = (struct dfa_edge){ to[edge.from], to[edge.to], edge.symbol };
    }
    raw->edge_count = kept;
    raw->count = count;
}

static bool trim(struct dfa_raw *raw, struct err *err)
{
    struct adjacent out = { 0 }, in = { 0 };
    uint8_t *reached = calloc((size_t)raw->count + 1, 1), *ends = calloc((size_t)raw->count + 1, 1);
    uint32_t *queue = malloc(((size_t)raw->count + 1) * sizeof *queue), count = 0;
    bool ok = reached && ends && queue && adjacent_init(&out, raw, false) && adjacent_init(&in, raw, true);

    if (ok && raw->count > 0) {
        reached[0] = 1;
        queue[0] = 0;
        spread(raw, &out, false, reached, queue, 1);
        for (uint32_t s = 0; s < raw->count; s++)
            if (raw->accepts[s]) {
                ends[s] = 1;
                queue[count++] = s;
            }
        spread(raw, &in, true, ends, queue, count);
        count = 0;
        for (uint32_t s = 0; s < raw->count; s++) {
            queue[s] = reached[s] && ends[s] ? count : DFA_NONE;
            if (queue[s] != DFA_NONE)
                raw->accepts[count++] = raw->accepts[s];
        }
        renumber(raw, queue, count, NULL); /* the start is 0 still: where it goes, all go */
    }
    adjacent_fini(&out);
    adjacent_fini(&in);
    free(reached);
    free(ends);
    free(queue);
    return ok || dfa_no_memory(err);
}

/* A partition that can be refined: the elements of part p are element[first[p]] up to element[past[p]]; the
 * marked ones stand in front.  (A. Valmari, "Fast brief practical DFA minimization", 2012: Hopcroft's
 * algorithm for partial automata, in time of the edges that there are, whatever the alphabet.) */
struct partition {
    uint32_t count;
    uint32_t *element, *place, *part_of, *first, *past, *marked, *touched;
    uint32_t touched_count;
};

static bool partition_init(struct partition *p, size_t elements)
{
    size_t room = elements + 1;

    *p = (struct partition){ 0 };
    /* One block of memory for the seven arrays. */
    p->element = calloc(room * 7, sizeof *p->element);
    if (!p->element)
        return false;
    p->place = p->element + room;
    p->part_of = p->place + room;
    p->first = p->part_of + room;
    p->past = p->first + room;
    p->marked = p->past + room;
    p->touched = p->marked + room;
    for (uint32_t i = 0; i < elements; i++)
        p->element[i] = p->place[i] = i;
    p->count = elements > 0;
    p->past[0] = (uint32_t)elements;
    return true;
}

static void partition_fini(struct partition *p)
{
    free(p->element);
}

static void partition_mark(struct partition *p, uint32_t element)
{
    uint32_t part = p->part_of[element], from = p->place[element], to = p->first[part] + p->marked[part];

    p->element[from] = p->element[to];
    p->place[p->element[from]] = from;
    p->element[to] = element;
    p->place[element] = to;
    if (p->marked[part]++ == 0)
        p->touched[p->touched_count++] = part;
}

/* Every touched part loses its smaller half, marked or not, to a new part. */
static void partition_split(struct partition *p)
{
    while (p->touched_count > 0) {
        uint32_t part = p->touched[--p->touched_count], middle = p->first[part] + p->marked[part],
                 more = p->count;

        if (middle == p->past[part]) {
            p->marked[part] = 0;
            continue;
        }
        if (p->marked[part] <= p->past[part] - middle) {
            p->first[more] = p->first[part];
            p->past[more] = p->first[part] = middle;
        } else {
            p->past[more] = p->past[part];
            p->first[more] = p->past[part] = middle;
        }
        for (uint32_t i = p->first[more]; i < p->past[more]; i++)
            p->part_of[p->element[i]] = more;
        p->marked[part] = p->marked[more] = 0;
        p->count++;
    }
}

/* One part for each symbol that occurs. */
static bool split_by_symbol(struct partition *edges, const struct dfa_raw *raw, uint32_t symbols)
{
    size_t *first = calloc((size_t)symbols + 1, sizeof *first);

    if (!first)
        return false;
    for (size_t i = 0; i < raw->edge_count; i++)
        first[raw->edge[i].symbol + 1]++;
    edges->count = 0;
    for (uint32_t s = 0; s < symbols; s++) {
        first[s + 1] += first[s];
        if (first[s + 1] != first[s]) {
            edges->first[edges->count] = (uint32_t)first[s];
            edges->past[edges->count++] = (uint32_t)first[s + 1];
        }
    }
    for (size_t i = 0; i < raw->edge_count; i++) {
        size_t at = first[raw->edge[i].symbol]++;

        edges->element[at] = (uint32_t)i;
        edges->place[i] = (uint32_t)at;
    }
    for (uint32_t part = 0; part < edges->count; part++)
        for (uint32_t i = edges->first[part]; i < edges->past[part]; i++)
            edges->part_of[edges->element[i]] = part;
    free(first);
    return true;
}

bool dfa_raw_minimise(struct dfa_raw *raw, uint32_t symbols, struct err *err)
{
    struct adjacent in = { 0 };
    struct partition states = { 0 }, edges = { 0 };
    uint8_t *keep = NULL, *accepts = NULL;
    bool ok;

    dfa_count_steps(4 * (raw->edge_count + raw->count));
    if (!trim(raw, err))
        return false;
    if (raw->count == 0)
        return true;
    keep = calloc(raw->count, 1);
    accepts = calloc(raw->count, 1);
    ok = keep && accepts && adjacent_init(&in, raw, true) && partition_init(&states, raw->count) &&
         partition_init(&edges, raw->edge_count) && split_by_symbol(&edges, raw, symbols);
    if (ok) {
        uint32_t done_states = 1, done_edges = 0, swap;

        for (uint32_t s = 0; s < raw->count; s++)
            if (raw->accepts[s])
                partition_mark(&states, s);
        partition_split(&states);
        while (done_edges < edges.count) {
            for (uint32_t i = edges.first[done_edges]; i < edges.past[done_edges]; i++)
                partition_mark(&states, raw->edge[edges.element[i]].from);
            partition_split(&states);
            done_edges++;
            for (; done_states < states.count; done_states++) {
                for (uint32_t i = states.first[done_states]; i < states.past[done_states]; i++) {
                    uint32_t head = states.element[i];

                    for (uint32_t j = in.first[head]; j < in.first[head + 1]; j++)
                        partition_mark(&edges, in.list[j]);
                }
                partition_split(&edges);
            }
        }
        /* Parts become states, that of the start becomes 0. */
        swap = states.part_of[0];
        for (uint32_t s = 0; s < raw->count; s++) {
            uint32_t part = states.part_of[s];

            keep[s] = states.place[s] == states.first[part];
            states.part_of[s] = part == swap ? 0 : part == 0 ? swap : part;
            accepts[states.part_of[s]] = raw->accepts[s];
        }
        memcpy(raw->accepts, accepts, states.count);
        renumber(raw, states.part_of, states.count, keep);
    }
    adjacent_fini(&in);
    partition_fini(&states);
    partition_fini(&edges);
    free(keep);
    free(accepts);
    return ok || dfa_no_memory(err);
}

/* ---- the canonical form ----------------------------------------------------------------------------- */

/* Symbols with the same edges become one: merged[symbol] is the least of them.  An edge is (from, to); those
 * of one symbol are put in order of from, so equal means equal bytes. */
static bool merge_symbols(const struct dfa_raw *raw, const struct adjacent *out, uint32_t symbols,
                          uint32_t *merged)
{
    size_t *first = calloc((size_t)symbols + 2, sizeof *first);
    uint64_t *pair = malloc((raw->edge_count + 1) * sizeof *pair), hash[256];

    if (!first || !pair) {
        free(first);
        free(pair);
        return false;
    }
    for (size_t i = 0; i < raw->edge_count; i++)
        first[raw->edge[i].symbol + 2]++;
    for (uint32_t s = 0; s < symbols; s++)
        first[s + 2] += first[s + 1];
    for (size_t i = 0; i < raw->edge_count; i++) {
        const struct dfa_edge *edge = &raw->edge[out->list[i]];

        pair[first[edge->symbol + 1]++] = (uint64_t)edge->from << 32 | edge->to;
    }
    for (uint32_t s = 0; s < symbols; s++) {
        size_t size = first[s + 1] - first[s];

        hash[s] = size;
        for (size_t i = first[s]; i < first[s + 1]; i++)
            hash[s] = mix(hash[s], pair[i]);
        merged[s] = s;
        for (uint32_t t = 0; t < s; t++)
            if (merged[t] == t && hash[t] == hash[s] && first[t + 1] - first[t] == size &&
                (size == 0 || memcmp(pair + first[t], pair + first[s], size * sizeof *pair) == 0)) {
                merged[s] = t;
                break;
            }
    }
    free(first);
    free(pair);
    return true;
}

static struct dfa *new_table(uint32_t count, uint32_t classes)
{
    struct dfa *dfa = calloc(1, sizeof *dfa);

    if (!dfa)
        return NULL;
    dfa->count = count;
    dfa->start = count > 1;
    dfa->classes = classes;
    dfa->next = calloc((size_t)count * classes, sizeof *dfa->next);
    dfa->accepts = calloc(count, 1);
    if (!dfa->next || !dfa->accepts) {
        dfa_free(dfa);
        return NULL;
    }
    return dfa;
}

/* Fills in the states in the order a walk meets them, classes in order of their least byte. */
static void number_states(struct dfa *dfa, const struct dfa_raw *raw, const struct adjacent *out,
                          const uint8_t *class_of_symbol, uint32_t *number, uint32_t *queue)
{
    uint32_t count = 1;

    for (uint32_t s = 0; s < raw->count; s++)
        number[s] = 0;
    queue[0] = 0;
    number[0] = 1;
    for (uint32_t at = 0; at < count; at++) {
        uint32_t state = queue[at], *row = dfa->next + (size_t)number[state] * dfa->classes;

        dfa->accepts[number[state]] = raw->accepts[state];
        for (uint32_t i = out->first[state]; i < out->first[state + 1]; i++) {
            const struct dfa_edge *edge = &raw->edge[out->list[i]];

            row[class_of_symbol[edge->symbol]] = edge->to + 1; /* 0 is none; renumbered below */
        }
        for (uint32_t c = 0; c < dfa->classes; c++)
            if (row[c] != 0) {
                uint32_t to = row[c] - 1;

                if (number[to] == 0) {
                    queue[count] = to;
                    number[to] = ++count;
                }
                row[c] = number[to];
            }
    }
    assert(count == raw->count);
}

bool dfa_raw_finish(struct dfa **out, struct dfa_raw *raw, const uint8_t class_of[256], uint32_t symbols,
                    struct err *err)
{
    return dfa_raw_minimise(raw, symbols, err) && dfa_raw_number(out, raw, class_of, symbols, err);
}

bool dfa_raw_number(struct dfa **out, const struct dfa_raw *raw, const uint8_t class_of[256],
                    uint32_t symbols, struct err *err)
{
    struct adjacent by_tail = { 0 };
    struct dfa *dfa = NULL;
    uint32_t merged[256], classes = 0, *number = NULL;
    uint8_t class_of_symbol[256] = { 0 };
    bool seen[256] = { false }, ok = false;

    assert(symbols <= 256);
    if (raw->count + 1 > DFA_STATES_MAX)
        return dfa_too_large(err);
    if (raw->count == 0) {
        if (!(*out = new_table(1, 1)))
            return dfa_no_memory(err);
        return true;
    }
    number = malloc((size_t)raw->count * 2 * sizeof *number);
    if (!number || !adjacent_init(&by_tail, raw, false) || !merge_symbols(raw, &by_tail, symbols, merged)) {
        dfa_no_memory(err);
        goto out;
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t symbol = merged[class_of[byte]];

        if (!seen[symbol]) {
            seen[symbol] = true;
            class_of_symbol[symbol] = (uint8_t)classes++;
        }
    }
    for (uint32_t s = 0; s < symbols; s++)
        class_of_symbol[s] = class_of_symbol[merged[s]];
    if ((uint64_t)(raw->count + 1) * classes > DFA_CELLS_MAX) {
        dfa_too_large(err);
        goto out;
    }
    if (!(dfa = new_table(raw->count + 1, classes))) {
        dfa_no_memory(err);
        goto out;
    }
    for (unsigned byte = 0; byte < 256; byte++)
        dfa->class_of[byte] = class_of_symbol[class_of[byte]];
    number_states(dfa, raw, &by_tail, class_of_symbol, number, number + raw->count);
    *out = dfa;
    ok = true;
out:
    adjacent_fini(&by_tail);
    free(number);
    return ok;
}
