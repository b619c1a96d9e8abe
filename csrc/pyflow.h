/* pyflow: exact probability densities of data, and samples from them.
 *
 * The one public header. Every numeric function exists twice: pf32_ works on float, pf64_ on double; log-densities and
 * log-determinants are double in both. Functions that can fail return a pf_status; pf_message() then says what was
 * wrong, in words, for the calling thread. Outputs come first, sizes last. Arrays are C-contiguous: x[n][d].
 *
 *     pf64_data train = {.x = x, .n = n};
 *     pf_gis_options options;
 *     pf_gis_defaults(&options);
 *     options.max_layers = 20;
 *     pf64_model *model = NULL;
 *     if (pf64_gis_fit(&model, &train, NULL, d, &options)) puts(pf_message());
 *     pf64_model_logp(model, logp, x, NULL, n);
 *     pf64_model_free(model);
 */
#ifndef PYFLOW_H
#define PYFLOW_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PF_API __attribute__((visibility("default")))
#else
#define PF_API
#endif

/* ---- status ----------------------------------------------------------------------------------------------- */

typedef enum {
    PF_OK = 0,
    PF_BAD_ARGUMENT, /* shape, range, not finite, ... : the message names the argument */
    PF_NO_MEMORY,
    PF_INTERRUPTED, /* the interrupt check or a progress callback asked to stop */
    PF_BAD_FILE,    /* cut short, altered, written by a newer version, or not a model at all */
    PF_IO_ERROR,    /* the operating system refused; the message carries its reason */
    PF_DEGENERATE,  /* the data have no density: constant or linearly dependent columns */
} pf_status;

/* What went wrong in this thread's last failed call ("" if nothing has). The first error's message is kept. */
PF_API const char *pf_message(void);

/* ---- threads and interruption ----------------------------------------------------------------------------- */

/* Threads that later calls may use; n < 1 restores the default (OMP_NUM_THREADS, else the cores this process may use).
 * Results do not depend on it. After fork() a child uses one. */
PF_API void pf_set_num_threads(int n);
PF_API int pf_get_num_threads(void);

/* A check that long calls made by this thread run a few times a second; non-zero stops the call with PF_INTERRUPTED. */
PF_API void pf_set_interrupt(int (*check)(void *user), void *user);

/* ---- GIS: Gaussianizing iterative slicing (Dai & Seljak 2021, arXiv 2007.00674) --------------------------- */

typedef struct {
    ptrdiff_t layer;      /* layers so far */
    ptrdiff_t best;       /* layers in the best model so far */
    double logp_train;    /* mean log p over the training data, nats */
    double logp_validate; /* the same for validation data, NaN without */
    double distance;      /* root-mean-square sliced Wasserstein distance of the layer's slices from N(0,1) */
} pf_progress;

typedef struct {
    ptrdiff_t max_layers;    /* stop at this many sliced layers; 0: when validation data say so, or at 2000 */
    ptrdiff_t patience;      /* stop after this many layers without improvement on validation data */
    double min_improvement;  /* nats by which the best validation log p must rise to count */
    ptrdiff_t n_slices;      /* K, slices per layer; 0: default */
    ptrdiff_t n_knots;       /* M, spline knots per slice; 0: default */
    int kde;                 /* smooth each slice's distribution with a Gaussian kernel */
    double bandwidth_factor; /* times n_eff^(-1/5) sigma */
    double alpha[2];         /* pull towards the identity: inside the knots, and of the end slopes; < 0: default */
    ptrdiff_t edge_knots;    /* knots set aside for each tail; < 0: default */
    ptrdiff_t slice_points;  /* rows that the search for slices looks at; 0: default */
    ptrdiff_t slice_steps;   /* its largest number of steps; < 0: default; 0: random slices */
    int marginal_first;      /* a first layer without rotation: each column on its own (naive Bayes) */
    int whiten;              /* then a whitening layer */
    const double *bounds;    /* [d][2], +-INFINITY where open, or NULL */
    int n_classes;           /* 0, or the number of labels: shared slices, one set of splines per label */
    uint64_t seed;
    const char *scratch; /* folder for a temporary file that holds the working copy, or NULL: in memory */
    int (*progress)(void *user, const pf_progress *p); /* after every layer; non-zero interrupts */
    int (*warn)(void *user, const char *text); /* data that cannot be used as they are; non-zero interrupts; or NULL */
    void *progress_user;                       /* of both */
    const char *checkpoint; /* file to write the unfinished model to, at most every checkpoint_seconds; or NULL */
    double checkpoint_seconds;
    const char *note; /* the model's note from the start, so that checkpoints carry it; or NULL */
} pf_gis_options;

PF_API void pf_gis_defaults(pf_gis_options *options);

/* ---- both precisions -------------------------------------------------------------------------------------- */

