/* The stack: layers, parameters, tables, copies; and flows made by hand. */
#ifndef real
#include "blas.h"
#include "flow.h"
#include "stiefel.h"

/* -1, which no size is, for what does not fit */
static int32_t narrowed(ptrdiff_t size) { return size == (int32_t)size ? (int32_t)size : -1; }

#define TWICE "flow.c"
#include "twice.h"
#else

/* ---- layers and tables ------------------------------------------------------------------------------------ */

const X(layer_ops) *const X(layer_kinds)[] = {&X(columns_ops),
                                              &X(scale_ops),
                                              &X(affine_ops),
                                              &X(sliced_ops),
                                              &X(patch_ops),
                                              &X(symmetric_ops),
                                              &X(axial_ops),
                                              &X(shift_ops),
                                              &X(coupling_ops),
                                              &X(fill_ops),
                                              &X(band_ops),
                                              &X(autoregressive_ops),
                                              NULL};

X(layer) *X(layer_share)(X(layer) *l)
{
    atomic_fetch_add(&l->references, 1);
    return l;
}

void X(layer_release)(X(layer) *l)
{
    if (l && atomic_fetch_sub(&l->references, 1) == 1) l->ops->destroy(l);
}

static size_t X(tables_size)(const X(layer) *l) { return l->ops->sizes(l, 1, TILE_STEP, 1).ready; }

/* Tables are counted as layers are: the count stands in the 64 bytes before them. */
static void *X(tables_new)(const X(layer) *l)
{
    char *block = pf_alloc(64 + (ptrdiff_t)X(tables_size)(l), 1);
    if (!block) return NULL;
    atomic_init((atomic_int *)block, 1);
    return block + 64;
}

static atomic_int *X(tables_count)(void *ready) { return (atomic_int *)((char *)ready - 64); }

static void X(tables_release)(void *ready)
{
    if (ready && atomic_fetch_sub(X(tables_count)(ready), 1) == 1) free((char *)ready - 64);
}

/* Reals of a thread that makes a layer's tables */
static ptrdiff_t X(layer_work)(const X(layer) *l) { return tile_whole(l->ops->sizes(l, 1, TILE_STEP, 1).work); }

typedef struct {
    const X(flow) *flow;
    ptrdiff_t each; /* reals of a thread */
    real *work;
} X(preparation);

static void X(prepare_layer)(void *arg, ptrdiff_t l, int thread)
{
    X(preparation) *p = arg;
    const X(flow) *f = p->flow;
    const X(layer) *layer = f->layers[l];
    if (f->ready[l])
        layer->ops->prepare(layer, f->ready[l], f->theta + f->at[l], layer->n_theta, 1, p->work + thread * p->each);
}

static ptrdiff_t X(thread_work)(const X(flow) *f)
{
    ptrdiff_t work = 0;
    for (ptrdiff_t l = 0; l < f->n_layers; l++) work = PF_MAX(work, X(layer_work)(f->layers[l]));
    return work;
}

ptrdiff_t X(flow_prepare_work)(const X(flow) *f) { return X(thread_work)(f) * pf_max_threads(f->n_layers); }

void X(flow_prepare)(X(flow) *f, real *work)
{
    X(preparation) p = {.flow = f, .each = X(thread_work)(f), .work = work};
    pf_parallel_kernel(f->n_layers, X(prepare_layer), &p);
}

void X(flow_drop_tables)(X(flow) *f, ptrdiff_t l)
{
    X(tables_release)(f->ready[l]);
    f->ready[l] = NULL;
}

pf_status X(flow_own_tables)(X(flow) *f)
{
    for (ptrdiff_t l = 0; l < f->n_layers; l++) {
        if (X(served)(f, l) || (f->ready[l] && atomic_load(X(tables_count)(f->ready[l])) == 1)) continue;
        void *own = X(tables_new)(f->layers[l]);
        if (!own) return PF_NO_MEMORY;
        X(tables_release)(f->ready[l]);
        f->ready[l] = own;
    }
    for (ptrdiff_t l = 0; l < f->n_layers; l++)
        if (X(served)(f, l)) {
            X(tables_release)(f->ready[l]);
            f->ready[l] = NULL;
        }
    return PF_OK;
}

