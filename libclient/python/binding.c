/* SPDX-License-Identifier: Apache-2.0
 *
 * Puts and gets of Python in one call each; see binding.h for the form that samples come in.
 *
 * A lease here is a view of libfeature together with what Python wants to know of its tensors. It
 * has exactly one owner in Python, which ends it by one of binding_release(), binding_copy_out()
 * and binding_copy_to_device():
 *
 *    binding_get() or binding_queue_next() --> Python reads names, dtypes and shapes from it
 *        --> copied out and released at once, or kept by a View until nobody points into its bytes
 *
 * Every call comes without the GIL, which cffi gives back around it. So nothing here may touch a
 * Python object, but for the DLPack part at the end, which takes the GIL for it. Failures are
 * statuses; their sentences stay in feature_last_error() of the calling thread, where Python reads
 * them in its next call.
 */
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include "python/binding.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "copy.h"

#define NUMBERS_BEFORE_SHAPE 4

/* ---- connections and stores ---- */

struct binding_client {
    atomic_uint refs; /* itself, and each of its stores */
    struct feature *feature;
};

/* The first reference is that of the ClientHandle in Python. */
struct binding_client *binding_client_new(struct feature *feature) {
    struct binding_client *client = malloc(sizeof *client);
    if (!client) {
        feature_disconnect(feature);
        return NULL;
    }
    atomic_init(&client->refs, 1);
    client->feature = feature;
    return client;
}

/* May be called from any thread. The count is atomic, because one thread may open a store while
 * another closes the client: the connection ends when both have let go of it. */
void binding_client_ref(struct binding_client *client) {
    atomic_fetch_add(&client->refs, 1);
}

/* Disconnecting waits up to a second for releases to arrive, without the GIL. */
void binding_client_unref(struct binding_client *client) {
    if (atomic_fetch_sub(&client->refs, 1) > 1)
        return;
    feature_disconnect(client->feature);
    free(client);
}

/* The store first: the other way round, disconnecting would have closed and freed it already. */
void binding_store_close(struct feature_store *store, struct binding_client *client) {
    feature_store_close(store);
    binding_client_unref(client);
}

/* ---- calls that wait ---- */

/* In Python (_interrupts.py). cffi takes the GIL around it. */
bool python_interrupted(void);

/* Whether this thread is in a call whose caller looks at why it ended. The others (a release, the
 * closing of a store) are short, and what a handler raised in them would be lost. */
static _Thread_local bool binding_waits;
static _Thread_local const int *binding_stop;

void binding_stop_by(const int *stop) {
    binding_stop = stop;
}

/* Handlers of signals run in the main thread alone, so the others need not ask for the GIL. */
bool binding_interrupted(void *context) {
    (void)context;
    if (!binding_waits)
        return false;
    if (binding_stop && __atomic_load_n(binding_stop, __ATOMIC_RELAXED))
        return true;
    return syscall(SYS_gettid) == getpid() && python_interrupted();
}

/* The handler of a signal may make such a call itself, so they can be nested: binding_end() takes
 * what binding_begin() returned. */
static bool binding_begin(void) {
    bool before = binding_waits;
    binding_waits = true;
    return before;
}

static int binding_end(bool before, int status) {
    binding_waits = before;
    return status;
}

int binding_commit(struct feature_reservation *reservation, struct feature_ref **ref_out) {
    bool before = binding_begin();
    return binding_end(before, feature_commit(reservation, ref_out));
}

int binding_drain(struct feature *feature, uint32_t deadline_ms) {
    bool before = binding_begin();
    return binding_end(before, feature_drain(feature, deadline_ms));
}

int binding_get_batch(struct feature_store *store, struct feature_get_item *items, size_t count) {
    bool before = binding_begin();
    return binding_end(before, feature_get_batch(store, items, count, NULL));
}

/* ---- from Python's lists to the structs of feature.h ----
 * They live on the stack: 64 tensors are 9 KiB, and nothing is freed afterwards. */

/* Python has checked that count is at most FEATURE_TENSORS_MAX and each rank at most
 * FEATURE_RANK_MAX. data may be NULL. */
