/* _core.SymFlow: a fitted symmetric flow, in either precision; its fit, and its files. */
#ifndef real
#include "core.h"

#define KIND symflow
#include "saved.h"

enum { HIDDEN = sizeof(((pf_symflow_options *)0)->hidden) / sizeof(ptrdiff_t) };

typedef enum { FORWARD, INVERSE, LOGP, LOGP_AT, SCORE, SCORE_PARAMETERS } flow_task;

/* What one fit was asked to do. */
typedef struct {
    core_state *state;
    call call;
    PyArrayObject *x[2], *y[2]; /* of training and validation; NULL: none */
    int ndim;
    ptrdiff_t mesh[3];
    double box[3];
    ptrdiff_t n_y;
    PyObject *progress, *checkpoint; /* a callable or NULL; bytes or NULL */
    PyArrayObject *noise_k, *noise_power;
    pf_symflow_options options;
} job;

static int none_or(PyObject *value) { return value && value != Py_None; }

static void *data_or_null(PyArrayObject *a) { return a ? PyArray_DATA(a) : NULL; }

/* A C-contiguous array of this type; integers and floats are converted, complex numbers refused. */
static PyArrayObject *array_open(PyObject *x, const char *name, int type_num, int least_ndim, int most_ndim)
{
    PyArrayObject *any = (PyArrayObject *)PyArray_FromAny(x, NULL, 0, 0, NPY_ARRAY_ENSUREARRAY, NULL), *a = NULL;
    if (!any) return NULL;
    int type = PyArray_TYPE(any), ndim = PyArray_NDIM(any);
    if (!PyTypeNum_ISBOOL(type) && !PyTypeNum_ISINTEGER(type) && !PyTypeNum_ISFLOAT(type))
        PyErr_Format(PyExc_ValueError, "%s: must hold real numbers; its dtype is %S", name, PyArray_DESCR(any));
    else if (ndim < least_ndim || ndim > most_ndim)
        PyErr_Format(PyExc_ValueError, "%s: has %d dimensions, not %d to %d", name, ndim, least_ndim, most_ndim);
    else
        a = (PyArrayObject *)PyArray_FromArray(any, PyArray_DescrFromType(type_num),
                                               NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST);
    Py_DECREF(any);
    return a;
}

/* float64 [n][n_y]; n < 0: any number of rows. NULL without an exception for None. */
static int open_conditions(PyArrayObject **y, PyObject *given, const char *name, npy_intp n, npy_intp n_y)
{
    *y = NULL;
    if (!none_or(given)) return 0;
    *y = array_open(given, name, NPY_DOUBLE, 2, 2);
    if (!*y) return -1;
    if ((n < 0 || PyArray_DIM(*y, 0) == n) && PyArray_DIM(*y, 1) == n_y) return 0;
    if (n < 0)
        PyErr_Format(PyExc_ValueError, "%s: must have shape (m, %zd), not (%zd, %zd)", name, n_y, PyArray_DIM(*y, 0),
                     PyArray_DIM(*y, 1));
    else
        PyErr_Format(PyExc_ValueError, "%s: must have shape (%zd, %zd), not (%zd, %zd)", name, n, n_y,
                     PyArray_DIM(*y, 0), PyArray_DIM(*y, 1));
    Py_CLEAR(*y);
    return -1;
}

/* [n][mesh] */
static PyArrayObject *open_fields(PyObject *x, const char *name, int type_num, int ndim, const ptrdiff_t *mesh)
{
    PyArrayObject *a = array_open(x, name, type_num, ndim + 1, ndim + 1);
    for (int i = 0; a && i < ndim; i++)
        if (PyArray_DIM(a, i + 1) != mesh[i]) {
            PyErr_Format(PyExc_ValueError, "%s: axis %d has %zd pixels, not %zd", name, i + 1, PyArray_DIM(a, i + 1),
                         mesh[i]);
            Py_CLEAR(a);
        }
    return a;
}

/* The core calls this without the GIL. */
static int report(void *user, const pf_symflow_progress *p)
{
    job *j = user;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (!call_failed(&j->call)) {
        PyObject *result = PyObject_CallFunction(j->progress, "nndddd", p->epoch, p->best, p->logp_train,
                                                 p->logp_validate, p->objective, p->seconds);
        if (!result) call_keep(&j->call);
        Py_XDECREF(result);
    }
    int stop = call_failed(&j->call);
    PyGILState_Release(gil);
    return stop;
}

