/* Fitting a symmetric flow: a start in closed form, maximum likelihood by Adam, then, if asked for, fine-tuning on the
 * posterior; and the temperature of a posterior.
 *
 * log p(y|x) = log p(x|y) + log prior(y) - log Z(x), Z = integral p(x|y') prior(y') dy', the prior uniform on the box
 * that the training conditions span. A posterior is a small part of it, and may be far from the true condition, so Z is
 * estimated by adaptive importance sampling (Cornuet et al. 2012, arXiv 0907.1254), which knows nothing of the truth:
 * see "draws" below. */
#ifndef real
#include <unistd.h>

#include "adam.h"
#include "cspline.h"
#include "file.h"
#include "symflow.h"

enum {
    START_PIXELS = 1 << 25,    /* most pixels that the start looks at */
    QUANTILE_PIXELS = 1 << 18, /* of them sorted for the pixel distribution */
    ROUNDS = 5,                /* of draws */
    TRIES = 8,                 /* points looked at for a draw, at most, until one is within the prior's box */
    VALIDATE_DRAWS = 2,        /* times as many draws for a validation field as for a training field */
    CALIBRATE_DRAWS = 3,       /* times as many for a temperature */
    MOST_TRIPLED = 6,          /* parameters up to which more of them need more draws */
};

static const double temperatures[2] = {1e-4, 1e2}; /* least and most that a calibration tries */

/* Streams of random numbers, by their purpose; the last 32 bits say which. */
enum { STREAM_WEIGHTS = 1, STREAM_ORDER, STREAM_NOISE, STREAM_SIGMA, STREAM_DRAWS };
static uint64_t stream(int purpose, ptrdiff_t which) { return (uint64_t)purpose << 56 | (uint64_t)which; }

static double uniform(uint64_t seed, uint64_t stream_, uint64_t i)
{
    return ((double)pf_uniform_int(seed, stream_, i, (uint64_t)1 << 52) + 0.5) * 0x1p-52;
}

void pf_symflow_defaults(pf_symflow_options *o)
{
    *o = (pf_symflow_options){
        .n_layers = 5,
        .psi_knots = 8,
        .filter_knots = 128,
        .hidden = {512, 512},
        .start_fields = 64,
        .epochs = 60,
        .batch = 16,
        .patience = 0,
        .learning_rate = 8e-3,
        .warmup = 0.05,
        .weight_decay = 1e-2,
        .clip = 3,
        .posterior_epochs = 5,
        .posterior_rate = 2e-4,
        .posterior_draws = 0,
        .checkpoint_seconds = 60,
    };
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Linear interpolation in a sorted sample */
static double quantile(const float *sorted, ptrdiff_t n, double p)
{
    double at = PF_MIN(PF_MAX(p * (double)n - 0.5, 0), (double)n - 1);
    ptrdiff_t i = PF_MIN((ptrdiff_t)at, PF_MAX(n - 2, 0));
    return n < 2 ? sorted[0] : sorted[i] + (at - (double)i) * ((double)sorted[i + 1] - (double)sorted[i]);
}

/* log Z = log sum_i weight_i p_i^b over draws 1 .. n - 1 */
static double log_evidence(const double *log_weight, const double *logp, double b, ptrdiff_t n)
{
    double most = -INFINITY, sum = 0;
    for (ptrdiff_t i = 1; i < n; i++) most = PF_MAX(most, log_weight[i] + b * logp[i]);
    for (ptrdiff_t i = 1; i < n; i++) sum += exp(log_weight[i] + b * logp[i] - most);
    return most + log(sum);
}

/* ---- draws of conditions
 *
 * Points u of the unit cube, which the prior's box is carried to. Round 0 covers the cube evenly. Every later round has
 * what was seen so far weighted by prior / density of the draws and by p(x|y)^b, b the largest in (0, 1] that leaves an
 * effective number of draws E. Its own draws are from Gaussians around the likeliest draw, which at a wall of the box
 * stays there whatever b is, where a mean recedes from it; around the mean once b = 1. Their covariance is
 * C(b) max(b, 1/E), what is expected of the posterior and of the error of the centre, widened by a factor and, for a
 * quarter of the draws, by another two. The density of the draws is the mixture of all rounds'. All are low-discrepancy
 * sequences, shifted at random. */

static const double widen[2] = {1.25, 2.5};

typedef struct {
    ptrdiff_t d;
    double *u;                      /* [draws][d] */
    double *centre[ROUNDS];         /* [d] */
    double *root[ROUNDS];           /* [d][d], lower triangular, covariance = root root^T */
    double number[ROUNDS][2];       /* points looked at, for either width */
    double log_volume[ROUNDS];      /* log|root| + d / 2 log(2 pi) */
    double *step, *scratch, *share; /* [d] of the low-discrepancy sequence, [2][d], [draws] */
    double *memory;
} proposals;

static ptrdiff_t round_start(ptrdiff_t round, ptrdiff_t draws) { return round * draws / ROUNDS; }

/* Draws for n_y parameters when the caller leaves it open: 127 for one or two, then three times as many for each. The
 * estimate is then off by a few hundredths of a nat where the posterior has one peak: tests/c/test_logposterior.c. */
static ptrdiff_t default_draws(ptrdiff_t n_y)
{
    ptrdiff_t draws = 128;
    for (ptrdiff_t j = 2; j < PF_MIN(n_y, MOST_TRIPLED); j++) draws *= 3;
    return draws - 1;
}

static pf_status proposals_new(proposals *p, ptrdiff_t d, ptrdiff_t draws)
{
    ptrdiff_t size = draws * (d + 1) + ROUNDS * (d + d * d) + 3 * d;
    double *at = p->memory = PF_ALLOC(double, size), phi = 1.5;
    if (!at) return PF_NO_MEMORY;
    p->d = d;
    p->u = at, at += draws * d;
    p->share = at, at += draws;
    for (int r = 0; r < ROUNDS; r++) {
        p->centre[r] = at, at += d;
        p->root[r] = at, at += d * d;
    }
    p->scratch = at, at += 2 * d;
    p->step = at;
    for (int i = 0; i < 60; i++) phi = pow(1 + phi, 1 / (double)(d + 1)); /* phi^(d + 1) = phi + 1 */
    for (ptrdiff_t j = 0; j < d; j++) p->step[j] = pow(phi, -(double)(j + 1));
    return PF_OK;
}

/* Round r's points, at most `count`, to u[][d]; returns how many there are. */
static ptrdiff_t draw_round(proposals *p, double *u, int r, ptrdiff_t count, uint64_t seed, uint64_t random)
{
    ptrdiff_t d = p->d, kept = 0;
    double *z = p->scratch;
    p->number[r][0] = p->number[r][1] = 0;
    for (ptrdiff_t m = 0; kept < count && m < TRIES * count; m++) {
        int wide = m % 4 == 3, inside = 1;
        for (ptrdiff_t j = 0; j < d; j++) {
            double t = uniform(seed, random, (uint64_t)(r * d + j)) + (double)(m + 1) * p->step[j];
            t -= floor(t);
            z[j] = r ? widen[wide] * pf_normal_quantile(PF_MIN(PF_MAX(t, 1e-12), 1 - 1e-12)) : t;
        }
        for (ptrdiff_t i = 0; i < d; i++) {
            double sum = r ? p->centre[r][i] : z[i];
            for (ptrdiff_t j = 0; j <= i && r; j++) sum += p->root[r][i * d + j] * z[j];
            u[kept * d + i] = sum;
            inside &= sum >= 0 && sum <= 1;
        }
        p->number[r][wide]++;
        kept += inside;
    }
    return kept;
}

/* log[n] = -log (number times density of the draws), of rounds 0 .. rounds - 1 */
static void weigh(double *log_weight, const proposals *p, int rounds, ptrdiff_t n)
{
    ptrdiff_t d = p->d;
    for (ptrdiff_t m = 0; m < n; m++) {
        double density = p->number[0][0] + p->number[0][1], *z = p->scratch;
        for (int r = 1; r < rounds; r++) {
            double square = 0;
            for (ptrdiff_t i = 0; i < d; i++) {
                z[i] = p->u[m * d + i] - p->centre[r][i];
                for (ptrdiff_t j = 0; j < i; j++) z[i] -= p->root[r][i * d + j] * z[j];
                z[i] /= p->root[r][i * d + i];
                square += z[i] * z[i];
            }
            for (int c = 0; c < 2; c++)
                density += p->number[r][c] *
                           exp(-0.5 * square / (widen[c] * widen[c]) - p->log_volume[r] - (double)d * log(widen[c]));
        }
        log_weight[m] = -log(density);
    }
}

/* share[n] = weights p^b, their sum 1; returns the effective number of them. */
static double temper(double *share, const double *log_weight, const double *logp, double b, ptrdiff_t n)
{
    double most = -INFINITY, sum = 0, square = 0;
    for (ptrdiff_t i = 0; i < n; i++) most = PF_MAX(most, log_weight[i] + b * logp[i]);
    for (ptrdiff_t i = 0; i < n; i++) sum += share[i] = exp(log_weight[i] + b * logp[i] - most);
    for (ptrdiff_t i = 0; i < n; i++) {
        share[i] /= sum;
        square += share[i] * share[i];
    }
    return 1 / square;
}

/* The centre and root of round r, from the n draws so far */
static void propose(proposals *p, int r, const double *log_weight, const double *logp, ptrdiff_t count, ptrdiff_t n)
{
    ptrdiff_t d = p->d;
    double *centre = p->centre[r], *root = p->root[r], *share = p->share, *z = p->scratch;
    double lo = log(1e-8), hi = 0, enough = (double)(d + 2) + (double)count / 8, b = 1;
    double effective = temper(share, log_weight, logp, b, n);
    ptrdiff_t best = 0;
    if (effective < enough) {
        for (int step = 0; step < 40; step++) {
            b = exp(0.5 * (lo + hi));
            if (temper(share, log_weight, logp, b, n) < enough) hi = log(b);
            else lo = log(b);
        }
        effective = temper(share, log_weight, logp, b = exp(lo), n);
    }
    memset(centre, 0, (size_t)d * sizeof(double));
    memset(root, 0, (size_t)(d * d) * sizeof(double));
    for (ptrdiff_t m = 0; m < n; m++)
        for (ptrdiff_t i = 0; i < d; i++) centre[i] += share[m] * p->u[m * d + i];
    for (ptrdiff_t m = 1; m < n; m++) best = logp[m] > logp[best] ? m : best;
    if (b < 1) memcpy(centre, p->u + best * d, (size_t)d * sizeof(double));
    double factor = PF_MAX(b, 1 / effective) / PF_MAX(1 - 1 / effective, 0.1);
    for (ptrdiff_t m = 0; m < n; m++) {
        for (ptrdiff_t i = 0; i < d; i++) z[i] = p->u[m * d + i] - centre[i];
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t j = 0; j <= i; j++) root[i * d + j] += factor * share[m] * z[i] * z[j];
    }
    p->log_volume[r] = 0.5 * (double)d * PF_LOG_2PI;
    for (ptrdiff_t i = 0; i < d; i++) { /* Cholesky, of a covariance with no more correlation than 0.999 */
        double ridge = 1e-3 * root[i * d + i] + 1e-12;
        root[i * d + i] += ridge;
        for (ptrdiff_t j = 0; j <= i; j++) {
            double sum = root[i * d + j];
            for (ptrdiff_t k = 0; k < j; k++) sum -= root[i * d + k] * root[j * d + k];
            root[i * d + j] = j < i ? sum / root[j * d + j] : sqrt(PF_MAX(sum, ridge));
        }
        p->log_volume[r] += log(root[i * d + i]);
    }
}

