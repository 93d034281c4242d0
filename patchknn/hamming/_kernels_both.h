/* Both stages of a search as its files share them: of one query, and of many. */
#ifndef PATCHKNN_KERNELS_BOTH_H
#define PATCHKNN_KERNELS_BOTH_H

#include "_kernels_ranges.h"
#include "_kernels_table.h"

/* What is asked of each query, and what is kept from one to the next. */
struct both {
    const struct code_table *codes;
    struct feature_table *table;
    uint32_t radius;
    uint64_t k, least, most;     /* balls of fewer or more rows are not ranked */
    int sketch, paid;            /* as rows_nearest() has it; once it did not pay it rests */
    struct hits hits;
};

/* 0, or -1 with an exception. Numbers are signed: Python's formats for others wrap what does not
   fit. */
int both_start(struct both *both, PyObject *codes, PyObject *table, long long radius, long long k,
               long long least, long long most);
void both_finish(struct both *both);

/* The ball of a code, as ranges without the rows `skip`, and what it took in `hits`; `ranked`:
   whether it is neither too small nor too large. Without the GIL, as what follows. */
int both_look(struct both *both, const uint64_t *code, const int64_t *skip, size_t n_skip,
              struct ranges *ranges, int *ranked);
/* Its nearest rows, by segment row in place of positions. */
int both_rank(struct both *both, const struct row_query *query, const struct ranges *ranges,
              struct matches *matches);

#endif
