/* Sliced layers: the search for the slices along which the data are furthest from N(0, I), or from a sample, and their
 * splines. */
#ifndef real
#include "blas.h"
#include "rqs.h"
#include "stiefel.h"
#include "working.h"

enum {
    GRID_SIGMAS = 8, /* a slice's histogram covers its mean +- 8 standard deviations */
    FIND = 1,        /* what is done for a patch: its slices, */
    ALONG = 2,       /* and the splines along them */
};

/* The first layer's pull towards the identity: one dimension is easy, and nothing was searched for. */
#define MARGINAL_ALPHA 0.1

#define TWICE "slices.c"
#include "twice.h"
#else

/* ---- rows and their histograms ---------------------------------------------------------------------------- */

/* Tiles of all ranks that have a weight: numbers[of], how many there are */
static pf_status X(tiles_with_weight)(ptrdiff_t *numbers, ptrdiff_t *tiles, const X(working) *s)
{
    memset(numbers, 0, (size_t)s->of * sizeof *numbers);
    for (ptrdiff_t t = 0; t < s->tiles; t++) numbers[s->first + t] = !s->weight || X(working_weight)(s, t) > 0;
    PF_TRY(pf_ranks_sum(s->ranks, numbers, s->of));
    *tiles = 0;
    for (ptrdiff_t t = 0; t < s->of; t++)
        if (numbers[t]) numbers[(*tiles)++] = t;
    return PF_OK;
}

/* The tiles of s that are looked at, of whichever rank, put together: a copy for every rank. */
static pf_status X(rows_copy)(X(rows) *r, const X(working) *s)
{
    ptrdiff_t n = r->picked * s->ld, d = s->d, words = (n * d * (ptrdiff_t)sizeof(real) + 7) / 8;
    X(working) *copy = r->copy = PF_CALLOC(X(working), 1);
    if (!copy) return PF_NO_MEMORY;
    *copy = (X(working)){.n = n, .d = d, .ld = s->ld, .tiles = r->picked, .all = n, .of = r->picked, .tail = -1};
    copy->rows = s->rows, copy->n_eff = s->n_eff, copy->tail_n = s->all % s->ld;
    int64_t *x = PF_CALLOC(int64_t, words), *label = s->label ? PF_CALLOC(int64_t, (n + 1) / 2) : NULL;
    copy->x = (real *)x, copy->label = (int32_t *)label;
    if (s->weight) copy->weight = PF_CALLOC(int64_t, n);
    if (!x || (s->weight && !copy->weight) || (s->label && !label)) return PF_NO_MEMORY;
    for (ptrdiff_t i = 0; i < r->picked; i++) {
        ptrdiff_t t = r->pick ? r->pick[i] : i, own = t - s->first;
        if (t == s->of - 1 && copy->tail_n) copy->tail = i;
        if (own < 0 || own >= s->tiles) continue;
        size_t rows = (size_t)X(working_tile)(s, own).n;
        memcpy(copy->x + i * d * s->ld, s->x + own * d * s->ld, (size_t)(d * s->ld) * sizeof(real));
        if (s->weight) memcpy(copy->weight + i * s->ld, s->weight + own * s->ld, rows * sizeof(int64_t));
        if (label) memcpy((int32_t *)label + i * s->ld, s->label + own * s->ld, rows * sizeof(int32_t));
    }
    PF_TRY(pf_ranks_sum(s->ranks, x, words));
    if (s->weight) PF_TRY(pf_ranks_sum(s->ranks, copy->weight, n));
    if (label) PF_TRY(pf_ranks_sum(s->ranks, label, (n + 1) / 2));
    for (ptrdiff_t i = 0; i < r->picked; i++) copy->total += X(working_weight)(copy, i);
    free(r->pick);
    r->pick = NULL, r->s = copy;
    return PF_OK;
}

