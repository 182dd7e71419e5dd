/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA's driver API, through function pointers that are looked up in the libcuda.so.1 which the
 * process has loaded. Nothing is linked, no header of CUDA is needed to build, and nothing is
 * loaded that was not there: dlopen() is called with RTLD_NOLOAD.
 *
 *    no driver --a library was loaded since the last look, and it is libcuda--> driver, for ever
 *
 * Looking is cheap because the dynamic linker counts how many libraries it has ever loaded
 * (dlpi_adds): while the count stays, the answer does. The driver is kept for ever, since no
 * program that has initialised CUDA can unload it.
 *
 * A copy needs a current context. The calling thread may have none (a thread of a pool) or another
 * GPU's, so the one that the memory belongs to is pushed for the batch and popped at its end.
 * Memory of a pool (cuMemAllocAsync) or of cuMemMap() belongs to none; then it is the primary
 * context of the GPU that the memory lies on, which is the one that PyTorch and the CUDA runtime
 * use.
 *
 * Numbers and signatures are those of cuda.h of CUDA 11 and 12, where they are fixed for good.
 */
#include "cuda.h"

#include <dlfcn.h>
#include <linux/../link.h> /* the system's: <link.h> alone would find the one of this folder */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "error.h"

/* CUresult, as far as it is looked at. */
enum { CUDA_OK = 0, CUDA_INVALID_VALUE = 1, CUDA_NO_MEMORY = 2, CUDA_INVALID_CONTEXT = 201 };
enum { CUDA_INVALID_HANDLE = 400 };
/* CUpointer_attribute and CUmemorytype. */
enum { ATTRIBUTE_CONTEXT = 1, ATTRIBUTE_MEMORY_TYPE = 2, ATTRIBUTE_DEVICE_ORDINAL = 9 };
enum { MEMORY_DEVICE = 2, MEMORY_UNIFIED = 4 };
/* Flags of cuMemHostRegister(): known to every context; the GPU will not write it. */
enum { REGISTER_PORTABLE = 1, REGISTER_READ_ONLY = 8 };

typedef unsigned long long cuda_pointer; /* CUdeviceptr */

struct fc_cuda_driver {
    int (*pointer_get_attributes)(unsigned count, int *attributes, void **out,
                                  cuda_pointer pointer);
    int (*context_get_current)(void **out);
    int (*context_push)(void *context);
    int (*context_pop)(void **out);
    int (*primary_context_retain)(void **out, int device);
    int (*primary_context_release)(int device);
    int (*copy_from)(void *host, cuda_pointer device, size_t bytes, void *stream);
    int (*copy_to)(cuda_pointer device, const void *host, size_t bytes, void *stream);
    int (*stream_wait)(void *stream);
    int (*host_register)(void *base, size_t bytes, unsigned flags);
    int (*host_unregister)(void *base);
    int (*error_name)(int result, const char **out);
    int (*error_string)(int result, const char **out);
};

/* A function's place in the struct and its name in the library. */
#define CUDA_FUNCTION(field, name)                                                                 \
    { offsetof(struct fc_cuda_driver, field), name }
static const struct cuda_function {
    size_t offset;
    const char *name;
} cuda_functions[] = {
    CUDA_FUNCTION(pointer_get_attributes, "cuPointerGetAttributes"),
    CUDA_FUNCTION(context_get_current, "cuCtxGetCurrent"),
    CUDA_FUNCTION(context_push, "cuCtxPushCurrent_v2"),
    CUDA_FUNCTION(context_pop, "cuCtxPopCurrent_v2"),
    CUDA_FUNCTION(primary_context_retain, "cuDevicePrimaryCtxRetain"),
    CUDA_FUNCTION(primary_context_release, "cuDevicePrimaryCtxRelease_v2"),
    CUDA_FUNCTION(copy_from, "cuMemcpyDtoHAsync_v2"),
    CUDA_FUNCTION(copy_to, "cuMemcpyHtoDAsync_v2"),
    CUDA_FUNCTION(stream_wait, "cuStreamSynchronize"),
    CUDA_FUNCTION(host_register, "cuMemHostRegister_v2"),
    CUDA_FUNCTION(host_unregister, "cuMemHostUnregister"),
    CUDA_FUNCTION(error_name, "cuGetErrorName"),
    CUDA_FUNCTION(error_string, "cuGetErrorString"),
};

