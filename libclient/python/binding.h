/* SPDX-License-Identifier: Apache-2.0
 *
 * What the Python package adds to libfeature in C: whole puts and gets in one call each, so that
 * little Python runs per sample and the GIL is given back once per call, not once per field.
 *
 * The functions here are called through cffi, without the GIL. Python passes numbers in one flat
 * list, which cffi turns into an array in one step. A tensor stands in such a list as
 *
 *    dtype, address, bytes, rank, shape[0] ... shape[rank - 1]
 *
 * and the names of all tensors stand in one string, each with its terminating zero.
 */
#ifndef FEATURED_PYTHON_BINDING_H
#define FEATURED_PYTHON_BINDING_H

#include "feature.h"
#include "python/receive_pool.h"

/* ---- connections and stores ----
 * feature_disconnect() closes the stores that were opened through a connection. Python's garbage
 * collector may end a connection before its stores, so the connection is counted here: it ends
 * with the last of itself and its stores. */
struct binding_client;
/* Takes the connection. NULL, and it is disconnected: no memory. */
struct binding_client *binding_client_new(struct feature *feature);
/* For each store that is opened. */
void binding_client_ref(struct binding_client *client);
/* The last one disconnects; see feature_disconnect(). */
void binding_client_unref(struct binding_client *client);
/* Closes a store that was counted by binding_client_ref(). */
void binding_store_close(struct feature_store *store, struct binding_client *client);

/* ---- samples ---- */
/* One tensor of a lease; everything is borrowed from the lease. */
struct binding_tensor {
    const char *name;
    uint32_t dtype, rank;
    const uint64_t *shape;
    uint64_t bytes;
    const void *data;
};
/* The answer to a get. status < 0: nothing was got, and nothing else is set. */
struct binding_lease {
    int status;
    uint32_t count;
    struct feature_view *view;
    const struct feature_ref *ref; /* borrowed from the view */
    struct binding_tensor tensors[];
};

/* A sample as Python describes it. */
struct binding_sample {
    const char *sample_id;
    const char *names;
    const uint64_t *numbers;
    uint32_t count;
    const void *metadata;
    size_t metadata_bytes;
    uintptr_t cuda_stream; /* 0 = none */
};

/* ---- calls that wait ----
 * Each of them ends when a signal comes whose handler in Python raises (in the main thread, where
 * handlers run), and when *stop of this thread becomes true. Then it returns FEATURE_E_TIMEOUT. */
/* For feature_options. */
bool binding_interrupted(void *context);
/* From now on calls of this thread that wait end when *stop is true; NULL: no more. */
void binding_stop_by(const int *stop);
int binding_commit(struct feature_reservation *reservation, struct feature_ref **ref_out);
int binding_drain(struct feature *feature, uint32_t deadline_ms);
int binding_get_batch(struct feature_store *store, struct feature_get_item *items, size_t count);

/* Blocks up to deadline_ms, and copies. FEATURE_OK or FEATURE_E_*. */
int binding_put(struct feature_store *store, const char *sample_id, const char *names,
                const uint64_t *numbers, uint32_t count, const void *metadata,
                size_t metadata_bytes, uint32_t deadline_ms, struct feature_ref **ref_out);
/* The same with feature_put_new(). */
int binding_put_new(struct feature_store *store, const char *sample_id, const char *names,
                    const uint64_t *numbers, uint32_t count, const void *metadata,
                    size_t metadata_bytes, uint32_t deadline_ms, struct feature_ref **ref_out);
/* Frees the ref that *ref points to, and not *ref; none there is fine. */
void binding_ref_free(struct feature_ref **ref);
/* statuses_out and refs_out have room for sample_count. */
int binding_put_batch(struct feature_store *store, const struct binding_sample *samples,
                      size_t sample_count, uint32_t deadline_ms, int *statuses_out,
                      struct feature_ref **refs_out);
/* The addresses in `numbers` are not looked at. */
int binding_reserve(struct feature_store *store, const char *sample_id, const char *names,
                    const uint64_t *numbers, uint32_t count, const void *metadata,
                    size_t metadata_bytes, uint32_t deadline_ms, struct feature_reservation **out);

