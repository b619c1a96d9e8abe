/* The band layer: fields of which the modes k_min <= |k| <= k_max alone are known, or have a density at all, so that
 * layers which need all modes can follow.
 *
 * Those within become (x - mean) / scale. The others are drawn, whatever the field has there: n = F^-1 sigma F e, e
 * white noise, with one sigma below the range and one above, the better where they go on with the spectrum of the
 * fields. As n is independent of x, and orthogonal to it, x + n has the density p(x) q(n), of the coefficients of
 * orthonormal real Fourier modes, and log q(n), a Gaussian's, is taken from log p: what the flow says of x + n becomes
 * p(x), whatever n was drawn. log sigma is a polynomial of second degree in the conditions y, as in fill.c.
 *
 * The inverse leaves no power outside the range, but for the mean of all fields. No parameters.
 *
 * And a check for fields that need it: those smooth to rounding, cut in Fourier space, or less their own mean, have no
 * density of their empty modes, and training would make T of these the larger the longer it goes on. */
#ifndef real
#include "layers.h"

#include <stdio.h>

enum { TEXT = 96 };

/* " at k = 0", " at k = 1.5 to 3" */
static void range(char *to, double low, double high)
{
    int n = snprintf(to, TEXT, " at k = %.4g", low);
    if (high > low) snprintf(to + n, (size_t)(TEXT - n), " to %.4g", high);
}

#define TWICE "band.c"
#include "twice.h"
#else

/* ---- the shape -------------------------------------------------------------------------------------------- */

typedef struct {
    X(layer) base;
    X(mesh) *mesh;
    double k[2], mean, scale; /* scale > 0 */
    ptrdiff_t n_y;            /* conditions that the levels depend on */
    double *centre, *reach;   /* [n_y] of them */
    double *level;            /* [terms][2] log sigma below and above, in the units of the data */
    ptrdiff_t end[2];         /* shells 0 .. end[0] - 1 lie below the range, from end[1] on above */
    double modes[3];          /* below, within, above */
    real *inside;             /* [shells] 1 within the range, else 0 */
} X(band);

static void X(band_destroy)(X(layer) *l)
{
    X(band) *b = (X(band) *)l;
    X(mesh_release)(b->mesh);
    free(b->centre);
    free(b->level);
    free(b->inside);
    free(b);
}

/* Which shells lie where; k are equal to rounding */
static pf_status X(band_shells)(X(band) *b, double k_min, double k_max)
{
    const X(filter) *f = b->mesh->filter;
    ptrdiff_t low = 0, high = f->shells;
    if (!(k_min >= 0 && k_max >= k_min))
        return pf_fail(PF_BAD_ARGUMENT, "k_min: must be at least 0, and k_max above it");
    while (low < high && f->k[low] < k_min * (1 - 1e-9)) low++;
    while (high > low && f->k[high - 1] > k_max * (1 + 1e-9)) high--;
    if (low == high) return pf_fail(PF_BAD_ARGUMENT, "k_min, k_max: no mode lies between %g and %g", k_min, k_max);
    for (ptrdiff_t s = 0; s < f->shells; s++) {
        b->modes[s < low ? 0 : s < high ? 1 : 2] += f->modes[s];
        b->inside[s] = s >= low && s < high;
    }
    b->k[0] = k_min, b->k[1] = k_max;
    b->end[0] = low, b->end[1] = high;
    return PF_OK;
}

