/* The extension module pyflow._core: pyflow.h for Python. What its source files share.
 *
 * A call into the core goes: arguments to C (with the GIL), call_begin, the GIL released around one core function,
 * call_end, results to Python. Callbacks from the core take the GIL for themselves. */
#ifndef PYFLOW_PYTHON_CORE_H
#define PYFLOW_PYTHON_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL pyflow_core_array_api
#ifndef CORE_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "pyflow.h"

/* The function and the flags in a PyMethodDef. */
#define KEYWORDS(function) ((PyCFunction)(void (*)(void))function), METH_VARARGS | METH_KEYWORDS

typedef struct {
    PyTypeObject *model_type, *symflow_type;
    PyObject *file_error;  /* pyflow.FileError */
    PyObject *main_thread; /* threading.main_thread */
} core_state;

/* ---- call.c: one call into the core ----------------------------------------------------------------------- */

/* Lives on the stack of the calling function, between call_begin and call_end. */
typedef struct call {
    int interruptible;                  /* Python runs signal handlers in its main thread only */
    PyObject *type, *value, *traceback; /* the first exception that a callback raised */
    struct call *outer;                 /* a progress callback may itself call into the core */
} call;

int call_begin(call *c, core_state *state);
/* For callbacks, with the GIL: whether an exception is being kept, and keeping the one that was just raised. */
int call_failed(const call *c);
void call_keep(call *c);
/* Ends the call. 0 if all went well; -1 with the exception set, a callback's before the status's. */
int call_end(call *c, core_state *state, pf_status status);
/* A fit was interrupted, and its checkpoint could not be written: the exception that is set gets that as its context. */
void call_also_raise(const char *message);
/* A call with one argument, a path: parses it, and returns None or sets the exception of function(self, path). */
PyObject *call_with_path(core_state *state, PyObject *args, PyObject *kwargs,
                         pf_status (*function)(const void *self, const char *path), const void *self);
/* The exception of a status, by the message of the core's last failure. */
void core_raise(core_state *state, pf_status status);

/* ---- rows.c: array-likes of real numbers, in either precision --------------------------------------------- */

/* Rows that are read in place when they can be, and otherwise converted a block at a time. */
typedef struct {
    const char *name;     /* of the argument, for messages */
    PyObject *source;     /* a base-class ndarray, or an object that gives array-likes when cut, source[first:last] */
    PyArrayObject *array; /* source, if it is an ndarray */
    int type_num;
    int one; /* a single row, given as a one-dimensional array */
    npy_intp n, d;
} rows;

/* ndarrays and objects with a two-dimensional shape and a NumPy dtype (HDF5 and Zarr data sets, ...) are not copied.
 * With dim > 0 there must be as many columns, and a one-dimensional array of that length is one row. */
int rows_open(rows *r, PyObject *x, const char *name, npy_intp dim);
void rows_close(rows *r);
int rows_bits(const rows *r); /* 32 for float32, 64 for any other type */
/* The rows themselves when they lie in memory as the core wants them, or NULL. */
const void *rows_pointer(const rows *r, int bits);
/* Rows first .. first + n - 1, converted; -1 with an exception. */
int rows_read(const rows *r, void *to, int bits, npy_intp first, npy_intp n);

/* A C-contiguous one-dimensional array of this type and length; NULL with an exception. */
PyArrayObject *vector_open(PyObject *x, const char *name, int type_num, npy_intp n);

/* ---- model.c, symflow.c, and what they share in saved.h ---------------------------------------------------- */

/* A fitted model of either kind. Immutable: safe to use from many threads, and shared by copies. */
typedef struct {
    PyObject_HEAD int bits; /* which of its type's two handles it is */
    union {
        pf32_model *pf32_model;
        pf64_model *pf64_model;
        pf32_symflow *pf32_symflow;
        pf64_symflow *pf64_symflow;
    };
} model_object;

extern PyType_Spec model_spec, symflow_spec;

/* A new object that takes over the model, whatever happens. */
PyObject *pf32_model_wrap(core_state *state, pf32_model *model);
PyObject *pf64_model_wrap(core_state *state, pf64_model *model);
PyObject *pf32_symflow_wrap(core_state *state, pf32_symflow *flow);
PyObject *pf64_symflow_wrap(core_state *state, pf64_symflow *flow);

PyObject *pf32_model_from_bytes(core_state *state, const void *bytes, size_t n);
PyObject *pf64_model_from_bytes(core_state *state, const void *bytes, size_t n);
PyObject *pf32_symflow_from_bytes(core_state *state, const void *bytes, size_t n);
PyObject *pf64_symflow_from_bytes(core_state *state, const void *bytes, size_t n);

/* ---- the module's functions that lie in model.c, fit.c and symflow.c ---------------------------------------- */

extern const char from_bytes_doc[], fit_doc[], gis_defaults_doc[], symflow_fit_doc[], symflow_defaults_doc[];
PyObject *core_from_bytes(PyObject *module, PyObject *bytes);
PyObject *core_fit(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_gis_defaults(PyObject *module, PyObject *unused);
PyObject *core_symflow_fit(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_symflow_defaults(PyObject *module, PyObject *unused);

#endif