/* ---- finding the driver ---- */

/* The driver belongs to the process, as in fork.c, not to a handle: there is one, and once it has
 * been found it stays. */
static struct fc_cuda_driver *_Atomic cuda_found;
static atomic_ullong cuda_loads_seen; /* of the last look that found none */

/* Stops at the first library: the count is the same in each. */
static int cuda_note_loads(struct dl_phdr_info *info, size_t bytes, void *loads_out) {
    (void)bytes;
    *(unsigned long long *)loads_out = info->dlpi_adds;
    return 1;
}

/* A driver that lacks one of the functions is older than CUDA 11 and counts as none. */
static struct fc_cuda_driver *cuda_look_up(void) {
    void *library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    struct fc_cuda_driver *driver = library ? calloc(1, sizeof *driver) : NULL;
    for (size_t i = 0; driver && i < sizeof cuda_functions / sizeof *cuda_functions; i++) {
        void *function = dlsym(library, cuda_functions[i].name);
        *(void **)((char *)driver + cuda_functions[i].offset) = function;
        if (!function) {
            free(driver);
            driver = NULL;
        }
    }
    if (library && !driver)
        dlclose(library);
    return driver;
}

/* Two threads may look at once: the first to store its driver wins, and both hold the same
 * functions. No lock, so that no fork() can leave one held in its child. */
static const struct fc_cuda_driver *cuda_driver(void) {
    struct fc_cuda_driver *driver = atomic_load_explicit(&cuda_found, memory_order_acquire);
    if (driver)
        return driver;
    unsigned long long loads = 0;
    dl_iterate_phdr(cuda_note_loads, &loads);
    if (loads == atomic_load_explicit(&cuda_loads_seen, memory_order_relaxed))
        return NULL;
    driver = cuda_look_up();
    struct fc_cuda_driver *other = NULL;
    if (!driver)
        atomic_store_explicit(&cuda_loads_seen, loads, memory_order_relaxed);
    else if (!atomic_compare_exchange_strong(&cuda_found, &other, driver)) {
        free(driver);
        driver = other;
    }
    return driver;
}

/* ---- failures ---- */

/* What a caller can do something about keeps its own status; anything else is a GPU or a driver
 * that does not work at the moment. */
static int cuda_status(int result) {
    switch (result) {
    case CUDA_INVALID_VALUE:
    case CUDA_INVALID_CONTEXT:
    case CUDA_INVALID_HANDLE:
        return FEATURE_E_INVALID;
    case CUDA_NO_MEMORY:
        return FEATURE_E_FULL;
    default:
        return FEATURE_E_UNAVAILABLE;
    }
}

/* sample_id NULL: it is about no sample. what: the driver's function. */
static int cuda_fail(const struct fc_cuda_driver *driver, int result, const char *verb,
                     const char *sample_id, const char *what) {
    const char *name = NULL, *meaning = NULL;
    if (driver->error_name(result, &name) || !name)
        name = "an unknown error";
    if (driver->error_string(result, &meaning) || !meaning)
        meaning = "the driver has no words for it";
    return fc_fail(cuda_status(result), "%s%s%s: CUDA's %s failed with %s (%d): %s", verb,
                   sample_id ? " sample " : "", sample_id ? sample_id : "", what, name, result,
                   meaning);
}

/* ---- whose memory it is ---- */

struct cuda_place {
    void *context; /* NULL: of a pool, or mapped by cuMemMap() */
    int device;
};

/* A pointer that the driver does not know gives zeros and success. A failure means that this
 * process cannot use CUDA (it is the forked child of one that did, or is exiting), and then it has
 * no device pointers that work. */
