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
 *     pf64_flow *flow = NULL;
 *     if (pf64_gis_fit(&flow, &train, NULL, d, &options)) puts(pf_message());
 *     pf64_flow_logp(flow, logp, x, NULL, NULL, n);
 *     pf64_flow_free(flow);
 *
 * A flow is a stack of invertible layers that carry data x to latent points z, which follow N(0, I): log p(x) = log N(z)
 * + log|det dz/dx|. The greedy fit of GIS, the fit of symmetric flows and the trainer all give, or change, a flow. */
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
    PF_BAD_FILE,    /* cut short, altered, written by a newer version, or not a flow at all */
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
/* The same for calls of the calling thread alone; n < 1: what all have. Several fits side by side share the cores so. */
PF_API void pf_set_own_threads(int n);

/* A check that long calls made by this thread run a few times a second; non-zero stops the call with PF_INTERRUPTED. */
PF_API void pf_set_interrupt(int (*check)(void *user), void *user);

/* How FFTW plans are made for meshes that this process meets for the first time from now on. Estimated (0, at first):
 * the same ones every time, so that the same seed gives the same bits, whatever wisdom there is. Measured (1): some
 * meshes are transformed faster, and results differ by rounding; wisdom says what was measured before, so that planning
 * takes no time and ends with the same plans. */
PF_API void pf_fft_measure(int on);
PF_API pf_status pf_fft_wisdom_save(const char *path); /* all that this process has */
PF_API pf_status pf_fft_wisdom_load(const char *path); /* adds to it */

PF_API void pf_free(void *bytes);
/* Writes a file as flow_save does: aside, then renamed. */
PF_API pf_status pf_save_bytes(const char *path, const void *bytes, size_t n);
/* 32 or 64: the precision of the flow in these bytes; 0 if they are not a flow's. */
PF_API int pf_flow_bits(const void *bytes, size_t n);

/* ---- fits: progress and options --------------------------------------------------------------------------- */

typedef struct {
    const char *stage;    /* what a step is: "layer", or "epoch" */
    ptrdiff_t step, best; /* layers, or epochs over all stages, so far; the best one so far */
    double logp_train;    /* mean log p of the training data, nats: of a point, on a mesh of a pixel */
    double logp_validate; /* the same of validation data, NaN without */
    double distance;  /* layers: root-mean-square sliced Wasserstein distance of its slices from N(0, 1), else NaN */
    double objective; /* what the best is best by: logp_validate (logp_train without), or, when fine-tuning, the
                       * mean log p(y|x) / prior(y) of the same points, nats */
    double seconds;   /* since the fit began */
} pf_progress;

/* What every fit is told beside its own options. */
typedef struct {
    int (*progress)(void *user, const pf_progress *p); /* after every step; non-zero interrupts */
    /* of what does not end a fit: PF_BAD_ARGUMENT for data that cannot be used as they are, PF_IO_ERROR or PF_NO_MEMORY
     * for a checkpoint that was not written */
    void (*warn)(void *user, pf_status status, const char *message);
    void *user;
    const char *checkpoint; /* file that the unfinished fit is written to, at most every checkpoint_seconds and when it
                             * ends early, or NULL. Going on from it is the caller's to see to: GIS from the flow in it,
                             * training from the file itself, if it is there. It must be of the same fit. */
    const char *note;       /* the flow's note from the start, so that checkpoints carry it; or NULL */
} pf_watch;

/* The options of a fit, listed: names, where they lie, limits and defaults. A list ends with a NULL name. */
typedef enum { PF_SIZE, PF_FLAG, PF_REAL, PF_PAIR, PF_SIZES, PF_SEED } pf_option_kind;

typedef struct {
    const char *name;
    pf_option_kind kind; /* ptrdiff_t, int, double, double[2], ptrdiff_t[PF_HIDDEN_MOST + 1] ended by 0, uint64_t */
    size_t offset;
    double least, most, fallback[2];
    int depends; /* the default, which is outside the limits, stands for one that depends on the data */
} pf_option;

enum { PF_HIDDEN_MOST = 6 };

