/* The shift layer (Dai & Seljak 2022, arXiv 2202.05282): x <- x + F^-1 S(|k|) F g(c), c a second field of each point on
 * the same mesh, the tile's context, which no layer changes. Before a symmetric layer it makes their
 * Psi(F^-1 [T F x + T S F g(c)]): what they call S is T S here, so that S is the transfer function from g(c) to -x, and
 * learns as fast at every |k|. log|det| = 0.
 *
 * g is a cubic spline with fixed knots, in the units of c, straight beyond them; S one with knots that move
 * (cspline.h), of either sign, isotropic in flows with a line of sight too.
 *
 * theta: g at its knots [knots]; filter_knots positions of the knots of S against |k| / k_max, and as many values. */
#ifndef real
#include "cspline.h"
#include "layers.h"

enum {
    BLOCK = 256,                           /* pixels that go through g at a time */
    PARTS = 32,                            /* of a large field: at most as many; */
    PART_LEAST = 1 << 16,                  /* pixels in each, at least: a multiple of BLOCK */
    SUMS = 3 * (SHIFT_KNOTS_MOST - 1) + 3, /* of g's vjp: three of each bin, both tails, all */
};

#define TWICE "shift.c"
#include "twice.h"
#else

/* ---- the shape -------------------------------------------------------------------------------------------- */

typedef struct {
    X(layer) base;
    X(mesh) *mesh;
    ptrdiff_t knots, filter_knots;
    double p[SHIFT_KNOTS_MOST]; /* where g has knots, ascending */
    ptrdiff_t padded, spectrum; /* reals of a field, of its spectrum, rounded up so that arrays are aligned */
    real *taps;                 /* [reach + 1] of the smoothing along k */
    ptrdiff_t reach;
} X(shift);

static void X(shift_destroy)(X(layer) *l)
{
    X(shift) *s = (X(shift) *)l;
    X(mesh_release)(s->mesh);
    free(s->taps);
    free(s);
}

pf_status X(shift_new)(X(layer) **l, X(mesh) *mesh, const double *p, ptrdiff_t knots, ptrdiff_t filter_knots)
{
    if (!mesh) return pf_fail(PF_BAD_ARGUMENT, "shift layers are for fields on a mesh of 2 or 3 dimensions");
    if (knots < 2 || knots > SHIFT_KNOTS_MOST)
        return pf_fail(PF_BAD_ARGUMENT, "condition_knots: %td is not between 2 and %d", knots, SHIFT_KNOTS_MOST);
    if (filter_knots < 2 || filter_knots > 4096)
        return pf_fail(PF_BAD_ARGUMENT, "filter_knots: %td is not between 2 and 4096", filter_knots);
    for (ptrdiff_t j = 0; j < knots; j++) /* and so that the kernels' precision tells them apart */
        if (!isfinite((real)p[j]) || (j && !isnormal(1 / ((real)p[j] - (real)p[j - 1]))) || (j && !(p[j] > p[j - 1])))
            return pf_fail(PF_BAD_ARGUMENT, "condition_field: knots at %g and %g, which must be finite and ascending",
                           p[PF_MAX(j - 1, 0)], p[j]);
    X(shift) *s = PF_CALLOC(X(shift), 1);
    if (!s) return PF_NO_MEMORY;
    if (X(smooth_taps)(&s->taps, &s->reach, filter_knots)) {
        free(s);
        return PF_NO_MEMORY;
    }
    s->base = (X(layer)){
        .ops = &X(shift_ops), .d = mesh->filter->fft->pixels, .n_theta = knots + 2 * filter_knots, .references = 1};
    s->mesh = X(mesh_share)(mesh);
    s->knots = knots;
    s->filter_knots = filter_knots;
    memcpy(s->p, p, (size_t)knots * sizeof *p);
    s->padded = tile_whole(s->base.d);
    s->spectrum = tile_whole(mesh->filter->fft->spectrum);
    *l = &s->base;
    return PF_OK;
}

const double *X(shift_positions)(const X(layer) *l) { return ((const X(shift) *)l)->p; }

