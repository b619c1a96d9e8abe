/* Options between Python and the core's structs, by the core's lists (csrc/options.c). */
#include "core.h"

#include <math.h>

static int refuse(const pf_option *o, PyObject *value, const char *what)
{
    PyErr_Format(PyExc_TypeError, "%s: must be %s, not %R (%s)", o->name, what, value, Py_TYPE(value)->tp_name);
    return -1;
}

/* Given numbers are within the limits: what stands for a default is not given. */
static int check_limits(const pf_option *o, double v, PyObject *value)
{
    char limits[80];
    if (v >= o->least && v <= o->most) return 0;
    if (!isfinite(v)) PyErr_Format(PyExc_ValueError, "%s: must be finite, not %R", o->name, value);
    else {
        if (o->most > 1e15 && v > o->most) snprintf(limits, sizeof limits, "at most %g", o->most);
        else if (o->most > 1e15) snprintf(limits, sizeof limits, "at least %g", o->least);
        else if (o->most < 1 && o->most > 0.999)
            snprintf(limits, sizeof limits, "at least %g and less than 1", o->least);
        else snprintf(limits, sizeof limits, "between %g and %g", o->least, o->most);
        PyErr_Format(PyExc_ValueError, "%s: must be %s, not %R", o->name, limits, value);
    }
    return -1;
}

static int take_size(ptrdiff_t *to, const pf_option *o, PyObject *value)
{
    PyObject *index = PyBool_Check(value) ? NULL : PyNumber_Index(value);
    if (!index) {
        PyErr_Clear();
        return refuse(o, value, "an integer");
    }
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow) number = overflow > 0 ? PTRDIFF_MAX : PTRDIFF_MIN;
    *to = (ptrdiff_t)number;
    return check_limits(o, (double)number, value);
}

static int take_flag(int *to, const pf_option *o, PyObject *value)
{
    if (!PyBool_Check(value) && !PyArray_IsScalar(value, Bool)) {
        Py_ssize_t number = PyLong_Check(value) ? PyLong_AsSsize_t(value) : -1;
        PyErr_Clear();
        if (number != 0 && number != 1) return refuse(o, value, "True or False");
    }
    *to = PyObject_IsTrue(value);
    return *to < 0 ? -1 : 0;
}

static int take_real(double *to, const pf_option *o, PyObject *value)
{
    *to = PyUnicode_Check(value) || PyBytes_Check(value) ? -1 : PyFloat_AsDouble(value);
    if (PyErr_Occurred() || PyUnicode_Check(value) || PyBytes_Check(value)) {
        PyErr_Clear();
        return refuse(o, value, "a number");
    }
    if (isinf(*to)) *to = NAN; /* no option is infinite */
    return check_limits(o, *to, value);
}

static int take_pair(double *to, const pf_option *o, PyObject *value)
{
    PyObject *pair = PyUnicode_Check(value) ? NULL : PySequence_Fast(value, "");
    if (!pair || PySequence_Fast_GET_SIZE(pair) != 2) {
        PyErr_Clear();
        Py_XDECREF(pair);
        PyErr_Format(PyExc_ValueError, "%s: must be two numbers, not %R", o->name, value);
        return -1;
    }
    int failed = 0;
    for (int i = 0; i < 2 && !failed; i++) failed = take_real(to + i, o, PySequence_Fast_GET_ITEM(pair, i));
    Py_DECREF(pair);
    return failed;
}

static int take_sizes(ptrdiff_t *to, const pf_option *o, PyObject *value)
{
    PyObject *list = PyIndex_Check(value) ? PyTuple_Pack(1, value) : PySequence_Fast(value, "");
    if (!list) {
        PyErr_Clear();
        return refuse(o, value, "a sequence of integers");
    }
    Py_ssize_t n = PySequence_Fast_GET_SIZE(list);
    int failed = n < 1 || n > PF_HIDDEN_MOST;
    if (failed) PyErr_Format(PyExc_ValueError, "%s: must be 1 to %d layers, not %zd", o->name, PF_HIDDEN_MOST, n);
    for (Py_ssize_t i = 0; i < n && !failed; i++) failed = take_size(to + i, o, PySequence_Fast_GET_ITEM(list, i));
    if (!failed) to[n] = 0;
    Py_DECREF(list);
    return failed ? -1 : 0;
}

int seed_from(PyObject *object, uint64_t *seed)
{
    PyObject *index = object ? PyNumber_Index(object) : NULL;
    if (object && !index) return -1;
    *seed = index ? PyLong_AsUnsignedLongLong(index) : 0;
    Py_XDECREF(index);
    return *seed == (uint64_t)-1 && PyErr_Occurred() ? -1 : 0;
}

