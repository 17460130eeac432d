/* inside - what the files of the model know of each other.  Nobody else includes this. */

#ifndef MODEL_INSIDE_H
#define MODEL_INSIDE_H

#include "kernels/backend.h"
#include "kernels/pool.h"
#include "worker/model/cache.h"
#include "worker/model/config.h"
#include "worker/model/forward.h"
#include "worker/model/model.h"
#include "worker/model/safetensors.h"
#include "worker/model/tensors.h"

/* A weight, [rows, columns] row-major.  data lies in the file's map, or is owned. */
struct matrix {
    const void *data;
    void *owned;
    enum number number;
    int rows, columns;
};

struct expert_weights {
    struct matrix gate, up, down; /* [M, H], [M, H], [H, M]; data is NULL unless seated */
};

struct layer_weights {
    float *attend_norm, *q_a_norm, *kv_a_norm, *mlp_norm;
    struct matrix q, q_a, q_b, kv_a, kv_b, o;
    struct matrix gate, up, down; /* dense, or the shared experts */
    struct matrix router;
    struct expert_weights *expert; /* [E]; NULL in a dense layer */
};

struct model {
    struct model_config config;
    const struct backend *backend;
    struct pool *pool;
    struct safetensors *files;
    enum weights weights;
    struct matrix embed, head; /* a tied head shares the embedding's data */
    float *final_norm;
    struct layer_weights *layer;
    bool seated[CONFIG_SHARDS_MAX];
    uint8_t fingerprint[MODEL_FINGERPRINT_BYTES];
    int64_t trunk_bytes, shard_bytes;
    double *inv_freq; /* [qk_rope / 2] */
    double rope_amplitude, softmax_scale;
    int64_t piece_macs;
};

/* weights.c: checks every tensor of the model, then binds the trunk. */
bool weights_check(const struct model_config *config, const struct safetensors *files, struct err *err);
enum weights weights_of_checkpoint(const struct model_config *config, const struct safetensors *files);
bool weights_bind_trunk(struct model *model, struct err *err);
bool weights_bind_shard(struct model *model, int shard, struct err *err);
void weights_free_shard(struct model *model, int shard);
void weights_free(struct model *model);
int64_t weights_tensor_bytes(const struct model *model, const struct tensor *tensor); /* in memory */

/* route.c: score [E] after the softmax; choice [k], ascending by expert. */
void route_choose(const struct model_config *config, const float *score, struct forward_choice *choice);

/* fingerprint.c */
bool fingerprint_compute(struct model *model, const char *dir, struct err *err);

/* One call of a stage does about so many multiply-adds a thread: 20 ms at 15 GFLOP/s.  A three-hundredth of
 * that, some ten microseconds, is the least that is worth another thread. */
enum { PIECE_MACS = 150 * 1000 * 1000, PIECE_UNITS = 300 };

enum {
    MLP_ROWS = 256,    /* rows that go through a dense or shared MLP together */
    ABSORB_ROWS = 64,  /* generated rows whose absorbed queries exist at once */
    ABSORB_HEADS = 16, /* heads that share a pass over a page */
    EXPAND_ROWS = 64,  /* rows that meet an expanded block together */
};

/* A step's workspace.  Shapes in brackets; n heads, T rows. */
struct forward {
    struct model *model;
    int rows_max, logits_max, row_count;
    struct forward_row *row;
    float *x;             /* [T, H] the residual stream */
    float *u;             /* [T, H] what the layer's half works on: a norm of x */
    float *t;             /* [T, H] what it gives */
    float *q_a;           /* [T, q_lora] */
    float *q;             /* [T, n, qk], scaled */
    float *kv;            /* [T, kv_lora + qk_rope] */
    float *attended;      /* [T, n, v_head] */
    float *block_max;     /* [T, n] of the softmax so far */
    float *block_sum;     /* [T, n] */
    float *cosine, *sine; /* [T, qk_rope / 2] */
    int *generated;       /* rows in the absorbed form */
    int generated_count;
    float *q_absorbed;             /* [ABSORB_ROWS, n, kv_lora + qk_rope] */
    float *z;                      /* [ABSORB_ROWS, n, kv_lora] */
    float *gate, *up;              /* [MLP_ROWS, inner] */
    float *scores;                 /* [T, E] of the router */
    struct forward_choice *choice; /* [T, k] */
    void *carried;                 /* [T, H] in the carrier */
    int *wanted;                   /* rows that want logits */
    int wanted_count, logits_first;
    float *final;   /* [logits_max, H] */
    float *logits;  /* [logits_max, V] */
    float *scratch; /* [scratch_units, scratch_floats] */
    size_t scratch_floats;
    int scratch_units;

    /* Where the stage in progress stands. */
    int phase, at, run, block, head;

    /* forward_run's own. */
    struct expert_pair *pair;
    uint16_t *slot_row, *slot_shard;
    struct forward_sum *sum;
    unsigned char *sums;
};

/* out[rows, from..] = x * w^T for as many outputs as the budget allows; true when all are done.  With
 * add: the same is also added to add[rows, ...] (same stride as out). */
struct matmul {
    const struct forward *step;
    float *out, *add;
    const float *x;
    const struct matrix *w;
    size_t out_stride, x_stride;
    int rows, from, to, block;
};
bool matmul_piece(const struct forward *step, int *at, int64_t *budget, float *out, size_t out_stride,
                  const float *x, size_t x_stride, int rows, const struct matrix *w, float *add);

int64_t piece_budget(const struct model *model);
/* In how many units to cut work of so many multiply-adds over so many items. */
int piece_units(const struct model *model, int items, int64_t macs, int units_max);
/* From norm `gain`: u = norm(x) */
void forward_norm_rows(struct forward *step, float *out, const float *x, const float *gain, int rows,
                       int width, float eps);

#endif
