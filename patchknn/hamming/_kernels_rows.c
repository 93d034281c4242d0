/* FeatureTable as Python sees it; and distances of all rows of one array. */
#include "_kernels_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PENALTY 1024

static void table_dealloc(FeatureTable *self) {
    for (size_t i = 0; i < self->n_held; i++)
        PyBuffer_Release(self->shards + i);
    PyBuffer_Release(&self->rows);
    PyBuffer_Release(&self->values);
    PyBuffer_Release(&self->mean);
    PyBuffer_Release(&self->matrix);
    free(self->shards);
    pages_free(&self->table);
    free(self->table.bases);
    free(self->table.first_rows);
    free(self->table.shard_from);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int hold_shards(FeatureTable *self, PyObject *arrays) {
    struct feature_table *table = &self->table;
    PyObject *items = PySequence_Fast(arrays, "the arrays are no sequence");
    if (!items)
        return -1;
    size_t n = (size_t)PySequence_Fast_GET_SIZE(items);
    table->n_shards = n;
    self->shards = calloc(n + 1, sizeof *self->shards);
    table->bases = calloc(n + 1, sizeof *table->bases);
    table->first_rows = calloc(n + 2, sizeof *table->first_rows);
    int status = self->shards && table->bases && table->first_rows ? 0 : rows_fail(ROWS_NO_MEMORY);
    for (size_t i = 0; status == 0 && i < n; i++) {
        Py_buffer *view = self->shards + i;
        status = get_bytes(PySequence_Fast_GET_ITEM(items, (Py_ssize_t)i), view, table->row_bytes,
                           -1, "features");
        if (status == 0) {
            self->n_held++;
            table->bases[i] = view->buf;
            table->first_rows[i + 1] = table->first_rows[i] + (size_t)view->len / table->row_bytes;
        }
    }
    Py_DECREF(items);
    table->n_positions = table->first_rows ? table->first_rows[n] : 0;
    if (status == 0 && table->n_positions > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "a table holds fewer than 2^32 rows");
        status = -1;
    }
    return status;
}

static int hold_sketch(FeatureTable *self, PyObject *sketch) {
    struct sketch *target = &self->table.sketch;
    PyObject *values, *mean, *matrix;
    Py_ssize_t dim = (Py_ssize_t)self->table.dim;
    if (!PyArg_ParseTuple(sketch, "OOOdd", &values, &mean, &matrix, &target->scale,
                          &target->slack) ||
        get_bytes(values, &self->values, 2 * SKETCH_WIDTH, (Py_ssize_t)self->table.n_positions,
                  "sketch") < 0 ||
        get_buffer(mean, &self->mean, sizeof(double), dim, "mean") < 0 ||
        get_buffer(matrix, &self->matrix, sizeof(double), (SKETCH_WIDTH - 1) * dim, "matrix") < 0)
        return -1;
    if (!(target->scale > 0) || !(target->slack >= 0) || !isfinite(target->scale)) {
        PyErr_SetString(PyExc_ValueError, "a sketch has a positive scale and a slack");
        return -1;
    }
    target->values = self->values.buf;
    target->mean = self->mean.buf;
    target->matrix = self->matrix.buf;
    target->penalty = 1;
    self->table.has_sketch = 1;
    return 0;
}

