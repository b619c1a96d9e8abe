/* A model: a stack of layers, and what is known of its fit. */
#ifndef PF_MODEL_H
#define PF_MODEL_H
#include "layer.h"

enum { HISTORY = 3 }; /* per layer: training log p, validation log p, sliced distance */

#define MODEL_DECLARE(X, real)                                                                                         \
    struct X(model) {                                                                                                  \
        ptrdiff_t d, n_layers, room;                                                                                   \
        int classes; /* 0: without labels */                                                                           \
        X(layer) **layers;                                                                                             \
        double (*history)[HISTORY];                                                                                    \
        char *note;                                                                                                    \
    };                                                                                                                 \
    pf_status X(model_new)(X(model) * * model, ptrdiff_t d, int classes);                                              \
    /* Takes over the layer, whatever happens. */                                                                      \
    pf_status X(model_append)(X(model) *model, X(layer) *layer, const double history[HISTORY]);                        \
    void X(model_truncate)(X(model) *model, ptrdiff_t n_layers);                                                       \
    ptrdiff_t X(model_work)(const X(model) *model, ptrdiff_t ld); /* scratch reals that its layers need */             \
    /* tile <- rows x[n][d]: nonzero when a number is not finite */                                                    \
    int X(tile_load)(X(tile) *t, const real *x, ptrdiff_t d);                                                          \
    void X(tile_store)(real * x, const X(tile) *t, ptrdiff_t d);                                                       \
    /* logp[n] = log N(z; 0, I) */                                                                                     \
    void X(tile_logp)(double *logp, const X(tile) *t, ptrdiff_t d);
#define PF_32(name) pf32_##name
#define PF_64(name) pf64_##name
MODEL_DECLARE(PF_32, float)
MODEL_DECLARE(PF_64, double)
#undef PF_32
#undef PF_64
#endif
