/* Array-likes of real numbers. Nothing is copied whole, and nothing of the caller's is changed. */
#include "core.h"

static int is_real(int type_num)
{
    return PyTypeNum_ISBOOL(type_num) || PyTypeNum_ISINTEGER(type_num) || PyTypeNum_ISFLOAT(type_num);
}

static int refuse_type(const char *name, PyArray_Descr *type)
{
    if (is_real(type->type_num)) return 0;
    PyErr_Format(PyExc_ValueError, "%s: must hold real numbers; its dtype is %S", name, type);
    return -1;
}

/* An ndarray of the base class without a copy if there is one; otherwise whatever NumPy makes of x. */
static PyArrayObject *any_array(PyObject *x, const char *name)
{
    PyObject *array = PyArray_FromAny(x, NULL, 0, 0, NPY_ARRAY_ENSUREARRAY, NULL);
    if (!array && (PyErr_ExceptionMatches(PyExc_ValueError) || PyErr_ExceptionMatches(PyExc_TypeError))) {
        PyObject *type, *why, *traceback;
        PyErr_Fetch(&type, &why, &traceback);
        PyErr_Format(PyExc_ValueError, "%s: cannot be made an array of numbers: %S", name, why ? why : Py_None);
        Py_XDECREF(type);
        Py_XDECREF(why);
        Py_XDECREF(traceback);
    }
    if (array && refuse_type(name, PyArray_DESCR((PyArrayObject *)array))) Py_CLEAR(array);
    return (PyArrayObject *)array;
}

/* Whether x is no ndarray, but has a NumPy dtype and a shape of one axis more than a point, so that it can be cut: 1
 * yes, 0 no, -1 exception. */
static int open_sliceable(points *p, PyObject *x, int ndim, int most_ndim, npy_intp *shape)
{
    if (PyArray_Check(x)) return 0;
    PyObject *axes = PyObject_GetAttrString(x, "shape"), *dtype = axes ? PyObject_GetAttrString(x, "dtype") : NULL;
    PyArray_Descr *type = NULL;
    int found = 0;
    if (dtype && PyTuple_Check(axes) && PyMapping_Check(x) && PyTuple_GET_SIZE(axes) >= ndim + 1 &&
        PyTuple_GET_SIZE(axes) <= most_ndim + 1 && PyArray_DescrConverter(dtype, &type)) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(axes); i++) shape[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(axes, i));
        if (!PyErr_Occurred()) {
            found = refuse_type(p->name, type) ? -1 : 1;
            if (found == 1) {
                p->source = Py_NewRef(x);
                p->type_num = type->type_num;
                p->ndim = (int)PyTuple_GET_SIZE(axes) - 1;
            }
        }
    }
    if (found >= 0) PyErr_Clear(); /* then NumPy's own conversion may still know what to do with it */
    Py_XDECREF(type);
    Py_XDECREF(axes);
    Py_XDECREF(dtype);
    return found;
}

static PyObject *shape_tuple(int ndim, const ptrdiff_t *shape)
{
    PyObject *tuple = PyTuple_New(ndim);
    for (int i = 0; tuple && i < ndim; i++) {
        PyObject *n = PyLong_FromSsize_t(shape[i]);
        if (n) PyTuple_SET_ITEM(tuple, i, n);
        else Py_CLEAR(tuple);
    }
    return tuple;
}

/* The array has another shape than points of shape[ndim] would. */
static void refuse_shape(const char *name, PyObject *array, int ndim, const ptrdiff_t *shape)
{
    PyObject *theirs = PyObject_GetAttrString(array, "shape"), *ours = shape_tuple(ndim, shape);
    PyObject *text = ours ? PyObject_Str(ours) : NULL; /* "(16, 16)" or "(3,)" */
    PyObject *inner = text ? PyUnicode_Substring(text, 1, PyUnicode_GET_LENGTH(text) - (ndim == 1 ? 2 : 1)) : NULL;
    if (theirs && inner)
        PyErr_Format(PyExc_ValueError, "%s: must have shape (n, %U), or %U for a single point; its shape is %R", name,
                     inner, text, theirs);
    Py_XDECREF(theirs);
    Py_XDECREF(ours);
    Py_XDECREF(text);
    Py_XDECREF(inner);
}

