#include "worker/model/tensors.h"

#include <stdio.h>

static const char *const suffix[TENSOR_ROLES] = {
    [TENSOR_EMBED] = "model.embed_tokens",
    [TENSOR_FINAL_NORM] = "model.norm",
    [TENSOR_HEAD] = "lm_head",
    [TENSOR_ATTEND_NORM] = "input_layernorm",
    [TENSOR_Q] = "self_attn.q_proj",
    [TENSOR_Q_A] = "self_attn.q_a_proj",
    [TENSOR_Q_A_NORM] = "self_attn.q_a_layernorm",
    [TENSOR_Q_B] = "self_attn.q_b_proj",
    [TENSOR_KV_A] = "self_attn.kv_a_proj_with_mqa",
    [TENSOR_KV_A_NORM] = "self_attn.kv_a_layernorm",
    [TENSOR_KV_B] = "self_attn.kv_b_proj",
    [TENSOR_O] = "self_attn.o_proj",
    [TENSOR_MLP_NORM] = "post_attention_layernorm",
    [TENSOR_GATE] = "mlp.gate_proj",
    [TENSOR_UP] = "mlp.up_proj",
    [TENSOR_DOWN] = "mlp.down_proj",
    [TENSOR_ROUTER] = "mlp.gate",
    [TENSOR_SHARED_GATE] = "mlp.shared_experts.gate_proj",
    [TENSOR_SHARED_UP] = "mlp.shared_experts.up_proj",
    [TENSOR_SHARED_DOWN] = "mlp.shared_experts.down_proj",
    [TENSOR_EXPERT_GATE] = "gate_proj",
    [TENSOR_EXPERT_UP] = "up_proj",
    [TENSOR_EXPERT_DOWN] = "down_proj",
};

/* Whether a layer has this tensor, and its shape.  rows 0: a vector. */
static bool shape_of(const struct model_config *c, int role, int layer, int *rows, int *columns)
{
    bool moe = layer >= 0 && config_layer_is_moe(c, layer), q_lora = c->q_lora > 0;
    bool shared = moe && c->shared_experts > 0;
    int h = c->hidden, inner = c->shared_experts * c->expert_inner;

    /* clang-format off: a table */
    switch (role) {
    case TENSOR_EMBED:
        *rows = c->vocab, *columns = h;
        return true;
    case TENSOR_FINAL_NORM:
        *rows = 0, *columns = h;
        return true;
    case TENSOR_HEAD:
        *rows = c->vocab, *columns = h;
        return !c->tied;
    case TENSOR_ATTEND_NORM:
    case TENSOR_MLP_NORM:
        *rows = 0, *columns = h;
        return true;
    case TENSOR_Q:
        *rows = c->heads * config_qk(c), *columns = h;
        return !q_lora;
    case TENSOR_Q_A:
        *rows = c->q_lora, *columns = h;
        return q_lora;
    case TENSOR_Q_A_NORM:
        *rows = 0, *columns = c->q_lora;
        return q_lora;
    case TENSOR_Q_B:
        *rows = c->heads * config_qk(c), *columns = c->q_lora;
        return q_lora;
    case TENSOR_KV_A:
        *rows = config_latent(c), *columns = h;
        return true;
    case TENSOR_KV_A_NORM:
        *rows = 0, *columns = c->kv_lora;
        return true;
    case TENSOR_KV_B:
        *rows = c->heads * (c->qk_nope + c->v_head), *columns = c->kv_lora;
        return true;
    case TENSOR_O:
        *rows = h, *columns = c->heads * c->v_head;
        return true;
    case TENSOR_GATE:
    case TENSOR_UP:
        *rows = c->dense_inner, *columns = h;
        return !moe;
    case TENSOR_DOWN:
        *rows = h, *columns = c->dense_inner;
        return !moe;
    case TENSOR_ROUTER:
        *rows = c->experts, *columns = h;
        return moe;
    case TENSOR_SHARED_GATE:
    case TENSOR_SHARED_UP:
        *rows = inner, *columns = h;
        return shared;
    case TENSOR_SHARED_DOWN:
        *rows = h, *columns = inner;
        return shared;
    case TENSOR_EXPERT_GATE:
    case TENSOR_EXPERT_UP:
        *rows = c->expert_inner, *columns = h;
        return moe;
    case TENSOR_EXPERT_DOWN:
        *rows = h, *columns = c->expert_inner;
        return moe;
    default:
        return false;
    }
    /* clang-format on */
}

bool tensor_next(const struct model_config *c, struct tensor_walk *walk, struct tensor *t)
{
    for (;;) {
        int last = walk->layer == 0 ? TENSOR_HEAD : TENSOR_EXPERT_DOWN, role = walk->role,
            layer = walk->layer - 1;

        if (walk->layer > c->layers)
            return false;
        if (role > last) {
            /* The experts' three roles are walked once an expert. */
            if (layer >= 0 && config_layer_is_moe(c, layer) && ++walk->expert < c->experts) {
                walk->role = TENSOR_EXPERT_GATE;
                continue;
            }
            walk->layer++;
            walk->expert = 0;
            walk->role = TENSOR_ATTEND_NORM;
            continue;
        }
        walk->role++;
        if (!shape_of(c, role, layer, &t->rows, &t->columns))
            continue;
        t->role = (enum tensor_role)role;
        t->layer = layer;
        t->expert = role >= TENSOR_EXPERT_GATE ? walk->expert : -1;
        t->vector = t->rows == 0;
        if (t->vector)
            t->rows = 1;
        if (layer < 0)
            snprintf(t->name, sizeof t->name, "%s.weight", suffix[role]);
        else if (t->expert < 0)
            snprintf(t->name, sizeof t->name, "model.layers.%d.%s.weight", layer, suffix[role]);
        else
            snprintf(t->name, sizeof t->name, "model.layers.%d.mlp.experts.%d.%s.weight", layer, t->expert,
                     suffix[role]);
        return true;
    }
}