/* Only tiles with weight are picked. */
pf_status X(rows_pick)(X(rows) *r, const X(working) *s, ptrdiff_t points, uint64_t seed, uint64_t stream)
{
    *r = (X(rows)){.s = s, .whole = s, .picked = s->of};
    if (points >= s->rows) return s->ranks ? X(rows_copy)(r, s) : PF_OK;
    double part = (double)points / (double)s->rows;
    ptrdiff_t *all = r->pick = PF_ALLOC(ptrdiff_t, s->of), tiles;
    if (!all) return PF_NO_MEMORY;
    PF_TRY(X(tiles_with_weight)(all, &tiles, s));
    r->picked = PF_MAX(PF_MIN((ptrdiff_t)ceil(part * (double)s->all / (double)s->ld), tiles), 1);
    for (ptrdiff_t t = 0; t < r->picked; t++) {
        ptrdiff_t other = t + (ptrdiff_t)pf_uniform_int(seed, stream, (uint64_t)t, (uint64_t)(tiles - t)),
                  swap = all[t];
        all[t] = all[other], all[other] = swap;
    }
    return s->ranks ? X(rows_copy)(r, s) : PF_OK;
}

void X(rows_free)(X(rows) *r)
{
    if (r->copy) {
        free((void *)r->copy->label);
        X(working_free)(r->copy);
    }
    free(r->copy);
    free(r->pick);
}

/* Number in the working copy of tile i of those looked at. */
static ptrdiff_t X(tile_number)(const X(rows) *r, ptrdiff_t i) { return r->pick ? r->pick[i] : i - r->s->first; }

/* Tile i of those looked at, of the slices' columns, which are gathered in columns[d][ld] if they are not all. */
static X(tile) X(slices_tile)(const X(slices) *c, ptrdiff_t i, real *columns)
{
    X(tile) tile = X(working_tile)(c->rows.s, X(tile_number)(&c->rows, i));
    if (!c->column) return tile;
    for (ptrdiff_t j = 0; j < c->d; j++)
        memcpy(columns + j * tile.ld, tile.x + c->column[j] * tile.ld, (size_t)tile.ld * sizeof(real));
    tile.x = columns, tile.d = c->d;
    return tile;
}

static real *X(columns_of)(const X(slices) *c, int thread)
{
    return c->work + ((thread + 1) * c->k + thread * c->d) * c->rows.s->ld;
}

/* p[K][ld] = A x */
static void X(project)(real *p, const X(slices) *c, const X(tile) *tile)
{
    ptrdiff_t whole = tile_whole(tile->n), k = c->k, d = c->d;
    if (c->column) X(tile_product)(p, c->a, tile->x, 0, k, whole, d, d, 1, tile->ld, tile->ld);
    else X(gemm)(p, c->a, tile->x, 0, 0, 0, k, whole, d, tile->ld, d, tile->ld);
}

static void X(count_group)(void *arg, ptrdiff_t group, int thread)
{
    X(slices) *c = arg;
    const X(working) *s = c->rows.s;
    group += c->first;
    ptrdiff_t bins = c->grid->bins, per_slice = c->classes * bins, size = c->k * s->ld, picked = c->rows.picked;
    for (ptrdiff_t i = group * picked / c->groups; i < (group + 1) * picked / c->groups; i++) {
        ptrdiff_t t = X(tile_number)(&c->rows, i);
        X(tile) tile = X(working_tile)(s, t);
        const real *p = c->kept ? c->kept + i * size : tile.x;
        if (c->a && !c->kept) {
            real *own = c->work + thread * (c->k + c->d) * s->ld;
            tile = X(slices_tile)(c, i, X(columns_of)(c, thread));
            X(project)(own, c, &tile);
            p = own;
        }
        for (ptrdiff_t k = 0; k < c->k; k++)
            X(cdf1d_count)(c->count + (thread * c->k + k) * per_slice, p + k * s->ld,
                           s->weight ? s->weight + t * s->ld : NULL, c->classes > 1 ? tile.label : NULL, bins,
                           c->grid + k, tile.n);
    }
}

/* A body for each group of tiles that is here */
static pf_status X(slices_parallel)(X(slices) *c, void (*body)(void *, ptrdiff_t, int), void *arg)
{
    return c->rows.s->ranks ? X(working_parallel)(c->rows.s, c->groups, &c->first, body, arg)
                            : pf_parallel(c->groups, body, arg);
}

/* The counts of all threads and ranks, summed into the first. */
static pf_status X(slices_count)(X(slices) *c)
{
    ptrdiff_t size = c->k * c->classes * c->grid->bins;
    int threads = pf_max_threads(c->groups);
    memset(c->count, 0, (size_t)(threads * size) * sizeof *c->count);
    PF_TRY(X(slices_parallel)(c, X(count_group), c));
    for (int t = 1; t < threads; t++)
        for (ptrdiff_t i = 0; i < size; i++) c->count[i] += c->count[t * size + i];
    return pf_ranks_sum(c->rows.s->ranks, c->count, size);
}

