/* SPDX-License-Identifier: Apache-2.0
 *
 * libfeature: put, get and free samples through the featured broker of this machine.
 *
 * A sample is a few named tensors plus opaque metadata under a sample_id that is unique in its
 * store. A put gives a ref: metadata only, a few hundred bytes, to be handed to whoever shall read.
 * A get gives a view: the tensors' bytes, mapped read-only, valid and unchanged until released
 * whatever becomes of the sample.
 *
 * Conventions
 *  - Every function returns FEATURE_OK (0) or a negative FEATURE_E_* (feature_get_finish() also
 * FEATURE_PENDING); feature_last_error() then
 * holds a sentence for the calling thread that names the object, the cause and the limit. Outputs
 * come last and are set only on success.
 *  - Every struct begins with its `size`, so that a program and a library of different ages
 * understand each other. Whoever makes the struct sets it: `struct feature_options o =
 * FEATURE_OPTIONS_INIT;` or `{.size = sizeof o, .client_name = "trainer"}`. Zero in any other field
 * means its default.
 * A program older than the library passes a smaller struct: the fields that it does not know
 * count as zero, and the library writes none of them. A program newer than the library passes a
 * larger one: a field that the library does not know must be zero, else the call fails with
 * FEATURE_E_UNSUPPORTED; what the library fills in leaves it zero.
 * In an array every element has the same size.
 *  - Deadlines are relative milliseconds and cover the whole call: waiting for room, copying,
 * commit, connecting again. The broker answers at the deadline, so the call may end up to half a
 * second later. 0 = do not wait for space or for a sample. What has no deadline, or 0, is given
 * 10 s in all (lists, acks and aborts: 10 s for each message they need; more than 256 samples need
 * more than one). A transfer that moves is not timed out, and a put that is copying ends its copy.
 *  - What this process lacks (descriptors, address space, memory) fails the one call with
 * FEATURE_E_FULL and a sentence that names the limit. It ends no connection and no lease.
 *  - A `struct feature` may be used by many threads at once.
 *  - A forked child is not its parent: it holds nothing and keeps nothing alive. Its calls on what
 * it inherited (handle, store, view, reservation) fail with FEATURE_E_INVALID; it must connect
 * anew. Closing, releasing, cancelling and disconnecting free the child's memory and change nothing
 * for the parent. Pointers that the parent took stay readable in the child, not writable, and are
 * protected by the parent's lease alone. When the process that connected dies, or becomes another
 * program (exec), its leases end as returned and its reservations are cancelled, whatever children
 * it leaves behind.
 *  - A lost connection ends nothing: the handle connects again by itself with back-off and goes on
 * with its views, reservations and open stores; calls in between wait, and fail
 * FEATURE_E_UNAVAILABLE after their deadline. Only when the broker has come back without its memory
 * are they over: views stay readable, and feature_view_check() tells that their lease is gone.
 *  - The library never prints. It starts one small thread, at the first release, that sends
 * releases which no later request has taken along within a millisecond.
 */
#ifndef FEATURE_H
#define FEATURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Of this header. The Makefile reads the version of everything else from these three lines. */
#define FEATURE_VERSION_MAJOR 0
#define FEATURE_VERSION_MINOR 1
#define FEATURE_VERSION_PATCH 0
/* One number to compare in #if: 0.1.0 is 100, 1.2.3 is 10203. */
#define FEATURE_VERSION_NUMBER                                                                     \
    (FEATURE_VERSION_MAJOR * 10000 + FEATURE_VERSION_MINOR * 100 + FEATURE_VERSION_PATCH)

/* What a call may return beside FEATURE_OK (0): the constant, its word (see feature_strerror()),
 * its number on the wire and in exit codes, and what it means. FEATURE_E_FULL may also be a limit
 * of this process. The constants are made from this table, and so is all else that lists them. */
