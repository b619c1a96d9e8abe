/* The fits: GIS, SIG, symmetric flows, and the trainer for any flow. */
#ifndef real
#include "core.h"

/* What one fit was asked to do. */
typedef struct {
    core_state *state;
    call call;
    points x[2]; /* training, validation; source NULL: none */
    PyArrayObject *y[2], *weight[2], *label[2], *context[2], *bounds, *schedule, *noise_k, *noise_power, *frozen, *mask,
        *noise_map, *fill[6], *band[3];                      /* open_fill and open_band name them */
    void *converted[2];                                      /* x, where the core needs it in memory and it is not */
    PyObject *progress, *warn, *show, *scratch, *checkpoint; /* callables or NULL; bytes or NULL */
    PyObject *sum;                                           /* callable or NULL */
    pf_ranks ranks;
    flow_object *flow; /* to go on from, or NULL */
    int bits, stream, read_failed;
    double box[POINT_AXES];
    pf_gis_options gis;
    pf_sig_options sig;
    pf_sig_stage stages[64];
    pf_symmetric_options symmetric;
    pf_fill window;
    pf_band range;
} job;

typedef enum { GIS, SIG, SYMMETRIC, TRAIN } fit;

/* ---- the core calls these without the GIL ------------------------------------------------------------------ */

static int report(void *user, const pf_progress *p)
{
    job *j = user;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (!call_failed(&j->call)) {
        PyObject *result = PyObject_CallFunction(j->progress, "snnddddd", p->stage, p->step, p->best, p->logp_train,
                                                 p->logp_validate, p->distance, p->objective, p->seconds);
        if (!result) call_keep(&j->call);
        Py_XDECREF(result);
    }
    int stop = call_failed(&j->call);
    PyGILState_Release(gil);
    return stop;
}

static void tell(void *user, pf_status status, const char *message)
{
    job *j = user;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (!call_failed(&j->call)) {
        PyObject *result = PyObject_CallFunction(j->warn, "sO", message,
                                                 status == PF_BAD_ARGUMENT ? PyExc_UserWarning : PyExc_RuntimeWarning);
        if (!result) call_keep(&j->call);
        Py_XDECREF(result);
    }
    PyGILState_Release(gil);
}

static int show(void *user, ptrdiff_t layers, const void *x, int bits, ptrdiff_t n)
{
    job *j = user;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (!call_failed(&j->call)) {
        npy_intp shape[2] = {n, j->x[0].d};
        PyObject *array = PyArray_SimpleNew(2, shape, bits == 32 ? NPY_FLOAT : NPY_DOUBLE), *result = NULL;
        if (array) {
            memcpy(PyArray_DATA((PyArrayObject *)array), x, (size_t)PyArray_NBYTES((PyArrayObject *)array));
            result = PyObject_CallFunction(j->show, "nN", layers, array);
        }
        if (!result) call_keep(&j->call);
        Py_XDECREF(result);
    }
    int stop = call_failed(&j->call);
    PyGILState_Release(gil);
    return stop;
}

/* The bytes of x are sum()'s to change, as long as it runs. */
static int sum_over_ranks(void *user, void *x, ptrdiff_t n)
{
    job *j = user;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (!call_failed(&j->call)) {
        PyObject *view = PyMemoryView_FromMemory(x, n * 8, PyBUF_WRITE);
        PyObject *result = view ? PyObject_CallFunctionObjArgs(j->sum, view, NULL) : NULL;
        if (!result) call_keep(&j->call);
        Py_XDECREF(result);
        Py_XDECREF(view);
    }
    int stop = call_failed(&j->call);
    PyGILState_Release(gil);
    return stop;
}

static int read_points(job *j, const points *p, void *to, int bits, ptrdiff_t first, ptrdiff_t n)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    if (!call_failed(&j->call) && points_read(p, to, bits, first, n)) call_keep(&j->call);
    j->read_failed = call_failed(&j->call);
    PyGILState_Release(gil);
    return j->read_failed;
}

#define TWICE "python/fits.c" /* seen from twice.h */
#include "twice.h"

/* ---- arguments -------------------------------------------------------------------------------------------- */

/* Takes an argument from kwargs, or NULL: a borrowed reference that args or the caller keeps alive. */
static PyObject *take(PyObject *kwargs, const char *name, PyObject *keep)
{
    PyObject *value = PyDict_GetItemString(kwargs, name);
    if (!value) return NULL;
    if (PyList_Append(keep, value) || PyDict_DelItemString(kwargs, name)) return NULL;
    return given(value) ? value : NULL;
}

