/* The extension module pyflow._core: its table, its state and its life. */
#define CORE_IMPORTS_NUMPY
#include "core.h"

PyDoc_STRVAR(set_num_threads_doc, "set_num_threads(n)\n--\n\nThreads that later calls may use; n < 1: the default.");
static PyObject *core_set_num_threads(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n", NULL};
    int n;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i", names, &n)) return NULL;
    pf_set_num_threads(n);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(get_num_threads_doc, "get_num_threads()\n--\n\nThreads that calls may use.");
static PyObject *core_get_num_threads(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    return PyLong_FromLong(pf_get_num_threads());
}

PyDoc_STRVAR(work_doc,
             "work(threads=0, stopper=None)\n--\n\nFor the calling thread alone: how many threads its later calls use "
             "(0: as all others),\nand a function that is called a few times a second in them: an exception "
             "that it raises ends the call.");
static PyObject *core_work(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"threads", "stopper", NULL};
    int threads = 0;
    PyObject *stopper = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|iO", names, &threads, &stopper)) return NULL;
    pf_set_own_threads(threads);
    call_set_stopper(given(stopper) ? stopper : NULL);
    Py_RETURN_NONE;
}

/* What is to be written, for call_with_path */
static pf_status write_bytes(const void *view, const char *path)
{
    const Py_buffer *bytes = view;
    return pf_save_bytes(path, bytes->buf, (size_t)bytes->len);
}

PyDoc_STRVAR(save_bytes_doc, "save_bytes(path, bytes)\n--\n\nWrite a file: aside, then renamed.");
static PyObject *core_save_bytes(PyObject *module, PyObject *args)
{
    PyObject *path;
    Py_buffer view;
    if (!PyArg_ParseTuple(args, "Oy*", &path, &view)) return NULL;
    PyObject *rest = PyTuple_Pack(1, path), *result = NULL;
    if (rest) result = call_with_path(PyModule_GetState(module), rest, NULL, write_bytes, &view);
    Py_XDECREF(rest);
    PyBuffer_Release(&view);
    return result;
}

PyDoc_STRVAR(fft_measure_doc, "fft_measure(on)\n--\n\nWhether plans made from now on are measured.");
static PyObject *core_fft_measure(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"on", NULL};
    int on;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "p", names, &on)) return NULL;
    pf_fft_measure(on);
    Py_RETURN_NONE;
}

/* Another thread may be making plans meanwhile, for seconds: these wait without the GIL. */
static pf_status save_wisdom(const void *Py_UNUSED(self), const char *path) { return pf_fft_wisdom_save(path); }

PyDoc_STRVAR(save_wisdom_doc, "save_wisdom(path)\n--\n\nWrite what FFTW has measured to a file.");
static PyObject *core_save_wisdom(PyObject *module, PyObject *args, PyObject *kwargs)
{
    return call_with_path(PyModule_GetState(module), args, kwargs, save_wisdom, NULL);
}

static pf_status load_wisdom(const void *Py_UNUSED(self), const char *path) { return pf_fft_wisdom_load(path); }

PyDoc_STRVAR(load_wisdom_doc, "load_wisdom(path)\n--\n\nAdd what such a file says.");
static PyObject *core_load_wisdom(PyObject *module, PyObject *args, PyObject *kwargs)
{
    return call_with_path(PyModule_GetState(module), args, kwargs, load_wisdom, NULL);
}

static PyMethodDef core_methods[] = {
    {"gis_fit", KEYWORDS(core_gis_fit), gis_fit_doc},
    {"ranks_first_row", KEYWORDS(core_ranks_first_row), ranks_first_row_doc},
    {"sig_fit", KEYWORDS(core_sig_fit), sig_fit_doc},
    {"sig_schedule", KEYWORDS(core_sig_schedule), sig_schedule_doc},
    {"symmetric_fit", KEYWORDS(core_symmetric_fit), symmetric_fit_doc},
    {"train", KEYWORDS(core_train), train_doc},
    {"compose", KEYWORDS(core_compose), compose_doc},
    {"options", KEYWORDS(core_options), options_doc},
    {"from_bytes", core_from_bytes, METH_O, from_bytes_doc},
    {"set_num_threads", KEYWORDS(core_set_num_threads), set_num_threads_doc},
    {"get_num_threads", core_get_num_threads, METH_NOARGS, get_num_threads_doc},
    {"work", KEYWORDS(core_work), work_doc},
    {"save_bytes", core_save_bytes, METH_VARARGS, save_bytes_doc},
    {"fft_measure", KEYWORDS(core_fft_measure), fft_measure_doc},
    {"save_wisdom", KEYWORDS(core_save_wisdom), save_wisdom_doc},
    {"load_wisdom", KEYWORDS(core_load_wisdom), load_wisdom_doc},
    {0},
};

PyDoc_STRVAR(file_error_doc,
             "A saved flow cannot be read: cut short, altered, written by a newer pyflow, or no flow at all.");

static int core_exec(PyObject *module)
{
    core_state *state = PyModule_GetState(module);
    if (_import_array() < 0) return -1; /* by the name that NumPy 1 has too */

    PyObject *threading = PyImport_ImportModule("threading");
    if (!threading) return -1;
    state->main_thread = PyObject_GetAttrString(threading, "main_thread");
    Py_DECREF(threading);
    if (!state->main_thread) return -1;

    state->flow_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &flow_spec, NULL);
    if (!state->flow_type || PyModule_AddType(module, state->flow_type)) return -1;

    state->file_error = PyErr_NewExceptionWithDoc("pyflow.FileError", file_error_doc, PyExc_ValueError, NULL);
    if (!state->file_error || PyModule_AddObjectRef(module, "FileError", state->file_error)) return -1;

    return PyModule_AddStringConstant(module, "__version__", PYFLOW_VERSION);
}

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    core_state *state = PyModule_GetState(module);
    Py_VISIT(state->flow_type);
    Py_VISIT(state->file_error);
    Py_VISIT(state->main_thread);
    return 0;
}

static int core_clear(PyObject *module)
{
    core_state *state = PyModule_GetState(module);
    Py_CLEAR(state->flow_type);
    Py_CLEAR(state->file_error);
    Py_CLEAR(state->main_thread);
    return 0;
}

static void core_free(void *module) { core_clear(module); }

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED}, /* nor does NumPy */
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED}, /* nothing is shared but flows, which do not change */
#endif
    {0},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyflow._core",
    .m_doc = "The C core of pyflow. Use the functions and classes of the package instead.",
    .m_size = sizeof(core_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
