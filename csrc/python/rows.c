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

/* Whether x is no ndarray, but two-dimensional with a NumPy dtype, so that it can be cut: 1 yes, 0 no, -1 exception. */
static int open_sliceable(rows *r, PyObject *x)
{
    if (PyArray_Check(x)) return 0;
    PyObject *shape = PyObject_GetAttrString(x, "shape"), *dtype = shape ? PyObject_GetAttrString(x, "dtype") : NULL;
    PyArray_Descr *type = NULL;
    int found = 0;
    if (dtype && PyTuple_Check(shape) && PyTuple_GET_SIZE(shape) == 2 && PyMapping_Check(x) &&
        PyArray_DescrConverter(dtype, &type)) {
        npy_intp n = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, 0)), d = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, 1));
        if (!PyErr_Occurred()) {
            found = refuse_type(r->name, type) ? -1 : 1;
            if (found == 1) {
                r->source = Py_NewRef(x);
                r->type_num = type->type_num;
                r->n = n, r->d = d;
            }
        }
    }
    if (found >= 0) PyErr_Clear(); /* then NumPy's own conversion may still know what to do with it */
    Py_XDECREF(type);
    Py_XDECREF(shape);
    Py_XDECREF(dtype);
    return found;
}

int rows_open(rows *r, PyObject *x, const char *name, npy_intp dim)
{
    *r = (rows){.name = name};
    int found = open_sliceable(r, x);
    if (found < 0) return -1;
    if (!found) {
        PyArrayObject *a = any_array(x, name);
        if (!a) return -1;
        r->source = (PyObject *)a;
        r->array = a;
        r->type_num = PyArray_TYPE(a);
        int ndim = PyArray_NDIM(a);
        r->one = dim > 0 && ndim == 1 && PyArray_DIM(a, 0) == dim;
        if (ndim != 2 && !r->one) {
            PyObject *shape = PyObject_GetAttrString((PyObject *)a, "shape");
            if (shape && dim > 0)
                PyErr_Format(PyExc_ValueError, "%s: must have shape (n, %zd), or (%zd,) for one point; its shape is %R",
                             name, dim, dim, shape);
            else if (shape)
                PyErr_Format(PyExc_ValueError, "%s: must be two-dimensional, rows x columns; its shape is %R%s", name,
                             shape, ndim == 1 ? "; a single column is x.reshape(-1, 1)" : "");
            Py_XDECREF(shape);
            goto error;
        }
        r->n = r->one ? 1 : PyArray_DIM(a, 0);
        r->d = r->one ? dim : PyArray_DIM(a, 1);
    }
    if (dim > 0 && r->d != dim) {
        PyErr_Format(PyExc_ValueError, "%s: has %zd columns where the model has %zd", name, r->d, dim);
        goto error;
    }
    return 0;
error:
    rows_close(r);
    return -1;
}

void rows_close(rows *r) { Py_CLEAR(r->source); }

int rows_bits(const rows *r) { return r->type_num == NPY_FLOAT ? 32 : 64; }

const void *rows_pointer(const rows *r, int bits)
{
    if (!r->array || r->type_num != (bits == 32 ? NPY_FLOAT : NPY_DOUBLE) || !PyArray_ISCARRAY_RO(r->array))
        return NULL;
    return PyArray_DATA(r->array);
}

int rows_read(const rows *r, void *to, int bits, npy_intp first, npy_intp n)
{
    npy_intp shape[2] = {n, r->d};
    PyObject *into = PyArray_SimpleNewFromData(2, shape, bits == 32 ? NPY_FLOAT : NPY_DOUBLE, to);
    PyObject *part = NULL;
    PyArrayObject *a = NULL;
    int status = -1;
    if (!into) return -1;
    if (r->one) {
        part = Py_NewRef(r->source);
    } else if (r->array) {
        part = PySequence_GetSlice(r->source, first, first + n);
    } else {
        PyObject *start = PyLong_FromSsize_t(first), *stop = PyLong_FromSsize_t(first + n);
        PyObject *slice = start && stop ? PySlice_New(start, stop, NULL) : NULL;
        part = slice ? PyObject_GetItem(r->source, slice) : NULL;
        Py_XDECREF(start);
        Py_XDECREF(stop);
        Py_XDECREF(slice);
    }
    if (part && (a = any_array(part, r->name))) {
        if (!r->one && (PyArray_NDIM(a) != 2 || PyArray_DIM(a, 0) != n || PyArray_DIM(a, 1) != r->d))
            PyErr_Format(PyExc_ValueError, "%s: rows %zd to %zd did not come as %zd x %zd numbers", r->name, first,
                         first + n - 1, n, r->d);
        else status = PyArray_CopyInto((PyArrayObject *)into, a);
    }
    Py_XDECREF(a);
    Py_XDECREF(part);
    Py_DECREF(into); /* a view of memory that is not Python's: it must not outlive this call */
    return status;
}

PyArrayObject *vector_open(PyObject *x, const char *name, int type_num, npy_intp n)
{
    PyArrayObject *any = any_array(x, name);
    if (!any) return NULL;
    if (PyArray_NDIM(any) != 1 || PyArray_DIM(any, 0) != n) {
        PyObject *shape = PyObject_GetAttrString((PyObject *)any, "shape");
        if (shape)
            PyErr_Format(PyExc_ValueError, "%s: must have shape (%zd,), one for each row; its shape is %R", name, n,
                         shape);
        Py_XDECREF(shape);
        Py_DECREF(any);
        return NULL;
    }
    PyArray_Descr *type = PyArray_DescrFromType(type_num);
    PyObject *a = type ? PyArray_FromArray(any, type, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST) : NULL;
    Py_DECREF(any);
    return (PyArrayObject *)a;
}