/* A path as bytes, a new reference */
static int take_path(PyObject **path, PyObject *kwargs, const char *name, PyObject *keep)
{
    PyObject *value = take(kwargs, name, keep);
    return value && !PyUnicode_FSConverter(value, path) ? -1 : 0;
}

static const char *const names[2][4] = {{"data_train", "y_train", "weight_train", "labels"},
                                        {"data_validate", "y_validate", "weight_validate", "labels_validate"}};

static int open_data(job *j, fit fit, PyObject *kwargs, PyObject *keep)
{
    int ndim = fit == SYMMETRIC ? 2 : 1, most = fit <= SIG ? 1 : 3;
    ptrdiff_t shape[POINT_AXES];
    const ptrdiff_t *wanted = NULL;
    if (j->flow) {
        const ptrdiff_t *of = j->bits == 32 ? pf32_flow_shape(j->flow->pf32_flow) : pf64_flow_shape(j->flow->pf64_flow);
        ndim = most = j->bits == 32 ? pf32_flow_ndim(j->flow->pf32_flow) : pf64_flow_ndim(j->flow->pf64_flow);
        memcpy(shape, of, sizeof shape);
        if (fit == TRAIN) wanted = shape;
    }
    for (int i = 0; i < 2; i++) {
        PyObject *value[4];
        for (int a = 0; a < 4; a++) value[a] = take(kwargs, names[i][a], keep);
        if (PyErr_Occurred()) return -1;
        if (!value[0] && i == 0) {
            PyErr_SetString(PyExc_TypeError, "data_train: is missing");
            return -1;
        }
        if (!value[0]) continue;
        points *p = j->x + i;
        if (points_open(p, value[0], names[i][0], ndim, most, wanted)) return -1;
        if (p->one) {
            PyErr_Format(PyExc_ValueError, "%s: is a single point; it must have an axis that counts points", p->name);
            return -1;
        }
        if (i == 0 && !wanted) { /* validation points are like training ones */
            memcpy(shape, p->shape, sizeof shape);
            ndim = most = p->ndim;
            wanted = shape;
        }
        npy_intp n_y = j->y[0] ? PyArray_DIM(j->y[0], 1) : -1;
        if (value[1] && !(j->y[i] = matrix_open(value[1], names[i][1], p->n, n_y))) return -1;
        if (value[2] && !(j->weight[i] = vector_open(value[2], names[i][2], NPY_DOUBLE, p->n))) return -1;
        if (value[3] && !(j->label[i] = vector_open(value[3], names[i][3], NPY_INT32, p->n))) return -1;
    }
    if (j->x[0].d) return 0;
    PyErr_SetString(PyExc_ValueError, fit <= SIG ? "data_train: has no columns" : "data_train: its fields are empty");
    return -1;
}

static int take_image(ptrdiff_t *image, PyObject *shape)
{
    if (PyTuple_Check(shape)) return PyArg_ParseTuple(shape, "nnn", image, image + 1, image + 2) ? 0 : -1;
    PyErr_Format(PyExc_TypeError, "image: must be (height, width, channels), not %R", shape);
    return -1;
}

/* Where the options of a greedy fit, GIS or SIG, have what both are told. */
typedef struct {
    const double **bounds;
    const char **scratch;
    int *n_classes;
    ptrdiff_t *image;
} greedy;

static int open_greedy(job *j, const greedy *to, void *options, const pf_option *list, PyObject *kwargs, PyObject *keep)
{
    PyObject *bounds = take(kwargs, "bounds", keep), *classes = take(kwargs, "n_classes", keep),
             *stream = take(kwargs, "stream", keep), *image = take(kwargs, "image", keep);
    if (PyErr_Occurred() || options_take(options, list, kwargs)) return -1;
    if (bounds && !(j->bounds = matrix_open(bounds, "bounds", j->x[0].d, 2))) return -1;
    if (classes) *to->n_classes = (int)PyLong_AsLong(classes);
    if (stream) j->stream = PyObject_IsTrue(stream);
    if (image && take_image(to->image, image)) return -1;
    if (take_path(&j->scratch, kwargs, "scratch", keep) || PyErr_Occurred()) return -1;
    *to->bounds = data_or_null(j->bounds);
    *to->scratch = j->scratch ? PyBytes_AS_STRING(j->scratch) : NULL;
    return 0;
}

