/* GIS, Gaussianizing iterative slicing (Dai & Seljak 2021, section 3): layers that carry the data to N(0, I), each
 * along the slices where they are furthest from it, until the validation log-likelihood no longer rises. */
#ifndef real
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blas.h"
#include "cdf1d.h"
#include "model.h"
#include "stiefel.h"

void pf_gis_defaults(pf_gis_options *o)
{
    *o = (pf_gis_options){
        .patience = 10,
        .kde = 1,
        .bandwidth_factor = 1.2,
        .alpha = {-1, -1},
        .edge_knots = -1,
        .slice_steps = -1,
        .marginal_first = 1,
        .whiten = 1,
        .checkpoint_seconds = 60,
    };
}

enum {
    MOST_GROUPS = 64,   /* sums over rows are made in this many groups of tiles, then over groups in order */
    GRID_SIGMAS = 8,    /* a slice's histogram covers its mean +- 8 standard deviations */
    MOST_SLICES = 128,  /* of a layer by default, where rows are few: more do not pay for the time */
    MOST_LAYERS = 2000, /* sliced layers unless max_layers says otherwise: ties in the data could gain without end */
    FIT_BINS = 2048,    /* bins of the histograms that splines are fitted to */
};

/* The search for slices ends with a step that gains less than this part of the objective: later layers do the rest. */
#define SEARCH_TOLERANCE 0.01
/* The first layer's pull towards the identity: one dimension is easy, and nothing was searched for. */
#define MARGINAL_ALPHA 0.1
/* Covariances are shrunk this many times more than is best for the covariance: what whitening gets wrong later layers
 * do not mend, what it leaves they find. */
#define WHITEN_CAUTION 20

#define TWICE "gis.c"
#include "twice.h"
#else

/* ---- the working copy: data on their way to N(0, I) ------------------------------------------------------- */

typedef struct {
    ptrdiff_t n, d, ld, tiles;
    real *x;         /* [tiles][d][ld] */
    double *logj;    /* [n] */
    int64_t *weight; /* [n] fixed point, or NULL */
    int32_t *label;  /* [n] or NULL, the caller's */
    double n_eff;    /* (sum w)^2 / sum w^2 */
    double *sums;    /* [tiles][2]: weight and weighted log p */
    size_t mapped;   /* bytes of x in a scratch file, 0: in memory */
} X(state);

static void X(state_free)(X(state) *s)
{
    if (s->mapped) munmap(s->x, s->mapped);
    else free(s->x);
    free(s->logj);
    free(s->weight);
    free(s->sums);
}

/* Memory for the working copy in a nameless file of the scratch folder. */
static pf_status X(state_map)(X(state) *s, const char *scratch, size_t bytes)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/pyflow-XXXXXX", scratch) >= sizeof path)
        return pf_fail(PF_BAD_ARGUMENT, "scratch: the path is too long");
    int fd = mkstemp(path);
    if (fd < 0) return pf_fail(PF_IO_ERROR, "scratch: cannot make a file in %s: %m", scratch);
    unlink(path);
    int failed = posix_fallocate(fd, 0, (off_t)bytes);
    void *x = failed ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (x == MAP_FAILED)
        return pf_fail(PF_IO_ERROR, "scratch: %s has no room for %.3g GiB of working data", scratch,
                       (double)bytes / (1 << 30));
    s->x = x;
    s->mapped = bytes;
    return PF_OK;
}

static pf_status X(check_weights)(const X(data) *data, const char *name)
{
    double sum = 0;
    for (ptrdiff_t i = 0; data->weight && i < data->n; i++) {
        if (!isfinite(data->weight[i]) || data->weight[i] < 0)
            return pf_fail(PF_BAD_ARGUMENT, "weight_%s: row %td is %g; weights are finite and not negative", name, i,
                           data->weight[i]);
        sum += data->weight[i];
    }
    if (data->weight && !(sum > 0)) return pf_fail(PF_BAD_ARGUMENT, "weight_%s: all weights are zero", name);
    return PF_OK;
}

static pf_status X(check_labels)(const X(data) *data, int classes, const char *name)
{
    if (!classes)
        return data->label ? pf_fail(PF_BAD_ARGUMENT, "labels_%s: labels were given but n_classes is 0", name) : PF_OK;
    if (!data->label) return pf_fail(PF_BAD_ARGUMENT, "labels_%s: every row needs a label", name);
    for (ptrdiff_t i = 0; i < data->n; i++)
        if (data->label[i] < 0 || data->label[i] >= classes)
            return pf_fail(PF_BAD_ARGUMENT, "labels_%s: %d of row %td is not between 0 and %d", name, data->label[i], i,
                           classes - 1);
    return PF_OK;
}

static pf_status X(bad_value)(const real *x, ptrdiff_t n, ptrdiff_t d, ptrdiff_t first, const char *name)
{
    for (ptrdiff_t i = 0; i < n * d; i++)
        if (!isfinite(x[i]))
            return pf_fail(PF_BAD_ARGUMENT, "data_%s: row %td, column %td is %s", name, first + i / d, i % d,
                           isnan(x[i]) ? "NaN" : "infinite");
    return PF_OK;
}