/* Ranks of a cluster that fit together. Greedy fits are given each rank's own part of the rows, from
 * pf_ranks_first_row() on; sums over rows are made per group of tiles, and every rank is given those of all groups.
 * Trainers are given all rows on every rank, and share the tiles of a batch. So the flow is that of all rows on one
 * machine, bit for bit, if the ranks' processors and libraries are alike. Of ranks that train, the first alone writes
 * the checkpoint, and all read it. */
typedef struct {
    /* int64_t x[n] becomes its sum over ranks, the same on each; not 0: the fit ends, PF_INTERRUPTED. Whole numbers are
     * added exactly; of others, their bits, all ranks but one give zeros. */
    int (*sum)(void *user, void *x, ptrdiff_t n);
    void *user;
    int rank, size;
    ptrdiff_t rows[2]; /* of the training and of the validation data, of all ranks together */
} pf_ranks;

/* GIS: Gaussianizing iterative slicing (Dai & Seljak 2021, arXiv 2007.00674) */
typedef struct {
    ptrdiff_t max_layers;    /* stop at this many sliced layers; 0: when validation data say so, or at 4000 */
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
    int marginal_first; /* a first layer without rotation: each column on its own (naive Bayes); -1: or, if validation
                         * rows prefer it, whitening before that: tables of up to 50000 rows are then read
                         * three times, and `watch` hears of the last alone */
    int whiten;         /* then a whitening layer */
    uint64_t seed;
    double checkpoint_seconds;
    const double *bounds; /* [d][2], +-INFINITY where open, or NULL */
    ptrdiff_t image[3];   /* height, width, channels: layers are of patches of 4 x 4 and 2 x 2 pixels; 0: a table */
    int n_classes;        /* 0, or the number of labels: shared slices, one set of splines per label */
    const char *scratch;  /* folder for a temporary file that holds the working copy, or NULL: in memory */
    pf_watch watch;
    const pf_ranks *ranks; /* NULL: all rows are here */
} pf_gis_options;

/* Layers of SIG of one kind: patches of an image and their slices. */
typedef struct {
    ptrdiff_t layers;
    ptrdiff_t kernel[3]; /* height, width and channels of a patch: all channels or 1; 0: the whole point */
    ptrdiff_t slices;    /* K of each patch */
} pf_sig_stage;

/* SIG: sliced iterative generator (Dai & Seljak 2021) */
typedef struct {
    ptrdiff_t image[3]; /* height, width, channels of an image, the numbers of a row in this order; 0: a table */
    const pf_sig_stage *stages; /* [n_stages] what layers there are, the first ones first; or NULL: */
    ptrdiff_t n_stages;         /* for images pf_sig_schedule(), for tables 100 layers */
    ptrdiff_t max_layers;       /* the schedule is cut after so many; 0: it is not */
    ptrdiff_t n_slices;         /* K, of a table's layers by default; 0: default */
    ptrdiff_t n_knots;          /* M, spline knots per slice; 0: default */
    ptrdiff_t edge_knots;       /* knots set aside for each tail */
    double alpha[2];            /* pull towards the identity: inside the knots, and of the end slopes */
    ptrdiff_t sample;           /* rows of the sample that is moved to the data; 0: six for each row of them */
    ptrdiff_t slice_points;     /* rows, of data and of sample, that the search for slices looks at */
    ptrdiff_t slice_steps;      /* its largest number of steps; 0: random slices */
    uint64_t seed;
    double checkpoint_seconds;
    const double *bounds; /* of a table's columns, as GIS has them */
    int n_classes;
    const char *scratch; /* folder for temporary files that hold data and sample, or NULL: in memory */
    const pf_ranks *ranks;
    /* Called after every show_every layers, before the first and after the last, with the first show_rows rows of the
     * sample, x[n][d] of float or double by the fit's precision, in the units of the data; non-zero interrupts. NULL:
     * nobody is. */
    int (*show)(void *user, ptrdiff_t layers, const void *x, int bits, ptrdiff_t n);
    ptrdiff_t show_every, show_rows;
    pf_watch watch; /* progress has no log p */
} pf_sig_options;

/* The published schedule for images of this size into stages[64]; returns how many there are. */
PF_API ptrdiff_t pf_sig_schedule(pf_sig_stage *stages, const ptrdiff_t *image);

