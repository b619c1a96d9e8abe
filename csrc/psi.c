/* The pointwise spline of a symmetric layer: see psi.h. Its loops over pixels are in psi.inc. */
#ifndef real
#include "cspline.h"
#include "psi.h"

enum { PSI_SUMS = 6 };

#define TWICE "psi.c"
#include "twice.h"
#else

#if REAL_BITS == 32
#define INT int32_t
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#else
#define INT int64_t
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#endif
#define EXPONENT_ROOM ((ptrdiff_t)1 << 20) /* numbers whose exponents a 32-bit sum holds */
#define SIMD "psi.inc"
#include "simd.h"

void X(psi_make)(X(psi) *psi, const double *theta, ptrdiff_t m)
{
    double *x = psi->knots[0], *y = psi->knots[1], *d = psi->knots[2];
    pf_increasing(x, theta, m);
    pf_increasing(y, theta + m, m);
    for (ptrdiff_t j = 0; j < m; j++) {
        d[j] = exp(PF_MIN(PF_MAX(theta[2 * m + j], -PF_LOG_MOST), PF_LOG_MOST));
        psi->x[j] = (real)x[j];
        psi->y[j] = (real)y[j];
    }
    psi->m = (int)m;
    for (ptrdiff_t j = 0; j <= PSI_MOST; j++) {
        ptrdiff_t left = PF_MIN(PF_MAX(j - 1, 0), m - 1);
        int tail = j == 0 || j >= m;
        double w = tail ? 1 : x[j] - x[left], h = tail ? d[left] : y[j] - y[left];
        double d0 = d[left], d1 = tail ? d0 : d[j], s = h / w;
        double column[PSI_COLUMNS] = {
            [PSI_X0] = x[left], [PSI_INV_W] = 1 / w,       [PSI_Y0] = y[left],  [PSI_H] = h,        [PSI_S] = s,
            [PSI_D0] = d0,      [PSI_C] = d0 + d1 - 2 * s, [PSI_INV_S] = w / h, [PSI_INV_H] = 1 / h};
        for (int c = 0; c < PSI_COLUMNS; c++) psi->column[c][j] = (real)column[c];
    }
}

double X(psi_forward)(real *y, const real *x, const X(psi) *psi, ptrdiff_t n)
{
    return SIMD_BEST(forward)(y, x, psi, n);
}

double X(psi_inverse)(real *x, const real *y, const X(psi) *psi, ptrdiff_t n)
{
    return SIMD_BEST(inverse)(x, y, psi, n);
}

/* Sums over the pixels of a bin, of dL/dy; dL/dh (s = h / w following); dL/dt; s dL/ds + t dL/dt = -w dL/dw; dL/dd0;
 * dL/dd1: from them the gradient with respect to the knots at the ends of the bin. */
static void X(spread)(double g[3][PSI_MOST], double (*sums)[PSI_SUMS], const X(psi) *psi)
{
    int m = psi->m;
    for (int j = 0; j <= m; j++) {
        int left = PF_MAX(j - 1, 0), right = j;
        const double *s = sums[j];
        if (j == 0 || j == m) { /* y = y_e + d_e (x - x_e) */
            g[0][left] -= s[2];
            g[1][left] += s[0];
            g[2][left] += s[1] + s[4] + s[5];
            continue;
        }
        double inv_w = 1 / (psi->knots[0][right] - psi->knots[0][left]), g_w = -s[3] * inv_w;
        g[0][left] -= g_w + s[2] * inv_w;
        g[0][right] += g_w;
        g[1][left] += s[0] - s[1];
        g[1][right] += s[1];
        g[2][left] += s[4];
        g[2][right] += s[5];
    }
}

void X(psi_vjp)(real *g, double *gtheta, double glogj, const real *x, const X(psi) *psi, ptrdiff_t n)
{
    double sums[PSI_MOST + 1][PSI_SUMS] = {{0}}, gknots[3][PSI_MOST] = {{0}};
    SIMD_BEST(vjp)(g, gtheta ? sums : NULL, (real)glogj, x, psi, n);
    if (!gtheta) return;
    X(spread)(gknots, sums, psi);
    int m = psi->m;
    pf_increasing_vjp(gtheta, gknots[0], psi->knots[0], m);
    pf_increasing_vjp(gtheta + m, gknots[1], psi->knots[1], m);
    for (int j = 0; j < m; j++) gtheta[2 * m + j] += gknots[2][j] * psi->knots[2][j];
}
#undef INT
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef EXPONENT_ROOM
#undef SIMD_BEST
#endif
