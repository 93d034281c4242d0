/* Many queries against a block of rows by their sketches: pairs that cannot be in an answer are left
   before any product of features is made, at a sixteenth of its cost at 512 values.

   Notation as in _kernels_bounds.c and _kernels_blocks.c. A row x can be in the answer to q only
   where t <= rho, rho^2 being the limit of q's list; so only where |s - p| <= (rho + slack) / scale,
   s being the row's stored sketch and p the query's as float32, both divided by scale. What s and p
   are off by is within slack, so they are taken as they are: with V = |s|^2 - 2 s p in float32, and E
   as in _kernels_blocks.c for 32 values, |V + |p|^2 - |s - p|^2| <= E. So a pair is left where
       V > ((rho + slack) / scale)^2 - |p|^2 + E.
   The other pairs are weighed one by one as those of a single query are; where they are many, the
   product of the features is made. A sketch that is not finite bounds nothing: its row is kept. */
#include "_kernels_blocks.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STRIDE (SKETCH_WIDTH + 16)
#define PAYS 8 /* a pair costs about as much as this many in a product */
#define MOST_OF_PANEL (BLOCK_ROWS * PANEL_WIDTH / PAYS)
#define PAIRS (8 * MOST_OF_PANEL)

struct group { /* consecutive pairs of one query */
    int64_t number;
    size_t start, n;
};

struct sieve {
    const struct feature_table *table;
    const struct asked *queries;
    const int64_t *numbers; /* (m) */
    size_t m, n_pairs, n_groups;
    uint64_t looked, left;
    struct bounds bounds;
    double largest; /* of the lengths of rows' sketches, as the bounds have it */
    float rows[BLOCK_ROWS * STRIDE], norms[BLOCK_ROWS];
    const void *addresses[PAIRS + ROWS_AHEAD];
    uint32_t positions[PAIRS];
    struct group groups[PAIRS];
    struct panel_match found[BLOCK_ROWS * PANEL_WIDTH];
    /* By query, padded to whole panels: */
    float *limits, *most; /* the limits that the bounds `most` were made for; NaN: none */
    double *lengths;
    float panels[];       /* (panels, SKETCH_WIDTH, PANEL_WIDTH) */
};

void sieve_free(struct sieve *sieve) {
    if (sieve) {
        free(sieve->limits);
        free(sieve->lengths);
    }
    free(sieve);
}

struct sieve *sieve_make(const struct feature_table *table, const struct asked *queries,
                         const int64_t *numbers, size_t m, int *usable) {
    const size_t wide = (m + PANEL_WIDTH - 1) / PANEL_WIDTH * PANEL_WIDTH;
    struct sieve *sieve = malloc(sizeof *sieve + wide * SKETCH_WIDTH * sizeof(float));
    if (!sieve)
        return NULL;
    sieve->table = table, sieve->queries = queries, sieve->numbers = numbers, sieve->m = m;
    sieve->n_pairs = sieve->n_groups = 0;
    sieve->looked = sieve->left = 0;
    sieve->bounds = bounds_of(SKETCH_WIDTH, 0);
    sieve->largest = 0;
    sieve->limits = malloc((2 * wide + 1) * sizeof *sieve->limits);
    sieve->lengths = malloc((wide + 1) * sizeof *sieve->lengths);
    sieve->most = sieve->limits + wide;
    if (!sieve->limits || !sieve->lengths) {
        sieve_free(sieve);
        return NULL;
    }
    *usable = 1;
    for (size_t i = 0; i < wide; i++) {
        float *panel = sieve->panels + (i - i % PANEL_WIDTH) * SKETCH_WIDTH + i % PANEL_WIDTH;
        double square = 0;
        for (size_t j = 0; j < SKETCH_WIDTH; j++) {
            float value = i < m ? queries[numbers[i]].sketch[j] : 0;
            panel[j * PANEL_WIDTH] = value;
            square += (double)value * value;
        }
        sieve->limits[i] = NAN;
        sieve->most[i] = -INFINITY;
        sieve->lengths[i] = sqrt(square) * (1 + 0x1p-40);
        if (!(square < LARGEST / 4))
            *usable = 0;
    }
    return sieve;
}

int sieve_load(struct sieve *sieve, const struct block *block) {
    static const float mean[SKETCH_WIDTH];
    const void *sketches[BLOCK_ROWS + ROWS_AHEAD];
    const struct feature_table *table = sieve->table;
    float largest = 0;
    for (size_t i = 0; i < block->n; i++)
        sketches[i] = sketch_at(table, block->positions[i]);
    for (size_t i = block->n; i < block->n + ROWS_AHEAD; i++)
        sketches[i] = sketches[block->n - 1];
    if (block->cold)
        read_ahead(table, block->cold, sketches, block->n, 2 * SKETCH_WIDTH);
    row_primitives->centre_half(sketches, block->n, mean, SKETCH_WIDTH, sieve->rows, STRIDE,
                                sieve->norms);
    for (size_t i = 0; i < block->n; i++) {
        if (sieve->norms[i] < (float)(LARGEST / 4)) {
            largest = sieve->norms[i] > largest ? sieve->norms[i] : largest;
        } else {
            memset(sieve->rows + i * STRIDE, 0, SKETCH_WIDTH * sizeof(float));
            sieve->norms[i] = -FLT_MAX;
        }
    }
    double length = sqrt((double)largest) * (1 + sieve->bounds.relative);
    if (length > sieve->largest) { /* some more, so that it seldom happens */
        sieve->largest = 1.25 * length;
        for (size_t i = 0; i < sieve->m; i++)
            sieve->limits[i] = NAN;
    }
    return sieve->largest * sieve->largest < LARGEST / 4;
}

