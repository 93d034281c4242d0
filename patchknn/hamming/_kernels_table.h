/* FeatureTable as a Python object, for the files that give it methods. */
#ifndef PATCHKNN_KERNELS_TABLE_H
#define PATCHKNN_KERNELS_TABLE_H

#include "_kernels_rows.h"

typedef struct {
    PyObject_HEAD
    struct feature_table table;
    Py_buffer *shards, rows, values, mean, matrix;
    size_t n_held;
} FeatureTable;

extern PyTypeObject feature_table_type;

/* A contiguous buffer of exactly `items` items, or (items < 0) of any whole number of them: of
   numbers of 4 bytes or (where an item is a multiple of that) 8, aligned to their size. */
int get_buffer(PyObject *object, Py_buffer *view, size_t item, Py_ssize_t items, const char *what);
/* The same, wherever it lies in memory. */
int get_bytes(PyObject *object, Py_buffer *view, size_t item, Py_ssize_t items, const char *what);
/* 0, or -1 with an exception where rows cannot have so many values. */
int get_dim(Py_ssize_t dim);
/* Ranges of positions within the table. */
int get_ranges(const struct feature_table *table, PyObject *starts, PyObject *stops,
               Py_buffer *first, Py_buffer *last, size_t *n);
/* 0, or -1 with the exception that says what ROWS_* says. */
int rows_fail(int status);

#define SKETCH_UNTRIED 2
/* Whether the next query may use the sketch (0 or SKETCH_UNTRIED), and whether it paid (1 or 0, or
   still SKETCH_UNTRIED); with the GIL held. */
int sketch_wanted(struct feature_table *table, int asked);
void sketch_judged(struct feature_table *table, int paid);

/* `n` queries of `dim` values, by the size of an item float16, float32 or float64, and the bytes of
   each; or one of them, made. 0, or -1 with an exception set. */
int get_queries(PyObject *object, size_t dim, size_t n, Py_buffer *view, size_t *bytes,
                const char *what);
int get_query(PyObject *object, size_t dim, struct row_query *query);
/* (positions int64, distances float64, rows read, rows skipped), the arrays as bytearrays. */
PyObject *rows_answer(const struct matches *matches);

int add_row_batch(PyObject *module); /* _kernels_row_batch.c */
int add_two_stage(PyObject *module); /* _kernels_two_stage.c */
int add_two_stage_many(PyObject *module);

#endif
