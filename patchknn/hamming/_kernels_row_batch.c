/* RowBatch as Python sees it: queries in, what many threads find for them out.

   Several threads work on one batch, each with lists of its own (a slot), which are merged in the
   end: no thread waits for another. */
#include "_kernels_blocks.h"
#include "_kernels_table.h"

#include <math.h>
#include <stdlib.h>

#define MOST_SLOTS 4096

typedef struct {
    PyObject_HEAD
    FeatureTable *owner;
    struct asked *queries;
    struct list *lists;   /* (n_slots, n) */
    struct trial *trials; /* (n_slots) */
    size_t n, n_slots;
    int prepared; /* the queries have sketches */
} RowBatch;

static void batch_dealloc(RowBatch *self) {
    for (size_t i = 0; i < self->n; i++)
        query_free(&self->queries[i].query);
    for (size_t i = 0; self->lists && i < self->n_slots * self->n; i++) {
        free(self->lists[i].done.items);
        free(self->lists[i].items);
    }
    free(self->queries);
    free(self->lists);
    free(self->trials);
    Py_XDECREF(self->owner);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *batch_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    PyObject *owner, *queries_object, *counts_object;
    Py_buffer queries, counts;
    if (keywords && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "RowBatch takes no keywords");
        return NULL;
    }
    Py_ssize_t n_slots;
    if (!PyArg_ParseTuple(arguments, "O!OOn", &feature_table_type, &owner, &queries_object,
                          &counts_object, &n_slots))
        return NULL;
    if (n_slots < 1 || n_slots > MOST_SLOTS) {
        PyErr_Format(PyExc_ValueError, "a batch has 1 to %d slots", MOST_SLOTS);
        return NULL;
    }
    const struct feature_table *table = &((FeatureTable *)owner)->table;
    const size_t dim = table->dim;
    if (get_buffer(queries_object, &queries, dim * sizeof(double), -1, "queries") < 0)
        return NULL;
    size_t n = (size_t)queries.len / (dim * sizeof(double));
    if (get_buffer(counts_object, &counts, sizeof(int64_t), (Py_ssize_t)n, "k") < 0) {
        PyBuffer_Release(&queries);
        return NULL;
    }
    RowBatch *self = (RowBatch *)type->tp_alloc(type, 0);
    if (self) {
        Py_INCREF(owner);
        self->owner = (FeatureTable *)owner;
        self->queries = calloc(n + 1, sizeof *self->queries);
        self->lists = calloc((size_t)n_slots * n + 1, sizeof *self->lists);
        self->trials = calloc((size_t)n_slots, sizeof *self->trials);
        self->n_slots = (size_t)n_slots;
        int status = self->queries && self->lists && self->trials ? ROWS_OK : ROWS_NO_MEMORY;
        for (; status == ROWS_OK && self->n < n; self->n++) {
            struct asked *asked = self->queries + self->n;
            int64_t k = ((const int64_t *)counts.buf)[self->n];
            /* Lists grow with k, and no query finds more than there is. */
            asked->k = k <= 0 ? 0 : (uint64_t)k < table->n_positions ? (size_t)k
                                                                     : table->n_positions;
            status = query_make(&asked->query, (const double *)queries.buf + self->n * dim,
                                dim * sizeof(double), dim);
            if (status != ROWS_OK)
                break;
        }
        for (size_t i = 0; status == ROWS_OK && i < self->n_slots * n; i++)
            self->lists[i].limit = INFINITY;
        if (rows_fail(status) < 0)
            Py_CLEAR(self);
    }
    PyBuffer_Release(&queries);
    PyBuffer_Release(&counts);
    return (PyObject *)self;
}

static int get_slot(const RowBatch *self, Py_ssize_t slot) {
    if (0 <= slot && (size_t)slot < self->n_slots)
        return 0;
    PyErr_Format(PyExc_ValueError, "slot %zd of %zu", slot, self->n_slots);
    return -1;
}

static int get_span(const RowBatch *self, Py_ssize_t first, Py_ssize_t last) {
    if (0 <= first && first <= last && (size_t)last <= self->n)
        return 0;
    PyErr_Format(PyExc_ValueError, "queries %zd to %zd of %zu", first, last, self->n);
    return -1;
}