#define FEATURE_STATUSES(STATUS)                                                                   \
    STATUS(FEATURE_E_INVALID, INVALID, 1, "the request is wrong")                                  \
    STATUS(FEATURE_E_DENIED, DENIED, 2, "no right to do this")                                     \
    STATUS(FEATURE_E_NOT_FOUND, NOT_FOUND, 3,                                                      \
           "retired, superseded, gone or never seen: ask featurectl explain")                      \
    STATUS(FEATURE_E_EXISTS, EXISTS, 4, "there is one already; a store: with other settings")      \
    STATUS(FEATURE_E_FULL, FULL, 5, "a quota or limit was hit; freeing or waiting longer helps")   \
    STATUS(FEATURE_E_TIMEOUT, TIMEOUT, 6, "the deadline passed without progress")                  \
    STATUS(FEATURE_E_UNAVAILABLE, UNAVAILABLE, 7,                                                  \
           "broker, peer or directory out of reach; a retry may help")                             \
    STATUS(FEATURE_E_LOST, LOST, 8, "the home node is gone with the bytes")                        \
    STATUS(FEATURE_E_CORRUPT, CORRUPT, 9, "checksum mismatch, also after a second read")           \
    STATUS(FEATURE_E_UNSUPPORTED, UNSUPPORTED, 10, "not available here")                           \
    STATUS(FEATURE_E_INTERNAL, INTERNAL, 11, "a fault of featured itself")
enum feature_status {
    FEATURE_OK = 0,
    FEATURE_PENDING = 1, /* from feature_get_finish() alone: it has not ended yet */
#define FEATURE_STATUS_CONSTANT(constant, word, number, meaning) constant = -(number),
    FEATURE_STATUSES(FEATURE_STATUS_CONSTANT)
#undef FEATURE_STATUS_CONSTANT
};

#define FEATURE_RANK_MAX    8
#define FEATURE_TENSORS_MAX 64

/* A static word: "NOT_FOUND". */
const char *feature_strerror(int error);
/* The sentence of this thread's last failed call; valid until its next call. Never NULL. */
const char *feature_last_error(void);
/* The version of the library that the program runs with, which may be another than that of the
 * header it was compiled with: as a word, "0.1.0", and as FEATURE_VERSION_NUMBER counts it. */
const char *feature_version(void);
uint32_t feature_version_number(void);

struct feature;             /* a connection to this node's broker */
struct feature_store;       /* an open store; borrowed from its connection */
struct feature_ref;         /* pointer to one generation; immutable, heap */
struct feature_view;        /* leased, mapped bytes of one generation */
struct feature_reservation; /* writable room for one sample */
struct feature_queue;       /* gets under way, and the one descriptor that tells of them */
struct feature_request;     /* a get that was started on a queue */

/* ---- connection ---- */
enum feature_log_level {
    FEATURE_LOG_ERROR,
    FEATURE_LOG_WARNING,
    FEATURE_LOG_INFO,
    FEATURE_LOG_DEBUG
};
typedef void (*feature_log_fn)(void *context, enum feature_log_level level, const char *sentence);
typedef bool (*feature_interrupted_fn)(void *context);

struct feature_options {
    size_t size;
    const char *socket_path;     /* default: $FEATURED_SOCKET, else /run/featured/featured.sock */
    const char *client_name;     /* shown by featurectl leases; default: the program's name */
    uint32_t connect_timeout_ms; /* default 5000 */
    feature_log_fn log;          /* may be called from any thread that is inside a call */
    void *log_context;
    /* Asked about twice a second by a call that waits for the broker, in the thread of the call and
     * without a lock; a signal makes it be asked at once. True: the caller wants its call to end.
     * The call fails with FEATURE_E_TIMEOUT and holds nothing; of a put that was on its way it is
     * not known whether the sample is visible. NULL: calls are not interrupted. Gets of a queue
     * are cancelled by feature_request_cancel() instead. */
    feature_interrupted_fn interrupted;
    void *interrupted_context;
};
#define FEATURE_OPTIONS_INIT                                                                       \
    { .size = sizeof(struct feature_options) }
/* options may be NULL. Blocks up to connect_timeout_ms. */
int feature_connect(const struct feature_options *options, struct feature **out);
/* Ends the session, after waiting up to a second for its releases to arrive: leases end as
 * returned, reservations are cancelled. Stores opened through it are closed. Views may outlive it:
 * readable until feature_release(). NULL is fine. */
void feature_disconnect(struct feature *feature);

