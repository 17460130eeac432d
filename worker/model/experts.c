#include "worker/model/experts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/inside.h"

_Static_assert(sizeof(struct expert_pair) == 12, "a pair is the wire's 12 bytes");

enum {
    PIECE_PAIRS = 512,  /* pairs whose inner rows exist at once */
    OUTPUT_BLOCK = 504, /* columns of an output that are worked on together; a multiple of 24 */
    INNER_BLOCK = 96,
    TILE_ROWS = 64,
};

struct experts {
    struct model *model;
    int layer;
    const struct expert_pair *pair;
    int pair_count, slot_count, at;
    float *x;   /* [rows, H] widened */
    float *sum; /* [slots, H] */
    size_t x_floats, sum_floats;
    float *gate, *up; /* [PIECE_PAIRS, M] */
    float *y;         /* [units, TILE_ROWS, OUTPUT_BLOCK] */
    int y_units;

    /* The piece in progress: pairs from `from`, cut into runs of one expert. */
    int from, run_count;
    struct {
        int expert, first, count; /* first: counted from `from` */
    } run[PIECE_PAIRS];
    uint16_t row[PIECE_PAIRS];
    int items, units, inner_blocks, inner_block, output_block;
};

struct experts *experts_new(struct model *model)
{
    struct experts *e = calloc(1, sizeof *e);
    size_t inner;

    if (!e)
        return NULL;
    e->model = model;
    e->y_units = 4 * pool_threads(model->pool);
    inner = (size_t)PIECE_PAIRS * (size_t)model->config.expert_inner + 1;
    e->gate = malloc(inner * sizeof *e->gate);
    e->up = malloc(inner * sizeof *e->up);
    e->y = malloc((size_t)e->y_units * TILE_ROWS * OUTPUT_BLOCK * sizeof *e->y);
    if (!e->gate || !e->up || !e->y) {
        experts_free(e);
        return NULL;
    }
    return e;
}

void experts_free(struct experts *e)
{
    if (!e)
        return;
    free(e->x);
    free(e->sum);
    free(e->gate);
    free(e->up);
    free(e->y);
    free(e);
}

static bool room(float **floats, size_t *have, size_t want, struct err *err)
{
    float *more;

    if (want <= *have)
        return true;
    more = malloc(want * sizeof **floats); /* not realloc: what was there is of no use */
    if (!more)
        return err_set(err, ERR_LIMIT, "no memory for an expert call (%zu bytes)", want * sizeof **floats);
    free(*floats);
    *floats = more;
    *have = want;
    return true;
}

static bool check_pairs(const struct model *model, const struct expert_pair *pair, int count, int rows,
                        int slots, struct err *err)
{
    const struct model_config *c = &model->config;

    for (int i = 0; i < count; i++) {
        if (pair[i].row >= rows || pair[i].slot >= slots || pair[i].expert >= (uint32_t)c->experts)
            return err_set(err, ERR_INPUT,
                           "pair %d names row %u, slot %u, expert %u; there are %d, %d and %d", i,
                           pair[i].row, pair[i].slot, (unsigned)pair[i].expert, rows, slots, c->experts);
        if (i > 0 && pair[i].expert < pair[i - 1].expert)
            return err_set(err, ERR_INPUT, "pair %d: expert %u stands after %u; expected ascending", i,
                           (unsigned)pair[i].expert, (unsigned)pair[i - 1].expert);
        if (!model->seated[pair[i].expert / (uint32_t)c->experts_per_shard])
            return err_set(err, ERR_NOT_FOUND, "shard %u is not seated here",
                           (unsigned)pair[i].expert / (unsigned)c->experts_per_shard);
    }
    return true;
}

bool experts_begin(struct experts *e, int layer, const void *rows, int row_count,
                   const struct expert_pair *pairs, int pair_count, int slot_count, struct err *err)
{
    const struct model *m = e->model;
    int H = m->config.hidden;

    if (layer < 0 || layer >= m->config.layers || !config_layer_is_moe(&m->config, layer))
        return err_set(err, ERR_INPUT, "layer %d has no experts", layer);
    if (row_count < 0 || row_count > EXPERTS_ROWS_MAX || slot_count < 0 || slot_count > EXPERTS_SLOTS_MAX ||
        pair_count < 0)
        return err_set(err, ERR_INPUT, "%d rows, %d slots, %d pairs; expected at most %d, %d", row_count,
                       slot_count, pair_count, EXPERTS_ROWS_MAX, EXPERTS_SLOTS_MAX);
    if (!check_pairs(m, pairs, pair_count, row_count, slot_count, err) ||
        !room(&e->x, &e->x_floats, (size_t)row_count * (size_t)H, err) ||
        !room(&e->sum, &e->sum_floats, (size_t)slot_count * (size_t)H, err))
        return false;
    e->layer = layer;
    e->pair = pairs;
    e->pair_count = pair_count;
    e->slot_count = slot_count;
    e->at = 0;
    for (int r = 0; r < row_count; r++)
        m->backend->widen(e->x + (size_t)r * (size_t)H,
                          (const char *)rows + (size_t)r * (size_t)H * model_carrier_bytes(m),
                          model_carrier(m), H);
    if (slot_count > 0)
        memset(e->sum, 0, (size_t)slot_count * (size_t)H * sizeof *e->sum);
    return true;
}

