/* model - an open DeepSeek-V2 checkpoint, and which of its experts are here.
 *
 * model_open reads config.json, maps the safetensors and checks every tensor of the model (name,
 * shape, dtype) before it allocates anything; then it binds the trunk: all but the routed experts.
 * A shard's experts are bound when it is seated.  Where the format in memory is the file's, nothing is
 * copied and only the pages that are used are ever read; f32 arithmetic on a bf16 checkpoint also
 * reads the map, since widening is exact.
 *
 * Formats.  `f32` computes with f32 carriers; `bf16` rounds weights (round to nearest even, if the
 * checkpoint is finer) and carriers to bf16.  Norms and the router are never rounded below what the
 * checkpoint has.  An F16 checkpoint computes as f32.
 *
 * A model is used by one thread (the engine); its pool of compute threads is its own. */

#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/model/config.h"

enum weights { WEIGHTS_OF_CHECKPOINT, WEIGHTS_F32, WEIGHTS_BF16 };

enum { MODEL_FINGERPRINT_BYTES = 32, MODEL_NUMERICS_MAX = 40 };

struct model_options {
    enum weights weights;
    int threads;                   /* 0: one per available core */
    int shards;                    /* 0: from the configuration */
    const struct backend *backend; /* NULL: the fastest that this machine runs */
    int64_t
        piece_macs; /* multiply-adds a thread in one call of a stage; 0: below 20 ms even on a slow core */
};

struct model;

/* Errors name the file and the tensor or key, and what was expected. */
bool model_open(struct model **model, const char *dir, const struct model_options *options, struct err *err);
void model_free(struct model *model); /* NULL is fine; steps and caches of the model must be gone */

/* Binds a shard's experts in all layers.  Seating a seated shard is harmless. */
bool model_seat(struct model *model, int shard, struct err *err);
void model_unseat(struct model *model, int shard);
bool model_is_seated(const struct model *model, int shard);
bool model_seat_all(struct model *model, struct err *err);

const struct model_config *model_config(const struct model *model);
enum weights model_weights(const struct model *model); /* what it computes in: never WEIGHTS_OF_CHECKPOINT */
const char *weights_name(enum weights weights);        /* "f32", "bf16"; "" for WEIGHTS_OF_CHECKPOINT */
bool weights_parse(const char *name, enum weights *weights);

/* Carrier: the format of rows that could cross a link, of shard sums and of the latent cache. */
enum number model_carrier(const struct model *model);
size_t model_carrier_bytes(const struct model *model); /* of one value: 4 or 2 */
const char *model_family(const struct model *model);   /* "cpu-avx2" */
int model_threads(const struct model *model);
const struct backend *model_backend(const struct model *model);

/* What two workers must share to work on one request: a hash of the configuration, the tokenizer's
 * files, the weight format, the carrier, the shard layout and a manifest of the checkpoint's tensors. */
void model_fingerprint(const struct model *model, uint8_t fingerprint[MODEL_FINGERPRINT_BYTES]);
/* Short text for people and records: from fingerprint, weight format and kernel family. */
void model_numerics(const struct model *model, char numerics[MODEL_NUMERICS_MAX]);

/* Memory in bytes, mapped pages included. */
int64_t model_trunk_bytes(const struct model *model);
int64_t model_shard_bytes(const struct model *model);    /* the largest shard, all layers */
int64_t model_position_bytes(const struct model *model); /* of the latent cache, one position, all layers */

#endif
