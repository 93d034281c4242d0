/* Ranges of positions: what the codes within a radius stand for. */
#ifndef PATCHKNN_KERNELS_RANGES_H
#define PATCHKNN_KERNELS_RANGES_H

#include "_kernels_codes.h"
#include "_kernels_rows.h"

/* Grows as needed; all zeros at first. */
struct ranges {
    int64_t *starts, *stops;     /* (n), ascending and apart from each other */
    size_t n, room;
    uint64_t rows;
};

/* The hits' positions, in order: rows that lie together are read together. Sorts the hits; leaves out
   the segment rows `skip` (ascending). ROWS_OK, ROWS_NO_MEMORY or ROWS_DAMAGED. */
int ranges_of(const struct code_table *codes, const struct feature_table *table,
              struct hits *hits, const int64_t *skip, size_t n_skip, struct ranges *ranges);
void ranges_free(struct ranges *ranges);

#endif