/* ---- the stack -------------------------------------------------------------------------------------------- */

pf_status X(flow_create)(X(flow) **flow, const pf_space *space, int classes)
{
    X(flow) *f = *flow = PF_CALLOC(X(flow), 1);
    if (!f) return PF_NO_MEMORY;
    f->space = *space;
    f->classes = classes;
    f->temperature = 1;
    pf_status status = (f->at = PF_CALLOC(ptrdiff_t, 1)) ? PF_OK : PF_NO_MEMORY;
    if (!status && space->ndim > 1) status = X(mesh_new)(&f->mesh, space);
    if (status) {
        X(flow_free)(f);
        *flow = NULL;
    }
    return status;
}

/* Room for one more of each; what realloc could not enlarge stays. */
static int X(grow)(void **array, size_t size, ptrdiff_t room)
{
    void *grown = realloc(*array, (size_t)room * size);
    if (grown) *array = grown;
    return grown != NULL;
}

static pf_status X(flow_room)(X(flow) *f, ptrdiff_t n_theta)
{
    if (f->n_layers == f->room) {
        ptrdiff_t room = 2 * f->room + 16;
        if (!X(grow)((void **)&f->layers, sizeof *f->layers, room) ||
            !X(grow)((void **)&f->ready, sizeof *f->ready, room) || !X(grow)((void **)&f->at, sizeof *f->at, room + 1))
            return pf_fail(PF_NO_MEMORY, "out of memory: a flow of %td layers", room);
        f->room = room;
    }
    if (f->n_theta + n_theta > f->theta_room) {
        ptrdiff_t room = f->n_theta + n_theta + f->n_theta / 2;
        if (!X(grow)((void **)&f->theta, sizeof *f->theta, room + !room))
            return pf_fail(PF_NO_MEMORY, "out of memory: a flow of %td parameters", room);
        f->theta_room = room;
    }
    return PF_OK;
}

/* Without tables: ready takes them over, or is NULL. */
static void X(push)(X(flow) *f, X(layer) *layer, const double *theta, void *ready)
{
    ptrdiff_t l = f->n_layers++;
    if (layer->n_theta) memcpy(f->theta + f->n_theta, theta, (size_t)layer->n_theta * sizeof(double));
    f->n_theta += layer->n_theta;
    f->layers[l] = layer;
    f->ready[l] = ready;
    f->at[l + 1] = f->n_theta;
}

pf_status X(flow_append)(X(flow) *f, X(layer) *layer, const double *theta)
{
    pf_status status = X(flow_room)(f, layer->n_theta);
    void *ready = status ? NULL : X(tables_new)(layer);
    real *work = ready ? PF_ALLOC(real, X(layer_work)(layer)) : NULL;
    status = !work ? PF_NO_MEMORY : f->net ? X(conditioner_grow)(f->net) : PF_OK;
    if (!status) {
        layer->ops->prepare(layer, ready, theta, layer->n_theta, 1, work);
        X(push)(f, layer, theta, ready);
        X(flow_forget)(f); /* training of fewer layers */
    } else {
        X(tables_release)(ready);
        X(layer_release)(layer);
    }
    free(work);
    return status;
}

void X(flow_truncate)(X(flow) *f, ptrdiff_t n_layers)
{
    while (f->n_layers > n_layers) {
        X(layer_release)(f->layers[--f->n_layers]);
        X(tables_release)(f->ready[f->n_layers]);
    }
    f->n_theta = f->at[f->n_layers];
}

static void X(turn)(double *x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n / 2; i++) {
        double swap = x[i];
        x[i] = x[n - 1 - i], x[n - 1 - i] = swap;
    }
}

/* Parameters: all of them turned round, then those of every layer. */
void X(flow_reverse)(X(flow) *f, ptrdiff_t first)
{
    ptrdiff_t n = f->n_layers;
    X(turn)(f->theta + f->at[first], f->n_theta - f->at[first]);
    for (ptrdiff_t i = first, j = n - 1; i < j; i++, j--) {
        X(layer) *layer = f->layers[i];
        void *ready = f->ready[i];
        f->layers[i] = f->layers[j], f->layers[j] = layer;
        f->ready[i] = f->ready[j], f->ready[j] = ready;
    }
    for (ptrdiff_t l = first; l < n; l++) {
        f->at[l + 1] = f->at[l] + f->layers[l]->n_theta;
        X(turn)(f->theta + f->at[l], f->layers[l]->n_theta);
    }
}

