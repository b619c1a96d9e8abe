/* _core.Flow: a fitted flow, in either precision. */
#ifndef real
#include "core.h"

/* EITHER(self, layers) calls pf32_flow_layers or pf64_flow_layers. */
#define EITHER(self, function, ...)                                                                                    \
    ((self)->bits == 32 ? pf32_flow_##function((self)->pf32_flow, ##__VA_ARGS__)                                       \
                        : pf64_flow_##function((self)->pf64_flow, ##__VA_ARGS__))

/* Numbers that are converted at a time when they cannot be used where they are. */
enum { CHUNK_BYTES = 16 << 20 };

static core_state *state_of(flow_object *self) { return PyType_GetModuleState(Py_TYPE((PyObject *)self)); }

/* What points are mapped with. */
typedef struct {
    points x;
    PyArrayObject *y, *label, *context; /* or NULL */
    Py_ssize_t draws;                   /* of what is not observed */
    uint64_t seed;
} input;

static void input_close(input *in)
{
    points_close(&in->x);
    Py_XDECREF(in->y);
    Py_XDECREF(in->label);
    Py_XDECREF(in->context);
}

/* The core says what is missing. */
static int open_conditions(input *in, const flow_object *self, PyObject *y, PyObject *label, PyObject *context,
                           npy_intp n, npy_intp n_rows, npy_intp n_y)
{
    if (given(y) && !(in->y = matrix_open(y, "y", n_rows, n_y))) return -1;
    if (given(label) && !(in->label = vector_open(label, "labels", NPY_INT32, n))) return -1;
    if (given(context) && !(in->context = fields_open(context, "condition_field", self->bits, n, EITHER(self, ndim),
                                                      EITHER(self, shape))))
        return -1;
    return 0;
}

/* What a flow makes a mixture with: borrowed from the tuple of the caller */
typedef struct {
    npy_intp n;
    void **flow; /* [n] of the core's, in the precision of the first member */
    PyArrayObject *weight;
} members;

static void members_close(members *m)
{
    PyMem_Free(m->flow);
    Py_XDECREF(m->weight);
}

static int members_open(members *m, flow_object *self, PyObject *others, PyObject *weights)
{
    m->n = PyTuple_GET_SIZE(others);
    m->weight = vector_open(weights, "weights", NPY_DOUBLE, m->n + 1);
    m->flow = m->weight ? PyMem_Calloc((size_t)m->n + 1, sizeof *m->flow) : NULL;
    if (m->weight && !m->flow) PyErr_NoMemory();
    for (npy_intp k = 0; m->flow && k < m->n; k++) {
        flow_object *flow = (flow_object *)PyTuple_GET_ITEM(others, k);
        if (Py_IS_TYPE(flow, Py_TYPE((PyObject *)self)) && flow->bits == self->bits) {
            m->flow[k] = flow->bits == 32 ? (void *)flow->pf32_flow : (void *)flow->pf64_flow;
            continue;
        }
        PyErr_SetString(PyExc_TypeError, "others: must be flows of the core, of this one's precision");
        break;
    }
    if (!PyErr_Occurred()) return 0;
    members_close(m);
    return -1;
}

/* The core counted points from the beginning of the chunk. */
static int raise_in_chunk(npy_intp first)
{
    if (first == 0 || !PyErr_ExceptionMatches(PyExc_ValueError)) return -1;
    PyErr_Format(PyExc_ValueError, "%s (counted from number %zd)", pf_message(), first);
    return -1;
}

#define TWICE "python/flow.c" /* seen from twice.h */
#include "twice.h"

/* ---- maps ------------------------------------------------------------------------------------------------- */

static PyObject *map(PyObject *op, PyObject *args, PyObject *kwargs, pf_question task)
{
    static char *with_draws[] = {"x", "y", "labels", "condition_field", "draws", "seed", NULL};
    static char *with_x[] = {"x", "y", "labels", "condition_field", NULL},
                *with_z[] = {"z", "y", "labels", "condition_field", NULL};
    flow_object *self = (flow_object *)op;
    PyObject *x, *y = Py_None, *label = Py_None, *context = Py_None, *seed = NULL, *result = NULL;
    const char *name = task == PF_INVERSE ? "z" : "x";
    input in = {.draws = 1};
    int draws = task == PF_LOGP || task == PF_LOGP_AT;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, draws ? "O|OOOnO" : "O|OOO",
                                     draws                ? with_draws
                                     : task == PF_INVERSE ? with_z
                                                          : with_x,
                                     &x, &y, &label, &context, &in.draws, &seed))
        return NULL;
    if (seed && seed_from(seed, &in.seed)) return NULL;
    int ndim = EITHER(self, ndim);
    if (points_open(&in.x, x, name, ndim, ndim, EITHER(self, shape))) return NULL;
    npy_intp n = in.x.n;
    if (!open_conditions(&in, self, y, label, context, n, task == PF_LOGP_AT ? -1 : n, EITHER(self, conditions)))
        result = self->bits == 32 ? pf32_map(self, &in, task) : pf64_map(self, &in, task);
    input_close(&in);
    return result;
}

