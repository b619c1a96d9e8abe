/* _core.Model: a fitted model, in either precision. */
#ifndef real
#include "core.h"

#define KIND model
#include "saved.h"

/* Rows that are converted at a time when they cannot be used where they are. */
enum { CHUNK_BYTES = 16 << 20 };

typedef enum { FORWARD, INVERSE, LOGP, SCORE } map_task;

/* The class of every row: int32, or nothing for None. */
static int open_labels(PyArrayObject **labels, PyObject *label, npy_intp n)
{
    *labels = NULL;
    if (label == Py_None) return 0;
    *labels = vector_open(label, "label", NPY_INT32, n);
    return *labels ? 0 : -1;
}

static const int32_t *label_data(PyArrayObject *labels) { return labels ? PyArray_DATA(labels) : NULL; }

/* The core counted rows from the beginning of the chunk. */
static int raise_in_chunk(npy_intp first)
{
    if (first == 0 || !PyErr_ExceptionMatches(PyExc_ValueError)) return -1;
    PyErr_Format(PyExc_ValueError, "%s (rows counted from row %zd)", pf_message(), first);
    return -1;
}

#define TWICE "python/model.c" /* seen from twice.h */
#include "twice.h"

/* ---- maps ------------------------------------------------------------------------------------------------- */

static PyObject *map_rows(model_object *self, PyObject *args, PyObject *kwargs, map_task task)
{
    static char *with_x[] = {"x", "label", NULL}, *with_z[] = {"z", "label", NULL};
    PyObject *x, *label = Py_None, *result = NULL;
    PyArrayObject *labels = NULL;
    rows in;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O", task == INVERSE ? with_z : with_x, &x, &label)) return NULL;
    if (rows_open(&in, x, task == INVERSE ? "z" : "x", EITHER(self, dim))) return NULL;
    if (!open_labels(&labels, label, in.n)) {
        if (self->bits == 32) result = pf32_map_rows(self, &in, label_data(labels), task);
        else result = pf64_map_rows(self, &in, label_data(labels), task);
    }
    rows_close(&in);
    Py_XDECREF(labels);
    return result;
}

PyDoc_STRVAR(evaluate_density_doc, "evaluate_density(x, label=None)\n--\n\n"
                                   "log p of every row: float64 (n,), or a number for one point (d,).");
static PyObject *model_evaluate_density(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return map_rows((model_object *)self, args, kwargs, LOGP);
}

PyDoc_STRVAR(forward_doc, "forward(x, label=None)\n--\n\n(z, logj): latent points and log|det dz/dx|.");
static PyObject *model_forward(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return map_rows((model_object *)self, args, kwargs, FORWARD);
}

PyDoc_STRVAR(inverse_doc, "inverse(z, label=None)\n--\n\n(x, logj): data and log|det dx/dz|.");
static PyObject *model_inverse(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return map_rows((model_object *)self, args, kwargs, INVERSE);
}

PyDoc_STRVAR(score_doc, "score(x, label=None)\n--\n\n(score, logp): d log p / dx, and log p.");
static PyObject *model_score(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return map_rows((model_object *)self, args, kwargs, SCORE);
}

PyDoc_STRVAR(sample_doc, "sample(n, label=None, seed=0, first=0)\n--\n\n"
                         "(x, logp): rows first .. first + n - 1 of the sample of this seed.");
static PyObject *model_sample(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n", "label", "seed", "first", NULL};
    model_object *self = (model_object *)op;
    Py_ssize_t n, first = 0;
    PyObject *label = Py_None, *seed_object = NULL, *result;
    PyArrayObject *labels;
    uint64_t seed = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|OO!n", names, &n, &label, &PyLong_Type, &seed_object, &first))
        return NULL;
    if (seed_object && (seed = PyLong_AsUnsignedLongLong(seed_object)) == (uint64_t)-1 && PyErr_Occurred()) return NULL;
    if (n < 0 || first < 0) return PyErr_Format(PyExc_ValueError, "%s: must not be negative", n < 0 ? "n" : "first");
    if (open_labels(&labels, label, n)) return NULL;
    if (self->bits == 32) result = pf32_sample_rows(self, label_data(labels), seed, first, n);
    else result = pf64_sample_rows(self, label_data(labels), seed, first, n);
    Py_XDECREF(labels);
    return result;
}

/* ---- other models from this one --------------------------------------------------------------------------- */

PyDoc_STRVAR(truncate_doc, "truncate(n_layers)\n--\n\nThe model of the first layers. They are shared, not copied.");
static PyObject *model_truncate(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n_layers", NULL};
    model_object *self = (model_object *)op;
    Py_ssize_t n_layers;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n", names, &n_layers)) return NULL;
    return self->bits == 32 ? pf32_truncate(self, n_layers) : pf64_truncate(self, n_layers);
}

