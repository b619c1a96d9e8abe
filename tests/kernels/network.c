/* Wrappers, as in kernels.c, of the conditioning network and of Adam. */
#ifndef real
#include "adam.h"
#include "kernels.h"
#include "mlp.h"

#pragma GCC visibility push(default)

double k_cosine_schedule(ptrdiff_t step, ptrdiff_t total, double warmup)
{
    return pf_cosine_schedule(step, total, warmup);
}

double k_clip(double *mean, double length, double clip) { return pf_clip(mean, length, clip); }

#define TWICE "network.c"
#include "twice.h"
#pragma GCC visibility pop
#else

X(mlp) *K(mlp_new)(ptrdiff_t n_in, const ptrdiff_t *hidden, int n_hidden, ptrdiff_t n_out)
{
    X(mlp) *p;
    return X(mlp_new)(&p, n_in, hidden, n_hidden, n_out) ? NULL : p;
}

void K(mlp_free)(X(mlp) *p) { X(mlp_free)(p); }
void K(mlp_draw)(X(mlp) *p, uint64_t seed, uint64_t stream) { X(mlp_draw)(p, seed, stream); }
ptrdiff_t K(mlp_n_w)(const X(mlp) *p) { return p->n_w; }
real *K(mlp_weights)(X(mlp) *p) { return p->w; }

/* out[rows][n_out]; with gout[rows][n_out] also gw[n_w] and gin[rows][n_in], or NULL */
int K(mlp)(const X(mlp) *p, real *out, real *gw, real *gin, const real *gout, const real *in, ptrdiff_t rows)
{
    real *memory = PF_ALLOC(real, X(mlp_memory)(p, rows));
    int status = !memory || X(mlp_forward)(p, out, memory, in, rows);
    if (!status && gout) status = X(mlp_vjp)(p, gw, gin, gout, memory, in, rows);
    free(memory);
    return status;
}

/* w[n] after `steps` steps along g[steps][n], and the squared length of each */
int K(adam)(real *w, double *square, const real *g, double factor, double rate, double decay, ptrdiff_t steps,
            ptrdiff_t n)
{
    X(adam) adam = {0};
    int status = X(adam_init)(&adam, n);
    for (ptrdiff_t t = 0; t < steps && !status; t++) {
        status = X(adam_square)(square + t, &adam, g + t * n);
        if (!status) status = X(adam_step)(&adam, w, g + t * n, factor, rate, decay);
    }
    X(adam_clear)(&adam);
    return status;
}
#endif