/* The counts of a class along slice j. */
static const int64_t *X(class_count)(const X(slices) *c, ptrdiff_t j, ptrdiff_t l)
{
    return c->count + (j * c->classes + l) * c->grid->bins;
}

/* All that was counted of a class; the same along every slice */
static int64_t X(class_mass)(const X(slices) *c, ptrdiff_t l)
{
    const int64_t *count = X(class_count)(c, 0, l);
    int64_t mass = 0;
    for (ptrdiff_t b = 0; b < c->grid->bins; b++) mass += count[b];
    return mass;
}

/* ---- the search for slices -------------------------------------------------------------------------------- */

/* Least and most of p[n] where it has a weight, or of all for NULL, into range[2]. */
static void X(reach)(double *range, const real *p, const int64_t *weight, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n && weight; i++)
        if (weight[i]) range[0] = PF_MIN(range[0], p[i]), range[1] = PF_MAX(range[1], p[i]);
    for (ptrdiff_t i = 0; i < n && !weight; i++) range[0] = PF_MIN(range[0], p[i]), range[1] = PF_MAX(range[1], p[i]);
}

/* Projections of the tiles looked at, and their sums. */
static void X(project_group)(void *arg, ptrdiff_t group, int thread)
{
    X(search) *q = arg;
    const X(slices) *c = q->side + q->of;
    const X(working) *s = c->rows.s;
    group += c->first;
    double *sums = q->sums + group * 4 * c->k, w[TILE_MOST];
    ptrdiff_t picked = c->rows.picked;
    for (ptrdiff_t k = 0; k < c->k; k++)
        sums[4 * k] = sums[4 * k + 1] = 0, sums[4 * k + 2] = INFINITY, sums[4 * k + 3] = -INFINITY;
    for (ptrdiff_t i = group * picked / c->groups; i < (group + 1) * picked / c->groups; i++) {
        ptrdiff_t t = X(tile_number)(&c->rows, i);
        X(tile) tile = X(slices_tile)(c, i, X(columns_of)(c, thread));
        real *p = c->kept ? c->kept + i * c->k * s->ld : c->work + thread * (c->k + c->d) * s->ld;
        ptrdiff_t whole = tile_whole(tile.n);
        X(project)(p, c, &tile);
        const int64_t *weight = s->weight ? s->weight + t * s->ld : NULL;
        for (ptrdiff_t r = 0; r < whole; r++) w[r] = r >= tile.n ? 0 : weight ? (double)weight[r] : 1;
        for (ptrdiff_t k = 0; k < c->k; k++) {
            X(cdf1d_sums)(sums + 4 * k, p + k * s->ld, w, whole);
            if (q->sides > 1) X(reach)(sums + 4 * k + 2, p + k * s->ld, weight, tile.n);
        }
    }
}

/* Projects along slices a[K][d], and lays a grid of so many bins over each slice: its mean +- 8 standard deviations, of
 * which, where quantiles are matched, only what is not empty. */
static pf_status X(search_project)(X(search) *q, const double *a, ptrdiff_t bins)
{
    ptrdiff_t size = q->side->k * q->side->d;
    for (ptrdiff_t i = 0; i < size; i++) q->a[i] = (real)a[i];
    for (q->of = 0; q->of < q->sides; q->of++) {
        X(slices) *c = q->side + q->of;
        double total = q->total[q->of];
        memset(q->sums, 0, (size_t)(c->groups * 4 * c->k) * sizeof(double));
        PF_TRY(X(slices_parallel)(c, X(project_group), q));
        PF_TRY(pf_ranks_sum(c->rows.s->ranks, q->sums, c->groups * 4 * c->k));
        for (ptrdiff_t k = 0; k < c->k; k++) {
            double sum = 0, square = 0, least = INFINITY, most = -INFINITY;
            for (ptrdiff_t g = 0; g < c->groups; g++) {
                const double *own = q->sums + 4 * (g * c->k + k);
                sum += own[0], square += own[1];
                least = PF_MIN(least, own[2]), most = PF_MAX(most, own[3]);
            }
            double centre = sum / total, sd = sqrt(PF_MAX(square / total - centre * centre, 1e-12));
            pf_grid *grid = c->grid + k;
            *grid = (pf_grid){
                .lo = centre - GRID_SIGMAS * sd, .width = 2 * GRID_SIGMAS * sd / (double)bins, .bins = bins};
            if (q->sides == 1) continue;
            double hi = PF_MIN(grid->lo + grid->width * (double)bins, most + 1e-6 * sd);
            grid->lo = PF_MAX(grid->lo, least - 1e-6 * sd);
            grid->width = (hi - grid->lo) / (double)bins;
        }
    }
    return PF_OK;
}

