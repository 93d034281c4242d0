/* Searches in a CodeTable as Python calls them, and the type CodeSearch: one that is shared by threads.

   Threads that took their blocks in Python would wait for each other after each of them: to be woken
   takes longer than a block. Here each takes blocks without the GIL until none is left. */
#include "_kernels_search.h"

#include <string.h>

struct question {
    const struct code_table *table;
    int kind;
    int64_t first, second, third;
};

/* Offsets (n + 1,) int64, codes (T,) uint32, distances (T,) uint16, work (n, 4) int64 and, for the
   nearest, radii (n,) int32: as bytes. */
static PyObject *pack(const struct batch *batches, size_t n_batches, int with_radii) {
    size_t n = 0, total = 0;
    for (const struct batch *batch = batches; batch < batches + n_batches; n += batch++->n)
        for (size_t i = 0; i < batch->n; i++)
            total += batch->answers[i].n;
    const size_t sizes[5] = {8 * (n + 1), 4 * total, 2 * total, 32 * n, 4 * n};
    const int count = with_radii ? 5 : 4;
    PyObject *tuple = PyTuple_New(count);
    char *out[5] = {NULL};
    for (int i = 0; tuple && i < count; i++) {
        PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)sizes[i]);
        if (!bytes) {
            Py_CLEAR(tuple);
            break;
        }
        out[i] = PyBytes_AS_STRING(bytes);
        PyTuple_SET_ITEM(tuple, i, bytes);
    }
    if (!tuple)
        return NULL;
    int64_t done = 0;
    size_t query = 0;
    memcpy(out[0], &done, 8);
    for (const struct batch *batch = batches; batch < batches + n_batches; batch++)
        for (size_t i = 0; i < batch->n; i++, query++) {
            const struct answer *answer = &batch->answers[i];
            const struct hits *hits = answer->own ? answer->own : &batch->walked;
            const size_t first = answer->own ? 0 : answer->first;
            if (answer->n) {
                memcpy(out[1] + 4 * done, hits->codes + first, 4 * answer->n);
                memcpy(out[2] + 2 * done, hits->distances + first, 2 * answer->n);
            }
            done += (int64_t)answer->n;
            memcpy(out[0] + 8 * (query + 1), &done, 8);
            memcpy(out[3] + 32 * query, &answer->work, 32);
            if (with_radii)
                memcpy(out[4] + 4 * query, &answer->radius, 4);
        }
    return tuple;
}

static PyObject *finish(const struct batch *batches, size_t n, int status, int kind) {
    if (status == SEARCH_OK)
        return pack(batches, n, kind == SEARCH_NEAREST);
    if (status == SEARCH_DAMAGED)
        PyErr_SetString(PyExc_ValueError, "the index of the codes holds a value out of range");
    else
        PyErr_NoMemory();
    return NULL;
}

/* The queries (n, W) as uint64; 0, or -1 with an exception. */
static int queries_of(const struct code_table *table, PyObject *object, Py_buffer *buffer) {
    if (PyObject_GetBuffer(object, buffer, PyBUF_SIMPLE) < 0)
        return -1;
    if (buffer->len % (8 * (Py_ssize_t)table->width) || (uintptr_t)buffer->buf % 8) {
        PyErr_Format(PyExc_ValueError, "queries of %zd bytes are not aligned codes of %u bits",
                     buffer->len, table->bits);
        PyBuffer_Release(buffer);
        return -1;
    }
    return 0;
}

/* Whole numbers >= `least`, clipped to `most`; 0, or -1 with an exception. */
static int number_of(PyObject *object, int64_t least, int64_t most, int64_t *number) {
    *number = PyLong_AsLongLong(object);
    if (*number == -1 && PyErr_Occurred())
        return -1;
    if (*number < least) {
        PyErr_Format(PyExc_ValueError, "%lld is less than %lld", (long long)*number,
                     (long long)least);
        return -1;
    }
    if (*number > most)
        *number = most;
    return 0;
}

/* 0, or -1 with an exception; the queries are then held. */
static int question_of(const struct code_table *table, PyObject *const *arguments,
                       Py_ssize_t count, int kind, struct question *asked, Py_buffer *queries) {
    const int nearest = kind == SEARCH_NEAREST, ball = kind == SEARCH_BALL;
    const int64_t bits = table->bits, n_codes = (int64_t)table->n_codes;
    *asked = (struct question){.table = table, .kind = kind};
    if (count != 4 - nearest) {
        PyErr_Format(PyExc_TypeError, "%zd arguments are too few or too many", count);
        return -1;
    }
    const int64_t most = ball ? PATH_MULTI : nearest ? bits : n_codes;
    if (number_of(arguments[1], nearest, nearest ? INT64_MAX : bits, &asked->first) < 0 ||
        number_of(arguments[2], ball ? PATH_AUTO : 0, most, &asked->second) < 0 ||
        (count == 4 && number_of(arguments[3], 0, n_codes, &asked->third) < 0))
        return -1;
    return queries_of(table, arguments[0], queries);
}