void X(flow_forget)(X(flow) *f)
{
    free(f->state);
    f->state = NULL;
    f->n_state = 0;
}

pf_status X(flow_record)(X(flow) *f, pf_step step)
{
    if (f->n_history == f->history_room) {
        ptrdiff_t room = 2 * f->history_room + 16;
        if (!X(grow)((void **)&f->history, sizeof step, room)) return pf_fail(PF_NO_MEMORY, "out of memory");
        f->history_room = room;
    }
    f->history[f->n_history++] = step;
    return PF_OK;
}

void X(flow_free)(X(flow) *f)
{
    if (!f) return;
    if (f->at) X(flow_truncate)(f, 0);
    X(conditioner_free)(f->net);
    X(mesh_release)(f->mesh);
    free(f->layers);
    free(f->ready);
    free(f->at);
    free(f->theta);
    free(f->history);
    free(f->note);
    free(f->noise_t);
    free(f->state);
    free(f);
}

/* ---- copies ----------------------------------------------------------------------------------------------- */

/* The network of a flow's first layers: outputs are in their order, so it has the first of them. */
static pf_status X(copy_conditioner)(X(flow) *copy, const X(flow) *f)
{
    const X(conditioner) *c = f->net;
    const X(mlp) *from = c->net;
    ptrdiff_t n_in = from->size[from->layers - 1], hidden = from->n_w - (n_in + 1) * c->n_row;
    int any = 0;
    for (ptrdiff_t l = 0; l < copy->n_layers; l++) any |= c->at[l] >= 0 || X(layer_conditions)(copy->layers[l]);
    if (!any) return PF_OK;
    PF_TRY(X(conditioner_new)(&copy->net, copy->layers, copy->n_layers, c->n_y, from->size + 1, from->layers - 1));
    ptrdiff_t n_row = copy->net->n_row;
    real *to = copy->net->net->w;
    memcpy(copy->net->stats, c->stats, (size_t)(4 * c->n_y) * sizeof(double));
    memcpy(to, from->w, (size_t)(hidden + n_in * n_row) * sizeof(real));
    memcpy(to + hidden + n_in * n_row, from->w + hidden + n_in * c->n_row, (size_t)n_row * sizeof(real));
    return PF_OK;
}

static pf_status X(copy_record)(X(flow) *copy, const X(flow) *f)
{
    ptrdiff_t greedy = 0; /* steps that are a layer's each, in order; SIG's are fewer, and in the order of its fit */
    for (ptrdiff_t i = 0; i < f->n_history; i++) greedy += f->history[i].epoch == 0;
    int whole = copy->n_layers == f->n_layers;
    copy->temperature = whole ? f->temperature : 1;
    memcpy(copy->noise, f->noise, sizeof f->noise);
    copy->noise_condition = copy->net && f->noise_condition;
    for (ptrdiff_t i = 0; i < f->n_history; i++)
        if (whole || (greedy == f->n_layers && i < copy->n_layers)) PF_TRY(X(flow_record)(copy, f->history[i]));
    if (f->note) PF_TRY(X(flow_set_note)(copy, f->note));
    if (f->noise_t) {
        if (!(copy->noise_t = PF_ALLOC(real, X(noise_size)(f)))) return PF_NO_MEMORY;
        memcpy(copy->noise_t, f->noise_t, (size_t)X(noise_size)(f) * sizeof(real));
        copy->noise_map = f->noise_map;
    }
    if (f->n_state && whole) {
        if (!(copy->state = PF_ALLOC(unsigned char, f->n_state))) return PF_NO_MEMORY;
        memcpy(copy->state, f->state, (size_t)f->n_state);
        copy->n_state = f->n_state;
    }
    return PF_OK;
}

