/* One query against the rows of a ball: a float32 pass that keeps candidates, then float64.

   The pass keeps every row whose float32 sum is within the proven limit (_kernels_bounds.c) of the
   k-th smallest so far, so it cannot lose a row of the answer, ties included. With a sketch, rows
   are first bounded from below by 64 bytes each, and those that cannot be among the nearest are
   not read; where too many can, the sketch is left for the rest of the query. */
#include "_kernels_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 256           /* rows between two looks at the limit */
#define FIRST_SKETCHES 4096 /* sketches read before deciding whether they pay */
#define SKETCHES 16384      /* sketches read before the rows that they leave */
#define LISTED 1024         /* of them between two looks at the limit */
#define READ_AHEAD 65536    /* rows asked for from disk at once */
#define FEW 32              /* matches */

struct candidate {
    float square;
    uint32_t position;
};

struct search {
    const struct feature_table *table;
    const struct row_query *query;
    struct bounds bounds;
    size_t k;
    struct candidate *items;
    size_t n, room;
    float limit;     /* rows above it cannot be in the answer */
    double furthest; /* true distance that no row of the answer exceeds */
    int cold;
    uint64_t rows_read;
};

/* Keep what is within the limit of the k-th smallest, where there are k. */
static void tighten(struct search *search) {
    if (search->n < search->k)
        return;
    float kth = kth_smallest(&search->items->square, sizeof *search->items, search->n, search->k);
    search->limit = bounds_limit(&search->bounds, kth, &search->furthest);
    size_t kept = 0;
    for (size_t i = 0; i < search->n; i++)
        if (search->items[i].square <= search->limit)
            search->items[kept++] = search->items[i];
    search->n = kept;
}

static int make_room(struct search *search, size_t count) {
    if (search->n + count <= search->room)
        return ROWS_OK;
    tighten(search);
    if (search->n + count <= search->room / 2) /* else the next call would be soon */
        return ROWS_OK;
    size_t room = 2 * search->room + count;
    struct candidate *items = realloc(search->items, room * sizeof *items);
    if (!items)
        return search->n + count <= search->room ? ROWS_OK : ROWS_NO_MEMORY;
    search->items = items;
    search->room = room;
    return ROWS_OK;
}

/* Read n <= BLOCK rows, whose addresses have ROWS_AHEAD more after them, and keep the near ones. */
static int weigh(struct search *search, const void *const *rows, const uint32_t *positions,
                 size_t n) {
    const struct feature_table *table = search->table;
    float squares[BLOCK];
    uint32_t found[BLOCK + 16];
    if (table->half)
        row_primitives->squares_half(rows, n, search->query->single, table->dim, squares);
    else
        row_primitives->squares_single(rows, n, search->query->single, table->dim, squares);
    search->rows_read += n;
    size_t count = row_primitives->select_within(squares, n, search->limit, found);
    int status = make_room(search, count);
    if (status != ROWS_OK)
        return status;
    for (size_t i = 0; i < count; i++) {
        struct candidate candidate = {squares[found[i]], positions[found[i]]};
        search->items[search->n++] = candidate;
    }
    return ROWS_OK;
}

void fetch_rows(const struct feature_table *table, int cold, struct cursor cursor) {
    const void *rows[1024];
    uint32_t positions[1024];
    for (size_t asked = 0; asked < READ_AHEAD; asked += 1024) {
        ptrdiff_t n = next_rows(&cursor, 1024, positions, rows);
        if (n <= 0)
            return;
        read_ahead(table, cold, rows, (size_t)n, table->row_bytes);
    }
}

static int weigh_all(struct search *search, struct cursor *cursor) {
    const void *rows[BLOCK + ROWS_AHEAD] = {0};
    uint32_t positions[BLOCK + ROWS_AHEAD];
    size_t ready = 0, fetched = 0;
    for (;;) {
        if (search->cold && fetched == 0) {
            fetch_rows(search->table, search->cold, *cursor);
            fetched = READ_AHEAD / BLOCK;
        }
        fetched--;
        ptrdiff_t more = next_rows(cursor, BLOCK + ROWS_AHEAD - ready, positions + ready,
                                   rows + ready);
        if (more < 0)
            return ROWS_DAMAGED;
        ready += (size_t)more;
        if (ready == 0)
            return ROWS_OK;
        size_t n = ready < BLOCK ? ready : BLOCK;
        int status = weigh(search, rows, positions, n);
        if (status != ROWS_OK)
            return status;
        ready -= n;
        memmove(rows, rows + BLOCK, ROWS_AHEAD * sizeof *rows);
        memmove(positions, positions + BLOCK, ROWS_AHEAD * sizeof *positions);
    }
}

