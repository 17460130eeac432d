/* The forward pass: what a row's bits may depend on, and what they may not. */

#include "worker/model/forward.h"

#include "tests/check.h"
#include "tests/unit/checkpoint.h"

enum { PROMPT = 150, IDS = 170, V = 101, SEQUENCES = 5 };

static char *dir;
static int32_t ids[SEQUENCES][IDS];

struct engine {
    struct model *model;
    struct forward *step;
    struct experts *experts;
    struct cache_pool *pool;
};

/* piece: multiply-adds of one call of a stage; 0: the default, in which all of this small model fits. */
static struct engine engine_pieces(const char *where, enum weights weights, int threads,
                                   const struct backend *backend, int piece)
{
    struct model_options options = {
        .weights = weights, .threads = threads, .backend = backend, .piece_macs = piece
    };
    struct engine e;
    struct err err = { 0 };

    if (!model_open(&e.model, where, &options, &err) || !model_seat_all(e.model, &err))
        fail_msg("%s", err.text);
    e.step = forward_new(e.model, 400, 400);
    e.experts = experts_new(e.model);
    e.pool = cache_pool_new(e.model, 64 << 20);
    CHECK(e.step && e.experts && e.pool);
    return e;
}

static struct engine engine_open(const char *where, enum weights weights, int threads,
                                 const struct backend *backend)
{
    return engine_pieces(where, weights, threads, backend, 0);
}

static void engine_close(struct engine *e)
{
    cache_pool_free(e->pool);
    experts_free(e->experts);
    forward_free(e->step);
    model_free(e->model);
}

static void run(struct engine *e, const struct forward_row *rows, int count, float *logits)
{
    struct err err = { 0 };

    if (!forward_run(e->step, e->experts, rows, count, &err))
        fail_msg("%s", err.text);
    while (!forward_logits(e->step, 0, count))
        ;
    for (int r = 0; r < count; r++)
        memcpy(logits + (size_t)r * V, forward_logits_of(e->step, r), V * sizeof *logits);
}

/* Sequence 0 alone: the prompt in chunks, then generated positions one at a time.  logits: [IDS, V]. */
static void alone(struct engine *e, int chunk, int prompt, float *logits)
{
    struct cache_sequence sequence;
    struct err err = { 0 };

    cache_sequence_init(&sequence, e->pool);
    CHECK(cache_grow(&sequence, IDS, &err));
    for (int at = 0; at < IDS;) {
        static struct forward_row row[IDS];
        int count = at >= prompt ? 1 : chunk < prompt - at ? chunk : prompt - at;

        for (int i = 0; i < count; i++)
            row[i] = (struct forward_row){ &sequence, ids[0][at + i], at + i, at >= prompt, true };
        run(e, row, count, logits + (size_t)at * V);
        at += count;
    }
    cache_sequence_fini(&sequence);
}

static float *buffer(void)
{
    return calloc((size_t)IDS * V, sizeof(float));
}

static const enum weights both[] = { WEIGHTS_F32, WEIGHTS_BF16 };

/* Otherwise the same request would give other bytes when the scheduler chose other chunks. */
static void test_chunk_length_cannot_be_seen(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        static const int chunks[] = { 1, 7, 63, 64, 65, 149 };
        struct engine e = engine_open(dir, both[w], 1, NULL);
        float *once = buffer(), *parts = buffer();

        alone(&e, PROMPT, PROMPT, once);
        for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
            alone(&e, chunks[c], PROMPT, parts);
            CHECK(memcmp(once, parts, (size_t)IDS * V * sizeof *once) == 0);
        }
        free(once), free(parts);
        engine_close(&e);
    }
}

static void test_the_number_of_threads_cannot_be_seen(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        float *one = buffer(), *more = buffer();
        struct engine e = engine_open(dir, both[w], 1, NULL);

        alone(&e, PROMPT, PROMPT, one);
        engine_close(&e);
        for (int threads = 2; threads <= 4; threads++) {
            e = engine_pieces(dir, both[w], threads, NULL, 10000); /* cut finely, so that all threads work */
            alone(&e, PROMPT, PROMPT, more);
            CHECK(memcmp(one, more, (size_t)IDS * V * sizeof *one) == 0);
            engine_close(&e);
        }
        free(one), free(more);
    }
}

