/* The fill layer: fields of which some pixels are not observed, or observed with more noise than the others, so that
 * layers which need whole fields, the same everywhere, can follow.
 *
 * Observed pixels become (x - mean) / scale. Those that are not are drawn, one after another, each from a Gaussian
 * around a weighted sum of pixels that are there already, observed or drawn:
 *
 *     u_i = sum_j w_ij v_j + sigma_i e_i,    e_i ~ N(0, 1),    log q(u) = sum_i [log N(e_i) - log sigma_i]
 *
 * and log q(u) is taken from log p: the flow's density of whole fields p(x, u) gives p(x, u) / q(u|x), whose mean over
 * u is p(x), the density of the observed pixels. Without neighbours, and sigma = 1, u is white noise (Dai & Seljak
 * 2022, section 3.3); weights of a Gaussian field's covariance make it a constrained realisation of that field, with
 * neighbours few, as Vecchia (1988) takes them: then p(x, u) / q(u|x) hardly depends on u. w and log sigma may be
 * polynomials of second degree in the conditions y, scaled to [-1, 1] and held within it.
 *
 * A pixel with more noise than the fields that the flow is of, x_i = u_i + spread_i N(0, 1), is drawn as well, given
 * its own x_i among others (x_j, where j is not drawn yet; u_j, where it is); p(x) is the mean of
 * p(u) N(x_i - u_i; spread_i) / q(u|x).
 *
 * What stands in unobserved pixels is never looked at; the inverse leaves NaN there, and adds noise of its own to those
 * that have some. No parameters. */
#ifndef real
#include "layers.h"

ptrdiff_t pf_fill_terms(ptrdiff_t n_y) { return (n_y + 1) * (n_y + 2) / 2; }

void pf_monomials(double *term, const double *y, const double *centre, const double *reach, ptrdiff_t n_y)
{
    double u[FILL_CONDITIONS];
    ptrdiff_t at = 0;
    for (ptrdiff_t j = 0; j < n_y; j++) u[j] = y ? PF_MIN(PF_MAX((y[j] - centre[j]) / reach[j], -1), 1) : 0;
    term[at++] = 1;
    for (ptrdiff_t j = 0; j < n_y; j++) term[at++] = u[j];
    for (ptrdiff_t j = 0; j < n_y; j++)
        for (ptrdiff_t l = j; l < n_y; l++) term[at++] = u[j] * u[l];
}

void pf_monomials_vjp(double *gy, const double *gterm, const double *y, const double *centre, const double *reach,
                      ptrdiff_t n_y)
{
    double slope[FILL_CONDITIONS], at[FILL_CONDITIONS];
    for (ptrdiff_t j = 0; j < n_y; j++) {
        at[j] = (y[j] - centre[j]) / reach[j];
        slope[j] = fabs(at[j]) <= 1 ? 1 / reach[j] : 0;
        at[j] = PF_MIN(PF_MAX(at[j], -1), 1);
    }
    for (ptrdiff_t j = 0; j < n_y; j++) gy[j] += gterm[1 + j] * slope[j];
    for (ptrdiff_t j = 0, c = 1 + n_y; j < n_y; j++)
        for (ptrdiff_t m = j; m < n_y; m++, c++) {
            gy[j] += gterm[c] * at[m] * slope[j];
            gy[m] += gterm[c] * at[j] * slope[m];
        }
}

#define TWICE "fill.c"
#include "twice.h"
#else

/* ---- the shape -------------------------------------------------------------------------------------------- */

typedef struct {
    X(layer) base;
    double mean, scale;      /* scale > 0 */
    ptrdiff_t n, near, n_y;  /* pixels that are drawn; neighbours of each; conditions that the weights depend on */
    ptrdiff_t unobserved;    /* among them */
    unsigned char *observed; /* [d] */
    int32_t *pixel;          /* [n] in the order in which they are drawn */
    int32_t *neighbour;      /* [n][near] */
    double *centre, *reach;  /* [n_y] of the conditions */
    double *spread;          /* [n] of the noise, over scale; 0: not observed */
    real *weight;            /* [terms][n][near + 1] w, then log sigma */
} X(fill);

