/* route - which experts a row goes to, and with what weight.
 *
 * Logits in f32 from the unrounded norm; a softmax over all experts; the k best, or the k best of the
 * best groups.  Ties go to the lowest index, so the choice is a function of the scores alone. */

#include <assert.h>
#include <string.h>

#include "worker/model/inside.h"

/* The largest value among those not taken; -1 when none is left.  Lowest index on a tie. */
static int best_of(const float *value, const bool *out, int count)
{
    int best = -1;

    for (int i = 0; i < count; i++)
        if (!out[i] && (best < 0 || value[i] > value[best]))
            best = i;
    return best;
}

/* score: [E] after the softmax; choice: [k], ascending by expert. */
void route_choose(const struct model_config *c, const float *score, struct forward_choice *choice)
{
    bool out[CONFIG_EXPERTS_MAX], chosen[CONFIG_EXPERTS_MAX];
    int k = c->experts_per_token, each = c->experts / c->groups, n = 0;
    float sum = 0;

    memset(out, 0, (size_t)c->experts);
    memset(chosen, 0, (size_t)c->experts);
    if (c->topk_method == TOPK_GROUP_LIMITED) {
        bool kept[CONFIG_SHARDS_MAX] = { false };
        float group[CONFIG_SHARDS_MAX];

        for (int g = 0; g < c->groups; g++) {
            group[g] = score[g * each];
            for (int e = 1; e < each; e++)
                group[g] = score[g * each + e] > group[g] ? score[g * each + e] : group[g];
        }
        for (int i = 0; i < c->topk_groups; i++)
            kept[best_of(group, kept, c->groups)] = true;
        for (int e = 0; e < c->experts; e++)
            out[e] = !kept[e / each];
    }
    for (int i = 0; i < k; i++) {
        int e = best_of(score, out, c->experts);

        out[e] = chosen[e] = true;
    }
    for (int e = 0; e < c->experts; e++)
        if (chosen[e]) {
            choice[n++] = (struct forward_choice){ (uint32_t)e, score[e] };
            sum += score[e];
        }
    assert(n == k);
    for (int i = 0; i < k; i++)
        choice[i].weight =
            c->norm_topk && k > 1 ? choice[i].weight / (sum + 1e-20f) : choice[i].weight * c->routed_scale;
}

struct route {
    struct forward *step;
    int block;
};

static void route_unit(void *context, int unit)
{
    const struct route *r = context;
    struct forward *s = r->step;
    const struct model_config *c = &s->model->config;
    const struct backend *b = s->model->backend;
    int from = unit * r->block, to = from + r->block < s->row_count ? from + r->block : s->row_count;

    for (int row = from; row < to; row++) {
        float *score = s->scores + (size_t)row * (size_t)c->experts;
        size_t at = (size_t)row * (size_t)c->hidden;

        b->scale(score, 1 / b->exp_sum(score, c->experts, b->max(score, c->experts)), c->experts);
        route_choose(c, score, s->choice + (size_t)row * (size_t)c->experts_per_token);
        b->narrow((char *)s->carried + at * model_carrier_bytes(s->model), model_carrier(s->model), s->u + at,
                  c->hidden);
    }
}

void forward_route(struct forward *s, int layer)
{
    const struct model_config *c = &s->model->config;
    const struct layer_weights *w = s->model->layer + layer;
    int64_t budget = INT64_MAX;
    struct route r = { .step = s };
    int units;

    assert(config_layer_is_moe(c, layer));
    forward_norm_rows(s, s->u, s->x, w->mlp_norm, s->row_count, c->hidden, c->norm_eps);
    while (!matmul_piece(s, &s->at, &budget, s->scores, (size_t)c->experts, s->u, (size_t)c->hidden,
                         s->row_count, &w->router, NULL))
        ;
    units = piece_units(s->model, s->row_count,
                        (int64_t)s->row_count * c->experts * (8 + c->experts_per_token), POOL_UNITS_MAX);
    r.block = (s->row_count + units - 1) / units;
    pool_run(s->model->pool, route_unit, &r, units);
}

const void *forward_carried(const struct forward *s)
{
    return s->carried;
}

const struct forward_choice *forward_choices(const struct forward *s)
{
    return s->choice;
}

int forward_pairs(const struct forward *s, const bool *shards, struct expert_pair *pairs, uint16_t *slot_row,
                  uint16_t *slot_shard, int *slot_count)
{
    const struct model_config *c = &s->model->config;
    int k = c->experts_per_token, slots = 0, count = 0, at[CONFIG_EXPERTS_MAX] = { 0 };

    /* A counting sort by expert: how many pairs each has, then where its first one goes. */
    for (int i = 0; i < s->row_count * k; i++)
        if (shards[s->choice[i].expert / (uint32_t)c->experts_per_shard])
            at[s->choice[i].expert]++;
    for (int e = 0; e < c->experts; e++) {
        int n = at[e];

        at[e] = count;
        count += n;
    }
    for (int row = 0; row < s->row_count; row++) {
        int last = -1;

        for (int i = 0; i < k; i++) {
            const struct forward_choice *choice = s->choice + (size_t)row * (size_t)k + i;
            int shard = (int)choice->expert / c->experts_per_shard;

            if (!shards[shard])
                continue;
            if (shard != last) { /* experts ascend, so shards do */
                slot_row[slots] = (uint16_t)row;
                slot_shard[slots++] = (uint16_t)shard;
                last = shard;
            }
            pairs[at[choice->expert]++] =
                (struct expert_pair){ (uint16_t)row, (uint16_t)(slots - 1), choice->expert, choice->weight };
        }
    }
    *slot_count = slots;
    return count;
}
