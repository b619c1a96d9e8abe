/* The symmetric layer (Dai & Seljak 2022, arXiv 2202.05282): x <- Psi(F^-1 T(|k|) F x), equivariant under translations
 * and rotations of the mesh. log|det| = sum over pixels of log Psi' + sum over all modes of log T. With an axis, the
 * line of sight, T(|k|, |mu|), mu = k_axis / |k|: the symmetry that redshift space leaves.
 *
 * theta: Psi's 3 psi_knots numbers (psi.h), then filter_knots positions of the knots of log T against |k| / k_max
 * (cspline.h), and for each of mu_knots (1 without an axis) as many values. Along mu^2, log T is the polynomial through
 * them; since the spline is linear in its values, it is made for the polynomial's coefficients. */
#ifndef real
#include "cspline.h"
#include "layers.h"
#include "psi.h"

#define SMOOTH 0.05 /* width of the smoothing along k, in units of the number of knots */
/* |log T| is at most this: far from what was trained on there is a density still. */
#define LOG_T_MOST 20.0
enum { PARTS = 32, PART_LEAST = 1 << 16 }; /* of a large field: at most as many; pixels in each, at least */

double pf_mu_knot(ptrdiff_t j, ptrdiff_t knots)
{
    return knots > 1 ? 0.5 * (1 - cos(M_PI * (double)j / (double)(knots - 1))) : 0;
}

void pf_mu_polynomials(double *c, ptrdiff_t knots)
{
    for (ptrdiff_t j = 0; j < knots; j++) { /* prod over l of (u - u_l) / (u_j - u_l), one factor after another */
        double a[MU_MOST + 1] = {1}, u = pf_mu_knot(j, knots);
        for (ptrdiff_t l = 0; l < knots; l++) {
            double other = pf_mu_knot(l, knots);
            for (ptrdiff_t i = knots - 1; i >= 0 && l != j; i--)
                a[i] = ((i ? a[i - 1] : 0) - other * a[i]) / (u - other);
        }
        for (ptrdiff_t i = 0; i < knots; i++) c[i * knots + j] = a[i];
    }
}

/* log T[shells] from its coefficients c[n_k][4], and the sum of modes log T */
PF_KERNEL void pf_along_mu_body(double *restrict log_t, double *log_det, const double *restrict c, const int32_t *at,
                                const double *mu2, const double *modes, ptrdiff_t shells)
{
    double sum[8] = {0};
    for (ptrdiff_t j = 0; j < shells; j++) {
        ptrdiff_t a = 4 * (ptrdiff_t)at[j];
        double t = c[a] + mu2[j] * (c[a + 1] + mu2[j] * (c[a + 2] + mu2[j] * c[a + 3]));
        t = t > LOG_T_MOST ? LOG_T_MOST : t;
        log_t[j] = t < -LOG_T_MOST ? -LOG_T_MOST : t;
    }
    for (ptrdiff_t j = 0; j < shells - shells % 8; j += 8)
        for (int l = 0; l < 8; l++) sum[l] += modes[j + l] * log_t[j + l];
    for (ptrdiff_t j = shells - shells % 8; j < shells; j++) sum[0] += modes[j] * log_t[j];
    for (int l = 1; l < 8; l++) sum[0] += sum[l];
    *log_det = sum[0];
}
PF_DISPATCH(pf_along_mu,
            (double *log_t, double *log_det, const double *c, const int32_t *at, const double *mu2, const double *modes,
             ptrdiff_t shells),
            (log_t, log_det, c, at, mu2, modes, shells))

#define TWICE "symmetric.c"
#include "twice.h"
#else

/* ---- the mesh --------------------------------------------------------------------------------------------- */

