/* attend - multi-head latent attention over the cache, in the two forms.
 *
 * Rows of a prompt use the expanded form: a block of 64 latent rows becomes keys and values of a head,
 * and all rows of the run meet them.  Generated rows use the absorbed form: the query is carried into the
 * latent space, where all heads share one key, and the answer is carried back.  The form belongs to the
 * position, so a row's bits do not depend on the step it is computed in.
 *
 * Every row, of either form, reads keys as the cache stores them, its own step's included, in blocks of 64
 * counted from position 0.  A block gives (max, sum, vector); blocks merge in position order. */

#include <assert.h>
#include <string.h>

#include "worker/model/inside.h"

/* DeepSeek's code builds the latents' norms with the default, whatever config.json says. */
#define LATENT_EPS 1e-6f

enum phase {
    NORM,        /* u = norm(x) */
    PROJECT_Q,   /* q, or q_a */
    PROJECT_KV,  /* kv */
    LATENT,      /* kv normalised, rotated, rounded into the cache; q_a normalised */
    PROJECT_Q_B, /* q from q_a */
    ROTATE,      /* q rotated and scaled */
    EXPANDED,    /* all rows of prompts */
    ABSORB,      /* generated rows, a group at a time: in, over the cache, out */
    ABSORBED,
    UNABSORB,
    OUTPUT, /* x += o */
};

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static int larger(int a, int b)
{
    return a > b ? a : b;
}

/* What a unit of any phase needs to know. */
struct attend {
    struct forward *step;
    int layer, units;
    int from, to;             /* rows of the run; or generated rows, counted in the list */
    int block_from, block_to; /* blocks of 64 positions */
    int head_from, head_to;
    int head_groups;
};

/* A head's part of a row; g counts rows of the group of generated rows in work. */
static float *query(const struct forward *s, int row, int head) /* [qk] */
{
    const struct model_config *c = &s->model->config;

    return s->q + ((size_t)row * (size_t)c->heads + (size_t)head) * (size_t)config_qk(c);
}

static float *attended(const struct forward *s, int row, int head) /* [v_head] */
{
    const struct model_config *c = &s->model->config;

    return s->attended + ((size_t)row * (size_t)c->heads + (size_t)head) * (size_t)c->v_head;
}

static float *absorbed_query(const struct forward *s, int g, int head) /* [kv_lora + qk_rope] */
{
    const struct model_config *c = &s->model->config;

    return s->q_absorbed + ((size_t)g * (size_t)c->heads + (size_t)head) * (size_t)config_latent(c);
}

static float *absorbed_value(const struct forward *s, int g, int head) /* [kv_lora] */
{
    const struct model_config *c = &s->model->config;

    return s->z + ((size_t)g * (size_t)c->heads + (size_t)head) * (size_t)c->kv_lora;
}

/* A head's rows of kv_b: for its key, [qk_nope, kv_lora]; for its value, [v_head, kv_lora]. */
static const void *key_rows(const struct forward *s, int layer, int head)
{
    const struct model_config *c = &s->model->config;
    const struct matrix *kv_b = &s->model->layer[layer].kv_b;
    size_t rows = (size_t)head * (size_t)(c->qk_nope + c->v_head);

    return (const char *)kv_b->data + rows * (size_t)c->kv_lora * number_bytes(kv_b->number);
}

static const void *value_rows(const struct forward *s, int layer, int head)
{
    const struct model_config *c = &s->model->config;

    return (const char *)key_rows(s, layer, head) +
           (size_t)c->qk_nope * (size_t)c->kv_lora * number_bytes(s->model->layer[layer].kv_b.number);
}

/* ---- rows to queries and cache --------------------------------------------------------------------- */