/* ---- bytes and files -------------------------------------------------------------------------------------- */

const char from_bytes_doc[] = "from_bytes(bytes)\n--\n\nThe model in these bytes, which are checked.";
PyObject *core_from_bytes(PyObject *module, PyObject *bytes)
{
    core_state *state = PyModule_GetState(module);
    Py_buffer view;
    if (PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE)) return NULL;
    size_t n = (size_t)view.len;
    int bits = pf_model_bits(view.buf, n), kind = pf_model_kind(view.buf, n);
    PyObject *result;
    if (kind == 2 && bits == 32) result = pf32_symflow_from_bytes(state, view.buf, n);
    else if (kind == 2) result = pf64_symflow_from_bytes(state, view.buf, n);
    else if (bits == 32) result = pf32_model_from_bytes(state, view.buf, n);
    else result = pf64_model_from_bytes(state, view.buf, n); /* which says what is wrong with what is neither */
    PyBuffer_Release(&view);
    return result;
}

/* ---- what is known of it ---------------------------------------------------------------------------------- */

PyDoc_STRVAR(history_doc,
             "history()\n--\n\nfloat64 (n_layers, 3): log p of training and validation data, sliced distance.");
static PyObject *model_history(PyObject *op, PyObject *Py_UNUSED(unused))
{
    model_object *self = (model_object *)op;
    npy_intp shape[2] = {EITHER(self, layers), 3};
    PyObject *result = PyArray_SimpleNew(2, shape, NPY_DOUBLE);
    double *to = result ? PyArray_DATA((PyArrayObject *)result) : NULL;
    for (npy_intp i = 0; to && i < shape[0]; i++) memcpy(to + 3 * i, EITHER(self, history, i), 3 * sizeof *to);
    return result;
}

GETTER(dim, PyLong_FromSsize_t, dim)
GETTER(n_classes, PyLong_FromLong, classes)

static PyObject *get_layers(PyObject *op, void *Py_UNUSED(closure))
{
    model_object *self = (model_object *)op;
    Py_ssize_t n = EITHER(self, layers);
    PyObject *layers = PyTuple_New(n);
    for (Py_ssize_t i = 0; layers && i < n; i++) {
        PyObject *name = PyUnicode_FromString(EITHER(self, layer_name, i));
        if (name) PyTuple_SET_ITEM(layers, i, name);
        else Py_CLEAR(layers);
    }
    return layers;
}

static PyObject *get_slices(PyObject *op, void *Py_UNUSED(closure))
{
    model_object *self = (model_object *)op;
    Py_ssize_t slices = 0;
    for (Py_ssize_t i = 0; i < EITHER(self, layers); i++) slices += EITHER(self, layer_slices, i);
    return PyLong_FromSsize_t(slices);
}

static PyGetSetDef model_getset[] = {
    SAVED_GETSET,
    {"dim", get_dim, NULL, "Number of columns.", NULL},
    {"n_classes", get_n_classes, NULL, "Number of classes, 0 without labels.", NULL},
    {"layers", get_layers, NULL, "The kind of every layer.", NULL},
    {"slices", get_slices, NULL, "Slices of all layers together.", NULL},
    {0},
};

static PyMethodDef model_methods[] = {
    SAVED_METHODS,
    {"evaluate_density", KEYWORDS(model_evaluate_density), evaluate_density_doc},
    {"forward", KEYWORDS(model_forward), forward_doc},
    {"inverse", KEYWORDS(model_inverse), inverse_doc},
    {"score", KEYWORDS(model_score), score_doc},
    {"sample", KEYWORDS(model_sample), sample_doc},
    {"truncate", KEYWORDS(model_truncate), truncate_doc},
    {"history", model_history, METH_NOARGS, history_doc},
    {0},
};

PyDoc_STRVAR(model_doc, "A fitted model. Made by fit and from_bytes; it never changes.");

static PyType_Slot model_slots[] = {
    {Py_tp_doc, (void *)model_doc},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, model_methods},
    {Py_tp_getset, model_getset},
    {0},
};