/* The trainer: maximum likelihood by Adam, for any stack of layers; then, if asked for, log p(y|x) */
typedef struct {
    ptrdiff_t hidden[PF_HIDDEN_MOST + 1]; /* units in the hidden layers of a new conditioning network; 0 ends the list */
    ptrdiff_t epochs;                     /* passes through the training data */
    ptrdiff_t batch;                      /* points in a mini-batch; 0: 16 fields, or 4096 rows of a table */
    ptrdiff_t patience;   /* stop after this many epochs without improvement on validation data; 0: never */
    double learning_rate; /* Adam's, at its highest: rises, then falls to zero along half a cosine */
    double warmup;        /* fraction of all steps in which it rises */
    double weight_decay;  /* of the network's weights; -1: as 1 / n, see fit.c */
    double clip;          /* longest gradient, in units of its running mean length; 0: any */
    double noise[2];      /* standard deviation of white noise added to the training data, afresh every epoch: uniform
                           * in this range */
    int noise_condition;  /* the noise's standard deviation is one more conditioning variable, the last */
    double posterior_weight; /* fine-tune on (1 - w) log p(x|y) + w log p(y|x); 0: no such stage */
    ptrdiff_t posterior_epochs;
    double posterior_rate;     /* its learning rate */
    ptrdiff_t posterior_draws; /* conditions y' that stand for the prior in log p(y|x), for every point and step; 0: 127
                                * for up to two parameters, then three times as many for each, up to six. More where the
                                * evidence is not known by then */
    uint64_t seed;
    double checkpoint_seconds;
    const double *noise_k, *noise_power; /* [noise_knots] on a mesh: noise of this power spectrum, times noise^2, in */
    ptrdiff_t noise_knots;               /* place of white noise: log P linear between ascending k > 0, then constant */
    const double *noise_map;             /* [d] on a mesh: what the noise is multiplied with in every pixel; or NULL */
    const int *frozen;                   /* [layers] whose parameters stay as they are, or NULL */
    const pf_ranks *ranks;
    pf_watch watch;
} pf_train_options;

/* How pixels are drawn that are not observed, or with more noise than the flow's fields have: u_i = sum_j w_ij v_j +
 * sigma_i N(0, 1), v the fields less their mean over their scale, w and log sigma polynomials of second degree in
 * (y - centre) / reach. */
typedef struct {
    ptrdiff_t n, near, n_y;       /* pixels drawn, less than all; what each is drawn from; conditions */
    double mean, scale;           /* scale > 0 */
    const int32_t *pixel;         /* [n] in the order in which they are drawn */
    const int32_t *neighbour;     /* [n][near] pixels that are observed, itself too, or drawn before */
    const double *centre, *reach; /* [n_y] reach > 0 */
    const double *spread;         /* [n] standard deviation, over scale, of the noise; 0: not observed; NULL: 0 */
    const double *weight;         /* [(n_y + 1) (n_y + 2) / 2][n][near + 1]: w, then log sigma; or NULL: 0 */
} pf_fill;

/* Modes k_min <= |k| <= k_max are what a flow is of, |k| in units of 2 pi over those of the box; others are drawn from
 * a Gaussian, level[(n_y + 1) (n_y + 2) / 2][2] being the logarithm of their standard deviation below and above the
 * range, |F x| / sqrt(d), as a polynomial of second degree in (y - centre) / reach. */
typedef struct {
    double k_min, k_max;
    ptrdiff_t n_y;
    const double *centre, *reach; /* [n_y] reach > 0 */
    const double *level;
} pf_band;