static pf_status X(state_fill)(X(state) *s, const X(data) *data, const char *name)
{
    real *rows = data->x ? NULL : PF_ALLOC(real, s->ld * s->d);
    pf_status status = data->x || rows ? PF_OK : PF_NO_MEMORY;
    for (ptrdiff_t t = 0; t < s->tiles && !status; t++) {
        ptrdiff_t first = t * s->ld;
        X(tile) tile = {.x = s->x + t * s->d * s->ld, .n = PF_MIN(s->ld, s->n - first), .ld = s->ld};
        if (rows && data->read(data->user, rows, first, tile.n))
            status = pf_fail(PF_IO_ERROR, "data_%s: reading rows %td to %td failed", name, first, first + tile.n - 1);
        const real *from = rows ? rows : data->x + first * s->d;
        if (!status && X(tile_load)(&tile, from, s->d)) status = X(bad_value)(from, tile.n, s->d, first, name);
        if (!status) status = pf_check_interrupt();
    }
    free(rows);
    return status;
}

static pf_status X(state_new)(X(state) *s, const X(data) *data, ptrdiff_t d, int classes, const char *scratch,
                              const char *name)
{
    if (data->n < 1) return pf_fail(PF_BAD_ARGUMENT, "data_%s: there are no rows", name);
    PF_TRY(X(check_weights)(data, name));
    PF_TRY(X(check_labels)(data, classes, name));
    ptrdiff_t ld = X(tile_rows)(d), tiles = (data->n + ld - 1) / ld;
    *s = (X(state)){.n = data->n, .d = d, .ld = ld, .tiles = tiles, .n_eff = (double)data->n};
    s->label = (int32_t *)data->label;
    if (scratch) PF_TRY(X(state_map)(s, scratch, (size_t)(tiles * d * ld) * sizeof(real)));
    else if (!(s->x = PF_ALLOC(real, tiles * d * ld))) return PF_NO_MEMORY;
    s->logj = PF_CALLOC(double, s->n);
    s->sums = PF_CALLOC(double, 2 * tiles);
    if (!s->logj || !s->sums) return PF_NO_MEMORY;
    if (data->weight) {
        if (!(s->weight = PF_ALLOC(int64_t, s->n))) return PF_NO_MEMORY;
        pf_fixed_weights(s->weight, data->weight, s->n);
        double sum = 0, square = 0;
        for (ptrdiff_t i = 0; i < s->n; i++) {
            sum += (double)s->weight[i];
            square += (double)s->weight[i] * (double)s->weight[i];
        }
        s->n_eff = sum * sum / square;
    }
    return X(state_fill)(s, data, name);
}

static X(tile) X(state_tile)(const X(state) *s, ptrdiff_t t)
{
    ptrdiff_t first = t * s->ld;
    return (X(tile)){.x = s->x + t * s->d * s->ld,
                     .label = s->label ? s->label + first : NULL,
                     .n = PF_MIN(s->ld, s->n - first),
                     .ld = s->ld};
}

/* ---- passing a layer over the state ----------------------------------------------------------------------- */

typedef struct {
    X(state) *s;
    const X(layer) *layer; /* NULL: only the sums */
    real *work;
    ptrdiff_t per_thread;
} X(pass);

static void X(pass_tile)(void *arg, ptrdiff_t t, int thread)
{
    X(pass) *p = arg;
    X(state) *s = p->s;
    X(tile) tile = X(state_tile)(s, t);
    double logp[TILE_MOST], *logj = s->logj + t * s->ld, weight = 0, sum = 0;
    if (p->layer) p->layer->ops->forward(p->layer, &tile, logj, p->work + thread * p->per_thread);
    X(tile_logp)(logp, &tile, s->d);
    for (ptrdiff_t i = 0; i < tile.n; i++) {
        double w = s->weight ? (double)s->weight[t * s->ld + i] : 1;
        weight += w;
        if (w > 0) sum += w * (logp[i] + logj[i]);
    }
    s->sums[2 * t] = weight;
    s->sums[2 * t + 1] = sum;
}

/* Applies the layer to all rows; *logp is then their mean log p. */
static pf_status X(state_forward)(X(state) *s, const X(layer) *layer, double *logp)
{
    X(pass) p = {.s = s, .layer = layer, .per_thread = layer ? layer->ops->work(layer, s->ld) : 0};
    if (!(p.work = PF_ALLOC(real, p.per_thread * pf_max_threads(s->tiles)))) return PF_NO_MEMORY;
    pf_status status = pf_parallel(s->tiles, X(pass_tile), &p);
    free(p.work);
    double weight = 0, sum = 0;
    for (ptrdiff_t t = 0; t < s->tiles; t++) weight += s->sums[2 * t], sum += s->sums[2 * t + 1];
    *logp = sum / weight;
    return status;
}

/* ---- moments: mean and covariance ------------------------------------------------------------------------- */

typedef struct {
    const X(state) *s;
    const ptrdiff_t *pick; /* tiles to look at, NULL: all */
    ptrdiff_t picked, groups;
    double *sums; /* [groups][1 + d + d d]: weight, first and second moments */
    real *work;   /* [threads][d ld + d d] */
} X(moments);

/* Groups whose sums of this many numbers each do not take much memory. */
static ptrdiff_t X(groups)(ptrdiff_t tiles, ptrdiff_t numbers)
{
    return PF_MIN(tiles, PF_MIN(MOST_GROUPS, PF_MAX((128 << 20) / 8 / numbers, 2)));
}

