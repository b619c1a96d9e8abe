/* The boundary layer: columns that live on an interval or a half-line are mapped to the whole line.
 *
 *     lo < x < hi:  z = logit(u), u = (x - lo) / (hi - lo)
 *     lo < x:       z = softplus^-1(x - lo);   x < hi: z = -softplus^-1(hi - x)
 *
 * A point on a bound (or nearer than EDGE of the interval, or of 1) is taken to lie EDGE inside: its density is finite. */
#ifndef real
#include "layer.h"

static double softplus(double z) { return z > 0 ? z + log1p(exp(-z)) : log1p(exp(z)); }
static double softplus_inverse(double y) { return y + log(-expm1(-y)); }

/* z of one number, and log(dz/dx) added to *logj */
static double to_line(double x, const double bound[2], double edge, double *logj)
{
    double lo = bound[0], hi = bound[1];
    if (isfinite(lo) && isfinite(hi)) {
        double u = (x - lo) / (hi - lo);
        u = u < edge ? edge : u > 1 - edge ? 1 - edge : u;
        *logj -= log(u) + log1p(-u) + log(hi - lo);
        return log(u) - log1p(-u);
    }
    if (isinf(lo) && isinf(hi)) return x;
    double y = PF_MAX(isfinite(lo) ? x - lo : hi - x, edge), z = softplus_inverse(y);
    *logj -= log(-expm1(-y)); /* dy/dz = 1 - exp(-y) */
    return isfinite(lo) ? z : -z;
}

/* x of one number, and log(dx/dz) added to *logj */
static double from_line(double z, const double bound[2], double *logj)
{
    double lo = bound[0], hi = bound[1];
    if (isfinite(lo) && isfinite(hi)) {
        *logj += log(hi - lo) - softplus(z) - softplus(-z);
        double e = exp(-fabs(z)), small = e / (1 + e); /* measured from the nearer bound, so that rounding keeps inside */
        return z < 0 ? lo + (hi - lo) * small : hi - (hi - lo) * small;
    }
    if (isinf(lo) && isinf(hi)) return z;
    double s = isfinite(lo) ? z : -z, y = softplus(s);
    *logj -= softplus(-s);
    return isfinite(lo) ? lo + y : hi - y;
}

#define TWICE "bounds.c"
#include "twice.h"
#else

/* How near to a bound a number may be: about what the precision can still tell from the bound itself. */
#define EDGE (REAL_BITS == 32 ? 1e-6 : 1e-12)

typedef struct {
    X(layer) base;
    double *bounds; /* [d][2] */
} X(bounds);

const double *X(layer_bounds)(const X(layer) * l) { return l->ops == &X(bounds_ops) ? ((const X(bounds) *)l)->bounds : NULL; }

static void X(bounds_destroy)(X(layer) * l)
{
    free(((X(bounds) *)l)->bounds);
    free(l);
}

/* Takes over bounds, whatever happens. */
static pf_status X(bounds_make)(X(layer) * *l, double *bounds, ptrdiff_t d)
{
    X(bounds) *b = PF_CALLOC(X(bounds), 1);
    if (!b || !bounds) {
        free(b);
        free(bounds);
        return PF_NO_MEMORY;
    }
    b->base = (X(layer)){.ops = &X(bounds_ops), .d = d, .references = 1};
    b->bounds = bounds;
    *l = &b->base;
    return PF_OK;
}

pf_status X(bounds_new)(X(layer) * *l, const double *bounds, ptrdiff_t d)
{
    double *copy = PF_ALLOC(double, 2 * d);
    if (copy) memcpy(copy, bounds, (size_t)(2 * d) * sizeof *copy);
    return X(bounds_make)(l, copy, d);
}

static ptrdiff_t X(bounds_work)(const X(layer) * l, ptrdiff_t ld) { return (void)l, (void)ld, 0; }

static void X(bounds_forward)(const X(layer) * l, X(tile) * t, double *logj, real *work)
{
    const double *bounds = ((const X(bounds) *)l)->bounds;
    (void)work;
    for (ptrdiff_t j = 0; j < l->d; j++)
        for (ptrdiff_t i = 0; i < t->n; i++)
            t->x[j * t->ld + i] = (real)to_line(t->x[j * t->ld + i], bounds + 2 * j, EDGE, logj + i);
}

static void X(bounds_inverse)(const X(layer) * l, X(tile) * t, double *logj, real *work)
{
    const double *bounds = ((const X(bounds) *)l)->bounds;
    (void)work;
    for (ptrdiff_t j = 0; j < l->d; j++)
        for (ptrdiff_t i = 0; i < t->n; i++) {
            const double *b = bounds + 2 * j;
            real x = (real)from_line(t->x[j * t->ld + i], b, logj + i);
            t->x[j * t->ld + i] = x < b[0] ? (real)b[0] : x > b[1] ? (real)b[1] : x;
        }
}

/* For a finite interval log(dz/dx) = -log u - log(1-u) - ..., with one bound -log(1 - exp(-y)). */
static void X(bounds_vjp)(const X(layer) * l, X(tile) * g, double *gtheta, const double *glogj, const real *x, real *work)
{
    const double *bounds = ((const X(bounds) *)l)->bounds;
    (void)gtheta, (void)work;
    for (ptrdiff_t j = 0; j < l->d; j++) {
        double lo = bounds[2 * j], hi = bounds[2 * j + 1];
        if (isinf(lo) && isinf(hi)) continue;
        for (ptrdiff_t i = 0; i < g->n; i++) {
            double logj = 0, curve, v = x[j * g->ld + i];
            to_line(v, bounds + 2 * j, EDGE, &logj);
            if (isfinite(lo) && isfinite(hi)) {
                double u = (v - lo) / (hi - lo);
                u = u < EDGE ? EDGE : u > 1 - EDGE ? 1 - EDGE : u;
                curve = (1 / (1 - u) - 1 / u) / (hi - lo);
            } else {
                double y = PF_MAX(isfinite(lo) ? v - lo : hi - v, EDGE);
                curve = (isfinite(lo) ? -1 : 1) / expm1(y);
            }
            g->x[j * g->ld + i] = (real)(g->x[j * g->ld + i] * exp(logj) + glogj[i] * curve);
        }
    }
}

static ptrdiff_t X(bounds_n_theta)(const X(layer) * l) { return (void)l, 0; }

static void X(bounds_write)(const X(layer) * l, pf_writer *w)
{
    pf_put_array(w, ((const X(bounds) *)l)->bounds, 2 * l->d, sizeof(double));
}

static pf_status X(bounds_read)(X(layer) * *l, pf_reader *r, ptrdiff_t d, ptrdiff_t classes)
{
    (void)classes;
    double *bounds = pf_get_array(r, 2 * d, sizeof(double));
    for (ptrdiff_t j = 0; bounds && j < d; j++)
        if (!(bounds[2 * j] < bounds[2 * j + 1]) && !r->status)
            r->status = pf_fail(PF_BAD_FILE, "the file is damaged: bounds of column %td", j);
    if (r->status) {
        free(bounds);
        return r->status;
    }
    return X(bounds_make)(l, bounds, d);
}

const X(layer_ops) X(bounds_ops) = {
    .name = "bounds",
    .work = X(bounds_work),
    .forward = X(bounds_forward),
    .inverse = X(bounds_inverse),
    .vjp = X(bounds_vjp),
    .n_theta = X(bounds_n_theta),
    .write = X(bounds_write),
    .read = X(bounds_read),
    .destroy = X(bounds_destroy),
};
#undef EDGE
#endif
