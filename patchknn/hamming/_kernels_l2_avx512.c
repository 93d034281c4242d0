/* L2 of rows of features with AVX-512. */
#include "_kernels_rows.h"

#ifdef PATCHKNN_X86
#ifdef __clang__
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"))),                   \
    apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
#endif
#include <immintrin.h>
#include <math.h>

#define PANEL_ROWS 12 /* whose products with a panel fit the registers */
#define TOGETHER 4 /* rows at a time where they are few: enough additions in flight */

static inline __mmask16 first_lanes(size_t count) { return (__mmask16)((1u << count) - 1); }

/* 16 values from `first` on as float32; `mask` marks those that the row has. */
static inline __m512 load(const void *row, size_t first, int half, __mmask16 mask) {
    if (half)
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)row + first));
    return _mm512_maskz_loadu_ps(mask, (const float *)row + first);
}

static inline __m512 load_full(const void *row, size_t first, int half) {
    if (half)
        return _mm512_cvtph_ps(
            _mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)row + first)));
    return _mm512_loadu_ps((const float *)row + first);
}

/* One row at a time: several streams at once were a third slower. Four sums hide the latency. */
static inline __attribute__((always_inline)) void
squares(const void *const *rows, size_t n, const float *query, size_t dim, int half, float *out) {
    const size_t full = dim & ~(size_t)63, bytes = half ? 2 : 4;
    for (size_t i = 0; i < n; i++) {
        __m512 sums[4], difference;
        const void *ahead = piece_ahead(rows, i, ROWS_AHEAD, dim * bytes);
        size_t first = 0;
        for (int part = 0; part < 4; part++)
            sums[part] = _mm512_setzero_ps();
        for (; first < full; first += 64)
            for (int part = 0; part < 4; part++) {
                size_t place = first + 16 * (size_t)part;
                if (ahead && place % (64 / bytes) == 0)
                    prefetch(ahead, place * bytes);
                difference = _mm512_sub_ps(load_full(rows[i], place, half),
                                           _mm512_loadu_ps(query + place));
                sums[part] = _mm512_fmadd_ps(difference, difference, sums[part]);
            }
        for (; first < dim; first += 16) {
            size_t left = dim - first;
            __mmask16 mask = left < 16 ? first_lanes(left) : (__mmask16)0xffff;
            if (ahead)
                prefetch(ahead, first * bytes);
            difference = _mm512_sub_ps(load(rows[i], first, half, mask),
                                       _mm512_loadu_ps(query + first));
            sums[0] = _mm512_fmadd_ps(difference, difference, sums[0]);
        }
        out[i] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]),
                                                    _mm512_add_ps(sums[2], sums[3])));
    }
}

static inline __m512 sketch_sums(const void *row, __m512 low, __m512 high) {
    __m512i raw = _mm512_loadu_si512(row);
    __m512 a = _mm512_sub_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(raw)), low);
    __m512 b = _mm512_sub_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(raw, 1)), high);
    return _mm512_fmadd_ps(a, a, _mm512_mul_ps(b, b));
}

/* Lanes of two vectors added in pairs: half as many partial sums of twice as many rows. */
static inline __m512 fold_quarters(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

static inline __m512 fold_pairs(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}

static void squares_sketch(const void *const *rows, size_t n, const float *query, float *out) {
    const __m512 low = _mm512_loadu_ps(query), high = _mm512_loadu_ps(query + 16);
    /* Where fold_*() leave the sums of rows 0 to 15. */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m512 quarters[4];
        for (size_t group = 0; group < 4; group++) {
            const void *const *r = rows + i + 4 * group;
            for (size_t row = 0; row < 4; row++)
                prefetch_piece(r, row, SKETCHES_AHEAD, 2 * SKETCH_WIDTH);
            __m512 a = sketch_sums(r[0], low, high), b = sketch_sums(r[1], low, high);
            __m512 c = sketch_sums(r[2], low, high), d = sketch_sums(r[3], low, high);
            /* Each 128-bit quarter q then holds four partial sums of row q. */
            quarters[group] = fold_quarters(fold_quarters(a, b), fold_quarters(c, d));
        }
        __m512 pairs = fold_pairs(fold_pairs(quarters[0], quarters[1]),
                                  fold_pairs(quarters[2], quarters[3]));
        /* max() takes its second operand where the first is a NaN. */
        pairs = _mm512_max_ps(_mm512_permutexvar_ps(order, pairs), _mm512_setzero_ps());
        _mm512_storeu_ps(out + i, pairs);
    }
    for (; i < n; i++) {
        float sum = _mm512_reduce_add_ps(sketch_sums(rows[i], low, high));
        out[i] = sum > 0 ? sum : 0;
    }
}