pf_status X(flow_duplicate)(X(flow) **copy, const X(flow) *f, ptrdiff_t n_layers)
{
    *copy = NULL;
    if (n_layers < 0 || n_layers > f->n_layers)
        return pf_fail(PF_BAD_ARGUMENT, "n_layers: %td is not between 0 and %td", n_layers, f->n_layers);
    X(flow) *c = PF_CALLOC(X(flow), 1);
    if (!c) return PF_NO_MEMORY;
    c->space = f->space;
    c->classes = f->classes;
    c->mesh = X(mesh_share)(f->mesh);
    pf_status status = (c->at = PF_CALLOC(ptrdiff_t, 1)) ? PF_OK : PF_NO_MEMORY;
    for (ptrdiff_t l = 0; l < n_layers && !status; l++) {
        status = X(flow_room)(c, f->layers[l]->n_theta);
        if (status) break;
        if (f->ready[l]) atomic_fetch_add(X(tables_count)(f->ready[l]), 1);
        X(push)(c, X(layer_share)(f->layers[l]), f->theta + f->at[l], f->ready[l]);
    }
    if (!status && f->net) status = X(copy_conditioner)(c, f);
    if (!status) status = X(copy_record)(c, f);
    if (status) X(flow_free)(c);
    else *copy = c;
    return status;
}

int X(flow_alike)(const X(flow) *a, const X(flow) *b)
{
    pf_writer w[2] = {{0}};
    int alike = a->n_layers == b->n_layers && a->classes == b->classes && a->space.ndim == b->space.ndim;
    for (int i = 0; i < a->space.ndim; i++)
        alike &= a->space.n[i] == b->space.n[i] && a->space.box[i] == b->space.box[i];
    for (ptrdiff_t l = 0; l < a->n_layers && alike; l++) {
        alike = a->layers[l]->ops == b->layers[l]->ops;
        a->layers[l]->ops->write(a->layers[l], w);
        if (alike) b->layers[l]->ops->write(b->layers[l], w + 1);
    }
    alike = alike && !w[0].status && !w[1].status && w[0].n == w[1].n && !memcmp(w[0].bytes, w[1].bytes, w[0].n);
    free(w[0].bytes);
    free(w[1].bytes);
    return alike;
}

pf_status X(flow_copy)(X(flow) **copy, const X(flow) *flow, ptrdiff_t n_layers)
{
    pf_begin();
    return pf_end(X(flow_duplicate)(copy, flow, n_layers));
}

/* ---- what is known of it ---------------------------------------------------------------------------------- */

int X(flow_ndim)(const X(flow) *f) { return f->space.ndim; }
const ptrdiff_t *X(flow_shape)(const X(flow) *f) { return f->space.n; }
const double *X(flow_box)(const X(flow) *f) { return f->space.box; }
ptrdiff_t X(flow_dim)(const X(flow) *f) { return f->space.d; }
int X(flow_classes)(const X(flow) *f) { return f->classes; }
ptrdiff_t X(flow_conditions)(const X(flow) *f) { return f->net ? f->net->n_y : 0; }
const double *X(flow_range)(const X(flow) *f) { return f->net ? f->net->stats + 2 * f->net->n_y : NULL; }
ptrdiff_t X(flow_layers)(const X(flow) *f) { return f->n_layers; }
const char *X(flow_layer_kind)(const X(flow) *f, ptrdiff_t i) { return f->layers[i]->ops->kind; }
ptrdiff_t X(flow_layer_slices)(const X(flow) *f, ptrdiff_t i)
{
    const pf_patches *p = X(layer_patches)(f->layers[i]);
    return X(layer_slices)(f->layers[i]) * (p ? pf_patches_count(p) : 1);
}
ptrdiff_t X(flow_layer_parameters)(const X(flow) *f, ptrdiff_t i) { return f->layers[i]->n_theta; }
const double *X(flow_layer_theta)(const X(flow) *f, ptrdiff_t i) { return f->theta + f->at[i]; }
/* A network that serves no layer has weights that say nothing. */
ptrdiff_t X(flow_parameters)(const X(flow) *f) { return f->n_theta + (X(serves)(f) ? f->net->net->n_w : 0); }
int X(flow_noise_condition)(const X(flow) *f) { return f->noise_condition; }
int X(flow_unfinished)(const X(flow) *f) { return f->n_state > 0; }
int X(flow_context)(const X(flow) *f)
{
    for (ptrdiff_t l = 0; l < f->n_layers; l++)
        if (f->layers[l]->ops->context) return 1;
    return 0;
}
const unsigned char *X(flow_mask)(const X(flow) *f) { return f->n_layers ? X(layer_observed)(f->layers[0]) : NULL; }
const double *X(flow_band)(const X(flow) *f) { return f->n_layers ? X(layer_band)(f->layers[0]) : NULL; }
double X(flow_temperature)(const X(flow) *f) { return f->temperature; }
const char *X(flow_note)(const X(flow) *f) { return f->note ? f->note : ""; }

