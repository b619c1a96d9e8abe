/* What the greedy fits, GIS and SIG, share: the working copy of the data (working.c, overlap.c), how layers are fitted
 * (gis_first.c, slices.c), and the options' settings. */
#ifndef PF_WORKING_H
#define PF_WORKING_H
#include "cdf1d.h"
#include "flow.h"
#include "ranks.h"

enum {
    MOST_COLUMN_LAYERS = 3, /* bounds, then tails twice: what was 1e150 away is 7 away */
    MANY_PATCHES = 16,      /* from here on threads share the patches, below that the rows */
    MOST_GROUPS = 64,       /* sums over rows are made in this many groups of tiles, then over groups in order */
    FIT_BINS = 2048,        /* bins of the histograms that splines are fitted to */
};

/* A search for slices ends with a step that gains less than this part of the objective: later layers do the rest. Who
 * asks SIG for more steps than it takes by default wants better slices. */
#define SEARCH_TOLERANCE 0.01
#define SEARCH_TOLERANCE_LONG 0.0005

/* Rows in both the training and the validation data: overlap.c. */
typedef struct {
    ptrdiff_t rows, both; /* validation rows with a weight; those that are training rows too, 0: only a few */
    int split;            /* each is now on one side only; 0: that would leave too little */
} pf_overlap;

/* How rows are looked at where sums over them must not be decided by a few: z = (x - centre) / spread, both [d], or x
 * itself where they are NULL; and a row longer than reach sqrt(d) has no more influence than one of that length. */
typedef struct {
    const double *centre, *spread;
    double reach;
} pf_look;

/* Whether image[3] = height, width, channels are the d numbers of a row; of a table, image[0] = 0, all is well. */
pf_status pf_check_image(const ptrdiff_t *image, ptrdiff_t d);
/* Patches of an image, rolled by a random shift, a function of (seed, stream). */
pf_patches pf_patches_rolled(const ptrdiff_t *image, const ptrdiff_t *kernel, uint64_t seed, uint64_t stream);
/* Labels of which there are nearly as many as rows are refused: they are no classes. */
pf_status pf_check_classes(int n_classes, ptrdiff_t n);

#define TWICE "working.h"
#include "twice.h"
#elif defined(real)

/* ---- working.c: data on their way to N(0, I) -------------------------------------------------------------- */

typedef struct {
    ptrdiff_t n, d, ld, tiles;
    const pf_ranks *ranks;  /* that have the other rows, or NULL */
    ptrdiff_t first;        /* tile here, of those of all ranks: */
    ptrdiff_t all, of;      /* rows and tiles of all ranks */
    ptrdiff_t tail, tail_n; /* the tile that is not full, -1 for none; its rows */
    real *x;                /* [tiles][d][ld] */
    double *logj;           /* [n] */
    int64_t *weight;        /* [n] fixed point, or NULL */
    const int32_t *label;   /* [n] or NULL, the caller's */
    ptrdiff_t rows;         /* of all ranks, that have a weight */
    double total;           /* their weight: whole, and exact */
    double n_eff;           /* (sum w)^2 / sum w^2 */
    double *sums;           /* [of][3]: weight, weighted log p, and that of the latents alone */
    double length;          /* mean |z|^2 / d of the rows after the last layer */
    size_t mapped;          /* bytes of x in a scratch file, 0: in memory */
} X(working);

/* Checks the data and copies them, ld rows in a tile; name is "train" or "validate". After a failure too, working_free
 * is the caller's. */
pf_status X(working_new)(X(working) *s, const X(data) *data, ptrdiff_t d, ptrdiff_t ld, int classes,
                         const char *scratch, const pf_ranks *ranks, const char *name);
/* n rows of N(0, I) on all ranks together, a function of the seed, of which this one has its part */
pf_status X(working_normals)(X(working) *s, ptrdiff_t n, ptrdiff_t d, ptrdiff_t ld, uint64_t seed, const char *scratch,
                             const pf_ranks *ranks);