static int take(char *at, const pf_option *o, PyObject *value)
{
    switch (o->kind) {
    case PF_SIZE: return take_size((ptrdiff_t *)at, o, value);
    case PF_FLAG: return take_flag((int *)at, o, value);
    case PF_REAL: return take_real((double *)at, o, value);
    case PF_PAIR: return take_pair((double *)at, o, value);
    case PF_SIZES: return take_sizes((ptrdiff_t *)at, o, value);
    case PF_SEED: return seed_from(value, (uint64_t *)at);
    }
    return -1;
}

int options_take(void *options, const pf_option *list, PyObject *kwargs)
{
    for (const pf_option *o = list; o->name; o++) {
        PyObject *value = PyDict_GetItemString(kwargs, o->name);
        if (!value) continue;
        if (value != Py_None && take((char *)options + o->offset, o, value)) return -1;
        if (PyDict_DelItemString(kwargs, o->name)) return -1;
    }
    return 0;
}

static PyObject *sizes(const ptrdiff_t *from)
{
    Py_ssize_t n = 0;
    while (n < PF_HIDDEN_MOST && from[n]) n++;
    PyObject *tuple = PyTuple_New(n);
    for (Py_ssize_t i = 0; tuple && i < n; i++) {
        PyObject *size = PyLong_FromSsize_t(from[i]);
        if (size) PyTuple_SET_ITEM(tuple, i, size);
        else Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *give(const char *at, const pf_option *o)
{
    switch (o->kind) {
    case PF_SIZE: return PyLong_FromSsize_t(*(const ptrdiff_t *)at);
    case PF_FLAG: return *(const int *)at < 0 ? PyLong_FromLong(-1) : PyBool_FromLong(*(const int *)at);
    case PF_REAL: return PyFloat_FromDouble(*(const double *)at);
    case PF_PAIR: return Py_BuildValue("(dd)", ((const double *)at)[0], ((const double *)at)[1]);
    case PF_SIZES: return sizes((const ptrdiff_t *)at);
    case PF_SEED: return PyLong_FromUnsignedLongLong(*(const uint64_t *)at);
    }
    return NULL;
}

int options_give(PyObject *to, const void *options, const pf_option *list)
{
    for (const pf_option *o = list; o->name; o++) {
        PyObject *value = give((const char *)options + o->offset, o);
        int failed = !value || PyDict_SetItemString(to, o->name, value);
        Py_XDECREF(value);
        if (failed) return -1;
    }
    return 0;
}

int options_none_left(PyObject *kwargs, const char *function)
{
    Py_ssize_t at = 0;
    PyObject *key, *value;
    if (!PyDict_Next(kwargs, &at, &key, &value)) return 0;
    PyErr_Format(PyExc_TypeError, "%s() has no option %R", function, key);
    return -1;
}

const char options_doc[] =
    "options(fit, **given)\n--\n\n"
    "All options of a fit, 'gis', 'sig', 'symmetric' or 'train': those given, checked, and the defaults\n"
    "of the others. A default that is outside the limits stands for one that depends on the data.";
PyObject *core_options(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    const char *fit;
    if (!PyArg_ParseTuple(args, "s", &fit)) return NULL;
    PyObject *left = kwargs ? PyDict_Copy(kwargs) : PyDict_New(), *result = PyDict_New();
    int failed = !left || !result;
    if (!failed && !strcmp(fit, "gis")) {
        pf_gis_options o;
        pf_gis_defaults(&o);
        failed = options_take(&o, pf_gis_list, left) || options_give(result, &o, pf_gis_list);
    } else if (!failed && !strcmp(fit, "sig")) {
        pf_sig_options o;
        pf_sig_defaults(&o);
        failed = options_take(&o, pf_sig_list, left) || options_give(result, &o, pf_sig_list);
    } else if (!failed && (!strcmp(fit, "symmetric") || !strcmp(fit, "train"))) {
        pf_symmetric_options o;
        pf_symmetric_defaults(&o);
        if (*fit == 's')
            failed = options_take(&o, pf_symmetric_list, left) || options_give(result, &o, pf_symmetric_list);
        if (!failed)
            failed = options_take(&o.train, pf_train_list, left) || options_give(result, &o.train, pf_train_list);
    } else if (!failed) {
        PyErr_Format(PyExc_ValueError, "fit: must be 'gis', 'sig', 'symmetric' or 'train', not '%s'", fit);
        failed = 1;
    }
    if (!failed) failed = options_none_left(left, fit);
    Py_XDECREF(left);
    if (failed) Py_CLEAR(result);
    return result;
}