static void X(moments_group)(void *arg, ptrdiff_t group, int thread)
{
    X(moments) *m = arg;
    const X(state) *s = m->s;
    ptrdiff_t d = s->d, ld = s->ld;
    double *sums = m->sums + group * (1 + d + d * d);
    real *scaled = m->work + thread * (d * ld + d * d), *product = scaled + d * ld;
    for (ptrdiff_t p = group * m->picked / m->groups; p < (group + 1) * m->picked / m->groups; p++) {
        ptrdiff_t t = m->pick ? m->pick[p] : p;
        X(tile) tile = X(state_tile)(s, t);
        double w[TILE_MOST], most = 0;
        for (ptrdiff_t i = 0; i < ld; i++) {
            w[i] = i >= tile.n ? 0 : s->weight ? (double)s->weight[t * ld + i] : 1;
            most = PF_MAX(most, w[i]);
            sums[0] += w[i];
        }
        if (!(most > 0)) continue;
        for (ptrdiff_t j = 0; j < d; j++)
            for (ptrdiff_t i = 0; i < ld; i++) {
                double v = w[i] * (double)tile.x[j * ld + i];
                sums[1 + j] += v;
                scaled[j * ld + i] = (real)(v / most); /* weights reach 2^52: keep a float's squares in range */
            }
        X(gemm)(product, scaled, tile.x, 0, 1, 0, d, d, ld, d, ld, ld);
        for (ptrdiff_t i = 0; i < d * d; i++) sums[1 + d + i] += most * (double)product[i];
    }
}

/* mean[d], cov[d][d] over some tiles */
static pf_status X(state_moments)(double *mean, double *cov, const X(state) *s, const ptrdiff_t *pick, ptrdiff_t picked)
{
    ptrdiff_t d = s->d, size = 1 + d + d * d;
    X(moments) m = {.s = s, .pick = pick, .picked = picked, .groups = X(groups)(picked, d * d)};
    m.sums = PF_CALLOC(double, m.groups *size);
    m.work = PF_ALLOC(real, pf_max_threads(m.groups) * (d * s->ld + d * d));
    pf_status status = m.sums && m.work ? pf_parallel(m.groups, X(moments_group), &m) : PF_NO_MEMORY;
    if (!status) {
        for (ptrdiff_t g = 1; g < m.groups; g++)
            for (ptrdiff_t i = 0; i < size; i++) m.sums[i] += m.sums[g * size + i];
        double inv = 1 / PF_MAX(m.sums[0], 1e-300);
        for (ptrdiff_t j = 0; j < d; j++) mean[j] = m.sums[1 + j] * inv;
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t j = 0; j < d; j++) cov[i * d + j] = m.sums[1 + d + i * d + j] * inv - mean[i] * mean[j];
    }
    free(m.sums);
    free(m.work);
    return status;
}

/* ---- histograms of slices --------------------------------------------------------------------------------- */

typedef struct {
    const X(state) *s;
    const ptrdiff_t *pick;
    ptrdiff_t picked, k, classes, groups;
    const real *a;       /* [K][d], or NULL: the columns themselves */
    const pf_grid *grid; /* [K], the same number of bins each */
    int64_t *count;      /* [threads][K][classes][bins]; the first is their sum at the end */
    const real *score;   /* [K][classes][bins + 1] */
    double *gradient;    /* [groups][K][d] */
    real *work;          /* [threads][2 K ld + K d] */
} X(slices);

static const real *X(project)(const X(slices) *c, const X(tile) *tile, real *p)
{
    if (!c->a) return tile->x;
    X(gemm)(p, c->a, tile->x, 0, 0, 0, c->k, tile_whole(tile->n), c->s->d, tile->ld, c->s->d, tile->ld);
    return p;
}