/* ---- g ------------------------------------------------------------------------------------------------------
 * Between knots j and j + 1, t = (c - p_j) / w_j: g = v_j + q_j(t), q = t (a + t (b + t e)). With t held to [0, 1], q_j
 * is 0 before its bin and v_(j+1) - v_j after it: g is v_0, all q_j and the tails added up, and no pixel looks for its
 * bin. */

typedef struct {
    ptrdiff_t bins;
    real start, low, high, left, right;             /* v_0; the first and the last knot, and the slopes beyond them */
    real p[SHIFT_KNOTS_MOST], by[SHIFT_KNOTS_MOST]; /* of each bin: p_j, 1 / w_j */
    real a[SHIFT_KNOTS_MOST], b[SHIFT_KNOTS_MOST], e[SHIFT_KNOTS_MOST];
} X(pointwise);

/* m_j from the chords beside knot j: the parabola's slope; at the ends the last chord's (cspline.h) */
static void X(slopes)(double *m, double *chord, const double *p, const double *v, ptrdiff_t knots)
{
    for (ptrdiff_t j = 0; j < knots - 1; j++) chord[j] = (v[j + 1] - v[j]) / (p[j + 1] - p[j]);
    m[0] = chord[0];
    m[knots - 1] = chord[knots - 2];
    for (ptrdiff_t j = 1; j < knots - 1; j++) {
        double before = p[j] - p[j - 1], after = p[j + 1] - p[j];
        m[j] = (chord[j - 1] * after + chord[j] * before) / (before + after);
    }
}

static void X(pointwise_make)(X(pointwise) *g, const double *p, const double *v, ptrdiff_t knots)
{
    double m[SHIFT_KNOTS_MOST], c[SHIFT_KNOTS_MOST];
    X(slopes)(m, c, p, v, knots);
    g->bins = knots - 1;
    g->start = (real)v[0];
    g->low = (real)p[0];
    g->high = (real)p[knots - 1];
    g->left = (real)m[0];
    g->right = (real)m[knots - 1];
    for (ptrdiff_t j = 0; j < knots - 1; j++) {
        double w = p[j + 1] - p[j];
        g->p[j] = (real)p[j];
        g->by[j] = 1 / ((real)p[j + 1] - (real)p[j]);
        g->a[j] = (real)(w * m[j]);
        g->b[j] = (real)(w * (3 * c[j] - 2 * m[j] - m[j + 1]));
        g->e[j] = (real)(w * (m[j] + m[j + 1] - 2 * c[j]));
    }
}

PF_KERNEL real X(held)(real t) { return t < 0 ? 0 : t > 1 ? 1 : t; }

/* u[n] = g(c) */
PF_KERNEL void X(pointwise_map_body)(real *restrict u, const real *restrict c, const X(pointwise) *g, ptrdiff_t n)
{
    for (ptrdiff_t from = 0; from < n; from += BLOCK) {
        ptrdiff_t end = PF_MIN(from + BLOCK, n);
        const real start = g->start, low = g->low, high = g->high, left = g->left, right = g->right;
        for (ptrdiff_t i = from; i < end; i++) {
            real below = c[i] - low, above = c[i] - high;
            u[i] = start + left * (below < 0 ? below : 0) + right * (above > 0 ? above : 0);
        }
        for (ptrdiff_t j = 0; j < g->bins; j++) {
            const real p = g->p[j], by = g->by[j], a = g->a[j], b = g->b[j], e = g->e[j];
            for (ptrdiff_t i = from; i < end; i++) {
                real t = X(held)((c[i] - p) * by);
                u[i] += t * (a + t * (b + t * e));
            }
        }
    }
}
PF_DISPATCH(X(pointwise_map), (real * u, const real *c, const X(pointwise) *g, ptrdiff_t n), (u, c, g, n))

/* sums += over pixels, of dL/du = gu: times t, t^2, t^3 of each bin; times what is beyond either end; of all. In lanes
 * over a block, then in double. */
