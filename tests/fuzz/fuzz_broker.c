/* SPDX-License-Identifier: Apache-2.0
 *
 * A hostile broker under libfeature. Byte 0 of an input says what the application does, the rest is
 * what the broker says, all of it before it is asked anything; then it closes. Records of
 *
 *   flags, request_id, bytes (2, little-endian), body
 *
 * become a reply or a notice with that body, or are sent as they are. The link's request ids count
 * from 1 (the Hello), so a record answers whom it names. fc_socket_connect() is replaced at link
 * time (Makefile): the first connection is one end of a socket pair, there is no second.
 *
 * All that the broker will ever say is there before the library asks, so nothing is worth waiting
 * for: a wait of the fuzzer's thread (back-off between attempts to connect, room in a socket that
 * nobody reads) moves the clock to its end instead. The clock is CLOCK_MONOTONIC as the library
 * sees it during one execution; libFuzzer measures with another.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin.h"
#include "proto/frame.h"
#include "ref.h"

enum {
    RECORD_NOTICE = 1,
    RECORD_RAW = 2,
    RECORD_ARENA = 4, /* the arena's descriptor goes with it */
    RECORD_HEADER_BYTES = 4,
};

enum { APP_ACTIONS = 9, APP_READ_ONLY = 0x40, APP_SECRET = 0x80, APP_ACTION_MASK = 0x3f };

#define ARENA_BYTES  (8u << 20) /* room for samples that are checked while they land */
#define TENSOR_BYTES (4u << 20)
#define QUEUE_BYTES  (1 << 20)
#define STORE        "run"
#define SAMPLE       "s"

static int arena_fd = -1, client_end = -1, broker_end = -1;

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);
int __wrap_fc_socket_connect(const char *path);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __real_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                 const sigset_t *mask);
int __real_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                 const sigset_t *mask);
int __wrap_pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *lock, clockid_t clock,
                                  const struct timespec *until);
int __real_pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *lock, clockid_t clock,
                                  const struct timespec *until);

static void expect(bool condition) {
    if (!condition)
        abort();
}

int __wrap_fc_socket_connect(const char *path) {
    (void)path;
    int fd = client_end;
    client_end = -1;
    return fd >= 0 ? fd : -EACCES;
}

/* ---- the clock ---- */

static atomic_llong ahead_ns;        /* of the real one; 0 between executions */
static _Thread_local bool is_fuzzer; /* this is the thread that runs the inputs */

static long long to_ns(const struct timespec *time) {
    return time->tv_sec * 1000000000ll + time->tv_nsec;
}

static struct timespec from_ns(long long ns) {
    return (struct timespec){.tv_sec = ns / 1000000000ll, .tv_nsec = ns % 1000000000ll};
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *out) {
    int rc = __real_clock_gettime(clock, out);
    if (clock == CLOCK_MONOTONIC)
        *out = from_ns(to_ns(out) + ahead_ns);
    return rc;
}

int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                 const sigset_t *mask) {
    int ready = __real_ppoll(fds, count, &(struct timespec){0}, mask);
    if (ready == 0)
        ahead_ns += to_ns(timeout);
    return ready;
}

/* The flusher's tick stays a real one: it is the other thread that is to be met. */
int __wrap_pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *lock, clockid_t clock,
                                  const struct timespec *until) {
    struct timespec now;
    if (!is_fuzzer) {
        const struct timespec real = from_ns(to_ns(until) - ahead_ns);
        return __real_pthread_cond_clockwait(cond, lock, clock, &real);
    }
    __wrap_clock_gettime(CLOCK_MONOTONIC, &now);
    if (to_ns(until) > to_ns(&now))
        ahead_ns += to_ns(until) - to_ns(&now);
    return ETIMEDOUT;
}

/* ---- chance ---- */

/* The same in every execution: an input does again what it did. */
static uint32_t chance_state;

static uint32_t chance_next(void) {
    return chance_state = chance_state * 1664525u + 1013904223u;
}

static void chance_fill(void *const buffer, const size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)buffer)[i] = (uint8_t)(chance_next() >> 24);
}

static const char *chance_name(void) {
    return "fuzzer";
}

static struct randombytes_implementation chance = {
    .implementation_name = chance_name, .random = chance_next, .buf = chance_fill};

/* ---- the broker ---- */

