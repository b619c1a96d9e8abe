/* Rational-quadratic splines: forward, inverse and vector-Jacobian products. The formulas are in rqs.h. */
#ifndef real
#include "cspline.h"
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

/* ---- parameters ------------------------------------------------------------------------------------------- */

static double bounded(double a, double most) { return PF_MIN(PF_MAX(a, -most), most); }

/* exp() of a logarithm within its bounds */
static double gap_of(double log_gap) { return exp(bounded(log_gap, RQS_LOG_MOST)); }

static double log_of(double gap) { return gap > exp(-RQS_LOG_MOST) ? log(gap) : -RQS_LOG_MOST; }

void pf_rqs_theta(double *theta, const double *knots, ptrdiff_t m)
{
    for (ptrdiff_t i = 0; i < 3; i++) {
        const double *k = knots + i * m;
        double *a = theta + i * m;
        a[0] = i < 2 ? k[0] : log_of(k[0]);
        for (ptrdiff_t j = 1; j < m; j++) a[j] = log_of(i < 2 ? k[j] - k[j - 1] : k[j]);
    }
}

enum {
    CHUNK = 128,  /* numbers whose bins are found together, a multiple of any vector's length */
    WINDOW = 512, /* bins whose gradients are summed together */
};

/* Sums over the numbers of a bin, from which the gradient is made */
enum { SUM_G, SUM_GX, SUM_GY_MOVE, SUM_GX_MOVE, SUM_D0, SUM_D1, SUM_L, SUMS };

static ptrdiff_t power_of_two(ptrdiff_t at_least)
{
    ptrdiff_t p = 1;
    while (p < at_least) p *= 2;
    return p;
}

static size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

#define TWICE "rqs.c"
#include "twice.h"
#else

#if REAL_BITS == 32
#define WHOLE uint32_t
#else
#define WHOLE uint64_t
#endif

/* ---- making ----------------------------------------------------------------------------------------------- */

/* The least number that is `gap` above x, or the next one there is */
static real X(above)(real x, double gap)
{
    real next = (real)(x + gap);
    return next > x ? next : R(nextafter)(x, (real)INFINITY);
}

/* Knots of theta in this precision, of which no two are the same; a chord's slope is bounded as the others are. */
static void X(make_knots)(real *x, real *y, const double *theta, ptrdiff_t m)
{
    const double least = exp(-RQS_LOG_MOST);
    double at_x = bounded(theta[0], RQS_FIRST_MOST), at_y = bounded(theta[m], RQS_FIRST_MOST);
    x[0] = (real)at_x, y[0] = (real)at_y;
    for (ptrdiff_t j = 1; j < m; j++) {
        at_x += gap_of(theta[j]), at_y += gap_of(theta[m + j]);
        real x0 = x[j - 1], y0 = y[j - 1];
        x[j] = PF_MAX((real)at_x, X(above)(x0, least));
        y[j] = PF_MAX((real)at_y, X(above)(y0, least));
        y[j] = PF_MAX(y[j], X(above)(y0, ((double)x[j] - x0) * least));
        x[j] = PF_MAX(x[j], X(above)(x0, ((double)y[j] - y0) * least));
    }
}

static void X(make_bins)(real *bin, const real *x, const real *y, const double *log_d, ptrdiff_t m)
{
    for (ptrdiff_t j = 0; j <= m; j++, bin += RQS_BIN) {
        ptrdiff_t left = PF_MAX(j - 1, 0);
        int tail = j == 0 || j == m;
        double d0 = gap_of(log_d[left]), d1 = tail ? d0 : gap_of(log_d[j]);
        double w = tail ? INFINITY : (double)x[j] - x[left], h = tail ? INFINITY : (double)y[j] - y[left];
        double s = tail ? d0 : h / w;
        bin[RQS_X0] = x[left];
        bin[RQS_Y0] = y[left];
        bin[RQS_P] = (real)PF_MIN(PF_MAX(d0 / s, 1 / RQS_RATIO), RQS_RATIO);
        bin[RQS_R] = (real)PF_MIN(PF_MAX(d1 / s, 1 / RQS_RATIO), RQS_RATIO);
        bin[RQS_INV_W] = (real)(1 / w);
        bin[RQS_S] = (real)s;
        bin[RQS_INV_H] = (real)(1 / h);
        bin[RQS_INV_S] = (real)(1 / s);
    }
}

