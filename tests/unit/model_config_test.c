/* The configuration: both styles mean the same, what is not computed is refused by name, and the numbers that
 * follow from it are DeepSeek's. */

#include "worker/model/config.h"
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/tensors.h"

#define LITE_SIZES                                                                                           \
    "\"architectures\":[\"DeepseekV2ForCausalLM\"],\"model_type\":\"deepseek_v2\",\"hidden_size\":2048,"     \
    "\"num_hidden_layers\":27,\"num_attention_heads\":16,\"q_lora_rank\":null,\"kv_lora_rank\":512,"         \
    "\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,\"intermediate_size\":10944,"       \
    "\"moe_intermediate_size\":1408,\"n_routed_experts\":64,\"n_shared_experts\":2,\"num_experts_per_tok\":" \
    "6,"                                                                                                     \
    "\"first_k_dense_replace\":1,\"moe_layer_freq\":1,\"topk_method\":\"greedy\",\"n_group\":1,\"topk_"      \
    "group\":1,"                                                                                             \
    "\"routed_scaling_factor\":1.0,\"norm_topk_prob\":false,\"scoring_func\":\"softmax\",\"hidden_act\":"    \
    "\"silu\","                                                                                              \
    "\"vocab_size\":102400,\"max_position_embeddings\":163840,\"rms_norm_eps\":1e-6,\"attention_bias\":"     \
    "false,"
#define YARN                                                                                                 \
    "\"factor\":40,\"original_max_position_embeddings\":4096,\"beta_fast\":32,\"beta_slow\":1,\"mscale\":0." \
    "707,"                                                                                                   \
    "\"mscale_all_dim\":0.707"
#define LITE "{" LITE_SIZES "\"rope_theta\":10000,\"rope_scaling\":{\"type\":\"yarn\"," YARN "}}"
#define LITE_NEW                                                                                             \
    "{" LITE_SIZES                                                                                           \
    "\"rope_parameters\":{\"type\":\"yarn\",\"rope_type\":\"yarn\",\"rope_theta\":10000.0," YARN "}}"
#define V2                                                                                                   \
    "{\"architectures\":[\"DeepseekV2ForCausalLM\"],\"hidden_size\":5120,\"num_hidden_layers\":60,"          \
    "\"num_attention_heads\":128,\"q_lora_rank\":1536,\"kv_lora_rank\":512,\"qk_nope_head_dim\":128,"        \
    "\"qk_rope_head_dim\":64,\"v_head_dim\":128,\"intermediate_size\":12288,\"moe_intermediate_size\":1536," \
    "\"n_routed_experts\":160,\"n_shared_experts\":2,\"num_experts_per_tok\":6,\"first_k_dense_replace\":1," \
    "\"topk_method\":\"group_limited_greedy\",\"n_group\":8,\"topk_group\":3,\"routed_scaling_factor\":16."  \
    "0,"                                                                                                     \
    "\"vocab_size\":102400,\"max_position_embeddings\":163840,\"rope_scaling\":{\"type\":\"yarn\"," YARN     \
    "}}"

static struct model_config parsed(const char *text, int shards)
{
    struct model_config config;
    struct err err = { 0 };

    if (!config_parse(&config, span_text(text), "config.json", shards, &err))
        fail_msg("%s", err.text);
    return config;
}

static void test_counts_are_the_published_ones(void **state)
{
    struct model_config lite = parsed(LITE, 0), v2 = parsed(V2, 0);
    struct config_counts n = config_counts(&lite);

    (void)state;
    CHECK(n.tensors == 5291);
    CHECK(n.parameters == 15706484224);
    CHECK(n.active_parameters == 2451435008);
    CHECK(n.trunk_parameters == 1311632896);
    CHECK(n.shard_parameters * 8 == 14394851328);
    n = config_counts(&v2);
    CHECK(n.tensors == 29102);
    CHECK(n.parameters == 235741434880);
    CHECK(n.active_parameters == 20851512320);
    CHECK(n.trunk_parameters == 13023892480);
}

static void test_shards_follow_groups_or_the_largest_divisor(void **state)
{
    struct model_config c = parsed(V2, 0);

    (void)state;
    CHECK(c.shards == 8 && c.experts_per_shard == 20);
    c = parsed(LITE, 0);
    CHECK(c.shards == 8 && c.experts_per_shard == 8);
    c = parsed(LITE, 16);
    CHECK(c.shards == 16 && c.experts_per_shard == 4);
    CHECK(!config_parse(&c, span_text(LITE), "config.json", 5, NULL));
}

