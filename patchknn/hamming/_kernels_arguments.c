/* What Python hands to the kernels of features, and what it gets back: buffers in, bytes out. */
#include "_kernels_table.h"

#include <string.h>

int get_bytes(PyObject *object, Py_buffer *view, size_t item, Py_ssize_t items, const char *what) {
    if (PyObject_GetBuffer(object, view, PyBUF_SIMPLE) < 0)
        return -1;
    if (items >= 0 ? view->len != items * (Py_ssize_t)item : view->len % (Py_ssize_t)item != 0) {
        PyErr_Format(PyExc_ValueError, "%s: %zd bytes are not what was announced", what, view->len);
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}

int get_buffer(PyObject *object, Py_buffer *view, size_t item, Py_ssize_t items,
               const char *what) {
    if (get_bytes(object, view, item, items, what) < 0)
        return -1;
    /* An empty array may lie anywhere. */
    if (view->len && (uintptr_t)view->buf % (item % 8 ? sizeof(float) : sizeof(double))) {
        PyErr_Format(PyExc_ValueError, "%s: it is not aligned", what);
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}

int get_dim(Py_ssize_t dim) {
    if (dim >= 1 && dim <= MAX_DIM)
        return 0;
    PyErr_Format(PyExc_ValueError, "rows of %zd values: 1 to %d are possible", dim, MAX_DIM);
    return -1;
}

int rows_fail(int status) {
    if (status == ROWS_NO_MEMORY)
        PyErr_NoMemory();
    else if (status == ROWS_DAMAGED)
        PyErr_SetString(PyExc_ValueError, "the segment's rows hold a number out of range");
    else if (status == ROWS_NOT_FINITE)
        PyErr_SetString(PyExc_ValueError, "the query holds a NaN or an infinity");
    return status == ROWS_OK ? 0 : -1;
}

int get_queries(PyObject *object, size_t dim, size_t n, Py_buffer *view, size_t *bytes,
                const char *what) {
    if (PyObject_GetBuffer(object, view, PyBUF_SIMPLE) < 0)
        return -1;
    const Py_ssize_t item = view->itemsize;
    *bytes = dim * (size_t)item;
    if ((item != 2 && item != 4 && item != 8) || view->len != (Py_ssize_t)(n * *bytes))
        PyErr_Format(PyExc_ValueError, "%s: %zd bytes in items of %zd are not %zu times %zu floats",
                     what, view->len, item, n, dim);
    else if (view->len && (uintptr_t)view->buf % (uintptr_t)item)
        PyErr_Format(PyExc_ValueError, "%s: it is not aligned", what);
    else
        return 0;
    PyBuffer_Release(view);
    return -1;
}

int get_query(PyObject *object, size_t dim, struct row_query *query) {
    Py_buffer view;
    size_t bytes;
    if (get_queries(object, dim, 1, &view, &bytes, "query") < 0)
        return -1;
    int status = query_make(query, view.buf, bytes, dim);
    PyBuffer_Release(&view);
    return rows_fail(status);
}

int get_ranges(const struct feature_table *table, PyObject *starts, PyObject *stops,
               Py_buffer *first, Py_buffer *last, size_t *n) {
    if (get_buffer(starts, first, sizeof(int64_t), -1, "starts") < 0)
        return -1;
    *n = (size_t)first->len / sizeof(int64_t);
    if (get_buffer(stops, last, sizeof(int64_t), (Py_ssize_t)*n, "stops") < 0) {
        PyBuffer_Release(first);
        return -1;
    }
    const int64_t *from = first->buf, *to = last->buf;
    for (size_t i = 0; i < *n; i++)
        if (from[i] < 0 || from[i] > to[i] || to[i] > (int64_t)table->n_positions) {
            PyErr_Format(PyExc_ValueError, "positions %lld to %lld: the table has %lld",
                         (long long)from[i], (long long)to[i], (long long)table->n_positions);
            PyBuffer_Release(first);
            PyBuffer_Release(last);
            return -1;
        }
    return 0;
}

PyObject *rows_answer(const struct matches *matches) {
    Py_ssize_t bytes = (Py_ssize_t)(matches->n * 8);
    PyObject *positions = PyByteArray_FromStringAndSize(NULL, bytes);
    PyObject *distances = PyByteArray_FromStringAndSize(NULL, bytes);
    if (!positions || !distances) {
        Py_XDECREF(positions);
        Py_XDECREF(distances);
        return NULL;
    }
    for (size_t i = 0; i < matches->n; i++) {
        int64_t position = (int64_t)matches->items[i].position;
        memcpy(PyByteArray_AS_STRING(positions) + 8 * i, &position, 8);
        memcpy(PyByteArray_AS_STRING(distances) + 8 * i, &matches->items[i].distance, 8);
    }
    return Py_BuildValue("NNKK", positions, distances, (unsigned long long)matches->rows_read,
                         (unsigned long long)matches->rows_skipped);
}
