/* Batches of queries against a code table: what was found for each, in the order of the queries. */
#ifndef PATCHKNN_KERNELS_BATCH_H
#define PATCHKNN_KERNELS_BATCH_H

#include "_kernels_codes.h"

struct work {
    int64_t path, lookups, candidates, scanned;
};

struct answer {
    size_t first, n;             /* hits [first, first + n) of `walked`, or all of `own` */
    struct hits *own;            /* where the query was scanned */
    struct work work;
    int32_t radius;              /* of a search for the nearest; -1 where there are too few */
};

struct batch {
    const struct code_table *table;
    const uint64_t *queries;     /* (n, W) */
    size_t n, n_scanned;
    struct hits walked;          /* what index walks found, one query after the other */
    struct hits *scanned;        /* (n_scanned) */
    struct tally *tallies;       /* (n_scanned), in a search for the nearest */
    struct answer *answers;      /* (n) */
};

int batch_make(struct batch *batch, const struct code_table *table, const uint64_t *queries,
               size_t n);
void batch_free(struct batch *batch);
/* `defer`: leave the queries that are to be scanned unanswered, with path -1. */
int batch_ball(struct batch *batch, uint32_t radius, int path, int defer);
int batch_nearest(struct batch *batch, uint64_t k, uint32_t max_radius);
/* Codes [first, last) alone, by a plain scan. */
int batch_scan(struct batch *batch, uint32_t radius, size_t first, size_t last);

#endif