PF_KERNEL void X(pointwise_sums_body)(double *sums, const real *gu, const real *c, const X(pointwise) *g, ptrdiff_t n)
{
    enum { LANES = 16 };
    real x[BLOCK], y[BLOCK];
    for (ptrdiff_t from = 0; from < n; from += BLOCK) {
        ptrdiff_t count = PF_MIN(BLOCK, n - from), whole = (count + LANES - 1) / LANES * LANES;
        memcpy(x, c + from, (size_t)count * sizeof(real));
        memcpy(y, gu + from, (size_t)count * sizeof(real));
        for (ptrdiff_t i = count; i < whole; i++) x[i] = g->low, y[i] = 0;
        for (ptrdiff_t j = 0; j < g->bins; j++) {
            const real p = g->p[j], by = g->by[j];
            real s1[LANES] = {0}, s2[LANES] = {0}, s3[LANES] = {0};
            for (ptrdiff_t i = 0; i < whole; i += LANES)
                for (int l = 0; l < LANES; l++) {
                    real t = X(held)((x[i + l] - p) * by), yt = y[i + l] * t, ytt = yt * t;
                    s1[l] += yt;
                    s2[l] += ytt;
                    s3[l] += ytt * t;
                }
            for (int l = 0; l < LANES; l++) {
                sums[3 * j] += (double)s1[l];
                sums[3 * j + 1] += (double)s2[l];
                sums[3 * j + 2] += (double)s3[l];
            }
        }
        real before[LANES] = {0}, beyond[LANES] = {0}, all[LANES] = {0};
        for (ptrdiff_t i = 0; i < whole; i += LANES)
            for (int l = 0; l < LANES; l++) {
                real below = x[i + l] - g->low, above = x[i + l] - g->high;
                before[l] += y[i + l] * (below < 0 ? below : 0);
                beyond[l] += y[i + l] * (above > 0 ? above : 0);
                all[l] += y[i + l];
            }
        for (int l = 0; l < LANES; l++) {
            sums[3 * g->bins] += (double)before[l];
            sums[3 * g->bins + 1] += (double)beyond[l];
            sums[3 * g->bins + 2] += (double)all[l];
        }
    }
}
PF_DISPATCH(X(pointwise_sums), (double *sums, const real *gu, const real *c, const X(pointwise) *g, ptrdiff_t n),
            (sums, gu, c, g, n))

/* gv[knots] += what these sums are for the values: through q's coefficients to slopes and chords, and to the values */
static void X(values_vjp)(double *gv, const double *sums, const double *p, ptrdiff_t knots)
{
    double gm[SHIFT_KNOTS_MOST] = {0}, gc[SHIFT_KNOTS_MOST] = {0};
    const double *tails = sums + 3 * (knots - 1);
    for (ptrdiff_t j = 0; j < knots - 1; j++, sums += 3) {
        double w = p[j + 1] - p[j];
        gm[j] += w * (sums[0] - 2 * sums[1] + sums[2]);
        gm[j + 1] += w * (sums[2] - sums[1]);
        gc[j] += w * (3 * sums[1] - 2 * sums[2]);
    }
    gc[0] += gm[0] + tails[0];
    gc[knots - 2] += gm[knots - 1] + tails[1];
    for (ptrdiff_t j = 1; j < knots - 1; j++) {
        double before = p[j] - p[j - 1], after = p[j + 1] - p[j];
        gc[j - 1] += gm[j] * after / (before + after);
        gc[j] += gm[j] * before / (before + after);
    }
    for (ptrdiff_t j = 0; j < knots - 1; j++) {
        gv[j + 1] += gc[j] / (p[j + 1] - p[j]);
        gv[j] -= gc[j] / (p[j + 1] - p[j]);
    }
    gv[0] += tails[2];
}

/* A large field in parts that threads share; parts are a function of its size alone, their sums added in order. */
typedef struct {
    real *u;        /* what is written, or */
    const real *gu; /* what the sums are of */
    const real *c;
    const X(pointwise) *g;
    ptrdiff_t n, length;  /* pixels; of a part */
    double (*sums)[SUMS]; /* [PARTS] */
} X(shift_pixels);

static void X(shift_part)(void *arg, ptrdiff_t i, int thread)
{
    X(shift_pixels) *p = arg;
    ptrdiff_t at = i * p->length, n = PF_MIN(p->length, p->n - at);
    (void)thread;
    if (p->u) X(pointwise_map)(p->u + at, p->c + at, p->g, n);
    else X(pointwise_sums)(memset(p->sums[i], 0, sizeof p->sums[i]), p->gu + at, p->c + at, p->g, n);
}

