/* Monotone rational-quadratic splines (rqs.h) of which every point has its own, as a network gives them (Durkan et al.
 * 2019, arXiv 1906.04032): u = (x - t) exp(-s), y = S(u), S through bins + 1 knots from -RQP_REACH to RQP_REACH and the
 * identity beyond, with slope 1 where they meet.
 *
 * What says so, unconstrained, is q[RQP_SIZE(bins)][ld], a column a point: t, s, then for each bin the logarithm of its
 * width and of its height, up to a constant, then the log-slopes at the bins - 1 inner knots. All zeros: the identity.
 * n is a multiple of TILE_STEP. */
#ifndef PF_RQP_H
#define PF_RQP_H
#include "internal.h"

enum { RQP_BINS = 64 /* at most */, RQP_REACH = 5 };
#define RQP_SIZE(bins) (3 * (bins) + 1)

#define TWICE "rqp.h"
#include "twice.h"
#elif defined(real)

/* y[n], log_slope[n] = log dy/dx; y may be x */
void X(rqp_forward)(real *y, real *log_slope, const real *x, const real *q, ptrdiff_t bins, ptrdiff_t n, ptrdiff_t ld);
/* x[n], log_slope[n] = log dx/dy; x may be y */
void X(rqp_inverse)(real *x, real *log_slope, const real *y, const real *q, ptrdiff_t bins, ptrdiff_t n, ptrdiff_t ld);
/* For L(y, log_slope): g[n], on entry dL/dy, becomes dL/dx; glog[n] = dL/dlog_slope; gq[RQP_SIZE(bins)][ld] = dL/dq. */
void X(rqp_vjp)(real *g, real *gq, const real *glog, const real *x, const real *q, ptrdiff_t bins, ptrdiff_t n,
                ptrdiff_t ld);
#endif
