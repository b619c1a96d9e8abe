/* Flat wrappers of the core's kernels, so that the Python tests reach them through ctypes: k32_name and k64_name.
 * Nothing here computes. tests/python/ckernels.py builds and loads it. */
#ifndef real
#include "cdf1d.h"
#include "column.h"
#include "kernels.h"
#include "rqp.h"
#include "rqs.h"
#include "stiefel.h"

#pragma GCC visibility push(default)

void k_philox(uint32_t out[4], uint64_t key, uint64_t stream, uint64_t counter)
{
    pf_philox(out, key, stream, counter);
}

void k_normals(double *z, uint64_t key, uint64_t stream, uint64_t first, ptrdiff_t n)
{
    pf_normals(z, key, stream, first, n);
}

void k_normal_rows(double *z, uint64_t key, uint64_t stream, uint64_t first, ptrdiff_t rows, ptrdiff_t n)
{
    pf_normal_rows(z, key, stream, first, rows, n);
}

uint64_t k_uniform_int(uint64_t key, uint64_t stream, uint64_t i, uint64_t bound)
{
    return pf_uniform_int(key, stream, i, bound);
}

void k_normal_quantile(double *z, const double *p, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) z[i] = pf_normal_quantile(p[i]);
}

void k_normal_quantiles(double *z, const uint64_t *cell, ptrdiff_t n) { pf_normal_quantiles(z, cell, n); }

void k_normal_cdf(double *p, const double *x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) p[i] = pf_normal_cdf(x[i]);
}

/* Makes the kernels run at this level, if the machine can; returns the level that was. */
int k_simd(int level)
{
#if defined(__x86_64__) && defined(__GNUC__)
    int before = pf_simd_level;
    if (level >= 0) pf_simd_level = level;
    return before;
#else
    return (void)level, 0;
#endif
}

void k_set_num_threads(int n) { pf_set_num_threads(n); }
const char *k_message(void) { return pf_message(); }
void k_forget_message(void) { pf_begin(), pf_end(PF_OK); } /* the first one would stay */

/* ---- distributions and slices, in double ---- */

void k_fixed_weights(int64_t *fixed, const double *weight, ptrdiff_t n) { pf_fixed_weights(fixed, weight, n); }

double k_scores(double *score, const int64_t *count, double lo, double width, ptrdiff_t bins)
{
    return pf_cdf1d_scores(score, count, &(pf_grid){.lo = lo, .width = width, .bins = bins});
}

void k_moments(double out[4], const int64_t *count, double lo, double width, ptrdiff_t bins)
{
    pf_moments m = pf_cdf1d_moments(count, &(pf_grid){.lo = lo, .width = width, .bins = bins});
    out[0] = m.mean, out[1] = m.sd, out[2] = m.lower, out[3] = m.upper;
}

void k_fit(double *knots, const int64_t *count, double lo, double width, ptrdiff_t bins, ptrdiff_t m, ptrdiff_t edge,
           int kde, double bandwidth, double alpha_inside, double alpha_ends)
{
    pf_grid grid = {.lo = lo, .width = width, .bins = bins};
    pf_knots o = {.m = m, .edge = edge, .kde = kde, .bandwidth = bandwidth, .alpha = {alpha_inside, alpha_ends}};
    double *work = PF_ALLOC(double, 4 * bins);
    pf_cdf1d_fit(knots, count, &grid, &o, work);
    free(work);
}

double k_match(double *to, const int64_t *count, double lo, double width, ptrdiff_t bins, const int64_t *other,
               double other_lo, double other_width, ptrdiff_t other_bins)
{
    pf_grid grid = {.lo = lo, .width = width, .bins = bins};
    pf_grid other_grid = {.lo = other_lo, .width = other_width, .bins = other_bins};
    return pf_cdf1d_match(to, count, &grid, other, &other_grid);
}

void k_fit_match(double *knots, const int64_t *count, double lo, double width, ptrdiff_t bins, const int64_t *other,
                 double other_lo, double other_width, ptrdiff_t other_bins, ptrdiff_t m, ptrdiff_t edge,
                 double alpha_inside, double alpha_ends)
{
    pf_grid grid = {.lo = lo, .width = width, .bins = bins};
    pf_grid other_grid = {.lo = other_lo, .width = other_width, .bins = other_bins};
    pf_knots o = {.m = m, .edge = edge, .alpha = {alpha_inside, alpha_ends}};
    pf_cdf1d_fit_match(knots, count, &grid, other, &other_grid, &o);
}

int k_stiefel_random(double *a, ptrdiff_t k, ptrdiff_t d, uint64_t seed, uint64_t stream)
{
    return pf_stiefel_random(a, k, d, seed, stream);
}

void k_orthonormalise(double *a, ptrdiff_t k, ptrdiff_t d) { pf_stiefel_orthonormalise(a, k, d); }

typedef struct {
    double (*value)(const double *a);
    void (*gradient)(double *g, const double *a);
} callbacks;

static pf_status call_value(void *user, double *value, const double *a)
{
    *value = ((callbacks *)user)->value(a);
    return PF_OK;
}

static pf_status call_gradient(void *user, double *g, const double *a)
{
    ((callbacks *)user)->gradient(g, a);
    return PF_OK;
}