/* The exception that is set gets the attribute `flow`: what the fit had reached. Takes flow over. */
static void attach(PyObject *flow)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (!flow || PyObject_SetAttrString(value, "flow", flow)) PyErr_Clear();
    Py_XDECREF(flow);
    PyErr_Restore(type, value, traceback);
}

#define TWICE "python/symflow.c" /* seen from twice.h */
#include "twice.h"

/* ---- maps ------------------------------------------------------------------------------------------------- */

static PyObject *map_fields(PyObject *op, PyObject *args, PyObject *kwargs, flow_task task)
{
    static char *with_x[] = {"x", "y", NULL}, *with_z[] = {"z", "y", NULL};
    model_object *self = (model_object *)op;
    PyObject *x, *y = Py_None, *result = NULL;
    PyArrayObject *fields, *conditions = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O", task == INVERSE ? with_z : with_x, &x, &y)) return NULL;
    fields = open_fields(x, task == INVERSE ? "z" : "x", self->bits == 32 ? NPY_FLOAT : NPY_DOUBLE, EITHER(self, ndim),
                         EITHER(self, mesh));
    if (!fields) return NULL;
    npy_intp rows = task == LOGP_AT ? -1 : PyArray_DIM(fields, 0);
    if (!open_conditions(&conditions, y, "y", rows, EITHER(self, conditions))) {
        if (self->bits == 32) result = pf32_map(self, fields, conditions, task);
        else result = pf64_map(self, fields, conditions, task);
    }
    Py_DECREF(fields);
    Py_XDECREF(conditions);
    return result;
}