/* (sum, rank, size, rows, rows), or NULL */
static int open_ranks(const pf_ranks **to, job *j, PyObject *kwargs, PyObject *keep)
{
    PyObject *ranks = take(kwargs, "ranks", keep);
    pf_ranks *r = &j->ranks;
    if (!ranks) return PyErr_Occurred() ? -1 : 0;
    if (!PyTuple_Check(ranks)) {
        PyErr_Format(PyExc_TypeError, "ranks: must be (sum, rank, size, rows, rows), not %R", ranks);
        return -1;
    }
    if (!PyArg_ParseTuple(ranks, "Oiinn", &j->sum, &r->rank, &r->size, r->rows, r->rows + 1)) return -1;
    r->sum = sum_over_ranks, r->user = j, *to = r;
    return 0;
}

static int open_gis(job *j, PyObject *kwargs, PyObject *keep)
{
    pf_gis_options *o = &j->gis;
    return open_greedy(j, &(greedy){&o->bounds, &o->scratch, &o->n_classes, o->image}, o, pf_gis_list, kwargs, keep);
}

/* schedule: rows of layers, kernel[3], slices */
static int take_schedule(job *j, PyObject *schedule)
{
    Py_ssize_t n = PyObject_Size(schedule);
    if (n < 0 || !(j->schedule = matrix_open(schedule, "schedule", n, 5))) return -1;
    if (n > 64) {
        PyErr_Format(PyExc_ValueError, "schedule: has %zd entries; 64 are the most", n);
        return -1;
    }
    const double *from = PyArray_DATA(j->schedule);
    for (Py_ssize_t i = 0; i < n; i++, from += 5) {
        pf_sig_stage *s = j->stages + i;
        s->layers = (ptrdiff_t)from[0], s->slices = (ptrdiff_t)from[4];
        for (int a = 0; a < 3; a++) s->kernel[a] = (ptrdiff_t)from[1 + a];
    }
    j->sig.stages = j->stages, j->sig.n_stages = n;
    return 0;
}

static int open_sig(job *j, PyObject *kwargs, PyObject *keep)
{
    pf_sig_options *o = &j->sig;
    PyObject *schedule = take(kwargs, "schedule", keep);
    j->show = take(kwargs, "callback", keep);
    if (PyErr_Occurred()) return -1;
    greedy to = {&o->bounds, &o->scratch, &o->n_classes, o->image};
    if (open_greedy(j, &to, o, pf_sig_list, kwargs, keep) || (schedule && take_schedule(j, schedule))) return -1;
    if (j->show) o->show = show;
    return 0;
}

/* Arrays that say how unobserved pixels are drawn, or none of them */
static int open_fill(job *j, PyObject *kwargs, PyObject *keep)
{
    static const char *const names[] = {"fill_pixel",  "fill_neighbour", "fill_range",
                                        "fill_weight", "fill_spread",    "fill_moments"};
    PyObject *value[6];
    for (int i = 0; i < 6; i++) value[i] = take(kwargs, names[i], keep);
    if (PyErr_Occurred()) return -1;
    for (int i = 0; i < 6; i++)
        if (!value[i]) return 0;
    Py_ssize_t n = PyObject_Size(value[0]), sizes[6] = {n, 0, 0, 0, n, 2};
    for (int i = 1; i < 4; i++)
        if ((sizes[i] = PyObject_Size(value[i])) < 0) return -1;
    for (int i = 0; i < 6; i++)
        if (!(j->fill[i] = vector_open(value[i], names[i], i < 2 ? NPY_INT32 : NPY_DOUBLE, sizes[i]))) return -1;
    pf_fill *f = &j->window;
    *f = (pf_fill){.n = n, .near = n ? sizes[1] / n : 0, .n_y = sizes[2] / 2};
    if (sizes[1] != n * f->near || sizes[3] != (f->n_y + 1) * (f->n_y + 2) / 2 * n * (f->near + 1)) {
        PyErr_SetString(PyExc_ValueError, "fill: its arrays do not fit together");
        return -1;
    }
    f->pixel = PyArray_DATA(j->fill[0]);
    f->neighbour = PyArray_DATA(j->fill[1]);
    f->centre = PyArray_DATA(j->fill[2]);
    f->reach = f->centre + f->n_y;
    f->weight = PyArray_DATA(j->fill[3]);
    f->spread = PyArray_DATA(j->fill[4]);
    const double *moments = PyArray_DATA(j->fill[5]);
    f->mean = moments[0], f->scale = moments[1];
    j->symmetric.fill = f;
    return 0;
}

