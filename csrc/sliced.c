/* The sliced layer (Dai & Seljak 2021, Eq. 11): x <- x + A (Psi(A^T x) - A^T x), A in R^(d x K) with orthonormal
 * columns. Only the K slices move, and log|det| = sum_k log Psi_k'(a_k^T x). With A = I every column is a slice: the
 * first layer of a naive-Bayes start. With labels, the slices are shared and each class has its own splines.
 *
 * theta: the splines' [classes][K][3 M] (rqs.h), then, unless A = I, the slices A^T [K][d], which live on the Stiefel
 * manifold: gradients are projected onto its tangent space, steps retracted onto it. */
#ifndef real
#include "blas.h"
#include "layers.h"
#include "rqs.h"
#include "stiefel.h"

/* The points of a tile class by class: order[start[r]] to order[start[r + 1]] are those of class[r]. */
typedef struct {
    ptrdiff_t runs;
    int32_t class[TILE_MOST];
    ptrdiff_t start[TILE_MOST + 1], order[TILE_MOST];
} by_class;

static void sort_by_class(by_class *c, const int32_t *label, ptrdiff_t n, ptrdiff_t classes)
{
    ptrdiff_t before[TILE_MOST + 1] = {0};
    if (classes <= TILE_MOST) {
        for (ptrdiff_t i = 0; i < n; i++) before[label[i] + 1]++;
        for (ptrdiff_t k = 0; k < classes; k++) before[k + 1] += before[k];
        for (ptrdiff_t i = 0; i < n; i++) c->order[before[label[i]]++] = i;
    } else {
        for (ptrdiff_t i = 0; i < n; i++) {
            ptrdiff_t j = i;
            for (; j > 0 && label[c->order[j - 1]] > label[i]; j--) c->order[j] = c->order[j - 1];
            c->order[j] = i;
        }
    }
    c->runs = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        if (i && label[c->order[i]] == label[c->order[i - 1]]) continue;
        c->class[c->runs] = label[c->order[i]];
        c->start[c->runs++] = i;
    }
    c->start[c->runs] = n;
}

#define TWICE "sliced.c"
#include "twice.h"
#else

typedef struct {
    X(layer) base;
    ptrdiff_t k, m, classes;
    int identity; /* A = I */
} X(sliced);

static void X(sliced_destroy)(X(layer) *l) { free(l); }

pf_status X(sliced_new)(X(layer) **l, ptrdiff_t d, ptrdiff_t k, ptrdiff_t m, ptrdiff_t classes)
{
    if (k < 0 || k > d) return pf_fail(PF_BAD_ARGUMENT, "n_slices: %td is not between 1 and %td", k, d);
    if (m < 2 || m > 65535) return pf_fail(PF_BAD_ARGUMENT, "n_knots: %td is not between 2 and 65535", m);
    double numbers = (double)classes * (double)(k ? k : d) * 3 * (double)m + (double)k * (double)d;
    if (numbers > (double)(PTRDIFF_MAX / 1024)) return pf_fail(PF_NO_MEMORY, "out of memory: %.3g parameters", numbers);
    X(sliced) *s = PF_CALLOC(X(sliced), 1);
    if (!s) return PF_NO_MEMORY;
    s->identity = !k;
    s->k = k ? k : d;
    s->m = m;
    s->classes = classes;
    s->base = (X(layer)){.ops = &X(sliced_ops),
                         .d = d,
                         .n_theta = classes * s->k * 3 * m + (s->identity ? 0 : s->k * d),
                         .references = 1};
    *l = &s->base;
    return PF_OK;
}

ptrdiff_t X(layer_slices)(const X(layer) *l)
{
    if (l->ops == &X(patch_ops)) l = X(patch_inner)(l);
    return l->ops == &X(sliced_ops) ? ((const X(sliced) *)l)->k : 0;
}

int X(sliced_identity)(const X(layer) *l) { return ((const X(sliced) *)l)->identity; }

/* ---- tables: the splines, then the slices in this precision ----------------------------------------------- */

static ptrdiff_t X(splines)(const X(sliced) *s) { return s->classes * s->k; }

static real *X(slices)(const X(sliced) *s, const void *ready)
{
    return s->identity ? NULL : (real *)((char *)ready + X(rqs_bytes)(X(splines)(s), s->m));
}

/* keep: x [d][ld], and of the slices p = A^T x and Psi(p) - p [K][ld]; work: [2][K][ld] */
static pf_sizes X(sliced_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    const X(sliced) *s = (const X(sliced) *)l;
    (void)n, (void)tables;
    return (pf_sizes){
        .ready = X(rqs_bytes)(X(splines)(s), s->m) + (s->identity ? 0 : (size_t)tile_whole(s->k * l->d) * sizeof(real)),
        .keep = (l->d + (s->identity ? 0 : 2 * s->k)) * ld,
        .work = 2 * s->k * ld,
    };
}

