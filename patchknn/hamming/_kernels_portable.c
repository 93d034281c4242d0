/* Popcount scans for any machine. */
#include "_kernels.h"

#include <string.h>

static inline uint32_t popcount(uint64_t word) {
    word -= (word >> 1) & 0x5555555555555555u;
    word = (word & 0x3333333333333333u) + ((word >> 2) & 0x3333333333333333u);
    word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (uint32_t)((word * 0x0101010101010101u) >> 56);
}

#include "_kernels_scalar.h"

static size_t scan_words(const uint64_t *words, size_t n, uint64_t query, uint32_t radius,
                         uint32_t *found, uint16_t *distances) {
    return scalar_scan_fresh(words, n, query, radius, NULL, NULL, 0, found, distances);
}

const struct code_primitives code_primitives_portable = {
    .name = "portable",
    .costs = {.word = 1.3, .memory = 0.02, .lookup = 20, .entry = 4},
    .scan_words = scan_words,
    .scan_fresh = scalar_scan_fresh,
    .scan_wide = scalar_scan_wide,
    .scan_bytes = scalar_scan_bytes,
    .distance = scalar_distance,
};
