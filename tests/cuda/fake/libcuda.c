/* SPDX-License-Identifier: Apache-2.0
 *
 * A libcuda.so.1 for machines without a GPU: one device, whose memory lies in this process.
 *
 *  - A device pointer names pages without any access. Whoever dereferences it dies. The bytes are
 *    in a second mapping of the same file, which only this fake uses.
 *  - A stream is a thread with a queue, so a copy happens later than the call that asked for it,
 *    and in order. The default stream is one more.
 *  - A copy must lie within one allocation, and its host side wholly inside or wholly outside of
 *    what is registered. Host memory must not be unregistered under a copy. Copies need a current
 *    context. Read-only memory is registered with the read-only flag or not at all.
 *
 * What real CUDA would not forgive, and a test could not see, is kept as a violation (a sentence).
 * fake_cuda_*: for tests; a real driver has none of them.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The functions are found by their names alone: no header declares them. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define EXPORT __attribute__((visibility("default")))
enum { OK = 0, INVALID_VALUE = 1, NO_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_CONTEXT = 201 };
enum { INVALID_HANDLE = 400, NOT_READY = 600, ALREADY_REGISTERED = 712, NOT_REGISTERED = 713 };
enum { BLOCKS_MAX = 256, RANGES_MAX = 64, DEPTH_MAX = 8, FAULTS_MAX = 8 };
enum { PAGE_BYTES = 4096 };

struct block { /* of device memory, or registered host memory */
    uint8_t *base, *shadow;
    size_t bytes;
};
struct work {
    struct work *next;
    void *to;
    const void *from;
    size_t bytes;
    int value; /* memset when `from` is NULL and there is no function */
    void (*function)(void *);
    void *argument;
    const void *host; /* the host side, for the check at unregistering */
};
struct stream {
    pthread_t thread;
    pthread_cond_t changed;
    struct work *first, **last;
    bool busy, stop;
};
struct fault {
    char function[64];
    unsigned after;
    int result;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t owner; /* that called cuInit(); a forked child is not initialised */
static struct block blocks[BLOCKS_MAX], ranges[RANGES_MAX];
static struct stream *streams[BLOCKS_MAX], *default_stream;
static struct fault faults[FAULTS_MAX];
static char violation[256];
static int the_context; /* its address is the handle */
static unsigned registrations, copies;
static _Thread_local void *stack[DEPTH_MAX];
static _Thread_local int depth;

/* The first one counts: what follows is often its consequence. */
static void violate(const char *what) {
    if (!violation[0])
        snprintf(violation, sizeof violation, "%s", what);
}

/* With the lock held. The result that a test has planted for this call, or 0. */
static int planted(const char *function) {
    for (int i = 0; i < FAULTS_MAX; i++)
        if (faults[i].result && !strcmp(faults[i].function, function)) {
            if (faults[i].after--)
                return 0;
            int result = faults[i].result;
            faults[i].result = 0;
            return result;
        }
    return owner == getpid() ? 0 : NOT_INITIALIZED;
}

/* The entry of the list in which this address lies, or NULL. */
static struct block *find(struct block *list, int count, const void *at) {
    for (int i = 0; i < count; i++)
        if (list[i].base && (const uint8_t *)at >= list[i].base &&
            (const uint8_t *)at < list[i].base + list[i].bytes)
            return &list[i];
    return NULL;
}

static struct block *free_entry(struct block *list, int count) {
    for (int i = 0; i < count; i++)
        if (!list[i].base)
            return &list[i];
    return NULL;
}

/* ---- streams ---- */

/* The queue in order. The lock is given up while a piece of work is done, so that others can queue
 * more and ask. A piece stays in the queue until it has been done: an empty queue means idle. */
static void *stream_run(void *argument) {
    struct stream *stream = argument;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!stream->first && !stream->stop)
            pthread_cond_wait(&stream->changed, &lock);
        struct work *work = stream->first;
        if (!work)
            break;
        stream->busy = true;
        pthread_mutex_unlock(&lock);
        poll(NULL, 0, 1); /* long enough for a caller that does not wait to be caught */
        if (work->function)
            work->function(work->argument);
        else if (work->from)
            memcpy(work->to, work->from, work->bytes);
        else
            memset(work->to, work->value, work->bytes);
        pthread_mutex_lock(&lock);
        stream->first = work->next;
        if (!stream->first)
            stream->last = &stream->first;
        free(work);
        stream->busy = false;
        pthread_cond_broadcast(&stream->changed);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static struct stream *stream_new(void) {
    struct stream *stream = calloc(1, sizeof *stream);
    stream->last = &stream->first;
    pthread_cond_init(&stream->changed, NULL);
    pthread_create(&stream->thread, NULL, stream_run, stream);
    return stream;
}

/* With the lock held. NULL and CU_STREAM_LEGACY (1) are the default stream. */
static struct stream *stream_of(void *handle) {
    if (handle == NULL || handle == (void *)1) {
        if (!default_stream)
            default_stream = stream_new();
        return default_stream;
    }
    for (int i = 0; i < BLOCKS_MAX; i++)
        if (streams[i] == handle)
            return streams[i];
    return NULL;
}

/* With the lock held. */
static int enqueue(void *handle, struct work work) {
    struct stream *stream = stream_of(handle);
    if (!stream)
        return INVALID_HANDLE;
    if (!depth)
        return INVALID_CONTEXT;
    struct work *copy = malloc(sizeof *copy);
    *copy = work;
    copy->next = NULL;
    *stream->last = copy;
    stream->last = &copy->next;
    pthread_cond_broadcast(&stream->changed);
    return OK;
}

EXPORT int cuStreamCreate(void **out, unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < BLOCKS_MAX; i++)
        if (!streams[i]) {
            *out = streams[i] = stream_new();
            break;
        }
    pthread_mutex_unlock(&lock);
    return OK;
}

