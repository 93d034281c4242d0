/* Popcount scans one word at a time; the file that includes this has defined popcount(). */
#ifndef PATCHKNN_KERNELS_SCALAR_H
#define PATCHKNN_KERNELS_SCALAR_H

static inline uint64_t load_word(const void *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static inline size_t keep_if(int wanted, size_t i, uint32_t distance, size_t n, uint32_t *found,
                             uint16_t *distances) {
    /* Written whether it is wanted or not: no branch that would be mispredicted. */
    found[n] = (uint32_t)i;
    distances[n] = (uint16_t)distance;
    return n + (size_t)(wanted != 0);
}

static inline uint32_t scalar_distance(const uint64_t *code, const uint64_t *query, size_t width) {
    uint32_t distance = 0;
    for (size_t w = 0; w < width; w++)
        distance += popcount(load_word(code + w) ^ query[w]);
    return distance;
}

static inline size_t scalar_scan_fresh(const uint64_t *words, size_t n, uint64_t query,
                                       uint32_t radius, const uint64_t *masks,
                                       const int64_t *limits, size_t n_masks, uint32_t *found,
                                       uint16_t *distances) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t difference = load_word(words + i) ^ query;
        uint32_t distance = popcount(difference);
        int wanted = distance <= radius;
        for (size_t j = 0; wanted && j < n_masks; j++)
            wanted = (int64_t)popcount(difference & masks[j]) > limits[j];
        kept = keep_if(wanted, i, distance, kept, found, distances);
    }
    return kept;
}

static inline size_t scalar_scan_wide(const uint64_t *codes, size_t n, size_t width,
                                      const uint64_t *query, uint32_t radius, uint32_t *found,
                                      uint16_t *distances) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t distance = scalar_distance(codes + i * width, query, width);
        kept = keep_if(distance <= radius, i, distance, kept, found, distances);
    }
    return kept;
}

static inline size_t scalar_scan_bytes(const uint8_t *codes, size_t n, size_t width,
                                       const uint8_t *query, uint32_t radius, uint32_t *found,
                                       uint16_t *distances) {
    const size_t full = width & ~(size_t)7, rest = width & 7;
    uint64_t tail = 0;
    size_t kept = 0;
    memcpy(&tail, query + full, rest);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *code = codes + i * width;
        uint32_t distance = 0;
        for (size_t byte = 0; byte < full; byte += 8)
            distance += popcount(load_word(code + byte) ^ load_word(query + byte));
        uint64_t last = 0;
        memcpy(&last, code + full, rest);
        distance += popcount(last ^ tail);
        kept = keep_if(distance <= radius, i, distance, kept, found, distances);
    }
    return kept;
}

#endif