/* Mean log p(y|x) at temperature b, from tables [fields][room] */
static pf_status tempered(double *mean, const double *log_weight, const double *logp, const ptrdiff_t *counts, double b,
                          ptrdiff_t fields, ptrdiff_t room)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < fields; i++, log_weight += room, logp += room) {
        PF_TRY(pf_check_interrupt());
        sum += b * logp[0] - log_evidence(log_weight, logp, b, counts[i]);
    }
    *mean = sum / (double)fields;
    return PF_OK;
}

/* ---- checkpoints ------------------------------------------------------------------------------------------ */

static void put_adam(pf_writer *out, ptrdiff_t steps, const void *m, const void *v, ptrdiff_t n, size_t size)
{
    pf_put_int(out, steps);
    pf_put_array(out, m, n, size);
    pf_put_array(out, v, n, size);
}

static ptrdiff_t get_adam(pf_reader *in, void *m, void *v, ptrdiff_t n, size_t size)
{
    ptrdiff_t steps = pf_get_int(in, 0, INT64_MAX);
    pf_get_into(in, m, n, size);
    pf_get_into(in, v, n, size);
    return steps;
}

#define TWICE "symfit.c"
#include "twice.h"
#else

typedef struct {
    const pf_symflow_options *o;
    X(symflow) *flow;
    const X(fields) *data; /* that the current batch is from */
    ptrdiff_t n_y;         /* columns of data->y; the flow has one more when the noise is a condition */
    X(symwork) *works;     /* [threads] */
    int threads;
    ptrdiff_t room;                    /* fields in a batch */
    ptrdiff_t *row;                    /* [room] */
    double *y, *theta, *gtheta, *logp; /* [SYM_ROWS or room] rows */
    double *weight;                    /* [SYM_ROWS] of the gradients; 0: only log p is wanted */
    real *net_memory, *gw, *gw_part;
    double *gbase;
    ptrdiff_t first; /* row of the batch that the block of SYM_ROWS starts at */
    ptrdiff_t epoch; /* of the noise */
    double *draws;   /* conditions and their weights in posterior() */
    proposals proposals;
    double *sigma; /* [SYM_ROWS] noise of a field, in the fields' unit */
    X(adam) net;
    pf64_adam base;
    double mean_length;
    int gw_empty;
    double start_time, saved; /* when the fit began, when a checkpoint was last written */
} X(fit);

/* Adds noise to the field in w->x, which is standardised. */
static void X(add_noise)(X(symwork) *w, const X(symflow) *f, double sigma, uint64_t seed, uint64_t random)
{
    double z[256];
    real factor = (real)(sigma / f->scale), *noise = w->u;
    for (ptrdiff_t i = 0; i < f->pixels; i += 256) {
        ptrdiff_t n = PF_MIN(256, f->pixels - i);
        pf_normals(z, seed, random, (uint64_t)i, n);
        for (ptrdiff_t j = 0; j < n; j++) noise[i + j] = (real)z[j];
    }
    if (f->noise_t) X(filter_apply)(f->filter, noise, w->spectra, noise, f->noise_t, w->work);
    for (ptrdiff_t i = 0; i < f->pixels; i++) w->x[i] += factor * noise[i];
}

/* ---- the start: closed form ------------------------------------------------------------------------------------
 *
 * Layer by layer: T = P(k)^-1/2 whitens, then Psi carries the quantiles of the pixels to those of a Gaussian. Fields
 * like lognormal ones need Psi before they are whitened: the first T is tried as 1 too, and the better start kept. */