static void X(fill_destroy)(X(layer) *l)
{
    X(fill) *f = (X(fill) *)l;
    free(f->observed);
    free(f->pixel);
    free(f->neighbour);
    free(f->centre);
    free(f->spread);
    free(f->weight);
    free(f);
}

/* The pixels, which may be in any order, and where they may look: nowhere but at what is there. */
static pf_status X(fill_check)(unsigned char *observed, const pf_fill *from, ptrdiff_t d)
{
    unsigned char *seen = PF_ALLOC(unsigned char, d);
    if (!seen) return PF_NO_MEMORY;
    memset(seen, 0, (size_t)d);
    memset(observed, 1, (size_t)d);
    pf_status status = from->n < 0 || from->n >= d ? pf_fail(PF_BAD_ARGUMENT, "mask: no pixel is observed") : PF_OK;
    for (ptrdiff_t i = 0; i < from->n && !status; i++) {
        int32_t p = from->pixel[i];
        if (p < 0 || p >= d || seen[p]++)
            status = pf_fail(PF_BAD_ARGUMENT, "mask: pixel %d is not one of %td, or there twice", (int)p, d);
        else if (from->spread && !(from->spread[i] >= 0 && from->spread[i] <= 1e100))
            status = pf_fail(PF_BAD_ARGUMENT, "noise: that of pixel %d is %g", (int)p, from->spread[i]);
        else observed[p] = from->spread && from->spread[i] > 0;
    }
    memcpy(seen, observed, (size_t)d); /* what is there */
    for (ptrdiff_t i = 0; i < from->n && !status; i++) {
        for (ptrdiff_t j = 0; j < from->near && !status; j++) {
            int32_t p = from->neighbour[i * from->near + j];
            if (p < 0 || p >= d || !seen[p])
                status = pf_fail(PF_BAD_ARGUMENT, "fill: pixel %d is drawn from pixel %d, which is not there yet",
                                 (int)from->pixel[i], (int)p);
        }
        seen[from->pixel[i]] = 1;
    }
    free(seen);
    return status;
}

pf_status X(fill_new)(X(layer) **l, const pf_fill *from, double mean, double scale, const real *weight, ptrdiff_t d)
{
    ptrdiff_t n = from->n, near = from->near, n_y = from->n_y, terms = pf_fill_terms(n_y);
    if (n_y < 0 || n_y > FILL_CONDITIONS)
        return pf_fail(PF_BAD_ARGUMENT, "fill: depends on %td conditions; %d are the most", n_y, FILL_CONDITIONS);
    X(fill) *f = PF_CALLOC(X(fill), 1);
    if (!f) return PF_NO_MEMORY;
    f->base = (X(layer)){.ops = &X(fill_ops), .d = d, .references = 1};
    f->mean = mean;
    f->scale = scale;
    f->n = n;
    f->near = near;
    f->n_y = n_y;
    f->observed = PF_ALLOC(unsigned char, d);
    f->pixel = PF_ALLOC(int32_t, n);
    f->neighbour = PF_ALLOC(int32_t, n * near);
    f->centre = PF_ALLOC(double, 2 * n_y);
    f->reach = f->centre ? f->centre + n_y : NULL;
    f->spread = PF_CALLOC(double, n);
    f->weight = PF_CALLOC(real, terms * n * (near + 1));
    pf_status status = f->observed && f->pixel && f->neighbour && f->centre && f->spread && f->weight
                           ? X(fill_check)(f->observed, from, d)
                           : PF_NO_MEMORY;
    if (status) {
        X(fill_destroy)(&f->base);
        return status;
    }
    memcpy(f->pixel, from->pixel, (size_t)n * sizeof *f->pixel);
    for (ptrdiff_t i = 0; i < n; i++) {
        f->spread[i] = from->spread ? from->spread[i] : 0;
        f->unobserved += !(f->spread[i] > 0);
    }
    for (ptrdiff_t j = 0; j < n_y; j++) f->centre[j] = from->centre[j], f->reach[j] = from->reach[j];
    if (near) memcpy(f->neighbour, from->neighbour, (size_t)(n * near) * sizeof *f->neighbour);
    for (ptrdiff_t i = 0; i < terms * n * (near + 1); i++)
        f->weight[i] = weight ? weight[i] : from->weight ? (real)from->weight[i] : 0;
    *l = &f->base;
    return PF_OK;
}