/* Items are (run, block of inner columns). */
static void inner_unit(void *context, int unit)
{
    const struct experts *e = context;
    const struct model *m = e->model;
    const struct backend *b = m->backend;
    int H = m->config.hidden, M = m->config.expert_inner;
    int from = (int)((int64_t)e->items * unit / e->units),
        to = (int)((int64_t)e->items * (unit + 1) / e->units);

    for (int item = from; item < to; item++) {
        int run = item / e->inner_blocks, o = item % e->inner_blocks * e->inner_block;
        int end = o + e->inner_block < M ? o + e->inner_block : M, first = e->run[run].first,
            count = e->run[run].count;
        const struct expert_weights *w = m->layer[e->layer].expert + e->run[run].expert;
        float *gate = e->gate + (size_t)first * (size_t)M, *up = e->up + (size_t)first * (size_t)M;

        b->dot(gate, (size_t)M, e->x, (size_t)H, e->row + first, count, w->gate.data, w->gate.number,
               (size_t)H, o, end, H);
        b->dot(up, (size_t)M, e->x, (size_t)H, e->row + first, count, w->up.data, w->up.number, (size_t)H, o,
               end, H);
        for (int i = 0; i < count; i++) {
            size_t at = (size_t)i * (size_t)M + (size_t)o;

            b->silu_mul(gate + at, gate + at, up + at, end - o);
        }
    }
}

/* Items are blocks of output columns; each goes through the runs in ascending expert id. */
static void output_unit(void *context, int unit)
{
    const struct experts *e = context;
    const struct model *m = e->model;
    const struct backend *b = m->backend;
    int H = m->config.hidden, M = m->config.expert_inner;
    int from = (int)((int64_t)e->items * unit / e->units),
        to = (int)((int64_t)e->items * (unit + 1) / e->units);
    float *y = e->y + (size_t)unit * TILE_ROWS * OUTPUT_BLOCK;

    for (int item = from; item < to; item++) {
        int o = item * e->output_block, width = o + e->output_block < H ? e->output_block : H - o;

        for (int run = 0; run < e->run_count; run++) {
            const struct matrix *down = &m->layer[e->layer].expert[e->run[run].expert].down;
            const char *w = (const char *)down->data + (size_t)o * (size_t)M * number_bytes(down->number);

            for (int i = 0; i < e->run[run].count; i += TILE_ROWS) {
                int first = e->run[run].first + i, rows = e->run[run].count - i;

                rows = rows < TILE_ROWS ? rows : TILE_ROWS;
                b->dot(y, OUTPUT_BLOCK, e->gate + (size_t)first * (size_t)M, (size_t)M, NULL, rows, w,
                       down->number, (size_t)M, 0, width, M);
                for (int r = 0; r < rows; r++) {
                    const struct expert_pair *pair = e->pair + e->from + first + r;

                    b->add_scaled(e->sum + (size_t)pair->slot * (size_t)H + o, y + (size_t)r * OUTPUT_BLOCK,
                                  pair->weight, width);
                }
            }
        }
    }
}

bool experts_work(struct experts *e, void *sums)
{
    struct model *m = e->model;
    int H = m->config.hidden, M = m->config.expert_inner, count, threads = pool_threads(m->pool);
    int64_t each = 3 * (int64_t)M * H, fit = piece_budget(m) / each, macs;

    count = e->pair_count - e->at;
    count = count < PIECE_PAIRS ? count : PIECE_PAIRS;
    count = count < (fit < 1 ? 1 : fit) ? count : (int)(fit < 1 ? 1 : fit);
    e->from = e->at;
    e->run_count = 0;
    for (int i = 0; i < count; i++) {
        const struct expert_pair *pair = e->pair + e->from + i;

        e->row[i] = pair->row;
        if (i == 0 || pair->expert != pair[-1].expert) {
            e->run[e->run_count].expert = (int)pair->expert;
            e->run[e->run_count].first = i;
            e->run[e->run_count++].count = 0;
        }
        e->run[e->run_count - 1].count++;
    }
    macs = count * each;
    e->inner_block = threads == 1 ? M : INNER_BLOCK;
    e->inner_blocks = (M + e->inner_block - 1) / e->inner_block;
    e->items = e->run_count * e->inner_blocks;
    e->units = piece_units(m, e->items, macs * 2 / 3, e->y_units);
    pool_run(m->pool, inner_unit, e, e->units);
    /* Narrower blocks where there are threads to feed, never narrower than a page of cache lines is worth. */
    e->output_block = threads == 1 || H > 4 * threads * OUTPUT_BLOCK ? OUTPUT_BLOCK : 96;
    e->items = (H + e->output_block - 1) / e->output_block;
    e->units = piece_units(m, e->items, macs / 3, e->y_units);
    pool_run(m->pool, output_unit, e, e->units);
    e->at += count;
    if (e->at < e->pair_count)
        return false;
    for (int s = 0; s < e->slot_count; s++)
        m->backend->narrow((char *)sums + (size_t)s * (size_t)H * model_carrier_bytes(m), model_carrier(m),
                           e->sum + (size_t)s * (size_t)H, H);
    return true;
}