static void latent_unit(void *context, int unit)
{
    const struct attend *a = context;
    struct forward *s = a->step;
    const struct model_config *c = &s->model->config;
    const struct layer_weights *w = s->model->layer + a->layer;
    const struct backend *b = s->model->backend;
    int from = (int)((int64_t)s->row_count * unit / a->units),
        to = (int)((int64_t)s->row_count * (unit + 1) / a->units);

    for (int r = from; r < to; r++) {
        float *kv = s->kv + (size_t)r * (size_t)config_latent(c);
        size_t rope = (size_t)r * (size_t)(c->qk_rope / 2);

        b->rms_norm(kv, kv, w->kv_a_norm, c->kv_lora, LATENT_EPS);
        b->rotate(kv + c->kv_lora, s->cosine + rope, s->sine + rope, c->qk_rope / 2);
        b->narrow(cache_row(s->row[r].sequence, a->layer, s->row[r].position), model_carrier(s->model), kv,
                  config_latent(c));
        if (c->q_lora > 0) {
            float *q_a = s->q_a + (size_t)r * (size_t)c->q_lora;

            b->rms_norm(q_a, q_a, w->q_a_norm, c->q_lora, LATENT_EPS);
        }
    }
}

static void rotate_unit(void *context, int unit)
{
    const struct attend *a = context;
    struct forward *s = a->step;
    const struct model_config *c = &s->model->config;
    const struct backend *b = s->model->backend;
    int qk = config_qk(c);
    int from = (int)((int64_t)s->row_count * unit / a->units),
        to = (int)((int64_t)s->row_count * (unit + 1) / a->units);

    for (int r = from; r < to; r++) {
        float *q = s->q + (size_t)r * (size_t)c->heads * (size_t)qk;
        size_t rope = (size_t)r * (size_t)(c->qk_rope / 2);

        for (int h = 0; h < c->heads; h++)
            b->rotate(q + h * qk + c->qk_nope, s->cosine + rope, s->sine + rope, c->qk_rope / 2);
        b->scale(q, (float)s->model->softmax_scale, c->heads * qk);
    }
}

/* ---- softmax over blocks --------------------------------------------------------------------------- */

/* Takes a block's scores to weights; *max and *sum describe the block. */
static void block_softmax(const struct backend *b, float *score, int count, float *max, float *sum)
{
    *max = b->max(score, count);
    *sum = b->exp_sum(score, count, *max);
}

/* Merges a block into what came before it: out [width], *max, *sum. */
static void block_merge(const struct backend *b, float *out, float *max, float *sum, const float *vector,
                        float block_max, float block_sum, int width, bool first)
{
    float top, before, now;

    if (first) {
        memcpy(out, vector, (size_t)width * sizeof *out);
        *max = block_max;
        *sum = block_sum;
        return;
    }
    top = *max > block_max ? *max : block_max;
    before = b->exp(*max - top);
    now = b->exp(block_max - top);
    b->merge(out, before, vector, now, width);
    *sum = *sum * before + block_sum * now;
    *max = top;
}

/* ---- expanded -------------------------------------------------------------------------------------- */

/* A run: rows of one sequence at consecutive positions of a prompt.  Returns its end. */
static int run_end(const struct forward *s, int from)
{
    int to = from + 1;

    while (to < s->row_count && !s->row[to].generated && s->row[to].sequence == s->row[from].sequence &&
           s->row[to].position == s->row[to - 1].position + 1)
        to++;
    return to;
}