int X(layer_draws)(const X(layer) *l) { return l->ops == &X(fill_ops) || l->ops == &X(band_ops); }

const unsigned char *X(layer_observed)(const X(layer) *l)
{
    return l->ops == &X(fill_ops) ? ((const X(fill) *)l)->observed : NULL;
}

/* ---- maps ------------------------------------------------------------------------------------------------- */

/* keep: pixels as the other layers have them [d], and as they were observed [n]. work: weights at a y [n][near + 1], a
 * field [d], and the numbers drawn, in double */
static pf_sizes X(fill_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    const X(fill) *f = (const X(fill) *)l;
    ptrdiff_t doubles = sizeof(double) / sizeof(real);
    (void)ld, (void)tables;
    return (pf_sizes){.keep = n * (l->d + f->n),
                      .work = tile_whole(f->n * (f->near + 1)) + tile_whole(l->d) + tile_whole(f->n) * doubles};
}

static void X(fill_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride, ptrdiff_t tables,
                            real *work)
{
    (void)l, (void)ready, (void)theta, (void)stride, (void)tables, (void)work;
}

static const double *X(fill_y)(const X(fill) *f, const X(tile) *t, ptrdiff_t i)
{
    return t->y && t->n_y >= f->n_y ? t->y + i * t->n_y : NULL;
}

/* w and log sigma at the conditions, or in the middle of their range: work, or the layer's own */
static const real *X(fill_weights)(const X(fill) *f, const double *y, real *work)
{
    double term[FILL_TERMS];
    ptrdiff_t size = f->n * (f->near + 1), terms = pf_fill_terms(f->n_y);
    if (!y || !f->n_y) return f->weight;
    pf_monomials(term, y, f->centre, f->reach, f->n_y);
    memcpy(work, f->weight, (size_t)size * sizeof(real));
    for (ptrdiff_t b = 1; b < terms; b++) {
        real factor = (real)term[b];
        const real *from = f->weight + b * size;
        for (ptrdiff_t i = 0; i < size; i++) work[i] += factor * from[i];
    }
    return work;
}

static real *X(fill_field)(const X(fill) *f, real *work) { return work + tile_whole(f->n * (f->near + 1)); }

static double *X(fill_normals)(const X(fill) *f, real *work)
{
    return (double *)(X(fill_field)(f, work) + tile_whole(f->base.d));
}

/* The mean of pixel i, given those before it as they were drawn and those after it as they were observed */
static real X(expected)(const X(fill) *f, const real *x, const real *w, ptrdiff_t i)
{
    const int32_t *at = f->neighbour + i * f->near;
    real sum = 0;
    for (ptrdiff_t j = 0; j < f->near; j++) sum += w[j] * x[at[j]];
    return sum;
}

/* What pixel i, drawn as u by e where x was observed, adds to log p: log N(x - u; spread) - log q(u). */
static double X(weigh)(const X(fill) *f, double e, double log_sigma, double x, double u, ptrdiff_t i)
{
    double sum = 0.5 * e * e + log_sigma, spread = f->spread[i], away = (x - u) / spread;
    return spread > 0 ? sum - 0.5 * away * away - log(spread) : sum + 0.5 * PF_LOG_2PI;
}

static double X(log_scale)(const X(fill) *f) { return (double)(f->base.d - f->unobserved) * log(f->scale); }

static void X(fill_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    const X(fill) *f = (const X(fill) *)l;
    ptrdiff_t stride = f->near + 1;
    double *e = X(fill_normals)(f, work);
    (void)ready;
    for (ptrdiff_t i = 0; i < t->n; i++) {
        real *x = t->x + i * t->ld, *kept = keep ? keep + i * (l->d + f->n) : NULL;
        const real *w = X(fill_weights)(f, X(fill_y)(f, t, i), work);
        X(scale_shift)(x, x, (real)(1 / f->scale), (real)(-f->mean / f->scale), l->d);
        pf_normals(e, t->seed, t->stream ? t->stream[i] : 0, 0, f->n);
        double sum = -X(log_scale)(f);
        for (ptrdiff_t p = 0; p < f->n; p++, w += stride) {
            real *at = x + f->pixel[p], seen = f->spread[p] > 0 ? *at : 0;
            double log_sigma = (double)w[f->near];
            *at = X(expected)(f, x, w, p) + (real)(exp(log_sigma) * e[p]);
            sum += X(weigh)(f, e[p], log_sigma, (double)seen, (double)*at, p);
            if (kept) kept[l->d + p] = seen;
        }
        logj[i] += sum;
        if (kept) memcpy(kept, x, (size_t)l->d * sizeof(real));
    }
}

