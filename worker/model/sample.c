#include "worker/model/sample.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    float logit;
    int32_t id;
};

struct sampler {
    const struct backend *backend;
    int vocab;
    struct candidate *heap; /* [vocab] */
    float *weight;          /* [vocab] */
    float *shaped;          /* [vocab] */
};

struct sampler *sampler_new(const struct backend *backend, int vocab)
{
    struct sampler *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    s->backend = backend;
    s->vocab = vocab;
    s->heap = malloc((size_t)vocab * sizeof *s->heap);
    s->weight = malloc((size_t)vocab * sizeof *s->weight);
    s->shaped = malloc((size_t)vocab * sizeof *s->shaped);
    if (!s->heap || !s->weight || !s->shaped) {
        sampler_free(s);
        return NULL;
    }
    return s;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    free(s->heap);
    free(s->weight);
    free(s->shaped);
    free(s);
}

/* ---- what is done to logits first -------------------------------------------------------------------- */

/* The place of id, or the empty one where it would stand. */
static struct sample_seen *history_at(const struct sample_history *h, int32_t id)
{
    uint32_t at = ((uint32_t)id * 0x9E3779B1u) & (h->room - 1);

    while (h->seen[at].id >= 0 && h->seen[at].id != id)
        at = (at + 1) & (h->room - 1);
    return &h->seen[at];
}

bool sample_history_add(struct sample_history *h, int32_t id, bool generated)
{
    struct sample_seen *seen;

    if (2 * (h->used + 1) > h->room) {
        struct sample_history wider = { .room = h->room ? 2 * h->room : 64, .used = h->used };

        wider.seen = malloc(wider.room * sizeof *wider.seen);
        if (!wider.seen)
            return false;
        for (uint32_t i = 0; i < wider.room; i++)
            wider.seen[i] = (struct sample_seen){ .id = -1 };
        for (uint32_t i = 0; i < h->room; i++)
            if (h->seen[i].id >= 0)
                *history_at(&wider, h->seen[i].id) = h->seen[i];
        free(h->seen);
        *h = wider;
    }
    seen = history_at(h, id);
    h->used += seen->id < 0;
    seen->id = id;
    seen->count += generated;
    return true;
}

void sample_history_fini(struct sample_history *h)
{
    free(h->seen);
    *h = (struct sample_history){ 0 };
}

/* Whole words first: nearly all of them are empty where a grammar is strict, and full where it is not. */
static void copy_masked(float *to, const float *from, int known, const uint64_t *mask)
{
    for (int i = 0; i < known; i += 64) {
        uint64_t word = mask[i / 64];
        int count = known - i < 64 ? known - i : 64;

        if (word == UINT64_MAX) {
            memcpy(to + i, from + i, (size_t)count * sizeof *to);
            continue;
        }
        for (int k = 0; k < count; k++)
            to[i + k] = -INFINITY;
        for (; word; word &= word - 1) {
            int k = __builtin_ctzll(word);

            if (k < count)
                to[i + k] = from[i + k];
        }
    }
}

static float penalised(float logit, uint32_t count, const struct sample_shape *shape, float repetition)
{
    logit = logit > 0 ? logit / repetition : logit * repetition;
    logit -= shape->frequency * (float)count;
    return count ? logit - shape->presence : logit;
}

const float *sample_shaped(struct sampler *s, const float *logits, int known,
                           const struct sample_shape *shape)
{
    float *to = s->shaped, repetition = shape->repetition > 0 ? shape->repetition : 1;

    if (!shape->mask && !shape->banned_count && !shape->bias_count && !shape->history)
        return logits;
    if (known > s->vocab)
        known = s->vocab;
    if (shape->mask)
        copy_masked(to, logits, known, shape->mask);
    else
        memcpy(to, logits, (size_t)known * sizeof *to);
    for (int i = 0; i < shape->beside_count; i++)
        if (shape->beside[i] < known)
            to[shape->beside[i]] = logits[shape->beside[i]];
    for (int i = 0; i < shape->banned_count; i++)
        if (shape->banned[i] < known)
            to[shape->banned[i]] = -INFINITY;
    for (size_t i = 0; i < shape->bias_count; i++)
        if (shape->bias[i].id < known)
            to[shape->bias[i].id] += shape->bias[i].bias;
    for (uint32_t i = 0; shape->history && i < shape->history->room; i++) {
        struct sample_seen seen = shape->history->seen[i];

        if (seen.id >= 0 && seen.id < known)
            to[seen.id] = penalised(to[seen.id], seen.count, shape, repetition);
    }
    return to;
}