/* One head, one block, all rows of the run that can see it. */
static void expand_block(const struct attend *a, float *scratch, int head, int block)
{
    struct forward *s = a->step;
    const struct model_config *c = &s->model->config;
    const struct backend *b = s->model->backend;
    enum number number = s->model->layer[a->layer].kv_b.number;
    int qk = config_qk(c), latent = config_latent(c), v_head = c->v_head, first = block * CACHE_PAGE;
    int count = smaller(CACHE_PAGE, s->row[a->to - 1].position + 1 - first); /* keys there are */
    size_t q_stride = (size_t)c->heads * (size_t)qk, latent_stride = (size_t)latent;
    float *wide = scratch, *key = wide + CACHE_PAGE * latent, *value = key + CACHE_PAGE * qk;
    float *score = value + CACHE_PAGE * v_head, *vector = score + EXPAND_ROWS * CACHE_PAGE;
    int row = larger(a->from, a->from + first - s->row[a->from].position);

    b->widen(wide, cache_row(s->row[a->from].sequence, a->layer, first), model_carrier(s->model),
             count * latent);
    b->dot(key, (size_t)qk, wide, latent_stride, NULL, count, key_rows(s, a->layer, head), number,
           (size_t)c->kv_lora, 0, c->qk_nope, c->kv_lora);
    for (int j = 0; j < count; j++)
        memcpy(key + j * qk + c->qk_nope, wide + j * latent + c->kv_lora, (size_t)c->qk_rope * sizeof *key);
    b->dot(value, (size_t)v_head, wide, latent_stride, NULL, count, value_rows(s, a->layer, head), number,
           (size_t)c->kv_lora, 0, v_head, c->kv_lora);

    for (; row < a->to; row += EXPAND_ROWS) {
        int rows = smaller(EXPAND_ROWS, a->to - row), part = 0;
        int seen[EXPAND_ROWS]; /* keys of the block that a row may see */
        float max[EXPAND_ROWS], sum[EXPAND_ROWS];

        b->dot(score, CACHE_PAGE, query(s, row, head), q_stride, NULL, rows, key, NUMBER_F32, (size_t)qk, 0,
               count, qk);
        for (int r = 0; r < rows; r++) {
            seen[r] = smaller(CACHE_PAGE, s->row[row + r].position + 1 - first);
            block_softmax(b, score + r * CACHE_PAGE, seen[r], &max[r], &sum[r]);
        }
        /* The first rows may see a part of the block, a key more each; those that see all of it go together.
         */
        for (; part < rows && seen[part] < CACHE_PAGE; part++)
            b->mix(vector + part * v_head, (size_t)v_head, score + part * CACHE_PAGE, CACHE_PAGE, 1, value,
                   NUMBER_F32, (size_t)v_head, seen[part], v_head);
        b->mix(vector + part * v_head, (size_t)v_head, score + part * CACHE_PAGE, CACHE_PAGE, rows - part,
               value, NUMBER_F32, (size_t)v_head, CACHE_PAGE, v_head);
        for (int r = 0; r < rows; r++) {
            size_t at = (size_t)(row + r) * (size_t)c->heads + (size_t)head;
            float *out = attended(s, row + r, head);

            block_merge(b, out, s->block_max + at, s->block_sum + at, vector + r * v_head, max[r], sum[r],
                        v_head, block == 0);
            if (block == s->row[row + r].position / CACHE_PAGE)
                b->scale(out, 1 / s->block_sum[at], v_head);
        }
    }
}

static void expanded_unit(void *context, int unit)
{
    const struct attend *a = context;
    int heads = a->head_to - a->head_from;
    int from = a->head_from + heads * unit / a->units, to = a->head_from + heads * (unit + 1) / a->units;

    for (int head = from; head < to; head++)
        for (int block = a->block_from; block < a->block_to; block++)
            expand_block(a, a->step->scratch + (size_t)unit * a->step->scratch_floats, head, block);
}

