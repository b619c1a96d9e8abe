/* Rational-quadratic splines: forward, inverse and vector-Jacobian products. The formulas are in rqs.h. */
#ifndef real
#include "rqs.h"

/* log m = 2 atanh(s), s = (m - 1) / (m + 1), by its series; m in [sqrt 1/2, sqrt 2) and a power of two are read off the
 * bits. The loop vectorises, which a call of log() would not. Error below 2e-16 (1 + |log|). */
PF_KERNEL void pf_log_slopes_body(double *restrict logj, double *restrict slope, double sign, ptrdiff_t n)
{
    const uint64_t sqrt_half = 0x3fe6a09e667f3bcd, one = 0x3ff0000000000000, mantissa = 0x000fffffffffffff;
    for (ptrdiff_t i = 0; i < n; i++) {
        uint64_t u, e;
        double m, k;
        memcpy(&u, slope + i, 8);
        u += one - sqrt_half;
        e = (u >> 52) | 0x4330000000000000; /* the double 2^52 + biased exponent */
        memcpy(&k, &e, 8);
        u = (u & mantissa) + sqrt_half;
        memcpy(&m, &u, 8);
        k -= 4503599627370496.0 + 1023;
        double s = (m - 1) / (m + 1), z = s * s;
        double series = 1. / 21;
        series = series * z + 1. / 19;
        series = series * z + 1. / 17;
        series = series * z + 1. / 15;
        series = series * z + 1. / 13;
        series = series * z + 1. / 11;
        series = series * z + 1. / 9;
        series = series * z + 1. / 7;
        series = series * z + 1. / 5;
        series = series * z + 1. / 3;
        logj[i] += sign * (k * M_LN2 + 2 * (s + s * z * series));
        slope[i] = 1;
    }
}
PF_DISPATCH(pf_log_slopes, (double *logj, double *slope, double sign, ptrdiff_t n), (logj, slope, sign, n))

enum { CHUNK = 128 }; /* numbers whose bins are found together */

static ptrdiff_t power_of_two(ptrdiff_t at_least)
{
    ptrdiff_t p = 1;
    while (p < at_least) p *= 2;
    return p;
}

#define TWICE "rqs.c"
#include "twice.h"
#else

/* The columns of the bin table: gathers from them vectorise. */
#ifndef RQS_COLUMNS
#define RQS_COLUMNS(spline)                                                                                            \
    ptrdiff_t n_bins = (spline)->bins;                                                                                 \
    const real *restrict col_x0 = (spline)->bin, *restrict col_inv_w = col_x0 + n_bins;                                \
    const real *restrict col_y0 = col_x0 + 2 * n_bins, *restrict col_h = col_x0 + 3 * n_bins;                          \
    const real *restrict col_s = col_x0 + 4 * n_bins, *restrict col_d0 = col_x0 + 5 * n_bins;                          \
    const real *restrict col_c = col_x0 + 6 * n_bins, *restrict col_inv_h = col_x0 + 7 * n_bins;                       \
    (void)col_inv_w, (void)col_y0, (void)col_h, (void)col_inv_h
#endif

/* ---- making ----------------------------------------------------------------------------------------------- */

static void X(make_search)(X(rqs_search) *search, real *padded, int32_t *cell, const real *knot, ptrdiff_t m,
                           ptrdiff_t n_padded, ptrdiff_t cells)
{
    real lo = knot[0], width = knot[m - 1] - knot[0];
    real scale = (real)cells / width;
    for (ptrdiff_t j = 0; j < n_padded; j++) padded[j] = j < m ? knot[j] : (real)INFINITY;
    ptrdiff_t j = 0, most = 0;
    for (ptrdiff_t c = 0; c < cells; c++) {
        ptrdiff_t before = j;
        cell[c] = (int32_t)j;
        /* the same arithmetic as in find_bins: monotone, so a knot in an earlier cell is never above the number sought */
        while (j < m && PF_MIN((ptrdiff_t)((knot[j] - lo) * scale), cells - 1) == c) j++;
        most = PF_MAX(most, j - before);
    }
    search->knot = padded;
    search->cell = cell;
    search->lo = lo;
    search->scale = scale;
    search->refine = isfinite(scale) && most <= 6 ? (int)most : 0;
}