const double *X(flow_history)(const X(flow) *f, ptrdiff_t *steps)
{
    *steps = f->n_history;
    return (const double *)f->history;
}

pf_status X(flow_set_note)(X(flow) *f, const char *json)
{
    char *note = PF_ALLOC(char, (ptrdiff_t)strlen(json) + 1);
    if (!note) return PF_NO_MEMORY;
    strcpy(note, json);
    free(f->note);
    f->note = note;
    return PF_OK;
}

/* ---- by hand ---------------------------------------------------------------------------------------------- */

static pf_status X(new)(X(flow) **flow, int ndim, const ptrdiff_t *n, const double *box, int n_classes)
{
    pf_space space = {.ndim = ndim, .d = 1};
    *flow = NULL;
    if (ndim < 1 || ndim > 3) return pf_fail(PF_BAD_ARGUMENT, "shape: has 1 to 3 axes, not %d", ndim);
    if (n_classes < 0) return pf_fail(PF_BAD_ARGUMENT, "n_classes: %d is negative", n_classes);
    for (int i = 0; i < ndim; i++) {
        if (n[i] < 1 || n[i] > INT32_MAX || space.d > INT32_MAX / n[i])
            return pf_fail(PF_BAD_ARGUMENT, "shape: axis %d cannot have %td numbers", i, n[i]);
        space.n[i] = n[i];
        space.d *= n[i];
        if (ndim > 1) space.box[i] = box[i];
    }
    return X(flow_create)(flow, &space, n_classes);
}

pf_status X(flow_new)(X(flow) **flow, int ndim, const ptrdiff_t *n, const double *box, int n_classes)
{
    pf_begin();
    return pf_end(X(new)(flow, ndim, n, box, n_classes));
}

/* Appends the layer that a _new made, if it did; fill writes its first theta. */
static pf_status X(add)(X(flow) *f, pf_status status, X(layer) *const *made,
                        void (*fill)(double *theta, const X(layer) *l, const void *from), const void *from)
{
    if (!status && X(serves)(f))
        status = pf_fail(PF_BAD_ARGUMENT,
                         "a flow with conditions takes no more layers: its network is for those it has");
    if (status) {
        X(layer_release)(*made);
        return pf_end(status);
    }
    X(layer) *layer = *made;
    double *theta = PF_CALLOC(double, layer->n_theta);
    if (!theta) {
        X(layer_release)(layer);
        return pf_end(PF_NO_MEMORY);
    }
    if (fill) fill(theta, layer, from);
    status = X(flow_append)(f, layer, theta);
    if (!status) f->n_history = 0; /* of a fit of fewer layers */
    free(theta);
    return pf_end(status);
}

pf_status X(flow_add_scale)(X(flow) *f, double mean, double scale)
{
    X(layer) *layer = NULL;
    pf_begin();
    if (!isfinite(mean) || !isfinite(scale) || !isnormal((real)scale) || !(scale > 0))
        return pf_end(
            pf_fail(PF_BAD_ARGUMENT, "scale: must be positive and finite, mean finite, not %g and %g", scale, mean));
    return X(add)(f, X(scale_new)(&layer, mean, scale, f->space.d), &layer, NULL, NULL);
}

typedef struct {
    const double *w, *mean;
} X(affine_from);

static void X(fill_affine)(double *theta, const X(layer) *l, const void *from)
{
    const X(affine_from) *a = from;
    for (ptrdiff_t i = 0; i < l->d * l->d; i++) theta[i] = a->w ? a->w[i] : i % (l->d + 1) == 0;
    for (ptrdiff_t i = 0; a->mean && i < l->d; i++) theta[l->d * l->d + i] = a->mean[i];
}