pf_status X(band_new)(X(layer) **l, X(mesh) *mesh, const pf_band *from, double mean, double scale)
{
    ptrdiff_t n_y = from->n_y, terms = pf_fill_terms(n_y);
    if (!mesh) return pf_fail(PF_BAD_ARGUMENT, "band layers are for fields on a mesh of 2 or 3 dimensions");
    if (n_y < 0 || n_y > FILL_CONDITIONS)
        return pf_fail(PF_BAD_ARGUMENT, "band: depends on %td conditions; %d are the most", n_y, FILL_CONDITIONS);
    X(band) *b = PF_CALLOC(X(band), 1);
    if (!b) return PF_NO_MEMORY;
    b->base = (X(layer)){.ops = &X(band_ops), .d = mesh->space.d, .references = 1};
    b->mesh = X(mesh_share)(mesh);
    b->mean = mean;
    b->scale = scale;
    b->n_y = n_y;
    b->centre = PF_ALLOC(double, 2 * n_y);
    b->reach = b->centre ? b->centre + n_y : NULL;
    b->level = PF_ALLOC(double, 2 * terms);
    b->inside = PF_ALLOC(real, mesh->filter->shells);
    pf_status status = b->centre && b->level && b->inside ? X(band_shells)(b, from->k_min, from->k_max) : PF_NO_MEMORY;
    for (ptrdiff_t j = 0; j < n_y && !status; j++) b->centre[j] = from->centre[j], b->reach[j] = from->reach[j];
    for (ptrdiff_t j = 0; j < 2 * terms && !status; j++) b->level[j] = from->level[j];
    for (ptrdiff_t j = 0; j < n_y && !status; j++)
        if (!isfinite(b->centre[j]) || !(b->reach[j] > 0))
            status = pf_fail(PF_BAD_ARGUMENT, "band: the range of condition %td is empty", j);
    for (ptrdiff_t j = 0; j < 2 * terms && !status; j++)
        if (!isfinite(b->level[j])) status = pf_fail(PF_BAD_ARGUMENT, "band: a level is not finite");
    if (status) X(band_destroy)(&b->base);
    else *l = &b->base;
    return status;
}

const double *X(layer_band)(const X(layer) *l) { return l->ops == &X(band_ops) ? ((const X(band) *)l)->k : NULL; }

/* ---- maps ------------------------------------------------------------------------------------------------- */

/* keep: fields with what was drawn. work: noise or a spectrum, sigma, the filter's scratch; a power in double */
static pf_sizes X(band_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    const X(filter) *f = ((const X(band) *)l)->mesh->filter;
    ptrdiff_t doubles = sizeof(double) / sizeof(real), shells = tile_whole(f->shells);
    (void)ld, (void)tables;
    return (pf_sizes){.keep = n * tile_whole(l->d),
                      .work = f->fft->spectrum + shells + f->work + f->fft->spectrum + shells * doubles};
}

typedef struct {
    real *noise, *sigma, *scratch;
    double *power;
} X(room);

static X(room) X(band_room)(const X(band) *b, real *work)
{
    const X(filter) *f = b->mesh->filter;
    ptrdiff_t shells = tile_whole(f->shells);
    X(room) r = {.power = (double *)work};
    r.noise = (real *)(r.power + shells);
    r.sigma = r.noise + f->fft->spectrum;
    r.scratch = r.sigma + shells;
    return r;
}

static void X(band_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride, ptrdiff_t tables,
                            real *work)
{
    (void)l, (void)ready, (void)theta, (void)stride, (void)tables, (void)work;
}

static const double *X(band_y)(const X(band) *b, const X(tile) *t, ptrdiff_t i)
{
    return t->y && b->n_y && t->n_y >= b->n_y ? t->y + i * t->n_y : NULL;
}

/* log sigma below and above, over scale, at the conditions of point i, or in the middle of their range */
static void X(levels)(double level[2], const X(band) *b, const X(tile) *t, ptrdiff_t i)
{
    double term[FILL_TERMS];
    pf_monomials(term, X(band_y)(b, t, i), b->centre, b->reach, b->n_y);
    level[0] = level[1] = -log(b->scale);
    for (ptrdiff_t j = 0; j < 2 * pf_fill_terms(b->n_y); j++) level[j % 2] += term[j / 2] * b->level[j];
}

/* log|det| of the modes within, and -log q of those that were drawn, of which sum is that of the squares over sigma^2 */
static double X(band_log)(const X(band) *b, const double level[2], double sum)
{
    double drawn = b->modes[0] + b->modes[2];
    return 0.5 * (sum + drawn * PF_LOG_2PI) + b->modes[0] * level[0] + b->modes[2] * level[1] -
           b->modes[1] * log(b->scale);
}

