/* A batch of queries against rows that many of them share: products of blocks of rows with panels
   of queries, of which candidates within a proven margin are kept, then float64 distances.

   Several threads work on one batch, each with lists of its own (a slot), which are merged in the
   end: no thread waits for another.

   Notation as in _kernels_bounds.c; x' and q' are the row and the query less the mean, rounded to
   float32, X >= |x'| and Q = |q'|. The product p of x' and q', summed in any order, errs by at most
   r X Q, the row's sum of squares N by r X^2, and V = N - 2 p rounds once more, by u (X^2 + 2 X Q).
   Rounding x' and q' moves their distance by at most u (X + Q), so its square by 2.1 u (X + Q)^2.
   In all
       | V + Q^2 - |x - q|^2 | <= E,    E = (r + 8 u) (X + Q)^2 + 16 n m (1 + X + Q),
   the last term being for underflow. So the square of the true distance lies in
   [V + Q^2 - E, V + Q^2 + E]: a row can be left where the lower end is above the k-th smallest
   upper end so far, raised by 2^-20, which is more than what float64 distances err. */
#include "_kernels_table.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_ROWS 96 /* as float32 they and a panel stay in a core's cache */
#define RAISED (1 + 0x1p-20)
#define LARGEST 1e36  /* squares beyond it might overflow on the way */

struct near { /* a row whose squared distance lies between the two */
    float upper, lower;
    uint32_t position;
};

/* What one slot has found for one query. */
struct list {
    struct matches done; /* with float64 distances, in order */
    struct near *items;
    size_t n, room, full; /* full: when to look what can be left */
    float limit;          /* squared distance that no row of the answer exceeds */
};

struct asked {
    struct row_query query;
    size_t k;
};

