/* weights - from tensors in mapped files to matrices that kernels read. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/inside.h"

static void shape_text(char *text, size_t size, const struct safetensors_entry *e)
{
    size_t used = 0;

    text[0] = 0;
    for (int i = 0; i < e->dimensions && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? "x" : "", (long long)e->shape[i]);
}

static bool check_tensor(const struct safetensors_entry *e, const struct tensor *t, struct err *err)
{
    char got[160], want[64];
    bool same = t->vector ? e->dimensions == 1 && e->shape[0] == t->columns
                          : e->dimensions == 2 && e->shape[0] == t->rows && e->shape[1] == t->columns;

    if (!same) {
        shape_text(got, sizeof got, e);
        if (t->vector)
            snprintf(want, sizeof want, "%d", t->columns);
        else
            snprintf(want, sizeof want, "%dx%d", t->rows, t->columns);
        return err_set(err, ERR_INPUT, "%s: tensor %s has shape %s; expected %s", e->file, t->name, got,
                       want);
    }
    if (e->dtype == DTYPE_OTHER)
        return err_set(err, ERR_INPUT, "%s: tensor %s has dtype %s; expected F32, BF16 or F16", e->file,
                       t->name, e->dtype_name);
    return true;
}

/* Tensors that a checkpoint may have beyond the model's. */
static bool may_be_ignored(const struct model_config *config, const char *name)
{
    static const char layers[] = "model.layers.", inv_freq[] = ".rotary_emb.inv_freq";
    size_t size = strlen(name);

    if (size > sizeof inv_freq - 1 && strcmp(name + size - (sizeof inv_freq - 1), inv_freq) == 0)
        return true; /* computed here */
    if (config->tied && strcmp(name, "lm_head.weight") == 0)
        return true;
    if (strncmp(name, layers, sizeof layers - 1) == 0) {
        char *end;
        unsigned long layer = strtoul(name + sizeof layers - 1, &end, 10);

        return end != name + sizeof layers - 1 && *end == '.' && layer >= (unsigned long)config->layers;
    }
    return false;
}

bool weights_check(const struct model_config *config, const struct safetensors *files, struct err *err)
{
    size_t count = safetensors_count(files);
    struct tensor_walk walk = { 0 };
    struct tensor t;
    bool *used = calloc(count + 1, sizeof *used), ok = false;

    if (!used)
        return err_set(err, ERR_IO, "no memory to check %zu tensors", count);
    while (tensor_next(config, &walk, &t)) {
        size_t i = safetensors_find(files, t.name);

        if (i == SAFETENSORS_NONE) {
            err_set(err, ERR_INPUT, "the checkpoint lacks tensor %s, which config.json asks for", t.name);
            goto out;
        }
        used[i] = true;
        if (!check_tensor(safetensors_at(files, i), &t, err))
            goto out;
    }
    for (size_t i = 0; i < count; i++)
        if (!used[i] && !may_be_ignored(config, safetensors_at(files, i)->name)) {
            err_set(err, ERR_INPUT, "%s: tensor %.128s is none that config.json knows of",
                    safetensors_at(files, i)->file, safetensors_at(files, i)->name);
            goto out;
        }
    if (safetensors_loose(files)) {
        err_set(err, ERR_INPUT, "%s", safetensors_loose(files));
        goto out;
    }
    ok = true;
out:
    free(used);
    return ok;
}

static const struct safetensors_entry *entry_of(const struct safetensors *files, const struct tensor *t)
{
    return safetensors_at(files, safetensors_find(files, t->name));
}

/* bf16 when every matrix (norms and routers aside) is; else f32. */
enum weights weights_of_checkpoint(const struct model_config *config, const struct safetensors *files)
{
    struct tensor_walk walk = { 0 };
    struct tensor t;

    while (tensor_next(config, &walk, &t))
        if (!t.vector && t.role != TENSOR_ROUTER && entry_of(files, &t)->dtype != DTYPE_BF16)
            return WEIGHTS_F32;
    return WEIGHTS_BF16;
}

