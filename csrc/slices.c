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

/* p[K][ld] = A x */
static void X(project)(real *p, const X(slices) *c, const X(tile) *tile)
{
    X(gemm)(p, c->a, tile->x, 0, 0, 0, c->k, tile_whole(tile->n), c->s->d, tile->ld, c->s->d, tile->ld);
}

static void X(count_group)(void *arg, ptrdiff_t group, int thread)
{
    X(slices) *c = arg;
    const X(working) *s = c->s;
    ptrdiff_t bins = c->grid->bins, per_slice = c->classes * bins, size = c->k * s->ld;
    for (ptrdiff_t i = group * c->picked / c->groups; i < (group + 1) * c->picked / c->groups; i++) {
        ptrdiff_t t = c->pick ? c->pick[i] : i;
        X(tile) tile = X(working_tile)(s, t);
        real *own = c->work + thread * size;
        if (c->a && !c->kept) X(project)(own, c, &tile);
        const real *p = c->kept ? c->kept + i * size : c->a ? own : tile.x;
        for (ptrdiff_t k = 0; k < c->k; k++)
            X(cdf1d_count)(c->count + (thread * c->k + k) * per_slice, p + k * s->ld,
                           s->weight ? s->weight + t * s->ld : NULL, c->classes > 1 ? tile.label : NULL, bins,
                           c->grid + k, tile.n);
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

/* Projections of the tiles looked at, and their first two moments. */
static void X(project_group)(void *arg, ptrdiff_t group, int thread)
{
    X(search) *q = arg;
    const X(slices) *c = &q->slices;
    const X(working) *s = c->s;
    double *sums = q->sums + group * 2 * c->k, w[TILE_MOST];
    (void)thread;
    memset(sums, 0, (size_t)(2 * c->k) * sizeof *sums);
    for (ptrdiff_t i = group * c->picked / c->groups; i < (group + 1) * c->picked / c->groups; i++) {
        ptrdiff_t t = c->pick ? c->pick[i] : i;
        X(tile) tile = X(working_tile)(s, t);
        real *p = c->kept + i * c->k * s->ld;
        ptrdiff_t whole = tile_whole(tile.n);
        X(project)(p, c, &tile);
        for (ptrdiff_t r = 0; r < whole; r++) w[r] = r >= tile.n ? 0 : s->weight ? (double)s->weight[t * s->ld + r] : 1;
        for (ptrdiff_t k = 0; k < c->k; k++) X(cdf1d_sums)(sums + 2 * k, p + k * s->ld, w, whole);
    }
}

/* Projects along slices a[K][d], and lays a grid of so many bins over each slice's mean +- 8 standard deviations. */
static pf_status X(search_project)(X(search) *q, const double *a, ptrdiff_t bins)
{
    const X(slices) *c = &q->slices;
    for (ptrdiff_t i = 0; i < c->k * c->s->d; i++) q->a[i] = (real)a[i];
    PF_TRY(pf_parallel(c->groups, X(project_group), q));
    for (ptrdiff_t k = 0; k < c->k; k++) {
        double sum = 0, square = 0;
        for (ptrdiff_t g = 0; g < c->groups; g++)
            sum += q->sums[2 * (g * c->k + k)], square += q->sums[2 * (g * c->k + k) + 1];
        double centre = sum / q->total, sd = sqrt(PF_MAX(square / q->total - centre * centre, 1e-12));
        q->grid[k] = (pf_grid){
            .lo = centre - GRID_SIGMAS * sd, .width = 2 * GRID_SIGMAS * sd / (double)bins, .bins = bins};
    }
    return PF_OK;
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

pf_status X(search_value)(void *user, double *value, const double *a)
{
    X(search) *q = user;
    ptrdiff_t k = q->slices.k;
    PF_TRY(X(search_project)(q, a, q->bins));
    PF_TRY(X(slices_count)(&q->slices));
    PF_TRY(pf_parallel(k, X(score_slice), q));
    *value = 0;
    for (ptrdiff_t j = 0; j < k; j++) *value += q->distance[j] / (double)k;
    return PF_OK;
}

/* dW/da_k = 2 sum_i w_i r_i x_i / sum w, r = a_k.x - Phi^-1(F) */
static void X(gradient_group)(void *arg, ptrdiff_t group, int thread)
{
    X(search) *q = arg;
    const X(slices) *c = &q->slices;
    const X(working) *s = c->s;
    ptrdiff_t k = c->k, d = s->d, ld = s->ld, edges = c->grid->bins + 1;
    real *r = c->work + thread * k * ld, *product = q->product + thread * k * d;
    double *g = q->gradient + group * k * d;
    memset(g, 0, (size_t)(k * d) * sizeof *g);
    for (ptrdiff_t i = group * c->picked / c->groups; i < (group + 1) * c->picked / c->groups; i++) {
        ptrdiff_t t = c->pick ? c->pick[i] : i;
        X(tile) tile = X(working_tile)(s, t);
        ptrdiff_t whole = tile_whole(tile.n);
        const int64_t *weight = s->weight ? s->weight + t * ld : NULL;
        for (ptrdiff_t j = 0; j < k; j++) {
            real *rj = r + j * ld;
            const real *score = q->score + j * c->classes * edges, *p = c->kept + (i * k + j) * ld;
            if (c->classes == 1) X(cdf1d_residual)(rj, p, score, c->grid + j, tile.n);
            else
                for (ptrdiff_t n = 0; n < tile.n; n++)
                    X(cdf1d_residual)(rj + n, p + n, score + tile.label[n] * edges, c->grid + j, 1);
            for (ptrdiff_t n = 0; weight && n < tile.n; n++) rj[n] *= (real)((double)weight[n] * 0x1p-40);
            for (ptrdiff_t n = tile.n; n < whole; n++) rj[n] = 0;
        }
        X(gemm)(product, r, tile.x, 0, 1, 0, k, d, whole, d, ld, ld);
        for (ptrdiff_t n = 0; n < k * d; n++) g[n] += (double)product[n];
    }
}

pf_status X(search_gradient)(void *user, double *g, const double *a)
{
    X(search) *q = user;
    X(slices) *c = &q->slices;
    ptrdiff_t size = c->k * c->s->d;
    (void)a;
    PF_TRY(pf_parallel(c->groups, X(gradient_group), q));
    double scale = 2 / q->total / (double)c->k * (c->s->weight ? 0x1p40 : 1);
    for (ptrdiff_t i = 0; i < size; i++) {
        g[i] = 0;
        for (ptrdiff_t group = 0; group < c->groups; group++) g[i] += q->gradient[group * size + i];
        g[i] *= scale;
    }
    return PF_OK;
}

/* Some of the tiles, a function of (seed, stream): all of them if that is not more than `points` rows. */
static pf_status X(pick_tiles)(X(slices) *c, ptrdiff_t points, uint64_t seed, uint64_t stream)
{
    const X(working) *s = c->s;
    c->picked = s->tiles;
    if (points >= s->rows) return PF_OK;
    double part = (double)points / (double)s->rows;
    c->picked = PF_MAX(PF_MIN((ptrdiff_t)ceil(part * (double)s->n / (double)s->ld), s->tiles), 1);
    ptrdiff_t *all = PF_ALLOC(ptrdiff_t, s->tiles);
    if (!all) return PF_NO_MEMORY;
    for (ptrdiff_t t = 0; t < s->tiles; t++) all[t] = t;
    for (ptrdiff_t t = 0; t < c->picked; t++) {
        ptrdiff_t other = t + (ptrdiff_t)pf_uniform_int(seed, stream, (uint64_t)t, (uint64_t)(s->tiles - t)),
                  swap = all[t];
        all[t] = all[other], all[other] = swap;
    }
    c->pick = all;
    return PF_OK;
}

pf_status X(search_new)(X(search) *q, const X(working) *s, const X(settings) *o, ptrdiff_t number)
{
    ptrdiff_t d = s->d, k = o->k, ld = s->ld, classes = o->classes, groups = X(working_groups)(s->tiles, k * d);
    int threads = pf_max_threads(groups);
    *q = (X(search)){.bins = 256, .stream = (uint64_t)number + 1};
    X(slices) *c = &q->slices;
    *c = (X(slices)){.s = s, .k = k, .classes = classes};
    PF_TRY(X(pick_tiles)(c, o->slice_points, o->seed, q->stream << 32));
    c->groups = PF_MIN(c->picked, groups);
    while (q->bins < 1024 && q->bins * 16 < PF_MIN(s->rows, o->slice_points)) q->bins *= 2;
    c->a = q->a = PF_ALLOC(real, k * d);
    c->grid = q->grid = PF_ALLOC(pf_grid, k);
    c->count = PF_ALLOC(int64_t, threads * k * classes * FIT_BINS);
    c->kept = PF_ALLOC(real, c->picked * k * ld);
    c->work = PF_ALLOC(real, threads * k * ld);
    q->product = PF_ALLOC(real, threads * k * d);
    q->score = PF_ALLOC(real, k * classes * (q->bins + 1));
    q->sums = PF_ALLOC(double, groups * 2 * k);
    q->gradient = PF_ALLOC(double, groups *k *d);
    q->distance = PF_ALLOC(double, k);
    if (!q->a || !q->grid || !c->count || !c->kept || !c->work || !q->product || !q->score || !q->sums ||
        !q->gradient || !q->distance)
        return PF_NO_MEMORY;
    q->total = X(working_weight)(s, c->pick, c->picked);
    if (!(q->total > 0)) q->total = 1;
    return PF_OK;
}

void X(search_free)(X(search) *q)
{
    free((void *)q->slices.pick);
    free(q->a);
    free(q->grid);
    free(q->slices.count);
    free(q->slices.kept);
    free(q->slices.work);
    free(q->product);
    free(q->score);
    free(q->sums);
    free(q->gradient);
    free(q->distance);
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

/* Slices a[K][d] and the splines along them, theta */
static pf_status X(search_run)(X(search) *q, double *a, double *theta, double *distance, const X(settings) *o)
{
    X(slices) *c = &q->slices;
    double value;
    pf_slice_objective objective = {.value = X(search_value), .gradient = X(search_gradient), .user = q};
    PF_TRY(pf_stiefel_random(a, c->k, c->s->d, o->seed, q->stream));
    if (o->slice_steps > 0 && c->s->d > 1)
        PF_TRY(pf_stiefel_ascend(a, &value, c->k, c->s->d, o->slice_steps, SEARCH_TOLERANCE, &objective));
    PF_TRY(X(search_project)(q, a, FIT_BINS));
    X(slices) all = *c; /* splines are fitted to all rows */
    if (c->pick) {
        all.pick = NULL, all.kept = NULL, all.picked = c->s->tiles;
        all.groups = X(working_groups)(all.picked, c->k * c->s->d);
    }
    return X(fit_splines)(theta, distance, &all, o);
}

pf_status X(fit_sliced)(X(fitted) *fitted, const X(working) *s, const X(settings) *o, ptrdiff_t number)
{
    X(search) q;
    ptrdiff_t splines = o->classes * o->k * 3 * o->m;
    fitted->theta = PF_ALLOC(double, splines + o->k * o->d);
    pf_status status = X(search_new)(&q, s, o, number);
    if (!fitted->theta) status = PF_NO_MEMORY;
    if (!status) status = X(search_run)(&q, fitted->theta + splines, fitted->theta, &fitted->distance, o);
    if (!status) status = X(sliced_new)(&fitted->layer, s->d, o->k, o->m, o->classes);
    X(search_free)(&q);
    return status;
}
#endif