/* Scores and distance of one slice. */
static void X(score_slice)(void *arg, ptrdiff_t j, int thread)
{
    X(search) *q = arg;
    const X(slices) *from = q->side, *to = q->side + 1;
    ptrdiff_t bins = from->grid->bins;
    double edges[FIT_BINS + 1];
    (void)thread;
    q->distance[j] = 0;
    for (ptrdiff_t l = 0; l < from->classes; l++) {
        ptrdiff_t at = j * from->classes + l;
        const int64_t *count = X(class_count)(from, j, l), *other = q->sides > 1 ? X(class_count)(to, j, l) : NULL;
        double square = other ? pf_cdf1d_match(edges, count, from->grid + j, other, to->grid + j)
                              : pf_cdf1d_scores(edges, count, from->grid + j);
        q->distance[j] += square * (double)X(class_mass)(from, l) / q->total[0];
        for (ptrdiff_t b = 0; b <= bins; b++) q->score[0][at * (bins + 1) + b] = (real)edges[b];
        if (!other) continue;
        pf_cdf1d_match(edges, other, to->grid + j, count, from->grid + j);
        for (ptrdiff_t b = 0; b <= bins; b++) q->score[1][at * (bins + 1) + b] = (real)edges[b];
    }
}

pf_status X(search_value)(void *user, double *value, const double *a)
{
    X(search) *q = user;
    ptrdiff_t k = q->side->k;
    PF_TRY(X(search_project)(q, a, q->bins));
    for (int i = 0; i < q->sides; i++) PF_TRY(X(slices_count)(q->side + i));
    for (ptrdiff_t l = 0; l < q->side->classes; l++) {
        double part[2] = {1, 1};
        for (int i = 0; i < q->sides; i++) part[i] = (double)X(class_mass)(q->side + i, l) / q->total[i];
        q->share[l] = part[1] > 0 ? part[0] / part[1] : 0;
    }
    PF_TRY(pf_parallel(k, X(score_slice), q));
    *value = 0;
    for (ptrdiff_t j = 0; j < k; j++) *value += q->distance[j] / (double)k;
    return PF_OK;
}

/* dW/da_k = 2 sum_i w_i r_i x_i / sum w, r = a_k.x - score(F), over the rows of both sides: how they are paired does
 * not change to first order. */
