/* Both stages in one call: the codes within a radius, then their nearest rows. */
#include "_kernels_ranges.h"
#include "_kernels_table.h"

#include <stdlib.h>
#include <string.h>

#define TOUCH_AHEAD 4 /* queries */
#define FETCH_AHEAD 2

/* What is asked of each query, and what is kept from one to the next. */
struct both {
    const struct code_table *codes;
    struct feature_table *table;
    uint32_t radius;
    uint64_t k, least, most;     /* balls of fewer or more rows are not ranked */
    int sketch, paid;            /* as rows_nearest() has it; once it did not pay it rests */
    struct hits hits;
    struct ranges ranges;
};

/* Matches are left as they are, with `ranked` 0, where the ball is too small or too large. */
static int search(struct both *both, const uint64_t *code, const struct row_query *query,
                  const int64_t *skip, size_t n_skip, struct matches *matches, int *ranked) {
    both->hits.n = 0;
    *ranked = 0;
    int status = codes_ball(both->codes, code, both->radius, PATH_AUTO, &both->hits);
    if (status != SEARCH_OK)
        return status == SEARCH_NO_MEMORY ? ROWS_NO_MEMORY : ROWS_DAMAGED;
    status = ranges_of(both->codes, both->table, &both->hits, skip, n_skip, &both->ranges);
    const struct ranges *ranges = &both->ranges;
    if (status != ROWS_OK || ranges->rows < both->least || ranges->rows > both->most)
        return status;
    *ranked = 1;
    int paid = both->sketch;
    status = rows_nearest(both->table, query, ranges->starts, ranges->stops, ranges->n, both->k,
                          &paid, matches);
    if (both->sketch && paid != SKETCH_UNTRIED) {
        both->paid = paid;
        both->sketch = paid ? SKETCH_UNTRIED : 0;
    }
    return status;
}

static uint64_t at_least_0(long long number) { return number > 0 ? (uint64_t)number : 0; }

/* 0, or -1 with an exception. The formats for unsigned numbers would wrap what does not fit. */
static int start(struct both *both, PyObject *codes, PyObject *table, long long radius,
                 long long k, long long least, long long most) {
    memset(both, 0, sizeof *both);
    both->codes = code_table_of(codes);
    both->table = &((FeatureTable *)table)->table;
    if (!both->codes)
        return -1;
    if (radius < 0) {
        PyErr_Format(PyExc_ValueError, "a radius of %lld is less than 0", radius);
        return -1;
    }
    if (both->codes->n_positions != both->table->n_positions) {
        PyErr_Format(PyExc_ValueError, "codes of %zu rows and features of %zu do not fit",
                     both->codes->n_positions, (size_t)both->table->n_positions);
        return -1;
    }
    both->radius = radius < both->codes->bits ? (uint32_t)radius : both->codes->bits;
    both->k = at_least_0(k), both->least = at_least_0(least), both->most = at_least_0(most);
    both->sketch = sketch_wanted(both->table, 1);
    both->paid = SKETCH_UNTRIED;
    return 0;
}

static void finish(struct both *both) {
    sketch_judged(both->table, both->paid);
    ranges_free(&both->ranges);
    hits_free(&both->hits);
}

static PyObject *one_query(PyObject *module, PyObject *arguments) {
    PyObject *codes, *table, *words_object, *query_object, *skip_object, *found = NULL;
    Py_buffer words, skip = {0};
    long long radius, k, least;
    struct row_query query;
    struct both both;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OO!OOLLLO", &codes, &feature_table_type, &table,
                          &words_object, &query_object, &radius, &k, &least, &skip_object) ||
        start(&both, codes, table, radius, k, least, INT64_MAX) < 0)
        return NULL;
    if (get_buffer(words_object, &words, sizeof(uint64_t), (Py_ssize_t)both.codes->width,
                   "words") < 0)
        return NULL;
    if (skip_object != Py_None &&
        get_buffer(skip_object, &skip, sizeof(int64_t), -1, "skip") < 0)
        goto no_skip;
    if (get_query(query_object, both.table->dim, &query) < 0)
        goto no_query;
    struct matches matches = {0};
    int status, ranked;
    Py_BEGIN_ALLOW_THREADS
    status = search(&both, words.buf, &query, skip.buf,
                    skip.obj ? (size_t)skip.len / sizeof(int64_t) : 0, &matches, &ranked);
    Py_END_ALLOW_THREADS
    if (rows_fail(status) == 0) {
        PyObject *answer = ranked ? rows_answer(&matches) : Py_NewRef(Py_None);
        if (answer)
            found = Py_BuildValue("KNLLLL", (unsigned long long)both.ranges.rows, answer,
                                  (long long)both.hits.path, (long long)both.hits.lookups,
                                  (long long)both.hits.candidates, (long long)both.hits.scanned);
    }
    free(matches.items);
    finish(&both);
    query_free(&query);
no_query:
    if (skip.obj)
        PyBuffer_Release(&skip);
no_skip:
    PyBuffer_Release(&words);
    return found;
}

/* What many queries gave: matches one after the other, and of each query `facts`: rows in the ball,
   matches (-1: not ranked), path, lookups, entries, codes scanned, rows read, rows skipped. */
#define FACTS 8
struct several {
    int64_t *facts;              /* (n, FACTS) */
    struct matches matches;
    size_t room;
};

