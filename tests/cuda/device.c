/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's functions are looked up by their names, with the signatures of cuda.h written where
 * they are called: the tests need neither CUDA's headers nor a library to link with. A function
 * that gives anything but CUDA_SUCCESS (0) fails the test.
 */
#include "cuda/device.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "support/checks.h"
#include "support/cluster.h"

#define DELAY_MS 50u

/* The driver that device_load() has loaded, and the primary context of its first device. A test
 * program uses one device; each test runs in a process of its own. */
static void *library;
static void *context;

/* dlsym() gives a pointer to data, which ISO C does not turn into one to a function. */
device_function device_fake(const char *name) {
    void *found = dlsym(library, name);
    device_function as_function;
    memcpy(&as_function, &found, sizeof found);
    return as_function;
}

static device_function function(const char *name) {
    device_function found = device_fake(name);
    CHECK(found != NULL, "the driver has no %s", name);
    return found;
}

/* CALL(cuMemFree_v2, (unsigned long long), pointer): the driver's function with these types. */
#define CALL(name, types, ...)                                                                     \
    do {                                                                                           \
        int result_ = ((int(*) types)function(#name))(__VA_ARGS__);                                \
        CHECK(result_ == 0, #name " gave %d", result_);                                            \
    } while (0)

void device_load(void) {
    char path[4096];
    const char *named = getenv("FEATURE_TEST_LIBCUDA");
    cluster_program("tests/fake/libcuda.so.1", path);
    library = dlopen(named ? named : path, RTLD_NOW);
    CHECK(library != NULL, "%s", dlerror());
    int device = 0;
    CALL(cuInit, (unsigned), 0);
    CALL(cuDeviceGet, (int *, int), &device, 0);
    CALL(cuDevicePrimaryCtxRetain, (void **, int), &context, device);
    CALL(cuCtxSetCurrent, (void *), context);
}

/* A real driver has no function of that name. */
bool device_is_fake(void) {
    return dlsym(library, "fake_cuda_plant") != NULL;
}

void device_leave_context(void) {
    CALL(cuCtxSetCurrent, (void *), NULL);
}

void *device_alloc(size_t bytes) {
    unsigned long long pointer = 0;
    CALL(cuMemAlloc_v2, (unsigned long long *, size_t), &pointer, bytes);
    return (void *)(uintptr_t)pointer;
}

void device_free(void *device) {
    CALL(cuMemFree_v2, (unsigned long long), (uintptr_t)device);
}

void device_write(void *device, const void *from, size_t bytes) {
    CALL(cuMemcpyHtoD_v2, (unsigned long long, const void *, size_t), (uintptr_t)device, from,
         bytes);
}

void device_read(void *to, const void *device, size_t bytes) {
    CALL(cuMemcpyDtoH_v2, (void *, unsigned long long, size_t), to, (uintptr_t)device, bytes);
}

/* CU_STREAM_NON_BLOCKING: it does not wait for the default stream, so order is ours alone. */
void *device_stream(void) {
    void *stream = NULL;
    CALL(cuStreamCreate, (void **, unsigned), &stream, 1);
    return stream;
}

void device_stream_free(void *stream) {
    CALL(cuStreamDestroy_v2, (void *), stream);
}

bool device_stream_idle(void *stream) {
    return ((int (*)(void *))function("cuStreamQuery"))(stream) == 0;
}

/* Runs in the stream, in its turn: what is queued behind waits for it. */
static void delay(void *nothing) {
    (void)nothing;
    check_pause(DELAY_MS);
}

void device_queue_delay(void *stream) {
    CALL(cuLaunchHostFunc, (void *, void (*)(void *), void *), stream, delay, NULL);
}

void device_queue_fill(void *stream, void *device, uint8_t value, size_t bytes) {
    CALL(cuMemsetD8Async, (unsigned long long, unsigned char, size_t, void *), (uintptr_t)device,
         value, bytes, stream);
}

void device_queue_copy(void *stream, void *host, const void *device, size_t bytes) {
    CALL(cuMemcpyDtoHAsync_v2, (void *, unsigned long long, size_t, void *), host,
         (uintptr_t)device, bytes, stream);
}

bool device_knows_host(const void *host) {
    unsigned type = 0;
    int attribute = 2;
    void *out = &type;
    CALL(cuPointerGetAttributes, (unsigned, int *, void **, unsigned long long), 1, &attribute,
         &out, (uintptr_t)host);
    return type == 1;
}

void device_plant(const char *name, unsigned after, int result) {
    ((void (*)(const char *, unsigned, int))function("fake_cuda_plant"))(name, after, result);
}

unsigned device_registered(void) {
    return ((unsigned (*)(void))function("fake_cuda_registered"))();
}

void device_check(void) {
    if (!device_is_fake())
        return;
    const char *violation = ((const char *(*)(void))function("fake_cuda_violation"))();
    CHECK(!*violation, "%s", violation);
    int depth = ((int (*)(void))function("fake_cuda_depth"))();
    CHECK(depth <= 1, "%d contexts were left pushed", depth - 1);
}

void device_parts(const struct payload *payload, struct iovec *parts, bool fill) {
    for (uint32_t i = 0; i < payload->sample.tensor_count; i++) {
        parts[i].iov_len = payload->data[i].iov_len;
        parts[i].iov_base = device_alloc(parts[i].iov_len);
        if (fill)
            device_write(parts[i].iov_base, payload->data[i].iov_base, parts[i].iov_len);
    }
}

void device_parts_free(struct iovec *parts, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        device_free(parts[i].iov_base);
}

const char *device_difference(const struct payload *payload, const struct iovec *parts) {
    const char *name = NULL;
    for (uint32_t i = 0; i < payload->sample.tensor_count && !name; i++) {
        void *read = malloc(parts[i].iov_len);
        CHECK(read != NULL, "no memory");
        device_read(read, parts[i].iov_base, parts[i].iov_len);
        if (memcmp(read, payload->data[i].iov_base, parts[i].iov_len) != 0)
            name = payload->names[i];
        free(read);
    }
    return name;
}
