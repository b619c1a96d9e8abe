/* Fixed maps of one column: see column.h. The functions they are made of are written here, since a call of log() or
 * exp() would keep a loop from being vectorised; each is good to a few units of the last place of its result. */
#ifndef real
#include <float.h>

#include "column.h"

enum { CHUNK = 256 };

double pf_column_constant(pf_column c) { return -log(c.kind == PF_LOGIT ? c.b - c.a : c.b); }

static double inverse_of(double scale) { return PF_MIN(1 / scale, DBL_MAX); }

/* x(z) and log(dx/dz), without the constant, where |z| is large */
static double inverse_far(double z, pf_column c, double *log_slope)
{
    double size = fabs(z), s = c.kind == PF_BELOW ? -z : z, inside;
    switch (c.kind) {
    case PF_ASINH: *log_slope = size - M_LN2; return c.a + copysign(exp(*log_slope + log(c.b)), z);
    case PF_LOGIT: *log_slope = -size, inside = (c.b - c.a) * exp(-size); return z < 0 ? c.a + inside : c.b - inside;
    default:
        *log_slope = PF_MIN(s, 0), inside = c.b * (s < 0 ? exp(s) : s);
        return c.kind == PF_BELOW ? c.a - inside : c.a + inside;
    }
}

#define TWICE "column.c"
#include "twice.h"
#else

#if REAL_BITS == 32
#define INT int32_t
#define UINT uint32_t
#define MANTISSA_BITS 23
#define BIAS 127
#define SQRT_HALF 0x3f3504f3
#define EXP_MOST 87 /* of which exp() is a normal number, and of minus that */
#define LN2_HI 0x1.62e4p-1f
#define LN2_LO 0x1.7f7d1cp-20f
#define EDGE 1e-6f /* how near to a bound a number may be, in units of the scale */
#else
#define INT int64_t
#define UINT uint64_t
#define MANTISSA_BITS 52
#define BIAS 1023
#define SQRT_HALF 0x3fe6a09e667f3bcd
#define EXP_MOST 700
#define LN2_HI 0x1.62e42fefa3800p-1
#define LN2_LO 0x1.ef35793c76730p-45
#define EDGE 1e-12
#endif
#define ONE ((UINT)BIAS << MANTISSA_BITS)
/* Adding this rounds to an integer, which then stands in the last bits. */
#define ROUND ((real)1.5 * ((UINT)1 << MANTISSA_BITS))
/* Beyond these the logarithm of the slope of asinh(y), or of the maps from z, goes to logj. */
#define FAR_Y ((real)1e15)
#define FAR_Z ((real)80)

/* ---- functions -------------------------------------------------------------------------------------------- */

/* log(w + rest), w > 0 normal and rest below its last place: 2 atanh(f / (2 + f)) by its series, w + rest = 2^k (1 +
 * f), 1 + f in [sqrt 1/2, sqrt 2). Good near 1 too, since rest is not lost there. */
PF_KERNEL real X(log_sum)(real w, real rest)
{
    UINT u, scale_bits;
    real m, scale;
    memcpy(&u, &w, sizeof u);
    u += ONE - SQRT_HALF;
    UINT k_biased = u >> MANTISSA_BITS;
    u = (u & (((UINT)1 << MANTISSA_BITS) - 1)) + SQRT_HALF;
    memcpy(&m, &u, sizeof m);
    scale_bits = (2 * BIAS - k_biased) << MANTISSA_BITS; /* 2^-k */
    memcpy(&scale, &scale_bits, sizeof scale);
#if REAL_BITS == 32
    real k = (real)((INT)k_biased - BIAS);
#else
    k_biased |= 0x4330000000000000; /* the double 2^52 + k_biased: no conversion of 64-bit integers needed */
    real k;
    memcpy(&k, &k_biased, sizeof k);
    k -= 4503599627370496.0 + BIAS;
#endif
    real f = m - 1 + rest * scale, s = f / (2 + f), z = s * s;
#if REAL_BITS == 32
    real series = (real)(1. / 9);
#else
    real series = 1. / 21;
    series = series * z + 1. / 19;
    series = series * z + 1. / 17;
    series = series * z + 1. / 15;
    series = series * z + 1. / 13;
    series = series * z + 1. / 11;
    series = series * z + 1. / 9;
#endif
    series = series * z + (real)(1. / 7);
    series = series * z + (real)(1. / 5);
    series = series * z + (real)(1. / 3);
    return k * (real)M_LN2 + 2 * (s + s * z * series);
}