static int keep(struct several *several, const struct both *both, const struct matches *found,
                int ranked, int64_t *facts) {
    const struct hits *hits = &both->hits;
    const int64_t own[FACTS] = {(int64_t)both->ranges.rows,
                                ranked ? (int64_t)found->n : -1,
                                hits->path,
                                hits->lookups,
                                hits->candidates,
                                hits->scanned,
                                ranked ? (int64_t)found->rows_read : 0,
                                ranked ? (int64_t)found->rows_skipped : 0};
    memcpy(facts, own, sizeof own);
    if (!ranked || !found->n)
        return ROWS_OK;
    struct matches *all = &several->matches;
    if (all->n + found->n > several->room) {
        const size_t room = 2 * (all->n + found->n);
        struct match *items = realloc(all->items, room * sizeof *items);
        if (!items)
            return ROWS_NO_MEMORY;
        all->items = items;
        several->room = room;
    }
    memcpy(all->items + all->n, found->items, found->n * sizeof *found->items);
    all->n += found->n;
    return ROWS_OK;
}

static int search_each(struct both *both, const uint64_t *codes, const double *queries, size_t n,
                       const int64_t *skip_ends, const int64_t *skip, struct several *several) {
    const size_t width = both->codes->width, dim = both->table->dim;
    const uint32_t parts = both->radius + 1;
    int status = ROWS_OK;
    for (size_t i = 0; i < n && status == ROWS_OK; i++) {
        struct matches found = {0};
        struct row_query query;
        int ranked;
        if (i + TOUCH_AHEAD < n)
            index_touch(both->codes, codes + (i + TOUCH_AHEAD) * width);
        if (i + FETCH_AHEAD < n)
            index_fetch(both->codes, codes + (i + FETCH_AHEAD) * width, parts);
        status = query_make(&query, queries + i * dim, dim);
        if (status != ROWS_OK)
            return status;
        const int64_t first = i ? skip_ends[i - 1] : 0;
        status = search(both, codes + i * width, &query, skip + first,
                        (size_t)(skip_ends[i] - first), &found, &ranked);
        if (status == ROWS_OK)
            status = keep(several, both, &found, ranked, several->facts + i * FACTS);
        free(found.items);
        query_free(&query);
    }
    return status;
}

/* Whether the ends ascend from 0 to no more than `most`. */
static int are_ends(const int64_t *ends, size_t n, Py_ssize_t most) {
    int64_t last = 0;
    for (size_t i = 0; i < n; last = ends[i++])
        if (ends[i] < last || ends[i] > (int64_t)most)
            return 0;
    return 1;
}

static PyObject *many_queries(PyObject *module, PyObject *arguments) {
    PyObject *codes, *table, *words_object, *queries_object, *ends_object, *skip_object;
    PyObject *facts = NULL, *answer = NULL, *result = NULL;
    Py_buffer words, queries = {0}, ends = {0}, skip = {0};
    long long radius, k, least, most;
    struct several several = {0};
    struct both both;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OO!OOLLLLOO", &codes, &feature_table_type, &table,
                          &words_object, &queries_object, &radius, &k, &least, &most, &ends_object,
                          &skip_object) ||
        start(&both, codes, table, radius, k, least, most) < 0 ||
        get_buffer(words_object, &words, sizeof(uint64_t) * both.codes->width, -1, "words") < 0)
        return NULL;
    const size_t n = (size_t)words.len / (sizeof(uint64_t) * both.codes->width);
    if (get_buffer(queries_object, &queries, sizeof(double) * both.table->dim, (Py_ssize_t)n,
                   "queries") < 0 ||
        get_buffer(ends_object, &ends, sizeof(int64_t), (Py_ssize_t)n, "ends") < 0 ||
        get_buffer(skip_object, &skip, sizeof(int64_t), -1, "skip") < 0)
        goto done;
    if (!are_ends(ends.buf, n, skip.len / (Py_ssize_t)sizeof(int64_t))) {
        PyErr_SetString(PyExc_ValueError, "the ends of what is left out do not ascend");
        goto done;
    }
    facts = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(n * FACTS * sizeof(int64_t)));
    if (!facts)
        goto done;
    several.facts = (int64_t *)(void *)PyByteArray_AS_STRING(facts);
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = search_each(&both, words.buf, queries.buf, n, ends.buf, skip.buf, &several);
    Py_END_ALLOW_THREADS
    if (rows_fail(status) == 0 && (answer = rows_answer(&several.matches)))
        result = PyTuple_Pack(2, facts, answer);
    finish(&both);
done:
    free(several.matches.items);
    Py_XDECREF(facts);
    Py_XDECREF(answer);
    if (skip.obj)
        PyBuffer_Release(&skip);
    if (ends.obj)
        PyBuffer_Release(&ends);
    if (queries.obj)
        PyBuffer_Release(&queries);
    PyBuffer_Release(&words);
    return result;
}

static PyMethodDef functions[] = {
    {"two_stage", one_query, METH_VARARGS,
     "two_stage(codes, features, words, query, radius, k, least, skip); see "
     "patchknn.hamming.two_stage."},
    {"two_stage_many", many_queries, METH_VARARGS,
     "two_stage_many(codes, features, words, queries, radius, k, least, most, ends, skip); see "
     "patchknn.hamming.two_stage."},
    {NULL, NULL, 0, NULL},
};

int add_two_stage(PyObject *module) { return PyModule_AddFunctions(module, functions); }
