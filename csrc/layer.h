/* The layer table: what every layer of every flow can do.
 *
 * A layer is an invertible map of R^d. The object itself is an immutable shape: sizes, kinds, Fourier modes. Its
 * parameters are theta[n_theta], a part of the flow's one vector of unconstrained doubles; from them prepare() makes
 * what the maps need, the tables `ready`. Where theta depends on conditions y, every point has tables of its own.
 *
 * Maps work in place on a tile: n points on their way through all layers while they are in cache. A layer sees them in
 * the layout it asks for: COLUMNS, x[d][ld], a number of all points together, so that a loop over points is contiguous;
 * or ROWS, x[n][ld], a point together, as a Fourier transform wants it. */
#ifndef PF_LAYER_H
#define PF_LAYER_H
#include <stdatomic.h>

#include "file.h"
#include "filter.h"
#include "internal.h"

enum {
    TILE_MOST = 256, /* the most points in a tile */
    TILE_STEP = 16,  /* ld is a multiple of this */
};

/* Numbers that a loop over whole steps covers. */
static inline ptrdiff_t tile_whole(ptrdiff_t n) { return (n + TILE_STEP - 1) / TILE_STEP * TILE_STEP; }

typedef enum { COLUMNS, ROWS, ANY_LAYOUT } pf_layout;

/* What the points of a flow are: d columns of a table (ndim 1), or fields on a periodic mesh (ndim 2 or 3). */
typedef struct {
    int ndim;
    ptrdiff_t n[3], d; /* d: the product of n */
    double box[3];     /* lengths of a mesh's axes */
} pf_space;

/* What a layer needs: bytes of its tables, a multiple of 64; reals that forward keeps for vjp; scratch reals. */
typedef struct {
    size_t ready;
    ptrdiff_t keep, work;
} pf_sizes;

#define TWICE "layer.h"
#include "twice.h"
#elif defined(real)

typedef struct X(layer) X(layer);

/* A mesh with its Fourier modes: made once, shared by the layers of a flow. */
typedef struct X(mesh) {
    X(filter) *filter;
    int axis;       /* the line of sight, or -1 */
    ptrdiff_t n_k;  /* how many different |k|; without an axis, as many as there are shells */
    double *k;      /* [n_k] |k| / k_max */
    int32_t *shell; /* [shells] which of these a shell has; NULL without an axis */
    pf_space space;
    _Atomic(struct X(mesh) *) axial[3]; /* without an axis: the same mesh with one, or NULL as long as none was asked */
    atomic_int references;
} X(mesh);

typedef struct {
    real *x;
    ptrdiff_t n, d, ld;
    pf_layout layout;
    ptrdiff_t tables;     /* 1, or n: every point has its own, where the layer is conditioned */
    const int32_t *label; /* [n] or NULL */
    /* [n] a second field of each point, [d], which layers see and do not change; or NULL */
    const real *const *context;
    /* for what is drawn at random: numbers of every point's own stream; NULL: all have stream 0 */
    uint64_t seed;
    const uint64_t *stream; /* [n] */
    /* conditions, for what depends on them beside theta; or NULL */
    const double *y; /* [n][n_y] */
    ptrdiff_t n_y;
    double *gy; /* [n][n_y] dL/dy of that is added to it, or NULL */
} X(tile);

typedef struct {
    const char *kind; /* in files and messages */
    pf_layout layout;
    int conditional; /* whether every point may have tables of its own */
    int context;     /* whether it needs the tile's context */
    /* for tiles of up to n points, padded to ld in COLUMNS */
    pf_sizes (*sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables);
    /* Tables of theta[tables][stride], of which n_theta count. It cannot fail, whatever numbers theta holds. */
    void (*prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride, ptrdiff_t tables,
                    real *work);
    /* x <- f(x), logj[n] += log|det df/dx|; keep is NULL where there is no way back */
    void (*forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work);
    /* x <- f^-1(x), logj[n] += log|det df^-1/dx| */
    void (*inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work);
    /* For a loss L: g, on entry dL/df, becomes dL/dx (anything, unless want_x); glogj[n] = dL/dlogj;
     * gtheta[tables][stride] += dL/dtheta, or NULL. */
    void (*vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride, const double *glogj,
                const real *keep, int want_x, real *work);
    /* Parameters on a manifold (slices): a gradient onto its tangent space, a point back onto it. NULL: all of R^n. */
    void (*project)(const X(layer) *l, double *gtheta, const double *theta);
    void (*retract)(const X(layer) *l, double *theta);
    /* What a network says of theta[rows][stride], smoothed; symmetric, so that it serves both ways. NULL: as it is. */
    void (*smooth)(const X(layer) *l, real *theta, ptrdiff_t stride, ptrdiff_t rows);
    /* A step of weight decay, theta *= factor, of a layer with a network in it. NULL: there is none. */
    void (*decay)(const X(layer) *l, double *theta, double factor);
    /* The shape, to a file and back. Theta is not in it. */
    void (*write)(const X(layer) *l, pf_writer *w);
    pf_status (*read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes);
    void (*destroy)(X(layer) *l);
} X(layer_ops);

struct X(layer) {
    const X(layer_ops) *ops;
    ptrdiff_t d, n_theta;
    atomic_int references;
};

X(layer) *X(layer_share)(X(layer) *l);
void X(layer_release)(X(layer) *l); /* NULL is allowed */

pf_status X(mesh_new)(X(mesh) **mesh, const pf_space *space);
/* The same mesh with a line of sight, which the mesh keeps. */
pf_status X(mesh_axial)(X(mesh) **axial, X(mesh) *mesh, ptrdiff_t axis);
X(mesh) *X(mesh_share)(X(mesh) *mesh);
void X(mesh_release)(X(mesh) *mesh);

/* ---- the layers there are: layers.h makes them -------------------------------------------------------------- */

/* ends with NULL */
extern const X(layer_ops) *const X(layer_kinds)[];

/* ---- tiles: tile.c ------------------------------------------------------------------------------------------ */

/* Rows of a table in a tile: a function of d alone, what makes it fit the second-level cache. */
ptrdiff_t X(tile_rows)(ptrdiff_t d);
/* t <- rows x[n][d], in t's layout; whether all of them are finite numbers */
int X(tile_load)(X(tile) *t, const real *x);
int X(all_finite)(const real *x, ptrdiff_t n);
void X(tile_store)(real *x, const X(tile) *t);
/* Changes the layout; spare is another tile's memory, and becomes t->x when the old x becomes *spare. */
void X(tile_turn)(X(tile) *t, pf_layout layout, real **spare);
/* logp[n] = log N(z; 0, I) */
void X(tile_logp)(double *logp, const X(tile) *t);
/* sum of the squares of x[n] */
double X(sum_squares)(const real *x, ptrdiff_t n);
/* y[n] = scale x + shift; y may be x */
void X(scale_shift)(real *y, const real *x, real scale, real shift, ptrdiff_t n);
/* y[m][ldy] = (add: +=) A x, x[k][ldx], A_ik = a[i si + k sk], columns 0 .. n - 1, n a multiple of TILE_STEP. What
 * stands in a column of y depends on that column of x alone, whatever processor it is: a product of OpenBLAS does not.
 */
void X(tile_product)(real *y, const real *a, const real *x, int add, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
                     ptrdiff_t si, ptrdiff_t sk, ptrdiff_t ldy, ptrdiff_t ldx);
/* g[m][k] += sum over n of a[m][lda] b[k][ldb] */
void X(tile_outer)(double *g, const real *a, const real *b, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, ptrdiff_t lda,
                   ptrdiff_t ldb);
#endif
