/* A flow: a stack of layers with their parameters and tables, what conditions it, and what is known of its fit. */
#ifndef PF_FLOW_H
#define PF_FLOW_H
#include "conditioner.h"
#include "layers.h"

enum { LARGE = 1 << 20 /* numbers of a point from which on its maps are spread over threads, not the points */ };

/* A row of the history: a step of a fit. */
typedef struct {
    double epoch; /* its number, 0 for a layer */
    double logp_train, logp_validate, distance;
} pf_step;

#define TWICE "flow.h"
#include "twice.h"
#elif defined(real)

struct X(flow) {
    pf_space space;
    X(mesh) *mesh; /* NULL for a table */
    int classes;   /* 0: without labels */
    ptrdiff_t n_layers, room, n_theta, theta_room;
    X(layer) **layers;
    ptrdiff_t *at; /* [n_layers + 1] layer l's parameters are theta[at[l]] to theta[at[l + 1]] */
    double *theta; /* one vector, unconstrained */
    void **ready;  /* [n_layers] tables of theta, shared with copies; of a served layer NULL: the workers have them */
    X(conditioner) *net; /* or NULL */
    /* the record of its fit */
    ptrdiff_t n_history, history_room;
    pf_step *history;
    char *note;
    double temperature;
    double noise[2];      /* that was added to the training data: range of its standard deviation */
    real *noise_t;        /* [shells] the filter that makes it of white noise; NULL: white; or, with noise_map, */
    int noise_map;        /* [d] what it is multiplied with in every pixel */
    int noise_condition;  /* the last condition is the noise's standard deviation, which is known */
    unsigned char *state; /* [n_state] what unfinished training goes on from: see train.c */
    ptrdiff_t n_state;
};

/* ---- flow.c: the stack -------------------------------------------------------------------------------------- */

pf_status X(flow_create)(X(flow) **flow, const pf_space *space, int classes);
/* Whether the network gives the layer's parameters */
static inline int X(served)(const X(flow) *f, ptrdiff_t l) { return f->net && f->net->at[l] >= 0; }
/* Takes over the layer, whatever happens; theta[n_theta] is copied. */
pf_status X(flow_append)(X(flow) *flow, X(layer) *layer, const double *theta);
void X(flow_truncate)(X(flow) *flow, ptrdiff_t n_layers);
/* The layers from number `first` on in the other order; none is served. */
void X(flow_reverse)(X(flow) *flow, ptrdiff_t first);
void X(flow_forget)(X(flow) *flow); /* unfinished training */
pf_status X(flow_record)(X(flow) *flow, pf_step step);
pf_status X(flow_duplicate)(X(flow) **copy, const X(flow) *flow, ptrdiff_t n_layers);
/* A flow of the same layers: shapes alike */
int X(flow_alike)(const X(flow) *a, const X(flow) *b);
/* A layer without tables, until X(flow_own_tables) and X(flow_prepare): while many are fitted, memory is for data. */
void X(flow_drop_tables)(X(flow) *flow, ptrdiff_t l);
/* Whether the network gives any layer's parameters: otherwise it only knows the conditions that layers look at. */
static inline int X(serves)(const X(flow) *f) { return f->net && f->net->n_row; }
/* Whether a layer has a network of its own */
static inline int X(has_networks)(const X(flow) *f)
{
    int any = 0;
    for (ptrdiff_t l = 0; l < f->n_layers; l++) any |= f->layers[l]->ops->decay != NULL;
    return any;
}
/* Gives the flow tables of its own where it shares them or has none, for X(flow_prepare), which must be next, to fill;
 * a conditioned flow's served layers lose theirs. */
pf_status X(flow_own_tables)(X(flow) *flow);
/* Makes all tables of theta again, in work[flow_prepare_work()]. It cannot fail, so that however training ends, tables
 * are those of theta. */
void X(flow_prepare)(X(flow) *flow, real *work);
ptrdiff_t X(flow_prepare_work)(const X(flow) *flow);

static inline ptrdiff_t X(noise_size)(const X(flow) *f) { return f->noise_map ? f->space.d : f->mesh->filter->shells; }
/* Weights that a fit can use: finite, not negative, not all zero */
pf_status X(check_weights)(const X(data) *data, const char *name);

/* ---- maps.c: tiles through the stack ------------------------------------------------------------------------ */

/* A thread's memory. */
typedef struct {
    real *x, *spare, *keep, *work;
    char *ready; /* tables of the served layers, for every point of a tile */
} X(worker);

/* What tiles of a flow need, and memory for it. */
typedef struct {
    const X(flow) *flow;
    ptrdiff_t rows;                 /* points in a tile: no function of threads, where sums over tiles are made */
    ptrdiff_t x, spare, keep, work; /* reals of a worker */
    size_t ready;
    int count;
    X(worker) *workers; /* [count] */
    void *memory;
} X(workers);

ptrdiff_t X(flow_tile_rows)(const X(flow) *flow);
/* tiles: held by a worker at a time; keep: for the way back. To be cleared after a failure too. */
pf_status X(workers_new)(X(workers) *w, const X(flow) *flow, ptrdiff_t rows, ptrdiff_t tiles, int keep, int count);
void X(workers_clear)(X(workers) *w);
/* The layout in which a tile enters the flow, from data (back = 0) or from latents. */
pf_layout X(flow_layout)(const X(flow) *flow, int back);
/* An empty tile of up to w->rows points in a worker's memory, number i of its tiles. */
X(tile) X(worker_tile)(const X(workers) *w, X(worker) *worker, ptrdiff_t i, ptrdiff_t n, pf_layout layout);
/* Makes tables of the served layers of theta[n][n_row], for a tile of n points. */
void X(worker_prepare)(const X(workers) *w, X(worker) *worker, const double *rows, ptrdiff_t n);

/* t[count] through the layers, one layer after another, logj[count][stride] += log|det|. */
void X(flow_forward_tiles)(const X(workers) *w, X(worker) *worker, X(tile) *const *t, double *const *logj,
                           ptrdiff_t count);
void X(flow_inverse_tiles)(const X(workers) *w, X(worker) *worker, X(tile) *const *t, double *const *logj,
                           ptrdiff_t count);
/* After flow_forward_tiles of one tile with keep, for a loss L: g, on entry dL/dz, becomes dL/dx if want_x. glogj[n] =
 * dL/dlogj; gtheta[n_theta] += dL/dtheta of the layers that are not served, rows[n][n_row] += of those that are; either
 * may be NULL. */
void X(flow_vjp_tile)(const X(workers) *w, X(worker) *worker, X(tile) *g, double *gtheta, double *rows,
                      const double *glogj, int want_x);
/* z[n][d] of rows first .. of a sample, into a tile */
void X(tile_normals)(X(tile) *t, uint64_t seed, uint64_t first);
#endif
