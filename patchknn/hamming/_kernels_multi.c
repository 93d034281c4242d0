/* Index walks: multi-index hashing (Norouzi, Punjani and Fleet 2014) over distinct codes.

   If two codes differ in at most r bits, and the parts may differ in s_0, s_1, ... bits with
   sum (s_p + 1) = r + 1, then in some part p they differ in at most s_p: else they would differ
   in at least r + 1. A step searches one part one bit further than before. A code that lay
   within the reach of any part before a step was found then, so each is found once. Searching
   part 0 alone as far as r is the probing of sorted codes by their prefixes.

   Lookups are done by the chunk: first the places of all buckets, then the comparisons with what
   they hold, which is fetched some buckets ahead, then the code numbers. Memory is what they wait
   for, so that fetching must go on while others are compared. */
#include "_kernels_codes.h"

#include <string.h>

#define CHUNK 128
#define BUCKETS_AHEAD 16 /* which take about as long to compare as to be fetched */
/* Lines of windows that are prefetched; the processor goes on by itself. */
#define LINES_AHEAD 8
#define LINES_FIRST 16 /* of the buckets that the query falls into, which tend to be the largest */

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

static inline const uint64_t *windows_of(const struct code_table *table, size_t p) {
    return p ? table->parts[p].window : table->codes;
}

static inline uint64_t window_of(const struct code_table *table, size_t p, const uint64_t *query) {
    if (table->width == 1)
        return *query;
    const uint32_t first = table->parts[p].first_bit, left = table->bits - first;
    uint64_t bits = bits_from(query, table->width, first);
    return left < 64 ? bits | query[0] >> left : bits;
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

void index_touch(const struct code_table *table, const uint64_t *query) {
    for (size_t p = 0; p < table->n_parts; p++)
        __builtin_prefetch(table->parts[p].bounds + bucket_of(table, p, query));
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

void index_fetch(const struct code_table *table, const uint64_t *query, uint32_t parts) {
    uint32_t firsts[MAX_PARTS], lasts[MAX_PARTS], sizes[MAX_PARTS];
    for (size_t p = 0; p < table->n_parts; p++) {
        const uint32_t *bounds = table->parts[p].bounds + bucket_of(table, p, query);
        firsts[p] = bounds[0], lasts[p] = bounds[1];
        sizes[p] = lasts[p] - firsts[p];
    }
    for (size_t p = 0; p < table->n_parts; p++) {
        uint32_t smaller = 0;
        for (size_t q = 0; q < table->n_parts; q++)
            smaller += sizes[q] < sizes[p] || (sizes[q] == sizes[p] && q < p);
        if (smaller >= parts || firsts[p] >= lasts[p] || lasts[p] > table->n_codes)
            continue;
        prefetch_entries(table, p, firsts[p], lasts[p], LINES_FIRST);
        prefetch_order(table, p, firsts[p], lasts[p]);
    }
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

static int start(struct walk *walk, const struct code_table *table, const uint64_t *query,
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

/* Plan one step more: the cheapest, or one in `part` if that is >= 0. */
static void plan_next(struct walk *walk, struct plan *plan, struct step *step, int part) {
    const struct plan before = *plan;
    const uint32_t chosen = plan_step(plan, walk->table, walk->sizes, part);
    step->part = (uint8_t)chosen;
    step->level = (int16_t)plan->reach[chosen];
    for (size_t q = 0; q < walk->table->n_parts; q++)
        step->seen[q] = (int16_t)before.reach[q];
    walk->left += before.level[chosen];
}

/* Take planned steps, all lookups together. */
static int take_all(struct walk *walk, const struct step *steps, size_t n) {
    int status = SEARCH_OK;
    for (size_t i = 0; status == SEARCH_OK && i < n; i++)
        status = take(walk, &steps[i]);
    return status == SEARCH_OK ? flush(walk) : status;
}

int index_ball(const struct code_table *table, const uint64_t *query, uint32_t radius, int path,
               double budget, struct hits *hits) {
    struct step steps[MAX_BITS + 1];
    struct walk walk;
    struct plan plan;
    const size_t begun = hits->n;
    int status = start(&walk, table, query, budget, hits);
    if (status != SEARCH_OK)
        return status;
    plan_start(&plan, table, walk.sizes);
    for (uint32_t i = 0; i <= radius; i++) {
        int part = path == PATH_PROBE ? 0 : path == PATH_MULTI ? (int)(i % table->n_parts) : -1;
        plan_next(&walk, &plan, &steps[i], part);
        if (plan.cost > budget)
            return SEARCH_DEAR;
    }
    walk.limit = radius;
    status = take_all(&walk, steps, (size_t)radius + 1);
    if (status == SEARCH_DEAR)
        hits->n = begun;
    hits->path = path != PATH_AUTO ? path : plan.reach[0] == (int)radius ? PATH_PROBE : PATH_MULTI;
    return status;
}

/* Whether to leave a walk that may need `steps` steps more. Each of them may lower the limit, so
   cheap ones are taken even where all together would be too dear. */
static int dear(const struct walk *walk, const struct plan *plan, uint32_t steps) {
    struct plan ahead = *plan;
    ahead.cost = walk->spent;
    plan_step(&ahead, walk->table, walk->sizes, -1);
    if (ahead.cost < walk->budget / TRIAL)
        return 0;
    for (uint32_t i = 1; i < steps && ahead.cost <= walk->budget; i++)
        plan_step(&ahead, walk->table, walk->sizes, -1);
    return ahead.cost > walk->budget;
}

int index_nearest(const struct code_table *table, const uint64_t *query, uint32_t guess,
                  double budget, struct tally *tally, struct hits *hits) {
    const uint32_t max_radius = tally->limit, together = table->n_parts;
    const size_t begun = hits->n;
    struct step steps[MAX_PARTS];
    struct walk walk;
    struct plan plan;
    int status = start(&walk, table, query, budget, hits);
    if (status != SEARCH_OK)
        return status;
    walk.tally = tally;
    plan_start(&plan, table, walk.sizes);
    for (uint32_t i = 0; i < together; i++)
        plan_next(&walk, &plan, &steps[i], -1);
    if (plan.cost > budget)
        return SEARCH_DEAR;
    /* The first steps are taken together, and again with a larger limit as long as they give too
       few: what they read is in the cache by then. */
    const double lookups = walk.left;
    for (walk.limit = guess;; walk.limit *= 2) {
        if (walk.limit >= max_radius || walk.limit == 0)
            walk.limit = max_radius;
        tally_start(tally, tally->wanted, walk.limit);
        hits->n = begun;
        walk.left = lookups;
        status = take_all(&walk, steps, together);
        if (status != SEARCH_OK || tally->within >= tally->wanted || walk.limit == max_radius)
            break;
    }
    for (uint32_t taken = together; status == SEARCH_OK && taken <= tally->limit; taken++) {
        if (dear(&walk, &plan, tally->limit + 1 - taken)) {
            status = SEARCH_DEAR;
            break;
        }
        walk.limit = tally->limit;
        walk.left = 0;
        plan_next(&walk, &plan, steps, -1);
        status = take_all(&walk, steps, 1);
    }
    if (status == SEARCH_OK)
        tally_trim(tally, hits, begun);
    if (status == SEARCH_DEAR) {
        hits->n = begun;
        tally_start(tally, tally->wanted,
                    tally->within >= tally->wanted ? tally->limit : max_radius);
    }
    hits->path = PATH_MULTI;
    return status;
}