static void binding_read_tensors(const char *names, const uint64_t *numbers, uint32_t count,
                                 struct feature_tensor *tensors, struct iovec *data) {
    for (uint32_t i = 0; i < count; i++) {
        uint32_t rank = (uint32_t)numbers[3];
        tensors[i] = (struct feature_tensor){.size = sizeof tensors[i],
                                             .name = names,
                                             .dtype = (enum feature_dtype)numbers[0],
                                             .rank = rank,
                                             .bytes = numbers[2]};
        memcpy(tensors[i].shape, numbers + NUMBERS_BEFORE_SHAPE, rank * sizeof *numbers);
        if (data)
            data[i] = (struct iovec){.iov_base = (void *)(uintptr_t)numbers[1],
                                     .iov_len = (size_t)numbers[2]};
        names += strlen(names) + 1;
        numbers += NUMBERS_BEFORE_SHAPE + rank;
    }
}

/* A pointer to no bytes at all may be any, and NULL is what libfeature takes for none. */
static struct feature_sample binding_make_sample(const char *sample_id,
                                                 const struct feature_tensor *tensors,
                                                 uint32_t count, const void *metadata,
                                                 size_t metadata_bytes) {
    return (struct feature_sample){.size = sizeof(struct feature_sample),
                                   .sample_id = sample_id,
                                   .tensors = tensors,
                                   .tensor_count = count,
                                   .metadata = metadata_bytes ? metadata : NULL,
                                   .metadata_bytes = metadata_bytes};
}

typedef int put_fn(struct feature_store *store, const struct feature_sample *sample,
                   const struct iovec *data, uint32_t deadline_ms, struct feature_ref **ref_out);

/* What is put is read before this returns, so the arrays that cffi made of Python's lists, and the
 * tensors' memory, are only needed for the length of the call. */
static int binding_put_by(put_fn *put, struct feature_store *store,
                          const struct binding_sample *from, uint32_t deadline_ms,
                          struct feature_ref **ref_out) {
    struct feature_tensor tensors[FEATURE_TENSORS_MAX];
    struct iovec data[FEATURE_TENSORS_MAX];
    binding_read_tensors(from->names, from->numbers, from->count, tensors, data);
    struct feature_sample sample = binding_make_sample(from->sample_id, tensors, from->count,
                                                       from->metadata, from->metadata_bytes);
    bool before = binding_begin();
    return binding_end(before, put(store, &sample, data, deadline_ms, ref_out));
}

int binding_put(struct feature_store *store, const char *sample_id, const char *names,
                const uint64_t *numbers, uint32_t count, const void *metadata,
                size_t metadata_bytes, uint32_t deadline_ms, struct feature_ref **ref_out) {
    const struct binding_sample sample = {sample_id, names,          numbers, count,
                                          metadata,  metadata_bytes, 0};
    return binding_put_by(feature_put, store, &sample, deadline_ms, ref_out);
}

int binding_put_new(struct feature_store *store, const char *sample_id, const char *names,
                    const uint64_t *numbers, uint32_t count, const void *metadata,
                    size_t metadata_bytes, uint32_t deadline_ms, struct feature_ref **ref_out) {
    const struct binding_sample sample = {sample_id, names,          numbers, count,
                                          metadata,  metadata_bytes, 0};
    return binding_put_by(feature_put_new, store, &sample, deadline_ms, ref_out);
}

void binding_ref_free(struct feature_ref **ref) {
    feature_ref_free(*ref);
}

/* As a put without bytes. Python writes them afterwards, through the pointers that
 * feature_reservation_data() gives. */
int binding_reserve(struct feature_store *store, const char *sample_id, const char *names,
                    const uint64_t *numbers, uint32_t count, const void *metadata,
                    size_t metadata_bytes, uint32_t deadline_ms, struct feature_reservation **out) {
    struct feature_tensor tensors[FEATURE_TENSORS_MAX];
    binding_read_tensors(names, numbers, count, tensors, NULL);
    struct feature_sample sample =
        binding_make_sample(sample_id, tensors, count, metadata, metadata_bytes);
    bool before = binding_begin();
    return binding_end(before, feature_reserve(store, &sample, deadline_ms, out));
}

/* ---- a batch of puts ---- */

/* Everything that one item of a batch points to. */
struct batch_put {
    struct feature_sample sample;
    struct feature_tensor tensors[FEATURE_TENSORS_MAX];
    struct iovec data[FEATURE_TENSORS_MAX];
};

/* All arrays of one item have their greatest size, since calloc() gives pages that nobody writes to
 * for nothing. Without memory every item has failed with FULL. */
