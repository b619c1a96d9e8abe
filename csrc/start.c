/* Fitting a symmetric flow: a start in closed form, then the trainer.
 *
 * Layer by layer: T = P(k)^-1/2 whitens, then Psi carries the quantiles of the pixels to those of a Gaussian. Fields
 * like lognormal ones need Psi before they are whitened: the first T is tried as 1 too, and the better start kept.
 *
 * With a second field c of each point, a shift layer stands before each symmetric one. The one before the first T that
 * whitens begins as the Wiener filter, S = -P_xc / P_cc of g(c), with g straight or what gives c's pixels a Gaussian
 * distribution, whichever tells more of x; the others as S = 0, every other one of them with an even g. For Gaussian
 * fields that is p(x|c). */
#ifndef real
#include <float.h>
#include <unistd.h>

#include "cspline.h"
#include "psi.h"
#include "train.h"
#include "working.h"

enum {
    START_PIXELS = 1 << 25,    /* most pixels that the start looks at */
    QUANTILE_PIXELS = 1 << 18, /* of them sorted for the pixel distribution */
    WIENER_PASSES = 4,         /* of fitting S to the shells */
};

typedef enum { STRAIGHT, GAUSSIAN, EVEN } pointwise; /* g of a shift layer at first */

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Where the distribution of pixels gives Psi and g knots: so many standard deviations of a Gaussian out */
static double edge_of(ptrdiff_t m) { return PF_MIN(2.5 + (double)m / 16, 3.5); }
static double normal_knot(ptrdiff_t j, ptrdiff_t m) { return edge_of(m) * (2 * (double)j / (double)(m - 1) - 1); }

/* Linear interpolation in a sorted sample */
static double quantile(const float *sorted, ptrdiff_t n, double p)
{
    double at = PF_MIN(PF_MAX(p * (double)n - 0.5, 0), (double)n - 1);
    ptrdiff_t i = PF_MIN((ptrdiff_t)at, PF_MAX(n - 2, 0));
    return n < 2 ? sorted[0] : sorted[i] + (at - (double)i) * ((double)sorted[i + 1] - (double)sorted[i]);
}

/* x[m]: where the sorted sample has those of a Gaussian's knots, `least` apart */
static void quantiles(double *x, const float *sorted, ptrdiff_t n, ptrdiff_t m, double least)
{
    for (ptrdiff_t j = 0; j < m; j++) {
        x[j] = quantile(sorted, n, pf_normal_cdf(normal_knot(j, m)));
        if (j) x[j] = PF_MAX(x[j], x[j - 1] + least);
    }
}

/* Psi's parameters from a sample, which is sorted here */
static void start_psi(double *theta, float *sorted, ptrdiff_t n, ptrdiff_t m)
{
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    double step = 0.25, x[PSI_MOST], y[PSI_MOST];
    double least = 1e-3 * PF_MAX(quantile(sorted, n, 0.84) - quantile(sorted, n, 0.16), 1e-6);
    quantiles(x, sorted, n, m, least);
    for (ptrdiff_t j = 0; j < m; j++) {
        y[j] = normal_knot(j, m);
        double rise = quantile(sorted, n, pf_normal_cdf(y[j] + step)) - quantile(sorted, n, pf_normal_cdf(y[j] - step));
        theta[2 * m + j] = log(2 * step / PF_MAX(rise, least));
    }
    pf_increasing_inverse(theta, x, m);
    pf_increasing_inverse(theta + m, y, m);
}

#define TWICE "start.c"
#include "twice.h"
#else

/* What the start works on: some fields on their way through the layers, all of one symmetric shape. */
typedef struct {
    X(flow) *flow;
    const X(mesh) *mesh; /* with the layers' axis */
    ptrdiff_t mu_knots;  /* 1 without one */
    const pf_symmetric_options *o;
    ptrdiff_t n;      /* fields */
    real *x;          /* [n][pixels] */
    double *power;    /* [shells] */
    double *position; /* [filter_knots] */
    /* with a second field c */
    real *u;                /* [pixels] g(c) */
    double *cc, *xx;        /* [shells] spectra */
    double *other;          /* [n_theta] of a shift layer */
    double *value;          /* [filter_knots] */
    double c_mean, c_scale; /* of the pixels of c */
    float *sorted;          /* [n_sorted] */
    ptrdiff_t n_sorted;
    real *spectrum, *work;
    double *noise;
} X(start);

/* Where knots of log T stand: dense at low |k|, where spectra bend, and nearly even beyond. k in units of k_max. */
static void X(place_knots)(double *position, const X(mesh) *mesh, ptrdiff_t m)
{
    double lo = mesh->n_k > 1 ? mesh->k[1] : 0.5, hi = mesh->n_k > 2 ? 1 : lo + 0.5, soft = 0.125;
    for (ptrdiff_t j = 0; j < m; j++)
        position[j] = (lo + soft) * pow((hi + soft) / (lo + soft), (double)j / (double)(m - 1)) - soft;
}

/* Of S too, and one at k = 0: the mean of c tells of that of x. */
static void X(place_shift_knots)(double *position, const X(mesh) *mesh, ptrdiff_t m)
{
    position[0] = 0;
    position[1] = 1;
    if (m > 2) X(place_knots)(position + 1, mesh, m - 1);
}