static void X(count_group)(void *arg, ptrdiff_t group, int thread)
{
    X(slices) *c = arg;
    const X(state) *s = c->s;
    ptrdiff_t bins = c->grid->bins, per_slice = c->classes * bins;
    real *work = c->work + thread * (2 * c->k * s->ld + c->k * s->d);
    for (ptrdiff_t i = group * c->picked / c->groups; i < (group + 1) * c->picked / c->groups; i++) {
        ptrdiff_t t = c->pick ? c->pick[i] : i;
        X(tile) tile = X(state_tile)(s, t);
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
    const X(state) *s = c->s;
    ptrdiff_t k = c->k, d = s->d, ld = s->ld, edges = c->grid->bins + 1;
    real *p = c->work + thread * (2 * k * ld + k * d), *r = p + k * ld, *product = r + k * ld;
    double *g = c->gradient + group * k * d;
    for (ptrdiff_t q = group * c->picked / c->groups; q < (group + 1) * c->picked / c->groups; q++) {
        ptrdiff_t t = c->pick ? c->pick[q] : q;
        X(tile) tile = X(state_tile)(s, t);
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

typedef struct {
    const pf_gis_options *options;
    double n; /* effective number of training rows */
    ptrdiff_t d, k, m, slice_points, slice_steps;
    uint64_t seed;
    ptrdiff_t classes; /* at least 1 */
    int marginal;      /* this layer is the first: no slices were searched for */
} X(settings);

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
    real *knots;      /* [classes][K][3][M] */
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
        real *out = f->knots + (l * c->k + j) * 3 * m;
        if (!moments.total) { /* a class with no weight: the identity */
            for (ptrdiff_t i = 0; i < m; i++)
                out[i] = out[m + i] = (real)((double)i - 0.5 * (double)(m - 1)), out[2 * m + i] = 1;
            continue;
        }
        pf_knots options = X(class_knots)(f->settings, f->settings->n * (double)moments.total / all);
        pf_cdf1d_fit(scratch, count, c->grid + j, &options, scratch + 3 * m);
        for (ptrdiff_t i = 0; i < 3 * m; i++) out[i] = (real)scratch[i];
    }
    f->distance[j] = square / PF_MAX(all, 1);
}

/* Knots of every slice and class from histograms of all rows; *distance is the slices' mean squared one. */
static pf_status X(fit_splines)(real *knots, double *distance, X(slices) *c, const X(settings) *o)
{
    X(splines) f = {.slices = c, .settings = o, .knots = knots, .distance = PF_ALLOC(double, c->k)};
    f.scratch = PF_ALLOC(double, pf_max_threads(c->k) * (3 * o->m + 4 * c->grid->bins + 4));
    pf_status status = f.distance && f.scratch ? X(slices_count)(c) : PF_NO_MEMORY;
    if (!status) status = pf_parallel(c->k, X(fit_slice), &f);
    *distance = 0;
    for (ptrdiff_t j = 0; j < c->k && !status; j++) *distance += f.distance[j] / (double)c->k;
    free(f.distance);
    free(f.scratch);
    return status;
}

static double X(total_weight)(const X(state) *s, const ptrdiff_t *pick, ptrdiff_t picked)
{
    double total = 0;
    for (ptrdiff_t p = 0; p < picked; p++) {
        ptrdiff_t t = pick ? pick[p] : p, first = t * s->ld;
        for (ptrdiff_t i = first; i < PF_MIN(first + s->ld, s->n); i++) total += s->weight ? (double)s->weight[i] : 1;
    }
    return total;
}

/* Some of the tiles, a function of (seed, stream): all of them if that is not more than `points` rows. */
static pf_status X(pick_tiles)(ptrdiff_t **pick, ptrdiff_t *picked, const X(state) *s, ptrdiff_t points, uint64_t seed,
                               uint64_t stream)
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
static pf_status X(fit_sliced)(X(layer) **layer, double *distance, const X(state) *s, const X(settings) *o,
                               ptrdiff_t number)
{
    ptrdiff_t d = s->d, k = o->k, ld = s->ld, classes = o->classes, picked, *pick;
    uint64_t stream = (uint64_t)number + 1;
    PF_TRY(X(pick_tiles)(&pick, &picked, s, o->slice_points, o->seed, stream << 32));
    ptrdiff_t groups = X(groups)(s->tiles, k * d), bins = X(search_bins)(picked * ld);
    int threads = pf_max_threads(groups);
    double *a = PF_ALLOC(double, k *d), *cov = PF_ALLOC(double, d *d + d);
    pf_grid *grid = PF_ALLOC(pf_grid, k);
    int64_t *count = PF_ALLOC(int64_t, threads * k * classes * FIT_BINS);
    real *work = PF_ALLOC(real, threads * (2 * k * ld + k * d) + k * d);
    real *score = PF_ALLOC(real, k * classes * (bins + 1)), *knots = PF_ALLOC(real, classes * k * 3 * o->m);
    double *gradient = PF_ALLOC(double, groups *k *d + k), *scratch = PF_ALLOC(double, k *d);
    pf_status status = PF_NO_MEMORY;
    if (!a || !cov || !grid || !count || !work || !score || !knots || !gradient || !scratch) goto done;

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
        .total = X(total_weight)(s, pick, picked),
        .distance = gradient + groups * k * d,
    };
    if (!(q.total > 0)) q.total = 1;
    for (ptrdiff_t j = 0; j < k; j++) grid[j].bins = bins;
    status = X(state_moments)(cov + d * d, cov, s, pick, picked);
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
    status = X(fit_splines)(knots, distance, &all, o);
    if (!status) status = X(sliced_new)(layer, a_real, knots, d, k, o->m, classes);
done:
    free(pick);
    free(a);
    free(cov);
    free(grid);
    free(count);
    free(work);
    free(score);
    free(knots);
    free(gradient);
    free(scratch);
    return status;
}

/* ---- the first layers ------------------------------------------------------------------------------------- */

/* Smallest and largest number of each column: range[d][2]. */
typedef struct {
    const X(state) *s;
    double *range; /* [tiles][d][2] */
} X(ranges);

static void X(range_tile)(void *arg, ptrdiff_t t, int thread)
{
    X(ranges) *r = arg;
    X(tile) tile = X(state_tile)(r->s, t);
    (void)thread;
    for (ptrdiff_t j = 0; j < r->s->d; j++) {
        real lo = (real)INFINITY, hi = (real)-INFINITY;
        for (ptrdiff_t i = 0; i < tile.n; i++) {
            if (r->s->weight && !r->s->weight[t * tile.ld + i]) continue;
            lo = PF_MIN(lo, tile.x[j * tile.ld + i]);
            hi = PF_MAX(hi, tile.x[j * tile.ld + i]);
        }
        r->range[(t * r->s->d + j) * 2] = lo;
        r->range[(t * r->s->d + j) * 2 + 1] = hi;
    }
}

static pf_status X(state_range)(double *range, const X(state) *s)
{
    X(ranges) r = {.s = s, .range = PF_ALLOC(double, s->tiles * s->d * 2)};
    pf_status status = r.range ? pf_parallel(s->tiles, X(range_tile), &r) : PF_NO_MEMORY;
    for (ptrdiff_t t = 0; t < s->tiles && !status; t++)
        for (ptrdiff_t j = 0; j < s->d; j++) {
            double lo = r.range[(t * s->d + j) * 2], hi = r.range[(t * s->d + j) * 2 + 1];
            range[2 * j] = t ? PF_MIN(range[2 * j], lo) : lo;
            range[2 * j + 1] = t ? PF_MAX(range[2 * j + 1], hi) : hi;
        }
    free(r.range);
    return status;
}

typedef struct {
    real x;
    int64_t weight;
} X(weighted);

static int X(ascending)(const void *a, const void *b)
{
    real x = ((const X(weighted) *)a)->x, y = ((const X(weighted) *)b)->x;
    return (x > y) - (x < y);
}