/* Runs from s->run on, while the budget lasts.  True when no row is left. */
static bool expanded_piece(struct forward *s, int layer, int64_t *budget)
{
    const struct model_config *c = &s->model->config;

    while (s->run < s->row_count) {
        struct attend a = { .step = s, .layer = layer, .from = s->run };
        int64_t head_macs, all_macs;
        int blocks;

        if (s->row[s->run].generated) {
            s->run++;
            continue;
        }
        if (*budget <= 0)
            return false;
        a.to = run_end(s, s->run);
        blocks = s->row[a.to - 1].position / CACHE_PAGE + 1;
        head_macs = (int64_t)CACHE_PAGE * ((int64_t)c->kv_lora * (c->qk_nope + c->v_head) +
                                           (int64_t)(a.to - a.from) * (config_qk(c) + c->v_head));
        all_macs = head_macs * c->heads;
        a.block_from = s->block;
        a.head_from = s->head;
        a.head_to = c->heads;
        if (s->head == 0 && all_macs <= *budget) { /* whole blocks */
            a.block_to = smaller(blocks, s->block + (int)larger(1, (int)(*budget / all_macs)));
        } else { /* some heads of one block */
            a.block_to = s->block + 1;
            a.head_to = smaller(c->heads, s->head + larger(1, (int)(*budget / head_macs)));
        }
        head_macs *= a.block_to - a.block_from;
        a.units = piece_units(s->model, a.head_to - a.head_from, head_macs * (a.head_to - a.head_from),
                              s->scratch_units);
        pool_run(s->model->pool, expanded_unit, &a, a.units);
        *budget -= head_macs * (a.head_to - a.head_from);
        s->head = a.head_to % c->heads;
        if (s->head == 0)
            s->block = a.block_to;
        if (s->block == blocks) {
            s->block = 0;
            s->run = a.to;
        }
    }
    s->run = 0;
    return true;
}

/* ---- absorbed -------------------------------------------------------------------------------------- */

/* How many of the generated rows from g on stand together in the step, so that one call takes them all. */
static int rows_together(const struct forward *s, int g, int to)
{
    int rows = 1;

    while (g + rows < to && s->generated[g + rows] == s->generated[g] + rows)
        rows++;
    return rows;
}

/* Into the latent space: absorbed_query = (W_UK^T q_nope, q_rope), a head at a time. */
static void absorb_unit(void *context, int unit)
{
    const struct attend *a = context;
    struct forward *s = a->step;
    const struct model_config *c = &s->model->config;
    enum number number = s->model->layer[a->layer].kv_b.number;
    size_t n = (size_t)c->heads, q_stride = n * (size_t)config_qk(c), stride = n * (size_t)config_latent(c);
    int from = c->heads * unit / a->units, to = c->heads * (unit + 1) / a->units, rows;

    for (int head = from; head < to; head++) {
        for (int g = a->from; g < a->to; g += rows) {
            rows = rows_together(s, g, a->to);
            s->model->backend->mix(
                absorbed_query(s, g - a->from, head), stride, query(s, s->generated[g], head), q_stride, rows,
                key_rows(s, a->layer, head), number, (size_t)c->kv_lora, c->qk_nope, c->kv_lora);
        }
        for (int g = a->from; g < a->to; g++)
            memcpy(absorbed_query(s, g - a->from, head) + c->kv_lora,
                   query(s, s->generated[g], head) + c->qk_nope, (size_t)c->qk_rope * sizeof *s->q);
    }
}

/* Some heads of generated row g over blocks of its sequence; the row is number `local` of its group. */
static void absorbed_row(const struct attend *a, float *scratch, int g, int local, int head, int heads)
{
    struct forward *s = a->step;
    const struct model_config *c = &s->model->config;
    const struct backend *b = s->model->backend;
    enum number carrier = model_carrier(s->model);
    int row = s->generated[g], latent = config_latent(c), kv_lora = c->kv_lora;
    int position = s->row[row].position, block_to = smaller(a->block_to, position / CACHE_PAGE + 1);
    float *score = scratch, *vector = score + ABSORB_HEADS * CACHE_PAGE;
    float *so_far_max = s->block_max + (size_t)row * (size_t)c->heads + head;
    float *so_far_sum = s->block_sum + (size_t)row * (size_t)c->heads + head;

    for (int block = a->block_from; block < block_to; block++) {
        const void *page = cache_row(s->row[row].sequence, a->layer, block * CACHE_PAGE);
        int count = smaller(CACHE_PAGE, position + 1 - block * CACHE_PAGE);
        float max[ABSORB_HEADS], sum[ABSORB_HEADS];

        b->dot(score, CACHE_PAGE, absorbed_query(s, local, head), (size_t)latent, NULL, heads, page, carrier,
               (size_t)latent, 0, count, latent);
        for (int h = 0; h < heads; h++)
            block_softmax(b, score + h * CACHE_PAGE, count, &max[h], &sum[h]);
        b->mix(vector, (size_t)kv_lora, score, CACHE_PAGE, heads, page, carrier, (size_t)latent, count,
               kv_lora);
        for (int h = 0; h < heads; h++) {
            float *z = absorbed_value(s, local, head + h);

            block_merge(b, z, so_far_max + h, so_far_sum + h, vector + h * kv_lora, max[h], sum[h], kv_lora,
                        block == 0);
            if (block == position / CACHE_PAGE)
                b->scale(z, 1 / so_far_sum[h], kv_lora);
        }
    }
}