int binding_put_batch(struct feature_store *store, const struct binding_sample *samples,
                      size_t sample_count, uint32_t deadline_ms, int *statuses_out,
                      struct feature_ref **refs_out) {
    struct batch_put *puts = calloc(sample_count, sizeof *puts);
    struct feature_put_item *items = calloc(sample_count, sizeof *items);
    int rc = FEATURE_E_FULL;
    for (size_t i = 0; i < sample_count; i++) {
        statuses_out[i] = FEATURE_E_FULL;
        refs_out[i] = NULL;
    }
    if (puts && items) {
        for (size_t i = 0; i < sample_count; i++) {
            const struct binding_sample *from = &samples[i];
            binding_read_tensors(from->names, from->numbers, from->count, puts[i].tensors,
                                 puts[i].data);
            puts[i].sample = binding_make_sample(from->sample_id, puts[i].tensors, from->count,
                                                 from->metadata, from->metadata_bytes);
            puts[i].sample.cuda_stream = (void *)from->cuda_stream;
            items[i] = (struct feature_put_item){
                .size = sizeof items[i], .sample = &puts[i].sample, .data = puts[i].data};
        }
        bool before = binding_begin();
        rc = binding_end(before, feature_put_batch(store, items, sample_count, deadline_ms));
        for (size_t i = 0; i < sample_count; i++) {
            statuses_out[i] = items[i].status;
            refs_out[i] = items[i].ref;
        }
    }
    free(items);
    free(puts);
    return rc;
}

/* ---- get ---- */

/* Everything that Python asks for each tensor is gathered here, in one call: reading a field of a
 * struct costs Python less than a call of a function does, and keeps the GIL. */
struct binding_lease *binding_lease_new(struct feature_view *view) {
    const struct feature_ref *ref = feature_view_ref(view);
    uint32_t count = feature_ref_tensor_count(ref);
    struct binding_lease *lease = malloc(sizeof *lease + count * sizeof *lease->tensors);
    if (!lease) {
        feature_release(view, FEATURE_RELEASE_RETURNED);
        return NULL;
    }
    *lease = (struct binding_lease){.count = count, .view = view, .ref = ref};
    for (uint32_t i = 0; i < count; i++) {
        const struct feature_tensor *tensor = feature_ref_tensor(ref, i);
        lease->tensors[i] = (struct binding_tensor){.name = tensor->name,
                                                    .dtype = (uint32_t)tensor->dtype,
                                                    .rank = tensor->rank,
                                                    .shape = tensor->shape,
                                                    .bytes = tensor->bytes,
                                                    .data = feature_view_data(view, i)};
    }
    return lease;
}

/* NULL: no memory even for that. */
static struct binding_lease *binding_new_failure(int status) {
    struct binding_lease *failure = calloc(1, sizeof *failure);
    if (failure)
        failure->status = status;
    return failure;
}

/* The status of a failure lies in the answer, so that no second output is needed. */
struct binding_lease *binding_get(struct feature_store *store, const struct feature_ref *ref,
                                  const char *sample_id, uint32_t deadline_ms, uint32_t wait_ms) {
    const struct feature_key key = {
        .size = sizeof key, .ref = ref, .sample_id = ref ? NULL : sample_id};
    const struct feature_get_options options = {
        .size = sizeof options, .deadline_ms = deadline_ms, .wait_ms = wait_ms};
    struct feature_view *view;
    bool before = binding_begin();
    int status = binding_end(before, feature_get(store, &key, &options, &view));
    return status ? binding_new_failure(status) : binding_lease_new(view);
}

/* Also for the answer of a get that failed, which has no view. */
void binding_release(struct binding_lease *lease, int how) {
    if (lease)
        feature_release(lease->view, (enum feature_release_how)how);
    free(lease);
}

/* Copy and release in one call, so that the GIL is given back once. */
void binding_copy_out(struct binding_lease *lease, const uint64_t *pairs, uint32_t count, int how) {
    for (uint32_t i = 0; i < count; i++) {
        const struct binding_tensor *tensor = &lease->tensors[pairs[(size_t)2 * i]];
        binding_copy((void *)(uintptr_t)pairs[(size_t)2 * i + 1], tensor->data, tensor->bytes);
    }
    binding_release(lease, how);
}

int binding_copy_to_device(struct binding_lease *lease, const uint64_t *pairs, uint32_t count,
                           int how, uintptr_t cuda_stream) {
    uint32_t tensors[FEATURE_TENSORS_MAX];
    struct iovec buffers[FEATURE_TENSORS_MAX];
    for (uint32_t i = 0; i < count; i++) {
        tensors[i] = (uint32_t)pairs[(size_t)2 * i];
        buffers[i] = (struct iovec){.iov_base = (void *)(uintptr_t)pairs[(size_t)2 * i + 1],
                                    .iov_len = lease->tensors[tensors[i]].bytes};
    }
    int status = feature_view_copy(lease->view, tensors, buffers, count, (void *)cuda_stream);
    binding_release(lease, status ? FEATURE_RELEASE_RETURNED : how);
    return status;
}

