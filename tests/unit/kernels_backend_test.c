/* The kernels: the fast family means what the plain one means, and no output row can see its neighbours. */

#include "kernels/backend.h"
#include "tests/check.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned seed = 7;

static float uniform(void)
{
    return (float)(rand_r(&seed) % 20001) / 10000.0f - 1;
}

static float *floats(size_t count)
{
    float *x = malloc((count + 1) * sizeof *x);

    for (size_t i = 0; i < count; i++)
        x[i] = uniform();
    return x;
}

/* count values in the format, beginning at an odd address. */
static unsigned char *numbers(enum number number, size_t count)
{
    float *x = floats(count);
    unsigned char *memory = malloc(count * number_bytes(number) + 1);

    backend_ref.narrow(memory + 1, number, x, (int)count);
    free(x);
    return memory;
}

static bool close_to(float a, float b, double tolerance)
{
    return fabs((double)a - b) <= tolerance * (1 + fabs((double)b));
}

static const struct {
    int rows, outputs, k;
} shapes[] = {
    { 1, 1, 1 },    { 1, 8, 8 },    { 1, 9, 20 },    { 2, 5, 7 },     { 3, 7, 28 },
    { 4, 3, 64 },   { 5, 13, 33 },  { 7, 25, 96 },   { 12, 24, 9 },   { 13, 29, 100 },
    { 33, 3, 192 }, { 70, 50, 61 }, { 17, 6, 4101 }, { 13, 4, 9001 },
};

static void test_fast_kernels_mean_what_plain_ones_mean(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (enum number number = NUMBER_F32; number <= NUMBER_BF16; number++) {
            int rows = shapes[i].rows, outputs = shapes[i].outputs, k = shapes[i].k;
            size_t x_stride = (size_t)k + 3, w_stride = (size_t)k + 1, out_stride = (size_t)outputs + 2;
            float *x = floats((size_t)rows * x_stride), *a = floats((size_t)rows * out_stride),
                  *b = floats((size_t)rows * out_stride);
            unsigned char *w = numbers(number, (size_t)outputs * w_stride);

            backend_ref.dot(a, out_stride, x, x_stride, NULL, rows, w + 1, number, w_stride, 0, outputs, k);
            backend_cpu_avx2.dot(b, out_stride, x, x_stride, NULL, rows, w + 1, number, w_stride, 0, outputs,
                                 k);
            for (int m = 0; m < rows; m++)
                for (int o = 0; o < outputs; o++)
                    CHECK(close_to(b[(size_t)m * out_stride + (size_t)o],
                                   a[(size_t)m * out_stride + (size_t)o], 3e-5));
            /* mix: k rows of b, `outputs` columns */
            free(w);
            w = numbers(number, (size_t)k * out_stride);
            backend_ref.mix(a, out_stride, x, x_stride, rows, w + 1, number, out_stride, k, outputs);
            backend_cpu_avx2.mix(b, out_stride, x, x_stride, rows, w + 1, number, out_stride, k, outputs);
            for (int m = 0; m < rows; m++)
                for (int o = 0; o < outputs; o++)
                    CHECK(close_to(b[(size_t)m * out_stride + (size_t)o],
                                   a[(size_t)m * out_stride + (size_t)o], 1e-4));
            free(w), free(x), free(a), free(b);
        }
}

