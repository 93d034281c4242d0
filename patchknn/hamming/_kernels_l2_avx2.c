/* L2 of rows of features with AVX2, FMA and F16C. */
#include "_kernels_rows.h"

#ifdef PATCHKNN_X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>
#include <math.h>
#include <string.h>

#define PANEL_ROWS 3 /* whose products with a panel fit the registers */
#define TOGETHER 4 /* rows at a time where they are few: enough additions in flight */

static inline __m256 load_full(const void *row, size_t first, int half) {
    if (half)
        return _mm256_cvtph_ps(
            _mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)row + first)));
    return _mm256_loadu_ps((const float *)row + first);
}

/* The row's last values (fewer than 8), zeros after them. */
static inline __m256 load_rest(const void *row, size_t first, size_t count, int half) {
    if (half) {
        uint16_t values[8] = {0};
        memcpy(values, (const uint16_t *)row + first, 2 * count);
        return load_full(values, 0, 1);
    }
    float values[8] = {0};
    memcpy(values, (const float *)row + first, 4 * count);
    return load_full(values, 0, 0);
}

static inline float sum_lanes(__m256 sums) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* One row at a time: several streams at once were a third slower. Four sums hide the latency. */
static inline __attribute__((always_inline)) void
squares(const void *const *rows, size_t n, const float *query, size_t dim, int half, float *out) {
    const size_t full = dim & ~(size_t)31, bytes = half ? 2 : 4;
    for (size_t i = 0; i < n; i++) {
        __m256 sums[4], difference;
        const void *ahead = piece_ahead(rows, i, ROWS_AHEAD, dim * bytes);
        size_t first = 0;
        for (int part = 0; part < 4; part++)
            sums[part] = _mm256_setzero_ps();
        for (; first < full; first += 32)
            for (int part = 0; part < 4; part++) {
                size_t place = first + 8 * (size_t)part;
                if (ahead && place % (64 / bytes) == 0)
                    prefetch(ahead, place * bytes);
                difference = _mm256_sub_ps(load_full(rows[i], place, half),
                                           _mm256_loadu_ps(query + place));
                sums[part] = _mm256_fmadd_ps(difference, difference, sums[part]);
            }
        for (; first < dim; first += 8) {
            size_t left = dim - first;
            __m256 values = left < 8 ? load_rest(rows[i], first, left, half)
                                     : load_full(rows[i], first, half);
            if (ahead)
                prefetch(ahead, first * bytes);
            difference = _mm256_sub_ps(values, _mm256_loadu_ps(query + first));
            sums[0] = _mm256_fmadd_ps(difference, difference, sums[0]);
        }
        out[i] = sum_lanes(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]),
                                         _mm256_add_ps(sums[2], sums[3])));
    }
}

static inline __m256 sketch_sums(const void *row, const __m256 target[4]) {
    __m256 sums[4];
    for (int part = 0; part < 4; part++) {
        sums[part] = _mm256_sub_ps(load_full(row, 8 * (size_t)part, 1), target[part]);
        sums[part] = _mm256_mul_ps(sums[part], sums[part]);
    }
    return _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
}

static void squares_sketch(const void *const *rows, size_t n, const float *query, float *out) {
    const __m256 target[4] = {_mm256_loadu_ps(query), _mm256_loadu_ps(query + 8),
                              _mm256_loadu_ps(query + 16), _mm256_loadu_ps(query + 24)};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 s[8];
        for (size_t row = 0; row < 8; row++) {
            prefetch_piece(rows, i + row, SKETCHES_AHEAD, 2 * SKETCH_WIDTH);
            s[row] = sketch_sums(rows[i + row], target);
        }
        __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(s[0], s[1]), _mm256_hadd_ps(s[2], s[3]));
        __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(s[4], s[5]), _mm256_hadd_ps(s[6], s[7]));
        /* Each half of `low` holds half of the sums of rows 0 to 3, of `high` of rows 4 to 7. */
        __m256 sums = _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                                    _mm256_permute2f128_ps(low, high, 0x31));
        /* max() takes its second operand where the first is a NaN. */
        _mm256_storeu_ps(out + i, _mm256_max_ps(sums, _mm256_setzero_ps()));
    }
    for (; i < n; i++) {
        float sum = sum_lanes(sketch_sums(rows[i], target));
        out[i] = sum > 0 ? sum : 0;
    }
}