/* e of pixel i, from what was drawn for it */
static double X(drawn)(const X(fill) *f, const real *x, real u, const real *w, ptrdiff_t i)
{
    return ((double)u - (double)X(expected)(f, x, w, i)) * exp(-(double)w[f->near]);
}

/* The numbers of the noise begin after those of a field. */
static void X(fill_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    const X(fill) *f = (const X(fill) *)l;
    real *v = X(fill_field)(f, work);
    double *noise = X(fill_normals)(f, work);
    (void)ready;
    for (ptrdiff_t i = 0; i < t->n; i++) {
        real *u = t->x + i * t->ld;
        const real *w = X(fill_weights)(f, X(fill_y)(f, t, i), work);
        memcpy(v, u, (size_t)l->d * sizeof(real));
        if (f->unobserved < f->n) pf_normals(noise, t->seed, t->stream ? t->stream[i] : 0, (uint64_t)l->d, f->n);
        for (ptrdiff_t p = 0; p < f->n && f->unobserved < f->n; p++) v[f->pixel[p]] += (real)(f->spread[p] * noise[p]);
        double sum = -X(log_scale)(f);
        for (ptrdiff_t p = 0; p < f->n; p++, w += f->near + 1) {
            real *at = u + f->pixel[p], *seen = v + f->pixel[p], x = *seen;
            double e = X(drawn)(f, v, *at, w, p);
            sum += X(weigh)(f, e, (double)w[f->near], (double)x, (double)*at, p);
            *seen = *at;
            *at = f->spread[p] > 0 ? x : (real)NAN;
        }
        logj[i] -= sum;
        X(scale_shift)(u, u, (real)f->scale, (real)f->mean, l->d);
    }
}

/* dL/dy[n_y] += through w and log sigma, where g is dL/du of all pixels drawn after pixel p as well as its own. */
static void X(fill_vjp_y)(double *gy, const X(fill) *f, const real *x, real u, const real *w, const double *y, double g,
                          double glogj, ptrdiff_t p)
{
    double term[FILL_TERMS];
    ptrdiff_t stride = f->near + 1, size = f->n * stride;
    double per_log_sigma = g * X(drawn)(f, x, u, w, p) * exp((double)w[f->near]) + glogj;
    const int32_t *near = f->neighbour + p * f->near;
    for (ptrdiff_t b = 1; b < pf_fill_terms(f->n_y); b++) { /* dL/d term */
        const real *from = f->weight + b * size + p * stride;
        double sum = 0;
        for (ptrdiff_t j = 0; j < f->near; j++) sum += (double)from[j] * (double)x[near[j]];
        term[b] = g * sum + per_log_sigma * (double)from[f->near];
    }
    pf_monomials_vjp(gy, term, y, f->centre, f->reach, f->n_y);
}

/* From the last pixel drawn to the first, what depends on it goes to what it was drawn from. x and gx are those of the
 * pixel as drawn before its turn, as observed after it. */