#define MAP(name, task, doc)                                                                                           \
    PyDoc_STRVAR(name##_doc, doc);                                                                                     \
    static PyObject *flow_##name(PyObject *self, PyObject *args, PyObject *kwargs)                                     \
    {                                                                                                                  \
        return map(self, args, kwargs, task);                                                                          \
    }
MAP(evaluate_density, PF_LOGP,
    "evaluate_density(x, y=None, labels=None, condition_field=None, draws=1, seed=0)\n--\n\nlog p of every point: "
    "float64 (n,).")
MAP(evaluate_at, PF_LOGP_AT,
    "evaluate_at(x, y, labels=None, condition_field=None, draws=1, seed=0)\n--\n\nlog p of every point at every one of "
    "m conditions: "
    "float64 (n, m).")
MAP(forward, PF_FORWARD,
    "forward(x, y=None, labels=None, condition_field=None)\n--\n\n(z, logj): latent points and log|det dz/dx|.")
MAP(inverse, PF_INVERSE,
    "inverse(z, y=None, labels=None, condition_field=None)\n--\n\n(x, logj): data and log|det dx/dz|.")
MAP(score, PF_SCORE,
    "score(x, y=None, labels=None, condition_field=None)\n--\n\n(score, logp): d log p / dx, and log p.")
MAP(score_parameters, PF_SCORE_PARAMETERS,
    "score_parameters(x, y, labels=None, condition_field=None)\n--\n\n(score, logp): d log p / dy, and log p.")

PyDoc_STRVAR(sample_doc, "sample(n, y=None, labels=None, seed=0, first=0, condition_field=None)\n--\n\n"
                         "(x, logp): points first .. first + n - 1 of the sample of this seed.");
static PyObject *flow_sample(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n", "y", "labels", "seed", "first", "condition_field", NULL};
    flow_object *self = (flow_object *)op;
    Py_ssize_t n, first = 0;
    PyObject *y = Py_None, *label = Py_None, *seed_object = NULL, *context = Py_None, *result = NULL;
    uint64_t seed;
    input in = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|OOOnO", names, &n, &y, &label, &seed_object, &first, &context))
        return NULL;
    if (seed_from(seed_object, &seed)) return NULL;
    if (n < 0 || first < 0) return PyErr_Format(PyExc_ValueError, "%s: must not be negative", n < 0 ? "n" : "first");
    if (!open_conditions(&in, self, y, label, context, n, n, EITHER(self, conditions)))
        result = self->bits == 32 ? pf32_draw(self, &in, seed, first, n) : pf64_draw(self, &in, seed, first, n);
    input_close(&in);
    return result;
}

PyDoc_STRVAR(
    calibrate_doc,
    "calibrate(x, y, simulation, width, seed=0, condition_field=None, others=(), weights=None)\n--\n\n"
    "(flow, before, after, best, error): the flow with the temperature that is best on these points, shrunk;\n"
    "mean log p(y|x) / prior(y) at temperature 1 and at that one; the best one, and the standard error of its\n"
    "logarithm. simulation (n,): numbers below n, of the simulations. others: a tuple of flows with which this one\n"
    "makes a mixture; weights (1 + others,).");
static PyObject *flow_calibrate(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "y", "simulation", "width", "seed", "condition_field", "others", "weights", NULL};
    flow_object *self = (flow_object *)op;
    PyObject *x, *y, *simulation, *seed_object = NULL, *context = Py_None, *others = NULL, *weights = Py_None,
                                  *result = NULL;
    double width;
    uint64_t seed;
    input in = {0};
    int ndim = EITHER(self, ndim);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOd|OOO!O", names, &x, &y, &simulation, &width, &seed_object,
                                     &context, &PyTuple_Type, &others, &weights))
        return NULL;
    members of = {0};
    if (others && members_open(&of, self, others, weights)) return NULL;
    if (seed_from(seed_object, &seed) || points_open(&in.x, x, "x", ndim, ndim, EITHER(self, shape))) {
        members_close(&of);
        return NULL;
    }
    npy_intp n = in.x.n, n_y = EITHER(self, conditions) - EITHER(self, noise_condition);
    if (!open_conditions(&in, self, y, NULL, context, n, n, n_y) &&
        (in.label = vector_open(simulation, "simulation", NPY_INT32, n)))
        result = self->bits == 32 ? pf32_calibrated(self, &in, &of, width, seed)
                                  : pf64_calibrated(self, &in, &of, width, seed);
    input_close(&in);
    members_close(&of);
    return result;
}

