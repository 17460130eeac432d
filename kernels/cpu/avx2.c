/* avx2 - the family cpu-avx2: eight lanes, fused multiply-add.
 *
 * dot.  Weights stay as the file has them, [out, in] row-major, so nothing is packed or copied.  An
 * output element has one accumulator of eight lanes that walks k in steps of eight (the tail is padded
 * with zeros), and the lanes are added in one fixed tree at the end.  A register tile holds several rows
 * and outputs (4 x 3, 3 x 4, 2 x 4, 1 x 8) only to load less; it does not change any element's sequence of
 * operations. With many rows, bf16 weights are widened once into a scratch that stays in the cache (widening
 * is exact).
 *
 * mix.  Vectorised along the columns: one accumulator lane an element, ascending j.
 *
 * The file is compiled with contraction off: what is fused is what says fmadd. */

#include "kernels/backend.h"

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    WIDE_FLOATS = 24 * 1024,  /* scratch of widened weights: 96 KiB of stack */
    WIDE_ROWS_MIN = 12,       /* from so many rows on, widening once is cheaper than in every tile */
    CHUNK_FLOATS = 64 * 1024, /* rows of x that are worked on together: 256 KiB, within L2 */
    BLOCK_BYTES = 24 * 1024,  /* weights that are worked on together: within L1 */
};

static bool avx2_usable(struct err *err)
{
    unsigned a, b, c = 0, d;

    __builtin_cpu_init();
    /* F16C is asked of cpuid itself: not every compiler knows its name. */
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C) || !__builtin_cpu_supports("avx2") ||
        !__builtin_cpu_supports("fma"))
        return err_set(err, ERR_IO,
                       "this CPU lacks AVX2, FMA or F16C, which the kernel family cpu-avx2 needs");
    return true;
}

static const int32_t mask_table[16] = { -1, -1, -1, -1, -1, -1, -1, -1 };

INLINE __m256i tail_mask(int n) /* the first n lanes, 0 <= n <= 8 */
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(mask_table + 8 - n));
}

INLINE __m256 load8(const void *data, enum number number, size_t i)
{
    if (number == NUMBER_F32)
        return _mm256_loadu_ps((const float *)data + i);
    return _mm256_castsi256_ps(_mm256_slli_epi32(
        _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)((const char *)data + 2 * i))),
        16));
}

/* The first n < 8 values, zeros behind; reads nothing beyond them. */
INLINE __m256 load_tail(const void *data, enum number number, size_t i, int n)
{
    uint16_t half[8] = { 0 };

    if (number == NUMBER_F32)
        return _mm256_maskload_ps((const float *)data + i, tail_mask(n));
    memcpy(half, (const char *)data + 2 * i, 2 * (size_t)n);
    return load8(half, NUMBER_BF16, 0);
}

/* The one tree in which eight lanes are added: t = low half + high half, then (t0 + t2) + (t1 + t3).
 * Four accumulators at once. */
INLINE __m128 lanes_sum4(__m256 a, __m256 b, __m256 c, __m256 d)
{
    __m128 ta = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 tb = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    __m128 tc = _mm_add_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1));
    __m128 td = _mm_add_ps(_mm256_castps256_ps128(d), _mm256_extractf128_ps(d, 1));
    __m128 ab = _mm_add_ps(_mm_unpacklo_ps(ta, tb), _mm_unpackhi_ps(ta, tb)); /* a02 b02 a13 b13 */
    __m128 cd = _mm_add_ps(_mm_unpacklo_ps(tc, td), _mm_unpackhi_ps(tc, td));

    return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}

INLINE float lanes_sum(__m256 a)
{
    return _mm_cvtss_f32(lanes_sum4(a, a, a, a));
}

/* ---- dot --------------------------------------------------------------------------------------- */