#define PF_DECLARE(X, real)                                                                                            \
    typedef struct X(model) X(model); /* a stack of layers, immutable once fitted; safe to use from many threads */    \
                                                                                                                       \
    typedef struct {                                                                                                   \
        const real *x; /* [n][d], or NULL with read: rows first .. first + n - 1 into x[n][d]; non-zero is failure */  \
        int (*read)(void *user, real *x, ptrdiff_t first, ptrdiff_t n);                                                \
        void *user;                                                                                                    \
        ptrdiff_t n;                                                                                                   \
        const double *weight; /* [n], not negative, or NULL */                                                         \
        const int32_t *label; /* [n], 0 .. n_classes - 1, or NULL */                                                   \
    } X(data);                                                                                                         \
                                                                                                                       \
    /* Fits a model, or goes on with *model if that is not NULL. validate may be NULL. On PF_INTERRUPTED *model holds  \
     * what had been reached. Nothing that the caller owns is changed. */                                              \
    PF_API pf_status X(gis_fit)(X(model) * * model, const X(data) *train, const X(data) *validate, ptrdiff_t d,        \
                                const pf_gis_options *options);                                                        \
                                                                                                                       \
    PF_API void X(model_free)(X(model) *model);                                                                        \
    PF_API pf_status X(model_copy)(X(model) * * copy, const X(model) *model, ptrdiff_t n_layers); /* first n_layers */ \
    /* A text that travels with the model, in its file too: JSON, or "". */                                            \
    PF_API pf_status X(model_set_note)(X(model) *model, const char *json);                                             \
    PF_API const char *X(model_note)(const X(model) *model);                                                           \
    PF_API ptrdiff_t X(model_dim)(const X(model) *model);                                                              \
    PF_API ptrdiff_t X(model_layers)(const X(model) *model);                                                           \
    PF_API int X(model_classes)(const X(model) *model); /* 0: without labels */                                        \
    PF_API const char *X(model_layer_name)(const X(model) *model, ptrdiff_t i);                                        \
    PF_API ptrdiff_t X(model_layer_slices)(const X(model) *model, ptrdiff_t i); /* K of a sliced layer, else 0 */      \
    /* per layer: mean log p of training and validation data, sliced distance (NaN where there is none) */             \
    PF_API const double *X(model_history)(const X(model) *model, ptrdiff_t i); /* [3] */                               \
                                                                                                                       \
    /* z[n][d] and logj[n] = log|det dz/dx|; inverse: x[n][d] and logj[n] = log|det dx/dz|. label NULL without         \
     * classes. Outputs may be the inputs; logj may be NULL. */                                                        \
    PF_API pf_status X(model_forward)(const X(model) *model, real *z, double *logj, const real *x,                     \
                                      const int32_t *label, ptrdiff_t n);                                              \
    PF_API pf_status X(model_inverse)(const X(model) *model, real *x, double *logj, const real *z,                     \
                                      const int32_t *label, ptrdiff_t n);                                              \
    /* a point outside the model's bounds has log p = -INFINITY; forward and score refuse it */                        \
    PF_API pf_status X(model_logp)(const X(model) *model, double *logp, const real *x, const int32_t *label,           \
                                   ptrdiff_t n);                                                                       \
    /* score[n][d] = d log p / dx; logp may be NULL */                                                                 \
    PF_API pf_status X(model_score)(const X(model) *model, real *score, double *logp, const real *x,                   \
                                    const int32_t *label, ptrdiff_t n);                                                \
    /* Row i of the sample depends on (seed, first + i) alone. logp may be NULL. */                                    \
    PF_API pf_status X(model_sample)(const X(model) *model, real *x, double *logp, const int32_t *label,               \
                                     uint64_t seed, ptrdiff_t first, ptrdiff_t n);                                     \
                                                                                                                       \
    /* A model as bytes (free with pf_free), and as a file (written aside, then renamed). */                           \
    PF_API pf_status X(model_write)(const X(model) *model, void **bytes, size_t *n);                                   \
    PF_API pf_status X(model_read)(X(model) * * model, const void *bytes, size_t n);                                   \
    PF_API pf_status X(model_save)(const X(model) *model, const char *path);                                           \
    PF_API pf_status X(model_load)(X(model) * * model, const char *path);

#define PF_32(name) pf32_##name
#define PF_64(name) pf64_##name
PF_DECLARE(PF_32, float)
PF_DECLARE(PF_64, double)
#undef PF_DECLARE
#undef PF_32
#undef PF_64

PF_API void pf_free(void *bytes);

/* 32 or 64: the precision of the model in these bytes; 0 if they are not a model's. */
PF_API int pf_model_bits(const void *bytes, size_t n);

