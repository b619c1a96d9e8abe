/* The column layer, the first of a model: each column on its own, by a fixed map, to the whole line and to a size
 * near 1.
 *
 *     LINEAR         z = (x - a) / b
 *     ASINH          z = asinh((x - a) / b)             heavy tails: a power law becomes exponential
 *     LOGIT          z = logit(u), u = (x - a) / (b - a)  a < x < b
 *     ABOVE, BELOW   z = +-softplus^-1(y), y = +-(x - a) / b,  y > 0
 *
 * A point on a bound (or nearer to it than EDGE) is taken to lie EDGE inside: its density is finite. */
#ifndef real
#include "layers.h"

static double softplus(double z) { return z > 0 ? z + log1p(exp(-z)) : log1p(exp(z)); }
static double softplus_inverse(double y) { return y + log(-expm1(-y)); }

/* z(x), with log(dz/dx) and its derivative with respect to x */
static double to_line(double x, pf_column c, double edge, double *log_slope, double *curve)
{
    double y, u, root;
    switch (c.kind) {
    case PF_ASINH:
        y = (x - c.a) / c.b, root = 1 + y * y;
        *log_slope = -0.5 * log(root) - log(c.b);
        *curve = -y / (root * c.b);
        return asinh(y);
    case PF_LOGIT:
        u = (x - c.a) / (c.b - c.a);
        u = u < edge ? edge : u > 1 - edge ? 1 - edge : u;
        *log_slope = -(log(u) + log1p(-u) + log(c.b - c.a));
        *curve = (1 / (1 - u) - 1 / u) / (c.b - c.a);
        return log(u) - log1p(-u);
    case PF_ABOVE:
    case PF_BELOW:
        y = PF_MAX((c.kind == PF_ABOVE ? x - c.a : c.a - x) / c.b, edge);
        *log_slope = -log(-expm1(-y)) - log(c.b); /* dy/dz = 1 - exp(-y) */
        *curve = (c.kind == PF_ABOVE ? -1 : 1) / (expm1(y) * c.b);
        return c.kind == PF_ABOVE ? softplus_inverse(y) : -softplus_inverse(y);
    default:
        *log_slope = -log(c.b);
        *curve = 0;
        return (x - c.a) / c.b;
    }
}

/* x(z), with log(dx/dz) */
static double from_line(double z, pf_column c, double *log_slope)
{
    double s, e, y;
    switch (c.kind) {
    case PF_ASINH:
        *log_slope = fabs(z) + log1p(exp(-2 * fabs(z))) - M_LN2 + log(c.b); /* log cosh */
        return c.a + c.b * sinh(z);
    case PF_LOGIT:
        *log_slope = log(c.b - c.a) - softplus(z) - softplus(-z);
        e = exp(-fabs(z)); /* measured from the nearer bound, so that rounding keeps inside */
        return z < 0 ? c.a + (c.b - c.a) * (e / (1 + e)) : c.b - (c.b - c.a) * (e / (1 + e));
    case PF_ABOVE:
    case PF_BELOW:
        s = c.kind == PF_ABOVE ? z : -z, y = c.b * softplus(s);
        *log_slope = log(c.b) - softplus(-s);
        return c.kind == PF_ABOVE ? c.a + y : c.a - y;
    default: *log_slope = log(c.b); return c.a + c.b * z;
    }
}

void pf_column_range(double range[2], pf_column c)
{
    range[0] = c.kind == PF_LOGIT || c.kind == PF_ABOVE ? c.a : -INFINITY;
    range[1] = c.kind == PF_LOGIT ? c.b : c.kind == PF_BELOW ? c.a : INFINITY;
}

#define TWICE "columns.c"
#include "twice.h"
#else

/* How near to a bound a number may be: about what the precision can still tell from the bound itself. */
#define EDGE (REAL_BITS == 32 ? 1e-6 : 1e-12)

typedef struct {
    X(layer) base;
    pf_column *column;  /* [d] */
    double (*range)[2]; /* [d], in this precision */
} X(columns);

const double *X(layer_bounds)(const X(layer) *l)
{
    return l->ops == &X(columns_ops) ? ((const X(columns) *)l)->range[0] : NULL;
}

static void X(columns_destroy)(X(layer) *l)
{
    free(((X(columns) *)l)->column);
    free(((X(columns) *)l)->range);
    free(l);
}