/* Where knots of log T stand: dense at low |k|, where spectra bend, and nearly even beyond. k in units of k_max. */
static void X(place_knots)(double *position, const X(symflow) *f)
{
    ptrdiff_t m = f->filter_knots;
    double lo = f->filter->shells > 1 ? f->k[1] : 0.5, hi = f->filter->shells > 2 ? 1 : lo + 0.5, soft = 0.125;
    for (ptrdiff_t j = 0; j < m; j++)
        position[j] = (lo + soft) * pow((hi + soft) / (lo + soft), (double)j / (double)(m - 1)) - soft;
}

/* Values at the knots from values at the shells: means with triangular weights, times the modes; where a knot has no
 * shell within reach, interpolation between its neighbours. */
static void X(fit_knots)(double *value, const double *position, const double *log_t, const X(symflow) *f)
{
    ptrdiff_t m = f->filter_knots, shells = f->filter->shells, at = 1;
    for (ptrdiff_t j = 0; j < m; j++) {
        double lo = position[PF_MAX(j - 1, 0)], hi = position[PF_MIN(j + 1, m - 1)], sum = 0, total = 0;
        for (ptrdiff_t s = 1; s < shells; s++) {
            double side = f->k[s] < position[j] ? (f->k[s] - lo) / (position[j] - lo)
                                                : (hi - f->k[s]) / (hi - position[j]);
            if (f->k[s] == position[j]) side = 1;
            if (!(side > 0)) continue;
            sum += side * f->filter->modes[s] * log_t[s];
            total += side * f->filter->modes[s];
        }
        while (at < shells - 1 && f->k[at] < position[j]) at++;
        ptrdiff_t before = PF_MAX(at - 1, PF_MIN(1, shells - 1));
        double span = f->k[at] - f->k[before], t = span > 0 ? (position[j] - f->k[before]) / span : 0;
        value[j] = total > 0 ? sum / total : log_t[before] + t * (log_t[at] - log_t[before]);
    }
}

static pf_status X(start_filter)(double *theta, const X(symflow) *f, const real *x, ptrdiff_t n, int flat,
                                 double *power, X(symwork) *w)
{
    ptrdiff_t shells = f->filter->shells, m = f->filter_knots;
    double most = 0, *position = w->knots;
    for (ptrdiff_t s = 0; s < shells; s++) power[s] = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        PF_TRY(pf_check_interrupt());
        X(filter_power)(f->filter, power, x + i * f->pixels, w->work);
    }
    for (ptrdiff_t s = 0; s < shells; s++) {
        power[s] /= (double)n * f->filter->modes[s] * (double)f->pixels;
        most = PF_MAX(most, power[s]);
    }
    for (ptrdiff_t s = 0; s < shells; s++)
        power[s] = flat ? 0 : -0.5 * log(PF_MAX(power[s], 1e-12 * most)); /* now log T */
    X(place_knots)(position, f);
    X(fit_knots)(theta + m, position, power, f);
    pf_increasing_inverse(theta, position, m);
    return PF_OK;
}

static void X(start_psi)(double *theta, float *sorted, ptrdiff_t n, ptrdiff_t m)
{
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    double edge = PF_MIN(2.5 + (double)m / 16, 3.5), step = 0.25, x[PSI_MOST], y[PSI_MOST];
    double least = 1e-3 * PF_MAX(quantile(sorted, n, 0.84) - quantile(sorted, n, 0.16), 1e-6);
    for (ptrdiff_t j = 0; j < m; j++) {
        y[j] = edge * (2 * (double)j / (double)(m - 1) - 1);
        x[j] = quantile(sorted, n, pf_normal_cdf(y[j]));
        if (j) x[j] = PF_MAX(x[j], x[j - 1] + least);
        double rise = quantile(sorted, n, pf_normal_cdf(y[j] + step)) - quantile(sorted, n, pf_normal_cdf(y[j] - step));
        theta[2 * m + j] = log(2 * step / PF_MAX(rise, least));
    }
    pf_increasing_inverse(theta, x, m);
    pf_increasing_inverse(theta + m, y, m);
}

/* The mean log p of the fields looked at, in units in which the standardised fields' is 0 for T = 1, Psi = identity. */
static pf_status X(start)(double *logp, X(symflow) *f, const X(fields) *train, const pf_symflow_options *o,
                          int flat_first, X(symwork) *w)
{
    ptrdiff_t n = PF_MAX(PF_MIN(PF_MIN(o->start_fields, train->n), START_PIXELS / f->pixels), 1), pixels = f->pixels;
    ptrdiff_t sorted_n = PF_MIN(n * pixels, QUANTILE_PIXELS), per_layer = 3 * f->psi_knots + 2 * f->filter_knots;
    real *x = PF_ALLOC(real, n * pixels);
    double *power = PF_ALLOC(double, f->filter->shells);
    float *sorted = PF_ALLOC(float, sorted_n);
    pf_status status = x && power && sorted ? PF_OK : PF_NO_MEMORY;
    for (ptrdiff_t i = 0; i < n && !status; i++) {
        X(sym_load)(w, f, train->x + i * train->n / n * pixels);
        if (f->noise[1] > 0) X(add_noise)(w, f, 0.5 * (f->noise[0] + f->noise[1]), o->seed, stream(STREAM_NOISE, i));
        memcpy(x + i * pixels, w->x, (size_t)pixels * sizeof(real));
        status = pf_check_interrupt();
    }
    *logp = 0;
    memset(f->theta, 0,
           (size_t)f->n_theta * sizeof(double)); /* layers that are not there yet are something, at least */
    for (ptrdiff_t l = 0; l < f->layers && !status; l++) {
        double *theta = f->theta + l * per_layer;
        status = X(start_filter)(theta + 3 * f->psi_knots, f, x, n, flat_first && l == 0, power, w);
        if (status) break;
        X(sym_prepare)(w, f, f->theta);
        for (ptrdiff_t i = 0; i < n && !status; i++) {
            X(filter_apply)(f->filter, x + i * pixels, w->spectra, x + i * pixels, w->t + l * w->shells, w->work);
            status = pf_check_interrupt();
        }
        if (status) break;
        for (ptrdiff_t i = 0; i < sorted_n; i++)
            sorted[i] = (float)x[(ptrdiff_t)((double)i * (double)(n * pixels) / (double)sorted_n)];
        X(start_psi)(theta, sorted, sorted_n, f->psi_knots);
        X(psi_make)(w->psi + l, theta, f->psi_knots);
        for (ptrdiff_t i = 0; i < n && !status; i++) {
            *logp += X(psi_forward)(x + i * pixels, x + i * pixels, w->psi + l, pixels) / (double)n;
            status = pf_check_interrupt();
        }
    }
    for (ptrdiff_t i = 0; i < n && !status; i++) *logp += X(sym_log_normal)(x + i * pixels, pixels) / (double)n;
    if (!status) {
        X(sym_prepare)(w, f, f->theta);
        *logp += w->log_det;
    }
    free(x);
    free(power);
    free(sorted);
    return status;
}

static pf_status X(best_start)(X(symflow) *f, const X(fields) *train, const pf_symflow_options *o, X(symwork) *w)
{
    double flat, white;
    PF_TRY(X(start)(&flat, f, train, o, 1, w));
    PF_TRY(X(start)(&white, f, train, o, 0, w));
    return flat > white ? X(start)(&flat, f, train, o, 1, w) : PF_OK;
}

/* ---- log p and its gradient, for a block of up to SYM_ROWS fields ----------------------------------------- */

