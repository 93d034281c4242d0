/* What the C files of the kernels share: the primitives of each instruction set, as tables. */
#ifndef PATCHKNN_KERNELS_H
#define PATCHKNN_KERNELS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define PATCHKNN_X86 1
#endif

/* What the search costs, in nanoseconds; measured by tests/benchmarks/costs.py. */
struct code_costs {
    double word;      /* comparing one word that is in the cache */
    double memory;    /* fetching one word of a long scan from memory */
    double lookup;    /* finding a bucket and its entries, in memory rather than in the cache */
    double entry;     /* comparing one of them */
};

/* Primitives over popcounts; one table per instruction set (_kernels_<name>.c). Words and codes
   have any alignment; numbers found are ascending; the outputs have room for n + 16, and each
   returns how many there are. */
struct code_primitives {
    const char *name;
    struct code_costs costs;
    /* Numbers i and distances of the n words with popcount(words[i] ^ query) <= radius. */
    size_t (*scan_words)(const uint64_t *words, size_t n, uint64_t query, uint32_t radius,
                         uint32_t *found, uint16_t *distances);
    /* The same, without those words where popcount((words[i] ^ query) & masks[j]) <= limits[j]
       for any of the n_masks masks. */
    size_t (*scan_fresh)(const uint64_t *words, size_t n, uint64_t query, uint32_t radius,
                         const uint64_t *masks, const int64_t *limits, size_t n_masks,
                         uint32_t *found, uint16_t *distances);
    /* The same as scan_words for codes of `width` words each, stored one after the other. */
    size_t (*scan_wide)(const uint64_t *codes, size_t n, size_t width, const uint64_t *query,
                        uint32_t radius, uint32_t *found, uint16_t *distances);
    /* The same for codes of `width` bytes each, stored one after the other. */
    size_t (*scan_bytes)(const uint8_t *codes, size_t n, size_t width, const uint8_t *query,
                         uint32_t radius, uint32_t *found, uint16_t *distances);
    /* The distance of two codes of `width` words. */
    uint32_t (*distance)(const uint64_t *code, const uint64_t *query, size_t width);
};

/* Primitives over features; one table per instruction set (_kernels_l2_<name>.c). */
struct row_primitives;

extern const struct code_primitives code_primitives_portable;
extern const struct row_primitives row_primitives_portable;
#ifdef PATCHKNN_X86
extern const struct code_primitives code_primitives_avx2, code_primitives_avx512;
extern const struct row_primitives row_primitives_avx2, row_primitives_avx512;
#endif

/* The tables in use; chosen when the module is imported, or by select(). */
extern const struct code_primitives *code_primitives;
extern const struct row_primitives *row_primitives;

/* Add types and functions of one file to the module; 0, or -1 with an exception set. */
int add_code_table(PyObject *module); /* _kernels_codes.c */
int add_feature_table(PyObject *module); /* _kernels_rows.c */

#endif
