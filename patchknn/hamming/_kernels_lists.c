/* What one slot of a batch has found for one query, and how it is kept short. No Python here. */
#include "_kernels_lists.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

int list_merge(struct list *list, size_t k, struct matches *more) {
    struct matches *done = &list->done;
    int status = ROWS_OK;
    if (done->n == 0) {
        free(done->items);
        *done = *more;
        more->items = NULL;
    } else if (more->n) {
        struct match *items = realloc(done->items, (done->n + more->n) * sizeof *items);
        if (items) {
            memcpy(items + done->n, more->items, more->n * sizeof *items);
            done->items = items;
            done->n += more->n;
            matches_settle(done, k);
        } else {
            status = ROWS_NO_MEMORY;
        }
    }
    free(more->items);
    more->items = NULL, more->n = 0;
    if (k && done->n >= k) {
        double last = done->items[k - 1].distance, most = last * last * RAISED + FLT_MIN;
        if (most < list->limit)
            list->limit = (float)(most * RAISED);
    }
    return status;
}

int list_search(struct list *list, const struct feature_table *table, const struct asked *asked,
                const int64_t *starts, const int64_t *stops, size_t n, int *sketch) {
    struct matches more;
    int status = rows_nearest(table, &asked->query, starts, stops, n, asked->k, sketch, &more);
    list->read += more.rows_read;
    if (status == ROWS_OK)
        return list_merge(list, asked->k, &more);
    free(more.items);
    return status;
}

static void tighten(struct list *list, size_t k) {
    if (list->n < k)
        return;
    double most = kth_smallest(&list->items->upper, sizeof *list->items, list->n, k);
    most = most * RAISED + FLT_MIN;
    if (most < list->limit)
        list->limit = (float)(most * RAISED);
    size_t kept = 0;
    for (size_t i = 0; i < list->n; i++)
        if (list->items[i].lower <= list->limit)
            list->items[kept++] = list->items[i];
    list->n = kept;
}

int list_push(struct list *list, size_t k, struct near near) {
    if (list->n == list->full) {
        if (list->n)
            tighten(list, k);
        list->full = list->n + (list->n > k ? list->n / 2 : k / 2) + 32;
        if (list->full > list->room) {
            struct near *items = realloc(list->items, list->full * sizeof *items);
            if (!items)
                return ROWS_NO_MEMORY;
            list->items = items;
            list->room = list->full;
        }
    }
    list->items[list->n++] = near;
    return ROWS_OK;
}

int list_settle(struct list *list, const struct feature_table *table, const struct asked *asked,
                struct list *into) {
    struct matches more = {0};
    int status = ROWS_OK;
    if (list->n) {
        tighten(list, asked->k);
        uint32_t *positions = malloc((list->n + 1) * sizeof *positions);
        for (size_t i = 0; positions && i < list->n; i++)
            positions[i] = list->items[i].position;
        status = positions ? rows_settle(table, &asked->query, positions, list->n, asked->k, &more)
                           : ROWS_NO_MEMORY;
        free(positions);
    }
    free(list->items);
    list->items = NULL;
    list->n = list->room = list->full = 0;
    if (status != ROWS_OK)
        free(more.items);
    else if (more.items)
        status = list_merge(into, asked->k, &more);
    return status;
}