#define MAP(name, task, doc)                                                                                           \
    PyDoc_STRVAR(name##_doc, doc);                                                                                     \
    static PyObject *flow_##name(PyObject *self, PyObject *args, PyObject *kwargs)                                     \
    {                                                                                                                  \
        return map_fields(self, args, kwargs, task);                                                                   \
    }
MAP(forward, FORWARD, "forward(x, y=None)\n--\n\n(z, logj): latent fields and log|det dz/dx|.")
MAP(inverse, INVERSE, "inverse(z, y=None)\n--\n\n(x, logj): fields and log|det dx/dz|.")
MAP(logp, LOGP, "logp(x, y=None)\n--\n\nlog p(x|y) of every field: float64 (n,).")
MAP(logp_at, LOGP_AT, "logp_at(x, y)\n--\n\nlog p of every field at every one of m conditions: float64 (n, m).")
MAP(score, SCORE, "score(x, y=None)\n--\n\n(score, logp): d log p / dx, and log p.")
MAP(score_parameters, SCORE_PARAMETERS, "score_parameters(x, y)\n--\n\n(score, logp): d log p / dy, and log p.")

static int seed_from(PyObject *object, uint64_t *seed)
{
    *seed = object ? PyLong_AsUnsignedLongLong(object) : 0;
    return *seed == (uint64_t)-1 && PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(sample_doc, "sample(n, y=None, seed=0, first=0)\n--\n\n"
                         "(x, logp): rows first .. first + n - 1 of the sample of this seed.");
static PyObject *flow_sample(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n", "y", "seed", "first", NULL};
    model_object *self = (model_object *)op;
    Py_ssize_t n, first = 0;
    PyObject *y = Py_None, *seed_object = NULL, *result;
    PyArrayObject *conditions;
    uint64_t seed;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|OO!n", names, &n, &y, &PyLong_Type, &seed_object, &first))
        return NULL;
    if (seed_from(seed_object, &seed)) return NULL;
    if (n < 0 || first < 0) return PyErr_Format(PyExc_ValueError, "%s: must not be negative", n < 0 ? "n" : "first");
    if (open_conditions(&conditions, y, "y", n, EITHER(self, conditions))) return NULL;
    if (self->bits == 32) result = pf32_draw(self, conditions, seed, first, n);
    else result = pf64_draw(self, conditions, seed, first, n);
    Py_XDECREF(conditions);
    return result;
}

PyDoc_STRVAR(calibrate_doc, "calibrate(x, y, seed=0)\n--\n\n(flow, before, after): the flow with the temperature that "
                            "is best on these fields;\nmean log p(y|x) / prior(y) at temperature 1 and at that one.");
static PyObject *flow_calibrate(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "y", "seed", NULL};
    model_object *self = (model_object *)op;
    PyObject *x, *y, *seed_object = NULL, *result = NULL;
    PyArrayObject *fields, *conditions = NULL;
    uint64_t seed;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O!", names, &x, &y, &PyLong_Type, &seed_object)) return NULL;
    if (seed_from(seed_object, &seed)) return NULL;
    fields = open_fields(x, "x", self->bits == 32 ? NPY_FLOAT : NPY_DOUBLE, EITHER(self, ndim), EITHER(self, mesh));
    if (!fields) return NULL;
    npy_intp n_y = EITHER(self, conditions) - EITHER(self, noise_condition);
    if (!open_conditions(&conditions, y, "y", PyArray_DIM(fields, 0), n_y)) {
        if (self->bits == 32) result = pf32_tempered(self, fields, conditions, seed);
        else result = pf64_tempered(self, fields, conditions, seed);
    }
    Py_DECREF(fields);
    Py_XDECREF(conditions);
    return result;
}

/* ---- what is known of it ---------------------------------------------------------------------------------- */

PyDoc_STRVAR(history_doc, "history()\n--\n\nfloat64 (epochs, 2): log p per pixel of training and validation fields.");
static PyObject *flow_history(PyObject *op, PyObject *Py_UNUSED(unused))
{
    model_object *self = (model_object *)op;
    ptrdiff_t epochs;
    const double *history = EITHER(self, history, &epochs);
    npy_intp shape[2] = {epochs, 2};
    PyObject *result = PyArray_SimpleNew(2, shape, NPY_DOUBLE);
    if (result && epochs)
        memcpy(PyArray_DATA((PyArrayObject *)result), history, (size_t)(2 * epochs) * sizeof *history);
    return result;
}

static PyObject *get_mesh(PyObject *op, void *Py_UNUSED(closure))
{
    model_object *self = (model_object *)op;
    const ptrdiff_t *n = EITHER(self, mesh);
    return EITHER(self, ndim) == 2 ? Py_BuildValue("(nn)", n[0], n[1]) : Py_BuildValue("(nnn)", n[0], n[1], n[2]);
}

static PyObject *get_box(PyObject *op, void *Py_UNUSED(closure))
{
    model_object *self = (model_object *)op;
    const double *box = EITHER(self, box);
    return EITHER(self, ndim) == 2 ? Py_BuildValue("(dd)", box[0], box[1])
                                   : Py_BuildValue("(ddd)", box[0], box[1], box[2]);
}

static PyObject *get_range(PyObject *op, void *Py_UNUSED(closure))
{
    model_object *self = (model_object *)op;
    npy_intp shape[2] = {2, EITHER(self, conditions)};
    PyObject *result = PyArray_SimpleNew(2, shape, NPY_DOUBLE);
    if (result && shape[1])
        memcpy(PyArray_DATA((PyArrayObject *)result), EITHER(self, range), (size_t)(2 * shape[1]) * sizeof(double));
    return result;
}

GETTER(conditions, PyLong_FromSsize_t, conditions)
GETTER(n_parameters, PyLong_FromSsize_t, parameters)
GETTER(temperature, PyFloat_FromDouble, temperature)
GETTER(unfinished, PyBool_FromLong, unfinished)
GETTER(noise_condition, PyBool_FromLong, noise_condition)

static PyGetSetDef flow_getset[] = {
    SAVED_GETSET,
    {"mesh", get_mesh, NULL, "Pixels along every axis.", NULL},
    {"box", get_box, NULL, "Length of every axis.", NULL},
    {"conditions", get_conditions, NULL, "Number of conditioning variables, the noise's included.", NULL},
    {"range", get_range, NULL, "float64 (2, conditions): their least and most in training.", NULL},
    {"n_parameters", get_n_parameters, NULL, "Number of trained parameters.", NULL},
    {"temperature", get_temperature, NULL, "Power of the likelihood in posteriors: 1 unless calibrated.", NULL},
    {"unfinished", get_unfinished, NULL, "Whether it is from the checkpoint of a fit that goes on.", NULL},
    {"noise_condition", get_noise_condition, NULL, "Whether the last condition is the noise's.", NULL},
    {0},
};

static PyMethodDef flow_methods[] = {
    SAVED_METHODS,
    {"forward", KEYWORDS(flow_forward), forward_doc},
    {"inverse", KEYWORDS(flow_inverse), inverse_doc},
    {"logp", KEYWORDS(flow_logp), logp_doc},
    {"logp_at", KEYWORDS(flow_logp_at), logp_at_doc},
    {"score", KEYWORDS(flow_score), score_doc},
    {"score_parameters", KEYWORDS(flow_score_parameters), score_parameters_doc},
    {"sample", KEYWORDS(flow_sample), sample_doc},
    {"calibrate", KEYWORDS(flow_calibrate), calibrate_doc},
    {"history", flow_history, METH_NOARGS, history_doc},
    {0},
};

PyDoc_STRVAR(flow_doc, "A fitted symmetric flow. Made by symflow_fit and from_bytes; it never changes.");

static PyType_Slot flow_slots[] = {
    {Py_tp_doc, (void *)flow_doc},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, flow_methods},
    {Py_tp_getset, flow_getset},
    {0},
};

