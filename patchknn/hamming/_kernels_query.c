/* A query of features as the kernels take it: in float64, in float32, and as a sketch. */
#include "_kernels_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LANES 8 /* of sums that do not wait for each other */

/* Room for a query, padded with zeros. */
static int make_room(struct row_query *query, size_t dim) {
    const size_t padded = (dim + 15) & ~(size_t)15;
    query->exact = malloc(padded * (sizeof(double) + sizeof(float)));
    if (!query->exact)
        return ROWS_NO_MEMORY;
    query->single = (float *)(void *)(query->exact + padded);
    memset(query->exact + dim, 0, (padded - dim) * sizeof(double));
    memset(query->single + dim, 0, (padded - dim) * sizeof(float));
    return ROWS_OK;
}

/* In float64, and how far float32 is from it; whether all are finite. */
static int fill_double(struct row_query *query, const double *values, size_t dim) {
    double lost[LANES] = {0}, nothing[LANES] = {0};
    memcpy(query->exact, values, dim * sizeof *values);
    for (size_t i = 0; i < ((dim + 15) & ~(size_t)15); i += LANES)
        for (size_t lane = 0; lane < LANES; lane++) {
            const double value = query->exact[i + lane];
            const float single = (float)value;
            const double error = value - (double)single;
            query->single[i + lane] = single;
            lost[lane] += error * error;
            nothing[lane] += value * 0; /* a NaN where the value is one or infinite */
        }
    for (size_t lane = 1; lane < LANES; lane++)
        lost[0] += lost[lane], nothing[0] += nothing[lane];
    query->conversion = sqrt(lost[0]) * (1 + 0x1p-20);
    return !isnan(nothing[0]);
}

static int fill_single(struct row_query *query, const float *values, size_t dim) {
    double nothing[LANES] = {0};
    memcpy(query->single, values, dim * sizeof *values);
    for (size_t i = 0; i < ((dim + 15) & ~(size_t)15); i += LANES)
        for (size_t lane = 0; lane < LANES; lane++) {
            query->exact[i + lane] = (double)query->single[i + lane];
            nothing[lane] += query->exact[i + lane] * 0;
        }
    for (size_t lane = 1; lane < LANES; lane++)
        nothing[0] += nothing[lane];
    return !isnan(nothing[0]);
}

static int fill_half(struct row_query *query, const void *values, size_t dim) {
    const void *rows[1 + ROWS_AHEAD] = {values};
    float *nothing = (float *)(void *)query->exact, norm;
    memset(nothing, 0, ((dim + 15) & ~(size_t)15) * sizeof *nothing);
    row_primitives->centre_half(rows, 1, nothing, dim, query->single, dim, &norm);
    for (size_t i = 0; i < dim; i++)
        query->exact[i] = (double)query->single[i];
    return isfinite(norm); /* the squares of MAX_DIM finite values do not overflow */
}

int query_make(struct row_query *query, const void *values, size_t bytes, size_t dim) {
    if (make_room(query, dim) != ROWS_OK)
        return ROWS_NO_MEMORY;
    query->conversion = 0;
    const int finite = bytes == dim * sizeof(double)  ? fill_double(query, values, dim)
                       : bytes == dim * sizeof(float) ? fill_single(query, values, dim)
                                                      : fill_half(query, values, dim);
    if (finite)
        return ROWS_OK;
    query_free(query);
    return ROWS_NOT_FINITE;
}

void query_free(struct row_query *query) {
    free(query->exact);
    query->exact = NULL;
}

int query_sketch(const struct feature_table *table, const struct row_query *query, float *values,
                 double *error) {
    const struct sketch *sketch = &table->sketch;
    double projected[SKETCH_WIDTH - 1], norm = 0, rest;
    double *centred = malloc(table->dim * sizeof *centred);
    if (!centred)
        return ROWS_NO_MEMORY;
    for (size_t i = 0; i < table->dim; i++) {
        centred[i] = query->exact[i] - sketch->mean[i];
        norm += centred[i] * centred[i];
    }
    row_primitives->project(sketch->matrix, SKETCH_WIDTH - 1, centred, table->dim, projected);
    free(centred);
    rest = norm;
    for (size_t i = 0; i + 1 < SKETCH_WIDTH; i++) {
        rest -= projected[i] * projected[i];
        values[i] = (float)(projected[i] / sketch->scale);
    }
    values[SKETCH_WIDTH - 1] = (float)(sqrt(rest > 0 ? rest : 0) / sketch->scale);
    /* With v = 2^-53 and c the centred query: centring errs by v |c|, each projection by
       (dim + 2) v |c| (the matrix' rows are no longer than 1), `rest` by 2 (dim + 40) v |c|^2 plus
       what 31 projections' errors make of it, 2 |c| sqrt(31) (dim + 2) v |c|, and its root by the
       root of that; rounding to float32 by 2^-23 |c| in all. 2^-126 is for underflow. */
    double v = 0x1p-53 * ((double)table->dim + 40);
    *error = (sqrt(norm) * (8 * v + sqrt(16 * v) + 0x1p-22) + 0x1p-120 * (1 + sketch->scale)) *
             (1 + 0x1p-20);
    return ROWS_OK;
}