/* Quantiles at 1/6, 1/2, 5/6 of a column, from at most 2^16 of its numbers. */
static void X(robust)(double q[3], const X(state) *s, ptrdiff_t j, X(weighted) *row)
{
    ptrdiff_t step = (s->n + 65535) / 65536, n = 0, at = 0;
    int64_t total = 0, below = 0;
    for (ptrdiff_t i = 0; i < s->n; i += step) {
        if (s->weight && !s->weight[i]) continue;
        row[n] = (X(weighted)){s->x[(i / s->ld * s->d + j) * s->ld + i % s->ld], s->weight ? s->weight[i] : 1};
        total += row[n++].weight;
    }
    qsort(row, (size_t)n, sizeof *row, X(ascending));
    for (int i = 0; i < 3; i++) {
        while (at < n - 1 && 6 * (below + row[at].weight) < (2 * i + 1) * total) below += row[at++].weight;
        q[i] = n ? row[at].x : 0;
    }
}

/* Which map each column needs: its bounds, and whether its tails are heavy. */
static pf_status X(fit_columns)(X(layer) **layer, const X(state) *s, const double *bounds)
{
    const double heavy = 20; /* furthest point, in robust standard deviations, from which on tails are heavy */
    ptrdiff_t d = s->d;
    pf_column *column = PF_ALLOC(pf_column, d);
    double *range = PF_ALLOC(double, 2 * d);
    X(weighted) *scratch = PF_ALLOC(X(weighted), 65536);
    pf_status status = column && range && scratch ? X(state_range)(range, s) : PF_NO_MEMORY;
    for (ptrdiff_t j = 0; j < d && !status; j++) {
        double lo = range[2 * j], hi = range[2 * j + 1], q[3];
        double bound_lo = bounds ? bounds[2 * j] : -INFINITY, bound_hi = bounds ? bounds[2 * j + 1] : INFINITY;
        if (!(hi > lo)) {
            status = pf_fail(PF_DEGENERATE, "data_train: column %td is constant (%g): it has no density; leave it out",
                             j, lo);
            break;
        }
        if ((status = pf_check_interrupt())) break;
        X(robust)(q, s, j, scratch);
        double centre = q[1], spread = (q[2] - q[0]) / 1.9348;    /* N(0, 1) has its sixths at +-0.9674 */
        if (!(spread > 1e-9 * (hi - lo))) spread = (hi - lo) / 8; /* most of the column is one number */
        double furthest = PF_MAX(hi - centre, centre - lo) / spread;
        if (isfinite(bound_lo) && isfinite(bound_hi)) column[j] = (pf_column){PF_LOGIT, bound_lo, bound_hi};
        else if (isfinite(bound_lo)) column[j] = (pf_column){PF_ABOVE, bound_lo, spread};
        else if (isfinite(bound_hi)) column[j] = (pf_column){PF_BELOW, bound_hi, spread};
        else column[j] = (pf_column){furthest > heavy ? PF_ASINH : PF_LINEAR, centre, spread};
    }
    if (!status) status = X(columns_new)(layer, column, d);
    free(column);
    free(range);
    free(scratch);
    return status;
}

/* Columns that depend on each other linearly have no density. The combination that varies least comes from the
 * covariance, how much it varies from the rows themselves: their rounding, not the covariance's, is what decides. */
typedef struct {
    const X(state) *s;
    const double *v; /* [d] */
    double *sums;    /* [tiles][3]: of 1, v.x and its square over the rows that have a weight */
} X(combination);

static void X(combination_tile)(void *arg, ptrdiff_t t, int thread)
{
    X(combination) *c = arg;
    X(tile) tile = X(state_tile)(c->s, t);
    (void)thread;
    for (ptrdiff_t i = 0; i < tile.n; i++) {
        double sum = 0;
        if (c->s->weight && !c->s->weight[t * tile.ld + i]) continue;
        c->sums[3 * t]++;
        for (ptrdiff_t j = 0; j < c->s->d; j++) sum += c->v[j] * (double)tile.x[j * tile.ld + i];
        c->sums[3 * t + 1] += sum;
        c->sums[3 * t + 2] += sum * sum;
    }
}

static pf_status X(check_dependence)(const X(state) *s)
{
    ptrdiff_t d = s->d;
    if (d == 1 || s->n_eff <= (double)d) return PF_OK;
    double *cov = PF_ALLOC(double, d *d), *mean = PF_ALLOC(double, 2 * d);
    X(combination) c = {.s = s, .v = cov, .sums = PF_CALLOC(double, 3 * s->tiles)};
    pf_status status = cov && mean && c.sums ? X(state_moments)(mean, cov, s, NULL, s->tiles) : PF_NO_MEMORY;
    if (!status && pf_eigh(mean + d, cov, d))
        status = pf_fail(PF_DEGENERATE, "data_train: the covariance has no eigenvalues");
    if (!status) status = pf_parallel(s->tiles, X(combination_tile), &c);
    if (!status) {
        double n = 0, sum = 0, square = 0, scale = REAL_BITS == 32 ? 3e-6 : 1e-9;
        for (ptrdiff_t t = 0; t < s->tiles; t++)
            n += c.sums[3 * t], sum += c.sums[3 * t + 1], square += c.sums[3 * t + 2];
        double variance = square / n - sum / n * (sum / n);
        ptrdiff_t first = 0, second = -1; /* the two columns with the largest part in it */
        for (ptrdiff_t j = 1; j < d; j++)
            if (fabs(cov[j]) > fabs(cov[first])) first = j;
        for (ptrdiff_t j = 0; j < d; j++)
            if (j != first && (second < 0 || fabs(cov[j]) > fabs(cov[second]))) second = j;
        if (variance < scale * scale * mean[2 * d - 1])
            status = pf_fail(
                PF_DEGENERATE,
                "data_train: columns %td, %td (and perhaps more) are linearly dependent: they have no density; "
                "leave one out",
                PF_MIN(first, second), PF_MAX(first, second));
    }
    free(cov);
    free(mean);
    free(c.sums);
    return status;
}