EXPORT int cuStreamDestroy_v2(void *handle) {
    pthread_mutex_lock(&lock);
    struct stream *stream = stream_of(handle);
    for (int i = 0; i < BLOCKS_MAX; i++)
        if (stream && streams[i] == stream)
            streams[i] = NULL;
    if (stream) {
        stream->stop = true;
        pthread_cond_broadcast(&stream->changed);
    }
    pthread_mutex_unlock(&lock);
    if (!stream)
        return INVALID_HANDLE;
    pthread_join(stream->thread, NULL);
    pthread_cond_destroy(&stream->changed);
    free(stream);
    return OK;
}

EXPORT int cuStreamSynchronize(void *handle) {
    pthread_mutex_lock(&lock);
    struct stream *stream = stream_of(handle);
    int result = stream ? planted("cuStreamSynchronize") : INVALID_HANDLE;
    while (stream && stream->first)
        pthread_cond_wait(&stream->changed, &lock);
    pthread_mutex_unlock(&lock);
    return result;
}

EXPORT int cuStreamQuery(void *handle) {
    pthread_mutex_lock(&lock);
    struct stream *stream = stream_of(handle);
    int result = !stream ? INVALID_HANDLE : stream->first ? NOT_READY : OK;
    pthread_mutex_unlock(&lock);
    return result;
}

EXPORT int cuLaunchHostFunc(void *handle, void (*function)(void *), void *argument) {
    pthread_mutex_lock(&lock);
    int result = enqueue(handle, (struct work){.function = function, .argument = argument});
    pthread_mutex_unlock(&lock);
    return result;
}

/* ---- device memory ---- */

EXPORT int cuMemAlloc_v2(unsigned long long *out, size_t bytes) {
    size_t whole = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    int fd = memfd_create("device", MFD_CLOEXEC);
    if (!bytes || fd < 0 || ftruncate(fd, (off_t)whole))
        return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    struct block *block = free_entry(blocks, BLOCKS_MAX);
    int result = !depth ? INVALID_CONTEXT : block ? planted("cuMemAlloc") : NO_MEMORY;
    if (!result) {
        block->base = mmap(NULL, whole, PROT_NONE, MAP_SHARED, fd, 0);
        block->shadow = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        block->bytes = bytes;
        *out = (unsigned long long)(uintptr_t)block->base;
    }
    pthread_mutex_unlock(&lock);
    close(fd);
    return result;
}

