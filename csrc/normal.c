/* The normal distribution in one dimension. */
#include "internal.h"

double pf_normal_cdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }

double pf_normal_pdf(double x) { return 0.39894228040143267794 * exp(-0.5 * x * x); }

/* Algorithm AS241, PPND16 (Wichura, Applied Statistics 37, 1988): relative error about 1e-16. z is q times a ratio of
 * polynomials of 0.425^2 - q^2, q = p - 1/2, or in the tails one of r = sqrt(-log p): numerators and denominators. */
static const double middle[2][8] = {
    {3.3871328727963666080e0, 1.3314166789178437745e+2, 1.9715909503065514427e+3, 1.3731693765509461125e+4,
     4.5921953931549871457e+4, 6.7265770927008700853e+4, 3.3430575583588128105e+4, 2.5090809287301226727e+3},
    {1.0, 4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3, 2.1213794301586595867e+4,
     3.9307895800092710610e+4, 2.8729085735721942674e+4, 5.2264952788528545610e+3}};
static const double tail[2][8] = {
    {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4},
    {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9}};
static const double far_tail[2][8] = {
    {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7},
    {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15}};

#define MIDDLE 0.425 /* |q| */
#define FAR 5        /* r; beyond it are 3e-11 of all numbers */

PF_KERNEL double ratio(const double coefficients[2][8], double r)
{
    double p = coefficients[0][7], q = coefficients[1][7];
#pragma GCC unroll 8
    for (int i = 6; i >= 0; i--) {
        p = p * r + coefficients[0][i];
        q = q * r + coefficients[1][i];
    }
    return p / q;
}

static double tail_quantile(double p)
{
    double r = sqrt(-log(p));
    return r <= FAR ? ratio(tail, r - 1.6) : ratio(far_tail, r - 5);
}

double pf_normal_quantile(double p)
{
    double q = p - 0.5, outside = q < 0 ? p : 1 - p;
    if (fabs(q) <= MIDDLE) return q * ratio(middle, 0.180625 - q * q);
    if (!(outside > 0)) return outside < 0 || outside != outside ? NAN : q < 0 ? -INFINITY : INFINITY;
    return copysign(tail_quantile(outside), q);
}

/* log(x) of a normal number x = 2^e m, m in sqrt(1/2) .. sqrt(2): e log 2 + 2 artanh(s), s = (m - 1) / (m + 1), with
 * the polynomial of s^2 of fdlibm's e_log.c. For vectors, which know no log(), nor 64-bit integers as doubles. */
PF_KERNEL double normal_log(double x)
{
    const uint64_t root = 0x3fe6a09e667f3bcd; /* the bits of sqrt(1/2); the exponent is what is above 52 bits */
    static const double l[7] = {0.6666666666666735130, 0.3999999999940941908, 0.2857142874366239149,
                                0.2222219843214978396, 0.1818357216161805012, 0.1531383769920937332,
                                0.1479819860511658591};
    uint64_t bits;
    double m, e;
    memcpy(&bits, &x, 8);
    uint64_t above = bits + (((uint64_t)1023 << 52) - root);
    uint64_t mantissa = (above & (((uint64_t)1 << 52) - 1)) + root;
    uint64_t exponent = above >> 52 | (uint64_t)1075 << 52; /* as a double: 2^52 + e + 1023 */
    memcpy(&m, &mantissa, 8);
    memcpy(&e, &exponent, 8);
    double s = (m - 1) / (m + 1), z = s * s, sum = l[6];
#pragma GCC unroll 6
    for (int i = 5; i >= 0; i--) sum = sum * z + l[i];
    return (e - (0x1p52 + 1023)) * M_LN2 + (2 * s + s * z * sum);
}

enum { SIDE = 8 }; /* tails side by side: as many as the widest vector holds */

double pf_shrunk(double x, double error, double width)
{
    double wide = PF_MAX(width, sqrt(PF_MAX(x * x - error * error, 0)));
    return x / (1 + (error / wide) * (error / wide));
}

/* The middle for all, then the tails, 15 % of them, gathered. Vectors are always full, so that a number has the same
 * bits whatever stands around it. */
PF_KERNEL void pf_normal_quantiles_body(double *restrict z, const uint64_t *restrict cell, ptrdiff_t n)
{
    double outside[PF_CELLS + SIDE];
    int32_t at[PF_CELLS + SIDE];
    ptrdiff_t tails = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        uint64_t bits = cell[i] | (uint64_t)1023 << 52; /* 1 + cell / 2^52 */
        double u;
        memcpy(&u, &bits, 8);
        z[i] = u - 1.5 + 0x1p-53; /* q, exact */
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        outside[tails] = 0.5 - fabs(z[i]); /* exact */
        at[tails] = (int32_t)i;
        tails += fabs(z[i]) > MIDDLE;
    }
    for (ptrdiff_t i = 0; i < n; i++) z[i] *= ratio(middle, 0.180625 - z[i] * z[i]);
    for (ptrdiff_t i = tails; i % SIDE; i++) outside[i] = 0.01; /* anything */
    for (ptrdiff_t first = 0; first < tails; first += SIDE) {
        double result[SIDE];
        for (int i = 0; i < SIDE; i++) result[i] = ratio(tail, sqrt(-normal_log(outside[first + i])) - 1.6);
        for (ptrdiff_t i = first; i < PF_MIN(first + SIDE, tails); i++) {
            double size = outside[i] > 1.4e-11 ? result[i - first] : tail_quantile(outside[i]);
            z[at[i]] = copysign(size, z[at[i]]);
        }
    }
}
PF_DISPATCH(pf_normal_quantiles, (double *z, const uint64_t *cell, ptrdiff_t n), (z, cell, n))