/* A stage is cut into calls of bounded length; where it is cut must not matter. */
static void test_pieces_cannot_be_seen(void **state)
{
    static const int pieces[] = { 1, 5000, 77777, 1000000 };
    float *whole = buffer(), *cut = buffer();
    struct engine e = engine_open(dir, WEIGHTS_BF16, 1, NULL);

    (void)state;
    alone(&e, PROMPT, PROMPT, whole);
    engine_close(&e);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        e = engine_pieces(dir, WEIGHTS_BF16, 1 + (int)i % 3, NULL, pieces[i]);
        alone(&e, PROMPT, PROMPT, cut);
        CHECK(memcmp(whole, cut, (size_t)IDS * V * sizeof *whole) == 0);
        engine_close(&e);
    }
    free(whole), free(cut);
}

/* Several sequences in one step, prompts and generated positions mixed, against each row's bits when alone.
 */
static void test_a_batch_cannot_be_seen(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        struct engine e = engine_open(dir, both[w], 1, NULL);
        struct cache_sequence sequence[SEQUENCES];
        float *expected = buffer(), *logits = calloc((size_t)400 * V, sizeof *logits);
        int at[SEQUENCES] = { 0 };
        struct err err = { 0 };

        alone(&e, PROMPT, PROMPT, expected);
        for (int s = 0; s < SEQUENCES; s++) {
            cache_sequence_init(&sequence[s], e.pool);
            CHECK(cache_grow(&sequence[s], IDS, &err));
        }
        for (int turn = 0; at[0] < IDS; turn++) {
            struct forward_row row[400];
            int count = 0, first = -1, from = at[0];

            for (int i = 0; i < SEQUENCES; i++) {
                int s = (i + turn) % SEQUENCES; /* another order each step */

                if (s == 0)
                    first = count;
                for (int n = 0; n < 30 + 5 * s && at[s] < IDS && (n == 0 || at[s] < PROMPT - 20 * s);
                     n++, at[s]++)
                    row[count++] = (struct forward_row){ &sequence[s], ids[s][at[s]], at[s],
                                                         at[s] >= PROMPT - 20 * s, true };
            }
            run(&e, row, count, logits);
            CHECK(memcmp(logits + (size_t)first * V, expected + (size_t)from * V,
                         (size_t)(at[0] - from) * V * sizeof *logits) == 0);
        }
        for (int s = 0; s < SEQUENCES; s++)
            cache_sequence_fini(&sequence[s]);
        free(expected), free(logits);
        engine_close(&e);
    }
}

/* Several generated positions in one step (speculation, or again after preemption). */
static void test_generated_positions_together_have_the_same_bits(void **state)
{
    struct engine e = engine_open(dir, WEIGHTS_BF16, 1, NULL);
    struct cache_sequence sequence;
    struct forward_row row[IDS];
    float *one = buffer(), *together = buffer();
    struct err err = { 0 };

    (void)state;
    alone(&e, PROMPT, 100, one);
    cache_sequence_init(&sequence, e.pool);
    CHECK(cache_grow(&sequence, IDS, &err));
    for (int i = 0; i < IDS; i++)
        row[i] = (struct forward_row){ &sequence, ids[0][i], i, i >= 100, true };
    run(&e, row, IDS, together);
    CHECK(memcmp(one, together, (size_t)IDS * V * sizeof *one) == 0);
    cache_sequence_fini(&sequence);
    free(one), free(together);
    engine_close(&e);
}

static double worst(const float *a, const float *b, size_t count)
{
    double worst_yet = 0;

    for (size_t i = 0; i < count; i++)
        worst_yet = fmax(worst_yet, fabs((double)a[i] - b[i]) / (1 + fabs((double)b[i])));
    return worst_yet;
}

