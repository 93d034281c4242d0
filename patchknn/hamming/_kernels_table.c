/* Where the rows of a table of features are: shards, positions, addresses. No Python here. */
#include "_kernels_rows.h"

#include <stdlib.h>

int shards_number(struct feature_table *table) {
    const size_t n = table->n_shards;
    table->step = 0;
    while (table->n_positions >> table->step > 4 * n)
        table->step++;
    const size_t entries = (size_t)(table->n_positions >> table->step) + 1;
    table->shard_from = malloc(entries * sizeof *table->shard_from);
    if (!table->shard_from)
        return ROWS_NO_MEMORY;
    size_t shard = 0;
    for (size_t i = 0; i < entries; i++) {
        while (shard + 1 < n && table->first_rows[shard + 1] <= (uint64_t)i << table->step)
            shard++;
        table->shard_from[i] = (uint32_t)shard;
    }
    return ROWS_OK;
}

/* The shard that holds a segment row, near the one that held the last. */
static inline size_t shard_of(const struct feature_table *table, uint64_t row, size_t near) {
    const uint64_t *first = table->first_rows;
    if (first[near] <= row && row < first[near + 1])
        return near;
    size_t shard = table->shard_from[row >> table->step];
    while (first[shard + 1] <= row)
        shard++;
    return shard;
}

static inline const char *address(const struct feature_table *table, uint64_t row, size_t *shard) {
    *shard = shard_of(table, row, *shard);
    return table->bases[*shard] + (row - table->first_rows[*shard]) * table->row_bytes;
}

int find_rows(const struct feature_table *table, const uint32_t *positions, size_t n,
              const void **rows) {
    size_t shard = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t row = table->rows ? table->rows[positions[i]] : positions[i];
        if (row >= table->n_positions)
            return -1;
        rows[i] = address(table, row, &shard);
    }
    return 0;
}

/* The cursor's next positions, as one run; 0 where the ranges have ended. */
static size_t next_run(struct cursor *cursor, size_t room, uint32_t *positions) {
    while (cursor->range < cursor->n_ranges &&
           cursor->position >= cursor->stops[cursor->range])
        if (++cursor->range < cursor->n_ranges)
            cursor->position = cursor->starts[cursor->range];
    if (cursor->range >= cursor->n_ranges)
        return 0;
    uint64_t left = (uint64_t)(cursor->stops[cursor->range] - cursor->position);
    size_t run = left < room ? (size_t)left : room;
    uint32_t first = (uint32_t)cursor->position;
    for (size_t i = 0; i < run; i++)
        positions[i] = first + (uint32_t)i;
    cursor->position += (int64_t)run;
    return run;
}

ptrdiff_t next_rows(struct cursor *cursor, size_t room, uint32_t *positions, const void **rows) {
    const struct feature_table *table = cursor->table;
    size_t count = 0, run;
    while (count < room && (run = next_run(cursor, room - count, positions + count))) {
        size_t end = count + run;
        while (count < end) {
            uint64_t row = table->rows ? table->rows[positions[count]] : positions[count];
            if (row >= table->n_positions)
                return -1;
            const char *place = address(table, row, &cursor->shard);
            rows[count++] = place;
            if (table->rows)
                continue;
            /* The rows that follow in this shard, without looking for each. */
            uint64_t left = table->first_rows[cursor->shard + 1] - row - 1;
            size_t last = left < end - count ? count + (size_t)left : end;
            for (; count < last; count++)
                rows[count] = place += table->row_bytes;
        }
    }
    return (ptrdiff_t)count;
}

size_t next_sketches(struct cursor *cursor, size_t room, uint32_t *positions,
                     const void **sketches) {
    size_t count = 0, run;
    while (count < room && (run = next_run(cursor, room - count, positions + count))) {
        const uint16_t *place = sketch_at(cursor->table, positions[count]);
        for (size_t end = count + run; count < end; place += SKETCH_WIDTH)
            sketches[count++] = place;
    }
    return count;
}
