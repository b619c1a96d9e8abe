/* The layers that GIS begins with: columns, each on its own; then whitening. */
#ifndef real
#include "blas.h"
#include "working.h"

/* Covariances are shrunk this many times more than is best for the covariance: what whitening gets wrong later layers
 * do not mend, what it leaves they find. */
#define WHITEN_CAUTION 20

#define TWICE "gis_first.c"
#include "twice.h"
#else

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
static void X(robust)(double q[3], const X(working) *s, ptrdiff_t j, X(weighted) *row)
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

pf_status X(fit_columns)(X(fitted) *fitted, const X(working) *s, const double *bounds)
{
    const double heavy = 20; /* furthest point, in robust standard deviations, from which on tails are heavy */
    ptrdiff_t d = s->d;
    pf_column *column = PF_ALLOC(pf_column, d);
    double *range = PF_ALLOC(double, 2 * d);
    X(weighted) *scratch = PF_ALLOC(X(weighted), 65536);
    pf_status status = column && range && scratch ? X(working_range)(range, s) : PF_NO_MEMORY;
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
    if (!status) status = X(columns_new)(&fitted->layer, column, d);
    free(column);
    free(range);
    free(scratch);
    return status;
}

/* Columns that depend on each other linearly have no density. The combination that varies least comes from the
 * covariance, how much it varies from the rows themselves: their rounding, not the covariance's, is what decides. */
typedef struct {
    const X(working) *s;
    const double *v; /* [d] */
    double *sums;    /* [tiles][3]: of 1, v.x and its square over the rows that have a weight */
} X(combination);

static void X(combination_tile)(void *arg, ptrdiff_t t, int thread)
{
    X(combination) *c = arg;
    X(tile) tile = X(working_tile)(c->s, t);
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

pf_status X(check_dependence)(const X(working) *s)
{
    ptrdiff_t d = s->d;
    if (d == 1 || s->n_eff <= (double)d) return PF_OK;
    double *cov = PF_ALLOC(double, d *d), *mean = PF_ALLOC(double, 2 * d);
    X(combination) c = {.s = s, .v = cov, .sums = PF_CALLOC(double, 3 * s->tiles)};
    pf_status status = cov && mean && c.sums ? X(working_moments)(mean, cov, s, NULL, s->tiles) : PF_NO_MEMORY;
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

pf_status X(fit_marginals)(X(fitted) *fitted, const X(working) *s, const X(settings) *settings)
{
    X(settings) o = *settings;
    ptrdiff_t d = s->d, classes = o.classes, groups = PF_MIN(s->tiles, MOST_GROUPS);
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
        X(slices) c = {
            .s = s, .picked = s->tiles, .k = d, .classes = classes, .groups = groups, .grid = grid, .count = count};
        o.marginal = 1;
        status = X(fit_splines)(fitted->theta, &fitted->distance, &c, &o);
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
pf_status X(fit_whitening)(X(fitted) *fitted, const X(working) *s)
{
    ptrdiff_t d = s->d;
    double *cov = PF_ALLOC(double, d *d + d), *v = PF_ALLOC(double, d *d + d);
    double *w = fitted->theta = PF_ALLOC(double, d *d + d);
    pf_status status = cov && v && w ? X(working_moments)(cov + d * d, cov, s, NULL, s->tiles) : PF_NO_MEMORY;
    if (!status) {
        double *lambda = v + d * d, variance = 0, square = 0;
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
        if (!status) { /* W = V diag(lambda^-1/2) V^T, then the mean */
            double *scaled = cov; /* which is done with */
            memcpy(w + d * d, cov + d * d, (size_t)d * sizeof *w);
            for (ptrdiff_t i = 0; i < d; i++)
                for (ptrdiff_t j = 0; j < d; j++) scaled[i * d + j] = v[i * d + j] / sqrt(lambda[i]);
            pf64_gemm(w, v, scaled, 1, 0, 0, d, d, d, d, d, d);
            status = X(affine_new)(&fitted->layer, d);
        }
    }
    free(cov);
    free(v);
    return status;
}
#endif