static void say(const uint8_t *packet, size_t bytes, bool with_arena) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = (void *)packet, .iov_len = bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (with_arena) {
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &arena_fd, sizeof(int));
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
    }
    (void)sendmsg(broker_end, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void say_all(const uint8_t *script, size_t bytes) {
    static uint8_t frame[FRAME_HEADER_BYTES + UINT16_MAX];
    while (bytes >= RECORD_HEADER_BYTES) {
        uint8_t flags = script[0], request_id = script[1];
        size_t body_bytes = script[2] | (size_t)script[3] << 8;
        script += RECORD_HEADER_BYTES;
        bytes -= RECORD_HEADER_BYTES;
        if (body_bytes > bytes)
            body_bytes = bytes;
        struct frame_header header = {
            .version = FRAME_VERSION,
            .type = flags & RECORD_NOTICE ? FRAME_NOTICE : FRAME_REPLY,
            .request_id = request_id,
            .body_bytes = (uint32_t)body_bytes,
        };
        frame_encode(&header, frame);
        memcpy(frame + FRAME_HEADER_BYTES, script, body_bytes);
        if (flags & RECORD_RAW)
            say(script, body_bytes, flags & RECORD_ARENA);
        else
            say(frame, FRAME_HEADER_BYTES + body_bytes, flags & RECORD_ARENA);
        script += body_bytes;
        bytes -= body_bytes;
    }
}

static void start_broker(const uint8_t *script, size_t bytes) {
    int ends[2];
    if (arena_fd < 0) {
        arena_fd = memfd_create("arena", MFD_CLOEXEC);
        expect(arena_fd >= 0 && ftruncate(arena_fd, ARENA_BYTES) == 0);
    }
    expect(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    client_end = ends[0];
    broker_end = ends[1];
    for (unsigned i = 0; i < 2; i++)
        expect(setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &(int){QUEUE_BYTES}, sizeof(int)) == 0);
    say_all(script, bytes);
    /* Not close(): the client could no longer send, and would not read what is there. */
    expect(shutdown(broker_end, SHUT_WR) == 0);
}

/* ---- the application ---- */

static const struct feature_tensor tensor = {.size = sizeof(struct feature_tensor),
                                             .name = "t",
                                             .dtype = FEATURE_DTYPE_U8,
                                             .rank = 1,
                                             .shape = {TENSOR_BYTES}};
static const struct feature_tensor small_tensor = {.size = sizeof(struct feature_tensor),
                                                   .name = "t",
                                                   .dtype = FEATURE_DTYPE_U8,
                                                   .rank = 1,
                                                   .shape = {4}};

static void touch(const void *data, size_t bytes) {
    const volatile uint8_t *byte = data;
    for (size_t i = 0; i < bytes; i += 512)
        (void)byte[i];
    if (bytes)
        (void)byte[bytes - 1];
}

static void look_at_ref(const struct feature_ref *ref) {
    size_t bytes;
    for (uint32_t i = 0; i < feature_ref_tensor_count(ref); i++)
        expect(memchr(feature_ref_tensor(ref, i)->name, '\0', 256) != NULL);
    const void *metadata = feature_ref_metadata(ref, &bytes);
    touch(metadata, bytes);
    expect(feature_ref_encode(ref, NULL, 0, &bytes) == FEATURE_E_FULL);
    expect(feature_ref_to_uri(ref, NULL, 0, &bytes) == FEATURE_E_FULL);
}

static void get(struct feature_store *store, const struct feature_key *key) {
    struct feature_view *view;
    for (int i = 0; i < 2; i++) { /* the second takes the first one's release along */
        if (feature_get(store, key, NULL, &view))
            continue;
        const struct feature_ref *ref = feature_view_ref(view);
        look_at_ref(ref);
        for (uint32_t t = 0; t < feature_ref_tensor_count(ref); t++)
            touch(feature_view_data(view, t), feature_ref_tensor(ref, t)->bytes);
        feature_release(view, FEATURE_RELEASE_CONSUMED);
    }
}

/* By a ref with checksums, which lets the broker say how far its bytes have landed. */
static void get_by_ref(struct feature_store *store) {
    static const uint8_t checksum[8] = {1};
    struct feature_sample sample = {
        .size = sizeof sample, .sample_id = SAMPLE, .tensors = &tensor, .tensor_count = 1};
    struct feature_ref *ref;
    expect(fc_ref_from_sample(STORE, &sample, &ref) == 0);
    expect(fc_ref_set_checksums(ref, checksum, sizeof checksum) == NULL);
    fc_ref_set_home(ref, 1, "home", 1);
    get(store, FEATURE_BY_REF(ref));
    feature_ref_free(ref);
}

static void put(struct feature_store *store, const struct feature_tensor *of) {
    struct feature_sample sample = {
        .size = sizeof sample, .sample_id = SAMPLE, .tensors = of, .tensor_count = 1};
    struct feature_reservation *room;
    struct feature_ref *ref = NULL;
    if (of == &small_tensor) {
        if (feature_put(store, &sample, &(struct iovec){"1234", 4}, 10, &ref) == 0)
            look_at_ref(ref);
        feature_ref_free(ref);
        return;
    }
    for (int i = 0; i < 2; i++) {
        if (feature_reserve(store, &sample, 10, &room))
            continue;
        touch(feature_reservation_data(room, 0), of->shape[0]);
        if (i)
            feature_cancel(room);
        else if (feature_commit(room, &ref) == 0)
            feature_ref_free(ref);
    }
}

static bool look_at_info(void *context, const struct feature_info *info) {
    unsigned *left = context;
    expect(memchr(info->sample_id, '\0', sizeof info->sample_id) != NULL);
    expect(info->reason != NULL);
    return --*left > 0;
}

static void stat_and_list(struct feature_store *store) {
    struct feature_info info = FEATURE_INFO_INIT;
    struct feature_ref *ref;
    if (feature_stat(store, FEATURE_BY_ID(SAMPLE), &info, &ref) == 0) {
        look_at_ref(ref);
        feature_ref_free(ref);
    }
    unsigned left = 1000;
    feature_list(store, NULL, look_at_info, &left);
}

static void retire(struct feature_store *store) {
    const struct feature_key keys[2] = {*FEATURE_BY_ID(SAMPLE), *FEATURE_BY_ID(SAMPLE SAMPLE)};
    uint64_t freed;
    feature_ack(store, keys, 2, NULL);
    feature_abort(store, keys, 1, NULL);
    feature_gc(store, 0, &freed);
}

static void on_stores(struct feature *feature, unsigned action) {
    const struct feature_open_options options = {
        .size = sizeof options,
        .read_only = action & APP_READ_ONLY,
        .secret = action & APP_SECRET ? "secret" : NULL,
        .secret_bytes = strlen("secret"),
    };
    struct feature_store *store;
    if (feature_store_open(feature, STORE, &options, &store))
        return;
    switch ((action & APP_ACTION_MASK) % APP_ACTIONS) {
    case 0:
        get(store, FEATURE_BY_ID(SAMPLE));
        break;
    case 1:
        get_by_ref(store);
        break;
    case 2:
        put(store, &small_tensor);
        break;
    case 3:
        put(store, &tensor);
        break;
    case 4:
        stat_and_list(store);
        break;
    default:
        retire(store);
        break;
    }
    feature_store_close(store);
}

static bool look_at_event(void *context, const Fb__Event *event) {
    unsigned *left = context;
    touch(event->sample_id, strlen(event->sample_id) + 1);
    return --*left > 0;
}

static void act(struct feature *feature, unsigned action) {
    struct feature_health health = {.size = sizeof health};
    unsigned left = 1000;
    switch ((action & APP_ACTION_MASK) % APP_ACTIONS) {
    case 6:
        if (feature_health(feature, &health) == 0)
            expect(memchr(health.node, '\0', sizeof health.node) != NULL);
        break;
    case 7:
        feature_admin_events(feature, STORE, 1000, look_at_event, &left);
        break;
    case 8:
        feature_drain(feature, 10);
        break;
    default:
        on_stores(feature, action);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes) {
    struct feature *feature;
    if (!bytes)
        return 0;
    if (!is_fuzzer)
        expect(randombytes_set_implementation(&chance) == 0);
    is_fuzzer = true;
    chance_state = 0;
    start_broker(input + 1, bytes - 1);
    const struct feature_options options = {.size = sizeof options, .socket_path = "fuzzed"};
    int rc = feature_connect(&options, &feature);
    expect(rc == 0 || feature_last_error()[0] != '\0');
    if (rc == 0) {
        act(feature, input[0]);
        feature_disconnect(feature);
    }
    if (client_end >= 0)
        close(client_end);
    close(broker_end);
    ahead_ns = 0;
    return 0;
}
