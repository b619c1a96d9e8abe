/* Sliced layers: the search for the slices along which the data are furthest from N(0, I), and their splines. */
#ifndef real
#include "blas.h"
#include "rqs.h"
#include "stiefel.h"
#include "working.h"

enum { GRID_SIGMAS = 8 }; /* a slice's histogram covers its mean +- 8 standard deviations */

/* The search for slices ends with a step that gains less than this part of the objective: later layers do the rest. */
#define SEARCH_TOLERANCE 0.01
/* The first layer's pull towards the identity: one dimension is easy, and nothing was searched for. */
#define MARGINAL_ALPHA 0.1

#define TWICE "slices.c"
#include "twice.h"
#else

/* ---- histograms of slices --------------------------------------------------------------------------------- */

static const real *X(project)(const X(slices) *c, const X(tile) *tile, real *p)
{
    if (!c->a) return tile->x;
    X(gemm)(p, c->a, tile->x, 0, 0, 0, c->k, tile_whole(tile->n), c->s->d, tile->ld, c->s->d, tile->ld);
    return p;
}

static void X(count_group)(void *arg, ptrdiff_t group, int thread)
{
    X(slices) *c = arg;
    const X(working) *s = c->s;
    ptrdiff_t bins = c->grid->bins, per_slice = c->classes * bins;
    real *work = c->work + thread * (2 * c->k * s->ld + c->k * s->d);
    for (ptrdiff_t i = group * c->picked / c->groups; i < (group + 1) * c->picked / c->groups; i++) {
        ptrdiff_t t = c->pick ? c->pick[i] : i;
        X(tile) tile = X(working_tile)(s, t);
        const real *p = X(project)(c, &tile, work);
        for (ptrdiff_t k = 0; k < c->k; k++)
            X(cdf1d_count)(c->count + (thread * c->k + k) * per_slice, p + k * s->ld,
                           s->weight ? s->weight + t * s->ld : NULL, c->classes > 1 ? tile.label : NULL, bins,
                           c->grid + k, tile.n);
    }
}

/* dW/da_k = 2 sum_i w_i r_i x_i / sum w, r = a_k.x - Phi^-1(F) */
static void X(gradient_group)(void *arg, ptrdiff_t group, int thread)
{
    X(slices) *c = arg;
    const X(working) *s = c->s;
    ptrdiff_t k = c->k, d = s->d, ld = s->ld, edges = c->grid->bins + 1;
    real *p = c->work + thread * (2 * k * ld + k * d), *r = p + k * ld, *product = r + k * ld;
    double *g = c->gradient + group * k * d;
    for (ptrdiff_t q = group * c->picked / c->groups; q < (group + 1) * c->picked / c->groups; q++) {
        ptrdiff_t t = c->pick ? c->pick[q] : q;
        X(tile) tile = X(working_tile)(s, t);
        ptrdiff_t whole = tile_whole(tile.n);
        const int64_t *weight = s->weight ? s->weight + t * ld : NULL;
        X(project)(c, &tile, p);
        for (ptrdiff_t j = 0; j < k; j++) {
            real *rj = r + j * ld;
            const real *score = c->score + j * c->classes * edges;
            if (c->classes == 1) X(cdf1d_residual)(rj, p + j * ld, score, c->grid + j, tile.n);
            else
                for (ptrdiff_t i = 0; i < tile.n; i++)
                    X(cdf1d_residual)(rj + i, p + j * ld + i, score + tile.label[i] * edges, c->grid + j, 1);
            for (ptrdiff_t i = 0; weight && i < tile.n; i++) rj[i] *= (real)((double)weight[i] * 0x1p-40);
            for (ptrdiff_t i = tile.n; i < whole; i++) rj[i] = 0;
        }
        X(gemm)(product, r, tile.x, 0, 1, 0, k, d, whole, d, ld, ld);
        for (ptrdiff_t i = 0; i < k * d; i++) g[i] += (double)product[i];
    }
}

/* The counts of all threads, summed into the first. */
static pf_status X(slices_count)(X(slices) *c)
{
    ptrdiff_t size = c->k * c->classes * c->grid->bins;
    int threads = pf_max_threads(c->groups);
    memset(c->count, 0, (size_t)(threads * size) * sizeof *c->count);
    PF_TRY(pf_parallel(c->groups, X(count_group), c));
    for (int t = 1; t < threads; t++)
        for (ptrdiff_t i = 0; i < size; i++) c->count[i] += c->count[t * size + i];
    return PF_OK;
}

