/* SPDX-License-Identifier: Apache-2.0
 *
 * What libfeature does with the CUDA driver of a process: it asks which pointers are a GPU's
 * memory, copies from and to such memory, and registers host memory, which makes these copies fast.
 *
 * Nothing here loads a driver. A program that has device pointers has loaded libcuda.so.1 itself,
 * so a process without it has none, and for that process every function here ends at once.
 */
#ifndef FEATURED_LIBCLIENT_CUDA_H
#define FEATURED_LIBCLIENT_CUDA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct fc_cuda_driver;

/* The address of the first of these buffers that is a GPU's memory; NULL: none is. The processor
 * must not read or write a GPU's memory: it is copied with struct fc_cuda_batch (see below). */
void *fc_cuda_first(const struct iovec *buffers, uint32_t count);

/* Waits until everything that was queued on the stream has been done. stream == NULL: nothing to
 * wait for, FEATURE_OK. verb and sample_id are for the sentence of a failure: "put", "s1". */
int fc_cuda_wait(void *stream, const char *verb, const char *sample_id);

/* Copies of one call, one after the other on the stream that the caller named, or else on the
 * legacy default stream of the GPU. fc_cuda_batch_end() is called whatever has failed: only once it
 * has returned is no copy under way any more. */
struct fc_cuda_batch {
    const struct fc_cuda_driver *driver;
    void *stream;                 /* the caller's; NULL = the legacy default stream */
    const char *verb, *sample_id; /* borrowed, for sentences */
    void *context;                /* current in this thread because of us; NULL = none */
    int device_retained;          /* whose primary context we hold; -1 = none */
    bool pending;                 /* something is queued that nobody has waited for */
};
void fc_cuda_batch_begin(struct fc_cuda_batch *batch, void *stream, const char *verb,
                         const char *sample_id);
/* True and queued or refused, with the outcome in *rc_out, when `device` is a GPU's memory; false
 * when it is plain memory, and then nothing was done. tensor: its name, for the sentence. */
bool fc_cuda_batch_from(struct fc_cuda_batch *batch, void *host, const void *device, size_t bytes,
                        const char *tensor, int *rc_out);
bool fc_cuda_batch_to(struct fc_cuda_batch *batch, void *device, const void *host, size_t bytes,
                      const char *tensor, int *rc_out);
/* Waits for what is queued so far: it has been copied. */
int fc_cuda_batch_wait(struct fc_cuda_batch *batch);
/* Waits, and leaves the context that it had entered. FEATURE_OK or why the waiting failed. */
int fc_cuda_batch_end(struct fc_cuda_batch *batch);

/* A range of host memory that the driver knows, so that a GPU reads and writes it directly. Lives
 * in its owner; all zero = not registered. */
struct fc_cuda_range {
    void *base;    /* NULL = not registered */
    void *context; /* in which it was */
    pid_t pid;     /* that did it: a forked child has nothing to undo */
};
/* The context that is current in this thread, or else that of the GPU which has this memory; NULL
 * when there is neither. device may be NULL. */
void *fc_cuda_context(const void *device);
/* Takes seconds for many GiB. write: the memory is mapped for writing. FEATURE_OK, or an error with
 * a sentence; then copies are as correct as before, and slower. */
int fc_cuda_register(struct fc_cuda_range *range, void *context, void *base, size_t bytes,
                     bool write);
/* Before the memory is unmapped. Nothing to do for a range that is not registered. */
void fc_cuda_unregister(struct fc_cuda_range *range);

#endif
