#include "worker/model/config.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/model/tensors.h"

/* An object of the file, and how its keys are named in errors ("rope_scaling."). */
struct reader {
    const json_t *object;
    const char *path, *prefix;
    struct err *err;
};

static const json_t *find(const struct reader *r, const char *key) /* null counts as absent */
{
    const json_t *value = json_object_get(r->object, key);

    return value && !json_is_null(value) ? value : NULL;
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "text";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    default:
        return "null";
    }
}

static bool wrong(const struct reader *r, const char *key, const json_t *value, const char *expected)
{
    return err_set(r->err, ERR_INPUT, "%s: key `%s%s` is %s; expected %s", r->path, r->prefix, key,
                   type_name(value), expected);
}

enum { REQUIRED = -1 };

/* otherwise: the value of an absent key, or REQUIRED. */
static bool read_int(const struct reader *r, const char *key, int low, int high, int otherwise, int *into)
{
    const json_t *value = find(r, key);
    double real;

    if (!value) {
        if (otherwise == REQUIRED)
            return err_set(r->err, ERR_INPUT,
                           "%s: key `%s%s` is missing; expected a whole number from %d to %d", r->path,
                           r->prefix, key, low, high);
        *into = otherwise;
        return true;
    }
    if (!json_is_number(value))
        return wrong(r, key, value, "a whole number");
    real = json_number_value(value); /* some exports write 4096.0 */
    if (!(real >= low && real <= high) || real != floor(real))
        return err_set(r->err, ERR_INPUT, "%s: key `%s%s` is %.10g; expected a whole number from %d to %d",
                       r->path, r->prefix, key, real, low, high);
    *into = (int)real;
    return true;
}

static bool read_real(const struct reader *r, const char *key, double low, double high, double otherwise,
                      double *into)
{
    const json_t *value = find(r, key);

    if (!value) {
        *into = otherwise;
        if (isnan(otherwise))
            return err_set(r->err, ERR_INPUT, "%s: key `%s%s` is missing; expected a number", r->path,
                           r->prefix, key);
        return true;
    }
    if (!json_is_number(value))
        return wrong(r, key, value, "a number");
    *into = json_number_value(value);
    if (!(*into >= low && *into <= high))
        return err_set(r->err, ERR_INPUT, "%s: key `%s%s` is %.10g; expected a number from %g to %g", r->path,
                       r->prefix, key, *into, low, high);
    return true;
}

static bool read_bool(const struct reader *r, const char *key, bool *into)
{
    const json_t *value = find(r, key);

    *into = false;
    if (!value)
        return true;
    if (!json_is_boolean(value))
        return wrong(r, key, value, "true or false");
    *into = json_is_true(value);
    return true;
}

/* The index of the text among choices (NULL-terminated); otherwise when absent. */
static bool read_choice(const struct reader *r, const char *key, const char *const *choices, int otherwise,
                        int *into)
{
    const json_t *value = find(r, key);
    char list[256] = "";
    size_t used = 0;

    *into = otherwise;
    if (!value)
        return true;
    if (!json_is_string(value))
        return wrong(r, key, value, "text");
    for (int i = 0; choices[i]; i++) {
        if (strcmp(choices[i], json_string_value(value)) == 0) {
            *into = i;
            return true;
        }
        used += (size_t)snprintf(list + used, sizeof list - used, "%s`%s`", i ? ", " : "", choices[i]);
    }
    return err_set(r->err, ERR_INPUT,
                   "%s: key `%s%s` is `%.64s`, which Moothall does not compute; expected %s", r->path,
                   r->prefix, key, json_string_value(value), list);
}

static bool refuse_true(const struct reader *r, const char *key)
{
    bool set;

    if (!read_bool(r, key, &set))
        return false;
    return !set || err_set(r->err, ERR_INPUT,
                           "%s: key `%s%s` is true, which Moothall does not compute; expected false", r->path,
                           r->prefix, key);
}

static bool refuse_set(const struct reader *r, const char *key)
{
    return !find(r, key) ||
           err_set(r->err, ERR_INPUT, "%s: key `%s%s` is set, which Moothall does not compute; expected null",
                   r->path, r->prefix, key);
}

