/* Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019), and its schedule. */
#ifndef PF_ADAM_H
#define PF_ADAM_H
#include "internal.h"

/* Fraction of the learning rate at a step of `total`: rises over the first `warmup` of them, then half a cosine to
 * zero. */
double pf_cosine_schedule(ptrdiff_t step, ptrdiff_t total, double warmup);

/* Factor that a gradient of this length is shortened by: to at most `clip` times the running mean of lengths (clip 0:
 * 1), which *mean keeps; *mean is 0 at first. */
double pf_clip(double *mean, double length, double clip);

#define TWICE "adam.h"
#include "twice.h"
#elif defined(real)

typedef struct {
    ptrdiff_t n, steps;
    real *m, *v;  /* [n] running means of gradient and its square */
    double *part; /* [blocks] */
} X(adam);

pf_status X(adam_init)(X(adam) *adam, ptrdiff_t n);
void X(adam_clear)(X(adam) *adam);
/* |g|^2, the same for any number of threads */
pf_status X(adam_square)(double *square, X(adam) *adam, const real *g);
/* w[n] moves up the gradient: w += rate (step(factor g) - decay w) */
pf_status X(adam_step)(X(adam) *adam, real *w, const real *g, double factor, double rate, double decay);
#endif
