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

static const double small_bounds[2 * SMALL_D] = {-INFINITY, INFINITY, -9, INFINITY, -9, 9};
static const double small_k[2] = {1, 3}, small_power[2] = {2, 1}, small_box[3] = {4, 5, 6};
static const ptrdiff_t small_mesh[2][3] = {{4, 6}, {3, 4, 5}}; /* in 2-D and 3-D, of no more than SMALL_PIXELS */
static char small_checkpoint[] = "/tmp/pyflow-test-XXXXXX";

static double small_normal(uint64_t stream, ptrdiff_t i)
{
    double z;
    pf_normals(&z, 7, stream, (uint64_t)i, 1);
    return z;
}

static int small_stop(void *user, const pf_symflow_progress *p) { return p->epoch == *(const int *)user; }

/* In place of libc's: checkpoints need not be on the disk, which would take most of the time. */
int fsync(int fd) { return (void)fd, 0; }

typedef enum {
    SMALL_WHOLE,
    SMALL_STOPPED,      /* after an epoch, with a checkpoint */
    SMALL_STOPPED_LATE, /* in the stage that trains on log p(y|x) */
    SMALL_NO_POSTERIOR, /* without that stage */
} small_fit;

/* The pixels of the mesh that a file of a symmetric flow says it is for; body: what follows the JSON header. */
static inline double small_pixels(const unsigned char *body)
{
    int64_t ndim, n;
    double pixels = 1;
    memcpy(&ndim, body, sizeof ndim);
    for (int i = 0; i < 3 && i < ndim; i++) {
        memcpy(&n, body + 8 + 8 * i, sizeof n);
        pixels *= n > 0 ? (double)n : 0;
    }
    return pixels;
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

/* ---- a stack of layers, by GIS ---- */

static pf_status X(small_gis)(X(model) **model, int labelled)
{
    pf_gis_options o;
    pf_gis_defaults(&o);
    o.max_layers = 2;
    o.n_knots = 5;
    X(data) train = {.x = X(small).x, .n = SMALL_ROWS - 10};
    X(data) validate = {.read = X(small_rows), .n = 10};
    if (!labelled) return X(gis_fit)(model, &train, NULL, SMALL_D, &o);
    train.weight = X(small).weight;
    train.label = validate.label = X(small).label;
    o.bounds = small_bounds;
    o.n_classes = 2;
    o.marginal_first = 1;
    o.patience = 5;
    o.note = "{\"a\": 1}";
    o.checkpoint = small_checkpoint;
    o.checkpoint_seconds = 0;
    return X(gis_fit)(model, &train, &validate, SMALL_D, &o);
}

/* Two layers more for *model. The working copy is in a file. */
static inline pf_status X(small_gis_more)(X(model) **model)
{
    pf_gis_options o;
    pf_gis_defaults(&o);
    o.max_layers = 3;
    o.n_knots = 5;
    o.scratch = "/tmp";
    o.kde = 0;
    X(data) train = {.read = X(small_rows), .n = SMALL_ROWS};
    return X(gis_fit)(model, &train, NULL, SMALL_D, &o);
}

/* ---- a symmetric flow ---- */

static void X(small_options)(pf_symflow_options *o)
{
    pf_symflow_defaults(o);
    o->n_layers = 2;
    o->psi_knots = 3;
    o->filter_knots = 4;
    o->hidden[0] = 3;
    o->hidden[1] = 0;
    o->epochs = 2;
    o->batch = 4;
}

static pf_status X(small_sym)(X(symflow) **flow, int ndim, const ptrdiff_t *mesh)
{
    pf_symflow_options o;
    X(small_options)(&o);
    X(fields) train = {.x = X(small).field, .n = SMALL_FIELDS};
    return X(symflow_fit)(flow, &train, NULL, ndim, mesh, small_box, 0, &o);
}

/* With y, coloured noise, validation, a posterior stage and a checkpoint, which it goes on from if one is there. */
static pf_status X(small_sym_y)(X(symflow) **flow, small_fit kind)
{
    pf_symflow_options o;
    X(small_options)(&o);
    o.noise[1] = 0.5;
    o.noise_condition = 1;
    o.noise_k = small_k;
    o.noise_power = small_power;
    o.noise_knots = 2;
    o.posterior_weight = kind == SMALL_NO_POSTERIOR ? 0 : 0.5;
    o.posterior_epochs = 2;
    o.posterior_draws = 40;
    o.note = "{\"names\": [\"a\", \"b\"]}";
    o.checkpoint = small_checkpoint;
    o.checkpoint_seconds = 0;
    int last = kind == SMALL_STOPPED ? 1 : 3;
    o.progress_user = &last;
    if (kind == SMALL_STOPPED || kind == SMALL_STOPPED_LATE) o.progress = small_stop;
    X(fields) train = {.x = X(small).field, .y = X(small).y, .n = 4}, validate = {train.x + 4 * 24, train.y + 8, 2};
    return X(symflow_fit)(flow, &train, &validate, 2, small_mesh[0], small_box, SMALL_Y, &o);
}
#endif
