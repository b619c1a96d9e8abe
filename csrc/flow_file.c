/* A flow's file. After what every pyflow file begins with (file.h): the space and the number of classes; the layers,
 * each its kind and its shape with their lengths; the sizes of the network; all parameters; statistics of conditions
 * and the network's weights; the record of the fit. Whatever is read is bounded by what is there before memory is asked
 * for, and checked to be finite. */
#ifndef real
#include <stdio.h>

#include "flow.h"

static pf_status damaged(pf_reader *r, const char *what)
{
    if (!r->status) r->status = pf_fail(PF_BAD_FILE, "the file is damaged: %s", what);
    return r->status;
}

static pf_status read_space(pf_space *space, pf_reader *r)
{
    *space = (pf_space){.ndim = (int)pf_get_int(r, 1, 3), .d = 1};
    for (int i = 0; i < space->ndim; i++) {
        space->n[i] = pf_get_int(r, 1, INT32_MAX);
        if (space->d > INT32_MAX / space->n[i]) return damaged(r, "a mesh is too large");
        space->d *= space->n[i];
    }
    pf_get_reals_into(r, space->box, 3, sizeof(double));
    for (int i = 0; i < space->ndim && space->ndim > 1; i++)
        if (!(space->box[i] > 0)) damaged(r, "a box is not positive");
    return r->status;
}

#define TWICE "flow_file.c"
#include "twice.h"
#else

/* ---- writing ---------------------------------------------------------------------------------------------- */

static pf_status X(begin)(pf_writer *w, const X(flow) *f)
{
    const char *note = X(flow_note)(f);
    ptrdiff_t room = (ptrdiff_t)strlen(note) + 512;
    char shape[80], *json = PF_ALLOC(char, room);
    int at = 0;
    if (!json) return PF_NO_MEMORY;
    for (int i = 0; i < f->space.ndim; i++)
        at += snprintf(shape + at, sizeof shape - (size_t)at, i ? ", %td" : "%td", f->space.n[i]);
    snprintf(json, (size_t)room,
             "{\"format\": \"pyflow\", \"version\": %d, \"dtype\": \"float%d\", \"shape\": [%s], \"classes\": %d, "
             "\"conditions\": %td, \"layers\": %td, \"note\": %s}",
             PF_FILE_VERSION, REAL_BITS, shape, f->classes, X(flow_conditions)(f), f->n_layers, *note ? note : "null");
    pf_file_begin(w, REAL_BITS, json);
    free(json);
    return w->status;
}

static void X(write_layers)(pf_writer *w, const X(flow) *f)
{
    pf_put_int(w, f->n_layers);
    for (ptrdiff_t l = 0; l < f->n_layers; l++) {
        size_t start = pf_put_section(w, f->layers[l]->ops->kind);
        f->layers[l]->ops->write(f->layers[l], w);
        pf_end_section(w, start);
    }
}

static void X(write_record)(pf_writer *w, const X(flow) *f)
{
    double numbers[3] = {f->temperature, f->noise[0], f->noise[1]};
    pf_put_array(w, numbers, 3, sizeof(double));
    pf_put_int(w, f->noise_condition);
    pf_put_int(w, f->noise_t ? 1 + f->noise_map : 0);
    if (f->noise_t) pf_put_array(w, f->noise_t, X(noise_size)(f), sizeof(real));
    pf_put_int(w, f->n_history);
    pf_put_array(w, f->history, f->n_history, sizeof *f->history);
    pf_put_text(w, X(flow_note)(f));
    pf_put_int(w, f->n_state);
    pf_put_array(w, f->state, f->n_state, 1);
}

