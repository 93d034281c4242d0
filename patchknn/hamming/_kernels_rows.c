/* The table of features: L2 of a ball's rows. */
#include "_kernels_rows.h"

int add_feature_table(PyObject *module) {
    (void)module;
    return 0;
}
