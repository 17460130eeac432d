/* inspect - what a model is, and what a worker needs for it. */

#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "client/say.h"
#include "client/verbs.h"
#include "worker/model/model.h"

enum { WORKERS_MAX = 256 };

static const char *const weights_choices[] = { "auto", "f32", "bf16", "q8", "q4", NULL };

struct options {
    int64_t workers;
    int weights;
    bool json;
};

static const struct field fields[] = {
    { "workers", OPTION_NUMBER(struct options, workers, FIELD_INT, 1, WORKERS_MAX),
      "show the memory of 1 to N workers (as many as shards, at most 8)" },
    { "weights", OPTION_CHOICE(struct options, weights, weights_choices),
      "format computed in: auto (what the checkpoint has), f32, bf16" },
    { "json", OPTION_FLAG(struct options, json), "one JSON object" },
};

struct facts {
    const struct model_config *config;
    struct config_counts counts;
    const char *weights, *carrier, *family;
    char fingerprint[2 * MODEL_FINGERPRINT_BYTES + 1], numerics[MODEL_NUMERICS_MAX];
    int64_t trunk_bytes, shard_bytes, position_bytes;
    int workers;
};

/* The most shards that one of so many workers holds. */
static int shards_of(const struct facts *f, int workers)
{
    return (f->config->shards + workers - 1) / workers;
}

static int64_t weights_bytes(const struct facts *f, int workers)
{
    return f->trunk_bytes + shards_of(f, workers) * f->shard_bytes;
}