static float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023, bits;
    float x;

    if (exponent == 0) {
        x = (float)fraction * 0x1p-24f;
        return sign ? -x : x;
    }
    bits = sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | fraction << 13;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void to_float(const struct backend *backend, float *out, const struct safetensors_entry *e,
                     uint64_t from, int n)
{
    if (e->dtype != DTYPE_F16) {
        enum number number = e->dtype == DTYPE_F32 ? NUMBER_F32 : NUMBER_BF16;

        backend->widen(out, e->data + from * number_bytes(number), number, n);
        return;
    }
    for (int i = 0; i < n; i++) {
        uint16_t half;

        memcpy(&half, e->data + (from + (uint64_t)i) * 2, 2);
        out[i] = half_to_float(half);
    }
}

/* The format a tensor has in memory. */
static enum number number_of(const struct model *model, const struct tensor *t, enum dtype dtype)
{
    if (t->vector)
        return NUMBER_F32;
    if (dtype == DTYPE_BF16)
        return NUMBER_BF16;
    return model->weights == WEIGHTS_BF16 && t->role != TENSOR_ROUTER ? NUMBER_BF16 : NUMBER_F32;
}

int64_t weights_tensor_bytes(const struct model *model, const struct tensor *t)
{
    return tensor_values(t) * (int64_t)number_bytes(number_of(model, t, entry_of(model->files, t)->dtype));
}

static bool bind_matrix(struct model *model, struct matrix *m, const struct tensor *t, struct err *err)
{
    enum { PART = 4096 };
    const struct safetensors_entry *e = entry_of(model->files, t);
    enum number number = number_of(model, t, e->dtype),
                stored = e->dtype == DTYPE_F32 ? NUMBER_F32 : NUMBER_BF16;
    int64_t values = tensor_values(t);
    float part[PART];

    *m = (struct matrix){ .data = e->data, .number = number, .rows = t->rows, .columns = t->columns };
    if (e->dtype != DTYPE_F16 && number == stored)
        return true;
    m->owned = malloc((size_t)values * number_bytes(number));
    if (!m->owned)
        return err_set(err, ERR_IO, "no memory for tensor %s (%lld bytes)", t->name,
                       (long long)(values * (int64_t)number_bytes(number)));
    m->data = m->owned;
    for (int64_t i = 0; i < values; i += PART) {
        int n = values - i < PART ? (int)(values - i) : PART;

        to_float(model->backend, part, e, (uint64_t)i, n);
        model->backend->narrow((char *)m->owned + (size_t)i * number_bytes(number), number, part, n);
    }
    return true;
}

static bool bind_vector(struct model *model, float **vector, const struct tensor *t, struct err *err)
{
    *vector = malloc((size_t)t->columns * sizeof **vector);
    if (!*vector)
        return err_set(err, ERR_IO, "no memory for tensor %s", t->name);
    to_float(model->backend, *vector, entry_of(model->files, t), 0, t->columns);
    return true;
}

static struct matrix *matrix_of(struct model *model, const struct tensor *t)
{
    struct layer_weights *l = t->layer >= 0 ? model->layer + t->layer : NULL;

    /* clang-format off: a table */
    switch (t->role) {
    case TENSOR_EMBED:
        return &model->embed;
    case TENSOR_HEAD:
        return &model->head;
    case TENSOR_Q:
        return &l->q;
    case TENSOR_Q_A:
        return &l->q_a;
    case TENSOR_Q_B:
        return &l->q_b;
    case TENSOR_KV_A:
        return &l->kv_a;
    case TENSOR_KV_B:
        return &l->kv_b;
    case TENSOR_O:
        return &l->o;
    case TENSOR_GATE:
    case TENSOR_SHARED_GATE:
        return &l->gate;
    case TENSOR_UP:
    case TENSOR_SHARED_UP:
        return &l->up;
    case TENSOR_DOWN:
    case TENSOR_SHARED_DOWN:
        return &l->down;
    case TENSOR_ROUTER:
        return &l->router;
    case TENSOR_EXPERT_GATE:
        return &l->expert[t->expert].gate;
    case TENSOR_EXPERT_UP:
        return &l->expert[t->expert].up;
    case TENSOR_EXPERT_DOWN:
        return &l->expert[t->expert].down;
    default:
        return NULL;
    }
    /* clang-format on */
}

