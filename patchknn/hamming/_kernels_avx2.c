/* Popcount scans with avx2. */
#include "_kernels.h"

#ifdef PATCHKNN_X86
const struct code_primitives code_primitives_avx2 = {"avx2", NULL, NULL, NULL};
#endif