/* What is large goes past the caches: see copy.h. The addresses may be NULL when there is nothing
 * to copy. */
void binding_copy(void *to, const void *from, size_t bytes) {
    fc_copy(to, from, bytes);
}

/* One dimension after the other; the innermost loop copies elements. rank is at most
 * FEATURE_RANK_MAX, so the depth is bounded. */
static uint8_t *binding_copy_dimension(uint8_t *to, const uint8_t *from, size_t item_bytes,
                                       uint32_t rank, const uint64_t *shape,
                                       const int64_t *strides_bytes) {
    if (!rank) {
        memcpy(to, from, item_bytes);
        return to + item_bytes;
    }
    for (uint64_t i = 0; i < *shape; i++) {
        to = binding_copy_dimension(to, from, item_bytes, rank - 1, shape + 1, strides_bytes + 1);
        from += *strides_bytes;
    }
    return to;
}

void binding_copy_strided(void *to, const void *from, size_t item_bytes, uint32_t rank,
                          const uint64_t *shape, const int64_t *strides_bytes) {
    binding_copy_dimension(to, from, item_bytes, rank, shape, strides_bytes);
}

/* ---- gets that do not wait ---- */

/* The queue outlives Client.close() in Python until its event loop has let go of it. */
int binding_queue_open(struct binding_client *client, struct feature_queue **out) {
    int rc = feature_queue_open(client->feature, NULL, out);
    if (!rc)
        binding_client_ref(client);
    return rc;
}

void binding_queue_close(struct feature_queue *queue, struct binding_client *client) {
    feature_queue_close(queue);
    binding_client_unref(client);
}

/* The context is a number that Python has chosen; no pointer of Python goes through C. */
int binding_get_start(struct feature_queue *queue, struct feature_store *store,
                      const struct feature_ref *ref, const char *sample_id, uint32_t deadline_ms,
                      uint32_t wait_ms, uint64_t context, struct feature_request **out) {
    const struct feature_get_item item = {
        .size = sizeof item, .ref = ref, .sample_id = ref ? NULL : sample_id};
    const struct feature_get_options options = {
        .size = sizeof options, .deadline_ms = deadline_ms, .wait_ms = wait_ms};
    return feature_get_start(queue, store, &item, 1, &options, (void *)(uintptr_t)context, out);
}

/* PENDING: the sample is asked for once more, and comes again. */
bool binding_queue_next(struct feature_queue *queue, uint64_t *context_out,
                        struct binding_lease **lease_out) {
    struct feature_request *request;
    while ((request = feature_queue_next(queue))) {
        uint64_t context = (uintptr_t)feature_request_context(request);
        struct feature_get_item item = {.size = sizeof item};
        int status = feature_get_finish(request, &item, 1);
        if (status == FEATURE_PENDING)
            continue;
        *context_out = context;
        *lease_out = status ? binding_new_failure(status) : binding_lease_new(item.view);
        return true;
    }
    return false;
}

/* ---- list ---- */

struct binding_found {
    struct feature_info *infos;
    size_t count, room;
    bool short_of_memory;
};

/* feature_list() visits one after the other. Calling Python for each would take the GIL as often.
 */
static bool binding_note_found(void *context, const struct feature_info *info) {
    struct binding_found *found = context;
    if (found->count == found->room) {
        size_t room = found->room ? 2 * found->room : 64;
        struct feature_info *infos = realloc(found->infos, room * sizeof *infos);
        if (!infos) {
            found->short_of_memory = true;
            return false;
        }
        found->infos = infos;
        found->room = room;
    }
    found->infos[found->count++] = *info;
    return true;
}

/* What was found before memory ran out is not given out: half a list would look like a whole one.
 */
int binding_list(struct feature_store *store, const char *prefix, struct feature_info **out,
                 size_t *count_out) {
    struct binding_found found = {0};
    int rc = feature_list(store, prefix, binding_note_found, &found);
    if (!rc && found.short_of_memory)
        rc = FEATURE_E_FULL;
    if (rc) {
        free(found.infos);
        return rc;
    }
    *out = found.infos;
    *count_out = found.count;
    return FEATURE_OK;
}

void binding_free(void *memory) {
    free(memory);
}

