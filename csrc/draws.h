/* The logarithm of the integral of exp(log p) over the unit cube, and points drawn where it comes from. */
#ifndef PF_DRAWS_H
#define PF_DRAWS_H
#include "internal.h"

typedef struct {
    /* log p of points first .. first + n - 1, which are u[n][d], each in the unit cube */
    pf_status (*logp)(void *user, double *logp, const double *u, ptrdiff_t first, ptrdiff_t n);
    void *user;
    uint64_t seed, stream;
} pf_density;

/* Effective numbers of draws: rounds go on until there are so many, and an integral from fewer than PF_FEW, after the
 * last round, is not known. */
enum { PF_ENOUGH = 56, PF_FEW = 14 };

typedef struct {
    ptrdiff_t d, room, n;                    /* of a point; points there can be; there are */
    double effective;                        /* number of draws */
    double *u, *logp, *density, *log_weight; /* [room][d], [room]; of the draws, times their number; -log of it */
    struct pf_proposal *rounds;
    double *share, *step, *scratch, *memory;
} pf_draws;

/* With room for pf_draw() with as many draws. To be cleared after a failure too. */
pf_status pf_draws_new(pf_draws *s, ptrdiff_t d, ptrdiff_t draws);
void pf_draws_clear(pf_draws *s);
/* Some `draws` points, and more until the integral is known or there is no more room. */
pf_status pf_draw(pf_draws *s, ptrdiff_t draws, const pf_density *p);
/* log of the integral of p^b, from n draws: log sum_i weight_i p_i^b */
double pf_log_evidence(const double *log_weight, const double *logp, double b, ptrdiff_t n);
#endif
