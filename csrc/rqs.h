/* Monotone rational-quadratic splines (Gregory & Delbourgo 1982; as flows: Durkan et al. 2019, arXiv 1906.04032).
 *
 * A spline passes through m knots (x_j, y_j) with slopes d_j and is linear outside them. In a bin of width w, height h,
 * mean slope s = h / w, with t = (x - x_0) / w, o = 1 - t and the slopes p, r of its ends in units of s,
 *
 *     P = p o + t,   Q = 1 + (p + r - 2) t o,   N = p o^2 + 2 t o + r t^2
 *     y  = y_0 + (x - x_0) s P / Q
 *     y' = s N / Q^2
 *
 * No term cancels another, however steep an end is. The two tails are bins with 1 / w = 0, p = r = 1.
 *
 * theta[3 m], any finite numbers: x and y each as pf_increasing() has them (cspline.h), then log-slopes. A logarithm
 * beyond +-RQS_LOG_MOST counts as that, a first number beyond +-RQS_FIRST_MOST too; knots that come too near to each
 * other for the precision are moved apart; no end of a bin is steeper or flatter than its chord by more than
 * RQS_RATIO. A gradient is taken as if a bound were not there: training can come back from it. */
#ifndef PF_RQS_H
#define PF_RQS_H
#include "internal.h"

#define RQS_LOG_MOST 30.0
#define RQS_FIRST_MOST 1e15
#define RQS_RATIO 1e8

/* What is stored of a bin, side by side: one is fetched as a whole */
enum { RQS_X0, RQS_Y0, RQS_P, RQS_R, RQS_INV_W, RQS_S, RQS_INV_H, RQS_INV_S, RQS_BIN };

/* theta[3 m] of the spline through knots[3][m] = x, y, d; a gap or a slope that is not positive becomes the least. */
void pf_rqs_theta(double *theta, const double *knots, ptrdiff_t m);

/* logj[n] += sign log(slope): slope positive and normal; slope becomes 1. */
void pf_log_slopes(double *logj, double *slope, double sign, ptrdiff_t n);
/* The slopes of this many splines may be multiplied before their logarithm is taken: a double holds their product. */
enum { RQS_LOG_EVERY = 8 };

#define TWICE "rqs.h"
#include "twice.h"
#elif defined(real)

#if REAL_BITS == 32
typedef uint32_t X(whole);
#else
typedef uint64_t X(whole);
#endif

/* Finds the bin of a number: cells of equal width say how many knots lie before a cell, and `refine` steps look at
 * those inside it. Where knots crowd into one cell, it is a binary search instead. Knots are stored as whole numbers in
 * the same order. */
typedef struct {
    const X(whole) *knot; /* [m] ascending, then the largest up to `padded` */
    const uint16_t *cell;
    real lo, scale;
    int refine; /* steps, or 0: binary search */
} X(rqs_search);

typedef struct {
    const real *bin; /* [m + 1][RQS_BIN]: left tail, m - 1 bins, right tail */
    X(rqs_search) by_x, by_y;
    int bins, cells, padded; /* m + 1; powers of two: cells of a search, length of its knots */
} X(rqs);

/* n splines of 2 <= m <= 65535 knots: `splines` is rqs_bytes() of memory, a multiple of 64, aligned to 64;
 * theta[n][3 m], finite. Cannot fail. */
size_t X(rqs_bytes)(ptrdiff_t n, ptrdiff_t m);
void X(rqs_make)(X(rqs) *splines, const double *theta, ptrdiff_t n, ptrdiff_t m);

/* y[n] = Psi(x), slope[n] *= Psi'(x) */
void X(rqs_forward)(real *y, double *slope, const real *x, const X(rqs) *spline, ptrdiff_t n);
/* x[n] = Psi^-1(y), slope[n] *= Psi'(x) */
void X(rqs_inverse)(real *x, double *slope, const real *y, const X(rqs) *spline, ptrdiff_t n);
/* g[n], on entry dL/dy, becomes dL/dx; gl[n] = dL/d log y'; gtheta[3 m] += dL/dtheta, or NULL */
void X(rqs_vjp)(real *g, double *gtheta, const double *gl, const real *x, const X(rqs) *spline, ptrdiff_t n);
#endif