/* Each column to N(0, 1) on its own. */
static pf_status X(fit_marginals)(X(layer) **layer, double *distance, const X(state) *s, const X(settings) *settings)
{
    X(settings) o = *settings;
    ptrdiff_t d = s->d, classes = o.classes, groups = PF_MIN(s->tiles, MOST_GROUPS);
    int threads = pf_max_threads(groups);
    double *range = PF_ALLOC(double, 2 * d);
    pf_grid *grid = PF_ALLOC(pf_grid, d);
    int64_t *count = PF_ALLOC(int64_t, threads * d * classes * FIT_BINS);
    real *knots = PF_ALLOC(real, classes * d * 3 * o.m);
    pf_status status = range && grid && count && knots ? X(state_range)(range, s) : PF_NO_MEMORY;
    if (!status) {
        for (ptrdiff_t j = 0; j < d; j++) {
            double width = (range[2 * j + 1] - range[2 * j]) / (FIT_BINS - 2);
            grid[j] = (pf_grid){.lo = range[2 * j] - width, .width = width, .bins = FIT_BINS};
        }
        X(slices) c = {
            .s = s, .picked = s->tiles, .k = d, .classes = classes, .groups = groups, .grid = grid, .count = count};
        o.marginal = 1;
        status = X(fit_splines)(knots, distance, &c, &o);
    }
    if (!status) status = X(sliced_new)(layer, NULL, knots, d, d, o.m, classes);
    free(range);
    free(grid);
    free(count);
    free(knots);
    return status;
}

/* Whitening: W = cov^(-1/2), the rotation that moves the columns least. With few rows the covariance is shrunk towards
 * its diagonal, by the intensity that minimises the expected error for Gaussian rows (Ledoit & Wolf 2003; Schaefer &
 * Strimmer 2005: sum Var(c_ij) / sum c_ij^2 over i != j), times WHITEN_CAUTION. */
static pf_status X(fit_whitening)(X(layer) **layer, const X(state) *s)
{
    ptrdiff_t d = s->d;
    double *cov = PF_ALLOC(double, d *d + d), *v = PF_ALLOC(double, 3 * d * d + d);
    pf_status status = cov && v ? X(state_moments)(cov + d * d, cov, s, NULL, s->tiles) : PF_NO_MEMORY;
    if (!status) {
        double *w = v + d * d, *inverse = w + d * d, *lambda = inverse + d * d, variance = 0, square = 0, log_det = 0;
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t j = 0; j < d; j++) {
                if (i == j) continue;
                double c = cov[i * d + j], scale = cov[i * d + i] * cov[j * d + j];
                variance += (1 + c * c / scale) / s->n_eff;
                square += c * c / scale;
            }
        double shrink = square > 0 ? PF_MIN(WHITEN_CAUTION * variance / square, 1) : 1;
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t j = 0; j < d; j++) v[i * d + j] = cov[i * d + j] * (i == j ? 1 : 1 - shrink);
        int info = shrink < 1 ? pf_eigh(lambda, v, d) : 0;
        for (ptrdiff_t i = 0; shrink == 1 && i < d; i++) lambda[i] = v[i * d + i], v[i * d + i] = 1; /* diagonal */
        double least = INFINITY, most = 0;
        for (ptrdiff_t i = 0; i < d; i++) least = PF_MIN(least, lambda[i]), most = PF_MAX(most, lambda[i]);
        if (info) status = pf_fail(PF_DEGENERATE, "data_train: the covariance has no eigenvalues (LAPACK %d)", info);
        else if (!(least > (REAL_BITS == 32 ? 1e-6 : 1e-11) * most))
            status = pf_fail(PF_DEGENERATE,
                             "data_train: columns are linearly dependent (eigenvalues of their covariance from "
                             "%.2g to %.2g): there is no density; leave some out",
                             least, most);
        for (ptrdiff_t i = 0; i < d && !status; i++) log_det -= 0.5 * log(lambda[i]);
        for (int sign = -1; sign <= 1 && !status; sign += 2) {   /* V diag(lambda^(sign/2)) V^T */
            double *out = sign < 0 ? w : inverse, *scaled = cov; /* cov is done with */
            for (ptrdiff_t i = 0; i < d; i++) {
                double factor = pow(lambda[i], 0.5 * sign);
                for (ptrdiff_t j = 0; j < d; j++) scaled[i * d + j] = v[i * d + j] * factor;
            }
            pf64_gemm(out, v, scaled, 1, 0, 0, d, d, d, d, d, d);
        }
        if (!status) status = X(affine_new)(layer, w, inverse, cov + d * d, log_det, d);
    }
    free(cov);
    free(v);
    return status;
}

/* ---- the fit ---------------------------------------------------------------------------------------------- */

typedef struct {
    X(model) *model;
    X(state) train, validate;
    int has_validate;
    const pf_gis_options *options;
    X(settings) settings;
    ptrdiff_t best;   /* layers of the best model */
    double best_logp; /* its mean validation log p */
    ptrdiff_t waited; /* layers since */
    double saved;     /* when a checkpoint was last written */
} X(fit);

