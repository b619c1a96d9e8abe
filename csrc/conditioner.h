/* What conditions a flow: a network that carries y to parameters. A flow's layers have theta; those that the network
 * serves have, at the condition y,
 *
 *     theta(y) = theta + NET_SCALE S net((y - mean) / scale)
 *
 * where S is the layers' own smoothing. A row of parameters holds those of all served layers, one after another. */
#ifndef PF_CONDITIONER_H
#define PF_CONDITIONER_H
#include "layer.h"
#include "mlp.h"

/* A step of Adam moves all the weights of an output alike: without this factor the first ones change T by a quarter,
 * and training at rates that suit the other parameters diverges. */
#define NET_SCALE 0.1

/* Conditions further from the mean than this, in standard deviations, count as that far: there is a density still. */
#define NET_REACH 10.0

enum {
    NET_ROWS = 32,          /* conditions that a pass of the network serves, at most */
    MOST_CONDITIONS = 4096, /* n_y, so that a file can be held to it */
};

#define TWICE "conditioner.h"
#include "twice.h"
#elif defined(real)

typedef struct {
    ptrdiff_t n_y;
    double *stats; /* [4][n_y] of y in training: mean, scale, least, most */
    X(mlp) *net;
    ptrdiff_t n_layers, n_row;
    ptrdiff_t *at; /* [n_layers] where a layer's parameters begin in a row, -1 for one that is not served */
} X(conditioner);

/* For the layers that can be conditioned; of none it serves, it is what is known of the conditions that others look at
 * themselves. All weights are zero, all statistics 0 and 1. */
pf_status X(conditioner_new)(X(conditioner) **c, X(layer) *const *layers, ptrdiff_t n_layers, ptrdiff_t n_y,
                             const ptrdiff_t *hidden, int n_hidden);
void X(conditioner_free)(X(conditioner) *c); /* NULL is allowed */
/* One layer more, which is not served. */
pf_status X(conditioner_grow)(X(conditioner) *c);

/* reals of scratch memory of a pass */
ptrdiff_t X(conditioner_memory)(const X(conditioner) *c);
/* theta[rows][n_row] at y[rows][n_y], from the layers' own theta, layer l's at theta_l[at_l[l]]; rows <= NET_ROWS */
pf_status X(conditioner_rows)(const X(conditioner) *c, double *theta, real *memory, const double *base,
                              const ptrdiff_t *base_at, X(layer) *const *layers, const double *y, ptrdiff_t rows);
/* gy[rows][n_y] = gtheta[rows][n_row] dtheta/dy; gw[net->n_w] = the sum over rows of gtheta dtheta/dw; either may be
 * NULL. memory as conditioner_rows left it, and destroyed. */
pf_status X(conditioner_vjp)(const X(conditioner) *c, double *gy, real *gw, const double *gtheta, real *memory,
                             X(layer) *const *layers, ptrdiff_t rows);
#endif
