/* Monotone rational-quadratic splines (Gregory & Delbourgo 1982; as flows: Durkan et al. 2019, arXiv 1906.04032).
 *
 * A spline passes through M knots (x_j, y_j) with slopes d_j and is linear outside them. In a bin of width w, height h,
 * mean slope s = h / w, and with t = (x - x_0) / w, c = d_0 + d_1 - 2 s,
 *
 *     y  = y_0 + h t (d_0 + (s - d_0) t) / (s + c t (1 - t))
 *     y' = s^2 (d_0 + 2 (s - d_0) t + c t^2) / (s + c t (1 - t))^2
 *
 * These forms are exact in the two tails too, which are stored as bins with s = d_0 = d_1. */
#ifndef PF_RQS_H
#define PF_RQS_H
#include "internal.h"

enum { RQS_BIN = 8 }; /* what is stored of a bin: x0, 1/w, y0, h, s, d0, c, 1/h */

/* Finds the bin of a number: cells of equal width say how many knots lie before a cell, and refine steps look at those
 * inside it. Where knots crowd into one cell, it is a binary search instead. */
#define RQS_DECLARE(X, real)                                                                                           \
    typedef struct {                                                                                                   \
        const real *knot; /* [M] ascending, then +INFINITY up to `padded` */                                           \
        const int32_t *cell;                                                                                           \
        real lo, scale;                                                                                                \
        int refine; /* steps, or 0: binary search */                                                                   \
    } X(rqs_search);                                                                                                   \
                                                                                                                       \
    typedef struct {                                                                                                   \
        const real *bin; /* [RQS_BIN][M + 1]: left tail, M - 1 bins, right tail */                                     \
        X(rqs_search) by_x, by_y;                                                                                      \
        int bins, cells, padded; /* M + 1; powers of two: cells of a search, length of its knots */                    \
    } X(rqs);                                                                                                          \
                                                                                                                       \
    /* n splines of m >= 2 knots: knots[n][3][m] holds x, y, d. One block of memory: free(). NULL when a knot is out   \
     * of order, a slope not positive, a number not finite (the message says so), or memory short. */                  \
    X(rqs) *X(rqs_new)(const real *knots, ptrdiff_t n, ptrdiff_t m);                                                   \
                                                                                                                       \
    /* y[n] = Psi(x), slope[n] *= Psi'(x) */                                                                           \
    void X(rqs_forward)(real * y, double *slope, const real *x, const X(rqs) *spline, ptrdiff_t n);                    \
    /* x[n] = Psi^-1(y), slope[n] *= Psi'(x) */                                                                        \
    void X(rqs_inverse)(real * x, double *slope, const real *y, const X(rqs) *spline, ptrdiff_t n);                    \
    /* gx[n] <- gx dy/dx + gl d(log y')/dx: the gradient with respect to y becomes that with respect to x */           \
    void X(rqs_vjp)(real * gx, const double *gl, const real *x, const X(rqs) *spline, ptrdiff_t n);                    \
    /* gknots[3][m] += gy dy/d(knots) + gl d(log y')/d(knots) */                                                       \
    void X(rqs_vjp_knots)(double *gknots, const real *gy, const double *gl, const real *x, const X(rqs) *spline,       \
                          ptrdiff_t m, ptrdiff_t n);
#define PF_32(name) pf32_##name
#define PF_64(name) pf64_##name
RQS_DECLARE(PF_32, float)
RQS_DECLARE(PF_64, double)
#undef PF_32
#undef PF_64

/* logj[n] += sign log(slope): slope positive and normal; slope becomes 1. */
void pf_log_slopes(double *logj, double *slope, double sign, ptrdiff_t n);
/* The slopes of this many splines may be multiplied before their logarithm is taken: a double holds their product. */
enum { RQS_LOG_EVERY = 8 };
#endif
