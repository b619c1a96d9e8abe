/* Flat wrappers of the core's kernels, so that the Python tests reach them through ctypes: k32_name and k64_name.
 * Nothing here computes. tests/python/ckernels.py builds and loads it. */
#ifndef real
#include "cdf1d.h"
#include "kernels.h"
#include "model.h"
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

uint64_t k_uniform_int(uint64_t key, uint64_t stream, uint64_t i, uint64_t bound)
{
    return pf_uniform_int(key, stream, i, bound);
}

void k_normal_quantile(double *z, const double *p, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) z[i] = pf_normal_quantile(p[i]);
}

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

/* The spline is made anew each time; non-zero when its knots are refused. */
int K(rqs_forward)(real *y, double *slope, const real *x, const real *knots, ptrdiff_t m, ptrdiff_t n)
{
    X(rqs) *s = X(rqs_new)(knots, 1, m);
    if (!s) return 1;
    for (ptrdiff_t i = 0; i < n; i++) slope[i] = 1;
    X(rqs_forward)(y, slope, x, s, n);
    free(s);
    return 0;
}

int K(rqs_inverse)(real *x, double *slope, const real *y, const real *knots, ptrdiff_t m, ptrdiff_t n)
{
    X(rqs) *s = X(rqs_new)(knots, 1, m);
    if (!s) return 1;
    for (ptrdiff_t i = 0; i < n; i++) slope[i] = 1;
    X(rqs_inverse)(x, slope, y, s, n);
    free(s);
    return 0;
}

/* ---- layers: x[n][d] in and out, tile by tile ---- */

X(layer) *K(sliced)(const real *slices, const real *knots, ptrdiff_t d, ptrdiff_t k, ptrdiff_t m, ptrdiff_t classes)
{
    X(layer) *l = NULL;
    return X(sliced_new)(&l, slices, knots, d, k, m, classes) ? NULL : l;
}

X(layer) *K(affine)(const double *w, const double *inverse, const double *mean, double log_det, ptrdiff_t d)
{
    X(layer) *l = NULL;
    return X(affine_new)(&l, w, inverse, mean, log_det, d) ? NULL : l;
}

X(layer) *K(columns)(const int32_t *kind, const double *a, const double *b, ptrdiff_t d)
{
    X(layer) *l = NULL;
    pf_column *column = PF_ALLOC(pf_column, d);
    for (ptrdiff_t j = 0; j < d; j++) column[j] = (pf_column){(pf_column_kind)kind[j], a[j], b[j]};
    if (X(columns_new)(&l, column, d)) l = NULL;
    free(column);
    return l;
}

void K(release)(X(layer) *l) { X(layer_release)(l); }
ptrdiff_t K(n_theta)(const X(layer) *l) { return l->ops->n_theta(l); }

/* logj[n] += */
void K(map)(const X(layer) *l, real *x, double *logj, const int32_t *label, int inverse, ptrdiff_t n)
{
    ptrdiff_t d = l->d, rows = X(tile_rows)(d);
    real *memory = PF_ALLOC(real, d * rows + l->ops->work(l, rows));
    for (ptrdiff_t i = 0; i < n; i += rows) {
        X(tile) t = {.x = memory, .label = label ? label + i : NULL, .n = PF_MIN(rows, n - i), .ld = rows};
        X(tile_load)(&t, x + i * d, d);
        (inverse ? l->ops->inverse : l->ops->forward)(l, &t, logj + i, memory + d * rows);
        X(tile_store)(x + i * d, &t, d);
    }
    free(memory);
}

/* g[n][d]: dL/df, then dL/dx; gtheta += or NULL */
void K(vjp)(const X(layer) *l, real *g, double *gtheta, const double *glogj, const real *x, const int32_t *label,
            ptrdiff_t n)
{
    ptrdiff_t d = l->d, rows = X(tile_rows)(d);
    real *memory = PF_ALLOC(real, 2 * d * rows + l->ops->work(l, rows));
    for (ptrdiff_t i = 0; i < n; i += rows) {
        X(tile) t = {.x = memory, .label = label ? label + i : NULL, .n = PF_MIN(rows, n - i), .ld = rows}, at = t;
        at.x = memory + d * rows;
        X(tile_load)(&t, g + i * d, d);
        X(tile_load)(&at, x + i * d, d);
        l->ops->vjp(l, &t, gtheta, glogj + i, at.x, memory + 2 * d * rows);
        X(tile_store)(g + i * d, &t, d);
    }
    free(memory);
}

/* ---- a model of these layers, which it shares ---- */

X(model) *K(model)(X(layer) **layers, ptrdiff_t n_layers, ptrdiff_t d, int classes)
{
    X(model) *model;
    const double history[HISTORY] = {0};
    if (X(model_new)(&model, d, classes)) return NULL;
    for (ptrdiff_t i = 0; i < n_layers; i++) X(model_append)(model, X(layer_share)(layers[i]), history);
    return model;
}

void K(model_free)(X(model) *model) { X(model_free)(model); }

int K(model_forward)(const X(model) *model, real *z, double *logj, const real *x, const int32_t *label, ptrdiff_t n)
{
    return X(model_forward)(model, z, logj, x, label, n);
}

int K(model_score)(const X(model) *model, real *score, double *logp, const real *x, const int32_t *label, ptrdiff_t n)
{
    return X(model_score)(model, score, logp, x, label, n);
}
#endif
