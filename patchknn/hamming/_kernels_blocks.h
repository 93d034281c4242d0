/* Blocks of rows against the queries of a batch, for the files that match them. */
#ifndef PATCHKNN_KERNELS_BLOCKS_H
#define PATCHKNN_KERNELS_BLOCKS_H

#include "_kernels_lists.h"

#define BLOCK_ROWS 96 /* as float32 they and a panel stay in a core's cache */
#define LARGEST 1e36  /* squares beyond it might overflow on the way */

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

/* The queries of one range, in panels, and what a block of rows needs beside them. */
struct panels {
    const struct asked *queries; /* of the batch */
    int prepared;                /* they have sketches */
    size_t m;
    const int64_t *numbers;      /* (m): which of them */
    const float *panels;         /* (ceil(m / PANEL_WIDTH), dim, PANEL_WIDTH), zeros beyond m */
    const double *lengths;       /* (m): Q */
    const float *mean;           /* padded */
    float *rows;                 /* (BLOCK_ROWS, stride) */
    size_t stride;
    double longest;              /* of the lengths */
    struct bounds bounds;
};

/* Whether a slot sifts by sketches first; found out on the way. */
struct trial {
    uint32_t rest, penalty; /* blocks to go without, and how many after the next failure */
};

/* Rows of positions start to stop against the panels, into the lists of one slot. Runs without the
   GIL. ROWS_OK, ROWS_NO_MEMORY or ROWS_DAMAGED. */
int match_range(const struct feature_table *table, const struct panels *panels, struct list *lists,
                struct trial *trial, int64_t start, int64_t stop);

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