static void X(sliced_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride, ptrdiff_t tables,
                              real *work)
{
    const X(sliced) *s = (const X(sliced) *)l;
    real *slices = X(slices)(s, ready);
    (void)stride, (void)tables, (void)work;
    X(rqs_make)(ready, theta, X(splines)(s), s->m);
    theta += X(splines)(s) * 3 * s->m;
    for (ptrdiff_t i = 0; slices && i < s->k * l->d; i++) slices[i] = (real)theta[i];
}

/* ---- forward and inverse: the same but for the spline's direction ----------------------------------------- */

typedef void X(spline_map)(real *, double *, const real *, const X(rqs) *, ptrdiff_t);

/* The spline of slice k, on a tile's numbers, class by class: out[n], slope[n] *= */
static void X(apply)(X(spline_map) *map, real *out, double *slope, const real *in, const X(rqs) *splines,
                     const X(sliced) *s, ptrdiff_t k, const by_class *c, ptrdiff_t n)
{
    if (!c) {
        map(out, slope, in, splines + k, n);
        return;
    }
    real from[TILE_MOST], to[TILE_MOST];
    double part[TILE_MOST];
    for (ptrdiff_t i = 0; i < n; i++) from[i] = in[c->order[i]], part[i] = slope[c->order[i]];
    for (ptrdiff_t r = 0; r < c->runs; r++) {
        ptrdiff_t at = c->start[r];
        map(to + at, part + at, from + at, splines + c->class[r] * s -> k + k, c -> start[r + 1] - at);
    }
    for (ptrdiff_t i = 0; i < n; i++) out[c->order[i]] = to[i], slope[c->order[i]] = part[i];
}

static void X(project)(real *p, const X(sliced) *s, const real *slices, const real *x, ptrdiff_t whole, ptrdiff_t ld)
{
    ptrdiff_t d = s->base.d;
    X(tile_product)(p, slices, x, 0, s->k, whole, d, d, 1, ld, ld);
}

/* x += A moved */
static void X(back)(real *x, const X(sliced) *s, const real *slices, const real *moved, ptrdiff_t whole, ptrdiff_t ld)
{
    ptrdiff_t d = s->base.d;
    X(tile_product)(x, slices, moved, 1, d, whole, s->k, 1, d, ld, ld);
}

static void X(sliced_map)(const X(sliced) *s, const void *ready, X(tile) *t, double *logj, real *keep, real *work,
                          X(spline_map) *map, double sign)
{
    ptrdiff_t k = s->k, d = s->base.d, ld = t->ld, whole = tile_whole(t->n);
    const real *slices = X(slices)(s, ready);
    real *p = slices ? keep ? keep + d * ld : work : t->x, *moved = slices && keep ? p + k * ld : work + k * ld;
    double slope[TILE_MOST];
    by_class sorted, *c = s->classes > 1 ? &sorted : NULL;
    if (c) sort_by_class(c, t->label, t->n, s->classes);
    if (keep) memcpy(keep, t->x, (size_t)(d * ld) * sizeof *keep);
    for (ptrdiff_t i = 0; i < t->n; i++) slope[i] = 1;
    if (slices) X(project)(p, s, slices, t->x, whole, ld);
    for (ptrdiff_t j = 0; j < k; j++) {
        real *pj = p + j * ld, *mj = moved + j * ld;
        X(apply)(map, mj, slope, pj, ready, s, j, c, t->n);
        if (slices)
            for (ptrdiff_t i = 0; i < whole; i++) mj[i] = i < t->n ? mj[i] - pj[i] : 0;
        else memcpy(pj, mj, (size_t)t->n * sizeof *pj);
        if (j % RQS_LOG_EVERY == RQS_LOG_EVERY - 1 || j == k - 1) pf_log_slopes(logj, slope, sign, t->n);
    }
    if (slices) X(back)(t->x, s, slices, moved, whole, ld);
}

static void X(sliced_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    X(sliced_map)((const X(sliced) *)l, ready, t, logj, keep, work, X(rqs_forward), 1);
}

static void X(sliced_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    X(sliced_map)((const X(sliced) *)l, ready, t, logj, NULL, work, X(rqs_inverse), -1);
}

/* ---- vector-Jacobian product ---------------------------------------------------------------------------------------
 * With p = A^T x, D = Psi(p) - p, h = A^T g: dL/dp = h (Psi' - 1) + glogj (log Psi')' and
 *     dL/dx = g + A dL/dp,   dL/dA = x dL/dp^T + g D^T,   dL/dtheta through h and glogj. */