static void X(gradient_group)(void *arg, ptrdiff_t group, int thread)
{
    X(search) *q = arg;
    const X(slices) *c = q->side + q->of;
    const X(working) *s = c->rows.s;
    ptrdiff_t k = c->k, d = c->d, ld = s->ld, edges = c->grid->bins + 1, picked = c->rows.picked;
    real *r = c->work + thread * (k + d) * ld, *product = q->product + thread * k * d;
    double *g = q->gradient[q->of] + group * k * d;
    memset(g, 0, (size_t)(k * d) * sizeof *g);
    for (ptrdiff_t i = group * picked / c->groups; i < (group + 1) * picked / c->groups; i++) {
        ptrdiff_t t = X(tile_number)(&c->rows, i);
        X(tile) tile = X(slices_tile)(c, i, X(columns_of)(c, thread));
        ptrdiff_t whole = tile_whole(tile.n);
        const int64_t *weight = s->weight ? s->weight + t * ld : NULL;
        for (ptrdiff_t j = 0; j < k; j++) {
            real *rj = r + j * ld;
            const real *score = q->score[q->of] + j * c->classes * edges, *p = c->kept + (i * k + j) * ld;
            if (c->classes == 1) X(cdf1d_residual)(rj, p, score, c->grid + j, tile.n);
            else
                for (ptrdiff_t n = 0; n < tile.n; n++) {
                    X(cdf1d_residual)(rj + n, p + n, score + tile.label[n] * edges, c->grid + j, 1);
                    if (q->of) rj[n] *= (real)q->share[tile.label[n]];
                }
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
    ptrdiff_t k = q->side->k, size = k * q->side->d;
    (void)a;
    for (q->of = 0; q->of < q->sides; q->of++) {
        X(slices) *c = q->side + q->of;
        const double *part = q->gradient[q->of];
        PF_TRY(pf_parallel(c->groups, X(gradient_group), q));
        double scale = 2 / q->total[q->of] / (double)k * (c->rows.s->weight ? 0x1p40 : 1);
        for (ptrdiff_t i = 0; i < size; i++) {
            double sum = 0;
            for (ptrdiff_t group = 0; group < c->groups; group++) sum += part[group * size + i];
            g[i] = (q->of ? g[i] : 0) + sum * scale;
        }
    }
    return PF_OK;
}

/* Groups of all the rows, of which some are looked at first */
static ptrdiff_t X(most_groups)(const X(rows) *r, ptrdiff_t numbers)
{
    return X(working_groups)(r->whole ? r->whole->of : r->s->of, numbers);
}

/* Memory of one side: projections of the rows looked at, and histograms. */
static pf_status X(slices_new)(X(slices) *c, const X(problem) *p, int side)
{
    *c = (X(slices)){.rows = p->rows[side], .column = p->column, .d = p->d, .k = p->k, .classes = p->classes};
    ptrdiff_t ld = c->rows.s->ld;
    ptrdiff_t most = X(most_groups)(&c->rows, c->k * c->d);
    c->groups = PF_MIN(c->rows.picked, most);
    int threads = pf_max_threads(most);
    c->grid = PF_ALLOC(pf_grid, c->k);
    c->count = PF_ALLOC(int64_t, threads * c->k * c->classes * FIT_BINS);
    c->kept = PF_ALLOC(real, c->rows.picked * c->k * ld);
    c->work = PF_ALLOC(real, threads * (c->k + c->d) * ld);
    return c->grid && c->count && c->kept && c->work ? PF_OK : PF_NO_MEMORY;
}

/* Weight of the rows looked at; 1 if they have none, to divide by. */
static double X(total_of)(const X(rows) *r)
{
    double total = r->pick ? 0 : r->s->total;
    for (ptrdiff_t i = 0; r->pick && i < r->picked; i++) total += X(working_weight)(r->s, r->pick[i]);
    return total > 0 ? total : 1;
}

pf_status X(search_new)(X(search) *q, const X(problem) *p)
{
    ptrdiff_t k = p->k, d = p->d, groups = 0, least = PTRDIFF_MAX;
    *q = (X(search)){.bins = 256, .sides = p->sides};
    if (!(q->a = PF_ALLOC(real, k * d))) return PF_NO_MEMORY;
    for (int i = 0; i < q->sides; i++) {
        X(slices) *c = q->side + i;
        PF_TRY(X(slices_new)(c, p, i));
        c->a = q->a;
        groups = PF_MAX(groups, X(most_groups)(&c->rows, k * d));
        least = PF_MIN(least, PF_MIN(c->rows.s->rows, c->rows.picked * c->rows.s->ld));
        q->gradient[i] = PF_ALLOC(double, c->groups *k *d);
        q->total[i] = X(total_of)(&c->rows);
    }
    while (q->bins < 1024 && q->bins * 16 < least) q->bins *= 2;
    q->product = PF_ALLOC(real, pf_max_threads(groups) * k * d);
    q->sums = PF_ALLOC(double, groups * 4 * k);
    q->distance = PF_ALLOC(double, k);
    q->share = PF_ALLOC(double, p->classes);
    for (int i = 0; i < q->sides; i++) {
        q->score[i] = PF_ALLOC(real, k * p->classes * (q->bins + 1));
        if (!q->score[i] || !q->gradient[i]) return PF_NO_MEMORY;
    }
    return q->product && q->sums && q->distance && q->share ? PF_OK : PF_NO_MEMORY;
}

void X(search_free)(X(search) *q)
{
    for (int i = 0; i < 2; i++) {
        free(q->side[i].grid);
        free(q->side[i].count);
        free(q->side[i].kept);
        free(q->side[i].work);
        free(q->score[i]);
        free(q->gradient[i]);
    }
    free(q->a);
    free(q->product);
    free(q->sums);
    free(q->distance);
    free(q->share);
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
    const X(slices) *from, *to; /* to: NULL for N(0, 1) */
    const X(settings) *settings;
    double *theta;    /* [classes][K][3 M] */
    double *distance; /* [K] */
    double *scratch;  /* [threads][3 M + 4 bins + 4] */
} X(splines);

/* Knots of one slice, for every class. */
static void X(fit_slice)(void *arg, ptrdiff_t j, int thread)
{
    X(splines) *f = arg;
    const X(slices) *c = f->from, *to = f->to;
    ptrdiff_t bins = c->grid->bins, m = f->settings->m;
    double *scratch = f->scratch + thread * (3 * m + 4 * bins + 4), square = 0, all = 0;
    for (ptrdiff_t l = 0; l < c->classes; l++) all += (double)X(class_mass)(c, l);
    for (ptrdiff_t l = 0; l < c->classes; l++) {
        const int64_t *count = X(class_count)(c, j, l), *other = to ? X(class_count)(to, j, l) : NULL;
        double mass = (double)X(class_mass)(c, l);
        square += mass * (to ? pf_cdf1d_match(scratch, count, c->grid + j, other, to->grid + j)
                             : pf_cdf1d_scores(scratch, count, c->grid + j));
        double *theta = f->theta + (l * c->k + j) * 3 * m;
        /* a class with no weight, or that no row of the sample has: the identity, with knots 1 apart */
        if (!mass || (to && !X(class_mass)(to, l))) {
            memset(theta, 0, (size_t)(3 * m) * sizeof *theta);
            theta[0] = theta[m] = -0.5 * (double)(m - 1);
            continue;
        }
        if (to) pf_cdf1d_fit_match(scratch, count, c->grid + j, other, to->grid + j, &f->settings->match);
        else {
            pf_knots options = X(class_knots)(f->settings, f->settings->n * mass / all);
            pf_cdf1d_fit(scratch, count, c->grid + j, &options, scratch + 3 * m);
        }
        pf_rqs_theta(theta, scratch, m);
    }
    f->distance[j] = square / PF_MAX(all, 1);
}

pf_status X(fit_splines)(double *theta, double *distance, X(slices) *from, X(slices) *to, const X(settings) *o)
{
    ptrdiff_t k = from->k;
    X(splines) f = {.from = from, .to = to, .settings = o, .theta = theta, .distance = PF_ALLOC(double, k)};
    f.scratch = PF_ALLOC(double, pf_max_threads(k) * (3 * o->m + 4 * from->grid->bins + 4));
    pf_status status = f.distance && f.scratch ? X(slices_count)(from) : PF_NO_MEMORY;
    if (!status && to) status = X(slices_count)(to);
    if (!status) status = pf_parallel(k, X(fit_slice), &f);
    *distance = 0;
    for (ptrdiff_t j = 0; j < k && !status; j++) *distance += f.distance[j] / (double)k;
    free(f.distance);
    free(f.scratch);
    return status;
}

/* Splines are fitted to all rows, of which the search may have looked at some. */
static void X(look_at_all)(X(search) *q, int side)
{
    X(slices) *c = q->side + side;
    if (!c->rows.pick && !c->rows.copy) return;
    free(c->kept); /* room for the rows picked only */
    c->kept = NULL, c->rows.pick = NULL, c->rows.s = c->rows.whole, c->rows.picked = c->rows.s->of;
    c->groups = X(working_groups)(c->rows.picked, c->k * c->d);
    q->total[side] = X(total_of)(&c->rows);
}

/* Slices a[K][d], of the rows that are looked at: nothing is asked of other ranks. */
static pf_status X(find_slices)(X(search) *q, double *a, const X(settings) *o, uint64_t stream)
{
    ptrdiff_t k = q->side->k, d = q->side->d;
    double value;
    pf_slice_objective objective = {.value = X(search_value), .gradient = X(search_gradient), .user = q};
    PF_TRY(pf_stiefel_random(a, k, d, o->seed, stream));
    if (!(o->slice_steps > 0 && d > 1)) return PF_OK;
    return pf_stiefel_ascend(a, &value, k, d, o->slice_steps, o->tolerance > 0 ? o->tolerance : SEARCH_TOLERANCE,
                             &objective);
}

/* The splines along slices a, of all rows of all ranks */
static pf_status X(fit_along)(X(search) *q, double *theta, double *distance, const double *a, const X(settings) *o)
{
    for (int i = 0; i < q->sides; i++) X(look_at_all)(q, i);
    PF_TRY(X(search_project)(q, a, FIT_BINS));
    return X(fit_splines)(theta, distance, q->side, q->sides > 1 ? q->side + 1 : NULL, o);
}

/* ---- patches: many small problems, each a layer of its own ------------------------------------------------ */

typedef struct {
    const X(problem) *problem;
    const X(settings) *settings;
    const int32_t *columns; /* [patches][d], or NULL */
    ptrdiff_t d, n_theta;   /* of a patch */
    uint64_t stream;
    double *theta, *distance; /* [patches] splines, then slices; [patches] */
    pf_status *status;
    int work; /* FIND, ALONG, or both */
} X(patchwork);

static void X(fit_patch)(void *arg, ptrdiff_t i, int thread)
{
    X(patchwork) *w = arg;
    X(problem) p = *w->problem;
    double *theta = w->theta + i * w->n_theta, *a = theta + p.classes * p.k * 3 * w->settings->m;
    X(search) q;
    (void)thread;
    p.d = w->d;
    if (w->columns) p.column = w->columns + i * w->d;
    pf_status status = X(search_new)(&q, &p);
    if (!status && w->work & FIND) status = X(find_slices)(&q, a, w->settings, w->stream + ((uint64_t)i << 8));
    if (!status && w->work & ALONG) status = X(fit_along)(&q, theta, w->distance + i, a, w->settings);
    X(search_free)(&q);
    w->status[i] = status;
}

/* Threads share the patches, or work on one after another together. */
static pf_status X(each_patch)(X(patchwork) *w, ptrdiff_t n, int side_by_side)
{
    if (side_by_side) PF_TRY(pf_parallel(n, X(fit_patch), w));
    for (ptrdiff_t i = 0; i < n; i++) {
        if (!side_by_side) X(fit_patch)(w, i, 0);
        if (w->status[i] == PF_NO_MEMORY) pf_fail(PF_NO_MEMORY, "out of memory"); /* said in another thread */
        PF_TRY(w->status[i]);
    }
    return PF_OK;
}

pf_status X(fit_patches)(X(fitted) *fitted, const pf_patches *patches, const X(problem) *p, const X(settings) *o,
                         uint64_t stream)
{
    ptrdiff_t n = patches ? pf_patches_count(patches) : 1, d = patches ? pf_patches_size(patches) : p->d;
    ptrdiff_t n_theta = p->classes * p->k * 3 * o->m + p->k * d;
    int32_t *columns = PF_ALLOC(int32_t, n * d);
    double *distance = PF_ALLOC(double, n);
    pf_status *failed = PF_CALLOC(pf_status, n);
    fitted->theta = PF_ALLOC(double, n *n_theta);
    pf_status status = columns && distance && failed && fitted->theta ? PF_OK : PF_NO_MEMORY;
    X(patchwork) w = {p, o, patches ? columns : NULL, d, n_theta, stream, fitted->theta, distance, failed, FIND};
    if (!status && patches) pf_patches_rows(columns, patches);
    if (!p->rows[0].copy) w.work = FIND | ALONG;
    if (!status) status = X(each_patch)(&w, n, n >= MANY_PATCHES);
    if (!status && !(w.work & ALONG)) { /* ranks add up in the same order */
        w.work = ALONG;
        status = X(each_patch)(&w, n, 0);
    }
    fitted->distance = 0;
    for (ptrdiff_t i = 0; i < n && !status; i++) fitted->distance += distance[i] / (double)n;
    free(columns);
    free(distance);
    free(failed);
    if (status) return status;
    return patches ? X(patch_new)(&fitted->layer, patches, p->k, o->m, p->classes)
                   : X(sliced_new)(&fitted->layer, d, p->k, o->m, p->classes);
}
#endif
