/* A batch of queries and what it has found. */
#ifndef PATCHKNN_KERNELS_LISTS_H
#define PATCHKNN_KERNELS_LISTS_H

#include "_kernels_rows.h"

#define RAISED (1 + 0x1p-20)

struct near { /* a row whose squared distance lies between the two */
    float upper, lower;
    uint32_t position;
};

/* What one slot has found for one query. */
struct list {
    struct matches done; /* with float64 distances, in order */
    struct near *items;
    size_t n, room, full; /* full: when to look what can be left */
    float limit;          /* squared distance that no row of the answer exceeds */
    uint64_t read, rows;  /* of how many rows the features were read */
};

struct asked {
    struct row_query query;
    size_t k;
    float sketch[SKETCH_WIDTH]; /* once prepared */
    double slack;               /* of its distances from sketches of rows */
};

/* Each gives ROWS_OK or ROWS_NO_MEMORY; those that read rows ROWS_DAMAGED too.

   Add a candidate for a query that wants k rows. */
int list_push(struct list *list, size_t k, struct near near);
/* Add further float64 matches, which are then gone, and keep what is within the k-th smallest. */
int list_merge(struct list *list, size_t k, struct matches *more);
/* Add what one query finds alone in ranges of positions, as rows_nearest() finds it. */
int list_search(struct list *list, const struct feature_table *table, const struct asked *asked,
                const int64_t *starts, const int64_t *stops, size_t n, int *sketch);
/* The float64 distances of a list's candidates go to the matches of another, or the same. */
int list_settle(struct list *list, const struct feature_table *table, const struct asked *asked,
                struct list *into);

#endif
