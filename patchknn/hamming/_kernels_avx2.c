/* Popcount scans with avx2: nibbles counted by table for single words, popcnt for wider codes. */
#include "_kernels.h"

#ifdef PATCHKNN_X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,popcnt")
#endif
#include <immintrin.h>
#include <string.h>

static inline uint32_t popcount(uint64_t word) {
    return (uint32_t)_mm_popcnt_u64(word);
}

#include "_kernels_scalar.h"

static inline __m256i counts_of(__m256i words) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    __m256i ones = _mm256_shuffle_epi8(table, _mm256_and_si256(words, low));
    __m256i more = _mm256_shuffle_epi8(
        table, _mm256_and_si256(_mm256_srli_epi16(words, 4), low));
    return _mm256_sad_epu8(_mm256_add_epi8(ones, more), _mm256_setzero_si256());
}

/* One bit for each of four words that lies beyond the limit. */
static inline unsigned beyond(__m256i counts, __m256i limit) {
    return (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(counts, limit)));
}

static inline __attribute__((always_inline)) size_t
scan(const uint64_t *words, size_t n, uint64_t query, uint32_t radius, const uint64_t *masks,
     const int64_t *limits, size_t n_masks, uint32_t *found, uint16_t *distances) {
    const __m256i target = _mm256_set1_epi64x((long long)query);
    const __m256i limit = _mm256_set1_epi64x(radius);
    size_t kept = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(words + i));
        __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(words + i + 4));
        unsigned far = beyond(counts_of(_mm256_xor_si256(a, target)), limit) |
                       beyond(counts_of(_mm256_xor_si256(b, target)), limit) << 4;
        for (unsigned near = ~far & 255; near; near &= near - 1) {
            size_t at = i + (size_t)__builtin_ctz(near);
            uint64_t difference = load_word(words + at) ^ query;
            int wanted = 1;
            for (size_t j = 0; wanted && j < n_masks; j++)
                wanted = (int64_t)popcount(difference & masks[j]) > limits[j];
            kept = keep_if(wanted, at, popcount(difference), kept, found, distances);
        }
    }
    size_t rest = scalar_scan_fresh(words + i, n - i, query, radius, masks, limits, n_masks,
                                    found + kept, distances + kept);
    for (size_t r = 0; r < rest; r++)
        found[kept + r] += (uint32_t)i;
    return kept + rest;
}

static size_t scan_words(const uint64_t *words, size_t n, uint64_t query, uint32_t radius,
                         uint32_t *found, uint16_t *distances) {
    return scan(words, n, query, radius, NULL, NULL, 0, found, distances);
}

static size_t scan_fresh(const uint64_t *words, size_t n, uint64_t query, uint32_t radius,
                         const uint64_t *masks, const int64_t *limits, size_t n_masks,
                         uint32_t *found, uint16_t *distances) {
    return scan(words, n, query, radius, masks, limits, n_masks, found, distances);
}

static size_t scan_bytes(const uint8_t *codes, size_t n, size_t width, const uint8_t *query,
                         uint32_t radius, uint32_t *found, uint16_t *distances) {
    /* The order of bytes does not matter to a popcount. */
    if (width == 8)
        return scan((const uint64_t *)(const void *)codes, n, load_word(query), radius, NULL, NULL,
                    0, found, distances);
    return scalar_scan_bytes(codes, n, width, query, radius, found, distances);
}

const struct code_primitives code_primitives_avx2 = {
    .name = "avx2",
    .costs = {.word = 0.17, .memory = 0.08, .lookup = 30, .entry = 1.3},
    .scan_words = scan_words,
    .scan_fresh = scan_fresh,
    .scan_wide = scalar_scan_wide,
    .scan_bytes = scan_bytes,
    .distance = scalar_distance,
};

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
