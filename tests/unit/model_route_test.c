/* The router against a brute force that tries every subset, ties included. */

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "worker/model/inside.h"

static unsigned seed = 11;

/* Is x the better set?  Sets are masks of ids; the better one has the larger score at the first place where
 * the two, each in order of (score descending, id ascending), differ; on equal scores the lower id. */
static bool better(const float *score, int count, unsigned x, unsigned y)
{
    while (x && y) {
        int a = -1, b = -1;

        for (int i = 0; i < count; i++) {
            if (x >> i & 1 && (a < 0 || score[i] > score[a]))
                a = i;
            if (y >> i & 1 && (b < 0 || score[i] > score[b]))
                b = i;
        }
        if (score[a] != score[b])
            return score[a] > score[b];
        if (a != b)
            return a < b;
        x &= ~(1u << a);
        y &= ~(1u << b);
    }
    return false;
}

/* The best set of k out of the allowed ones. */
static unsigned best_set(const float *score, int count, int k, unsigned allowed)
{
    unsigned best = 0;

    for (unsigned set = 0; set < 1u << count; set++)
        if (__builtin_popcount(set) == k && (set & ~allowed) == 0 &&
            (best == 0 || better(score, count, set, best)))
            best = set;
    return best;
}

static void check_choice(struct model_config c, const float *score)
{
    struct forward_choice choice[16];
    unsigned allowed = (1u << c.experts) - 1, expected;
    float sum = 0;
    int n = 0;

    if (c.topk_method == TOPK_GROUP_LIMITED) {
        float group[16];
        int each = c.experts / c.groups;
        unsigned kept;

        for (int g = 0; g < c.groups; g++) {
            group[g] = 0;
            for (int e = 0; e < each; e++)
                group[g] = score[g * each + e] > group[g] ? score[g * each + e] : group[g];
        }
        kept = best_set(group, c.groups, c.topk_groups, (1u << c.groups) - 1);
        allowed = 0;
        for (int e = 0; e < c.experts; e++)
            if (kept >> e / each & 1)
                allowed |= 1u << e;
    }
    expected = best_set(score, c.experts, c.experts_per_token, allowed);
    route_choose(&c, score, choice);
    for (int e = 0; e < c.experts; e++)
        if (expected >> e & 1)
            sum += score[e];
    for (int e = 0; e < c.experts; e++)
        if (expected >> e & 1) {
            float weight = c.norm_topk && c.experts_per_token > 1 ? score[e] / (sum + 1e-20f)
                                                                  : score[e] * c.routed_scale;

            CHECK(choice[n].expert == (uint32_t)e);
            CHECK(choice[n++].weight == weight);
        }
    CHECK(n == c.experts_per_token);
}

static void test_choices_are_those_of_a_brute_force(void **state)
{
    static const int groups[] = { 1, 2, 3, 4, 6, 12 };

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct model_config c = { .experts = 12, .routed_scale = 4, .groups = 1, .topk_groups = 1 };
        float score[12];

        c.groups = groups[round % 6];
        c.topk_method = round % 2 ? TOPK_GROUP_LIMITED : TOPK_GREEDY;
        c.topk_groups = 1 + (int)(rand_r(&seed) % (unsigned)c.groups);
        c.experts_per_token = 1 + round % (c.topk_method == TOPK_GREEDY        ? 5
                                           : c.topk_groups * 12 / c.groups < 5 ? c.topk_groups * 12 / c.groups
                                                                               : 5);
        c.norm_topk = round % 3 == 0;
        for (int e = 0; e < 12; e++) /* few distinct values, so that ties are common, zeros too */
            score[e] = (float)(rand_r(&seed) % (round % 4 == 0 ? 3 : 1000)) / 1000;
        check_choice(c, score);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_choices_are_those_of_a_brute_force) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
