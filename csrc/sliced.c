/* The sliced layer (Dai & Seljak 2021, Eq. 11): x <- x + A (Psi(A^T x) - A^T x), A in R^(d x K) with orthonormal
 * columns. Only the K slices move, and log|det| = sum_k log Psi_k'(a_k^T x). With A = I every column is a slice: the
 * first layer of a naive-Bayes start. With labels, the slices are shared and each class has its own splines. */
#ifndef real
#include "blas.h"
#include "layer.h"
#include "model.h"

#define TWICE "sliced.c"
#include "twice.h"
#else

typedef struct {
    X(layer) base;
    ptrdiff_t k, m, classes;
    real *slices;    /* [K][d], or NULL: A = I */
    real *knots;     /* [classes][K][3][M] */
    X(rqs) *splines; /* [classes][K], made from the knots */
} X(sliced);

static void X(sliced_destroy)(X(layer) *l)
{
    X(sliced) *s = (X(sliced) *)l;
    free(s->slices);
    free(s->knots);
    free(s->splines);
    free(s);
}

/* Takes over slices and knots, whatever happens. */
static pf_status X(sliced_make)(X(layer) **l, real *slices, real *knots, ptrdiff_t d, ptrdiff_t k, ptrdiff_t m,
                                ptrdiff_t classes)
{
    X(sliced) *s = PF_CALLOC(X(sliced), 1);
    X(rqs) *splines = s && knots ? X(rqs_new)(knots, classes * k, m) : NULL;
    if (!splines) {
        free(s);
        free(slices);
        free(knots);
        return s ? PF_BAD_ARGUMENT : PF_NO_MEMORY;
    }
    s->base = (X(layer)){.ops = &X(sliced_ops), .d = d, .references = 1};
    s->k = k, s->m = m, s->classes = classes;
    s->slices = slices, s->knots = knots, s->splines = splines;
    *l = &s->base;
    return PF_OK;
}

static real *X(duplicate)(const real *a, ptrdiff_t n)
{
    real *copy = PF_ALLOC(real, n);
    if (copy) memcpy(copy, a, (size_t)n * sizeof *a);
    return copy;
}

pf_status X(sliced_new)(X(layer) **l, const real *slices, const real *knots, ptrdiff_t d, ptrdiff_t k, ptrdiff_t m,
                        ptrdiff_t classes)
{
    real *a = slices ? X(duplicate)(slices, k * d) : NULL, *b = X(duplicate)(knots, classes * k * 3 * m);
    if ((slices && !a) || !b) {
        free(a);
        free(b);
        return PF_NO_MEMORY;
    }
    return X(sliced_make)(l, a, b, d, k, m, classes);
}

/* ---- a slice's spline on a tile, class by class ----------------------------------------------------------- */

typedef void X(spline_map)(real *, double *, const real *, const X(rqs) *, ptrdiff_t);

static void X(apply)(X(spline_map) *map, real *out, double *slope, const real *in, const X(sliced) *s, ptrdiff_t k,
                     const int32_t *label, ptrdiff_t n)
{
    if (s->classes == 1) {
        map(out, slope, in, s->splines + k, n);
        return;
    }
    real class_in[TILE_MOST], class_out[TILE_MOST];
    double class_slope[TILE_MOST];
    for (ptrdiff_t c = 0; c < s->classes; c++) {
        ptrdiff_t members = 0;
        for (ptrdiff_t i = 0; i < n; i++)
            if (label[i] == c) class_in[members] = in[i], class_slope[members++] = slope[i];
        map(class_out, class_slope, class_in, s->splines + c * s->k + k, members);
        members = 0;
        for (ptrdiff_t i = 0; i < n; i++)
            if (label[i] == c) out[i] = class_out[members], slope[i] = class_slope[members++];
    }
}

/* ---- forward and inverse: the same but for the spline's direction ----------------------------------------- */

static ptrdiff_t X(sliced_work)(const X(layer) *l, ptrdiff_t ld) { return 2 * ((const X(sliced) *)l)->k * ld; }

