/* Opening a checkpoint: what is wrong with it is said by name, and what it is has one fingerprint. */

#include "worker/model/model.h"

#include "tests/check.h"
#include "tests/unit/checkpoint.h"

#include <sys/stat.h>

static bool try_open(const char *dir, struct model_options options, struct model **model, struct err *err)
{
    options.threads = 1;
    return model_open(model, dir, &options, err);
}

static void test_a_checkpoint_that_does_not_fit_its_configuration_is_refused(void **state)
{
    static const struct {
        struct checkpoint_quirks quirks;
        const char *says;
    } table[] = {
        { { .leave_out = "model.layers.1.mlp.experts.7.up_proj.weight" },
          "lacks tensor model.layers.1.mlp.experts.7.up_proj.weight" },
        { { .leave_out = "lm_head.weight" }, "lacks tensor lm_head.weight" },
        { { .leave_out = "model.layers.0.self_attn.q_a_layernorm.weight" }, "lacks tensor" },
        { { .reshape = "model.layers.2.self_attn.kv_b_proj.weight" },
          "kv_b_proj.weight has shape 97x21; expected 96x21" },
        { { .extra = "model.layers.0.self_attn.q_proj.bias" }, "is none that config.json knows of" },
        { { .extra = "model.layers.2x.mlp.up_proj.weight" }, "is none that config.json knows of" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char *dir = checkpoint_dir();
        struct model *model;
        struct err err = { 0 };

        checkpoint_write(dir, CHECKPOINT_CONFIG, 1, table[i].quirks);
        if (try_open(dir, (struct model_options){ 0 }, &model, &err))
            fail_msg("accepted: %s", table[i].says);
        if (!strstr(err.text, table[i].says) || !strstr(err.text, dir))
            fail_msg("says: %s\n  expected: %s", err.text, table[i].says);
        checkpoint_remove(dir);
    }
}

static void test_layers_beyond_the_configuration_are_ignored(void **state)
{
    static const char *const extra[] = { "model.layers.3.mlp.whatever", "model.layers.61.eh_proj.weight",
                                         "model.layers.0.self_attn.rotary_emb.inv_freq" };

    (void)state;
    for (size_t i = 0; i < sizeof extra / sizeof extra[0]; i++) {
        char *dir = checkpoint_dir();
        struct model *model;
        struct err err = { 0 };

        checkpoint_write(dir, CHECKPOINT_CONFIG, 1, (struct checkpoint_quirks){ .extra = extra[i] });
        if (!try_open(dir, (struct model_options){ 0 }, &model, &err))
            fail_msg("%s", err.text);
        model_free(model);
        checkpoint_remove(dir);
    }
}

static void test_what_is_missing_is_named(void **state)
{
    char *dir = checkpoint_dir(), config[600];
    struct model *model;
    struct err err = { 0 };

    (void)state;
    CHECK(!try_open("/nowhere/at/all", (struct model_options){ 0 }, &model, &err));
    CHECK(strstr(err.text, "/nowhere/at/all: No such file"));
    CHECK(!try_open(dir, (struct model_options){ 0 }, &model, &err));
    CHECK(strstr(err.text, "config.json: No such file"));
    checkpoint_put(dir, "config.json", CHECKPOINT_CONFIG, strlen(CHECKPOINT_CONFIG));
    CHECK(!try_open(dir, (struct model_options){ 0 }, &model, &err));
    CHECK(strstr(err.text, "has neither model.safetensors nor model.safetensors.index.json"));
    snprintf(config, sizeof config, "%s/config.json", dir);
    CHECK(!try_open(config, (struct model_options){ 0 }, &model, &err));
    CHECK(strstr(err.text, "not a directory"));
    checkpoint_remove(dir);
}

static void test_a_pipe_in_place_of_a_file_is_refused(void **state)
{
    static const char *const names[] = { "tokenizer.json", "model.safetensors",
                                         "model.safetensors.index.json", "config.json" };
    char *dir = checkpoint_dir();

    (void)state;
    checkpoint_write(dir, CHECKPOINT_CONFIG, 1, (struct checkpoint_quirks){ 0 });
    for (int i = 0; i < 4; i++) { /* each is found before the one before it is looked at */
        char path[600];
        struct model *model;
        struct err err = { 0 };

        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
        CHECK(mkfifo(path, 0600) == 0);
        CHECK(!try_open(dir, (struct model_options){ 0 }, &model, &err));
        if (!strstr(err.text, names[i]) || !strstr(err.text, "is not a regular file"))
            fail_msg("%s", err.text);
    }
    checkpoint_remove(dir);
}

/* A file cut short by a broken copy, at every kind of place. */
static void test_a_truncated_file_is_refused(void **state)
{
    char *dir = checkpoint_dir(), path[600];
    long size;
    FILE *file;

    (void)state;
    checkpoint_write(dir, CHECKPOINT_CONFIG, 1, (struct checkpoint_quirks){ 0 });
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    file = fopen(path, "rb");
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    fclose(file);
    for (int i = 0; i < 6; i++) {
        struct model *model;
        struct err err = { 0 };

        CHECK(truncate(path, (long[]){ size - 1, size / 2, 5000, 9, 7, 0 }[i]) == 0);
        CHECK(!try_open(dir, (struct model_options){ 0 }, &model, &err));
        if (!strstr(err.text, "model.safetensors"))
            fail_msg("%s", err.text);
    }
    checkpoint_remove(dir);
}

struct identity {
    uint8_t fingerprint[MODEL_FINGERPRINT_BYTES];
    char numerics[MODEL_NUMERICS_MAX];
};

static struct identity identity_of(const char *dir, struct model_options options)
{
    struct identity id;
    struct model *model;
    struct err err = { 0 };

    if (!try_open(dir, options, &model, &err))
        fail_msg("%s", err.text);
    model_fingerprint(model, id.fingerprint);
    model_numerics(model, id.numerics);
    model_free(model);
    return id;
}

/* Workers compare it before they share a hall: equal for one model, different for anything that could change
 * a bit. */
static void test_the_fingerprint_says_what_the_model_is(void **state)
{
    char *dir = checkpoint_dir(), *other = checkpoint_dir();
    struct identity seen[8];
    int n = 0;

    (void)state;
    checkpoint_write(dir, CHECKPOINT_CONFIG, 1, (struct checkpoint_quirks){ 0 });
    seen[n++] = identity_of(dir, (struct model_options){ 0 });
    checkpoint_write(other, CHECKPOINT_CONFIG, 1,
                     (struct checkpoint_quirks){ .pad = 3 }); /* the same tensors, elsewhere in the file */
    CHECK(memcmp(&seen[0], &(struct identity){ 0 }, 32) != 0);
    struct identity again = identity_of(other, (struct model_options){ .weights = WEIGHTS_BF16 });
    CHECK(memcmp(again.fingerprint, seen[0].fingerprint, 32) == 0 &&
          strcmp(again.numerics, seen[0].numerics) == 0);

    seen[n++] = identity_of(dir, (struct model_options){ .weights = WEIGHTS_F32 });
    seen[n++] = identity_of(dir, (struct model_options){ .shards = 4 });
    checkpoint_put(dir, "tokenizer.json", "{}", 2);
    seen[n++] = identity_of(dir, (struct model_options){ 0 });
    checkpoint_write(other, CHECKPOINT_CONFIG, 2, (struct checkpoint_quirks){ 0 }); /* other values */
    seen[n++] = identity_of(other, (struct model_options){ 0 });
    checkpoint_write(other, CHECKPOINT_CONFIG, 1, (struct checkpoint_quirks){ .f32 = true });
    seen[n++] = identity_of(other, (struct model_options){ .weights = WEIGHTS_BF16 });
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            CHECK(memcmp(seen[i].fingerprint, seen[j].fingerprint, 32) != 0);
            CHECK(strcmp(seen[i].numerics, seen[j].numerics) != 0);
        }
    /* The kernel family is no part of the fingerprint, and one of the numerics. */
    again = identity_of(other, (struct model_options){ .weights = WEIGHTS_BF16, .backend = &backend_ref });
    CHECK(memcmp(again.fingerprint, seen[n - 1].fingerprint, 32) == 0 &&
          strcmp(again.numerics, seen[n - 1].numerics) != 0);
    checkpoint_remove(dir);
    checkpoint_remove(other);
}