/* ---- stores ---- */
enum feature_policy {
    FEATURE_POLICY_ON_RELEASE = 0, /* retire after `readers` consumed releases */
    FEATURE_POLICY_ON_ACK = 1,     /* retire by feature_ack() */
    FEATURE_POLICY_RETAIN = 2,     /* retire by abort, supersede or gc only */
};
enum feature_checksum {
    FEATURE_CHECKSUM_AFTER_NETWORK = 0,
    FEATURE_CHECKSUM_ALWAYS = 1,
    FEATURE_CHECKSUM_NEVER = 2
};

struct feature_store_options {
    size_t size;
    enum feature_policy policy;
    uint32_t readers;            /* default 1 */
    uint64_t max_resident_bytes; /* default: the broker's */
    uint64_t landing_bytes; /* kept for reading other nodes' samples; default: the broker's share */
    uint64_t max_hold_ms;   /* 0 = for ever */
    enum feature_checksum checksum;
    uint32_t max_samples; /* default: the broker's */
    const void *secret;   /* NULL = none: socket permission and allow-lists alone decide */
    size_t secret_bytes;
};
#define FEATURE_STORE_OPTIONS_INIT                                                                 \
    { .size = sizeof(struct feature_store_options) }
/* Needs admin rights (see featured.conf). The same name with the same settings is FEATURE_OK, with
 * others FEATURE_E_EXISTS. */
int feature_store_create(struct feature *feature, const char *name,
                         const struct feature_store_options *options);
int feature_store_drop(struct feature *feature, const char *name);

struct feature_open_options {
    size_t size;
    bool read_only; /* get, ack and probe only: the mapping is read-only */
    const void *secret;
    size_t secret_bytes;
    bool cuda_unpinned; /* do not register the arena with CUDA */
};
#define FEATURE_OPEN_OPTIONS_INIT                                                                  \
    { .size = sizeof(struct feature_open_options) }
/* options may be NULL. Opening a store twice gives two handles on one mapping. Takes address space
 * for the whole store, and a descriptor for a moment. */
int feature_store_open(struct feature *feature, const char *name,
                       const struct feature_open_options *options, struct feature_store **out);
void feature_store_close(struct feature_store *store);

/* ---- samples ---- */
enum feature_dtype { /* names and sizes as in safetensors, which lacks the last two */
                     FEATURE_DTYPE_BOOL = 1,
                     FEATURE_DTYPE_U8,
                     FEATURE_DTYPE_I8,
                     FEATURE_DTYPE_F8_E4M3,
                     FEATURE_DTYPE_F8_E5M2,
                     FEATURE_DTYPE_U16,
                     FEATURE_DTYPE_I16,
                     FEATURE_DTYPE_F16,
                     FEATURE_DTYPE_BF16,
                     FEATURE_DTYPE_U32,
                     FEATURE_DTYPE_I32,
                     FEATURE_DTYPE_F32,
                     FEATURE_DTYPE_U64,
                     FEATURE_DTYPE_I64,
                     FEATURE_DTYPE_F64,
                     FEATURE_DTYPE_F8_E8M0, /* scales */
                     FEATURE_DTYPE_F8_E4M3FNUZ,
                     FEATURE_DTYPE_F8_E5M2FNUZ,
                     FEATURE_DTYPE_F4, /* two in a byte */
                     FEATURE_DTYPE_F6_E2M3,
                     FEATURE_DTYPE_F6_E3M2,
                     FEATURE_DTYPE_C64,  /* two F32: real, imaginary */
                     FEATURE_DTYPE_C32,  /* two F16; torch.complex32 */
                     FEATURE_DTYPE_C128, /* two F64; torch.complex128 */
};
/* Of one element. A tensor's bytes are elements * bits / 8; they must come out whole. */
uint32_t feature_dtype_bits(enum feature_dtype dtype); /* 0 = unknown */
/* 0 = unknown, or an element has less than a byte (F4, F6_*): ask for its bits. */
uint32_t feature_dtype_bytes(enum feature_dtype dtype);
const char *feature_dtype_name(enum feature_dtype dtype); /* "BF16"; NULL = unknown */
enum feature_dtype feature_dtype_parse(const char *name); /* 0 = unknown */