static void print_json(const struct facts *f)
{
    const struct model_config *c = f->config;
    json_t *root = json_object(), *memory = json_array();

    json_object_set_new(root, "parameters", json_integer((json_int_t)f->counts.parameters));
    json_object_set_new(root, "active_parameters", json_integer((json_int_t)f->counts.active_parameters));
    json_object_set_new(root, "trunk_parameters", json_integer((json_int_t)f->counts.trunk_parameters));
    json_object_set_new(root, "shard_parameters", json_integer((json_int_t)f->counts.shard_parameters));
    json_object_set_new(root, "tensors", json_integer((json_int_t)f->counts.tensors));
    json_object_set_new(root, "layers", json_integer(c->layers));
    json_object_set_new(root, "moe_layers", json_integer(config_moe_layers(c)));
    json_object_set_new(root, "hidden", json_integer(c->hidden));
    json_object_set_new(root, "vocabulary", json_integer(c->vocab));
    json_object_set_new(root, "context", json_integer(c->context));
    json_object_set_new(root, "heads", json_integer(c->heads));
    json_object_set_new(root, "q_lora", json_integer(c->q_lora));
    json_object_set_new(root, "kv_lora", json_integer(c->kv_lora));
    json_object_set_new(root, "experts", json_integer(c->experts));
    json_object_set_new(root, "experts_per_token", json_integer(c->experts_per_token));
    json_object_set_new(root, "shared_experts", json_integer(c->shared_experts));
    json_object_set_new(root, "expert_inner", json_integer(c->expert_inner));
    json_object_set_new(root, "dense_inner", json_integer(c->dense_inner));
    json_object_set_new(root, "shards", json_integer(c->shards));
    json_object_set_new(root, "experts_per_shard", json_integer(c->experts_per_shard));
    json_object_set_new(root, "weights", json_string(f->weights));
    json_object_set_new(root, "carrier", json_string(f->carrier));
    json_object_set_new(root, "family", json_string(f->family));
    json_object_set_new(root, "numerics", json_string(f->numerics));
    json_object_set_new(root, "fingerprint", json_string(f->fingerprint));
    json_object_set_new(root, "trunk_bytes", json_integer((json_int_t)f->trunk_bytes));
    json_object_set_new(root, "shard_bytes", json_integer((json_int_t)f->shard_bytes));
    json_object_set_new(root, "position_bytes", json_integer((json_int_t)f->position_bytes));
    for (int n = 1; n <= f->workers; n++)
        json_array_append_new(memory,
                              json_pack("{s:i,s:i,s:I,s:I}", "workers", n, "shards", shards_of(f, n),
                                        "weights_bytes", (json_int_t)weights_bytes(f, n), "context_bytes",
                                        (json_int_t)(f->position_bytes * c->context)));
    json_object_set_new(root, "memory", memory);
    json_dumpf(root, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(root);
}

static void print_bytes(int64_t bytes, int width)
{
    static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double value = (double)bytes;
    int i = 0;

    while (value >= 1024 && i < 4) {
        value /= 1024;
        i++;
    }
    printf("%*.*f %s", width, i ? 1 : 0, value, unit[i]);
}

static void print_facts(const char *dir, const struct facts *f)
{
    const struct model_config *c = f->config;

    printf("%s\n", dir);
    printf("  parameters    %" PRId64 " (%.2f B), %" PRId64 " of them active for a token\n",
           f->counts.parameters, (double)f->counts.parameters / 1e9, f->counts.active_parameters);
    printf("  layers        %d, %d of them with experts; hidden %d; vocabulary %d; context %d\n", c->layers,
           config_moe_layers(c), c->hidden, c->vocab, c->context);
    printf("  attention     %d heads; latent %d + %d; queries from %s%d; keys %d + %d, values %d a head\n",
           c->heads, c->kv_lora, c->qk_rope, c->q_lora ? "a latent of " : "the hidden state of ",
           c->q_lora ? c->q_lora : c->hidden, c->qk_nope, c->qk_rope, c->v_head);
    if (c->experts) {
        printf("  experts       %d of width %d a layer, %d for a token (%s", c->experts, c->expert_inner,
               c->experts_per_token, c->topk_method == TOPK_GROUP_LIMITED ? "" : "greedy");
        if (c->topk_method == TOPK_GROUP_LIMITED)
            printf("from %d of %d groups", c->topk_groups, c->groups);
        printf("), %d shared; dense layers of width %d\n", c->shared_experts, c->dense_inner);
        printf("  shards        %d of %d experts, %" PRId64 " parameters each\n", c->shards,
               c->experts_per_shard, f->counts.shard_parameters);
    } else {
        printf("  experts       none; dense layers of width %d\n", c->dense_inner);
    }
    printf("  format        weights %s, carrier %s, kernel family %s\n", f->weights, f->carrier, f->family);
    printf("  fingerprint   %s\n  numerics      %s\n\n", f->fingerprint, f->numerics);
    printf("  memory of each worker (the largest share; a position of context takes ");
    print_bytes(f->position_bytes, 0);
    printf(")\n    workers   shards      weights   with one full context\n");
    for (int n = 1; n <= f->workers; n++) {
        printf("    %7d   %6d   ", n, shards_of(f, n));
        print_bytes(weights_bytes(f, n), 6);
        printf("   ");
        print_bytes(weights_bytes(f, n) + f->position_bytes * c->context, 6);
        printf("\n");
    }
}

static int inspect_verb(const struct verb *verb, int argc, char **argv)
{
    struct options options = { 0 };
    struct model_options model_options = { .threads = 1 };
    struct model *model = NULL;
    struct facts facts;
    uint8_t fingerprint[MODEL_FINGERPRINT_BYTES];
    struct err err = { 0 };

    if (!verb_flags(verb, &argc, argv, &options, &err))
        return say_failed("inspect", &err);
    if (argc != 2) {
        err_set(&err, ERR_INPUT,
                argc < 2 ? "no model: expected its directory"
                         : "expected one model's directory, found also `%.200s`",
                argc < 2 ? "" : argv[2]);
        return say_failed("inspect", &err);
    }
    if (options.weights >= 3) {
        err_set(&err, ERR_INPUT, "--weights %s: quantised weights are not built yet; expected f32 or bf16",
                weights_choices[options.weights]);
        return say_failed("inspect", &err);
    }
    model_options.weights = options.weights == 1   ? WEIGHTS_F32
                            : options.weights == 2 ? WEIGHTS_BF16
                                                   : WEIGHTS_OF_CHECKPOINT;
    if (!model_open(&model, argv[1], &model_options, &err))
        return say_failed("inspect", &err);
    facts.config = model_config(model);
    facts.counts = config_counts(facts.config);
    facts.weights = weights_name(model_weights(model));
    facts.carrier = model_carrier(model) == NUMBER_F32 ? "f32" : "bf16";
    facts.family = model_family(model);
    facts.trunk_bytes = model_trunk_bytes(model);
    facts.shard_bytes = model_shard_bytes(model);
    facts.position_bytes = model_position_bytes(model);
    model_fingerprint(model, fingerprint);
    sodium_bin2hex(facts.fingerprint, sizeof facts.fingerprint, fingerprint, sizeof fingerprint);
    model_numerics(model, facts.numerics);
    facts.workers = options.workers            ? (int)options.workers
                    : facts.config->shards < 8 ? facts.config->shards
                                               : 8;
    if (facts.workers < 1)
        facts.workers = 1;
    if (options.json)
        print_json(&facts);
    else
        print_facts(argv[1], &facts);
    model_free(model);
    if (fflush(stdout) != 0) {
        err_errno(&err, "write standard output");
        return say_failed("inspect", &err);
    }
    return 0;
}

const struct verb verb_inspect = {
    .name = "inspect",
    .what = "a model's parameters, shapes and shards, and the memory a worker needs",
    .words = "DIR [--workers N] [--weights W] [--json]",
    .more = "Checks every tensor's name, shape and format as a worker would.",
    .example = "moothall inspect DeepSeek-V2-Lite-Chat --workers 4",
    .fields = fields,
    .field_count = OPTION_COUNT(fields),
    .run = inspect_verb,
};