/* Symmetric flows: the field-level likelihood p(x|y) of periodic fields (Dai & Seljak 2022, arXiv 2202.05282) */
typedef struct {
    ptrdiff_t n_layers;
    ptrdiff_t psi_knots;     /* knots of Psi in a layer, 2 to 63 */
    ptrdiff_t filter_knots;  /* knots of log T(|k|) in a layer */
    ptrdiff_t axis;          /* the line of sight, T(|k|, |mu|) with mu = k_axis / |k|; -1: isotropic */
    ptrdiff_t mu_knots;      /* with an axis: knots of log T along mu^2, 2 to 4 */
    ptrdiff_t start_fields;  /* fields that the start in closed form looks at */
    ptrdiff_t context_knots; /* with data->context: knots of g(c) in a layer, 2 to 64 */
    /* a window: fields are only known where observed[d] is not 0; NULL: everywhere */
    const unsigned char *observed;
    const pf_fill *fill; /* of the other pixels; NULL: white noise */
    const pf_band *band; /* the modes that the flow is of; NULL: all. Without a window */
    ptrdiff_t couplings; /* layers on the symmetric ones in which large scales and small ones move each other */
    ptrdiff_t coupling_channels, coupling_knots;
    ptrdiff_t patch_layers; /* layers of patches on the symmetric ones, which need not be the same everywhere */
    ptrdiff_t patch_size;   /* pixels along the side of a patch */
    ptrdiff_t patch_slices; /* K of each patch; 0: all its pixels */
    ptrdiff_t patch_knots;
    pf_train_options train;
} pf_symmetric_options;

/* An autoregressive layer, every column by a spline of its own that a network makes of the columns whose rank is lower,
 * and of conditions. It starts as x_j <- (x_j - linear_j (y, x)) exp(-log_scale_j), y standardised. */
typedef struct {
    ptrdiff_t n_y, bins;     /* conditions; of a spline */
    const ptrdiff_t *hidden; /* [n_hidden] units of the network's hidden layers */
    int n_hidden;
    const int32_t *rank;     /* [d] from 0 on */
    const double *stats;     /* [4][n_y] of the conditions: mean, scale, least, most */
    const double *linear;    /* [d][n_y + d]; NULL: zeros */
    const double *log_scale; /* [d]; NULL: zeros */
    uint64_t seed;
} pf_network;

/* The first row of a rank's part of the rows of a greedy fit by pf_ranks; where the rank is `size`, the number of all
 * rows. d: columns of a table for GIS; 0 for images, and for SIG. */
PF_API ptrdiff_t pf_ranks_first_row(ptrdiff_t rows, ptrdiff_t d, int bits, int rank, int size);
PF_API void pf_gis_defaults(pf_gis_options *options);
PF_API void pf_sig_defaults(pf_sig_options *options);
PF_API void pf_train_defaults(pf_train_options *options);
PF_API void pf_symmetric_defaults(pf_symmetric_options *options);
/* What a flow can be asked of points: see the functions of these names */
typedef enum { PF_FORWARD, PF_INVERSE, PF_LOGP, PF_LOGP_AT, PF_SCORE, PF_SCORE_PARAMETERS, PF_SAMPLE } pf_question;

PF_API extern const pf_option pf_gis_list[], pf_sig_list[], pf_train_list[], pf_symmetric_list[];

/* ---- both precisions: what follows is read twice ------------------------------------------------------------ */

#define PF(name) pf32_##name
#define pf_real float
#include "pyflow.h"
#undef PF
#undef pf_real
#define PF(name) pf64_##name
#define pf_real double
#include "pyflow.h"
#undef PF
#undef pf_real

#ifdef __cplusplus
}
#endif

#elif defined(PF)

typedef struct PF(flow) PF(flow); /* does not change once fitted; safe to use from many threads */

typedef struct {
    const pf_real *x; /* [n][d], or NULL with read: rows first .. first + n - 1 into x[n][d]; non-zero is failure */
    int (*read)(void *user, pf_real *x, ptrdiff_t first, ptrdiff_t n); /* GIS alone */
    void *user;
    ptrdiff_t n;
    const double *weight; /* [n], not negative, or NULL */
    const int32_t *label; /* [n], 0 .. n_classes - 1, or NULL */
    const double *y;      /* [n][n_y], what p(x|y) is conditioned on, or NULL */
    ptrdiff_t n_y;
    const pf_real *context; /* [n][d], a second field of each point, what p(x|c) is conditioned on, or NULL */
} PF(data);

/* ---- fits. validate may be NULL. Nothing that the caller owns is changed. When a fit ends early - interrupted, out of
 * memory, a checkpoint that could not be written, a NaN - *flow holds what had been reached, NULL if that is nothing. */