/* ---- other flows from this one ---------------------------------------------------------------------------- */

PyDoc_STRVAR(truncate_doc, "truncate(n_layers)\n--\n\nThe flow of the first layers. Tables are shared, not copied.");
static PyObject *flow_truncate(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n_layers", NULL};
    flow_object *self = (flow_object *)op;
    Py_ssize_t n_layers;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n", names, &n_layers)) return NULL;
    return self->bits == 32 ? pf32_copy(self, n_layers, NULL) : pf64_copy(self, n_layers, NULL);
}

PyDoc_STRVAR(with_note_doc, "with_note(note)\n--\n\nThe same flow with another note: JSON, or ''.");
static PyObject *with_note(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"note", NULL};
    flow_object *self = (flow_object *)op;
    const char *note;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s", names, &note)) return NULL;
    ptrdiff_t n_layers = EITHER(self, layers);
    return self->bits == 32 ? pf32_copy(self, n_layers, note) : pf64_copy(self, n_layers, note);
}

PyDoc_STRVAR(copy_doc, "The flow itself: it never changes.");
static PyObject *itself(PyObject *self, PyObject *Py_UNUSED(unused)) { return Py_NewRef(self); }

/* ---- bytes and files -------------------------------------------------------------------------------------- */

PyDoc_STRVAR(to_bytes_doc, "to_bytes()\n--\n\nWhat a saved file holds.");
static PyObject *to_bytes(PyObject *op, PyObject *Py_UNUSED(unused))
{
    flow_object *self = (flow_object *)op;
    void *bytes = NULL;
    size_t n = 0;
    pf_status status;
    Py_BEGIN_ALLOW_THREADS status = EITHER(self, write, &bytes, &n);
    Py_END_ALLOW_THREADS if (status)
    {
        core_raise(state_of(self), status);
        return NULL;
    }
    PyObject *result = PyBytes_FromStringAndSize(bytes, (Py_ssize_t)n);
    pf_free(bytes);
    return result;
}

static pf_status write_file(const void *self, const char *path)
{
    return EITHER((const flow_object *)self, save, path);
}

PyDoc_STRVAR(save_doc, "save(path)\n--\n\nWrite the flow to a file: aside, then renamed.");
static PyObject *save(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return call_with_path(state_of((flow_object *)self), args, kwargs, write_file, self);
}