PyType_Spec model_spec = {
    .name = "pyflow._core.Model",
    .basicsize = sizeof(model_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = model_slots,
};

#else /* ---- once in each precision ------------------------------------------------------------------------------- */

static pf_status X(copy)(X(model) **copy, const X(model) *model)
{
    return X(model_copy)(copy, model, X(model_layers)(model));
}

static PyObject *X(truncate)(model_object *self, ptrdiff_t n_layers)
{
    X(model) *copy = NULL;
    pf_status status = X(model_copy)(&copy, self->X(model), n_layers);
    return X(made)(state_of(self), status, copy);
}

static pf_status X(run_task)(const X(model) *model, map_task task, real *out, double *log, const real *x,
                             const int32_t *label, ptrdiff_t n)
{
    switch (task) {
    case FORWARD: return X(model_forward)(model, out, log, x, label, n);
    case INVERSE: return X(model_inverse)(model, out, log, x, label, n);
    case SCORE: return X(model_score)(model, out, log, x, label, n);
    default: return X(model_logp)(model, log, x, label, n);
    }
}

/* out[n][d] and log[n] from rows that lie as the core wants them, or else by chunks that are converted. */
static int X(map_chunks)(model_object *self, map_task task, real *out, double *log, const rows *in,
                         const int32_t *label)
{
    npy_intp n = in->n, d = in->d, step = n;
    const real *x = rows_pointer(in, REAL_BITS);
    real *chunk = NULL;
    int failed = 0;
    if (!x) {
        step = CHUNK_BYTES / ((npy_intp)sizeof(real) * d);
        step = step < 1 ? 1 : step > n ? n : step;
        chunk = PyMem_Malloc((size_t)(step * d) * sizeof *chunk + 1);
        if (!chunk) {
            PyErr_NoMemory();
            return -1;
        }
    }
    npy_intp first = 0;
    do { /* also for no rows at all: the core checks the rest */
        npy_intp m = n - first < step ? n - first : step;
        call c;
        pf_status status;
        failed = (chunk && rows_read(in, chunk, REAL_BITS, first, m)) || call_begin(&c, state_of(self));
        if (failed) break;
        Py_BEGIN_ALLOW_THREADS status = X(run_task)(self->X(model), task, out ? out + first * d : NULL, log + first,
                                                    x ? x : chunk, label ? label + first : NULL, m);
        Py_END_ALLOW_THREADS failed = call_end(&c, state_of(self), status) ? raise_in_chunk(first) : 0;
        first += m;
    } while (first < n && !failed);
    PyMem_Free(chunk);
    return failed;
}

/* (out, log), or log alone; without their first dimension for one point. */
static PyObject *X(pack)(PyArrayObject *out, PyArrayObject *log, int one)
{
    if (one) {
        npy_intp d = out ? PyArray_DIM(out, 1) : 0;
        PyArray_Dims vector = {&d, 1}, scalar = {NULL, 0};
        PyArrayObject *a = out ? (PyArrayObject *)PyArray_Newshape(out, &vector, NPY_CORDER) : NULL;
        PyArrayObject *b = (PyArrayObject *)PyArray_Newshape(log, &scalar, NPY_CORDER);
        Py_XDECREF(out);
        Py_DECREF(log);
        if ((out && !a) || !b) {
            Py_XDECREF(a);
            Py_XDECREF(b);
            return NULL;
        }
        out = a, log = b;
    }
    PyObject *number = one ? PyArray_Return(log) : (PyObject *)log;
    return out ? Py_BuildValue("(NN)", out, number) : number;
}

static PyObject *X(map_rows)(model_object *self, const rows *in, const int32_t *label, map_task task)
{
    npy_intp shape[2] = {in->n, in->d};
    PyArrayObject *out = NULL, *log = (PyArrayObject *)PyArray_SimpleNew(1, shape, NPY_DOUBLE);
    if (!log) return NULL;
    if (task != LOGP) {
        out = (PyArrayObject *)PyArray_SimpleNew(2, shape, REAL_BITS == 32 ? NPY_FLOAT : NPY_DOUBLE);
        if (!out) goto error;
    }
    if (X(map_chunks)(self, task, out ? PyArray_DATA(out) : NULL, PyArray_DATA(log), in, label)) goto error;
    return X(pack)(out, log, in->one);
error:
    Py_XDECREF(out);
    Py_DECREF(log);
    return NULL;
}

static PyObject *X(sample_rows)(model_object *self, const int32_t *label, uint64_t seed, npy_intp first, npy_intp n)
{
    npy_intp shape[2] = {n, X(model_dim)(self->X(model))};
    PyArrayObject *x = (PyArrayObject *)PyArray_SimpleNew(2, shape, REAL_BITS == 32 ? NPY_FLOAT : NPY_DOUBLE);
    PyArrayObject *logp = x ? (PyArrayObject *)PyArray_SimpleNew(1, shape, NPY_DOUBLE) : NULL;
    call c;
    pf_status status;
    if (!logp || call_begin(&c, state_of(self))) goto error;
    real *to = PyArray_DATA(x);
    double *log = PyArray_DATA(logp);
    Py_BEGIN_ALLOW_THREADS status = X(model_sample)(self->X(model), to, log, label, seed, first, n);
    Py_END_ALLOW_THREADS if (call_end(&c, state_of(self), status)) goto error;
    return X(pack)(x, logp, 0);
error:
    Py_XDECREF(x);
    Py_XDECREF(logp);
    return NULL;
}
#endif
