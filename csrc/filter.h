/* The convolution with an isotropic kernel, done in Fourier space: y = F^-1 T(|k|) F x on a periodic field; or with one
 * that an axis, the line of sight, is left of the isotropy: T(|k|, |mu|), mu = k_axis / |k|.
 *
 * T real and even makes the matrix F^-1 T F symmetric: it is its own adjoint, and log|det| = sum over all modes of log
 * T. The modes of a mesh are few distinct |k| or (|k|, |mu|), the "shells"; T is a number for each of them. */
#ifndef PF_FILTER_H
#define PF_FILTER_H
#include "fft.h"

#define TWICE "filter.h"
#include "twice.h"
#elif defined(real)

typedef struct {
    const X(fft) *fft;
    ptrdiff_t shells;
    double *k;           /* [shells] |k|, ascending, in the inverse unit of box; k[0] = 0 */
    double *mu2;         /* [shells] mu^2, ascending where |k| is the same, 0 for k = 0; NULL without an axis */
    double *modes;       /* [shells] how many of all modes; they add up to the number of pixels */
    double *weight;      /* [half] 1 or 2: how many modes a mode of the half spectrum stands for */
    int32_t *shell;      /* [n0 / 2 + 1][n1 / 2 + 1][half], in 2-D [n0 / 2 + 1][half]: the shell of a mode */
    ptrdiff_t row, work; /* reals of scratch memory: for a row; for the calls below */
} X(filter);

/* axis: the line of sight, or -1 */
pf_status X(filter_new)(X(filter) **filter, int ndim, const ptrdiff_t *n, const double *box, int axis);
void X(filter_free)(X(filter) *filter); /* NULL is allowed */
/* y = F^-1 T F x, t[shells]. spectrum[fft->spectrum] receives F x. y may be x. */
void X(filter_apply)(const X(filter) *filter, real *y, real *spectrum, const real *x, const real *t, real *work);
/* g, on entry dL/dy, becomes dL/dx; gt[shells] += dL/dt, or NULL. spectrum holds F x; want_x = 0: gt only. */
void X(filter_vjp)(const X(filter) *filter, real *g, double *gt, const real *spectrum, const real *t, int want_x,
                   real *work);
/* y = F^-1 (T F x + U F e), t[shells], u[shells], and power[shells] += that of e, as below; work[f->work + f->fft->
 * spectrum]. y may be x or e. */
void X(filter_blend)(const X(filter) *f, real *y, double *power, const real *x, const real *t, const real *e,
                     const real *u, real *work);
/* Of spectra: out = T in (add: +=); gt[shells] += 1/pixels sum over the modes of a shell of Re(x* g), what the gradient
 * is for T where x is multiplied by it and g is the transform of the gradient */
void X(filter_modes)(const X(filter) *filter, real *out, const real *in, const real *t, int add, real *work);
void X(filter_products)(const X(filter) *filter, double *gt, const real *x, const real *g, real *work);
/* power[shells] += sum over the modes of a shell of |F x|^2 */
void X(filter_power)(const X(filter) *filter, double *power, const real *x, real *work);
#endif