/* log(1 + v), v >= 0 */
PF_KERNEL real X(log1p)(real v)
{
    real w = 1 + v;
    return X(log_sum)(w, v - (w - 1));
}

/* exp(a) - 1, |a| <= EXP_MOST: 2^k (1 + e) - 1, e = exp(r) - 1 by its Taylor series, |r| <= log(2) / 2; *power = 2^k (1
 * + e) */
PF_KERNEL real X(expm1)(real a, real *power)
{
    real shifted = a * (real)M_LOG2E + ROUND, scale;
    UINT bits;
    memcpy(&bits, &shifted, sizeof bits);
    real k = shifted - ROUND, r = a - k * LN2_HI - k * LN2_LO;
    bits = (bits + BIAS) << MANTISSA_BITS;
    memcpy(&scale, &bits, sizeof scale);
#if REAL_BITS == 32
    real e = (real)(1. / 5040);
#else
    real e = 1. / 6227020800;
    e = e * r + 1. / 479001600;
    e = e * r + 1. / 39916800;
    e = e * r + 1. / 3628800;
    e = e * r + 1. / 362880;
    e = e * r + 1. / 40320;
    e = e * r + 1. / 5040;
#endif
    e = e * r + (real)(1. / 720);
    e = e * r + (real)(1. / 120);
    e = e * r + (real)(1. / 24);
    e = e * r + (real)(1. / 6);
    e = e * r + (real)0.5;
    e = r + r * r * e;
    *power = e * scale + scale;
    return e * scale + (scale - 1);
}

PF_KERNEL real X(exp)(real a)
{
    real power;
    X(expm1)(a, &power);
    return power;
}

PF_KERNEL real X(least)(real a, real b) { return a < b ? a : b; }
PF_KERNEL real X(most)(real a, real b) { return a > b ? a : b; }

/* ---- the maps, each a loop; in[n] is what x[n] was -------------------------------------------------------- */

PF_KERNEL void X(forward_near_body)(real *restrict x, double *restrict slope, INT *any_far, const real *restrict in,
                                    pf_column c, ptrdiff_t n)
{
    INT far_ones = 0;
    double a = c.a, scale = inverse_of(c.kind == PF_LOGIT ? c.b - c.a : c.b), sign = c.kind == PF_BELOW ? -1 : 1;
    switch (c.kind) {
    case PF_ASINH:
        for (ptrdiff_t i = 0; i < n; i++) {
            real y = (real)((in[i] - a) * scale), size = R(fabs)(y);
            INT far = size > FAR_Y;
            far_ones |= far;
            size = far ? 1 : size;
            real root = R(sqrt)(1 + size * size), inv = 1 / (root + root * root);
            x[i] = R(copysign)(X(log1p)(size + size * inv * (size * root)), y);
            slope[i] *= far ? 1 : (double)((1 + root) * inv);
        }
        break;
    case PF_LOGIT:
        for (ptrdiff_t i = 0; i < n; i++) {
            real u = (real)((in[i] - a) * scale), v = (real)((c.b - in[i]) * scale);
            real d = (real)((in[i] - (a / 2 + c.b / 2)) * (2 * scale)), size = X(least)(R(fabs)(d), 1 - 2 * EDGE);
            u = X(least)(X(most)(u, EDGE), 1 - EDGE);
            v = X(least)(X(most)(v, EDGE), 1 - EDGE);
            x[i] = R(copysign)(X(log1p)(size / X(least)(u, v)), d);
            slope[i] *= (double)(1 / (u * v));
        }
        break;
    case PF_ABOVE:
    case PF_BELOW:
        for (ptrdiff_t i = 0; i < n; i++) {
            real y = X(most)((real)(sign * (in[i] - a) * scale), EDGE), power;
            real e = -X(expm1)(-X(least)(y, EXP_MOST), &power); /* dy/dz */
            x[i] = (real)sign * (y + X(log_sum)(e, 0));
            slope[i] *= (double)(1 / e);
        }
        break;
    default:
        for (ptrdiff_t i = 0; i < n; i++) x[i] = (real)((in[i] - a) * scale);
    }
    *any_far = far_ones;
}
static void X(forward_near)(real *, double *, INT *, const real *, pf_column, ptrdiff_t);
PF_DISPATCH(X(forward_near), (real * x, double *slope, INT *any_far, const real *in, pf_column c, ptrdiff_t n),
            (x, slope, any_far, in, c, n))

