/* config - what a model is: its dimensions and switches, from config.json.
 *
 * Both styles are read: `rope_scaling` beside `rope_theta`, and the one object `rope_parameters`.
 * What this code does not compute is refused by name (architecture, topk_method, scoring_func, rope
 * type, hidden_act, biases, quantised checkpoints), never approximated.  Every number has a range,
 * and the ranges are such that no product of two dimensions overflows an int64.
 *
 * The experts of a layer are cut into shards: fixed, contiguous, equal ranges of expert ids, the same
 * in every layer, computed from the configuration alone.  Shards are what workers hold and exchange. */

#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

enum {
    CONFIG_FILE_MAX = 1024 * 1024, /* bytes of config.json */
    CONFIG_LAYERS_MAX = 1024,
    CONFIG_EXPERTS_MAX = 4096,
    CONFIG_TOPK_MAX = 64,
    CONFIG_SHARDS_MAX = 256,
};

enum topk_method {
    TOPK_GREEDY,        /* the k largest scores */
    TOPK_GROUP_LIMITED, /* of the best topk_group of n_group groups (a group's score: its largest) */
};

struct model_config {
    int hidden;     /* H */
    int layers;     /* L */
    int vocab;      /* V: rows of the embedding and of the head; the tokenizer may know fewer */
    int context;    /* max_position_embeddings */
    bool tied;      /* the head is the embedding */
    float norm_eps; /* of the layers' norms; the latents' norms always use 1e-6, as DeepSeek's code does */

    int heads;            /* n */
    int q_lora;           /* 0: queries come from one matrix */
    int kv_lora;          /* r: width of the latent */
    int qk_nope, qk_rope; /* per head; qk_rope is even */
    int v_head;

    int dense_inner; /* width of a dense layer's MLP */
    int experts;     /* E; 0: every layer is dense */
    int experts_per_token;
    int expert_inner;   /* M */
    int shared_experts; /* stored as one MLP of width shared_experts * M; 0: none */
    int first_dense;    /* first_k_dense_replace */
    int moe_every;      /* moe_layer_freq */

    enum topk_method topk_method;
    int groups, topk_groups; /* 1 and 1 unless group limited */
    bool norm_topk;          /* weights divided by their sum, instead of multiplied by routed_scale */
    float routed_scale;

    double rope_base;
    bool yarn;
    double yarn_factor, yarn_beta_fast, yarn_beta_slow, yarn_mscale, yarn_mscale_all_dim;
    int yarn_original; /* context before YaRN */

    int shards, experts_per_shard; /* shards * experts_per_shard == experts; 0 shards when there are none */
};

/* shards: 0, or an override that must divide the number of experts.  Errors name file, key and what was
 * expected. */
bool config_load(struct model_config *config, const char *path, int shards, struct err *err);
/* The same from text; path is used in errors only. */
bool config_parse(struct model_config *config, struct span text, const char *path, int shards,
                  struct err *err);

static inline bool config_layer_is_moe(const struct model_config *config, int layer)
{
    return config->experts > 0 && layer >= config->first_dense && layer % config->moe_every == 0;
}

int config_moe_layers(const struct model_config *config);

static inline int config_qk(const struct model_config *config) /* width of one head's query */
{
    return config->qk_nope + config->qk_rope;
}

/* What the cache keeps of a position, per layer. */
static inline int config_latent(const struct model_config *config)
{
    return config->kv_lora + config->qk_rope;
}

/* The numbers every kernel needs from rope and YaRN: inv_freq: [qk_rope / 2]; amplitude multiplies
 * cos and sin; scale is the softmax scale, YaRN's squared factor included. */
void config_rope(const struct model_config *config, double *inv_freq, double *amplitude, double *scale);

/* Counted from the same list of tensors that loading checks. */
struct config_counts {
    int64_t tensors, parameters;
    int64_t active_parameters; /* used by one token, embedding table left out, head included */
    int64_t trunk_parameters;  /* all but routed experts */
    int64_t shard_parameters;  /* of one shard, all layers */
};

struct config_counts config_counts(const struct model_config *config);

/* Every field that changes a result, one per line, in a fixed order and spelling: what the fingerprint
 * hashes. */
bool config_canonical(const struct model_config *config, struct buf *text);

#endif