/* Arrays that say which modes a flow is of, and how others are drawn, or none of them */
static int open_band(job *j, PyObject *kwargs, PyObject *keep)
{
    static const char *const names[] = {"band_k", "band_range", "band_level"};
    PyObject *value[3];
    for (int i = 0; i < 3; i++) value[i] = take(kwargs, names[i], keep);
    if (PyErr_Occurred()) return -1;
    for (int i = 0; i < 3; i++)
        if (!value[i]) return 0;
    Py_ssize_t n = PyObject_Size(value[1]), n_y = n / 2, sizes[3] = {2, n, (n_y + 1) * (n_y + 2)};
    if (n < 0) return -1;
    for (int i = 0; i < 3; i++)
        if (!(j->band[i] = vector_open(value[i], names[i], NPY_DOUBLE, sizes[i]))) return -1;
    const double *k = PyArray_DATA(j->band[0]), *range = PyArray_DATA(j->band[1]);
    j->range = (pf_band){.k_min = k[0], .k_max = k[1], .n_y = n_y, .centre = range, .reach = range + n_y};
    j->range.level = PyArray_DATA(j->band[2]);
    j->symmetric.band = &j->range;
    return 0;
}

static int open_training(job *j, fit fit, PyObject *kwargs, PyObject *keep)
{
    static const char *const fields[2] = {"condition_field", "condition_field_validate"};
    pf_train_options *o = &j->symmetric.train;
    for (int i = 0; i < 2; i++) {
        const points *p = j->x + i;
        PyObject *context = take(kwargs, fields[i], keep);
        if (context && !(j->context[i] = fields_open(context, fields[i], j->bits, p->n, p->ndim, p->shape))) return -1;
    }
    PyObject *box = take(kwargs, "box", keep), *k = take(kwargs, "noise_k", keep),
             *power = take(kwargs, "noise_power", keep), *frozen = take(kwargs, "frozen", keep),
             *mask = take(kwargs, "mask", keep), *map = take(kwargs, "noise_map", keep);
    if (PyErr_Occurred() || options_take(o, pf_train_list, kwargs)) return -1;
    if (fit == SYMMETRIC) {
        if (options_take(&j->symmetric, pf_symmetric_list, kwargs)) return -1;
        PyArrayObject *a = box ? vector_open(box, "box", NPY_DOUBLE, j->x[0].ndim) : NULL;
        if (!a) {
            if (!box) PyErr_SetString(PyExc_TypeError, "box: is missing");
            return -1;
        }
        memcpy(j->box, PyArray_DATA(a), (size_t)j->x[0].ndim * sizeof(double));
        Py_DECREF(a);
        if (mask && !(j->mask = vector_open(mask, "mask", NPY_UINT8, j->x[0].d))) return -1;
        j->symmetric.observed = data_or_null(j->mask);
        if (open_fill(j, kwargs, keep) || open_band(j, kwargs, keep)) return -1;
    }
    if (power) {
        Py_ssize_t n = k ? PyObject_Size(k) : 0;
        if (n < 0 || !(j->noise_k = vector_open(k ? k : power, "noise_k", NPY_DOUBLE, n)) ||
            !(j->noise_power = vector_open(power, "noise_power", NPY_DOUBLE, n)))
            return -1;
        o->noise_k = PyArray_DATA(j->noise_k);
        o->noise_power = PyArray_DATA(j->noise_power);
        o->noise_knots = n;
    }
    if (map && !(j->noise_map = vector_open(map, "noise_map", NPY_DOUBLE, j->x[0].d))) return -1;
    o->noise_map = data_or_null(j->noise_map);
    if (frozen && j->flow) {
        ptrdiff_t n = j->bits == 32 ? pf32_flow_layers(j->flow->pf32_flow) : pf64_flow_layers(j->flow->pf64_flow);
        if (!(j->frozen = vector_open(frozen, "frozen", NPY_INT, n))) return -1;
        o->frozen = PyArray_DATA(j->frozen);
    }
    return 0;
}

