/* The layers that GIS begins with: columns, each on its own; then whitening. */
#ifndef real
#include "blas.h"
#include "working.h"

/* The furthest point of a column, in units of its spread, from which on its tails are heavy; and from which on it is
 * refused, since its square would overflow. */
#define HEAVY 20
#define FAR 1e150
/* Columns are linearly dependent when a combination of them varies by less than this part of what they vary by, or by
 * less than ROUNDINGS times what the rounding of the given numbers explains. */
#define DEPENDENT (REAL_BITS == 32 ? 3e-6 : 1e-9)
#define ROUNDINGS 4
#define ROUNDING (REAL_BITS == 32 ? 0x1p-24 : 0x1p-53)
/* A row that is longer than this many standard deviations in every column has no more influence than one of that
 * length on covariances. */
#define REACH 3
/* Covariances are shrunk this many times more than is best for the covariance: what whitening gets wrong later layers
 * do not mend, what it leaves they find. */
#define WHITEN_CAUTION 20

enum { SORTED = 8192 }; /* rows, at most, that a column's centre and spread are found from: to a percent */

typedef struct {
    double x;
    int64_t weight;
} weighted;

static int ascending(const void *a, const void *b)
{
    double x = ((const weighted *)a)->x, y = ((const weighted *)b)->x;
    return (x > y) - (x < y);
}

/* The number of row[n], ascending, that this part of the weight lies below. */
static double quantile(const weighted *row, ptrdiff_t n, double level)
{
    int64_t total = 0, below = 0;
    ptrdiff_t at = 0;
    for (ptrdiff_t i = 0; i < n; i++) total += row[i].weight;
    while (at < n - 1 && (double)(below + row[at].weight) < level * (double)total) below += row[at++].weight;
    return row[at].x;
}

typedef struct {
    double lo, hi, centre, spread; /* the last two do not depend on what a few rows are */
} column_size;

static double furthest(column_size c) { return PF_MAX(c.hi - c.centre, c.centre - c.lo) / c.spread; }

#define TWICE "gis_first.c"
#include "twice.h"
#else

/* ---- columns ---------------------------------------------------------------------------------------------- */

/* Median, and the distance between the quantiles at 1/6 and 5/6, which N(0, 1) has at +-0.9674; where most of the
 * column is one number, the median distance of the others from it. */
static pf_status X(centre_and_spread)(column_size *c, const X(working) *s, ptrdiff_t j, weighted *row)
{
    ptrdiff_t step = (s->all + SORTED - 1) / SORTED, n = 0, others = 0, first = X(working_row)(s, 0);
    memset(row, 0, SORTED * sizeof *row);
    for (ptrdiff_t i = 0; i < s->all; i += step, n++) {
        ptrdiff_t own = i - first;
        if (own < 0 || own >= s->n) continue;
        row[n].x = s->x[(own / s->ld * s->d + j) * s->ld + own % s->ld];
        row[n].weight = s->weight ? s->weight[own] : 1;
    }
    PF_TRY(pf_ranks_sum(s->ranks, row, 2 * n));
    ptrdiff_t drawn = n;
    n = 0;
    for (ptrdiff_t i = 0; i < drawn; i++)
        if (row[i].weight) row[n++] = row[i];
    qsort(row, (size_t)n, sizeof *row, ascending);
    c->centre = n ? quantile(row, n, 0.5) : 0.5 * (c->lo + c->hi);
    c->spread = n ? (quantile(row, n, 5. / 6) - quantile(row, n, 1. / 6)) / 1.9348 : 0;
    double same = 4 * ROUNDING * fabs(c->centre);
    if (c->spread > same) return PF_OK;
    for (ptrdiff_t i = 0; i < n; i++)
        if (fabs(row[i].x - c->centre) > same) row[others++] = (weighted){fabs(row[i].x - c->centre), row[i].weight};
    qsort(row, (size_t)others, sizeof *row, ascending);
    c->spread = PF_MAX(others ? quantile(row, others, 0.5) / 0.6745 : (c->hi - c->lo) / 8, 1e-300);
    return PF_OK;
}

static pf_status X(column_sizes)(column_size *size, const X(working) *s)
{
    double *range = PF_ALLOC(double, 2 * s->d);
    weighted *row = PF_ALLOC(weighted, SORTED);
    pf_status status = range && row ? X(working_range)(range, s) : PF_NO_MEMORY;
    for (ptrdiff_t j = 0; j < s->d && !status; j++) {
        size[j] = (column_size){.lo = range[2 * j], .hi = range[2 * j + 1]};
        status = X(centre_and_spread)(size + j, s, j, row);
        if (!status) status = pf_check_interrupt();
    }
    free(range);
    free(row);
    return status;
}