static inline __attribute__((always_inline)) void
distances_of(const void *const *rows, int count, const double *query, size_t dim, int half,
             double *out) {
    /* Multiplied, then added: a fused step would round otherwise than NumPy does. */
    __m512d sums[TOGETHER];
    for (int r = 0; r < count; r++)
        sums[r] = _mm512_setzero_pd();
    for (size_t first = 0; first < dim; first += 16) {
        size_t left = dim - first;
        __mmask16 mask = left < 16 ? first_lanes(left) : (__mmask16)0xffff;
        __m512d low = _mm512_loadu_pd(query + first), high = _mm512_loadu_pd(query + first + 8);
        for (int r = 0; r < count; r++) {
            __m512 values = load(rows[r], first, half, mask);
            __m512d a = _mm512_sub_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(values)), low);
            __m512d b = _mm512_sub_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(values, 1)), high);
            sums[r] = _mm512_add_pd(sums[r], _mm512_mul_pd(a, a));
            sums[r] = _mm512_add_pd(sums[r], _mm512_mul_pd(b, b));
        }
    }
    for (int r = 0; r < count; r++) {
        double s[8];
        _mm512_storeu_pd(s, sums[r]);
        out[r] = sqrt(((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])));
    }
}

static inline __attribute__((always_inline)) void
centre(const void *const *rows, size_t n, const float *mean, size_t dim, int half, float *centred,
       size_t stride, float *norms) {
    const size_t bytes = half ? 2 : 4;
    for (size_t i = 0; i < n; i++) {
        __m512 sum = _mm512_setzero_ps();
        const void *ahead = piece_ahead(rows, i, ROWS_AHEAD, dim * bytes);
        for (size_t first = 0; first < dim; first += 16) {
            size_t left = dim - first;
            __mmask16 mask = left < 16 ? first_lanes(left) : (__mmask16)0xffff;
            __m512 values = _mm512_sub_ps(load(rows[i], first, half, mask),
                                          _mm512_loadu_ps(mean + first));
            if (ahead)
                prefetch(ahead, first * bytes);
            sum = _mm512_fmadd_ps(values, values, sum);
            _mm512_mask_storeu_ps(centred + i * stride + first, mask, values);
        }
        norms[i] = _mm512_reduce_add_ps(sum);
    }
}

/* Sums of a few rows (a constant, so that they stay in registers) with all queries of a panel. */
static inline __attribute__((always_inline)) size_t
match_rows(const float *rows, size_t stride, int count, size_t number, const float *panel,
           size_t dim, const float *norms, const float *bounds, struct panel_match *found) {
    __m512 sums[PANEL_ROWS][2];
    for (int r = 0; r < count; r++)
        sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (size_t i = 0; i < dim; i++, panel += PANEL_WIDTH) {
        __m512 low = _mm512_loadu_ps(panel), high = _mm512_loadu_ps(panel + 16);
        for (int r = 0; r < count; r++) {
            __m512 value = _mm512_set1_ps(rows[(size_t)r * stride + i]);
            sums[r][0] = _mm512_fmadd_ps(value, low, sums[r][0]);
            sums[r][1] = _mm512_fmadd_ps(value, high, sums[r][1]);
        }
    }
    size_t n = 0;
    for (int r = 0; r < count; r++)
        for (int part = 0; part < 2; part++) {
            __m512 values = _mm512_fmadd_ps(sums[r][part], _mm512_set1_ps(-2),
                                            _mm512_set1_ps(norms[number + (size_t)r]));
            __mmask16 within = _mm512_cmp_ps_mask(values, _mm512_loadu_ps(bounds + 16 * part),
                                                  _CMP_LE_OQ);
            if (!within)
                continue;
            float each[16];
            _mm512_storeu_ps(each, values);
            for (; within; within &= (__mmask16)(within - 1)) {
                int lane = __builtin_ctz(within);
                struct panel_match match = {each[lane], (uint16_t)(number + (size_t)r),
                                            (uint16_t)(16 * part + lane)};
                found[n++] = match;
            }
        }
    return n;
}

static size_t select_within(const float *values, size_t n, float bound, uint32_t *found) {
    const __m512 most = _mm512_set1_ps(bound);
    size_t count = 0;
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = n - i < 16 ? first_lanes(n - i) : (__mmask16)0xffff;
        __mmask16 within = _mm512_mask_cmp_ps_mask(
            mask, _mm512_maskz_loadu_ps(mask, values + i), most, _CMP_LE_OQ);
        for (; within; within &= (__mmask16)(within - 1))
            found[count++] = (uint32_t)i + (uint32_t)__builtin_ctz(within);
    }
    return count;
}

#define NAME "avx512"
#define PRIMITIVES row_primitives_avx512
#include "_kernels_l2_body.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
