/* One call into the core: signals and exceptions while it runs, and its status as an exception when it ends. */
#include "core.h"

static _Thread_local call *current;
static _Thread_local PyObject *stopper; /* of a worker thread: asked like signals in the main one; or NULL */

void call_set_stopper(PyObject *callable) { Py_XSETREF(stopper, Py_XNewRef(callable)); }

static int asked_to_stop(void)
{
    PyObject *result = stopper ? PyObject_CallNoArgs(stopper) : Py_NewRef(Py_None);
    Py_XDECREF(result);
    return !result;
}

/* Runs in the calling thread, without the GIL, some twenty times a second. */
static int check_signals(void *user)
{
    call *c = user;
    PyGILState_STATE gil = PyGILState_Ensure();
    int stop = call_failed(c);
    if (!stop && (PyErr_CheckSignals() || asked_to_stop())) {
        call_keep(c);
        stop = 1;
    }
    PyGILState_Release(gil);
    return stop;
}

static void watch_signals(call *c)
{
    if (c && c->interruptible) pf_set_interrupt(check_signals, c);
    else pf_set_interrupt(NULL, NULL);
}

static int in_main_thread(core_state *state)
{
    PyObject *thread = PyObject_CallNoArgs(state->main_thread);
    PyObject *ident = thread ? PyObject_GetAttrString(thread, "ident") : NULL;
    Py_XDECREF(thread);
    if (!ident) return -1;
    unsigned long id = ident == Py_None ? 0 : PyLong_AsUnsignedLong(ident);
    Py_DECREF(ident);
    if (id == (unsigned long)-1 && PyErr_Occurred()) return -1;
    return id == PyThread_get_thread_ident();
}

int call_begin(call *c, core_state *state)
{
    int main = in_main_thread(state);
    if (main < 0) return -1;
    *c = (call){.interruptible = main || stopper, .outer = current};
    current = c;
    watch_signals(c);
    return 0;
}

int call_failed(const call *c) { return c->type != NULL; }

void call_keep(call *c)
{
    if (c->type) PyErr_Clear(); /* callbacks return at once after the first, so there is no second to lose */
    else PyErr_Fetch(&c->type, &c->value, &c->traceback);
}

int call_end(call *c, core_state *state, pf_status status)
{
    current = c->outer;
    watch_signals(current);
    if (c->type) {
        PyErr_Restore(c->type, c->value, c->traceback);
        c->type = c->value = c->traceback = NULL;
        return -1;
    }
    if (!status) return 0;
    core_raise(state, status);
    return -1;
}

void call_also_raise(const char *message)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *context = PyObject_CallFunction(PyExc_OSError, "s", message);
    if (context) PyException_SetContext(value, context); /* takes it over */
    else PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

void call_attach(PyObject *flow)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (!flow || PyObject_SetAttrString(value, "flow", flow)) PyErr_Clear();
    Py_XDECREF(flow);
    PyErr_Restore(type, value, traceback);
}

PyObject *call_with_path(core_state *state, PyObject *args, PyObject *kwargs,
                         pf_status (*function)(const void *self, const char *path), const void *self)
{
    static char *names[] = {"path", NULL};
    PyObject *path;
    call c;
    pf_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&", names, PyUnicode_FSConverter, &path)) return NULL;
    if (call_begin(&c, state)) {
        Py_DECREF(path);
        return NULL;
    }
    const char *name = PyBytes_AS_STRING(path);
    Py_BEGIN_ALLOW_THREADS status = function(self, name);
    Py_END_ALLOW_THREADS Py_DECREF(path);
    if (call_end(&c, state, status)) return NULL;
    Py_RETURN_NONE;
}

void core_raise(core_state *state, pf_status status)
{
    const char *message = pf_message();
    switch (status) {
    case PF_NO_MEMORY: PyErr_SetString(PyExc_MemoryError, message); break;
    case PF_INTERRUPTED: PyErr_SetNone(PyExc_KeyboardInterrupt); break;
    case PF_BAD_FILE: PyErr_SetString(state->file_error, message); break;
    case PF_IO_ERROR: PyErr_SetString(PyExc_OSError, message); break;
    default: PyErr_SetString(PyExc_ValueError, message); /* a wrong argument, or data without a density */
    }
}