static pf_status X(mesh_make)(X(mesh) **mesh, const pf_space *space, int axis)
{
    X(mesh) *m = *mesh = PF_CALLOC(X(mesh), 1);
    if (!m) return PF_NO_MEMORY;
    m->references = 1;
    m->axis = axis;
    m->space = *space;
    pf_status status = X(filter_new)(&m->filter, space->ndim, space->n, space->box, axis);
    if (!status && !(m->k = PF_ALLOC(double, m->filter->shells))) status = PF_NO_MEMORY;
    if (!status && axis >= 0 && !(m->shell = PF_ALLOC(int32_t, m->filter->shells))) status = PF_NO_MEMORY;
    if (status) {
        X(mesh_release)(m);
        *mesh = NULL;
        return status;
    }
    ptrdiff_t shells = m->filter->shells;
    const double *k = m->filter->k;
    for (ptrdiff_t s = 0; s < shells; s++) {
        if (!s || k[s] > k[s - 1]) m->k[m->n_k++] = shells > 1 ? k[s] / k[shells - 1] : 0;
        if (m->shell) m->shell[s] = (int32_t)(m->n_k - 1);
    }
    return PF_OK;
}

pf_status X(mesh_new)(X(mesh) **mesh, const pf_space *space) { return X(mesh_make)(mesh, space, -1); }

pf_status X(mesh_axial)(X(mesh) **axial, X(mesh) *mesh, ptrdiff_t axis)
{
    *axial = NULL;
    if (axis < 0 || axis >= mesh->space.ndim)
        return pf_fail(PF_BAD_ARGUMENT, "axis: %td is not between 0 and %d, the mesh's last", axis,
                       mesh->space.ndim - 1);
    X(mesh) *made = NULL, *found = atomic_load(mesh->axial + axis);
    if (!found) {
        PF_TRY(X(mesh_make)(&made, &mesh->space, (int)axis));
        if (atomic_compare_exchange_strong(mesh->axial + axis, &found, made)) found = made;
        else X(mesh_release)(made); /* another thread was faster */
    }
    *axial = found;
    return PF_OK;
}

X(mesh) *X(mesh_share)(X(mesh) *m)
{
    if (m) atomic_fetch_add(&m->references, 1);
    return m;
}

void X(mesh_release)(X(mesh) *m)
{
    if (!m || atomic_fetch_sub(&m->references, 1) > 1) return;
    for (int i = 0; i < 3; i++) X(mesh_release)(m->axial[i]);
    X(filter_free)(m->filter);
    free(m->k);
    free(m->shell);
    free(m);
}

/* ---- the shape -------------------------------------------------------------------------------------------- */

typedef struct {
    X(layer) base;
    X(mesh) *mesh;
    ptrdiff_t psi_knots, filter_knots, mu_knots;
    double polynomial[MU_MOST * MU_MOST]; /* [mu_knots][mu_knots]: coefficients of mu^(2 i) from values */
    ptrdiff_t padded, spectrum;           /* reals of a field, of its spectrum, rounded up so that arrays are aligned */
    real *taps;                           /* [reach + 1] of the smoothing: a Gaussian, from its middle on */
    ptrdiff_t reach;
} X(symmetric);

static void X(symmetric_destroy)(X(layer) *l)
{
    X(symmetric) *s = (X(symmetric) *)l;
    X(mesh_release)(s->mesh);
    free(s->taps);
    free(s);
}

