/* Popcount scans with AVX-512 VPOPCNTDQ: eight words at a time, hits compressed into place. */
#include "_kernels.h"

#ifdef PATCHKNN_X86
#ifdef __clang__
#pragma clang attribute push(                                                                  \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vpopcntdq,avx2,popcnt"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vpopcntdq,avx2,popcnt")
#endif
#include <immintrin.h>
#include <string.h>

/* Words: buckets begin where the processor does not expect it, and end soon. What is read from one
   end to the other is best left to it. */
#define AHEAD_IN_BUCKET 128

static inline uint32_t popcount(uint64_t word) {
    return (uint32_t)_mm_popcnt_u64(word);
}

#include "_kernels_scalar.h"

/* Store numbers and distances of the marked lanes side by side. (The instruction that compresses
   into memory is very slow on some processors; storing all lanes is not.) */
static inline size_t keep(__mmask8 marked, __m512i counts, size_t first, uint32_t *found,
                          uint16_t *distances) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i numbers = _mm256_add_epi32(lanes, _mm256_set1_epi32((int)first));
    _mm256_storeu_si256((__m256i *)(void *)found, _mm256_maskz_compress_epi32(marked, numbers));
    _mm_storeu_si128((__m128i *)(void *)distances,
                     _mm512_cvtepi64_epi16(_mm512_maskz_compress_epi64(marked, counts)));
    return popcount(marked);
}

/* Of the marked lanes those that are beyond all limits. */
static inline __mmask8 fresh(__mmask8 marked, __m512i differences, const uint64_t *masks,
                             const int64_t *limits, size_t n_masks) {
    for (size_t j = 0; j < n_masks; j++) {
        __m512i mask = _mm512_set1_epi64((long long)masks[j]);
        __m512i counts = _mm512_popcnt_epi64(_mm512_and_si512(differences, mask));
        marked = _mm512_mask_cmpgt_epi64_mask(marked, counts, _mm512_set1_epi64(limits[j]));
    }
    return marked;
}

static inline __attribute__((always_inline)) size_t
scan(const uint64_t *words, size_t n, uint64_t query, uint32_t radius, const uint64_t *masks,
     const int64_t *limits, size_t n_masks, size_t ahead, uint32_t *found, uint16_t *distances) {
    const __m512i target = _mm512_set1_epi64((long long)query);
    const __m512i limit = _mm512_set1_epi64(radius);
    size_t kept = 0, i = 0;
    for (; i + 32 <= n; i += 32) {
        /* What lies beyond a bucket's end would cost as much to bring as what is wanted. */
        const uint64_t *next = words + (i + ahead + 32 <= n ? i + ahead : i);
        __m512i differences[4], counts[4];
        __mmask8 near[4];
        for (size_t j = 0; j < 4; j++) {
            if (ahead)
                _mm_prefetch((const char *)(next + 8 * j), _MM_HINT_T0);
            differences[j] = _mm512_xor_si512(_mm512_loadu_si512(words + i + 8 * j), target);
            counts[j] = _mm512_popcnt_epi64(differences[j]);
            near[j] = _mm512_cmple_epi64_mask(counts[j], limit);
        }
        if (!(near[0] | near[1] | near[2] | near[3]))
            continue;
        for (size_t j = 0; j < 4; j++) {
            near[j] = fresh(near[j], differences[j], masks, limits, n_masks);
            kept += keep(near[j], counts[j], i + 8 * j, found + kept, distances + kept);
        }
    }
    for (; i < n; i += 8) {
        __mmask8 there = (__mmask8)(n - i < 8 ? (1u << (n - i)) - 1 : 255);
        __m512i values = _mm512_maskz_loadu_epi64(there, words + i);
        __m512i differences = _mm512_xor_si512(values, target);
        __m512i counts = _mm512_popcnt_epi64(differences);
        __mmask8 near = _mm512_mask_cmple_epi64_mask(there, counts, limit);
        if (near) {
            near = fresh(near, differences, masks, limits, n_masks);
            kept += keep(near, counts, i, found + kept, distances + kept);
        }
    }
    return kept;
}