/* One that is borrowed from a ref has the size that the library knows. */
struct feature_tensor {
    size_t size;
    const char *name;
    enum feature_dtype dtype;
    uint32_t rank;
    uint64_t shape[FEATURE_RANK_MAX]; /* outermost first */
    uint64_t bytes;                   /* 0 in a put = computed */
    uint64_t checksum;                /* XXH3-64; 0 in a put; valid when the ref has checksums */
};
#define FEATURE_TENSOR_INIT                                                                        \
    { .size = sizeof(struct feature_tensor) }
struct feature_sample {
    size_t size;
    const char *sample_id; /* 1..128 bytes UTF-8 */
    const struct feature_tensor *tensors;
    uint32_t tensor_count;
    const void *metadata; /* opaque; with the tensor specs at most 8 KiB */
    size_t metadata_bytes;
    /* The CUstream or cudaStream_t on which the data are made; see "GPU memory" below. NULL: none,
     * and copies from a GPU use its legacy default stream. */
    void *cuda_stream;
};
#define FEATURE_SAMPLE_INIT                                                                        \
    { .size = sizeof(struct feature_sample) }

/* ---- GPU memory ----
 * A pointer to the memory of an NVIDIA GPU may stand where feature_put() and feature_put_batch()
 * take a tensor's bytes and where feature_get_into() puts them. The library finds that out by
 * itself and has the driver copy; it never touches such memory. A process that has not loaded
 * libcuda.so.1 has no such pointers and is asked nothing.
 *
 * Order: what was queued on cuda_stream before the call is done before its data are read or its
 * buffer is written. When the call returns, all copies have ended, also after a failure. Between
 * feature_reserve() and feature_commit() the program may queue copies of its own into the
 * reservation on the sample's cuda_stream: the commit waits for that stream. (To name the legacy
 * default stream there, use CU_STREAM_LEGACY, which is 1.)
 *
 * Speed: the arena is registered with the driver (cuMemHostRegister) once, in the background,
 * beginning with the opening of a store in a thread that has a current context, or with the first
 * copy. That pins the arena's pages; cuda_unpinned keeps it from being done.
 *
 * What the driver refuses fails the call: FEATURE_E_INVALID (a pointer, size or stream is wrong),
 * FEATURE_E_FULL (no GPU memory), or FEATURE_E_UNAVAILABLE, with the driver's words. */

/* ---- zero-copy put ---- */
/* Takes room in the arena. When it is short it waits in line up to deadline_ms, or the store's
 * max_wait, then FEATURE_E_FULL with a sentence that names who holds the room. The line is first
 * come, first served; while its first cannot be served yet those behind it that fit pass it, for
 * the store's max_pass.
 *
 * A reservation ends by itself when it has not been committed within the store's max_reserve (10
 * minutes unless configured otherwise; or max_hold, where that is shorter). The commit is then
 * FEATURE_E_NOT_FOUND. Nothing may be written any more by then: the memory may be another sample's,
 * and the broker cannot take the mapping away. feature_put() keeps to this by itself. */
int feature_reserve(struct feature_store *store, const struct feature_sample *sample,
                    uint32_t deadline_ms, struct feature_reservation **out);
/* Where tensor i is to be written: its `bytes`, 4 KiB aligned (64 B when smaller than 4 KiB). */
void *feature_reservation_data(const struct feature_reservation *reservation, uint32_t tensor);
/* Checksums the tensors (unless the store says never) and makes them visible, all at one moment.
 * Frees the reservation, also on failure. ref_out may be NULL. FEATURE_E_TIMEOUT: the broker did
 * not answer within 10 s, and whether the sample is visible is not known; put it again. */
int feature_commit(struct feature_reservation *reservation, struct feature_ref **ref_out);
/* Gives the room back. NULL is fine. */
void feature_cancel(struct feature_reservation *reservation);

/* ---- copying put ---- */
/* data[i] is tensor i: iov_len must equal its bytes. ref_out may be NULL. After FEATURE_E_TIMEOUT
 * or _UNAVAILABLE the sample may be visible or not; putting it again supersedes it. */
