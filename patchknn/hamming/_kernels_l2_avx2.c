/* L2 of rows of features: avx2. */
#include "_kernels_rows.h"

#ifdef PATCHKNN_X86
const struct row_primitives row_primitives_avx2 = {"avx2"};
#endif