pf_status X(symmetric_new)(X(layer) **l, X(mesh) *mesh, ptrdiff_t psi_knots, ptrdiff_t filter_knots, ptrdiff_t axis,
                           ptrdiff_t mu_knots)
{
    if (!mesh) return pf_fail(PF_BAD_ARGUMENT, "symmetric layers are for fields on a mesh of 2 or 3 dimensions");
    if (psi_knots < 2 || psi_knots > PSI_MOST)
        return pf_fail(PF_BAD_ARGUMENT, "psi_knots: %td is not between 2 and %d", psi_knots, PSI_MOST);
    if (filter_knots < 2 || filter_knots > 4096)
        return pf_fail(PF_BAD_ARGUMENT, "filter_knots: %td is not between 2 and 4096", filter_knots);
    if (axis != -1 && (mu_knots < 2 || mu_knots > MU_MOST))
        return pf_fail(PF_BAD_ARGUMENT, "mu_knots: %td is not between 2 and %d", mu_knots, MU_MOST);
    if (axis == -1) mu_knots = 1;
    else PF_TRY(X(mesh_axial)(&mesh, mesh, axis));
    X(symmetric) *s = PF_CALLOC(X(symmetric), 1);
    if (!s) return PF_NO_MEMORY;
    if (X(smooth_taps)(&s->taps, &s->reach, filter_knots)) {
        free(s);
        return PF_NO_MEMORY;
    }
    s->base = (X(layer)){.ops = axis == -1 ? &X(symmetric_ops) : &X(axial_ops),
                         .d = mesh->filter->fft->pixels,
                         .n_theta = 3 * psi_knots + (1 + mu_knots) * filter_knots,
                         .references = 1};
    s->mesh = X(mesh_share)(mesh);
    s->psi_knots = psi_knots;
    s->filter_knots = filter_knots;
    s->mu_knots = mu_knots;
    pf_mu_polynomials(s->polynomial, mu_knots);
    s->padded = tile_whole(s->base.d);
    s->spectrum = tile_whole(mesh->filter->fft->spectrum);
    *l = &s->base;
    return PF_OK;
}

const X(mesh) *X(symmetric_mesh)(const X(layer) *l) { return ((const X(symmetric) *)l)->mesh; }

/* ---- tables ----------------------------------------------------------------------------------------------- */

typedef struct {
    X(psi) *psi;
    real *t; /* [shells] */
    double
        *knots; /* [filter_knots] positions; values of log T, with an axis [filter_knots][4] coefficients of mu^(2 i) */
    double *log_det; /* of the filter */
} X(symmetric_ready);

/* of the knots' positions and values, or coefficients */
static ptrdiff_t X(coefficients)(const X(symmetric) *s)
{
    return tile_whole((s->mesh->shell ? 5 : 2) * s->filter_knots);
}

static size_t X(table)(const X(symmetric) *s)
{
    ptrdiff_t shells = tile_whole(s->mesh->filter->shells);
    return (sizeof(X(psi)) + 63) / 64 * 64 + (size_t)shells * sizeof(real) +
           (size_t)(X(coefficients)(s) + TILE_STEP) * sizeof(double);
}

/* The tables of point i, or the one that all share. */
static X(symmetric_ready) X(symmetric_view)(const X(symmetric) *s, const void *ready, ptrdiff_t i, ptrdiff_t tables)
{
    char *at = (char *)ready + (tables > 1 ? (size_t)i * X(table)(s) : 0);
    X(symmetric_ready) r = {.psi = (X(psi) *)at};
    r.t = (real *)(at + (sizeof(X(psi)) + 63) / 64 * 64);
    r.knots = (double *)(r.t + tile_whole(s->mesh->filter->shells));
    r.log_det = r.knots + X(coefficients)(s);
    return r;
}

static pf_sizes X(symmetric_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    const X(symmetric) *s = (const X(symmetric) *)l;
    ptrdiff_t doubles = sizeof(double) / sizeof(real), shells = tile_whole(s->mesh->filter->shells);
    (void)ld;
    return (pf_sizes){
        .ready = (size_t)tables * X(table)(s),
        .keep = n * (s->padded + s->spectrum),
        /* a field, its spectrum, the filter's scratch; doubles: [2][shells], as many as the knots', and with an axis
         * [n_k][4] and what the splines need */
        .work = s->padded + s->spectrum + tile_whole(s->mesh->filter->work) +
                (2 * shells + X(coefficients)(s) +
                 (s->mesh->shell ? 4 * s->mesh->n_k + PF_CSPLINE4_ROOM * s->filter_knots : 0)) *
                    doubles,
    };
}

