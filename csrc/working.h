/* What the files of GIS share: the working copy of the data (working.c), how layers are fitted (slices.c, gis_first.c)
 * and the options' settings (gis.c). */
#ifndef PF_WORKING_H
#define PF_WORKING_H
#include "cdf1d.h"
#include "flow.h"

enum {
    MOST_GROUPS = 64, /* sums over rows are made in this many groups of tiles, then over groups in order */
    FIT_BINS = 2048,  /* bins of the histograms that splines are fitted to */
};

#define TWICE "working.h"
#include "twice.h"
#elif defined(real)

/* ---- working.c: data on their way to N(0, I) -------------------------------------------------------------- */

typedef struct {
    ptrdiff_t n, d, ld, tiles;
    real *x;         /* [tiles][d][ld] */
    double *logj;    /* [n] */
    int64_t *weight; /* [n] fixed point, or NULL */
    int32_t *label;  /* [n] or NULL, the caller's */
    double n_eff;    /* (sum w)^2 / sum w^2 */
    double *sums;    /* [tiles][2]: weight and weighted log p */
    size_t mapped;   /* bytes of x in a scratch file, 0: in memory */
} X(working);

/* Checks the data and copies them; name is "train" or "validate". After a failure too, working_free is the caller's. */
pf_status X(working_new)(X(working) *s, const X(data) *data, ptrdiff_t d, int classes, const char *scratch,
                         const char *name);
void X(working_free)(X(working) *s);
X(tile) X(working_tile)(const X(working) *s, ptrdiff_t t);
/* Applies layer l of the flow to all rows; *logp is then their mean log p. */
pf_status X(working_forward)(X(working) *s, const X(flow) *flow, ptrdiff_t l, double *logp);

/* Of some tiles, pick[picked], or of all where pick is NULL: the weight of their rows; mean[d] and cov[d][d]. */
double X(working_weight)(const X(working) *s, const ptrdiff_t *pick, ptrdiff_t picked);
pf_status X(working_moments)(double *mean, double *cov, const X(working) *s, const ptrdiff_t *pick, ptrdiff_t picked);
/* Smallest and largest number of each column: range[d][2]. */
pf_status X(working_range)(double *range, const X(working) *s);
/* Groups whose sums of this many numbers each do not take much memory. */
ptrdiff_t X(working_groups)(ptrdiff_t tiles, ptrdiff_t numbers);

/* ---- gis.c: what the options come to for these data ------------------------------------------------------- */

typedef struct {
    const pf_gis_options *options;
    double n; /* effective number of training rows */
    ptrdiff_t d, k, m, slice_points, slice_steps;
    uint64_t seed;
    ptrdiff_t classes; /* at least 1 */
    int marginal;      /* this layer is the first: no slices were searched for */
} X(settings);

/* A layer that was fitted, with its parameters and the mean squared distance of its slices from N(0, 1), NAN without */
typedef struct {
    X(layer) *layer;
    double *theta, distance;
} X(fitted);

/* ---- slices.c: sliced layers ------------------------------------------------------------------------------ */

/* Slices, and histograms of the data along them. */
typedef struct {
    const X(working) *s;
    const ptrdiff_t *pick;
    ptrdiff_t picked, k, classes, groups;
    const real *a;       /* [K][d], or NULL: the columns themselves */
    const pf_grid *grid; /* [K], the same number of bins each */
    int64_t *count;      /* [threads][K][classes][bins]; the first is their sum at the end */
    const real *score;   /* [K][classes][bins + 1] */
    double *gradient;    /* [groups][K][d] */
    real *work;          /* [threads][2 K ld + K d] */
} X(slices);

/* Splines of every slice and class from histograms of all rows: theta[classes][K][3 M]; *distance is the slices' mean
 * squared one. */
pf_status X(fit_splines)(double *theta, double *distance, X(slices) *c, const X(settings) *o);
/* A sliced layer for the data as they are: slices searched, splines fitted. number: the layer's, for its random start. */
pf_status X(fit_sliced)(X(fitted) *fitted, const X(working) *s, const X(settings) *o, ptrdiff_t number);

/* ---- gis_first.c: the layers that GIS begins with --------------------------------------------------------- */

/* Which map each column needs: its bounds, and whether its tails are heavy. */
pf_status X(fit_columns)(X(fitted) *fitted, const X(working) *s, const double *bounds);
/* Refuses columns that depend on each other linearly: they have no density. */
pf_status X(check_dependence)(const X(working) *s);
/* Each column to N(0, 1) on its own. */
pf_status X(fit_marginals)(X(fitted) *fitted, const X(working) *s, const X(settings) *settings);
/* Correlations removed: W = cov^(-1/2). */
pf_status X(fit_whitening)(X(fitted) *fitted, const X(working) *s);
#endif