static void X(make_bins)(real *bin, const real *x, const real *y, const real *d, ptrdiff_t m)
{
    ptrdiff_t n = m + 1;
    for (ptrdiff_t j = 0; j <= m; j++, bin++) {
        ptrdiff_t left = PF_MAX(j - 1, 0);
        int tail = j == 0 || j == m;
        real w = tail ? 1 : x[j] - x[left], h = tail ? d[left] : y[j] - y[left];
        real d0 = d[left], d1 = tail ? d0 : d[j], s = tail ? d0 : h / w;
        bin[0] = x[left];
        bin[n] = 1 / w;
        bin[2 * n] = y[left];
        bin[3 * n] = h;
        bin[4 * n] = s;
        bin[5 * n] = d0;
        bin[6 * n] = tail ? 0 : d0 + d1 - 2 * s;
        bin[7 * n] = 1 / h;
    }
}

/* The product of RQS_LOG_EVERY slopes must stay a normal double. */
static int X(bad_knots)(const real *x, const real *y, const real *d, ptrdiff_t m)
{
    for (ptrdiff_t j = 0; j < m; j++) {
        if (!isfinite(x[j]) || !isfinite(y[j]) || !(d[j] > (real)1e-36) || !(d[j] < (real)1e36)) return 1;
        if (j && !(x[j] > x[j - 1] && y[j] > y[j - 1])) return 1;
        if (j && !isnormal(1 / (x[j] - x[j - 1])) && !isnormal(1 / (y[j] - y[j - 1]))) return 1;
    }
    return 0;
}

X(rqs) *X(rqs_new)(const real *knots, ptrdiff_t n, ptrdiff_t m)
{
    if (m < 2 || m > 65535) return pf_fail(PF_BAD_ARGUMENT, "a spline has 2 to 65535 knots, not %td", m), NULL;
    for (ptrdiff_t i = 0; i < n; i++)
        if (X(bad_knots)(knots + 3 * m * i, knots + 3 * m * i + m, knots + 3 * m * i + 2 * m, m))
            return pf_fail(PF_BAD_ARGUMENT, "the knots of spline %td do not increase, or a slope is not positive", i),
                   NULL;

    ptrdiff_t padded = power_of_two(m + 1), cells = power_of_two(2 * m);
    ptrdiff_t reals = (m + 1) * RQS_BIN + 2 * padded, ints = 2 * cells;
    size_t head = (size_t)(n * (ptrdiff_t)sizeof(X(rqs)) + 63) / 64 * 64;
    size_t body = (size_t)reals * sizeof(real) + (size_t)ints * sizeof(int32_t);
    char *block = pf_alloc((ptrdiff_t)(head + (size_t)n * body), 1);
    if (!block) return NULL;
    X(rqs) *splines = (X(rqs) *)block;
    for (ptrdiff_t i = 0; i < n; i++) {
        const real *x = knots + 3 * m * i, *y = x + m, *d = y + m;
        real *bin = (real *)(block + head + (size_t)i * body), *by_x = bin + (m + 1) * RQS_BIN, *by_y = by_x + padded;
        int32_t *cell = (int32_t *)(by_y + padded);
        X(make_bins)(bin, x, y, d, m);
        X(make_search)(&splines[i].by_x, by_x, cell, x, m, padded, cells);
        X(make_search)(&splines[i].by_y, by_y, cell + cells, y, m, padded, cells);
        splines[i].bin = bin;
        splines[i].bins = (int)(m + 1);
        splines[i].cells = (int)cells;
        splines[i].padded = (int)padded;
    }
    return splines;
}

/* ---- finding bins: bin[i] = number of knots <= v[i] ------------------------------------------------------- */