static void test_both_styles_mean_the_same(void **state)
{
    struct model_config a = parsed(LITE, 0), b = parsed(LITE_NEW, 0);
    struct buf x = { .max = 4096 }, y = { .max = 4096 };

    (void)state;
    CHECK(config_canonical(&a, &x) && config_canonical(&b, &y));
    CHECK(span_equal(buf_span(&x), buf_span(&y)));
    buf_fini(&x);
    buf_fini(&y);
}

/* A missing factor is invisible at position 0 and degrades everything after it. */
static void test_yarn_is_deepseeks(void **state)
{
    static const struct {
        int i;
        double inv_freq;
    } table[] = {
        { 0, 1 },
        { 1, 0.749894209 },
        { 8, 0.1 },
        { 10, 0.0562341325 },
        { 11, 0.0390069266 },
        { 15, 0.00833450895 },
        { 16, 0.0055 },
        { 19, 0.00137051364 },
        { 22, 0.000177827941 },
        { 23, 3.33380358e-05 },
        { 31, 3.33380358e-06 },
    };
    struct model_config c = parsed(LITE, 0);
    double inv_freq[32], amplitude, scale;

    (void)state;
    config_rope(&c, inv_freq, &amplitude, &scale);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        CHECK(fabs(inv_freq[table[i].i] / table[i].inv_freq - 1) < 1e-8);
    CHECK(amplitude == 1);
    CHECK(fabs(scale - 0.114721387) < 1e-9);
    c.yarn_mscale = c.yarn_mscale_all_dim = 1;
    config_rope(&c, inv_freq, &amplitude, &scale);
    CHECK(fabs(scale - 0.135233779) < 1e-9);
    /* Absent keys are DeepSeek's defaults: amplitude of mscale 1, no factor on the softmax. */
    c = parsed("{" LITE_SIZES "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40}}", 0);
    CHECK(c.yarn_original == 4096 && c.yarn_beta_fast == 32 && c.yarn_beta_slow == 1);
    config_rope(&c, inv_freq, &amplitude, &scale);
    CHECK(fabs(amplitude - 1.368887945) < 1e-9);
    CHECK(fabs(scale - 0.072168784) < 1e-9);
    c = parsed("{" LITE_SIZES "\"rope_scaling\":null}", 0);
    config_rope(&c, inv_freq, &amplitude, &scale);
    CHECK(amplitude == 1 && fabs(scale - 0.072168784) < 1e-9 && fabs(inv_freq[31] - 0.000133352143) < 1e-12);
}

