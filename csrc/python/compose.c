/* Flows made by hand, layer by layer. */
#ifndef real
#include "core.h"

#define TWICE "python/compose.c" /* seen from twice.h */
#include "twice.h"

const char compose_doc[] =
    "compose(layers, *, shape, box=None, n_classes=0, bits=64, flow=None)\n--\n\n"
    "A flow of layers that are the identity until they are trained: a sequence of ('scale', mean, "
    "scale),\n('fill', mask as uint8, mean, scale), ('affine', matrix or None, mean or None), ('bounds', bounds), "
    "('sliced', n_slices, "
    "n_knots, seed), ('patch',\n(image, kernel, shift), (n_slices, n_knots), seed), ('symmetric', psi_knots, "
    "filter_knots, (axis, mu_knots) or\nNone), ('shift', knots, "
    "filter_knots, (mean, scale)), ('coupling', channels, knots, (split, large)),\n('autoregressive', (rank as int32, "
    "hidden, bins), (stats[4][n_y] or None, linear or None, log_scale or None), seed). On top of flow, if that is "
    "given.";
PyObject *core_compose(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"layers", "shape", "box", "n_classes", "bits", "flow", NULL};
    PyObject *layers, *shape, *box = NULL, *flow = Py_None;
    int classes = 0, bits = 64, ndim;
    ptrdiff_t n[POINT_AXES];
    double lengths[POINT_AXES] = {1, 1, 1};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!|$OiiO", names, &layers, &PyTuple_Type, &shape, &box, &classes,
                                     &bits, &flow))
        return NULL;
    ndim = (int)PyTuple_GET_SIZE(shape);
    if (ndim < 1 || ndim > POINT_AXES) return PyErr_Format(PyExc_ValueError, "shape: has 1 to 3 axes, not %d", ndim);
    for (int i = 0; i < ndim; i++) {
        n[i] = PyNumber_AsSsize_t(PyTuple_GET_ITEM(shape, i), PyExc_OverflowError);
        if (n[i] == -1 && PyErr_Occurred()) return NULL;
    }
    if (given(box)) {
        PyArrayObject *a = vector_open(box, "box", NPY_DOUBLE, ndim);
        if (!a) return NULL;
        memcpy(lengths, PyArray_DATA(a), (size_t)ndim * sizeof(double));
        Py_DECREF(a);
    }
    PyObject *list = PySequence_Fast(layers, "layers: must be a sequence");
    if (!list) return NULL;
    core_state *state = PyModule_GetState(module);
    PyObject *result = bits == 32 ? pf32_compose(state, list, ndim, n, lengths, classes, flow)
                                  : pf64_compose(state, list, ndim, n, lengths, classes, flow);
    Py_DECREF(list);
    return result;
}

#else /* ---- once in each precision ------------------------------------------------------------------------------- */

static int X(add_affine)(pf_status *status, X(flow) *flow, PyObject *w, PyObject *mean)
{
    npy_intp d = X(flow_dim)(flow);
    PyArrayObject *a = NULL, *b = NULL;
    int failed = (given(w) && !(a = matrix_open(w, "matrix", d, d))) ||
                 (given(mean) && !(b = vector_open(mean, "mean", NPY_DOUBLE, d)));
    if (!failed) *status = X(flow_add_affine)(flow, data_or_null(a), data_or_null(b));
    Py_XDECREF(a);
    Py_XDECREF(b);
    return failed;
}

static int X(add_bounds)(pf_status *status, X(flow) *flow, PyObject *bounds)
{
    PyArrayObject *a = matrix_open(bounds, "bounds", X(flow_dim)(flow), 2);
    if (!a) return -1;
    *status = X(flow_add_bounds)(flow, PyArray_DATA(a));
    Py_DECREF(a);
    return 0;
}

static int X(add_fill)(pf_status *status, X(flow) *flow, PyObject *mask, PyObject *mean, PyObject *scale)
{
    double m = PyFloat_AsDouble(mean), s = PyErr_Occurred() ? 0 : PyFloat_AsDouble(scale);
    PyArrayObject *a = PyErr_Occurred() ? NULL : vector_open(mask, "mask", NPY_UINT8, X(flow_dim)(flow));
    if (!a) return -1;
    *status = X(flow_add_fill)(flow, PyArray_DATA(a), m, s);
    Py_DECREF(a);
    return 0;
}

/* where: image[3], kernel[3], shift[2], splines: how many slices and knots */
static int X(add_patch)(pf_status *status, X(flow) *flow, PyObject *where, PyObject *splines, uint64_t seed)
{
    Py_ssize_t i[3], k[3], s[2], n[2];
    if (!PyTuple_Check(where) || !PyTuple_Check(splines)) {
        PyErr_SetString(PyExc_TypeError, "patch: the image and the splines are tuples");
        return -1;
    }
    if (!PyArg_ParseTuple(where, "(nnn)(nnn)(nn)", i, i + 1, i + 2, k, k + 1, k + 2, s, s + 1) ||
        !PyArg_ParseTuple(splines, "nn", n, n + 1))
        return -1;
    *status = X(flow_add_patch)(flow, i, k, s, n[0], n[1], seed);
    return 0;
}