static ptrdiff_t X(shift_parts)(X(shift_pixels) *p)
{
    p->length = PF_MAX(PART_LEAST, ((p->n + PARTS - 1) / PARTS + BLOCK - 1) / BLOCK * BLOCK);
    ptrdiff_t parts = (p->n + p->length - 1) / p->length;
    if (parts == 1) X(shift_part)(p, 0, 0);
    else pf_parallel_kernel(parts, X(shift_part), p);
    return parts;
}

/* ---- tables ----------------------------------------------------------------------------------------------- */

typedef struct {
    X(pointwise) *g;
    real *s;       /* [shells] */
    double *knots; /* [2][filter_knots] positions, values of S */
} X(shift_ready);

static size_t X(pointwise_bytes)(void) { return (sizeof(X(pointwise)) + 63) / 64 * 64; }

static size_t X(shift_table)(const X(shift) *s)
{
    return X(pointwise_bytes)() + (size_t)tile_whole(s->mesh->filter->shells) * sizeof(real) +
           (size_t)tile_whole(2 * s->filter_knots) * sizeof(double);
}

/* The tables of point i, or the one that all share. */
static X(shift_ready) X(shift_view)(const X(shift) *s, const void *ready, ptrdiff_t i, ptrdiff_t tables)
{
    char *at = (char *)ready + (tables > 1 ? (size_t)i * X(shift_table)(s) : 0);
    X(shift_ready) r = {.g = (X(pointwise) *)at, .s = (real *)(at + X(pointwise_bytes)())};
    r.knots = (double *)(r.s + tile_whole(s->mesh->filter->shells));
    return r;
}

static pf_sizes X(shift_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    const X(shift) *s = (const X(shift) *)l;
    ptrdiff_t doubles = sizeof(double) / sizeof(real);
    (void)ld;
    return (pf_sizes){
        .ready = (size_t)tables * X(shift_table)(s),
        .keep = n * s->spectrum,
        /* a field, its spectrum, the filter's scratch; doubles: [shells], [filter_knots] */
        .work = s->padded + s->spectrum + tile_whole(s->mesh->filter->work) +
                (tile_whole(s->mesh->filter->shells) + tile_whole(s->filter_knots)) * doubles,
    };
}

static double *X(shift_doubles)(const X(shift) *s, real *work)
{
    return (double *)(work + s->padded + s->spectrum + tile_whole(s->mesh->filter->work));
}

static void X(shift_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride, ptrdiff_t tables,
                             real *work)
{
    const X(shift) *s = (const X(shift) *)l;
    ptrdiff_t m = s->filter_knots, shells = s->mesh->filter->shells;
    double *value = X(shift_doubles)(s, work);
    for (ptrdiff_t i = 0; i < tables; i++, theta += stride) {
        X(shift_ready) r = X(shift_view)(s, ready, i, tables);
        X(pointwise_make)(r.g, s->p, theta, s->knots);
        pf_increasing(r.knots, theta + s->knots, m);
        memcpy(r.knots + m, theta + s->knots + m, (size_t)m * sizeof(double));
        pf_cspline(value, s->mesh->k, r.knots, r.knots + m, m, shells);
        for (ptrdiff_t j = 0; j < shells; j++) r.s[j] = (real)value[j];
    }
}

/* ---- maps ------------------------------------------------------------------------------------------------- */

void X(shift_pointwise)(real *u, const X(layer) *l, const void *ready, const real *c)
{
    X(shift_ready) r = X(shift_view)((const X(shift) *)l, ready, 0, 1);
    X(shift_parts)(&(X(shift_pixels)){.u = u, .c = c, .g = r.g, .n = l->d});
}

/* x += sign F^-1 S F g(c); keep: the spectrum of g(c), or NULL */
static void X(shift_add)(const X(layer) *l, const void *ready, X(tile) *t, real sign, real *keep, real *work)
{
    const X(shift) *s = (const X(shift) *)l;
    for (ptrdiff_t i = 0; i < t->n; i++) {
        X(shift_ready) r = X(shift_view)(s, ready, i, t->tables);
        real *x = t->x + i * t->ld, *u = work, *spectrum = keep ? keep + i * s->spectrum : work + s->padded;
        X(shift_parts)(&(X(shift_pixels)){.u = u, .c = t->context[i], .g = r.g, .n = l->d});
        X(filter_apply)(s->mesh->filter, u, spectrum, u, r.s, work + s->padded + s->spectrum);
        for (ptrdiff_t j = 0; j < l->d; j++) x[j] += sign * u[j];
    }
}