/* ---- draws ------------------------------------------------------------------------------------------- */

/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011). */
static void philox(uint32_t counter[4], uint32_t key[2])
{
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53 * counter[0], b = (uint64_t)0xCD9E8D57 * counter[2];
        uint32_t next[4] = { (uint32_t)(b >> 32) ^ counter[1] ^ key[0], (uint32_t)b,
                             (uint32_t)(a >> 32) ^ counter[3] ^ key[1], (uint32_t)a };

        memcpy(counter, next, sizeof next);
        key[0] += 0x9E3779B9;
        key[1] += 0xBB67AE85;
    }
}

double sample_uniform(uint64_t seed, uint32_t choice, uint32_t position)
{
    uint32_t counter[4] = { position, choice, 0, 0 }, key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };

    philox(counter, key);
    /* 52 bits, and half a step up: never 0, never 1 */
    return ((double)((uint64_t)counter[0] << 20 | counter[1] >> 12) + 0.5) * 0x1p-52;
}

static bool before(struct candidate a, struct candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sift_down(struct candidate *heap, int count, int i)
{
    struct candidate moving = heap[i];

    for (;;) {
        int child = 2 * i + 1;

        if (child >= count)
            break;
        if (child + 1 < count && before(heap[child + 1], heap[child]))
            child++;
        if (!before(heap[child], moving))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}

/* The best candidates come off one at a time: a top_p of a peaked distribution takes a few of many. */
static int heap_of(struct sampler *s, const float *logits, int known, float floor)
{
    int count = 0;

    for (int i = 0; i < known; i++)
        if (isfinite(logits[i]) && logits[i] >= floor)
            s->heap[count++] = (struct candidate){ logits[i], i };
    for (int i = count / 2 - 1; i >= 0; i--)
        sift_down(s->heap, count, i);
    return count;
}

static struct candidate heap_take(struct sampler *s, int *count)
{
    struct candidate best = s->heap[0];

    s->heap[0] = s->heap[--*count];
    if (*count > 0)
        sift_down(s->heap, *count, 0);
    return best;
}

static int32_t greedy(const float *logits, int known)
{
    int32_t best = -1;

    for (int i = 0; i < known; i++)
        if (isfinite(logits[i]) && (best < 0 || logits[i] > logits[best]))
            best = i;
    return best;
}

/* The first index at which the running sum of weights passes share * total. */
static int pick(const float *weight, int count, double total, double share)
{
    double sum = 0;
    int last = 0;

    for (int i = 0; i < count; i++) {
        sum += weight[i];
        if (weight[i] > 0)
            last = i;
        if (sum > share * total)
            return i;
    }
    return last;
}

/* The logit that min_p asks for: exp((logit - best) / temperature) >= min_p. */
static float floor_of(const struct sample_params *p, float best)
{
    return p->min_p > 0 ? best + p->temperature * (float)backend_log(p->min_p) : -INFINITY;
}

/* Without other filters than min_p: ids in their own order. */
static int32_t draw_all(struct sampler *s, const float *logits, int known, float best,
                        const struct sample_params *p, double share)
{
    float floor = floor_of(p, best);
    double total = 0;

    for (int i = 0; i < known; i++)
        s->weight[i] =
            isfinite(logits[i]) && logits[i] >= floor ? (logits[i] - best) / p->temperature : -INFINITY;
    s->backend->exp_sum(s->weight, known, 0);
    for (int i = 0; i < known; i++)
        total += s->weight[i];
    return pick(s->weight, known, total, share);
}

/* With top_k or top_p: the best first.  What has been taken stands at the end of the heap's array, in the
 * places that taking has freed, latest first. */
static int32_t draw_filtered(struct sampler *s, const float *logits, int known, float best,
                             const struct sample_params *p, double share)
{
    int count = heap_of(s, logits, known, floor_of(p, best)), left = count, kept = 0, limit = count;
    double total = 0, sum = 0;

    if (p->top_k > 0 && p->top_k < count)
        limit = p->top_k; /* then all of them are taken, and top_p is a share of these */
    else
        for (int i = 0; i < count; i++)
            total += s->backend->exp((s->heap[i].logit - best) / p->temperature);
    while (kept < limit && (kept == 0 || limit < count || sum < p->top_p * total || p->top_p >= 1)) {
        struct candidate taken = heap_take(s, &left);

        s->heap[left] = taken;
        s->weight[kept] = s->backend->exp((taken.logit - best) / p->temperature);
        sum += s->weight[kept++];
    }
    if (limit < count && p->top_p < 1) {
        total = sum;
        sum = 0;
        for (kept = 0; kept < limit && (kept == 0 || sum < p->top_p * total); kept++)
            sum += s->weight[kept];
    }
    return s->heap[count - 1 - pick(s->weight, kept, sum, share)].id;
}

int32_t sample_token(struct sampler *s, const float *logits, int known, const struct sample_params *p,
                     uint32_t position)
{
    double share;
    int32_t best;

    if (known > s->vocab)
        known = s->vocab;
    best = greedy(logits, known);
    if (best < 0 || p->temperature <= 0)
        return best;
    share = sample_uniform(p->seed, p->choice, position);
    if ((p->top_k > 0 && p->top_k < known) || p->top_p < 1)
        return draw_filtered(s, logits, known, logits[best], p, share);
    return draw_all(s, logits, known, logits[best], p, share);
}

/* log(sum of exp(logit)) over all rows, as top + log(sum of exp(logit - top)).  Sums of 1024 in f32, those in
 * double. */
static double log_total(struct sampler *s, const float *logits, float top)
{
    enum { PART = 1024 };
    double total = 0;

    memcpy(s->weight, logits, (size_t)s->vocab * sizeof *logits);
    for (int i = 0; i < s->vocab; i += PART)
        total += s->backend->exp_sum(s->weight + i, s->vocab - i < PART ? s->vocab - i : PART, top);
    return top + backend_log(total);
}

float sample_logprobs(struct sampler *s, const float *logits, int32_t token, struct sample_logprob *top,
                      int top_count)
{
    double total;
    int count = 0;
    int32_t best = greedy(logits, s->vocab);

    assert(token >= 0 && token < s->vocab && top_count >= 0 && top_count <= SAMPLE_TOP_LOGPROBS_MAX);
    if (best < 0) { /* no distribution: the caller has failed the request */
        for (int i = 0; i < top_count; i++)
            top[i] = (struct sample_logprob){ i, -INFINITY };
        return -INFINITY;
    }
    total = log_total(s, logits, logits[best]);
    /* Insertion into a short sorted list: nearly every id fails the first comparison. */
    for (int i = 0; i < s->vocab && top_count > 0; i++) {
        int at = count;

        if (count == top_count && !(logits[i] > top[count - 1].logprob))
            continue;
        for (; at > 0 && logits[i] > top[at - 1].logprob; at--)
            if (at < top_count)
                top[at] = top[at - 1];
        if (at < top_count)
            top[at] = (struct sample_logprob){ i, logits[i] };
        if (count < top_count)
            count++;
    }
    for (int i = 0; i < count; i++)
        top[i].logprob = (float)(top[i].logprob - total);
    for (int i = count; i < top_count; i++) /* more asked for than ids exist */
        top[i] = (struct sample_logprob){ -1, -INFINITY };
    return (float)(logits[token] - total);
}
