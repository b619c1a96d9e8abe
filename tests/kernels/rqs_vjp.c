/* The vector-Jacobian products of rqs.h; forward and inverse are in kernels.c. */
#ifndef real
#include "kernels.h"
#include "rqs.h"

#pragma GCC visibility push(default)
#define TWICE "rqs_vjp.c"
#include "twice.h"
#pragma GCC visibility pop
#else

/* gx[n]: dL/dy, then dL/dx; gknots[3][m] += or NULL */
int K(rqs_vjp)(real *gx, double *gknots, const double *gl, const real *x, const real *knots, ptrdiff_t m, ptrdiff_t n)
{
    X(rqs) *s = X(rqs_new)(knots, 1, m);
    if (!s) return 1;
    if (gknots) X(rqs_vjp_knots)(gknots, gx, gl, x, s, m, n);
    X(rqs_vjp)(gx, gl, x, s, n);
    free(s);
    return 0;
}
#endif
