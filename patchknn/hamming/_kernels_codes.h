/* The table of distinct codes as C sees it, for the files that search it. */
#ifndef PATCHKNN_KERNELS_CODES_H
#define PATCHKNN_KERNELS_CODES_H

#include "_kernels.h"

#define MAX_PARTS 8

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
    struct part parts[MAX_PARTS];
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

#endif
