/* The scale layer x <- (x - mean) / scale, one mean and one scale for all numbers: what fields enter a flow by. */
#ifndef real
#include "layers.h"

#define TWICE "scale.c"
#include "twice.h"
#else

typedef struct {
    X(layer) base;
    double mean, scale; /* > 0 */
} X(scale);

static void X(scale_destroy)(X(layer) *l) { free(l); }

pf_status X(scale_new)(X(layer) **l, double mean, double scale, ptrdiff_t d)
{
    X(scale) *s = PF_CALLOC(X(scale), 1);
    if (!s) return PF_NO_MEMORY;
    s->base = (X(layer)){.ops = &X(scale_ops), .d = d, .references = 1};
    s->mean = mean;
    s->scale = scale;
    *l = &s->base;
    return PF_OK;
}

int X(scale_centred)(const X(layer) *l) { return l->ops == &X(scale_ops) &&((const X(scale) *)l)->mean == 0; }

static pf_sizes X(scale_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    return (void)l, (void)n, (void)ld, (void)tables, (pf_sizes){0};
}

static void X(scale_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride, ptrdiff_t tables,
                             real *work)
{
    (void)l, (void)ready, (void)theta, (void)stride, (void)tables, (void)work;
}

/* Line by line of the tile, with what pads it */
static void X(scale_apply)(X(tile) *t, double scale, double shift)
{
    ptrdiff_t lines = t->layout == ROWS ? t->n : t->d, length = t->layout == ROWS ? t->d : tile_whole(t->n);
    for (ptrdiff_t i = 0; i < lines; i++)
        X(scale_shift)(t->x + i * t->ld, t->x + i * t->ld, (real)scale, (real)shift, length);
}

static void X(scale_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    const X(scale) *s = (const X(scale) *)l;
    (void)ready, (void)keep, (void)work;
    X(scale_apply)(t, 1 / s->scale, -s->mean / s->scale);
    for (ptrdiff_t i = 0; i < t->n; i++) logj[i] -= (double)l->d * log(s->scale);
}

static void X(scale_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    const X(scale) *s = (const X(scale) *)l;
    (void)ready, (void)work;
    X(scale_apply)(t, s->scale, s->mean);
    for (ptrdiff_t i = 0; i < t->n; i++) logj[i] += (double)l->d * log(s->scale);
}

static void X(scale_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                         const double *glogj, const real *keep, int want_x, real *work)
{
    (void)ready, (void)gtheta, (void)stride, (void)glogj, (void)keep, (void)work;
    if (want_x) X(scale_apply)(g, 1 / ((const X(scale) *)l)->scale, 0);
}

static void X(scale_write)(const X(layer) *l, pf_writer *w)
{
    const X(scale) *s = (const X(scale) *)l;
    pf_put(w, &s->mean, sizeof s->mean);
    pf_put(w, &s->scale, sizeof s->scale);
}

static pf_status X(scale_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    double mean, scale;
    (void)mesh, (void)classes;
    pf_get(r, &mean, sizeof mean);
    pf_get(r, &scale, sizeof scale);
    if (!r->status && !(isfinite(mean) && isfinite(scale) && isnormal((real)scale) && scale > 0))
        r->status = pf_fail(PF_BAD_FILE, "the file is damaged: a mean or scale makes no sense");
    return r->status ? r->status : X(scale_new)(l, mean, scale, space->d);
}

const X(layer_ops) X(scale_ops) = {
    .kind = "scale",
    .layout = ANY_LAYOUT,
    .sizes = X(scale_sizes),
    .prepare = X(scale_prepare),
    .forward = X(scale_forward),
    .inverse = X(scale_inverse),
    .vjp = X(scale_vjp),
    .write = X(scale_write),
    .read = X(scale_read),
    .destroy = X(scale_destroy),
};
#endif
