/* Small data, and fits of all kinds to it that take a millisecond or two, for tests that repeat them thousands of
 * times. Everything that the tests of memory and of made-up files know of how flows are made is here. */
#ifndef real
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

enum { SMALL_ROWS = 40, SMALL_D = 3, SMALL_FIELDS = 6, SMALL_PIXELS = 280, SMALL_Y = 2 };
enum { SMALL_IMAGES = 24 }; /* of 4 x 3 x 2, made of the numbers of the fields */

static const double small_bounds[2 * SMALL_D] = {-INFINITY, INFINITY, -9, INFINITY, -9, 9};
static const double small_matrix[SMALL_D * SMALL_D] = {1, 0.5, 0, -0.5, 2, 0, 0, 0.25, 1},
                                           small_mean[SMALL_D] = {0, 1, -1};
static const double small_k[2] = {1, 3}, small_power[2] = {2, 1}, small_box[3] = {4, 5, 6};
static const ptrdiff_t small_mesh[2][3] = {{4, 6}, {3, 4, 5}}; /* in 2-D and 3-D, of no more than SMALL_PIXELS */
static char small_checkpoint[] = "/tmp/pyflow-test-XXXXXX";

static double small_normal(uint64_t stream, ptrdiff_t i)
{
    double z;
    pf_normals(&z, 7, stream, (uint64_t)i, 1);
    return z;
}

static inline int small_stop(void *user, const pf_progress *p) { return p->step == *(const int *)user; }

/* A checkpoint that cannot be written is told, and does not end a fit. */
static int small_warned;
static void small_warn(void *user, pf_status status, const char *message)
{
    (void)user, (void)message;
    small_warned += status == PF_NO_MEMORY;
}

static inline int small_show(void *user, ptrdiff_t layers, const void *x, int bits, ptrdiff_t n)
{
    (void)user, (void)layers, (void)bits, (void)n;
    return !x;
}

/* In place of libc's: checkpoints need not be on the disk, which would take most of the time. */
int fsync(int fd) { return (void)fd, 0; }

typedef enum {
    SMALL_WHOLE,
    SMALL_STOPPED,      /* after an epoch, with a checkpoint */
    SMALL_STOPPED_LATE, /* in the stage that trains on log p(y|x) */
    SMALL_NO_POSTERIOR, /* without that stage */
} small_fit;

static void small_train_options(pf_train_options *o)
{
    pf_train_defaults(o);
    o->hidden[0] = 3;
    o->hidden[1] = 0;
    o->epochs = 2;
    o->batch = 4;
}

/* With coloured noise, which is a condition, a posterior stage and a checkpoint, which training goes on from if it is
 * there. */
static inline void small_train_fields(pf_train_options *o, small_fit kind)
{
    static int last;
    small_train_options(o);
    o->noise[1] = 0.5;
    o->noise_condition = 1;
    o->noise_k = small_k;
    o->noise_power = small_power;
    o->noise_knots = 2;
    o->posterior_weight = kind == SMALL_NO_POSTERIOR ? 0 : 0.5;
    o->posterior_epochs = 2;
    o->posterior_draws = 40;
    o->checkpoint_seconds = 0;
    o->watch.note = "{\"names\": [\"a\", \"b\"]}";
    o->watch.checkpoint = small_checkpoint;
    o->watch.warn = small_warn;
    last = kind == SMALL_STOPPED ? 1 : 3;
    o->watch.user = &last;
    if (kind == SMALL_STOPPED || kind == SMALL_STOPPED_LATE) o->watch.progress = small_stop;
}

/* What a file says of its flow; body: what follows the JSON header, of which n bytes are there. */
typedef struct {
    double numbers, layers; /* of a point; in the stack */
} small_space;

