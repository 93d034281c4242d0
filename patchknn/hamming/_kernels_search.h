/* What Python asks of a CodeTable: at once, or in blocks that several threads take. */
#ifndef PATCHKNN_KERNELS_SEARCH_H
#define PATCHKNN_KERNELS_SEARCH_H

#include "_kernels_batch.h"

enum { SEARCH_BALL, SEARCH_SCAN, SEARCH_NEAREST };

/* Of a CodeTable `object`; what the arguments are, see its methods. */
PyObject *search_table(PyObject *object, PyObject *const *arguments, Py_ssize_t count, int kind);
PyObject *search_blocks(PyObject *object, PyObject *const *arguments, Py_ssize_t count, int kind);

int add_code_search(PyObject *module);

#endif