/* dL/dp of slice k without the identity's part: h <- h Psi' + glogj (log Psi')'; gtheta[classes][K][3 M] or NULL */
static void X(slice_vjp)(real *h, double *gtheta, const double *glogj, const real *p, const X(rqs) *splines,
                         const X(sliced) *s, ptrdiff_t k, const by_class *c, ptrdiff_t n)
{
    if (!c) {
        X(rqs_vjp)(h, gtheta ? gtheta + k * 3 * s->m : NULL, glogj, p, splines + k, n);
        return;
    }
    real g[TILE_MOST], from[TILE_MOST];
    double part[TILE_MOST];
    for (ptrdiff_t i = 0; i < n; i++) g[i] = h[c->order[i]], from[i] = p[c->order[i]], part[i] = glogj[c->order[i]];
    for (ptrdiff_t r = 0; r < c->runs; r++) {
        ptrdiff_t at = c->start[r], spline = c->class[r] * s->k + k;
        double *to = gtheta ? gtheta + spline * 3 * s->m : NULL;
        X(rqs_vjp)(g + at, to, part + at, from + at, splines + spline, c->start[r + 1] - at);
    }
    for (ptrdiff_t i = 0; i < n; i++) h[c->order[i]] = g[i];
}

static void X(sliced_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                          const double *glogj, const real *keep, int want_x, real *work)
{
    const X(sliced) *s = (const X(sliced) *)l;
    ptrdiff_t k = s->k, d = l->d, ld = g->ld, n = g->n, whole = tile_whole(n);
    const real *slices = X(slices)(s, ready), *p = slices ? keep + d * ld : keep, *moved = p + k * ld;
    by_class sorted, *c = s->classes > 1 ? &sorted : NULL;
    real *h = slices ? work : g->x, *identity = work + k * ld;
    (void)stride;
    if (c) sort_by_class(c, g->label, n, s->classes);
    if (slices) X(project)(h, s, slices, g->x, whole, ld);
    for (ptrdiff_t j = 0; j < k; j++) {
        real *hj = h + j * ld;
        if (slices) memcpy(identity, hj, (size_t)whole * sizeof *hj);
        X(slice_vjp)(hj, gtheta, glogj, p + j * ld, ready, s, j, c, n);
        for (ptrdiff_t i = 0; slices && i < whole; i++) hj[i] = i < n ? hj[i] - identity[i] : 0;
    }
    if (!slices) return;
    if (gtheta) {
        double *gslices = gtheta + X(splines)(s) * 3 * s->m;
        X(tile_outer)(gslices, h, keep, k, d, n, ld, ld);
        X(tile_outer)(gslices, moved, g->x, k, d, n, ld, ld);
    }
    if (want_x) X(back)(g->x, s, slices, h, whole, ld);
}

/* ---- the manifold ----------------------------------------------------------------------------------------- */

static void X(sliced_project)(const X(layer) *l, double *gtheta, const double *theta)
{
    const X(sliced) *s = (const X(sliced) *)l;
    ptrdiff_t at = X(splines)(s) * 3 * s->m;
    if (!s->identity) pf_stiefel_project(gtheta + at, theta + at, s->k, l->d);
}

static void X(sliced_retract)(const X(layer) *l, double *theta)
{
    const X(sliced) *s = (const X(sliced) *)l;
    if (!s->identity) pf_stiefel_orthonormalise(theta + X(splines)(s) * 3 * s->m, s->k, l->d);
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static void X(sliced_write)(const X(layer) *l, pf_writer *w)
{
    const X(sliced) *s = (const X(sliced) *)l;
    pf_put_int(w, s->identity ? 0 : s->k);
    pf_put_int(w, s->m);
}

static pf_status X(sliced_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    (void)mesh;
    ptrdiff_t k = pf_get_int(r, 0, space->d), m = pf_get_int(r, 2, 65535);
    /* the splines are in the file's theta: sizes that are not there are not allocated, nor do they overflow */
    if ((double)classes * (double)(k ? k : space->d) * 3 * (double)m + (double)k * (double)space->d >
        (double)r->whole / sizeof(double))
        r->status = pf_fail(PF_BAD_FILE, "the file is damaged: splines are missing");
    return r->status ? r->status : X(sliced_new)(l, space->d, k, m, classes);
}

const X(layer_ops) X(sliced_ops) = {
    .kind = "sliced",
    .layout = COLUMNS,
    .sizes = X(sliced_sizes),
    .prepare = X(sliced_prepare),
    .forward = X(sliced_forward),
    .inverse = X(sliced_inverse),
    .vjp = X(sliced_vjp),
    .project = X(sliced_project),
    .retract = X(sliced_retract),
    .write = X(sliced_write),
    .read = X(sliced_read),
    .destroy = X(sliced_destroy),
};
#endif
