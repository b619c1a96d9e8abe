/* The layers there are. Each makes a shape; theta is given to the flow beside it. */
#ifndef PF_LAYERS_H
#define PF_LAYERS_H
#include "column.h"
#include "layer.h"
#include "psi.h"

/* An image of image = height, width, channels, rolled by shift, cut into patches of kernel = height, width, channels
 * (all channels, or 1: each channel its own patches). */
typedef struct {
    int32_t image[3], kernel[3], shift[2];
} pf_patches;

pf_status pf_patches_check(const pf_patches *p); /* sizes positive, kernel <= image, kernel[2] 1 or channels, 0 <= shift
                                                  * < image */
ptrdiff_t pf_patches_count(const pf_patches *p); /* floor(h/kh) floor(w/kw) (c/kc) */
ptrdiff_t pf_patches_size(const pf_patches *p);  /* numbers in a patch, kh kw kc */
/* rows[count][size]: where each number of a patch stands in the flattened image. Patch (i, j, c) covers rows
 * (i kh + a + shift[0]) mod h, columns (j kw + b + shift[1]) mod w, channels c kc + e; (i, j, c) and (a, b, e) in C
 * order. */
void pf_patches_rows(int32_t *rows, const pf_patches *p);

/* Between mu^2 and what an axial layer's theta has at J knots: knot j stands at mu^2 = (1 - cos(pi j / (J - 1))) / 2,
 * and the polynomial through values v_j there is sum_i mu^(2 i) sum_j c[i][j] v_j. J = 1: a constant. */
enum { MU_MOST = 4 }; /* as many as pf_cspline4() makes at once */
double pf_mu_knot(ptrdiff_t j, ptrdiff_t knots);
void pf_mu_polynomials(double *c, ptrdiff_t knots);

enum { SHIFT_KNOTS_MOST = 64, COUPLING_CHANNELS = 64, COUPLING_KNOTS = 256 };
/* How pixels that are not observed are filled in: see fill.c. */
enum {
    FILL_NEAR = 128,      /* neighbours, at most */
    FILL_CONDITIONS = 12, /* that the weights depend on, at most */
    FILL_TERMS = (FILL_CONDITIONS + 1) * (FILL_CONDITIONS + 2) / 2,
};
ptrdiff_t pf_fill_terms(ptrdiff_t n_y); /* of a polynomial of second degree */
/* term[terms] = 1, u_j, u_j u_l with j <= l, of u = (y - centre) / reach held within [-1, 1]; y NULL: u = 0 */
void pf_monomials(double *term, const double *y, const double *centre, const double *reach, ptrdiff_t n_y);
/* gy += what the gradient gterm[terms] is for y, not NULL */
void pf_monomials_vjp(double *gy, const double *gterm, const double *y, const double *centre, const double *reach,
                      ptrdiff_t n_y);

#define TWICE "layers.h"
#include "twice.h"
#elif defined(real)

extern const X(layer_ops) X(columns_ops), X(scale_ops), X(affine_ops), X(sliced_ops), X(patch_ops), X(symmetric_ops),
    X(axial_ops), X(shift_ops), X(coupling_ops), X(fill_ops), X(band_ops), X(autoregressive_ops);

/* columns.c: every column by its own fixed map. No parameters. */
pf_status X(columns_new)(X(layer) **l, const pf_column *column, ptrdiff_t d);
/* where a column layer is defined, [d][2], or NULL for any other layer */
const double *X(layer_bounds)(const X(layer) *l);

/* scale.c: x <- (x - mean) / scale, one mean and one scale for all numbers. No parameters. */
pf_status X(scale_new)(X(layer) **l, double mean, double scale, ptrdiff_t d);
int X(scale_centred)(const X(layer) *l); /* whether it is a scale layer whose mean is 0 */

/* fill.c: observed pixels as in scale.c, the others drawn; the first layer of a flow. weight[terms][n][near + 1]: of
 * the neighbours, then log sigma; NULL: 0. No parameters. */
pf_status X(fill_new)(X(layer) **l, const pf_fill *from, double mean, double scale, const real *weight, ptrdiff_t d);
const unsigned char *X(layer_observed)(const X(layer) *l); /* [d] of a fill layer, NULL for any other */
int X(layer_draws)(const X(layer) *l);                     /* whether it draws what is not observed: fill, band */

/* band.c: modes within a range of |k| as in scale.c, the others drawn; the first layer of a flow. No parameters. */
pf_status X(band_new)(X(layer) **l, X(mesh) *mesh, const pf_band *from, double mean, double scale);
const double *X(layer_band)(const X(layer) *l); /* k_min, k_max of a band layer, NULL for any other */
/* PF_DEGENERATE, with the k where it is so, unless power[shells] is more than least everywhere. */
pf_status X(check_power)(const double *power, const X(filter) *f, double least);