/* Values at the knots from values at the shells: means with triangular weights, times those given; where a knot has no
 * shell within reach, interpolation between its neighbours. first: the first shell that counts, 1 to leave out k = 0 */
static void X(fit_knots)(double *value, const double *position, const double *log_t, const double *weight,
                         const X(mesh) *mesh, ptrdiff_t m, ptrdiff_t first)
{
    ptrdiff_t shells = mesh->filter->shells, at = first;
    const double *k = mesh->k;
    for (ptrdiff_t j = 0; j < m; j++) {
        double lo = position[PF_MAX(j - 1, 0)], hi = position[PF_MIN(j + 1, m - 1)], sum = 0, total = 0;
        for (ptrdiff_t s = first; s < shells; s++) {
            double side = k[s] < position[j] ? (k[s] - lo) / (position[j] - lo) : (hi - k[s]) / (hi - position[j]);
            if (k[s] == position[j]) side = 1;
            if (!(side > 0)) continue;
            sum += side * weight[s] * log_t[s];
            total += side * weight[s];
        }
        while (at < shells - 1 && k[at] < position[j]) at++;
        ptrdiff_t before = PF_MAX(at - 1, PF_MIN(first, shells - 1));
        double span = k[at] - k[before], t = span > 0 ? (position[j] - k[before]) / span : 0;
        value[j] = total > 0 ? sum / total : log_t[before] + t * (log_t[at] - log_t[before]);
    }
}

/* The same with an axis, value[mu_knots][m]: for every knot of k, log T of the shells around it is fitted by a
 * polynomial in mu^2, with a prior on its coefficients, which there are not enough shells for at the lowest k. log T of
 * one mode of n fields has variance 1 / 2 n; coefficient i > 0, 4^(1 - i). Shells within reach are those between the
 * neighbouring knots, and at least those of the nearest |k| on either side. */
static void X(fit_axial_knots)(double *value, const double *position, const double *log_t, const X(mesh) *mesh,
                               ptrdiff_t m, ptrdiff_t mu_knots, ptrdiff_t n)
{
    const double *k = mesh->k, *mu2 = mesh->filter->mu2, *modes = mesh->filter->modes;
    ptrdiff_t next = PF_MIN(1, mesh->n_k - 1), first = 1, shells = mesh->filter->shells;
    for (ptrdiff_t j = 0; j < m; j++) {
        double a[MU_MOST][MU_MOST + 1] = {{0}}, c[MU_MOST], power[MU_MOST];
        while (next < mesh->n_k - 1 && k[next] < position[j]) next++;
        double lo = PF_MIN(position[PF_MAX(j - 1, 0)], k[PF_MAX(next - 1, PF_MIN(1, mesh->n_k - 1))]),
               hi = PF_MAX(position[PF_MIN(j + 1, m - 1)], k[next]), width = 1.001 * PF_MAX(hi - lo, 1e-3);
        while (first < shells - 1 && k[mesh->shell[first]] < lo) first++;
        for (ptrdiff_t s = first; s < shells && k[mesh->shell[s]] <= hi; s++) {
            double w = modes[s] * (1 - fabs(k[mesh->shell[s]] - position[j]) / width), u = 1;
            for (ptrdiff_t i = 0; i < mu_knots; i++, u *= mu2[s]) power[i] = u;
            for (ptrdiff_t i = 0; i < mu_knots && w > 0; i++) {
                for (ptrdiff_t l = 0; l < mu_knots; l++) a[i][l] += w * power[i] * power[l];
                a[i][mu_knots] += w * power[i] * log_t[s];
            }
        }
        for (ptrdiff_t i = 0; i < mu_knots; i++) a[i][i] += i ? pow(4, (double)(i - 1)) / (2 * (double)n) : 1e-12;
        for (ptrdiff_t i = 0; i < mu_knots; i++) /* elimination; the matrix is positive definite */
            for (ptrdiff_t l = i + 1; l < mu_knots; l++) {
                double by = a[l][i] / a[i][i];
                for (ptrdiff_t q = i; q <= mu_knots; q++) a[l][q] -= by * a[i][q];
            }
        for (ptrdiff_t i = mu_knots - 1; i >= 0; i--) {
            c[i] = a[i][mu_knots];
            for (ptrdiff_t l = i + 1; l < mu_knots; l++) c[i] -= a[i][l] * c[l];
            c[i] /= a[i][i];
        }
        for (ptrdiff_t i = 0; i < mu_knots; i++) {
            double u = pf_mu_knot(i, mu_knots), sum = 0;
            for (ptrdiff_t l = mu_knots - 1; l >= 0; l--) sum = sum * u + c[l];
            value[i * m + j] = position[j] > 0 ? sum : log_t[0];
        }
    }
}

/* S = -P_xc / P_cc of u = g(c), by tables that hold g; *told: what that tells of x, nats a field. Shells where c has
 * little power count little. */
