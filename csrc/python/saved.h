/* What _core.Model and _core.SymFlow have in common: their life, note, copies, bytes and files.
 *
 * The source file of each defines KIND, model or symflow, and includes this first. EITHER(self, layers) then calls
 * pf32_model_layers or pf64_model_layers, and in a section that is compiled in both precisions K(read) is one of
 * pf32_model_read and pf64_model_read. No include guard. */
#ifndef real

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define X_(name) X(name) /* of what name stands for */
#define K(name) X_(JOIN(KIND, _##name))

#define EITHER(self, function, ...)                                                                                    \
    ((self)->bits == 32 ? JOIN(pf32_, JOIN(KIND, _##function))((self)->JOIN(pf32_, KIND), ##__VA_ARGS__)               \
                        : JOIN(pf64_, JOIN(KIND, _##function))((self)->JOIN(pf64_, KIND), ##__VA_ARGS__))

static core_state *state_of(model_object *self) { return PyType_GetModuleState(Py_TYPE((PyObject *)self)); }

#define TWICE "python/saved.h" /* seen from twice.h */
#include "twice.h"

static void dealloc(PyObject *op)
{
    model_object *self = (model_object *)op;
    PyTypeObject *type = Py_TYPE(op);
    EITHER(self, free);
    type->tp_free(op);
    Py_DECREF(type);
}

PyDoc_STRVAR(with_note_doc, "with_note(note)\n--\n\nThe same model with another note: JSON, or ''.");
static PyObject *with_note(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"note", NULL};
    model_object *self = (model_object *)op;
    const char *note;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s", names, &note)) return NULL;
    return self->bits == 32 ? pf32_with_note(self, note) : pf64_with_note(self, note);
}

PyDoc_STRVAR(copy_doc, "The model itself: it never changes.");
static PyObject *itself(PyObject *self, PyObject *Py_UNUSED(unused)) { return Py_NewRef(self); }

PyDoc_STRVAR(to_bytes_doc, "to_bytes()\n--\n\nWhat a saved file holds.");
static PyObject *to_bytes(PyObject *op, PyObject *Py_UNUSED(unused))
{
    model_object *self = (model_object *)op;
    void *bytes = NULL;
    size_t n = 0;
    pf_status status = EITHER(self, write, &bytes, &n);
    if (status) {
        core_raise(state_of(self), status);
        return NULL;
    }
    PyObject *result = PyBytes_FromStringAndSize(bytes, (Py_ssize_t)n);
    pf_free(bytes);
    return result;
}

static pf_status write_file(const void *self, const char *path)
{
    return EITHER((const model_object *)self, save, path);
}

PyDoc_STRVAR(save_doc, "save(path)\n--\n\nWrite the model to a file: aside, then renamed.");
static PyObject *save(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return call_with_path(state_of((model_object *)self), args, kwargs, write_file, self);
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

/* GETTER(n_layers, PyLong_FromSsize_t, layers): get_n_layers, with pf32_model_layers or pf64_model_layers */
#define GETTER(attribute, convert, function)                                                                           \
    static PyObject *get_##attribute(PyObject *op, void *Py_UNUSED(closure))                                           \
    {                                                                                                                  \
        model_object *self = (model_object *)op;                                                                       \
        return convert(EITHER(self, function));                                                                        \
    }
GETTER(n_layers, PyLong_FromSsize_t, layers)
GETTER(note, PyUnicode_FromString, note)

static PyObject *get_dtype(PyObject *self, void *Py_UNUSED(closure))
{
    return (PyObject *)PyArray_DescrFromType(((model_object *)self)->bits == 32 ? NPY_FLOAT : NPY_DOUBLE);
}

/* clang-format off */
#define SAVED_METHODS                                      \
    {"with_note", KEYWORDS(with_note), with_note_doc},     \
    {"to_bytes", to_bytes, METH_NOARGS, to_bytes_doc},     \
    {"save", KEYWORDS(save), save_doc},                    \
    {"__reduce__", reduce, METH_NOARGS, reduce_doc},       \
    {"__copy__", itself, METH_NOARGS, copy_doc},           \
    {"__deepcopy__", itself, METH_O, copy_doc}

#define SAVED_GETSET                                                                   \
    {"dtype", get_dtype, NULL, "float32 or float64.", NULL},                           \
    {"n_layers", get_n_layers, NULL, "Number of layers.", NULL},                       \
    {"note", get_note, NULL, "A text that travels with the model: JSON, or ''.", NULL}
/* clang-format on */

#else /* ---- once in each precision ------------------------------------------------------------------------------- */

typedef X_(KIND) X(handle);

PyObject *K(wrap)(core_state *state, X(handle) *model)
{
    PyTypeObject *type = state->JOIN(KIND, _type);
    model_object *self = (model_object *)type->tp_alloc(type, 0);
    if (self) {
        self->bits = REAL_BITS;
        self->X_(KIND) = model;
    } else {
        K(free)(model);
    }
    return (PyObject *)self;
}

/* An object of what the core has made, or the exception that says why it has not. */
static PyObject *X(made)(core_state *state, pf_status status, X(handle) *model)
{
    if (!status) return K(wrap)(state, model);
    core_raise(state, status);
    return NULL;
}

PyObject *K(from_bytes)(core_state *state, const void *bytes, size_t n)
{
    X(handle) *model = NULL;
    pf_status status = K(read)(&model, bytes, n);
    return X(made)(state, status, model);
}

static pf_status X(copy)(X(handle) **copy, const X(handle) *model); /* the kind's own */

static PyObject *X(with_note)(model_object *self, const char *note)
{
    X(handle) *copy = NULL;
    pf_status status = X(copy)(&copy, self->X_(KIND));
    if (!status && (status = K(set_note)(copy, note))) K(free)(copy);
    return X(made)(state_of(self), status, copy);
}
#endif