EXPORT int cuMemFree_v2(unsigned long long pointer) {
    pthread_mutex_lock(&lock);
    struct block *block = find(blocks, BLOCKS_MAX, (void *)(uintptr_t)pointer);
    if (block) {
        size_t whole = (block->bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
        munmap(block->base, whole);
        munmap(block->shadow, whole);
        block->base = NULL;
    }
    pthread_mutex_unlock(&lock);
    return block ? OK : INVALID_VALUE;
}

/* Where the fake itself reaches these bytes of the device, or NULL: outside of any allocation. */
static uint8_t *shadow_of(unsigned long long pointer, size_t bytes) {
    uint8_t *at = (void *)(uintptr_t)pointer;
    struct block *block = find(blocks, BLOCKS_MAX, at);
    return block && bytes <= (size_t)(block->base + block->bytes - at)
               ? block->shadow + (at - block->base)
               : NULL;
}

/* A host range that only begins or only ends in registered memory. */
static bool straddles(const void *host, size_t bytes) {
    const uint8_t *last = (const uint8_t *)host + (bytes ? bytes - 1 : 0);
    return find(ranges, RANGES_MAX, host) != find(ranges, RANGES_MAX, last);
}

/* With the lock held. The device side has been checked, and is NULL when it lies outside of its
 * allocation; host is the other one. */
static int copy(const char *function, void *to, const void *from, const void *host, size_t bytes,
                void *stream) {
    int result = planted(function);
    if (!result && (!to || !from || straddles(host, bytes)))
        result = INVALID_VALUE;
    if (!result && bytes)
        result =
            enqueue(stream, (struct work){.to = to, .from = from, .bytes = bytes, .host = host});
    copies += !result;
    return result;
}

EXPORT int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t bytes, void *stream) {
    pthread_mutex_lock(&lock);
    int result = copy("cuMemcpyDtoHAsync", to, shadow_of(from, bytes), to, bytes, stream);
    pthread_mutex_unlock(&lock);
    return result;
}

EXPORT int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t bytes,
                                void *stream) {
    pthread_mutex_lock(&lock);
    int result = copy("cuMemcpyHtoDAsync", shadow_of(to, bytes), from, from, bytes, stream);
    pthread_mutex_unlock(&lock);
    return result;
}

EXPORT int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t bytes) {
    int result = cuMemcpyDtoHAsync_v2(to, from, bytes, NULL);
    return result ? result : cuStreamSynchronize(NULL);
}

EXPORT int cuMemcpyHtoD_v2(unsigned long long to, const void *from, size_t bytes) {
    int result = cuMemcpyHtoDAsync_v2(to, from, bytes, NULL);
    return result ? result : cuStreamSynchronize(NULL);
}

EXPORT int cuMemsetD8Async(unsigned long long to, unsigned char value, size_t bytes, void *stream) {
    pthread_mutex_lock(&lock);
    uint8_t *shadow = shadow_of(to, bytes);
    int result = shadow
                     ? enqueue(stream, (struct work){.to = shadow, .bytes = bytes, .value = value})
                     : INVALID_VALUE;
    pthread_mutex_unlock(&lock);
    return result;
}

EXPORT int cuPointerGetAttributes(unsigned count, int *attributes, void **out,
                                  unsigned long long pointer) {
    pthread_mutex_lock(&lock);
    void *at = (void *)(uintptr_t)pointer;
    bool device = find(blocks, BLOCKS_MAX, at), host = find(ranges, RANGES_MAX, at);
    int result = planted("cuPointerGetAttributes");
    for (unsigned i = 0; !result && i < count; i++)
        if (attributes[i] == 1)
            *(void **)out[i] = device || host ? &the_context : NULL;
        else if (attributes[i] == 2)
            *(unsigned *)out[i] = device ? 2 : host ? 1 : 0;
        else
            *(int *)out[i] = 0;
    pthread_mutex_unlock(&lock);
    return result;
}

/* ---- registered host memory ---- */

/* Every page of the range is mapped, and writable if so asked: /proc/self/maps says. */
static bool mapped(const uint8_t *base, size_t bytes, bool writable) {
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512], access[8];
    unsigned long begin, end;
    const uint8_t *at = base;
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %7s", &begin, &end, access) == 3 &&
            (unsigned long)(uintptr_t)at >= begin && (unsigned long)(uintptr_t)at < end) {
            if (access[0] != 'r' || (writable && access[1] != 'w'))
                break;
            at = (const uint8_t *)(uintptr_t)end;
        }
    if (maps)
        fclose(maps);
    return at >= base + bytes;
}

/* Flag 8: read-only. Without it the memory must be writable, as the driver asks the kernel for it
 * so. */