static pf_status X(start_wiener)(double *theta, double *told, X(start) *s, const X(data) *train, const X(layer) *layer,
                                 const void *ready)
{
    const X(mesh) *mesh = s->flow->mesh; /* isotropic */
    const X(filter) *filter = mesh->filter;
    ptrdiff_t shells = filter->shells, pixels = s->flow->space.d, m = s->o->filter_knots;
    double *cross = s->power, *c = s->cc, *x = s->xx, most = 0;
    for (ptrdiff_t i = 0; i < shells; i++) cross[i] = c[i] = x[i] = 0;
    for (ptrdiff_t i = 0; i < s->n; i++) {
        PF_TRY(pf_check_interrupt());
        X(shift_pointwise)(s->u, layer, ready, train->context + i * train->n / s->n * pixels);
        X(filter_power)(filter, c, s->u, s->work);
        X(filter_power)(filter, x, s->x + i * pixels, s->work);
        X(fft_forward)(filter->fft, s->spectrum, s->u, s->work);
        memcpy(s->u, s->x + i * pixels, (size_t)pixels * sizeof(real));
        X(filter_vjp)(filter, s->u, cross, s->spectrum, NULL, 0, s->work); /* += Re(C* X) / pixels */
    }
    *told = 0;
    for (ptrdiff_t i = 0; i < shells; i++) most = PF_MAX(most, c[i]);
    for (ptrdiff_t i = 0; i < shells; i++) {
        double power = c[i] + 1e-12 * most, product = cross[i] * (double)pixels;
        if (x[i] > 0) *told -= 0.5 * filter->modes[i] * log1p(-PF_MIN(product * product / (power * x[i]), 1 - 1e-12));
        cross[i] = -product / power;
        c[i] = power;
    }
    X(place_shift_knots)(s->position, mesh, m);
    pf_increasing_inverse(theta, s->position, m);
    memset(theta + m, 0, (size_t)m * sizeof(double));
    for (int pass = 0; pass < WIENER_PASSES; pass++) { /* means over shells flatten what bends: what is left, again */
        double *left = x, *value = s->value;
        pf_cspline(left, mesh->k, s->position, theta + m, m, shells);
        for (ptrdiff_t i = 0; i < shells; i++) left[i] = cross[i] - left[i];
        X(fit_knots)(value, s->position, left, c, mesh, m, 0);
        for (ptrdiff_t j = 0; j < m; j++) theta[m + j] += value[j];
    }
    return PF_OK;
}

/* g at its knots: straight, what gives the pixels of c a Gaussian distribution, or the square of that */
static void X(start_g)(double *value, const X(start) *s, const X(layer) *layer, pointwise how)
{
    const double *p = X(shift_positions)(layer);
    for (ptrdiff_t j = 0; j < s->o->context_knots; j++) {
        double z = normal_knot(j, s->o->context_knots);
        value[j] = how == STRAIGHT ? (p[j] - s->c_mean) / s->c_scale : how == EVEN ? (z * z - 1) * M_SQRT1_2 : z;
    }
}

/* The Wiener filter of the g that tells more, and x shifted by it */
static pf_status X(start_told)(double *theta, X(start) *s, const X(data) *train, const X(layer) *layer, void *ready)
{
    ptrdiff_t pixels = s->flow->space.d;
    double told[2];
    for (int i = 0; i < 2; i++) {
        double *one = i ? s->other : theta;
        memcpy(one, theta, (size_t)layer->n_theta * sizeof(double));
        X(start_g)(one, s, layer, i ? STRAIGHT : GAUSSIAN);
        layer->ops->prepare(layer, ready, one, 0, 1, s->work);
        PF_TRY(X(start_wiener)(one + s->o->context_knots, told + i, s, train, layer, ready));
    }
    if (told[1] >= told[0]) memcpy(theta, s->other, (size_t)layer->n_theta * sizeof(double));
    layer->ops->prepare(layer, ready, theta, 0, 1, s->work);
    for (ptrdiff_t i = 0; i < s->n; i++) {
        const real *c = train->context + i * train->n / s->n * pixels;
        double logj = 0;
        X(tile) t = {.x = s->x + i * pixels, .n = 1, .d = pixels, .ld = pixels, .layout = ROWS, .tables = 1};
        t.context = &c;
        layer->ops->forward(layer, ready, &t, &logj, NULL, s->work);
        PF_TRY(pf_check_interrupt());
    }
    return PF_OK;
}

/* S = 0, number `idle` of such layers. No gradient would turn a straight g into an even one. */
static void X(start_idle)(double *theta, X(start) *s, const X(layer) *layer, void *ready, int idle)
{
    ptrdiff_t knots = s->o->context_knots, m = s->o->filter_knots;
    X(start_g)(theta, s, layer, idle % 2 ? GAUSSIAN : EVEN);
    X(place_shift_knots)(s->position, s->flow->mesh, m);
    pf_increasing_inverse(theta + knots, s->position, m);
    layer->ops->prepare(layer, ready, theta, 0, 1, s->work);
}