PyDoc_STRVAR(reduce_doc, "For pickle: the function that reads the bytes, and the bytes.");
static PyObject *reduce(PyObject *self, PyObject *unused)
{
    PyObject *module = PyType_GetModule(Py_TYPE(self));
    PyObject *read = module ? PyObject_GetAttrString(module, "from_bytes") : NULL;
    PyObject *bytes = read ? to_bytes(self, unused) : NULL;
    PyObject *result = bytes ? Py_BuildValue("O(O)", read, bytes) : NULL;
    Py_XDECREF(read);
    Py_XDECREF(bytes);
    return result;
}

const char from_bytes_doc[] = "from_bytes(bytes)\n--\n\nThe flow in these bytes, which are checked.";
PyObject *core_from_bytes(PyObject *module, PyObject *bytes)
{
    core_state *state = PyModule_GetState(module);
    Py_buffer view;
    if (PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE)) return NULL;
    PyObject *result; /* what is no flow at all, the core says of either precision */
    if (pf_flow_bits(view.buf, (size_t)view.len) == 32) result = pf32_from_bytes(state, view.buf, (size_t)view.len);
    else result = pf64_from_bytes(state, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return result;
}

/* ---- what is known of it ---------------------------------------------------------------------------------- */

/* A float64 array of numbers that the flow has */
static PyObject *numbers(const double *from, npy_intp rows, npy_intp columns)
{
    npy_intp shape[2] = {rows, columns};
    PyObject *result = PyArray_SimpleNew(columns ? 2 : 1, shape, NPY_DOUBLE);
    size_t n = (size_t)(rows * (columns ? columns : 1));
    if (result && n) memcpy(PyArray_DATA((PyArrayObject *)result), from, n * sizeof *from);
    return result;
}

PyDoc_STRVAR(history_doc, "history()\n--\n\nfloat64 (steps, 4): 0 for a layer or the number of an epoch, log p of "
                          "training and validation data, sliced distance.");
static PyObject *flow_history(PyObject *op, PyObject *Py_UNUSED(unused))
{
    ptrdiff_t steps;
    const double *history = EITHER((flow_object *)op, history, &steps);
    return numbers(history, steps, 4);
}

PyDoc_STRVAR(parameters_doc, "parameters(layer)\n--\n\nfloat64: the unconstrained parameters of a layer.");
static PyObject *flow_parameters(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"layer", NULL};
    flow_object *self = (flow_object *)op;
    Py_ssize_t layer;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n", names, &layer)) return NULL;
    if (layer < 0 || layer >= EITHER(self, layers))
        return PyErr_Format(PyExc_IndexError, "layer: %zd is not between 0 and %zd", layer, EITHER(self, layers) - 1);
    return numbers(EITHER(self, layer_theta, layer), EITHER(self, layer_parameters, layer), 0);
}

static PyObject *get_shape(PyObject *op, void *Py_UNUSED(closure))
{
    flow_object *self = (flow_object *)op;
    const ptrdiff_t *n = EITHER(self, shape);
    int ndim = EITHER(self, ndim);
    return ndim == 1   ? Py_BuildValue("(n)", n[0])
           : ndim == 2 ? Py_BuildValue("(nn)", n[0], n[1])
                       : Py_BuildValue("(nnn)", n[0], n[1], n[2]);
}

static PyObject *get_box(PyObject *op, void *Py_UNUSED(closure))
{
    flow_object *self = (flow_object *)op;
    const double *box = EITHER(self, box);
    int ndim = EITHER(self, ndim);
    if (ndim == 1) Py_RETURN_NONE;
    return ndim == 2 ? Py_BuildValue("(dd)", box[0], box[1]) : Py_BuildValue("(ddd)", box[0], box[1], box[2]);
}

static PyObject *get_range(PyObject *op, void *Py_UNUSED(closure))
{
    flow_object *self = (flow_object *)op;
    npy_intp n_y = EITHER(self, conditions);
    PyObject *flat = numbers(EITHER(self, range), 2 * n_y, 0);
    npy_intp shape[2] = {2, n_y};
    PyArray_Dims dims = {shape, 2};
    PyObject *result = flat ? PyArray_Newshape((PyArrayObject *)flat, &dims, NPY_CORDER) : NULL;
    Py_XDECREF(flat);
    return result;
}