/* The sum of power[shells] over side 0, below the range, or 1, above it */
static double X(side)(const X(band) *b, const double *power, int side)
{
    ptrdiff_t from = side ? b->end[1] : 0, to = side ? b->mesh->filter->shells : b->end[0];
    double sum = 0;
    for (ptrdiff_t s = from; s < to; s++) sum += power[s];
    return sum;
}

static void X(band_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    const X(band) *b = (const X(band) *)l;
    const X(filter) *f = b->mesh->filter;
    X(room) r = X(band_room)(b, work);
    double z[TILE_MOST], level[2];
    (void)ready;
    for (ptrdiff_t i = 0; i < t->n; i++) {
        real *x = t->x + i * t->ld;
        X(levels)(level, b, t, i);
        for (ptrdiff_t s = 0; s < f->shells; s++) r.sigma[s] = b->inside[s] > 0 ? 0 : (real)exp(level[s >= b->end[1]]);
        for (ptrdiff_t j = 0; j < l->d; j += TILE_MOST) {
            ptrdiff_t n = PF_MIN(l->d - j, TILE_MOST);
            pf_normals(z, t->seed, t->stream ? t->stream[i] : 0, (uint64_t)j, n);
            for (ptrdiff_t a = 0; a < n; a++) r.noise[j + a] = (real)z[a];
        }
        memset(r.power, 0, (size_t)f->shells * sizeof(double));
        X(scale_shift)(x, x, (real)(1 / b->scale), (real)(-b->mean / b->scale), l->d);
        X(filter_blend)(f, x, r.power, x, b->inside, r.noise, r.sigma, r.scratch);
        logj[i] += X(band_log)(b, level, (X(side)(b, r.power, 0) + X(side)(b, r.power, 1)) / (double)l->d);
        if (keep) memcpy(keep + i * tile_whole(l->d), x, (size_t)l->d * sizeof(real));
    }
}

static void X(band_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    const X(band) *b = (const X(band) *)l;
    const X(filter) *f = b->mesh->filter;
    X(room) r = X(band_room)(b, work);
    double level[2];
    (void)ready;
    for (ptrdiff_t i = 0; i < t->n; i++) {
        real *x = t->x + i * t->ld;
        double sum = 0;
        X(levels)(level, b, t, i);
        memset(r.power, 0, (size_t)f->shells * sizeof(double));
        X(filter_power)(f, r.power, x, r.scratch);
        for (int side = 0; side < 2; side++) sum += X(side)(b, r.power, side) / (double)l->d * exp(-2 * level[side]);
        X(filter_apply)(f, x, r.noise, x, b->inside, r.scratch);
        X(scale_shift)(x, x, (real)b->scale, (real)b->mean, l->d);
        logj[i] -= X(band_log)(b, level, sum);
    }
}

/* dL/dy[n_y] += through log sigma, on which what was drawn depends, and log q */
static void X(band_vjp_y)(double *gy, const X(band) *b, const double *y, const double per_level[2])
{
    double term[FILL_TERMS];
    for (ptrdiff_t j = 0; j < pf_fill_terms(b->n_y); j++)
        term[j] = per_level[0] * b->level[2 * j] + per_level[1] * b->level[2 * j + 1];
    pf_monomials_vjp(gy, term, y, b->centre, b->reach, b->n_y);
}

