/* Wrappers of the kernels of symmetric layers: cspline.h, psi.h, filter.h, fft.h. */
#ifndef real
#include "cspline.h"
#include "filter.h"
#include "kernels.h"
#include "psi.h"

#pragma GCC visibility push(default)

void k_cspline(double *y, const double *x, const double *p, const double *v, ptrdiff_t m, ptrdiff_t n)
{
    pf_cspline(y, x, p, v, m, n);
}

void k_cspline_vjp(double *gp, double *gv, const double *gy, const double *x, const double *p, const double *v,
                   ptrdiff_t m, ptrdiff_t n)
{
    pf_cspline_vjp(gp, gv, gy, x, p, v, m, n);
}

void k_increasing(double *p, const double *a, ptrdiff_t m) { pf_increasing(p, a, m); }
void k_increasing_inverse(double *a, const double *p, ptrdiff_t m) { pf_increasing_inverse(a, p, m); }
void k_increasing_vjp(double *ga, const double *gp, const double *p, ptrdiff_t m) { pf_increasing_vjp(ga, gp, p, m); }
void k_exp(double *y, const double *x, ptrdiff_t n) { pf_exp(y, x, n); }

#define TWICE "fields.c"
#include "twice.h"
#pragma GCC visibility pop
#else

/* ---- psi, made anew each time ---- */

double K(psi_forward)(real *y, const real *x, const double *theta, ptrdiff_t m, ptrdiff_t n)
{
    X(psi) psi;
    X(psi_make)(&psi, theta, m);
    return X(psi_forward)(y, x, &psi, n);
}

double K(psi_inverse)(real *x, const real *y, const double *theta, ptrdiff_t m, ptrdiff_t n)
{
    X(psi) psi;
    X(psi_make)(&psi, theta, m);
    return X(psi_inverse)(x, y, &psi, n);
}

void K(psi_vjp)(real *g, double *gtheta, double glogj, const real *x, const double *theta, ptrdiff_t m, ptrdiff_t n)
{
    X(psi) psi;
    X(psi_make)(&psi, theta, m);
    X(psi_vjp)(g, gtheta, glogj, x, &psi, n);
}

/* ---- transforms ---- */

static real *K(scratch)(ptrdiff_t n)
{
    real *memory = PF_ALLOC(real, n);
    for (ptrdiff_t i = 0; i < n; i++) memory[i] = (real)NAN;
    return memory;
}

const X(fft) *K(fft_plan)(ptrdiff_t ndim, const ptrdiff_t *n) { return X(fft_plan)((int)ndim, n); }
ptrdiff_t K(fft_ld)(const X(fft) *plan) { return plan->ld; }

/* spectrum[rows][2 ld] */
void K(fft_forward)(const X(fft) *plan, real *spectrum, const real *x)
{
    real *s = K(scratch)(plan->spectrum), *work = K(scratch)(plan->work);
    X(fft_forward)(plan, s, x, work);
    memcpy(spectrum, s, (size_t)(2 * plan->rows * plan->ld) * sizeof(real));
    free(s), free(work);
}

void K(fft_inverse)(const X(fft) *plan, real *x, const real *spectrum)
{
    real *s = K(scratch)(plan->spectrum), *work = K(scratch)(plan->work);
    memcpy(s, spectrum, (size_t)(2 * plan->rows * plan->ld) * sizeof(real));
    X(fft_inverse)(plan, x, s, work);
    free(s), free(work);
}

/* ---- filters ---- */

X(filter) *K(filter_new)(ptrdiff_t ndim, const ptrdiff_t *n, const double *box, ptrdiff_t axis)
{
    X(filter) *f;
    return X(filter_new)(&f, (int)ndim, n, box, (int)axis) ? NULL : f;
}

void K(filter_free)(X(filter) *f) { X(filter_free)(f); }
ptrdiff_t K(filter_shells)(const X(filter) *f) { return f->shells; }

void K(filter_modes)(const X(filter) *f, double *k, double *modes)
{
    memcpy(k, f->k, (size_t)f->shells * sizeof *k);
    memcpy(modes, f->modes, (size_t)f->shells * sizeof *modes);
}

/* with an axis */
void K(filter_mu2)(const X(filter) *f, double *mu2) { memcpy(mu2, f->mu2, (size_t)f->shells * sizeof *mu2); }

void K(filter_apply)(const X(filter) *f, real *y, const real *x, const real *t)
{
    real *spectrum = K(scratch)(f->fft->spectrum), *work = K(scratch)(f->work);
    X(filter_apply)(f, y, spectrum, x, t, work);
    free(spectrum), free(work);
}

/* The spectrum is that of filter_apply, as in a layer. */
void K(filter_vjp)(const X(filter) *f, real *g, double *gt, const real *x, const real *t, ptrdiff_t want_x)
{
    real *spectrum = K(scratch)(f->fft->spectrum), *work = K(scratch)(f->work), *y = K(scratch)(f->fft->pixels);
    X(filter_apply)(f, y, spectrum, x, t, work);
    for (ptrdiff_t i = 0; i < f->work; i++) work[i] = (real)NAN;
    X(filter_vjp)(f, g, gt, spectrum, t, (int)want_x, work);
    free(spectrum), free(work), free(y);
}

void K(filter_power)(const X(filter) *f, double *power, const real *x)
{
    real *work = K(scratch)(f->work);
    X(filter_power)(f, power, x, work);
    free(work);
}
#endif
