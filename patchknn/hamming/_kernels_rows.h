/* Primitives over rows of features. */
#ifndef PATCHKNN_KERNELS_ROWS_H
#define PATCHKNN_KERNELS_ROWS_H

#include "_kernels.h"

struct row_primitives {
    const char *name;
};

#endif