static bool cuda_is_device(const struct fc_cuda_driver *driver, const void *pointer,
                           struct cuda_place *out) {
    unsigned type = 0;
    int attributes[] = {ATTRIBUTE_MEMORY_TYPE, ATTRIBUTE_CONTEXT, ATTRIBUTE_DEVICE_ORDINAL};
    void *values[] = {&type, &out->context, &out->device};
    *out = (struct cuda_place){0};
    if (!pointer ||
        driver->pointer_get_attributes(3, attributes, values, (cuda_pointer)(uintptr_t)pointer))
        return false;
    return type == MEMORY_DEVICE || type == MEMORY_UNIFIED;
}

void *fc_cuda_first(const struct iovec *buffers, uint32_t count) {
    const struct fc_cuda_driver *driver = cuda_driver();
    struct cuda_place place;
    for (uint32_t i = 0; driver && i < count; i++)
        if (buffers[i].iov_len && cuda_is_device(driver, buffers[i].iov_base, &place))
            return buffers[i].iov_base;
    return NULL;
}

/* ---- copies ---- */

int fc_cuda_wait(void *stream, const char *verb, const char *sample_id) {
    if (!stream)
        return FEATURE_OK;
    const struct fc_cuda_driver *driver = cuda_driver();
    if (!driver)
        return fc_fail(FEATURE_E_INVALID,
                       "%s sample %s: a CUDA stream was named, but this process has not loaded "
                       "libcuda.so.1",
                       verb, sample_id);
    int result = driver->stream_wait(stream);
    return result ? cuda_fail(driver, result, verb, sample_id,
                              "cuStreamSynchronize of the caller's stream")
                  : FEATURE_OK;
}

void fc_cuda_batch_begin(struct fc_cuda_batch *batch, void *stream, const char *verb,
                         const char *sample_id) {
    *batch = (struct fc_cuda_batch){.driver = cuda_driver(),
                                    .stream = stream,
                                    .verb = verb,
                                    .sample_id = sample_id,
                                    .device_retained = -1};
}

static int cuda_batch_fail(const struct fc_cuda_batch *batch, int result, const char *what) {
    return cuda_fail(batch->driver, result, batch->verb, batch->sample_id, what);
}

int fc_cuda_batch_wait(struct fc_cuda_batch *batch) {
    if (!batch->pending)
        return FEATURE_OK;
    batch->pending = false;
    int result = batch->driver->stream_wait(batch->stream);
    return result ? cuda_batch_fail(batch, result, "cuStreamSynchronize after copying")
                  : FEATURE_OK;
}

/* Pops what was pushed, and lets go of a primary context that was retained for it. */
static void cuda_batch_leave(struct fc_cuda_batch *batch) {
    void *popped;
    if (batch->context)
        (void)batch->driver->context_pop(&popped);
    if (batch->device_retained >= 0)
        (void)batch->driver->primary_context_release(batch->device_retained);
    batch->context = NULL;
    batch->device_retained = -1;
}

/* The context of this memory becomes current. Copies on the default stream of another context are
 * waited for first: a batch waits for one stream at a time. */
static int cuda_batch_enter(struct fc_cuda_batch *batch, const struct cuda_place *place) {
    const struct fc_cuda_driver *driver = batch->driver;
    if (batch->context && (batch->context == place->context ||
                           (!place->context && batch->device_retained == place->device)))
        return FEATURE_OK;
    int rc = fc_cuda_batch_wait(batch), result;
    cuda_batch_leave(batch);
    if (rc)
        return rc;
    void *context = place->context;
    if (!context) {
        result = driver->primary_context_retain(&context, place->device);
        if (result)
            return cuda_batch_fail(batch, result, "cuDevicePrimaryCtxRetain");
        batch->device_retained = place->device;
    }
    result = driver->context_push(context);
    if (result) {
        cuda_batch_leave(batch);
        return cuda_batch_fail(batch, result, "cuCtxPushCurrent");
    }
    batch->context = context;
    return FEATURE_OK;
}