/* R rows by O outputs.  w points at output 0 of the tile; out at [row 0, output 0]. */
INLINE void dot_tile(const int R, const int O, float *out, size_t out_stride, const float *const *x,
                     const void *w, enum number number, size_t w_stride, int k)
{
    __m256 sum[12];
    float done[12];
    int i = 0;

#pragma GCC unroll 12
    for (int a = 0; a < 12; a++)
        sum[a] = _mm256_setzero_ps();
    for (; i + 8 <= k; i += 8) {
        __m256 weight[8];

#pragma GCC unroll 8
        for (int o = 0; o < O; o++)
            weight[o] = load8(w, number, (size_t)o * w_stride + (size_t)i);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            __m256 v = _mm256_loadu_ps(x[r] + i);

#pragma GCC unroll 8
            for (int o = 0; o < O; o++)
                sum[r * O + o] = _mm256_fmadd_ps(v, weight[o], sum[r * O + o]);
        }
    }
    if (i < k) {
        __m256i mask = tail_mask(k - i);

#pragma GCC unroll 8
        for (int o = 0; o < O; o++) {
            __m256 weight = load_tail(w, number, (size_t)o * w_stride + (size_t)i, k - i);

#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                sum[r * O + o] = _mm256_fmadd_ps(_mm256_maskload_ps(x[r] + i, mask), weight, sum[r * O + o]);
        }
    }
#pragma GCC unroll 3
    for (int a = 0; a < R * O; a += 4)
        _mm_storeu_ps(done + a, lanes_sum4(sum[a], sum[a + 1], sum[a + 2], sum[a + 3]));
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int o = 0; o < O; o++)
            out[(size_t)r * out_stride + (size_t)o] = done[r * O + o];
}

INLINE void dot_outputs(const int R, const int O, float *out, size_t out_stride, const float *const *x,
                        const void *w, enum number number, size_t w_stride, int outputs, int k)
{
    int o = 0;

    for (; o + O <= outputs; o += O)
        dot_tile(R, O, out + o, out_stride, x, (const char *)w + (size_t)o * w_stride * number_bytes(number),
                 number, w_stride, k);
    for (; o < outputs; o++)
        dot_tile(R, 1, out + o, out_stride, x, (const char *)w + (size_t)o * w_stride * number_bytes(number),
                 number, w_stride, k);
}

INLINE void dot_rows_of(int rows, float *out, size_t out_stride, const float *const *x, const void *w,
                        enum number number, size_t w_stride, int outputs, int k)
{
    /* clang-format off: a table */
    switch (rows) {
    case 1:
        dot_outputs(1, 8, out, out_stride, x, w, number, w_stride, outputs, k);
        break;
    case 2:
        dot_outputs(2, 4, out, out_stride, x, w, number, w_stride, outputs, k);
        break;
    case 3:
        dot_outputs(3, 4, out, out_stride, x, w, number, w_stride, outputs, k);
        break;
    default:
        dot_outputs(4, 3, out, out_stride, x, w, number, w_stride, outputs, k);
        break;
    }
    /* clang-format on */
}

/* Up to 4 rows against some outputs. */
static void dot_f32(int rows, float *out, size_t out_stride, const float *const *x, const void *w,
                    size_t w_stride, int outputs, int k)
{
    dot_rows_of(rows, out, out_stride, x, w, NUMBER_F32, w_stride, outputs, k);
}

static void dot_bf16(int rows, float *out, size_t out_stride, const float *const *x, const void *w,
                     size_t w_stride, int outputs, int k)
{
    dot_rows_of(rows, out, out_stride, x, w, NUMBER_BF16, w_stride, outputs, k);
}

static void widen_bf16(float *out, const void *x, int n)
{
    int i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, load8(x, NUMBER_BF16, (size_t)i));
    if (i < n)
        _mm256_maskstore_ps(out + i, tail_mask(n - i), load_tail(x, NUMBER_BF16, (size_t)i, n - i));
}

/* rows of x (at most a chunk) against one block of outputs */
static void dot_block(float *out, size_t out_stride, const float *x, size_t x_stride, const uint16_t *row,
                      int rows, const void *w, enum number number, size_t w_stride, int outputs, int k)
{
    for (int m = 0; m < rows; m += 4) {
        int group = rows - m < 4 ? rows - m : 4;
        const float *at[4] = { NULL };

        for (int r = 0; r < group; r++)
            at[r] = x + (size_t)(row ? row[m + r] : m + r) * x_stride;
        if (number == NUMBER_F32)
            dot_f32(group, out + (size_t)m * out_stride, out_stride, at, w, w_stride, outputs, k);
        else
            dot_bf16(group, out + (size_t)m * out_stride, out_stride, at, w, w_stride, outputs, k);
    }
}

