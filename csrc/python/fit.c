/* _core.fit: GIS, with the data read where they lie or through a callback. */
#ifndef real
#include "core.h"

/* What one fit was asked to do. */
typedef struct {
    core_state *state;
    call call;
    rows train, validate; /* validate.source NULL: none */
    PyArrayObject *weight[2], *label[2], *bounds;
    PyObject *warn;                            /* a callable or NULL */
    PyObject *progress, *scratch, *checkpoint; /* a callable or NULL; bytes or NULL */
    model_object *model;                       /* to go on from, or NULL */
    int stream, read_failed;
    pf_gis_options options;
} job;

/* The core calls these without the GIL. */

static int report(void *user, const pf_progress *p)
{
    job *j = user;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (!call_failed(&j->call)) {
        PyObject *result = PyObject_CallFunction(j->progress, "nnddd", p->layer, p->best, p->logp_train,
                                                 p->logp_validate, p->distance);
        if (!result) call_keep(&j->call);
        Py_XDECREF(result);
    }
    int stop = call_failed(&j->call);
    PyGILState_Release(gil);
    return stop;
}

static int warn(void *user, const char *text)
{
    job *j = user;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (!call_failed(&j->call)) {
        PyObject *result = PyObject_CallFunction(j->warn, "s", text);
        if (!result) call_keep(&j->call);
        Py_XDECREF(result);
    }
    int stop = call_failed(&j->call);
    PyGILState_Release(gil);
    return stop;
}

static int read_rows(job *j, const rows *r, void *to, int bits, ptrdiff_t first, ptrdiff_t n)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    if (!call_failed(&j->call) && rows_read(r, to, bits, first, n)) call_keep(&j->call);
    j->read_failed = call_failed(&j->call);
    PyGILState_Release(gil);
    return j->read_failed;
}

static const void *data_or_null(PyArrayObject *a) { return a ? PyArray_DATA(a) : NULL; }

#define TWICE "python/fit.c" /* seen from twice.h */
#include "twice.h"

static int none_or(PyObject *value) { return value && value != Py_None; }

static int open_vectors(job *j, int i, const rows *r, PyObject *weight, PyObject *label)
{
    static const char *const names[2][2] = {{"weight_train", "labels"}, {"weight_validate", "labels_validate"}};
    if (none_or(weight) && !(j->weight[i] = vector_open(weight, names[i][0], NPY_DOUBLE, r->n))) return -1;
    if (none_or(label) && !(j->label[i] = vector_open(label, names[i][1], NPY_INT32, r->n))) return -1;
    return 0;
}

static int open_bounds(job *j, PyObject *bounds)
{
    rows r;
    if (!none_or(bounds)) return 0;
    if (rows_open(&r, bounds, "bounds", 0)) return -1;
    int wrong = !r.array || r.n != j->train.d || r.d != 2;
    if (wrong)
        PyErr_Format(PyExc_ValueError,
                     "bounds: must have shape (%zd, 2), lower and upper for each column; it is (%zd, %zd)", j->train.d,
                     r.n, r.d);
    else
        j->bounds = (PyArrayObject *)PyArray_FromArray(r.array, PyArray_DescrFromType(NPY_DOUBLE),
                                                       NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST);
    rows_close(&r);
    return j->bounds ? 0 : -1;
}

static int open_data(job *j, PyObject *train, PyObject *validate)
{
    if (rows_open(&j->train, train, "data_train", 0)) return -1;
    if (none_or(validate) && rows_open(&j->validate, validate, "data_validate", 0)) return -1;
    if (j->train.d == 0) {
        PyErr_SetString(PyExc_ValueError, "data_train: has no columns");
        return -1;
    }
    if (j->validate.source && j->validate.d != j->train.d) {
        PyErr_Format(PyExc_ValueError, "data_validate: has %zd columns where data_train has %zd", j->validate.d,
                     j->train.d);
        return -1;
    }
    return 0;
}

static void job_close(job *j)
{
    rows_close(&j->train);
    rows_close(&j->validate);
    for (int i = 0; i < 2; i++) {
        Py_XDECREF(j->weight[i]);
        Py_XDECREF(j->label[i]);
    }
    Py_XDECREF(j->bounds);
    Py_XDECREF(j->scratch);
    Py_XDECREF(j->checkpoint);
}

static int path_or_none(PyObject *path, void *to) { return path == Py_None || PyUnicode_FSConverter(path, to); }

const char fit_doc[] = "fit(data_train, data_validate=None, *, ...)\n--\n\n"
                       "Fit GIS. Options are the fields of pf_gis_options in pyflow.h, which has their defaults; model "
                       "is one to go on from;\n"
                       "progress(layer, best, logp_train, logp_validate, distance) is called after every layer, "
                       "warn(text) about data; with stream the data are read\n"
                       "a block at a time even when they could be used where they are.";