int points_open(points *p, PyObject *x, const char *name, int ndim, int most_ndim, const ptrdiff_t *shape)
{
    npy_intp whole[POINT_AXES + 1] = {0}; /* the number of points, and the shape of one */
    *p = (points){.name = name};
    int found = open_sliceable(p, x, ndim, most_ndim, whole);
    if (found < 0) return -1;
    if (!found) {
        PyArrayObject *a = any_array(x, name);
        if (!a) return -1;
        p->source = (PyObject *)a;
        p->array = a;
        p->type_num = PyArray_TYPE(a);
        p->ndim = PyArray_NDIM(a) - 1;
        p->one = shape && p->ndim + 1 == ndim;
        if (p->one) p->ndim = ndim;
        if (p->ndim < ndim || p->ndim > most_ndim) {
            PyObject *theirs = PyObject_GetAttrString(p->source, "shape");
            if (shape) refuse_shape(name, p->source, ndim, shape);
            else if (theirs && most_ndim == 1)
                PyErr_Format(PyExc_ValueError, "%s: must be two-dimensional, rows x columns; its shape is %R%s", name,
                             theirs, p->ndim == 0 ? "; a single column is x.reshape(-1, 1)" : "");
            else if (theirs)
                PyErr_Format(PyExc_ValueError, "%s: has %d axes; fields have %d to %d, the first of which counts them",
                             name, p->ndim + 1, ndim + 1, most_ndim + 1);
            Py_XDECREF(theirs);
            goto error;
        }
        whole[0] = 1;
        for (int i = 0; i < PyArray_NDIM(a); i++) whole[i + p->one] = PyArray_DIM(a, i);
    }
    p->n = whole[0];
    p->d = 1;
    for (int i = 0; i < p->ndim; i++) {
        p->shape[i] = whole[i + 1];
        p->d *= p->shape[i];
        if (!shape || shape[i] == p->shape[i]) continue;
        if (ndim == 1 && !p->one)
            PyErr_Format(PyExc_ValueError, "%s: has %zd columns where the flow has %zd", name, p->shape[i], shape[i]);
        else refuse_shape(name, p->source, ndim, shape);
        goto error;
    }
    return 0;
error:
    points_close(p);
    return -1;
}

void points_close(points *p) { Py_CLEAR(p->source); }

int points_bits(const points *p) { return p->type_num == NPY_FLOAT || p->type_num == NPY_HALF ? 32 : 64; }

const void *points_pointer(const points *p, int bits)
{
    if (!p->array || p->type_num != (bits == 32 ? NPY_FLOAT : NPY_DOUBLE) || !PyArray_ISCARRAY_RO(p->array))
        return NULL;
    return PyArray_DATA(p->array);
}

int points_read(const points *p, void *to, int bits, npy_intp first, npy_intp n)
{
    npy_intp shape[POINT_AXES + 1] = {n};
    for (int i = 0; i < p->ndim; i++) shape[i + 1] = p->shape[i];
    PyObject *into = PyArray_SimpleNewFromData(p->ndim + 1, shape, bits == 32 ? NPY_FLOAT : NPY_DOUBLE, to);
    PyObject *part = NULL;
    PyArrayObject *a = NULL;
    int status = -1;
    if (!into) return -1;
    if (p->one) {
        part = Py_NewRef(p->source);
    } else if (p->array) {
        part = PySequence_GetSlice(p->source, first, first + n);
    } else {
        PyObject *start = PyLong_FromSsize_t(first), *stop = PyLong_FromSsize_t(first + n);
        PyObject *slice = start && stop ? PySlice_New(start, stop, NULL) : NULL;
        part = slice ? PyObject_GetItem(p->source, slice) : NULL;
        Py_XDECREF(start);
        Py_XDECREF(stop);
        Py_XDECREF(slice);
    }
    if (part && (a = any_array(part, p->name))) {
        int wrong = !p->one && PyArray_NDIM(a) != p->ndim + 1;
        for (int i = 0; i <= p->ndim && !p->one && !wrong; i++) wrong = PyArray_DIM(a, i) != shape[i];
        if (wrong)
            PyErr_Format(PyExc_ValueError, "%s: points %zd to %zd did not come as %zd numbers each", p->name, first,
                         first + n - 1, p->d);
        else status = PyArray_CopyInto((PyArrayObject *)into, a);
    }
    Py_XDECREF(a);
    Py_XDECREF(part);
    Py_DECREF(into); /* a view of memory that is not Python's: it must not outlive this call */
    return status;
}

