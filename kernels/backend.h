/* backend - the contract between the model and the arithmetic.
 *
 * A backend is a kernel family: a name and a set of functions over plain arrays.  Results are
 * comparable between processes exactly when the family is the same, so a family never changes its
 * sequence of operations; a faster one with other bits gets another name.
 *
 * Two rules hold for every function here, and tests hold them:
 *   - *Row invariance.*  An element of the output is computed by one fixed sequence of floating-point
 *     operations, whatever rows or columns stand beside it, however the call is cut up.
 *   - *No libm.*  exp and log are the family's own; sums have a fixed order.
 *
 * Functions are serial; the model divides the work among threads by output (pool.h), which the first
 * rule makes invisible.  Pointers need no alignment beyond their element's, except `const void *`,
 * which needs none at all (a tensor of a file may start at any byte).  Nothing here allocates. */

#ifndef KERNELS_BACKEND_H
#define KERNELS_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum number { NUMBER_F32, NUMBER_BF16 };

static inline size_t number_bytes(enum number number)
{
    return number == NUMBER_F32 ? 4 : 2;
}

struct backend {
    const char *family;

    /* False, with what is missing, when this machine cannot run it. */
    bool (*usable)(struct err *err);

    /* out[m, o] = sum over k of x[row[m], k] * w[o, k], for m < rows and from <= o < to.
     * row NULL: row m itself.  Strides count elements.  out is indexed by the absolute o. */
    void (*dot)(float *out, size_t out_stride, const float *x, size_t x_stride, const uint16_t *row, int rows,
                const void *w, enum number number, size_t w_stride, int from, int to, int k);

    /* out[m, c] = sum over j of p[m, j] * b[j, c], for c < columns: one chain of fused multiply-adds in
     * ascending j.  For values weighted by attention, and for a matrix used from its other side. */
    void (*mix)(float *out, size_t out_stride, const float *p, size_t p_stride, int rows, const void *b,
                enum number number, size_t b_stride, int k, int columns);

    /* out = gain * x / sqrt(mean(x^2) + eps); out may be x */
    void (*rms_norm)(float *out, const float *x, const float *gain, int n, float eps);

    /* out = silu(gate) * up; out may be either */
    void (*silu_mul)(float *out, const float *gate, const float *up, int n);

    /* The largest of x; n >= 1, no NaN. */
    float (*max)(const float *x, int n);
    /* x = exp(x - max); returns the sum. */
    float (*exp_sum)(float *x, int n, float max);

    void (*add)(float *into, const float *x, int n);                     /* into += x */
    void (*add_scaled)(float *into, const float *x, float by, int n);    /* into = fma(x, by, into) */
    void (*scale)(float *x, float by, int n);                            /* x *= by */
    void (*merge)(float *into, float a, const float *x, float b, int n); /* into = into * a + x * b */

    /* Pairs (2i, 2i+1) rotated by the angle of (cos[i], sin[i]). */
    void (*rotate)(float *x, const float *cosine, const float *sine, int pairs);

    /* To a carrier (round to nearest even; NaN stays NaN) and back (exact). */
    void (*narrow)(void *out, enum number number, const float *x, int n);
    void (*widen)(float *out, const void *x, enum number number, int n);

    float (*exp)(float x);
};

extern const struct backend backend_ref;      /* plain and slow: the oracle of the others */
extern const struct backend backend_cpu_avx2; /* AVX2, FMA */

/* The fastest family that this machine runs; NULL, with what is missing, when there is none. */
const struct backend *backend_best(struct err *err);

/* Natural logarithm in double by plain arithmetic, the same bits everywhere.  x > 0 and finite. */
double backend_log(double x);

#endif
