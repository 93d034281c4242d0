/* Plain scans, tile by tile so that codes stay in the cache while many queries pass over them. */
#include "_kernels_codes.h"

#include <stdlib.h>
#include <string.h>

#define TILE_BYTES ((size_t)1 << 17)
#define FIRST_TILE 512 /* codes from which the search for the nearest learns its first limit */

int hits_reserve(struct hits *hits, size_t more) {
    size_t needed = hits->n + more + 16;
    if (needed <= hits->room)
        return 0;
    size_t room = hits->room + hits->room / 2;
    if (room < needed)
        room = needed;
    uint32_t *codes = realloc(hits->codes, room * sizeof *codes);
    if (!codes)
        return -1;
    hits->codes = codes;
    uint16_t *distances = realloc(hits->distances, room * sizeof *distances);
    if (!distances)
        return -1;
    hits->distances = distances;
    hits->room = room;
    return 0;
}

void hits_free(struct hits *hits) {
    free(hits->codes);
    free(hits->distances);
    hits->codes = NULL;
    hits->distances = NULL;
    hits->n = hits->room = 0;
}

void tally_start(struct tally *tally, uint64_t wanted, uint32_t limit) {
    tally->wanted = wanted;
    tally->within = 0;
    tally->limit = limit;
    memset(tally->counts, 0, (limit + 1) * sizeof *tally->counts);
}

static inline void tally_count(struct tally *tally, uint32_t distance, uint64_t positions) {
    if (distance > tally->limit)
        return;
    tally->counts[distance] += positions;
    tally->within += positions;
    while (tally->limit && tally->within - tally->counts[tally->limit] >= tally->wanted)
        tally->within -= tally->counts[tally->limit--];
}

void tally_codes(struct tally *tally, const struct hits *hits, size_t first) {
    for (size_t i = first; i < hits->n; i++)
        tally_count(tally, hits->distances[i], 1);
}

int tally_positions(const struct code_table *table, struct tally *tally, const struct hits *hits,
                    size_t first) {
    for (size_t i = first; i < hits->n; i++) {
        if (hits->distances[i] > tally->limit)
            continue;
        const uint32_t *bounds = table->bounds + hits->codes[i];
        if (bounds[0] >= bounds[1] || bounds[1] > table->n_positions)
            return SEARCH_DAMAGED;
        tally_count(tally, hits->distances[i], bounds[1] - bounds[0] - 1);
    }
    return SEARCH_OK;
}

void tally_trim(const struct tally *tally, struct hits *hits, size_t first) {
    size_t kept = first;
    for (size_t i = first; i < hits->n; i++)
        if (hits->distances[i] <= tally->limit) {
            hits->codes[kept] = hits->codes[i];
            hits->distances[kept++] = hits->distances[i];
        }
    hits->n = kept;
}

/* Where the primitives write what a tile gives: little of it is to be kept. */
struct scratch {
    uint32_t *found;
    uint16_t *distances;
};

static int scratch_make(struct scratch *scratch, size_t tile) {
    scratch->found = malloc((tile + 16) * sizeof *scratch->found);
    scratch->distances = malloc((tile + 16) * sizeof *scratch->distances);
    return scratch->found && scratch->distances ? SEARCH_OK : SEARCH_NO_MEMORY;
}

static void scratch_free(struct scratch *scratch) {
    free(scratch->found);
    free(scratch->distances);
}

/* Append `n` codes of the tile that begins at `first`. */
static int hits_append(struct hits *hits, const struct scratch *scratch, size_t n, size_t first) {
    if (!n)
        return SEARCH_OK;
    if (hits_reserve(hits, n))
        return SEARCH_NO_MEMORY;
    for (size_t i = 0; i < n; i++)
        hits->codes[hits->n + i] = scratch->found[i] + (uint32_t)first;
    memcpy(hits->distances + hits->n, scratch->distances, n * sizeof *hits->distances);
    hits->n += n;
    return SEARCH_OK;
}

int scan_codes(const struct code_table *table, const uint64_t *const *queries,
               struct hits *const *hits, struct tally *const *tallies, size_t n_queries,
               uint32_t radius, size_t first, size_t last) {
    const size_t whole = TILE_BYTES / (8 * table->width);
    const size_t tile = last - first < whole ? last - first : whole;
    struct scratch scratch;
    int status = scratch_make(&scratch, tile);
    for (size_t n; status == SEARCH_OK && first < last; first += n) {
        const uint64_t *codes = table->codes + first * table->width;
        n = last - first < tile ? last - first : tile;
        if (tallies && first == 0 && n > FIRST_TILE)
            n = FIRST_TILE;
        for (size_t q = 0; status == SEARCH_OK && q < n_queries; q++) {
            const uint32_t limit = tallies ? tallies[q]->limit : radius;
            const size_t before = hits[q]->n;
            size_t found;
            if (table->width == 1)
                found = code_primitives->scan_words(codes, n, *queries[q], limit, scratch.found,
                                                    scratch.distances);
            else
                found = code_primitives->scan_wide(codes, n, table->width, queries[q], limit,
                                                   scratch.found, scratch.distances);
            status = hits_append(hits[q], &scratch, found, first);
            hits[q]->scanned += (int64_t)n;
            if (status != SEARCH_OK || !tallies || !found)
                continue;
            tally_codes(tallies[q], hits[q], before);
            status = tally_positions(table, tallies[q], hits[q], before);
            /* While few tiles are done most of what they gave lies beyond the later limit. */
            if (tallies[q]->limit < limit)
                tally_trim(tallies[q], hits[q], 0);
        }
    }
    scratch_free(&scratch);
    return status;
}

