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
    if (!s->heap || !s->weight) {
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
    free(s);
}

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
static int heap_of(struct sampler *s, const float *logits, int known)
{
    int count = 0;

    for (int i = 0; i < known; i++)
        if (isfinite(logits[i]))
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

/* Without filters: ids in their own order. */
static int32_t draw_all(struct sampler *s, const float *logits, int known, float best, float temperature,
                        double share)
{
    double total = 0;

    for (int i = 0; i < known; i++)
        s->weight[i] = isfinite(logits[i]) ? (logits[i] - best) / temperature : -INFINITY;
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
    int count = heap_of(s, logits, known), left = count, kept = 0, limit = count;
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
    return draw_all(s, logits, known, logits[best], p->temperature, share);
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
