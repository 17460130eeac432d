#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/model/inside.h"

static int cores(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set))
        return 1;
    return CPU_COUNT(&set) < POOL_THREADS_MAX ? CPU_COUNT(&set) : POOL_THREADS_MAX;
}

static bool is_directory(const char *dir, struct err *err)
{
    struct stat st;

    if (stat(dir, &st))
        return err_errno(err, "open %s", dir);
    return S_ISDIR(st.st_mode) ||
           err_set(err, ERR_INPUT, "not a directory; expected one with config.json and *.safetensors");
}

static bool open_files(struct model *model, const char *dir, const struct model_options *options,
                       struct err *err)
{
    char *path;
    bool ok;

    if (!is_directory(dir, err))
        return false;
    if (asprintf(&path, "%s/config.json", dir) < 0)
        return err_set(err, ERR_IO, "no memory");
    ok = config_load(&model->config, path, options->shards, err);
    free(path);
    return ok && safetensors_open(&model->files, dir, err) &&
           weights_check(&model->config, model->files, err);
}

bool model_open(struct model **out, const char *dir, const struct model_options *options, struct err *err)
{
    struct model *model = calloc(1, sizeof *model);

    if (!model)
        return err_set(err, ERR_IO, "no memory for a model");
    model->backend = options->backend ? options->backend : backend_best(err);
    if (!model->backend || !model->backend->usable(err) || !open_files(model, dir, options, err))
        goto fail;
    model->weights = options->weights == WEIGHTS_OF_CHECKPOINT
                         ? weights_of_checkpoint(&model->config, model->files)
                         : options->weights;
    model->piece_macs = options->piece_macs > 0 ? options->piece_macs : PIECE_MACS;
    model->inv_freq = calloc((size_t)model->config.qk_rope / 2, sizeof *model->inv_freq);
    if (!model->inv_freq) {
        err_set(err, ERR_IO, "no memory for a model");
        goto fail;
    }
    config_rope(&model->config, model->inv_freq, &model->rope_amplitude, &model->softmax_scale);
    if (!weights_bind_trunk(model, err) || !fingerprint_compute(model, dir, err) ||
        !pool_new(&model->pool, options->threads ? options->threads : cores(), err))
        goto fail;
    *out = model;
    return true;
fail:
    model_free(model);
    return err_wrap(err, "open model %s", dir);
}

void model_free(struct model *model)
{
    if (!model)
        return;
    pool_free(model->pool);
    weights_free(model);
    safetensors_close(model->files);
    free(model->inv_freq);
    free(model);
}

bool model_seat(struct model *model, int shard, struct err *err)
{
    if (shard < 0 || shard >= model->config.shards)
        return err_set(err, ERR_INPUT, "shard %d; the model has shards 0 to %d", shard,
                       model->config.shards - 1);
    if (!model->seated[shard] && !weights_bind_shard(model, shard, err))
        return err_wrap(err, "seat shard %d", shard);
    model->seated[shard] = true;
    return true;
}

void model_unseat(struct model *model, int shard)
{
    if (!model_is_seated(model, shard))
        return;
    model->seated[shard] = false;
    weights_free_shard(model, shard);
}

bool model_is_seated(const struct model *model, int shard)
{
    return shard >= 0 && shard < model->config.shards && model->seated[shard];
}

bool model_seat_all(struct model *model, struct err *err)
{
    for (int s = 0; s < model->config.shards; s++)
        if (!model_seat(model, s, err))
            return false;
    return true;
}

const struct model_config *model_config(const struct model *model)
{
    return &model->config;
}

enum weights model_weights(const struct model *model)
{
    return model->weights;
}

const struct backend *model_backend(const struct model *model)
{
    return model->backend;
}

const char *weights_name(enum weights weights)
{
    return weights == WEIGHTS_F32 ? "f32" : weights == WEIGHTS_BF16 ? "bf16" : "";
}

bool weights_parse(const char *name, enum weights *weights)
{
    for (enum weights w = WEIGHTS_F32; w <= WEIGHTS_BF16; w++)
        if (strcmp(name, weights_name(w)) == 0) {
            *weights = w;
            return true;
        }
    return false;
}

enum number model_carrier(const struct model *model)
{
    return model->weights == WEIGHTS_F32 ? NUMBER_F32 : NUMBER_BF16;
}

size_t model_carrier_bytes(const struct model *model)
{
    return number_bytes(model_carrier(model));
}

const char *model_family(const struct model *model)
{
    return model->backend->family;
}

int model_threads(const struct model *model)
{
    return pool_threads(model->pool);
}

int64_t model_trunk_bytes(const struct model *model)
{
    return model->trunk_bytes;
}

int64_t model_shard_bytes(const struct model *model)
{
    return model->shard_bytes;
}

int64_t model_position_bytes(const struct model *model)
{
    return (int64_t)model->config.layers * config_latent(&model->config) *
           (int64_t)model_carrier_bytes(model);
}