static void test_row_kernels_mean_what_plain_ones_mean(void **state)
{
    static const int sizes[] = { 1, 2, 7, 8, 9, 20, 28, 64, 101 };

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int n = sizes[i];
        float *x = floats((size_t)n), *y = floats((size_t)n), *a = floats((size_t)n), *b = floats((size_t)n);

        backend_ref.rms_norm(a, x, y, n, 1e-6f);
        backend_cpu_avx2.rms_norm(b, x, y, n, 1e-6f);
        for (int j = 0; j < n; j++)
            CHECK(close_to(b[j], a[j], 1e-6));
        for (int j = 0; j < n; j++)
            x[j] *= 30;
        backend_ref.silu_mul(a, x, y, n);
        backend_cpu_avx2.silu_mul(b, x, y, n);
        for (int j = 0; j < n; j++)
            CHECK(close_to(b[j], a[j], 1e-6));
        CHECK(backend_ref.max(x, n) == backend_cpu_avx2.max(x, n));
        memcpy(a, x, (size_t)n * sizeof *x);
        memcpy(b, x, (size_t)n * sizeof *x);
        CHECK(close_to(backend_cpu_avx2.exp_sum(b, n, backend_ref.max(x, n)),
                       backend_ref.exp_sum(a, n, backend_ref.max(x, n)), 1e-6));
        for (int j = 0; j < n; j++)
            CHECK(close_to(b[j], a[j], 1e-6));
        memcpy(a, x, (size_t)n * sizeof *x);
        memcpy(b, x, (size_t)n * sizeof *x);
        backend_ref.merge(a, 0.3f, y, 0.7f, n);
        backend_cpu_avx2.merge(b, 0.3f, y, 0.7f, n);
        CHECK(memcmp(a, b, (size_t)n * sizeof *a) == 0);
        backend_ref.add_scaled(a, y, 0.2f, n);
        backend_cpu_avx2.add_scaled(b, y, 0.2f, n);
        for (int j = 0; j < n; j++)
            CHECK(close_to(b[j], a[j], 1e-6));
        memcpy(a, x, (size_t)n * sizeof *x);
        memcpy(b, x, (size_t)n * sizeof *x);
        backend_ref.rotate(a, y, x, n / 2);
        backend_cpu_avx2.rotate(b, y, x, n / 2);
        CHECK(memcmp(a, b, (size_t)n * sizeof *a) == 0);
        free(x), free(y), free(a), free(b);
    }
}

/* Without this, a request's answer would depend on who else is in the batch. */
static void test_a_row_alone_has_the_bits_it_has_in_a_batch(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (enum number number = NUMBER_F32; number <= NUMBER_BF16; number++) {
            int rows = shapes[i].rows, outputs = shapes[i].outputs, k = shapes[i].k;
            float *x = floats((size_t)rows * (size_t)k), *all = floats((size_t)rows * (size_t)outputs),
                  *one = floats((size_t)outputs);
            unsigned char *w = numbers(number, (size_t)outputs * (size_t)k);
            uint16_t row[80];

            backend_cpu_avx2.dot(all, (size_t)outputs, x, (size_t)k, NULL, rows, w + 1, number, (size_t)k, 0,
                                 outputs, k);
            for (int m = 0; m < rows; m++) {
                backend_cpu_avx2.dot(one, (size_t)outputs, x + (size_t)m * (size_t)k, (size_t)k, NULL, 1,
                                     w + 1, number, (size_t)k, 0, outputs, k);
                CHECK(memcmp(one, all + (size_t)m * (size_t)outputs, (size_t)outputs * sizeof *one) == 0);
            }
            /* one output at a time, rows in reverse through the index */
            for (int m = 0; m < rows; m++)
                row[m] = (uint16_t)(rows - 1 - m);
            for (int o = 0; o < outputs; o++) {
                float *reversed = floats((size_t)rows * (size_t)outputs);

                backend_cpu_avx2.dot(reversed, (size_t)outputs, x, (size_t)k, row, rows, w + 1, number,
                                     (size_t)k, o, o + 1, k);
                for (int m = 0; m < rows; m++)
                    CHECK(memcmp(reversed + (size_t)m * (size_t)outputs + o,
                                 all + (size_t)(rows - 1 - m) * (size_t)outputs + (size_t)o,
                                 sizeof *all) == 0);
                free(reversed);
            }
            free(w);
            w = numbers(number, (size_t)k * (size_t)outputs);
            backend_cpu_avx2.mix(all, (size_t)outputs, x, (size_t)k, rows, w + 1, number, (size_t)outputs, k,
                                 outputs);
            for (int m = 0; m < rows; m++) {
                backend_cpu_avx2.mix(one, (size_t)outputs, x + (size_t)m * (size_t)k, (size_t)k, 1, w + 1,
                                     number, (size_t)outputs, k, outputs);
                CHECK(memcmp(one, all + (size_t)m * (size_t)outputs, (size_t)outputs * sizeof *one) == 0);
            }
            free(w), free(x), free(all), free(one);
        }
}