int k_stiefel_ascend(double *a, double *best, ptrdiff_t k, ptrdiff_t d, ptrdiff_t steps, double tolerance,
                     double (*value)(const double *), void (*gradient)(double *, const double *))
{
    callbacks user = {value, gradient};
    pf_slice_objective objective = {.value = call_value, .gradient = call_gradient, .user = &user};
    return pf_stiefel_ascend(a, best, k, d, steps, tolerance, &objective);
}

void k_rqs_theta(double *theta, const double *knots, ptrdiff_t m) { pf_rqs_theta(theta, knots, m); }

double k_column_constant(int kind, double a, double b)
{
    return pf_column_constant((pf_column){(pf_column_kind)kind, a, b});
}

#define TWICE "kernels.c"
#include "twice.h"
#pragma GCC visibility pop
#else

/* ---- histograms ---- */

void K(count)(int64_t *count, const real *v, const int64_t *weight, const int32_t *label, ptrdiff_t stride, double lo,
              double width, ptrdiff_t bins, ptrdiff_t n)
{
    X(cdf1d_count)(count, v, weight, label, stride, &(pf_grid){.lo = lo, .width = width, .bins = bins}, n);
}

void K(residual)(real *r, const real *v, const real *score, double lo, double width, ptrdiff_t bins, ptrdiff_t n)
{
    X(cdf1d_residual)(r, v, score, &(pf_grid){.lo = lo, .width = width, .bins = bins}, n);
}

/* ---- splines ---- */

/* The spline is made anew each time; theta[3 m]. */
static X(rqs) *K(spline)(const double *theta, ptrdiff_t m)
{
    X(rqs) *s = pf_alloc((ptrdiff_t)X(rqs_bytes)(1, m), 1);
    if (s) X(rqs_make)(s, theta, 1, m);
    return s;
}

/* knots[3][m]: x, y and slopes as they are stored */
void K(rqs_knots)(real *knots, const double *theta, ptrdiff_t m)
{
    X(rqs) *s = K(spline)(theta, m);
    for (ptrdiff_t j = 0; j < m; j++) {
        const real *bin = s->bin + (j + 1) * RQS_BIN;
        knots[j] = bin[RQS_X0], knots[m + j] = bin[RQS_Y0], knots[2 * m + j] = bin[RQS_P] * bin[RQS_S];
    }
    free(s);
}

void K(rqs_forward)(real *y, double *slope, const real *x, const double *theta, ptrdiff_t m, ptrdiff_t n)
{
    X(rqs) *s = K(spline)(theta, m);
    for (ptrdiff_t i = 0; i < n; i++) slope[i] = 1;
    X(rqs_forward)(y, slope, x, s, n);
    free(s);
}

void K(rqs_inverse)(real *x, double *slope, const real *y, const double *theta, ptrdiff_t m, ptrdiff_t n)
{
    X(rqs) *s = K(spline)(theta, m);
    for (ptrdiff_t i = 0; i < n; i++) slope[i] = 1;
    X(rqs_inverse)(x, slope, y, s, n);
    free(s);
}

void K(rqs_vjp)(real *g, double *gtheta, const double *gl, const real *x, const double *theta, ptrdiff_t m, ptrdiff_t n)
{
    X(rqs) *s = K(spline)(theta, m);
    X(rqs_vjp)(g, gtheta, gl, x, s, n);
    free(s);
}

/* ---- splines of every point's own: q[n][RQP_SIZE], and the gradient by it, as rqp.h has them turned; n whole steps
 * ---- */

static real *K(turned)(const real *q, ptrdiff_t rows, ptrdiff_t columns)
{
    real *to = PF_ALLOC(real, rows * columns);
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < columns; j++) to[j * rows + i] = q ? q[i * columns + j] : (real)NAN;
    return to;
}

void K(rqp_map)(real *y, real *log_slope, const real *x, const real *q, ptrdiff_t bins, int inverse, ptrdiff_t n)
{
    real *own = K(turned)(q, n, RQP_SIZE(bins));
    (inverse ? X(rqp_inverse) : X(rqp_forward))(y, log_slope, x, own, bins, n, n);
    free(own);
}

void K(rqp_vjp)(real *g, real *gq, const real *glog, const real *x, const real *q, ptrdiff_t bins, ptrdiff_t n)
{
    ptrdiff_t size = RQP_SIZE(bins);
    real *own = K(turned)(q, n, size), *gown = K(turned)(NULL, n, size);
    X(rqp_vjp)(g, gown, glog, x, own, bins, n, n);
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t j = 0; j < size; j++) gq[i * size + j] = gown[j * n + i];
    free(own);
    free(gown);
}

/* ---- column maps: slope and logj without the constant ---- */

void K(column_forward)(real *x, double *slope, double *logj, int kind, double a, double b, ptrdiff_t n)
{
    X(column_forward)(x, slope, logj, (pf_column){(pf_column_kind)kind, a, b}, n);
}

void K(column_inverse)(real *x, double *slope, double *logj, int kind, double a, double b, ptrdiff_t n)
{
    X(column_inverse)(x, slope, logj, (pf_column){(pf_column_kind)kind, a, b}, n);
}

void K(column_vjp)(real *g, const double *gl, const real *x, int kind, double a, double b, ptrdiff_t n)
{
    X(column_vjp)(g, gl, x, (pf_column){(pf_column_kind)kind, a, b}, n);
}
#endif