/* Passes a new layer over the data and keeps the record; takes the layer over. */
static pf_status X(fit_add)(X(fit) *f, X(layer) *layer, double distance)
{
    double history[HISTORY] = {NAN, NAN, sqrt(distance)};
    pf_status status = X(state_forward)(&f->train, layer, &history[0]);
    if (!status && f->has_validate) status = X(state_forward)(&f->validate, layer, &history[1]);
    if (!status && (!isfinite(history[0]) || (f->has_validate && isnan(history[1]))))
        status = pf_fail(PF_DEGENERATE, "the fit diverged at layer %td: log p is not finite", f->model->n_layers);
    if (status) {
        X(layer_release)(layer);
        return status;
    }
    return X(model_append)(f->model, layer, history);
}

/* What the last layer did for the validation data, and whether that was enough. */
static int X(fit_judge)(X(fit) *f)
{
    ptrdiff_t n = f->model->n_layers;
    double logp = f->model->history[n - 1][1];
    if (!f->has_validate) {
        f->best = n;
        return 0;
    }
    if (!(f->best > 0) || logp > f->best_logp + f->options->min_improvement) {
        f->best = n, f->best_logp = logp, f->waited = 0;
        return 0;
    }
    return ++f->waited >= f->options->patience;
}

static pf_status X(fit_report)(X(fit) *f)
{
    const pf_gis_options *o = f->options;
    const double *h = f->model->history[f->model->n_layers - 1];
    pf_progress p = {
        .layer = f->model->n_layers, .best = f->best, .logp_train = h[0], .logp_validate = h[1], .distance = h[2]};
    if (o->checkpoint && pf_seconds() - f->saved > o->checkpoint_seconds) {
        PF_TRY(X(model_save)(f->model, o->checkpoint));
        f->saved = pf_seconds();
    }
    if (o->progress && o->progress(o->progress_user, &p)) return pf_fail(PF_INTERRUPTED, "interrupted");
    return pf_check_interrupt();
}

static X(settings) X(fit_settings)(const pf_gis_options *o, ptrdiff_t d, const X(state) *train)
{
    double n = train->n_eff;
    X(settings) s = {.options = o, .n = n, .d = d, .seed = o->seed, .classes = PF_MAX(o->n_classes, 1)};
    s.k = o->n_slices ? o->n_slices : d <= 8 ? d : n / (double)d >= 20 ? 8 : PF_MIN(d, MOST_SLICES);
    s.m = o->n_knots ? o->n_knots : (ptrdiff_t)PF_MIN(PF_MAX(sqrt(n), 50), 200);
    s.slice_points = o->slice_points ? o->slice_points : (ptrdiff_t)(1e5 * log10(PF_MAX((double)d, 10)));
    s.slice_steps = o->slice_steps >= 0 ? o->slice_steps : (ptrdiff_t)PF_MAX(PF_MIN(n / (double)d, 200), 1);
    return s;
}

static pf_status X(fit_first_layers)(X(fit) *f)
{
    X(layer) *layer;
    double distance = NAN;
    int marginal = f->options->marginal_first || f->train.d == 1;
    if (f->model->n_layers == 0) {
        PF_TRY(X(fit_columns)(&layer, &f->train, f->options->bounds));
        PF_TRY(X(fit_add)(f, layer, NAN));
        PF_TRY(X(check_dependence)(&f->train));
        X(fit_judge)(f);
    }
    if (marginal && f->model->n_layers == 1) {
        PF_TRY(X(fit_marginals)(&layer, &distance, &f->train, &f->settings));
        PF_TRY(X(fit_add)(f, layer, distance));
        X(fit_judge)(f);
        PF_TRY(X(fit_report)(f));
    }
    if (f->options->whiten && f->train.d > 1 && f->model->n_layers == 1 + marginal) {
        PF_TRY(X(fit_whitening)(&layer, &f->train));
        PF_TRY(X(fit_add)(f, layer, NAN));
        X(fit_judge)(f);
        PF_TRY(X(fit_report)(f));
    }
    return PF_OK;
}

static pf_status X(fit_run)(X(fit) *f)
{
    const pf_gis_options *o = f->options;
    ptrdiff_t sliced = 0;
    f->saved = pf_seconds();
    if (f->model->n_layers) { /* go on from a model: the data pass through it as they did when it was made */
        X(model) *before = f->model;
        f->model = NULL;
        pf_status status = X(model_new)(&f->model, before->d, before->classes);
        for (ptrdiff_t i = 0; i < before->n_layers && !status; i++) {
            status = X(fit_add)(f, X(layer_share)(before->layers[i]), 0);
            if (status) break;
            f->model->history[i][2] = before->history[i][2];
            X(fit_judge)(f);
            sliced += before->layers[i]->ops == &X(sliced_ops);
        }
        if (!status && before->note) status = X(model_set_note)(f->model, before->note);
        if (status) { /* nothing is lost */
            X(model_free)(f->model);
            f->model = before;
            return status;
        }
        X(model_free)(before);
        if (f->waited >= o->patience) return PF_OK;
        sliced -= sliced > 0 && (o->marginal_first || f->train.d == 1);
    }
    PF_TRY(X(fit_first_layers)(f));
    for (; sliced < (o->max_layers ? o->max_layers : MOST_LAYERS); sliced++) {
        X(layer) *layer;
        double distance;
        PF_TRY(X(fit_sliced)(&layer, &distance, &f->train, &f->settings, f->model->n_layers));
        PF_TRY(X(fit_add)(f, layer, distance));
        int enough = X(fit_judge)(f);
        PF_TRY(X(fit_report)(f));
        if (enough) break;
    }
    return PF_OK;
}

