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
#include "_kernels_blocks.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PENALTY 1024

/* Whether a slot sifts by sketches first; found out on the way. */
struct trial {
    uint32_t rest, penalty; /* blocks to go without, and how many after the next failure */
};

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
    if (n_slots < 1 || n_slots > 4096) {
        PyErr_SetString(PyExc_ValueError, "a batch has 1 to 4096 slots");
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
    list->read += more.rows_read;
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

int list_push(struct list *list, size_t k, struct near near) {
    if (list->n == list->full) {
        if (list->n)
            tighten(list, k);
        list->full = list->n + (list->n > k ? list->n / 2 : k / 2) + 32;
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
    double longest;          /* of the lengths */
    struct bounds bounds;
};

/* The block's rows less the mean; 0 where numbers are too large. */
static int centred(const struct panels *panels, struct block *block) {
    const struct feature_table *table = block->table;
    if (!block->centred) {
        float largest = 0;
        if (block->cold)
            read_ahead(table, block->cold, block->rows, block->n, table->row_bytes);
        (table->half ? row_primitives->centre_half : row_primitives->centre_single)(
            block->rows, block->n, panels->mean, table->dim, panels->rows, panels->stride,
            block->norms);
        for (size_t i = 0; i < block->n; i++)
            largest = block->norms[i] > largest ? block->norms[i] : largest;
        block->largest = sqrt((double)largest) * (1 + panels->bounds.relative);
        block->centred = 1;
    }
    double both = block->largest + panels->longest;
    return both * both < LARGEST;
}

/* The queries of a panel, from `first` on, against a block of rows one by one. */
static int search_panel(RowBatch *self, struct list *lists, const struct panels *panels,
                        const struct block *block, size_t first) {
    int64_t start = block->positions[0], stop = start + (int64_t)block->n;
    int sketch = 0, status = ROWS_OK;
    for (size_t i = first; i < panels->m && i < first + PANEL_WIDTH && status == ROWS_OK; i++) {
        int64_t number = panels->numbers[i];
        status = search_one(self, lists + number, self->queries + number, &start, &stop, 1,
                            &sketch);
    }
    return status;
}

/* The same by their product. */
static int match_panel(RowBatch *self, struct list *lists, const struct panels *panels,
                       struct block *block, size_t first) {
    const size_t dim = block->table->dim;
    struct panel_match found[BLOCK_ROWS * PANEL_WIDTH];
    double errors[PANEL_WIDTH], squares[PANEL_WIDTH];
    float limits[PANEL_WIDTH];
    if (!centred(panels, block))
        return search_panel(self, lists, panels, block, first);
    for (size_t i = 0; i < PANEL_WIDTH; i++) {
        limits[i] = -INFINITY;
        if (first + i >= panels->m)
            continue;
        int64_t number = panels->numbers[first + i];
        double length = panels->lengths[first + i], both = block->largest + length;
        errors[i] = (panels->bounds.relative + 0x1p-21) * both * both * (1 + 0x1p-10) +
                    4 * panels->bounds.absolute * (1 + both);
        squares[i] = length * length;
        double bound = lists[number].limit - squares[i] + errors[i];
        if (self->queries[number].k) {
            limits[i] = (float)(bound + fabs(bound) * 0x1p-20 + FLT_MIN);
            lists[number].read += block->n;
        }
    }
    size_t count = row_primitives->match_panel(panels->rows, panels->stride, block->n,
                                               panels->panels + first * dim, dim, block->norms,
                                               limits, found);
    for (size_t i = 0; i < count; i++) {
        size_t query = found[i].query;
        int64_t number = panels->numbers[first + query];
        double value = (double)found[i].value + squares[query];
        double upper = value + errors[query], lower = value - errors[query];
        struct near near = {
            .upper = upper > 0 ? (float)(upper * RAISED) : 0,
            .lower = lower > 0 ? (float)(lower / RAISED) : 0,
            .position = block->positions[found[i].row],
        };
        int status = list_push(lists + number, self->queries[number].k, near);
        if (status != ROWS_OK)
            return status;
    }
    return ROWS_OK;
}

/* All queries against a block, with a sieve or (NULL) without. */
static int match_block(RowBatch *self, struct list *lists, const struct panels *panels,
                       struct block *block, struct sieve *sieve) {
    int status = ROWS_OK;
    for (size_t first = 0; first < panels->m && status == ROWS_OK; first += PANEL_WIDTH) {
        if (!sieve || sieve_panel(sieve, lists, block, first) < 0)
            status = match_panel(self, lists, panels, block, first);
        else if (sieve_is_full(sieve))
            status = sieve_weigh(sieve, lists, block);
    }
    return sieve && status == ROWS_OK ? sieve_weigh(sieve, lists, block) : status;
}

static void judge(struct trial *trial, struct sieve *sieve) {
    uint64_t looked, left;
    sieve_count(sieve, &looked, &left);
    if (looked == 0)
        return;
    if (left * 8 <= looked) {
        trial->penalty = 0;
        return;
    }
    trial->penalty = trial->penalty ? 2 * trial->penalty : 1;
    if (trial->penalty > MAX_PENALTY)
        trial->penalty = MAX_PENALTY;
    trial->rest = trial->penalty;
}

static int match_range(RowBatch *self, struct list *lists, struct trial *trial,
                       const struct panels *panels, int64_t start, int64_t stop) {
    const struct feature_table *table = &self->owner->table;
    struct cursor cursor = {.table = table, .starts = &start, .stops = &stop, .n_ranges = 1,
                            .position = start};
    struct block block = {.table = table, .cold = pages_cold(table, &start, &stop, 1, self->prepared)};
    struct sieve *sieve = NULL;
    int usable = self->prepared, status = ROWS_OK;
    if (block.cold && (!usable || trial->rest))
        fetch_rows(table, block.cold, cursor);
    for (size_t i = 0; i < panels->m; i++)
        if (self->queries[panels->numbers[i]].k)
            lists[panels->numbers[i]].rows += (uint64_t)(stop - start);
    for (ptrdiff_t n; status == ROWS_OK;) {
        n = next_rows(&cursor, BLOCK_ROWS, block.positions, block.rows);
        if (n == 0)
            break;
        if (n < 0) {
            status = ROWS_DAMAGED;
            break;
        }
        block.n = (size_t)n, block.centred = 0;
        int sift = usable && trial->rest == 0;
        if (trial->rest)
            trial->rest--;
        if (sift && !sieve) {
            sieve = sieve_make(table, self->queries, panels->numbers, panels->m, &usable);
            if (!sieve) {
                status = ROWS_NO_MEMORY;
                break;
            }
            sift = usable;
        }
        sift = sift && sieve_load(sieve, &block);
        status = match_block(self, lists, panels, &block, sift ? sieve : NULL);
        if (sift)
            judge(trial, sieve);
    }
    sieve_free(sieve);
    return status;
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
        panels.longest = fmax(panels.longest, panels.lengths[i]);
    for (size_t i = 0; i < panels.m; i++)
        if (panels.numbers[i] < 0 || (uint64_t)panels.numbers[i] >= self->n)
            status = ROWS_DAMAGED;
    Py_BEGIN_ALLOW_THREADS
    panels.rows = malloc(BLOCK_ROWS * panels.stride * sizeof(float));
    if (!panels.rows)
        status = ROWS_NO_MEMORY;
    if (status == ROWS_OK)
        status = match_range(self, self->lists + (size_t)slot * self->n, self->trials + slot, &panels,
                             start, stop);
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