static void X(shift_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    (void)logj;
    X(shift_add)(l, ready, t, 1, keep, work);
}

static void X(shift_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    (void)logj;
    X(shift_add)(l, ready, t, -1, NULL, work);
}

/* dL/dx stays; dL/dS_k and dL/dg(c) are the filter's. What c is does not change: nothing is said of it. */
static void X(shift_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                         const double *glogj, const real *keep, int want_x, real *work)
{
    const X(shift) *s = (const X(shift) *)l;
    ptrdiff_t shells = s->mesh->filter->shells, m = s->filter_knots;
    double *gs = X(shift_doubles)(s, work), *gp = gs + tile_whole(shells), sums[PARTS][SUMS];
    (void)glogj;
    (void)want_x;
    for (ptrdiff_t i = 0; i < g->n && gtheta; i++) {
        X(shift_ready) r = X(shift_view)(s, ready, i, g->tables);
        double *to = gtheta + (g->tables > 1 ? i * stride : 0);
        real *gu = work;
        memcpy(gu, g->x + i * g->ld, (size_t)l->d * sizeof(real));
        memset(gs, 0, (size_t)shells * sizeof(double));
        memset(gp, 0, (size_t)m * sizeof(double));
        X(filter_vjp)(s->mesh->filter, gu, gs, keep + i * s->spectrum, r.s, 1, work + s->padded + s->spectrum);
        X(shift_pixels) pixels = {.gu = gu, .c = g->context[i], .g = r.g, .n = l->d, .sums = sums};
        ptrdiff_t parts = X(shift_parts)(&pixels);
        for (ptrdiff_t p = 0; p < parts; p++) X(values_vjp)(to, sums[p], s->p, s->knots);
        pf_cspline_vjp(gp, to + s->knots + m, gs, s->mesh->k, r.knots, r.knots + m, m, shells);
        pf_increasing_vjp(to + s->knots, gp, r.knots, m);
    }
}

/* As of the symmetric layer: positions and values of S's knots along k */
static void X(shift_smooth)(const X(layer) *l, real *theta, ptrdiff_t stride, ptrdiff_t rows)
{
    const X(shift) *s = (const X(shift) *)l;
    for (ptrdiff_t i = 0; i < 2 * rows; i++)
        X(smooth_line)(theta + i / 2 * stride + s->knots + i % 2 * s->filter_knots, s->taps, s->reach, s->filter_knots);
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static void X(shift_write)(const X(layer) *l, pf_writer *w)
{
    const X(shift) *s = (const X(shift) *)l;
    pf_put_int(w, s->knots);
    pf_put_int(w, s->filter_knots);
    pf_put_array(w, s->p, s->knots, sizeof(double));
}

static pf_status X(shift_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    double p[SHIFT_KNOTS_MOST] = {0};
    ptrdiff_t knots = pf_get_int(r, 2, SHIFT_KNOTS_MOST), filter_knots = pf_get_int(r, 2, 4096);
    (void)space;
    (void)classes;
    pf_get_reals_into(r, p, knots, sizeof(double));
    if (!r->status && !mesh) r->status = pf_fail(PF_BAD_FILE, "the file is damaged: a shift layer without a mesh");
    return r->status ? r->status : X(shift_new)(l, mesh, p, knots, filter_knots);
}

const X(layer_ops) X(shift_ops) = {
    .kind = "shift",
    .layout = ROWS,
    .conditional = 1,
    .context = 1,
    .sizes = X(shift_sizes),
    .prepare = X(shift_prepare),
    .forward = X(shift_forward),
    .inverse = X(shift_inverse),
    .vjp = X(shift_vjp),
    .smooth = X(shift_smooth),
    .write = X(shift_write),
    .read = X(shift_read),
    .destroy = X(shift_destroy),
};
#endif
