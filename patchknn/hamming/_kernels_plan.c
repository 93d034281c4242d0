/* The cost model: what a scan and an index walk cost, and how far to search each part.

   The costs of single operations are measured, per instruction set (struct code_costs). What is
   known of a query before its walk begins is the size of the bucket that it falls into in each
   part. A bucket that differs in j >= 1 bits is taken to hold the average of the part, and all
   buckets at distance j together once more what the query's own bucket holds: codes are
   clustered, and a cluster spreads over a few flipped bits. On uniform codes that is right, too. */
#include "_kernels_codes.h"

#define CACHE_BYTES ((size_t)1 << 23) /* a table below that stays in the cache between queries */

double scan_cost(const struct code_table *table, size_t together) {
    const struct code_costs *costs = &code_primitives->costs;
    double words = (double)table->n_codes * table->width;
    double cost = words * costs->word;
    if (words * 8 > CACHE_BYTES)
        cost += words * costs->memory / (double)(together ? together : 1);
    return cost;
}

static double level_cost(const struct plan *plan, const struct code_table *table, size_t p,
                         uint32_t size) {
    const struct code_costs *costs = &code_primitives->costs;
    const int level = plan->reach[p] + 1;
    if (level == 0)
        return costs->lookup + size * costs->entry;
    double lookups = plan->level[p];
    double density = (double)table->n_codes / (double)((uint64_t)1 << table->parts[p].width);
    return lookups * (costs->lookup + density * costs->entry) + size * costs->entry;
}

void plan_start(struct plan *plan, const struct code_table *table, const uint32_t *sizes) {
    plan->cost = 0;
    for (size_t p = 0; p < table->n_parts; p++) {
        plan->reach[p] = -1;
        plan->level[p] = 1;
        plan->next[p] = level_cost(plan, table, p, sizes[p]);
    }
}

uint32_t plan_step(struct plan *plan, const struct code_table *table, const uint32_t *sizes,
                   int part) {
    size_t best = part < 0 ? 0 : (size_t)part;
    for (size_t p = 1; part < 0 && p < table->n_parts; p++)
        if (plan->next[p] < plan->next[best])
            best = p;
    plan->cost += plan->next[best];
    plan->reach[best]++;
    /* Beyond the part's width there is nothing to look up, and level becomes 0. */
    const double width = table->parts[best].width, reached = plan->reach[best];
    plan->level[best] = reached < width ? plan->level[best] * (width - reached) / (reached + 1) : 0;
    plan->next[best] = level_cost(plan, table, best, sizes[best]);
    return (uint32_t)best;
}

int walks_are_dear(const struct code_table *table, uint32_t radius, double budget) {
    const uint32_t sizes[MAX_PARTS] = {0};
    struct plan plan;
    if (!table->n_parts)
        return 1;
    plan_start(&plan, table, sizes);
    for (uint32_t i = 0; i <= radius && plan.cost <= budget; i++)
        plan_step(&plan, table, sizes, -1);
    return plan.cost > budget;
}