static size_t scan_words(const uint64_t *words, size_t n, uint64_t query, uint32_t radius,
                         uint32_t *found, uint16_t *distances) {
    return scan(words, n, query, radius, NULL, NULL, 0, 0, found, distances);
}

static size_t scan_fresh(const uint64_t *words, size_t n, uint64_t query, uint32_t radius,
                         const uint64_t *masks, const int64_t *limits, size_t n_masks,
                         uint32_t *found, uint16_t *distances) {
    return scan(words, n, query, radius, masks, limits, n_masks, AHEAD_IN_BUCKET, found,
                distances);
}

/* Codes of `width` bytes of which a register holds several whole lanes: 8 codes from 2 registers
   (16 bytes each) or from the first 8 * width bytes of one (2, 4 or 6 bytes each). */
static inline __m512i eight_pairs(const uint8_t *codes, __m512i target) {
    __m512i low = _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(codes), target));
    __m512i high = _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(codes + 64), target));
    __m512i mixed = _mm512_add_epi64(_mm512_unpacklo_epi64(low, high),
                                     _mm512_unpackhi_epi64(low, high));
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), mixed);
}

static size_t scan_pairs(const uint8_t *codes, size_t n, const uint8_t *query, uint32_t radius,
                         uint32_t *found, uint16_t *distances) {
    __m128i pair = _mm_loadu_si128((const __m128i *)(const void *)query);
    const __m512i target = _mm512_broadcast_i32x4(pair), limit = _mm512_set1_epi64(radius);
    size_t kept = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        __m512i counts = eight_pairs(codes + 16 * i, target);
        __mmask8 near = _mm512_cmple_epi64_mask(counts, limit);
        if (near)
            kept += keep(near, counts, i, found + kept, distances + kept);
    }
    size_t rest = scalar_scan_bytes(codes + 16 * i, n - i, 16, query, radius, found + kept,
                                    distances + kept);
    for (size_t r = 0; r < rest; r++)
        found[kept + r] += (uint32_t)i;
    return kept + rest;
}

static size_t scan_short(const uint8_t *codes, size_t n, size_t width, const uint8_t *query,
                         uint32_t radius, uint32_t *found, uint16_t *distances) {
    const size_t units = width / 2;
    uint16_t spread[32] = {0};
    __mmask32 used = 0;
    uint64_t word = 0;
    for (size_t lane = 0; lane < 8; lane++)
        for (size_t unit = 0; unit < units; unit++) {
            spread[4 * lane + unit] = (uint16_t)(lane * units + unit);
            used |= (__mmask32)1 << (4 * lane + unit);
        }
    memcpy(&word, query, width);
    const __m512i places = _mm512_loadu_si512(spread), limit = _mm512_set1_epi64(radius);
    const __m512i target = _mm512_set1_epi64((long long)word);
    const __mmask32 loaded = (__mmask32)((1ull << (8 * units)) - 1);
    size_t kept = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        __m512i packed = _mm512_maskz_loadu_epi16(loaded, codes + width * i);
        __m512i values = _mm512_maskz_permutexvar_epi16(used, places, packed);
        __m512i counts = _mm512_popcnt_epi64(_mm512_xor_si512(values, target));
        __mmask8 near = _mm512_cmple_epi64_mask(counts, limit);
        if (near)
            kept += keep(near, counts, i, found + kept, distances + kept);
    }
    size_t rest = scalar_scan_bytes(codes + width * i, n - i, width, query, radius, found + kept,
                                    distances + kept);
    for (size_t r = 0; r < rest; r++)
        found[kept + r] += (uint32_t)i;
    return kept + rest;
}