PyType_Spec symflow_spec = {
    .name = "pyflow._core.SymFlow",
    .basicsize = sizeof(model_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = flow_slots,
};

/* ---- the fit ---------------------------------------------------------------------------------------------- */

/* Training and validation fields in one precision, and the mesh. */
static int open_data(job *j, PyObject *const x[2], PyObject *const y[2], int *bits)
{
    static const char *const x_names[] = {"x_train", "x_validate"}, *const y_names[] = {"y_train", "y_validate"};
    PyArrayObject *first = (PyArrayObject *)PyArray_FromAny(x[0], NULL, 0, 0, NPY_ARRAY_ENSUREARRAY, NULL);
    if (!first) return -1;
    *bits = PyArray_TYPE(first) == NPY_FLOAT ? 32 : 64;
    j->ndim = PyArray_NDIM(first) - 1;
    for (int i = 0; i < j->ndim && i < 3; i++) j->mesh[i] = PyArray_DIM(first, i + 1);
    Py_DECREF(first);
    if (j->ndim != 2 && j->ndim != 3) {
        PyErr_SetString(PyExc_ValueError, "x_train: must have shape (n, n0, n1) or (n, n0, n1, n2)");
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        if (!none_or(x[i])) continue;
        j->x[i] = open_fields(x[i], x_names[i], *bits == 32 ? NPY_FLOAT : NPY_DOUBLE, j->ndim, j->mesh);
        if (!j->x[i]) return -1;
        if (i == 0 && none_or(y[0])) {
            PyArrayObject *a = array_open(y[0], y_names[0], NPY_DOUBLE, 2, 2);
            if (!a) return -1;
            j->n_y = PyArray_DIM(a, 1);
            Py_DECREF(a);
        }
        if (open_conditions(&j->y[i], y[i], y_names[i], PyArray_DIM(j->x[i], 0), j->n_y)) return -1;
    }
    return 0;
}

static int open_box(job *j, PyObject *box)
{
    PyArrayObject *a = array_open(box, "box", NPY_DOUBLE, 1, 1);
    if (!a) return -1;
    int wrong = PyArray_DIM(a, 0) != j->ndim;
    if (wrong) PyErr_Format(PyExc_ValueError, "box: %zd lengths for %d axes", PyArray_DIM(a, 0), j->ndim);
    else memcpy(j->box, PyArray_DATA(a), (size_t)j->ndim * sizeof(double));
    Py_DECREF(a);
    return wrong ? -1 : 0;
}

static int open_hidden(job *j, PyObject *hidden)
{
    if (!hidden) return 0;
    Py_ssize_t n = PySequence_Size(hidden);
    if (n < 0) return -1;
    if (n < 1 || n > HIDDEN - 1) {
        PyErr_Format(PyExc_ValueError, "hidden: 1 to %d layers, not %zd", HIDDEN - 1, n);
        return -1;
    }
    memset(j->options.hidden, 0, sizeof j->options.hidden);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_GetItem(hidden, i);
        Py_ssize_t units = item ? PyNumber_AsSsize_t(item, PyExc_OverflowError) : -1;
        Py_XDECREF(item);
        if (units == -1 && PyErr_Occurred()) return -1;
        if (units < 1) {
            PyErr_Format(PyExc_ValueError, "hidden: %zd units in layer %zd", units, i);
            return -1;
        }
        j->options.hidden[i] = units;
    }
    return 0;
}