/* The rows of a shard in balls around queries: the codes lie as K/8 bytes, in any alignment. */
static int scan_shard(const uint8_t *codes, size_t n, size_t width, const uint8_t *queries,
                      size_t n_queries, uint32_t radius, struct hits *hits) {
    const size_t whole = TILE_BYTES / width, tile = n < whole ? n : whole;
    struct scratch scratch;
    int status = scratch_make(&scratch, tile);
    for (size_t first = 0; status == SEARCH_OK && first < n; first += tile) {
        const size_t count = n - first < tile ? n - first : tile;
        for (size_t q = 0; status == SEARCH_OK && q < n_queries; q++) {
            size_t found = code_primitives->scan_bytes(codes + first * width, count, width,
                                                       queries + q * width, radius, scratch.found,
                                                       scratch.distances);
            status = hits_append(&hits[q], &scratch, found, first);
        }
    }
    scratch_free(&scratch);
    return status;
}

static PyObject *pack_rows(const struct hits *hits, size_t n_queries) {
    size_t total = 0;
    for (size_t q = 0; q < n_queries; q++)
        total += hits[q].n;
    PyObject *offsets = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)((n_queries + 1) * 8));
    PyObject *rows = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(total * 8));
    PyObject *distances = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(total * 2));
    if (!offsets || !rows || !distances) {
        Py_XDECREF(offsets);
        Py_XDECREF(rows);
        Py_XDECREF(distances);
        return NULL;
    }
    char *offset = PyBytes_AS_STRING(offsets), *row = PyBytes_AS_STRING(rows);
    char *distance = PyBytes_AS_STRING(distances);
    int64_t done = 0;
    memcpy(offset, &done, 8);
    for (size_t q = 0; q < n_queries; q++) {
        for (size_t i = 0; i < hits[q].n; i++, row += 8) {
            int64_t number = hits[q].codes[i];
            memcpy(row, &number, 8);
        }
        if (hits[q].n)
            memcpy(distance, hits[q].distances, hits[q].n * 2);
        distance += hits[q].n * 2;
        done += (int64_t)hits[q].n;
        memcpy(offset + 8 * (q + 1), &done, 8);
    }
    return Py_BuildValue("(NNN)", offsets, rows, distances);
}

PyObject *scan_rows(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    Py_buffer codes, queries;
    if (count != 4)
        return PyErr_Format(PyExc_TypeError, "scan_rows takes codes, queries, width and radius");
    const long width = PyLong_AsLong(arguments[2]), radius = PyLong_AsLong(arguments[3]);
    if (PyErr_Occurred())
        return NULL;
    if (width < 1 || width > MAX_BITS / 8 || radius < 0)
        return PyErr_Format(PyExc_ValueError, "a code of %ld bytes, radius %ld", width, radius);
    if (PyObject_GetBuffer(arguments[0], &codes, PyBUF_SIMPLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(arguments[1], &queries, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&codes);
        return NULL;
    }
    PyObject *result = NULL;
    const size_t n = (size_t)codes.len / (size_t)width;
    const size_t n_queries = (size_t)queries.len / (size_t)width;
    struct hits *hits = calloc(n_queries + 1, sizeof *hits);
    int status = SEARCH_NO_MEMORY;
    if (codes.len % width || queries.len % width || n > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "the arrays do not hold codes of %ld bytes", width);
        goto done;
    }
    if (hits) {
        Py_BEGIN_ALLOW_THREADS
        status = scan_shard(codes.buf, n, (size_t)width, queries.buf, n_queries,
                            radius > MAX_BITS ? MAX_BITS : (uint32_t)radius, hits);
        Py_END_ALLOW_THREADS
    }
    result = status == SEARCH_OK ? pack_rows(hits, n_queries) : PyErr_NoMemory();
done:
    if (hits)
        for (size_t q = 0; q < n_queries; q++)
            hits_free(&hits[q]);
    free(hits);
    PyBuffer_Release(&codes);
    PyBuffer_Release(&queries);
    return result;
}