static int weigh_chosen(struct search *search, const uint32_t *positions, size_t n) {
    const void *rows[BLOCK + ROWS_AHEAD] = {0};
    if (find_rows(search->table, positions, n, rows) < 0)
        return ROWS_DAMAGED;
    if (search->cold)
        read_ahead(search->table, search->cold, rows, n, search->table->row_bytes);
    for (size_t i = 0; i < n && i < ROWS_AHEAD; i++)
        __builtin_prefetch(rows[i]);
    int status = weigh(search, rows, positions, n);
    tighten(search);
    return status;
}

/* Weigh listed positions, leaving those whose sketches' `bounds` exceed the (shrinking) limit. */
static int weigh_listed(struct search *search, const uint32_t *positions, const float *bounds,
                        size_t n, double slack) {
    uint32_t found[LISTED + 16], chosen[BLOCK];
    size_t count = 0;
    int status = ROWS_OK;
    for (size_t first = 0; first < n && status == ROWS_OK; first += LISTED) {
        size_t some = n - first < LISTED ? n - first : LISTED;
        float most = bounds_sketch(search->furthest, slack, search->table->sketch.scale);
        some = row_primitives->select_within(bounds + first, some, most, found);
        for (size_t i = 0; i < some && status == ROWS_OK; i++) {
            chosen[count++] = positions[first + found[i]];
            if (count == BLOCK) {
                status = weigh_chosen(search, chosen, count);
                count = 0;
            }
        }
    }
    return count && status == ROWS_OK ? weigh_chosen(search, chosen, count) : status;
}

struct sketch_room {
    const void *addresses[SKETCHES + SKETCHES_AHEAD];
    uint32_t positions[SKETCHES], found[SKETCHES];
    float bounds[SKETCHES], zeros[SKETCHES];
};

/* Weigh the k rows that look nearest, before the others: they make the limit tight at once. */
static int weigh_nearest(struct search *search, struct sketch_room *room, size_t *n,
                         double slack) {
    size_t first = 0, left = 0;
    if (search->k >= *n)
        return ROWS_OK;
    float near = kth_smallest(room->bounds, sizeof(float), *n, search->k);
    for (size_t i = 0; i < *n; i++) {
        if (room->bounds[i] <= near && first < search->k) {
            room->found[first++] = room->positions[i];
        } else {
            room->bounds[left] = room->bounds[i];
            room->positions[left++] = room->positions[i];
        }
    }
    *n = left;
    memset(room->zeros, 0, first * sizeof *room->zeros);
    return weigh_listed(search, room->found, room->zeros, first, slack);
}

/* Go through the ranges by their sketches, until they end or the sketch turns out not to pay. */
static int weigh_by_sketch(struct search *search, struct cursor *cursor, struct sketch_room *room,
                           int *paid) {
    float target[SKETCH_WIDTH];
    double slack;
    int status = query_sketch(search->table, search->query, target, &slack);
    slack += search->table->sketch.slack;
    size_t most = FIRST_SKETCHES;
    for (*paid = 1; status == ROWS_OK && *paid; most = SKETCHES) {
        const size_t count = next_sketches(cursor, most, room->positions, room->addresses);
        size_t n = count;
        if (n == 0)
            break;
        for (size_t i = 0; i < SKETCHES_AHEAD; i++)
            room->addresses[n + i] = room->addresses[n - 1];
        uint64_t before = search->rows_read;
        if (search->cold)
            read_ahead(search->table, search->cold, room->addresses, n, 2 * SKETCH_WIDTH);
        row_primitives->squares_sketch(room->addresses, n, target, room->bounds);
        if (search->n < search->k)
            status = weigh_nearest(search, room, &n, slack);
        if (status == ROWS_OK)
            status = weigh_listed(search, room->positions, room->bounds, n, slack);
        *paid = search->rows_read - before <= count / 2;
    }
    return status;
}

static int compare(const void *left, const void *right) {
    const struct match *a = left, *b = right;
    if (a->distance != b->distance)
        return a->distance < b->distance ? -1 : 1;
    return (a->position > b->position) - (a->position < b->position);
}

static void sort_matches(struct match *items, size_t n) {
    if (n > FEW) {
        qsort(items, n, sizeof *items, compare);
        return;
    }
    for (size_t i = 1; i < n; i++) { /* sooner than by calls */
        const struct match match = items[i];
        size_t place = i;
        for (; place && compare(items + place - 1, &match) > 0; place--)
            items[place] = items[place - 1];
        items[place] = match;
    }
}

