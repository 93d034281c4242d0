/* Balls and nearest codes of one query and of batches: an index walk each, and for those queries
   where that would be dearer one scan together. */
#include "_kernels_batch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOUCH_AHEAD 8 /* queries */
#define FETCH_AHEAD 4
#define TOGETHER 64   /* queries that are scanned for together, bounding memory */

int codes_ball(const struct code_table *table, const uint64_t *query, uint32_t radius, int path,
               struct hits *hits) {
    hits->path = PATH_SCAN;
    hits->lookups = hits->candidates = hits->scanned = 0;
    if (radius > table->bits)
        radius = table->bits;
    const double budget = path == PATH_AUTO ? scan_cost(table, 1) : INFINITY;
    if (path != PATH_SCAN && !walks_are_dear(table, radius, budget)) {
        int status = index_ball(table, query, radius, path, budget, hits);
        if (status != SEARCH_DEAR)
            return status;
        hits->path = PATH_SCAN;
    }
    return scan_codes(table, &query, &hits, NULL, 1, radius, 0, table->n_codes);
}

int batch_make(struct batch *batch, const struct code_table *table, const uint64_t *queries,
               size_t n) {
    memset(batch, 0, sizeof *batch);
    batch->table = table;
    batch->queries = queries;
    batch->n = n;
    batch->answers = calloc(n + 1, sizeof *batch->answers);
    return batch->answers && !hits_reserve(&batch->walked, 1024) ? SEARCH_OK : SEARCH_NO_MEMORY;
}

void batch_free(struct batch *batch) {
    for (size_t i = 0; batch->scanned && i < batch->n_scanned; i++)
        hits_free(&batch->scanned[i]);
    hits_free(&batch->walked);
    free(batch->scanned);
    free(batch->tallies);
    free(batch->answers);
}

static const uint64_t *query_of(const struct batch *batch, size_t i) {
    return batch->queries + i * batch->table->width;
}

static void look_ahead(const struct batch *batch, size_t i, uint32_t parts) {
    if (i + TOUCH_AHEAD < batch->n)
        index_touch(batch->table, query_of(batch, i + TOUCH_AHEAD));
    if (i + FETCH_AHEAD < batch->n)
        index_fetch(batch->table, query_of(batch, i + FETCH_AHEAD), parts);
}

static void begin(struct batch *batch) {
    struct hits *walked = &batch->walked;
    walked->path = walked->lookups = walked->candidates = walked->scanned = 0;
}

static void note_work(struct answer *answer, const struct hits *hits) {
    answer->work.path = hits->path;
    answer->work.lookups += hits->lookups;
    answer->work.candidates += hits->candidates;
    answer->work.scanned += hits->scanned;
}

/* Note what the walk of one query gave. */
static int end(struct batch *batch, size_t i, size_t first, int status) {
    struct answer *answer = &batch->answers[i];
    note_work(answer, &batch->walked);
    answer->first = first;
    answer->n = batch->walked.n - first;
    if (status != SEARCH_DEAR)
        return status;
    answer->work.path = PATH_AUTO;
    batch->n_scanned++;
    return SEARCH_OK;
}

/* Scan for the queries that have no answer yet; `limits` (by query) for the nearest. */
static int scan_rest(struct batch *batch, uint32_t radius, size_t first, size_t last, uint64_t k,
                     const uint32_t *limits) {
    const uint64_t *queries[TOGETHER];
    struct hits *hits[TOGETHER];
    struct tally *tallies[TOGETHER];
    struct answer *answers[TOGETHER];
    size_t n = 0, place = 0;
    if (!batch->n_scanned)
        return SEARCH_OK;
    batch->scanned = calloc(batch->n_scanned, sizeof *batch->scanned);
    if (limits)
        batch->tallies = malloc(TOGETHER * sizeof *batch->tallies);
    if (!batch->scanned || (limits && !batch->tallies))
        return SEARCH_NO_MEMORY;
    for (size_t i = 0; i < batch->n; i++) {
        struct answer *answer = &batch->answers[i];
        if (answer->work.path == PATH_AUTO) {
            answers[n] = answer;
            queries[n] = query_of(batch, i);
            hits[n] = answer->own = &batch->scanned[place++];
            if (limits) {
                tallies[n] = &batch->tallies[n];
                tally_start(tallies[n], k, limits[i]);
            }
            n++;
        }
        if (n < TOGETHER && (i + 1 < batch->n || n == 0))
            continue;
        int status = scan_codes(batch->table, queries, hits, limits ? tallies : NULL, n, radius,
                                first, last);
        if (status != SEARCH_OK)
            return status;
        for (size_t j = 0; j < n; j++) {
            hits[j]->path = PATH_SCAN;
            note_work(answers[j], hits[j]);
            answers[j]->n = hits[j]->n;
            if (limits)
                answers[j]->radius = tallies[j]->within >= k ? (int32_t)tallies[j]->limit : -1;
        }
        n = 0;
    }
    return SEARCH_OK;
}

int batch_scan(struct batch *batch, uint32_t radius, size_t first, size_t last) {
    for (size_t i = 0; i < batch->n; i++)
        batch->answers[i].work.path = PATH_AUTO;
    batch->n_scanned = batch->n;
    return scan_rest(batch, radius, first, last, 0, NULL);
}

int batch_ball(struct batch *batch, uint32_t radius, int path, int defer) {
    const struct code_table *table = batch->table;
    const double budget = path == PATH_AUTO ? scan_cost(table, batch->n) : INFINITY;
    if (path == PATH_SCAN || walks_are_dear(table, radius, budget))
        for (size_t i = 0; i < batch->n; i++)
            end(batch, i, 0, SEARCH_DEAR);
    else
        for (size_t i = 0; i < batch->n; i++) {
            const size_t first = batch->walked.n;
            look_ahead(batch, i, radius + 1);
            begin(batch);
            int status = index_ball(table, query_of(batch, i), radius, path, budget,
                                    &batch->walked);
            status = end(batch, i, first, status);
            if (status != SEARCH_OK)
                return status;
        }
    return defer ? SEARCH_OK : scan_rest(batch, radius, 0, table->n_codes, 0, NULL);
}

int batch_nearest(struct batch *batch, uint64_t k, uint32_t max_radius) {
    const struct code_table *table = batch->table;
    const double budget = scan_cost(table, batch->n);
    struct tally *tally = malloc(sizeof *tally);
    uint32_t *limits = malloc((batch->n + 1) * sizeof *limits);
    /* At least one step in each part is needed to learn anything. */
    const int scan = walks_are_dear(table, table->n_parts - 1, budget / TRIAL);
    uint32_t guess = 3;
    int status = tally && limits ? SEARCH_OK : SEARCH_NO_MEMORY;
    for (size_t i = 0; status == SEARCH_OK && i < batch->n; i++) {
        const size_t first = batch->walked.n;
        limits[i] = max_radius;
        begin(batch);
        if (scan) {
            status = end(batch, i, first, SEARCH_DEAR);
            continue;
        }
        look_ahead(batch, i, table->n_parts);
        tally_start(tally, k, max_radius);
        status = index_nearest(table, query_of(batch, i), guess, budget, tally, &batch->walked);
        if (status == SEARCH_OK && tally->within >= k)
            guess = tally->limit + 1;
        limits[i] = tally->limit;
        batch->answers[i].radius = tally->within >= k ? (int32_t)tally->limit : -1;
        status = end(batch, i, first, status);
    }
    if (status == SEARCH_OK)
        status = scan_rest(batch, 0, 0, table->n_codes, k, limits);
    free(limits);
    free(tally);
    return status;
}
