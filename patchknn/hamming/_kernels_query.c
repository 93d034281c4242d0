/* A query of features as the kernels take it: in float64, in float32, and as a sketch. */
#include "_kernels_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LANES 8 /* of sums that do not wait for each other */

int query_make(struct row_query *query, const double *values, size_t dim) {
    size_t padded = (dim + 15) & ~(size_t)15;
    double lost[LANES] = {0}, nothing[LANES] = {0};
    query->exact = calloc(padded, sizeof(double) + sizeof(float));
    if (!query->exact)
        return ROWS_NO_MEMORY;
    query->single = (float *)(void *)(query->exact + padded);
    memcpy(query->exact, values, dim * sizeof *values);
    for (size_t i = 0; i < padded; i += LANES)
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
    if (isnan(nothing[0])) {
        query_free(query);
        return ROWS_NOT_FINITE;
    }
    query->conversion = sqrt(lost[0]) * (1 + 0x1p-20);
    return ROWS_OK;
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