/* GIS of rows of d columns, from the beginning or on from *flow, if that is not NULL. */
PF_API pf_status PF(gis_fit)(PF(flow) * *flow, const PF(data) * train, const PF(data) * validate, ptrdiff_t d,
                             const pf_gis_options *options);
/* SIG of rows of d columns, from the beginning or on from *flow, whose first layers may be any; weights of the rows are
 * allowed. */
PF_API pf_status PF(sig_fit)(PF(flow) * *flow, const PF(data) * train, ptrdiff_t d, const pf_sig_options *options);
/* A symmetric flow of fields on a mesh of 2 or 3 dimensions; box[ndim] in the caller's units. */
PF_API pf_status PF(symmetric_fit)(PF(flow) * *flow, const PF(data) * train, const PF(data) * validate, int ndim,
                                   const ptrdiff_t *mesh, const double *box, const pf_symmetric_options *options);
/* All layers of a flow together, by maximum likelihood from where they are. With data->y and a flow without conditions,
 * a network is added to the layers that can be conditioned. A failure before the first step leaves the flow as it was. */
PF_API pf_status PF(flow_train)(PF(flow) * flow, const PF(data) * train, const PF(data) * validate,
                                const pf_train_options *options);

/* ---- flows by hand: an empty one, and layers appended to it, the identity until they are trained */

/* n[ndim]: {d} for tables, or a mesh of 2 or 3 axes with lengths box[ndim] */
PF_API pf_status PF(flow_new)(PF(flow) * *flow, int ndim, const ptrdiff_t *n, const double *box, int n_classes);
/* x <- (x - mean) / scale where observed[d] is not 0; other pixels are filled with white noise of unit variance, whose
 * density is divided out: the flow is that of the observed pixels. The first layer of a flow. */
PF_API pf_status PF(flow_add_fill)(PF(flow) * flow, const unsigned char *observed, double mean, double scale);
PF_API pf_status PF(flow_add_scale)(PF(flow) * flow, double mean, double scale); /* x <- (x - mean) / scale */
/* x <- W (x - mean): w[d][d] and mean[d], NULL for the identity and 0 */
PF_API pf_status PF(flow_add_affine)(PF(flow) * flow, const double *w, const double *mean);
/* each column within bounds[d][2] to the whole line; the first layer of a flow */
PF_API pf_status PF(flow_add_bounds)(PF(flow) * flow, const double *bounds);
/* K random slices with splines of M knots; K = 0: every column on its own */
PF_API pf_status PF(flow_add_sliced)(PF(flow) * flow, ptrdiff_t n_slices, ptrdiff_t n_knots, uint64_t seed);
/* An image of d = height width channels numbers, image[3], rolled by shift[2] and cut into patches of kernel[3]: each
 * has K random slices of its own. kernel[2] is the number of channels, or 1. What the kernel leaves over stays. */
PF_API pf_status PF(flow_add_patch)(PF(flow) * flow, const ptrdiff_t *image, const ptrdiff_t *kernel,
                                    const ptrdiff_t *shift, ptrdiff_t n_slices, ptrdiff_t n_knots, uint64_t seed);
PF_API pf_status PF(flow_add_symmetric)(PF(flow) * flow, ptrdiff_t psi_knots, ptrdiff_t filter_knots);
/* the same with T(|k|, |mu|), mu = k_axis / |k|, and 2 to 4 knots of it; axis -1: as above, whatever mu_knots is */
PF_API pf_status PF(flow_add_axial)(PF(flow) * flow, ptrdiff_t axis, ptrdiff_t psi_knots, ptrdiff_t filter_knots,
                                    ptrdiff_t mu_knots);

/* x <- x + F^-1 S(|k|) F g(c), for fields: c is a second field of each point, g a spline with so many knots, within
 * three scales of the mean of c, 2 to 64; S one along k. Zero until it is trained. */
PF_API pf_status PF(flow_add_shift)(PF(flow) * flow, double mean, double scale, ptrdiff_t knots,
                                    ptrdiff_t filter_knots);

/* x <- x + sum over channels of F^-1 C F phi(F^-1 A F x), phi(u) = sqrt(1 + u^2) - 1, for fields: C is 0 but for the
 * large scales, |k| <= split k_max, or, large = 0, the small ones, and A but for the others; splines with so many
 * knots. The identity until it is trained. */
