/* The extension module: which instruction sets this machine has, and which one is in use. */
#include "_kernels.h"

#include <string.h>
#ifdef PATCHKNN_X86
#include <cpuid.h>
#endif

const struct code_primitives *code_primitives = &code_primitives_portable;
const struct row_primitives *row_primitives = &row_primitives_portable;

struct level {
    const char *name;
    const struct code_primitives *codes;
    const struct row_primitives *rows;
};

static const struct level levels[] = {
    {"portable", &code_primitives_portable, &row_primitives_portable},
#ifdef PATCHKNN_X86
    {"avx2", &code_primitives_avx2, &row_primitives_avx2},
    {"avx512", &code_primitives_avx512, &row_primitives_avx512},
#endif
};

static const size_t n_levels = sizeof levels / sizeof levels[0];

#ifdef PATCHKNN_X86
/* Asked of the processor itself: older compilers refuse the name "f16c". */
static int has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

/* __builtin_cpu_supports also asks whether the operating system saves the wide registers. */
static int runs_here(const char *name) {
#ifdef PATCHKNN_X86
    if (strcmp(name, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               has_f16c() && __builtin_cpu_supports("popcnt");
    if (strcmp(name, "avx512") == 0)
        return runs_here("avx2") && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vpopcntdq");
#endif
    return strcmp(name, "portable") == 0;
}

static PyObject *available(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    PyObject *names = PyList_New(0);
    for (size_t i = 0; names && i < n_levels; i++) {
        if (!runs_here(levels[i].name))
            continue;
        PyObject *name = PyUnicode_FromString(levels[i].name);
        if (!name || PyList_Append(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

static PyObject *select_level(PyObject *self, PyObject *argument) {
    (void)self;
    const char *name = PyUnicode_AsUTF8(argument);
    if (!name)
        return NULL;
    for (size_t i = 0; i < n_levels; i++)
        if (strcmp(levels[i].name, name) == 0 && runs_here(name)) {
            code_primitives = levels[i].codes;
            row_primitives = levels[i].rows;
            Py_RETURN_NONE;
        }
    return PyErr_Format(PyExc_ValueError, "no kernels called %s run on this machine", name);
}

static PyMethodDef methods[] = {
    {"available", available, METH_NOARGS,
     "The instruction sets that this machine runs, the widest last."},
    {"select", select_level, METH_O,
     "Use one of them from now on; ValueError where it does not run here."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernels", "Search kernels; patchknn.hamming.kernels chooses.", -1,
    methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernels(void) {
#ifdef PATCHKNN_X86
    __builtin_cpu_init();
#endif
    PyObject *module = PyModule_Create(&definition);
    if (!module)
        return NULL;
    if (add_code_table(module) < 0 || add_feature_table(module) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