/* Without the GIL. */
static int search(struct batch *batch, const struct question *asked, const uint64_t *queries,
                  size_t n) {
    int status = batch_make(batch, asked->table, queries, n);
    if (status != SEARCH_OK)
        return status;
    if (asked->kind == SEARCH_BALL)
        return batch_ball(batch, (uint32_t)asked->first, (int)asked->second, asked->third != 0);
    if (asked->kind == SEARCH_SCAN)
        return batch_scan(batch, (uint32_t)asked->first, (size_t)asked->second,
                          (size_t)asked->third);
    return batch_nearest(batch, (uint64_t)asked->first, (uint32_t)asked->second);
}

PyObject *search_table(PyObject *object, PyObject *const *arguments, Py_ssize_t count, int kind) {
    struct question asked;
    Py_buffer queries;
    struct batch batch;
    const struct code_table *table = code_table_of(object);
    if (!table || question_of(table, arguments, count, kind, &asked, &queries) < 0)
        return NULL;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = search(&batch, &asked, queries.buf, (size_t)queries.len / (8 * table->width));
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&queries);
    PyObject *result = finish(&batch, 1, status, kind);
    batch_free(&batch);
    return result;
}

struct code_search {
    PyObject_HEAD
    PyObject *table;
    struct question asked;
    Py_buffer queries;
    size_t n, size, n_blocks;    /* queries, in how many a block, and blocks */
    struct batch *batches;       /* (n_blocks); all zeros where not begun */
    size_t next, done;
    int status;                  /* the first that was not SEARCH_OK */
};

static void search_dealloc(PyObject *object) {
    struct code_search *self = (struct code_search *)object;
    for (size_t i = 0; self->batches && i < self->n_blocks; i++)
        batch_free(&self->batches[i]);
    PyMem_RawFree(self->batches);
    if (self->queries.obj)
        PyBuffer_Release(&self->queries);
    Py_XDECREF(self->table);
    Py_TYPE(object)->tp_free(object);
}

static PyObject *work(PyObject *object, PyObject *ignored) {
    struct code_search *self = (struct code_search *)object;
    (void)ignored;
    Py_BEGIN_ALLOW_THREADS
    size_t block;
    while ((block = __atomic_fetch_add(&self->next, 1, __ATOMIC_RELAXED)) < self->n_blocks &&
           __atomic_load_n(&self->status, __ATOMIC_RELAXED) == SEARCH_OK) {
        const size_t first = block * self->size, left = self->n - first;
        const uint64_t *queries = self->queries.buf;
        int status = search(&self->batches[block], &self->asked,
                            queries + first * self->asked.table->width,
                            left < self->size ? left : self->size);
        if (status != SEARCH_OK)
            __atomic_store_n(&self->status, status, __ATOMIC_RELAXED);
        __atomic_fetch_add(&self->done, 1, __ATOMIC_RELEASE);
    }
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *result(PyObject *object, PyObject *ignored) {
    struct code_search *self = (struct code_search *)object;
    (void)ignored;
    const int status = __atomic_load_n(&self->status, __ATOMIC_RELAXED);
    if (status == SEARCH_OK && __atomic_load_n(&self->done, __ATOMIC_ACQUIRE) < self->n_blocks) {
        PyErr_SetString(PyExc_RuntimeError, "the search has not ended");
        return NULL;
    }
    return finish(self->batches, self->n_blocks, status, self->asked.kind);
}

static PyMethodDef methods[] = {
    {"work", work, METH_NOARGS, "Search block after block until none is left; by any thread."},
    {"result", result, METH_NOARGS, "What the table's own method gives, once all have worked."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject code_search_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "patchknn.hamming._kernels.CodeSearch",
    .tp_basicsize = sizeof(struct code_search),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "A search in blocks; see patchknn.hamming.code_table.",
    .tp_dealloc = search_dealloc,
    .tp_methods = methods,
};

PyObject *search_blocks(PyObject *object, PyObject *const *arguments, Py_ssize_t count, int kind) {
    const struct code_table *table = code_table_of(object);
    struct question asked;
    Py_buffer queries;
    int64_t size;
    if (!table)
        return NULL;
    if (count < 1)
        return PyErr_Format(PyExc_TypeError, "the size of blocks is missing");
    if (number_of(arguments[count - 1], 1, INT32_MAX, &size) < 0 ||
        question_of(table, arguments, count - 1, kind, &asked, &queries) < 0)
        return NULL;
    struct code_search *self =
        (struct code_search *)code_search_type.tp_alloc(&code_search_type, 0);
    if (!self) {
        PyBuffer_Release(&queries);
        return NULL;
    }
    self->table = Py_NewRef(object);
    self->asked = asked;
    self->queries = queries;
    self->n = (size_t)queries.len / (8 * table->width);
    self->size = (size_t)size;
    self->n_blocks = (self->n + self->size - 1) / self->size;
    self->status = SEARCH_OK;
    self->batches = PyMem_RawCalloc(self->n_blocks + 1, sizeof *self->batches);
    if (!self->batches) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

int add_code_search(PyObject *module) { return PyModule_AddType(module, &code_search_type); }