static bool read_kind(const struct reader *r)
{
    static const char *const type[] = { "deepseek_v2", NULL };
    static const char *const act[] = { "silu", NULL };
    static const char *const scoring[] = { "softmax", NULL };
    const json_t *list = find(r, "architectures");
    int index;

    if (list) {
        const json_t *first = json_is_array(list) ? json_array_get(list, 0) : list;

        if (!first || !json_is_string(first))
            return err_set(r->err, ERR_INPUT,
                           "%s: key `architectures` has no name; expected [\"DeepseekV2ForCausalLM\"]",
                           r->path);
        if (strcmp(json_string_value(first), "DeepseekV2ForCausalLM") != 0)
            return err_set(r->err, ERR_INPUT,
                           "%s: key `architectures` is `%.64s`, which Moothall does not compute; expected "
                           "`DeepseekV2ForCausalLM`",
                           r->path, json_string_value(first));
    } else if (!find(r, "model_type")) {
        return err_set(r->err, ERR_INPUT,
                       "%s: key `architectures` is missing; expected [\"DeepseekV2ForCausalLM\"]", r->path);
    }
    return read_choice(r, "model_type", type, 0, &index) && read_choice(r, "hidden_act", act, 0, &index) &&
           read_choice(r, "scoring_func", scoring, 0, &index) && refuse_true(r, "attention_bias") &&
           refuse_true(r, "mlp_bias") && refuse_set(r, "quantization_config");
}

static bool read_sizes(const struct reader *r, struct model_config *c)
{
    double eps;

    if (!(read_int(r, "hidden_size", 1, 1 << 16, REQUIRED, &c->hidden) &&
          read_int(r, "num_hidden_layers", 1, CONFIG_LAYERS_MAX, REQUIRED, &c->layers) &&
          read_int(r, "vocab_size", 1, 1 << 22, REQUIRED, &c->vocab) &&
          read_int(r, "max_position_embeddings", 1, 1 << 24, REQUIRED, &c->context) &&
          read_int(r, "num_attention_heads", 1, 4096, REQUIRED, &c->heads) &&
          read_int(r, "q_lora_rank", 0, 1 << 16, 0, &c->q_lora) &&
          read_int(r, "kv_lora_rank", 1, 1 << 14, REQUIRED, &c->kv_lora) &&
          read_int(r, "qk_nope_head_dim", 1, 4096, REQUIRED, &c->qk_nope) &&
          read_int(r, "qk_rope_head_dim", 2, 4096, REQUIRED, &c->qk_rope) &&
          read_int(r, "v_head_dim", 1, 4096, REQUIRED, &c->v_head) &&
          read_real(r, "rms_norm_eps", 1e-30, 1, 1e-6, &eps) &&
          read_bool(r, "tie_word_embeddings", &c->tied)))
        return false;
    c->norm_eps = (float)eps;
    if (c->qk_rope % 2)
        return err_set(r->err, ERR_INPUT, "%s: key `qk_rope_head_dim` is %d; expected an even number",
                       r->path, c->qk_rope);
    return true;
}