/* By ref, or where that is NULL by id. NULL: no memory. Blocks up to deadline_ms + wait_ms. */
struct binding_lease *binding_get(struct feature_store *store, const struct feature_ref *ref,
                                  const char *sample_id, uint32_t deadline_ms, uint32_t wait_ms);
/* Takes the view. NULL, and the view is released as returned: no memory. */
struct binding_lease *binding_lease_new(struct feature_view *view);
/* Ends the read and frees the lease. NULL is fine. */
void binding_release(struct binding_lease *lease, int how);
/* Copies `count` tensors and releases the lease. pairs: index of the tensor, address to copy to.
 * The caller has checked both. */
void binding_copy_out(struct binding_lease *lease, const uint64_t *pairs, uint32_t count, int how);
/* The same, where the addresses may be a GPU's memory. The copies are made on cuda_stream (0: the
 * legacy default stream) and have ended when it returns. Releases as `how` says when all was
 * copied, else as returned. FEATURE_OK or FEATURE_E_*. */
int binding_copy_to_device(struct binding_lease *lease, const uint64_t *pairs, uint32_t count,
                           int how, uintptr_t cuda_stream);
void binding_copy(void *to, const void *from, size_t bytes);
/* Copies a strided tensor to where it lies densely. Strides are in bytes. */
void binding_copy_strided(void *to, const void *from, size_t item_bytes, uint32_t rank,
                          const uint64_t *shape, const int64_t *strides_bytes);

/* ---- gets that do not wait: see feature.h ---- */
/* The queue keeps the connection, as a store does. */
int binding_queue_open(struct binding_client *client, struct feature_queue **out);
/* Cancels what is under way. */
void binding_queue_close(struct feature_queue *queue, struct binding_client *client);
/* By ref, or where that is NULL by id. context: for binding_queue_next(). */
int binding_get_start(struct feature_queue *queue, struct feature_store *store,
                      const struct feature_ref *ref, const char *sample_id, uint32_t deadline_ms,
                      uint32_t wait_ms, uint64_t context, struct feature_request **out);
/* Does not wait. True: a get has ended, and its request is freed; *lease_out is as from
 * binding_get(), and feature_last_error() has the sentence. */
bool binding_queue_next(struct feature_queue *queue, uint64_t *context_out,
                        struct binding_lease **lease_out);

/* All samples whose id begins with prefix, as one array; *out is free()d by binding_free(). */
int binding_list(struct feature_store *store, const char *prefix, struct feature_info **out,
                 size_t *count_out);
void binding_free(void *memory);

/* ---- DLPack: https://github.com/dmlc/dlpack/blob/main/include/dlpack/dlpack.h ---- */
struct binding_dl_device {
    int32_t type, id;
};
struct binding_dl_tensor {
    void *data;
    struct binding_dl_device device;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL = dense */
    uint64_t byte_offset;
};
struct binding_dl_managed { /* DLManagedTensor */
    struct binding_dl_tensor tensor;
    void *context;
    void (*deleter)(struct binding_dl_managed *self);
};
struct binding_dl_versioned { /* DLManagedTensorVersioned, since DLPack 1.0 */
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct binding_dl_versioned *self);
    uint64_t flags; /* 1 = read-only */
    struct binding_dl_tensor tensor;
};
/* Dense CPU memory as DLPack has it. owner: address of the Python object that keeps the memory; it
 * is referenced until the consumer calls the deleter, from whatever thread. NULL: no memory. */
struct binding_dl_managed *binding_dl_new(void *data, uint32_t code, uint32_t bits, uint32_t lanes,
                                          uint32_t rank, const uint64_t *shape, uintptr_t owner);
struct binding_dl_versioned *binding_dl_new_versioned(void *data, uint32_t code, uint32_t bits,
                                                      uint32_t lanes, uint32_t rank,
                                                      const uint64_t *shape, uintptr_t owner,
                                                      uint64_t flags);
/* Destructor of the capsules that carry them (the address of a void (*)(PyObject *)). It frees what
 * no consumer has taken. */
uintptr_t binding_dl_capsule_destructor(void);

#endif
