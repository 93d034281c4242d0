/* Both stages of one query in one call: the codes within a radius, then their nearest rows. */
#include "_kernels_codes.h"
#include "_kernels_table.h"

#include <stdlib.h>
#include <string.h>

/* Ranges of positions; grows as needed. */
struct ranges {
    int64_t *starts, *stops;
    size_t n, room;
    uint64_t rows;
};

static int add_range(struct ranges *ranges, int64_t start, int64_t stop) {
    if (start >= stop)
        return ROWS_OK;
    ranges->rows += (uint64_t)(stop - start);
    if (ranges->n && ranges->stops[ranges->n - 1] == start) {
        ranges->stops[ranges->n - 1] = stop;
        return ROWS_OK;
    }
    if (ranges->n == ranges->room) {
        size_t room = 2 * ranges->room + 64;
        int64_t *starts = realloc(ranges->starts, room * sizeof *starts);
        if (starts)
            ranges->starts = starts;
        int64_t *stops = starts ? realloc(ranges->stops, room * sizeof *stops) : NULL;
        if (!stops)
            return ROWS_NO_MEMORY;
        ranges->stops = stops;
        ranges->room = room;
    }
    ranges->starts[ranges->n] = start;
    ranges->stops[ranges->n++] = stop;
    return ROWS_OK;
}

static inline int64_t row_at(const struct feature_table *table, int64_t position) {
    return table->rows ? (int64_t)table->rows[position] : position;
}

/* The first position from `start` on, below `stop`, whose row is not below `row`: within one code
   rows ascend. */
static int64_t find_row(const struct feature_table *table, int64_t start, int64_t stop,
                        int64_t row) {
    if (!table->rows)
        return row < start ? start : row < stop ? row : stop;
    while (start < stop) {
        int64_t middle = start + (stop - start) / 2;
        if (row_at(table, middle) < row)
            start = middle + 1;
        else
            stop = middle;
    }
    return start;
}

/* Positions start to stop, which share one code, without the rows in `skip` (n, ascending). */
static int add_code(struct ranges *ranges, const struct feature_table *table, int64_t start,
                    int64_t stop, const int64_t *skip, size_t n) {
    size_t low = 0, high = n;
    if (n == 0 || start == stop)
        return add_range(ranges, start, stop);
    int64_t least = row_at(table, start), most = row_at(table, stop - 1);
    while (low < high) { /* the first that is not below the first row */
        size_t middle = low + (high - low) / 2;
        if (skip[middle] < least)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < n && skip[low] <= most && start < stop; low++) {
        int64_t place = find_row(table, start, stop, skip[low]);
        int status = add_range(ranges, start, place);
        if (status != ROWS_OK)
            return status;
        start = place < stop && row_at(table, place) == skip[low] ? place + 1 : place;
    }
    return add_range(ranges, start, stop);
}

static int compare(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

/* The hits' positions, in order: rows that lie together are read together. */
static int make_ranges(const struct code_table *codes, const struct feature_table *table,
                       struct hits *hits, const int64_t *skip, size_t n_skip,
                       struct ranges *ranges) {
    for (size_t i = 1; i < hits->n; i++)
        if (hits->codes[i] < hits->codes[i - 1]) {
            qsort(hits->codes, hits->n, sizeof *hits->codes, compare);
            break;
        }
    int64_t done = 0;
    for (size_t i = 0; i < hits->n; i++) {
        size_t code = hits->codes[i];
        if (code >= codes->n_codes)
            return ROWS_DAMAGED;
        int64_t start = codes->bounds[code], stop = codes->bounds[code + 1];
        /* Codes ascend, and their positions with them: no position is met twice. */
        if (start > stop || start < done || (uint64_t)stop > table->n_positions)
            return ROWS_DAMAGED;
        done = stop;
        int status = add_code(ranges, table, start, stop, skip, n_skip);
        if (status != ROWS_OK)
            return status;
    }
    return ROWS_OK;
}

static PyObject *both_stages(PyObject *module, PyObject *arguments) {
    PyObject *codes_object, *table_object, *words_object, *query_object, *skip_object;
    PyObject *found = NULL;
    Py_buffer words, skip = {0};
    long long radius, k, least; /* the formats for unsigned numbers would wrap what does not fit */
    struct row_query query;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OO!OOLLLO", &codes_object, &feature_table_type, &table_object,
                          &words_object, &query_object, &radius, &k, &least, &skip_object))
        return NULL;
    const struct code_table *codes = code_table_of(codes_object);
    struct feature_table *table = &((FeatureTable *)table_object)->table;
    if (!codes)
        return NULL;
    if (radius < 0)
        return PyErr_Format(PyExc_ValueError, "a radius of %lld is less than 0", radius);
    if (codes->n_positions != table->n_positions) {
        PyErr_Format(PyExc_ValueError, "codes of %zu rows and features of %zu do not fit",
                     codes->n_positions, (size_t)table->n_positions);
        return NULL;
    }
    if (get_buffer(words_object, &words, sizeof(uint64_t), (Py_ssize_t)codes->width, "words") < 0)
        return NULL;
    if (skip_object != Py_None &&
        get_buffer(skip_object, &skip, sizeof(int64_t), -1, "skip") < 0)
        goto no_skip;
    if (get_query(query_object, table->dim, &query) < 0)
        goto no_query;
    size_t n_skip = skip.obj ? (size_t)skip.len / sizeof(int64_t) : 0;
    const uint64_t wanted_rows = k > 0 ? (uint64_t)k : 0;
    int wanted = sketch_wanted(table, 1), paid = wanted, status, ranked = 0;
    struct hits hits = {0};
    struct ranges ranges = {0};
    struct matches matches = {0};
    Py_BEGIN_ALLOW_THREADS
    status = codes_ball(codes, words.buf, radius < codes->bits ? (uint32_t)radius : codes->bits,
                        PATH_AUTO, &hits);
    status = status == SEARCH_OK ? ROWS_OK
             : status == SEARCH_NO_MEMORY ? ROWS_NO_MEMORY : ROWS_DAMAGED;
    if (status == ROWS_OK)
        status = make_ranges(codes, table, &hits, skip.buf, n_skip, &ranges);
    if (status == ROWS_OK && (least <= 0 || ranges.rows >= (uint64_t)least)) {
        ranked = 1;
        status = rows_nearest(table, &query, ranges.starts, ranges.stops, ranges.n, wanted_rows,
                              &paid, &matches);
    }
    Py_END_ALLOW_THREADS
    if (wanted && ranked && ranges.n)
        sketch_judged(table, paid);
    if (rows_fail(status) == 0) {
        PyObject *answer = ranked ? rows_answer(&matches) : Py_NewRef(Py_None);
        if (answer)
            found = Py_BuildValue("KNLLLL", (unsigned long long)ranges.rows, answer,
                                  (long long)hits.path, (long long)hits.lookups,
                                  (long long)hits.candidates, (long long)hits.scanned);
    }
    free(matches.items);
    free(ranges.starts);
    free(ranges.stops);
    hits_free(&hits);
    query_free(&query);
no_query:
    if (skip.obj)
        PyBuffer_Release(&skip);
no_skip:
    PyBuffer_Release(&words);
    return found;
}

static PyMethodDef functions[] = {
    {"two_stage", both_stages, METH_VARARGS,
     "two_stage(codes, features, words, query, radius, k, least, skip); see patchknn.hamming.two_stage."},
    {NULL, NULL, 0, NULL},
};

int add_two_stage(PyObject *module) { return PyModule_AddFunctions(module, functions); }
