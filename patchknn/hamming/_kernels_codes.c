/* The Python type CodeTable: the table of distinct codes, and what is found in it. */
#include "_kernels_search.h"

#include <string.h>

#define MAX_BUFFERS (2 + 3 * MAX_PARTS)

struct code_table_object {
    PyObject_HEAD
    struct code_table table;
    Py_buffer buffers[MAX_BUFFERS];
    int n_buffers;
};

/* Hold an array: its address, or NULL with an exception where it is not `size` aligned values
   (any whole number of them where n < 0, which is then set). */
static const void *hold(struct code_table_object *self, PyObject *array, const char *name,
                        size_t size, Py_ssize_t *n) {
    Py_buffer *buffer = &self->buffers[self->n_buffers];
    if (PyObject_GetBuffer(array, buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    self->n_buffers++;
    const Py_ssize_t found = buffer->len / (Py_ssize_t)size;
    if (buffer->len % (Py_ssize_t)size || (*n >= 0 && found != *n)) {
        PyErr_Format(PyExc_ValueError, "%s has %zd bytes, which do not fit the table", name,
                     buffer->len);
        return NULL;
    }
    /* An empty array may lie anywhere. */
    if (found && (uintptr_t)buffer->buf % (size < 8 ? size : 8)) {
        PyErr_Format(PyExc_ValueError, "%s is not aligned", name);
        return NULL;
    }
    *n = found;
    return buffer->buf ? buffer->buf : (const void *)self;
}

static int hold_part(struct code_table_object *self, PyObject *tuple) {
    struct code_table *table = &self->table;
    struct part *part = &table->parts[table->n_parts];
    PyObject *bounds, *order, *window;
    if (!PyArg_ParseTuple(tuple, "IIOOO", &part->first_bit, &part->width, &bounds, &order,
                          &window))
        return -1;
    const uint32_t begin =
        table->n_parts ? part[-1].first_bit + part[-1].width : 0;
    if (part->width < 1 || part->width > 31 || part->first_bit >= table->bits ||
        part->width > table->bits - part->first_bit || part->first_bit < begin ||
        (table->n_parts == 0 && part->first_bit != 0)) {
        PyErr_Format(PyExc_ValueError, "part %u is not bits of the code after those before it",
                     table->n_parts);
        return -1;
    }
    Py_ssize_t n_bounds = ((Py_ssize_t)1 << part->width) + 1;
    Py_ssize_t n_codes = (Py_ssize_t)table->n_codes;
    if (!(part->bounds = hold(self, bounds, "the bounds of a part", 4, &n_bounds)))
        return -1;
    if (table->n_parts &&
        (!(part->order = hold(self, order, "the order of a part", 4, &n_codes)) ||
         !(part->window = hold(self, window, "the windows of a part", 8, &n_codes))))
        return -1;
    if (part->bounds[0] != 0 || part->bounds[n_bounds - 1] != table->n_codes) {
        PyErr_Format(PyExc_ValueError, "part %u does not hold all codes", table->n_parts);
        return -1;
    }
    table->n_parts++;
    return 0;
}

static int table_fill(struct code_table_object *self, PyObject *arguments) {
    struct code_table *table = &self->table;
    PyObject *codes, *bounds, *parts;
    if (!PyArg_ParseTuple(arguments, "IOOO!", &table->bits, &codes, &bounds, &PyTuple_Type, &parts))
        return -1;
    if (table->bits < 1 || table->bits > MAX_BITS || PyTuple_GET_SIZE(parts) > MAX_PARTS) {
        PyErr_Format(PyExc_ValueError, "%u bits in %zd parts are not a code", table->bits,
                     PyTuple_GET_SIZE(parts));
        return -1;
    }
    table->width = (table->bits + 63) / 64;
    Py_ssize_t n_bounds = -1, n_codes;
    if (!(table->bounds = hold(self, bounds, "bounds", 4, &n_bounds)))
        return -1;
    n_codes = n_bounds - 1;
    if (n_codes < 0 || n_codes > (Py_ssize_t)UINT32_MAX - 1 || table->bounds[0] != 0) {
        PyErr_SetString(PyExc_ValueError, "bounds do not begin at 0");
        return -1;
    }
    if (!(table->codes = hold(self, codes, "codes", (size_t)8 * table->width, &n_codes)))
        return -1;
    table->n_codes = (size_t)n_codes;
    table->n_positions = table->bounds[n_codes];
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(parts); i++)
        if (hold_part(self, PyTuple_GET_ITEM(parts, i)) < 0)
            return -1;
    return 0;
}

static void table_dealloc(PyObject *object) {
    struct code_table_object *self = (struct code_table_object *)object;
    for (int i = 0; i < self->n_buffers; i++)
        PyBuffer_Release(&self->buffers[i]);
    Py_TYPE(object)->tp_free(object);
}

/* What Python can hold of a table is filled: there is no making it without its arrays. */
static PyObject *table_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    if (keywords && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "CodeTable takes no keywords");
        return NULL;
    }
    PyObject *self = type->tp_alloc(type, 0);
    if (self && table_fill((struct code_table_object *)self, arguments) < 0)
        Py_CLEAR(self);
    return self;
}

