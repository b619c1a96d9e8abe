/* The coupling layer: large scales and small ones of a field move each other, which no convolution followed by a
 * function of every pixel can do. One side of |k| = split k_max stays, and of the other
 *
 *     x <- x + sum_j F^-1 C_j(|k|) F phi(u_j), u_j = F^-1 A_j(|k|) F x, phi(u) = sqrt(1 + u^2) - 1,
 *
 * A_j being 0 on the side that moves and C_j on the one that stays: an additive coupling (Dinh, Krueger & Bengio 2014,
 * arXiv 1410.8516) between bands of modes, equivariant under translations and rotations, with log|det| = 0, whose
 * inverse subtracts. phi is even, as gravity's lowest order is: small scales that are stronger where there is more
 * matter, and modes that beat. The mean, k = 0, neither moves nor tells.
 *
 * theta[channels][2][knots]: A_j and C_j at knots that stand evenly along their side. */
#ifndef real
#include "cspline.h"
#include "layers.h"

#define FAR 0x1p30f /* of either precision */

#define TWICE "coupling.c"
#include "twice.h"
#else

/* ---- the shape -------------------------------------------------------------------------------------------- */

typedef struct {
    X(layer) base;
    X(mesh) *mesh;
    double split; /* of k_max */
    int large;    /* whether the large scales move */
    ptrdiff_t channels, knots;
    ptrdiff_t end[2][2]; /* shells of A's side, of C's: from the first to before the last */
    double position[2][COUPLING_KNOTS];
    ptrdiff_t padded, spectrum; /* reals of a field, of its spectrum, rounded up so that arrays are aligned */
} X(coupling);

static void X(coupling_destroy)(X(layer) *l)
{
    X(mesh_release)(((X(coupling) *)l)->mesh);
    free(l);
}

/* Which shells lie below and above the split, but for k = 0, and where the knots of each side are */
static pf_status X(sides)(X(coupling) *c)
{
    const double *k = c->mesh->k;
    ptrdiff_t shells = c->mesh->filter->shells, at = 1;
    while (at < shells && k[at] <= c->split) at++;
    if (at <= 1 || at >= shells)
        return pf_fail(PF_BAD_ARGUMENT, "couplings: no mode of the mesh lies %s split, %g of its largest |k|%s",
                       at <= 1 ? "below" : "above", c->split, at <= 1 ? ": the mesh is too small" : "");
    for (int side = 0; side < 2; side++) { /* of A, of C */
        int low = side == c->large;
        c->end[side][0] = low ? 1 : at;
        c->end[side][1] = low ? at : shells;
        double from = low ? 0 : c->split, to = low ? c->split : 1;
        for (ptrdiff_t j = 0; j < c->knots; j++) {
            c->position[side][j] = from + (to - from) * (double)j / (double)(c->knots - 1);
            if (j && !(c->position[side][j] > c->position[side][j - 1]))
                return pf_fail(PF_BAD_ARGUMENT, "split: %g leaves no room for %td knots", c->split, c->knots);
        }
    }
    return PF_OK;
}

pf_status X(coupling_new)(X(layer) **l, X(mesh) *mesh, double split, int large, ptrdiff_t channels, ptrdiff_t knots)
{
    if (!mesh) return pf_fail(PF_BAD_ARGUMENT, "coupling layers are for fields on a mesh of 2 or 3 dimensions");
    if (!(split > 0 && split < 1)) return pf_fail(PF_BAD_ARGUMENT, "split: %g is not between 0 and 1", split);
    if (channels < 1 || channels > COUPLING_CHANNELS)
        return pf_fail(PF_BAD_ARGUMENT, "channels: %td is not between 1 and %d", channels, COUPLING_CHANNELS);
    if (knots < 2 || knots > COUPLING_KNOTS)
        return pf_fail(PF_BAD_ARGUMENT, "knots: %td is not between 2 and %d", knots, COUPLING_KNOTS);
    X(coupling) *c = PF_CALLOC(X(coupling), 1);
    if (!c) return PF_NO_MEMORY;
    c->base = (X(layer)){.ops = &X(coupling_ops), .d = mesh->space.d, .n_theta = 2 * channels * knots, .references = 1};
    c->mesh = X(mesh_share)(mesh);
    c->split = split;
    c->large = !!large;
    c->channels = channels;
    c->knots = knots;
    c->padded = tile_whole(mesh->space.d);
    c->spectrum = tile_whole(mesh->filter->fft->spectrum);
    pf_status status = X(sides)(c);
    if (status) X(coupling_destroy)(&c->base);
    else *l = &c->base;
    return status;
}