int feature_put(struct feature_store *store, const struct feature_sample *sample,
                const struct iovec *data, uint32_t deadline_ms, struct feature_ref **ref_out);
/* The same, unless a sample is resident under that id, on whatever node: that one stays as it is,
 * and the call is FEATURE_E_EXISTS, at once also where the store is full. The other nodes are asked
 * while the bytes are copied. Two that put one id at the same moment may both find nothing; then
 * the later one supersedes the earlier. */
int feature_put_new(struct feature_store *store, const struct feature_sample *sample,
                    const struct iovec *data, uint32_t deadline_ms, struct feature_ref **ref_out);
struct feature_put_item {
    size_t size;
    const struct feature_sample *sample;
    const struct iovec *data;
    int status;              /* out: FEATURE_OK or FEATURE_E_* */
    struct feature_ref *ref; /* out: owned by the caller; NULL on failure */
};
#define FEATURE_PUT_ITEM_INIT                                                                      \
    { .size = sizeof(struct feature_put_item) }
/* Each item stands alone; the deadline is that of all together. Returns FEATURE_OK when all did,
 * else the first failure's status. */
int feature_put_batch(struct feature_store *store, struct feature_put_item *items, size_t count,
                      uint32_t deadline_ms);

/* ---- get ---- */
struct feature_get_options {
    size_t size;
    uint32_t deadline_ms; /* without progress; default 30000 */
    uint32_t wait_ms;     /* wait that long for a sample not yet put; default 0 */
    void (*progress)(void *context, uint64_t bytes_done,
                     uint64_t bytes_total); /* of a remote read */
    void *progress_context;
    /* feature_get_into() copies to a GPU's memory on this CUstream or cudaStream_t. NULL: on the
     * legacy default stream. */
    void *cuda_stream;
};
#define FEATURE_GET_OPTIONS_INIT                                                                   \
    { .size = sizeof(struct feature_get_options) }
/* What to act on: a ref, or a sample_id (whatever generation is current). Exactly one is set. */
struct feature_key {
    size_t size;
    const struct feature_ref *ref;
    const char *sample_id;
};
#define FEATURE_KEY_INIT                                                                           \
    { .size = sizeof(struct feature_key) }
#ifndef __cplusplus
/* A key to hand to one call: feature_get(store, FEATURE_BY_ID("s1"), NULL, &view). It lives until
 * the end of the block that it stands in. (C++ has no such literals: make a struct there.) */
#define FEATURE_BY_REF(of_ref)                                                                     \
    (&(const struct feature_key){.size = sizeof(struct feature_key), .ref = (of_ref)})
#define FEATURE_BY_ID(of_id)                                                                       \
    (&(const struct feature_key){.size = sizeof(struct feature_key), .sample_id = (of_id)})
#endif
/* options may be NULL. */
int feature_get(struct feature_store *store, const struct feature_key *key,
                const struct feature_get_options *options, struct feature_view **out);
struct feature_get_item {
    size_t size;
    const struct feature_ref *ref; /* as in struct feature_key: this one */
    const char *sample_id;         /* or this one */
    int status;                    /* out: FEATURE_OK or FEATURE_E_* */
    struct feature_view *view;     /* out: owned by the caller; NULL on failure */
};
#define FEATURE_GET_ITEM_INIT                                                                      \
    { .size = sizeof(struct feature_get_item) }
/* Each item stands alone. Returns FEATURE_OK when all did, else the first failure's status. options
 * may be NULL, and are those of each item. */
int feature_get_batch(struct feature_store *store, struct feature_get_item *items, size_t count,
                      const struct feature_get_options *options);