/* Items are (row, group of heads). */
static void absorbed_unit(void *context, int unit)
{
    const struct attend *a = context;
    struct forward *s = a->step;
    int items = (a->to - a->from) * a->head_groups;
    float *scratch = s->scratch + (size_t)unit * s->scratch_floats;

    for (int item = items * unit / a->units; item < items * (unit + 1) / a->units; item++) {
        int g = a->from + item / a->head_groups, head = item % a->head_groups * ABSORB_HEADS;

        absorbed_row(a, scratch, g, g % ABSORB_ROWS, head,
                     smaller(ABSORB_HEADS, s->model->config.heads - head));
    }
}

/* Generated rows s->at .. of the group that begins at s->run.  True when the group is done. */
static bool absorbed_piece(struct forward *s, int layer, int64_t *budget)
{
    const struct model_config *c = &s->model->config;
    int group_to = smaller(s->run + ABSORB_ROWS, s->generated_count);
    int64_t block_macs = (int64_t)CACHE_PAGE * c->heads * (config_latent(c) + c->kv_lora);

    while (s->at < group_to) {
        struct attend a = { .step = s, .layer = layer, .from = s->at, .to = s->at + 1 };
        int blocks = s->row[s->generated[s->at]].position / CACHE_PAGE + 1;
        int64_t macs = block_macs * (blocks - s->block);

        if (*budget <= 0)
            return false;
        a.block_from = s->block;
        a.block_to = blocks;
        a.head_groups = (c->heads + ABSORB_HEADS - 1) / ABSORB_HEADS;
        if (macs > *budget) { /* one row, some blocks */
            a.block_to = smaller(blocks, s->block + larger(1, (int)(*budget / block_macs)));
            macs = block_macs * (a.block_to - a.block_from);
        } else if (s->block == 0) { /* as many whole rows as fit */
            for (; a.to < group_to; a.to++) {
                int more = s->row[s->generated[a.to]].position / CACHE_PAGE + 1;

                if (macs + block_macs * more > *budget)
                    break;
                macs += block_macs * more;
                a.block_to = larger(a.block_to, more);
            }
        }
        a.units = piece_units(s->model, (a.to - a.from) * a.head_groups, macs, s->scratch_units);
        pool_run(s->model->pool, absorbed_unit, &a, a.units);
        *budget -= macs;
        s->block = a.to == a.from + 1 && a.block_to < blocks ? a.block_to : 0;
        if (s->block == 0)
            s->at = a.to;
    }
    return true;
}

/* Out of the latent space: attended = W_UV z, a head at a time. */
static void unabsorb_unit(void *context, int unit)
{
    const struct attend *a = context;
    struct forward *s = a->step;
    const struct model_config *c = &s->model->config;
    enum number number = s->model->layer[a->layer].kv_b.number;
    size_t n = (size_t)c->heads, z_stride = n * (size_t)c->kv_lora, stride = n * (size_t)c->v_head;
    int from = c->heads * unit / a->units, to = c->heads * (unit + 1) / a->units, rows;

    for (int head = from; head < to; head++)
        for (int g = a->from; g < a->to; g += rows) {
            rows = rows_together(s, g, a->to);
            s->model->backend->dot(attended(s, s->generated[g], head), stride,
                                   absorbed_value(s, g - a->from, head), z_stride, NULL, rows,
                                   value_rows(s, a->layer, head), number, (size_t)c->kv_lora, 0, c->v_head,
                                   c->kv_lora);
        }
}

