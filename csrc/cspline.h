/* Cubic spline through m >= 2 knots (p_j, v_j), with the slopes of the parabolas through three neighbours (at the ends,
 * of the last chord), constant outside the knots. Everything a knot changes is within two knots of it, and no slope is
 * steeper than the chords beside it, however close two knots come: what knots that move in training need, and
 * a spline with continuous curvature does not give. In double: it is evaluated once per |k|, not once per mode. */
#ifndef PF_CSPLINE_H
#define PF_CSPLINE_H
#include "internal.h"

/* y[n] = s(x), x[n] ascending; p[m] ascending */
void pf_cspline(double *y, const double *x, const double *p, const double *v, ptrdiff_t m, ptrdiff_t n);
/* gp[m], gv[m] += sum_i gy_i dy_i/dp, dy_i/dv */
void pf_cspline_vjp(double *gp, double *gv, const double *gy, const double *x, const double *p, const double *v,
                    ptrdiff_t m, ptrdiff_t n);

/* Four splines with the same positions: y[n][4], v[m][4]. room[PF_CSPLINE4_ROOM m] */
enum { PF_CSPLINE4_ROOM = 17 };
void pf_cspline4(double *y, const double *x, const double *p, const double *v, ptrdiff_t m, ptrdiff_t n, double *room);
void pf_cspline4_vjp(double *gp, double *gv, const double *gy, const double *x, const double *p, const double *v,
                     ptrdiff_t m, ptrdiff_t n, double *room);

/* Ascending numbers from unconstrained ones: p_0 = a_0, p_j = p_(j-1) + exp(a_j). A logarithm beyond +-PF_LOG_MOST
 * counts as that: however training or a far-off condition pushes, there is a spline. */
#define PF_LOG_MOST 9.0
void pf_increasing(double *p, const double *a, ptrdiff_t m);
void pf_increasing_inverse(double *a, const double *p, ptrdiff_t m);
void pf_increasing_vjp(double *ga, const double *gp, const double *p, ptrdiff_t m); /* ga += */

/* y[n] = exp(x), 1e-15; beyond +-700 as at +-700. Vectorises, which calls of exp() would not. */
void pf_exp(double *y, const double *x, ptrdiff_t n);
#endif