static PyObject *get_mask(PyObject *op, void *Py_UNUSED(closure))
{
    flow_object *self = (flow_object *)op;
    const unsigned char *mask = EITHER(self, mask);
    npy_intp shape[POINT_AXES];
    int ndim = EITHER(self, ndim);
    if (!mask) Py_RETURN_NONE;
    for (int i = 0; i < ndim; i++) shape[i] = EITHER(self, shape)[i];
    PyObject *result = PyArray_SimpleNew(ndim, shape, NPY_BOOL);
    if (result) memcpy(PyArray_DATA((PyArrayObject *)result), mask, (size_t)EITHER(self, dim));
    return result;
}

static PyObject *get_k_range(PyObject *op, void *Py_UNUSED(closure))
{
    flow_object *self = (flow_object *)op;
    const double *k = EITHER(self, band);
    if (!k) Py_RETURN_NONE;
    return Py_BuildValue("dd", k[0], k[1]);
}

static PyObject *get_layers(PyObject *op, void *Py_UNUSED(closure))
{
    flow_object *self = (flow_object *)op;
    Py_ssize_t n = EITHER(self, layers);
    PyObject *layers = PyTuple_New(n);
    for (Py_ssize_t i = 0; layers && i < n; i++) {
        PyObject *kind = PyUnicode_FromString(EITHER(self, layer_kind, i));
        if (kind) PyTuple_SET_ITEM(layers, i, kind);
        else Py_CLEAR(layers);
    }
    return layers;
}

static PyObject *get_slices(PyObject *op, void *Py_UNUSED(closure))
{
    flow_object *self = (flow_object *)op;
    Py_ssize_t slices = 0;
    for (Py_ssize_t i = 0; i < EITHER(self, layers); i++) slices += EITHER(self, layer_slices, i);
    return PyLong_FromSsize_t(slices);
}

static PyObject *get_dtype(PyObject *self, void *Py_UNUSED(closure))
{
    return (PyObject *)PyArray_DescrFromType(((flow_object *)self)->bits == 32 ? NPY_FLOAT : NPY_DOUBLE);
}

/* GETTER(n_layers, PyLong_FromSsize_t, layers): get_n_layers, with pf32_flow_layers or pf64_flow_layers */
#define GETTER(attribute, convert, function)                                                                           \
    static PyObject *get_##attribute(PyObject *op, void *Py_UNUSED(closure))                                           \
    {                                                                                                                  \
        flow_object *self = (flow_object *)op;                                                                         \
        return convert(EITHER(self, function));                                                                        \
    }
GETTER(dim, PyLong_FromSsize_t, dim)
GETTER(n_layers, PyLong_FromSsize_t, layers)
GETTER(n_classes, PyLong_FromLong, classes)
GETTER(n_conditions, PyLong_FromSsize_t, conditions)
GETTER(n_parameters, PyLong_FromSsize_t, parameters)
GETTER(note, PyUnicode_FromString, note)
GETTER(temperature, PyFloat_FromDouble, temperature)
GETTER(unfinished, PyBool_FromLong, unfinished)
GETTER(noise_condition, PyBool_FromLong, noise_condition)
GETTER(condition_field, PyBool_FromLong, context)