/* search(first, last, offsets, starts, stops): queries first to last, one by one, in slot 0. */
static PyObject *batch_search(RowBatch *self, PyObject *arguments) {
    PyObject *offsets_object, *starts_object, *stops_object;
    Py_buffer offsets, starts, stops;
    Py_ssize_t first, last;
    size_t n;
    int status = ROWS_OK;
    struct feature_table *table = &self->owner->table;
    if (!PyArg_ParseTuple(arguments, "nnOOO", &first, &last, &offsets_object, &starts_object,
                          &stops_object) ||
        get_span(self, first, last) < 0 ||
        get_buffer(offsets_object, &offsets, sizeof(int64_t), last - first + 1, "offsets") < 0)
        return NULL;
    if (get_ranges(table, starts_object, stops_object, &starts, &stops, &n) < 0) {
        PyBuffer_Release(&offsets);
        return NULL;
    }
    const int64_t *from = offsets.buf;
    for (Py_ssize_t i = 0; i < last - first; i++)
        if (from[i] < 0 || from[i] > from[i + 1] || from[i + 1] > (int64_t)n)
            status = ROWS_DAMAGED;
    int wanted = sketch_wanted(table, 1), paid = wanted;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < last - first && status == ROWS_OK; i++) {
        status = list_search(self->lists + first + i, table, self->queries + first + i,
                             (const int64_t *)starts.buf + from[i],
                             (const int64_t *)stops.buf + from[i],
                             (size_t)(from[i + 1] - from[i]), &paid);
        for (int64_t range = from[i]; self->queries[first + i].k && range < from[i + 1]; range++)
            self->lists[first + i].rows += (uint64_t)(((const int64_t *)stops.buf)[range] -
                                                      ((const int64_t *)starts.buf)[range]);
    }
    Py_END_ALLOW_THREADS
    if (wanted && n)
        sketch_judged(table, paid);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&starts);
    PyBuffer_Release(&stops);
    if (rows_fail(status) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* match(slot, start, stop, queries, panels, lengths, mean): rows of positions start to stop against
   `queries` (m) int64 in `panels` (ceil(m / 32), dim, 32) float32, less `mean` (padded) as the rows
   will be; `lengths` (m) float64 are theirs. */
static PyObject *batch_match(RowBatch *self, PyObject *arguments) {
    PyObject *numbers_object, *panels_object, *lengths_object, *mean_object, *result = NULL;
    Py_buffer numbers, matrix, lengths, mean;
    Py_ssize_t slot;
    long long start, stop;
    const struct feature_table *table = &self->owner->table;
    const size_t dim = table->dim, padded = (dim + 15) & ~(size_t)15;
    /* Rows a multiple of 4 KiB apart would fall into the same lines of the cache. */
    struct panels panels = {.queries = self->queries, .prepared = self->prepared,
                            .stride = padded + 16, .bounds = bounds_of(dim, 0)};
    if (!PyArg_ParseTuple(arguments, "nLLOOOO", &slot, &start, &stop, &numbers_object,
                          &panels_object, &lengths_object, &mean_object) ||
        get_slot(self, slot) < 0)
        return NULL;
    if (start < 0 || start > stop || (uint64_t)stop > table->n_positions) {
        PyErr_SetString(PyExc_ValueError, "positions outside the table");
        return NULL;
    }
    if (get_buffer(numbers_object, &numbers, sizeof(int64_t), -1, "queries") < 0)
        return NULL;
    panels.m = (size_t)numbers.len / sizeof(int64_t);
    size_t wide = (panels.m + PANEL_WIDTH - 1) / PANEL_WIDTH * PANEL_WIDTH;
    if (get_buffer(panels_object, &matrix, sizeof(float), (Py_ssize_t)(wide * dim), "panels") < 0)
        goto no_panels;
    if (get_buffer(lengths_object, &lengths, sizeof(double), (Py_ssize_t)panels.m, "lengths") < 0)
        goto no_lengths;
    if (get_buffer(mean_object, &mean, sizeof(float), (Py_ssize_t)padded, "mean") < 0)
        goto no_mean;
    panels.numbers = numbers.buf, panels.panels = matrix.buf;
    panels.lengths = lengths.buf, panels.mean = mean.buf;
    int status = ROWS_OK;
    for (size_t i = 0; i < panels.m; i++)
        panels.longest = fmax(panels.longest, panels.lengths[i]);
    for (size_t i = 0; i < panels.m; i++)
        if (panels.numbers[i] < 0 || (uint64_t)panels.numbers[i] >= self->n)
            status = ROWS_DAMAGED;
    Py_BEGIN_ALLOW_THREADS
    panels.rows = malloc(BLOCK_ROWS * panels.stride * sizeof(float));
    if (!panels.rows)
        status = ROWS_NO_MEMORY;
    if (status == ROWS_OK)
        status = match_range(table, &panels, self->lists + (size_t)slot * self->n,
                             self->trials + slot, start, stop);
    free(panels.rows);
    Py_END_ALLOW_THREADS
    if (rows_fail(status) == 0)
        result = Py_NewRef(Py_None);
    PyBuffer_Release(&mean);
no_mean:
    PyBuffer_Release(&lengths);
no_lengths:
    PyBuffer_Release(&matrix);
no_panels:
    PyBuffer_Release(&numbers);
    return result;
}

/* prepare(first, last): the sketches of queries first to last; all of them before any match(), where
   the table has sketches. */
static PyObject *batch_prepare(RowBatch *self, PyObject *arguments) {
    const struct feature_table *table = &self->owner->table;
    Py_ssize_t first, last;
    int status = ROWS_OK;
    if (!PyArg_ParseTuple(arguments, "nn", &first, &last) || get_span(self, first, last) < 0)
        return NULL;
    if (!table->has_sketch)
        Py_RETURN_NONE;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = first; i < last && status == ROWS_OK; i++) {
        struct asked *asked = self->queries + i;
        status = query_sketch(table, &asked->query, asked->sketch, &asked->slack);
        asked->slack += table->sketch.slack;
    }
    Py_END_ALLOW_THREADS
    if (rows_fail(status) < 0)
        return NULL;
    self->prepared = 1;
    Py_RETURN_NONE;
}