typedef struct {
    PyObject_HEAD
    FeatureTable *owner;
    struct asked *queries;
    struct list *lists; /* (n_slots, n) */
    size_t n, n_slots;
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
    if (n_slots < 1 || n_slots > 4096) {
        PyErr_SetString(PyExc_ValueError, "a batch has 1 to 4096 slots");
        return NULL;
    }
    size_t dim = ((FeatureTable *)owner)->table.dim;
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
        self->n_slots = (size_t)n_slots;
        int status = self->queries && self->lists ? ROWS_OK : ROWS_NO_MEMORY;
        for (; status == ROWS_OK && self->n < n; self->n++) {
            struct asked *asked = self->queries + self->n;
            int64_t k = ((const int64_t *)counts.buf)[self->n];
            asked->k = k > 0 ? (size_t)k : 0;
            status = query_make(&asked->query, (const double *)queries.buf + self->n * dim, dim);
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

/* Add further float64 matches to a list, and keep what is within the k-th smallest. */
static int merge(struct list *list, size_t k, struct matches *more) {
    struct matches *done = &list->done;
    int status = ROWS_OK;
    if (done->n == 0) {
        free(done->items);
        *done = *more;
        more->items = NULL;
    } else if (more->n) {
        struct match *items = realloc(done->items, (done->n + more->n) * sizeof *items);
        if (items) {
            memcpy(items + done->n, more->items, more->n * sizeof *items);
            done->items = items;
            done->n += more->n;
            matches_settle(done, k);
        } else {
            status = ROWS_NO_MEMORY;
        }
    }
    free(more->items);
    more->items = NULL, more->n = 0;
    if (k && done->n >= k) {
        double last = done->items[k - 1].distance, most = last * last * RAISED + FLT_MIN;
        if (most < list->limit)
            list->limit = (float)(most * RAISED);
    }
    return status;
}

static int search_one(RowBatch *self, struct list *list, const struct asked *asked,
                      const int64_t *starts, const int64_t *stops, size_t n, int *sketch) {
    struct matches more;
    int status = rows_nearest(&self->owner->table, &asked->query, starts, stops, n, asked->k,
                              sketch, &more);
    if (status == ROWS_OK)
        return merge(list, asked->k, &more);
    free(more.items);
    return status;
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
        status = search_one(self, self->lists + first + i, self->queries + first + i,
                            (const int64_t *)starts.buf + from[i],
                            (const int64_t *)stops.buf + from[i],
                            (size_t)(from[i + 1] - from[i]), &paid);
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

static void tighten(struct list *list, size_t k) {
    if (list->n < k)
        return;
    double most = kth_smallest(&list->items->upper, sizeof *list->items, list->n, k);
    most = most * RAISED + FLT_MIN;
    if (most < list->limit)
        list->limit = (float)(most * RAISED);
    size_t kept = 0;
    for (size_t i = 0; i < list->n; i++)
        if (list->items[i].lower <= list->limit)
            list->items[kept++] = list->items[i];
    list->n = kept;
}

static int push(struct list *list, size_t k, struct near near) {
    if (list->n == list->full) {
        if (list->n)
            tighten(list, k);
        list->full = 2 * list->n + 2 * k + 64;
        if (list->full > list->room) {
            struct near *items = realloc(list->items, list->full * sizeof *items);
            if (!items)
                return ROWS_NO_MEMORY;
            list->items = items;
            list->room = list->full;
        }
    }
    list->items[list->n++] = near;
    return ROWS_OK;
}

/* The queries of one range, in panels, and what a block of rows needs beside them. */
struct panels {
    size_t m;
    const int64_t *numbers;  /* (m) */
    const float *panels;     /* (ceil(m / PANEL_WIDTH), dim, PANEL_WIDTH), zeros beyond m */
    const double *lengths;   /* (m): Q */
    const float *mean;       /* padded */
    float *rows;             /* (BLOCK_ROWS, stride) */
    size_t stride;
    struct bounds bounds;
};

/* All queries against n rows, that lie in `rows` less the mean. */
static int match_block(RowBatch *self, struct list *lists, const struct panels *panels, size_t n,
                       const uint32_t *positions, const float *norms, double row) {
    const size_t dim = self->owner->table.dim;
    struct panel_match found[BLOCK_ROWS * PANEL_WIDTH];
    for (size_t first = 0; first < panels->m; first += PANEL_WIDTH) {
        double errors[PANEL_WIDTH], squares[PANEL_WIDTH];
        float limits[PANEL_WIDTH];
        for (size_t i = 0; i < PANEL_WIDTH; i++) {
            limits[i] = -INFINITY;
            if (first + i >= panels->m)
                continue;
            int64_t number = panels->numbers[first + i];
            double length = panels->lengths[first + i], both = row + length;
            errors[i] = (panels->bounds.relative + 0x1p-21) * both * both * (1 + 0x1p-10) +
                        4 * panels->bounds.absolute * (1 + both);
            squares[i] = length * length;
            double bound = lists[number].limit - squares[i] + errors[i];
            if (self->queries[number].k)
                limits[i] = (float)(bound + fabs(bound) * 0x1p-20 + FLT_MIN);
        }
        size_t count = row_primitives->match_panel(panels->rows, panels->stride, n,
                                                   panels->panels + first * dim, dim, norms,
                                                   limits, found);
        for (size_t i = 0; i < count; i++) {
            size_t query = found[i].query;
            int64_t number = panels->numbers[first + query];
            double value = (double)found[i].value + squares[query];
            double upper = value + errors[query], lower = value - errors[query];
            struct near near = {
                .upper = upper > 0 ? (float)(upper * RAISED) : 0,
                .lower = lower > 0 ? (float)(lower / RAISED) : 0,
                .position = positions[found[i].row],
            };
            int status = push(lists + number, self->queries[number].k, near);
            if (status != ROWS_OK)
                return status;
        }
    }
    return ROWS_OK;
}

static int match_range(RowBatch *self, struct list *lists, const struct panels *panels,
                       int64_t start, int64_t stop) {
    const struct feature_table *table = &self->owner->table;
    struct cursor cursor = {.table = table, .starts = &start, .stops = &stop, .n_ranges = 1,
                            .position = start};
    const void *rows[BLOCK_ROWS + ROWS_AHEAD] = {0};
    uint32_t positions[BLOCK_ROWS];
    float norms[BLOCK_ROWS];
    double most = 0;
    int cold = pages_cold(table, &start, &stop, 1, 0);
    for (size_t i = 0; i < panels->m; i++)
        most = panels->lengths[i] > most ? panels->lengths[i] : most;
    for (ptrdiff_t n; (n = next_rows(&cursor, BLOCK_ROWS, positions, rows)) != 0;) {
        double largest = 0;
        int status = ROWS_OK;
        if (n < 0)
            return ROWS_DAMAGED;
        if (cold)
            read_ahead(table, cold, rows, (size_t)n, table->row_bytes);
        (table->half ? row_primitives->centre_half : row_primitives->centre_single)(
            rows, (size_t)n, panels->mean, table->dim, panels->rows, panels->stride, norms);
        for (ptrdiff_t i = 0; i < n; i++)
            largest = norms[i] > largest ? norms[i] : largest;
        double row = sqrt(largest) * (1 + panels->bounds.relative);
        if ((row + most) * (row + most) < LARGEST) {
            status = match_block(self, lists, panels, (size_t)n, positions, norms, row);
        } else {
            int64_t first = positions[0], last = first + n;
            int sketch = 0;
            for (size_t i = 0; i < panels->m && status == ROWS_OK; i++)
                status = search_one(self, lists + panels->numbers[i],
                                    self->queries + panels->numbers[i], &first, &last, 1, &sketch);
        }
        if (status != ROWS_OK)
            return status;
    }
    return ROWS_OK;
}

/* match(slot, start, stop, queries, panels, lengths, mean): rows of positions start to stop against
   `queries` (m) int64 in `panels` (ceil(m / 32), dim, 32) float32, less `mean` (padded) as the rows
   will be; `lengths` (m) float64 are theirs. */
static PyObject *batch_match(RowBatch *self, PyObject *arguments) {
    PyObject *numbers_object, *panels_object, *lengths_object, *mean_object, *result = NULL;
    Py_buffer numbers, matrix, lengths, mean;
    Py_ssize_t slot;
    long long start, stop;
    const size_t dim = self->owner->table.dim, padded = (dim + 15) & ~(size_t)15;
    /* Rows a multiple of 4 KiB apart would fall into the same lines of the cache. */
    struct panels panels = {.stride = padded + 16, .bounds = bounds_of(dim, 0)};
    if (!PyArg_ParseTuple(arguments, "nLLOOOO", &slot, &start, &stop, &numbers_object,
                          &panels_object, &lengths_object, &mean_object) ||
        get_slot(self, slot) < 0)
        return NULL;
    if (start < 0 || start > stop || (uint64_t)stop > self->owner->table.n_positions) {
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
        if (panels.numbers[i] < 0 || (uint64_t)panels.numbers[i] >= self->n)
            status = ROWS_DAMAGED;
    Py_BEGIN_ALLOW_THREADS
    panels.rows = malloc(BLOCK_ROWS * panels.stride * sizeof(float));
    if (!panels.rows)
        status = ROWS_NO_MEMORY;
    if (status == ROWS_OK)
        status = match_range(self, self->lists + (size_t)slot * self->n, &panels, start, stop);
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

/* The float64 distances of a list's candidates go to the matches of slot 0. */
static int settle(RowBatch *self, size_t number, struct list *list) {
    const struct asked *asked = self->queries + number;
    struct matches more = {0};
    int status = ROWS_OK;
    if (list->n) {
        tighten(list, asked->k);
        uint32_t *positions = malloc((list->n + 1) * sizeof *positions);
        for (size_t i = 0; positions && i < list->n; i++)
            positions[i] = list->items[i].position;
        status = positions ? rows_settle(&self->owner->table, &asked->query, positions, list->n,
                                         asked->k, &more)
                           : ROWS_NO_MEMORY;
        free(positions);
    }
    free(list->items);
    list->items = NULL;
    list->n = list->room = list->full = 0;
    if (status != ROWS_OK)
        free(more.items);
    else if (more.items)
        status = merge(self->lists + number, asked->k, &more);
    return status;
}

/* finish(first, last) -> (how many per query int64, positions int64, distances float64). */
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
            status = settle(self, i, list);
            if (slot && status == ROWS_OK)
                status = merge(self->lists + i, self->queries[i].k, &list->done);
        }
        total += self->lists[i].done.n;
    }
    Py_END_ALLOW_THREADS
    if (rows_fail(status) < 0)
        return NULL;
    PyObject *counts = PyByteArray_FromStringAndSize(NULL, 8 * (last - first));
    PyObject *positions = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(8 * total));
    PyObject *distances = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(8 * total));
    if (!counts || !positions || !distances) {
        Py_XDECREF(counts);
        Py_XDECREF(positions);
        Py_XDECREF(distances);
        return NULL;
    }
    int64_t *count = (int64_t *)(void *)PyByteArray_AS_STRING(counts);
    int64_t *position = (int64_t *)(void *)PyByteArray_AS_STRING(positions);
    double *distance = (double *)(void *)PyByteArray_AS_STRING(distances);
    for (Py_ssize_t i = first; i < last; i++) {
        const struct matches *done = &self->lists[i].done;
        *count++ = (int64_t)done->n;
        for (size_t j = 0; j < done->n; j++) {
            *position++ = (int64_t)done->items[j].position;
            *distance++ = done->items[j].distance;
        }
    }
    return Py_BuildValue("NNN", counts, positions, distances);
}

static PyMethodDef batch_methods[] = {
    {"search", (PyCFunction)batch_search, METH_VARARGS, "See patchknn.hamming.feature_batch."},
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
