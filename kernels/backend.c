#include "kernels/backend.h"

#include <string.h>

const struct backend *backend_best(struct err *err)
{
    return backend_cpu_avx2.usable(err) ? &backend_cpu_avx2 : NULL;
}

double backend_log(double x)
{
    /* x = m * 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172 */
    uint64_t bits;
    double m, s, s2, sum = 0;
    int e = 0;

    if (x < 0x1p-1022) { /* a subnormal number has no implied first bit */
        x *= 0x1p54;
        e -= 54;
    }
    memcpy(&bits, &x, sizeof bits);
    e += (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffULL) | 0x3ff0000000000000ULL;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    s = (m - 1) / (m + 1);
    s2 = s * s;
    for (int i = 23; i >= 1; i -= 2)
        sum = sum * s2 + 1.0 / i;
    return 2 * s * sum + e * 0.69314718055994530942;
}