static float **vector_of(struct model *model, const struct tensor *t)
{
    struct layer_weights *l = t->layer >= 0 ? model->layer + t->layer : NULL;

    /* clang-format off: a table */
    switch (t->role) {
    case TENSOR_FINAL_NORM:
        return &model->final_norm;
    case TENSOR_ATTEND_NORM:
        return &l->attend_norm;
    case TENSOR_Q_A_NORM:
        return &l->q_a_norm;
    case TENSOR_KV_A_NORM:
        return &l->kv_a_norm;
    case TENSOR_MLP_NORM:
        return &l->mlp_norm;
    default:
        return NULL;
    }
    /* clang-format on */
}

bool weights_bind_trunk(struct model *model, struct err *err)
{
    const struct model_config *c = &model->config;
    struct tensor_walk walk = { 0 };
    struct tensor t;

    model->layer = calloc((size_t)c->layers, sizeof *model->layer);
    if (!model->layer)
        return err_set(err, ERR_IO, "no memory for %d layers", c->layers);
    for (int l = 0; l < c->layers; l++)
        if (config_layer_is_moe(c, l)) {
            model->layer[l].expert = calloc((size_t)c->experts, sizeof *model->layer[l].expert);
            if (!model->layer[l].expert)
                return err_set(err, ERR_IO, "no memory for %d experts", c->experts);
        }
    while (tensor_next(c, &walk, &t)) {
        if (tensor_is_expert(&t)) {
            if (t.expert < c->experts_per_shard)
                model->shard_bytes += weights_tensor_bytes(model, &t);
            continue;
        }
        model->trunk_bytes += weights_tensor_bytes(model, &t);
        if (!(t.vector ? bind_vector(model, vector_of(model, &t), &t, err)
                       : bind_matrix(model, matrix_of(model, &t), &t, err)))
            return false;
    }
    if (c->tied) {
        model->head = model->embed;
        model->head.owned = NULL;
    }
    return true;
}

bool weights_bind_shard(struct model *model, int shard, struct err *err)
{
    const struct model_config *c = &model->config;
    struct tensor_walk walk = { 0 };
    struct tensor t;

    while (tensor_next(c, &walk, &t))
        if (tensor_is_expert(&t) && t.expert / c->experts_per_shard == shard &&
            !bind_matrix(model, matrix_of(model, &t), &t, err)) {
            weights_free_shard(model, shard);
            return false;
        }
    return true;
}

static void free_matrix(struct matrix *m)
{
    free(m->owned);
    memset(m, 0, sizeof *m);
}

void weights_free_shard(struct model *model, int shard)
{
    const struct model_config *c = &model->config;

    for (int l = 0; l < c->layers; l++)
        for (int i = 0; model->layer[l].expert && i < c->experts_per_shard; i++) {
            struct expert_weights *e = model->layer[l].expert + shard * c->experts_per_shard + i;

            free_matrix(&e->gate);
            free_matrix(&e->up);
            free_matrix(&e->down);
        }
}

void weights_free(struct model *model)
{
    for (int s = 0; model->layer && s < model->config.shards; s++)
        weights_free_shard(model, s);
    for (int i = 0; model->layer && i < model->config.layers; i++) {
        struct layer_weights *l = model->layer + i;
        struct matrix *m[] = { &l->q, &l->q_a,  &l->q_b, &l->kv_a, &l->kv_b,
                               &l->o, &l->gate, &l->up,  &l->down, &l->router };

        for (size_t j = 0; j < sizeof m / sizeof m[0]; j++)
            free_matrix(m[j]);
        free(l->attend_norm);
        free(l->q_a_norm);
        free(l->kv_a_norm);
        free(l->mlp_norm);
        free(l->expert);
    }
    free(model->layer);
    free(model->final_norm);
    free_matrix(&model->embed);
    free_matrix(&model->head);
}
