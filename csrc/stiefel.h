/* Slices: K orthonormal directions of R^d, as the rows of a[K][d], and the search for those along which an objective is
 * largest (Dai & Seljak 2021, Algorithm 1). */
#ifndef PF_STIEFEL_H
#define PF_STIEFEL_H
#include "internal.h"

/* A point of the Stiefel manifold, uniform, a function of (seed, stream). */
pf_status pf_stiefel_random(double *a, ptrdiff_t k, ptrdiff_t d, uint64_t seed, uint64_t stream);

/* Rows made orthonormal, from the first on (Gram-Schmidt, twice). */
void pf_stiefel_orthonormalise(double *a, ptrdiff_t k, ptrdiff_t d);

/* g[K][d] <- its part in the tangent space at a: G - A sym(A^T G) */
void pf_stiefel_project(double *g, const double *a, ptrdiff_t k, ptrdiff_t d);

typedef struct {
    /* value of the objective at a[K][d] */
    pf_status (*value)(void *user, double *value, const double *a);
    /* its gradient g[K][d] at the a of the last call of value */
    pf_status (*gradient)(void *user, double *g, const double *a);
    void *user;
} pf_slice_objective;

/* Climbs from a, at most `steps` steps, until one gains less than `tolerance` of the value. */
pf_status pf_stiefel_ascend(double *a, double *value, ptrdiff_t k, ptrdiff_t d, ptrdiff_t steps, double tolerance,
                            const pf_slice_objective *objective);
#endif