/* How many outputs of k values fit, a multiple of every tile's width. */
static int block_outputs(size_t room, size_t each)
{
    size_t n = room / (each ? each : 1) / 24 * 24;

    return n < 24 ? 24 : n > 4096 ? 4096 : (int)n;
}

static void dot_wide(float *out, size_t out_stride, const float *x, size_t x_stride, const uint16_t *row,
                     int rows, const void *w, size_t w_stride, int from, int to, int k)
{
    float wide[WIDE_FLOATS];
    int block = WIDE_FLOATS / k / 3 * 3;

    for (int o = from; o < to; o += block) {
        int outputs = to - o < block ? to - o : block;

        for (int i = 0; i < outputs; i++)
            widen_bf16(wide + (size_t)i * (size_t)k, (const char *)w + ((size_t)(o + i) * w_stride) * 2, k);
        dot_block(out + o, out_stride, x, x_stride, row, rows, wide, NUMBER_F32, (size_t)k, outputs, k);
    }
}

static void avx2_dot(float *out, size_t out_stride, const float *x, size_t x_stride, const uint16_t *row,
                     int rows, const void *w, enum number number, size_t w_stride, int from, int to, int k)
{
    int chunk = (int)((size_t)CHUNK_FLOATS / (size_t)(k ? k : 1)) / 4 * 4;
    int block = block_outputs(BLOCK_BYTES, (size_t)k * number_bytes(number));

    if (chunk < 32)
        chunk = 32;
    for (int m = 0; m < rows; m += chunk) {
        int part = rows - m < chunk ? rows - m : chunk;
        float *out_m = out + (size_t)m * out_stride;
        const float *x_m = row ? x : x + (size_t)m * x_stride;
        const uint16_t *row_m = row ? row + m : NULL;

        if (number == NUMBER_BF16 && part >= WIDE_ROWS_MIN && k > 0 && k <= WIDE_FLOATS / 3) {
            dot_wide(out_m, out_stride, x_m, x_stride, row_m, part, w, w_stride, from, to, k);
            continue;
        }
        for (int o = from; o < to; o += block)
            dot_block(out_m + o, out_stride, x_m, x_stride, row_m, part,
                      (const char *)w + (size_t)o * w_stride * number_bytes(number), number, w_stride,
                      to - o < block ? to - o : block, k);
    }
}

/* ---- mix --------------------------------------------------------------------------------------- */