void X(column_forward)(real *x, double *slope, double *logj, pf_column c, ptrdiff_t n)
{
    real in[CHUNK];
    for (ptrdiff_t start = 0; start < n; start += CHUNK, x += CHUNK, slope += CHUNK, logj += CHUNK) {
        ptrdiff_t m = PF_MIN(n - start, CHUNK);
        INT any_far;
        memcpy(in, x, (size_t)m * sizeof *in);
        X(forward_near)(x, slope, &any_far, in, c, m);
        for (ptrdiff_t i = 0; any_far && i < m; i++) {
            if (!(R(fabs)((real)((in[i] - c.a) * inverse_of(c.b))) > FAR_Y)) continue;
            double log_size = log(fabs(in[i] - c.a)) - log(c.b);
            x[i] = (real)copysign(log_size + M_LN2, in[i] - c.a);
            logj[i] -= log_size;
        }
    }
}

void X(column_range)(double range[2], pf_column c)
{
    real lower = (real)c.a, upper = (real)(c.kind == PF_BELOW ? c.a : c.b);
    range[0] = c.kind == PF_LOGIT || c.kind == PF_ABOVE ? (double)lower : -INFINITY;
    range[1] = c.kind == PF_LOGIT || c.kind == PF_BELOW ? (double)upper : INFINITY;
}

static real X(within)(double x, pf_column c)
{
    double range[2];
    X(column_range)(range, c);
    return X(most)(X(least)((real)x, (real)range[1]), (real)range[0]);
}

PF_KERNEL void X(inverse_near_body)(real *restrict x, double *restrict slope, const real *restrict in, pf_column c,
                                    ptrdiff_t n)
{
    double a = c.a, b = c.b, width = b - a, sign = c.kind == PF_BELOW ? -1 : 1;
    double range[2];
    X(column_range)(range, c);
    real lo = (real)range[0], hi = (real)range[1];
    switch (c.kind) {
    case PF_ASINH:
        for (ptrdiff_t i = 0; i < n; i++) {
            real z = in[i], size = R(fabs)(z), power;
            int far = size > FAR_Z;
            real e = X(expm1)(far ? 0 : size, &power), inv = 1 / power;
            x[i] = (real)(a + b * (double)R(copysign)((e + e * inv) / 2, z));
            slope[i] *= (double)((power + inv) / 2);
        }
        break;
    case PF_LOGIT:
        for (ptrdiff_t i = 0; i < n; i++) {
            real z = in[i], size = R(fabs)(z);
            real e = X(exp)(size > FAR_Z ? 0 : -size), inv = 1 / (1 + e);
            double inside = (double)(e * inv); /* of the nearer bound, so that rounding keeps inside; one product and */
            x[i] = (real)((z < 0 ? a : b) +
                          width * (z < 0 ? inside : -inside)); /* sum, fused in all lanes or in none */
            slope[i] *= size > FAR_Z ? 1 : (double)(e * inv * inv);
        }
        break;
    case PF_ABOVE:
    case PF_BELOW:
        for (ptrdiff_t i = 0; i < n; i++) {
            real s = (real)sign * in[i], size = R(fabs)(s);
            real e = X(exp)(size > FAR_Z ? 0 : -size), inv = 1 / (1 + e);
            x[i] = (real)(a + sign * b * (double)(X(most)(s, 0) + X(log1p)(e)));
            slope[i] *= size > FAR_Z ? 1 : (double)(s > 0 ? inv : e * inv);
        }
        break;
    default:
        for (ptrdiff_t i = 0; i < n; i++) x[i] = (real)(a + b * in[i]);
    }
    for (ptrdiff_t i = 0; i < n; i++) x[i] = x[i] < lo ? lo : x[i] > hi ? hi : x[i];
}
static void X(inverse_near)(real *, double *, const real *, pf_column, ptrdiff_t);
PF_DISPATCH(X(inverse_near), (real * x, double *slope, const real *in, pf_column c, ptrdiff_t n), (x, slope, in, c, n))

