/* ref - every kernel as its definition reads, summed in double: what the fast ones are compared with.
 * It is the one backend that may ask libm. */

#include "kernels/backend.h"

#include <math.h>
#include <string.h>

static float number_at(const void *data, enum number number, size_t i)
{
    float x;

    if (number == NUMBER_F32) {
        memcpy(&x, (const char *)data + 4 * i, 4);
    } else {
        uint16_t half;
        uint32_t bits;

        memcpy(&half, (const char *)data + 2 * i, 2);
        bits = (uint32_t)half << 16;
        memcpy(&x, &bits, 4);
    }
    return x;
}

static bool ref_usable(struct err *err)
{
    (void)err;
    return true;
}

static void ref_dot(float *out, size_t out_stride, const float *x, size_t x_stride, const uint16_t *row,
                    int rows, const void *w, enum number number, size_t w_stride, int from, int to, int k)
{
    for (int m = 0; m < rows; m++)
        for (int o = from; o < to; o++) {
            const float *xm = x + (size_t)(row ? row[m] : m) * x_stride;
            double sum = 0;

            for (int i = 0; i < k; i++)
                sum += (double)xm[i] * number_at(w, number, (size_t)o * w_stride + (size_t)i);
            out[(size_t)m * out_stride + (size_t)o] = (float)sum;
        }
}

static void ref_mix(float *out, size_t out_stride, const float *p, size_t p_stride, int rows, const void *b,
                    enum number number, size_t b_stride, int k, int columns)
{
    for (int m = 0; m < rows; m++)
        for (int c = 0; c < columns; c++) {
            double sum = 0;

            for (int j = 0; j < k; j++)
                sum += (double)p[(size_t)m * p_stride + (size_t)j] *
                       number_at(b, number, (size_t)j * b_stride + (size_t)c);
            out[(size_t)m * out_stride + (size_t)c] = (float)sum;
        }
}

static void ref_rms_norm(float *out, const float *x, const float *gain, int n, float eps)
{
    double sum = 0, by;

    for (int i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    by = 1 / sqrt(sum / n + (double)eps);
    for (int i = 0; i < n; i++)
        out[i] = (float)(x[i] * by * gain[i]);
}

static void ref_silu_mul(float *out, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = (float)((double)gate[i] / (1 + exp(-(double)gate[i])) * up[i]);
}

static float ref_max(const float *x, int n)
{
    float max = x[0];

    for (int i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

static float ref_exp_sum(float *x, int n, float max)
{
    double sum = 0;

    for (int i = 0; i < n; i++) {
        x[i] = (float)exp((double)x[i] - max);
        sum += x[i];
    }
    return (float)sum;
}

static void ref_add(float *into, const float *x, int n)
{
    for (int i = 0; i < n; i++)
        into[i] += x[i];
}

static void ref_add_scaled(float *into, const float *x, float by, int n)
{
    for (int i = 0; i < n; i++)
        into[i] = (float)((double)x[i] * by + into[i]);
}

static void ref_scale(float *x, float by, int n)
{
    for (int i = 0; i < n; i++)
        x[i] *= by;
}

static void ref_merge(float *into, float a, const float *x, float b, int n)
{
    for (int i = 0; i < n; i++)
        into[i] = into[i] * a + x[i] * b;
}

static void ref_rotate(float *x, const float *cosine, const float *sine, int pairs)
{
    for (int i = 0; i < pairs; i++) {
        float a = x[2 * i], b = x[2 * i + 1];

        x[2 * i] = a * cosine[i] - b * sine[i];
        x[2 * i + 1] = a * sine[i] + b * cosine[i];
    }
}

static void ref_narrow(void *out, enum number number, const float *x, int n)
{
    if (number == NUMBER_F32) {
        memcpy(out, x, (size_t)n * 4);
        return;
    }
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        uint16_t half;

        memcpy(&bits, x + i, 4);
        if ((bits & 0x7fffffff) > 0x7f800000)
            half = (uint16_t)(bits >> 16 | 0x40); /* NaN, made quiet */
        else
            half = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        memcpy((char *)out + 2 * (size_t)i, &half, 2);
    }
}

static void ref_widen(float *out, const void *x, enum number number, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = number_at(x, number, (size_t)i);
}

static float ref_exp(float x)
{
    return (float)exp((double)x);
}

const struct backend backend_ref = {
    .family = "ref",
    .usable = ref_usable,
    .dot = ref_dot,
    .mix = ref_mix,
    .rms_norm = ref_rms_norm,
    .silu_mul = ref_silu_mul,
    .max = ref_max,
    .exp_sum = ref_exp_sum,
    .add = ref_add,
    .add_scaled = ref_add_scaled,
    .scale = ref_scale,
    .merge = ref_merge,
    .rotate = ref_rotate,
    .narrow = ref_narrow,
    .widen = ref_widen,
    .exp = ref_exp,
};
