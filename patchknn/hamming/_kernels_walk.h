/* One walk through the index, and the buckets that it looks into. */
#ifndef PATCHKNN_KERNELS_WALK_H
#define PATCHKNN_KERNELS_WALK_H

#include "_kernels_codes.h"

#define CHUNK 128
#define LINES_AHEAD 8 /* of windows that are prefetched; the processor goes on by itself */

struct step {
    uint8_t part;
    int16_t level;               /* bits that differ within the part */
    int16_t seen[MAX_PARTS];     /* reach of each part before this step */
};

struct bucket {
    uint32_t first, last;        /* entries */
    const struct step *step;
    size_t end;                  /* of its hits */
};

struct walk {
    const struct code_table *table;
    const uint64_t *query;
    uint32_t limit;
    struct hits *hits;
    struct tally *tally;         /* in a search for the nearest, else NULL */
    double spent, budget, left;  /* nanoseconds; `left`: lookups still to come */
    uint32_t own[MAX_PARTS];     /* the query's bucket in each part */
    uint32_t sizes[MAX_PARTS];   /* entries in it */
    size_t n;
    uint32_t ids[CHUNK];
    const struct step *steps[CHUNK];
};

/* Begin; SEARCH_OK or SEARCH_DAMAGED. The limit and the tally are the caller's to set. */
int walk_start(struct walk *walk, const struct code_table *table, const uint64_t *query,
               double budget, struct hits *hits);
/* Take planned steps, all lookups together. Also SEARCH_DEAR: the budget would not do. */
int walk_take(struct walk *walk, const struct step *steps, size_t n);

/* 64 bits of a code from bit `first` on; zeros after its last word. */
static inline uint64_t bits_from(const uint64_t *code, size_t width, uint32_t first) {
    size_t word = first / 64, shift = first % 64;
    uint64_t bits = code[word] << shift;
    if (shift && word + 1 < width)
        bits |= code[word + 1] >> (64 - shift);
    return bits;
}

static inline uint32_t bucket_of(const struct code_table *table, size_t p, const uint64_t *query) {
    const struct part *part = &table->parts[p];
    return (uint32_t)(bits_from(query, table->width, part->first_bit) >> (64 - part->width));
}

static inline const uint64_t *windows_of(const struct code_table *table, size_t p) {
    return p ? table->parts[p].window : table->codes;
}

/* Inlined by force: a function that only prefetches is one without effect to gcc, and dropped. */
static inline __attribute__((always_inline)) void
prefetch_entries(const struct code_table *table, size_t p, uint32_t first, uint32_t last,
                 size_t lines) {
    const size_t words = p ? 1 : table->width;
    const char *begin = (const char *)(windows_of(table, p) + first * words);
    const char *end = (const char *)(windows_of(table, p) + last * words);
    /* Most buckets are small, and a branch on what was just read is likely to go wrong. */
    __builtin_prefetch(begin);
    __builtin_prefetch(end - 1);
    if (__builtin_expect(end - begin > 128, 0))
        for (size_t line = 1; line < lines && begin + 64 * line < end; line++)
            __builtin_prefetch(begin + 64 * line);
}

/* The numbers of a bucket's codes: those of its entries that are near lie close together. */
static inline __attribute__((always_inline)) void
prefetch_order(const struct code_table *table, size_t p, uint32_t first, uint32_t last) {
    const uint32_t *order = table->parts[p].order;
    if (!order || last - first > 16 * LINES_AHEAD)
        return;
    for (uint32_t entry = first; entry < last; entry += 16)
        __builtin_prefetch(order + entry);
    __builtin_prefetch(order + last - 1);
}

#endif