/* bf16 weights and the same weights widened to f32 must give the same bits: f32 arithmetic reads a bf16 map.
 */
static void test_widened_weights_give_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        int rows = shapes[i].rows, outputs = shapes[i].outputs, k = shapes[i].k;
        float *x = floats((size_t)rows * (size_t)k), *a = floats((size_t)rows * (size_t)outputs);
        float *b = floats((size_t)rows * (size_t)outputs), *wide = floats((size_t)outputs * (size_t)k);
        unsigned char *w = numbers(NUMBER_BF16, (size_t)outputs * (size_t)k);

        backend_cpu_avx2.widen(wide, w + 1, NUMBER_BF16, outputs * k);
        backend_cpu_avx2.dot(a, (size_t)outputs, x, (size_t)k, NULL, rows, w + 1, NUMBER_BF16, (size_t)k, 0,
                             outputs, k);
        backend_cpu_avx2.dot(b, (size_t)outputs, x, (size_t)k, NULL, rows, wide, NUMBER_F32, (size_t)k, 0,
                             outputs, k);
        CHECK(memcmp(a, b, (size_t)rows * (size_t)outputs * sizeof *a) == 0);
        free(w), free(x), free(a), free(b), free(wide);
    }
}

static void test_bf16_rounds_to_nearest_even(void **state)
{
    static const struct {
        uint32_t bits;
        uint16_t half;
    } table[] = {
        { 0x3f800000, 0x3f80 },
        { 0x3f808000, 0x3f80 } /* a tie, to even */,
        { 0x3f818000, 0x3f82 } /* a tie, to even */,
        { 0x3f808001, 0x3f81 },
        { 0x3f807fff, 0x3f80 },
        { 0x80000000, 0x8000 },
        { 0x7f7fffff, 0x7f80 } /* to infinity */,
        { 0x7f800000, 0x7f80 },
        { 0x7f800001, 0x7fc0 } /* NaN stays NaN */,
        { 0xff800001, 0xffc0 },
        { 0x00000001, 0x0000 },
    };
    const struct backend *backends[] = { &backend_ref, &backend_cpu_avx2 };

    (void)state;
    for (int b = 0; b < 2; b++)
        for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
            float x[11];
            uint16_t half[11];

            for (int j = 0; j < 11; j++)
                memcpy(x + j, &table[i].bits, 4);
            backends[b]->narrow(half, NUMBER_BF16, x, 11);
            for (int j = 0; j < 11; j++)
                CHECK(half[j] == table[i].half);
        }
}

static void test_exp_and_log_are_accurate(void **state)
{
    (void)state;
    for (double x = -87; x < 88; x += 0.00937)
        CHECK(fabs(backend_cpu_avx2.exp((float)x) / exp((double)(float)x) - 1) < 3e-7);
    CHECK(backend_cpu_avx2.exp(0) == 1);
    CHECK(backend_cpu_avx2.exp(-1000) == 0);
    CHECK(backend_cpu_avx2.exp(-INFINITY) == 0);
    CHECK(isfinite(backend_cpu_avx2.exp(1000)));
    CHECK(isnan(backend_cpu_avx2.exp(NAN)));
    for (double x = 1e-310; x < 1e300; x *= 1.37)
        CHECK(fabs(backend_log(x) - log(x)) <= 4e-16 * (1 + fabs(log(x))));
    CHECK(backend_log(1) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_kernels_mean_what_plain_ones_mean),
        cmocka_unit_test(test_row_kernels_mean_what_plain_ones_mean),
        cmocka_unit_test(test_a_row_alone_has_the_bits_it_has_in_a_batch),
        cmocka_unit_test(test_widened_weights_give_the_same_bits),
        cmocka_unit_test(test_bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_exp_and_log_are_accurate),
    };
    struct err err;

    if (!backend_best(&err)) {
        fprintf(stderr, "skipped: %s\n", err.text);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