/* power[shells] of the fields per mode: 1 for white noise of unit variance */
static pf_status X(mean_power)(X(start) *s)
{
    const X(filter) *filter = s->mesh->filter;
    ptrdiff_t shells = filter->shells, pixels = s->flow->space.d;
    for (ptrdiff_t i = 0; i < shells; i++) s->power[i] = 0;
    for (ptrdiff_t i = 0; i < s->n; i++) {
        PF_TRY(pf_check_interrupt());
        X(filter_power)(filter, s->power, s->x + i * pixels, s->work);
    }
    for (ptrdiff_t i = 0; i < shells; i++) s->power[i] /= (double)s->n * filter->modes[i] * (double)pixels;
    return PF_OK;
}

/* Whether the mean of the fields, and no other mode below the range, is drawn, with a power of its own: then T has a
 * knot there. */
static int X(mean_drawn)(const X(start) *s)
{
    const double *band = X(layer_band)(s->flow->layers[0]), *k = s->mesh->filter->k;
    return band && s->mesh->filter->shells > 1 && band[0] > 0 && band[0] <= k[1] * (1 + 1e-9);
}

/* Positions and values of log T that whitens the fields, or 0 everywhere */
static pf_status X(start_filter)(double *theta, X(start) *s, int flat)
{
    const X(mesh) *mesh = s->mesh;
    ptrdiff_t shells = mesh->filter->shells, m = s->o->filter_knots;
    double most = 0;
    PF_TRY(X(mean_power)(s));
    for (ptrdiff_t i = 0; i < shells; i++) most = PF_MAX(most, s->power[i]);
    for (ptrdiff_t i = 0; i < shells; i++)
        s->power[i] = flat ? 0 : -0.5 * log(PF_MAX(s->power[i], 1e-12 * most)); /* now log T */
    int mean = X(mean_drawn)(s);
    if (mean) X(place_shift_knots)(s->position, mesh, m);
    else X(place_knots)(s->position, mesh, m);
    if (mesh->shell) X(fit_axial_knots)(theta + m, s->position, s->power, mesh, m, s->mu_knots, s->n);
    else X(fit_knots)(theta + m, s->position, s->power, mesh->filter->modes, mesh, m, !mean);
    pf_increasing_inverse(theta, s->position, m);
    return PF_OK;
}

/* The fields that the start looks at, from the whole set, standardised */
static pf_status X(start_load)(X(start) *s, const X(data) *train, const X(layer) *scale)
{
    const X(flow) *f = s->flow;
    ptrdiff_t pixels = f->space.d;
    for (ptrdiff_t i = 0; i < s->n; i++) {
        real *x = s->x + i * pixels;
        double logj = 0;
        uint64_t random = stream(STREAM_FILL, i);
        X(tile) t = {.x = x, .n = 1, .d = pixels, .ld = pixels, .layout = ROWS, .tables = 1};
        t.seed = s->o->train.seed;
        t.stream = &random;
        memcpy(x, train->x + i * train->n / s->n * pixels, (size_t)pixels * sizeof(real));
        if (f->noise[1] > 0)
            X(add_noise)(x, f, 0.5 * (f->noise[0] + f->noise[1]), s->o->train.seed, stream(STREAM_NOISE, i), s->noise);
        scale->ops->forward(scale, NULL, &t, &logj, NULL, s->work);
        PF_TRY(pf_check_interrupt());
    }
    return PF_OK;
}

/* The last of the symmetric layers, and the shift layers before them where there is a second field, which follow the
 * scale or fill layer */
static ptrdiff_t X(last_convolution)(const pf_symmetric_options *o, const X(data) *train)
{
    return o->n_layers * (train->context ? 2 : 1);
}

/* Theta of these layers. *logp: the mean log p of the standardised fields. */
static pf_status X(start_layers)(double *logp, X(start) *s, const X(data) *train, int flat_first)
{
    X(flow) *f = s->flow;
    ptrdiff_t pixels = f->space.d, n = s->n, k = s->o->psi_knots;
    int first = 1, idle = 0; /* symmetric layer; shift layers of S = 0 so far */
    *logp = 0;
    PF_TRY(X(start_load)(s, train, f->layers[0]));
    for (ptrdiff_t l = 1; l <= X(last_convolution)(s->o, train); l++) {
        const X(layer) *layer = f->layers[l];
        double *theta = f->theta + f->at[l];
        const X(psi) *psi;
        const real *t;
        memset(theta, 0, (size_t)layer->n_theta * sizeof(double));
        if (layer->ops->context) {
            if (l == (flat_first ? 3 : 1)) PF_TRY(X(start_told)(theta, s, train, layer, f->ready[l]));
            else X(start_idle)(theta, s, layer, f->ready[l], idle++);
            continue;
        }
        PF_TRY(X(start_filter)(theta + 3 * k, s, flat_first && first));
        first = 0;
        layer->ops->prepare(layer, f->ready[l], theta, 0, 1, s->work);
        *logp += X(symmetric_parts)(&psi, &t, layer, f->ready[l]);
        for (ptrdiff_t i = 0; i < n; i++) {
            X(filter_apply)(s->mesh->filter, s->x + i * pixels, s->spectrum, s->x + i * pixels, t, s->work);
            PF_TRY(pf_check_interrupt());
        }
        for (ptrdiff_t i = 0; i < s->n_sorted; i++)
            s->sorted[i] = (float)s->x[(ptrdiff_t)((double)i * (double)(n * pixels) / (double)s->n_sorted)];
        start_psi(theta, s->sorted, s->n_sorted, k);
        layer->ops->prepare(layer, f->ready[l], theta, 0, 1, s->work);
        for (ptrdiff_t i = 0; i < n; i++) {
            *logp += X(psi_forward)(s->x + i * pixels, s->x + i * pixels, psi, pixels) / (double)n;
            PF_TRY(pf_check_interrupt());
        }
    }
    for (ptrdiff_t i = 0; i < n; i++) *logp -= 0.5 * X(sum_squares)(s->x + i * pixels, pixels) / (double)n;
    return PF_OK;
}