PF_API pf_status PF(flow_add_coupling)(PF(flow) * flow, double split, int large, ptrdiff_t channels, ptrdiff_t knots);

/* The identity, or a regression, until it is trained; the flow then has the layer's conditions. */
PF_API pf_status PF(flow_add_autoregressive)(PF(flow) * flow, const pf_network *network);

/* ---- what is known of a flow */

PF_API void PF(flow_free)(PF(flow) * flow);                                                  /* NULL is allowed */
PF_API pf_status PF(flow_copy)(PF(flow) * *copy, const PF(flow) * flow, ptrdiff_t n_layers); /* its first n_layers */
PF_API int PF(flow_ndim)(const PF(flow) * flow);
PF_API const ptrdiff_t *PF(flow_shape)(const PF(flow) * flow);    /* [ndim] of one point */
PF_API const double *PF(flow_box)(const PF(flow) * flow);         /* [ndim] */
PF_API ptrdiff_t PF(flow_dim)(const PF(flow) * flow);             /* numbers of one point */
PF_API const unsigned char *PF(flow_mask)(const PF(flow) * flow); /* [d], 0 in unobserved pixels; NULL: without mask */
PF_API const double *PF(flow_band)(const PF(flow) * flow);        /* k_min, k_max; NULL: it is of all modes */
PF_API int PF(flow_classes)(const PF(flow) * flow);               /* 0: without labels */
PF_API ptrdiff_t PF(flow_conditions)(const PF(flow) * flow);      /* n_y */
PF_API int PF(flow_context)(const PF(flow) * flow);               /* whether it needs a second field of each point */
PF_API const double *PF(flow_range)(const PF(flow) * flow);       /* [2][n_y]: least and most in training */
PF_API ptrdiff_t PF(flow_layers)(const PF(flow) * flow);
PF_API const char *PF(flow_layer_kind)(const PF(flow) * flow, ptrdiff_t i);
PF_API ptrdiff_t PF(flow_layer_slices)(const PF(flow) * flow,
                                       ptrdiff_t i); /* K of a sliced layer, of all patches together; else 0 */
PF_API ptrdiff_t PF(flow_layer_parameters)(const PF(flow) * flow, ptrdiff_t i);
/* the parameters of a layer, unconstrained: see csrc/layers.h */
PF_API const double *PF(flow_layer_theta)(const PF(flow) * flow, ptrdiff_t i);
PF_API ptrdiff_t PF(flow_parameters)(const PF(flow) * flow); /* of all layers and the network */
PF_API int PF(flow_noise_condition)(const PF(flow) * flow);  /* whether the last condition is the noise's */
PF_API int PF(flow_unfinished)(const PF(flow) * flow);       /* from the checkpoint of training that goes on */
/* [steps][4]: 0 for a layer or the number of an epoch; log p of training and validation data; sliced distance */
PF_API const double *PF(flow_history)(const PF(flow) * flow, ptrdiff_t *steps);
/* A text that travels with the flow, in its file too: JSON, or "". */
PF_API pf_status PF(flow_set_note)(PF(flow) * flow, const char *json);
PF_API const char *PF(flow_note)(const PF(flow) * flow);

/* ---- densities and samples. y[n][n_y] for a flow with conditions, label[n] for one with classes, else NULL. Outputs
 * may be the inputs. */

/* z and logj[n] = log|det dz/dx|; inverse: x and log|det dx/dz|. logj may be NULL. */
PF_API pf_status PF(flow_forward)(const PF(flow) * flow, pf_real *z, double *logj, const pf_real *x, const double *y,
                                  const int32_t *label, ptrdiff_t n);
PF_API pf_status PF(flow_inverse)(const PF(flow) * flow, pf_real *x, double *logj, const pf_real *z, const double *y,
                                  const int32_t *label, ptrdiff_t n);
/* a point outside the flow's bounds has log p = -INFINITY; forward and score refuse it */
PF_API pf_status PF(flow_logp)(const PF(flow) * flow, double *logp, const pf_real *x, const double *y,
                               const int32_t *label, ptrdiff_t n);