/* The bits of v as a whole number of the same order: all turned in a negative number, else the sign's */
PF_KERNEL WHOLE X(order)(real v)
{
    WHOLE bits, sign = (WHOLE)1 << (REAL_BITS - 1);
    memcpy(&bits, &v, sizeof v);
    return bits ^ ((0 - (bits >> (REAL_BITS - 1))) | sign);
}

/* Monotone: a knot in an earlier cell is never above a number. */
PF_KERNEL int32_t X(cell_of)(real v, real lo, real scale, real top)
{
    real c = (v - lo) * scale;
    c = c > 0 ? c : 0; /* NaN too */
    c = c < top ? c : top;
    return (int32_t)c;
}

/* knot[m] becomes the search's whole numbers, in its place; it has room for `padded` of them. */
static void X(make_search)(X(rqs_search) *search, real *knot, uint16_t *cell, ptrdiff_t m, ptrdiff_t padded,
                           ptrdiff_t cells)
{
    real lo = knot[0], scale = (real)cells / (knot[m - 1] - knot[0]);
    ptrdiff_t j = 0, most = 1;
    for (ptrdiff_t c = 0; c < cells; c++) {
        ptrdiff_t before = j;
        cell[c] = (uint16_t)j;
        while (j < m && X(cell_of)(knot[j], lo, scale, (real)(cells - 1)) == c) j++;
        most = PF_MAX(most, j - before);
    }
    for (j = 0; j < padded; j++) {
        WHOLE order = j < m ? X(order)(knot[j]) : ~(WHOLE)0;
        memcpy(knot + j, &order, sizeof order);
    }
    search->knot = (const WHOLE *)knot;
    search->cell = cell;
    search->lo = lo;
    search->scale = scale;
    search->refine = isfinite(scale) && most <= 6 ? (int)most : 0;
}

/* A spline's tables: bins, knots by x and by y, cells by x and by y */
static size_t X(table_bytes)(ptrdiff_t m, ptrdiff_t padded, ptrdiff_t cells)
{
    size_t reals = (size_t)((m + 1) * RQS_BIN + 2 * padded);
    return whole_lines(reals * sizeof(real) + (size_t)(2 * cells) * sizeof(uint16_t));
}

size_t X(rqs_bytes)(ptrdiff_t n, ptrdiff_t m)
{
    return whole_lines((size_t)n * sizeof(X(rqs))) +
           (size_t)n * X(table_bytes)(m, power_of_two(m + 1), power_of_two(4 * m));
}

void X(rqs_make)(X(rqs) *splines, const double *theta, ptrdiff_t n, ptrdiff_t m)
{
    ptrdiff_t padded = power_of_two(m + 1), cells = power_of_two(4 * m);
    size_t bytes = X(table_bytes)(m, padded, cells);
    char *tables = (char *)splines + whole_lines((size_t)n * sizeof *splines);
    for (ptrdiff_t i = 0; i < n; i++, tables += bytes, theta += 3 * m) {
        real *bin = (real *)tables, *x = bin + (m + 1) * RQS_BIN, *y = x + padded;
        uint16_t *cell = (uint16_t *)(y + padded);
        X(make_knots)(x, y, theta, m);
        X(make_bins)(bin, x, y, theta + 2 * m, m);
        X(make_search)(&splines[i].by_x, x, cell, m, padded, cells);
        X(make_search)(&splines[i].by_y, y, cell + cells, m, padded, cells);
        splines[i].bin = bin;
        splines[i].bins = (int)(m + 1);
        splines[i].cells = (int)cells;
        splines[i].padded = (int)padded;
    }
}

/* ---- finding bins: bin[i] = number of knots <= v[i] ------------------------------------------------------- */