/* Power below which a shell has none, for pixels of unit variance. What numbers are rounded to is white noise, the more
 * of it the further they are from 0. Fourier transforms add theirs: where a line of modes has most of the power, others
 * on that line have up to 1e-13 times the side's pixels in floats (measured: 3e-12 and 6e-11 at 128^2 and 512^2 of
 * fields with P ~ k^-6). Double numbers are held to what other floats have, as the same maps may come as floats, but
 * for what their mean rounds them to. */
static double X(rounding)(double *offset, const X(start) *s, const X(data) *train, double mean, double scale)
{
    ptrdiff_t pixels = s->flow->space.d, side = 1;
    double far = mean / scale, eps = FLT_EPSILON;
    int floats = 1;
    for (int i = 0; i < s->flow->space.ndim; i++) side = PF_MAX(side, s->flow->space.n[i]);
    for (ptrdiff_t i = 0; i < s->n && floats; i++) {
        const real *x = train->x + i * train->n / s->n * pixels;
        for (ptrdiff_t j = 0; j < pixels && floats; j++) floats = (real)(float)x[j] == x[j];
    }
    if (!floats) eps = DBL_EPSILON;
    *offset = eps * eps * far * far;
    return REAL_BITS == 32 ? 1e-12 * PF_MAX(0.25 * (double)side, 1) : 1e-12;
}

static pf_status X(refuse_empty)(X(start) *s, const X(data) *train, double mean, double scale)
{
    double offset, base = X(rounding)(&offset, s, train, mean, scale), d = (double)s->flow->space.d;
    PF_TRY(X(start_load)(s, train, s->flow->layers[0]));
    PF_TRY(X(mean_power)(s));
    if (train->n == 1) s->power[0] = INFINITY; /* of one field the mean is the mean */
    else
        s->power[0] *= (base + offset) /
                       (base * d + offset); /* a mean is rounded as a pixel; an offset's averages out */
    return X(check_power)(s->power, s->mesh->filter, base + offset);
}

static pf_status X(best_start)(X(start) *s, const X(data) *train, double mean, double scale)
{
    double flat, white;
    PF_TRY(X(refuse_empty)(s, train, mean, scale));
    PF_TRY(X(start_layers)(&flat, s, train, 1));
    PF_TRY(X(start_layers)(&white, s, train, 0));
    return flat > white ? X(start_layers)(&flat, s, train, 1) : PF_OK;
}

/* x, c: mean and scale of the pixels of either field */
static pf_status X(closed_form)(X(flow) *f, const X(data) *train, const double *x, const double *c,
                                const pf_symmetric_options *o)
{
    const X(mesh) *mesh = X(symmetric_mesh)(f->layers[train->context ? 2 : 1]);
    const X(filter) *filter = mesh->filter;
    ptrdiff_t pixels = f->space.d, work = filter->work;
    for (ptrdiff_t l = 0; l <= X(last_convolution)(o, train); l++)
        work = PF_MAX(work, f->layers[l]->ops->sizes(f->layers[l], 1, TILE_STEP, 1).work);
    X(start) s = {.flow = f, .mesh = mesh, .mu_knots = mesh->shell ? o->mu_knots : 1, .o = o};
    s.n = PF_MAX(PF_MIN(PF_MIN(o->start_fields, train->n), START_PIXELS / pixels), 1);
    s.n_sorted = PF_MIN(s.n * pixels, QUANTILE_PIXELS);
    s.x = PF_ALLOC(real, s.n * pixels);
    s.power = PF_ALLOC(double, filter->shells);
    s.position = PF_ALLOC(double, o->filter_knots);
    s.sorted = PF_ALLOC(float, s.n_sorted);
    s.spectrum = PF_ALLOC(real, filter->fft->spectrum);
    s.work = PF_ALLOC(real, work);
    s.noise = PF_ALLOC(double, X(noise_scratch)(f));
    ptrdiff_t with = train->context != NULL;
    s.u = PF_ALLOC(real, with * pixels);
    s.cc = PF_ALLOC(double, with * filter->shells);
    s.xx = PF_ALLOC(double, with * filter->shells);
    s.other = PF_ALLOC(double, with *(o->context_knots + 2 * o->filter_knots));
    s.value = PF_ALLOC(double, with * o->filter_knots);
    s.c_mean = c[0];
    s.c_scale = c[1];
    pf_status status = PF_NO_MEMORY;
    if (s.x && s.power && s.position && s.sorted && s.spectrum && s.work && s.noise && s.u && s.cc && s.xx && s.other &&
        s.value)
        status = X(best_start)(&s, train, x[0], x[1]);
    free(s.x);
    free(s.power);
    free(s.position);
    free(s.sorted);
    free(s.spectrum);
    free(s.work);
    free(s.noise);
    free(s.u);
    free(s.cc);
    free(s.xx);
    free(s.other);
    free(s.value);
    return status;
}

