/* How far float32 sums may be from true distances, and what follows for rows that can be left.

   Notation: u = 2^-24; x a row, q the query in float64, p the query rounded to float32; t = |x - q|
   the true distance; e the float64 distance that is shown; F the float32 sum of squares.

   F. Each difference x_i - p_i is rounded once, relative error u, and once more absolutely, by at
   most m = 2^-126, should the processor flush subnormal numbers to zero (some libraries switch it
   to that), inputs included: 3 m in all. Its square and each addition round by a factor within
   1 +- u (fused or not, in any order: a term goes through at most D additions, and 16 more that
   add empty lanes), and flushing loses at most m each time. All terms are >= 0, so relative
   errors do not grow: with n = D + 32, and n u <= 1/64,
       F <= (1 + r) (|x - p| + 3 m sqrt(D))^2 + a,    F >= (1 - r) (|x - p| - 3 m sqrt(D))^2 - a
   where r = 1.1 n u bounds (1 + u)^n - 1 and a = 4 n m. With c >= |p - q| + 3 m sqrt(D) (query_make() rounds it up)
       sqrt(max(F - a, 0) / (1 + r)) - c <= t <= sqrt((F + a) / (1 - r)) + c.
   A sum that overflows is +inf; its true sum of squares is then at least FLT_MAX (1 - r), so F = inf
   is as good as any F above a limit that lies below half of FLT_MAX. A limit beyond that becomes
   +inf: every row is a candidate then, and float64 decides.

   e. By the same reasoning in float64 with D / 8 + 5 roundings a term and the square root,
   |e - t| <= d t + a' with d = (D + 32) 2^-53; underflow below 2^-500 is within c as computed
   here, since c >= 2^-120 always.

   The limit. When k rows have F <= T, each of them has t <= tau = sqrt((T + a) / (1 - r)) + c, so
   the k-th smallest e is at most tau (1 + d), and a row that can be in the answer has
   t <= rho = tau (1 + d) / (1 - d), hence F <= (1 + r) (rho + c)^2 + a. All of it is computed in
   float64 and rounded up by factors of 1 + 2^-40, and to float32 by 1 + 2^-20.

   The sketch. With P (p x D) of spectral norm <= 1, I - P'P is positive semidefinite and
   x -> (P x, (I - P'P)^(1/2) x) keeps lengths; by the triangle inequality
       |x - y|^2 >= |P x - P y|^2 + (|(I - P'P)^(1/2) x| - |(I - P'P)^(1/2) y|)^2,
   and |(I - P'P)^(1/2) x| = sqrt(|x|^2 - |P x|^2). So t >= |s(x) - s(q)|, s being that map to
   p + 1 values after subtracting the mean. What is stored differs from s(x) / scale by at most
   slack / scale in all; the query's own sketch by what query_sketch() bounds, which is added to
   slack. G is the float32 sum for the two sketches: it bounds their distance from below as F does,
   with D = 32. A row is left where G exceeds bounds_sketch(rho), for then t > rho. */
#include "_kernels_rows.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define UP (1 + 0x1p-40)
#define SMALLEST 0x1p-126

struct bounds bounds_of(size_t dim, double conversion) {
    double n = (double)dim + 32;
    struct bounds bounds = {
        .relative = 1.1 * n * 0x1p-24,
        .absolute = 4 * n * SMALLEST,
        .exact = n * 0x1p-53,
        .conversion = (conversion + 3 * SMALLEST * sqrt(n)) * UP,
    };
    return bounds;
}

static float round_up(double value) {
    value *= 1 + 0x1p-20;
    return value < FLT_MAX / 2 ? (float)(value + SMALLEST) : INFINITY;
}

float bounds_sum(const struct bounds *bounds, double distance) {
    double furthest = (distance + bounds->conversion) * UP;
    return round_up((1 + bounds->relative) * furthest * furthest + bounds->absolute);
}

void bounds_squares(const struct bounds *bounds, float sum, float *lower, float *upper) {
    double least = sqrt(fmax(fmin(sum, FLT_MAX / 2) - bounds->absolute, 0) /
                        (1 + bounds->relative)) / UP - bounds->conversion;
    double most = sqrt(((double)sum + bounds->absolute) / (1 - bounds->relative)) * UP +
                  bounds->conversion;
    *lower = least > 0 ? (float)(fmin(least * least, FLT_MAX / 2) / (1 + 0x1p-20)) : 0;
    *upper = round_up(most * most);
}

float bounds_limit(const struct bounds *bounds, float kth, double *distance) {
    double tau = sqrt(((double)kth + bounds->absolute) / (1 - bounds->relative)) * UP;
    tau += bounds->conversion;
    double rho = tau * (1 + bounds->exact) / (1 - bounds->exact) * UP;
    *distance = rho;
    return bounds_sum(bounds, rho);
}

float bounds_sketch(double distance, double slack, double scale) {
    struct bounds bounds = bounds_of(SKETCH_WIDTH, 0);
    double furthest = ((distance + slack) / scale + bounds.conversion) * UP;
    return round_up((1 + bounds.relative) * furthest * furthest + bounds.absolute);
}

#define FEW 512

/* Hoare's selection; the pivot is never the last value, so both parts get smaller. */
static float kth_of_few(float *values, ptrdiff_t n, ptrdiff_t k) {
    ptrdiff_t low = 0, high = n - 1;
    while (low < high) {
        float pivot = values[low + (high - low) / 2];
        ptrdiff_t i = low - 1, j = high + 1;
        for (;;) {
            do
                i++;
            while (values[i] < pivot);
            do
                j--;
            while (values[j] > pivot);
            if (i >= j)
                break;
            float swapped = values[i];
            values[i] = values[j];
            values[j] = swapped;
        }
        if (k - 1 <= j)
            high = j;
        else
            low = j + 1;
    }
    return values[low];
}

/* Floats >= 0 are ordered as their bits are: three passes settle 11, 11 and 10 bits of the k-th. */
float kth_smallest(const float *values, size_t stride, size_t n, size_t k) {
    static const int shifts[3] = {21, 10, 0};
    static const uint32_t widths[3] = {2048, 2048, 1024};
    uint32_t prefix = 0, known = 0;
    if (n <= FEW) {
        float few[FEW];
        for (size_t i = 0; i < n; i++)
            memcpy(few + i, (const char *)values + i * stride, sizeof *few);
        return kth_of_few(few, (ptrdiff_t)n, (ptrdiff_t)k);
    }
    for (int pass = 0; pass < 3; pass++) {
        uint32_t counts[2048], bin = 0;
        memset(counts, 0, widths[pass] * sizeof *counts);
        for (size_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, (const char *)values + i * stride, sizeof bits);
            if ((bits & known) == prefix)
                counts[(bits >> shifts[pass]) & (widths[pass] - 1)]++;
        }
        while (bin + 1 < widths[pass] && k > counts[bin])
            k -= counts[bin++];
        prefix |= bin << shifts[pass];
        known |= (widths[pass] - 1) << shifts[pass];
    }
    float found;
    memcpy(&found, &prefix, sizeof found);
    return found;
}
