/* Psi, the pointwise function of a symmetric layer: one monotone rational-quadratic spline (rqs.h) of few knots that
 * all pixels of a field go through. A pixel's bin is found by comparing it with every knot, and what is stored of the
 * bin is picked from vector registers: with 8 knots several times faster than rqs.c, whose tables lie in memory. */
#ifndef PF_PSI_H
#define PF_PSI_H
#include "internal.h"

enum {
    PSI_MOST = 63, /* knots */
    PSI_X0 = 0,
    PSI_INV_W,
    PSI_Y0,
    PSI_H,
    PSI_S,
    PSI_D0,
    PSI_C,
    PSI_INV_S,
    PSI_INV_H,
    PSI_COLUMNS,
};

#define TWICE "psi.h"
#include "twice.h"
#elif defined(real)

typedef struct {
    real column[PSI_COLUMNS][PSI_MOST + 1] __attribute__((aligned(64))); /* bins: left tail, m - 1, right tail */
    real x[PSI_MOST], y[PSI_MOST];
    double knots[3][PSI_MOST]; /* x, y, slopes */
    int m;
} X(psi);

/* From 3 m unconstrained numbers: x and y as pf_increasing() has them, then log-slopes; 2 <= m <= PSI_MOST. */
void X(psi_make)(X(psi) *psi, const double *theta, ptrdiff_t m);
/* y[n] = Psi(x); returns sum_i log Psi'(x_i) */
double X(psi_forward)(real *y, const real *x, const X(psi) *psi, ptrdiff_t n);
/* x[n] = Psi^-1(y); returns sum_i log Psi'(x_i) */
double X(psi_inverse)(real *x, const real *y, const X(psi) *psi, ptrdiff_t n);
/* For L = L'(y) + glogj sum_i log Psi'(x_i): g[n], on entry dL'/dy, becomes dL/dx; gtheta[3 m] += dL/dtheta, or NULL. */
void X(psi_vjp)(real *g, double *gtheta, double glogj, const real *x, const X(psi) *psi, ptrdiff_t n);
#endif