/* ---- patches, which need not be the same everywhere, on the symmetric layers ------------------------------- */

/* Patch layer number i, with all slices of a patch unless there are to be fewer */
static pf_patches X(patches_of)(const X(flow) *f, const pf_symmetric_options *o, ptrdiff_t i)
{
    const ptrdiff_t *n = f->space.n, image[3] = {n[0], n[1], f->space.ndim > 2 ? n[2] : 1};
    const ptrdiff_t kernel[3] = {PF_MIN(o->patch_size, n[0]), PF_MIN(o->patch_size, n[1]), 1};
    return pf_patches_rolled(image, kernel, o->train.seed, (uint64_t)(i + 1) << 32 | 1);
}

static ptrdiff_t X(patch_k)(const pf_patches *p, const pf_symmetric_options *o)
{
    return o->patch_slices ? PF_MIN(o->patch_slices, pf_patches_size(p)) : pf_patches_size(p);
}

/* The fields as the layers before the patches leave them */
static pf_status X(symmetric_rows)(real *x, X(flow) *f, const X(data) *train, ptrdiff_t n,
                                   const pf_symmetric_options *o)
{
    ptrdiff_t d = f->space.d, ld = tile_whole(d), work = 0;
    for (ptrdiff_t l = 0; l <= X(last_convolution)(o, train); l++)
        work = PF_MAX(work, f->layers[l]->ops->sizes(f->layers[l], 1, TILE_STEP, 1).work);
    real *line = PF_ALLOC(real, ld), *scratch = PF_ALLOC(real, work);
    double *noise = PF_ALLOC(double, X(noise_scratch)(f)), logj = 0;
    pf_status status = line && scratch && noise ? PF_OK : PF_NO_MEMORY;
    for (ptrdiff_t i = 0; i < n && !status; i++) {
        ptrdiff_t row = i * train->n / n;
        uint64_t random = stream(STREAM_FILL, row);
        X(tile) t = {.x = line, .n = 1, .d = d, .ld = ld, .layout = ROWS, .tables = 1, .seed = o->train.seed};
        t.stream = &random;
        const real *context = train->context ? train->context + row * d : NULL;
        if (context) t.context = &context;
        if (train->n_y) t.y = train->y + row * train->n_y, t.n_y = train->n_y;
        memcpy(line, train->x + row * d, (size_t)d * sizeof(real));
        if (f->noise[1] > 0)
            X(add_noise)(line, f, 0.5 * (f->noise[0] + f->noise[1]), o->train.seed, stream(STREAM_NOISE, row), noise);
        for (ptrdiff_t l = 0; l <= X(last_convolution)(o, train); l++)
            f->layers[l]->ops->forward(f->layers[l], f->ready[l], &t, &logj, NULL, scratch);
        memcpy(x + i * d, line, (size_t)d * sizeof(real));
        status = pf_check_interrupt();
    }
    free(line);
    free(scratch);
    free(noise);
    return status;
}

/* Theta of the patch layers, one after another, as GIS fits them */
static pf_status X(fit_each_patch)(X(flow) *f, X(working) *s, const pf_symmetric_options *o)
{
    pf_gis_options gis;
    pf_gis_defaults(&gis);
    for (ptrdiff_t i = 0; i < o->patch_layers; i++) {
        ptrdiff_t l = f->n_layers - o->patch_layers + i;
        pf_patches patches = X(patches_of)(f, o, i);
        X(settings) own = {.options = &gis, .n = (double)s->n, .d = pf_patches_size(&patches), .classes = 1};
        own.k = X(patch_k)(&patches, o);
        own.m = o->patch_knots;
        own.seed = o->train.seed;
        own.slice_steps = (ptrdiff_t)PF_MIN(PF_MAX((double)s->n / (double)own.d, 1), 50);
        X(problem) p = {.rows = {{.s = s, .picked = s->tiles}}, .sides = 1, .d = own.d, .k = own.k, .classes = 1};
        X(fitted) fitted = {0};
        double logp;
        pf_status status = X(fit_patches)(&fitted, &patches, &p, &own, (uint64_t)(i + 1) << 32);
        if (!status) memcpy(f->theta + f->at[l], fitted.theta, (size_t)(f->at[l + 1] - f->at[l]) * sizeof(double));
        if (!status) X(layer_release)(fitted.layer);
        free(fitted.theta);
        real *work = status ? NULL : PF_ALLOC(real, X(flow_prepare_work)(f));
        if (!status && !work) status = PF_NO_MEMORY;
        if (!status) X(flow_prepare)(f, work);
        free(work);
        if (!status) status = X(working_forward)(s, f, l, &logp);
        PF_TRY(status);
    }
    return PF_OK;
}