void X(column_inverse)(real *x, double *slope, double *logj, pf_column c, ptrdiff_t n)
{
    real in[CHUNK];
    for (ptrdiff_t start = 0; start < n; start += CHUNK, x += CHUNK, slope += CHUNK, logj += CHUNK) {
        ptrdiff_t m = PF_MIN(n - start, CHUNK);
        memcpy(in, x, (size_t)m * sizeof *in);
        X(inverse_near)(x, slope, in, c, m);
        if (c.kind == PF_LINEAR) continue;
        INT any_far = 0;
        for (ptrdiff_t i = 0; i < m; i++) any_far |= R(fabs)(in[i]) > FAR_Z;
        for (ptrdiff_t i = 0; any_far && i < m; i++) {
            double log_slope;
            if (!(R(fabs)(in[i]) > FAR_Z)) continue;
            x[i] = X(within)(inverse_far(in[i], c, &log_slope), c);
            logj[i] += log_slope;
        }
    }
}

PF_KERNEL void X(column_vjp_body)(real *restrict g, const double *restrict gl, const real *restrict x, pf_column c,
                                  ptrdiff_t n)
{
    double a = c.a, scale = inverse_of(c.kind == PF_LOGIT ? c.b - c.a : c.b), sign = c.kind == PF_BELOW ? -1 : 1;
    switch (c.kind) {
    case PF_ASINH:
        for (ptrdiff_t i = 0; i < n; i++) {
            double y = (x[i] - a) * scale;
            y = y > 1e150 ? 1e150 : y < -1e150 ? -1e150 : y;
            double inv = 1 / sqrt(1 + y * y);
            g[i] = (real)((g[i] - gl[i] * (y * inv)) * inv * scale);
        }
        break;
    case PF_LOGIT:
        for (ptrdiff_t i = 0; i < n; i++) {
            double u = (x[i] - a) * scale, v = (c.b - x[i]) * scale;
            u = u < EDGE ? EDGE : u > 1 - EDGE ? 1 - EDGE : u;
            v = v < EDGE ? EDGE : v > 1 - EDGE ? 1 - EDGE : v;
            g[i] = (real)((g[i] + gl[i] * (u - v)) * scale / (u * v));
        }
        break;
    case PF_ABOVE:
    case PF_BELOW:
        for (ptrdiff_t i = 0; i < n; i++) {
            real y = X(most)((real)(sign * (x[i] - a) * scale), EDGE), power;
            real e = -X(expm1)(-X(least)(y, EXP_MOST), &power);
            g[i] = (real)((g[i] - sign * gl[i] * (double)power) * (double)(1 / e) * scale);
        }
        break;
    default:
        for (ptrdiff_t i = 0; i < n; i++) g[i] = (real)(g[i] * scale);
    }
}
PF_DISPATCH(X(column_vjp), (real * g, const double *gl, const real *x, pf_column c, ptrdiff_t n), (g, gl, x, c, n))

#undef INT
#undef UINT
#undef MANTISSA_BITS
#undef BIAS
#undef SQRT_HALF
#undef EXP_MOST
#undef LN2_HI
#undef LN2_LO
#undef EDGE
#undef ONE
#undef ROUND
#undef FAR_Y
#undef FAR_Z
#endif
