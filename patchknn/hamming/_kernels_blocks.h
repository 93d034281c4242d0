/* A batch of queries and what it has found, for the files that match blocks of rows with it. */
#ifndef PATCHKNN_KERNELS_BLOCKS_H
#define PATCHKNN_KERNELS_BLOCKS_H

#include "_kernels_table.h"

#define BLOCK_ROWS 96 /* as float32 they and a panel stay in a core's cache */
#define RAISED (1 + 0x1p-20)
#define LARGEST 1e36  /* squares beyond it might overflow on the way */

struct near { /* a row whose squared distance lies between the two */
    float upper, lower;
    uint32_t position;
};

/* What one slot has found for one query. */
struct list {
    struct matches done; /* with float64 distances, in order */
    struct near *items;
    size_t n, room, full; /* full: when to look what can be left */
    float limit;          /* squared distance that no row of the answer exceeds */
    uint64_t read, rows;  /* of how many rows the features were read */
};

struct asked {
    struct row_query query;
    size_t k;
    float sketch[SKETCH_WIDTH]; /* once prepared */
    double slack;               /* of its distances from sketches of rows */
};

/* ROWS_OK or ROWS_NO_MEMORY. */
int list_push(struct list *list, size_t k, struct near near);

/* Rows that are matched together. */
struct block {
    const struct feature_table *table;
    const void *rows[BLOCK_ROWS + ROWS_AHEAD];
    uint32_t positions[BLOCK_ROWS];
    size_t n;
    int cold, centred;
    float norms[BLOCK_ROWS]; /* once centred */
    double largest;          /* of the rows' lengths, once centred */
};

/* The sketches of a task's queries against those of its rows; see _kernels_sieve.c. */
struct sieve;
/* NULL without memory; `usable` is 0 where numbers are too large for it. */
struct sieve *sieve_make(const struct feature_table *table, const struct asked *queries,
                         const int64_t *numbers, size_t m, int *usable);
void sieve_free(struct sieve *sieve);
/* The sketches of a block's rows; 0 where numbers are too large. */
int sieve_load(struct sieve *sieve, const struct block *block);
/* Sift the queries of the panel from `first` on; keeps the pairs that are left for sieve_weigh() and
   gives how many there are, or -1 (and keeps none) where the panel had better be multiplied. */
ptrdiff_t sieve_panel(struct sieve *sieve, const struct list *lists, const struct block *block,
                      size_t first);
int sieve_weigh(struct sieve *sieve, struct list *lists, const struct block *block);
/* Whether the pairs of the next panel might not fit. */
int sieve_is_full(const struct sieve *sieve);
/* How many pairs were looked at, and how many of them were left, since the last call. */
void sieve_count(struct sieve *sieve, uint64_t *looked, uint64_t *left);

#endif