pf_status X(flow_add_fill)(X(flow) *f, const unsigned char *observed, double mean, double scale)
{
    X(layer) *layer = NULL;
    pf_begin();
    int32_t *pixel = PF_ALLOC(int32_t, f->space.d);
    pf_fill from = {.pixel = pixel};
    pf_status status = pixel ? PF_OK : PF_NO_MEMORY;
    for (ptrdiff_t i = 0; i < f->space.d && !status; i++)
        if (!observed[i]) pixel[from.n++] = (int32_t)i;
    if (!status && f->n_layers) status = pf_fail(PF_BAD_ARGUMENT, "mask: must be the first layer of a flow");
    if (!status && !(isfinite(mean) && scale > 0 && isnormal((real)scale)))
        status = pf_fail(PF_BAD_ARGUMENT, "scale: %g is not a positive number, or mean not finite", scale);
    if (!status) status = X(fill_new)(&layer, &from, mean, scale, NULL, f->space.d);
    free(pixel);
    return X(add)(f, status, &layer, NULL, NULL);
}

pf_status X(flow_add_affine)(X(flow) *f, const double *w, const double *mean)
{
    X(layer) *layer = NULL;
    ptrdiff_t d = f->space.d;
    pf_begin();
    for (ptrdiff_t i = 0; w && i < d * d; i++)
        if (!isfinite(w[i])) return pf_end(pf_fail(PF_BAD_ARGUMENT, "matrix: is not finite"));
    for (ptrdiff_t i = 0; mean && i < d; i++)
        if (!isfinite(mean[i])) return pf_end(pf_fail(PF_BAD_ARGUMENT, "mean: is not finite"));
    if (w) {
        double *lu = PF_ALLOC(double, d *d), *work = PF_ALLOC(double, 2 * d);
        if (lu && work) memcpy(lu, w, (size_t)(d * d) * sizeof *lu);
        int singular = lu && work && !isfinite(pf_inverse(lu, d, work));
        pf_status status = lu && work ? PF_OK : PF_NO_MEMORY;
        free(lu), free(work);
        if (status || singular) return pf_end(status ? status : pf_fail(PF_BAD_ARGUMENT, "matrix: is singular"));
    }
    return X(add)(f, X(affine_new)(&layer, d), &layer, X(fill_affine), &(X(affine_from)){w, mean});
}

pf_status X(flow_add_bounds)(X(flow) *f, const double *bounds)
{
    X(layer) *layer = NULL;
    pf_begin();
    pf_column *column = PF_ALLOC(pf_column, f->space.d);
    pf_status status = column ? PF_OK : PF_NO_MEMORY;
    if (!status && f->n_layers) status = pf_fail(PF_BAD_ARGUMENT, "bounds: must be the first layer of a flow");
    for (ptrdiff_t j = 0; j < f->space.d && !status; j++) {
        double lo = bounds[2 * j], hi = bounds[2 * j + 1];
        if (!(lo < hi)) status = pf_fail(PF_BAD_ARGUMENT, "bounds: of column %td, %g is not below %g", j, lo, hi);
        else if (isfinite(lo) && isfinite(hi)) column[j] = (pf_column){PF_LOGIT, lo, hi};
        else if (isfinite(lo)) column[j] = (pf_column){PF_ABOVE, lo, 1};
        else if (isfinite(hi)) column[j] = (pf_column){PF_BELOW, hi, 1};
        else column[j] = (pf_column){PF_LINEAR, 0, 1};
    }
    if (!status) status = X(columns_new)(&layer, column, f->space.d);
    free(column);
    return X(add)(f, status, &layer, NULL, NULL);
}

typedef struct {
    ptrdiff_t k, m, classes;
    uint64_t seed, stream;
} X(sliced_from);

/* Identities with knots from -3 to 3, and random slices */
static void X(fill_sliced)(double *theta, const X(layer) *l, const void *from)
{
    const X(sliced_from) *s = from;
    ptrdiff_t splines = s->classes * (s->k ? s->k : l->d);
    for (ptrdiff_t i = 0; i < splines; i++, theta += 3 * s->m)
        for (ptrdiff_t j = 0; j < s->m; j++)
            theta[j] = theta[s->m + j] = j ? log(6 / (double)(s->m - 1)) : -3; /* slopes stay exp(0) */
    if (s->k) pf_stiefel_random(theta, s->k, l->d, s->seed, s->stream);
}