/* ---- the search for slices -------------------------------------------------------------------------------- */

typedef struct {
    X(slices) slices;
    const double *mean, *cov; /* of the rows looked at */
    pf_grid *grid;
    real *a, *score;
    double *scratch;  /* [K][d] */
    double total;     /* weight of the rows looked at */
    double *distance; /* [K] mean over classes */
} X(search);

/* A grid over each slice's mean +- 8 standard deviations. */
static void X(slice_grids)(pf_grid *grid, const double *a, const double *mean, const double *cov, ptrdiff_t k,
                           ptrdiff_t d, ptrdiff_t bins, double *scratch)
{
    pf64_gemm(scratch, a, cov, 0, 0, 0, k, d, d, d, d, d);
    for (ptrdiff_t j = 0; j < k; j++) {
        double centre = 0, variance = 0;
        for (ptrdiff_t c = 0; c < d; c++)
            centre += a[j * d + c] * mean[c], variance += a[j * d + c] * scratch[j * d + c];
        double sd = sqrt(PF_MAX(variance, 1e-12));
        grid[j] = (pf_grid){
            .lo = centre - GRID_SIGMAS * sd, .width = 2 * GRID_SIGMAS * sd / (double)bins, .bins = bins};
    }
}

/* Normal scores and distance of one slice. */
static void X(score_slice)(void *arg, ptrdiff_t j, int thread)
{
    X(search) *q = arg;
    X(slices) *c = &q->slices;
    ptrdiff_t bins = q->grid->bins;
    double edges[FIT_BINS + 1];
    (void)thread;
    q->distance[j] = 0;
    for (ptrdiff_t l = 0; l < c->classes; l++) {
        const int64_t *count = c->count + (j * c->classes + l) * bins;
        real *score = q->score + (j * c->classes + l) * (bins + 1);
        int64_t mass = 0;
        for (ptrdiff_t b = 0; b < bins; b++) mass += count[b];
        q->distance[j] += pf_cdf1d_scores(edges, count, q->grid + j) * (double)mass / q->total;
        for (ptrdiff_t b = 0; b <= bins; b++) score[b] = (real)edges[b];
    }
}

static pf_status X(search_value)(void *user, double *value, const double *a)
{
    X(search) *q = user;
    X(slices) *c = &q->slices;
    ptrdiff_t k = c->k, d = c->s->d;
    for (ptrdiff_t i = 0; i < k * d; i++) q->a[i] = (real)a[i];
    X(slice_grids)(q->grid, a, q->mean, q->cov, k, d, q->grid->bins, q->scratch);
    PF_TRY(X(slices_count)(c));
    PF_TRY(pf_parallel(k, X(score_slice), q));
    *value = 0;
    for (ptrdiff_t j = 0; j < k; j++) *value += q->distance[j] / (double)k;
    return PF_OK;
}

static pf_status X(search_gradient)(void *user, double *g, const double *a)
{
    X(search) *q = user;
    X(slices) *c = &q->slices;
    ptrdiff_t size = c->k * c->s->d;
    (void)a;
    memset(c->gradient, 0, (size_t)(c->groups * size) * sizeof *c->gradient);
    PF_TRY(pf_parallel(c->groups, X(gradient_group), c));
    double scale = 2 / q->total / (double)c->k * (c->s->weight ? 0x1p40 : 1);
    for (ptrdiff_t i = 0; i < size; i++) {
        g[i] = 0;
        for (ptrdiff_t group = 0; group < c->groups; group++) g[i] += c->gradient[group * size + i];
        g[i] *= scale;
    }
    return PF_OK;
}

/* ---- fitting a layer -------------------------------------------------------------------------------------- */