static bool read_experts(const struct reader *r, struct model_config *c)
{
    static const char *const methods[] = { "greedy", "gready", "group_limited_greedy", NULL };
    double scale;
    int method;

    if (!(read_int(r, "n_routed_experts", 0, CONFIG_EXPERTS_MAX, 0, &c->experts) &&
          read_int(r, "first_k_dense_replace", 0, CONFIG_LAYERS_MAX, 0, &c->first_dense) &&
          read_int(r, "moe_layer_freq", 1, CONFIG_LAYERS_MAX, 1, &c->moe_every)))
        return false;
    if (config_moe_layers(c) < c->layers &&
        !read_int(r, "intermediate_size", 1, 1 << 18, REQUIRED, &c->dense_inner))
        return false;
    c->groups = c->topk_groups = 1;
    if (c->experts == 0)
        return true;
    if (!(read_int(r, "moe_intermediate_size", 1, 1 << 18, REQUIRED, &c->expert_inner) &&
          read_int(r, "n_shared_experts", 0, 64, 0, &c->shared_experts) &&
          read_int(r, "num_experts_per_tok", 1, CONFIG_TOPK_MAX, REQUIRED, &c->experts_per_token) &&
          read_bool(r, "norm_topk_prob", &c->norm_topk) &&
          read_real(r, "routed_scaling_factor", -1e6, 1e6, 1, &scale) &&
          read_choice(r, "topk_method", methods, 0, &method)))
        return false;
    c->routed_scale = (float)scale;
    c->topk_method = method == 2 ? TOPK_GROUP_LIMITED : TOPK_GREEDY;
    if (c->experts_per_token > c->experts)
        return err_set(r->err, ERR_INPUT,
                       "%s: key `num_experts_per_tok` is %d; expected at most n_routed_experts, %d", r->path,
                       c->experts_per_token, c->experts);
    if (c->topk_method == TOPK_GREEDY)
        return true;
    if (!(read_int(r, "n_group", 1, CONFIG_SHARDS_MAX, REQUIRED, &c->groups) &&
          read_int(r, "topk_group", 1, CONFIG_SHARDS_MAX, REQUIRED, &c->topk_groups)))
        return false;
    if (c->experts % c->groups)
        return err_set(r->err, ERR_INPUT,
                       "%s: key `n_group` is %d; expected a divisor of n_routed_experts, %d", r->path,
                       c->groups, c->experts);
    if (c->topk_groups > c->groups)
        return err_set(r->err, ERR_INPUT, "%s: key `topk_group` is %d; expected at most n_group, %d", r->path,
                       c->topk_groups, c->groups);
    if (c->topk_groups * (c->experts / c->groups) < c->experts_per_token)
        return err_set(r->err, ERR_INPUT,
                       "%s: key `topk_group` is %d, whose groups have %d experts; expected at least "
                       "num_experts_per_tok, %d",
                       r->path, c->topk_groups, c->topk_groups * (c->experts / c->groups),
                       c->experts_per_token);
    return true;
}

/* `type`, `rope_type` or both, which then must agree. */
static bool read_rope_type(const struct reader *r, bool *yarn)
{
    static const char *const types[] = { "default", "yarn", NULL };
    int type, rope_type;

    if (!read_choice(r, "type", types, -1, &type) || !read_choice(r, "rope_type", types, -1, &rope_type))
        return false;
    if (type >= 0 && rope_type >= 0 && type != rope_type)
        return err_set(r->err, ERR_INPUT, "%s: keys `%stype` and `%srope_type` differ", r->path, r->prefix,
                       r->prefix);
    if (type < 0 && rope_type < 0)
        return err_set(r->err, ERR_INPUT, "%s: key `%srope_type` is missing; expected `default`, `yarn`",
                       r->path, r->prefix);
    *yarn = type == 1 || rope_type == 1;
    return true;
}

static bool read_rope(const struct reader *top, struct model_config *c)
{
    const json_t *old = find(top, "rope_scaling"), *new = find(top, "rope_parameters");
    struct reader r = *top;
    bool old_yarn = false;

    c->yarn_original = 4096; /* DeepSeek's defaults throughout; transformers has others */
    if (!read_real(top, "rope_theta", 1 + 1e-6, 1e12, 10000, &c->rope_base))
        return false;
    if (old && !json_is_object(old))
        return wrong(top, "rope_scaling", old, "an object or null");
    if (new && !json_is_object(new))
        return wrong(top, "rope_parameters", new, "an object or null");
    if (old) {
        r.object = old;
        r.prefix = "rope_scaling.";
        if (!read_rope_type(&r, &old_yarn))
            return false;
        c->yarn = old_yarn;
    }
    if (new) {
        r.object = new;
        r.prefix = "rope_parameters.";
        if (!read_rope_type(&r, &c->yarn) ||
            !read_real(&r, "rope_theta", 1 + 1e-6, 1e12, c->rope_base, &c->rope_base))
            return false;
        if (old && old_yarn != c->yarn)
            return err_set(top->err, ERR_INPUT,
                           "%s: keys `rope_scaling` and `rope_parameters` differ in their type", top->path);
    }
    if (!c->yarn)
        return true;
    if (!(read_real(&r, "factor", 1e-3, 1e6, NAN, &c->yarn_factor) &&
          read_int(&r, "original_max_position_embeddings", 1, 1 << 24, 4096, &c->yarn_original) &&
          read_real(&r, "beta_fast", 1e-6, 1e6, 32, &c->yarn_beta_fast) &&
          read_real(&r, "beta_slow", 1e-6, 1e6, 1, &c->yarn_beta_slow) &&
          read_real(&r, "mscale", 0, 1e3, 1, &c->yarn_mscale) &&
          read_real(&r, "mscale_all_dim", 0, 1e3, 0, &c->yarn_mscale_all_dim) &&
          refuse_set(&r, "attention_factor")))
        return false;
    if (find(&r, "truncate") && !json_is_true(find(&r, "truncate")))
        return err_set(r.err, ERR_INPUT, "%s: key `%struncate` is not true, which Moothall does not compute",
                       r.path, r.prefix);
    return true;
}

