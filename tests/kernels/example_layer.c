/* A worked example of a layer, complete: sinh-arcsinh (Jones & Pewsey 2009), which gives each column a skewness and
 * lighter or heavier tails. With s = arcsinh x and u = delta s - epsilon,
 *
 *     z = sinh u,    log dz/dx = log delta + log cosh u - log(1 + x^2) / 2
 *     x = sinh((arcsinh z + epsilon) / delta)
 *
 * theta[d][2] = log delta, epsilon: any two numbers make a map that rises, and zeros make the identity.
 *
 * This file is compiled and tested like the layers of the library (tests/python/layer_table.py). To become one of them,
 * a layer moves to csrc/, its example_new to layers.h, and its table of operations to X(layer_kinds) in flow.c, by
 * which files find the kind of a layer. */
#ifndef real
#include "example_layer.h"

/* Limits of log delta and epsilon: whatever theta holds, there is a map, and none that overflows at once. */
#define EXAMPLE_LOG_MOST 1.0
#define EXAMPLE_SHIFT_MOST 10.0

#define TWICE "example_layer.c" /* what follows is compiled once for float and once for double */
#include "twice.h"
#else

static const X(layer_ops) X(example_ops);

/* ---- the shape. This one has no sizes of its own: the base is all. ----------------------------------------- */

pf_status X(example_new)(X(layer) **l, ptrdiff_t d)
{
    if (d < 1) return pf_fail(PF_BAD_ARGUMENT, "d: %td columns", d);
    X(layer) *e = *l = PF_CALLOC(X(layer), 1);
    if (!e) return PF_NO_MEMORY;
    *e = (X(layer)){.ops = &X(example_ops), .d = d, .n_theta = 2 * d, .references = 1};
    return PF_OK;
}

static void X(example_destroy)(X(layer) *l) { free(l); }

/* ---- tables: delta[d], epsilon[d], log delta[d] in this precision ------------------------------------------ */

static pf_sizes X(example_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    (void)n, (void)tables;
    return (pf_sizes){.ready = (size_t)tile_whole(3 * l->d) * sizeof(real), .keep = l->d * ld};
}

static void X(example_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride, ptrdiff_t tables,
                               real *work)
{
    real *delta = ready, *epsilon = delta + l->d, *log_delta = epsilon + l->d;
    (void)stride, (void)tables, (void)work; /* not .conditional: one table */
    for (ptrdiff_t j = 0; j < l->d; j++) {
        double a = PF_MIN(PF_MAX(theta[2 * j], -EXAMPLE_LOG_MOST), EXAMPLE_LOG_MOST);
        double b = PF_MIN(PF_MAX(theta[2 * j + 1], -EXAMPLE_SHIFT_MOST), EXAMPLE_SHIFT_MOST);
        delta[j] = (real)exp(a);
        epsilon[j] = (real)b;
        log_delta[j] = (real)a;
    }
}

/* ---- maps. Column j of all points is t->x[j][ld]; a loop over points may as well run over what pads them. ---- */

/* log cosh u without overflow */
static real X(log_cosh)(real u) { return R(fabs)(u) + R(log1p)(R(exp)(-2 * R(fabs)(u))) - (real)M_LN2; }

/* log dz/dx at s = arcsinh x, where log(1 + x^2) / 2 = log cosh s */
static double X(log_slope)(real log_delta, real u, real s)
{
    return (double)(log_delta + X(log_cosh)(u) - X(log_cosh)(s));
}

static void X(example_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    const real *delta = ready, *epsilon = delta + l->d, *log_delta = epsilon + l->d;
    (void)work;
    if (keep) memcpy(keep, t->x, (size_t)(l->d * t->ld) * sizeof *keep); /* what vjp needs: x */
    for (ptrdiff_t j = 0; j < l->d; j++)
        for (ptrdiff_t i = 0; i < t->n; i++) {
            real *x = t->x + j * t->ld + i, s = R(asinh)(*x), u = delta[j] * s - epsilon[j];
            *x = R(sinh)(u);
            logj[i] += X(log_slope)(log_delta[j], u, s);
        }
}

static void X(example_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    const real *delta = ready, *epsilon = delta + l->d, *log_delta = epsilon + l->d;
    (void)work;
    for (ptrdiff_t j = 0; j < l->d; j++)
        for (ptrdiff_t i = 0; i < t->n; i++) {
            real *x = t->x + j * t->ld + i, u = R(asinh)(*x), s = (u + epsilon[j]) / delta[j];
            *x = R(sinh)(s);
            logj[i] -= X(log_slope)(log_delta[j], u, s);
        }
}

/* g = dL/dz becomes dL/dx. With what u does to the loss, h = g cosh u + glogj tanh u, and dx/ds = cosh s,
 *
 *     dL/dx = (h delta - glogj tanh s) / cosh s,   dL/dlog delta = h delta s + glogj,   dL/depsilon = -h
 *
 * as if the limits of theta were not there: from beyond them training can come back. */
static void X(example_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                           const double *glogj, const real *keep, int want_x, real *work)
{
    const real *delta = ready, *epsilon = delta + l->d;
    (void)stride, (void)want_x, (void)work;
    for (ptrdiff_t j = 0; j < l->d; j++) {
        double sums[2] = {0}; /* over points, in their order, in double */
        for (ptrdiff_t i = 0; i < g->n; i++) {
            real *gx = g->x + j * g->ld + i, x = keep[j * g->ld + i], gl = (real)glogj[i];
            real s = R(asinh)(x), u = delta[j] * s - epsilon[j];
            real h = *gx * R(cosh)(u) + gl * R(tanh)(u);
            sums[0] += (double)(h * delta[j] * s + gl);
            sums[1] -= (double)h;
            *gx = (h * delta[j] - gl * R(tanh)(s)) / R(cosh)(s);
        }
        for (int p = 0; p < 2 && gtheta; p++) gtheta[2 * j + p] += sums[p];
    }
}

/* ---- files: the shape alone, here nothing beyond d, which is the space's. Theta is the flow's to write. -------- */

static void X(example_write)(const X(layer) *l, pf_writer *w) { (void)l, (void)w; }

static pf_status X(example_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    (void)mesh, (void)classes;
    return r->status ? r->status : X(example_new)(l, space->d);
}

static const X(layer_ops) X(example_ops) = {
    .kind = "example",
    .layout = COLUMNS,
    .sizes = X(example_sizes),
    .prepare = X(example_prepare),
    .forward = X(example_forward),
    .inverse = X(example_inverse),
    .vjp = X(example_vjp),
    .write = X(example_write),
    .read = X(example_read),
    .destroy = X(example_destroy),
};
#endif