/* logp[n][m]: every one of n points at every one of m conditions y[m][n_y] */
PF_API pf_status PF(flow_logp_at)(const PF(flow) * flow, double *logp, const pf_real *x, const double *y, ptrdiff_t n,
                                  ptrdiff_t m);
/* score[n][d] = d log p / dx; score[n][n_y] = d log p / dy; logp may be NULL */
PF_API pf_status PF(flow_score)(const PF(flow) * flow, pf_real *score, double *logp, const pf_real *x, const double *y,
                                const int32_t *label, ptrdiff_t n);
PF_API pf_status PF(flow_score_parameters)(const PF(flow) * flow, double *score, double *logp, const pf_real *x,
                                           const double *y, ptrdiff_t n);
/* Row i of the sample depends on (seed, first + i), y and label alone. logp may be NULL. */
PF_API pf_status PF(flow_sample)(const PF(flow) * flow, pf_real *x, double *logp, const double *y, const int32_t *label,
                                 uint64_t seed, ptrdiff_t first, ptrdiff_t n);

/* Any of these with all that a flow may be given, a second field of each point too: context[n][d] for a flow that was
 * fitted with one, else NULL. out: z, x or score; in: x or z; log: logj or logp. With a mask, unobserved pixels are
 * drawn, with the seed, the same for all points (each has its own in PF_LOGP_AT), and log p is the log of the mean of p
 * over so many draws. The others take the first draw of seed 0. */
typedef struct {
    pf_question question;
    pf_real *out;
    double *log, *score_parameters;
    const pf_real *in, *context;
    const double *y;
    const int32_t *label;
    ptrdiff_t n, m;
    uint64_t seed;
    ptrdiff_t first, draws; /* draws 0: 1 */
} PF(request);
PF_API pf_status PF(flow_answer)(const PF(flow) * flow, const PF(request) * request);

/* Fits the temperature b, 1e-4 to 100, for which p(y|x) ~ p(x|y)^b prior(y) is best on held-out points: the largest
 * mean log p(y_i|x_i), the prior uniform on the box that the training conditions span. Noise is added to the points as
 * in training, and is no column of y. b is kept with the flow, for whoever computes posteriors; log p(x|y) itself
 * stays. gain[2], or NULL: mean log p(y|x) / prior(y), nats, with b = 1 and with the best b. */
PF_API pf_status PF(flow_calibrate)(PF(flow) * flow, double *gain, const PF(data) * held_out, uint64_t seed);
/* The same for points of simulations, by number, 0 .. below n, each one's there; NULL: every point is its own. log b,
 * whose standard error e over whole simulations is found, is multiplied by w^2 / (w^2 + e^2), w^2 = max(width^2, log^2
 * b - e^2): it stays near 0 where few determine it. found[4]: mean log p(y|x) / prior(y) with b = 1 and with the b
 * kept, the best b, and e. */
PF_API pf_status PF(flow_calibrate_simulations)(PF(flow) * flow, double *found, const PF(data) * held_out,
                                                const int32_t *simulation, double width, uint64_t seed);
/* The same for the mixture, sum_k weight[k] p_k, of this flow, k = 0, and n others, which are conditioned on the same.
 * The first member keeps the temperature, which is the mixture's, and its range of conditions becomes that of all. */
typedef struct {
    ptrdiff_t n;
    PF(flow) *const *flow;
    const double *weight; /* [n + 1], positive */
} PF(members);
PF_API pf_status PF(flow_calibrate_mixture)(PF(flow) * flow, const PF(members) * others, double *found,
                                            const PF(data) * held_out, const int32_t *simulation, double width,
                                            uint64_t seed);
PF_API double PF(flow_temperature)(const PF(flow) * flow); /* b, 1 at first */

/* ---- a flow as bytes (free with pf_free), and as a file (written aside, then renamed) */

PF_API pf_status PF(flow_write)(const PF(flow) * flow, void **bytes, size_t *n);
PF_API pf_status PF(flow_read)(PF(flow) * *flow, const void *bytes, size_t n);
PF_API pf_status PF(flow_save)(const PF(flow) * flow, const char *path);
PF_API pf_status PF(flow_load)(PF(flow) * *flow, const char *path);

#endif