/* C = 0; A_j a bump around a shell, as far from those of the others as there are shells and knots for, such that white
 * noise makes u_j of unit variance */
void X(coupling_start)(double *theta, const X(layer) *l)
{
    const X(coupling) *c = (const X(coupling) *)l;
    const X(filter) *f = c->mesh->filter;
    const double *k = c->mesh->k, *p = c->position[0], range = p[c->knots - 1] - p[0];
    double width = range / (double)PF_MIN(c->channels, c->knots - 1);
    memset(theta, 0, (size_t)l->n_theta * sizeof(double));
    for (ptrdiff_t i = 0; i < c->channels; i++, theta += 2 * c->knots) {
        double middle = p[0] + ((double)i + 0.5) / (double)c->channels * range, sum = 0;
        ptrdiff_t near = c->end[0][0];
        for (ptrdiff_t s = near; s < c->end[0][1]; s++)
            if (fabs(k[s] - middle) < fabs(k[near] - middle)) near = s;
        for (ptrdiff_t j = 0; j < c->knots; j++) theta[j] = exp(-0.5 * pow((p[j] - k[near]) / width, 2));
        for (ptrdiff_t s = c->end[0][0]; s < c->end[0][1]; s++) {
            double a;
            pf_cspline(&a, k + s, p, theta, c->knots, 1);
            sum += f->modes[s] * a * a / (double)l->d;
        }
        for (ptrdiff_t j = 0; j < c->knots; j++) theta[j] /= sqrt(sum);
    }
}

/* ---- tables: [channels][A, C][shells] --------------------------------------------------------------------- */

static size_t X(coupling_table)(const X(coupling) *c)
{
    return (size_t)(2 * c->channels * tile_whole(c->mesh->filter->shells)) * sizeof(real);
}

/* A_j of point i, or of the table that all share; C_j follows tile_whole(shells) later */
static const real *X(coupling_filters)(const X(coupling) *c, const void *ready, ptrdiff_t i, ptrdiff_t tables,
                                       ptrdiff_t j)
{
    const char *at = (const char *)ready + (tables > 1 ? (size_t)i * X(coupling_table)(c) : 0);
    return (const real *)at + 2 * j * tile_whole(c->mesh->filter->shells);
}

/* keep: the spectrum of x, then of each channel u and the spectrum of phi(u) */
static ptrdiff_t X(kept)(const X(coupling) *c) { return c->spectrum + c->channels * (c->padded + c->spectrum); }

static pf_sizes X(coupling_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    const X(coupling) *c = (const X(coupling) *)l;
    ptrdiff_t doubles = sizeof(double) / sizeof(real);
    (void)ld;
    return (pf_sizes){
        .ready = (size_t)tables * X(coupling_table)(c),
        .keep = n * X(kept)(c),
        /* three spectra, a field, the filter's scratch; doubles: [shells], [knots] */
        .work = 3 * c->spectrum + c->padded + tile_whole(c->mesh->filter->work) +
                (tile_whole(c->mesh->filter->shells) + tile_whole(c->knots)) * doubles,
    };
}

typedef struct {
    real *x, *sum, *one, *field, *scratch;
    double *shells, *knots;
} X(coupling_room);

static X(coupling_room) X(coupling_work)(const X(coupling) *c, real *work)
{
    X(coupling_room) r = {.x = work};
    r.sum = r.x + c->spectrum;
    r.one = r.sum + c->spectrum;
    r.field = r.one + c->spectrum;
    r.scratch = r.field + c->padded;
    r.shells = (double *)(r.scratch + tile_whole(c->mesh->filter->work));
    r.knots = r.shells + tile_whole(c->mesh->filter->shells);
    return r;
}

static void X(coupling_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride, ptrdiff_t tables,
                                real *work)
{
    const X(coupling) *c = (const X(coupling) *)l;
    ptrdiff_t shells = c->mesh->filter->shells;
    double *value = X(coupling_work)(c, work).shells;
    for (ptrdiff_t i = 0; i < tables; i++)
        for (ptrdiff_t j = 0; j < 2 * c->channels; j++) {
            real *to = (real *)X(coupling_filters)(c, ready, i, tables, 0) + j * tile_whole(shells);
            const ptrdiff_t *end = c->end[j % 2];
            pf_cspline(value, c->mesh->k, c->position[j % 2], theta + i * stride + j * c->knots, c->knots, shells);
            for (ptrdiff_t s = 0; s < shells; s++) to[s] = s >= end[0] && s < end[1] ? (real)value[s] : 0;
        }
}

