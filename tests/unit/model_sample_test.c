/* Sampling: the right distribution, and the same token for the same (seed, choice, position), whatever else
 * happens. */

#include "worker/model/sample.h"
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { V = 50, DRAWS = 40000 };

static float logits[V];
static struct sampler *sampler;

static void fill(void)
{
    unsigned seed = 9;

    for (int i = 0; i < V; i++)
        logits[i] = (float)(rand_r(&seed) % 1000) / 250;
    logits[17] = logits[23] = 4.5f; /* a tie at the top */
}

/* The share of draws of each id against what it should be; sigma of a share is below 0.0025. */
static void check_shares(struct sample_params params, int known, const double *expected)
{
    int count[V] = { 0 };

    for (uint32_t position = 0; position < DRAWS; position++) {
        int32_t id = sample_token(sampler, logits, known, &params, position);

        CHECK(id >= 0 && id < known);
        count[id]++;
    }
    for (int i = 0; i < V; i++) {
        if (expected[i] == 0)
            CHECK(count[i] == 0);
        CHECK(fabs((double)count[i] / DRAWS - expected[i]) < 0.0125);
    }
}

/* (logit descending, id ascending) */
static int by_logit(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;

    if (logits[x] != logits[y])
        return logits[x] > logits[y] ? -1 : 1;
    return x - y;
}

static void expect(double *p, int known, double temperature, int top_k, double top_p)
{
    int order[V];
    double total = 0, sum = 0;

    for (int i = 0; i < V; i++)
        p[i] = 0, order[i] = i;
    qsort(order, (size_t)known, sizeof order[0], by_logit);
    if (top_k == 0 || top_k > known)
        top_k = known;
    for (int i = 0; i < top_k; i++)
        total += exp(logits[order[i]] / temperature);
    for (int i = 0; i < top_k && (i == 0 || top_p >= 1 || sum < top_p * total); i++) {
        p[order[i]] = exp(logits[order[i]] / temperature);
        sum += p[order[i]];
    }
    for (int i = 0; i < V; i++)
        p[i] /= sum;
}

static void test_draws_follow_the_distribution(void **state)
{
    static const struct {
        double temperature, top_p;
        int top_k, known;
    } table[] = {
        { 1, 1, 0, V },   { 0.5, 1, 0, V },    { 1.7, 1, 0, 40 },  { 1, 0.5, 0, V }, { 1, 0.9, 0, 33 },
        { 1, 1, 5, V },   { 0.8, 0.6, 10, V }, { 1, 0.001, 0, V }, { 1, 1, 1, V },   { 2, 0.95, 500, V },
        { 1.7, 0, 0, V }, { 1, 0, 5, V }, /* top_p 0 leaves the likeliest */
    };

    (void)state;
    fill();
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct sample_params params = { (float)table[i].temperature, (float)table[i].top_p, table[i].top_k,
                                        1234 + i, 0, 0 };
        double p[V];

        expect(p, table[i].known, table[i].temperature, table[i].top_k, (double)params.top_p);
        check_shares(params, table[i].known, p);
    }
}

static void test_greedy_takes_the_lowest_id_of_the_best(void **state)
{
    struct sample_params params = { .top_p = 1 };

    (void)state;
    fill();
    CHECK(sample_token(sampler, logits, V, &params, 0) == 17);
    logits[17] = -INFINITY;
    CHECK(sample_token(sampler, logits, V, &params, 0) == 23);
    CHECK(sample_token(sampler, logits, 20, &params, 0) < 20); /* rows beyond the tokenizer are never drawn */
    logits[23] = NAN;
    CHECK(sample_token(sampler, logits, V, &params, 0) != 23);
}

/* A request whose numbers went wrong fails alone, with a reason; it is not answered with token 0. */
static void test_without_a_finite_logit_there_is_no_token(void **state)
{
    static const struct sample_params table[] = {
        { .top_p = 1 }, { 1, 1, 0, 5, 0, 0 }, { 1, 0.5f, 0, 5, 0, 0 }, { 1, 1, 7, 5, 0, 0 }
    };

    (void)state;
    for (int i = 0; i < V; i++)
        logits[i] = i % 2 ? NAN : -INFINITY;
    for (int i = 0; i < 4; i++)
        CHECK(sample_token(sampler, logits, V, &table[i], 3) == -1);
}

static void test_a_draw_is_a_function_of_seed_choice_and_position(void **state)
{
    struct sample_params params = { 1, 0.9f, 0, 99, 2, 0 };
    int32_t token[100];
    int same_seed = 0, same_choice = 0;

    (void)state;
    fill();
    for (uint32_t p = 0; p < 100; p++)
        token[p] = sample_token(sampler, logits, V, &params, p);
    for (uint32_t p = 100; p-- > 0;) /* in another order, with another sampler's draws in between */
        CHECK(sample_token(sampler, logits, V, &params, p) == token[p]);
    for (uint32_t p = 0; p < 100; p++) {
        struct sample_params seed = params, choice = params;

        seed.seed++;
        choice.choice++;
        same_seed += sample_token(sampler, logits, V, &seed, p) == token[p];
        same_choice += sample_token(sampler, logits, V, &choice, p) == token[p];
    }
    CHECK(same_seed < 30 && same_choice < 30);
}