pf_status X(columns_new)(X(layer) **l, const pf_column *column, ptrdiff_t d)
{
    X(columns) *c = PF_CALLOC(X(columns), 1);
    if (!c) return PF_NO_MEMORY;
    c->base = (X(layer)){.ops = &X(columns_ops), .d = d, .references = 1};
    c->column = PF_ALLOC(pf_column, d);
    c->range = pf_alloc(d, sizeof *c->range);
    if (!c->column || !c->range) {
        X(columns_destroy)(&c->base);
        return PF_NO_MEMORY;
    }
    for (ptrdiff_t j = 0; j < d; j++) {
        c->column[j] = column[j];
        pf_column_range(c->range[j], column[j]);
        for (int side = 0; side < 2; side++)
            c->range[j][side] = (real)c->range[j][side]; /* numbers on a bound are rounded */
    }
    *l = &c->base;
    return PF_OK;
}

static pf_sizes X(columns_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    (void)n, (void)tables;
    return (pf_sizes){.keep = l->d * ld};
}

static void X(columns_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride, ptrdiff_t tables,
                               real *work)
{
    (void)l, (void)ready, (void)theta, (void)stride, (void)tables, (void)work;
}

static void X(columns_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    const X(columns) *c = (const X(columns) *)l;
    double log_slope, curve;
    (void)ready, (void)work;
    if (keep) memcpy(keep, t->x, (size_t)(l->d * t->ld) * sizeof *keep);
    for (ptrdiff_t j = 0; j < l->d; j++)
        for (ptrdiff_t i = 0; i < t->n; i++) {
            t->x[j * t->ld + i] = (real)to_line(t->x[j * t->ld + i], c->column[j], EDGE, &log_slope, &curve);
            logj[i] += log_slope;
        }
}

static void X(columns_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    const X(columns) *c = (const X(columns) *)l;
    double log_slope;
    (void)ready, (void)work;
    for (ptrdiff_t j = 0; j < l->d; j++)
        for (ptrdiff_t i = 0; i < t->n; i++) {
            real x = (real)from_line(t->x[j * t->ld + i], c->column[j], &log_slope);
            real lo = (real)c->range[j][0], hi = (real)c->range[j][1];
            t->x[j * t->ld + i] = x < lo ? lo : x > hi ? hi : x;
            logj[i] += log_slope;
        }
}

static void X(columns_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                           const double *glogj, const real *keep, int want_x, real *work)
{
    const X(columns) *c = (const X(columns) *)l;
    double log_slope, curve;
    (void)ready, (void)gtheta, (void)stride, (void)work;
    for (ptrdiff_t j = 0; j < l->d && want_x; j++)
        for (ptrdiff_t i = 0; i < g->n; i++) {
            real *gx = &g->x[j * g->ld + i];
            to_line(keep[j * g->ld + i], c->column[j], EDGE, &log_slope, &curve);
            *gx = (real)(*gx * exp(log_slope) + glogj[i] * curve);
        }
}

static void X(columns_write)(const X(layer) *l, pf_writer *w)
{
    const X(columns) *c = (const X(columns) *)l;
    for (ptrdiff_t j = 0; j < l->d; j++) {
        pf_put_int(w, c->column[j].kind);
        pf_put(w, &c->column[j].a, sizeof(double));
        pf_put(w, &c->column[j].b, sizeof(double));
    }
}

static pf_status X(columns_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    ptrdiff_t d = space->d;
    (void)mesh, (void)classes;
    /* each column takes 24 bytes: a size that is not there is not allocated */
    if ((r->n - r->at) / 24 < (size_t)d) return pf_fail(PF_BAD_FILE, "the file is damaged: columns are missing");
    pf_column *column = PF_ALLOC(pf_column, d);
    if (!column) return PF_NO_MEMORY;
    for (ptrdiff_t j = 0; j < d; j++) {
        column[j].kind = (pf_column_kind)pf_get_int(r, PF_LINEAR, PF_BELOW);
        pf_get(r, &column[j].a, sizeof(double));
        pf_get(r, &column[j].b, sizeof(double));
        double least = column[j].kind == PF_LOGIT ? column[j].a : 0;
        if (!r->status && !(isfinite(column[j].a) && isfinite(column[j].b) && column[j].b > least))
            r->status = pf_fail(PF_BAD_FILE, "the file is damaged: column %td", j);
    }
    pf_status status = r->status ? r->status : X(columns_new)(l, column, d);
    free(column);
    return status;
}

const X(layer_ops) X(columns_ops) = {
    .kind = "columns",
    .layout = COLUMNS,
    .sizes = X(columns_sizes),
    .prepare = X(columns_prepare),
    .forward = X(columns_forward),
    .inverse = X(columns_inverse),
    .vjp = X(columns_vjp),
    .write = X(columns_write),
    .read = X(columns_read),
    .destroy = X(columns_destroy),
};
#undef EDGE
#endif