void X(working_free)(X(working) *s);
/* The bounds of the fit, [d][2] or NULL: those given, in order; on from a flow its own, which given ones must be. */
pf_status X(bounds_of)(const double **bounds, const X(flow) *flow, const double *given);
/* A flow to go on from has the data's columns and classes, and no layers but those of both fits and the fit's own kind.
 */
pf_status X(check_model)(const X(flow) *flow, ptrdiff_t d, int classes, const X(layer_ops) *own, const char *fit);
/* Rows outside bounds, if there are any, are refused, with the row's number. */
pf_status X(working_within)(const X(working) *s, const double *bounds, const char *name);
/* What all ranks have of x[n], 8 bytes each, one after another: of ranks in *memory, which is to be freed after a
 * failure too, else x itself. */
pf_status X(working_gather)(const void **all, void **memory, const X(working) *s, const void *x);
/* rows, total and n_eff from the weights */
pf_status X(working_count)(X(working) *s);
/* Number of a row here, as the caller counts those of all ranks */
ptrdiff_t X(working_row)(const X(working) *s, ptrdiff_t i);
X(tile) X(working_tile)(const X(working) *s, ptrdiff_t t);
/* Applies layer l of the flow to all rows; *logp is then their mean log p. */
pf_status X(working_forward)(X(working) *s, const X(flow) *flow, ptrdiff_t l, double *logp);
/* Mean over the rows of |z|^2 / d, and its standard error; a row longer than reach sqrt(d) counts as one of that length
 */
pf_status X(working_length)(double *mean, double *error, X(working) *s, double reach);
/* Its inverse; logj is not kept. */
pf_status X(working_inverse)(X(working) *s, const X(flow) *flow, ptrdiff_t l);

/* Weight of the rows of a tile */
double X(working_weight)(const X(working) *s, ptrdiff_t t);
/* Smallest and largest number of each column: range[d][2]. */
pf_status X(working_range)(double *range, const X(working) *s);
/* z[d][ld] and the weights w[ld] of the rows of tile t. */
void X(working_look)(double *z, double *w, const X(working) *s, const pf_look *look, ptrdiff_t t);
/* mean[d] and cov[d][d] of z */
pf_status X(working_moments)(double *mean, double *cov, const X(working) *s, const pf_look *look);
/* Groups whose sums of this many numbers each do not take much memory. */
ptrdiff_t X(working_groups)(ptrdiff_t tiles, ptrdiff_t numbers);
/* A body for each of so many groups that this rank has, the first of which is *first: it gets numbers from 0 on. */
pf_status X(working_parallel)(const X(working) *s, ptrdiff_t groups, ptrdiff_t *first,
                              void (*body)(void *, ptrdiff_t, int), void *arg);

/* ---- overlap.c -------------------------------------------------------------------------------------------- */

/* Takes the weight of one side's copy of rows that are in both, where they are more than a few. */
pf_status X(overlap_split)(pf_overlap *o, X(working) *train, X(working) *validate);

/* ---- what the options come to for these data -------------------------------------------------------------- */

