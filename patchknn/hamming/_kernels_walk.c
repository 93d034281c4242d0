/* The steps of a walk through the index.

   Lookups are done by the chunk: first the places of all buckets, then the comparisons with what
   they hold, which is fetched some buckets ahead, then the code numbers. Memory is what they wait
   for, so that fetching must go on while others are compared. */
#include "_kernels_walk.h"

#define BUCKETS_AHEAD 16 /* which take about as long to compare as to be fetched */

static inline uint32_t popcount_slow(uint64_t word) {
    return (uint32_t)__builtin_popcountll(word);
}

/* In how many bits of the part the two codes differ. */
static inline int part_distance(const struct code_table *table, size_t p, const uint64_t *code,
                                const uint64_t *query) {
    const struct part *part = &table->parts[p];
    uint64_t bits = bits_from(code, table->width, part->first_bit) ^
                    bits_from(query, table->width, part->first_bit);
    return (int)popcount_slow(bits >> (64 - part->width));
}

static inline uint64_t window_of(const struct code_table *table, size_t p, const uint64_t *query) {
    if (table->width == 1)
        return *query;
    const uint32_t first = table->parts[p].first_bit, left = table->bits - first;
    uint64_t bits = bits_from(query, table->width, first);
    return left < 64 ? bits | query[0] >> left : bits;
}

static inline __attribute__((always_inline)) void
prefetch_bucket(const struct code_table *table, const struct bucket *bucket) {
    const size_t p = bucket->step->part;
    prefetch_entries(table, p, bucket->first, bucket->last, LINES_AHEAD);
    if (bucket->step->level == 0)
        prefetch_order(table, p, bucket->first, bucket->last);
}

/* The entries of one bucket that lie within the limit and were not found before: appended as
   entries, not yet as codes. */
static int compare(struct walk *walk, struct bucket *bucket) {
    const struct code_table *table = walk->table;
    const struct step *step = bucket->step;
    const size_t p = step->part, n = bucket->last - bucket->first;
    struct hits *hits = walk->hits;
    if (hits_reserve(hits, n))
        return SEARCH_NO_MEMORY;
    uint32_t *found = hits->codes + hits->n;
    uint16_t *distances = hits->distances + hits->n;
    size_t kept;
    if (table->width == 1) {
        uint64_t masks[MAX_PARTS];
        int64_t limits[MAX_PARTS];
        size_t n_masks = 0;
        for (size_t q = 0; q < table->n_parts; q++)
            if (step->seen[q] >= 0 && q != p) {
                const struct part *part = &table->parts[q];
                uint64_t ones = ((uint64_t)1 << part->width) - 1;
                masks[n_masks] = ones << (64 - part->first_bit - part->width);
                limits[n_masks++] = step->seen[q];
            }
        kept = code_primitives->scan_fresh(windows_of(table, p) + bucket->first, n, *walk->query,
                                           walk->limit, masks, limits, n_masks, found, distances);
    } else if (p == 0)
        kept = code_primitives->scan_wide(table->codes + bucket->first * (size_t)table->width, n,
                                          table->width, walk->query, walk->limit, found,
                                          distances);
    else
        kept = code_primitives->scan_words(table->parts[p].window + bucket->first, n,
                                           window_of(table, p, walk->query), walk->limit, found,
                                           distances);
    for (size_t i = 0; i < kept; i++)
        found[i] += bucket->first;
    hits->n += kept;
    bucket->end = hits->n;
    if (walk->tally && table->width == 1) { /* the distances are known: the limit may fall */
        tally_codes(walk->tally, hits, hits->n - kept);
        walk->limit = walk->tally->limit;
    }
    return SEARCH_OK;
}

/* Drop hits that the limit has left behind since, and prefetch the numbers of the others. */
static void sift(struct walk *walk, size_t first, struct bucket *buckets, size_t n) {
    struct hits *hits = walk->hits;
    size_t i = first, kept = first;
    for (size_t b = 0; b < n; b++) {
        const uint32_t *order = walk->table->parts[buckets[b].step->part].order;
        for (; i < buckets[b].end; i++) {
            if (hits->distances[i] > walk->limit)
                continue;
            hits->codes[kept] = hits->codes[i];
            hits->distances[kept++] = hits->distances[i];
            if (order)
                __builtin_prefetch(order + hits->codes[i]);
        }
        buckets[b].end = kept;
    }
    hits->n = kept;
}

/* Entries become code numbers; SEARCH_OK or SEARCH_DAMAGED. */
static int resolve(struct walk *walk, size_t first, const struct bucket *buckets, size_t n) {
    const struct code_table *table = walk->table;
    uint32_t *codes = walk->hits->codes;
    size_t i = first;
    for (size_t b = 0; b < n; b++) {
        const uint32_t *order = table->parts[buckets[b].step->part].order;
        for (; i < buckets[b].end; i++) {
            if (order)
                codes[i] = order[codes[i]];
            if (codes[i] >= table->n_codes)
                return SEARCH_DAMAGED;
            if (table->width > 1)
                __builtin_prefetch(table->codes + codes[i] * (size_t)table->width);
            if (walk->tally)
                __builtin_prefetch(table->bounds + codes[i]);
        }
    }
    return SEARCH_OK;
}

