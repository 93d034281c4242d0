/* Both stages of one query in one call: the codes within a radius, then their nearest rows. */
#include "_kernels_both.h"

#include <stdlib.h>
#include <string.h>

static uint64_t at_least_0(long long number) { return number > 0 ? (uint64_t)number : 0; }

int both_start(struct both *both, PyObject *codes, PyObject *table, long long radius, long long k,
               long long least, long long most) {
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

void both_finish(struct both *both) {
    sketch_judged(both->table, both->paid);
    hits_free(&both->hits);
}

int both_look(struct both *both, const uint64_t *code, const int64_t *skip, size_t n_skip,
              struct ranges *ranges, int *ranked) {
    both->hits.n = 0;
    *ranked = 0;
    int status = codes_ball(both->codes, code, both->radius, PATH_AUTO, &both->hits);
    if (status != SEARCH_OK)
        return status == SEARCH_NO_MEMORY ? ROWS_NO_MEMORY : ROWS_DAMAGED;
    status = ranges_of(both->codes, both->table, &both->hits, skip, n_skip, ranges);
    *ranked = status == ROWS_OK && ranges->rows >= both->least && ranges->rows <= both->most;
    return status;
}

int both_rank(struct both *both, const struct row_query *query, const struct ranges *ranges,
              struct matches *matches) {
    int paid = both->sketch;
    int status = rows_nearest(both->table, query, ranges->starts, ranges->stops, ranges->n,
                              both->k, &paid, matches);
    if (both->table->rows) /* each was read, and is in range */
        for (size_t i = 0; i < matches->n; i++)
            matches->items[i].position = both->table->rows[matches->items[i].position];
    if (both->sketch && paid != SKETCH_UNTRIED) {
        both->paid = paid;
        both->sketch = paid ? SKETCH_UNTRIED : 0;
    }
    return status;
}

/* A code, in bytes, as words, first byte highest; 0, or -1 with an exception. */
static int get_code(PyObject *object, const struct code_table *codes, uint64_t *words) {
    const size_t n = (codes->bits + 7) / 8;
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0)
        return -1;
    const int fits = view.itemsize == 1 && view.len == (Py_ssize_t)n;
    const unsigned char *bytes = view.buf;
    memset(words, 0, codes->width * sizeof *words);
    for (size_t i = 0; fits && i < n; i++)
        words[i / 8] |= (uint64_t)bytes[i] << (56 - 8 * (i % 8));
    PyBuffer_Release(&view);
    if (fits)
        return 0;
    PyErr_Format(PyExc_ValueError, "code: it is not one of %u bits", codes->bits);
    return -1;
}

static PyObject *one_query(PyObject *module, PyObject *arguments) {
    PyObject *codes, *table, *code_object, *query_object, *skip_object, *found = NULL;
    uint64_t code[MAX_BITS / 64];
    Py_buffer skip = {0};
    long long radius, k, least;
    struct row_query query;
    struct both both;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OO!OOLLLO", &codes, &feature_table_type, &table,
                          &code_object, &query_object, &radius, &k, &least, &skip_object) ||
        both_start(&both, codes, table, radius, k, least, INT64_MAX) < 0 ||
        get_code(code_object, both.codes, code) < 0)
        return NULL;
    if (skip_object != Py_None &&
        get_buffer(skip_object, &skip, sizeof(int64_t), -1, "skip") < 0)
        return NULL;
    if (get_query(query_object, both.table->dim, &query) < 0)
        goto no_query;
    struct matches matches = {0};
    struct ranges ranges = {0};
    int status, ranked;
    Py_BEGIN_ALLOW_THREADS
    status = both_look(&both, code, skip.buf,
                       skip.obj ? (size_t)skip.len / sizeof(int64_t) : 0, &ranges, &ranked);
    if (ranked)
        status = both_rank(&both, &query, &ranges, &matches);
    Py_END_ALLOW_THREADS
    if (rows_fail(status) == 0) {
        PyObject *answer = ranked ? rows_answer(&matches) : Py_NewRef(Py_None);
        if (answer)
            found = Py_BuildValue("KNLLLL", (unsigned long long)ranges.rows, answer,
                                  (long long)both.hits.path, (long long)both.hits.lookups,
                                  (long long)both.hits.candidates, (long long)both.hits.scanned);
    }
    free(matches.items);
    ranges_free(&ranges);
    both_finish(&both);
    query_free(&query);
no_query:
    if (skip.obj)
        PyBuffer_Release(&skip);
    return found;
}

static PyMethodDef functions[] = {
    {"two_stage", one_query, METH_VARARGS,
     "two_stage(codes, features, code, query, radius, k, least, skip); see "
     "patchknn.hamming.two_stage."},
    {NULL, NULL, 0, NULL},
};

int add_two_stage(PyObject *module) { return PyModule_AddFunctions(module, functions); }