typedef struct {
    const pf_gis_options *options; /* of GIS */
    pf_knots match;                /* of SIG: how quantiles are matched */
    double n;                      /* effective number of training rows */
    ptrdiff_t d, k, m, slice_points, slice_steps;
    double tolerance; /* of the search: 0 is SEARCH_TOLERANCE */
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

/* Some of the rows: tiles pick[picked], or all of them where pick is NULL. Of rows that ranks share, s is a copy of
 * those picked, which every rank has, and `whole` the rows themselves. */
typedef struct {
    const X(working) *s, *whole;
    ptrdiff_t *pick, picked;
    X(working) *copy;
} X(rows);

/* About so many rows, a function of (seed, stream). rows_free is the caller's, after a failure too. */
pf_status X(rows_pick)(X(rows) *rows, const X(working) *s, ptrdiff_t points, uint64_t seed, uint64_t stream);
void X(rows_free)(X(rows) *rows);

/* What a sliced layer is fitted to: rows that are carried to N(0, I), or to other rows; of all columns or, column[d],
 * some of them. */
typedef struct {
    X(rows) rows[2];
    int sides; /* 1: to N(0, I); 2 */
    const int32_t *column;
    ptrdiff_t d, k, classes;
} X(problem);

/* Rows along slices, and histograms of them. */
typedef struct {
    X(rows) rows;
    const int32_t *column;
    ptrdiff_t d, k, classes, groups;
    ptrdiff_t first; /* group here, where ranks share the rows */
    const real *a;   /* [K][d], or NULL: the columns themselves */
    pf_grid *grid;   /* [K], the same number of bins each */
    int64_t *count;  /* [threads][K][classes][bins]; the first is their sum at the end */
    real *kept;      /* [picked][K][ld] projections, or NULL: made when they are needed */
    real *work;      /* [threads][K + d][ld] */
} X(slices);

/* The search for the slices along which the rows are furthest from N(0, 1), or from the others: see stiefel.h. */
typedef struct {
    X(slices) side[2];
    int sides, of;       /* of: the side that a parallel loop is at */
    ptrdiff_t bins;      /* of its histograms */
    real *a, *score[2];  /* [K][d]; [K][classes][bins + 1] */
    real *product;       /* [threads][K][d] */
    double *sums;        /* [groups][K][4] of a projection: its sum and its squares', least and most */
    double *gradient[2]; /* [groups][K][d] */
    double *distance;    /* [K] mean over classes, each by its part of the first side */
    double *share;       /* [classes] that part, in units of its part of the second side */
    double total[2];     /* weight of the rows looked at */
} X(search);

/* After a failure too, search_free is the caller's. */
pf_status X(search_new)(X(search) *q, const X(problem) *problem);
void X(search_free)(X(search) *q);
/* The mean squared sliced distance along a[K][d]; and its gradient, at the a of the last call of search_value. */
pf_status X(search_value)(void *search, double *value, const double *a);
pf_status X(search_gradient)(void *search, double *g, const double *a);

/* Splines of every slice and class from histograms, theta[classes][K][3 M]: to N(0, 1), or to the rows of `to`, if that
 * is not NULL. *distance is the slices' mean squared one. */
pf_status X(fit_splines)(double *theta, double *distance, X(slices) *from, X(slices) *to, const X(settings) *o);
/* A patch layer, or for NULL a sliced one; slices are searched with some rows, splines fitted to all. fitted->theta is
 * the caller's to free, after a failure too. */
pf_status X(fit_patches)(X(fitted) *fitted, const pf_patches *patches, const X(problem) *problem, const X(settings) *o,
                         uint64_t stream);

/* ---- gis_first.c: the layers that GIS begins with --------------------------------------------------------- */

/* The first column layer: every column to the whole line, and to a size near 1. Refuses columns without a density:
 * constant ones, linearly dependent ones, and numbers that are too far out; those of the validation rows too. */
pf_status X(fit_columns)(X(fitted) *fitted, const X(working) *s, const X(working) *validate, const double *bounds);
/* One more column layer, if a column still has a point so far out that it would decide what comes after; else NULL. */
pf_status X(fit_tails)(X(fitted) *fitted, const X(working) *s);
/* Each column to N(0, 1) on its own. */
pf_status X(fit_marginals)(X(fitted) *fitted, const X(working) *s, const X(settings) *settings);
/* Correlations removed: W = cov^(-1/2), with caution; or, for rows that no marginals have bent, as much of them as
 * suits the validation rows best. */
pf_status X(fit_whitening)(X(fitted) *fitted, const X(working) *s, const X(working) *validate);
#endif