/* ---- get without waiting, for programs with an event loop ----
 *
 * A queue has any number of gets under way and one descriptor, however many they are and however
 * often the connection to the broker is made anew. The descriptor becomes readable when something
 * is to be done (an answer has come, the socket has room again, a deadline has passed);
 * feature_queue_next() does it, and gives the requests that have ended:
 *
 *     feature_queue_open(feature, NULL, &queue);
 *     feature_get_start(queue, store, &item, 1, NULL, my_context, &request);
 *     // when poll(), epoll or asyncio's add_reader say that feature_queue_fd(queue) is readable:
 *     while ((request = feature_queue_next(queue)) != NULL)
 *         if (feature_get_finish(request, &item, 1) == FEATURE_OK)
 *             use(item.view);
 *
 * None of these functions waits for the broker, connecting again included, and no get needs a
 * thread. feature_get() is the same get, and waits for it.
 *
 * Order. Requests of a queue go to the broker in the order in which they were started, and end in
 * any order.
 *
 * How many. A session may have `max_requests_per_session` requests unanswered (featured.conf; 256).
 * Of these the queues of a handle use three quarters together, so that calls that wait get through
 * beside them. What is more waits inside the library for its turn, in order, and its deadline does
 * not begin meanwhile: thousands may be under way. Each sample got is a lease, of which
 * `max_leases_per_session` are allowed (65536): beyond that a get ends with FEATURE_E_FULL.
 *
 * The deadline begins when the request is sent, or when it is found that there is no connection to
 * send it on. It means what it means for feature_get(): so long without progress, after wait_ms.
 *
 * Several threads. Any thread may start, finish and cancel; several may call feature_queue_next(),
 * and each request that has ended is given to one of them. A single request is used by one thread
 * at a time. Calls that wait, made by other threads on the same handle, may receive answers of a
 * queue and the other way round.
 *
 * When the broker dies, restarts or ends the session, requests under way are sent again on the next
 * connection, until their deadline: then they end with FEATURE_E_UNAVAILABLE. After
 * feature_disconnect() those that have not ended do so, with FEATURE_E_UNAVAILABLE; the queue has
 * to be closed all the same. A store that is closed while gets from it are under way stays open for
 * them.
 *
 * Fork. In a forked child the descriptor is closed and feature_queue_fd() gives -1, start and
 * finish fail with FEATURE_E_INVALID, feature_queue_next() gives NULL, and feature_queue_close()
 * and feature_request_cancel() free the child's memory and change nothing for the parent. */
struct feature_queue_options {
    size_t size;
    /* Most requests that this queue has at the broker at a time; what is more waits inside the
     * library. Default (0), and at most: three quarters of what the broker allows a session. */
    uint32_t requests_max;
};
#define FEATURE_QUEUE_OPTIONS_INIT                                                                 \
    { .size = sizeof(struct feature_queue_options) }
/* options may be NULL. Takes three descriptors of this process, whatever is started on it. */
int feature_queue_open(struct feature *feature, const struct feature_queue_options *options,
                       struct feature_queue **out);
/* To be polled for reading and for nothing else: neither read from nor closed by the caller. The
 * same for as long as the queue lives; -1 in a forked child. It stays readable as long as a request
 * that has ended has not been given out. It may be readable when there is nothing to give: another
 * thread has done what was to be done, or only a part of an answer has come. */
int feature_queue_fd(const struct feature_queue *queue);
/* Does what can be done without waiting and gives a request that has ended, NULL when there is none
 * now. Call it until it gives NULL. Calls the progress functions of requests under way, and
 * checks the bytes of large samples as they land (CPU time: about 0.1 ms for each MiB). */
struct feature_request *feature_queue_next(struct feature_queue *queue);
/* Cancels and frees every request started on it that was not finished or cancelled, and closes the
 * descriptor (take it out of the event loop first). No other thread may be using the queue. NULL is
 * fine. */
void feature_queue_close(struct feature_queue *queue);

/* Starts one get of `count` keys (at least 1), which ends when the last of its keys has been
 * answered; start them one by one to have each as it comes. Reads size, ref and sample_id of each
 * item and copies what they point to: items and options are the caller's again at once. A key that
 * is wrong by itself, and everything that the broker refuses, is told by feature_get_finish().
 * options may be NULL. context: for feature_request_context(). What fails here has not been
 * started. */
int feature_get_start(struct feature_queue *queue, struct feature_store *store,
                      const struct feature_get_item *items, size_t count,
                      const struct feature_get_options *options, void *context,
                      struct feature_request **out);