EXPORT int cuMemHostRegister_v2(void *base, size_t bytes, unsigned flags) {
    pthread_mutex_lock(&lock);
    int result = planted("cuMemHostRegister");
    struct block *range = free_entry(ranges, RANGES_MAX);
    if (!result && !depth)
        result = INVALID_CONTEXT;
    if (!result && (!bytes || !mapped(base, bytes, !(flags & 8))))
        result = INVALID_VALUE;
    if (!result &&
        (find(ranges, RANGES_MAX, base) || find(ranges, RANGES_MAX, (uint8_t *)base + bytes - 1)))
        result = ALREADY_REGISTERED;
    if (!result) {
        *range = (struct block){.base = base, .bytes = bytes};
        registrations++;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* A copy that is queued, or under way, must not lose its memory. */
static void check_idle(const struct stream *stream, const struct block *range) {
    for (const struct work *work = stream ? stream->first : NULL; work; work = work->next)
        if (work->host && (const uint8_t *)work->host >= range->base &&
            (const uint8_t *)work->host < range->base + range->bytes)
            violate("host memory was unregistered under a copy");
}

EXPORT int cuMemHostUnregister(void *base) {
    pthread_mutex_lock(&lock);
    struct block *range = find(ranges, RANGES_MAX, base);
    int result = !depth ? INVALID_CONTEXT : range && range->base == base ? OK : NOT_REGISTERED;
    if (!result) {
        check_idle(default_stream, range);
        for (int i = 0; i < BLOCKS_MAX; i++)
            check_idle(streams[i], range);
        if (!mapped(range->base, range->bytes, false))
            violate("host memory was unmapped before it was unregistered");
        range->base = NULL;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* ---- contexts ---- */

/* The fake has one device with one context. As in CUDA, each thread has a stack of contexts, and
 * the one on top is the thread's current context. */
EXPORT int cuInit(unsigned flags) {
    (void)flags;
    owner = getpid();
    return OK;
}
EXPORT int cuDeviceGet(int *out, int ordinal) {
    *out = ordinal;
    return ordinal ? 101 : OK;
}
EXPORT int cuDevicePrimaryCtxRetain(void **out, int device) {
    *out = &the_context;
    return device ? 101 : OK;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    return device ? 101 : OK;
}
EXPORT int cuCtxGetCurrent(void **out) {
    *out = depth ? stack[depth - 1] : NULL;
    return owner == getpid() ? OK : NOT_INITIALIZED;
}
EXPORT int cuCtxSetCurrent(void *context) {
    if (!depth && context)
        depth = 1;
    if (depth)
        stack[depth - 1] = context;
    if (!context && depth)
        depth--;
    return OK;
}
EXPORT int cuCtxPushCurrent_v2(void *context) {
    pthread_mutex_lock(&lock);
    int result = planted("cuCtxPushCurrent");
    pthread_mutex_unlock(&lock);
    if (result || context != &the_context || depth == DEPTH_MAX)
        return result ? result : INVALID_CONTEXT;
    stack[depth++] = context;
    return OK;
}
EXPORT int cuCtxPopCurrent_v2(void **out) {
    if (!depth)
        return INVALID_CONTEXT;
    *out = stack[--depth];
    return OK;
}
EXPORT int cuGetErrorName(int result, const char **out) {
    *out = result == INVALID_VALUE ? "CUDA_ERROR_INVALID_VALUE" : "CUDA_ERROR_PLANTED";
    return OK;
}
EXPORT int cuGetErrorString(int result, const char **out) {
    (void)result;
    *out = "the fake says so";
    return OK;
}

/* ---- for tests ---- */

/* The call of this name (without _v2) after `after` more ones fails with `result`. */
EXPORT void fake_cuda_plant(const char *function, unsigned after, int result) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < FAULTS_MAX; i++)
        if (!faults[i].result) {
            snprintf(faults[i].function, sizeof faults[i].function, "%s", function);
            faults[i].after = after;
            faults[i].result = result;
            break;
        }
    pthread_mutex_unlock(&lock);
}
/* Ranges that are registered now; how often one was; copies that were queued. */
EXPORT unsigned fake_cuda_registered(void) {
    unsigned count = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < RANGES_MAX; i++)
        count += ranges[i].base != NULL;
    pthread_mutex_unlock(&lock);
    return count;
}
EXPORT unsigned fake_cuda_registrations(void) {
    return registrations;
}
EXPORT unsigned fake_cuda_copies(void) {
    return copies;
}
/* How deep this thread's stack of contexts is: what was pushed must have been popped. */
EXPORT int fake_cuda_depth(void) {
    return depth;
}
/* "" or the first thing that a real GPU would not have forgiven. */
EXPORT const char *fake_cuda_violation(void) {
    return violation;
}
