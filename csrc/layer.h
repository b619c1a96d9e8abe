/* The layer table: what every layer of every flow can do.
 *
 * A layer is an invertible map of R^d with parameters. It works in place on a tile: up to ld rows of the data, stored
 * transposed, x[d][ld], so that a loop over rows is contiguous and vectorises; columns n .. ld - 1 are padding that may
 * hold any finite numbers. A tile goes through all layers while it is in cache. Layers are immutable once made and
 * shared between models by counting references. */
#ifndef PF_LAYER_H
#define PF_LAYER_H
#include "column.h"
#include "file.h"
#include "internal.h"
#include "rqs.h"

enum {
    TILE_MOST = 256, /* the largest ld */
    TILE_STEP = 16,  /* ld is a multiple of this */
};

/* Columns that a matrix product covers: with whole steps it takes the same path wherever a row stands in its tile. */
static inline ptrdiff_t tile_whole(ptrdiff_t n) { return (n + TILE_STEP - 1) / TILE_STEP * TILE_STEP; }

#define LAYER_DECLARE(X, real)                                                                                         \
    typedef struct X(layer) X(layer);                                                                                  \
                                                                                                                       \
    typedef struct {                                                                                                   \
        real *x;              /* [d][ld], changed in place */                                                          \
        const int32_t *label; /* [n] or NULL */                                                                        \
        ptrdiff_t n, ld;                                                                                               \
    } X(tile);                                                                                                         \
                                                                                                                       \
    typedef struct {                                                                                                   \
        const char *name;                                                                                              \
        /* reals of scratch memory that the calls below need for a tile of ld columns */                               \
        ptrdiff_t (*work)(const X(layer) *l, ptrdiff_t ld);                                                            \
        /* x <- f(x), logj[n] += log|det df/dx| */                                                                     \
        void (*forward)(const X(layer) *l, X(tile) *t, double *logj, real *work);                                      \
        /* x <- f^-1(x), logj[n] += log|det df^-1/dx| */                                                               \
        void (*inverse)(const X(layer) *l, X(tile) *t, double *logj, real *work);                                      \
        /* For a loss L: g, on entry dL/df, becomes dL/dx at the input x; glogj[n] = dL/dlogj; gtheta[n_theta], unless \
         * NULL, is increased by dL/dtheta. */                                                                         \
        void (*vjp)(const X(layer) *l, X(tile) *g, double *gtheta, const double *glogj, const real *x, real *work);    \
        ptrdiff_t (*n_theta)(const X(layer) *l);                                                                       \
        void (*write)(const X(layer) *l, pf_writer *w);                                                                \
        pf_status (*read)(X(layer) * * l, pf_reader *r, ptrdiff_t d, ptrdiff_t classes);                               \
        void (*destroy)(X(layer) *l);                                                                                  \
    } X(layer_ops);                                                                                                    \
                                                                                                                       \
    struct X(layer) {                                                                                                  \
        const X(layer_ops) *ops;                                                                                       \
        ptrdiff_t d;                                                                                                   \
        int references;                                                                                                \
    };                                                                                                                 \
                                                                                                                       \
    X(layer) *X(layer_share)(X(layer) *l);                                                                             \
    void X(layer_release)(X(layer) *l); /* NULL is allowed */                                                          \
    /* The kinds there are, in the order of their numbers in files; ends with NULL. */                                 \
    extern const X(layer_ops) *const X(layer_kinds)[];                                                                 \
                                                                                                                       \
    /* Sliced layer: x <- x + A (Psi(A^T x) - A^T x), log|det| = sum_k log Psi_k'. slices[K][d] holds the orthonormal  \
     * columns of A, or is NULL for A = I, K = d: every column on its own. knots[classes][K][3][M]: with labels, each  \
     * class has its own splines. theta = theirs (rqs.h), then slices. Copies what it is given. */                     \
    pf_status X(sliced_new)(X(layer) * * l, const real *slices, const real *knots, ptrdiff_t d, ptrdiff_t k,           \
                            ptrdiff_t m, ptrdiff_t classes);                                                           \
    /* Affine layer: x <- W (x - mean). inverse[d][d] = W^-1. theta = W, then mean. */                                 \
    pf_status X(affine_new)(X(layer) * * l, const double *w, const double *inverse, const double *mean,                \
                            double log_det, ptrdiff_t d);                                                              \
    /* Column layer: every column by its own fixed map, see columns.c. No parameters. */                               \
    pf_status X(columns_new)(X(layer) * * l, const pf_column *column, ptrdiff_t d);                                    \
    extern const X(layer_ops) X(sliced_ops), X(affine_ops), X(columns_ops);                                            \
    /* where a column layer is defined, [d][2], or NULL for any other layer */                                         \
    const double *X(layer_bounds)(const X(layer) *l);                                                                  \
                                                                                                                       \
    /* rows in a tile: a function of d alone, so that results do not depend on threads or memory */                    \
    ptrdiff_t X(tile_rows)(ptrdiff_t d);
#define PF_32(name) pf32_##name
#define PF_64(name) pf64_##name
LAYER_DECLARE(PF_32, float)
LAYER_DECLARE(PF_64, double)
#undef PF_32
#undef PF_64
#endif
