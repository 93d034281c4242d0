/* What the searches of queries to come begin with, on its way from memory before they do. */
#include "_kernels_walk.h"

#define LINES_FIRST 16 /* of the buckets that a query falls into, which tend to be the largest */

void index_touch(const struct code_table *table, const uint64_t *query) {
    for (size_t p = 0; p < table->n_parts; p++)
        __builtin_prefetch(table->parts[p].bounds + bucket_of(table, p, query));
}

void index_fetch(const struct code_table *table, const uint64_t *query, uint32_t parts) {
    uint32_t firsts[MAX_PARTS], lasts[MAX_PARTS], sizes[MAX_PARTS];
    for (size_t p = 0; p < table->n_parts; p++) {
        const uint32_t *bounds = table->parts[p].bounds + bucket_of(table, p, query);
        firsts[p] = bounds[0], lasts[p] = bounds[1];
        sizes[p] = lasts[p] - firsts[p];
    }
    for (size_t p = 0; p < table->n_parts; p++) {
        uint32_t smaller = 0;
        for (size_t q = 0; q < table->n_parts; q++)
            smaller += sizes[q] < sizes[p] || (sizes[q] == sizes[p] && q < p);
        if (smaller >= parts || firsts[p] >= lasts[p] || lasts[p] > table->n_codes)
            continue;
        prefetch_entries(table, p, firsts[p], lasts[p], LINES_FIRST);
        prefetch_order(table, p, firsts[p], lasts[p]);
    }
}