static PyObject *ball(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
    return search_table(object, arguments, count, SEARCH_BALL);
}

static PyObject *scan(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
    return search_table(object, arguments, count, SEARCH_SCAN);
}

static PyObject *nearest(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
    return search_table(object, arguments, count, SEARCH_NEAREST);
}

static PyObject *ball_blocks(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
    return search_blocks(object, arguments, count, SEARCH_BALL);
}

static PyObject *nearest_blocks(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
    return search_blocks(object, arguments, count, SEARCH_NEAREST);
}

static PyMethodDef methods[] = {
    {"ball", (PyCFunction)(void (*)(void))ball, METH_FASTCALL,
     "ball(queries, radius, path, defer) -> offsets, codes, distances, work"},
    {"scan", (PyCFunction)(void (*)(void))scan, METH_FASTCALL,
     "scan(queries, radius, first, last) -> offsets, codes, distances, work"},
    {"nearest", (PyCFunction)(void (*)(void))nearest, METH_FASTCALL,
     "nearest(queries, k, max_radius) -> offsets, codes, distances, work, radii"},
    {"ball_blocks", (PyCFunction)(void (*)(void))ball_blocks, METH_FASTCALL,
     "ball_blocks(queries, radius, path, defer, size) -> CodeSearch, for several threads"},
    {"nearest_blocks", (PyCFunction)(void (*)(void))nearest_blocks, METH_FASTCALL,
     "nearest_blocks(queries, k, max_radius, size) -> CodeSearch, for several threads"},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject code_table_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "patchknn.hamming._kernels.CodeTable",
    .tp_basicsize = sizeof(struct code_table_object),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "CodeTable(bits, codes, bounds, parts): see patchknn.hamming.code_table.",
    .tp_new = table_new,
    .tp_dealloc = table_dealloc,
    .tp_methods = methods,
};

const struct code_table *code_table_of(PyObject *object) {
    if (!PyObject_TypeCheck(object, &code_table_type)) {
        PyErr_SetString(PyExc_TypeError, "not a CodeTable of the kernels");
        return NULL;
    }
    return &((struct code_table_object *)object)->table;
}

static PyMethodDef functions[] = {
    {"scan_rows", (PyCFunction)(void (*)(void))scan_rows, METH_FASTCALL,
     "scan_rows(codes, queries, width, radius) -> offsets, rows, distances"},
    {NULL, NULL, 0, NULL},
};

int add_code_table(PyObject *module) {
    if (PyModule_AddFunctions(module, functions) < 0)
        return -1;
    return PyModule_AddType(module, &code_table_type) < 0 ? -1 : add_code_search(module);
}