/* How the splines of a class of n rows are fitted. */
static pf_knots X(class_knots)(const X(settings) *s, double n)
{
    const pf_gis_options *o = s->options;
    pf_knots knots = {.m = s->m, .kde = o->kde, .bandwidth = o->bandwidth_factor * pow(PF_MAX(n, 1), -0.2)};
    knots.edge = o->edge_knots >= 0 ? o->edge_knots : (ptrdiff_t)PF_MAX(log10(PF_MAX(n, 10)) - 1, 0);
    knots.edge = PF_MIN(knots.edge, (s->m - 2) / 2);
    /* A layer moves the data by 1 - alpha of the way. What a step gains on new data falls with (1 - alpha), what it
     * learns of noise with its square: many rows per column afford long steps, few do not. The tails hold few rows at
     * any n. */
    double step = PF_MIN(0.011 * pow(n / (double)s->d, 0.45), 0.5);
    knots.alpha[0] = o->alpha[0] >= 0 ? o->alpha[0] : 1 - step;
    knots.alpha[1] = o->alpha[1] >= 0 ? o->alpha[1] : 1 - 0.03 * step;
    if (s->marginal) knots.alpha[0] = knots.alpha[1] = PF_MAX(MARGINAL_ALPHA, 1 / (1 + 0.1 * n));
    return knots;
}

typedef struct {
    const X(slices) *slices;
    const X(settings) *settings;
    double *theta;    /* [classes][K][3 M] */
    double *distance; /* [K] */
    double *scratch;  /* [threads][3 M + 4 bins + 4] */
} X(splines);

/* Knots of one slice, for every class. */
static void X(fit_slice)(void *arg, ptrdiff_t j, int thread)
{
    X(splines) *f = arg;
    const X(slices) *c = f->slices;
    ptrdiff_t bins = c->grid->bins, m = f->settings->m;
    double *scratch = f->scratch + thread * (3 * m + 4 * bins + 4), square = 0, all = 0;
    for (ptrdiff_t b = 0; b < c->classes * bins; b++) all += (double)c->count[j * c->classes * bins + b];
    for (ptrdiff_t l = 0; l < c->classes; l++) {
        const int64_t *count = c->count + (j * c->classes + l) * bins;
        pf_moments moments = pf_cdf1d_moments(count, c->grid + j);
        square += pf_cdf1d_scores(scratch, count, c->grid + j) * (double)moments.total;
        double *theta = f->theta + (l * c->k + j) * 3 * m;
        if (!moments.total) { /* a class with no weight: the identity, with knots 1 apart */
            memset(theta, 0, (size_t)(3 * m) * sizeof *theta);
            theta[0] = theta[m] = -0.5 * (double)(m - 1);
            continue;
        }
        pf_knots options = X(class_knots)(f->settings, f->settings->n * (double)moments.total / all);
        pf_cdf1d_fit(scratch, count, c->grid + j, &options, scratch + 3 * m);
        pf_rqs_theta(theta, scratch, m);
    }
    f->distance[j] = square / PF_MAX(all, 1);
}

pf_status X(fit_splines)(double *theta, double *distance, X(slices) *c, const X(settings) *o)
{
    X(splines) f = {.slices = c, .settings = o, .theta = theta, .distance = PF_ALLOC(double, c->k)};
    f.scratch = PF_ALLOC(double, pf_max_threads(c->k) * (3 * o->m + 4 * c->grid->bins + 4));
    pf_status status = f.distance && f.scratch ? X(slices_count)(c) : PF_NO_MEMORY;
    if (!status) status = pf_parallel(c->k, X(fit_slice), &f);
    *distance = 0;
    for (ptrdiff_t j = 0; j < c->k && !status; j++) *distance += f.distance[j] / (double)c->k;
    free(f.distance);
    free(f.scratch);
    return status;
}

/* Some of the tiles, a function of (seed, stream): all of them if that is not more than `points` rows. */
static pf_status X(pick_tiles)(ptrdiff_t **pick, ptrdiff_t *picked, const X(working) *s, ptrdiff_t points,
                               uint64_t seed, uint64_t stream)
{
    *pick = NULL;
    *picked = s->tiles;
    if (points >= s->n) return PF_OK;
    *picked = PF_MAX(PF_MIN((points + s->ld - 1) / s->ld, s->tiles), 1);
    ptrdiff_t *all = PF_ALLOC(ptrdiff_t, s->tiles);
    if (!all) return PF_NO_MEMORY;
    for (ptrdiff_t t = 0; t < s->tiles; t++) all[t] = t;
    for (ptrdiff_t t = 0; t < *picked; t++) {
        ptrdiff_t other = t + (ptrdiff_t)pf_uniform_int(seed, stream, (uint64_t)t, (uint64_t)(s->tiles - t)),
                  swap = all[t];
        all[t] = all[other], all[other] = swap;
    }
    *pick = all;
    return PF_OK;
}