static int open_watch(pf_watch *w, job *j, PyObject *kwargs, PyObject *keep)
{
    PyObject *note = take(kwargs, "note", keep);
    j->progress = take(kwargs, "progress", keep);
    j->warn = take(kwargs, "warn", keep);
    if (take_path(&j->checkpoint, kwargs, "checkpoint", keep) || PyErr_Occurred()) return -1;
    *w = (pf_watch){.user = j};
    if (j->progress) w->progress = report;
    if (j->warn) w->warn = tell;
    w->checkpoint = j->checkpoint ? PyBytes_AS_STRING(j->checkpoint) : NULL;
    if (note && !(w->note = PyUnicode_AsUTF8(note))) return -1;
    return 0;
}

static void job_close(job *j)
{
    for (int i = 0; i < 2; i++) {
        points_close(j->x + i);
        Py_XDECREF(j->y[i]);
        Py_XDECREF(j->weight[i]);
        Py_XDECREF(j->label[i]);
        Py_XDECREF(j->context[i]);
        PyMem_Free(j->converted[i]);
    }
    Py_XDECREF(j->bounds);
    Py_XDECREF(j->schedule);
    Py_XDECREF(j->noise_k);
    Py_XDECREF(j->noise_power);
    Py_XDECREF(j->frozen);
    Py_XDECREF(j->mask);
    Py_XDECREF(j->noise_map);
    for (int i = 0; i < 6; i++) Py_XDECREF(j->fill[i]);
    for (int i = 0; i < 3; i++) Py_XDECREF(j->band[i]);
    Py_XDECREF(j->scratch);
    Py_XDECREF(j->checkpoint);
}

static int open_flow(job *j, fit fit, PyObject *kwargs, PyObject *keep)
{
    PyObject *flow = take(kwargs, "flow", keep);
    if (PyErr_Occurred()) return -1;
    if (flow && !Py_IS_TYPE(flow, j->state->flow_type)) {
        PyErr_Format(PyExc_TypeError, "flow: must be a pyflow._core.Flow, not %s", Py_TYPE(flow)->tp_name);
        return -1;
    }
    if (!flow && fit == TRAIN) {
        PyErr_SetString(PyExc_TypeError, "flow: is missing");
        return -1;
    }
    j->flow = (flow_object *)flow;
    if (flow) j->bits = j->flow->bits;
    return 0;
}

static PyObject *run_fit(fit fit, PyObject *module, PyObject *args, PyObject *kwargs)
{
    static const char *const functions[] = {"gis_fit", "sig_fit", "symmetric_fit", "train"};
    job j = {.state = PyModule_GetState(module)};
    PyObject *left = kwargs ? PyDict_Copy(kwargs) : PyDict_New(), *keep = PyList_New(0), *result = NULL;
    pf_gis_defaults(&j.gis);
    pf_sig_defaults(&j.sig);
    pf_symmetric_defaults(&j.symmetric);
    if (!left || !keep || !PyArg_ParseTuple(args, "")) goto done;
    if (open_flow(&j, fit, left, keep) || open_data(&j, fit, left, keep)) goto done;
    if (!j.bits) j.bits = points_bits(j.x);
    if (fit == GIS   ? open_gis(&j, left, keep)
        : fit == SIG ? open_sig(&j, left, keep)
                     : open_training(&j, fit, left, keep))
        goto done;
    pf_watch *watch = fit == GIS ? &j.gis.watch : fit == SIG ? &j.sig.watch : &j.symmetric.train.watch;
    const pf_ranks **ranks = fit == GIS ? &j.gis.ranks : fit == SIG ? &j.sig.ranks : &j.symmetric.train.ranks;
    if (open_watch(watch, &j, left, keep) || open_ranks(ranks, &j, left, keep)) goto done;
    if (options_none_left(left, functions[fit])) goto done;
    result = j.bits == 32 ? pf32_run(&j, fit) : pf64_run(&j, fit);
done:
    job_close(&j);
    Py_XDECREF(left);
    Py_XDECREF(keep);
    return result;
}

