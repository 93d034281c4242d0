/* The table of distinct codes: scan, probe and multi-index. */
#include "_kernels_codes.h"

int add_code_table(PyObject *module) {
    (void)module;
    return 0;
}
