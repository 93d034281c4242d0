/* Index walks: multi-index hashing (Norouzi, Punjani and Fleet 2014) over distinct codes.

   If two codes differ in at most r bits, and the parts may differ in s_0, s_1, ... bits with
   sum (s_p + 1) = r + 1, then in some part p they differ in at most s_p: else they would differ
   in at least r + 1. A step searches one part one bit further than before. A code that lay
   within the reach of any part before a step was found then, so each is found once. Searching
   part 0 alone as far as r is the probing of sorted codes by their prefixes. */
#include "_kernels_walk.h"

/* Plan one step more: the cheapest, or one in `part` if that is >= 0. */
static void plan_next(struct walk *walk, struct plan *plan, struct step *step, int part) {
    const struct plan before = *plan;
    const uint32_t chosen = plan_step(plan, walk->table, walk->sizes, part);
    step->part = (uint8_t)chosen;
    step->level = (int16_t)plan->reach[chosen];
    for (size_t q = 0; q < walk->table->n_parts; q++)
        step->seen[q] = (int16_t)before.reach[q];
    walk->left += before.level[chosen];
}

int index_ball(const struct code_table *table, const uint64_t *query, uint32_t radius, int path,
               double budget, struct hits *hits) {
    struct step steps[MAX_BITS + 1];
    struct walk walk;
    struct plan plan;
    const size_t begun = hits->n;
    int status = walk_start(&walk, table, query, budget, hits);
    if (status != SEARCH_OK)
        return status;
    plan_start(&plan, table, walk.sizes);
    for (uint32_t i = 0; i <= radius; i++) {
        int part = path == PATH_PROBE ? 0 : path == PATH_MULTI ? (int)(i % table->n_parts) : -1;
        plan_next(&walk, &plan, &steps[i], part);
        if (plan.cost > budget)
            return SEARCH_DEAR;
    }
    walk.limit = radius;
    status = walk_take(&walk, steps, (size_t)radius + 1);
    if (status == SEARCH_DEAR)
        hits->n = begun;
    hits->path = path != PATH_AUTO ? path : plan.reach[0] == (int)radius ? PATH_PROBE : PATH_MULTI;
    return status;
}

/* Whether to leave a walk that may need `steps` steps more. Each of them may lower the limit, so
   cheap ones are taken even where all together would be too dear. */
static int dear(const struct walk *walk, const struct plan *plan, uint32_t steps) {
    struct plan ahead = *plan;
    ahead.cost = walk->spent;
    plan_step(&ahead, walk->table, walk->sizes, -1);
    if (ahead.cost < walk->budget / TRIAL)
        return 0;
    for (uint32_t i = 1; i < steps && ahead.cost <= walk->budget; i++)
        plan_step(&ahead, walk->table, walk->sizes, -1);
    return ahead.cost > walk->budget;
}

int index_nearest(const struct code_table *table, const uint64_t *query, uint32_t guess,
                  double budget, struct tally *tally, struct hits *hits) {
    const uint32_t max_radius = tally->limit, together = table->n_parts;
    const size_t begun = hits->n;
    struct step steps[MAX_PARTS];
    struct walk walk;
    struct plan plan;
    int status = walk_start(&walk, table, query, budget, hits);
    if (status != SEARCH_OK)
        return status;
    walk.tally = tally;
    plan_start(&plan, table, walk.sizes);
    for (uint32_t i = 0; i < together; i++)
        plan_next(&walk, &plan, &steps[i], -1);
    if (plan.cost > budget)
        return SEARCH_DEAR;
    /* The first steps are taken together, and again with a larger limit as long as they give too
       few: what they read is in the cache by then. */
    const double lookups = walk.left;
    for (walk.limit = guess;; walk.limit *= 2) {
        if (walk.limit >= max_radius || walk.limit == 0)
            walk.limit = max_radius;
        tally_start(tally, tally->wanted, walk.limit);
        hits->n = begun;
        walk.left = lookups;
        status = walk_take(&walk, steps, together);
        if (status != SEARCH_OK || tally->within >= tally->wanted || walk.limit == max_radius)
            break;
    }
    for (uint32_t taken = together; status == SEARCH_OK && taken <= tally->limit; taken++) {
        if (dear(&walk, &plan, tally->limit + 1 - taken)) {
            status = SEARCH_DEAR;
            break;
        }
        walk.limit = tally->limit;
        walk.left = 0;
        plan_next(&walk, &plan, steps, -1);
        status = walk_take(&walk, steps, 1);
    }
    if (status == SEARCH_OK)
        tally_trim(tally, hits, begun);
    if (status == SEARCH_DEAR) {
        hits->n = begun;
        tally_start(tally, tally->wanted,
                    tally->within >= tally->wanted ? tally->limit : max_radius);
    }
    hits->path = PATH_MULTI;
    return status;
}