static int X(add_autoregressive)(pf_status *status, X(flow) *flow, PyObject *shape, PyObject *start, uint64_t seed)
{
    enum { MOST = 16 }; /* more hidden layers than there may be */
    npy_intp d = X(flow_dim)(flow), n_y = 0;
    PyObject *rank, *hidden, *stats, *linear, *log_scale;
    PyArrayObject *a = NULL, *b = NULL, *c = NULL, *e = NULL;
    ptrdiff_t units[MOST];
    Py_ssize_t bins;
    if (!PyTuple_Check(shape) || !PyTuple_Check(start)) {
        PyErr_SetString(PyExc_TypeError, "autoregressive: the shape and the start are tuples");
        return -1;
    }
    if (!PyArg_ParseTuple(shape, "OO!n", &rank, &PyTuple_Type, &hidden, &bins) ||
        !PyArg_ParseTuple(start, "OOO", &stats, &linear, &log_scale))
        return -1;
    pf_network network = {.bins = bins, .hidden = units, .seed = seed};
    network.n_hidden = (int)Py_MIN(PyTuple_GET_SIZE(hidden), MOST);
    for (int i = 0; i < network.n_hidden; i++) {
        units[i] = PyNumber_AsSsize_t(PyTuple_GET_ITEM(hidden, i), PyExc_OverflowError);
        if (units[i] == -1 && PyErr_Occurred()) return -1;
    }
    if (given(stats)) {
        n_y = PyArray_Check(stats) && PyArray_NDIM((PyArrayObject *)stats) == 2 ? PyArray_DIM((PyArrayObject *)stats, 1)
                                                                                : 1;
        if (!(b = matrix_open(stats, "stats", 4, n_y))) return -1;
    }
    int failed = !(a = vector_open(rank, "ranks", NPY_INT32, d)) ||
                 (given(linear) && !(c = matrix_open(linear, "linear", d, n_y + d))) ||
                 (given(log_scale) && !(e = vector_open(log_scale, "log_scale", NPY_DOUBLE, d)));
    if (!failed) {
        network.n_y = n_y;
        network.rank = PyArray_DATA(a);
        network.stats = data_or_null(b);
        network.linear = data_or_null(c);
        network.log_scale = data_or_null(e);
        *status = X(flow_add_autoregressive)(flow, &network);
    }
    Py_XDECREF(a);
    Py_XDECREF(b);
    Py_XDECREF(c);
    Py_XDECREF(e);
    return failed;
}

/* Appends one layer; non-zero with an exception. */
static int X(add)(core_state *state, X(flow) *flow, PyObject *layer)
{
    const char *kind;
    PyObject *a = Py_None, *b = Py_None, *c = Py_None;
    pf_status status = PF_OK;
    uint64_t seed;
    if (!PyArg_ParseTuple(layer, "s|OOO", &kind, &a, &b, &c)) return -1;
    if (!strcmp(kind, "affine")) {
        if (X(add_affine)(&status, flow, a, b)) return -1;
    } else if (!strcmp(kind, "bounds")) {
        if (X(add_bounds)(&status, flow, a)) return -1;
    } else if (!strcmp(kind, "scale")) {
        double mean = PyFloat_AsDouble(a), scale = PyErr_Occurred() ? 0 : PyFloat_AsDouble(b);
        if (PyErr_Occurred()) return -1;
        status = X(flow_add_scale)(flow, mean, scale);
    } else if (!strcmp(kind, "fill")) {
        if (X(add_fill)(&status, flow, a, b, c)) return -1;
    } else if (!strcmp(kind, "patch")) {
        if (seed_from(c, &seed) || X(add_patch)(&status, flow, a, b, seed)) return -1;
    } else if (!strcmp(kind, "autoregressive")) {
        if (seed_from(c, &seed) || X(add_autoregressive)(&status, flow, a, b, seed)) return -1;
    } else {
        Py_ssize_t m = PyNumber_AsSsize_t(a, PyExc_OverflowError), n = 0;
        if (!PyErr_Occurred()) n = PyNumber_AsSsize_t(b, PyExc_OverflowError);
        if (PyErr_Occurred() || (!strcmp(kind, "sliced") && seed_from(c, &seed))) return -1;
        if (!strcmp(kind, "sliced")) status = X(flow_add_sliced)(flow, m, n, seed);
        else if (!strcmp(kind, "symmetric")) {
            Py_ssize_t axis = -1, mu_knots = 1;
            if (PyTuple_Check(c) && !PyArg_ParseTuple(c, "nn", &axis, &mu_knots)) return -1;
            status = X(flow_add_axial)(flow, axis, m, n, mu_knots);
        } else if (!strcmp(kind, "shift")) {
            double mean, scale;
            if (!PyTuple_Check(c) || !PyArg_ParseTuple(c, "dd", &mean, &scale)) return -1;
            status = X(flow_add_shift)(flow, mean, scale, m, n);
        } else if (!strcmp(kind, "coupling")) {
            double split;
            int large;
            if (!PyTuple_Check(c) || !PyArg_ParseTuple(c, "dp", &split, &large)) return -1;
            status = X(flow_add_coupling)(flow, split, large, m, n);
        } else {
            PyErr_Format(PyExc_ValueError, "layers: there is no layer '%s'", kind);
            return -1;
        }
    }
    if (status) core_raise(state, status);
    return status ? -1 : 0;
}

static PyObject *X(compose)(core_state *state, PyObject *list, int ndim, const ptrdiff_t *n, const double *box,
                            int classes, PyObject *from)
{
    X(flow) *flow = NULL;
    const X(flow) *before = NULL;
    if (given(from) && (!Py_IS_TYPE(from, state->flow_type) || ((flow_object *)from)->bits != REAL_BITS)) {
        PyErr_SetString(PyExc_TypeError, "flow: must be a flow of this precision");
        return NULL;
    }
    if (given(from)) before = ((flow_object *)from)->X(flow);
    pf_status status = before ? X(flow_copy)(&flow, before, X(flow_layers)(before))
                              : X(flow_new)(&flow, ndim, n, box, classes);
    if (status) {
        core_raise(state, status);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(list); i++)
        if (X(add)(state, flow, PySequence_Fast_GET_ITEM(list, i))) {
            X(flow_free)(flow);
            return NULL;
        }
    return X(flow_wrap)(state, flow);
}
#endif
