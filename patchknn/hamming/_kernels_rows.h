/* Rows of features as the C files see them: primitives, the table, and one query against it. */
#ifndef PATCHKNN_KERNELS_ROWS_H
#define PATCHKNN_KERNELS_ROWS_H

#include "_kernels.h"

#define SKETCH_WIDTH 32 /* values in the sketch of a row: 31 projections and the residual norm */
#define ROWS_AHEAD 16   /* rows that are prefetched before they are needed */
#define SKETCHES_AHEAD 64
#define PANEL_WIDTH 32  /* queries that are multiplied with rows together */
#define MAX_DIM 65536   /* the error bounds hold, with much room, up to here */

struct panel_match {
    float value;
    uint16_t row, query;
};

/* Row addresses come as lists, in which ROWS_AHEAD entries beyond the n that are asked for are
   readable and are prefetched: they need not be addresses of anything. Rows have any alignment.
   Queries are padded with zeros to a multiple of 16 values. "half" is float16, "single" float32. */
struct row_primitives {
    const char *name;
    /* float32 sums of the squared differences, in whatever order suits the machine. */
    void (*squares_half)(const void *const *rows, size_t n, const float *query, size_t dim,
                         float *squares);
    void (*squares_single)(const void *const *rows, size_t n, const float *query, size_t dim,
                           float *squares);
    /* The float64 distances that patchknn.hamming.exact defines, to the bit. */
    void (*distances_half)(const void *const *rows, size_t n, const double *query, size_t dim,
                           double *distances);
    void (*distances_single)(const void *const *rows, size_t n, const double *query, size_t dim,
                             double *distances);
    /* squares_half at dim = SKETCH_WIDTH, with SKETCHES_AHEAD entries more; 0 in place of a NaN. */
    void (*squares_sketch)(const void *const *rows, size_t n, const float *query, float *squares);
    /* Rows as float32 less `mean` (padded with zeros), `stride` >= dim values apart, and the float32
       sum of the squares of each. */
    void (*centre_half)(const void *const *rows, size_t n, const float *mean, size_t dim,
                        float *centred, size_t stride, float *norms);
    void (*centre_single)(const void *const *rows, size_t n, const float *mean, size_t dim,
                          float *centred, size_t stride, float *norms);
    /* The products p of n rows, as centre_*() leaves them, with the PANEL_WIDTH queries of a panel
       (dim, PANEL_WIDTH): those with norms[row] - 2 p <= bounds[query], and this value of them.
       Room for n * PANEL_WIDTH; returns how many. */
    size_t (*match_panel)(const float *rows, size_t stride, size_t n, const float *panel,
                          size_t dim, const float *norms, const float *bounds,
                          struct panel_match *found);
    /* Numbers i, ascending, of the n values that are <= bound; room for n + 16. Returns how many; a
       NaN is never found. */
    size_t (*select_within)(const float *values, size_t n, float bound, uint32_t *found);
    /* Products (n) of a matrix (n, dim) and a vector (dim), in float64. */
    void (*project)(const double *matrix, size_t n, const double *vector, size_t dim, double *out);
};

/* Rounding-error bounds of this file are in _kernels_bounds.c. */

struct sketch {
    const uint16_t *values;      /* (n_positions, SKETCH_WIDTH) float16, by position */
    const double *mean, *matrix; /* (dim), (SKETCH_WIDTH - 1, dim) */
    double scale, slack;
    uint32_t rest, penalty;      /* queries to go without, and how many after the next failure */
};

struct feature_table {
    size_t dim, row_bytes, n_shards;
    int half;                    /* 1: float16, 0: float32 */
    const char **bases;          /* (n_shards): the rows of each shard */
    uint64_t *first_rows;        /* (n_shards + 1): segment row where each shard begins */
    uint32_t *shard_from;        /* the shard of each 2^step-th segment row; shards_number() */
    unsigned step;
    uint64_t n_positions;
    const uint32_t *rows;        /* (n_positions): position -> segment row; NULL: identity */
    int has_sketch;
    struct sketch sketch;
    struct pages *pages;         /* _kernels_pages.c */
};

