/* Which positions the codes found for a query stand for: ranges, in order, without those left out. */
#include "_kernels_ranges.h"

#include <stdlib.h>

#define FEW 128 /* codes */

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

/* Few codes, which come in ascending runs, are sorted sooner without calls. */
static void sort_codes(uint32_t *codes, size_t n) {
    if (n > FEW) {
        qsort(codes, n, sizeof *codes, compare);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        const uint32_t code = codes[i];
        size_t place = i;
        for (; place && codes[place - 1] > code; place--)
            codes[place] = codes[place - 1];
        codes[place] = code;
    }
}

int ranges_of(const struct code_table *codes, const struct feature_table *table,
              struct hits *hits, const int64_t *skip, size_t n_skip, struct ranges *ranges) {
    int64_t done = 0;
    ranges->n = 0;
    ranges->rows = 0;
    for (size_t i = 0; i < hits->n; i++)
        if (hits->codes[i] < codes->n_codes)
            __builtin_prefetch(codes->bounds + hits->codes[i]);
    for (size_t i = 1; i < hits->n; i++)
        if (hits->codes[i] < hits->codes[i - 1]) {
            sort_codes(hits->codes, hits->n);
            break;
        }
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

void ranges_free(struct ranges *ranges) {
    free(ranges->starts);
    free(ranges->stops);
}