const char gis_fit_doc[] =
    "gis_fit(*, data_train, data_validate=None, weight_train=None, weight_validate=None, labels=None,\n"
    "        labels_validate=None, n_classes=0, flow=None, bounds=None, image=None, scratch=None, stream=False, "
    "progress=None,\n"
    "        warn=None, checkpoint=None, note=None, ranks=None, **options)\n\n"
    "Fit GIS, on from flow if that is given; ranks, of which this one has its part of the rows, are (sum, rank, size,\n"
    "rows of the training data of all, of the validation data), where sum(memory) adds int64 numbers over ranks, in\n"
    "place. Options are those of pf_gis_list in pyflow.h; progress(stage, step, "
    "best,\n"
    "logp_train, logp_validate, distance, objective, seconds) is called after every layer, warn(message, category) of "
    "data that\n"
    "cannot be used as they are and of a checkpoint that cannot be written; with stream the data are read a block at a "
    "time even when they could be used where\n"
    "they are. What a fit that ends early had reached is the attribute `flow` of the exception.";
PyObject *core_gis_fit(PyObject *module, PyObject *args, PyObject *kwargs)
{
    return run_fit(GIS, module, args, kwargs);
}

const char ranks_first_row_doc[] =
    "ranks_first_row(rows, d, bits, rank, size)\n--\n\nThe first row of a rank's part of the rows of a greedy fit by "
    "`size` ranks; d:\ncolumns of a table for GIS, 0 for images, and for SIG.";
PyObject *core_ranks_first_row(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"rows", "d", "bits", "rank", "size", NULL};
    ptrdiff_t rows, d;
    int bits, rank, size;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nniii", names, &rows, &d, &bits, &rank, &size)) return NULL;
    if (rows < 0 || d < 0 || size < 1 || rank < 0 || rank > size) {
        PyErr_SetString(PyExc_ValueError, "rows, d, rank, size: 0 <= rows, 0 <= d, 0 <= rank <= size");
        return NULL;
    }
    return PyLong_FromSsize_t(pf_ranks_first_row(rows, d, bits, rank, size));
}

const char sig_fit_doc[] =
    "sig_fit(*, data_train, weight_train=None, labels=None, n_classes=0, flow=None, image=None, schedule=None,\n"
    "        bounds=None, scratch=None, stream=False, callback=None, progress=None, warn=None, checkpoint=None,\n"
    "        note=None, ranks=None, **options)\n\n"
    "Fit SIG, on from flow if that is given. Options are those of pf_sig_list in pyflow.h; image is (height, width,\n"
    "channels); schedule has rows of layers, a kernel's height, width and channels, slices; callback(layers, sample)\n"
    "has the sample's first rows; the rest is as in gis_fit.";
PyObject *core_sig_fit(PyObject *module, PyObject *args, PyObject *kwargs)
{
    return run_fit(SIG, module, args, kwargs);
}

const char sig_schedule_doc[] =
    "sig_schedule(height, width, channels)\n--\n\nThe published schedule, as a list of (layers, "
    "(height, width, channels), slices).";
PyObject *core_sig_schedule(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"height", "width", "channels", NULL};
    ptrdiff_t image[3];
    pf_sig_stage stages[64];
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nnn", names, image, image + 1, image + 2)) return NULL;
    ptrdiff_t n = pf_sig_schedule(stages, image);
    PyObject *list = PyList_New(n);
    for (ptrdiff_t i = 0; list && i < n; i++) {
        const pf_sig_stage *s = stages + i;
        PyObject *entry = Py_BuildValue("n(nnn)n", s->layers, s->kernel[0], s->kernel[1], s->kernel[2], s->slices);
        if (entry) PyList_SET_ITEM(list, i, entry);
        else Py_CLEAR(list);
    }
    return list;
}

const char symmetric_fit_doc[] =
    "symmetric_fit(*, data_train, data_validate=None, y_train=None, y_validate=None, condition_field=None,\n"
    "              condition_field_validate=None, box, mask=None, noise_k=None, noise_power=None, progress=None, "
    "warn=None, checkpoint=None, note=None, ranks=None, **options)\n\n"
    "Fit a symmetric flow. Options are those of pf_symmetric_list and pf_train_list; ranks, each of which has all "
    "rows,\n"
    "are as in gis_fit, and so is the rest. A NaN in training ends it with a call of warn and the last good flow.";
PyObject *core_symmetric_fit(PyObject *module, PyObject *args, PyObject *kwargs)
{
    return run_fit(SYMMETRIC, module, args, kwargs);
}