void matches_settle(struct matches *matches, size_t k) {
    sort_matches(matches->items, matches->n);
    if (matches->n > k) {
        double last = k ? matches->items[k - 1].distance : -1;
        while (matches->n && matches->items[matches->n - 1].distance > last)
            matches->n--;
    }
}

int rows_settle(const struct feature_table *table, const struct row_query *query,
                const uint32_t *positions, size_t n, size_t k, struct matches *matches) {
    const void *rows[BLOCK + ROWS_AHEAD] = {0};
    matches->n = 0;
    matches->items = malloc((n + 1) * sizeof *matches->items);
    if (!matches->items)
        return ROWS_NO_MEMORY;
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t some = n - first < BLOCK ? n - first : BLOCK;
        double distances[BLOCK];
        if (find_rows(table, positions + first, some, rows) < 0)
            return ROWS_DAMAGED;
        for (size_t i = 0; i < some && i < ROWS_AHEAD; i++)
            __builtin_prefetch(rows[i]);
        if (table->half)
            row_primitives->distances_half(rows, some, query->exact, table->dim, distances);
        else
            row_primitives->distances_single(rows, some, query->exact, table->dim, distances);
        for (size_t i = 0; i < some; i++) {
            struct match match = {distances[i], positions[first + i]};
            matches->items[matches->n++] = match;
        }
    }
    matches_settle(matches, k);
    return ROWS_OK;
}

static int settle(struct search *search, struct matches *matches) {
    tighten(search);
    /* The list becomes one of positions in place. */
    uint32_t *positions = (uint32_t *)(void *)search->items;
    for (size_t i = 0; i < search->n; i++) {
        uint32_t position = search->items[i].position;
        memcpy(positions + i, &position, sizeof position);
    }
    return rows_settle(search->table, search->query, positions, search->n, search->k, matches);
}

/* Rows of which half or more are in the answer: a pass to find those would not pay. */
static int take_all(const struct feature_table *table, const struct row_query *query,
                    struct cursor *cursor, size_t n, size_t k, struct matches *matches) {
    const void *rows[BLOCK];
    uint32_t positions[BLOCK];
    const int cold = pages_cold(table, cursor->starts, cursor->stops, cursor->n_ranges, n, 0);
    if (cold)
        fetch_rows(table, cold, *cursor);
    if (next_rows(cursor, n, positions, rows) < 0)
        return ROWS_DAMAGED;
    for (size_t i = 0; i < n; i++)
        for (size_t offset = 0; offset < table->row_bytes; offset += 64)
            prefetch(rows[i], offset);
    matches->rows_read = n;
    return rows_settle(table, query, positions, n, k, matches);
}

int rows_nearest(const struct feature_table *table, const struct row_query *query,
                 const int64_t *starts, const int64_t *stops, size_t n_ranges, uint64_t k,
                 int *use_sketch, struct matches *matches) {
    struct search search = {.table = table, .query = query, .limit = INFINITY,
                            .furthest = INFINITY};
    struct cursor cursor = {.table = table, .starts = starts, .stops = stops,
                            .n_ranges = n_ranges};
    uint64_t total = 0;
    int status = ROWS_OK;
    matches->items = NULL;
    matches->n = 0, matches->rows_read = matches->rows_skipped = 0;
    for (size_t range = 0; range < n_ranges; range++)
        total += (uint64_t)(stops[range] - starts[range]);
    search.k = (size_t)(k < total ? k : total);
    if (search.k == 0)
        return ROWS_OK;
    cursor.position = starts[0];
    if (total <= BLOCK && total / 2 <= k)
        return take_all(table, query, &cursor, (size_t)total, search.k, matches);
    search.bounds = bounds_of(table->dim, query->conversion);
    search.room = 2 * search.k + 3 * BLOCK;
    if (search.room > total + BLOCK)
        search.room = (size_t)total + BLOCK;
    search.items = malloc(search.room * sizeof *search.items);
    if (!search.items)
        return ROWS_NO_MEMORY;
    int by_sketch = *use_sketch && worth_sketches(total);
    search.cold = pages_cold(table, starts, stops, n_ranges, total, by_sketch);
    if (by_sketch) {
        struct sketch_room *room = malloc(sizeof *room);
        status = room ? weigh_by_sketch(&search, &cursor, room, use_sketch) : ROWS_NO_MEMORY;
        free(room);
    }
    if (status == ROWS_OK)
        status = weigh_all(&search, &cursor);
    if (status == ROWS_OK)
        status = settle(&search, matches);
    matches->rows_read = search.rows_read;
    matches->rows_skipped = total - search.rows_read;
    free(search.items);
    return status;
}