/* min_p, alone and with the other filters: what is below its share of the best is gone before they look. */
static void test_min_p_takes_what_is_far_below_the_best(void **state)
{
    static const struct {
        double temperature, min_p, top_p;
        int top_k;
    } table[] = { { 1, 0.2, 1, 0 }, { 0.6, 0.05, 1, 0 }, { 1, 0.2, 0.7, 0 }, { 1.5, 0.3, 1, 6 }, { 1, 1, 1, 0 } };

    (void)state;
    fill();
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct sample_params params = { (float)table[i].temperature, (float)table[i].top_p, table[i].top_k, 77 + i, 0,
                                        (float)table[i].min_p };
        float kept[V], all[V];
        double p[V];

        memcpy(all, logits, sizeof all);
        for (int k = 0; k < V; k++)
            kept[k] = exp((logits[k] - 4.5) / table[i].temperature) < table[i].min_p * 0.9999 ? -1e30f : logits[k];
        memcpy(logits, kept, sizeof kept);
        expect(p, V, table[i].temperature, table[i].top_k, table[i].top_p);
        memcpy(logits, all, sizeof all);
        check_shares(params, V, p);
    }
}

/* The arithmetic of vLLM, in its order, by hand. */
static void test_logits_are_shaped_in_order(void **state)
{
    uint64_t mask[1] = { 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 };
    int32_t beside[] = { 40, 900 }, banned[] = { 5, 900 };
    struct sample_bias bias[] = { { 2, 3 }, { 3, -3 }, { 30, 100 }, { 900, 1 } };
    struct sample_history history = { 0 };
    struct sample_shape shape = { .mask = mask, .beside = beside, .beside_count = 2, .banned = banned, .banned_count = 2,
                                  .bias = bias, .bias_count = 4, .history = &history, .presence = 0.5f, .frequency = 0.25f,
                                  .repetition = 2 };
    const float *shaped;

    (void)state;
    for (int i = 0; i < V; i++)
        logits[i] = (float)i;
    CHECK(sample_shaped(sampler, logits, V, &(struct sample_shape){ 0 }) == logits); /* nothing to do: no copy */
    CHECK(sample_history_add(&history, 1, false));                                    /* in the prompt only */
    for (int i = 0; i < 3; i++)
        CHECK(sample_history_add(&history, 2, true));
    CHECK(sample_history_add(&history, 3, true) && sample_history_add(&history, 3, false));
    for (int i = 100; i < 1000; i++) /* ids that are not known change nothing; the table grows */
        CHECK(sample_history_add(&history, i, true));
    shaped = sample_shaped(sampler, logits, V, &shape);
    CHECK(shaped[1] == 1 / 2.0f);
    CHECK(shaped[2] == (2 + 3) / 2.0f - 3 * 0.25f - 0.5f);
    CHECK(shaped[3] == (3 - 3) * 2.0f - 0.25f - 0.5f);
    CHECK(shaped[4] == 4 && shaped[40] == 40);
    CHECK(shaped[5] == -INFINITY && shaped[30] == -INFINITY && shaped[0] == -INFINITY && shaped[49] == -INFINITY);
    CHECK(logits[2] == 2);
    logits[1] = -1;
    CHECK(sample_shaped(sampler, logits, V, &shape)[1] == -2); /* a negative logit is pushed down, not up */
    shape.history = NULL;
    CHECK(sample_shaped(sampler, logits, V, &shape)[1] == -1);
    shape = (struct sample_shape){ .mask = mask };
    mask[0] = UINT64_MAX;
    CHECK(memcmp(sample_shaped(sampler, logits, V, &shape), logits, sizeof logits) == 0);
    mask[0] = 0;
    CHECK(sample_token(sampler, sample_shaped(sampler, logits, V, &shape), V, &(struct sample_params){ .top_p = 1 }, 0) == -1);
    sample_history_fini(&history);
}

/* Philox4x32-10's published known answers: all zeros, all ones. */
static void test_the_generator_is_philox(void **state)
{
    (void)state;
    CHECK(sample_uniform(0, 0, 0) == ((double)(0x6627e8d5ULL << 20 | 0xe169c58dU >> 12) + 0.5) * 0x1p-52);
    for (uint32_t i = 0; i < 1000; i++) {
        double u = sample_uniform(i * 77, i, i);

        CHECK(u > 0 && u < 1);
    }
}

static void test_logprobs_are_normalised_over_all_rows(void **state)
{
    struct sample_logprob top[8];
    double total = 0;
    int order[V];

    (void)state;
    fill();
    for (int i = 0; i < V; i++)
        total += exp(logits[i]), order[i] = i;
    qsort(order, V, sizeof order[0], by_logit);
    for (int i = 0; i < V; i++) {
        CHECK(fabs(sample_logprobs(sampler, logits, i, top, 8) - (logits[i] - log(total))) < 2e-6);
        for (int t = 0; t < 8; t++) {
            CHECK(top[t].token == order[t]);
            CHECK(fabs(top[t].logprob - (logits[order[t]] - log(total))) < 2e-6);
        }
    }
    CHECK(sample_logprobs(sampler, logits, 3, NULL, 0) < 0);
}

static int make(void **state)
{
    (void)state;
    sampler = sampler_new(backend_best(NULL), V);
    return sampler ? 0 : 1;
}

static int clean(void **state)
{
    (void)state;
    sampler_free(sampler);
    sampler_free(NULL);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws_follow_the_distribution),
        cmocka_unit_test(test_greedy_takes_the_lowest_id_of_the_best),
        cmocka_unit_test(test_without_a_finite_logit_there_is_no_token),
        cmocka_unit_test(test_a_draw_is_a_function_of_seed_choice_and_position),
        cmocka_unit_test(test_min_p_takes_what_is_far_below_the_best),
        cmocka_unit_test(test_logits_are_shaped_in_order),
        cmocka_unit_test(test_the_generator_is_philox),
        cmocka_unit_test(test_logprobs_are_normalised_over_all_rows),
    };

    return cmocka_run_group_tests(tests, make, clean);
}