/* text with the first occurrence of `from` replaced */
static char *with(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    char *out;

    if (!at)
        fail_msg("the test's own text lacks %s", from);
    out = malloc(strlen(text) + strlen(to) + 1);
    sprintf(out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

static void test_what_is_not_computed_is_refused_by_name(void **state)
{
    static const struct {
        const char *from, *to, *says;
    } table[] = {
        { "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "`architectures` is `DeepseekV3ForCausalLM`" },
        { "\"deepseek_v2\"", "\"llama\"", "`model_type` is `llama`" },
        { "\"greedy\"", "\"noaux_tc\"", "`topk_method` is `noaux_tc`" },
        { "\"softmax\"", "\"sigmoid\"", "`scoring_func` is `sigmoid`" },
        { "\"silu\"", "\"gelu\"", "`hidden_act` is `gelu`" },
        { "\"yarn\"", "\"dynamic\"", "`rope_scaling.type` is `dynamic`" },
        { "\"attention_bias\":false", "\"attention_bias\":true", "`attention_bias` is true" },
        { "\"attention_bias\":false", "\"quantization_config\":{}", "`quantization_config` is set" },
        { "\"factor\":40", "\"factor\":40,\"attention_factor\":1.5",
          "`rope_scaling.attention_factor` is set" },
        { "\"hidden_size\":2048", "\"hidden_size\":0", "`hidden_size` is 0; expected a whole number from 1" },
        { "\"hidden_size\":2048", "\"hidden_size\":2048.5", "`hidden_size` is 2048.5" },
        { "\"hidden_size\":2048", "\"hidden_size\":\"big\"", "`hidden_size` is text" },
        { "\"hidden_size\":2048", "\"hidden_size\":1e99", "`hidden_size` is 1e+99" },
        { "\"hidden_size\":2048,", "", "`hidden_size` is missing" },
        { "\"hidden_size\":2048", "\"hidden_size\":-5", "`hidden_size` is -5" },
        { "\"vocab_size\":102400", "\"vocab_size\":99999999999", "`vocab_size`" },
        { "\"qk_rope_head_dim\":64", "\"qk_rope_head_dim\":63",
          "`qk_rope_head_dim` is 63; expected an even number" },
        { "\"num_experts_per_tok\":6", "\"num_experts_per_tok\":65", "`num_experts_per_tok`" },
        { "\"greedy\",\"n_group\":1", "\"group_limited_greedy\",\"n_group\":7",
          "`n_group` is 7; expected a divisor" },
        { "\"greedy\",\"n_group\":1,\"topk_group\":1",
          "\"group_limited_greedy\",\"n_group\":4,\"topk_group\":5", "`topk_group` is 5" },
        { "\"greedy\",\"n_group\":1,\"topk_group\":1",
          "\"group_limited_greedy\",\"n_group\":16,\"topk_group\":1", "whose groups have 4" },
        { "\"moe_layer_freq\":1", "\"moe_layer_freq\":0", "`moe_layer_freq` is 0" },
        { "\"factor\":40,", "", "`rope_scaling.factor` is missing" },
        { "\"rope_theta\":10000", "\"rope_theta\":0.5", "`rope_theta` is 0.5" },
        { "\"type\":\"yarn\",", "", "`rope_scaling.rope_type` is missing" },
        { "\"rope_scaling\":{", "\"rope_scaling\":[{", "config.json:1:" },
        { "\"hidden_size\":2048", "\"hidden_size\":2048,\"hidden_size\":2048", "duplicate" },
        { "\"architectures\":[\"DeepseekV2ForCausalLM\"]", "\"architectures\":[]",
          "`architectures` has no name" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char *text = with(LITE, table[i].from, table[i].to);
        struct model_config config;
        struct err err = { 0 };

        if (config_parse(&config, span_text(text), "config.json", 0, &err))
            fail_msg("accepted: %s", table[i].to);
        if (!strstr(err.text, table[i].says) || !strstr(err.text, "config.json"))
            fail_msg("%s\n  says: %s\n  expected: %s", table[i].to, err.text, table[i].says);
        free(text);
    }
}

static void test_gready_and_null_and_zero_are_read(void **state)
{
    char *text = with(LITE, "\"greedy\"", "\"gready\"");
    struct model_config c = parsed(text, 0);

    (void)state;
    CHECK(c.topk_method == TOPK_GREEDY);
    free(text);
    text = with(LITE, "\"q_lora_rank\":null", "\"q_lora_rank\":0");
    c = parsed(text, 0);
    CHECK(c.q_lora == 0);
    free(text);
    text = with(LITE, "\"n_routed_experts\":64", "\"n_routed_experts\":null");
    c = parsed(text, 0);
    CHECK(c.experts == 0 && c.shards == 0 && config_moe_layers(&c) == 0);
    CHECK(config_counts(&c).shard_parameters == 0);
    free(text);
    text = with(LITE, "\"moe_layer_freq\":1", "\"moe_layer_freq\":2");
    c = parsed(text, 0);
    CHECK(!config_layer_is_moe(&c, 1) && config_layer_is_moe(&c, 2) && config_moe_layers(&c) == 13);
    free(text);
}

/* No product of dimensions may overflow, whatever the file says within its ranges. */
static void test_the_largest_numbers_do_not_overflow(void **state)
{
    static const char text[] =
        "{\"model_type\":\"deepseek_v2\",\"hidden_size\":65536,\"num_hidden_layers\":1024,\"num_attention_"
        "heads\":4096,"
        "\"q_lora_rank\":65536,\"kv_lora_rank\":16384,\"qk_nope_head_dim\":4096,\"qk_rope_head_dim\":4096,"
        "\"v_head_dim\":4096,"
        "\"intermediate_size\":262144,\"moe_intermediate_size\":262144,\"n_routed_experts\":4096,\"n_shared_"
        "experts\":64,"
        "\"num_experts_per_tok\":64,\"vocab_size\":4194304,\"max_position_embeddings\":16777216}";
    struct model_config c = parsed(text, 0);
    struct config_counts n = config_counts(&c);

    (void)state;
    CHECK(n.parameters > 0 && n.parameters < INT64_MAX / 4);
    CHECK(n.trunk_parameters + n.shard_parameters * c.shards == n.parameters);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_are_the_published_ones),
        cmocka_unit_test(test_shards_follow_groups_or_the_largest_divisor),
        cmocka_unit_test(test_both_styles_mean_the_same),
        cmocka_unit_test(test_yarn_is_deepseeks),
        cmocka_unit_test(test_what_is_not_computed_is_refused_by_name),
        cmocka_unit_test(test_gready_and_null_and_zero_are_read),
        cmocka_unit_test(test_the_largest_numbers_do_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