static inline small_space small_space_of(const unsigned char *body, size_t n)
{
    int64_t ndim = 0, i;
    small_space s = {1, 0};
    if (n >= sizeof ndim) memcpy(&ndim, body, sizeof ndim);
    if (ndim < 1 || ndim > 3 || n < (size_t)(8 + 8 * ndim + 32 + 8 + 8)) return s;
    for (int a = 0; a < ndim; a++) {
        memcpy(&i, body + 8 + 8 * a, sizeof i);
        s.numbers *= i > 0 ? (double)i : 0;
    }
    memcpy(&i, body + 8 + 8 * ndim + 32 + 8, sizeof i); /* behind the box and the number of classes */
    s.layers = i > 0 && (double)i < (double)n ? (double)i : 0;
    return s;
}

#define TWICE "small.h"
#include "twice.h"
#else

static struct {
    real x[SMALL_ROWS * SMALL_D], z[SMALL_ROWS * SMALL_D];
    double weight[SMALL_ROWS], log[SMALL_ROWS * SMALL_ROWS];
    int32_t label[SMALL_ROWS];
    real field[SMALL_FIELDS * SMALL_PIXELS], out[SMALL_FIELDS * SMALL_PIXELS];
    double y[SMALL_FIELDS * SMALL_Y], gy[SMALL_FIELDS * SMALL_Y];
} X(small);

static void X(small_fill)(void)
{
    for (ptrdiff_t i = 0; i < SMALL_ROWS; i++) {
        for (ptrdiff_t j = 0; j < SMALL_D; j++)
            X(small).x[i * SMALL_D + j] = (real)(small_normal(1, i * SMALL_D + j) + (j ? 0 : small_normal(1, i + 1)));
        X(small).weight[i] = (double)(1 + i % 3);
        X(small).label[i] = (int32_t)(i % 2);
    }
    for (ptrdiff_t i = 0; i < SMALL_FIELDS * SMALL_Y; i++) X(small).y[i] = small_normal(2, i);
    for (ptrdiff_t i = 0; i < SMALL_FIELDS * SMALL_PIXELS; i++) {
        double z = small_normal(3, i);
        X(small).field[i] = (real)(z + 0.2 * z * z + 0.1 * X(small).y[i / 24 % SMALL_FIELDS * SMALL_Y]);
    }
}

static int X(small_rows)(void *user, real *x, ptrdiff_t first, ptrdiff_t n)
{
    (void)user;
    memcpy(x, X(small).x + first * SMALL_D, (size_t)(n * SMALL_D) * sizeof(real));
    return 0;
}

/* ---- by GIS ---- */

static inline pf_status X(small_gis)(X(flow) **flow, int labelled)
{
    pf_gis_options o;
    pf_gis_defaults(&o);
    o.max_layers = 2;
    o.n_knots = 5;
    X(data) train = {.x = X(small).x, .n = SMALL_ROWS - 10};
    X(data) validate = {.read = X(small_rows), .n = 10};
    if (!labelled) return X(gis_fit)(flow, &train, NULL, SMALL_D, &o);
    train.weight = X(small).weight;
    train.label = validate.label = X(small).label;
    o.bounds = small_bounds;
    o.n_classes = 2;
    o.patience = 5;
    o.watch.note = "{\"a\": 1}";
    o.watch.checkpoint = small_checkpoint;
    o.watch.warn = small_warn;
    o.checkpoint_seconds = 0;
    return X(gis_fit)(flow, &train, &validate, SMALL_D, &o);
}

/* Layers more for *flow. The working copy is in a file. */
static inline pf_status X(small_gis_more)(X(flow) **flow)
{
    pf_gis_options o;
    pf_gis_defaults(&o);
    o.max_layers = 3;
    o.n_knots = 5;
    o.scratch = "/tmp";
    o.kde = 0;
    X(data) train = {.read = X(small_rows), .n = SMALL_ROWS};
    return X(gis_fit)(flow, &train, NULL, SMALL_D, &o);
}

/* ---- by SIG ---- */

static inline void X(small_sig_options)(pf_sig_options *o, int images)
{
    static const pf_sig_stage stages[2] = {{1, {2, 2, 1}, 2}, {1, {0}, 3}};
    static const ptrdiff_t image[3] = {4, 3, 2};
    pf_sig_defaults(o);
    o->n_knots = 5;
    o->sample = 50;
    o->slice_steps = 2;
    o->max_layers = 2;
    o->show = small_show;
    o->show_every = 1;
    o->watch.note = "{\"a\": 1}";
    o->watch.checkpoint = small_checkpoint;
    o->watch.warn = small_warn;
    o->checkpoint_seconds = 0;
    if (images) {
        memcpy(o->image, image, sizeof image);
        o->stages = stages;
        o->n_stages = 2;
    } else {
        o->bounds = small_bounds;
        o->n_classes = 2;
    }
}