static void X(field)(void *arg, ptrdiff_t block, int thread)
{
    X(fit) *fit = arg;
    const X(symflow) *f = fit->flow;
    X(symwork) *w = fit->works + thread;
    ptrdiff_t row = fit->row[fit->first + block];
    int gradient = fit->weight[block] != 0;
    X(sym_prepare)(w, f, f->net ? fit->theta + block * f->n_theta : f->theta);
    X(sym_load)(w, f, fit->data->x + row * f->pixels);
    if (fit->sigma[block] > 0)
        X(add_noise)(w, f, fit->sigma[block], fit->o->seed, stream(STREAM_NOISE, fit->epoch << 32 | row));
    fit->logp[fit->first + block] = X(sym_logp)(w, f);
    if (gradient) X(sym_backward)(w, f, fit->gtheta + block * f->n_theta, 0);
}

/* log p of rows first .. first + n - 1 of the batch, at conditions y (NULL: their own), and, where weight is not 0,
 * weight times its gradient, added to gbase and gw. */
static pf_status X(block)(X(fit) *fit, ptrdiff_t first, ptrdiff_t n, const double *y)
{
    const pf_symflow_options *o = fit->o;
    X(symflow) *f = fit->flow;
    int gradient = 0;
    fit->first = first;
    for (ptrdiff_t i = 0; i < n; i++) {
        ptrdiff_t row = fit->row[first + i];
        double u = f->noise[0] < f->noise[1] ? uniform(o->seed, stream(STREAM_SIGMA, fit->epoch), (uint64_t)row) : 0;
        fit->sigma[i] = f->noise[0] + u * (f->noise[1] - f->noise[0]);
        for (ptrdiff_t j = 0; j < fit->n_y; j++)
            fit->y[i * f->n_y + j] = y ? y[i * fit->n_y + j] : fit->data->y[row * fit->n_y + j];
        if (f->n_y > fit->n_y) fit->y[i * f->n_y + fit->n_y] = fit->sigma[i];
        gradient |= fit->weight[i] != 0;
    }
    if (f->net) PF_TRY(X(sym_thetas)(f, fit->theta, fit->net_memory, fit->y, n));
    PF_TRY(pf_parallel(n, X(field), fit));
    if (!gradient) return PF_OK;
    for (ptrdiff_t i = 0; i < n; i++) {
        double *g = fit->gtheta + i * f->n_theta, weight = fit->weight[i];
        for (ptrdiff_t j = 0; j < f->n_theta; j++) fit->gbase[j] += g[j] = weight != 0 ? weight * g[j] : 0;
    }
    if (!f->net) return PF_OK;
    PF_TRY(X(sym_thetas_vjp)(f, NULL, fit->gw_empty ? fit->gw : fit->gw_part, fit->gtheta, fit->net_memory, n));
    for (ptrdiff_t i = 0; i < f->net->n_w && !fit->gw_empty; i++) fit->gw[i] += fit->gw_part[i];
    fit->gw_empty = 0;
    return PF_OK;
}

static void X(clear_gradient)(X(fit) *fit)
{
    memset(fit->gbase, 0, (size_t)fit->flow->n_theta * sizeof(double));
    fit->gw_empty = 1;
}

static pf_status X(step)(X(fit) *fit, double rate)
{
    X(symflow) *f = fit->flow;
    double square, net_square = 0;
    if (fit->gw_empty && f->net) memset(fit->gw, 0, (size_t)f->net->n_w * sizeof(real));
    PF_TRY(pf64_adam_square(&square, &fit->base, fit->gbase));
    if (f->net) PF_TRY(X(adam_square)(&net_square, &fit->net, fit->gw));
    double factor = pf_clip(&fit->mean_length, sqrt(square + net_square), fit->o->clip);
    if (!isfinite(square + net_square)) return pf_fail(PF_DEGENERATE, "training met a gradient that is not finite");
    PF_TRY(pf64_adam_step(&fit->base, f->theta, fit->gbase, factor, rate, 0));
    return f->net ? X(adam_step)(&fit->net, f->net->w, fit->gw, factor, rate, fit->o->weight_decay) : PF_OK;
}

/* Mean log p of the n fields of the batch; each weighs `weight` in the gradient. */
static pf_status X(likelihood)(X(fit) *fit, double *mean, ptrdiff_t n, double weight)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < SYM_ROWS; i++) fit->weight[i] = weight;
    for (ptrdiff_t first = 0; first < n; first += SYM_ROWS)
        PF_TRY(X(block)(fit, first, PF_MIN(SYM_ROWS, n - first), NULL));
    for (ptrdiff_t i = 0; i < n; i++) sum += fit->logp[i];
    *mean = sum / (double)n;
    return isfinite(sum) ? PF_OK : pf_fail(PF_DEGENERATE, "training met a field whose log p is not finite");
}

/* ---- log p(y|x) ------------------------------------------------------------------------------------------- */

/* Log p of row 0 of the batch at its own condition, then at conditions drawn where its posterior is: fit->draws holds
 * conditions y[n][n_y], then the log-weights of all but the first, fit->logp the log p(x|y). */
static pf_status X(try_conditions)(X(fit) *fit, ptrdiff_t *n, ptrdiff_t draws)
{
    const X(symflow) *f = fit->flow;
    proposals *p = &fit->proposals;
    ptrdiff_t row = fit->row[0], n_y = fit->n_y, done = 0;
    double *y = fit->draws, *log_weight = y + (draws + 1) * n_y;
    const double *least = f->y_stats + 2 * f->n_y, *most = f->y_stats + 3 * f->n_y;
    memcpy(y, fit->data->y + row * n_y, (size_t)n_y * sizeof(double));
    for (ptrdiff_t i = 0; i <= draws; i++) fit->row[i] = row;
    for (ptrdiff_t i = 0; i < SYM_ROWS; i++) fit->weight[i] = 0;
    *n = 1;
    for (int r = 0; r < ROUNDS; r++) {
        ptrdiff_t count = round_start(r + 1, draws) - round_start(r, draws);
        if (r) propose(p, r, log_weight + 1, fit->logp + 1, count, *n - 1);
        double *u = p->u + (*n - 1) * n_y;
        count = draw_round(p, u, r, count, fit->o->seed, stream(STREAM_DRAWS, fit->epoch << 32 | row));
        for (ptrdiff_t i = 0; i < count * n_y; i++)
            y[*n * n_y + i] = least[i % n_y] + (most[i % n_y] - least[i % n_y]) * u[i];
        *n += count;
        for (; done < *n; done = PF_MIN(done + SYM_ROWS, *n))
            PF_TRY(X(block)(fit, done, PF_MIN(SYM_ROWS, *n - done), y + done * n_y));
        for (ptrdiff_t i = 0; i < *n; i++)
            if (!isfinite(fit->logp[i])) return pf_fail(PF_DEGENERATE, "a field's log p is not finite");
        weigh(log_weight + 1, p, r + 1, *n - 1);
    }
    return PF_OK;
}

/* log p(y|x) of row 0 of the batch, in units of the prior's density; when weight is not 0 its gradient is added, times
 * (1 - w) grad log p(x|y) + w grad log p(y|x). */