PF_KERNEL void X(find_bins)(int32_t *restrict bin, const real *restrict v, const X(rqs_search) *search, int cells,
                            int padded, ptrdiff_t n)
{
    const real *restrict knot = search->knot;
    const int32_t *restrict cell = search->cell;
    real lo = search->lo, scale = search->scale, top = (real)(cells - 1);
    if (search->refine) {
        for (ptrdiff_t i = 0; i < n; i++) {
            real c = (v[i] - lo) * scale;
            c = c > 0 ? c : 0; /* NaN too */
            c = c < top ? c : top;
            bin[i] = cell[(int32_t)c];
        }
        for (int r = 0; r < search->refine; r++)
            for (ptrdiff_t i = 0; i < n; i++) {
                int32_t b = bin[i];
                bin[i] = b + (v[i] >= knot[b] ? 1 : 0);
            }
    } else {
        for (ptrdiff_t i = 0; i < n; i++) bin[i] = 0;
        for (int step = padded / 2; step; step /= 2)
            for (ptrdiff_t i = 0; i < n; i++) {
                int32_t b = bin[i];
                bin[i] = b + (v[i] >= knot[b + step - 1] ? step : 0);
            }
    }
}

/* ---- forward ---------------------------------------------------------------------------------------------- */

PF_KERNEL void X(rqs_forward_body)(real *restrict y, double *restrict slope, const real *restrict x,
                                   const X(rqs) *spline, ptrdiff_t n)
{
    RQS_COLUMNS(spline);
    int32_t bin[CHUNK];
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        ptrdiff_t m = PF_MIN(n - start, CHUNK);
        X(find_bins)(bin, x + start, &spline->by_x, spline->cells, spline->padded, m);
        for (ptrdiff_t i = 0; i < m; i++) {
            int32_t j = bin[i];
            real s = col_s[j], d0 = col_d0[j], c = col_c[j], a = s - d0;
            real t = (x[start + i] - col_x0[j]) * col_inv_w[j];
            real inv = 1 / (s + c * t * (1 - t));
            real g = s * inv;
            y[start + i] = col_y0[j] + col_h[j] * (t * (d0 + a * t)) * inv;
            slope[start + i] *= (double)(g * g * (d0 + t * (2 * a + c * t)));
        }
    }
}
PF_DISPATCH(X(rqs_forward), (real * y, double *slope, const real *x, const X(rqs) *spline, ptrdiff_t n),
            (y, slope, x, spline, n))

/* ---- inverse: t solves a quadratic, taken in the form that does not cancel -------------------------------- */

PF_KERNEL void X(rqs_inverse_body)(real *restrict x, double *restrict slope, const real *restrict y,
                                   const X(rqs) *spline, ptrdiff_t n)
{
    RQS_COLUMNS(spline);
    int32_t bin[CHUNK];
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        ptrdiff_t m = PF_MIN(n - start, CHUNK);
        X(find_bins)(bin, y + start, &spline->by_y, spline->cells, spline->padded, m);
        for (ptrdiff_t i = 0; i < m; i++) {
            int32_t j = bin[i];
            real s = col_s[j], d0 = col_d0[j], c = col_c[j];
            real q = (y[start + i] - col_y0[j]) * col_inv_h[j];
            /* a t^2 + b t - s q = 0 */
            real a = s - d0 + q * c, b = d0 - q * c;
            real square = b * b + 4 * a * s * q;
            real root = R(sqrt)(square > 0 ? square : 0);
            real t = b > 0 ? 2 * s * q / (b + root) : (root - b) / (2 * a);
            real inv = 1 / (s + c * t * (1 - t));
            real g = s * inv;
            x[start + i] = col_x0[j] + t / col_inv_w[j];
            slope[start + i] *= (double)(g * g * (d0 + t * (2 * (s - d0) + c * t)));
        }
    }
}
PF_DISPATCH(X(rqs_inverse), (real * x, double *slope, const real *y, const X(rqs) *spline, ptrdiff_t n),
            (x, slope, y, spline, n))

/* ---- vector-Jacobian products ---------------------------------------------------------------------------------------
 * With N = d0 + 2 a t + c t^2, D = s + c t (1 - t): log y' = 2 log s + log N - 2 log D. */