static void X(sliced_map)(const X(sliced) *s, X(tile) *t, double *logj, real *work, X(spline_map) *map, double sign)
{
    ptrdiff_t k = s->k, d = s->base.d, ld = t->ld, whole = tile_whole(t->n);
    real *p = s->slices ? work : t->x, *moved = work + k * ld; /* [K][ld] */
    double slope[TILE_MOST];
    for (ptrdiff_t i = 0; i < t->n; i++) slope[i] = 1;
    if (s->slices) X(gemm)(p, s->slices, t->x, 0, 0, 0, k, whole, d, ld, d, ld);
    for (ptrdiff_t j = 0; j < k; j++) {
        real *pj = p + j * ld, *mj = moved + j * ld;
        X(apply)(map, mj, slope, pj, s, j, t->label, t->n);
        if (s->slices)
            for (ptrdiff_t i = 0; i < whole; i++) mj[i] = i < t->n ? mj[i] - pj[i] : 0;
        else memcpy(pj, mj, (size_t)t->n * sizeof *pj);
        if (j % RQS_LOG_EVERY == RQS_LOG_EVERY - 1 || j == k - 1) pf_log_slopes(logj, slope, sign, t->n);
    }
    if (s->slices) X(gemm)(t->x, s->slices, moved, 1, 0, 1, d, whole, k, ld, d, ld);
}

static void X(sliced_forward)(const X(layer) *l, X(tile) *t, double *logj, real *work)
{
    X(sliced_map)((const X(sliced) *)l, t, logj, work, X(rqs_forward), 1);
}

static void X(sliced_inverse)(const X(layer) *l, X(tile) *t, double *logj, real *work)
{
    X(sliced_map)((const X(sliced) *)l, t, logj, work, X(rqs_inverse), -1);
}

/* ---- vector-Jacobian product ---------------------------------------------------------------------------------------
 * With p = A^T x, D = Psi(p) - p, h = A^T g: dL/dp = h (Psi' - 1) + glogj (log Psi')' and
 *     dL/dx = g + A dL/dp,   dL/dA = x dL/dp^T + g D^T,   dL/dknots through h and glogj. */

static void X(knots_vjp)(double *gknots, const real *h, const double *glogj, const real *p, const X(sliced) *s,
                         ptrdiff_t k, const int32_t *label, ptrdiff_t n)
{
    real class_h[TILE_MOST], class_p[TILE_MOST];
    double class_g[TILE_MOST];
    for (ptrdiff_t c = 0; c < s->classes; c++) {
        ptrdiff_t members = 0;
        for (ptrdiff_t i = 0; i < n; i++)
            if (s->classes == 1 || label[i] == c)
                class_h[members] = h[i], class_p[members] = p[i], class_g[members++] = glogj[i];
        X(rqs_vjp_knots)(gknots + (c * s->k + k) * 3 * s->m, class_h, class_g, class_p, s->splines + c * s->k + k, s->m,
                         members);
    }
}

/* dL/dp of one slice without the identity's part: h <- h Psi' + glogj (log Psi')' */
static void X(slice_vjp)(real *h, const double *glogj, const real *p, const X(sliced) *s, ptrdiff_t k,
                         const int32_t *label, ptrdiff_t n)
{
    if (s->classes == 1) {
        X(rqs_vjp)(h, glogj, p, s->splines + k, n);
        return;
    }
    real class_h[TILE_MOST], class_p[TILE_MOST];
    double class_g[TILE_MOST];
    for (ptrdiff_t c = 0; c < s->classes; c++) {
        ptrdiff_t members = 0;
        for (ptrdiff_t i = 0; i < n; i++)
            if (label[i] == c) class_h[members] = h[i], class_p[members] = p[i], class_g[members++] = glogj[i];
        X(rqs_vjp)(class_h, class_g, class_p, s->splines + c * s->k + k, members);
        members = 0;
        for (ptrdiff_t i = 0; i < n; i++)
            if (label[i] == c) h[i] = class_h[members++];
    }
}