pf_status X(flow_add_sliced)(X(flow) *f, ptrdiff_t n_slices, ptrdiff_t n_knots, uint64_t seed)
{
    X(layer) *layer = NULL;
    X(sliced_from) from = {n_slices, n_knots, PF_MAX(f->classes, 1), seed, (uint64_t)f->n_layers + 1};
    pf_begin();
    return X(add)(f, X(sliced_new)(&layer, f->space.d, n_slices, n_knots, from.classes), &layer, X(fill_sliced), &from);
}

/* Each patch with slices of its own */
static void X(fill_patches)(double *theta, const X(layer) *l, const void *from)
{
    const X(layer) *inner = X(patch_inner)(l);
    X(sliced_from) one = *(const X(sliced_from) *)from;
    for (const double *end = theta + l->n_theta; theta < end; theta += inner->n_theta) {
        X(fill_sliced)(theta, inner, &one);
        one.stream += (uint64_t)1 << 32;
    }
}

pf_status X(flow_add_patch)(X(flow) *f, const ptrdiff_t *image, const ptrdiff_t *kernel, const ptrdiff_t *shift,
                            ptrdiff_t n_slices, ptrdiff_t n_knots, uint64_t seed)
{
    X(layer) *layer = NULL;
    X(sliced_from) from = {n_slices, n_knots, PF_MAX(f->classes, 1), seed, (uint64_t)f->n_layers + 1};
    pf_patches p;
    pf_begin();
    for (int i = 0; i < 3; i++) {
        p.image[i] = narrowed(image[i]);
        p.kernel[i] = narrowed(kernel[i]);
        if (i < 2) p.shift[i] = narrowed(shift[i]);
    }
    pf_status status = pf_patches_check(&p);
    if (!status && (ptrdiff_t)p.image[0] * p.image[1] * p.image[2] != f->space.d)
        status = pf_fail(PF_BAD_ARGUMENT, "image_shape: has %td numbers, a point of the flow %td",
                         (ptrdiff_t)p.image[0] * p.image[1] * p.image[2], f->space.d);
    if (!status) status = X(patch_new)(&layer, &p, n_slices, n_knots, from.classes);
    return X(add)(f, status, &layer, X(fill_patches), &from);
}

typedef struct {
    ptrdiff_t psi_knots, filter_knots;
} X(symmetric_from);

/* Psi the identity with knots from -3 to 3, T = 1 with knots from k = 0 to k_max */
static void X(fill_symmetric)(double *theta, const X(layer) *l, const void *from)
{
    const X(symmetric_from) *s = from;
    (void)l;
    for (ptrdiff_t j = 0; j < s->psi_knots; j++)
        theta[j] = theta[s->psi_knots + j] = j ? log(6 / (double)(s->psi_knots - 1)) : -3;
    theta += 3 * s->psi_knots;
    for (ptrdiff_t j = 1; j < s->filter_knots; j++) theta[j] = log(1 / (double)(s->filter_knots - 1));
}

pf_status X(flow_add_symmetric)(X(flow) *f, ptrdiff_t psi_knots, ptrdiff_t filter_knots)
{
    return X(flow_add_axial)(f, -1, psi_knots, filter_knots, 1); /* no axis */
}

pf_status X(flow_add_axial)(X(flow) *f, ptrdiff_t axis, ptrdiff_t psi_knots, ptrdiff_t filter_knots, ptrdiff_t mu_knots)
{
    X(layer) *layer = NULL;
    pf_begin();
    return X(add)(f, X(symmetric_new)(&layer, f->mesh, psi_knots, filter_knots, axis, mu_knots), &layer,
                  X(fill_symmetric), &(X(symmetric_from)){psi_knots, filter_knots});
}