static void test_both_forms_of_attention_agree(void **state)
{
    struct engine e = engine_open(dir, WEIGHTS_F32, 1, NULL);
    float *expanded = buffer(), *absorbed = buffer();

    (void)state;
    alone(&e, IDS, IDS, expanded);
    alone(&e, 1, 1, absorbed);
    CHECK(worst(absorbed, expanded, (size_t)IDS * V) < 1e-3);
    CHECK(memcmp(absorbed, expanded, (size_t)IDS * V * sizeof *expanded) != 0); /* they are two forms */
    free(expanded), free(absorbed);
    engine_close(&e);
}

static void test_the_plain_backend_agrees(void **state)
{
    struct engine e = engine_open(dir, WEIGHTS_F32, 1, &backend_ref);
    float *plain = buffer(), *fast = buffer();

    (void)state;
    alone(&e, PROMPT, PROMPT, plain);
    engine_close(&e);
    e = engine_open(dir, WEIGHTS_F32, 2, &backend_cpu_avx2);
    alone(&e, PROMPT, PROMPT, fast);
    CHECK(worst(fast, plain, (size_t)IDS * V) < 1e-4);
    free(plain), free(fast);
    engine_close(&e);
}

/* The stages driven by hand, each shard's rows sent to the one of three engines that holds it, slot by slot.
 */
static void test_who_holds_a_shard_cannot_be_seen(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        struct engine e = engine_open(dir, both[w], 1, NULL);
        const struct model_config *c = model_config(e.model);
        size_t sum_bytes = (size_t)c->hidden * model_carrier_bytes(e.model);
        struct model *holder[3];
        struct experts *at_holder[3];
        struct model_options options = { .weights = both[w], .threads = 2 };
        struct cache_sequence sequence;
        struct forward_row row[PROMPT];
        float *expected = buffer();
        struct err err = { 0 };

        alone(&e, PROMPT, PROMPT, expected);
        for (int h = 0; h < 3; h++) {
            CHECK(model_open(&holder[h], dir, &options, &err));
            for (int s = 0; s < c->shards; s++)
                if (s % 3 == h)
                    CHECK(model_seat(holder[h], s, &err));
            at_holder[h] = experts_new(holder[h]);
        }
        for (int s = 0; s < c->shards; s++)
            model_unseat(e.model, s); /* the owner of the rows holds none */
        cache_sequence_init(&sequence, e.pool);
        CHECK(cache_grow(&sequence, PROMPT, &err));
        for (int i = 0; i < PROMPT; i++)
            row[i] = (struct forward_row){ &sequence, ids[0][i], i, false, true };
        CHECK(!forward_run(e.step, e.experts, row, PROMPT, &err) && err.code == ERR_NOT_FOUND);

        forward_begin(e.step, row, PROMPT);
        for (int layer = 0; layer < c->layers; layer++) {
            static struct expert_pair pair[3][PROMPT * 4];
            static uint16_t slot_row[3][PROMPT * 4], slot_shard[3][PROMPT * 4];
            static struct forward_sum sum[PROMPT * 4];
            unsigned char *sums[3];
            int slots[3], next[3] = { 0 }, count = 0;

            while (!forward_attend(e.step, layer))
                ;
            if (!config_layer_is_moe(c, layer)) {
                while (!forward_dense(e.step, layer))
                    ;
                continue;
            }
            forward_route(e.step, layer);
            for (int h = 0; h < 3; h++) {
                bool held[CONFIG_SHARDS_MAX] = { false };
                int pairs;

                for (int s = 0; s < c->shards; s++)
                    held[s] = s % 3 == h;
                pairs = forward_pairs(e.step, held, pair[h], slot_row[h], slot_shard[h], &slots[h]);
                sums[h] = malloc((size_t)slots[h] * sum_bytes + 1);
                CHECK(experts_begin(at_holder[h], layer, forward_carried(e.step), PROMPT, pair[h], pairs,
                                    slots[h], &err));
                while (!experts_work(at_holder[h], sums[h]))
                    ;
            }
            while (!forward_shared(e.step, layer))
                ;
            for (int r = 0; r < PROMPT; r++)
                for (int s = 0; s < c->shards; s++) {
                    int h = s % 3;

                    if (next[h] < slots[h] && slot_row[h][next[h]] == r && slot_shard[h][next[h]] == s)
                        sum[count++] = (struct forward_sum){ (uint16_t)r, (uint16_t)s,
                                                             sums[h] + (size_t)next[h]++ * sum_bytes };
                }
            CHECK(count == slots[0] + slots[1] + slots[2]);
            forward_combine(e.step, layer, sum, count);
            for (int h = 0; h < 3; h++)
                free(sums[h]);
        }
        while (!forward_logits(e.step, 0, PROMPT))
            ;
        for (int r = 0; r < PROMPT; r++)
            CHECK(memcmp(forward_logits_of(e.step, r), expected + (size_t)r * V, V * sizeof *expected) == 0);
        for (int h = 0; h < 3; h++) {
            experts_free(at_holder[h]);
            model_free(holder[h]);
        }
        cache_sequence_fini(&sequence);
        free(expected);
        engine_close(&e);
    }
}