/* ---- maps ------------------------------------------------------------------------------------------------- */

/* q[n] = phi(u). u^2 would overflow: beyond FAR, where 1 / 2u is less than rounds it, phi is straight. */
PF_KERNEL void X(phi_body)(real *q, const real *u, ptrdiff_t n)
{
#pragma GCC ivdep /* q may be u */
    for (ptrdiff_t i = 0; i < n; i++) {
        real size = R(fabs)(u[i]), near = size < FAR ? size : FAR;
        q[i] = R(sqrt)(1 + near * near) - 1 + (size - near);
    }
}
PF_DISPATCH(X(phi), (real * q, const real *u, ptrdiff_t n), (q, u, n))

/* g[n] *= phi'(u) */
PF_KERNEL void X(phi_vjp_body)(real *restrict g, const real *restrict u, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        real near = u[i] < -FAR ? -FAR : u[i] < FAR ? u[i] : FAR;
        g[i] *= near / R(sqrt)(1 + near * near);
    }
}
PF_DISPATCH(X(phi_vjp), (real * g, const real *u, ptrdiff_t n), (g, u, n))

/* y += sign u */
PF_KERNEL void X(add_field_body)(real *restrict y, const real *restrict u, real sign, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) y[i] += sign * u[i];
}
PF_DISPATCH(X(add_field), (real * y, const real *u, real sign, ptrdiff_t n), (y, u, sign, n))

/* One of these over a field: threads share a large one, as they do its transforms. */
typedef struct {
    void (*map)(real *, const real *, ptrdiff_t); /* NULL: add_field */
    real *y, sign;
    const real *u;
    ptrdiff_t n, parts;
} X(pixels);

static void X(some_pixels)(void *arg, ptrdiff_t part, int thread)
{
    const X(pixels) *p = arg;
    ptrdiff_t first = part * p->n / p->parts, n = (part + 1) * p->n / p->parts - first;
    (void)thread;
    if (p->map) p->map(p->y + first, p->u + first, n);
    else X(add_field)(p->y + first, p->u + first, p->sign, n);
}

static void X(each_pixel)(const X(coupling) *c, X(pixels) p)
{
    p.n = c->base.d;
    p.parts = c->mesh->filter->fft->shares;
    if (p.parts == 1) X(some_pixels)(&p, 0, 0);
    else pf_parallel_kernel(p.parts, X(some_pixels), &p);
}

/* x += sign times what the side that stays makes of the other */
static void X(couple)(const X(layer) *l, const void *ready, X(tile) *t, real sign, real *keep, real *work)
{
    const X(coupling) *c = (const X(coupling) *)l;
    const X(filter) *f = c->mesh->filter;
    ptrdiff_t shells = tile_whole(f->shells);
    X(coupling_room) r = X(coupling_work)(c, work);
    for (ptrdiff_t i = 0; i < t->n; i++) {
        real *x = t->x + i * t->ld, *kept = keep ? keep + i * X(kept)(c) : NULL, *of_x = kept ? kept : r.x;
        X(fft_forward)(f->fft, of_x, x, r.scratch);
        for (ptrdiff_t j = 0; j < c->channels; j++) {
            const real *a = X(coupling_filters)(c, ready, i, t->tables, j);
            real *u = kept ? kept + c->spectrum + j * (c->padded + c->spectrum) : r.field;
            real *of_q = kept ? u + c->padded : r.one;
            X(filter_modes)(f, r.one, of_x, a, 0, r.scratch);
            X(fft_inverse)(f->fft, u, r.one, r.scratch);
            X(each_pixel)(c, (X(pixels)){.map = X(phi), .y = r.field, .u = u});
            X(fft_forward)(f->fft, of_q, r.field, r.scratch);
            X(filter_modes)(f, r.sum, of_q, a + shells, j > 0, r.scratch);
        }
        X(fft_inverse)(f->fft, r.field, r.sum, r.scratch);
        X(each_pixel)(c, (X(pixels)){.y = x, .u = r.field, .sign = sign});
    }
}

static void X(coupling_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    (void)logj;
    X(couple)(l, ready, t, 1, keep, work);
}