/* The noise's power spectrum: wave numbers and powers */
static int open_noise(job *j, PyObject *k, PyObject *power)
{
    if (!none_or(power)) return 0;
    if (!(j->noise_k = array_open(k, "noise_k", NPY_DOUBLE, 1, 1))) return -1;
    if (!(j->noise_power = array_open(power, "noise_power", NPY_DOUBLE, 1, 1))) return -1;
    if (PyArray_DIM(j->noise_k, 0) != PyArray_DIM(j->noise_power, 0)) {
        PyErr_SetString(PyExc_ValueError, "noise_power: has another length than noise_k");
        return -1;
    }
    j->options.noise_k = PyArray_DATA(j->noise_k);
    j->options.noise_power = PyArray_DATA(j->noise_power);
    j->options.noise_knots = PyArray_DIM(j->noise_k, 0);
    return 0;
}

const char symflow_fit_doc[] =
    "symflow_fit(x_train, x_validate=None, y_train=None, y_validate=None, *, box, ...)\n--\n\n"
    "Fit a symmetric flow. Options are the fields of pf_symflow_options in pyflow.h, which has their defaults;\n"
    "progress(epoch, best, logp_train, logp_validate, objective, seconds) is called after every epoch. What an\n"
    "interrupted fit had reached is the attribute `flow` of the exception; a NaN in training ends it with a\n"
    "RuntimeWarning and the last good flow.";

PyObject *core_symflow_fit(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "x_train",
        "x_validate",
        "y_train",
        "y_validate",
        "box",
        "n_layers",
        "psi_knots",
        "filter_knots",
        "hidden",
        "start_fields",
        "epochs",
        "batch",
        "patience",
        "learning_rate",
        "warmup",
        "weight_decay",
        "clip",
        "noise",
        "noise_k",
        "noise_power",
        "noise_condition",
        "posterior_weight",
        "posterior_epochs",
        "posterior_rate",
        "posterior_draws",
        "seed",
        "checkpoint",
        "checkpoint_seconds",
        "progress",
        "note",
        NULL,
    };
    job j = {.state = PyModule_GetState(module)};
    pf_symflow_options *o = &j.options;
    PyObject *x[2] = {NULL}, *y[2] = {NULL}, *box = NULL, *hidden = NULL, *seed = NULL, *result = NULL;
    PyObject *noise_k = Py_None, *noise_power = NULL;
    int bits;
    pf_symflow_defaults(o);
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "O|OOO$OnnnOnnnndddd(dd)OOpdndnO!O&dOz", names, &x[0], &x[1], &y[0], &y[1], &box,
            &o->n_layers, &o->psi_knots, &o->filter_knots, &hidden, &o->start_fields, &o->epochs, &o->batch,
            &o->patience, &o->learning_rate, &o->warmup, &o->weight_decay, &o->clip, &o->noise[0], &o->noise[1],
            &noise_k, &noise_power, &o->noise_condition, &o->posterior_weight, &o->posterior_epochs, &o->posterior_rate,
            &o->posterior_draws, &PyLong_Type, &seed, PyUnicode_FSConverter, &j.checkpoint, &o->checkpoint_seconds,
            &j.progress, &o->note))
        goto done;
    if (!box) {
        PyErr_SetString(PyExc_TypeError, "box: is missing");
        goto done;
    }
    if (seed_from(seed, &o->seed) || open_data(&j, x, y, &bits) || open_box(&j, box) || open_hidden(&j, hidden) ||
        open_noise(&j, noise_k, noise_power))
        goto done;
    o->checkpoint = j.checkpoint ? PyBytes_AS_STRING(j.checkpoint) : NULL;
    if (none_or(j.progress)) {
        o->progress = report;
        o->progress_user = &j;
    }
    result = bits == 32 ? pf32_run(&j) : pf64_run(&j);