/* What was given to feature_get_start(). */
void *feature_request_context(const struct feature_request *request);
/* Takes what the get has brought and frees the request: status and view of each of the `count`
 * items (as many as were started; what they hold is overwritten, only size is looked at). Returns
 * FEATURE_OK when all were got, else the first failure's status, with its sentence in
 * feature_last_error(). Checks the samples against their checksums where the store's policy wants
 * it (CPU time: about 0.1 ms for each MiB that was not checked as it landed); does not wait.
 *
 * FEATURE_PENDING: it has not ended, or a sample did not match its checksums and has been asked for
 * once more. The request lives on, nothing has been written, and feature_queue_next() gives it when
 * it has ended (again). FEATURE_E_INVALID because of the arguments leaves the request as it is,
 * too: a wrong count, or items that are NULL or too small. */
int feature_get_finish(struct feature_request *request, struct feature_get_item *items,
                       size_t count);
/* Frees the request, whether it has ended or not: views that were not taken are given back as
 * returned, and so is what the broker grants later. The broker is told that nobody waits any
 * more. A progress function that is running in
 * another thread's feature_queue_next() runs to its end. NULL is fine. */
void feature_request_cancel(struct feature_request *request);

/* ---- what was got ---- */
/* The ref of what was got; borrowed from the view. */
const struct feature_ref *feature_view_ref(const struct feature_view *view);
/* Bytes of tensor i; NULL if there is no such tensor. */
const void *feature_view_data(const struct feature_view *view, uint32_t tensor);
/* Copies tensors to the caller's buffers, which may be a GPU's memory: see "GPU memory". tensors[i]
 * is the index of what goes to buffers[i]; NULL: all, in order. buffers[i].iov_len is room, INVALID
 * when too small. The view stays. cuda_stream as in struct feature_get_options. */
int feature_view_copy(const struct feature_view *view, const uint32_t *tensors,
                      const struct iovec *buffers, uint32_t count, void *cuda_stream);
/* Index by name, or -1. */
int feature_view_find(const struct feature_view *view, const char *tensor_name);
/* FEATURE_OK while the lease holds, also while the broker is away: it comes back with its memory
 * and the lease, or nobody writes there any more. FEATURE_E_LOST: its broker has been replaced by
 * one without its memory, or this handle was disconnected; the bytes stay as they are.
 * FEATURE_E_UNAVAILABLE: the broker lives and has ended the session, so the bytes may be replaced:
 * get them again. To tell which, it may connect, for at most a second. */
int feature_view_check(const struct feature_view *view);

/* How a read ended. Consumed counts towards the store's `readers`; returned does not, and the
 * sample can be read again. */
enum feature_release_how { FEATURE_RELEASE_RETURNED = 0, FEATURE_RELEASE_CONSUMED = 1 };

/* Copies tensors to the caller's buffers and releases the lease: as `how` says when all was copied,
 * else as returned. names == NULL: all, in order. buffers[i].iov_len is room on entry (INVALID when
 * too small). */
int feature_get_into(struct feature_store *store, const struct feature_key *key,
                     const struct feature_get_options *options, const char *const *names,
                     const struct iovec *buffers, uint32_t count, enum feature_release_how how);

/* Ends the read and frees the view. One-way: does not wait for the broker; rides on the next
 * request, or is sent within a millisecond. Never fails for a lease that is
 * gone. Waits up to 100 ms where the broker has stopped reading. NULL is fine. */
int feature_release(struct feature_view *view, enum feature_release_how how);
int feature_release_batch(struct feature_view **views, size_t count, enum feature_release_how how);

/* ---- retire ---- */
/* Idempotent: absent or superseded = FEATURE_OK. After an OK no get of it succeeds any more; but an
 * ack by ref whose home cannot be reached is answered OK, kept, and repeated until the home has it
 * (feature_drain() waits for that). Each key stands alone. statuses_out, which may be NULL, has
 * room for `count`: statuses_out[i] becomes FEATURE_OK or the FEATURE_E_* of keys[i], whatever the
 * call returns. Returns FEATURE_OK when all did, else the first failure's status. */
int feature_ack(struct feature_store *store, const struct feature_key *keys, size_t count,
                int *statuses_out);
int feature_abort(struct feature_store *store, const struct feature_key *keys, size_t count,
                  int *statuses_out);