static double *X(doubles)(const X(symmetric) *s, real *work)
{
    return (double *)(work + s->padded + s->spectrum + tile_whole(s->mesh->filter->work));
}

/* to[filter_knots][4] = the polynomials' coefficients, from[mu_knots][filter_knots] their values */
static void X(to_coefficients)(double *to, const double *from, const X(symmetric) *s)
{
    ptrdiff_t m = s->filter_knots, n = s->mu_knots;
    memset(to, 0, (size_t)(4 * m) * sizeof(double));
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t j = 0; j < n; j++)
            for (ptrdiff_t l = 0; l < m; l++) to[4 * l + i] += s->polynomial[i * n + j] * from[j * m + l];
}

/* g[mu_knots][filter_knots] += what the gradient gc of the coefficients is for the values */
static void X(coefficients_vjp)(double *g, const double *gc, const X(symmetric) *s)
{
    ptrdiff_t m = s->filter_knots, n = s->mu_knots;
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t j = 0; j < n; j++)
            for (ptrdiff_t l = 0; l < m; l++) g[j * m + l] += s->polynomial[i * n + j] * gc[4 * l + i];
}

static void X(symmetric_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride,
                                 ptrdiff_t tables, real *work)
{
    const X(symmetric) *s = (const X(symmetric) *)l;
    const X(filter) *filter = s->mesh->filter;
    ptrdiff_t m = s->filter_knots, shells = filter->shells;
    double *log_t = X(doubles)(s, work), *t = log_t + tile_whole(shells);
    double *room = t + tile_whole(shells) + X(coefficients)(s);
    for (ptrdiff_t i = 0; i < tables; i++, theta += stride) {
        X(symmetric_ready) r = X(symmetric_view)(s, ready, i, tables);
        const double *knots = theta + 3 * s->psi_knots;
        X(psi_make)(r.psi, theta, s->psi_knots);
        pf_increasing(r.knots, knots, m);
        if (s->mesh->shell) X(to_coefficients)(r.knots + m, knots + m, s);
        else memcpy(r.knots + m, knots + m, (size_t)m * sizeof(double));
        if (s->mesh->shell) {
            pf_cspline4(room, s->mesh->k, r.knots, r.knots + m, m, s->mesh->n_k, room + 4 * s->mesh->n_k);
            pf_along_mu(log_t, r.log_det, room, s->mesh->shell, filter->mu2, filter->modes, shells);
        } else {
            pf_cspline(log_t, s->mesh->k, r.knots, r.knots + m, m, shells);
            *r.log_det = 0;
            for (ptrdiff_t j = 0; j < shells; j++) {
                log_t[j] = PF_MIN(PF_MAX(log_t[j], -LOG_T_MOST), LOG_T_MOST);
                *r.log_det += filter->modes[j] * log_t[j];
            }
        }
        pf_exp(t, log_t, shells);
        for (ptrdiff_t j = 0; j < shells; j++) r.t[j] = (real)t[j];
    }
}

double X(symmetric_parts)(const X(psi) **psi, const real **t, const X(layer) *l, const void *ready)
{
    X(symmetric_ready) r = X(symmetric_view)((const X(symmetric) *)l, ready, 0, 1);
    *psi = r.psi;
    *t = r.t;
    return *r.log_det;
}

/* ---- Psi over a large field: its pixels in parts that threads share. Parts are a function of the field's size alone,
 * and their sums are added in order. ---------------------------------------------------------------------------- */

typedef struct {
    double (*map)(real *, const real *, const X(psi) *, ptrdiff_t); /* X(psi_forward), X(psi_inverse); NULL: the vjp */
    real *y;                                                        /* what is written; of the vjp, the gradient */
    const real *x;
    const X(psi) *psi;
    ptrdiff_t n, length; /* pixels; of a part */
    double glogj, sum[PARTS];
    double (*gtheta)[3 * PSI_MOST]; /* [PARTS], or NULL */
} X(pixels);