/* What a peer sends is refused, never followed. */
static void test_pairs_that_point_outside_are_refused(void **state)
{
    static const struct {
        int layer, rows, slots;
        struct expert_pair pair[2];
        enum err_code code;
    } table[] = {
        { 0, 1, 1, { { 0, 0, 0, 1 }, { 0, 0, 1, 1 } }, ERR_INPUT } /* dense */,
        { 3, 1, 1, { { 0, 0, 0, 1 }, { 0, 0, 1, 1 } }, ERR_INPUT },
        { -1, 1, 1, { { 0, 0, 0, 1 }, { 0, 0, 1, 1 } }, ERR_INPUT },
        { 1, 1, 1, { { 1, 0, 0, 1 }, { 0, 0, 1, 1 } }, ERR_INPUT },
        { 1, 1, 1, { { 0, 1, 0, 1 }, { 0, 0, 1, 1 } }, ERR_INPUT },
        { 1, 1, 1, { { 0, 0, 0, 1 }, { 0, 0, 16, 1 } }, ERR_INPUT },
        { 1, 1, 1, { { 0, 0, 1, 1 }, { 0, 0, 0, 1 } }, ERR_INPUT },
        { 1, 0, 0, { { 0, 0, 0, 1 }, { 0, 0, 1, 1 } }, ERR_INPUT },
        { 1, 1, 1, { { 0, 0, 0, 1 }, { 0, 0, 2, 1 } }, ERR_NOT_FOUND } /* shard 1 is not here */,
    };
    struct engine e = engine_open(dir, WEIGHTS_F32, 1, NULL);
    float rows[44] = { 0 };
    struct err err;

    (void)state;
    model_unseat(e.model, 1);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        err.code = ERR_NONE;
        CHECK(!experts_begin(e.experts, table[i].layer, rows, table[i].rows, table[i].pair, 2, table[i].slots,
                             &err));
        CHECK(err.code == table[i].code);
    }
    engine_close(&e);
}

/* What a map gives must not depend on where the data happens to lie. */
static void test_unaligned_files_give_the_same_bits(void **state)
{
    (void)state;
    for (int f32 = 0; f32 < 2; f32++) {
        float *expected = buffer(), *got = buffer();

        for (int pad = 0; pad < 4; pad++) {
            char *other = checkpoint_dir();
            struct engine e;

            checkpoint_write(other, CHECKPOINT_CONFIG, 5,
                             (struct checkpoint_quirks){ .f32 = f32, .pad = pad });
            e = engine_open(other, WEIGHTS_OF_CHECKPOINT, 1, NULL);
            CHECK(model_weights(e.model) == (f32 ? WEIGHTS_F32 : WEIGHTS_BF16));
            alone(&e, PROMPT, PROMPT, pad ? got : expected);
            CHECK(pad == 0 || memcmp(got, expected, (size_t)IDS * V * sizeof *got) == 0);
            engine_close(&e);
            checkpoint_remove(other);
        }
        free(expected), free(got);
    }
}