static float bound_of(const struct sieve *sieve, size_t i, float limit) {
    const struct asked *asked = sieve->queries + sieve->numbers[i];
    double length = sieve->lengths[i], both = sieve->largest + length;
    if (asked->k == 0)
        return -INFINITY;
    double error = (sieve->bounds.relative + 0x1p-21) * both * both * (1 + 0x1p-10) +
                   4 * sieve->bounds.absolute * (1 + both);
    double furthest = (sqrt((double)limit) + asked->slack) / sieve->table->sketch.scale * RAISED;
    /* The length is rounded up; what its square is too large by, 2^-38, is within the error. */
    double bound = furthest * furthest * RAISED - length * length + error;
    bound += fabs(bound) * 0x1p-20 + FLT_MIN;
    return bound < FLT_MAX / 2 ? (float)bound : INFINITY;
}

ptrdiff_t sieve_panel(struct sieve *sieve, const struct list *lists, const struct block *block,
                      size_t first) {
    const size_t width = sieve->m - first < PANEL_WIDTH ? sieve->m - first : PANEL_WIDTH;
    for (size_t i = first; i < first + width; i++) {
        float limit = lists[sieve->numbers[i]].limit;
        if (limit == sieve->limits[i])
            continue;
        if (!(limit < (float)LARGEST) && sieve->queries[sieve->numbers[i]].k)
            return -1;
        sieve->limits[i] = limit;
        sieve->most[i] = bound_of(sieve, i, limit);
    }
    size_t count = row_primitives->match_panel(sieve->rows, STRIDE, block->n,
                                               sieve->panels + first * SKETCH_WIDTH, SKETCH_WIDTH,
                                               sieve->norms, sieve->most + first, sieve->found);
    sieve->looked += block->n * width;
    sieve->left += count;
    if (count * PAYS > block->n * width)
        return -1;
    size_t starts[PANEL_WIDTH + 1] = {0};
    for (size_t i = 0; i < count; i++)
        starts[sieve->found[i].query + 1]++;
    for (size_t i = 0; i < PANEL_WIDTH; i++) {
        if (starts[i + 1]) {
            struct group group = {sieve->numbers[first + i], sieve->n_pairs + starts[i],
                                  starts[i + 1]};
            sieve->groups[sieve->n_groups++] = group;
        }
        starts[i + 1] += starts[i];
    }
    for (size_t i = 0; i < count; i++) {
        size_t place = sieve->n_pairs + starts[sieve->found[i].query]++;
        sieve->addresses[place] = block->rows[sieve->found[i].row];
        sieve->positions[place] = block->positions[sieve->found[i].row];
    }
    sieve->n_pairs += count;
    return (ptrdiff_t)count;
}

int sieve_is_full(const struct sieve *sieve) { return sieve->n_pairs + MOST_OF_PANEL > PAIRS; }

static int weigh_group(const struct sieve *sieve, struct list *list, const struct group *group) {
    const struct feature_table *table = sieve->table;
    const struct asked *asked = sieve->queries + group->number;
    const struct bounds bounds = bounds_of(table->dim, asked->query.conversion);
    const float limit = bounds_sum(&bounds, sqrt((double)list->limit));
    float sums[BLOCK_ROWS];
    (table->half ? row_primitives->squares_half : row_primitives->squares_single)(
        sieve->addresses + group->start, group->n, asked->query.single, table->dim, sums);
    list->read += group->n;
    for (size_t i = 0; i < group->n; i++) {
        struct near near = {.position = sieve->positions[group->start + i]};
        if (!(sums[i] <= limit))
            continue;
        bounds_squares(&bounds, sums[i], &near.lower, &near.upper);
        int status = list_push(list, asked->k, near);
        if (status != ROWS_OK)
            return status;
    }
    return ROWS_OK;
}

int sieve_weigh(struct sieve *sieve, struct list *lists, const struct block *block) {
    const size_t n = sieve->n_pairs, row_bytes = sieve->table->row_bytes;
    int status = ROWS_OK;
    for (size_t i = n; n && i < n + ROWS_AHEAD; i++)
        sieve->addresses[i] = sieve->addresses[n - 1];
    if (block->cold)
        read_ahead(sieve->table, block->cold, sieve->addresses, n, row_bytes);
    for (size_t i = 0; i < n && i < ROWS_AHEAD; i++)
        for (size_t offset = 0; offset < row_bytes; offset += 64)
            prefetch(sieve->addresses[i], offset);
    for (size_t i = 0; i < sieve->n_groups && status == ROWS_OK; i++)
        status = weigh_group(sieve, lists + sieve->groups[i].number, sieve->groups + i);
    sieve->n_pairs = sieve->n_groups = 0;
    return status;
}

void sieve_count(struct sieve *sieve, uint64_t *looked, uint64_t *left) {
    *looked = sieve->looked, *left = sieve->left;
    sieve->looked = sieve->left = 0;
}