/* 1: layers (pf32_model, pf64_model), 2: symmetric flow; 0: neither. */
PF_API int pf_model_kind(const void *bytes, size_t n);

/* ---- symmetric flows: the field-level likelihood p(x|y) (Dai & Seljak 2022, arXiv 2202.05282)
 * --------------------------
 *
 * x[n][n0][n1] or x[n][n0][n1][n2] are periodic real fields of one mesh; y[n][n_y] what they are conditioned on, or
 * NULL. */

typedef struct {
    ptrdiff_t epoch, best; /* epochs so far, counted over all stages; the best one so far */
    double logp_train;     /* mean log p(x|y) per pixel over the training fields, nats, as they went by */
    double logp_validate;  /* the same over validation fields, NaN without */
    double objective;      /* what the best is best by: logp_validate (logp_train without), or, when fine-tuning, the
                            * mean log p(y|x) / prior(y) of the same fields, nats per field */
    double seconds;
} pf_symflow_progress;

typedef struct {
    ptrdiff_t n_layers;
    ptrdiff_t psi_knots;    /* knots of Psi in a layer, 2 to 63 */
    ptrdiff_t filter_knots; /* knots of log T(|k|) in a layer */
    ptrdiff_t hidden[7];    /* units in the hidden layers of the network; 0 ends the list */
    ptrdiff_t start_fields; /* fields that the start in closed form looks at */
    ptrdiff_t epochs;       /* passes through the training fields; 0: the start alone */
    ptrdiff_t batch;        /* fields in a mini-batch */
    ptrdiff_t patience;     /* stop after this many epochs without improvement on validation fields; 0: never */
    double learning_rate;   /* Adam's, at the start: falls to zero along half a cosine */
    double warmup;          /* fraction of all steps in which it rises */
    double weight_decay;    /* of the network's weights */
    double clip;            /* longest gradient, in units of its running mean length; 0: any */
    double noise[2]; /* standard deviation of white noise added to the training fields, afresh every epoch: uniform
                      * in this range */
    const double *noise_k, *noise_power; /* [noise_knots] noise with this power spectrum, times noise^2, in place of */
    ptrdiff_t noise_knots;               /* white noise: log P is linear between ascending k > 0, constant beyond */
    int noise_condition;     /* the noise's standard deviation is one more conditioning variable, the last */
    double posterior_weight; /* fine-tune on (1 - w) log p(x|y) + w log p(y|x); 0: no such stage */
    ptrdiff_t posterior_epochs;
    double posterior_rate;     /* its learning rate */
    ptrdiff_t posterior_draws; /* conditions y' that stand for the prior in log p(y|x), for every field and step; 0:
                                * 127 for up to two parameters, then three times as many for each, up to six */
    uint64_t seed;
    const char *checkpoint; /* file that the unfinished fit is written to, at most every checkpoint_seconds, and when it
                             * is interrupted; if it is there, the fit goes on from it. It must be of the same fit:
                             * that is the caller's to see to. NULL: none */
    double checkpoint_seconds;
    int (*progress)(void *user, const pf_symflow_progress *p); /* after every epoch; non-zero interrupts */
    void *progress_user;
    const char *note;
} pf_symflow_options;

PF_API void pf_symflow_defaults(pf_symflow_options *options);

/* How FFTW plans are made for meshes that this process meets for the first time from now on. Estimated (0, at first):
 * the same ones every time, so that the same seed gives the same bits, whatever wisdom there is. Measured (1): some
 * meshes are transformed faster, and results differ by rounding; wisdom says what was measured before, so that planning
 * takes no time and ends with the same plans. */
PF_API void pf_fft_measure(int on);
PF_API pf_status pf_fft_wisdom_save(const char *path); /* all that this process has */
PF_API pf_status pf_fft_wisdom_load(const char *path); /* adds to it */