static ptrdiff_t X(search_bins)(ptrdiff_t n)
{
    ptrdiff_t bins = 256;
    while (bins < 1024 && bins * 16 < n) bins *= 2;
    return bins;
}

/* A sliced layer for the state as it is: slices searched, splines fitted. number: of the layer, for its random start. */
pf_status X(fit_sliced)(X(fitted) *fitted, const X(working) *s, const X(settings) *o, ptrdiff_t number)
{
    ptrdiff_t d = s->d, k = o->k, ld = s->ld, classes = o->classes, picked, *pick;
    uint64_t stream = (uint64_t)number + 1;
    PF_TRY(X(pick_tiles)(&pick, &picked, s, o->slice_points, o->seed, stream << 32));
    ptrdiff_t groups = X(working_groups)(s->tiles, k * d), bins = X(search_bins)(picked * ld);
    int threads = pf_max_threads(groups);
    double *a = PF_ALLOC(double, k *d), *cov = PF_ALLOC(double, d *d + d);
    pf_grid *grid = PF_ALLOC(pf_grid, k);
    int64_t *count = PF_ALLOC(int64_t, threads * k * classes * FIT_BINS);
    real *work = PF_ALLOC(real, threads * (2 * k * ld + k * d) + k * d);
    real *score = PF_ALLOC(real, k * classes * (bins + 1));
    ptrdiff_t splines = classes * k * 3 * o->m;
    fitted->theta = PF_ALLOC(double, splines + k * d);
    double *gradient = PF_ALLOC(double, groups *k *d + k), *scratch = PF_ALLOC(double, k *d);
    pf_status status = PF_NO_MEMORY;
    if (!a || !cov || !grid || !count || !work || !score || !fitted->theta || !gradient || !scratch) goto done;

    real *a_real = work + threads * (2 * k * ld + k * d);
    X(search) q = {
        .slices = {.s = s,
                   .pick = pick,
                   .picked = picked,
                   .k = k,
                   .classes = classes,
                   .groups = PF_MIN(picked, groups),
                   .a = a_real,
                   .grid = grid,
                   .count = count,
                   .score = score,
                   .gradient = gradient,
                   .work = work},
        .mean = cov + d * d,
        .cov = cov,
        .grid = grid,
        .a = a_real,
        .score = score,
        .scratch = scratch,
        .total = X(working_weight)(s, pick, picked),
        .distance = gradient + groups * k * d,
    };
    if (!(q.total > 0)) q.total = 1;
    for (ptrdiff_t j = 0; j < k; j++) grid[j].bins = bins;
    status = X(working_moments)(cov + d * d, cov, s, pick, picked);
    if (!status) status = pf_stiefel_random(a, k, d, o->seed, stream);
    double value;
    pf_slice_objective objective = {.value = X(search_value), .gradient = X(search_gradient), .user = &q};
    if (!status && o->slice_steps > 0 && d > 1)
        status = pf_stiefel_ascend(a, &value, k, d, o->slice_steps, SEARCH_TOLERANCE, &objective);
    if (status) goto done;

    for (ptrdiff_t i = 0; i < k * d; i++) a_real[i] = (real)a[i];
    X(slice_grids)(grid, a, q.mean, q.cov, k, d, FIT_BINS, scratch);
    X(slices) all = q.slices;
    all.pick = NULL, all.picked = s->tiles, all.groups = groups;
    status = X(fit_splines)(fitted->theta, &fitted->distance, &all, o);
    memcpy(fitted->theta + splines, a, (size_t)(k * d) * sizeof *a);
    if (!status) status = X(sliced_new)(&fitted->layer, d, k, o->m, classes);
done:
    free(pick);
    free(a);
    free(cov);
    free(grid);
    free(count);
    free(work);
    free(score);
    free(gradient);
    free(scratch);
    return status;
}
#endif
