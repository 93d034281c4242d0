/* Both stages of many queries in one call.

   A few queries' balls are looked for first, and ranked then: the rows of each are on their way from
   memory while the others are looked for. */
#include "_kernels_both.h"

#include <stdlib.h>
#include <string.h>

#define TOUCH_AHEAD 4 /* queries */
#define FETCH_AHEAD 2
#define TOGETHER 8
#define FETCHED_ROWS 32 /* of a ball */
#define FETCHED_SKETCHES 256

/* What many queries gave: matches one after the other, and of each query `facts`: rows in the ball,
   matches (-1: not ranked), path, lookups, entries, codes scanned, rows read, rows skipped. */
#define FACTS 8
struct several {
    int64_t *facts;              /* (n, FACTS) */
    struct matches matches;
    size_t room;
};

/* What is asked: codes (n, W), features (n, dim), and segment rows that are left out, those of query
   i from ends[i - 1] to ends[i] (both NULL: none). */
struct request {
    const uint64_t *codes;
    const char *features;
    size_t bytes, n;             /* of a query's features */
    const int64_t *ends, *skip;
};

static int keep(struct several *several, const struct matches *found) {
    struct matches *all = &several->matches;
    if (all->n + found->n > several->room) {
        const size_t room = 2 * (all->n + found->n);
        struct match *items = realloc(all->items, room * sizeof *items);
        if (!items)
            return ROWS_NO_MEMORY;
        all->items = items;
        several->room = room;
    }
    if (found->n)
        memcpy(all->items + all->n, found->items, found->n * sizeof *found->items);
    all->n += found->n;
    return ROWS_OK;
}

/* Ask for what the ranking of a ball begins with. */
static void fetch_ball(const struct both *both, const struct ranges *ranges) {
    const struct feature_table *table = both->table;
    const void *pieces[FETCHED_SKETCHES];
    uint32_t positions[FETCHED_SKETCHES];
    struct cursor cursor = {.table = table, .starts = ranges->starts, .stops = ranges->stops,
                            .n_ranges = ranges->n};
    if (!ranges->n)
        return;
    cursor.position = ranges->starts[0];
    if (both->sketch && worth_sketches(ranges->rows)) {
        const size_t n = next_sketches(&cursor, FETCHED_SKETCHES, positions, pieces);
        for (size_t i = 0; i < n; i++)
            prefetch(pieces[i], 0);
        return;
    }
    const ptrdiff_t n = next_rows(&cursor, FETCHED_ROWS, positions, pieces);
    for (ptrdiff_t i = 0; i < n; i++)
        for (size_t offset = 0; offset < table->row_bytes; offset += 64)
            prefetch(pieces[i], offset);
}

static int look(struct both *both, const struct request *request, size_t i, struct ranges *ranges,
                int64_t *facts) {
    const size_t width = both->codes->width;
    const int64_t first = request->ends && i ? request->ends[i - 1] : 0;
    const size_t n_skip = request->ends ? (size_t)(request->ends[i] - first) : 0;
    int ranked;
    if (i + TOUCH_AHEAD < request->n)
        index_touch(both->codes, request->codes + (i + TOUCH_AHEAD) * width);
    if (i + FETCH_AHEAD < request->n)
        index_fetch(both->codes, request->codes + (i + FETCH_AHEAD) * width, both->radius + 1);
    int status = both_look(both, request->codes + i * width, n_skip ? request->skip + first : NULL,
                           n_skip, ranges, &ranked);
    const struct hits *hits = &both->hits;
    const int64_t own[FACTS] = {(int64_t)ranges->rows, ranked ? 0 : -1,  hits->path,
                                hits->lookups,         hits->candidates, hits->scanned};
    memcpy(facts, own, sizeof own);
    if (ranked)
        fetch_ball(both, ranges);
    return status;
}

static int rank(struct both *both, const struct request *request, size_t i,
                const struct ranges *ranges, struct several *several) {
    int64_t *facts = several->facts + i * FACTS;
    struct matches found = {0};
    struct row_query query;
    /* Also where it is not ranked, so that one that is not finite is noticed whatever its ball. */
    int status = query_make(&query, request->features + i * request->bytes, request->bytes,
                            both->table->dim);
    if (status != ROWS_OK)
        return status;
    if (facts[1] >= 0) {
        status = both_rank(both, &query, ranges, &found);
        if (status == ROWS_OK)
            status = keep(several, &found);
        facts[1] = (int64_t)found.n;
        facts[6] = (int64_t)found.rows_read, facts[7] = (int64_t)found.rows_skipped;
    }
    free(found.items);
    query_free(&query);
    return status;
}

static int search_each(struct both *both, const struct request *request, struct several *several) {
    struct ranges ranges[TOGETHER] = {{0}};
    int status = ROWS_OK;
    for (size_t first = 0; first < request->n && status == ROWS_OK; first += TOGETHER) {
        const size_t left = request->n - first, n = left < TOGETHER ? left : TOGETHER;
        for (size_t i = 0; i < n && status == ROWS_OK; i++)
            status = look(both, request, first + i, ranges + i,
                          several->facts + (first + i) * FACTS);
        for (size_t i = 0; i < n && status == ROWS_OK; i++)
            status = rank(both, request, first + i, ranges + i, several);
    }
    for (size_t i = 0; i < TOGETHER; i++)
        ranges_free(ranges + i);
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

/* The rows that each of n queries leaves out; 0, or -1 with an exception. */
static int get_skips(PyObject *ends_object, PyObject *skip_object, size_t n, Py_buffer *ends,
                     Py_buffer *skip) {
    if (ends_object == Py_None)
        return 0;
    if (get_buffer(ends_object, ends, sizeof(int64_t), (Py_ssize_t)n, "ends") < 0 ||
        get_buffer(skip_object, skip, sizeof(int64_t), -1, "skip") < 0)
        return -1;
    if (are_ends(ends->buf, n, skip->len / (Py_ssize_t)sizeof(int64_t)))
        return 0;
    PyErr_SetString(PyExc_ValueError, "the ends of what is left out do not ascend");
    return -1;
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
        both_start(&both, codes, table, radius, k, least, most) < 0 ||
        get_buffer(words_object, &words, sizeof(uint64_t) * both.codes->width, -1, "words") < 0)
        return NULL;
    struct request request = {.codes = words.buf,
                          .n = (size_t)words.len / (sizeof(uint64_t) * both.codes->width)};
    if (get_queries(queries_object, both.table->dim, request.n, &queries, &request.bytes,
                    "queries") < 0 ||
        get_skips(ends_object, skip_object, request.n, &ends, &skip) < 0)
        goto done;
    request.features = queries.buf, request.ends = ends.buf, request.skip = skip.buf;
    facts = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(request.n * FACTS * sizeof(int64_t)));
    if (!facts)
        goto done;
    several.facts = (int64_t *)(void *)PyByteArray_AS_STRING(facts);
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = search_each(&both, &request, &several);
    Py_END_ALLOW_THREADS
    if (rows_fail(status) == 0 && (answer = rows_answer(&several.matches)))
        result = PyTuple_Pack(2, facts, answer);
    both_finish(&both);
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
    {"two_stage_many", many_queries, METH_VARARGS,
     "two_stage_many(codes, features, words, queries, radius, k, least, most, ends, skip); see "
     "patchknn.hamming.two_stage."},
    {NULL, NULL, 0, NULL},
};

int add_two_stage_many(PyObject *module) { return PyModule_AddFunctions(module, functions); }