/* The sketch at a position: those of a run of positions, as a code's rows are, lie side by side. */
static inline const uint16_t *sketch_at(const struct feature_table *table, uint32_t position) {
    return table->sketch.values + (size_t)position * SKETCH_WIDTH;
}

/* A query as the kernels want it; _kernels_query.c makes it. */
struct row_query {
    float *single;               /* padded */
    double *exact;               /* padded */
    double conversion;           /* at least the distance between the two; may be infinite */
};

struct match {
    double distance;
    uint64_t position;
};

/* What one query found, nearest first, ties by position. */
struct matches {
    struct match *items;
    size_t n;
    uint64_t rows_read, rows_skipped;
};

enum { ROWS_OK = 0, ROWS_NO_MEMORY = 1, ROWS_DAMAGED = 2, ROWS_NOT_FINITE = 3 };

/* Places in the ranges, walked in order. */
struct cursor {
    const struct feature_table *table;
    const int64_t *starts, *stops;
    size_t n_ranges, range, shard;
    int64_t position;
};

/* The next (at most `room`) positions and the addresses of their rows, or of their sketches.
   Returns how many; of rows, -1 where the table's mapping holds a value out of range. */
ptrdiff_t next_rows(struct cursor *cursor, size_t room, uint32_t *positions, const void **rows);
size_t next_sketches(struct cursor *cursor, size_t room, uint32_t *positions,
                     const void **sketches);
/* Addresses of the rows at n positions (each below n_positions); 0, or -1 as above. */
int find_rows(const struct feature_table *table, const uint32_t *positions, size_t n,
              const void **rows);

/* Make it quick to find a row's shard, once all are known. ROWS_OK or ROWS_NO_MEMORY. */
int shards_number(struct feature_table *table);

/* What is known of the table's memory: once its arrays are known. ROWS_OK or ROWS_NO_MEMORY. */
int pages_make(struct feature_table *table);
void pages_free(struct feature_table *table);
/* Whether some of a few of the ranges' `n_rows` rows (and of their sketches) are said not to be in memory;
   and whether there are pages of which the system does not say. 0 where all is well. */
enum { COLD_TOLD = 1, COLD_UNTOLD = 2 };
int pages_cold(const struct feature_table *table, const int64_t *starts, const int64_t *stops,
               size_t n_ranges, uint64_t n_rows, int with_sketch);
/* Ask the system to read these addresses from disk, all together; n pieces of `bytes` each. `cold`
   as above; where the system does not say, what was asked for before is left out. */
void read_ahead(const struct feature_table *table, int cold, const void *const *pieces, size_t n,
                size_t bytes);

/* The same for the rows from a place on, as many as are asked for at once. */
void fetch_rows(const struct feature_table *table, int cold, struct cursor cursor);

/* Of `dim` values in so many bytes: float16, float32 or float64. ROWS_OK, ROWS_NO_MEMORY, or
   ROWS_NOT_FINITE. */
int query_make(struct row_query *query, const void *values, size_t bytes, size_t dim);
void query_free(struct row_query *query);
/* Its sketch (SKETCH_WIDTH), float32 and divided by the scale, and how far it may be from the true
   one. ROWS_OK or ROWS_NO_MEMORY. */
int query_sketch(const struct feature_table *table, const struct row_query *query, float *values,
                 double *error);

/* Whether so many rows are worth the making of their query's sketch. */
static inline int worth_sketches(uint64_t n_rows) { return n_rows >= 96; }

/* All rows within the ranges (0 <= start <= stop <= n_positions) that are at most as far as the
   k-th nearest. Runs without the GIL. `use_sketch` says whether the sketch may be used; where it was
   it becomes 1 if that paid, else 0. */