PyArrayObject *points_empty(int bits, npy_intp n, int ndim, const ptrdiff_t *shape)
{
    npy_intp whole[POINT_AXES + 1] = {n};
    for (int i = 0; i < ndim; i++) whole[i + 1] = shape[i];
    return (PyArrayObject *)PyArray_SimpleNew(ndim + 1, whole, bits == 32 ? NPY_FLOAT : NPY_DOUBLE);
}

static PyArrayObject *as_type(PyArrayObject *any, int type_num)
{
    PyArray_Descr *type = PyArray_DescrFromType(type_num);
    return type ? (PyArrayObject *)PyArray_FromArray(any, type, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST) : NULL;
}

PyArrayObject *vector_open(PyObject *x, const char *name, int type_num, npy_intp n)
{
    PyArrayObject *any = any_array(x, name), *a = NULL;
    if (!any) return NULL;
    if (PyArray_NDIM(any) == 1 && PyArray_DIM(any, 0) == n) a = as_type(any, type_num);
    else {
        PyObject *shape = PyObject_GetAttrString((PyObject *)any, "shape");
        if (shape)
            PyErr_Format(PyExc_ValueError, "%s: must have shape (%zd,), one for each point; its shape is %R", name, n,
                         shape);
        Py_XDECREF(shape);
    }
    Py_DECREF(any);
    return a;
}

PyArrayObject *matrix_open(PyObject *x, const char *name, npy_intp n, npy_intp columns)
{
    PyArrayObject *any = any_array(x, name), *a = NULL;
    if (!any) return NULL;
    if (PyArray_NDIM(any) == 2 && (n < 0 || PyArray_DIM(any, 0) == n) &&
        (columns < 0 || PyArray_DIM(any, 1) == columns)) {
        a = as_type(any, NPY_DOUBLE);
    } else {
        PyObject *shape = PyObject_GetAttrString((PyObject *)any, "shape");
        if (shape && n < 0)
            PyErr_Format(PyExc_ValueError, "%s: must have shape (m, %zd); its shape is %R", name, columns, shape);
        else if (shape && columns < 0)
            PyErr_Format(PyExc_ValueError, "%s: must have shape (%zd, p), a row for each point; its shape is %R", name,
                         n, shape);
        else if (shape)
            PyErr_Format(PyExc_ValueError, "%s: must have shape (%zd, %zd); its shape is %R", name, n, columns, shape);
        Py_XDECREF(shape);
    }
    Py_DECREF(any);
    return a;
}

PyArrayObject *fields_open(PyObject *x, const char *name, int bits, npy_intp n, int ndim, const npy_intp *shape)
{
    PyArrayObject *any = any_array(x, name), *a = NULL;
    if (!any) return NULL;
    int same = PyArray_NDIM(any) == ndim + 1 && PyArray_DIM(any, 0) == n;
    for (int i = 0; i < ndim && same; i++) same = PyArray_DIM(any, i + 1) == shape[i];
    if (same) a = as_type(any, bits == 32 ? NPY_FLOAT : NPY_DOUBLE);
    else {
        PyObject *theirs = PyObject_GetAttrString((PyObject *)any, "shape"), *ours = shape_tuple(ndim, shape);
        if (theirs && ours)
            PyErr_Format(PyExc_ValueError, "%s: must be %zd fields of shape %S, one for each point; its shape is %S",
                         name, n, ours, theirs);
        Py_XDECREF(theirs);
        Py_XDECREF(ours);
    }
    Py_DECREF(any);
    return a;
}
