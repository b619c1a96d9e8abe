/* Fixed maps of one column to the whole line and to a size near 1: the first layer of a model (columns.c).
 *
 *     LINEAR         z = (x - a) / b
 *     ASINH          z = asinh((x - a) / b)             heavy tails: a power law becomes exponential
 *     LOGIT          z = logit(u), u = (x - a) / (b - a)  a < x < b
 *     ABOVE, BELOW   z = +-softplus^-1(y), y = +-(x - a) / b,  y > 0
 *
 * A point on a bound (or nearer to it than about what the precision can tell from it, or beyond it) is taken to lie
 * that much inside: its density is finite. */
#ifndef PF_COLUMN_H
#define PF_COLUMN_H
#include "internal.h"

typedef enum { PF_LINEAR, PF_ASINH, PF_LOGIT, PF_ABOVE, PF_BELOW } pf_column_kind;

typedef struct {
    pf_column_kind kind;
    double a, b; /* b > 0; for PF_LOGIT the two bounds, else offset or bound, and scale */
} pf_column;

/* log(dz/dx) is this constant and what the maps below give: for a linear column the constant alone. */
double pf_column_constant(pf_column c);

#define TWICE "column.h"
#include "twice.h"
#elif defined(real)

/* The slopes of RQS_LOG_EVERY (rqs.h) maps may be multiplied in slope[n] before their logarithm is taken: each is
 * within 1e+-36. The logarithm of one that is not, far out, is added to logj[n] instead. */
/* where it is defined, +-INFINITY where open; a bound is rounded as the numbers that lie on it are */
void X(column_range)(double range[2], pf_column c);
/* x[n] <- z(x), slope[n] *= dz/dx without the constant */
void X(column_forward)(real *x, double *slope, double *logj, pf_column c, ptrdiff_t n);
/* x[n] <- x(z), slope[n] *= dx/dz without the constant; never out of the range, rounded to this precision */
void X(column_inverse)(real *x, double *slope, double *logj, pf_column c, ptrdiff_t n);
/* g[n], on entry dL/dz, becomes dL/dx; gl[n] = dL/d log(dz/dx) */
void X(column_vjp)(real *g, const double *gl, const real *x, pf_column c, ptrdiff_t n);
#endif
