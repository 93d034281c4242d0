/* L2 of rows of features, for any machine. */
#include "_kernels_rows.h"

#include <math.h>
#include <string.h>

#define LANES 16
#define CHUNK 256 /* values converted at a time */

/* half_to_single() of many, in steps that compilers turn into vector instructions. */
static void widen(const uint16_t *halves, float *values, size_t count) {
    union {
        float value[CHUNK];
        uint32_t bits[CHUNK];
    } small, wide;
    for (size_t i = 0; i < count; i++)
        small.value[i] = (float)(int32_t)(halves[i] & 0x7fffu) * 0x1p-24f;
    for (size_t i = 0; i < count; i++) {
        uint32_t magnitude = halves[i] & 0x7fffu, sign = (uint32_t)(halves[i] & 0x8000u) << 16;
        uint32_t bits = (magnitude << 13) + (magnitude < 0x7c00u ? 112u << 23 : 224u << 23);
        wide.bits[i] = (magnitude < 0x400u ? small.bits[i] : bits) | sign;
    }
    memcpy(values, wide.value, count * sizeof *values);
}

/* `count` <= CHUNK values of `row` from `first` on, then zeros up to a multiple of LANES; returns
   that multiple. */
static size_t load(const void *row, size_t first, size_t count, int half, float *values) {
    size_t padded = (count + LANES - 1) / LANES * LANES;
    if (half) {
        uint16_t halves[CHUNK];
        memset(halves + padded - LANES, 0, LANES * sizeof *halves);
        memcpy(halves, (const char *)row + 2 * first, 2 * count);
        widen(halves, values, padded);
    } else {
        memset(values + padded - LANES, 0, LANES * sizeof *values);
        memcpy(values, (const char *)row + 4 * first, 4 * count);
    }
    return padded;
}

static inline size_t at_most(size_t count, size_t most) { return count < most ? count : most; }

static inline float sum_lanes(const float *lanes) {
    float sum = 0;
    for (size_t lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum;
}

static inline void squares(const void *const *rows, size_t n, const float *query, size_t dim,
                           int half, float *out) {
    for (size_t i = 0; i < n; i++) {
        float sums[LANES] = {0}, values[CHUNK];
        __builtin_prefetch(rows[i + 1]);
        for (size_t first = 0; first < dim; first += CHUNK) {
            size_t count = load(rows[i], first, at_most(dim - first, CHUNK), half, values);
            for (size_t j = 0; j < count; j += LANES)
                for (size_t lane = 0; lane < LANES; lane++) {
                    float difference = values[j + lane] - query[first + j + lane];
                    sums[lane] += difference * difference;
                }
        }
        out[i] = sum_lanes(sums);
    }
}

static void squares_sketch(const void *const *rows, size_t n, const float *query, float *out) {
    squares(rows, n, query, SKETCH_WIDTH, 1, out);
    for (size_t i = 0; i < n; i++)
        out[i] = out[i] > 0 ? out[i] : 0;
}

/* Lanes of 8 in the order of the definition; 16 values are two steps of it. */
static inline void distances(const void *const *rows, size_t n, const double *query, size_t dim,
                             int half, double *out) {
    for (size_t i = 0; i < n; i++) {
        double s[8] = {0};
        float values[CHUNK];
        for (size_t first = 0; first < dim; first += CHUNK) {
            size_t count = load(rows[i], first, at_most(dim - first, CHUNK), half, values);
            for (size_t step = 0; step < count; step += 8)
                for (size_t lane = 0; lane < 8; lane++) {
                    double difference = (double)values[step + lane] - query[first + step + lane];
                    s[lane] += difference * difference;
                }
        }
        out[i] = sqrt(((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])));
    }
}

static inline void centre(const void *const *rows, size_t n, const float *mean, size_t dim,
                          int half, float *centred, size_t stride, float *norms) {
    for (size_t i = 0; i < n; i++) {
        float sums[LANES] = {0}, values[CHUNK];
        for (size_t first = 0; first < dim; first += CHUNK) {
            size_t own = at_most(dim - first, CHUNK);
            size_t count = load(rows[i], first, own, half, values);
            for (size_t j = 0; j < count; j += LANES)
                for (size_t lane = 0; lane < LANES; lane++) {
                    values[j + lane] -= mean[first + j + lane];
                    sums[lane] += values[j + lane] * values[j + lane];
                }
            memcpy(centred + i * stride + first, values, own * sizeof(float));
        }
        norms[i] = sum_lanes(sums);
    }
}

static size_t match_panel(const float *rows, size_t stride, size_t n, const float *panel,
                          size_t dim, const float *norms, const float *bounds,
                          struct panel_match *found) {
    size_t count = 0;
    for (size_t first = 0; first < n; first++) {
        float sums[PANEL_WIDTH] = {0};
        const float *values = rows + first * stride;
        for (size_t i = 0; i < dim; i++)
            for (size_t query = 0; query < PANEL_WIDTH; query++)
                sums[query] += values[i] * panel[i * PANEL_WIDTH + query];
        for (size_t query = 0; query < PANEL_WIDTH; query++) {
            float value = norms[first] - 2 * sums[query];
            struct panel_match match = {value, (uint16_t)first, (uint16_t)query};
            if (value <= bounds[query])
                found[count++] = match;
        }
    }
    return count;
}

static size_t select_within(const float *values, size_t n, float bound, uint32_t *found) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        found[count] = (uint32_t)i;
        count += values[i] <= bound;
    }
    return count;
}

#define NAME "portable"
#define PRIMITIVES row_primitives_portable
#include "_kernels_l2_body.h"