PyObject *core_fit(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "data_train",
        "data_validate",
        "weight_train",
        "weight_validate",
        "label_train",
        "label_validate",
        "n_classes",
        "model",
        "max_layers",
        "patience",
        "min_improvement",
        "n_slices",
        "n_knots",
        "kde",
        "bandwidth_factor",
        "alpha",
        "edge_knots",
        "slice_points",
        "slice_steps",
        "marginal_first",
        "whiten",
        "bounds",
        "seed",
        "scratch",
        "progress",
        "warn",
        "checkpoint",
        "checkpoint_seconds",
        "note",
        "stream",
        NULL,
    };
    job j = {.state = PyModule_GetState(module)};
    pf_gis_options *o = &j.options;
    PyObject *train, *validate = NULL, *weight[2] = {NULL}, *label[2] = {NULL}, *model = NULL, *bounds = NULL,
                     *seed = NULL;
    PyObject *result = NULL;
    pf_gis_defaults(o);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O$OOOOiOnndnnpd(dd)nnnppOO!O&OOO&dzp", names, &train, &validate,
                                     &weight[0], &weight[1], &label[0], &label[1], &o->n_classes, &model,
                                     &o->max_layers, &o->patience, &o->min_improvement, &o->n_slices, &o->n_knots,
                                     &o->kde, &o->bandwidth_factor, &o->alpha[0], &o->alpha[1], &o->edge_knots,
                                     &o->slice_points, &o->slice_steps, &o->marginal_first, &o->whiten, &bounds,
                                     &PyLong_Type, &seed, path_or_none, &j.scratch, &j.progress, &j.warn, path_or_none,
                                     &j.checkpoint, &o->checkpoint_seconds, &o->note, &j.stream))
        goto done;
    if (seed) {
        o->seed = PyLong_AsUnsignedLongLong(seed);
        if (PyErr_Occurred()) goto done;
    }
    if (none_or(model)) {
        if (!Py_IS_TYPE(model, j.state->model_type)) {
            PyErr_Format(PyExc_TypeError, "model: must be a pyflow._core.Model, not %s", Py_TYPE(model)->tp_name);
            goto done;
        }
        j.model = (model_object *)model;
    }
    if (open_data(&j, train, validate) || open_vectors(&j, 0, &j.train, weight[0], label[0])) goto done;
    if (j.validate.source && open_vectors(&j, 1, &j.validate, weight[1], label[1])) goto done;
    if (open_bounds(&j, bounds)) goto done;
    o->bounds = data_or_null(j.bounds);
    o->scratch = j.scratch ? PyBytes_AS_STRING(j.scratch) : NULL;
    o->checkpoint = j.checkpoint ? PyBytes_AS_STRING(j.checkpoint) : NULL;
    if (none_or(j.progress)) o->progress = report;
    if (none_or(j.warn)) o->warn = warn;
    o->progress_user = &j;
    if (j.model ? j.model->bits == 32 : rows_bits(&j.train) == 32) result = pf32_run(&j);
    else result = pf64_run(&j);
done:
    job_close(&j);
    return result;
}

const char gis_defaults_doc[] = "gis_defaults()\n--\n\nThe defaults of the options of fit; 0 or less stands for a "
                                "default that depends on the data.";
PyObject *core_gis_defaults(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    pf_gis_options o;
    pf_gis_defaults(&o);
    return Py_BuildValue("{sn sn sd sn sn sO sd s(dd) sn sn sn sO sO sd}", "max_layers", o.max_layers, "patience",
                         o.patience, "min_improvement", o.min_improvement, "n_slices", o.n_slices, "n_knots", o.n_knots,
                         "kde", o.kde ? Py_True : Py_False, "bandwidth_factor", o.bandwidth_factor, "alpha", o.alpha[0],
                         o.alpha[1], "edge_knots", o.edge_knots, "slice_points", o.slice_points, "slice_steps",
                         o.slice_steps, "marginal_first", o.marginal_first ? Py_True : Py_False, "whiten",
                         o.whiten ? Py_True : Py_False, "checkpoint_seconds", o.checkpoint_seconds);
}

#else /* ---- once in each precision ------------------------------------------------------------------------------- */

typedef struct {
    job *job;
    const rows *rows;
} X(source);

static int X(read)(void *user, real *to, ptrdiff_t first, ptrdiff_t n)
{
    X(source) *s = user;
    return read_rows(s->job, s->rows, to, REAL_BITS, first, n);
}

static X(data) X(open)(job *j, X(source) *source, const rows *r, int i)
{
    *source = (X(source)){.job = j, .rows = r};
    X(data) data = {.n = r->n, .weight = data_or_null(j->weight[i]), .label = data_or_null(j->label[i])};
    if (!j->stream) data.x = rows_pointer(r, REAL_BITS);
    if (!data.x) data.read = X(read), data.user = source;
    return data;
}

static PyObject *X(run)(job *j)
{
    X(model) *model = NULL;
    X(source) sources[2];
    X(data) train = X(open)(j, &sources[0], &j->train, 0), validate = {0};
    pf_status status = PF_OK;
    if (j->validate.source) validate = X(open)(j, &sources[1], &j->validate, 1);
    if (j->model) status = X(model_copy)(&model, j->model->X(model), X(model_layers)(j->model->X(model)));
    if (status) {
        core_raise(j->state, status);
        return NULL;
    }
    if (call_begin(&j->call, j->state)) {
        X(model_free)(model);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS status = X(gis_fit)(&model, &train, j->validate.source ? &validate : NULL, j->train.d,
                                               &j->options);
    Py_END_ALLOW_THREADS if (call_end(&j->call, j->state, status))
    {
        X(model_free)(model);
        if (status == PF_IO_ERROR && !j->read_failed && !PyErr_ExceptionMatches(PyExc_OSError))
            call_also_raise(pf_message());
        return NULL;
    }
    return X(model_wrap)(j->state, model);
}
#endif