static pf_status X(write)(const X(flow) *f, void **bytes, size_t *n)
{
    pf_writer w = {0};
    const X(conditioner) *c = f->net;
    *bytes = NULL;
    PF_TRY(X(begin)(&w, f));
    pf_put_int(&w, f->space.ndim);
    for (int i = 0; i < f->space.ndim; i++) pf_put_int(&w, f->space.n[i]);
    pf_put_array(&w, f->space.box, 3, sizeof(double));
    pf_put_int(&w, f->classes);
    X(write_layers)(&w, f);
    pf_put_int(&w, c ? c->n_y : 0);
    pf_put_int(&w, c ? c->net->layers - 1 : 0);
    for (int l = 1; c && l < c->net->layers; l++) pf_put_int(&w, c->net->size[l]);
    pf_put_array(&w, f->theta, f->n_theta, sizeof(double));
    if (c) {
        pf_put_array(&w, c->stats, 4 * c->n_y, sizeof(double));
        pf_put_array(&w, c->net->w, c->net->n_w, sizeof(real));
    }
    X(write_record)(&w, f);
    pf_file_end(&w);
    if (w.status) free(w.bytes);
    else *bytes = w.bytes;
    *n = w.n;
    return w.status;
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

/* One layer's shape, which must use up its section. */
static pf_status X(read_layer)(X(layer) **layer, pf_reader *r, const X(flow) *f)
{
    char kind[PF_SECTION_KIND];
    ptrdiff_t k = 0;
    pf_reader section = pf_get_section(r, kind);
    section.whole = r->whole;
    while (X(layer_kinds)[k] && strcmp(X(layer_kinds)[k]->kind, kind)) k++;
    if (!r->status && !X(layer_kinds)[k]) damaged(r, "a layer of no kind that is known");
    if (r->status) return r->status;
    pf_status status = X(layer_kinds)[k]->read(layer, &section, &f->space, f->mesh, PF_MAX(f->classes, 1));
    if (status) return r->status = status == PF_BAD_ARGUMENT ? PF_BAD_FILE : status;
    status = pf_close_section(r, &section);
    if (status) X(layer_release)(*layer);
    return status;
}

typedef struct {
    ptrdiff_t n_layers, n_theta, n_y, hidden[MLP_LAYERS];
    int n_hidden;
    X(layer) **layers;
    double *theta;
} X(parts);

/* Shapes of all layers, and all parameters: nothing that is not in the file is allocated. */
static pf_status X(read_parts)(X(parts) *p, pf_reader *r, const X(flow) *f)
{
    ptrdiff_t n_layers = pf_get_int(r, 0, (int64_t)(pf_left(r) / 16));
    p->layers = r->status ? NULL : PF_ALLOC(X(layer) *, n_layers);
    if (!p->layers) return r->status ? r->status : PF_NO_MEMORY;
    for (; p->n_layers < n_layers; p->n_layers++) {
        PF_TRY(X(read_layer)(p->layers + p->n_layers, r, f));
        const X(layer) *l = p->layers[p->n_layers];
        for (ptrdiff_t j = 0; X(layer_bounds)(l) && p->n_layers && j < 2 * l->d && !r->status; j++)
            if (isfinite(X(layer_bounds)(l)[j])) damaged(r, "a layer that is not the first has bounds");
        if (X(layer_draws)(l) && p->n_layers) damaged(r, "a layer that is not the first fills fields in");
        p->n_theta += l->n_theta;
        if (p->n_theta > (ptrdiff_t)(r->n / sizeof(double))) damaged(r, "parameters are missing");
        if (r->status) {
            p->n_layers++; /* to be released too */
            return r->status;
        }
    }
    p->n_y = pf_get_int(r, 0, MOST_CONDITIONS);
    for (ptrdiff_t l = 0; l < n_layers && !r->status; l++)
        if (X(layer_conditions)(p->layers[l]) && X(layer_conditions)(p->layers[l]) != p->n_y)
            damaged(r, "a layer looks at other conditions");
    p->n_hidden = (int)pf_get_int(r, p->n_y ? 1 : 0, p->n_y ? MLP_LAYERS - 1 : 0);
    for (int l = 0; l < p->n_hidden; l++) p->hidden[l] = pf_get_int(r, 1, 1 << 16);
    PF_TRY(r->status);
    p->theta = pf_get_reals(r, p->n_theta, sizeof(double));
    return r->status;
}

static pf_status X(read_conditioner)(X(flow) *f, const X(parts) *p, pf_reader *r)
{
    double weights = 0, left = (double)pf_left(r);
    ptrdiff_t n_in = p->n_y, n_row = 0;
    for (ptrdiff_t l = 0; l < f->n_layers; l++)
        if (f->layers[l]->ops->conditional) n_row += f->layers[l]->n_theta;
    for (int l = 0; l < p->n_hidden; n_in = p->hidden[l++]) weights += (double)(n_in + 1) * (double)p->hidden[l];
    weights += (double)(n_in + 1) * (double)n_row;
    if (weights * (double)sizeof(real) > left) return damaged(r, "a network's weights are missing");
    PF_TRY(X(conditioner_new)(&f->net, f->layers, f->n_layers, p->n_y, p->hidden, p->n_hidden));
    pf_get_reals_into(r, f->net->stats, 4 * p->n_y, sizeof(double));
    for (ptrdiff_t j = 0; j < p->n_y; j++)
        if (!(f->net->stats[p->n_y + j] > 0)) damaged(r, "a condition's scale is not positive");
    pf_get_reals_into(r, f->net->net->w, f->net->net->n_w, sizeof(real));
    PF_TRY(r->status);
    return X(flow_own_tables)(f); /* the served layers' are the workers' */
}

static pf_status X(read_record)(X(flow) *f, pf_reader *r)
{
    double numbers[3] = {1};
    pf_get_reals_into(r, numbers, 3, sizeof(double));
    f->temperature = numbers[0];
    memcpy(f->noise, numbers + 1, sizeof f->noise);
    if (!(f->temperature > 0 && f->noise[0] >= 0 && f->noise[1] >= f->noise[0]))
        damaged(r, "a temperature or a noise makes no sense");
    f->noise_condition = (int)pf_get_int(r, 0, f->net != NULL);
    int coloured = (int)pf_get_int(r, 0, f->mesh ? 2 : 0);
    if (coloured) {
        f->noise_map = coloured == 2;
        f->noise_t = pf_get_reals(r, X(noise_size)(f), sizeof(real));
        for (ptrdiff_t s = 0; f->noise_t && s < X(noise_size)(f); s++)
            if (f->noise_t[s] < 0) damaged(r, "a noise's spectrum or map makes no sense");
    }
    ptrdiff_t n_history = pf_get_int(r, 0, (int64_t)(pf_left(r) / sizeof(pf_step)));
    f->history = pf_get_array(r, n_history, sizeof(pf_step));
    if (f->history) f->n_history = f->history_room = n_history;
    f->note = pf_get_text(r);
    ptrdiff_t n_state = pf_get_int(r, 0, (int64_t)pf_left(r));
    f->state = pf_get_array(r, n_state, 1);
    if (f->state) f->n_state = n_state;
    return pf_file_close(r);
}

/* Parameters of a manifold lie on it, but for rounding: elsewhere an inverse is none. */
static pf_status X(check_manifold)(const X(layer) *l, const double *theta)
{
    if (!l->ops->retract) return PF_OK;
    double *near = PF_ALLOC(double, l->n_theta), worst = 0;
    if (!near) return PF_NO_MEMORY;
    memcpy(near, theta, (size_t)l->n_theta * sizeof *near);
    l->ops->retract(l, near);
    for (ptrdiff_t j = 0; j < l->n_theta; j++) worst = PF_MAX(worst, fabs(near[j] - theta[j]));
    free(near);
    return worst < 1e-6 ? PF_OK : pf_fail(PF_BAD_FILE, "the file is damaged: slices are not orthonormal");
}

static pf_status X(read_flow)(X(flow) **flow, X(parts) *p, pf_reader *r)
{
    pf_space space;
    PF_TRY(read_space(&space, r));
    int classes = (int)pf_get_int(r, 0, INT32_MAX);
    PF_TRY(r->status);
    PF_TRY(X(flow_create)(flow, &space, classes));
    X(flow) *f = *flow;
    PF_TRY(X(read_parts)(p, r, f));
    ptrdiff_t at = 0;
    for (ptrdiff_t l = 0; l < p->n_layers; l++) {
        X(layer) *layer = p->layers[l];
        p->layers[l] = NULL; /* taken over */
        ptrdiff_t n_theta = layer->n_theta;
        pf_status status = X(check_manifold)(layer, p->theta + at);
        if (status) X(layer_release)(layer);
        PF_TRY(status);
        PF_TRY(X(flow_append)(f, layer, p->theta + at));
        at += n_theta;
    }
    if (p->n_y) PF_TRY(X(read_conditioner)(f, p, r));
    return X(read_record)(f, r);
}

static pf_status X(read)(X(flow) **flow, const void *bytes, size_t n)
{
    pf_reader r;
    X(parts) parts = {0};
    *flow = NULL;
    PF_TRY(pf_file_open(&r, bytes, n, REAL_BITS));
    pf_status status = X(read_flow)(flow, &parts, &r);
    for (ptrdiff_t l = 0; l < parts.n_layers; l++) X(layer_release)(parts.layers[l]);
    free(parts.layers);
    free(parts.theta);
    if (status) {
        X(flow_free)(*flow);
        *flow = NULL;
    }
    return status == PF_BAD_ARGUMENT ? PF_BAD_FILE : status;
}

/* ---- the public functions --------------------------------------------------------------------------------- */

pf_status X(flow_write)(const X(flow) *flow, void **bytes, size_t *n)
{
    pf_begin();
    return pf_end(X(write)(flow, bytes, n));
}

pf_status X(flow_read)(X(flow) **flow, const void *bytes, size_t n)
{
    pf_begin();
    return pf_end(X(read)(flow, bytes, n));
}

pf_status X(flow_save)(const X(flow) *flow, const char *path)
{
    void *bytes;
    size_t n;
    pf_begin();
    pf_status status = X(write)(flow, &bytes, &n);
    if (!status) status = pf_file_write(path, bytes, n);
    free(bytes);
    return pf_end(status);
}

pf_status X(flow_load)(X(flow) **flow, const char *path)
{
    unsigned char *bytes;
    size_t n;
    pf_begin();
    *flow = NULL;
    pf_status status = pf_file_read(&bytes, &n, path);
    if (!status) status = X(read)(flow, bytes, n);
    free(bytes);
    return pf_end(status);
}
#endif
