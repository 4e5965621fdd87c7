/* The least that stands between Python and `run`: one call that checks the images, makes room for the logits, runs. */
#ifdef WITH_PYTHON
#define PY_SSIZE_T_CLEAN
#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <Python.h>
#include <numpy/arrayobject.h>

#define SPARE 16 /* workspaces kept for the next calls; more threads at once get one of their own */

struct network {
    const int8_t *weights;
    long work_bytes, release, channels, height, width, axes, result[3]; /* logits: axes with the images' own, and sides */
    void *spare[SPARE];
    PyObject *owner, *general;
};

static int8_t *take(struct network *net)
{
    for (int i = 0; i < SPARE; i++) {
        if (__atomic_load_n(&net->spare[i], __ATOMIC_RELAXED)) {
            void *work = __atomic_exchange_n(&net->spare[i], (void *)0, __ATOMIC_ACQUIRE);
            if (work) {
                return work;
            }
        }
    }
    const size_t size = ((size_t)net->work_bytes + 63) / 64 * 64 + 64;
    void *work = aligned_alloc(64, size);
    return work ? memset(work, 0, size) : work;
}

static void give_back(struct network *net, void *work)
{
    for (int i = 0; i < SPARE; i++) {
        void *none = 0;
        if (__atomic_compare_exchange_n(&net->spare[i], &none, work, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
            return;
        }
    }
    free(work);
}

static PyObject *call(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct network *const net = PyCapsule_GetPointer(self, NULL);
    if (nargs == 1 && !names && PyArray_CheckExact(args[0])) {
        PyArrayObject *const x = (PyArrayObject *)args[0];
        const npy_intp *const d = PyArray_DIMS(x);
        if (PyArray_NDIM(x) == 4 && PyArray_TYPE(x) == NPY_UINT8 && PyArray_IS_C_CONTIGUOUS(x)
            && d[1] == net->channels && d[2] == net->height && d[3] == net->width) {
            npy_intp shape[4] = {d[0], net->result[0], net->result[1], net->result[2]};
            PyObject *const out = PyArray_SimpleNew((int)net->axes, shape, NPY_INT32);
            if (!out) {
                return NULL;
            }
            int8_t *const work = take(net);
            if (!work) {
                Py_DECREF(out);
                return PyErr_NoMemory();
            }
            const uint8_t *const images = PyArray_DATA(x);
            int32_t *const logits = PyArray_DATA((PyArrayObject *)out);
            if (d[0] >= net->release) {
                Py_BEGIN_ALLOW_THREADS
                run(net->weights, images, logits, (long)shape[0], work);
                Py_END_ALLOW_THREADS
            } else { /* over before another thread would wake up */
                run(net->weights, images, logits, (long)shape[0], work);
            }
            give_back(net, work);
            return out;
        }
    }
    return PyObject_Vectorcall(net->general, args, (size_t)nargs, names);
}

static void forget(PyObject *capsule)
{
    struct network *const net = PyCapsule_GetPointer(capsule, NULL);
    for (int i = 0; i < SPARE; i++) {
        free(net->spare[i]);
    }
    Py_XDECREF(net->owner);
    Py_XDECREF(net->general);
    PyMem_Free(net);
}

static PyMethodDef method = {"run", (PyCFunction)(void (*)(void))call, METH_FASTCALL | METH_KEYWORDS, NULL};

/* A function of images. `owner` keeps the weights, `general` takes all that is not a plain array of the right shape. */
__attribute__((visibility("default"))) PyObject *bind(
    const void *weights, const long *figures, PyObject *owner, PyObject *general)
{
    if (!PyArray_API && _import_array() < 0) {
        return NULL;
    }
    struct network *const net = PyMem_Calloc(1, sizeof *net);
    if (!net) {
        return PyErr_NoMemory();
    }
    net->weights = weights;
    net->work_bytes = figures[0];
    net->release = figures[1];
    net->channels = figures[2];
    net->height = figures[3];
    net->width = figures[4];
    net->axes = figures[5];
    for (int i = 0; i < 3; i++) {
        net->result[i] = figures[6 + i];
    }
    Py_INCREF(owner);
    Py_INCREF(general);
    net->owner = owner;
    net->general = general;
    PyObject *const capsule = PyCapsule_New(net, NULL, forget);
    PyObject *const function = capsule ? PyCFunction_NewEx(&method, capsule, NULL) : NULL;
    Py_XDECREF(capsule);
    return function;
}
#endif