/* ---- DLPack ---- */

/* What a managed tensor of ours stands at the beginning of: its shape, and the owner of its
 * memory. */
struct dl_box {
    union {
        struct binding_dl_managed managed;
        struct binding_dl_versioned versioned;
    } as;
    int64_t shape[FEATURE_RANK_MAX];
    int64_t strides[FEATURE_RANK_MAX];
    PyObject *owner;
};

/* From whatever thread the consumer likes, so the GIL is taken. After the interpreter has ended the
 * owner is gone with it, or left behind by it: nothing is touched then. */
static void binding_dl_free(struct dl_box *box) {
    if (Py_IsInitialized()) {
        PyGILState_STATE state = PyGILState_Ensure();
        Py_DecRef(box->owner);
        PyGILState_Release(state);
    }
    free(box);
}

static void binding_dl_delete(struct binding_dl_managed *self) {
    binding_dl_free(self->context);
}

static void binding_dl_delete_versioned(struct binding_dl_versioned *self) {
    binding_dl_free(self->context);
}

/* The strides are written out although the tensor is dense: some consumers want them. */
static struct dl_box *binding_dl_new_box(uint32_t rank, const uint64_t *shape, uintptr_t owner) {
    struct dl_box *box = calloc(1, sizeof *box);
    if (!box)
        return NULL;
    int64_t stride = 1;
    for (uint32_t i = rank; i-- > 0;) {
        box->shape[i] = (int64_t)shape[i];
        box->strides[i] = stride;
        stride *= shape[i] ? (int64_t)shape[i] : 1;
    }
    PyGILState_STATE state = PyGILState_Ensure();
    box->owner = (PyObject *)owner;
    Py_IncRef(box->owner);
    PyGILState_Release(state);
    return box;
}

/* Device type 1 is the CPU. Shape and strides live in the box, as long as the managed tensor. */
static void binding_dl_fill(struct dl_box *box, struct binding_dl_tensor *tensor, void *data,
                            uint32_t code, uint32_t bits, uint32_t lanes, uint32_t rank) {
    *tensor = (struct binding_dl_tensor){.data = data,
                                         .device = {.type = 1},
                                         .ndim = (int32_t)rank,
                                         .code = (uint8_t)code,
                                         .bits = (uint8_t)bits,
                                         .lanes = (uint16_t)lanes,
                                         .shape = box->shape,
                                         .strides = box->strides};
}

/* The form of before DLPack 1.0, which numpy 1 and older versions of torch ask for. It cannot say
 * that memory is read-only. */
struct binding_dl_managed *binding_dl_new(void *data, uint32_t code, uint32_t bits, uint32_t lanes,
                                          uint32_t rank, const uint64_t *shape, uintptr_t owner) {
    struct dl_box *box = binding_dl_new_box(rank, shape, owner);
    if (!box)
        return NULL;
    struct binding_dl_managed *managed = &box->as.managed;
    binding_dl_fill(box, &managed->tensor, data, code, bits, lanes, rank);
    managed->context = box;
    managed->deleter = binding_dl_delete;
    return managed;
}

/* The form of DLPack 1.0, which can say that the memory is read-only. */
struct binding_dl_versioned *binding_dl_new_versioned(void *data, uint32_t code, uint32_t bits,
                                                      uint32_t lanes, uint32_t rank,
                                                      const uint64_t *shape, uintptr_t owner,
                                                      uint64_t flags) {
    struct dl_box *box = binding_dl_new_box(rank, shape, owner);
    if (!box)
        return NULL;
    struct binding_dl_versioned *versioned = &box->as.versioned;
    binding_dl_fill(box, &versioned->tensor, data, code, bits, lanes, rank);
    versioned->major = 1;
    versioned->context = box;
    versioned->deleter = binding_dl_delete_versioned;
    versioned->flags = flags;
    return versioned;
}

/* A consumer renames the capsule and calls the deleter itself. Python calls this with the GIL. */
static void binding_dl_end_capsule(PyObject *capsule) {
    if (PyCapsule_IsValid(capsule, "dltensor")) {
        struct binding_dl_managed *managed = PyCapsule_GetPointer(capsule, "dltensor");
        managed->deleter(managed);
    } else if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        struct binding_dl_versioned *versioned =
            PyCapsule_GetPointer(capsule, "dltensor_versioned");
        versioned->deleter(versioned);
    }
}

uintptr_t binding_dl_capsule_destructor(void) {
    return (uintptr_t)binding_dl_end_capsule;
}