done:
    for (int i = 0; i < 2; i++) {
        Py_XDECREF(j.x[i]);
        Py_XDECREF(j.y[i]);
    }
    Py_XDECREF(j.noise_k);
    Py_XDECREF(j.noise_power);
    Py_XDECREF(j.checkpoint);
    return result;
}

const char symflow_defaults_doc[] = "symflow_defaults()\n--\n\nThe defaults of the options of symflow_fit.";
PyObject *core_symflow_defaults(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    pf_symflow_options o;
    pf_symflow_defaults(&o);
    Py_ssize_t n = 0;
    while (n < HIDDEN - 1 && o.hidden[n]) n++;
    PyObject *hidden = PyTuple_New(n);
    for (Py_ssize_t i = 0; hidden && i < n; i++) {
        PyObject *units = PyLong_FromSsize_t(o.hidden[i]);
        if (units) PyTuple_SET_ITEM(hidden, i, units);
        else Py_CLEAR(hidden);
    }
    if (!hidden) return NULL;
    return Py_BuildValue("{sn sn sn sN sn sn sn sn sd sd sd sd s(dd) sO sd sn sd sn sd}", "n_layers", o.n_layers,
                         "psi_knots", o.psi_knots, "filter_knots", o.filter_knots, "hidden", hidden, "start_fields",
                         o.start_fields, "epochs", o.epochs, "batch", o.batch, "patience", o.patience, "learning_rate",
                         o.learning_rate, "warmup", o.warmup, "weight_decay", o.weight_decay, "clip", o.clip, "noise",
                         o.noise[0], o.noise[1], "noise_condition", o.noise_condition ? Py_True : Py_False,
                         "posterior_weight", o.posterior_weight, "posterior_epochs", o.posterior_epochs,
                         "posterior_rate", o.posterior_rate, "posterior_draws", o.posterior_draws, "checkpoint_seconds",
                         o.checkpoint_seconds);
}

#else /* ---- once in each precision ------------------------------------------------------------------------------- */

static pf_status X(copy)(X(symflow) **copy, const X(symflow) *flow) { return X(symflow_copy)(copy, flow); }

static pf_status X(run_task)(const X(symflow) *f, flow_task task, void *out, double *log, const real *x,
                             const double *y, ptrdiff_t n, ptrdiff_t m)
{
    switch (task) {
    case FORWARD: return X(symflow_forward)(f, out, log, x, y, n);
    case INVERSE: return X(symflow_inverse)(f, out, log, x, y, n);
    case SCORE: return X(symflow_score)(f, out, log, x, y, n);
    case SCORE_PARAMETERS: return X(symflow_score_parameters)(f, out, log, x, y, n);
    case LOGP_AT: return X(symflow_logp_at)(f, log, x, y, n, m);
    default: return X(symflow_logp)(f, log, x, y, n);
    }
}

static PyArrayObject *X(empty_fields)(const X(symflow) *f, npy_intp n)
{
    npy_intp shape[4] = {n};
    int ndim = X(symflow_ndim)(f);
    for (int i = 0; i < ndim; i++) shape[i + 1] = X(symflow_mesh)(f)[i];
    return (PyArrayObject *)PyArray_SimpleNew(ndim + 1, shape, REAL_BITS == 32 ? NPY_FLOAT : NPY_DOUBLE);
}

/* (out, log), or log alone */
static PyObject *X(map)(model_object *self, PyArrayObject *fields, PyArrayObject *conditions, flow_task task)
{
    const X(symflow) *f = self->X(symflow);
    npy_intp n = PyArray_DIM(fields, 0), log_shape[2] = {n, conditions ? PyArray_DIM(conditions, 0) : 0};
    npy_intp gradient[2] = {n, X(symflow_conditions)(f)};
    PyArrayObject *log = (PyArrayObject *)PyArray_SimpleNew(task == LOGP_AT ? 2 : 1, log_shape, NPY_DOUBLE),
                  *out = NULL;
    int has_out = task != LOGP && task != LOGP_AT;
    call c;
    pf_status status;
    if (task == SCORE_PARAMETERS) out = (PyArrayObject *)PyArray_SimpleNew(2, gradient, NPY_DOUBLE);
    else if (has_out) out = X(empty_fields)(f, n);
    if (!log || (has_out && !out) || call_begin(&c, state_of(self))) goto error;
    void *to = data_or_null(out);
    double *log_to = PyArray_DATA(log);
    const real *x = PyArray_DATA(fields);
    const double *y = data_or_null(conditions);
    Py_BEGIN_ALLOW_THREADS status = X(run_task)(f, task, to, log_to, x, y, n, log_shape[1]);
    Py_END_ALLOW_THREADS if (call_end(&c, state_of(self), status)) goto error;
    return out ? Py_BuildValue("(NN)", out, log) : (PyObject *)log;
error:
    Py_XDECREF(out);
    Py_XDECREF(log);
    return NULL;
}