static bool cut_shards(struct model_config *c, int shards, const char *path, struct err *err)
{
    if (c->experts == 0) {
        if (shards > 0)
            return err_set(err, ERR_INPUT, "%s: `shards` is %d, but the model has no routed experts", path,
                           shards);
        return true;
    }
    c->shards = shards;
    if (shards == 0 && c->groups > 1) {
        c->shards = c->groups;
    } else if (shards == 0) {
        for (c->shards = c->experts < 8 ? c->experts : 8; c->experts % c->shards; c->shards--)
            ;
    } else if (shards < 0 || shards > CONFIG_SHARDS_MAX || c->experts % shards) {
        return err_set(err, ERR_INPUT,
                       "%s: `shards` is %d; expected a divisor of n_routed_experts, %d, up to %d", path,
                       shards, c->experts, CONFIG_SHARDS_MAX);
    }
    c->experts_per_shard = c->experts / c->shards;
    return true;
}

bool config_parse(struct model_config *config, struct span text, const char *path, int shards,
                  struct err *err)
{
    json_error_t at;
    json_t *root;
    struct reader r = { .path = path, .prefix = "", .err = err };
    bool ok;

    memset(config, 0, sizeof *config);
    if (text.size > CONFIG_FILE_MAX)
        return err_set(err, ERR_LIMIT, "%s: %zu bytes; expected at most %d", path, text.size,
                       CONFIG_FILE_MAX);
    root = json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, &at);
    if (!root)
        return err_set(err, ERR_INPUT, "%s:%d:%d: %s; expected a JSON object", path, at.line, at.column,
                       at.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(err, ERR_INPUT, "%s:1:1: not a JSON object", path);
    }
    r.object = root;
    ok = read_kind(&r) && read_sizes(&r, config) && read_experts(&r, config) && read_rope(&r, config) &&
         cut_shards(config, shards, path, err);
    json_decref(root);
    return ok;
}

bool config_load(struct model_config *config, const char *path, int shards, struct err *err)
{
    struct stat st;
    char *text = NULL;
    ssize_t n, size = 0;
    bool ok = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us */

    if (fd < 0)
        return err_errno(err, "open %s", path);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        err_set(err, ERR_INPUT, "%s is not a regular file", path);
        goto out;
    }
    if (st.st_size > CONFIG_FILE_MAX) {
        err_set(err, ERR_LIMIT, "%s: %lld bytes; expected at most %d", path, (long long)st.st_size,
                CONFIG_FILE_MAX);
        goto out;
    }
    text = malloc((size_t)st.st_size + 1);
    if (!text) {
        err_set(err, ERR_IO, "no memory to read %s", path);
        goto out;
    }
    while (size < st.st_size && (n = read(fd, text + size, (size_t)(st.st_size - size))) != 0) {
        if (n < 0) {
            err_errno(err, "read %s", path);
            goto out;
        }
        size += n;
    }
    ok = config_parse(config, span_of(text, (size_t)size), path, shards, err);