static pf_status X(check_constant)(const column_size *size, ptrdiff_t d)
{
    for (ptrdiff_t j = 0; j < d; j++)
        if (!(size[j].hi > size[j].lo))
            return pf_fail(PF_DEGENERATE, "data_train: column %td is constant (%g): it has no density; leave it out", j,
                           size[j].lo);
    return PF_OK;
}

static pf_status X(check_far)(const X(working) *s, const column_size *size, const char *name)
{
    for (ptrdiff_t i = 0; i < s->n; i++)
        for (ptrdiff_t j = 0; j < s->d && !(s->weight && !s->weight[i]); j++) {
            double x = s->x[(i / s->ld * s->d + j) * s->ld + i % s->ld];
            double away = fabs(x - size[j].centre) / size[j].spread;
            if (away > FAR)
                return pf_fail(PF_BAD_ARGUMENT,
                               "data_%s: row %td, column %td is %g, %g times the column's spread away from its middle: "
                               "too far for a density; leave the row out",
                               name, X(working_row)(s, i), j, x, away);
        }
    return PF_OK;
}

typedef struct {
    const X(working) *s;
    const pf_look *look;
    const double *v, *mean; /* [d] */
    double *sums;           /* [of][3]: of w, w u^2 with u = v.(z - mean), w times the square of u's rounding */
    double *work;           /* [threads][d ld] */
} X(combination);

static void X(combination_tile)(void *arg, ptrdiff_t t, int thread)
{
    X(combination) *c = arg;
    const X(working) *s = c->s;
    X(tile) tile = X(working_tile)(s, t);
    double *z = c->work + thread * s->d * s->ld, *sums = c->sums + 3 * (s->first + t), w[TILE_MOST];
    X(working_look)(z, w, s, c->look, t);
    for (ptrdiff_t i = 0; i < tile.n; i++) {
        double u = 0, rounding = 0;
        if (!(w[i] > 0)) continue;
        for (ptrdiff_t j = 0; j < s->d; j++) {
            double e = c->v[j] * ROUNDING * tile.x[j * s->ld + i] / c->look->spread[j];
            u += c->v[j] * (z[j * s->ld + i] - c->mean[j]);
            rounding += e * e;
        }
        sums[0] += w[i];
        sums[1] += w[i] * u * u;
        sums[2] += w[i] * rounding;
    }
}

/* Columns that depend on each other linearly have no density. The combination v that varies least comes from the
 * covariance; how much it varies, from the rows themselves, which are looked at as they were given: a map of the
 * columns would bend the plane that they lie in. */
static pf_status X(check_dependence)(const X(working) *s, const column_size *size)
{
    ptrdiff_t d = s->d, first = 0, second = -1;
    if (d == 1 || s->n_eff <= (double)d) return PF_OK;
    double *cov = PF_ALLOC(double, d *d), *vectors = PF_ALLOC(double, 4 * d), *sums = PF_CALLOC(double, 3 * s->of);
    double *work = PF_ALLOC(double, pf_max_threads(s->tiles) * d * s->ld);
    pf_status status = cov && vectors && sums && work ? PF_OK : PF_NO_MEMORY;
    if (status) goto done;
    double *mean = vectors, *lambda = mean + d, *centre = lambda + d, *spread = centre + d;
    for (ptrdiff_t j = 0; j < d; j++) centre[j] = size[j].centre, spread[j] = size[j].spread;
    pf_look look = {.centre = centre, .spread = spread, .reach = REACH};
    status = X(working_moments)(mean, cov, s, &look);
    if (!status && pf_eigh(lambda, cov, d))
        status = pf_fail(PF_DEGENERATE, "data_train: the covariance has no eigenvalues");
    const double *v = cov; /* of the smallest eigenvalue */
    X(combination) c = {.s = s, .look = &look, .v = v, .mean = mean, .sums = sums, .work = work};
    if (!status) status = pf_parallel(s->tiles, X(combination_tile), &c);
    if (!status) status = pf_ranks_sum(s->ranks, sums, 3 * s->of);
    if (status) goto done;
    double n = 0, variance = 0, rounding = 0;
    for (ptrdiff_t t = 0; t < s->of; t++) n += sums[3 * t], variance += sums[3 * t + 1], rounding += sums[3 * t + 2];
    /* the two columns with the largest part in it */
    for (ptrdiff_t j = 1; j < d; j++)
        if (fabs(v[j]) > fabs(v[first])) first = j;
    for (ptrdiff_t j = 0; j < d; j++)
        if (j != first && (second < 0 || fabs(v[j]) > fabs(v[second]))) second = j;
    if (variance < DEPENDENT * DEPENDENT * lambda[d - 1] * n + ROUNDINGS * ROUNDINGS * rounding)
        status = pf_fail(
            PF_DEGENERATE,
            "data_train: columns %td, %td (and perhaps more) are linearly dependent: they have no density; "
            "leave one out",
            PF_MIN(first, second), PF_MAX(first, second));
done:
    free(cov);
    free(vectors);
    free(sums);
    free(work);
    return status;
}

