/* A batch of queries against rows that many of them share: products of blocks of rows with panels
   of queries, of which candidates within a proven margin are kept. No Python here.

   Notation as in _kernels_bounds.c; x' and q' are the row and the query less the mean, rounded to
   float32, X >= |x'| and Q = |q'|. The product p of x' and q', summed in any order, errs by at most
   r X Q, the row's sum of squares N by r X^2, and V = N - 2 p rounds once more, by u (X^2 + 2 X Q).
   Rounding x' and q' moves their distance by at most u (X + Q), so its square by 2.1 u (X + Q)^2.
   In all
       | V + Q^2 - |x - q|^2 | <= E,    E = (r + 8 u) (X + Q)^2 + 16 n m (1 + X + Q),
   the last term being for underflow. So the square of the true distance lies in
   [V + Q^2 - E, V + Q^2 + E]: a row can be left where the lower end is above the k-th smallest
   upper end so far, raised by 2^-20, which is more than what float64 distances err. */
#include "_kernels_blocks.h"

#include <float.h>
#include <math.h>

#define MAX_PENALTY 1024

/* The block's rows less the mean; 0 where numbers are too large. */
static int centred(const struct panels *panels, struct block *block) {
    const struct feature_table *table = block->table;
    if (!block->centred) {
        float largest = 0;
        if (block->cold)
            read_ahead(table, block->cold, block->rows, block->n, table->row_bytes);
        (table->half ? row_primitives->centre_half : row_primitives->centre_single)(
            block->rows, block->n, panels->mean, table->dim, panels->rows, panels->stride,
            block->norms);
        for (size_t i = 0; i < block->n; i++)
            largest = block->norms[i] > largest ? block->norms[i] : largest;
        block->largest = sqrt((double)largest) * (1 + panels->bounds.relative);
        block->centred = 1;
    }
    double both = block->largest + panels->longest;
    return both * both < LARGEST;
}

/* The queries of a panel, from `first` on, against a block of rows one by one. */
static int search_panel(struct list *lists, const struct panels *panels, const struct block *block,
                        size_t first) {
    int64_t start = block->positions[0], stop = start + (int64_t)block->n;
    int sketch = 0, status = ROWS_OK;
    for (size_t i = first; i < panels->m && i < first + PANEL_WIDTH && status == ROWS_OK; i++) {
        int64_t number = panels->numbers[i];
        status = list_search(lists + number, block->table, panels->queries + number, &start, &stop,
                             1, &sketch);
    }
    return status;
}

/* The same by their product. */
static int match_panel(struct list *lists, const struct panels *panels, struct block *block,
                       size_t first) {
    const size_t dim = block->table->dim;
    struct panel_match found[BLOCK_ROWS * PANEL_WIDTH];
    double errors[PANEL_WIDTH], squares[PANEL_WIDTH];
    float limits[PANEL_WIDTH];
    if (!centred(panels, block))
        return search_panel(lists, panels, block, first);
    for (size_t i = 0; i < PANEL_WIDTH; i++) {
        limits[i] = -INFINITY;
        if (first + i >= panels->m)
            continue;
        int64_t number = panels->numbers[first + i];
        double length = panels->lengths[first + i], both = block->largest + length;
        errors[i] = (panels->bounds.relative + 0x1p-21) * both * both * (1 + 0x1p-10) +
                    4 * panels->bounds.absolute * (1 + both);
        squares[i] = length * length;
        double bound = lists[number].limit - squares[i] + errors[i];
        if (panels->queries[number].k) {
            limits[i] = (float)(bound + fabs(bound) * 0x1p-20 + FLT_MIN);
            lists[number].read += block->n;
        }
    }
    size_t count = row_primitives->match_panel(panels->rows, panels->stride, block->n,
                                               panels->panels + first * dim, dim, block->norms,
                                               limits, found);
    for (size_t i = 0; i < count; i++) {
        size_t query = found[i].query;
        int64_t number = panels->numbers[first + query];
        double value = (double)found[i].value + squares[query];
        double upper = value + errors[query], lower = value - errors[query];
        struct near near = {
            .upper = upper > 0 ? (float)(upper * RAISED) : 0,
            .lower = lower > 0 ? (float)(lower / RAISED) : 0,
            .position = block->positions[found[i].row],
        };
        int status = list_push(lists + number, panels->queries[number].k, near);
        if (status != ROWS_OK)
            return status;
    }
    return ROWS_OK;
}

/* All queries against a block, with a sieve or (NULL) without. */
static int match_block(struct list *lists, const struct panels *panels, struct block *block,
                       struct sieve *sieve) {
    int status = ROWS_OK;
    for (size_t first = 0; first < panels->m && status == ROWS_OK; first += PANEL_WIDTH) {
        if (!sieve || sieve_panel(sieve, lists, block, first) < 0)
            status = match_panel(lists, panels, block, first);
        else if (sieve_is_full(sieve))
            status = sieve_weigh(sieve, lists, block);
    }
    return sieve && status == ROWS_OK ? sieve_weigh(sieve, lists, block) : status;
}

static void judge(struct trial *trial, struct sieve *sieve) {
    uint64_t looked, left;
    sieve_count(sieve, &looked, &left);
    if (looked == 0)
        return;
    if (left * 8 <= looked) {
        trial->penalty = 0;
        return;
    }
    trial->penalty = trial->penalty ? 2 * trial->penalty : 1;
    if (trial->penalty > MAX_PENALTY)
        trial->penalty = MAX_PENALTY;
    trial->rest = trial->penalty;
}

int match_range(const struct feature_table *table, const struct panels *panels, struct list *lists,
                struct trial *trial, int64_t start, int64_t stop) {
    struct cursor cursor = {.table = table, .starts = &start, .stops = &stop, .n_ranges = 1,
                            .position = start};
    const uint64_t n_rows = (uint64_t)(stop - start);
    const int cold = pages_cold(table, &start, &stop, 1, n_rows, panels->prepared);
    struct block block = {.table = table, .cold = cold};
    struct sieve *sieve = NULL;
    int usable = panels->prepared, status = ROWS_OK;
    if (block.cold && (!usable || trial->rest))
        fetch_rows(table, block.cold, cursor);
    for (size_t i = 0; i < panels->m; i++)
        if (panels->queries[panels->numbers[i]].k)
            lists[panels->numbers[i]].rows += (uint64_t)(stop - start);
    for (ptrdiff_t n; status == ROWS_OK;) {
        n = next_rows(&cursor, BLOCK_ROWS, block.positions, block.rows);
        if (n == 0)
            break;
        if (n < 0) {
            status = ROWS_DAMAGED;
            break;
        }
        block.n = (size_t)n, block.centred = 0;
        int sift = usable && trial->rest == 0;
        if (trial->rest)
            trial->rest--;
        if (sift && !sieve) {
            sieve = sieve_make(table, panels->queries, panels->numbers, panels->m, &usable);
            if (!sieve) {
                status = ROWS_NO_MEMORY;
                break;
            }
            sift = usable;
        }
        sift = sift && sieve_load(sieve, &block);
        status = match_block(lists, panels, &block, sift ? sieve : NULL);
        if (sift)
            judge(trial, sieve);
    }
    sieve_free(sieve);
    return status;
}