/* Of images, or of rows with labels, weights and bounds; on from *flow if that is not NULL. */
static inline pf_status X(small_sig)(X(flow) **flow, int images)
{
    pf_sig_options o;
    X(small_sig_options)(&o, images);
    X(data) rows = {.x = X(small).x, .n = SMALL_ROWS, .weight = X(small).weight, .label = X(small).label};
    X(data) fields = {.x = X(small).field, .n = SMALL_IMAGES};
    return X(sig_fit)(flow, images ? &fields : &rows, images ? 24 : SMALL_D, &o);
}

/* A layer more. Data and sample are in files. */
static inline pf_status X(small_sig_more)(X(flow) **flow)
{
    pf_sig_options o;
    X(small_sig_options)(&o, 1);
    o.stages = NULL, o.n_stages = 0;
    o.max_layers = 3;
    o.scratch = "/tmp";
    o.slice_points = 5;
    X(data) fields = {.x = X(small).field, .n = SMALL_IMAGES};
    return X(sig_fit)(flow, &fields, 24, &o);
}

/* ---- by hand ---- */

/* Hands over what was made, unless a step failed. */
static inline pf_status X(small_made)(X(flow) **flow, X(flow) *f, pf_status status)
{
    if (status) X(flow_free)(f);
    else *flow = f;
    return status;
}

/* For rows with labels: every kind of layer of a table */
static inline pf_status X(small_table)(X(flow) **flow)
{
    X(flow) *f = NULL;
    ptrdiff_t d = SMALL_D;
    pf_status status = X(flow_new)(&f, 1, &d, NULL, 2);
    if (!status) status = X(flow_add_bounds)(f, small_bounds);
    if (!status) status = X(flow_add_affine)(f, small_matrix, small_mean);
    if (!status) status = X(flow_add_sliced)(f, 2, 4, 1);
    if (!status) status = X(flow_add_scale)(f, 0.5, 2);
    if (!status) status = X(flow_add_sliced)(f, 0, 3, 2);
    return X(small_made)(flow, f, status);
}

/* For rows with conditions: networks that look at them, and one that does not */
static inline pf_status X(small_autoregressive)(X(flow) **flow)
{
    static const int32_t rank[3][SMALL_D] = {{0, 1, 2}, {1, 0, 0}, {2, 1, 0}};
    static const ptrdiff_t hidden[2] = {3, 2};
    static const double stats[4 * SMALL_Y] = {0, 0.5, 1, 2, -3, -4, 3, 5};
    X(flow) *f = NULL;
    ptrdiff_t d = SMALL_D;
    pf_status status = X(flow_new)(&f, 1, &d, NULL, 0);
    if (!status) status = X(flow_add_bounds)(f, small_bounds);
    for (int i = 0; i < 3 && !status; i++) {
        pf_network network = {.n_y = i < 2 ? SMALL_Y : 0, .bins = i + 1, .hidden = hidden, .n_hidden = 1 + i % 2};
        network.rank = rank[i], network.stats = stats;
        network.log_scale = small_mean, network.seed = (uint64_t)i;
        status = X(flow_add_autoregressive)(f, &network);
    }
    return X(small_made)(flow, f, status);
}

/* For images of 4 x 3 x 2 with labels: patches of all channels and of one, sides that are not divided, no slices */
static inline pf_status X(small_patches)(X(flow) **flow)
{
    static const ptrdiff_t d = 24, image[3] = {4, 3, 2}, kernel[3][3] = {{2, 2, 2}, {3, 1, 1}, {2, 3, 1}};
    static const ptrdiff_t shift[3][2] = {{1, 2}, {0, 0}, {3, 1}};
    X(flow) *f = NULL;
    pf_status status = X(flow_new)(&f, 1, &d, NULL, 2);
    if (!status) status = X(flow_add_scale)(f, 0.25, 1.5);
    for (int i = 0; i < 3 && !status; i++)
        status = X(flow_add_patch)(f, image, kernel[i], shift[i], 2 - i, 3, (uint64_t)i);
    return X(small_made)(flow, f, status);
}