static PyGetSetDef flow_getset[] = {
    {"dtype", get_dtype, NULL, "float32 or float64.", NULL},
    {"shape", get_shape, NULL, "Shape of one point.", NULL},
    {"box", get_box, NULL, "Length of every axis of a mesh; None for a table.", NULL},
    {"dim", get_dim, NULL, "How many numbers a point has.", NULL},
    {"mask", get_mask, NULL, "Where fields are observed, bool; None without a fill layer.", NULL},
    {"k_range", get_k_range, NULL, "Least and most |k| of the modes that it is of; None: of all.", NULL},
    {"layers", get_layers, NULL, "The kind of every layer.", NULL},
    {"n_layers", get_n_layers, NULL, "Number of layers.", NULL},
    {"n_classes", get_n_classes, NULL, "Number of classes, 0 without labels.", NULL},
    {"n_conditions", get_n_conditions, NULL, "Number of conditioning variables, the noise's included.", NULL},
    {"n_parameters", get_n_parameters, NULL, "Number of parameters.", NULL},
    {"slices", get_slices, NULL, "Slices of all layers together.", NULL},
    {"range", get_range, NULL, "float64 (2, n_conditions): their least and most in training.", NULL},
    {"note", get_note, NULL, "A text that travels with the flow: JSON, or ''.", NULL},
    {"temperature", get_temperature, NULL, "Power of the likelihood in posteriors: 1 unless calibrated.", NULL},
    {"unfinished", get_unfinished, NULL, "Whether it is from the checkpoint of training that goes on.", NULL},
    {"condition_field", get_condition_field, NULL, "Whether every point needs a second field.", NULL},
    {"noise_condition", get_noise_condition, NULL, "Whether the last condition is the noise's.", NULL},
    {0},
};

static PyMethodDef flow_methods[] = {
    {"evaluate_density", KEYWORDS(flow_evaluate_density), evaluate_density_doc},
    {"evaluate_at", KEYWORDS(flow_evaluate_at), evaluate_at_doc},
    {"forward", KEYWORDS(flow_forward), forward_doc},
    {"inverse", KEYWORDS(flow_inverse), inverse_doc},
    {"score", KEYWORDS(flow_score), score_doc},
    {"score_parameters", KEYWORDS(flow_score_parameters), score_parameters_doc},
    {"sample", KEYWORDS(flow_sample), sample_doc},
    {"calibrate", KEYWORDS(flow_calibrate), calibrate_doc},
    {"truncate", KEYWORDS(flow_truncate), truncate_doc},
    {"history", flow_history, METH_NOARGS, history_doc},
    {"parameters", KEYWORDS(flow_parameters), parameters_doc},
    {"with_note", KEYWORDS(with_note), with_note_doc},
    {"to_bytes", to_bytes, METH_NOARGS, to_bytes_doc},
    {"save", KEYWORDS(save), save_doc},
    {"__reduce__", reduce, METH_NOARGS, reduce_doc},
    {"__copy__", itself, METH_NOARGS, copy_doc},
    {"__deepcopy__", itself, METH_O, copy_doc},
    {0},
};

static void dealloc(PyObject *op)
{
    flow_object *self = (flow_object *)op;
    PyTypeObject *type = Py_TYPE(op);
    EITHER(self, free);
    type->tp_free(op);
    Py_DECREF(type);
}

PyDoc_STRVAR(flow_doc, "A flow. Made by the fits, compose and from_bytes; it never changes.");

static PyType_Slot flow_slots[] = {
    {Py_tp_doc, (void *)flow_doc},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, flow_methods},
    {Py_tp_getset, flow_getset},
    {0},
};