/* Counts of one code of `width` bytes, spread over the lanes of a register. */
static inline __m512i spread_counts(const uint8_t *code, size_t width, const uint8_t *query) {
    __m512i sum = _mm512_setzero_si512();
    for (size_t byte = 0; byte < width; byte += 64) {
        size_t left = width - byte;
        __mmask64 there = left < 64 ? ((__mmask64)1 << left) - 1 : ~(__mmask64)0;
        __m512i values = _mm512_maskz_loadu_epi8(there, code + byte);
        __m512i target = _mm512_maskz_loadu_epi8(there, query + byte);
        sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(values, target)));
    }
    return sum;
}

static inline __m512i add_pairs(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* Codes of any width: eight registers of lanes, added up as a tree into one of eight sums. */
static size_t scan_any(const uint8_t *codes, size_t n, size_t width, const uint8_t *query,
                       uint32_t radius, uint32_t *found, uint16_t *distances) {
    const __m512i limit = _mm512_set1_epi64(radius);
    size_t kept = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        __m512i rows[8];
        for (size_t r = 0; r < 8; r++) {
            const uint8_t *code = codes + (i + r) * width;
            rows[r] = spread_counts(code, width, query);
        }
        __m512i a = add_pairs(rows[0], rows[1]), b = add_pairs(rows[2], rows[3]);
        __m512i c = add_pairs(rows[4], rows[5]), d = add_pairs(rows[6], rows[7]);
        /* Each 128-bit lane of a holds parts of the sums 0 and 1, of b of 2 and 3, and so on. */
        __m512i ab = _mm512_add_epi64(_mm512_shuffle_i64x2(a, b, 0x44),
                                      _mm512_shuffle_i64x2(a, b, 0xee));
        __m512i cd = _mm512_add_epi64(_mm512_shuffle_i64x2(c, d, 0x44),
                                      _mm512_shuffle_i64x2(c, d, 0xee));
        __m512i counts = _mm512_add_epi64(_mm512_shuffle_i64x2(ab, cd, 0x88),
                                          _mm512_shuffle_i64x2(ab, cd, 0xdd));
        __mmask8 near = _mm512_cmple_epi64_mask(counts, limit);
        if (near)
            kept += keep(near, counts, i, found + kept, distances + kept);
    }
    for (; i < n; i++) {
        uint32_t distance = (uint32_t)_mm512_reduce_add_epi64(
            spread_counts(codes + i * width, width, query));
        kept = keep_if(distance <= radius, i, distance, kept, found, distances);
    }
    return kept;
}

static size_t scan_bytes(const uint8_t *codes, size_t n, size_t width, const uint8_t *query,
                         uint32_t radius, uint32_t *found, uint16_t *distances) {
    /* The order of bytes does not matter to a popcount. */
    if (width == 8)
        return scan((const uint64_t *)(const void *)codes, n, load_word(query), radius, NULL, NULL,
                    0, 0, found, distances);
    if (width == 16)
        return scan_pairs(codes, n, query, radius, found, distances);
    if (width == 2 || width == 4 || width == 6)
        return scan_short(codes, n, width, query, radius, found, distances);
    if (width < 8)
        return scalar_scan_bytes(codes, n, width, query, radius, found, distances);
    return scan_any(codes, n, width, query, radius, found, distances);
}

static size_t scan_wide(const uint64_t *codes, size_t n, size_t width, const uint64_t *query,
                        uint32_t radius, uint32_t *found, uint16_t *distances) {
    return scan_bytes((const uint8_t *)codes, n, 8 * width, (const uint8_t *)query, radius, found,
                      distances);
}

const struct code_primitives code_primitives_avx512 = {
    .name = "avx512",
    .costs = {.word = 0.05, .memory = 0.17, .lookup = 30, .entry = 0.7},
    .scan_words = scan_words,
    .scan_fresh = scan_fresh,
    .scan_wide = scan_wide,
    .scan_bytes = scan_bytes,
    .distance = scalar_distance,
};

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