/* One number after the other: no instruction set looks up tables faster than that. */
PF_KERNEL void X(look_up)(int32_t *restrict bin, const WHOLE *restrict order, const X(rqs_search) *search, int steps,
                          ptrdiff_t n)
{
    const uint16_t *restrict cell = search->cell;
    const WHOLE *restrict knot = search->knot;
#pragma GCC unroll 8
    for (ptrdiff_t i = 0; i < n; i++) {
        size_t b = cell[bin[i]];
        __asm__("" : "+r"(b)); /* or gcc imitates vectors of look-ups */
        for (int r = 0; r < steps; r++) b += order[i] >= knot[b];
        bin[i] = (int32_t)b;
    }
}

PF_KERNEL void X(find_bins)(int32_t *restrict bin, const real *restrict v, const X(rqs_search) *search, int cells,
                            int padded, ptrdiff_t n)
{
    WHOLE order[CHUNK];
    real lo = search->lo, scale = search->scale, top = (real)(cells - 1);
    for (ptrdiff_t i = 0; i < n; i++)
        order[i] = X(order)(v[i] == v[i] ? v[i] : (real)-INFINITY); /* NaN has a bin too */
    if (!search->refine) {
        for (ptrdiff_t i = 0; i < n; i++) {
            size_t b = 0;
            for (size_t step = (size_t)padded / 2; step; step /= 2)
                b += order[i] >= search->knot[b + step - 1] ? step : 0;
            bin[i] = (int32_t)b;
        }
        return;
    }
    for (ptrdiff_t i = 0; i < n; i++) bin[i] = X(cell_of)(v[i], lo, scale, top);
    if (search->refine == 1) X(look_up)(bin, order, search, 1, n);
    else if (search->refine == 2) X(look_up)(bin, order, search, 2, n);
    else X(look_up)(bin, order, search, search->refine, n);
}

/* ---- what is stored of the bins, a column each: rqs.inc ---------------------------------------------------- */

/* The attribute of PF_DISPATCH comes too late for vector types: see psi.c. */
#if defined(__GNUC__) && !defined(__clang__)
#define FETCH X(fetch_16)
#define BYTES 16
#include "rqs.inc"
#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define FETCH X(fetch_32)
#define BYTES 32
#include "rqs.inc"
#pragma GCC pop_options
#define FETCH_BY_LEVEL (pf_simd_level >= 2 ? X(fetch_32) : X(fetch_16))
#else
#define FETCH_BY_LEVEL X(fetch_16)
#endif
#else
static void X(fetch)(real (*restrict column)[CHUNK], const real *restrict table, const int32_t *restrict bin,
                     ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        for (int c = 0; c < RQS_BIN; c++) column[c][i] = table[(ptrdiff_t)bin[i] * RQS_BIN + c];
}
#define FETCH_BY_LEVEL X(fetch)
#endif

/* The bins of n <= CHUNK numbers, and what is stored of them; bin[CHUNK], column[][CHUNK] */
PF_KERNEL void X(find)(int32_t *restrict bin, real (*restrict column)[CHUNK], const real *restrict v,
                       const X(rqs_search) *search, const X(rqs) *spline, ptrdiff_t n)
{
    X(find_bins)(bin, v, search, spline->cells, spline->padded, n);
    for (ptrdiff_t i = n; i % 8; i++) bin[i] = 0;
    FETCH_BY_LEVEL(column, spline->bin, bin, n);
}

/* ---- forward ---------------------------------------------------------------------------------------------- */

PF_KERNEL void X(rqs_forward_body)(real *restrict y, double *restrict slope, const real *restrict x,
                                   const X(rqs) *spline, ptrdiff_t n)
{
    int32_t bin[CHUNK];
    real column[RQS_BIN][CHUNK];
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        ptrdiff_t m = PF_MIN(n - start, CHUNK);
        X(find)(bin, column, x + start, &spline->by_x, spline, m);
        for (ptrdiff_t i = 0; i < m; i++) {
            real s = column[RQS_S][i], p = column[RQS_P][i], r = column[RQS_R][i];
            real move = x[start + i] - column[RQS_X0][i], t = move * column[RQS_INV_W][i];
            t = t > 1 ? 1 : t;
            real o = 1 - t, P = p * o + t, inv = 1 / (1 + (p + r - 2) * (t * o));
            y[start + i] = column[RQS_Y0][i] + move * s * (P * inv);
            slope[start + i] *= (double)(s * inv * ((o * (P + t) + r * t * t) * inv));
        }
    }
}
PF_DISPATCH(X(rqs_forward), (real * y, double *slope, const real *x, const X(rqs) *spline, ptrdiff_t n),
            (y, slope, x, spline, n))

