/* Popcount scans with avx512. */
#include "_kernels.h"

#ifdef PATCHKNN_X86
const struct code_primitives code_primitives_avx512 = {"avx512", NULL, NULL, NULL};
#endif
