/* The affine layer x <- W (x - mean), log|det W| the same for every point: whitening. theta = W[d][d], mean[d]. */
#ifndef real
#include "blas.h"
#include "layers.h"

#define TWICE "affine.c"
#include "twice.h"
#else

/* The tables: log|det W| in a double, then W, W^-1 [d][d] and mean [d] as reals. A W without an inverse has log|det| =
 * -inf and density zero. */
typedef struct {
    double *log_det;
    real *w, *inverse, *mean;
} X(affine_ready);

static X(affine_ready) X(affine_view)(const X(layer) *l, const void *ready)
{
    char *at = (char *)ready + 64;
    ptrdiff_t square = tile_whole(l->d * l->d);
    return (X(affine_ready)){
        .log_det = (double *)ready, .w = (real *)at, .inverse = (real *)at + square, .mean = (real *)at + 2 * square};
}

static void X(affine_destroy)(X(layer) *l) { free(l); }

pf_status X(affine_new)(X(layer) **l, ptrdiff_t d)
{
    X(layer) *a = PF_CALLOC(X(layer), 1);
    if (!a) return PF_NO_MEMORY;
    *a = (X(layer)){.ops = &X(affine_ops), .d = d, .n_theta = d * d + d, .references = 1};
    *l = a;
    return PF_OK;
}

static pf_sizes X(affine_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    ptrdiff_t d = l->d;
    (void)n, (void)tables;
    return (pf_sizes){
        .ready = 64 + (size_t)(2 * tile_whole(d * d) + tile_whole(d)) * sizeof(real),
        .keep = d * ld,
        /* of a product; or of the inverse, in double */
        .work = PF_MAX(d * ld, (d * d + 2 * d) * (ptrdiff_t)(sizeof(double) / sizeof(real))),
    };
}

static void X(affine_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride, ptrdiff_t tables,
                              real *work)
{
    ptrdiff_t d = l->d;
    X(affine_ready) a = X(affine_view)(l, ready);
    double *inverse = (double *)work;
    (void)stride, (void)tables;
    memcpy(inverse, theta, (size_t)(d * d) * sizeof *inverse);
    *a.log_det = pf_inverse(inverse, d, inverse + d * d);
    for (ptrdiff_t i = 0; i < d * d; i++) a.w[i] = (real)theta[i], a.inverse[i] = (real)inverse[i];
    for (ptrdiff_t i = 0; i < d; i++) a.mean[i] = (real)theta[d * d + i];
}

static void X(shift)(X(tile) *t, const real *mean, real sign)
{
    for (ptrdiff_t j = 0; j < t->d; j++)
        for (ptrdiff_t i = 0; i < t->ld; i++) t->x[j * t->ld + i] += sign * mean[j];
}

/* x <- W x, or W^T x */
static void X(multiply)(X(tile) *t, const real *w, int transposed, real *work)
{
    ptrdiff_t d = t->d;
    memcpy(work, t->x, (size_t)(d * t->ld) * sizeof(real));
    X(tile_product)(t->x, w, work, 0, d, tile_whole(t->n), d, transposed ? 1 : d, transposed ? d : 1, t->ld, t->ld);
}

static void X(affine_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    X(affine_ready) a = X(affine_view)(l, ready);
    X(shift)(t, a.mean, -1);
    if (keep) memcpy(keep, t->x, (size_t)(l->d * t->ld) * sizeof *keep); /* x - mean */
    X(multiply)(t, a.w, 0, work);
    for (ptrdiff_t i = 0; i < t->n; i++) logj[i] += *a.log_det;
}

static void X(affine_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    X(affine_ready) a = X(affine_view)(l, ready);
    X(multiply)(t, a.inverse, 0, work);
    X(shift)(t, a.mean, 1);
    for (ptrdiff_t i = 0; i < t->n; i++) logj[i] -= *a.log_det;
}

/* dL/dx = W^T g; dL/dW = g (x - mean)^T + (sum glogj) W^-T; dL/dmean = -sum W^T g */
static void X(affine_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                          const double *glogj, const real *keep, int want_x, real *work)
{
    X(affine_ready) a = X(affine_view)(l, ready);
    ptrdiff_t d = l->d;
    double sum = 0;
    (void)stride;
    for (ptrdiff_t i = 0; i < g->n; i++) sum += glogj[i];
    if (gtheta) {
        X(tile_outer)(gtheta, g->x, keep, d, d, g->n, g->ld, g->ld);
        for (ptrdiff_t r = 0; r < d; r++)
            for (ptrdiff_t c = 0; c < d; c++) gtheta[r * d + c] += sum * (double)a.inverse[c * d + r];
    }
    if (!gtheta && !want_x) return;
    X(multiply)(g, a.w, 1, work);
    for (ptrdiff_t c = 0; gtheta && c < d; c++)
        for (ptrdiff_t i = 0; i < g->n; i++) gtheta[d * d + c] -= (double)g->x[c * g->ld + i];
}

static void X(affine_write)(const X(layer) *l, pf_writer *w) { (void)l, (void)w; }

static pf_status X(affine_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    (void)mesh, (void)classes;
    /* W is in the file's theta: a size that is not there is not allocated */
    if ((size_t)(space->d * space->d) > r->whole / sizeof(double))
        return pf_fail(PF_BAD_FILE, "the file is damaged: an affine map is missing");
    return X(affine_new)(l, space->d);
}

const X(layer_ops) X(affine_ops) = {
    .kind = "affine",
    .layout = COLUMNS,
    .sizes = X(affine_sizes),
    .prepare = X(affine_prepare),
    .forward = X(affine_forward),
    .inverse = X(affine_inverse),
    .vjp = X(affine_vjp),
    .write = X(affine_write),
    .read = X(affine_read),
    .destroy = X(affine_destroy),
};
#endif