/* ---- inverse ------------------------------------------------------------------------------------------------------
 * With q = (y - y_0) / h: a t^2 + b t - q = 0, b = p (1 - q) + q (2 - r), a = 1 - b; t in the form that does not
 * cancel, as a multiple of q, which is 0 in the tails. */

PF_KERNEL void X(rqs_inverse_body)(real *restrict x, double *restrict slope, const real *restrict y,
                                   const X(rqs) *spline, ptrdiff_t n)
{
    int32_t bin[CHUNK];
    real column[RQS_BIN][CHUNK];
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        ptrdiff_t m = PF_MIN(n - start, CHUNK);
        X(find)(bin, column, y + start, &spline->by_y, spline, m);
        for (ptrdiff_t i = 0; i < m; i++) {
            real p = column[RQS_P][i], r = column[RQS_R][i], inv_s = column[RQS_INV_S][i];
            real move = y[start + i] - column[RQS_Y0][i], q = move * column[RQS_INV_H][i];
            q = q > 1 ? 1 : q;
            real b = p * (1 - q) + q * (2 - r), a = 1 - b, square = b * b + 4 * a * q;
            real root = R(sqrt)(square > 0 ? square : 0);
            real above = b > 0 ? 2 : root - b, below = b > 0 ? b + root : 2 * a * q;
            below = below > above * q ? below : above * q; /* t <= 1 whatever was rounded */
            real ratio = above / below, t = ratio * q;
            real o = 1 - t, Q = 1 + (p + r - 2) * (t * o);
            x[start + i] = column[RQS_X0][i] + move * inv_s * ratio;
            slope[start + i] *= (double)((o * (p * o + 2 * t) + r * t * t) / (Q * Q * inv_s));
        }
    }
}
PF_DISPATCH(X(rqs_inverse), (real * x, double *slope, const real *y, const X(rqs) *spline, ptrdiff_t n),
            (x, slope, y, spline, n))

/* ---- vector-Jacobian product --------------------------------------------------------------------------------------
 * log y' = log s + log N - 2 log Q. Let g = dL/dy, l = dL/dlog y', and E, F the derivatives by log p and log r at fixed
 * t and s. Of a bin, as a function of x, x_0, y_0, log h, log w, log d_0 and log d_1, with K = l - E - F,
 *
 *     dL/dy_0 = g,   dL/dx_0 = -dL/dx,   dL/dlog d_0 = E,   dL/dlog d_1 = F
 *     dL/dlog h = g (y - y_0) + K,   dL/dlog w = -(x - x_0) dL/dx - K
 *
 * and of a tail dL/dlog d = g (y - y_0) + l. */

PF_KERNEL void X(vjp_terms)(real *restrict gx, real (*restrict term)[CHUNK], real (*restrict column)[CHUNK],
                            const real *restrict g, const double *restrict gl, const real *restrict x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        real s = column[RQS_S][i], p = column[RQS_P][i], r = column[RQS_R][i], inv_w = column[RQS_INV_W][i];
        real move = x[i] - column[RQS_X0][i], t = move * inv_w, l = (real)gl[i], gs = g[i] * s;
        t = t > 1 ? 1 : t;
        real o = 1 - t, u = t * o, c = p + r - 2, P = p * o + t, N = o * (P + t) + r * (t * t);
        real inv_N = 1 / N, inv_Q = 1 / (1 + c * u), N_t = r * t - p * o + (o - t);
        gx[i] = gs * inv_Q * (N * inv_Q) + 2 * l * inv_w * (N_t * inv_N - c * (o - t) * inv_Q);
        if (!term) continue;
        real gy_move = gs * move * (P * inv_Q), q = t * (P * inv_Q), gq = gs * move * o * inv_Q,
             both = 2 * l * u * inv_Q;
        term[SUM_G][i] = g[i];
        term[SUM_GX][i] = gx[i];
        term[SUM_GY_MOVE][i] = gy_move;
        term[SUM_GX_MOVE][i] = gx[i] * move;
        term[SUM_D0][i] = p * (gq * (1 - q) + l * (o * o) * inv_N - both);
        term[SUM_D1][i] = r * (l * (t * t) * inv_N - gq * q - both);
        term[SUM_L][i] = l;
    }
}