static PyObject *table_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    PyObject *arrays, *rows, *sketch;
    Py_ssize_t dim;
    int half;
    if (keywords && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "FeatureTable takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "OnpOO", &arrays, &dim, &half, &rows, &sketch) ||
        get_dim(dim) < 0)
        return NULL;
    FeatureTable *self = (FeatureTable *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->table.dim = (size_t)dim;
    self->table.half = half;
    self->table.row_bytes = (size_t)dim * (half ? 2 : 4);
    if (hold_shards(self, arrays) < 0)
        goto failed;
    if (rows != Py_None) {
        if (get_buffer(rows, &self->rows, sizeof(uint32_t), (Py_ssize_t)self->table.n_positions,
                       "rows") < 0)
            goto failed;
        self->table.rows = self->rows.buf;
    }
    if (sketch != Py_None && hold_sketch(self, sketch) < 0)
        goto failed;
    if (rows_fail(shards_number(&self->table)) < 0 || rows_fail(pages_make(&self->table)) < 0)
        goto failed;
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

int sketch_wanted(struct feature_table *table, int asked) {
    if (!table->has_sketch || !asked)
        return 0;
    if (table->sketch.rest) {
        table->sketch.rest--;
        return 0;
    }
    return SKETCH_UNTRIED;
}

void sketch_judged(struct feature_table *table, int paid) {
    struct sketch *sketch = &table->sketch;
    if (paid == SKETCH_UNTRIED)
        return;
    if (paid) {
        sketch->penalty = 1;
        return;
    }
    sketch->rest = sketch->penalty;
    if (sketch->penalty < MAX_PENALTY)
        sketch->penalty *= 2;
}

static PyObject *table_nearest(FeatureTable *self, PyObject *arguments) {
    PyObject *query_object, *starts_object, *stops_object, *result = NULL;
    Py_buffer starts, stops;
    unsigned long long k;
    int with_sketch;
    size_t n;
    struct row_query query;
    struct matches matches;
    if (!PyArg_ParseTuple(arguments, "OOOKp", &query_object, &starts_object, &stops_object, &k,
                          &with_sketch) ||
        get_query(query_object, self->table.dim, &query) < 0)
        return NULL;
    if (get_ranges(&self->table, starts_object, stops_object, &starts, &stops, &n) < 0) {
        query_free(&query);
        return NULL;
    }
    if (k > self->table.n_positions)
        k = self->table.n_positions;
    int wanted = sketch_wanted(&self->table, with_sketch), paid = wanted, status;
    Py_BEGIN_ALLOW_THREADS
    status = rows_nearest(&self->table, &query, starts.buf, stops.buf, n, k, &paid, &matches);
    Py_END_ALLOW_THREADS
    if (wanted && n)
        sketch_judged(&self->table, paid);
    if (rows_fail(status) == 0)
        result = rows_answer(&matches);
    free(matches.items);
    query_free(&query);
    PyBuffer_Release(&starts);
    PyBuffer_Release(&stops);
    return result;
}

static PyMethodDef table_methods[] = {
    {"nearest", (PyCFunction)table_nearest, METH_VARARGS,
     "nearest(query, starts, stops, k, with_sketch); see patchknn.hamming.feature_table."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject feature_table_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "patchknn.hamming._kernels.FeatureTable",
    .tp_basicsize = sizeof(FeatureTable),
    .tp_dealloc = (destructor)table_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "FeatureTable(arrays, dim, half, rows, sketch); see patchknn.hamming.feature_table.",
    .tp_methods = table_methods,
    .tp_new = table_new,
};

/* distances(features, half, query, rows or None) -> bytearray of float64. */
static PyObject *all_distances(PyObject *module, PyObject *arguments) {
    PyObject *features_object, *query_object, *rows_object, *result = NULL;
    Py_buffer features, target, rows = {0};
    int half, status = ROWS_OK;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OpOO", &features_object, &half, &query_object, &rows_object))
        return NULL;
    Py_ssize_t length = PyObject_Length(query_object);
    if (length < 0 || get_dim(length) < 0 ||
        get_buffer(query_object, &target, sizeof(double), length, "query") < 0)
        return NULL;
    size_t dim = (size_t)length, row_bytes = dim * (half ? 2 : 4);
    double *query = calloc((dim + 15) & ~(size_t)15, sizeof *query);
    if (query)
        memcpy(query, target.buf, dim * sizeof *query);
    PyBuffer_Release(&target);
    if (!query)
        return PyErr_NoMemory();
    if (get_bytes(features_object, &features, row_bytes, -1, "features") < 0)
        goto no_features;
    size_t n_rows = (size_t)features.len / row_bytes, n = n_rows;
    if (rows_object != Py_None) {
        if (get_buffer(rows_object, &rows, sizeof(int64_t), -1, "rows") < 0)
            goto no_rows;
        n = (size_t)rows.len / sizeof(int64_t);
    }
    result = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(n * sizeof(double)));
    if (result) {
        double *distances = (double *)(void *)PyByteArray_AS_STRING(result);
        const int64_t *chosen = rows.buf;
        const void *addresses[64 + ROWS_AHEAD] = {0};
        Py_BEGIN_ALLOW_THREADS
        for (size_t first = 0; first < n && status == ROWS_OK; first += 64) {
            size_t count = n - first < 64 ? n - first : 64;
            for (size_t i = 0; i < count; i++) {
                uint64_t row = chosen ? (uint64_t)chosen[first + i] : first + i;
                if (row >= n_rows)
                    status = ROWS_DAMAGED;
                addresses[i] = (const char *)features.buf + (status ? 0 : row * row_bytes);
            }
            if (status == ROWS_OK)
                (half ? row_primitives->distances_half : row_primitives->distances_single)(
                    addresses, count, query, dim, distances + first);
        }
        Py_END_ALLOW_THREADS
        if (status != ROWS_OK) {
            Py_CLEAR(result);
            PyErr_SetString(PyExc_ValueError, "rows: a number lies outside the features");
        }
    }
    if (rows.obj)
        PyBuffer_Release(&rows);
no_rows:
    PyBuffer_Release(&features);
no_features:
    free(query);
    return result;
}

static PyMethodDef functions[] = {
    {"distances", all_distances, METH_VARARGS,
     "distances(features, half, query, rows); see patchknn.hamming.exact."},
    {NULL, NULL, 0, NULL},
};

int add_feature_table(PyObject *module) {
    if (PyType_Ready(&feature_table_type) < 0 || PyModule_AddFunctions(module, functions) < 0)
        return -1;
    Py_INCREF(&feature_table_type);
    if (PyModule_AddObject(module, "FeatureTable", (PyObject *)&feature_table_type) < 0)
        return -1;
    if (add_row_batch(module) < 0 || add_two_stage(module) < 0)
        return -1;
    return add_two_stage_many(module);
}