/* R rows by C vectors of columns. */
INLINE void mix_tile(const int R, const int C, float *out, size_t out_stride, const float *p, size_t p_stride,
                     const void *b, enum number number, size_t b_stride, int k)
{
    __m256 sum[12];

#pragma GCC unroll 12
    for (int a = 0; a < 12; a++)
        sum[a] = _mm256_setzero_ps();
    for (int j = 0; j < k; j++) {
        __m256 value[8];

#pragma GCC unroll 8
        for (int c = 0; c < C; c++)
            value[c] = load8(b, number, (size_t)j * b_stride + 8 * (size_t)c);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            __m256 by = _mm256_broadcast_ss(p + (size_t)r * p_stride + j);

#pragma GCC unroll 8
            for (int c = 0; c < C; c++)
                sum[r * C + c] = _mm256_fmadd_ps(by, value[c], sum[r * C + c]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int c = 0; c < C; c++)
            _mm256_storeu_ps(out + (size_t)r * out_stride + 8 * (size_t)c, sum[r * C + c]);
}

INLINE void mix_tail(float *out, const float *p, const void *b, enum number number, size_t b_stride, int k,
                     int n)
{
    __m256 sum = _mm256_setzero_ps();

    for (int j = 0; j < k; j++)
        sum = _mm256_fmadd_ps(_mm256_broadcast_ss(p + j), load_tail(b, number, (size_t)j * b_stride, n), sum);
    _mm256_maskstore_ps(out, tail_mask(n), sum);
}

INLINE void mix_columns(const int R, const int C, float *out, size_t out_stride, const float *p,
                        size_t p_stride, const void *b, enum number number, size_t b_stride, int k,
                        int columns)
{
    int c = 0;

    for (; c + 8 * C <= columns; c += 8 * C)
        mix_tile(R, C, out + c, out_stride, p, p_stride, (const char *)b + (size_t)c * number_bytes(number),
                 number, b_stride, k);
    for (; c + 8 <= columns; c += 8)
        mix_tile(R, 1, out + c, out_stride, p, p_stride, (const char *)b + (size_t)c * number_bytes(number),
                 number, b_stride, k);
    if (c < columns)
        for (int r = 0; r < R; r++)
            mix_tail(out + (size_t)r * out_stride + c, p + (size_t)r * p_stride,
                     (const char *)b + (size_t)c * number_bytes(number), number, b_stride, k, columns - c);
}

INLINE void mix_number(float *out, size_t out_stride, const float *p, size_t p_stride, int rows,
                       const void *b, enum number number, size_t b_stride, int k, int columns)
{
    int m = 0;

    for (; m + 4 <= rows; m += 4)
        mix_columns(4, 3, out + (size_t)m * out_stride, out_stride, p + (size_t)m * p_stride, p_stride, b,
                    number, b_stride, k, columns);
    for (; m + 2 <= rows; m += 2)
        mix_columns(2, 4, out + (size_t)m * out_stride, out_stride, p + (size_t)m * p_stride, p_stride, b,
                    number, b_stride, k, columns);
    if (m < rows)
        mix_columns(1, 8, out + (size_t)m * out_stride, out_stride, p + (size_t)m * p_stride, p_stride, b,
                    number, b_stride, k, columns);
}

static void avx2_mix(float *out, size_t out_stride, const float *p, size_t p_stride, int rows, const void *b,
                     enum number number, size_t b_stride, int k, int columns)
{
    if (number == NUMBER_F32)
        mix_number(out, out_stride, p, p_stride, rows, b, NUMBER_F32, b_stride, k, columns);
    else
        mix_number(out, out_stride, p, p_stride, rows, b, NUMBER_BF16, b_stride, k, columns);
}

/* ---- rows -------------------------------------------------------------------------------------- */

/* exp by x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial in r; relative error below 2e-7.  Zero below
 * -87.33 (no subnormal results), finite above. */
INLINE __m256 exp8(__m256 x)
{
    const __m256 low = _mm256_set1_ps(-87.33f), high = _mm256_set1_ps(88.0f);
    __m256 under = _mm256_cmp_ps(x, low, _CMP_LT_OQ);
    __m256 n, r, y;

    x = _mm256_min_ps(high, _mm256_max_ps(low, x)); /* in this order a NaN stays */
    n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    y = _mm256_set1_ps(1.9875691500e-4f);
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.3981999507e-3f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(8.3334519073e-3f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(4.1665795894e-2f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.6666665459e-1f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(5.0000001201e-1f));
    y = _mm256_fmadd_ps(y, _mm256_mul_ps(r, r), r);
    y = _mm256_add_ps(y, _mm256_set1_ps(1.0f));
    y = _mm256_mul_ps(y, _mm256_castsi256_ps(_mm256_slli_epi32(
                             _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)));
    return _mm256_andnot_ps(under, y);
}

static float avx2_exp(float x)
{
    return _mm256_cvtss_f32(exp8(_mm256_set1_ps(x)));
}

static void avx2_rms_norm(float *out, const float *x, const float *gain, int n, float eps)
{
    __m256 sum = _mm256_setzero_ps(), by;
    int i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);

        sum = _mm256_fmadd_ps(v, v, sum);
    }
    if (i < n) {
        __m256 v = load_tail(x, NUMBER_F32, (size_t)i, n - i);

        sum = _mm256_fmadd_ps(v, v, sum);
    }
    by = _mm256_set1_ps(1.0f / __builtin_sqrtf(lanes_sum(sum) / (float)n + eps));
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i,
                         _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), by), _mm256_loadu_ps(gain + i)));
    if (i < n)
        _mm256_maskstore_ps(out + i, tail_mask(n - i),
                            _mm256_mul_ps(_mm256_mul_ps(load_tail(x, NUMBER_F32, (size_t)i, n - i), by),
                                          load_tail(gain, NUMBER_F32, (size_t)i, n - i)));
}

INLINE __m256 silu_mul8(__m256 gate, __m256 up)
{
    __m256 e = exp8(_mm256_sub_ps(_mm256_setzero_ps(), gate));

    return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(_mm256_set1_ps(1.0f), e)), up);
}