static pf_status X(posterior)(X(fit) *fit, double *log_posterior, double *log_likelihood, ptrdiff_t draws,
                              double weight)
{
    ptrdiff_t n_y = fit->n_y, n, count = 0;
    double *y = fit->draws, *log_weight = y + (draws + 1) * n_y, share[SYM_ROWS];
    PF_TRY(X(try_conditions)(fit, &n, draws));
    double log_z = log_evidence(log_weight, fit->logp, 1, n);
    *log_likelihood = fit->logp[0];
    *log_posterior = fit->logp[0] - log_z;
    if (weight == 0) return PF_OK;
    double kept = 0;                    /* of the draws' weights: those that matter */
    for (ptrdiff_t i = 1; i < n; i++) { /* block() overwrites logp */
        log_weight[i] = exp(log_weight[i] + fit->logp[i] - log_z);
        if (log_weight[i] < PF_MIN(1e-3, 0.1 / (double)n)) log_weight[i] = 0;
        kept += log_weight[i];
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        double r = i ? -fit->o->posterior_weight * log_weight[i] / kept : 1;
        if (r != 0) {
            memmove(y + count * n_y, y + i * n_y, (size_t)n_y * sizeof(double));
            share[count++] = weight * r;
        }
        if (count < SYM_ROWS && i < n - 1) continue;
        if (!count) continue;
        memcpy(fit->weight, share, (size_t)count * sizeof(double));
        PF_TRY(X(block)(fit, 0, count, y));
        count = 0;
    }
    return PF_OK;
}

/* ---- training --------------------------------------------------------------------------------------------- */

static void X(fit_clear)(X(fit) *fit)
{
    X(symwork_free)(fit->works, fit->threads);
    free(fit->row);
    free(fit->y);
    free(fit->theta);
    free(fit->gtheta);
    free(fit->logp);
    free(fit->weight);
    free(fit->sigma);
    free(fit->draws);
    free(fit->proposals.memory);
    free(fit->net_memory);
    free(fit->gw);
    free(fit->gw_part);
    free(fit->gbase);
    X(adam_clear)(&fit->net);
    pf64_adam_clear(&fit->base);
}

static pf_status X(fit_init)(X(fit) *fit, X(symflow) *f, const pf_symflow_options *o, ptrdiff_t n_y, ptrdiff_t draws)
{
    ptrdiff_t n_w = f->net ? f->net->n_w : 0;
    fit->o = o;
    fit->flow = f;
    fit->n_y = n_y;
    fit->room = PF_MAX(PF_MAX(o->batch, draws + 1), SYM_ROWS);
    fit->threads = pf_max_threads(SYM_ROWS);
    fit->row = PF_ALLOC(ptrdiff_t, fit->room);
    fit->y = PF_ALLOC(double, SYM_ROWS * f->n_y);
    fit->theta = PF_ALLOC(double, SYM_ROWS * f->n_theta);
    fit->gtheta = PF_ALLOC(double, SYM_ROWS * f->n_theta);
    fit->logp = PF_ALLOC(double, fit->room);
    fit->weight = PF_ALLOC(double, SYM_ROWS);
    fit->sigma = PF_ALLOC(double, SYM_ROWS);
    fit->draws = PF_ALLOC(double, (draws + 1) * (n_y + 1));
    fit->net_memory = PF_ALLOC(real, X(sym_net_memory)(f));
    fit->gw = PF_ALLOC(real, n_w);
    fit->gw_part = PF_ALLOC(real, n_w);
    fit->gbase = PF_ALLOC(double, f->n_theta);
    if (!fit->row || !fit->y || !fit->theta || !fit->gtheta || !fit->logp || !fit->weight || !fit->sigma ||
        !fit->draws || !fit->net_memory || !fit->gw || !fit->gw_part || !fit->gbase)
        return PF_NO_MEMORY;
    PF_TRY(proposals_new(&fit->proposals, n_y, draws));
    PF_TRY(X(adam_init)(&fit->net, n_w));
    PF_TRY(pf64_adam_init(&fit->base, f->n_theta));
    return X(symwork_new)(&fit->works, f, 1, fit->threads);
}

/* Mean over all fields of log p(x|y) and, with draws, of log p(y|x). */
static pf_status X(evaluate)(X(fit) *fit, double *logp, double *posterior, const X(fields) *data, ptrdiff_t draws)
{
    ptrdiff_t epoch = fit->epoch;
    double sum = 0, posterior_sum = 0, mean = 0, one = 0;
    pf_status status = PF_OK;
    fit->data = data;
    fit->epoch = 0; /* the same noise and draws every time; training's epochs count from 1 */
    for (ptrdiff_t i = 0; i < data->n && !status; i += draws ? 1 : SYM_ROWS) {
        ptrdiff_t n = draws ? 1 : PF_MIN(SYM_ROWS, data->n - i);
        for (ptrdiff_t j = 0; j < n; j++) fit->row[j] = i + j;
        status = draws ? X(posterior)(fit, &one, &mean, draws, 0) : X(likelihood)(fit, &mean, n, 0);
        sum += mean * (double)n;
        if (draws) posterior_sum += one;
    }
    fit->epoch = epoch;
    *logp = sum / (double)data->n;
    *posterior = posterior_sum / (double)data->n;
    return status;
}

static pf_status X(record)(X(symflow) *f, double train, double validate)
{
    double *history = realloc(f->history, (size_t)((f->epochs + 1) * SYM_HISTORY) * sizeof *history);
    if (!history) return pf_fail(PF_NO_MEMORY, "out of memory");
    f->history = history;
    history[f->epochs * SYM_HISTORY] = train;
    history[f->epochs * SYM_HISTORY + 1] = validate;
    f->epochs++;
    return PF_OK;
}

/* What training changes, put aside or back. */
static void X(keep)(double *theta, real *w, const X(symflow) *f)
{
    memcpy(theta, f->theta, (size_t)f->n_theta * sizeof(double));
    if (f->net) memcpy(w, f->net->w, (size_t)f->net->n_w * sizeof(real));
}

static void X(restore)(X(symflow) *f, const double *theta, const real *w)
{
    memcpy(f->theta, theta, (size_t)f->n_theta * sizeof(double));
    if (f->net) memcpy(f->net->w, w, (size_t)f->net->n_w * sizeof(real));
}

/* ---- checkpoints: what an unfinished fit goes on from is its flow->state, a pf_writer's bytes ------------------ */

typedef struct {
    int stage;                   /* 0: the likelihood, 1: the posterior as well */
    ptrdiff_t epoch, best_epoch; /* done in this stage; the best one, counted over all stages */
    double best, *theta;         /* objective and parameters of the best */
    real *w;
} X(stage);

static pf_status X(state_write)(X(fit) *fit, const X(stage) *s)
{
    X(symflow) *f = fit->flow;
    ptrdiff_t n_w = fit->net.n;
    double numbers[2] = {s->best, fit->mean_length};
    pf_writer out = {0};
    pf_put_int(&out, s->stage);
    pf_put_int(&out, s->epoch);
    pf_put_int(&out, s->best_epoch);
    pf_put_int(&out, fit->epoch);
    pf_put_array(&out, numbers, 2, sizeof(double));
    pf_put_array(&out, f->theta, f->n_theta, sizeof(double));
    pf_put_array(&out, f->net ? f->net->w : NULL, n_w, sizeof(real));
    put_adam(&out, fit->base.steps, fit->base.m, fit->base.v, f->n_theta, sizeof(double));
    put_adam(&out, fit->net.steps, fit->net.m, fit->net.v, n_w, sizeof(real));
    if (out.status) {
        free(out.bytes);
        return out.status;
    }
    free(f->state);
    f->state = out.bytes;
    f->n_state = (ptrdiff_t)out.n;
    return PF_OK;
}