pf_status X(fit_columns)(X(fitted) *fitted, const X(working) *s, const X(working) *validate, const double *bounds)
{
    ptrdiff_t d = s->d;
    pf_column *column = PF_ALLOC(pf_column, d);
    column_size *size = PF_ALLOC(column_size, d);
    pf_status status = column && size ? X(column_sizes)(size, s) : PF_NO_MEMORY;
    if (!status) status = X(check_constant)(size, d);
    if (!status) status = X(check_far)(s, size, "train");
    if (!status && validate->n) status = X(check_far)(validate, size, "validate");
    if (!status) status = X(check_dependence)(s, size);
    for (ptrdiff_t j = 0; j < d && !status; j++) {
        column_size c = size[j];
        double lo = bounds ? bounds[2 * j] : -INFINITY, hi = bounds ? bounds[2 * j + 1] : INFINITY;
        if (isfinite(lo) && isfinite(hi)) column[j] = (pf_column){PF_LOGIT, lo, hi};
        else if (isfinite(lo)) column[j] = (pf_column){PF_ABOVE, lo, c.spread};
        else if (isfinite(hi)) column[j] = (pf_column){PF_BELOW, hi, c.spread};
        else column[j] = (pf_column){furthest(c) > HEAVY ? PF_ASINH : PF_LINEAR, c.centre, c.spread};
    }
    if (!status) status = X(columns_new)(&fitted->layer, column, d);
    free(column);
    free(size);
    return status;
}

pf_status X(fit_tails)(X(fitted) *fitted, const X(working) *s)
{
    ptrdiff_t d = s->d, heavy = 0;
    pf_column *column = PF_ALLOC(pf_column, d);
    column_size *size = PF_ALLOC(column_size, d);
    pf_status status = column && size ? X(column_sizes)(size, s) : PF_NO_MEMORY;
    for (ptrdiff_t j = 0; j < d && !status; j++)
        if (furthest(size[j]) > HEAVY) column[j] = (pf_column){PF_ASINH, size[j].centre, size[j].spread}, heavy++;
        else column[j] = (pf_column){PF_LINEAR, 0, 1};
    if (!status && heavy) status = X(columns_new)(&fitted->layer, column, d);
    free(column);
    free(size);
    return status;
}

/* ---- marginals and whitening ------------------------------------------------------------------------------ */

pf_status X(fit_marginals)(X(fitted) *fitted, const X(working) *s, const X(settings) *settings)
{
    X(settings) o = *settings;
    ptrdiff_t d = s->d, classes = o.classes, groups = PF_MIN(s->of, MOST_GROUPS);
    int threads = pf_max_threads(groups);
    double *range = PF_ALLOC(double, 2 * d);
    pf_grid *grid = PF_ALLOC(pf_grid, d);
    int64_t *count = PF_ALLOC(int64_t, threads * d * classes * FIT_BINS);
    fitted->theta = PF_ALLOC(double, classes *d * 3 * o.m);
    pf_status status = range && grid && count && fitted->theta ? X(working_range)(range, s) : PF_NO_MEMORY;
    if (!status) {
        for (ptrdiff_t j = 0; j < d; j++) {
            double width = (range[2 * j + 1] - range[2 * j]) / (FIT_BINS - 2);
            grid[j] = (pf_grid){.lo = range[2 * j] - width, .width = width, .bins = FIT_BINS};
        }
        X(slices) c = {.rows = {.s = s, .picked = s->of},
                       .k = d,
                       .classes = classes,
                       .groups = groups,
                       .grid = grid,
                       .count = count};
        o.marginal = 1;
        status = X(fit_splines)(fitted->theta, &fitted->distance, &c, NULL, &o);
    }
    if (!status) status = X(sliced_new)(&fitted->layer, d, 0, o.m, classes);
    free(range);
    free(grid);
    free(count);
    return status;
}

/* Whitening: W = cov^(-1/2), the rotation that moves the columns least. With few rows the covariance is shrunk towards
 * its diagonal, by the intensity that minimises the expected error for Gaussian rows (Ledoit & Wolf 2003; Schaefer &
 * Strimmer 2005: sum Var(c_ij) / sum c_ij^2 over i != j), times WHITEN_CAUTION. */

