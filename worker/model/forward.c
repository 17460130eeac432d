/* forward - the step: its workspace, the stages that are not attention or routing, and the driver. */

#include "worker/model/forward.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/inside.h"

static int larger(int a, int b)
{
    return a > b ? a : b;
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* ---- the workspace ------------------------------------------------------------------------------ */

static bool take(void *pointer, size_t count, size_t size)
{
    void *memory = aligned_alloc(64, (count * size + 64) / 64 * 64);

    memcpy(pointer, &memory, sizeof memory); /* any kind of pointer */
    return memory != NULL;
}

static bool take_all(struct forward *s)
{
    const struct model_config *c = &s->model->config;
    size_t T = (size_t)s->rows_max, n = (size_t)c->heads, H = (size_t)c->hidden, f = sizeof(float);
    size_t inner = (size_t)larger(c->dense_inner, c->shared_experts * c->expert_inner);
    size_t k = (size_t)c->experts_per_token, latent = (size_t)config_latent(c);
    size_t expanded = CACHE_PAGE * latent + CACHE_PAGE * (size_t)(config_qk(c) + c->v_head) +
                      EXPAND_ROWS * (CACHE_PAGE + (size_t)c->v_head);
    size_t absorbed = ABSORB_HEADS * (CACHE_PAGE + (size_t)c->kv_lora);

    s->scratch_units = 2 * pool_threads(s->model->pool);
    s->scratch_floats = (expanded > absorbed ? expanded : absorbed) / 16 * 16 + 16;
    return take(&s->row, T, sizeof *s->row) && take(&s->x, T * H, f) && take(&s->u, T * H, f) &&
           take(&s->t, T * H, f) && take(&s->q_a, T * (size_t)c->q_lora, f) &&
           take(&s->q, T * n * (size_t)config_qk(c), f) && take(&s->kv, T * latent, f) &&
           take(&s->attended, T * n * (size_t)c->v_head, f) && take(&s->block_max, T * n, f) &&
           take(&s->block_sum, T * n, f) && take(&s->cosine, T * (size_t)c->qk_rope / 2, f) &&
           take(&s->sine, T * (size_t)c->qk_rope / 2, f) && take(&s->generated, T, sizeof *s->generated) &&
           take(&s->q_absorbed, ABSORB_ROWS * n * latent, f) &&
           take(&s->z, ABSORB_ROWS * n * (size_t)c->kv_lora, f) && take(&s->gate, MLP_ROWS * inner, f) &&
           take(&s->up, MLP_ROWS * inner, f) && take(&s->scores, T * (size_t)c->experts, f) &&
           take(&s->choice, T * k, sizeof *s->choice) &&
           take(&s->carried, T * H, model_carrier_bytes(s->model)) &&
           take(&s->wanted, T, sizeof *s->wanted) && take(&s->final, (size_t)s->logits_max * H, f) &&
           take(&s->logits, (size_t)s->logits_max * (size_t)c->vocab, f) &&
           take(&s->scratch, (size_t)s->scratch_units * s->scratch_floats, f);
}

/* What only forward_run needs; a worker has its own. */
static bool take_local(struct forward *s)
{
    const struct model_config *c = &s->model->config;
    size_t pairs = (size_t)s->rows_max * (size_t)c->experts_per_token;

    if (s->sums)
        return true;
    return (s->pair || take(&s->pair, pairs, sizeof *s->pair)) &&
           (s->slot_row || take(&s->slot_row, pairs, sizeof *s->slot_row)) &&
           (s->slot_shard || take(&s->slot_shard, pairs, sizeof *s->slot_shard)) &&
           (s->sum || take(&s->sum, pairs, sizeof *s->sum)) &&
           take(&s->sums,
                (size_t)s->rows_max * (size_t)smaller(c->shards, c->experts_per_token) * (size_t)c->hidden,
                model_carrier_bytes(s->model));
}

struct forward *forward_new(struct model *model, int rows_max, int logits_max)
{
    struct forward *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    assert(rows_max > 0 && rows_max <= FORWARD_ROWS_MAX && logits_max > 0);
    s->model = model;
    s->rows_max = smaller(rows_max, EXPERTS_SLOTS_MAX / larger(1, model->config.experts_per_token));
    s->logits_max = logits_max;
    if (!take_all(s)) {
        forward_free(s);
        return NULL;
    }
    return s;
}

void forward_free(struct forward *s)
{
    if (!s)
        return;
    void *all[] = { s->row,       s->x,          s->u,         s->t,          s->q_a,    s->q,
                    s->kv,        s->attended,   s->block_max, s->sine,       s->cosine, s->block_sum,
                    s->generated, s->q_absorbed, s->z,         s->gate,       s->up,     s->scores,
                    s->choice,    s->carried,    s->wanted,    s->final,      s->logits, s->sum,
                    s->scratch,   s->pair,       s->slot_row,  s->slot_shard, s->sums };

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    free(s);
}

int forward_rows_max(const struct forward *s)
{
    return s->rows_max;
}

/* ---- pieces of work ------------------------------------------------------------------------------ */

int64_t piece_budget(const struct model *model)
{
    return model->piece_macs * pool_threads(model->pool);
}

int piece_units(const struct model *model, int items, int64_t macs, int units_max)
{
    int64_t least = model->piece_macs / PIECE_UNITS + 1;
    int threads = pool_threads(model->pool), units;

    /* One thread needs no cutting, and waking another for less than some ten microseconds does not pay. */
    if (threads == 1 || macs < 2 * least)
        return 1;
    units = macs / least < 4 * threads ? (int)(macs / least) : 4 * threads;
    return larger(1, smaller(smaller(units, items), units_max));
}

/* Outputs are cut at multiples of this, which is one of every tile's width in the kernels. */
enum { GRAIN = 24 };

/* How many of the outputs that are left, each of so many multiply-adds, the budget allows; at least a grain.
 */
static int outputs_within(int64_t budget, int64_t each, int left)
{
    int64_t grains = each > 0 ? budget / (each * GRAIN) : left;

    grains = grains < 1 ? 1 : grains;
    return grains > left / GRAIN ? left : smaller((int)grains * GRAIN, left);
}

static void matmul_unit(void *context, int unit)
{
    const struct matmul *m = context;
    const struct backend *backend = m->step->model->backend;
    int from = m->from + unit * m->block, to = smaller(from + m->block, m->to);

    if (from >= to)
        return;
    backend->dot(m->out, m->out_stride, m->x, m->x_stride, NULL, m->rows, m->w->data, m->w->number,
                 (size_t)m->w->columns, from, to, m->w->columns);
    for (int r = 0; m->add && r < m->rows; r++)
        backend->add(m->add + (size_t)r * m->out_stride + from, m->out + (size_t)r * m->out_stride + from,
                     to - from);
}

bool matmul_piece(const struct forward *step, int *at, int64_t *budget, float *out, size_t out_stride,
                  const float *x, size_t x_stride, int rows, const struct matrix *w, float *add)
{
    int64_t each = (int64_t)rows * w->columns;
    int outputs = outputs_within(*budget, each, w->rows - *at);
    int units = piece_units(step->model, (outputs + GRAIN - 1) / GRAIN, each * outputs, POOL_UNITS_MAX);
    struct matmul m = { .step = step,
                        .out = out,
                        .add = add,
                        .x = x,
                        .w = w,
                        .out_stride = out_stride,
                        .x_stride = x_stride,
                        .rows = rows,
                        .from = *at,
                        .to = *at + outputs };

    if (rows > 0) {
        m.block = ((outputs + units - 1) / units + GRAIN - 1) / GRAIN * GRAIN;
        pool_run(step->model->pool, matmul_unit, &m, units);
    }
    *budget -= each * outputs;
    *at += outputs;
    if (*at < w->rows)
        return false;
    *at = 0;
    return true;
}

struct norm {
    const struct forward *step;
    float *out;
    const float *x, *gain;
    int rows, width, block;
    float eps;
};

static void norm_unit(void *context, int unit)
{
    const struct norm *n = context;
    int from = unit * n->block, to = smaller(from + n->block, n->rows);

    for (int r = from; r < to; r++)
        n->step->model->backend->rms_norm(n->out + (size_t)r * (size_t)n->width,
                                          n->x + (size_t)r * (size_t)n->width, n->gain, n->width, n->eps);
}

void forward_norm_rows(struct forward *step, float *out, const float *x, const float *gain, int rows,
                       int width, float eps)
{
    int units = piece_units(step->model, rows, (int64_t)rows * width, POOL_UNITS_MAX);
    struct norm n = { step, out, x, gain, rows, width, (rows + units - 1) / units, eps };

    pool_run(step->model->pool, norm_unit, &n, units);
}

/* ---- begin ---------------------------------------------------------------------------------------- */

void forward_begin(struct forward *s, const struct forward_row *rows, int row_count)
{
    const struct model *m = s->model;
    const struct model_config *c = &m->config;
    int half = c->qk_rope / 2;

    assert(row_count >= 0 && row_count <= s->rows_max);
    s->row_count = row_count;
    s->generated_count = s->wanted_count = 0;
    s->phase = s->at = s->run = s->block = s->head = 0;
    memcpy(s->row, rows, (size_t)row_count * sizeof *rows);
    for (int r = 0; r < row_count; r++) {
        assert(rows[r].token >= 0 && rows[r].token < c->vocab);
        assert(rows[r].position >= 0 && rows[r].position < c->context);
        if (rows[r].generated)
            s->generated[s->generated_count++] = r;
        if (rows[r].want_logits)
            s->wanted[s->wanted_count++] = r;
        m->backend->widen(s->x + (size_t)r * (size_t)c->hidden,
                          (const char *)m->embed.data +
                              (size_t)rows[r].token * (size_t)c->hidden * number_bytes(m->embed.number),
                          m->embed.number, c->hidden);
        for (int i = 0; i < half; i++) {
            double angle = rows[r].position * m->inv_freq[i];

            s->cosine[r * half + i] = (float)(cos(angle) * m->rope_amplitude);
            s->sine[r * half + i] = (float)(sin(angle) * m->rope_amplitude);
        }
    }
}

/* ---- dense layers and shared experts -------------------------------------------------------------- */

struct mlp {
    const struct forward *step;
    const struct layer_weights *w;
    const float *x; /* [rows, H] */
    int rows, from, to, block;
};

static void mlp_unit(void *context, int unit)
{
    const struct mlp *m = context;
    const struct forward *s = m->step;
    const struct backend *b = s->model->backend;
    int H = s->model->config.hidden, inner = m->w->gate.rows;
    int from = m->from + unit * m->block, to = smaller(from + m->block, m->to);

    if (from >= to)
        return;
    b->dot(s->gate, (size_t)inner, m->x, (size_t)H, NULL, m->rows, m->w->gate.data, m->w->gate.number,
           (size_t)H, from, to, H);
    b->dot(s->up, (size_t)inner, m->x, (size_t)H, NULL, m->rows, m->w->up.data, m->w->up.number, (size_t)H,
           from, to, H);
    for (int r = 0; r < m->rows; r++) {
        size_t at = (size_t)r * (size_t)inner + (size_t)from;

        b->silu_mul(s->gate + at, s->gate + at, s->up + at, to - from);
    }
}

/* t = MLP(u), MLP_ROWS rows at a time; add: x += t as well.  One piece. */
static bool mlp_piece(struct forward *s, const struct layer_weights *w, bool add)
{
    enum { GATE = 1, DOWN = 2 };
    int H = s->model->config.hidden, inner = w->gate.rows;
    int64_t budget = piece_budget(s->model);

    while (budget > 0) {
        int from = s->run, rows = smaller(MLP_ROWS, s->row_count - from);
        size_t at = (size_t)from * (size_t)H;

        if (rows <= 0) {
            s->run = 0;
            return true;
        }
        if (s->phase != DOWN) {
            int64_t each = 2 * (int64_t)rows * H;
            int outputs = outputs_within(budget, each, inner - s->at);
            int units = piece_units(s->model, (outputs + GRAIN - 1) / GRAIN, each * outputs, POOL_UNITS_MAX);
            struct mlp m = { s, w, s->u + at, rows, s->at, s->at + outputs, 0 };

            m.block = ((outputs + units - 1) / units + GRAIN - 1) / GRAIN * GRAIN;
            pool_run(s->model->pool, mlp_unit, &m, units);
            budget -= each * outputs;
            s->at += outputs;
            if (s->at < inner)
                continue;
            s->at = 0;
            s->phase = DOWN;
        } else if (matmul_piece(s, &s->at, &budget, s->t + at, (size_t)H, s->gate, (size_t)inner, rows,
                                &w->down, add ? s->x + at : NULL)) {
            s->phase = GATE;
            s->run += rows;
        }
    }
    if (s->run < s->row_count)
        return false;
    s->run = 0;
    return true;
}

bool forward_dense(struct forward *s, int layer)
{
    const struct model_config *c = &s->model->config;
    const struct layer_weights *w = s->model->layer + layer;

    assert(!config_layer_is_moe(c, layer));
    if (s->phase == 0) {
        forward_norm_rows(s, s->u, s->x, w->mlp_norm, s->row_count, c->hidden, c->norm_eps);
        s->phase = 1;
    }
    if (!mlp_piece(s, w, true))
        return false;
    s->phase = 0;
    return true;
}

bool forward_shared(struct forward *s, int layer)
{
    const struct model_config *c = &s->model->config;

    assert(config_layer_is_moe(c, layer));
    if (c->shared_experts == 0) {
        memset(s->t, 0, (size_t)s->row_count * (size_t)c->hidden * sizeof *s->t);
        return true;
    }
    if (s->phase == 0)
        s->phase = 1;
    if (!mlp_piece(s, s->model->layer + layer, false))
        return false;
    s->phase = 0;
    return true;
}

void forward_combine(struct forward *s, int layer, const struct forward_sum *sums, int sum_count)
{
    const struct backend *b = s->model->backend;
    int H = s->model->config.hidden;
    enum number carrier = model_carrier(s->model);
    float *wide = s->u; /* the layer is done with it, and the carried rows are their own */

    assert(config_layer_is_moe(&s->model->config, layer));
    for (int i = 0; i < sum_count; i++) {
        float *t = s->t + (size_t)sums[i].row * (size_t)H;

        assert(sums[i].row < s->row_count);
        assert(i == 0 || sums[i - 1].row < sums[i].row ||
               (sums[i - 1].row == sums[i].row && sums[i - 1].shard < sums[i].shard));
        b->widen(wide, sums[i].sum, carrier, H);
        b->add(t, wide, H);
    }
    for (int r = 0; r < s->row_count; r++)
        b->add(s->x + (size_t)r * (size_t)H, s->t + (size_t)r * (size_t)H, H);
}

/* ---- logits --------------------------------------------------------------------------------------- */

bool forward_logits(struct forward *s, int first, int count)
{
    const struct model_config *c = &s->model->config;
    int64_t budget = piece_budget(s->model);

    assert(first >= 0 && count >= 0 && count <= s->logits_max && first + count <= s->wanted_count);
    if (count == 0)
        return true;
    if (s->phase == 0) {
        for (int i = 0; i < count; i++)
            s->model->backend->rms_norm(s->final + (size_t)i * (size_t)c->hidden,
                                        s->x + (size_t)s->wanted[first + i] * (size_t)c->hidden,
                                        s->model->final_norm, c->hidden, c->norm_eps);
        s->logits_first = first;
        s->phase = 1;
    }
    if (!matmul_piece(s, &s->at, &budget, s->logits, (size_t)c->vocab, s->final, (size_t)c->hidden, count,
                      &s->model->head, NULL))
        return false;
    s->phase = 0;
    return true;
}

const float *forward_logits_of(const struct forward *s, int wanted)
{
    assert(wanted >= s->logits_first && wanted < s->logits_first + s->logits_max);
    return s->logits + (size_t)(wanted - s->logits_first) * (size_t)s->model->config.vocab;
}

/* ---- all of it in one process ---------------------------------------------------------------------- */

static bool run_experts(struct forward *s, struct experts *experts, int layer, struct err *err)
{
    const struct model_config *c = &s->model->config;
    size_t sum_bytes = (size_t)c->hidden * model_carrier_bytes(s->model);
    int slots, pairs = forward_pairs(s, s->model->seated, s->pair, s->slot_row, s->slot_shard, &slots);

    if (!experts_begin(experts, layer, s->carried, s->row_count, s->pair, pairs, slots, err))
        return false;
    while (!experts_work(experts, s->sums))
        ;
    for (int i = 0; i < slots; i++)
        s->sum[i] = (struct forward_sum){ s->slot_row[i], s->slot_shard[i], s->sums + (size_t)i * sum_bytes };
    while (!forward_shared(s, layer))
        ;
    forward_combine(s, layer, s->sum, slots);
    return true;
}

bool forward_run(struct forward *s, struct experts *experts, const struct forward_row *rows, int row_count,
                 struct err *err)
{
    const struct model_config *c = &s->model->config;

    for (int shard = 0; shard < c->shards; shard++)
        if (!s->model->seated[shard])
            return err_set(err, ERR_NOT_FOUND, "shard %d is not seated here", shard);
    if (c->experts > 0 && !take_local(s))
        return err_set(err, ERR_IO, "no memory for a step of %d rows", s->rows_max);
    forward_begin(s, rows, row_count);
    for (int layer = 0; layer < c->layers; layer++) {
        while (!forward_attend(s, layer))
            ;
        if (!config_layer_is_moe(c, layer)) {
            while (!forward_dense(s, layer))
                ;
            continue;
        }
        forward_route(s, layer);
        if (!run_experts(s, experts, layer, err))
            return false;
    }
    return true;
}
