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
    PyTypeObject *flow_type;
    PyObject *file_error;  /* pyflow.FileError */
    PyObject *main_thread; /* threading.main_thread */
} core_state;

static inline int given(PyObject *value) { return value && value != Py_None; }

/* ---- call.c: one call into the core ----------------------------------------------------------------------- */

/* Lives on the stack of the calling function, between call_begin and call_end. */
typedef struct call {
    int interruptible; /* Python runs signal handlers in its main thread only; workers have a stopper */
    PyObject *type, *value, *traceback; /* the first exception that a callback raised */
    struct call *outer;                 /* a progress callback may itself call into the core */
} call;

int call_begin(call *c, core_state *state);
/* A callable, or NULL, that later calls of this thread ask a few times a second: an exception that it raises ends them.
 */
void call_set_stopper(PyObject *callable);
/* For callbacks, with the GIL: whether an exception is being kept, and keeping the one that was just raised. */
int call_failed(const call *c);
void call_keep(call *c);
/* Ends the call. 0 if all went well; -1 with the exception set, a callback's before the status's. */
int call_end(call *c, core_state *state, pf_status status);
/* A fit was interrupted, and its checkpoint could not be written: the exception that is set gets that as its context. */
void call_also_raise(const char *message);
/* The exception that is set gets the attribute `flow`: what the fit had reached. Takes flow over; NULL is allowed. */
void call_attach(PyObject *flow);
/* A call with one argument, a path: parses it, and returns None or sets the exception of function(self, path). */
PyObject *call_with_path(core_state *state, PyObject *args, PyObject *kwargs,
                         pf_status (*function)(const void *self, const char *path), const void *self);
/* The exception of a status, by the message of the core's last failure. */
void core_raise(core_state *state, pf_status status);

/* ---- points.c: array-likes of real numbers, in either precision ------------------------------------------- */

enum { POINT_AXES = 3 };

/* Points that are read in place when they can be, and otherwise converted a block at a time. */
typedef struct {
    const char *name;     /* of the argument, for messages */
    PyObject *source;     /* a base-class ndarray, or an object that gives array-likes when cut, source[first:last] */
    PyArrayObject *array; /* source, if it is an ndarray */
    int type_num;
    int one; /* a single point, given without the first axis */
    int ndim;
    npy_intp n, shape[POINT_AXES], d; /* points; the shape of one, and how many numbers */
} points;

/* ndarrays and objects with a shape and a NumPy dtype (HDF5 and Zarr data sets, ...) are not copied. Each point must
 * have the given shape[ndim]; an array of just that shape is one point. Without a shape (NULL) it is the array's, of
 * ndim axes at least and most_ndim at most. */
int points_open(points *p, PyObject *x, const char *name, int ndim, int most_ndim, const ptrdiff_t *shape);
void points_close(points *p);
int points_bits(const points *p); /* 32 for float32 and float16, 64 for any other type */
/* The points themselves when they lie in memory as the core wants them, or NULL. */
const void *points_pointer(const points *p, int bits);
/* Points first .. first + n - 1, converted; -1 with an exception. */
int points_read(const points *p, void *to, int bits, npy_intp first, npy_intp n);
/* An empty array (n, *shape) of the precision. */
PyArrayObject *points_empty(int bits, npy_intp n, int ndim, const ptrdiff_t *shape);

/* A C-contiguous one-dimensional array of this type and length; NULL with an exception. */
PyArrayObject *vector_open(PyObject *x, const char *name, int type_num, npy_intp n);
/* A C-contiguous float64 array (n, columns), any number of rows for n < 0; NULL with an exception. */
PyArrayObject *matrix_open(PyObject *x, const char *name, npy_intp n, npy_intp columns);
/* A C-contiguous array (n, *shape) in the precision; NULL with an exception. */
PyArrayObject *fields_open(PyObject *x, const char *name, int bits, npy_intp n, int ndim, const npy_intp *shape);
static inline void *data_or_null(PyArrayObject *a) { return a ? PyArray_DATA(a) : NULL; }

/* ---- options.c: the core's lists of options, for Python --------------------------------------------------- */

/* Takes from kwargs, a dictionary of the caller's own, what the list knows, checked, into the struct; -1 with an
 * exception that names the option. */
int options_take(void *options, const pf_option *list, PyObject *kwargs);
/* Adds the values in the struct to a dictionary. */
int options_give(PyObject *to, const void *options, const pf_option *list);
/* TypeError for what is left in kwargs. */
int options_none_left(PyObject *kwargs, const char *function);
int seed_from(PyObject *object, uint64_t *seed); /* NULL: 0 */

/* ---- flow.c ----------------------------------------------------------------------------------------------- */

/* A fitted flow. Immutable: safe to use from many threads, and shared by copies. */
typedef struct {
    PyObject_HEAD int bits; /* which of the two handles it is */
    union {
        pf32_flow *pf32_flow;
        pf64_flow *pf64_flow;
    };
} flow_object;

extern PyType_Spec flow_spec;

/* A new object that takes over the flow, whatever happens. */
PyObject *pf32_flow_wrap(core_state *state, pf32_flow *flow);
PyObject *pf64_flow_wrap(core_state *state, pf64_flow *flow);

/* ---- the module's functions that lie in flow.c, options.c, fits.c and compose.c ---------------------------- */

extern const char from_bytes_doc[], options_doc[], gis_fit_doc[], ranks_first_row_doc[], sig_fit_doc[],
    sig_schedule_doc[], symmetric_fit_doc[], train_doc[], compose_doc[];
PyObject *core_from_bytes(PyObject *module, PyObject *bytes);
PyObject *core_options(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_gis_fit(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_ranks_first_row(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_sig_fit(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_sig_schedule(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_symmetric_fit(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_train(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_compose(PyObject *module, PyObject *args, PyObject *kwargs);

#endif
