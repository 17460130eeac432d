/* tensors - the list of tensors that a configuration means: names, shapes, what each is for.
 *
 * One list serves all who need it: checking a checkpoint, binding it, counting parameters and memory,
 * the fingerprint's manifest.  Its order is fixed.  MODEL.md has it as a table. */

#ifndef MODEL_TENSORS_H
#define MODEL_TENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/model/config.h"

enum tensor_role {
    TENSOR_EMBED,
    TENSOR_FINAL_NORM,
    TENSOR_HEAD,
    TENSOR_ATTEND_NORM,
    TENSOR_Q,
    TENSOR_Q_A,
    TENSOR_Q_A_NORM,
    TENSOR_Q_B,
    TENSOR_KV_A,
    TENSOR_KV_A_NORM,
    TENSOR_KV_B,
    TENSOR_O,
    TENSOR_MLP_NORM,
    TENSOR_GATE,
    TENSOR_UP,
    TENSOR_DOWN,
    TENSOR_ROUTER,
    TENSOR_SHARED_GATE,
    TENSOR_SHARED_UP,
    TENSOR_SHARED_DOWN,
    TENSOR_EXPERT_GATE,
    TENSOR_EXPERT_UP,
    TENSOR_EXPERT_DOWN,
    TENSOR_ROLES
};

enum { TENSOR_NAME_MAX = 128 };

struct tensor {
    enum tensor_role role;
    int layer, expert; /* -1: of none */
    int rows, columns; /* a vector has rows 1 */
    bool vector;
    char name[TENSOR_NAME_MAX];
};

/* Start with a zeroed walk; false at the end. */
struct tensor_walk {
    int layer; /* 0: the model's own tensors; l + 1: layer l */
    int role;
    int expert;
};

bool tensor_next(const struct model_config *config, struct tensor_walk *walk, struct tensor *tensor);

static inline bool tensor_is_expert(const struct tensor *tensor)
{
    return tensor->expert >= 0;
}

static inline int64_t tensor_values(const struct tensor *tensor)
{
    return (int64_t)tensor->rows * tensor->columns;
}

#endif