/* g(c) = (c - mean) / scale with knots from -3 to 3 of it, S = 0 with knots from k = 0 to k_max */
static void X(fill_shift)(double *theta, const X(layer) *l, const void *from)
{
    const X(symmetric_from) *s = from;
    (void)l;
    for (ptrdiff_t j = 0; j < s->psi_knots; j++) theta[j] = 6 * (double)j / (double)(s->psi_knots - 1) - 3;
    theta += s->psi_knots;
    for (ptrdiff_t j = 1; j < s->filter_knots; j++) theta[j] = log(1 / (double)(s->filter_knots - 1));
}

pf_status X(flow_add_shift)(X(flow) *f, double mean, double scale, ptrdiff_t knots, ptrdiff_t filter_knots)
{
    X(layer) *layer = NULL;
    double p[SHIFT_KNOTS_MOST] = {0};
    pf_begin();
    if (!isfinite(mean) || !(scale > 0)) return pf_end(pf_fail(PF_BAD_ARGUMENT, "scale: %g is not positive", scale));
    for (ptrdiff_t j = 0; j < knots && knots <= SHIFT_KNOTS_MOST; j++)
        p[j] = mean + scale * (6 * (double)j / (double)(knots - 1) - 3);
    return X(add)(f, X(shift_new)(&layer, f->mesh, p, knots, filter_knots), &layer, X(fill_shift),
                  &(X(symmetric_from)){knots, filter_knots});
}

static void X(fill_coupling)(double *theta, const X(layer) *l, const void *from)
{
    (void)from;
    X(coupling_start)(theta, l);
}

pf_status X(flow_add_coupling)(X(flow) *f, double split, int large, ptrdiff_t channels, ptrdiff_t knots)
{
    X(layer) *layer = NULL;
    pf_begin();
    return X(add)(f, X(coupling_new)(&layer, f->mesh, split, large, channels, knots), &layer, X(fill_coupling), NULL);
}

static void X(fill_autoregressive)(double *theta, const X(layer) *l, const void *from)
{
    X(autoregressive_start)(theta, l, from);
}

/* A flow without conditions gets those that the layer looks at. */
static pf_status X(same_conditions)(X(flow) *f, const pf_network *n)
{
    const ptrdiff_t none = 1;
    if (!n->n_y) return PF_OK;
    if (f->net && f->net->n_y != n->n_y)
        return pf_fail(PF_BAD_ARGUMENT, "conditions: there are %td of the layer, and %td of the flow", n->n_y,
                       f->net->n_y);
    if (f->net) return PF_OK;
    PF_TRY(X(conditioner_new)(&f->net, NULL, 0, n->n_y, &none, 1));
    for (ptrdiff_t l = 0; l < f->n_layers; l++) PF_TRY(X(conditioner_grow)(f->net));
    memcpy(f->net->stats, n->stats, (size_t)(4 * n->n_y) * sizeof(double));
    return PF_OK;
}

pf_status X(flow_add_autoregressive)(X(flow) *f, const pf_network *n)
{
    X(layer) *layer = NULL;
    pf_begin();
    pf_status status = f->space.ndim == 1 ? PF_OK : pf_fail(PF_BAD_ARGUMENT, "autoregressive layers are for tables");
    for (ptrdiff_t l = 0; l < f->n_layers && !status; l++)
        if (f->layers[l]->ops->conditional) status = pf_fail(PF_BAD_ARGUMENT, "autoregressive layers are for tables");
    if (!status) status = X(autoregressive_new)(&layer, f->space.d, n);
    if (!status) status = X(same_conditions)(f, n);
    return X(add)(f, status, &layer, X(fill_autoregressive), n);
}

/* ---- data -------------------------------------------------------------------------------------------------- */

pf_status X(check_weights)(const X(data) *data, const char *name)
{
    double sum = 0;
    for (ptrdiff_t i = 0; data->weight && i < data->n; i++) {
        if (!isfinite(data->weight[i]) || data->weight[i] < 0)
            return pf_fail(PF_BAD_ARGUMENT, "weight_%s: row %td is %g; weights are finite and not negative", name, i,
                           data->weight[i]);
        sum += data->weight[i];
    }
    if (data->weight && !(sum > 0)) return pf_fail(PF_BAD_ARGUMENT, "weight_%s: all weights are zero", name);
    return PF_OK;
}
#endif
