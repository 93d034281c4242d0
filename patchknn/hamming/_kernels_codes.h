/* The table of distinct codes as C sees it, for the files that search it. */
#ifndef PATCHKNN_KERNELS_CODES_H
#define PATCHKNN_KERNELS_CODES_H

#include "_kernels.h"

#define MAX_PARTS 8
#define MAX_BITS 1024

struct part {
    uint32_t first_bit, width;   /* bits [first_bit, first_bit + width) of the code */
    const uint32_t *bounds;      /* (2^width + 1): entries of bucket v */
    const uint32_t *order;       /* (n_codes): entry -> code number; NULL for part 0 */
    const uint64_t *window;      /* (n_codes): 64 bits of the entry's code; NULL for part 0 */
};

struct code_table {
    uint32_t bits, width;        /* K, and W = ceil(K / 64) words */
    size_t n_codes, n_positions;
    const uint64_t *codes;       /* (n_codes, W), ascending */
    const uint32_t *bounds;      /* (n_codes + 1): positions of each code */
    uint32_t n_parts;
    struct part parts[MAX_PARTS]; /* disjoint, by first_bit; part 0 begins at bit 0 */
};

/* Codes found for one query; grows as needed. */
struct hits {
    uint32_t *codes;
    uint16_t *distances;
    size_t n, room;
    int64_t path, lookups, candidates, scanned;
};

enum { PATH_SCAN = 0, PATH_PROBE = 1, PATH_MULTI = 2, PATH_AUTO = -1 };
enum { SEARCH_OK = 0, SEARCH_NO_MEMORY = 1, SEARCH_DAMAGED = 2 };

/* Append every code within `radius` of `query` (W words), each once, in no particular order.
   Runs without the GIL. SEARCH_DAMAGED where an index array holds a value out of range. */
int codes_ball(const struct code_table *table, const uint64_t *query, uint32_t radius, int path,
               struct hits *hits);
void hits_free(struct hits *hits);

/* The table behind a Python CodeTable of this module, or NULL with TypeError. */
const struct code_table *code_table_of(PyObject *object);

/* What follows is between the files of the code table alone. */

enum { SEARCH_DEAR = 3 };        /* an index walk left off: the scan is cheaper */

/* Make room for `more` codes and what the primitives write beyond them; 0, or -1. */
int hits_reserve(struct hits *hits, size_t more);

/* The positions found so far at each distance, for the smallest radius that holds `wanted`. */
struct tally {
    uint64_t wanted, within;     /* `within`: positions at distances up to `limit` */
    uint32_t limit;              /* codes beyond it are of no more use */
    uint64_t counts[MAX_BITS + 1];
};
void tally_start(struct tally *tally, uint64_t wanted, uint32_t limit);
/* Count the hits from number `first` on as one position each, by their distances alone. */
void tally_codes(struct tally *tally, const struct hits *hits, size_t first);
/* Count the other positions of the same hits; SEARCH_OK or SEARCH_DAMAGED. */
int tally_positions(const struct code_table *table, struct tally *tally, const struct hits *hits,
                    size_t first);
/* Drop the hits from number `first` on that lie beyond the limit. */
void tally_trim(const struct tally *tally, struct hits *hits, size_t first);

/* A plain scan of codes [first, last), tile by tile for all queries; appends to each query's hits.
   With tallies it looks for the nearest (radius is not used, and the queries have no hits yet),
   else for the ball. */
int scan_codes(const struct code_table *table, const uint64_t *const *queries,
               struct hits *const *hits, struct tally *const *tallies, size_t n_queries,
               uint32_t radius, size_t first, size_t last);

/* How far each part is to be searched, and what that costs in nanoseconds (_kernels_plan.c). */
struct plan {
    int reach[MAX_PARTS];        /* bits that may differ within the part; -1: not searched */
    double next[MAX_PARTS];      /* cost of one more */
    double level[MAX_PARTS];     /* how many buckets that would look up */
    double cost;
};
/* Cost of a plain scan, for one of `together` queries. */
double scan_cost(const struct code_table *table, size_t together);
/* A search for the nearest may cost this part of its budget before it is known how far it goes. */
#define TRIAL 16
/* Whether even walks that meet empty buckets alone would cost more than the scan. */
int walks_are_dear(const struct code_table *table, uint32_t radius, double budget);
void plan_start(struct plan *plan, const struct code_table *table, const uint32_t *sizes);
/* Reach one bit further in the part where that is cheapest (or in `part` if >= 0). Once this was
   called r + 1 times, each code within distance r lies within the reach of some part. */
uint32_t plan_step(struct plan *plan, const struct code_table *table, const uint32_t *sizes,
                   int part);

/* The index walks (_kernels_multi.c). Both leave `hits` as it was where the walk costs more than
   `budget` nanoseconds (SEARCH_DEAR). */
int index_ball(const struct code_table *table, const uint64_t *query, uint32_t radius, int path,
               double budget, struct hits *hits);
/* The codes within tally->limit that the search for the `wanted` nearest needs; `guess` is where
   the radius is expected. Where the walk is left, tally->limit is what is known of it. */
int index_nearest(const struct code_table *table, const uint64_t *query, uint32_t guess,
                  double budget, struct tally *tally, struct hits *hits);
/* Bring what a query's first lookups need into the cache, in two stages some queries apart. The
   walk will begin in so many `parts`, those where the query's own buckets are smallest. */
void index_touch(const struct code_table *table, const uint64_t *query);
void index_fetch(const struct code_table *table, const uint64_t *query, uint32_t parts);

/* scan_rows of codes as they lie in shards (_kernels_scan.c). */
PyObject *scan_rows(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

#endif
