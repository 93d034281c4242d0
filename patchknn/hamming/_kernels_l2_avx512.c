/* L2 of rows of features: avx512. */
#include "_kernels_rows.h"

#ifdef PATCHKNN_X86
const struct row_primitives row_primitives_avx512 = {"avx512"};
#endif
