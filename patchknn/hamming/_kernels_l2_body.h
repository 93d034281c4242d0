/* What is the same with every instruction set, for the file that includes this to compile: it has
   defined squares(), distances() and centre() for rows of either dtype, squares_sketch(),
   match_panel() and select_within(); or, with TOGETHER and PANEL_ROWS, distances_of() and
   match_rows() of a few rows at a time in place of two of them. */

#ifdef TOGETHER
static inline __attribute__((always_inline)) void
distances(const void *const *rows, size_t n, const double *query, size_t dim, int half,
          double *out) {
    size_t i = 0;
    for (; i + TOGETHER <= n; i += TOGETHER)
        distances_of(rows + i, TOGETHER, query, dim, half, out + i);
    for (; i < n; i++)
        distances_of(rows + i, 1, query, dim, half, out + i);
}

static size_t match_panel(const float *rows, size_t stride, size_t n, const float *panel,
                          size_t dim, const float *norms, const float *bounds,
                          struct panel_match *found) {
    size_t i = 0, count = 0;
    for (; i + PANEL_ROWS <= n; i += PANEL_ROWS)
        count += match_rows(rows + i * stride, stride, PANEL_ROWS, i, panel, dim, norms, bounds,
                            found + count);
    for (; i < n; i++)
        count += match_rows(rows + i * stride, stride, 1, i, panel, dim, norms, bounds,
                            found + count);
    return count;
}
#endif

static void squares_half(const void *const *rows, size_t n, const float *query, size_t dim,
                         float *out) {
    squares(rows, n, query, dim, 1, out);
}

static void squares_single(const void *const *rows, size_t n, const float *query, size_t dim,
                           float *out) {
    squares(rows, n, query, dim, 0, out);
}

static void distances_half(const void *const *rows, size_t n, const double *query, size_t dim,
                           double *out) {
    distances(rows, n, query, dim, 1, out);
}

static void distances_single(const void *const *rows, size_t n, const double *query, size_t dim,
                             double *out) {
    distances(rows, n, query, dim, 0, out);
}

static void centre_half(const void *const *rows, size_t n, const float *mean, size_t dim,
                        float *centred, size_t stride, float *norms) {
    centre(rows, n, mean, dim, 1, centred, stride, norms);
}

static void centre_single(const void *const *rows, size_t n, const float *mean, size_t dim,
                          float *centred, size_t stride, float *norms) {
    centre(rows, n, mean, dim, 0, centred, stride, norms);
}

static void project(const double *matrix, size_t n, const double *vector, size_t dim, double *out) {
    project_lanes(matrix, n, vector, dim, out);
}

const struct row_primitives PRIMITIVES = {
    NAME,           squares_half, squares_single, distances_half, distances_single,
    squares_sketch, centre_half,  centre_single,  match_panel,
    select_within,  project,
};