/* Of codes wider than a window only the window has been compared; settle the rest of them. */
static void verify(struct walk *walk, size_t first, const struct bucket *buckets, size_t n) {
    const struct code_table *table = walk->table;
    struct hits *hits = walk->hits;
    size_t i = first, kept = first;
    for (size_t b = 0; b < n; b++)
        for (; i < buckets[b].end; i++) {
            const uint64_t *code = table->codes + hits->codes[i] * (size_t)table->width;
            uint32_t distance = code_primitives->distance(code, walk->query, table->width);
            int fresh = distance <= walk->limit;
            for (size_t q = 0; fresh && q < table->n_parts; q++)
                fresh = buckets[b].step->seen[q] < 0 || q == buckets[b].step->part ||
                        part_distance(table, q, code, walk->query) > buckets[b].step->seen[q];
            hits->codes[kept] = hits->codes[i];
            hits->distances[kept] = (uint16_t)distance;
            kept += (size_t)fresh;
        }
    hits->n = kept;
}

/* Do the lookups that were gathered. */
static int flush(struct walk *walk) {
    const struct code_table *table = walk->table;
    const struct code_costs *costs = &code_primitives->costs;
    struct hits *hits = walk->hits;
    struct bucket buckets[CHUNK];
    size_t n = 0;
    uint64_t entries = 0;
    for (size_t i = 0; i < walk->n; i++) {
        const size_t p = walk->steps[i]->part;
        const uint32_t *bounds = table->parts[p].bounds + walk->ids[i];
        const uint32_t first = bounds[0], last = bounds[1];
        if (first > last || last > table->n_codes)
            return SEARCH_DAMAGED;
        buckets[n] = (struct bucket){.first = first, .last = last, .step = walk->steps[i]};
        n += first < last;
        entries += last - first;
    }
    double cost = (double)walk->n * costs->lookup + (double)entries * costs->entry;
    hits->lookups += (int64_t)walk->n;
    walk->left -= (double)walk->n;
    if (walk->spent + cost + walk->left * (cost / (double)(walk->n + 1)) > walk->budget)
        return SEARCH_DEAR;
    walk->spent += cost;
    walk->n = 0;
    hits->candidates += (int64_t)entries;

    const size_t begun = hits->n;
    for (size_t b = 0; b < n && b < BUCKETS_AHEAD; b++)
        prefetch_bucket(table, &buckets[b]);
    for (size_t b = 0; b < n; b++) {
        if (b + BUCKETS_AHEAD < n)
            prefetch_bucket(table, &buckets[b + BUCKETS_AHEAD]);
        int status = compare(walk, &buckets[b]);
        if (status != SEARCH_OK)
            return status;
    }
    sift(walk, begun, buckets, n);
    int status = resolve(walk, begun, buckets, n);
    if (status == SEARCH_OK && table->width > 1) {
        verify(walk, begun, buckets, n);
        if (walk->tally)
            tally_codes(walk->tally, hits, begun);
    }
    if (status == SEARCH_OK && walk->tally) {
        status = tally_positions(table, walk->tally, hits, begun);
        walk->limit = walk->tally->limit;
    }
    return status;
}

/* Look up all buckets of a step. */
static int take(struct walk *walk, const struct step *step) {
    const uint32_t width = walk->table->parts[step->part].width;
    const uint32_t *bounds = walk->table->parts[step->part].bounds;
    const uint64_t end = (uint64_t)1 << width;
    if (step->level > (int)width)
        return SEARCH_OK;
    for (uint64_t mask = ((uint64_t)1 << step->level) - 1; mask < end;) {
        if (walk->n == CHUNK) {
            int status = flush(walk);
            if (status != SEARCH_OK)
                return status;
        }
        walk->ids[walk->n] = walk->own[step->part] ^ (uint32_t)mask;
        __builtin_prefetch(bounds + walk->ids[walk->n]);
        walk->steps[walk->n++] = step;
        if (!mask)
            break;
        /* The next larger number with as many ones. */
        uint64_t lowest = mask & -mask, carried = mask + lowest;
        mask = carried | ((mask ^ carried) >> (2 + __builtin_ctzll(mask)));
    }
    return SEARCH_OK;
}

int walk_start(struct walk *walk, const struct code_table *table, const uint64_t *query,
               double budget, struct hits *hits) {
    walk->table = table;
    walk->query = query;
    walk->hits = hits;
    walk->tally = NULL;
    walk->spent = walk->left = 0;
    walk->budget = budget;
    walk->n = 0;
    for (size_t p = 0; p < table->n_parts; p++)
        __builtin_prefetch(table->parts[p].bounds + (walk->own[p] = bucket_of(table, p, query)));
    for (size_t p = 0; p < table->n_parts; p++) {
        const uint32_t *bounds = table->parts[p].bounds + walk->own[p];
        if (bounds[0] > bounds[1] || bounds[1] > table->n_codes)
            return SEARCH_DAMAGED;
        walk->sizes[p] = bounds[1] - bounds[0];
    }
    return SEARCH_OK;
}

int walk_take(struct walk *walk, const struct step *steps, size_t n) {
    int status = SEARCH_OK;
    for (size_t i = 0; status == SEARCH_OK && i < n; i++)
        status = take(walk, &steps[i]);
    return status == SEARCH_OK ? flush(walk) : status;
}