static void X(band_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                        const double *glogj, const real *keep, int want_x, real *work)
{
    const X(band) *b = (const X(band) *)l;
    const X(filter) *f = b->mesh->filter;
    X(room) r = X(band_room)(b, work);
    (void)ready, (void)gtheta, (void)stride;
    if (!want_x) return;
    for (ptrdiff_t i = 0; i < g->n; i++) {
        real *gx = g->x + i * g->ld;
        const double *y = X(band_y)(b, g, i);
        double per_level[2];
        memset(r.power, 0, (size_t)f->shells * sizeof(double)); /* of what was drawn, its product with the gradient */
        X(fft_forward)(f->fft, r.noise, keep + i * tile_whole(l->d), r.scratch);
        X(filter_vjp)(f, gx, r.power, r.noise, b->inside, 1, r.scratch);
        X(scale_shift)(gx, gx, (real)(1 / b->scale), 0, l->d);
        for (int side = 0; side < 2; side++)
            per_level[side] = X(side)(b, r.power, side) + glogj[i] * b->modes[2 * side];
        if (g->gy && y) X(band_vjp_y)(g->gy + i * g->n_y, b, y, per_level);
    }
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static void X(band_write)(const X(layer) *l, pf_writer *w)
{
    const X(band) *b = (const X(band) *)l;
    pf_put(w, b->k, sizeof b->k);
    pf_put(w, &b->mean, sizeof b->mean);
    pf_put(w, &b->scale, sizeof b->scale);
    pf_put_int(w, b->n_y);
    pf_put_array(w, b->centre, 2 * b->n_y, sizeof(double));
    pf_put_array(w, b->level, 2 * pf_fill_terms(b->n_y), sizeof(double));
}

static pf_status X(band_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    double k[2] = {0}, mean = 0, scale = 0;
    (void)space, (void)classes;
    pf_get(r, k, sizeof k);
    pf_get(r, &mean, sizeof mean);
    pf_get(r, &scale, sizeof scale);
    pf_band from = {.k_min = k[0], .k_max = k[1], .n_y = pf_get_int(r, 0, FILL_CONDITIONS)};
    if (!r->status && !(isfinite(mean) && isfinite(scale) && isnormal((real)scale) && scale > 0))
        r->status = pf_fail(PF_BAD_FILE, "the file is damaged: a mean or scale makes no sense");
    PF_TRY(r->status);
    double *centre = pf_get_reals(r, 2 * from.n_y, sizeof(double));
    double *level = pf_get_reals(r, 2 * pf_fill_terms(from.n_y), sizeof(double));
    if (!r->status) {
        from.centre = centre, from.reach = centre + from.n_y, from.level = level;
        pf_status status = X(band_new)(l, mesh, &from, mean, scale);
        r->status = status == PF_BAD_ARGUMENT ? PF_BAD_FILE : status;
    }
    free(centre);
    free(level);
    return r->status;
}

const X(layer_ops) X(band_ops) = {
    .kind = "band",
    .layout = ROWS,
    .sizes = X(band_sizes),
    .prepare = X(band_prepare),
    .forward = X(band_forward),
    .inverse = X(band_inverse),
    .vjp = X(band_vjp),
    .write = X(band_write),
    .read = X(band_read),
    .destroy = X(band_destroy),
};

/* ---- the check -------------------------------------------------------------------------------------------- */

pf_status X(check_power)(const double *power, const X(filter) *f, double least)
{
    const double *k = f->k;
    ptrdiff_t first = 0, last = f->shells - 1, between = 0;
    char low[TEXT] = "", high[TEXT] = "", inner[TEXT] = "", k_min[TEXT] = "", k_max[TEXT] = "";
    while (first < last && !(power[first] > least)) first++;
    while (last > first && !(power[last] > least)) last--;
    for (ptrdiff_t i = first; i < last; i++) between += !(power[i] > least);
    while (first > 0 && k[first - 1] == k[first]) between++, first--; /* a part of a |k|, along an axis */
    while (last < f->shells - 1 && k[last + 1] == k[last]) between++, last++;
    if (first == 0 && last == f->shells - 1 && !between) return PF_OK;
    if (first > 0) {
        range(low, 0, k[first - 1]);
        snprintf(k_min, TEXT, "k_min=%.6g", 0.5 * (k[first - 1] + k[first]));
    }
    if (last < f->shells - 1) {
        range(high, k[last + 1], k[f->shells - 1]);
        snprintf(k_max, TEXT, "k_max=%.6g", 0.5 * (k[last] + k[last + 1]));
    }
    if (between) snprintf(inner, TEXT, " at %td of the shells between", between);
    return pf_fail(
        PF_DEGENERATE,
        "data_train: the fields have no power beyond rounding%s%s%s%s%s%s: they have no density there, and a "
        "fit would sharpen it without end. Give %s%s%s%snoise=, which fills them",
        low, first == 1 ? " (all have the same mean)" : "", *low && *high ? " and" : "", high,
        (*low || *high) && *inner ? " and" : "", inner, k_min, *k_min && *k_max ? ", " : "", k_max,
        *k_min || *k_max ? ", for the density of the other modes, or " : "");
}
#endif