/* The flow, on entry the best, becomes the latest. */
static pf_status X(state_read)(X(fit) *fit, X(stage) *s)
{
    X(symflow) *f = fit->flow;
    ptrdiff_t n_w = fit->net.n;
    double numbers[2] = {0};
    pf_reader in = {.bytes = f->state, .n = (size_t)f->n_state};
    s->stage = (int)pf_get_int(&in, 0, 1);
    if (s->stage && !(fit->o->posterior_weight > 0)) /* there is no room for its draws */
        return pf_fail(PF_BAD_ARGUMENT, "posterior_weight: the checkpoint is of a fit that trains on log p(y|x)");
    s->epoch = pf_get_int(&in, 0, INT32_MAX);
    s->best_epoch = pf_get_int(&in, 0, INT32_MAX);
    fit->epoch = pf_get_int(&in, 0, INT32_MAX);
    pf_get_into(&in, numbers, 2, sizeof(double));
    s->best = numbers[0];
    fit->mean_length = numbers[1];
    X(keep)(s->theta, s->w, f);
    pf_get_into(&in, f->theta, f->n_theta, sizeof(double));
    pf_get_into(&in, f->net ? f->net->w : NULL, n_w, sizeof(real));
    fit->base.steps = get_adam(&in, fit->base.m, fit->base.v, f->n_theta, sizeof(double));
    fit->net.steps = get_adam(&in, fit->net.m, fit->net.v, n_w, sizeof(real));
    return in.status;
}

/* The file holds the best flow as well as the state. */
static pf_status X(checkpoint)(X(fit) *fit, X(stage) *s)
{
    X(symflow) *f = fit->flow;
    double *theta = f->theta;
    real *w = f->net ? f->net->w : NULL;
    PF_TRY(X(state_write)(fit, s));
    if (pf_seconds() - fit->saved < fit->o->checkpoint_seconds) return PF_OK;
    f->theta = s->theta;
    if (f->net) f->net->w = s->w;
    pf_status status = X(symflow_save)(f, fit->o->checkpoint);
    f->theta = theta;
    if (f->net) f->net->w = w;
    fit->saved = pf_seconds();
    return status;
}

/* ---- stages ----------------------------------------------------------------------------------------------- */