static void X(part)(void *arg, ptrdiff_t i, int thread)
{
    X(pixels) *p = arg;
    ptrdiff_t at = i * p->length, n = PF_MIN(p->length, p->n - at);
    double *gtheta = p->gtheta ? memset(p->gtheta[i], 0, sizeof p->gtheta[i]) : NULL;
    (void)thread;
    if (p->map) p->sum[i] = p->map(p->y + at, p->x + at, p->psi, n);
    else X(psi_vjp)(p->y + at, gtheta, p->glogj, p->x + at, p->psi, n);
}

/* Returns the number of parts. */
static ptrdiff_t X(each_part)(X(pixels) *p)
{
    p->length = PF_MAX(PART_LEAST, tile_whole((p->n + PARTS - 1) / PARTS));
    ptrdiff_t parts = (p->n + p->length - 1) / p->length;
    if (parts == 1) X(part)(p, 0, 0);
    else pf_parallel_kernel(parts, X(part), p);
    return parts;
}

static double X(pixels_map)(real *y, const real *x, const X(psi) *psi, ptrdiff_t n, int inverse)
{
    X(pixels) p = {.y = y, .x = x, .psi = psi, .n = n, .map = inverse ? X(psi_inverse) : X(psi_forward)};
    double sum = 0;
    ptrdiff_t parts = X(each_part)(&p);
    for (ptrdiff_t i = 0; i < parts; i++) sum += p.sum[i];
    return sum;
}

static void X(pixels_vjp)(real *g, double *gtheta, double glogj, const real *x, const X(psi) *psi, ptrdiff_t n)
{
    double parts_gtheta[PARTS][3 * PSI_MOST];
    X(pixels) p = {.y = g, .x = x, .psi = psi, .n = n, .glogj = glogj, .gtheta = gtheta ? parts_gtheta : NULL};
    ptrdiff_t parts = X(each_part)(&p);
    for (ptrdiff_t i = 0; gtheta && i < parts; i++)
        for (ptrdiff_t j = 0; j < 3 * psi->m; j++) gtheta[j] += parts_gtheta[i][j];
}

/* ---- maps ------------------------------------------------------------------------------------------------- */

static void X(symmetric_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    const X(symmetric) *s = (const X(symmetric) *)l;
    for (ptrdiff_t i = 0; i < t->n; i++) {
        X(symmetric_ready) r = X(symmetric_view)(s, ready, i, t->tables);
        real *x = t->x + i * t->ld, *u = keep ? keep + i * (s->padded + s->spectrum) : work, *spectrum = u + s->padded;
        X(filter_apply)(s->mesh->filter, u, spectrum, x, r.t, work + s->padded + s->spectrum);
        logj[i] += *r.log_det + X(pixels_map)(x, u, r.psi, l->d, 0);
    }
}

static void X(symmetric_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    const X(symmetric) *s = (const X(symmetric) *)l;
    ptrdiff_t shells = s->mesh->filter->shells;
    real *inverse = work; /* 1 / T, no longer than a field: a mesh has no more shells than pixels */
    for (ptrdiff_t i = 0; i < t->n; i++) {
        X(symmetric_ready) r = X(symmetric_view)(s, ready, i, t->tables);
        real *x = t->x + i * t->ld;
        logj[i] -= *r.log_det + X(pixels_map)(x, x, r.psi, l->d, 1);
        for (ptrdiff_t j = 0; j < shells; j++) inverse[j] = 1 / r.t[j];
        X(filter_apply)(s->mesh->filter, x, work + s->padded, x, inverse, work + s->padded + s->spectrum);
    }
}