static void X(fill_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t gtheta_stride,
                        const double *glogj, const real *keep, int want_x, real *work)
{
    const X(fill) *f = (const X(fill) *)l;
    ptrdiff_t stride = f->near + 1;
    real *x = X(fill_field)(f, work);
    (void)ready, (void)gtheta, (void)gtheta_stride;
    if (!want_x) return;
    for (ptrdiff_t i = 0; i < g->n; i++) {
        real *gx = g->x + i * g->ld;
        const real *seen = keep + i * (l->d + f->n) + l->d;
        const double *y = X(fill_y)(f, g, i);
        const real *w = X(fill_weights)(f, y, work) + f->n * stride;
        memcpy(x, keep + i * (l->d + f->n), (size_t)l->d * sizeof(real));
        for (ptrdiff_t p = f->n - 1; p >= 0; p--) {
            w -= stride;
            int32_t at = f->pixel[p];
            real u = x[at], gu = gx[at];
            gx[at] = 0;
            if (f->spread[p] > 0) {
                real pull = (real)(glogj[i] * (double)(seen[p] - u) / (f->spread[p] * f->spread[p]));
                gu += pull;
                gx[at] = -pull;
            }
            x[at] = seen[p];
            if (g->gy && y) X(fill_vjp_y)(g->gy + i * g->n_y, f, x, u, w, y, (double)gu, glogj[i], p);
            for (ptrdiff_t j = 0; j < f->near; j++) gx[f->neighbour[p * f->near + j]] += w[j] * gu;
        }
        X(scale_shift)(gx, gx, (real)(1 / f->scale), 0, l->d);
    }
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static void X(fill_write)(const X(layer) *l, pf_writer *w)
{
    const X(fill) *f = (const X(fill) *)l;
    ptrdiff_t size = pf_fill_terms(f->n_y) * f->n * (f->near + 1);
    pf_put(w, &f->mean, sizeof f->mean);
    pf_put(w, &f->scale, sizeof f->scale);
    pf_put_int(w, f->n);
    pf_put_int(w, f->near);
    pf_put_int(w, f->n_y);
    pf_put_array(w, f->pixel, f->n, sizeof *f->pixel);
    pf_put_array(w, f->neighbour, f->n * f->near, sizeof *f->neighbour);
    pf_put_array(w, f->centre, 2 * f->n_y, sizeof(double));
    pf_put_array(w, f->spread, f->n, sizeof(double));
    pf_put_array(w, f->weight, size, sizeof(real));
}

static pf_status X(fill_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    pf_fill from = {0};
    double mean = 0, scale = 0;
    (void)mesh, (void)classes;
    pf_get(r, &mean, sizeof mean);
    pf_get(r, &scale, sizeof scale);
    from.n = pf_get_int(r, 0, space->d - 1);
    from.near = pf_get_int(r, 0, FILL_NEAR);
    from.n_y = pf_get_int(r, 0, FILL_CONDITIONS);
    if (!r->status && !(isfinite(mean) && isfinite(scale) && isnormal((real)scale) && scale > 0))
        r->status = pf_fail(PF_BAD_FILE, "the file is damaged: a mean or scale makes no sense");
    PF_TRY(r->status);
    int32_t *pixel = pf_get_array(r, from.n, sizeof *pixel);
    int32_t *neighbour = pf_get_array(r, from.n * from.near, sizeof *neighbour);
    double *centre = pf_get_reals(r, 2 * from.n_y, sizeof(double));
    double *spread = pf_get_reals(r, from.n, sizeof(double));
    real *weight = pf_get_reals(r, pf_fill_terms(from.n_y) * from.n * (from.near + 1), sizeof(real));
    from.pixel = pixel, from.neighbour = neighbour, from.centre = centre, from.spread = spread;
    for (ptrdiff_t j = 0; !r->status && j < from.n_y; j++)
        if (!(centre[from.n_y + j] > 0)) r->status = pf_fail(PF_BAD_FILE, "the file is damaged: a range is empty");
    if (!r->status) {
        from.reach = centre + from.n_y;
        pf_status status = X(fill_new)(l, &from, mean, scale, weight, space->d);
        r->status = status == PF_BAD_ARGUMENT ? PF_BAD_FILE : status;
    }
    free(pixel);
    free(neighbour);
    free(centre);
    free(spread);
    free(weight);
    return r->status;
}

const X(layer_ops) X(fill_ops) = {
    .kind = "fill",
    .layout = ROWS,
    .sizes = X(fill_sizes),
    .prepare = X(fill_prepare),
    .forward = X(fill_forward),
    .inverse = X(fill_inverse),
    .vjp = X(fill_vjp),
    .write = X(fill_write),
    .read = X(fill_read),
    .destroy = X(fill_destroy),
};
#endif