/* share(): let every slot know the limits that the others have; when none of them is at work. */
static PyObject *batch_share(RowBatch *self, PyObject *unused) {
    (void)unused;
    for (size_t i = 0; i < self->n; i++) {
        float limit = INFINITY;
        for (size_t slot = 0; slot < self->n_slots; slot++)
            limit = fminf(limit, self->lists[slot * self->n + i].limit);
        for (size_t slot = 0; slot < self->n_slots; slot++)
            self->lists[slot * self->n + i].limit = limit;
    }
    Py_RETURN_NONE;
}

/* finish(first, last) -> (how many per query int64, positions int64, distances float64, rows read
   and rows skipped per query int64). */
static PyObject *batch_finish(RowBatch *self, PyObject *arguments) {
    Py_ssize_t first, last;
    int status = ROWS_OK;
    if (!PyArg_ParseTuple(arguments, "nn", &first, &last) || get_span(self, first, last) < 0)
        return NULL;
    size_t total = 0;
    Py_BEGIN_ALLOW_THREADS
    for (size_t i = (size_t)first; i < (size_t)last && status == ROWS_OK; i++) {
        for (size_t slot = 0; slot < self->n_slots && status == ROWS_OK; slot++) {
            struct list *list = self->lists + slot * self->n + i;
            status = list_settle(list, &self->owner->table, self->queries + i, self->lists + i);
            if (slot && status == ROWS_OK)
                status = list_merge(self->lists + i, self->queries[i].k, &list->done);
        }
        total += self->lists[i].done.n;
    }
    Py_END_ALLOW_THREADS
    if (rows_fail(status) < 0)
        return NULL;
    PyObject *counts = PyByteArray_FromStringAndSize(NULL, 8 * (last - first));
    PyObject *positions = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(8 * total));
    PyObject *distances = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(8 * total));
    PyObject *work = PyByteArray_FromStringAndSize(NULL, 16 * (last - first));
    if (!counts || !positions || !distances || !work) {
        Py_XDECREF(counts);
        Py_XDECREF(positions);
        Py_XDECREF(distances);
        Py_XDECREF(work);
        return NULL;
    }
    int64_t *count = (int64_t *)(void *)PyByteArray_AS_STRING(counts);
    int64_t *position = (int64_t *)(void *)PyByteArray_AS_STRING(positions);
    double *distance = (double *)(void *)PyByteArray_AS_STRING(distances);
    int64_t *spent = (int64_t *)(void *)PyByteArray_AS_STRING(work);
    for (Py_ssize_t i = first; i < last; i++) {
        const struct matches *done = &self->lists[i].done;
        uint64_t read = 0, rows = 0;
        for (size_t slot = 0; slot < self->n_slots; slot++) {
            read += self->lists[slot * self->n + (size_t)i].read;
            rows += self->lists[slot * self->n + (size_t)i].rows;
        }
        *spent++ = (int64_t)read;
        *spent++ = (int64_t)(rows - read);
        *count++ = (int64_t)done->n;
        for (size_t j = 0; j < done->n; j++) {
            *position++ = (int64_t)done->items[j].position;
            *distance++ = done->items[j].distance;
        }
    }
    return Py_BuildValue("NNNN", counts, positions, distances, work);
}

static PyMethodDef batch_methods[] = {
    {"search", (PyCFunction)batch_search, METH_VARARGS, "See patchknn.hamming.feature_batch."},
    {"prepare", (PyCFunction)batch_prepare, METH_VARARGS, "See patchknn.hamming.feature_batch."},
    {"share", (PyCFunction)batch_share, METH_NOARGS, "See patchknn.hamming.feature_batch."},
    {"match", (PyCFunction)batch_match, METH_VARARGS, "See patchknn.hamming.feature_batch."},
    {"finish", (PyCFunction)batch_finish, METH_VARARGS, "See patchknn.hamming.feature_batch."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject batch_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "patchknn.hamming._kernels.RowBatch",
    .tp_basicsize = sizeof(RowBatch),
    .tp_dealloc = (destructor)batch_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "RowBatch(table, queries, k, slots); see patchknn.hamming.feature_batch.",
    .tp_methods = batch_methods,
    .tp_new = batch_new,
};

int add_row_batch(PyObject *module) {
    if (PyType_Ready(&batch_type) < 0)
        return -1;
    Py_INCREF(&batch_type);
    return PyModule_AddObject(module, "RowBatch", (PyObject *)&batch_type);
}
