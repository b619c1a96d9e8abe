/* The trainer: any stack of layers by maximum likelihood, with Adam. What train.c, evidence.c and start.c share. */
#ifndef PF_TRAIN_H
#define PF_TRAIN_H
#include "adam.h"
#include "flow.h"
#include "ranks.h"

/* Streams of random numbers, by their purpose; the last 56 bits say which. */
enum { STREAM_WEIGHTS = 1, STREAM_ORDER, STREAM_NOISE, STREAM_SIGMA, STREAM_DRAWS, STREAM_FILL, STREAM_CHOICE };
static inline uint64_t stream(int purpose, ptrdiff_t which) { return (uint64_t)purpose << 56 | (uint64_t)which; }
double pf_uniform(uint64_t seed, uint64_t stream, uint64_t i); /* in (0, 1) */

enum {
    GROUPS = 16,        /* a batch's gradient is summed in this many groups of tiles, then over groups in order */
    VALIDATE_DRAWS = 2, /* times as many draws for a validation point as for a training point */
};

/* Conditions that stand for the prior of n_y parameters when the caller leaves it open. */
ptrdiff_t pf_default_draws(ptrdiff_t n_y);

#define TWICE "train.h"
#include "twice.h"
#elif defined(real)

typedef struct X(evidence) X(evidence);
typedef struct X(mixed) X(mixed);

typedef struct {
    const pf_train_options *o;
    X(flow) *flow;
    const X(data) *data; /* that the current batch is from */
    ptrdiff_t n_y;       /* columns of data->y; the flow has one more when the noise is a condition */
    X(workers) workers;
    ptrdiff_t tile, step;       /* points in a tile; in a block, at most */
    ptrdiff_t *row;             /* [room] points of the batch */
    double *logp;               /* [room] their log p */
    double *weight;             /* [room] of their gradients, relative to `factor`; 0: only log p is wanted */
    double factor, mean_weight; /* mean_weight: of all training points */
    double *y;                  /* [step][flow's n_y] conditions of a block, */
    double *theta;              /* [step][n_row] their parameters, */
    double *gtheta;             /* [step][n_row] and gradients */
    double *group;              /* [GROUPS][n_theta] gradients of the layers that are not served */
    ptrdiff_t own;              /* parameters of those */
    real *net_memory, *gw, *gw_part;
    int gw_empty;
    double *gbase;            /* [n_theta] */
    real *prepare;            /* scratch, for the flow's tables */
    double *noise;            /* [threads] scratch */
    ptrdiff_t noise_size;     /* doubles of a thread */
    ptrdiff_t epoch;          /* of the noise, the order and the draws */
    ptrdiff_t gradient_draws; /* of the conditions drawn, that have the gradient of an evidence; 0: all */
    X(adam) net;
    pf64_adam base;
    double mean_length;                      /* of gradients */
    X(evidence) *evidence;                   /* NULL: no draws of conditions */
    X(mixed) *mixed;                         /* members of a mixture beside `flow`, or NULL: logp is the mixture's */
    ptrdiff_t known, unknown, first_unknown; /* points whose evidence is and is not, so far in this epoch */
    ptrdiff_t left_out;                      /* unknown ones of the last pass */
    double start_time, saved;                /* when the fit began, when a checkpoint was last written */
    /* the block at work; from which of its groups on they are this rank's */
    ptrdiff_t first, count, groups, own_groups;
} X(trainer);

/* draws: of conditions for a point, at most; 0: none. To be cleared after a failure too. */
pf_status X(trainer_init)(X(trainer) *t, X(flow) *flow, const pf_train_options *o, ptrdiff_t batch, ptrdiff_t n_y,
                          ptrdiff_t draws);
void X(trainer_clear)(X(trainer) *t);
/* log p of points first .. first + n - 1 of the batch, n <= step, at conditions y[n][n_y] (NULL: their own); where
 * weight is not 0, factor times weight times its gradient is added to gbase and gw. */
pf_status X(trainer_block)(X(trainer) *t, ptrdiff_t first, ptrdiff_t n, const double *y);
/* mixture.c: from now on log p is that of a mixture, of which `flow` is the first member; no gradients. */
pf_status X(trainer_mix)(X(trainer) *t, const X(members) *others);
pf_status X(mixed_block)(X(trainer) *t, ptrdiff_t first, ptrdiff_t n, const double *y);
void X(mixed_free)(X(mixed) *m);
/* Adds noise of row `row` to the point x[d], in the data's unit; scratch: t->noise of a thread. */
void X(add_noise)(real *x, const X(flow) *f, double sigma, uint64_t seed, uint64_t stream, double *scratch);
ptrdiff_t X(noise_scratch)(const X(flow) *f); /* doubles */

/* Trains flow from where it is, or on from the checkpoint if that is there. *trained: the flow is worth having,
 * whatever the status. */
pf_status X(train)(X(flow) *flow, int *trained, const X(data) *train, const X(data) *validate,
                   const pf_train_options *o, double start_time);
/* observed[d]: 0 where it does not matter what stands; NULL: it matters everywhere */
pf_status X(check_points)(const X(data) *data, const X(flow) *f, const unsigned char *observed, ptrdiff_t n_y,
                          const char *name);
pf_status X(set_noise)(X(flow) *flow, const pf_train_options *o);
/* What training needs of a new flow: noise as the options have it, a network if there are conditions. */
pf_status X(train_begin)(X(flow) *flow, const X(data) *train, const pf_train_options *o);

/* ---- evidence.c: log p(y|x) = log p(x|y) + log prior(y) - log Z(x) ------------------------------------------- */

pf_status X(evidence_new)(X(evidence) **e, ptrdiff_t n_y, ptrdiff_t draws);
void X(evidence_free)(X(evidence) *e);
ptrdiff_t X(evidence_room)(const X(evidence) *e); /* draws there may be in the end */
/* log p(y|x) of row 0 of the batch, in units of the prior's density, NAN where the evidence is not known; when weight
 * is not 0 its gradient is added, times (1 - w) grad log p(x|y) + w grad log p(y|x), or, NAN, grad log p(x|y). */
pf_status X(posterior)(X(trainer) *t, double *log_posterior, double *log_likelihood, ptrdiff_t draws, double weight);
/* Adds it to a sum, of which there is a mean; warns of those that were NAN. */
void X(add_posterior)(X(trainer) *t, double *sum, double log_posterior);
double X(mean_posterior)(X(trainer) *t, double sum);
/* log p(y_i|x_i) / prior(y_i), as fine-tuning and calibration estimate it with so many draws: for tests */
pf_status X(log_posterior)(double *log_posterior, X(flow) *flow, const X(data) *data, ptrdiff_t draws, uint64_t seed);
#endif