PF_KERNEL void X(rqs_vjp_body)(real *restrict gx, const double *restrict gl, const real *restrict x,
                               const X(rqs) *spline, ptrdiff_t n)
{
    RQS_COLUMNS(spline);
    int32_t bin[CHUNK];
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        ptrdiff_t m = PF_MIN(n - start, CHUNK);
        X(find_bins)(bin, x + start, &spline->by_x, spline->cells, spline->padded, m);
        for (ptrdiff_t i = 0; i < m; i++) {
            int32_t j = bin[i];
            real s = col_s[j], d0 = col_d0[j], c = col_c[j], a = s - d0;
            real t = (x[start + i] - col_x0[j]) * col_inv_w[j];
            real inv = 1 / (s + c * t * (1 - t)), g = s * inv;
            real num = d0 + t * (2 * a + c * t);
            real curve = col_inv_w[j] * (2 * (a + c * t) / num - 2 * c * (1 - 2 * t) * inv);
            gx[start + i] = gx[start + i] * (g * g * num) + (real)gl[start + i] * curve;
        }
    }
}
PF_DISPATCH(X(rqs_vjp), (real * gx, const double *gl, const real *x, const X(rqs) *spline, ptrdiff_t n),
            (gx, gl, x, spline, n))

void X(rqs_vjp_knots)(double *gknots, const real *gy, const double *gl, const real *x, const X(rqs) *spline,
                      ptrdiff_t m, ptrdiff_t n)
{
    double *gknot_x = gknots, *gknot_y = gknots + m, *gknot_d = gknots + 2 * m;
    RQS_COLUMNS(spline);
    int32_t bin[CHUNK];
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        ptrdiff_t count = PF_MIN(n - start, CHUNK);
        X(find_bins)(bin, x + start, &spline->by_x, spline->cells, spline->padded, count);
        for (ptrdiff_t i = 0; i < count; i++) {
            int32_t j = bin[i];
            double g = gy[start + i], l = gl[start + i];
            ptrdiff_t left = PF_MAX(j - 1, 0), right = j;
            if (j == 0 || j == m) { /* tail: y = y_e + d_e (x - x_e) */
                gknot_x[left] -= g * col_d0[j];
                gknot_y[left] += g;
                gknot_d[left] += g * ((double)x[start + i] - col_x0[j]) + l / col_d0[j];
                continue;
            }
            double h = col_h[j], s = col_s[j], d0 = col_d0[j], c = col_c[j], a = s - d0, inv_w = col_inv_w[j];
            double t = ((double)x[start + i] - col_x0[j]) * inv_w, u = t * (1 - t);
            double D = s + c * u, N = d0 + t * (2 * a + c * t), q = t * (d0 + a * t) / D;
            /* q = n / D, n = t (d0 + a t): derivatives with respect to t, s, d0, d1 */
            double q_t = (d0 + 2 * a * t - q * c * (1 - 2 * t)) / D;
            double q_s = (t * t - q * (1 - 2 * u)) / D;
            double q_d0 = (u - q * u) / D, q_d1 = -q * u / D;
            double l_t = 2 * (a + c * t) / N - 2 * c * (1 - 2 * t) / D;
            double l_s = 2 / s + 2 * u / N - 2 * (1 - 2 * u) / D;
            double l_d0 = (1 - t) * (1 - t) / N - 2 * u / D, l_d1 = t * t / N - 2 * u / D;
            double g_t = g * h * q_t + l * l_t, g_s = g * h * q_s + l * l_s;
            double g_h = g * q + g_s * inv_w, g_w = -(g_s * s + g_t * t) * inv_w; /* s = h / w, t = (x - x0) / w */
            gknot_x[left] -= g_w + g_t * inv_w;
            gknot_x[right] += g_w;
            gknot_y[left] += g - g_h;
            gknot_y[right] += g_h;
            gknot_d[left] += g * h * q_d0 + l * l_d0;
            gknot_d[right] += g * h * q_d1 + l * l_d1;
        }
    }
}
#endif