/* ---- the stage ------------------------------------------------------------------------------------- */

static void run_units(struct forward *s, int layer, pool_work *work, int items, int64_t macs, int from,
                      int to)
{
    struct attend a = { .step = s, .layer = layer, .from = from, .to = to };

    a.units = piece_units(s->model, items, macs, POOL_UNITS_MAX);
    pool_run(s->model->pool, work, &a, a.units);
}

bool forward_attend(struct forward *s, int layer)
{
    const struct model_config *c = &s->model->config;
    const struct layer_weights *w = s->model->layer + layer;
    int64_t budget = piece_budget(s->model), group_macs;
    int T = s->row_count, group_to;
    size_t H = (size_t)c->hidden, q_width = (size_t)c->heads * (size_t)config_qk(c);

    while (budget > 0) {
        switch ((enum phase)s->phase) {
        case NORM:
            forward_norm_rows(s, s->u, s->x, w->attend_norm, T, c->hidden, c->norm_eps);
            s->phase = PROJECT_Q;
            break;
        case PROJECT_Q:
            if (c->q_lora > 0
                    ? matmul_piece(s, &s->at, &budget, s->q_a, (size_t)c->q_lora, s->u, H, T, &w->q_a, NULL)
                    : matmul_piece(s, &s->at, &budget, s->q, q_width, s->u, H, T, &w->q, NULL))
                s->phase = PROJECT_KV;
            break;
        case PROJECT_KV:
            if (matmul_piece(s, &s->at, &budget, s->kv, (size_t)config_latent(c), s->u, H, T, &w->kv_a, NULL))
                s->phase = LATENT;
            break;
        case LATENT:
            run_units(s, layer, latent_unit, T, (int64_t)T * (config_latent(c) + c->q_lora) * 4, 0, T);
            s->phase = PROJECT_Q_B;
            break;
        case PROJECT_Q_B:
            if (c->q_lora == 0 ||
                matmul_piece(s, &s->at, &budget, s->q, q_width, s->q_a, (size_t)c->q_lora, T, &w->q_b, NULL))
                s->phase = ROTATE;
            break;
        case ROTATE:
            run_units(s, layer, rotate_unit, T, (int64_t)T * (int64_t)q_width * 2, 0, T);
            s->run = s->block = s->head = 0;
            s->phase = EXPANDED;
            break;
        case EXPANDED:
            if (expanded_piece(s, layer, &budget))
                s->phase = ABSORB;
            break;
        case ABSORB: /* the next group of generated rows begins at s->run */
            group_to = smaller(s->run + ABSORB_ROWS, s->generated_count);
            if (s->run == s->generated_count) {
                s->run = s->at = 0;
                s->phase = OUTPUT;
                break;
            }
            group_macs = (int64_t)(group_to - s->run) * c->heads * c->qk_nope * c->kv_lora;
            run_units(s, layer, absorb_unit, c->heads, group_macs, s->run, group_to);
            budget -= group_macs;
            s->at = s->run;
            s->phase = ABSORBED;
            break;
        case ABSORBED:
            if (absorbed_piece(s, layer, &budget))
                s->phase = UNABSORB;
            break;
        case UNABSORB:
            group_to = smaller(s->run + ABSORB_ROWS, s->generated_count);
            group_macs = (int64_t)(group_to - s->run) * c->heads * c->v_head * c->kv_lora;
            run_units(s, layer, unabsorb_unit, c->heads, group_macs, s->run, group_to);
            budget -= group_macs;
            s->run = group_to;
            s->phase = ABSORB;
            break;
        case OUTPUT:
            if (matmul_piece(s, &s->at, &budget, s->t, H, s->attended, (size_t)c->heads * (size_t)c->v_head,
                             T, &w->o, s->x)) {
                s->phase = 0;
                return true;
            }
            break;
        }
    }
    return false;
}