/* dL/dlog T = T dL/dT + modes dL/dlogj, through the spline to its knots; nothing where log T is held */
static void X(knots_vjp)(double *gtheta, double *gt, const X(symmetric) *s, X(symmetric_ready) r, double glogj,
                         double *gp)
{
    const X(mesh) *mesh = s->mesh;
    double *gc = gp + s->filter_knots, *room = gp + X(coefficients)(s); /* as of prepare */
    ptrdiff_t n_k = mesh->n_k;
    ptrdiff_t m = s->filter_knots, shells = s->mesh->filter->shells;
    const real most = (real)exp(LOG_T_MOST), least = (real)exp(-LOG_T_MOST);
    for (ptrdiff_t j = 0; j < shells; j++)
        gt[j] = r.t[j] < most && r.t[j] > least ? gt[j] * (double)r.t[j] + glogj * s->mesh->filter->modes[j] : 0;
    memset(gp, 0, (size_t)X(coefficients)(s) * sizeof(double));
    if (!mesh->shell) pf_cspline_vjp(gp, gtheta + m, gt, mesh->k, r.knots, r.knots + m, m, n_k);
    else {
        memset(room, 0, (size_t)(4 * n_k) * sizeof(double));
        for (ptrdiff_t j = 0; j < shells; j++) {
            double g = gt[j], u = mesh->filter->mu2[j], *to = room + 4 * (ptrdiff_t)mesh->shell[j];
            for (ptrdiff_t i = 0; i < 4; i++, g *= u) to[i] += g;
        }
        pf_cspline4_vjp(gp, gc, room, mesh->k, r.knots, r.knots + m, m, n_k, room + 4 * n_k);
        X(coefficients_vjp)(gtheta + m, gc, s);
    }
    pf_increasing_vjp(gtheta, gp, r.knots, m);
}

static void X(symmetric_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                             const double *glogj, const real *keep, int want_x, real *work)
{
    const X(symmetric) *s = (const X(symmetric) *)l;
    ptrdiff_t shells = s->mesh->filter->shells;
    double *gt = gtheta ? X(doubles)(s, work) : NULL, *gp = gt ? gt + 2 * tile_whole(shells) : NULL;
    for (ptrdiff_t i = 0; i < g->n; i++) {
        X(symmetric_ready) r = X(symmetric_view)(s, ready, i, g->tables);
        const real *u = keep + i * (s->padded + s->spectrum);
        real *x = g->x + i * g->ld;
        double *to = gtheta ? gtheta + (g->tables > 1 ? i * stride : 0) : NULL;
        X(pixels_vjp)(x, to, glogj[i], u, r.psi, l->d);
        for (ptrdiff_t j = 0; j < shells && gt; j++) gt[j] = 0;
        if (gt || want_x)
            X(filter_vjp)(s->mesh->filter, x, gt, u + s->padded, r.t, want_x, work + s->padded + s->spectrum);
        if (gt) X(knots_vjp)(to + 3 * s->psi_knots, gt, s, r, glogj[i], gp);
    }
}

/* ---- smoothing: positions and values of log T's knots, for each knot of mu, along k, by a Gaussian of SMOOTH times
 * their number. Without it every knot learns noise of its own from the training fields, and log p seems to know more of
 * y than it does: posteriors are too narrow. Knots beyond the ends are mirrored, which makes the smoothing symmetric. */

/* to[m] = line[m], smoothed; line has `reach` more at either end. */
PF_KERNEL void X(smooth_body)(real *restrict to, const real *restrict line, const real *restrict taps, ptrdiff_t reach,
                              ptrdiff_t m)
{
    for (ptrdiff_t j = 0; j < m; j++) to[j] = taps[0] * line[j];
    for (ptrdiff_t t = 1; t <= reach; t++)
        for (ptrdiff_t j = 0; j < m; j++) to[j] += taps[t] * (line[j - t] + line[j + t]);
}
PF_DISPATCH(X(smooth), (real * to, const real *line, const real *taps, ptrdiff_t reach, ptrdiff_t m),
            (to, line, taps, reach, m))