static pf_status X(start_patches)(X(flow) *f, const X(data) *train, const pf_symmetric_options *o)
{
    ptrdiff_t d = f->space.d, n = PF_MAX(PF_MIN(train->n, START_PIXELS / d), 1);
    X(working) s = {0};
    real *x = PF_ALLOC(real, n * d);
    X(data) data = {.x = x, .n = n};
    pf_status status = x ? X(symmetric_rows)(x, f, train, n, o) : PF_NO_MEMORY;
    if (!status) status = X(working_new)(&s, &data, d, TILE_MOST, 0, NULL, NULL, "train");
    free(x);
    if (!status) status = X(fit_each_patch)(f, &s, o);
    X(working_free)(&s);
    return status;
}

/* ---- the fit ---------------------------------------------------------------------------------------------- */

/* Of all pixels of train->x that are observed */
static pf_status X(mean_and_scale)(double *mean, double *scale, const X(flow) *f, const X(data) *train,
                                   const unsigned char *observed)
{
    double sum = 0, square = 0, known = 0;
    for (ptrdiff_t j = 0; j < f->space.d; j++) known += !observed || observed[j];
    double count = (double)train->n * known;
    for (ptrdiff_t i = 0; i < train->n; i++) {
        PF_TRY(pf_check_interrupt());
        for (ptrdiff_t j = 0; j < f->space.d; j++)
            if (!observed || observed[j]) sum += (double)train->x[i * f->space.d + j];
    }
    *mean = sum / count;
    for (ptrdiff_t i = 0; i < train->n; i++) {
        PF_TRY(pf_check_interrupt());
        for (ptrdiff_t j = 0; j < f->space.d; j++) {
            double d = !observed || observed[j] ? (double)train->x[i * f->space.d + j] - *mean : 0;
            square += d * d;
        }
    }
    *scale = sqrt(square / count);
    return PF_OK;
}

/* One mean and scale of all pixels that are observed, with their noise */
static pf_status X(standard)(double *mean, double *scale, const X(flow) *f, const X(data) *train,
                             const unsigned char *observed)
{
    double white = 1, known = 0;
    const double *noise = f->noise;
    if (f->noise_map) {
        white = 0;
        for (ptrdiff_t j = 0; j < f->space.d; j++) known += !observed || observed[j];
        for (ptrdiff_t j = 0; j < f->space.d; j++)
            if (!observed || observed[j]) white += (double)f->noise_t[j] * (double)f->noise_t[j] / known;
    } else if (f->noise_t) { /* its variance, for a sigma of 1 */
        white = 0;
        for (ptrdiff_t s = 0; s < f->mesh->filter->shells; s++)
            white += f->mesh->filter->modes[s] * (double)f->noise_t[s] * (double)f->noise_t[s] / (double)f->space.d;
    }
    PF_TRY(X(mean_and_scale)(mean, scale, f, train, observed));
    *scale = sqrt(*scale * *scale + white * (noise[0] * noise[0] + noise[0] * noise[1] + noise[1] * noise[1]) / 3);
    if (!(*scale > 1e-7 * fabs(*mean)) || !isnormal((real)*scale))
        return pf_fail(PF_DEGENERATE, "data_train: the fields are constant, or so large, small or far from 0 that they "
                                      "are so to rounding: they have no density");
    return PF_OK;
}

static pf_status X(first_layer)(X(layer) **layer, X(mesh) *mesh, double mean, double scale, ptrdiff_t d,
                                const pf_symmetric_options *o)
{
    if (o->band && (o->observed || o->fill))
        return pf_fail(PF_BAD_ARGUMENT, "k_min, k_max: a range of modes and a mask do not go together");
    if (o->band) return X(band_new)(layer, mesh, o->band, mean, scale);
    if (!o->observed && !o->fill) return X(scale_new)(layer, mean, scale, d);
    if (o->fill) return X(fill_new)(layer, o->fill, o->fill->mean, o->fill->scale, NULL, d);
    int32_t *pixel = PF_ALLOC(int32_t, d);
    if (!pixel) return PF_NO_MEMORY;
    pf_fill fill = {.pixel = pixel};
    for (ptrdiff_t i = 0; i < d; i++)
        if (!o->observed[i]) pixel[fill.n++] = (int32_t)i;
    pf_status status = X(fill_new)(layer, &fill, mean, scale, NULL, d);
    free(pixel);
    return status;
}

/* Where g has knots: quantiles of the pixels of c; and their mean and scale */
static pf_status X(context_knots)(double *p, double *mean, double *scale, const X(flow) *f, const X(data) *train,
                                  const pf_symmetric_options *o)
{
    X(data) c = {.x = train->context, .n = train->n};
    ptrdiff_t all = train->n * f->space.d, n = PF_MIN(all, QUANTILE_PIXELS);
    PF_TRY(X(mean_and_scale)(mean, scale, f, &c, NULL));
    if (!(*scale > 1e-7 * fabs(*mean)) || !isnormal((real)*scale))
        return pf_fail(PF_BAD_ARGUMENT, "condition_field: the fields are constant, or so to rounding");
    float *sorted = PF_ALLOC(float, n);
    if (!sorted) return PF_NO_MEMORY;
    for (ptrdiff_t i = 0; i < n; i++)
        sorted[i] = (float)(((double)c.x[(ptrdiff_t)((double)i * (double)all / (double)n)] - *mean) / *scale);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    quantiles(p, sorted, n, o->context_knots, 0.05);
    for (ptrdiff_t j = 0; j < o->context_knots; j++) p[j] = *mean + *scale * p[j];
    free(sorted);
    return PF_OK;
}

