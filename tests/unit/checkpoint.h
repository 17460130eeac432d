/* checkpoint - a small random checkpoint on disk, for unit tests.  Scales as in a trained model, roughly:
 * attention attends and routers choose. */

#ifndef TESTS_CHECKPOINT_H
#define TESTS_CHECKPOINT_H

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/span.h"
#include "tests/check.h"
#include "worker/model/config.h"
#include "worker/model/tensors.h"

#define CHECKPOINT_CONFIG                                                                                    \
    "{\"architectures\":[\"DeepseekV2ForCausalLM\"],\"model_type\":\"deepseek_v2\",\"hidden_size\":44,"      \
    "\"num_hidden_layers\":3,\"num_attention_heads\":3,\"q_lora_rank\":17,\"kv_lora_rank\":21,\"qk_nope_"    \
    "head_dim\":12,"                                                                                         \
    "\"qk_rope_head_dim\":6,\"v_head_dim\":20,\"intermediate_size\":61,\"moe_intermediate_size\":28,"        \
    "\"n_routed_experts\":16,\"n_shared_experts\":2,\"num_experts_per_tok\":4,\"first_k_dense_replace\":1,"  \
    "\"topk_method\":\"group_limited_greedy\",\"n_group\":8,\"topk_group\":3,\"routed_scaling_factor\":4.0," \
    "\"vocab_size\":101,\"max_position_embeddings\":1024,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,"  \
    "\"original_max_position_embeddings\":128,\"mscale\":0.707,\"mscale_all_dim\":0.707}}"

static inline void checkpoint_put(const char *dir, const char *name, const void *bytes, size_t size)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    file = fopen(path, "wb");
    CHECK(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

static inline double checkpoint_normal(unsigned *seed)
{
    double a = (rand_r(seed) % 1000000 + 1) / 1000001.0, b = (rand_r(seed) % 1000000) / 1000000.0;

    return sqrt(-2 * log(a)) * cos(6.283185307179586 * b);
}

/* What may be asked of a checkpoint beyond its configuration. */
struct checkpoint_quirks {
    bool f32;              /* else bf16 */
    const char *leave_out; /* a tensor's name */
    const char *reshape;   /* a tensor that gets a row too many */
    const char *extra;     /* one more tensor, of one value */
    int pad;               /* spaces behind the header: any alignment of the data */
};

/* Writes config.json and model.safetensors into dir. */
static inline void checkpoint_write(const char *dir, const char *config_text, unsigned seed,
                                    struct checkpoint_quirks quirks)
{
    struct model_config config;
    struct tensor_walk walk = { 0 };
    struct tensor t;
    struct buf header = { 0 }, data = { 0 }, file = { 0 };
    struct err err = { 0 };
    uint64_t size;

    if (!config_parse(&config, span_text(config_text), "config.json", 0, &err))
        fail_msg("%s", err.text);
    buf_text(&header, "{");
    while (tensor_next(&config, &walk, &t)) {
        size_t from = data.size, bytes = quirks.f32 ? 4 : 2;
        int rows = t.rows + (quirks.reshape && strcmp(quirks.reshape, t.name) == 0);
        double gain = t.role == TENSOR_EMBED ? 1 : (t.role == TENSOR_HEAD ? 2.5 : 1.2) / sqrt(t.columns);

        if (quirks.leave_out && strcmp(quirks.leave_out, t.name) == 0)
            continue;
        for (int64_t i = 0; i < (int64_t)rows * t.columns; i++) {
            float value =
                (float)(t.vector ? 1 + 0.2 * checkpoint_normal(&seed) : gain * checkpoint_normal(&seed));
            uint32_t bits;
            uint16_t half;

            memcpy(&bits, &value, 4);
            half = (uint16_t)((bits + 0x8000) >> 16);
            buf_add(&data, quirks.f32 ? (void *)&value : (void *)&half, bytes);
        }
        buf_format(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":", header.size > 1 ? "," : "", t.name,
                   quirks.f32 ? "F32" : "BF16");
        if (t.vector)
            buf_format(&header, "[%d]", t.columns);
        else
            buf_format(&header, "[%d,%d]", rows, t.columns);
        buf_format(&header, ",\"data_offsets\":[%zu,%zu]}", from, data.size);
    }
    if (quirks.extra) {
        buf_format(&header, ",\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}",
                   quirks.extra, data.size, data.size + 1);
        buf_add(&data, "x", 1);
    }
    buf_format(&header, "}%*s", quirks.pad, "");
    size = header.size;
    buf_add(&file, &size, 8);
    buf_add(&file, header.data, header.size);
    buf_add(&file, data.data, data.size);
    checkpoint_put(dir, "config.json", config_text, strlen(config_text));
    checkpoint_put(dir, "model.safetensors", file.data, file.size);
    buf_fini(&header);
    buf_fini(&data);
    buf_fini(&file);
}

/* A new directory; freed with checkpoint_remove. */
static inline char *checkpoint_dir(void)
{
    char *dir = strdup("/tmp/moothall-checkpoint-XXXXXX");

    CHECK(mkdtemp(dir));
    return dir;
}

static inline void checkpoint_remove(char *dir)
{
    DIR *list = opendir(dir);
    struct dirent *entry;

    while (list && (entry = readdir(list))) {
        char path[512];

        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        unlink(path);
    }
    if (list)
        closedir(list);
    rmdir(dir);
    free(dir);
}

#endif