int rows_nearest(const struct feature_table *table, const struct row_query *query,
                 const int64_t *starts, const int64_t *stops, size_t n_ranges, uint64_t k,
                 int *use_sketch, struct matches *matches);

/* Exact matches of n positions, as rows_nearest() gives them; and of a list of matches in place. */
int rows_settle(const struct feature_table *table, const struct row_query *query,
                const uint32_t *positions, size_t n, size_t k, struct matches *matches);
void matches_settle(struct matches *matches, size_t k);

/* Bounds; see _kernels_bounds.c. */
struct bounds {
    double relative, absolute;   /* of a float32 sum of squares */
    double exact;                /* relative, of a float64 distance */
    double conversion;
};
struct bounds bounds_of(size_t dim, double conversion);
/* The largest float32 sum that a row in the answer can have when k rows have `kth` or less; the
   second is the largest true distance of such a row. */
float bounds_limit(const struct bounds *bounds, float kth, double *distance);
/* The largest float32 sum of a row at most `distance` away. */
float bounds_sum(const struct bounds *bounds, double distance);
/* Between what the square of the true distance lies where the float32 sum is `sum`. */
void bounds_squares(const struct bounds *bounds, float sum, float *lower, float *upper);
float bounds_sketch(double distance, double slack, double scale);

/* The k-th smallest (k from 1 to n) of n values >= 0 `stride` bytes apart; none is NaN. */
float kth_smallest(const float *values, size_t stride, size_t n, size_t k);

/* As an integer: `row` need not be the address of anything. */
static inline __attribute__((always_inline)) void prefetch(const void *row, size_t offset) {
    __builtin_prefetch((const void *)((uintptr_t)row + offset));
}

/* What to prefetch while piece i of `bytes` is read: the piece so many `places` on; NULL where the
   pieces lie side by side, which the processor sees by itself. To be told as well made it half as
   fast (Zen 4); scattered pieces, of which it sees nothing, take several times as long untold. */
static inline const void *piece_ahead(const void *const *pieces, size_t i, size_t places,
                                      size_t bytes) {
    const void *ahead = pieces[i + places];
    return (uintptr_t)ahead - (uintptr_t)pieces[i] == places * bytes ? NULL : ahead;
}

/* The same of pieces no longer than a line. */
static inline __attribute__((always_inline)) void
prefetch_piece(const void *const *pieces, size_t i, size_t places, size_t bytes) {
    const void *ahead = piece_ahead(pieces, i, places, bytes);
    if (ahead)
        prefetch(ahead, 0);
}

/* What project() does, for each file to compile for its machine. */
static inline void project_lanes(const double *matrix, size_t n, const double *vector, size_t dim,
                                 double *out) {
    for (size_t row = 0; row < n; row++, matrix += dim) {
        double sums[16] = {0}, sum = 0;
        size_t i = 0;
        for (; i + 16 <= dim; i += 16)
            for (size_t lane = 0; lane < 16; lane++)
                sums[lane] += matrix[i + lane] * vector[i + lane];
        for (; i < dim; i++)
            sums[0] += matrix[i] * vector[i];
        for (size_t lane = 0; lane < 16; lane++)
            sum += sums[lane];
        out[row] = sum;
    }
}

/* Without branches, for the compiler to do several at once; and without arithmetic on subnormals,
   which would hang on the processor's rounding state. */
static inline float half_to_single(uint16_t half) {
    uint32_t magnitude = half & 0x7fffu, bits, small_bits;
    float value, small = (float)(int32_t)magnitude * 0x1p-24f;
    __builtin_memcpy(&small_bits, &small, sizeof small);
    bits = (magnitude << 13) + (112u << 23) + (magnitude < 0x7c00u ? 0 : 112u << 23);
    bits = magnitude < 0x400u ? small_bits : bits;
    bits |= (uint32_t)(half & 0x8000u) << 16;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
