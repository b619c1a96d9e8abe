/* The column layer, the first of a flow: each column on its own, by a fixed map (column.h). */
#ifndef real
#include "layers.h"
#include "rqs.h"

#define TWICE "columns.c"
#include "twice.h"
#else

typedef struct {
    X(layer) base;
    pf_column *column;  /* [d] */
    double (*range)[2]; /* [d], in this precision */
    double constant;    /* what is the same of log|det| for all rows */
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
        c->constant += pf_column_constant(column[j]);
        X(column_range)(c->range[j], column[j]);
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

typedef void X(column_map)(real *, double *, double *, pf_column, ptrdiff_t);

static void X(columns_map)(const X(columns) *c, X(tile) *t, double *logj, X(column_map) *map, double sign)
{
    ptrdiff_t d = c->base.d;
    double slope[TILE_MOST];
    for (ptrdiff_t i = 0; i < t->n; i++) slope[i] = 1, logj[i] += sign * c->constant;
    for (ptrdiff_t j = 0, curved = 0; j < d; j++) {
        map(t->x + j * t->ld, slope, logj, c->column[j], t->n);
        curved += c->column[j].kind != PF_LINEAR;
        if (curved == RQS_LOG_EVERY || (curved && j == d - 1)) {
            pf_log_slopes(logj, slope, 1, t->n);
            curved = 0;
        }
    }
}

static void X(columns_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    (void)ready, (void)work;
    if (keep) memcpy(keep, t->x, (size_t)(l->d * t->ld) * sizeof *keep);
    X(columns_map)((const X(columns) *)l, t, logj, X(column_forward), 1);
}

static void X(columns_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    (void)ready, (void)work;
    X(columns_map)((const X(columns) *)l, t, logj, X(column_inverse), -1);
}

static void X(columns_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                           const double *glogj, const real *keep, int want_x, real *work)
{
    const X(columns) *c = (const X(columns) *)l;
    (void)ready, (void)gtheta, (void)stride, (void)work;
    for (ptrdiff_t j = 0; j < l->d && want_x; j++)
        X(column_vjp)(g->x + j * g->ld, glogj, keep + j * g->ld, c->column[j], g->n);
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
#endif
