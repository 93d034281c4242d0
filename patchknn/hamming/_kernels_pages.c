/* Rows that are still on disk: noticed by asking about a few, and fetched all together.

   A page fault fetches a page at a time and waits for it; a thousand scattered rows then take a
   thousand turns. Where the system does not say what is in memory (it does so only to those who
   may write the file), rows count as present and come by page faults. */
#include "_kernels_rows.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>

#define PROBES 6

static uintptr_t page_size(void) {
    static uintptr_t size;
    if (!size)
        size = (uintptr_t)sysconf(_SC_PAGESIZE);
    return size;
}

static int is_cold(const void *address) {
    unsigned char resident = 1;
    uintptr_t page = (uintptr_t)address & ~(page_size() - 1);
    return mincore((void *)page, 1, (void *)&resident) == 0 && !(resident & 1);
}

int rows_are_cold(const struct feature_table *table, const int64_t *starts, const int64_t *stops,
                  size_t n_ranges) {
    size_t probes = n_ranges < PROBES ? n_ranges : PROBES;
    for (size_t probe = 0; probe < probes; probe++) {
        size_t range = probe * n_ranges / probes;
        if (starts[range] >= stops[range])
            continue;
        int64_t length = stops[range] - starts[range];
        uint32_t position = (uint32_t)(starts[range] + length * (int64_t)probe / (int64_t)probes);
        const void *row;
        if (find_rows(table, &position, 1, &row) == 0 && is_cold(row))
            return 1;
    }
    return 0;
}

void read_ahead(const void *const *pieces, size_t n, size_t bytes) {
    const uintptr_t page = page_size();
    uintptr_t start = 0, stop = 0; /* pieces that touch or follow each other are asked for at once */
    for (size_t i = 0; i <= n; i++) {
        uintptr_t first = i < n ? (uintptr_t)pieces[i] & ~(page - 1) : 0;
        uintptr_t last = i < n ? ((uintptr_t)pieces[i] + bytes + page - 1) & ~(page - 1) : 0;
        if (i < n && first >= start && first <= stop && stop) {
            stop = last > stop ? last : stop;
            continue;
        }
        if (stop > start)
            madvise((void *)start, stop - start, MADV_WILLNEED);
        start = first, stop = last;
    }
}
#else
int rows_are_cold(const struct feature_table *table, const int64_t *starts, const int64_t *stops,
                  size_t n_ranges) {
    (void)table, (void)starts, (void)stops, (void)n_ranges;
    return 0;
}

void read_ahead(const void *const *pieces, size_t n, size_t bytes) {
    (void)pieces, (void)n, (void)bytes;
}
#endif