static void avx2_silu_mul(float *out, const float *gate, const float *up, int n)
{
    int i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, silu_mul8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    if (i < n)
        _mm256_maskstore_ps(out + i, tail_mask(n - i),
                            silu_mul8(load_tail(gate, NUMBER_F32, (size_t)i, n - i),
                                      load_tail(up, NUMBER_F32, (size_t)i, n - i)));
}

static float avx2_max(const float *x, int n)
{
    __m256 max = _mm256_set1_ps(x[0]);
    float lane[8], best;
    int i = 0;

    for (; i + 8 <= n; i += 8)
        max = _mm256_max_ps(max, _mm256_loadu_ps(x + i));
    _mm256_storeu_ps(lane, max);
    best = lane[0];
    for (int l = 1; l < 8; l++)
        best = lane[l] > best ? lane[l] : best;
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    return best;
}

static float avx2_exp_sum(float *x, int n, float max)
{
    __m256 sum = _mm256_setzero_ps(), m = _mm256_set1_ps(max);
    int i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), m));

        _mm256_storeu_ps(x + i, e);
        sum = _mm256_add_ps(sum, e);
    }
    if (i < n) {
        __m256i mask = tail_mask(n - i);
        __m256 e = exp8(_mm256_sub_ps(load_tail(x, NUMBER_F32, (size_t)i, n - i), m));

        e = _mm256_and_ps(e, _mm256_castsi256_ps(mask));
        _mm256_maskstore_ps(x + i, mask, e);
        sum = _mm256_add_ps(sum, e);
    }
    return lanes_sum(sum);
}

/* The loops below have no order to keep: the compiler vectorises them. */

static void avx2_add(float *into, const float *x, int n)
{
    for (int i = 0; i < n; i++)
        into[i] += x[i];
}

static void avx2_add_scaled(float *into, const float *x, float by, int n)
{
    for (int i = 0; i < n; i++)
        into[i] = __builtin_fmaf(x[i], by, into[i]);
}

static void avx2_scale(float *x, float by, int n)
{
    for (int i = 0; i < n; i++)
        x[i] *= by;
}

static void avx2_merge(float *into, float a, const float *x, float b, int n)
{
    for (int i = 0; i < n; i++)
        into[i] = into[i] * a + x[i] * b;
}

static void avx2_rotate(float *x, const float *cosine, const float *sine, int pairs)
{
    for (int i = 0; i < pairs; i++) {
        float a = x[2 * i], b = x[2 * i + 1];

        x[2 * i] = a * cosine[i] - b * sine[i];
        x[2 * i + 1] = a * sine[i] + b * cosine[i];
    }
}

INLINE __m128i narrow8(__m256 x)
{
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i even =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    __m256i nan = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    __m256i half = _mm256_blendv_epi8(even, nan, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));

    return _mm_packus_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

static void avx2_narrow(void *out, enum number number, const float *x, int n)
{
    uint16_t half[8];
    int i = 0;

    if (number == NUMBER_F32) {
        memcpy(out, x, (size_t)n * 4);
        return;
    }
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)((char *)out + 2 * (size_t)i), narrow8(_mm256_loadu_ps(x + i)));
    if (i < n) {
        _mm_storeu_si128((__m128i *)(void *)half, narrow8(load_tail(x, NUMBER_F32, (size_t)i, n - i)));
        memcpy((char *)out + 2 * (size_t)i, half, 2 * (size_t)(n - i));
    }
}

static void avx2_widen(float *out, const void *x, enum number number, int n)
{
    if (number == NUMBER_F32)
        memcpy(out, x, (size_t)n * 4);
    else
        widen_bf16(out, x, n);
}

const struct backend backend_cpu_avx2 = {
    .family = "cpu-avx2",
    .usable = avx2_usable,
    .dot = avx2_dot,
    .mix = avx2_mix,
    .rms_norm = avx2_rms_norm,
    .silu_mul = avx2_silu_mul,
    .max = avx2_max,
    .exp_sum = avx2_exp_sum,
    .add = avx2_add,
    .add_scaled = avx2_add_scaled,
    .scale = avx2_scale,
    .merge = avx2_merge,
    .rotate = avx2_rotate,
    .narrow = avx2_narrow,
    .widen = avx2_widen,
    .exp = avx2_exp,
};