pf_status X(smooth_taps)(real **taps, ptrdiff_t *reach, ptrdiff_t m)
{
    double sigma = SMOOTH * (double)m, sum = 0;
    ptrdiff_t far = *reach = (ptrdiff_t)(3 * sigma);
    if (!(*taps = PF_ALLOC(real, far + 1))) return PF_NO_MEMORY;
    for (ptrdiff_t t = -far; t <= far; t++) sum += exp(-0.5 * (double)(t * t) / (sigma * sigma));
    for (ptrdiff_t t = 0; t <= far; t++) (*taps)[t] = (real)(exp(-0.5 * (double)(t * t) / (sigma * sigma)) / sum);
    return PF_OK;
}

void X(smooth_line)(real *knots, const real *taps, ptrdiff_t reach, ptrdiff_t m)
{
    real room[2 * 4096], *line = room + reach; /* m <= 4096 knots and 3 SMOOTH of them at either end */
    memcpy(line, knots, (size_t)m * sizeof(real));
    for (ptrdiff_t t = 0; t < reach; t++) {
        line[-1 - t] = knots[t];
        line[m + t] = knots[m - 1 - t];
    }
    X(smooth)(knots, line, taps, reach, m);
}

static void X(symmetric_smooth)(const X(layer) *l, real *theta, ptrdiff_t stride, ptrdiff_t rows)
{
    const X(symmetric) *s = (const X(symmetric) *)l;
    ptrdiff_t m = s->filter_knots, lines = 1 + s->mu_knots;
    for (ptrdiff_t i = 0; i < lines * rows; i++)
        X(smooth_line)(theta + i / lines * stride + 3 * s->psi_knots + i % lines * m, s->taps, s->reach, m);
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static void X(symmetric_write)(const X(layer) *l, pf_writer *w)
{
    const X(symmetric) *s = (const X(symmetric) *)l;
    pf_put_int(w, s->psi_knots);
    pf_put_int(w, s->filter_knots);
}

static pf_status X(read_knots)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, int axial)
{
    ptrdiff_t psi_knots = pf_get_int(r, 2, PSI_MOST), filter_knots = pf_get_int(r, 2, 4096);
    ptrdiff_t axis = axial ? pf_get_int(r, 0, space->ndim - 1) : -1, mu_knots = axial ? pf_get_int(r, 2, MU_MOST) : 1;
    if (!r->status && !mesh) r->status = pf_fail(PF_BAD_FILE, "the file is damaged: a symmetric layer without a mesh");
    return r->status ? r->status : X(symmetric_new)(l, mesh, psi_knots, filter_knots, axis, mu_knots);
}

static pf_status X(symmetric_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    (void)classes;
    return X(read_knots)(l, r, space, mesh, 0);
}

static void X(axial_write)(const X(layer) *l, pf_writer *w)
{
    const X(symmetric) *s = (const X(symmetric) *)l;
    X(symmetric_write)(l, w);
    pf_put_int(w, s->mesh->axis);
    pf_put_int(w, s->mu_knots);
}

static pf_status X(axial_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    (void)classes;
    return X(read_knots)(l, r, space, mesh, 1);
}

/* clang-format off */
#define OPS(name)                                                                                                      \
    .layout = ROWS, .conditional = 1, .sizes = X(symmetric_sizes), .prepare = X(symmetric_prepare),                    \
    .forward = X(symmetric_forward), .inverse = X(symmetric_inverse), .vjp = X(symmetric_vjp),                         \
    .smooth = X(symmetric_smooth), .destroy = X(symmetric_destroy), .kind = #name, .write = X(name##_write),           \
    .read = X(name##_read)
/* clang-format on */
const X(layer_ops) X(symmetric_ops) = {OPS(symmetric)};
const X(layer_ops) X(axial_ops) = {OPS(axial)}; /* with a line of sight */
#undef OPS
#endif
