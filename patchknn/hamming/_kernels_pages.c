/* Rows that are still on disk: noticed by asking about a few, and fetched all together.

   A page fault fetches some pages and waits for them; a thousand scattered rows then take a
   thousand turns. Linux says what is in memory only to those who own or may write the file, and
   tells all others that everything is. For files that it does not tell about, a bit for each
   16 KiB says whether they have been asked for before: each is asked for once. */
#include "_kernels_rows.h"

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROBES 6
#define FEW_BYTES 262144   /* which are read about as soon as the probes are answered */
#define LONGEST_REST 64    /* queries */
#define LEAST_REGION ((uintptr_t)16384)

struct mapped { /* one array in memory */
    uintptr_t start, stop;
    uint64_t *asked; /* a bit for each region from that of `start` on; NULL: mincore() tells */
};

struct pages {
    size_t n;
    uintptr_t page, region;
    uint64_t unasked;      /* bits that are 0 */
    uint32_t rest, length; /* queries left that ask nothing, and of how many the last rest was */
    struct mapped items[]; /* by address */
};

static int by_address(const void *left, const void *right) {
    uintptr_t a = ((const struct mapped *)left)->start, b = ((const struct mapped *)right)->start;
    return (a > b) - (a < b);
}

/* The first item that ends after `address`. */
static size_t item_after(const struct pages *pages, uintptr_t address) {
    size_t low = 0, high = pages->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pages->items[middle].stop <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

#ifdef __linux__
/* As the kernel decides it, of the file that is mapped there. */
static int is_told(const char *path) {
    struct stat status;
    return faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0 ||
           (stat(path, &status) == 0 && status.st_uid == geteuid());
}

static void find_untold(struct pages *pages) {
    FILE *maps = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t room = 0;
    for (ssize_t length; maps && (length = getline(&line, &room, maps)) > 0;) {
        unsigned long long start, stop;
        int place = 0, told = -1;
        if (sscanf(line, "%llx-%llx %*s %*s %*s %*s %n", &start, &stop, &place) < 2 || !place ||
            line[place] != '/')
            continue; /* memory without a file */
        for (size_t i = item_after(pages, (uintptr_t)start);
             i < pages->n && pages->items[i].start < stop; i++) {
            struct mapped *item = pages->items + i;
            if (told < 0) {
                line[length - (line[length - 1] == '\n')] = 0;
                told = is_told(line + place);
            }
            if (told || item->asked)
                continue;
            uintptr_t regions =
                (item->stop - 1) / pages->region - item->start / pages->region + 1;
            item->asked = calloc(regions / 64 + 1, sizeof *item->asked);
            pages->unasked += item->asked ? regions : 0;
        }
    }
    free(line);
    if (maps)
        fclose(maps);
}
#else
static void find_untold(struct pages *pages) { (void)pages; }
#endif

int pages_make(struct feature_table *table) {
    const size_t most = table->n_shards + 1;
    struct pages *pages = calloc(1, sizeof *pages + most * sizeof *pages->items);
    if (!pages)
        return ROWS_NO_MEMORY;
    pages->page = (uintptr_t)sysconf(_SC_PAGESIZE);
    pages->region = pages->page > LEAST_REGION ? pages->page : LEAST_REGION;
    for (size_t i = 0; i < most; i++) {
        int shard = i < table->n_shards;
        const void *base = shard ? (const void *)table->bases[i] : table->sketch.values;
        uint64_t rows = shard ? table->first_rows[i + 1] - table->first_rows[i]
                              : table->has_sketch ? table->n_positions : 0;
        if (rows == 0)
            continue;
        struct mapped *item = pages->items + pages->n++;
        item->start = (uintptr_t)base;
        item->stop = item->start + rows * (shard ? table->row_bytes : 2 * SKETCH_WIDTH);
    }
    qsort(pages->items, pages->n, sizeof *pages->items, by_address);
    find_untold(pages);
    table->pages = pages;
    return ROWS_OK;
}

void pages_free(struct feature_table *table) {
    for (size_t i = 0; table->pages && i < table->pages->n; i++)
        free(table->pages->items[i].asked);
    free(table->pages);
    table->pages = NULL;
}

static int is_cold(const struct pages *pages, const void *address) {
    unsigned char resident = 1;
    uintptr_t page = (uintptr_t)address & ~(pages->page - 1);
    return mincore((void *)page, 1, (void *)&resident) == 0 && !(resident & 1);
}

/* To ask costs as much as to read a small ball: while all that is asked about is in memory, ever
   fewer queries ask. Threads may count wrongly at the same time, which does no harm. */
static int rests(struct pages *pages) {
    uint32_t rest = __atomic_load_n(&pages->rest, __ATOMIC_RELAXED);
    if (rest)
        __atomic_store_n(&pages->rest, rest - 1, __ATOMIC_RELAXED);
    return rest != 0;
}

static void all_in_memory(struct pages *pages, int so) {
    uint32_t length = __atomic_load_n(&pages->length, __ATOMIC_RELAXED);
    length = !so ? 0 : length < LONGEST_REST ? 2 * length + 1 : LONGEST_REST;
    __atomic_store_n(&pages->length, length, __ATOMIC_RELAXED);
    __atomic_store_n(&pages->rest, length, __ATOMIC_RELAXED);
}

int pages_cold(const struct feature_table *table, const int64_t *starts, const int64_t *stops,
               size_t n_ranges, uint64_t n_rows, int with_sketch) {
    struct pages *pages = table->pages;
    size_t least = n_ranges && with_sketch ? 2 : 0; /* every other one is for the sketches */
    size_t probes = n_ranges < PROBES ? n_ranges : PROBES;
    probes = probes < least ? least : probes;
    int cold = __atomic_load_n(&pages->unasked, __ATOMIC_RELAXED) ? COLD_UNTOLD : 0;
    if (n_rows * table->row_bytes < FEW_BYTES && rests(pages))
        return cold;
    for (size_t probe = 0; probe < probes; probe++) {
        size_t range = probe * n_ranges / probes;
        if (starts[range] >= stops[range])
            continue;
        int64_t length = stops[range] - starts[range];
        uint32_t position = (uint32_t)(starts[range] + length * (int64_t)probe / (int64_t)probes);
        const void *row;
        if (with_sketch && probe % 2 == 0)
            row = sketch_at(table, position);
        else if (find_rows(table, &position, 1, &row) < 0)
            continue;
        if (is_cold(pages, row)) {
            all_in_memory(pages, 0);
            return cold | COLD_TOLD;
        }
    }
    all_in_memory(pages, 1);
    return cold;
}

/* Pieces that touch or follow each other are asked for at once. */
struct request {
    uintptr_t start, stop;
};

static void ask(struct request *request, uintptr_t start, uintptr_t stop) {
    if (request->stop && start >= request->start && start <= request->stop) {
        request->stop = stop > request->stop ? stop : request->stop;
        return;
    }
    if (request->stop > request->start)
        madvise((void *)request->start, request->stop - request->start, MADV_WILLNEED);
    request->start = start, request->stop = stop;
}

/* Ask for those regions of a piece that have not been asked for. */
static void ask_once(struct pages *pages, struct mapped *item, struct request *request,
                     uintptr_t start, uintptr_t stop) {
    const uintptr_t base = item->start / pages->region, within = ~(pages->page - 1);
    for (uintptr_t region = start / pages->region; region <= (stop - 1) / pages->region; region++) {
        uint64_t *word = item->asked + (region - base) / 64;
        uint64_t bit = (uint64_t)1 << (region - base) % 64;
        if (__atomic_load_n(word, __ATOMIC_RELAXED) & bit ||
            __atomic_fetch_or(word, bit, __ATOMIC_RELAXED) & bit) /* another thread was faster */
            continue;
        __atomic_fetch_sub(&pages->unasked, 1, __ATOMIC_RELAXED);
        uintptr_t first = region * pages->region, last = first + pages->region;
        uintptr_t end = (item->stop + pages->page - 1) & within;
        ask(request, first > item->start ? first : item->start & within, last < end ? last : end);
    }
}

void read_ahead(const struct feature_table *table, int cold, const void *const *pieces, size_t n,
                size_t bytes) {
    struct pages *pages = table->pages;
    struct request request = {0};
    uintptr_t seen = 0, seen_end = 0; /* around the last piece */
    size_t near = 0;
    for (size_t i = 0; i < n; i++) {
        uintptr_t start = (uintptr_t)pieces[i], stop = start + bytes;
        if (start >= seen && stop <= seen_end)
            continue;
        if (near >= pages->n || start < pages->items[near].start ||
            start >= pages->items[near].stop)
            near = item_after(pages, start);
        /* Where arrays overlap, the one found need not hold the piece: it has no bits for it. */
        const struct mapped *item = near < pages->n ? pages->items + near : NULL;
        int told = !item || !item->asked || start < item->start || stop > item->stop;
        uintptr_t size = told ? pages->page : pages->region;
        seen = start & ~(size - 1), seen_end = (stop + size - 1) & ~(size - 1);
        if (!told)
            ask_once(pages, pages->items + near, &request, start, stop);
        else if (cold & COLD_TOLD)
            ask(&request, seen, seen_end);
    }
    ask(&request, 0, 0);
}
#else
int pages_make(struct feature_table *table) {
    (void)table;
    return ROWS_OK;
}

void pages_free(struct feature_table *table) { (void)table; }

int pages_cold(const struct feature_table *table, const int64_t *starts, const int64_t *stops,
               size_t n_ranges, uint64_t n_rows, int with_sketch) {
    (void)table, (void)starts, (void)stops, (void)n_ranges, (void)n_rows, (void)with_sketch;
    return 0;
}

void read_ahead(const struct feature_table *table, int cold, const void *const *pieces, size_t n,
                size_t bytes) {
    (void)table, (void)cold, (void)pieces, (void)n, (void)bytes;
}
#endif