/* For fields: layers of both layouts, some of which can be conditioned */
static inline pf_status X(small_mixed)(X(flow) **flow)
{
    X(flow) *f = NULL;
    pf_status status = X(flow_new)(&f, 2, small_mesh[0], small_box, 0);
    if (!status) status = X(flow_add_scale)(f, 0.25, 1.5);
    if (!status) status = X(flow_add_symmetric)(f, 3, 4);
    if (!status) status = X(flow_add_sliced)(f, 2, 4, 3);
    if (!status) status = X(flow_add_axial)(f, 0, 2, 3, 3);
    if (!status) status = X(flow_add_coupling)(f, 0.5, 1, 2, 3);
    if (!status) status = X(flow_add_affine)(f, NULL, NULL);
    return X(small_made)(flow, f, status);
}

/* ---- by the trainer ---- */

static inline pf_status X(small_train_table)(X(flow) *flow)
{
    static const int frozen[5] = {0, 0, 0, 0, 1};
    pf_train_options o;
    small_train_options(&o);
    o.batch = 20;
    o.patience = 1;
    o.frozen = frozen;
    X(data) train = {.x = X(small).x, .n = SMALL_ROWS - 10, .weight = X(small).weight, .label = X(small).label};
    X(data) validate = {.x = X(small).x + (SMALL_ROWS - 10) * SMALL_D, .n = 10, .label = X(small).label};
    return X(flow_train)(flow, &train, &validate, &o);
}

static inline void X(small_split)(X(data) *train, X(data) *validate)
{
    *train = (X(data)){.x = X(small).field, .n = 4, .y = X(small).y, .n_y = SMALL_Y};
    *validate = (X(data)){.x = train->x + 4 * 24, .n = 2, .y = train->y + 4 * SMALL_Y, .n_y = SMALL_Y};
}

static inline pf_status X(small_train_mixed)(X(flow) *flow, small_fit kind)
{
    pf_train_options o;
    X(data) train, validate;
    small_train_fields(&o, kind);
    X(small_split)(&train, &validate);
    return X(flow_train)(flow, &train, &validate, &o);
}

/* ---- symmetric flows ---- */

static inline void X(small_symmetric)(pf_symmetric_options *o)
{
    pf_symmetric_defaults(o);
    o->n_layers = 2;
    o->psi_knots = 3;
    o->filter_knots = 4;
}

/* In 3-D of a range of modes */
static inline pf_status X(small_sym)(X(flow) **flow, int ndim, const ptrdiff_t *mesh)
{
    static const double level[2] = {-1, -2};
    static const pf_band band = {.k_min = 1, .k_max = 4, .level = level};
    pf_symmetric_options o;
    X(small_symmetric)(&o);
    if (ndim == 3) o.band = &band;
    small_train_options(&o.train);
    X(data) train = {.x = X(small).field, .n = SMALL_FIELDS};
    return X(symmetric_fit)(flow, &train, NULL, ndim, mesh, small_box, &o);
}

static inline pf_status X(small_sym_y)(X(flow) **flow, small_fit kind)
{
    pf_symmetric_options o;
    X(data) train, validate;
    X(small_symmetric)(&o);
    small_train_fields(&o.train, kind);
    X(small_split)(&train, &validate);
    return X(symmetric_fit)(flow, &train, &validate, 2, small_mesh[0], small_box, &o);
}

/* Conditions of a flow of small_train_fields(): two numbers and the noise, for every field */
static inline const double *X(small_y3)(void)
{
    static double y[3 * SMALL_FIELDS];
    for (int i = 0; i < 3 * SMALL_FIELDS; i++) y[i] = i % 3 < 2 ? X(small).y[i / 3 * 2 + i % 3] : 0.1;
    return y;
}
#endif
