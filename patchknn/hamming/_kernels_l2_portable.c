/* L2 of rows of features: portable. */
#include "_kernels_rows.h"

const struct row_primitives row_primitives_portable = {"portable"};