/* sums[WINDOW][SUMS] += the terms of the numbers whose bin is in first .. first + WINDOW - 1; unless `last`, g stays. */
PF_KERNEL void X(rqs_vjp_sums_body)(real *g, double (*sums)[SUMS], ptrdiff_t first, int last, const double *gl,
                                    const real *x, const X(rqs) *spline, ptrdiff_t n)
{
    int32_t bin[CHUNK];
    real gx[CHUNK], term[SUMS][CHUNK], column[RQS_BIN][CHUNK];
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        ptrdiff_t m = PF_MIN(n - start, CHUNK);
        X(find)(bin, column, x + start, &spline->by_x, spline, m);
        if (sums) {
            X(vjp_terms)(gx, term, column, g + start, gl + start, x + start, m);
            for (ptrdiff_t i = 0; i < m; i++) {
                ptrdiff_t j = bin[i] - first;
                if (j < 0 || j >= WINDOW) continue;
                for (int c = 0; c < SUMS; c++) sums[j][c] += (double)term[c][i];
            }
        } else X(vjp_terms)(gx, NULL, column, g + start, gl + start, x + start, m);
        if (last) memcpy(g + start, gx, (size_t)m * sizeof(real));
    }
}
static void X(rqs_vjp_sums)(real *, double (*)[SUMS], ptrdiff_t, int, const double *, const real *, const X(rqs) *,
                            ptrdiff_t);
PF_DISPATCH(X(rqs_vjp_sums),
            (real * g, double (*sums)[SUMS], ptrdiff_t first, int last, const double *gl, const real *x,
             const X(rqs) *spline, ptrdiff_t n),
            (g, sums, first, last, gl, x, spline, n))

void X(rqs_vjp)(real *g, double *gtheta, const double *gl, const real *x, const X(rqs) *spline, ptrdiff_t n)
{
    if (!gtheta) {
        X(rqs_vjp_sums)(g, NULL, 0, 1, gl, x, spline, n);
        return;
    }
    ptrdiff_t m = spline->bins - 1;
    double sums[WINDOW][SUMS], *gx = gtheta, *gy = gtheta + m, *gd = gtheta + 2 * m;
    double after_x = 0, after_y = 0;          /* dL/d(a shift of all knots from here on) */
    const real *knot = spline->bin + RQS_BIN; /* bin j + 1 begins at knot j */
    for (ptrdiff_t end = m + 1, first; end > 0; end = first) {
        first = PF_MAX(end - WINDOW, 0);
        memset(sums, 0, (size_t)(end - first) * sizeof *sums);
        X(rqs_vjp_sums)(g, sums, first, first == 0, gl, x, spline, n);
        for (ptrdiff_t j = end - 1; j >= first; j--) {
            const double *s = sums[j - first];
            ptrdiff_t left = PF_MAX(j - 1, 0);
            after_x -= s[SUM_GX];
            after_y += s[SUM_G];
            if (left > 0) {
                const real *here = knot + left * RQS_BIN, *before = here - RQS_BIN;
                gx[left] += after_x * ((double)here[RQS_X0] - before[RQS_X0]);
                gy[left] += after_y * ((double)here[RQS_Y0] - before[RQS_Y0]);
            }
            if (j == 0 || j == m) {
                gd[left] += s[SUM_GY_MOVE] + s[SUM_L];
                continue;
            }
            double k = s[SUM_L] - s[SUM_D0] - s[SUM_D1];
            gx[j] -= s[SUM_GX_MOVE] + k;
            gy[j] += s[SUM_GY_MOVE] + k;
            gd[left] += s[SUM_D0];
            gd[j] += s[SUM_D1];
        }
    }
    gx[0] += after_x;
    gy[0] += after_y;
}
#undef WHOLE
#undef FETCH_BY_LEVEL
#endif
