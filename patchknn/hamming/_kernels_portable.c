/* Popcount scans for any machine. */
#include "_kernels.h"

const struct code_primitives code_primitives_portable = {"portable", NULL, NULL, NULL};