out:
    free(text);
    close(fd);
    return ok;
}

int config_moe_layers(const struct model_config *config)
{
    int count = 0;

    for (int layer = 0; layer < config->layers; layer++)
        count += config_layer_is_moe(config, layer);
    return count;
}

static double yarn_amplitude(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

void config_rope(const struct model_config *c, double *inv_freq, double *amplitude, double *scale)
{
    int half = c->qk_rope / 2;
    double d = c->qk_rope, low, high, all;

    *amplitude = 1;
    *scale = 1 / sqrt((double)config_qk(c));
    for (int i = 0; i < half; i++)
        inv_freq[i] = pow(c->rope_base, -2.0 * i / d);
    if (!c->yarn)
        return;
    /* The pair that turns R times within the original context, for R = beta_fast and beta_slow. */
    low = floor(d * log(c->yarn_original / (2 * M_PI * c->yarn_beta_fast)) / (2 * log(c->rope_base)));
    high = ceil(d * log(c->yarn_original / (2 * M_PI * c->yarn_beta_slow)) / (2 * log(c->rope_base)));
    low = low < 0 ? 0 : low;
    high = high > d - 1 ? d - 1 : high;
    if (low == high)
        high += 0.001;
    for (int i = 0; i < half; i++) {
        double ramp = (i - low) / (high - low);

        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        inv_freq[i] = inv_freq[i] / c->yarn_factor * ramp + inv_freq[i] * (1 - ramp);
    }
    all = yarn_amplitude(c->yarn_factor, c->yarn_mscale_all_dim);
    *amplitude = yarn_amplitude(c->yarn_factor, c->yarn_mscale) / all;
    if (c->yarn_mscale_all_dim != 0)
        *scale *= all * all;
}

struct config_counts config_counts(const struct model_config *c)
{
    struct config_counts n = { 0 };
    struct tensor_walk walk = { 0 };
    struct tensor t;

    while (tensor_next(c, &walk, &t)) {
        int64_t values = tensor_values(&t);

        n.tensors++;
        n.parameters += values;
        if (!tensor_is_expert(&t))
            n.trunk_parameters += values;
        else if (t.expert < c->experts_per_shard)
            n.shard_parameters += values;
        if (tensor_is_expert(&t) ? t.expert < c->experts_per_token : t.role != TENSOR_EMBED || c->tied)
            n.active_parameters += values;
    }
    return n;
}

bool config_canonical(const struct model_config *c, struct buf *text)
{
    bool ok = buf_format(
        text,
        "deepseek_v2\nhidden=%d\nlayers=%d\nvocab=%d\ncontext=%d\ntied=%d\nnorm_eps=%a\nheads=%d\nq_lora=%d\n"
        "kv_lora=%d\nqk_nope=%d\nqk_rope=%d\nv_head=%d\nrope_base=%a\n",
        c->hidden, c->layers, c->vocab, c->context, c->tied, (double)c->norm_eps, c->heads, c->q_lora,
        c->kv_lora, c->qk_nope, c->qk_rope, c->v_head, c->rope_base);

    if (ok && c->dense_inner)
        ok = buf_format(text, "dense_inner=%d\n", c->dense_inner);
    if (ok && c->yarn)
        ok = buf_format(text, "yarn factor=%a beta=%a,%a mscale=%a,%a original=%d\n", c->yarn_factor,
                        c->yarn_beta_fast, c->yarn_beta_slow, c->yarn_mscale, c->yarn_mscale_all_dim,
                        c->yarn_original);
    if (ok && c->experts)
        ok = buf_format(text,
                        "experts=%d\nper_token=%d\ninner=%d\nshared=%d\nfirst_dense=%d\nevery=%d\nmethod=%"
                        "d\ngroups=%d/%d\n"
                        "norm_topk=%d\nscale=%a\n",
                        c->experts, c->experts_per_token, c->expert_inner, c->shared_experts, c->first_dense,
                        c->moe_every, (int)c->topk_method, c->topk_groups, c->groups, c->norm_topk,
                        (double)c->routed_scale);
    return ok;
}