/* A request whose numbers go wrong must not touch the others of its batch, and must be seen to have gone
 * wrong. */
static void test_a_poisoned_sequence_hurts_nobody_else(void **state)
{
    enum { POISON = 100, ROWS = 70 };
    char *other = checkpoint_dir();
    struct cache_sequence sequence[2];
    struct forward_row row[2 * ROWS];
    float *expected = buffer(), *logits = calloc((size_t)2 * ROWS * V, sizeof *logits);
    struct err err = { 0 };
    struct engine e;
    char path[600];
    uint64_t header;
    FILE *file;

    (void)state;
    checkpoint_write(other, CHECKPOINT_CONFIG, 1, (struct checkpoint_quirks){ 0 });
    snprintf(path, sizeof path, "%s/model.safetensors", other);
    file = fopen(path, "r+b"); /* the embedding is the first tensor; one of its rows becomes NaN */
    CHECK(file && fread(&header, 1, 8, file) == 8 &&
          fseek(file, (long)(8 + header + POISON * 44 * 2), SEEK_SET) == 0);
    for (int i = 0; i < 44; i++)
        CHECK(fwrite(&(uint16_t){ 0x7fc0 }, 1, 2, file) == 2);
    fclose(file);
    e = engine_open(other, WEIGHTS_BF16, 2, NULL);
    for (int s = 0; s < 2; s++) {
        cache_sequence_init(&sequence[s], e.pool);
        CHECK(cache_grow(&sequence[s], ROWS, &err));
    }
    for (int i = 0; i < ROWS; i++) {
        row[i] = (struct forward_row){ &sequence[0], i == 3 ? POISON : i, i, i > 60, true };
        row[ROWS + i] = (struct forward_row){ &sequence[1], i, i, i > 60, true };
    }
    run(&e, row + ROWS, ROWS, expected);
    run(&e, row, 2 * ROWS, logits);
    CHECK(memcmp(logits + (size_t)ROWS * V, expected, (size_t)ROWS * V * sizeof *logits) == 0);
    CHECK(isfinite(logits[2 * V]) && isnan(logits[3 * V]) && isnan(logits[(ROWS - 1) * V]));
    for (int s = 0; s < 2; s++)
        cache_sequence_fini(&sequence[s]);
    free(expected), free(logits);
    engine_close(&e);
    checkpoint_remove(other);
}

static int make(void **state)
{
    unsigned seed = 3;

    (void)state;
    dir = checkpoint_dir();
    checkpoint_write(dir, CHECKPOINT_CONFIG, 1, (struct checkpoint_quirks){ .pad = 1 });
    for (int s = 0; s < SEQUENCES; s++)
        for (int i = 0; i < IDS; i++)
            ids[s][i] = (int32_t)(rand_r(&seed) % V);
    return 0;
}

static int clean(void **state)
{
    (void)state;
    checkpoint_remove(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunk_length_cannot_be_seen),
        cmocka_unit_test(test_the_number_of_threads_cannot_be_seen),
        cmocka_unit_test(test_pieces_cannot_be_seen),
        cmocka_unit_test(test_a_batch_cannot_be_seen),
        cmocka_unit_test(test_generated_positions_together_have_the_same_bits),
        cmocka_unit_test(test_both_forms_of_attention_agree),
        cmocka_unit_test(test_the_plain_backend_agrees),
        cmocka_unit_test(test_who_holds_a_shard_cannot_be_seen),
        cmocka_unit_test(test_pairs_that_point_outside_are_refused),
        cmocka_unit_test(test_unaligned_files_give_the_same_bits),
        cmocka_unit_test(test_a_poisoned_sequence_hurts_nobody_else),
    };

    return cmocka_run_group_tests(tests, make, clean);
}