static void X(coupling_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    (void)logj;
    X(couple)(l, ready, t, -1, NULL, work);
}

/* gtheta[knots] += through the spline, of the shells of a side. It is linear in its values: what they are is the same */
static void X(side_vjp)(double *gtheta, const X(coupling) *c, int side, X(coupling_room) *r)
{
    const ptrdiff_t *end = c->end[side];
    for (ptrdiff_t j = 0; j < c->knots; j++) r->knots[j] = 0;
    pf_cspline_vjp(r->knots, gtheta, r->shells + end[0], c->mesh->k + end[0], c->position[side], c->position[side],
                   c->knots, end[1] - end[0]);
}

/* With G = F g: dL/dC_j = Re(Q* G) / pixels, w_j = phi'(u_j) F^-1 C_j G, dL/dA_j = Re(X* W_j) / pixels, and dL/dx = g +
 * sum_j F^-1 A_j W_j */
static void X(coupling_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                            const double *glogj, const real *keep, int want_x, real *work)
{
    const X(coupling) *c = (const X(coupling) *)l;
    const X(filter) *f = c->mesh->filter;
    ptrdiff_t shells = tile_whole(f->shells);
    X(coupling_room) r = X(coupling_work)(c, work);
    (void)glogj;
    for (ptrdiff_t i = 0; i < g->n; i++) {
        real *x = g->x + i * g->ld;
        const real *of_x = keep + i * X(kept)(c);
        double *to = gtheta ? gtheta + (g->tables > 1 ? i * stride : 0) : NULL;
        X(fft_forward)(f->fft, r.x, x, r.scratch);
        for (ptrdiff_t j = 0; j < c->channels; j++) {
            const real *a = X(coupling_filters)(c, ready, i, g->tables, j);
            const real *u = of_x + c->spectrum + j * (c->padded + c->spectrum);
            double *of_a = to ? to + 2 * j * c->knots : NULL;
            if (to) {
                memset(r.shells, 0, (size_t)f->shells * sizeof(double));
                X(filter_products)(f, r.shells, u + c->padded, r.x, r.scratch);
                X(side_vjp)(of_a + c->knots, c, 1, &r);
            }
            X(filter_modes)(f, r.one, r.x, a + shells, 0, r.scratch);
            X(fft_inverse)(f->fft, r.field, r.one, r.scratch);
            X(each_pixel)(c, (X(pixels)){.map = X(phi_vjp), .y = r.field, .u = u});
            X(fft_forward)(f->fft, r.one, r.field, r.scratch);
            if (to) {
                memset(r.shells, 0, (size_t)f->shells * sizeof(double));
                X(filter_products)(f, r.shells, of_x, r.one, r.scratch);
                X(side_vjp)(of_a, c, 0, &r);
            }
            X(filter_modes)(f, r.sum, r.one, a, j > 0, r.scratch);
        }
        if (!want_x) continue;
        X(fft_inverse)(f->fft, r.field, r.sum, r.scratch);
        X(each_pixel)(c, (X(pixels)){.y = x, .u = r.field, .sign = 1});
    }
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static void X(coupling_write)(const X(layer) *l, pf_writer *w)
{
    const X(coupling) *c = (const X(coupling) *)l;
    pf_put(w, &c->split, sizeof c->split);
    pf_put_int(w, c->large);
    pf_put_int(w, c->channels);
    pf_put_int(w, c->knots);
}

static pf_status X(coupling_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    double split = 0;
    (void)space, (void)classes;
    pf_get(r, &split, sizeof split);
    int large = (int)pf_get_int(r, 0, 1);
    ptrdiff_t channels = pf_get_int(r, 1, COUPLING_CHANNELS), knots = pf_get_int(r, 2, COUPLING_KNOTS);
    PF_TRY(r->status);
    pf_status status = X(coupling_new)(l, mesh, split, large, channels, knots);
    return r->status = status == PF_BAD_ARGUMENT ? PF_BAD_FILE : status;
}

const X(layer_ops) X(coupling_ops) = {
    .kind = "coupling",
    .layout = ROWS,
    .conditional = 1,
    .sizes = X(coupling_sizes),
    .prepare = X(coupling_prepare),
    .forward = X(coupling_forward),
    .inverse = X(coupling_inverse),
    .vjp = X(coupling_vjp),
    .write = X(coupling_write),
    .read = X(coupling_read),
    .destroy = X(coupling_destroy),
};
#endif