static void X(sliced_vjp)(const X(layer) *l, X(tile) *g, double *gtheta, const double *glogj, const real *x, real *work)
{
    const X(sliced) *s = (const X(sliced) *)l;
    ptrdiff_t k = s->k, d = s->base.d, m = s->m, ld = g->ld, n = g->n, whole = tile_whole(n);
    double *gslices = gtheta && s->slices ? gtheta + s->classes * k * 3 * m : NULL; /* [K][d] */
    if (!s->slices) {
        for (ptrdiff_t j = 0; j < k; j++) {
            if (gtheta) X(knots_vjp)(gtheta, g->x + j * ld, glogj, x + j * ld, s, j, g->label, n);
            X(slice_vjp)(g->x + j * ld, glogj, x + j * ld, s, j, g->label, n);
        }
        return;
    }
    real *p = work, *h = work + k * ld; /* [K][ld] */
    real identity[TILE_MOST];
    X(gemm)(p, s->slices, x, 0, 0, 0, k, whole, d, ld, d, ld);
    X(gemm)(h, s->slices, g->x, 0, 0, 0, k, whole, d, ld, d, ld);
    for (ptrdiff_t j = 0; j < k; j++) {
        real *pj = p + j * ld, *hj = h + j * ld;
        memcpy(identity, hj, (size_t)whole * sizeof *hj);
        if (gtheta) X(knots_vjp)(gtheta, hj, glogj, pj, s, j, g->label, n);
        X(slice_vjp)(hj, glogj, pj, s, j, g->label, n);
        for (ptrdiff_t i = 0; i < whole; i++) hj[i] = i < n ? hj[i] - identity[i] : 0;
        if (gslices) {
            double slope[TILE_MOST] = {0};
            real moved[TILE_MOST];
            X(apply)(X(rqs_forward), moved, slope, pj, s, j, g->label, n);
            for (ptrdiff_t c = 0; c < d; c++) {
                double sum = 0;
                for (ptrdiff_t i = 0; i < n; i++)
                    sum += (double)x[c * ld + i] * hj[i] + (double)g->x[c * ld + i] * (moved[i] - pj[i]);
                gslices[j * d + c] += sum;
            }
        }
    }
    X(gemm)(g->x, s->slices, h, 1, 0, 1, d, whole, k, ld, d, ld);
}

static ptrdiff_t X(sliced_n_theta)(const X(layer) *l)
{
    const X(sliced) *s = (const X(sliced) *)l;
    return s->classes * s->k * 3 * s->m + (s->slices ? s->k * l->d : 0);
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static void X(sliced_write)(const X(layer) *l, pf_writer *w)
{
    const X(sliced) *s = (const X(sliced) *)l;
    pf_put_int(w, s->slices != NULL);
    pf_put_int(w, s->k);
    pf_put_int(w, s->m);
    pf_put_int(w, s->classes);
    if (s->slices) pf_put_array(w, s->slices, s->k * l->d, sizeof(real));
    pf_put_array(w, s->knots, s->classes * s->k * 3 * s->m, sizeof(real));
}

static pf_status X(sliced_read)(X(layer) **l, pf_reader *r, ptrdiff_t d, ptrdiff_t classes)
{
    int has_slices = (int)pf_get_int(r, 0, 1);
    ptrdiff_t k = pf_get_int(r, has_slices ? 1 : d, d), m = pf_get_int(r, 2, 65535);
    ptrdiff_t own_classes = pf_get_int(r, classes, classes);
    if ((double)own_classes * (double)k * (double)m > (double)r->n) /* else the products below might overflow */
        r->status = pf_fail(PF_BAD_FILE, "the file is damaged: splines are missing");
    if (r->status) return r->status;
    real *slices = has_slices ? pf_get_array(r, k * d, sizeof(real)) : NULL;
    real *knots = pf_get_array(r, own_classes * k * 3 * m, sizeof(real));
    int finite = 1;
    for (ptrdiff_t i = 0; slices && i < k * d; i++) finite &= isfinite(slices[i]) != 0;
    if (!finite && !r->status) r->status = pf_fail(PF_BAD_FILE, "the file is damaged: a slice is not finite");
    if (r->status) {
        free(slices);
        free(knots);
        return r->status;
    }
    pf_status status = X(sliced_make)(l, slices, knots, d, k, m, own_classes);
    return status == PF_BAD_ARGUMENT ? PF_BAD_FILE : status;
}

ptrdiff_t X(model_layer_slices)(const X(model) *model, ptrdiff_t i)
{
    const X(layer) *l = model->layers[i];
    return l->ops == &X(sliced_ops) ? ((const X(sliced) *)l)->k : 0;
}

const real *X(sliced_slices)(const X(layer) *l)
{
    return l->ops == &X(sliced_ops) ? ((const X(sliced) *)l)->slices : NULL;
}

const X(layer_ops) X(sliced_ops) = {
    .name = "sliced",
    .work = X(sliced_work),
    .forward = X(sliced_forward),
    .inverse = X(sliced_inverse),
    .vjp = X(sliced_vjp),
    .n_theta = X(sliced_n_theta),
    .write = X(sliced_write),
    .read = X(sliced_read),
    .destroy = X(sliced_destroy),
};
#endif