PyType_Spec flow_spec = {
    .name = "pyflow._core.Flow",
    .basicsize = sizeof(flow_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = flow_slots,
};

#else /* ---- once in each precision ------------------------------------------------------------------------------- */

PyObject *X(flow_wrap)(core_state *state, X(flow) *flow)
{
    flow_object *self = (flow_object *)state->flow_type->tp_alloc(state->flow_type, 0);
    if (self) {
        self->bits = REAL_BITS;
        self->X(flow) = flow;
    } else {
        X(flow_free)(flow);
    }
    return (PyObject *)self;
}

/* An object of what the core has made, or the exception that says why it has not. */
static PyObject *X(made)(core_state *state, pf_status status, X(flow) *flow)
{
    if (!status) return X(flow_wrap)(state, flow);
    core_raise(state, status);
    return NULL;
}

static PyObject *X(from_bytes)(core_state *state, const void *bytes, size_t n)
{
    X(flow) *flow = NULL;
    pf_status status = X(flow_read)(&flow, bytes, n);
    return X(made)(state, status, flow);
}

/* The first layers; note NULL: the same note */
static PyObject *X(copy)(flow_object *self, ptrdiff_t n_layers, const char *note)
{
    X(flow) *copy = NULL;
    pf_status status = X(flow_copy)(&copy, self->X(flow), n_layers);
    if (!status && note && (status = X(flow_set_note)(copy, note))) X(flow_free)(copy);
    return X(made)(state_of(self), status, copy);
}

/* out[n][columns] and log[n][logs] from points that lie as the core wants them, or else by chunks that are converted. */
static int X(map_chunks)(flow_object *self, pf_question task, PyArrayObject *out, PyArrayObject *log, const input *in)
{
    const points *p = &in->x;
    npy_intp n = p->n, step = n, n_y = in->y ? PyArray_DIM(in->y, 1) : 0;
    npy_intp m = task == PF_LOGP_AT && in->y ? PyArray_DIM(in->y, 0) : 1;
    const real *x = points_pointer(p, REAL_BITS);
    char *to = data_or_null(out);
    size_t row = out ? (size_t)(PyArray_NBYTES(out) / (n ? n : 1)) : 0;
    double *log_to = PyArray_DATA(log);
    const double *y = data_or_null(in->y);
    const int32_t *label = data_or_null(in->label);
    const real *context = data_or_null(in->context);
    real *chunk = NULL;
    int failed = 0;
    if (!x) {
        step = CHUNK_BYTES / ((npy_intp)sizeof(real) * p->d);
        step = step < 1 ? 1 : step > n ? n : step;
        chunk = PyMem_Malloc((size_t)(step * p->d) * sizeof *chunk + 1);
        if (!chunk) {
            PyErr_NoMemory();
            return -1;
        }
    }
    npy_intp first = 0;
    do { /* also for no points at all: the core checks the rest */
        npy_intp count = n - first < step ? n - first : step;
        call c;
        pf_status status;
        failed = (chunk && points_read(p, chunk, REAL_BITS, first, count)) || call_begin(&c, state_of(self));
        if (failed) break;
        void *at = to ? to + (size_t)first * row : NULL;
        X(request) r = {.question = task, .log = log_to + first * m, .in = x ? x + first * p->d : chunk, .n = count};
        if (task == PF_SCORE_PARAMETERS) r.score_parameters = at;
        else r.out = at;
        r.y = y && task != PF_LOGP_AT ? y + first * n_y : y;
        r.label = label ? label + first : NULL;
        r.context = context ? context + first * p->d : NULL;
        r.m = m;
        r.draws = in->draws;
        r.seed = in->seed;
        Py_BEGIN_ALLOW_THREADS status = X(flow_answer)(self->X(flow), &r);
        Py_END_ALLOW_THREADS failed = call_end(&c, state_of(self), status) ? raise_in_chunk(first) : 0;
        first += count;
    } while (first < n && !failed);
    PyMem_Free(chunk);
    return failed;
}

/* a, a new array, without its first dimension, of length one */
static PyObject *X(first)(PyArrayObject *a)
{
    PyArray_Dims dims = {PyArray_DIMS(a) + 1, PyArray_NDIM(a) - 1};
    PyArrayObject *one = (PyArrayObject *)PyArray_Newshape(a, &dims, NPY_CORDER);
    Py_DECREF(a);
    return one ? PyArray_Return(one) : NULL;
}

/* (out, log), or log alone */
static PyObject *X(pack)(PyArrayObject *out, PyArrayObject *log, int one)
{
    PyObject *a = (PyObject *)out, *b = (PyObject *)log;
    if (one) {
        if (a && !(a = X(first)(out))) {
            Py_DECREF(log);
            return NULL;
        }
        if (!(b = X(first)(log))) {
            Py_XDECREF(a);
            return NULL;
        }
    }
    return a ? Py_BuildValue("(NN)", a, b) : b;
}

static PyObject *X(map)(flow_object *self, const input *in, pf_question task)
{
    const X(flow) *f = self->X(flow);
    npy_intp n = in->x.n, log_shape[2] = {n, task == PF_LOGP_AT && in->y ? PyArray_DIM(in->y, 0) : 0};
    npy_intp gradient[2] = {n, X(flow_conditions)(f)};
    PyArrayObject *out = NULL,
                  *log = (PyArrayObject *)PyArray_SimpleNew(task == PF_LOGP_AT ? 2 : 1, log_shape, NPY_DOUBLE);
    if (!log) return NULL;
    if (task == PF_SCORE_PARAMETERS) out = (PyArrayObject *)PyArray_SimpleNew(2, gradient, NPY_DOUBLE);
    else if (task != PF_LOGP && task != PF_LOGP_AT) out = points_empty(REAL_BITS, n, X(flow_ndim)(f), X(flow_shape)(f));
    if ((task != PF_LOGP && task != PF_LOGP_AT && !out) || X(map_chunks)(self, task, out, log, in)) {
        Py_XDECREF(out);
        Py_DECREF(log);
        return NULL;
    }
    return X(pack)(out, log, in->x.one);
}

static PyObject *X(draw)(flow_object *self, const input *in, uint64_t seed, npy_intp first, npy_intp n)
{
    const X(flow) *f = self->X(flow);
    PyArrayObject *x = points_empty(REAL_BITS, n, X(flow_ndim)(f), X(flow_shape)(f));
    PyArrayObject *logp = x ? (PyArrayObject *)PyArray_SimpleNew(1, &n, NPY_DOUBLE) : NULL;
    call c;
    pf_status status;
    if (!logp || call_begin(&c, state_of(self))) goto error;
    X(request) r = {.question = PF_SAMPLE, .out = PyArray_DATA(x), .log = PyArray_DATA(logp), .seed = seed};
    r.y = data_or_null(in->y);
    r.label = data_or_null(in->label);
    r.context = data_or_null(in->context);
    r.first = first;
    r.n = n;
    Py_BEGIN_ALLOW_THREADS status = X(flow_answer)(self->X(flow), &r);
    Py_END_ALLOW_THREADS if (call_end(&c, state_of(self), status)) goto error;
    return X(pack)(x, logp, 0);
error:
    Py_XDECREF(x);
    Py_XDECREF(logp);
    return NULL;
}

static PyObject *X(calibrated)(flow_object *self, const input *in, const members *of, double width, uint64_t seed)
{
    const X(members) others = {.n = of->n, .flow = (X(flow) **)of->flow, .weight = data_or_null(of->weight)};
    const points *p = &in->x;
    X(data) data = {.x = points_pointer(p, REAL_BITS), .y = data_or_null(in->y), .n = p->n};
    X(flow) *copy = NULL;
    real *converted = NULL;
    double found[4] = {0};
    PyObject *result = NULL;
    call c;
    pf_status status;
    data.n_y = in->y ? PyArray_DIM(in->y, 1) : 0;
    data.context = data_or_null(in->context);
    if (!data.x) {
        converted = PyMem_Malloc((size_t)(p->n * p->d) * sizeof *converted + 1);
        if (!converted) return PyErr_NoMemory();
        if (points_read(p, converted, REAL_BITS, 0, p->n)) goto done;
        data.x = converted;
    }
    if (call_begin(&c, state_of(self))) goto done;
    Py_BEGIN_ALLOW_THREADS status = X(flow_copy)(&copy, self->X(flow), X(flow_layers)(self->X(flow)));
    if (!status)
        status = X(flow_calibrate_mixture)(copy, of->n ? &others : NULL, found, &data, PyArray_DATA(in->label), width,
                                           seed);
    Py_END_ALLOW_THREADS if (call_end(&c, state_of(self), status)) X(flow_free)(copy);
    else
    {
        PyObject *flow = X(flow_wrap)(state_of(self), copy);
        result = flow ? Py_BuildValue("(Ndddd)", flow, found[0], found[1], found[2], found[3]) : NULL;
    }
done:
    PyMem_Free(converted);
    return result;
}
#endif