/* Where coupling layers divide scales, of k_max: every second one at the next place, the large scales first moved */
static const double X(split_at)[] = {0.225, 0.36, 0.135};

static pf_status X(couplings)(X(flow) *f, const pf_symmetric_options *o)
{
    double *theta = PF_ALLOC(double, 2 * o->coupling_channels * o->coupling_knots);
    pf_status status = theta ? PF_OK : PF_NO_MEMORY;
    for (ptrdiff_t i = 0; i < o->couplings && !status; i++) {
        X(layer) *layer;
        status = X(coupling_new)(&layer, f->mesh, X(split_at)[i / 2 % 3], i % 2 == 0, o->coupling_channels,
                                 o->coupling_knots);
        if (status) break;
        X(coupling_start)(theta, layer);
        status = X(flow_append)(f, layer, theta);
    }
    free(theta);
    return status;
}

/* The layers, without their parameters, and the noise; x, c: mean and scale of the pixels of either field */
static pf_status X(stack)(X(flow) *f, double *x, double *c, const X(data) *train, const pf_symmetric_options *o)
{
    ptrdiff_t most = 3 * o->psi_knots + (1 + o->mu_knots) * o->filter_knots + o->context_knots;
    double *zero = PF_CALLOC(double, most), p[SHIFT_KNOTS_MOST];
    X(layer) *layer = NULL;
    pf_status status = zero ? X(set_noise)(f, &o->train) : PF_NO_MEMORY;
    if (!status) status = X(standard)(x, x + 1, f, train, o->observed);
    if (!status) status = X(first_layer)(&layer, f->mesh, x[0], x[1], f->space.d, o);
    if (!status) status = X(flow_append)(f, layer, zero);
    if (!status && train->context) status = X(context_knots)(p, c, c + 1, f, train, o);
    for (ptrdiff_t l = 0; l < o->n_layers && !status; l++) {
        if (train->context) status = X(shift_new)(&layer, f->mesh, p, o->context_knots, o->filter_knots);
        if (train->context && !status) status = X(flow_append)(f, layer, zero);
        if (!status) status = X(symmetric_new)(&layer, f->mesh, o->psi_knots, o->filter_knots, o->axis, o->mu_knots);
        if (!status) status = X(flow_append)(f, layer, zero);
    }
    free(zero);
    zero = NULL;
    if (!status) status = X(couplings)(f, o);
    for (ptrdiff_t i = 0; i < o->patch_layers && !status; i++) {
        pf_patches patches = X(patches_of)(f, o, i);
        status = X(patch_new)(&layer, &patches, X(patch_k)(&patches, o), o->patch_knots, 1);
        if (!status && !zero && !(zero = PF_CALLOC(double, layer->n_theta))) {
            X(layer_release)(layer);
            status = PF_NO_MEMORY;
        }
        if (!status) status = X(flow_append)(f, layer, zero);
    }
    free(zero);
    return status;
}

static pf_status X(fit)(X(flow) **flow, const X(data) *train, const X(data) *validate, int ndim, const ptrdiff_t *mesh,
                        const double *box, const pf_symmetric_options *o)
{
    double start_time = pf_seconds(), x[2] = {0, 1}, c[2] = {0, 1};
    int trained = 0;
    X(flow) *f;
    *flow = NULL;
    PF_TRY(pf_check_options(o, pf_symmetric_list));
    PF_TRY(pf_check_options(&o->train, pf_train_list));
    if (ndim < 2) return pf_fail(PF_BAD_ARGUMENT, "data_train: fields have 2 or 3 axes, not %d", ndim);
    PF_TRY(X(flow_new)(&f, ndim, mesh, box, 0));
    pf_status status = X(check_points)(train, f, o->observed, train->n_y, "train");
    if (!status) status = X(stack)(f, x, c, train, o);
    int resumed = o->train.watch.checkpoint && !access(o->train.watch.checkpoint, F_OK);
    if (!status && !resumed) status = X(closed_form)(f, train, x, c, o);
    if (!status && !resumed && o->patch_layers) status = X(start_patches)(f, train, o);
    if (!status) status = X(train)(f, &trained, train, validate, &o->train, start_time);
    if (trained) *flow = f;
    else X(flow_free)(f);
    return status;
}

pf_status X(symmetric_fit)(X(flow) **flow, const X(data) *train, const X(data) *validate, int ndim,
                           const ptrdiff_t *mesh, const double *box, const pf_symmetric_options *options)
{
    pf_begin();
    return pf_end(X(fit)(flow, train, validate, ndim, mesh, box, options));
}
#endif