static pf_status X(check_options)(const pf_gis_options *o, ptrdiff_t d, int has_validate)
{
    if (d < 1) return pf_fail(PF_BAD_ARGUMENT, "d: there are no columns");
    if (o->max_layers < 0) return pf_fail(PF_BAD_ARGUMENT, "max_layers: %td is negative", o->max_layers);
    if (!o->max_layers && !has_validate)
        return pf_fail(PF_BAD_ARGUMENT, "max_layers: without validation data the number of layers must be given");
    if (o->patience < 1) return pf_fail(PF_BAD_ARGUMENT, "patience: %td is not at least 1", o->patience);
    if (!(o->min_improvement >= 0))
        return pf_fail(PF_BAD_ARGUMENT, "min_improvement: %g is negative", o->min_improvement);
    if (o->n_slices < 0 || o->n_slices > d)
        return pf_fail(PF_BAD_ARGUMENT, "n_slices: %td is not between 1 and the number of columns, %td", o->n_slices,
                       d);
    if (o->n_knots && (o->n_knots < 3 || o->n_knots > FIT_BINS / 2))
        return pf_fail(PF_BAD_ARGUMENT, "n_knots: %td is not between 3 and %d", o->n_knots, FIT_BINS / 2);
    if (!(o->bandwidth_factor >= 1e-3 && o->bandwidth_factor <= 1e3))
        return pf_fail(PF_BAD_ARGUMENT, "bandwidth_factor: %g is not between 0.001 and 1000", o->bandwidth_factor);
    for (int i = 0; i < 2; i++)
        if (!(o->alpha[i] < 1)) return pf_fail(PF_BAD_ARGUMENT, "alpha: %g is not below 1", o->alpha[i]);
    if (o->slice_points < 0) return pf_fail(PF_BAD_ARGUMENT, "slice_points: %td is negative", o->slice_points);
    if (o->n_classes < 0) return pf_fail(PF_BAD_ARGUMENT, "n_classes: %d is negative", o->n_classes);
    for (ptrdiff_t j = 0; o->bounds && j < d; j++)
        if (!(o->bounds[2 * j] < o->bounds[2 * j + 1]))
            return pf_fail(PF_BAD_ARGUMENT, "bounds: of column %td, %g is not below %g", j, o->bounds[2 * j],
                           o->bounds[2 * j + 1]);
    return PF_OK;
}

/* Rows outside bounds are refused, with the row's number. */
static pf_status X(check_bounds)(const X(state) *s, const double *bounds, const char *name)
{
    for (ptrdiff_t i = 0; bounds && i < s->n; i++)
        for (ptrdiff_t j = 0; j < s->d; j++) {
            double x = s->x[(i / s->ld * s->d + j) * s->ld + i % s->ld];
            if (x < (real)bounds[2 * j] || x > (real)bounds[2 * j + 1])
                return pf_fail(PF_BAD_ARGUMENT, "data_%s: row %td, column %td is %g, outside the bounds [%g, %g]", name,
                               i, j, x, bounds[2 * j], bounds[2 * j + 1]);
        }
    return PF_OK;
}

static pf_status X(fit_all)(X(fit) *f, const X(data) *train, const X(data) *validate, ptrdiff_t d)
{
    const pf_gis_options *o = f->options;
    const double *bounds = f->model->n_layers ? X(layer_bounds)(f->model->layers[0]) : o->bounds;
    PF_TRY(X(check_options)(o, d, validate != NULL));
    PF_TRY(X(state_new)(&f->train, train, d, o->n_classes, o->scratch, "train"));
    PF_TRY(X(check_bounds)(&f->train, bounds, "train"));
    if (validate) {
        PF_TRY(X(state_new)(&f->validate, validate, d, o->n_classes, o->scratch, "validate"));
        PF_TRY(X(check_bounds)(&f->validate, bounds, "validate"));
    }
    if (f->train.n < 2) return pf_fail(PF_BAD_ARGUMENT, "data_train: one row has no density");
    f->has_validate = validate != NULL;
    f->settings = X(fit_settings)(o, d, &f->train);
    return X(fit_run)(f);
}

pf_status X(gis_fit)(X(model) **model, const X(data) *train, const X(data) *validate, ptrdiff_t d,
                     const pf_gis_options *options)
{
    pf_begin();
    X(fit) f = {.options = options, .best_logp = -INFINITY};
    pf_status status = PF_OK;
    if (*model && ((*model)->d != d || (*model)->classes != options->n_classes))
        return pf_end(pf_fail(PF_BAD_ARGUMENT, "model: it has %td columns and %d classes, the data %td and %d",
                              (*model)->d, (*model)->classes, d, options->n_classes));
    if (*model) status = X(model_copy)(&f.model, *model, (*model)->n_layers);
    else status = X(model_new)(&f.model, d, options->n_classes);
    if (!status && options->note) status = X(model_set_note)(f.model, options->note);
    if (!status) status = X(fit_all)(&f, train, validate, d);
    if (options->checkpoint && status == PF_INTERRUPTED && f.model->n_layers) {
        pf_status saved = X(model_save)(f.model, options->checkpoint);
        status = saved ? saved : pf_fail(PF_INTERRUPTED, "interrupted"); /* saving cleared the message */
    }
    if (!status) X(model_truncate)(f.model, f.best);
    X(state_free)(&f.train);
    X(state_free)(&f.validate);
    if (!status || status == PF_INTERRUPTED) {
        X(model_free)(*model);
        *model = f.model;
    } else {
        X(model_free)(f.model);
    }
    return pf_end(status);
}
#endif
