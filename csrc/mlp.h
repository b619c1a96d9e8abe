/* The conditioning network: a multilayer perceptron, out = W_L a_(L-1) + b_L, a_l = silu(W_l a_(l-1) + b_l), a_0 = in. */
#ifndef PF_MLP_H
#define PF_MLP_H
#include "internal.h"

enum { MLP_LAYERS = 8 /* most, the output layer among them */ };

#define TWICE "mlp.h"
#include "twice.h"
#elif defined(real)

typedef struct {
    int layers;
    ptrdiff_t size[MLP_LAYERS + 1]; /* inputs, hidden units of each layer, outputs */
    ptrdiff_t n_w;
    real *w; /* [n_w]: W_l[out][in], b_l[out], layer after layer */
} X(mlp);

/* All weights are zero. */
pf_status X(mlp_new)(X(mlp) **mlp, ptrdiff_t n_in, const ptrdiff_t *hidden, int n_hidden, ptrdiff_t n_out);
/* Hidden layer l gets normal weights of variance 2 / inputs, from stream + l; the last stays, so out = 0. */
void X(mlp_draw)(X(mlp) *mlp, uint64_t seed, uint64_t stream);
void X(mlp_free)(X(mlp) *mlp);
/* reals that a pass of `rows` >= 1 rows keeps: slope_1, a_1, slope_2, ... and two layers' gradients */
ptrdiff_t X(mlp_memory)(const X(mlp) *mlp, ptrdiff_t rows);
/* out[rows][n_out]: a row has the same bits alone and among others; so in gin */
pf_status X(mlp_forward)(const X(mlp) *mlp, real *out, real *memory, const real *in, ptrdiff_t rows);
/* gw[n_w] = dL/dw, summed over rows in their order, and gin[rows][n_in] = dL/din, either may be NULL; gout =
 * dL/dout; memory as forward left it, and destroyed. */
pf_status X(mlp_vjp)(const X(mlp) *mlp, real *gw, real *gin, const real *gout, real *memory, const real *in,
                     ptrdiff_t rows);
#endif
