/* The affine layer x <- W (x - mean), log|det W| the same for every row: whitening. */
#ifndef real
#include "blas.h"
#include "layer.h"

#define TWICE "affine.c"
#include "twice.h"
#else

typedef struct {
    X(layer) base;
    double log_det;
    real *w, *inverse, *mean; /* [d][d], [d][d], [d] */
} X(affine);

static void X(affine_destroy)(X(layer) *l)
{
    X(affine) *a = (X(affine) *)l;
    free(a->w);
    free(a->inverse);
    free(a->mean);
    free(a);
}

pf_status X(affine_new)(X(layer) **l, const double *w, const double *inverse, const double *mean, double log_det,
                        ptrdiff_t d)
{
    X(affine) *a = PF_CALLOC(X(affine), 1);
    if (!a) return PF_NO_MEMORY;
    a->base = (X(layer)){.ops = &X(affine_ops), .d = d, .references = 1};
    a->log_det = log_det;
    a->w = PF_ALLOC(real, d * d), a->inverse = PF_ALLOC(real, d * d), a->mean = PF_ALLOC(real, d);
    if (!a->w || !a->inverse || !a->mean) {
        X(affine_destroy)(&a->base);
        return PF_NO_MEMORY;
    }
    for (ptrdiff_t i = 0; i < d * d; i++) a->w[i] = (real)w[i], a->inverse[i] = (real)inverse[i];
    for (ptrdiff_t i = 0; i < d; i++) a->mean[i] = (real)mean[i];
    *l = &a->base;
    return PF_OK;
}

static ptrdiff_t X(affine_work)(const X(layer) *l, ptrdiff_t ld) { return l->d * ld; }

static void X(shift)(real *x, const real *mean, real sign, ptrdiff_t d, ptrdiff_t ld)
{
    for (ptrdiff_t j = 0; j < d; j++)
        for (ptrdiff_t i = 0; i < ld; i++) x[j * ld + i] += sign * mean[j];
}

static void X(multiply)(X(tile) *t, const real *w, int transposed, ptrdiff_t d, real *work)
{
    memcpy(work, t->x, (size_t)(d * t->ld) * sizeof(real));
    X(gemm)(t->x, w, work, transposed, 0, 0, d, tile_whole(t->n), d, t->ld, d, t->ld);
}

static void X(affine_forward)(const X(layer) *l, X(tile) *t, double *logj, real *work)
{
    const X(affine) *a = (const X(affine) *)l;
    X(shift)(t->x, a->mean, -1, l->d, t->ld);
    X(multiply)(t, a->w, 0, l->d, work);
    for (ptrdiff_t i = 0; i < t->n; i++) logj[i] += a->log_det;
}

static void X(affine_inverse)(const X(layer) *l, X(tile) *t, double *logj, real *work)
{
    const X(affine) *a = (const X(affine) *)l;
    X(multiply)(t, a->inverse, 0, l->d, work);
    X(shift)(t->x, a->mean, 1, l->d, t->ld);
    for (ptrdiff_t i = 0; i < t->n; i++) logj[i] -= a->log_det;
}

/* dL/dx = W^T g; dL/dW = g (x - mean)^T + (sum glogj) W^-T; dL/dmean = -sum W^T g */
static void X(affine_vjp)(const X(layer) *l, X(tile) *g, double *gtheta, const double *glogj, const real *x, real *work)
{
    const X(affine) *a = (const X(affine) *)l;
    ptrdiff_t d = l->d, ld = g->ld;
    double sum_glogj = 0;
    for (ptrdiff_t i = 0; i < g->n; i++) sum_glogj += glogj[i];
    for (ptrdiff_t r = 0; gtheta && r < d; r++)
        for (ptrdiff_t c = 0; c < d; c++) {
            double sum = sum_glogj * a->inverse[c * d + r];
            for (ptrdiff_t i = 0; i < g->n; i++) sum += (double)g->x[r * ld + i] * (x[c * ld + i] - a->mean[c]);
            gtheta[r * d + c] += sum;
        }
    X(multiply)(g, a->w, 1, d, work);
    for (ptrdiff_t c = 0; gtheta && c < d; c++)
        for (ptrdiff_t i = 0; i < g->n; i++) gtheta[d * d + c] -= g->x[c * ld + i];
}

static ptrdiff_t X(affine_n_theta)(const X(layer) *l) { return l->d * l->d + l->d; }

static void X(affine_write)(const X(layer) *l, pf_writer *w)
{
    const X(affine) *a = (const X(affine) *)l;
    pf_put(w, &a->log_det, sizeof a->log_det);
    pf_put_array(w, a->w, l->d * l->d, sizeof(real));
    pf_put_array(w, a->inverse, l->d * l->d, sizeof(real));
    pf_put_array(w, a->mean, l->d, sizeof(real));
}

static pf_status X(affine_read)(X(layer) **l, pf_reader *r, ptrdiff_t d, ptrdiff_t classes)
{
    (void)classes;
    X(affine) *a = PF_CALLOC(X(affine), 1);
    if (!a) return PF_NO_MEMORY;
    a->base = (X(layer)){.ops = &X(affine_ops), .d = d, .references = 1};
    pf_get(r, &a->log_det, sizeof a->log_det);
    a->w = pf_get_array(r, d * d, sizeof(real));
    a->inverse = pf_get_array(r, d * d, sizeof(real));
    a->mean = pf_get_array(r, d, sizeof(real));
    int finite = isfinite(a->log_det) != 0;
    for (ptrdiff_t i = 0; !r->status && i < d * d; i++) finite &= isfinite(a->w[i]) && isfinite(a->inverse[i]);
    for (ptrdiff_t i = 0; !r->status && i < d; i++) finite &= isfinite(a->mean[i]) != 0;
    if (!r->status && !finite) r->status = pf_fail(PF_BAD_FILE, "the file is damaged: an affine map is not finite");
    if (r->status) {
        X(affine_destroy)(&a->base);
        return r->status;
    }
    *l = &a->base;
    return PF_OK;
}

const X(layer_ops) X(affine_ops) = {
    .name = "affine",
    .work = X(affine_work),
    .forward = X(affine_forward),
    .inverse = X(affine_inverse),
    .vjp = X(affine_vjp),
    .n_theta = X(affine_n_theta),
    .write = X(affine_write),
    .read = X(affine_read),
    .destroy = X(affine_destroy),
};
#endif