/* One epoch, from a random order of the training fields: means of log p(x|y) and, with draws, of log p(y|x). */
static pf_status X(epoch)(X(fit) *fit, double *logp, double *posterior, const X(fields) *train, ptrdiff_t epoch,
                          ptrdiff_t epochs, double rate, ptrdiff_t draws, ptrdiff_t *order)
{
    const pf_symflow_options *o = fit->o;
    ptrdiff_t n = train->n, batches = (n + o->batch - 1) / o->batch;
    double mean = 0, one = 0, sum = 0, posterior_sum = 0;
    fit->data = train;
    for (ptrdiff_t i = 0; i < n; i++) {
        ptrdiff_t j = (ptrdiff_t)pf_uniform_int(o->seed, stream(STREAM_ORDER, fit->epoch), (uint64_t)i,
                                                (uint64_t)i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (ptrdiff_t b = 0; b < batches; b++) {
        ptrdiff_t from = b * n / batches, count = (b + 1) * n / batches - from;
        X(clear_gradient)(fit);
        if (!draws) {
            memcpy(fit->row, order + from, (size_t)count * sizeof *order);
            PF_TRY(X(likelihood)(fit, &mean, count, 1 / (double)count));
            sum += mean * (double)count;
        }
        for (ptrdiff_t i = 0; i < count && draws; i++) {
            fit->row[0] = order[from + i];
            PF_TRY(X(posterior)(fit, &one, &mean, draws, 1 / (double)count));
            sum += mean;
            posterior_sum += one;
        }
        PF_TRY(X(step)(fit, rate * pf_cosine_schedule((epoch - 1) * batches + b, epochs * batches, o->warmup)));
    }
    *logp = sum / (double)n;
    *posterior = posterior_sum / (double)n;
    return PF_OK;
}

/* Trains to the end of a stage, from s->epoch; s->epoch < 0: from its start, whose objective is not known yet. */
static pf_status X(run_stage)(X(fit) *fit, X(stage) *s, const X(fields) *train, const X(fields) *validate,
                              ptrdiff_t *order)
{
    const pf_symflow_options *o = fit->o;
    X(symflow) *f = fit->flow;
    ptrdiff_t epochs = s->stage ? o->posterior_epochs : o->epochs, draws = s->stage ? o->posterior_draws : 0;
    ptrdiff_t validate_draws = draws ? VALIDATE_DRAWS * (draws + 1) - 1 : 0;
    double rate = s->stage ? o->posterior_rate : o->learning_rate, per_pixel = 1 / (double)f->pixels;
    pf_symflow_progress p = {.logp_train = NAN, .logp_validate = NAN, .objective = NAN};
    while (s->epoch < epochs) {
        double mean = NAN, posterior = NAN;
        ptrdiff_t since = fit->epoch - PF_MAX(s->best_epoch, fit->epoch - s->epoch);
        if (o->patience && validate && since >= o->patience) break;
        s->epoch++;
        if (s->epoch) {
            fit->epoch++;
            PF_TRY(X(epoch)(fit, &mean, &posterior, train, s->epoch, epochs, rate, draws, order));
            p.logp_train = mean * per_pixel;
            p.objective = draws ? posterior : p.logp_train;
        }
        if (validate) {
            PF_TRY(X(evaluate)(fit, &mean, &posterior, validate, validate_draws));
            p.logp_validate = mean * per_pixel;
            p.objective = draws ? posterior : p.logp_validate;
        }
        if (s->epoch) PF_TRY(X(record)(f, p.logp_train, p.logp_validate));
        if (!validate || !s->epoch || p.objective > s->best) {
            s->best = p.objective;
            if (s->epoch || !s->stage) s->best_epoch = fit->epoch; /* a stage starts from the best of the one before */
            X(keep)(s->theta, s->w, f);
        }
        if (o->checkpoint) PF_TRY(X(checkpoint)(fit, s));
        p.epoch = fit->epoch;
        p.best = s->best_epoch;
        p.seconds = pf_seconds() - fit->start_time;
        if (o->progress && o->progress(o->progress_user, &p)) return pf_fail(PF_INTERRUPTED, "interrupted");
    }
    return PF_OK;
}

/* All stages. The best on validation fields, or the last, is what the flow is at the end, however training ends. */
static pf_status X(train)(X(fit) *fit, const X(fields) *train, const X(fields) *validate)
{
    X(symflow) *f = fit->flow;
    X(stage) s = {.epoch = -1};
    ptrdiff_t *order = PF_ALLOC(ptrdiff_t, train->n);
    s.theta = PF_ALLOC(double, f->n_theta);
    s.w = PF_ALLOC(real, fit->net.n);
    pf_status status = s.theta && s.w && order ? PF_OK : PF_NO_MEMORY;
    if (!status) X(keep)(s.theta, s.w, f);
    if (!status && f->state) status = X(state_read)(fit, &s);
    while (!status) {
        status = X(run_stage)(fit, &s, train, validate, order);
        if (s.theta && s.w) X(restore)(f, s.theta, s.w);
        if (s.stage || !(fit->o->posterior_weight > 0)) break;
        fit->mean_length = 0;
        s.stage = 1;
        s.epoch = -1;
    }
    free(s.theta);
    free(s.w);
    free(order);
    return status;
}

/* ---- the fit ---------------------------------------------------------------------------------------------- */

static pf_status X(check_data)(const X(fields) *data, ptrdiff_t pixels, ptrdiff_t n_y, const char *name)
{
    if (!data->x || data->n < 1) return pf_fail(PF_BAD_ARGUMENT, "%s: there are no fields", name);
    if (n_y && !data->y) return pf_fail(PF_BAD_ARGUMENT, "%s: y is missing", name);
    for (ptrdiff_t i = 0; i < data->n; i++) {
        PF_TRY(pf_check_interrupt());
        for (ptrdiff_t j = 0; j < pixels; j++)
            if (!isfinite(data->x[i * pixels + j]))
                return pf_fail(PF_BAD_ARGUMENT, "%s: field %td has pixels that are NaN or infinite", name, i);
    }
    for (ptrdiff_t i = 0; i < data->n * n_y; i++)
        if (!isfinite(data->y[i]))
            return pf_fail(PF_BAD_ARGUMENT, "%s: y of field %td, column %td is not finite", name, i / n_y, i % n_y);
    return PF_OK;
}

static pf_status X(check_options)(const pf_symflow_options *o, ptrdiff_t n_y)
{
    if (o->batch < 1) return pf_fail(PF_BAD_ARGUMENT, "batch: %td is not positive", o->batch);
    if (o->start_fields < 1) return pf_fail(PF_BAD_ARGUMENT, "start_fields: %td is not positive", o->start_fields);
    if (o->epochs < 0 || o->posterior_epochs < 0) return pf_fail(PF_BAD_ARGUMENT, "epochs: a negative number");
    if (!(o->learning_rate >= 0)) return pf_fail(PF_BAD_ARGUMENT, "learning_rate: negative");
    if (!(o->posterior_rate >= 0)) return pf_fail(PF_BAD_ARGUMENT, "posterior_rate: negative");
    if (o->patience < 0) return pf_fail(PF_BAD_ARGUMENT, "patience: negative");
    if (!(o->clip >= 0)) return pf_fail(PF_BAD_ARGUMENT, "clip: negative");
    if (!(o->warmup >= 0 && o->warmup < 1)) return pf_fail(PF_BAD_ARGUMENT, "warmup: %g is not in [0, 1)", o->warmup);
    if (!(o->weight_decay >= 0)) return pf_fail(PF_BAD_ARGUMENT, "weight_decay: negative");
    if (!(o->noise[0] >= 0 && o->noise[1] >= o->noise[0] && isfinite(o->noise[1])))
        return pf_fail(PF_BAD_ARGUMENT, "noise: [%g, %g] is not a range of standard deviations", o->noise[0],
                       o->noise[1]);
    for (ptrdiff_t i = 0; i < o->noise_knots; i++)
        if (!(o->noise_k[i] > (i ? o->noise_k[i - 1] : 0)) || !(o->noise_power[i] > 0) || !isfinite(o->noise_power[i]))
            return pf_fail(PF_BAD_ARGUMENT, "noise: its power is positive and finite, at ascending k > 0");
    if (!(o->posterior_weight >= 0 && o->posterior_weight <= 1))
        return pf_fail(PF_BAD_ARGUMENT, "posterior_weight: %g is not in [0, 1]", o->posterior_weight);
    if (o->posterior_weight > 0 && !n_y) return pf_fail(PF_BAD_ARGUMENT, "posterior_weight: there is no y");
    if (o->posterior_weight > 0 && o->posterior_draws && o->posterior_draws < 2 * ROUNDS)
        return pf_fail(PF_BAD_ARGUMENT, "posterior_draws: %td, at least %d are needed", o->posterior_draws, 2 * ROUNDS);
    return PF_OK;
}

/* One mean and scale of all pixels; mean, scale and range of every column of y, and of the noise. */
static pf_status X(standardise)(X(symflow) *f, const X(fields) *train, ptrdiff_t n_y)
{
    double sum = 0, square = 0, count = (double)train->n * (double)f->pixels, white = 1;
    const double *noise = f->noise;
    if (f->noise_t) { /* its variance, for a sigma of 1 */
        white = 0;
        for (ptrdiff_t s = 0; s < f->filter->shells; s++)
            white += f->filter->modes[s] * (double)f->noise_t[s] * (double)f->noise_t[s] / (double)f->pixels;
    }
    for (ptrdiff_t i = 0; i < train->n; i++) {
        PF_TRY(pf_check_interrupt());
        for (ptrdiff_t j = 0; j < f->pixels; j++) sum += (double)train->x[i * f->pixels + j];
    }
    f->mean = sum / count;
    for (ptrdiff_t i = 0; i < train->n; i++) {
        PF_TRY(pf_check_interrupt());
        for (ptrdiff_t j = 0; j < f->pixels; j++) {
            double d = (double)train->x[i * f->pixels + j] - f->mean;
            square += d * d;
        }
    }
    f->scale = sqrt(square / count + white * (noise[0] * noise[0] + noise[0] * noise[1] + noise[1] * noise[1]) / 3);
    if (!(f->scale > 1e-7 * fabs(f->mean)) || !isfinite(f->scale))
        return pf_fail(PF_DEGENERATE, "x_train: the fields are constant, or so large, small or far from 0 that they "
                                      "are so to rounding: they have no density");
    double *mean = f->y_stats, *scale = mean + f->n_y, *least = scale + f->n_y, *most = least + f->n_y;
    for (ptrdiff_t j = 0; j < n_y; j++) {
        least[j] = most[j] = train->y[j];
        for (ptrdiff_t i = 0; i < train->n; i++) {
            double y = train->y[i * n_y + j];
            mean[j] += y / (double)train->n;
            least[j] = PF_MIN(least[j], y);
            most[j] = PF_MAX(most[j], y);
        }
        for (ptrdiff_t i = 0; i < train->n; i++) {
            double d = train->y[i * n_y + j] - mean[j];
            scale[j] += d * d / (double)train->n;
        }
        scale[j] = sqrt(scale[j]);
        if (!(most[j] > least[j] && scale[j] > 0)) return pf_fail(PF_DEGENERATE, "y: column %td is constant", j);
        if (!isfinite(scale[j])) return pf_fail(PF_DEGENERATE, "y: column %td is too large", j);
    }
    if (f->n_y > n_y) {
        mean[n_y] = 0.5 * (noise[0] + noise[1]);
        scale[n_y] = (noise[1] - noise[0]) / sqrt(12);
        least[n_y] = noise[0];
        most[n_y] = noise[1];
        if (!(scale[n_y] > 0)) return pf_fail(PF_BAD_ARGUMENT, "noise_condition: the range of the noise is empty");
    }
    return PF_OK;
}

/* The filter that makes noise of this power spectrum of white noise; the mean of a field has the power of the lowest
 * frequency. */
static pf_status X(set_noise)(X(symflow) *f, const pf_symflow_options *o)
{
    const X(filter) *filter = f->filter;
    double per_volume = (double)f->pixels;
    ptrdiff_t at = 0;
    memcpy(f->noise, o->noise, sizeof f->noise);
    f->noise_condition = o->noise_condition != 0;
    if (!o->noise_knots) return PF_OK;
    for (int i = 0; i < filter->fft->ndim; i++) per_volume /= filter->box[i];
    f->noise_t = PF_ALLOC(real, filter->shells);
    if (!f->noise_t) return PF_NO_MEMORY;
    for (ptrdiff_t s = 0; s < filter->shells; s++) {
        double k = filter->k[PF_MAX(s, PF_MIN(1, filter->shells - 1))];
        while (at < o->noise_knots - 2 && o->noise_k[at + 1] < k) at++;
        ptrdiff_t next = PF_MIN(at + 1, o->noise_knots - 1);
        double span = o->noise_k[next] - o->noise_k[at], lo = log(o->noise_power[at]), hi = log(o->noise_power[next]);
        double t = span > 0 ? PF_MIN(PF_MAX((k - o->noise_k[at]) / span, 0), 1) : 0;
        f->noise_t[s] = (real)sqrt(per_volume * exp(lo + t * (hi - lo)));
    }
    return PF_OK;
}

/* A flow in closed form, or what the checkpoint holds */
static pf_status X(begin)(X(symflow) **flow, const X(fields) *train, int ndim, const ptrdiff_t *mesh, const double *box,
                          ptrdiff_t n_y, const pf_symflow_options *o)
{
    int n_hidden = 0;
    X(symflow) *f;
    *flow = NULL;
    if (o->checkpoint && !access(o->checkpoint, F_OK)) {
        PF_TRY(X(symflow_load)(&f, o->checkpoint));
        *flow = f;
        int same = f->layers == o->n_layers && f->psi_knots == o->psi_knots && f->filter_knots == o->filter_knots &&
                   f->n_y == n_y + (o->noise_condition != 0) && f->filter->fft->ndim == ndim;
        for (int i = 0; i < ndim && same; i++) same = f->filter->fft->n[i] == mesh[i] && f->filter->box[i] == box[i];
        return same ? PF_OK : pf_fail(PF_BAD_ARGUMENT, "checkpoint: %s is of another fit", o->checkpoint);
    }
    while (n_hidden < 7 && o->hidden[n_hidden]) n_hidden++;
    PF_TRY(X(symflow_new)(&f, ndim, mesh, box, o->n_layers, o->psi_knots, o->filter_knots,
                          n_y + (o->noise_condition != 0)));
    *flow = f;
    PF_TRY(X(set_noise)(f, o));
    PF_TRY(X(standardise)(f, train, n_y));
    if (f->n_y) {
        PF_TRY(X(mlp_new)(&f->net, f->n_y, o->hidden, n_hidden, f->n_theta));
        X(mlp_draw)(f->net, o->seed, stream(STREAM_WEIGHTS, 0));
    }
    return o->note ? X(symflow_set_note)(f, o->note) : PF_OK;
}

/* *trained: the flow is worth having, whatever the status. */
static pf_status X(run_fit)(X(symflow) *f, int *trained, const X(fields) *train, const X(fields) *validate,
                            ptrdiff_t n_y, const pf_symflow_options *o, double start_time)
{
    X(fit) fit = {.start_time = start_time, .saved = start_time};
    ptrdiff_t draws = o->posterior_weight > 0 ? VALIDATE_DRAWS * (o->posterior_draws + 1) : 0;
    pf_status status = X(fit_init)(&fit, f, o, n_y, draws);
    if (!status && !f->state) status = X(best_start)(f, train, o, fit.works);
    if (!status) {
        status = X(train)(&fit, train, validate);
        *trained = status != PF_BAD_FILE; /* whatever ended training, the flow is the best so far */
    }
    X(fit_clear)(&fit);
    if (o->checkpoint && status == PF_INTERRUPTED && f->state) {
        pf_status saved = X(symflow_save)(f, o->checkpoint);
        status = saved ? saved : pf_fail(PF_INTERRUPTED, "interrupted"); /* saving cleared the message */
    }
    if (!status || status == PF_DEGENERATE) { /* there is nothing to go on from */
        free(f->state);
        f->state = NULL;
        f->n_state = 0;
    }
    return status;
}

static pf_status X(fit_flow)(X(symflow) **flow, const X(fields) *train, const X(fields) *validate, int ndim,
                             const ptrdiff_t *mesh, const double *box, ptrdiff_t n_y, const pf_symflow_options *given)
{
    double start_time = pf_seconds();
    ptrdiff_t pixels = 1;
    X(symflow) *f = NULL;
    pf_symflow_options options = *given, *o = &options;
    *flow = NULL;
    PF_TRY(X(check_options)(o, n_y));
    for (int i = 0; i < ndim; i++) pixels *= mesh[i];
    PF_TRY(X(check_data)(train, pixels, n_y, "train"));
    if (validate) PF_TRY(X(check_data)(validate, pixels, n_y, "validate"));
    o->batch = PF_MIN(o->batch, train->n);
    if (!o->posterior_draws) o->posterior_draws = default_draws(n_y);
    pf_status status = X(begin)(&f, train, ndim, mesh, box, n_y, o);
    int trained = !status && f->epochs && !f->state; /* what the checkpoint holds is finished */
    if (!status && !trained) status = X(run_fit)(f, &trained, train, validate, n_y, o, start_time);
    if (trained) *flow = f;
    else X(symflow_free)(f);
    return status;
}

pf_status X(symflow_fit)(X(symflow) **flow, const X(fields) *train, const X(fields) *validate, int ndim,
                         const ptrdiff_t *mesh, const double *box, ptrdiff_t n_y, const pf_symflow_options *options)
{
    pf_begin();
    return pf_end(X(fit_flow)(flow, train, validate, ndim, mesh, box, n_y, options));
}

/* ---- temperature ------------------------------------------------------------------------------------------ */

static pf_status X(calibrate)(X(symflow) *f, double *gain, const X(fields) *data, uint64_t seed)
{
    pf_symflow_options o;
    pf_symflow_defaults(&o);
    o.seed = seed;
    ptrdiff_t n_y = f->n_y - f->noise_condition;
    if (!n_y) return pf_fail(PF_BAD_ARGUMENT, "calibrate: this flow was fitted without y");
    PF_TRY(X(check_data)(data, f->pixels, n_y, "held_out"));
    X(fit) fit = {0};
    ptrdiff_t room = CALIBRATE_DRAWS * (default_draws(n_y) + 1);
    double *log_weight = PF_ALLOC(double, data->n *room), *logp = PF_ALLOC(double, data->n *room);
    ptrdiff_t *counts = PF_ALLOC(ptrdiff_t, data->n);
    pf_status status = log_weight && logp && counts ? X(fit_init)(&fit, f, &o, n_y, room - 1) : PF_NO_MEMORY;
    fit.data = data;
    for (ptrdiff_t i = 0; i < data->n && !status; i++) {
        fit.row[0] = i;
        status = X(try_conditions)(&fit, counts + i, room - 1);
        memcpy(log_weight + i * room, fit.draws + room * n_y, (size_t)room * sizeof(double));
        memcpy(logp + i * room, fit.logp, (size_t)room * sizeof(double));
    }
    /* the mean has one maximum: golden section in log b */
    double lo = log(temperatures[0]), hi = log(temperatures[1]), golden = 0.6180339887498949;
    for (int step = 0; step < 60 && !status; step++) {
        double a = hi - golden * (hi - lo), b = lo + golden * (hi - lo), at_a = 0, at_b = 0;
        status = tempered(&at_a, log_weight, logp, counts, exp(a), data->n, room);
        if (!status) status = tempered(&at_b, log_weight, logp, counts, exp(b), data->n, room);
        if (at_a < at_b) lo = a;
        else hi = b;
    }
    double best = exp(0.5 * (lo + hi));
    if (!status && gain) status = tempered(gain, log_weight, logp, counts, 1, data->n, room);
    if (!status && gain) status = tempered(gain + 1, log_weight, logp, counts, best, data->n, room);
    if (!status) f->temperature = best;
    X(fit_clear)(&fit);
    free(log_weight);
    free(logp);
    free(counts);
    return status;
}

pf_status X(sym_log_posterior)(double *log_posterior, X(symflow) *flow, const X(fields) *data, ptrdiff_t draws,
                               uint64_t seed)
{
    pf_begin();
    pf_symflow_options o;
    pf_symflow_defaults(&o);
    o.seed = seed;
    X(fit) fit = {.data = data};
    pf_status status = X(fit_init)(&fit, flow, &o, flow->n_y - flow->noise_condition, draws);
    for (ptrdiff_t i = 0; i < data->n && !status; i++) {
        double logp;
        fit.row[0] = i;
        status = X(posterior)(&fit, log_posterior + i, &logp, draws, 0);
    }
    X(fit_clear)(&fit);
    return pf_end(status);
}

pf_status X(symflow_calibrate)(X(symflow) *flow, double *gain, const X(fields) *held_out, uint64_t seed)
{
    pf_begin();
    return pf_end(X(calibrate)(flow, gain, held_out, seed));
}
#endif