const char train_doc[] =
    "train(*, flow, data_train, data_validate=None, y_train=None, y_validate=None, condition_field=None,\n"
    "      condition_field_validate=None, weight_train=None,\n"
    "      weight_validate=None, labels=None, labels_validate=None, frozen=None, noise_k=None, noise_power=None,\n"
    "      progress=None, warn=None, checkpoint=None, note=None, **options)\n\n"
    "A copy of the flow, trained by maximum likelihood. Options are those of pf_train_list; frozen says of every "
    "layer\n"
    "whether it stays as it is; the rest is as in symmetric_fit.";
PyObject *core_train(PyObject *module, PyObject *args, PyObject *kwargs)
{
    return run_fit(TRAIN, module, args, kwargs);
}

#else /* ---- once in each precision ------------------------------------------------------------------------------- */

typedef struct {
    job *job;
    const points *points;
} X(source);

static int X(read)(void *user, real *to, ptrdiff_t first, ptrdiff_t n)
{
    X(source) *s = user;
    return read_points(s->job, s->points, to, REAL_BITS, first, n);
}

/* Greedy fits read points where they lie or a block at a time; training needs them in memory. */
static int X(open)(X(data) *data, job *j, X(source) *source, int i, int whole)
{
    points *p = j->x + i;
    *data = (X(data)){.n = p->n,
                      .weight = data_or_null(j->weight[i]),
                      .label = data_or_null(j->label[i]),
                      .y = data_or_null(j->y[i]),
                      .context = data_or_null(j->context[i]),
                      .n_y = j->y[i] ? PyArray_DIM(j->y[i], 1) : 0};
    if (!p->source) return 0;
    *source = (X(source)){.job = j, .points = p};
    if (!j->stream) data->x = points_pointer(p, REAL_BITS);
    if (data->x) return 0;
    if (!whole) {
        data->read = X(read), data->user = source;
        return 0;
    }
    real *x = j->converted[i] = PyMem_Malloc((size_t)(p->n * p->d) * sizeof(real) + 1);
    if (!x) {
        PyErr_NoMemory();
        return -1;
    }
    data->x = x;
    return points_read(p, x, REAL_BITS, 0, p->n);
}

static pf_status X(start)(X(flow) **flow, job *j, fit fit, const X(data) data[2])
{
    const X(data) *validate = j->x[1].source ? data + 1 : NULL;
    pf_status status = PF_OK;
    if (j->flow) status = X(flow_copy)(flow, j->flow->X(flow), X(flow_layers)(j->flow->X(flow)));
    if (status) return status;
    if (fit == GIS) return X(gis_fit)(flow, data, validate, j->x[0].d, &j->gis);
    if (fit == SIG) return X(sig_fit)(flow, data, j->x[0].d, &j->sig);
    if (fit == TRAIN) return X(flow_train)(*flow, data, validate, &j->symmetric.train);
    return X(symmetric_fit)(flow, data, validate, j->x[0].ndim, j->x[0].shape, j->box, &j->symmetric);
}

static PyObject *X(run)(job *j, fit fit)
{
    X(flow) *flow = NULL;
    X(source) sources[2];
    X(data) data[2];
    for (int i = 0; i < 2; i++)
        if (X(open)(data + i, j, sources + i, i, fit > SIG)) return NULL;
    if (call_begin(&j->call, j->state)) return NULL;
    pf_status status;
    Py_BEGIN_ALLOW_THREADS status = X(start)(&flow, j, fit, data);
    Py_END_ALLOW_THREADS if (!call_end(&j->call, j->state, status)) return X(flow_wrap)(j->state, flow);
    if (!flow || (status == PF_BAD_ARGUMENT && fit == TRAIN)) {
        X(flow_free)(flow);
        return NULL;
    }
    PyObject *reached = X(flow_wrap)(j->state, flow);
    if (status == PF_IO_ERROR && !j->read_failed && !PyErr_ExceptionMatches(PyExc_OSError))
        call_also_raise(pf_message());
    if (status == PF_DEGENERATE && fit > SIG && reached && j->warn && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear();
        PyObject *told = PyObject_CallFunction(
            j->warn, "NO", PyUnicode_FromFormat("%s: training stopped, with the last good flow", pf_message()),
            PyExc_RuntimeWarning);
        if (told) {
            Py_DECREF(told);
            return reached;
        }
    }
    call_attach(reached);
    return NULL;
}
#endif
