/* A symmetric flow, and one field's way through it: symflow.c. The fit is in symfit.c.
 *
 * Layer l does x <- Psi_l(F^-1 T_l(|k|) F x). Its parameters, of theta[layers][3 K + 2 M], are those of Psi (psi.h),
 * then the knots of log T (cspline.h) against |k| / k_max: M positions as pf_increasing() has them, M values. With
 * conditioning variables theta(y) = theta + NET_SCALE S net(standardised y), where S smooths the network's part of log
 * T along its knots. Fields enter standardised by one mean and one scale.
 */
#ifndef PF_SYMFLOW_H
#define PF_SYMFLOW_H
#include "filter.h"
#include "mlp.h"
#include "psi.h"

/* A step of Adam moves all the weights of an output alike: without this factor the first ones change T by a quarter,
 * and training at rates that suit the other parameters diverges. */
#define NET_SCALE 0.1

#define SMOOTH 0.05 /* width of S, in units of the number of knots */

enum {
    SYM_HISTORY = 2 /* per epoch: training and validation log p per pixel */,
    SYM_ROWS = 32 /* fields a net pass serves */
};

#define SYMFLOW_DECLARE(X, real)                                                                                       \
    struct X(symflow) {                                                                                                \
        X(filter) *filter;                                                                                             \
        double *k; /* [shells] |k| / k_max */                                                                          \
        ptrdiff_t pixels, layers, psi_knots, filter_knots, n_theta;                                                    \
        double mean, scale; /* of the training fields */                                                               \
        double *theta;                                                                                                 \
        ptrdiff_t n_y;                                                                                                 \
        double *y_stats; /* [4][n_y] mean, scale, least, most in training */                                           \
        X(mlp) *net;     /* NULL without conditioning */                                                               \
        real *taps;      /* [reach + 1] of S: a Gaussian, from its middle on */                                        \
        ptrdiff_t reach;                                                                                               \
        double noise[2];     /* that was added to the training fields: range of its standard deviation */              \
        real *noise_t;       /* [shells] the filter that makes it of white noise; NULL: white */                       \
        int noise_condition; /* the last condition is the noise's standard deviation, which is known */                \
        double temperature;                                                                                            \
        ptrdiff_t epochs;                                                                                              \
        double *history; /* [epochs][SYM_HISTORY] */                                                                   \
        char *note;                                                                                                    \
        unsigned char *state; /* [n_state] what an unfinished fit goes on from: see symfit.c */                        \
        ptrdiff_t n_state;                                                                                             \
    };                                                                                                                 \
                                                                                                                       \
    /* One thread's memory. `keep`: what the way back needs is kept for every layer. */                                \
    typedef struct {                                                                                                   \
        int keep;                                                                                                      \
        ptrdiff_t padded, shells; /* rounded up, so that every array is aligned */                                     \
        X(psi) *psi;              /* [layers] */                                                                       \
        real *t;                  /* [layers][shells] */                                                               \
        real *x;                  /* the field on its way */                                                           \
        real *u;                  /* [layers or 1][padded] inputs of Psi */                                            \
        real *spectra;            /* [layers or 1][spectrum] inputs of T */                                            \
        real *work;                                                                                                    \
        double *shell;  /* [2][shells] scratch */                                                                      \
        double *knots;  /* [layers + 1][2][filter_knots]: positions, values of log T; scratch */                       \
        double log_det; /* of all filters */                                                                           \
    } X(symwork);                                                                                                      \
                                                                                                                       \
    pf_status X(symflow_new)(X(symflow) * * flow, int ndim, const ptrdiff_t *n, const double *box, ptrdiff_t layers,   \
                             ptrdiff_t psi_knots, ptrdiff_t filter_knots, ptrdiff_t n_y);                              \
    pf_status X(symwork_new)(X(symwork) * * works, const X(symflow) *flow, int keep, int count);                       \
    void X(symwork_free)(X(symwork) *works, int count);                                                                \
    /* Makes the layers of theta[n_theta] ready. */                                                                    \
    void X(sym_prepare)(X(symwork) *w, const X(symflow) *flow, const double *theta);                                   \
    /* w->x, standardised, becomes the latent field; returns log|det|. */                                              \
    double X(sym_forward)(X(symwork) *w, const X(symflow) *flow);                                                      \
    double X(sym_inverse)(X(symwork) *w, const X(symflow) *flow);                                                      \
    /* After sym_forward with keep: the gradient of log p = log N(z) + log|det|. gtheta[n_theta],                      \
     * overwritten, or NULL; w->x, on entry z, becomes d log p / dx when want_x. */                                    \
    void X(sym_backward)(X(symwork) *w, const X(symflow) *flow, double *gtheta, int want_x);                           \
    void X(sym_load)(X(symwork) *w, const X(symflow) *flow, const real *x); /* standardised, to w->x */                \
    double X(sym_log_normal)(const real *z, ptrdiff_t n);                                                              \
    /* log p of a standardised field in w->x, with the standardisation's Jacobian */                                   \
    double X(sym_logp)(X(symwork) *w, const X(symflow) *flow);                                                         \
    /* theta[SYM_ROWS][n_theta] at y[rows][n_y]; memory[sym_net_memory] */                                             \
    ptrdiff_t X(sym_net_memory)(const X(symflow) *flow);                                                               \
    pf_status X(sym_thetas)(const X(symflow) *flow, double *theta, real *memory, const double *y, ptrdiff_t rows);     \
    /* gy[rows][n_y] = gtheta[rows][n_theta] d theta / dy, with memory from sym_thetas, which it destroys; gtheta too. \
     * gw[net->n_w] = the sum over rows of gtheta d theta / dw. Either may be NULL. */                                 \
    pf_status X(sym_thetas_vjp)(const X(symflow) *flow, double *gy, real *gw, const double *gtheta, real *memory,      \
                                ptrdiff_t rows);                                                                       \
    /* log p(y_i|x_i) / prior(y_i), as fine-tuning and calibration estimate it with so many draws: for tests */        \
    pf_status X(sym_log_posterior)(double *log_posterior, X(symflow) *flow, const X(fields) *data, ptrdiff_t draws,    \
                                   uint64_t seed);                                                                     \
    pf_status X(symflow_duplicate)(X(symflow) * * copy, const X(symflow) *flow);
#define PF_32(name) pf32_##name
#define PF_64(name) pf64_##name
SYMFLOW_DECLARE(PF_32, float)
SYMFLOW_DECLARE(PF_64, double)
#undef PF_32
#undef PF_64
#endif