#define PF_DECLARE(X, real)                                                                                            \
    typedef struct X(symflow) X(symflow); /* immutable once fitted; safe to use from many threads */                   \
                                                                                                                       \
    typedef struct {                                                                                                   \
        const real *x;   /* [n][mesh] */                                                                               \
        const double *y; /* [n][n_y] or NULL */                                                                        \
        ptrdiff_t n;                                                                                                   \
    } X(fields);                                                                                                       \
                                                                                                                       \
    /* Fits a flow. box[ndim] in the caller's units; validate may be NULL. On PF_INTERRUPTED, and when training met a  \
     * NaN, *flow holds the best that had been reached. */                                                             \
    PF_API pf_status X(symflow_fit)(X(symflow) * * flow, const X(fields) *train, const X(fields) *validate, int ndim,  \
                                    const ptrdiff_t *mesh, const double *box, ptrdiff_t n_y,                           \
                                    const pf_symflow_options *options);                                                \
    PF_API void X(symflow_free)(X(symflow) *flow);                                                                     \
    PF_API pf_status X(symflow_copy)(X(symflow) * * copy, const X(symflow) *flow);                                     \
    PF_API int X(symflow_ndim)(const X(symflow) *flow);                                                                \
    PF_API const ptrdiff_t *X(symflow_mesh)(const X(symflow) *flow); /* [ndim] */                                      \
    PF_API const double *X(symflow_box)(const X(symflow) *flow);     /* [ndim] */                                      \
    PF_API ptrdiff_t X(symflow_conditions)(const X(symflow) *flow);  /* n_y */                                         \
    PF_API const double *X(symflow_range)(const X(symflow) *flow);   /* [2][n_y]: least and most in training */        \
    PF_API ptrdiff_t X(symflow_layers)(const X(symflow) *flow);                                                        \
    PF_API ptrdiff_t X(symflow_parameters)(const X(symflow) *flow); /* how many are trained */                         \
    PF_API int X(symflow_noise_condition)(const X(symflow) *flow);                                                     \
    PF_API int X(symflow_unfinished)(const X(symflow) *flow); /* from the checkpoint of a fit that goes on */          \
    PF_API const double *X(symflow_history)(const X(symflow) *flow,                                                    \
                                            ptrdiff_t *epochs); /* [epochs][2] log p per pixel */                      \
    PF_API pf_status X(symflow_set_note)(X(symflow) *flow, const char *json);                                          \
    PF_API const char *X(symflow_note)(const X(symflow) *flow);                                                        \
                                                                                                                       \
    /* z and logj[n] = log|det dz/dx|; inverse: x and log|det dx/dz|. logj may be NULL, outputs may be the inputs. */  \
    PF_API pf_status X(symflow_forward)(const X(symflow) *flow, real *z, double *logj, const real *x, const double *y, \
                                        ptrdiff_t n);                                                                  \
    PF_API pf_status X(symflow_inverse)(const X(symflow) *flow, real *x, double *logj, const real *z, const double *y, \
                                        ptrdiff_t n);                                                                  \
    PF_API pf_status X(symflow_logp)(const X(symflow) *flow, double *logp, const real *x, const double *y,             \
                                     ptrdiff_t n);                                                                     \
    /* logp[n][m]: every one of n fields at every one of m conditions */                                               \
    PF_API pf_status X(symflow_logp_at)(const X(symflow) *flow, double *logp, const real *x, const double *y,          \
                                        ptrdiff_t n, ptrdiff_t m);                                                     \
    /* score[n][mesh] = d log p / dx; score[n][n_y] = d log p / dy; logp may be NULL */                                \
    PF_API pf_status X(symflow_score)(const X(symflow) *flow, real *score, double *logp, const real *x,                \
                                      const double *y, ptrdiff_t n);                                                   \
    PF_API pf_status X(symflow_score_parameters)(const X(symflow) *flow, double *score, double *logp, const real *x,   \
                                                 const double *y, ptrdiff_t n);                                        \
    /* Row i of the sample depends on (seed, first + i) and y alone. logp may be NULL. */                              \
    PF_API pf_status X(symflow_sample)(const X(symflow) *flow, real *x, double *logp, const double *y, uint64_t seed,  \
                                       ptrdiff_t first, ptrdiff_t n);                                                  \
                                                                                                                       \
    /* Fits the temperature b, 1e-4 to 100, for which p(y|x) ~ p(x|y)^b prior(y) is best on held-out fields: the       \
     * largest mean log p(y_i|x_i), the prior uniform on the box that the training conditions span. Noise is added to  \
     * the fields as in training, and is no column of y. b is kept with the flow, for whoever computes posteriors;     \
     * log p(x|y) itself stays. gain[2], or NULL: mean log p(y|x) / prior(y), nats, with b = 1 and with the best b. */ \
    PF_API pf_status X(symflow_calibrate)(X(symflow) *flow, double *gain, const X(fields) *held_out, uint64_t seed);   \
    PF_API double X(symflow_temperature)(const X(symflow) *flow); /* b, 1 at first */                                  \
                                                                                                                       \
    PF_API pf_status X(symflow_write)(const X(symflow) *flow, void **bytes, size_t *n);                                \
    PF_API pf_status X(symflow_read)(X(symflow) * * flow, const void *bytes, size_t n);                                \
    PF_API pf_status X(symflow_save)(const X(symflow) *flow, const char *path);                                        \
    PF_API pf_status X(symflow_load)(X(symflow) * * flow, const char *path);

#define PF_32(name) pf32_##name
#define PF_64(name) pf64_##name
PF_DECLARE(PF_32, float)
PF_DECLARE(PF_64, double)
#undef PF_DECLARE
#undef PF_32
#undef PF_64

#ifdef __cplusplus
}
#endif
#endif