static double X(best_shrinkage)(const double *cov, ptrdiff_t d, double n)
{
    double variance = 0, square = 0;
    for (ptrdiff_t i = 0; i < d; i++)
        for (ptrdiff_t j = 0; j < d; j++) {
            if (i == j) continue;
            double c = cov[i * d + j], scale = cov[i * d + i] * cov[j * d + j];
            variance += (1 + c * c / scale) / n;
            square += c * c / scale;
        }
    return square > 0 ? variance / square : 1;
}

/* w[d][d] of a covariance that is shrunk by this much, its log|det|; v[2 d + 1][d] is scratch. Whatever W is, the flow
 * is exact: where the precision would not bear the inverse, W does less. */
static pf_status X(whiten)(double *w, double *log_det, const double *cov, double shrink, ptrdiff_t d, double *v)
{
    double *scaled = v + d * d, *lambda = scaled + d * d, most = 0;
    for (ptrdiff_t i = 0; i < d; i++)
        for (ptrdiff_t j = 0; j < d; j++) v[i * d + j] = cov[i * d + j] * (i == j ? 1 : 1 - shrink);
    int info = shrink < 1 ? pf_eigh(lambda, v, d) : 0;
    for (ptrdiff_t i = 0; shrink >= 1 && i < d; i++) lambda[i] = v[i * d + i], v[i * d + i] = 1; /* diagonal */
    if (info) return pf_fail(PF_DEGENERATE, "data_train: the covariance has no eigenvalues (LAPACK %d)", info);
    for (ptrdiff_t i = 0; i < d; i++) most = PF_MAX(most, lambda[i]);
    *log_det = 0;
    for (ptrdiff_t i = 0; i < d; i++) {
        lambda[i] = PF_MAX(lambda[i], (REAL_BITS == 32 ? 1e-6 : 1e-11) * most);
        *log_det -= 0.5 * log(lambda[i]);
    }
    for (ptrdiff_t i = 0; i < d; i++) /* W = V diag(lambda^-1/2) V^T */
        for (ptrdiff_t j = 0; j < d; j++) scaled[i * d + j] = v[i * d + j] / sqrt(lambda[i]);
    pf64_gemm(w, v, scaled, 1, 0, 0, d, d, d, d, d, d);
    return PF_OK;
}

/* Mean log p of rows with these moments by whitening, but for constants; work[d][d] */
static double X(whitened_logp)(const double *w, double log_det, const double *mean, const double *cov, const double *at,
                               ptrdiff_t d, double *work)
{
    double square = 0;
    pf64_gemm(work, w, cov, 0, 0, 0, d, d, d, d, d, d);
    for (ptrdiff_t i = 0; i < d * d; i++) square += w[i] * work[i];
    for (ptrdiff_t i = 0; i < d; i++) {
        double u = 0;
        for (ptrdiff_t j = 0; j < d; j++) u += w[i * d + j] * (mean[j] - at[j]);
        square += u * u;
    }
    return log_det - 0.5 * square;
}

pf_status X(fit_whitening)(X(fitted) *fitted, const X(working) *s, const X(working) *validate)
{
    static const double caution[] = {0, 0.1, 1};
    ptrdiff_t d = s->d;
    double *cov = PF_ALLOC(double, d *d + d), *other = PF_ALLOC(double, d *d + d);
    double *work = PF_ALLOC(double, (2 * d + 1) * d);
    double *w = fitted->theta = PF_ALLOC(double, d *d + d), log_det, shrink = 0;
    pf_look look = {.reach = REACH};
    pf_status status = cov && other && work && w ? X(working_moments)(cov + d * d, cov, s, &look) : PF_NO_MEMORY;
    if (!status && validate) status = X(working_moments)(other + d * d, other, validate, &look);
    if (!status) {
        double most = -INFINITY, unit = X(best_shrinkage)(cov, d, s->n_eff);
        shrink = PF_MIN(WHITEN_CAUTION * unit, 1);
        for (int i = 0; i < 3 && validate && !status; i++) {
            double one = PF_MIN(caution[i] * unit, 1);
            status = X(whiten)(w, &log_det, cov, one, d, work);
            double logp = status ? 0 : X(whitened_logp)(w, log_det, other + d * d, other, cov + d * d, d, work);
            if (logp > most) most = logp, shrink = one;
        }
    }
    if (!status) status = X(whiten)(w, &log_det, cov, shrink, d, work);
    if (!status) {
        memcpy(w + d * d, cov + d * d, (size_t)d * sizeof *w); /* the mean */
        status = X(affine_new)(&fitted->layer, d);
    }
    free(cov);
    free(other);
    free(work);
    return status;
}
#endif