static inline __attribute__((always_inline)) void
distances_of(const void *const *rows, int count, const double *query, size_t dim, int half,
             double *out) {
    /* Multiplied, then added: a fused step would round otherwise than NumPy does. */
    __m256d low[TOGETHER], high[TOGETHER]; /* lanes 0 to 3, and 4 to 7 */
    for (int r = 0; r < count; r++)
        low[r] = high[r] = _mm256_setzero_pd();
    for (size_t first = 0; first < dim; first += 8) {
        size_t left = dim - first;
        __m256d q = _mm256_loadu_pd(query + first), p = _mm256_loadu_pd(query + first + 4);
        for (int r = 0; r < count; r++) {
            __m256 values = left < 8 ? load_rest(rows[r], first, left, half)
                                     : load_full(rows[r], first, half);
            __m256d a = _mm256_sub_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(values)), q);
            __m256d b = _mm256_sub_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(values, 1)), p);
            low[r] = _mm256_add_pd(low[r], _mm256_mul_pd(a, a));
            high[r] = _mm256_add_pd(high[r], _mm256_mul_pd(b, b));
        }
    }
    for (int r = 0; r < count; r++) {
        double s[4];
        _mm256_storeu_pd(s, _mm256_add_pd(low[r], high[r]));
        out[r] = sqrt((s[0] + s[2]) + (s[1] + s[3]));
    }
}

static inline __attribute__((always_inline)) void
centre(const void *const *rows, size_t n, const float *mean, size_t dim, int half, float *centred,
       size_t stride, float *norms) {
    const size_t bytes = half ? 2 : 4;
    for (size_t i = 0; i < n; i++) {
        __m256 sum = _mm256_setzero_ps();
        const void *ahead = piece_ahead(rows, i, ROWS_AHEAD, dim * bytes);
        float *out = centred + i * stride;
        for (size_t first = 0; first < dim; first += 8) {
            size_t left = dim - first;
            __m256 values = left < 8 ? load_rest(rows[i], first, left, half)
                                     : load_full(rows[i], first, half);
            values = _mm256_sub_ps(values, _mm256_loadu_ps(mean + first));
            if (ahead)
                prefetch(ahead, first * bytes);
            sum = _mm256_fmadd_ps(values, values, sum);
            if (left < 8) {
                float rest[8];
                _mm256_storeu_ps(rest, values);
                memcpy(out + first, rest, left * sizeof(float));
            } else {
                _mm256_storeu_ps(out + first, values);
            }
        }
        norms[i] = sum_lanes(sum);
    }
}

/* Sums of a few rows (a constant, so that they stay in registers) with all queries of a panel. */
static inline __attribute__((always_inline)) size_t
match_rows(const float *rows, size_t stride, int count, size_t number, const float *panel,
           size_t dim, const float *norms, const float *bounds, struct panel_match *found) {
    __m256 sums[PANEL_ROWS][4];
    for (int r = 0; r < count; r++)
        for (int part = 0; part < 4; part++)
            sums[r][part] = _mm256_setzero_ps();
    for (size_t i = 0; i < dim; i++, panel += PANEL_WIDTH)
        for (int r = 0; r < count; r++) {
            __m256 value = _mm256_set1_ps(rows[(size_t)r * stride + i]);
            for (int part = 0; part < 4; part++)
                sums[r][part] = _mm256_fmadd_ps(value, _mm256_loadu_ps(panel + 8 * part),
                                                sums[r][part]);
        }
    size_t n = 0;
    for (int r = 0; r < count; r++)
        for (int part = 0; part < 4; part++) {
            __m256 values = _mm256_fmadd_ps(sums[r][part], _mm256_set1_ps(-2),
                                            _mm256_set1_ps(norms[number + (size_t)r]));
            unsigned within = (unsigned)_mm256_movemask_ps(
                _mm256_cmp_ps(values, _mm256_loadu_ps(bounds + 8 * part), _CMP_LE_OQ));
            if (!within)
                continue;
            float each[8];
            _mm256_storeu_ps(each, values);
            for (; within; within &= within - 1) {
                int lane = __builtin_ctz(within);
                struct panel_match match = {each[lane], (uint16_t)(number + (size_t)r),
                                            (uint16_t)(8 * part + lane)};
                found[n++] = match;
            }
        }
    return n;
}

static size_t select_within(const float *values, size_t n, float bound, uint32_t *found) {
    const __m256 most = _mm256_set1_ps(bound);
    size_t count = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        unsigned within = (unsigned)_mm256_movemask_ps(
            _mm256_cmp_ps(_mm256_loadu_ps(values + i), most, _CMP_LE_OQ));
        for (; within; within &= within - 1)
            found[count++] = (uint32_t)i + (uint32_t)__builtin_ctz(within);
    }
    for (; i < n; i++) {
        found[count] = (uint32_t)i;
        count += values[i] <= bound;
    }
    return count;
}

#define NAME "avx2"
#define PRIMITIVES row_primitives_avx2
#include "_kernels_l2_body.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