static int cuda_batch_queued(struct fc_cuda_batch *batch, int result, const char *function,
                             size_t bytes, const char *tensor) {
    char what[160];
    if (!result) {
        batch->pending = true;
        return FEATURE_OK;
    }
    snprintf(what, sizeof what, "%s of %zu bytes for tensor %.64s", function, bytes, tensor);
    return cuda_batch_fail(batch, result, what);
}

bool fc_cuda_batch_from(struct fc_cuda_batch *batch, void *host, const void *device, size_t bytes,
                        const char *tensor, int *rc_out) {
    struct cuda_place place;
    if (!batch->driver || !cuda_is_device(batch->driver, device, &place))
        return false;
    *rc_out = cuda_batch_enter(batch, &place);
    if (!*rc_out)
        *rc_out = cuda_batch_queued(
            batch,
            batch->driver->copy_from(host, (cuda_pointer)(uintptr_t)device, bytes, batch->stream),
            "cuMemcpyDtoHAsync", bytes, tensor);
    return true;
}

bool fc_cuda_batch_to(struct fc_cuda_batch *batch, void *device, const void *host, size_t bytes,
                      const char *tensor, int *rc_out) {
    struct cuda_place place;
    if (!batch->driver || !cuda_is_device(batch->driver, device, &place))
        return false;
    *rc_out = cuda_batch_enter(batch, &place);
    if (!*rc_out)
        *rc_out = cuda_batch_queued(
            batch,
            batch->driver->copy_to((cuda_pointer)(uintptr_t)device, host, bytes, batch->stream),
            "cuMemcpyHtoDAsync", bytes, tensor);
    return true;
}

int fc_cuda_batch_end(struct fc_cuda_batch *batch) {
    int rc = fc_cuda_batch_wait(batch);
    cuda_batch_leave(batch);
    return rc;
}

/* ---- registered host memory ---- */

void *fc_cuda_context(const void *device) {
    const struct fc_cuda_driver *driver = cuda_driver();
    struct cuda_place place;
    void *context = NULL;
    if (!driver)
        return NULL;
    if (cuda_is_device(driver, device, &place) && place.context)
        return place.context;
    return driver->context_get_current(&context) ? NULL : context;
}

/* A mapping that is read-only here is registered as one that a GPU only reads: without that flag
 * the driver asks the kernel for writable pages and is refused. */
int fc_cuda_register(struct fc_cuda_range *range, void *context, void *base, size_t bytes,
                     bool write) {
    const struct fc_cuda_driver *driver = cuda_driver();
    void *popped;
    char what[96];
    if (!driver)
        return fc_fail(FEATURE_E_UNSUPPORTED, "register an arena: there is no CUDA driver");
    int result = driver->context_push(context);
    if (result)
        return cuda_fail(driver, result, "register an arena", NULL, "cuCtxPushCurrent");
    result =
        driver->host_register(base, bytes, REGISTER_PORTABLE | (write ? 0 : REGISTER_READ_ONLY));
    (void)driver->context_pop(&popped);
    snprintf(what, sizeof what, "cuMemHostRegister of %zu MiB", bytes >> 20);
    if (result)
        return cuda_fail(driver, result, "register an arena", NULL, what);
    *range = (struct fc_cuda_range){.base = base, .context = context, .pid = getpid()};
    return FEATURE_OK;
}

/* At the exit of a process the driver may be gone before the last mapping: it then fails, and there
 * is nothing left to undo. */
void fc_cuda_unregister(struct fc_cuda_range *range) {
    const struct fc_cuda_driver *driver = range->base ? cuda_driver() : NULL;
    void *popped;
    if (driver && range->pid == getpid() && !driver->context_push(range->context)) {
        (void)driver->host_unregister(range->base);
        (void)driver->context_pop(&popped);
    }
    range->base = NULL;
}