static PyObject *X(draw)(model_object *self, PyArrayObject *conditions, uint64_t seed, npy_intp first, npy_intp n)
{
    PyArrayObject *x = X(empty_fields)(self->X(symflow), n);
    PyArrayObject *logp = x ? (PyArrayObject *)PyArray_SimpleNew(1, &n, NPY_DOUBLE) : NULL;
    call c;
    pf_status status;
    if (!logp || call_begin(&c, state_of(self))) goto error;
    real *to = PyArray_DATA(x);
    double *log = PyArray_DATA(logp);
    const double *y = data_or_null(conditions);
    Py_BEGIN_ALLOW_THREADS status = X(symflow_sample)(self->X(symflow), to, log, y, seed, first, n);
    Py_END_ALLOW_THREADS if (call_end(&c, state_of(self), status)) goto error;
    return Py_BuildValue("(NN)", x, logp);
error:
    Py_XDECREF(x);
    Py_XDECREF(logp);
    return NULL;
}

static PyObject *X(tempered)(model_object *self, PyArrayObject *fields, PyArrayObject *conditions, uint64_t seed)
{
    X(fields) data = {.x = PyArray_DATA(fields), .y = data_or_null(conditions), .n = PyArray_DIM(fields, 0)};
    X(symflow) *copy = NULL;
    double gain[2] = {0};
    call c;
    if (call_begin(&c, state_of(self))) return NULL;
    pf_status status;
    Py_BEGIN_ALLOW_THREADS status = X(symflow_copy)(&copy, self->X(symflow));
    if (!status) status = X(symflow_calibrate)(copy, gain, &data, seed);
    Py_END_ALLOW_THREADS if (call_end(&c, state_of(self), status))
    {
        X(symflow_free)(copy);
        return NULL;
    }
    PyObject *flow = X(symflow_wrap)(state_of(self), copy);
    return flow ? Py_BuildValue("(Ndd)", flow, gain[0], gain[1]) : NULL;
}

static PyObject *X(run)(job *j)
{
    X(symflow) *flow = NULL;
    X(fields) data[2] = {{0}};
    for (int i = 0; i < 2; i++)
        if (j->x[i])
            data[i] = (X(fields)){.x = PyArray_DATA(j->x[i]), .y = data_or_null(j->y[i]), .n = PyArray_DIM(j->x[i], 0)};
    if (call_begin(&j->call, j->state)) return NULL;
    pf_status status;
    Py_BEGIN_ALLOW_THREADS status = X(symflow_fit)(&flow, &data[0], j->x[1] ? &data[1] : NULL, j->ndim, j->mesh, j->box,
                                                   j->n_y, &j->options);
    Py_END_ALLOW_THREADS if (call_end(&j->call, j->state, status))
    {
        if (!flow) return NULL;
        if (status == PF_IO_ERROR && !PyErr_ExceptionMatches(PyExc_OSError)) call_also_raise(pf_message());
        if (status != PF_DEGENERATE || !PyErr_ExceptionMatches(PyExc_ValueError)) {
            attach(X(symflow_wrap)(j->state, flow));
            return NULL;
        }
        PyErr_Clear();
        PyObject *result = X(symflow_wrap)(j->state, flow);
        if (result &&
            PyErr_WarnFormat(PyExc_RuntimeWarning, 2, "%s: training stopped, with the last good flow", pf_message())) {
            attach(result);
            return NULL;
        }
        return result;
    }
    return X(symflow_wrap)(j->state, flow);
}
#endif