/* affine.c: x <- W (x - mean). theta = W[d][d], mean[d]. */
pf_status X(affine_new)(X(layer) **l, ptrdiff_t d);

/* sliced.c: x <- x + A (Psi(A^T x) - A^T x), A in R^(d x K) with orthonormal columns; k = 0: A = I, every column on its
 * own. theta = the splines' [classes][K][3 M] (rqs.h), then A^T [K][d]. */
pf_status X(sliced_new)(X(layer) **l, ptrdiff_t d, ptrdiff_t k, ptrdiff_t m, ptrdiff_t classes);
ptrdiff_t X(layer_slices)(const X(layer) *l); /* K of a sliced layer (d for A = I), of a patch layer's each; else 0 */
int X(sliced_identity)(const X(layer) *l);    /* whether A = I */

/* patch.c: each patch of an image by a sliced layer of its own (sliced_new's k, m, classes). theta: patch after patch,
 * as the sliced layer has it. */
pf_status X(patch_new)(X(layer) **l, const pf_patches *p, ptrdiff_t k, ptrdiff_t m, ptrdiff_t classes);
const pf_patches *X(layer_patches)(const X(layer) *l); /* NULL for any other layer */
ptrdiff_t X(patch_count)(const X(layer) *l);           /* patches of a patch layer, else 0 */
/* Patch i alone, forward (keep: the whole layer's, or NULL) or inverse: where many tiles go through a layer, one patch
 * after another keeps its tables in cache. */
void X(patch_map)(const X(layer) *l, const void *ready, ptrdiff_t i, X(tile) *t, double *logj, real *keep, real *work,
                  int inverse);
const X(layer) *X(patch_inner)(const X(layer) *l); /* the sliced layer of one patch */

/* symmetric.c: x <- Psi(F^-1 T F x), T(|k|) or with an axis T(|k|, |mu|). theta = Psi's [3 psi_knots] (psi.h), then of
 * log T against |k| / k_max (cspline.h): positions as pf_increasing() has them, values[mu_knots][filter_knots]. axis:
 * the line of sight, with 2 to MU_MOST mu_knots; -1, with 1. */
pf_status X(symmetric_new)(X(layer) **l, X(mesh) *mesh, ptrdiff_t psi_knots, ptrdiff_t filter_knots, ptrdiff_t axis,
                           ptrdiff_t mu_knots);
const X(mesh) *X(symmetric_mesh)(const X(layer) *l); /* with the layer's axis */
/* Psi and T[shells] in a layer's tables; returns the filter's log|det|. */
double X(symmetric_parts)(const X(psi) **psi, const real **t, const X(layer) *l, const void *ready);
/* The smoothing of what a network says of m knots along k: a Gaussian's taps[reach + 1], to be freed; a line smoothed. */
pf_status X(smooth_taps)(real **taps, ptrdiff_t *reach, ptrdiff_t m);
void X(smooth_line)(real *knots, const real *taps, ptrdiff_t reach, ptrdiff_t m);

/* shift.c: x <- x + F^-1 S(|k|) F g(c), c the tile's context. theta = g at its fixed knots p[knots], in the units of c,
 * then of S against |k| / k_max (cspline.h): filter_knots positions as pf_increasing() has them, and values. */
pf_status X(shift_new)(X(layer) **l, X(mesh) *mesh, const double *p, ptrdiff_t knots, ptrdiff_t filter_knots);
const double *X(shift_positions)(const X(layer) *l); /* p */
/* u[d] = g(c[d]), by tables that all points share */
void X(shift_pointwise)(real *u, const X(layer) *l, const void *ready, const real *c);

/* coupling.c: of the modes on one side of split k_max, those below it if large, x <- x + sum_j F^-1 C_j F phi(F^-1 A_j
 * F x), made of those on the other. theta[channels][A, C][knots]. */
pf_status X(coupling_new)(X(layer) **l, X(mesh) *mesh, double split, int large, ptrdiff_t channels, ptrdiff_t knots);
void X(coupling_start)(double *theta, const X(layer) *l); /* the identity, from which training can go on */

/* autoregressive.c: every column by a spline of its own, which a network makes of the columns before it and of y.
 * theta = L[d][n_y + d], then the network's weights. */
pf_status X(autoregressive_new)(X(layer) **l, ptrdiff_t d, const pf_network *from);
void X(autoregressive_start)(double *theta, const X(layer) *l, const pf_network *from);
ptrdiff_t X(layer_conditions)(const X(layer) *l); /* how many it looks at itself: n_y of an autoregressive layer */
#endif