/* ---- probes: no lease, no side effect ---- */
enum feature_state {
    FEATURE_STATE_NEVER_SEEN = 0,
    FEATURE_STATE_PLANNED,
    FEATURE_STATE_SEALED,
    FEATURE_STATE_RESIDENT,
    FEATURE_STATE_RETIRED,
    FEATURE_STATE_GONE,
    FEATURE_STATE_HOME_LOST, /* its home is dead, and the bytes with it */
};
/* A broker that is newer than the library may tell of a state with another number. */
struct feature_info {
    size_t size;
    char sample_id[129];
    uint64_t generation;
    enum feature_state state;
    const char *reason; /* static words, e.g. "superseded"; "" unless retired or gone */
    uint64_t extent_bytes, age_ms;
    uint32_t leases, consumed, readers;
    bool landing; /* a copy whose home is another node */
};
#define FEATURE_INFO_INIT                                                                          \
    { .size = sizeof(struct feature_info) }
/* FEATURE_OK only if it is RESIDENT; FEATURE_E_NOT_FOUND else. */
int feature_exists(struct feature_store *store, const struct feature_key *key);
/* out->size says what the caller knows. ref_out may be NULL. */
int feature_stat(struct feature_store *store, const struct feature_key *key,
                 struct feature_info *out, struct feature_ref **ref_out);
/* RESIDENT samples at home on this node whose id begins with prefix (NULL = all). Stops when
 * visit() gives false. *info is the library's, with the size that it knows, until visit() returns.
 */
int feature_list(struct feature_store *store, const char *prefix,
                 bool (*visit)(void *context, const struct feature_info *info), void *context);

/* ---- steering ---- */
/* Frees unleased samples older than max_hold_ms (0 = the store's own). freed_out may be NULL. */
int feature_gc(struct feature_store *store, uint64_t max_hold_ms, uint64_t *freed_out);
/* Waits until every release and retire reached its home. FEATURE_E_TIMEOUT tells what is left. */
int feature_drain(struct feature *feature, uint32_t deadline_ms);
struct feature_health {
    size_t size;
    char node[65];
    uint64_t incarnation, uptime_ms, resident_bytes, max_resident_bytes, sessions, leases,
        release_pending;
    bool draining;
};
#define FEATURE_HEALTH_INIT                                                                        \
    { .size = sizeof(struct feature_health) }
/* out->size says what the caller knows. */
int feature_health(struct feature *feature, struct feature_health *out);

/* ---- refs ---- */
const char *feature_ref_store(const struct feature_ref *ref);
const char *feature_ref_sample_id(const struct feature_ref *ref);
uint64_t feature_ref_generation(const struct feature_ref *ref);
const char *feature_ref_home(const struct feature_ref *ref);
uint64_t feature_ref_incarnation(const struct feature_ref *ref);
uint64_t
feature_ref_bytes(const struct feature_ref *ref); /* of the tensors; 0 if not known (from a URI) */
uint32_t feature_ref_tensor_count(const struct feature_ref *ref);
/* Borrowed from the ref; NULL past the end. */
const struct feature_tensor *feature_ref_tensor(const struct feature_ref *ref, uint32_t index);
const void *feature_ref_metadata(const struct feature_ref *ref, size_t *bytes_out);
bool feature_ref_has_checksums(const struct feature_ref *ref);
struct feature_ref *feature_ref_dup(const struct feature_ref *ref);
void feature_ref_free(struct feature_ref *ref);
/* Serialised form. *bytes_out is always set; FEATURE_E_FULL if room is too small (room 0 asks the
 * size). */
int feature_ref_encode(const struct feature_ref *ref, void *buffer, size_t room, size_t *bytes_out);
int feature_ref_decode(const void *buffer, size_t bytes, struct feature_ref **out);
/* feature://STORE/SAMPLE?generation=G&home=NODE&incarnation=I, reserved bytes of SAMPLE
 * percent-encoded. Carries no tensor specs: a get fills them in. *bytes_out counts the terminating
 * NUL. */
int feature_ref_to_uri(const struct feature_ref *ref, char *buffer, size_t room, size_t *bytes_out);
int feature_ref_from_uri(const char *uri, struct feature_ref **out);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