static void test_memory_is_told_as_it_is(void **state)
{
    struct model_config c;
    struct config_counts n;
    char *dir = checkpoint_dir();
    struct model *model;
    struct err err = { 0 };

    (void)state;
    CHECK(config_parse(&c, span_text(CHECKPOINT_CONFIG), "config.json", 0, &err));
    n = config_counts(&c);
    checkpoint_write(dir, CHECKPOINT_CONFIG, 1, (struct checkpoint_quirks){ .f32 = true });
    CHECK(try_open(dir, (struct model_options){ .weights = WEIGHTS_F32 }, &model, &err));
    CHECK(model_shard_bytes(model) == 4 * n.shard_parameters);
    CHECK(model_trunk_bytes(model) == 4 * n.trunk_parameters);
    CHECK(model_position_bytes(model) == 3 * (21 + 6) * 4);
    model_free(model);
    CHECK(try_open(dir, (struct model_options){ .weights = WEIGHTS_BF16 }, &model, &err));
    CHECK(model_shard_bytes(model) == 2 * n.shard_parameters);
    CHECK(model_trunk_bytes(model) > 2 * n.trunk_parameters); /* norms and router stay f32 */
    CHECK(model_position_bytes(model) == 3 * (21 + 6) * 2);
    model_free(model);
    model_free(NULL);
    checkpoint_remove(dir);
}

static void test_seats_are_bound_and_given_back(void **state)
{
    char *dir = checkpoint_dir();
    struct model *model;
    struct err err = { 0 };

    (void)state;
    checkpoint_write(dir, CHECKPOINT_CONFIG, 1, (struct checkpoint_quirks){ .f32 = true });
    CHECK(try_open(dir, (struct model_options){ .weights = WEIGHTS_BF16 }, &model, &err));
    CHECK(!model_is_seated(model, 0) && !model_is_seated(model, -1) && !model_is_seated(model, 8));
    CHECK(model_seat(model, 3, &err) && model_seat(model, 3, &err) && model_is_seated(model, 3));
    CHECK(!model_seat(model, 8, &err) && strstr(err.text, "shards 0 to 7"));
    CHECK(!model_seat(model, -1, &err));
    model_unseat(model, 3);
    model_unseat(model, 3);
    CHECK(!model_is_seated(model, 3));
    CHECK(model_seat_all(model, &err));
    for (int s = 0; s < 8; s++)
        CHECK(model_is_seated(model, s));
    model_free(model);
    checkpoint_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_checkpoint_that_does_not_fit_its_configuration_is_refused),
        cmocka_unit_test(test_layers_beyond_the_configuration_are_ignored),
        cmocka_unit_test(test_what_is_missing_is_named),
        cmocka_unit_test(test_a_pipe_in_place_of_a_file_is_refused),
        cmocka_unit_test(test_a_truncated_file_is_refused),
        cmocka_unit_test(test_the_fingerprint_says_what_the_model_is),
        cmocka_unit_test(test_memory_is_told_as_it_is),
        cmocka_unit_test(test_seats_are_bound_and_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
